"""What single layers have of their own, and how all of them behave in larger programs."""

import copy
import inspect

import pytest
import torch
from test_conformance import (
    CASES,
    LAYOUTS,
    TOLERANCE,
    assert_twins,
    every_layer,
    every_torch_case,
    every_torch_layer,
    one_pass,
    random_input,
    twins,
)
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations, parametrize

import normviz
from normviz import Reduction, accelerated, normalize, weight_norm
from normviz.refusals import RefusedInput

TABLE = ("BatchNorm1d", (3,), (7, 3))


pytestmark = pytest.mark.usefixtures("seeded")


# Running statistics


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("case", [TABLE, ("InstanceNorm1d", (3,), (4, 3, 5))], ids=str)
def test_track_running_stats_may_be_flipped_after_construction(case, track, momentum):
    """With the quirk of InstanceNorm: a flag set to False stops no movement, not even in eval."""
    ours, theirs = twins(case, momentum=momentum, track_running_stats=track, affine=True)
    assert_twins(ours, theirs, random_input(case[2]))
    ours.track_running_stats = theirs.track_running_stats = not track
    before = copy.deepcopy([*ours.buffers()])
    assert_twins(ours, theirs, random_input(case[2]))
    ours.eval(), theirs.eval()
    if case is not TABLE and not track:  # there is nothing to normalize with
        with pytest.raises(RuntimeError):
            theirs(random_input(case[2]))
        with pytest.raises(RefusedInput, match="running_mean"):
            ours(random_input(case[2]))
        return
    assert_twins(ours, theirs, random_input(case[2]))
    moved = not all(map(torch.equal, ours.buffers(), before))
    assert moved == (case is not TABLE and momentum is not None)


@pytest.mark.parametrize(
    "missing", [["num_batches_tracked"], ["running_mean", "running_var"]], ids=" ".join
)
def test_buffers_set_to_none_are_left_out_as_in_torch(missing):
    ours, theirs = twins(TABLE)
    for layer in (ours, theirs):
        for name in missing:
            setattr(layer, name, None)
    assert_twins(ours, theirs, random_input((7, 3)))


