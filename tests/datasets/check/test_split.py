"""What is wrong with a config and its folders is found, with a remedy that names the setting."""

import shutil

import pytest

from effseg.datasets.check.split import find_splits
from effseg.datasets.check.survey import survey
from effseg.engine.config import load_config
from effseg.errors import ConfigError

from .planted import CONFIG, LABEL, Defect, look, nothing


def renamed(root, image, mask):
    for folder, new in (('images', image), ('annotations', mask)):
        for path in [*(root / folder).glob('*/*.*')]:
            path.rename(path.with_name(path.stem + new))


def link_val_to_train(root):
    for folder in ('images', 'annotations'):
        shutil.rmtree(root / folder / 'val')
        (root / folder / 'val').symlink_to('train')


TRAIN = dict(img_path='images/train', seg_map_path='annotations/train')
OF_A_SIGMOID = {'model.decode_head': dict(num_classes=1, out_channels=1)}
DEFECTS = {
    'classes of head and data differ': Defect(
        nothing, 'config: number of classes', 'train', options={'model.decode_head.num_classes': 7}
    ),
    'classes have no names': Defect(
        nothing,
        'config: no class names',
        'val',
        options={'val_dataloader.dataset.metainfo': dict(_delete_=True)},
    ),
    'one class of a sigmoid': Defect(nothing, 'config: one class', 'train', options=OF_A_SIGMOID),
    'folder is missing': Defect(lambda root: shutil.rmtree(root / 'images/val'), 'folder: missing', 'images/val'),
    'no folder of label maps is named': Defect(
        nothing,
        'folder: no label maps',
        'train',
        options={'train_dataloader.dataset.data_prefix': dict(_delete_=True, img_path='images/train')},
    ),
    'no image has the suffix': Defect(
        nothing, 'folder: no images', 'images/train', options={'train_dataloader.dataset.img_suffix': '.tif'}
    ),
    'label maps have a longer suffix': Defect(
        lambda root: renamed(root, '.jpg', '_mask.png'), 'label map: missing', LABEL
    ),
    'images and label maps have suffixes of their own': Defect(
        lambda root: renamed(root, '_image.jpg', '_mask.png'), 'label map: missing', '0001_image.png'
    ),
    'val is the train folder': Defect(
        nothing, 'folder: in two splits', 'images/train', options={'val_dataloader.dataset.data_prefix': TRAIN}
    ),
    'val is a link to train': Defect(link_val_to_train, 'folder: in two splits', 'images/val'),
}
REMEDIES = {
    'label maps have a longer suffix': "set seg_map_suffix='_mask.png'",
    'images and label maps have suffixes of their own': "set img_suffix='_image.jpg' and seg_map_suffix='_mask.png'",
    'no image has the suffix': "set img_suffix='.jpg'",
    'one class of a sigmoid': 'out_channels=1',
}


@pytest.mark.parametrize('name', DEFECTS)
def test_a_planted_defect_is_found(find, name):
    found = find(DEFECTS[name])
    assert REMEDIES.get(name, '') in found[-1]['remedy']


def test_what_training_does_not_see_is_no_finding(root, tmp_path):
    for name in ('images/train/._0001.jpg', 'images/train/.DS_Store', 'annotations/train/._0001.png'):
        (root / name).write_bytes(b'\0' * 100)
    (root / 'images/train/0009.jpg').mkdir()
    (root / 'images/train/__MACOSX').mkdir()
    (root / 'images/train/__MACOSX/._0001.jpg').write_bytes(b'')
    (root / 'images/train/notes.txt').write_text('')
    sound, report = look(root, tmp_path)
    assert sound and not report['findings']


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
