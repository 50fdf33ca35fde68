"""Plots: their words, their ink, what is drawn on them, and that they leave nothing behind."""

import json
import re
import subprocess
import sys
from itertools import combinations, pairwise
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from normviz.picture import Picture
from normviz.plots import (
    COLOURS,
    GREY,
    Plot,
    add_bars,
    add_histograms,
    add_lines,
    draw_bars,
    draw_histograms,
    draw_lines,
)
from normviz.words import five_digits

SVG = "{http://www.w3.org/2000/svg}"
NOISE = np.random.default_rng(0).normal(3, 2, (6, 40))
DRAWN = {
    "bars": lambda **words: draw_bars(NOISE[0, :7], **words),
    "one bar": lambda **words: draw_bars({"all": 2.0}, **words),
    "lines": lambda **words: draw_lines({"a": NOISE[0], "b": NOISE[1], "c": NOISE[2]}, **words),
    "one point": lambda **words: draw_lines({"a": [0.5]}, **words),
    "histograms": lambda **words: draw_histograms({"a": NOISE[0], "b": NOISE[1]}, **words),
    "against the truth": lambda **words: draw_histograms({"a": NOISE[0]}, truth=3, **words),
}
ODD = ["<B>&\" It's μ < σ² −1", r"]]> --> \1 \g<0> {} <svg <metadata> </metadata> &amp; &lt;"]

every_picture = pytest.mark.parametrize("name", DRAWN)
every_odd_text = pytest.mark.parametrize("odd", ODD)


def page_of(picture):
    return ElementTree.fromstring(picture.svg)


def words_in(page):
    return ["".join(text.itertext()) for text in page.iter(f"{SVG}text")]


def style_of(element):
    pairs = (pair.split(":") for pair in element.get("style", "").split(";") if pair.strip())
    return {name.strip(): value.strip() for name, value in pairs}


def shown(page):
    """What meets the eye: no definitions."""
    for child in page:
        if child.tag != f"{SVG}defs":
            yield child
            yield from shown(child)


def points_of(path):
    return np.array(re.findall(r"[ML] (\S+) (\S+)", path.get("d")), dtype=float)


def painted(page, **style):
    """The paths with this style, inside the axes."""
    return [
        path
        for path in shown(page)
        if path.tag == f"{SVG}path"
        and path.get("clip-path")
        and style.items() <= style_of(path).items()
    ]


def heights_in(page, colour=COLOURS[0]):
    """How far each bar of this colour rises, in points of the page, from left to right."""
    found = []
    for path in painted(page, fill=colour):
        left, top = points_of(path)[1::4], points_of(path)[2::4]
        assert (left[:, 1] == top[:, 1]).all()
        found += [points_of(path)[0, 1] - top[:, 1]]
    return found


@every_picture
@every_odd_text
def test_a_plot_is_a_named_image_and_prints_its_name(name, odd):
    picture = DRAWN[name](title=odd, x=odd, text=odd)
    page = page_of(picture)
    assert isinstance(picture, Picture)
    assert page.tag == f"{SVG}svg"
    assert (page.get("role"), page.get("aria-label")) == ("img", odd)
    assert repr(picture) == picture.text == odd
    assert sum(odd in words for words in words_in(page)) >= 2
    assert not list(page.iter(f"{SVG}metadata"))
    assert picture.svg in picture._repr_html_()


@every_picture
def test_the_ink_is_that_of_the_page_and_there_is_no_paper(name):
    page = page_of(DRAWN[name](title="A title", x="beneath", text="words"))
    colours = {"none", "currentColor", GREY, *COLOURS}
    styles = [style_of(element) for element in page.iter()]
    used = {style[part] for style in styles for part in ("fill", "stroke") if part in style}
    assert used <= colours
    assert not [e for e in page.iter() if e.get("fill") or e.get("stroke")]
    assert not re.search(r"#000000|#fff|black|white|#010203", ElementTree.tostring(page, "unicode"))
    drawn = [e for e in shown(page) if e.tag.removeprefix(SVG) in ("path", "use", "text")]
    assert all("fill" in style_of(element) for element in drawn)  # by default, it is black
    texts = [element for element in drawn if element.tag == f"{SVG}text"]
    assert {style_of(text)["fill"] for text in texts} == {"currentColor"}
    papers = [style_of(path) for path in drawn if path.get("d", "").rstrip().endswith("z")]
    assert {"fill": "none"} in papers
    assert {style["fill"] for style in papers} <= {"none", *COLOURS}


