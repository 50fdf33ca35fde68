"""Everything that one forward pass of a normalization layer computes, as named values."""

from copy import copy
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from normviz.layers import check_input, uses_batch_statistics
from normviz.normalization import normalize, standardize, widen
from normviz.picture import Picture, count_slices, five_digits, name_slice
from normviz.reduction import Reduction
from normviz.slices import Caption, draw_slices, spell_out

MAX_ROWS = 12  # of the printed table


def explain(layer: nn.Module, x: torch.Tensor) -> "Explanation":
    """What ``layer(x)`` would compute now, step by step.

    The layer, its buffers, its mode, x and the random state stay untouched: a copy of the layer
    does the forward pass.

    Args:
        layer: a BatchNorm1d, BatchNorm2d, BatchNorm3d or LayerNorm of normviz or of torch.nn, in
            training or in eval.
        x: the input, a floating-point tensor of a shape that the layer takes.

    Raises:
        ValueError: if layer is none of these, or would refuse x.

    >>> x = torch.arange(18.0).reshape(3, 2, 3)
    >>> print(explain(nn.BatchNorm1d(2), x))
    BatchNorm1d(2) in training, x of shape (3, 2, 3)
    n c l -> c: over n, l, one per c. 2 slices of 9 numbers.
    Each slice's own mean and (biased) variance normalize it.
    <BLANKLINE>
               mean  variance  unbiased  running_mean    running_var
    channel 0     7    24.667     27.75   0, then 0.7  1, then 3.675
    channel 1    10    24.667     27.75     0, then 1  1, then 3.675
    """
    reduction = check_input(layer, x)
    x = x.detach().clone()
    twin = _twin(layer)
    before = _buffers(twin)
    with torch.no_grad():
        output = type(twin).forward(twin, x)  # not twin(x), which would call the layer's hooks

    wide, count = widen(x), reduction.count(x.shape)
    no_number = wide.new_full(reduction.stat_shape(x.shape), torch.nan)
    normalized, batch_mean, batch_var = (
        normalize(wide, reduction, layer.eps) if count else (wide, no_number, no_number)
    )
    mean, var, uses_batch = batch_mean, batch_var, uses_batch_statistics(layer)
    if not uses_batch:
        mean, var = widen(before["running_mean"]), widen(before["running_var"])
        normalized = standardize(wide, reduction, mean, var, layer.eps)
    return Explanation(
        layer=twin,
        x=x,
        reduction=reduction,
        count=count,
        source="batch" if uses_batch else "running",
        mean=mean,
        var=var,
        batch_mean=batch_mean,
        batch_var=batch_var,
        batch_var_unbiased=batch_var * (count / (count - 1)) if count > 1 else no_number,
        before=before,
        after=_buffers(twin),
        normalized=normalized,
        output=output,
    )


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """One forward pass, taken apart. A notebook shows the picture, ``print`` a table.

    All tensors are detached copies. Half precision is explained in float32.
    """

    layer: nn.Module  # a copy, as it was after the pass
    x: torch.Tensor
    reduction: Reduction  # which numbers of x share a statistic
    count: int  # how many numbers feed each one
    source: str  # "batch" or "running": which statistics normalized x
    mean: torch.Tensor  # what x was normalized with, one per statistic
    var: torch.Tensor
    batch_mean: torch.Tensor  # of this x, used or not
    batch_var: torch.Tensor  # biased: divided by count
    batch_var_unbiased: torch.Tensor  # divided by count - 1; nan for a single number
    before: dict[str, torch.Tensor] | None  # running_mean, running_var, num_batches_tracked
    after: dict[str, torch.Tensor] | None
    normalized: torch.Tensor  # (x - mean) / sqrt(var + eps)
    output: torch.Tensor  # normalized * weight + bias

    def picture(
        self, by: str = "statistic", show: str = "input", *, lit: int | None = None
    ) -> Picture:
        """The slice picture of this pass.

        Args:
            by: ``"statistic"``: one colour for the numbers that share a mean and a variance;
                ``"weight"``: one for those that meet the same weight and bias.
            show: which numbers stand in the cells: ``"input"``, ``"normalized"`` or ``"output"``.
            lit: the label of a slice that is lit from the start.

        Raises:
            ValueError: for any other word, or if x is empty or has more axes than fit a page.
        """
        shown = {"input": self.x, "normalized": self.normalized, "output": self.output}
        if show not in shown:
            raise ValueError(f'show must be "input", "normalized" or "output": got {show!r}.')
        reduction = Reduction.of(self.layer, self.x.ndim, by=by)
        what = f"mean {reduction}"
        if self.source == "running":
            what = f"one running mean per {', '.join(reduction.kept)}"
        if by == "weight":
            what = f"one weight per {', '.join(reduction.kept)}"

        def caption(label: int) -> Caption:
            first = self._follow_first(reduction, label)
            if by == "weight":
                return first.caption_weight()
            if show == "input":
                return Caption(first.statistics, self._spell_statistics(label))
            return Caption(first.statistics, first.spell_out()[: 1 if show == "normalized" else 2])

        title = f"{self._name}, {show}: {what}"
        return draw_slices(shown[show], reduction, title=title, caption=caption, lit=lit)

    def _follow_first(self, reduction: Reduction, label: int) -> "_Steps":
        """The way of a slice's first number through the layer."""
        shape = self.x.shape
        by_weight = Reduction.of(self.layer, self.x.ndim, by="weight")

        def first(tensor, own_reduction=None) -> float:
            whole = own_reduction.spread(tensor.detach(), shape) if own_reduction else tensor
            return float(reduction.numbers(whole, label)[0])

        weight, bias = self.layer.weight, self.layer.bias
        return _Steps(
            x=first(self.x),
            mean=first(self.mean, self.reduction),
            var=first(self.var, self.reduction),
            eps=self.layer.eps,
            normalized=first(self.normalized),
            weight=1.0 if weight is None else first(weight, by_weight),
            bias=0.0 if bias is None else first(bias, by_weight),
            output=first(self.output),
        )

    def _spell_statistics(self, label: int) -> tuple[str, ...]:
        """Where the mean and the variance of a slice come from."""
        mean, var, unbiased = (
            float(stat.reshape(-1)[label])
            for stat in (self.batch_mean, self.batch_var, self.batch_var_unbiased)
        )
        if self.source == "running":
            old_mean, old_var = (five_digits(float(s[label])) for s in (self.mean, self.var))
            return (
                f"μ = {old_mean} and σ² = {old_var} are the running statistics, from training",
                f"the numbers here have mean {five_digits(mean)} and variance {five_digits(var)}: "
                "not used",
            )
        lines = spell_out(self.reduction.numbers(self.x, label), mean, var)
        if self._tracks:
            n = self.count
            stored = f"σ² · {n:,} / {n - 1:,} = {five_digits(unbiased)}"
            lines += (f"unbiased, to be stored: {stored}",)
        return lines

    @property
    def _tracks(self) -> bool:
        """Whether this pass moved the running statistics."""
        return bool(self.before) and self.layer.training and self.layer.track_running_stats

    @property
    def _name(self) -> str:
        layer, kind = self.layer, type(self.layer).__name__
        if hasattr(layer, "num_features"):
            return f"{kind}({layer.num_features}) in {'training' if layer.training else 'eval'}"
        sizes = [*layer.normalized_shape]  # LayerNorm does the same in both modes
        return f"{kind}({sizes if len(sizes) > 1 else sizes[0]})"

    def _repr_html_(self) -> str | None:
        try:
            return self.picture()._repr_html_()
        except ValueError:  # empty, or more axes than fit a page: the table has to do
            return None

    def __repr__(self) -> str:
        shape = tuple(self.x.shape)
        slices = prod(self.mean.shape)
        whose = {
            "batch": "Each slice's own mean and (biased) variance normalize it.",
            "running": "The running mean and variance normalize x, not the slices' own.",
        }
        head = (
            f"{self._name}, x of shape {shape}\n"
            f"{self.reduction.pattern}: {self.reduction}. {count_slices(self.reduction, shape)}.\n"
            f"{whose[self.source]}\n\n"
        )
        rows = range(slices)
        if slices > MAX_ROWS:
            rows = [*range(MAX_ROWS - 1), None, slices - 1]
        table = [["…"] if label is None else self._row(label) for label in rows]
        return head + _align([self._columns(), *table])

    def _columns(self) -> list[str]:
        columns = ["", "mean", "variance"]
        if self._tracks:
            columns.append("unbiased")
        return columns + (["running_mean", "running_var"] if self.before else [])

    def _row(self, label: int) -> list[str]:
        stats = [self.batch_mean, self.batch_var] + [self.batch_var_unbiased] * self._tracks
        row = [name_slice(self.reduction, label, self.x.shape)]
        row += [five_digits(float(stat.reshape(-1)[label])) for stat in stats]
        if self.before:
            for name in ("running_mean", "running_var"):
                old, new = (
                    five_digits(float(when[name][label])) for when in (self.before, self.after)
                )
                row.append(f"{old}, then {new}" if self._tracks else old)
        return row


