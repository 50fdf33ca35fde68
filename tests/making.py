"""``make`` in a folder with the little that it needs, where no script installs anything."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from time import monotonic, sleep

import pytest

ROOT = Path(__file__).parents[1]
REAL = quote(sys.executable)

# The Python that make finds. It can do all but make an environment: that holds PYTHON alone.
PYTHON3 = f"""#!/bin/sh
{{python}}
case $2 in -c) exec {REAL} "$@";; esac
exec {REAL} -I scripts/python3.py "$@"
"""
PYTHON3_PY = """
import runpy, shutil, sys, venv

def create(folder, symlinks):
    (folder / "bin").mkdir()
    shutil.copy("scripts/python", folder / "bin")

venv.create = create
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# The Python of .venv: make's own program, pip's settings, pip, the proof, and whatever is run.
PYTHON = f"""#!/bin/sh
case "$*" in
*tools/environment.py*) exec {REAL} "$@";;
*ensurepip*) ;;
*"config list") {{settings}}
;;
*"-m pip"*) echo "$*" >> log; {{pip}}
;;
*import*) {{proof}}
;;
*) echo "$*" >> log; {{runs}}
;;
esac
"""


def furnish(folder, python="", settings="", pip="", proof="", runs=""):
    """Put everything into a folder; an argument is what a script does there, in sh.

    Args:
        folder: Where to.
        python: What python3 does before anything else; with None, there is no python3.
        settings: Prints the settings of pip.
        pip: Installs.
        proof: Imports what was installed.
        runs: Is JupyterLab, ruff or pytest.
    """
    if sys.platform == "win32":
        pytest.skip("make is for Linux and macOS")
    for name in ("Makefile", "tools/environment.py", "binder/overrides.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    (folder / "scripts").mkdir()
    (folder / "scripts/python3.py").write_text(PYTHON3_PY)
    scripts = {"python": PYTHON.format(settings=settings, pip=pip, proof=proof, runs=runs)}
    if python is not None:
        scripts["python3"] = PYTHON3.format(python=python)
    for name, text in scripts.items():
        (folder / "scripts" / name).write_text(text)
        (folder / "scripts" / name).chmod(0o755)


def start(folder, *arguments, **environment):
    """Start make in a furnished folder; what it says is in its ``stdout``."""
    program = shutil.which("make") or pytest.skip("needs make")
    outer = {
        name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFL"))
    }
    path = f"{folder / 'scripts'}:{os.environ['PATH']}"
    if not (folder / "scripts/python3").exists():
        path = "/nowhere"
    return subprocess.Popen(
        [program, "PYTHON=python3", *arguments],
        cwd=folder,
        env=outer | {"PATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,  # a signal for make is not for the tests
    )


def make(folder, *arguments, **environment):
    """What make says in a furnished folder."""
    return start(folder, *arguments, **environment).communicate(timeout=60)[0]


@contextmanager
def installing(folder):
    """A make that goes on installing until the end of the block."""
    furnish(folder, pip=": > begun; while [ ! -e go ]; do sleep 0.02; done")
    process = start(folder, "lab")
    wait_until((folder / "begun").exists)
    try:
        yield process
    finally:
        (folder / "go").touch()
        process.communicate(timeout=60)


def wait_until(happens):
    """Wait for something, though not for long."""
    until = monotonic() + 20
    while not happens():
        assert monotonic() < until
        sleep(0.01)
