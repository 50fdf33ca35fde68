"""An explanation says what one pass of a layer computes, and the layer never learns of it."""

import dataclasses
import inspect
import pickle
import random as python_random
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from reading import cells_of, come_out
from test_conformance import CASES
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import normviz
from normviz import Plan, Reduction, explain, plan_of
from normviz.layers.norm import Norm
from normviz.looking import untouched
from normviz.words import five_digits

# Whether a layer was made to keep running statistics, and what became of that since.
TRACKING = {
    "tracked": (True, True),
    "untracked": (False, False),
    "no more tracked": (True, False),
    "tracked too late": (False, True),
}


def libraries_of(name):
    return [library for library in (nn, normviz) if hasattr(library, name)]


def tracks(name):
    return "track_running_stats" in inspect.signature(getattr(normviz, name)).parameters


def meetings():
    """Every case, and of those that track, the first with all that a flag may have become."""
    seen = set()
    for case in CASES:
        name, _, shape = case
        tracked = tracks(name) and name[:-2] not in seen
        seen.add(name[:-2])
        # torch's InstanceNorm and SyncBatchNorm cannot be tracked too late: they ask for buffers.
        ways = [*TRACKING][: 3 if name[0] in "IS" else 4] if tracked else ["tracked"]
        for library, mode, tracking in product(libraries_of(name), ("training", "eval"), ways):
            label = f"{library.__name__} {name} {mode} {tracking} {shape}"
            yield label, (library, case, mode, tracking)


MEETINGS = dict(meetings())
# A module whose weight is normalized → it, and the shape of an input.
OF_WEIGHTS = {
    "weight_norm": (lambda: normviz.weight_norm(nn.Conv2d(3, 2, 2)), (4, 3, 5, 6)),
    "weight_norm of Linear": (lambda: normviz.weight_norm(nn.Linear(5, 3)), (2, 5)),
    "weight_norm of all": (lambda: normviz.weight_norm(nn.Linear(5, 3), dim=None), (2, 5)),
    "weight_norm per input": (lambda: normviz.weight_norm(nn.Linear(5, 3), dim=1), (2, 5)),
    "torch's weight_norm": (lambda: parametrizations.weight_norm(nn.Linear(5, 3)), (2, 5)),
    "CentredConv2d": (lambda: normviz.CentredConv2d(3, 2, 2), (4, 3, 5, 6)),
}


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 0.5


def trained(layer):
    """The layer, with weights and statistics unlike those that it starts with."""
    for seed, values in enumerate(layer.state_dict().values(), 1):
        values.copy_(random(*values.shape, seed=seed) if values.ndim else torch.tensor(7))
    return layer


def meet(library, case, mode, tracking):
    name, arguments, shape = case
    made, now = TRACKING[tracking]
    options = {"track_running_stats": made, "affine": True} if tracks(name) else {}
    layer = trained(getattr(library, name)(*arguments, **options)).train(mode == "training")
    if tracks(name):
        layer.track_running_stats = now
    return layer, random(*shape) * 5


@pytest.fixture(params=[*MEETINGS, *OF_WEIGHTS])
def meeting(request):
    """A layer and an input for it, new for each test."""
    if request.param in OF_WEIGHTS:
        make, shape = OF_WEIGHTS[request.param]
        return trained(make()), random(*shape) * 5
    return meet(*MEETINGS[request.param])


def held_by(module):
    """Everything that a module and its parts hold, each thing with its identity and content."""
    for part in module.modules():
        for name, value in vars(part).items():
            items = value.items() if isinstance(value, dict) else [("", value)]
            yield name, id(value) if isinstance(value, dict) else None
            for key, thing in items:
                is_tensor = isinstance(thing, torch.Tensor)
                content = thing.copy() if isinstance(thing, list) else thing
                yield key, id(thing), thing.detach().clone() if is_tensor else content
                if is_tensor:
                    yield thing._version, thing.requires_grad, id(thing.grad)


