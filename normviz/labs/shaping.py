"""Layers that are made for a shape, and the sliders of a shape and of a place in it."""

from collections.abc import Callable
from functools import cache
from numbers import Integral

import ipywidgets as widgets
import numpy as np
import torch
import traitlets
from torch import nn

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


class ShapeSliders(widgets.HBox):
    """One slider per axis; their positions together are ``value``, a shape.

    Args:
        sizes: the first of each axis.
    """

    value = traitlets.Tuple()

    def __init__(self, sizes: dict[str, int] = FIRST_SIZES):
        self.sliders = {
            name: widgets.IntSlider(
                sizes[name],
                min=1,
                max=LONGEST,
                description=f"{name}, {WORDS[name]}s",
            )
            for name in sizes
        }
        self._writing = False
        super().__init__()
        self.add_class("nv-axes")
        for slider in self.sliders.values():
            slider.observe(self._read, "value")

    def ask_for(self, axes: str) -> None:
        """Show the sliders of these axes."""
        self.children = [self.sliders[name] for name in axes.split()]
        self._read()

    def _read(self, _=None):
        if not self._writing:
            try:
                self.value = tuple(slider.value for slider in self.children)
            except traitlets.TraitError:  # of a slider that somebody widened
                self._write({"new": self.value})
                raise

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


class PlaceSliders(widgets.HBox):
    """One slider per axis with a choice; where they stand together is ``value``, an index."""

    value = traitlets.Tuple()

    def __init__(self):
        self.sliders = {
            name: widgets.IntSlider(
                0,
                min=0,
                max=LONGEST - 1,
                description=f"outlier's {name}",
            )
            for name in FIRST_SIZES
        }
        self._axes, self._shape, self._writing = [], (), False
        super().__init__()
        self.add_class("nv-axes")
        for slider in self.sliders.values():
            slider.observe(self._read, "value")

    def ask_for(self, axes: str, shape: tuple[int, ...]) -> None:
        """Show the sliders of these axes, of those sizes; where the size is 1, there is none."""
        self._axes, self._shape, self._writing = axes.split(), shape, True
        try:
            for name, size in zip(self._axes, shape, strict=True):
                slider = self.sliders[name]
                slider.value = min(slider.value, size - 1)
                slider.max = max(1, size - 1)
        finally:
            self._writing = False
        shown = zip(self._axes, shape, strict=True)
        self.children = [self.sliders[name] for name, size in shown if size > 1]
        self._read()

    def _read(self, _=None):
        if not self._writing:
            try:
                self.value = tuple(self.sliders[name].value for name in self._axes)
            except traitlets.TraitError:  # of a slider that somebody widened
                self._write({"new": self.value})
                raise

    @traitlets.validate("value")
    def _fits(self, proposal):
        index, shape = proposal["value"], self._shape
        if len(index) != len(shape):
            raise traitlets.TraitError(f"outlier needs {len(shape)} numbers here: got {index}.")
        pairs = zip(index, shape, strict=True)
        if not all(isinstance(i, Integral) and 0 <= i < size for i, size in pairs):
            raise traitlets.TraitError(f"outlier must stand in the shape {shape}: got {index}.")
        return tuple(map(int, index))

    @traitlets.observe("value")
    def _write(self, change):
        self._writing = True
        try:
            for name, i in zip(self._axes, change["new"], strict=True):
                self.sliders[name].value = i
        finally:
            self._writing = False
