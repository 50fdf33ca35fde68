"""The linearity lab tells both sides of the equation as torch.nn computes them."""

import re
from html import unescape
from random import Random
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from reading import number, plain, spoken
from torch import nn

from normviz import labs

NUMBERS = r"\(([^()]*)\)"
CASES = [
    {},
    {"a": 2, "b": 0},
    {"a": -1.5, "b": 0.5},
    {"a": 0, "b": 0},
    {"a": 3, "b": -3, "x1": (1, 2), "x2": (2, 7)},
    {"x1": (0, 0, 0), "x2": (1, 2, 4)},
    {"x1": (5, 5, 5), "x2": (5, 5, 5)},
    {"x1": (100, -7, 0.5, 3), "x2": (2, 2, 2, -2), "a": 0.3},
    {"x1": tuple(range(8)), "x2": (9, 1, 8, 2, 7, 3, 6, 4), "b": -2},
    {"eps": 100},
    {"eps": 1e-8, "x1": (0.001, 0.002, 0.004), "x2": (0.003, 0.001, 0)},
]
NOT_NUMBERS = ["", "1,,2", "1, 2, 3,", "1 2 3", "abc", "<b>1</b>, 2, 3", "nan, 1, 2", "1e999, 1, 2"]

every_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def torch_sides(a=1.0, b=1.0, x1=(1, 2, 6), x2=(4, 1, 1), eps=1e-5, training=True):
    """Both sides of the equation, by torch.nn."""

    def transform(x):
        layer = nn.BatchNorm1d(1, eps, affine=False).double()
        layer.running_mean.fill_(2)
        layer.running_var.fill_(4)
        return layer.train(training)(x[:, None])[:, 0].numpy()

    x1, x2 = (torch.tensor(x, dtype=torch.float64) for x in (x1, x2))
    return transform(a * x1 + b * x2), a * transform(x1) + b * transform(x2)


def sides_told_in(text):
    told = rf"T\(a·x₁ \+ b·x₂\) = {NUMBERS}; a·T\(x₁\) \+ b·T\(x₂\) = {NUMBERS}"
    return [[number(part) for part in side.split(", ")] for side in re.search(told, text).groups()]


def assert_true_to_torch(lab, **setting):
    """Both sides and the gap are those of torch.nn, in words and in the name of the picture."""
    together, apart = torch_sides(**setting)
    gap, words = together - apart, plain(lab.readout.value)
    for text in (words, spoken(lab)):
        for told, true in zip(sides_told_in(text), (together, apart), strict=True):
            assert told == pytest.approx(true, rel=6e-5, abs=6e-5)
    if setting.get("training", True):
        assert ("Not linear" in words) == (np.abs(gap).max() > 1e-3)
        assert ("One case that fits is no proof" in words) == (np.abs(gap).max() <= 1e-3)
        if "Not linear" in words:
            largest = re.search(r"largest gap is (\S+)\.", words)[1]
            assert number(largest) == pytest.approx(np.abs(gap).max(), rel=1e-3, abs=1e-4)
        return
    assert "Affine" in words
    share, at_zero, told = map(
        number,
        re.search(r"\(1 − a − b\) · T\(0\) = (\S+) · \((\S+)\) = (\S+) every", words).groups(),
    )
    a, b = setting.get("a", 1), setting.get("b", 1)
    (zero, *_), _ = torch_sides(x1=(0, 0), x2=(0, 0), eps=setting.get("eps", 1e-5), training=False)
    assert (share, at_zero) == pytest.approx((1 - a - b, zero), rel=1e-3, abs=1e-4)
    assert gap == pytest.approx((1 - a - b) * zero, rel=1e-6, abs=1e-9)
    assert told == pytest.approx(gap[0], rel=1e-3, abs=1e-4)


def assert_alarmed(lab, rule):
    assert 'role="alert"' in lab.readout.value
    assert rule in plain(lab.readout.value)
    assert "<svg" not in lab.picture.value
    assert "Traceback" not in lab.readout.value + lab.picture.value


@every_mode
@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_sides_are_torchs(case, training):
    setting = case | {"training": training}
    assert_true_to_torch(labs.linearity_lab(**setting), **setting)


