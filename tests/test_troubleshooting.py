"""Troubleshooting: messages are still printed like that, symptoms still show, links lead somewhere.

A heading of ``docs/troubleshooting.md`` that is all in backticks is a message; its line in MESSAGES
raises or returns it. Any other heading is a symptom, and a function marked ``@shows`` shows it in
numbers. Both name a heading by its start. What an entry says to do is done there as well, and
then a ``quoted`` message is gone, or the numbers are right.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from copy import deepcopy
from datetime import timedelta
from functools import cache
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory

import pytest
import torch
from making import furnish, installing, make, start
from torch import cat, distributed, nn, ones, rand, randn, tensor, zeros
from torch.ao import quantization
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, rnn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, DistributedSampler

import normviz
from normviz import Reduction, check, draw_jacobian, draw_slices, explain, labs, normalize
from normviz.workers import together

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
# How the heading starts where no cell of a lesson shows it yet.
NO_CELL = ("`expected scalar type", "`cuDNN error", "`eval()` changes nothing")

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


def quiet(function, *arguments):
    """What a function of torch gives that torch means to leave out some day."""
    with warnings.catch_warnings(action="ignore"):
        return function(*arguments)


def quoted(words, function, *arguments):
    """The page quotes what a call is refused with; … stands for what varies, even for lines."""
    assert all(part in TEXT for part in words.split("\n"))
    pattern = words.replace("\n", "…")
    with pytest.raises(Exception, match="(.|\n)*".join(map(re.escape, pattern.split("…")))):
        function(*arguments)


def same(a, b, tolerance=1e-4):
    """Whether two tensors are equal, but for rounding."""
    return torch.allclose(a, b, atol=tolerance, rtol=tolerance)


def filled(layer, *shape):
    """A BatchNorm that nothing of is 0 or 1, in eval; its input has such a shape."""
    for held in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        held.data.uniform_(0.5, 2)
    return layer.eval()


def quantized(x):
    return quiet(torch.quantize_per_tensor, x, 0.1, 0, torch.quint8)


def backward(layer, between=lambda layer: None):
    """A forward pass and its backward pass, with something in between."""
    y = layer(randn(4, 3, requires_grad=True))
    between(layer)
    y.square().sum().backward()


def reload(layer):
    layer.load_state_dict(deepcopy(layer.state_dict()))


def write_buffers(layer):
    """What DistributedDataParallel does before each pass."""
    for buffer in layer.buffers():
        buffer.copy_(buffer.clone())


def without(name, layer):
    """A file that says it is of now, but lacks one name."""
    file = layer.state_dict()
    del file[name]
    return file


def on_two_devices():
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes seconds, workers too

    with FakeTensorMode():
        nn.BatchNorm1d(3)(torch.empty(4, 3, device="cuda"))


def with_statistics_of_numpy():
    layer = nn.BatchNorm1d(3).eval()
    layer.running_mean = layer.running_mean.double()
    return layer


class ConvBN(nn.Module):
    """A convolution without a bias, and its BatchNorm."""

    def __init__(self, **options):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3, **options)

    def forward(self, x):
        return self.bn(self.conv(x))


def half_in_eval(model):
    model.bn.eval()
    return model


def fuse(model, function=quantization.fuse_modules):
    return quiet(function, model, [["conv", "bn"]])


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
    """All JavaScript below a folder of this Python, a module's source, or a header of torch."""
    if place.endswith(".h"):
        return Path(torch.__file__).with_name("include").joinpath(place).read_text("utf-8")
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
    "expected scalar type": lambda: with_statistics_of_numpy()(ones(2, 3)),
    "Could not run": lambda: nn.BatchNorm2d(3).eval()(quantized(ones(1, 3, 2, 2))),
    "cuDNN error": lambda: (
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"
        + written("ATen/cuda/Exceptions.h", ". This error may appear")
    ),
    "Expected all tensors": on_two_devices,
    "SyncBatchNorm expected": lambda: written(
        "torch.nn.modules.batchnorm", "SyncBatchNorm expected input"
    ),
    "one of the variables": lambda: backward(nn.BatchNorm1d(3), between=write_buffers),
    "batch_norm eps": lambda: nn.BatchNorm1d(3, eps=0)(ones(2, 3)),
    "Batch norm got": lambda: torch.vmap(nn.BatchNorm1d(3))(ones(4, 2, 3)),
    "'…' object": lambda: nn.BatchNorm1d(3)((ones(2, 3), None)),
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
    "layer must take": lambda: explain(nn.LocalResponseNorm(3), ones(1, 5, 1)),
    "the input must have an axis": lambda: draw_slices(TOKENS, "n c -> c"),
    "'NoneType' object": lambda: switch_on_late(deepcopy(UNTRACKED)),
    "element 0 of tensors": lambda: PLAIN(ones(2, 3)).sum().backward(),
    'Missing key(s) in state_dict: "…running': lambda: load(UNTRACKED, nn.BatchNorm1d(3)),
    "Unexpected key(s)": lambda: load(nn.BatchNorm1d(3), nn.LayerNorm(3)),
    'Missing key(s) in state_dict: "…weight': lambda: load(PLAIN, nn.BatchNorm1d(3)),
    'Missing key(s) in state_dict: "…num': lambda: nn.BatchNorm1d(3).load_state_dict(
        without("num_batches_tracked", nn.BatchNorm1d(3))
    ),
    "result type Float": lambda: nn.BatchNorm1d(3).num_batches_tracked.mul_(0.9),
    "size mismatch for": lambda: load(nn.BatchNorm1d(4), nn.BatchNorm1d(3)),
    "a leaf Variable": lambda: nn.BatchNorm1d(3).weight.fill_(2),
    "cannot assign": lambda: setattr(nn.BatchNorm1d(3), "weight", ones(3)),
    "Can't call numpy()": lambda: nn.BatchNorm1d(3)(ones(2, 3)).numpy(),
    "Fusion only": lambda: fuse_conv_bn_eval(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)),
    "Conv and BN": lambda: fuse(half_in_eval(ConvBN())),
    "bn.running_mean and": lambda: fuse(ConvBN(track_running_stats=False).eval()),
    "Only Tensors": lambda: deepcopy(quiet(nn.utils.weight_norm, nn.Linear(3, 2))),
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


