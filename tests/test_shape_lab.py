"""The shape lab, without a kernel: it says what torch does, at every position of its controls."""

import re
import runpy
from html import unescape
from itertools import pairwise
from math import prod
from xml.etree import ElementTree

import pytest
import torch
from torch import nn
from traitlets import TraitError

from normviz import Reduction, labs
from normviz.labs import shapes
from normviz.labs.lab import View

PLACES = [
    ("BatchNorm1d", "n c"),
    ("BatchNorm1d", "n c l"),
    ("BatchNorm2d", "n c h w"),
    ("BatchNorm3d", "n c d h w"),
    ("LayerNorm", "n c"),
    ("LayerNorm", "n t c"),
    ("LayerNorm", "n c h w"),
    ("LayerNorm", "n c d h w"),
]
SHOWS, BYS = ("input", "normalized", "output"), ("statistic", "weight")

every_place = pytest.mark.parametrize(("layer", "axes"), PLACES)
every_show = pytest.mark.parametrize("show", SHOWS)
every_by = pytest.mark.parametrize("by", BYS)


def open_lab(layer, axes, show="input", by="statistic"):
    lab = labs.shape_lab(layer)
    lab.axes.value, lab.show.value, lab.by.value = axes, show, by
    return lab


def options_of(control):
    return [o[1] if isinstance(o, tuple) else o for o in control.options]


def torch_layer(lab, **options):
    """The layer of torch.nn that the controls stand for."""
    shape = lab.shape.value
    if lab.layer.value == "LayerNorm":
        return nn.LayerNorm(shape[-lab.normalized_shape.value :])
    return getattr(nn, lab.layer.value)(shape[1], **options)


def readout_of(lab):
    return unescape(re.sub("<[^>]*>", " ", lab.readout.value))


def slices_of(lab):
    return ElementTree.fromstring(lab.picture.value).findall(".//*[@class='nv-slice']")


def number(text):
    return float(text.replace("−", "-"))


def cells_of(lab):
    """index → (label, number) of every cell in the picture."""
    return {
        tuple(map(int, cell.get("data-index").split(","))): (
            int(group.get("data-label")),
            number(text.text),
        )
        for group in slices_of(lab)
        for cell, text in pairwise(group)
        if cell.get("data-index")
    }


def assert_true_to_torch(lab):
    """The readout says what torch.nn does, and the picture groups what its layer pools."""
    layer, shape, by = torch_layer(lab), lab.shape.value, lab.by.value
    labels = Reduction.of(layer, len(shape), by=by).labels(shape)
    cells = cells_of(lab)
    assert cells
    assert all(label == labels[index] for index, (label, _) in cells.items())

    running = getattr(layer, "running_mean", None)
    if running is not None and prod(shape) == shape[1]:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            layer(torch.zeros(shape))
        assert 'role="alert"' in lab.readout.value
        assert "more than 1 value per channel" in readout_of(lab)
        return
    count = layer.weight.numel() if running is None else prod(shape) // running.numel()
    statistics = prod(shape) // count
    said = " ".join(readout_of(lab).split())
    for claim in (
        f"{statistics:,} mean{'s' * (statistics > 1)} and {statistics:,} variance",
        f"{Reduction.of(layer, len(shape))}. Each pools {count:,} number{'s' * (count > 1)} .",
        f"weight and bias have shape {tuple(layer.weight.shape)} ,",
        f"running_var {'none' if running is None else tuple(running.shape)} .",
    ):
        assert claim in said


def test_the_lab_offers_each_layer_with_its_input_axes():
    lab = labs.shape_lab()
    found = []
    for layer in lab.layer.options:
        lab.layer.value = layer
        found += [(layer, axes) for axes in options_of(lab.axes)]
    assert found == PLACES
    assert (options_of(lab.show), options_of(lab.by)) == ([*SHOWS], [*BYS])


