"""A real JupyterLab on a folder, and what a page of a browser does in it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
SETTINGS = json.loads((ROOT / "binder/overrides.json").read_text(encoding="utf-8"))
OPTIONS = "--no-browser --ip=127.0.0.1 --port=0 --allow-root --expose-app-in-browser"
OPTIONS += " --JupyterNotebookApp.expose_app_in_browser=True"
LAB, NOTEBOOK = "lab/workspaces/{0}/tree/{0}.ipynb", "notebooks/{0}.ipynb"  # addresses of the two
FOLDERS = {
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
}
IDLE = """name => {
    const shown = window.jupyterapp?.shell.currentWidget
    return shown?.context?.path === name && shown.sessionContext.session?.kernel?.status === 'idle'
}"""
ALL_RUN = """() => window.jupyterapp.shell.currentWidget.content.widgets.every(
    ({ model }) => model.type !== 'code' || model.executionCount)"""


@contextmanager
def jupyterlab(folder: Path) -> Iterator[dict]:
    """A JupyterLab on a folder, which keeps its own files elsewhere.

    Args:
        folder: Of notebooks.

    Yields:
        What the server says about itself: its ``url``, its ``token`` and its ``root_dir``.

    Raises:
        RuntimeError: with what it wrote, if it does not start.
    """
    with TemporaryDirectory() as temporary:
        home = Path(temporary)
        for name, setting in SETTINGS.items():
            path = home / "settings" / f"{name.replace(':', '/')}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(setting))
        with (home / "log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *OPTIONS.split()],
                cwd=folder,
                env=os.environ
                | {"OMP_NUM_THREADS": "1"}  # torch's threads wait for each other on a busy machine
                | {variable: str(home / name) for variable, name in FOLDERS.items()},
                stdout=log,
                stderr=log,
            )
        try:
            yield json.loads(_about(home, lambda: server.poll() is None))
        finally:
            server.terminate()  # it ends its kernels first; they also notice if it is gone
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _about(home: Path, lives: Callable[[], bool], patience: float = 60) -> str:
    """What the server writes about itself when it is ready."""
    until = monotonic() + patience
    while True:
        about = "".join(map(_read, (home / "runtime").glob("jpserver-*.json")))
        if about.endswith("}"):
            return about
        if not lives() or monotonic() > until:
            raise RuntimeError(f"JupyterLab did not start:\n{_read(home / 'log')}")
        sleep(0.1)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def visit(page, server: dict, notebook: NotebookNode, where: str = LAB) -> None:
    """Open a notebook, as a new file, and wait until its kernel is ready; nothing has run yet.

    Args:
        page: Of playwright's.
        server: What a JupyterLab says about itself; the notebook is written to its folder.
        notebook: With a kernelspec, or a dialog asks for one.
        where: In JupyterLab, or in Notebook 7 if that is installed.
    """
    folder = Path(server["root_dir"])
    number = len([*folder.glob("*.ipynb")])
    name = f"{number}.ipynb"
    nbformat.write(notebook, folder / name)
    page.set_default_timeout(60_000)
    page.goto(f"{server['url']}{where.format(number)}?token={server['token']}")
    page.wait_for_function(IDLE, arg=name)


def leave(page) -> None:
    """End the kernel of the notebook on a page, and close the page."""
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()


def run_all_cells(page) -> None:
    """Choose *Run All Cells* from the menu, and wait."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    wait_for_all_cells(page)


def wait_for_all_cells(page) -> None:
    """Wait until each code cell has run."""
    page.wait_for_function(ALL_RUN)
