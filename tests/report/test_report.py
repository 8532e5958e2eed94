"""One command, one file: everything in it, nothing from elsewhere, readable on every screen."""

import re
import shutil

import numpy as np
import pytest
import torch
from browser import PHONE, complaints, overflow, requests, resize, wait_for
from deploy.conftest import need
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from networks import TINY
from PIL import Image

from effseg.engine.config import load_config

pytestmark = pytest.mark.usefixtures('scenes')


@pytest.fixture(scope='module')
def html(scenes, checkpoint, tmp_path_factory):
    """A report of two candidates, called as a function; the command line is tested beside it."""
    from effseg.report.build import report

    return report(TINY, [str(checkpoint)], str(tmp_path_factory.mktemp('report')), fused=True, shown=1)


def test_it_says_what_was_scored(html, checkpoint):
    from effseg.files import digest

    text = html.read_text()
    for part in (
        'tiny.pth, fused',
        digest(checkpoint),
        'folded away',
        'BatchNorm2d',
        'GMAC',
        'onedl-mmsegmentation',
        'tools/test.py',
        '--fused',
        'The worst',
        'The best',
        'sky',
        'house',
    ):
        assert part in text, part


def test_it_takes_nothing_from_elsewhere(html):
    own = re.sub(r'<script>/\*\*.*?</script>', '', html.read_text(), flags=re.S)
    assert not re.search(r'(src|href)\s*=\s*["\'](?!data:)', own)
    assert 'url(' not in own and '@import' not in own


