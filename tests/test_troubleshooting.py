"""Troubleshooting: messages are still printed like that, symptoms still show, links lead somewhere.

A heading of ``docs/troubleshooting.md`` that is all in backticks is a message; its line in MESSAGES
raises or returns it. Any other heading is a symptom, and a function marked ``@shows`` shows it in
numbers. Both name a heading by its start.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory

import nbformat
import pytest
import torch
from making import furnish, installing, make, start
from torch import nn, ones, randn, tensor
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from normviz import Reduction, check, draw_slices, explain, labs, normalize

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
TEXT = PAGE.read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### (.*)\n\n((?:(?!##).*\n)*)", TEXT, flags=re.MULTILINE))
# What takes a browser, another's kernel, or gigabytes.
NOT_SHOWN = {
    "A lab is there, and its sliders do nothing",
    "A picture is only a row of words and numbers",
    "pip downloads gigabytes of `nvidia-…` packages",
}

COLUMN = tensor([[9.0], [11]])  # (N, C) with mean 10, variance 1, unbiased 2
TOKENS = torch.arange(24).reshape(2, 3, 4)
UNTRACKED = nn.BatchNorm1d(3, track_running_stats=False)
PLAIN = nn.BatchNorm1d(3, affine=False)
OSERROR = "ERROR: Could not install packages due to an OSError:"
LABEXTENSIONS, LAB = "share/jupyter/labextensions", "share/jupyter/lab/static"


def fed(layer, *batches):
    """The layer, after forward passes."""
    for batch in batches:
        layer(batch)
    return layer


def load(saved, layer):
    layer.load_state_dict(saved.state_dict())


def switch_on_late(layer):
    layer.track_running_stats = True
    layer.reset_running_stats()


def find(program):
    return shutil.which(program) or pytest.skip(f"needs {program}")


def run(program, *arguments, **environment):
    """What a program writes to its error stream."""
    command, environment = [find(program), *arguments], os.environ | environment
    return subprocess.run(command, stderr=-1, stdout=-1, env=environment, encoding="utf-8").stderr


def made(**scripts):
    """What ``make lab`` says where these scripts do that."""
    with TemporaryDirectory() as folder:
        furnish(Path(folder), **scripts)
        return make(Path(folder), "lab")


def made_twice():
    """What a second ``make`` says first, while another one installs."""
    with TemporaryDirectory() as folder:
        with installing(Path(folder)):
            second = start(Path(folder), "test")
            said = second.stdout.readline()
        second.communicate(timeout=60)
    return said


def failed(*words):
    """What ``make lab`` says where pip says that and fails."""
    return made(pip=f"echo {quote(' '.join(words))} >&2; exit 1")


@cache
def text_of(place):
    """All JavaScript below a folder of this Python, or the source of a module."""
    if "/" not in place:
        return Path(importlib.util.find_spec(place).origin).read_text(encoding="utf-8")
    return "".join(path.read_text("utf-8") for path in Path(sys.prefix, place).rglob("*.js"))


def written(place, start):
    """The string in a program's own text that starts like that."""
    found = re.search(re.escape(start) + r"(?:[^\"'`\\]|\\n)*", text_of(place))
    assert found, start
    return found[0].replace(r"\n", " ")


