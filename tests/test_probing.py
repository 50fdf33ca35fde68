"""A probe finds by moving numbers what a module does, and says what is no normalization."""

import re

import numpy as np
import pytest
import torch
from patients import FrozenBatchNorm2d
from test_explanation import MEETINGS, OF_WEIGHTS, held_by, meet, random, same, trained
from torch import nn
from torch.nn import functional

import normviz
from normviz import Plan, Probe, Reduction, explain, plan_of, probe
from normviz.evidence import MOST
from normviz.formula import precise
from normviz.refusals import RefusedInput


class Does(nn.Module):
    """A module that does what a function says, with parameters by name."""

    def __init__(self, does, **parameters):
        super().__init__()
        self.does = does
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(torch.as_tensor(value)))

    def forward(self, x):
        return self.does(x, **dict(self.named_parameters()))


def standardize(x, over, correction=0, eps=1e-5):
    mean = x.mean(over, keepdim=True)
    return (x - mean) / (x.var(over, correction=correction, keepdim=True) + eps).sqrt()


def eps_outside(x):
    return (x - x.mean((0, 2, 3), True)) / (
        x.var((0, 2, 3), correction=0, keepdim=True) ** 0.5 + 0.01
    )


def squares_less_square(x):
    mean = x.mean((0, 2, 3), True)
    return (x - mean) / (x.square().mean((0, 2, 3), True) - mean.square() + 1e-5).sqrt()


def squares_alone(x):
    return (x - x.mean((0, 2, 3), True)) / (x.square().mean((0, 2, 3), True) + 1e-5).sqrt()


def in_place_and_detached(x):
    mean, var = x.mean(0, True).detach(), x.var(0, correction=0, keepdim=True).detach()
    return x.sub_(mean).div_((var + 1e-5).sqrt_())


def interleaved(x):
    return standardize(x.unflatten(1, (3, 2)), (1, 3)).flatten(1, 2)


def root_mean_square(x, weight, start=0.0):
    y = x.float()  # as in published code, whatever x is
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6)
    return (y * (start + weight.float())).type_as(x)


def over_channels(x, weight, bias):
    y = functional.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, 1e-6)
    return y.permute(0, 3, 1, 2)


def scale_norm(x, g):
    return g * x / x.norm(dim=-1, keepdim=True).clamp(min=1e-3)


IMAGES, ROWS, TOKENS = (4, 3, 5, 6), (4, 6), (4, 5, 8)
ONES = [1.0] * 3


class OwnForward(nn.LayerNorm):
    def forward(self, x):
        x, *affine = (t.float() for t in (x, self.weight, self.bias))
        return functional.layer_norm(x, self.normalized_shape, *affine, self.eps).double()


class Activated(nn.BatchNorm2d):
    def __init__(self, channels, activation):
        super().__init__(channels)
        self.activation = activation

    def forward(self, x):
        return self.activation(super().forward(x))


class OwnNames(nn.Module):
    """As in a well-known book: tensors that are no buffers, and the mode by autograd."""

    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))
        self.moving_mean, self.moving_var = torch.zeros(channels, 1, 1), torch.ones(channels, 1, 1)

    def forward(self, x):
        mean, var = self.moving_mean, self.moving_var
        if torch.is_grad_enabled() and self.training:
            mean = x.mean((0, 2, 3), keepdim=True)
            var = x.var((0, 2, 3), correction=0, keepdim=True)
            self.moving_mean = (0.9 * self.moving_mean + 0.1 * mean).detach()
            self.moving_var = (0.9 * self.moving_var + 0.1 * var).detach()
        return self.gamma * (x - mean) / (var + 1e-5).sqrt()


def given(does, shape, **parameters):
    return lambda: (Does(does, **parameters), random(*shape))


