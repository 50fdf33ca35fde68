"""The Bessel lab says what NumPy's two variances are, at every position of its controls."""

from math import sqrt

import numpy as np
import pytest
from reading import numbers_in, plain, spoken

from normviz import labs
from normviz.labs import bessel
from normviz.labs.bessel import DISTRIBUTIONS, BesselSetting, view_bessel
from normviz.plots import Plot

KURTOSIS = {"normal": 3, "uniform": 1.8, "skewed": 9}
SEED = 7
ALL = np.random.default_rng(SEED).normal(5, 3, size=(10_000, 30))

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
    means = "biased variances have mean #, the unbiased ones #; the truth is 1"
    return numbers_in(means, words)


def variances_of(m, draws):
    samples = ALL[:draws, :m]
    return samples.var(axis=1), samples.var(axis=1, ddof=1)


@pytest.mark.parametrize("draws", [10, 2000, 10_000])
@pytest.mark.parametrize("m", [2, 3, 30])
def test_the_words_and_the_histograms_are_true_to_numpy(unseen, plot, known, m, draws):
    view = view_bessel(BesselSetting(m, draws, known), plot)
    variances, words = variances_of(m, draws), plain(view.words)
    wanted = [values.mean() for values in variances]
    assert told_in(words) == pytest.approx(wanted, rel=6e-5)
    assert told_in(view.pictures[0].text) == pytest.approx(wanted, rel=6e-5)
    assert f"Samples of m = {m} numbers, {draws:,} of them." in words
    factors = numbers_in(r"\(m − 1\) / m = #\. .* m / \(m − 1\) = #\.$", words)
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


@every_distribution
@pytest.mark.parametrize("m", [2, 3, 10, 30])
def test_only_the_unbiased_variance_is_right_on_average(unseen, plot, distribution, m):
    draws = 10_000
    view = view_bessel(BesselSetting(m, draws, distribution), plot)
    biased, unbiased = told_in(plain(view.words))
    error = sqrt((KURTOSIS[distribution] - (m - 3) / (m - 1)) / m / draws)
    assert abs(unbiased - 1) < 4 * error
    assert abs(biased - (m - 1) / m) < 4 * error * (m - 1) / m
    assert unbiased - biased == pytest.approx(unbiased / m, abs=1e-4)


def test_a_lab_opens_on_samples_of_three():
    assert labs.bessel_lab().read() == BesselSetting(3, 2000, "normal")


def test_the_picture_follows_the_controls_and_carries_the_words(known):
    lab = labs.bessel_lab(distribution=known)
    for m in (2, 30):
        lab.m.value = m
        wanted = [values.mean() for values in variances_of(m, 2000)]
        assert told_in(spoken(lab)) == pytest.approx(wanted, rel=6e-5)
        for title in ("biased: divided by m", "unbiased: divided by m − 1"):
            assert f">{title}<" in lab.picture.value