def equal(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def same(one, other):
    return len(one) == len(other) and all(map(equal, one, other))


# Numbers


def test_the_output_is_the_layers_and_the_steps_lead_to_it(meeting):
    layer, x = meeting
    explained = explain(layer, x)
    assert torch.equal(explained.output, layer(x))
    plan, numbers = explained.plan, explained.numbers.double()
    spread = explained.reduction.spread
    mean, var = (spread(s.double(), numbers.shape) for s in (explained.mean, explained.var))
    eps = explained.told.eps
    eps = spread(eps, numbers.shape) if isinstance(eps, torch.Tensor) else eps
    normalized = (numbers - mean) / (var + eps).sqrt() if plan.scaled else numbers - mean
    torch.testing.assert_close(explained.normalized.double(), normalized, atol=2e-6, rtol=2e-6)
    torch.testing.assert_close(explained.expected.float(), explained.made, atol=1e-5, rtol=1e-5)


def test_the_statistics_are_those_of_the_numbers_or_those_that_were_stored(meeting):
    layer, x = meeting
    explained = explain(layer, x)
    labels = torch.tensor(explained.reduction.labels(explained.numbers.shape)).flatten()
    slices = [explained.numbers.flatten()[labels == label] for label in range(labels.max() + 1)]
    assert explained.count == len(slices[0])
    running = getattr(layer, "running_var", None)
    if explained.plan.centred and explained.plan.scaled:
        for stat, correction in (("batch_var", 0), ("batch_var_unbiased", 1)):
            own = torch.stack([numbers.var(correction=correction) for numbers in slices])
            torch.testing.assert_close(getattr(explained, stat).flatten(), own)
    if explained.source == "running":
        assert not layer.training
        assert torch.equal(explained.var, running)
    elif explained.source == "batch" and not explained.parts:
        assert torch.equal(explained.var, explained.batch_var)
        squares = [
            (numbers - mean).square().mean()
            for numbers, mean in zip(slices, explained.mean.flatten(), strict=True)
        ]
        torch.testing.assert_close(explained.var.flatten(), torch.stack(squares))
    assert (explained.source == "weight") == (explained.plan.normalizes != "input")


def test_before_and_after_are_the_buffers_around_the_pass(meeting):
    layer, x = meeting
    explained = explain(layer, x)
    for seen in (explained.before, explained.after):
        held = {name: buffer for name, buffer in layer._buffers.items() if buffer is not None}
        assert (seen or {}).keys() == held.keys()
        assert all(torch.equal(seen[name], buffer) for name, buffer in held.items())
        layer(x)


def test_nothing_is_touched_not_even_hooks_or_what_a_graph_keeps(meeting):
    layer, x = meeting
    x.requires_grad_().grad = torch.ones_like(x)
    handle = layer.register_forward_hook(lambda *_: torch.rand(()) and None)
    layer.zero_grad()
    earlier = layer(x).sum()
    before, given = [*held_by(layer)], x.detach().clone()
    seeds = torch.get_rng_state(), python_random.getstate()
    explained = explain(layer, x)
    assert " of " in explained.picture().text
    assert " of " in repr(explained)
    for value in (explained.x, explained.normalized, explained.output, explained.mean):
        assert not value.requires_grad
        value.zero_()
    for parameter in explained.layer.parameters():
        parameter.data.zero_()
    assert same([*held_by(layer)], before)
    assert torch.equal(x, given)
    assert torch.equal(torch.get_rng_state(), seeds[0])
    assert python_random.getstate() == seeds[1]
    earlier.backward()  # of a pass before: nothing that it needs was overwritten
    handle.remove()
    assert not layer._forward_hooks


def test_nothing_is_touched_by_a_layer_that_fails_in_the_middle():
    layer, x = nn.BatchNorm1d(3), random(4, 3)

    def fail(*_):
        layer.training = False
        raise KeyError("in a hook")

    layer.register_forward_hook(fail)
    before = [*held_by(layer)]
    with pytest.raises(ValueError, match=r"BatchNorm1d\(3\) does not take x: .*in a hook"):
        explain(layer, x)
    assert same([*held_by(layer)], before)
    assert layer.num_batches_tracked == 0


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("of_layer", [torch.float32, "half"], ids=str)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_half_precision_is_explained_in_single_and_drawn(case, half, of_layer):
    for library in libraries_of(case[0]):
        layer, x = meet(library, case, "training", "tracked")
        layer, x = layer.to(half if of_layer == "half" else of_layer), x.to(half)
        explained = explain(layer, x)
        assert torch.equal(explained.output, layer(x))
        for stat in ("mean", "var", "batch_mean", "batch_var", "batch_var_unbiased", "normalized"):
            assert getattr(explained, stat).dtype == torch.float32
        for show in ("input", "output"):
            assert explained.picture(show=show).svg.count("data-index=") > 0


def test_each_thing_is_worked_out_once(monkeypatch):
    """Of a layer that tells, nothing is measured again; of torch's, once."""
    from normviz import normalization, telling

    calls, real = [], normalization.normalize_precisely

    def counted(*arguments, **options):
        calls.append(arguments)
        return real(*arguments, **options)

    for module in (telling, normalization):
        monkeypatch.setattr(module, "normalize_precisely", counted)
    for library in nn, normviz:
        calls.clear()
        explained = explain(library.BatchNorm1d(3), random(4, 3))
        for show in ("input", "normalized", "output"):
            explained.picture(show=show)
        repr(explained)
        assert len(calls) == (library is nn)


# Pictures and words


def captions_of(picture):
    """Per drawn slice: the accessible name, and the lines that spell it out."""
    for group in ElementTree.fromstring(picture.svg).findall(".//*[@data-label]"):
        lines = [line.text for line in group.findall("*[@class='nv-lit nv-line']")]
        yield int(group.get("data-label")), group.get("aria-label"), lines


def shown_in(explained):
    weight = explained.plan.normalizes != "input"
    return {
        "input": explained.numbers,
        "normalized": explained.normalized,
        "output": explained.made if weight else explained.output,
    }


def colours_of(explained):
    return ["statistic", *["weight"] * explained.plan.scaled, *(p.name for p in explained.parts)]


def test_a_picture_groups_and_shows_what_it_is_asked_for(meeting):
    layer, x = meeting
    explained = explain(layer, x)
    parts = {part.name: part.reduction for part in explained.parts}
    shown, colours = shown_in(explained), colours_of(explained)
    looks = [("statistic", show) for show in shown] + [(by, "output") for by in colours[1:]]
    for by, show in looks:
        numbers = shown[show]
        picture = explained.picture(by, show)
        bare = by == "weight" and explained.weight is None and explained.bias is None
        assert ("no weight" in picture.text) == bare
        cells = cells_of(picture.svg)
        named = {"statistic": explained.reduction, "weight": explained.plan.sharing} | parts
        labels = named[by].labels(numbers.shape)
        for index, (label, number) in cells.items():
            assert label == labels[index]
            assert number == pytest.approx(float(numbers[index].detach()), abs=0.00501)
        assert len(cells) >= min(numbers.numel(), 60)


# Not one that breaks off, nor what is told without a sum.
SUM = re.compile(r"first number|(?:[μσν²]+|‖v‖²) = [^a…]*(\([a-z ]+\)[^a…]*)* = ")


def test_every_sum_is_right_with_the_numbers_that_it_prints(meeting):
    layer, x = meeting
    inputs = {"input": x + 1000.0, "normalized": -x, "output": torch.randn(x.shape) * 1e-3}
    for show, given in inputs.items():
        explained = explain(layer, given)
        for by in colours_of(explained):
            for _, _, lines in captions_of(explained.picture(by, show)):
                assert lines
                for line in filter(SUM.match, lines):
                    assert come_out(line), line


def test_the_captions_say_where_the_numbers_come_from(meeting):
    layer, x = meeting
    explained = explain(layer, x)
    for label, spoken, lines in captions_of(explained.picture()):
        stats = {"mean": explained.mean}
        named = [
            (symbol, kind, five_digits(float(stats.get(kind, explained.var).reshape(-1)[label])))
            for symbol, kind in explained.plan.symbols
        ]
        assert spoken.endswith(": " + ", ".join(f"{kind} {value}" for _, kind, value in named))
        if explained.source in ("batch", "weight"):
            for (symbol, _, value), line in zip(named, lines, strict=False):
                assert line.startswith(f"{symbol} = ")
                assert line.endswith(f" = {value}")
        if explained.source == "running":
            used = " and ".join(f"{symbol} = {value}" for symbol, _, value in named)
            assert lines[0].startswith(f"{used} ")
            assert "the running statistic" in lines[0]
            assert lines[1].endswith("not used")
        stored = explained.tracks and explained.plan.centred and explained.source == "batch"
        own = explained.plan.statistic == explained.plan.running
        starts, ends = ("unbiased, to be stored: ", "") if own else ("unbiased: ", " is stored")
        unbiased = [line for line in lines if line.startswith(f"{starts}σ² · ")]
        assert len(unbiased) == (stored and not explained.parts)
        for line in unbiased:
            value = five_digits(float(explained.batch_var_unbiased.flatten()[label]))
            assert line.partition("; ")[0].endswith(f" = {value}") and line.endswith(ends)
    assert ("one running " in explained.picture().text) == (explained.source == "running")


def test_the_printed_table_holds_the_statistics(meeting):
    layer, x = meeting
    explained = explain(layer, x)
    head, _, table = repr(explained).partition("\n\n")
    assert f"of shape {tuple(explained.numbers.shape)}" in head
    assert max(map(len, table.splitlines())) <= 100
    blocks = [[re.split(r"\s{2,}", n) for n in b.splitlines()] for b in table.split("\n\n")]
    columns, *rows = [
        sum((row[1:] for row in more), row) for row, *more in zip(*blocks, strict=True)
    ]
    kinds = [kind for _, kind in explained.plan.symbols]
    of_x = " of x" * (explained.source == "running")
    assert columns[1 : 1 + len(kinds)] == [f"{kind}{of_x}" for kind in kinds]
    own = (explained.mean, explained.var) if explained.parts else explained.own_statistics
    for label, row in enumerate(rows[:11]):
        stats = {"mean": own[0]}
        for kind, number in zip(kinds, row[1:], strict=False):
            assert number == five_digits(float(stats.get(kind, own[1]).reshape(-1)[label]))
        for name in ("running_mean", "running_var"):
            if name in (explained.before or {}) and "running batch" not in columns:
                at = explained.reduction.first(label, explained.numbers.shape)
                nth = explained.plan.per(explained.plan.running).label_at(at, x.shape)
                old, new = (
                    five_digits(float(b[name][nth])) for b in (explained.before, explained.after)
                )
                assert row[columns.index(name)] == (
                    f"{old}, then {new}" if explained.tracks else old
                )
    assert ("unbiased" in columns) == (
        explained.tracks and explained.plan.centred and not explained.parts
    )


@pytest.mark.parametrize(
    "words",
    [
        ("mean", "input"),
        ("statistic", "x"),
        ("statistic", None),
        (["weight"], "input"),
        ("statistic", ["input"]),
    ],
    ids=str,
)
def test_other_words_are_refused(words):
    with pytest.raises(ValueError, match=r"(by|show) must be "):
        explain(nn.BatchNorm1d(3), random(4, 3)).picture(*words)


def test_a_layer_without_parameters_has_nothing_to_weigh():
    explained = explain(nn.LayerNorm(6, elementwise_affine=False), random(4, 6))
    torch.testing.assert_close(explained.output, explained.normalized)
    assert "γ = 1 (no weight) and β = 0 (no bias)" in explained.picture(by="weight").text
    assert "output: no weight" in explained.picture(by="weight", show="output").text
    with pytest.raises(dataclasses.FrozenInstanceError):
        explained.source = "running"


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


# What each relative has of its own


def test_what_has_no_mean_says_so_and_where_epsilon_stands():
    x = torch.tensor([[[[3.0, -4.0]]]])
    for layer in (nn.RMSNorm(2, eps=1e-3), normviz.FilterResponseNorm2d(1, eps=1e-3)):
        explained = explain(layer, x)
        assert "no mean is subtracted: x / √(ν² + ε), ε = 0.001" in repr(explained)
        assert "ν² = (3² + (−4)²) / 2 = 12.5" in explained.picture().text
        assert "3 / √(12.5 + 0.001) = 0.84849" in explained.picture(show="normalized").text
    assert (
        "max(γ · normalized + β, τ) = max(1 · 0.84849 + 0, 0)"
        in explained.picture(show="output").text
    )


def test_a_learned_epsilon_is_added():
    layer = normviz.FilterResponseNorm2d(1, eps=0.5, learn_eps=True)
    nn.init.constant_(layer.learned_eps, -0.25)
    explained = explain(layer, torch.tensor([[[[3.0, -4.0]]]]))
    assert "3 / √(12.5 + 0.75) = " in explained.picture(show="normalized").text


def test_mixed_statistics_have_their_shares_and_the_batchs_is_stored_in_eval():
    layer, x = normviz.SwitchableNorm2d(2), torch.arange(16.0).reshape(2, 2, 2, 2)
    with torch.no_grad():
        layer.mean_weight.copy_(torch.tensor([1.0, 1.0, 1.0]).log())
        layer.var_weight.copy_(torch.tensor([6.0, 3.0, 1.0]).log())
    text = explain(layer, x).picture().text
    assert (
        "μ = 0.33333 · 1.5 (instance) + 0.33333 · 3.5 (layer) + 0.33333 · 5.5 (batch) = 3.5" in text
    )
    assert "σ² = 0.6 · 1.25 (instance) + 0.3 · 5.25 (layer) + 0.1 · 17.25 (batch) = 4.05" in text
    of_batch = explain(layer, x).picture("batch").text
    assert "channel 0: μ = (0 + 1 + 2 + 3 + 8 + 9 + 10 + 11) / 8 = 5.5" in of_batch
    assert "its shares: 0.33333 of μ and 0.1 of σ²" in of_batch
    table = repr(explain(layer.eval(), x))
    assert "variance: 0.6 instance + 0.3 layer + 0.1 batch" in table
    assert "running batch" in table
    assert "a running statistic" in explain(layer, x).picture("batch").text


def test_a_memory_is_told_from_the_batch():
    layer = normviz.MABN2d(1, memory=2, warmup=0)
    x = torch.tensor([[[[1.0, 3.0]]]])  # mean square 5
    for factor in (1, 2, 3):
        layer(factor * x)
    explained = explain(layer, x)
    assert explained.source == "memory"
    assert (explained.var, explained.batch_var) == (25, 5)  # (9 · 5 + 5) / 2
    text = explained.picture().text
    assert "ν² = (1² + 3²) / 2 = 5" in text
    assert "ν² = 25 normalizes: the average mean square in the memory" in text
    layer.iterations.fill_(2000)
    layer.running_var.fill_(3.125)  # a quarter of (20 + 5) / 2
    text = explain(layer, x).picture(show="output").text
    assert "γ · r · normalized + β = 1 · 2 · 0.28284 + 0 = 0.5656" in text
    assert explain(layer.eval(), x).source == "running"


def test_a_tracked_instance_norm_in_eval_is_a_batch_norm():
    layer, other = nn.InstanceNorm2d(3, affine=True, track_running_stats=True), nn.BatchNorm2d(3)
    other.load_state_dict(trained(layer).state_dict())
    x = random(2, 3, 4, 5)
    one, two = explain(layer.eval(), x), explain(other.eval(), x)
    assert one.reduction == two.reduction
    assert torch.equal(one.normalized, two.normalized)
    assert one.picture().svg.replace("Instance", "Batch") == two.picture().svg


def test_the_slices_of_weight_norm_are_those_of_the_weight():
    layer = nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[3.0, -4.0], [0.0, 2.0]])
    explained = explain(normviz.weight_norm(layer), random(1, 2))
    assert explained.mean.tolist() == [0, 0]
    assert explained.var.tolist() == [25, 4]
    assert "output 0: ‖v‖² = 3² + (−4)² = 25" in explained.picture().text
    assert "one g per o" in explained.picture("weight").text
    assert "g = 5 for each of these numbers" in explained.picture("weight").text
    assert (
        "3 / √25 = 0.6; first number: g · normalized = 5 · 0.6 = 3"
        in explained.picture(show="output").text
    )


