"""Each finding fires where it should, and is silent at the nearest case where it should not."""

from copy import deepcopy

import pytest
import torch
from patients import codes, fed, images, model_of, table
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

import normviz
from normviz.diagnosis import FINDINGS

pytestmark = pytest.mark.usefixtures("seeded")


# Each kind: a model and a batch that fire, and the nearest that do not. Each makes a pair.


class Shared(nn.Module):
    """Two views through one norm, or through two."""

    def __init__(self, *norms):
        super().__init__()
        self.norms = nn.ModuleList(norms)

    def forward(self, x):
        return self.norms[0](x) + self.norms[-1](x + 1)


class Between(nn.Module):
    """A linear layer and a norm, with something between them or beside."""

    def __init__(self, between):
        super().__init__()
        self.linear, self.norm, self.between = nn.Linear(3, 4), nn.BatchNorm1d(4), between

    def forward(self, x):
        return self.between(self.linear(x), self.norm)


class OwnNorm(nn.Module):
    """Of no class that anybody knows, but called a norm."""

    def __init__(self, axis):
        super().__init__()
        self.axis = axis

    def forward(self, x):
        return (x - x.mean(self.axis, keepdim=True)) / x.std(self.axis, keepdim=True)


def changed(model, **values):
    """A model with other values in a weight or a buffer."""
    for name, value in values.items():
        model.state_dict()[name].copy_(torch.as_tensor(value))
    return model


def switched(flag, cls=nn.BatchNorm1d):
    bn = cls(3, track_running_stats=not flag)
    bn.track_running_stats = flag
    return bn


def partly(statistics, weights):
    """A model in training with one layer frozen by half, or wholly."""
    model = model_of(nn.BatchNorm1d(4))
    model[1].train(not statistics).requires_grad_(not weights)
    return model


class StaysFrozen(nn.Sequential):
    def train(self, mode=True):
        super().train(mode)
        self[1].eval().requires_grad_(False)
        return self


def averaged(cured):
    """Weights of a run, averaged, with the statistics of its first step; or with new ones."""
    model, batches = model_of(nn.BatchNorm1d(4)), [(table(256),) for _ in range(40)]
    average = fed(deepcopy(model), batches[0][0])
    with torch.no_grad():
        for steps in range(30):  # of a run in which the first weights grow
            for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
                parameter.mul_(1.1)
                mean.lerp_(parameter, 1 / (steps + 1))
    if cured:
        update_bn(batches, average)
    return average.train(), table(256)


def tokens(rows=16):
    return torch.randn(rows, 12, 12) + 3 * torch.randn(12)  # (N, T, C)


def letterboxed(x, part):
    return F.pad(x, (0, 0, 0, int(x.shape[2] * part)))


