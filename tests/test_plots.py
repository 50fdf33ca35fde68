"""Plots: what is drawn on them, their words, and what is refused."""

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from reading import SVG, page_of, shown, style_of

from normviz.ink import LETTER
from normviz.picture import Picture
from normviz.plots import COLOURS, Plot, add_bars, draw_bars, draw_histograms, draw_lines

PAGE = "currentColor"  # the ink of the page
NOISE = np.random.default_rng(0).normal(3, 2, (6, 40))
DRAWN = {
    "bars": lambda **words: draw_bars(NOISE[0, :7], **words),
    "one bar": lambda **words: draw_bars({"all": 2.0}, **words),
    "lines": lambda **words: draw_lines({"a": NOISE[0], "b": NOISE[1], "c": NOISE[2]}, **words),
    "one point": lambda **words: draw_lines({"a": [0.5]}, **words),
    "histograms": lambda **words: draw_histograms({"a": NOISE[0], "b": NOISE[1]}, **words),
    "against the truth": lambda **words: draw_histograms({"a": NOISE[0]}, truth=3, **words),
}
ODD = [
    "<B>&\" It's μ < σ² −1, batch-norm",
    r"]]> --> \1 \g<0> {} <svg <metadata> </defs> &amp; &lt; $5 and $\foo$ \$",
]

every_picture = pytest.mark.parametrize("name", DRAWN)


def texts_in(page):
    """Each text, and where it stands."""
    texts = {"".join(text.itertext()): text for text in page.iter(f"{SVG}text")}
    return {text: [float(t.get(key)) for key in "xy"] for text, t in texts.items()}


def points_of(path):
    return np.array(re.findall(r"[ML] ?([\d.]+) ([\d.]+)", path.get("d")), dtype=float)


def paths_in(page, inside=True, **style):
    """The paths with this style, inside the axes or outside."""
    paths = [element for element in shown(page) if element.tag == f"{SVG}path"]
    paths = [path for path in paths if (path.get("class") == "nv-in") == inside]
    return [path for path in paths if style.items() <= style_of(path).items()]


def curves_in(page, inside=True):
    drawn = [path for path in paths_in(page, inside, fill="none") if path not in dots_in(page)]
    return [path for path in drawn if style_of(path)["stroke"] in COLOURS]


def dots_in(page):
    return paths_in(page, fill="none", **{"stroke-linecap": "round"})


def look_of(path):
    return style_of(path)["stroke"], style_of(path).get("stroke-dasharray")


def legend_of(page):
    """The names in the legend, for which there is room on the page below the axes, or none."""
    height = float(page.get("viewBox").split()[3])
    axes = paths_in(page, inside=False, stroke=PAGE, **{"stroke-linecap": "square"})
    bottom = max(points_of(path)[:, 1].max() for path in axes)
    below = [text for text in page.iter(f"{SVG}text") if float(text.get("y")) > bottom + 35]
    assert (height - bottom > 50) == bool(below)
    assert all(float(text.get("y")) < height for text in below)
    return [text.text for text in below]


def heights_in(page, colour=COLOURS[0]):
    """How far each bar of this colour rises, in points of the page, from left to right."""
    (path,) = paths_in(page, fill=colour)
    left, top = points_of(path)[1::4], points_of(path)[2::4]
    assert (left[:, 1] == top[:, 1]).all()
    return points_of(path)[0, 1] - top[:, 1]


@every_picture
@pytest.mark.parametrize("odd", ODD)
def test_a_plot_is_a_named_image_and_prints_its_name(name, odd):
    picture = DRAWN[name](title=odd, x=odd, text=odd)
    page = page_of(picture)
    assert isinstance(picture, Picture)
    assert (page.tag, page.get("role"), page.get("aria-label")) == (f"{SVG}svg", "img", odd)
    assert repr(picture) == picture.text == odd
    words = ["".join(text.itertext()) for text in page.iter(f"{SVG}text")]
    assert sum(odd in text for text in words) >= 2
    assert not list(page.iter(f"{SVG}metadata"))
    assert picture.svg in picture._repr_html_()


def test_of_a_name_and_a_title_all_lines_are_there():
    page = page_of(draw_bars([1], title="first\nsecond", x="below", text="a\n\x00b"))
    assert page.get("aria-label") == "a b"
    bold = page.findall(f".//{SVG}text[@class='nv-title']")
    assert [text.text for text in bold] == ["first", "second"]


