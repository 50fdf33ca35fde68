"""How an answer is judged: right, not yet (naming what was mixed up), or not attempted.

A judge is a function from an answer to what is wrong with it. It returns None if nothing is, and
NOT_ATTEMPTED if the answer still holds a placeholder.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch

from normviz.reduction import Reduction

Judge = Callable[[object], str | None]

RIGHT, NOT_YET, NOT_ATTEMPTED = "right", "not yet", "not attempted yet"
MARKS = {RIGHT: "✓", NOT_YET: "✗", NOT_ATTEMPTED: "…"}


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check, a hint or a solution has to say. A notebook shows it in a frame."""

    status: str  # "right", "not yet", "not attempted yet", "hint" or "solution"
    text: str

    def _repr_html_(self) -> str:
        style = "border-left:4px solid;padding:4px 12px;white-space:pre-wrap"
        return f'<div style="{style}"><b>{escape(self._head)}</b> {escape(self.text)}</div>'

    def __repr__(self) -> str:
        return f"{self._head} {self.text}"

    @property
    def _head(self) -> str:
        return f"{MARKS.get(self.status, '')} {self.status.capitalize()}.".strip()


def is_untouched(answer) -> bool:
    """Whether an answer is still the placeholder: ``...``, None, or an empty string."""
    return answer is ... or answer is None or (isinstance(answer, str) and not answer.strip())


def judge_numbers(right, misconceptions: Sequence[tuple[object, str]]) -> Judge:
    """For a count, exactly; for other numbers, alone or in a tuple or tensor, to three digits."""

    def judge(answer) -> str | None:
        given = _as_numbers(answer)
        if given is None:
            return f"The answer is a number or a tuple of numbers: got {_brief(answer)}."
        if _same(given, right):
            return None
        for wrong, why in misconceptions:
            if _same(given, wrong):
                return why
        if given.shape != np.shape(right):
            wanted = "one number" if np.ndim(right) == 0 else _tuple_of(np.size(right))
            return f"The answer is {wanted}: got {_brief(answer)}."
        return f"{_brief(answer)} is not it. The hint may help."

    return judge


def judge_pattern(right: str, shape, misconceptions: Sequence[tuple[str, str]]) -> Judge:
    """For a pattern: right if it pools the same numbers, whatever the axes are called."""

    def judge(answer) -> str | None:
        if not isinstance(answer, str) or len(answer) > 100:
            return f"The answer is a pattern, in quotes: got {_brief(answer)}."
        try:
            labels = Reduction(answer).labels(shape)
        except ValueError as error:
            return str(error)
        if np.array_equal(labels, Reduction(right).labels(shape)):
            return None
        for wrong, why in misconceptions:
            if np.array_equal(labels, Reduction(wrong).labels(shape)):
                return why
        return f"{answer!r} pools {Reduction(answer)}. Which axis has to survive?"

    return judge


def judge_function(
    right: Callable, cases: Callable[[], Sequence], misconceptions: Sequence[tuple[Callable, str]]
) -> Judge:
    """For a function of one tensor: run on every case and compared with the right one."""

    def judge(answer) -> str | None:
        if not callable(answer):
            return f"The answer is a function: got {_brief(answer)}."
        for x in cases():
            where = f"on an input of shape {tuple(x.shape)}"
            try:
                given = answer(x.clone())
            except Exception as error:  # of the learner's own code: part of the answer
                return f"It raises {type(error).__name__} {where}: {error}"
            if given is None:
                return f"It returns None {where}. Is a return missing?"
            if is_untouched(given):
                return NOT_ATTEMPTED
            expected = right(x)
            numbers = _as_numbers(given)
            if numbers is not None and _same(numbers, expected, tolerance=1e-4):
                continue
            for wrong, why in misconceptions:
                if numbers is not None and _same(numbers, _outcome(wrong, x), tolerance=1e-4):
                    return f"{why} (Seen {where}.)"
            return f"It returns {_brief(given)} {where}, where {_brief(expected)} is right."
        return None

    return judge


def _tuple_of(count: int) -> str:
    """``"a tuple of one number"``, ``"a tuple of 3 numbers"``."""
    return f"a tuple of {'one number' if count == 1 else f'{count} numbers'}"


def _as_numbers(answer) -> np.ndarray | None:
    try:
        if isinstance(answer, torch.Tensor) and not answer.is_complex():
            answer = answer.detach().cpu().double()
        if isinstance(answer, list | tuple):
            answer = [_as_numbers(part) for part in answer]
        numbers = np.asarray(answer)
    except Exception:  # whatever a learner typed: no numbers
        return None
    return numbers.astype(float) if numbers.dtype.kind in "iuf" else None


def _same(given: np.ndarray, wanted, tolerance: float = 0.005) -> bool:
    """Equal to three digits, or to the tolerance; counts exactly."""
    is_count = np.asarray(wanted).dtype.kind == "i"
    wanted = _as_numbers(wanted)
    return (
        wanted is not None
        and given.shape == wanted.shape
        and np.allclose(
            given, wanted, rtol=0 if is_count else tolerance, atol=0 if is_count else 1e-6
        )
    )


def _outcome(function: Callable, x):
    """What a wrong function returns, if it can take this x at all."""
    try:
        return function(x)
    except (RuntimeError, IndexError):
        return math.nan


def _brief(value) -> str:
    if isinstance(value, torch.Tensor) and value.numel() > 4:
        return f"a tensor of shape {tuple(value.shape)}"
    try:
        text = repr(value)
    except Exception:  # an object that cannot even say what it is
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:59] + "…"
