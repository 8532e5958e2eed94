"""From a trained segmenter to its inference form: a backbone part, a decoder part and the label step.

A part is the exact form that is registered for it, or else the part as it was trained
(:mod:`effseg.fusion.trained`).

What to export is ``fused.exportable()``: a copy for images of exactly ``fused.size`` whose ``logits(x)`` consists of
operations that the phone runtimes execute natively, with static shapes, contiguous weights and nothing that other sizes
would take.
"""

import copy
import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FuseError, first_line
from ..timing import counted
from .fpn import fuse_semantic_fpn
from .labels import Crop, Resize, label_map
from .layers import Layer
from .mlp_head import fuse_mlp_head
from .norms import MapNorm
from .trained import Decoder, Trained, as_trained, deciding_head, draws_bases, freeze_random_bases

# what may differ between a segmenter and its fused form on an image of noise, relative to the largest logit
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}  # of other types, 0.2
LARGEST_SIDE = 2**16  # pixels, as in JPEG
# what fuses each decode head, by the name of its class in MMSegmentation (which need not be installed here): a function
# of the neck, the head, the norm on each of the backbone's maps and the maps' (H, W)
DECODERS = {'FPNHead': fuse_semantic_fpn, 'SegformerHead': fuse_mlp_head, 'DepthwiseSegformerHead': fuse_mlp_head}
# whose methods turn an image into labels by way of the logits of one head's forward
STOCK = ('BaseSegmentor', 'EncoderDecoder', 'CascadeEncoderDecoder', 'BaseDecodeHead', 'BaseCascadeDecodeHead')


class FusedSegmentor(nn.Module):
    """A segmenter in inference form; made by :func:`fuse`. Needs torch alone.

    It is exact at any image size; what depends on the size is stored for ``size``, the one it was built for. It is
    fastest for images whose sides are multiples of 32.

    Args:
        backbone: images to maps, as a decoder takes them.
        decoder: maps to logits.
        size: (H, W).
        align_corners: of the resize from logits to labels.
        threshold: of the sigmoid, for a segmenter with one logit; else None.

    Attributes:
        parts: in words, what was done to each part of the trained model, and its GMAC before and after.
    """

    parts: tuple[str, ...] = ()

    def __init__(
        self,
        backbone: Layer,
        decoder: Layer,
        size: Sequence[int],
        align_corners: bool = False,
        threshold: float | None = None,
    ):
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.size = tuple(size)
        self.align_corners, self.threshold = align_corners, threshold
        self.train(False)

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: (N, 3, H, W) images normalised as MMSegmentation's data_preprocessor does.

        Returns:
            (N, H, W) int64 labels.
        """
        return self.labels(self.logits(x), [Resize(*x.shape[2:])])

    def logits(self, x: Tensor) -> Tensor:
        """
        Args:
            x: as in :meth:`forward`.

        Returns:
            (N, classes, h, w), of the size that the trained head gives: ceil(H / 4), ceil(W / 4) behind Semantic FPN.

        Raises:
            FuseError: for what is not a batch of three-channel images.
        """
        if x.dim() != 4 or x.shape[1] != 3:
            raise FuseError(f'the images came as {tuple(x.shape)}; (N, 3, H, W) was expected')
        if not self.backbone.portable and not isinstance(self.backbone, Trained):
            x = x.contiguous(memory_format=torch.channels_last)
        return self.decoder(self.backbone(x))

    def labels(self, logits: Tensor, steps: Sequence[Resize | Crop]) -> Tensor:
        """The labels after resizing the logits in ``steps``: (N, H, W) int64. See :mod:`effseg.fusion.labels`."""
        return label_map(logits, steps, self.align_corners, self.threshold)

    def train(self, mode: bool = True) -> 'FusedSegmentor':
        """Stays in eval mode.

        Raises:
            FuseError: for ``mode=True``.
        """
        if mode:
            raise FuseError('a fused segmenter cannot be trained; train the model it was made from and fuse it again')
        return super().train(False)

    def exportable(self) -> 'FusedSegmentor':
        """A copy to trace and export: images of ``size`` only, operations of the portable form, contiguous weights."""
        network = copy.deepcopy(self).to(memory_format=torch.contiguous_format)
        network.backbone.set_portable()
        network.decoder.set_portable()
        network.backbone.strip()
        with torch.no_grad():
            maps = network.backbone(torch.zeros(1, 3, *self.size).to(next(network.parameters())))
        network.decoder.strip_to([x.shape[2:] for x in maps])
        return network


class InBfloat16(nn.Module):
    """A network whose arithmetic is in bfloat16; images and logits stay float32.

    Args:
        network: has ``logits(x)``; changed in place.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.bfloat16()

    def logits(self, x: Tensor) -> Tensor:
        """As the network's."""
        return self.network.logits(x.bfloat16()).float()


