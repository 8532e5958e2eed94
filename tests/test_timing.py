"""Timing in turn, and memory at its peak."""

import sys

import pytest
import torch

from effseg.timing import peak_memory, time_in_turn


def test_everything_runs_in_turn():
    order = []
    timings = time_in_turn({'a': lambda: order.append('a'), 'b': lambda: order.append('b')}, runs=3, warmup=1)
    assert order == ['a', 'b'] * 4
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {'a': 3, 'b': 3}
    assert '3 runs' in str(timings['a']) and timings['a'].median == sorted(timings['a'].seconds)[1]
    assert '1 runs' in str(time_in_turn({'a': lambda: None}, runs=1)['a'])


@pytest.mark.skipif(sys.platform != 'linux', reason="reads Linux's resident memory")
def test_peak_memory_sees_what_is_gone_again():
    with peak_memory() as peak:
        torch.ones(50_000_000 // 4)
    assert 45e6 < peak.bytes < 80e6
    with peak_memory() as peak:
        pass
    assert peak.bytes < 20e6
