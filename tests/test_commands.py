"""Every command of the README and of docs/ is run: the line itself, made small by what is laid over it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ade20k import write_ade20k
from pages import PAGES, ROOT, blocks, commands

# who else runs a line that cannot be run here, and the text there that says so
ELSEWHERE = {
    'make test': ('.ci/run', 'make test'),
    'make lint': ('.ci/run', 'make lint'),
    'hf auth login': ('tests/hub/test_model.py', 'def test_push_uploads_the_three_files_alone'),  # takes an account
    'python tools/fit.py my_labels': ('tests/apis/test_fit.py', 'def test_one_command_goes_from_masks'),
    'python tools/distill.py my_config.py': (
        'tests/distillation/test_features.py',
        'def test_one_command_teaches_and_the_segmenter_starts_from_it',
    ),
    'python tools/convert.py my_labels': (
        'tests/datasets/convert/test_formats.py',
        'def test_every_format_gives_the_same_label_maps',
    ),
    'python tools/benchmark.py --phone': ('tests/benchmark/test_phones.py', 'def test_a_table_and_a_plot'),
    'python tools/export.py CONFIG CHECKPOINT --to all': (
        'tests/apis/test_export_all.py',
        'def test_one_failure_is_a_row_and_the_others_are_written',
    ),
    'python tools/benchmark.py configs/fpn_effformer_l1_ade20k.py --compare --device cuda': (
        'tests/gpu/test_gpu.py',
        'def test_fused_beside_stock_in_every_precision',
    ),
    'python tools/benchmark.py configs/fpn_effformer_l1_ade20k.py --loading --device cuda': (
        'tests/gpu/test_gpu.py',
        'def test_loading_of_data_like_ade20k',
    ),
    # with numbers of another network, or many minutes of it
    'python tools/slim.py CONFIG CHECKPOINT --arch': (
        'tests/slimming/test_given.py',
        'def test_a_segmenter_is_sliced_by_its_gradients',
    ),
    'python tools/latency.py configs/mlp_effformerv2_s0_camvid.py': (
        'tests/slimming/test_latency.py',
        'def test_a_measurement_goes_on_where_it_was',
    ),
    'python tools/slim.py configs/mlp_effformerv2_s0_camvid.py': (
        'tests/slimming/test_exhaustive.py',
        'def test_a_search_from_the_command_line_goes_on_where_it_was',
    ),
    'python tools/hub.py push': ('tests/hub/test_model.py', 'def test_push_uploads_the_three_files_alone'),  # the same
}
# what own_data.md says about files of its own: run in its order, in the default tests
OWN_DATA = ('my_config.py', 'work_dirs/mine')
SIZE = (64, 96)
QUICK_LOADING = {
    loader: [f'{loader}_dataloader.num_workers=0', f'{loader}_dataloader.persistent_workers=False']
    for loader in ('train', 'val', 'test')
}
TWO_STEPS = [
    *QUICK_LOADING['train'],
    *QUICK_LOADING['val'],
    'train_dataloader.batch_size=2',
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.logger.interval=1',
]
PRETRAINED = 'model.backbone.init_cfg.checkpoint=weights/efficientformer_l1.pth'  # instead of the hub's, in its format
# of ADE20K's pipelines, which make images as large as its own
SMALL_CROPS = [
    'train_dataloader.dataset.pipeline.2.scale=(512,128)',
    'train_dataloader.dataset.pipeline.3.crop_size=(128,128)',
    'val_dataloader.dataset.pipeline.1.scale=(512,128)',
    'model.data_preprocessor.size=(128,128)',
]
SMALL_IMAGES = ['test_dataloader.dataset.pipeline.1.scale=(512,128)']
# behind each tool's line
SMALL = {
    'train': ['--cfg-options', *TWO_STEPS],
    'test': ['--cfg-options', *QUICK_LOADING['test']],
    'report': ['--pictures', '1', '--cfg-options', *QUICK_LOADING['test']],
    'hub': ['--cfg-options', *QUICK_LOADING['test']],
    'export': ['--proof-images', '1'],
    'benchmark': ['--size', *map(str, SIZE), '--runs', '1', '--threads', '1'],
    'web_demo': ['--port', '0'],
    'latency': ['--size', '64', '64', '--runs', '1'],
    'slim': ['--images', '2'],
    'predict': [],
    'check_data': [],
}
ALL = list({command.text: command for page in PAGES for command in commands(page)}.values())


def elsewhere(text: str) -> str | None:
    return next((line for line in ELSEWHERE if text == line or text.startswith(f'{line} ')), None)


def small(text: str) -> list[str]:
    """What is run of a line: nothing where it is run elsewhere."""
    if elsewhere(text) or any(name in text for name in OWN_DATA):
        return []
    optional = re.search(r' \[(--[^]]*)\]', text)
    if optional:
        return [
            line
            for choice in ('', *optional[1].split('|'))
            for line in small(f'{text[: optional.start()]} {choice.strip()}{text[optional.end() :]}'.strip())
        ]
    if text.startswith('export '):
        return [text.replace('/data/ADEChallengeData2016', 'data/ade')]
    if text.startswith('make '):
        recipe = subprocess.run(
            ['make', '-n', *text.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        lines = [
            line.replace('.venv/bin/', '') for line in recipe if re.match(r'\.venv/bin/python (?!-m pip)|echo', line)
        ]
        return [part for line in lines for part in small(line)]
    if text.startswith('effseg '):
        return [text.replace('...', '--help')]
    if text.startswith('echo '):
        return [text]
    if text.startswith('pip install '):
        return [f'python -m {text} --dry-run --no-build-isolation']
    if re.match(r'(python -m )?pytest\b', text):
        return [f'{text} --collect-only']  # which are tests themselves
    if text.startswith('python -m effseg.demo '):
        return [f'{text} --train 4 --val 2 --size 64 96']
    return [_small_tool(text)]


def _small_tool(text: str) -> str:
    name = re.search(r'tools/(\w+)\.py', text)[1]
    added = list(SMALL[name])
    if '_ade20k.py' in text and '--cfg-options' in added:
        added += [PRETRAINED, *SMALL_CROPS] if name == 'train' else SMALL_IMAGES
    if text.startswith('torchrun '):
        text = text.replace('--nproc_per_node 8', '--standalone --nproc_per_node 2')
        added += [
            'env_cfg.dist_cfg.backend=gloo',
            'model.decode_head.norm_cfg.type=BN',
        ]  # CPUs have no NCCL and no SyncBN
    if '--serve' in text:
        text = f'timeout --preserve-status -s INT 40 {text}'
    if '--cfg-options' in text:  # which comes last
        added.remove('--cfg-options')
    if name == 'benchmark' and '--artifacts' in text:
        added = added[3:]
    if 'CONFIG' in text:  # any: the tiny network's
        text = (
            text.replace('CONFIG', 'tests/tiny.py')
            .replace('CHECKPOINT', 'work_dirs/tiny/best.pth')
            .replace(' model.', ' tiny.')
        )
        added += ['--size', *map(str, SIZE)] if name == 'export' else []
    text = text.replace('CHECKPOINT', 'work_dirs/fpn_effformer_l1_ade20k/best.pth').replace('CAMVID_ROOT=...', '')
    return f'{text} {shlex.join(added)}'.strip()


@pytest.mark.parametrize('command', ALL, ids=lambda command: f'{command.page.stem}: {command.text}')
def test_it_is_known_how_each_command_is_run(command):
    line = elsewhere(command.text)
    if line:
        file, said = ELSEWHERE[line]
        assert said in (ROOT / file).read_text()
    else:
        assert small(command.text) or command.page.name == 'own_data.md'


def test_every_exception_is_a_command():
    assert {elsewhere(command.text) for command in ALL} - {None} == set(ELSEWHERE)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder that looks like a checkout whose trainings are done, with data of every kind, all of it small."""
    import cv2
    from PIL import Image

    from effseg.demo.dataset import write_demo_data

    folder = tmp_path_factory.mktemp('checkout')
    for name in ('configs', 'tools', 'tests', 'effseg', 'setup.py', 'README.md', 'pyproject.toml'):
        (folder / name).symlink_to(ROOT / name)
    write_ade20k(folder / 'data' / 'ade')
    write_demo_data(folder / 'data' / 'demo', train=4, val=2, size=(64, 96))
    shutil.copytree(folder / 'data' / 'demo', folder / 'data' / 'camvid')
    for file in (folder / 'data' / 'camvid').rglob('*.png'):
        labels = np.asarray(Image.open(file))
        Image.fromarray(np.where(labels == 255, 11, labels).astype(np.uint8)).save(file)  # CamVid's unlabelled
    _write_weights(folder)
    image = next((folder / 'data/ade/images/validation').iterdir())
    for name in ('photo.jpg', 'street.jpg', 'folder/photo.png'):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.open(image).save(folder / name)
    video = cv2.VideoWriter(str(folder / 'video.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 5, (96, 64))
    for shade in (0, 128):
        video.write(np.full((64, 96, 3), shade, dtype=np.uint8))
    video.release()
    return folder


def _write_weights(folder: Path) -> None:
    import timm
    import torch
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from effseg.engine.config import load_config

    init_default_scope('mmseg')
    (folder / 'weights').mkdir()
    torch.save(timm.create_model('efficientformer_l1').state_dict(), folder / 'weights' / 'efficientformer_l1.pth')
    for config in (
        *(f'configs/fpn_effformer_l1_{data}.py' for data in ('ade20k', 'camvid', 'demo')),
        'tests/tiny.py',
    ):
        target = folder / 'work_dirs' / Path(config).stem / 'best.pth'
        target.parent.mkdir(parents=True)
        cfg = load_config(str(ROOT / config), {'model.backbone.init_cfg': None})
        torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, target)


@pytest.fixture(scope='module')
def shell(place):
    """Runs a line of bash there."""
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        'PATH': f'{programs}:{os.environ["PATH"]}',
        'OMP_NUM_THREADS': '1',
        'ADE20K_ROOT': 'data/ade',
        'CAMVID_ROOT': 'data/camvid',
        'PYTHONPATH': str(ROOT),
        'HF_HUB_OFFLINE': '1',
    }
    environment.pop('DEMO_ROOT', None)

    def run(line: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ['bash', '-c', line], cwd=place, env=environment, capture_output=True, text=True, timeout=600
        )

    return run


