"""What ``config.json`` of a model on the hub may say: the types it may name, their arguments, and the values of those.

A config from a stranger is handed to registries that import what a name says, and to constructors that read files and
take memory as their arguments say. So each argument of each type is listed here with the kind of value it takes; what
is not listed is refused, and every number has an upper bound.
"""

from collections.abc import Callable, Mapping

Check = Callable[[object, str], None]  # takes a value and where it stands; raises ValueError
SIDE, WIDTH, DEPTH, CLASSES = 8192, 2048, 64, 4096  # upper bounds: pixels, channels, blocks of a stage, classes


def check(content: Mapping) -> None:
    """Checks the whole of a config.

    Raises:
        ValueError: naming the value, and what was expected.
    """
    _mapping(
        effseg_hub=_integer(1, 1),
        effseg=_text,
        model=_part('EncoderDecoder'),
        test_pipeline=_sequence(_part(*_PIPELINE), 1, 16),
        classes=_sequence(_text, 1, CLASSES),
        palette=_sequence(_sequence(_integer(0, 255), 3, 3), 1, CLASSES),
    )(content, 'config')
    missing = {'effseg_hub', 'model', 'test_pipeline', 'classes', 'palette'} - set(content)
    if missing:
        raise ValueError(f'it is not complete: {", ".join(sorted(missing))} missing')
    if len(content['classes']) != len(content['palette']):
        raise ValueError(f'it names {len(content["classes"])} classes and {len(content["palette"])} colors')


def _integer(low: int, high: int) -> Check:
    def holds(value, where):
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f'{where} is {_short(value)}; an integer from {low} to {high} was expected')

    return holds


def _number(low: float, high: float) -> Check:
    def holds(value, where):
        if type(value) not in (int, float) or not low <= value <= high:  # NaN is in no interval
            raise ValueError(f'{where} is {_short(value)}; a number from {low:g} to {high:g} was expected')

    return holds


def _one_of(*values) -> Check:
    def holds(value, where):
        if not any(type(value) is type(known) and value == known for known in values):
            raise ValueError(f'{where} is {_short(value)}; one of {", ".join(map(repr, values))} was expected')

    return holds


def _text(value, where: str) -> None:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 256:
        raise ValueError(f'{where} is {_short(value)}; one line of at most 256 printable characters was expected')


def _sequence(kind: Check, low: int, high: int) -> Check:
    def holds(value, where):
        if not isinstance(value, (list, tuple)) or not low <= len(value) <= high:
            raise ValueError(f'{where} is {_short(value)}; a list of {low} to {high} values was expected')
        for index, item in enumerate(value):
            kind(item, f'{where}[{index}]')

    return holds


def _either(first: Check, second: Check) -> Check:
    def holds(value, where):
        try:
            first(value, where)
        except ValueError as error:
            try:
                second(value, where)
            except ValueError as other:
                raise ValueError(f'{error}, or: {other}') from other

    return holds


def _optional(kind: Check) -> Check:
    return lambda value, where: None if value is None else kind(value, where)


def _mapping(**kinds: Check) -> Check:
    def holds(value, where):
        if not isinstance(value, Mapping):
            raise ValueError(f'{where} is {_short(value)}; a dict was expected')
        for key, item in value.items():
            if key not in kinds:
                raise ValueError(
                    f'{where}: {_short(key)} cannot be given, it has no place in the layout ({", ".join(kinds)})'
                )
            kinds[key](item, f'{where}.{key}')

    return holds


def _part(*types: str) -> Check:
    def holds(value, where):
        kind = value.get('type') if isinstance(value, Mapping) else None
        if not isinstance(kind, str) or kind not in types or kind not in ARGUMENTS:
            raise ValueError(f'{where} names the type {_short(kind)}; one of {", ".join(types)} was expected')
        _mapping(type=_text, **ARGUMENTS[kind])(value, where)

    return holds


def _short(value) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


