"""Figures of matplotlib in the ink of the page around them, as SVG.

``matplotlib.rcParams`` belong to the reader, and to all threads at once. They are not written here,
and what they say of looks is said to each artist instead: what a reader has set stays out, figures
of the reader's stay as they are, and the same state gives the same bytes.
"""

from collections.abc import Sequence
from io import StringIO
from zlib import crc32

from matplotlib import rcParams, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.axis import XTick, YTick
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from matplotlib.transforms import Affine2D

from normviz.svg import clean

INK = "#010203"  # a colour that nothing else has: the page's own ink takes its place
PREFIX = "nv-010203-"  # of ids, until one takes its place that no other picture has
PIXELS_PER_INCH = 96  # of a page
POINTS_PER_INCH = 72  # of an SVG: drawn in points, nothing has to be measured again to write one
LETTER, HEIGHT, DESCENT = 6.75, 11, 2.64  # of text, in points
STYLE = """<style>
.nv-plot{max-width:100%;height:auto}
.nv-plot *{stroke-linejoin:round}
.nv-plot text{font:11px "DejaVu Sans",Verdana,sans-serif;fill:currentColor}
.nv-plot .nv-title{font-size:12px;font-weight:700}
</style>
"""
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
    drawn = drawn.replace(INK, "currentColor")
    drawn = drawn.replace(PREFIX, f"nv-{crc32(drawn.encode()):x}-")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
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
    """Writes letters as letters, which the style of the page shapes, and no groups."""

    def open_group(self, s, gid=None):
        self._class = gid

    def close_group(self, s):
        pass

    def _make_id(self, type, content):
        return f"{PREFIX}{type}{crc32(str(content).encode()):x}"

    def draw_path(self, gc, path, transform, rgbFace=None):
        gc.set_hatch_color(to_rgba(INK))
        gc.set_hatch_linewidth(0.5)
        if path.codes is None:
            path.should_simplify, path.simplify_threshold = len(path) > 127, 1 / 9
        super().draw_path(gc, path, transform, rgbFace)

    def draw_markers(self, gc, marker_path, marker_trans, path, trans, rgbFace=None):
        face = rgbFace if len(marker_path) > 2 else None  # a tick is a stroke, and has none
        super().draw_markers(gc, marker_path, marker_trans, path, trans, face)

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
            look["transform"] = f"rotate({-angle:g} {x:g} {y:g})"
        self.writer.element("text", s.strip(), look, x=f"{x:g}", y=f"{y:g}")