# How the heading starts, behind its backtick → what prints that message.
MESSAGES = {
    "Expected more than 1 value per channel when training, got input size torch": (
        lambda: nn.BatchNorm1d(3)(ones(1, 3))
    ),
    "running_mean should contain": lambda: nn.BatchNorm1d(4)(ones(2, 3, 4)),
    "weight should contain": lambda: UNTRACKED(ones(2, 4)),
    "expected 2D or 3D input": lambda: nn.BatchNorm1d(3)(ones(2, 3, 4, 5)),
    "expected 4D input": lambda: nn.BatchNorm2d(3)(ones(3, 4, 5)),
    "expected 5D input": lambda: nn.BatchNorm3d(3)(ones(2, 3, 4, 5)),
    '"batch_norm" not implemented': lambda: nn.BatchNorm1d(3)(TOKENS),
    "mixed dtype (CPU): all inputs": lambda: nn.BatchNorm1d(3)(ones(2, 3).double()),
    "mixed dtype (CPU): expect": lambda: nn.BatchNorm1d(3).half()(ones(2, 3)),
    "running_mean must be": lambda: functional.batch_norm(COLUMN, None, None, training=False),
    "Given normalized_shape": lambda: nn.LayerNorm([3, 4])(ones(2, 50, 4)),
    "layer_norm(): argument": lambda: functional.layer_norm(ones(2, 3), 3),
    "LayerNorm.__init__()": lambda: nn.LayerNorm(3, momentum=0.1),
    "num_channels": lambda: nn.GroupNorm(4, 6),
    "Expected number of channels": lambda: nn.GroupNorm(2, 4)(ones(2, 5, 3)),
    "Expected weight to be": lambda: nn.GroupNorm(2, 4)(ones(2, 6, 3)),
    "Expected more than 1 value per channel when training, got input size [": (
        lambda: nn.GroupNorm(3, 3).eval()(ones(1, 3))
    ),
    "Expected more than 1 spatial": lambda: nn.InstanceNorm2d(3)(ones(2, 3, 1, 1)),
    "expected input's size": lambda: nn.InstanceNorm2d(3, affine=True)(ones(2, 4, 5, 5)),
    "input's size at dim": lambda: nn.InstanceNorm1d(3)(ones(2, 3)),
    "layer must be a": lambda: explain(nn.Linear(3, 3), ones(2, 3)),
    "the input must have an axis": lambda: draw_slices(TOKENS, "n c -> c"),
    "'NoneType' object": lambda: switch_on_late(deepcopy(UNTRACKED)),
    "element 0 of tensors": lambda: PLAIN(ones(2, 3)).sum().backward(),
    'Missing key(s) in state_dict: "…running': lambda: load(UNTRACKED, nn.BatchNorm1d(3)),
    "Unexpected key(s)": lambda: load(nn.BatchNorm1d(3), nn.LayerNorm(3)),
    'Missing key(s) in state_dict: "…weight': lambda: load(PLAIN, nn.BatchNorm1d(3)),
    "size mismatch for": lambda: load(nn.BatchNorm1d(4), nn.BatchNorm1d(3)),
    "a leaf Variable": lambda: nn.BatchNorm1d(3).weight.fill_(2),
    "cannot assign": lambda: setattr(nn.BatchNorm1d(3), "weight", ones(3)),
    "Can't call numpy()": lambda: nn.BatchNorm1d(3)(ones(2, 3)).numpy(),
    "Fusion only": lambda: fuse_conv_bn_eval(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)),
    "name '…'": lambda: exec("explain(layer, x)", {}),
    "… Not attempted": lambda: repr(check("first_guess", ...)),
    "ModuleNotFoundError": lambda: run(sys.executable, "-I", "-S", "-c", "import normviz"),
    "bash: make": lambda: run("bash", "--norc", "-ic", "make", PATH="/nowhere"),
    "There is no python3": lambda: made(python=None),
    "python3 is Python": lambda: made(python="echo Python 3.10.12; exit 1"),
    "python3 cannot make": lambda: made(python='case "$*" in *ensurepip*) exit 1;; esac'),
    ".venv is": lambda: made(python="echo 'all my work' > .venv"),
    "Another make": made_twice,
    "Something runs": lambda: made(runs="touch -t 203712312359 constraints.txt; make test"),
    "The disk": lambda: failed(OSERROR, "[Errno 28] No space left on device"),
    "make may not": lambda: failed(OSERROR, "[Errno 13] Permission denied: '/opt'"),
    "An index": lambda: failed("WARNING: Retrying (…) after connection broken by …"),
    "No index": lambda: failed("ERROR: ResolutionImpossible: for help visit …"),
    "pip is told": lambda: made(settings="echo \"global.target='/opt'\""),
    "The port": lambda: written("jupyter_server.serverapp", "The port %i is already in use, "),
    "Error displaying": lambda: written(LABEXTENSIONS, "Error displaying widget"),
    "The kernel for": lambda: written(LAB, "The kernel for %1 appears to have"),
    "A connection to": lambda: written(LAB, "A connection to the Jupyter server"),
}


