"""The relatives lab tells what torch.nn makes of an outlier: which outputs move, and how far."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from reading import number, numbers_in, words_of
from torch import nn

import normviz
from normviz import labs
from normviz.labs.outliers import NAMES, STORED, TRACKED, WINDOWS, axes_of
from normviz.slices import QUIET

PLACES = [(name, axes) for name in NAMES for axes in axes_of(name)]
OUTLIERS = {2: (1, 2), 3: (1, 1, 1), 4: (2, 1, 1, 0), 5: (1, 2, 0, 1, 0)}
NOISE = 1e-12  # in double precision
MEMORY = {"running_mean": 0, "running_var": 30, "memory_x2": 30, "iterations": 200}

every_place = pytest.mark.parametrize(("name", "axes"), PLACES)
every_mode = pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])


def open_at(name, **more):
    """The lab on a layer for images, with an outlier in the middle."""
    return labs.relatives_lab(name, **({"outlier": OUTLIERS[4]} | more))


def layer_like(lab):
    """The layer of torch.nn, or where there is none that of normviz, as the lab says it is."""
    name, axes = lab.layer.value, lab.axes.value.split()
    shape, tracked = lab.shape.value, name.endswith(TRACKED)
    name = name.removesuffix(TRACKED)
    channels = shape[axes.index("c")]
    if name == WINDOWS:
        return nn.LocalResponseNorm(3, alpha=1.0)
    where = normviz if not hasattr(nn, name) or name == "SyncBatchNorm" else nn
    arguments = {
        "GroupNorm": (lab.groups.value, channels),
        "LayerNorm": (shape[-lab.normalized_shape.value :],),
        "RMSNorm": (shape[-lab.normalized_shape.value :],),
    }.get(name, (channels,))
    layer = getattr(where, name)(*arguments, **{"track_running_stats": True} if tracked else {})
    for buffer, size in MEMORY.items():
        if getattr(layer, buffer, None) is not None:
            getattr(layer, buffer).fill_(size)
    return layer.double().train(lab.training.value)


def inputs_of(lab):
    """The batch, read from the lab's picture of the input, without and with the outlier."""
    show, lab.show.value = lab.show.value, "input"
    x = torch.tensor(cells_of(lab)[0])
    lab.show.value = show
    calm = x.clone()
    calm[lab.outlier.value] -= lab.size.value
    return calm, x


def passes_of(lab):
    """The batch, and of it and the disturbed one: the outputs, and the layers afterwards."""
    inputs, layers = inputs_of(lab), (layer_like(lab), layer_like(lab))
    with torch.no_grad():
        return inputs[0], [f(x) for f, x in zip(layers, inputs, strict=True)], layers


def cells_of(lab):
    """The numbers of the cells, and which of them have no colour."""
    [svg] = re.findall("<svg.*?</svg>", lab.picture.value, re.DOTALL)
    numbers, quiet = np.full(lab.shape.value, np.nan), np.zeros(lab.shape.value, bool)
    for group in ElementTree.fromstring(svg).iterfind(".//*[@class]"):
        if group.get("class").startswith("nv-slice"):
            for cell, text in zip([*group], [*group][1:], strict=False):
                if cell.get("data-index"):
                    index = tuple(map(int, cell.get("data-index").split(",")))
                    numbers[index], quiet[index] = number(text.text), cell.get("fill") == QUIET
    return numbers, quiet


def near(expected):
    return pytest.approx(expected, rel=1e-4, abs=1e-9)


# What is drawn and told is what torch does.


@every_mode
@every_place
def test_it_tells_what_torch_makes_of_the_outlier(name, axes, training):
    lab = labs.relatives_lab(name, axes=axes, training=training)
    lab.outlier.value = OUTLIERS[len(axes.split())]
    x, (calm, disturbed), layers = passes_of(lab)
    change, words = (disturbed - calm).numpy(), words_of(lab)
    assert_cells_show(change, lab)
    assert_counted(change, lab.outlier.value, words)
    assert_neighbours_counted(np.abs(change) > NOISE, lab.outlier.value, axes.split(), words)
    assert_stored_told(x, layers, training, words)


def assert_cells_show(change, lab):
    """Each drawn cell shows how far its output moves; those that do not have no colour."""
    shown, quiet = cells_of(lab)
    drawn = ~np.isnan(shown)
    assert drawn.sum() >= 16
    assert np.abs(shown - change)[drawn].max() < 0.006
    assert np.array_equal(quiet[drawn], (np.abs(change) <= NOISE)[drawn])


