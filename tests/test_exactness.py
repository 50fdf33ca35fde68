"""The layers are exact: within a few roundings of an oracle, at every offset, scale and size.

A float has few digits, and two dangers. With a mean that is large against the spread, the rounding
of that mean takes digits from every output; and the squares of numbers beyond 10¹⁹ (or below
10⁻¹⁹) have no place in float32. Neither may be seen in what a layer returns.
"""

from functools import cache
from itertools import product
from math import sqrt

import numpy as np
import pytest
import torch

import normviz
from benchmarks import exactness
from benchmarks.exactness import (
    DTYPES,
    FLOOR,
    LAYERS,
    OFFSETS,
    SCALES,
    Cell,
    error,
    errors,
    in_slices,
    oracle,
    running_errors,
)
from normviz import accelerated

of_each_layer = pytest.mark.parametrize("layer", LAYERS)
of_each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
in_both_ways = pytest.mark.parametrize(
    "small", [0, 10**4], ids=["accelerated", "plain"], indirect=True
)


pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture
def small(request, monkeypatch):
    """Up to how many numbers the formula is all that is used."""
    monkeypatch.setattr(accelerated, "SMALL", request.param)


def normalize(layer, x, eps=1e-5):
    if eps:
        return exactness.layer_of(normviz, layer, x, eps)(x)
    plan = normviz.plan_of(exactness.layer_of(normviz, layer, x, 1e-5), x.ndim)
    return normviz.normalize(x, plan.reduction, 0, centred=plan.centred)[0]


def error_of(layer, x, eps=1e-5, y=None):
    """The largest error of a layer, in epsilons, over the slices that a number normalizes."""
    y = normalize(layer, x, eps) if y is None else y
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    pairs = zip(in_slices(layer, y), in_slices(layer, x), strict=True)
    return max(error(ours, oracle(numbers, eps)[0]) for ours, numbers in pairs)


def lay_out(layer, slices):
    """The input of a layer whose slices these are."""
    return Cell(layer, slices.dtype, count=slices.shape[1]).lay_out(slices)


# The oracle itself.


def test_the_oracle_knows_what_can_be_counted_by_hand():
    y, mean, var = oracle(torch.tensor([1.0, 2.0, 6.0]), 1 / 3)
    assert (mean, var) == (3, 14 / 3)
    np.testing.assert_allclose(y, np.array([-2, -1, 3]) / sqrt(5), rtol=1e-15)


@pytest.mark.parametrize("offset", OFFSETS)
def test_decimals_and_exact_sums_agree(offset):
    numbers = Cell("LayerNorm", torch.float64, offset).draw(0)[0]
    by_sums = exactness._oracle_in_float64(numbers, 1e-5)
    for one, other in zip(oracle(numbers, 1e-5), by_sums, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-15, atol=1e-15)


def test_a_number_that_is_none_is_as_wrong_as_can_be():
    assert error(torch.tensor([0.5, float("nan")]), np.array([0.5, 0.5])) == 2**23
    assert error(torch.tensor([0.5, 1e9]), np.array([0.5, 0.5])) == 2**23


# Offsets, scales and sizes. A cell is drawn and judged once for all tests that look at it.

errors = cache(errors)


@pytest.mark.parametrize("offset", OFFSETS)
@of_each_dtype
def test_no_cell_is_further_off_than_its_roundings_nor_twice_as_far_as_torch(dtype, offset):
    compared = 0
    for (scale, eps), count, layer in product(SCALES, (2, 7, 300), LAYERS):
        cell = Cell(layer, dtype, offset, scale, count, eps)
        if found := errors(cell, 0):
            compared += 1
            assert found["normviz"] <= FLOOR, cell
            assert found["normviz"] <= 2 * max(found["torch.nn"], FLOOR), cell
    assert compared


