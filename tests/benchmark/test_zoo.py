"""The page of MMSegmentation's own segmenters: rows that are known are kept, and a reason is one line."""

import json

import pytest

pytest.importorskip('mmseg')
from effseg.benchmark import zoo
from effseg.errors import ConfigError


def test_known_rows_are_not_run_again(tmp_path, monkeypatch):
    ran = []

    def export(model, network, runtime, size, runs):
        ran.append((model, runtime))
        if runtime == 'litert':
            return {'reason': 'litert | cannot'}
        return {'delegates': 1, 'left': {'aten.mean': 2}, 'difference': 1e-6, 'agreement': 1.0, 'interpreted': False}

    class Network:
        parts = ('backbone X: as trained',)

        def exportable(self):
            return self

    monkeypatch.setattr(zoo, '_export', export)
    monkeypatch.setattr(zoo, 'build', lambda name, size: name)
    monkeypatch.setattr(zoo, 'fuse', lambda model, size: Network())
    page = tmp_path / 'zoo.md'
    page.write_text('mine')
    with pytest.raises(ConfigError, match='would be replaced'):
        zoo.score_zoo(str(page), (64, 64), models=['FastSCNN'], runtimes=['onnx'])
    assert page.read_text() == 'mine'
    page.unlink()
    zoo.score_zoo(str(page), (64, 64), models=['FastSCNN'], runtimes=['onnx'])
    zoo.score_zoo(str(page), (64, 64), models=['FastSCNN'], runtimes=['onnx', 'litert'])
    assert ran == [('FastSCNN', 'onnx'), ('FastSCNN', 'litert')]
    assert len([json.loads(line) for line in page.with_suffix('.jsonl').read_text().splitlines()]) == 2
    text = page.read_text()
    assert '## onnx: 1 exported of 1 that were run, of 13' in text and '| FastSCNN | no: litert / cannot |' in text
    assert '| FastSCNN | yes | 1; aten.mean x2 | 1.0e-06 | 100.000 % |' in text


def test_what_holds_no_rows_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match='give the page another name'):
        zoo.score_zoo(str(tmp_path / 'zoo.jsonl'))
    for content in ('{"model": "Seg', '{"model": 3}', '[]'):
        (tmp_path / 'zoo.jsonl').write_text(content)
        with pytest.raises(ConfigError, match='does not hold rows of the zoo'):
            zoo.score_zoo(str(tmp_path / 'zoo.md'))
        assert (tmp_path / 'zoo.jsonl').read_text() == content
