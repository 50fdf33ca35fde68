"""Figures of matplotlib in the ink of the page around them, as SVG.

``matplotlib.rcParams`` belong to the reader, and to all threads at once. They are not written here,
and what they say of looks is said to each artist instead: what a reader has set stays out, figures
of the reader's stay as they are, and the same state gives the same bytes.
"""

from collections.abc import Sequence
from io import StringIO

import numpy as np
from matplotlib import rcParams, rcParamsDefault
from matplotlib._path import convert_to_string
from matplotlib.axes import Axes
from matplotlib.axis import XTick, YTick
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from matplotlib.transforms import Affine2D

from normviz.svg import clean

INK = "#010203"  # a colour that nothing else has: the page's own ink takes its place
PIXELS_PER_INCH = 96  # of a page
POINTS_PER_INCH = 72  # of an SVG: drawn in points, nothing has to be measured again to write one
LETTER, HEIGHT, DESCENT = 6.75, 11, 2.64  # of text, in points
STYLE = """<style>
.nv-plot{max-width:100%;height:auto}
.nv-plot *{stroke-linejoin:round;letter-spacing:0!important;word-spacing:0!important}
.nv-plot text{font:11px "DejaVu Sans",Verdana,sans-serif;fill:currentColor}
.nv-plot .nv-title{font-size:12px;font-weight:700}
</style>
"""
ANGLES = {"//": (45,), "..": (0,), "xx": (45, -45)}  # of hatches, in degrees
APART = 8.48  # points between lines of a hatch
DOTTED = f"stroke-dasharray: 0 {APART}; stroke-linecap: round"
LEGEND = {k.removeprefix("legend."): v for k, v in rcParamsDefault.items() if "legend." in k}
LEGEND |= {"loc": "lower left", "frameon": False, "prop": {"size": HEIGHT}}


def blank_figure(columns: int, width: int, height: int) -> Figure:
    """Axes side by side; width and height in pixels of the page."""
    inches = width / PIXELS_PER_INCH, height / PIXELS_PER_INCH
    figure = Figure(inches, POINTS_PER_INCH, frameon=False, layout="none")
    figure.subplots_adjust(right=1 - 15 / width, top=1 - 32 / height, wspace=0.2)
    for place in figure.add_gridspec(1, columns):
        figure.add_subplot(place, axes_class=_Axes)
    return figure


def line_style(
    colour: str, *, width: float = 2.5, dash: Sequence[float] = (), dot: float = 0
) -> dict:
    """How ``axes.plot`` is to draw: lines of that width, if it is not 0, and dots of that size."""
    unit = 1 if rcParams["lines.scale_dashes"] else width
    return {
        "linestyle": (0, [length * unit for length in dash]) if dash else "-" if width else "none",
        "linewidth": width,
        "marker": "o" if dot else "none",
        "markersize": dot,
        "markeredgewidth": 1,
        "fillstyle": "full",
        "solid_capstyle": "projecting",
        "dash_capstyle": "butt",
        **dict.fromkeys(("solid_joinstyle", "dash_joinstyle"), "round"),
        **dict.fromkeys(("color", "markeredgecolor", "markerfacecolor"), colour),
    }


def as_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element with an accessible name."""
    for artist in figure.findobj():  # each was made with what was set at that time
        artist.set_path_effects([])
        artist.set_sketch_params(None)
        if isinstance(artist, Text):
            artist.set_usetex(False)
            artist.set_parse_math(False)  # a dollar is a dollar
        elif isinstance(artist, XTick):
            artist.label1.set_horizontalalignment("center")
        elif isinstance(artist, YTick):
            artist.label1.set_verticalalignment("center_baseline")
    width, height = figure.bbox.size
    renderer = _Renderer(width, height, file := StringIO())
    figure.draw(renderer)
    renderer.finalize()
    _, _, drawn = file.getvalue().partition("</defs>\n")  # the head, and rules for a whole page
    drawn = drawn.replace(" \n", "\n").replace(INK, "currentColor")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'class="nv-plot" role="img" width="{width:g}pt" height="{height:g}pt" '
        f'viewBox="0 0 {width:g} {height:g}" aria-label="{clean(" ".join(name.split()))}">'
        f"{STYLE}{drawn}"
    )


class _Axes(Axes):
    """Axes that look the same whatever a reader has set."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.patch.set_visible(False)
        self.set_axisbelow("line")
        self.set_prop_cycle(color=[INK])
        self.margins(0.05)
        self.minorticks_off()
        for side, spine in self.spines.items():
            shown = side in ("left", "bottom")
            spine.set(visible=shown, edgecolor=INK, linewidth=0.8)
            self.tick_params(**{side: shown, f"label{side}": shown})
        self.tick_params(direction="out", length=3.5, width=0.8, pad=3.5, color=INK)
        grid = {"color": INK, "alpha": 0.2, "linewidth": 0.8, "linestyle": "-"}
        self.grid(**grid, solid_capstyle="butt", solid_joinstyle="round")
        for axis in (self.xaxis, self.yaxis):  # few ticks are drawn fast and read easily
            axis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
            axis.set_major_formatter(_Formatter())
        # Where matplotlib finds places for title and labels, it measures every tick once more.
        self.set_title("")
        self.xaxis.set_label_coords(0.5, 0, self.transAxes + Affine2D().translate(0, -22))
        self.yaxis.set_label_coords(0, 0.5, self.transAxes + Affine2D().translate(-43, 0))

    # Those of Axes would look for places in what is set.

    def set_title(self, label):
        super().set_title(label, loc="left", y=1.02, pad=6, gid="nv-title")

    def set_xlabel(self, xlabel):
        self.xaxis.set_label_text(xlabel)

    def set_ylabel(self, ylabel):
        self.yaxis.set_label_text(ylabel)


