"""What was measured: one table to print, and a page with plots to keep."""

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from itertools import chain
from math import log10
from pathlib import Path
from textwrap import fill

from matplotlib import rc_context, rcParamsDefault
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.compare import Growth, Row, Section

HEAD = ("what", "against", "median (middle half)", "aim", "met or missed")
MARKERS = "osD^vP*X"
# Where the ticks are within a decade, on an axis of less than one, of a few, and of many.
SUBS = ((1, 1.2, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1,))
LEGEND = 80  # letters in a line of it
LOOK = {
    # What a reader has set for other plots stays out of these.
    **{name: value for name, value in rcParamsDefault.items() if not name.startswith("backend")},
    "axes.grid": True,
    "figure.facecolor": "white",  # readable in a dark theme, too
    "figure.figsize": (8, 5.5),
    "font.size": 11,
    "grid.alpha": 0.3,
    "svg.fonttype": "none",  # letters stay letters: small, sharp, and selectable
    "svg.hashsalt": "normviz",  # the same costs give the same bytes
    "text.parse_math": False,  # a dollar is a dollar
}


@dataclass(frozen=True)
class Report:
    """The results of a run.

    Attributes:
        sections: What each module measured, by its name.
        skipped: Why other modules measured nothing, by their names.
        quick: Whether few rounds and small sizes were all.
    """

    sections: dict[str, Section] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    quick: bool = False

    def table(self) -> str:
        """All rows, aligned for a terminal, and what there is to say of them all."""
        lines = [HEAD, *(cells(row) for part in self.sections.values() for row in part.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        aligned = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join([*aligned, "", *self.summary()])

    def summary(self) -> list[str]:
        """How many aims were met, and what was skipped."""
        met = [row.met for part in self.sections.values() for row in part.rows if row.aim]
        skipped = (f"Skipped: {name}. {reason}" for name, reason in self.skipped.items())
        return [f"Aims met: {sum(met)} of {len(met)}.", *skipped]

    def page(self) -> str:
        """All of it in Markdown; the plots are beside it, as `write` names them."""
        parts = ["# What normviz costs", about(quick=self.quick), *self.summary()]
        for name, section in self.sections.items():
            parts += [f"## {section.title}", f"Measured by [{name}.py]({name}.py)."]
            parts += [markdown_table(section.rows), section.notes.strip()]
            parts += [
                f"![{escaped(in_words(growth))}]({plot_name(name, number)})"
                for number, growth in enumerate(section.growths, start=1)
            ]
        return "\n\n".join(filter(None, parts)) + "\n"

    def write(self, folder: Path) -> None:
        """Write RESULTS.md and its plots, in place of those that a folder has."""
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(plot_name("*", "*")):
            old.unlink()
        for name, section in self.sections.items():
            for number, growth in enumerate(section.growths, start=1):
                draw(growth, folder / plot_name(name, number))
        (folder / "RESULTS.md").write_text(self.page(), encoding="utf-8", newline="\n")


def about(*, quick: bool) -> str:
    """How and where everything was measured, in Markdown."""
    from torch import get_num_threads  # takes a second, which only a page is worth
    from torch.backends.cpu import get_cpu_capability

    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "matplotlib"))
    machine = f"{os.cpu_count()} cores ({platform.machine()}, {get_cpu_capability()})"
    lines = [
        "Each line compares two things that were measured in turns, in one run: the median of the",
        "rounds and, in brackets, between which values the middle half of them lies. The sign ×",
        "marks a multiple of what the line is measured against. `make bench` writes this page.",
        "",
        f"Measured on {date.today():%Y-%m-%d}, on {machine}, with {platform.system()},",
        f"Python {platform.python_version()}, {versions}; torch has {get_num_threads()} threads",
        "where nothing else is said.",
    ]
    if quick:
        lines += ["", "**This was a quick run: few rounds, small sizes.**"]
    return "\n".join(lines)


def markdown_table(rows: list[Row]) -> str:
    """Rows as a table in Markdown."""
    lines = [HEAD, ("---", "---", "---:", "---:", "---"), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in lines)


def escaped(text: str) -> str:
    r"""Text that is neither the end of a cell nor that of a link.

    >>> print(escaped("|x| [0]"))
    \|x\| \[0\]
    """
    return re.sub(r"([\[\]|])", r"\\\1", text)


