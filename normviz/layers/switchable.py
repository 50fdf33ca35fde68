"""SwitchableNorm: three statistics, of the instance, the layer and the batch, mixed by learning.

Source: Luo, Ren, Peng, Zhang and Li 2018, "Differentiable Learning-to-Normalize via Switchable
Normalization", equations 2 to 5. The authors' code differs from their paper: the variance of an
instance is unbiased there (nan for 1 × 1 pixel), momentum is the weight of the *old* value, and
running_var starts at 0.
"""

import torch
from torch import nn

from normviz.formula import precise
from normviz.layers.norm import Norm
from normviz.normalization import standardize
from normviz.plans import Plan
from normviz.refusals import check_numbers, positive_int
from normviz.telling import Part, tell


class SwitchableNorm2d(Norm):
    """A mean and a variance per sample and channel, mixed from three, of (N, C, H, W).

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, where mean and variance are those of the
    instance (over h, w), the layer (c, h, w) and the batch (n, h, w), each with its share:
    ``softmax(mean_weight)`` and ``softmax(var_weight)``, learned, and the same for all channels.
    All variances are biased. In eval the batch's part is a running one; with momentum 1, eval
    repeats the last output of training.

    Args:
        num_features: C, the number of channels.
        eps: added to the mixed variance, inside the root; 0 or more.
        momentum: weight of the new batch in the running statistics, 0 to 1.
        device, dtype: of all parameters and buffers.

    Raises:
        RefusedInput: a ValueError and RuntimeError at once, for an argument or an input outside
            these rules. Nothing has changed then.

    >>> layer = SwitchableNorm2d(3)
    >>> layer(torch.randn(4, 3, 5, 6)).shape, layer.mean_weight.softmax(0).tolist()[0]
    (torch.Size([4, 3, 5, 6]), 0.3333333432674408)
    """

    starts = Norm.starts | {
        **{"mean_weight": 1.0, "var_weight": 1.0, "running_mean": 0.0, "running_var": 1.0}
    }
    printed = ("eps", "momentum")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        device=None,
        dtype=None,
    ):
        shape = (positive_int("num_features", num_features),)
        super().__init__(eps, shape, device=device, dtype=dtype)
        self.num_features, self.momentum = shape[0], momentum
        check_numbers(self)
        for name in ("mean_weight", "var_weight"):
            self.register_parameter(name, nn.Parameter(torch.ones(3, device=device, dtype=dtype)))
        self.register_buffer("running_mean", torch.zeros(shape, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(shape, device=device, dtype=dtype))

    def plan(self, ndim: int) -> Plan:
        """One mixed mean per sample and channel; three to mix it from."""
        mixed = (("instance", "n c"), ("layer", "n"), ("batch", "c"))
        sizes = (("c", self.num_features),)
        return Plan("n c h w", "n c", "c", sizes, running="c", mixed=mixed)

    def by_input(self, input: torch.Tensor, plan: Plan) -> tuple[torch.Tensor, ...]:
        """The output, and the mixed mean and variance; in training the running ones move."""
        x, slices = precise(input), plan.reduction.stat_shape(input.shape)
        measured, parts, mixed = self._measure(x, plan), [], [0.0, 0.0]
        logits = torch.stack((self.mean_weight, self.var_weight), dim=1)
        shares = precise(logits).softmax(0)
        for (name, kept), pair, share in zip(plan.mixed, measured, shares, strict=True):
            stored = kept == plan.running and not self.training
            pair = [*map(precise, (self.running_mean, self.running_var))] if stored else pair
            spread = plan.joining(kept).spread
            mixed = [
                m + s * spread(stat, slices) for m, s, stat in zip(mixed, share, pair, strict=True)
            ]
            source = "running" if stored else "batch"
            parts.append(Part(name, plan.per(kept), *pair, [*share.detach()], source))
        mean, var = mixed
        tell(plan, "batch", mean, var, self.eps, batch=measured[0], parts=tuple(parts))
        if self.training:
            self._track(*measured[-1])
        y = standardize(x, plan.reduction, mean, var, self.eps)
        return self.scale_and_shift(y, input, plan), mean, var

    def _measure(self, x: torch.Tensor, plan: Plan) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of the instance, the layer and the batch; the larger ones are joined from the first.

        Their variance is that within the instances, and that between them.
        """
        mean, var = plan.reduction.mean(x), plan.reduction.var(x)
        larger = (plan.joining(kept) for _, kept in plan.mixed[1:])
        joined = ((all_.mean(mean), all_.mean(var) + all_.var(mean)) for all_ in larger)
        return [(mean, var), *joined]

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, var: torch.Tensor) -> None:
        for running, new in ((self.running_mean, mean), (self.running_var, var)):
            running.copy_(precise(running).lerp(new, self.momentum))
