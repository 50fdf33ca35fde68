"""Layers that are made for a shape, and the sliders of a shape and of a place in it."""

from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from numbers import Integral

import ipywidgets as widgets
import numpy as np
import torch
import traitlets
from torch import nn

from normviz.labs.lab import Lab, one_of, reveal, show_errors, slider
from normviz.layers import LAYERS
from normviz.layers.weights import weight_norm
from normviz.plans import Plan, plan_of
from normviz.state import needed_by
from normviz.words import WORDS

LONGEST = 8  # of an axis, so that no position of the sliders can fill the memory
FIRST_SIZES = {"n": 3, "c": 3, "l": 3, "t": 4, "d": 2, "h": 2, "w": 2, "o": 3, "i": 3}
CONVOLUTIONS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def weight_normed(out_channels: int, in_channels: int, kernel_size: tuple[int, ...]) -> nn.Module:
    """A linear map or a convolution with a normalized weight."""
    kernel = (kernel_size,) if kernel_size else ()
    return weight_norm(CONVOLUTIONS[len(kernel_size)](in_channels, out_channels, *kernel))


LAYER_MAKERS: dict[str, Callable[..., nn.Module]] = {**LAYERS, "weight_norm": weight_normed}


def needs(layer: str, argument: str) -> bool:
    """Whether a layer cannot be made without this argument."""
    return argument in needed_by(LAYER_MAKERS[layer])


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


@cache
def integers(ndim: int) -> torch.Tensor:
    """Small numbers to add up by hand. A slider shows more or fewer of them, never others."""
    numbers = np.random.default_rng(0).integers(-9, 10, (LONGEST,) * ndim)
    return torch.from_numpy(numbers).float()


class _Sliders(widgets.HBox):
    """One slider per axis; where those that are shown stand together is ``value``."""

    value = traitlets.Tuple()

    def __init__(self, sliders: dict[str, widgets.IntSlider]):
        self.sliders, self._read_from, self._writing = sliders, (), False
        super().__init__()
        self.add_class("nv-axes")
        for made in sliders.values():
            made.observe(self._read, "value")

    @contextmanager
    def _silent(self):
        """One slider after the other: none of them speaks for all."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def _read(self, _=None):
        if not self._writing:
            try:
                self.value = tuple(self.sliders[name].value for name in self._read_from)
            except traitlets.TraitError:  # of a slider that somebody widened
                self._write({"new": self.value})
                raise

    @traitlets.validate("value")
    def _fits(self, proposal):
        if refused := self._refusal(proposal["value"]):
            raise traitlets.TraitError(f"{refused}: got {proposal['value']}.")
        return tuple(map(int, proposal["value"]))

    @traitlets.observe("value")
    def _write(self, change):
        with self._silent():
            for name, number in zip(self._read_from, change["new"], strict=True):
                self.sliders[name].value = number


class ShapeSliders(_Sliders):
    """Sliders of sizes, each with its first one; together, a shape."""

    def __init__(self, sizes: dict[str, int] = FIRST_SIZES):
        super().__init__(
            {n: slider(f"{n}, {WORDS[n]}s", size, 1, LONGEST) for n, size in sizes.items()}
        )

    def ask_for(self, axes: str) -> None:
        """Show the sliders of these axes."""
        self._read_from = axes.split()
        self.children = [self.sliders[name] for name in self._read_from]
        self._read()

    def _refusal(self, shape) -> str | None:
        if len(shape) != len(self._read_from):
            return f"shape needs {len(self._read_from)} sizes here"
        fits = all(isinstance(size, Integral) and 1 <= size <= LONGEST for size in shape)
        return None if fits else f"sizes are ints from 1 to {LONGEST} here"


class PlaceSliders(_Sliders):
    """Sliders of positions; together, an index. Where an axis has one position, none is shown."""

    def __init__(self):
        super().__init__({n: slider(f"outlier's {n}", 0, 0, LONGEST - 1) for n in FIRST_SIZES})

    def ask_for(self, axes: str, shape: tuple[int, ...]) -> None:
        """Show the sliders of these axes, of those sizes."""
        self._read_from, self._shape = axes.split(), shape
        with self._silent():
            for name, size in zip(self._read_from, shape, strict=True):
                self.sliders[name].value = min(self.sliders[name].value, size - 1)
                self.sliders[name].max = max(1, size - 1)
        shown = zip(self._read_from, shape, strict=True)
        self.children = [self.sliders[name] for name, size in shown if size > 1]
        self._read()

    def _refusal(self, index) -> str | None:
        if len(index) != len(self._shape):
            return f"outlier needs {len(self._shape)} numbers here"
        pairs = zip(index, self._shape, strict=True)
        fits = all(isinstance(i, Integral) and 0 <= i < size for i, size in pairs)
        return None if fits else f"outlier must stand in the shape {self._shape}"


class LayerLab(Lab):
    """A lab of any layer on any shape; a subclass says which axes a layer takes."""

    def _controls(self, setting, layers, sizes: dict[str, int] = FIRST_SIZES) -> list:
        """The controls of a layer, to stand in a row; those of its shape are made, too."""
        self.layer = widgets.Dropdown(options=layers, value=setting.layer, description="layer")
        self.axes = widgets.Dropdown(description="axes")
        self.normalized_shape = widgets.Dropdown(description="normalized_shape")
        self.groups = slider("groups", setting.groups, 1, LONGEST)
        self.shape = ShapeSliders(sizes)
        return [self.layer, self.axes, one_of(self.normalized_shape, self.groups)]

    def _axes_of(self, name: str) -> list[str]:
        """What a layer takes."""
        raise NotImplementedError

    def _last_axes(self) -> int:
        """How many axes ``normalized_shape`` names at first."""
        return 1

    def _has(self, argument: str) -> bool:
        """Whether the layer has this argument."""
        return needs(self.layer.value, argument)

    @show_errors
    def _choose_layer(self, change=None):
        with self.settle():
            known = self._axes_of(self.layer.value)
            self.axes.options = [(f"({', '.join(axes.upper().split())})", axes) for axes in known]
            self.axes.index = 0
            self._choose_axes()
            reveal(self.groups, self._has("num_groups"))
            channels, groups = self.shape.sliders["c"], self.groups
            if change and self._has("num_groups") and channels.value % groups.value:
                groups.value, channels.value = 2, 4

    @show_errors
    def _choose_axes(self, _=None):
        with self.settle():
            names = self.axes.value.upper().split()
            self.normalized_shape.options = [
                (f"({', '.join(names[-last:])})", last) for last in range(1, len(names))
            ]
            self.normalized_shape.value = self._last_axes()
            reveal(self.normalized_shape, self._has("normalized_shape"))
            self.shape.ask_for(self.axes.value)
