"""Curves, bars and histograms, drawn by matplotlib as pictures for a page.

A plot has no paper, and its ink is that of the page around it, so it can be read in a light and in
a dark theme. Series differ in dash or hatch, not in colour alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil

import numpy as np
from matplotlib.axes import Axes

from normviz.ink import INK, LEGEND, LETTER, as_svg, blank_figure, line_style
from normviz.picture import Picture, as_array
from normviz.reduction import refuse_mask
from normviz.words import five_digits

# Okabe and Ito's colours, as far as they can be told from white paper and from black; the last one
# is a little darker than theirs.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c0699b")
GREY = "#777777"
DASHES = ((), (3.7, 1.6), (6.4, 1.6, 1, 1.6), (6, 1, 1, 1, 1, 1))  # in widths of the line
DOTTED = (1, 1.65)
HATCHES = ("", "//", "..", "xx")
SPACE = 6  # points between two labels
GIVEN = 12  # points that axes give away to a name or long numbers beside them
LEFT = 60  # pixels beside the first axes, for most numbers
APART = 75  # from axes to the next, whose numbers may be long; where there are many axes, less
MOST_BARS = 2000  # of more, none could be seen


class Plot:
    """One figure with axes side by side, drawn anew for every state.

    Args:
        columns: how many axes.
        width: of the figure, in pixels of the page.
        height: of the figure.

    >>> plot = Plot()
    >>> with plot.anew() as [axes]:
    ...     add_lines(axes, {"running_mean": [0, 2, 3]})
    >>> print(plot.picture("running_mean grows from 0 to 3"))
    running_mean grows from 0 to 3
    """

    def __init__(self, columns: int = 1, *, width: int = 760, height: int = 320):
        self.figure = blank_figure(columns, width, height)
        self.axes: list[Axes] = self.figure.axes
        self._width, self._height = width, height
        axes = (width - LEFT - APART * (columns - 1)) / columns
        self.figure.subplots_adjust(wspace=APART / max(axes, 1.5 * APART))

    @contextmanager
    def anew(self) -> Iterator[list[Axes]]:
        """The axes without what was drawn last, for a with block; titles and labels stay.

        To clear them altogether would make all ticks anew, which takes as long as all the rest.
        """
        for axes in self.axes:
            for artist in [*axes.lines, *axes.patches]:
                artist.remove()
            axes.relim()
            axes.autoscale()
        for legend in self.figure.legends[:]:
            legend.remove()
        self.figure.subplots_adjust(left=LEFT / self._width)
        yield self.axes
        handles, names = self.axes[0].get_legend_handles_labels()
        if names:  # below the axes, where the legend hides nothing
            self.figure.legend(handles, names, **LEGEND, ncols=len(names))
        if any(axes.get_ylabel() for axes in self.axes) or _has_long_ticks(self.axes[0]):
            self.figure.subplots_adjust(left=75 / self._width)
        self.figure.subplots_adjust(bottom=(80 if names else 50) / self._height)

    def picture(self, text: str) -> Picture:
        """What is on the figure now.

        Args:
            text: the same in words, as the picture's accessible name.
        """
        return Picture(as_svg(self.figure, text), text)


def draw_bars(
    values: Mapping | Sequence[float],
    labels: Sequence | None = None,
    *,
    title: str = "",
    x: str = "",
    y: str = "",
    text: str | None = None,
) -> Picture:
    """One bar for each value.

    Args:
        values: numbers, or a dict from labels to numbers; 2,000 at most.
        labels: below the bars; if not given, 0, 1, 2, ….
        title: above the bars.
        x: below them.
        y: beside them.
        text: the picture in words; if not given, the first values.

    Raises:
        ValueError: if there are no values or too many, not as many labels, or one is not finite.

    >>> print(draw_bars([0.5, 0.25], title="weights"))
    weights: 0 is 0.5, 1 is 0.25
    """
    if isinstance(values, Mapping):
        labels, values = [*values], [*values.values()]
    values = _numbers("values", values)
    labels = [*range(len(values))] if labels is None else [*labels]
    if len(labels) != len(values):
        raise ValueError(f"labels must be as many as values, {len(values)}: got {len(labels)}.")
    if len(values) > MOST_BARS:
        raise ValueError(
            f"values must be {MOST_BARS:,} at most, or no bar could be seen: got {len(values):,}; "
            "draw_lines and draw_histograms take more."
        )
    plot = Plot()
    with plot.anew() as [axes]:
        add_bars(axes, {"": values}, labels)
        axes.set(title=title, xlabel=x, ylabel=y)
    some = [f"{name} is {five_digits(v)}" for name, v in zip(labels, values, strict=True)][:12]
    more = ", …" if len(values) > len(some) else ""
    return plot.picture(text or _headed(title, ", ".join(some) + more))


def draw_lines(
    series: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    x: str = "",
    y: str = "",
    text: str | None = None,
) -> Picture:
    """One curve for each series, over 0, 1, 2, ….

    Args:
        series: name → values.
        title: above the curves.
        x: below them.
        y: beside them.
        text: the picture in words; if not given, where each curve starts and ends.

    Raises:
        ValueError: if a series holds no numbers, or one that is not finite.

    >>> print(draw_lines({"mean": [0, 2, 3]}, title="running"))
    running: mean goes from 0 to 3 in 2 steps
    """
    series = {str(name): _numbers(name, values) for name, values in series.items()}
    plot = Plot()
    with plot.anew() as [axes]:
        add_lines(axes, series)
        axes.set(title=title, xlabel=x, ylabel=y)
    curves = (
        f"{name} goes from {five_digits(v[0])} to {five_digits(v[-1])} in {len(v) - 1} steps"
        for name, v in series.items()
    )
    return plot.picture(text or _headed(title, ", ".join(curves)))


def draw_histograms(
    samples: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    x: str = "",
    truth: float | None = None,
    text: str | None = None,
) -> Picture:
    """One histogram for each set of numbers, side by side on one scale, its mean marked.

    Args:
        samples: name → numbers.
        title: before each name.
        x: below the axis.
        truth: where the means should be, drawn as a line.
        text: the picture in words; if not given, the means.

    Raises:
        ValueError: if a set holds no numbers, or one that is not finite.

    >>> print(draw_histograms({"biased": [0, 2], "unbiased": [1, 3]}, truth=2))
    truth 2; biased: 2 numbers with mean 1; unbiased: 2 numbers with mean 2
    """
    samples = {str(name): _numbers(name, values) for name, values in samples.items()}
    plot = Plot(len(samples))
    with plot.anew() as axes:
        add_histograms(axes, samples, truth=truth, x=x)
        for column, name in zip(axes, samples, strict=True):
            column.set_title(_headed(title, name))
    facts = [] if truth is None else [f"truth {five_digits(truth)}"]
    facts += [
        f"{name}: {len(numbers):,} numbers with mean {five_digits(np.mean(numbers))}"
        for name, numbers in samples.items()
    ]
    return plot.picture(text or "; ".join(facts))


def add_bars(
    axes: Axes,
    series: Mapping[str, Sequence[float] | None],
    labels: Sequence,
    starts: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Add the bars of each series, side by side over the labels; a name "" needs no legend.

    Args:
        axes: where to.
        series: name → how long its bars are, upwards or downwards; None → it is left out, and
            the others keep their looks.
        labels: below the bars.
        starts: name → where its bars start; from 0, if not given.
    """
    looks = {name: _style(i) for i, name in enumerate(series)}
    series = {name: values for name, values in series.items() if values is not None}
    places, width, starts = np.arange(len(labels)), 0.8 / len(series), starts or {}
    for i, (name, values) in enumerate(series.items()):
        left = places - 0.4 + i * width
        edges = np.stack([left, left + width], axis=1).ravel()
        high = _with_gaps(np.add(starts.get(name, 0), values))
        low = _with_gaps(starts[name]) if name in starts else 0
        colour, _, hatch = looks[name]
        # One path for all bars: a patch for each would take several times as long.
        look = {"color": colour, "hatch": hatch, "label": _entry(name)}
        bars = axes.stairs(high, edges, baseline=low, fill=True, **look)
        bars.sticky_edges.y[:] = [0]  # alone: there is room beyond any other end
    texts = [str(label) for label in labels]
    width = axes.get_window_extent().width - GIVEN  # numbers beside them may need it
    room = width / (LETTER * max(map(len, texts)) + SPACE)
    every = max(1, ceil(len(texts) / room))
    axes.set_xticks(places[::every], texts[::every])
    axes.grid(visible=False, axis="x")


