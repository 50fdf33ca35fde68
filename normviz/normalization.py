"""normalize: the formula, of the numbers that a reduction pools.

Small inputs go by ``plain``, and large ones by its faster twin; what comes out is the same.
"""

from torch import Tensor

from normviz.accelerated import InBlocks, takes
from normviz.formula import plain, precise, wide
from normviz.reduction import Reduction, as_reduction


def normalize(
    x: Tensor,
    reduction: Reduction | str,
    eps: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    shared: Reduction | str | None = None,
    *,
    centred: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """x with mean 0 and variance 1 in each slice, then scaled and shifted.

    Args:
        x: a floating-point tensor of any shape that the reductions take.
        reduction: which numbers share a mean and a variance; a pattern without sizes will do.
        eps: added to the biased variance, inside the root.
        weight: γ, of the statistics' shape under ``shared``; None for none.
        bias: β, likewise.
        shared: which numbers share a weight and a bias; if not given, those of ``reduction``.
        centred: False to subtract no mean: it counts as 0, and the mean square is the variance.

    Returns:
        The normalized tensor (shape and dtype of x), and the mean and the biased variance (the
        statistics' shape; the dtype of x, but float32 for half precision). All three can be
        differentiated, any number of times, in reverse and in forward mode.

    Raises:
        ValueError: if x, the weight or the bias does not fit its reduction, or x holds no numbers
            to pool or is no floating-point tensor.

    >>> import torch
    >>> x = torch.tensor([[1.0, 3.0], [2.0, 6.0]])
    >>> normalized, mean, var = normalize(x, Reduction("n c -> n"), eps=0)
    >>> normalized.tolist(), mean.tolist(), var.tolist()
    ([[-1.0, 1.0], [-1.0, 1.0]], [2.0, 4.0], [1.0, 4.0])
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a torch tensor: got {type(x).__name__}.")
    if not x.is_floating_point():
        raise ValueError(f"x must be a floating-point tensor: got {x.dtype}; use x.float().")
    reduction = as_reduction("reduction", reduction)
    shared = reduction if shared is None else as_reduction("shared", shared)
    if not reduction.count(x.shape):
        raise ValueError(f"there is no mean over no numbers: x has shape {tuple(x.shape)}.")
    for name, parameter in {"weight": weight, "bias": bias}.items():
        if parameter is not None and parameter.shape != shared.stat_shape(x.shape):
            raise ValueError(
                f"{name} must have shape {shared.stat_shape(x.shape)}, as {shared!r} says of x: "
                f"got {tuple(parameter.shape)}."
            )
    y, mean, var = normalize_precisely(x, reduction, eps, weight, bias, shared, centred=centred)
    return y, mean.to(wide(x.dtype)), var.to(wide(x.dtype))


def normalize_precisely(
    x, reduction: Reduction, eps, weight=None, bias=None, shared=None, *, centred=True, stored=None
):
    """As ``normalize``, without its checks, and with mean and variance in float64.

    ``stored`` is a mean and a variance per slice that normalize instead of the numbers' own.
    """
    layout, shared = reduction.layout(x.shape), shared or reduction
    weight, bias = (None if p is None else _align(p, shared, layout) for p in (weight, bias))
    if stored is not None:
        stored = tuple(precise(stat).reshape(layout.aligned) for stat in stored)
    way = InBlocks.apply if takes(x, weight, bias) else plain
    taken_apart = x if layout.split == layout.shape else x.reshape(layout.split)
    y, mean, var = way(taken_apart, weight, bias, layout.pooled, eps, centred, stored)
    y = y if y.shape == x.shape else y.reshape(x.shape)
    return y, mean.reshape(layout.stat_shape), var.reshape(layout.stat_shape)


def _align(parameter: Tensor, shared: Reduction, layout) -> Tensor:
    """A weight or a bias, of a shape that meets the numbers when their groups are taken apart."""
    own = shared.layout(layout.shape)
    if own.split == layout.split:
        return parameter.reshape(own.aligned)
    spread = shared.spread(parameter.reshape(own.stat_shape), layout.shape)
    return spread.reshape(layout.split)


def standardize(x: Tensor, reduction: Reduction, mean, var, eps, inside=True) -> Tensor:
    """``(x - mean) / sqrt(var + eps)`` with statistics from elsewhere, such as mixed ones.

    ``inside`` is False where ε is added to the root, and None where it is the least divisor.
    """
    if inside:
        std = (var + eps).sqrt()
    else:
        std = var.sqrt() + eps if inside is False else var.sqrt().clamp(min=eps)
    return (x - reduction.spread(mean, x.shape)) / reduction.spread(std, x.shape)