@shows("`Expected more than 1 value per channel when training, got input size torch")
def one_value_per_channel_comes_of_four_things():
    pool, layer = nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(32)
    for size in (5, 50):
        with pytest.raises(ValueError, match=r"\[1, 32, 1, 1\]"):
            layer(pool(randn(1, 32, size, size)))
    image = randn(1, 32, 5, 5)
    assert nn.GroupNorm(32 // 16, 32)(pool(image)).abs().max() > 0.1
    layer(pool(randn(2, 32, 5, 5)))
    layer.eval()(pool(image))
    assert [len(part) for part in torch.arange(13).chunk(4)] == [4, 4, 4, 1]
    assert [len(batch) for batch in DataLoader(range(9), 4, drop_last=True)] == [4, 4]


@shows('"when training", though the layer')
def an_eval_that_is_none_has_other_causes():
    class Model(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.layers = kind([nn.BatchNorm1d(3)])

    listed, known = Model(list).eval().layers[0], Model(nn.ModuleList).eval().layers[0]
    quoted("when training", listed, ones(1, 3))
    assert known(ones(1, 3)).shape == known.train().eval()(ones(1, 3)).shape == (1, 3)
    arguments = ones(1, 3), zeros(3), ones(3), None, None
    quoted("when training", functional.batch_norm, *arguments, True)
    functional.batch_norm(*arguments, known.training)


@shows("`running_mean should contain", "`expected 4D input", "Channels last")
def another_order_of_axes_is_permuted():
    x, layer = randn(2, 3, 4, 5), nn.BatchNorm2d(3)
    last = x.permute(0, 2, 3, 1)
    quoted("running_mean should contain … elements not …", layer, last)
    y = layer(x)
    assert same(layer(last.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), y.permute(0, 2, 3, 1))
    assert same(layer(x.to(memory_format=torch.channels_last)), y)
    assert nn.LayerNorm(3)(last).shape == last.shape
    parts = randn(3, 3), randn(2, 3)
    ragged = torch.nested.nested_tensor([*parts], layout=torch.jagged)
    flat = nn.BatchNorm1d(3)
    quoted("running_mean should contain … elements not …", flat, ragged)
    assert same(flat(ragged.values()), flat(cat(parts)))
    quoted("got 3D", layer, x[0])
    quoted("got 2D", layer, ones(2, 3))
    assert layer(x[0][None]).shape == (1, 3, 4, 5) and flat(randn(2, 3)).shape == (2, 3)


@shows('`"batch_norm" not implemented', "`mixed dtype (CPU): all", "`mixed dtype (CPU): expect")
def each_type_has_a_way_of_its_own():
    whole, part = ones(4, 3).to(torch.float8_e4m3fn), randn(4, 3) + 2j * randn(4, 3)
    quoted("Float8_", nn.BatchNorm1d(3), whole)
    quoted("ComplexFloat", nn.BatchNorm1d(3), part)
    for layer in (nn.LayerNorm(3), nn.GroupNorm(3, 3)):
        for wrong in (TOKENS[:, :3, :3], part):
            quoted("mixed dtype (CPU): all inputs must share same datatype.", layer, wrong)
    for kind, layer in (
        ("LayerNorm", nn.LayerNorm(4, elementwise_affine=False)),
        ("GroupNorm", nn.GroupNorm(3, 3, affine=False)),
    ):
        quoted(f"\"{kind}KernelImpl\" not implemented for '…'", layer, TOKENS)
        assert layer(TOKENS.float()).isfinite().all()
    assert nn.BatchNorm1d(3)(whole.float()).isfinite().all()
    both = nn.BatchNorm1d(6)(cat([part.real, part.imag], dim=1))
    assert same(both.var(dim=0, correction=0), ones(6), 1e-3)
    for layer in (nn.BatchNorm1d(3), nn.LayerNorm(3)):
        assert layer(randn(4, 3).half()).dtype == torch.float16
        for wrong in (randn(4, 3), randn(4, 3).half()):
            quoted("mixed dtype (CPU): expect", layer.bfloat16(), wrong)
            assert layer.float()(wrong).isfinite().all()


@shows("`expected scalar type", "`Could not run", "`cuDNN error")
def a_kernel_gets_what_it_can_take():
    x, norm = randn(4, 3), nn.LayerNorm(3)
    assert with_statistics_of_numpy().float()(x).shape == x.shape
    half = x.half()
    assert same(norm(half.to(norm.weight.dtype)).to(half.dtype), norm(x).half(), 0.01)
    layer = filled(nn.BatchNorm1d(3))
    quoted("Could not run 'aten::native_batch_norm'", layer, x.to_sparse())
    assert same(layer(x.to_sparse().to_dense()), layer(x))
    assert same(layer(quantized(x.abs()).dequantize()), layer(x.abs()), 0.2)
    with pytest.raises(RuntimeError, match="quantized"):
        quantized(x).float()
    stubs = quantization.QuantStub(), quantization.DeQuantStub()
    for fuses in (False, True):
        model = nn.Sequential(stubs[0], nn.Linear(3, 3), nn.BatchNorm1d(3), stubs[1]).eval()
        if fuses:
            model = quiet(quantization.fuse_modules, model, [["1", "2"]])
        wanted = model(x)
        model.qconfig = quiet(quantization.get_default_qconfig, torch.backends.quantized.engine)
        quiet(quantization.prepare, model, True)(x)
        quiet(quantization.convert, model, None, True)
        if fuses:
            assert same(model(x), wanted, 0.1)
        else:
            quoted("Could not run 'aten::native_batch_norm' with arguments from the '…", model, x)
    parts = cat([layer(part) for part in x.split(3)])
    with torch.backends.cudnn.flags(enabled=False):
        assert same(parts, layer(x))


@shows("`Expected all tensors", "`SyncBatchNorm expected")
def a_model_takes_along_what_it_knows_of():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain, self.listed = zeros(3), [nn.BatchNorm1d(3)]
            self.register_buffer("registered", zeros(3))
            self.known = nn.ModuleList([nn.BatchNorm1d(3)])

    moved = Own().to("meta")
    stayed = moved.plain, moved.listed[0].weight
    assert not any(tensor.is_meta for tensor in stayed)
    assert moved.registered.is_meta and moved.known[0].weight.is_meta
    quoted("Tensor on device … is not on the expected device …!", moved.known[0], ones(2, 3))
    layer = moved.known[0].to_empty(device="cpu")
    load(filled(nn.BatchNorm1d(3)), layer)
    assert layer(randn(4, 3)).isfinite().all()
    x, sync = randn(4, 3), filled(nn.SyncBatchNorm(3))
    load(sync, plain := nn.BatchNorm1d(3).eval())
    assert same(sync(x), plain(x)) and same(sync.train()(x), plain.train()(x))


@shows("`one of the variables")
def what_backward_needs_is_not_written_to():
    words = "modified by an inplace operation"
    for layer in (nn.BatchNorm1d(3), nn.BatchNorm1d(3).eval(), nn.BatchNorm1d(3, affine=False)):
        for between in (write_buffers, reload, nn.BatchNorm1d.reset_running_stats):
            quoted(words, backward, layer, between)
            backward(layer)
            between(layer)
    layer = nn.BatchNorm1d(3)
    backward(layer)
    step = torch.optim.SGD(layer.parameters(), 0.1).step
    quoted(words, backward, layer, lambda layer: step())
    real, fake = randn(2, 4, 3, requires_grad=True)
    write_buffers(layer)
    ours, theirs = layer(cat([real, fake])).chunk(2)
    (ours.square() - theirs.square()).sum().backward()
    for training in (True, False):
        backward(normviz.BatchNorm1d(3).train(training), write_buffers)

    def train(x, in_place):
        if in_place:
            x += layer(x)
        else:
            x = x + layer(x)
        x.square().sum().backward()

    quoted(words, train, real * 1, True)
    train(real * 1, False)


@shows("`batch_norm eps", "`Batch norm got")
def an_eps_of_0_and_one_mean_for_all_slices_are_refused():
    layer = nn.BatchNorm1d(3, eps=0).eval()
    layer.running_var.zero_()
    assert not layer(ones(2, 3)).isfinite().any()
    layer.eps = 1e-5
    assert layer.train()(ones(2, 3)).isfinite().all()
    x, words = randn(4, 5, 3), "output with shape […] doesn't match the broadcast shape […]"
    quoted(words, torch.vmap(normviz.BatchNorm1d(3)), x)
    each = torch.stack([nn.BatchNorm1d(3)(batch) for batch in x])
    patched = torch.func.replace_all_batch_norm_modules_(nn.Sequential(nn.BatchNorm1d(3)))
    for cured in (patched, UNTRACKED):
        assert same(torch.vmap(cured)(x), each)
    assert same(torch.vmap(nn.BatchNorm1d(3).eval())(x), x)
    assert torch.vmap(nn.GroupNorm(1, 3))(x).shape == x.shape


@shows("`'…' object has no attribute 'dim'")
def a_tensor_is_taken_out_of_what_holds_it():
    sequences = [randn(3, 4), randn(2, 4)]
    packed, layer = rnn.pack_sequence(sequences), nn.BatchNorm1d(4)
    words = "layer_norm(): argument 'input' (position 1) must be Tensor, not …"
    for wrong in (None, [1.0], packed, ones(2, 4).numpy(), (packed,)):
        quoted("has no attribute 'dim'", layer, wrong)
        quoted(words, nn.LayerNorm(4), wrong)
    done, _ = rnn.pad_packed_sequence(packed._replace(data=layer(packed.data)), True)
    assert same(cat([done[0, :3], done[1, :2]]), layer(cat(sequences)))
    x = rnn.pad_sequence(sequences, batch_first=True)
    assert layer(nn.LSTM(4, 4, batch_first=True)(x)[0].transpose(1, 2)).shape == (2, 4, 3)
    layer(torch.as_tensor(ones(2, 4).double().numpy(), dtype=torch.float32))


@shows("`Expected number of channels", "`Expected weight to be")
def group_norm_wants_the_axis_of_the_batch():
    layer, image = nn.GroupNorm(2, 4), randn(4, 6, 6)
    quoted("Expected weight to be a vector", layer, image)
    quoted("Expected number of channels", layer, image[:, :5])
    y = layer(image[None])
    assert same(y[0], functional.group_norm(image[None], 2)[0])
    square = image[:, :4]
    assert not same(layer(square), layer(square[None])[0], 0.1)
    last = image[None].permute(0, 2, 3, 1)
    assert same(layer(last.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), y.permute(0, 2, 3, 1))


@shows("A constant input gives", "The output is inexact", "The output is only zeros")
def rounding_is_divided_too_and_a_weight_of_0_leaves_nothing():
    x = torch.full((1, 10, 37), 1234.567)
    y = nn.GroupNorm(10, 10)(x).detach()
    other = normalize(x, Reduction("n c l -> n c"), eps=1e-5)[0]
    assert (y - other).abs().max() > 1e-3 and round(1e-5**-0.5) == 316
    small = x / 1000
    assert same(
        nn.GroupNorm(10, 10)(small), normalize(small, Reduction("n c l -> n c"), 1e-5)[0], 1e-3
    )
    assert torch.tensor(1e6).nextafter(torch.tensor(2e6)) - 1e6 == 0.0625
    assert torch.tensor(16777217.0) == 16777216
    x, layer = tensor([[0.0, 1, 2]]).double() + 1e8, nn.LayerNorm(3)
    right = layer((x - 1e8).float())
    assert layer(x.float()).abs().max() == 0 and same(right, tensor([[-1.2247, 0, 1.2247]]))
    assert same(layer.double()(x).float(), right)
    nn.init.zeros_(layer.weight)
    assert layer(x).abs().max() == 0


@shows("`nan` in eval alone", "`inf` or `nan` in half", "Running statistics in half")
def what_is_stored_can_be_no_variance():
    for stored, eps in ((-1.0, 1e-5), (torch.nan, 1e-5), (0.0, 0)):
        layer = nn.BatchNorm1d(1, eps=eps)
        layer.running_var.fill_(stored)
        assert not layer.eval()(ones(2, 1)).isfinite().any()
        assert (layer.running_var >= 0).all() == (stored == 0)
        layer.eps = 1e-5
        layer.reset_running_stats()
        assert fed(layer.train(), COLUMN).eval()(COLUMN).isfinite().all()
    huge = tensor([[1.0, 2, 70_000, 3]])
    with torch.autocast("cpu", torch.float16):
        assert functional.linear(huge, ones(1, 4)) == torch.inf
    assert not (zeros(1).half() / (zeros(1).half() + 1e-8).sqrt()).isfinite().any()
    assert (zeros(1).half() / (zeros(1).half() + 1e-5).sqrt()).isfinite().all()
    assert nn.LayerNorm(4).half()(huge.half()).isnan().all() and huge.half().max() == torch.inf
    assert same(nn.LayerNorm(4).bfloat16()(huge.bfloat16()).float(), nn.LayerNorm(4)(huge), 0.02)
    x = tensor([[256.0, 256]]).half()
    over, under = (y.square().mean(-1, keepdim=True).rsqrt() for y in (x, x.float()))
    assert (x * over).max() == 0 and same(x * under, ones(1, 2)) and 255.0**2 < 65504 < 256**2
    for loud, kept in ((nn.BatchNorm1d(1).half(), False), (nn.BatchNorm1d(1).half().float(), True)):
        fed(loud, *[(COLUMN.half() - 10) * 3000] * 2)
        assert loud.running_var.isfinite() == kept
        assert (loud.eval()(COLUMN.half()).abs().max() > 0) == kept
    tiny = nn.BatchNorm1d(1, eps=0).eval()
    tiny.running_var.fill_(1e-8)
    small = (COLUMN / 1000).half()
    assert tiny(small).isfinite().all()
    assert not tiny.half()(small).isfinite().any() and tiny.running_var == 0
    assert tiny.float().running_var == 0  # what was rounded does not come back
    for dtype, moves in ((torch.bfloat16, False), (torch.float32, True)):
        for layer in (nn.BatchNorm1d(1, momentum=0.001), normviz.BatchNorm1d(1, momentum=0.001)):
            layer.to(dtype).running_mean.fill_(1)
            assert (fed(layer, *[COLUMN.to(dtype) - 8] * 100).running_mean > 1) == moves
    value = torch.linspace(1, 2, 1000).bfloat16()[:-1]
    assert ((value + value / 520).bfloat16() == value).all()


@shows("`nan` gradients from", "Batch size 1 in training", "Tiles, patches", "InstanceNorm gives")
def one_image_has_one_mean_and_a_root_a_slope():
    x = zeros(2, 3, requires_grad=True)
    for eps, good in ((0.0, False), (1e-5, True)):
        root = (x.var(1, correction=0, keepdim=True) + eps).sqrt() + 1e-5 * (not good)
        (gradient,) = torch.autograd.grad(((x - x.mean(1, keepdim=True)) / root).sum(), x)
        assert gradient.isfinite().all() == good and (x / root).abs().max() == 0
    image, own = randn(1, 3, 8, 8) * 3 + torch.arange(8.0), nn.InstanceNorm2d(3, affine=True)
    layer = nn.BatchNorm2d(3)
    assert same(layer(image), own(image)) and not same(layer.eval()(image), own(image), 0.1)
    groups, uneven = nn.GroupNorm(1, 3), image * tensor([1.0, 2, 3])[:, None, None]
    for norm, differ in ((own, False), (groups, True)):
        assert same(norm.eval()(image), norm.train()(image))
        assert (norm(uneven).mean((0, 2, 3)).std() > 0.1) == differ
    tiles = image.split(4, dim=3)
    for seams, norm in ((True, own), (True, nn.GroupNorm(3, 3)), (True, layer.train())):
        assert same(cat([norm(tile) for tile in tiles], 3), norm(image), 0.1) != seams
    whole = image.mean((0, 2, 3)), image.var((0, 2, 3), correction=0)
    assert same(cat([functional.batch_norm(tile, *whole) for tile in tiles], 3), own(image))
    assert same(cat([layer.eval()(tile) for tile in tiles], 3), layer(image))
    tracked = fed(nn.InstanceNorm2d(3, track_running_stats=True), image).eval()
    stored = tracked.running_mean, tracked.running_var
    assert same(tracked(image), functional.batch_norm(image, *stored))
    assert not same(tracked(image), own(image), 0.1)


@shows("Eval is much worse", "A loaded model tests worse", "A prediction depends")
def eval_needs_statistics_and_dropout_off():
    young = fed(nn.BatchNorm1d(1), COLUMN)
    assert young.eval()(COLUMN).mean() > 1
    update_bn([COLUMN] * 3, young.train())
    assert young.eval()(COLUMN).mean().abs() < 1e-3
    bare = nn.BatchNorm1d(1).eval()
    told = bare.load_state_dict(dict(young.named_parameters()), strict=False)
    assert told.missing_keys[0] == "running_mean" and not same(bare(COLUMN), young(COLUMN), 1)
    load(young, bare)
    assert same(bare(COLUMN), young(COLUMN))
    dropout = nn.Dropout(0.5)
    assert not same(dropout(ones(100)), dropout(ones(100)))
    assert same(dropout.eval()(ones(100)), ones(100))


@shows("May the critic", "Two views", "Test code calls")
def who_shares_a_batch_shares_its_mean():
    x, score = randn(6, 4), nn.Linear(4, 1)
    for cure, layer in (
        (False, nn.BatchNorm1d(4)),
        (True, nn.LayerNorm(4)),
        (True, nn.GroupNorm(2, 4)),
        (True, nn.BatchNorm1d(4).eval()),
    ):
        critic = nn.Sequential(layer, score)
        of_all = torch.autograd.functional.jacobian(critic, x)[:, 0]
        others = of_all[~torch.eye(6, dtype=torch.bool)]
        assert (others.abs().max() < 1e-9) == cure
    a, b = randn(64, 1) - 5, randn(64, 1) + 5
    one, two = nn.BatchNorm1d(1)(cat([a, b])).chunk(2)
    assert one.mean() < -0.9 and two.mean() > 0.9
    both = nn.BatchNorm1d(1)
    assert max(both(part).mean().abs() for part in (a, b)) < 1e-4
    fed(both, *[a, b] * 50).eval()
    for part in (a, b):
        own = fed(nn.BatchNorm1d(1, momentum=None), part).eval()
        assert both(part).mean().abs() > 1 and own(part).mean().abs() < 1e-4
    adapted, dropout = deepcopy(own), nn.Dropout(0.5)
    assert adapted.train()(a).mean().abs() < 1e-4 < own(a).mean().abs()
    assert own.num_batches_tracked == 1
    model = nn.Sequential(own, dropout).eval()
    dropout.train()
    assert not same(model(a), model(a)) and own.num_batches_tracked == 1


@shows("`eval()` changes nothing", "`num_batches_tracked` says 2")
def a_trace_has_one_mode_and_checkpointing_two_passes():
    x, layer = randn(4, 3), nn.BatchNorm1d(3)
    traced, scripted = quiet(torch.jit.trace, layer, x), quiet(torch.jit.script, deepcopy(layer))
    assert same(traced.eval()(x), traced.train()(x)) and traced(x[:1]).abs().max() < 1e-3
    assert traced.running_var.isnan().all()
    layer.reset_running_stats()
    for cured in (quiet(torch.jit.trace, layer.eval(), x), scripted.eval()):
        assert same(cured(x[:1]), cured(x)[:1]) and not same(cured(x), traced(x), 0.1)
    *_, training = (
        torch.export.export(nn.BatchNorm1d(3), (x,))
        .graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)[0]
        .args[:6]
    )
    assert training is True
    for momentum, equal in ((0.1, False), (1 - (1 - 0.1) ** 0.5, True)):
        again = nn.BatchNorm1d(1, momentum=momentum)
        checkpoint(again, COLUMN, use_reentrant=False).sum().backward()
        once = fed(nn.BatchNorm1d(1), COLUMN)
        for name in ("running_mean", "running_var"):
            assert same(getattr(again, name), getattr(once, name)) == equal
    for behind, count in ((nn.Identity(), 1), (nn.Linear(1, 1), 2)):
        ours = normviz.BatchNorm1d(1)
        checkpoint(nn.Sequential(ours, behind), COLUMN, use_reentrant=False).sum().backward()
        assert ours.num_batches_tracked == count


def of_workers(rank, size):
    """Running means after two batches with mean 10 or 20, and what a SyncBatchNorm says."""
    found, before = [], []
    for options in ({}, {"forward_sync_buffers": False}):
        layer = nn.BatchNorm1d(1, momentum=0.5)
        model = DistributedDataParallel(layer, **options)
        fed(model, *[COLUMN * (rank + 1)] * 2)
        before.append(layer.running_mean.item())
        model.eval()(COLUMN)
        found.append(layer.running_mean.item())
    for b in filter(torch.is_floating_point, model.buffers()):
        distributed.all_reduce(b)
        b /= distributed.get_world_size()
    found.append(layer.running_mean.item())
    sync = nn.SyncBatchNorm(1, momentum=1)
    try:
        sync(COLUMN)
    except ValueError as error:
        found.append(str(error))
    found.append(normviz.SyncBatchNorm.convert(sync)(COLUMN * (rank + 1)).mean().item())
    found += [layer.running_var.item(), before[0]]
    return found


def what_workers_share(rank, size):
    """Gradients from parts, then from three ways to call a layer, and errors of a worker alone."""
    torch.manual_seed(0)
    x, goal = randn(2, 6, 1)
    of_parts, of_calls, said = {}, [], []
    for kind in (nn.PReLU, nn.BatchNorm1d, normviz.SyncBatchNorm):
        for sizes in ((3, 3), (2, 4)):
            for counted in (False, True):
                ddp = DistributedDataParallel(kind(1))
                losses = (ddp(x.split(sizes)[rank]) - goal.split(sizes)[rank]).square()
                (size * losses.sum() / 6 if counted else losses.mean()).backward()
                of_parts[kind.__name__, sizes, counted] = ddp.module.weight.grad.item()
    for call in (lambda layer, ddp: ddp(x), lambda layer, ddp: layer(x)):
        layer = nn.PReLU()
        call(layer, ddp := DistributedDataParallel(layer)).sum().mul(rank).backward()
        of_calls.append(layer.weight.grad.item())
    layer = nn.PReLU()
    DistributedDataParallel(layer)(x).sum().mul(rank).backward()
    of_calls.append(layer.weight.grad.item())

    def says(function, *arguments):
        try:
            function(*arguments)
        except RuntimeError as error:
            said.append(str(error))

    group = distributed.new_group(timeout=timedelta(seconds=5))
    tested = DistributedDataParallel(nn.BatchNorm1d(1), process_group=group)
    if rank == 0:
        tested.module.eval()(x)
        says(tested.eval(), x)
    distributed.barrier()
    if rank == 0:  # the other one ends
        says(lambda: ddp(x).sum().backward())
        says(normviz.SyncBatchNorm(1), x)
    return of_parts, of_calls, said


def one_after_the_other(rank, size):
    return of_workers(rank, size), what_workers_share(rank, size)


@cache
def of_two_workers():
    """What both tasks give on each of two: they are started once, which takes seconds."""
    return [*zip(*together(one_after_the_other, 2), strict=True)]


@shows("After training on several", "`SyncBatchNorm expected", "After `convert_sync")
def the_first_worker_counts_unless_buffers_are_averaged():
    first, second = of_two_workers()[0]
    assert (first[:3], second[:3]) == ([7.5, 7.5, 11.25], [7.5, 15, 11.25])
    assert first[3].startswith("SyncBatchNorm expected input tensor to be on GPU")
    assert first[4] < -0.5 < 0.5 < second[4]
    assert first[5] == second[5] < 10 < cat([COLUMN, 2 * COLUMN]).var()
    assert (first[6], second[6]) == (7.5, 12.5)

    class WithActivation(nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x).relu()

    model, x = nn.Sequential(WithActivation(3)), randn(4, 3)
    assert normviz.SyncBatchNorm.convert(model)(x).min() == 0
    assert nn.SyncBatchNorm.convert_sync_batchnorm(model)(x).min() < 0


@shows("Padding changes")
def each_norm_is_kept_from_padding_in_its_own_way():
    x, lengths = randn(2, 4, 6) + 3, (6, 4)
    real = torch.arange(6) < tensor(lengths)[:, None]
    padded = x * real[:, None]
    batch, group = nn.BatchNorm1d(4), nn.GroupNorm(2, 4)
    table = batch(padded.transpose(1, 2)[real])
    assert table.mean(0).abs().max() < 1e-4
    assert not same(batch(padded).transpose(1, 2)[real], table, 0.1)
    for layer in (group, nn.InstanceNorm1d(4)):
        alone = layer(x[1:, :, :4])
        assert not same(layer(padded)[1:, :, :4], alone, 0.1)
        assert same(layer(padded[1 : 1 + 1, :, : lengths[1]]), alone)
    assert group(padded.transpose(1, 2)[real]).shape == table.shape  # and wrong: one mean per row
    tokens, layer = padded.transpose(1, 2), nn.LayerNorm(4)
    assert same(layer(tokens)[1, :4], layer(tokens[1, :4]))


@shows("`Missing key(s)", "`Unexpected key(s)")
def the_other_names_tell_what_to_do_with_a_file():
    model, x = nn.Sequential(filled(nn.BatchNorm1d(3))), randn(4, 3)
    wrapped, file = nn.DataParallel(model), model.state_dict()
    for saved in (wrapped.state_dict(), quiet(torch.compile, model).state_dict()):
        prefix = next(iter(saved)).removesuffix("0.weight")
        new = nn.Sequential(nn.BatchNorm1d(3)).eval()
        words = f"Missing key(s) in state_dict: \n_mean\nUnexpected key(s)\n{prefix}"
        quoted(words, new.load_state_dict, saved)
        new.load_state_dict({k.removeprefix(prefix): v for k, v in saved.items()})
        assert same(new(x), model(x))
    quoted("Missing key(s) in state_dict: \nmodule.", wrapped.load_state_dict, file)
    wrapped.module.load_state_dict(file)
    bare = nn.Sequential(nn.BatchNorm1d(3, momentum=None))
    bare.load_state_dict(dict(model.named_parameters()), strict=False)
    assert same(fed(bare, x).eval()[0].running_mean, x.mean(0))
    old = {"gamma": rand(3), "beta": rand(3)}
    words = "Missing key(s) in state_dict: \nweight\nbias\nUnexpected key(s)\ngamma\nbeta"
    quoted(words, nn.LayerNorm(3).load_state_dict, old)
    renamed = {k.replace("gamma", "weight").replace("beta", "bias"): v for k, v in old.items()}
    new = nn.LayerNorm(3)
    new.load_state_dict(renamed)
    assert same(new(x), functional.layer_norm(x, (3,), *old.values()))
    load(PLAIN, nn.BatchNorm1d(3, affine=False))
    new = nn.BatchNorm1d(3)
    new.load_state_dict(PLAIN.state_dict(), strict=False)
    assert same(new.eval()(x), deepcopy(PLAIN).eval()(x))
    file = {k: v for k, v in model[0].state_dict().items() if "bias" not in k and k != "weight"}
    plain = nn.InstanceNorm2d(3)
    words = "Unexpected running stats buffer(s) … for InstanceNorm2d"
    quoted(words, plain.load_state_dict, dict(file))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        file.pop(name, None)
    plain.load_state_dict(file)
    file = without("num_batches_tracked", nn.BatchNorm1d(3))
    file.setdefault("num_batches_tracked", tensor(0))
    nn.BatchNorm1d(3).load_state_dict(file)
    del file._metadata, file["num_batches_tracked"]
    nn.BatchNorm1d(3).load_state_dict(file)


@shows("An EMA teacher", "Averaged weights", "`result type Float", "A fine-tuned model")
def buffers_are_averaged_and_saved_by_whom_one_asks():
    def teach(teacher):
        with torch.no_grad():
            for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                mine.lerp_(theirs, 0.1)

    x = randn(8, 3) * 4 + 5
    student = fed(nn.BatchNorm1d(3), *[x] * 99)
    teacher, averaged = nn.BatchNorm1d(3), AveragedModel(nn.BatchNorm1d(3))
    teach(teacher)
    assert same(teacher.eval()(x), x) and not same(student.eval()(x), x, 1)
    for mine, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        mine.copy_(theirs)
    averaged.update_parameters(student)
    for cured in (teacher, averaged.eval()):
        assert same(cured(x), student(x))
    adapter = {k: p + 1 for k, p in student.named_parameters()}
    loaded = nn.BatchNorm1d(3).eval()  # the published model
    loaded.load_state_dict(adapter, strict=False)
    student.load_state_dict(adapter, strict=False)
    assert not same(loaded(x), student(x), 1)
    loaded.load_state_dict(adapter | dict(student.named_buffers()), strict=False)
    assert same(loaded(x), student(x))
    frozen = fed(nn.BatchNorm1d(3).train().eval(), x)
    assert same(frozen.running_mean, zeros(3))

    soups = [nn.Sequential(nn.Linear(3, 3), kind(3)) for kind in (nn.BatchNorm1d,) * 2]
    soups.append(nn.Sequential(nn.Linear(3, 3), normviz.BatchNorm1d(3)))
    for soup, finds in ((soups[0], True), (soups[2], False)):
        load(fed(soups[1], *[x] * 99), soup)
        nn.init.normal_(soup[0].weight)  # other weights, old statistics
        wanted = soup.train()(x)
        load(soups[1][1], soup[1])
        assert not same(soup.eval()(x), wanted, 0.3)
        update_bn([x] * 200, soup)
        assert same(soup.eval()(x), wanted, 0.3) == finds
    soup[1].reset_running_stats()
    assert same(fed(soup.train(), *[x] * 99).eval()(x), wanted, 0.3)

    files = [fed(nn.BatchNorm1d(1), COLUMN + k).state_dict() for k in (0, 100)]
    counters = [file["num_batches_tracked"] for file in files]
    of = counters[0]
    quoted("mean(): could not infer output dtype", torch.stack(counters).mean)
    quoted("\"lerp_kernel_scalar\" not implemented for 'Long'", of.lerp_, of, 0.1)
    words = "For integral input tensors, argument alpha must not be a floating point number."
    quoted(words, lambda: of.add_(of, alpha=0.1))
    mean = {
        k: torch.stack([file[k] for file in files]).mean(0) if t.is_floating_point() else t
        for k, t in files[0].items()
    }
    nn.BatchNorm1d(1).load_state_dict(mean)
    assert same(mean["running_mean"], tensor([6.0])) and mean["running_var"] < 2


@shows("A fused model", "`Conv and BN", "`bn.running_mean and", "`Only Tensors")
def a_fused_model_is_loaded_as_what_it_is():
    def trained():
        model = ConvBN()
        filled(model.bn)
        return model.eval()

    model, x = trained(), randn(2, 2, 5, 5)
    load(model, again := ConvBN().eval())
    fused = fuse(again)
    assert same(fused(x), model(x))
    for words, file, loading in (
        ("Missing key(s) in state_dict: \nrunning_mean\nUnexpected key(s)\nbias", fused, model),
        ("Missing key(s) in state_dict: \nbias\nUnexpected key(s)\nrunning_mean", model, fused),
    ):
        quoted(words, load, file, deepcopy(loading))
    lost = ConvBN().eval()
    lost.load_state_dict(fused.state_dict(), strict=False)
    assert not same(lost(x), model(x), 0.1)
    load(fused, new := fuse(ConvBN().eval()))
    assert same(new(x), model(x))
    half = half_in_eval(trained().train())
    quoted("Conv and BN both must be in the same mode (train or eval).", fuse, half)
    assert same(fuse(half.eval())(x), half(x))
    fuse(ConvBN().train(), quantization.fuse_modules_qat)
    untracked, tracked = ConvBN(track_running_stats=False), ConvBN()
    tracked.load_state_dict(untracked.state_dict(), strict=False)
    fed(tracked, *[x] * 99).eval()
    assert same(fuse(tracked)(x), untracked(x), 0.1)
    old = quiet(nn.utils.weight_norm, nn.Linear(3, 2))
    new = parametrizations.weight_norm(nn.Linear(3, 2))
    load(old, new)
    assert (
        "parametrizations.weight.original0" in new.state_dict() and "weight_g" in old.state_dict()
    )
    assert same(deepcopy(new)(ones(1, 3)), old(ones(1, 3)))
    quoted("weight_g", load, new, old)


@shows("Weights from Keras", "Other names", "An RMSNorm", "`trainable", "ONNX")
def what_is_ported_is_made_to_agree():
    x, held = randn(4, 3), [*(rand(4, 3) + 0.5)]
    gamma, beta, mean, var = held
    wanted = gamma * (x - mean) / (var / 1000 + 1e-3).sqrt() + beta
    names = ["weight", "bias", "running_mean", "running_var"]
    for eps, right in ((1e-5, False), (1e-3, True)):
        layer = nn.BatchNorm1d(3, eps=eps).eval()
        numbers = [gamma.numpy(), beta.numpy(), mean.numpy(), (var / 1000).numpy()]
        layer.load_state_dict(dict(zip(names, map(torch.as_tensor, numbers), strict=True)))
        assert same(layer(x), wanted) == right
    assert [round((0.001 + eps) ** -0.5, 1) for eps in (1e-3, 1e-5)] == [22.4, 31.5]
    layer.load_state_dict(dict(zip(names, (gamma, beta, var, -mean), strict=True)))
    assert layer(x).isnan().all()
    theirs = dict(zip(("gamma", "beta", "moving_mean", "moving_variance"), held, strict=True))
    file = {}
    for key, tensor_ in theirs.items():
        for old, new in zip(theirs, names, strict=True):
            key = key.replace(old, new)
        file[key] = tensor_
    layer.load_state_dict(file)
    assert same(layer.running_var, var)
    assert same(nn.RMSNorm(1)(tensor([1e-4])), tensor([1e-4 / (1e-8 + 1.2e-7) ** 0.5]), 1e-2)
    rms, w = nn.RMSNorm(3, eps=1e-6), 0.1 * randn(3)
    wanted = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + w)
    with torch.no_grad():
        rms.weight.copy_(1 + w)
    assert same(rms(x), wanted) and (functional.rms_norm(x, (3,), w).abs() < wanted.abs()).all()
    for eval_too in (False, True):
        frozen = nn.BatchNorm1d(3).requires_grad_(False).train(not eval_too)
        assert (fed(frozen, x).num_batches_tracked == 0) == eval_too
    for batch, layer in (
        (True, deepcopy(UNTRACKED).eval()),
        (True, nn.BatchNorm1d(3)),
        (False, nn.BatchNorm1d(3).eval()),
    ):
        graph = torch.export.export(layer, (x,)).graph
        (node,) = graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
        assert node.args[5] == batch


