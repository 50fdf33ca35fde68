"""The shape lab, without a kernel: it says what torch does, at every position of its controls."""

import inspect
import re
from math import prod
from xml.etree import ElementTree

import pytest
import torch
from reading import cells_of, number, plain
from torch import nn
from traitlets import TraitError

import normviz
from normviz import Reduction, labs
from normviz.labs import shapes, shaping
from normviz.labs.lab import View

IMAGES, VOLUMES = ["n c h w"], ["n c d h w"]
ANY = ["n c", "n c l", *IMAGES, *VOLUMES]
TAKES = {  # the axes of a layer's input, or of its weight; of others, those of their plans
    "BatchNorm1d": ANY[:2],
    "BatchNorm2d": IMAGES,
    "BatchNorm3d": VOLUMES,
    "FilterResponseNorm2d": IMAGES,
    "GroupNorm": ANY,
    "InstanceNorm1d": ["n c l", "c l"],
    "InstanceNorm2d": ["n c h w", "c h w"],
    "InstanceNorm3d": ["n c d h w", "c d h w"],
    "LayerNorm": ["n c", "n t c", *IMAGES, *VOLUMES],
    "RMSNorm": ["n c", "n t c", *IMAGES, *VOLUMES],
    "MABN2d": IMAGES,
    "SwitchableNorm2d": IMAGES,
    "CentredConv2d": ["o i h w"],
    "weight_norm": ["o i", "o i l", "o i h w", "o i d h w"],
}
PLACES = [
    (layer, axes)
    for layer in shapes.LAYER_MAKERS
    for axes in TAKES.get(layer, shapes.plans_of(layer))
]
OF_TORCH = [(layer, axes) for layer, axes in PLACES if hasattr(nn, layer)]
SHOWS, BYS = ("input", "normalized", "output"), ("statistic", "weight")

every_place = pytest.mark.parametrize(("layer", "axes"), PLACES)
every_torch_place = pytest.mark.parametrize(("layer", "axes"), OF_TORCH)
every_look = pytest.mark.parametrize(  # each place by both, with two of the three shows
    ("layer", "axes", "show", "by"),
    [
        (*place, SHOWS[(i + j) % 3], by)
        for i, place in enumerate(PLACES)
        for j, by in enumerate(BYS)
    ],
)


def open_lab(layer, axes, show="input", by="statistic"):
    lab = labs.shape_lab(layer)
    lab.axes.value, lab.show.value = axes, show
    lab.by.value = by if by in lab.by.options else "statistic"
    return lab


def options_of(control):
    return [o[1] if isinstance(o, tuple) else o for o in control.options]


def torch_layer(lab):
    """The layer of torch.nn that the controls stand for, or else normviz's."""
    name, shape, axes = lab.layer.value, lab.shape.value, lab.axes.value.split()
    if not hasattr(nn, name):
        return shapes.make_layer(name, lab.axes.value, shape)
    channels = shape[axes.index("c")]
    known = {"num_features": channels, "num_channels": channels, "num_groups": lab.groups.value}
    known["normalized_shape"] = shape[-lab.normalized_shape.value :]
    taken = inspect.signature(getattr(nn, name)).parameters.keys() & known.keys()
    return getattr(nn, name)(**{argument: known[argument] for argument in taken})


def slices_of(lab):
    return ElementTree.fromstring(lab.picture.value).findall(".//*[@class='nv-slice']")


def assert_true_to_torch(lab):
    """The readout says what the layer does, and the picture groups what it pools."""
    shape, by, ndim = lab.shape.value, lab.by.value, len(lab.shape.value)
    try:
        layer = torch_layer(lab)
        layer(torch.zeros(1, *shape[1:]) if "o" in lab.axes.value else torch.zeros(shape))
    except ValueError as error:  # no such layer, or it refuses the input
        assert 'role="alert"' in lab.readout.value
        rule = re.search("^Expected more than 1 [a-z]+", str(error))
        assert (rule[0] if rule else "must divide") in plain(lab.readout.value)
        return
    plan = normviz.plan_of(layer, ndim)
    if by in ("statistic", "weight"):
        labels = Reduction.of(layer, ndim, by=by).labels(shape)
        cells = cells_of(lab.picture.value)
        assert cells
        assert all(label == labels[index] for index, (label, _) in cells.items())
    labels = Reduction.of(layer, ndim).labels(shape)
    statistics, said = int(labels.max()) + 1, plain(lab.readout.value)
    count = prod(shape) // statistics
    for _, kind in plan.symbols:
        assert f"{statistics:,} {kind}{'s' * (statistics > 1)}" in said
    more = f"{Reduction.of(layer, ndim)}. Each pools {count:,} number{'s' * (count > 1)}"
    assert more in said
    if hasattr(nn, lab.layer.value):
        weight, running = layer.weight, getattr(layer, "running_mean", None)
        if getattr(layer, "bias", None) is not None:
            assert f"weight and bias have shape {tuple(weight.shape)} ," in said
        kept = f"running_var {'none' if running is None else tuple(running.shape)} ."
        assert (kept if plan.running else "no running statistics.") in said


