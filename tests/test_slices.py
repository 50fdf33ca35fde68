"""The slice picture: every number stands where it belongs, with those that share its statistic."""

import re
from collections import Counter
from itertools import pairwise
from math import prod
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import come_out, number

from normviz import Reduction, draw_slices
from normviz.arithmetic import spell_statistics
from normviz.slices import Caption

claim = settings(max_examples=60, deadline=None, derandomize=True, database=None)
NUMBER = r"(nan|[−-]?inf|[−-]?[\d.]+(?:e[−-]?\d+)?)"
ALONE = {n: f"{' '.join('abcde'[:n])} -> {' '.join('abcde'[:n])}" for n in range(1, 6)}


@st.composite
def meetings(draw):
    """A reduction and integers that fit it: one axis may be a group, some may be ``...``."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    axes, groups = list("abcde"[: len(shape)]), draw(st.integers(0, 3))
    if groups:
        at = draw(st.integers(0, len(shape) - 1))
        axes[at], shape[at] = f"(g {axes[at]})", shape[at] * groups
    if draw(st.booleans()):
        first, last = sorted(draw(st.integers(0, len(shape))) for _ in range(2))
        axes[first:last] = ["..."]
    names = re.findall(r"\w+|\.\.\.", " ".join(axes))
    kept = [name for name in names if draw(st.booleans())]
    sizes = {"g": groups} if "g" in names else {}
    x = np.random.default_rng(prod(shape)).integers(-99, 1000, shape)
    return Reduction(f"{' '.join(axes)} -> {' '.join(kept)}", **sizes), x


def slices_of(picture):
    """label → group, in the order that Tab reaches them."""
    groups = ElementTree.fromstring(picture.svg).findall(".//*[@data-label]")
    return {int(group.get("data-label")): group for group in groups}


def cells_of(picture):
    """index → (label, text), after checking that everything is drawn once and within a slice."""
    found = [
        (tuple(map(int, cell.get("data-index").split(","))), (label, text.text))
        for label, group in slices_of(picture).items()
        for cell, text in pairwise(group)
        if cell.get("data-index")
    ]
    assert len(found) == len(dict(found)) == picture.svg.count("data-index=")
    assert len(slices_of(picture)) == picture.svg.count("data-label=")
    return dict(found)


def lines_of(group):
    return [line.text for line in group.findall("*[@class='nv-lit nv-line']")]


@claim
@given(meetings())
def test_a_number_stands_in_the_slice_of_its_label(meeting):
    reduction, x = meeting
    picture, labels = draw_slices(x, reduction), reduction.labels(x.shape)
    cells = cells_of(picture)
    for index, (label, text) in cells.items():
        assert (label, number(text)) == (labels[index], x[index])
    assert (len(cells) == x.size) == ("head and tail" not in picture.text)


@pytest.mark.parametrize("shape", [(33,), (16, 25), (3, 2, 3), (4, 6, 4, 4), (3, 3, 3, 3, 3)])
def test_all_of_a_small_tensor_is_drawn(shape):
    picture = draw_slices(np.arange(prod(shape)).reshape(shape), Reduction("... ->"))
    assert cells_of(picture).keys() == set(np.ndindex(shape))


@claim
@given(meetings())
def test_a_slice_is_reached_by_tab_in_order_and_says_what_it_is(meeting):
    reduction, x = meeting
    slices = slices_of(draw_slices(x, reduction))
    assert list(slices) == sorted(slices)
    for label, group in slices.items():
        assert group.get("class") == "nv-slice"
        assert (group.get("tabindex"), group.get("role")) == ("0", "img")
        part = x[reduction.labels(x.shape) == label]
        where, count, mean, var = re.fullmatch(
            rf"(.*), (\d+) numbers?: mean {NUMBER}, variance {NUMBER}", group.get("aria-label")
        ).groups()
        kept = reduction.locate(label, x.shape).items()
        words = {"c": "channel", "d": "depth", "g": "group"}  # the names among a to g with a word
        named = (
            f"position {i} on {name}" if " " in name else f"{words.get(name, name)} {i}"
            for name, i in kept
        )
        assert where == (", ".join(named) or "all")
        assert int(count) == len(part)
        assert [number(mean), number(var)] == pytest.approx([part.mean(), part.var()], rel=1e-4)


def test_the_arithmetic_of_a_slice_is_spelled_out():
    picture = draw_slices(np.arange(18).reshape(3, 2, 3), Reduction("n c l -> c"))
    first = slices_of(picture)[0]
    lines = lines_of(first)
    assert first.get("aria-description") == "; ".join(lines)  # for those who hear it
    assert lines[0] == "μ = (0 + 1 + 2 + 6 + 7 + 8 + 12 + 13 + 14) / 9 = 7"
    assert lines[1].startswith("σ² = ((0 − 7)² + (1 − 7)² + (2 − 7)² + ")
    assert lines[1].endswith(" + …) / 9 = 24.667")
    assert f"channel 0: {'; '.join(lines)}" in picture.text.splitlines()


numbers = st.integers(-99, 99) | st.floats(-99, 99) | st.floats(-1e-3, 1e-3) | st.just(1e6 + 1)


@settings(claim, max_examples=300)
@given(st.lists(numbers, min_size=1, max_size=9))
def test_a_sum_that_is_shown_whole_comes_out_and_any_other_breaks_off(numbers):
    x = np.array(numbers, dtype=float)
    kinds = (
        (("μ", "mean", x.mean()), ("σ²", "variance", x.var())),
        (("ν²", "mean square", (x**2).mean()),),
        (("‖v‖²", "squared norm", (x**2).sum()),),
    )
    for values in kinds:
        for line in spell_statistics(x, len(x), values):
            assert "…" in line or come_out(line), line
            assert line.count(" ") < 60


def test_a_sum_breaks_off_before_its_last_number_and_never_after_it():
    for count in (8, 9, 10):
        x = np.random.default_rng(count).normal(size=count)
        (mean,) = spell_statistics(x, count, [("μ", "mean", x.mean())])
        terms = mean.partition("(")[2].partition(")")[0]
        assert "…" in terms
        assert terms.count(" + ") + terms.count(" − ") < count


def test_of_many_slices_the_lit_one_is_named_and_has_its_values_in_a_line():
    slices = slices_of(draw_slices(np.arange(34).reshape(2, 17), "n c -> c"))
    for label, group in slices.items():
        [name] = group.findall("*[@class='nv-lit nv-name']")
        assert name.text == f"channel {label}: μ {label + 8.5:g}, σ² 72.25"


LARGE = np.random.default_rng(0).normal(5, 2, (64, 256, 1, 1)).astype(np.float32)


@pytest.mark.parametrize(("kept", "pooled_axis"), [("c", 0), ("n", 1), ("n c", 3)])
def test_a_large_picture_is_small_but_its_statistics_come_from_everything(kept, pooled_axis):
    x = np.broadcast_to(LARGE, (64, 256, 56, 56))
    picture = draw_slices(x, Reduction(f"n c h w -> {kept}"))
    assert len(picture.svg.encode()) < 300_000
    means = LARGE.mean(axis=pooled_axis, dtype=float).ravel()
    for label, group in slices_of(picture).items():
        mean = re.search(rf"mean {NUMBER}", group.get("aria-label"))[1]
        assert number(mean) == pytest.approx(means[label], rel=1e-4)
    cells = cells_of(picture)
    drawn = [{index[axis] for index in cells} for axis in range(4)]
    for size, positions in zip(x.shape, drawn, strict=True):
        assert {0, 1, size - 1} <= positions < set(range(size))
    cut = zip(drawn, x.shape, "nchw", strict=True)
    head_and_tail = ", ".join(f"{len(shown)} of {size} along {name}" for shown, size, name in cut)
    for said in (picture.text, "".join(ElementTree.fromstring(picture.svg).itertext())):
        assert f"Drawn by head and tail: {head_and_tail}." in said
        assert "The numbers that are left out count like all others." in said
        assert f"{len(slices_of(picture))} of {len(means):,} slices are drawn." in said


@pytest.mark.parametrize(("ndim", "axis"), [(n, k) for n in range(1, 6) for k in range(n)])
def test_growing_an_axis_does_not_grow_the_picture(ndim, axis):
    def size(length):
        x = np.full([length if k == axis else 3 for k in range(ndim)], -0.001)
        return len(draw_slices(x, Reduction(ALONE[ndim])).svg.encode())  # the most slices there are

    assert size(500) < 300_000
    assert size(100_000) < 1.1 * size(500)


def test_a_slice_can_be_lit_from_the_start():
    x, reduction = np.arange(6).reshape(3, 2), Reduction("n c -> c")
    page = ElementTree.fromstring(draw_slices(x, reduction, lit=1).svg)
    assert page.get("class") == "nv nv-still"
    [group] = page.findall(".//*[@class='nv-slice nv-on']")
    assert group.get("data-label") == "1"
    plain = draw_slices(x, reduction).svg
    assert ' class="nv"' in plain
    for label in (2, -1, "1"):
        with pytest.raises(ValueError, match="lit must be the label of a drawn slice"):
            draw_slices(x, reduction, lit=label)


def test_a_pattern_may_stand_for_a_reduction():
    assert draw_slices([[1, 2]], "n c -> c") == draw_slices([[1, 2]], Reduction("n c -> c"))


def test_what_a_user_writes_is_shown_as_it_is():
    odd = "<script>&\"'</g>"
    caption = Caption(values=((odd, odd, 2.0),), lines=(f"{odd}\x00",))  # which XML forbids
    picture = draw_slices([1, 2], Reduction("n ->"), title=odd, caption=lambda label: caption)
    page = ElementTree.fromstring(picture.svg)
    shown = Counter(text.text for text in page.iter("{http://www.w3.org/2000/svg}text"))
    assert (shown[odd], shown[f"{odd} 2"]) == (2, 1)
    assert odd in page.get("aria-label")
    assert slices_of(picture)[0].get("aria-label") == f"all, 2 numbers: {odd} 2"
    assert "<script" not in picture._repr_html_()
    assert picture.text.splitlines()[0] == odd


ODD = [
    ([1, np.nan, 3], ["1", "nan", "3"], "x holds 1 nan:"),
    ([1, np.inf, -np.inf, np.nan], ["1", "inf", "−inf", "nan"], "x holds 1 nan and 2 inf:"),
    ([np.nan] * 3, ["nan"] * 3, "x holds 3 nan:"),
    ([-np.inf], ["−inf"], "x holds 1 inf:"),
    ([1e308, -1e308], ["1e308", "−1e308"], ""),
    ([5e-324, 0], ["5e−324", "0"], ""),
    ([2.5, 2.5], ["2.50", "2.50"], "σ² = ((2.50 − 2.5)² + (2.50 − 2.5)²) / 2 = 0"),
    ([True, False], ["1", "0"], "μ = (1 + 0) / 2 = 0.5"),
    ([2**62, -(2**62)], ["5e18", "−5e18"], "= 0"),
]


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize(("x", "cells", "said"), ODD, ids=[str(x) for x, *_ in ODD])
def test_odd_numbers_are_shown_and_named(x, cells, said, kind):
    picture = draw_slices(kind(np.array(x)), Reduction("n ->"))
    assert [text for _, text in cells_of(picture).values()] == cells
    assert said in picture.text
    assert ("not finite" in picture.text) == (not np.isfinite(x).all())


KINDS = {
    "list": np.ndarray.tolist,
    "uint8": lambda x: x.astype(np.uint8),
    "float16": lambda x: x.astype(np.float16),
    "not contiguous": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "int tensor": torch.from_numpy,
    "half tensor": lambda x: torch.from_numpy(x).half(),
    "bfloat16 tensor": lambda x: torch.from_numpy(x).bfloat16(),
    "gradient": lambda x: torch.from_numpy(x).float().requires_grad_() * 1,
    "strided tensor": lambda x: torch.from_numpy(x.T.copy()).T,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_numbers_makes_the_same_picture_and_stays_as_it_was(kind):
    x, reduction = np.arange(12).reshape(3, 4), Reduction("n c -> c")
    of_a_kind = KINDS[kind](x)
    assert draw_slices(of_a_kind, reduction) == draw_slices(x.astype(float), reduction)
    assert torch.equal(torch.as_tensor(of_a_kind).double(), torch.from_numpy(x).double())
    assert getattr(of_a_kind, "requires_grad", False) == (kind == "gradient")


@pytest.mark.parametrize(
    ("x", "pattern", "sizes", "rule"),
    [
        (np.zeros((3, 2)), "n c l -> c", {}, "an axis for each of n c l"),
        (np.zeros((3, 5)), "n (g c) -> n g", {"g": 2}, "must divide"),
        (np.zeros((0, 3)), "n c -> c", {}, "must hold numbers"),
        ([], "n ->", {}, "must hold numbers"),
        (np.zeros(()), "... -> ...", {}, "1 to 5 axes"),
        (3.0, "n ->", {}, "an axis for each of n"),
        (torch.zeros([1] * 6), "... ->", {}, "1 to 5 axes"),
        (np.array([1j]), "n ->", {}, "real numbers"),
        (torch.tensor([1j]), "n ->", {}, "real numbers"),
        (["1", "2"], "n ->", {}, "real numbers"),
        (None, "n ->", {}, "real numbers"),
        ([[1], [2, 3]], "n c -> c", {}, "inhomogeneous"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_drawn_is_refused(x, pattern, sizes, rule):
    with pytest.raises(ValueError, match=rule):
        draw_slices(x, Reduction(pattern, **sizes))
