"""tools/check_data.py finds every planted defect, with its path and a remedy, and nothing in sound data."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effseg.apis.check_data import check_data
from effseg.datasets.check.findings import ERROR, WARNING
from effseg.datasets.check.quick import check_datasets
from effseg.datasets.check.split import find_splits
from effseg.datasets.check.survey import survey
from effseg.demo.dataset import write_demo_data
from effseg.engine.config import load_config
from effseg.errors import ConfigError, DataError

CONFIG = str(Path(__file__).with_name('scenes_config.py'))
SHARED = Path(__file__).parents[3] / 'shared' / 'data'


@pytest.fixture(scope='module')
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('scenes')
    write_demo_data(root, train=4, val=2, size=(40, 56))
    return root


@pytest.fixture
def root(scenes, tmp_path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / 'data'))


IMAGE, LABEL, VAL = 'images/train/0001.jpg', 'annotations/train/0001.png', 'annotations/val/0001.png'


def labels_of(root, file=LABEL):
    return np.array(Image.open(root / file))


def save(root, pixels, file=LABEL, **options):
    Image.fromarray(pixels).save(root / file, **options)


def for_all(root, change):
    for path in root.glob('annotations/*/*.png'):
        Image.fromarray(change(np.array(Image.open(path)))).save(path)


def turned(root, orientation, square=False):
    image, labels = Image.open(root / IMAGE), Image.open(root / LABEL)
    if square:
        image, labels = image.crop((0, 0, 40, 40)), labels.crop((0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(root / IMAGE, exif=exif)
    labels.save(root / LABEL)


def animated(root):
    frames = [Image.fromarray(np.full((40, 56, 3), value, np.uint8)) for value in (0, 255)]
    frames[0].save(root / IMAGE, format='GIF', save_all=True, append_images=frames[1:])


def palette_in_order_of_appearance(root):
    labels = labels_of(root)
    colors = load_config(CONFIG).train_dataloader.dataset.metainfo.palette
    labels[labels == 255] = 0
    seen = list(np.unique(labels))
    number = {value: (index + 1) % len(seen) for index, value in enumerate(seen)}
    image = Image.fromarray(np.vectorize(number.get)(labels).astype(np.uint8), mode='P')
    image.putpalette(
        [channel for value, _ in sorted(number.items(), key=lambda item: item[1]) for channel in colors[value]]
    )
    image.save(root / LABEL)


def garbled(root):
    content = bytearray((root / IMAGE).read_bytes())
    content[len(content) // 2 : len(content) // 2 + 100] = bytes(range(100))
    (root / IMAGE).write_bytes(content[: len(content) * 3 // 4] + b'\xff\xd9')


def of_16_bits(root):
    import cv2

    pixels = np.random.default_rng(0).integers(0, 4096, (40, 56, 3)).astype(np.uint16)
    (root / IMAGE).write_bytes(cv2.imencode('.png', pixels)[1].tobytes())


def masks_named(root, image, mask):
    for folder, new in (('images', image), ('annotations', mask)):
        for path in [*(root / folder).glob('*/*.*')]:
            path.rename(path.with_name(path.stem + new))


def compressed_anew(root):
    image, labels = Image.open(root / IMAGE).resize((560, 400)), Image.open(root / LABEL).resize((560, 400), 0)
    image.save(root / IMAGE)
    labels.save(root / LABEL)
    image.resize((280, 200)).save(root / 'images/val/0001.jpg', quality=60)
    labels.resize((280, 200), 0).save(root / VAL)


def of_train(root, change):
    for path in root.glob('annotations/train/*.png'):
        Image.fromarray(change(np.array(Image.open(path)))).save(path)


def link_val_to_train(root):
    for folder in ('images', 'annotations'):
        shutil.rmtree(root / folder / 'val')
        (root / folder / 'val').symlink_to('train')


def cut(root, file):
    (root / file).write_bytes((root / file).read_bytes()[:-200])


# name: what is done to the data, what is found, how grave it is, where, and options of the config
DEFECTS = {
    'image is empty': (lambda r: (r / IMAGE).write_bytes(b''), 'image: empty', ERROR, IMAGE, {}),
    'image is text': (lambda r: (r / IMAGE).write_text('<html>404</html>'), 'image: not an image', ERROR, IMAGE, {}),
    'image is cut': (lambda r: cut(r, IMAGE), 'image: damaged', ERROR, IMAGE, {}),
    'image is a dead link': (
        lambda r: ((r / IMAGE).unlink(), (r / IMAGE).symlink_to('gone.jpg')),
        'image: missing',
        ERROR,
        IMAGE,
        {},
    ),
    'image is one pixel': (
        lambda r: (save(r, np.zeros((1, 1, 3), np.uint8), IMAGE), save(r, np.zeros((1, 1), np.uint8))),
        'image: too thin',
        ERROR,
        IMAGE,
        {},
    ),
    'image has 16 bits': (
        lambda r: save(r, np.full((40, 56), 3000, np.uint16), IMAGE, format='PNG'),
        'image: more than 8 bits',
        ERROR,
        IMAGE,
        {},
    ),
    'image is animated': (animated, 'image: several frames', WARNING, IMAGE, {}),
    'image has another suffix': (
        lambda r: (r / IMAGE).rename(r / 'images/train/0001.JPEG'),
        'image: other suffix',
        ERROR,
        '0001.JPEG',
        {},
    ),
    'image is turned by half': (lambda r: turned(r, 3), 'pair: turned by EXIF', ERROR, IMAGE, {}),
    'image is turned by a quarter': (lambda r: turned(r, 6), 'pair: turned by EXIF', WARNING, IMAGE, {}),
    'square image is turned': (lambda r: turned(r, 6, square=True), 'pair: turned by EXIF', ERROR, IMAGE, {}),
    'image is below the crop': (
        lambda r: None,
        'image: smaller than the crop',
        WARNING,
        IMAGE,
        {'train_dataloader.dataset.pipeline.2.crop_size': (64, 64)},
    ),
    'label map is missing': (lambda r: (r / LABEL).unlink(), 'label map: missing', ERROR, LABEL, {}),
    'label map is without image': (lambda r: (r / IMAGE).unlink(), 'label map: without image', WARNING, LABEL, {}),
    'label map is empty': (lambda r: (r / LABEL).write_bytes(b''), 'label map: empty', ERROR, LABEL, {}),
    'label map is cut': (lambda r: cut(r, LABEL), 'label map: damaged', ERROR, LABEL, {}),
    'label map has colors': (
        lambda r: Image.open(r / LABEL).convert('RGB').save(r / LABEL),
        'label map: colours',
        ERROR,
        LABEL,
        {},
    ),
    'label map has 16 bits': (
        lambda r: save(r, labels_of(r).astype(np.uint16)),
        'label map: more than 8 bits',
        ERROR,
        LABEL,
        {},
    ),
    'label map is a JPEG': (lambda r: save(r, labels_of(r), format='JPEG'), 'label map: lossy', ERROR, LABEL, {}),
    'label map has another palette': (
        palette_in_order_of_appearance,
        'label map: palette in another order',
        ERROR,
        LABEL,
        {},
    ),
    'label is out of range': (
        lambda r: save(r, np.where(labels_of(r) == 0, 8, labels_of(r)).astype(np.uint8)),
        'label map: out of range',
        ERROR,
        LABEL,
        {},
    ),
    'label map is all ignored': (
        lambda r: save(r, np.full((40, 56), 255, np.uint8)),
        'label map: nothing labelled',
        WARNING,
        LABEL,
        {},
    ),
    'sizes differ': (lambda r: save(r, labels_of(r)[::2, ::2].copy()), 'pair: sizes differ', ERROR, LABEL, {}),
    'height and width are exchanged': (
        lambda r: save(r, labels_of(r).T.copy()),
        'pair: sizes differ',
        ERROR,
        LABEL,
        {},
    ),
    'reduce_zero_label on labels from 0': (
        lambda r: None,
        'labels: reduce_zero_label',
        ERROR,
        'annotations',
        {'train_dataloader.dataset.reduce_zero_label': True},
    ),
    'labels from 1': (
        lambda r: for_all(r, lambda a: np.where(a == 255, 255, a + 1).astype(np.uint8)),
        'labels: count from 1',
        ERROR,
        'annotations',
        {},
    ),
    'labels 0 and 255': (
        lambda r: for_all(r, lambda a: np.where(a > 2, 255, 0).astype(np.uint8)),
        'labels: 0 and 255',
        ERROR,
        'annotations',
        {},
    ),
    'one image in two splits': (
        lambda r: shutil.copy(r / IMAGE, r / 'images/val/0001.jpg'),
        'image: in two splits',
        ERROR,
        'val/0001.jpg',
        {},
    ),
    'one image twice': (
        lambda r: shutil.copy(r / IMAGE, r / 'images/train/0002.jpg'),
        'image: twice',
        WARNING,
        '0002.jpg',
        {},
    ),
    'classes of head and data differ': (
        lambda r: None,
        'config: number of classes',
        ERROR,
        'train',
        {'model.decode_head.num_classes': 7},
    ),
    'val is the train folder': (
        lambda r: None,
        'folder: in two splits',
        ERROR,
        'images/train',
        {'val_dataloader.dataset.data_prefix': dict(img_path='images/train', seg_map_path='annotations/train')},
    ),
    'val is a link to train': (link_val_to_train, 'folder: in two splits', ERROR, 'images/val', {}),
    'the same pixels in two splits': (
        lambda r: Image.open(r / IMAGE).save(r / 'images/val/0001.jpg', format='PNG'),
        'image: in two splits',
        ERROR,
        'val/0001.jpg',
        {},
    ),
    'the same pixels, turned by EXIF, in two splits': (
        lambda r: (turned(r, 6), shutil.copy(r / IMAGE, r / 'images/val/0001.jpg'), shutil.copy(r / LABEL, r / VAL)),
        'image: in two splits',
        ERROR,
        'val/0001.jpg',
        {},
    ),
    'an image is compressed anew and smaller in another split': (
        compressed_anew,
        'image: alike in two splits',
        WARNING,
        'val/0001.jpg',
        {},
    ),
    'class occurs in val alone': (
        lambda r: (of_train(r, lambda a: np.where(a == 0, 2, a).astype(np.uint8)), save(r, labels_of(r, VAL) * 0, VAL)),
        'labels: class not in train',
        WARNING,
        'annotations/val',
        {},
    ),
    'class occurs nowhere': (
        lambda r: for_all(r, lambda a: np.where(a == 3, 2, a).astype(np.uint8)),
        'labels: class never seen',
        WARNING,
        'annotations/train',
        {},
    ),
    'all label maps are of one class': (
        lambda r: for_all(r, lambda a: np.where(a == 255, 255, 3).astype(np.uint8)),
        'labels: one class alone',
        ERROR,
        'annotations/train',
        {},
    ),
    'all label maps are ignored': (
        lambda r: for_all(r, lambda a: np.full_like(a, 255)),
        'labels: nothing labelled',
        ERROR,
        'annotations/train',
        {},
    ),
    'label maps are of grey levels': (
        lambda r: for_all(r, lambda a: np.select([a < 2, a < 5], [0, 127], 255).astype(np.uint8)),
        'labels: grey levels',
        ERROR,
        'annotations/train',
        {},
    ),
    'label maps of 150 classes are of grey levels': (
        lambda r: for_all(r, lambda a: np.select([a < 2, a < 5], [0, 85], 170).astype(np.uint8)),
        'labels: grey levels',
        ERROR,
        'annotations/train',
        {
            'model.decode_head.num_classes': 180,
            'train_dataloader.dataset.metainfo': dict(
                classes=[f'c{number}' for number in range(180)], palette=[[number] * 3 for number in range(180)]
            ),
        },
    ),
    'image has 16 bits of color': (of_16_bits, 'image: more than 8 bits', ERROR, IMAGE, {}),
    'image is black': (
        lambda r: save(r, np.zeros((40, 56, 3), np.uint8), IMAGE),
        'image: one color',
        WARNING,
        IMAGE,
        {},
    ),
    'image is garbled': (garbled, 'image: damaged', ERROR, IMAGE, {}),
    'image is PCX': (
        lambda r: Image.open(r / IMAGE).save(r / IMAGE, format='PCX'),
        'image: not an image',
        ERROR,
        IMAGE,
        {},
    ),
    'image is PostScript': (
        lambda r: (r / IMAGE).write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 56 40\n{} loop\n'),
        'image: not an image',
        ERROR,
        IMAGE,
        {},
    ),
    'label maps have a longer suffix': (
        lambda r: masks_named(r, '.jpg', '_mask.png'),
        'label map: missing',
        ERROR,
        LABEL,
        {},
    ),
    'images and label maps have suffixes of their own': (
        lambda r: masks_named(r, '_image.jpg', '_mask.png'),
        'label map: missing',
        ERROR,
        '0001_image.png',
        {},
    ),
    'classes have no names': (
        lambda r: None,
        'config: no class names',
        ERROR,
        'val',
        {'val_dataloader.dataset.metainfo': dict(_delete_=True)},
    ),
    'one class of a sigmoid': (
        lambda r: None,
        'config: one class',
        ERROR,
        'train',
        {'model.decode_head': dict(num_classes=1, out_channels=1)},
    ),
    'no folder of label maps is named': (
        lambda r: None,
        'folder: no label maps',
        ERROR,
        'train',
        {'train_dataloader.dataset.data_prefix': dict(_delete_=True, img_path='images/train')},
    ),
    'folder is missing': (lambda r: shutil.rmtree(r / 'images/val'), 'folder: missing', ERROR, 'images/val', {}),
    'no image has the suffix': (
        lambda r: None,
        'folder: no images',
        ERROR,
        'images/train',
        {'train_dataloader.dataset.img_suffix': '.tif'},
    ),
}


def look(root, options, tmp_path):
    report = tmp_path / 'report.json'
    sound = check_data(CONFIG, workers=0, json_file=str(report), cfg_options={'data_root': str(root), **options})
    return sound, json.loads(report.read_text())


@pytest.mark.parametrize('name', DEFECTS)
def test_a_planted_defect_is_found(root, tmp_path, capsys, name):
    plant, kind, severity, where, options = DEFECTS[name]
    plant(root)
    sound, report = look(root, options, tmp_path)
    found = [finding for finding in report['findings'] if finding['kind'] == kind]
    assert [finding for finding in found if where in finding['path'] and finding['severity'] == severity], report[
        'findings'
    ]
    assert all(finding['message'] and finding['remedy'] for finding in found)
    assert sound is report['ok'] is (not any(finding['severity'] == ERROR for finding in report['findings']))
    assert found[0]['path'] in capsys.readouterr().out or len(found) > 3


@pytest.mark.parametrize(
    'name, remedy',
    [
        ('label maps have a longer suffix', "set seg_map_suffix='_mask.png'"),
        (
            'images and label maps have suffixes of their own',
            "set img_suffix='_image.jpg' and seg_map_suffix='_mask.png'",
        ),
        ('no image has the suffix', "set img_suffix='.jpg'"),
        ('one class of a sigmoid', 'out_channels=1'),
    ],
)
def test_the_remedy_names_the_setting(root, tmp_path, name, remedy):
    plant, kind, _, _, options = DEFECTS[name]
    plant(root)
    _, report = look(root, options, tmp_path)
    assert {finding['kind']: finding['remedy'] for finding in report['findings']}[kind].count(remedy)


def test_what_training_does_not_see_is_no_finding(root, tmp_path):
    for name in ('images/train/._0001.jpg', 'images/train/.DS_Store', 'annotations/train/._0001.png'):
        (root / name).write_bytes(b'\0' * 100)
    (root / 'images/train/0009.jpg').mkdir()
    (root / 'images/train/__MACOSX').mkdir()
    (root / 'images/train/__MACOSX/._0001.jpg').write_bytes(b'')
    (root / 'images/train/notes.txt').write_text('')
    sound, report = look(root, {}, tmp_path)
    assert sound and not report['findings']


def test_a_test_split_without_labels_is_sound(root, tmp_path):
    options = {'test_dataloader.dataset.data_prefix': dict(_delete_=True, img_path='images/unlabelled')}
    (root / 'images/val').rename(root / 'images/unlabelled')
    shutil.copytree(root / 'images/unlabelled', root / 'images/val')
    for path in root.glob('images/unlabelled/*'):
        Image.open(path).transpose(Image.Transpose.ROTATE_180).save(path)
    sound, report = look(root, options, tmp_path)
    assert sound and not report['findings']
    assert [split['split'] for split in report['splits']] == ['train', 'val', 'test']


@pytest.mark.parametrize(
    'option, value',
    [
        ('ignore_index', '255'),
        ('ignore_index', [1]),
        ('metainfo.classes', None),
        ('data_prefix', 1),
        ('pipeline', None),
        ('pipeline', [dict(crop_size=3)]),
        ('pipeline', [dict(type='RandomResize', scale=(9, None))]),
        ('pipeline', [dict(type='RandomCrop', crop_size=dict(a=1))]),
    ],
)
def test_an_option_of_the_wrong_kind_is_an_error_of_the_config(root, option, value):
    with pytest.raises(ConfigError, match='train_dataloader'):
        cfg = load_config(CONFIG, {'data_root': str(root), f'train_dataloader.dataset.{option}': value})
        survey(find_splits(cfg, ('train',))[0], workers=0)


def test_a_crop_of_one_number_is_a_square(root):
    options = {'train_dataloader.dataset.pipeline.2.crop_size': 64}
    (split,) = find_splits(load_config(CONFIG, {'data_root': str(root), **options}), ('train',))
    assert {found.kind for found in survey(split, workers=0).findings} == {'image: smaller than the crop'}


def test_there_are_never_more_processes_than_work(root, monkeypatch):
    from effseg.datasets.check import survey as module

    asked = []
    monkeypatch.setattr(module, 'ProcessPoolExecutor', lambda count: asked.append(count) or pool(count))
    pool = __import__('concurrent.futures').futures.ProcessPoolExecutor
    (split,) = find_splits(load_config(CONFIG, {'data_root': str(root)}), ('train',))
    assert survey(split, workers=300).pairs == 4 and asked == [1]


def test_a_process_that_dies_is_one_line(root, monkeypatch):
    from effseg.datasets.check import survey as module

    (split,) = find_splits(load_config(CONFIG, {'data_root': str(root)}), ('train',))
    monkeypatch.setattr(module, 'check_pair', lambda *pair: os._exit(9))
    with pytest.raises(DataError, match='a process of the data check died.*0000.jpg.*--workers 0'):
        survey(split, workers=2)


def test_the_drawn_scenes_are_sound(root, tmp_path):
    sound, report = look(root, {}, tmp_path)
    assert sound and not report['findings']
    becomes = {row['raw']: row['becomes'] for row in report['splits'][0]['values']}
    assert becomes[0] == 'sky' and becomes[7] == 'car'


def shared_data(name):
    root = SHARED / name
    if not root.is_dir():
        if os.environ.get('CI'):
            pytest.fail(f'{root} is missing')
        pytest.skip(f'{name} is not at hand')
    return root


@pytest.mark.medium
def test_no_false_alarm_on_camvid(tmp_path, capsys):
    options = {'data_root': str(shared_data('camvid'))}
    assert check_data('effseg::fpn_effformer_l1_camvid.py', json_file=str(tmp_path / 'r.json'), cfg_options=options)
    assert json.loads((tmp_path / 'r.json').read_text())['findings'] == []


def test_no_false_alarm_on_the_nuclei(tmp_path, capsys):
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(shared_data('nuclei')),
        img_suffix='.png',
        seg_map_suffix='.png',
        data_prefix=dict(img_path='images', seg_map_path='annotations'),
        metainfo=dict(classes=('background', 'nucleus'), palette=[[0, 0, 0], [255, 255, 255]]),
    )
    config = tmp_path / 'nuclei.py'
    config.write_text(f'model = dict(decode_head=dict(num_classes=2))\ntrain_dataloader = dict(dataset={dataset!r})\n')
    assert check_data(str(config), json_file=str(tmp_path / 'r.json'))
    assert json.loads((tmp_path / 'r.json').read_text())['findings'] == []


def test_workers_find_what_one_process_finds(root):
    (root / IMAGE).write_bytes(b'')
    (split,) = find_splits(load_config(CONFIG, {'data_root': str(root)}), ('train',))
    assert survey(split, workers=2).findings == survey(split, workers=0).findings != []


def test_the_quick_look_before_training_stops_it(root):
    save(root, labels_of(root).T.copy())
    with pytest.raises(DataError, match='(?s)0001.png.*exchanged.*--no-data-check'):
        check_datasets(load_config(CONFIG, {'data_root': str(root)}), ('train_dataloader',), sample=32)
