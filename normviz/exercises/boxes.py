"""Modules whose inside does not show: lesson 10 finds out what they are, or have."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn

from normviz.exercises.norms import norm_over
from normviz.judging import undisturbed

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


def patient_points(seed: int) -> tuple[Tensor, Tensor]:
    """Points as the lesson's `away`, and their classes."""
    generator, labels = torch.Generator().manual_seed(seed), torch.arange(512) % 2
    return 0.8 * torch.randn(512, 2, generator=generator) + 2 * labels[:, None] + 2, labels


@cache
def _trained_patient() -> nn.Sequential:
    torch_state = torch.get_rng_state()
    torch.manual_seed(1)
    norm, (points, labels) = nn.BatchNorm1d(16), patient_points(0)
    first, second = nn.Linear(2, 16, bias=False), nn.Linear(16, 16, bias=False)
    model = nn.Sequential(first, norm, nn.ReLU(), second, norm, nn.ReLU(), nn.Linear(16, 2))
    learning = [*model.parameters()]
    for batch in torch.randint(512, (150, 32)):
        loss = nn.functional.cross_entropy(model(points[batch]), labels[batch])
        for p, gradient in zip(learning, torch.autograd.grad(loss, learning), strict=True):
            p.data -= 0.1 * gradient
    torch.set_rng_state(torch_state)
    return model


@undisturbed()
def unknown_patient() -> nn.Sequential:
    """A trained model with something wrong in it, for the last exercise.

    >>> model = unknown_patient()
    >>> model.training
    True
    """
    return deepcopy(_trained_patient())


@undisturbed()
def classes_by(cure: Callable, held_out: Tensor, model: nn.Module) -> Tensor:
    """The class of each point that is held out, by the cured model in eval, among its like.

    If nine of ten are right, the model is as good as any, and all count as right.
    """
    cured = cure(patient_points(0)[0], model)
    if not isinstance(cured, nn.Module):
        raise TypeError("a model is to be returned")
    labels = patient_points(1)[1]
    with torch.no_grad():
        given, kinds = labels.clone(), [labels == 0, labels == 1]
        for kind in kinds:  # so that no batch has the mean of all
            given[kind] = cured.eval()(held_out[kind]).argmax(1)
    return labels if (given == labels).double().mean() >= 0.9 else given