_BOOLEAN = _one_of(True, False)
_SHAPE = _sequence(_integer(1, SIDE), 2, 2)
_CHANNELS = _integer(1, WIDTH)
_LEVELS = _sequence(_integer(0, 3), 1, 4)
_NORM = _optional(_part('BN', 'SyncBN', 'GN', 'LN'))
_ACTIVATION = _optional(_part('ReLU', 'ReLU6', 'GELU', 'HSwish', 'SiLU'))
_PIPELINE = ('LoadImageFromFile', 'Resize', 'ResizeToMultiple', 'Pad', 'PackSegInputs')
_ARCH = _mapping(
    depths=_sequence(_integer(1, DEPTH), 4, 4),
    embed_dims=_sequence(_CHANNELS, 4, 4),
    num_vit=_either(_integer(0, DEPTH), _sequence(_integer(0, DEPTH), 4, 4)),
    hidden_dims=_sequence(_sequence(_integer(1, 16 * WIDTH), 1, DEPTH), 4, 4),
    mlp_ratios=_sequence(_sequence(_number(0.01, 16), 1, DEPTH), 4, 4),
)
_BACKBONE = dict(
    arch=_either(_text, _ARCH),
    out_indices=_LEVELS,
    drop_path_rate=_number(0, 1),
    act=_text,
    out_norm=_NORM,
    norm_eval=_BOOLEAN,
    frozen_stages=_integer(-1, 4),
    with_cp=_BOOLEAN,
    resolution=_integer(1, 64),
    bias_resize=_one_of('interpolate', 'hold', 'matrix'),
)
_NORMALISATION = dict(requires_grad=_BOOLEAN, eps=_number(0, 1), momentum=_number(0, 1))
_LAYERS = dict(norm_cfg=_NORM, act_cfg=_ACTIVATION, conv_cfg=_one_of(None))
_HEAD = dict(
    _LAYERS,
    in_channels=_either(_CHANNELS, _sequence(_CHANNELS, 1, 4)),
    in_index=_either(_integer(-4, 3), _LEVELS),
    channels=_CHANNELS,
    num_classes=_integer(1, CLASSES),
    out_channels=_optional(_integer(1, CLASSES)),
    threshold=_optional(_number(0, 1)),
    dropout_ratio=_number(0, 1),
    ignore_index=_integer(0, 255),
    align_corners=_BOOLEAN,
)
_MLP_HEAD = dict(_HEAD, interpolate_mode=_one_of('nearest', 'bilinear'))
_HEADS = _part('FPNHead', 'SegformerHead', 'DepthwiseSegformerHead')
_LOADING = dict(to_float32=_BOOLEAN, color_type=_one_of('color'), imdecode_backend=_one_of('cv2'))
_RESAMPLING = dict(interpolation=_one_of('nearest', 'bilinear', 'bicubic', 'area', 'lanczos'))

# the arguments of each type, and the kind of value that each takes
ARGUMENTS: dict[str, dict[str, Check]] = {
    'EncoderDecoder': dict(
        data_preprocessor=_part('SegDataPreProcessor'),
        backbone=_part('EfficientFormer', 'EfficientFormerV2'),
        neck=_optional(_part('FPN')),
        decode_head=_HEADS,
        auxiliary_head=_optional(_either(_HEADS, _sequence(_HEADS, 0, 4))),
        test_cfg=_optional(
            _mapping(
                mode=_one_of('whole', 'slide'),
                crop_size=_SHAPE,
                stride=_sequence(_integer(16, SIDE), 2, 2),  # a stride of one pixel is a window for every pixel
            )
        ),
    ),
    'SegDataPreProcessor': dict(
        mean=_sequence(_number(-1000, 1000), 3, 3),
        std=_sequence(_number(1e-6, 1000), 3, 3),
        size=_optional(_SHAPE),
        size_divisor=_optional(_integer(1, SIDE)),
        pad_val=_number(-1000, 1000),
        seg_pad_val=_integer(0, 255),
        bgr_to_rgb=_BOOLEAN,
        rgb_to_bgr=_BOOLEAN,
        test_cfg=_optional(_mapping(size=_optional(_SHAPE), size_divisor=_optional(_integer(1, SIDE)))),
    ),
    'EfficientFormer': _BACKBONE,
    'EfficientFormerV2': _BACKBONE,
    'FPN': dict(
        _LAYERS,
        in_channels=_sequence(_CHANNELS, 1, 4),
        out_channels=_CHANNELS,
        num_outs=_integer(1, 8),
        start_level=_integer(0, 3),
        end_level=_integer(-1, 4),
        add_extra_convs=_either(_BOOLEAN, _one_of('on_input', 'on_lateral', 'on_output')),
        extra_convs_on_inputs=_BOOLEAN,
        relu_before_extra_convs=_BOOLEAN,
        no_norm_on_lateral=_BOOLEAN,
        upsample_cfg=_mapping(mode=_one_of('nearest', 'bilinear'), align_corners=_BOOLEAN),
    ),
    'FPNHead': dict(_HEAD, feature_strides=_sequence(_integer(1, 64), 1, 4)),
    'SegformerHead': _MLP_HEAD,
    'DepthwiseSegformerHead': _MLP_HEAD,
    'BN': _NORMALISATION,
    'SyncBN': _NORMALISATION,
    'LN': _NORMALISATION,
    'GN': dict(_NORMALISATION, num_groups=_integer(1, WIDTH)),
    **{name: dict(inplace=_BOOLEAN) for name in ('ReLU', 'ReLU6', 'HSwish', 'SiLU')},
    'GELU': {},
    'LoadImageFromFile': _LOADING,
    'Resize': dict(
        _RESAMPLING,
        scale=_either(_integer(1, SIDE), _SHAPE),
        scale_factor=_optional(_either(_number(0.01, 8), _sequence(_number(0.01, 8), 2, 2))),
        keep_ratio=_BOOLEAN,
        clip_object_border=_BOOLEAN,
        backend=_one_of('cv2'),
    ),
    'ResizeToMultiple': dict(_RESAMPLING, size_divisor=_integer(1, SIDE)),
    'Pad': dict(
        size=_optional(_SHAPE),
        size_divisor=_optional(_integer(1, SIDE)),
        pad_to_square=_BOOLEAN,
        pad_val=_either(_number(-1000, 1000), _mapping(img=_number(-1000, 1000), seg=_integer(0, 255))),
        padding_mode=_one_of('constant', 'edge', 'reflect', 'symmetric'),
    ),
    'PackSegInputs': dict(meta_keys=_sequence(_text, 0, 32)),
}
