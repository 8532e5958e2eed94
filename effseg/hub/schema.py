"""What ``config.json`` of a model on the hub may say: the types it may name, their arguments, and the values of those.

A config from a stranger is handed to registries that import what a name says, and to constructors that read files and
take memory as their arguments say. So types are listed here one by one; the arguments of this package's are, too, and
those of MMSegmentation's are the ones its constructors have, but for what initialises, loads or trains. Every argument
takes one kind of value: a number has bounds, and a text is one of a few words, so that none is a file, an address or
something to call. What is not listed is refused.
"""

import functools
import inspect
import re
from collections.abc import Mapping

from .values import Check, either, integer, mapping, number, one_of, optional, sequence, short, text

SIDE, WIDTH, DEPTH, CLASSES = 8192, 2048, 64, 4096  # upper bounds: pixels, channels, blocks of a stage, classes


def check(content: Mapping) -> None:
    """Checks the whole of a config.

    Raises:
        ValueError: naming the value, and what was expected.
    """
    mapping(
        effseg_hub=integer(1, 1),
        effseg=text,
        model=_part('EncoderDecoder', 'CascadeEncoderDecoder'),
        test_pipeline=sequence(_part(*_PIPELINE), 1, 16),
        classes=sequence(text, 1, CLASSES),
        palette=sequence(sequence(integer(0, 255), 3, 3), 1, CLASSES),
    )(content, 'config')
    missing = {'effseg_hub', 'model', 'test_pipeline', 'classes', 'palette'} - set(content)
    missing |= {'data_preprocessor', 'backbone', 'decode_head'} - set(content.get('model', ()))
    if missing:
        raise ValueError(f'it is not complete: {", ".join(sorted(missing))} missing')
    if len(content['classes']) != len(content['palette']):
        raise ValueError(f'it names {len(content["classes"])} classes and {len(content["palette"])} colors')


def _part(*types: str) -> Check:
    def holds(value, where):
        kind = value.get('type') if isinstance(value, Mapping) else None
        if not isinstance(kind, str) or kind not in types:
            raise ValueError(f'{where} names the type {short(kind)}; one of {", ".join(types)} was expected')
        mapping(type=text, **arguments(kind))(value, where)

    return holds


def arguments(kind: str) -> dict[str, Check]:
    """The arguments that a type may be given, and the kind of value that each takes."""
    if kind in ARGUMENTS:
        return ARGUMENTS[kind]
    return {name: KINDS.get(name, _plain) for name in _parameters(kind)}


def with_tuples(part: dict) -> dict:
    """A checked part as its constructor takes it: JSON has lists where some insist on the tuple of their default."""
    own = {} if part['type'] in ARGUMENTS else _parameters(part['type'])
    tuples = [name for name in part if name in own and isinstance(own[name].default, tuple)]
    return {**part, **{name: tuple(part[name]) for name in tuples if isinstance(part[name], list)}}


@functools.cache
def _parameters(kind: str) -> dict[str, inspect.Parameter]:
    """Of the constructors of a class and its bases, but for what is gathered in ``**kwargs``, and :data:`NEVER`."""
    import mmseg.models  # noqa: F401  registers them
    from mmseg.registry import MODELS

    found: dict[str, inspect.Parameter] = {}
    gathering = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for base in reversed(MODELS.get(kind).__mro__):
        if '__init__' in vars(base):
            found.update(inspect.signature(base.__init__).parameters)
    return {name: one for name, one in found.items() if one.kind not in gathering and name not in NEVER}


def _plain(value, where: str, depth: int = 3) -> None:
    """Nothing, a yes or no, a number, or lists of them."""
    if value is None or type(value) is bool:
        return
    if isinstance(value, (list, tuple)) and depth:
        return sequence(functools.partial(_plain, depth=depth - 1), 0, 64)(value, where)
    (integer(-1, SIDE) if type(value) is int else number(-1000, 1000))(value, where)


def _word(value, where: str) -> None:
    if not isinstance(value, str) or not re.fullmatch('[A-Za-z0-9_]{1,64}', value):
        raise ValueError(f'{where} is {short(value)}; a word was expected')


def _name_of_timm(value, where: str) -> None:
    import timm

    known = isinstance(value, str) and re.fullmatch(r'\w{1,64}(\.\w{1,64})?', value) and timm.is_model(value)
    if not known or ('.' in value and not timm.is_model_pretrained(value)):  # a tag that timm has weights under
        raise ValueError(f"{where} is {short(value)}; the name of one of timm's networks was expected")


