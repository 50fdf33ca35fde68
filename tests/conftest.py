"""Plots that are not seen; a real JupyterLab, and a browser that works the lessons in it."""

import os
import shutil
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from benchmarks import jupyter
from benchmarks.jupyter import run_all_cells, visit, wait_for_all_cells
from normviz.picture import Picture
from normviz.plots import Plot

__all__ = ["wait_for_all_cells"]

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

# What `make quick` leaves out: a browser, JupyterLab, Sphinx, a classroom, Binder, make, speed.
SLOW = {
    "test_benchmarks",
    "test_binder",
    "test_browser",
    "test_classroom",
    "test_lab_speed",
    "test_layer_speed",
    "test_make",
    "test_notebooks",
    "test_picture_speed",
    "test_sheets",
    "test_site",
    "test_troubleshooting",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker("slow")


@pytest.fixture
def unseen(monkeypatch):
    """Plots are not written, which takes long; what is on their axes stays there to be read."""
    monkeypatch.setattr(Plot, "picture", lambda plot, text: Picture("", text))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a JupyterLab on copies of the notebooks."""
    folder = tmp_path_factory.mktemp("notebooks")
    for path in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(path, folder)
    with jupyter.jupyterlab(folder) as about:
        yield about


@pytest.fixture(scope="module")
def chromium():
    with ExitStack() as until_the_end:
        try:
            browser = until_the_end.enter_context(jupyter.chromium())
        except (FileNotFoundError, ModuleNotFoundError):
            # Where all tests have to run, that is no excuse.
            (pytest.fail if os.environ.get("CI") else pytest.skip)("needs chromium and playwright")
        yield browser


@pytest.fixture(scope="module")
def complaints():
    """What the pages wrote to their error consoles."""
    return []


@pytest.fixture(scope="module")
def visit_lesson(chromium, server, complaints):
    """Name → a new page with that lesson, its kernel ready, nothing run yet."""

    def visit_lesson(name):
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else 0)
        visit(page, server, name)
        return page

    return visit_lesson


@pytest.fixture(scope="module")
def open_lesson(visit_lesson):
    """Name → the page of that lesson, after Run All; always the same page."""

    @cache
    def open_lesson(name):
        page = visit_lesson(name)
        run_all_cells(page)
        return page

    return open_lesson
