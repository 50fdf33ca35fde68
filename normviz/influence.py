"""What an output depends on, in words: each sentence is right with the numbers."""

from collections.abc import Iterator

import numpy as np

from normviz.derivatives import Run
from normviz.words import count_odd, five_digits, name_slice, number_of, signed

MOVERS = 3  # the inputs that are named, of those that move an output most


class Influence:
    """What is said of one output, a flat index; the row has its derivative by each input."""

    def __init__(self, run: Run, output: int, row: np.ndarray):
        self.run, self.output, self.slice = run, output, ""
        self.moved = row != 0  # or nan
        self.row = np.where(np.abs(row) < run.noise, 0.0, row)
        if run.coloured and len(run.pooled) < 2:
            name = name_slice(run.coloured, int(run.labels.flat[output]), run.x.shape)
            self.slice = name if name != "all" else ""
        self.has_own = run.x.shape == run.y.shape
        own = f"x = {five_digits(run.x.flat[output])}, " if self.has_own else ""
        name = f"Output {_place(output, run.y.shape)}{', ' * bool(self.slice)}{self.slice}"
        self.name = f"{name}: {own}y = {five_digits(run.y.flat[output])}"
        odd = count_odd(self.row)
        self.lines = [f"Its derivatives hold {odd}."] if odd else [*self._say()]

    def _say(self) -> Iterator[str]:
        """Its own derivative, those of its slice, their sum, and those outside."""
        if self.has_own:
            yield f"Its own input: ∂y/∂x = {signed(self.row[self.output])}."
        yield from self._of_slice() if self.run.explained else self._of_any()

    def _of_slice(self) -> Iterator[str]:
        run, row, inside = self.run, self.row, np.array([self.output])
        if run.slices:
            same = [labels == labels[self.output] for labels in run.slices]
            inside = np.flatnonzero(np.logical_or.reduce(same))
        inner, others = row[inside], row[inside[inside != self.output]]
        rest = number_of(row.size - inside.size, "number")
        strays = np.count_nonzero(self.moved) - np.count_nonzero(self.moved[inside])
        name = {0: "its own place", 1: self.slice or "x"}.get(len(run.slices), "its slices")
        if others.size:
            count = "other number" if others.size == 1 else f"{others.size:,} others"
            yield f"The {count} of {name}: {_range(others)}."
            total = _sum(inner)
            stays = f" If all of {name} rise by the same amount, y stays."
            yield f"Added up: {signed(total)}.{stays if inner.any() and not total else ''}"
        if run.normalized is not None and inner.any():
            total = _sum(inner * run.normalized[inside])
            more = "; with ε = 0 it would be 0" if total and run.vanishes else ""
            yield f"Each times its x̂, added up: {signed(total)}{more}."
        if strays:
            yield f"{strays:,} of the {rest} outside {name} move it all the same."
        elif not run.slices:
            yield "No other input moves it: one slope, with stored statistics."
        elif inside.size < row.size:
            yield f"The {rest} outside {name} move{'s' * rest.startswith('1 ')} it by 0."

    def _of_any(self) -> Iterator[str]:
        moving, still = self.row[self.moved], np.count_nonzero(~self.moved)
        if moving.size:
            verb = "moves" if moving.size == 1 else "move"
            yield f"{number_of(moving.size, 'input')} {verb} it: {_range(moving)}."
            yield f"Added up: {signed(_sum(moving))}."
        if still:
            yield f"{'The other ' * bool(moving.size)}{number_of(still, 'input')}: by 0."

    @property
    def text(self) -> str:
        """All of it, and the inputs that move it most."""
        size = np.where(np.isfinite(self.row), np.abs(self.row), 0)
        some = np.argpartition(size, -min(MOVERS, size.size))[-MOVERS:]
        most = sorted(some[size[some] > 0].tolist(), key=lambda at: (-size[at], at))
        movers = ", ".join(f"{_place(at, self.run.x.shape)} {signed(self.row[at])}" for at in most)
        return f"o{self.name[1:]}. {' '.join(self.lines)}{' Most: ' * bool(most)}{movers}"


def _place(at: int, shape) -> str:
    return str(tuple(map(int, np.unravel_index(at, shape))))


def _sum(terms: np.ndarray) -> float:
    """A sum that is 0 if nothing but rounding is left of its terms."""
    total = float(terms.sum())
    return 0.0 if abs(total) <= 1e-9 * float(np.abs(terms).sum()) else total


def _range(numbers: np.ndarray) -> str:
    low, high = signed(numbers.min()), signed(numbers.max())
    same = f"each {low}" if numbers.size > 1 else low
    return same if low == high else f"from {low} to {high}"
