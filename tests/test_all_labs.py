"""What every lab keeps to, wherever its controls are moved; NORMVIZ_MOVES makes the walk longer."""

import gc
import math
import os
import re
import runpy
import sys
import tracemalloc
from functools import partial
from itertools import count
from random import Random
from types import SimpleNamespace
from weakref import ref
from xml.etree import ElementTree

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from traitlets import TraitError

from normviz import labs
from normviz.labs.lab import STYLES, WITHOUT_KERNEL, SliderNames, View, rule
from normviz.labs.shapes import LAYER_MAKERS

MOVES = int(os.environ.get("NORMVIZ_MOVES", "12"))
LABS = {
    **{
        f"shape_lab({layer})": partial(labs.shape_lab, layer)
        for layer in ("BatchNorm1d", "GroupNorm", "SwitchableNorm2d", "weight_norm")
    },
    **{
        name: getattr(labs, name)
        for name in vars(labs)
        if name.endswith("_lab") and name != "shape_lab"
    },
}
TEXTS = ("", " ", ",", "1,,2", "abc", "nan, 1", "1e999, 1", "<b>&", "1; 2", "²", "1, " * 8 + "1")
NUMBERS = (0, 1, -0.01, 1.01, -7, 1e308, math.nan, math.inf, -math.inf)

