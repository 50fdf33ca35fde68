"""The pictures of the handouts: what they ask for is left for the reader to draw."""

from itertools import product

import numpy as np

from normviz import Reduction
from normviz.grid import CELL_HEIGHT, lay_out, places, repeats
from normviz.svg import COLOURS, svg_text
from normviz.words import WORDS, five_digits, short
from sheets.paper import BOTTOM, LEFT, TOP, circle, path, rect

TOKENS = np.array(
    [[[4, 1, 2, 1], [9, 2, 5, 8], [3, 0, 7, 2]], [[6, 8, 1, 5], [7, 4, 9, 4], [0, 3, 5, 4]]]
)
# Name → momentum, the batch at which the name stands, colour, dash.
CURVES = {"A": (0.1, 9, 0, "none"), "B": (0.01, 30, 5, "8 4"), "C": (0.5, 2, 2, "2 3")}
POPULATION = (0, 2, 4)
# Each on (N, C, H, W) = (2, 4, 2, 2), with an outlier at OUTLIER.
RELATIVES = (
    *("BatchNorm2d(4)", "InstanceNorm2d(4)", "GroupNorm(2, 4)", "LayerNorm([4, 2, 2])"),
    *("SwitchableNorm2d(4)", "LocalResponseNorm(3)"),
)
OUTLIER = (1, 1, 0, 0)
GRADIENT = {"x": (1, 1, 5, 5), "y": (-1, -1, 1, 1), "g": (0, 4, 0, 8)}  # of one channel
WORKERS = ((1, 1, 3, 3), (7, 9))  # what each of two holds
# What a black box was seen to do with MOVED in its batch: which outputs moved, and what came of 5
# more everywhere and of 3 times as much.
MOVED = (0, 1, 1, 0)
BOXES = {
    "a": ("n (g c) h w -> n g", "nothing moves", "nothing moves", "1"),
    "b": ("n c h w -> n h w", "everything moves", "nothing moves", "1"),
    "c": ("n c h w -> n h w", "everything moves", "everything moves", "other each time"),
    "d": ("n c h w -> c", "nothing moves", "nothing moves", "7/8"),
}
TICKS = {
    "statistics used": ("batch", "running"),
    "running statistics": ("move", "stay", "none"),
    "batch mates": ("matter", "do not matter"),
}


def draw_grid(x: np.ndarray, names: str, framed: int, left: float, top: float, size: float):
    """The numbers of a tensor, with the names of their places; one of them is framed."""
    axes, zoom = lay_out(x.shape, tuple(names), CELL_HEIGHT), size / CELL_HEIGHT
    left += 60
    cells = [(left + zoom * right, top + zoom * down) for right, down in places(axes)]
    for at in cells:
        yield rect("box", *at, size, size)
    yield rect("mark", *cells[framed], size, size)
    for at, number in zip(cells, x.ravel(), strict=True):
        if number == number:  # or the cell is left empty
            yield svg_text(at[0] + size / 2, at[1] + size / 2 + 5, short(number), "head", "middle")
    named = [axis for axis in axes if not axis.innermost or x.ndim < 4]
    for up, axis in enumerate(reversed([axis for axis in named if axis.across])):
        for start in repeats(axes, axis):
            for i, at in enumerate(axis.starts):
                x_at = left + zoom * (start + at + axis.pitch / 2)
                look = "body" if zoom * axis.pitch > 60 else ""
                yield svg_text(x_at, top - 7 - 15 * up, f"{WORDS[axis.name]} {i}", look, "middle")
    for axis in named:
        if not axis.across:
            for i, at in enumerate(axis.starts):
                y = top + zoom * (at + axis.pitch / 2) + 3
                yield svg_text(left - 8, y, f"{WORDS[axis.name]} {i}", "body", "end")


def draw_images() -> list[str]:
    """01: a batch of three small images."""
    x = np.arange(36).reshape(3, 3, 2, 2)
    return [*draw_grid(x, "nchw", 4, LEFT, TOP + 28, 54)]


def draw_tokens() -> list[str]:
    """02: two sentences, once for the means and once for the weights."""
    return [
        svg_text(LEFT, TOP + 10, "a. Which numbers share a mean with the framed 9?", "body bold"),
        *draw_grid(TOKENS, "ntc", 4, LEFT, TOP + 54, 46),
        svg_text(LEFT, TOP + 238, "b. Which ones meet the same weight?", "body bold"),
        *draw_grid(TOKENS, "ntc", 4, LEFT, TOP + 282, 46),
    ]