# What layer(x) gives


class OwnForward(nn.LayerNorm):
    def forward(self, x):
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class Doubled(nn.LayerNorm):
    def forward(self, x):
        return 2 * super().forward(x)


class Tripled(normviz.LayerNorm):
    def forward(self, x):
        return 3 * super().forward(x)


class Squared(nn.Module):
    def forward(self, weight):
        return weight**2


def hooked(layer):
    layer.register_forward_pre_hook(lambda _, args: (args[0] + 1,))
    layer.register_forward_hook(lambda _, args, y: y * 2)
    return layer


def hooked_in_place(layer):
    layer.register_forward_hook(lambda _, args, y: y.mul_(2))
    return layer


def patched(layer):
    real = layer.forward
    layer.forward = lambda x: real(x) + 3
    return layer


def pruned(layer):
    prune.custom_from_mask(layer, "weight", torch.arange(layer.weight.numel()) % 2)
    layer.weight_orig.data += 1  # of which the weight learns in the next pass
    return layer


def parametrized(layer):
    parametrize.register_parametrization(layer, "weight", Squared())
    return layer


def cut(layer):
    layer.weight, layer.bias = (nn.Parameter(p[:3].clone()) for p in (layer.weight, layer.bias))
    layer.running_mean, layer.running_var = layer.running_mean[:3], layer.running_var[:3]
    return layer


