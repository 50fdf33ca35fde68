"""Norms of weights rather than of inputs: WeightNorm, and a convolution with centred weights.

Sources: Salimans and Kingma 2016, "Weight Normalization", equation 2; Yan et al. 2020 (see MABN2d),
section 4.3, on centred weights. Flax's WeightNorm starts its scale at 1, so there the function
changes, and adds 1e-12 to the norm.
"""

import torch
from torch import nn
from torch.nn.utils import parametrize

from normviz.formula import is_traced, precise, widen
from normviz.plans import Plan, norm_of_weight
from normviz.reduction import Reduction
from normviz.refusals import RefusedInput
from normviz.telling import tell


def weight_norm(module: nn.Module, name: str = "weight", dim: int | None = 0) -> nn.Module:
    """Take a weight apart into scale and direction: ``w = g · v / ‖v‖``; module is changed.

    At the start g is ‖v‖, so the function stays the same. As torch's parametrization of that name,
    it can be undone by ``torch.nn.utils.parametrize.remove_parametrizations``, and its state_dict
    has ``parametrizations.weight.original0`` (g) and ``original1`` (v); ``weight_g`` and
    ``weight_v`` of older files are read as well.

    Args:
        module: whose parameter it is.
        name: of the parameter.
        dim: the axis that keeps one norm and one scale per position; None or -1, as in torch, for
            a single norm of the whole tensor.

    Returns:
        The module.

    Raises:
        RefusedInput: if there is no such parameter or axis, or a slice of zeros, which has no
            direction: torch divides 0 by 0 there. Under torch.func and torch.compile, where no
            number can be looked at, so does this.

    >>> layer = nn.Linear(2, 1)
    >>> before = layer.weight.detach().clone()
    >>> torch.equal(weight_norm(layer).weight, before)
    True
    >>> [*layer.parametrizations.weight.state_dict()]
    ['original0', 'original1']
    """
    own = module.named_parameters(recurse=False) if isinstance(module, nn.Module) else ()
    names = [of_it for of_it, _ in own]
    if name not in names:
        raise RefusedInput(
            f"name must be that of a parameter: got {name!r} of {type(module).__name__}, which has "
            f"{', '.join(names) or 'none'}."
        )
    axes = getattr(module, name).ndim
    if dim is not None and not (hasattr(dim, "__index__") and -1 <= dim < axes):
        raise RefusedInput(
            f"dim must be an axis of {name}, or -1 or None for all of it: got {dim!r} for {axes} "
            "axes."
        )
    parametrize.register_parametrization(module, name, _WeightNorm(dim), unsafe=True)
    old = {f"{name}_g": "original0", f"{name}_v": "original1"}

    def rename(state_dict, prefix, *_):
        for before, after in old.items():
            if f"{prefix}{before}" in state_dict:
                value = state_dict.pop(f"{prefix}{before}")
                state_dict[f"{prefix}parametrizations.{name}.{after}"] = value

    module._register_load_state_dict_pre_hook(rename)
    return module


class _WeightNorm(nn.Module):
    """The parametrization that :func:`weight_norm` registers: from scale and direction to weight.

    Args:
        dim: as there.
    """

    plan = norm_of_weight

    def __init__(self, dim: int | None = 0):
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, scale: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        """The weight."""
        reduction, squares = self._measure(direction)
        no_mean, norm = torch.zeros_like(squares), squares.sqrt().to(scale.dtype)
        tell(self.plan(direction.ndim), "batch", no_mean, squares, 0.0)
        longer = widen(scale.reshape(norm.shape)) / widen(norm)  # exactly 1 at the start
        return (widen(direction) * reduction.spread(longer, direction.shape)).to(direction.dtype)

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and direction of a weight."""
        norm = self._measure(weight)[1].sqrt().to(weight.dtype)
        shape = [size if axis == self.dim else 1 for axis, size in enumerate(weight.shape)]
        return norm.reshape(() if self.dim == -1 else shape), weight

    def _measure(self, direction: torch.Tensor) -> tuple[Reduction, torch.Tensor]:
        """What shares a norm, and the squared norms."""
        reduction = self.plan(direction.ndim).reduction
        squares = reduction.sum(precise(direction).square())
        if not (squares.is_meta or is_traced()) and (squares == 0).any():
            at = reduction.locate(int((squares.flatten() == 0).nonzero()[0]), direction.shape)
            where = ", ".join(f"{name} {i}" for name, i in at.items()) or "all of it"
            raise RefusedInput(
                f"a slice of the weight must not be all zeros, which have no direction: got zeros "
                f"at {where}; another start, such as torch.nn.init.normal_(weight), would do."
            )
        return reduction, squares


class CentredConv2d(nn.Conv2d):
    """A Conv2d whose weight has its mean per output subtracted before each use.

    What comes out then has a mean near 0 without being centred itself, which is what MABN relies
    on. Arguments, state_dict and errors are those of torch.nn.Conv2d; with ``affine`` layers behind
    it, ``bias=False`` is usual.

    >>> conv = CentredConv2d(3, 8, 5)
    >>> flat = torch.ones(1, 3, 5, 5)  # all that is left of it is the bias
    >>> torch.allclose(conv(flat).flatten(), conv.bias, atol=1e-6)
    True
    """

    def plan(self, ndim: int) -> Plan:
        """The numbers of the weight that make one output share a mean."""
        return Plan("o i h w", "o", "o", scaled=False, normalizes="weight")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The convolution."""
        plan, weight = self.plan(input.ndim), precise(self.weight)
        mean = plan.reduction.mean(weight)
        tell(plan, "batch", mean, torch.ones_like(mean), 0.0)
        centred = weight - plan.reduction.spread(mean, weight.shape)
        return self._conv_forward(input, centred.to(self.weight.dtype), self.bias)
