"""normalize: the one formula behind every layer, and its derivative by hand.

    y = (x - μ) / √(σ² + ε) · γ + β

One reduction says which numbers share μ and σ², another one which share γ and β.

Sources: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1 and the gradients in section 3;
Ba, Kiros and Hinton 2016, "Layer Normalization", equations 3 and 4; Chan, Golub and LeVeque 1983,
"Algorithms for Computing the Sample Variance", on what rounding leaves in the mean.
"""

from functools import partial
from itertools import repeat
from math import inf

import torch

from normviz.reduction import Reduction

# How many numbers each thread works on at a time: few enough for the cache of its core (2 MiB of
# float32), and enough to make the cost of starting an operation small.
BLOCK = 2**19


def normalize(
    x: torch.Tensor,
    reduction: Reduction,
    eps: float,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    shared: Reduction | None = None,
):
    """x with mean 0 and variance 1 in each slice, then scaled and shifted.

    Args:
        x: a floating-point tensor of any shape that the reductions take.
        reduction: which numbers share a mean and a variance.
        eps: added to the biased variance, inside the root.
        weight: γ, of the statistics' shape under ``shared``; None for none.
        bias: β, likewise.
        shared: which numbers share a weight and a bias; if not given, those of ``reduction``.

    Returns:
        The normalized tensor (shape and dtype of x), and the mean and the biased variance (the
        statistics' shape; the dtype of x, but float32 for half precision). All three can be
        differentiated, any number of times, in reverse mode. Forward mode raises
        NotImplementedError: torch's custom functions would get its second derivatives wrong.

    >>> x = torch.tensor([[1.0, 3.0], [2.0, 6.0]])
    >>> normalized, mean, var = normalize(x, Reduction("n c -> n"), eps=0)
    >>> normalized.tolist(), mean.tolist(), var.tolist()
    ([[-1.0, 1.0], [-1.0, 1.0]], [2.0, 4.0], [1.0, 4.0])
    """
    if not x.is_floating_point():
        raise ValueError(f"x must be a floating-point tensor: got {x.dtype}; use x.float().")
    y, mean, var = _Normalize.apply(x, weight, bias, reduction, shared or reduction, eps)
    return y, mean.to(wide(x.dtype)), var.to(wide(x.dtype))


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
    """The formula and its derivative, some slices at a time.

    What torch's own layer does that this one does not: it is one kernel in C++, compiled for the
    vector units of the processor. That loads a number once and lets it take part in all sums at
    once, in registers; it loads it once more to write y, and nothing in between goes to memory.
    Here each step is an operation of its own, written in Python. Some ten times it reads all
    numbers of a tensor and writes as many back, and each time torch has to be called, which takes
    a microsecond or two.

    Three things make up for most of it. The slices are taken as many at a time as fill a BLOCK, so
    all steps but the first and the last find them in the cache: without that, both passes take 1.8
    times as long on large images or texts. Steps are done in place, since fresh memory is slower
    than all arithmetic. And for the backward pass, only x is kept and two numbers per slice; y is
    worked out anew, which costs less than to write it down.
    """

    @staticmethod
    def forward(x, weight, bias, reduction, shared, eps):
        y, blocks, statistics = torch.empty_like(x), _Blocks(reduction, x), []
        cuts = blocks.cut(y), blocks.cut(x), *(blocks.cut_shared(p, shared) for p in (weight, bias))
        for block in zip(*cuts, strict=False):
            statistics.append(_normalize_into(*block, reduction, shared, eps))
        return y, *blocks.join(statistics, reduction)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, ctx.reduction, ctx.shared, ctx.eps = inputs
        _, mean, var = output
        # Outputs are saved, so a second derivative finds its way through them, back to this class.
        ctx.save_for_backward(x, weight, mean, var)

    @staticmethod
    def backward(ctx, grad, grad_mean, grad_var):
        x, weight, mean, var = ctx.saved_tensors
        reduction, shared = ctx.reduction, ctx.shared
        count, var = reduction.count(x.shape), var + ctx.eps
        centre = mean.to(wide(x.dtype))
        statistics = (
            centre,
            mean - centre,
            var.rsqrt(),
            grad_mean * var.sqrt() / count,
            2 * grad_var * var / count,
        )
        statistics = (statistic.to(centre.dtype) for statistic in statistics)
        graph = torch.is_grad_enabled()  # for a second derivative, in one piece
        blocks, dx, shares = _Blocks(reduction, x, whole=graph), torch.empty_like(grad), []
        cuts = *map(blocks.cut, (grad, x)), blocks.cut_shared(weight, shared)
        cuts = zip(*cuts, *map(blocks.cut_statistic, statistics), strict=False)
        for target, block in zip(blocks.cut(dx), cuts, strict=False):
            done, *share = _pull_back(*block, reduction, shared, None if graph else widen(target))
            shares.append(share)
            if graph:
                dx = done
            elif done is not target:
                target.copy_(done)
        dweight, dbias = blocks.join(shares, shared)
        _, of_weight, of_bias, *_ = ctx.needs_input_grad
        return dx, dweight if of_weight else None, dbias if of_bias else None, None, None, None

    @staticmethod
    def vmap(info, in_dims, x, weight, bias, reduction, shared, eps):
        """A batch of inputs, normalized by reductions that keep one axis more."""
        batched = (
            None
            if tensor is None
            else tensor.expand(info.batch_size, *tensor.shape)
            if dim is None
            else tensor.movedim(dim, 0)
            for tensor, dim in zip((x, weight, bias), in_dims, strict=False)
        )
        reductions = map(_keep_one_more, (reduction, shared))
        return _Normalize.apply(*batched, *reductions, eps), (0, 0, 0)