def draw_curves() -> list[str]:
    """03: the running mean under three values of momentum."""
    left, right, low, high = LEFT + 34, 506, 412, TOP + 36

    def at(k, value):
        return left + (right - left) * k / 50, low + (high - low) * value / 10

    parts = [svg_text(LEFT, TOP + 10, "running mean, when every batch has mean 10", "body bold")]
    for value in range(0, 11, 2):
        parts.append(path("fine", at(0, value), at(50, value)))
        parts.append(svg_text(left - 8, at(0, value)[1] + 4, f"{value}", "body", "end"))
    for k in range(0, 51, 10):
        parts.append(svg_text(at(k, 0)[0], low + 18, f"{k}", "body", "middle"))
    parts += [
        path("line", at(0, 0), at(50, 0)),
        svg_text((left + right) / 2, low + 36, "batches", "body", "middle"),
    ]
    for i, (name, (momentum, k, colour, dash)) in enumerate(CURVES.items()):
        values = [10 * (1 - (1 - momentum) ** j) for j in range(51)]
        curve = path("curve", *(at(j, value) for j, value in enumerate(values)))
        stroke = f'stroke="#{COLOURS[colour]}" stroke-dasharray="{dash}"'
        x, y = at(k, values[k])
        blank = left + 160 * i
        parts += [
            curve.replace(" ", f" {stroke} ", 1),
            svg_text(x + 9, y + 16, name, "head bold"),
            svg_text(blank, BOTTOM - 2, f"{name}: momentum", "body"),
            path("line", (blank + 84, BOTTOM), (blank + 130, BOTTOM)),
        ]
    return parts


def draw_samples() -> list[str]:
    """04: every sample of two numbers, and room for both of its variances."""
    left, wide, columns = LEFT + 66, 190, (342, 414, 486)
    parts = [
        svg_text(LEFT, TOP + 10, "sample", "body bold"),
        svg_text(left + wide / 2, TOP + 10, "μ = 2", "body", "middle"),
        path("dash", (left + wide / 2, TOP + 16), (left + wide / 2, TOP + 50 + 34 * 8)),
    ]
    heads = ("Σ(x − x̄)²", "÷ m", "÷ (m − 1)")
    parts += [
        svg_text(x, TOP + 10, h, "body bold", "middle") for x, h in zip(columns, heads, strict=True)
    ]
    for i, sample in enumerate([*product(POPULATION, repeat=2), None]):
        y = TOP + 38 + 34 * i + (14 if sample is None else 0)
        parts += [rect("box", x - 27, y - 11, 54, 22) for x in columns[1:]]
        if not sample:
            parts.append(svg_text(columns[0], y + 4, "average", "body bold", "middle"))
            continue
        own = sum(sample) / 2
        squares = sum((number - own) ** 2 for number in sample)
        ticks = POPULATION if sample == (4, 4) else ()
        parts += [
            svg_text(LEFT, y + 4, f"{sample[0]}, {sample[1]}", "body"),
            *draw_dots(left, y, wide, (0, 4), sample, ticks),
            path("thick", (left + wide * own / 4, y - 9), (left + wide * own / 4, y + 9)),
            svg_text(columns[0], y + 4, short(squares), "body", "middle"),
        ]
    key = TOP + 400
    return [
        *parts,
        circle("dot", LEFT + 5, key - 3, 4.5),
        svg_text(LEFT + 16, key, "a draw (with a ring: twice the same)"),
        path("thick", (LEFT + 205, key - 9), (LEFT + 205, key + 3)),
        svg_text(LEFT + 214, key, "x̄, the sample’s own mean"),
        path("dash", (LEFT + 350, key - 9), (LEFT + 350, key + 4)),
        svg_text(LEFT + 359, key, "μ, the population’s mean"),
    ]


def draw_dots(left, y, wide, ends, numbers, ticks=()) -> list[str]:
    """Numbers on a line; a ring around one that is there twice."""
    low, high = ends

    def at(number):
        return left + wide * (number - low) / (high - low)

    parts = [path("line", (left, y), (left + wide, y))]
    for tick in ticks:
        parts.append(path("line", (at(tick), y), (at(tick), y + 5)))
        parts.append(svg_text(at(tick), y + 19, short(tick), "body", "middle"))
    for number in dict.fromkeys(numbers):
        parts.append(circle("dot", at(number), y, 4.5))
        if [*numbers].count(number) > 1:
            parts.append(circle("ring", at(number), y, 8))
    return parts


