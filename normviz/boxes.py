"""Six modules whose inside does not show: lesson 10 finds out by experiments what they are."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from normviz.exercises.norms import norm_over

CHANNELS = 4


class Box(nn.Module):
    """What it prints is its name, and it keeps the rest to itself."""

    def __init__(self, name: str, inside: Callable[[Tensor], Tensor]):
        super().__init__()
        self._name, self._inside = name, inside
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """As what is inside."""
        return self._inside(x)

    def __repr__(self) -> str:
        return self._name


def six_boxes() -> tuple[Box, ...]:
    """For numbers of shape (N, 4, L): some are norms of torch, some a learner's own, one is none.

    >>> six_boxes()
    (box_1, box_2, box_3, box_4, box_5, box_6)
    """
    insides = (
        norm_over((0, 2), correction=1),
        nn.Softmax(1),
        nn.GroupNorm(2, CHANNELS),
        _trained_and_in_eval(),
        lambda x: x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt(),
        norm_over((1, 2), eps=0, outside=1e-3),
    )
    boxes = tuple(Box(f"box_{i}", inside) for i, inside in enumerate(insides, start=1))
    boxes[3].eval()
    return boxes


@torch.no_grad()
def _trained_and_in_eval() -> nn.Module:
    """A BatchNorm with weights, and with statistics of other numbers than 0 and 1."""
    layer, ramp = nn.BatchNorm1d(CHANNELS), torch.arange(float(CHANNELS))
    for tensor, start in ((layer.weight, 0.5), (layer.bias, -0.5)):
        tensor.copy_(start + ramp / 4)
    layer.running_mean.copy_(ramp)
    layer.running_var.copy_(1 + ramp)
    return layer