# What it is → how to make it, and what is found.
FOUND = {
    "pools n alone": (
        given(lambda x: standardize(x, 0), IMAGES),
        {"slice": "n c h w -> c h w", "batch_mates": {"training": True, "eval": True}},
    ),
    "pools n and c": (
        given(lambda x: standardize(x, (0, 1)), IMAGES),
        {"slice": "n c h w -> h w", "correction": 0, "weight": None, "stored": {}},
    ),
    "divides by n - 1": (
        given(lambda x: standardize(x, (0, 2, 3), correction=1), IMAGES),
        {"slice": "n c h w -> c", "correction": 1, "eps": 1e-5, "eps_inside": True},
    ),
    "ε outside the root": (given(eps_outside, IMAGES), {"eps": 0.01, "eps_inside": False}),
    "no ε": (given(lambda x: standardize(x, -1, eps=0), ROWS), {"eps": 0, "eps_inside": None}),
    "E[x²] - E[x]²": (given(squares_less_square, IMAGES), {"correction": 0, "eps": 1e-5}),
    "in place": (given(in_place_and_detached, ROWS), {"slice": "n c -> c", "eps": 1e-5}),
    "neighbours": (lambda: (nn.GroupNorm(2, 6), random(4, 6, 5)), {"slice": "n (g c) l -> n g"}),
    "many channels": (
        given(lambda x: functional.group_norm(x, 4), (2, 512, 8, 8)),
        {"plan": Plan("n (g c) h w", "n g", "", (("c", 128), ("g", 4)))},
    ),
    "interleaved": (given(interleaved, (4, 6, 5)), {"slice": "n (c g) l -> n g"}),
    "a factor": (given(lambda x: 0.9 * standardize(x, -1), ROWS), {"text": "0.9 is a factor"}),
    "RMSNorm of 1 + w": (
        given(lambda x, w: root_mean_square(x, w, 1.0), TOKENS, w=[-1.0] * 8),
        {"slice": "n t c -> n t", "weight": "n t c -> c", "bias": None, "centred": False}
        | {"eps": 1e-6, "correction": 0, "activation": None},
    ),
    "LayerNorm2d": (
        given(over_channels, IMAGES, weight=ONES, bias=ONES),
        {"slice": "n c h w -> n h w", "weight": "n c h w -> c", "bias": "n c h w -> c"},
    ),
    "no affine": (lambda: (nn.LayerNorm(8, elementwise_affine=False), random(8)), {"weight": None}),
    "its own forward": (lambda: (OwnForward(768), random(9, 768)), {"agrees": True, "eps": 1e-5}),
    "one g for all": (
        given(scale_norm, TOKENS, g=2.0),
        {"summed": True, "weight": "n t c ->", "eps": 1e-3, "eps_inside": None},
    ),
    "a mean": (given(lambda x: x - x.mean(1, True), ROWS), {"centred": True, "scaled": False}),
    "one sample": (lambda: (nn.BatchNorm2d(3), random(1, 3, 5, 6)), {"slice": "n c h w -> c"}),
    "average": (lambda: (nn.BatchNorm1d(6, momentum=None), random(*ROWS)), {"momentum": None}),
    "the last batch": (lambda: (nn.BatchNorm1d(6, momentum=1.0), random(*ROWS)), {"momentum": 1.0}),
    "stored": (
        lambda: (nn.BatchNorm1d(6, momentum=0.3), random(*ROWS)),
        {"stored": {"running_mean": "the mean", "running_var": "the unbiased variance"}}
        | {"momentum": 0.3, "batch_mates": {"training": True, "eval": False}},
    ),
    "stored, but in no buffer": (
        lambda: (OwnNames(3), random(*IMAGES)),
        {"text": "No state_dict holds moving_mean and moving_var", "momentum": 0.1}
        | {"batch_mates": {"training": True, "eval": False}, "weight": "n c h w -> c"},
    ),
    "stored, biased": (
        lambda: (normviz.SwitchableNorm2d(3), random(*IMAGES)),
        {"stored": {"running_mean": "the mean", "running_var": "the biased variance"}},
    ),
    "ReLU behind": (
        lambda: (Activated(3, nn.ReLU(inplace=True)), random(*IMAGES)),
        {"activation": "cuts below 0", "correction": 0, "eps": 1e-5, "agrees": True},
    ),
    "ReLU6": (lambda: (Activated(3, nn.ReLU6()), random(*IMAGES)), {"text": "and cuts above 6"}),
    "SiLU behind": (
        lambda: (Activated(3, nn.SiLU()), random(*IMAGES)),
        {"activation": "bends", "correction": None, "eps": 1e-5, "weight": "n c h w -> c"},
    ),
    "no affine, ReLU behind": (
        given(lambda x: standardize(x, -1).relu(), ROWS),
        {"activation": "cuts below 0", "correction": 0, "eps": 1e-5},
    ),
    "no affine, sigmoid behind": (
        given(lambda x: standardize(x, -1).sigmoid(), ROWS),
        {"slice": "n c -> n", "activation": "bends", "correction": None, "eps": None},
    ),
    "a threshold behind": (
        lambda: (normviz.FilterResponseNorm2d(3), random(*IMAGES)),
        {"activation": "cuts below a learned threshold", "centred": False, "agrees": True},
    ),
}
# What is no normalization → how to make it, and the reason.
NONE = {
    "convolution": (lambda: nn.Conv2d(3, 3, 3, padding=1), IMAGES, "windows overlap"),
    "Linear": (lambda: nn.Linear(6, 6), ROWS, "a factor stays a factor"),
    "another size": (lambda: nn.Linear(6, 5), ROWS, "another shape, (4, 5)"),
    "softmax": (lambda: nn.Softmax(-1), ROWS, "added to a slice is gone, but a factor"),
    "dropout": (lambda: nn.Dropout(), ROWS, "it is random"),
    "windows": (lambda: nn.LocalResponseNorm(2), (4, 8, 5, 6), "windows overlap"),
    "ReLU": (nn.ReLU, ROWS, "a function of its own number"),
    "identity": (nn.Identity, ROWS, "is its own number"),
    "a constant": (lambda: Does(lambda x: x * 0 + 1), ROWS, "no output depends on the input"),
    "two outputs": (lambda: Does(lambda x: (x, x)), ROWS, "no tensor of real numbers"),
    "nan": (lambda: Does(lambda x: x.log()), ROWS, "nan"),
    "squares alone": (lambda: Does(squares_alone), IMAGES, "the mean square divides"),
    "least to most": (
        lambda: Does(lambda x: (x - x.amin(-1, True)) / (x.amax(-1, True) - x.amin(-1, True))),
        ROWS,
        "do not follow from a mean and a variance",
    ),
    "frozen": (lambda: trained(FrozenBatchNorm2d(3)), IMAGES, "one slope and one shift per c"),
}


