"""What a layer that declares nothing normalizes with: asked of ``probe``, told as layers tell."""

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn

from normviz.evidence import Bench, stored_in
from normviz.formula import precise
from normviz.looking import untouched
from normviz.plans import Plan
from normviz.probing import Probe, probe
from normviz.state import epsilon_of, set_epsilon
from normviz.telling import Told, own_statistics

STATISTICS = {"mean": "mean", "variance": "var"}  # what is stored → as part of the usual name


@dataclass(frozen=True, eq=False)
class Asked:
    """What a pass is explained by: what was found, and in numbers what normalizes."""

    found: Probe
    told: Told
    weight: Tensor | None
    bias: Tensor | None


def ask(layer, x) -> Asked | None:
    """What moving numbers tells of a module; None if it cannot be asked.

    Raises:
        ValueError: if that is no answer to how it normalizes x, with the reason.
    """
    try:
        found = probe(layer, x)
    except ValueError:
        return None
    told = _tell(layer, found, x)
    affine = told and (_named if found.activation else _measured)(layer, found, told, x)
    if not affine:
        none = [line for line in found.text.splitlines() if line.startswith("No normalization")]
        reason = (*none, "It normalizes, but by no formula that can be shown.")[0]
        raise ValueError(f"Numbers were moved. {reason}")
    return Asked(found, told, *affine)


def _tell(layer: nn.Module, found: Probe, x: Tensor) -> Told | None:
    """The statistics that normalize x, in the formula that was found."""
    eps = epsilon_of(layer, x.dtype) if found.eps is None else found.eps
    if not found.pooled:
        return _tell_stored(layer, found, eps)
    if not found.slice or not found.plan:
        return None
    over = found.plan.reduction
    mean, var = own = own_statistics(x, found.plan, over)
    if found.correction:
        var = var * over.count(x.shape) / (over.count(x.shape) - found.correction)
    inside = found.eps_inside if eps else True
    formula = {"inside": inside, "correction": int(found.correction or 0)}
    return Told(found.plan, "batch", mean, var, eps, batch=own, **formula)


def _tell_stored(layer: nn.Module, found: Probe, eps: float) -> Told | None:
    """The numbers that move in training make each output, or those that have the usual names."""
    if not (plan := plan_of_found(layer, found)):
        return None
    mean, var = _stored(layer, found)
    return Told(plan, "running", precise(mean).flatten(), precise(var).flatten(), eps)


def plan_of_found(layer: nn.Module, found: Probe) -> Plan | None:
    """The plan that was found; of a layer that uses a stored mean and variance, one to keep them.

    None if it is no normalization.
    """
    if found.pooled or not found.weight:
        return found.plan
    if not _stored(layer, found):
        return None
    kept = " ".join(found.weight.kept)
    plan = found.plan or Plan(found.weight.pattern.partition(" ->")[0], kept, kept)
    return replace(plan, running=plan.running or kept)


def _stored(layer: nn.Module, found: Probe) -> tuple[Tensor, Tensor] | None:
    """The mean and the variance that a layer holds."""
    held = stored_in(layer)
    named = {name.rpartition(".")[2].removeprefix("running_"): name for name in held}
    named |= {STATISTICS.get(kind.split()[-1]): name for name, kind in found.stored.items()}
    return (held[named["mean"]], held[named["var"]]) if {"mean", "var"} <= {*named} else None


def _measured(layer: nn.Module, found: Probe, told: Told, x: Tensor):
    """The weight and the bias that were seen to be there, as numbers, in the dtype of x."""
    sharing, shape = told.plan.sharing, tuple(x.shape)
    with torch.inference_mode(False), torch.no_grad(), untouched(layer):
        set_epsilon(layer, x.dtype)
        bench = Bench(layer.to("cpu", torch.float64), shape)
        inputs = bench.draw(), bench.draw()
        y, other = map(bench.run, inputs)
        start, end = (_tell(layer, found, numbers).standardize(numbers) for numbers in inputs)
    right = end - start
    weight = sharing.sum((other - y) * right) / sharing.sum(right.square())
    bias = sharing.mean(y - sharing.spread(weight, shape) * start)
    weight, bias = (numbers.to(x.device, x.dtype) for numbers in (weight, bias))
    has_weight = found.weight or (found.scaled and found.correction is None)
    return weight if has_weight else None, bias if found.bias else None


def _named(layer: nn.Module, found: Probe, told: Told, x: Tensor):
    """Behind an activation nothing can be measured: what has the usual names, if that fits."""
    count = prod(told.plan.sharing.stat_shape(x.shape))
    seen = {"weight": found.weight, "bias": found.bias}
    held = [getattr(layer, name, None) if seen[name] else None for name in seen]
    fits = (isinstance(t, Tensor) and t.numel() == count for t in held)
    return (
        held if all(fit or not seen[name] for fit, name in zip(fits, seen, strict=True)) else None
    )
