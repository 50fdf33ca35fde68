"""Where each number of a tensor stands on a page.

The last axes make a small table, the axes before them lay such tables out side by side and below
each other. A place is a sum: each axis adds its own part of x or of y.
"""

from dataclasses import dataclass
from itertools import product
from math import prod

# Whether an axis runs across the page (>) or down (v), from the first axis to the last.
DIRECTIONS = {1: ">", 2: "v>", 3: ">v>", 4: "v>v>", 5: "v>>v>"}
MAX_CELLS, MAX_ROWS, MAX_WIDTH = 400, 16, 800
CELL_HEIGHT, BLOCK_GAP, MARK_GAP = 24, 10, 20  # pixels


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor on the page."""

    name: str
    size: int
    across: bool
    innermost: bool  # its positions are cells, not blocks of cells
    shown: tuple[int, ...]  # the positions that are drawn
    starts: tuple[int, ...]  # where each of them starts, in pixels
    pitch: int  # how wide or high each of them is

    @property
    def extent(self) -> int:
        """How wide or high all of them are together."""
        return self.starts[-1] + self.pitch

    @property
    def gaps(self) -> list[int]:
        """The places where positions are left out."""
        pairs = zip(self.shown, self.shown[1:], self.starts[1:], strict=False)
        return [start - MARK_GAP // 2 for before, i, start in pairs if i != before + 1]


def lay_out(
    shape: tuple[int, ...],
    names: tuple[str, ...],
    cell_width: int,
    cell_height: int = CELL_HEIGHT,
    max_cells: int = MAX_CELLS,
) -> list[Axis]:
    """The axes on the page, of at most so many cells; those too long for it by head and tail.

    The longest axis gives way first, down to two positions.
    """
    most = {">": MAX_WIDTH // cell_width, "v": MAX_ROWS}  # if it were the only axis that way
    directions = DIRECTIONS[len(shape)]
    limits = [min(size, most[way]) for size, way in zip(shape, directions, strict=True)]
    while True:
        axes = _place(shape, names, cell_width, cell_height, limits)
        too_wide = max(axis.extent for axis in axes if axis.across) > MAX_WIDTH
        too_high = prod(len(axis.shown) for axis in axes if not axis.across) > MAX_ROWS
        too_many = prod(len(axis.shown) for axis in axes) > max_cells
        long = [
            k
            for k, axis in enumerate(axes)
            if limits[k] > 2 and (too_many or (too_wide if axis.across else too_high))
        ]
        if not long:
            return axes
        limits[max(long, key=lambda k: (limits[k], k))] -= 1


def _place(shape, names, cell_width, cell_height, limits) -> list[Axis]:
    directions = DIRECTIONS[len(shape)]
    extent = {">": cell_width, "v": cell_height}
    axes: list[Axis] = []
    for k in reversed(range(len(shape))):
        way = directions[k]
        innermost = directions.rindex(way) == k
        shown = _head_and_tail(shape[k], limits[k])
        starts, at = [], 0
        for i, position in enumerate(shown):
            if i and position != shown[i - 1] + 1:
                at += MARK_GAP
            starts.append(at)
            at += extent[way] + BLOCK_GAP * directions[k + 1 :].count(way)
        axes.append(
            Axis(names[k], shape[k], way == ">", innermost, shown, tuple(starts), extent[way])
        )
        extent[way] = axes[-1].extent
    return axes[::-1]


def places(axes: list[Axis]) -> list[tuple[int, int]]:
    """The top left corner of every drawn cell, in C order."""
    xs = [axis.starts if axis.across else (0,) * len(axis.starts) for axis in axes]
    ys = [(0,) * len(axis.starts) if axis.across else axis.starts for axis in axes]
    return [(sum(x), sum(y)) for x, y in zip(product(*xs), product(*ys), strict=True)]


def repeats(axes: list[Axis], axis: Axis) -> list[int]:
    """Where an axis starts anew: once for each drawn position of the axes around it."""
    around = [a.starts for a in axes[: axes.index(axis)] if a.across == axis.across]
    return [sum(starts) for starts in product(*around)]


def _head_and_tail(size: int, limit: int) -> tuple[int, ...]:
    return tuple(range(size)) if size <= limit else (*range(limit - 1), size - 1)