@pytest.fixture(scope='module')
def artifacts(place, shell):
    """The files that lines take as given: model.onnx of the README, and the tiny network's for each runtime."""
    lines = [
        f'python tools/export.py CONFIG CHECKPOINT --to {runtime} -o model.{suffix}'
        for runtime, suffix in (('onnx', 'onnx'), ('executorch', 'pte'), ('litert', 'tflite'))
    ]
    (readme,) = [command.text for command in commands(ROOT / 'README.md') if '--to onnx' in command.text]
    for line in [*lines, readme]:
        done = shell(_small_tool(line))
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize('line', list(dict.fromkeys(line for command in ALL for line in small(command.text))), ids=str)
def test_each_is_run(line, shell, request):
    if re.search(r' (model|tiny)\.(onnx|pte|tflite)\b', line) and '--to' not in line:
        request.getfixturevalue('artifacts')
    done = shell(line)
    assert done.returncode == (130 if '--serve' in line else 0), (done.stdout + done.stderr)[-3000:]
    if '--serve' in line:
        assert 'open http://127.0.0.1:' in done.stdout
    if '--collect-only' in line:
        assert re.search(r'::|^\d+ tests? collected|^tests/.*: \d+$', done.stdout, flags=re.M)


@pytest.mark.slow
def test_the_python_of_deploy(place, artifacts, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(place)
    for code in blocks(ROOT / 'docs/deploy.md', 'python'):
        exec(code, {})
    assert Image.open(place / 'labels.png').size == Image.open(place / 'street.jpg').size


@pytest.mark.slow
def test_the_readmes_python_is_run(place, shell):
    (code,) = blocks(ROOT / 'README.md', 'python')
    (place / 'readme.py').write_text(
        f'{code}\nassert labels.shape == image.shape[:2]\nassert len(segmenter.classes) == 8\n'
    )
    done = shell('python readme.py')
    assert done.returncode == 0, done.stderr[-3000:]
