"""What a question of a lesson is made of; the question itself stands there."""

from collections.abc import Mapping
from dataclasses import dataclass

from normviz.judging import Judge, judge_choice


@dataclass(frozen=True)
class Exercise:
    """One question at the end of a lesson."""

    judge: Judge
    praise: str  # why the right answer is right
    hint: str
    solution: str


@dataclass(frozen=True)
class Prediction:
    """What a cell will show, asked before it runs.

    Attributes:
        right: what comes out, as one of the choices.
        wrong: the other choices, and what is to be said of each.
        praise: why the right one is right.
    """

    right: str
    wrong: Mapping[str, str]
    praise: str
    hint = "This is a prediction: say what you expect. A wrong one costs nothing, and teaches most."

    @property
    def choices(self) -> set[str]:
        """What there is to choose from."""
        return {self.right, *self.wrong}

    @property
    def judge(self) -> Judge:
        """How an answer is judged."""
        return judge_choice(self.right, self.wrong)

    @property
    def solution(self) -> str:
        """What comes out, and why."""
        return f"{self.right}: {self.praise}"