def draw_modes() -> list[str]:
    """05: both switches of BatchNorm, and boxes to tick."""
    parts = []
    for i, (mode, track) in enumerate(product(("training", "eval"), (True, False))):
        left, top = LEFT + 254 * (i % 2), TOP + 214 * (i // 2)
        buffers = "running mean, var" if track else "no buffers"
        parts += [
            rect("box", left, top, 240, 204),
            svg_text(left + 12, top + 21, mode, "head bold"),
            svg_text(left + 228, top + 21, f"track_running_stats={track}", "body", "end"),
            *(rect("box", left + 14, top + 38 + 20 * j, 28, 20) for j in range(3)),
            *(
                svg_text(left + 28, top + 52 + 20 * j, number, "body", "middle")
                for j, number in enumerate("159")
            ),
            svg_text(left + 28, top + 110, "batch", "", "middle"),
            svg_text(left + 61, top + 72, "→", "head", "middle"),
            rect("box", left + 80, top + 52, 96, 30),
            svg_text(left + 128, top + 71, "BatchNorm", "body", "middle"),
            svg_text(left + 195, top + 72, "→", "head", "middle"),
            svg_text(left + 220, top + 72, "?", "head", "middle"),
            rect("box" if track else "gone", left + 80, top + 90, 96, 24),
            svg_text(left + 128, top + 105, buffers, "", "middle"),
        ]
        for j, (what, choices) in enumerate(TICKS.items()):
            y = top + 144 + 22 * j
            parts.append(svg_text(left + 12, y, what))
            for x, choice in zip((98, 148, 192), choices, strict=False):
                parts.append(rect("box", left + x, y - 8, 9, 9))
                parts.append(svg_text(left + x + 13, y, choice))
    return parts


def draw_scaled() -> list[str]:
    """06: one input, ten times the input, minus the input, and room for what norm makes of them."""
    x = np.array([1, 2, 6])
    normalized = (x - x.mean()) / x.std()
    parts = []
    for i, (name, factor) in enumerate({"x": 1, "10·x": 10, "−x": -1}.items()):
        y, ends = TOP + 46 + 152 * i, (0, 7 * factor) if factor > 0 else (-7, 0)
        numbers, ticks = factor * x, sorted(range(0, 7 * factor, 2 * factor))
        results = ", ".join(five_digits(round(v, 2)) for v in normalized) if i == 0 else None
        parts += [
            svg_text(LEFT, y - 36, f"{name} = ({', '.join(map(short, numbers))})", "body bold"),
            *draw_dots(LEFT, y, 180, ends, numbers, ticks),
            svg_text(LEFT + 217, y - 11, "norm", "head bold", "middle"),
            svg_text(LEFT + 217, y + 7, "→", "head", "middle"),
            svg_text(
                LEFT + 254,
                y - 36,
                f"norm({name}) = ({results})" if results else f"norm({name}) = ?",
                "body bold",
            ),
            *draw_dots(LEFT + 254, y, 220, (-2, 2), () if i else normalized, (-2, -1, 0, 1, 2)),
        ]
    return parts


def draw_relatives() -> list[str]:
    """07: the same outlier in six layers, and cells to shade."""
    x = np.full((2, 4, 2, 2), np.nan)
    x[OUTLIER], parts = 99, []
    for i, name in enumerate(RELATIVES):
        left, top = LEFT + 254 * (i % 2), TOP + 144 * (i // 2)
        framed = int(np.ravel_multi_index(OUTLIER, x.shape))
        parts += [
            svg_text(left, top + 10, name, "body bold"),
            *draw_grid(x, "nchw", framed, left, top + 34, 20),
        ]
    return parts


def draw_gradient() -> list[str]:
    """08: one channel with its upstream gradient, room for the three terms, and bars to draw."""
    columns, unit, zero = (236, 320, 404, 488), 13, TOP + 364
    rows = {
        **{"x, one channel": GRADIENT["x"], "y = (x − 3) / 2": GRADIENT["y"]},
        **{"g, the upstream gradient": GRADIENT["g"], "− mean(g)": None},
        **{"− y · mean(g · y)": None, "sum: g and these two": None, "dx, that sum over σ": None},
    }
    parts = []
    for i, (name, numbers) in enumerate(rows.items()):
        y = TOP + 10 + 24 * i + (46 if numbers is None else 0)
        parts.append(svg_text(LEFT, y, name, "body bold"))
        for x, number in zip(columns, numbers or (None,) * 4, strict=True):
            if number is None:
                parts.append(rect("box", x - 27, y - 14, 54, 20))
            else:
                parts.append(svg_text(x, y, short(number), "head", "middle"))
    for x, name, wide in ((LEFT, "mean(g) =", 64), (236 - 27, "mean(g · y) =", 88)):
        parts.append(svg_text(x, TOP + 92, name, "body"))
        parts.append(rect("box", x + wide, TOP + 78, 54, 20))
    lines = (
        "The bars of g are",
        "drawn. Draw the other",
        "two terms, each from",
        "where the last ends;",
        "then the sum, from 0.",
    )
    for i, line in enumerate(lines):
        parts.append(svg_text(LEFT, zero - 8 * unit + 4 + 16 * i, line, "body"))
    for value in range(-4, 9, 2):
        y = zero - unit * value
        parts.append(path("fine" if value else "line", (columns[0] - 40, y), (532, y)))
        parts.append(svg_text(columns[0] - 48, y + 4, short(value), "body", "end"))
    for x, g in zip(columns, GRADIENT["g"], strict=True):
        parts.append(rect("mark", x - 36, zero - unit * g, 18, unit * g))
    return parts


def draw_workers() -> list[str]:
    """09: the parts of two workers, and room for what they and both together normalize with."""
    columns = (342, 414, 486)
    parts = [
        svg_text(x, TOP + 10, head, "body bold", "middle")
        for x, head in zip(columns, ("how many", "mean", "variance"), strict=True)
    ]
    rows = {f"worker {rank}": numbers for rank, numbers in enumerate(WORKERS)}
    rows["both together"] = sum(WORKERS, ())
    for i, (name, numbers) in enumerate(rows.items()):
        y, ticks = TOP + 58 + 98 * i, range(0, 11, 2)
        parts += [
            svg_text(LEFT, y - 24, f"{name}: {', '.join(map(short, numbers))}", "body bold"),
            *draw_dots(LEFT, y, 224, (0, 10), numbers, ticks),
            *(rect("box", x - 27, y - 11, 54, 22) for x in columns),
        ]
    y = TOP + 58 + 98 * 3
    sums = "within the parts", "between their means", "variance of both"
    for x, name in zip((LEFT, 196, 356), sums, strict=True):
        parts += [svg_text(x, y - 24, name, "body bold"), rect("box", x, y - 15, 54, 22)]
    parts += [svg_text(x, y + 1, sign, "head", "middle") for x, sign in ((143, "+"), (303, "="))]
    y += 66
    names = "the 3 comes out: alone", "with sync"
    for x, wide, name in zip((LEFT, 270), (158, 76), names, strict=True):
        parts.append(svg_text(x, y, name, "body bold"))
        parts.append(rect("box", x + wide, y - 15, 54, 22))
    return parts


def draw_boxes() -> list[str]:
    """10: what moved with one number in four black boxes, and room for what is in them."""
    shape, parts = (2, 4, 2, 2), []
    for i, (name, (pattern, *seen)) in enumerate(BOXES.items()):
        sizes = {"g": 2} if "g" in pattern else {}
        labels = Reduction(pattern, **sizes).labels(shape)
        left, top = LEFT + 254 * (i % 2), TOP + 212 * (i // 2)
        framed = int(np.ravel_multi_index(MOVED, shape))
        moved = np.where(labels == labels[MOVED], 1, np.nan)
        parts += [
            svg_text(left, top + 10, f"Box {name}", "body bold"),
            *draw_grid(moved, "nchw", framed, left, top + 34, 20),
        ]
        done = "add 5 to all", "all times 3", "mean square"
        for row, (what, came) in enumerate(zip(done, seen, strict=True)):
            parts.append(svg_text(left, top + 138 + 15 * row, f"{what}: {came}", "body"))
        parts += [
            svg_text(left, top + 188, "It is", "body bold"),
            rect("box", left + 34, top + 173, 194, 22),
        ]
    return parts
