"""What a config of the hub may say: everything that light segmenters need, and no file, address or thing to call."""

import copy
import json
import random
import re
from pathlib import Path

import mmseg
import pytest
from hostile import places
from mmengine.config import Config, ConfigDict

from effseg.benchmark.zoo import MODELS
from effseg.hub import model, schema
from hub.test_model import HOSTILE

FOREIGN = (*schema._RESNETS, *schema._OTHERS, 'STDCNet', 'FPN', 'JPU', 'MultiLevelNeck', 'Feature2Pyramid')
HEADS = ('FCNHead', 'OCRHead', 'LightHamHead', 'PIDHead', 'UPerHead', 'STDCHead')
# what a text must not be, and what must not stand in the place of a number
NAMING = [
    *(
        'http://127.0.0.1:9/w.pkl',
        's3://bucket/w.pth',
        'file:///etc/passwd',
        'hf-hub:a/b',
        'hf_hub:a/b',
        'local-dir:/tmp',
    ),
    *('/dev/zero', '~/w.pth', '../w.npy', 'w.pkl', 'C:\\\\w.pkl', 'resnet50.pth', 'torchvision://resnet50'),
    *('os.system', 'builtins.eval', 'mmseg.models.ResNet', 'lambda: 1', print),
    {'type': 'Pretrained', 'checkpoint': 'w.pkl'},
    {'type': 'os.system'},
    {'type': 'DCNv2'},
    {'checkpoint': 'w.pkl'},
]


@pytest.fixture(scope='module')
def zoo():
    """The zoo's models, as the layout says them."""
    found = {}
    for name, (path, exchanged) in MODELS.items():
        cfg = Config.fromfile(Path(mmseg.__file__).parent / '.mim/configs' / path)
        cfg.model = ConfigDict({**cfg.model, **exchanged})
        found[name] = model._content(cfg, {'classes': ['a'], 'palette': [(0, 0, 0)]})
    return found


def test_the_zoo_has_a_place_and_leaves_files_at_home(zoo):
    for name, content in zoo.items():
        text = json.dumps(content['model'])
        assert not any(word in text for word in ('://', '.pth', 'pretrained', 'checkpoint', 'loss')), name


@pytest.mark.parametrize('kind', [*schema.ARGUMENTS, *FOREIGN, *HEADS])
def test_no_argument_takes_a_file_an_address_or_a_callable(kind):
    found = schema.arguments(kind)
    if kind not in schema.ARGUMENTS:
        assert not {'init_cfg', 'pretrained', 'checkpoint_path', 'loss_decode', 'kwargs'} & set(found) and found
    for name, holds in found.items():
        for value in NAMING:
            with pytest.raises(ValueError):
                holds(value, name)
            with pytest.raises(ValueError):
                holds([value], name)


@pytest.mark.parametrize(
    'word', ['init_cfg', 'pretrained', 'checkpoint_path', 'sampler', 'plugins', 'kwargs', 'data_format']
)
@pytest.mark.parametrize('part', ['backbone', 'decode_head'])
def test_no_part_takes_what_loads_or_trains(word, part, zoo):
    for name in ('STDC1', 'RepViT-M1.1 + FPN (timm)', 'PIDNet-S'):
        content = copy.deepcopy(zoo[name])
        content['model'][part][word] = None
        with pytest.raises(ValueError, match='has no place in the layout'):
            schema.check(content)


def texts(value):
    if isinstance(value, dict):
        return [text for item in value.items() for text in (*texts(item[0]), *texts(item[1]))]
    return (
        [text for item in value for text in texts(item)]
        if isinstance(value, list)
        else [value] * isinstance(value, str)
    )


def test_a_changed_model_says_no_more_than_words_and_bounded_numbers(zoo):
    rng, passed = random.Random(0), 0
    for content in zoo.values():
        for place in places(content['model']):
            for hostile in rng.choices([*HOSTILE, *(value for value in NAMING if value is not print)], k=4):
                changed = copy.deepcopy(content['model'])
                holder = changed
                for key in place[:-1]:
                    holder = holder[key]
                holder[place[-1]] = hostile
                try:
                    schema.check({**content, 'model': changed})
                except ValueError:
                    continue
                passed += 1
                assert all(re.fullmatch(r'[\w.]+', text) for text in texts(changed)), (place, hostile)
                assert '.' not in ''.join(texts({**changed, 'backbone': 0})), (place, hostile)
    assert passed  # some of the values are harmless where they came to stand
