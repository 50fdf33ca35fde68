"""SyncBatchNorm on several workers, in real processes: all together are one BatchNorm."""

import copy

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import normviz
from normviz import SyncBatchNorm
from normviz.moments import Moments
from normviz.workers import together

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="needs torch.distributed")

SHAPES = [(9, 3), (9, 3, 4), (9, 3, 4, 5), (9, 3, 2, 4, 5)]
SIZES = {2: [2, 7], 3: [5, 0, 4]}  # of the parts: unequal, and one is empty
OPTIONS = [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.1}]
CASES = [(shape, {}) for shape in SHAPES] + [(SHAPES[2], options) for options in OPTIONS[1:]]


def batches(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    numbers = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(8))
    return [(number + 1e3 * (i % 2)).to(dtype) for i, number in enumerate(numbers)]


def passes(layer, shape, part, dtype=torch.float32):
    """Everything that three steps of training and one in eval leave behind, of a part."""
    left, numbers = [], batches(shape, dtype)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(6))
    for training, x, upstream in zip((1, 1, 1, 0), numbers[::2], numbers[1::2], strict=True):
        layer.train(bool(training)).zero_grad()
        x = part(x).clone().requires_grad_()
        y = layer(x)
        y.backward(part(upstream))
        gradients = {name: p.grad for name, p in layer.named_parameters()}
        left.append({"y": y.detach(), "x.grad": x.grad, "grads": gradients, **layer.state_dict()})
        left[-1] = copy.deepcopy(left[-1])
    return left


def every_case(rank, size):
    def part(x):
        return x.split(SIZES[size])[rank]

    return [passes(SyncBatchNorm(3, **options), shape, part) for shape, options in CASES]


@pytest.fixture(scope="module", params=SIZES)
def workers(request):
    return together(every_case, request.param)


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda i: f"{CASES[i]}")
def test_all_workers_together_are_one_batch_norm(workers, case):
    shape, options = CASES[case]
    one = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    whole = passes(one(3, **options).double(), shape, lambda x: x.double())
    if "track_running_stats" in options:
        whole.pop()  # in eval, each worker's batch is its own
    for step, wanted in enumerate(whole):
        found = [worker[case][step] for worker in workers]
        for name in ("y", "x.grad"):
            joined = torch.cat([worker[name] for worker in found]).double()
            torch.testing.assert_close(joined, wanted[name], rtol=2e-4, atol=2e-4)
        for name, gradient in wanted["grads"].items():
            added = sum(worker["grads"][name].double() for worker in found)
            torch.testing.assert_close(added, gradient, rtol=2e-4, atol=2e-3)
        for worker in found:
            for name in wanted.keys() - {"y", "x.grad", "grads"}:
                torch.testing.assert_close(worker[name].double(), wanted[name].double())


def test_parts_join_into_the_whole_whatever_their_sizes():
    x = torch.randn(12, 2, dtype=torch.float64) + 1e6
    for sizes in ([12], [1, 11], [5, 7], [4, 4, 4]):
        whole = Moments.join([Moments.of(part, (0,)) for part in x.split(sizes)])
        assert whole.count == 12
        torch.testing.assert_close(whole.mean[0], x.mean(0), rtol=1e-15, atol=0)
        torch.testing.assert_close(whole.squares[0], 12 * x.var(0, correction=0), rtol=1e-9, atol=0)


# What is odd


def odd_ones(rank, size):
    said = {}
    layer, ones = SyncBatchNorm(2), torch.ones(1, 2)
    layer(ones * rank)  # one value each, but two in all
    said["mean"] = layer.running_mean.clone()
    for name, x in {
        "one value in all": ones[: 1 - rank],
        "none at all": ones[:0],
    }.items():
        before = copy.deepcopy(layer.state_dict())
        try:
            said[name] = layer(x).shape
        except ValueError as error:
            said[name] = str(error)
        said[f"{name} moves"] = {k: v - before[k] for k, v in layer.state_dict().items()}
    half = SyncBatchNorm(2)(torch.randn(3, 2).bfloat16())
    said["half"] = half.dtype
    said["alone"] = [*SyncBatchNorm(2, process_group=_own_group(rank))(ones.repeat(2, 1)).shape]
    x = torch.randn(3, 2, requires_grad=True)
    [first] = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    try:
        first.sum().backward()
    except RuntimeError as error:
        said["twice"] = str(error)
    explained = normviz.explain(layer, torch.full((2, 2), float(rank)) + torch.eye(2))
    said["explained"], said["picture"] = repr(explained), explained.picture().text
    said["output"] = explained.picture(show="output").text
    return said


def _own_group(rank):
    groups = [distributed.new_group([0]), distributed.new_group([1])]
    return groups[rank]


@pytest.fixture(scope="module")
def odd():
    return together(odd_ones, 2)


