"""The backward pass of a normalization layer: three terms that add up to dx."""

from dataclasses import dataclass
from functools import cached_property
from math import floor, log10

import ipywidgets as widgets
import numpy as np

from normviz.ink import INK, line_style
from normviz.labs.lab import (
    LONGEST,
    Lab,
    RuleBroken,
    View,
    buttons,
    check_choice,
    eps_slider,
    opener,
    slider,
    train_or_eval,
    vector_field,
    vector_in_words,
)
from normviz.plots import Plot, add_bars
from normviz.words import five_digits

RUNNING_MEAN, RUNNING_VAR = 2.0, 4.0  # of BatchNorm, from earlier training
ROUNDING = 1e-12  # what is smaller, beside the terms that were added, is 0
LAYERS = ("BatchNorm1d", "LayerNorm", "RMSNorm")
TERMS = DIRECT, MEAN, PROJECTION = "γ·g / σ", "− mean(γ·g) / σ", "− x̂ · mean(γ·g·x̂) / σ"


@dataclass(frozen=True)
class GradientSetting:
    """Where the controls of a gradient lab stand."""

    layer: str = "BatchNorm1d"
    x: tuple[float, ...] = (1.0, 2.0, 6.0)
    g: tuple[float, ...] = (1.0, 0.0, 0.0)
    weight: float = 1.0
    eps: float = 1e-5
    training: bool = True
    detached: bool = False

    def __post_init__(self):
        check_choice("layer", self.layer, LAYERS)
        for name in ("training", "detached"):
            check_choice(name, getattr(self, name), (True, False))
        for name in ("x", "g"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))

    @property
    def centred(self) -> bool:
        """Whether a mean is subtracted."""
        return self.layer != "RMSNorm"

    @property
    def stored(self) -> bool:
        """Whether the statistics are running ones, which x does not move."""
        return self.layer == "BatchNorm1d" and not self.training


@dataclass(frozen=True)
class Backward:
    """The backward pass of one slice."""

    sigma: float  # the root of the variance (or of the mean square) and ε
    normalized: np.ndarray  # x̂
    upstream: np.ndarray  # γ·g
    terms: dict[str, np.ndarray]  # what adds up to dx

    @property
    def dx(self) -> np.ndarray:
        """The gradient of x."""
        dx = sum(self.terms.values())
        return np.where(np.abs(dx) < ROUNDING * sum(map(np.abs, self.terms.values())), 0, dx)


def backward_of(setting: GradientSetting) -> Backward:
    """The terms of dx, for one slice of numbers.

    Raises:
        RuleBroken: if x and g do not go together, or the layer refuses x.
    """
    x, g = np.array(setting.x), np.array(setting.g)
    if not len(x) == len(g) <= LONGEST:
        raise RuleBroken(
            f"x and g must hold equally many numbers, up to {LONGEST}: got {len(x)} and {len(g)}."
        )
    if setting.layer == "BatchNorm1d" and setting.training and len(x) == 1:
        raise RuleBroken("Expected more than 1 value per channel when training: got one.")
    mean = x.mean() if setting.centred else 0.0
    square = np.mean((x - mean) ** 2)
    if setting.stored:
        mean, square = RUNNING_MEAN, RUNNING_VAR
    sigma = np.sqrt(square + setting.eps)
    normalized, upstream = (x - mean) / sigma, setting.weight * g
    terms = {DIRECT: upstream / sigma}
    if not (setting.stored or setting.detached):
        if setting.centred:
            terms[MEAN] = np.full(len(x), -_mean(upstream) / sigma)
        terms[PROJECTION] = -normalized * _mean(upstream * normalized) / sigma
    return Backward(float(sigma), normalized, upstream, terms)


def view_gradient(setting: GradientSetting, plot: Plot) -> View:
    """The terms of dx, each starting where the last one ends, drawn on the plot.

    Raises:
        RuleBroken: if x and g do not go together, or the layer refuses x.
    """
    backward = backward_of(setting)
    terms, dx = backward.terms, backward.dx
    ends = np.cumsum([*terms.values()], axis=0)
    starts = dict(zip([*terms][1:], ends, strict=False))
    bars = {name: terms.get(name) for name in TERMS} | {"dx": dx}
    with plot.anew() as [axes]:
        add_bars(axes, bars, [*map(five_digits, setting.x)], starts)
        axes.set_xlabel("x")
        axes.set_title("each term starts where the last one ends; dx is where they arrive")
        axes.axhline(0, **line_style(INK, width=1))
    told = "; ".join(f"{name} = {_vector(term)}" for name, term in terms.items())
    text = f"dx = {_vector(dx)}, the sum of {told}"
    return View(_describe(setting, backward), (plot.picture(text),))


