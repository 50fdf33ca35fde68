"""What is tested when, and by whom; plots that are not seen; a real JupyterLab, and a browser."""

import os
from contextlib import ExitStack
from functools import cache

os.environ["OMP_NUM_THREADS"] = "1"  # of torch, here and below: two workers keep two cores busy

import pytest
import torch
from building import build_site, common, once, run_lesson

from normviz.picture import Picture
from normviz.plots import Plot
from tools import chromium as browsers
from tools.jupyter import jupyterlab

# What `make quick` leaves out: a browser, JupyterLab, Sphinx, a classroom, Binder, make, speed.
# One worker takes a file as a whole, and those first that take longest.
SLOW = [
    "test_site",
    "test_browser",
    "test_lessons",
    "test_classroom",
    "test_benchmarks",
    "test_make",
    "test_sheets",
    "test_binder",
    "test_newcomer",
    "test_traced",
    "test_sync_batch_norm",
    "test_workers",
    "test_lab_speed",
    "test_layer_speed",
    "test_picture_speed",
    "test_troubleshooting",
]


def pytest_xdist_auto_num_workers(config):
    """All tests are shared out; a part of them has ended before a worker has begun."""
    part = config.option.keyword or config.args_source is pytest.Config.ArgsSource.ARGS
    return 0 if part else min(os.cpu_count() + 1, 4)


def pytest_collection_modifyitems(items):
    """The slow ones have a mark, and come first."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker("slow")
    place = {stem: number for number, stem in enumerate(SLOW)}
    items.sort(key=lambda item: place.get(item.path.stem, len(SLOW)))


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
def ran(tmp_path_factory):
    """Name → that lesson, run, and what was told again."""
    folder = common(tmp_path_factory)
    return cache(lambda name: once(folder / f"{name}.ran", lambda: run_lesson(name)))


@pytest.fixture(scope="session")
def ran_lesson(ran):
    """Name → that lesson, run."""
    return lambda name: ran(name)[0]


@pytest.fixture(scope="session")
def site(tmp_path_factory, ran_lesson):
    """The folder of the site."""
    folder = common(tmp_path_factory) / "site"
    once(folder.with_suffix(".built"), lambda: build_site(folder, ran_lesson))
    return folder


@pytest.fixture(scope="module")
def chromium():
    """A browser for the rest of a file, where nothing else may have an event loop."""
    with ExitStack() as until_the_end:
        try:
            browser = until_the_end.enter_context(browsers.chromium())
        except (FileNotFoundError, ModuleNotFoundError):
            # Where all tests have to run, that is no excuse.
            (pytest.fail if os.environ.get("CI") else pytest.skip)("needs chromium and playwright")
        yield browser


@pytest.fixture
def seeded():
    """The same random numbers each time, and afterwards those that would have come."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