def assert_counted(change, at, words):
    count, total = numbers_in("# of # outputs move", words)
    assert (count, total) == ((np.abs(change) > NOISE).sum(), change.size)
    assert numbers_in("the outlier's own by #", words) == [near(change[at])]
    others = change.copy()
    others[at] = 0
    if not np.abs(others).max() > NOISE:
        assert "and no other" in words
        return
    where = re.search(r"of the others, the one at \(([^)]*)\)", words)[1]
    worst = tuple(map(int, where.split(",")))
    assert abs(others[worst]) == near(np.abs(others).max())
    assert numbers_in(r"the one at \([^)]*\) by #", words) == [near(others[worst])]


def assert_neighbours_counted(moved, at, axes, words):
    for axis, who in {"n": "Batch mates", "c": "Other channels", "t": "Other tokens"}.items():
        if axis not in axes:
            assert who not in words
            continue
        elsewhere = np.delete(moved, at[axes.index(axis)], axes.index(axis))
        told = numbers_in(f"{who} are (?:disturbed|left alone): # of # outputs", words)
        assert told == [elsewhere.sum(), elsewhere.size]
        assert (f"{who} are disturbed" in words) == elsewhere.any()


def assert_stored_told(x, layers, training, words):
    """What is stored, and what eval makes of it."""
    calm, disturbed = layers
    kept = [name for name, _ in calm.named_buffers() if name.startswith("running")]
    if not (kept and training):
        assert "nothing" in words.partition("Later: ")[2]
        assert ("eval stores nothing" in words) == bool(kept)
        return
    for buffer in kept:
        gap = (getattr(disturbed, buffer) - getattr(calm, buffer)).abs().max().item()
        assert numbers_in(f"{buffer} is off by #", words) == [near(gap)]
    with torch.no_grad():
        far = (disturbed.eval()(x) - calm.eval()(x)).abs().max().item()
    assert numbers_in("comes out up to # away", words) == [near(far)]


@pytest.mark.parametrize("name", ["BatchNorm2d", "InstanceNorm2d tracked", "MABN2d"])
def test_with_stored_statistics_a_number_disturbs_nobody(name):
    lab = open_at(name, training=False)
    assert "1 of 64 outputs moves" in words_of(lab)
    assert "Stored statistics normalize" in words_of(lab)


def test_a_slice_tells_its_statistics_without_and_with_the_outlier():
    lab = open_at("BatchNorm2d")
    for when, x in zip(("without", "with"), inputs_of(lab), strict=True):
        pattern = f"channel 1: .*?\\b{when} the outlier: μ = #, σ² = #"
        told = numbers_in(pattern, str(lab.still()))
        assert told == [near(x[:, 1].mean().item()), near(x[:, 1].var(correction=0).item())]
    lab.training.value = False
    assert "channel 1: stored, whatever the numbers are: μ = 0, σ² = 30" in str(lab.still())


def test_mixed_statistics_are_named_and_their_slices_are_said_to_overlap():
    words = words_of(open_at("SwitchableNorm2d"))
    assert "Three statistics are mixed, and their slices overlap" in words
    assert "layer, over c, h, w, one per n; batch, over n, h, w, one per c." in words
    words = words_of(open_at("SwitchableNorm2d", training=False))
    assert "batch, stored." in words


def test_windows_tell_their_mean_square():
    lab = open_at(WINDOWS)
    _, x = inputs_of(lab)
    pattern = r"sample 2, channel 0, row 1, column 0: .*with the outlier, channels 0 to 1: ν² = #"
    assert numbers_in(pattern, str(lab.still())) == [near(x[2, :2, 1, 0].square().sum().item() / 3)]
    assert "Windows overlap, so there are no slices" in words_of(lab)


def test_a_memory_takes_a_sixteenth_of_the_outlier():
    lab = open_at("MABN2d")
    calm, disturbed = (x[:, 1].square().mean().item() for x in inputs_of(lab))
    told = numbers_in(
        "channel 1: without the outlier: ν² = #; with the outlier: ν² = #", str(lab.still())
    )
    assert told == [near((15 * 30 + calm) / 16), near((15 * 30 + disturbed) / 16)]
    assert "The memory averages it with 15 earlier batches." in words_of(lab)


def test_what_stays_though_it_shares_a_mean_square_is_counted():
    lab = open_at("RMSNorm", outlier=(0, 0, 0, 0))
    zeros = (inputs_of(lab)[1][0] == 0).sum().item()
    assert zeros
    told = numbers_in(r"Not moved, though in its slice: # numbers? \(0 stays 0\)", words_of(lab))
    assert told == [zeros]
    assert "threshold" in words_of(open_at("FilterResponseNorm2d"))


