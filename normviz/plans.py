"""What a layer does to an input, as data: a layer declares its plan and supplies no formula.

Four choices make a normalization layer: which numbers share a statistic, what is done with it,
which numbers share a weight, and what is remembered. The forward pass, ``explain``, the pictures,
the labs and the tests read them here; none of them asks for the class of a layer.

    >>> from torch import nn
    >>> plan = plan_of(nn.GroupNorm(2, 6), ndim=4)
    >>> plan.statistic, plan.weight
    ('n g', 'g c')
    >>> str(plan.reduction)
    'over c, h, w, one per n, g'

This module does not import torch.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, wraps

from normviz.layout import Sizes
from normviz.pattern import ELLIPSIS
from normviz.reduction import Reduction

SPACE = ("", "l", "h w", "d h w")  # the axes behind the channels, by their number
SWAPPED = str.maketrans("oi", "io")
TOKENS = {1: "c", 2: "n c", 3: "n t c", 4: "n c h w", 5: "n c d h w"}  # where no axis is special


@dataclass(frozen=True)
class Plan:
    """What a layer pools of an input with so many axes, what it does with it, and what it keeps.

    Args:
        axes: the left side of every pattern: ``"n (g c) h w"``.
        statistic: what there is one mean and one variance per: ``"n g"``.
        weight: what there is one weight and one bias per: ``"g c"``.
        sizes: names with the sizes that the layer was made for, as ``(("c", 3),)``.
        running: what there is one running mean and variance per; None where none can be kept.
        centred: False if no mean is subtracted, so that the mean square stands for the variance.
        scaled: False if nothing is divided by, so that only the mean is subtracted.
        mixed: the statistics that are mixed into one, each with its name: ``(("batch", "c"), …)``.
        summed: whether squares are added up rather than averaged, as in a norm.
        normalizes: ``"input"``, or the name of a parameter, such as ``"weight"``.

    >>> Plan("n t c", statistic="n t", weight="c").reduction
    Reduction('n t c -> n t')
    """

    axes: str
    statistic: str
    weight: str
    sizes: Sizes = ()
    running: str | None = None
    centred: bool = True
    scaled: bool = True
    mixed: tuple[tuple[str, str], ...] = ()
    summed: bool = False
    normalizes: str = "input"

    def per(self, kept: str) -> Reduction:
        """The reduction that keeps these axes; it checks the sizes.

        Raises:
            ValueError: if the plan makes no sense.
        """
        return _reduction(self.axes, kept, self.sizes)

    def joining(self, kept: str) -> Reduction:
        """From one statistic per slice to one per these axes, each of several slices."""
        return _reduction(self.statistic, kept, ())

    @property
    def reduction(self) -> Reduction:
        """Which numbers share a mean and a variance."""
        return self.per(self.statistic)

    @property
    def sharing(self) -> Reduction:
        """Which numbers share a weight and a bias."""
        return self.per(self.weight)

    @property
    def over_samples(self) -> bool:
        """Whether a statistic, not one that is mixed in, pools the samples of a batch."""
        return "n" in self.reduction.pooled

    @property
    def symbols(self) -> tuple[tuple[str, str], ...]:
        """The statistics of a slice, each with a sign and a name."""
        squares = ("σ²", "variance") if self.centred else ("ν²", "mean square")
        squares = ("‖v‖²", "squared norm") if self.summed else squares
        return (("μ", "mean"),) * self.centred + (squares,) * self.scaled

    @property
    def shared(self) -> tuple[str, ...]:
        """What numbers can share: a statistic, a weight, or one of the statistics in a mix."""
        return "statistic", *["weight"] * self.scaled, *(name for name, _ in self.mixed)

    def pick(self, mean, var) -> tuple:
        """Of a mean and a variance, those that the layer has: one for each of ``symbols``."""
        return (mean,) * self.centred + (var,) * self.scaled

    def pooled(self, *, stored: bool = False) -> tuple[Reduction, ...]:
        """Which numbers depend on each other now: a number moves the outputs of these slices.

        Args:
            stored: whether the running statistics normalize.

        >>> plan = Plan("n c l", "c", "c", running="c")
        >>> plan.pooled(), plan.pooled(stored=True)
        ((Reduction('n c l -> c'),), ())
        """
        names = [kept for _, kept in self.mixed] or [self.statistic]
        if stored:
            names = [kept for kept in names if self.mixed and kept != self.running]
        return tuple(map(self.per, names))


@cache
def _reduction(axes: str, kept: str, sizes: Sizes) -> Reduction:
    return Reduction(f"{axes} -> {kept}", **dict(sizes))


Method = Callable[[object, int], Plan]  # from a layer and a number of axes


def plan_of(layer, ndim: int) -> Plan:
    """What a layer does to an input with ``ndim`` axes.

    A class declares it by a method ``plan(self, ndim)``, or a plan of that name, on which its
    forward pass relies; its ε is ``eps``, its weight and bias are ``weight`` and ``bias``. Layers
    of torch.nn are looked up in one table; a module with a normalized weight has the plan of that.

    Args:
        layer: of normviz, of torch.nn, or of any class with such a method.
        ndim: the number of axes of the input.

    Raises:
        ValueError: for anything else, saying what would do; if the layer takes no such input; or
            if its forward is another one than that of the class which has the plan.

    >>> from torch import nn
    >>> class PerRow(nn.Module):
    ...     eps = 1e-5
    ...
    ...     def plan(self, ndim):
    ...         return Plan("n c h w", statistic="n h", weight="c")
    ...
    ...     def forward(self, x):
    ...         mean, var = x.mean((1, 3), keepdim=True), x.var((1, 3), correction=0, keepdim=True)
    ...         return (x - mean) / (var + self.eps).sqrt()
    >>> str(plan_of(PerRow(), 4).reduction)
    'over c, w, one per n, h'
    """
    cls, plan = declared(layer, ndim)
    if cls is not None and type(layer).forward is not cls.forward:
        raise ValueError(
            f"layer must compute what {cls.__name__} does: got {type(layer).__name__}, whose "
            "forward is its own; Reduction(pattern) can say what that one pools."
        )
    return plan


def declared(layer, ndim: int) -> tuple[type | None, Plan]:
    """The plan that a layer has from one of its classes, and that class: its forward may differ.

    Raises:
        ValueError: as ``plan_of``.
    """
    try:
        ndim = operator.index(ndim)
    except TypeError:
        raise ValueError(f"ndim must be a number of axes: got {ndim!r}; x.ndim would do.") from None
    if hasattr(type(layer), "has_uninitialized_params") and layer.has_uninitialized_params():
        raise ValueError(
            f"layer must have seen a batch: got {type(layer).__name__}, whose sizes are not known "
            "yet; layer(x) gives them to it."
        )
    for cls in () if isinstance(layer, type) else type(layer).__mro__:
        if method := _method_of(cls):
            return cls, _checked(method(layer, ndim), layer, ndim)
    for name, parametrization in parametrized(layer):
        _, plan = declared(parametrization, getattr(layer, name).ndim)
        if getattr(layer, "transposed", False):  # as the weight of a ConvTranspose
            names = {"axes": plan.axes, "statistic": plan.statistic, "weight": plan.weight}
            plan = replace(plan, **{k: v.translate(SWAPPED) for k, v in names.items()})
        return None, replace(plan, normalizes=name)
    raise ValueError(f"layer must be a normalization layer, {_what_instead(layer)}.")


def _checked(plan: Plan, layer, ndim: int) -> Plan:
    """The plan, if it is one, and one for so many axes."""
    if not isinstance(plan, Plan):
        raise ValueError(
            f"the plan of {type(layer).__name__} must be a normviz.Plan: got {plan!r}."
        )
    axes = plan.reduction.axes
    if plan.normalizes == "input" and len(axes) != ndim and (ELLIPSIS,) not in axes:
        raise _other_axes(layer, f"({', '.join('·'.join(names).upper() for names in axes)})", ndim)
    return plan


def _method_of(cls: type) -> Method | None:
    """What declares the plan of a class itself: a plan or a method of that name, or the table."""
    method = vars(cls).get("plan")
    if isinstance(method, Plan):
        return lambda layer, ndim: method
    if method is None and cls.__module__.startswith("torch.nn."):
        method = TORCH.get(cls.__name__)
    return method if callable(method) else None


def parametrized(layer):
    """The names of a module's parameters that a parametrization with a plan makes, and that."""
    for name, steps in dict(getattr(layer, "parametrizations", None) or {}).items():
        for step in steps:
            if any(map(_method_of, type(step).__mro__)):
                yield name, step