SYMPTOMS = {}


def shows(*starts):
    def register(function):
        SYMPTOMS.update(dict.fromkeys(starts, function))
        return function

    return register


@shows("My check by hand", "`running_var` moves to another", "The standard deviation of the output")
def m_normalizes_and_one_less_is_the_default_and_stored():
    layer = nn.BatchNorm1d(1, affine=False, momentum=1)
    x = COLUMN / 1000
    y, centred, var = layer(x), x - x.mean(), x.var(correction=0)
    assert_close(y, centred / (var + 1e-5).sqrt())
    for wrong in ((x.var() + 1e-5).sqrt(), var.sqrt() + 1e-5):
        assert not torch.allclose(y, centred / wrong, atol=0.01)
    assert_close(layer.running_var.item(), 2 * var.item())
    assert_close(layer(COLUMN).std().item(), 2**0.5, atol=1e-4, rtol=0)
    assert y.std() < 0.5  # ε


@shows("`running_mean` is far", "`running_var` is far", "`momentum=0.9`, as in Keras")
def running_statistics_are_late_and_miss_what_lies_between():
    late = fed(nn.BatchNorm1d(1), *[COLUMN] * 10)
    assert_close(late.running_mean.item(), 10 * (1 - 0.35), atol=0.02, rtol=0)
    within = fed(nn.BatchNorm1d(1, momentum=None), COLUMN, -COLUMN)
    assert within.running_var == 2 and torch.cat([COLUMN, -COLUMN]).var() > 100
    assert fed(nn.BatchNorm1d(1, momentum=0.9), COLUMN).running_mean == 9


@shows("My log of the running mean", "A cell gives another number")
def each_look_moves_one_tensor():
    layer = nn.BatchNorm1d(1)
    name = fed(layer, COLUMN).running_mean
    first = name.clone()
    assert fed(layer, COLUMN).running_mean is name and name > first
    second = name.clone()
    explain(layer, COLUMN)
    assert layer.running_mean == second


@shows("The output is only zeros", "Everything is `nan`")
def a_slice_without_spread_leaves_the_bias_and_a_nan_leaves_nothing():
    assert nn.GroupNorm(3, 3)(randn(2, 3)).abs().max() < 1e-3
    for layer in (nn.LayerNorm(1), nn.BatchNorm1d(1)):
        nn.init.constant_(layer.bias, 3)
        assert_close(layer(ones(4, 1)), 3 * ones(4, 1), atol=1e-3, rtol=0)
    layer, x = nn.BatchNorm1d(2), randn(4, 2)
    x[1, 0] = torch.nan
    for y in (layer(x), layer.eval()(ones(4, 2))):
        assert y.isnan().sum(dim=0).tolist() == [4, 0]
    layer.reset_running_stats()
    assert layer(ones(4, 2)).isfinite().all()


@shows("The input is ten times", "The output is far too small")
def a_factor_cancels_unless_epsilon_outweighs_the_variance():
    x = randn(4, 8)
    y, small = nn.LayerNorm(8)(torch.stack([x, 10 * x, -10 * x])), nn.LayerNorm(8)(x / 10_000)
    assert_close(y[1], y[0], atol=1e-3, rtol=0)
    assert_close(y[2], -y[0], atol=1e-3, rtol=0)
    assert small.abs().max() < 0.1


@shows("LayerNorm takes my channels-first", "BatchNorm1d takes my tokens", "`reshape` gives")
def both_orders_fit_and_another_axis_is_pooled():
    x = randn(500, 4, 4) * tensor([1.0, 10, 100, 1000])
    for layer, pattern, meant in (
        (nn.LayerNorm(4), "n c l -> n c", "n c l -> n l"),
        (nn.BatchNorm1d(4), "n t c -> t", "n t c -> c"),
    ):
        assert_close(layer(x), normalize(x, Reduction(pattern), eps=1e-5)[0])
        swapped = layer(x.transpose(1, 2)).transpose(1, 2)
        assert_close(swapped, normalize(x, Reduction(meant), eps=1e-5)[0])
    assert TOKENS.reshape(2, 4, 3)[0, 0].tolist() == [0, 1, 2]
    assert TOKENS.transpose(1, 2)[0, 0].tolist() == [0, 4, 8]


