"""The axis cheat sheet: which numbers share a mean, in four layers on two to five axes."""

from dataclasses import dataclass
from math import prod

from torch import nn

from addresses import SOURCE
from normviz.cubes import Block, cubes_by_label
from normviz.plans import Plan, plan_of
from normviz.reduction import Reduction
from normviz.svg import svg_text
from sheets.paper import WIDTH, page, path, write

TITLE = "Which numbers share a mean?"
LEFT, TOP, COLUMN, ROW = 28, 51, 197, 110  # where the layers start, and how far apart cells are

SIZES = {"n": 3, "c": 4, "l": 5, "t": 5, "d": 2, "h": 2, "w": 2, "g": 2}
C, D, H, W, G = (SIZES[name] for name in "cdhwg")


@dataclass(frozen=True)
class Cell:
    """One layer of torch.nn on an input with so many axes."""

    call: str
    layer: nn.Module
    ndim: int

    @property
    def plan(self) -> Plan:
        """What the layer pools and shares."""
        return plan_of(self.layer, self.ndim)

    @property
    def reduction(self) -> Reduction:
        """Which numbers share a statistic."""
        return self.plan.reduction

    @property
    def names(self) -> list[str]:
        """The input's axes."""
        return [axis[-1] for axis in self.reduction.axes]

    @property
    def shape(self) -> tuple[int, ...]:
        """The drawn input's."""
        return tuple(SIZES[name] for name in self.names)

    def facts(self) -> dict[str, str]:
        """What stands beside the picture, for the drawn shape."""
        r, weights = self.reduction, [n for n in self.plan.sharing.kept if n != "g"]
        group = {"c": "C/G"} if "g" in r.kept else {}
        pooled = [group.get(name, name.upper()) for name in r.pooled]
        return {
            f"{self.ndim}-D input": f"({', '.join(self.names).upper()})",
            "pools": ", ".join(pooled),
            "statistics": count(r.kept, prod(r.stat_shape(self.shape))),
            "m": count(pooled, r.count(self.shape)),
            "weights": "0 by default"
            if self.layer.weight is None
            else count(weights, self.layer.weight.numel()),
        }


def count(names, number: int) -> str:
    """``"N·H·W = 12"``."""
    return f"{'·'.join(names).upper()} = {number}"


LAYERS = {
    "BatchNorm": (
        "the batch’s own μ and biased σ² normalize. running_mean and running_var move; σ² is "
        "stored unbiased, ÷ (m − 1).",
        "running_mean and running_var normalize, and nothing moves. Made with "
        "track_running_stats=False, it has none: as in train.",
        [
            Cell("BatchNorm1d(C)", nn.BatchNorm1d(C), 2),
            Cell("BatchNorm1d(C)", nn.BatchNorm1d(C), 3),
            Cell("BatchNorm2d(C)", nn.BatchNorm2d(C), 4),
            Cell("BatchNorm3d(C)", nn.BatchNorm3d(C), 5),
        ],
    ),
    "LayerNorm": (
        "each slice’s own μ and biased σ² normalize. Nothing is stored.",
        "the same as train.",
        [
            Cell("LayerNorm(C)", nn.LayerNorm(C), 2),
            Cell("LayerNorm(C)", nn.LayerNorm(C), 3),
            Cell("LayerNorm([C, H, W])", nn.LayerNorm([C, H, W]), 4),
            Cell("LayerNorm([C, D, H, W])", nn.LayerNorm([C, D, H, W]), 5),
        ],
    ),
    "InstanceNorm": (
        "each slice’s own μ and biased σ² normalize. Nothing is stored, unless "
        "track_running_stats=True (then per channel, σ² unbiased).",
        "the same as train, unless track_running_stats=True: then the running statistics "
        "normalize.",
        [
            Cell("InstanceNorm1d(C)", nn.InstanceNorm1d(C), 2),
            Cell("InstanceNorm1d(C)", nn.InstanceNorm1d(C), 3),
            Cell("InstanceNorm2d(C)", nn.InstanceNorm2d(C), 4),
            Cell("InstanceNorm3d(C)", nn.InstanceNorm3d(C), 5),
        ],
    ),
    "GroupNorm": (
        "each slice’s own μ and biased σ² normalize. Nothing is stored. (C/G: the channels of one "
        "group.)",
        "the same as train.",
        [
            Cell("GroupNorm(G, C)", nn.GroupNorm(G, C), 2),
            Cell("GroupNorm(G, C)", nn.GroupNorm(G, C), 3),
            Cell("GroupNorm(G, C)", nn.GroupNorm(G, C), 4),
            Cell("GroupNorm(G, C)", nn.GroupNorm(G, C), 5),
        ],
    ),
}
TRAPS = {
    "BatchNorm1d takes (N, C) and (N, C, L)": "Axis 1 is always the channels. Tokens (N, T, C) "
    "have to be transposed; if T = C, nothing complains.",
    "LayerNorm pools exactly normalized_shape": "These are the sizes of the last axes. So on "
    "(N, T, C), LayerNorm(C) pools each token by itself.",
    "InstanceNorm1d takes 2-D as one (C, L)": "It is unbatched, no table (N, C). So each row of a "
    "table gets a mean of its own, as in LayerNorm.",
    "InstanceNorm: no weight, nothing stored": "That is its default. affine=True gives C weights, "
    "track_running_stats=True running statistics.",
    "GroupNorm(1, C) is not LayerNorm(C)": "It pools as LayerNorm([C, H, W]), but has C weights, "
    "not C·H·W. GroupNorm(C, C) pools as InstanceNorm.",
    "When do train and eval differ?": "Only in BatchNorm, and in InstanceNorm with "
    "track_running_stats=True. no_grad() is no such switch.",
}


