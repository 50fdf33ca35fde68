"""One batch shared out among workers: what each normalizes with, alone or together."""

from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from normviz.arithmetic import write_out
from normviz.ink import INK, line_style
from normviz.labs.lab import Lab, RuleBroken, View, buttons, check_choice, opener, slider
from normviz.layers.batch_norm import BatchNorm1d
from normviz.moments import Moments
from normviz.plots import COLOURS, DASHES, DOTTED, GREY, Plot, add_bars
from normviz.words import five_digits, number_of

MOST_WORKERS, MOST_SAMPLES = 8, 64
EPS, MOMENTUM = 1e-5, 0.1  # of every BatchNorm that is made without any arguments
ROUNDING = 1e-9  # in double precision, what is smaller is no distance
PARTS = {"equal": "equal", "unequal": "last one smaller"}


@dataclass(frozen=True)
class WorkersSetting:
    """Where the controls of a workers lab stand."""

    workers: int = 2
    samples: int = 8
    parts: str = "equal"
    drift: float = 2.0
    sync: bool = False

    def __post_init__(self):
        check_choice("parts", self.parts, PARTS)
        check_choice("sync", self.sync, (True, False))


@dataclass(frozen=True)
class Worker:
    """What one worker holds, and what it makes of it in a pass of training."""

    x: Tensor  # (samples, 1)
    used: Moments  # what normalizes: its own, or those of all
    far: float  # the mean distance of its outputs from those that one big batch gives

    @property
    def mean(self) -> float:
        """What is taken off."""
        return self.used.mean.item()

    @property
    def sigma(self) -> float:
        """The root of the variance that normalizes."""
        return (self.used.squares / self.used.count).sqrt().item()

    @property
    def stored(self) -> tuple[float, float]:
        """Its running mean and variance after this one batch, the first it has seen."""
        unbiased = self.used.squares.item() / (self.used.count - 1)
        return MOMENTUM * self.mean, 1 - MOMENTUM + MOMENTUM * unbiased  # they start at 0 and 1


def view_workers(setting: WorkersSetting, plot: Plot) -> View:
    """What each worker normalizes with, what comes out and what is stored, drawn on the plot.

    Raises:
        RuleBroken: if a worker has too few numbers.
    """
    workers = workers_of(setting)
    whole = whole_of(workers)
    ranks, ends = [*range(len(workers))], (-0.5, len(workers) - 0.5)
    with plot.anew() as [left, middle, right]:
        _draw_statistics(left, workers, whole)
        add_bars(middle, {"": [worker.far for worker in workers]}, ranks)
        middle.set_ylim(0, max(1, *(1.1 * worker.far for worker in workers)))
        stored = zip(*(worker.stored for worker in (*workers, whole)), strict=True)
        names = "running_mean", "running_var"
        add_bars(right, dict(zip(names, stored, strict=True)), [*ranks, "all"])
        left.set(title="mean ± σ that normalizes", xlabel="worker", xlim=ends, xticks=ranks)
        middle.set(title="how far outputs are off", xlabel="worker", xlim=ends)
        right.set(title="stored: mean; var striped")
        right.set(xlabel="worker (0 is saved); all: one batch")
        right.axhline(0, **line_style(INK, width=1))
    text = "; ".join(
        f"worker {rank} normalizes with mean {five_digits(worker.mean)} and σ "
        f"{five_digits(worker.sigma)}, {five_digits(worker.far)} from one big batch"
        for rank, worker in enumerate(workers)
    )
    return View(_describe(setting, workers, whole), (plot.picture(text),))


def _draw_statistics(axes, workers: list[Worker], whole: Worker) -> None:
    """Each worker's numbers, and its mean ± σ beside them; those of the whole batch behind."""
    mean, sigma = whole.mean, whole.sigma
    axes.axhline(mean, **line_style(INK, width=1.5, dash=DASHES[1]), label="whole batch: mean")
    across, low, high = [-0.5, len(workers) - 0.5, None], [mean - sigma] * 2, [mean + sigma] * 2
    dotted = line_style(INK, width=1.5, dash=DOTTED)
    axes.plot(2 * across, [*low, None, *high, None], **dotted, label="whole batch: ± σ")
    places = [rank - 0.2 for rank, worker in enumerate(workers) for _ in worker.x]
    numbers = torch.cat([worker.x for worker in workers])
    axes.plot(places, numbers, **line_style(GREY, width=0, dot=4), label="numbers")
    bars, ends, means = [], [], []
    for rank, worker in enumerate(workers):
        centre = worker.mean
        means.append(centre)
        bars += [rank + 0.1] * 2 + [None]  # and a gap
        ends += [centre - worker.sigma, centre + worker.sigma, None]
    axes.plot(bars, ends, **line_style(COLOURS[0]), label="worker: mean ± σ")
    axes.plot(bars[::3], means, **line_style(COLOURS[0], width=0, dot=8))


