"""The table of offsets, against the definition: bias[h, q, k] = table[h, |dy|, |dx|]."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from effseg.models.attention_bias import attention_bias, expand_table, resize_table


def by_definition(table, grid, query_stride=1):
    heads, (height, width) = len(table), grid
    table = table.reshape(heads, height, width)
    keys = list(itertools.product(range(height), range(width)))
    queries = [(y, x) for y, x in keys if y % query_stride == 0 and x % query_stride == 0]
    return torch.stack(
        [torch.stack([table[:, abs(qy - ky), abs(qx - kx)] for ky, kx in keys], 1) for qy, qx in queries], 1
    )


@pytest.mark.parametrize('query_stride', [1, 2])
@pytest.mark.parametrize('grid', [(1, 1), (3, 3), (2, 5), (5, 2), (4, 7)])
def test_expansion_is_the_definition(grid, query_stride):
    table = torch.randn(2, grid[0] * grid[1])
    assert torch.equal(expand_table(table, grid, query_stride), by_definition(table, grid, query_stride))


@pytest.mark.parametrize('bias_resize', ['interpolate', 'hold'])
@pytest.mark.parametrize('grid', [(7, 7), (5, 7), (3, 2), (1, 1)])
def test_a_grid_within_the_table_reads_it_exactly(grid, bias_resize):
    table = torch.randn(2, 49)
    bias = attention_bias(table, (7, 7), grid, bias_resize)
    part = table.reshape(2, 7, 7)[:, : grid[0], : grid[1]].reshape(2, -1)
    assert torch.equal(bias, by_definition(part, grid))


def test_hold_keeps_known_offsets_and_repeats_the_edge():
    table = torch.randn(1, 9)
    held = resize_table(table, (3, 3), (5, 2), 'hold').reshape(5, 2)
    known = table.reshape(3, 3)
    assert torch.equal(held, torch.stack([known[0], known[1], known[2], known[2], known[2]])[:, :2])


def test_interpolation_keeps_both_ends_and_is_linear_between():
    table = torch.tensor([[0.0, 1.0, 4.0]]).repeat(3, 1).reshape(1, 9)
    row = resize_table(table, (3, 3), (3, 5), 'interpolate').reshape(3, 5)[0]
    torch.testing.assert_close(row, torch.tensor([0.0, 0.5, 1.0, 2.5, 4.0]))


def test_only_the_axis_that_is_too_short_is_stretched():
    table = torch.randn(2, 49, dtype=torch.float64)
    for bias_resize in ('interpolate', 'hold'):
        wide = resize_table(table, (7, 7), (7, 12), bias_resize).reshape(2, 7, 12)
        torch.testing.assert_close(wide[:, :, 0], table.reshape(2, 7, 7)[:, :, 0])


@pytest.mark.parametrize('query_stride', [1, 2])
def test_matrix_is_the_original_s_image_resize(query_stride):
    table = torch.randn(2, 16)
    matrix = by_definition(table, (4, 4), query_stride)
    grid = (6, 8)
    queries = grid[0] * grid[1] // query_stride**2
    expected = F.interpolate(matrix[None], size=(queries, 48), mode='bicubic')[0]
    assert torch.equal(attention_bias(table, (4, 4), grid, 'matrix', query_stride), expected)
    torch.testing.assert_close(attention_bias(table, (4, 4), (4, 4), 'matrix', query_stride), matrix)


def test_gradients_reach_the_table():
    table = torch.zeros(2, 49, requires_grad=True)
    attention_bias(table, (7, 7), (9, 4)).sum().backward()
    assert table.grad.abs().sum() > 0