@every_picture
def test_the_rules_of_a_plot_hold_for_no_other_part_of_the_page(name):
    page = page_of(DRAWN[name]())
    rules = "".join("".join(style.itertext()) for style in page.iter(f"{SVG}style"))
    selectors = re.findall(r"([^{}]+)\{", rules)
    own = page.get("class")
    assert selectors
    assert all(selector.split()[0] == f".{own}" for selector in selectors)


@pytest.mark.parametrize("paper", ["ffffff", "000000"])
def test_every_series_stands_out_from_light_and_from_dark_paper(paper):
    def light(colour):
        parts = np.array([*bytes.fromhex(colour)]) / 255
        parts = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return parts @ [0.2126, 0.7152, 0.0722] + 0.05

    for colour in (*COLOURS, GREY):
        dim, bright = sorted((light(colour[1:]), light(paper)))
        assert bright / dim >= 3


@every_picture
def test_the_same_numbers_give_the_same_bytes(name):
    first, second = DRAWN[name](title="T"), DRAWN[name](title="T")
    assert first == second
    assert first.svg != DRAWN[name](title="U").svg


SESSION = """
import json, sys
import matplotlib
before = matplotlib.rcParams.copy()
from normviz import labs
from normviz.plots import draw_histograms, draw_lines
for lab in (labs.momentum_lab, labs.bessel_lab, labs.linearity_lab, labs.modes_lab):
    lab().still()
pictures = [draw_lines({"a": [1, 2], "b": [2, 0]}), draw_histograms({"a": [1, 2, 2]}, truth=1)]
print(json.dumps({
    "svg": [picture.svg for picture in pictures],
    "pyplot": "matplotlib.pyplot" in sys.modules,
    "settings changed": [k for k in before if before._get(k) != matplotlib.rcParams._get(k)],
}))
"""


def test_another_session_draws_the_same_bytes_without_pyplot_and_changes_no_settings():
    run = [sys.executable, "-W", "error", "-c", SESSION]
    found = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    here = draw_lines({"a": [1, 2], "b": [2, 0]}), draw_histograms({"a": [1, 2, 2]}, truth=1)
    assert found == {
        "svg": [picture.svg for picture in here],
        "pyplot": False,
        "settings changed": [],
    }


def test_drawing_leaves_matplotlibs_settings_alone_even_if_it_fails():
    before = matplotlib.rcParams.copy()
    plot = Plot(2)
    with pytest.raises(ZeroDivisionError), plot.anew() as axes:
        assert matplotlib.rcParams.copy() != before
        add_lines(axes[0], {"a": [1], "b": [2]})
        raise ZeroDivisionError
    assert matplotlib.rcParams.copy() == before
    plot.picture("")
    assert matplotlib.rcParams.copy() == before


@pytest.mark.parametrize("values", [NOISE[0, :6], -NOISE[1, :5], [0.5, 0.0, -2, 1], [1e-9, 3e-9]])
def test_a_bar_rises_with_its_value(values):
    (heights,) = heights_in(page_of(draw_bars(values)))
    assert len(heights) == len(values)
    ratio = np.dot(heights, values) / np.dot(values, values)
    assert ratio > 0
    np.testing.assert_allclose(heights, np.multiply(values, ratio), atol=1e-4)
    assert 100 < np.ptp([0, *heights]) < 240  # the axes are filled