@pytest.mark.parametrize("offset", [1e4, 1e6])
@pytest.mark.parametrize("way", ["torch.nn", "from scratch", "E[x²] − E[x]²"])
@of_each_layer
def test_a_large_mean_costs_others_ten_times_more(layer, way, offset):
    for seed in range(3):
        found = errors(Cell(layer, torch.float32, offset), seed)
        assert 10 * found["normviz"] <= found[way]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layer", ["BatchNorm1d", "BatchNorm2d"])
def test_what_is_stored_is_as_exact_as_what_is_returned(layer, dtype):
    for offset in OFFSETS:
        found = running_errors(Cell(layer, dtype, offset), 0)
        assert found["normviz"] <= 2 * max(found["torch.nn"], FLOOR)
        assert found["normviz"] <= FLOOR


# (dtype, standard deviation, eps), where squares are far out of range, or close to its ends.
EXTREMES = [
    (torch.float16, 2e4, 1e-5),
    (torch.float16, 1e-4, 0),
    (torch.bfloat16, 1e20, 1e-5),
    (torch.bfloat16, 5e37, 1e-5),
    (torch.bfloat16, 1e-20, 0),
    (torch.float32, 1e18, 1e-5),
    (torch.float32, 1e19, 1e-5),
    (torch.float32, 1e20, 1e-5),
    (torch.float32, 5e37, 1e-5),
    (torch.float32, 1e-18, 0),
    (torch.float32, 1e-20, 0),
    (torch.float32, 1e-20, 1e-50),
    (torch.float32, 1e-37, 0),
    (torch.float64, 1e18, 1e-5),
    (torch.float64, 1e37, 1e-5),
    (torch.float64, 1e155, 1e-5),
    (torch.float64, 1e200, 1e-5),
    (torch.float64, 1e307, 1e-5),
    (torch.float64, 1e-155, 0),
    (torch.float64, 1e-200, 0),
]


@in_both_ways
@pytest.mark.parametrize(("dtype", "scale", "eps"), EXTREMES, ids=str)
@of_each_layer
def test_numbers_whose_squares_have_no_place_are_normalized_all_the_same(
    layer, dtype, scale, eps, small
):
    for offset, count in product((0, 1), (2, 7, 300)):
        # Of bounded numbers: even the largest scale fits its dtype.
        slices = (scale * (offset + 2 * torch.rand(3, count, dtype=torch.float64) - 1)).to(dtype)
        assert slices.isfinite().all()
        assert error_of(layer, lay_out(layer, slices), eps) <= FLOOR


# Constants.


def constants(dtype):
    """Random mantissas of both signs, over the powers of ten that the dtype and 10±³⁰ leave."""
    powers = torch.arange(-5, 5) if dtype == torch.float16 else torch.arange(-30, 31)
    mantissas = (1 + 8 * torch.rand(len(powers), dtype=torch.float64)) * (-1) ** powers
    mantissas *= 10.0 ** powers.double()
    extra = torch.tensor([0, 0.1, 1 / 3, -10_000.1, 65_504], dtype=torch.float64)
    return torch.cat([mantissas, extra]).to(dtype)


@pytest.mark.parametrize("size", [2, 3, 7, 10, 1000])
@of_each_dtype
@of_each_layer
def test_a_constant_becomes_exactly_zero_and_then_the_bias(layer, dtype, size):
    slices = constants(dtype)[:, None].expand(-1, size).contiguous()
    x = lay_out(layer, slices)
    assert (normalize(layer, x) == 0).all()
    affine = exactness.layer_of(normviz, layer, x, 1e-5, affine=True)
    with torch.no_grad():
        affine.weight.copy_(torch.randn(affine.weight.shape))
        affine.bias.copy_(torch.randn(affine.bias.shape))
    shared = normviz.plan_of(affine, x.ndim).sharing
    assert torch.equal(affine(x), shared.spread(affine.bias, x.shape))