def _describe(setting: GradientSetting, backward: Backward) -> str:
    upstream, normalized = backward.upstream, backward.normalized
    along = _mean(upstream * normalized)
    lines = [
        f"dx = <b>{_vector(backward.dx)}</b>, {_terms_in_words(setting)}",
        f"σ = {five_digits(backward.sigma)}, x̂ = {_vector(normalized)}, mean(γ·g) = "
        f"{five_digits(_mean(upstream))}, mean(γ·g·x̂) = {five_digits(along)}.",
        _sum_in_words(setting, backward),
        _sum_along_in_words(setting, backward),
    ]
    return f"<p>{'<br>'.join(lines)}</p>"


def _vector(values: np.ndarray) -> str:
    """To four decimals; to more, if all are small."""
    largest = np.abs(values).max()
    return vector_in_words(values, max(4, 3 - floor(log10(largest))) if largest else 0)


def _terms_in_words(setting: GradientSetting) -> str:
    if setting.stored:
        return "<b>one term</b>: the running mean and variance are fixed numbers. No x moves them."
    if setting.detached:
        return (
            "<b>one term</b>: the statistics are detached, as if they were fixed. But x moves "
            "them, so this is not the gradient of what was computed."
        )
    if not setting.centred:
        return "<b>two terms</b>: no mean is subtracted, so nothing comes back through one."
    return "<b>three terms</b>: g itself, and what comes back through mean and variance."


def _sum_in_words(setting: GradientSetting, backward: Backward) -> str:
    """What a bias before the layer receives, and why."""
    if MEAN in backward.terms:
        return (
            "Σ dx = 0, which a bias before the layer would receive: <b>always 0</b>, since the "
            "same bias for all of x changes no output."
        )
    total = f"Σ dx = {five_digits(_sum(backward.dx))}, which a bias before the layer would receive"
    if setting.stored or not setting.centred:
        return f"{total}: in this layer, a bias changes the outputs."
    return f"{total}, <b>though it changes no output</b>: the bias can run away."


def _sum_along_in_words(setting: GradientSetting, backward: Backward) -> str:
    """Whether stretching x is pushed, and why."""
    total = f"Σ dx · x̂ = {five_digits(_sum(backward.dx * backward.normalized))}"
    about = "x about its mean" if setting.centred else "x"
    if PROJECTION in backward.terms:
        return (
            f"{total}; <b>with ε = 0 it would be 0</b>: stretching {about} changes no output then."
        )
    if setting.stored:
        return f"{total}: in this layer, stretching x changes the outputs."
    return f"{total}, <b>though stretching {about} changes no output</b>, but for ε."


def _sum(values: np.ndarray) -> float:
    total = values.sum()
    return float(total) if abs(total) > ROUNDING * np.abs(values).sum() else 0.0


def _mean(values: np.ndarray) -> float:
    return _sum(values) / len(values)


class GradientLab(Lab):
    """An explorer: the gradient of x, taken apart into the terms that add up to it.

    x is one slice: a channel of ``BatchNorm1d(1)``, or a row of ``LayerNorm`` or ``RMSNorm``. In
    eval, BatchNorm normalizes with a running mean of 2 and a running variance of 4. g is the
    gradient that arrives from above, and γ multiplies it first. Each control can be set and read by
    name: ``layer``, ``x`` and ``g`` (as text: ``"1, 2, 6"``), ``weight``, ``eps``, ``training`` and
    ``detached`` have a ``value``.

    Args:
        layer: ``"BatchNorm1d"``, ``"LayerNorm"`` or ``"RMSNorm"``.
        x: a slice of up to 8 numbers.
        g: the gradient of the outputs, as many.
        weight: γ, the same for all of them, -3 to 3.
        eps: added to the variance or mean square, 1e-8 to 100.
        training: whether the layer is in training, which matters for BatchNorm alone.
        detached: whether mean and variance are cut off from the gradient.

    Raises:
        ValueError: for another layer, for a number that the lab's sliders do not reach, or a
            vector out of bounds.

    >>> lab = gradient_lab(g=(1, 1, 1))
    >>> lab.layer.value = "RMSNorm"
    >>> "two terms" in lab.readout.value
    True
    """

    Setting, view_of = GradientSetting, staticmethod(view_gradient)
    _plot = cached_property(lambda _: Plot(height=300))

    def __init__(self, setting: GradientSetting):
        self.layer = widgets.Dropdown(options=LAYERS, value=setting.layer, description="layer")
        self.x, self.g = vector_field("x", setting.x), vector_field("g", setting.g)
        self.weight = slider("weight γ", setting.weight, -3, 3, 0.1)
        self.eps = eps_slider(setting.eps)
        self.training = train_or_eval(setting.training)
        self.detached = buttons(
            "statistics", [("in the gradient", False), ("detached", True)], setting.detached, 120
        )
        super().__init__(
            [self.layer, self.x, self.g],
            [self.weight, self.eps],
            [self.training, self.detached],
            readout_height=140,
            narrow_height=240,
            picture_height=320,
        )
        controls = self.layer, self.x, self.g, self.weight, self.eps, self.training, self.detached
        self.draw_on(*controls)


gradient_lab = opener(GradientLab, "gradient_lab")
