"""What is recorded of a lab for pages without a kernel; tests/test_site.py moves one there."""

from dataclasses import dataclass

import ipywidgets as widgets
import pytest

from normviz.labs.lab import Lab, View, slider
from recording import BELOW, Recording, positions_of


@dataclass(frozen=True)
class Setting:
    a: int
    b: int


class Two(Lab):
    """Two sliders, and in words where they stand."""

    Setting = Setting
    view_of = staticmethod(lambda setting: View(f"{setting.a}, {setting.b}"))

    def __init__(self, a, b, most):
        self.a, self.b = slider("a", a, 0, most), slider("b", b, 0, most)
        super().__init__([self.a, self.b])
        self.draw_on(self.a, self.b)


def shown(recording, states):
    views = [view.partition(BELOW)[0] for view in recording.views]
    return [views[view] for *_, view in map([*recording.states].__getitem__, states)]


@pytest.mark.parametrize("opening", [(0, 0), (3, 0), (3, 3)])
def test_of_few_settings_all_are_recorded_with_all_their_moves(opening):
    recording = Recording(lambda: Two(*opening, 3))
    every = {f"{a}, {b}" for a in range(4) for b in range(4)}
    assert {*shown(recording, recording.hubs)} == every
    assert len(recording.hubs) == len(recording.states) == 16


def test_of_many_settings_all_moves_are_recorded_from_the_opening_and_the_ends_of_sliders():
    recording = Recording(lambda: Two(5, 7, 30))
    assert shown(recording, recording.hubs) == ["5, 7", "30, 7", "5, 30"]
    for hub, (a, b) in zip(recording.hubs, [(5, 7), (30, 7), (5, 30)], strict=True):
        assert shown(recording, recording.moves[hub]["a"]) == [f"{n}, {b}" for n in range(31)]
        assert shown(recording, recording.moves[hub]["b"]) == [f"{a}, {n}" for n in range(31)]


def test_a_position_is_called_as_the_slider_calls_it():
    slider = widgets.FloatLogSlider(1.0, min=-5, max=0, step=5, readout_format=".1e")
    assert [label for label, _ in positions_of(slider)] == ["1.0e-5", "1.0e+0"]
