"""The detective lab: a box does what torch.nn's layer does, and what is said of a guess is true."""

import re
from functools import cache

import numpy as np
import pytest
import torch
from reading import words_of
from torch import nn

from normviz import labs
from normviz.labs.detective import BOXES, SUSPECTS, DetectiveSetting, verdict, view_detective
from normviz.svg import tint

ONE, PLUS, TIMES = EXPERIMENTS = "move one number", "add 5 to everything", "times 3"
LETTERS = "ABCDEFGHI"
NEAR = 1e-4  # as near is the same: ε
CELL = re.compile(
    r'fill="(#\w+)" data-index="([\d,]+)"/><text[^>]*>([^<]+)</text>(<path stroke="#111")?'
)

every_box = pytest.mark.parametrize("box", LETTERS)
every_experiment = pytest.mark.parametrize("experiment", EXPERIMENTS)
every_mode = pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])


def layer_of(name):
    """What torch.nn has by this name."""
    *how, call = name.split(" ", 1) if name[0].islower() else [name]
    layer = eval(call, {**vars(nn)}).double()
    for buffer, number in {"running_mean": 0, "running_var": 30}.items():
        if getattr(layer, buffer, None) is not None:
            getattr(layer, buffer).fill_(number)
    if call.startswith("Conv"):
        layer.bias.data.zero_()
        weights = [[0.25 + (4 * o + i) % 5 / 4 for i in range(4)] for o in range(4)]
        layer.weight.data = torch.tensor(weights).double().reshape(4, 4, 1, 1)
    return layer, how


def outputs_of(name, x, training):
    layer, how = layer_of(name)
    layer.train(training and how != ["frozen"])
    with torch.no_grad():
        if how == ["channels-last"]:
            return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).numpy()
        return layer(x).numpy()


@cache
def first_input():
    return torch.tensor(cells_of(labs.detective_lab(size=0.0, show="input"))[0])


def change_in(name, experiment=ONE, training=True, place=(0, 0, 0, 0), size=9.0):
    x = first_input()
    x1 = {ONE: x.clone(), PLUS: x + 5, TIMES: 3 * x}[experiment]
    if experiment == ONE:
        x1[place] += size
    return outputs_of(name, x1, training) - outputs_of(name, x, training)


def cells_of(lab):
    """The numbers, and which of them are marked; by a line as by colour."""
    numbers, marked, looks = np.full((2, 4, 2, 2), np.nan), np.zeros((2, 4, 2, 2), bool), set()
    for fill, index, text, line in CELL.findall(lab.picture.value):
        index = tuple(map(int, index.split(",")))
        numbers[index], marked[index] = float(text.replace("−", "-")), bool(line)
        looks.add((fill, line))
    assert len(looks) == len({line for _, line in looks}) and not np.isnan(numbers).any()
    return numbers, marked


@every_mode
@every_experiment
@every_box
def test_a_box_does_what_torch_does(box, experiment, training):
    lab = labs.detective_lab(box, (1, 2, 0, 1), 7.0, experiment, training)
    change = change_in(BOXES[box], experiment, training, (1, 2, 0, 1), 7.0)
    moved, (shown, marked) = np.abs(change) > NEAR, cells_of(lab)
    assert np.abs(shown - change).max() < 0.051
    assert np.array_equal(marked, moved)
    count = {0: "No output", 32: "Every output"}.get(moved.sum(), f"{moved.sum()} of 32 outputs")
    assert words_of(lab).startswith(f"{count} moved.")
    told = "became" in words_of(lab), "ε" in words_of(lab)
    assert told == (experiment == ONE, experiment == TIMES)
    lab.show.value = "output"
    y = outputs_of(BOXES[box], first_input(), training) + change
    assert np.abs(cells_of(lab)[0] - y).max() < 0.051
    assert np.array_equal(cells_of(lab)[1], moved)


def test_each_layer_is_in_a_box_and_no_box_is_named_before_it_is_guessed():
    assert ("".join(BOXES), {*BOXES.values()}) == (LETTERS, {*SUSPECTS})
    for box, name in BOXES.items():
        for experiment in EXPERIMENTS:
            shown = view_detective(DetectiveSetting(box, experiment=experiment))
            assert not any(one in str(shown) + shown._repr_html_() for one in SUSPECTS)
        for guess in SUSPECTS:
            said = verdict(DetectiveSetting(box, guess=guess))
            assert (f"Right: box {box} is {guess}." in said) == (guess == name)
            assert guess == name or name not in said.replace(guess, "")