@dataclass(frozen=True)
class _Steps:
    """One number on its way through a layer."""

    x: float
    mean: float
    var: float
    eps: float
    normalized: float
    weight: float
    bias: float
    output: float

    @property
    def statistics(self):
        return (("μ", "mean", self.mean), ("σ²", "variance", self.var))

    def spell_out(self) -> tuple[str, str]:
        x, mean, normalized, weight, bias = map(
            _signed, (self.x, self.mean, self.normalized, self.weight, self.bias)
        )
        root = f"√({five_digits(self.var)} + {five_digits(self.eps)})"
        return (
            f"first number: ({x} − {mean}) / {root} = {five_digits(self.normalized)}",
            f"first number: γ · normalized + β = {weight} · {normalized} + {bias} = "
            f"{five_digits(self.output)}",
        )

    def caption_weight(self) -> Caption:
        same = f"γ = {five_digits(self.weight)} and β = {five_digits(self.bias)}"
        return Caption(
            values=(("γ", "weight", self.weight), ("β", "bias", self.bias)),
            lines=(f"{same} for each of these numbers", self.spell_out()[1]),
        )


def _signed(value: float) -> str:
    return f"({five_digits(value)})" if value < 0 else five_digits(value)


def _align(table: list[list[str]]) -> str:
    """Rows of text, the first column flush left, the others flush right."""
    full = [row for row in table if len(row) > 1]
    widths = [max(len(row[i]) for row in full) for i in range(len(full[0]))]
    lines = (
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        for row in table
    )
    return "\n".join(line.rstrip() for line in lines)


def _twin(layer: nn.Module) -> nn.Module:
    """A copy with parameters and buffers of its own; it shares the hooks, which nobody calls."""
    twin = copy(layer)
    for kind in ("_parameters", "_buffers"):
        state = getattr(layer, kind).items()
        own = {name: None if t is None else t.detach().clone() for name, t in state}
        setattr(twin, kind, own)
    return twin


def _buffers(layer: nn.Module) -> dict[str, torch.Tensor] | None:
    """Copies of a BatchNorm's running statistics; None if there are none."""
    if getattr(layer, "running_mean", None) is None:
        return None
    return {name: None if t is None else t.clone() for name, t in layer._buffers.items()}
