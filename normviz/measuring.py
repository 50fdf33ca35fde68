"""What a normalization pools, and what is measured of a tensor that reaches one.

What it pools is said by its plan; where a class has none, its name or its buffers have to do.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn

from normviz.formula import precise, widen
from normviz.normalization import normalize_precisely
from normviz.plans import Plan, batch, declared, last_axes, without_mean
from normviz.state import RUNNING, stored_statistics

PICTURED = 4096  # numbers of an input that are kept for its picture, at most


@dataclass
class Made:
    """What is known of a tensor that came out of a linear layer or a convolution."""

    by: str  # the name of that
    axis: int  # of its outputs, one bias for each
    learns: bool  # whether there is a bias that learns
    version: int
    uses: int = 0  # by others than a normalization


@dataclass(eq=False)
class Call:
    """What reached a layer in one call, and whose statistics normalized it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    plan: Plan | None  # None: nobody knows what it pools
    stored: bool  # whether running statistics normalize
    mean: torch.Tensor | None = None  # its own, in float64, one per statistic
    var: torch.Tensor | None = None  # biased, or the mean square
    made: Made | None = None
    repeated: float = 0.0  # the share of positions that only repeat their neighbours
    along: tuple[int, float, float] | None = None  # an axis as long as that of the channels
    moved: tuple[str, ...] = ()  # the buffers that the call has changed
    first: tuple[torch.Tensor, ...] = ()  # sample 0 before and after, of a layer without a plan

    @property
    def count(self) -> int | None:
        """How many numbers feed each statistic."""
        return self.plan and self.plan.reduction.count(self.shape)

    @property
    def apart(self) -> Made | None:
        """Of which map this is all the output, one of whose biases is all that a slice gets."""
        if not self.made or self.made.uses or not self.plan or not self.plan.centred:
            return None
        axes, sizes = self.plan.reduction.axes, dict(self.plan.sizes)
        names = axes[self.made.axis] if len(axes) == len(self.shape) else ("",)
        one_each = {name for name in names if sizes.get(name) == 1}
        return self.made if {*names} <= {*self.plan.reduction.kept} | one_each else None

    @property
    def pattern(self) -> str:
        """What is pooled, as a pattern; a question mark where nobody knows."""
        return f"{self.plan.axes} -> {self.plan.statistic}".strip() if self.plan else "?"


def is_frozen(part: nn.Module) -> bool:
    """Whether it is a FrozenBatchNorm: running statistics and no parameters, in any mode."""
    held = {name for name, buffer in part._buffers.items() if buffer is not None}
    own = type(part).__module__.startswith(("torch.nn.", "normviz."))
    return {*RUNNING} <= held and not part._parameters and not own


def plan_for(part: nn.Module, x: torch.Tensor) -> Plan | None:
    """The plan of a layer for an input: declared, or guessed from what everybody calls so."""
    weight, own = getattr(part, "weight", None), False
    try:
        cls, plan = declared(part, x.ndim)
        own = cls is not None and type(part).forward is not cls.forward
    except ValueError:
        plan = None
        if is_frozen(part) and x.ndim > 1:
            plan = batch(strict=False)(part, x.ndim)
        elif "RMSNorm" in type(part).__name__ and weight is not None and weight.ndim == 1:
            like = SimpleNamespace(normalized_shape=weight.shape)
            plan, own = without_mean(last_axes)(like, x.ndim), True
    if own and not plan.over_samples and x.ndim > 2 and x.shape[1] == x.shape[-1]:
        return None  # the channels may be either
    try:
        fits = plan is not None and plan.normalizes == "input" and plan.reduction.count(x.shape)
    except ValueError:
        fits = False
    return plan if fits else None


def is_stored(part: nn.Module, plan: Plan) -> bool:
    """Whether running statistics normalize, in the mode in which it is."""
    return is_frozen(part) or stored_statistics(part, plan) is not None


def pools_mates(call: Call) -> bool:
    """Whether a layer with a plan pooled the samples of the batch."""
    return bool(call.plan) and any("n" in r.pooled for r in call.plan.pooled(stored=call.stored))


def measure(call: Call, x: torch.Tensor) -> None:
    """The statistics of x itself, and what is odd about its positions."""
    plan = call.plan
    own = normalize_precisely(widen(x), plan.reduction, 0.0, centred=plan.centred)[1:]
    call.mean, call.var = own
    call.repeated = repeated_in(x, plan)
    call.along = _along_a_neighbour(x, plan)


def repeated_in(x: torch.Tensor, plan: Plan) -> float:
    """The largest share of places along a pooled axis that repeat the two before them.

    >>> padded = torch.tensor([[[5.0, 7.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0]]])
    >>> repeated_in(padded, Plan("n c l", "c", "c"))
    0.375
    """
    axes, pooled = plan.reduction.axes, {*plan.reduction.pooled} - {*plan.sharing.kept}
    if len(axes) != x.ndim:
        return 0.0
    places = [axis for axis, names in enumerate(axes) if {*names} <= pooled]
    places = [axis for axis in places if axes[axis] != ("n",)] or places  # of a table, the rows
    shares = [_repeated_along(x, axis, axes) for axis in places if x.shape[axis] > 3]
    return max(shares, default=0.0)


def _repeated_along(x: torch.Tensor, axis: int, axes: tuple) -> float:
    others = [a for a in range(x.ndim) if a != axis and axes[a] != ("n",)]
    line = x
    for other in others:  # what is no stretch on one line is none on all
        line = line.narrow(other, x.shape[other] // 2, 1)
    if x.numel() and _stretches(line, axis, []) == 0:
        return 0.0
    return _stretches(x, axis, others)


def _stretches(x: torch.Tensor, axis: int, others: list[int]) -> float:
    """The share of places along an axis that repeat the two before, at all places of others."""
    same = x.diff(dim=axis).abs() <= 1e-6 * x.abs().amax()
    for other in others:
        same = same.all(other, keepdim=True)
    places = x.shape[axis]
    again = same.narrow(axis, 1, places - 2) & same.narrow(axis, 0, places - 2)
    return float(again.float().mean()) * (places - 2) / places


def _along_a_neighbour(x: torch.Tensor, plan: Plan) -> tuple[int, float, float] | None:
    """An axis as long as that of the channels, and how far means differ along it and along that.

    Both as shares of the variance of all numbers.
    """
    axes = plan.reduction.axes
    own = [a for a, names in enumerate(axes) if "c" in names and "c" in plan.sharing.kept]
    if len(own) != 1 or len(axes) != x.ndim or x.ndim < 3:
        return None
    like = [a for a, n in enumerate(x.shape) if n == x.shape[own[0]] > 1 and axes[a] != ("n",)]
    if like == own:
        return None
    means = {a: precise(x.mean([b for b in range(x.ndim) if b != a])) for a in like}
    whole = precise(x.var(correction=0)).clamp(min=1e-30)
    found = {a: float(mean.var(correction=0) / whole) for a, mean in means.items()}
    rival = max((a for a in like if a != own[0]), key=found.get)
    return rival, found[rival], found[own[0]]


def head_of(x: torch.Tensor, plan: Plan) -> torch.Tensor | None:
    """The first numbers of x that a picture can show, with whole axes where the layer has sizes."""
    sized, axes = dict(plan.sizes), plan.reduction.axes
    if len(axes) != x.ndim or not 0 < x.ndim < 6:
        return None
    for axis, names in enumerate(axes):
        if not {*names} & {*sized}:
            x = x.narrow(axis, 0, min(x.shape[axis], 3 if names == ("n",) else 5))
    return x.detach().clone().cpu() if 0 < x.numel() <= PICTURED else None
