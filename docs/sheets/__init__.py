"""Printable sheets: the axis cheat sheet, and a handout for each lesson."""

from pathlib import Path

from sheets.axes import draw_axes
from sheets.handouts import HANDOUTS, draw_handout

FOLDER = Path(__file__).parents[1] / "teaching" / "sheets"


def draw_sheets() -> dict[str, str]:
    """File name → SVG."""
    return {"axes": draw_axes()} | {name: draw_handout(name) for name in HANDOUTS}
