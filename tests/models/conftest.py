import json
import os
from pathlib import Path

import pytest
import torch

KEYS = Path(__file__).parents[3] / 'shared' / 'reference' / 'original_backbone_keys.json'


@pytest.fixture(scope='session')
def original_shapes() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the original's segmentation backbones, by model."""
    if not KEYS.is_file():
        if os.environ.get('CI'):
            pytest.fail(f'{KEYS} is missing')
        pytest.skip(f'{KEYS.name} is not at hand: the names of the original checkpoints are not checked')
    return json.loads(KEYS.read_text())


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
