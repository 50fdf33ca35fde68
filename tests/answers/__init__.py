"""For each exercise: the right answer, from torch itself, and what people answer instead.

One module for each lesson, with four tables:

- ``RIGHT_ANSWERS``: name → the answer;
- ``WRONG_ANSWERS``: name → what people answer, each with a word or two of what they are told;
- ``OTHER_ANSWERS``: name → wrong answers that nobody thought of;
- ``TELLS``: name → what would give the answer away, as a regular expression.
"""

from answers import (
    bessel,
    channels,
    gradient,
    linearity,
    modes,
    own_model,
    relatives,
    running,
    samples,
    workers,
)

LESSONS = (
    channels,
    samples,
    running,
    bessel,
    modes,
    linearity,
    relatives,
    gradient,
    workers,
    own_model,
)


def _merge(table: str) -> dict:
    return {name: value for lesson in LESSONS for name, value in getattr(lesson, table).items()}


RIGHT_ANSWERS = _merge("RIGHT_ANSWERS")
WRONG_ANSWERS = _merge("WRONG_ANSWERS")
OTHER_ANSWERS = _merge("OTHER_ANSWERS")
TELLS = _merge("TELLS")
