"""Every config has its entry among the metafiles, in the form that MMEngine and MMSegmentation's tools read."""

import re
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from mmengine.config.utils import _get_cfg_metainfo

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
METAFILE = yaml.safe_load((ROOT / 'configs' / 'metafile.yaml').read_text())
DATA = {'ade20k': 'ADE20K', 'camvid': 'CamVid', 'demo': 'drawn scenes'}


@pytest.fixture(scope='module')
def package(tmp_path_factory):
    """A folder that looks like the installed package."""
    folder = tmp_path_factory.mktemp('package')
    (folder / '.mim').symlink_to(ROOT)
    return folder


def test_there_is_one_entry_for_each_config():
    assert [model['Name'] for model in METAFILE['Models']] == [path.stem for path in CONFIGS]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_an_entry_says_what_the_config_says(path, package):
    entry = _get_cfg_metainfo(str(package), path.name)
    assert ROOT / entry['Config'] == path
    assert entry['In Collection'] in {collection['Name'] for collection in METAFILE['Collections']}
    cfg = Config.fromfile(str(path))
    facts, data = entry['Metadata'], path.stem.rsplit('_', 1)[1]
    processes = 8 if data == 'ade20k' else 1
    assert facts['Batch Size'] == cfg.train_dataloader.batch_size * processes
    assert facts['Training Data'] == entry.get('Results', {}).get('Dataset', DATA[data]) == DATA[data]
    arch = re.search(r'_effformer(?:v2)?_(\w+?)_', path.stem)[1]
    assert facts['Architecture'][0] == f'{cfg.model.backbone.type}-{arch.upper()}'