def workers_of(setting: WorkersSetting) -> list[Worker]:
    """All workers after a pass of training.

    Raises:
        RuleBroken: if one has nothing, or has one number and is on its own.
    """
    parts = parts_of(setting)
    own = [Moments.of(part, over=(0,)) for part in parts]
    used = [Moments.join(own)] * len(own) if setting.sync else own
    one_batch = BatchNorm1d(1, EPS, affine=False, dtype=torch.float64)(torch.cat(parts))
    workers, start = [], 0
    for x, moments in zip(parts, used, strict=True):
        y = (x - moments.mean) / (moments.squares / moments.count + EPS).sqrt()
        far = (y - one_batch[start : start + len(x)]).abs().mean().item()
        workers.append(Worker(x, moments, far if far > ROUNDING else 0.0))
        start += len(x)
    return workers


def whole_of(workers: list[Worker]) -> Worker:
    """What one worker makes of all their numbers."""
    x = torch.cat([worker.x for worker in workers])
    return Worker(x, Moments.of(x, over=(0,)), 0.0)


def parts_of(setting: WorkersSetting) -> list[Tensor]:
    """The numbers of each worker, each of shape (samples, 1).

    Raises:
        RuleBroken: if one has nothing, or has one number and is on its own.
    """
    sizes = sizes_of(setting)
    if not setting.sync and 1 in sizes:
        raise RuleBroken(
            f"Expected more than 1 value per channel when training: worker {sizes.index(1)} has "
            "one number, whose distance from its mean is 0. With sync, the numbers of all count."
        )
    parts = _noise()[: setting.samples].split(sizes)
    return [part + rank * setting.drift for rank, part in enumerate(parts)]