# Its controls.


def test_it_opens_on_what_was_asked_for():
    lab = labs.relatives_lab()
    assert (lab.layer.value, lab.shape.value, lab.outlier.value) == (
        *("BatchNorm2d", (4, 4, 2, 2)),
        (0, 0, 0, 0),
    )
    lab = labs.relatives_lab("LayerNorm", (2, 3, 4), (1, 2, 3), -7.0)
    assert (lab.axes.value, lab.normalized_shape.value) == ("n t c", 1)
    assert " − 7 = " in lab.picture.value
    assert labs.relatives_lab("BatchNorm1d").shape.value == (4, 4)


def test_every_layer_of_torch_that_takes_slices_apart_is_there():
    known = {name.removesuffix(TRACKED) for name in NAMES}
    for name in ("BatchNorm1d", "LayerNorm", "InstanceNorm3d", "GroupNorm", "RMSNorm", WINDOWS):
        assert name in known
    assert {"SwitchableNorm2d", "FilterResponseNorm2d", "MABN2d"} <= known
    assert {"InstanceNorm2d tracked", "InstanceNorm1d tracked"} <= {*NAMES}
    assert not {"CentredConv2d", "weight_norm"} & known


def test_the_outlier_stays_in_a_batch_that_shrinks():
    lab = open_at("BatchNorm2d")
    lab.shape.value = (2, 4, 1, 2)
    assert lab.outlier.value == (1, 1, 0, 0)
    assert [s.description for s in lab.outlier.children] == [f"outlier's {a}" for a in "ncw"]
    assert lab.outlier.sliders["n"].max == 1
    assert (
        lab.picture.value
        == labs.relatives_lab(shape=(2, 4, 1, 2), outlier=(1, 1, 0, 0)).picture.value
    )
    lab.shape.value = (4, 4, 2, 2)
    assert lab.outlier.sliders["n"].max == 3


def test_only_a_layer_that_has_an_argument_has_its_control():
    lab = labs.relatives_lab()
    for name, groups, last in (
        ("BatchNorm2d", False, False),
        ("GroupNorm", True, False),
        ("LayerNorm", False, True),
        ("InstanceNorm2d tracked", False, False),
        (WINDOWS, False, False),
    ):
        lab.layer.value = name
        shown = [c.layout.visibility != "hidden" for c in (lab.groups, lab.normalized_shape)]
        assert shown == [groups, last]


def test_groups_fit_when_the_layer_is_chosen_and_are_refused_when_they_do_not():
    lab = labs.relatives_lab(shape=(2, 3, 2, 2))
    lab.layer.value = "GroupNorm"
    assert "Refused" not in lab.readout.value
    lab.groups.value = 3
    assert "num_groups must divide" in lab.readout.value


# The picture.


def test_a_ring_marks_the_outlier_and_its_slice_is_lit():
    lab = open_at("BatchNorm2d")
    svg = lab.picture.value
    cell = re.search(r'x="(\d+)" y="(\d+)" [^>]*data-index="2,1,1,0"', svg)
    x, y = map(int, cell.groups())
    assert f'<rect x="{x + 1}" y="{y + 1}"' in svg
    assert svg.count('stroke="#111" stroke-width="2"') == 1
    assert re.findall('nv-on" data-at="[^"]*" data-label="(.)"', svg) == ["1"]
    assert "nv-on" not in open_at("SwitchableNorm2d").picture.value


def test_an_outlier_that_is_not_drawn_is_told():
    lab = labs.relatives_lab(shape=(8, 4, 4, 2), outlier=(5, 0, 2, 0))
    assert 'data-index="5,0,2,0"' not in lab.picture.value
    assert "The outlier is not drawn: the batch is large." in words_of(lab)
    assert "not drawn" not in words_of(labs.relatives_lab())


def test_no_outlier_disturbs_nobody():
    for name in NAMES:
        lab = labs.relatives_lab(name, size=0.0)
        assert "nobody is disturbed" in words_of(lab)
        assert cells_of(lab)[1][~np.isnan(cells_of(lab)[0])].all()


def test_the_numbers_stay_the_same_while_a_slider_moves():
    lab = labs.relatives_lab(show="input", size=0.0)
    before = cells_of(lab)[0]
    lab.shape.value = (3, 4, 1, 2)
    assert np.array_equal(cells_of(lab)[0], before[:3, :, :1])
    assert STORED["running_var"] == np.var(np.arange(-9, 10))
