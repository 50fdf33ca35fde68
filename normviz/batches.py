"""What goes into a model and comes out, in whatever it is wrapped; and sample 0 of it."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass

import torch

from normviz.formula import precise


def mapped(change: Callable, held):
    """The same dicts, lists, tuples and dataclasses with other tensors in them."""
    if isinstance(held, torch.Tensor):
        return change(held)
    if isinstance(held, tuple) and hasattr(held, "_fields"):
        return type(held)(*(mapped(change, inner) for inner in held))
    if type(held) in (list, tuple):
        return type(held)(mapped(change, inner) for inner in held)
    if isinstance(held, Mapping) and hasattr(held, "__setitem__"):
        made = copy.copy(held)
        for key in [*held]:
            made[key] = mapped(change, held[key])
        return made
    if is_dataclass(held) and not isinstance(held, type):
        made = copy.copy(held)
        for name in (f.name for f in fields(held)):
            object.__setattr__(made, name, mapped(change, getattr(held, name)))
        return made
    return held


def tensors_in(held) -> list[torch.Tensor]:
    """All tensors in dicts, lists, tuples and dataclasses."""
    found = []
    mapped(lambda tensor: found.append(tensor) or tensor, held)
    return found


def with_other_mates(args: tuple, kwargs: dict) -> tuple | None:
    """The batch with sample 1 in the place of all behind it; None if there is but one sample.

    >>> with_other_mates((torch.tensor([5, 6, 7, 8]),), {"scale": 2})
    ((tensor([5, 6, 6, 6]),), {'scale': 2})
    """
    sizes = [len(tensor) for tensor in tensors_in((args, kwargs)) if tensor.ndim]
    if not sizes or sizes[0] < 2:
        return None
    places = [0] + [int(sizes[0] > 2)] * (sizes[0] - 1)  # of two samples, the first one twice
    return mapped(lambda t: t[places] if t.ndim and len(t) == sizes[0] else t, (args, kwargs))


def gap_of(a, b) -> float:
    """How far sample 0 of one output is from that of another, relative to its size."""
    gaps = [0.0]
    for one, other in zip(tensors_in(a), tensors_in(b), strict=False):
        if one.shape == other.shape and one.ndim and len(one) and one.is_floating_point():
            one, other = (precise(y[0]).nan_to_num() for y in (one, other))
            size = one.abs().amax() if one.numel() else torch.tensor(0.0)
            gaps.append(float((one - other).abs().amax() / size) if size else 0.0)
    return max(gaps)
