"""Running statistics: whether they fit the batch, and whether they have seen any."""

import torch

from normviz.diagnosis.finding import Finding, cell
from normviz.watching import epsilon


class NeverFed(Finding):
    """No batch has reached the running statistics: they are still 0 and 1.

    In eval, the layer normalizes with them, as if each channel had mean 0 and variance 1. So it is
    where a model is new, where only parameters were copied or averaged, or where nothing moves.

    Do: train; or copy the buffers too; or torch.optim.swa_utils.update_bn(loader, model).

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> bn, x = nn.BatchNorm1d(3), torch.randn(64, 3)
    >>> "never-fed" in diagnose(bn, x).codes
    True
    >>> _ = bn(x)
    >>> "never-fed" in diagnose(bn, x).codes
    False
    """

    code = "never-fed"
    said = "running_mean is 0 and running_var 1 in all {channels} channels"
    lesson = cell("05_training_and_track_running_stats", "average-in-eval")

    @classmethod
    def find(cls, layer, run):
        """The start, to the last digit."""
        if not is_new(layer) or MomentumNone.find(layer, run):
            return None
        return {"channels": layer.running[0].numel()}


class Lagging(Finding):
    """So few batches, for this momentum, that the start still weighs.

    The running statistics start at 0 and 1, and each batch leaves (1 − momentum) of that. What is
    left is no property of the data, and eval uses it.

    Do: train longer before eval, or take a larger momentum; update_bn takes a plain average.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> bn, x = nn.BatchNorm1d(3), torch.randn(64, 3)
    >>> for _ in range(10):
    ...     _ = bn(x)
    >>> "lagging" in diagnose(bn, x).codes
    True
    >>> for _ in range(20):
    ...     _ = bn(x)
    >>> "lagging" in diagnose(bn, x).codes
    False
    """

    code = "lagging"
    said = "after {batches} batches with momentum {momentum:g}, the start weighs {start:.0%}"
    lesson = cell("03_running_statistics_and_momentum", "cell-41")
    most = 0.1

    @classmethod
    def find(cls, layer, run):
        """A variance below its share of the start tells that the start was another one."""
        batches = int(layer.held.get("num_batches_tracked", 0))
        momentum = getattr(layer.module, "momentum", None)
        if layer.running is None or not batches or not momentum or is_new(layer):
            return None
        start = (1 - momentum) ** batches
        if start < cls.most or bool((layer.running[1] < 0.99 * start).any()):
            return None
        return {"batches": batches, "momentum": momentum, "start": start}


class FarStatistics(Finding):
    """The running statistics are far from those of the batch.

    Training normalizes with the batch, eval with them: so the layer's output changes from one to
    the other, and what follows was trained on another one. Other data, weights that moved faster
    than the statistics, or weights that were averaged without new statistics are the usual causes.

    Do: first what another finding names as the cause; then torch.optim.swa_utils.update_bn(loader,
    model) takes new ones. If the batch is unlike the training data, take another batch.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> bn, x = nn.BatchNorm1d(3, momentum=1), torch.randn(64, 3)
    >>> _ = bn(x)
    >>> "far-statistics" in diagnose(bn, 5 * x + 8).codes
    True
    >>> "far-statistics" in diagnose(bn, x).codes
    False
    """

    code = "far-statistics"
    said = (
        "from training to eval, its output moves by {moved:.1f} standard deviations (root mean "
        "square): means are off by {shift:.1f}, and spreads by the factor {factor:.1f}"
    )
    lesson = cell("05_training_and_track_running_stats", "cell-114")
    near, noise = 0.25, 1.75  # a batch of N samples may be off by near + noise / √N

    @classmethod
    def find(cls, layer, run):
        """Where training uses the batch and eval does not, and batches have been seen."""
        call = layer.call
        usual = call.var is not None and not call.stored and call.count > 7
        if not usual or not any(c.stored for c in layer.in_eval) or layer.running is None:
            return None
        if is_new(layer) or Lagging.find(layer, run) or call.plan.mixed:
            return None
        mean, var = (stat.flatten() for stat in _per_channel(call))
        stored = [stat.double().flatten() for stat in layer.running]
        root, own_root = ((v + epsilon(layer)).sqrt() for v in (stored[1], var))
        shift, ratio = (mean - stored[0]).abs() / root, own_root / root
        far = torch.hypot(shift, ratio.log()).mean()
        if not far > cls.near + cls.noise / call.shape[0] ** 0.5:
            return None
        return {
            "moved": float((shift.square() + (ratio - 1).square()).mean().sqrt()),
            "shift": float(shift.mean()),
            "factor": float(ratio.log().abs().mean().exp()),
            "far": float(far),
        }


class MomentumNone(Finding):
    """A tracked InstanceNorm with momentum None: its running statistics never move.

    In BatchNorm, None means the plain average of all batches. In InstanceNorm it counts as 0, and
    eval uses what the layer has started with.

    Do: momentum=0.1; or track_running_stats=False, if eval is to use each sample's own.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> x, tracked = torch.randn(8, 3, 40), dict(track_running_stats=True)
    >>> "momentum-none" in diagnose(nn.InstanceNorm1d(3, momentum=None, **tracked), x).codes
    True
    >>> "momentum-none" in diagnose(nn.InstanceNorm1d(3, **tracked), x).codes
    False
    """

    code = "momentum-none"
    said = "momentum is None, and {batches} batches were counted"
    lesson = cell("07_the_relatives", "instance-none")

    @classmethod
    def find(cls, layer, run):
        """BatchNorm means something else by it."""
        plan = layer.call.plan
        if plan is None or plan.over_samples or not plan.running or not layer.tracks:
            return None
        if getattr(layer.module, "momentum", 0.1) is not None:
            return None
        return {"batches": int(layer.held.get("num_batches_tracked", 0))}


def is_new(layer) -> bool:
    """Whether there are running statistics, as they start."""
    if layer.running is None:
        return False
    mean, var = layer.running
    return bool((mean == 0).all() and (var == 1).all())


def _per_channel(call) -> tuple[torch.Tensor, ...]:
    """Its own statistics, averaged where one running one stands for several."""
    own, plan = (call.mean, call.var), call.plan
    return own if plan.statistic == plan.running else (*map(plan.joining(plan.running).mean, own),)
