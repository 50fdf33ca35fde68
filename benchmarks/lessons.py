"""What a lesson costs: Run All from a fresh kernel, and the imports that it begins with.

`tests/test_notebooks.py` runs the lessons by the same `run`.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from traitlets.config import Config

from benchmarks.compare import Growth, Row, Section, ratio

FOLDER = Path(__file__).parents[1] / "notebooks"
LESSONS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
WINDOWS = sys.platform == "win32"  # which has no such sockets
PROC = "/proc/self/status"
# Not ru_maxrss: that starts at the size of the process which launched this one. And time of the
# processor, which does not depend on what else the machine is doing.
COST = f"""from pathlib import Path
from time import process_time
status = Path("{PROC}")
print(status.read_text().split("VmHWM:")[1].split()[0] if status.exists() else 0, process_time())"""
LIBRARIES = "import torch, matplotlib.pyplot, ipywidgets"
AGAINST = "a notebook that only imports the libraries"
# What is imported, and against what.
IMPORTS = {
    "import normviz": "import numpy",
    "import normviz; normviz.draw_slices": "import numpy",
    "import normviz; normviz.LayerNorm": "import torch",
}


@dataclass(frozen=True)
class Run:
    """What Run All leaves, and what it took.

    Attributes:
        notebook: With its outputs, and with the state of its widgets.
        log: What the kernel wrote to stderr.
        elapsed: The seconds from the start of the kernel to the end of each code cell.
        processor: The seconds of processor that the kernel took.
        megabytes: The most memory that the kernel had; 0 on a system that does not tell.
    """

    notebook: NotebookNode
    log: str
    elapsed: list[float]
    processor: float
    megabytes: float

    @property
    def seconds(self) -> float:
        """From the start of the kernel to the end of the last code cell."""
        return self.elapsed[-1]


def read(name: str) -> NotebookNode:
    """A lesson as it is committed."""
    return nbformat.read(FOLDER / name, as_version=4)


def run(*cells: NotebookNode) -> Run:
    """Run All, from a fresh kernel with one thread, as on a small machine; errors do not end it."""
    notebook = new_notebook(cells=[*cells, new_code_cell(COST)])
    logged, elapsed = [], []

    def note(**_):
        elapsed.append(perf_counter() - start)
        # Read while the kernel lives: now and then, libzmq aborts when it is shut down.
        logged.append(log.read_text(encoding="utf-8"))

    with TemporaryDirectory() as folder:
        # By default, a kernel is open to the network, and warns of it on stderr.
        sockets = {} if WINDOWS else {"transport": "ipc", "ip": f"{folder}/socket"}
        log = Path(folder, "log")
        client = NotebookClient(
            notebook,
            timeout=120,
            allow_errors=True,  # so that all of them are found
            store_widget_state=True,
            resources={"metadata": {"path": str(FOLDER)}},
            config=Config(KernelManager=sockets),
            on_cell_executed=note,
        )
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        with log.open("w") as stderr:
            start = perf_counter()
            client.execute(stderr=stderr, env=one_thread)
    kilobytes, processor = notebook.cells.pop().outputs[0].text.split()
    return Run(notebook, logged[-1], elapsed[:-1], float(processor), int(kilobytes) / 1000)


def import_seconds(program: str) -> float:
    """The seconds of processor that imports take in a fresh Python, without its own start."""
    timed = f"from time import process_time as t; a = t(); {program}; print(t() - a)"
    python = [sys.executable, "-c", timed]
    done = subprocess.run(python, cwd=FOLDER.parent, check=True, capture_output=True, text=True)
    return float(done.stdout)


def in_turns(ways: dict[str, Callable], rounds: int) -> dict[str, list]:
    """What each way gave, round by round, after a round that does not count."""
    gave = [{name: way() for name, way in ways.items()} for _ in range(rounds + 1)][1:]
    return {name: [round_[name] for round_ in gave] for name in ways}


def measure(*, quick: bool = False) -> Section:
    """What each lesson, all of them, and the imports cost."""
    lessons = {name.removesuffix(".ipynb").replace("_", " "): read(name).cells for name in LESSONS}
    if quick:
        lessons = dict([*lessons.items()][:2])
    notebooks = {LIBRARIES: [new_code_cell(LIBRARIES)], **lessons}
    runs = in_turns(
        {name: partial(run, *cells) for name, cells in notebooks.items()}, rounds=2 if quick else 3
    )
    programs = sorted({program for pair in IMPORTS.items() for program in pair})
    seconds = in_turns(
        {program: partial(import_seconds, program) for program in programs},
        rounds=2 if quick else 7,
    )
    empty = runs.pop(LIBRARIES)
    rows = [row for name, times in runs.items() for row in rows_of(name, times, empty)]
    together = [sum(run.seconds for run in round_) for round_ in zip(*runs.values(), strict=True)]
    rows.append(Row("all these lessons: time", AGAINST, ratio(together, seconds_of(empty))))
    for ours, theirs in IMPORTS.items():
        rows.append(Row(f"`{ours}`", f"`{theirs}`", ratio(seconds[ours], seconds[theirs])))
    return Section("The lessons", rows, [growth(runs, empty)], notes(runs, empty))


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


def growth(runs: dict[str, list[Run]], empty: list[Run]) -> Growth:
    """The time from the start of the kernel to the first code cell's end, a quarter's, … all's."""
    costs = {}
    for name, times in runs.items():
        cells = len(times[0].elapsed)
        costs[f"lesson {name[:2]}"] = [
            (done, ratio([run.elapsed[done - 1] for run in times], seconds_of(empty)).median)
            for done in sorted({1, *(ceil(cells * quarter / 4) for quarter in (1, 2, 3, 4))})
        ]
    title = f"Time of a lesson so far, as a multiple of {AGAINST}"
    return Growth(title, "code cells that were run", costs)


def notes(runs: dict[str, list[Run]], empty: list[Run]) -> str:
    """How a lesson was run, and a table of seconds and megabytes."""
    lines = [
        "A lesson is Run All from a fresh kernel, which has one thread; its time begins with the",
        "start of the kernel, and is compared with that of a notebook whose only cell is",
        f"`{LIBRARIES}`. Of an import, it is the seconds of processor in a fresh",
        "Python, without the start of Python itself.",
        "",
        "On this machine (medians):",
        "",
        "| notebook | code cells | seconds | of processor | MB at the peak |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    costs = {
        name: (
            len(times[0].elapsed),
            median(seconds_of(times)),
            median(run.processor for run in times),
            median(run.megabytes for run in times),
        )
        for name, times in {"only the imports": empty, **runs}.items()
    }
    cells, seconds, processor, megabytes = zip(*(costs[name] for name in runs), strict=True)
    costs["all these lessons"] = sum(cells), sum(seconds), sum(processor), max(megabytes)
    return "\n".join(
        lines
        + [
            f"| {name} | {n} | {s:.1f} | {p:.1f} | {mb:.0f} |"
            for name, (n, s, p, mb) in costs.items()
        ]
    )
