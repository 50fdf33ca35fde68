"""Questions in a notebook: check an answer, ask for a hint, see the solution."""

from difflib import get_close_matches

from normviz.exercises import EXERCISES, PREDICTIONS
from normviz.exercises.exercise import Exercise, Prediction
from normviz.judging import (
    NOT_ATTEMPTED,
    NOT_SO,
    RIGHT,
    UNTOUCHED,
    Commitment,
    Verdict,
    is_untouched,
    not_yet,
    undisturbed,
)

QUESTIONS = EXERCISES | PREDICTIONS
CHOOSE = "Choose one in the cell above, then run this one again."


def check(name: str, answer) -> Verdict:
    """Whether an answer is right, not yet (and what was mixed up), or not attempted yet.

    Args:
        name: of the exercise or prediction, as the lesson gives it.
        answer: a number, a tuple, a pattern or a function, or what ``predict`` has recorded;
            ``...`` as long as there is none.

    Raises:
        ValueError: for an unknown name, with the nearest one. Never for an answer.

    >>> check("how_many_means", 140)
    ✗ Not yet. 140 is one per sample and channel; the samples are pooled too.
    >>> check("how_many_means", ...).status
    'not attempted yet'
    """
    question = _find(name)
    clicked = issubclass(type(answer), Commitment)  # isinstance asks an odd answer, too
    answer = answer.commit() if clicked else answer
    try:
        with undisturbed():
            verdict = UNTOUCHED if is_untouched(answer) else question.judge(answer)
    except KeyboardInterrupt:  # of the learner, who waits no longer
        raise
    except BaseException as error:  # of an object that nobody can look at
        verdict = not_yet(f"This answer cannot be looked at: it raises {type(error).__name__}.")
    if verdict is not None and verdict.status == NOT_ATTEMPTED:
        nothing = f"Put your answer in place of the three dots. normviz.hint({name!r}) helps."
        return Verdict(NOT_ATTEMPTED, CHOOSE if clicked else nothing)
    said = f"You said: {answer}. " if clicked else ""
    if verdict is None:
        return Verdict(RIGHT, said + question.praise)
    status = NOT_SO if isinstance(question, Prediction) else verdict.status
    return Verdict(status, said + verdict.text, verdict.picture)


def hint(name: str) -> Verdict:
    """A push in the right direction.

    Args:
        name: of the exercise or prediction, as for ``check``.

    Raises:
        ValueError: for an unknown name, with the nearest one.

    >>> hint("how_many_means")
    Hint. In (N, C, L) = (20, 7, 50), which of the three numbers is C?
    """
    return Verdict("hint", _find(name).hint)


def solution(name: str) -> Verdict:
    """The answer, and why.

    Args:
        name: of the exercise or prediction, as for ``check``.

    Raises:
        ValueError: for an unknown name, with the nearest one.

    >>> solution("how_many_means")
    Solution. 7: one mean per channel.
    """
    return Verdict("solution", _find(name).solution)


def _find(name: str) -> Exercise | Prediction:
    if isinstance(name, str) and name in QUESTIONS:
        return QUESTIONS[name]
    near = get_close_matches(str(name), QUESTIONS, n=1, cutoff=0.3)
    meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(QUESTIONS)}."
    raise ValueError(f"name must be that of an exercise or prediction: got {name!r}; {meant}")
