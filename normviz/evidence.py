"""Experiments on any module: numbers are moved, and its outputs are watched.

What is found needs neither the code of the module nor its class. Each pass starts from the same
state, in float64, on numbers of our own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from normviz.looking import untouched

MOST = 2**14  # numbers in a pass, if the module takes an input with fewer samples or positions
TENSORS = 12  # of a module's state that are moved, each in a few passes
SMALL = 1e-3  # a slope at which an activation is nearly straight

State = dict[str, float | Tensor]


class NoPattern(Exception):
    """What was seen is no normalization; the message has the reason."""


class Bench:
    """A module to be experimented on; whoever makes it has taken care that it stays untouched.

    Args:
        layer: in float64, on the CPU.
        shape: of the input.
    """

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]):
        self.layer, self.shape, self.whole = layer, shape, shape
        self.random = torch.Generator().manual_seed(1)
        self.pair: tuple[Tensor, Tensor] = ()
        self.slopes: dict[str, float] = {}  # each with the value at which no input matters
        self.shifts: list[str] = []
        self.floors: list[str] = []
        self.state: State = {}
        self.exact = 1e-6  # what is nearer is the same, with the module's own rounding

    def draw(self, shape=None) -> Tensor:
        """Random numbers from -1 to 3."""
        shape = self.shape if shape is None else shape
        return 4 * torch.rand(shape, generator=self.random, dtype=torch.float64) - 1

    def tensors(self) -> dict[str, Tensor]:
        """The parameters and buffers that hold numbers with a point, but no more than a few."""
        held = {**dict(self.layer.named_parameters()), **stored_in(self.layer)}
        return dict([(n, t) for n, t in held.items() if t.is_floating_point()][:TENSORS])

    def run(self, x: Tensor, state: State | None = None, seed: int = 0) -> Tensor:
        """One pass, with this state besides the usual one.

        Raises:
            NoPattern: if the module raises anything.
        """
        with untouched(self.layer):
            torch.default_generator.manual_seed(seed)
            held = self.tensors()
            for name, value in (self.state | (state or {})).items():
                held[name].copy_(torch.as_tensor(value))
            try:
                return passed(self.layer, x)
            except Exception as error:
                raise NoPattern(f"it does not take all numbers: {reason_of(error)}") from error

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether the module takes such an input, and gives as many numbers back."""
        try:
            y = self.run(self.draw(shape))
        except NoPattern:
            return False
        return isinstance(y, Tensor) and tuple(y.shape) == shape

    def find_rounding(self) -> None:
        """Whether the module rounds to less than float64 on its way."""
        x, step = self.draw(), self.draw()
        y = self.run(x)
        if moved(y, self.run(x + 1e-10 * step)).double().mean() < 0.1:
            self.exact = 1e-4

    def same(self, one: Tensor, other: Tensor, size: Tensor | float = 1.0) -> bool:
        """Whether these are equal but for rounding, where numbers have about this size."""
        return bool(((one - other).abs() <= self.exact * float(size)).all())

    def choose_shape(self) -> None:
        """Take two positions where there is one, which tells nothing, and fewer where many are."""
        sizes = [2 if size == 1 else size for size in self.shape]
        for axis in (0, *range(len(sizes) - 1, 0, -1)):
            size = sizes[axis]
            if prod(self.shape) > MOST:
                size = min(size, 4 if axis == 0 else 8)
            shape = (*self.shape[:axis], size, *self.shape[axis + 1 :])
            if shape != self.shape and self.fits(shape):
                self.shape = shape

    def restore(self, split: "Split") -> bool:
        """Take all of an axis that falls into groups; whether that is another shape."""
        sizes = zip(split, self.shape, self.whole, strict=True)
        shape = tuple(whole if how else size for (how, *_), size, whole in sizes)
        self.shape, before = shape, self.shape
        return shape != before

    def depends(self, state: State) -> bool:
        """Whether any output depends on the input in this state."""
        try:
            one, other = (self.run(x, state) for x in self.pair)
        except NoPattern:  # it refuses this state, such as a direction of zeros
            return True
        return bool(moved(one, other).any())

    def find_roles(self) -> None:
        """Which tensors scale the outputs, shift them, or cut them off below."""
        own = {name: t.detach().clone() for name, t in self.tensors().items()}
        learned = {name for name, _ in self.layer.named_parameters()}
        filled = {n: 0.5 + self.distinct(t) for n, t in own.items() if n in learned}
        self.slopes, self.shifts, self.floors, self.state = {}, [], [], {}
        self.pair = self.draw(), self.draw()
        y = self.run(self.pair[0], filled)
        for name in [*own]:
            if not moved(y, self.run(self.pair[0], filled | {name: 2.0})).any():
                del own[name]
                continue
            rests = (rest for rest in (0.0, -1.0) if not self.depends(filled | {name: rest}))
            if (rest := next(rests, None)) is not None:
                self.slopes[name] = rest
            elif not self.depends(filled | {name: 1e3}) and self.depends(filled | {name: -1e3}):
                self.floors.append(name)
        low = dict.fromkeys(self.floors, -1e3)
        for name in [name for name in own if name not in {*self.slopes, *self.floors}]:
            before, after = (filled | low | self.slopes | {name: v} for v in (1.0, 2.0))
            rises = [self.run(x, after) - self.run(x, before) for x in self.pair]
            if rises[0].any() and (self.slopes or not moved(*rises).any()):
                self.shifts.append(name)
        self.open(1.0)
        self.find_rounding()

    def open(self, slope: float, shift: float = 1.0, distinct: bool = True) -> None:
        """Set all that scales to about this slope, and what shifts to this; cut nothing off."""
        held = self.tensors()

        def near(name: str, value: float):
            return value * (0.5 + self.distinct(held[name]) if distinct else 1.0)

        slopes = {name: rest + near(name, slope) for name, rest in self.slopes.items()}
        shifts = {name: near(name, shift) for name in self.shifts}
        self.state = slopes | shifts | dict.fromkeys(self.floors, -1e3)

    def distinct(self, tensor: Tensor) -> Tensor:
        """Random numbers from 0 to 1, one for each of these."""
        return torch.rand(tensor.shape, generator=self.random, dtype=torch.float64)

    def moved_by(self, at: tuple[int, ...], bases: list[tuple[Tensor, Tensor]]) -> Tensor:
        """A mask of the outputs that move when the number at this place swings far out."""
        mask = torch.zeros(self.shape, dtype=torch.bool)
        for x, y in bases:
            swung = x.clone()
            for far in (4.0, -4.0):  # times the count: the mean of any slice moves past all others
                swung[at] = far * prod(self.shape)
                mask |= moved(y, self.run(swung))
        return mask

    def find_slices(self) -> "Slices":
        """Which outputs move together.

        Raises:
            NoPattern: if no axes say it.
        """
        last = np.array(self.shape) - 1
        spots = torch.rand((2, len(last)), generator=self.random, dtype=torch.float64).numpy()
        places = [last * 0, last, *(spots * (last + 1)).astype(int)]
        x = self.draw()
        bases = [(base, self.run(base)) for base in (x, -x)]  # what cuts one off lets the other by
        seen = {at: self.moved_by(at, bases) for at in (tuple(map(int, p)) for p in places)}
        cuts = {at: _cuts(mask, at) for at, mask in seen.items()}
        for one, other in pairwise(cuts.values()):
            if one != other:
                raise NoPattern("which outputs a number moves differs from place to place")
        split = next(iter(cuts.values()))
        families = [_family(mask, at, split) for at, mask in seen.items()]
        if any(family != families[0] for family in families):
            raise NoPattern("which outputs a number moves differs from place to place")
        largest = [s for s in families[0] if not any(s < other for other in families[0])]
        return Slices(split, tuple(sorted(largest, key=sorted)))

    def find_sharing(self, split: "Split", slope: float) -> dict[str, frozenset[int]]:
        """The axes along which the slope changes, and the shift; nothing if there is none."""
        found, far = {}, 1.0 if self.slopes else 30.0
        for role, names in (("weight", self.slopes), ("bias", self.shifts)):
            seen = []
            for _ in range(2 * bool(names)):
                self.open(slope, far)
                rest = self.slopes if role == "bias" else {}
                one, other = (self.run(x, rest) for x in self.pair)
                seen.append(one if role == "bias" else one - other)
            if seen:
                changes = seen[1] - seen[0] if role == "bias" else seen[1] / seen[0]
                found[role] = changing(changes, split, 5e-3 if slope < 1 else 10 * self.exact)
        return found

    def has_mates(self, training: bool) -> bool | None:
        """Whether a sample's outputs depend on the other samples; None where it cannot be run."""
        one, other = self.pair
        with untouched(self.layer):
            self.layer.train(training)
            try:
                y = self.run(one)
                z = self.run(torch.cat([one[:1], 3 * other[1:]]))
            except NoPattern:  # it does not take such a batch in this mode
                return None
        return bool(moved(y[:1], z[:1]).any())


