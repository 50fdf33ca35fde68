"""BatchNorm: one mean per channel, over all samples and all that lies behind the channels.

Source: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1.
"""

from normviz.layers.tracking import TrackingNorm
from normviz.plans import batch


class BatchNorm1d(TrackingNorm):
    """One mean and one variance per channel, of (N, C) over n, of (N, C, L) over n and l.

    In training, ``y = (x - mean) / sqrt(var + eps) * weight + bias`` with the statistics of the
    batch (biased variance), and the running statistics move towards them (unbiased variance). In
    eval, the same with the running statistics.

    Under activation checkpointing, torch's layer counts and tracks a batch twice, once for each
    pass, and so does this one; but if it stands last in a part with ``use_reentrant=False``, once,
    as the second pass ends as soon as it has what the gradient needs.

    Args:
        num_features: C, the number of channels.
        eps: added to the variance, inside the root; 0 or more, and more than 0 where the batch's
            own statistics normalize.
        momentum: weight of the new batch in the running statistics, 0 to 1; None for the plain
            average of all batches.
        affine: whether there are a weight and a bias, one of each per channel, starting at 1 and 0.
        track_running_stats: whether there are running statistics; without, eval uses the batch.
        device, dtype: of weight, bias and the running statistics.
        bias: False for a weight without a bias.

    Raises:
        RefusedInput: a ValueError and RuntimeError at once, for an argument or an input outside
            these rules. Nothing has changed then, the batch counter included.

    >>> import torch
    >>> bn = BatchNorm1d(2, affine=False)
    >>> bn(torch.arange(18.0).reshape(3, 2, 3))[0, 0]
    tensor([-1.4094, -1.2081, -1.0067])
    >>> bn.running_mean, bn.running_var
    (tensor([0.7000, 1.0000]), tensor([3.6750, 3.6750]))
    """

    plan = batch(0, 1)


class BatchNorm2d(TrackingNorm):
    """One mean and one variance per channel, of (N, C, H, W) over n, h and w.

    Arguments, formula and errors are those of :class:`BatchNorm1d`.

    >>> import torch
    >>> BatchNorm2d(3, affine=False)(torch.arange(36.0).reshape(3, 3, 2, 2))[0, 0]
    tensor([[-1.3690, -1.2676],
            [-1.1661, -1.0647]])
    """

    plan = batch(2)


class BatchNorm3d(TrackingNorm):
    """One mean and one variance per channel, of (N, C, D, H, W) over n, d, h and w.

    Arguments, formula and errors are those of :class:`BatchNorm1d`.

    >>> import torch
    >>> BatchNorm3d(2)(torch.randn(3, 2, 4, 5, 6)).shape
    torch.Size([3, 2, 4, 5, 6])
    """

    plan = batch(3)
