"""How good a network is on training images, and what its gradients say of its channels."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from torch import Tensor, nn

from ..engine.config import build_model, dataset_of, of_config
from ..engine.samplers import Draw, mixed, seeded
from ..errors import ConfigError, DataError
from ..models.blocks import MetaBlock1d
from .channels import importance
from .slicing import Network, TokenStats

Batches = list[tuple[Tensor, list]]


def network_of(model: nn.Module, config: Config) -> Network:
    """A segmenter as data.

    Args:
        model: in any mode.
        config: whose ``model`` it was built from.
    """
    plain = copy.deepcopy(config.model).to_dict()
    plain['backbone'].pop('init_cfg', None)
    return Network(plain, model.backbone.arch, {key: value.clone() for key, value in model.state_dict().items()})


def build(network: Network) -> nn.Module:
    """The segmenter of a network, in eval mode and the precision of its weights; the backbone alone where it is no
    more."""
    whole = 'decode_head' in network.model
    model = build_model(ConfigDict(model=copy.deepcopy(network.model if whole else network.model['backbone'])))
    model = model.to(next(iter(network.state.values())).dtype)
    model = model.to(memory_format=torch.channels_last)  # in which a candidate takes two thirds of the time
    model.load_state_dict(
        network.state if whole else {key.removeprefix('backbone.'): value for key, value in network.state.items()}
    )
    return model.eval()


@dataclass(frozen=True)
class Samples:
    """Training images behind the config's training pipeline, the same ones at every call."""

    statistics: Batches  # to recalibrate BatchNorm and to weigh channels with
    held_out: Batches  # to take the loss on; other images, as far as the data set has them

    @classmethod
    def of(cls, config: Config, model: nn.Module, images: int) -> 'Samples':
        """Draws the images, in an order that depends on their number alone.

        Args:
            config: with a ``train_dataloader``.
            model: whose data preprocessor prepares the batches.
            images: how many of each kind.

        Raises:
            DataError: when there is no training image.
        """
        init_default_scope(config.get('default_scope', 'mmseg'))
        with of_config('train_dataloader.dataset'):
            dataset = DATASETS.build(dict(dataset_of(config, 'train_dataloader')))
        if not len(dataset):
            raise DataError('the training data set has no image to judge networks on')
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
        size = min(config.train_dataloader.get('batch_size', 1), images)
        guarded = config.train_dataloader.dataset.type == 'GuardedDataset'

        def batches(first: int) -> Batches:
            numbers = range(first, first + images)
            draws = [Draw(order[number % len(order)], mixed(0, number)) for number in numbers]
            with seeded(first):
                samples = [dataset[draw if guarded else int(draw)] for draw in draws]
            cut = [samples[start : start + size] for start in range(0, images, size)]
            prepared = (model.data_preprocessor(pseudo_collate(part), training=True) for part in cut)
            layout = torch.channels_last
            return [(part['inputs'].contiguous(memory_format=layout), part['data_samples']) for part in prepared]

        return cls(batches(0), batches(images))


def recalibrate(model: nn.Module, batches: Batches) -> None:
    """Measures the statistics of all BatchNorms anew, as the mean over batches; nothing else changes."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        with torch.no_grad():
            for inputs, _ in batches:
                model(inputs)
    except ValueError as error:  # torch's, of a map of one pixel: it has no variance
        raise ConfigError(
            f'BatchNorm cannot be measured on batches of {len(batches[0][0])} image(s) of these crops ({error}): give '
            'more --images, or a larger batch_size or crop in the config'
        ) from error
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        norm.eval()


def loss_of(model: nn.Module, batches: Batches) -> tuple[float, float]:
    """The mean training loss over images, in eval mode, and the percentage of pixels that are right."""
    total, right, count = 0.0, 0.0, 0
    with torch.no_grad():
        for inputs, samples in batches:
            loss, logged = model.parse_losses(model.loss(inputs, samples))
            total, count = total + len(samples) * loss.item(), count + len(samples)
            right += len(samples) * float(logged['decode.acc_seg'])
    return total / count, right / count


class Judgement(NamedTuple):
    """What held-out images say of a network."""

    loss: float  # the training loss
    accuracy: float  # percent of the pixels
    network: Network  # with the BatchNorm statistics that it was judged with


def judge(network: Network, samples: Samples) -> Judgement:
    """Judges a network on held-out images, with its BatchNorm statistics measured anew."""
    model = build(network)
    recalibrate(model, samples.statistics)
    state = {key: value.clone(memory_format=torch.contiguous_format) for key, value in model.state_dict().items()}
    return Judgement(*loss_of(model, samples.held_out), Network(network.model, network.arch, state))


def weigh(network: Network, batches: Batches) -> tuple[dict[str, Tensor], dict[tuple[int, int], TokenStats]]:
    """How much each channel matters, by group, (channels,), and the other result of :func:`gradients`."""
    weights, tokens = gradients(network, batches)
    return importance(weights, network.groups), tokens


def gradients(network: Network, batches: Batches) -> tuple[dict[str, Tensor], dict[tuple[int, int], TokenStats]]:
    """``|w g|`` of every weight, summed over batches; and, by stage and block, what the blocks saw that attend to
    tokens."""
    model = build(network).requires_grad_(True)  # of frozen stages as well
    seen: dict[tuple[int, int], _Seen] = {}
    for stage, part in enumerate(model.backbone.stages):
        blocks = [block for block in part.blocks if hasattr(block, 'mlp')]
        seen.update({(stage, n): _Seen(block) for n, block in enumerate(blocks) if isinstance(block, MetaBlock1d)})
    totals: dict[str, Tensor] = {}
    for inputs, samples in batches:
        model.zero_grad()
        loss, _ = model.parse_losses(model.loss(inputs, samples))
        loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                totals[name] = totals.get(name, 0) + (parameter * parameter.grad).abs().detach()
    return totals, {place: one.stats() for place, one in seen.items()}


class _Seen:
    """Watches the forward passes of a block for what :class:`TokenStats` is made of."""

    def __init__(self, block: MetaBlock1d):
        self.block = block
        self.spreads: list[Tensor] = []
        self.hidden: list[tuple[Tensor, Tensor]] = []
        self.out: list[tuple[Tensor, Tensor]] = []
        block.norm2.register_forward_hook(lambda module, inputs, _: self._before(inputs[0].detach()))
        block.mlp.fc2.register_forward_hook(lambda module, _, result: self.out.append(_moments(result.detach())))

    def _before(self, tokens: Tensor) -> None:
        centred = tokens - tokens.mean(-1, keepdim=True)
        self.spreads.append(centred.square().mean(-1).sqrt().mean())
        self.hidden.append(_moments(centred @ (self.block.mlp.fc1.weight * self.block.norm2.weight).T.detach()))

    def stats(self) -> TokenStats:
        return TokenStats(torch.stack(self.spreads).mean().item(), _pooled(self.hidden), _pooled(self.out))


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    values = values.flatten(0, -2)
    return values.mean(0), values.square().mean(0)


def _pooled(moments: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    mean, square = (torch.stack(parts).mean(0) for parts in zip(*moments))
    return mean, square - mean.square()