BROKEN = {
    "one of two": lambda layer: setattr(layer, "running_mean", None),
    "too short": lambda layer: setattr(layer, "running_var", torch.ones(2)),
    "of integers": lambda layer: setattr(layer, "running_mean", torch.zeros(3, dtype=int)),
    "elsewhere": lambda layer: setattr(layer, "running_var", torch.ones(3, device="meta")),
    "a weight too long": lambda layer: setattr(layer, "bias", nn.Parameter(torch.ones(4))),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_broken_state_is_refused_before_anything_moves(how, training):
    layer = normviz.BatchNorm1d(3).train(training)
    BROKEN[how](layer)
    with pytest.raises(RefusedInput):
        layer(random_input((7, 3)))
    assert layer.num_batches_tracked == 0


def test_running_statistics_move_under_no_grad_too():
    ours, theirs = twins(TABLE)
    x = random_input((7, 3))
    with torch.no_grad():
        assert not ours(x).requires_grad
        theirs(x)
    assert ours.num_batches_tracked == 1
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_what_was_infinite_stays_so_as_in_torch():
    for value in (float("inf"), -float("inf")):
        ours, theirs = twins(TABLE)
        for layer in (ours, theirs):
            layer.running_mean.fill_(value)
            layer.running_var.fill_(abs(value))
        assert_twins(ours, theirs, random_input((7, 3)))
        assert ours.running_mean.isinf().all()


def old_state(version):
    """A state_dict from before there was a counter."""
    state = nn.BatchNorm1d(3).state_dict()
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = version
    return state


@pytest.mark.parametrize("version", [None, 1])
def test_a_state_from_before_the_counter_loads_and_leaves_it_alone(version):
    layer = normviz.BatchNorm1d(3)
    layer(random_input((7, 3)))
    layer.load_state_dict(old_state(version), strict=True)
    assert layer.num_batches_tracked == 1
    assert layer.running_mean.tolist() == [0, 0, 0]
    meta = normviz.BatchNorm1d(3, device="meta")
    meta.load_state_dict(old_state(version), assign=True)
    assert {value.device.type for value in meta.state_dict().values()} == {"cpu"}


def test_a_new_state_without_the_counter_is_incomplete():
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        normviz.BatchNorm1d(3).load_state_dict(old_state(2), strict=True)


def test_with_momentum_one_eval_repeats_a_switchable_norms_last_output():
    layer = normviz.SwitchableNorm2d(3, momentum=1)
    x = random_input((4, 3, 5, 6))
    torch.testing.assert_close(layer(x), layer.eval()(x))


def test_the_memory_of_mabn_makes_r_after_a_thousand_batches():
    ours, theirs = twins(("MABN2d", (3, 2, 1e-5, 0.02, 2), (4, 3, 5, 6)))
    for layer in (ours, theirs):
        layer.iterations.fill_(998)
        layer.running_var.fill_(40.0)
    for _ in range(4):  # r is 1 twice, and then moves
        assert_twins(ours, theirs, random_input((4, 3, 5, 6)))
    x = random_input((4, 3, 5, 6))
    z = x.double() / (ours.memory_x2.double().mean(0) + 1e-5).sqrt()[:, None, None]
    assert not torch.allclose(ours(x).double() - ours.bias.double()[:, None, None], z, rtol=0.1)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@every_torch_layer
def test_an_eps_of_zero_is_taken_where_torch_takes_it(case, training):
    x, said = random_input(case[2]), []
    for library in (nn, normviz):
        layer = getattr(library, case[0])(*case[1], eps=0).train(training)
        try:
            said.append(layer(x).shape)
        except ValueError as error:
            assert "eps must be" in str(error)
            assert getattr(layer, "num_batches_tracked", 0) == (library is nn)
            said.append("refused")
    assert said[0] == said[1]


def test_a_constant_beyond_all_squares_becomes_zero_in_float64():
    x = torch.full((1, 4), 1e160, dtype=torch.float64)
    assert normviz.LayerNorm(4, dtype=torch.float64)(x).tolist() == [[0] * 4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_a_running_variance_that_was_infinite_stays_so_as_in_torch(dtype):
    x, found = torch.tensor([[-3000.0], [3000]], dtype=dtype), []
    for library in (nn, normviz):
        layer = library.BatchNorm1d(1, dtype=dtype)
        layer.running_var.fill_(torch.inf)
        found.append([layer(x), layer(x), layer.running_var, layer.eval()(x)])
    assert found[1][2].isinf().all()
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)


PARTS = {
    "every second sample": lambda x: x[::2],
    "cropped": lambda x: x[:, :, 1:-1, 2:],
    "some channels": lambda x: x[:, :3],
    "turned": lambda x: x.transpose(2, 3),
    "one position": lambda x: x[:, :, :1, :1],
}


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "channels first"])
def test_a_part_of_an_image_stays_in_memory_as_in_torch(last, part, training):
    x = random_input((8, 6, 10, 12))
    x = x.to(memory_format=torch.channels_last) if last else x
    x = PARTS[part](x).requires_grad_()
    for name, arguments in {
        "BatchNorm2d": (x.shape[1],),
        "GroupNorm": (1, x.shape[1]),
        "LayerNorm": (x.shape[1:],),
        "RMSNorm": (x.shape[3],),
    }.items():
        for layer in (
            getattr(library, name)(*arguments).train(training) for library in (nn, normviz)
        ):
            y = layer(x)
            kept = [y.is_contiguous(memory_format=torch.channels_last), y.is_contiguous()]
            if layer.__module__.startswith("torch."):
                wanted = kept
        assert kept == wanted or x[0, 0].numel() == 1, name


# Weights


