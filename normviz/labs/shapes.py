"""Which numbers share a statistic, for any layer and any shape."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from html import escape
from math import prod
from numbers import Integral

import ipywidgets as widgets
import numpy as np
import torch
import traitlets
from torch import nn

from normviz.explanation import explain
from normviz.labs.lab import Lab, View, buttons, check_choice, opener, rule, show_errors
from normviz.layers import LAYERS
from normviz.layers.weights import weight_norm
from normviz.layout import as_shape
from normviz.plans import Plan, plan_of
from normviz.refusals import RefusedInput
from normviz.slices import draw_slices
from normviz.state import RUNNING, needed_by
from normviz.words import WORDS, number_of

LONGEST = 8  # of an axis, so that no position of the sliders can fill the memory
SHOWN = ("input", "normalized", "output")
FIRST_SIZES = {"n": 3, "c": 3, "l": 3, "t": 4, "d": 2, "h": 2, "w": 2, "o": 3, "i": 3}
CONVOLUTIONS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def weight_normed(out_channels: int, in_channels: int, kernel_size: tuple[int, ...]) -> nn.Module:
    """A linear map or a convolution with a normalized weight."""
    kernel = (kernel_size,) if kernel_size else ()
    return weight_norm(CONVOLUTIONS[len(kernel_size)](in_channels, out_channels, *kernel))


LAYER_MAKERS: dict[str, Callable[..., nn.Module]] = {**LAYERS, "weight_norm": weight_normed}


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


def needs(layer: str, argument: str) -> bool:
    """Whether a layer cannot be made without this argument."""
    return argument in needed_by(LAYER_MAKERS[layer])


def view_shape(setting: ShapeSetting) -> View:
    """The slices that a layer pools; or why there is none, if its groups do not divide, say."""
    x = _integers(len(setting.shape))[tuple(slice(size) for size in setting.shape)]
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


def make_layer(name: str, axes: str, shape: tuple[int, ...], setting=None) -> nn.Module:
    """A layer for what has these axes and this shape, from the arguments that it needs.

    Raises:
        RefusedInput: if there is no such layer.
    """
    channels = shape[axes.split().index("c")] if "c" in axes.split() else 0
    last, groups = (setting.normalized_shape, setting.groups) if setting else (1, 1)
    known = {
        "num_features": channels,
        "num_channels": channels,
        "num_groups": groups,
        "normalized_shape": shape[-last:],
        "out_channels": shape[0],
        "in_channels": shape[1],
        "kernel_size": shape[2:],
    }
    maker = LAYER_MAKERS[name]
    return maker(**{needed: known[needed] for needed in needed_by(maker)})


@cache
def plans_of(name: str) -> dict[str, Plan]:
    """The axes, two or more, that a layer takes, each as in ``"n c h w"``, with its plan."""
    found = {}
    for ndim in range(2, 6):
        shape = (2,) * ndim
        try:
            plan = plan_of(make_layer(name, "n c", shape), ndim)
            found[" ".join(plan.reduction.name_axes(shape))] = plan
        except (ValueError, IndexError):
            continue
    # A single sample comes last.
    return dict(sorted(found.items(), key=lambda item: item[0].startswith("c")))


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


@cache
def _integers(ndim: int) -> torch.Tensor:
    """Small numbers to add up by hand. A slider shows more or fewer of them, never others."""
    numbers = np.random.default_rng(0).integers(-9, 10, (LONGEST,) * ndim)
    return torch.from_numpy(numbers).float()


class ShapeSliders(widgets.HBox):
    """One slider per axis; their positions together are ``value``, a shape."""

    value = traitlets.Tuple()

    def __init__(self):
        self.sliders = {
            name: widgets.IntSlider(
                FIRST_SIZES[name],
                min=1,
                max=LONGEST,
                description=f"{name}, {WORDS[name]}s",
                layout=widgets.Layout(width="215px"),
            )
            for name in FIRST_SIZES
        }
        self._writing = False
        super().__init__(layout=widgets.Layout(flex_flow="row wrap", min_height="72px"))
        for slider in self.sliders.values():
            slider.observe(self._read, "value")

    def ask_for(self, axes: str) -> None:
        """Show the sliders of these axes."""
        self.children = [self.sliders[name] for name in axes.split()]
        self._read()

    def _read(self, _=None):
        if not self._writing:
            self.value = tuple(slider.value for slider in self.children)

    @traitlets.validate("value")
    def _fits(self, proposal):
        shape = proposal["value"]
        if len(shape) != len(self.children):
            raise traitlets.TraitError(f"shape needs {len(self.children)} sizes here: got {shape}.")
        if not all(isinstance(size, Integral) and 1 <= size <= LONGEST for size in shape):
            raise traitlets.TraitError(f"sizes are ints from 1 to {LONGEST} here: got {shape}.")
        return tuple(map(int, shape))

    @traitlets.observe("value")
    def _write(self, change):
        self._writing = True  # one slider after the other: none of them speaks for the shape
        try:
            for slider, size in zip(self.children, change["new"], strict=True):
                slider.value = size
        finally:
            self._writing = False


class ShapeLab(Lab):
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

    Setting = ShapeSetting

    def __init__(self, setting: ShapeSetting):
        self.layer = widgets.Dropdown(
            options=[*LAYER_MAKERS], value=setting.layer, description="layer"
        )
        self.axes = widgets.Dropdown(description="axes")
        self.normalized_shape = widgets.Dropdown(description="normalized_shape")
        self.normalized_shape.style.description_width = "initial"
        self.groups = widgets.IntSlider(setting.groups, min=1, max=LONGEST, description="groups")
        self.shape = ShapeSliders()
        self.show = buttons("numbers", SHOWN, setting.show, width=100)
        self.by = buttons("colour by", ["statistic"], "statistic", width=100)
        super().__init__(
            [self.layer, self.axes, self.normalized_shape, self.groups],
            [self.shape],
            [self.show, self.by],
        )
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

    @show_errors
    def _choose_layer(self, change=None):
        with self.settle():
            plans = plans_of(self.layer.value)
            self.axes.options = [(f"({', '.join(axes.upper().split())})", axes) for axes in plans]
            self.axes.index = 0
            self.by.options = plans[self.axes.value].shared
            self._choose_axes()
            channels, groups = self.shape.sliders["c"], self.groups
            self._shows(groups, "num_groups")
            if change and needs(self.layer.value, "num_groups") and channels.value % groups.value:
                groups.value = 2
                channels.value = 4

    @show_errors
    def _choose_axes(self, _=None):
        with self.settle():
            names = self.axes.value.upper().split()
            self.normalized_shape.options = [
                (f"({', '.join(names[-last:])})", last) for last in range(1, len(names))
            ]
            self.normalized_shape.index = 0
            self._shows(self.normalized_shape, "normalized_shape")
            self.shape.ask_for(self.axes.value)

    def _shows(self, control: widgets.Widget, argument: str) -> None:
        """Whether the layer has this argument; its control is to be seen only then."""
        control.layout.visibility = "visible" if needs(self.layer.value, argument) else "hidden"

    def view(self) -> View:
        """The slices that the layer pools."""
        return view_shape(self.read())


shape_lab = opener(ShapeLab, "shape_lab")