@pytest.mark.parametrize("ending", ["svg", "html"])
def test_a_saved_plot_is_the_same_on_its_own(tmp_path, ending):
    picture = draw_lines({"a": NOISE[0]}, text='one < "two"\nmore')
    file = picture.save(tmp_path / f"plot.{ending}").read_text(encoding="utf-8")
    found = ElementTree.fromstring(re.search("<svg.*</svg>", file, re.DOTALL)[0])
    assert "color-scheme:light dark;background:Canvas" in found.attrib.pop("style")
    assert ElementTree.tostring(found) == ElementTree.tostring(page_of(picture))
    assert found.get("aria-label") == 'one < "two" more'


# What is drawn


@pytest.mark.parametrize("values", [NOISE[0, :6], -NOISE[1, :5], [0.5, 0.0, -2, 1], [1e-9, 3e-9]])
def test_a_bar_rises_with_its_value(values):
    heights = heights_in(page_of(draw_bars(values)))
    assert len(heights) == len(values)
    ratio = np.dot(heights, values) / np.dot(values, values)
    assert ratio > 0
    np.testing.assert_allclose(heights, np.multiply(values, ratio), atol=0.02)
    assert 100 < np.ptp([0, *heights]) < 240  # the axes are filled


def test_bars_stand_apart_in_order_above_their_labels():
    values = {"start": 4, "one & two": 2, 7: 3}
    page = page_of(draw_bars(values, title="T", x="X", y="Y"))
    (path,) = paths_in(page, fill=COLOURS[0])
    lefts, rights = points_of(path)[1::4, 0], points_of(path)[2::4, 0]
    assert (lefts < rights).all()
    assert (rights[:-1] < lefts[1:]).all()
    np.testing.assert_allclose(rights - lefts, rights[0] - lefts[0], atol=0.02)
    texts = texts_in(page)
    np.testing.assert_allclose([texts[str(k)][0] for k in values], (lefts + rights) / 2, atol=0.02)
    assert {"T", "X", "Y"} <= {*texts}
    assert not legend_of(page)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("label", ["{}", "no. {}", "a long name for {}"])
@pytest.mark.parametrize("count", [9, 61])
def test_labels_do_not_run_into_each_other(count, label, columns):
    plot, labels = Plot(columns), [label.format(i) for i in range(count)]
    with plot.anew() as axes:
        add_bars(axes[-1], {"": [1] * count}, labels)
    found = texts_in(page_of(plot.picture("")))
    kept = [name for name in labels if name in found]
    assert kept[0] == labels[0]
    assert len({labels.index(b) - labels.index(a) for a, b in pairwise(kept)}) <= 1
    letter = 0.6 * 11  # the mean width of a letter of this size
    for before, after in pairwise(kept):
        assert found[after][0] - found[before][0] > letter * (len(before) + len(after)) / 2
    room = 600 / columns / (letter * len(labels[-1]))
    assert len(kept) >= min(count, room / 5)


@pytest.mark.parametrize("values", [[0.1, 0.04], [5, 3], [12_000, 8000]], ids=str)
def test_a_name_beside_the_axes_is_on_the_page_and_clear_of_the_ticks(values):
    page = page_of(draw_bars(values, y="weight"))
    below_its_baseline, height, letter = 3, 9, 0.64 * 11  # in points; of a digit
    (label,) = (text for text in page.iter(f"{SVG}text") if text.text == "weight")
    assert label.get("transform") == f"rotate(-90 {label.get('x')} {label.get('y')})"
    name = float(label.get("x"))
    ends = page.findall(f".//{SVG}text[@text-anchor='end']")
    assert len(ends) >= 3
    assert name > height
    for text in ends:
        assert float(text.get("x")) - letter * len(text.text) > name + below_its_baseline


def test_two_series_of_bars_stand_side_by_side_and_differ():
    plot = Plot()
    with plot.anew() as [axes]:
        add_bars(axes, {"here": [1, 2], "_there": [4, 3]}, "ab")
    page = page_of(plot.picture("two"))
    fills = COLOURS[:2]
    here, there = (heights_in(page, fill) for fill in fills)
    np.testing.assert_allclose(here * [4, 1.5], there, atol=0.05)
    bars = points_of(*paths_in(page, fill=fills[1]))
    hatch, _ = (points_of(path) for path in paths_in(page, False, **{"stroke-width": "0.5"}))
    assert (bars.min(0) - 0.1 <= hatch.min(0)).all()  # the second series is hatched, within it
    assert (hatch.max(0) <= bars.max(0) + 0.1).all()
    (_, right), (left, _) = (points_of(*paths_in(page, fill=fill))[[1, 2], 0] for fill in fills)
    assert right == pytest.approx(left)
    assert legend_of(page) == ["here", "_there"]


