"""The notebooks: each is committed without traces, and built as a lesson."""

import ast
import re
from statistics import median

import nbformat
import pytest

from normviz.exercises import EXERCISES
from tools.notebooks import LESSONS, read


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
def test_a_lesson_asks_only_exercises_that_exist(name):
    assert set(exercises_in(name)) <= set(EXERCISES)


def test_every_exercise_is_asked_in_a_lesson():
    assert {asked for name in LESSONS for asked in exercises_in(name, ("check",))} == set(EXERCISES)


@pytest.mark.parametrize("name", LESSONS[1:])
def test_a_lesson_asks_at_least_five_exercises_and_each_one_once(name):
    asked = exercises_in(name, ("check",))
    assert len(asked) >= 5 + (name == LESSONS[1])
    assert len({*asked}) == len(asked)