_BOOLEAN = one_of(True, False)
_SHAPE = sequence(integer(1, SIDE), 2, 2)
_CHANNELS = integer(1, WIDTH)
_LEVELS = sequence(integer(0, 3), 1, 4)
_NORM = optional(_part('BN', 'SyncBN', 'GN', 'LN'))
_ACTIVATION = optional(
    _part('ReLU', 'ReLU6', 'LeakyReLU', 'PReLU', 'GELU', 'HSwish', 'SiLU', 'Swish', 'Sigmoid', 'HSigmoid')
)
_PIPELINE = ('LoadImageFromFile', 'Resize', 'ResizeToMultiple', 'Pad', 'PackSegInputs')
_ARCH = mapping(
    depths=sequence(integer(1, DEPTH), 4, 4),
    embed_dims=sequence(_CHANNELS, 4, 4),
    num_vit=either(integer(0, DEPTH), sequence(integer(0, DEPTH), 4, 4)),
    hidden_dims=sequence(sequence(integer(1, 16 * WIDTH), 1, DEPTH), 4, 4),
    mlp_ratios=sequence(sequence(number(0.01, 16), 1, DEPTH), 4, 4),
)
_BACKBONE = dict(
    arch=either(_word, _ARCH),
    out_indices=_LEVELS,
    drop_path_rate=number(0, 1),
    act=_word,
    out_norm=_NORM,
    norm_eval=_BOOLEAN,
    frozen_stages=integer(-1, 4),
    with_cp=_BOOLEAN,
    resolution=integer(1, 64),
    bias_resize=one_of('interpolate', 'hold', 'matrix'),
)
_WIDTHS = either(integer(1, CLASSES), sequence(integer(1, CLASSES), 1, 8))
_RESIZING = one_of('nearest', 'bilinear')
_HRNET_STAGE = mapping(
    num_modules=integer(1, 16),
    num_branches=integer(1, 4),
    block=one_of('BASIC', 'BOTTLENECK'),
    num_blocks=sequence(integer(1, DEPTH), 1, 4),
    num_channels=sequence(_CHANNELS, 1, 4),
)
_NORMALISATION = dict(requires_grad=_BOOLEAN, eps=number(0, 1), momentum=number(0, 1))
_RESNETS = ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt')
_OWN = ('EfficientFormer', 'EfficientFormerV2')
_OTHERS = (
    *('BiSeNetV1', 'BiSeNetV2', 'CGNet', 'DDRNet', 'ERFNet', 'FastSCNN', 'HRNet', 'MSCAN', 'MixVisionTransformer'),
    *('MobileNetV2', 'MobileNetV3', 'PCPVT', 'PIDNet', 'STDCContextPathNet', 'SVT', 'SwinTransformer', 'TIMMBackbone'),
)
_HEADS = _part(
    *('ASPPHead', 'DDRHead', 'DepthwiseSegformerHead', 'DepthwiseSeparableASPPHead', 'DepthwiseSeparableFCNHead'),
    *('EfficientViTHead', 'FCNHead', 'FPNHead', 'ISAHead', 'LRASPPHead', 'LightHamHead', 'OCRHead', 'PIDHead'),
    *('PSPHead', 'STDCHead', 'SegformerHead', 'UPerHead'),
)
_LOADING = dict(to_float32=_BOOLEAN, color_type=one_of('color'), imdecode_backend=one_of('cv2'))
_RESAMPLING = dict(interpolation=one_of('nearest', 'bilinear', 'bicubic', 'area', 'lanczos'))

_SEGMENTER = dict(
    data_preprocessor=_part('SegDataPreProcessor'),
    backbone=_part(*_OWN, *_RESNETS, *_OTHERS),
    neck=optional(_part('FPN', 'Feature2Pyramid', 'JPU', 'MultiLevelNeck')),
    auxiliary_head=optional(either(_HEADS, sequence(_HEADS, 0, 4))),
    test_cfg=optional(
        mapping(
            mode=one_of('whole', 'slide'),
            crop_size=_SHAPE,
            stride=sequence(integer(16, SIDE), 2, 2),  # a stride of one pixel is a window for every pixel
        )
    ),
)

