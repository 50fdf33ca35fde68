"""Plots that are not seen; a real JupyterLab, and a browser that works the lessons in it."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from time import monotonic, sleep

import pytest
from sheets.paper import FLAGS

from normviz.picture import Picture
from normviz.plots import Plot

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SETTINGS = json.loads((NOTEBOOKS.parent / "binder/overrides.json").read_text(encoding="utf-8"))


@pytest.fixture
def unseen(monkeypatch):
    """Plots are not written, which takes long; what is on their axes stays there to be read."""
    monkeypatch.setattr(Plot, "picture", lambda plot, text: Picture("", text))


def read_all(paths):
    return "".join(path.read_text(encoding="utf-8") for path in paths)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a JupyterLab on copies of the notebooks, which keeps its files to itself."""
    home = tmp_path_factory.mktemp("jupyter")
    (home / "notebooks").mkdir()
    for path in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(path, home / "notebooks")
    for name, setting in SETTINGS.items():
        path = home / "settings" / f"{name.replace(':', '/')}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(setting))
    folders = {
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    options = "--no-browser --ip=127.0.0.1 --port=0 --allow-root --expose-app-in-browser"
    with (home / "log").open("w") as log:
        jupyter = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options.split()],
            cwd=home / "notebooks",
            env=os.environ
            | {"OMP_NUM_THREADS": "1"}  # torch's threads wait for each other on a busy machine
            | {name: str(home / folder) for name, folder in folders.items()},
            stdout=log,
            stderr=log,
        )
    try:
        until = monotonic() + 60
        while not (about := read_all((home / "runtime").glob("jpserver-*.json"))).endswith("}"):
            assert jupyter.poll() is None, (home / "log").read_text(encoding="utf-8")
            assert monotonic() < until, (home / "log").read_text(encoding="utf-8")
            sleep(0.1)
        yield json.loads(about)
    finally:
        jupyter.terminate()  # it ends its kernels first; they also notice if it is gone
        try:
            jupyter.wait(20)
        except subprocess.TimeoutExpired:
            jupyter.kill()
            jupyter.wait()


@pytest.fixture(scope="module")
def chromium():
    executable = shutil.which("chromium")
    if not (executable and sync_playwright):
        # Where all tests have to run, that is no excuse.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs chromium and playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def complaints():
    """What the pages wrote to their error consoles."""
    return []


@pytest.fixture(scope="module")
def visit_lesson(chromium, server, complaints):
    """Name → a new page with that lesson, its kernel ready, nothing run yet."""

    def visit_lesson(name):
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else 0)
        workspace = f"lab/workspaces/{name[:2]}/tree/{name}?token={server['token']}"
        page.goto(server["url"] + workspace)
        page.wait_for_function(
            "name => { const shown = window.jupyterapp?.shell.currentWidget;"
            " return shown?.context?.path === name"
            " && shown.sessionContext.session?.kernel?.status === 'idle' }",
            arg=name,
        )
        return page

    return visit_lesson


@pytest.fixture(scope="module")
def open_lesson(visit_lesson):
    """Name → the page of that lesson, after Run All; always the same page."""

    @cache
    def open_lesson(name):
        page = visit_lesson(name)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        wait_for_all_cells(page)
        return page

    return open_lesson


def wait_for_all_cells(page):
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.content.widgets"
        ".every(({ model }) => model.type !== 'code' || model.executionCount)"
    )