CHANGED = {
    "hooks": lambda: hooked(nn.BatchNorm1d(3)),
    "hooks in eval": lambda: hooked(nn.BatchNorm1d(3)).eval(),
    "hooks of ours": lambda: hooked(normviz.BatchNorm1d(3)),
    "hooks in place": lambda: hooked_in_place(nn.BatchNorm1d(3)),
    "hooks of ours in place": lambda: hooked_in_place(normviz.BatchNorm1d(3)),
    "patched": lambda: patched(nn.LayerNorm(3)),
    "pruned": lambda: pruned(nn.BatchNorm1d(3)),
    "parametrized": lambda: parametrized(nn.LayerNorm(3)),
    "parametrized, ours": lambda: parametrized(normviz.BatchNorm1d(3)),
    "weight_norm on γ": lambda: parametrizations.weight_norm(nn.LayerNorm(3)),
    "old weight_norm": lambda: nn.utils.weight_norm(nn.LayerNorm(3), dim=None),
    "cut": lambda: cut(nn.BatchNorm1d(5)),
    "a forward of its own": lambda: OwnForward(3),
    "no state": lambda: nn.BatchNorm1d(9, affine=False, track_running_stats=False),
}


@pytest.mark.parametrize("how", CHANGED)
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_a_changed_layer_is_explained_as_it_is(how):
    layer, x = CHANGED[how](), random(4, 3)
    explained = explain(layer, x)
    assert torch.equal(explained.output, layer(x))
    picture = explained.picture(show="output")
    for label, _, lines in captions_of(picture):
        numbers = [
            float(n.replace("−", "-")) for n in re.findall(r"(−?[\d.]+(?:e−?\d+)?)", lines[-1])
        ]
        first = explained.output[explained.reduction.first(label, x.shape)]
        assert any(abs(number - float(first)) < 1e-4 * max(1, abs(number)) for number in numbers)
    said = "hooks make" if "hooks" in how else "the layer, in float32, gives"
    assert (said in picture.text) == ("hooks" in how or how == "patched")


