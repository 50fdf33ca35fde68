"""The layers equal torch.nn's in everything that a program can see: numbers, state, signatures."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import normviz
from normviz import Reduction, blocks, normalize

NAMES = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm"]
BATCH_SHAPES = [
    ("BatchNorm1d", (7, 3)),
    ("BatchNorm1d", (4, 3, 5)),
    ("BatchNorm2d", (4, 3, 5, 6)),
    ("BatchNorm3d", (2, 3, 4, 5, 6)),
]
BATCH_OPTIONS = [
    {},
    {"momentum": None},
    {"momentum": None, "affine": False},
    {"momentum": 0, "bias": False},
    {"momentum": 1, "eps": 0.1},
    {"momentum": 0.3, "affine": False, "eps": 1e-3},
    {"momentum": 0.3, "bias": False},
    {"track_running_stats": False},
    {"track_running_stats": False, "affine": False, "momentum": None},
    {"track_running_stats": False, "bias": False, "momentum": 0.3},
]
LAYER_SHAPES = [
    ((7,), 7),
    ((4, 7), 7),
    ((4, 7), [4, 7]),
    ((4, 5, 7), 7),
    ((4, 5, 7), (5, 7)),
    ((2, 3, 4, 5), 5),
    ((2, 3, 4, 5), torch.Size([4, 5])),
    ((2, 3, 4, 5), [3, 4, 5]),
    ((2, 3, 4, 5, 6), 6),
    ((2, 3, 4, 5, 6), [4, 5, 6]),
    ((2, 3, 4, 5, 6), [2, 3, 4, 5, 6]),
]
LAYER_OPTIONS = [{}, {"bias": False}, {"elementwise_affine": False}, {"eps": 0.1}]
DTYPES = [  # of the input, and of the parameters
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.float16, torch.float16),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float32),
    (torch.bfloat16, torch.float32),
]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 3e-2, torch.bfloat16: 1e-1}
SMALL = {  # one input of each kind of layer
    "BatchNorm1d": (3, (7, 3)),
    "BatchNorm2d": (3, (4, 3, 5, 6)),
    "BatchNorm3d": (3, (2, 3, 4, 5, 6)),
    "LayerNorm": ([5, 6], (4, 3, 5, 6)),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


def twins(name, *args, **options):
    """normviz's layer and torch.nn's, with the same weights and biases, not one and not zero."""
    theirs, ours = getattr(nn, name)(*args, **options), getattr(normviz, name)(*args, **options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape) + 0.5)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def random_input(shape, dtype=torch.float32):
    return (2 * torch.randn(shape) + 3).to(dtype)


def one_pass(layer, x, upstream):
    """Everything that a forward and a backward pass leave behind."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    layer.zero_grad()
    y = layer(x)
    y.backward(upstream)
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {"y": y, "x.grad": x.grad, **gradients, **dict(layer.named_buffers())}


