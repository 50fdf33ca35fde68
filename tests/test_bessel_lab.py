"""The Bessel lab says what NumPy's two variances are, at every position of its controls."""

import re
import runpy
from html import unescape
from itertools import product
from math import sqrt
from random import Random
from xml.etree import ElementTree

import ipywidgets as widgets
import numpy as np
import pytest

from normviz import labs
from normviz.labs import bessel
from normviz.labs.bessel import DISTRIBUTIONS, DRAWS, BesselSetting, view_bessel
from normviz.labs.lab import View
from normviz.picture import Picture
from normviz.plots import Plot

KURTOSIS = {"normal": 3, "uniform": 1.8, "skewed": 9}
SEED = 7
ALL = np.random.default_rng(SEED).normal(5, 3, size=(10_000, 30))
NUMBER = r"([−\d.]+(?:e−?\d+)?)"
RULE = 'role="alert"'

every_distribution = pytest.mark.parametrize("distribution", KURTOSIS)


@pytest.fixture
def unseen(monkeypatch):
    """Spare the time to write the pictures; what is on the axes stays there to be read."""
    monkeypatch.setattr(Plot, "picture", lambda plot, text: Picture("", text))


@pytest.fixture(scope="module")
def plot():
    return Plot(2)


@pytest.fixture
def known(monkeypatch):
    """A distribution whose samples are the first rows and columns of ALL, if they are stable."""

    def draw(rng, size):
        return np.random.default_rng(SEED).normal(5, 3, size=size)

    monkeypatch.setitem(DISTRIBUTIONS, "known", draw)
    bessel._samples.cache_clear()
    yield "known"
    bessel._samples.cache_clear()


def plain(html):
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


def numbers_in(words, pattern):
    found = re.search(pattern, words)
    assert found, (pattern, words)
    return [float(text.replace("−", "-")) for text in found.groups()]


def told_in(words):
    """The mean of the biased variances, and that of the unbiased ones."""
    biased = rf"biased variances have mean {NUMBER}, the unbiased ones {NUMBER}; the truth is 1"
    return numbers_in(words, biased)


def variances_of(m, draws):
    samples = ALL[:draws, :m]
    return samples.var(axis=1), samples.var(axis=1, ddof=1)


def setting_of(lab):
    return BesselSetting(lab.m.value, lab.draws.value, lab.distribution.value)


def assert_true_to_numpy(lab):
    assert lab.distribution.value == "known"
    wanted = [values.mean() for values in variances_of(lab.m.value, lab.draws.value)]
    assert RULE not in lab.readout.value
    assert told_in(plain(lab.readout.value)) == pytest.approx(wanted, rel=6e-5)


@pytest.mark.parametrize("draws", [10, 2000, 10_000])
@pytest.mark.parametrize("m", [2, 3, 30])
def test_the_words_and_the_histograms_are_true_to_numpy(unseen, plot, known, m, draws):
    view = view_bessel(BesselSetting(m, draws, known), plot)
    variances, words = variances_of(m, draws), plain(view.words)
    wanted = [values.mean() for values in variances]
    assert told_in(words) == pytest.approx(wanted, rel=6e-5)
    assert told_in(view.pictures[0].text) == pytest.approx(wanted, rel=6e-5)
    assert f"Samples of m = {m} numbers, {draws:,} of them." in words
    factors = numbers_in(words, rf"\(m − 1\) / m = {NUMBER}\. .* m / \(m − 1\) = {NUMBER}\.$")
    assert factors == pytest.approx([(m - 1) / m, m / (m - 1)], rel=6e-5)

    names = ("biased: divided by m", "unbiased: divided by m − 1")
    for axes, values, name in zip(plot.axes, variances, names, strict=True):
        (bars,) = axes.patches
        counts, edges, _ = bars.get_data()
        assert counts.sum() == draws
        for i in (0, 5, 20):
            inside = (edges[i] <= values) & (values < edges[i + 1])
            assert counts[i] == inside.sum()
        marks = {line.get_label(): line.get_xdata()[0] for line in axes.lines}
        assert marks == pytest.approx({"mean of them": values.mean(), "truth": 1})
        assert axes.get_title("left") == name
        assert "variance of a sample" in axes.get_xlabel()
    assert plot.axes[0].get_ylim() == plot.axes[1].get_ylim()
    assert plot.axes[0].get_xlim() == pytest.approx(plot.axes[1].get_xlim())
    assert [*plot.axes[0].patches[0].get_data().edges] == [*edges]


