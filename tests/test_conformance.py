"""Every layer is what it says: equal to its referee in all that a program can see, and to its plan.

A layer takes part by being listed once. Its referee is torch.nn's layer of that name, or its paper
(tests/papers.py), or else its plan. Its options are found in its constructor.
"""

import copy
import inspect
import io
import pickle
import warnings
from itertools import combinations

import numpy as np
import papers
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import normviz
from normviz import explain, layers, plan_of
from normviz.refusals import RefusedInput

# The name of a layer, what it is made with, and the shape of an input.
CASES = [
    ("BatchNorm1d", (3,), (7, 3)),
    ("BatchNorm1d", (3,), (4, 3, 5)),
    ("BatchNorm2d", (3,), (4, 3, 5, 6)),
    ("BatchNorm3d", (3,), (2, 3, 4, 5, 6)),
    ("SyncBatchNorm", (3,), (7, 3)),
    ("SyncBatchNorm", (3,), (2, 3, 4, 5, 6)),
    ("InstanceNorm1d", (3,), (4, 3, 5)),
    ("InstanceNorm1d", (3,), (3, 5)),
    ("InstanceNorm2d", (3,), (3, 5, 6)),
    ("InstanceNorm2d", (3,), (4, 3, 5, 6)),
    ("InstanceNorm3d", (3,), (2, 3, 4, 5, 6)),
    ("GroupNorm", (2, 6), (4, 6)),
    ("GroupNorm", (2, 6), (4, 6, 5)),
    ("GroupNorm", (3, 6), (4, 6, 5, 7)),
    ("LayerNorm", (7,), (7,)),
    ("LayerNorm", (7,), (4, 5, 7)),
    ("LayerNorm", ([5, 6],), (4, 3, 5, 6)),
    ("LayerNorm", (torch.Size([3, 4, 5]),), (2, 3, 4, 5)),
    ("LayerNorm", ([2, 3, 4, 5, 6],), (2, 3, 4, 5, 6)),
    ("RMSNorm", (7,), (7,)),
    ("RMSNorm", (7,), (4, 5, 7)),
    ("RMSNorm", ([5, 6],), (4, 3, 5, 6)),
    ("FilterResponseNorm2d", (3,), (4, 3, 5, 6)),
    ("SwitchableNorm2d", (3,), (4, 3, 5, 6)),
    ("MABN2d", (3, 2, 1e-5, 0.02, 2), (4, 3, 5, 6)),
]
DTYPES = [  # of the input, and of the parameters
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.float16, torch.float16),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float32),
    (torch.bfloat16, torch.float32),
]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 3e-2, torch.bfloat16: 1e-1}
OTHER_VALUES = {"eps": (0.1, 0.0), "momentum": (0.3, 0, 1)}


def words_of(case):
    name, _, shape = case
    return f"{name} {shape}"


