"""What an explanation says: the captions of its picture, its notes, and its table."""

from collections.abc import Iterator
from math import prod

import torch

from normviz.arithmetic import spell_statistics
from normviz.picture import Picture
from normviz.reduction import Reduction
from normviz.refusals import arguments_of
from normviz.slices import Caption, draw_slices, first_of
from normviz.steps import Step, spell_mix
from normviz.words import count_slices, five_digits, name_slice

MAX_ROWS = 12  # of the printed table
RUNNING = ("running_mean", "running_var")


def draw_explanation(explained, by: str, show: str, lit: int | None) -> Picture:
    """The slice picture of an explanation; the arguments are those of its method ``picture``.

    Raises:
        ValueError: for another word, or if there is nothing to draw.
    """
    parts = {part.name: part for part in explained.parts}
    words = ["statistic", *["weight"] * explained.plan.scaled, *parts]
    if not isinstance(by, str) or by not in words:
        raise ValueError(f"by must be {_either(words)}: got {by!r}.")
    shown = {
        "input": explained.numbers,
        "normalized": explained.normalized,
        "output": explained.output if explained.plan.of == "input" else explained.made,
    }
    if not isinstance(show, str) or show not in shown:
        raise ValueError(f"show must be {_either(shown)}: got {show!r}.")
    if shown[show].shape != explained.numbers.shape:
        raise ValueError(
            f"the output must have the shape of x to be drawn: its hooks made "
            f"{tuple(shown[show].shape)} of {tuple(explained.numbers.shape)}."
        )
    captions = Captions(explained)
    if by == "weight":
        reduction, caption = explained.plan.sharing.with_whole_axes(), captions.of_weight
        what = f"one weight per {', '.join(reduction.kept) or 'layer'}"
    elif by in parts:
        reduction = parts[by].reduction.of_any_size()
        caption, what = captions.of_part(parts[by]), f"{by} mean {reduction}"
    else:
        reduction = explained.reduction
        caption = captions.of_statistic if show == "input" else captions.of_step(show)
        kind = explained.plan.symbols[0][1]
        kept = ", ".join(reduction.kept)
        what = f"mixed {kind}, one per {kept}" if parts else f"{kind} {reduction}"
        if explained.source == "running":
            what = f"one running {kind} per {kept}"
    title = f"{title_of(explained)}, {show}: {what}"
    notes = [*notes_on(explained, shown[show])]
    return draw_slices(shown[show], reduction, title=title, caption=caption, notes=notes, lit=lit)


def _either(words) -> str:
    return " or ".join(repr(word).replace("'", '"') for word in words)