def test_bars_stand_apart_in_order_above_their_labels():
    values = {"start": 4, "one & two": 2, 7: 3}
    page = page_of(draw_bars(values, title="T", x="X", y="Y"))
    (path,) = painted(page, fill=COLOURS[0])
    points = points_of(path)
    lefts, rights = points[1::4, 0], points[2::4, 0]
    assert (lefts < rights).all()
    assert (rights[:-1] < lefts[1:]).all()
    np.testing.assert_allclose(rights - lefts, rights[0] - lefts[0], atol=1e-4)
    places = {"".join(t.itertext()): float(t.get("x", "nan")) for t in page.iter(f"{SVG}text")}
    np.testing.assert_allclose([places[str(k)] for k in values], (lefts + rights) / 2, atol=1e-3)
    assert {"T", "X", "Y"} <= {*words_in(page)}


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("label", ["{}", "no. {}", "a long name for {}"])
@pytest.mark.parametrize("count", [9, 61])
def test_labels_do_not_run_into_each_other(count, label, columns):
    plot, labels = Plot(columns), [label.format(i) for i in range(count)]
    with plot.anew() as axes:
        add_bars(axes[-1], {"": [1] * count}, labels)
    texts = page_of(plot.picture("")).iter(f"{SVG}text")
    found = {"".join(t.itertext()): float(t.get("x", "nan")) for t in texts}
    kept = [name for name in labels if name in found]
    assert kept[0] == labels[0]
    assert len({labels.index(b) - labels.index(a) for a, b in pairwise(kept)}) <= 1
    letter = 0.6 * 11  # the mean width of a letter of this size
    for before, after in pairwise(kept):
        assert found[after] - found[before] > letter * (len(before) + len(after)) / 2
    room = 600 / columns / (letter * len(labels[-1]))
    assert len(kept) >= min(count, room / 5)


@pytest.mark.parametrize("values", [[0.1, 0.04], [5, 3], [12_000, 8000]], ids=str)
def test_a_name_beside_the_axes_is_on_the_page_and_clear_of_the_ticks(values):
    page = page_of(draw_bars(values, y="weight"))
    texts = {"".join(text.itertext()): text for text in page.iter(f"{SVG}text")}
    below_its_baseline, height, letter = 3, 9, 0.64 * 11  # in points; of a digit
    name = float(texts["weight"].get("x"))
    ends = {t: float(text.get("x")) for t, text in texts.items() if "end" in text.get("style")}
    assert len(ends) >= 3
    assert name > height
    for tick, end in ends.items():
        assert end - letter * len(tick) > name + below_its_baseline


def test_two_series_of_bars_stand_side_by_side_and_differ():
    plot = Plot()
    with plot.anew() as [axes]:
        add_bars(axes, {"here": [1, 2], "there": [4, 3]}, "ab")
    page = page_of(plot.picture("two"))
    (pattern,) = page.iter(f"{SVG}pattern")  # the second series is hatched
    fills = COLOURS[0], f"url(#{pattern.get('id')})"
    assert pattern.find(f"{SVG}rect").get("fill") == COLOURS[1]
    here, there = (heights_in(page, fill)[0] for fill in fills)
    np.testing.assert_allclose(here * [4, 1.5], there, atol=1e-3)
    edges = np.sort([points_of(painted(page, fill=fill)[0])[[1, 2], 0] for fill in fills])
    assert edges[0, 1] == pytest.approx(edges[1, 0])
    assert {"here", "there"} <= {*words_in(page)}


def curves_in(page):
    return [path for path in painted(page, fill="none") if style_of(path).get("stroke") in COLOURS]


@pytest.mark.parametrize("lengths", [(2,), (40, 3), (5, 40, 17)], ids=str)
def test_all_curves_share_one_scale_and_end_at_their_last_value(lengths):
    series = {f"s{i}": NOISE[i, :length] * 10**i for i, length in enumerate(lengths)}
    page = page_of(draw_lines(series))
    points = [points_of(path) for path in curves_in(page)]
    assert [len(p) for p in points] == [*lengths]
    seen, true = np.concatenate(points), np.concatenate([*series.values()])
    steps = np.concatenate([np.arange(length) for length in lengths])
    for drawn, wanted, sign in ((seen[:, 0], steps, 1), (seen[:, 1], true, -1)):
        slope, start = np.polyfit(wanted, drawn, 1)
        assert slope * sign > 0
        np.testing.assert_allclose(drawn, slope * wanted + start, atol=0.01)
    uses = [use for use in shown(page) if use.tag == f"{SVG}use"]
    colours = [style_of(use)["fill"] for use in uses]
    for path, colour in zip(curves_in(page), COLOURS, strict=False):
        dot = uses[colours.index(colour)]
        ends = [float(dot.get("x")), float(dot.get("y"))]
        assert ends == pytest.approx(points_of(path)[-1], abs=1e-4)


