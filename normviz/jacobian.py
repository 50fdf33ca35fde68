"""The picture of a derivative: point at an output, and every input shows how it moves it.

An input moves an output by ∂y/∂x for each 1 that it rises, as long as it rises by little. All of it
comes from autograd, in float64, through the layer as it is.
"""

from collections.abc import Callable, Iterator
from copy import copy
from functools import cached_property
from itertools import product
from math import floor, inf, log10

import numpy as np
import torch
from torch import nn

from normviz.captions import call_of
from normviz.derivatives import Run, jacobian_of, running
from normviz.grid import CELL_HEIGHT, DIRECTIONS, lay_out, places
from normviz.influence import Influence
from normviz.picture import Picture, as_array
from normviz.slices import (
    LETTER,
    LINE,
    LINE_LETTER,
    TITLE_LETTER,
    draw_gaps,
    draw_headers,
    left_margin,
)
from normviz.svg import SELECT_LIT, style_of, svg_dash, svg_page, svg_slice, svg_text, tint
from normviz.words import count_odd, count_slices, largest_of, short

__all__ = ["draw_jacobian", "jacobian_of"]

# Pixels: a cell of an input, with a square and a number; the least and the largest square.
TALL, WIDE, LEAST_SIDE, SIDE = 40, 46, 6, 20
LOW, PAGE_WIDTH, APART = 380, 1000, 20  # higher than that, grids stand side by side
# Cells in a grid, and derivatives in a picture: enough to see, and few enough for 300 kilobytes.
MOST_CELLS, FEWER_CELLS, MOST_PAIRS = 96, 56, 3200
MOST_ROWS = 16  # of the text
WORK = 2**26  # derivatives that are worth waiting for
GREY = 7
PLUS, MINUS = "+ same way", "− other way"
HINT = "Point at an output, or press Tab, to see what moves it."
STYLE = f"""<style>
.nv-pale{{fill:#f4f4f4;stroke:#bbb}}
.nv-plus{{fill:#0072b2}}
.nv-minus{{fill:#fff;stroke:#b84700;stroke-width:2}}
.nv-own{{fill:none;stroke:#111;stroke-width:2.5}}
.nv-head{{font-size:13px;font-weight:600}}
.nv-slice .nv-map{{pointer-events:none}}
.nv-when{{display:none}}
{SELECT_LIT}~.nv-when{{display:inline}}
{SELECT_LIT}~.nv-x{{display:none}}
.nv:is(:hover,:focus-within,.nv-still) .nv-outputs .nv-slice:not({SELECT_LIT}){{opacity:.6}}
</style>"""


def draw_jacobian(
    layer: nn.Module, x: torch.Tensor, *, title: str | None = None, lit: int | None = None
) -> Picture:
    """A picture of how each input of ``layer(x)`` moves each output: by ∂y/∂x.

    Point at an output, and each input shows its sign (a full square moves the output the same way,
    a hollow one the other way) and its strength (the largest square moves this output most); an
    input that moves it by exactly 0 stays empty.

    The layer runs as it is, in float64, with its hooks and in its mode; it, its buffers, x and the
    random state stay untouched.

    Args:
        layer: any module from one tensor to one tensor. One that has a plan (see ``plan_of``)
            brings names for its slices.
        x: its input, a floating-point tensor with 1 to 5 axes. Large inputs and outputs are drawn
            by head and tail; sums count all inputs.
        title: the first line; if not given, the layer and its mode.
        lit: the flat index of an output that is lit from the start, until another is pointed at.

    Raises:
        ValueError: if layer does not take x, or gives no tensor of numbers that depends on x; if x
            or the output has more than 5 axes or no numbers; or if no drawn output has the index
            ``lit``.

    >>> x = torch.tensor([[1.0], [2.0], [6.0]])
    >>> picture = draw_jacobian(nn.BatchNorm1d(1, eps=0.5), x)
    >>> for sentence in picture.text.splitlines()[2].split(". "):
    ...     print(sentence)
    output (0, 0), channel 0: x = 1, y = −0.87988
    Its own input: ∂y/∂x = +0.17976
    The 2 others of channel 0: from −0.20341 to +0.023653
    Added up: 0
    If all of channel 0 rise by the same amount, y stays
    Each times its x̂, added up: −0.037461; with ε = 0 it would be 0
    Most: (1, 0) −0.20341, (0, 0) +0.17976, (2, 0) +0.023653
    """
    with running(layer, x) as run:
        mode = " in training" if layer.training else " in eval"
        mode = mode if run.has_modes else ""
        title = str(title or f"How each input moves an output of {call_of(layer)}{mode}")
        title = title if len(title) <= 80 else title[:79] + "…"
        return _Page(run, title).draw(lit)