def test_of_a_class_that_computes_something_else_than_its_plan_what_it_does_is_asked():
    with pytest.raises(ValueError, match="compute what LayerNorm does"):
        plan_of(OwnForward(3), 2)
    for layer, weight in {Doubled(3): 2.0, Tripled(3): 3.0}.items():
        explained = explain(layer, random(4, 3))
        assert explained.asked.declared and explained.asked.agrees
        torch.testing.assert_close(explained.weight, torch.full((3,), weight))
    channels_first = type("LayerNorm2d", (nn.LayerNorm,), {"forward": by_channels})
    explained = explain(channels_first(3), random(2, 3, 4, 5))
    assert explained.reduction.kept == ("n", "h", "w")
    assert "declares something else: over w, one per n, c, h." in repr(explained)
    shorter = type("Shorter", (nn.LayerNorm,), {"forward": lambda self, x: x[:2]})
    with pytest.raises(ValueError, match=r"shape \(2, 3\).* moved. No normalization: .* shape"):
        explain(shorter(3), random(4, 3))


def by_channels(layer, x):
    return nn.LayerNorm.forward(layer, x.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize(
    "plan",
    [{"scaled": False}, {"mixed": (("all", ""),)}, {"summed": True}, {"normalizes": "weight"}],
)
def test_a_plan_that_no_formula_serves_is_refused(plan):
    class Odd(Norm):
        def plan(self, ndim):
            return Plan("n c", "n", "c", **plan)

    with pytest.raises(ValueError, match="a plan must ask for"):
        Odd(1e-5, (3,))(random(4, 3))


def test_a_plan_without_division_is_one():
    class Centred(nn.Module):
        def plan(self, ndim):
            return Plan("n c", "n", "c", scaled=False)

        def forward(self, x):
            return x - x.mean(1, keepdim=True)

    explained = explain(Centred(), random(4, 3))
    assert "mean is subtracted from it: x − μ." in repr(explained)
    assert torch.equal(explained.var, torch.ones(4))


def test_a_class_of_anybodys_that_declares_a_plan_is_explained_and_drawn():
    class PerRow(nn.Module):
        eps = 1e-3

        def plan(self, ndim):
            return Plan("n c h w", statistic="n h", weight="c")

        def forward(self, x):
            mean, var = x.mean((1, 3), keepdim=True), x.var((1, 3), correction=0, keepdim=True)
            return (x - mean) / (var + self.eps).sqrt()

    class PerRowAsIs(PerRow):  # its plan is no method, and its attributes are no numbers
        plan, eps, bias = Plan("n c h w", "n h", "c"), torch.tensor(1e-3), False

    x = random(2, 3, 4, 5)
    explained = explain(PerRow(), x)
    assert torch.equal(explained.output, PerRow()(x))
    other = repr(explain(PerRowAsIs(), x)), explain(PerRowAsIs(), x).picture(show="output").text
    of_one = repr(explained), explained.picture(show="output").text
    assert tuple(text.replace("AsIs", "") for text in other) == of_one
    assert explained.reduction == Reduction("n c h w -> n h")
    assert explained.source == "batch"
    assert "PerRow(), input: mean over c, w, one per n, h" in explained.picture().text
    assert "sample 0, row 3" in repr(explained)


def test_the_rounding_of_a_layer_is_told_from_the_arithmetic():
    x = torch.tensor([[0.0], [1.0], [2.0]]) + 1e6
    text = explain(nn.BatchNorm1d(1), x).picture(show="output").text
    assert "(1000000 − 1000001) / √(0.6666667 + 1e−5) = −1.2247" in text
    assert "in float32, gives −1.2574: 0.032627 off" in text
    assert "off" not in explain(normviz.BatchNorm1d(1), x).picture(show="output").text


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda bn: bn.running_var.fill_(-1), "a variance plus ε is negative, and has no root"),
        (lambda bn: bn.running_var.fill_(NAN), "running_var holds 2 nan"),
        (lambda bn: bn.running_mean[0].fill_(INF), "running_mean holds 1 inf"),
        (lambda bn: bn.weight.data[1].fill_(NAN), "the weight holds 1 nan"),
        (lambda bn: bn.bias.data.fill_(-INF), "the bias holds 2 inf"),
    ],
)
@pytest.mark.parametrize("library", [nn, normviz])
def test_x_is_not_blamed_for_what_a_weight_or_a_buffer_did(change, said, library):
    layer, x = library.BatchNorm1d(2).eval(), random(3, 2)
    change(layer)
    text = explain(layer, x).picture(show="output").text
    assert f"Not all of the output is finite: {said}." in text
    assert "x holds" not in text
    x[0, 0] = NAN
    assert "x holds 1 nan: a mean" in explain(layer, x).picture(show="output").text
    assert "Not all" not in explain(layer, random(3, 2)).picture().text


