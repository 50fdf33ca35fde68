"""What a picture of a tensor costs: `draw_slices` against treescope, rainbow-tensor, matplotlib."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from itertools import combinations
from statistics import median
from time import perf_counter

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.compare import Row, Section, Spread, ratio, take_turns
from benchmarks.report import in_markdown, three_digits
from normviz import draw_slices

SIZES = ((3, 3, 2, 2), (4, 3, 8, 8), (8, 16, 16, 16), (16, 32, 28, 28), (64, 256, 56, 56))
LESSON_SIZES = SIZES[:2]
PER_CHANNEL, POOLED = "n c h w -> c", (0, 2, 3)
OURS, TWO_PASS = "draw_slices", "two-pass statistics"
MOST_ROWS, MOST_COLUMNS = 16, 25  # of matplotlib's table: as many cells as draw_slices draws


def draw_with_normviz(x: np.ndarray | torch.Tensor, pattern: str = PER_CHANNEL) -> str:
    """Numbers in the colour of their slice, and the mean and variance of each drawn slice."""
    return draw_slices(x, pattern)._repr_html_()


def draw_with_treescope(x: np.ndarray) -> str:
    """A colour for each number, by head and tail as ours."""
    import treescope

    return treescope.render_array(x, truncate=True)._repr_html_()


def draw_with_rainbow(x: np.ndarray) -> str:
    """Numbers by head and tail, and beside them the drawn means, over any number of terms."""
    import rainbow_tensor

    return rainbow_tensor.mean(x, axis=POOLED, max_terms=None, max_total_terms=None).svg


def draw_with_matplotlib(x: np.ndarray) -> bytes:
    """A table of coloured cells with a number in each, and the means as NumPy gives them above."""
    cells = x.reshape(-1, x.shape[-1])[:MOST_ROWS, :MOST_COLUMNS]
    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    axes.imshow(cells, aspect="auto")
    for (row, column), number in np.ndenumerate(cells):
        axes.text(column, row, f"{number:.4g}", ha="center", va="center", fontsize=7)
    axes.set_title(title_for_matplotlib(x), fontsize=7)
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def title_for_matplotlib(x: np.ndarray) -> str:
    """The means of the first channel and of the last one."""
    means = x.mean(axis=POOLED)
    return f"means: {means[0]:.7g} … {means[-1]:.7g}"  # the digits that float32 has


PEERS = {
    "treescope": draw_with_treescope,
    "rainbow_tensor": draw_with_rainbow,
    "matplotlib": draw_with_matplotlib,
}


def two_pass(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The statistics alone, per channel: in float32 on all threads, the fastest usual way."""
    mean = x.mean(POOLED, keepdim=True)
    return mean, (x - mean).square().mean(POOLED)


def sample(shape: tuple[int, ...]) -> np.ndarray:
    """Numbers whose mean is far from zero, which float32 sums get wrong, and which fill cells."""
    return np.random.default_rng(0).normal(1e4, 1, shape).astype(np.float32)


@dataclass
class Drawing:
    """What one way gave at one size: its seconds round by round, and what came out."""

    seconds: list[float]
    page: str | bytes


def measure(*, quick: bool = False) -> Section:
    """Time and bytes against peers; time and bytes at the largest size for every reduction."""
    sizes = SIZES[:3] if quick else SIZES
    peers = {name: draw for name, draw in PEERS.items() if find_spec(name)}
    drawings = {size: draw_all(sample(size), {OURS: draw_with_normviz, **peers}) for size in sizes}
    rows = [
        Row(
            f"{OURS}, {size}",
            f"`{peer}`",
            ratio(drawings[size][OURS].seconds, drawings[size][peer].seconds),
            aim=1.0 if size in LESSON_SIZES else None,
        )
        for size in sizes
        for peer in peers
    ]
    large = sample(sizes[-1])
    rows += [*rows_of_statistics(large, rounds=3 if quick else 7), row_of_bytes(large)]
    return Section("Pictures", rows, notes(drawings))


def draw_all(x: np.ndarray, ways: dict[str, Callable]) -> dict[str, Drawing]:
    """What each way gives, in few rounds where they take long."""
    start = perf_counter()
    pages = {name: draw(x) for name, draw in ways.items()}
    rounds = 3 if perf_counter() - start > 2 else 15
    seconds = take_turns({name: partial(draw, x) for name, draw in ways.items()}, rounds, warm_up=1)
    return {name: Drawing(seconds[name], pages[name]) for name in ways}


