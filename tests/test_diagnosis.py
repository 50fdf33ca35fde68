"""A diagnosis finds what is wrong with a model's normalizations, and leaves the model alone."""

import json
import random
import re
import subprocess
import sys
from collections import namedtuple
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from patients import codes, fed, images, model_of, table
from torch import nn

import normviz
from normviz import Diagnosis, Finding, diagnose, measuring, probe
from normviz.__main__ import main
from normviz.diagnosing import row_of
from normviz.diagnosis import FINDINGS

pytestmark = pytest.mark.usefixtures("seeded")

ROOT = Path(normviz.__file__).parents[1]


@pytest.mark.parametrize("kind", FINDINGS, ids=lambda kind: kind.code)
def test_a_page_says_what_why_and_what_to_do_and_its_cell_exists(kind):
    finding = kind(None, {})
    assert finding.means and finding.why and finding.do
    assert "\n    Do: " in kind.__doc__ and kind.__doc__.count(">>> ") > 2
    notebook, cell = re.fullmatch(r"(notebooks/\w+\.ipynb)#cell-id=([\w-]+)", kind.lesson).groups()
    cells = json.loads((ROOT / notebook).read_text(encoding="utf-8"))["cells"]
    assert cell in {one["id"] for one in cells}


def test_the_evidence_is_in_numbers():
    (found,) = [
        f for f in diagnose(nn.BatchNorm1d(3), table(9)).findings if f.code == "few-numbers"
    ]
    assert isinstance(found, Finding) and found.layer is None
    assert found.numbers == {"m": 9, "off": 0.5}
    assert found.evidence == "m = 9: the variance is off by 50%, by chance"


def test_far_statistics_are_told_by_how_far_the_output_moves():
    bn, x = fed(nn.BatchNorm1d(3, momentum=1), table(), 1), 3 * table() + 10
    (far,) = [found for found in diagnose(bn, x).findings if found.code == "far-statistics"]
    moved = deepcopy(bn).eval()(x) - bn(x)
    assert far.numbers["moved"] == pytest.approx(moved.square().mean().sqrt().item(), rel=1e-3)


# What is told


def test_a_row_says_what_a_layer_pools_uses_moves_and_trains():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)).eval()
    first, second = diagnose(model, images()).layers
    assert (first.name, first.kind, first.now.shape) == ("1", "BatchNorm2d", (16, 4, 6, 6))
    assert (first.call.pattern, first.call.count) == ("n c h w -> c", 16 * 36)
    assert (first.now.stored, first.now.moved) == (True, ())
    assert first.call.moved == ("running_mean", "running_var", "num_batches_tracked")
    assert second.call.pattern == "n (g c) h w -> n g"
    assert first.trainable == second.trainable == ("weight", "bias")
    text = diagnose(model, images()).text
    assert "1: for eval, it can be folded into 0, and saves 17 stored numbers" in text


def test_layers_come_in_the_order_of_the_forward_pass():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.LayerNorm(3), nn.RMSNorm(3)

        def forward(self, x):
            return self.last(self.first(x))

    assert [layer.name for layer in diagnose(Backwards(), table()).layers] == ["first", "last"]


def test_a_page_escapes_names_and_its_rows_open_a_picture():
    class Evil(nn.BatchNorm1d):
        pass

    Evil.__name__ = "<script>Norm"
    model = nn.Sequential()
    model.add_module("<script>x", Evil(3))
    diagnosis = diagnose(model, table())
    tags = re.findall(r"<(\w+)", diagnosis._repr_html_())
    assert "script" not in tags and tags.count("svg") == 1 and tags.count("details") == 2
    assert str(diagnosis) == diagnosis.text == repr(diagnosis)
    assert "<script>x" in diagnosis.text and isinstance(diagnosis, Diagnosis)


def test_a_long_model_has_a_short_text():
    model = nn.Sequential(*(nn.BatchNorm1d(3) for _ in range(100)))
    lines = diagnose(model, table()).text.splitlines()
    assert len(lines) < 80 and any("and 60 more" in line for line in lines)


# What goes in and comes out

Pair = namedtuple("Pair", "x more")


@dataclass
class Batch:
    x: torch.Tensor
    more: object = None


class Takes(nn.Module):
    """A model whose input and output come wrapped; it changes its input in place."""

    def __init__(self, wrap, unwrap):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, track_running_stats=False)
        self.wrap, self.unwrap = wrap, unwrap

    def forward(self, batch, nothing=None):
        return self.wrap(self.norm(self.unwrap(batch).add_(1)))


