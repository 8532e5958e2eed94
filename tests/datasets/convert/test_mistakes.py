"""Labels that cannot be used are named, and nothing outside of the folder is read or written."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hostile import changed

from effseg.apis.convert import convert
from effseg.errors import DataError

from .written import (
    EXPECTED,
    HEIGHT,
    WIDTH,
    coco,
    colors_of_json,
    cvat,
    labelme,
    numbers,
    result,
    save_image,
    save_mask,
    write,
    yolo,
)


def broken(name: str, root: Path) -> None:
    if name == 'labels with no image':
        coco(root)
        (root / 'images/b_1.jpg').unlink()
    elif name == 'images with no label':
        numbers(root)
        (root / 'masks/b_1.png').unlink()
    elif name == 'one color':
        colors_of_json(root)
        write(root / 'classes.json', dict(car=[255, 0, 0], road=[255, 0, 0]))
    elif name == 'no class has':
        colors_of_json(root)
        save_mask(root / 'b_1_mask.png', np.full((HEIGHT, WIDTH, 3), (1, 2, 3), np.uint8))
    elif name == 'more than 1024':
        colors_of_json(root)
        (root / 'classes.json').unlink()
        save_image(root / 'b_1_mask.png')
    elif name == 'another size':
        numbers(root)
        save_mask(root / 'masks/b_1.png', EXPECTED[1:])
    elif name == 'label maps of another size':
        numbers(root)
        save_mask(root / 'masks/b_1.png', EXPECTED.T)
    elif name == 'labelled twice':
        coco(root)
        write(root / 'annotations/val.json', (root / 'annotations/instances.json').read_text())
    elif name == 'cannot be used':
        yolo(root)
        write(root / 'images/b_1.jpg', 'no image')
    elif name == 'without a pixel':
        numbers(root)
        write(root / 'classes.txt', 'car\nroad\nbus\n')
    else:
        coco(root)
        file = root / 'annotations/instances.json'
        content = json.loads(file.read_text())
        entry = content['annotations'][6]
        if name == 'outside of them':
            entry['segmentation'] = [[-40, 5, 10, 5, 10, 20]]
        elif name == 'shapes outside':
            entry['segmentation'] = dict(size=[WIDTH, HEIGHT], counts=[5, WIDTH * HEIGHT - 5])
        elif name == 'without a segmentation':
            entry['segmentation'] = []
        elif name == 'three or more':
            entry['segmentation'] = [[1, 2, 3, 4]]
        elif name == 'all finite':
            entry['segmentation'] = [[1, 2, 3, 4, 5, float('nan')]]
        elif name == 'do not make up':
            entry['segmentation'] = dict(size=[HEIGHT, WIDTH], counts=[5, 5])
        elif name == 'does not list':
            entry['category_id'] = 99
        elif name == 'no COCO file':
            content['images'][0] = 5
        write(file, content)


MISTAKES = {
    'labels with no image': True,
    'images with no label': True,
    'no class has': True,
    'another size': True,
    'label maps of another size': True,
    'labelled twice': True,
    'cannot be used': True,
    'shapes outside': True,
    'without a pixel': True,
    'outside of them': True,
    'without a segmentation': True,
    'do not make up': True,
    'one color': False,
    'more than 1024': False,
    'three or more': False,
    'all finite': False,
    'does not list': False,
    'no COCO file': False,
}


@pytest.mark.parametrize('name', MISTAKES)
def test_what_cannot_be_used_is_named_and_may_be_left_out(tmp_path, name):
    broken(name, tmp_path / 'source')
    with pytest.raises(DataError, match=name) as error:
        convert(str(tmp_path / 'source'), str(tmp_path / 'out'))
    assert not (tmp_path / 'out').exists()
    if name in ('labels with no image', 'images with no label', 'another size'):
        assert 'b_1' in str(error.value) and ' 1 ' in str(error.value)
    if not MISTAKES[name]:
        return
    dataset = convert(str(tmp_path / 'source'), str(tmp_path / 'out'), leave_out=True)
    assert dataset.classes == ['car', 'road'] and any('left out' in line and name in line for line in dataset.said)
    assert all(
        ((found == EXPECTED) | (found == 255)).all()
        for stem, found in result(tmp_path / 'out').items()
        if stem != 'b_1'
    )


SEGMENTATIONS = [
    *(
        dict(counts=counts, size=[HEIGHT, WIDTH])
        for counts in ([1e300], [float('nan')], [[1], [2, 3]], '~' * 99, [-5, 9])
    ),
    *(dict(counts=[4], size=size) for size in ([[2], 2], [2], 'ab', [10**9, 10**9], [1e400, 1])),
    *([[number] * 6] for number in (1e308, 10**400, 'x', [1], None)),
]


@pytest.mark.parametrize('segmentation', SEGMENTATIONS, ids=lambda value: str(value)[:40])
def test_no_numbers_of_a_file_are_more_than_one_line(tmp_path, segmentation):
    coco(tmp_path / 'source')
    file = tmp_path / 'source/annotations/instances.json'
    content = json.loads(file.read_text())
    for entry in content['annotations']:  # all, so that nothing is left where they are left out
        entry['segmentation'] = segmentation
    file.write_text(json.dumps(content))
    for leave_out in (False, True):
        with pytest.raises(DataError):
            convert(str(tmp_path / 'source'), str(tmp_path / 'out'), leave_out=leave_out)


@pytest.mark.slow
def test_generated_exports_are_a_data_set_or_one_line(tmp_path):
    coco(tmp_path / 'source')
    file = tmp_path / 'source/annotations/instances.json'
    content, rng = json.loads(file.read_text()), random.Random(0)
    for number in range(500):
        file.write_text(json.dumps(changed(content, rng)))
        try:
            convert(str(tmp_path / 'source'), str(tmp_path / 'out'), leave_out=bool(number % 2))
        except DataError as error:
            assert str(error)
    assert {path.name for path in tmp_path.iterdir()} <= {'source', 'out'}


def test_a_task_without_an_image_is_one_line(tmp_path):
    save_image(tmp_path / 'source/images/a.jpg')
    write(tmp_path / 'source/labels.json', [dict(id=7, data=dict(image=5), annotations=[])])
    with pytest.raises(DataError, match='task 7 is none of Label Studio: ValueError: data names no image'):
        convert(str(tmp_path / 'source'), str(tmp_path / 'out'))


def test_what_a_file_holds_in_the_place_of_a_mask_or_a_color_is_one_line(tmp_path):
    labelme(tmp_path / 'labelme')
    file = tmp_path / 'labelme/a_0.json'
    write(file, dict(shapes=[dict(label='car', points=[[1, 1], [5, 5]], shape_type='mask', mask=None)]))
    cvat(tmp_path / 'cvat')
    file = tmp_path / 'cvat/annotations.xml'
    write(file, re.sub('<color>.*?</color>', '<color>#ff</color>', file.read_text()))
    for source, message in (('labelme', 'holds a mask that cannot be read'), ('cvat', "the color '#ff'")):
        with pytest.raises(DataError, match=message):
            convert(str(tmp_path / source), str(tmp_path / 'out'))


def test_labels_of_an_image_that_is_missing_are_not_laid_over_another(tmp_path):
    yolo(tmp_path / 'source')
    label = tmp_path / 'source/labels/a_0.txt'
    write(label.with_name('a_0.1.txt'), label.read_text())
    with pytest.raises(DataError, match='1 labels with no image: labels/a_0.1.txt'):
        convert(str(tmp_path / 'source'), str(tmp_path / 'out'))


def test_an_interrupted_conversion_leaves_no_account_of_the_one_before(tmp_path, monkeypatch):
    numbers(tmp_path / 'source')
    convert(str(tmp_path / 'source'), str(tmp_path / 'out'))

    def interrupted(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr('shutil.copyfile', interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(str(tmp_path / 'source'), str(tmp_path / 'out'), mapping={'car': 'vehicle'})
    assert not (tmp_path / 'out/dataset.json').exists()


def test_a_file_that_would_lead_elsewhere_or_explode_is_not_followed(tmp_path):
    save_image(tmp_path / 'secret/a_0.jpg')
    coco(tmp_path / 'source')
    file = tmp_path / 'source/annotations/instances.json'
    file.write_text(file.read_text().replace('"a_0.jpg"', '"../../secret/x_0.jpg"'))
    with pytest.raises(DataError, match='1 labels with no image'):
        convert(str(tmp_path / 'source'), str(tmp_path / 'out'))
    write(tmp_path / 'bomb/annotations.xml', '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotations>&b;</annotations>')
    with pytest.raises(DataError, match='declares XML entities'):
        convert(str(tmp_path / 'bomb'), str(tmp_path / 'out'))
    write(tmp_path / 'deep/a.json', '[' * 100_000)
    with pytest.raises(DataError, match='no JSON'):
        convert(str(tmp_path / 'deep'), str(tmp_path / 'out'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='holds no labels'):
        convert(str(tmp_path / 'empty'), str(tmp_path / 'out'))


def test_names_that_are_no_texts_are_refused_before_they_are_written_out(tmp_path):
    # ten lists of ten of the one before: a few lines in the file, ten thousand million words as text
    bomb = 'a: &a [x]\n' + ''.join(
        f'{b}: &{b} [{", ".join(10 * [f"*{a}"])}]\n' for a, b in zip('abcdefghij', 'bcdefghijk')
    )
    write(tmp_path / 'data.yaml', bomb + 'names: *k\n')
    write(tmp_path / 'labels/1.txt', '0 0.1 0.1 0.2 0.1 0.2 0.2')
    with pytest.raises(DataError, match='names that are not'):
        convert(str(tmp_path), str(tmp_path.parent / 'out'))
