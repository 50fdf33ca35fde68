"""SVG: the page, its style, its colours, and the group of one statistic.

A picture is a set of ``<g class="nv-slice">``, one for each statistic. CSS alone lights up the one
under the pointer or the keyboard focus and fades the others, so a picture answers in JupyterLab, in
exported HTML and in a plain browser, without a kernel.
"""

from html import escape
from itertools import cycle

from normviz.reduction import Reduction

# Okabe and Ito's colours, told apart by every kind of colour vision. Dashes tell neighbours apart
# without colour.
COLOURS = ("0072b2", "e69f00", "009e73", "cc79a7", "56b4e9", "d55e00", "f0e442", "999999")
DASHES = ("none", "6 2", "2 2", "8 2 2 2", "1 3")

# A slice is lit by the pointer; without one, by the keyboard focus; without that, from the start.
SELECT_LIT = (
    ":is(.nv-slice:hover,.nv:not(:hover) .nv-slice:focus,"
    ".nv-still:not(:hover,:focus-within) .nv-on)"
)
STYLE = f"""<style>
.nv{{font:12px system-ui,"DejaVu Sans",sans-serif;fill:currentColor;pointer-events:none}}
.nv.nv{{max-width:none}}
.nv-title{{font-size:15px;font-weight:600}}
.nv-hint{{font-size:13px;font-style:italic}}
.nv-slice{{pointer-events:all;cursor:pointer;outline:none}}
.nv-slice text{{pointer-events:none}}
.nv-ink{{fill:#111;text-anchor:middle;font-size:11px;font-variant-numeric:tabular-nums}}
.nv-lit{{display:none}}
.nv-line{{font-size:13px}}
.nv-name{{font-size:13px;font-weight:600}}
.nv-cell{{stroke:#fff}}
.nv-dash{{fill:none;stroke:#111;stroke-width:1.5;opacity:.6}}
.nv-gap{{fill:none;stroke:currentColor;stroke-width:2;stroke-dasharray:2 5;opacity:.6}}
.nv:is(:hover,:focus-within,.nv-still) .nv-slice:not({SELECT_LIT}){{opacity:.15}}
.nv:hover .nv-slice:focus-visible:not({SELECT_LIT}){{opacity:.5}}
{SELECT_LIT} .nv-lit{{display:inline}}
{SELECT_LIT} .nv-cell{{stroke:currentColor;stroke-width:2}}
.nv:is(:hover,:focus-within,.nv-still) .nv-hint{{display:none}}
</style>"""


def svg_page(width: float, height: float, spoken: str, parts: list[str], *, lit: bool) -> str:
    """An SVG document with an accessible name, and perhaps a slice that is lit from the start."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nv{" nv-still" if lit else ""}" '
        f'role="group" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" aria-label="{clean(spoken)}">'
        f"{STYLE}{''.join(parts)}</svg>"
    )


def svg_slice(label: int, spoken: str, parts: list[str], *, details: str = "", lit: bool) -> str:
    """The group of one statistic: what lights up together, its accessible name and description."""
    described = f' aria-description="{clean(details)}"' if details else ""
    return (
        f'<g class="nv-slice{" nv-on" if lit else ""}" data-label="{label}" tabindex="0" '
        f'role="img" aria-label="{clean(spoken)}"{described}>{"".join(parts)}</g>'
    )


def svg_text(x: float, y: float, text: str, look: str = "", anchor: str = "") -> str:
    """A line of text, escaped."""
    extra = (f' class="{look}"' if look else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.0f}" y="{y:.0f}"{extra}>{clean(text)}</text>'


def svg_dash(mark: int, path: str) -> str:
    """The line that tells slices apart where colours cannot."""
    return f'<path class="nv-dash" stroke-dasharray="{DASHES[mark % len(DASHES)]}" d="{path}"/>'


def tint(mark: int, strength: float) -> str:
    """A slice's colour, from pale (0) to strong (1); dark ink stays readable on all of them."""
    share = 0.2 + 0.5 * strength
    parts = bytes.fromhex(COLOURS[mark % len(COLOURS)])
    return "#" + bytes([round(255 + (part - 255) * share) for part in parts]).hex()


def style_of(reduction: Reduction, label: int, shape: tuple[int, ...]) -> int:
    """A number for a slice's colour and dash, in which neighbours along every kept axis differ."""
    position = [*reduction.locate(label, shape).values()]
    steps = cycle((1, 3, 7, 9, 11))  # no step is a whole round of the colours or of the dashes
    return sum(i * step for i, step in zip(reversed(position), steps, strict=False))


def clean(text: str) -> str:
    """Text from anywhere, safe inside SVG and HTML."""
    if not text.isprintable():
        text = "".join(sign for sign in text if sign.isprintable())
    return escape(text)