def _what_instead(layer) -> str:
    """What to give instead of what is no normalization layer."""
    ours = "such as BatchNorm1d or LayerNorm of torch.nn or normviz, or have a plan"
    kind = type(layer).__name__
    if isinstance(layer, type):
        return f"{ours}: got the class {layer.__name__}; {layer.__name__}(…) makes a layer"
    if hasattr(layer, "_orig_mod"):
        return f"{ours}: got a compiled module; layer._orig_mod is what it was made from"
    if hasattr(layer, "module") and hasattr(layer, "forward"):
        return f"{ours}: got {kind}, which wraps another module; layer.module is that"
    if hasattr(layer, "_c") and hasattr(layer, "graph"):
        return f"{ours}: got a scripted or traced module; the one that it was made from would do"
    if inner := next(_layers_in(layer), None):
        return (
            f"{ours}: got {kind}, a whole model; take one layer of it, such as "
            f"layer.get_submodule({inner!r}), and the numbers that reach that one"
        )
    if hasattr(layer, "forward"):
        return f"{ours}: got {kind}; if it is one, help(normviz.plan_of) shows how to say so"
    if hasattr(layer, "shape"):
        return f"{ours}: got {kind}; the layer comes first, then its input"
    if callable(layer):
        name = getattr(layer, "__name__", kind)
        return f"{ours}: got the function {name}; the layer that calls it would do"
    return f"{ours}: got {kind}"