@of_each_dtype
@pytest.mark.parametrize("layer", ["BatchNorm1d", "BatchNorm2d"])
def test_the_stored_variance_of_a_constant_is_exactly_zero(layer, dtype):
    slices = constants(dtype)[:, None].expand(-1, 10)
    x = lay_out(layer, slices)
    layer = exactness.layer_of(normviz, layer, x, 1e-5)
    layer(x)
    assert (layer.running_var == 0).all()
    off = (layer.running_mean - slices[:, 0]).abs()
    assert (off <= torch.finfo(dtype).eps * slices[:, 0].abs()).all()


@pytest.mark.slow
@of_each_dtype
@of_each_layer
def test_a_million_equal_numbers_become_exactly_zero(layer, dtype):
    for constant in (0.1, -10_000.1):
        slices = torch.full((1, 10**6 + 3), constant, dtype=dtype)
        assert (normalize(layer, lay_out(layer, slices)) == 0).all()


# Slices side by side, and numbers far from the others.


@in_both_ways
@pytest.mark.parametrize("eps", [1e-5, 0], ids=str)
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@of_each_layer
def test_slices_of_every_size_stand_side_by_side(layer, dtype, eps, small):
    scales = torch.tensor([1e20, 1e-20, 1.0, 1e4, 1e-3, 1e18, 1.0], dtype=torch.float64)
    offsets = torch.tensor([0.0, 0, 0, 3, 1, -2, 50], dtype=torch.float64)
    slices = scales[:, None] * (offsets[:, None] + torch.randn(7, 300, dtype=torch.float64))
    if eps:
        slices[3] = 10_000.1  # a constant one, next to them
    slices = slices.to(dtype)
    y = normalize(layer, lay_out(layer, slices), eps)
    assert error_of(layer, lay_out(layer, slices), eps, y) <= FLOOR
    assert not eps or (in_slices(layer, y)[3] == 0).all()


@in_both_ways
@pytest.mark.parametrize("outlier", [1e3, -1e8, 1e18, 3e19, 1e30])
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@of_each_layer
def test_an_outlier_leaves_the_others_their_places(layer, dtype, outlier, small):
    slices = torch.randn(3, 300, dtype=torch.float64).to(dtype)
    slices[1, 17] = outlier
    assert error_of(layer, lay_out(layer, slices)) <= FLOOR


# Layouts.


@pytest.mark.slow
def test_sums_over_four_million_numbers_along_two_axes_lose_no_digit():
    x = torch.randn(10**6, 3, 2, 2) + 10
    assert error_of("BatchNorm2d", x) <= FLOOR


