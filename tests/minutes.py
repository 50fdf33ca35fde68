"""How long a lesson takes, counted, beside what it says: ``python tests/minutes.py``.

Somebody who reads 180 words a minute, takes 4 seconds for a line of code, 6 to run a cell, 20 to
look at a picture, 25 for a prediction, 150 for an exercise, and 6 minutes for a lab. Nobody talks.
"""

import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from normviz.exercises import EXERCISES
from tools.notebooks import LESSONS, read

SECOND = "second-sitting"  # the cell that opens it
PICTURE = re.compile(r"draw_\w+\(|(?<!print\()explain\(|\.picture\(|\.still\(")


def words_of(prose):
    """How many words there are to read: no signs, no addresses, no tags."""
    return len(re.findall(r"[^\W_]+", re.sub(r"<[^>]*>|\]\([^)]*\)", "", prose)))


def seconds_for(cell):
    """What a cell takes."""
    if cell.cell_type == "markdown":
        return words_of(cell.source) / 3
    asked = re.findall(r'check\("(\w+)"', cell.source)
    exercises = sum(name in EXERCISES for name in asked)
    lines = sum(bool(line.strip()) for line in cell.source.splitlines())
    return (
        6
        + 4 * lines
        + 20 * bool(PICTURE.search(cell.source))
        + 25 * (len(asked) - exercises)
        + 150 * exercises
        + 360 * bool(re.search(r"_lab\([^)]*\)$", cell.source))
    )


def counted(notebook):
    """The minutes of each sitting."""
    sittings = [0.0]
    for cell in notebook.cells:
        if cell.id == SECOND:
            sittings.append(0.0)
        sittings[-1] += seconds_for(cell) / 60
    return sittings


def stated(notebook):
    """What the first cell says: About 60 minutes; two sittings, of about 40 and 45 minutes."""
    [numbers] = re.findall(r"[Aa]bout (\d+)(?: and (\d+))? minutes", notebook.cells[0].source)
    return [int(number) for number in numbers if number]


def main():
    """Print all lessons, and say whether one of them misleads."""
    misled = False
    for name in LESSONS:
        notebook = read(name)
        for said, true in zip(stated(notebook), counted(notebook), strict=True):
            off = abs(true / said - 1) > 0.2
            misled |= off
            print(f"{name[:2]}: {true:4.0f} minutes counted, {said} stated{' (off)' * off}")
    return misled


if __name__ == "__main__":
    sys.exit(main())
