"""Statistics of parts, and how they join: *within + between*.

A part of a slice tells three things: how many numbers it has, their mean, and the sum of their
squared distances from that mean. From these alone, those of the whole follow: the squares within
the parts add up, and a part whose mean is off adds its distance, squared, once for each number.

The parts may be blocks that fit a cache, pieces of a table, or the batches of several workers.

Source: Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance", equation 2.1.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from normviz.formula import Axes, precise, total


class Moments(NamedTuple):
    """What a part tells of its slices, in float64, with 1 for each axis that is pooled.

    >>> x = torch.tensor([[1.0], [2.0], [6.0]])
    >>> parts = [Moments.of(part, over=(0,)) for part in x.split([1, 2])]
    >>> [(count, mean.item(), squares.item()) for count, mean, squares in parts]
    [(1, 1.0, 0.0), (2, 4.0, 8.0)]
    >>> count, mean, squares = Moments.join(parts)
    >>> count, mean.item(), squares.item()
    (3, 3.0, 14.0)
    """

    count: int  # of numbers in each slice
    mean: Tensor
    squares: Tensor  # of the distances from that mean, added up

    @classmethod
    def of(cls, x: Tensor, over: Axes, near: Tensor | None = None, *room: Tensor | None):
        """Those of one part, measured from numbers near its mean.

        With r, the mean of x - near: the mean is near + r, and the squares about it are those
        about ``near`` less count·r², which is safe as r is small.

        Args:
            x: the part, of one number or more per slice.
            over: the axes that are pooled.
            near: if not given, the mean itself, rounded to the dtype of x.
            room: memory for x - near and for its squares: what was just used is faster than fresh.
        """
        count = count_of(x, over)
        near = total(x, over) / count if near is None else near
        off = torch.sub(x, near, out=room[0] if room else None)
        rest = precise(total(off, over) / count)
        squares = torch.mul(off, off, out=room[1] if room else None)
        squares = precise(total(squares, over)) - count * rest.square()
        return cls(count, precise(near) + rest, squares)

    @classmethod
    def join(cls, parts: Sequence["Moments"]) -> "Moments":
        """Those of all parts together."""
        if len(parts) == 1:
            return parts[0]
        counts, means, squares = zip(*parts, strict=True)
        count, means = sum(counts), torch.stack(means)
        shares = means.new_tensor(counts) / max(count, 1)
        shares = shares.reshape(-1, *[1] * (means.ndim - 1))  # (parts, 1, 1, …)
        mean = (shares * means).sum(0)
        between = (shares * (means - mean).square()).sum(0) * count
        return cls(count, mean, torch.stack(squares).sum(0) + between)


def count_of(x: Tensor, over: Axes) -> int:
    """How many numbers each statistic is taken over."""
    return prod(x.shape[axis] for axis in over)