def add_lines(axes: Axes, series: Mapping[str, Sequence[float]]) -> None:
    """Add one curve for each series, over 0, 1, 2, …, with a dot where it ends."""
    for i, (name, values) in enumerate(series.items()):
        colour, dash, _ = _style(i)
        axes.plot(values, **line_style(colour, dash=dash), label=_entry(name))
        axes.plot(len(values) - 1, values[-1], **line_style(colour, width=0, dot=6))


def add_histograms(
    axes: Sequence[Axes], samples: Mapping[str, np.ndarray], *, truth: float | None, x: str
) -> None:
    """Add one histogram to each of the axes, all on one scale; a last bar holds a long tail."""
    pooled = np.concatenate([*samples.values()])
    start, limit, end = pooled.min(), np.quantile(pooled, 0.99), pooled.max()
    is_long = end - start > 1.3 * (limit - start) > 0
    edges = np.histogram_bin_edges(pooled, 40, (start, limit if is_long else end))
    for i, (column, numbers) in enumerate(zip(axes, samples.values(), strict=True)):
        counts, _ = np.histogram(np.clip(numbers, None, edges[-1]), edges)
        column.stairs(counts, edges, fill=True, color=_style(i)[0], alpha=0.7)
        column.axvline(np.mean(numbers), **line_style(INK, dash=DASHES[1]), label="mean of them")
        if truth is not None:
            column.axvline(truth, **line_style(INK, dash=DOTTED), label="truth")
        column.set_xlabel(f"{x} (last bar: all larger ones)".strip() if is_long else x)
    top = max(column.get_ylim()[1] for column in axes)
    for column in axes:
        column.set_ylim(0, top)


