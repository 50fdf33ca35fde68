"""What the running statistics remember: batch after batch, at any momentum."""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import nan

import ipywidgets as widgets
import numpy as np
import torch

from normviz.ink import line_style
from normviz.labs.lab import Lab, View, opener, show_errors, slider, train_or_eval
from normviz.layers.batch_norm import BatchNorm1d
from normviz.plots import GREY, Plot, add_bars, add_lines
from normviz.words import five_digits

MEAN, VARIANCE = 3.0, 4.0  # of the data, before any drift
MOST_BATCHES, LARGEST_BATCH = 60, 64


@dataclass(frozen=True)
class MomentumSetting:
    """Where the controls of a momentum lab stand."""

    momentum: float | None = 0.1
    batch_size: int = 8
    batches: int = 30
    drift: float = 0.0
    training: bool = True


def view_momentum(setting: MomentumSetting, plot: Plot) -> View:
    """The running statistics of a layer after each batch, drawn on the plot.

    Raises:
        RefusedInput: if the layer refuses the momentum, or a batch.
    """
    data = batches_of(setting)
    truth = MEAN + setting.drift * np.arange(setting.batches + 1)
    layer = BatchNorm1d(1, momentum=setting.momentum, affine=False).train(setting.training)
    seen = [(0.0, 1.0)]
    for x in data:
        layer(x)
        seen.append((layer.running_mean.item(), layer.running_var.item()))
    mean, var = zip(*seen, strict=True)
    weights = weights_of(setting)

    with plot.anew() as [left, middle, right]:
        for axes, running, of_batch, true in (
            (left, mean, [x.mean() for x in data], truth),
            (middle, var, [unbiased_variance(x) for x in data], [VARIANCE] * len(truth)),
        ):
            add_lines(axes, {"running": running, "truth": true})
            dots = line_style(GREY, width=0, dot=4)
            axes.plot(range(1, len(data) + 1), of_batch, **dots, label="each batch")
            axes.set(xlabel="batches seen", xlim=(-0.5, len(data) + 0.5))
        add_bars(right, {"": [*weights.values()]}, [*weights])
        left.set_title("running_mean")
        middle.set_title("running_var")
        right.set(title="weight of each batch", xlabel="batch")
    text = (
        f"running_mean {five_digits(mean[-1])}, where the data have {five_digits(truth[-1])}; "
        f"running_var {five_digits(var[-1])}, where the data have {five_digits(VARIANCE)}"
    )
    return View(_describe(setting, weights, text), (plot.picture(text),))


def unbiased_variance(x: torch.Tensor) -> float:
    """Of a batch; nan for a single number, which has none and is not drawn."""
    return x.var().item() if len(x) > 1 else nan


def weights_of(setting: MomentumSetting) -> dict[str | int, float]:
    """What the start and each batch weigh in the running statistics; together, 1.

    >>> weights_of(MomentumSetting(0.5, 8, batches=2, drift=0, training=True))
    {'start': 0.25, 1: 0.25, 2: 0.5}
    """
    k = setting.batches
    if not (setting.training and k):
        return {"start": 1.0, **dict.fromkeys(range(1, k + 1), 0.0)}
    if setting.momentum is None:
        return {"start": 0.0, **dict.fromkeys(range(1, k + 1), 1 / k)}
    kept = 1 - setting.momentum
    return {"start": kept**k, **{j: setting.momentum * kept ** (k - j) for j in range(1, k + 1)}}


def batches_of(setting: MomentumSetting) -> list[torch.Tensor]:
    """The batches, each of shape (batch_size, 1). A slider shows more of them, never others."""
    noise = _noise()[: setting.batches, : setting.batch_size]
    drift = setting.drift * torch.arange(1.0, setting.batches + 1)
    return list((MEAN + drift)[:, None, None] + VARIANCE**0.5 * noise)


@cache
def _noise() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(MOST_BATCHES, LARGEST_BATCH, 1, generator=generator)


def _describe(setting: MomentumSetting, weights: dict, text: str) -> str:
    k = setting.batches
    if not k:
        return (
            '<p role="alert"><b>No batch yet:</b> running_mean is 0 and running_var is 1, where '
            "they start. A layer in eval would normalize with these.</p>"
        )
    if not setting.training:
        return f"<p><b>In eval nothing moves</b>, however many batches come. {text}.</p>"
    memory = f"The start still weighs {100 * weights['start']:.2f} %."
    if setting.momentum is None:
        memory = f"Each batch weighs {100 / k:.3g} %, and the start nothing."
    seen = f"After {k} batch{'' if k == 1 else 'es'}"
    return f"<p><b>{seen}:</b> {text}.<br>{memory} num_batches_tracked is {k}.</p>"


class MomentumLab(Lab):
    """An explorer: how the running statistics follow the data, and which batches they remember.

    One channel of random numbers with mean 3 and variance 4 goes through ``BatchNorm1d(1)``. Each
    control can be set and read by name: ``momentum`` (which follows ``slide``), ``average``
    (momentum=None), ``batch_size``, ``batches``, ``drift`` and ``training`` have a ``value``;
    ``step`` is a button.

    Args:
        momentum: the weight of the new batch, 0 to 1; None for the plain average of all batches.
        batch_size: how many numbers a batch has, 1 to 64.
        batches: how many batches the layer has seen, 0 to 60.
        drift: how much the mean of the data moves from batch to batch, -0.5 to 0.5.
        training: whether the layer is in training; in eval, nothing moves.

    Raises:
        ValueError: for a number that the lab's sliders do not reach. A momentum that the layer
            refuses is shown, with the rule that it breaks.

    >>> lab = momentum_lab(momentum=None, batches=2)
    >>> lab.batches.value = 4
    >>> "Each batch weighs 25 %" in lab.readout.value
    True
    """

    Setting, view_of = MomentumSetting, staticmethod(view_momentum)
    _plot = cached_property(lambda _: Plot(3, width=900, height=330))

    def __init__(self, setting: MomentumSetting):
        first = 0.1 if setting.momentum is None else setting.momentum
        self.momentum = widgets.FloatText(first, step=0.05, description="momentum")
        self.slide = slider("slide momentum", first, 0, 1, 0.01, readout=False)
        self.average = widgets.Checkbox(
            setting.momentum is None, description="None: the plain average", indent=False
        )
        self.batch_size = slider("batch size", setting.batch_size, 1, LARGEST_BATCH)
        self.batches = slider("batches", setting.batches, 0, MOST_BATCHES)
        self.step = widgets.Button(description="one more batch")
        self.drift = slider("drift", setting.drift, -0.5, 0.5, 0.05)
        self.training = train_or_eval(setting.training)
        super().__init__(
            [self.momentum, self.slide, self.average],
            [self.batches, self.step, self.batch_size],
            [self.drift, self.training],
            picture_height=350,
        )
        self.slide.observe(self._follow_slide, "value")
        self.momentum.observe(self._follow_text, "value")
        self.step.on_click(self._step)
        self.draw_on(self.average, self.batch_size, self.batches, self.drift, self.training)

    @show_errors
    def _follow_slide(self, _=None):
        self.momentum.value = self.slide.value

    @show_errors
    def _follow_text(self, _=None):
        if 0 <= self.momentum.value <= 1:
            self.slide.value = self.momentum.value
        self.draw()

    @show_errors
    def _step(self, _=None):
        self.batches.value += 1  # and no further than the slider goes

    def read(self) -> MomentumSetting:
        """The setting that the controls hold."""
        setting = super().read()
        return replace(setting, momentum=None) if self.average.value else setting


momentum_lab = opener(MomentumLab, "momentum_lab")