def test_the_lab_offers_each_layer_with_its_input_axes():
    lab = labs.shape_lab()
    found = []
    for layer in lab.layer.options:
        lab.layer.value = layer
        found += [(layer, axes) for axes in options_of(lab.axes)]
    assert found == PLACES
    assert TAKES.keys() <= {*lab.layer.options}
    assert (options_of(lab.show), options_of(lab.by)) == ([*SHOWS], [*BYS])
    lab.layer.value = "SwitchableNorm2d"
    assert options_of(lab.by) == [*BYS, "instance", "layer", "batch"]


@pytest.mark.parametrize("layer", ["CentredConv2d", "weight_norm"])
def test_a_weight_that_is_normalized_is_counted_through(layer):
    numbers = [number for _, number in cells_of(labs.shape_lab(layer).picture.value).values()]
    assert all(map(float.is_integer, numbers)) and len({*numbers}) > 2


@every_look
def test_every_control_at_both_its_ends_is_true_to_torch(layer, axes, show, by):
    lab = open_lab(layer, axes, show, by)
    assert (lab.layer.value, lab.show.value) == (layer, show)
    for slider in lab.shape.children:
        for end in (slider.max, slider.min):
            slider.value = end
            assert_true_to_torch(lab)
    for end in (len(lab.normalized_shape.options) - 1, 0):
        lab.normalized_shape.index = end
        assert_true_to_torch(lab)
    for end in (1, 8):
        lab.shape.value = (end,) * len(lab.shape.value)
        assert_true_to_torch(lab)


def test_groups_that_do_not_divide_show_the_rule_and_the_lab_goes_on():
    lab = labs.shape_lab("GroupNorm", groups=2, shape=(3, 6, 2, 2), axes="n c h w")
    for groups in range(1, 9):
        lab.groups.value = groups
        assert ('role="alert"' in lab.readout.value) == (6 % groups > 0)
        assert slices_of(lab)
        assert_true_to_torch(lab)
    assert "num_groups must divide num_channels: got 8 groups for 6" in plain(lab.readout.value)
    for layer in ("BatchNorm2d", "GroupNorm"):  # coming back, the lab opens on what divides
        lab.layer.value = layer
        assert 'role="alert"' not in lab.readout.value


@every_torch_place
def test_the_numbers_in_the_picture_are_torchs(layer, axes):
    lab = open_lab(layer, axes)
    for last in options_of(lab.normalized_shape):
        lab.normalized_shape.value = last
        found, shape = {}, lab.shape.value
        for show in SHOWS:
            lab.show.value = show
            cells = cells_of(lab.picture.value)
            assert len(cells) == prod(shape)  # all are drawn at the first sizes
            found[show] = torch.tensor([cells[i][1] for i in sorted(cells)])
        if torch_layer(lab).weight is None:
            continue
        lab.by.value = "weight"
        spoken = [group.get("aria-label") for group in slices_of(lab)]
        lab.by.value = "statistic"
        weights = [re.search("weight ([^,]*)(?:, bias (.*))?$", line).groups() for line in spoken]

        twin, x = torch_layer(lab), found["input"].reshape(shape)
        assert len(x.unique()) > 3
        normalized = twin(x).detach().flatten()
        torch.testing.assert_close(found["normalized"], normalized, atol=6e-3, rtol=0)
        with torch.no_grad():
            for name, texts in zip(("weight", "bias"), zip(*weights, strict=True), strict=True):
                if getattr(twin, name, None) is not None:
                    numbers = torch.tensor([*map(number, texts)])
                    getattr(twin, name).view(-1).copy_(numbers)
        assert len(twin.weight.unique()) > 1
        output = twin(x).detach().flatten()
        torch.testing.assert_close(found["output"], output, atol=6e-3, rtol=0)


