"""Which numbers share a statistic: the one idea behind every normalization layer.

A pattern names the axes of an array on its left and the axes that survive on its right. Every axis
missing on the right is *pooled*: numbers that differ only there share one mean and one variance.

    >>> x = np.arange(18).reshape(3, 2, 3)  # (n, c, l)
    >>> per_channel = Reduction("n c l -> c")  # mean over n and l, one per c
    >>> per_channel.count(x.shape), per_channel.mean(x)
    (9, array([ 7., 10.]))

NumPy arrays and torch tensors take the same path. This module imports NumPy only.
"""

import operator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from normviz.pattern import ELLIPSIS, parse

# The axes of torch.nn's layers, by the input's number of axes.
_BATCH_AXES = {2: "n c", 3: "n c l", 4: "n c h w", 5: "n c d h w"}
_BATCH_SHAPES = {
    "BatchNorm1d": ("(N, C)", "(N, C, L)"),
    "BatchNorm2d": ("(N, C, H, W)",),
    "BatchNorm3d": ("(N, C, D, H, W)",),
}
_LAYER_AXES = {1: "c", 2: "n c", 3: "n t c", 4: "n c h w", 5: "n c d h w"}


@dataclass(frozen=True, init=False, repr=False)
class Reduction:
    """A choice of which axes are pooled into one statistic.

    Args:
        pattern: axis names left of ``->``, the kept ones right of it in the same order. ``...``
            stands for any number of axes, ``(g c)`` for one axis taken apart into two: the size of
            all names but one in such a group is given by keyword.
        **sizes: sizes of named axes, checked against every shape that the reduction meets.

    Raises:
        ValueError: for a pattern that makes no sense, with the pattern and the rule in its message.

    >>> Reduction("n c h w -> c").pooled
    ('n', 'h', 'w')
    >>> Reduction("n (g c) h w -> n g", g=2).stat_shape((8, 6, 5, 5))
    (8, 2)
    """

    pattern: str
    sizes: tuple[tuple[str, int], ...]

    def __init__(self, pattern: str, /, **sizes: int):
        if not isinstance(pattern, str):
            raise ValueError(f'pattern must be a string such as "n t c -> n t": got {pattern!r}.')
        axes, kept = parse(pattern)
        names = [name for group in axes for name in group]
        for name, size in sizes.items():
            if name not in names or name == ELLIPSIS:
                raise ValueError(f"pattern {pattern!r} has no axis {name}: got {name}={size!r}.")
            if isinstance(size, bool) or not hasattr(size, "__index__") or size < 1:
                raise ValueError(f"sizes of axes must be positive ints: got {name}={size!r}.")
        for group in axes:
            unknown = [name for name in group if name not in sizes]
            if len(unknown) > 1 and len(group) > 1:
                raise ValueError(
                    f"pattern {pattern!r}: give the size of every name in ({' '.join(group)}) but "
                    f"one, such as {unknown[0]}=2."
                )
        left = " ".join(f"({' '.join(g)})" if len(g) > 1 else g[0] for g in axes)
        object.__setattr__(self, "pattern", f"{left} -> {' '.join(kept)}".rstrip())
        object.__setattr__(
            self, "sizes", tuple((name, operator.index(sizes[name])) for name in sorted(sizes))
        )

    @classmethod
    def of(cls, layer, ndim: int, *, by: str = "statistic") -> "Reduction":
        """The reduction that a layer makes on an input with ``ndim`` axes.

        Args:
            layer: a BatchNorm1d, BatchNorm2d, BatchNorm3d or LayerNorm of torch.nn or of normviz.
            ndim: the number of axes of the input.
            by: ``"statistic"``: elements that share a mean and a variance have one label;
                ``"weight"``: elements that meet the same weight and bias have one.

        Raises:
            ValueError: for any other layer, and for an ``ndim`` that the layer does not take.

        >>> from torch import nn
        >>> Reduction.of(nn.LayerNorm(4), 3)
        Reduction('n t c -> n t')
        >>> Reduction.of(nn.LayerNorm(4), 3, by="weight")
        Reduction('n t c -> c')
        """
        if by not in ("statistic", "weight"):
            raise ValueError(f'by must be "statistic" or "weight": got {by!r}.')
        kind = _kind(layer)
        if kind == "LayerNorm":
            least = len(layer.normalized_shape)
            if ndim < least:
                raise ValueError(
                    f"LayerNorm with normalized_shape {tuple(layer.normalized_shape)} takes inputs "
                    f"of {least} axes or more: got {ndim}."
                )
            names = _LAYER_AXES.get(ndim, " ".join(f"a{i}" for i in range(ndim))).split()
            per_slice, per_position = names[: ndim - least], names[ndim - least :]
            kept = per_slice if by == "statistic" else per_position
            return cls(f"{' '.join(names)} -> {' '.join(kept)}")
        shapes = _BATCH_SHAPES[kind]
        if ndim not in [shape.count(",") + 1 for shape in shapes]:
            raise ValueError(
                f"{kind} takes inputs of shape {' or '.join(shapes)}: got one with {ndim} axes."
            )
        return cls(f"{_BATCH_AXES[ndim]} -> c")

    @property
    def axes(self) -> tuple[tuple[str, ...], ...]:
        """The names of each axis of the array: one name, or those of a group."""
        return parse(self.pattern)[0]

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the axes that survive: there is one statistic *per* each of these."""
        return parse(self.pattern)[1]

    @property
    def pooled(self) -> tuple[str, ...]:
        """Names of the axes that a statistic is taken *over*."""
        return tuple(name for group in self.axes for name in group if name not in self.kept)

    def stat_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the statistics of an array of this shape.

        >>> Reduction("n t c -> n t").stat_shape((8, 10, 512))
        (8, 10)
        """
        return self._layout(shape).stat_shape

    def count(self, shape: tuple[int, ...]) -> int:
        """How many numbers feed each statistic.

        >>> Reduction("n c h w -> c").count((4, 3, 5, 5))
        100
        """
        return self._layout(shape).count

    def labels(self, shape: tuple[int, ...], at=None) -> np.ndarray:
        """An int array of this shape in which equal labels share a statistic.

        The labels number the statistics in C order of the kept axes. The array is read-only: along
        pooled axes it is a broadcast view, which takes no memory.

        Args:
            shape: of the input.
            at: for a part of it, the wanted positions on each axis, as ``numpy.ix_`` takes them.

        Raises:
            ValueError: if the shape does not fit the pattern, or ``at`` leaves the shape.

        >>> Reduction("n c l -> c").labels((2, 3, 2)).tolist()
        [[[0, 0], [1, 1], [2, 2]], [[0, 0], [1, 1], [2, 2]]]
        >>> Reduction("n c -> n c").labels((10_000, 10_000), at=([0, 9_999], [0, 1])).tolist()
        [[0, 1], [99990000, 99990001]]
        """
        layout = self._layout(shape)
        if at is None:
            at = [range(size) for size in layout.shape]
        else:
            _check_positions(at, layout.shape)
        strides, stride = {}, 1
        for name, size in zip(
            reversed(layout.kept_names), reversed(layout.stat_shape), strict=True
        ):
            strides[name], stride = stride, stride * size
        labels = np.zeros((), int)
        for group, position in zip(layout.groups, np.ix_(*at), strict=True):
            for name, size in reversed(group):  # the last name of a group counts fastest
                position, on_axis = np.divmod(position, size)
                if name in strides:
                    labels = labels + on_axis * strides[name]
        return np.broadcast_to(labels, [len(positions) for positions in at])

    def numbers(self, x, label: int):
        """The numbers that feed one statistic, as a vector, in the order they have in x.

        >>> Reduction("n c -> c").numbers(np.array([[1, 2], [3, 4], [5, 6]]), 1)
        array([2, 4, 6])
        """
        layout = self._layout(x.shape)
        index: list = [slice(None)] * len(layout.split)
        kept = (i for i in range(len(index)) if i not in layout.pooled)
        for i, position in zip(kept, self.locate(label, x.shape).values(), strict=True):
            index[i] = position
        return x.reshape(layout.split)[tuple(index)].reshape(-1)

    def mean(self, x):
        """One mean per statistic: an array or tensor, as x, of shape ``stat_shape(x.shape)``.

        The statistics of a NumPy array are float64. Those of a tensor have its dtype, but float32
        for half precision.

        Raises:
            ValueError: if x does not fit the pattern, holds no numbers to pool, or is an integer
                tensor.
        """
        x = _floating(x)
        layout = self._layout(x.shape)
        if not layout.count:
            raise ValueError(f"there is no mean over no numbers: x has shape {tuple(x.shape)}.")
        # The extra axis of length one lets a reduction that pools nothing take the same path.
        split, axis = x.reshape(*layout.split, 1), (*layout.pooled, -1)
        # NumPy adds float32 up one by one along outer axes, and would lose digits; torch does not.
        return split.mean(axis=axis) if _is_tensor(x) else split.mean(axis=axis, dtype=np.float64)

    def var(self, x, correction: float = 0):
        """One variance per statistic, by two passes: first the mean, then the squared distances.

        Args:
            x: as for ``mean``.
            correction: the sum of squares is divided by ``count - correction``: 0 gives the biased
                variance that normalizes, 1 (Bessel's correction) the unbiased one that BatchNorm
                stores in ``running_var``.

        Raises:
            ValueError: as for ``mean``, and if ``correction`` is not below the count.

        >>> x = np.arange(18).reshape(3, 2, 3)
        >>> Reduction("n c l -> c").var(x, correction=1)
        array([27.75, 27.75])
        """
        x = _floating(x)
        count = self.count(x.shape)
        if not correction < count:
            raise ValueError(
                f"correction must be below the count: got correction={correction} for {count} "
                f"number{'' if count == 1 else 's'} per statistic."
            )
        centred = x - self.spread(self.mean(x), x.shape)
        return self.mean(centred * centred) * (count / (count - correction))

    def spread(self, stat, shape: tuple[int, ...]):
        """A statistic laid back over the input's shape: to each element the one that it feeds.

        Args:
            stat: array or tensor of shape ``stat_shape(shape)``.
            shape: of the input.

        Returns:
            A view where it can be one, so do not write to it.

        >>> Reduction("n c -> n").spread(np.array([5, 7]), (2, 3)).tolist()
        [[5, 5, 5], [7, 7, 7]]
        """
        layout = self._layout(shape)
        if tuple(stat.shape) != layout.stat_shape:
            raise ValueError(
                f"stat must have shape {layout.stat_shape} for an input of shape {tuple(shape)} "
                f"under {self.pattern!r}: got {tuple(stat.shape)}."
            )
        if layout.grouped:  # first along the names of a group, which then merge into one axis
            stat = _broadcast(stat.reshape(layout.aligned), layout.grouped)
        return _broadcast(stat.reshape(layout.merged), layout.shape)

    def _layout(self, shape) -> "_Layout":
        return _lay_out(self, _checked_shape(shape))

    def name_axes(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        """One name for each axis of an array of this shape; for a group, its last name.

        >>> Reduction("n ... -> n").name_axes((4, 3, 2))
        ('n', 'axis 1', 'axis 2')
        """
        return self._layout(shape).axis_names

    def locate(self, label: int, shape: tuple[int, ...]) -> dict[str, int]:
        """Where a statistic stands: the position on each kept axis that its label stands for.

        >>> Reduction("n c l -> n c").locate(4, (2, 3, 5))
        {'n': 1, 'c': 1}
        """
        layout = self._layout(shape)
        count = prod(layout.stat_shape)
        if not 0 <= label < count:
            raise ValueError(
                f"label must be from 0 to {count - 1}, as {self.pattern!r} makes {count} "
                f"statistics of the shape {tuple(shape)}: got {label!r}."
            )
        position = np.unravel_index(label, layout.stat_shape)
        return dict(zip(layout.kept_names, map(int, position), strict=True))

    def __str__(self) -> str:
        over = f"over {', '.join(self.pooled)}" if self.pooled else "of each number alone"
        return f"{over}, one per {', '.join(self.kept)}" if self.kept else f"{over}, one for all"

    def __repr__(self) -> str:
        sizes = "".join(f", {name}={size}" for name, size in self.sizes)
        return f"Reduction({self.pattern!r}{sizes})"


@dataclass(frozen=True)
class _Layout:
    """A reduction met a shape: sizes, and which of them are pooled."""

    shape: tuple[int, ...]
    groups: tuple[tuple[tuple[str, int], ...], ...]  # names and sizes, one group per axis
    split: tuple[int, ...]  # the shape with every group taken apart
    pooled: tuple[int, ...]  # positions in split
    stat_shape: tuple[int, ...]
    axis_names: tuple[str, ...]  # one per axis of the shape; for a group, its last name
    kept_names: tuple[str, ...]
    aligned: tuple[int, ...]  # split, with 1 for every pooled axis
    grouped: tuple[int, ...]  # aligned, with full groups; empty if there is no group
    merged: tuple[int, ...]  # grouped, with the groups put together again

    @property
    def count(self) -> int:
        return prod(self.split[i] for i in self.pooled)


@lru_cache(maxsize=1024)
def _lay_out(reduction: Reduction, shape: tuple[int, ...]) -> _Layout:
    axes, kept = list(reduction.axes), set(reduction.kept)
    if (ELLIPSIS,) in axes:
        at = axes.index((ELLIPSIS,))
        spare = len(shape) - len(axes) + 1
        unnamed = [f"axis {at + i}" for i in range(spare)]  # with its space, it clashes with none
        axes[at : at + 1] = [(name,) for name in unnamed]
        if ELLIPSIS in kept:
            kept |= set(unnamed)
    if len(axes) != len(shape):
        names = " ".join(name for group in axes for name in group)
        raise ValueError(
            f"the input must have an axis for each of {names}, as {reduction.pattern!r} says: got "
            f"the shape {shape}."
        )
    given = dict(reduction.sizes)
    groups, split, split_names, merged, grouped = [], [], [], [], []
    for group, size in zip(axes, shape, strict=True):
        sizes = _take_apart(reduction, group, size, given)
        groups.append(tuple(zip(group, sizes, strict=True)))
        split += sizes
        split_names += group
        one = [s if name in kept else 1 for name, s in zip(group, sizes, strict=True)]
        grouped += sizes if len(group) > 1 else one
        merged.append(size if len(group) > 1 else one[0])
    is_kept = [name in kept for name in split_names]
    return _Layout(
        shape=shape,
        groups=tuple(groups),
        split=tuple(split),
        pooled=tuple(i for i, keep in enumerate(is_kept) if not keep),
        stat_shape=tuple(s for s, keep in zip(split, is_kept, strict=True) if keep),
        axis_names=tuple(group[-1] for group in axes),
        kept_names=tuple(n for n, keep in zip(split_names, is_kept, strict=True) if keep),
        aligned=tuple(s if keep else 1 for s, keep in zip(split, is_kept, strict=True)),
        grouped=tuple(grouped) if any(len(group) > 1 for group in axes) else (),
        merged=tuple(merged),
    )


def _take_apart(reduction: Reduction, group, size: int, given: dict[str, int]) -> list[int]:
    """The sizes of the names that share one axis of the array."""
    known = prod(given.get(name, 1) for name in group)
    whole = f"({' '.join(group)})" if len(group) > 1 else group[0]
    if all(name in given for name in group) and known != size:
        raise ValueError(
            f"the axis {whole} must have size {known}, as {reduction!r} says: got {size}; without "
            "the size it takes any."
        )
    if size % known:
        names = [name for name in group if name in given]
        divisors = [str(d) for d in range(1, min(size, 1000) + 1) if size % d == 0][:8]
        raise ValueError(
            f"{' times '.join(names)} must divide the axis {whole}: got "
            f"{', '.join(f'{name}={given[name]}' for name in names)} for {size}; "
            f"{' or '.join(filter(None, [', '.join(divisors[:-1]), divisors[-1]]))} would do."
        )
    return [given.get(name, size // known) for name in group]


def _kind(layer) -> str:
    """``"BatchNorm1d"``, …, ``"LayerNorm"``, for a layer of torch.nn or normviz."""
    for cls in type(layer).__mro__:
        ours = cls.__module__.partition(".")[0] in ("torch", "normviz")
        if ours and (cls.__name__ in _BATCH_SHAPES or cls.__name__ == "LayerNorm"):
            if type(layer).forward is not cls.forward:
                raise ValueError(
                    f"layer must compute what {cls.__name__} does: got {type(layer).__name__}, "
                    "whose forward is its own; Reduction(pattern) can say what that one pools."
                )
            return cls.__name__
    raise ValueError(
        "layer must be a BatchNorm1d, BatchNorm2d, BatchNorm3d or LayerNorm of torch.nn or "
        f"normviz: got {layer if isinstance(layer, type) else type(layer).__name__}."
    )


def _checked_shape(shape) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        raise ValueError(
            f"a shape must be a tuple of ints: got {shape!r}; (4, 3) would do."
        ) from None
    if any(size < 0 for size in sizes):
        raise ValueError(f"a shape has no negative sizes: got {sizes}.")
    return sizes


def _check_positions(at, shape) -> None:
    if len(at) != len(shape) or not all(
        0 <= position < size
        for positions, size in zip(at, shape, strict=True)
        for position in positions
    ):
        raise ValueError(f"at must list positions within {shape}, for each axis: got {at!r}.")


def _floating(x):
    """x ready to be pooled: half-precision tensors as float32, lists as arrays."""
    if _is_tensor(x):
        if not x.is_floating_point():
            raise ValueError(f"x must be a floating-point tensor: got {x.dtype}; use x.float().")
        return x.float() if x.dtype.itemsize < 4 else x
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"x must hold real numbers: got dtype {x.dtype}.")
    return x


def _is_tensor(x) -> bool:
    return hasattr(x, "is_floating_point")


def _broadcast(x, shape):
    return x.expand(shape) if _is_tensor(x) else np.broadcast_to(x, shape)
