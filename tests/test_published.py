"""Every number published with a worked example comes out of normviz's and of torch's layers."""

import json
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import normviz
from normviz import Reduction, published

FILE = Path(normviz.__file__).with_name("published.json")
ROUNDED_INPUT = {"A": 2e-4, "E": 2e-4}  # their inputs were printed with few digits, too
RESULTS = {  # how one pass gives each of them; one that repeats was printed once
    "A": {
        "channel0_mean": lambda run: run.mean[0],
        "channel0_var_unbiased": lambda run: run.var_unbiased[0],
        "channel0_var_biased": lambda run: run.var_biased[0],
    },
    "C1": {
        "output_rows": lambda run: run.y.T,
        "running_mean": lambda run: run.layer.running_mean,
        "running_var": lambda run: run.layer.running_var,
    },
    "C2": {
        "output": lambda run: run.y,
        "running_mean": lambda run: run.layer.running_mean,
        "running_var": lambda run: run.layer.running_var,
        "channel0_var_biased": lambda run: run.var_biased[0],
    },
    "C3": {
        "output_per_sample": lambda run: run.y.transpose(0, 1).flatten(2),
        "running_mean": lambda run: run.layer.running_mean,
        "running_var": lambda run: run.layer.running_var,
        "channel_means": lambda run: run.mean,
    },
    "C4": {"output_each_row": lambda run: run.y},
    "C5": {"output_each_slice": lambda run: run.y},
    "E": {
        "output": lambda run: run.y,
        "channel0_mean": lambda run: run.mean[0],
        "channel0_var_biased": lambda run: run.var_biased[0],
        "first_output": lambda run: run.y[0, 0, 0, 0],
    },
}
COUNTED = {"C1": (4, 5), "C2": (3, 2, 3), "C3": (3, 3, 2, 2), "C4": (3, 4), "C5": (2, 2, 3, 4)}


def one_pass(library, name):
    """The layer as published after one training pass in float64, and the batch's statistics."""
    example = {k: v if k == "layer" else v.double() for k, v in published(name).items()}
    kinds = {k: getattr(library, k) for k in ("BatchNorm1d", "BatchNorm2d", "LayerNorm")}
    layer = eval(example["layer"].split(" with ")[0], kinds).double()
    state = {k: example[k] for k in ("weight", "bias") if k in example}
    layer.load_state_dict(layer.state_dict() | state)
    run = SimpleNamespace(layer=layer, y=layer(example["input"]).detach())
    if hasattr(layer, "running_mean"):  # momentum 1 stores the batch's own
        whole = type(layer)(layer.num_features, momentum=1, dtype=torch.float64)
        whole(example["input"])
        count = example["input"][:, 0].numel()
        run.mean, run.var_unbiased = whole.running_mean, whole.running_var
        run.var_biased = whole.running_var * (count - 1) / count
    return run


def half_a_unit(number):
    """Of the last digit printed, which is the fourth or a later one: final zeros are not kept."""
    return min(0.5 * 10.0 ** number.as_tuple().exponent, 5e-5)


@pytest.mark.parametrize("library", [normviz, nn], ids=["normviz", "torch"])
@pytest.mark.parametrize(("name", "result"), [(n, r) for n, rs in RESULTS.items() for r in rs])
def test_a_layer_gives_the_printed_numbers(name, result, library):
    text = FILE.read_text(encoding="utf-8")
    numbers = json.loads(text, parse_float=Decimal, parse_int=Decimal)[name][result]
    expected = np.array(numbers).astype(float)
    slack = ROUNDED_INPUT.get(name) or np.vectorize(half_a_unit)(numbers)
    value = RESULTS[name][result](one_pass(library, name)).numpy()
    assert value.shape[value.ndim - expected.ndim :] == expected.shape
    assert (np.abs(value - expected) <= slack).all()


@pytest.mark.parametrize("name", ["A", "E"])
def test_the_statistics_of_a_reduction_are_the_published_ones(name):
    example, per_channel = published(name), Reduction("n c h w -> c")
    for result, value in {
        "channel0_mean": per_channel.mean(example["input"])[0],
        "channel0_var_biased": per_channel.var(example["input"])[0],
        "channel0_var_unbiased": per_channel.var(example["input"], correction=1)[0],
    }.items():
        if result in example:
            torch.testing.assert_close(value, example[result], rtol=0, atol=2e-4)


def test_no_published_number_is_left_out():
    about, *names = json.loads(FILE.read_text(encoding="utf-8"))
    assert (about, names) == ("about", ["A", "C1", "C2", "C3", "C4", "C5", "E"])
    for name in names:
        weights = {"weight", "bias"} if name == "E" else set()
        assert set(published(name)) == {"layer", "input", *weights, *RESULTS[name]}


@pytest.mark.parametrize(("name", "shape"), COUNTED.items())
def test_the_inputs_that_count_up_do(name, shape):
    expected = torch.arange(np.prod(shape), dtype=torch.float32).reshape(shape)
    assert torch.equal(published(name)["input"], expected)


def test_the_random_inputs_are_the_published_ones():
    a, e = published("A"), published("E")
    assert (a["input"].shape, e["input"].shape) == ((1, 2, 5, 5), (1, 2, 3, 4))
    sums = [x["input"].double().sum((0, 2, 3)).tolist() for x in (a, e)]
    assert np.round(sums, 4).tolist() == [[-4.7979, 2.7619], [-2.0116, 2.0332]]
    assert a["layer"] == "BatchNorm2d(2)"
    assert e["layer"].startswith("BatchNorm2d(2) with weight [0.8681, 0.7207]")
    torch.testing.assert_close(e["weight"], torch.tensor([0.8681, 0.7207]))
    assert e["bias"].tolist() == [0, 0]


def test_changing_a_published_tensor_does_not_change_the_next_one():
    published("C1")["input"].zero_()
    assert published("C1")["input"].sum() == 190


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"A, C1, C2, C3, C4, C5, E: got \['A'\]"):
        published(["A"])
    with pytest.raises(ValueError, match="A, C1, C2, C3, C4, C5, E: got 'B'"):
        published("B")
