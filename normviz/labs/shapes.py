"""Which numbers share a statistic, for any layer and any shape."""

from dataclasses import dataclass
from html import escape
from math import prod

import torch
from torch import nn

from normviz.explanation import explain
from normviz.labs.lab import View, buttons, check_choice, opener, rule
from normviz.labs.shaping import (
    FIRST_SIZES,
    LAYER_MAKERS,
    LONGEST,
    LayerLab,
    integers,
    make_layer,
    needs,
    plans_of,
)
from normviz.layout import as_shape
from normviz.plans import Plan, plan_of
from normviz.refusals import RefusedInput
from normviz.slices import draw_slices
from normviz.state import RUNNING
from normviz.words import number_of

SHOWN = ("input", "normalized", "output")


@dataclass(frozen=True)
class ShapeSetting:
    """Where the controls of a shape lab stand."""

    layer: str = "BatchNorm2d"
    axes: str | None = None  # of what is normalized; None for the first that the layer takes
    shape: tuple[int, ...] | None = None  # None for small sizes
    normalized_shape: int = 1  # how many of the last axes it names
    groups: int = 2
    show: str = "input"
    by: str = "statistic"

    def __post_init__(self):
        check_choice("layer", self.layer, LAYER_MAKERS)
        plans = plans_of(self.layer)
        axes = self.axes or next(iter(plans))
        check_choice("axes", axes, plans)
        check_choice("groups", self.groups, range(1, LONGEST + 1))
        check_choice("normalized_shape", self.normalized_shape, range(1, len(axes.split())))
        check_choice("show", self.show, SHOWN)
        check_choice("by", self.by, plans[axes].shared)
        sizes = dict(FIRST_SIZES)
        if needs(self.layer, "num_groups"):
            sizes["c"] = self.groups * (2 if 2 * self.groups <= LONGEST else 1)
        small = [sizes[name] for name in axes.split()]
        shape = as_shape(small if self.shape is None else self.shape)
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "shape", shape)


def view_shape(setting: ShapeSetting) -> View:
    """The slices that a layer pools; or why there is none, if its groups do not divide, say."""
    x = integers(len(setting.shape))[tuple(slice(size) for size in setting.shape)]
    try:
        layer = make_layer(setting.layer, setting.axes, setting.shape, setting)
        plan = plan_of(layer, x.ndim)
        fill(layer, plan, x)
    except RefusedInput as error:
        every = f"{setting.axes} -> {setting.axes}"
        return View(rule(str(error)), (draw_slices(x, every, title="No layer for this input"),))
    try:
        picture = explain(layer, input_of(plan, x)).picture(by=setting.by, show=setting.show)
        words = _describe(layer, plan, setting.shape)
    except RefusedInput as error:
        title = f"The input that it refuses: mean {plan.reduction}"
        picture, words = draw_slices(x, plan.reduction, title=title), rule(str(error))
    return View(words, (picture,))


@torch.no_grad()
def fill(layer: nn.Module, plan: Plan, x: torch.Tensor) -> None:
    """Give a layer weights that can be told apart, or x as the weight that is normalized.

    Raises:
        RefusedInput: if it cannot have that.
    """
    if hasattr(layer, "parametrizations"):
        layer.weight = x.clone()  # taken apart there
        return
    if plan.normalizes != "input":
        layer.weight.copy_(x)
        return
    for name, numbers in (("weight", lambda i: 1 + i % 4 / 2), ("bias", lambda i: i % 3 - 1)):
        parameter = getattr(layer, name, None)
        if parameter is not None:
            order = torch.arange(parameter.numel()).reshape(parameter.shape)
            parameter.copy_(numbers(order))


def input_of(plan: Plan, x: torch.Tensor) -> torch.Tensor:
    """What the layer gets: x, or something that fits a weight like x."""
    return x if plan.normalizes == "input" else torch.zeros(1, *x.shape[1:])


def _describe(layer, plan: Plan, shape) -> str:
    reduction = plan.reduction
    statistics = prod(reduction.stat_shape(shape))
    kinds = " and ".join(number_of(statistics, kind) for _, kind in plan.symbols)
    words = f"<p><b>{kinds}</b> {reduction}. Each pools "
    words += f"<b>{number_of(reduction.count(shape), 'number')}</b>"
    if others := [name for name, kept in plan.mixed if kept != plan.statistic]:
        words += f", mixed with those of the {' and of the '.join(others)}"
    if plan.normalizes == "input":
        weights = [n for n in ("weight", "bias") if getattr(layer, n, None) is not None]
        have = f"{' and '.join(weights)} {'have' if len(weights) > 1 else 'has'} shape"
        shared = f"<b>{tuple(layer.weight.shape)}</b>" if weights else ""
        running = [name for name, _ in layer.named_buffers() if name.startswith("running")]
        kept = f"<b>{tuple(layer.get_buffer(running[0]).shape)}</b>" if running else "<b>none</b>"
        named = " and ".join(running or RUNNING)
        words += f".<br>{f'{have} {shared}' if weights else 'no weight, no bias'}"
        words += f", {named} {kept}" if plan.running else ", <b>no</b> running statistics"
    return f"{words}. <code>{escape(reduction.pattern)}</code></p>"


class ShapeLab(LayerLab):
    """An explorer: which numbers share a statistic, for any layer and any shape.

    Each control can be set and read by name: ``layer``, ``axes``, ``shape``, ``normalized_shape``,
    ``groups``, ``show`` and ``by`` have a ``value``; ``readout`` and ``picture`` hold the HTML that
    it led to.

    Args:
        layer: the one that it opens on: one of normviz, or ``"weight_norm"``, whose numbers are
            those of a weight.
        axes: what they are, such as ``"n c h w"``; by default the first that the layer takes.
        shape: their sizes, 1 to 8.
        normalized_shape: of LayerNorm and RMSNorm, how many of the last axes it names.
        groups: of GroupNorm.
        show: ``"input"``, ``"normalized"`` or ``"output"``.
        by: what has a colour: a ``"statistic"``, a ``"weight"``, or one of several statistics
            that are mixed.

    Raises:
        ValueError: for any other layer or word.

    >>> lab = shape_lab("BatchNorm1d")
    >>> lab.shape.value = (4, 5)
    >>> lab.readout.value.count("5 means")
    1
    """

    Setting, view_of = ShapeSetting, staticmethod(view_shape)

    def __init__(self, setting: ShapeSetting):
        row = self._controls(setting, [*LAYER_MAKERS])
        self.show = buttons("numbers", SHOWN, setting.show, width=100)
        self.by = buttons("colour by", ["statistic"], "statistic", width=84, most=5)
        super().__init__(row, [self.shape], [self.show, self.by])
        with self.settle():
            self._choose_layer()
            self.axes.value = setting.axes
            self._choose_axes()
            self.shape.value = setting.shape
            self.normalized_shape.value = setting.normalized_shape
            self.by.value = setting.by
            self.layer.observe(self._choose_layer, "value")
            self.axes.observe(self._choose_axes, "value")
            self.draw_on(self.shape, self.normalized_shape, self.groups, self.show, self.by)

    def _axes_of(self, name: str) -> list[str]:
        plans = plans_of(name)
        self.by.options = next(iter(plans.values())).shared
        return [*plans]


shape_lab = opener(ShapeLab, "shape_lab")
