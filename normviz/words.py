"""Words for people: the names of slices and axes, and numbers that fit."""

from math import ceil, isfinite, log10, prod

import numpy as np

from normviz.reduction import Reduction

WORDS = {
    "n": "sample",
    "c": "channel",
    "l": "position",
    "t": "token",
    "d": "depth",
    "h": "row",
    "w": "column",
    "g": "group",
    "o": "output",
    "i": "input",
}


def name_slice(reduction: Reduction, label: int, shape: tuple[int, ...]) -> str:
    """``"sample 0, channel 2"``: where on the kept axes a slice stands."""
    where = (
        f"position {i} on {name}" if " " in name else f"{WORDS.get(name, name)} {i}"
        for name, i in reduction.locate(label, shape).items()
    )
    return ", ".join(where) or "all"


def count_slices(reduction: Reduction, shape: tuple[int, ...]) -> str:
    """``"3 slices of 12 numbers"``."""
    slices = number_of(prod(reduction.stat_shape(shape)), "slice")
    return f"{slices} of {number_of(reduction.count(shape), 'number')}"


def number_of(count: int, noun: str) -> str:
    """``"1 slice"``, ``"60,000 numbers"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def count_odd(numbers: np.ndarray) -> str:
    """``"1 nan and 2 inf"``; nothing if all numbers are finite."""
    odd = {"nan": np.count_nonzero(np.isnan(numbers)), "inf": np.count_nonzero(np.isinf(numbers))}
    return " and ".join(f"{count} {kind}" for kind, count in odd.items() if count)


def short(number: float, largest: float = 1.0) -> str:
    """A number in five characters or so, for a cell.

    Args:
        number: what to write.
        largest: the largest magnitude among all that stand together; small ones get more decimals.

    >>> short(17), short(-1.40943), short(1234567), short(0.0149), short(0.0149, largest=0.02)
    ('17', '−1.41', '1e6', '0.01', '0.0149')
    """
    number = float(number)
    size = abs(number)
    if not isfinite(number) or (size < 1e5 and number.is_integer()):
        return _tidy(f"{number:.0f}")
    if size >= 1e5 or largest < 1e-3:
        return _tidy(f"{number:.0e}")
    decimals = 2 + max(0, ceil(-log10(largest))) if size < 100 else 1 if size < 1000 else 0
    return _tidy(f"{number:.{decimals}f}")


def largest_of(numbers: np.ndarray) -> float:
    """The largest finite magnitude; 1 if there is none, or only zero."""
    finite = np.abs(numbers[np.isfinite(numbers)])
    return float(finite.max(initial=0)) or 1.0


def five_digits(number: float) -> str:
    """A number to five significant digits.

    >>> five_digits(24 + 2 / 3), five_digits(-0.191919191), five_digits(3.0)
    ('24.667', '−0.19192', '3')
    """
    return digits(number, 5)


def signed(number: float) -> str:
    """A number with its sign, to five digits.

    >>> signed(0.25), signed(-0.25), signed(0.0)
    ('+0.25', '−0.25', '0')
    """
    return "+" * bool(number > 0) + five_digits(number)


def digits(number: float, count: int) -> str:
    """A number to so many significant digits.

    >>> digits(1000001, 7), digits(1000001, 5)
    ('1000001', '1e6')
    """
    return _tidy(f"{number:.{count}g}")


def _tidy(text: str) -> str:
    mantissa, e, exponent = text.partition("e")
    text = f"{mantissa}e{int(exponent)}" if e else text
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")