def test_curves_differ_in_colour_and_in_dash_and_the_legend_names_them_so():
    page = page_of(draw_lines({"first": NOISE[0], "second": NOISE[1], "third": NOISE[2]}))
    looks = [
        (style_of(path)["stroke"], style_of(path).get("stroke-dasharray"))
        for path in curves_in(page)
    ]
    assert len(looks) == 3
    for (colour, dash), (other, its) in combinations(looks, 2):
        assert colour != other
        assert dash != its
    legend = page.find(".//*[@class='legend_1']")
    assert words_in(legend) == ["first", "second", "third"]
    assert [
        (style_of(path)["stroke"], style_of(path).get("stroke-dasharray"))
        for path in legend.iter(f"{SVG}path")
    ] == looks


@pytest.mark.parametrize(
    ("picture", "names"),
    [
        (draw_lines({}), None),
        (draw_bars([1, 2]), None),
        (draw_lines({"alone": [1, 2]}), ["alone"]),
        (draw_histograms({"a": [1, 2]}), ["mean of them"]),
        (draw_histograms({"a": [1, 2], "b": [1, 2]}, truth=1), ["mean of them", "truth"]),
    ],
    ids=["nothing", "bars", "a line", "a mean", "a truth"],
)
def test_the_legend_names_what_has_a_name_and_has_room_for_it(picture, names):
    page = page_of(picture)
    legend = page.find(".//*[@class='legend_1']")
    assert (legend and words_in(legend)) == names
    bottom = points_of(page.find(".//*[@class='axes_1']//*[@d]"))[:, 1].max()
    height = float(page.get("viewBox").split()[3])
    assert (height - bottom > 50) == (names is not None)
    for text in legend.iter(f"{SVG}text") if names else ():
        assert bottom + 30 < float(text.get("y")) < height


def places_in(page):
    """Of each axes: the bars' edges, and where the mean and the truth are marked."""
    for axes in (e for e in page.iter() if e.get("class", "").startswith("axes_")):
        (steps,) = [path for path in painted(axes) if style_of(path).get("fill") in COLOURS]
        marks = [
            (style_of(path)["stroke-dasharray"], points_of(path)[0, 0])
            for path in painted(axes, stroke="currentColor")
            if "stroke-dasharray" in style_of(path)
        ]
        yield points_of(steps), marks


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
    everything, areas, dashes = np.concatenate([few, many]), [], set()
    is_long = tail == "long tail"
    start = everything.min()
    end = np.quantile(everything, 0.99) if is_long else everything.max()
    assert (everything.max() > 1.5 * end) == is_long
    edges = np.linspace(start, end, 41)
    for (steps, marks), numbers in zip(places_in(page), (few, many), strict=True):
        ground, left, right = steps[0, 1], steps[0, 0], steps[-1, 0]
        wanted = [numbers.mean()] if truth is None else [numbers.mean(), truth]
        found = [start + (x - left) / (right - left) * (end - start) for _, x in marks]
        assert found == pytest.approx(wanted, rel=1e-3)
        dashes.add(tuple(dash for dash, _ in marks))
        tops = ground - steps[1:-1].reshape(-1, 2, 2)[:, 0, 1]
        areas.append(tops.sum())
        counts = tops / tops.sum() * len(numbers)
        assert len(counts) == 40
        for i in (0, 10, 39):
            above = numbers < (edges[i + 1] if i < 39 else np.inf)
            assert counts[i] == pytest.approx(((edges[i] <= numbers) & above).sum(), abs=0.01)
    assert areas[0] / areas[1] == pytest.approx(10 / 200, rel=1e-3)
    (marked,) = dashes
    assert len({*marked}) == len(marked)
    label = "x (last bar: all larger ones)" if is_long else "x"
    assert {"T: few", "T: many", label} <= {*words_in(page)}


