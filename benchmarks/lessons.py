"""What a lesson costs: Run All from a fresh kernel, and the imports that it begins with."""

import subprocess
import sys
from functools import partial
from itertools import chain
from statistics import median

from nbformat.v4 import new_code_cell

from benchmarks.compare import Row, Section, in_turns, ratio
from benchmarks.report import in_markdown
from tools.notebooks import FOLDER, LESSONS, Run, read, run

LIBRARIES = "import torch, matplotlib.pyplot, ipywidgets"
AGAINST = "a notebook that only imports the libraries"
# What is imported, and against what.
IMPORTS = {
    "import normviz": "import numpy",
    "import normviz; normviz.draw_slices": "import numpy",
    "import normviz; normviz.LayerNorm": "import torch",
}


def import_seconds(program: str) -> float:
    """The seconds of processor that imports take in a fresh Python, without its own start."""
    timed = f"from time import process_time as t; a = t(); {program}; print(t() - a)"
    python = [sys.executable, "-c", timed]
    done = subprocess.run(python, cwd=FOLDER.parent, check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure(*, quick: bool = False) -> Section:
    """What each lesson, all of them, and the imports cost."""
    lessons = {name.removesuffix(".ipynb").replace("_", " "): read(name).cells for name in LESSONS}
    if quick:
        lessons = dict([*lessons.items()][:2])
    notebooks = {LIBRARIES: [new_code_cell(LIBRARIES)], **lessons}
    runs = in_turns(
        {name: partial(run, *cells) for name, cells in notebooks.items()},
        rounds=2 if quick else 3,
        warm_up=1,
    )
    seconds = in_turns(
        {program: partial(import_seconds, program) for program in {*chain(*IMPORTS.items())}},
        rounds=2 if quick else 7,
        warm_up=1,
    )
    empty = runs.pop(LIBRARIES)
    rows = [row for name, times in runs.items() for row in rows_of(name, times, empty)]
    together = [sum(run.seconds for run in round_) for round_ in zip(*runs.values(), strict=True)]
    rows.append(Row("all these lessons: time", AGAINST, ratio(together, seconds_of(empty))))
    for ours, theirs in IMPORTS.items():
        rows.append(Row(f"`{ours}`", f"`{theirs}`", ratio(seconds[ours], seconds[theirs])))
    return Section("The lessons", rows, notes(runs, empty))


def rows_of(name: str, runs: list[Run], empty: list[Run]) -> list[Row]:
    """A lesson as a multiple of the notebook that only imports."""
    rows = [Row(f"{name}: time", AGAINST, ratio(seconds_of(runs), seconds_of(empty)))]
    if all(run.megabytes for run in empty):
        ours, theirs = ([run.megabytes for run in some] for some in (runs, empty))
        rows.append(Row(f"{name}: peak memory", AGAINST, ratio(ours, theirs)))
    return rows


def seconds_of(runs: list[Run]) -> list[float]:
    """Of each run, from the start of the kernel to the end of the last code cell."""
    return [run.seconds for run in runs]


def notes(runs: dict[str, list[Run]], empty: list[Run]) -> str:
    """How a lesson was run, and a table of seconds and megabytes."""
    costs = {
        name: (
            sum(cell.cell_type == "code" for cell in times[0].notebook.cells),
            median(seconds_of(times)),
            median(run.processor for run in times),
            median(run.megabytes for run in times),
        )
        for name, times in {"only the imports": empty, **runs}.items()
    }
    cells, seconds, processor, megabytes = zip(*(costs[name] for name in runs), strict=True)
    costs["all these lessons"] = sum(cells), sum(seconds), sum(processor), max(megabytes)
    head = ["notebook", "code cells", "seconds", "of processor", "MB at the peak"]
    lines = [
        [name, f"{n}", f"{s:.1f}", f"{p:.1f}", f"{mb:.0f}"] for name, (n, s, p, mb) in costs.items()
    ]
    return f"{NOTES}\n{in_markdown(head, lines)}"


NOTES = f"""\
A lesson is Run All from a fresh kernel, which has one thread; its time begins with the
start of the kernel, and is compared with that of a notebook whose only cell is
`{LIBRARIES}`. Of an import, it is the seconds of processor in a fresh
Python, without the start of Python itself.

On this machine (medians):
"""
