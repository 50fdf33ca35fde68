"""Arithmetic in words: a line that shows all its numbers comes out with the numbers it shows.

Numbers are rounded for a page, and a sum of rounded numbers may end in another digit than the sum
itself. So a line takes more digits where it has to; where it has no room for them, it breaks off.
"""

from collections.abc import Callable, Sequence

import numpy as np

from normviz.words import digits, five_digits, largest_of, short

SUM_ROOM, MAX_TERMS = 70, 18  # letters of a sum, and how many numbers of one digit fit into them
EXACT = 17  # digits, which tell any two floats apart

Work = Callable[..., float]  # from numbers to what comes out


def write_out(values: Sequence[float], work: Work) -> tuple[list[str], float]:
    """Numbers as text, with as few digits (five at least) as lead to what comes out of them.

    Returns:
        The texts; and what comes out of the numbers themselves, in float64.

    >>> write_out([1 / 3, 2.0], lambda a, b: a * b)
    (['0.333333', '2'], 0.6666666666666666)
    >>> write_out([1000002, 1000001], lambda a, b: a - b)[0]
    ['1000002', '1000001']
    """
    result = _work_out(work, values)
    for count in range(5, EXACT + 1):
        rounded = [float(f"{value:.{count}g}") for value in values]
        if _shows(_work_out(work, rounded), result):
            break
    return [digits(value, count) for value in values], result


# Name of a statistic → how a number enters its sum, as text and as a number; the centre is μ.
TERMS: dict[str, tuple[Callable[[str, str], str], Callable[[float, float], float]]] = {
    "mean": (lambda text, centre: text, lambda x, centre: x),
    "variance": (
        lambda text, centre: f"({text} {minus(centre)})²",
        lambda x, centre: (x - centre) ** 2,
    ),
    "mean square": (lambda text, centre: f"{in_brackets(text)}²", lambda x, centre: x * x),
    "squared norm": (lambda text, centre: f"{in_brackets(text)}²", lambda x, centre: x * x),
}


def spell_statistics(
    numbers: Sequence[float], count: int, values: Sequence[tuple[str, str, float]]
) -> tuple[str, ...]:
    """The sums behind the statistics of a slice, as far as they fit in a line each.

    Args:
        numbers: the first numbers of the slice, or all.
        count: how many there are in all.
        values: sign, name and value of each statistic; the names are those in ``Plan.symbols``.

    >>> spell_statistics([1, 2, 6], 3, [("μ", "mean", 3), ("σ²", "variance", 14 / 3)])
    ('μ = (1 + 2 + 6) / 3 = 3', 'σ² = ((1 − 3)² + (2 − 3)² + (6 − 3)²) / 3 = 4.6667')
    >>> spell_statistics([3, -4], 2, [("‖v‖²", "squared norm", 25)])
    ('‖v‖² = 3² + (−4)² = 25',)
    """
    numbers = np.asarray(numbers, dtype=np.float64)[:MAX_TERMS]
    mean = next((value for _, name, value in values if name == "mean"), 0.0)
    return tuple(
        _spell_sum(symbol, name, numbers, count, mean, value) for symbol, name, value in values
    )


def _spell_sum(symbol: str, name: str, numbers, count: int, mean: float, result: float) -> str:
    as_text, as_number = TERMS[name]
    averaged = name != "squared norm"

    def line(terms: str) -> str:
        terms = f"({terms})" if averaged and count > 1 else terms
        divided = f" / {count:,}" if averaged else ""
        return f"{symbol} = {terms}{divided} = {five_digits(result)}"

    def write(decimals: int | None) -> tuple[list[str], str]:
        if decimals is None:  # as in the cells
            largest = largest_of(numbers)
            return [short(x, largest) for x in numbers], five_digits(mean)
        return [digits(x, decimals) for x in numbers], digits(mean, decimals)

    texts, centre = write(None)
    shown = texts[: max(1, count - 1)]  # what breaks off has more numbers to come
    broken_off = line(_add_up([as_text(text, centre) for text in shown], more=count > 1))
    for decimals in (None, *range(5, EXACT + 1)):
        texts, centre = write(decimals)
        terms = [as_text(text, centre) for text in texts]
        whole = _add_up(terms, more=len(numbers) < count)
        if whole.endswith("…"):
            return broken_off
        total = _work_out(
            lambda *all_: sum(as_number(x, all_[-1]) for x in all_[:-1]),
            [read(text) for text in (*texts, centre)],
        )
        if _shows(total / count if averaged else total, result):
            return line(whole)
    return broken_off


def _add_up(terms: Sequence[str], *, more: bool) -> str:
    """``1 + 2 − 3 + …``: as many terms as there is room for."""
    text = terms[0]
    for term in terms[1:]:
        longer = text + (f" − {term[1:]}" if term.startswith("−") else f" + {term}")
        if len(longer) > SUM_ROOM:
            return text + " + …"
        text = longer
    return f"{text} + …" if more else text


def read(text: str) -> float:
    """A number that was written out."""
    return float(text.replace("−", "-"))


def minus(text: str) -> str:
    """What subtracts a number: its negative has no two signs in a row."""
    return f"+ {text[1:]}" if text.startswith("−") else f"− {text}"


def in_brackets(text: str) -> str:
    """The text of a negative number in brackets."""
    return f"({text})" if text.startswith("−") else text


def _work_out(work: Work, values: Sequence[float]) -> float:
    with np.errstate(all="ignore"):  # what is not finite is shown as it is
        return float(work(*np.asarray(values, dtype=np.float64)))


def _shows(number: float, other: float) -> bool:
    return five_digits(number) == five_digits(other)
