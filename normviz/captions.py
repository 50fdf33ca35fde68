"""What an explanation says: the captions of its picture, its notes, and its table."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from normviz.arithmetic import spell_statistics
from normviz.picture import Picture, as_array
from normviz.slices import Caption, draw_slices, first_of
from normviz.state import RUNNING, arguments_of
from normviz.steps import Way, spell_mix
from normviz.words import count_odd, count_slices, five_digits, name_slice

MAX_ROWS, MAX_WIDTH = 12, 100  # of the printed table


def draw_explanation(explained, by: str, show: str, lit: int | None) -> Picture:
    """The slice picture of an explanation; the arguments are those of its method ``picture``.

    Raises:
        ValueError: for another word, or if there is nothing to draw.
    """
    plan, captions = explained.plan, Captions(explained)
    parts = {part.name: part for part in explained.parts}
    if by not in plan.shared:
        raise ValueError(f"by must be {_either(plan.shared)}: got {by!r}.")
    shown = {
        "input": explained.numbers,
        "normalized": explained.normalized,
        "output": explained.output if plan.normalizes == "input" else explained.made,
    }
    of_weight = {"input": "as stored", "normalized": "normalized", "output": "as used"}
    if show not in [*shown]:
        raise ValueError(f"show must be {_either(shown)}: got {show!r}.")
    numbers = shown[show]
    if numbers.shape != explained.numbers.shape:
        raise ValueError(
            f"the output must have the shape of x to be drawn: its hooks made "
            f"{tuple(numbers.shape)} of {tuple(explained.numbers.shape)}."
        )
    if by == "weight":
        reduction, caption = plan.sharing.with_whole_axes(), captions.of_weight
        sign = "g" if plan.summed else "weight"
        what = f"one {sign} per {', '.join(reduction.kept) or 'layer'}"
        if explained.weight is None and explained.bias is None:
            what = "no weight"
    elif by in parts:
        reduction = parts[by].reduction.of_any_size()
        caption = partial(captions.of_part, parts[by])
        what = f"{by} mean {reduction}"
    else:
        reduction = explained.reduction
        caption = captions.of_statistic if show == "input" else partial(captions.of_step, show)
        kind, kept = plan.symbols[0][1], ", ".join(reduction.kept)
        what = f"mixed {kind}, one per {kept}" if parts else f"{kind} {reduction}"
        if explained.source == "running":
            what = f"one running {kind} per {kept}"
    shows = show if plan.normalizes == "input" else f"{plan.normalizes} {of_weight[show]}"
    title, notes = f"{title_of(explained)}, {shows}: {what}", [*notes_on(explained, numbers)]
    return draw_slices(numbers, reduction, title=title, caption=caption, notes=notes, lit=lit)


def _either(words) -> str:
    return " or ".join(f'"{word}"' for word in words)


class Captions:
    """What to say of the slices of an explanation, by their labels."""

    def __init__(self, explained):
        self.explained, self.plan, self.told = explained, explained.plan, explained.told
        self.shape = tuple(explained.numbers.shape)

    def of_statistic(self, label: int) -> Caption:
        """Of a slice of the input: its statistics, and where they come from."""
        explained, told = self.explained, self.told
        values = self._values(told.mean, told.var, label)
        own = self._values(*explained.own_statistics, label)
        if told.parts:
            return Caption(values, self._spell_mixed(label))
        if told.source == "running":
            are = "are the running statistics" if len(values) > 1 else "is the running statistic"
            used = " and ".join(f"{symbol} = {five_digits(value)}" for symbol, _, value in values)
            here = " and ".join(f"{kind} {five_digits(value)}" for _, kind, value in own)
            lines = f"{used} {are}", f"the numbers here have {here}: not used"
            return Caption(values, lines)
        lines = self._spell_sums(explained.reduction, label, own)
        if told.source in ("memory", "workers"):
            used = " and ".join(f"{symbol} = {five_digits(value)}" for symbol, _, value in values)
            normalize = "normalize" if len(values) > 1 else "normalizes"
            kind = f"the average {values[0][1]} in the memory"
            whose = {"memory": kind, "workers": "those of all workers"}[told.source]
            lines += (f"{used} {normalize}: {whose}",)
        n, unbiased = explained.count, explained.batch_var_unbiased.reshape(-1)[label]
        unbiased = f"σ² · {n:,} / {n - 1:,} = {five_digits(float(unbiased))}"
        if told.correction:
            lines += (f"unbiased: s² = {unbiased}; that normalizes",)
        if explained.stores_unbiased:
            if together := self.plan.joining(self.plan.running).pooled:
                lines += (f"unbiased: {unbiased}; the average over {together[0]} is stored",)
            else:
                lines += (f"unbiased, to be stored: {unbiased}",)
        return Caption(values, lines)

    def of_part(self, part, label: int) -> Caption:
        """Of a slice of one of several mixed statistics."""
        values, lines = self._values(part.mean, part.var, label), ("a running statistic",)
        if part.source == "batch":
            lines = self._spell_sums(part.reduction, label, values)
        pairs = zip(part.shares, values, strict=True)
        shares = (f"{five_digits(float(share))} of {symbol}" for share, (symbol, *_) in pairs)
        return Caption(values, (*lines, f"its shares: {' and '.join(shares)}"))

    def of_step(self, show: str, label: int) -> Caption:
        """Of a slice, following its first number."""
        way = Way(self.explained, self.explained.reduction.first(label, self.shape))
        lines = (way.spell_normalized(),)
        if show == "output" and self.plan.scaled:
            lines += (way.spell_output(),)
        return Caption(self._values(self.told.mean, self.told.var, label), lines)

    def of_weight(self, label: int) -> Caption:
        """Of numbers that meet the same weight and bias."""
        way = Way(self.explained, self.plan.sharing.first(label, self.shape))
        signs = (way.gain, "weight", way.weight), ("β", "bias", way.bias)
        values = [sign for sign in (*signs, ("τ", "threshold", way.floor)) if sign[2] is not None]
        held = {"weight": self.explained.weight, "bias": self.explained.bias}
        *others, last = (
            f"{symbol} = {five_digits(value)}" + f" (no {name})" * (held.get(name, way) is None)
            for symbol, name, value in values
        )
        met = " and ".join(filter(None, (", ".join(others), last)))
        return Caption(tuple(values), (f"{met} for each of these numbers", way.spell_output()))

    def _values(self, mean, var, label: int) -> tuple[tuple[str, str, float], ...]:
        stats = (float(stat.reshape(-1)[label]) for stat in self.plan.pick(mean, var))
        return tuple((*symbol, stat) for symbol, stat in zip(self.plan.symbols, stats, strict=True))

    def _spell_sums(self, reduction, label: int, values) -> tuple[str, ...]:
        numbers = reduction.slice_of(self.explained.numbers, label)
        return spell_statistics(first_of(numbers), numbers.numel(), values)

    def _spell_mixed(self, label: int) -> tuple[str, ...]:
        """How each statistic of a slice is mixed from those of larger ones."""
        at = self.explained.reduction.locate(label, self.shape)
        return tuple(
            spell_mix(
                symbol,
                [
                    (_name_of(part), float(part.shares[i]), _at(part, at, self.shape)[i])
                    for part in self.told.parts
                ],
            )
            for i, (symbol, _) in enumerate(self.plan.symbols)
        )


def _name_of(part) -> str:
    return f"running {part.name}" if part.source == "running" else part.name


def _at(part, at: dict[str, int], shape) -> list[float]:
    """Mean and variance of the larger slice that holds this one."""
    return [_of(stat, part.reduction, at, shape) for stat in (part.mean, part.var)]


def _of(stat, reduction, at: dict[str, int], shape) -> float:
    stat = stat.reshape(reduction.stat_shape(shape))
    return float(stat[tuple(at[name] for name in reduction.kept)])


def notes_on(explained, shown: torch.Tensor) -> Iterator[str]:
    """Why some of the numbers shown are nan or infinite, if any are: each cause by its name."""
    plan, told = explained.plan, explained.told
    what = "x" if plan.normalizes == "input" else plan.normalizes
    yield from _found(explained)
    if found := count_odd(as_array(explained.numbers)):
        yield f"{what} holds {found}: a mean or variance over one of them is not finite."
    if shown is explained.numbers or shown.isfinite().all():
        return
    held = {"the weight": explained.weight, "the bias": explained.bias, **explained.before}
    found_in = {name: count_odd(as_array(t)) for name, t in held.items() if t is not None}
    causes = [f"{name} holds {odd}" for name, odd in found_in.items() if odd]
    under_root = told.var + told.eps
    if plan.scaled and (under_root < 0).any():
        causes.append("a variance plus ε is negative, and has no root")
    if plan.scaled and (under_root == 0).any():
        causes.append("a variance plus ε is 0, and nothing can be divided by it")
    if shown.isinf().any() and not found and not causes:
        largest, dtype = torch.finfo(shown.dtype).max, str(shown.dtype).removeprefix("torch.")
        causes.append(f"some of it is beyond {largest:.5g}, the largest {dtype}")
    if causes:
        yield f"Not all of the output is finite: {'; '.join(causes)}."


def _found(explained) -> Iterator[str]:
    """That the layer was asked, if so, for nobody knew."""
    if not (asked := explained.asked):
        return
    parts = ["this formula"] + ["ε"] * (asked.eps is not None)
    held = [name for name in ("weight", "bias") if getattr(explained, name) is not None]
    yield f"Found by moving numbers: {', '.join(parts if asked.activation else parts + held)}."
    if asked.declared and asked.agrees is False:
        yield f"Its class declares something else: {asked.declared.reduction}."
    if asked.activation:
        yield f"Behind it stands an activation, which {asked.activation}."


def title_of(explained) -> str:
    """The layer as it was made, and its mode if that matters."""
    mode = "training" if explained.layer.training else "eval"
    matters = explained.before or (explained.plan.running and explained.plan.over_samples)
    return call_of(explained.layer) + (f" in {mode}" if matters else "")


def call_of(layer) -> str:
    """A layer as it was made, by the arguments that have no default.

    >>> call_of(torch.nn.GroupNorm(2, 6)), call_of(torch.nn.LayerNorm([3, 4]))
    ('GroupNorm(2, 6)', 'LayerNorm([3, 4])')
    """
    values = [
        value if not isinstance(value, tuple) else [*value] if len(value) > 1 else value[0]
        for value in arguments_of(layer).values()
        if not hasattr(value, "shape")
    ]
    kind = type(layer).__name__.removeprefix("Parametrized")
    return f"{kind}({', '.join(map(str, values))})"


def table_of(explained) -> str:
    """The statistics of each slice, as text."""
    shape, reduction = tuple(explained.numbers.shape), explained.reduction
    what = "x" if explained.plan.normalizes == "input" else explained.plan.normalizes
    columns, slices = _columns(explained), explained.mean.numel()
    labels = [*range(slices)] if slices <= MAX_ROWS else [*range(MAX_ROWS - 1), slices - 1]
    table = [["", *columns]]
    for label in labels:
        at = reduction.locate(label, shape)
        table.append([name_slice(reduction, label, shape), *(say(at) for say in columns.values())])
    if slices > MAX_ROWS:
        table.insert(-1, ["…"] + [""] * len(columns))
    head = (
        f"{title_of(explained)}, {what} of shape {shape}\n"
        f"{reduction.pattern}: {reduction}. {count_slices(reduction, shape)}.\n"
        f"{_rule_of(explained)}\n\n"
    )
    return "\n\n".join(
        [head + _align(table), *["\n".join(_found(explained))] * bool(explained.asked)]
    )


def _align(table: list[list[str]]) -> str:
    """A table as text; what is too wide for a page goes on below."""
    names, *columns = (
        [cell.rjust(max(map(len, column))) for cell in column]
        for column in zip(*table, strict=True)
    )
    blocks = [[]]
    for column in columns:
        if sum(len(other[0]) + 2 for other in [names, *blocks[-1], column]) > MAX_WIDTH:
            blocks.append([])
        blocks[-1].append(column)
    names = [name.strip().ljust(len(name)) for name in names]
    rows = (zip(names, *block, strict=True) for block in blocks)
    return "\n\n".join("\n".join("  ".join(r).rstrip() for r in block) for block in rows)


def _rule_of(explained) -> str:
    """What normalizes, and by which formula, in a sentence."""
    plan, eps = explained.plan, explained.told.eps
    if plan.summed:
        formula = "x / ‖x‖" if plan.normalizes == "input" else "v / ‖v‖"
        if explained.weight is None:
            return f"Each slice's own norm divides it: {formula}."
        made = "" if plan.normalizes == "input" else "w = "
        return f"Each slice's own norm divides it, and g multiplies it: {made}g · {formula}."
    if not plan.scaled:
        x = "x" if plan.normalizes == "input" else "w"
        return f"Each slice's own mean is subtracted from it: {x} − μ."
    kinds = [kind for _, kind in plan.symbols]
    above = "(x − μ)" if plan.centred else "x"
    small = "ε learned" if isinstance(eps, torch.Tensor) else f"ε = {five_digits(eps)}"
    if explained.asked and explained.asked.eps is None:
        small = "ε is not known"
    square, root = plan.symbols[-1][0], {True: "√({} + ε)", False: "(√{} + ε)", None: "max(√{}, ε)"}
    square = "s²" if explained.told.correction else square
    formula = f"{above} / {root[explained.told.inside].format(square)}, {small}"
    if parts := explained.parts:
        shares = (
            f"\n{kind}: {' + '.join(f'{five_digits(p.shares[i])} {p.name}' for p in parts)}"
            for i, kind in enumerate(kinds)
        )
        return f"A mix of statistics normalizes x: {formula}.{''.join(shares)}"
    verb = "normalize" if len(kinds) > 1 else "normalizes"
    without = "" if plan.centred else ", and no mean is subtracted"
    biased = "unbiased" if explained.told.correction else "(biased)"
    sentence = {
        "batch": f"Each slice's own {f' and {biased} '.join(kinds)} {verb} it{without}",
        "running": f"The running {' and '.join(kinds)} {verb} x, not the slices' own{without}",
        "memory": f"The average {kinds[0]} in the memory {verb} x, not the slices' own{without}",
        "workers": f"The {' and '.join(kinds)} of all workers {verb} x, not the slices' own",
    }[explained.source]
    return f"{sentence}: {formula}."


def _columns(explained) -> dict[str, Callable[[dict[str, int]], str]]:
    """The columns of the table: what each says of the slice that stands at a place."""
    plan, shape, own = explained.plan, explained.numbers.shape, explained.own_statistics

    def number(stat, reduction=explained.reduction):
        return lambda at: five_digits(_of(stat, reduction, at, shape))

    def pair(part):
        return lambda at: ", ".join(map(five_digits, _at(part, at, shape)))

    def running(name):
        per = plan.per(plan.running)
        states = [number(b[name], per) for b in (explained.before, explained.after)]
        return lambda at: ", then ".join(say(at) for say in states[: 1 + explained.tracks])

    stats = (explained.mean, explained.var) if explained.parts else own
    kinds = [kind for _, kind in plan.symbols]
    if explained.source == "running":
        kinds = [f"{kind} of x" for kind in kinds]
    columns = dict(zip(kinds, map(number, plan.pick(*stats)), strict=True))
    if explained.source == "memory":
        columns["in memory"] = number(explained.var)
    if explained.source == "workers":
        columns |= {"mean of all": number(explained.mean), "variance of all": number(explained.var)}
    columns |= {_name_of(part): pair(part) for part in explained.parts}
    if explained.stores_unbiased or explained.told.correction:
        columns["unbiased"] = number(explained.batch_var_unbiased)
    if any(part.source == "running" for part in explained.parts):
        return columns  # which have the running ones already
    kept = [name for name in RUNNING if name in explained.before and plan.running is not None]
    return columns | {name: running(name) for name in kept}