def fuse(model: nn.Module, size: Sequence[int] = (512, 512)) -> FusedSegmentor:
    """The inference form of a trained segmenter. The model itself is left as it is.

    A backbone of this package and a head of :data:`DECODERS` get their exact forms; every other part is taken as it
    was trained, BatchNorms folded into their convs. The two are compared on an image of noise, on the CPU, before the
    result is given away.

    Args:
        model: MMSegmentation's EncoderDecoder or CascadeEncoderDecoder in eval mode.
        size: (H, W) of the images it will mostly see.

    Returns:
        The same function of the image, in the model's precision and on its device; ``parts`` says what was done.

    Raises:
        FuseError: for a model in training mode, a size that is not positive, and a model whose labels do not come from
            one tensor of logits.
    """
    size = check_size(size)
    check_model(model)
    reference = next(model.parameters())
    if reference.device.type != 'cpu':  # where TF32 rounds what is compared
        return fuse(copy.deepcopy(model).cpu(), size).to(reference.device)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(reference)
    parts = []
    with torch.no_grad():
        if any(draws_bases(module) for module in model.modules()):
            model = copy.deepcopy(model)
            count = freeze_random_bases(model, lambda model: Decoder(model)(model.backbone(image)))
            parts.append(f'{count} matrix decomposition(s): random bases, drawn for every image in training, frozen')
        decoder = Decoder(model)
        maps, of_backbone = counted(partial(_run, model.backbone, image))
        expected, of_decoder = counted(partial(_run, decoder, maps))
        check_logits(expected, deciding_head(model))
        fused_backbone, fused_decoder, done = _fuse_parts(model, size, image, maps)
        network = FusedSegmentor(
            fused_backbone, fused_decoder, size, bool(deciding_head(model).align_corners), threshold_of(model)
        )
        network.to(reference.dtype)
        for layer in (network.backbone, network.decoder):
            if not isinstance(layer, Trained):
                layer.to(memory_format=torch.channels_last)
        maps, of_fused_backbone = counted(partial(_run, network.backbone, image))
        logits, of_fused_decoder = counted(partial(_run, network.decoder, maps))
    _check_equal(logits, expected)
    heads = [type(head).__name__ for head in decoder.heads]
    names = [
        type(model.backbone).__name__,
        ' and '.join([*([type(model.neck).__name__] if decoder.neck else []), *heads]),
    ]
    counts = ((of_backbone, of_fused_backbone), (of_decoder, of_fused_decoder))
    for part, name, said, (before, after) in zip(('backbone', 'decoder'), names, done, counts):
        parts.append(f'{part} {name}: {said}; {before:.2f} GMAC before, {after:.2f} after')
    if isinstance(getattr(model, 'auxiliary_head', None), nn.Module):
        parts.append('auxiliary heads: dropped, they serve training alone')
    network.parts = tuple(parts)
    return network


def _fuse_parts(
    model: nn.Module, size: tuple[int, int], image: Tensor, maps: Any
) -> tuple[Layer, Layer, tuple[str, str]]:
    """The backbone part and the decoder part of a model, and what was done to each, in words."""
    backbone, of_backbone = _backbone(model.backbone, size, image)
    why = ''
    head = model.decode_head
    fused_head = DECODERS.get(type(head).__name__)
    if fused_head and isinstance(maps, Sequence) and all(isinstance(x, Tensor) and x.dim() == 4 for x in maps):
        norms = getattr(backbone, 'norms', [MapNorm() for _ in maps])
        try:
            decoder = fused_head(getattr(model, 'neck', None), head, norms, [tuple(x.shape[2:]) for x in maps])
            return backbone, decoder, (of_backbone, 'exact form')
        except FuseError as error:
            why = f'; it has no exact form, since {error}'
            backbone, of_backbone = _backbone(model.backbone, size, image)  # whose norms the decoder may have taken
    decoder, of_decoder = as_trained(Decoder(model), lambda decoder: decoder(maps))
    return backbone, decoder, (of_backbone, f'as trained, {of_decoder}{why}')


def _backbone(backbone: nn.Module, size: tuple[int, int], image: Tensor) -> tuple[Layer, str]:
    if not callable(getattr(backbone, 'fuse', None)):
        part, done = as_trained(backbone, lambda backbone: backbone(image))
        return part, f'as trained, {done}'
    try:
        part = backbone.fuse(size)
    except FuseError as error:
        part, done = as_trained(backbone, lambda backbone: backbone(image))
        return part, f'as trained, {done}; it has no exact form, since {error}'
    for name, module in part.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise FuseError(
                f'{name} of the fused network is still a {type(module).__name__}; the fuse() of its block leaves it out'
            )
    return part, 'exact form'


