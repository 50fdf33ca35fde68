"""What all sheets share: paper, letters and lines, as SVG and as PDF.

A sheet is A4, landscape, and its unit is the point. Print may be black and white, so colour alone
says nothing.
"""

import re
from pathlib import Path
from textwrap import wrap

from normviz.svg import COLOURS, clean, svg_text
from tools.chromium import chromium

WIDTH, HEIGHT = 842, 595
LEFT, TOP, BOTTOM = 36, 84, 504  # of the picture in a handout
# Four sizes of letters: 8, 11, 14 and 20 points.
STYLE = f"""<style>
.sheet{{background:#fff;fill:#111;font:8px "DejaVu Sans",Verdana,sans-serif}}
text{{font-variant-ligatures:none}}
.body{{font-size:11px}}.head{{font-size:14px}}.title{{font-size:20px;font-weight:bold}}
.bold{{font-weight:bold}}.grey{{fill:#555}}
.fine{{fill:none;stroke:#999;stroke-width:.6}}
.line{{fill:none;stroke:#111;stroke-width:1}}
.dash{{fill:none;stroke:#111;stroke-width:1;stroke-dasharray:3 3}}
.thick{{fill:none;stroke:#111;stroke-width:3}}
.box{{fill:#fff;stroke:#111;stroke-width:.8}}
.gone{{fill:none;stroke:#777;stroke-width:1;stroke-dasharray:3 3}}
.mark{{fill:#fbe3b3;stroke:#111;stroke-width:3}}
.dot{{fill:#{COLOURS[0]}}}
.ring{{fill:none;stroke:#{COLOURS[0]};stroke-width:1.5}}
.curve{{fill:none;stroke-width:2.5;stroke-linejoin:round}}
.nv-lit{{display:none}}
.pale .nv-cell{{fill:#fff;stroke:#aaa}}.pale .nv-dash{{display:none}}
.lit .nv-lit{{display:inline}}.lit .nv-cell{{stroke:#111;stroke-width:1.6}}
</style>"""


def page(title: str, parts: list[str]) -> str:
    """A sheet as an SVG document, with its accessible name."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="sheet" width="297mm" height="210mm" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{clean(title)}">\n'
        f"<title>{clean(title)}</title>\n{STYLE}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def path(look: str, *points: tuple[float, float]) -> str:
    """A line through these points."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="{look}" d="M{steps}"/>'


def rect(look: str, x: float, y: float, width: float, height: float) -> str:
    """A rectangle."""
    return (
        f'<rect class="{look}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    )


def circle(look: str, x: float, y: float, radius: float) -> str:
    """A dot, or a ring."""
    return f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def write(
    x: float, y: float, words: str, letters: int, look: str = "", pitch: int = 11
) -> list[str]:
    """A paragraph in lines of about one length, so many letters at most.

    What stands in brackets or around a sign such as = is not broken.
    """
    words = re.sub(r"\([^()]*\)| [=≈−·×+] ", lambda found: found[0].replace(" ", "\xa0"), words)
    rows = wrap(words, letters)
    while len(shorter := wrap(words, letters - 1)) == len(rows):
        rows, letters = shorter, letters - 1
    # A picture's text holds no other space than the common one.
    return [
        svg_text(x, y + pitch * i, row.replace("\xa0", " "), look) for i, row in enumerate(rows)
    ]


def print_pdfs(folder: Path) -> None:
    """Print every SVG in a folder as a PDF beside it, the same bytes each time."""
    paper = "@page{size:A4 landscape;margin:0}body{margin:0}svg{display:block}"
    with chromium() as browser:
        tab = browser.new_page()
        for svg in sorted(folder.glob("*.svg")):
            drawn = svg.read_text(encoding="utf-8")
            title = re.search("<title>.*?</title>", drawn)[0]
            head = f'<!doctype html><html lang="en">{title}<style>{paper}</style>'
            tab.set_content(head + drawn)
            pdf = tab.pdf(prefer_css_page_size=True)
            pdf = re.sub(rb"(Date \(D:)\d{14}", rb"\g<1>20000101000000", pdf)
            svg.with_suffix(".pdf").write_bytes(pdf)
