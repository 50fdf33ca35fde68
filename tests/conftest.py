"""Plots that are not seen; a real JupyterLab, and a browser that works the lessons in it."""

import os
from contextlib import ExitStack
from functools import cache

import pytest

from normviz.picture import Picture
from normviz.plots import Plot
from tools import chromium as browsers
from tools.jupyter import jupyterlab, leave, run_all_cells, visit
from tools.notebooks import read

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
    """Modules with a browser come last: from its start on, nothing else has an event loop here."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker("slow")
    last = {item.path for item in items if item.get_closest_marker("browser")}
    items.sort(key=lambda item: item.path in last)


@pytest.fixture
def unseen(monkeypatch):
    """Plots are not written, which takes long; what is on their axes stays there to be read."""
    monkeypatch.setattr(Plot, "picture", lambda plot, text: Picture("", text))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """What a JupyterLab says about itself."""
    with jupyterlab(tmp_path_factory.mktemp("notebooks")) as about:
        yield about


@pytest.fixture(scope="session")
def chromium():
    """The browser of all tests; whoever opens a page closes it."""
    with ExitStack() as until_the_end:
        try:
            browser = until_the_end.enter_context(browsers.chromium())
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
    """Name → a new page with a copy of that lesson, its kernel ready, nothing run yet."""
    with ExitStack() as pages:

        def visit_lesson(name):
            page = chromium.new_page(viewport={"width": 1400, "height": 900})
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "console", lambda said: complaints.append(said.text) if said.type == "error" else 0
            )
            visit(page, server, read(name))
            pages.callback(leave, page)
            return page

        yield visit_lesson


@pytest.fixture(scope="module")
def open_lesson(visit_lesson):
    """Name → the page of that lesson, after Run All; always the same page."""

    @cache
    def open_lesson(name):
        page = visit_lesson(name)
        run_all_cells(page)
        return page

    return open_lesson