class _Formatter(ScalarFormatter):
    """Numbers beside axes, as matplotlib writes them where nothing is set."""

    def __init__(self):
        super().__init__(useOffset=True, useMathText=False, useLocale=False, usetex=False)
        self.set_powerlimits((-5, 6))
        self._offset_threshold = 4

    def fix_minus(self, s):
        return s.replace("-", "−")


class _Renderer(RendererSVG):
    """Writes letters as letters, which the style of the page shapes, no groups, and no ids.

    A page may hold the same plot twice, and an id only once.
    """

    def open_group(self, s, gid=None):
        self._class = gid

    def close_group(self, s):
        pass

    def _get_clip_attrs(self, gc):  # lines were cut already, and no bar leaves its axes
        return {"class": "nv-in"} if gc.get_clip_rectangle() else {}

    def _convert_path(self, path, transform=None, clip=None, simplify=None, sketch=None):
        clip = self._box if clip else None
        kinds = [b"M", b"L", b"Q", b"C", b"z"]
        return convert_to_string(path, transform, clip, simplify, sketch, 2, kinds, False).decode()

    def _box_of(self, gc):
        """Left, top, right and bottom of what is to be seen."""
        box = gc.get_clip_rectangle()
        left, low, right, high = box.extents if box else (0, 0, self.width, self.height)
        return left, self.height - high, right, self.height - low

    def draw_path(self, gc, path, transform, rgbFace=None):
        hatch = gc.get_hatch()
        gc.set_hatch(None)
        if path.codes is None:
            path.should_simplify, path.simplify_threshold = len(path) > 127, 1 / 9
        self._box = self._box_of(gc)
        super().draw_path(gc, path, transform, rgbFace)
        if not hatch:
            return
        style = f"fill: none; stroke: {INK}; stroke-width: 0.5"
        if hatch == "..":
            style = f"fill: none; stroke: {INK}; stroke-width: 1.5; {DOTTED}"
        edges = path.to_polygons(transform)
        lines = [line for angle in ANGLES[hatch] for line in _stripes(edges, angle)]
        drawn = (
            f"M{x:.1f} {self.height - y:.1f}L{to_x:.1f} {self.height - to_y:.1f}"
            for (x, y), (to_x, to_y) in lines
        )
        self.writer.element("path", d="".join(drawn), style=style)

    def draw_markers(self, gc, marker_path, marker_trans, path, trans, rgbFace=None):
        """Of ticks, strokes; of dots, the round ends of strokes without a length."""
        shape = marker_trans.transform(marker_path.vertices)
        (across, up), end = shape[-1], "h0"
        if len(shape) == 2:
            end = f"l{across:g} {-up:g}"
        else:
            gc.set_linewidth(np.ptp(shape[:, 0]) + gc.get_linewidth())
            gc.set_capstyle("round")
        left, top, right, bottom = self._box_of(gc)
        drawn = [
            f"M {x:.2f} {y:.2f} {end}"
            for x, y in self._make_flip_transform(trans).transform(path.vertices)
            if left - 1 < x < right + 1 and top - 1 < y < bottom + 1
        ]
        look = self._get_clip_attrs(gc) | {"style": self._get_style(gc, None)}
        self.writer.element("path", d=" ".join(drawn), **look)

    def get_text_width_height_descent(self, s, prop, ismath):
        return LETTER * len(s), HEIGHT, DESCENT

    def _get_font_height_metrics(self, prop):  # or else a font is looked for
        return HEIGHT - DESCENT, DESCENT, 0

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        look = {"class": self._class}
        if mtext:  # aligned by the page, whose letters may have other widths
            across, up = mtext.get_transform().transform(mtext.get_position())
            x, y = (x, self.height - up) if angle else (across, y)
            look["text-anchor"] = {"center": "middle", "right": "end"}.get(mtext.get_ha())
        if angle:
            look["transform"] = f"rotate({-angle:g} {x:.2f} {y:.2f})"
        self.writer.element("text", s.strip(), look, x=f"{x:.2f}", y=f"{y:.2f}")


def _stripes(polygons, angle: float):
    """The ends of parallel lines at this angle, as long as they are inside the polygons."""
    turn = Affine2D().rotate_deg(-angle)
    polygons = [turn.transform(polygon) for polygon in polygons]
    start = np.concatenate([polygon[:-1] for polygon in polygons])
    end = np.concatenate([polygon[1:] for polygon in polygons])
    low, high = start[:, 1].min(), start[:, 1].max()
    for level in np.arange(np.ceil(low / APART), high / APART) * APART:
        crossed = (start[:, 1] <= level) != (end[:, 1] <= level)
        (x, y), (to_x, to_y) = start[crossed].T, end[crossed].T
        at = np.sort(x + (level - y) * (to_x - x) / (to_y - y))
        for line in zip(at[::2], at[1::2], strict=True):
            if line[1] > line[0] + 0.5:
                yield turn.inverted().transform([(x, level) for x in line])