REFUSED = {
    "momentum": (partial(labs.momentum_lab, momentum=1.5), "momentum must be from 0 to 1"),
    "batch of one": (partial(labs.momentum_lab, batch_size=1), "more than 1 value per channel"),
    "sample of one": (partial(labs.bessel_lab, m=1), "m must be at least 2"),
    "one value": (partial(labs.modes_lab, batch="one value"), "more than 1 value per channel"),
    "one each": (partial(labs.workers_lab, workers=8), "more than 1 value per channel"),
    "groups": (partial(labs.relatives_lab, "GroupNorm", groups=3), "num_groups must divide"),
    "a batch of one": (
        partial(labs.relatives_lab, shape=(1, 4, 1, 1)),
        "more than 1 value per channel",
    ),
    "none": (partial(labs.workers_lab, workers=3, samples=2), "Every worker needs a sample"),
    "nine of each": (partial(labs.gradient_lab, x=range(9), g=range(9)), "8: got 9 and 9"),
    "a channel of one": (partial(labs.gradient_lab, x=[1], g=[1]), "more than 1 value per channel"),
    "lengths": (partial(labs.linearity_lab, x1=(1, 2)), "many numbers, up to 8: got 2 and 3"),
    "nine": (partial(labs.linearity_lab, x1=range(9), x2=range(9)), "up to 8: got 9 and 9"),
    "a list of one": (partial(labs.linearity_lab, x1=[1], x2=[2]), "more than 1 value per channel"),
}
OTHER_SETTINGS = {
    "momentum_lab": {"momentum": 0.5, "batch_size": 3, "batches": 12, "drift": 0.5},
    "bessel_lab": {"m": 20, "draws": 10_000, "distribution": "skewed"},
    "modes_lab": {"training": False, "set_after": True, "batch": "shifted"},
    "linearity_lab": {"a": 2.0, "b": -1.5, "eps": 1.0, "training": False},
    "gradient_lab": {
        **{"layer": "RMSNorm", "weight": 2.0, "eps": 1.0},
        **{"training": False, "detached": True},
    },
    "relatives_lab": {
        **{"layer": "GroupNorm", "shape": (3, 6, 2, 1), "outlier": (2, 5, 1, 0), "size": -20.0},
        **{"groups": 3, "training": False, "show": "output"},
    },
    "detective_lab": {
        **{"box": "E", "place": (1, 3, 0, 1), "size": -4.0, "experiment": "times 3"},
        **{"training": False, "show": "output", "guess": "Conv2d(4, 4, 1)"},
    },
    "workers_lab": {"workers": 3, "samples": 30, "parts": "unequal", "drift": 1.0, "sync": True},
}
# A lab, what it is asked for and cannot hold, and the rule.
IMPOSSIBLE = [
    ("shape_lab", {"shape": ()}, "shape needs 4 sizes here: got ()"),
    ("shape_lab", {"layer": "batchnorm1d"}, f"{', '.join(LAYER_MAKERS)}: got 'batchnorm1d'"),
    ("momentum_lab", {"batch_size": 0}, "batch_size must be what its control can hold: got 0"),
    ("momentum_lab", {"batch_size": 65}, "batch_size must be what its control can hold: got 65"),
    ("momentum_lab", {"batches": 61}, "batches must be what its control can hold: got 61"),
    ("momentum_lab", {"drift": -0.6}, "drift must be what its control can hold: got -0.6"),
    ("bessel_lab", {"m": 0}, "m must be what its control can hold: got 0"),
    ("bessel_lab", {"m": 31}, "m must be what its control can hold: got 31"),
    ("bessel_lab", {"m": 2.5}, "m must be what its control can hold: got 2.5"),
    ("bessel_lab", {"draws": 9}, "must be one of 10, 100, 1000, 2000, 5000, 10000: got 9"),
    ("bessel_lab", {"draws": "100"}, "must be one of 10, 100, 1000, 2000, 5000, 10000: got '100'"),
    ("bessel_lab", {"distribution": "cauchy"}, "must be one of normal, uniform, skewed: got 'cau"),
    ("modes_lab", {"batch": "large"}, "typical, shifted, one sample, one value: got 'large'"),
    ("modes_lab", {"batch": None}, "typical, shifted, one sample, one value: got None"),
    ("linearity_lab", {"a": 3.1}, "a must be what its control can hold: got 3.1"),
    ("linearity_lab", {"b": -3.1}, "b must be what its control can hold: got -3.1"),
    ("linearity_lab", {"eps": 0}, "eps must be what its control can hold: got 0"),
    ("linearity_lab", {"eps": 1e3}, "eps must be what its control can hold: got 1000"),
    ("linearity_lab", {"x1": (), "x2": ()}, "numbers with commas"),
    ("gradient_lab", {"layer": "GroupNorm"}, "must be one of BatchNorm1d, LayerNorm, RMSNorm"),
    ("gradient_lab", {"training": 2}, "training must be one of"),
    ("gradient_lab", {"weight": 9.0}, "weight must be what its control can hold: got 9"),
    ("gradient_lab", {"eps": 0.0}, "eps must be what its control can hold: got 0"),
    ("relatives_lab", {"outlier": (4, 0, 0, 0)}, "outlier must stand in the shape (4, 4, 2, 2)"),
    ("relatives_lab", {"outlier": (0, 0)}, "outlier needs 4 numbers here"),
    ("relatives_lab", {"outlier": (-1, 0, 0, 0)}, "outlier must stand"),
    ("relatives_lab", {"layer": "CentredConv2d"}, "layer must be one of BatchNorm1d"),
    ("relatives_lab", {"size": 101.0}, "size must be what its control can hold"),
    ("relatives_lab", {"axes": "n c l"}, "axes must be one of n c h w"),
    ("relatives_lab", {"training": "yes"}, "training must be one of True, False"),
    ("relatives_lab", {"show": "x"}, "show must be one of change, input, output"),
    ("relatives_lab", {"groups": 9}, "groups must be one of 1"),
    ("relatives_lab", {"layer": "LayerNorm", "normalized_shape": 4}, "must be one of 1, 2, 3"),
    ("detective_lab", {"box": "J"}, "box must be one of A, B"),
    ("detective_lab", {"place": (2, 0, 0, 0)}, "place must stand in the shape (2, 4, 2, 2)"),
    ("detective_lab", {"size": 21.0}, "size must be what its control can hold"),
    ("detective_lab", {"experiment": "x"}, "experiment must be one of move one number"),
    ("detective_lab", {"guess": "Dropout"}, "guess must be one of nothing yet, BatchNorm2d"),
    ("workers_lab", {"parts": "odd"}, "parts must be one of equal, unequal: got 'odd'"),
]

every_lab = pytest.mark.parametrize("open_lab", LABS.values(), ids=LABS)


def controls_in(box):
    for child in box.children:
        if isinstance(child, widgets.Box):
            yield from controls_in(child)
        elif not isinstance(child, widgets.HTML | SliderNames):
            yield child


