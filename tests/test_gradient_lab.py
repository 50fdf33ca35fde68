"""The gradient lab takes dx apart into bars that add up to what torch.nn's backward pass gives."""

import re
from itertools import pairwise
from random import Random
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from reading import number, numbers_in, spoken, words_of
from torch import nn

from normviz import labs
from normviz.labs.gradient import DIRECT, MEAN, PROJECTION, GradientSetting, backward_of

LAYERS = ("BatchNorm1d", "LayerNorm", "RMSNorm")
CASES = [
    {},
    {"x": (1, 2, 6, -3), "g": (1, 0, 0, -2), "weight": 2.0},
    {"g": (1, 1, 1), "weight": -1.5},
    {"g": (0, 0, 0)},
    {"weight": 0.0},
    {"x": (5, 5, 5), "g": (1, -2, 4)},
    {"x": (1, 3), "g": (3, 0)},
    {"x": (-7, 0.5, 12.25, 4, 4, 0, 1, 2), "g": (3, -1, 4, 1, -5, 9, 2, -6), "eps": 100.0},
    {"x": (0.001, 0.002, 0.004), "eps": 1e-8},
]
NUMBERS = r"\(([^()]*)\)"

every_layer = pytest.mark.parametrize("layer", LAYERS)
every_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def by_torch(setting):
    """The gradient of x, by autograd through a layer of torch.nn."""
    x, g = (torch.tensor(values, dtype=torch.float64) for values in (setting.x, setting.g))
    count, x = len(x), x[None]
    if setting.layer == "BatchNorm1d":
        made, x, g = nn.BatchNorm1d(1, setting.eps), x.T, g[:, None]
        made.running_mean.fill_(2)
        made.running_var.fill_(4)
    else:
        made = getattr(nn, setting.layer)(count, eps=setting.eps)
    nn.init.constant_(made.weight, setting.weight)
    x = x.contiguous().requires_grad_()
    made.double().train(setting.training)(x).backward(g.reshape(x.shape))
    return x.grad.flatten().numpy()


def by_detaching(setting):
    """The gradient of x, where mean and variance are computed from x, and detached."""
    x, g = (torch.tensor(values, dtype=torch.float64) for values in (setting.x, setting.g))
    x.requires_grad_()
    mean = torch.zeros(()) if setting.layer == "RMSNorm" else x.mean().detach()
    var = torch.mean((x - mean) ** 2).detach()
    if setting.layer == "BatchNorm1d" and not setting.training:
        mean, var = 2.0, torch.tensor(4.0, dtype=x.dtype)
    (setting.weight * (x - mean) / (var + setting.eps).sqrt()).backward(g)
    return x.grad.numpy()


def vector(text):
    return [number(part) for part in text.split(", ")]


def told(name, words):
    return numbers_in(f"{re.escape(name)} = #", words)[0]


def near(values):
    return pytest.approx(values, rel=1e-3, abs=6e-5)


def assert_alarmed(lab, rule):
    assert 'role="alert"' in lab.readout.value
    assert rule in words_of(lab)
    assert "<svg" not in lab.picture.value


@every_mode
@every_layer
def test_each_term_is_what_one_statistic_adds(layer, training):
    """Cut off the mean alone, and the second term is gone; the variance alone, and the third."""
    setting = GradientSetting(layer, (1, 2, 6, -3), (1, 0, 0.5, -2), 2.0, training=training)
    terms = backward_of(setting).terms
    if setting.stored:
        assert [*terms] == [DIRECT]
        return

    def gradient(cut_mean, cut_square):
        x = torch.tensor(setting.x, dtype=torch.float64, requires_grad=True)
        mean = x.mean() if layer != "RMSNorm" else torch.zeros(())
        square = torch.mean((x - mean) ** 2)
        mean, square = (
            one.detach() if cut else one for one, cut in ((mean, cut_mean), (square, cut_square))
        )
        y = 2 * (x - mean) / (square + setting.eps).sqrt()
        y.backward(torch.tensor(setting.g, dtype=torch.float64))
        return x.grad.numpy()

    assert terms[DIRECT] == pytest.approx(gradient(True, True))
    assert terms[PROJECTION] == pytest.approx(gradient(False, False) - gradient(False, True))
    if layer == "RMSNorm":
        assert MEAN not in terms
    else:
        assert terms[MEAN] == pytest.approx(gradient(False, False) - gradient(True, False))


