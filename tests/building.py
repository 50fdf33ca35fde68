"""Lessons that were run, and the site of them: once, for all workers that test at a time."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

from tools.notebooks import LESSONS, Run, read, run

ROOT = Path(__file__).parents[1]


def common(tmp_path_factory) -> Path:
    """A folder that all workers have."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def once(path: Path, make: Callable):
    """What ``make`` gives to the first worker that asks; another one waits until it is there."""
    with path.with_suffix(".lock").open("w") as lock:
        with suppress(ImportError):  # where there is one worker
            from fcntl import LOCK_EX, flock

            flock(lock, LOCK_EX)
        if not path.exists():
            path.write_bytes(pickle.dumps(make()))
        return pickle.loads(path.read_bytes())


def run_lesson(name: str) -> tuple[Run, list]:
    """A lesson, run; and then its cells that tell what was to be predicted, once more."""
    cells = read(name).cells
    telling = [cell for cell in cells if cell.metadata.get("tags") == ["hide-output"]]
    ran = run(*cells, *[new_code_cell(cell.source) for cell in telling])
    both = ran.notebook.cells
    ran.notebook.cells = both[: len(cells)]
    return ran, both[len(cells) :]


def build_site(folder: Path, ran_lesson: Callable) -> None:
    """The site, of lessons that were run already; a warning is an error."""
    sources = folder.with_name("sources")
    shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(".*", "_build"))
    for name in LESSONS:
        lesson = read(name)
        lesson.cells = ran_lesson(name).notebook.cells
        nbformat.write(lesson, sources / "notebooks" / name)
    quick = ["-D", "nb_execution_mode=off", "-D", "recorded_states=1"]
    build(*quick, "-W", "--keep-going", sources, folder).check_returncode()


def build(*arguments):
    command = [sys.executable, "-m", "sphinx", "-q", "-c", ROOT / "docs", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8")
