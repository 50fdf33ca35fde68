"""What a layer holds now: its arguments, its ε, and the running statistics that normalize."""

import inspect

import torch
from torch import nn

from normviz.plans import Plan

RUNNING = ("running_mean", "running_var")


def stored_statistics(layer: nn.Module, plan: Plan) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The running mean and variance that normalize now; None if the input's own do.

    As in torch.nn, those of a batch normalize in eval wherever they are there, and those of single
    samples (InstanceNorm) if the flag ``track_running_stats`` says so.
    """
    if layer.training or plan.running is None:
        return None
    if not plan.over_samples and not getattr(layer, "track_running_stats", False):
        return None
    mean, var = (getattr(layer, name, None) for name in RUNNING)
    if mean is None and var is not None and not plan.centred:
        mean = torch.zeros_like(var)
    return None if mean is None and var is None else (mean, var)


def epsilon_of(layer: nn.Module, dtype: torch.dtype) -> float:
    """What a layer adds to the variance; where eps is None, as in RMSNorm, that of a wide dtype.

    >>> epsilon_of(nn.RMSNorm(4), torch.bfloat16)  # not that of bfloat16, 0.0078
    1.1920928955078125e-07
    """
    names = ("eps", "epsilon", "variance_epsilon")  # the last one in published RMSNorms
    eps = next((getattr(layer, name) for name in names if hasattr(layer, name)), 0.0)
    if isinstance(eps, torch.Tensor) and eps.numel() == 1:
        return float(eps)
    return torch.finfo(torch.promote_types(dtype, torch.float32)).eps if eps is None else eps


def set_epsilon(layer: nn.Module, dtype: torch.dtype) -> None:
    """Give each part whose eps is None that of this dtype, whatever it computes in from now on."""
    for part in layer.modules():
        if getattr(part, "eps", 0) is None:
            part.eps = epsilon_of(part, dtype)


def needed_by(made) -> list[str]:
    """The arguments of a class or a function that have no default.

    >>> needed_by(nn.GroupNorm)
    ['num_groups', 'num_channels']
    """
    parameters = inspect.signature(made).parameters.values()
    empty = inspect.Parameter.empty
    return [p.name for p in parameters if p.default is empty and p.kind < p.VAR_POSITIONAL]


def arguments_of(layer: nn.Module) -> dict[str, object]:
    """What a layer was made with, as far as its constructor has no default for it."""
    return {n: getattr(layer, n) for n in needed_by(type(layer)) if hasattr(layer, n)}
