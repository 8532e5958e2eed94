"""Networks with statistics, scales and norms of a trained one, which fresh ones lack: fresh, half of the folding is a
no-op. And what would otherwise take most of a short training's time."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

KEYS = Path(__file__).parents[2] / 'shared' / 'reference' / 'original_backbone_keys.json'


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draws every number that folding has to carry: BatchNorm statistics, affine norms, layer scales, biases, bias
    tables."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, mean=0.0, std=1.0):
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator) * std + mean)

    for layer in module.modules():
        if isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)):
            normal(layer.weight, 1.0, 0.3)
            normal(layer.bias, 0.0, 0.3)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            normal(layer.running_mean, 0.0, 0.3)
            layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=generator) * 1.5 + 0.3)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            fan_in = layer.weight[0].numel()
            normal(layer.weight, 0.0, fan_in**-0.5)
            if layer.bias is not None:
                normal(layer.bias, 0.0, 0.3)
    for name, parameter in module.named_parameters():
        if name.endswith(('.gamma', 'attention_biases')):
            normal(parameter, 0.0, 0.5)
    return module.double().eval()


@pytest.fixture(scope='session')
def random_stats():
    """The function that makes a fresh module look trained, in float64 and eval mode."""
    return randomise


@pytest.fixture(scope='session', autouse=True)
def configs_as_they_come():
    """MMEngine lays a config's text out with yapf for every log and every checkpoint, in more time than a small
    training takes.

    What runs in processes of its own does so still.
    """
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec('yapf'):
            from yapf.yapflib import yapf_api

            patch.setattr(yapf_api, 'FormatCode', lambda text, **options: (text, False))
        yield


@pytest.fixture(scope='session')
def original_shapes() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the original's segmentation backbones, by model."""
    if not KEYS.is_file():
        if os.environ.get('CI'):
            pytest.fail(f'{KEYS} is missing')
        pytest.skip(f'{KEYS.name} is not at hand: the names of the original checkpoints are not checked')
    return json.loads(KEYS.read_text())