every_case = pytest.mark.parametrize("case", CASES, ids=words_of)
every_layer = pytest.mark.parametrize(
    "case", {name: case for case in CASES for name in case[:1]}.values(), ids=words_of
)
of_torch = [case for case in CASES if hasattr(nn, case[0])]
every_torch_case = pytest.mark.parametrize("case", of_torch, ids=words_of)
every_torch_layer = pytest.mark.parametrize(
    "case", {case[0]: case for case in of_torch}.values(), ids=words_of
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


def options_of(name, args):
    """Each option of a constructor at another value, some of them together, and none."""
    parameters = [*inspect.signature(getattr(normviz, name)).parameters.values()][len(args) :]
    single = []
    for parameter in parameters:
        values = OTHER_VALUES.get(parameter.name, ())
        if isinstance(parameter.default, bool):
            values = (not parameter.default,)
        if parameter.name == "momentum" and hasattr(nn, name):
            values += (None,)
        single += [{parameter.name: value} for value in values]
    pairs = [one | other for one, other in combinations(single, 2) if one.keys() != other.keys()]
    return [{}, *single, *pairs]


OPTIONS = [(case, options) for case in CASES for options in options_of(*case[:2])]


def make(case, **options):
    """A layer; what its constructor does not take, such as a dtype, it is moved to."""
    name, args, _ = case
    taken = inspect.signature(getattr(normviz, name)).parameters
    given = {option: value for option, value in options.items() if option in taken}
    moved = {option: value for option, value in options.items() if option not in taken}
    layer = getattr(normviz, name)(*args, **given)
    return layer.to(**moved) if moved else layer


def twins(case, **options):
    """A layer and its referee, with the same parameters, not one and not zero."""
    name, args, _ = case
    ours = make(case, **options)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn(parameter.shape) + 0.5)
    if not hasattr(nn, name):
        return ours, getattr(papers, name, papers.ByPlan)(ours)
    theirs = getattr(nn, name)(*args, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def random_input(shape, dtype=torch.float32):
    return (2 * torch.randn(shape, dtype=torch.float64) + 3).to(dtype)


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


# Numbers


def test_every_layer_of_the_package_is_listed():
    listed = {name for name, *_ in CASES}
    of_inputs = {n for n, layer in layers.LAYERS.items() if not issubclass(layer, nn.Conv2d)}
    assert of_inputs == listed
    assert all(len({*shape}) == len(shape) for *_, shape in CASES)  # or axes could be mixed up


# torch's RMSNorm has no fused kernel for that, and says so.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize(("dtype", "of_weights"), DTYPES, ids=str)
@every_case
def test_outputs_gradients_and_buffers_are_the_referees(case, dtype, of_weights):
    ours, theirs = twins(case, dtype=of_weights)
    for training in (True, True, True, True, False):
        ours.train(training), theirs.train(training)
        assert_twins(ours, theirs, random_input(case[2], dtype), TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("case", "options"), OPTIONS, ids=lambda v: words_of(v) if isinstance(v, tuple) else str(v)
)
def test_with_any_options(case, options):
    ours, theirs = twins(case, **options, dtype=torch.float64)
    numbers = {name: value for name, value in options.items() if name in OTHER_VALUES}
    assert numbers == {name: getattr(ours, name) for name in numbers}
    for training in (True, True, False):
        ours.train(training), theirs.train(training)
        x = random_input(case[2], torch.float64)
        if options.get("eps") == 0 and hasattr(nn, case[0]):
            theirs.eps = 5e-324  # as BatchNorm refuses 0 in training
            ours.eps = 5e-324 if plan_of(ours, x.ndim).over_samples else 0
        assert_twins(ours, theirs, x, 1e-9)


@pytest.mark.parametrize(("dtype", "of_weights"), DTYPES[2:], ids=str)
@every_layer
def test_half_precision_is_rounded_once_at_the_end(case, dtype, of_weights):
    layer, _ = twins(case, dtype=of_weights)
    x = random_input(case[2], dtype)
    for training in (True, False):
        precise = copy.deepcopy(layer.train(training)).float()
        assert torch.equal(layer(x), precise(x.float()).to(dtype))


# What it pools


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@every_case
def test_what_it_says_it_pools_is_what_it_pools(case, training):
    """Moving one number moves exactly the outputs of its slice."""
    layer = twins(case, dtype=torch.float64)[0].train(training)
    if hasattr(layer, "threshold"):
        nn.init.constant_(layer.threshold, -100.0)  # or it hides what moves
    x, plan = random_input(case[2], torch.float64), plan_of(layer, len(case[2]))
    stored = not training and any(name.startswith("running") for name, _ in layer.named_buffers())
    for _ in range(3):
        at = tuple(int(torch.randint(size, ())) for size in x.shape)
        other = x.clone()
        other[at] += 1
        before, after = (copy.deepcopy(layer)(one) for one in (x, other))
        together = torch.zeros(x.shape, dtype=bool)
        together[at] = True
        for reduction in plan.pooled(stored=stored):
            labels = torch.tensor(reduction.labels(x.shape))
            together |= labels == labels[at]
        assert torch.equal(before != after, together)
        if not stored and len(case[2]) > 1:
            assert 1 < together.sum() < x.numel() or plan.statistic == ""


@every_case
def test_what_shares_a_weight_meets_it(case):
    layer = twins(case, dtype=torch.float64)[0]
    plan, x = plan_of(layer, len(case[2])), random_input(case[2], torch.float64)
    for name in ("weight", "bias"):
        parameter = getattr(layer, name, None)
        if parameter is None:
            continue
        nth = int(torch.randint(parameter.numel(), ()))
        if hasattr(layer, "threshold"):
            nn.init.constant_(layer.threshold, -100.0)
        other = copy.deepcopy(layer)
        with torch.no_grad():
            getattr(other, name).flatten()[nth] += 1
        moved = copy.deepcopy(layer)(x) != other(x)
        assert torch.equal(moved, torch.tensor(plan.sharing.labels(x.shape)) == nth)


# As torch.nn's


@every_torch_case
def test_state_moves_both_ways(case):
    for options in options_of(*case[:2])[:9]:
        saved, loaded = twins(case, **options)
        if options.get("eps") == 0:  # which torch refuses in training
            continue
        saved(random_input(case[2]))
        for _ in range(2):
            assert [*saved.state_dict()] == [*loaded.state_dict()]
            assert saved.state_dict()._metadata == loaded.state_dict()._metadata
            loaded.load_state_dict(saved.state_dict(), strict=True)
            torch.testing.assert_close(loaded.state_dict(), saved.state_dict(), rtol=0, atol=0)
            saved, loaded = loaded, saved
            saved(random_input(case[2]))


@every_torch_layer
def test_constructor_forward_and_repr_are_torchs(case):
    def arguments(library, method):
        signature = inspect.signature(getattr(getattr(library, case[0]), method))
        return [(p.name, p.default, p.kind) for p in signature.parameters.values()]

    assert arguments(normviz, "__init__") == arguments(nn, "__init__")
    assert arguments(normviz, "forward") == arguments(nn, "forward")
    for options in options_of(*case[:2]):
        ours, theirs = twins(case, **options)
        assert repr(nn.Sequential(ours)) == repr(nn.Sequential(theirs))


LAYOUTS = {
    "channels last": lambda x: x.to(memory_format=LAST[x.ndim]) if x.ndim in LAST else x,
    "last axes swapped": lambda x: x.mT.contiguous().mT if x.ndim > 1 else x,
    "every second": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
    "one repeated": lambda x: x[:1].expand(x.shape) if x.ndim > 2 else x,
}
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("layout", LAYOUTS)
@every_case
def test_any_memory_layout_gives_the_referees_values_and_strides(case, layout, training):
    for options in {}, {"affine": False}:
        if options.keys() - inspect.signature(getattr(normviz, case[0])).parameters.keys():
            continue
        ours, theirs = twins(case, **options)
        x = LAYOUTS[layout](random_input(case[2]))
        ours.train(training), theirs.train(training)
        assert_twins(ours, theirs, x)
        if hasattr(nn, case[0]):
            assert ours(x).stride() == theirs(x).stride()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@every_torch_case
def test_an_empty_batch_leaves_what_it_leaves_in_torch(case, training):
    """Its gradients, too, are zeros; those of torch's GroupNorm may be nan."""
    plan = plan_of(twins(case)[0], len(case[2]))
    for axis, names in enumerate(plan.reduction.axes):
        if {"c", *dict(plan.sizes)} & {*names}:
            continue
        x = torch.zeros([0 if i == axis else size for i, size in enumerate(case[2])])
        passes = []
        for layer in twins(case):
            passes.append(one_pass(layer.train(training), x, x))
        gradients = {name: passes[0][name] for name, _ in twins(case)[0].named_parameters()}
        assert all((gradient == 0).all() for gradient in gradients.values())
        for name in passes[0].keys() - gradients.keys():
            torch.testing.assert_close(passes[0][name], passes[1][name], rtol=0, atol=0)


# Copies, devices, derivatives


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
@every_layer
def test_a_copy_goes_on_alike_and_apart(case, how):
    layer, x = twins(case)[0], random_input(case[2])
    layer(x)
    twin = COPIES[how](layer)
    assert type(twin) is type(layer)
    assert_twins(twin, layer, x, tolerance=0)
    before = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.zero_()
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


@every_layer
def test_construction_draws_no_random_numbers_and_takes_no_memory_on_meta(case):
    before = torch.get_rng_state()
    layer = make(case, device="meta", dtype=torch.float64)
    assert torch.equal(torch.get_rng_state(), before)
    assert {tensor.device.type for tensor in layer.state_dict().values()} <= {"meta"}
    assert {parameter.dtype for parameter in layer.parameters()} <= {torch.float64}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@every_layer
def test_the_output_may_be_overwritten_before_the_backward_pass(case, training):
    ours, theirs = twins(case)
    ours.train(training), theirs.train(training)
    ours, theirs = (nn.Sequential(layer, nn.ReLU(inplace=True)) for layer in (ours, theirs))
    assert_twins(ours, theirs, random_input(case[2]))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@every_layer
def test_first_and_second_derivatives_are_right(case, training):
    layer = twins(case, dtype=torch.float64)[0].train(training)
    if case[0] == "MABN2d" and training:  # its gradient is another one on purpose
        return
    x = random_input(case[2], torch.float64).requires_grad_()
    inputs = x, *layer.parameters()
    names = [n for n, _ in layer.named_parameters()]

    def output(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(output, inputs, fast_mode=True)


class Recorder(TorchDispatchMode):
    """The names of all operations that run, those of the backward pass included."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names = [*getattr(self, "names", []), str(operation)]
        return operation(*args, **(kwargs or {}))


@every_layer
def test_no_layer_leans_on_torchs_normalization(case):
    layer, x = twins(case)[0], random_input(case[2])
    with Recorder() as recorder:
        one_pass(layer, x, torch.ones_like(x))
        one_pass(layer.eval(), x, torch.ones_like(x))
    assert "aten.sum.dim_IntList" in recorder.names
    assert not [operation for operation in recorder.names if "norm" in operation]


# Refusals


def wrong_inputs(layer, shape):
    """Inputs that no layer made for this shape takes, each with a word of its refusal."""
    x, plan = torch.ones(shape), plan_of(layer, len(shape))
    yield torch.tensor(1.0), "ax"
    yield x.int(), "x.float() would do"
    yield x > 0, "x.float() would do"
    yield x + 0j, "x.real and x.imag"
    yield x.numpy(), "torch.as_tensor(x).float() would do"
    yield x.tolist(), "torch.as_tensor"
    yield (x, x), "x[0] would do"
    yield None, "NoneType"
    yield x.to_sparse(), "x.to_dense() would do"
    with warnings.catch_warnings(action="ignore"):  # torch's way to make one is deprecated
        quantized = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
    yield quantized, "x.dequantize() would do"
    yield x.to(torch.float8_e4m3fn), "x.float() would do"
    yield nn.Identity(), "the layer comes first"
    yield np.ma.masked_greater(x.numpy(), 0), "masked"
    if dict(layer.named_parameters()):
        yield x.double(), "x.to(torch.float32) would do"
    wanted = dict(plan.sizes)
    for axis, group in enumerate(plan.reduction.axes):
        if {*group} <= {*wanted}:
            longer = tuple(size + (i == axis) for i, size in enumerate(shape))
            yield torch.ones(longer), f"{longer}"


@every_case
def test_a_refused_input_changes_nothing_and_the_remedy_works(case):
    layer = twins(case)[0]
    layer(random_input(case[2]))
    state = copy.deepcopy(layer.state_dict())
    for x, word in wrong_inputs(layer, case[2]):
        with pytest.raises(RefusedInput) as refusal:
            layer(x)
        message = str(refusal.value)
        assert word in message, message
        torch.testing.assert_close(layer.state_dict(), state, rtol=0, atol=0)
        with pytest.raises(ValueError) as refusal:
            explain(layer, x)
        assert word in str(refusal.value)
        remedies = [
            r
            for r in (
                "x.float()",
                "x.real",
                "x[0]",
                "x.to_dense()",
                "x.dequantize()",
                "x.to(torch.float32)",
                "torch.as_tensor(x).float()",
            )
            if r in message
        ]
        for remedy in remedies:
            copy.deepcopy(layer)(eval(remedy))
