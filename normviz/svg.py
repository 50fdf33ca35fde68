"""SVG: the page, its style, its colours, and the group of one statistic.

A picture is a set of ``<g class="nv-slice">``, one for each statistic. CSS alone lights up the one
under the pointer or the keyboard focus and fades the others, so a picture answers in JupyterLab, in
exported HTML and in a plain browser, without a kernel.

On a page, words wrap above what is drawn, and stay where they are while that is scrolled sideways.
"""

import re
from html import escape
from itertools import cycle

from normviz.reduction import Reduction

# Okabe and Ito's colours, told apart by every kind of colour vision. Dashes tell neighbours apart
# without colour.
COLOURS = ("0072b2", "e69f00", "009e73", "cc79a7", "56b4e9", "d55e00", "f0e442", "999999")
DASHES = ("none", "6 2", "2 2", "8 2 2 2", "1 3")

# A slice is lit by the pointer; without one, by the keyboard focus; without that, from the start.
POINTED_AT = ":hover,.nv:not(:hover) :focus"
FROM_START = ".nv-still:not(:hover,:focus-within) .nv-on"
SELECT_LIT = f":is({POINTED_AT},{FROM_START})"
ANY_LIT = ".nv:is(:hover,:focus-within,.nv-still)"
IN_SVG = f"{ANY_LIT} .nv-hint{{display:none}}.nv-line{{font-size:13px}}"  # not needed on a page
STYLE = f"""<style>
.nv,.nv-page{{font:12px/1.4 system-ui,"DejaVu Sans",sans-serif;fill:currentColor}}
.nv{{pointer-events:none}}
.nv.nv,.nv.nv svg{{max-width:none;overflow:visible}}
.nv text{{letter-spacing:0!important;word-spacing:0!important}}
.nv-title{{font-size:15px;font-weight:600}}
.nv-hint{{font-size:13px;font-style:italic}}
.nv-slice{{pointer-events:all;cursor:pointer;outline:none;-webkit-tap-highlight-color:#0000}}
.nv-slice text{{pointer-events:none}}
.nv-ink{{fill:#111;text-anchor:middle;font-size:11px;font-variant-numeric:tabular-nums}}
.nv-lit{{display:none}}
.nv-name{{font-size:13px;font-weight:600}}
.nv-cell{{stroke:#fff}}
.nv-dash{{fill:none;stroke:#111;stroke-width:1.5;opacity:.6}}
.nv-gap{{fill:none;stroke:currentColor;stroke-width:2;stroke-dasharray:2 5;opacity:.6}}
{ANY_LIT} .nv-slice:not({SELECT_LIT}){{opacity:.15}}
.nv:hover .nv-slice:focus-visible:not({SELECT_LIT}){{opacity:.5}}
.nv-slice{SELECT_LIT} .nv-lit{{display:inline}}
.nv-slice{SELECT_LIT} .nv-cell{{stroke:currentColor;stroke-width:2}}
@media print{{.nv-page{{break-inside:avoid}}.nv.nv,.nv.nv svg{{max-width:100%;height:auto}}}}
{IN_SVG}</style>"""

# What shows the lines of the lit slice: a few rules, for a browser is slow with one for each, and
# the same ones in all pictures, for with a style that is new it lays out the whole page anew. One
# rule knows the units of a slice's number, base twenty, and of many slices, one knows the twenties.
TWENTY = 20  # squared, grid.MAX_CELLS
DIGITS = {"visibility:var(--on,visible)": '$=".{}"', "--on:visible": '^="{}."'}
LIT_AT = f".nv-page:has(:is({POINTED_AT})[data-at{{0}}]) [data-of{{0}}]"
LINKS = "".join(
    f"{','.join(LIT_AT.format(digit.format(i)) for i in range(TWENTY))}{{{effect}}}\n"
    for effect, digit in DIGITS.items()
)
# All that may be said stands in one cell of a grid, so that nothing moves when it is said.
PAGE_STYLE = f"""<style>
.nv-page{{padding:4px 0;max-width:100%;outline:none}}
.nv-page span{{display:block;overflow-wrap:anywhere}}
.nv-said{{display:grid;padding:4px 0;font-size:13px}}
.nv-said>*{{grid-area:1/1}}
.nv-said div,.nv-page:has({ANY_LIT}) .nv-hint{{visibility:hidden}}
{LINKS}.nv-page:has({FROM_START}) .nv-said .nv-on{{visibility:visible}}
{STYLE.removeprefix("<style>").replace(IN_SVG, "")}"""
# A click into the picture has to take the focus, for Tab to go on from there.
SCROLLING = '<div tabindex="-1" style="overflow-x:auto;outline:none">'
PART, SLICE = '<g class="nv-part" data-view="', '<g class="nv-slice'
SAID = ' class="nv-lit nv-'
MANY = ' style="--on:hidden"'
TEXT = re.compile(r'<text [^>]*?(?: class="(?:nv-lit )?([\w-]+)")?>(.*?)</text>')


