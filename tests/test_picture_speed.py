"""Pictures stay fast and small, whatever they show: ratios, with room for a busy machine."""

import doctest
import sys
import tracemalloc
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from benchmarks import pictures
from benchmarks.compare import ratio, take_turns
from normviz import draw_slices
from normviz.grid import lay_out

LARGEST = pictures.SIZES[-1]


@pytest.fixture(scope="module")
def large():
    x = np.random.default_rng(0).standard_normal(LARGEST, np.float32)
    x += 1e4
    return x


@pytest.fixture
def one_thread():
    """For torch, which has as many as the machine can run, while a picture takes one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cost(ours, theirs, rounds):
    """The median multiple that ours costs of theirs."""
    seconds = take_turns({"ours": ours, "theirs": theirs}, rounds, warm_up=1)
    multiple = ratio(seconds["ours"], seconds["theirs"]).median
    print(f"{multiple:.3f}")
    return multiple


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("kept", "bound"), [("", 0.9), ("c", 0.25), ("n c h w", 0.3)])
def test_a_large_picture_costs_less_than_the_statistics_of_its_tensor(large, kept, bound):
    draw = partial(pictures.draw_with_normviz, large, f"n c h w -> {kept}")
    assert cost(draw, partial(pictures.two_pass, torch.from_numpy(large)), rounds=3) < bound


@pytest.mark.parametrize("size", pictures.LESSON_SIZES, ids=str)
def test_a_picture_of_lesson_size_takes_a_twentieth_of_matplotlibs_time(size):
    x = pictures.sample(size)
    draw = partial(pictures.draw_with_normviz, x)
    assert cost(draw, partial(pictures.draw_with_matplotlib, x), rounds=3) < 0.05


def test_a_page_is_laid_out_for_huge_axes_as_fast_as_for_long_ones():
    huge, long = (partial(lay_out, (size,) * 5, tuple("ncdhw"), 30) for size in (10**9, 40))
    assert cost(huge, long, rounds=9) < 3


def test_drawing_needs_a_fraction_of_the_memory_of_the_tensor():
    x = np.ones((4, 1024, 1024), np.float32)
    tracemalloc.start()
    try:
        draw_slices(x, "n h w ->")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * x.nbytes


@pytest.mark.parametrize("pattern", pictures.every_pattern())
def test_the_largest_picture_of_every_reduction_stays_below_300_kilobytes(pattern):
    x = np.broadcast_to(np.float32(1), LARGEST)
    assert len(pictures.draw_with_normviz(x, pattern).encode()) < 300_000


@pytest.mark.parametrize("number", [1, np.nan])
@pytest.mark.parametrize("shape", [(16, 25), (4, 6, 4, 4)], ids=str)
def test_a_slice_for_each_of_400_cells_stays_below_300_kilobytes(shape, number):
    svg = draw_slices(np.full(shape, number), "... -> ...").svg
    assert svg.count("data-index=") == svg.count("data-label=") == np.prod(shape)
    assert len(svg.encode()) < 300_000


def test_the_benchmark_leaves_out_a_peer_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "treescope", None)
    section = pictures.measure(quick=True)
    there = {name for name in pictures.PEERS if find_spec(name)}
    assert "matplotlib" in there
    assert "treescope" not in there
    rivals = {row.against.strip("`") for row in section.rows}
    assert rivals == there | {pictures.TWO_PASS, "–"}
    for growth in section.growths:
        assert growth.costs.keys() == there | {pictures.OURS}
        assert all(len(costs) == 3 for costs in growth.costs.values())
    lines = [line for line in section.notes.splitlines() if f"| {pictures.OURS} |" in line]
    assert len(lines) == 3
    assert all(", right |" in line for line in lines)


def test_a_shown_mean_is_right_if_its_last_digit_is():
    assert doctest.testmod(pictures).attempted
    assert not doctest.testmod(pictures).failed
    x = pictures.sample((3, 3, 2, 2))
    page = pictures.draw_with_normviz(x)
    shown = pictures.shown_mean(pictures.OURS, page, x)
    assert pictures.is_right(shown, x[:, -1].mean(dtype=float))
    assert not pictures.is_right(shown, x[:, 0].mean(dtype=float))
