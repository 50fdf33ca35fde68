"""Biased and unbiased variance of many small samples, against the truth."""

from dataclasses import dataclass
from functools import cache, cached_property

import ipywidgets as widgets
import numpy as np

from normviz.labs.lab import Lab, RuleBroken, View, check_choice, opener, slider
from normviz.plots import Plot, add_histograms
from normviz.reduction import Reduction
from normviz.words import five_digits

LARGEST_SAMPLE = 30
DRAWS = (10, 100, 1000, 2000, 5000, 10_000)
# Each with variance 1, so that the estimates can be read as shares of the truth.
DISTRIBUTIONS = {
    "normal": lambda rng, size: rng.normal(size=size),
    "uniform": lambda rng, size: rng.uniform(-(3**0.5), 3**0.5, size=size),
    "skewed": lambda rng, size: rng.exponential(size=size),
}


@dataclass(frozen=True)
class BesselSetting:
    """Where the controls of a Bessel lab stand."""

    m: int = 3
    draws: int = 2000
    distribution: str = "normal"

    def __post_init__(self):
        check_choice("draws", self.draws, DRAWS)
        check_choice("distribution", self.distribution, DISTRIBUTIONS)


def view_bessel(setting: BesselSetting, plot: Plot) -> View:
    """The histograms of both variances, drawn on the plot.

    Raises:
        RuleBroken: if a sample is a single number.
    """
    m = setting.m
    if m == 1:
        raise RuleBroken(
            "m must be at least 2: one number is its own mean, so its squared distance is 0, and "
            "dividing by m - 1 would be 0 / 0. In training, BatchNorm refuses such a channel."
        )
    samples = _samples(setting.distribution)[: setting.draws, :m]
    per_sample = Reduction("s m -> s")
    variances = {
        "biased: divided by m": per_sample.var(samples),
        "unbiased: divided by m − 1": per_sample.var(samples, correction=1),
    }
    biased, unbiased = (float(np.mean(values)) for values in variances.values())
    with plot.anew() as axes:
        add_histograms(axes, variances, truth=1, x="variance of a sample")
        for column, name in zip(axes, variances, strict=True):
            column.set_title(name)
    text = (
        f"The biased variances have mean {five_digits(biased)}, the unbiased ones "
        f"{five_digits(unbiased)}; the truth is 1"
    )
    words = (
        f"<p><b>Samples of m = {m} numbers, {setting.draws:,} of them.</b> {text}.<br>"
        f"Expected of the biased ones: (m − 1) / m = {five_digits((m - 1) / m)}. "
        f"Bessel's factor: m / (m − 1) = {five_digits(m / (m - 1))}.</p>"
    )
    return View(words, (plot.picture(text),))


@cache
def _samples(distribution: str) -> np.ndarray:
    """A sample a row. A slider shows more or fewer of these numbers, never others."""
    rng = np.random.default_rng(0)
    return DISTRIBUTIONS[distribution](rng, (DRAWS[-1], LARGEST_SAMPLE))


class BesselLab(Lab):
    """An explorer: draw many samples, and see what their two variances are on average.

    Each control can be set and read by the ``value`` of ``m``, ``draws`` and ``distribution``.

    Args:
        m: how many numbers a sample has, 1 to 30.
        draws: how many samples there are: 10, 100, 1000, 2000, 5000 or 10,000.
        distribution: what they are drawn from, always with variance 1: ``"normal"``,
            ``"uniform"`` or ``"skewed"`` (exponential).

    Raises:
        ValueError: for another number of draws, another distribution, or an m out of range.

    >>> lab = bessel_lab(m=2)
    >>> print(lab.still())  # doctest: +ELLIPSIS
    Samples of m = 2 numbers, 2,000 of them. ...
    """

    Setting, view_of = BesselSetting, staticmethod(view_bessel)
    _plot = cached_property(lambda _: Plot(2, width=900, height=330))

    def __init__(self, setting: BesselSetting):
        self.m = slider("m, numbers in a sample", setting.m, 1, LARGEST_SAMPLE)
        self.draws = widgets.SelectionSlider(
            options=[(f"{n:,}", n) for n in DRAWS], value=setting.draws, description="samples"
        )
        self.distribution = widgets.Dropdown(
            options=[*DISTRIBUTIONS], value=setting.distribution, description="drawn from"
        )
        super().__init__([self.m], [self.draws, self.distribution], picture_height=350)
        self.draw_on(self.m, self.draws, self.distribution)


bessel_lab = opener(BesselLab, "bessel_lab")
