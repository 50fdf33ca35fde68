"""The lessons run without a complaint, whenever and wherever a reader begins."""

import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from minutes import SECOND
from nbformat.v4 import new_code_cell

from tools.notebooks import LESSONS, WINDOWS, read, run

ROOT = Path(__file__).parents[1]
WIDGETS = "application/vnd.jupyter.widget-state+json"
every_lesson = pytest.mark.parametrize("name", LESSONS)


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


@every_lesson
def test_run_all_meets_no_error_no_warning_and_no_refusal(name, ran_lesson):
    ran = ran_lesson(name)
    assert list(complaints(ran)) == []
    assert all(cell.execution_count for cell in code_cells(ran.notebook))


@every_lesson
def test_a_lesson_fits_a_small_machine(name, ran_lesson):
    assert ran_lesson(name).megabytes < 450
    assert ran_lesson(name).processor < 24  # of 15 wanted, and some cells have run twice


def said_by(cell):
    """What a cell prints and returns, and the numbers in it."""
    text = " ".join(str(o.get("text") or o.get("data", {}).get("text/plain")) for o in cell.outputs)
    # Where a cell prints slowly, its output comes in pieces.
    return re.sub(NUMBER, "", text).split(), [float(number) for number in re.findall(NUMBER, text)]


NUMBER = r"-?\d+(?:\.\d*)?(?:e-?\d+)?"


@every_lesson
def test_who_predicts_only_after_run_all_meets_what_was_to_be_predicted(name, ran):
    first, again = ran(name)
    telling = [c for c in first.notebook.cells if c.metadata.get("tags") == ["hide-output"]]
    for cell, later in zip(telling, again, strict=True):
        (words, numbers), (later_words, later_numbers) = said_by(cell), said_by(later)
        assert later_words == words, cell.source
        assert later_numbers == pytest.approx(numbers, rel=0.1, abs=0.05), cell.source


@pytest.mark.parametrize(
    "name", [name for name in LESSONS if SECOND in {cell.id for cell in read(name).cells}]
)
def test_the_second_sitting_needs_nothing_of_the_first_but_its_first_code(name):
    lesson = read(name)
    [start] = [place for place, cell in enumerate(lesson.cells) if cell.id == SECOND]
    sitting = [cell for cell in lesson.cells[start:] if cell.cell_type == "code"]
    program = "\n".join(c.source for c in [code_cells(lesson)[0], *sitting])
    names = ["ruff", "check", "--isolated", "--select", "F821", "-"]  # that are not defined
    done = subprocess.run(
        [sys.executable, "-m", *names], input=program, stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, done.stdout


MISHAPS = {  # with "mishap" wherever a name is not defined or a text is told
    "an error": "mishap",
    "a print to stderr": "import sys; print('mishap', file=sys.stderr)",
    "a warning": "import warnings; warnings.warn('mishap')",
    "a library below Python": "import os; os.write(2, b'mishap')",
    "interact": "widgets.interact(lambda n: mishap, n=(0, 0));",
    "an output": "out = widgets.Output()\nwith out:\n    mishap\nout",
    "an output that is not shown": "with widgets.Output():\n    mishap",
    "an output in a box": "out = widgets.Output()\ndisplay(widgets.VBox([out]))\n"
    "with out:\n    mishap",
    "a warning in an output": "with widgets.Output():\n    warnings.warn('mishap')",
    "a callback": "slider, out = widgets.IntSlider(), widgets.Output()\n"
    "slider.observe(out.capture()(lambda change: mishap), 'value')\nslider.value = 1",
    "an error shown by a lab": "try:\n    mishap\nexcept NameError:\n"
    "    import traceback\n    box = widgets.HTML(traceback.format_exc())",
    "a refusal of a lab": "box = widgets.HTML('<p role=\"alert\">mishap</p>')",
}
IMPORTS = "import ipywidgets as widgets\nfrom IPython.display import display"


def test_no_mishap_stays_hidden_and_a_widget_without_one_is_no_reason_to_complain():
    numbered = [
        source.replace("mishap", f"mishap_{i}.") for i, source in enumerate(MISHAPS.values())
    ]
    fine = "widgets.interact(lambda n: display('fine'), n=(1, 3));"
    ran = run(*map(new_code_cell, [IMPORTS, fine, *numbered]), patience=10)
    found = [*complaints(ran)]
    assert "fine" in str(ran.notebook.metadata.widgets[WIDGETS])
    assert [name for i, name in enumerate(MISHAPS) if f"mishap_{i}." not in str(found)] == []
    assert "fine" not in str(found)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", LESSONS[1:])
def test_a_lab_is_followed_by_a_picture_that_needs_no_kernel(name, ran_lesson):
    cells = code_cells(ran_lesson(name).notebook)
    (lab,) = (
        i for i, cell in enumerate(cells) if re.search(r"labs\.\w+_lab\([^)]*\)$", cell.source)
    )
    shown = [set(cell.outputs[-1].data) for cell in cells[lab : lab + 2]]
    assert "application/vnd.jupyter.widget-view+json" in shown[0] - shown[1]
    assert "<svg" in cells[lab + 1].outputs[-1].data["text/html"]


@pytest.mark.parametrize("name", LESSONS[1:])
def test_the_teaching_plan_has_a_question_before_each_picture_and_the_lab(name, ran_lesson):
    cells = code_cells(ran_lesson(name).notebook)
    seen = re.compile("<svg|_lab")
    shown = [cell.id for cell in cells if seen.search(f"{cell.source} {cell.outputs}")]
    plan = (ROOT / "docs/teaching" / name).with_suffix(".md").read_text(encoding="utf-8")
    table = plan.partition("## Before each picture\n")[2].partition("\n## ")[0]
    rows = [row.strip("|").split(" | ") for row in table.splitlines() if "#cell-id=" in row]
    assert [re.search(r"#cell-id=([\w-]+)\)", row[0])[1] for row in rows] == shown
    for row in rows:  # the picture, the question, what will be said, why, and the answer
        assert len(row) == 5
        assert all(map(str.strip, row))
