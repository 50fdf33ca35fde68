"""A pattern meets a shape: how long its axes are, which are pooled, and where statistics stand."""

import operator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from math import prod

from normviz.pattern import ELLIPSIS, parse

Sizes = tuple[tuple[str, int], ...]  # of named axes, in alphabetical order


@dataclass(frozen=True)
class Layout:
    """The axes of one array under one pattern."""

    shape: tuple[int, ...]  # of the array
    groups: tuple[Sizes, ...]  # names and sizes, one group per axis of the array
    split: tuple[int, ...]  # the shape with every group taken apart
    pooled: tuple[int, ...]  # positions in ``split``
    runs: tuple[tuple[int, ...], ...]  # of these, neighbours together, the innermost first
    count: int  # how many numbers feed each statistic
    stat_shape: tuple[int, ...]  # of the statistics
    axis_names: tuple[str, ...]  # of the array's; for a group, the last one that is pooled
    kept_names: tuple[str, ...]  # one per axis of the statistics
    aligned: tuple[int, ...]  # ``split``, with 1 for every pooled axis


@lru_cache(maxsize=1024)
def lay_out(pattern: str, given: Sizes, shape: tuple[int, ...]) -> Layout:
    """The layout of an array of this shape, with some sizes given.

    Raises:
        ValueError: if the shape does not fit.
    """
    axes, kept = (list(side) for side in parse(pattern))
    if any(size < 0 for size in shape):
        raise ValueError(f"a shape has no negative sizes: got {shape}.")
    if (ELLIPSIS,) in axes:
        at = axes.index((ELLIPSIS,))
        spare = len(shape) - len(axes) + 1
        unnamed = [f"axis {at + i}" for i in range(spare)]  # with its space, it clashes with none
        axes[at : at + 1] = [(name,) for name in unnamed]
        kept += unnamed if ELLIPSIS in kept else []
    if len(axes) != len(shape):
        names = " ".join(name for group in axes for name in group)
        raise ValueError(
            f"the input must have an axis for each of {names}, as {pattern!r} says: got the shape "
            f"{shape}."
        )
    groups = tuple(
        _take_apart(pattern, given, group, size) for group, size in zip(axes, shape, strict=True)
    )
    names = [name for group in groups for name, _ in group]
    split = tuple(size for group in groups for _, size in group)
    is_kept = [name in kept for name in names]
    positions = groupby(range(len(split)), is_kept.__getitem__)
    runs = tuple(tuple(run) for keep, run in positions if not keep)[::-1]
    return Layout(
        shape=shape,
        groups=groups,
        split=split,
        pooled=tuple(i for i, keep in enumerate(is_kept) if not keep),
        runs=runs,
        count=prod(size for size, keep in zip(split, is_kept, strict=True) if not keep),
        stat_shape=tuple(size for size, keep in zip(split, is_kept, strict=True) if keep),
        axis_names=tuple(
            next((name for name, _ in reversed(group) if name not in kept), group[-1][0])
            for group in groups
        ),
        kept_names=tuple(name for name in names if name in kept),
        aligned=tuple(size if keep else 1 for size, keep in zip(split, is_kept, strict=True)),
    )


def _take_apart(pattern: str, given: Sizes, group: tuple[str, ...], size: int) -> Sizes:
    """The names that share one axis of the array, each with its size."""
    wanted = dict(given)
    known = prod(wanted.get(name, 1) for name in group)
    whole = f"({' '.join(group)})" if len(group) > 1 else group[0]
    if all(name in wanted for name in group) and known != size:
        raise ValueError(
            f"the axis {whole} must have size {known}, as {spell_out(pattern, given)} says: got "
            f"{size}; without the size it takes any."
        )
    if size % known:
        names = [name for name in group if name in wanted]
        raise ValueError(
            f"{' times '.join(names)} must divide the axis {whole}: got "
            f"{', '.join(f'{name}={wanted[name]}' for name in names)} for {size}; "
            f"{divisors_of(size)} would do."
        )
    return tuple((name, wanted.get(name, size // known)) for name in group)


def divisors_of(size: int) -> str:
    """What divides a size, the first eight of them.

    >>> divisors_of(6), divisors_of(1)
    ('1, 2, 3 or 6', '1')
    """
    *others, last = [str(d) for d in range(1, min(size, 1000) + 1) if size % d == 0][:8]
    return f"{', '.join(others)} or {last}" if others else last


def is_positive_int(value) -> bool:
    """Whether a value is an int that can count something."""
    try:
        return not isinstance(value, bool) and operator.index(value) > 0
    except TypeError:
        return False


def as_shape(shape) -> tuple[int, ...]:
    """A shape as a tuple of ints.

    Raises:
        ValueError: if it is something else.
    """
    try:
        return tuple(map(operator.index, shape))
    except TypeError:
        raise ValueError(
            f"a shape must be a tuple of ints: got {shape!r}; (4, 3) would do."
        ) from None


def spell_out(pattern: str, sizes: Sizes) -> str:
    """A reduction as one would write it.

    >>> spell_out("n (g c) -> n g", (("g", 2),))
    "Reduction('n (g c) -> n g', g=2)"
    """
    return f"Reduction({pattern!r}{''.join(f', {name}={size}' for name, size in sizes)})"
