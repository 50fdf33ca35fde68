"""Ink: plots are drawn in that of the page, whatever is set for other figures, in any thread."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import matplotlib
import numpy as np
import pytest
from cycler import cycler
from matplotlib import pyplot
from matplotlib.patheffects import withStroke
from matplotlib.style import library
from reading import SVG, contrast, page_of, shown, style_of

from normviz import labs
from normviz.ink import line_style
from normviz.plots import COLOURS, GREY, Plot, add_bars, add_histograms, add_lines

PAGE = "currentColor"  # the ink of the page


def drawn(plot, seed):
    """Lines or a histogram, and bars beside them: for each seed others."""
    rng = np.random.default_rng(seed)
    series = {name: rng.normal(5000, size=9 + 200 * seed) * 1000.0**seed for name in "abc"}
    labels = [f"{seed}.{i}" for i in range(4 + seed)]
    with plot.anew() as [left, right]:
        if seed == 2:
            add_histograms([left], {"": series["a"] ** 2}, truth=seed, x="")
        else:
            add_lines(left, series)
            left.plot(series["b"], **line_style(GREY, width=0, dot=4), label=f"dots {seed}")
        add_bars(right, {"": rng.normal(size=len(labels)), "other": [1] * len(labels)}, labels)
        right.axhline(0, **line_style(GREY, width=1))
        right.set_xlim(-seed, len(labels))
        for axes in (left, right):
            axes.set(title=f"T$_{seed}$", xlabel=f"X-{seed}", ylabel="Y" if seed else "")
    return plot.picture(f"words {seed}")


@cache
def drawn_before():
    return [drawn(Plot(2), seed) for seed in range(3)]


# The page


@pytest.mark.parametrize("seed", range(3))
def test_the_ink_is_that_of_the_page_and_there_is_no_paper(seed):
    page = page_of(drawn_before()[seed])
    styles = [style_of(e) for e in shown(page) if e.tag == f"{SVG}path"]
    fills, strokes = ({s.get(part, "none") for s in styles} for part in ("fill", "stroke"))
    assert fills <= {"none", GREY, *COLOURS}
    assert strokes <= {"none", PAGE, GREY, *COLOURS}
    assert all("fill" in style for style in styles)  # by default, it is black
    assert not re.search("#000000|#fff|black|white|010203", drawn_before()[seed].svg)
    rules = dict(re.findall(r"([^{}\n]+)\{(.*?)\}", page.find(f"{SVG}style").text))
    assert f"fill:{PAGE}" in rules[".nv-plot text"]
    # Nothing of that is seen by the rest of the page.
    assert all(selector.split()[0] == f".{page.get('class')}" for selector in rules)
    assert len([*page.iter(f"{SVG}style")]) == 1


@pytest.mark.parametrize("paper", ["ffffff", "000000"])
def test_every_series_stands_out_from_light_and_from_dark_paper(paper):
    for colour in (*COLOURS, GREY):
        assert contrast(bytes.fromhex(colour[1:]), bytes.fromhex(paper)) >= 3


def test_a_plot_may_stand_twice_on_a_page_and_has_no_more_digits_than_can_be_seen():
    for picture in [*drawn_before(), labs.gradient_lab().view().pictures[0]]:
        assert not re.search(r' id="|url\(|href', picture.svg)
        assert not re.search(r' (d|x|y)="[^"]*\.\d{3}', picture.svg)


# What was drawn before, and what is set


def test_a_plot_drawn_anew_keeps_nothing_of_what_was_drawn_before():
    used, artists = Plot(2), set()
    for seed in (0, 1, 2, 1, 0, 0, 1, 0):
        assert drawn(used, seed) == drawn_before()[seed]
        artists |= {len(used.figure.findobj())} if seed == 1 else set()
    assert used.picture("words 0") == drawn_before()[0]
    assert len(artists) == 1


def test_a_plot_that_failed_halfway_starts_clean():
    plot = Plot(2)
    with pytest.raises(ZeroDivisionError), plot.anew() as [axes, _]:
        add_lines(axes, {"a": [1, 1000]})
        raise ZeroDivisionError
    assert drawn(plot, 1) == drawn_before()[1]


STYLES = ("dark_background", "ggplot", "seaborn-v0_8-talk", "fivethirtyeight", "Solarize_Light2")
SETTINGS = {name: library[name] for name in STYLES}
SETTINGS["letters"] = {"font.size": 30, "font.family": "serif", "font.weight": "bold"}
SETTINGS["TeX"] = {"text.usetex": True, "text.parse_math": True, "svg.fonttype": "path"}
SETTINGS["sketch"] = {"path.sketch": (1, 100, 2), "path.effects": [withStroke(linewidth=4)]}
SETTINGS["cycle"] = {"axes.prop_cycle": cycler(marker=["x"], linestyle=[":"], alpha=[0.5])}
OTHERS = """
axes.titlelocation:right axes.titley:0.5 axes.titlepad:20 axes.xmargin:0.3 axes.grid.axis:y
xaxis.labellocation:left yaxis.labellocation:top axes.unicode_minus:False
axes.formatter.limits:-1,1 axes.formatter.offset_threshold:1 axes.formatter.use_mathtext:True
figure.constrained_layout.use:True figure.subplot.top:0.6 figure.subplot.wspace:0.9
hatch.color:red hatch.linewidth:5 patch.force_edgecolor:True patch.linewidth:5
legend.loc:center legend.numpoints:3 legend.shadow:True legend.columnspacing:9
lines.dashed_pattern:9,9 lines.scale_dashes:False lines.dash_capstyle:round
lines.solid_capstyle:round lines.dash_joinstyle:bevel lines.solid_joinstyle:bevel
lines.markerfacecolor:red lines.markeredgewidth:5 markers.fillstyle:none
xtick.alignment:left xtick.direction:in xtick.minor.visible:True
ytick.alignment:top ytick.direction:in ytick.right:True
grid.alpha:1 grid.linewidth:9 path.simplify:False svg.hashsalt:mine svg.id:mine
"""
SETTINGS["others"] = dict(pair.split(":") for pair in OTHERS.split())


@pytest.mark.parametrize("name", SETTINGS)
def test_what_a_reader_has_set_for_other_figures_stays_out(name):
    used, wanted = Plot(2), drawn_before()
    with matplotlib.rc_context(SETTINGS[name]):
        fresh = Plot(2)
        assert [drawn(fresh, seed) for seed in range(3)] == wanted
        assert drawn(used, 1) == wanted[1]
    assert drawn(fresh, 1) == wanted[1]


@pytest.mark.slow
def test_threads_draw_as_one_does_and_leave_a_readers_figures_alone():
    def figure():
        made, axes = pyplot.subplots()
        axes.plot([1, 3, 2], label="mine")
        axes.set_title(r"$\mu$ of a reader")
        made.canvas.draw()
        pixels = bytes(made.canvas.buffer_rgba())
        pyplot.close(made)
        return pixels

    def draw(_):
        plot = Plot(2)
        return [drawn(plot, seed) for seed in range(3)]

    pyplot.switch_backend("agg")
    alone, before = figure(), matplotlib.rcParams.copy()
    with ThreadPoolExecutor(8) as threads:
        plots = threads.map(draw, range(8))
        figures = [figure() for _ in range(12)]
        assert all(plot == drawn_before() for plot in plots)
    assert {*figures} == {alone}
    assert matplotlib.rcParams.copy() == before


SESSION = """
import sys
from matplotlib import RcParams, rcParams
def refuse(*_): raise AssertionError("a setting was written")
RcParams.__setitem__ = RcParams._set = refuse
from normviz import labs
for lab in (labs.momentum_lab, labs.bessel_lab, labs.linearity_lab):
    print(lab().still().body)
sys.exit("matplotlib.pyplot" in sys.modules)
"""


@pytest.mark.slow
def test_another_session_draws_the_same_bytes_without_pyplot_and_writes_no_settings():
    run = [sys.executable, "-W", "error", "-c", SESSION]
    found = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    here = (labs.momentum_lab, labs.bessel_lab, labs.linearity_lab)
    assert found == "".join(f"{lab().still().body}\n" for lab in here)