@every_mode
@every_layer
@every_case
@pytest.mark.parametrize("detached", [False, True], ids=["whole", "detached"])
def test_the_words_are_those_of_autograd(case, layer, training, detached):
    lab = labs.gradient_lab(layer, training=training, detached=detached, **case)
    setting, words = lab.read(), words_of(lab)
    dx = by_detaching(setting) if detached else by_torch(setting)
    backward = backward_of(setting)
    assert backward.dx == pytest.approx(dx, rel=1e-7, abs=1e-9)
    for text in (words, spoken(lab)):
        assert vector(re.search(rf"dx = {NUMBERS}", text)[1]) == near(dx)
    assert told("σ", words) == near(backward.sigma)
    assert vector(re.search(rf"x̂ = {NUMBERS}", words)[1]) == near(backward.normalized)
    upstream = setting.weight * np.array(setting.g)
    assert told("mean(γ·g)", words) == near(upstream.mean())
    assert told("mean(γ·g·x̂)", words) == near((upstream * backward.normalized).mean())
    assert told("Σ dx", words) == near(dx.sum())
    assert told("Σ dx · x̂", words) == near((dx * backward.normalized).sum())
    count = len(backward.terms)
    assert f"{('one term', 'two terms', 'three terms')[count - 1]}:" in words
    assert ("always 0" in words) == (count == 3)
    assert ("with ε = 0 it would be 0" in words) == (count > 1)


@every_layer
def test_a_bias_that_runs_away_is_one_that_changes_nothing(layer):
    """What is said of Σ dx, against the outputs of torch.nn with another bias before them."""
    for training in (True, False):
        for detached in (True, False):
            lab = labs.gradient_lab(layer, training=training, detached=detached)
            words = words_of(lab)
            lab.x.value = "11, 12, 16"
            x_hat = rf"x̂ = {NUMBERS}"
            changed = re.search(x_hat, words)[1] != re.search(x_hat, words_of(lab))[1]
            assert ("a bias changes the outputs" in words) == changed
            assert ("run away" in words) == (detached and not changed)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"training": False}, "No x moves them"),
        ({"detached": True}, "not the gradient of what was computed"),
        ({"training": False, "detached": True}, "No x moves them"),
        ({"layer": "RMSNorm"}, "no mean is subtracted"),
        ({"layer": "LayerNorm", "training": False}, "mean and variance"),
    ],
    ids=str,
)
def test_words_say_why_a_term_is_absent(asked, why):
    assert why in words_of(labs.gradient_lab(**asked)).splitlines()[0]


# The bars.


def bars_of(lab):
    """The name of each series → the ends of its bars, in pixels above 0, and its look."""
    svg = ElementTree.fromstring(lab.picture.value)
    *series, zero = (
        path
        for path in svg.findall(".//{*}path[@class='nv-in']")
        if "stroke-opacity" not in path.get("style")  # of the grid
    )
    names = [text.text for text in svg.findall(".//{*}text")]
    names = [name for name in names if name in (DIRECT, MEAN, PROJECTION, "dx")]
    level, found = points_of(zero)[0][1], {}
    for name, path in zip(names, series, strict=True):
        flat = {}
        for (x, y), (next_x, next_y) in pairwise(points_of(path)):
            if y == next_y and x != next_x:
                flat.setdefault((min(x, next_x), max(x, next_x)), []).append(level - y)
        bars = [flat[ends] for ends in sorted(flat)][::2]  # between them are gaps
        bars = [bar if len(bar) == 2 else [*bar, 0] for bar in bars]
        found[name] = np.sort(bars, axis=1), path.get("style")
    return found


def points_of(path):
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path.get("d"))]


def test_each_bar_starts_where_the_last_one_ends_and_dx_where_all_start():
    lab = labs.gradient_lab(x=(1, 2, 6, -3), g=(2, -1, 0.5, -2))
    drawn = np.array([bars for bars, _ in bars_of(lab).values()])
    terms = backward_of(lab.read()).terms
    ends = np.cumsum([*terms.values()], axis=0)
    start = np.zeros((1, 4))
    wanted = [np.vstack([start, ends]), np.vstack([ends, start])]  # the last one is dx, from 0
    wanted = np.sort(wanted, axis=0).transpose(1, 2, 0)
    scale = np.abs(drawn).max() / np.abs(wanted).max()
    assert drawn == pytest.approx(scale * wanted, abs=0.03)
    assert [*bars_of(lab)] == [*terms, "dx"] == [DIRECT, MEAN, PROJECTION, "dx"]


