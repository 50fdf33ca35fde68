"""The one formula behind every layer.

    y = (x - μ) / √(σ² + ε) · γ + β

``plain`` is this formula word for word, in float64. torch differentiates it, in every mode and any
number of times, and small inputs need nothing else. For large ones there is ``accelerated.py``:
the same, faster, and to be skipped by whoever wants to know what a layer does.

The numbers that share a mean μ and a variance σ² are a slice. Statistics keep the axes of x, with
size 1 where they were taken over one: a BatchNorm of (N, C, H, W) is ``over=(0, 2, 3)``, with one
mean per channel, of shape (1, C, 1, 1); a LayerNorm of (N, T, C) is ``over=(2,)``. So statistics,
the weight γ and the bias β meet the numbers by broadcasting.

Sources: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1; Ba, Kiros and Hinton 2016,
"Layer Normalization", equations 3 and 4.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

Axes = tuple[int, ...]


def plain(x: Tensor, weight, bias, over: Axes, eps: float, centred: bool = True, stored=None):
    """y in the dtype of x, and the mean and the biased variance that made it, in float64.

    A weight of None scales nothing, and a bias of None shifts nothing. If not centred, no mean is
    subtracted, and the mean square stands for the variance. ``stored`` is a mean and a variance
    from elsewhere, such as the running ones.

    >>> x = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    >>> y, mean, var = plain(x, None, None, over=(0,), eps=0)
    >>> y.tolist(), mean.tolist(), var.tolist()
    ([[-1.0, -1.0], [1.0, 1.0]], [[2.0, 20.0]], [[1.0, 100.0]])
    """
    numbers = precise(x)
    if stored is not None:
        mean, var = stored
        y = (numbers - mean) / (var + eps).sqrt()
    elif numbers.dtype == x.dtype:  # it is float64 already, and nothing wider is left
        y, mean, var = in_units(x, over, eps, centred)
    else:
        mean = average(numbers, over)
        mean = mean if centred else torch.zeros_like(mean)
        deviations = numbers - mean
        var = average(deviations.square(), over)
        y = deviations / (var + eps).sqrt()
    y = y if weight is None else y * weight
    y = y if bias is None else y + bias
    return y.to(x.dtype), mean, var


def in_units(x: Tensor, over: Axes, eps: float, centred: bool = True):
    """The same where no wider dtype is left to hold all squares and all digits of a mean.

    The numbers are divided by a power of two near their size, so that their squares neither
    overflow nor underflow. A second mean, of what the first one left, removes its rounding.
    """
    unit, smallest = unit_of(x, over, eps), torch.finfo(x.dtype).tiny
    x = x / unit
    mean = rest = torch.zeros_like(unit)
    if centred:
        mean = average(x, over)
        x = x - mean
        rest = average(x, over)
        x = x - rest
    var = average(x.square(), over)
    eps_in_units = (eps / unit / unit).clamp(min=smallest if eps else 0)  # it must not become 0
    mean = mean + rest.nan_to_num()  # an infinite mean stays one
    return x / (var + eps_in_units).sqrt(), mean * unit, var * unit * unit


@torch.no_grad()
def unit_of(x: Tensor, over: Axes, eps: float) -> Tensor:
    """A power of two for each slice: to divide by it rounds nothing off."""
    limits = torch.finfo(x.dtype)
    # The mean of √|x|, squared: never infinite, and hardly moved by an outlier.
    size = average(x.abs().sqrt(), over).square()
    return size.clamp(max(eps**0.5, limits.tiny), limits.max / 2).log2().floor().exp2()


def average(x: Tensor, over: Axes) -> Tensor:
    """One mean per slice."""
    for run in runs_of(over):
        x = x.mean(run, keepdim=True)
    return x


def total(x: Tensor, over: Axes) -> Tensor:
    """One sum per slice."""
    for run in runs_of(over):
        x = x.sum(run, keepdim=True)
    return x


def runs_of(over: Axes) -> Iterator[Axes]:
    """Axes that are neighbours, the last ones first: over several runs at once, torch loses digits.

    >>> [*runs_of((0, 2, 3))]
    [(2, 3), (0,)]
    """
    while over:
        run = len(over) - 1
        while run and over[run - 1] == over[run] - 1:
            run -= 1
        yield over[run:]
        over = over[:run]


def is_traced() -> bool:
    """Whether torch.func or torch.compile look inside, so that no number may decide anything."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are done in: float32 for half precision, as in torch."""
    return torch.promote_types(dtype, torch.float32)


def widen(x: Tensor) -> Tensor:
    """x in the dtype that sums are done in."""
    return x.to(wide(x.dtype))


def precise(x: Tensor) -> Tensor:
    """x in float64, where its device has that: Apple's has not."""
    return widen(x) if x.is_mps else x.double()
