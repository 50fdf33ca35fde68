"""Everything that one forward pass of a normalization layer computes, as named values."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from normviz.asking import Asked, ask
from normviz.captions import call_of, draw_explanation, table_of
from normviz.formula import precise, wide
from normviz.looking import twin_of, untouched
from normviz.picture import Picture
from normviz.plans import Plan, declared, plan_of
from normviz.probing import Probe
from normviz.reduction import Reduction
from normviz.refusals import RefusedInput, check_input, check_tensor
from normviz.state import epsilon_of, stored_statistics
from normviz.telling import Part, Told, listening, own_statistics


def explain(layer: nn.Module, x: torch.Tensor) -> "Explanation":
    """What ``layer(x)`` gives now, step by step.

    The layer runs as it is, with its hooks, its parametrizations and a forward of its own, if it
    has them; it, its buffers, its mode, x and the random state stay untouched.

    Args:
        layer: a normalization layer of normviz or of torch.nn, or one of any class that has a plan
            (see ``plan_of``), in training or in eval; or a module whose weight is normalized. Of
            any other module, and of one that does something else than its plan says, ``probe`` is
            asked what it does, and what is shown says so.
        x: the input, a floating-point tensor of a shape that the layer takes.

    Raises:
        ValueError: if layer refuses x, or if what it does is no normalization, with what would do
            instead.

    >>> x = torch.arange(18.0).reshape(3, 2, 3)
    >>> print(explain(nn.BatchNorm1d(2), x))
    BatchNorm1d(2) in training, x of shape (3, 2, 3)
    n c l -> c: over n, l, one per c. 2 slices of 9 numbers.
    Each slice's own mean and (biased) variance normalize it: (x − μ) / √(σ² + ε), ε = 1e−5.
    <BLANKLINE>
               mean  variance  unbiased  running_mean    running_var
    channel 0     7    24.667     27.75   0, then 0.7  1, then 3.675
    channel 1    10    24.667     27.75     0, then 1  1, then 3.675
    """
    try:
        _check_layer(layer, x)
        return _run(layer, x)
    except RefusedInput:
        raise
    except ValueError as error:  # it declares nothing, or does something else
        try:
            asked = ask(layer, x)
        except ValueError as reason:
            raise ValueError(f"{error} {reason}") from None
        if not asked:
            raise
        return _run(layer, x, asked)


def _run(layer: nn.Module, x: torch.Tensor, asked: Asked | None = None) -> "Explanation":
    """One pass, watched."""
    seen: dict[str, torch.Tensor] = {}
    learns = asked is not None and layer.training  # some ask autograd for the mode
    with untouched(layer), listening() as heard, torch.set_grad_enabled(learns):
        before = _buffers(layer)
        # The last to see what goes in, and the first to see what comes out.
        see_x = layer.register_forward_pre_hook(lambda _, args: seen.update(x=_copy(args[0])))
        see_y = layer.register_forward_hook(
            lambda _, args, y: seen.update(made=_copy(y)), prepend=True
        )
        try:
            with see_x, see_y:
                output = layer(x.detach().clone())
        except Exception as error:  # in the words of a kernel, perhaps
            check_input(layer, x)
            reason = str(error).partition(". ")[0]
            raise RefusedInput(f"{call_of(layer)} does not take x: {reason}") from error
        if not isinstance(output, torch.Tensor):
            raise RefusedInput(f"layer(x) must be a tensor: got {type(output).__name__}.")
        seen = {"x": x, "made": output} | seen
        with torch.no_grad():
            explained = _explain(layer, seen["x"], seen["made"], heard, before, output, asked)
    if not str(getattr(type(layer).forward, "__module__", "")).startswith("torch."):
        _verify(explained)
    return explained


def _check_layer(layer, x) -> None:
    """Whether there is a layer with a plan, and an input with numbers."""
    is_tensor, normalizes = isinstance(x, torch.Tensor), "input"
    if is_tensor or not isinstance(layer, nn.Module):
        normalizes = declared(layer, x.ndim if is_tensor else 0)[1].normalizes  # or what would do
    if normalizes == "input":  # or else x may be anything that the layer takes
        check_tensor(layer, x)
    tensors = {"x": x, **dict(layer.named_parameters()), **dict(layer.named_buffers())}
    for name, tensor in tensors.items():
        if tensor.is_meta:
            mend = "; a layer whose weights are elsewhere between its passes has to load them"
            raise RefusedInput(
                f"{name} must hold numbers to be explained: got it on the meta device, which has "
                f"none{mend if tensor is not x else ''}."
            )


def _verify(explained: "Explanation") -> None:
    """Whether a forward that nobody knows does what the plan says."""
    if explained.asked and explained.asked.activation:
        return  # that was seen, but not as a formula
    if explained.made.shape != explained.numbers.shape:
        far = f"have the shape {tuple(explained.made.shape)}"
    else:
        off = (explained.expected - precise(explained.made)).abs()
        if not (off > explained.doubt).any():  # nor where one of them is nan
            return
        far = f"are up to {float(off.max()):.5g} away from that"
    named = explained.weight is not None or not any(True for _ in explained.layer.parameters())
    raise ValueError(
        f"layer must compute what its plan says, {explained.reduction!r}: got "
        f"{type(explained.layer).__name__}, whose outputs {far}; "
        + ("" if named else "what it multiplies by has to be called weight; or ")
        + "Reduction(pattern) can say what it pools."
    )


def _explain(layer, x, made, heard, before, output, asked: Asked | None) -> "Explanation":
    """What was seen and heard of a pass, while the layer is as it was in it."""
    numbers = x
    if asked:
        told, weight, bias = asked.told, asked.weight, asked.bias
    else:
        plan = declared(layer, x.ndim)[1]
        weight, bias = (
            held if isinstance(held := getattr(layer, name, None), torch.Tensor) else None
            for name in ("weight", "bias")
        )
        if plan.normalizes != "input":
            numbers, made, weight, bias = *_parts_of_weight(layer, plan.normalizes), None
        told = next((told for told in heard if told.plan == plan), None)
        try:
            told = told or _tell(layer, plan, numbers)
        except ValueError:
            plan_of(layer, x.ndim)  # says so if the forward is another one
            raise
    normalized = told.standardize(precise(numbers.detach())).to(wide(numbers.dtype))
    return Explanation(
        layer=twin_of(layer),
        x=x,
        plan=told.plan,
        told=told,
        before=before,
        after=_buffers(layer),
        numbers=numbers.detach(),
        normalized=normalized,
        made=(normalized if made is None else made).detach(),
        output=output.detach(),
        weight=None if weight is None else weight.detach().clone(),
        bias=None if bias is None else bias.detach().clone(),
        asked=asked and asked.found,
    )


def _parts_of_weight(layer, name: str) -> tuple[torch.Tensor, torch.Tensor | None, ...]:
    """What is normalized of a weight, what is made of it, and its scale."""
    parts = getattr(getattr(layer, "parametrizations", None), name, None)
    if parts is None:
        return getattr(layer, name), None, None
    return parts.original1, getattr(layer, name), parts.original0


def _tell(layer, plan: Plan, numbers: torch.Tensor) -> Told:
    """What normalizes, of a layer that does not tell."""
    eps = epsilon_of(layer, numbers.dtype)
    if stored := stored_statistics(layer, plan):
        return Told(plan, "running", *map(precise, stored), eps)
    own = own_statistics(numbers, plan, plan.reduction)
    return Told(plan, "batch", *own, eps, batch=own)


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """One forward pass, taken apart. A notebook shows the picture, ``print`` a table.

    All tensors are detached copies. Half precision is explained in float32.

    Attributes:
        layer: a copy, as it was after the pass.
        x: what reached the layer: its pre-hooks may have changed it.
        plan: what the layer pools, shares and keeps.
        told: what normalized, in float64.
        before, after: all buffers: running_mean and so on.
        numbers: what is normalized: x, or the layer's weight.
        normalized: ``(numbers - mean) / sqrt(var + eps)``.
        made: what the layer makes of that: ``normalized * weight + bias``.
        output: ``layer(x)``: that, and what its hooks have made of it.
        weight, bias: of the layer; None if there is none.
        asked: what ``probe`` found, where the plan was not known but asked for; else None.

    >>> explained = explain(nn.LayerNorm(3), torch.tensor([[1.0, 2.0, 6.0]]))
    >>> explained.source, explained.count, explained.mean, explained.var
    ('batch', 3, tensor([3.]), tensor([4.6667]))
    """

    layer: nn.Module
    x: torch.Tensor
    plan: Plan
    told: Told
    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]
    numbers: torch.Tensor
    normalized: torch.Tensor
    made: torch.Tensor
    output: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    asked: Probe | None = None

    @property
    def source(self) -> str:
        """Whose statistics normalized: "batch", "running", "memory", "workers" or "weight"."""
        return self.told.source if self.plan.normalizes == "input" else "weight"

    @cached_property
    def reduction(self) -> Reduction:
        """Which numbers share a statistic: of their own, or a running one."""
        return self.told.reduction.of_any_size()

    @property
    def count(self) -> int:
        """How many numbers feed each statistic."""
        return self.reduction.count(self.numbers.shape)

    @property
    def mean(self) -> torch.Tensor:
        """What was subtracted, one per statistic; 0 where nothing is."""
        return self.told.mean.to(self.normalized.dtype)

    @property
    def var(self) -> torch.Tensor:
        """What stood under the root that divided x, without ε, one per statistic.

        That is the biased variance, but of a layer that was found to use the unbiased one, that.
        """
        return self.told.var.to(self.normalized.dtype)

    @property
    def batch_mean(self) -> torch.Tensor:
        """The mean of the numbers themselves, used or not; 0 where none is ever subtracted."""
        return self.own_statistics[0].to(self.normalized.dtype)

    @property
    def batch_var(self) -> torch.Tensor:
        """The biased variance of these numbers, divided by the count; or their mean square."""
        return self.own_statistics[1].to(self.normalized.dtype)

    @property
    def batch_var_unbiased(self) -> torch.Tensor:
        """Their unbiased variance, divided by count - 1: nan for one number. Or the mean square."""
        if not self.plan.centred:
            return self.batch_var
        n = self.count
        unbiased = self.own_statistics[1] * (n / (n - 1) if n > 1 else torch.nan)
        return unbiased.to(self.normalized.dtype)

    @cached_property
    def own_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and biased variance of the numbers themselves, in float64."""
        if self.told.batch is not None:
            return self.told.batch
        return own_statistics(self.numbers, self.plan, self.told.reduction)

    @property
    def tracks(self) -> bool:
        """Whether running statistics move in such a pass."""
        if not any(name.startswith("running") for name in self.before) or not self.numbers.numel():
            return False
        on = self.layer.training and getattr(self.layer, "track_running_stats", True)
        if on and not self.asked:
            return self.plan.over_samples or getattr(self.layer, "momentum", 0.1) is not None
        pairs = ((old, self.after[name]) for name, old in self.before.items())
        return any(not torch.equal(old.nan_to_num(), new.nan_to_num()) for old, new in pairs)

    @property
    def stores_unbiased(self) -> bool:
        """Whether each slice's unbiased variance is on its way into a running one."""
        if self.asked and "the unbiased variance" not in self.asked.stored.values():
            return False
        return self.tracks and self.plan.centred and not self.parts and self.source != "workers"

    @cached_property
    def expected(self) -> torch.Tensor:
        """What the plan makes of the normalized numbers, in float64."""
        y, shape = precise(self.normalized), self.numbers.shape
        if self.told.factor is not None:
            y = y * self.told.reduction.spread(precise(self.told.factor), shape)
        for parameter, act in (
            (self.weight, torch.mul),
            (self.bias, torch.add),
            (self.told.floor, torch.maximum),
        ):
            if parameter is not None:
                shared = parameter.reshape(self.plan.sharing.stat_shape(shape))
                y = act(y, self.plan.sharing.spread(precise(shared), shape))
        return y

    @property
    def doubt(self) -> torch.Tensor:
        """How far a layer may be from ``expected`` by rounding, mean and variance included.

        With a mean of r standard deviations, rounding it costs r roundings of an output, and a
        variance by E[x²] - E[x]² costs r².
        """
        told = self.told
        far = told.mean.abs() / (told.var + told.eps).sqrt()
        far = far.where(told.var.isfinite(), torch.inf)  # squares that float64 cannot hold
        far = told.reduction.spread(far, self.numbers.shape)
        size = 1 + self.expected.abs() + (self.expected - precise(self.normalized)).abs()
        eps = torch.finfo(self.made.dtype).eps
        if self.asked:  # it may well round on its way
            eps = max(eps, torch.finfo(torch.float32).eps)
        return 64 * eps * size * (1 + far + far.square())

    @property
    def parts(self) -> tuple[Part, ...]:
        """The statistics that were mixed into one, each with its shares."""
        return self.told.parts

    def picture(
        self, by: str = "statistic", show: str = "input", *, lit: int | None = None
    ) -> Picture:
        """The slice picture of this pass.

        Args:
            by: ``"statistic"``: one colour for the numbers that share a mean and a variance;
                ``"weight"``: one for those that meet the same weight and bias; where statistics
                are mixed, the name of one of them, such as ``"batch"``.
            show: which numbers stand in the cells: ``"input"``, ``"normalized"`` or ``"output"``;
                of a normalized weight, its direction, that divided by its norm, or the weight.
            lit: the label of a slice that is lit from the start.

        Raises:
            ValueError: for any other word, or if x is empty or has more axes than fit a page.
        """
        return draw_explanation(self, by, show, lit)

    def _repr_html_(self) -> str | None:
        try:
            return self.picture()._repr_html_()
        except ValueError:  # empty, or more axes than fit a page: the table has to do
            return None

    def __repr__(self) -> str:
        return table_of(self)


def _buffers(layer: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of a layer's buffers."""
    return {name: _copy(tensor) for name, tensor in layer._buffers.items() if tensor is not None}


def _copy(y):
    """What comes out, as it is now: a hook may change it in place."""
    return y.detach().clone() if isinstance(y, torch.Tensor) else y
