"""The same as ``plain``, faster on large inputs. You may skip this: nothing else is new in here.

Three things take the time of ``plain``: float64 is twice as wide as it has to be, each step reads
all numbers from memory and writes them to memory that is fresh, and autograd keeps most of that.
Here, parts stay in the processor's cache while all steps are done on them, in memory that was just
used; and for the backward pass x is kept alone, from which y is worked out anew.

A part of some slices is whole in itself. Where slices have to be divided, their parts tell their
moments, and these join. Slices whose spread is too near to the rounding of their numbers, or whose
squares have no place in the dtype, are left to ``plain``.

What torch's layers do that this does not: they are kernels in C++, which read a slice once for both
sums, which grow in registers.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat
from math import prod

import torch
from torch import Tensor
from torch.autograd import forward_ad

from normviz.formula import average, is_traced, plain, precise, total, wide
from normviz.moments import Moments, count_of

SMALL = 2**13  # numbers; up to here, starting a step takes longer than its arithmetic
BLOCK = 2**19  # numbers that stay in a core's cache, a few times over


def takes(*tensors: Tensor | None) -> bool:
    """Whether these are better accelerated: large, and not under torch.func or torch.compile."""
    x, *_ = tensors
    if x.numel() <= SMALL or x.is_meta or is_traced():
        return False
    return not any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def cut(axes: Sequence[int], *tensors: Tensor | None) -> Iterator[tuple]:
    """All tensors, a part at a time, along one of the axes; what has length 1 there stays whole."""
    x, size = tensors[0], BLOCK * torch.get_num_threads()
    # Not along neighbours in memory, which would then be read in scraps.
    axes = [axis for axis in axes if x.shape[axis] > 1 and x.stride(axis) > 1]
    if x.numel() <= 2 * size or not axes:
        return iter([tensors])
    fine = (axis for axis in axes if x.numel() <= 2 * size * x.shape[axis])
    axis = next(fine, max(axes, key=x.shape.__getitem__))
    length = max(1, size * x.shape[axis] // x.numel())
    parts = (
        repeat(t) if t is None or t.shape[axis] == 1 else t.split(length, axis) for t in tensors
    )
    return zip(*parts, strict=False)


class InBlocks(torch.autograd.Function):
    """``plain``, some slices at a time, and each of them part by part."""

    @staticmethod
    def forward(ctx, x, weight, bias, over, eps, centred, stored):
        """What ``plain`` gives; for the backward pass, x is kept, and two numbers per slice."""
        shape = [1 if axis in over else size for axis, size in enumerate(x.shape)]
        kept = tuple(axis for axis in range(x.ndim) if axis not in over)
        y = torch.empty_like(x)
        if stored:
            mean, var = stored
            apply(x, y, weight, bias, mean.to(wide(x.dtype)), mean, var, range(x.ndim), eps)
            ctx.mark_non_differentiable(mean, var)
        else:
            mean, var = (x.new_empty(shape, dtype=precise(x[:0]).dtype) for _ in range(2))
            for x_, y_, weight_, bias_, *stats in cut(kept, x, y, weight, bias, mean, var):
                if x.dtype != mean.dtype:
                    near, is_off = measure(x_, y_, *stats, over, centred)
                    if tells(near, stats[1], eps):
                        apply(x_, y_, weight_, bias_, near, *stats, over, eps, is_off)
                        continue
                exact = plain(x_, weight_, bias_, over, eps, centred)
                for target, numbers in zip((y_, *stats), exact, strict=True):
                    target.copy_(numbers)
        ctx.save_for_backward(x, weight, bias, mean, var)
        ctx.set_materialize_grads(False)
        ctx.how, ctx.kept = (over, eps, centred, stored), kept
        return y, mean, var

    @staticmethod
    def backward(ctx, grad, *of_stats):
        """The gradients of x, of the weight and of the bias."""
        x, weight, bias, mean, var = ctx.saved_tensors
        over, eps, centred, stored = ctx.how
        usual = grad is not None and of_stats == (None, None) and not torch.is_grad_enabled()
        if not (usual and _has_place(var + eps, wide(x.dtype))):
            return *_by_torch(ctx, grad, *of_stats), *[None] * 4
        dx, shares = torch.empty_like(x), [None, None]
        if any(ctx.needs_input_grad[1:3]):
            shape = (bias if weight is None else weight).shape
            shares = [mean.new_zeros(shape) for _ in range(2)]
        near, scale, shift = centre_scale_shift(mean.to(wide(x.dtype)), mean, var, eps)
        axes = range(x.ndim) if stored else ctx.kept
        for part in cut(axes, x, grad, dx, weight, *shares, near, scale, shift):
            pull_back(*part, over, centred, stored is not None)
        shares = (
            None if p is None or share is None else share.to(p.dtype)
            for p, share in zip((weight, bias), shares, strict=True)
        )
        return dx, *shares, *[None] * 4


def _by_torch(ctx, *grads) -> list[Tensor | None]:
    """The derivative of the derivative, and of μ and σ²: torch differentiates ``plain``."""
    inputs, again = ctx.saved_tensors[:3], torch.is_grad_enabled()
    wanted = {i: t for i, t in enumerate(inputs) if t is not None and t.requires_grad}
    with torch.enable_grad():
        pairs = zip(plain(*inputs, *ctx.how), grads, strict=True)
        pairs = [(y, g) for y, g in pairs if g is not None and y.requires_grad]
    if not pairs:
        return [None] * 3
    outputs, given = zip(*pairs, strict=True)
    options = {"create_graph": again, "allow_unused": True}
    found = torch.autograd.grad(outputs, [*wanted.values()], given, **options)
    found = dict(zip(wanted, found, strict=True))
    return [found.get(i) for i in range(3)]


def measure(x, y, mean, var, over, centred) -> tuple[Tensor, bool]:
    """Write the mean and the variance of whole slices.

    Returns:
        Numbers near the mean, in the dtype of sums; and whether y now holds x less these.
    """
    parts, dtype, moments = [*cut(over, x, y)], wide(x.dtype), []
    scratch = torch.empty_like(parts[0][0], dtype=dtype)
    near = average(parts[0][0].to(dtype), over)
    near = near if centred else torch.zeros_like(near)
    for x_, y_ in parts:
        rooms = y_ if y.dtype == dtype else None, like(x_, scratch)
        moments.append(Moments.of(x_, over, near, *rooms))
        if len(parts) > 1 and centred:
            near = moments[-1].mean.to(dtype)
    count, mean[...], squares = Moments.join(moments)
    if not centred:
        squares = squares + count * mean.square()
        mean.zero_()
    torch.div(squares, count, out=var)
    is_off = len(parts) == 1 and y.dtype == dtype
    return near if is_off else mean.to(dtype), is_off


def tells(near: Tensor, var: Tensor, eps: float) -> bool:
    """Whether the spread is more than the rounding of the mean, and its squares have a place."""
    limits = torch.finfo(near.dtype)
    least = (4 * limits.eps * precise(near)).square().clamp(min=limits.tiny / limits.eps - eps)
    return bool(((least <= var) & (var < limits.max / 2)).all())


def _has_place(root: Tensor, dtype: torch.dtype) -> bool:
    """Whether one through σ², and its square, have a place in a dtype."""
    limits = torch.finfo(dtype)
    return bool(((root > limits.tiny**0.5) & (root < limits.max**0.5)).all())


def centre_scale_shift(near, mean, var, eps) -> tuple[Tensor, Tensor, Tensor | None]:
    """c, s and t: (x - μ) / √(σ² + ε) = (x - c)·s + t, for numbers c near the mean."""
    scale = (var + eps).rsqrt()
    shift = (near - mean) * scale
    shift = None if (shift.abs() <= 1e-8).all() else shift.to(near.dtype)
    return near, scale.to(near.dtype), shift


def apply(x, y, weight, bias, near, mean, var, axes, eps, is_off=False) -> None:
    """Write y, by statistics that are known, along some axes; or y holds x - near already."""
    near, scale, shift = centre_scale_shift(near, mean, var, eps)
    way = near * scale  # from 0 to the mean, in standard deviations
    is_short = bool((way.abs() <= 1).all())
    if weight is not None and _is_small(scale, weight, x):
        shift = None if shift is None else shift * weight
        way, scale, weight = way * weight, scale * weight, None
    if weight is None and bias is not None and _is_small(scale, bias, x):
        shift, bias = bias if shift is None else shift + bias, None
    if is_short and not is_off and weight is None and y.dtype == near.dtype:
        shift, near = -way if shift is None else shift - way, None  # subtracted last, it costs less
    for x_, y_, *others in cut(axes, x, y, near, scale, shift, weight, bias):
        near_, scale_, shift_, weight_, bias_ = others
        if near is None:
            scale_and_shift(x_, scale_, shift_, y_)
            scale_and_shift(y_, None, bias_, y_)
            continue
        out = y_
        if not is_off:
            out = torch.sub(x_, near_, out=y_) if y.dtype == near.dtype else x_ - near_
        scale_and_shift(out, scale_, shift_, out)
        scale_and_shift(out, weight_, bias_, out)
        if out is not y_:
            y_.copy_(out)


def _is_small(one: Tensor, other: Tensor, x: Tensor) -> bool:
    """Whether the product of two tensors is much smaller than x."""
    return 8 * prod(map(max, one.shape, other.shape)) <= x.numel()


def scale_and_shift(x, scale, shift, y) -> None:
    """y = x·scale + shift; it may be x itself."""
    if scale is not None and shift is not None and _runs_along(scale):
        torch.addcmul(shift, x, scale, out=y)  # in one step; elsewhere, that takes longer than two
        return
    if scale is not None:
        torch.mul(x, scale, out=y)
    if shift is not None:
        y += shift


def _runs_along(scale: Tensor) -> bool:
    """Whether neighbours in memory have neighbours in this."""
    return scale.stride(-1) == 1 < scale.shape[-1]


def pull_back(
    x, grad, dx, weight, dweight, dbias, near, scale, shift, over, centred, stored
) -> None:
    """Write the gradient of x, and add to those of the weight and the bias.

    Moving one x moves its own ŷ, and through μ and σ every ŷ of its slice. That takes two things
    out of the gradient: its mean, and its projection on ŷ.

        dx = (g·γ - mean(g·γ) - ŷ·mean(g·γ·ŷ)) / σ, where ŷ = (x - c)·s + t, and g is that of y

    Where nothing is centred, the mean is not taken out; with stored statistics, neither is.
    """
    dtype, count = near.dtype, count_of(x, over)
    held = dweight if weight is None else weight
    per_weight = tuple(axis for axis in range(x.ndim) if held is None or held.shape[axis] == 1)
    inner = tuple(axis for axis in over if axis in per_weight)  # where scale and weight are one
    outer = tuple(axis for axis in over if axis not in per_weight)
    others = tuple(axis for axis in per_weight if axis not in inner)
    parts = [*cut(over, x, grad, dx, weight, dweight, dbias)]
    work, off, of_1, of_y = torch.empty_like(parts[0][0], dtype=dtype), None, 0, 0
    for x_, grad_, dx_, weight_, dweight_, dbias_ in parts:
        if stored and dweight is None:
            break
        off, grad_, here = _less(x_, near, dx_), grad_.to(dtype), like(x_, work)
        of_grad, of_product = total(grad_, inner), total(torch.mul(grad_, off, out=here), inner)
        of_product = of_product.mul_(scale)
        of_product = of_product if shift is None else of_product.add_(of_grad * shift)
        if dweight is not None:
            dweight_ += total(of_product, others)
            dbias_ += total(of_grad, others)
        if not stored:
            of_product = of_product if weight is None else of_product.mul_(weight_)
            of_y = of_y + precise(total(of_product, outer))
            if centred:
                into = here if of_grad is grad_ else None
                of_grad = of_grad if weight is None else torch.mul(of_grad, weight_, out=into)
                of_1 = of_1 + precise(total(of_grad, outer))
    gain = scale
    if weight is not None and _is_small(scale, weight, x):
        gain, weight = scale * weight, None
    if not stored:  # what x - c is multiplied by, and what is added
        through_y, through_1 = scale * of_y / -count, scale * of_1 / -count
        through_1 = through_1 if shift is None else through_1 + through_y * shift
        through_y, through_1 = (through_y * scale).to(dtype), through_1.to(dtype)
    for x_, grad_, dx_, weight_ in cut(over, x, grad, dx, weight):
        if stored:
            out = torch.mul(grad_, gain, out=like(x_, work))
            out = out if weight_ is None else out.mul_(weight_)
        else:
            out = off if len(parts) == 1 else _less(x_, near, dx_)
            scale_and_shift(out, through_y, through_1, out)
            if weight_ is None and grad_.dtype == dtype and _runs_along(gain):
                torch.addcmul(out, grad_, gain, out=out)
            else:
                pulled = torch.mul(grad_, gain, out=like(x_, work))
                out += pulled if weight_ is None else pulled.mul_(weight_)
        if out is not dx_:
            dx_.copy_(out)


def _less(x: Tensor, near: Tensor, dx: Tensor) -> Tensor:
    """x - near, where dx will stand if that is wide enough."""
    return torch.sub(x, near, out=dx if dx.dtype == near.dtype else None)


def like(x: Tensor, memory: Tensor) -> Tensor:
    """As much of the memory as x takes."""
    return memory[tuple(map(slice, x.shape))]
