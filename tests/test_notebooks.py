"""The notebooks: each runs from top to bottom without a complaint, and is built as a lesson."""

import ast
import re
from functools import cache
from itertools import chain
from pathlib import Path
from statistics import median

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from normviz.exercises import EXERCISES
from tools.notebooks import LESSONS, WINDOWS, read, run

TEACHING = Path(__file__).parents[1] / "docs" / "teaching"
WIDGETS = "application/vnd.jupyter.widget-state+json"


def complaints(ran):
    """All that went wrong in a notebook that was run, also where ipywidgets swallowed it."""
    if ran.log and not WINDOWS:
        yield f"the kernel's log: {ran.log}"
    for cell in code_cells(ran.notebook):
        for output in cell.outputs:
            if is_mishap(output):
                yield f"{cell.source}: {output}"
    for widget in (
        ran.notebook.metadata.get("widgets", {}).get(WIDGETS, {"state": {}})["state"].values()
    ):
        for value in everything_in(widget["state"]):
            if is_mishap(value):
                yield f"{widget['model_name']}: {value}"


def is_mishap(value):
    """Whether an output, or a string in a widget's state, is an error, a warning or a refusal."""
    if isinstance(value, dict):
        return value.get("output_type") == "error" or value.get("name") == "stderr"
    signs = ("Traceback (most recent call last)", 'role="alert"')
    return isinstance(value, str) and any(sign in value for sign in signs)


def everything_in(value):
    yield value
    if isinstance(value, dict):
        value = value.values()
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        yield from chain.from_iterable(map(everything_in, value))


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


@cache
def run_lesson(name):
    return run(*read(name).cells)


lesson = pytest.mark.parametrize("name", LESSONS)


@lesson
def test_run_all_meets_no_error_no_warning_and_no_refusal(name):
    ran = run_lesson(name)
    assert list(complaints(ran)) == []
    assert all(cell.execution_count for cell in code_cells(ran.notebook))


@lesson
def test_a_lesson_fits_a_small_machine(name):
    assert run_lesson(name).megabytes < 450
    assert run_lesson(name).processor < 15


MISHAPS = {
    "an error": "1 / 0",
    "a print to stderr": "import sys; print('ZeroDivisionError', file=sys.stderr)",
    "a warning": "import warnings; warnings.warn('ZeroDivisionError')",
    "a library below Python": "import os; os.write(2, b'ZeroDivisionError')",
    "interact": "widgets.interact(lambda n: 1 / n, n=(0, 0));",
    "an output": "out = widgets.Output()\nwith out:\n    1 / 0\nout",
    "an output that is not shown": "with widgets.Output():\n    1 / 0",
    "an output in a box": "out = widgets.Output()\ndisplay(widgets.VBox([out]))\n"
    "with out:\n    1 / 0",
    "a warning in an output": "import warnings\nwith widgets.Output():\n"
    "    warnings.warn('ZeroDivisionError')",
    "a callback": "slider, out = widgets.IntSlider(), widgets.Output()\n"
    "slider.observe(out.capture()(lambda change: 1 / 0), 'value')\nslider.value = 1",
    "an error shown by a lab": "try:\n    1 / 0\nexcept ZeroDivisionError:\n"
    "    import traceback\n    box = widgets.HTML(traceback.format_exc())",
    "a refusal of a lab": "box = widgets.HTML('<p role=\"alert\">ZeroDivisionError</p>')",
}
IMPORTS = "import ipywidgets as widgets\nfrom IPython.display import display"


@pytest.mark.parametrize("mishap", MISHAPS)
def test_no_mishap_stays_hidden(mishap):
    found = complaints(run(new_code_cell(IMPORTS), new_code_cell(MISHAPS[mishap])))
    assert any("ZeroDivisionError" in complaint for complaint in found)


def test_a_widget_without_a_mishap_is_no_reason_to_complain():
    source = "widgets.interact(lambda n: 1 / n, n=(1, 3));"
    ran = run(new_code_cell(IMPORTS), new_code_cell(source))
    assert len(ran.notebook.metadata.widgets[WIDGETS]["state"]) > 3
    assert list(complaints(ran)) == []


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


@pytest.mark.parametrize("name", LESSONS[1:])
def test_a_lab_is_followed_by_a_picture_that_needs_no_kernel(name):
    cells = code_cells(run_lesson(name).notebook)
    (lab,) = (
        i for i, cell in enumerate(cells) if re.search(r"labs\.\w+_lab\([^)]*\)$", cell.source)
    )
    shown = [set(cell.outputs[-1].data) for cell in cells[lab : lab + 2]]
    assert "application/vnd.jupyter.widget-view+json" in shown[0] - shown[1]
    assert "<svg" in cells[lab + 1].outputs[-1].data["text/html"]


@pytest.mark.parametrize("name", LESSONS[1:])
def test_the_teaching_plan_has_a_question_before_each_picture_and_the_lab(name):
    cells = code_cells(run_lesson(name).notebook)
    seen = re.compile("<svg|widget-view")
    shown = [cell.id for cell in cells if any(seen.search(str(o)) for o in cell.outputs)]
    plan = (TEACHING / name).with_suffix(".md").read_text(encoding="utf-8")
    table = plan.partition("## Before each picture\n")[2].partition("\n## ")[0]
    rows = [row.strip("|").split(" | ") for row in table.splitlines() if "#cell-id=" in row]
    assert [re.search(r"#cell-id=([\w-]+)\)", row[0])[1] for row in rows] == shown
    for row in rows:  # the picture, the question, what will be said, why, and the answer
        assert len(row) == 5
        assert all(map(str.strip, row))