def values_of(lab):
    return [getattr(control, "value", None) for control in controls_in(lab)]


def shown_by(lab):
    return lab.readout.value, lab.picture.value


def a_text(random):
    if random.random() < 0.3:
        return random.choice(TEXTS)
    numbers = (random.choice((random.randint(-9, 9), random.uniform(-99, 99))) for _ in range(3))
    return ", ".join(map(str, numbers))


def a_value(control, random):
    """Any value that this control takes, also an impossible one where it can be typed."""
    if hasattr(control, "options"):
        return random.choice([o[1] if isinstance(o, tuple) else o for o in control.options])
    if isinstance(control, widgets.Text):
        return a_text(random)
    if isinstance(control, widgets.Checkbox):
        return random.choice((True, False))
    if isinstance(control, widgets.FloatText):
        return random.choice((*NUMBERS, random.random(), random.random()))
    if isinstance(control, widgets.IntSlider):
        return random.randint(control.min, control.max)
    value = random.choice((control.min, control.max, random.uniform(control.min, control.max)))
    return control.base**value if isinstance(control, widgets.FloatLogSlider) else value


def move(lab, random):
    control = random.choice([*controls_in(lab)])
    if isinstance(control, widgets.Button):
        control.click()
    else:
        control.value = a_value(control, random)


def walk(lab, seed, moves):
    random = Random(seed)
    for step in range(moves):
        move(lab, random)
        shown = lab.readout.value + lab.picture.value
        assert "Traceback" not in shown, (step, values_of(lab))
        assert "an error of its own" not in shown


@every_lab
def test_a_random_walk_meets_no_error_and_leaves_no_widget_behind(open_lab):
    lab = open_lab()
    walk(lab, seed=0, moves=MOVES)
    opened = len(widgets.widget._instances)
    walk(lab, seed=0, moves=MOVES)
    assert len(widgets.widget._instances) == opened


