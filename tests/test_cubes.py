"""The classic blocks: every outside face is drawn once, by the statistic that it belongs to."""

import re
from collections import defaultdict
from math import prod
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

import normviz
from normviz import Reduction, draw_cubes

SHAPES = [(2, 3), (4, 3, 2), (4, 6, 2, 3), (1, 1, 1, 1), (9, 5, 2, 2), (64, 256, 56, 56)]
SHAPES += [(2, 3, 2, 2, 2), (2, 1, 3, 1, 2, 2), (7, 8, 2, 1, 1, 1, 5)]
FACE = re.compile(r"M(\S+) (\S+)l(\S+) (\S+)l(\S+) (\S+)l(\S+) (\S+)z")


def reductions_of(ndim):
    """Name → reduction, for some of those that an array with so many axes can have."""
    names = ["n", "c", "h", "w", "d", "t", "l"][:ndim]
    kept = {"alone": names, "all": [], "batch": ["c"], "layer": ["n"], "instance": ["n", "c"]}
    kept |= {"position": names[2:], "last": names[-1:]}
    return {name: Reduction(f"{' '.join(names)} -> {' '.join(k)}") for name, k in kept.items()}


def slices_of(picture):
    """name → label → group, in the order that Tab reaches them."""
    found = defaultdict(dict)
    for group in ElementTree.fromstring(picture.svg).findall(".//*[@data-label]"):
        name = group.get("aria-label").partition(",")[0]
        label = int(group.get("data-label"))
        assert label not in found[name]
        found[name][label] = group
    return found


def faces_of(group, *, lit):
    """Side of the block → where its faces start: those on the outside, or those seen when lit."""
    found = defaultdict(list)
    for path in group.findall("*[@class='nv-cell nv-lit']" if lit else "*[@class='nv-cell']"):
        for x, y, right, down, across, along, *back in FACE.findall(path.get("d") or ""):
            assert back == [str(-int(right)), str(-int(down))]
            side = "side" if down != "0" else "front" if across == "0" else "top"
            assert (side == "front") <= (int(right) == int(along))
            found[side].append((float(x), float(y)))
    return found


def drawn_labels(reduction, shape):
    """The labels of the drawn part: back, right, down."""
    labels = reduction.labels(shape)[:6, :6]
    return labels.reshape(*labels.shape[:2], -1)[..., :6]


def outside_of(block):
    """The labels that are seen from the front, from above and from the right."""
    return {"front": block[0].T, "top": block[:, :, 0], "side": block[:, -1]}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", reductions_of(2))
def test_every_outside_face_is_drawn_once_by_its_own_slice(name, shape):
    reduction = reductions_of(len(shape))[name]
    slices = slices_of(draw_cubes(shape, {name: reduction}))[name]
    block = drawn_labels(reduction, shape)
    for side, expected in outside_of(block).items():
        at = {}
        for label, group in slices.items():
            for corner in faces_of(group, lit=False)[side]:
                assert corner not in at
                at[corner] = label
        # Row by row down the page, then to the right; the top's first row is the one at the back.
        in_order = {"front": lambda p: (p[1], p[0]), "top": lambda p: (-p[1], p[0])}
        corners = sorted(at, key=in_order.get(side, lambda p: p))
        assert np.array_equal([at[corner] for corner in corners], expected.ravel())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", reductions_of(2))
def test_a_lit_slice_shows_its_whole_surface(name, shape):
    reduction = reductions_of(len(shape))[name]
    slices = slices_of(draw_cubes(shape, {name: reduction}))[name]
    block = drawn_labels(reduction, shape)
    assert list(slices) == np.unique(block).tolist()
    for label, group in slices.items():
        own = np.pad(block == label, 1)
        seen, hidden = faces_of(group, lit=False), faces_of(group, lit=True)
        # A face is hidden by its own slice's cube before it, above it, or to its right.
        for side, axis, step in (("front", 0, 1), ("top", 2, 1), ("side", 1, -1)):
            surface = (own & ~np.roll(own, step, axis)).sum()
            assert len(seen[side]) + len(hidden[side]) == surface
            assert not set(seen[side]) & set(hidden[side])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_slice_has_one_card_that_it_shares_with_none(shape):
    named = reductions_of(len(shape))
    picture = draw_cubes(shape, named)
    slices, places = slices_of(picture), []
    assert list(slices) == list(named)
    for name, reduction in named.items():
        for group in slices[name].values():
            assert (group.get("tabindex"), group.get("role")) == ("0", "img")
            [card] = group.findall("{*}rect")
            places.append((card.get("x"), card.get("y")))
            count = f"{reduction.count(shape):,} number"
            assert f": one mean over {count}" in group.get("aria-label")
    assert len(set(places)) == len(places)
    assert len(picture.svg.encode()) < 300_000


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nothing_leaves_the_page_and_blocks_stand_apart(shape):
    picture = draw_cubes(shape, reductions_of(len(shape)))
    width, height = map(float, ElementTree.fromstring(picture.svg).get("viewBox").split()[2:])
    boxes = []
    for slices in slices_of(picture).values():
        ends = []
        for group in slices.values():
            for path in group.findall("*[@class='nv-cell']"):
                for face in FACE.findall(path.get("d") or ""):
                    steps = np.array(face, float).reshape(-1, 2)
                    ends += np.cumsum(steps, axis=0).tolist()
            for card in group.findall("{*}rect"):
                x, y, size = (float(card.get(side)) for side in ("x", "y", "width"))
                ends += [[x, y], [x + size, y + size]]
        boxes.append((*np.min(ends, axis=0), *np.max(ends, axis=0)))
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        apart = [b[0] >= right or b[2] <= left or b[1] >= bottom or b[3] <= top for b in boxes]
        assert apart.count(False) == 1  # itself