class Captions:
    """What to say of the slices of an explanation, by their labels.

    Args:
        explained: whose slices they are.
    """

    def __init__(self, explained):
        self.explained, self.plan, self.told = explained, explained.plan, explained.told
        self.shape = tuple(explained.numbers.shape)

    def of_statistic(self, label: int) -> Caption:
        """Of a slice of the input: its statistics, and where they come from."""
        told, values = self.told, self._values(self.told.mean, self.told.var, label)
        own = [float(stat.reshape(-1)[label]) for stat in self.explained.own_statistics]
        if told.source == "running":
            return Caption(values, self._spell_running(values, own))
        if told.parts:
            return Caption(values, self._spell_mixed(label))
        lines = self._spell_sums(self.explained.reduction, label, *own)
        if told.source == "memory":
            (symbol, kind, value), *_ = values
            used = f"{symbol} = {five_digits(value)} normalizes: the average {kind} in the memory"
            lines += (used,)
        if self.explained.tracks and self.plan.centred:
            lines += (self._spell_unbiased(own[1]),)
        return Caption(values, lines)

    def of_part(self, part):
        """Captions of the slices of one of several mixed statistics."""

        def caption(label: int) -> Caption:
            values = self._values(part.mean, part.var, label)
            lines = ("a running statistic, from training",)
            if part.source == "batch":
                mean, var = (value for *_, value in values)
                lines = self._spell_sums(part.reduction, label, mean, var)
            shares = (
                f"{five_digits(float(share))} of {symbol}"
                for share, (symbol, _) in zip(part.shares, self.plan.symbols, strict=True)
            )
            return Caption(values, (*lines, f"its shares: {' and '.join(shares)}"))

        return caption

    def of_step(self, show: str):
        """Captions that follow the first number of a slice."""

        def caption(label: int) -> Caption:
            step = self.step(self.explained.reduction, label)
            lines = (step.spell_normalized(),)
            if show == "output" and self.plan.scaled:
                lines += (step.spell_output(),)
            return Caption(self._values(self.told.mean, self.told.var, label), lines)

        return caption

    def of_weight(self, label: int) -> Caption:
        """Of numbers that meet the same weight and bias."""
        step = self.step(self.plan.sharing, label)
        signs = (step.gain, "weight", step.weight), ("β", "bias", step.bias)
        signs += (("τ", "threshold", step.floor),)
        values = tuple(sign for sign in signs if sign[2] is not None)
        return Caption(values, (step.spell_weight(), step.spell_output()))

    def step(self, reduction: Reduction, label: int) -> Step:
        """The way of a slice's first number through the layer."""
        explained, told = self.explained, self.told
        at = reduction.first(label, self.shape)
        of_slice = explained.reduction.label_at(at, self.shape)
        of_weight = self.plan.sharing.label_at(at, self.shape)

        def read(stat, nth: int) -> float | None:
            return None if stat is None else float(stat.detach().reshape(-1)[nth])

        eps = told.eps if isinstance(told.eps, float | int) else read(told.eps, of_slice)
        has_bias = explained.bias is not None or self.plan.centred
        weight, bias = read(explained.weight, of_weight), read(explained.bias, of_weight)
        return Step(
            plan=self.plan,
            x=float(explained.numbers[at]),
            mean=read(told.mean, of_slice),
            var=read(told.var, of_slice),
            eps=eps,
            factor=read(told.factor, of_slice),
            weight=1.0 if weight is None else weight,
            bias=0.0 if bias is None and has_bias else bias,
            floor=read(told.floor, of_weight),
            made=float(explained.made[at]),
            output=float((explained.output if self.plan.of == "input" else explained.made)[at]),
            dtype=str(explained.made.dtype).removeprefix("torch."),
        )

    def _values(self, mean, var, label: int) -> tuple[tuple[str, str, float], ...]:
        stats = {"mean": mean}
        return tuple(
            (symbol, kind, float(stats.get(kind, var).reshape(-1)[label]))
            for symbol, kind in self.plan.symbols
        )

    def _spell_sums(self, reduction: Reduction, label: int, mean: float, var: float):
        numbers = reduction.slice_of(self.explained.numbers, label)
        return spell_statistics(first_of(numbers), numbers.numel(), mean, var, self.plan.symbols)

    def _spell_unbiased(self, var: float) -> str:
        n = self.explained.count
        stored = five_digits(var * n / (n - 1)) if n > 1 else "nan"
        return f"unbiased, to be stored: σ² · {n:,} / {n - 1:,} = {stored}"

    def _spell_running(self, values, own) -> tuple[str, str]:
        used = " and ".join(f"{symbol} = {five_digits(value)}" for symbol, _, value in values)
        are = "are the running statistics" if len(values) > 1 else "is the running statistic"
        here = {"mean": own[0]}
        found = " and ".join(
            f"{kind} {five_digits(here.get(kind, own[1]))}" for _, kind, _ in values
        )
        return (
            f"{used} {are}, from training",
            f"the numbers here have {found}: not used",
        )

    def _spell_mixed(self, label: int) -> tuple[str, ...]:
        """How each statistic of a slice is mixed from those of larger ones."""
        at = self.explained.reduction.first(label, self.shape)
        lines = []
        for i, (symbol, _) in enumerate(self.plan.symbols):
            found = []
            for part in self.told.parts:
                nth = part.reduction.label_at(at, self.shape)
                value = (part.mean, part.var)[i].reshape(-1)[nth]
                found.append((_name_of(part), float(part.shares[i]), float(value)))
            lines.append(spell_mix(symbol, found))
        return tuple(lines)


def _name_of(part) -> str:
    return f"running {part.name}" if part.source == "running" else part.name


def notes_on(explained, shown: torch.Tensor) -> Iterator[str]:
    """Why some of the numbers shown are nan or infinite, if any are: each cause by its name."""
    plan, told = explained.plan, explained.told
    what = "x" if plan.of == "input" else plan.of
    if found := _odd(explained.numbers):
        yield f"{what} holds {found}: a mean or variance over one of them is not finite."
    if shown is explained.numbers or shown.isfinite().all():
        return
    held = {"the weight": explained.weight, "the bias": explained.bias}
    found_in = {name: _odd(t) for name, t in (held | (explained.before or {})).items()}
    causes = [f"{name} holds {what}" for name, what in found_in.items() if what]
    under_root = told.var + told.eps
    if plan.scaled and (under_root < 0).any():
        causes.append("a variance plus ε is negative, and has no root")
    if plan.scaled and (under_root == 0).any():
        causes.append("a variance plus ε is 0, and nothing can be divided by it")
    if shown.isinf().any() and not found and not causes:
        causes.append(
            f"some of it is beyond {torch.finfo(shown.dtype).max:.5g}, the largest "
            f"{str(shown.dtype).removeprefix('torch.')}"
        )
    if causes:
        yield f"Not all of the output is finite: {'; '.join(causes)}."