def _layers_in(model):
    for name, module in model.named_modules() if hasattr(model, "named_modules") else ():
        if name and any(map(_method_of, type(module).__mro__)):
            yield name


# Plans of families. Each makes the method of a class.


def batch(*spaces: int, strict: bool = True) -> Method:
    """One mean per channel, over the batch and what lies behind the channels.

    Args:
        *spaces: how many axes may lie behind the channels; any number if none is given.
        strict: whether ``num_features`` is checked even where nothing is held per channel.
    """

    def plan(layer, ndim: int) -> Plan:
        own_check = getattr(type(layer), "_check_input_dim", None)
        if spaces and getattr(own_check, "__module__", "torch").startswith(("torch", "normviz")):
            axes = _axes_of(layer, ndim, [channels_first(space + 2) for space in spaces])
        else:
            axes = _channels_and_any(layer, ndim)
        return Plan(axes, statistic="c", weight="c", sizes=_channels(layer, strict), running="c")

    return plan


def instance(space: int) -> Method:
    """One mean per sample and channel; an input without the axis of the batch is one sample."""

    def plan(layer, ndim: int) -> Plan:
        axes = _axes_of(layer, ndim, [f"{first} {SPACE[space]}" for first in ("c", "n c")])
        kept = axes.removesuffix(SPACE[space]).strip()
        return Plan(axes, kept, weight="c", sizes=_channels(layer, strict=False), running="c")

    return plan


