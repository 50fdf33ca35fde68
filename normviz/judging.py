"""How an answer is judged: right, not yet (naming what was mixed up), or not attempted.

A judge is a function from an answer to a verdict; it returns None for a right one, which needs no
more words than the exercise has.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from html import escape

import numpy as np
import torch

from normviz.difference import TOLERANCE, describe_difference, differs, draw_difference
from normviz.picture import Picture
from normviz.reduction import Reduction

RIGHT, NOT_YET, NOT_ATTEMPTED = "right", "not yet", "not attempted yet"
NOT_SO = "not so"  # of a prediction
MARKS = {RIGHT: "✓", NOT_YET: "✗", NOT_SO: "✗", NOT_ATTEMPTED: "…"}


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check, a hint or a solution has to say. A notebook shows it in a frame."""

    status: str  # "right", "not yet", "not so", "not attempted yet", "hint" or "solution"
    text: str
    picture: Picture | None = None  # of where an answer goes wrong

    def _repr_html_(self) -> str:
        style = "border-left:4px solid;padding:4px 12px;white-space:pre-wrap"
        words = f'<div class="nv-{escape(self.status).replace(" ", "-")}" style="{style}">'
        words += f"<b>{escape(self._head)}</b> {escape(self.text)}</div>"
        return words + (self.picture._repr_html_() if self.picture else "")

    def __repr__(self) -> str:
        return f"{self._head} {self.text}"

    @property
    def _head(self) -> str:
        return f"{MARKS.get(self.status, '')} {self.status.capitalize()}.".strip()


Judge = Callable[[object], Verdict | None]  # ``known``: see _knowing
UNTOUCHED = Verdict(NOT_ATTEMPTED, "")


class Commitment:
    """An answer that is given elsewhere, by a click, and stays once it was looked at."""

    def commit(self):
        """The answer, or None as long as there is none."""
        raise NotImplementedError


@contextmanager
def undisturbed() -> Iterator[None]:
    """torch as in a new kernel, whatever was set before, and all of it back afterwards."""
    dtype = torch.get_default_dtype()
    with (
        torch.inference_mode(False),  # and gradients on
        torch.autocast("cpu", enabled=False),
        torch.device("cpu"),
    ):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


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
        if _same(given, right, tolerance_of(right)):
            return None
        for wrong, why in misconceptions:
            if _same(given, wrong, tolerance_of(right, wrong)):
                return not_yet(why)
        if given.shape != np.shape(right):
            wanted = "one number" if np.ndim(right) == 0 else _tuple_of(np.size(right))
            return not_yet(f"The answer is {wanted}: got {_brief(answer)}.")
        return not_yet(f"{_brief(answer)} is not it. The hint may help.")

    return _knowing(judge, right, misconceptions)


def judge_choice(right: str, misconceptions: Mapping[str, str]) -> Judge:
    """For one of several, in upper or lower case.

    Args:
        right: the right one.
        misconceptions: each of the others, and what is to be said of it.
    """
    told = {choice.lower(): why for choice, why in misconceptions.items()}
    offered = " or ".join(map(repr, sorted([right, *misconceptions])))

    def judge(answer) -> Verdict | None:
        given = answer.strip().lower() if isinstance(answer, str) else None
        if given == right.lower():
            return None
        if given not in told:
            return not_yet(f"The answer is {offered}: got {_brief(answer)}.")
        return not_yet(told[given])

    return _knowing(judge, right, misconceptions.items())


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

    return _knowing(judge, right, misconceptions)


def judge_function(
    right: Callable,
    cases: Callable[[], Sequence],
    misconceptions: Sequence[tuple[Callable, str]],
    *,
    slices: str | Callable[..., Reduction],
    observe: Callable | None = None,
) -> Judge:
    """For a function: run on every case and compared with the right one.

    Args:
        right: the function that is wanted.
        cases: makes the inputs: tensors, or tuples of arguments that begin with one.
        misconceptions: wrong functions, and what is to be said of each.
        slices: how the first case that differs is taken apart for its picture: a pattern, or a
            function from the arguments to a Reduction.
        observe: ``observe(function, *arguments)`` gives what is compared, such as a gradient;
            if not given, what the function returns.
    """

    def copies(arguments: tuple) -> list:  # so that whoever overwrites one disturbs nothing
        arguments = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
        return [deepcopy(a) if isinstance(a, torch.nn.Module) else a for a in arguments]

    def outcome(function: Callable, arguments: tuple):
        own = copies(arguments)
        return observe(function, *own) if observe else function(*own)

    def is_known(wrong: Callable, arguments: tuple, given: np.ndarray) -> bool:
        try:
            return _same(given, outcome(wrong, arguments), TOLERANCE)
        except (RuntimeError, IndexError):  # it can't take these arguments
            return False

    def judge(answer) -> Verdict | None:
        if not callable(answer):
            return not_yet(f"The answer is a function: got {_brief(answer)}.")
        answer = undisturbed()(answer)  # nor does one call disturb the next
        for case in cases():
            arguments = case if isinstance(case, tuple) else (case,)
            where = f"on an input of shape {tuple(arguments[0].shape)}"
            try:
                given = answer(*copies(arguments))
                if observe and not is_untouched(given):
                    given = outcome(answer, arguments)
            except KeyboardInterrupt:  # of the learner, who waits no longer
                raise
            except BaseException as error:  # of the learner's own code: part of the answer
                return not_yet(f"It raises {type(error).__name__} {where}: {_brief(error, str)}")
            if given is None:
                return not_yet(f"It returns None {where}. Is a return missing?")
            if is_untouched(given):
                return UNTOUCHED
            numbers, wanted = _as_numbers(given), _as_numbers(outcome(right, arguments))
            if numbers is None:
                return not_yet(f"It returns {_brief(given)} {where}. Numbers are wanted.")
            if _same(numbers, wanted, TOLERANCE):
                continue
            reduction = slices(*arguments) if callable(slices) else Reduction(slices)
            picture = draw_difference(arguments[0], reduction, numbers, wanted)
            for wrong, why in misconceptions:
                if is_known(wrong, arguments, numbers):
                    return not_yet(f"{why} (Seen {where}.)", picture)
            return not_yet(f"{describe_difference(numbers, wanted)} {where}.", picture)
        return None

    return judge


def _knowing(judge: Judge, right, misconceptions) -> Judge:
    """The judge, with all answers of which it has more to say than that they are wrong."""
    judge.known = right, *(wrong for wrong, _ in misconceptions)
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


def tolerance_of(*numbers) -> float:
    """0 for counts, which have to be equal; 0.005 for others."""
    return 0 if all(np.asarray(number).dtype.kind == "i" for number in numbers) else 0.005


def _same(given: np.ndarray, wanted, tolerance: float) -> bool:
    wanted = _as_numbers(wanted)
    return (
        wanted is not None
        and given.shape == wanted.shape
        and not differs(given, wanted, tolerance).any()
    )


def _brief(value, say: Callable[[object], str] = repr) -> str:
    if isinstance(value, torch.Tensor) and value.numel() > 4:
        return f"a tensor of shape {tuple(value.shape)}"
    try:
        text = say(value)
    except Exception:  # an object that cannot even say what it is
        text = f"a {type(value).__name__}"
    most = 60 if say is repr else 200  # an error may say more
    return text if len(text) <= most else text[: most - 1] + "…"