Split = tuple[tuple[str, int, int], ...]  # of each axis: how it is taken apart, and two sizes


@dataclass(frozen=True)
class Slices:
    """Which outputs move together: the axes, taken apart, and the largest sets that are pooled."""

    split: Split
    pooled: tuple[frozenset[int], ...]

    def name(self, names: tuple[str, ...]) -> list[list[str]]:
        """Names of the parts of each axis, given one for each axis."""
        groups = iter(("g", "g2", "g3", "g4", "g5"))
        orders = {"": lambda n: [n], "block": lambda n: [next(groups), n]}
        orders["stride"] = lambda n: [n, next(groups)]
        return [orders[how](name) for (how, *_), name in zip(self.split, names, strict=True)]

    def sizes(self, names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        """The sizes of what is taken apart."""
        named = zip(self.split, self.name(names), strict=True)
        pairs = (zip(parts, s, strict=True) for (how, *s), parts in named if how)
        return tuple(sorted(pair for some in pairs for pair in some))


def changing(numbers: Tensor, split: Split, tolerance: float) -> frozenset[int]:
    """The axes, taken apart, along which most numbers change."""
    numbers, found = numbers.reshape([*sizes_of(split)]), set()
    for axis in range(numbers.ndim):
        change = (numbers.roll(1, axis) - numbers).abs() / numbers.abs()
        change = change[change.isfinite()]
        if not (change < tolerance).double().mean() > 0.9:
            found.add(axis)
    return frozenset(found)


def stored_in(layer: nn.Module) -> dict[str, Tensor]:
    """All that is stored besides parameters: buffers, and tensors that should have been some."""
    own = {
        f"{inner}.{name}".lstrip("."): held
        for inner, part in layer.named_modules()
        for name, held in vars(part).items()
        if isinstance(held, Tensor)
    }
    return {**dict(layer.named_buffers()), **own}


def passed(layer: nn.Module, x: Tensor):
    """What the layer makes of a copy of x; in training autograd looks on, as some ask it for that.

    A tensor comes without its history.
    """
    with torch.set_grad_enabled(layer.training):
        y = layer(x.clone())
    return y.detach() if isinstance(y, Tensor) else y


def reason_of(error: Exception) -> str:
    """The first sentence of an error."""
    return str(error).partition("\n")[0].partition(". ")[0].rstrip(".")


def moved(y: Tensor, other: Tensor) -> Tensor:
    """A mask of the numbers that differ by more than rounding."""
    off = 1e-12 * float(y.abs().nan_to_num(0.0, 0.0, 0.0).max())
    return ~(((y - other).abs() <= off) | (y == other))


def sizes_of(split: Split) -> Iterator[int]:
    """The sizes of all axes, taken apart."""
    for how, *sizes in split:
        yield from sizes if how else sizes[:1]


def _cuts(mask: Tensor, at: tuple[int, ...]) -> Split:
    """How each axis is taken apart, by the outputs on a line through the number that moved."""
    if not mask[at]:
        some = "others" if mask.any() else "none"
        raise NoPattern(f"a number moves {some}, and not the output in its own place")
    found = []
    for axis, i in enumerate(at):
        line = mask[(*at[:axis], slice(None), *at[axis + 1 :])].nonzero().flatten().tolist()
        size, part = mask.shape[axis], len(line)
        groups = size // part
        if part in (1, size):
            found.append(("", size, 1))
        elif size == groups * part and line == [*range(i // part * part, i // part * part + part)]:
            found.append(("block", groups, part))
        elif size == groups * part and line == [*range(i % groups, size, groups)]:
            found.append(("stride", part, groups))
        else:
            raise NoPattern(
                f"the number at {at} moves {part} of {size} outputs along axis {axis}, a window of "
                "its own: windows overlap, so nothing takes slices apart"
            )
    return tuple(found)


def _family(mask: Tensor, at: tuple[int, ...], split: Split) -> set[frozenset[int]]:
    """Sets of axes: an output that differs in these from the place of the number moves with it."""
    sizes = [*sizes_of(split)]
    place = np.unravel_index(np.ravel_multi_index(at, tuple(mask.shape)), sizes)
    counts = mask.reshape(sizes)
    for axis, i in enumerate(map(int, place)):  # those in the same place, and all others
        own = counts.narrow(axis, i, 1).long()
        counts = torch.cat([own, counts.sum(axis, keepdim=True) - own], axis)
    family = set()
    for differs in np.ndindex(*counts.shape):
        count = prod(n - 1 for n, d in zip(sizes, differs, strict=True) if d)
        if count and counts[differs]:
            if counts[differs] < count / 2:
                raise NoPattern(f"the number at {at} moves some outputs of a slice and not others")
            family.add(frozenset(axis for axis, d in enumerate(differs) if d))
    return family
