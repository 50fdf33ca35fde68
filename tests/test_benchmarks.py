"""The benchmarks: what they report is what they measured, and the results here are whole."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
from nbformat.v4 import new_notebook

from benchmarks import browser, compare, layers, lessons, pictures, run, workers
from benchmarks.compare import Row, Section, Spread, in_turns
from benchmarks.report import HEAD, Report
from normviz.workers import together
from tools.notebooks import LESSONS, Run, read

FOLDER = Path(run.__file__).parent
RESULTS = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
SECTION = Section(
    "The layers",
    [
        Row("forward", "torch.nn", Spread(1.25, 1.2, 1.3), aim=1.5),
        Row("backward", "torch.nn", Spread(1.501, 1.4, 1.6), aim=1.5),
        Row("a picture", "–", Spread(298_765, 298_765, 298_765), aim=300_000, unit="bytes"),
        Row("error", "an oracle", Spread(1.5e18, 0, 2e18), unit="ulp"),
    ],
    "One thread.",
)


def rows_of(page):
    """Module → the rows below the head of ours in its section, as cells."""
    for part in page.split("\n## ")[1:]:
        module = re.search(r"\nMeasured by \[.*\]\((\w+)\.py\)\.\n", part)[1]
        table = part.partition(f"| {' | '.join(HEAD)} |\n")[2].partition("\n\n")[0]
        rows = [line[1:-1].split("|") for line in table.splitlines()[1:]]
        yield module, [[cell.strip() for cell in row] for row in rows]


def test_the_page_gives_back_every_row_that_was_measured():
    [(_, rows)] = rows_of(Report({"layers": SECTION}).page())
    assert rows == [
        ["forward", "torch.nn", "1.25× (1.20–1.30×)", "≤ 1.50×", "met"],
        ["backward", "torch.nn", "1.50× (1.40–1.60×)", "≤ 1.50×", "missed"],
        ["a picture", "–", "298,765 bytes", "≤ 300,000 bytes", "met"],
        ["error", "an oracle", "1.50e18 ulp (0–2.00e18 ulp)", "", ""],
    ]


def test_page_and_table_count_the_aims_and_name_what_was_skipped():
    report = Report({"layers": SECTION}, {"browser": "No chromium here."}, quick=True)
    for text in (report.page(), report.table()):
        assert "\nAims met: 2 of 3.\n" in text
        assert "\nSkipped: browser. No chromium here." in text
    assert SECTION.notes in report.page()
    assert "quick run" in report.page()


STUB = """
from os import getpid
from benchmarks.compare import Row, Section, Spread
def measure(*, quick):
    return Section("Stub", [Row(f"quick: {quick}", "–", Spread.of([getpid()] * 2))])
"""
STUBS = {"pictures": "import no_such_peer", "browser": "open('no-such-browser')"}


def run_stubs(folder, *arguments):
    """A run of modules that measure nothing: what it prints, and its page."""
    copy = shutil.copytree(FOLDER, folder / "benchmarks")
    for module in run.MODULES:
        (copy / f"{module}.py").write_text(STUBS.get(module, STUB), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.run", *arguments]
    utf_8 = os.environ | {"PYTHONUTF8": "1"}  # for what is printed on Windows
    printed = subprocess.check_output(command, cwd=folder, encoding="utf-8", env=utf_8)
    return printed, (copy / "RESULTS.md").read_text(encoding="utf-8")


def test_a_run_measures_each_module_in_a_process_of_its_own_and_writes_the_page(tmp_path):
    printed, page = run_stubs(tmp_path)
    sections = dict(rows_of(page))
    assert [*sections] == ["layers", "workers", "site", "lessons", "exactness"]
    assert {row[0] for [row] in sections.values()} == {"quick: False"}
    assert len({row[2] for [row] in sections.values()}) == len(sections)
    for line in ("Skipped: pictures. No module named 'no_such_peer'", "no-such-browser"):
        assert line in page
        assert line in printed


def test_a_part_is_printed_and_the_page_stays_as_it_is(tmp_path):
    printed, page = run_stubs(tmp_path, "layers", "--quick")
    assert printed.count("quick: True") == 1
    assert page == RESULTS


def test_the_results_have_rows_for_every_module_and_count_their_aims():
    sections = dict(rows_of(RESULTS))
    assert [*sections] == [*run.MODULES]
    assert all(len(rows) > 5 for rows in sections.values())
    verdicts = [row[-1] for rows in sections.values() for row in rows]
    met, missed = verdicts.count("met"), verdicts.count("missed")
    assert f"\nAims met: {met} of {met + missed}.\n" in RESULTS
    assert not re.search("Skipped:|quick run", RESULTS)


@pytest.mark.parametrize("module", [layers, pictures, workers])
def test_a_quick_run_has_a_row_for_each_thing(module, monkeypatch):
    two_rounds = partial(in_turns, rounds=2)
    monkeypatch.setattr(compare, "in_turns", lambda ways, *_, **__: two_rounds(ways))
    rows = module.measure(quick=True).rows
    assert len({(row.what, row.against) for row in rows}) == len(rows) > 5


def test_of_the_controls_of_a_lab_the_slowest_counts():
    times = {browser.FLOOR: 10, browser.Move("a_lab", "x"): 10, browser.Move("a_lab", "y"): 30}
    notebook = SimpleNamespace(moves=[*times], use=lambda move: repeat(times[move]))
    p50, p95 = browser.slider_rows(notebook, "a lab", 2, rounds=3)
    assert (p50.what, p50.cost.median, p50.met) == ("a lab: p50", 3, False)
    assert (p95.what, p95.cost.median, p95.met) == ("a lab: p95", 3, False)


@pytest.mark.browser
def test_every_lab_and_every_picture_answers_in_the_browser(chromium, server):
    moves = [some[0] for _, some in browser.WAYS.values()]
    [picture, _] = browser.PICTURES.values()
    with browser.opened(chromium, server, [browser.FLOOR, *moves, picture]) as notebook:
        assert all(next(notebook.use(move)) > 0 for move in notebook.moves[:-1])
        assert next(notebook.point(picture)) > 0


def test_lessons_are_multiples_of_a_notebook_that_only_imports(monkeypatch):
    def fake_run(*cells):
        count = sum(cell.cell_type == "code" for cell in cells)
        return Run(new_notebook(cells=cells), "", 2.0 * count, 9.0, 100 + count)

    monkeypatch.setattr(lessons, "run", fake_run)
    monkeypatch.setattr(lessons, "import_seconds", lambda program: float(len(program)))
    section = lessons.measure()
    costs = {row.what: row.cost.median for row in section.rows}
    for name in LESSONS:
        count = sum(cell.cell_type == "code" for cell in read(name).cells)
        what = name.removesuffix(".ipynb").replace("_", " ")
        assert costs[f"{what}: time"] == count
        assert costs[f"{what}: peak memory"] == (100 + count) / 101
        assert f"\n| {what} | {count} | {2 * count:.1f} | 9.0 | {100 + count} |\n" in section.notes
    assert costs["`import normviz`"] == len("import normviz") / len("import numpy")


def test_what_workers_send_is_what_was_worked_out():
    assert workers.bytes_of(2, 3) == 8 * 7 + 8 * 6
    assert workers.bytes_of(3, 1) == 2 * 8 * 3 + 2 * 2 / 3 * 8 * 2
    own = workers.bytes_of(2, 5000)
    for worker in together(workers.steps, 2, 5000, 5):
        assert workers.traffic() == 0 or own <= worker["sent"] < 1.2 * own
