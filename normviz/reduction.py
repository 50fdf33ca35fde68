"""Which numbers share a statistic: the one idea behind every normalization layer.

A pattern names the axes of an array on its left and the axes that survive on its right. Every axis
missing on the right is *pooled*: numbers that differ only there share one mean and one variance.

    >>> x = np.arange(18).reshape(3, 2, 3)  # (n, c, l)
    >>> per_channel = Reduction("n c l -> c")  # mean over n and l, one per c
    >>> per_channel.count(x.shape), per_channel.mean(x)
    (9, array([ 7., 10.]))

NumPy arrays and torch tensors will both do. This module imports NumPy only.
"""

import operator
from dataclasses import dataclass
from math import prod
from numbers import Real

import numpy as np

from normviz.layout import Layout, as_shape, is_positive_int, lay_out, spell_out
from normviz.pattern import ELLIPSIS, parse

_PART = 2**16  # numbers at a time: few enough for a processor's cache


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
            if not is_positive_int(size):
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
        """The reduction that a layer makes on an input with ``ndim`` axes, whatever its sizes.

        Args:
            layer: of torch.nn, of normviz, or of any class that has a plan (see ``plan_of``).
            ndim: the number of axes of the input.
            by: ``"statistic"``: elements that share a mean and a variance have one label;
                ``"weight"``: elements that meet the same weight and bias have one.

        Raises:
            ValueError: for any other layer, and for an ``ndim`` that the layer does not take.

        >>> from torch import nn
        >>> Reduction.of(nn.LayerNorm(4), 3)
        Reduction('n t c -> n t')
        >>> Reduction.of(nn.GroupNorm(2, 6), 3, by="weight")
        Reduction('n (g c) l -> g c', g=2)
        """
        from normviz.plans import plan_of  # which is built on this module

        if by not in ("statistic", "weight"):
            raise ValueError(f'by must be "statistic" or "weight": got {by!r}.')
        plan = plan_of(layer, ndim)
        return (plan.reduction if by == "statistic" else plan.sharing).of_any_size()

    def of_any_size(self) -> "Reduction":
        """The same without the sizes that it can do without.

        >>> Reduction("n (g c) l -> n g", g=2, c=3, l=5).of_any_size()
        Reduction('n (g c) l -> n g', g=2)
        """
        needed = {name for group in self.axes for name in group[:-1]}
        return Reduction(self.pattern, **{n: size for n, size in self.sizes if n in needed})

    def with_whole_axes(self) -> "Reduction":
        """The same slices, with groups that are kept whole as one axis each, of any size.

        >>> Reduction("n (g c) l -> g c", g=2).with_whole_axes()
        Reduction('n c l -> c')
        """
        left, right = [], []
        for group in self.axes:
            kept = [name for name in group if name in self.kept]
            if len(kept) not in (0, len(group)):
                return self.of_any_size()
            left.append(group[-1])
            right += group[-1:] if kept else ()
        return Reduction(f"{' '.join(left)} -> {' '.join(right)}")

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
        return self.layout(shape).stat_shape

    def count(self, shape: tuple[int, ...]) -> int:
        """How many numbers feed each statistic.

        >>> Reduction("n c h w -> c").count((4, 3, 5, 5))
        100
        """
        return self.layout(shape).count

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
        layout = self.layout(shape)
        every = [range(size) for size in layout.shape]
        at = every if at is None else _positions(at, layout.shape)
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

        Raises:
            ValueError: if x is no array or tensor, does not fit, or has no such statistic.

        >>> Reduction("n c -> c").numbers(np.array([[1, 2], [3, 4], [5, 6]]), 1)
        array([2, 4, 6])
        """
        return self.slice_of(_array("x", x), label).reshape(-1)

    def slice_of(self, x, label: int):
        """The numbers that feed one statistic, as a view with an axis for each pooled one."""
        layout = self.layout(x.shape)
        index: list = [slice(None)] * len(layout.split)
        kept = (i for i in range(len(index)) if i not in layout.pooled)
        for i, position in zip(kept, self.locate(label, x.shape).values(), strict=True):
            index[i] = position
        return x.reshape(layout.split)[tuple(index)]

    def first(self, label: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Where in x the first number stands that feeds a statistic.

        >>> Reduction("n (g c) -> g", g=2).first(1, (4, 6))
        (0, 3)
        """
        position, index = self.locate(label, shape), []
        for group in self.layout(shape).groups:
            at = 0
            for name, size in group:
                at = at * size + position.get(name, 0)
            index.append(at)
        return tuple(index)

    def label_at(self, index: tuple[int, ...], shape: tuple[int, ...]) -> int:
        """The statistic that the number at this place feeds.

        >>> Reduction("n c -> c").label_at((2, 1), (4, 3))
        1
        """
        return int(self.labels(shape, at=[[i] for i in index]).item())

    def mean(self, x):
        """One mean per statistic: an array or tensor, as x, of shape ``stat_shape(x.shape)``.

        The statistics of a NumPy array are float64. Those of a tensor have its dtype, but float32
        for half precision.

        Raises:
            ValueError: if x does not fit the pattern, holds no numbers to pool, or is an integer
                tensor.
        """
        x = _floating(x)
        layout = self.layout(x.shape)
        if not layout.count:
            raise ValueError(f"there is no mean over no numbers: x has shape {tuple(x.shape)}.")
        return _sum(x, layout) / layout.count

    def sum(self, x):
        """One sum per statistic, as ``mean`` gives one mean; the sum of no numbers is 0."""
        x = _floating(x)
        return _sum(x, self.layout(x.shape))

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
        if not (isinstance(correction, Real) and correction < count):
            raise ValueError(
                f"correction must be below the count: got correction={correction} for {count} "
                f"number{'' if count == 1 else 's'} per statistic."
            )
        mean = self.mean(x)
        if _is_tensor(x):
            centred = x - self.spread(mean, x.shape)
            return self.mean(centred * centred) * (count / (count - correction))
        return _squares(x, mean, self.layout(x.shape)) / (count - correction)

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
        layout = self.layout(shape)
        if tuple(_array("stat", stat).shape) != layout.stat_shape:
            raise ValueError(
                f"stat must have shape {layout.stat_shape} for an input of shape {tuple(shape)} "
                f"under {self.pattern!r}: got {tuple(stat.shape)}."
            )
        # First along the names of a group, which then merge into one axis; the rest needs no copy.
        kept = {*layout.kept_names}
        whole = [len(group) > 1 or group[0][0] in kept for group in layout.groups]
        sizes = zip(whole, layout.groups, strict=True)
        grouped = [size if one else 1 for one, group in sizes for _, size in group]
        merged = [size if one else 1 for one, size in zip(whole, layout.shape, strict=True)]
        stat = _broadcast(stat.reshape(layout.aligned), grouped)
        return _broadcast(stat.reshape(merged), layout.shape)

    def layout(self, shape) -> Layout:
        """What the pattern makes of a shape."""
        return lay_out(self.pattern, self.sizes, as_shape(shape))

    def name_axes(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        """One name for each axis of an array of this shape; for a group, the last that is pooled.

        >>> Reduction("n ... -> n").name_axes((4, 3, 2))
        ('n', 'axis 1', 'axis 2')
        >>> Reduction("n (c g) -> n g", g=2).name_axes((4, 6))  # whose groups are interleaved
        ('n', 'c')
        """
        return self.layout(shape).axis_names

    def locate(self, label: int, shape: tuple[int, ...]) -> dict[str, int]:
        """Where a statistic stands: the position on each kept axis that its label stands for.

        >>> Reduction("n c l -> n c").locate(4, (2, 3, 5))
        {'n': 1, 'c': 1}
        """
        layout = self.layout(shape)
        count = prod(layout.stat_shape)
        if not (hasattr(label, "__index__") and 0 <= label < count):
            raise ValueError(
                f"label must be 0 or more and below {count}, as {self.pattern!r} makes {count} "
                f"statistics of the shape {tuple(shape)}: got {label!r}."
            )
        position = np.unravel_index(label, layout.stat_shape)
        return dict(zip(layout.kept_names, map(int, position), strict=True))

    def __str__(self) -> str:
        over = f"over {', '.join(self.pooled)}" if self.pooled else "of each number alone"
        return f"{over}, one per {', '.join(self.kept)}" if self.kept else f"{over}, one for all"

    def __repr__(self) -> str:
        return spell_out(self.pattern, self.sizes)


def as_reduction(name: str, given) -> Reduction:
    """A reduction, or the pattern of one as a string.

    Raises:
        ValueError: for anything else, with what would do.
    """
    if isinstance(given, Reduction):
        return given
    if isinstance(given, str):
        return Reduction(given)
    kind = type(given).__name__
    mend = '"n t c -> n t" would do'
    if hasattr(given, "forward"):
        mend = "Reduction.of(layer, ndim) is what a layer makes, and explain(layer, x) shows it"
    raise ValueError(f"{name} must be a Reduction or a pattern: got {kind}; {mend}.")


def _positions(at, shape) -> list[list[int]]:
    try:
        listed = [[*map(operator.index, positions)] for positions in at]
    except TypeError:
        listed = []
    fits = len(listed) == len(shape) and all(
        0 <= min(positions, default=0) <= max(positions, default=0) < max(size, 1)
        for positions, size in zip(listed, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"at must list positions within {shape}, for each axis: got {at!r}.")
    return listed


def _floating(x):
    """x ready to be pooled: half-precision tensors as float32, lists as arrays."""
    refuse_mask(x)
    if _is_tensor(x):
        if not x.is_floating_point():
            raise ValueError(f"x must be a floating-point tensor: got {x.dtype}; use x.float().")
        return x.float() if x.dtype.itemsize < 4 else x
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"x must hold real numbers: got dtype {x.dtype}.")
    return x


def refuse_mask(x, name: str = "x") -> None:
    """A mask would be lost on the way, and what it hides would count.

    Raises:
        ValueError: if x is a masked array, of NumPy or of torch.
    """
    if isinstance(x, np.ma.MaskedArray):
        every, seen = "x.data", "x.compressed()"
    elif hasattr(x, "get_mask"):
        every, seen = "x.get_data()", "x.get_data()[x.get_mask()]"
    else:
        return
    raise ValueError(
        f"{name} must not be masked, as hidden numbers would count: got a masked array x; {every} "
        f"has all numbers, and {seen} those that are not hidden, as a vector."
    )


def _array(name: str, x):
    if not hasattr(x, "reshape"):
        raise ValueError(f"{name} must be an array or a tensor: got {x!r}.")
    return x


def _squares(x: np.ndarray, mean: np.ndarray, layout: Layout) -> np.ndarray:
    """The sums of squared distances from the mean, a part at a time: no copy of x is made."""
    x, mean = x.reshape(layout.split or (1,)), mean.reshape(layout.aligned or (1,))
    axis = int(np.argmax(x.shape))
    size = max(1, _PART * x.shape[axis] // max(1, x.size))
    total = np.zeros(mean.shape)
    for start in range(0, x.shape[axis], size):
        part = [slice(None)] * x.ndim
        part[axis] = slice(start, start + size)
        of_mean = tuple(part) if mean.shape[axis] > 1 else ...
        centred = x[tuple(part)] - mean[of_mean]
        total[of_mean] += np.square(centred, out=centred).sum(layout.pooled, keepdims=True)
    return total.reshape(layout.stat_shape)


def _sum(x, layout: Layout):
    # In float32, NumPy adds up one by one along outer axes, and torch along several runs of axes at
    # once. Over a million positions, either loses three of seven digits.
    wide = {} if _is_tensor(x) else {"dtype": np.float64}
    total = x.reshape(layout.split if layout.runs else (*layout.split, 1))
    for run in layout.runs or [(-1,)]:  # where nothing is pooled, a copy all the same
        total = total.sum(axis=run, keepdims=True, **wide)
    return total.reshape(layout.stat_shape)


def _is_tensor(x) -> bool:
    return hasattr(x, "is_floating_point")


def _broadcast(x, shape):
    return x.expand(shape) if _is_tensor(x) else np.broadcast_to(x, shape)