def _odd(tensor: torch.Tensor | None) -> str:
    """``"1 nan and 2 inf"``; nothing if all is finite."""
    if tensor is None:
        return ""
    counts = {"nan": tensor.isnan().sum(), "inf": tensor.isinf().sum()}
    return " and ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def title_of(explained) -> str:
    """The layer as it was made, and its mode if that matters."""
    layer = explained.layer
    mode = f" in {'training' if layer.training else 'eval'}" if explained.plan.running else ""
    return call_of(layer) + mode


def call_of(layer) -> str:
    """A layer as it was made, by the arguments that have no default.

    >>> call_of(torch.nn.GroupNorm(2, 6)), call_of(torch.nn.LayerNorm([3, 4]))
    ('GroupNorm(2, 6)', 'LayerNorm([3, 4])')
    """
    values = [
        value if not isinstance(value, tuple) else [*value] if len(value) > 1 else value[0]
        for value in arguments_of(layer).values()
    ]
    kind = type(layer).__name__.removeprefix("Parametrized")
    return f"{kind}({', '.join(map(str, values))})"


def table_of(explained) -> str:
    """The statistics of each slice, as text."""
    shape, reduction = tuple(explained.numbers.shape), explained.reduction
    what = "x" if explained.plan.of == "input" else explained.plan.of
    head = (
        f"{title_of(explained)}, {what} of shape {shape}\n"
        f"{reduction.pattern}: {reduction}. {count_slices(reduction, shape)}.\n"
        f"{_rule_of(explained)}\n\n"
    )
    slices = prod(explained.mean.shape)
    rows = range(slices)
    if slices > MAX_ROWS:
        rows = [*range(MAX_ROWS - 1), None, slices - 1]
    table = [["…"] if label is None else _row(explained, label) for label in rows]
    return head + _align([["", *_columns(explained)], *table])


def _rule_of(explained) -> str:
    """What normalizes, and by which formula, in a sentence."""
    plan, source, eps = explained.plan, explained.source, explained.told.eps
    kinds = [kind for _, kind in plan.symbols]
    if plan.summed:
        return "Each slice's own norm divides it, and g multiplies it: w = g · v / ‖v‖."
    if not plan.scaled:
        return "Each slice's own mean is subtracted from it: w − μ."
    above = "(x − μ)" if plan.centred else "x"
    small = "ε learned" if isinstance(eps, torch.Tensor) else f"ε = {five_digits(eps)}"
    formula = f"{above} / √({plan.symbols[-1][0]} + ε), {small}"
    if explained.parts:
        shares = (
            f"of the {kind}, {', '.join(f'{p.name} {five_digits(p.shares[i])}' for p in parts)}"
            for i, kind in enumerate(kinds)
            if (parts := explained.parts)
        )
        return f"A mix of statistics normalizes it: {formula}.\nShares {'; '.join(shares)}."
    verb = "normalize" if len(kinds) > 1 else "normalizes"
    without = "" if plan.centred else ", and no mean is subtracted"
    sentence = {
        "batch": f"Each slice's own {' and (biased) '.join(kinds)} {verb} it{without}",
        "running": f"The running {' and '.join(kinds)} {verb} x, not the slices' own{without}",
        "memory": f"The average {kinds[0]} in the memory {verb} x, not the slices' own{without}",
    }[source]
    return f"{sentence}: {formula}."


def _columns(explained) -> Iterator[str]:
    yield from (kind for _, kind in explained.plan.symbols)
    if explained.source == "memory":
        yield "in memory"
    yield from map(_name_of, explained.parts)
    if explained.tracks and explained.plan.centred and not explained.parts:
        yield "unbiased"
    yield from _running_in(explained)


def _running_in(explained) -> list[str]:
    return [name for name in RUNNING if name in (explained.before or {})]


def _row(explained, label: int) -> list[str]:
    shape, reduction = tuple(explained.numbers.shape), explained.reduction
    at = reduction.first(label, shape)
    own = explained.own_statistics if not explained.parts else (explained.mean, explained.var)
    by_kind = {"mean": own[0]}
    stats = [by_kind.get(kind, own[1]) for _, kind in explained.plan.symbols]
    if explained.source == "memory":
        stats.append(explained.var)
    row = [five_digits(float(stat.reshape(-1)[label])) for stat in stats]
    for part in explained.parts:
        nth = part.reduction.label_at(at, shape)
        row.append(", ".join(five_digits(float(s.reshape(-1)[nth])) for s in (part.mean, part.var)))
    if explained.tracks and explained.plan.centred and not explained.parts:
        row.append(five_digits(float(explained.batch_var_unbiased.reshape(-1)[label])))
    for name in _running_in(explained):
        nth = explained.plan.per(explained.plan.running).label_at(at, shape)
        old, new = (five_digits(float(b[name][nth])) for b in (explained.before, explained.after))
        row.append(f"{old}, then {new}" if explained.tracks else old)
    return [name_slice(reduction, label, shape), *row]


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
