"""The numbers of a report are MMSegmentation's own, and the images are of the right scenes."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import TINY
from PIL import Image
from plotly.utils import PlotlyJSONEncoder

from effseg.apis.opening import Segmenter, open_segmenter
from effseg.errors import ConfigError, DataError, MissingRuntimeError
from effseg.report import charts, page
from effseg.report.build import report
from effseg.report.candidates import Candidate
from effseg.report.curve import read_curve
from effseg.report.images import choose
from effseg.report.recorder import Scene, SceneRecorder, iou
from effseg.report.scoring import score

pytestmark = pytest.mark.usefixtures('scenes')


@pytest.fixture(scope='module')
def scored(scenes, checkpoint, tmp_path_factory):
    trained = open_segmenter(TINY, str(checkpoint)).trained
    return score(TINY, Segmenter(trained, trained), tmp_path_factory.mktemp('scored'))


def test_the_confusion_matrix_gives_the_metrics_that_mmsegmentation_prints(scored):
    matrix = scored.confusion
    classes = iou(matrix)
    recall = charts.row_shares(matrix).diagonal()
    assert scored.metrics['mIoU'] == pytest.approx(100 * np.nanmean(classes), abs=0.006)
    assert scored.metrics['mAcc'] == pytest.approx(100 * np.nanmean(recall), abs=0.006)
    assert scored.metrics['aAcc'] == pytest.approx(100 * matrix.trace() / matrix.sum(), abs=0.006)


def test_every_pixel_of_every_scene_is_counted_once(scored, scenes):
    from PIL import Image

    assert [scene.image.name for scene in scored.scenes] == ['0000.jpg', '0001.jpg']
    truth = np.stack(
        [np.asarray(Image.open(scenes / 'annotations' / 'val' / f'{scene.image.stem}.png')) for scene in scored.scenes]
    )
    assert (scored.confusion.sum(1) == np.bincount(truth[truth < 8].ravel(), minlength=8)).all()
    kept = np.stack([np.asarray(Image.open(scene.truth)) for scene in scored.scenes])
    assert (kept == truth).all()


def test_iou_of_a_matrix_by_hand():
    matrix = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    assert iou(matrix)[:2].tolist() == [6 / 9, 3 / 6] and np.isnan(iou(matrix)[2])


def test_the_largest_confusions_come_first():
    matrix = np.array([[5, 1, 0], [3, 90, 0], [0, 0, 1]])
    pairs = page.worst_pairs(matrix, ['a', 'b', 'c'])
    assert [pair[:2] for pair in pairs] == [('b', 'a'), ('a', 'b')]
    assert pairs[0][2:] == pytest.approx((100 * 3 / 93, 3.0))


@pytest.mark.parametrize(
    'count, worst, best',
    [(2, [0.1, 0.2], [0.9, 0.5]), (3, [0.1, 0.2, 0.3], [0.9, 0.5]), (9, [0.1, 0.2, 0.3], [0.9, 0.5])],
)
def test_no_scene_is_both_among_the_worst_and_the_best(count, worst, best):
    scenes = [Scene(None, None, None, value, value) for value in (0.9, 0.1, 0.5, 0.2, 0.3)]
    assert [[scene.iou for scene in group] for group in choose(scenes, count)] == [worst, best]


def test_bars_are_sorted_and_a_class_that_is_nowhere_is_said_to_be():
    matrix = np.zeros((150, 150), dtype=np.int64)
    matrix[:140, :140] = np.diag(np.arange(1, 141)) + 1
    bars = charts.class_bars([f'class {index % 100}' for index in range(150)], {'a': matrix, 'b': matrix})
    first, other, texts, shares = bars['data']
    assert list(first['x']) == sorted(first['x']) and list(texts['text']).count(charts.ABSENT) == 10
    assert list(first['y']) == list(range(150)) and np.isnan(other['x']).sum() == 10
    assert (
        sum(shares['x']) == pytest.approx(100) and shares['customdata'][149] == first['customdata'][149] == 'class 39'
    )
    assert bars['layout']['height'] >= 150 * 18
    assert 'NaN' not in json.dumps(bars, cls=PlotlyJSONEncoder)


def test_names_are_shown_as_they_are():
    name, file = '<a href="http://x">sky</a> & <b>', '<a href="http://y">m.pth</a>'
    for figure in (charts.class_bars([name, 'b'], {file: np.eye(2)}), charts.confusion_map([name, 'b'], np.eye(2))):
        text = json.dumps(figure, cls=PlotlyJSONEncoder)
        assert '<a' not in text and '<b>' not in text and '&lt;a href=' in text
    assert 'm.pth' in json.dumps(charts.class_bars([name], {file: np.eye(1)}), cls=PlotlyJSONEncoder)


def test_three_classes_have_numbers_and_one_weakest():
    matrix = np.array([[90, 10, 0], [30, 70, 0], [5, 5, 0]])
    cells = charts.confusion_map(['a', 'b', 'c'], matrix)['data'][0]
    assert cells['texttemplate'] == '%{text}'
    assert cells['text'][0] == ['90.0', '10.0', '0.0'] and cells['text'][2] == ['50.0', '50.0', '0.0']
    content = SimpleNamespace(confusion=matrix, classes=['a', 'b', 'c'])
    assert page.weakest(content) == ['c'] and page.never_predicted(content) == ['c']
    many = SimpleNamespace(confusion=np.diag(np.arange(150)), classes=list(map(str, range(150))))
    assert len(page.weakest(many)) == 3 and not page.never_predicted(many)
    assert charts.confusion_map(many.classes, many.confusion)['data'][0].get('text') is None


def test_a_head_of_one_channel_is_taken_down(tmp_path):
    recorder = SceneRecorder(str(tmp_path))
    recorder.dataset_meta = dict(classes=('rest', 'road'))
    truth = torch.tensor([[[0, 1], [1, 255]]])
    sample = dict(
        img_path='a.jpg', pred_sem_seg=dict(data=torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])), gt_sem_seg=dict(data=truth)
    )
    recorder.process({}, [sample])
    assert recorder.confusion.tolist() == [[1, 0], [1, 1]]
    sample['pred_sem_seg'] = dict(data=torch.tensor([[[0, 5], [0, 1]]]))
    with pytest.raises(DataError, match='a.jpg as class 5; the data set knows 0 to 1'):
        recorder.process({}, [sample])


def test_what_is_unknown_is_kept_so_and_counted(tmp_path):
    recorder = SceneRecorder(str(tmp_path), unknown_below=0.6)
    recorder.dataset_meta = dict(classes=('rest', 'road', 'sky'))
    logits = torch.tensor([[[4.0, 0, 0, 4]], [[0, 1, 0, 0]], [[0, 0, 5, 0]]])
    truth = torch.tensor([[[0, 1, 1, 255]]])
    sample = dict(img_path='a.jpg', pred_sem_seg=dict(data=logits.argmax(0)[None]), gt_sem_seg=dict(data=truth))
    recorder.process({}, [sample | dict(seg_logits=dict(data=logits))])
    assert recorder.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]  # of all labels
    assert recorder.known.tolist() == [3, 2, 1]
    assert np.asarray(Image.open(recorder.scenes[0].labels)).tolist() == [[0, 255, 2, 0]]
    with pytest.raises(ConfigError, match='labels alone'):
        recorder.process({}, [sample])


@pytest.mark.parametrize('package', ['plotly', 'jinja2'])
def test_a_missing_package_is_said_before_the_work(monkeypatch, package):
    monkeypatch.setattr(page.importlib.util, 'find_spec', lambda name: None if name == package else name)
    with pytest.raises(MissingRuntimeError, match=f'made with {package}.*effseg.report'):
        report('no_such.py', ['none.pth'])


@pytest.mark.parametrize(
    'options, said',
    [
        ({}, []),
        ({'data_root': '/a b'}, ["--cfg-options 'data_root=/a b'"]),
        ({'a.b': ['x', 1], 'c': None}, ["--cfg-options 'a.b=[x,1]' c=None"]),
    ],
)
def test_the_commands_are_whole(options, said):
    row = SimpleNamespace(candidate=Candidate('m', Path('m.pth'), fused=True))
    lines = page.commands(
        SimpleNamespace(
            setting={'DATA': '/d'},
            command='python tools/report.py c.py m.pth',
            config='c.py',
            rows=[row],
            options=options,
        )
    )
    assert lines[0] == 'DATA=/d python tools/report.py c.py m.pth'
    assert lines[1] == ' '.join(['DATA=/d python tools/test.py c.py m.pth --fused', *said])


def write_run(work_dir, name, lines):
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(
        '\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )


def test_a_resumed_run_takes_the_curve_over_where_it_began(tmp_path):
    write_run(
        tmp_path,
        '1',
        [
            dict(step=10, loss=3.0),
            dict(step=20, loss=2.0),
            dict(step=20, mIoU=5.0),
            dict(step=30, loss=9.0),
            '{"step": 40, "lo',
        ],
    )
    write_run(tmp_path, '2', [dict(step=30, loss=1.0), dict(step=30, mIoU=7.0)])
    curve = read_curve(tmp_path)
    assert curve.loss == [(10, 3.0), (20, 2.0), (30, 1.0)] and curve.miou == [(20, 5.0), (30, 7.0)]
    assert len(charts.training_curve(curve)['data']) == 2


def test_lines_that_are_no_points_are_passed_over(tmp_path):
    lines = [
        dict(step=1, loss=2.0),
        'null',
        '[' * 10**5,
        dict(step='x', loss=1),
        dict(step=2, loss=None),
        '{"step": 3}',
    ]
    write_run(tmp_path, '1', [*lines, dict(step=4, loss=[1]), dict(step={}, loss=1), dict(step=5, loss=1.0)])
    assert read_curve(tmp_path).loss == [(1, 2.0), (5, 1.0)]


def test_a_curve_that_was_not_asked_for_may_be_missing(tmp_path):
    assert read_curve(tmp_path) is None
