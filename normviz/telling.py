"""What a forward pass normalized with, told to whoever listens: ``explain`` does.

A layer knows its statistics while it runs, and forgets them. It tells them once; where nobody
listens, nothing happens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from normviz.formula import precise, widen
from normviz.normalization import normalize_precisely, standardize
from normviz.plans import Plan
from normviz.reduction import Reduction


@dataclass(frozen=True)
class Part:
    """One of several statistics that were mixed."""

    name: str
    reduction: Reduction
    mean: torch.Tensor  # one per slice of the reduction
    var: torch.Tensor
    shares: list[torch.Tensor]  # of the mixed mean, and of the mixed variance: a number each
    source: str  # "batch" or "running"


@dataclass(frozen=True)
class Told:
    """What normalized one input."""

    plan: Plan  # of the layer, for this input
    source: str  # "batch", "running", "memory" or, of a batch that is shared out, "workers"
    mean: torch.Tensor  # one per slice of ``reduction``; 0 if not centred
    var: torch.Tensor  # likewise: the biased variance, or the mean square
    eps: float | torch.Tensor  # added to it: a number, or one per slice
    batch: tuple[torch.Tensor, torch.Tensor] | None = None  # of x itself, if measured
    parts: tuple[Part, ...] = ()  # the statistics that were mixed
    factor: torch.Tensor | None = None  # of the normalized numbers, one per slice
    floor: torch.Tensor | None = None  # one per weight, below which no output goes
    inside: bool | None = True  # whether ε is under the root; None if it is the least divisor
    correction: int = 0  # what was taken off the count in ``var``

    def standardize(self, x: torch.Tensor) -> torch.Tensor:
        """``(x - mean) / sqrt(var + eps)``, or what of it the plan has, in the dtype of x."""
        eps = self.eps if self.plan.scaled else 0.0
        return standardize(x, self.reduction, self.mean, self.var, eps, self.inside)

    @property
    def reduction(self) -> Reduction:
        """Which numbers share these statistics."""
        return self.plan.per(self.plan.running) if self.source == "running" else self.plan.reduction


_heard: ContextVar[list[Told] | None] = ContextVar("heard", default=None)


def tell(plan: Plan, source: str, mean, var, eps, **more) -> None:
    """Tell what normalized, if somebody listens; the arguments are those of Told."""
    heard = _heard.get()
    if heard is not None:
        more = {name: t.detach() if hasattr(t, "detach") else t for name, t in more.items()}
        heard.append(Told(plan, source, mean, var, eps, **more))


@contextmanager
def listening() -> Iterator[list[Told]]:
    """Within a with block, all that is told in this thread, in order."""
    heard: list[Told] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


def own_statistics(
    numbers: torch.Tensor, plan: Plan, reduction: Reduction
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of numbers, their own mean and variance (or mean square, or squared norm), in float64."""
    x, nothing = precise(numbers), precise(numbers).new_zeros(reduction.stat_shape(numbers.shape))
    if plan.summed:
        return nothing, reduction.sum(x.square())
    if not reduction.count(x.shape):
        return nothing + torch.nan, nothing + torch.nan
    if not plan.scaled:
        return reduction.mean(x), nothing + 1
    return normalize_precisely(widen(numbers), reduction, 0.0, centred=plan.centred)[1:]
