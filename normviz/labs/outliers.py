"""An outlier in a batch of any layer: how far each output moves, and why, in words and drawn."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from normviz.captions import call_of
from normviz.labs.lab import check_choice
from normviz.labs.shaping import (
    FIRST_SIZES,
    LONGEST,
    integers,
    make_layer,
    plans_of,
)
from normviz.layers import LAYERS
from normviz.layout import as_shape
from normviz.picture import Picture, as_array
from normviz.plans import Plan
from normviz.reduction import Reduction
from normviz.slices import Caption, Page
from normviz.telling import Told, listening
from normviz.words import five_digits, number_of, signed

LARGEST = 100  # outlier
TRACKED = " tracked"  # behind the name of a layer that remembers only if it is asked to
WINDOWS = "LocalResponseNorm"
WINDOW, BETA = 3, 0.75  # channels, and the power of what divides
# Integers from -9 to 9, all as likely, have this mean and this variance: a layer that was trained
# on such numbers has stored them.
STORED = {"running_mean": 0.0, "running_var": 30.0, "memory_x2": 30.0, "iterations": 200}
SHOWN = {"change": "how far each output moves", "input": "input", "output": "output"}
SIZES = FIRST_SIZES | {"n": 4, "c": 4, "l": 4}


def _names() -> Iterator[str]:
    for name in LAYERS:
        plans = plans_of(name).values()
        if all(plan.normalizes == "input" for plan in plans):
            yield name
            if not all(plan.over_samples for plan in plans) and hasattr(LAYERS[name], "track"):
                yield name + TRACKED
    yield WINDOWS


NAMES = (*_names(),)


def axes_of(name: str) -> list[str]:
    """What a layer takes, the axes of images first if it takes them.

    >>> axes_of("BatchNorm1d"), axes_of("LayerNorm")[:2]
    (['n c', 'n c l'], ['n c h w', 'n c'])
    """
    if name == WINDOWS:
        return ["n c h w", "n c l", "n c d h w"]
    return sorted(plans_of(name.removesuffix(TRACKED)), key=lambda axes: axes != "n c h w")


def last_axes(axes: str) -> int:
    """How many axes ``normalized_shape`` names at first: those of a token, or of a sample."""
    return 1 if axes == "n t c" else len(axes.split()) - 1


@dataclass(frozen=True)
class RelativesSetting:
    """Where the controls of a relatives lab stand."""

    layer: str = "BatchNorm2d"
    shape: tuple[int, ...] | None = None  # None for small sizes
    outlier: tuple[int, ...] | None = None  # None for the first number
    size: float = 10.0
    groups: int = 2
    training: bool = True
    axes: str | None = None  # None for those that fit the shape
    normalized_shape: int | None = None  # how many of the last axes it names
    show: str = "change"

    def __post_init__(self):
        check_choice("layer", self.layer, NAMES)
        known = axes_of(self.layer)
        ndim = None if self.shape is None else len(as_shape(self.shape))
        axes = self.axes or next((a for a in known if len(a.split()) == ndim), known[0])
        check_choice("axes", axes, known)
        check_choice("groups", self.groups, range(1, LONGEST + 1))
        check_choice("training", self.training, (True, False))
        check_choice("show", self.show, SHOWN)
        last = last_axes(axes) if self.normalized_shape is None else self.normalized_shape
        check_choice("normalized_shape", last, range(1, len(axes.split())))
        small = [SIZES[name] for name in axes.split()]
        shape = as_shape(small if self.shape is None else self.shape)
        outlier = as_shape([0] * len(shape) if self.outlier is None else self.outlier)
        found = {"axes": axes, "shape": shape, "outlier": outlier, "normalized_shape": last}
        for name, value in found.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Pass:
    """What a layer makes of an input, and what it is afterwards."""

    x: Tensor
    y: Tensor
    layer: nn.Module
    told: Told | None  # None where there are no slices

    def statistics(self, label: int) -> tuple[tuple[str, str, float], ...]:
        """Symbol, word and number of each statistic that normalizes a slice."""
        if self.told is None:
            return (("ν²", "mean square", float(self._windows.reshape(-1)[label])),)
        plan = self.told.plan
        numbers = plan.pick(*(float(t.reshape(-1)[label]) for t in (self.told.mean, self.told.var)))
        return tuple((*symbol, n) for symbol, n in zip(plan.symbols, numbers, strict=True))

    @cached_property
    def _windows(self) -> Tensor:
        """The mean square of each number's window, with zeros where there is no channel."""
        squares, half = self.x.square(), WINDOW // 2
        padded = nn.functional.pad(squares.movedim(1, -1), (half, half)).movedim(-1, 1)
        return padded.unfold(1, WINDOW, 1).mean(-1)


