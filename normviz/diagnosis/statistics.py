"""What is pooled: too few numbers, the wrong ones, numbers without spread."""

from math import inf, sqrt

import torch

from normviz.diagnosis.finding import Finding, cell
from normviz.plans import declared
from normviz.watching import epsilon


class FewNumbers(Finding):
    """A statistic pools so few numbers that chance decides it.

    Of m numbers, a variance is typically off by the share √(2 / (m − 1)); with every batch by
    another one, while eval has none of this noise. One number has no spread at all.

    Do: a larger batch, or a norm that pools no samples, such as GroupNorm; over several GPUs,
    SyncBatchNorm. What is frozen (in eval) does not mind.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> "few-numbers" in diagnose(nn.BatchNorm1d(3), torch.randn(4, 3)).codes
    True
    >>> "few-numbers" in diagnose(nn.BatchNorm1d(3), torch.randn(64, 3)).codes
    False
    """

    code = "few-numbers"
    said = "m = {m}: the variance is off by {off:.0%}, by chance"
    lesson = cell("09_several_workers", "noise")
    most = 1 / 3  # from 19 numbers on, it is less

    @classmethod
    def find(cls, layer, run):
        """Where samples are pooled; elsewhere two numbers are too few, as they become −1 and 1."""
        call = layer.now
        if call.plan is None or call.stored or not call.plan.centred or not call.count:
            return None
        off = sqrt(2 / (call.count - 1)) if call.count > 1 else inf
        few = off > cls.most if call.plan.over_samples else call.count < 3
        return {"m": call.count, "off": off} if few else None

    @property
    def evidence(self) -> str:
        """One number is a case of its own."""
        return super().evidence if self.numbers["m"] > 1 else "m = 1: one number has no spread"


class ConstantChannel(Finding):
    """A slice without spread: all of its numbers are equal.

    Less its mean, nothing is left of it: the output is the bias alone, and in the gradient,
    rounding and ε decide. Often it is a channel that a ReLU has switched off.

    Do: look at the layer before; a smaller learning rate, or a norm before the ReLU.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> x = torch.randn(64, 3)
    >>> "constant-channel" in diagnose(nn.BatchNorm1d(3), x * torch.tensor([1, 1, 0])).codes
    True
    >>> "constant-channel" in diagnose(nn.BatchNorm1d(3), x).codes
    False
    """

    code = "constant-channel"
    said = "{count} of {slices} slices hold one number, again and again"
    lesson = cell("01_one_mean_per_channel", "constant")
    share = 0.25  # of slices, where each sample has its own

    @classmethod
    def find(cls, layer, run):
        """Rounding may stand for spread."""
        call = layer.call
        if call.var is None or call.count < 2 or call.stored:
            return None
        count, slices = int(constant(call).sum()), call.var.numel()
        enough = count if call.plan.over_samples else count > cls.share * slices
        return {"count": count, "slices": slices} if enough else None


class Epsilon(Finding):
    """ε outweighs the variance of many slices.

    Then ε decides what they are divided by: outputs are smaller than 1, in proportion to the
    input, and nothing is normalized.

    Do: scale the input, in other units perhaps; or a smaller eps, in float32.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> "epsilon" in diagnose(nn.LayerNorm(32), torch.randn(8, 32) / 1000).codes
    True
    >>> "epsilon" in diagnose(nn.LayerNorm(32), torch.randn(8, 32)).codes
    False
    """

    code = "epsilon"
    said = "{count} of {slices} variances are below ε = {eps:g}; their median is {var:.2g}"
    lesson = cell("06_batchnorm_is_not_linear", "cell-35")
    share = 0.25  # of the slices that have a spread

    @classmethod
    def find(cls, layer, run):
        """By the statistics that are used."""
        call, eps = layer.call, epsilon(layer)
        if call.var is None or call.count < 2:
            return None
        var = call.var[~constant(call)]
        if call.stored and layer.running:
            var = layer.running[1].double()
        count = int(((var < eps) & (var >= 0)).sum())
        if not count or count <= cls.share * var.numel():
            return None
        return {"count": count, "slices": var.numel(), "eps": eps, "var": float(var.median())}


