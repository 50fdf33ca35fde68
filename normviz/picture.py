"""What all pictures share: the SVG page, its style, its colours, and numbers that fit.

A picture is a set of ``<g class="nv-slice">``, one for each statistic. CSS alone lights up the one
under the pointer or the keyboard focus and fades the others, so a picture answers in JupyterLab, in
exported HTML and in a plain browser, without a kernel.
"""

from dataclasses import dataclass
from html import escape
from itertools import cycle
from math import ceil, isfinite, log10, prod
from pathlib import Path

import numpy as np

from normviz.reduction import Reduction

# Okabe and Ito's colours, told apart by every kind of colour vision. Dashes tell neighbours apart
# without colour.
COLOURS = ("0072b2", "e69f00", "009e73", "cc79a7", "56b4e9", "d55e00", "f0e442", "999999")
DASHES = ("none", "6 2", "2 2", "8 2 2 2", "1 3")
WORDS = {
    "n": "sample",
    "c": "channel",
    "l": "position",
    "t": "token",
    "d": "depth",
    "h": "row",
    "w": "column",
    "g": "group",
}

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


@dataclass(frozen=True, repr=False)
class Picture:
    """An SVG picture, and the same in words. A notebook shows the picture, ``print`` the words."""

    svg: str
    text: str

    def _repr_html_(self) -> str:
        # A click into the picture has to take the focus, for Tab to go on from there.
        return f'<div tabindex="-1" style="overflow-x:auto;outline:none">{self.svg}</div>'

    def __repr__(self) -> str:
        return self.text

    def save(self, path: str | Path) -> Path:
        """Write the picture to a file that ends in ``.svg`` or ``.html``, and return its path.

        Raises:
            ValueError: for any other ending.
        """
        path = Path(path)
        # On its own, the picture brings paper that follows the reader's light or dark setting.
        paper = "color-scheme:light dark;background:Canvas;color:CanvasText"
        page = self.svg.replace("<svg ", f'<svg style="{paper}" ', 1)
        if path.suffix == ".html":
            title = escape(self.text.partition("\n")[0])
            head = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            page = f"{head}<title>{title}</title>\n{page}\n</html>\n"
        elif path.suffix != ".svg":
            raise ValueError(f"path must end in .svg or .html: got {str(path)!r}.")
        path.write_text(page, encoding="utf-8")
        return path


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


def as_array(x) -> np.ndarray:
    """x as a NumPy array, whether it is a list, an array, or a tensor on any device.

    Raises:
        ValueError: if it holds no real numbers to draw.
    """
    if hasattr(x, "detach"):  # a tensor
        x = x.detach().cpu().resolve_neg()
        x = (x.float() if x.is_floating_point() and x.dtype.itemsize < 4 else x).numpy()
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"x must hold real numbers to be drawn: got dtype {x.dtype}.")
    if not x.size:
        raise ValueError(f"x must hold numbers to be drawn: got the shape {x.shape}.")
    return x


def mark_slice(reduction: Reduction, label: int, shape: tuple[int, ...]) -> int:
    """A number for a slice's colour and dash, in which neighbours along every kept axis differ."""
    position = [*reduction.locate(label, shape).values()]
    steps = cycle((1, 3, 7, 9, 11))  # no step is a whole round of the colours or of the dashes
    return sum(i * step for i, step in zip(reversed(position), steps, strict=False))


def name_slice(reduction: Reduction, label: int, shape: tuple[int, ...]) -> str:
    """``"sample 0, channel 2"``: where on the kept axes a slice stands."""
    position = reduction.locate(label, shape)
    return ", ".join(f"{WORDS.get(name, name)} {i}" for name, i in position.items()) or "all"


def count_slices(reduction: Reduction, shape: tuple[int, ...]) -> str:
    """``"3 slices of 12 numbers"``."""
    slices = number_of(prod(reduction.stat_shape(shape)), "slice")
    return f"{slices} of {number_of(reduction.count(shape), 'number')}"


def number_of(count: int, noun: str) -> str:
    """``"1 slice"``, ``"60,000 numbers"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def short(number: float, largest: float = 1.0) -> str:
    """A number in five characters or so, for a cell.

    Args:
        number: what to write.
        largest: the largest magnitude among all that stand together; small ones get more decimals.

    >>> short(17), short(-1.40943), short(1234567), short(0.0149), short(0.0149, largest=0.02)
    ('17', '−1.41', '1e6', '0.01', '0.0149')
    """
    number = float(number)
    size = abs(number)
    if not isfinite(number) or (size < 1e5 and number.is_integer()):
        return _tidy(f"{number:.0f}")
    if size >= 1e5 or largest < 1e-3:
        return _tidy(f"{number:.0e}")
    decimals = 2 + max(0, ceil(-log10(largest))) if size < 100 else 1 if size < 1000 else 0
    return _tidy(f"{number:.{decimals}f}")


def largest_of(numbers: np.ndarray) -> float:
    """The largest finite magnitude; 1 if there is none, or only zero."""
    finite = np.abs(numbers[np.isfinite(numbers)])
    return float(finite.max(initial=0)) or 1.0


def five_digits(number: float) -> str:
    """A number to five significant digits.

    >>> five_digits(24 + 2 / 3), five_digits(-0.191919191), five_digits(3.0)
    ('24.667', '−0.19192', '3')
    """
    return _tidy(f"{number:.5g}")


def clean(text: str) -> str:
    """Text from anywhere, safe inside SVG and HTML."""
    if not text.isprintable():
        text = "".join(sign for sign in text if sign.isprintable())
    return escape(text)


def _tidy(text: str) -> str:
    mantissa, e, exponent = text.partition("e")
    text = f"{mantissa}e{int(exponent)}" if e else text
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")
