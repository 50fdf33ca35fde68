"""How an answer is judged: right, not yet (naming what was mixed up), or not attempted.

A judge is a function from an answer to a verdict; it returns None for a right one, which needs no
more words than the exercise has.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch

from normviz.picture import Picture, five_digits
from normviz.reduction import Reduction
from normviz.slices import Caption, draw_slices

RIGHT, NOT_YET, NOT_ATTEMPTED = "right", "not yet", "not attempted yet"
TOLERANCE = 1e-4  # of what a function returns
MARKS = {RIGHT: "✓", NOT_YET: "✗", NOT_ATTEMPTED: "…"}


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check, a hint or a solution has to say. A notebook shows it in a frame."""

    status: str  # "right", "not yet", "not attempted yet", "hint" or "solution"
    text: str
    picture: Picture | None = None  # of where an answer goes wrong

    def _repr_html_(self) -> str:
        style = "border-left:4px solid;padding:4px 12px;white-space:pre-wrap"
        words = f'<div style="{style}"><b>{escape(self._head)}</b> {escape(self.text)}</div>'
        return words + (self.picture._repr_html_() if self.picture else "")

    def __repr__(self) -> str:
        return f"{self._head} {self.text}"

    @property
    def _head(self) -> str:
        return f"{MARKS.get(self.status, '')} {self.status.capitalize()}.".strip()


Judge = Callable[[object], Verdict | None]
UNTOUCHED = Verdict(NOT_ATTEMPTED, "There is no answer yet.")


def is_untouched(answer) -> bool:
    """Whether an answer is still the placeholder: ``...``, None, or an empty string."""
    return answer is ... or answer is None or (isinstance(answer, str) and not answer.strip())


def not_yet(text: str, picture: Picture | None = None) -> Verdict:
    """What is wrong with an answer."""
    return Verdict(NOT_YET, text, picture)


def judge_numbers(right, misconceptions: Sequence[tuple[object, str]]) -> Judge:
    """For a count, exactly; for other numbers, alone or in a tuple or tensor, to three digits."""

    def judge(answer) -> Verdict | None:
        given = _as_numbers(answer)
        if given is None:
            return not_yet(f"The answer is a number or a tuple of numbers: got {_brief(answer)}.")
        if _same(given, right):
            return None
        for wrong, why in misconceptions:
            if _same(given, wrong):
                return not_yet(why)
        if given.shape != np.shape(right):
            wanted = "one number" if np.ndim(right) == 0 else _tuple_of(np.size(right))
            return not_yet(f"The answer is {wanted}: got {_brief(answer)}.")
        return not_yet(f"{_brief(answer)} is not it. The hint may help.")

    return judge


def judge_choice(right: str | bool, misconceptions: Mapping[str | bool, str]) -> Judge:
    """For one word of several, in upper or lower case, or for True or False."""
    choices = sorted([right, *misconceptions], key=str, reverse=right in (True, False))

    def judge(answer) -> Verdict | None:
        given = bool(answer) if isinstance(answer, np.bool_) else answer
        given = given.strip().lower() if isinstance(given, str) else given
        if not isinstance(given, str | bool) or given not in choices:
            offered = " or ".join(map(repr, choices))
            return not_yet(f"The answer is {offered}: got {_brief(answer)}.")
        return None if given == right else not_yet(misconceptions[given])

    return judge


def judge_pattern(right: str, shape, misconceptions: Sequence[tuple[str, str]]) -> Judge:
    """For a pattern: right if it pools the same numbers, whatever the axes are called."""

    def judge(answer) -> Verdict | None:
        if not isinstance(answer, str) or len(answer) > 100:
            return not_yet(f"The answer is a pattern, in quotes: got {_brief(answer)}.")
        try:
            labels = Reduction(answer).labels(shape)
        except ValueError as error:
            return not_yet(str(error))
        if np.array_equal(labels, Reduction(right).labels(shape)):
            return None
        for wrong, why in misconceptions:
            if np.array_equal(labels, Reduction(wrong).labels(shape)):
                return not_yet(why)
        return not_yet(f"{answer!r} pools {Reduction(answer)}. Which axis has to survive?")

    return judge


