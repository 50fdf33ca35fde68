"""FilterResponseNorm: the mean square of each sample and channel, no mean, and a learned threshold.

Source: Singh and Krishnan 2019, "Filter Response Normalization Layer", equations 1 to 4. Published
codes differ: timm's ε is 1e-5, and TensorFlow Addons learns a threshold for each *position*.
"""

import torch
from torch import nn

from normviz.formula import precise
from normviz.layers.norm import Norm
from normviz.normalization import standardize
from normviz.plans import Plan
from normviz.refusals import positive_int
from normviz.telling import tell


class FilterResponseNorm2d(Norm):
    """One mean square ν² per sample and channel, of (N, C, H, W) over h and w; then a threshold.

    ``y = x / sqrt(ν² + eps) * weight + bias``, and the output is ``max(y, threshold)``: the
    thresholded linear unit, which takes the place of a ReLU. As no mean is subtracted, y need not
    be near zero. There are no running statistics, so training and eval are the same.

    Args:
        num_features: C, the number of channels.
        eps: added to the mean square, inside the root; 0 or more.
        learn_eps: whether ``abs(learned_eps)``, one per channel, starting at 1e-4, is added as
            well: for slices of few numbers, where 1e-6 leaves little but a sign.
        threshold: whether there is a threshold, one per channel, starting at 0.
        device, dtype: of all parameters.

    Raises:
        RefusedInput: a ValueError and RuntimeError at once, for an argument or an input outside
            these rules.

    >>> layer = FilterResponseNorm2d(1)
    >>> layer(torch.tensor([[[[3.0, -4.0]]]])).detach()  # ν² = 12.5
    tensor([[[[0.8485, 0.0000]]]])
    """

    starts = Norm.starts | {"threshold": 0.0, "learned_eps": 1e-4}
    printed = ("eps", "learn_eps", "threshold")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-6,
        *,
        learn_eps: bool = False,
        threshold: bool = True,
        device=None,
        dtype=None,
    ):
        shape = (positive_int("num_features", num_features),)
        super().__init__(eps, shape, device=device, dtype=dtype)
        self.num_features, self.learn_eps = shape[0], learn_eps
        for name, wanted in {"threshold": threshold, "learned_eps": learn_eps}.items():
            empty = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, empty)
        self.reset_parameters()

    def plan(self, ndim: int) -> Plan:
        """The numbers of a sample and a channel share a mean square."""
        return Plan("n c h w", "n c", "c", (("c", self.num_features),), centred=False)

    def by_input(self, input: torch.Tensor, plan: Plan) -> tuple[torch.Tensor, ...]:
        """The output: scaled, shifted, and cut off below; no mean, and the mean square."""
        x, shape, per_channel = precise(input), input.shape, plan.sharing.spread
        square, eps = plan.reduction.mean(x.square()), self.eps
        if self.learned_eps is not None:
            eps = eps + precise(self.learned_eps).abs().expand(square.shape)
        no_mean = torch.zeros_like(square)
        y = standardize(x, plan.reduction, no_mean, square, eps)
        y = y * per_channel(precise(self.weight), shape) + per_channel(precise(self.bias), shape)
        if self.threshold is not None:
            y = torch.maximum(y, per_channel(precise(self.threshold), shape))
        batch = no_mean, square
        tell(plan, "batch", *batch, eps, batch=batch, floor=self.threshold)
        return y.to(input.dtype), *batch
