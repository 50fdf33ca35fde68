"""No lab becomes twice as slow unnoticed: a move costs a small multiple of a fixed work.

Each bound is some 1.7 times what was measured, in turns with that work and with other labs.
"""

from io import StringIO
from itertools import cycle
from statistics import median

import ipywidgets as widgets
import pytest
from matplotlib.figure import Figure

from benchmarks.browser import FLOOR, FRAME, LABS, Move, open_notebook
from benchmarks.compare import ratio, take_turns
from normviz import labs

# Of drawing a plain figure of matplotlib's: what a move may cost in the kernel.
IN_KERNEL = {
    "shape_lab": 0.14,
    "modes_lab": 0.23,
    "momentum_lab": 2.6,
    "bessel_lab": 1.4,
    "linearity_lab": 1.3,
}
# Of the time that a slider takes to change a label: what one may take to change a lab's picture.
TO_PAINT = {"shape": 2, "modes": 2, "momentum": 3.6, "Bessel": 3, "linearity": 3}
FIRST_MOVES = {lab: Move(cell, controls[0]) for lab, (_, cell, controls) in LABS.items()}
PICTURE = Move("draw_slices(np.arange(36).reshape(3, 3, 2, 2), 'n c h w -> c')")


def draw_a_figure():
    """The same work whatever normviz does."""
    figure = Figure()
    figure.subplots().plot([0, 2, 1])
    figure.savefig(StringIO(), format="svg")


def controls_in(box):
    for child in box.children:
        if isinstance(child, widgets.Box):
            yield from controls_in(child)
        elif len(getattr(child, "options", ())) > 1 or hasattr(child, "step"):
            yield child


def values_of(control):
    """Where a control stands, and a place beside it."""
    if hasattr(control, "options"):
        options = [o[1] if isinstance(o, tuple) else o for o in control.options]
        return [control.value, next(value for value in options if value != control.value)]
    beside = control.value + control.step
    if isinstance(control, widgets.FloatLogSlider):
        beside = control.value * control.base**control.step
    return [control.value, beside]


def moves_of(name):
    """Each control that can be moved to and fro → how; a lab of its own for each."""
    for nth in range(len([*controls_in(getattr(labs, name)())])):
        control = [*controls_in(getattr(labs, name)())][nth]
        here, there = values_of(control)
        places = cycle([there, here])
        yield control.description, lambda c=control, p=places: c.set_trait("value", next(p))


@pytest.mark.parametrize("name", IN_KERNEL)
def test_a_move_costs_the_kernel_little(name):
    moves = dict(moves_of(name))
    assert len(moves) >= 3
    seconds = take_turns({"a figure": draw_a_figure} | moves, rounds=12)
    costs = {move: ratio(seconds[move], seconds["a figure"]).median for move in moves}
    assert max(costs.values()) < IN_KERNEL[name], costs


@pytest.fixture(scope="module")
def notebook(chromium, server):
    """One control of each lab, and a picture to point at."""
    return open_notebook(chromium, server, [FLOOR, *FIRST_MOVES.values(), PICTURE])


@pytest.mark.browser
def test_a_picture_follows_its_control_nearly_as_fast_as_a_label_does(notebook):
    took = notebook.time_in_turns({"a label": FLOOR} | FIRST_MOVES, rounds=10)
    # The fastest of each: often a move takes a frame or two longer, that of the label first of all.
    costs = {lab: min(took[lab]) / min(took["a label"]) for lab in FIRST_MOVES}
    assert [lab for lab, cost in costs.items() if cost > TO_PAINT[lab]] == [], costs


@pytest.mark.browser
def test_a_slice_lights_up_within_a_frame(notebook):
    assert median(notebook.time_pointer(PICTURE, rounds=12)) < FRAME