@every_mode
@every_layer
@pytest.mark.parametrize("detached", [False, True], ids=["whole", "detached"])
def test_a_term_keeps_its_look_and_an_absent_one_is_not_drawn(layer, training, detached):
    looks = {name: look for name, (_, look) in bars_of(labs.gradient_lab()).items()}
    assert len({*looks.values()}) == 4
    lab = labs.gradient_lab(layer, training=training, detached=detached)
    found = {name: look for name, (_, look) in bars_of(lab).items()}
    assert found == {name: looks[name] for name in (*backward_of(lab.read()).terms, "dx")}


def test_there_is_room_beyond_each_bar_and_no_number_stands_below_one():
    lab = labs.gradient_lab("RMSNorm", (1, 2, 6, -3), (1, 0, 0, -2))
    svg = ElementTree.fromstring(lab.picture.value)
    spine, _ = (p for p in svg.findall(".//{*}path") if "linejoin: miter" in p.get("style"))
    (_, bottom), (_, top) = points_of(spine)
    drawn = np.array([bars for bars, _ in bars_of(lab).values()])
    assert np.ptp(drawn) < bottom - top - 8
    numbers = [text for text in svg.findall(".//{*}text") if text.text in ("1", "2", "6", "−3")]
    assert len(numbers) == 4
    assert all(float(text.get("y")) > bottom + 8 for text in numbers)


def test_numbers_beside_the_axes_have_room_for_their_sign():
    lab = labs.gradient_lab("LayerNorm", (1, 2, 6, -100.25, 12345.678), (1, 0, 0, 2, -1))
    texts = ElementTree.fromstring(lab.picture.value).findall(".//{*}text")
    beside = [text for text in texts if text.get("text-anchor") == "end"]
    assert max(len(text.text) for text in beside) > 6
    assert all(float(text.get("x")) > 6.9 * len(text.text) for text in beside)


# Odd settings.


@pytest.mark.parametrize("name", ["x", "g"])
def test_odd_text_shows_the_rule_and_the_lab_goes_on(name):
    lab = labs.gradient_lab()
    first, shown = getattr(lab, name).value, (lab.readout.value, lab.picture.value)
    for text, rule in (
        ("<b>1</b>, 2, 3", f"{name} must be numbers with commas"),
        ("1, 2", "equally many numbers, up to 8: got"),
    ):
        getattr(lab, name).value = text
        assert_alarmed(lab, rule)
        assert "<b>1" not in lab.readout.value
    getattr(lab, name).value = first
    assert (lab.readout.value, lab.picture.value) == shown


@pytest.mark.parametrize("detached", [False, True])
def test_one_number_is_refused_where_torch_refuses_it(detached):
    for layer in LAYERS:
        for training in (True, False):
            lab = labs.gradient_lab(layer, [3], [1], training=training, detached=detached)
            if layer == "BatchNorm1d" and training:
                with pytest.raises(ValueError, match="more than 1 value per channel"):
                    by_torch(lab.read())
                assert_alarmed(lab, "more than 1 value per channel")
            else:
                assert "dx = " in words_of(lab)


def test_the_largest_numbers_are_no_error_of_the_labs_own():
    random = Random(0)
    for layer in LAYERS:
        lab = labs.gradient_lab(layer, eps=1e-8)
        for text in ("1e6, -1e6, 1e6", "1e-300, 0, 1e-300", "1e6, 999999.9999, 1e6", "0, 0, 0"):
            lab.x.value, lab.g.value = text, f"{random.uniform(-9, 9)}, 1e6, 0"
            assert "Traceback" not in lab.picture.value
            assert "nan" not in lab.readout.value + lab.picture.value


def test_small_gradients_keep_their_digits_and_rounding_is_none():
    lab = labs.gradient_lab(x=(1000, 2000, 6000))
    dx = by_torch(lab.read())
    assert vector(re.search(rf"dx = {NUMBERS}", words_of(lab))[1]) == pytest.approx(dx, rel=1e-2)
    alike = words_of(labs.gradient_lab(x=(1, 2, 6), g=(0.3, 0.3, 0.3)))
    assert "dx = (0, 0, 0)" in alike and "mean(γ·g·x̂) = 0." in alike