@pytest.mark.parametrize("numbers", [[0, 0, 0], [-3, -3], [-1, -5], [5], [0] * 300 + [7]], ids=str)
def test_any_numbers_make_a_histogram(numbers):
    picture = draw_histograms({"a": numbers})
    assert page_of(picture).get("aria-label").startswith(f"a: {len(numbers)} numbers with mean")


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        (lambda: draw_bars([0.5, -1 / 3], title="w"), "w: 0 is 0.5, 1 is −0.33333"),
        (lambda: draw_bars({"a": 1e7, "b": 2}, title="w"), "w: a is 1e7, b is 2"),
        (lambda: draw_bars([3, 4], ["x", 7], title="w"), "w: x is 3, 7 is 4"),
        (lambda: draw_bars([1] * 12, title="w"), "w: " + ", ".join(f"{i} is 1" for i in range(12))),
        (
            lambda: draw_bars([1] * 13, title="w"),
            "w: " + ", ".join(f"{i} is 1" for i in range(12)) + ", …",
        ),
        (
            lambda: draw_lines({"a": [2, 5, -2 / 3], "b": [7]}, title="r"),
            "r: a goes from 2 to −0.66667 in 2 steps, b goes from 7 to 7 in 0 steps",
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


def sketch_bars(axes, seed):
    values = np.random.default_rng(seed).normal(0, 10, (2, 3 + seed))
    for one, row in zip(axes, values, strict=True):
        add_bars(one, {"named" if seed % 2 else "": row}, [f"{seed}.{i}" for i in range(len(row))])
        one.set(title=f"T{seed}", xlabel=f"X{seed}", ylabel=f"Y{seed}")


def sketch_lines(axes, seed):
    values = np.random.default_rng(seed).normal(0, 10**seed, (2, 2, 4 + seed))
    for one, rows in zip(axes, values, strict=True):
        add_lines(one, {"a": rows[0], "b": rows[1]} if seed % 2 else {"a": rows[0]})
        one.plot(rows[1], "o", color=GREY, label="dots" if seed > 2 else None)
        one.set(title=f"T{seed}", xlabel=f"X{seed}", xlim=(-seed, 4 + seed))
        if seed > 1:
            one.set_ylim(0, seed)


def sketch_histograms(axes, seed):
    values = np.random.default_rng(seed).exponential(10**seed, (2, 50 * (seed + 1)))
    truth = seed if seed % 2 else None
    add_histograms(axes, dict(zip("ab", values, strict=True)), truth=truth, x=f"X{seed}")
    for one in axes:
        one.set_title(f"T{seed}")


SKETCHES = [sketch_bars, sketch_lines, sketch_histograms]


def sketched(plot, sketch, seed):
    with plot.anew() as axes:
        sketch(axes, seed)
    return plot.picture("words").svg


@pytest.mark.parametrize("sketch", SKETCHES)
def test_a_plot_drawn_anew_keeps_nothing_of_what_was_drawn_before(sketch):
    used, wanted = Plot(2), {seed: sketched(Plot(2), sketch, seed) for seed in range(4)}
    for seed in (0, 1, 2, 3, 1, 0, 0):
        assert sketched(used, sketch, seed) == wanted[seed]
    assert used.picture("words").svg == wanted[0]
    assert len({*wanted.values()}) == 4


@pytest.mark.parametrize("sketch", SKETCHES)
def test_a_plot_that_failed_halfway_starts_clean(sketch):
    plot = Plot(2)
    with pytest.raises(ZeroDivisionError), plot.anew() as axes:
        sketch(axes, 3)
        raise ZeroDivisionError
    assert sketched(plot, sketch, 1) == sketched(Plot(2), sketch, 1)


@pytest.mark.parametrize("sketch", SKETCHES)
def test_a_plot_does_not_grow(sketch):
    plot, sizes = Plot(2), set()
    for seed in (1, 3, 1, 3, 1):
        sketched(plot, sketch, seed)
        if seed == 1:
            sizes.add((len(plot.figure.findobj()), len(plot.figure.legends)))
    ((artists, _),) = sizes
    assert artists > 20


def test_a_plot_is_as_large_as_it_is_asked_to_be():
    page = page_of(Plot(3, width=1000, height=330).picture(""))
    assert page.get("viewBox") == "0 0 750 247.5"  # 96 pixels, 72 points to the inch
    assert [page.get("width"), page.get("height")] == ["750pt", "247.5pt"]
    assert len([e for e in page.iter() if e.get("class", "").startswith("axes_")]) == 3


@every_picture
@pytest.mark.parametrize("ending", ["svg", "html"])
def test_a_saved_plot_is_the_same_on_its_own(tmp_path, name, ending):
    picture = DRAWN[name](text='one < "two"\nmore')
    file = picture.save(tmp_path / f"plot.{ending}").read_text(encoding="utf-8")
    drawing = file
    if ending == "html":
        assert file.startswith("<!doctype html>")
        assert "<title>one &lt; &quot;two&quot;</title>" in file
        drawing = re.search("<svg.*</svg>", file, re.DOTALL)[0]
    found = ElementTree.fromstring(drawing)
    assert "color-scheme:light dark;background:Canvas" in found.attrib.pop("style")
    assert ElementTree.tostring(found) == ElementTree.tostring(page_of(picture))
    assert found.get("aria-label") == 'one < "two" more'


@pytest.mark.parametrize("labels", [["a"], "abc"], ids=str)
def test_as_many_labels_as_bars_are_asked_for(labels):
    with pytest.raises(ValueError, match=r"\d"):
        draw_bars([1, 2], labels)


def test_every_curve_starts_and_ends_in_words_where_it_does_in_the_picture():
    series = {"a": NOISE[0], "b": NOISE[1, :9]}
    for name, values in series.items():
        told = f"{name} goes from {five_digits(values[0])} to {five_digits(values[-1])} in "
        assert f"{told}{len(values) - 1} steps" in draw_lines(series).text


@pytest.mark.parametrize(
    "setting",
    [{"savefig.bbox": "tight"}, {"lines.marker": "o"}, {"font.family": ["serif"]}],
    ids=str,
)
def test_what_a_reader_has_set_for_other_plots_stays_out(setting):
    plain = [draw().svg for draw in DRAWN.values()]
    with matplotlib.rc_context(setting):
        assert [draw().svg for draw in DRAWN.values()] == plain


def test_sixteen_series_differ_in_colour_or_dash():
    page = page_of(draw_lines({f"s{i}": [i, i + 1] for i in range(16)}))
    looks = [style_of(path) for path in curves_in(page)]
    assert len({(look["stroke"], look.get("stroke-dasharray")) for look in looks}) == 16


def test_a_dollar_is_a_dollar():
    page = page_of(draw_bars({"$5": 1, "$6": 2}, title=r"$\foo$"))
    assert {"$5", "$6", r"$\foo$"} <= {*words_in(page)}


@pytest.mark.parametrize(
    ("draw", "rule"),
    [
        (lambda: draw_bars([]), "values must be finite numbers"),
        (lambda: draw_bars([1, float("nan")]), r"one at least: got \[1, nan\]"),
        (lambda: draw_bars([1, 2], ["one"]), "labels must be as many as values, 2: got 1"),
        (lambda: draw_lines({"loss": []}), "loss must be finite numbers"),
        (lambda: draw_histograms({"few": [float("inf")]}), "few must be finite numbers"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(draw, rule):
    with pytest.raises(ValueError, match=rule):
        draw()


def test_a_name_of_several_lines_is_read_as_one():
    assert page_of(draw_bars([1], text="a\n\x00b")).get("aria-label") == "a b"