def group(layer, ndim: int) -> Plan:
    """One mean per sample and group of neighbouring channels."""
    axes = _channels_and_any(layer, ndim).replace("c", "(g c)", 1)
    sizes = (("c", layer.num_channels // layer.num_groups), ("g", layer.num_groups))
    return Plan(axes, statistic="n g", weight="g c", sizes=sizes)


def last_axes(layer, ndim: int) -> Plan:
    """One mean for all that ``normalized_shape`` names: per sample, or per token."""
    last = tuple(layer.normalized_shape)
    if ndim < len(last):
        raise _other_axes(layer, f"(…, {', '.join(map(str, last))})", ndim)
    names = TOKENS.get(ndim, " ".join(f"a{i}" for i in range(ndim))).split()
    first, behind = names[: ndim - len(last)], names[ndim - len(last) :]
    sizes = tuple(sorted(zip(behind, last, strict=True)))
    return Plan(" ".join(names), " ".join(first), " ".join(behind), sizes)


def without_mean(method: Method) -> Method:
    """The same without a mean: the mean square stands for the variance."""

    @wraps(method)
    def plan(layer, ndim: int) -> Plan:
        return replace(method(layer, ndim), centred=False)

    return plan


def norm_of_weight(layer, ndim: int) -> Plan:
    """One norm per output of a weight (or another axis), or of all of it where ``dim`` is -1."""
    names = ["o", "i", *SPACE[max(0, ndim - 2)].split()][:ndim]
    kept = "" if layer.dim in (-1, None) else names[layer.dim]
    axes = " ".join(names)
    return Plan(axes, kept, weight=kept, centred=False, summed=True, normalizes="weight")


def no_partition(layer, ndim: int) -> Plan:
    """None: windows of channels that overlap."""
    raise ValueError(
        f"layer must take slices apart: got {type(layer).__name__}, where each number has a window "
        "of channels of its own; the windows overlap, so no Reduction can say it."
    )


def _axes_of(layer, ndim: int, allowed: list[str]) -> str:
    """The one of these that has so many axes."""
    for axes in allowed:
        if len(axes.split()) == ndim:
            return axes
    shapes = (f"({', '.join(axes.upper().split())})" for axes in allowed)
    raise _other_axes(layer, " or ".join(shapes), ndim)


def _channels_and_any(layer, ndim: int) -> str:
    if ndim < 2:
        raise _other_axes(layer, "(N, C, …)", ndim)
    return channels_first(ndim)


def _other_axes(layer, wanted: str, ndim: int) -> ValueError:
    got = "1 axis" if ndim == 1 else f"{ndim} axes"
    return ValueError(f"{type(layer).__name__} takes inputs of shape {wanted}: got one with {got}.")


def channels_first(ndim: int) -> str:
    """The names of so many axes, two or more: ``"n c h w"``."""
    behind = SPACE[ndim - 2] if ndim < 6 else " ".join(f"a{i}" for i in range(2, ndim))
    return f"n c {behind}".strip()


def _channels(layer, strict: bool) -> Sizes:
    """The channels that a layer was made for: those of its tensors, as they are now."""
    for name in ("weight", "running_mean", "running_var"):
        held = getattr(layer, name, None)
        if held is not None:
            return (("c", len(held)),)
    return (("c", layer.num_features),) if strict else ()


# The layers of torch.nn, by name; subclasses are found through these.
TORCH: dict[str, Method] = {
    "BatchNorm1d": batch(0, 1, strict=False),
    "BatchNorm2d": batch(2, strict=False),
    "BatchNorm3d": batch(3, strict=False),
    "SyncBatchNorm": batch(strict=False),
    "_BatchNorm": batch(strict=False),
    "InstanceNorm1d": instance(1),
    "InstanceNorm2d": instance(2),
    "InstanceNorm3d": instance(3),
    "GroupNorm": group,
    "LayerNorm": last_axes,
    "RMSNorm": without_mean(last_axes),
    "_WeightNorm": norm_of_weight,
    "LocalResponseNorm": no_partition,
    "CrossMapLRN2d": no_partition,
}