def _run(module: nn.Module, x: Any) -> Any:
    """What a module makes of its input. Raises FuseError where it fails."""
    try:
        return module(x)
    except Exception as error:  # whatever a network that was not built for this input ends in
        kinds = ', '.join(type(part).__name__ for part in getattr(module, 'heads', [module]))
        raise FuseError(
            f'{kinds} does not run on an image of this size: {type(error).__name__}: {first_line(error)}. Give the '
            'size that the model was trained for'
        ) from error


def _check_equal(logits: Tensor, expected: Tensor) -> None:
    difference, largest = (float(x.abs().max()) for x in (logits - expected, expected))
    if not difference <= TOLERANCE.get(expected.dtype, 0.2) * max(largest, 1):  # nor where it is no number
        raise FuseError(
            f'the fused form gives other logits than the model: on an image of noise they differ by {difference:.1e}, '
            f'the largest is {largest:.1e}. Export it as it was trained (--unfused), and please report it'
        )


def check_logits(logits: Any, head: nn.Module) -> None:
    """Refuses what is not one tensor of logits.

    Args:
        logits: what the model's head returned for one image.
        head: the head.

    Raises:
        FuseError: saying what came.
    """
    came = logits
    if isinstance(logits, Tensor):
        if logits.dim() == 4 and logits.shape[:2] == (1, head.out_channels):
            return
        came = f'a tensor of shape {tuple(logits.shape)}'
    elif isinstance(logits, (tuple, list)):
        came = f'a {type(logits).__name__} of {len(logits)}: ' + ', '.join(type(one).__name__ for one in logits)
    else:
        came = f'a {type(logits).__name__}'
    raise FuseError(
        f'{type(head).__name__} returns {came}; one tensor of logits (1, {head.out_channels}, h, w) was expected. '
        'Such a model can be neither fused nor exported; tools/test.py and tools/predict.py take it as it is'
    )


def threshold_of(model: nn.Module) -> float | None:
    """The threshold of the sigmoid of a segmenter with one logit; None of others."""
    head = deciding_head(model)
    return float(head.threshold) if head.out_channels == 1 else None


def check_size(size: Sequence[int]) -> tuple[int, int]:
    """Checks a size (H, W), and gives it as two positive ints.

    Raises:
        FuseError: for anything else.
    """
    try:
        sides = tuple(int(side) for side in size)
    except (TypeError, ValueError):
        sides = ()
    if len(sides) != 2 or not 1 <= min(sides) <= max(sides) <= LARGEST_SIDE or list(sides) != list(size):
        raise FuseError(
            f'size={size!r} came; (height, width) in pixels was expected, both positive, at most {LARGEST_SIDE}'
        )
    return sides


def check_model(model: nn.Module) -> None:
    """Refuses what is not a trained segmenter in eval mode.

    Raises:
        FuseError: saying what was found.
    """
    missing = [name for name in ('backbone', 'decode_head') if not isinstance(getattr(model, name, None), nn.Module)]
    if missing:
        raise FuseError(
            f"a {type(model).__name__} without {', '.join(missing)} came; MMSegmentation's EncoderDecoder was expected"
        )
    for part, names in (
        (model, ('extract_feat', 'encode_decode', 'inference', 'predict', 'postprocess_result')),
        (deciding_head(model), ('predict', 'predict_by_feat', 'forward_test')),
    ):
        for name in names:
            owner = getattr(getattr(type(part), name, None), '__qualname__', '').partition('.')[0]
            if owner and owner not in STOCK:
                raise FuseError(
                    f'{owner} has a {name} of its own, so that its labels do not come from the logits of its forward '
                    'alone; such a model can be neither fused nor exported. tools/test.py and tools/predict.py take it '
                    'as it is'
                )
    for place, head in enumerate(Decoder(model).heads):
        wanted = [name for name, one in inspect.signature(head.forward).parameters.items() if one.default is one.empty]
        if len(wanted) > 1 + min(place, 1):  # a cascade's later heads read the logits before them
            raise FuseError(
                f'{type(head).__name__} decides by {", ".join(wanted)}, and a fused or exported network has the maps '
                'alone. tools/test.py and tools/predict.py take it as it is'
            )
    training = [name or 'model' for name, module in model.named_modules() if module.training]
    if training:
        raise FuseError(f'{training[0]} is in training mode; call model.eval() first')
    broken = [
        name
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        raise FuseError(
            f'{broken[0]} holds numbers that are not finite; the training diverged, or the checkpoint is damaged'
        )