def test_what_stays_in_a_buffer_is_no_move():
    layer = nn.BatchNorm1d(2).eval()
    layer.running_var.fill_(NAN)
    assert "then" not in repr(explain(layer, random(3, 2)))
    assert "then" not in repr(explain(nn.BatchNorm1d(2), torch.ones(0, 2)))
    layer = nn.InstanceNorm1d(2, momentum=None, track_running_stats=True)
    assert "then" not in repr(explain(layer, random(3, 2, 4)))
    assert "stored" not in explain(layer, random(3, 2, 4)).picture().text


def test_what_is_stored_by_chance_as_it_was_is_stored():
    layer = nn.BatchNorm1d(1, momentum=0.5)
    assert "1, then 1" in repr(explain(layer, torch.tensor([[-(0.5**0.5)], [0.5**0.5]])))


def test_the_mode_is_told_where_it_matters():
    titles = {
        repr(explain(layer, random(3, 2))).partition(",")[0]
        for layer in (nn.BatchNorm1d(2, track_running_stats=False), nn.LayerNorm(2).eval())
    } | {repr(explain(nn.LayerNorm([3, 2]), random(3, 2))).partition(", x")[0]}
    assert titles == {"BatchNorm1d(2) in training", "LayerNorm(2)", "LayerNorm([3, 2])"}


