"""What every backbone of the family shares: a stem, four stages, the maps they give, and what is trained of them."""

from collections.abc import Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule, PretrainedInit, update_init_info
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checkpoint import names
from ..checkpoint.load import load_pretrained, rename_in_place
from ..errors import ConfigError
from ..fusion import layers as fused
from ..fusion.folding import batch_norm
from ..fusion.norms import MapNorm
from .arch import Arch


class Flat(nn.Module):
    """Marks where a stage's map becomes tokens. It holds the place that timm's layer of this name has among the blocks,
    so that the blocks behind it keep their numbers; the stage does the work, since it must remember the grid."""


class Stage(nn.Module):
    """A downsampling layer and blocks: (N, C_in, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)).

    Blocks behind a :class:`Flat` are called as ``block(tokens, grid)``, all others as ``block(map)``.

    Args:
        downsample: the layer in front, ``nn.Identity()`` in the first stage.
        blocks: the blocks in order.
        with_cp: recompute each block's activations in the backward pass instead of keeping them.
    """

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module], with_cp: bool = False):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        grid = None
        for block in self.blocks:
            if isinstance(block, Flat):
                grid = tuple(x.shape[2:])
                x = x.flatten(2).transpose(1, 2)
            else:
                x = self._run(block, x) if grid is None else self._run(block, x, grid)
        return x if grid is None else x.transpose(1, 2).unflatten(2, grid)

    def fuse(self, grid_in: tuple[int, int], grid: tuple[int, int]) -> fused.Sequential:
        """The stage's inference form for an input of ``grid_in`` and an output map of ``grid`` = (H, W)."""
        blocks = [block.fuse(grid) for block in self.blocks if not isinstance(block, Flat)]
        if not isinstance(self.downsample, nn.Identity):
            blocks.insert(0, self.downsample.fuse(grid_in))
        return fused.Sequential(blocks)

    def _run(self, block: nn.Module, *inputs) -> Tensor:
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


class Backbone(BaseModule):
    """A stem and stages that give feature maps at strides 4, 8, 16 and 32.

    Args:
        stem: (N, 3, H, W) -> (N, C, ceil(H / 4), ceil(W / 4)).
        stages: one per stride; those behind the last of ``out_indices`` are left out.
        arch: the numbers that the stages were made from.
        out_indices: which stages' maps are returned, ascending.
        out_norm: MMCV's config of a norm layer on each returned map (``norm0`` to ``norm3``), or None.
        norm_eval: BatchNorm keeps its running statistics in training mode; its weights are still trained.
        frozen_stages: -1 trains everything, 0 freezes the stem, k the stem and the first k stages.
        init_cfg: MMEngine's; ``dict(type='Pretrained', checkpoint=...)`` loads ImageNet weights, all or none of them
            (:func:`effseg.checkpoint.load.load_pretrained`).

    Raises:
        ConfigError: for stages that do not exist.
    """

    original_names: names.Rules = ()
    init_cfg: dict | list[dict] | None

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        arch: Arch,
        out_indices: Sequence[int],
        out_norm: dict | None,
        norm_eval: bool,
        frozen_stages: int,
        init_cfg: dict | None,
    ):
        super().__init__(init_cfg)
        count = len(stages)
        if (
            not out_indices
            or list(out_indices) != sorted(set(out_indices))
            or not set(out_indices) <= set(range(count))
        ):
            raise ConfigError(f'out_indices={tuple(out_indices)} must be ascending stage numbers from 0 to {count - 1}')
        if not -1 <= frozen_stages <= count:
            raise ConfigError(f'frozen_stages={frozen_stages} must lie between -1 (train everything) and {count}')
        self.arch, self.embed_dims = arch, arch.embed_dims
        self.out_indices = tuple(out_indices)
        self.norm_eval = norm_eval
        self.frozen_stages = frozen_stages
        self.stem = stem
        self.stages = nn.ModuleList(stages[: self.out_indices[-1] + 1])
        for index in self.out_indices:
            norm = build_norm_layer(out_norm, arch.embed_dims[index])[1] if out_norm else nn.Identity()
            self.add_module(f'norm{index}', norm)
        for module in self._frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            x: (N, 3, H, W) normalised images of any height and width.

        Returns:
            One map per entry of ``out_indices``; stage i has ``embed_dims[i]`` channels and stride 2 ** (i + 2), its
            height and width rounded up.
        """
        maps = []
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                maps.append(getattr(self, f'norm{index}')(x))
        return tuple(maps)

    def fuse(self, size: tuple[int, int]) -> fused.FusedBackbone:
        """The backbone's inference form, in float64, with what depends on the size stored for images of ``size`` = (H,
        W).

        Raises:
            FuseError: for a layer that has no exact fused form.
        """
        grids = [tuple(-(-side // 2 ** (index + 1)) for side in size) for index in range(len(self.stages) + 1)]
        stages = [stage.fuse(*pair) for stage, pair in zip(self.stages, zip(grids, grids[1:]))]
        norms = [fuse_out_norm(getattr(self, f'norm{index}')) for index in self.out_indices]
        return fused.FusedBackbone(self.stem.fuse(), stages, norms, self.out_indices)

    def train(self, mode: bool = True) -> 'Backbone':
        """Sets training mode, frozen stages and (with ``norm_eval``) BatchNorm excepted; returns the module."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """Initialises as ``init_cfg`` says: MMEngine's initialisers first, then pretrained weights over them.

        Raises:
            ConfigError: for a ``Pretrained`` entry with keys it does not have.
            WeightsError: for weights that are missing, unreadable or not this network's.
        """
        if self.is_init:
            return super().init_weights()
        given = self.init_cfg
        entries = [given] if isinstance(given, dict) else list(given or [])
        pretrained = [entry for entry in entries if entry['type'] in ('Pretrained', PretrainedInit)]
        # MMEngine's own loader takes what happens to match and warns about the rest
        self.init_cfg = [entry for entry in entries if entry not in pretrained]
        try:
            super().init_weights()
        finally:
            self.init_cfg = given
        for entry in pretrained:
            self._load_pretrained(**{key: value for key, value in entry.items() if key != 'type'})

    def _load_pretrained(self, checkpoint: str | None = None, prefix: str | None = None, **unknown) -> None:
        unknown.pop('map_location', None)
        if unknown or not checkpoint:
            raise ConfigError(
                f"init_cfg of type 'Pretrained' takes checkpoint= and prefix=; got "
                f'{", ".join(unknown) or "no checkpoint"}'
            )
        load_pretrained(self, checkpoint, prefix)
        if hasattr(self, '_params_init_info'):
            update_init_info(self, init_info=f'Pretrained: load from {checkpoint}')

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        rename_in_place(state_dict, prefix, self.original_names)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _frozen_modules(self) -> list[nn.Module]:
        return [self.stem, *self.stages[: self.frozen_stages]] if self.frozen_stages >= 0 else []


def fuse_out_norm(norm: nn.Module) -> MapNorm:
    """The inference form of a norm on a returned map.

    Raises:
        FuseError: for a norm other than GroupNorm and BatchNorm.
    """
    if isinstance(norm, nn.Identity):
        return MapNorm()
    if isinstance(norm, nn.GroupNorm):
        return MapNorm(norm.num_groups, norm.eps, norm.weight, norm.bias)
    return MapNorm(0, 0.0, *batch_norm(norm))


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic depth per block, per stage: linear from 0 at the first block to ``rate`` at the last."""
    rates = torch.linspace(0, rate, sum(depths), device='cpu').split(list(depths))
    return [stage.tolist() for stage in rates]