def assert_found(found, **expected):
    for name, value in expected.items():
        seen = getattr(found, name)
        if isinstance(seen, Reduction):
            assert seen.pattern == value
        elif name == "text":
            assert value in seen
        else:
            close = isinstance(value, float)
            assert seen == (pytest.approx(value, rel=1e-3) if close else value), (name, seen)


def probed(layer, x):
    """What is found, by a probe that changes nothing."""
    layer.register_forward_hook(lambda *_: None)
    before, number, x_before = [*held_by(layer)], torch.random.get_rng_state(), x.clone()
    try:
        return probe(layer, x)
    finally:
        assert same(before, [*held_by(layer)])
        assert torch.equal(number, torch.random.get_rng_state())
        assert torch.equal(x, x_before)


# What is declared is what is found


@pytest.mark.parametrize("meeting", MEETINGS)
def test_every_layer_does_what_it_declares(meeting):
    layer, x = meet(*MEETINGS[meeting])
    found = probe(layer, x)
    declared = plan_of(layer, x.ndim)
    assert found.agrees
    assert found.declared == declared
    assert (found.centred, found.plan.scaled) == (declared.centred, True)
    if not declared.mixed and "MABN" not in meeting:  # whose memory joins in
        assert np.array_equal(
            found.plan.reduction.labels(x.shape), declared.reduction.labels(x.shape)
        )
        eps = torch.finfo(x.dtype).eps if layer.eps is None else layer.eps
        assert found.eps == pytest.approx(eps, rel=1e-3)
        assert (found.correction, found.summed) == (0, False)
        if getattr(layer, "track_running_stats", False) and layer.running_mean is not None:
            assert found.plan.running == declared.running
            assert found.momentum == pytest.approx(layer.momentum)
            assert found.stored.keys() == {"running_mean", "running_var"}
    if "n" in declared.axes.split():
        mates = any("n" in reduction.pooled for reduction in declared.pooled())
        assert found.batch_mates["training"] == mates


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_a_normalized_weight_is_found_by_moving_that(name):
    make, shape = OF_WEIGHTS[name]
    found = probe(trained(make()), random(*shape))
    assert found.plan is None
    assert found.agrees
    assert "of its weight: as was found" in found.text


