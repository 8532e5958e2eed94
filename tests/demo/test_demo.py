"""The built-in data set: reproducible, complete, and careful with what is already in the folder."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effseg.demo import dataset as demo
from effseg.demo.scenes import CLASSES, IGNORED, PALETTE, draw_scene
from effseg.errors import ConfigError, DataError

SMALL = dict(train=3, val=2, size=(48, 72))


def read(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob('*')) if file.is_file()}


def scenes(seed: int, count: int, size=(96, 144)):
    return [draw_scene(size, np.random.default_rng([seed, number])) for number in range(count)]


def test_the_same_state_draws_the_same_scene_and_another_a_different_one():
    (image, labels), (other_image, other_labels) = scenes(seed=3, count=2)
    again_image, again_labels = draw_scene((96, 144), np.random.default_rng([3, 0]))
    assert np.array_equal(image, again_image) and np.array_equal(labels, again_labels)
    assert not np.array_equal(image, other_image) and not np.array_equal(labels, other_labels)


@pytest.mark.parametrize('size', [(32, 32), (48, 100), (101, 47)])
def test_a_scene_has_the_size_asked_for(size):
    image, labels = draw_scene(size, np.random.default_rng(0))
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert labels.shape == size and labels.dtype == np.uint8


def test_every_class_appears_and_only_outlines_are_ignored():
    labels = np.stack([labels for _, labels in scenes(seed=0, count=12)])
    assert set(np.unique(labels)) == {*range(len(CLASSES)), IGNORED}
    assert 0.001 < (labels == IGNORED).mean() < 0.03


def test_no_class_can_be_told_by_its_color():
    """Label each pixel by the nearest mean class color of the same scenes: even so informed, color alone must
    fail."""
    drawn = scenes(seed=0, count=12)
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in drawn]).astype(np.float32)
    labels = np.concatenate([labels.reshape(-1) for _, labels in drawn])
    means = np.stack([pixels[labels == label].mean(0) for label in range(len(CLASSES))])
    nearest = ((pixels[:, None] - means) ** 2).sum(-1).argmin(1)
    overlap = [
        ((nearest == label) & (labels == label)).sum()
        / ((nearest == label) | (labels == label))[labels != IGNORED].sum()
        for label in range(len(CLASSES))
    ]
    assert np.mean(overlap) < 0.3


def test_one_color_per_class():
    assert len(PALETTE) == len(CLASSES) == len({tuple(color) for color in PALETTE})


def test_the_folder_has_the_layout_mmsegmentation_reads(tmp_path):
    assert demo.write_demo_data(tmp_path, **SMALL) == 5
    for split, count in (('train', 3), ('val', 2)):
        images = sorted((tmp_path / 'images' / split).iterdir())
        labels = sorted((tmp_path / 'annotations' / split).iterdir())
        assert [file.name for file in images] == [f'{number:04d}.jpg' for number in range(count)]
        assert [file.name for file in labels] == [f'{number:04d}.png' for number in range(count)]
        for image_file, label_file in zip(images, labels):
            with Image.open(image_file) as image, Image.open(label_file) as label:
                assert image.mode == 'RGB' and label.mode == 'L'
                assert image.size == label.size == (72, 48)
                assert set(np.unique(label)) <= {*range(len(CLASSES)), IGNORED}


def test_writing_is_reproducible_and_a_second_call_changes_nothing(tmp_path):
    demo.write_demo_data(tmp_path / 'a', **SMALL)
    demo.write_demo_data(tmp_path / 'b', **SMALL)
    first = read(tmp_path / 'a')
    assert first == read(tmp_path / 'b')
    assert demo.write_demo_data(tmp_path / 'a', **SMALL) == 0
    assert first == read(tmp_path / 'a')


def test_an_interrupted_set_is_completed(tmp_path):
    demo.write_demo_data(tmp_path, **SMALL)
    whole = read(tmp_path)
    (tmp_path / 'images/val/0001.jpg').unlink()
    (tmp_path / 'annotations/train/0002.png').unlink()
    assert demo.write_demo_data(tmp_path, **SMALL) == 2
    assert whole == read(tmp_path)


def test_the_splits_share_no_scene_and_the_seed_matters(tmp_path):
    demo.write_demo_data(tmp_path / 'a', **SMALL)
    demo.write_demo_data(tmp_path / 'b', **SMALL, seed=1)
    maps = [content for root in ('a', 'b') for name, content in read(tmp_path / root).items() if name.endswith('.png')]
    assert len(maps) == len(set(maps)) == 10


def test_a_set_drawn_with_other_arguments_is_left_alone(tmp_path):
    demo.write_demo_data(tmp_path, **SMALL)
    before = read(tmp_path)
    with pytest.raises(DataError, match='delete the folder or give another'):
        demo.write_demo_data(tmp_path, **{**SMALL, 'train': 2})
    assert before == read(tmp_path)


def test_foreign_data_is_left_alone(tmp_path):
    (tmp_path / 'images').mkdir()
    with pytest.raises(DataError, match='already holds images'):
        demo.write_demo_data(tmp_path, **SMALL)
    assert [file.name for file in tmp_path.rglob('*')] == ['images']


@pytest.mark.parametrize(
    'wrong',
    [dict(size=(16, 64)), dict(train=0), dict(val=-1), dict(seed=-1), dict(train=10**29), dict(size=(32, 10**29))],
)
def test_arguments_out_of_range_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(ConfigError, match='expected'):
        demo.write_demo_data(tmp_path / 'new', **{**SMALL, **wrong})
    assert not (tmp_path / 'new').exists()


def test_the_command_line(tmp_path, capsys):
    arguments = [str(tmp_path), '--train', '3', '--val', '2', '--size', '48', '72']
    demo.main(arguments)
    assert '3 training and 2 held-out scenes, 5 written' in capsys.readouterr().out
    with pytest.raises(DataError, match='holds a demo set drawn as'):
        demo.main([*arguments, '--seed', '1'])


def test_drawing_needs_numpy_and_pillow_alone():
    program = (
        'import sys\n'
        'import importlib.util\n'
        'found = importlib.util.find_spec\n'
        "importlib.util.find_spec = lambda name, *a: None if name == 'mmseg' else found(name, *a)\n"
        'import effseg.demo.dataset\n'
        "heavy = {'torch', 'torchvision', 'mmcv', 'mmengine', 'mmseg', 'timm', 'cv2', 'matplotlib'}\n"
        'assert not heavy & set(sys.modules), heavy & set(sys.modules)\n'
    )
    subprocess.run([sys.executable, '-c', program], check=True, cwd=Path(__file__).parents[2])