def test_the_words_say_what_each_block_pools():
    picture = draw_cubes((64, 6, 5), {"BatchNorm": "n c l -> c", "Instance": "n c l -> n c"})
    assert picture.text.splitlines() == [
        "Which numbers of a (64, 6, 5) tensor share a mean",
        "BatchNorm: over n, l, one per c. 6 slices of 320 numbers.",
        "Instance: over l, one per n, c. 384 slices of 5 numbers.",
        "Drawn: the first 6 steps in each longer direction.",
    ]
    spoken = ElementTree.fromstring(picture.svg).get("aria-label")
    assert all(line.rstrip(".") in spoken for line in picture.text.splitlines())
    assert "Drawn" not in draw_cubes((6, 6, 6), {"BatchNorm": "n c l -> c"}).text
    channel = slices_of(picture)["BatchNorm"][2]
    assert channel.get("aria-label") == "BatchNorm, channel 2: one mean over 320 numbers"


def test_a_pattern_may_stand_for_a_reduction_and_a_torch_size_for_a_shape():
    expected = draw_cubes((4, 6, 2, 3), {"GroupNorm": Reduction("n c h w -> n")})
    assert draw_cubes(torch.Size([4, 6, 2, 3]), {"GroupNorm": "n c h w -> n"}) == expected
    assert draw_cubes(np.array([4, 6, 2, 3]), {"GroupNorm": "n c h w -> n"}) == expected
    grouped = draw_cubes((4, 6, 2), {"g": Reduction("n (g c) l -> n g", g=3)})
    assert len(slices_of(grouped)["g"]) == 12
    assert normviz.draw_cubes is draw_cubes


def test_names_are_shown_as_they_are():
    odd = "<b>&\"'</g>"
    picture = draw_cubes((2, 3), {odd: "n c -> c", 7: "n c -> n"})
    page = ElementTree.fromstring(picture.svg)
    assert [text.text for text in page.iter("{http://www.w3.org/2000/svg}text")].count(odd) == 1
    assert list(slices_of(picture)) == [odd, "7"]
    assert "<b>" not in picture._repr_html_()
    assert f"\n{odd}: over n, one per c." in picture.text


@pytest.mark.parametrize("kept", ["", "c", "n c h w"])
def test_a_shape_that_fits_no_memory_can_be_drawn(kept):
    shape, reduction = (10**5, 10**4, 10**4, 10**3), Reduction(f"n c h w -> {kept}")
    picture = draw_cubes(shape, {"huge": reduction})
    slices = prod(reduction.stat_shape(shape))
    assert f". {slices:,} slice" in picture.text
    assert f" of {prod(shape) // slices:,} number" in picture.text
    assert len(picture.svg.encode()) < 300_000


@pytest.mark.parametrize(
    ("shape", "reductions", "rule"),
    [
        ((2, 3), {}, "reductions must map names"),
        ((2, 3), None, "reductions must map names"),
        ((2, 3), Reduction("n c -> c"), "reductions must map names"),
        ((2, 3), ["n c -> c"], "reductions must map names"),
        ((2, 3), {"a": 5}, r"reductions\['a'\]: it must be a Reduction"),
        ((2, 3), {"a": "n c > c"}, "n c > c"),
        ((2, 3), {"a": "n c -> c", "b": "n c l -> c"}, r"\['b'\].* an axis for each of n c l"),
        ((2, 3, 4, 5), {"a": normviz.CentredConv2d(3, 1, 2)}, "which normalizes its weight"),
        ((2, 3), {"a": Reduction("n (g c) -> g", g=2)}, "must divide"),
        ((5,), {"a": "n ->"}, "two axes or more"),
        ((), {"a": "... ->"}, "two axes or more"),
        ((2, 0), {"a": "n c -> c"}, "hold numbers"),
        ((2, -3), {"a": "n c -> c"}, "-3"),
        ((2, 3.0), {"a": "n c -> c"}, "tuple of ints"),
        (5, {"a": "n c -> c"}, "tuple of ints"),
        (None, {"a": "n c -> c"}, "tuple of ints"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused(shape, reductions, rule):
    with pytest.raises(ValueError, match=rule):
        draw_cubes(shape, reductions)


def test_a_layer_is_drawn_by_its_plan():
    layers = {
        "BatchNorm": nn.BatchNorm2d(6),
        "GroupNorm": nn.GroupNorm(2, 6),
        "RMSNorm": normviz.RMSNorm([2, 3]),
        "FRN": normviz.FilterResponseNorm2d(6),
    }
    patterns = {
        "BatchNorm": "n c h w -> c",
        "GroupNorm": Reduction("n (g c) h w -> n g", g=2),
        "RMSNorm": "n c h w -> n c",
        "FRN": "n c h w -> n c",
    }
    shape = (4, 6, 2, 3)
    by_layer, by_pattern = draw_cubes(shape, layers), draw_cubes(shape, patterns)
    assert by_layer.text.splitlines()[1:] == by_pattern.text.splitlines()[1:]
    assert "share a statistic" in by_layer.text
    assert "RMSNorm, sample 0, channel 0: one mean square over 6 numbers" in by_layer.svg
    assert "share a mean square\n" in draw_cubes(shape, {"RMSNorm": nn.RMSNorm(3)}).text
    with pytest.raises(ValueError, match="must be a normalization layer"):
        draw_cubes(shape, {"Linear": nn.Linear(3, 3)})
