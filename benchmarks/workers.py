"""What SyncBatchNorm's exchange costs: measured between processes here, and worked out on paper."""

from math import log2
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import distributed

import normviz
from benchmarks.compare import Row, Section, Spread
from benchmarks.report import in_markdown, three_digits
from normviz.workers import together

CHANNELS = (64, 512)
SIZES = (2, 3, 4, 8)  # how many workers
ON_PAPER = (8, 16, 64, 512, 4096)
NUMBER = 8  # bytes of a float64, in which everything is told
TRAFFIC = Path("/proc/net/dev")  # of Linux: the bytes that went over each interface

# The paper: a network, a worker, and what connects it.
LAYERS, ALL_CHANNELS = 53, 26_560  # of ResNet-50
IMAGES = 1000  # of 224 × 224 that a worker trains with in a second
LATENCY, BANDWIDTH = 5e-6, 12.5e9  # seconds for a message; bytes in a second (100 Gbit/s)


def steps(rank: int, size: int, channels: int, rounds: int) -> dict:
    """Seconds and bytes of some steps of training, on one of the workers."""
    layers = {
        "alone": normviz.BatchNorm1d(channels),
        "together": normviz.SyncBatchNorm(channels),
    }
    x, grad = torch.randn(8, channels, requires_grad=True), torch.randn(8, channels)
    seconds, sent = {name: [] for name in layers}, []
    for _ in range(rounds):
        for name, layer in layers.items():
            distributed.barrier()
            before, start = traffic(), perf_counter()
            torch.autograd.grad(layer(x), x, grad)
            seconds[name].append(perf_counter() - start)
            distributed.barrier()
            if name == "together":
                sent.append((traffic() - before) / size)
    return {"seconds": seconds, "sent": median(sent)}


def traffic() -> int:
    """The bytes that went over loopback so far; 0 where nobody counts them."""
    if not TRAFFIC.exists():
        return 0
    [line] = [line for line in TRAFFIC.read_text().splitlines() if line.strip().startswith("lo:")]
    return int(line.split(":")[1].split()[0])


def bytes_of(size: int, channels: int) -> float:
    """What each worker sends in a step: what it tells goes round, and sums go round twice."""
    gathered = (size - 1) * NUMBER * (1 + 2 * channels)
    return gathered + 2 * (size - 1) / size * NUMBER * 2 * channels


def seconds_of(size: int) -> float:
    """What the exchange of a step takes on paper: gathered in a ring, added up in a tree."""
    told = NUMBER * (LAYERS + 2 * ALL_CHANNELS)
    gather = LAYERS * (size - 1) * LATENCY + (size - 1) * told / BANDWIDTH
    return gather + LAYERS * 2 * log2(size) * LATENCY + 2 * told / BANDWIDTH


def measure(*, quick: bool = False) -> Section:
    """Bytes and time for two to eight workers here; a table for more of them on paper."""
    rows = []
    for channels in CHANNELS:
        for size in SIZES[: 2 if quick else None]:
            found = together(steps, size, channels, 10 if quick else 100)
            what = f"SyncBatchNorm({channels}), {size} workers, a step of training"
            own = bytes_of(size, channels)
            sent = Spread.of([worker["sent"] / own for worker in found])
            rows.append(Row(f"{what}: bytes sent", f"{own:,.0f} on paper", sent))
            first = found[0]["seconds"]
            times = [a / b for a, b in zip(first["together"], first["alone"], strict=True)]
            rows.append(Row(f"{what}: time", "BatchNorm of each worker alone", Spread.of(times)))
    return Section("Several workers", rows, f"{NOTES}\n{table_on_paper()}\n\n{CONCLUSION}")


def table_on_paper() -> str:
    """The exchange of ResNet-50, and the batch of which it takes a tenth of the time."""
    lines = []
    for size in ON_PAPER:
        seconds = seconds_of(size)
        lines.append(
            [
                f"{size:,}",
                f"{bytes_of(size, 512) / 1e3:,.0f}",
                three_digits(1e3 * seconds),
                f"{10 * seconds * IMAGES:,.0f}",
                f"{-(-32 // size)}",
            ]
        )
    head = [
        "workers in a group",
        "kB sent per worker, layer of 512 channels and step",
        "ms per step of ResNet-50",
        "images per worker of which that is a tenth of the time",
        "images per worker for a batch of 32",
    ]
    return in_markdown(head, lines)


NOTES = f"""\
In a step of training, each worker sends a count, C means and C sums of squares forward, to all
others, and two sums of C numbers backward: in float64, that is 8·(W − 1)·(1 + 2·C) and
2·(W − 1)/W·8·2·C bytes for W workers. Measured are the bytes that went over loopback, with what
TCP and the barriers around a step add to them; and the time of a step with a batch of (8, C) on
each worker, which share two cores here.

On paper: ResNet-50, with {LAYERS} layers and {ALL_CHANNELS:,} channels in all, on workers that
train with {IMAGES:,} images of 224 × 224 a second and have {1e6 * LATENCY:g} µs of latency and
{BANDWIDTH / 1e9:g} GB/s between them. What is gathered goes round in a ring, so its latency and its
bytes grow with W; sums go through a tree.
"""
CONCLUSION = """\
Wu and He 2018 ("Group Normalization", table 2) trained ResNet-50 with statistics of 32, 16, 8, 4
and 2 images: the error was 23.6, 23.7, 24.8, 27.3 and 34.7 %. So below 16 images per worker there
is something to gain, and above 32 nothing. A group of W workers needs 32/W images on each for that
(the last column). The exchange among all 4,096 workers would take longer than anything else; among
8 or 16 it costs milliseconds per step, which is little beside images that are larger, or a network
that is slower, than assumed here. So: it pays below 16 samples per worker, in groups
(`process_group`) of no more workers than make 32 samples together."""
