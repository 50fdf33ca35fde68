"""A pass to be differentiated: how each input of any module moves each of its outputs.

It is run once, in float64; autograd then tells the derivatives of as many outputs as are wanted.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import torch
from torch import nn

from normviz.captions import call_of
from normviz.evidence import reason_of
from normviz.explanation import Explanation, explain
from normviz.formula import precise
from normviz.looking import untouched
from normviz.picture import as_array
from normviz.refusals import RefusedInput, check_tensor
from normviz.state import set_epsilon

PART = 2**20  # derivatives at once


def jacobian_of(
    layer: nn.Module, x: torch.Tensor, outputs: Sequence[int] | None = None
) -> torch.Tensor:
    """How each input of ``layer(x)`` moves some of its outputs; layer and x stay untouched.

    It comes in float64, of shape (outputs, *x.shape); outputs are flat indices, of all of them if
    not given. What is refused is said by ``draw_jacobian``.

    >>> jacobian_of(nn.LayerNorm(3, eps=0.5), torch.tensor([1.0, 2.0, 6.0]), [0])
    tensor([[ 0.1798, -0.2034,  0.0237]], dtype=torch.float64)
    """
    with running(layer, x) as run:
        rows = np.array([*run.rows(range(run.y.size) if outputs is None else outputs)])
        return torch.from_numpy(rows.reshape(len(rows), *x.shape))


@contextmanager
def running(layer: nn.Module, x: torch.Tensor) -> Iterator["Run"]:
    """Within a with block, a pass in float64 that can be differentiated."""
    check_tensor(layer, x)
    if not isinstance(layer, nn.Module):
        raise RefusedInput(f"layer must be a torch module: got {type(layer).__name__}.")
    try:
        explained = explain(layer, x)
    except RefusedInput:
        raise
    except ValueError:  # it has no plan, or does something else
        explained = None
    with torch.inference_mode(False), torch.enable_grad(), untouched(layer):
        set_epsilon(layer, x.dtype)  # not that of float64
        try:
            layer.to("cpu", torch.float64)
            leaf = x.detach().to("cpu", torch.float64, copy=True).requires_grad_()
            y = layer(leaf.clone())
        except Exception as error:
            raise RefusedInput(f"{call_of(layer)} does not take x: {reason_of(error)}.") from error
        _check_output(type(layer).__name__, y)
        has_places = explained and explained.source != "weight" and y.shape == x.shape
        yield Run(layer, leaf, y, explained if has_places else None)


def _check_output(kind: str, y) -> None:
    if not isinstance(y, torch.Tensor):
        rule = f"be a tensor: got {type(y).__name__}"
    elif not y.is_floating_point():
        rule = f"hold floating-point numbers: got {y.dtype}"
    elif not y.requires_grad:
        rule = "depend on x as autograd sees it, without a detach() or no_grad(): got no gradient"
    else:
        return
    raise RefusedInput(f"layer(x) must {rule} from {kind}.")


class Run:
    """A pass that was run, as long as the layer is as it was in it."""

    def __init__(self, layer: nn.Module, leaf, y, explained: Explanation | None):
        self.layer, self.explained = layer, explained  # None: x and y have no slices in common
        self.x, self.y = as_array(leaf), np.atleast_1d(as_array(y))
        self.noise = 1e-12 * _range(self.y) / _range(self.x)  # of a derivative, by rounding alone
        self._leaf, self._outputs = leaf, y.reshape(-1)
        self.coloured, self.pooled, self.normalized = None, (), None
        if explained:
            told, plan, shape = explained.told, explained.plan, self.x.shape
            sources = [told.source, *(part.source for part in told.parts)]
            self.coloured = told.reduction  # which numbers look alike: those of a slice
            self.labels = self.coloured.labels(shape)
            self.pooled = plan.pooled(stored="running" in sources)  # they depend on each other
            self.slices = [reduction.labels(shape).reshape(-1) for reduction in self.pooled]
            if plan.scaled and told.source == "batch" and len(self.pooled) == 1:
                x = told.standardize(precise(explained.numbers))
                self.normalized = as_array(x).reshape(-1)  # x̂
            known = type(layer).forward.__module__.startswith(("torch.", "normviz."))
            known = known and not layer._forward_hooks and not layer._forward_pre_hooks
            # Without ε, derivatives times x̂ would add up to 0.
            self.vanishes = known and bool(torch.as_tensor(told.eps).all())

    def rows(self, outputs: Sequence[int]) -> Iterator[np.ndarray]:
        """For each of these outputs, its derivative by every input, as a vector."""
        ys, is_odd = self._outputs[[*outputs]], not np.isfinite(self.x).all()
        for y, row in zip(ys.tolist(), self._differentiate(ys), strict=True):
            row = row.reshape(-1).numpy()
            # A finite output depends on no nan: autograd has multiplied one by 0.
            yield np.where(np.isnan(row), 0, row) if is_odd and np.isfinite(y) else row

    def _differentiate(self, outputs: torch.Tensor) -> Iterable[torch.Tensor]:
        """All in one backward pass, if they are few, and each of its steps can do that."""
        if 0 < len(outputs) * self.x.size <= PART:
            with suppress(RuntimeError), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where it is slow
                each = torch.eye(len(outputs), dtype=outputs.dtype)
                return self._back(outputs, grad_outputs=each, is_grads_batched=True)
        return map(self._back, outputs)

    def _back(self, y: torch.Tensor, **how) -> torch.Tensor:
        how |= {"retain_graph": True, "allow_unused": True}
        (rows,) = torch.autograd.grad(y, self._leaf, **how)
        return self._leaf.new_zeros((*y.shape, *self.x.shape)) if rows is None else rows.detach()


def _range(numbers: np.ndarray) -> float:
    finite = numbers[np.isfinite(numbers)]
    return float(np.ptp(finite)) or 1.0 if finite.size else 1.0
