"""What a layer costs: normviz against torch.nn and against the usual version from scratch."""

from collections.abc import Callable
from math import prod

import torch
from torch import nn

import normviz
from benchmarks.compare import Row, Section, Spread, ratio, take_turns
from benchmarks.report import in_markdown, three_digits
from normviz import Plan, plan_of

TORCH, SCRATCH, OURS = "torch.nn", "from scratch", "normviz"
FORWARD, BOTH, EVAL = "forward", "forward and backward", "eval"
# Name of a layer, its arguments, the shape of its input, and what it may take of torch.nn's time.
LARGE = (
    ("BatchNorm2d", (64,), (32, 64, 56, 56), {FORWARD: 1.2, BOTH: 1.3, EVAL: 1.5}),
    ("BatchNorm1d", (512,), (4096, 512), {FORWARD: 2.0, BOTH: 2.3, EVAL: 1.4}),
    ("LayerNorm", (768,), (64, 256, 768), {FORWARD: 1.7, BOTH: 1.8}),
    ("RMSNorm", (768,), (64, 256, 768), {FORWARD: None, BOTH: None}),
    ("GroupNorm", (8, 64), (32, 64, 56, 56), {FORWARD: None, BOTH: None}),
    ("InstanceNorm2d", (64, 1e-5, 0.1, True), (32, 64, 56, 56), {FORWARD: None, BOTH: None}),
)
SMALL = (  # those of the lessons
    ("BatchNorm2d", (3,), (3, 3, 2, 2), {FORWARD: 4.0, BOTH: 3.0, EVAL: None}),
    ("LayerNorm", (4,), (2, 3, 4), {FORWARD: 6.0, BOTH: 3.5}),
)
GROWING = {
    ("BatchNorm2d", 64): [(n, 64, 28, 28) for n in (1, 4, 16, 64, 256)],
    ("LayerNorm", 512): [(n, 128, 512) for n in (1, 4, 16, 64, 256)],
}
AHEAD_FROM = 10**4  # numbers in x, from which on it should be ahead of the version from scratch


class FromScratch(nn.Module):
    """The layer of countless articles: plain operations, which autograd differentiates."""

    def __init__(self, plan: Plan, shape: tuple[int, ...], eps: float):
        super().__init__()
        self.eps = eps
        layout, sharing = plan.reduction.layout(shape), plan.sharing.layout(shape)
        self.split, self.pooled, self.centred = layout.split[1:], layout.pooled, plan.centred
        self.weight = nn.Parameter(torch.ones(sharing.aligned))
        self.bias = nn.Parameter(torch.zeros(sharing.aligned)) if plan.centred else None
        if plan.running == plan.statistic:
            self.register_buffer("running_mean", torch.zeros(layout.aligned))
            self.register_buffer("running_var", torch.ones(layout.aligned))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mean, mean of the squares of the centred input, division, weight and bias."""
        tracked, taken_apart = hasattr(self, "running_mean"), x.reshape(len(x), *self.split)
        if tracked and not self.training:
            mean, var = self.running_mean, self.running_var
            centred = taken_apart - mean
        else:
            mean = taken_apart.mean(self.pooled, keepdim=True) if self.centred else 0
            centred = taken_apart - mean
            var = (centred**2).mean(self.pooled, keepdim=True)
        if tracked and self.training:
            count = x.numel() // mean.numel()
            with torch.no_grad():
                self.running_mean = 0.9 * self.running_mean + 0.1 * mean
                self.running_var = 0.9 * self.running_var + 0.1 * var * count / (count - 1)
        y = centred / torch.sqrt(var + self.eps) * self.weight
        return (y if self.bias is None else y + self.bias).reshape(x.shape)


def make(name: str, arguments: tuple, shape: tuple[int, ...]) -> dict[str, nn.Module]:
    """The same layer three times."""
    ours, theirs = (getattr(module, name)(*arguments) for module in (normviz, nn))
    eps = torch.finfo(torch.float32).eps if theirs.eps is None else theirs.eps
    scratch = FromScratch(plan_of(theirs, len(shape)), shape, eps)
    return {OURS: ours, TORCH: theirs, SCRATCH: scratch}


def passes(layer: nn.Module, shape: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    """What is timed: a forward pass, of which a graph is kept, both passes, and one in eval."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    wanted = [x, *layer.parameters()]

    @torch.no_grad()
    def predict():
        layer.eval()
        y = layer(x)
        layer.train()
        return y

    return {
        FORWARD: lambda: layer(x),
        BOTH: lambda: torch.autograd.grad(layer(x), wanted, grad),
        EVAL: predict,
    }


