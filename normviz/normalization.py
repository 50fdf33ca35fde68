"""normalize: the one formula behind every layer, and its derivative by hand.

    y = (x - μ) / √(σ² + ε) · γ + β

One reduction says which numbers share μ and σ², another one which share γ and β. In plain torch,
and without γ and β, that is

    >>> def plain(x, reduction, eps):
    ...     mean = reduction.mean(x)
    ...     centred = x - reduction.spread(mean, x.shape)
    ...     var = reduction.mean(centred**2)
    ...     return centred / reduction.spread((var + eps).sqrt(), x.shape)
    >>> x, per_channel = torch.randn(8, 3, 5), Reduction("n c l -> c")
    >>> normalized, _, _ = normalize(x, per_channel, eps=1e-5)
    >>> torch.allclose(normalized, plain(x, per_channel, eps=1e-5), atol=1e-6)
    True

and all that follows makes just this fast, exact, and possible to differentiate.

Sources: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1 and the gradients in section 3;
Ba, Kiros and Hinton 2016, "Layer Normalization", equations 3 and 4; Chan, Golub and LeVeque 1983,
"Algorithms for Computing the Sample Variance", on what rounding leaves in the mean.
"""

from math import inf

import torch

from normviz.blocks import Blocks
from normviz.reduction import Reduction, as_reduction


def normalize(
    x: torch.Tensor,
    reduction: Reduction | str,
    eps: float,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    shared: Reduction | str | None = None,
    *,
    centred: bool = True,
):
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
        differentiated, any number of times, in reverse mode. Forward mode raises
        NotImplementedError: torch's custom functions would get its second derivatives wrong.

    Raises:
        ValueError: if x, the weight or the bias does not fit its reduction, or x holds no numbers
            to pool or is no floating-point tensor.

    >>> x = torch.tensor([[1.0, 3.0], [2.0, 6.0]])
    >>> normalized, mean, var = normalize(x, Reduction("n c -> n"), eps=0)
    >>> normalized.tolist(), mean.tolist(), var.tolist()
    ([[-1.0, 1.0], [-1.0, 1.0]], [2.0, 4.0], [1.0, 4.0])
    """
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"x must be a torch tensor: got {type(x).__name__}.")
    reduction = as_reduction("reduction", reduction)
    shared = reduction if shared is None else as_reduction("shared", shared)
    y, mean, var = normalize_precisely(x, reduction, eps, weight, bias, shared, centred=centred)
    return y, mean.to(wide(x.dtype)), var.to(wide(x.dtype))


def normalize_precisely(
    x, reduction: Reduction, eps: float, weight=None, bias=None, shared=None, *, centred=True
):
    """The same, with mean and variance in float64, whatever the dtype of x."""
    if not x.is_floating_point():
        raise ValueError(f"x must be a floating-point tensor: got {x.dtype}; use x.float().")
    shared = shared or reduction
    for name, parameter in {"weight": weight, "bias": bias}.items():
        if parameter is not None and parameter.shape != shared.stat_shape(x.shape):
            raise ValueError(
                f"{name} must have shape {shared.stat_shape(x.shape)}, as {shared!r} says of x: "
                f"got {tuple(parameter.shape)}."
            )
    y, mean, var, _ = _Normalize.apply(x, weight, bias, reduction, shared, eps, centred)
    return y, mean, var


def standardize(x, reduction: Reduction, mean, var, eps: float) -> torch.Tensor:
    """``(x - mean) / sqrt(var + eps)`` with statistics from elsewhere, such as the running ones."""
    std = (var + eps).sqrt()
    return (x - reduction.spread(mean, x.shape)) / reduction.spread(std, x.shape)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are done in: float32 for half precision, as in torch."""
    return torch.promote_types(dtype, torch.float32)


def widen(x: torch.Tensor) -> torch.Tensor:
    """x in the dtype that sums are done in."""
    return x.to(wide(x.dtype))


def precise(x: torch.Tensor) -> torch.Tensor:
    """x in float64, where its device has that: Apple's has not."""
    return x if x.is_mps else x.double()


