"""Which numbers share a statistic, for any layer and any shape."""

from dataclasses import dataclass
from functools import cache
from html import escape
from math import prod
from numbers import Integral

import ipywidgets as widgets
import numpy as np
import torch
import traitlets

from normviz import layers
from normviz.explanation import explain
from normviz.labs.lab import Lab, View, buttons, rule, show_errors
from normviz.picture import WORDS, number_of
from normviz.reduction import Reduction
from normviz.slices import draw_slices

LONGEST = 8  # of an axis, so that no position of the sliders can fill the memory
INPUT_AXES = {
    "BatchNorm1d": ("n c", "n c l"),
    "BatchNorm2d": ("n c h w",),
    "BatchNorm3d": ("n c d h w",),
    "LayerNorm": ("n c", "n t c", "n c h w", "n c d h w"),
}
FIRST_SIZES = {"n": 3, "c": 3, "l": 3, "t": 4, "d": 2, "h": 2, "w": 2}


def shape_lab(layer: str = "BatchNorm2d") -> "ShapeLab":
    """An explorer: which numbers share a statistic, for any layer and any shape.

    Args:
        layer: ``"BatchNorm1d"``, ``"BatchNorm2d"``, ``"BatchNorm3d"`` or ``"LayerNorm"``: the one
            that it opens on.

    Raises:
        ValueError: for any other layer.

    >>> lab = shape_lab("BatchNorm1d")
    >>> lab.shape.value = (4, 5)
    >>> lab.readout.value.count("5 means")
    1
    """
    if not isinstance(layer, str) or layer not in INPUT_AXES:
        raise ValueError(f"layer must be one of {', '.join(INPUT_AXES)}: got {layer!r}.")
    return ShapeLab(layer)


@dataclass(frozen=True)
class ShapeSetting:
    """Where the controls of a shape lab stand."""

    layer: str
    shape: tuple[int, ...]
    normalized_shape: int = 1  # for LayerNorm: how many of the last axes it names
    show: str = "input"
    by: str = "statistic"


def view_shape(setting: ShapeSetting) -> View:
    """The slices that a layer pools."""
    x = _integers(len(setting.shape))[tuple(slice(size) for size in setting.shape)]
    if setting.layer == "LayerNorm":
        layer = layers.LayerNorm(setting.shape[-setting.normalized_shape :])
    else:
        layer = getattr(layers, setting.layer)(setting.shape[1])
    with torch.no_grad():  # weights that can be told apart
        order = torch.arange(layer.weight.numel()).reshape(layer.weight.shape)
        layer.weight.copy_(1 + order % 4 / 2)
        layer.bias.copy_(order % 3 - 1)
    reduction = Reduction.of(layer, x.ndim)
    try:
        picture = explain(layer, x).picture(by=setting.by, show=setting.show)
        words = _describe(layer, reduction, setting.shape)
    except layers.RefusedInput as error:
        picture = draw_slices(x, reduction, title=f"The input that it refuses: mean {reduction}")
        words = rule(str(error))
    return View(words, (picture,))


def _describe(layer, reduction: Reduction, shape) -> str:
    statistics = prod(reduction.stat_shape(shape))
    running = getattr(layer, "running_mean", None)
    return (
        f"<p><b>{number_of(statistics, 'mean')} and {number_of(statistics, 'variance')}</b> "
        f"{reduction}. Each pools <b>{number_of(reduction.count(shape), 'number')}</b>.<br>"
        f"weight and bias have shape <b>{tuple(layer.weight.shape)}</b>, running_mean and "
        f"running_var <b>{'none' if running is None else tuple(running.shape)}</b>. "
        f"<code>{escape(reduction.pattern)}</code></p>"
    )


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
    """The widget behind :func:`shape_lab`; each control can be set and read by name.

    ``layer``, ``axes``, ``shape``, ``normalized_shape``, ``show`` and ``by`` have a ``value``;
    ``readout`` and ``picture`` hold the HTML that it led to.
    """

    Setting = ShapeSetting

    def __init__(self, layer: str):
        self.layer = widgets.Dropdown(options=list(INPUT_AXES), value=layer, description="layer")
        self.axes = widgets.Dropdown(description="input axes")
        self.normalized_shape = widgets.Dropdown(description="normalized_shape")
        self.normalized_shape.style.description_width = "initial"
        self.shape = ShapeSliders()
        self.show = buttons("numbers", ["input", "normalized", "output"], "input", width=100)
        self.by = buttons("colour by", ["statistic", "weight"], "statistic", width=100)
        super().__init__(
            [self.layer, self.axes, self.normalized_shape], [self.shape], [self.show, self.by]
        )
        self.layer.observe(self._choose_layer, "value")
        self.axes.observe(self._choose_axes, "value")
        with self.settle():
            self._choose_layer()
            self.draw_on(self.shape, self.normalized_shape, self.show, self.by)

    @show_errors
    def _choose_layer(self, _=None):
        with self.settle():
            choices = INPUT_AXES[self.layer.value]
            self.axes.options = [(f"({', '.join(axes.upper().split())})", axes) for axes in choices]
            self.axes.index = 0
            self._choose_axes()

    @show_errors
    def _choose_axes(self, _=None):
        with self.settle():
            names = self.axes.value.upper().split()
            self.normalized_shape.options = [
                (f"({', '.join(names[-last:])})", last) for last in range(1, len(names))
            ]
            self.normalized_shape.index = 0
            only = "visible" if self.layer.value == "LayerNorm" else "hidden"
            self.normalized_shape.layout.visibility = only
            self.shape.ask_for(self.axes.value)

    def view(self) -> View:
        """The slices that the layer pools."""
        return view_shape(self.read())
