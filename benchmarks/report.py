"""What was measured: one table to print, and a page to keep."""

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks.compare import Row, Section

HEAD = ("what", "against", "median (middle half)", "aim", "met or missed")


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
        verdicts = [row.met for part in self.sections.values() for row in part.rows]
        met = [verdict for verdict in verdicts if verdict is not None]
        skipped = (f"Skipped: {name}. {reason}" for name, reason in self.skipped.items())
        return [f"Aims met: {sum(met)} of {len(met)}.", *skipped]

    def page(self) -> str:
        """All of it in Markdown."""
        parts = ["# What normviz costs", about(quick=self.quick), *self.summary()]
        for name, section in self.sections.items():
            rows = in_markdown(HEAD, map(cells, section.rows), words=2)
            parts += [f"## {section.title}", f"Measured by [{name}.py]({name}.py).", rows]
            parts.append(section.notes.strip())
        return "\n\n".join(filter(None, parts)) + "\n"

    def write(self, folder: Path) -> None:
        """Write RESULTS.md into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
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


def in_markdown(head: Sequence[str], lines: Iterable[Sequence[str]], *, words: int = 1) -> str:
    r"""A table in Markdown, whose first columns are words and whose other ones are numbers.

    >>> print(in_markdown(["x", "norm"], [["|x|", "1.25"]]))
    | x | norm |
    | --- | ---: |
    | \|x\| | 1.25 |
    """
    rule = ["---" if i < words else "---:" for i in range(len(head))]
    lines = [head, rule, *([cell.replace("|", r"\|") for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