def cells(row: Row) -> tuple[str, ...]:
    """The five cells of a row.

    >>> from benchmarks.compare import Spread
    >>> cells(Row("forward", "torch.nn", Spread(1.25, 1.2, 1.3), aim=1.5))
    ('forward', 'torch.nn', '1.25× (1.20–1.30×)', '≤ 1.50×', 'met')
    >>> cells(Row("picture", "–", Spread(9600, 9600, 9600), unit="bytes"))
    ('picture', '–', '9,600 bytes', '', '')
    """
    unit = row.unit if row.unit == "×" else f" {row.unit}"
    low, middle, high = map(three_digits, (row.cost.low, row.cost.median, row.cost.high))
    cost = f"{middle}{unit}" + (f" ({low}–{high}{unit})" if low != high else "")
    if row.aim is None:
        return row.what, row.against, cost, "", ""
    verdict = "met" if row.met else "missed"
    return row.what, row.against, cost, f"≤ {three_digits(row.aim)}{unit}", verdict


def three_digits(number: float) -> str:
    """A number to three digits or, from a hundred to a million, to the nearest integer.

    >>> [three_digits(number) for number in (0, 1, 0.001234, 298_765, 1.5e18)]
    ['0', '1.00', '0.00123', '298,765', '1.50e18']
    """
    if number == 0 or 99.95 <= abs(number) < 1e6:
        return f"{number:,.0f}"
    mantissa, e, exponent = f"{number:#.3g}".partition("e")
    return mantissa + (f"e{int(exponent)}" if e else "")


def plain(number: float) -> str:
    """A number of a scale, as short as it can be.

    >>> [plain(number) for number in (0, 0.5, 36, 200_000, 10**9)]
    ['0', '0.5', '36', '200,000', '1e9']
    """
    if number == 0 or 1e-3 <= abs(number) < 1e6:
        return f"{number:,.6g}"
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{number:.3g}")


def plot_name(module: str, number: int | str) -> str:
    """The file of a plot, within the folder of the page."""
    return f"growth-{module}-{number}.svg"


def in_words(growth: Growth) -> str:
    """Where each way begins and ends.

    >>> in_words(Growth("Time", "numbers in x", {"ours": [(8, 1.0), (64, 2.0)]}))
    'Time, over numbers in x: ours from 1.00 at 8 to 2.00 at 64'
    """
    told = (
        f"{way} from {three_digits(costs[0][1])} at {plain(costs[0][0])}"
        f" to {three_digits(costs[-1][1])} at {plain(costs[-1][0])}"
        for way, costs in growth.costs.items()
    )
    return f"{growth.title}, over {growth.along}: {'; '.join(told)}"


def draw(growth: Growth, path: Path) -> None:
    """Plot a growth, on logarithmic axes, into an SVG file."""
    title, _, unit = growth.title.partition(", ")
    with rc_context(LOOK):
        figure = Figure(layout="constrained")
        axes = figure.add_subplot()
        for number, (way, costs) in enumerate(growth.costs.items()):
            marker = MARKERS[number % len(MARKERS)]
            axes.plot(*zip(*costs, strict=True), label=way, marker=marker, gid=f"way-{number}")
        sizes, costs = zip(*chain.from_iterable(growth.costs.values()), strict=True)
        axes.set_xscale(**scale(sizes))
        axes.set_yscale(**scale(costs))
        for axis, numbers in ((axes.xaxis, sizes), (axes.yaxis, costs)):
            if min(numbers) > 0:
                decades = log10(max(numbers) / min(numbers))
                axis.set_major_locator(LogLocator(subs=SUBS[(decades > 1) + (decades > 3)]))
            axis.set_major_formatter(lambda number, _: plain(number))
            axis.set_minor_formatter(NullFormatter())
        axes.set(title=title, xlabel=growth.along, ylabel=fill(unit, 45))
        columns = max(1, LEGEND // max(map(len, growth.costs)))
        figure.legend(loc="outside lower center", ncols=min(4, columns))
        figure.savefig(path, metadata={"Date": None})


def scale(numbers: Sequence[float]) -> dict:
    """A logarithmic scale; if zero is among the numbers, it gets a place of its own.

    >>> scale([1, 10]), scale([0, 1, 10])
    ({'value': 'log'}, {'value': 'symlog', 'linthresh': 1})
    """
    if min(numbers) > 0:
        return {"value": "log"}
    return {"value": "symlog", "linthresh": min((n for n in numbers if n > 0), default=1)}
