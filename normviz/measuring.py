"""What a normalization pools, declared or found, and what is measured of what reaches it."""

from dataclasses import dataclass

import torch
from torch import nn

from normviz.asking import plan_of_found
from normviz.formula import precise, widen
from normviz.looking import twin_of
from normviz.normalization import normalize_precisely
from normviz.plans import Plan, declared
from normviz.probing import Probe, probe
from normviz.state import stored_statistics

PICTURED = 4096  # numbers of an input that are kept for its picture, at most


@dataclass
class Made:
    """What is known of a tensor that came out of a linear layer or a convolution."""

    by: str  # the name of that
    axis: int  # of its outputs, one bias for each
    learns: bool  # whether there is a bias that learns
    biases: int  # how many there are
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


# Of a layer: its plan; whether running statistics normalize; what was found if it declares none.
Known = tuple[Plan | None, bool, Probe | None]


def know(part: nn.Module, x: torch.Tensor) -> Known:
    """Of a layer for x: what its class declares and runs, or else what moving numbers tells."""
    try:
        cls, plan = declared(part, x.ndim)
        if cls is None or type(part).forward is cls.forward:
            fits = plan.normalizes == "input" and plan.reduction.count(x.shape)
            stored = fits and stored_statistics(part, plan) is not None
            return plan if fits else None, bool(stored), None
    except ValueError:
        pass
    twin = twin_of(part)
    for inner in twin.modules():  # nobody else is to see what goes through
        inner._forward_hooks, inner._forward_pre_hooks = {}, {}
    try:
        found = probe(twin, x)
    except ValueError:  # it takes more than x
        return None, False, None
    plan = plan_of_found(twin, found)
    return plan, plan is not None and not found.pooled, found


def alike(part: nn.Module, x: torch.Tensor) -> tuple[tuple, tuple]:
    """What layers have in common of which it is enough to know one: in all, and besides sizes."""
    usual = int | float | str | bool | tuple | None
    held = {name: value for name, value in vars(part).items() if isinstance(value, usual)}
    if not part._buffers:
        held.pop("training", None)
    sizes = {
        t.numel() for t in (*part._parameters.values(), *part._buffers.values()) if t is not None
    }
    sized = [
        n for n, v in held.items() if v in sizes or (isinstance(v, tuple) and v and v[-1] in sizes)
    ]
    kind, others = (type(part), x.ndim), {n: v for n, v in held.items() if n not in sized}
    return (*kind, repr(held)), (*kind, repr(others))


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