SAID = re.compile(
    r"No(\. |, though .* the same here\. Try “(?P<do>[^”]*)”( by 9)? in (?P<mode>\w+): )[Ww]ith "
    r"(?P<guess>.*), (the output at \((?P<at>.*?)\), (?P<where>in .*|its own), would (?P<verb>\w+)"
    r"(, too)?\. (Here|In this box) it (?P<does>moves|stays)|"
    r"(?P<there>.*) would move\. (Here|In this box): (?P<here>.*))\.$"
)


def said_of(*setting, **more):
    return SAID.match(re.sub("<[^>]*>", "", verdict(DetectiveSetting(*setting, **more))))


@every_experiment
@every_box
def test_what_contradicts_a_wrong_guess_is_what_torch_does(box, experiment):
    place = 1, 1, 1, 0
    for guess in {*SUSPECTS} - {BOXES[box]}:
        said, names = said_of(box, place, 5.0, experiment, guess=guess), (BOXES[box], guess)
        assert said["guess"] == guess
        here, there = (np.abs(change_in(n, experiment, True, place, 5.0)) > NEAR for n in names)
        assert np.array_equal(here, there) == bool(said["do"])
        if said["do"]:
            trial = said["do"], said["mode"] == "training", place
            here, there = (np.abs(change_in(n, *trial)) > NEAR for n in names)
        if said["at"]:
            at = tuple(map(int, said["at"].split(",")))
            assert (there[at], here[at]) == (said["verb"] == "move", said["does"] == "moves")
            assert here[at] != there[at]
            axes = zip(("sample", "channel", "row", "column"), at, place, strict=True)
            far = ", ".join(f"{word} {i}" for word, i, own in axes if i != own)
            assert said["where"] == (f"in {far}" if far else "its own")
        else:
            counts = {"no output": 0, "every output": 32}
            assert (counts[said["there"]], counts[said["here"]]) == (there.sum(), here.sum())
            assert there.sum() != here.sum()


@pytest.mark.parametrize(
    ("place", "size"), [((0, 0, 0, 0), 0.0), ((1, 3, 1, 1), 1e-5), ((0, 1, 0, 0), 10.0)]
)
def test_something_tells_any_two_even_if_nothing_that_is_shown_does(place, size):
    assert first_input()[0, 1, 0, 0] == -5  # which becomes 5: the mean square stays
    for box in LETTERS:
        for guess in {*SUSPECTS} - {BOXES[box]}:
            assert said_of(box, place, size, training=False, guess=guess)


@every_box
def test_a_right_guess_tells_what_each_experiment_says(box):
    name, at = BOXES[box], (1, 0, 1, 1)
    words = words_of(labs.detective_lab(box, at, guess=name))
    plus, times = (bool((np.abs(change_in(name, e)) > NEAR).any()) for e in EXPERIMENTS[1:])
    assert ("not centred" in words, "scale stays" in words) == (plus, times)
    assert ("something is remembered" in words) == (name == "BatchNorm2d(4)")
    count = (np.abs(change_in(name, training=False, place=at)) > NEAR).sum()
    assert f"In eval, this number moves {count} of 32 outputs" in words


def test_the_picture_has_no_slices_and_rings_only_what_the_learner_moves():
    lab = labs.detective_lab(place=(1, 1, 1, 0))
    for experiment in EXPERIMENTS:
        lab.experiment.value = experiment
        svg = lab.picture.value
        assert not re.search("nv-slice|μ|σ|nv-dash", svg)
        assert {fill for fill, *_ in CELL.findall(svg)} <= {"#eee", tint(0, 0.4)}
        x, y = re.search(r'x="(\d+)" y="(\d+)" [^>]*data-index="1,1,1,0"', svg).groups()
        ring = f'<rect x="{int(x) + 1}" y="{int(y) + 1}"' in svg
        assert ring == ("Ringed" in svg) == (experiment == ONE)
