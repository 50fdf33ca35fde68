"""The Bessel lab says what NumPy's two variances are, at every position of its controls."""

import re
import runpy
from math import sqrt
from xml.etree import ElementTree

import numpy as np
import pytest
from reading import NUMBER, numbers_in, plain

from normviz import labs
from normviz.labs import bessel
from normviz.labs.bessel import DISTRIBUTIONS, DRAWS, BesselSetting, view_bessel
from normviz.plots import Plot

KURTOSIS = {"normal": 3, "uniform": 1.8, "skewed": 9}
SEED = 7
ALL = np.random.default_rng(SEED).normal(5, 3, size=(10_000, 30))
RULE = 'role="alert"'

every_distribution = pytest.mark.parametrize("distribution", KURTOSIS)


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
    lab.draws.value = 10
    assert RULE in lab.readout.value
    lab.m.value = 2
    assert_true_to_numpy(lab)
    lab.m.value, lab.draws.value = 3, 2000
    assert (lab.readout.value, lab.picture.value) == before


@pytest.mark.parametrize("m", [0, 31, 2.5])
def test_an_m_that_the_slider_does_not_reach_is_refused(m):
    with pytest.raises(ValueError, match=f"m must be what its control can hold: got {m}"):
        labs.bessel_lab(m=m)