def test_fused_scores_as_the_trained_form(html):
    cells = re.findall(r'<td class="n">([\d.]+)</td>', html.read_text().split('Side by side')[1].split('</table>')[0])
    trained, fused = np.split(np.array(cells[:4] + cells[len(cells) // 2 :][:4], dtype=float), 2)
    assert trained[0] == fused[0] and fused[2] >= 99.99


@pytest.mark.parametrize('size', [(1100, 900), PHONE], ids=['desktop', 'phone'])
@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
def test_it_opens_from_disk(html, browser, size, dark):
    resize(browser, size, dark)
    browser.get('about:blank')
    complaints(browser), requests(browser)
    browser.get(html.as_uri())
    # the charts are drawn and the log is written after the page is there
    wait_for(browser, lambda window: window.execute_script('return document.querySelectorAll(".main-svg").length') >= 4)
    asked = []
    wait_for(browser, lambda window: asked.extend(requests(window)) or html.as_uri() in asked)
    assert asked == [html.as_uri()]
    assert not complaints(browser)
    wait_for(browser, lambda window: overflow(window) <= 0)
    paper = browser.execute_script('return getComputedStyle(document.body).backgroundColor')
    assert (sum(map(int, re.findall(r'\d+', paper)[:3])) < 200) == dark


def test_the_slider_fades_and_a_click_enlarges(html, browser):
    resize(browser)
    browser.get(html.as_uri())
    opacity = 'return getComputedStyle(document.querySelector("figure img[data-layer=prediction]")).opacity'
    move = 'const f = document.getElementById("fade"); f.value = arguments[0]; f.dispatchEvent(new Event("input")); '
    assert [float(browser.execute_script(move + opacity, value)) for value in (0, 100)] == [0.0, 1.0]
    choose = (
        'const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event("input"))'
    )
    visible = (
        'return [...document.querySelector("figure .layers").children].filter(i => getComputedStyle(i).visibility == '
        '"visible" && getComputedStyle(i).opacity > 0).map(i => i.dataset.layer)'
    )
    browser.execute_script(choose, 'from', 'truth')
    browser.execute_script(choose, 'to', 'errors')
    assert browser.execute_script(visible) == ['truth', 'errors']
    browser.execute_script('document.querySelector("figure .layers").click()')
    assert browser.execute_script('return document.getElementById("large").open')


def test_a_head_of_one_channel(tool, scenes, tmp_path):
    shutil.copytree(scenes, tmp_path / 'data')
    for file in (tmp_path / 'data' / 'annotations').rglob('*.png'):
        Image.fromarray((np.array(Image.open(file)) > 2).astype(np.uint8)).save(file)
    config = tmp_path / 'sigmoid.py'
    config.write_text(
        f"""_base_ = [{TINY!r}]
model = dict(decode_head=dict(num_classes=2, out_channels=1, loss_decode=dict(_delete_=True, type='CrossEntropyLoss',
    use_sigmoid=True)))
data_root = {str(tmp_path / 'data')!r}
metainfo = dict(classes=('rest', 'thing'), palette=[(0, 0, 0), (255, 0, 0)])
test_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
"""
    )
    init_default_scope('mmseg')
    model = MODELS.build(load_config(str(config)).model)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'm.pth')
    unknown = '--unknown-below', 0.55
    outcome = tool('report', config, tmp_path / 'm.pth', '--fused', '--out', tmp_path / 'report', *unknown)
    assert outcome.status == 0, outcome
    text = (tmp_path / 'report' / 'report.html').read_text()
    trained, fused = re.findall(r'>([\d.]+) % of the labelled pixels, whose probability is below 0.55', text)
    assert 'rest' in text and float(fused) == pytest.approx(float(trained), abs=0.1)


def refused(outcome, *words):
    lines = outcome.err.strip().splitlines()
    assert outcome.status == 2 and len(lines) == 1 and lines[0].startswith('error: '), outcome
    for word in words:
        assert word in lines[0], lines[0]


def test_a_checkpoint_that_is_not_there(tool, tmp_path):
    refused(tool('report', TINY, tmp_path / 'none.pth'), 'none.pth')


def test_a_checkpoint_that_came_twice(tool, checkpoint):
    refused(tool('report', TINY, checkpoint, checkpoint), 'twice')


def test_a_work_dir_without_a_curve(tool, checkpoint, tmp_path):
    refused(tool('report', TINY, checkpoint, '--work-dir', tmp_path), 'no curve', str(tmp_path))


def test_data_without_label_maps(tool, checkpoint, tmp_path):
    config = tmp_path / 'unlabelled.py'
    config.write_text(
        f'_base_ = [{TINY!r}]\n'
        "test_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True, img_path='images/val')))\n"
    )
    refused(tool('report', config, checkpoint), 'unlabelled.py', 'label maps')


def test_an_empty_folder(tool, checkpoint, tmp_path):
    for kind in ('images', 'annotations'):
        (tmp_path / kind / 'val').mkdir(parents=True)
    refused(tool('report', TINY, checkpoint, '--cfg-options', f'data_root={tmp_path}'), 'no image', str(tmp_path))


def test_a_label_that_no_class_has(tool, checkpoint, scenes, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(scenes, root)
    file = root / 'annotations' / 'val' / '0001.png'
    labels = np.array(Image.open(file))
    labels[:3] = 77
    Image.fromarray(labels).save(file)
    refused(tool('report', TINY, checkpoint, '--cfg-options', f'data_root={root}'), '0001.png', '77')


def test_weights_of_another_network(tool, tmp_path):
    file = tmp_path / 'other.pth'
    torch.save({'state_dict': {'a.weight': torch.zeros(1)}}, file)
    refused(tool('report', TINY, file), 'other.pth')


@pytest.mark.slow
def test_files_of_every_runtime_stand_beside_the_network(tool, checkpoint, tmp_path):
    files = {
        'model.onnx': ('onnx', 'fp32'),
        'model.pte': ('executorch', 'fp32'),
        'model.tflite': ('litert', 'fp32'),
        'model_int8.onnx': ('onnx', 'int8'),
    }
    for name, (runtime, precision) in files.items():
        need(runtime)
        outcome = tool(
            'export',
            TINY,
            checkpoint,
            '--to',
            runtime,
            '--precision',
            precision,
            '--size',
            64,
            96,
            '--output',
            'logits',
            '--proof-images',
            2,
            '-o',
            tmp_path / name,
        )
        assert outcome.status == 0, outcome.err
    outcome = tool('report', TINY, checkpoint, *(tmp_path / name for name in files), '--fused', '--out', tmp_path)
    assert outcome.status == 0, outcome.err
    table = (tmp_path / 'report.html').read_text().split('Side by side')[1].split('</table>')[0]
    rows = {
        row[0]: row[1:]
        for row in (re.findall(r'<t[hd][^>]*>([^<]*)</t[hd]>', line) for line in table.split('<tr>')[2:])
    }
    assert list(rows) == ['tiny.pth', 'tiny.pth, fused', *files]
    for name, (miou, _, agreement, milliseconds, *_) in rows.items():
        assert float(milliseconds) >= 0 and float(agreement) > (90 if 'int8' in name else 99.9), (name, agreement)
        assert 'int8' in name or abs(float(miou) - float(rows['tiny.pth'][0])) <= 0.02
