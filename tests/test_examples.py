"""The example apps are type-checked against the libraries that they are written for, as they lie in the registry."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from deploy.conftest import spec_of
from pages import ROOT

from effseg.deploy.spec import beside, write_beside

pytestmark = pytest.mark.slow
APP = ROOT / 'examples' / 'react-native'


@pytest.fixture(scope='module')
def app(tmp_path_factory) -> Path:
    """A copy of the React Native app with its libraries' types and the spec of a file; skips where they cannot be had,
    fails in CI."""
    folder = tmp_path_factory.mktemp('app') / 'app'
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns('node_modules', 'model.pte*'))
    npm = shutil.which('npm')
    command = [npm, 'install', '--ignore-scripts', '--no-audit', '--no-fund', '--legacy-peer-deps']
    done = npm and subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if not done or done.returncode:
        (pytest.fail if os.environ.get('CI') else pytest.skip)(
            f'npm install: {done.stderr[-300:] if done else "no npm"}'
        )
    (folder / 'model.pte').touch()
    spec = spec_of('executorch', fit='stretch', preset='react-native-executorch')
    write_beside(beside(folder / 'model.pte'), spec, folder / 'model.pte', {})
    return folder


def check(app: Path) -> subprocess.CompletedProcess:
    return subprocess.run(['npm', 'run', 'check'], cwd=app, capture_output=True, text=True)


def test_the_app_is_what_its_libraries_take(app):
    done = check(app)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    'file, right, wrong',
    [
        ('model.ts', "interpolation: 'area'", "interpolation: 'bicubic'"),
        ('model.ts', 'spec.palette', 'spec.colors'),
        ('App.tsx', "layout: 'hwc'", "layout: 'chw'"),
        ('App.tsx', 'outputs={[output]}', 'outputs={[device]}'),
    ],
)
def test_what_they_do_not_take_is_seen(app, file, right, wrong):
    text = (app / file).read_text()
    assert right in text
    (app / file).write_text(text.replace(right, wrong))
    try:
        assert check(app).returncode != 0
    finally:
        (app / file).write_text(text)