LAYOUTS = {
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "every second": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
    "turned": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "copies of one": lambda x: x[:1].expand(x.shape),
    "upside down in memory": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("layer", ["BatchNorm2d", "LayerNorm"])
def test_no_layout_in_memory_costs_a_digit(layer, layout):
    for offset, scale in ((0, 1), (1e4, 1), (1, 1e20)):
        x = LAYOUTS[layout](scale * (offset + torch.randn(40, 3, 5, 6)))
        assert layout == "channels last" or not x.is_contiguous()
        assert error_of(layer, x) <= FLOOR


@in_both_ways
@of_each_layer
def test_float16_at_its_very_end(layer, small):
    largest = torch.finfo(torch.float16).max
    slices = torch.full((3, 300), largest, dtype=torch.float16)
    slices[0, ::2] = -largest  # ±65504
    slices[1, ::3] = 0
    slices[2, 7] = largest - 32  # one step below
    assert error_of(layer, lay_out(layer, slices)) <= FLOOR


# The table.


def test_the_table_meets_its_aims():
    section = exactness.measure(quick=True)
    assert all(row.met for row in section.rows)
    assert len(section.rows) == 9


# What a slice does to others, and what comes back.

ODD = {"constant": 0.1, "huge": 1e30, "not a number": torch.nan, "infinite": torch.inf}


@pytest.mark.parametrize("number", ODD.values(), ids=ODD)
def test_a_slice_that_needs_care_leaves_the_others_as_they_are_to_the_last_bit(number):
    layer, x = normviz.LayerNorm(30), torch.randn(8, 30)
    before, odd = layer(x), x.clone()
    odd[3] = number
    after = layer(odd)
    others = torch.arange(8) != 3
    assert torch.equal(after[others], before[others])
    assert not torch.equal(after[3], before[3])


def test_only_zeros_leave_zeros_in_the_running_statistics_with_hardly_an_eps():
    layer = normviz.BatchNorm1d(2, eps=5e-324, momentum=1)
    layer(torch.stack([torch.zeros(5), torch.arange(5.0)], dim=1))
    assert layer.running_mean.tolist() == [0, 2]
    assert layer.running_var.tolist() == [0, 2.5]


@in_both_ways
def test_an_infinite_number_leaves_what_it_leaves_in_torch(small):
    x = torch.randn(5, 3)
    x[1, 0], x[2, 1], x[3, 1] = torch.inf, torch.inf, -torch.inf
    states = []
    for library in normviz, torch.nn:
        layer = library.BatchNorm1d(3)
        states.append({"y": layer(x), **layer.state_dict()})
    torch.testing.assert_close(*states, equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [
        (torch.float32, 1, 0),
        (torch.float32, 1, 1e4),
        (torch.float32, 1, 1e6),
        (torch.float32, 1e20, 0),
        (torch.float32, 1e-20, 0),
        (torch.float64, 1e200, 0),
        (torch.float64, 1e-200, 0),
    ],
    ids=str,
)
@in_both_ways
@of_each_layer
def test_gradients_are_as_exact_as_outputs(layer, dtype, scale, offset, small):
    slices = (scale * (torch.randn(3, 40, dtype=torch.float64) + offset)).to(dtype)
    grad = torch.randn(3, 40, dtype=torch.float64).to(dtype)
    x = lay_out(layer, slices).requires_grad_()
    (dx,) = torch.autograd.grad(normalize(layer, x, 0), x, lay_out(layer, grad))
    # By the formula in float64, of numbers moved and scaled to where nothing can go wrong.
    precise = slices.double() / scale
    centred = precise - precise.mean(1, keepdim=True)
    std = centred.square().mean(1, keepdim=True).sqrt()
    y, g = centred / std, grad.double()
    expected = g - g.mean(1, keepdim=True) - y * (g * y).mean(1, keepdim=True)
    done = torch.stack([*in_slices(layer, dx)]).double() * (std * scale)
    assert (done - expected).abs().max() < 40 * torch.finfo(dtype).eps


def test_a_small_weight_hides_no_digit_that_a_large_mean_costs(monkeypatch):
    monkeypatch.setattr(accelerated, "SMALL", 0)
    layer = normviz.BatchNorm1d(2, eps=1e-9).eval()
    layer.running_mean.fill_(1000)
    with torch.no_grad():
        layer.weight.fill_(1e-3)
    x = 1000 + torch.randn(50, 2)
    expected = (x.double() - 1000) / (1 + 1e-9) ** 0.5 * layer.weight.double()
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-6, atol=0)


def test_a_slice_of_nan_takes_nothing_from_the_others(monkeypatch):
    monkeypatch.setattr(accelerated, "SMALL", 0)
    x = (torch.randn(3, 40) + 1e4).requires_grad_()
    before = torch.autograd.grad(normviz.LayerNorm(40)(x).pow(3).sum(), x)[0]
    odd = x.detach().clone().index_fill_(0, torch.tensor(1), torch.nan).requires_grad_()
    y = normviz.LayerNorm(40)(odd)
    after = torch.autograd.grad(y.pow(3).sum(), odd)[0]
    torch.testing.assert_close(y[::2], normviz.LayerNorm(40)(x)[::2])
    torch.testing.assert_close(after[::2], before[::2], rtol=1e-4, atol=1e-4)
