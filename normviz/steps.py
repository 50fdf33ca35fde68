"""One number on its way through a layer, in words: each line is right with what it shows."""

from functools import cached_property

import numpy as np

from normviz.arithmetic import in_brackets, minus, write_out
from normviz.words import five_digits

FIRST = "first number: "


class Way:
    """The way of one number through a layer, all in float64.

    Args:
        explained: the pass.
        at: where the number stands.
    """

    def __init__(self, explained, at: tuple[int, ...]):
        plan, told, shape = explained.plan, explained.told, explained.numbers.shape

        def read(stat, reduction) -> float | None:
            if stat is None or isinstance(stat, float | int):
                return stat
            return float(stat.detach().reshape(-1)[reduction.label_at(at, shape)])

        of_slice = [read(s, told.reduction) for s in (told.mean, told.var, told.eps, told.factor)]
        self.mean, self.var, self.eps, self.factor = of_slice
        shared = (explained.weight, explained.bias, told.floor)
        weight, bias, self.floor = (read(parameter, plan.sharing) for parameter in shared)
        self.weight = 1.0 if weight is None else weight
        self.bias = 0.0 if bias is None and plan.centred else bias
        self.plan, self.gain = plan, "g" if plan.summed else "γ"
        self.inside = told.inside
        self.activated = bool(explained.asked and explained.asked.activation)
        output = explained.output if plan.normalizes == "input" else explained.made
        self.x, self.made, self.output = (
            float(numbers[at]) for numbers in (explained.numbers, explained.made, output)
        )
        self.dtype = str(explained.made.dtype).removeprefix("torch.")

    def spell_normalized(self) -> str:
        """From the number to the normalized one."""
        formula, result = self._formula
        return f"{FIRST}{formula} = {five_digits(result)}"

    @cached_property
    def _formula(self) -> tuple[str, float]:
        if self.plan.summed:
            texts, result = write_out((self.x, self.var), lambda x, squares: x / np.sqrt(squares))
            return "{} / √{}".format(*map(in_brackets, texts)), result
        if not self.plan.scaled:
            (x, mean), result = write_out((self.x, self.mean), lambda x, mean: x - mean)
            return f"{x} {minus(mean)}", result
        below, root = {
            True: ("√({} + {})", lambda var, eps: np.sqrt(var + eps)),
            False: ("(√{} + {})", lambda var, eps: np.sqrt(var) + eps),
            None: ("max(√{}, {})", lambda var, eps: np.maximum(np.sqrt(var), eps)),
        }[self.inside]
        (x, mean, var, eps), result = write_out(
            (self.x, self.mean, self.var, self.eps),
            lambda x, mean, var, eps: (x - mean) / root(var, eps),
        )
        above = f"({x} {minus(mean)})" if self.plan.centred else in_brackets(x)
        return f"{above} / {below.format(var, eps)}", result

    def spell_output(self) -> str:
        """From the normalized number to the output, and to what else has become of it."""
        normalized = self._formula[1]
        factors = {self.gain: self.weight, "r": self.factor, "normalized": normalized}
        factors = {name: value for name, value in factors.items() if value is not None}
        added = [value for value in (self.bias, self.floor) if value is not None]

        def work(*numbers):
            y = np.prod(numbers[: len(factors)])
            y = y if self.bias is None else y + numbers[len(factors)]
            return y if self.floor is None else np.maximum(y, numbers[-1])

        texts, result = write_out([*factors.values(), *added], work)
        texts = [*map(in_brackets, texts)]
        both = [" · ".join(words) for words in (factors, texts[: len(factors)])]
        for sign, value, form in (("β", self.bias, "{} + {}"), ("τ", self.floor, "max({}, {})")):
            if value is not None:
                nth = len(factors) if sign == "β" else -1
                both = [form.format(*pair) for pair in zip(both, (sign, texts[nth]), strict=True)]
        line = f"{FIRST}{both[0]} = {both[1]} = {five_digits(result)}"
        # Where the layer's own rounding, or a hook, leads elsewhere.
        size = abs(normalized * self.weight) + abs(self.bias or 0)
        if self.activated:
            line += f"; the activation makes {five_digits(self.made)} of it"
        elif not _near(result, self.made, size):
            off = five_digits(abs(self.made - result))
            line += f"; the layer, in {self.dtype}, gives {five_digits(self.made)}: {off} off"
        if not _near(self.made, self.output, size):
            line += f"; after that, hooks make {five_digits(self.output)} of it"
        return line


def spell_mix(symbol: str, parts: list[tuple[str, float, float]]) -> str:
    """How a mixed statistic comes from several, each with its name, share and value.

    >>> spell_mix("μ", [("instance", 0.5, 2.0), ("batch", 0.5, -1.0)])
    'μ = 0.5 · 2 (instance) + 0.5 · (−1) (batch) = 0.5'
    """
    values = [number for _, share, value in parts for number in (share, value)]
    texts, result = write_out(values, lambda *v: np.dot(v[::2], v[1::2]))
    terms = (
        f"{share} · {in_brackets(value)} ({name})"
        for (name, *_), share, value in zip(parts, texts[::2], texts[1::2], strict=True)
    )
    return f"{symbol} = {' + '.join(terms)} = {five_digits(result)}"


def _near(number: float, other: float, size: float) -> bool:
    """Whether two numbers differ by less than what five digits show."""
    if not np.isfinite(number) or not np.isfinite(other):
        return five_digits(number) == five_digits(other)
    return abs(number - other) <= 1e-5 * max(abs(number), size / 10, 1e-30)
