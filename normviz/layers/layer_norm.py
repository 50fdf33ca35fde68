"""LayerNorm and RMSNorm: one statistic per sample, or per token, over the last axes.

Sources: Ba, Kiros and Hinton 2016, "Layer Normalization", equations 3 and 4; Zhang and Sennrich
2019, "Root Mean Square Layer Normalization", equation 4.
"""

import torch

from normviz.layers.norm import Norm
from normviz.plans import last_axes, without_mean
from normviz.refusals import RefusedInput, positive_int


class LayerNorm(Norm):
    """One mean and one variance per sample (or token), over the last axes.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the biased variance. There are no
    running statistics, so training and eval are the same.

    Args:
        normalized_shape: the sizes of the last axes, which are pooled; an int for the last one.
        eps: added to the variance, inside the root; 0 or more.
        elementwise_affine: whether there are a weight and a bias of shape ``normalized_shape``,
            starting at 1 and 0; every slice meets all of them.
        bias: False for a weight without a bias.
        device, dtype: of weight and bias.

    Raises:
        RefusedInput: a ValueError and RuntimeError at once, for an argument or an input outside
            these rules.

    >>> LayerNorm(4, elementwise_affine=False)(torch.arange(12.0).reshape(3, 4))[0]
    tensor([-1.3416, -0.4472,  0.4472,  1.3416])
    """

    plan = last_axes
    printed = ("eps", "elementwise_affine", "bias")
    keeps_channels_last = False

    def __init__(
        self,
        normalized_shape,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device=None,
        dtype=None,
    ):
        shape = _sizes(normalized_shape)
        super().__init__(eps, shape, elementwise_affine, bias, device, dtype)
        self.normalized_shape = shape
        self.elementwise_affine = elementwise_affine


class RMSNorm(Norm):
    """One mean square per sample (or token), over the last axes; no mean, no bias.

    ``y = x / sqrt(mean(x²) + eps) * weight``. The weight is multiplied before the result is rounded
    to half precision; some published models round first, and some multiply by ``1 + weight``.

    Args:
        normalized_shape: the sizes of the last axes, which are pooled; an int for the last one.
        eps: added to the mean square, inside the root; 0 or more. None for 1.19e-07, the precision
            of float32, also for half precision; for float64 its own, 2.2e-16.
        elementwise_affine: whether there is a weight of shape ``normalized_shape``, starting at 1.
        device, dtype: of the weight.

    Raises:
        RefusedInput: a ValueError and RuntimeError at once, for an argument or an input outside
            these rules.

    >>> RMSNorm(3)(torch.tensor([[2.0, 4.0, 4.0]])).detach()
    tensor([[0.5774, 1.1547, 1.1547]])
    """

    plan = without_mean(last_axes)
    printed = ("eps", "elementwise_affine")
    optional = ("eps",)

    def __init__(
        self,
        normalized_shape,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device=None,
        dtype=None,
    ):
        shape = _sizes(normalized_shape)
        super().__init__(eps, shape, elementwise_affine, False, device, dtype)
        self.normalized_shape = shape
        self.elementwise_affine = elementwise_affine

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # torch's name of the argument
        """The input, normalized over its last axes and scaled."""
        return super().forward(x)


def _sizes(normalized_shape) -> tuple[int, ...]:
    listed = hasattr(normalized_shape, "__iter__") and not isinstance(normalized_shape, str)
    sizes = tuple(normalized_shape) if listed else (normalized_shape,)
    if not sizes:
        raise RefusedInput("normalized_shape must name at least one axis: got an empty one.")
    return tuple(positive_int("normalized_shape", size) for size in sizes)