def test_both_sides_are_torchs_wherever_a_lab_is_moved():
    lab, random = labs.linearity_lab(), Random(0)
    for _ in range(12):
        count = random.randint(2, 8)
        setting = {
            "a": random.uniform(-3, 3),
            "b": random.choice((0, 1, random.uniform(-3, 3))),
            "x1": [round(random.uniform(-20, 20), 3) for _ in range(count)],
            "x2": [random.randint(-9, 9) for _ in range(count)],
            "eps": 10 ** random.uniform(-8, 2),
            "training": random.random() < 0.5,
        }
        for name, value in setting.items():
            typed = ",".join(map(str, value)) if isinstance(value, list) else value
            getattr(lab, name).value = typed
        assert_true_to_torch(lab, **setting)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (-1, 2), (1, 0), (0.7, 0.3), (2.4, -1.4)])
def test_in_eval_there_is_no_gap_if_the_factors_add_up_to_one(a, b):
    lab = labs.linearity_lab(a, b, training=False)
    assert_true_to_torch(lab, a=a, b=b, training=False)
    assert re.search(r"T\(0\) = 0 · \(−1\) = 0 everywhere", plain(lab.readout.value))


@pytest.mark.parametrize("kind", [tuple, list, np.array, lambda x: np.array(x, dtype=np.float32)])
def test_vectors_may_be_tuples_lists_or_arrays(kind):
    x1, x2 = (1.5, -2.0, 6.25), (4.0, 1.0, 0.125)
    lab = labs.linearity_lab(x1=kind(x1), x2=kind(x2))
    assert (lab.x1.value, lab.x2.value) == ("1.5, -2, 6.25", "4, 1, 0.125")
    assert_true_to_torch(lab, x1=x1, x2=x2)


@pytest.mark.parametrize("x1", [(100001.5, 2, 3), (0.123456789, 0.1234567, 0.2)], ids=str)
def test_a_vector_keeps_all_its_digits(x1):
    typed = labs.linearity_lab(x1=x1, training=False).x1.value
    assert [float(part) for part in typed.split(",")] == [*x1]


@pytest.mark.parametrize("text", [*NOT_NUMBERS, "1", "1, 2, 3, 4", "1, 2, 3, 4, 5, 6, 7, 8, 9"])
@pytest.mark.parametrize("name", ["x1", "x2"])
def test_odd_text_shows_the_rule_and_the_lab_goes_on(name, text):
    lab = labs.linearity_lab()
    first, shown = getattr(lab, name).value, (lab.readout.value, lab.picture.value)
    getattr(lab, name).value = text
    if text in NOT_NUMBERS:
        assert_alarmed(lab, f"{'x₁' if name == 'x1' else 'x₂'} must be numbers with commas")
        assert f"got {text!r}" in unescape(lab.readout.value)
        assert "<b>1" not in lab.readout.value
    else:
        assert_alarmed(lab, "equally many numbers, up to 8: got")
    lab.b.value = 2
    assert 'role="alert"' in lab.readout.value
    lab.b.value = 1
    getattr(lab, name).value = first
    assert (lab.readout.value, lab.picture.value) == shown


def test_one_number_is_refused_in_training_and_fine_in_eval():
    lab = labs.linearity_lab(x1=[3], x2=[5])
    assert_alarmed(lab, "more than 1 value per channel")
    lab.training.value = False
    assert_true_to_torch(lab, x1=[3], x2=[5], training=False)
    lab.training.value = True
    assert_alarmed(lab, "more than 1 value per channel")


@every_mode
@pytest.mark.parametrize("text", ["1e308, 1, 2", "5e307, -5e307, 1", "1e200, 1, 2"])
def test_the_largest_numbers_are_no_error_of_the_labs_own(text, training):
    lab = labs.linearity_lab(training=training)
    lab.x1.value = text
    assert "Traceback" not in lab.picture.value


def bars_in(lab):
    """The filled bars of both sides and of the gap: their highest and lowest ends, in the SVG."""
    svg = ElementTree.fromstring(lab.picture.value)
    paths = svg.findall(".//{*}path[@class='nv-in']")
    filled = [path for path in paths if "fill: none" not in path.get("style")]
    ends = [re.findall(r"[ML] \S+ (\S+)", path.get("d")) for path in filled]
    return [max(map(float, ys)) - min(map(float, ys)) for ys in ends]


def test_both_sides_and_a_gap_are_drawn():
    *sides, gap = bars_in(labs.linearity_lab())
    assert len(sides) == 2
    assert min(*sides, gap) > 50


@pytest.mark.parametrize(
    ("a", "b", "training"), [(0.3, 0.7, False), (2.4, -1.4, False), (1, 0, True)]
)
def test_rounding_is_not_drawn_as_a_gap(a, b, training):
    *sides, gap = bars_in(labs.linearity_lab(a, b, training=training))
    assert min(sides) > 50
    assert gap < 1
