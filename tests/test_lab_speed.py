"""What a move in a lab costs the kernel: a small multiple of a plain plot of matplotlib's."""

from io import StringIO
from itertools import cycle

import pytest
from matplotlib.figure import Figure

from benchmarks.compare import ratio, take_turns
from normviz import labs

# Lab → a control, two places of it, and what a move was measured to cost, in plain plots.
MOVES = {
    "shape_lab": ("shape", [(3, 3, 2, 3), (3, 3, 2, 2)], 0.12),
    "modes_lab": ("training", [False, True], 0.15),
    "momentum_lab": ("drift", [0.1, 0.0], 1.12),
    "bessel_lab": ("m", [6, 5], 0.54),
    "linearity_lab": ("a", [0.5, 1.0], 0.51),
    "gradient_lab": ("weight", [1.5, 1.0], 0.45),
    "relatives_lab": ("size", [20.0, 10.0], 0.12),
    "detective_lab": ("size", [20.0, 9.0], 0.07),
    "workers_lab": ("drift", [1.0, 2.0], 0.8),
}


def draw_a_plot():
    """The same work whatever normviz does."""
    figure = Figure()
    figure.subplots().plot([0, 2, 1])
    figure.savefig(StringIO(), format="svg")


@pytest.mark.parametrize("name", MOVES)
def test_a_move_costs_hardly_more_than_it_did(name):
    control, places, measured = MOVES[name]
    lab, places = getattr(labs, name)(), cycle(places)

    def move():
        getattr(lab, control).value = next(places)

    before = lab.picture.value
    move()
    assert lab.picture.value != before
    seconds = take_turns({"plot": draw_a_plot, "move": move}, rounds=12)
    cost = ratio(seconds["move"], seconds["plot"]).median
    print(f"{name}: {cost:.3f} plots")
    assert cost < 1.4 * measured