RIGHT = Plan("n c h w", statistic="c", weight="c", running="c")
WRONG = {
    "statistic": Plan("n c h w", statistic="n c", weight="c", running="c"),
    "weight": Plan("n c h w", statistic="c", weight="c h", running="c"),
    "centred": Plan("n c h w", statistic="c", weight="c", running="c", centred=False),
    "scaled": Plan("n c h w", statistic="c", weight="c", running="c", scaled=False),
    "summed": Plan("n c h w", statistic="c", weight="c", running="c", summed=True),
    "running": Plan("n c h w", statistic="c", weight="c"),
    "mixed": Plan("n c h w", "c", "c", running="c", mixed=(("a", "c"), ("b", "n"))),
    "axes": Plan("n (g c) h w", "g", "g c", (("c", 2), ("g", 2)), running="g"),
}


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_declaration_is_found_out(wrong, mode):
    x = random(*IMAGES)
    for plan, agrees in ((RIGHT, True), (WRONG[wrong], False)):
        declares = type("Declares", (nn.BatchNorm2d,), {"plan": plan})
        assert probe(declares(3).train(mode), x).agrees is agrees


class CentresPerOutput(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, self.bias)


@pytest.mark.parametrize(("kept", "agrees"), [("o", True), ("i", False), ("o i", False)])
def test_a_wrong_declaration_on_a_weight_is_found_out(kept, agrees):
    plan = Plan("o i h w", kept, kept, scaled=False, normalizes="weight")
    declares = type("Declares", (CentresPerOutput,), {"plan": plan})
    assert probe(declares(3, 2, 2), random(*IMAGES)).agrees is agrees


# What is found


@pytest.mark.parametrize("name", FOUND)
def test_it_is_found_without_the_code(name):
    make, expected = FOUND[name]
    layer, x = make()
    found = probed(layer, x)
    assert found.plan
    assert_found(found, **expected)
    assert repr(found) == found.text


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_normalization_is_said_to_be_none(name):
    make, shape, reason = NONE[name]
    found = probed(make().requires_grad_(False), random(*shape))
    assert found.plan is None
    assert reason in found.text


def test_in_eval_it_tells_what_it_would_pool_in_training():
    found = probe(nn.BatchNorm2d(3).eval(), random(*IMAGES))
    assert (found.slice, found.plan.statistic, found.agrees) == (None, "c", True)
    now, then = found.text.split("In training:\n")
    assert "one slope and one shift per c" in now
    assert "over n, h, w, one per c" in then


def test_of_mixed_statistics_all_that_share_are_found():
    layer, x = normviz.SwitchableNorm2d(3), random(*IMAGES)
    assert {r.kept for r in probe(layer, x).pooled} == {("c",), ("n",)}
    assert {r.kept for r in probe(layer.eval(), x).pooled} == {("n",)}


def test_a_learned_epsilon_has_a_range():
    layer = normviz.FilterResponseNorm2d(3, learn_eps=True)
    layer.learned_eps.data.copy_(torch.tensor([0.1, 0.2, 0.3]))
    assert "ε is 0.1 to 0.3, inside the root" in probe(layer, random(*IMAGES)).text


# explain asks


SHOWN = {  # how to make it → what is said of it
    "RMSNorm of 1 + w": "x / √(ν² + ε), ε = 1e−6",
    "LayerNorm2d": "over c, one per n, h, w",
    "pools n alone": "over n, one per c, h, w",
    "divides by n - 1": "own mean and unbiased variance normalize it: (x − μ) / √(s² + ε)",
    "ε outside the root": "(x − μ) / (√σ² + ε), ε = 0.01",
    "one g for all": "g · x / ‖x‖",
    "a factor": "this formula, ε, weight.",
    "a mean": "x − μ.",
    "its own forward": "over c, one per n",
    "ReLU behind": "an activation, which cuts below 0",
    "SiLU behind": "an activation, which bends",
    "no affine, sigmoid behind": "ε is not known",
    "frozen": "The running mean and variance normalize x",
    "own names": "The running mean and variance normalize x",
    "own names, in training": "Each slice's own mean and (biased) variance normalize it",
}