def assert_twins(ours, theirs, x, tolerance=2e-5):
    upstream = torch.randn(x.shape).to(x.dtype)
    torch.testing.assert_close(
        one_pass(ours, x, upstream), one_pass(theirs, x, upstream), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(("dtype", "of_weights"), DTYPES, ids=str)
@pytest.mark.parametrize("options", BATCH_OPTIONS, ids=str)
@pytest.mark.parametrize(("name", "shape"), BATCH_SHAPES, ids=str)
def test_batch_norm_equals_torch_in_training_and_in_eval(name, shape, options, dtype, of_weights):
    ours, theirs = twins(name, 3, **options, dtype=of_weights)
    for training in (True, True, True, False):
        ours.train(training), theirs.train(training)
        assert_twins(ours, theirs, random_input(shape, dtype), TOLERANCE[dtype])


@pytest.mark.parametrize(("dtype", "of_weights"), DTYPES, ids=str)
@pytest.mark.parametrize("options", LAYER_OPTIONS, ids=str)
@pytest.mark.parametrize(("shape", "normalized_shape"), LAYER_SHAPES, ids=str)
def test_layer_norm_equals_torch(shape, normalized_shape, options, dtype, of_weights):
    ours, theirs = twins("LayerNorm", normalized_shape, **options, dtype=of_weights)
    for training in (True, False):
        ours.train(training), theirs.train(training)
        assert_twins(ours, theirs, random_input(shape, dtype), TOLERANCE[dtype])


@pytest.mark.parametrize(("dtype", "of_weights"), DTYPES[2:], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_rounded_once_at_the_end(name, dtype, of_weights):
    layer, _ = twins(name, SMALL[name][0], dtype=of_weights)
    x = random_input(SMALL[name][1], dtype)
    for training in (True, False):
        precise = copy.deepcopy(layer.train(training)).float()
        assert torch.equal(layer(x), precise(x.float()).to(dtype))


def test_momentum_none_is_the_plain_average():
    layer, batches = normviz.BatchNorm1d(3, momentum=None), [random_input((7, 3)) for _ in range(4)]
    for batch in batches:
        layer(batch)
    for running, statistic in ((layer.running_mean, torch.mean), (layer.running_var, torch.var)):
        torch.testing.assert_close(running, sum(statistic(b, dim=0) for b in batches) / 4)


def test_the_stored_variance_is_unbiased_and_the_normalizing_one_is_not():
    layer, x = normviz.BatchNorm1d(3, momentum=1, affine=False, eps=0), random_input((7, 3))
    torch.testing.assert_close(layer(x).var(0, correction=0), torch.ones(3))
    torch.testing.assert_close(layer.running_var, x.var(0, correction=1))


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_track_running_stats_may_be_flipped_after_construction(track, momentum):
    ours, theirs = twins("BatchNorm1d", 3, momentum=momentum, track_running_stats=track)
    assert_twins(ours, theirs, random_input((7, 3)))
    ours.track_running_stats = theirs.track_running_stats = not track
    before = copy.deepcopy(list(ours.buffers()))
    assert_twins(ours, theirs, random_input((7, 3)))
    ours.eval(), theirs.eval()
    assert_twins(ours, theirs, random_input((7, 3)))
    torch.testing.assert_close(list(ours.buffers()), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "missing", [["num_batches_tracked"], ["running_mean", "running_var"]], ids=" ".join
)
def test_buffers_set_to_none_are_left_out_as_in_torch(missing):
    ours, theirs = twins("BatchNorm1d", 3)
    for layer in (ours, theirs):
        for name in missing:
            setattr(layer, name, None)
    assert_twins(ours, theirs, random_input((7, 3)))


def test_running_statistics_move_under_no_grad_too():
    ours, theirs = twins("BatchNorm2d", 3)
    x = random_input((4, 3, 5, 6))
    with torch.no_grad():
        assert not ours(x).requires_grad
        theirs(x)
    assert ours.num_batches_tracked == 1
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"track_running_stats": False}], ids=str
)
@pytest.mark.parametrize("into", [nn, normviz], ids=["into torch.nn", "into normviz"])
@pytest.mark.parametrize("name", NAMES[:3])
def test_batch_norm_state_moves_both_ways(name, into, options):
    source = normviz if into is nn else nn
    shape = SMALL[name][1]
    saved, loaded = (getattr(library, name)(3, **options) for library in (source, into))
    saved(random_input(shape))
    assert list(saved.state_dict()) == list(loaded.state_dict())
    assert saved.state_dict()._metadata == loaded.state_dict()._metadata
    loaded.load_state_dict(saved.state_dict(), strict=True)
    torch.testing.assert_close(loaded.state_dict(), saved.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("options", LAYER_OPTIONS[:3], ids=str)
def test_layer_norm_state_moves_both_ways(options):
    ours, theirs = twins("LayerNorm", [4, 5], **options)
    fresh = nn.LayerNorm([4, 5], **options)
    fresh.load_state_dict(ours.state_dict(), strict=True)
    torch.testing.assert_close(fresh.state_dict(), theirs.state_dict(), rtol=0, atol=0)


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


def test_a_new_state_without_the_counter_is_incomplete():
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        normviz.BatchNorm1d(3).load_state_dict(old_state(2), strict=True)


def test_an_old_state_assigned_to_a_meta_layer_brings_a_real_counter():
    layer = normviz.BatchNorm1d(3, device="meta")
    layer.load_state_dict(old_state(1), assign=True)
    assert {value.device.type for value in layer.state_dict().values()} == {"cpu"}


LAST, LAST_3D = torch.channels_last, torch.channels_last_3d
LAYOUTS = {
    "transposed": ("BatchNorm1d", 3, lambda: random_input((4, 5, 3)).mT),
    "channels_last": ("BatchNorm2d", 3, lambda: random_input((4, 3, 5, 6)).to(memory_format=LAST)),
    "channels_last_3d": (
        "BatchNorm3d",
        3,
        lambda: random_input((2, 3, 4, 5, 6)).to(memory_format=LAST_3D),
    ),
    "h and w swapped": ("BatchNorm2d", 3, lambda: random_input((4, 3, 6, 5)).mT),
    "every second": ("BatchNorm2d", 3, lambda: random_input((4, 3, 5, 12))[..., ::2]),
    "one repeated": ("BatchNorm2d", 3, lambda: random_input((1, 3, 5, 6)).expand(4, 3, 5, 6)),
    "channels moved": ("LayerNorm", 3, lambda: random_input((4, 3, 5)).mT),
    "pixels last": ("LayerNorm", [3, 5], lambda: random_input((4, 5, 3)).mT),
}


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_gives_torchs_values_and_strides(layout, training, affine):
    name, size, make = LAYOUTS[layout]
    ours, theirs = twins(name, size, **{_affine(name): affine})
    x = make()
    ours.train(training), theirs.train(training)
    assert_twins(ours, theirs, x)
    assert ours(x).stride() == theirs(x).stride()


def _affine(name):
    return "elementwise_affine" if name == "LayerNorm" else "affine"


@pytest.mark.parametrize("name", NAMES)
def test_constructor_and_forward_have_torchs_signature(name):
    def arguments(library, method):
        signature = inspect.signature(getattr(getattr(library, name), method))
        return [(p.name, p.default, p.kind) for p in signature.parameters.values()]

    assert arguments(normviz, "__init__") == arguments(nn, "__init__")
    assert arguments(normviz, "forward") == arguments(nn, "forward")


@pytest.mark.parametrize("name", NAMES)
def test_repr_is_torchs(name):
    for options in ({}, {"bias": False}, {"eps": 0.1, _affine(name): False}):
        ours, theirs = twins(name, SMALL[name][0], **options)
        assert repr(nn.Sequential(ours)) == repr(nn.Sequential(theirs))


@pytest.mark.parametrize("name", NAMES)
def test_construction_on_the_meta_device_takes_no_memory(name):
    layer = getattr(normviz, name)(SMALL[name][0], device="meta", dtype=torch.float64)
    assert {tensor.device.type for tensor in layer.state_dict().values()} == {"meta"}
    assert layer.weight.dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_construction_draws_no_random_numbers(name):
    before = torch.get_rng_state()
    getattr(normviz, name)(SMALL[name][0])
    assert torch.equal(torch.get_rng_state(), before)


def saved_and_loaded(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "torch.save": saved_and_loaded,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_goes_on_alike_and_apart(name, how):
    layer, _ = twins(name, SMALL[name][0])
    x = random_input(SMALL[name][1])
    layer(x)
    twin = COPIES[how](layer)
    assert type(twin) is type(layer)
    assert_twins(twin, layer, x, tolerance=0)
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.zero_()
    assert all(value.abs().sum() > 0 for value in layer.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_to_another_dtype_takes_weights_and_statistics_along(name, dtype):
    ours, theirs = (layer.to(dtype) for layer in twins(name, SMALL[name][0]))
    assert_twins(ours, theirs, random_input(SMALL[name][1], dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("options", [{"affine": False}, {"bias": False}, {}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_output_may_be_overwritten_before_the_backward_pass(name, options, training):
    options = {_affine(name) if key == "affine" else key: value for key, value in options.items()}
    ours, theirs = twins(name, SMALL[name][0], **options)
    ours.train(training), theirs.train(training)
    ours, theirs = (nn.Sequential(layer, nn.ReLU(inplace=True)) for layer in (ours, theirs))
    assert_twins(ours, theirs, random_input(SMALL[name][1]))


def test_the_output_of_an_empty_batch_is_not_the_input():
    x = torch.zeros(0, 3)
    assert normviz.BatchNorm1d(3, affine=False)(x) is not x


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [("BatchNorm1d", 3, (0, 3)), ("BatchNorm2d", 3, (2, 3, 0, 5)), ("LayerNorm", 5, (0, 3, 5))],
    ids=str,
)
def test_an_empty_batch_leaves_what_it_leaves_in_torch(name, size, shape, training):
    for options in [{}] if name == "LayerNorm" else [{}, {"momentum": None}]:
        ours, theirs = twins(name, size, **options)
        ours.train(training), theirs.train(training)
        assert_twins(ours, theirs, torch.zeros(shape))


def exact(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


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
def test_normalize_has_the_right_first_and_second_derivative_by_all_three_outputs(reduction, shape):
    def three_outputs(x):
        return normalize(x, reduction, 1e-3)

    assert len(three_outputs(exact(*shape))) == 3
    assert torch.autograd.gradcheck(three_outputs, exact(*shape))
    assert torch.autograd.gradgradcheck(three_outputs, exact(*shape))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("name", "size", "shape"), [("BatchNorm1d", 2, (3, 2, 2)), ("LayerNorm", [3, 2], (2, 3, 2))]
)
def test_layers_have_the_right_first_and_second_derivative(name, size, shape, training):
    layer, _ = twins(name, size, dtype=torch.float64)
    layer(exact(*shape))
    layer.train(training)

    def output(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    inputs = exact(*shape), exact(*layer.weight.shape), exact(*layer.bias.shape)
    assert torch.autograd.gradcheck(output, inputs)
    assert torch.autograd.gradgradcheck(output, inputs)


@pytest.mark.parametrize("block", [1, 20])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_large_input_taken_block_by_block_gives_the_same(dtype, layout, block, monkeypatch):
    name, size, make = LAYOUTS[layout]
    cuts, split = [], torch.Tensor.split
    monkeypatch.setattr(torch.Tensor, "split", lambda x, *how: cuts.append(how) or split(x, *how))
    monkeypatch.setattr(blocks, "BLOCK", block)
    for options in {}, {_affine(name): False}:
        ours, theirs = twins(name, size, **options, dtype=dtype)
        x = make().to(dtype)
        assert_twins(ours, theirs, x, TOLERANCE[dtype])
        ours(x)
        neighbours = name != "LayerNorm" and x.stride(1) == 1  # numbers of one row in memory
        assert bool(cuts) != neighbours


@pytest.mark.parametrize("name", NAMES)
def test_on_the_meta_device_only_shapes_are_worked_out(name):
    size, shape = SMALL[name]
    layer = getattr(normviz, name)(size, device="meta")
    y = layer(torch.empty(shape, device="meta"))
    assert y.is_meta
    assert y.shape == shape


def test_a_jacobian_by_many_gradients_at_once_is_that_by_one_after_another(monkeypatch):
    for block in (1, 1000):
        monkeypatch.setattr(blocks, "BLOCK", block)
        layer, _ = twins("BatchNorm1d", 3, track_running_stats=False)
        x = random_input((2, 3, 2))
        fast, slow = (
            torch.autograd.functional.jacobian(layer, x, vectorize=at_once)
            for at_once in (True, False)
        )
        torch.testing.assert_close(fast, slow)
        assert slow.abs().max() > 0.01


@pytest.mark.parametrize("output", range(3), ids=["y", "mean", "var"])
def test_many_gradients_at_once_of_any_output_are_those_one_by_one(output):
    x = exact(4, 3)
    of_all = normalize(x, Reduction("n c -> c"), 1e-3)[output]
    numbers = of_all.numel()
    directions = torch.eye(numbers, dtype=x.dtype).reshape(numbers, *of_all.shape)
    options = {"retain_graph": True}
    (together,) = torch.autograd.grad(of_all, x, directions, is_grads_batched=True, **options)
    each = [torch.autograd.grad(of_all, x, direction, **options)[0] for direction in directions]
    torch.testing.assert_close(together, torch.stack(each))
    assert together.abs().max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_a_functional_jacobian_and_its_own_equal_torchs(name):
    untracked = {} if name == "LayerNorm" else {"track_running_stats": False}
    size = 3 if name != "LayerNorm" else [3, 2]
    shape = {"BatchNorm1d": (2, 3), "BatchNorm2d": (2, 3, 2, 1), "BatchNorm3d": (2, 3, 2, 1, 1)}
    ours, theirs = twins(name, size, **untracked, dtype=torch.float64)
    x = exact(*shape.get(name, (2, 3, 2)))
    for derivative in (torch.func.jacrev(ours), torch.func.jacrev(torch.func.jacrev(ours))):
        expected = torch.func.jacrev(theirs)
        if derivative(x).ndim > 2 * x.ndim:
            expected = torch.func.jacrev(expected)
        torch.testing.assert_close(derivative(x), expected(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_an_ensemble_of_layers_is_each_of_them(name):
    untracked = {} if name == "LayerNorm" else {"track_running_stats": False}
    members = [twins(name, SMALL[name][0], **untracked)[0] for _ in range(2)]
    parameters, buffers = torch.func.stack_module_state(members)
    x = random_input(SMALL[name][1])

    def one(parameters, x):
        return torch.func.functional_call(members[0], parameters, (x,))

    together = torch.vmap(one, in_dims=(0, None))(parameters, x)
    torch.testing.assert_close(together, torch.stack([member(x) for member in members]))
    nested = torch.vmap(torch.vmap(one, in_dims=(0, None)), in_dims=(None, 0))(
        parameters, torch.stack([x, 2 * x, x - 1])
    )
    torch.testing.assert_close(nested[1], torch.stack([member(2 * x) for member in members]))
    batch_inside = torch.stack([x, x - 1], dim=1)
    mapped = torch.vmap(members[0], in_dims=1)(batch_inside)
    torch.testing.assert_close(mapped, torch.stack([members[0](x), members[0](x - 1)]))
    assert not buffers


@pytest.mark.parametrize("name", NAMES)
def test_functional_gradients_equal_torchs_one_by_one_and_mapped(name):
    untracked = {} if name == "LayerNorm" else {"track_running_stats": False}
    ours, theirs = twins(name, SMALL[name][0], **untracked)
    two = random_input((2, *SMALL[name][1]))
    gradient, expected = (
        torch.func.grad(lambda x, layer=layer: layer(x).pow(3).sum()) for layer in (ours, theirs)
    )
    torch.testing.assert_close(gradient(two[0]), expected(two[0]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        torch.vmap(gradient)(two), torch.vmap(expected)(two), rtol=1e-4, atol=1e-4
    )
    assert gradient(two[0]).abs().max() > 0.1


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # forward mode uses it
def test_forward_mode_is_refused_rather_than_wrong():
    x = exact(3, 2)
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(lambda x: normalize(x, Reduction("n c -> c"), 1e-3)[0], (x,), (x,))


@pytest.mark.parametrize("name", NAMES)
def test_a_mean_of_ten_thousand_costs_no_digits_in_float32(name):
    size, shape = SMALL[name]
    x = torch.randn(shape) + 1e4
    ours, precise = twins(name, size)[0], twins(name, size)[1].double()
    precise.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x).double(), precise(x.double()), rtol=0, atol=5e-3)
    if name != "LayerNorm":
        torch.testing.assert_close(
            ours.running_var.double(), precise.running_var, rtol=0, atol=1e-3
        )


def small_net(library):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv1d(2, 3, 2, bias=False, dtype=torch.float64),  # a bias would be taken out again
        library.BatchNorm1d(3, dtype=torch.float64),
        nn.ReLU(inplace=True),
        nn.Linear(4, 6, dtype=torch.float64),
        library.LayerNorm([3, 6], dtype=torch.float64),
        nn.Flatten(),
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
    torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=1e-7, atol=1e-7)
    assert not any(torch.equal(start[key], value) for key, value in nets[0].state_dict().items())


class Recorder(TorchDispatchMode):
    """The names of all operations that run, those of the backward pass included."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names = [*getattr(self, "names", []), str(operation)]
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_no_layer_leans_on_torchs_normalization(name, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the layer is not from scratch")

    layer, theirs = twins(name, SMALL[name][0])
    x = random_input(SMALL[name][1])
    for module in (nn.functional, torch):
        for function in ("batch_norm", "layer_norm", "native_batch_norm", "native_layer_norm"):
            monkeypatch.setattr(module, function, refuse, raising=False)
    with pytest.raises(AssertionError, match="from scratch"):
        theirs(x)
    with Recorder() as recorder:
        one_pass(layer, x, torch.ones_like(x))
        one_pass(layer.eval(), x, torch.ones_like(x))
    assert "aten.sum.dim_IntList" in recorder.names
    assert not [operation for operation in recorder.names if "norm" in operation]


def test_tiny_gradients_of_half_precision_weights_are_added_up_in_float32():
    x = torch.randn(4096, 3).half()
    upstream = x.sign() * 6e-8  # about the smallest half, so that products with it round badly
    half, exact = (normviz.BatchNorm1d(3, dtype=dtype) for dtype in (torch.half, torch.double))
    for layer in (half, exact):
        layer(x.to(layer.weight.dtype)).backward(upstream.to(layer.weight.dtype))
    torch.testing.assert_close(half.weight.grad.double(), exact.weight.grad, rtol=0.01, atol=0)
