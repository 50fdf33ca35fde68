"""Both sides of T(a·x₁ + b·x₂) = a·T(x₁) + b·T(x₂), and the gap between them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from normviz.arithmetic import in_brackets
from normviz.ink import INK, line_style
from normviz.labs.lab import (
    LONGEST,
    Lab,
    RuleBroken,
    View,
    eps_slider,
    opener,
    slider,
    train_or_eval,
    vector_field,
    vector_in_words,
)
from normviz.layers.batch_norm import BatchNorm1d
from normviz.plots import Plot, add_bars
from normviz.words import five_digits

RUNNING_MEAN, RUNNING_VAR = 2.0, 4.0  # of the layer, from earlier training
ROUNDING = 1e-9  # in double precision, what is smaller is no gap


@dataclass(frozen=True)
class LinearitySetting:
    """Where the controls of a linearity lab stand."""

    a: float = 1.0
    b: float = 1.0
    x1: tuple[float, ...] = (1.0, 2.0, 6.0)
    x2: tuple[float, ...] = (4.0, 1.0, 1.0)
    eps: float = 1e-5
    training: bool = True

    def __post_init__(self):
        for name in ("x1", "x2"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))


def view_linearity(setting: LinearitySetting, plot: Plot) -> View:
    """Both sides of the equation and the gap, drawn on the plot.

    Raises:
        RuleBroken: if the vectors do not go together.
        RefusedInput: if the layer refuses them.
    """
    together, apart = both_sides(setting)
    gap = together - apart
    gap[np.abs(gap) < ROUNDING * max(1, np.abs(together).max())] = 0
    labels = [f"number {i}" for i in range(len(gap))]
    with plot.anew() as [left, right]:
        add_bars(left, {"T(a·x₁ + b·x₂)": together, "a·T(x₁) + b·T(x₂)": apart}, labels)
        add_bars(right, {"gap": gap}, labels)
        left.set_title("both sides")
        right.set_title("the gap: left side − right side")
        for axes in (left, right):
            axes.axhline(0, **line_style(INK, width=1))
    left_side, right_side = map(vector_in_words, (together, apart))
    text = f"T(a·x₁ + b·x₂) = {left_side}; a·T(x₁) + b·T(x₂) = {right_side}"
    return View(f"<p>{text}.<br>{_judge(setting, gap)}</p>", (plot.picture(text),))


def both_sides(setting: LinearitySetting) -> tuple[np.ndarray, np.ndarray]:
    """T(a·x₁ + b·x₂), and a·T(x₁) + b·T(x₂).

    Raises:
        RuleBroken: if the vectors do not go together.
        RefusedInput: if the layer refuses them.
    """
    x1, x2 = (torch.tensor(x, dtype=torch.float64) for x in (setting.x1, setting.x2))
    if not len(x1) == len(x2) <= LONGEST:
        raise RuleBroken(
            f"x₁ and x₂ must hold equally many numbers, up to {LONGEST}: got {len(x1)} and "
            f"{len(x2)}."
        )
    apart = setting.a * transform(setting, x1) + setting.b * transform(setting, x2)
    return transform(setting, setting.a * x1 + setting.b * x2).numpy(), apart.numpy()


def transform(setting: LinearitySetting, x: torch.Tensor) -> torch.Tensor:
    """T(x): what the layer makes of a vector."""
    layer = BatchNorm1d(1, eps=setting.eps, affine=False, dtype=x.dtype).train(setting.training)
    layer.running_mean.fill_(RUNNING_MEAN)
    layer.running_var.fill_(RUNNING_VAR)
    return layer(x[:, None])[:, 0]


def _judge(setting: LinearitySetting, gap: np.ndarray) -> str:
    if not setting.training:
        zero = five_digits(transform(setting, torch.zeros(2, dtype=torch.float64))[0])
        share = five_digits(round(1 - setting.a - setting.b, 9))
        return (
            f"<b>Affine.</b> The gap is (1 − a − b) · T(0) = {share} · {in_brackets(zero)} = "
            f"{five_digits(gap[0])} everywhere: the same for all vectors, and 0 if a + b = 1."
        )
    if gap.any():
        return f"<b>Not linear:</b> the largest gap is {five_digits(np.abs(gap).max())}."
    return "No gap here. <b>One case that fits is no proof</b>: a linear T never has one."


class LinearityLab(Lab):
    """An explorer: put a BatchNorm of one channel to the test of linearity.

    T is ``BatchNorm1d(1, affine=False)``, which takes a vector as a batch of single values. In
    eval it normalizes with a running mean of 2 and a running variance of 4. Each control can be set
    and read by name: ``a``, ``b``, ``x1`` and ``x2`` (as text: ``"1, 2, 6"``), ``eps`` and
    ``training`` have a ``value``.

    Args:
        a: the factor of x1, -3 to 3.
        b: the factor of x2, -3 to 3.
        x1: a vector of up to 8 numbers.
        x2: another one, of as many.
        eps: added to the variance, 1e-8 to 100.
        training: whether the layer is in training.

    Raises:
        ValueError: for a number that the lab's sliders do not reach, or a vector out of bounds.

    >>> lab = linearity_lab(a=2, b=0)
    >>> lab.training.value = False
    >>> "1 − a − b" in lab.readout.value
    True
    """

    Setting, view_of = LinearitySetting, staticmethod(view_linearity)
    _plot = cached_property(lambda _: Plot(2, width=900, height=330))

    def __init__(self, setting: LinearitySetting):
        self.a, self.b = slider("a", setting.a, -3, 3, 0.1), slider("b", setting.b, -3, 3, 0.1)
        self.x1, self.x2 = vector_field("x₁", setting.x1), vector_field("x₂", setting.x2)
        self.eps = eps_slider(setting.eps)
        self.training = train_or_eval(setting.training)
        super().__init__(
            [self.a, self.b, self.eps], [self.x1, self.x2, self.training], picture_height=350
        )
        self.draw_on(self.a, self.b, self.x1, self.x2, self.eps, self.training)


linearity_lab = opener(LinearityLab, "linearity_lab")