def _normalize_into(y, x, weight, bias, reduction: Reduction, shared: Reduction, eps: float):
    """Write y; return the mean and the biased variance, in float64."""
    out = y if y.dtype == wide(x.dtype) else None
    centred, scale, offset, mean, var = _measure(widen(x), reduction, eps, out)
    if shared == reduction:  # then a weight meets the scale of its slice, not all numbers in it
        scale, offset = _transform(scale, weight, None), _transform(offset, weight, bias)
    centred *= reduction.spread(scale, x.shape)
    centred += reduction.spread(offset, x.shape)
    if shared != reduction:
        centred = _transform(centred, weight, bias)
    if centred is not y:
        y.copy_(centred)
    return mean, var


def _transform(y, weight, bias):
    """y, scaled and shifted in its own memory."""
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    return y


def _measure(x, reduction: Reduction, eps: float, out=None):
    """x - c, for a number c near the mean of each slice, and what makes y of it.

    Returns:
        x - c; scale and offset, with y = (x - c)·scale + offset; the mean and the biased variance,
        both in float64.
    """
    centre = reduction.mean(x)
    everywhere = reduction.spread(centre, x.shape)
    centred = torch.sub(x, everywhere, out=out)
    rest = reduction.mean(centred)  # it would be 0, but for the rounding of the mean
    var = reduction.mean(centred.square_()) - rest.square()
    torch.sub(x, everywhere, out=centred)  # again, which costs less than fresh memory for squares
    if not _suffices(centre, var, eps):
        return _measure_with_care(x, reduction, eps)
    scale = (var + eps).rsqrt()
    return centred, scale, -rest * scale, precise(centre) + rest, precise(var)


def _suffices(mean, var, eps: float) -> bool:
    """Whether the dtype can tell the variance: it is neither out of its range nor all rounding."""
    limits = torch.finfo(var.dtype)
    least = (4 * limits.eps * precise(mean)).square().clamp(min=limits.tiny / limits.eps - eps)
    return var.is_meta or bool(((least <= var) & (var < inf)).all())