@every_distribution
def test_every_distribution_has_variance_one(distribution):
    count = 200_000
    numbers = DISTRIBUTIONS[distribution](np.random.default_rng(1), count)
    assert numbers.shape == (count,)
    assert abs(numbers.var() - 1) < 4 * sqrt((KURTOSIS[distribution] - 1) / count)
    normalized = (numbers - numbers.mean()) / numbers.std()
    assert np.mean(normalized**4) == pytest.approx(KURTOSIS[distribution], rel=0.08)
    assert np.mean(normalized**3) == pytest.approx(2 * (distribution == "skewed"), abs=0.1)


SIZES = [("normal", m) for m in range(2, 31)]
SIZES += [(distribution, m) for distribution in ("uniform", "skewed") for m in (2, 3, 10, 30)]


@pytest.mark.parametrize(("distribution", "m"), SIZES)
def test_only_the_unbiased_variance_is_right_on_average(unseen, plot, distribution, m):
    draws = 10_000
    view = view_bessel(BesselSetting(m, draws, distribution), plot)
    biased, unbiased = told_in(plain(view.words))
    error = sqrt((KURTOSIS[distribution] - (m - 3) / (m - 1)) / m / draws)
    assert abs(unbiased - 1) < 4 * error
    assert abs(biased - (m - 1) / m) < 4 * error * (m - 1) / m
    assert unbiased - biased == pytest.approx(unbiased / m, abs=1e-4)


@every_distribution
def test_every_session_shows_the_same_numbers_and_leaves_the_random_numbers_of_others(
    distribution,
):
    before = np.random.get_state()[1].tolist()
    fresh = runpy.run_path(bessel.__file__)["bessel_lab"](distribution=distribution)
    assert np.random.get_state()[1].tolist() == before
    lab = labs.bessel_lab(distribution=distribution)
    assert fresh.readout.value == lab.readout.value
    assert fresh.picture.value == lab.picture.value


def test_a_lab_opens_where_it_is_asked_to():
    assert setting_of(labs.bessel_lab(5, 100, "skewed")) == BesselSetting(5, 100, "skewed")
    assert setting_of(labs.bessel_lab()) == BesselSetting(3, 2000, "normal")


@pytest.mark.parametrize("draws", [0, 1, 9, 3000, 10.5, "100", None, -10, True])
def test_another_number_of_draws_is_refused_with_the_known_ones(draws):
    rule = r"draws must be one of 10, 100, 1000, 2000, 5000, 10000: got .*" + re.escape(repr(draws))
    with pytest.raises(ValueError, match=rule):
        labs.bessel_lab(draws=draws)


@pytest.mark.parametrize("distribution", ["cauchy", "Normal", "", None, 0])
def test_another_distribution_is_refused_with_the_known_ones(distribution):
    rule = r"distribution must be one of normal, uniform, skewed: got " + repr(distribution)
    with pytest.raises(ValueError, match=rule):
        labs.bessel_lab(distribution=distribution)


def test_every_control_moves_the_words(unseen, known):
    lab = labs.bessel_lab(distribution=known)
    assert [value for _, value in lab.draws.options] == [*DRAWS]
    assert [*lab.distribution.options] == [*KURTOSIS, known]
    seen = [lab.readout.value]
    for control, value in (
        (lab.m, 2),
        (lab.m, 30),
        (lab.draws, 10),
        (lab.draws, 10_000),
        (lab.m, 5),
    ):
        control.value = value
        assert_true_to_numpy(lab)
        assert lab.readout.value not in seen
        seen.append(lab.readout.value)
    for distribution in KURTOSIS:
        lab.distribution.value = distribution
        assert lab.readout.value not in seen
        seen.append(lab.readout.value)
    lab.distribution.value = known
    assert_true_to_numpy(lab)


def test_the_picture_follows_the_controls_and_carries_the_words(known):
    lab = labs.bessel_lab(distribution=known)
    for m in (2, 30):
        lab.m.value = m
        wanted = [values.mean() for values in variances_of(m, 2000)]
        (svg,) = ElementTree.fromstring(lab.picture.value).findall(".//*[@role='img']")
        assert told_in(svg.get("aria-label")) == pytest.approx(wanted, rel=6e-5)
        texts = {text.strip() for text in svg.itertext()}
        assert {"biased: divided by m", "unbiased: divided by m − 1"} <= texts


