"""effseg finds out which MMSegmentation is there, and says what to do about a wrong one."""

import subprocess
import sys

import pytest
from mmengine.config import Config
from networks import TRAINING

from effseg import stack
from effseg.errors import StackError

OFFICIAL = {'mmseg': ['mmsegmentation 1.2.2'], 'mmengine': ['mmengine 0.10.7'], 'mmcv': ['mmcv 2.1.0']}


def test_the_installed_stack_is_usable():
    stack.require()


def test_no_stack_names_the_install_command(monkeypatch):
    monkeypatch.setattr(stack.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(StackError, match=r"not installed.*pip install 'effseg\[mmseg\]'"):
        stack.require()


def test_two_stacks_name_both_and_the_way_out(monkeypatch):
    both = {module: [*names, f'onedl-{names[0]}'] for module, names in OFFICIAL.items()}
    monkeypatch.setattr(stack, 'distributions', lambda: both)
    with pytest.raises(
        StackError, match='two MMSegmentation stacks.*pip uninstall -y mmsegmentation onedl-mmsegmentation mmengine'
    ):
        stack.require()


def test_a_stack_that_does_not_import_names_the_cause(monkeypatch):
    def broken(module):
        raise ModuleNotFoundError("No module named 'mmcv._ext'")

    monkeypatch.setattr(stack, 'distributions', lambda: OFFICIAL)
    monkeypatch.setattr(stack, '_import_quietly', broken)
    with pytest.raises(StackError, match=r'mmcv._ext.*pip uninstall -y mmsegmentation mmengine mmcv'):
        stack.require()


@pytest.mark.parametrize(
    'base, key',
    [
        ("'effseg::fpn_effformer_l1_ade20k.py'", 'model'),
        ("['effseg::_base_/models/fpn_effformer.py', 'effseg::_base_/schedules/adamw_40k.py']", 'optim_wrapper'),
        ("['mmseg::_base_/default_runtime.py', 'mmseg::_base_/datasets/ade20k.py']", 'train_pipeline'),
        ("'mmseg::_base_/models/fpn_r50.py'", 'model'),
    ],
)
def test_bases_of_both_packages_resolve(tmp_path, base, key):
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = {base}\n')
    assert key in Config.fromfile(str(config))


@pytest.mark.medium
def test_importing_effseg_loads_no_runtime():
    code = (
        'import sys, effseg\n'
        'heavy = {"onnx", "onnxruntime", "coremltools", "executorch", "litert_torch", "ai_edge_litert"}\n'
        'found = heavy & set(sys.modules)\n'
        'assert not found, found'
    )
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)


ASKED = """
import effseg, effseg.deploy as deploy
def models(): from effseg import models
for ask in (models, lambda: effseg.fuse(None), lambda: deploy.export, lambda: effseg.open('a.py', 'b.onnx')):
    try:
        ask()
    except effseg.stack.StackError as error:
        print(error)
try:
    deploy.load('missing.onnx')
except effseg.deploy.artifact.ArtifactError as error:
    print(error)
"""


def test_without_torch_it_imports_and_names_the_extra(without):
    said = without({*TRAINING, 'tqdm', 'cv2'}, '-c', ASKED)
    *refused, loaded = said.stdout.splitlines()
    assert said.returncode == 0 and len(refused) == 4 and loaded == 'no artifact at missing.onnx', said.stderr
    assert all("pip install 'effseg[" in line for line in refused)


@pytest.mark.parametrize('gone, extra', [(TRAINING, 'mmseg'), ({'torch'}, 'train'), ({'timm'}, 'train')])
def test_a_tool_names_what_it_misses(without, gone, extra):
    said = without(gone, '-m', 'effseg', 'train', 'a.py')
    assert said.returncode == 2 and len(said.stderr.splitlines()) == 1, said.stderr
    assert said.stderr.startswith('error: ') and f"pip install 'effseg[{extra}]'" in said.stderr


@pytest.mark.medium
def test_a_config_that_imports_effseg_without_timm_says_so(without):
    said = without({'timm'}, '-c', 'import mmengine, effseg')
    assert said.stderr.splitlines()[-1].startswith('effseg.errors.StackError: timm cannot be imported'), said.stderr


@pytest.mark.medium
def test_without_a_stack_effseg_fuses_and_does_not_import_torch_by_itself():
    """Blocks the stack's modules, as on a machine that only converts or runs a model."""
    code = (
        'import sys\n'
        'for name in ("mmseg", "mmengine", "mmcv"): sys.modules[name] = None\n'
        'import importlib.util as u; find = u.find_spec\n'
        'u.find_spec = lambda name, *a: None if name.split(".")[0] in ("mmseg", "mmengine", "mmcv") else '
        'find(name, *a)\n'
        'import effseg, effseg.deploy\n'
        'assert "torch" not in sys.modules\n'
        'import effseg.fusion\n'
        'assert "timm" not in sys.modules and callable(effseg.fuse)\n'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