class _Grid:
    """Where the drawn numbers of a tensor stand."""

    def __init__(self, numbers: np.ndarray, names, height: int, most: int, width: int = WIDE):
        self.height, self.width, shown = height, width, []
        while True:  # wider cells leave room for fewer numbers, which may need still wider ones
            self.axes = lay_out(numbers.shape, names, self.width, height, most)
            if shown != [axis.shown for axis in self.axes]:
                shown = [axis.shown for axis in self.axes]
                part = numbers[np.ix_(*shown)]
                largest = largest_of(part)
                self.texts = [short(number, largest) for number in part.ravel().tolist()]
                longest = max(len(text) + text.count("−") / 3 for text in self.texts)
            if round(LETTER * longest) + 2 <= self.width:
                break
            self.width = round(LETTER * longest) + 2
        at = np.ravel_multi_index(np.ix_(*shown), numbers.shape)
        self.at = np.broadcast_to(at, part.shape).ravel().tolist()  # flat indices
        self.whole = part.size == numbers.size
        self.left = left_margin(self.axes)
        self.places = places(self.axes)

    def as_high_as(self, other: "_Grid") -> "_Grid":
        """The same numbers in the cells of another grid."""
        made = copy(self)
        made.axes, made.places, made.height = other.axes, other.places, other.height
        return made

    @property
    def right(self) -> float:
        """How wide it is, with its margin."""
        return self.left + max(axis.extent for axis in self.axes if axis.across)

    @property
    def high(self) -> int:
        """How high the cells are."""
        return max((axis.extent for axis in self.axes if not axis.across), default=self.height)

    @property
    def headers(self) -> int:
        """The height of the names above the cells."""
        count = sum(axis.across for axis in self.axes if not axis.innermost or len(self.axes) < 4)
        return LINE * count

    @property
    def cut(self) -> list[str]:
        """Along which axes only a part is drawn."""
        return [
            f"{len(axis.shown)} of {axis.size} along {axis.name.rstrip(':')}"
            for axis in self.axes
            if len(axis.shown) < axis.size
        ]

    def cells(self, x: float, y: float) -> list[tuple[float, float]]:
        """The top left corners, with the grid moved."""
        return [(x + self.left + px, y + py) for px, py in self.places]

    def draw_frame(self, x: float, y: float) -> list[str]:
        """Names of positions, and gaps."""
        left = x + self.left
        return [*draw_headers(self.axes, left, y), *draw_gaps(self.axes, left, y, y + self.high)]


