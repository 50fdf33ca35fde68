"""A JupyterHub on this machine: started, measured, and ended without a trace."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import psutil
from jupyterhub.utils import random_port

from classroom.student import PASSWORD, Student

CONFIG = Path(__file__).with_name("jupyterhub_config.py")
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
UIDS = range(60578, 61184)  # systemd leaves them unused: systemd.io/UIDS-GIDS


@contextmanager
def open_hub(lessons: list[str], own_uids: bool, log: str) -> Iterator[list[Student]]:
    """Run a Hub, with a student for each lesson; at the end, nothing but the log is left."""
    with TemporaryDirectory(prefix="classroom-") as path:
        folder, url = Path(path), f"http://127.0.0.1:{random_port()}"
        folder.chmod(0o711)  # a student passes through to the home, but sees no other
        students = []
        for lesson, uid in zip(lessons, UIDS, strict=False):
            home = folder / f"student-{len(students) + 1:02}"
            home.mkdir(0o700)
            shutil.copytree(NOTEBOOKS, home / "notebooks")
            for file in (home, *home.rglob("*")) if own_uids else ():
                os.chown(file, uid, uid)
            students.append(Student(home.name, lesson, home, url))
        home = folder / "hub"
        home.mkdir(0o700)
        command = [sys.executable, "-m", "jupyterhub", "--config", CONFIG, "--url", url]
        env = os.environ | {"HOME": str(home), "CLASSROOM_PASSWORD": PASSWORD}
        apart = {"cwd": home, "env": env, "start_new_session": True}  # Ctrl-C is not for the Hub
        try:
            with (home / "log").open("w") as output:
                hub = subprocess.Popen(command, stdout=output, stderr=output, **apart)
            until = monotonic() + 120
            while "JupyterHub is now running" not in (said := (home / "log").read_text()):
                if hub.poll() is not None or monotonic() > until:
                    raise SystemExit(f"The Hub did not start.\n{said}")
                sleep(0.2)
            yield students
        finally:
            while left := [process for process, *_ in processes(folder)]:
                for process in left:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
            shutil.copyfile(home / "log", log)
            hub.wait()


def can_change_user() -> bool:
    """Whether servers can run under a user id each: if root asks, and all may run this Python."""
    program = [sys.executable, "-c", "import jupyterhub, normviz"]
    other = {"user": UIDS[-1], "group": UIDS[-1], "extra_groups": [], "cwd": "/"}
    with suppress(PermissionError):
        return subprocess.run(program, **other, capture_output=True).returncode == 0
    return False


def processes(folder: Path) -> Iterator[tuple[psutil.Process, str, str]]:
    """Every process whose home lies in a folder, with its owner and its role."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is not ours
            home, command = Path(process.environ().get("HOME", "/")), str(process.cmdline())
            if home.parent == folder:
                ours = "proxy" if "configurable-http-proxy" in command else "hub"
                theirs = "kernel" if "ipykernel_launcher" in command else "server"
                yield process, home.name, ours if home.name == "hub" else theirs


def usage(folder: Path) -> Counter[tuple[str, str]]:
    """MiB of memory by (owner, role), and by all; seconds by (owner, "processor")."""
    used = Counter()
    for process, owner, role in processes(folder):
        with suppress(psutil.Error):
            times, memory = process.cpu_times(), process.memory_full_info().pss / 2**20
            used[owner, role] += memory  # what processes share is divided among them
            used["all", "together"] += memory
            used[owner, "processor"] += times.user + times.system
    return used
