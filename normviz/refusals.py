"""What a layer refuses, in words: the argument, the rule, what was given, and what would do."""

import operator
from fractions import Fraction
from math import inf, prod
from numbers import Real

import torch
from torch import nn

from normviz.layout import is_positive_int
from normviz.plans import Plan, declared
from normviz.reduction import refuse_mask
from normviz.state import RUNNING, arguments_of, stored_statistics

LIMITS = {  # of a layer's numbers: the largest, the rule, and what is usual
    "eps": (inf, "a number, 0 or more", "1e-5"),
    "momentum": (1, "from 0 to 1 (the weight of the new batch)", "0.1"),
}


class RefusedInput(ValueError, RuntimeError):
    """What a layer refuses, before it changes anything.

    torch.nn raises ValueError for some of these and RuntimeError for others; code that catches
    either one goes on working.
    """


def check_input(layer: nn.Module, x: torch.Tensor, *, alone: bool = True) -> Plan:
    """The plan of a layer for x, if it can take x. It may be normviz's, torch.nn's or anybody's.

    Args:
        layer: that is to take it.
        x: the input.
        alone: whether x is all that is pooled; if not, check_count comes later.

    Raises:
        RefusedInput: naming the argument, the rule, what was given and what would do.
    """
    check_tensor(layer, x)
    if hasattr(layer, "plan"):
        check_numbers(layer)
    try:
        _, plan = declared(layer, x.ndim)
    except ValueError as error:
        raise RefusedInput(f"{error} x has shape {tuple(x.shape)}.") from None
    if plan.normalizes != "input":
        return plan  # which says nothing of x
    _check_sizes(layer, plan, x)
    _check_state(layer, plan, x)
    _check_eps(layer, plan)
    if alone:
        check_count(layer, plan, x, plan.reduction.count(x.shape))
    return plan


def check_tensor(layer, x) -> None:
    """Whether x is a tensor of numbers that can be normalized.

    Raises:
        RefusedInput: with what would make one of it.
    """
    if not isinstance(x, torch.Tensor):
        raise RefusedInput(f"x must be a torch tensor: got {_spell(x, _to_dtype_of(layer))}.")
    if x.is_nested:
        what, would_do = "a nested one", "each of its parts, x.unbind(),"
    elif x.layout != torch.strided:
        what, would_do = f"one with the layout {x.layout}", "x.to_dense()"
    elif x.is_quantized:
        what, would_do = f"a quantized one, {x.dtype}", "x.dequantize()"
    elif x.is_complex():
        what, would_do = f"{x.dtype}", "x.real and x.imag, each for itself,"
    elif not x.is_floating_point() or x.dtype.itemsize < 2:
        what, would_do = f"{x.dtype}", f"x{_to_dtype_of(layer)}"
    elif type(x).__name__ == "MaskedTensor":
        what, would_do = "a masked one, and hidden numbers would count", "x.get_data()"
    else:
        return
    raise RefusedInput(f"x must be a floating-point tensor: got {what}; {would_do} would do.")


def _to_dtype_of(layer) -> str:
    """The call that leads to the dtype of a layer's weights; of most tensors if it has none."""
    held = layer.state_dict().values() if isinstance(layer, nn.Module) else ()
    dtype = next((t.dtype for t in held if t.is_floating_point()), torch.get_default_dtype())
    return ".float()" if dtype == torch.float32 else f".to({dtype})"


def _spell(x, to_dtype: str) -> str:
    """What is no tensor, and what would do."""
    kind = type(x).__name__
    if isinstance(x, torch.fx.Proxy):
        return (
            f"{kind}, of torch.fx.symbolic_trace, which holds no numbers to decide by; "
            "torch.export.export would do"
        )
    if isinstance(x, nn.Module):
        return f"{kind}, a module; the layer comes first, then its input"
    try:
        refuse_mask(x)
    except ValueError as error:
        return f"a masked array. {str(error).removesuffix('.')}"
    if isinstance(x, tuple) and x and isinstance(x[0], torch.Tensor):
        return f"{kind}; x[0] would do"
    try:
        torch.as_tensor(x).float()
    except Exception:  # whatever it is, it holds no numbers
        return kind
    return f"{kind}; torch.as_tensor(x){to_dtype} would do"