@pytest.mark.slow
@pytest.mark.parametrize("open_lab", [labs.shape_lab, labs.momentum_lab])  # SVG, and matplotlib's
def test_a_random_walk_leaves_no_memory_behind(open_lab):
    lab, memory = open_lab(), []
    walk(lab, seed=0, moves=MOVES // 3)  # what is remembered on purpose is remembered now
    tracemalloc.start()
    for _ in range(2):  # only what a walk adds to the walk before it has leaked
        walk(lab, seed=0, moves=MOVES // 3)
        gc.collect()
        memory.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert memory[1] - memory[0] < 10_000 * (MOVES // 3)


@every_lab
def test_a_move_draws_once_and_standing_still_does_not(open_lab, monkeypatch):
    lab, drawn, random = open_lab(), [], Random(1)
    monkeypatch.setattr(type(lab), "view", lambda lab: drawn.append(values_of(lab)) or View(""))
    moved = 0
    for _ in range(200):
        before = values_of(lab)
        move(lab, random)
        after = values_of(lab)
        assert drawn == [after] * (before != after)
        moved += len(drawn)
        drawn.clear()
    assert moved > 100


@every_lab
def test_every_control_draws(open_lab, monkeypatch):
    drawn, random, kind = [], Random(2), type(open_lab())
    monkeypatch.setattr(kind, "view", lambda lab: drawn.append(lab) or View(""))
    for i in range(len([*controls_in(open_lab())])):
        control = [*controls_in(open_lab())][i]
        drawn.clear()
        if isinstance(control, widgets.Button):
            control.click()
        elif len(getattr(control, "options", "more")) > 1:
            before = control.value
            while control.value == before:
                control.value = a_value(control, random)
        else:
            continue
        assert len(drawn) == 1, control.description


@every_lab
def test_every_control_has_a_name_of_its_own(open_lab, monkeypatch):
    lab, random = open_lab(), Random(3)
    monkeypatch.setattr(type(lab), "view", lambda lab: View(""))
    for _ in range(30):
        move(lab, random)
        names = [control.description for control in controls_in(lab)]
        assert len(names) >= 3
        assert all(name.strip() for name in names)
        assert len({name.strip().lower() for name in names}) == len(names)


@every_lab
def test_nothing_below_the_lab_moves(open_lab):
    lab, random = open_lab(), Random(4)
    first, styles = (lab.readout.layout.height, lab.picture.layout.height), lab.styles.value
    assert all(re.fullmatch(r"[1-9]\d+px", height) for height in first)
    for _ in range(6):
        move(lab, random)
        assert (lab.readout.layout.height, lab.picture.layout.height) == first
        assert lab.children[-4:-2] == (lab.readout, lab.picture)
        assert lab.styles.value == styles  # or the page would be laid out anew
        assert lab.readout.layout.overflow == lab.picture.layout.overflow == "auto"


@every_lab
def test_an_unexpected_error_is_shown_as_text_and_the_lab_goes_on(open_lab, monkeypatch):
    def fail(lab):
        raise RuntimeError("<no>")

    lab = open_lab()
    control = lab.children[0].children[0]
    first, shown = control.value, shown_by(lab)
    with monkeypatch.context() as broken:
        broken.setattr(type(lab), "view", fail)
        random = Random(5)
        while control.value == first:
            control.value = a_value(control, random)
        assert 'role="alert"' in lab.readout.value
        assert "RuntimeError: &lt;no&gt;" in lab.picture.value
        assert "<no>" not in lab.readout.value + lab.picture.value
    control.value = first
    assert shown_by(lab) == shown


def assert_shown_without_a_kernel(lab):
    still = lab.still()
    assert isinstance(still, View)
    assert (still.words, STYLES.sub("", still.body)) == (lab.readout.value, lab.picture.value)
    assert {*STYLES.findall(still.body)} <= {*STYLES.findall(lab.styles.value)}
    assert still._repr_html_().startswith(still.words)
    drawn = re.findall("<svg.*?</svg>", still._repr_html_(), re.DOTALL)
    assert len(drawn) == len(still.pictures)
    ElementTree.fromstring(f"<div>{still._repr_html_().replace('<br>', '<br/>')}</div>")
    printed = str(still)
    assert not re.search("<[a-z/]|&[a-z#]", printed)
    assert all(picture.text in printed for picture in still.pictures)
    return printed


@every_lab
def test_where_there_is_no_kernel_a_line_tells_how_to_get_one_above_how_it_opens(open_lab):
    lab = open_lab()
    shown = lab._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    parts = WITHOUT_KERNEL, lab.readout.value, lab.styles.value, lab.picture.value
    assert "".join(parts) in shown["text/html"]
    assert "Binder" in WITHOUT_KERNEL


@every_lab
def test_a_lab_stands_still_for_who_has_no_kernel(open_lab):
    lab, random = open_lab(), Random(6)
    assert lab.still().pictures
    for _ in range(4):
        assert len(assert_shown_without_a_kernel(lab)) > 40
        move(lab, random)


@pytest.mark.parametrize(("open_lab", "rule"), REFUSED.values(), ids=REFUSED)
def test_a_refused_setting_shows_its_rule_without_a_kernel_too(open_lab, rule):
    lab = open_lab()
    assert 'role="alert"' in lab.still().words
    assert rule in lab.still().words
    assert rule in assert_shown_without_a_kernel(lab)


def test_a_refused_shape_keeps_its_picture():
    lab = labs.shape_lab("BatchNorm1d")
    lab.shape.value = (1, 3)
    assert 'role="alert"' in lab.still().words
    assert "more than 1 value per channel" in assert_shown_without_a_kernel(lab)
    assert len(lab.still().pictures) == 1


@every_lab
def test_a_lab_opened_twice_shows_the_same_and_moves_alone(open_lab):
    one, other = open_lab(), open_lab()
    first = shown_by(one), values_of(one)
    assert (shown_by(other), values_of(other)) == first
    random = Random(7)
    for _ in range(6):
        move(one, random)
    assert values_of(one) != first[1]
    assert (shown_by(other), values_of(other)) == first
    other.draw()
    assert shown_by(other) == first[0]


@every_lab
def test_the_way_to_a_setting_leaves_no_trace(open_lab):
    lab = open_lab()
    first = [(control, control.value) for control in controls_in(lab) if hasattr(control, "value")]
    shown, random = shown_by(lab), Random(8)
    for _ in range(8):
        move(lab, random)
    assert shown_by(lab) != shown
    for control, value in first:
        control.value = value
    assert shown_by(lab) == shown


@pytest.mark.parametrize(("name", "setting", "rule"), IMPOSSIBLE, ids=str)
def test_what_no_control_can_hold_is_refused(name, setting, rule):
    with pytest.raises(ValueError, match=re.escape(rule)):
        getattr(labs, name)(**setting)


@pytest.mark.parametrize("name", labs.__all__)
def test_every_session_shows_the_same_and_leaves_the_random_numbers_of_others(name):
    open_lab, setting = getattr(labs, name), OTHER_SETTINGS.get(name, {})
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    fresh = runpy.run_path(sys.modules[open_lab.__module__].__file__)[name](**setting)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert shown_by(fresh) == shown_by(open_lab(**setting))


@pytest.mark.parametrize(("name", "setting"), OTHER_SETTINGS.items(), ids=OTHER_SETTINGS)
def test_a_lab_shows_the_same_opened_there_or_moved_there(name, setting):
    lab, opened_there = LABS[name](), LABS[name](**setting)
    for control, value in setting.items():
        getattr(lab, control).value = value
    assert shown_by(lab) == shown_by(opened_there)


@every_lab
def test_what_a_control_never_offered_is_refused_with_the_rule(open_lab):
    """A list without a choice, which ipywidgets allows, and a slider that somebody widened."""
    lab = open_lab()
    first = shown_by(lab)
    for name in lab.values():
        control = getattr(lab, name)
        value = control.value
        if isinstance(control, widgets.Dropdown | widgets.ToggleButtons):
            control.value = None
        elif isinstance(control, widgets.IntSlider | widgets.FloatSlider | widgets.FloatLogSlider):
            is_log = isinstance(control, widgets.FloatLogSlider)
            most, control.max = control.max, 9 if is_log else 1000
            control.value = 500
        else:
            continue
        assert lab.readout.value.startswith(f"{rule('')[:-4]}{name} must be "), name
        assert "Traceback" not in lab.picture.value
        control.value = value
        if value is not None and hasattr(control, "max"):
            control.max = most
        assert shown_by(lab) == first


@pytest.mark.parametrize("open_lab", [labs.shape_lab, labs.relatives_lab, labs.detective_lab])
def test_a_widened_slider_of_an_axis_goes_back(open_lab):
    lab = open_lab()
    sliders = (lab.place if hasattr(lab, "place") else lab.shape).sliders
    first = sliders["n"].value, shown_by(lab)
    sliders["n"].max = 1000
    with pytest.raises(TraitError):
        sliders["n"].value = 500
    assert (sliders["n"].value, shown_by(lab)) == first


@pytest.fixture
def run_cell(monkeypatch):
    """Run a function as a cell with an id, as JupyterLab's kernel does."""
    runs, shell = count(), SimpleNamespace(user_ns={"Out": {}}, user_ns_hidden={})
    monkeypatch.setattr("normviz.labs.lab.get_ipython", lambda: shell)

    def run_cell(cell, function):
        run = next(runs)
        request = {"metadata": {"cellId": cell}, "header": {"msg_id": run}}
        shell.get_parent = lambda: request
        shell.user_ns["Out"][run] = shell.user_ns[f"_{run}"] = function()
        return ref(shell.user_ns["Out"][run])

    return run_cell


def test_a_cell_that_runs_again_frees_the_labs_of_its_last_run(run_cell):
    def two():
        return labs.momentum_lab(), labs.shape_lab()

    before = len(widgets.widget._instances)
    run_cell("two", lambda: two()[0])
    other = run_cell("another", labs.momentum_lab)()
    opened = len(widgets.widget._instances)
    assert opened > before + 100
    last = run_cell("two", lambda: two()[1])
    again = run_cell("two", lambda: two()[0])()
    assert len(widgets.widget._instances) == opened
    gc.collect()
    assert last() is None
    for lab in (other, again):
        shown = shown_by(lab)
        lab.batches.value += 1
        assert shown_by(lab) != shown
        assert lab.comm is not None
