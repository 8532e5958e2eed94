"""How long an iteration of a training takes, before it starts."""

import pytest

pytest.importorskip('mmseg')
from effseg.engine.budget import together


@pytest.mark.parametrize(
    'gpu, workers, loading, expected',
    [(True, 4, 0.8, 0.3), (True, 2, 0.8, 0.4), (True, 0, 0.8, 0.8), (False, 4, 0.8, 1.1)],
)
def test_on_a_gpu_the_slower_of_loading_and_computing_counts(gpu, workers, loading, expected, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: gpu)
    assert together(loading, 0.3, dict(num_workers=workers)) == pytest.approx(expected)