# of a constructor's arguments, those that initialise, load, train, or name layers that are not listed here
NEVER = ('self', 'init_cfg', 'pretrained', 'checkpoint_path', 'loss_decode', 'sampler', 'plugins', 'dcn')
# of the others, by name, the kind of value, where it is not plain numbers
KINDS: dict[str, Check] = dict(
    in_channels=_WIDTHS,
    in_index=either(integer(-8, 16), sequence(integer(-8, 16), 1, 8)),
    channels=_WIDTHS,
    out_channels=optional(_WIDTHS),
    num_classes=integer(1, CLASSES),
    threshold=optional(number(0, 1)),
    dropout_ratio=number(-1, 1),
    ignore_index=integer(0, 255),
    align_corners=optional(_BOOLEAN),
    feature_strides=sequence(integer(1, 64), 1, 4),
    num_outs=integer(1, 8),
    window_size=integer(1, 64),  # its fourth power is an index in memory
    norm_cfg=_NORM,
    act_cfg=_ACTIVATION,
    dw_act_cfg=_ACTIVATION,
    conv_cfg=one_of(None),
    style=one_of('pytorch', 'caffe'),
    arch=one_of('small', 'large'),
    input_transform=one_of(None, 'multiple_select', 'resize_concat'),
    interpolate_mode=_RESIZING,
    upsample_mode=_RESIZING,
    upsample_cfg=mapping(mode=_RESIZING, align_corners=_BOOLEAN),
    add_extra_convs=either(_BOOLEAN, one_of('on_input', 'on_lateral', 'on_output')),
    backbone_cfg=_part(*_RESNETS, 'STDCNet'),
    stdc_type=one_of('STDCNet1', 'STDCNet2'),
    bottleneck_type=one_of('add', 'cat'),
    ffm_cfg=mapping(in_channels=_CHANNELS, out_channels=_CHANNELS, scale_factor=integer(1, 64)),
    ham_kwargs=mapping(
        **{name: integer(1, WIDTH) for name in ('MD_S', 'MD_R', 'train_steps', 'eval_steps', 'inv_t')},
        rand_init=_BOOLEAN,
    ),
    extra=mapping(**{f'stage{number}': _HRNET_STAGE for number in range(1, 5)}),
)

# the arguments of each type, and the kind of value that each takes
ARGUMENTS: dict[str, dict[str, Check]] = {
    'EncoderDecoder': dict(_SEGMENTER, decode_head=_HEADS),
    'CascadeEncoderDecoder': dict(_SEGMENTER, decode_head=sequence(_HEADS, 1, 4), num_stages=integer(1, 4)),
    'SegDataPreProcessor': dict(
        mean=optional(sequence(number(-1000, 1000), 3, 3)),
        std=optional(sequence(number(1e-6, 1000), 3, 3)),
        size=optional(_SHAPE),
        size_divisor=optional(integer(1, SIDE)),
        pad_val=number(-1000, 1000),
        seg_pad_val=integer(0, 255),
        bgr_to_rgb=_BOOLEAN,
        rgb_to_bgr=_BOOLEAN,
        test_cfg=optional(mapping(size=optional(_SHAPE), size_divisor=optional(integer(1, SIDE)))),
    ),
    'EfficientFormer': _BACKBONE,
    'EfficientFormerV2': _BACKBONE,
    'TIMMBackbone': dict(
        model_name=_name_of_timm,
        features_only=one_of(True),
        in_channels=integer(1, 4),
        out_indices=sequence(integer(-6, 5), 1, 6),
        output_stride=one_of(8, 16, 32),
        drop_rate=number(0, 1),
        drop_path_rate=number(0, 1),
    ),
    'BN': _NORMALISATION,
    'SyncBN': _NORMALISATION,
    'LN': _NORMALISATION,
    'GN': dict(_NORMALISATION, num_groups=integer(1, WIDTH)),
    **{name: dict(inplace=_BOOLEAN) for name in ('ReLU', 'ReLU6', 'HSwish', 'SiLU')},
    **{name: {} for name in ('GELU', 'Sigmoid', 'Swish', 'HSigmoid')},
    'PReLU': dict(num_parameters=_CHANNELS, init=number(-1, 1)),
    'LeakyReLU': dict(inplace=_BOOLEAN, negative_slope=number(0, 1)),
    'LoadImageFromFile': _LOADING,
    'Resize': dict(
        _RESAMPLING,
        scale=either(integer(1, SIDE), _SHAPE),
        scale_factor=optional(either(number(0.01, 8), sequence(number(0.01, 8), 2, 2))),
        keep_ratio=_BOOLEAN,
        clip_object_border=_BOOLEAN,
        backend=one_of('cv2'),
    ),
    'ResizeToMultiple': dict(_RESAMPLING, size_divisor=integer(1, SIDE)),
    'Pad': dict(
        size=optional(_SHAPE),
        size_divisor=optional(integer(1, SIDE)),
        pad_to_square=_BOOLEAN,
        pad_val=either(number(-1000, 1000), mapping(img=number(-1000, 1000), seg=integer(0, 255))),
        padding_mode=one_of('constant', 'edge', 'reflect', 'symmetric'),
    ),
    'PackSegInputs': dict(meta_keys=sequence(_word, 0, 32)),
}
