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
FORWARD, BOTH = "forward", "forward and backward"
AIMS = {FORWARD: 1.5, BOTH: 1.3}
# Name of the layer, its size, and the shape of its input; the last two are those of the lessons.
LARGE = (
    ("BatchNorm2d", 64, (32, 64, 56, 56)),
    ("BatchNorm1d", 512, (4096, 512)),
    ("LayerNorm", 768, (64, 256, 768)),
)
SMALL = (("BatchNorm2d", 3, (3, 3, 2, 2)), ("LayerNorm", 4, (2, 3, 4)))
GROWING = {
    "BatchNorm2d": [(64, (n, 64, 28, 28)) for n in (1, 4, 16, 64, 256)],
    "LayerNorm": [(512, (n, 128, 512)) for n in (1, 4, 16, 64, 256)],
}


class FromScratch(nn.Module):
    """The layer of countless articles: plain operations, which autograd differentiates."""

    def __init__(self, plan: Plan, size: int):
        super().__init__()
        names = plan.axes.split()
        self.pooled = tuple(i for i, name in enumerate(names) if name not in plan.statistic.split())
        shape = [size if name in plan.weight.split() else 1 for name in names]
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        if plan.running:
            self.register_buffer("running_mean", torch.zeros(shape))
            self.register_buffer("running_var", torch.ones(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mean, mean of the squares of the centred input, division, weight and bias."""
        mean = x.mean(self.pooled, keepdim=True)
        centred = x - mean
        var = (centred**2).mean(self.pooled, keepdim=True)
        if hasattr(self, "running_mean"):
            count = x.numel() // mean.numel()
            with torch.no_grad():
                self.running_mean = 0.9 * self.running_mean + 0.1 * mean
                self.running_var = 0.9 * self.running_var + 0.1 * var * count / (count - 1)
        return centred / torch.sqrt(var + 1e-5) * self.weight + self.bias


def make(name: str, size: int, ndim: int) -> dict[str, nn.Module]:
    """The same layer three times."""
    ours, theirs = (getattr(module, name)(size) for module in (normviz, nn))
    return {OURS: ours, TORCH: theirs, SCRATCH: FromScratch(plan_of(theirs, ndim), size)}


def passes(layer: nn.Module, shape: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    """What is timed: a forward pass, of which a graph is kept, and both passes."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    wanted = [x, *layer.parameters()]
    return {
        FORWARD: lambda: layer(x),
        BOTH: lambda: torch.autograd.grad(layer(x), wanted, grad),
    }


def seconds_of(name: str, size: int, shape: tuple[int, ...], what: str, rounds: int) -> dict:
    """Way → its seconds, round by round."""
    layers = make(name, size, len(shape))
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
    for name, size, shape in SMALL if quick else (*LARGE, *SMALL):
        for what, aim in AIMS.items():
            rounds = 300 if prod(shape) < 1000 else 25
            seconds = seconds_of(name, size, shape, what, rounds)
            rows += [
                Row(f"{name} {shape}, {what}, {on}", way, ratio(seconds[OURS], seconds[way]), most)
                for way, most in ((TORCH, aim), (SCRATCH, 1.0))
            ]
    return rows


def rows_of_memory() -> list[Row]:
    """What is kept between the two passes, above what torch.nn keeps."""
    rows = []
    for name, size, shape in LARGE:
        layers = make(name, size, len(shape))
        ours, theirs = (kept_for_backward(layers[way], shape) for way in (OURS, TORCH))
        more = ours - theirs
        what = f"{name} {shape}, memory kept for backward, above that of torch.nn"
        rows.append(Row(what, "–", Spread(more, more, more), aim=1.0, unit="inputs"))
    return rows


def growth_table(count: int) -> str:
    """Both passes over the first inputs of each growing series, on one thread."""
    lines = []
    for name, sizes in GROWING.items():
        for size, shape in sizes[:count]:
            seconds = seconds_of(name, size, shape, BOTH, rounds=7)
            costs = (ratio(seconds[way], seconds[TORCH]).median for way in (OURS, SCRATCH))
            lines.append([f"{name} {shape}", f"{prod(shape):,}", *map(three_digits, costs)])
    return in_markdown([f"{BOTH}, 1 thread", "numbers in x", OURS, SCRATCH], lines)


NOTES = f"""\
All in float32, in training, with weight and bias; every BatchNorm moves its running statistics.
"{SCRATCH}" takes the mean, then the mean of the squares of the centred input, and leaves the rest
to autograd. The backward pass is for x, weight and bias.

A layer of normviz is some sixty operations of torch in each pass, views included, called from
Python. Most take a microsecond or more before the first number. So on the inputs of a lesson, which
torch.nn and its single kernel have done by then, normviz cannot come near; a kernel of its own, in
C++, could. The version from scratch has fewer operations there, as it checks nothing, neither the
input nor whether the variance has any right digit.

Of LayerNorm's time at (64, 256, 768), the greater part goes to fresh memory for 50 MB of output,
with torch.nn as with normviz. Where memory is used again, as in the middle of the table below,
its ten sweeps over a block in the cache cost normviz several times torch's two.

BatchNorm1d on (N, C) is the shape that blocks cannot help: a channel's numbers stand apart in
memory, so nothing less than the whole tensor is swept over, and that nine times forward, where
torch's kernel needs three.

How time grows with the input, as multiples of {TORCH}:
"""
