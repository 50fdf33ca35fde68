"""Questions on a page without a kernel: what ``check`` says to each answer that it knows, recorded.

A prediction is judged when its answer is unfolded, or a number when it was typed. Nobody judges a
function here.
"""

import json
import re
from html import escape

import numpy as np

from cells import outputs_in, replace
from normviz.checking import QUESTIONS, check, hint
from normviz.exercises.exercise import Prediction
from normviz.judging import Commitment, not_yet, tolerance_of

ASKS = re.compile(r"^(\w+) = predict\(", re.MULTILINE)
JUDGES = re.compile(r'^check\("(\w+)", (\w+|\.\.\.)\)$', re.MULTILINE)
PENDING = 'class="nv-not-attempted-yet"'
ODD, GIVEN = 10**9 + 7, "¤"  # a number that nobody has in mind, and what stands for an answer


class Said(Commitment):
    """A choice that was made."""

    def __init__(self, choice: str):
        self.choice = choice

    def commit(self) -> str:
        """The choice."""
        return self.choice


def record_questions(app, doctree):
    """In a lesson, add to each question what is said to its answers."""
    chosen = {}  # the name of a variable → the form in which it is chosen
    for cell, outputs in outputs_in(app, doctree):
        if asked := ASKS.search(cell.source):
            chosen[asked[1]] = outputs[-1]
        judged, pending = JUDGES.search(cell.source), [o for o in outputs if PENDING in o.astext()]
        if not judged or not pending:
            continue
        name, answer = judged.groups()
        if isinstance(QUESTIONS[name], Prediction):
            form = chosen[answer]
            replace(form, f'<div class="nv-asked" data-name="{name}">{form.astext()}</div>')
            replace(pending[-1], f'<div id="nv-{name}">{verdicts_on_choices(name)}</div>')
        elif hasattr(QUESTIONS[name].judge, "known"):
            replace(pending[-1], field_for(name))


def verdicts_on_choices(name: str) -> str:
    """For each choice, what ``check`` says."""
    said = {choice: check(name, Said(choice)) for choice in sorted(QUESTIONS[name].choices)}
    return "".join(
        f'<div class="nv-verdict" data-answer="{escape(choice)}" hidden>{v._repr_html_()}</div>'
        for choice, v in said.items()
    )


def field_for(name: str) -> str:
    """A field for an answer, and what ``check`` says to each that it knows, and to any other."""
    known = QUESTIONS[name].judge.known
    is_text = isinstance(known[0], str)
    asked = "in words or as a pattern" if is_text else "a number, or several with commas"
    rows = [[bounds_of(known[0], answer), check(name, answer)._repr_html_()] for answer in known]
    count = 1 if is_text else np.size(known[0])
    others = [ODD if n == 1 else (ODD,) * n for n in (count, 1 + (count == 1))]  # how many numbers
    said = [check(name, GIVEN if is_text else odd) for odd in others]
    if is_text and "->" in known[0]:
        said = [not_yet(f"{GIVEN} is not it; or a kernel has to tell. The hint may help.")] * 2
    said = [
        v._repr_html_().replace(escape(str(o)), GIVEN) for v, o in zip(said, others, strict=True)
    ]
    recorded = escape(json.dumps([rows, *said], ensure_ascii=False))
    return (
        f'<form class="nv-field" data-name="{name}" data-recorded="{recorded}">'
        f'<label>Your answer, {asked} <input autocomplete="off" spellcheck="false"></label> '
        f"<button>Check</button><output></output></form>"
        f'<details class="nv-hint"><summary>Hint</summary>{hint(name)._repr_html_()}</details>'
    )


def bounds_of(right, answer) -> str | tuple[bool, list[tuple[float, float]]]:
    """A text as it is. Of a number or a tuple: which it is, and from where to where each counts."""
    if isinstance(answer, str):
        return answer
    tolerance = tolerance_of(right, answer)
    room = [tolerance * abs(n) + 1e-6 * bool(tolerance) for n in np.ravel(answer).tolist()]
    numbers = zip(np.ravel(answer).tolist(), room, strict=True)
    return np.ndim(answer) > 0, [(n - room, n + room) for n, room in numbers]


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-read", record_questions)
