"""GroupNorm: one mean per sample and group of neighbouring channels.

Source: Wu and He 2018, "Group Normalization", equation 7. torch takes (groups, channels); some
libraries, such as timm, take (channels, groups).
"""

import torch

from normviz.layers.norm import Norm
from normviz.layout import divisors_of
from normviz.plans import Plan, group
from normviz.refusals import RefusedInput, positive_int


class GroupNorm(Norm):
    """One mean and one variance per sample and group of channels, of (N, C, …).

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the biased variance; weight and bias
    are one per *channel*. One group pools like LayerNorm([C, H, W]), and C groups like
    InstanceNorm. There are no running statistics, so training and eval are the same.

    Args:
        num_groups: G, which divides the channels.
        num_channels: C, how many channels there are.
        eps: added to the variance, inside the root; 0 or more.
        affine: whether there are a weight and a bias, one of each per channel, starting at 1 and 0.
        device, dtype: of weight and bias.
        bias: False for a weight without a bias.

    Raises:
        RefusedInput: a ValueError and RuntimeError at once, for an argument or an input outside
            these rules. As in torch, a slice of one number is refused in a batch of one, and gives
            0 in a larger one.

    >>> GroupNorm(2, 4, affine=False)(torch.tensor([[1.0, 3.0, 10.0, 30.0]]))
    tensor([[-1.0000,  1.0000, -1.0000,  1.0000]])
    """

    plan = group
    printed = ("eps", "affine", "bias")

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ):
        num_groups = positive_int("num_groups", num_groups)
        num_channels = positive_int("num_channels", num_channels)
        if num_channels % num_groups:
            raise RefusedInput(
                f"num_groups must divide num_channels: got {num_groups} groups for {num_channels} "
                f"channels; {divisors_of(num_channels)} would do."
            )
        super().__init__(eps, (num_channels,), affine, bias, device, dtype)
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.affine = affine

    def by_input(self, input: torch.Tensor, plan: Plan) -> tuple[torch.Tensor, ...]:
        """As for all layers; a batch of one sample has to hold more than one number per group."""
        if input.numel() == self.num_groups:
            raise RefusedInput(
                f"Expected more than 1 value per group in a batch of one: got x of shape "
                f"{tuple(input.shape)} for {self.num_groups} group{'s' * (self.num_groups > 1)}; "
                "a larger one would do."
            )
        return super().by_input(input, plan)
