"""SyncBatchNorm: one mean per channel, over the batches of all workers.

Source: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1, on a batch of which each worker
holds a part. The parts join as Chan, Golub and LeVeque 1983 say. Published codes differ: torch's
refuses tensors of a CPU, and detectron2's naive one weighs all workers alike, however few samples
one has.
"""

from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from normviz.formula import plain, precise, total
from normviz.layers.tracking import TrackingNorm
from normviz.moments import Moments
from normviz.plans import batch, plan_of
from normviz.refusals import check_count, check_input
from normviz.telling import tell


class SyncBatchNorm(TrackingNorm):
    """BatchNorm of (N, C, …) whose batch is shared out among workers.

    In training, outputs, gradients of x and running statistics are on each worker those of one
    BatchNorm that sees all parts together; the parts may be of unequal size, or empty. The
    gradients of weight and bias are those of the worker's own part: DistributedDataParallel
    averages them. Each forward pass gathers a count, C means and C sums of squares from every
    worker, each backward pass adds up 2·C numbers, all in float64. In eval, and without a process
    group, it is BatchNorm.

    Args:
        num_features: C, the number of channels.
        eps: added to the variance, inside the root; 0 or more.
        momentum: weight of the new batch in the running statistics, 0 to 1; None for the plain
            average of all batches.
        affine: whether there are a weight and a bias, one of each per channel, starting at 1 and 0.
        track_running_stats: whether there are running statistics; without, eval uses the batch.
        process_group: of ``torch.distributed``, on any back end; if not given, all workers.
        device, dtype: of weight, bias and the running statistics.
        bias: False for a weight without a bias.

    Raises:
        RefusedInput: a ValueError and RuntimeError at once, for an argument or an input outside
            these rules.
        RuntimeError: if another worker does not take part within the timeout of the group.

    >>> layer = SyncBatchNorm(1)  # without a group, the batch is all that there is
    >>> layer(torch.tensor([[1.0], [3.0]])).detach(), layer.running_mean
    (tensor([[-1.0000],
            [ 1.0000]]), tensor([0.2000]))
    """

    plan = batch()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group=None,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ):
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )
        self.process_group = process_group

    @property
    def has_others(self) -> bool:
        """Whether there are other workers, whose batches count now."""
        there = distributed.is_available() and distributed.is_initialized()
        return self.training and there and distributed.get_world_size(self.process_group) > 1

    def forward(self, input: Tensor) -> Tensor:
        """The input, normalized together with those of all workers."""
        if not self.has_others:
            return super().forward(input)
        plan = check_input(self, input, alone=False)
        layout = plan.reduction.layout(input.shape)
        affine = (
            None if p is None else p.reshape(layout.aligned) for p in (self.weight, self.bias)
        )
        y, mean, var, count = _Together.apply(input, *affine, layout, self.eps, self.process_group)
        check_count(self, plan, input, int(count))  # all workers say the same
        tell(plan, "workers", mean, var, self.eps)
        if self.moves():
            self.track(plan, int(count), mean, var)
        return self.as_laid_out(y, input)

    @classmethod
    def convert(cls, model: nn.Module, process_group=None) -> nn.Module:
        """Put a SyncBatchNorm in the place of every BatchNorm of a model, torch's or normviz's.

        Each has the parameters, the buffers and the mode of the one before it: the same tensors, so
        that an optimizer goes on. Hooks stay behind.

        Args:
            model: is changed; a BatchNorm itself is not, and its successor is returned.
            process_group: of the new layers.

        Returns:
            The model.

        Raises:
            ValueError: if a layer is lazy and has not seen a batch, so that it holds no state yet.

        >>> model = SyncBatchNorm.convert(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
        >>> model[1]
        SyncBatchNorm(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
        """
        if _is_batch_norm(model):
            return cls._in_the_place_of(model, process_group)
        for name, child in model.named_children():
            setattr(model, name, cls.convert(child, process_group))
        return model

    @classmethod
    def _in_the_place_of(cls, layer: nn.Module, process_group) -> "SyncBatchNorm":
        arguments = layer.num_features, layer.eps, layer.momentum, layer.affine
        made = cls(*arguments, layer.track_running_stats, process_group, device="meta")
        for kind in ("_parameters", "_buffers"):
            getattr(made, kind).update(getattr(layer, kind))
        return made.train(layer.training)


def _is_batch_norm(layer: nn.Module) -> bool:
    """Whether a layer pools each channel over the batch, and remembers that."""
    for ndim in (2, 3, 4, 5):
        try:
            plan = plan_of(layer, ndim)
        except ValueError:
            if getattr(layer, "has_uninitialized_params", bool)():
                raise
            continue
        return plan.statistic == plan.running and plan.centred and plan.over_samples
    return False


class _Together(torch.autograd.Function):
    """The formula and its derivative, where each worker holds a part of the batch; in float64.

    As in one BatchNorm, dx = (g·γ - mean(g·γ) - ŷ·mean(g·γ·ŷ)) / σ, where the two means, like those
    of the forward pass, are taken over all parts.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, layout, eps, group):
        """y, the mean and the variance of all parts, and how many numbers they hold."""
        nothing = Moments(0, *precise(x).new_zeros(2, *layout.aligned))
        own = Moments.of(precise(x), layout.pooled) if x.numel() else nothing
        told = torch.cat(
            [own.mean.new_tensor([own.count]), own.mean.flatten(), own.squares.flatten()]
        )
        parts = [torch.empty_like(told) for _ in range(distributed.get_world_size(group))]
        _all_take_part(distributed.all_gather, parts, told, group=group)
        parts = (Moments(int(part[0]), *part[1:].reshape(2, *layout.aligned)) for part in parts)
        count, mean, squares = Moments.join([*parts])
        var = squares / max(count, 1)
        y, _, _ = plain(x, weight, bias, layout.pooled, eps, stored=(mean, var))
        ctx.save_for_backward(x, weight, bias, mean, (var + eps).sqrt())
        ctx.over, ctx.count, ctx.group = layout.pooled, count, group
        mean, var = (stat.reshape(layout.stat_shape) for stat in (mean, var))
        ctx.mark_non_differentiable(mean, var, count := torch.tensor(count))
        return y, mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):
        """The gradients of x, of the weight and of the bias: the last two of this part alone."""
        x, weight, bias, mean, std = ctx.saved_tensors
        y, grad = (precise(x) - mean) / std, precise(grad)
        of_1, of_y = total(grad, ctx.over), total(grad * y, ctx.over)
        dweight, dbias = None if weight is None else of_y, None if bias is None else of_1
        dx = None
        if ctx.needs_input_grad[0]:
            gain = 1 / std if weight is None else precise(weight) / std
            sums = torch.stack([of_1, of_y])
            _all_take_part(distributed.all_reduce, sums, group=ctx.group)
            mean_1, mean_y = sums / ctx.count
            dx = ((grad - mean_1 - y * mean_y) * gain).to(x.dtype)
        return dx, dweight, dbias, None, None, None


def _all_take_part(collective: Callable, *told, group) -> None:
    try:
        collective(*told, group=group)
    except RuntimeError as error:
        raise RuntimeError(
            "SyncBatchNorm needs every worker of its group in each pass of training, and one did "
            f"not take part: it has failed, or has not called this layer. {error}"
        ) from error
