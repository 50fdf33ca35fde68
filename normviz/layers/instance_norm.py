"""InstanceNorm: one mean per sample and channel, over all positions.

Source: Ulyanov, Vedaldi and Lempitsky 2016, "Instance Normalization", equation 2.
"""

from warnings import warn

import torch

from normviz.layers.tracking import TrackingNorm
from normviz.plans import instance


class _InstanceNorm(TrackingNorm):
    counts = False
    keeps_channels_last = False

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ):
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input, normalized per sample and channel."""
        y = super().forward(input)
        channels = input.shape[self.plan(input.ndim).axes.split().index("c")]
        if channels != self.num_features:
            warn(
                f"input has {channels} channels, and num_features is {self.num_features}: it is "
                "not used, as there are no weights and no running statistics",
                stacklevel=2,
            )
        return y

    def moves(self) -> bool:
        """Whether the running statistics move; as in torch, a flag set to False stops nothing."""
        return self.training or not self.track_running_stats


class InstanceNorm1d(_InstanceNorm):
    """One mean and one variance per sample and channel, of (N, C, L) or (C, L) over l.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the biased variance, in training and
    in eval. With ``track_running_stats=True``, running values per channel move towards the average
    over the samples (of the unbiased variances), and in eval they normalize: then this *is*
    BatchNorm in eval. Kept as torch has it: ``num_batches_tracked`` never moves; with
    ``momentum=None`` nothing moves; where there are neither weights nor running statistics, an
    input may have any number of channels, with a warning; and a flag ``track_running_stats`` that
    is set to False after construction makes the input normalize in eval, too, while the running
    values that are there move on, in eval as well.

    Args:
        num_features: C, the number of channels.
        eps: added to the variance, inside the root; 0 or more.
        momentum: weight of the new batch in the running statistics, 0 to 1.
        affine: whether there are a weight and a bias, one of each per channel, starting at 1 and 0.
        track_running_stats: whether there are running statistics.
        device, dtype: of weight, bias and the running statistics.
        bias: False for a weight without a bias.

    Raises:
        RefusedInput: a ValueError and RuntimeError at once, for an argument or an input outside
            these rules, and for a single position, unless running statistics normalize it.

    >>> InstanceNorm1d(2)(torch.arange(12.0).reshape(2, 2, 3))[0, 0]
    tensor([-1.2247,  0.0000,  1.2247])
    """

    plan = instance(1)


class InstanceNorm2d(_InstanceNorm):
    """One mean and one variance per sample and channel, of (N, C, H, W) or (C, H, W) over h and w.

    Arguments, formula and errors are those of :class:`InstanceNorm1d`.

    >>> InstanceNorm2d(3)(torch.randn(4, 3, 5, 6)).mean((2, 3)).abs().max() < 1e-6
    tensor(True)
    """

    plan = instance(2)


class InstanceNorm3d(_InstanceNorm):
    """One mean and one variance per sample and channel, of (N, C, D, H, W) or (C, D, H, W).

    Arguments, formula and errors are those of :class:`InstanceNorm1d`.

    >>> InstanceNorm3d(2)(torch.randn(3, 2, 4, 5, 6)).shape
    torch.Size([3, 2, 4, 5, 6])
    """

    plan = instance(3)
