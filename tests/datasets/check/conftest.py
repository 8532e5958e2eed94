import shutil
from pathlib import Path

import pytest

from effseg.datasets.check.findings import ERROR
from effseg.demo.dataset import write_demo_data

from .planted import Defect, look


@pytest.fixture(scope='session')
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('scenes')
    write_demo_data(root, train=4, val=2, size=(40, 56))
    return root


@pytest.fixture
def root(scenes, tmp_path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / 'data'))


@pytest.fixture
def find(root, tmp_path, capsys):
    """Plants a defect, and gives what is found of its kind; it has to be found where it is, as grave as it is."""

    def found(defect: Defect) -> list[dict]:
        defect.plant(root)
        sound, report = look(root, tmp_path, defect.options)
        of_kind = [one for one in report['findings'] if one['kind'] == defect.kind]
        there = [one for one in of_kind if defect.where in one['path'] and one['severity'] == defect.severity]
        assert there, report['findings']
        assert all(one['message'] and one['remedy'] for one in of_kind)
        assert sound is report['ok'] is (not any(one['severity'] == ERROR for one in report['findings']))
        assert of_kind[0]['path'] in capsys.readouterr().out or len(of_kind) > 3
        return of_kind

    return found
