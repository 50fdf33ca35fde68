"""What a reader waits for: from a key press to the picture on the screen, in JupyterLab.

Every move is measured in turns with one of a slider that sets nothing but a label: no lab could be
faster than that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks.compare import Growth, Row, Section, Spread, ratio
from benchmarks.jupyter import ROOT, chromium, jupyterlab, run_all_cells, visit

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
# Arms a page: when a control of a cell is used next, `window.took` becomes the milliseconds until
# the first frame with another output was painted, counted from when the browser got the key.
ARM = """([number, output]) => {
    const cell = document.querySelectorAll('.jp-CodeCell')[number]
    const last = () => [...cell.querySelectorAll(output)].at(-1)
    const shown = () => last()?.src ?? last()?.firstChild
    const before = shown()
    promise(resolve => {
        let start
        const used = event => { start ??= event.timeStamp }
        for (const kind of ['keydown', 'click'])
            document.addEventListener(kind, used, { capture: true, once: true })
        const observer = new MutationObserver(async () => {
            if (start === undefined || !shown() || shown() === before) return
            observer.disconnect()
            await last().decode?.()  // an image
            requestAnimationFrame(() => afterPaint(() => resolve(performance.now() - start)))
        })
        observer.observe(cell, { subtree: true, childList: true, attributes: true })
    })
}"""
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
    output: str = ".widget-html-content"


FLOOR_NAME = "a slider that sets a label"
FLOOR = Move(LABEL, output=".widget-label")
OTHERS = {
    "`interact` and `plt.show`, plots as in Bessel": Move(INTERACT_BESSEL, output="img"),
    "`interact` and `plt.show`, plots as in momentum": Move(INTERACT_MOMENTUM, output="img"),
    "a table by matplotlib, numbers as in shape": Move(BY_MATPLOTLIB, output="img"),
}
MODE = ("eval", "train")
# Lab → how often a label it may take, its cell, and all its controls that paint.
LABS: dict[str, tuple[float, str, list[str | tuple[str, str]]]] = {
    "shape": (
        PICTURE,
        "labs.shape_lab()",
        [
            *("n, samples", "c, channels", "h, rows", "w, columns"),
            ("output", "input"),
            ("weight", "statistic"),
        ],
    ),
    "modes": (
        PICTURE,
        "labs.modes_lab(training=False)",
        [("train", "eval"), ("False", "True"), ("set afterwards", "given to the constructor")],
    ),
    "momentum": (
        PLOT,
        "labs.momentum_lab()",
        ["slide momentum", "batches", "batch size", "drift", MODE],
    ),
    "Bessel": (PLOT, "labs.bessel_lab()", ["m, numbers in a sample", "samples"]),
    "linearity": (PLOT, "labs.linearity_lab()", ["α", "β", "ε", MODE]),
}


# What grows → along what, and for each size a cell and the slider to move.
GROWTHS = {
    "shape": (
        "numbers in x",
        "n, samples",
        {
            n * size**3: f"lab = labs.shape_lab(); lab.shape.value = {(n, size, size, size)}; lab"
            for n, size in ((2, 2), (3, 4), (5, 6), (7, 8))
        },
    ),
    "momentum": (
        "batches",
        "batches",
        {k: f"labs.momentum_lab(batches={k})" for k in (5, 15, 30, 59)},
    ),
    "Bessel": (
        "samples",
        "m, numbers in a sample",
        {k: f"labs.bessel_lab(draws={k})" for k in (10, 100, 1000, 10_000)},
    ),
}
POINTED_AT = ((3, 3, 2, 2), (64, 256, 56, 56))
NOTES = """\
Measured in JupyterLab, in Chromium without a window and without a graphics card, each move in turns
with one of a slider whose callback sets a label. Time goes from the key press (of an arrow on the
handle of a slider, or a click on a button) to the end of the first frame that shows the changed
output: for a lab its picture, for `interact` and matplotlib their decoded image. A p95 is that of
all rounds, as a multiple of the p95 of the label. Frames come every 16.7 ms, so that times go in
such steps; the label often takes a frame or two more than at best, which widens all spreads.

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

    def time(self, move: Move, *, back: bool = False) -> float:
        """The milliseconds from a key press or a click to the frame with another output."""
        number = self.moves.index(move) + 1
        cell = self.page.locator(".jp-CodeCell").nth(number)
        if is_slider := isinstance(move.control, str):
            cell.get_by_role("slider", name=move.control or None, exact=True).focus()
        else:
            cell.get_by_role("button", name=move.control[back], exact=True).hover()
        self.page.evaluate(TWO_FRAMES)  # the notebook may have scrolled
        self.page.evaluate(ARM, [number, move.output])
        if is_slider:
            self.page.keyboard.press("ArrowLeft" if back else "ArrowRight")
        else:
            self.page.mouse.down()
            self.page.mouse.up()
        return self.page.evaluate("window.took")

    def time_in_turns(self, moves: dict[str, Move], rounds: int) -> dict[str, list[float]]:
        """The same for several moves, each once to or fro in every round, after two warm ones."""
        took = {name: [] for name in moves}
        for round_ in range(rounds + 2):
            for name, move in moves.items():
                took[name].append(self.time(move, back=bool(round_ % 2)))
        return {name: times[2:] for name, times in took.items()}

    def time_pointer(self, move: Move, rounds: int) -> list[float]:
        """The milliseconds from a movement of the pointer to the frame with another slice lit."""
        number, took = self.moves.index(move) + 1, []
        slices = self.page.locator(".jp-CodeCell").nth(number).locator(".nv-slice")
        for round_ in range(rounds + 2):
            nth = round_ % slices.count()
            cell = slices.nth(nth).locator(".nv-cell:not(.nv-lit)").first
            cell.scroll_into_view_if_needed()
            box = cell.bounding_box()
            self.page.evaluate(TWO_FRAMES)
            self.page.evaluate(ARM_POINTER, [number, nth])
            self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            took.append(self.page.evaluate("window.took"))
        return took[2:]