class ZeroWeight(Finding):
    """A weight γ is exactly 0.

    Whatever comes in, the output is the bias; and what stands before gets no gradient through it.
    As a start, in the last norm of a residual block, it is meant so; later it is a dead channel.

    Do: nothing, if all are 0 before training; else weight decay is too strong on γ, or it was
    pruned, and the channel can go.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> layer = nn.LayerNorm(32)
    >>> _ = nn.init.zeros_(layer.weight[:4].detach())
    >>> "zero-weight" in diagnose(layer, torch.randn(8, 32)).codes
    True
    >>> "zero-weight" in diagnose(nn.LayerNorm(32), torch.randn(8, 32)).codes
    False
    """

    code = "zero-weight"
    said = "{count} of {all} weights are 0"
    lesson = cell("06_batchnorm_is_not_linear", "cell-70")

    @classmethod
    def find(cls, layer, run):
        """In a layer that says what it does: some RMSNorms multiply by 1 + weight."""
        weight = layer.held.get("weight")
        try:
            declared(layer.module, len(layer.call.shape))
        except ValueError:
            return None
        count = 0 if weight is None else int((weight == 0).sum())
        return {"count": count, "all": weight.numel()} if count else None


class SwappedAxes(Finding):
    """What the layer takes for channels look like places, and the axis beside them like channels.

    Both axes have one size, so nothing complains; but means differ far more along the other one,
    as those of channels do.

    Do: x.transpose(1, 2) before the layer and after it; LayerNorm wants channels last, BatchNorm
    and InstanceNorm want them on axis 1.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> tokens = torch.randn(8, 16, 16) + 3 * torch.randn(16)  # (N, T, C)
    >>> "swapped-axes" in diagnose(nn.BatchNorm1d(16), tokens).codes
    True
    >>> "swapped-axes" in diagnose(nn.BatchNorm1d(16), tokens.transpose(1, 2)).codes
    False
    """

    code = "swapped-axes"
    said = "means along axis {axis} are {theirs:.0%} of the variance, along the channels {own:.1%}"
    lesson = cell("02_one_mean_per_sample", "cell-100")
    share, times = 0.1, 10

    @classmethod
    def find(cls, layer, run):
        """Only where both axes have one size."""
        if layer.call.along is None:
            return None
        axis, theirs, own = layer.call.along
        far = theirs > cls.share and theirs > cls.times * own
        return {"axis": axis, "theirs": theirs, "own": own} if far else None


class Padding(Finding):
    """Whole stretches of equal numbers are pooled with the rest.

    They look like padding, and they count: mean and variance are partly those of the padding, and
    what comes out for the real numbers depends on how much of it there is.

    Do: normalize the real positions alone, ``x.transpose(1, 2)[real]``; or a norm per token, such
    as LayerNorm.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> x = torch.randn(8, 3, 40)
    >>> "padding" in diagnose(nn.BatchNorm1d(3), nn.functional.pad(x, (0, 20))).codes
    True
    >>> "padding" in diagnose(nn.BatchNorm1d(3), x).codes
    False
    """

    code = "padding"
    said = "{share:.0%} of the places along an axis repeat the two before, in all channels"
    lesson = cell("05_training_and_track_running_stats", "cell-136")
    share, of_images = 0.1, 0.4  # an image may well have a border

    @classmethod
    def find(cls, layer, run):
        """Unless nothing has a spread."""
        share, call = layer.call.repeated, layer.call
        least = cls.share if len(call.shape) < 4 else cls.of_images
        if share < least or call.stored or bool(constant(call).all()):
            return None
        return {"share": share}


def constant(call) -> torch.Tensor:
    """Which slices have no spread beyond rounding."""
    rounding = 4 * torch.finfo(call.dtype).eps
    if not call.plan.centred:
        return call.var == 0
    return call.var.sqrt() <= rounding * call.mean.abs()