class _Page:
    """What is written and drawn, and where: heading, outputs, inputs, legend, lines."""

    def __init__(self, run: Run, title: str):
        self.run, self.title = run, title
        self.x, self.y = as_array(run.leaf), as_array(run.y)
        self.y = self.y.reshape(self.y.shape or (1,))
        for name, numbers in {"x": self.x, "the output": self.y}.items():
            if numbers.ndim not in DIRECTIONS:
                raise ValueError(f"{name} must have 1 to 5 axes to be drawn: got {numbers.ndim}.")
        self.names = [f"axis {k}:" for k in range(max(self.x.ndim, self.y.ndim))]
        if run.plan_holds:
            self.names = run.plan.reduction.name_axes(self.x.shape)
        bearable = max(4, WORK // self.x.size)
        for most in (MOST_CELLS, FEWER_CELLS):
            self._lay_out(most, min(most, bearable))
            self._look()
            if np.count_nonzero(self.shown) <= MOST_PAIRS:
                break
        self._place()

    def _lay_out(self, most: int, outputs: int) -> None:
        names_x, names_y = (self.names[: numbers.ndim] for numbers in (self.x, self.y))
        self.outputs = _Grid(self.y, names_y, CELL_HEIGHT, outputs)
        self.inputs = _Grid(self.x, names_x, TALL, most, self.outputs.width)
        if self.inputs.width > self.outputs.width:  # what belongs together stands in one column
            self.outputs = _Grid(self.y, names_y, CELL_HEIGHT, outputs, self.inputs.width)

    def _look(self) -> None:
        """The derivatives of each drawn output: what is drawn of them, and what is said."""
        drawn, self.captions = [], []
        indices = [*product(*(axis.shown for axis in self.outputs.axes))]
        rows = self.run.rows(self.outputs.at)
        for output, index, row in zip(self.outputs.at, indices, rows, strict=True):
            caption = Influence(self.run, self.x, self.y, index, row)
            drawn.append(caption.row[self.inputs.at])
            said = len(self.captions) < MOST_ROWS - 1 or output == self.outputs.at[-1]
            movers = caption.movers if said else ""
            self.captions.append((caption.name, caption.values, caption.lines, movers))
        self.shown = np.array(drawn)

    def _place(self) -> None:
        outputs, inputs = self.outputs, self.inputs
        self.head = self._facts()
        top = 44 + LINE * len(self.head)
        self.hint_at = top
        self.outputs_at = 0, top + 24 + outputs.headers + 8
        bottom = self.outputs_at[1] + outputs.high
        if outputs.high + inputs.high > LOW and outputs.right + APART + inputs.right < PAGE_WIDTH:
            x, y = outputs.right + APART, top + 32 + max(inputs.headers, outputs.headers)
            if outputs.at == inputs.at:  # rows that belong together are level
                outputs = self.outputs = outputs.as_high_as(inputs)
            self.outputs_at, self.inputs_at = (0, y), (x, y)
            bottom = y + max(inputs.high, outputs.high)
        else:
            self.inputs_at = 0, bottom + 30 + inputs.headers + 8
            bottom = self.inputs_at[1] + inputs.high
        self.legend_at = bottom + 26
        self.lines_at = self.legend_at + 28
        lines = [line for *_, lines, _ in self.captions for line in lines]
        count = max(len(lines) for *_, lines, _ in self.captions)
        self.bottom = self.lines_at + LINE * (count - 1)
        names = [name for name, *_ in self.captions]
        wide = [*self.head, *lines, HINT]
        self.left = outputs.left
        self.right = max(
            outputs.right,
            self.inputs_at[0] + inputs.right,
            14 + LINE_LETTER * 0.85 * max(map(len, wide)),
            14 + TITLE_LETTER * max(map(len, [self.title, *names])),
            14 + 430,
        )

    def _facts(self) -> list[str]:
        run, shapes = self.run, (self.x.shape, self.y.shape)
        what = f"x and y of shape {shapes[0]}"
        if shapes[0] != shapes[1]:
            what = f"x of shape {shapes[0]}, y of shape {shapes[1]}"
        if run.plan_holds:
            sizes = zip(self.names, self.x.shape, strict=True)
            what += ": " + ", ".join(f"{name} {size}" for name, size in sizes)
        what += "."
        if len(run.pooled) == 1:
            what += f" {count_slices(run.pooled[0], self.x.shape)}."
        facts = [what]
        if run.plan_holds and not run.pooled:
            facts.append("Stored statistics normalize: each input moves its own output alone.")
        if run.pooled[1:]:
            kinds = ", ".join(map(str, run.pooled))
            facts.append(f"Several statistics are mixed: {kinds}.")
        for name, grid in {"x": self.inputs, "y": self.outputs}.items():
            if grid.cut:
                facts.append(f"{name} is drawn by head and tail: {', '.join(grid.cut)}.")
        if len(facts) > 1 and not self.inputs.whole:
            facts.append("The sums count all inputs, drawn or not.")
        for name, numbers in {"x": self.x, "y": self.y}.items():
            if odd := count_odd(numbers):
                facts.append(f"{name} holds {odd}: what depends on it has no derivative.")
        return facts

    def draw(self, lit: int | None) -> Picture:
        if lit is not None and lit not in self.outputs.at:
            raise ValueError(f"lit must be the flat index of a drawn output: got {lit!r}.")
        (ox, oy), (ix, iy) = self.outputs_at, self.inputs_at
        above_y, above_x = (
            at - 8 - grid.headers for at, grid in ((oy, self.outputs), (iy, self.inputs))
        )
        cells = self.inputs.cells(ix, iy)
        size = f'width="{self.inputs.width}" height="{TALL}"'
        self.corners = [f'x="{x:.0f}" y="{y:.0f}"' for x, y in cells]
        pale = [f'<rect class="nv-pale" {corner} {size}/>' for corner in self.corners]
        groups = (
            self._draw_output(nth, corner, cells, lit)
            for nth, corner in enumerate(self.outputs.cells(ox, oy))
        )
        when = "How each input moves it: ∂y/∂x"
        parts = [
            STYLE,
            svg_text(14, 20, self.title, "nv-title"),
            *(svg_text(14, 40 + LINE * i, line) for i, line in enumerate(self.head)),
            svg_text(14, self.hint_at, HINT, "nv-hint"),
            svg_text(ox + self.outputs.left, above_y, "Outputs y", "nv-head"),
            *self.outputs.draw_frame(ox, oy),
            *self.inputs.draw_frame(ix, iy),
            *self._draw_legend(),
            f'<g class="nv-outputs">{"".join(pale)}',
            *groups,
            svg_text(ix + self.inputs.left, above_x, when, "nv-head nv-when"),
            f'<g class="nv-x">{svg_text(ix + self.inputs.left, above_x, "Inputs x", "nv-head")}',
            *self._draw_inputs(cells),
            "</g></g>",
        ]
        spoken = f"{self.title}. {self.head[0]}"
        svg = svg_page(self.right + 10, self.bottom + 12, spoken, parts, lit=lit is not None)
        return Picture(svg=svg, text="\n".join([self.title, *self.head, *self._rows()]))

    def _rows(self) -> Iterator[str]:
        """The same in words, of so many outputs."""
        rows = [
            f"o{name[1:]}: {values}. {' '.join(lines)}{f' Most: {movers}' if movers else ''}"
            for name, values, lines, movers in self.captions
        ]
        if len(rows) <= MOST_ROWS:
            return iter(rows)
        return iter([*rows[: MOST_ROWS - 1], f"… {len(rows) - MOST_ROWS} more …", rows[-1]])

    @cached_property
    def _marks(self) -> dict[int, int]:
        """The look of each slice."""
        run, at = self.run, [*self.inputs.at, *self.outputs.at]
        if run.coloured is None:
            return dict.fromkeys(at, GREY)
        labels = run.labels[np.unravel_index(at, self.x.shape)].tolist()
        looks = {label: style_of(run.coloured, label, self.x.shape) for label in {*labels}}
        return {index: looks[label] for index, label in zip(at, labels, strict=True)}

    def _draw_output(self, nth: int, corner, cells, lit: int | None) -> str:
        (x, y), output = corner, self.outputs.at[nth]
        name, values, lines, _ = self.captions[nth]
        width, high, mark = self.outputs.width, self.outputs.height, self._marks[output]
        parts = [
            f'<rect class="nv-cell" x="{x}" y="{y}" width="{width}" height="{high}" '
            f'fill="{tint(mark, 0.5)}"/>',
            svg_text(x + width / 2, y + high // 2 + 3, self.outputs.texts[nth], "nv-ink"),
        ]
        if self.run.coloured:
            parts.append(svg_dash(mark, f"M{x + 3} {y + high - 4}h{width - 6}"))
        parts += [
            f'<g class="nv-lit nv-map">{self._draw_map(nth, cells)}',
            svg_text(14, self.hint_at, f"{name}: {values}", "nv-name"),
            *(
                svg_text(14, self.lines_at + LINE * i, line, "nv-line")
                for i, line in enumerate(lines)
            ),
            "</g>",
        ]
        return svg_slice(
            output, f"{name}: {values}", parts, details=" ".join(lines), lit=output == lit
        )

    def _draw_map(self, nth: int, cells) -> str:
        """A square and a number in each input that moves this output."""
        row, radii, half, ring = self.shown[nth], self._radii[nth], self.inputs.width // 2, ""
        moves, texts, write = {"nv-plus": [], "nv-minus": []}, [], _writer(largest_of(row))
        for (x, y), number, r in zip(cells, row.tolist(), radii, strict=True):
            if not number:
                continue
            if number == number:
                look, r = ("nv-plus", r) if number > 0 else ("nv-minus", r - 1)  # which has a rim
                moves[look].append(f"M{x + half - r} {y + 13 - r}h{2 * r}v{2 * r}h-{2 * r}z")
            texts.append(f'<text x="{x + half}" y="{y + 35}">{write(number)}</text>')
        output = self.outputs.at[nth]
        if self.x.shape == self.y.shape and output in self._column:
            x, y = cells[self._column[output]]
            ring = (
                f'<rect class="nv-own" x="{x + 1.5}" y="{y + 1.5}" '
                f'width="{self.inputs.width - 3}" height="{TALL - 3}"/>'
            )
        paths = [
            f'<path class="{look}" d="{"".join(squares)}"/>'
            for look, squares in moves.items()
            if squares
        ]
        return f'{"".join(paths)}<g class="nv-ink">{"".join(texts)}</g>{ring}'

    @cached_property
    def _radii(self) -> list[list[int]]:
        """Half the side of each square: its area is the strength, beside the output's strongest."""
        size = np.abs(self.shown)
        size = np.where(np.isfinite(size), size, 0)
        shares = size / np.maximum(size.max(axis=1, keepdims=True), np.finfo(float).tiny)
        return np.maximum(np.sqrt(shares) * SIDE / 2, LEAST_SIDE / 2).round().astype(int).tolist()

    @cached_property
    def _column(self) -> dict[int, int]:
        """For each drawn input, the how manieth it is."""
        return {index: nth for nth, index in enumerate(self.inputs.at)}

    def _draw_inputs(self, cells) -> Iterator[str]:
        """x, until an output is lit."""
        width, coloured = self.inputs.width, self.run.coloured
        for at, (x, y), corner, text in zip(
            self.inputs.at, cells, self.corners, self.inputs.texts, strict=True
        ):
            mark = self._marks[at]
            yield (
                f'<rect class="nv-cell" {corner} width="{width}" height="{TALL}" '
                f'fill="{tint(mark, 0.5)}"/>'
            )
            yield svg_text(x + width / 2, y + TALL / 2 + 4, text, "nv-ink")
            if coloured:
                yield svg_dash(mark, f"M{x + 3:.0f} {y + TALL - 5:.0f}h{width - 6}")

    def _draw_legend(self) -> Iterator[str]:
        x, y = 14, self.legend_at
        yield f'<path class="nv-plus" d="M{x} {y - 11}h13v13h-13z"/>'
        yield svg_text(x + 19, y, PLUS)
        yield f'<path class="nv-minus" d="M{x + 106} {y - 11}h13v13h-13z"/>'
        yield svg_text(x + 126, y, MINUS)
        yield svg_text(x + 220, y, "bigger: moves it more; empty: by 0")


def _writer(largest: float) -> Callable[[float], str]:
    """How to write a derivative in a cell, beside others up to this size.

    >>> [_writer(0.5)(-0.25), _writer(30)(17.5), _writer(0.02)(0.0125), _writer(1e-6)(-2e-7)]
    ['−0.25', '+17.5', '+0.013', '−2e−7']
    """
    places = 1 - floor(log10(largest))
    decimals = max(0, min(places + 1, max(places, 2))) if -3 <= places <= 3 else None
    least = inf if decimals is None else 0.5 * 0.1**decimals

    def write(number: float) -> str:
        if number != number:
            return "nan"
        if abs(number) >= least:
            return f"{number:+.{decimals}f}".replace("-", "−")
        mantissa, _, exponent = f"{number:+.0e}".partition("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")

    return write
