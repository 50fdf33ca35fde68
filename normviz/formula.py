"""The one formula behind every layer.

    y = (x - μ) / √(σ² + ε) · γ + β

``plain`` is this formula word for word, in float64. torch differentiates it, in every mode and any
number of times, and small inputs need nothing else. For large ones there is ``accelerated.py``:
the same, faster, and to be skipped by whoever wants to know what a layer does.

In ``plain``, statistics stand as the numbers do, with 1 for each axis that they are taken over:
those of a BatchNorm of (N, C, H, W) have the shape (1, C, 1, 1), and meet the numbers by
broadcasting.

Sources: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1; Ba, Kiros and Hinton 2016,
"Layer Normalization", equations 3 and 4.
"""

import torch
from torch import Tensor

Axes = tuple[int, ...]


def plain(x: Tensor, weight, bias, over: Axes, eps: float, centred: bool = True, stored=None):
    """y in the dtype of x, and the mean and the biased variance that made it, in float64.

    Weight and bias meet the numbers by broadcasting; None is none. A statistic is taken over the
    axes in ``over``. If not centred, no mean is subtracted, and the mean square stands for the
    variance. ``stored`` is a mean and a variance from elsewhere, such as the running ones.

    >>> x = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    >>> y, mean, var = plain(x, None, None, over=(0,), eps=0)
    >>> y.tolist(), mean.tolist(), var.tolist()
    ([[-1.0, -1.0], [1.0, 1.0]], [[2.0, 20.0]], [[1.0, 100.0]])
    """
    numbers = precise(x)
    if stored is None and numbers.dtype == x.dtype:
        y, mean, var = in_units(x, over, eps, centred)
    else:
        mean, var = stored or (numbers.mean(over, keepdim=True), None)
        mean = mean if centred else torch.zeros_like(mean)
        deviations = numbers - mean
        var = deviations.square().mean(over, keepdim=True) if var is None else var
        y = deviations / (var + eps).sqrt()
    y = y if weight is None else y * weight  # float64 still
    y = y if bias is None else y + bias
    return y.to(x.dtype), mean, var


def in_units(x: Tensor, over: Axes, eps: float, centred: bool = True):
    """The same where no wider dtype is left: in a unit of about the size of the numbers.

    So their squares have a place. And what rounding takes from a mean is subtracted after it.
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
    small = (eps / unit / unit).clamp(min=smallest if eps else 0)
    return x / (var + small).sqrt(), (mean + rest.nan_to_num()) * unit, var * unit * unit


@torch.no_grad()
def unit_of(x: Tensor, over: Axes, eps: float) -> Tensor:
    """Of each slice, a power of two, which rounds nothing off."""
    limits = torch.finfo(x.dtype)
    # The mean of √|x|, squared: never infinite, and hardly moved by an outlier.
    size = average(x.abs().sqrt(), over).square()
    return size.clamp(max(eps**0.5, limits.tiny), limits.max / 2).log2().floor().exp2()


def average(x: Tensor, over: Axes) -> Tensor:
    """Means, run by run of neighbouring axes: over several runs at once, torch loses digits."""
    while over:
        run = len(over) - 1
        while run and over[run - 1] == over[run] - 1:
            run -= 1
        x, over = x.mean(over[run:], keepdim=True), over[:run]
    return x


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are done in: float32 for half precision, as in torch."""
    return torch.promote_types(dtype, torch.float32)


def widen(x: Tensor) -> Tensor:
    """x in the dtype that sums are done in."""
    return x.to(wide(x.dtype))


def precise(x: Tensor) -> Tensor:
    """x in float64, where its device has that: Apple's has not."""
    return x if x.is_mps else x.double()