def test_one_number_in_a_sample_shows_the_rule_and_the_lab_goes_on(known):
    lab = labs.bessel_lab(distribution=known)
    before = lab.readout.value, lab.picture.value
    lab.m.value = 1
    assert RULE in lab.readout.value
    assert "m must be at least 2" in plain(lab.readout.value)
    assert "Traceback" not in lab.readout.value + lab.picture.value
    assert "<svg" not in lab.picture.value
    assert (lab.still().words, lab.still().body) == (lab.readout.value, lab.picture.value)
    lab.draws.value = 10
    assert RULE in lab.readout.value
    lab.m.value = 2
    assert_true_to_numpy(lab)
    lab.m.value, lab.draws.value = 3, 2000
    assert (lab.readout.value, lab.picture.value) == before


@pytest.mark.parametrize("setting", [(3, 2000, "normal"), (30, 10, "skewed"), (1, 100, "uniform")])
def test_the_lab_standing_still_is_what_its_widgets_show(setting):
    lab = labs.bessel_lab(*setting)
    still = lab.still()
    assert isinstance(still, View)
    assert (still.words, still.body) == (lab.readout.value, lab.picture.value)
    assert still._repr_html_() == lab.readout.value + lab.picture.value
    assert repr(still).startswith(plain(lab.readout.value))
    if setting[0] > 1:
        assert told_in(repr(still).splitlines()[0]) == told_in(repr(still).splitlines()[1])


def test_every_move_draws_once_at_its_end(monkeypatch):
    lab, drawn, view = labs.bessel_lab(), [], View("words")
    monkeypatch.setattr(bessel, "view_bessel", lambda setting, plot: drawn.append(setting) or view)
    for control, value in (
        (lab.m, 5),
        (lab.m, 1),
        (lab.draws, 10),
        (lab.distribution, "uniform"),
    ):
        control.value = value
        assert drawn == [setting_of(lab)]
        drawn.clear()


@pytest.mark.parametrize("move", [{"m": 9}, {"draws": 10}, {"distribution": "uniform"}], ids=str)
def test_an_unexpected_error_is_shown_and_the_lab_goes_on(monkeypatch, known, move):
    def fail(setting, plot):
        raise RuntimeError("<no> such thing")

    lab = labs.bessel_lab(distribution=known)
    ((name, value),) = move.items()
    with monkeypatch.context() as broken:
        broken.setattr(bessel, "view_bessel", fail)
        getattr(lab, name).value = value
        assert RULE in lab.readout.value
        assert "RuntimeError: &lt;no&gt; such thing" in lab.picture.value
    lab.distribution.value, lab.m.value = known, 4
    assert_true_to_numpy(lab)
    assert "RuntimeError" not in lab.picture.value


def controls_in(box):
    for child in box.children:
        if isinstance(child, widgets.Box):
            yield from controls_in(child)
        elif not isinstance(child, widgets.HTML):
            yield child


def test_every_control_has_a_name_of_its_own():
    lab = labs.bessel_lab()
    names = [control.description.strip() for control in controls_in(lab)]
    assert {*controls_in(lab)} == {lab.m, lab.draws, lab.distribution}
    assert all(names)
    assert len({*names}) == len(names) == 3


def test_nothing_below_the_picture_moves(unseen):
    lab, heights = labs.bessel_lab(), set()
    for m, draws in product((1, 2, 30), (10, 10_000)):
        lab.m.value, lab.draws.value = m, draws
        heights.add((lab.readout.layout.height, lab.picture.layout.height))
    ((readout, picture),) = heights
    assert re.fullmatch(r"\d+px", readout)
    assert re.fullmatch(r"\d+px", picture)


def test_60_random_moves_leave_no_error(unseen, known):
    lab, random = labs.bessel_lab(distribution=known), Random(0)
    for _ in range(60):
        control = random.choice([lab.m, lab.m, lab.draws, lab.distribution])
        control.value = {
            lab.m: random.randint(1, 30),
            lab.draws: random.choice(DRAWS),
            lab.distribution: random.choice([*DISTRIBUTIONS, known, known]),
        }[control]
        assert "Traceback" not in lab.picture.value
        if lab.m.value == 1:
            assert RULE in lab.readout.value
        elif lab.distribution.value == known:
            assert_true_to_numpy(lab)
        else:
            assert RULE not in lab.readout.value