def _has_long_ticks(axes: Axes) -> bool:
    """Whether a number beside the axes, such as −0.002, needs more room than most."""
    axis = axes.yaxis
    ticks = axis.get_major_formatter().format_ticks(axis.get_majorticklocs())
    return max(map(len, ticks), default=0) > 5


def _with_gaps(ends: Sequence[float]) -> np.ndarray:
    """Of bars, with a 0 between each two."""
    return np.stack([ends, np.zeros(len(ends))], axis=1).ravel()[:-1]


def _style(i: int) -> tuple:
    """Colour, dash and hatch of the i-th series: sixteen that differ."""
    other = (i + i // len(COLOURS)) % len(COLOURS)
    return COLOURS[i % len(COLOURS)], DASHES[other], HATCHES[other]


def _entry(name: str) -> str:
    """A label for the legend, which leaves out what begins with an underscore."""
    return f" {name}" if name.startswith("_") else name


def _headed(title: str, text: str) -> str:
    return f"{title}: {text}" if title else text


def _numbers(name: str, values) -> np.ndarray:
    refuse_mask(values, name)
    numbers = np.asarray(as_array(values) if hasattr(values, "detach") else values, dtype=float)
    if numbers.ndim != 1:
        raise ValueError(f"{name} must have one axis: got the shape {numbers.shape}.")
    if not (numbers.size and np.isfinite(numbers).all()):
        raise ValueError(f"{name} must be finite numbers, one at least: got {values!r}.")
    return numbers
