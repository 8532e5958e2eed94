"""What a training may take, and how long an iteration takes, before it starts."""

import pytest

pytest.importorskip('mmseg')
from effseg.engine.budget import parse_budget, together
from effseg.errors import ConfigError


@pytest.mark.parametrize(
    'gpu, workers, loading, expected',
    [(True, 4, 0.8, 0.3), (True, 2, 0.8, 0.4), (True, 0, 0.8, 0.8), (False, 4, 0.8, 1.1)],
)
def test_on_a_gpu_the_slower_of_loading_and_computing_counts(gpu, workers, loading, expected, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: gpu)
    assert together(loading, 0.3, dict(num_workers=workers)) == pytest.approx(expected)


def test_budgets():
    assert parse_budget('30m') == 1800.0 and parse_budget('1.5h') == 5400.0
    assert parse_budget('500') == 500 and isinstance(parse_budget('500'), int)
    for text in ('', '0', '-3', '3d', '0m', '9' * 400 + 'h', '9' * 5000):
        with pytest.raises(ConfigError, match='--budget'):
            parse_budget(text)
