"""What an output depends on, in words: each sentence is right with the numbers."""

from collections.abc import Iterator

import numpy as np

from normviz.derivatives import Run
from normviz.words import count_odd, five_digits, number_of

MOVERS = 3  # the inputs that are named, of those that move an output most


class Influence:
    """What is said of one output.

    Args:
        run: the pass.
        x, y: its input and its output.
        index: where in y the output stands.
        row: its derivative by each input, as a vector.
    """

    def __init__(self, run: Run, x: np.ndarray, y: np.ndarray, index, row: np.ndarray):
        self.run, self.shape = run, x.shape
        self.output = int(np.ravel_multi_index(index, y.shape))
        self.same = x.shape == y.shape
        self.slice = run.slice_at(index) if run.plan_holds else None
        self.moved = row != 0  # or nan
        self.row = np.where(np.abs(row) < run.noise, 0.0, row)
        of = f", {self.slice.name}" if self.slice and self.slice.name else ""
        self.name = f"Output {_tuple(index)}{of}"
        own = f"x = {five_digits(float(x[index]))}, " if self.same else ""
        self.values = f"{own}y = {five_digits(float(y[index]))}"

    @property
    def lines(self) -> list[str]:
        """Its own derivative, those of its slice, their sum, and those outside."""
        if not np.isfinite(self.row).all():
            return [f"Its derivatives hold {count_odd(self.row)}."]
        if self.slice is None:
            return [*self._of_any()]
        own = f"Its own input: ∂y/∂x = {_signed(self.row[self.output])}."
        return [own, *(self._of_stored() if self.slice.inside is None else self._of_slice())]

    def _of_stored(self) -> Iterator[str]:
        strays = np.count_nonzero(self.moved) - int(self.moved[self.output])
        if strays:
            yield f"{number_of(strays, 'other input')} move it all the same."
        else:
            yield "No other input moves it: one slope, with stored statistics."

    def _of_slice(self) -> Iterator[str]:
        inside, name = self.slice.inside, self.slice.name
        row, count, inner = self.row, len(inside), self.row[inside]
        of, outside_of = (f" of {name}", f" outside {name}") if name else ("", "")
        if self.run.pooled[1:]:
            of, outside_of = " in its slices", " outside its slices"
        if count > 1:
            yield f"The {_others(count - 1)}{of}: {_range(inner[inside != self.output])}."
            total = _sum(inner)
            if total or not inner.any():
                yield f"Added up: {_signed(total)}."
            else:
                yield f"Added up: 0. If all{of} rise by the same amount, y stays."
        if self.slice.normalized is not None and inner.any():
            total = _sum(inner * self.slice.normalized)
            more = "; with ε = 0 it would be 0" if total and self.run.vanishes else ""
            yield f"Each times its x̂, added up: {_signed(total)}{more}."
        if rest := len(row) - count:
            strays = np.count_nonzero(self.moved) - np.count_nonzero(self.moved[inside])
            outside = f"{number_of(rest, 'number')}{outside_of}"
            if strays:
                yield f"{strays:,} of the {outside} move it all the same."
            else:
                yield f"The {outside} move{'s' * (rest == 1)} it by 0."

    def _of_any(self) -> Iterator[str]:
        row = self.row
        if self.same:
            yield f"Its own input: ∂y/∂x = {_signed(row[self.output])}."
        count = int(np.count_nonzero(self.moved))
        if count:
            verb = "moves" if count == 1 else "move"
            yield f"{number_of(count, 'input')} {verb} it: {_range(row[self.moved])}."
            yield f"Added up: {_signed(_sum(row))}."
        if count < len(row):
            yield f"{'The other ' * bool(count)}{number_of(len(row) - count, 'input')}: by 0."

    @property
    def movers(self) -> str:
        """The inputs that move it most."""
        size = np.where(np.isfinite(self.row), np.abs(self.row), 0)
        some = np.argpartition(size, -min(MOVERS, len(size)))[-MOVERS:]
        most = sorted(some[size[some] > 0].tolist(), key=lambda at: (-size[at], at))
        return ", ".join(
            f"{_tuple(np.unravel_index(at, self.shape))} {_signed(self.row[at])}" for at in most
        )


def _tuple(index) -> str:
    return str(tuple(map(int, index)))


def _sum(terms: np.ndarray) -> float:
    """A sum that is 0 if nothing but rounding is left of its terms."""
    total = float(terms.sum())
    return 0.0 if abs(total) <= 1e-9 * float(np.abs(terms).sum()) else total


def _signed(number: float) -> str:
    """A number with its sign, to five digits.

    >>> _signed(0.25), _signed(-0.25), _signed(0.0)
    ('+0.25', '−0.25', '0')
    """
    number = float(number)
    return "+" * (number > 0) + five_digits(number)


def _range(numbers: np.ndarray) -> str:
    low, high = _signed(numbers.min()), _signed(numbers.max())
    if len(numbers) == 1:
        return low
    return f"each {low}" if low == high else f"from {low} to {high}"


def _others(count: int) -> str:
    return "other number" if count == 1 else f"{count:,} others"