@shows("GroupNorm(1, C)", "A row of LayerNorm's output")
def one_group_pools_the_positions_and_a_weight_moves_the_mean_of_a_row():
    x, layer = randn(2, 4, 5), nn.LayerNorm(4)
    y, per_token = nn.GroupNorm(1, 4)(x), layer(x.transpose(1, 2)).transpose(1, 2)
    assert_close(y, nn.LayerNorm([4, 5])(x))
    assert not torch.allclose(y, per_token, atol=0.1)
    assert per_token.mean(dim=1).abs().max() < 1e-3
    nn.init.constant_(layer.weight[2], 100)
    assert layer(x.transpose(1, 2)).mean(dim=2).abs().min() > 0.1


@shows("My own layer has the right outputs")
def detached_statistics_have_another_gradient():
    def normalized(x, of):
        return (x - of.mean()) / (of.var(correction=0) + 1e-5).sqrt()

    x = randn(5).double().requires_grad_()
    right, wrong = normalized(x, of=x), normalized(x, of=x.detach())
    assert_close(right, wrong)
    right, wrong = (torch.autograd.grad(y[0], x)[0] for y in (right, wrong))
    assert right.sum().abs() < 1e-9 and wrong.sum() > 0.1


@shows("Eval is much worse than train", "A loaded model tests worse")
def eval_wants_many_batches_and_a_loaded_model_wants_eval():
    few, many = (fed(nn.BatchNorm1d(1), *[COLUMN] * k) for k in (5, 100))
    assert few.eval()(COLUMN).mean() > 1 > 0.01 > many.eval()(COLUMN).mean().abs()
    load(many, loaded := nn.BatchNorm1d(1))
    assert many(COLUMN - 5).mean() < -1 and loaded.training
    assert loaded(COLUMN - 5).mean().abs() < 1e-5


@shows("A prediction", '"when training", though', "Gradient accumulation", "On several GPUs")
def mates_matter_in_training_and_without_statistics():
    x = randn(8, 3)
    for layer, matter in (
        (nn.BatchNorm1d(3), True),
        (deepcopy(UNTRACKED).eval(), True),
        (nn.BatchNorm1d(3).eval(), False),
    ):
        parts = torch.cat([layer(part) for part in x.split(4)])
        assert torch.allclose(parts, layer(x)) != matter
        if matter:
            with pytest.raises(ValueError, match="when training"):
                layer(x[:1])
    assert fed(nn.BatchNorm1d(3), *x.split(4)).num_batches_tracked == 2


@shows("A model got worse", "The running statistics move", "A layer that I set to eval", "`track_")
def only_eval_or_a_late_flag_stops_the_running_statistics_and_train_undoes_eval():
    model = nn.Sequential(nn.BatchNorm1d(1).requires_grad_(False))
    with torch.no_grad():
        assert fed(model, COLUMN)[0].running_mean == 1
    y = model.eval()(COLUMN)
    model[0].track_running_stats = False
    assert_close(model(COLUMN), y)
    assert model.train()[0].training
    assert fed(model, COLUMN)[0].running_mean == 1


@shows("`num_batches_tracked`")
def the_counter_counts_passes_and_matters_only_with_none():
    for momentum, matters in ((0.1, False), (None, True)):
        layer, changed = (nn.BatchNorm1d(1, momentum=momentum) for _ in range(2))
        changed.num_batches_tracked.fill_(99)
        assert (fed(layer, COLUMN).running_mean != fed(changed, COLUMN).running_mean) == matters
    again, refusing = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    checkpoint(again, COLUMN, use_reentrant=False).sum().backward()
    with pytest.raises(ValueError, match="more than 1 value"):
        refusing(COLUMN[:1])
    assert again.num_batches_tracked == fed(refusing, COLUMN).num_batches_tracked == 2


