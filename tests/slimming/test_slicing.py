"""A network with channels and blocks left out computes what the whole one computes with them masked."""

import pytest

pytest.importorskip('mmseg')
import torch
from torch import nn

from effseg.errors import ConfigError
from effseg.slimming.channels import importance, sizes
from effseg.slimming.evaluate import build
from effseg.slimming.slicing import Action, apply

EXACT = dict(rtol=1e-9, atol=1e-9)


class Kept(nn.Module):
    """A norm over all channels that sees the kept ones alone, and leaves the others zero."""

    def __init__(self, norm, kept, axis):
        super().__init__()
        self.norm, self.kept, self.axis = norm, kept, axis

    def forward(self, x):
        weight, bias = self.norm.weight[self.kept], self.norm.bias[self.kept]
        part = x.index_select(self.axis, self.kept)
        if self.axis == 1:
            part = nn.functional.group_norm(part, self.norm.num_groups, weight, bias, self.norm.eps)
        else:
            part = nn.functional.layer_norm(part, part.shape[-1:], weight, bias, self.norm.eps)
        return torch.zeros_like(x).index_copy(self.axis, self.kept, part)


def masked(network, keep, zero=()):
    """The whole network with everything zero that writes or reads a channel which is not in ``keep``."""
    model, named = build(network), network.groups
    count = sizes(network.state, named)
    for key, value in model.state_dict().items():
        for axis, parts in enumerate(named[key]):
            if not set(parts) & set(keep):
                continue
            kept = torch.cat(
                [torch.isin(torch.arange(count[part]), keep.get(part, torch.arange(count[part]))) for part in parts]
            )
            dropped = (~kept).nonzero().flatten()
            value.index_fill_(axis, dropped, 1.0 if key.endswith('running_var') else 0.0)
        if key.endswith(zero):
            value.zero_()
    for name, module in list(model.named_modules()):
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            (group,) = named[f'{name}.weight'][0]
            if group in keep:
                parent, _, last = name.rpartition('.')
                axis = 1 if isinstance(module, nn.GroupNorm) else 2
                setattr(model.get_submodule(parent), last, Kept(module, keep[group], axis))
    return model


def image():
    return torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def weights(network):
    return importance({key: value.abs() for key, value in network.state.items()}, network.groups)


def narrowings(network):
    yield from (Action('width', stage, to=to) for stage, to in ((0, 6), (1, 10), (2, 9), (3, 17)))
    yield from (Action('hidden', stage, depth - 1, to=7) for stage, depth in enumerate(network.arch.depths))
    yield Action('head', to=6)
    if network.shape.neck:
        yield Action('neck', to=5)


@torch.no_grad()
def test_a_narrowed_network_is_the_masked_one(network):
    """Each narrowing on top of those before it."""
    x = image()
    for action in narrowings(network):
        scores, smaller = weights(network), apply(network, action, weights(network))
        now, before = sizes(smaller.state, smaller.groups), sizes(network.state, network.groups)
        keep = {
            group: scores[group].topk(now[group]).indices.sort().values
            for group in before
            if now[group] < before[group]
        }
        assert keep, action
        torch.testing.assert_close(build(smaller)(x), masked(network, keep)(x), **EXACT)
        network = smaller


@torch.no_grad()
def test_a_block_that_is_left_out_is_one_with_zero_scales(network):
    x = image()
    tokens = network.model['backbone']['type'] == 'EfficientFormer'
    for stage, block in ((3, 0), (0, 1), (3, 1) if tokens else (2, 1)):
        name = f'stages.{stage}.blocks.{network.place(stage, block)}.'
        model = masked(network, {}, (f'{name}ls1.gamma', f'{name}ls2.gamma'))
        network = apply(network, Action('block', stage, block), {})
        torch.testing.assert_close(build(network)(x), model(x), **EXACT)


@torch.no_grad()
def test_a_block_of_the_second_generation_loses_its_attention_alone(network):
    if network.model['backbone']['type'] == 'EfficientFormer':
        pytest.skip('whose attention is turned into pooling')
    x = image()
    for stage in (2, 3):
        block = network.arch.depths[stage] - 1
        model = masked(network, {}, (f'stages.{stage}.blocks.{block}.ls1.gamma',))
        network = apply(network, Action('attention', stage, block), {})
        torch.testing.assert_close(build(network)(x), model(x), **EXACT)
    assert network.arch.num_vit == (0, 0, 0, 0)


@torch.no_grad()
def test_dropping_other_channels_than_the_mask_is_noticed(network):
    """The sabotage of the proof above: the channels that matter least are kept."""
    action = Action('width', 2, to=9)
    scores = weights(network)
    wrong = apply(network, action, {group: -score for group, score in scores.items()})
    keep = {'stage2': scores['stage2'].topk(9).indices.sort().values}
    assert not torch.allclose(build(wrong)(image()), masked(network, keep)(image()), **EXACT)


@pytest.mark.parametrize(
    'action',
    [
        Action('block', 1, 0),
        Action('block', 4, 0),
        Action('block', 0, 5),
        Action('attention', 0, 1),
        Action('hidden', 0, 0, 0),
        Action('hidden', 0, 0, 1000),
        Action('width', 0, to=1),
        Action('width', 0),
        Action('head', to=99),
        Action('neck', to=99),
    ],
    ids=str,
)
def test_what_cannot_be_taken_out_is_said(network, action):
    with pytest.raises(ConfigError, match='cannot be done'):
        apply(network, action, weights(network))


def test_a_head_of_which_nothing_is_known_is_said(network):
    network.model['decode_head']['type'] = 'UPerHead'
    with pytest.raises(ConfigError, match='the decode head is a UPerHead.*SegformerHead'):
        _ = network.groups


def test_a_config_of_another_kind_of_channels_does_not_load(network):
    smaller = apply(network, Action('head', to=6), weights(network))
    smaller.model['decode_head']['channels'] = 7
    with pytest.raises(RuntimeError, match='size mismatch'):
        build(smaller)
