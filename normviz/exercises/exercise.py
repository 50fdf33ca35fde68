"""What an exercise is made of."""

from dataclasses import dataclass

from normviz.judging import Judge


@dataclass(frozen=True)
class Exercise:
    """One question of a lesson; the question itself stands there."""

    judge: Judge
    praise: str  # why the right answer is right
    hint: str
    solution: str
