"""One number on its way through a layer, in words: each line is right with what it shows."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from normviz.arithmetic import in_brackets, minus, write_out
from normviz.plans import Plan
from normviz.words import five_digits

FIRST = "first number: "


@dataclass(frozen=True)
class Step:
    """What a layer does with one number.

    Attributes:
        plan: of the layer.
        x: the number.
        mean, var, eps: what normalizes it.
        factor: what that is multiplied by before the weight; None for nothing.
        weight: what it meets then.
        bias: what is added; None where the layer has no such thing.
        floor: below which nothing goes; None for none.
        made: what the layer has made of it.
        output: what its hooks have made of that.
        dtype: that the layer rounds to, in words.
    """

    plan: Plan
    x: float
    mean: float
    var: float
    eps: float
    factor: float | None
    weight: float
    bias: float | None
    floor: float | None
    made: float
    output: float
    dtype: str

    def spell_normalized(self) -> str:
        """From the number to the normalized one."""
        return f"{FIRST}{self._formula[0]} = {five_digits(self.normalized)}"

    @property
    def normalized(self) -> float:
        """What becomes of the number, in float64."""
        return self._formula[1]

    @cached_property
    def _formula(self) -> tuple[str, float]:
        if self.plan.summed:
            texts, result = write_out((self.x, self.var), lambda x, squares: x / np.sqrt(squares))
            return "{} / √{}".format(*map(in_brackets, texts)), result
        if not self.plan.scaled:
            (x, mean), result = write_out((self.x, self.mean), lambda x, mean: x - mean)
            return f"{x} {minus(mean)}", result
        (x, mean, var, eps), result = write_out(
            (self.x, self.mean, self.var, self.eps),
            lambda x, mean, var, eps: (x - mean) / np.sqrt(var + eps),
        )
        above = f"({x} {minus(mean)})" if self.plan.centred else in_brackets(x)
        return f"{above} / √({var} + {eps})", result

    def spell_output(self) -> str:
        """From the normalized number to the output, and to what else has become of it."""
        names, values = [], []
        for name, value in (
            (self.gain, self.weight),
            ("r", self.factor),
            ("normalized", self.normalized),
        ):
            if value is not None:
                names.append(name)
                values.append(value)
        factors, shift, floor = len(values), self.bias is not None, self.floor is not None
        values += [value for value in (self.bias, self.floor) if value is not None]

        def work(*numbers):
            y = np.prod(numbers[:factors])
            y = y + numbers[factors] if shift else y
            return np.maximum(y, numbers[-1]) if floor else y

        texts, result = write_out(values, work)
        texts = [*map(in_brackets, texts)]
        formula, filled = (" · ".join(words[:factors]) for words in (names, texts))
        if shift:
            formula, filled = f"{formula} + β", f"{filled} + {texts[factors]}"
        if floor:
            formula, filled = f"max({formula}, τ)", f"max({filled}, {texts[-1]})"
        return f"{FIRST}{formula} = {filled} = {five_digits(result)}{self._afterwards(result)}"

    def _afterwards(self, result: float) -> str:
        """Where the layer's own rounding, or a hook, leads elsewhere."""
        size = abs(self.normalized * self.weight) + abs(self.bias or 0)
        more = ""
        if not _near(result, self.made, size):
            off = five_digits(abs(self.made - result))
            more = f"; the layer, in {self.dtype}, gives {five_digits(self.made)}: {off} off"
        if not _near(self.made, self.output, size):
            more += f"; after that, hooks make {five_digits(self.output)} of it"
        return more

    @property
    def gain(self) -> str:
        """The sign of the weight."""
        return "g" if self.plan.summed else "γ"

    def spell_weight(self) -> str:
        """What this number and others meet."""
        signs = {self.gain: self.weight, "β": self.bias, "τ": self.floor}
        named = [f"{sign} = {five_digits(v)}" for sign, v in signs.items() if v is not None]
        together = " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))
        return f"{together} for each of these numbers"


def spell_mix(symbol: str, parts: list[tuple[str, float, float]]) -> str:
    """How a mixed statistic comes from several.

    Args:
        symbol: of the statistic.
        parts: name, share and value of each.

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