@pytest.mark.parametrize("layer", ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm"])
def test_a_lab_opens_on_the_layer_that_is_asked_for(layer):
    lab = labs.shape_lab(layer)
    assert lab.layer.value == layer
    assert_true_to_torch(lab)


@pytest.mark.parametrize("layer", ["GroupNorm", "batchnorm1d", "", None, nn.LayerNorm])
def test_an_unknown_layer_is_refused_with_the_known_ones(layer):
    known = "BatchNorm1d, BatchNorm2d, BatchNorm3d, LayerNorm: got"
    with pytest.raises(ValueError, match=known):
        labs.shape_lab(layer)


@every_place
@every_show
@every_by
def test_every_control_at_both_its_ends_is_true_to_torch(layer, axes, show, by):
    lab = open_lab(layer, axes, show, by)
    assert (lab.layer.value, lab.show.value, lab.by.value) == (layer, show, by)
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


@every_place
def test_the_numbers_in_the_picture_are_torchs(layer, axes):
    lab = open_lab(layer, axes)
    for last in options_of(lab.normalized_shape):
        lab.normalized_shape.value = last
        found, shape = {}, lab.shape.value
        for show in SHOWS:
            lab.show.value = show
            cells = cells_of(lab)
            assert len(cells) == prod(shape)  # all are drawn at the first sizes
            found[show] = torch.tensor([cells[i][1] for i in sorted(cells)])
        lab.by.value = "weight"
        spoken = [group.get("aria-label") for group in slices_of(lab)]
        lab.by.value = "statistic"
        weights = [re.search("weight (.*), bias (.*)$", line).groups() for line in spoken]

        twin, x = torch_layer(lab), found["input"].reshape(shape)
        assert len(x.unique()) > 3
        normalized = twin(x).detach().flatten()
        torch.testing.assert_close(found["normalized"], normalized, atol=6e-3, rtol=0)
        with torch.no_grad():
            for weight, bias, texts in zip(
                twin.weight.view(-1), twin.bias.view(-1), weights, strict=True
            ):
                weight.copy_(number(texts[0]))
                bias.copy_(number(texts[1]))
        assert len(twin.weight.unique()) > 1
        output = twin(x).detach().flatten()
        torch.testing.assert_close(found["output"], output, atol=6e-3, rtol=0)


def test_a_slider_shows_more_or_fewer_numbers_but_never_others():
    lab = open_lab("BatchNorm1d", "n c l")
    lab.shape.value = (2, 3, 4)
    few = cells_of(lab)
    lab.shape.value = (3, 5, 4)
    many = cells_of(lab)
    assert len(few) < len(many)
    assert all(many[index][1] == value for index, (_, value) in few.items())


def test_every_session_shows_the_same_numbers():
    fresh = runpy.run_path(shapes.__file__)["shape_lab"]()
    assert fresh.picture.value == labs.shape_lab().picture.value


@pytest.mark.parametrize(("layer", "axes"), PLACES[:4])
@every_show
@every_by
def test_one_value_per_channel_shows_the_rule_and_the_lab_goes_on(layer, axes, show, by):
    lab = open_lab(layer, axes, show, by)
    others = [s for s in lab.shape.children if not s.description.startswith("c,")]
    for slider in others:
        assert 'role="alert"' not in lab.readout.value
        slider.value = 1
    assert 'role="alert"' in lab.readout.value
    assert "Expected more than 1 value per channel when training" in readout_of(lab)
    assert f"got x of shape {lab.shape.value}" in readout_of(lab)
    assert "Traceback" not in lab.readout.value
    others[-1].value = 2
    assert 'role="alert"' not in lab.readout.value
    assert_true_to_torch(lab)


@every_place
def test_the_shape_sets_the_sliders_and_the_sliders_set_the_shape(layer, axes):
    lab = open_lab(layer, axes)
    sizes = (7, 2, 5, 1, 8)[: len(axes.split())]
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


def test_every_move_draws_once_at_its_end(monkeypatch):
    lab, drawn = labs.shape_lab("BatchNorm1d"), []
    monkeypatch.setattr(shapes, "view_shape", lambda setting: drawn.append(setting) or View(""))

    def expect_one():
        assert len(drawn) == 1
        setting = drawn.pop()
        assert setting.layer == lab.layer.value
        assert setting.shape == lab.shape.value
        assert len(setting.shape) == len(lab.axes.value.split())
        assert setting.normalized_shape == lab.normalized_shape.value < len(setting.shape)
        assert (setting.show, setting.by) == (lab.show.value, lab.by.value)

    layers = ("LayerNorm", "BatchNorm3d", "BatchNorm1d", "BatchNorm2d", "LayerNorm")
    for control, value in (
        *((lab.layer, layer) for layer in layers),
        *((lab.axes, axes) for axes in ("n c h w", "n t c", "n c d h w")),
        (lab.normalized_shape, 4),
        (lab.axes, "n t c"),
        (lab.shape, (7, 6, 5)),
        (lab.shape.children[1], 2),
        (lab.show, "output"),
        (lab.by, "weight"),
    ):
        control.value = value
        expect_one()


@every_place
@every_show
@every_by
def test_the_largest_position_takes_a_picture_of_bounded_size(layer, axes, show, by):
    lab = open_lab(layer, axes, show, by)
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
        broken.setattr(shapes.ShapeSliders, "ask_for", fail)
        lab.layer.value = "LayerNorm"
        assert "RuntimeError: no such axes" in lab.picture.value
    lab.layer.value = "BatchNorm3d"
    assert_true_to_torch(lab)