WRAPPED = {
    "dict": (lambda x: {"x": x, "more": None}, lambda batch: batch["x"]),
    "tuple": (lambda x: (None, (x, [x])), lambda batch: batch[1][0]),
    "named tuple": (lambda x: Pair(x, None), lambda batch: batch.x),
    "dataclass": (Batch, lambda batch: batch.x),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_inputs_and_outputs_may_come_wrapped_and_stay_as_they_were(kind):
    wrap, unwrap = WRAPPED[kind]
    x = table()
    before = x.clone()
    assert "batch-mates" in codes(Takes(wrap, unwrap), wrap(x), None)
    assert "batch-mates" in codes(Takes(wrap, unwrap), batch=wrap(x), nothing=None)
    assert torch.equal(x, before)


def test_another_call_runs_the_copy():
    model = model_of(nn.BatchNorm1d(4))
    seen = []
    diagnosis = diagnose(model, table(), call=lambda m, x: seen.append(m) or m[1](m[0](x)))
    assert len(diagnosis.layers) == 1 and seen and all(m is not model for m in seen)


@pytest.mark.parametrize(
    ("model", "args", "words"),
    [
        (nn.BatchNorm1d, (table(),), "got BatchNorm1d; BatchNorm1d(…) makes one"),
        (len, (table(),), "must be a torch.nn.Module"),
        (nn.BatchNorm1d(3), (), "missing 1 required positional argument"),
        (nn.BatchNorm1d(3), (torch.ones(2, 5),), "the model must take the batch: in eval"),
        (nn.BatchNorm1d(3, device="meta"), (table(),), "is on the meta device"),
        (nn.LayerNorm(3).to("meta"), (table().to("meta"),), "got an input on the meta device"),
        (nn.LazyBatchNorm1d(), (table(),), "must have seen a batch: "),
    ],
)
def test_what_does_not_run_is_refused_in_words(model, args, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        diagnose(model, *args)


def test_a_model_without_normalizations_has_no_finding():
    assert diagnose(nn.Linear(3, 4), table()).text == (
        "Linear, in training: 0 normalizations. No findings."
    )


# The model afterwards


class Random(nn.Module):
    """Draws from each random state, and raises if asked to."""

    stops = None

    def __init__(self):
        super().__init__()
        self.norm, self.calls = nn.BatchNorm1d(3), 0

    def forward(self, x):
        self.calls += 1
        y = self.norm(x + torch.rand(3) + random.random() + np.random.rand())
        if self.stops is not None and self.training == self.stops:
            raise RuntimeError("as asked")
        return y


class StopsInTraining(Random):
    stops = True


class StopsInEval(Random):
    stops = False


def frozen():
    """In training, but for one layer."""
    model = model_of(nn.BatchNorm1d(4))
    model[1].requires_grad_(False)
    return model


def without_copy():
    """A model that copy refuses: it holds a tensor with a history."""
    model = Random()
    model.last = model.norm.weight * 2
    return model


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("make", [Random, StopsInTraining, StopsInEval, without_copy, frozen])
def test_the_model_stays_bit_for_bit_what_it_was(make, mode):
    model, x = make().train(mode), table().requires_grad_()
    list(model.modules())[1].eval()
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    calls = []
    model.register_forward_hook(lambda m, a, y: calls.append(m))

    def look():
        parts = [
            (part.training, len(part._forward_hooks), len(part._forward_pre_hooks))
            for part in model.modules()
        ]
        tensors = [
            (n, p.clone(), p.requires_grad, p.grad is None)
            for n, p in [*model.named_parameters(), *model.named_buffers()]
        ]
        numpy = np.random.get_state()[1].tolist()
        return parts, tensors, random.getstate(), numpy, torch.get_rng_state(), x.clone()

    before = look()
    try:
        diagnosis = diagnose(model, x)
        assert ("as asked" in diagnosis.summary) == (getattr(model, "stops", None) is True)
    except ValueError as error:
        assert "as asked" in str(error) and model.stops is False
    after = look()
    assert before[0] == after[0] and before[2:4] == after[2:4]
    assert torch.equal(before[4], after[4]) and torch.equal(before[5], after[5])
    for (name, old, *more), (same, new, *now) in zip(before[1], after[1], strict=True):
        assert (name, more) == (same, now) and torch.equal(old, new)
    assert getattr(model, "calls", 0) == 0


UNTRACKED = nn.BatchNorm1d(3, track_running_stats=False)


@pytest.mark.parametrize(("norm", "passes"), [(nn.BatchNorm1d(3), 2), (UNTRACKED, 3)])
def test_a_model_runs_three_times_at_most(norm, passes):
    ran = []
    diagnose(nn.Sequential(norm), table(), call=lambda m, x: ran.append(m.training) or m(x))
    assert len(ran) == passes and ran.count(True) == 1


# From a shell

SCRIPT = """
import torch
from torch import nn

def sick():
    return nn.BatchNorm1d(3), (torch.randn(64, 3),)

def well():
    return nn.LayerNorm(3), [], {"input": torch.randn(64, 3)}

def wrong():
    return nn.LayerNorm(3), torch.randn(64, 3)
"""


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["diagnose", "models.py:sick"], 1, "never-fed: No batch has reached"),
        (["diagnose", "models.py:well"], 0, "No findings."),
        (["diagnose", "models.py:wrong"], 2, "(x,) is a tuple of one"),
        (["diagnose", "models.py:none"], 2, "there is no 'none'"),
        (["diagnose", "other.py:sick"], 2, "there is no 'other.py'"),
        (["diagnose", "models.py:sick", "--ignore", "never-fed"], 0, "never-fed: No batch"),
        (["diagnose", "models.py:sick", "--ignore", "idle-bias"], 1, "never-fed: No batch"),
        (["diagnose", "models.py:sick", "--ignore", "none"], 2, "CODE must be one of batch-mates,"),
        (["diagnose", "models.py"], 2, "there is no ''"),
        (["diagnose"], 2, "required: FILE:FUNCTION"),
        ([], 2, "usage: python -m normviz"),
    ],
)
def test_a_diagnosis_from_a_shell(arguments, status, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "models.py").write_text(SCRIPT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        ended = main(arguments)
    except SystemExit as exit:  # of the parser
        ended = exit.code
    told = capsys.readouterr()
    assert ended == status, told
    assert words in (told.err if status == 2 else told.out)


def test_a_shell_finds_the_command():
    command = [sys.executable, "-m", "normviz", "diagnose", "no.py:model"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert (told.returncode, "there is no 'no.py'" in told.stderr) == (2, True)


class PerPixel(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Mine(nn.Module):
    """A learner's BatchNorm, whose class and tensors have names of their own."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("average", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))

    def forward(self, x):
        mean, std = self.average, self.spread.sqrt()
        if self.training:
            mean, std = x.mean(0), x.std(0)
            self.average += 0.1 * (mean.detach() - self.average)
            self.spread += 0.1 * (std.detach() ** 2 - self.spread)
        return (x - mean) / (std + 1e-3)


def test_what_nobody_declares_is_found():
    x = torch.randn(16, 8, 5, 8)  # the last axis is as long as that of the channels
    (layer,) = diagnose(PerPixel(8), x).layers
    assert row_of(layer)[4:7] == ("n c h w -> n h w", "8", "sample")
    model = nn.Sequential(nn.Linear(3, 8), Mine(8), nn.ReLU(), nn.Linear(8, 8), Mine(8))
    diagnosis = diagnose(model, torch.randn(64, 3))
    rows = [row_of(layer)[1:] for layer in diagnosis.layers]
    moves = ("Mine", "1", "(64, 8) float32", "n c -> c", "64", "batch; running in eval")
    assert rows == [(*moves, "average, spread", "–")] * 2
    assert "unbiased variance; ε is 0.001, outside the root" in diagnosis.text
    assert {f.layer for f in diagnosis.findings if f.code == "idle-bias"} == {"1", "4"}


def test_a_fold_into_a_layer_without_a_bias_gives_it_one():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
    assert "saves 13 stored numbers" in diagnose(model, table()).text


def test_what_is_no_normalization_has_no_row():
    class ConvNorm(nn.Conv2d):  # as some blocks are called, which may hold a norm, or none
        pass

    class Affine(nn.Module):
        def forward(self, x):
            return 2 * x + 1

    model = nn.Sequential(ConvNorm(3, 3, 3, padding=1), Affine(), nn.Softmax(1))
    assert diagnose(model, torch.randn(4, 3, 5, 5)).layers == ()


def test_alike_layers_are_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(measuring, "probe", lambda *given: asked.append(given) or probe(*given))
    model = nn.Sequential(*[PerPixel(8) for _ in range(5)], PerPixel(8, eps=0.1))
    assert len(diagnose(model, torch.randn(4, 8, 3, 3)).layers) == 6
    assert len(asked) == 2
