"""What a reader waits for: from a key press to the picture on the screen, in JupyterLab.

Every move is measured in turns with one of a slider that sets nothing but a label: no lab could be
faster than that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from operator import attrgetter
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

from nbformat.v4 import new_code_cell, new_notebook

from benchmarks.compare import Row, Section, Spread, in_turns, ratio
from tools.chromium import chromium
from tools.jupyter import ROOT, jupyterlab, leave, run_all_cells, visit

FRAME = 1000 / 60  # milliseconds
PICTURE, PLOT = 2, 3  # aims
LABEL = """\
slider, label = widgets.IntSlider(5), widgets.Label()
slider.observe(lambda change: label.set_trait("value", f"value {change.new}"), "value")
widgets.VBox([slider, label])"""
# What people write instead of a lab, with the same numbers on the same axes.
INTERACT_BESSEL = """\
samples = np.random.default_rng(0).normal(size=(2000, 30))
@widgets.interact(m=widgets.IntSlider(5, 2, 30))
def show(m):
    figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.4))
    for one, name, ddof in zip(axes, ("biased", "unbiased"), (0, 1)):
        variances = samples[:, :m].var(axis=1, ddof=ddof)
        one.hist(variances, bins=40, alpha=0.7)
        one.axvline(variances.mean(), color="black", ls="--", label="mean of them")
        one.axvline(1, color="black", ls=":", label="truth")
        one.set(title=name, xlabel="variance of a sample")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower left", ncols=2)
    plt.show()"""
INTERACT_MOMENTUM = """\
data = 3 + 2 * torch.randn(60, 8, 1, generator=torch.Generator().manual_seed(0))
@widgets.interact(batches=widgets.IntSlider(30, 0, 60))
def show(batches):
    layer, seen, weights = torch.nn.BatchNorm1d(1), [(0, 1)], 0.1 * 0.9 ** np.arange(batches)
    for x in data[:batches]:
        layer(x)
        seen.append((layer.running_mean.item(), layer.running_var.item()))
    figure, axes = plt.subplots(1, 3, figsize=(9.4, 3.4))
    each = data[:batches].mean((1, 2)), data[:batches].var((1, 2))
    for i, (name, truth) in enumerate({"mean": 3, "var": 4}.items()):
        one, running = axes[i], [pair[i] for pair in seen]
        one.plot(running, label="running")
        one.plot([truth] * len(running), "--", label="truth")
        one.plot(range(1, batches + 1), each[i], "o", color="grey", ms=4, label="each batch")
        one.set(title=f"running_{name}", xlabel="batches seen")
    axes[2].bar(range(batches + 1), [0.9**batches, *weights[::-1]])
    axes[2].set(title="weight of each batch", xlabel="batch")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower left", ncols=3)
    plt.show()"""
BY_MATPLOTLIB = """\
slider, image = widgets.IntSlider(3, 1, 8), widgets.Image()
numbers = np.random.default_rng(0).integers(-9, 10, (8, 3, 2, 2)).astype(np.float32)
def draw(change=None):
    image.value = draw_with_matplotlib(numbers[:slider.value])