class Disturbance:
    """The same batch with and without an outlier.

    Args:
        setting: of the lab.

    Raises:
        RefusedInput: if there is no such layer, or if it refuses the batch.
    """

    def __init__(self, setting: RelativesSetting):
        self.setting, self.shape, self.at = setting, setting.shape, setting.outlier
        x = integers(len(self.shape))[tuple(map(slice, self.shape))].double()
        self.calm = pass_through(layer_of(setting), x)
        x = x.clone()
        x[self.at] += setting.size
        self.disturbed = pass_through(layer_of(setting), x)
        self.change = (self.disturbed.y - self.calm.y).numpy()
        self.moved = self.change != 0  # where nothing is shared, not even rounding differs
        self.told = self.calm.told

    @property
    def plan(self) -> Plan | None:
        """What the layer pools; None where windows overlap."""
        return self.told and self.told.plan

    @property
    def stored(self) -> bool:
        """Whether what is stored normalizes, and nothing else does."""
        return self.told is not None and self.told.source == "running"

    @property
    def reduction(self) -> Reduction:
        """Which numbers the picture shows as a slice."""
        if self.told is None:
            return Reduction(f"{self.setting.axes} -> {self.setting.axes}")
        return self.told.reduction.of_any_size()

    def picture(self) -> Picture:
        """The slices, and in each cell how far its output moves (or one of the passes)."""
        show, reduction = self.setting.show, self.reduction
        passes = {"change": self.change, "input": self.disturbed.x, "output": self.disturbed.y}
        title, note = f"{self.title}: {SHOWN[show]}", f"The outlier stands at {self.at}"
        notes = [f"{note}: {self._outlier()}."]
        page = Page(as_array(passes[show]), reduction, title, self._caption, notes)
        own = reduction.label_at(self.at, self.shape)
        one_slice = self.told is not None and not self.told.parts
        lit = own if one_slice and own in page.cells else None  # or it is not drawn
        return page.draw(lit, self.moved, self.at)

    @property
    def title(self) -> str:
        """The layer as it was made, and its mode."""
        layer, mode = self.calm.layer, "training" if self.setting.training else "eval"
        more = ", tracked" * self.setting.layer.endswith(TRACKED)
        if self.told is None:
            more, name = "", f"{WINDOWS}({WINDOW}, alpha=1)"
        else:
            name = call_of(layer)
        return f"{name}{more} in {mode}"

    def _outlier(self) -> str:
        before, after = (float(one.x[self.at]) for one in (self.calm, self.disturbed))
        sign = "−" if self.setting.size < 0 else "+"
        size = five_digits(abs(self.setting.size))
        return f"{five_digits(before)} {sign} {size} = {five_digits(after)}"

    def _caption(self, label: int) -> Caption:
        calm, disturbed = (one.statistics(label) for one in (self.calm, self.disturbed))
        of = ""
        if self.told is None:
            channels = self._window_of(label)
            of = f", channels {channels[0]} to {channels[-1]}"
        lines = [
            f"{when} the outlier{of}: {', '.join(f'{s} = {five_digits(v)}' for s, _, v in values)}"
            for when, values in (("without", calm), ("with", disturbed))
        ]
        if self.stored:
            lines = [f"stored, whatever the numbers are: {lines[0].partition(': ')[2]}"]
        return Caption(disturbed, tuple(lines))

    def _window_of(self, label: int) -> range:
        c = int(np.unravel_index(label, self.shape)[1])
        half = WINDOW // 2
        return range(max(0, c - half), min(self.shape[1], c + half + 1))

    def words(self, *, drawn: bool) -> str:
        """Who is disturbed, why, and whether later ones will be.

        Args:
            drawn: whether the picture has the outlier's cell.
        """
        count = self._count() + " The outlier is not drawn: the batch is large." * (not drawn)
        lines = [count, " ".join(self._others()), self._why(), self._later()]
        return f"<p style='line-height:1.5'>{'<br>'.join(filter(None, lines))}</p>"

    def _count(self) -> str:
        count = np.count_nonzero(self.moved)
        text = f"<b>{count:,} of {number_of(self.change.size, 'output')}</b> "
        text += "moves" if count == 1 else "move"
        if not count:
            return f"{text}: nobody is disturbed."
        others = self.change.copy()
        others[self.at] = 0
        own = f"the outlier's own by {signed(self.change[self.at])}"
        if not others.any():
            return f"{text}: {own}, and no other."
        worst = np.unravel_index(np.abs(others).argmax(), self.shape)
        most = f"the one at {tuple(map(int, worst))} by {signed(others[worst])}"
        return f"{text}: {own}; of the others, {most} is moved most."

    def _others(self) -> Iterator[str]:
        """Of each kind of neighbours, whether they move."""
        names = self.setting.axes.split()
        for name, who in {"n": "Batch mates", "c": "Other channels", "t": "Other tokens"}.items():
            if name not in names or self.shape[names.index(name)] == 1:
                if name == "n":
                    yield "There are no batch mates: one sample."
                continue
            axis = names.index(name)
            elsewhere = np.delete(self.moved, self.at[axis], axis)
            count = np.count_nonzero(elsewhere)
            verb = "disturbed" if count else "left alone"
            yield f"{who} are <b>{verb}</b>: {count:,} of {elsewhere.size:,} outputs."

    def _why(self) -> str:
        told, plan = self.told, self.plan
        if told is None:
            return (
                f"Each number has a window of its own, {WINDOW} channels wide. Windows overlap, "
                "so there are no slices: each cell stands alone."
            )
        if self.stored:
            return "Stored statistics normalize: a number moves its own output alone."
        if told.parts:
            kinds = "; ".join(
                f"{part.name}, stored"
                if part.source == "running"
                else f"{part.name}, {part.reduction}"
                for part in told.parts
            )
            return f"Three statistics are mixed, and their slices overlap: {kinds}."
        shared = " and ".join(kind for _, kind in plan.symbols)
        others = number_of(self.reduction.count(self.shape) - 1, "other number")
        text = f"The outlier shares its {shared} with {others}: {self.reduction}."
        if told.source == "memory":
            memory = self.calm.layer.memory
            text += f" The memory averages it with {memory - 1} earlier batches."
        if quiet := self._quiet():
            held = "0 stays 0" if told.floor is None else "the threshold holds them, or 0 stays 0"
            text += f" Not moved, though in its slice: {number_of(quiet, 'number')} ({held})."
        return text

    def _quiet(self) -> int:
        """How many numbers of the outlier's slice do not move, though it does."""
        if self.plan.centred or not self.moved.any():
            return 0
        labels = self.reduction.labels(self.shape)
        return int(np.count_nonzero(~self.moved[labels == labels[self.at]]))

    def _later(self) -> str:
        """What is stored, and what eval makes of it."""
        calm, disturbed = self.calm.layer, self.disturbed.layer
        names = [n for n, b in calm.named_buffers() if n.startswith("running") and b is not None]
        if not names:
            return "Later: <b>nothing</b> is stored, so no later batch is disturbed."
        if not self.setting.training:
            return "Later: eval stores <b>nothing</b>, so no later batch is disturbed."
        gaps = [
            (disturbed.get_buffer(name) - calm.get_buffer(name)).abs().max().item()
            for name in names
        ]
        off = " and ".join(
            f"{name} is off by {five_digits(gap)}" for name, gap in zip(names, gaps, strict=True)
        )
        x, eval_ = self.calm.x, []
        for layer in (calm, disturbed):
            with torch.no_grad():
                eval_.append(layer.eval()(x))
        far = (eval_[1] - eval_[0]).abs().max().item()
        if not far:
            return "Later: what is stored is the same."
        return (
            f"Later: {off}, so <b>eval is disturbed</b>: without any outlier, this batch comes out "
            f"up to {five_digits(far)} away."
        )


def layer_of(setting: RelativesSetting) -> nn.Module:
    """The layer, as long training on calm integers has left what it stores.

    Raises:
        RefusedInput: if there is none.
    """
    if setting.layer == WINDOWS:
        return nn.LocalResponseNorm(WINDOW, alpha=1.0, beta=BETA)
    name = setting.layer.removesuffix(TRACKED)
    layer = make_layer(name, setting.axes, setting.shape, setting)
    if name != setting.layer:
        layer = type(layer)(layer.num_features, track_running_stats=True)
    for name, buffer in layer.named_buffers():
        if name in STORED:
            buffer.fill_(STORED[name])
    return layer.double().train(setting.training)


@torch.no_grad()
def pass_through(layer: nn.Module, x: Tensor) -> Pass:
    """One pass, and what it tells.

    Raises:
        RefusedInput: if the layer does not take x.
    """
    with listening() as heard:
        y = layer(x)
    return Pass(x, y, layer, heard[0] if heard else None)