@pytest.mark.parametrize("lengths", [(2,), (40, 3), (5, 40, 17)], ids=str)
def test_all_curves_share_one_scale_and_end_in_a_dot_at_their_last_value(lengths):
    series = {f"s{i}": NOISE[i, :length] * 10**i for i, length in enumerate(lengths)}
    page = page_of(draw_lines(series))
    points = [points_of(path) for path in curves_in(page)]
    assert [len(p) for p in points] == [*lengths]
    seen, true = np.concatenate(points), np.concatenate([*series.values()])
    steps = np.concatenate([np.arange(length) for length in lengths])
    for wanted, coordinate, sign in ((steps, 0, 1), (true, 1, -1)):
        slope, start = np.polyfit(wanted, seen[:, coordinate], 1)
        assert slope * sign > 0
        np.testing.assert_allclose(seen[:, coordinate], slope * wanted + start, atol=0.01)
    assert [points_of(dot).tolist() for dot in dots_in(page)] == [p[-1:].tolist() for p in points]


def test_sixteen_series_differ_in_colour_or_dash_and_the_legend_names_them_so():
    names = [f"_{i}" for i in range(16)]
    page = page_of(draw_lines({name: [1, i] for i, name in enumerate(names)}))
    looks = [look_of(path) for path in curves_in(page)]
    assert len({*looks}) == 16
    for one, other in combinations(looks[:4], 2):
        assert all(part != its for part, its in zip(one, other, strict=True))
    assert [look_of(path) for path in curves_in(page, inside=False)] == looks
    assert legend_of(page) == names


TAILS = {
    "long tail": (NOISE[0, :10] ** 4, NOISE[1:].ravel() ** 4),
    "short tail": (np.arange(3, 13), np.linspace(2, 12, 200)),
    "below zero": (-np.arange(1, 11), np.linspace(-12, 30, 200)),
}


