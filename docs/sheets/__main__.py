"""Write all sheets to docs/teaching/sheets: each as an SVG, and printed by Chromium as a PDF."""

from sheets import FOLDER, draw_sheets
from sheets.paper import print_pdfs


def main() -> None:
    """Write them all anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, svg in draw_sheets().items():
        (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
    print_pdfs(FOLDER)


if __name__ == "__main__":
    main()