def judge_function(
    right: Callable,
    cases: Callable[[], Sequence],
    misconceptions: Sequence[tuple[Callable, str]],
    *,
    slices: str | Callable | None = None,
    observe: Callable | None = None,
) -> Judge:
    """For a function: run on every case and compared with the right one.

    Args:
        right: the function that is wanted.
        cases: makes the inputs: tensors, or tuples of arguments that begin with one.
        misconceptions: wrong functions, and what is to be said of each.
        slices: how the first case that differs is taken apart for its picture: a pattern, or a
            function from the arguments to a Reduction; None for no picture.
        observe: ``observe(function, *arguments)`` gives what is compared, such as a gradient;
            if not given, what the function returns.
    """

    def judge(answer) -> Verdict | None:
        if not callable(answer):
            return not_yet(f"The answer is a function: got {_brief(answer)}.")
        for case in cases():
            arguments = case if isinstance(case, tuple) else (case,)
            where = f"on an input of shape {tuple(arguments[0].shape)}"
            try:
                given = answer(*_copies(arguments))
                if observe and not is_untouched(given):
                    given = observe(answer, *_copies(arguments))
            except Exception as error:  # of the learner's own code: part of the answer
                return not_yet(f"It raises {type(error).__name__} {where}: {error}")
            if given is None:
                return not_yet(f"It returns None {where}. Is a return missing?")
            if is_untouched(given):
                return UNTOUCHED
            expected, numbers = _outcome(right, arguments, observe), _as_numbers(given)
            if numbers is None:
                return not_yet(f"It returns {_brief(given)} {where}. Numbers are wanted.")
            if _same(numbers, expected, TOLERANCE):
                continue
            picture = _draw_difference(arguments, slices, numbers, _as_numbers(expected))
            for wrong, why in misconceptions:
                if _same(numbers, _outcome(wrong, arguments, observe), TOLERANCE):
                    return not_yet(f"{why} (Seen {where}.)", picture)
            return not_yet(f"{_compare(numbers, _as_numbers(expected))} {where}.", picture)
        return None

    return judge


def _compare(given: np.ndarray, expected: np.ndarray) -> str:
    if given.shape != expected.shape:
        return f"It gives the shape {given.shape} instead of {expected.shape}"
    index = np.unravel_index(np.argmax(_differ(given, expected)), given.shape)
    where = f" at {list(map(int, index))}" if index else ""
    return f"It gives {given[index]:.5g} instead of {expected[index]:.5g}{where}"


def _differ(given: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return ~np.isclose(given, expected, rtol=TOLERANCE, atol=1e-6)


def _copies(arguments: tuple) -> list:
    """So that a function which overwrites its input disturbs nothing."""
    return [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]


def _outcome(function: Callable, arguments: tuple, observe: Callable | None):
    """What a function of our own gives; nan where a wrong one can't take these arguments."""
    try:
        copies = _copies(arguments)
        return observe(function, *copies) if observe else function(*copies)
    except (RuntimeError, IndexError):
        return math.nan


def _draw_difference(arguments, slices, given, expected) -> Picture | None:
    """The first slice in which two outcomes differ, if they can be laid over the input."""
    if slices is None or given.shape != expected.shape:
        return None
    reduction = slices(*arguments) if callable(slices) else Reduction(slices)
    shape = tuple(arguments[0].shape)
    labels = reduction.labels(shape)
    if expected.shape == reduction.stat_shape(shape):
        drawn, title = arguments[0], "The input, and your result for each slice"
        given, expected = (reduction.spread(stat, shape) for stat in (given, expected))
        numbers = 1  # of each slice: one is enough
    elif expected.shape == shape:
        drawn, title, numbers = given, "Your result; the slice in which it differs first is lit", 4
    else:
        return None
    differ = _differ(given, expected)

    def caption(label: int) -> Caption:
        here = labels == label
        order = np.argsort(~differ[here], kind="stable")[:numbers]  # first those that differ
        yours, right = given[here][order], expected[here][order]
        return Caption(
            values=(("yours", "yours", float(yours[0])), ("right", "right", float(right[0]))),
            lines=tuple(
                f"{whose}: {', '.join(map(five_digits, values))}"
                for whose, values in (("yours", yours), ("right", right))
            ),
        )

    lit = int(labels[differ].min()) if differ.any() else None
    return draw_slices(drawn, reduction, title=title, caption=caption, lit=lit)


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


def _brief(value) -> str:
    if isinstance(value, torch.Tensor) and value.numel() > 4:
        return f"a tensor of shape {tuple(value.shape)}"
    try:
        text = repr(value)
    except Exception:  # an object that cannot even say what it is
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:59] + "…"