def test_a_weight_is_explained_whatever_its_layer_takes():
    layer, x = normviz.weight_norm(nn.Embedding(4, 3)), torch.tensor([1, 2])
    assert torch.equal(explain(layer, x).output, layer(x))


def test_squares_that_no_float_can_hold_are_explained():
    x = torch.tensor([[1e200, 2e200, 4e200]], dtype=torch.float64)
    assert explain(normviz.LayerNorm(3).double(), x).var.isinf()


def test_an_overflow_is_called_one():
    layer = nn.LayerNorm(4).half()
    layer.weight.data.fill_(65504)
    text = explain(layer, torch.tensor([[1.0, 2, 3, 9]]).half()).picture(show="output").text
    assert "beyond 65504, the largest float16" in text


def test_an_explanation_is_pickled_and_keeps_no_hook():
    layer = normviz.FilterResponseNorm2d(3)
    explained = explain(layer, random(2, 3, 4, 5))
    again = pickle.loads(pickle.dumps(explained))
    assert repr(again) == repr(explained)
    assert not again.layer._forward_hooks and not again.layer._forward_pre_hooks
    assert not explained.told.floor.requires_grad


def test_threads_look_one_after_the_other():
    layer, x = nn.BatchNorm1d(3), random(4, 3)
    before = [*held_by(layer)]
    with ThreadPoolExecutor(8) as pool:
        told = [*pool.map(lambda _: repr(explain(layer, x)), range(40))]
    assert len({*told}) == 1
    assert same([*held_by(layer)], before)