@pytest.mark.parametrize("truth", [None, 2.5])
@pytest.mark.parametrize("tail", TAILS)
def test_histograms_share_one_scale_and_mark_their_means_and_the_truth(tail, truth):
    few, many = TAILS[tail]
    page = page_of(draw_histograms({"few": few, "many": many}, truth=truth, x="x", title="T"))
    everything, areas, looks = np.concatenate([few, many]), [], set()
    is_long, start = tail == "long tail", everything.min()
    end = np.quantile(everything, 0.99) if is_long else everything.max()
    assert (everything.max() > 1.5 * end) == is_long
    marks = [path for path in paths_in(page, stroke=PAGE) if look_of(path)[1]]
    for i, numbers in enumerate((few, many)):
        (steps,) = (points_of(path) for path in paths_in(page, fill=COLOURS[i]))
        mine = marks[i * len(marks) // 2 :][: len(marks) // 2]
        wanted = [numbers.mean(), truth][: len(mine)]
        assert len(mine) == (1 if truth is None else 2)
        shares = [(points_of(m)[0, 0] - steps[0, 0]) / np.ptp(steps[:, 0]) for m in mine]
        near = pytest.approx(wanted, rel=1e-3, abs=1e-4 * (end - start))
        assert start + np.multiply(shares, end - start) == near
        looks.add(tuple(look_of(mark) for mark in mine))
        tops = (steps[0, 1] - steps[1:-1, 1])[::2]
        areas.append(tops.sum())
        counts, _ = np.histogram(numbers, [*np.linspace(start, end, 41)[:-1], np.inf])
        np.testing.assert_allclose(tops / tops.sum() * len(numbers), counts, atol=0.03)
    assert areas[0] / areas[1] == pytest.approx(10 / 200, rel=1e-3)
    (look,) = looks
    assert len({*look}) == len(look)
    label = "x (last bar: all larger ones)" if is_long else "x"
    assert {"T: few", "T: many", label} <= {*texts_in(page)}
    assert legend_of(page) == ["mean of them", "truth"][: len(look)]


@pytest.mark.parametrize("numbers", [[0, 0, 0], [-3, -3], [-1, -5], [5], [0] * 300 + [7]], ids=str)
def test_any_numbers_make_a_histogram(numbers):
    picture = draw_histograms({"a": numbers})
    assert page_of(picture).get("aria-label").startswith(f"a: {len(numbers)} numbers with mean")


def test_many_numbers_make_a_bounded_page():
    noise = np.random.default_rng(0).normal(size=10**6)
    assert len(draw_bars(noise[:2000]).svg) < 250_000
    assert len(draw_lines({"a": noise}).svg) < 400_000
    assert len(draw_histograms({"a": noise}).svg) < 10_000


def test_a_plot_is_as_large_as_it_is_asked_to_be():
    page = page_of(Plot(3, width=1000, height=330).picture(""))
    assert page.get("viewBox") == "0 0 750 247.5"  # 96 pixels, 72 points to the inch
    assert [page.get("width"), page.get("height")] == ["750pt", "247.5pt"]


# Its words, and what is refused


WEIGHTS = torch.nn.Parameter(torch.tensor([0.5, 1.5], dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        (lambda: draw_bars([0.5, -1 / 3], title="w"), "w: 0 is 0.5, 1 is −0.33333"),
        (lambda: draw_bars({"a": 1e7, "b": 2}), "a is 1e7, b is 2"),
        (lambda: draw_bars([3, 4], ["x", 7], title="w"), "w: x is 3, 7 is 4"),
        (lambda: draw_bars([1] * 12), ", ".join(f"{i} is 1" for i in range(12))),
        (lambda: draw_bars([1] * 13), ", ".join(f"{i} is 1" for i in range(12)) + ", …"),
        (lambda: draw_bars(WEIGHTS), "0 is 0.5, 1 is 1.5"),
        (
            lambda: draw_lines({"a": [2, 5, -2 / 3], 5: [7]}, title="r"),
            "r: a goes from 2 to −0.66667 in 2 steps, 5 goes from 7 to 7 in 0 steps",
        ),
        (
            lambda: draw_histograms({"a": [1, 2], "b": [0] * 1200}),
            "a: 2 numbers with mean 1.5; b: 1,200 numbers with mean 0",
        ),
        (lambda: draw_histograms({"a": [1]}, truth=0), "truth 0; a: 1 numbers with mean 1"),
    ],
)
def test_without_words_of_its_own_a_plot_says_its_values(picture, wanted):
    assert picture().text == page_of(picture()).get("aria-label") == wanted


@pytest.mark.parametrize(
    ("draw", "rule"),
    [
        (lambda: draw_bars([]), "values must be finite numbers"),
        (lambda: draw_bars([1, float("nan")]), r"one at least: got \[1, nan\]"),
        (lambda: draw_bars([1, 2], ["one"]), "labels must be as many as values, 2: got 1"),
        (lambda: draw_bars([1, 2], "abc"), "labels must be as many as values, 2: got 3"),
        (lambda: draw_bars(np.ones(2001)), "2,000 at most, .* got 2,001; draw_lines and"),
        (lambda: draw_lines({"loss": []}), "loss must be finite numbers"),
        (lambda: draw_lines({"loss": 3}), r"loss must have one axis: got the shape \(\)"),
        (lambda: draw_bars(np.ones((2, 3))), r"values must have one axis: got the shape \(2, 3\)"),
        (lambda: draw_histograms({"few": [float("inf")]}), "few must be finite numbers"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(draw, rule):
    with pytest.raises(ValueError, match=rule):
        draw()


@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")  # of which we know
@pytest.mark.parametrize("draw", [draw_bars, draw_lines, draw_histograms])
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_masked_numbers_are_refused_and_the_remedies_help(kind, draw):
    def drawn(values):
        return draw(values if draw is draw_bars else {"values": values})

    x = np.ma.masked_greater([1.0, 1000, 3], 10)
    if kind == "tensor":
        x = torch.masked.masked_tensor(*map(torch.tensor, (x.data, ~x.mask)))
    with pytest.raises(ValueError, match=r"^values must not be masked") as refused:
        drawn(x)
    every, seen = re.search("; (.*) has all numbers, and (.*) those", str(refused.value)).groups()
    assert drawn(eval(every)) == drawn([1, 1000, 3])
    assert drawn(eval(seen)) == drawn([1, 3])


def test_numbers_beside_axes_do_not_reach_their_neighbour():
    plot = Plot(3, width=900)
    with plot.anew() as [_, middle, right]:
        add_bars(right, {"": [0.0125]}, [0])  # numbers of six letters
    [end, start] = middle.get_window_extent().x1, right.get_window_extent().x0
    assert start - end >= 6 * LETTER + 7 + 3  # tick and pad, and a dot on the other end
