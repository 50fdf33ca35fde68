"""The classic figure: one block of numbers per normalization, with axes N, C and H·W."""

from collections import defaultdict
from collections.abc import Mapping
from math import prod

import numpy as np

from normviz.layout import as_shape
from normviz.picture import Picture
from normviz.plans import plan_of
from normviz.reduction import Reduction, as_reduction
from normviz.svg import clean, style_of, svg_dash, svg_page, svg_part, svg_slice, svg_text, tint
from normviz.words import count_slices, name_slice, number_of

# One step along the second axis (right), the last ones (down) and the first (back), in pixels.
RIGHT, DOWN, BACK = np.array([20, 0]), np.array([0, 20]), np.array([11, -9])
LIGHT = {"front": 0.6, "top": 0.2, "side": 0.95}  # how strong the colour of a face is
MAX_STEPS = 6  # along each axis; a block is a sketch, not an inventory
BLOCKS_PER_ROW, BLOCK_WIDTH, BLOCK_MARGIN = 4, 205, 28
CARDS_PER_ROW, CARD = 12, 13
# On a page, blocks stand side by side where there is room: on a phone, two, with larger letters.
BLOCKS = "div.nv:has(.nv-part+.nv-part)"
STYLE = f"""<style>
{BLOCKS}{{display:flex;flex-wrap:wrap;gap:12px}}
{BLOCKS} .nv-part{{flex:1 1 max(140px,21%);max-width:240px;display:flex;flex-direction:column}}
{BLOCKS}.nv svg{{max-width:100%;height:auto;margin-top:auto}}
@media (max-width:480px){{{BLOCKS} text{{font-size:16px}}}}
</style>"""