def rows_of_statistics(x: np.ndarray, rounds: int) -> list[Row]:
    """The time of a picture as a multiple of that of the statistics alone."""
    tensor = torch.from_numpy(x)
    patterns = [f"n c h w -> {kept}" for kept in ("", "n", "c", "n c", "n h w", "n c h w")]
    ways = {f'"{pattern}"': partial(draw_with_normviz, x, pattern) for pattern in patterns}
    ways[f'"{PER_CHANNEL}", a tensor'] = partial(draw_with_normviz, tensor)
    seconds = take_turns({TWO_PASS: partial(two_pass, tensor), **ways}, rounds)
    return [
        Row(f"{OURS}, {x.shape}, {way}", TWO_PASS, ratio(seconds[way], seconds[TWO_PASS]), aim=1.5)
        for way in ways
    ]


def every_pattern() -> list[str]:
    """The 16 reductions of four axes."""
    choices = (kept for count in range(5) for kept in combinations("nchw", count))
    return [f"n c h w -> {' '.join(kept)}" for kept in choices]


def row_of_bytes(x: np.ndarray) -> Row:
    """The most bytes that any reduction takes, with numbers of one digit: most cells fit then."""
    ones = np.broadcast_to(np.float32(1), x.shape)
    most = max(len(draw_with_normviz(ones, pattern).encode()) for pattern in every_pattern())
    return Row(
        f"{OURS}, {x.shape}, the largest of all reductions",
        "–",
        Spread(most, most, most),
        aim=300_000,
        unit="bytes",
    )


def bytes_of(page: str | bytes) -> int:
    """The length of a page as it is sent."""
    return len(page.encode() if isinstance(page, str) else page)


def shown_mean(name: str, page: str | bytes, x: np.ndarray) -> str | None:
    """The mean of the last channel as a picture shows it, if it does."""
    last = x.shape[1] - 1
    if name == "matplotlib":  # from the picture's title, not from its pixels
        return title_for_matplotlib(x).split()[-1]
    patterns = {
        OURS: rf'"channel {last}, [^"]*mean ([^",]+),',
        "rainbow_tensor": rf'"\[{last}\]  value (\S+) ',
    }
    found = name in patterns and re.search(patterns[name], page)
    return found[1] if found else None


def is_right(shown: str, exact: float) -> bool:
    """Whether a number is right to the last digit that is shown of it.

    >>> is_right("0.67", 2 / 3), is_right("0.66", 2 / 3)
    (True, False)
    """
    decimals = len(shown.partition(".")[2])
    return abs(float(shown) - exact) <= 0.5001 * 10**-decimals


def notes(drawings: dict[tuple[int, ...], dict[str, Drawing]]) -> str:
    """Time and bytes, the mean that each picture shows, and what was compared."""
    lines, unit = [], median(drawings[SIZES[0]][OURS].seconds)
    for size, ways in drawings.items():
        x = sample(size)
        exact = float(x[:, -1].mean(dtype=np.float64))
        for name, drawing in ways.items():
            time = three_digits(median(drawing.seconds) / unit)
            shown = shown_mean(name, drawing.page, x)
            mean = f"{shown}, {'right' if is_right(shown, exact) else 'wrong'}" if shown else "none"
            lines.append(
                [f"{size}", name, time, f"{bytes_of(drawing.page):,}", mean, f"{exact:.8g}"]
            )
    head = ["numbers", "picture", "time", "bytes", "mean of the last channel", "right mean"]
    return f"{in_markdown(head, lines, words=2)}\n\n{NOTES}"


NOTES = """\
Times are multiples of ours for (3, 3, 2, 2). The numbers are float32 around 10,000; the right mean
is NumPy's in float64. A mean is right if it is so to the last digit shown; ours has five digits.
matplotlib shows what `x.mean(axis=(0, 2, 3))` gives, and its bytes are those of a PNG. treescope
shows a colour for each number, read out under the pointer, and no statistic, so it need not read
all of x. rainbow-tensor shows means and no variance, and above 10,000 terms question marks, unless
it is told to go on, as here. All draw a large tensor by its head and tail; matplotlib, which has no
such thing, gets no more than 400 numbers. The two-pass statistics are torch's, per channel, in
float32 on all threads, without a picture; ours are float64 on one thread, of the drawn slices.
"""
