"""From a trained segmenter to its inference form.

What to export is ``fused.exportable()``: a copy for images of exactly ``fused.size`` whose ``logits(x)`` consists of
operations that the phone runtimes execute natively, with static shapes, contiguous weights and nothing that other sizes
would take.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FuseError
from .fpn import fuse_semantic_fpn
from .labels import Crop, Resize, label_map
from .layers import FusedBackbone, Layer
from .mlp_head import fuse_mlp_head

STRIDES = (4, 8, 16, 32)
# what fuses each decode head, by the name of its class in MMSegmentation (which need not be installed here): a function
# of the neck, the head, the norm on each of the backbone's maps and the maps' (H, W)
DECODERS = {
    'FPNHead': fuse_semantic_fpn,
    'SegformerHead': fuse_mlp_head,
    'DepthwiseSegformerHead': fuse_mlp_head,
}


class FusedSegmentor(nn.Module):
    """A segmenter in inference form; made by :func:`fuse`. Needs torch alone.

    It is exact at any image size; ``size`` is the one it was built for, where what depends on the size is stored. Fast
    are images whose sides are multiples of 32.

    Args:
        backbone: images to maps.
        decoder: maps to logits.
        size: (H, W).
        align_corners: of the resize from logits to labels.
        threshold: of the sigmoid, for a segmenter with one logit; else None.
        meta: what users of the labels need, plain data: ``classes``, ``palette``, and ``mean``, ``std``, ``bgr_to_rgb``
            of the normalisation, as far as the trained model knew.
    """

    def __init__(
        self,
        backbone: FusedBackbone,
        decoder: Layer,
        size: Sequence[int],
        align_corners: bool = False,
        threshold: float | None = None,
        meta: dict | None = None,
    ):
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.size = tuple(size)
        self.align_corners, self.threshold, self.meta = align_corners, threshold, dict(meta or {})
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
            (N, classes, ceil(H / 4), ceil(W / 4)).

        Raises:
            FuseError: for what is not a batch of three-channel images.
        """
        if x.dim() != 4 or x.shape[1] != 3:
            raise FuseError(f'the images came as {tuple(x.shape)}; (N, 3, H, W) was expected')
        if not self.backbone.portable:
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
        grids = _grids(self.size)
        network.decoder.strip_to([grids[index] for index in self.backbone.out_indices])
        return network


def fuse(model: nn.Module, size: Sequence[int] = (512, 512)) -> FusedSegmentor:
    """The inference form of a trained segmenter. The model itself is left as it is.

    Args:
        model: MMSegmentation's EncoderDecoder in eval mode: a backbone of this package and a head of
            :data:`DECODERS`, the FPNHead behind an FPN.
        size: (H, W) of the images it will mostly see.

    Returns:
        The same function of the image, in the model's precision and on its device.

    Raises:
        FuseError: for a model in training mode, a size that is not positive, or a part that has no exact fused form.
    """
    size = check_size(size)
    check_model(model)
    with torch.no_grad():
        backbone = model.backbone.fuse(size)
        grids = [_grids(size)[index] for index in model.backbone.out_indices]
        head = model.decode_head
        decoder = DECODERS[type(head).__name__](getattr(model, 'neck', None), head, backbone.norms, grids)
    threshold = float(head.threshold) if head.out_channels == 1 else None
    network = FusedSegmentor(backbone, decoder, size, bool(head.align_corners), threshold, describe_data(model))
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise FuseError(
                f'{name} of the fused network is still a {type(module).__name__}; the fuse() of its block leaves it out'
            )
    reference = next(model.parameters())
    return network.to(reference.device, reference.dtype).to(memory_format=torch.channels_last)


def _grids(size: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(-(-side // stride) for side in size) for stride in STRIDES]


def check_size(size: Sequence[int]) -> tuple[int, int]:
    """``size`` as two positive ints.

    Raises:
        FuseError: for anything else.
    """
    try:
        sides = tuple(int(side) for side in size)
    except (TypeError, ValueError):
        sides = ()
    if len(sides) != 2 or min(sides) < 1 or list(sides) != list(size):
        raise FuseError(f'size={size!r} came; (height, width) in pixels was expected, both positive')
    return sides


def check_model(model: nn.Module) -> None:
    """Refuses what is not a trained segmenter in eval mode.

    Raises:
        FuseError: saying what was found.
    """
    missing = [name for name in ('backbone', 'decode_head') if not isinstance(getattr(model, name, None), nn.Module)]
    if missing:
        raise FuseError(
            f"a {type(model).__name__} without {', '.join(missing)} came; MMSegmentation's EncoderDecoder with an "
            'EfficientFormer backbone was expected'
        )
    if not callable(getattr(model.backbone, 'fuse', None)):
        raise FuseError(
            f'the backbone {type(model.backbone).__name__} has no fused form; an EfficientFormer of this package was '
            'expected'
        )
    if type(model.decode_head).__name__ not in DECODERS:
        raise FuseError(
            f'the decode head is a {type(model.decode_head).__name__}; heads with a fused form are '
            f'{", ".join(DECODERS)}'
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


def describe_data(model: nn.Module) -> dict:
    """What the model knows of its data, as plain data: see :class:`FusedSegmentor`."""
    meta: dict[str, Any] = {}
    data = getattr(model, 'dataset_meta', None) or {}
    if data.get('classes'):
        meta['classes'] = [str(name) for name in data['classes']]
    if data.get('palette'):
        meta['palette'] = [[int(value) for value in colour] for colour in data['palette']]
    preprocessor: Any = getattr(model, 'data_preprocessor', None)
    if getattr(preprocessor, '_enable_normalize', False):
        meta.update(
            mean=preprocessor.mean.flatten().tolist(),
            std=preprocessor.std.flatten().tolist(),
            bgr_to_rgb=bool(getattr(preprocessor, '_channel_conversion', False)),
        )
    return meta