slider.observe(draw, "value")
draw()
widgets.VBox([slider, image])"""
IMPORTS = f"""\
import sys
import ipywidgets as widgets, matplotlib.pyplot as plt, numpy as np, torch
from normviz import draw_slices, labs
sys.path.append({str(ROOT)!r})
from benchmarks.pictures import draw_with_matplotlib"""
# Arms a box: when a control is used next, `window.took` becomes the milliseconds until the first
# frame with another output in the box was painted, counted from when the browser got the key.
ARM = """(box, output) => promise(resolve => {
    let start
    const used = event => { start ??= event.timeStamp }
    for (const kind of ['keydown', 'click'])
        document.addEventListener(kind, used, { capture: true, once: true })
    const observer = new MutationObserver(async changes => {
        const shown = [...box.querySelectorAll(output)]
        const isNew = ({ target, addedNodes }) => shown.some(one =>
            one.contains(target) || [...addedNodes].some(node => node.contains(one)))
        if (start === undefined || !changes.some(isNew)) return
        observer.disconnect()
        await shown.at(-1).decode?.()  // an image
        requestAnimationFrame(() => afterPaint(() => resolve(performance.now() - start)))
    })
    observer.observe(box, { subtree: true, childList: true, attributes: true, characterData: true })
})"""
# The same for a pointer, counted from when the page hears of it: until one slice alone is lit.
ARM_POINTER = """([number, nth]) => {
    const cell = document.querySelectorAll('.jp-CodeCell')[number]
    const slices = [...cell.querySelectorAll('.nv-slice')]
    const lit = slice => getComputedStyle(slice).opacity === '1'
    const done = () => slices.every((slice, i) => lit(slice) === (i === nth))
    promise(resolve => document.addEventListener('pointermove', () => {
        const start = performance.now()
        const look = () => done() ? afterPaint(() => resolve(performance.now() - start))
            : requestAnimationFrame(look)
        requestAnimationFrame(look)
    }, { capture: true, once: true }))
}"""
TOOLS = """() => {
    // Within a frame: call when it is painted, before which no message is read.
    window.afterPaint = call => {
        const { port1, port2 } = new MessageChannel()
        port1.onmessage = call
        port2.postMessage(0)
    }
    window.promise = work => {
        window.took = new Promise((resolve, reject) => {
            work(resolve)
            setTimeout(() => reject(new Error('nothing has changed')), 10_000)
        })
    }
}"""
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@dataclass(frozen=True)
class Move:
    """A control that is moved to and fro.

    Attributes:
        cell: The code that makes the control and what it changes.
        control: The name of a slider, "" for the only one; or those of two buttons.
        output: A CSS selector of what it changes.
    """

    cell: str
    control: str | tuple[str, str] = ""
    output: str = ".widget-html-content:has(svg)"


def controls(cell: str, *names: str | tuple[str, str]) -> list[Move]:
    """All controls of a lab that paint."""
    return [Move(cell, name) for name in names]


FLOOR_NAME = "a slider that sets a label"
FLOOR = Move(LABEL, output=".widget-label")
MODE = ("eval", "train")
SHAPE = ("n, samples", "c, channels", "h, rows", "w, columns")
SHOWN, BY = ("output", "input"), ("weight", "statistic")
TRACKED, GIVEN = ("False", "True"), ("set afterwards", "given to the constructor")
OF_RELATIVES = (*SHAPE, "outlier's n", "outlier's c", "outlier's h", "outlier's w", "outlier: plus")
CHANGED = ("output", "change")
DETACHED = ("detached", "in the gradient")
OF_DETECTIVE = ("n, sample", "c, channel", "h, row", "w, column", "plus")
DONE = ("times 3", "move one number")
OF_WORKERS = ("workers", "samples in all", "drift from one to the next")
PARTS, SYNC = ("last one smaller", "equal"), ("on", "off")
OF_MOMENTUM = ("slide momentum", "batches", "batch size", "drift")
RIVALS = {
    "`interact` and `plt.show`, plots as in Bessel": INTERACT_BESSEL,
    "`interact` and `plt.show`, plots as in momentum": INTERACT_MOMENTUM,
    "a table by matplotlib, numbers as in shape": BY_MATPLOTLIB,
}
# Lab or rival → how often a label it may take, and its controls.
WAYS: dict[str, tuple[float | None, list[Move]]] = {
    "shape lab": (PICTURE, controls("labs.shape_lab()", *SHAPE, SHOWN, BY)),
    "modes lab": (PICTURE, controls("labs.modes_lab(training=False)", MODE[::-1], TRACKED, GIVEN)),
    "momentum lab": (2.5, controls("labs.momentum_lab()", *OF_MOMENTUM, MODE)),
    "Bessel lab": (PLOT, controls("labs.bessel_lab()", "m, numbers in a sample", "samples")),
    "linearity lab": (PLOT, controls("labs.linearity_lab()", "a", "b", "ε", MODE)),
    "gradient lab": (2.5, controls("labs.gradient_lab(eps=0.1)", "weight γ", "ε", MODE, DETACHED)),
    "relatives lab": (PICTURE, controls("labs.relatives_lab()", *OF_RELATIVES, MODE, CHANGED)),
    "detective lab": (
        PICTURE,
        controls("labs.detective_lab()", *OF_DETECTIVE, ("B", "A"), DONE, MODE, CHANGED),
    ),
    "workers lab": (2.5, controls("labs.workers_lab()", *OF_WORKERS, PARTS, SYNC)),
    **{name: (None, [Move(cell, output="img")]) for name, cell in RIVALS.items()},
}
DRAW = "draw_slices(np.random.default_rng(0).standard_normal({}, np.float32), 'n c h w -> c')"
PICTURES = {shape: Move(DRAW.format(shape)) for shape in ((3, 3, 2, 2), (64, 256, 56, 56))}
NOTES = """\
Measured in JupyterLab, in Chromium without a window and without a graphics card: a notebook for
each lab, and each move in turns with one of a slider whose callback sets a label. Time goes from
the key press (of an arrow on the handle of a slider, or a click on a button) to the end of the
first frame that shows the changed output: for a lab its picture, for `interact` and matplotlib
their decoded image. A p95 is that of all rounds, as a multiple of the p95 of the label. Frames come
every 16.7 ms, so that times go in such steps; the label often takes a frame or two more than at
best, which widens all spreads. Every control of a lab is measured, and the one that takes longest
stands here.

