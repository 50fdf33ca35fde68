"""The slice picture: every number of a tensor, in a group with all that share its statistic."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from math import isfinite, prod

import numpy as np

from normviz.arithmetic import MAX_TERMS, spell_statistics
from normviz.grid import CELL_HEIGHT, DIRECTIONS, Axis, lay_out, places, repeats
from normviz.picture import Picture, as_array
from normviz.reduction import Reduction, as_reduction
from normviz.svg import style_of, svg_dash, svg_page, svg_part, svg_slice, svg_text, tint
from normviz.words import (
    WORDS,
    count_odd,
    count_slices,
    five_digits,
    largest_of,
    name_slice,
    number_of,
    short,
)

# Pixels: the width of a letter in a cell, in a line and in the title; the height of a line.
LETTER, LINE_LETTER, TITLE_LETTER, LINE = 6.8, 7.8, 9, 18
CHIP_HEIGHT = 52
PAGE_WIDTH, MAX_CHIPS = 760, 16
QUIET = "#eee"  # of a cell that does not move
ALL = Reduction("... ->")
HINT = "Point at a number, or press Tab, to see what it shares."


@dataclass(frozen=True)
class Caption:
    """What a picture says of one slice."""

    values: tuple[tuple[str, str, float], ...]  # symbol, word and number: ("μ", "mean", 7.0)
    lines: tuple[str, ...]  # the arithmetic, spelled out


def draw_slices(
    x,
    reduction: Reduction | str,
    *,
    title: str | None = None,
    caption: Callable[[int], Caption] | None = None,
    notes: Sequence[str] | None = None,
    lit: int | None = None,
) -> Picture:
    """A picture of x in which every element has the colour of the statistic that it feeds.

    Args:
        x: an array or tensor with 1 to 5 axes. A large one is drawn by the head and the tail of
            its axes; its statistics come from all of it.
        reduction: which elements share a statistic; a pattern without sizes may be a string.
        title: the first line; if not given, the reduction in words.
        caption: what to say of the slice with this label; if not given, its mean and its biased
            variance, spelled out.
        notes: lines below the title; if not given, which numbers are nan or infinite, if any.
        lit: the label of a slice that is lit from the start, until another one is pointed at.

    Raises:
        ValueError: if x does not fit the reduction, holds no numbers, or has more than 5 axes, or
            if no drawn slice has the label ``lit``.

    >>> print(draw_slices(np.arange(6).reshape(3, 2), Reduction("n c -> c")))
    Mean over n, one per c
    shape (3, 2): n 3, c 2. 2 slices of 3 numbers.
    channel 0: μ = (0 + 2 + 4) / 3 = 2; σ² = ((0 − 2)² + (2 − 2)² + (4 − 2)²) / 3 = 2.6667
    channel 1: μ = (1 + 3 + 5) / 3 = 3; σ² = ((1 − 3)² + (3 − 3)² + (5 − 3)²) / 3 = 2.6667
    """
    x, reduction = as_array(x), as_reduction("reduction", reduction)
    reduction.stat_shape(x.shape)  # says if x does not fit
    if x.ndim not in DIRECTIONS:
        raise ValueError(f"x must have 1 to 5 axes to be drawn: got {x.ndim}.")
    caption = caption or partial(caption_statistics, x, reduction)
    page = Page(x, reduction, str(title or f"Mean {reduction}"), caption, notes)
    if lit is not None and lit not in [*page.cells]:
        raise ValueError(f"lit must be the label of a drawn slice: got {lit!r}.")
    return page.draw(lit)


class Page:
    """What is written and drawn, and where: heading, chips, arithmetic, headers, cells."""

    def __init__(self, x, reduction: Reduction, title: str, caption, notes):
        self.grid = Grid(x, reduction.name_axes(x.shape))
        numbers, shown = x[self.grid.shown], [axis.shown for axis in self.grid.axes]
        self.strengths = _strengths(numbers)
        self.index = [",".join(map(str, at)) for at in product(*shown)]
        self.cells = _by_label(reduction.labels(x.shape, at=shown))
        self.names = {label: name_slice(reduction, label, x.shape) for label in self.cells}
        self.marks = {label: style_of(reduction, label, x.shape) for label in self.cells}
        self.captions = {label: caption(label) for label in self.cells}
        self.count = number_of(reduction.count(x.shape), "number")
        slices = prod(reduction.stat_shape(x.shape))
        if notes is None:
            whole = numbers.size == x.size
            notes = note_odd_numbers("x", numbers, whole, self.captions.values())
        left_out = _notes(self.grid.axes, len(self.cells), slices)
        self.title = title if len(title) <= 80 else title[:79] + "…"
        self.head = [facts_on(x, reduction), *left_out, *notes]

        self.said_top = 44 + LINE * len(self.head)
        lines = max(len(caption.lines) for caption in self.captions.values())
        lines += len(self.cells) > MAX_CHIPS
        self.left = self.grid.margin
        self.chips = _Chips(self, top=self.said_top + LINE * lines)
        self.grid.place(0, self.chips.bottom + self.grid.headers + 12)
        self.right = max(self.chips.right, self.grid.right) + 10

    @property
    def words_right(self) -> float:
        """Of the longest line."""
        lines = [HINT, *self.head, *(line for c in self.captions.values() for line in c.lines)]
        names = [self.title, *(self.chips.texts.values() if not self.chips.all else ())]
        longest = LINE_LETTER * max(map(len, lines)), TITLE_LETTER * max(map(len, names))
        return self.left + max(longest) + 10

    def draw(self, lit: int | None, moves: np.ndarray | None = None, ringed=None) -> Picture:
        """The picture: what does not move has no colour, and one number may have a ring."""
        if moves is not None:
            self.strengths = [
                strength if moves[tuple(map(int, at.split(",")))] else None
                for at, strength in zip(self.index, self.strengths, strict=True)
            ]
        ring, at = "", ",".join(map(str, ringed or ()))
        if at in self.index:
            place = self.grid.cells[self.index.index(at)]
            ring = rings(*place, self.grid.cell_width, CELL_HEIGHT)
        head = [
            svg_text(self.left, 20, self.title, "nv-title"),
            *(svg_text(self.left, 40 + LINE * i, line) for i, line in enumerate(self.head)),
            svg_text(self.left, self.said_top, HINT, "nv-hint"),
        ]
        drawn = [
            *self.grid.draw_headers(),
            *(self._draw_slice(label, lit=label == lit) for label in self.cells),
            *self.grid.draw_gaps(),
        ]
        right, bottom = max(self.right, self.words_right), self.grid.bottom + 10
        part = svg_part(0, self.chips.top - 4, self.right, bottom, drawn)
        spelled = (f"{self.names[k]}: {'; '.join(self.captions[k].lines)}" for k in self.cells)
        spoken = f"{self.title}. {self.head[0]}"
        return Picture(
            svg=svg_page(right, bottom, spoken, head, [part, ring], lit=lit is not None),
            text="\n".join([self.title, *self.head, *spelled]),
        )

    def _draw_slice(self, label: int, *, lit: bool) -> str:
        caption = self.captions[label]
        values = ", ".join(f"{word} {five_digits(value)}" for _, word, value in caption.values)
        named = [] if self.chips.all else [(self.chips.texts[label], "nv-lit nv-name")]
        said = [*named, *((line, "nv-lit nv-line") for line in caption.lines)]
        spoken = f"{self.names[label]}, {self.count}: {values}"
        parts = [
            *self._draw_cells(label),
            *self.chips.draw(label),
            *(svg_text(self.left, self.said_top + LINE * i, *it) for i, it in enumerate(said)),
        ]
        return svg_slice(label, spoken, parts, details="; ".join(caption.lines), lit=lit)

    def _draw_cells(self, label: int) -> Iterator[str]:
        grid, mark, width, dashes = self.grid, self.marks[label], self.grid.cell_width, []
        for nth in self.cells[label]:
            x, y = grid.cells[nth]
            fill = QUIET if self.strengths[nth] is None else tint(mark, self.strengths[nth])
            yield (
                f'<rect class="nv-cell" x="{x}" y="{y}" width="{width}" height="{CELL_HEIGHT}" '
                f'fill="{fill}" data-index="{self.index[nth]}"/>'
                f'<text class="nv-ink" x="{x + width // 2}" y="{y + 15}">{grid.texts[nth]}</text>'
            )
            dashes.append(f"M{x + 3} {y + CELL_HEIGHT - 4}h{width - 6}")
        yield svg_dash(mark, "".join(dashes))


def caption_statistics(x: np.ndarray, reduction: Reduction, label: int) -> Caption:
    """The mean and the biased variance of a slice, and how they came about."""
    numbers = reduction.slice_of(x, label)  # of one slice: only the drawn ones are needed
    with np.errstate(invalid="ignore", over="ignore"):  # nan and inf are shown, not warned of
        mean, var = float(ALL.mean(numbers)), float(ALL.var(numbers))
    values = ("μ", "mean", mean), ("σ²", "variance", var)
    return Caption(values, spell_statistics(first_of(numbers), numbers.size, values))


def first_of(numbers) -> list[float]:
    """The first numbers of a slice, as many as a line may show."""
    corner = as_array(numbers[tuple(slice(MAX_TERMS) for _ in numbers.shape)])
    return [float(number) for number in islice(corner.flat, MAX_TERMS)]


def facts_on(x, reduction) -> str:
    """``"shape (3, 2): n 3, c 2. 2 slices of 3 numbers."``."""
    names = reduction.name_axes(x.shape)
    sizes = ", ".join(f"{name} {size}" for name, size in zip(names, x.shape, strict=True))
    return f"shape {x.shape}: {sizes}. {count_slices(reduction, x.shape)}."


def _notes(axes, drawn: int, slices: int) -> list[str]:
    """What the picture leaves out."""
    cut = spell_cut(axes)
    if not cut:
        return []
    part = f"{drawn:,} of {slices:,} slices are drawn. " if drawn < slices else ""
    return [
        f"Drawn by head and tail: {cut}.",
        f"{part}The numbers that are left out count like all others.",
    ]


def spell_cut(axes) -> str:
    """``"4 of 5 along w"``; nothing if all positions are drawn."""
    cut = (f"{len(a.shown)} of {a.size} along {a.name}" for a in axes if len(a.shown) < a.size)
    return ", ".join(cut)


def note_odd_numbers(name: str, shown: np.ndarray, whole: bool, captions: Iterable[Caption]):
    """Whether some of the numbers are nan or infinite, as far as the drawn slices tell.

    >>> [*note_odd_numbers("x", np.array([1, np.nan]), True, [])]
    ['x holds 1 nan: a mean or variance over one of them is not finite.']
    """
    more = "" if whole else ", and what is not drawn may hold more"
    if found := count_odd(shown):
        yield f"{name} holds {found}{more}: a mean or variance over one of them is not finite."
    elif not whole and not all(isfinite(v) for c in captions for *_, v in c.values):
        yield f"{name} holds nan or inf where it is not drawn: see the statistics."


def _strengths(numbers: np.ndarray) -> list[float]:
    """How strong the colour of each cell is, from 0 to 1."""
    finite = numbers[np.isfinite(numbers)].astype(float)
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        strengths = (numbers - low) / ((high - low) or 1)
    return np.nan_to_num(strengths, nan=0, posinf=1, neginf=0).ravel().tolist()


def _by_label(labels: np.ndarray) -> dict[int, list[int]]:
    """For each label, which cells have it."""
    cells = defaultdict(list)
    for nth, label in enumerate(labels.ravel().tolist()):
        cells[label].append(nth)
    return dict(sorted(cells.items()))


class Grid:
    """The drawn numbers of a tensor, written out, and where they stand on the page."""

    def __init__(self, numbers, names, width: int = CELL_HEIGHT, *cells: int):
        self.cell_height, shown = (*cells, CELL_HEIGHT)[0], []
        while True:  # wider cells leave room for fewer of them, which may need still wider ones
            self.axes = lay_out(numbers.shape, names, width, *cells)
            if shown != [axis.shown for axis in self.axes]:
                shown = [axis.shown for axis in self.axes]
                self.shown = np.ix_(*shown)
                drawn = numbers[self.shown]
                largest = largest_of(drawn)
                self.texts = [short(number, largest) for number in drawn.ravel().tolist()]
                longest = max(len(text) + text.count("−") / 3 for text in self.texts)  # − is wide
                needed = round(LETTER * longest) + 2
            if needed <= width:
                break
            width = needed  # the longest one just fits
        across = [axis for axis in self.axes if axis.across]
        down = (axis.extent for axis in self.axes if not axis.across)
        self.cell_width, self.height = width, max(down, default=self.cell_height)
        self.headers = LINE * sum(map(self._has_header, across))
        self.width = self.margin + max(axis.extent for axis in across)

    def _has_header(self, axis: Axis) -> bool:
        """Whether positions are named at the margin: blocks are; cells only where there is room."""
        return not axis.innermost or len(self.axes) < 4

    @property
    def margin(self) -> int:
        """Room for the names of rows, and of axes."""
        labels = []
        for axis in filter(self._has_header, self.axes):
            labels += [_arrow(axis)] if axis.across else _header_labels(axis)
        return 14 + round(LETTER * max(map(len, labels)))

    def place(self, x: int, y: int) -> None:
        """Where the margin begins, and the cells."""
        self.left, self.right = x + self.margin, x + self.width
        self.top, self.bottom = y, y + self.height
        self.cells = [(self.left + right, y + down) for right, down in places(self.axes)]

    def draw_headers(self) -> Iterator[str]:
        """Names of positions, above and beside the cells."""
        headers, left, top = [*filter(self._has_header, self.axes)], self.left, self.top
        across = [axis for axis in headers if axis.across]
        for line, axis in enumerate(reversed(across)):
            y, labels = top - 6 - LINE * line, _header_labels(axis)
            if labels[0].isdecimal():
                yield svg_text(left - 8, y, _arrow(axis), anchor="end")
            for start in repeats(self.axes, axis):
                for at, label in zip(axis.starts, labels, strict=True):
                    yield svg_text(left + start + at + axis.pitch / 2, y, label, anchor="middle")
        for axis in headers:
            if not axis.across:
                for at, label in zip(axis.starts, _header_labels(axis), strict=True):
                    yield svg_text(left - 8, top + at + axis.pitch / 2 + 4, label, anchor="end")

    def draw_gaps(self) -> Iterator[str]:
        """Dotted lines where positions are left out."""
        path = "".join(
            f"M{self.left + start + gap:.0f} {self.top:.0f}V{self.bottom:.0f}"
            if axis.across
            else f"M{self.left:.0f} {self.top + start + gap:.0f}H{self.right:.0f}"
            for axis in self.axes
            for start in repeats(self.axes, axis)
            for gap in axis.gaps
        )
        if path:
            yield f'<path class="nv-gap" d="{path}"/>'


def _header_labels(axis: Axis) -> list[str]:
    words = [f"{WORDS.get(axis.name, axis.name)} {i}" for i in axis.shown]
    fits = not axis.across or LETTER * max(map(len, words)) < axis.pitch
    return words if fits else [str(i) for i in axis.shown]


def _arrow(axis: Axis) -> str:
    return f"{WORDS.get(axis.name, axis.name)} →"


def rings(x: int, y: int, width: int, height: int) -> str:
    """Two around a cell: one is seen on a pale page or colour, the other on a dark one."""
    return "".join(
        f'<rect x="{x + inset}" y="{y + inset}" width="{width - 2 * inset}" '
        f'height="{height - 2 * inset}" fill="none" stroke="{stroke}" stroke-width="2"/>'
        for inset, stroke in ((-1, "currentColor"), (1, "#111"))
    )


class _Chips:
    """One small card per slice with its values; of too many slices, a line for the lit one."""

    def __init__(self, page: Page, top: int):
        self.marks, self.top, self.bottom, self.right = page.marks, top, top, 0
        self.texts = {
            label: [page.names[label], *(f"{s} {five_digits(v)}" for s, _, v in caption.values)]
            for label, caption in page.captions.items()
        }
        self.all = len(self.texts) <= MAX_CHIPS
        if not self.all:
            self.texts = {k: f"{name}: {', '.join(v)}" for k, (name, *v) in self.texts.items()}
            return
        longest = max(len(line) for texts in self.texts.values() for line in texts)
        self.width = round(LETTER * longest) + 10
        per_row = max(1, (PAGE_WIDTH - page.left) // (self.width + 6))
        self.places = {}
        for i, label in enumerate(self.texts):
            row, column = divmod(i, per_row)
            x, y = column * (self.width + 6), row * (CHIP_HEIGHT + 6)
            self.places[label] = (page.left + x, top + y)
        self.bottom = max(y for _, y in self.places.values()) + CHIP_HEIGHT
        self.right = max(x for x, _ in self.places.values()) + self.width

    def draw(self, label: int) -> list[str]:
        if not self.all:
            return []
        (x, y), width, mark = self.places[label], self.width, self.marks[label]
        parts = [
            f'<rect class="nv-cell" rx="4" x="{x}" y="{y}" width="{width}" height="{CHIP_HEIGHT}" '
            f'fill="{tint(mark, 0.5)}"/>',
            *(
                svg_text(x + width / 2, y + 14 + 14 * i, line, "nv-ink")
                for i, line in enumerate(self.texts[label])
            ),
            svg_dash(mark, f"M{x + 6} {y + CHIP_HEIGHT - 5}h{width - 12}"),
        ]
        return ["<g>", *parts, "</g>"]