def draw_axes() -> str:
    """The sheet."""
    right = WIDTH - LEFT
    drawn = ", ".join(f"{name.upper()} = {size}" for name, size in SIZES.items())
    parts = [
        svg_text(LEFT, 39, TITLE, "title"),
        svg_text(
            LEFT + 2 * COLUMN,
            30,
            "The m numbers of the outlined slice share one statistic: a μ with its σ².",
        ),
        svg_text(LEFT + 2 * COLUMN, 41, f"Drawn: {drawn}. Each weight comes with a bias."),
    ]
    for row, (layer, (train, evaluate, cells)) in enumerate(LAYERS.items()):
        top = TOP + ROW * row
        parts += [
            path("fine", (LEFT, top), (right, top)),
            svg_text(LEFT, top + 18, layer, "head bold"),
            svg_text(LEFT + COLUMN, top + 12, "train", "bold"),
            svg_text(LEFT + COLUMN + 26, top + 12, train),
            svg_text(LEFT + COLUMN, top + 23, "eval", "bold"),
            svg_text(LEFT + COLUMN + 26, top + 23, evaluate),
        ]
        for column, cell in enumerate(cells):
            drawing = draw_cell(cell, row, LEFT + COLUMN * column, top + 30)
            parts.append(f'<g data-cell="{layer} {column + 2}-D">{drawing}</g>')
    parts.append(path("fine", (LEFT, TOP + ROW * 4), (right, TOP + ROW * 4)))
    for i, (head, words) in enumerate(TRAPS.items()):
        x, y = LEFT + 264 * (i % 3), 505 + 37 * (i // 3)
        parts += [svg_text(x, y, head, "bold"), *write(x, y + 11, words, 57)]
    return page(TITLE, [*parts, svg_text(right, 578, f"normviz · {SOURCE}", "grey", "end")])


def draw_cell(cell: Cell, mark: int, left: float, top: float) -> str:
    """The facts, and a block with one slice lit."""
    parts = [svg_text(left, top + 8, cell.call, "bold")]
    for i, (what, fact) in enumerate(cell.facts().items()):
        y = top + 20 + 11 * i
        parts += [svg_text(left, y, what, "grey"), svg_text(left + 43, y, fact)]
    steps = (*cell.shape[:2], prod(cell.shape[2:]))
    block, lit = Block(steps), int(bool({"c", "t"} & {*cell.reduction.kept}))
    scale = {2: 0.44, 3: 0.44, 4: 0.42, 5: 0.36}[len(cell.shape)]
    cubes = cubes_by_label(cell.reduction, cell.shape, steps)
    drawn = {label: block.draw(where, mark, 0, 0) for label, where in cubes.items()}
    pale = "".join(drawing for label, drawing in drawn.items() if label != lit)
    names = "".join(block.draw_names(cell.names, 0, 0, 8 / scale))
    return "".join(parts) + (
        f'<g transform="translate({left + 115} {top}) scale({scale})" font-size="{8 / scale:.2f}">'
        f'<g class="solid pale">{pale}</g><g class="solid lit">{drawn[lit]}</g>{names}</g>'
    )
