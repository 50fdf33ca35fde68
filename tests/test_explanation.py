"""An explanation says what one pass of a layer computes, and the layer never learns of it."""

import copy
import dataclasses
import re
from itertools import pairwise, product
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

import normviz
from normviz import Reduction, explain
from normviz.picture import five_digits

KINDS = [
    ("BatchNorm1d", 3, (4, 3)),
    ("BatchNorm1d", 3, (4, 3, 5)),
    ("BatchNorm2d", 3, (4, 3, 5, 6)),
    ("BatchNorm3d", 3, (2, 3, 4, 5, 6)),
    ("LayerNorm", 6, (6,)),
    ("LayerNorm", 6, (4, 5, 6)),
    ("LayerNorm", [5, 6], (4, 3, 5, 6)),
    ("LayerNorm", [3, 4, 5, 6], (2, 3, 4, 5, 6)),
]
# Whether a layer was made to keep running statistics, and what became of that since.
TRACKING = {
    "tracked": (True, True),
    "untracked": (False, False),
    "no more tracked": (True, False),
    "tracked too late": (False, True),
}
MEETINGS = {
    f"{library.__name__} {name} {mode} {tracking} {shape}": (library, kind, mode, tracking)
    for library, kind, mode, tracking in product(
        (nn, normviz), KINDS, ("training", "eval"), TRACKING
    )
    for name, _, shape in [kind]
    if name != "LayerNorm" or tracking == "tracked"
}


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 0.5


def trained(layer):
    """The layer, with weights and statistics unlike those that it starts with."""
    for seed, values in enumerate(layer.state_dict().values(), 1):
        values.copy_(random(*values.shape, seed=seed) if values.ndim else torch.tensor(7))
    return layer


def meet(library, kind, mode, tracking):
    name, size, shape = kind
    made, now = TRACKING[tracking]
    options = {} if name == "LayerNorm" else {"track_running_stats": made}
    layer = trained(getattr(library, name)(size, **options)).train(mode == "training")
    if options:
        layer.track_running_stats = now
    return layer, random(*shape) * 5


@pytest.fixture(params=MEETINGS)
def meeting(request):
    """A layer and an input for it, new for each test."""
    return meet(*MEETINGS[request.param])


def pooled_axes(layer, x):
    if hasattr(layer, "num_features"):
        return [axis for axis in range(x.ndim) if axis != 1]
    return list(range(x.ndim - len(layer.normalized_shape), x.ndim))


def lay_out(values, layer, x, *, parameter=False):
    """Statistics, or parameters, in a shape that meets x."""
    if hasattr(layer, "num_features"):
        return values.reshape(-1, *[1] * (x.ndim - 2))
    return (
        values if parameter else values.reshape(*values.shape, *[1] * len(layer.normalized_shape))
    )