@pytest.mark.parametrize("name", SHOWN)
def test_explain_asks_where_nothing_is_known(name):
    made = {"frozen": lambda: (trained(FrozenBatchNorm2d(3)), random(*IMAGES))}
    made["own names"] = lambda: (OwnNames(3).eval(), random(*IMAGES))
    made["own names, in training"] = lambda: (OwnNames(3), random(*IMAGES))
    layer, x = made[name]() if name in made else FOUND[name][0]()
    explained = explain(layer, x)
    text, output = repr(explained), layer(x).detach()
    assert SHOWN[name] in text
    assert "Found by moving numbers: this formula" in text
    assert "Found by moving numbers" in explained.picture().text
    torch.testing.assert_close(explained.output, output)
    if not explained.asked.activation:
        torch.testing.assert_close(explained.expected, precise(output), rtol=1e-4, atol=1e-5)


def test_what_stands_still_in_training_is_not_said_to_move():
    explained = explain(trained(FrozenBatchNorm2d(3)).train(), random(*IMAGES))
    assert not explained.tracks
    assert ", then " not in repr(explained)


def test_a_number_goes_the_way_that_was_found():
    make, _ = FOUND["ε outside the root"]
    text = explain(*make()).picture(show="normalized").text
    found = re.search(r"\((\S+) − (\S+)\) / \(√(\S+) \+ (\S+)\) = (−?\S+)", text)
    x, mean, var, eps, result = (float(n.replace("−", "-")) for n in found.groups())
    assert (x - mean) / (var**0.5 + eps) == pytest.approx(result, rel=1e-4)
    make, _ = FOUND["ReLU behind"]
    assert "; the activation makes 0 of it" in explain(*make()).picture(show="output").text


def test_explain_says_why_what_it_has_asked_is_no_answer():
    with pytest.raises(ValueError, match=r"got Softmax; .* moved. No normalization: a number"):
        explain(nn.Softmax(-1), random(4, 6))
    with pytest.raises(ValueError, match="no formula that can be shown"):
        explain(nn.Sequential(normviz.SwitchableNorm2d(3)), random(*IMAGES))
    behind_silu = Does(lambda x, g: functional.silu(g * standardize(x, -1)), g=[1.0] * 6)
    with pytest.raises(ValueError, match="no formula that can be shown"):
        explain(behind_silu, random(*ROWS))


# It leaves everything untouched, and takes what it can


def test_a_probe_that_fails_changes_nothing():
    with pytest.raises(RefusedInput, match="BatchNorm1d does not take x: expected 2D or 3D"):
        probed(nn.BatchNorm1d(6, momentum=0.3), random(*IMAGES))


def test_of_a_large_input_a_small_part_is_tried():
    sizes = []
    layer = nn.BatchNorm2d(64)
    layer.register_forward_hook(lambda _, args, y: sizes.append(args[0].numel()))
    found = probe(layer, random(32, 64, 40, 40))
    assert found.agrees
    assert "tried on the shape (4, 64, 8, 8)" in found.text
    large = [size for size in sizes if size > 2 * MOST]
    assert len(large) < 5
    assert len(sizes) < 150


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_dtype_is_probed_in_float64(dtype):
    found = probe(nn.LayerNorm(8, dtype=dtype), random(*TOKENS).to(dtype))
    assert_found(found, agrees=True, eps=1e-5, correction=0)


def test_what_cannot_be_probed_is_refused():
    with pytest.raises(ValueError, match="layer must be a torch module: got function"):
        probe(standardize, random(*ROWS))
    with pytest.raises(ValueError, match="x must"):
        probe(nn.LayerNorm(6), torch.ones(ROWS, dtype=torch.int))
    assert "no numbers that could share" in probe(nn.LayerNorm(6), torch.ones(0, 6)).text
    assert probe(nn.LayerNorm(1), random(4, 1)).agrees is None
    assert isinstance(probe(nn.Identity(), torch.tensor(1.0)), Probe)