def seconds_of(name: str, arguments: tuple, shape: tuple[int, ...], what: str, rounds: int) -> dict:
    """Way → its seconds, round by round."""
    layers = make(name, arguments, shape)
    return take_turns({way: passes(layers[way], shape)[what] for way in layers}, rounds)


def kept_for_backward(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """The memory that waits for the backward pass, x itself included, in inputs."""
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = torch.randn(shape, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = layer(x)  # kept, or memory of one tensor may be given to the next
    return sum(storages.values()) / (y.numel() * y.itemsize)


def measure(*, quick: bool = False) -> Section:
    """Time on one and two threads, memory, and how time grows."""
    before = torch.get_num_threads()
    try:
        rows = [row for threads in (1, 2) for row in rows_of_time(threads, quick=quick)]
        torch.set_num_threads(1)
        growth = growth_table(4 if quick else 5)
    finally:
        torch.set_num_threads(before)
    return Section("Layers", [*rows, *rows_of_memory()], f"{NOTES}\n{growth}")


def rows_of_time(threads: int, *, quick: bool) -> list[Row]:
    """Both passes of all layers on some threads."""
    torch.set_num_threads(threads)
    on = f"{threads} thread{'s' if threads > 1 else ''}"
    rows = []
    for name, arguments, shape, aims in SMALL if quick else (*LARGE, *SMALL):
        for what, aim in aims.items():
            rounds = 300 if prod(shape) < AHEAD_FROM else 25
            seconds = seconds_of(name, arguments, shape, what, rounds)
            ahead = None if prod(shape) < AHEAD_FROM else 1.0
            rows += [
                Row(f"{name} {shape}, {what}, {on}", way, ratio(seconds[OURS], seconds[way]), most)
                for way, most in ((TORCH, aim), (SCRATCH, ahead))
            ]
    return rows


def rows_of_memory() -> list[Row]:
    """What is kept between the two passes, above what torch.nn keeps."""
    rows = []
    for name, arguments, shape, _ in LARGE:
        layers = make(name, arguments, shape)
        ours, theirs = (kept_for_backward(layers[way], shape) for way in (OURS, TORCH))
        more = ours - theirs
        what = f"{name} {shape}, memory kept for backward, above that of torch.nn"
        rows.append(Row(what, "–", Spread(more, more, more), aim=1.0, unit="inputs"))
    return rows


def growth_table(count: int) -> str:
    """Both passes over the first inputs of each growing series, on one thread."""
    lines = []
    for (name, size), shapes in GROWING.items():
        for shape in shapes[:count]:
            seconds = seconds_of(name, (size,), shape, BOTH, rounds=7)
            costs = (ratio(seconds[way], seconds[TORCH]).median for way in (OURS, SCRATCH))
            lines.append([f"{name} {shape}", f"{prod(shape):,}", *map(three_digits, costs)])
    return in_markdown([f"{BOTH}, 1 thread", "numbers in x", OURS, SCRATCH], lines)


NOTES = f"""\
All in float32, with weight and bias; in training, every BatchNorm moves its running statistics.
"{SCRATCH}" takes the mean, then the mean of the squares of the centred input, and leaves the rest
to autograd. The backward pass is for x, weight and bias. In eval, no graph is kept.

On the inputs of a lesson a layer is the formula itself, in float64: eleven operations of torch,
called from Python, each of which takes a microsecond or two before the first number, and as many
derivatives of them; and before that, the input is checked. The formula alone was measured at 2.1
and 2.8 times torch's BatchNorm there, forward and in both passes, and at 4.5 and 3.5 times its
LayerNorm: this is as near as plain operations come. A kernel of its own, in C++, could be faster.

Of LayerNorm's time at (64, 256, 768), the greater part goes to fresh memory for 50 MB of output,
with torch.nn as with normviz; its steps, timed alone in the cache, add up to a fifth. Which of the
two meets memory that is there already decides the ratio: three full runs had 1.3 to 3.9 forward,
and 1.3 to 4.6 for both passes.

In eval, an image is multiplied and added to, in two steps where torch's kernel needs one; in one
step of torch's, ``addcmul``, it takes longer than in two.

How time grows with the input, as multiples of {TORCH}:
"""