def equal_state(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_output_is_the_layers_and_the_steps_lead_to_it(meeting):
    layer, x = meeting
    explained = explain(layer, x)
    assert torch.equal(explained.output, layer(x))
    mean, var = (lay_out(stat, layer, x) for stat in (explained.mean, explained.var))
    weight, bias = (lay_out(p.detach(), layer, x, parameter=True) for p in layer.parameters())
    torch.testing.assert_close(explained.normalized, (x - mean) / (var + layer.eps).sqrt())
    torch.testing.assert_close(explained.output, explained.normalized * weight + bias)


def test_the_statistics_are_those_of_the_batch_or_those_that_were_stored(meeting):
    layer, x = meeting
    explained, axes = explain(layer, x), pooled_axes(layer, x)
    assert explained.count == x.numel() / explained.batch_mean.numel()
    torch.testing.assert_close(explained.batch_mean, x.mean(axes))
    torch.testing.assert_close(explained.batch_var, x.var(axes, correction=0))
    torch.testing.assert_close(explained.batch_var_unbiased, x.var(axes, correction=1))
    stored = not layer.training and getattr(layer, "running_mean", None) is not None
    assert explained.source == ("running" if stored else "batch")
    used = (layer.running_mean, layer.running_var) if stored else None
    used = used or (explained.batch_mean, explained.batch_var)
    assert torch.equal(explained.mean, used[0])
    assert torch.equal(explained.var, used[1])


def test_before_and_after_are_the_buffers_around_the_pass(meeting):
    layer, x = meeting
    explained = explain(layer, x)
    for seen in (explained.before, explained.after):
        if getattr(layer, "running_mean", None) is None:
            assert seen is None
        else:
            assert seen.keys() == {"running_mean", "running_var", "num_batches_tracked"}
            assert equal_state(seen, dict(layer.named_buffers()))
        layer(x)


def test_nothing_is_touched(meeting):
    layer, x = meeting
    x.requires_grad_().grad = torch.ones_like(x)
    layer.weight.grad = torch.ones_like(layer.weight)
    for register in (layer.register_forward_hook, layer.register_forward_pre_hook):
        register(lambda *_: pytest.fail("explain called a hook"))
    state, before, seed = (
        copy.deepcopy(layer.state_dict()),
        x.detach().clone(),
        torch.get_rng_state(),
    )
    flags = [value for value in vars(layer).values() if isinstance(value, bool)]
    explained = explain(layer, x)
    assert " of " in explained.picture().text
    assert " of " in repr(explained)
    for name, value in vars(explained).items():  # whatever is done to what it hands out
        for tensor in value.values() if isinstance(value, dict) else [value]:
            if isinstance(tensor, torch.Tensor):
                assert not tensor.requires_grad, name
                tensor.zero_()
    explained.layer.weight.data.zero_()
    assert equal_state(layer.state_dict(), state)
    assert flags == [value for value in vars(layer).values() if isinstance(value, bool)]
    assert [p.requires_grad for p in (x, *layer.parameters())] == [True] * 3
    assert torch.equal(x, before)
    assert (x.grad == 1).all()
    assert (layer.weight.grad == 1).all()
    assert layer.bias.grad is None
    assert torch.equal(torch.get_rng_state(), seed)


@pytest.mark.parametrize("library", [nn, normviz], ids=["torch", "normviz"])
@pytest.mark.parametrize("of_layer", [torch.float32, "half"], ids=str)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", ["training", "eval"])
@pytest.mark.parametrize("kind", [KINDS[2], KINDS[5]], ids=str)
def test_half_precision_is_explained_in_single(kind, mode, half, of_layer, library):
    layer, x = meet(library, kind, mode, "tracked")
    layer, x = layer.to(half if of_layer == "half" else of_layer), x.to(half)
    explained = explain(layer, x)
    assert explained.output.dtype == half
    assert torch.equal(explained.output, layer(x))
    for stat in ("mean", "var", "batch_mean", "batch_var", "batch_var_unbiased", "normalized"):
        assert getattr(explained, stat).dtype == torch.float32
    axes = pooled_axes(layer, x)
    torch.testing.assert_close(explained.batch_var, x.float().var(axes, correction=0))
    assert explained.picture(show="output").svg.count("data-index=") > 0


def test_an_explanation_of_a_layer_without_parameters_has_nothing_to_weigh():
    explained = explain(nn.LayerNorm(6, elementwise_affine=False), random(4, 6))
    torch.testing.assert_close(explained.output, explained.normalized)
    assert "γ = 1 and β = 0" in explained.picture(by="weight").text
    with pytest.raises(dataclasses.FrozenInstanceError):
        explained.source = "running"


def cells_of(picture):
    """index → (label, number) of every drawn element."""
    groups = ElementTree.fromstring(picture.svg).findall(".//*[@data-label]")
    return {
        tuple(map(int, cell.get("data-index").split(","))): (
            int(group.get("data-label")),
            float(text.text.replace("−", "-")),
        )
        for group in groups
        for cell, text in pairwise(group)
        if cell.get("data-index")
    }


def test_a_picture_groups_and_shows_what_it_is_asked_for(meeting):
    layer, x = meeting
    explained = explain(layer, x)
    shown = {"input": x, "normalized": explained.normalized, "output": explained.output}
    for by, (show, numbers) in product(("statistic", "weight"), shown.items()):
        cells = cells_of(explained.picture(by, show))
        labels = Reduction.of(layer, x.ndim, by=by).labels(x.shape)
        for index, (label, number) in cells.items():
            assert label == labels[index]
            assert number == pytest.approx(float(numbers[index]), abs=0.00501)
        assert len(cells) >= min(x.numel(), 60)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_statistics_and_weights_cross_in_layer_norm_and_are_one_in_batch_norm(kind):
    explained = explain(*meet(normviz, kind, "training", "tracked"))
    by_statistic, by_weight = (cells_of(explained.picture(by)) for by in ("statistic", "weight"))
    pairs = {(by_statistic[i][0], by_weight[i][0]) for i in by_statistic.keys() & by_weight.keys()}
    statistics, weights = map(set, zip(*pairs, strict=True))
    if kind[0] == "LayerNorm":
        assert pairs == set(product(statistics, weights))
    else:
        assert pairs == {(label, label) for label in range(3)}


@pytest.mark.parametrize("words", [("mean", "input"), ("statistic", "x"), ("statistic", None)])
def test_other_words_are_refused(words):
    with pytest.raises(ValueError, match=r"(by|show) must be "):
        explain(nn.BatchNorm1d(3), random(4, 3)).picture(*words)


def captions_of(picture):
    """Per drawn slice: the accessible name, and the lines that spell it out."""
    for group in ElementTree.fromstring(picture.svg).findall(".//*[@data-label]"):
        lines = [line.text for line in group.findall("*[@class='nv-lit nv-line']")]
        yield int(group.get("data-label")), group.get("aria-label"), lines


def test_the_captions_say_where_the_numbers_come_from(meeting):
    layer, x = meeting
    explained = explain(layer, x)
    tracks = bool(explained.before) and layer.training and layer.track_running_stats
    for label, spoken, lines in captions_of(explained.picture()):
        mean, var = (
            five_digits(float(s.reshape(-1)[label])) for s in (explained.mean, explained.var)
        )
        assert spoken.endswith(f"mean {mean}, variance {var}")
        if explained.source == "batch":
            assert [line.split(" = ")[-1] for line in lines[:2]] == [mean, var]
            unbiased = five_digits(float(explained.batch_var_unbiased.reshape(-1)[label]))
            count = f"{explained.count} / {explained.count - 1}"
            assert lines[2:] == [f"unbiased, to be stored: σ² · {count} = {unbiased}"] * tracks
        else:
            assert lines[0].startswith(f"μ = {mean} and σ² = {var} are the running statistics")
            own = (explained.batch_mean[label], explained.batch_var[label])
            numbers = " and variance ".join(five_digits(float(stat)) for stat in own)
            assert lines[1] == f"the numbers here have mean {numbers}: not used"
    assert ("one running mean per c" in explained.picture().text) == (explained.source == "running")


def test_the_way_of_the_first_number_comes_out(meeting):
    layer, x = meeting
    layer.bias.data.neg_()
    for by in ("statistic", "weight"):
        picture = explain(layer, -x).picture(by, "output")
        firsts = dict(reversed(cells_of(picture).values()))
        for label, _, lines in captions_of(picture):
            for line in lines[1:] if by == "weight" else lines:
                terms, _, result = line.partition(": ")[2].rpartition(" = ")
                terms = terms.rpartition(" = ")[2]
                for sign, operation in {"−": "-", "·": "*", "√(": "np.sqrt("}.items():
                    terms = terms.replace(sign, operation)
                result = float(result.replace("−", "-"))
                assert eval(terms) == pytest.approx(result, rel=1e-3, abs=1e-3)
            assert result == pytest.approx(firsts[label], abs=0.00501)


def test_the_printed_table_holds_the_statistics(meeting):
    layer, x = meeting
    explained = explain(layer, x)
    head, _, table = repr(explained).partition("\n\n")
    assert f"x of shape {tuple(x.shape)}" in head
    tracks = bool(explained.before) and layer.training and layer.track_running_stats
    columns = [explained.batch_mean, explained.batch_var]
    columns += [explained.batch_var_unbiased] * tracks
    for row, label in zip(table.splitlines()[1:12], range(11), strict=False):
        numbers = [five_digits(float(column.reshape(-1)[label])) for column in columns]
        for name in ("running_mean", "running_var") if explained.before else ():
            old, new = (
                five_digits(float(s[name][label])) for s in (explained.before, explained.after)
            )
            numbers.append(f"{old}, then {new}" if tracks else old)
        assert re.split(r"\s{2,}", row)[1:] == numbers
    assert ("unbiased" in table) == tracks


def test_a_table_of_a_thousand_statistics_is_short():
    lines = repr(explain(nn.BatchNorm1d(1000), -random(4, 1000) / 1e5)).splitlines()
    assert len(lines) < 20
    assert max(map(len, lines)) <= 100
    assert (lines[-2], lines[-1].split()[:2]) == ("…", ["channel", "999"])


@pytest.mark.parametrize("shape", [(0, 3), (2, 1, 2, 1, 2, 3)], ids=str)
def test_what_fits_no_page_has_a_table_still(shape):
    explained = explain(nn.LayerNorm(3), random(*shape))
    assert explained._repr_html_() is None
    assert repr(explained).count("\n") == 4 + explained.mean.numel()
    with pytest.raises(ValueError, match="to be drawn"):
        explained.picture()
    assert "data-index" in explain(nn.LayerNorm(3), random(2, 3))._repr_html_()


def test_one_value_per_channel_is_refused_before_the_counter_moves():
    layer = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        explain(layer, random(1, 3))
    assert layer.num_batches_tracked == 0
    explained = explain(layer.eval(), random(1, 3))
    assert (explained.source, explained.count) == ("running", 1)
    assert explained.batch_var_unbiased.isnan().all()


@pytest.mark.parametrize(
    ("layer", "x", "rule"),
    [
        (nn.Linear(3, 3), random(4, 3), "layer must be"),
        (None, random(4, 3), "layer must be"),
        (nn.GroupNorm(1, 3), random(4, 3), "layer must be"),
        (nn.InstanceNorm1d(3), random(4, 3, 5), "layer must be"),
        (nn.BatchNorm1d, random(4, 3), "layer must be"),
        (nn.BatchNorm1d(3), np.ones((4, 3)), "torch tensor"),
        (nn.BatchNorm1d(3), [[1.0, 2.0, 3.0]], "torch tensor"),
        (nn.BatchNorm1d(3), None, "torch tensor"),
        (nn.BatchNorm1d(3), torch.ones(4, 3, dtype=int), "floating-point"),
        (nn.BatchNorm1d(3), random(4, 2), "num_features=3"),
        (nn.BatchNorm2d(3), random(4, 3), "2 axes"),
        (nn.LayerNorm([3, 4]), random(3, 3), "normalized_shape"),
        (nn.LayerNorm([3, 4]), random(4), "2 axes or more"),
        (nn.LayerNorm(3), random(4, 3).double(), "one dtype"),
    ],
    ids=str,
)
def test_what_no_layer_could_take_is_refused(layer, x, rule):
    with pytest.raises(ValueError, match=rule):
        explain(layer, x)