def svg_page(
    width: float, height: float, spoken: str, head: list[str], parts: list[str], *, lit: bool
) -> str:
    """An SVG document with an accessible name, and perhaps a slice that is lit from the start.

    Args:
        width: in pixels.
        height: in pixels.
        spoken: the name.
        head: lines of text above all parts.
        parts: what is drawn, as by ``svg_part``.
        lit: whether a slice is lit.
    """
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nv{" nv-still" if lit else ""}" '
        f'role="group" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" aria-label="{clean(spoken)}">'
        f"{STYLE}{''.join(head)}{''.join(parts)}</svg>"
    )


def svg_part(left: float, top: float, right: float, bottom: float, drawn, words="") -> str:
    """What stays together on a page, in this place of the document; words are written above it."""
    view = f"{left:.0f} {top:.0f} {right - left:.0f} {bottom - top:.0f}"
    return f'{PART}{view}">{words}<g>{"".join(drawn)}</g></g>'


def html_of(svg: str) -> str:
    """The same picture, arranged for a page."""
    opening, *parts = svg.removesuffix("</svg>").split(PART)
    if not parts:  # a plot, in points, which a narrow page shows as pixels: its letters stay 11
        width = "".join(re.findall('viewBox="0 0 (.*?) ', svg)[:1]) or "0"
        return f'{SCROLLING}<div style="min-width:{width}px">{svg}</div></div>'
    look, name = re.search(r' class="(.*?)".*?( aria-label=".*?")>', opening).groups()
    head = opening.partition(STYLE)[2]
    head, hint, last = _as_spans(head).partition('<span class="nv-hint">')
    lines = []
    drawn = "".join(_part_of_page(part, lines) for part in parts)
    return (
        f'<div class="nv-page" tabindex="-1">{PAGE_STYLE}'
        f'{head}<div class="nv-said"{MANY * (len(lines) > TWENTY)}>{hint}{last}'
        f'{"".join(lines)}</div><div style="overflow-x:auto"><div class="{look}" role="group"'
        f"{name}>{drawn}</div></div></div>"
    )


def _part_of_page(part: str, lines: list[str]) -> str:
    view, _, rest = part.partition('">')
    *_, width, height = view.split()
    words, begin, rest = rest.partition("<g>")
    before, *slices = rest.split(SLICE)
    rest = SLICE.join([before, *(_take_words(drawn, lines) for drawn in slices)])
    return (
        f'<div class="nv-part">{_as_spans(words)}<svg width="{width}" height="{height}" '
        f'viewBox="{view}">{begin}{"</g>".join(rest.rsplit("</g></g>", 1))}</svg></div>'
    )


def _take_words(drawn: str, lines: list[str]) -> str:
    """A slice without what it says when it is lit, which is added to the lines."""
    place = drawn.find(SAID)
    if place < 0:
        return drawn
    at = "{}.{}".format(*divmod(len(lines), TWENTY))
    start, end = drawn.rindex("<", 0, place), drawn.index("</text></g>", place) + len("</text>")
    on = ' class="nv-on"' * drawn.startswith(" nv-on")
    lines.append(f'<div{on} data-of="{at}">{_as_spans(drawn[start:end], "nv-line")}</div>')
    return f"{drawn[:start]}{drawn[end:]}".replace('"', f'" data-at="{at}"', 1)


def _as_spans(texts: str, plain: str = "") -> str:
    return TEXT.sub(r'<span class="\1">\2</span>', texts).replace(f' class="{plain}"', "")


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
