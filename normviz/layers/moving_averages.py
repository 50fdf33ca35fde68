"""MABN: mean squares from a memory of several batches, forward and backward, for small batches.

Source: Yan, Wan, Zhang, Zhang, Wei and Sun 2020, "Towards Stabilizing Batch Statistics in Backward
Propagation of Batch Normalization", section 4 and algorithm 1. Two of BatchNorm's four batch
statistics belong to the backward pass; with both means gone (the weights before it are centred),
two are left, and both are averaged over batches. In the authors' code, running_var starts from the
first batch rather than from 1, and momentum is the weight of the old value.
"""

import torch
from torch.autograd.function import once_differentiable

from normviz.formula import precise
from normviz.layers.norm import Norm
from normviz.normalization import standardize
from normviz.plans import Plan
from normviz.reduction import Reduction
from normviz.refusals import RefusedInput, check_numbers, positive_int
from normviz.telling import tell

HELD = 1000  # batches during which r stays 1
MOST = 5.0  # how far from 1 it may go then, as a factor either way


class MABN2d(Norm):
    """One mean square per channel, of (N, C, H, W) over n, h and w, and of earlier batches.

    In training, with ``z = x / sqrt(var + eps)``, ``y = z * r * weight + bias``. The variance is
    the mean square of this batch for the first ``memory`` batches and before the one with the
    number ``warmup``, then the average over the last ``memory`` batches. ``r`` is
    ``sqrt(var + eps) / sqrt(running_var + eps)``, but 1 for the first thousand batches (or
    ``warmup``, if that is more), and from 1/5 to 5 later. ``running_var`` moves after that. The
    backward pass is that of the paper: the gradient of x loses its projection on z, averaged over
    as many batches as the variance. In eval, ``y = x / sqrt(running_var + eps) * weight + bias``.

    No mean is subtracted anywhere: the layer stands behind a :class:`CentredConv2d`.

    Args:
        num_features: C, the number of channels.
        memory: how many batches are averaged.
        eps: added to the variance, inside the root; 0 or more.
        momentum: weight of the new batch in the running variance, 0 to 1.
        warmup: the number of the first batch for which the memory may be used.
        device, dtype: of all parameters and buffers.

    Raises:
        RefusedInput: a ValueError and RuntimeError at once, for an argument or an input outside
            these rules. Nothing has changed then.

    >>> layer = MABN2d(1)
    >>> layer(torch.tensor([[[[3.0, -4.0]]]])).detach()  # mean square 12.5
    tensor([[[[ 0.8485, -1.1314]]]])
    >>> layer.running_var  # 0.98 · 1 + 0.02 · 12.5
    tensor([1.2300])
    """

    starts = Norm.starts | {"running_var": 1.0, "iterations": 0, "memory_x2": 0.0, "memory_gz": 0.0}
    printed = ("memory", "eps", "momentum", "warmup")

    def __init__(
        self,
        num_features: int,
        memory: int = 16,
        eps: float = 1e-5,
        momentum: float = 0.02,
        warmup: int = 100,
        device=None,
        dtype=None,
    ):
        shape = (positive_int("num_features", num_features),)
        super().__init__(eps, shape, device=device, dtype=dtype)
        self.num_features, self.momentum = shape[0], momentum
        check_numbers(self)
        self.memory = positive_int("memory", memory)
        self.warmup = warmup
        if isinstance(warmup, bool) or not hasattr(warmup, "__index__") or warmup < 0:
            raise RefusedInput(f"warmup must be an int, 0 or more: got {warmup!r}.")
        self.register_buffer("running_var", torch.ones(shape, device=device, dtype=dtype))
        self.register_buffer("iterations", torch.tensor(0, device=device))
        for name in ("memory_x2", "memory_gz"):
            table = torch.zeros(self.memory, *shape, device=device, dtype=dtype)
            self.register_buffer(name, table)

    def plan(self, ndim: int) -> Plan:
        """The numbers of a channel share a mean square."""
        sizes = (("c", self.num_features),)
        return Plan("n c h w", "c", "c", sizes, running="c", centred=False)

    def by_input(self, input: torch.Tensor, plan: Plan) -> tuple[torch.Tensor, ...]:
        """The output, no mean, and the variance; in training both memories move."""
        x = precise(input)
        no_mean = x.new_zeros(plan.reduction.stat_shape(x.shape))
        if self.training:
            batch = plan.reduction.mean(x.detach().square())
            var, r, slot, of_memory = self._remember(batch)
            now = self.memory_gz, slot, of_memory
            z = _Standardize.apply(x, plan.reduction, (var + self.eps).sqrt(), *now)
            y = z * plan.reduction.spread(r, x.shape)
            source = "memory" if of_memory else "batch"
            more = {"batch": (no_mean, batch), "factor": r}
            tell(plan, source, no_mean, var, self.eps, **more)
        else:
            var = precise(self.running_var)
            y = standardize(x, plan.reduction, no_mean, var, self.eps)
            tell(plan, "running", no_mean, var, self.eps)
        return self.scale_and_shift(y, input, plan), no_mean, var

    @torch.no_grad()
    def _remember(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int, bool]:
        """The variance that normalizes now, r, the slot in the memory, and whether that is used."""
        self.iterations += 1
        t = 1 if self.iterations.is_meta else int(self.iterations)
        self.memory_x2[t % self.memory] = batch
        of_memory = t > self.memory and t >= self.warmup
        var = precise(self.memory_x2).mean(0) if of_memory else batch
        before = precise(self.running_var)
        r = ((var + self.eps) / (before + self.eps)).sqrt().clamp(1 / MOST, MOST)
        if t <= max(HELD, self.warmup):
            r = torch.ones_like(r)
        self.running_var.copy_(before.lerp(var, self.momentum))
        return var, r, t % self.memory, of_memory


class _Standardize(torch.autograd.Function):
    """z = x / std, whose gradient loses its projection on z, as far as the memory knows it.

    With g, the gradient of z, dx = (g - z·average(mean(g·z))) / std.
    """

    @staticmethod
    def forward(ctx, x, reduction: Reduction, std, memory, slot: int, of_memory: bool):
        z = x / reduction.spread(std, x.shape)
        ctx.save_for_backward(z, std)
        ctx.memory, ctx.others = memory, (reduction, slot, of_memory)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (z, std), (reduction, slot, of_memory) = ctx.saved_tensors, ctx.others
        projection = reduction.mean(g * z)
        ctx.memory[slot] = projection
        if of_memory:
            projection = precise(ctx.memory).mean(0)
        along_z = z * reduction.spread(projection, z.shape)
        return (g - along_z) / reduction.spread(std, z.shape), *[None] * 5
