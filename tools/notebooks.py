"""Run All from a fresh kernel: what a lesson leaves, and what it takes."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from traitlets.config import Config

FOLDER = Path(__file__).parents[1] / "notebooks"
LESSONS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
WINDOWS = sys.platform == "win32"  # which has no such sockets
# Not ru_maxrss: that starts at the size of the process which launched this one. And time of the
# processor, which does not depend on what else the machine is doing.
COST = """from pathlib import Path
from time import process_time
status = Path("/proc/self/status")
print(status.read_text().split("VmHWM:")[1].split()[0] if status.exists() else 0, process_time())"""


@dataclass(frozen=True)
class Run:
    """What Run All leaves, and what it took.

    Attributes:
        notebook: With its outputs, and with the state of its widgets.
        log: What the kernel wrote to stderr.
        seconds: From the start of the kernel to the end of the last code cell.
        processor: The seconds of processor that the kernel took.
        megabytes: The most memory that the kernel had; 0 on a system that does not tell.
    """

    notebook: NotebookNode
    log: str
    seconds: float
    processor: float
    megabytes: float


def read(name: str) -> NotebookNode:
    """A lesson as it is committed."""
    return nbformat.read(FOLDER / name, as_version=4)


def run(*cells: NotebookNode, patience: int = 120) -> Run:
    """Run All, from a fresh kernel with one thread, as on a small machine; errors do not end it.

    Args:
        cells: Of a notebook.
        patience: Seconds that a cell may take. Beside an Output, nbclient may miss the end of a
            cell: then it takes all of them.
    """
    notebook = new_notebook(cells=[*cells, new_code_cell(COST)])
    noted = []

    def note(**_):  # the log while the kernel lives: now and then, libzmq aborts at its end
        noted.append((perf_counter() - start, log.read_text(encoding="utf-8")))

    with TemporaryDirectory() as folder:
        # By default, a kernel is open to the network, and warns of it on stderr.
        sockets = {} if WINDOWS else {"transport": "ipc", "ip": f"{folder}/socket"}
        log = Path(folder, "log")
        client = NotebookClient(
            notebook,
            timeout=patience,
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
    (seconds, _), (_, said) = noted[-2:]  # after the last cell, and after that of the cost
    told = "".join(output.text for output in notebook.cells.pop().outputs)  # in pieces, if need be
    kilobytes, processor = told.split()
    return Run(notebook, said, seconds, float(processor), int(kilobytes) / 1000)
