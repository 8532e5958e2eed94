"""Scoring, labelling and timing the fused form through the tools."""

import re

import numpy as np
import pytest
import torch
from networks import TINY
from PIL import Image

from effseg.apis.opening import open_segmenter

pytestmark = pytest.mark.usefixtures('scenes')


def labels_in(folder):
    return {path.name: np.array(Image.open(path)) for path in sorted(folder.rglob('*.png'))}


def test_scores_of_both_forms_agree_to_the_last_digit(tool, checkpoint, tmp_path):
    printed = {}
    config = tmp_path / 'averaged.py'  # trained with an average of the weights, which is no business of a test
    config.write_text(
        f"_base_ = [{str(TINY)!r}]\ncustom_hooks = [dict(type='ResumableEMAHook', update_buffers=True)]\n"
    )
    for name, options in (('unfused', []), ('fused', ['--fused'])):
        outcome = tool(
            'test', config, checkpoint, '--work-dir', tmp_path / name, '--out', tmp_path / f'{name}_labels', *options
        )
        assert outcome.status == 0, outcome
        printed[name] = re.search(r'aAcc .*mIoU .*', outcome.out)[0]
        assert re.search(
            r'\d images/s in the model and its labels .*, peak memory of an image (\d+ MB|unknown)', outcome.out
        )
    assert printed['fused'] == printed['unfused']
    fused, unfused = labels_in(tmp_path / 'fused_labels'), labels_in(tmp_path / 'unfused_labels')
    assert fused.keys() == unfused.keys() and len(fused) == 2
    assert all(np.array_equal(fused[name], unfused[name]) for name in fused)


def test_a_hook_that_cannot_be_looked_up_is_one_line(tool, checkpoint, tmp_path):
    config = tmp_path / 'odd.py'
    config.write_text(f"_base_ = [{str(TINY)!r}]\ncustom_hooks = [dict(type='.')]\n")
    outcome = tool('test', config, checkpoint, '--work-dir', tmp_path)
    assert outcome.status == 2 and "the config's custom_hooks cannot be built" in outcome.err, outcome


def test_images_are_labelled_alike(tool, checkpoint, scenes, tmp_path):
    for name, options in (('unfused', []), ('fused', ['--fused'])):
        outcome = tool(
            'predict',
            TINY,
            checkpoint,
            scenes / 'images' / 'val',
            '--out-dir',
            tmp_path / name,
            '--device',
            'cpu',
            *options,
        )
        assert outcome.status == 0, outcome
    fused, unfused = labels_in(tmp_path / 'fused'), labels_in(tmp_path / 'unfused')
    assert len(fused) == 2 and all(np.array_equal(fused[name], unfused[name]) for name in unfused)


def test_what_cannot_be_fused_is_one_line(tool, checkpoint, tmp_path):
    outcome = tool('test', TINY, checkpoint, '--work-dir', tmp_path, '--fused', '--tta')
    assert outcome.status == 2 and '--tta averages' in outcome.err, outcome
    assert len(outcome.err.strip().splitlines()) == 1, outcome


def test_bfloat16_changes_few_labels_and_some_numbers(checkpoint, monkeypatch):
    monkeypatch.setattr('effseg.engine.optim.cpu_has_bfloat16', lambda: True)  # slow elsewhere, and the same numbers
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact, coarse = (
            open_segmenter(TINY, str(checkpoint), True, device='cpu', precision=precision).model.network.logits(image)
            for precision in ('fp32', 'bf16')
        )
    assert coarse.dtype == exact.dtype == torch.float32
    difference = float((coarse - exact).abs().max() / exact.abs().max())
    assert 1e-5 < difference < 0.1
    assert (coarse.argmax(1) == exact.argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize('name', ['predict', 'test', 'export'])
def test_bfloat16_is_refused_where_it_is_slower(tool, checkpoint, scenes, tmp_path, monkeypatch, name):
    monkeypatch.setattr('effseg.engine.optim.cpu_has_bfloat16', lambda: False)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    more = {
        'predict': [scenes / 'images' / 'val', '--out-dir', tmp_path / 'out', '--fused'],
        'test': ['--work-dir', tmp_path / 'out', '--fused'],
        'export': ['--to', 'torch', '-o', tmp_path / 'model.pt2'],
    }[name]
    outcome = tool(name, TINY, checkpoint, *more, '--precision', 'bf16')
    assert outcome.status == 2 and 'slower than fp32 on this CPU' in outcome.err, outcome
    assert not (tmp_path / 'model.pt2').exists()


def test_bfloat16_is_of_fused_networks(tool, checkpoint, scenes, tmp_path):
    images = scenes / 'images' / 'val'
    outcome = tool('predict', TINY, checkpoint, images, '--out-dir', tmp_path / 'out', '--precision', 'bf16')
    assert outcome.status == 2 and 'add --fused' in outcome.err, outcome


@pytest.mark.medium
def test_benchmark_prints_both_sides(tool, checkpoint):
    outcome = tool('benchmark', TINY, checkpoint, '--compare', '--size', 64, 96, '--runs', 2, '--threads', 1)
    assert outcome.status == 0, outcome
    for words in (
        '64x96',
        'float32',
        '8 classes',
        '1 thread, 2 runs',
        'GMAC unfused',
        'GMAC/s',
        "of the conv's rate",
        'MMSegmentation predict',
        ' 0 of them no tie',
        'logits to labels at 1500x2000',
        'x',
        'middle half',
    ):
        assert words in outcome.out, outcome.out


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--compare', '--size', 0, 64], 'both positive'),
        (['--compare', '--runs', 0], '1 or more'),
        (['--compare', '--image', 'none.jpg'], 'none.jpg'),
        ([], '--compare'),
        (['--compare', '--batch', 2], '--compare does nothing with --batch'),
        (['--compare', '--device', 'cpu', '--threads', 1], '--compare does nothing with --threads'),
        (['--models'], '--models does nothing with CONFIG'),
        (['--loading', '--runs', 3], '--loading does nothing with --runs'),
        (['--loading', '--cfg-options', 'train_dataloader=None'], 'has no train_dataloader'),
    ],
)
def test_benchmark_refuses_in_one_line(tool, arguments, words):
    outcome = tool('benchmark', TINY, *arguments)
    assert outcome.status == 2 and words in outcome.err and len(outcome.err.strip().splitlines()) == 1, outcome
