"""Exercises in a notebook: check an answer, ask for a hint, see the solution."""

from difflib import get_close_matches

from normviz.exercises import EXERCISES, Exercise
from normviz.judging import NOT_ATTEMPTED, RIGHT, UNTOUCHED, Verdict, is_untouched


def check(name: str, answer) -> Verdict:
    """Whether an answer is right, not yet (and what was mixed up), or not attempted yet.

    Args:
        name: of the exercise, as the lesson gives it.
        answer: a number, a tuple, a pattern or a function; ``...`` as long as there is none.

    Raises:
        ValueError: for an unknown name, with the nearest one. Never for an answer.

    >>> check("how_many_means", 140)
    ✗ Not yet. 140 is one per sample and channel; the samples are pooled too.
    >>> check("how_many_means", ...)
    … Not attempted yet. Put your answer in place of the three dots. hint('how_many_means') helps.
    """
    exercise = _find(name)
    verdict = UNTOUCHED if is_untouched(answer) else exercise.judge(answer)
    if verdict is None:
        return Verdict(RIGHT, exercise.praise)
    if verdict.status == NOT_ATTEMPTED:
        nothing = f"Put your answer in place of the three dots. hint({name!r}) helps."
        return Verdict(NOT_ATTEMPTED, nothing)
    return verdict


def hint(name: str) -> Verdict:
    """A push in the right direction.

    Raises:
        ValueError: for an unknown name, with the nearest one.
    """
    return Verdict("hint", _find(name).hint)


def solution(name: str) -> Verdict:
    """The answer, and why.

    Raises:
        ValueError: for an unknown name, with the nearest one.
    """
    return Verdict("solution", _find(name).solution)


def _find(name: str) -> Exercise:
    if isinstance(name, str) and name in EXERCISES:
        return EXERCISES[name]
    near = get_close_matches(str(name), EXERCISES, n=1, cutoff=0.3)
    meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(EXERCISES)}."
    raise ValueError(f"name must be that of an exercise: got {name!r}; {meant}")