CASES = {
    "few-numbers": lambda: [
        ((model_of(nn.BatchNorm1d(4)), table(8)), (model_of(nn.BatchNorm1d(4)), table(32))),
        ((model_of(nn.BatchNorm1d(4)), table(1)), (model_of(nn.BatchNorm1d(4)).eval(), table(1))),
        ((nn.BatchNorm2d(3), images(1, size=4)), (nn.BatchNorm2d(3), images(2, size=4))),
        ((nn.GroupNorm(3, 3), table(8)), (nn.GroupNorm(1, 3), table(8))),
        ((nn.SyncBatchNorm(3), table(8)), (partly(True, True), table(8))),
    ],
    "far-statistics": lambda: [
        (averaged(False), averaged(True)),
        *(
            ((fed(nn.BatchNorm2d(3), images()), 10 * images()), (fed(n, images()), images()))
            for n in (nn.BatchNorm2d(3), normviz.BatchNorm2d(3))
        ),
        (
            (fed(nn.BatchNorm1d(3), table() / 100), table()),
            (fed(nn.BatchNorm1d(3), table()).eval(), table(16)),
        ),
    ],
    "never-fed": lambda: [
        ((nn.BatchNorm1d(3).eval(), table()), (nn.LayerNorm(3), table())),
        ((nn.BatchNorm1d(3), table()), (nn.BatchNorm1d(3, track_running_stats=False), table())),
        ((normviz.BatchNorm1d(3), table()), (fed(normviz.BatchNorm1d(3), table(), 1), table())),
    ],
    "lagging": lambda: [
        ((fed(nn.BatchNorm1d(3), table(), 5), table()), (fed(nn.BatchNorm1d(3), table()), table())),
        (
            (fed(nn.BatchNorm1d(3, momentum=0.01), table()), table()),
            (fed(nn.BatchNorm1d(3, momentum=None), table(), 1), table()),
        ),
        (  # a file without the counter, and some steps: the variance tells that it is no start
            (fed(nn.BatchNorm1d(3), table(), 3), table()),
            (changed(fed(nn.BatchNorm1d(3), table() / 9), num_batches_tracked=3), table() / 9),
        ),
    ],
    "half-frozen": lambda: [
        ((partly(False, True), table()), (partly(True, True), table())),
        ((partly(True, False), table()), (partly(False, False), table())),
        ((partly(False, True), table()), (partly(False, True).eval(), table())),
    ],
    "frozen-until-train": lambda: [
        ((partly(True, True), table()), (StaysFrozen(*partly(True, True)).train(), table())),
        ((partly(True, True).eval(), table()), (partly(False, False).eval(), table())),
        ((partly(True, False), table()), (model_of(nn.LayerNorm(4).eval()), table())),
    ],
    "late-switch": lambda: [
        ((switched(False), table()), (nn.BatchNorm1d(3), table())),
        ((switched(True), table()), (nn.BatchNorm1d(3, track_running_stats=False), table())),
        ((switched(False, normviz.BatchNorm1d), table()), (nn.InstanceNorm2d(3), images())),
    ],
    "reused": lambda: [
        (
            (Shared(nn.BatchNorm1d(3)), table()),
            (Shared(nn.BatchNorm1d(3), nn.BatchNorm1d(3)), table()),
        ),
        ((Shared(normviz.BatchNorm1d(3)), table()), (Shared(nn.LayerNorm(3)), table())),
    ],
    "idle-bias": lambda: [
        (
            (model_of(nn.BatchNorm1d(4), bias=True), table()),
            (model_of(nn.LayerNorm(4), bias=True), table()),
        ),
        (
            (Between(lambda y, norm: norm(y)), table()),
            (Between(lambda y, norm: norm(y) + y), table()),
        ),
        (
            (nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(4, 4)), images()),
            (nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)), images()),
        ),
        (
            (nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.InstanceNorm2d(4)), images()),
            (Between(lambda y, norm: norm(y.mul_(torch.arange(1.0, 5)))), table()),
        ),
        (
            (Between(lambda y, norm: norm(y).relu()), table()),
            (Between(lambda y, norm: (norm(y), y)), table()),
        ),
    ],
    "zero-weight": lambda: [
        (
            (changed(nn.BatchNorm1d(3), weight=[1.0, 0, 1]), table()),
            (changed(nn.BatchNorm1d(3), weight=[1.0, 1e-3, 1]), table()),
        ),
        ((changed(nn.RMSNorm(3), weight=[1.0, 0, 1]), table()), (nn.BatchNorm1d(3), table())),
    ],
    "constant-channel": lambda: [
        (
            (nn.BatchNorm1d(3), table() * torch.tensor([1, 0, 1])),
            (nn.BatchNorm1d(3), table() * torch.tensor([1, 1e-2, 1])),
        ),
        ((nn.LayerNorm(8), torch.ones(4, 8)), (nn.LayerNorm(8), torch.randn(4, 8))),
        (
            (nn.BatchNorm2d(3), images().clamp(min=90)),
            (nn.InstanceNorm2d(3), images() * (torch.arange(48) > 5).view(16, 3, 1, 1)),
        ),
    ],
    "epsilon": lambda: [
        ((nn.BatchNorm1d(3), table() / 1e3), (nn.BatchNorm1d(3), table() / 100)),
        ((nn.LayerNorm(8, eps=0.1), torch.randn(4, 8) / 9), (nn.LayerNorm(8), torch.randn(4, 8))),
    ],
    "not-finite": lambda: [
        ((changed(nn.LayerNorm(3), weight=torch.nan), table()), (nn.LayerNorm(3), table())),
        ((nn.LayerNorm(3), table() * torch.inf), (nn.LayerNorm(3), table() * 1e8)),
    ],
    "negative-variance": lambda: [
        (
            (changed(nn.BatchNorm1d(3), running_var=[1.0, -1e-5, 1]), table()),
            (changed(nn.BatchNorm1d(3), running_var=[1.0, 0, 1]), table()),
        )
    ],
    "half-precision": lambda: [
        (
            (nn.BatchNorm1d(3).half(), table().half()),
            (nn.BatchNorm1d(3).half().eval(), table().half()),
        ),
        (
            (changed(nn.BatchNorm1d(3).half(), running_var=1e-9).eval(), table().half()),
            (nn.LayerNorm(3).bfloat16(), table().bfloat16()),
        ),
    ],
    "batch-mates": lambda: [
        ((nn.BatchNorm1d(3, track_running_stats=False), table()), (nn.InstanceNorm2d(3), images())),
        ((OwnNorm(0), table()), (OwnNorm(1), table())),
        # there, the first axis is that of the tokens
        ((OwnNorm(0), table(2)), (nn.TransformerEncoderLayer(4, 1, 8), torch.randn(5, 6, 4))),
    ],
    "swapped-axes": lambda: [
        ((nn.BatchNorm1d(12), tokens()), (nn.BatchNorm1d(12), tokens().transpose(1, 2))),
        ((nn.LayerNorm(12), tokens().transpose(1, 2)), (nn.LayerNorm(12), tokens())),
    ],
    "padding": lambda: [
        (
            (nn.BatchNorm2d(3), letterboxed(images(), 1.5)),
            (nn.BatchNorm2d(3), letterboxed(images(), 0.25)),
        ),
        (
            (nn.GroupNorm(1, 3), F.pad(torch.randn(8, 3, 30), (0, 10), value=2)),
            (nn.LayerNorm(30), F.pad(torch.randn(8, 30, 30), (0, 0, 0, 10))),
        ),
        ((nn.BatchNorm1d(3), F.pad(table(), (0, 0, 0, 30))), (nn.BatchNorm1d(3), table())),
    ],
    "no-group": lambda: [
        ((nn.SyncBatchNorm(3), table()), (nn.SyncBatchNorm(3).eval(), table())),
        ((normviz.SyncBatchNorm(3), table()), (normviz.BatchNorm1d(3), table())),
    ],
    "momentum-none": lambda: [
        (
            (nn.InstanceNorm2d(3, momentum=None, track_running_stats=True), images()),
            (nn.BatchNorm2d(3, momentum=None), images()),
        ),
        (
            (normviz.InstanceNorm2d(3, momentum=None, track_running_stats=True), images()),
            (nn.InstanceNorm2d(3, momentum=None), images()),
        ),
    ],
}


@pytest.mark.parametrize("code", CASES)
def test_a_finding_fires_where_it_should_and_not_beside_it(code):
    for number, (sick, well) in enumerate(CASES[code]()):
        assert code in codes(*sick), number
        assert code not in codes(*well), number


def test_all_kinds_have_a_case():
    assert {kind.code for kind in FINDINGS} == {*CASES}
    assert len(CASES) == 20