def test_a_slider_shows_more_or_fewer_numbers_but_never_others():
    lab = open_lab("BatchNorm1d", "n c l")
    lab.shape.value = (2, 3, 4)
    few = cells_of(lab.picture.value)
    lab.shape.value = (3, 5, 4)
    many = cells_of(lab.picture.value)
    assert len(few) < len(many)
    assert all(many[index][1] == value for index, (_, value) in few.items())


@pytest.mark.parametrize(("layer", "axes"), [p for p in PLACES if p[0].startswith("BatchNorm")])
def test_one_value_per_channel_shows_the_rule_and_the_lab_goes_on(layer, axes):
    lab = open_lab(layer, axes)
    others = [s for s in lab.shape.children if not s.description.startswith("c,")]
    for slider in others:
        assert 'role="alert"' not in lab.readout.value
        slider.value = 1
    assert 'role="alert"' in lab.readout.value
    assert "Expected more than 1 value per channel when training" in plain(lab.readout.value)
    assert f"got x of shape {lab.shape.value}" in plain(lab.readout.value)
    assert "Traceback" not in lab.readout.value
    others[-1].value = 2
    assert 'role="alert"' not in lab.readout.value
    assert_true_to_torch(lab)


@every_place
def test_the_shape_sets_the_sliders_and_the_sliders_set_the_shape(layer, axes):
    lab = open_lab(layer, axes)
    sizes = (6, 2, 5, 1, 8)[: len(axes.split())]
    lab.shape.value = sizes
    assert tuple(slider.value for slider in lab.shape.children) == sizes
    for i, slider in enumerate(lab.shape.children):
        slider.value = 3
        assert lab.shape.value == (3,) * (i + 1) + sizes[i + 1 :]
    assert_true_to_torch(lab)


@pytest.mark.parametrize(
    "shape",
    [(), (2,), (2, 3, 4), (0, 3), (3, 9), (-1, 3), (10**9, 3), (2.5, 3), "23", 6, None],
    ids=str,
)
def test_a_wrong_shape_is_refused_and_changes_nothing(shape):
    lab = open_lab("BatchNorm1d", "n c")
    lab.shape.value = (4, 5)
    before = lab.readout.value, lab.picture.value
    with pytest.raises(TraitError):
        lab.shape.value = shape
    assert lab.shape.value == (4, 5)
    assert [slider.value for slider in lab.shape.children] == [4, 5]
    assert (lab.readout.value, lab.picture.value) == before
    lab.shape.value = (5, 4)
    assert_true_to_torch(lab)


def test_a_shape_that_is_set_draws_once(monkeypatch):
    lab, drawn = labs.shape_lab("BatchNorm1d"), []
    monkeypatch.setattr(type(lab), "view", lambda lab: drawn.append(lab.shape.value) or View(""))
    lab.shape.value = (7, 6)
    assert drawn == [(7, 6)]


@every_place
def test_the_largest_position_takes_a_picture_of_bounded_size(layer, axes):
    lab = open_lab(layer, axes, "output", "weight")  # with the longest captions
    for slider in lab.shape.children:
        slider.value = 10**9  # further than it goes
    assert lab.shape.value == (8,) * len(axes.split())
    assert 'class="nv-slice"' in lab.picture.value
    assert len(lab.picture.value.encode()) < 200_000


def test_an_error_on_the_way_is_not_drawn_over(monkeypatch):
    def fail(sliders, axes):
        raise RuntimeError("no such axes")

    lab = labs.shape_lab()
    with monkeypatch.context() as broken:
        broken.setattr(shaping.ShapeSliders, "ask_for", fail)
        lab.layer.value = "LayerNorm"
        assert "RuntimeError: no such axes" in lab.picture.value
    lab.layer.value = "BatchNorm3d"
    assert_true_to_torch(lab)


def test_a_lab_opens_on_any_number_of_groups():
    for groups in range(1, 9):
        lab = labs.shape_lab("GroupNorm", groups=groups)
        assert lab.groups.value == groups
        assert "Refused" not in lab.readout.value
    assert "Refused" in labs.shape_lab("GroupNorm", groups=4, shape=(2, 6)).readout.value