def test_what_is_too_little_alone_may_be_enough_together(odd):
    for said in odd:
        torch.testing.assert_close(said["mean"], torch.tensor([0.05, 0.05]))
        assert "Expected more than 1 value per channel" in said["one value in all"]
        assert not any(moved.any() for moved in said["one value in all moves"].values())
        assert said["none at all"] == (0, 2)
        assert {k for k, v in said["none at all moves"].items() if v.any()} == {
            "num_batches_tracked"
        }
        assert said["half"] == torch.bfloat16
        assert said["alone"] == [2, 2]
        assert "once_differentiable" in said["twice"]


def test_a_worker_is_told_that_the_numbers_of_others_count(odd):
    for said in odd:
        assert (
            "The mean and variance of all workers normalize x, not the slices' own"
            in said["explained"]
        )
        assert "μ = 1 and σ² = 0.5 normalize: those of all workers" in said["picture"]
        assert "unbiased" not in said["explained"] + said["picture"]
        assert "√(0.5 + 1e−5)" in said["output"]


def one_fails(rank, size):
    layer = SyncBatchNorm(2)
    layer(torch.randn(3, 2))
    if rank == 1:
        return "gone"
    try:
        layer(torch.randn(3, 2))
    except RuntimeError as error:
        return str(error)


def test_a_worker_that_is_gone_leaves_nobody_waiting():
    told, _ = together(one_fails, 2, seconds=5)
    assert told.startswith("SyncBatchNorm needs every worker of its group")


# In a model


def in_a_model(rank, size):
    plain = DistributedDataParallel(a_model())
    synced = DistributedDataParallel(SyncBatchNorm.convert(a_model()))
    for x in batches((6, 2))[:3]:
        for net in (plain, synced):  # whose gradients are averaged already
            learn([net], [x.split(3)[rank]])
    return {"plain": plain.module.state_dict(), "synced": synced.module.state_dict()}


def a_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def learn(models, parts):
    """A step of models with the same weights, of the average of their gradients."""
    for model, part in zip(models, parts, strict=True):
        model.zero_grad()
        model(part).square().mean().backward()
    with torch.no_grad():
        for same in zip(*(model.parameters() for model in models), strict=True):
            average = sum(parameter.grad for parameter in same) / len(same)
            for parameter in same:
                parameter -= 0.1 * average


def test_in_a_model_they_learn_as_one_and_plain_layers_keep_what_the_first_worker_saw():
    found = together(in_a_model, 2)
    one, apart = a_model(), [a_model(), a_model()]
    for x in batches((6, 2))[:3]:
        learn([one], [x])
        # Before each pass, the buffers of worker 0 are sent to all; then each adds its own batch.
        apart[1].load_state_dict(apart[0].state_dict())
        learn(apart, x.split(3))
    for worker, plain in zip(found, apart, strict=True):
        torch.testing.assert_close(worker["synced"], one.state_dict(), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(worker["plain"], plain.state_dict(), rtol=1e-3, atol=1e-3)
    means = [plain.state_dict()["1.running_mean"] for plain in apart]
    assert not torch.allclose(*means)


def test_convert_puts_a_layer_in_the_place_of_every_batch_norm():
    class Own(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    kept = [normviz.InstanceNorm1d(3), nn.LayerNorm(3), normviz.MABN2d(3), Own(3)]
    kept += [normviz.SwitchableNorm2d(3), nn.GroupNorm(1, 3)]
    changed = [
        nn.BatchNorm1d(3, eps=0.1, momentum=None),
        nn.BatchNorm3d(3, affine=False),
        nn.SyncBatchNorm(3),
        normviz.BatchNorm2d(3, track_running_stats=False, bias=False),
        normviz.BatchNorm1d(3, dtype=torch.float64).eval(),
    ]
    changed[0](torch.randn(4, 3))
    model = nn.ModuleDict({"kept": nn.Sequential(*kept), "changed": nn.Sequential(*changed)})
    before = {name: id(t) for name, t in model.state_dict(keep_vars=True).items()}
    modes = [part.training for part in changed]
    assert SyncBatchNorm.convert(model) is model
    assert [*model["kept"]] == kept
    assert [type(layer) for layer in model["changed"]] == [SyncBatchNorm] * 5
    assert [layer.training for layer in model["changed"]] == modes
    assert {name: id(t) for name, t in model.state_dict(keep_vars=True).items()} == before
    assert (model["changed"][0].eps, model["changed"][0].momentum) == (0.1, None)
    assert model["changed"][3].weight is not None is model["changed"][3].bias
    assert isinstance(SyncBatchNorm.convert(nn.BatchNorm1d(2)), SyncBatchNorm)
    with pytest.raises(ValueError, match="must have seen a batch"):
        SyncBatchNorm.convert(nn.Sequential(nn.LazyBatchNorm1d()))
