"""What a page of the site costs: from a move of its recorded lab to paint, and its bytes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from gzip import compress
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.browser import ARM, FLOOR_NAME, TOOLS, TWO_FRAMES, p95
from benchmarks.compare import Row, Section, Spread, in_turns, ratio
from tools.chromium import chromium
from tools.jupyter import ROOT
from tools.notebooks import LESSONS

AIM, BYTES = 2, 600_000
LABEL = """() => {
    const box = document.createElement('p')
    box.innerHTML = '<input type=range max=10 value=5><output>5</output>'
    box.id = 'label'
    const [slider, label] = box.children
    slider.addEventListener('input', () => { label.value = slider.value })
    document.querySelector('.nv-lab').append(box)
}"""
NOTES = """\
Pages of `make site`, opened as files in Chromium without a window and without a graphics card. Each
slider of a lab, or each row of buttons where there is no slider, is moved on to its end, in turns
with a slider, added to the page, that sets a label. Time goes from the key press to the end of the
first frame that shows other words or another picture. The control that takes longest stands here. A
p95 is that of all rounds, as a multiple of the p95 of the label. Bytes are those of the page and of
its recording, compressed."""


def build(folder: Path, quick: bool) -> None:
    """The site: all lessons run, all labs recorded."""
    settings = ["-D", "recorded_states=2"] if quick else []
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-c", ROOT / "docs", *settings]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, ROOT, folder], check=True, env=one_thread)


@contextmanager
def opened(path: Path, browser) -> Iterator:
    """A page as it opens, scrolled to its lab, which has a label at its end."""
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.goto(path.as_uri())
    lab = page.locator("[data-recording]")
    lab.scroll_into_view_if_needed()
    lab.locator("[data-name]:visible").first.wait_for()
    page.evaluate(TOOLS)
    page.evaluate(LABEL)
    yield page
    page.close()


def movable_on(page) -> list:
    """The boxes of a lab that hold a slider; if none does, those that hold buttons."""
    boxes = page.locator(".nv-controls [data-name]:visible")
    sliders = boxes.filter(has=page.locator("[type=range]:enabled"))
    buttons = boxes.filter(has=page.locator("[type=radio]:enabled"))
    return (sliders if sliders.count() else buttons).all()


def costs(label: Iterator[float], move: Iterator[float], rounds: int) -> tuple[Spread, float]:
    """Of one control, in turns with the label: p50 and p95, as multiples of the label's."""
    took = in_turns({"floor": label.__next__, "move": move.__next__}, rounds)
    return ratio(took["move"], took["floor"]), p95(took["move"]) / p95(took["floor"])


def use(box, output: str) -> Iterator[float]:
    """By the arrow keys, to the right while there is something: of buttons, to the next one."""
    lab, moved = box.page.locator(".nv-lab"), box.locator("[type=range], :checked").first
    while True:
        key = "ArrowLeft" if moved.evaluate("it => it.value === it.max") else "ArrowRight"
        moved.focus()
        box.page.evaluate(TWO_FRAMES)
        lab.evaluate(ARM, output)
        box.page.keyboard.press(key)
        yield box.page.evaluate("window.took")


def rows_of(path: Path, browser, rounds: int) -> list[Row]:
    """Of one lesson; each control is moved on a fresh page, as others decide what it changes."""
    with opened(path, browser) as page:
        count = len(movable_on(page))
        recording = page.locator("[data-recording]").get_attribute("data-recording")
    measured = []
    for nth in range(count):
        with opened(path, browser) as page:
            label = use(page.locator("#label"), "output")
            move = use(movable_on(page)[nth], ".nv-words, .nv-body")
            measured.append(costs(label, move, rounds))
    p50, cost = max(measured, key=lambda one: one[0].median)
    name = path.stem.replace("_", " ")
    files = path, path.parents[1] / f"_static/labs/{recording}.js"
    size = sum(len(compress(file.read_bytes())) for file in files)
    return [
        Row(f"{name}: p50", FLOOR_NAME, p50, AIM),
        Row(f"{name}: p95", FLOOR_NAME, Spread(cost, cost, cost), AIM),
        Row(f"{name}: bytes", "–", Spread(size, size, size), BYTES, unit="bytes"),
    ]


def measure(*, quick: bool = False) -> Section:
    """Move to paint, and bytes, of each lesson with a lab."""
    with TemporaryDirectory() as folder, chromium() as browser:
        build(Path(folder), quick)
        pages = [Path(folder, "notebooks", name).with_suffix(".html") for name in LESSONS[1:]]
        rows = [row for path in pages for row in rows_of(path, browser, 3 if quick else 12)]
    return Section("The site", rows, NOTES)