def draw_cubes(shape: tuple[int, ...], reductions: Mapping) -> Picture:
    """Blocks side by side, one per reduction: the numbers of one colour share a statistic.

    The first axis runs back, the second to the right, all others together run down. Below a block
    there is a card for each statistic, so that those inside the block can be pointed at too.

    Args:
        shape: sizes of at least two axes, such as (N, C, H, W). Of a long axis only the first six
            positions are drawn.
        reductions: name → what shares a mean: a layer, as in ``{"BatchNorm": nn.BatchNorm2d(6)}``,
            which is asked for its plan; a Reduction; or a pattern without sizes.

    Raises:
        ValueError: if there are no reductions, if one does not fit the shape, or if the shape has
            fewer than two axes or no numbers.

    >>> print(draw_cubes((4, 6, 2, 3), {"BatchNorm": "n c h w -> c", "LayerNorm": "n c h w -> n"}))
    Which numbers of a (4, 6, 2, 3) tensor share a mean
    BatchNorm: over n, h, w, one per c. 6 slices of 24 numbers.
    LayerNorm: over c, h, w, one per n. 4 slices of 36 numbers.
    """
    shape = as_shape(shape)
    kinds, named = _named_reductions(reductions, shape)
    if len(shape) < 2 or not prod(shape):
        raise ValueError(f"shape must have two axes or more, and hold numbers: got {shape}.")

    sizes = (*shape[:2], prod(shape[2:]))
    block = Block([min(size, MAX_STEPS) for size in sizes])
    cubes = {name: cubes_by_label(r, shape, block.steps) for name, r in named.items()}
    card_rows = max(-(-len(by_label) // CARDS_PER_ROW) for by_label in cubes.values())
    names_width = max(max(7 * len(str(r)), 9 * len(name)) for name, r in named.items())
    width = max(BLOCK_WIDTH, block.width + BLOCK_MARGIN, names_width + 16)
    height = 96 + block.height + CARD * card_rows
    [shared, *others] = {*kinds.values()}
    shared = "statistic" if others else shared
    title = f"Which numbers of a {shape} tensor share a {shared}"
    head, parts, lines = [STYLE, svg_text(16, 20, title, "nv-title")], [], [title]
    if any(size > MAX_STEPS for size in sizes):
        drawn = f"Drawn: the first {MAX_STEPS} steps in each longer direction."
        head.append(svg_text(16, 40, drawn))
    for i, (name, reduction) in enumerate(named.items()):
        row, column = divmod(i, BLOCKS_PER_ROW)
        left, top = 16 + width * column, 18 * len(head) + 16 + height * row
        lines.append(f"{name}: {reduction}. {count_slices(reduction, shape)}.")
        words = svg_text(left, top, name, "nv-title") + svg_text(left, top + 16, str(reduction))
        drawings = block.draw_names(reduction.name_axes(shape), left, top + 34, turn=True)
        pooled = number_of(reduction.count(shape), "number")
        for nth, (label, where) in enumerate(cubes[name].items()):
            mark = style_of(reduction, label, shape)
            row, column = divmod(nth, CARDS_PER_ROW)
            card = _draw_card(mark, left + CARD * column, top + 58 + block.height + CARD * row)
            spoken = (
                f"{name}, {name_slice(reduction, label, shape)}: one {kinds[name]} over {pooled}"
            )
            drawing = block.draw(where, mark, left, top + 34)
            drawings.append(svg_slice(label, spoken, [drawing, card], lit=False))
        bottom = top + height - 36
        right = left + max(CARD * CARDS_PER_ROW, block.width + BLOCK_MARGIN)
        parts.append(svg_part(left - 1, top + 24, right, bottom, drawings, words))
    if len(head) > 2:
        lines.append(drawn)
    full_width = max(32 + width * min(BLOCKS_PER_ROW, len(named)), 32 + 10 * len(title))
    spoken = f"{title}. {' '.join(lines[1:])}"
    return Picture(
        svg=svg_page(full_width, bottom + 16, spoken, head, parts, lit=False),
        text="\n".join(lines),
    )


def _named_reductions(reductions, shape) -> tuple[dict[str, str], dict[str, Reduction]]:
    """Under each name, the kind of statistic, and which numbers share one."""
    if not isinstance(reductions, Mapping) or not reductions:
        raise ValueError(
            "reductions must map names to reductions or layers, as in "
            f'{{"BatchNorm": Reduction("n c h w -> c")}}: got {reductions!r}.'
        )
    kinds, named = {}, {}
    for name, given in reductions.items():
        try:
            kind, reduction = _kind_and_reduction(given, len(shape))
            reduction.stat_shape(shape)
        except ValueError as error:
            raise ValueError(f"reductions[{name!r}]: {error}") from None
        kinds[str(name)], named[str(name)] = kind, reduction
    return kinds, named


def _kind_and_reduction(given, ndim: int) -> tuple[str, Reduction]:
    if not hasattr(given, "forward"):
        return "mean", as_reduction("it", given)
    plan = plan_of(given, ndim)
    if plan.normalizes != "input":
        raise ValueError(
            f"it must pool the input: got {type(given).__name__}, which normalizes its "
            f"{plan.normalizes}."
        )
    return "mixed " * bool(plan.mixed) + plan.symbols[0][1], plan.reduction


def cubes_by_label(reduction, shape, steps) -> dict[int, list[tuple[int, int, int]]]:
    """The drawn positions (back, right, down) that each statistic pools."""
    corner = reduction.labels(shape, at=[range(min(size, MAX_STEPS)) for size in shape])
    block = corner.reshape(*corner.shape[:2], -1)[..., : steps[2]]
    cubes = defaultdict(list)
    for where, label in np.ndenumerate(block):
        cubes[int(label)].append(where)
    return dict(sorted(cubes.items()))


def _draw_card(mark: int, x: float, y: float) -> str:
    size = CARD - 2
    rect = (
        f'<rect class="nv-cell" x="{x:.0f}" y="{y:.0f}" width="{size}" height="{size}" '
        f'fill="{tint(mark, 0.6)}"/>'
    )
    return rect + svg_dash(mark, f"M{x + 1:.0f} {y + size - 2:.0f}h{size - 2}")


class Block:
    """A block of unit cubes, seen from the front, from above and from the right."""

    def __init__(self, steps):
        self.steps = steps
        self.back, self.right, self.down = steps
        self.origin = np.array([0, -BACK[1] * self.back])  # of the front face, top left
        self.width = RIGHT[0] * self.right + BACK[0] * self.back
        self.height = DOWN[1] * self.down + self.origin[1]

    def draw(self, where, mark: int, left: float, top: float) -> str:
        """The surface of these cubes: what is seen of it always, the rest when it is lit."""
        at, own = np.add(self.origin, (left, top)), set(where)
        seen, hidden, dashes = defaultdict(str), defaultdict(str), ""
        for back, right, down in sorted(own, reverse=True):  # the front ones last
            corner = at + BACK * back + RIGHT * right + DOWN * down
            # Each face: the cube that would hide it, whether it is on the outside, its corners.
            faces = {
                "front": ((back - 1, right, down), back == 0, corner, RIGHT, DOWN),
                "top": ((back, right, down - 1), down == 0, corner, RIGHT, BACK),
                "side": (
                    (back, right + 1, down),
                    right == self.right - 1,
                    corner + RIGHT,
                    BACK,
                    DOWN,
                ),
            }
            for face, (neighbour, is_outside, start, along, across) in faces.items():
                if neighbour not in own:
                    path = "M{} {}l{} {}l{} {}l{} {}z".format(*start, *along, *across, *-along)
                    (seen if is_outside else hidden)[face] += path
            if back == 0:
                x, y = corner + DOWN
                dashes += f"M{x + 3} {y - 4}h{RIGHT[0] - 6}"
        surface = "".join(
            f'<path class="nv-cell{look}" fill="{tint(mark, LIGHT[face])}" d="{path}"/>'
            for look, faces in ((" nv-lit", hidden), ("", seen))
            for face, path in faces.items()
        )
        return surface + (svg_dash(mark, dashes) if dashes else "")

    def draw_names(self, names, left: float, top: float, letter=12, *, turn=False) -> list[str]:
        """The axes' names, of that font size, along the edges that they run on.

        Args:
            names: of all axes.
            left: where the block begins.
            top: likewise.
            letter: the font size.
            turn: whether a long name stands on its edge, where it takes less room.
        """
        first, second, *others = (name.upper() for name in names)
        x, y = np.add(self.origin, (left, top))
        high = DOWN[1] * self.down
        drawn = [
            svg_text(x + 8, y + high + letter + 2, f"{second} →"),
            svg_text(x + RIGHT[0] * self.right + letter - 2, y + high + letter / 3, f"{first} ↗"),
        ]
        x, name = x + self.width + 6, "·".join(others)
        if turn and len(name) > 1:
            place = f'text-anchor="middle" transform="translate({x} {top + high / 2}) rotate(90)"'
            drawn.append(f"<text {place}>{clean(name)} →</text>")
        elif others:
            drawn.append(svg_text(x, top + (high + letter) / 2 - 2, f"{name} ↓"))
        return drawn
