"""What runs on the host: labels from logits in numpy, the class by comparisons, the spec, images made to fit."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from effseg.deploy import label_map, load
from effseg.deploy.host import cells_of, decide_confidently
from effseg.deploy.images import fit
from effseg.deploy.program import largest
from effseg.deploy.spec import Spec, normalisation, read_beside
from effseg.errors import ArtifactError, ConfigError

from .conftest import spec_of


def smooth_logits(classes: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, height // 4 + 1, width // 4 + 1, generator=generator)
    return F.interpolate(coarse, size=(height, width), mode='bicubic') * 5


@pytest.mark.parametrize('size', [(64, 96), (61, 130), (16, 24), (9, 7)])
def test_label_map_equals_argmax_of_the_resized_logits(size):
    logits = smooth_logits(12, 16, 24)
    expected = F.interpolate(logits, size=size, mode='bilinear', align_corners=False)
    top = expected.topk(2, 1).values[0]
    decided = (top[0] - top[1]).numpy() > 1e-4
    result = label_map(logits[0].numpy(), size)
    assert result.shape == size and result.dtype == np.int32 and decided.mean() > 0.95
    np.testing.assert_array_equal(result[decided], expected.argmax(1)[0].numpy()[decided])


@pytest.mark.parametrize('classes', [1, 2, 3, 7, 150])
def test_largest_by_comparisons_is_argmax_with_ties_to_the_lower(classes):
    values = torch.randint(-3, 4, (1, 9, 11, classes), generator=torch.Generator().manual_seed(0)).float()
    index = torch.arange(classes, dtype=torch.float32)
    winners = largest(values, index)[0].long().expand(1, 9, 11, 1)
    torch.testing.assert_close(values.gather(3, winners), values.amax(3, keepdim=True))
    distinct = torch.randn(1, 9, 11, classes, generator=torch.Generator().manual_seed(1))
    assert torch.equal(largest(distinct, index)[0].long().expand(1, 9, 11, 1), distinct.argmax(3, keepdim=True))


def test_spec_survives_json():
    spec = spec_of('onnx')
    assert Spec.from_json(spec.to_json(), 'here') == spec


def test_the_order_of_colors_keeps_the_key_that_files_have_and_is_read_under_either():
    values = json.loads(dataclasses.replace(spec_of('onnx'), color_order='BGR').to_json())
    assert values['colour_order'] == 'BGR' and 'color_order' not in values
    renamed = {('color_order' if key == 'colour_order' else key): value for key, value in values.items()}
    assert all(Spec.from_json(json.dumps(one), 'here').color_order == 'BGR' for one in (values, renamed))


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"effseg_spec": 99}', '{"effseg_spec": 1, "backend": "onnx"}'])
def test_what_is_no_spec_is_refused(text):
    with pytest.raises(ArtifactError, match='here is not the spec'):
        Spec.from_json(text, 'here')


@pytest.mark.parametrize(
    'change',
    [
        dict(height=100),
        dict(width=0),
        dict(output='mask'),
        dict(precision='fp8'),
        dict(std=(1, 0, 1)),
        dict(palette=[(0, 0, 0)]),
        dict(mean=('a', 'b', 'c')),
        dict(mean=(0, float('nan'), 0)),
        dict(height='64'),
        dict(height=64.0),
        dict(classes=(1, 2, 3)),
        dict(palette=[(0, 0, 'x')] * 3),
        dict(palette=[(0, 0, 256)] * 3),
        dict(align_corners=1),
        dict(threshold=0.5),  # of three classes
        dict(fit='crop'),
        dict(fit=None),
        dict(fit=['letterbox']),
    ],
)
def test_spec_that_cannot_be_is_refused(change):
    with pytest.raises(ConfigError):
        dataclasses.replace(spec_of('onnx'), **change)


@pytest.mark.parametrize('text', ['[' * 100_000, '{"effseg_spec": ' * 100_000])
def test_deep_json_is_one_error(text, tmp_path):
    with pytest.raises(ArtifactError, match='here is not the spec'):
        Spec.from_json(text, 'here')
    (tmp_path / 'model.onnx.spec.json').write_text(text)
    with pytest.raises(ArtifactError, match='is not JSON'):
        read_beside(tmp_path / 'model.onnx')


@pytest.mark.parametrize('number, unknown', [(1, ('align_corners', 'threshold', 'content_sha256')), (2, ())])
def test_files_of_earlier_formats_are_read_have_logits_of_a_quarter_and_go_in_windows(number, unknown):
    values = json.loads(spec_of('onnx').to_json())
    for name in ('grid', 'fit', *unknown):
        del values[name]
    spec = Spec.from_json(json.dumps({**values, 'effseg_spec': number}), 'here')
    assert spec == spec_of('onnx', fit='windows') and spec.result_shape == (3, 16, 24)


def test_logits_have_the_size_that_the_spec_says():
    spec = spec_of('onnx', grid=(2, 3))
    assert spec.result_shape == (3, 2, 3) and Spec.from_json(spec.to_json(), 'here') == spec


@pytest.mark.parametrize('size', [(64, 96), (61, 130), (16, 24), (9, 7)])
@pytest.mark.parametrize('align_corners', [False, True])
def test_label_map_of_a_threshold_and_aligned_corners(size, align_corners):
    logits = smooth_logits(1, 16, 24)
    expected = F.interpolate(logits, size=size, mode='bilinear', align_corners=align_corners)[0, 0].sigmoid().numpy()
    result = label_map(logits[0].numpy(), size, align_corners, threshold=0.3)
    decided = np.abs(expected - 0.3) > 1e-5
    assert decided.mean() > 0.95 and 0 < result.mean() < 1
    np.testing.assert_array_equal(result[decided], (expected > 0.3)[decided])
    with pytest.raises(ConfigError, match='threshold'):
        label_map(logits[0].numpy(), size)


@pytest.mark.filterwarnings('error')
def test_the_confidence_of_large_logits_is_found_in_silence():
    logits, cells = np.float32([[[-200, 200]]]), cells_of(2, 2, 2, 2)
    labels, confidence = decide_confidently(logits, cells_of(1, 1, 1, 1), cells, 0.5)
    assert labels.tolist() == [[0, 1]] and confidence.tolist() == [[1, 1]]


def test_one_number_normalises_all_colors():
    assert normalisation(dict(mean=[127.5], std=(60.0,))) == ([127.5] * 3, (60.0,) * 3)


@pytest.mark.parametrize('suffix', ['.onnx', '.pt2', '.pte', '.tflite'])
def test_a_folder_is_no_artifact(tmp_path, suffix):
    (tmp_path / f'm{suffix}').mkdir()
    with pytest.raises(ArtifactError, match='no artifact at'):
        load(tmp_path / f'm{suffix}')


def test_images_come_in_three_sizes_of_content():
    image = np.full((100, 300, 3), 200, np.uint8)
    images = [fit(image, (64, 96), number, (1, 2, 3)) for number in range(3)]
    assert all(image.shape == (64, 96, 3) for image in images)
    shown = [(image == 200).all(2).sum() for image in images]
    assert shown == [64 * 96, 32 * 96, 16 * 48]
    assert (images[2][-1, -1] == (1, 2, 3)).all()