def gradient(layer, x, factors):
    """Of the sum of the outputs, each times its factor."""
    x = x.clone().requires_grad_()
    (layer(x) * factors).sum().backward()
    return x.grad


@shows("The output is only −1", "The output is only zeros", "`Expected more than 1 spatial")
def one_or_two_numbers_leave_nothing_of_their_size_and_larger_groups_do():
    pair, pixels = 100 * randn(2, 32), randn(4, 32, 1, 1)
    for layer, x in (
        (nn.BatchNorm1d(32), pair),
        (nn.LayerNorm(2), pair.T),
        (nn.GroupNorm(1, 2), pair.T),
    ):
        assert same(layer(x).abs(), ones(x.shape)) and layer(x / 1e7).abs().max() < 0.1
        assert gradient(layer, x, randn(x.shape)).abs().max() < 1e-5
        assert layer.weight.grad.abs().max() > 0.1 < layer.bias.grad.abs().max()
    for x, cured in (
        (randn(3, 32), nn.BatchNorm1d(32)),
        (pixels, nn.GroupNorm(32 // 16, 32)),
        (pixels[:1], nn.GroupNorm(32 // 16, 32)),
        (randn(1, 32, 1, 2), nn.GroupNorm(32 // 16, 32)),
    ):
        assert gradient(cured, x, randn(x.shape)).abs().max() > 0.1
        assert not same(cured(x).abs(), ones(x.shape), 0.1)
    assert nn.GroupNorm(32, 32)(pixels).abs().max() < 1e-3
    quoted("Expected more than 1 value per channel", nn.GroupNorm(32, 32), pixels[:1])
    quoted("Expected more than 1 spatial element", nn.InstanceNorm2d(32).eval(), pixels)
    nn.InstanceNorm2d(32, track_running_stats=True).eval()(pixels)
    signs, sizes = (
        tensor([[1.0, -1], [1, -1]]),
        tensor([[5.0, -2], [0.002, -0.0005]])[..., None, None],
    )
    assert same(nn.RMSNorm(1)(sizes[:1])[..., 0, 0], signs[:1])
    assert same(normviz.FilterResponseNorm2d(2)(sizes[:1])[..., 0, 0], tensor([[1.0, 0]]))
    learned = normviz.FilterResponseNorm2d(2, learn_eps=True, threshold=False)(sizes)[..., 0, 0]
    assert same(learned[:1], signs[:1]) and 0.1 < learned[1, 0] < 0.3 and -0.1 < learned[1, 1] < 0


@shows("`layer(x).sum()", "Gradients explode")
def sums_send_nothing_back_and_a_nearly_constant_channel_sends_much():
    x, factors = randn(2, 4, 6, 50)
    for layer in (
        nn.BatchNorm1d(6),
        nn.LayerNorm([6, 50]),
        nn.GroupNorm(2, 6),
        nn.InstanceNorm1d(6),
    ):
        for upstream, nothing in ((1, True), (layer(x).detach(), True), (factors, False)):
            assert (gradient(layer, x, upstream).abs().max() < 1e-3) == nothing
    for of_sum in (lambda x: x - x.mean(), nn.Softmax(-1)):  # no normalization layers
        assert gradient(of_sum, x, 1).abs().max() < 1e-4
    assert gradient(nn.BatchNorm1d(6).eval(), x, 1).min() > 0.9

    model = nn.Sequential(nn.Linear(3, 2), layer := nn.BatchNorm1d(2))
    model[0].weight.data[1] *= 1e-6
    x, factors = randn(16, 3), randn(16, 2)
    for eps, limit in ((1e-5, 316), (1e-3, 32)):
        layer.eps = eps
        times = gradient(layer, model[0](x).detach(), factors).norm() / factors.norm()
        assert limit / 2 < times < limit
    assert layer.running_var.argmin() == 1
    gradient(model, x, 100 * factors)
    before = nn.utils.clip_grad_norm_(model.parameters(), 1)
    after = nn.utils.get_total_norm(p.grad for p in model.parameters())
    assert before > 100 and same(after, ones(()), 1e-3)


@shows("weight_norm gives", "`num_channels", "`layer must take")
def a_row_has_a_length_and_a_window_a_picture():
    def g(layer, **dim):
        return parametrizations.weight_norm(layer, **dim).parametrizations.weight.original0.shape

    linear = nn.Linear(3, 2)
    linear.weight.data[1] = 0
    zero = parametrizations.weight_norm(deepcopy(linear))
    assert zero(ones(1, 3)).isnan().tolist() == [[False, True]]
    quoted("a slice of the weight must not be all zeros, …", normviz.weight_norm, linear)
    nn.init.normal_(linear.weight)
    assert parametrizations.weight_norm(linear)(ones(1, 3)).isfinite().all()
    assert g(nn.Linear(3, 2)) == (2, 1) and g(nn.Linear(3, 2), dim=1) == (1, 3)
    assert g(nn.Linear(3, 2), dim=-1) == g(nn.Linear(3, 2), dim=None) == ()
    assert g(nn.ConvTranspose2d(3, 5, 2)) == (3, 1, 1, 1)
    assert g(nn.ConvTranspose2d(3, 5, 2), dim=1) == (1, 5, 1, 1)
    quoted("num_channels (…) must be divisible by num_groups (…)", nn.GroupNorm, 64, 32)
    assert nn.GroupNorm(32, 64).num_channels == 64
    assert "LocalResponseNorm" in repr(draw_jacobian(nn.LocalResponseNorm(3), ones(1, 5, 1)))


@shows("InstanceNorm: the running", "`update_bn` or")
def who_asks_for_a_class_passes_others_by():
    x = randn(4, 3, 5) + 3
    mean, tracked = x.mean((0, 2)), {"track_running_stats": True}
    for momentum, moved in ((None, 0 * mean), (0.1, 0.1 * mean)):
        layer = fed(nn.InstanceNorm1d(3, momentum=momentum, **tracked), x)
        assert same(layer.running_mean, moved) and layer.num_batches_tracked == 0
    assert same(fed(nn.BatchNorm1d(3, momentum=None), x, x + 2).running_mean, mean + 1)

    for layer in (nn.InstanceNorm1d(3, **tracked), normviz.BatchNorm1d(3)):
        layer.running_mean.fill_(50)
        alone, beside = nn.Sequential(layer), nn.Sequential(deepcopy(layer), nn.BatchNorm1d(3))
        for model in (alone, beside):
            update_bn([x], model)
        assert (layer.running_mean == 50).all()
        assert same(beside[0].running_mean, 45 + 0.1 * mean)
        for module in alone.modules():
            if getattr(module, "running_var", None) is not None:
                module.reset_running_stats()
        assert same(fed(alone, *[x] * 44)[0].running_mean, mean, 0.02)
    model = nn.Sequential(nn.BatchNorm1d(3), normviz.BatchNorm1d(3), nn.InstanceNorm1d(3))
    for cls, convert, count in (
        (nn.SyncBatchNorm, nn.SyncBatchNorm.convert_sync_batchnorm, 1),
        (normviz.SyncBatchNorm, normviz.SyncBatchNorm.convert, 2),
    ):
        made = convert(deepcopy(model))
        assert [isinstance(layer, cls) for layer in made] == [True] * count + [False] * (3 - count)
    assert same(cat([model[2](part) for part in x.split(2)]), model[2](x))


@shows("On several GPUs", "Training on several GPUs", "DistributedDataParallel does not")
def workers_average_by_worker_what_went_through_and_wait_for_each_other():
    torch.manual_seed(0)
    x, goal = randn(2, 6, 1)
    (of_parts, averaged, said), (of_other, unlike, _) = of_two_workers()[1]
    wanted = {}
    for kind in (nn.PReLU, nn.BatchNorm1d):
        layer = kind(1)
        (layer(x) - goal).square().mean().backward()
        wanted[kind.__name__] = layer.weight.grad.item()
    wanted["SyncBatchNorm"] = wanted["BatchNorm1d"]
    off = {key for key, found in of_parts.items() if abs(found - wanted[key[0]]) > 1e-4}
    alone = {key for key in of_parts if key[0] == "BatchNorm1d"}
    assert off == {("PReLU", (2, 4), False), ("SyncBatchNorm", (2, 4), False), *alone}
    assert of_parts == of_other and randn(999, 8).var(1).std() > randn(999, 64).var(1).std()

    total = x.clamp(max=0).sum().item()
    assert_close((averaged, unlike), ([total / 2, 0.0, 0.0], [total / 2, total, total]))

    quotes = (
        "Timed out waiting|Application timeout caused pair closure",
        "Connection closed by peer|Connection reset by peer",
        "SyncBatchNorm needs every worker of its group in each pass of training, and one did not",
    )
    assert all(re.search(quote, words) for quote, words in zip(quotes, said, strict=True))
    assert all(quote in TEXT for quote in "|".join(quotes).split("|"))
    assert distributed.constants.default_pg_timeout == timedelta(minutes=30)
    assert together.__kwdefaults__ == {"seconds": 60}
    samplers = [DistributedSampler(range(9), 2, rank, drop_last=True) for rank in range(2)]
    assert [len([*sampler]) for sampler in samplers] == [4, 4]


@shows("`name '…'")
def a_worker_gets_the_text_of_its_task_and_its_arguments():
    def work(rank, size):
        return torch.ones(size)

    def mended(rank, size, model):
        import torch

        return model(torch.ones(size, 1)).item()

    with pytest.raises(NameError, match="name 'torch' is not defined") as raised:
        together(work, 1)
    assert raised.value.__notes__[-1] in TEXT
    model = nn.Linear(1, 1)
    assert together(mended, 1, model) == [model(ones(1, 1)).item()]


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
    cause, *to_do = ENTRIES[heading].strip().split("\n\n")
    ends = re.findall(r"[.!?](?=\s|$)", re.sub("`[^`]*`", "code", cause))
    assert len(ends) == 2 and cause.endswith(".")
    if not heading.startswith(NO_CELL):
        assert to_do.pop().startswith("[")
    assert len(to_do) <= 2
    if to_do and to_do[0].startswith("- "):  # several causes, each after what tells it from others
        cases = to_do.pop(0).split("\n")
        assert len(cases) > 1 and all(re.match(r"- \*\*.+?:\*\* .+\.$", case) for case in cases)
    assert len(to_do) <= 1 and all(line.startswith("**Do:** ") for line in to_do)


@cache
def anchors(path):
    """All that may stand behind the # in a link to a file."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return {f"cell-id={cell['id']}" for cell in cells}
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("heading", ENTRIES)
def test_a_link_leads_to_a_cell_or_a_section(heading):
    links = re.findall(r"\[([^]]+)\]\(([^)#]+)#([^)]+)\)", ENTRIES[heading])
    assert len(links) == re.sub("`[^`]*`", "code", ENTRIES[heading]).count("](")
    assert (len(links) == 0) == heading.startswith(NO_CELL)
    for label, name, fragment in links:
        assert fragment in anchors(PAGE.parent / name)
        lesson = re.match("[Ll]esson (..)", label)
        assert not lesson or Path(name).name.startswith(lesson[1])
