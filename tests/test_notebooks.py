"""The notebooks: each is committed without traces, and built as a lesson."""

import ast
import re
from statistics import median

import minutes
import nbformat
import pytest

from normviz.exercises import EXERCISES, PREDICTIONS
from tools.notebooks import FOLDER, LESSONS, read


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose_cells(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def shown(prose):
    """Prose without tables, tags and the addresses of links."""
    return re.sub(r"^\|.*|<[^>]*>|\]\([^)]*\)", "", prose, flags=re.MULTILINE)


def exercises_in(name, functions=("check", "hint", "solution")):
    calls = [
        node
        for cell in code_cells(read(name))
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in functions
    ]
    return [call.args[0].value for call in calls]


lesson = pytest.mark.parametrize("name", LESSONS)


@lesson
def test_a_notebook_is_committed_without_traces_of_a_run(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert re.fullmatch(r"\d\d(_[a-z0-9]+)+\.ipynb", name)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert "execution" not in cell.metadata  # when it was run


@lesson
def test_cells_are_short(name):
    lines = [len(cell.source.splitlines()) for cell in code_cells(read(name))]
    words = [len(re.findall(r"[^\W\d_]+", shown(prose))) for prose in prose_cells(read(name))]
    assert median(lines) <= 3
    assert max(lines) <= 15
    assert median(words) <= 45


@lesson
def test_a_lesson_says_what_it_is_for_and_what_to_remember(name):
    first, *_, last = prose_cells(read(name))
    assert re.match(r"# \w", first)
    for promise in ("**What you will do:**", "**What you will learn:**", "**What you need:**"):
        assert promise in first
    assert re.search(r"\bminutes\b", first)
    assert last.startswith("## Remember\n\n1. ")
    assert "**Next:**" in last


@lesson
def test_headings_ask_and_none_tells(name):
    headings = re.findall(
        r"^#{2,} (?:\d+\. )?(.*)", "\n".join(prose_cells(read(name))), re.MULTILINE
    )
    assert [heading for heading in headings if not heading.endswith("?")] == [
        heading for heading in headings if heading in FURNITURE
    ]


FURNITURE = {"Play", "Exercises", "Remember", "Sources", "The map of the series", "Second sitting"}


@lesson
def test_what_is_asked_aloud_has_an_answer_that_is_folded(name):
    told = "\n".join(prose_cells(read(name)))
    assert "wrong idea" not in told.lower()
    assert told.count("<details>") == told.count("</details>") == told.count("<summary>")
    for cell in read(name).cells:
        if cell.id == "break":
            assert cell.source.startswith("> **Time to talk.**")
            assert "<details>" in cell.source


def predictions_of(notebook):
    """Name → the cells of each prediction: question, choice, what tells, and the answer."""
    found = {}
    for place, cell in enumerate(notebook.cells):
        asked = re.findall(r'check\("(\w+)"', cell.source) if cell.cell_type == "code" else []
        if any(name in PREDICTIONS for name in asked):
            found[asked[0]] = notebook.cells[place - 2 : place + 2]
    return found


@lesson
def test_a_prediction_is_made_before_the_cell_that_tells_and_its_answer_is_folded(name):
    for asked, (question, choice, telling, answer) in predictions_of(read(name)).items():
        assert "**Predict" in question.source, asked
        [given] = ast.parse(choice.source).body
        last = ast.parse(telling.source).body[-1].value
        assert [last.func.id, last.args[1].id] == ["check", given.targets[0].id]
        assert given.value.func.id == "predict"
        choices = [argument.value for argument in given.value.args]
        assert sorted(choices) == sorted(PREDICTIONS[asked].choices), asked
        assert telling.metadata == {"tags": ["hide-output"]}
        assert answer.source.startswith("<details><summary>What happened</summary>\n\n")


@lesson
def test_a_lesson_asks_for_six_to_eight_predictions_and_calls_nothing_else_one(name):
    asked = len(predictions_of(read(name)))
    assert "\n".join(prose_cells(read(name))).count("**Predict") == asked
    assert (6 if name != LESSONS[0] else 1) <= asked <= 8


@lesson
def test_no_two_predictions_of_a_lesson_share_their_choices(name):
    cells = [choice.source for _, choice, *_ in predictions_of(read(name)).values()]
    assert len({cell.partition("predict")[2] for cell in cells}) == len(cells)


def test_every_prediction_is_asked_in_a_lesson():
    assert {asked for name in LESSONS for asked in predictions_of(read(name))} == set(PREDICTIONS)


@lesson
def test_a_lesson_takes_as_long_as_it_says_and_no_sitting_is_too_long(name):
    said, counted = minutes.stated(read(name)), minutes.counted(read(name))
    for about, true in zip(said, counted, strict=True):
        assert abs(true / about - 1) <= 0.2
        assert max(about, true) <= (60 if len(said) == 1 else 45)


@pytest.mark.parametrize("page", ["README.md", "docs/teaching/README.md"])
def test_a_list_of_the_lessons_says_how_long_they_take(page):
    rows = (FOLDER.parent / page).read_text(encoding="utf-8").splitlines()
    for name in LESSONS[1:]:
        [row] = [row for row in rows if row.startswith(f"| [{name[:2]} ")]
        assert f"| {' + '.join(map(str, minutes.stated(read(name))))}" in row


def test_the_map_tells_one_sitting_from_two():
    [rows] = [
        prose.splitlines() for prose in prose_cells(read(LESSONS[0])) if "## The map" in prose
    ]
    for name in LESSONS[1:]:
        [row] = [row for row in rows if f"({name})" in row]
        said = minutes.stated(read(name))
        assert row.endswith(f"| {said[0] if len(said) == 1 else 'two sittings'} |")


@lesson
def test_a_lesson_asks_only_what_there_is(name):
    assert set(exercises_in(name)) <= EXERCISES.keys() | PREDICTIONS.keys()


def test_every_exercise_is_asked_in_a_lesson():
    asked = {asked for name in LESSONS for asked in exercises_in(name, ("check",))}
    assert asked - PREDICTIONS.keys() == set(EXERCISES)


@pytest.mark.parametrize("name", LESSONS[1:])
def test_a_lesson_asks_at_least_five_exercises_and_each_one_once(name):
    asked = [asked for asked in exercises_in(name, ("check",)) if asked in EXERCISES]
    assert len(asked) >= 5 + (name == LESSONS[1])
    assert len({*asked}) == len(asked)