def _measure_with_care(x, reduction: Reduction, eps: float):
    """The same in float64, and in a unit of about the size of the numbers in each slice."""
    size = reduction.mean(precise(x).abs().sqrt()).square()
    unit = size.clamp(min=eps**0.5).log2().floor().exp2()  # a power of two: it rounds nothing off
    centred, mean = x / reduction.spread(unit, x.shape), 0
    for _ in range(2):  # the second time for what the first one leaves by rounding
        rest = reduction.mean(centred)
        centred -= reduction.spread(rest, x.shape)
        mean += rest
    var = reduction.mean(centred.square())
    scale = (var + eps / unit / unit).rsqrt()
    return centred, scale, torch.zeros_like(scale), mean * unit, var * unit.square()


def _pull_back(grad, x, weight, centre, rest, scale, by_mean, by_var, reduction, shared, out):
    """The gradients of x, of the weight and of the bias.

    Moving one x moves its own y, and through μ and σ every y of its slice. That takes two things
    out of the gradient: its mean, and its projection on y. With n numbers per slice:

        dx = (g - mean(g) - y·mean(g·y)) / σ  +  g_μ/n  +  2·g_σ²·(x - μ)/n

    With x - μ = σ·y, the last two terms fold into the two means, as ``by_mean`` and ``by_var``.
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
    if shared == reduction:
        count = reduction.count(x.shape)
        mean, projection = dbias / count, dweight / count
        if weight is not None:
            mean, projection, grad = mean * weight, projection * weight, grad * spread(weight)
    else:
        if weight is not None:
            product *= weight
            grad = grad * weight
        mean, projection = reduction.mean(grad), reduction.mean(product)
    dx = normalized.clone() if out is None else normalized  # which a graph needs as it is
    dx *= spread(by_var - projection)
    dx += spread(by_mean - mean)
    dx += grad
    dx *= spread(scale)
    return dx, dweight, dbias


class _Blocks:
    """How arrays of one shape are cut, into parts that hold some slices each."""

    def __init__(self, reduction: Reduction, x, *, whole: bool = False):
        self.reduction, self.shape = reduction, x.shape
        # Along the first axis that is long enough, or else the longest; but not along the one whose
        # numbers are neighbours in memory, which would then be read in scraps.
        self.axes = {i: at for i, at in reduction.cuts(x.shape).items() if x.stride(i) > 1}
        block, numbers = BLOCK * torch.get_num_threads(), x.numel()
        self.whole = whole or numbers <= block or not self.axes
        if not self.whole:
            fine = (axis for axis in self.axes if numbers <= block * x.shape[axis])
            self.axis = next(fine, max(self.axes, key=x.shape.__getitem__))
            self.size = max(1, block * x.shape[self.axis] // numbers)

    def cut(self, x):
        """The parts of an array."""
        return [x] if self.whole else x.split(self.size, self.axis)

    def cut_statistic(self, statistic):
        """The statistics of each part."""
        return [statistic] if self.whole else statistic.split(self.size, self.axes[self.axis])

    def cut_shared(self, parameter, shared: Reduction):
        """A weight or a bias for each part: one per slice, or laid over all numbers."""
        if parameter is None:
            return repeat(None)
        if shared == self.reduction:
            return self.cut_statistic(parameter)
        return self.cut(shared.spread(parameter, self.shape))

    def join(self, statistics, reduction: Reduction):
        """Statistics of all from those of each part."""
        if self.whole:
            return statistics[0]
        at = reduction.cuts(self.shape).get(self.axis)  # if it is not kept, all parts share them
        join = sum if at is None else partial(torch.cat, dim=at)
        return map(join, zip(*statistics, strict=True))


def _keep_one_more(reduction: Reduction) -> Reduction:
    """The same reduction of each element of a batch, along a new axis in front."""
    name = "batch" + "_" * len(reduction.pattern)  # no axis has this name
    left, _, right = reduction.pattern.partition("->")
    return Reduction(f"{name} {left} -> {name} {right}", **dict(reduction.sizes))
