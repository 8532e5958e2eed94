"""Whatever comes in, what comes out is a result or one of our errors."""

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from effseg.checkpoint.read import read_checkpoint
from effseg.datasets.check.pair import Rules, check_pair
from effseg.datasets.images import read_image
from effseg.deploy.fit import labels_of
from effseg.deploy.spec import FITS, Spec
from effseg.errors import ArtifactError, DataError, WeightsError

pytestmark = pytest.mark.medium
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9000) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def whole(kind) -> bytes:
    stream = io.BytesIO()
    if kind == 'checkpoint':
        torch.save({'state_dict': {'a': torch.arange(50.0), 'b': torch.ones(2, 3)}, 'meta': {'iter': 3}}, stream)
    elif kind == 'older checkpoint':
        torch.save({'a': torch.arange(50.0)}, stream, _use_new_zipfile_serialization=False)
    else:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


def damaged(kinds):
    """Whole files with bytes changed, taken out or put in, and files of any bytes."""

    @st.composite
    def draw_file(draw):
        content = bytearray(draw(st.sampled_from([whole(kind) for kind in kinds])))
        for _ in range(draw(st.integers(0, 4))):
            place = draw(st.integers(0, max(len(content) - 1, 0)))
            content[place : place + draw(st.integers(0, 40))] = draw(st.binary(max_size=20))
        return bytes(content)

    return draw_file() | st.binary(max_size=200)


@FUZZ
@given(content=damaged(['checkpoint', 'older checkpoint']))
def test_checkpoints(tmp_path, content):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    try:
        assert all(isinstance(value, torch.Tensor) for value in read_checkpoint(path).state_dict.values())
    except WeightsError as error:
        assert str(path) in str(error) and '\n' not in str(error)


@FUZZ
@given(content=damaged(['PNG', 'JPEG', 'GIF', 'BMP', 'WEBP', 'TIFF']))
def test_images(tmp_path, content):
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    try:
        assert read_image(path).shape[2:] == (3,)
    except DataError as error:
        assert str(path) in str(error)


@FUZZ
@given(image=damaged(['PNG', 'JPEG']), label_map=damaged(['PNG', 'GIF']))
def test_pairs_of_a_data_set(tmp_path, image, label_map):
    for name, content in (('a.jpg', image), ('a.png', label_map)):
        (tmp_path / name).write_bytes(content)
    result = check_pair(str(tmp_path / 'a.jpg'), str(tmp_path / 'a.png'), Rules(('one', 'two')))
    assert all(finding.path and finding.message and finding.remedy for finding in result.findings)


SPEC = dict(
    backend='onnx',
    height=64,
    width=64,
    output='labels',
    precision='fp32',
    mean=[0.0, 0.0, 0.0],
    std=[1.0, 1.0, 1.0],
    classes=['a', 'b'],
    palette=[[0, 0, 0], [1, 1, 1]],
    checkpoint_sha256='0' * 64,
    effseg='0.1.0',
)


@FUZZ
@given(
    text=st.text(max_size=30)
    | JSON.map(json.dumps)
    | st.dictionaries(st.sampled_from([*SPEC, 'format', 'version']), JSON, max_size=5).map(
        lambda changes: json.dumps({**json.loads(Spec(**SPEC).to_json()), **changes})
    )
)
def test_specs(text):
    try:
        assert isinstance(Spec.from_json(text, 'a.spec.json'), Spec)
    except ArtifactError as error:
        assert 'a.spec.json' in str(error)


GRID = st.lists(st.sampled_from([1, 16, 16.0, 64, True]), min_size=2, max_size=2)


@FUZZ
@given(
    changes=st.dictionaries(st.sampled_from([*SPEC, 'grid', 'threshold', 'align_corners']), JSON | GRID, max_size=2),
    fit=st.sampled_from(FITS),
    logits=st.booleans(),
)
def test_a_spec_that_is_read_labels_photos(changes, fit, logits):
    """What is taken for a spec has values that the arithmetic around a file can work with."""
    said = {**SPEC, 'output': 'logits' if logits else 'labels', 'fit': fit, 'effseg_spec': 4, **changes}
    try:
        spec = Spec.from_json(json.dumps(said), 'a.spec.json')
    except ArtifactError:
        return
    if max(spec.image_shape) > 256:
        return
    dtype = np.float32 if spec.output == 'logits' else np.int32
    labels = labels_of(np.zeros((40, 70, 3), np.uint8), spec, lambda image: np.zeros(spec.result_shape, dtype))
    assert labels.shape == (40, 70) and labels.dtype == np.int32


WORDS = st.sampled_from(
    [
        'no_such.py',
        '--resume',
        '--work-dir',
        '--cfg-options',
        'a=1',
        'a',
        '--launcher',
        'none',
        'x',
        '--skip-bad-samples',
        '-1',
        '--amp',
        '--to',
        'onnx',
        '--size',
        '0',
        '--out',
        '--out-dir',
        '--opacity',
        '7',
        '--tta',
        '--split',
        'train',
        '--json',
        '--device',
        '\x00',
        '',
    ]
)


@pytest.mark.parametrize('name', ['train', 'test', 'predict', 'export', 'check_data'])
@settings(FUZZ, max_examples=20)
@given(arguments=st.lists(WORDS, max_size=6))
def test_arguments(tool, tmp_path_factory, name, arguments):
    outcome = tool(name, *arguments)
    assert outcome.status == 2 and 'Traceback' not in outcome.err
    assert len([line for line in outcome.err.splitlines() if line.startswith('error: ')]) == 1
