"""Distillation of features: a backbone learns to give the maps of a pretrained one, from images without labels."""

import timm
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..checkpoint.read import read_checkpoint
from ..errors import ConfigError, WeightsError

STRIDES = (4, 8, 16, 32)


@MODELS.register_module()
class FeatureDistiller(BaseModel):
    """A backbone, and per level a 1 x 1 conv to the maps of a teacher; the loss is the squared difference.

    The teacher's maps are normalised per channel over the batch, so that all channels and levels count alike. The 1 x 1
    convs are thrown away afterwards: :attr:`backbone` is what is kept.

    Args:
        backbone: config of the backbone, of maps at the strides 4, 8, 16 and 32.
        teacher: name of a timm network with maps at these strides.
        teacher_weights: a file in timm's names; the weights that timm fetches when None.
        data_preprocessor: the segmenter's; the teacher sees what the backbone sees.

    Raises:
        ConfigError: for a network that timm has not, or that gives no such maps.
        WeightsError: for a file that is not that network's.
    """

    def __init__(self, backbone: dict, teacher: str, teacher_weights: str | None, data_preprocessor: dict):
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self._teacher = [open_teacher(teacher, teacher_weights)]  # in a list, where torch sees no part of this model
        with torch.no_grad():
            maps = self.backbone.eval()(torch.zeros(1, 3, 64, 64))
        sides = [64 // x.shape[-1] for x in maps]
        if tuple(sides) != STRIDES:
            raise ConfigError(f'the backbone gives maps at the strides {sides}; {list(STRIDES)} were expected')
        strides = strides_of(self._teacher[0])
        # of several maps of one stride the last, which has seen most
        self.levels = [len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES]
        widths = [self._teacher[0].feature_info[level]['num_chs'] for level in self.levels]
        self.projections = nn.ModuleList(nn.Conv2d(x.shape[1], width, 1) for x, width in zip(maps, widths))

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """
        Args:
            inputs: (N, 3, H, W), normalised.
            data_samples: not looked at.
            mode: ``'loss'`` for a dict of one loss per level, ``'tensor'`` for the backbone's maps.
        """
        maps = self.backbone(inputs)
        if mode != 'loss':
            return maps
        with torch.no_grad():
            teacher = self._teacher[0].to(inputs.device)
            expected = teacher.forward_intermediates(inputs, indices=self.levels, intermediates_only=True)
        losses = {}
        for stride, own, projection, theirs in zip(STRIDES, maps, self.projections, expected):
            theirs = F.batch_norm(theirs.float(), None, None, training=True)
            losses[f'loss_stride{stride}'] = F.mse_loss(projection(own).float(), theirs)
        return losses


def open_teacher(name: str, weights: str | None) -> nn.Module:
    """A timm network that gives maps at :data:`STRIDES`, in eval mode and without gradients.

    Args:
        name: in timm.
        weights: a file, which timm reads as numbers alone; the weights that timm fetches when None.

    Raises:
        ConfigError: for a network that timm has not, or that gives no such maps.
        WeightsError: for weights that cannot be had, or are another network's.
    """
    if not timm.is_model(name):
        raise ConfigError(f'--teacher {name} is no network of timm {timm.__version__}')
    model = timm.create_model(name)
    strides = strides_of(model)
    if not set(STRIDES) <= set(strides) or not hasattr(model, 'forward_intermediates'):
        raise ConfigError(f'--teacher {name} gives maps at the strides {strides}; {list(STRIDES)} were expected')
    try:
        if weights is None:
            model = timm.create_model(name, pretrained=True)
        else:
            model.load_state_dict(read_checkpoint(weights).state_dict)
    except (RuntimeError, OSError, ValueError) as error:  # of the hub, or of names and shapes
        raise WeightsError(
            f'{weights or "the hub of timm"} gives no weights for {name}: {" ".join(str(error).split())[:200]}; '
            '--teacher-weights takes a file in the names of timm'
        ) from error
    return model.eval().requires_grad_(False)


def strides_of(model: nn.Module) -> list[int]:
    """The strides of the maps of a timm network, in order."""
    return [level['reduction'] for level in getattr(model, 'feature_info', ())]