From pointer to paint, time goes from when the page is told of the movement until the frame in which
another slice alone is lit is painted."""


class Notebook:
    """A notebook in a browser, its cells made from moves.

    Args:
        page: Of playwright's, with the notebook after Run All.
        moves: A cell each, below the one that imports.
    """

    def __init__(self, page, moves: list[Move]):
        self.page = page
        self.moves = moves
        page.evaluate(TOOLS)

    def use(self, move: Move) -> Iterator[float]:
        """To and fro: the milliseconds from a key press or a click to a frame with another output.

        A slider goes right and left by a key; two buttons are clicked one after the other.
        """
        number = self.moves.index(move) + 1
        cell = self.page.locator(".jp-CodeCell").nth(number)
        for way in cycle((0, 1)):
            if is_slider := isinstance(move.control, str):
                cell.get_by_role("slider", name=move.control or None, exact=True).focus()
            else:
                cell.get_by_role("button", name=move.control[way], exact=True).hover()
            self.page.evaluate(TWO_FRAMES)  # the notebook may have scrolled
            cell.evaluate(ARM, move.output)
            if is_slider:
                self.page.keyboard.press(("ArrowRight", "ArrowLeft")[way])
            else:
                self.page.mouse.down()
                self.page.mouse.up()
            yield self.page.evaluate("window.took")

    def point(self, move: Move) -> Iterator[float]:
        """Slice by slice: the milliseconds from a movement of the pointer until it alone is lit."""
        number = self.moves.index(move) + 1
        slices = self.page.locator(".jp-CodeCell").nth(number).locator(".nv-slice")
        for nth in cycle(range(slices.count())):
            cell = slices.nth(nth).locator(".nv-cell:not(.nv-lit)").first
            cell.scroll_into_view_if_needed()
            box = cell.bounding_box()
            self.page.evaluate(TWO_FRAMES)
            self.page.evaluate(ARM_POINTER, [number, nth])
            self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            yield self.page.evaluate("window.took")


@contextmanager
def opened(browser, server: dict, moves: list[Move]) -> Iterator[Notebook]:
    """A notebook with a cell for each move, all run, on a new page of a browser.

    Args:
        browser: Of playwright's.
        server: What a JupyterLab says about itself; the notebook is written to its folder.
        moves: To be measured.
    """
    cells = [new_code_cell(code) for code in (IMPORTS, *(move.cell for move in moves))]
    kernel = {"name": "python3", "display_name": "Python 3"}  # or a dialog asks for one
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    visit(page, server, new_notebook(cells=cells, metadata={"kernelspec": kernel}))
    run_all_cells(page)
    yield Notebook(page, moves)
    leave(page)


def measure(*, quick: bool = False) -> Section:
    """Slider to paint for every lab and its rivals, each in a notebook of its own, and pointer."""
    pictures, rounds = PICTURES, 3 if quick else 20
    if quick:
        pictures = dict([*pictures.items()][:1])
    rows = []
    with TemporaryDirectory() as folder, jupyterlab(Path(folder)) as server, chromium() as browser:
        for name, (aim, moves) in WAYS.items():
            with opened(browser, server, [FLOOR, *moves[: 1 if quick else None]]) as notebook:
                rows += slider_rows(notebook, name, aim, rounds)
        with opened(browser, server, [*pictures.values()]) as notebook:
            rows += pointer_rows(notebook, pictures, rounds=4 if quick else 60)
    return Section("In the browser", rows, NOTES)


def slider_rows(notebook: Notebook, name: str, aim: float | None, rounds: int) -> list[Row]:
    """The slowest control of a lab, or of a rival, as multiples of the label; p50, p95."""
    took = in_turns({move: notebook.use(move).__next__ for move in notebook.moves}, rounds)
    floor = took.pop(FLOOR)
    p50 = max((ratio(times, floor) for times in took.values()), key=attrgetter("median"))
    cost = max(map(p95, took.values())) / p95(floor)
    return [
        Row(f"{name}: p50", FLOOR_NAME, p50, aim),
        Row(f"{name}: p95", FLOOR_NAME, Spread(cost, cost, cost), aim),
    ]


def pointer_rows(notebook: Notebook, pictures: dict, rounds: int) -> list[Row]:
    """From pointer to paint, in frames; p50 and p95."""
    rows, frame = [], "a frame of 60 Hz"
    for shape, move in pictures.items():
        frames = [took / FRAME for took in islice(notebook.point(move), 2, rounds + 2)]
        what, slowest = f"pointer to paint, {shape}", p95(frames)
        rows.append(Row(f"{what}: p50", frame, Spread.of(frames), unit="frames"))
        spread = Spread(slowest, slowest, slowest)
        rows.append(Row(f"{what}: p95", frame, spread, aim=1, unit="frames"))
    return rows


def p95(times: list[float]) -> float:
    """What 95 % of at least two measurements do not exceed.

    >>> p95([*range(1, 101)])
    95.05
    """
    return quantiles(times, n=20, method="inclusive")[-1]
