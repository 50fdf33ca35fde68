"""The picture of a derivative: point at an output, and every input shows how it moves it.

An input moves an output by ∂y/∂x for each 1 that it rises, as long as it rises by little. All of it
comes from autograd, in float64, through the layer as it is.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from math import floor, inf, log10

import numpy as np
import torch
from torch import nn

from normviz.captions import call_of, title_of
from normviz.derivatives import Run, jacobian_of, running
from normviz.grid import CELL_HEIGHT, DIRECTIONS
from normviz.influence import Influence
from normviz.picture import Picture
from normviz.slices import LINE, LINE_LETTER, TITLE_LETTER, Grid, facts_on, spell_cut
from normviz.svg import (
    ANY_LIT,
    SELECT_LIT,
    style_of,
    svg_dash,
    svg_page,
    svg_part,
    svg_slice,
    svg_text,
    tint,
)
from normviz.words import count_odd

__all__ = ["draw_jacobian", "jacobian_of"]

# Pixels: a cell of an input, with a square and a number; the least and the largest square.
TALL, WIDE, LEAST_SIDE, SIDE = 40, 46, 6, 20
LOW, PAGE_WIDTH, APART = 380, 1000, 20  # higher than that, grids stand side by side
# Cells in a grid, and derivatives in a picture: enough to see, and few enough for 300 kilobytes.
MOST_CELLS, FEWER_CELLS, MOST_PAIRS = 96, 56, 3200
MOST_ROWS = 16  # of the text
WORK = 2**26  # derivatives that are worth waiting for
GREY = 7
HINT = "Point at an output, or press Tab, to see what moves it."
STYLE = f"""<style>
.nv-pale{{fill:#f4f4f4;stroke:#bbb}}
.nv-plus{{fill:#0072b2}}
.nv-minus{{fill:#fff;stroke:#b84700;stroke-width:2}}
.nv-own{{fill:none;stroke:#111;stroke-width:2.5}}
.nv-slice .nv-map{{pointer-events:none}}
.nv-when{{display:none}}
.nv-slice{SELECT_LIT}~.nv-when{{display:inline}}
.nv-slice{SELECT_LIT}~.nv-x{{display:none}}
{ANY_LIT} .nv-outputs .nv-slice:not({SELECT_LIT}){{opacity:.6}}
</style>"""

LEGEND = (
    '<path class="nv-plus" d="M0 -11h13v13h-13z"/><text x="19">+ same way</text>'
    '<path class="nv-minus" d="M106 -11h13v13h-13z"/><text x="126">− other way</text>'
    '<text y="20">bigger: moves it more; empty: by 0</text>'
)


def draw_jacobian(
    layer: nn.Module, x: torch.Tensor, *, title: str | None = None, lit: int | None = None
) -> Picture:
    r"""A picture of how each input of ``layer(x)`` moves each output: by ∂y/∂x.

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
    >>> said = draw_jacobian(nn.BatchNorm1d(1, eps=0.5), x).text.splitlines()[2]
    >>> print(said.replace(". ", ".\n"))
    output (0, 0), channel 0: x = 1, y = −0.87988.
    Its own input: ∂y/∂x = +0.17976.
    The 2 others of channel 0: from −0.20341 to +0.023653.
    Added up: 0.
    If all of channel 0 rise by the same amount, y stays.
    Each times its x̂, added up: −0.037461; with ε = 0 it would be 0.
    Most: (1, 0) −0.20341, (0, 0) +0.17976, (2, 0) +0.023653
    """
    with running(layer, x) as run:
        title = str(title or f"How each input moves an output of {_name(run)}")
        return _Page(run, title if len(title) <= 80 else title[:79] + "…").draw(lit)


def _name(run: Run) -> str:
    """The layer, and its mode if that may matter."""
    if run.explained:
        return title_of(run.explained)
    matters = [*run.layer.buffers()] or "Dropout" in str(run.layer)
    mode = " in training" if run.layer.training else " in eval"
    return call_of(run.layer) + (mode if matters else "")


class _Grid(Grid):
    """The drawn numbers of a tensor, each with its flat index."""

    def __init__(self, numbers: np.ndarray, *names_and_sizes):
        super().__init__(numbers, *names_and_sizes)
        every = np.arange(numbers.size).reshape(numbers.shape)
        self.at = every[self.shown].ravel().tolist()

    def draw_title(self, title: str, look: str = "nv-name") -> str:
        """What stands above all of it."""
        return svg_text(self.left, self.top - 8 - self.headers, title, look)


class _Page:
    """What is written and drawn, and where: heading, lines, outputs, inputs, legend."""

    def __init__(self, run: Run, title: str):
        self.run, self.title = run, title
        self.mark_of = cache(partial(style_of, run.coloured, shape=run.x.shape))  # a label
        for name, numbers in {"x": run.x, "the output": run.y}.items():
            if numbers.ndim not in DIRECTIONS:
                raise ValueError(f"{name} must have 1 to 5 axes to be drawn: got {numbers.ndim}.")
        for most in (MOST_CELLS, FEWER_CELLS):
            self._choose(most)
            if sum(map(np.count_nonzero, self.rows)) <= MOST_PAIRS:
                break
        self._place()

    def _choose(self, most: int) -> None:
        """What is drawn; of each output, its derivatives and what is said of them."""
        run, bearable = self.run, min(most, max(4, WORK // self.run.x.size))
        names = [f"axis {k}:" for k in range(5)]
        if run.coloured:
            names = run.coloured.name_axes(run.x.shape)
        self.outputs = _Grid(run.y, names, WIDE, CELL_HEIGHT, bearable)
        self.inputs = _Grid(run.x, names, self.outputs.cell_width, TALL, most)
        if (
            self.inputs.cell_width > self.outputs.cell_width
        ):  # columns that belong together are even
            self.outputs = _Grid(run.y, names, self.inputs.cell_width, CELL_HEIGHT, bearable)
        self.rows, self.said, self.texts, at = [], [], [], self.outputs.at
        for output, row in zip(at, run.rows(at), strict=True):
            influence = Influence(run, output, row)
            self.rows.append(influence.row[self.inputs.at])
            self.said.append((influence.name, influence.lines))
            if len(self.texts) < MOST_ROWS - 1 or output == at[-1]:
                self.texts.append(influence.text)
        if more := len(at) - len(self.texts):
            self.texts.insert(-1, f"… {more} more …")

    def _place(self) -> None:
        """Inputs stand below the outputs; or beside them, where that would be too high."""
        outputs, inputs, self.head = self.outputs, self.inputs, [*self._facts()]
        self.said_top = 44 + LINE * len(self.head)
        self.top = self.said_top + LINE * max(len(lines) for _, lines in self.said) + 8
        x, y = outputs.width + APART, self.top + 24
        if outputs.height + inputs.height > LOW and x + inputs.width < PAGE_WIDTH:
            if outputs.at == inputs.at:  # rows that belong together are level
                outputs.axes, outputs.height, outputs.cell_height = inputs.axes, inputs.height, TALL
            y += max(outputs.headers, inputs.headers)
            outputs.place(0, y)
            inputs.place(x, y)
        else:
            outputs.place(0, y + outputs.headers)
            inputs.place(0, outputs.bottom + 38 + inputs.headers)
        self.legend = max(outputs.bottom, inputs.bottom) + 26
        self.right = max(outputs.right, inputs.right, 14 + 230) + 10
        lines = [line for _, lines in self.said for line in lines]
        widths = {  # of a letter, in a font that may be a wide one
            0.85 * LINE_LETTER: [HINT, *self.head, *lines],
            LINE_LETTER: [name for name, _ in self.said],
            1.1 * TITLE_LETTER: [self.title],
        }
        self.words_right = 24 + max(size * max(map(len, said)) for size, said in widths.items())

    def _facts(self) -> Iterator[str]:
        run, shapes = self.run, (self.run.x.shape, self.run.y.shape)
        if run.coloured:
            yield f"x and y of {facts_on(run.x, run.coloured)}"
        else:
            alike = shapes[0] == shapes[1]
            yield f"x {'and' if alike else f'of shape {shapes[0]},'} y of shape {shapes[1]}."
        if run.explained and not run.pooled:
            yield "Stored statistics normalize: each input moves its own output alone."
        if len(run.pooled) > 1:
            yield f"Several statistics are mixed: {'; '.join(map(str, run.pooled))}."
        for name, grid, numbers in (("x", self.inputs, run.x), ("y", self.outputs, run.y)):
            if cut := spell_cut(grid.axes).replace(":", ""):
                sums = "; sums count all of it" if name == "x" else ""
                yield f"{name} is drawn by head and tail: {cut}{sums}."
            if odd := count_odd(numbers):
                yield f"{name} holds {odd}: what depends on it has no derivative."

    def draw(self, lit: int | None) -> Picture:
        outputs, inputs = self.outputs, self.inputs
        if lit is not None and lit not in outputs.at:
            raise ValueError(f"lit must be the flat index of a drawn output: got {lit!r}.")
        size, bottom = f'width="{inputs.cell_width}" height="{TALL}"', self.legend + 32
        head = [
            STYLE,
            svg_text(14, 20, self.title, "nv-title"),
            *(svg_text(14, 40 + LINE * i, line) for i, line in enumerate(self.head)),
            svg_text(14, self.said_top, HINT, "nv-hint"),
        ]
        drawn = [
            outputs.draw_title("Outputs y"),
            *outputs.draw_headers(),
            *outputs.draw_gaps(),
            *inputs.draw_headers(),
            *inputs.draw_gaps(),
            f'<g transform="translate(14 {self.legend})">{LEGEND}</g>',
            '<g class="nv-outputs">',
            *(f'<rect class="nv-pale" x="{x}" y="{y}" {size}/>' for x, y in inputs.cells),
            *(self._draw_output(nth, lit) for nth in range(len(outputs.at))),
            inputs.draw_title("How each input moves it: ∂y/∂x", "nv-name nv-when"),
            '<g class="nv-x">',
            inputs.draw_title("Inputs x"),
            *(self._draw_cell(inputs, nth) for nth in range(len(inputs.at))),
            "</g></g>",
        ]
        part = svg_part(0, self.top, self.right, bottom, drawn)
        spoken, right = f"{self.title}. {self.head[0]}", max(self.right, self.words_right)
        svg = svg_page(right, bottom, spoken, head, [part], lit=lit is not None)
        return Picture(svg=svg, text="\n".join([self.title, *self.head, *self.texts]))

    def _draw_output(self, nth: int, lit: int | None) -> str:
        output, (name, lines), low = self.outputs.at[nth], self.said[nth], self.said_top + LINE
        parts = [
            self._draw_cell(self.outputs, nth),
            f'<g class="nv-map nv-lit">{self._draw_map(nth)}</g>',
            svg_text(14, self.said_top, name, "nv-lit nv-name"),
            *(svg_text(14, low + LINE * i, line, "nv-lit nv-line") for i, line in enumerate(lines)),
        ]
        return svg_slice(output, name, parts, details=" ".join(lines), lit=output == lit)

    def _draw_cell(self, grid: _Grid, nth: int) -> str:
        (x, y), width, height = grid.cells[nth], grid.cell_width, grid.cell_height
        run, mark, dash = self.run, GREY, ""
        if run.coloured:
            mark = self.mark_of(int(run.labels.flat[grid.at[nth]]))
            dash = svg_dash(mark, f"M{x + 3} {y + height - 4}h{width - 6}")
        return (
            f'<rect class="nv-cell" x="{x}" y="{y}" width="{width}" height="{height}" '
            f'fill="{tint(mark, 0.5)}"/>'
            f"{svg_text(x + width / 2, y + height // 2 + 3, grid.texts[nth], 'nv-ink')}{dash}"
        )

    def _draw_map(self, nth: int) -> str:
        """Squares and numbers; the area of a square is the strength, beside the strongest."""
        run, row, inputs, ring = self.run, self.rows[nth], self.inputs, ""
        size, width, half = np.abs(row), inputs.cell_width, inputs.cell_width // 2
        size[~np.isfinite(size)] = 0
        sides = np.maximum(SIDE * np.sqrt(size / (size.max() or 1)), LEAST_SIDE)
        radii = (sides / 2).round().astype(int).tolist()
        write, squares, texts = _writer(size.max() or 1), {"nv-plus": [], "nv-minus": []}, []
        for (x, y), number, r in zip(inputs.cells, row.tolist(), radii, strict=True):
            if number:
                texts.append(f'<text x="{x + half}" y="{y + 35}">{write(number)}</text>')
            if number and number == number:
                look, r = ("nv-plus", r) if number > 0 else ("nv-minus", r - 1)  # which has a rim
                squares[look].append(f"M{x + half - r} {y + 13 - r}h{2 * r}v{2 * r}h-{2 * r}z")
        if run.x.shape == run.y.shape and (own := self.outputs.at[nth]) in inputs.at:
            (x, y), size = inputs.cells[inputs.at.index(own)], f'height="{TALL - 3}"'
            ring = f'<rect class="nv-own" x="{x + 1.5}" y="{y + 1.5}" width="{width - 3}" {size}/>'
        paths = (f'<path class="{look}" d="{"".join(d)}"/>' for look, d in squares.items() if d)
        return f'{"".join(paths)}<g class="nv-ink">{"".join(texts)}</g>{ring}'


def _writer(largest: float) -> Callable[[float], str]:
    """How to write a derivative in a cell, beside others up to this size: to two digits of that.

    >>> [_writer(0.5)(-0.25), _writer(30)(17.5), _writer(0.02)(0.0125), _writer(1e-6)(-2e-7)]
    ['−0.25', '+17.5', '+0.013', '−2e−7']
    """
    places = 1 - floor(log10(largest))
    decimals = max(0, min(places + 1, max(places, 2)))
    least = 0.5 * 0.1**decimals if abs(places) <= 3 else inf

    def write(number: float) -> str:
        if abs(number) >= least:
            return f"{number:+.{decimals}f}".replace("-", "−")
        text = f"{number:+.0e}" if number == number else "nan"
        return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")

    return write