@pytest.mark.parametrize(("stored", "r"), [(1e-6, 5), (1e6, 0.2)])
def test_r_goes_no_further_than_five_times_either_way(stored, r):
    layer = normviz.MABN2d(1, memory=1, warmup=0, eps=0)
    layer.running_var.fill_(stored)
    layer.iterations.fill_(1000)
    x = torch.tensor([3.0, -4]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(layer(x), r * x / 12.5**0.5)


def test_normalized_weights_are_mapped_over():
    layer, x = weight_norm(nn.Linear(3, 2)), torch.randn(4, 3)
    directions = torch.randn(5, 2, 3)

    def one(direction):
        taken = {"parametrizations.weight.original1": direction}
        return torch.func.functional_call(layer, taken, (x,))

    torch.testing.assert_close(torch.vmap(one)(directions), torch.stack([*map(one, directions)]))


DEFAULTS = {  # from the papers
    "FilterResponseNorm2d": {"eps": 1e-6, "learn_eps": False, "threshold": True},
    "SwitchableNorm2d": {"eps": 1e-5, "momentum": 0.1},
    "MABN2d": {"memory": 16, "eps": 1e-5, "momentum": 0.02, "warmup": 100},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_layer_starts_as_its_paper_says(name):
    parameters = inspect.signature(getattr(normviz, name)).parameters
    assert DEFAULTS[name] == {option: parameters[option].default for option in DEFAULTS[name]}


@pytest.mark.parametrize("dim", [0, 1, 2, -1, None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_weight_norm_is_torchs(dim, dtype):
    layer = nn.Conv1d(3, 4, 2).to(dtype)
    before = layer.weight.detach().clone()
    ours = weight_norm(copy.deepcopy(layer), dim=dim)
    assert torch.equal(ours.weight, before)  # to the last bit
    theirs = parametrizations.weight_norm(copy.deepcopy(layer), dim=dim)
    assert repr(ours).replace("_", "") == repr(theirs).replace("_", "")
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    for parameter in theirs.parameters():
        parameter.data += 0.5
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = random_input((2, 3, 5), dtype)
    upstream = torch.randn(2, 4, 4).to(dtype)
    passes = one_pass(ours, x, upstream), one_pass(theirs, x, upstream)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(*passes, rtol=tolerance, atol=tolerance)
    parametrize.remove_parametrizations(ours, "weight")
    torch.testing.assert_close(ours(x), theirs(x), rtol=tolerance, atol=tolerance)


def test_weight_norm_has_the_right_gradient_and_reads_older_files():
    layer = weight_norm(nn.Linear(3, 2, dtype=torch.float64))
    parts = layer.parametrizations.weight
    inputs = parts.original0.detach().requires_grad_(), parts.original1.detach().requires_grad_()
    assert torch.autograd.gradcheck(parts[0], inputs)
    old = {"weight_g": torch.ones(2, 1), "weight_v": torch.ones(2, 3), "bias": torch.zeros(2)}
    layer.load_state_dict(old, strict=True)
    torch.testing.assert_close(layer.weight, torch.full((2, 3), 3**-0.5, dtype=torch.float64))
    assert copy.deepcopy(layer).state_dict().keys() == layer.state_dict().keys()


def test_a_slice_of_zeros_has_no_direction_and_is_refused():
    layer = nn.Linear(3, 2)
    layer.weight.data[1] = 0
    with pytest.raises(RefusedInput, match="zeros at o 1"):
        weight_norm(layer)
    assert isinstance(layer.weight, nn.Parameter)  # nothing has changed
    assert parametrizations.weight_norm(layer)(torch.ones(1, 3)).isnan().any()
    layer = weight_norm(nn.Linear(3, 2))
    layer.parametrizations.weight.original1.data.zero_()
    with pytest.raises(RefusedInput, match="zeros at o 0"):
        layer(torch.ones(1, 3))
    for arguments, rule in ((("wight",), "name must be that of a"), (("weight", 2), "dim must be")):
        with pytest.raises(RefusedInput, match=rule):
            weight_norm(nn.Linear(3, 2), *arguments)


def test_a_centred_convolution_is_a_convolution_of_the_centred_weight():
    ours, theirs = normviz.CentredConv2d(3, 2, 2, stride=2), nn.Conv2d(3, 2, 2, stride=2)
    theirs.load_state_dict(ours.state_dict())
    parametrize.register_parametrization(theirs, "weight", Centred())
    x, upstream = random_input((4, 3, 6, 6)), torch.randn(4, 2, 3, 3)
    ours_, theirs_ = one_pass(ours, x, upstream), one_pass(theirs, x, upstream)
    torch.testing.assert_close(ours_["y"], theirs_["y"])
    torch.testing.assert_close(ours_["weight"], theirs_["parametrizations.weight.original"])
    assert not torch.allclose(ours.weight.mean((1, 2, 3)), torch.zeros(2), atol=1e-4)


class Centred(nn.Module):
    def forward(self, weight):
        return weight - weight.mean((1, 2, 3), keepdim=True)


# In larger programs


def exact(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("centred", [True, False], ids=["centred", "not centred"])
@pytest.mark.parametrize(
    ("reduction", "shape"),
    [
        (Reduction("n c l -> c"), (3, 2, 2)),
        (Reduction("n t c -> n t"), (2, 1, 4)),
        (Reduction("n (g c) l -> n g", g=2), (2, 4, 2)),
        (Reduction("... ->"), (2, 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("small", [0, 100], ids=["large", "small"])
def test_normalize_has_the_right_derivatives_by_all_three_outputs(
    reduction, shape, centred, small, monkeypatch
):
    monkeypatch.setattr(accelerated, "SMALL", small)
    weight, bias = (exact(*reduction.stat_shape(shape)) for _ in range(2))

    def three_outputs(x, weight, bias):
        return normalize(x, reduction, 1e-3, weight, bias, centred=centred)

    assert torch.autograd.gradcheck(three_outputs, (exact(*shape), weight, bias))
    assert torch.autograd.gradcheck(lambda *a: three_outputs(*a)[0], (exact(*shape), weight, bias))
    assert torch.autograd.gradgradcheck(three_outputs, (exact(*shape), weight, bias))


@pytest.mark.parametrize("block", [1, 20])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_large_input_taken_block_by_block_gives_the_same(dtype, layout, block, monkeypatch):
    cuts, split = [], torch.Tensor.split
    monkeypatch.setattr(torch.Tensor, "split", lambda x, *how: cuts.append(how) or split(x, *how))
    monkeypatch.setattr(accelerated, "SMALL", 0)
    monkeypatch.setattr(accelerated, "BLOCK", block)
    for case in CASES:
        x = LAYOUTS[layout](random_input(case[2])).to(dtype)
        for training in (True, False) if hasattr(nn, case[0]) else ():
            ours, theirs = (layer.train(training) for layer in twins(case, dtype=dtype))
            assert_twins(ours, theirs, x, TOLERANCE[dtype])
    assert cuts


@every_layer
def test_on_the_meta_device_only_shapes_are_worked_out(case):
    layer = getattr(normviz, case[0])(*case[1], device="meta")
    y = layer(torch.empty(case[2], device="meta"))
    assert y.is_meta
    assert y.shape == case[2]


@pytest.mark.parametrize("output", range(3), ids=["y", "mean", "var"])
def test_many_gradients_at_once_of_any_output_are_those_one_by_one(output, monkeypatch):
    x = exact(4, 3)
    of_all = normalize(x, Reduction("n c -> c"), 1e-3)[output]
    numbers = of_all.numel()
    directions = torch.eye(numbers, dtype=x.dtype).reshape(numbers, *of_all.shape)
    options = {"retain_graph": True}
    (together,) = torch.autograd.grad(of_all, x, directions, is_grads_batched=True, **options)
    each = [torch.autograd.grad(of_all, x, direction, **options)[0] for direction in directions]
    torch.testing.assert_close(together, torch.stack(each))
    assert together.abs().max() > 0.01


@every_torch_case
def test_of_a_frozen_layer_x_alone_has_a_gradient(case, monkeypatch):
    monkeypatch.setattr(accelerated, "SMALL", 0)
    ours, theirs = twins(case)
    x, gradients = random_input(case[2]).requires_grad_(), []
    for layer in (ours.requires_grad_(False), theirs.requires_grad_(False)):
        y = layer(x)
        gradients.append(torch.autograd.grad(y.pow(2).sum(), x)[0])
    torch.testing.assert_close(*gradients, rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("small", [0, 100], ids=["large", "small"])
def test_a_number_that_stands_alone_becomes_zero(small, monkeypatch):
    monkeypatch.setattr(accelerated, "SMALL", small)
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(3, 2, dtype=dtype)
        y, mean, var = normalize(x, "n c -> n c", 1e-5)
        assert torch.equal(y, torch.zeros(3, 2, dtype=dtype))
        assert torch.equal(mean, x) and not var.any()


def untracked(case):
    options = {"track_running_stats": False, "affine": True}
    taken = inspect.signature(getattr(normviz, case[0])).parameters
    return options if options.keys() <= taken.keys() else {}


@every_torch_layer
def test_functional_jacobians_and_mapped_gradients_equal_torchs(case):
    ours, theirs = twins(case, **untracked(case), dtype=torch.float64)
    two = random_input((2, *case[2]), torch.float64)
    gradient, expected = (
        torch.func.grad(lambda x, layer=layer: layer(x).pow(3).sum()) for layer in (ours, theirs)
    )
    close = {"rtol": 1e-8, "atol": 1e-8}
    torch.testing.assert_close(gradient(two[0]), expected(two[0]), **close)
    torch.testing.assert_close(torch.vmap(gradient)(two), torch.vmap(expected)(two), **close)
    small = two[0].flatten()[:1].expand(case[2]).clone() + random_input(case[2], torch.float64)
    jacobian, wanted = (torch.func.jacrev(layer)(small) for layer in (ours, theirs))
    torch.testing.assert_close(jacobian, wanted, **close)


@every_torch_layer
def test_an_ensemble_of_layers_is_each_of_them(case):
    members = [twins(case, **untracked(case))[0] for _ in range(2)]
    parameters, _ = torch.func.stack_module_state(members)
    x = random_input(case[2])

    def one(parameters, x):
        return torch.func.functional_call(members[0], parameters, (x,))

    together = torch.vmap(one, in_dims=(0, None))(parameters, x)
    torch.testing.assert_close(together, torch.stack([member(x) for member in members]))
    batch_inside = torch.stack([x, x - 1], dim=1)
    mapped = torch.vmap(members[0], in_dims=1)(batch_inside)
    torch.testing.assert_close(mapped, torch.stack([members[0](x), members[0](x - 1)]))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # forward mode uses it
@pytest.mark.parametrize("small", [0, 100], ids=["large", "small"])
def test_forward_mode_and_second_derivatives_are_those_of_reverse_mode(small, monkeypatch):
    monkeypatch.setattr(accelerated, "SMALL", small)
    x, direction = exact(4, 3), torch.randn(4, 3, dtype=torch.float64)

    def curved(x):
        return normalize(x, Reduction("n c -> c"), 1e-3)[0].pow(3)

    _, pushed = torch.func.jvp(curved, (x,), (direction,))
    torch.testing.assert_close(pushed, (torch.func.jacrev(curved)(x) * direction).sum((-2, -1)))
    with forward_ad.dual_level():
        _, dual = forward_ad.unpack_dual(curved(forward_ad.make_dual(x, direction)))
    torch.testing.assert_close(dual, pushed)
    one, other = (
        torch.autograd.functional.hessian(lambda x: curved(x).sum(), x, **how)
        for how in ({}, {"outer_jacobian_strategy": "forward-mode", "vectorize": True})
    )
    torch.testing.assert_close(one, other)


def small_net(library):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv1d(2, 3, 2, bias=False, dtype=torch.float64),  # a bias would be taken out again
        library.BatchNorm1d(3, dtype=torch.float64),
        nn.ReLU(inplace=True),
        library.GroupNorm(1, 3, dtype=torch.float64),
        nn.Linear(4, 6, dtype=torch.float64),
        library.RMSNorm([3, 6], dtype=torch.float64),
        library.InstanceNorm1d(3, affine=True, dtype=torch.float64),
        nn.Flatten(),
        library.LayerNorm(18, dtype=torch.float64),
        nn.Linear(18, 4, bias=False, dtype=torch.float64),
        library.BatchNorm1d(4, momentum=None, dtype=torch.float64),
    )


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_net_trains_exactly_as_its_torch_twin(optimizer):
    x, target = torch.randn(8, 2, 5).double(), torch.randn(8, 4).double()
    nets = small_net(normviz), small_net(nn)
    start = copy.deepcopy(nets[0].state_dict())
    for net in nets:
        steps = optimizer(net.parameters(), lr=0.05)
        for _ in range(10):
            steps.zero_grad()
            (net(x) - target).square().mean().backward()
            steps.step()
    torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=1e-6, atol=1e-6)
    assert sum(torch.equal(start[key], value) for key, value in nets[0].state_dict().items()) == 0


def test_tiny_gradients_of_half_precision_weights_are_added_up_in_float32():
    x = torch.randn(4096, 3).half()
    upstream = x.sign() * 6e-8  # about the smallest half, so that products with it round badly
    half, exact = (normviz.BatchNorm1d(3, dtype=dtype) for dtype in (torch.half, torch.double))
    for layer in (half, exact):
        layer(x.to(layer.weight.dtype)).backward(upstream.to(layer.weight.dtype))
    torch.testing.assert_close(half.weight.grad.double(), exact.weight.grad, rtol=0.01, atol=0)


def test_the_output_of_an_empty_batch_is_not_the_input():
    x = torch.zeros(0, 3)
    assert normviz.BatchNorm1d(3, affine=False)(x) is not x
