"""A pass to be differentiated: how each input of any module moves each of its outputs.

It is run once, in float64; autograd then tells the derivatives of as many outputs as are wanted.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from normviz.captions import call_of
from normviz.looking import untouched
from normviz.picture import as_array
from normviz.plans import Plan, declared
from normviz.reduction import Reduction
from normviz.refusals import RefusedInput, check_input, check_tensor
from normviz.state import RUNNING, epsilon_of
from normviz.telling import Told, listening
from normviz.words import name_slice

PART = 2**20  # derivatives at a time


def jacobian_of(
    layer: nn.Module, x: torch.Tensor, outputs: Sequence[int] | None = None
) -> torch.Tensor:
    """How each input of ``layer(x)`` moves some of its outputs; layer and x stay untouched.

    Args:
        layer: any module from one tensor to one tensor.
        x: its input, a floating-point tensor.
        outputs: flat indices of the outputs; all of them if not given.

    Returns:
        ∂y/∂x in float64, of shape (outputs, *x.shape).

    Raises:
        ValueError: if layer does not take x, or gives no tensor of numbers that depends on x; or
            for an output that is not there.

    >>> jacobian_of(nn.LayerNorm(3, eps=0.5), torch.tensor([1.0, 2.0, 6.0]), [0])
    tensor([[ 0.1798, -0.2034,  0.0237]], dtype=torch.float64)
    """
    with running(layer, x) as run:
        every = range(run.y.numel())
        outputs = [*every] if outputs is None else [*outputs]
        for output in outputs:
            if output not in every:
                raise ValueError(
                    f"outputs must be flat indices below {len(every)}, as the output has the shape "
                    f"{tuple(run.y.shape)}: got {output!r}."
                )
        rows = [torch.from_numpy(row) for row in run.rows(outputs)]
        return (
            torch.stack(rows).reshape(-1, *x.shape) if rows else x.new_zeros(0, *x.shape).double()
        )


@contextmanager
def running(layer: nn.Module, x: torch.Tensor) -> Iterator["Run"]:
    """Within a with block, a pass in float64 that can be differentiated.

    Raises:
        ValueError: if layer does not take x, or gives nothing that depends on it.
    """
    check_tensor(layer, x)
    if not isinstance(layer, nn.Module):
        raise RefusedInput(
            f"layer must be a torch module: got {type(layer).__name__}; the layer comes first, "
            "then its input, as in draw_jacobian(nn.LayerNorm(3), x)."
        )
    for name, tensor in {"x": x, **layer.state_dict(keep_vars=True)}.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_meta:
            raise RefusedInput(
                f"{name} must hold numbers to be differentiated: got it on the meta device, which "
                "has none."
            )
    plan = _plan_of(layer, x)
    if plan:
        check_input(layer, x)
    with torch.inference_mode(False), torch.enable_grad(), untouched(layer), listening() as heard:
        small = {part: epsilon_of(part, x.dtype) for part in layer.modules() if _lacks_eps(part)}
        for part, eps in small.items():
            part.eps = eps  # as it is in the dtype of x
        layer.to("cpu", torch.float64)
        leaf = x.detach().to("cpu", torch.float64, copy=True).requires_grad_()
        try:
            y = layer(leaf.clone())
        except RefusedInput:
            raise
        except Exception as error:
            reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
            raise RefusedInput(f"{call_of(layer)} does not take x: {reason}.") from error
        _check_output(layer, y)
        told = next((told for told in heard if told.plan == plan), None)
        yield Run(layer, leaf, y, plan, told)


def _lacks_eps(part: nn.Module) -> bool:
    return getattr(part, "eps", 0) is None


def _plan_of(layer, x) -> Plan | None:
    """What the layer declares for x, if it does."""
    try:
        plan = declared(layer, x.ndim)[1]
    except ValueError:
        return None
    return plan if plan.normalizes == "input" else None


def _check_output(layer, y) -> None:
    kind = type(layer).__name__
    if not isinstance(y, torch.Tensor):
        raise RefusedInput(f"layer(x) must be a tensor: got {type(y).__name__} from {kind}.")
    if not y.is_floating_point():
        raise RefusedInput(
            f"layer(x) must hold floating-point numbers: got {y.dtype} from {kind}, which has no "
            "derivative."
        )
    if not y.requires_grad:
        raise RefusedInput(
            f"layer(x) must depend on x as autograd sees it: got {kind}, whose output has no "
            "gradient; a detach() or no_grad() inside may cut it off."
        )


@dataclass(frozen=True)
class Slice:
    """Inputs that share a statistic with an output."""

    name: str  # empty if there is but one, or if there are several at once
    inside: np.ndarray | None  # where they are, as flat indices; None if statistics are stored
    normalized: np.ndarray | None  # x̂ of each, if their own statistics normalize


@dataclass
class Run:
    """A pass that was run, as long as the layer is as it was in it."""

    layer: nn.Module
    leaf: torch.Tensor
    y: torch.Tensor
    plan: Plan | None
    told: Told | None  # what normalized, if the layer tells

    def rows(self, outputs: list[int]) -> Iterator[np.ndarray]:
        """For each of these outputs, its derivative by every input, as a vector."""
        flat, size = self.y.reshape(-1), max(1, PART // max(1, self.leaf.numel()))
        for start in range(0, len(outputs), size):
            part = outputs[start : start + size]
            rows = self._together(flat[part]) if len(part) > 1 else None
            if rows is None:
                rows = (self._differentiate(flat[output]) for output in part)
            yield from (row.reshape(-1).numpy() for row in rows)

    def _together(self, outputs: torch.Tensor) -> torch.Tensor | None:
        """All in one backward pass, where each of its steps can do that."""
        each = torch.eye(len(outputs), dtype=outputs.dtype)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where it is slow
                return self._differentiate(outputs, each, is_grads_batched=True)
        except RuntimeError:
            return None

    def _differentiate(self, outputs, grad=None, **options) -> torch.Tensor:
        for buffer, was in self._buffers:
            buffer.data.copy_(was)  # which a backward pass may have moved
        (rows,) = torch.autograd.grad(
            outputs, self.leaf, grad, retain_graph=True, allow_unused=True, **options
        )
        if rows is None:
            return self.leaf.new_zeros(*outputs.shape, *self.leaf.shape)
        return rows.detach()

    @cached_property
    def _buffers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(buffer, buffer.clone()) for buffer in self.layer.buffers()]

    @property
    def has_modes(self) -> bool:
        """Whether training and eval differ, as far as the layer's buffers tell, or its plan."""
        matters = self.plan and self.plan.running and self.plan.over_samples
        return bool(matters or [*self.layer.buffers()] or (not self.plan and self._drops))

    @property
    def _drops(self) -> bool:
        return any(hasattr(part, "p") and hasattr(part, "inplace") for part in self.layer.modules())

    @property
    def stored(self) -> bool:
        """Whether a running statistic normalizes, at least as a part."""
        kept = any(getattr(self.layer, name, None) is not None for name in RUNNING)
        if self.layer.training or not self.plan or not self.plan.running or not kept:
            return False
        tracks = getattr(self.layer, "track_running_stats", False)
        return bool(self.plan.over_samples or self.plan.mixed or tracks)

    @cached_property
    def pooled(self) -> tuple[Reduction, ...]:
        """In which slices numbers depend on each other now, as the plan declares it."""
        return self.plan.pooled(stored=self.stored) if self.plan else ()

    @cached_property
    def coloured(self) -> Reduction | None:
        """Which numbers look alike: those of a slice; in eval, those of a stored statistic."""
        if not self.plan or self.y.shape != self.leaf.shape:
            return None
        if len(self.pooled) == 1:
            return self.pooled[0]
        return self.plan.per(self.plan.running) if not self.pooled else self.plan.reduction

    @cached_property
    def labels(self) -> np.ndarray:
        """For each place, which slice it is drawn as."""
        return self.coloured.labels(self.leaf.shape)

    def slice_at(self, index: tuple[int, ...]) -> Slice:
        """The inputs that the output at this place shares a statistic with."""
        of = tuple(int(labels[index]) for labels in (self.labels, *self._pools))
        if of not in self._slices:
            name = name_slice(self.coloured, of[0], self.leaf.shape)
            pairs = zip(self._pools, of[1:], strict=True)
            same = [(labels == label).reshape(-1) for labels, label in pairs]
            inside = np.flatnonzero(np.logical_or.reduce(same)) if same else None
            weights = None if self.normalized is None else self.normalized[inside]
            whole = name == "all" or len(same) > 1
            self._slices[of] = Slice("" if whole else name, inside, weights)
        return self._slices[of]

    @cached_property
    def _pools(self) -> list[np.ndarray]:
        return [reduction.labels(self.leaf.shape) for reduction in self.pooled]

    @cached_property
    def _slices(self) -> dict[tuple[int, ...], Slice]:
        return {}

    @cached_property
    def normalized(self) -> np.ndarray | None:
        """x̂, where a slice's own statistics normalize."""
        if len(self.pooled) != 1 or not self.plan.scaled or not self.plan_holds:
            return None
        if self.told and self.told.source != "batch":
            return None
        x, [reduction] = self.leaf.detach().numpy(), self.pooled
        mean = reduction.mean(x) * self.plan.centred
        centred = x - reduction.spread(mean, x.shape)
        with np.errstate(all="ignore"):
            var = reduction.mean(centred**2) + self.eps
            return (centred / np.sqrt(reduction.spread(var, x.shape))).reshape(-1)

    @cached_property
    def plan_holds(self) -> bool:
        """Whether outputs and inputs stand in the same places."""
        return self.plan is not None and self.y.shape == self.leaf.shape

    @cached_property
    def vanishes(self) -> bool:
        """Whether a sum of derivatives times x̂ is 0 but for ε: for all that the plan is true of."""
        known = str(getattr(type(self.layer).forward, "__module__", ""))
        hooked = self.layer._forward_hooks or self.layer._forward_pre_hooks
        return known.startswith(("torch.", "normviz.")) and not hooked and bool(np.all(self.eps))

    @cached_property
    def eps(self):
        """What is added to the variances: a number, or one per slice."""
        eps = self.told.eps if self.told else epsilon_of(self.layer, torch.float64)
        return as_array(eps) if isinstance(eps, torch.Tensor) else eps

    @cached_property
    def noise(self) -> float:
        """What rounding alone can make of a derivative that is 0."""
        y, x = (as_array(t).reshape(-1)[:PART] for t in (self.y, self.leaf))
        spread = [float(np.ptp(n[np.isfinite(n)])) if np.isfinite(n).any() else 0 for n in (y, x)]
        return 1e-12 * (spread[0] or 1) / (spread[1] or 1)
