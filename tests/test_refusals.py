"""Bad input is refused with words that help, and before anything changes."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import normviz
from normviz import Reduction
from normviz.normalization import normalize
from normviz.refusals import RefusedInput, check_input

NAN, X = float("nan"), torch.ones(2, 3)


def trained(layer):
    """The layer after a batch, with its statistics and counter away from where they start."""
    if isinstance(layer, normviz.BatchNorm1d):
        layer(torch.randn(5, layer.num_features, generator=torch.Generator().manual_seed(7)))
    return layer


def bn(**options):
    return trained(normviz.BatchNorm1d(3, **options))


def ln(*sizes):
    return normviz.LayerNorm(sizes)


class FourByFive(normviz.LayerNorm):
    def __init__(self):
        super().__init__((4, 5))


def changed(layer, **attributes):
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


INPUTS = {
    "rank 1 to 1d": (bn, torch.ones(3), "BatchNorm1d|(N, C) or (N, C, L)|1 axis|(3,)"),
    "rank 4 to 1d": (bn, torch.ones(2, 3, 4, 5), "(N, C) or (N, C, L)|4 axes|(2, 3, 4, 5)"),
    "rank 3 to 2d": (
        lambda: normviz.BatchNorm2d(3),
        torch.ones(2, 3, 4),
        "BatchNorm2d|(N, C, H, W)|3 axes",
    ),
    "rank 4 to 3d": (
        lambda: normviz.BatchNorm3d(3),
        torch.ones(2, 3, 4, 5),
        "BatchNorm3d|(N, C, D, H, W)|4 axes",
    ),
    "no axes": (bn, torch.tensor(1.0), "BatchNorm1d|0 axes"),
    "too few axes": (lambda: ln(4, 5), torch.ones(5), "LayerNorm|(…, 4, 5)|1 axis|(5,)"),
    "channels": (bn, torch.ones(2, 4), "num_features=3|got 4|(2, 4)"),
    "channels in eval": (lambda: bn().eval(), torch.ones(2, 4), "num_features=3|got 4|(2, 4)"),
    "channels last": (bn, torch.ones(2, 4, 3), "axis 1|num_features=3|got 4"),
    "channels, no weights": (
        lambda: normviz.BatchNorm1d(3, affine=False, track_running_stats=False),
        torch.ones(2, 4),
        "num_features=3|got 4",
    ),
    "last axis": (lambda: ln(4), torch.ones(2, 5), "normalized_shape (4,)|got (5,)|(2, 5)"),
    "last axes": (lambda: ln(4, 5), torch.ones(2, 5, 4), "normalized_shape (4, 5)|got (5, 4)"),
    "sizes under no name": (FourByFive, torch.ones(2, 4, 6), "axis 2|size 5|got 6|(2, 4, 6)"),
    "one value": (bn, torch.ones(1, 3), "more than 1 value per channel|(1, 3)|eval()"),
    "one value of (N, C, L)": (bn, torch.ones(1, 3, 1), "more than 1 value per channel|(1, 3, 1)"),
    "one value per group": (
        lambda: normviz.GroupNorm(3, 3),
        torch.ones(1, 3),
        "more than 1 value per group|batch of one|(1, 3)|3 groups",
    ),
    "one value in eval": (
        lambda: normviz.BatchNorm1d(3, track_running_stats=False).eval(),
        torch.ones(1, 3),
        "more than 1 value per channel|without running statistics|only a larger batch",
    ),
    "ints": (bn, torch.ones(2, 3, dtype=torch.int64), "x|floating-point|torch.int64|x.float()"),
    "numpy": (bn, np.ones((2, 3)), "x|torch tensor|ndarray|torch.as_tensor(x)"),
    "float32 to float64": (lambda: ln(3).double(), X, "weight|torch.float32|x.to(torch.float64)"),
    "one half to the other": (lambda: bn().half(), X.bfloat16(), "weight|bfloat16|torch.float16"),
    "statistics alone": (
        lambda: bn(affine=False).eval(),
        X.double(),
        "running_mean|torch.float64|torch.float32",
    ),
    "momentum 2 later": (lambda: changed(bn(), momentum=2), X, "momentum|0 to 1|got 2"),
    "momentum text later": (lambda: changed(bn(), momentum="0.1"), X, "momentum|or None|got '0.1'"),
    "eps a fraction later": (
        lambda: changed(bn(), eps=Fraction(1, 3)),
        X,
        "eps|0 or more|got Fraction(1, 3)",
    ),
    "eps 0 in training": (lambda: changed(bn(), eps=0), X, "eps|more than 0|got 0"),
    "a stand-in": (bn, torch.fx.Proxy(torch.fx.Graph().placeholder("x")), "symbolic_trace|export"),
    "eps None later": (lambda: changed(bn(), eps=None), X, "eps|0 or more|got None"),
}


@pytest.mark.parametrize("what", INPUTS)
def test_a_refused_input_changes_nothing(what):
    make, x, words = INPUTS[what]
    layer = make()
    state, value = copy.deepcopy(layer.state_dict()), copy.deepcopy(x)
    with pytest.raises(RefusedInput) as refusal:
        layer(x)
    for word in words.split("|"):
        assert word in str(refusal.value)
    torch.testing.assert_close(layer.state_dict(), state, rtol=0, atol=0)
    assert repr(x) == repr(value)


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_a_refusal_is_caught_under_both_of_torchs_names(error):
    with pytest.raises(error, match="num_features=3"):
        bn()(torch.ones(2, 4))
    with pytest.raises(error, match="num_features"):
        normviz.BatchNorm1d(0)


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(3), nn.LayerNorm(3)], ids=["BatchNorm1d", "LayerNorm"]
)
@pytest.mark.parametrize("x", [torch.ones(2, 4), torch.ones(()), np.ones((2, 3))], ids=str)
def test_an_input_can_be_checked_for_torchs_layers_too(layer, x):
    state = copy.deepcopy(layer.state_dict())
    with pytest.raises(RefusedInput):
        check_input(layer, x)
    assert check_input(layer, torch.ones(2, 3)).reduction.kept == Reduction.of(layer, 2).kept
    torch.testing.assert_close(layer.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize(
    "x", [torch.ones(2, 3).half(), torch.ones(2, 3).bfloat16(), torch.ones(2, 3)], ids=str
)
def test_half_precision_may_meet_float32_weights(x):
    assert bn()(x).dtype == ln(3)(x).dtype == x.dtype


def test_one_value_per_channel_is_fine_where_running_statistics_normalize():
    layer = bn().eval()
    assert layer(torch.ones(1, 3)).shape == (1, 3)


ARGUMENTS = {
    "num_features": [(value, "positive int") for value in (0, -1, 2.5, True, "3", None, [3], NAN)],
    "eps": [(value, "0 or more") for value in (-1e-5, NAN, "1e-5", None, -1, [1e-5])],
    "momentum": [(value, "0 to 1") for value in (-0.1, 1.1, NAN, "0.1", [0.1], float("inf"))],
}


@pytest.mark.parametrize(
    ("argument", "value", "rule"),
    [(a, v, rule) for a, rows in ARGUMENTS.items() for v, rule in rows],
)
def test_batch_norm_refuses_bad_arguments(argument, value, rule):
    with pytest.raises(RefusedInput) as refusal:
        normviz.BatchNorm2d(**({"num_features": 3} | {argument: value}))
    for word in (argument, rule, f"got {value!r}"):
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((),), "normalized_shape|at least one axis"),
        (([],), "normalized_shape|at least one axis"),
        *[
            ((bad,), f"normalized_shape|positive int|got {bad!r}")
            for bad in (0, -1, 2.5, True, "4", None)
        ],
        *[
            (([4, bad],), f"normalized_shape|got {bad!r}")
            for bad in (0, -1, 2.5, True, "4", None, [4])
        ],
    ],
    ids=str,
)
def test_layer_norm_refuses_bad_arguments(arguments, words):
    with pytest.raises(RefusedInput) as refusal:
        normviz.LayerNorm(*arguments)
    for word in words.split("|"):
        assert word in str(refusal.value)


PATTERNS = {
    "": 'one "->"',
    "n c h w": 'one "->"',
    "n c => c": 'one "->"',
    "n c - > c": 'one "->"',
    "n -> c -> c": 'one "->"',
    "->": "no axes left of the arrow",
    " -> c": "no axes left of the arrow",
    "n c -> d": "d is kept on the right, but no axis on the left",
    "n c -> ...": "... is kept on the right, but no axis on the left",
    "n c n -> c": "n stands twice on the left",
    "n (n c) -> c": "n stands twice on the left",
    "... c ... -> c": "... stands twice on the left",
    "n c -> c c": "c stands twice on the right",
    "n c -> c n": 'in their order: "-> n c"',
    "n ... c -> c ...": 'in their order: "-> ... c"',
    "n (g c -> g": "a ) is missing",
    "n g c) -> g": "a ( is missing",
    "n () -> n": "a group needs names",
    "n ((g c)) -> n": "groups have one level",
    "n (g ...) -> n": '"..." cannot stand inside a group',
    "n g c -> (n g)": "the right side lists names only",
    "n g c -> n g)": "the right side lists names only",
    "n (g c) -> n g": "give the size of every name in (g c) but one, such as g=2",
    "n, c -> c": "',' is no axis name",
    "n 2 -> n": "'2' is no axis name",
    "n 2d -> n": "'2' is no axis name",
    "n c' -> n": '"\'" is no axis name',
    "n .. c -> n": "'.' is no axis name",
    "n .... -> n": "'.' is no axis name",
    "n-c -> c": "'-' is no axis name",
    "n [c] -> c": "'[' is no axis name",
    "n c -> *": "'*' is no axis name",
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_malformed_pattern_is_refused_with_its_rule(pattern):
    with pytest.raises(ValueError, match="pattern") as refusal:
        Reduction(pattern)
    assert repr(pattern) in str(refusal.value)
    assert PATTERNS[pattern] in str(refusal.value)


@pytest.mark.parametrize("pattern", [None, 3, b"n c -> c", ["n c -> c"]])
def test_a_pattern_that_is_no_string_is_refused(pattern):
    with pytest.raises(ValueError, match="must be a string such as") as refusal:
        Reduction(pattern)
    assert f"got {pattern!r}" in str(refusal.value)


PER_CHANNEL, GROUPS = Reduction("n c -> c"), Reduction("n (g c) -> n g", g=4)
NUMBERS = np.ones((2, 3))
CALLS = {
    "size of no axis": (lambda: Reduction("n c -> c", g=2), "no axis g|g=2|n c -> c"),
    "size of an ellipsis": (lambda: Reduction("n ... -> n", **{"...": 2}), "...=2"),
    "size 0": (lambda: Reduction("n c -> c", n=0), "positive int|n=0"),
    "size 2.0": (lambda: Reduction("n c -> c", n=2.0), "positive int|n=2.0"),
    "size True": (lambda: Reduction("n c -> c", n=True), "positive int|n=True"),
    "too many axes": (lambda: PER_CHANNEL.count((2, 3, 4)), "an axis for each of n c|(2, 3, 4)"),
    "position too far": (lambda: PER_CHANNEL.labels((2, 3), at=[[0], [3]]), "at|(2, 3)|[[0], [3]]"),
    "position below 0": (
        lambda: PER_CHANNEL.labels((2, 3), at=[[-1], [0]]),
        "at|(2, 3)|[[-1], [0]]",
    ),
    "an axis too few": (lambda: PER_CHANNEL.labels((2, 3), at=[[0]]), "at|(2, 3)|[[0]]"),
    "too few axes": (lambda: PER_CHANNEL.labels((2,)), "an axis for each of n c|(2,)"),
    "too few around ...": (lambda: Reduction("n ... c -> c").count((2,)), "'n ... c -> c'|(2,)"),
    "negative": (lambda: PER_CHANNEL.stat_shape((2, -3)), "no negative sizes|(2, -3)"),
    "fraction": (lambda: PER_CHANNEL.stat_shape((2, 3.0)), "tuple of ints|(2, 3.0)"),
    "text": (lambda: PER_CHANNEL.labels("23"), "tuple of ints|'23'"),
    "no sequence": (lambda: PER_CHANNEL.count(6), "tuple of ints|got 6"),
    "no shape": (lambda: PER_CHANNEL.count(None), "tuple of ints|got None"),
    "groups": (
        lambda: GROUPS.stat_shape((2, 6)),
        "g must divide|(g c)|g=4 for 6|1, 2, 3 or 6 would do",
    ),
    "groups of x": (lambda: GROUPS.mean(np.ones((2, 6))), "g must divide|g=4 for 6"),
    "groups of a prime": (lambda: GROUPS.count((2, 5)), "g=4 for 5|1 or 5 would do"),
    "groups of one": (lambda: GROUPS.count((2, 1)), "g=4 for 1; 1 would do"),
    "three in a group": (
        lambda: Reduction("(a b c) -> a", a=2, c=2).count((6,)),
        "a times c must divide|a=2, c=2 for 6",
    ),
    "other size": (lambda: Reduction("n c -> c", c=4).mean(NUMBERS), "c must have size 4|got 3"),
    "other group": (
        lambda: Reduction("(g c) -> g", g=2, c=2).count((6,)),
        "(g c) must have size 4|got 6",
    ),
    "correction = count": (
        lambda: PER_CHANNEL.var(NUMBERS, 2),
        "below the count|correction=2 for 2",
    ),
    "correction > count": (lambda: PER_CHANNEL.var(NUMBERS, 2.5), "correction=2.5 for 2"),
    "one number": (lambda: PER_CHANNEL.var(NUMBERS[:1], 1), "correction=1 for 1 number per"),
    "correction NaN": (lambda: PER_CHANNEL.var(NUMBERS, NAN), "below the count|correction=nan"),
    "no numbers": (lambda: PER_CHANNEL.mean(NUMBERS[:0]), "no numbers|(0, 3)"),
    "no numbers to var": (lambda: PER_CHANNEL.var(torch.ones(0, 3), -1), "no numbers|(0, 3)"),
    "stat": (
        lambda: PER_CHANNEL.spread(np.ones(2), (2, 3)),
        "stat|(3,)|(2, 3)|'n c -> c'|got (2,)",
    ),
    "stat that would broadcast": (lambda: PER_CHANNEL.spread(np.ones(1), (2, 3)), "(3,)|got (1,)"),
    "stat as wide as x": (lambda: PER_CHANNEL.spread(torch.ones(1, 3), (2, 3)), "(3,)|got (1, 3)"),
    "int tensor": (lambda: PER_CHANNEL.mean(torch.ones(2, 3).int()), "x|torch.int32|x.float()"),
    "bool tensor": (lambda: PER_CHANNEL.var(torch.ones(2, 3) > 0), "floating-point|torch.bool"),
    "complex tensor": (lambda: PER_CHANNEL.mean(torch.ones(2, 3) * 1j), "floating-point|complex64"),
    "complex array": (lambda: PER_CHANNEL.mean(NUMBERS * 1j), "real numbers|complex128"),
    "texts": (lambda: PER_CHANNEL.mean(np.array([["a", "b"]])), "real numbers|<U1"),
    "objects": (lambda: PER_CHANNEL.mean(np.array([[None, 1]])), "real numbers|object"),
    "of Linear": (lambda: Reduction.of(nn.Linear(2, 3), 2), "layer|LayerNorm|got Linear"),
    "of None": (lambda: Reduction.of(None, 2), "layer|BatchNorm1d|got NoneType"),
    "of a class": (lambda: Reduction.of(nn.LayerNorm, 2), "layer|got|torch.nn|LayerNorm"),
    "of our class": (lambda: Reduction.of(normviz.BatchNorm1d, 2), "got|normviz|BatchNorm1d"),
    "of another's": (lambda: Reduction.of(type("LayerNorm", (), {})(), 2), "torch.nn or normviz"),
    "by": (
        lambda: Reduction.of(nn.LayerNorm(3), 2, by="weights"),
        '"statistic" or "weight"|\'weights\'',
    ),
    "axes of 2d": (lambda: Reduction.of(nn.BatchNorm2d(3), 3), "BatchNorm2d|(N, C, H, W)|3 axes"),
    "axes of LayerNorm": (lambda: Reduction.of(nn.LayerNorm([3, 4]), 1), "(…, 3, 4)|1 axis"),
    "of another forward": (
        lambda: Reduction.of(type("Mine", (nn.LayerNorm,), {"forward": nn.Identity.forward})(3), 2),
        "compute what LayerNorm does|got Mine|Reduction(pattern)",
    ),
    "ndim text": (lambda: Reduction.of(nn.LayerNorm(4), "3"), "ndim|got '3'|x.ndim"),
    "ndim shape": (lambda: Reduction.of(nn.GroupNorm(2, 4), (2, 4)), "ndim|got (2, 4)"),
    "ndim 1 of any": (lambda: Reduction.of(nn.SyncBatchNorm(3), 1), "(N, C, …)|1 axis"),
    "lazy": (lambda: Reduction.of(nn.LazyBatchNorm2d(), 4), "must have seen a batch"),
    "size of sizes": (lambda: Reduction("n c -> c", c=NUMBERS), "positive int|c=array"),
    "positions of an int": (lambda: PER_CHANNEL.labels((2, 3), at=(0, 1)), "at|got (0, 1)"),
    "positions 1": (lambda: PER_CHANNEL.labels((2, 3), at=1), "at|got 1"),
    "position 0.5": (lambda: PER_CHANNEL.labels((2, 3), at=([0.5], [1])), "at|got ([0.5], [1])"),
    "index of text": (lambda: PER_CHANNEL.label_at("ab", (2, 3)), "at|[['a'], ['b']]"),
    "normalize by 3": (lambda: normalize(torch.ones(2, 3), 3, 0), "reduction|got int"),
    "normalize a list": (lambda: normalize([1.0], "n ->", 0), "x must be a torch tensor|got list"),
    "weight of nothing": (lambda: normviz.weight_norm(None), "name|NoneType|none"),
    "weight 3": (lambda: normviz.weight_norm(nn.Linear(2, 3), 3), "name|got 3|weight, bias"),
    "dim 1.0": (lambda: normviz.weight_norm(nn.Linear(2, 3), dim=1.0), "dim|got 1.0 for 2 axes"),
    "dim text": (lambda: normviz.weight_norm(nn.Linear(2, 3), dim="1"), "dim|got '1'"),
    "groups of one channel": (lambda: normviz.GroupNorm(2, 1), "2 groups for 1 channels; 1 would"),
    "label": (lambda: PER_CHANNEL.locate(3, (2, 3)), "label|below 3|(2, 3)|got 3"),
    "label -1": (lambda: PER_CHANNEL.numbers(NUMBERS, -1), "label|0 or more|got -1"),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_reduction_refuses_what_makes_no_sense(what):
    call, words = CALLS[what]
    with pytest.raises(ValueError) as refusal:
        call()
    for word in words.split("|"):
        assert word in str(refusal.value)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_normalize_refuses_a_parameter_of_another_shape_even_if_torch_could_stretch_it(name):
    with pytest.raises(ValueError, match=rf"{name} must have shape \(3,\).*got \(1,\)"):
        normviz.normalize(torch.randn(2, 3), PER_CHANNEL, 1e-5, **{name: torch.ones(1)})


def test_normalize_refuses_what_a_reduction_refuses():
    for x in (torch.ones(2, 3, 4), torch.ones(2, 3).int(), torch.ones(0, 3)):
        with pytest.raises(ValueError, match=r"an axis for each of|floating-point|no numbers"):
            normviz.normalize(x, PER_CHANNEL, 1e-5)