@pytest.mark.parametrize("mode", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_numbers_are_explained_too(case, mode):
    name, arguments, shape = case
    for library in libraries_of(name):
        layer = getattr(library, name)(*arguments).train(mode)
        plan = plan_of(layer, len(shape))
        if "n" in plan.axes.split() and "n" not in dict(plan.sizes):
            assert explain(layer, torch.zeros(0, *shape[1:])).output.numel() == 0
            assert "of shape (0, " in repr(explain(layer, torch.zeros(0, *shape[1:])))


# Refusals


def quiet_compile(layer):
    return torch.compile(layer, backend="eager")


def with_plan(plan):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return x * self.gamma

    Odd.plan = plan if isinstance(plan, Plan) else lambda self, ndim: plan
    return Odd()


REFUSED = [
    (nn.Linear(3, 3), random(4, 3), "layer must be .* got Linear"),
    (None, random(4, 3), "layer must be .* got NoneType"),
    (nn.BatchNorm1d, random(4, 3), r"got the class BatchNorm1d; BatchNorm1d\(…\) makes a layer"),
    (nn.LazyBatchNorm1d, random(4, 3), r"LazyBatchNorm1d\(…\) makes a layer"),
    (nn.functional.batch_norm, random(4, 3), "got the function batch_norm; the layer that calls"),
    (random(4, 3), nn.BatchNorm1d(3), "got Tensor; the layer comes first"),
    (nn.BatchNorm1d(3), nn.BatchNorm1d(3), "a module; the layer comes first"),
    (nn.DataParallel(nn.BatchNorm2d(3)), random(4, 3), "layer.module is that"),
    (quiet_compile(nn.BatchNorm2d(3)), random(4, 3), "layer._orig_mod is what it was made from"),
    (nn.Sequential(nn.BatchNorm2d(3)), random(4, 3), r"whole model; .*layer.get_submodule\('0'\)"),
    (nn.Sequential(type("LayerNorm", (nn.Module,), {})()), random(4, 3), "got Sequential; if"),
    (normviz.weight_norm(nn.Linear(5, 2)), random(4, 3), "does not take x: .* shapes"),
    (normviz.CentredConv2d(3, 4, 2), random(2, 5, 4, 4), "does not take x: .* channels"),
    (nn.LazyBatchNorm1d(), random(4, 3), r"must have seen a batch: .* layer\(x\) gives"),
    (with_plan("n c -> n"), random(4, 3), r"plan of Odd must be a normviz.Plan: got 'n c -> n'"),
    (
        with_plan(Plan("n (g c) l", "n g", "c", (("g", 2),))),
        random(4, 3),
        r"shape \(N, G·C, L\): .* 2 axes",
    ),
    (with_plan(Plan("n c", "n", "c")), random(4, 3), "has to be called weight; or Reduction"),
    (nn.LocalResponseNorm(2), random(4, 3, 5), "windows overlap"),
    (nn.BatchNorm1d(3, device="meta"), random(4, 3), "weight must hold numbers .* meta device"),
    (nn.BatchNorm1d(3), random(4, 3).to("meta"), "x must hold numbers .* meta device.* none.$"),
    (nn.BatchNorm1d(3), np.ones((4, 3)), r"ndarray; torch.as_tensor\(x\).float\(\) would do"),
    (nn.LayerNorm(3), torch.nested.nested_tensor([random(2, 3)], layout=torch.jagged), "nested"),
    (nn.BatchNorm1d(3), random(4, 2), "num_features=3|size 3 .* got 2"),
    (nn.BatchNorm2d(3), random(4, 3), "2 axes"),
    (nn.LayerNorm([3, 4]), random(3, 3), "normalized_shape"),
    (nn.LayerNorm([3, 4]), random(4), "(…, 3, 4).* 1 axis".replace("(", r"\(").replace(")", r"\)")),
    (nn.BatchNorm1d(3), random(1, 3), "more than 1 value per channel"),
    (nn.InstanceNorm1d(3), random(4, 3, 1), "more than 1 spatial element"),
    (
        nn.BatchNorm1d(3, eps=0),
        random(4, 3),
        "eps must be more than 0 where the statistics of the batch",
    ),
]


@pytest.mark.parametrize(("layer", "x", "rule"), REFUSED, ids=[rule for *_, rule in REFUSED])
def test_what_cannot_be_explained_is_refused_in_words(layer, x, rule):
    with pytest.raises(ValueError, match=rule):
        explain(layer, x)


def test_a_mixed_layer_is_told_to_be_of_one_dtype():
    layer, x = nn.BatchNorm1d(2).eval(), random(4, 2)
    layer.running_mean = layer.running_mean.double()
    with pytest.raises(ValueError, match=r"running_mean .* layer.to\(torch.float32\) would do"):
        explain(layer, x)
    explain(layer.to(torch.float32), x)


def test_lazy_layers_and_their_like_are_layers_once_they_are_made():
    for lazy, shape in ((nn.LazyBatchNorm2d(), (4, 3, 5, 6)), (nn.LazyInstanceNorm1d(), (4, 3, 5))):
        lazy(random(*shape))
        assert torch.equal(explain(lazy, random(*shape)).output, lazy(random(*shape)))
    for shape in ((4, 3), (4, 3, 5), (4, 3, 5, 6), (2, 3, 2, 2, 2)):
        sync = nn.SyncBatchNorm(3)
        assert torch.equal(explain(sync, random(*shape)).output, sync(random(*shape)))
    subclass = type("Mine", (type("Between", (nn.GroupNorm,), {}),), {})(2, 6)
    assert explain(subclass, random(4, 6, 5)).reduction == Reduction("n (g c) l -> n g", g=2)


def test_a_module_is_untouched_whatever_is_done_to_it():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())
    net.shared, net.plain, net.seen = net[0].weight, torch.ones(2), [1]
    before, seed = [*held_by(net)], torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), untouched(net):
        net(random(4, 3)).sum().backward()
        net[1].weight.data.zero_()
        net.plain.zero_()
        net.seen.append(2)
        net[0].register_buffer("more", torch.ones(3))
        net.eval().register_forward_hook(print)
        del net[2]
        raise ZeroDivisionError
    assert same([*held_by(net)], before)
    assert torch.equal(torch.get_rng_state(), seed)


def test_a_published_rms_norm_and_its_epsilon_are_explained():
    class Published(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size))
            self.variance_epsilon = 1e-3

        def plan(self, ndim):
            return Plan("n t c", statistic="n t", weight="c", centred=False)

        def forward(self, x):
            square = x.pow(2).mean(-1, keepdim=True)
            return self.weight * x * torch.rsqrt(square + self.variance_epsilon)

    assert "ε = 0.001" in repr(explain(Published(4), random(2, 3, 4) / 100))


def test_whoever_checks_axes_in_their_own_way_takes_what_they_let_pass():
    class AnyAxes(nn.BatchNorm2d):
        def _check_input_dim(self, input):
            pass

    assert explain(AnyAxes(3), random(4, 3)).reduction == Reduction("n c -> c")