class _Normalize(torch.autograd.Function):
    """The formula and its derivative.

    What torch's own layer does that this one does not: it is a kernel in C++, compiled for the
    vector units of the processor. LayerNorm's reads a slice once for both sums, which grow in
    registers, and once more to write y; BatchNorm's reads x three times. Nothing in between goes to
    memory. Here each step is an operation of its own, called from Python: about ten times, forward,
    it reads all numbers and writes as many back, and each call takes a microsecond or two before
    the first number.

    Three things make up for most of it. Large tensors are taken some slices at a time, see Blocks.
    Steps are done in place, as fresh memory is slower than all arithmetic. And for the backward
    pass, only x and three numbers per slice are kept; y is worked out anew, which costs less than
    to write it down.
    """

    @staticmethod
    def forward(x, weight, bias, reduction, shared, eps, centred):
        y, blocks, statistics = torch.empty_like(x), Blocks(reduction, x), []
        cuts = blocks.cut(y), blocks.cut(x), *(blocks.cut_shared(p, shared) for p in (weight, bias))
        for block in zip(*cuts, strict=False):
            statistics.append(_normalize_into(*block, reduction, shared, eps, centred))
        return y, *blocks.join(statistics, reduction)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, ctx.reduction, ctx.shared, ctx.eps, ctx.centred = inputs
        _, mean, var, std = output
        ctx.mark_non_differentiable(std)
        ctx.set_materialize_grads(False)
        # Mean and variance are outputs, so autograd knows how they depend on x, and can find a
        # second derivative through them. Anything else that is kept would count as a constant.
        ctx.save_for_backward(x, weight, mean, var, std)

    @staticmethod
    def backward(ctx, grad, grad_mean, grad_var, _):
        x, weight, mean, var, std = ctx.saved_tensors
        reduction, shared, count = ctx.reduction, ctx.shared, ctx.reduction.count(x.shape)
        # A second derivative needs the graph of this one: nothing in place then, and no blocks.
        graph = torch.is_grad_enabled()
        if graph:
            std = (var + ctx.eps).sqrt()
        grad = torch.zeros_like(x) if grad is None else grad
        none = torch.zeros_like(mean)
        centre = mean.to(wide(x.dtype))  # which may be too narrow for all digits of the mean
        statistics = (
            centre,
            mean - centre,
            1 / std,
            # What comes back through mean and variance, ready to be divided by std with the rest.
            none if grad_mean is None or not ctx.centred else grad_mean * std / count,
            none if grad_var is None else 2 * grad_var * std.square() / count,
        )
        statistics = [statistic.to(centre.dtype) for statistic in statistics]
        blocks = Blocks(reduction, x, whole=graph)
        cuts = *map(blocks.cut, (grad, x)), blocks.cut_shared(weight, shared)
        cuts = zip(*cuts, *map(blocks.cut_statistic, statistics), strict=False)
        if graph or blocks.small:
            dx, *shares = _pull_back(*next(cuts), reduction, shared, ctx.centred)
        else:
            dx, shares = torch.empty_like(grad), []
            for target, block in zip(blocks.cut(dx), cuts, strict=False):
                done, *share = _pull_back(*block, reduction, shared, ctx.centred, out=widen(target))
                target.copy_(done)
                shares.append(share)
            shares = blocks.join(shares, shared)
        dweight, dbias = shares
        _, of_weight, of_bias, *_ = ctx.needs_input_grad
        return dx, dweight if of_weight else None, dbias if of_bias else None, *[None] * 4

    @staticmethod
    def vmap(info, in_dims, x, weight, bias, reduction, shared, eps, centred):
        """A batch of inputs, normalized by reductions that keep one axis more."""
        batched = (
            None
            if tensor is None
            else tensor.expand(info.batch_size, *tensor.shape)
            if dim is None
            else tensor.movedim(dim, 0)
            for tensor, dim in zip((x, weight, bias), in_dims[:3], strict=True)
        )
        reductions = map(_keep_one_more, (reduction, shared))
        return _Normalize.apply(*batched, *reductions, eps, centred), (0, 0, 0, 0)


def _normalize_into(y, x, weight, bias, reduction: Reduction, shared: Reduction, eps, centred):
    """Write y; return mean, biased variance, and √(variance + ε), in float64."""
    out = y if y.dtype == wide(x.dtype) else None
    centred, scale, offset, statistics = _measure(widen(x), reduction, eps, centred, out)
    if shared == reduction:  # then a weight meets the scale of its slice, not all numbers in it
        _transform(scale, weight, None)
        _transform(offset, weight, bias)
    _transform(centred, reduction.spread(scale, x.shape), reduction.spread(offset, x.shape))
    if shared != reduction:
        _transform(centred, weight, bias)
    if centred is not y:
        y.copy_(centred)
    return statistics


def _transform(y, weight, bias) -> None:
    """Scale and shift y in place."""
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias


def _measure(x, reduction: Reduction, eps: float, is_centred: bool, out=None):
    """x - c, for the rounded mean c of each slice, and what makes y of it.

    With r = mean(x - c), which is what the rounding took from the mean, and s = 1/√(σ² + ε):

        μ = c + r
        σ² = mean((x - c)²) - r²        safe, as r is tiny
        y = (x - μ)·s = (x - c)·s - r·s

    If nothing is to be centred, c and r are 0.

    Returns:
        x - c; the scale s and the offset -r·s; and, in float64, μ, σ² and √(σ² + ε).
    """
    centre = reduction.mean(x) if is_centred else x.new_zeros(reduction.stat_shape(x.shape))
    everywhere = reduction.spread(centre, x.shape)
    centred = torch.sub(x, everywhere, out=out)
    rest = reduction.mean(centred) if is_centred else centre
    var = reduction.mean(centred.square_()) - rest.square()
    torch.sub(x, everywhere, out=centred)  # again, which costs less than fresh memory for squares
    std = (var + eps).sqrt()
    scale = 1 / std
    offset = -rest * scale
    statistics = precise(centre) + rest, precise(var), precise(std)
    suffices = _suffices(centre, var, eps)
    if x.is_meta or suffices.all():
        return centred, scale, offset, statistics
    # The other slices stay as they are, to the last bit.
    careful, *with_care = _normalize_with_care(x, reduction, eps, is_centred)
    centred = torch.where(reduction.spread(suffices, x.shape), centred, careful.to(x.dtype))
    scale, offset = scale.where(suffices, 1), offset.where(suffices, 0)
    pairs = zip(statistics, with_care, strict=True)
    return centred, scale, offset, [one.where(suffices, other) for one, other in pairs]


def _suffices(mean, var, eps: float):
    """Where the dtype can tell the variance.

    The rounded mean may be off by about its own size times the precision of the dtype; a spread
    under four times that may be rounding and nothing else. And very small squares have lost digits,
    unless ε outweighs them; very large ones have become infinite.
    """
    limits = torch.finfo(var.dtype)
    least = (4 * limits.eps * precise(mean)).square().clamp(min=limits.tiny / limits.eps - eps)
    return (least <= var) & (var < inf)


def _normalize_with_care(x, reduction: Reduction, eps: float, is_centred: bool):
    """y, μ, σ² and √(σ² + ε), in float64, and in a unit of about the size of the numbers."""
    x, limits = precise(x), torch.finfo(torch.float64)
    # The mean of √|x|, squared: never infinite, and hardly moved by an outlier. As a power of two,
    # it rounds nothing off.
    size = reduction.mean(x.abs().sqrt()).square()
    unit = size.clamp(max(eps**0.5, limits.tiny), limits.max / 2).log2().floor().exp2()
    x = x / reduction.spread(unit, x.shape)
    mean = rest = torch.zeros_like(unit)
    if is_centred:
        mean = reduction.mean(x)
        x -= reduction.spread(mean, x.shape)
        rest = reduction.mean(x)
        x -= reduction.spread(rest, x.shape)
    var = reduction.mean(x.square())
    std = (var + eps / unit / unit).sqrt()
    x /= reduction.spread(std, x.shape)
    return x, (mean + rest.nan_to_num()) * unit, var * unit.square(), std * unit


def _pull_back(
    grad, x, weight, centre, rest, scale, by_mean, by_var, reduction, shared, is_centred, out=None
):
    """The gradients of x, of the weight and of the bias.

    Moving one x moves its own y, and through μ and σ every y of its slice. That takes two things
    out of the gradient: its mean, and its projection on y. With n numbers per slice:

        dx = (g - mean(g) - y·mean(g·y)) / σ  +  g_μ/n  +  2·g_σ²·(x - μ)/n

    As x - μ = σ·y, the last two terms fold into the two means, as ``by_mean`` = g_μ·σ/n and
    ``by_var`` = 2·g_σ²·σ²/n. Where nothing is centred, what comes from the mean is missing.
    ``out`` is memory to work in.
    """

    def spread(statistic):
        return reduction.spread(statistic, x.shape)

    normalized = x.to(centre.dtype, copy=True) if out is None else out.copy_(x)
    normalized -= spread(centre)
    normalized -= spread(rest)
    normalized *= spread(scale)
    grad = widen(grad)
    product = grad * normalized
    dweight, dbias = shared.sum(product), shared.sum(grad)
    own, count = shared == reduction, reduction.count(x.shape)
    if weight is not None and not own:
        product = product * weight if out is None else product.mul_(weight)
    projection = dweight / count if own else reduction.mean(product)
    del product  # its memory serves the next one
    if weight is not None:
        grad = grad * (spread(weight) if own else weight)
    mean = dbias / count if own else reduction.mean(grad)
    if weight is not None and own:
        mean, projection = mean * weight, projection * weight
    if not is_centred:
        mean = torch.zeros_like(mean)
    mean, projection = spread(by_mean - mean), spread(by_var - projection)
    if out is None:
        dx = (normalized * projection + mean + grad) * spread(scale)
    else:
        dx = normalized.mul_(projection).add_(mean).add_(grad).mul_(spread(scale))
    return dx.to(x.dtype), dweight, dbias


def _keep_one_more(reduction: Reduction) -> Reduction:
    """The same reduction of each element of a batch, along a new axis in front."""
    name = "batch" + "_" * len(reduction.pattern)  # no axis has this name
    left, _, right = reduction.pattern.partition("->")
    return Reduction(f"{name} {left} -> {name} {right}", **dict(reduction.sizes))