def _check_sizes(layer, plan: Plan, x) -> None:
    shape = tuple(x.shape)
    try:
        plan.reduction.stat_shape(shape)  # plan.sharing has the same axes and sizes
    except ValueError as error:
        wanted = {
            axis: prod(dict(plan.sizes)[name] for name in group)
            for axis, group in enumerate(plan.reduction.axes)
            if {*group} <= {*dict(plan.sizes)}
        }
        sizes, got = tuple(wanted.values()), tuple(shape[axis] for axis in wanted)
        if sizes == got:  # it is something else
            raise RefusedInput(str(error)) from None
        arguments = {str(value): name for name, value in arguments_of(layer).items()}
        if str(sizes) in arguments:
            named = f"the last axes of x must be {arguments[str(sizes)]} {sizes}: got {got}"
        else:
            axis, size = next((axis, n) for axis, n in wanted.items() if shape[axis] != n)
            name = arguments.get(str(size))
            size = f"{name}={size}" if name else f"{size} that the layer was made for"
            named = f"axis {axis} of x must have the size {size}: got {shape[axis]}"
        raise RefusedInput(f"{named} in the shape {shape}.") from None


def _check_state(layer, plan: Plan, x) -> None:
    """Weights and statistics: one device, fitting dtypes, and one number per slice each."""
    names = ("weight", "bias", *RUNNING) if plan.running else ("weight", "bias")
    held = {name: getattr(layer, name, None) for name in names}
    held = {name: tensor for name, tensor in held.items() if isinstance(tensor, torch.Tensor)}
    for name, tensor in held.items():
        if tensor.device != x.device:
            mend = "" if tensor.is_meta else f"; x.to({str(tensor.device)!r}) would do"
            raise RefusedInput(
                f"x and {name} must be on one device: got {x.device} and {tensor.device}{mend}."
            )
        if tensor.dtype not in (x.dtype, torch.promote_types(x.dtype, torch.float32)):
            mend = f"x.to({tensor.dtype})"
            if not tensor.is_floating_point():
                mend = f"layer.{name}.data = layer.{name}.data.to({x.dtype})"
            elif len({other.dtype for other in held.values()}) > 1:
                mend = f"layer.to({x.dtype})"
            raise RefusedInput(
                f"x and {name} must have one dtype (a half-precision x may meet float32): got "
                f"{x.dtype} and {tensor.dtype}; {mend} would do."
            )
        kept = plan.running if name in RUNNING else plan.weight
        wanted = tensor.numel() if kept is None else prod(plan.per(kept).stat_shape(x.shape))
        if tensor.numel() != wanted:
            raise RefusedInput(f"{name} must hold {wanted} numbers: got {tensor.numel()}.")
    found = [name for name in RUNNING if name in held]
    if len(found) == 1 and all(hasattr(layer, name) for name in RUNNING):
        raise RefusedInput(f"{' and '.join(RUNNING)} must both be there: got {found[0]} alone.")
    if layer.training or found or plan.running is None or plan.over_samples:
        return
    if getattr(layer, "track_running_stats", False):
        raise RefusedInput(
            "running_mean and running_var must be there where track_running_stats is set: got "
            "none; layer.track_running_stats = False would do."
        )


def _check_eps(layer, plan: Plan) -> None:
    """A batch may hold a channel of one number only, as torch says of BatchNorm alone."""
    if not (plan.running and plan.centred and plan.over_samples and layer.eps == 0):
        return
    if stored_statistics(layer, plan) is None:
        raise RefusedInput(
            "eps must be more than 0 where the statistics of the batch normalize, as in torch.nn: "
            "got 0; 1e-5 is usual."
        )


def check_count(layer, plan: Plan, x, count: int) -> None:
    """Where running statistics are kept, a slice of one number has none to give.

    Raises:
        RefusedInput: if a slice holds one.
    """
    if not plan.running or not plan.centred or plan.mixed or count != 1:
        return
    if stored_statistics(layer, plan) is None:
        what, more = "spatial element", "longer or larger input"
        if plan.over_samples:
            what, more = "value per channel", "larger batch"
        stored = getattr(layer, "running_mean", None) is not None
        raise RefusedInput(
            f"Expected more than 1 {what} when training, or without running statistics: got x of "
            f"shape {tuple(x.shape)}, and one number has no spread; "
            + (f"a {more}, or layer.eval(), would do." if stored else f"only a {more} would do.")
        )


def check_numbers(layer) -> None:
    """The numbers that a layer was made with, which its owner may have changed since.

    Raises:
        RefusedInput: naming the one that is out of its range.
    """
    for name, (most, rule, usual) in LIMITS.items():
        value, optional = getattr(layer, name, 0), name in getattr(layer, "optional", ())
        is_number = isinstance(value, Real) and not isinstance(value, Fraction)
        if not ((is_number and 0 <= value <= most) or (value is None and optional)):
            rule += ", or None" * optional
            raise RefusedInput(f"{name} must be {rule}: got {value!r}; {usual} is usual.")


def positive_int(name: str, value) -> int:
    """The value of an argument that counts something.

    Raises:
        RefusedInput: if it is no positive int.
    """
    if not is_positive_int(value):
        raise RefusedInput(f"{name} must be a positive int: got {value!r}.")
    return operator.index(value)
