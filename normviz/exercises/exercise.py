"""What a question of a lesson is made of; the question itself stands there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normviz.judging import Judge, judge_choice, judge_numbers


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
        right: one of the choices; or a number, or a tuple of them.
        wrong: each wrong choice, and what is to be said of it; for numbers, pairs of both.
        praise: why the right one is right.
    """

    right: object
    wrong: Mapping[str, str] | Sequence[tuple[object, str]]
    praise: str
    hint = "This is a prediction: say what you expect. A wrong one costs nothing, and teaches most."

    @property
    def choices(self) -> set[str]:
        """What there is to choose from; nothing for numbers."""
        return {self.right, *self.wrong} if isinstance(self.right, str) else set()

    @property
    def judge(self) -> Judge:
        """How an answer is judged."""
        judge = judge_choice if isinstance(self.right, str) else judge_numbers
        return judge(self.right, self.wrong)

    @property
    def solution(self) -> str:
        """What comes out, and why."""
        return f"{self.right}: {self.praise}"