@shows("Padding changes", "With Dropout before BatchNorm")
def zeros_are_pooled():
    layer, x = nn.BatchNorm1d(1), tensor([[[5.0, 7, 5, 7]]])
    assert layer(x)[0, 0, 0] < 0 < layer(functional.pad(x, (0, 4)))[0, 0, 0]
    model, numbers = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(1)), x.view(4, 1).tile(500, 1)
    assert fed(model, *[numbers] * 50).eval()(numbers).var() < 0.1


@shows("The bias before a BatchNorm", "Weight decay")
def a_bias_has_no_gradient_and_decay_needs_none():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    (model(randn(8, 3)) * randn(8, 2)).sum().backward()
    assert model[0].bias.grad.abs().max() < 1e-4 < 0.01 < model[0].weight.grad.abs().max()
    model[1].weight.grad.zero_()
    torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1).step()
    assert_close(model[1].weight.tolist(), [0.99, 0.99])


@shows("A folded convolution")
def folding_holds_in_eval_alone():
    model, x = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), randn(4, 2, 5, 5)
    folded = fuse_conv_bn_eval(model.eval()[0], model[1])
    assert_close(folded(x), model(x))
    assert not torch.allclose(folded(x), model.train()(x), atol=0.1)


@shows("Instead of a lab", "A picture leaves numbers out")
def a_lab_is_a_line_in_python_and_a_large_picture_has_gaps():
    assert repr(labs.shape_lab()).startswith("ShapeLab(children=")
    assert "Drawn by head and tail" in draw_slices(ones(5, 3, 100, 120), "n c h w -> c").text


def headings(starts):
    return [heading for heading in ENTRIES if heading.startswith(tuple(starts))]


MESSAGE_HEADINGS = {"`" + start: function for start, function in MESSAGES.items()}


@pytest.mark.parametrize("start", MESSAGE_HEADINGS)
def test_a_message_is_printed_as_its_heading_says(start):
    (heading,) = headings([start])
    try:
        printed = MESSAGE_HEADINGS[start]()
    except Exception as error:
        printed = str(error)
    pattern = ".*".join(map(re.escape, heading.strip("`").split("…")))
    assert any(re.fullmatch(pattern, line.strip()) for line in printed.splitlines()), printed


@pytest.mark.parametrize("show", dict.fromkeys(SYMPTOMS.values()), ids=lambda show: show.__name__)
def test_a_symptom_shows(show):
    torch.manual_seed(0)
    show()


def test_every_entry_is_reproduced():
    messages = [heading for heading in ENTRIES if re.fullmatch("`[^`]*`", heading)]
    assert messages == headings(MESSAGE_HEADINGS)
    assert all(headings([start]) for start in SYMPTOMS)
    assert {*messages, *headings(SYMPTOMS), *NOT_SHOWN} == {*ENTRIES}
    assert TEXT.count("\n### ") == len(ENTRIES) >= 24


@pytest.mark.parametrize("heading", ENTRIES)
def test_an_entry_is_a_cause_of_two_sentences_then_what_to_do_then_links(heading):
    cause, *to_do, links = ENTRIES[heading].strip().split("\n\n")
    ends = re.findall(r"[.!?](?=\s|$)", re.sub("`[^`]*`", "code", cause))
    assert len(ends) == 2 and cause.endswith(".")
    assert len(to_do) <= 1 and all(line.startswith("**Do:** ") for line in to_do)
    assert links.startswith("[")


@cache
def anchors(path):
    """All that may stand behind the # in a link to a file."""
    if path.suffix == ".ipynb":
        return {f"cell-id={cell.id}" for cell in nbformat.read(path, as_version=4).cells}
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("heading", ENTRIES)
def test_a_link_leads_to_a_cell_or_a_section(heading):
    links = re.findall(r"\[([^]]+)\]\(([^)#]+)#([^)]+)\)", ENTRIES[heading])
    assert len(links) == ENTRIES[heading].count("](") > 0
    for label, name, fragment in links:
        assert fragment in anchors(PAGE.parent / name)
        lesson = re.match("[Ll]esson (..)", label)
        assert not lesson or Path(name).name.startswith(lesson[1])