Opens = Callable[[list[Move]], Notebook]


def open_notebook(browser, server: dict, moves: list[Move]) -> Notebook:
    """A notebook with a cell for each move, all run, on a new page of a browser.

    Args:
        browser: Of playwright's.
        server: What a JupyterLab says about itself; the notebook is written to its folder.
        moves: To be measured.
    """
    folder = Path(server["root_dir"])
    name = f"{len([*folder.glob('*.ipynb')]):02}_moves.ipynb"
    cells = [new_code_cell(code) for code in (IMPORTS, *(move.cell for move in moves))]
    kernel = {"name": "python3", "display_name": "Python 3"}  # or a dialog asks for one
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / name)
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    visit(page, server, name)
    run_all_cells(page)
    return Notebook(page, moves)


def measure(*, quick: bool = False) -> Section:
    """Slider to paint for every lab and its rivals, pointer to paint, and how the first grows."""
    with TemporaryDirectory() as folder, jupyterlab(Path(folder)) as server, chromium() as browser:
        opens = partial(open_notebook, browser, server)
        rows = [
            *slider_rows(opens, rounds=3 if quick else 30, quick=quick),
            *pointer_rows(opens, rounds=4 if quick else 60, quick=quick),
        ]
        growths = slider_growths(opens, rounds=2 if quick else 10, quick=quick)
    return Section("In the browser", rows, growths, NOTES)


def slider_rows(opens: Opens, rounds: int, *, quick: bool) -> list[Row]:
    """Every control of every lab, and the rivals, as a multiple of the label; p50 and p95."""
    aims = {
        Move(cell, control): (f"{lab} lab, {_in_words(control)}", aim)
        for lab, (aim, cell, controls) in LABS.items()
        for control in (controls[:1] if quick else controls)
    } | {move: (name, None) for name, move in OTHERS.items()}
    notebook = opens([FLOOR, *aims])
    moves = {FLOOR_NAME: FLOOR} | {name: move for move, (name, _) in aims.items()}
    took = notebook.time_in_turns(moves, rounds)
    notebook.page.close()
    floor, rows = took[FLOOR_NAME], []
    for name, aim in aims.values():
        rows.append(Row(f"{name}: p50", FLOOR_NAME, ratio(took[name], floor), aim))
        cost = p95(took[name]) / p95(floor)
        rows.append(Row(f"{name}: p95", FLOOR_NAME, Spread(cost, cost, cost), aim))
    return rows


def pointer_rows(opens: Opens, rounds: int, *, quick: bool) -> list[Row]:
    """From pointer to paint, in frames; p50 and p95."""
    shapes = POINTED_AT[:1] if quick else POINTED_AT
    numbers = "np.random.default_rng(0).standard_normal"
    moves = {
        shape: Move(f"draw_slices({numbers}({shape}, dtype=np.float32), 'n c h w -> c')")
        for shape in shapes
    }
    notebook, rows = opens([*moves.values()]), []
    for shape, move in moves.items():
        frames = [took / FRAME for took in notebook.time_pointer(move, rounds)]
        what, frame, slowest = f"pointer to paint, {shape}", "a frame of 60 Hz", p95(frames)
        rows.append(Row(f"{what}: p50", frame, Spread.of(frames), unit="frames"))
        spread = Spread(slowest, slowest, slowest)
        rows.append(Row(f"{what}: p95", frame, spread, aim=1, unit="frames"))
    notebook.page.close()
    return rows


def slider_growths(opens: Opens, rounds: int, *, quick: bool) -> list[Growth]:
    """Slider to paint for three labs at several sizes, as multiples of the label."""
    growths = []
    for lab, (along, control, cells) in GROWTHS.items():
        sizes = {str(size): Move(cell, control) for size, cell in cells.items()}
        if quick:
            sizes = dict([*sizes.items()][:2])
        notebook = opens([FLOOR, *sizes.values()])
        took = notebook.time_in_turns({FLOOR_NAME: FLOOR} | sizes, rounds)
        notebook.page.close()
        costs = [(float(size), ratio(took[size], took[FLOOR_NAME]).median) for size in sizes]
        title = f"Slider to paint in the {lab} lab, as a multiple of {FLOOR_NAME}"
        growths.append(Growth(title, along, {f"{lab} lab": costs}))
    return growths


def p95(times: list[float]) -> float:
    """What 95 % of at least two measurements do not exceed.

    >>> p95([*range(1, 101)])
    95.05
    """
    return quantiles(times, n=20, method="inclusive")[-1]


def _in_words(control: str | tuple[str, str]) -> str:
    return control if isinstance(control, str) else " / ".join(control)