def sizes_of(setting: WorkersSetting) -> list[int]:
    """How many samples each worker gets.

    Raises:
        RuleBroken: if one gets none.

    >>> sizes_of(WorkersSetting(3, samples=8)), sizes_of(WorkersSetting(3, 12, "unequal"))
    ([3, 3, 2], [5, 5, 2])
    """
    workers, samples = setting.workers, setting.samples
    if workers > samples:
        raise RuleBroken(
            f"Every worker needs a sample: got {number_of(workers, 'worker')} and "
            f"{number_of(samples, 'sample')}."
        )
    if setting.parts == "equal" or workers == 1:
        return _shared_out(samples, workers)
    last = max(1, samples // (2 * workers))  # half of its share
    return [*_shared_out(samples - last, workers - 1), last]


def _shared_out(samples: int, workers: int) -> list[int]:
    each, more = divmod(samples, workers)
    return [each + (rank < more) for rank in range(workers)]


@cache
def _noise() -> Tensor:
    generator = torch.Generator().manual_seed(23)  # even in few: neither too near nor too far
    return torch.randn(MOST_SAMPLES, 1, generator=generator, dtype=torch.float64)


def noise_of(m: int) -> float:
    """How far the variance of m normal numbers lies from the truth, typically, as a share of it.

    >>> noise_of(3), noise_of(33)
    (1.0, 0.25)
    """
    return (2 / (m - 1)) ** 0.5


def _describe(setting: WorkersSetting, workers: list[Worker], whole: Worker) -> str:
    sizes = [len(worker.x) for worker in workers]
    own = [Moments.of(worker.x, over=(0,)) for worker in workers]
    lines = [
        f"{_judge(setting, workers)} {_noise_in_words(setting, min(sizes), sum(sizes))}",
        _within_and_between(own, whole.used),
        _means(own, whole.used),
        _saved(workers[0], whole),
    ]
    return f"<p style='line-height:1.5'>{'<br>'.join(lines)}</p>"


def _judge(setting: WorkersSetting, workers: list[Worker]) -> str:
    sizes = ", ".join(str(len(worker.x)) for worker in workers)
    have = f"({sizes} samples)"
    if len(workers) == 1:
        return f"<b>One worker</b> {have} is one big batch."
    if setting.sync:
        return f"<b>Together</b> {have}: each worker's outputs are those of one big batch."
    far = max(worker.far for worker in workers)
    return (
        f"<b>Each on its own</b> {have}: the farthest worker's outputs lie "
        f"{five_digits(far)} from those of one big batch, on average."
    )


def _noise_in_words(setting: WorkersSetting, smallest: int, samples: int) -> str:
    m = samples if setting.sync else smallest
    off = f"is typically off by √(2/(m − 1)) = {_percent(m)}"
    text = f"An unbiased variance of m = {m} numbers {off}"
    return f"{text}." if m == samples else f"{text}; of all {samples}, by {_percent(samples)}."


def _percent(m: int) -> str:
    return f"{100 * noise_of(m):.0f} %"


def _within_and_between(own: list[Moments], whole: Moments) -> str:
    """The variance of the whole batch is the mean of those within, and that of the means."""
    within = sum(part.squares.item() for part in own) / whole.count
    distances = (part.count * (part.mean - whole.mean).square().item() for part in own)
    texts, variance = write_out([within, sum(distances) / whole.count], lambda a, b: a + b)
    return (
        f"Variance: within the parts {texts[0]} + between them {texts[1]} = "
        f"{five_digits(variance)}, that of the whole batch."
    )


def _means(own: list[Moments], whole: Moments) -> str:
    right = five_digits(whole.mean.item())
    if len(own) == 1:
        return f"Mean: {right}."
    if len({part.count for part in own}) == 1:
        return f"Mean: the parts are equally large, so the mean of their means is right: {right}."
    plain = sum(part.mean.item() for part in own) / len(own)
    return (
        f"Mean: by count, the parts' means give {right}; their plain mean, as if the parts were "
        f"equally large, {five_digits(plain)}."
    )


def _saved(first: Worker, whole: Worker) -> str:
    mean, variance = map(five_digits, first.stored)
    saved = f"A checkpoint saves worker 0's running_mean {mean} and running_var {variance}"
    stored = tuple(map(five_digits, whole.stored))
    if stored == (mean, variance):
        return f"{saved}: those of one big batch."
    return f"{saved}; one big batch would store {stored[0]} and {stored[1]}."


class WorkersLab(Lab):
    """An explorer: a batch is shared out among workers, and each normalizes its part.

    One channel of random numbers: those of worker 0 lie about 0, and those of each other worker by
    ``drift`` above those of the one before it; all vary by 1. Each worker has a ``BatchNorm1d(1)``,
    fresh and in training; or, with ``sync``, a ``SyncBatchNorm(1)``. All is worked out in one
    process. Each control can be set and read by name: ``workers``, ``samples``, ``parts``,
    ``drift`` and ``sync`` have a ``value``.

    Args:
        workers: how many, 1 to 8.
        samples: how many all of them have together, 2 to 64.
        parts: ``"equal"``, as nearly as can be, or ``"unequal"``: the last worker has half of an
            equal share, rounded down, and one sample at least.
        drift: from the mean of a worker's data to that of the next, 0 to 4.
        sync: whether the statistics are those of all workers.

    Raises:
        ValueError: for a number that the lab's sliders do not reach, or other parts. Where a worker
            has too few numbers, the rule is shown.

    >>> lab = workers_lab(parts="unequal")
    >>> lab.sync.value = True
    >>> "outputs are those of one big batch" in lab.readout.value
    True
    """

    Setting, view_of = WorkersSetting, staticmethod(view_workers)
    _plot = cached_property(lambda _: Plot(3, width=900, height=330))

    def __init__(self, setting: WorkersSetting):
        self.workers = slider("workers", setting.workers, 1, MOST_WORKERS)
        self.samples = slider("samples in all", setting.samples, 2, MOST_SAMPLES)
        self.drift = slider("drift from one to the next", setting.drift, 0, 4, 0.1)
        options = [(text, name) for name, text in PARTS.items()]
        self.parts = buttons("parts", options, setting.parts, width=140)
        self.sync = buttons("sync", [("off", False), ("on", True)], setting.sync)
        super().__init__(
            [self.workers, self.samples, self.drift],
            [self.parts, self.sync],
            readout_height=136,
            picture_height=350,
        )
        self.draw_on(self.workers, self.samples, self.parts, self.drift, self.sync)


workers_lab = opener(WorkersLab, "workers_lab")
