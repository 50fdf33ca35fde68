"""The benchmarks: what they report is what they measured, and the results here are whole."""

import doctest
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from nbformat.v4 import new_code_cell

from benchmarks import compare, lessons, report, run
from benchmarks.compare import Growth, Row, Section, Spread
from benchmarks.report import HEAD, Report

FOLDER = Path(run.__file__).parent
RESULTS = FOLDER / "RESULTS.md"
UTF_8 = os.environ | {"PYTHONUTF8": "1"}  # for what is printed on Windows
SVG = "{http://www.w3.org/2000/svg}"

ROWS = [
    Row("forward, |x| [0]", "torch.nn", Spread(1.25, 1.2, 1.3), aim=1.5),
    Row("backward", "torch.nn", Spread(1.501, 1.4, 1.6), aim=1.5),
    Row("a picture", "–", Spread(298_765, 298_765, 298_765), aim=300_000, unit="bytes"),
    Row("error", "an oracle", Spread(1.5e18, 0, 2e18), unit="ulp"),
]
GROWTHS = [
    Growth(
        "Time [to draw], as a multiple of ours at the smallest size",
        "numbers in x",
        {"ours": [(36, 1.0), (400, 1.5), (9000, 2.5), (10**6, 90.0)], "theirs": [(36, 8), (64, 9)]},
    ),
    Growth("Largest error, in units", "offset", {"both": [(0, 0.0), (1, 0.5), (10**8, 1e12)]}),
]
SECTION = Section("The layers", ROWS, GROWTHS, "One thread.\n\n| dtype | ulp |\n| --- | --- |")


def tables_of(page):
    """The rows of each table with the head of ours, as cells."""
    for table in re.findall(r"(?:^\|.*\|\n)+", page, flags=re.MULTILINE):
        lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
        head, rule, *rows = [[cell.strip() for cell in line] for line in lines]
        assert {len(line) for line in lines} == {len(head)}
        assert all(re.fullmatch("-+:?|:-+", cell) for cell in rule)
        if head == [*HEAD]:
            yield [[re.sub(r"\\(.)", r"\1", cell) for cell in row] for row in rows]


def number_in(cell):
    return float(re.search(r"\d[\d.,]*(?:e-?\d+)?", cell)[0].replace(",", ""))


def points_in(svg):
    """How many different points each curve has."""
    groups = ElementTree.parse(svg).getroot().iter(f"{SVG}g")
    ways = [group for group in groups if group.get("id", "").startswith("way-")]
    return [len({(use.get("x"), use.get("y")) for use in way.iter(f"{SVG}use")}) for way in ways]


def texts_in(svg):
    return {"".join(text.itertext()) for text in ElementTree.parse(svg).iter(f"{SVG}text")}


def sections_of(page):
    """The text of each section, by the module that it says has measured it."""
    parts = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    return {
        re.search(r"^Measured by \[.*\]\((\w+)\.py\)\.$", part, re.M)[1]: part for part in parts
    }


@pytest.mark.parametrize("module", [compare, report])
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).attempted
    assert not doctest.testmod(module).failed


# The report


def test_the_page_gives_back_every_row_that_was_measured():
    [rows] = tables_of(Report({"layers": SECTION}).page())
    for cells, row in zip(rows, ROWS, strict=True):
        what, against, cost, aim, verdict = cells
        assert (what, against) == (row.what, row.against)
        assert number_in(cost) == pytest.approx(row.cost.median, rel=0.005)
        assert row.unit in cost
        assert verdict == {True: "met", False: "missed", None: ""}[row.met]
        assert (number_in(aim) if aim else None) == row.aim


def test_the_brackets_hold_the_middle_half_where_there_is_any():
    [rows] = tables_of(Report({"layers": SECTION}).page())
    assert [row[2] for row in rows] == [
        "1.25× (1.20–1.30×)",
        "1.50× (1.40–1.60×)",
        "298,765 bytes",
        "1.50e18 ulp (0–2.00e18 ulp)",
    ]


def test_the_page_counts_the_aims_and_names_what_was_skipped():
    page = Report({"layers": SECTION}, {"browser": "No chromium here."}).page()
    assert "\nAims met: 2 of 3.\n" in page
    assert "\nSkipped: browser. No chromium here.\n" in page
    assert SECTION.notes in page


def test_the_printed_table_has_the_rows_of_all_sections():
    other = Section("Exactness", [Row("mean", "numpy", Spread(3, 2, 4))])
    printed = Report({"layers": SECTION, "exactness": other}, {"browser": "None here."}).table()
    lines = printed.splitlines()
    assert [re.split(r"\s{2,}", line)[0] for line in lines[: len(ROWS) + 2]] == [
        HEAD[0],
        *(row.what for row in [*ROWS, *other.rows]),
    ]
    assert lines[-2:] == ["Aims met: 2 of 3.", "Skipped: browser. None here."]


def test_a_quick_run_says_so():
    assert "quick run" in Report({"layers": SECTION}, quick=True).page()
    assert "quick run" not in Report({"layers": SECTION}).page()


def test_each_growth_is_plotted_with_a_point_for_each_size_on_paper_of_its_own(tmp_path):
    Report({"layers": SECTION}).write(tmp_path)
    for number, growth in enumerate(GROWTHS, start=1):
        svg = tmp_path / f"growth-layers-{number}.svg"
        assert points_in(svg) == [len(costs) for costs in growth.costs.values()]
        assert (
            "fill: #ffffff"
            in re.search(r'id="patch_1">.*?</g>', svg.read_text("utf-8"), re.DOTALL)[0]
        )
        title, _, unit = growth.title.partition(", ")
        assert {title, unit, growth.along, *growth.costs} <= texts_in(svg)


def test_a_plot_that_is_not_seen_is_told(tmp_path):
    page = Report({"layers": SECTION}).page()
    told = re.findall(r"!\[(.*)\]\(growth-layers-\d\.svg\)", page)
    assert [text.replace("\\", "") for text in told] == [
        "Time [to draw], as a multiple of ours at the smallest size, over numbers in x:"
        " ours from 1.00 at 36 to 90.0 at 1e6; theirs from 8.00 at 36 to 9.00 at 64",
        "Largest error, in units, over offset: both from 0 at 0 to 1.00e12 at 1e8",
    ]


def test_plots_of_an_earlier_run_are_gone(tmp_path):
    (tmp_path / "growth-layers-7.svg").touch()
    (tmp_path / "layers.svg").touch()
    Report({"layers": SECTION}).write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "RESULTS.md",
        "growth-layers-1.svg",
        "growth-layers-2.svg",
        "layers.svg",
    ]


# The run

STUB = """
import os
from benchmarks.compare import Row, Section, Spread

def measure(*, quick=False):
    process = os.getpid()
    return Section("Stub", [Row(f"quick: {quick}", "–", Spread(process, process, process))])
"""


@pytest.fixture
def benchmark(tmp_path):
    """Arguments → a finished run of modules that measure nothing, all in a folder of their own."""
    copy = tmp_path / "benchmarks"
    copy.mkdir()
    for name in ("__init__", "compare", "report", "run"):
        shutil.copy(FOLDER / f"{name}.py", copy)
    stubs = dict.fromkeys(run.MODULES, STUB)
    stubs |= {"pictures": "import no_such_peer", "browser": "open('no-such-browser')"}
    for name, stub in stubs.items():
        (copy / f"{name}.py").write_text(stub, encoding="utf-8")

    def benchmark(*arguments):
        command = [sys.executable, "-m", "benchmarks.run", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, encoding="utf-8", env=UTF_8
        )

    return benchmark


def test_a_run_measures_each_module_in_a_process_of_its_own_and_writes_the_page(
    benchmark, tmp_path
):
    done = benchmark()
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    assert [*sections_of(page)] == ["layers", "lessons", "exactness"]
    rows = [row for table in tables_of(page) for row in table]
    assert {row[0] for row in rows} == {"quick: False"}
    assert len({row[2] for row in rows}) == len(rows) == 3
    for line in ("Skipped: pictures. No module named 'no_such_peer'", "no-such-browser"):
        assert line in page
        assert line in done.stdout


def test_a_part_is_printed_and_the_page_stays_as_it_is(benchmark, tmp_path):
    (tmp_path / "benchmarks/RESULTS.md").write_text("all of it", encoding="utf-8")
    done = benchmark("layers", "--quick")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("quick: True") == 1
    assert (tmp_path / "benchmarks/RESULTS.md").read_text(encoding="utf-8") == "all of it"


def test_an_unknown_name_is_refused_with_those_that_there_are(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run", "layers", "layer"])
    with pytest.raises(SystemExit):
        run.main()
    assert f"there is no layer among {', '.join(run.MODULES)}" in capsys.readouterr().err


# The results


def test_the_results_have_a_section_and_rows_for_every_module():
    page = RESULTS.read_text(encoding="utf-8")
    assert [*sections_of(page)] == [*run.MODULES]
    assert all(len(rows) > 1 for rows in tables_of(page))
    assert len([*tables_of(page)]) == len(run.MODULES)
    assert "Skipped:" not in page
    assert "quick run" not in page


def test_the_results_lead_to_files_that_exist_and_to_every_plot():
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", RESULTS.read_text(encoding="utf-8"))
    assert [link for link in links if not (FOLDER / link).is_file()] == []
    assert {path.name for path in FOLDER.glob("*.svg")} <= {*links}


def test_every_plot_of_the_results_has_four_sizes():
    plots = [*FOLDER.glob("growth-*.svg")]
    assert plots
    assert [svg.name for svg in plots if max(points_in(svg)) < 4] == []


# The lessons


def test_lessons_and_imports_are_told_as_multiples_of_what_they_cannot_do_without(monkeypatch):
    def fake_run(*cells):
        sources = [cell.source for cell in cells if cell.cell_type == "code"]
        if sources == [lessons.LIBRARIES]:
            return lessons.Run(None, "", [2.0], 1.5, 100)
        return lessons.Run(None, "", [2.0 + n for n in range(1, len(sources) + 1)], 9.0, 150)

    monkeypatch.setattr(lessons, "run", fake_run)
    monkeypatch.setattr(lessons, "import_seconds", lambda program: float(len(program)))
    section = lessons.measure()
    counts = [
        sum(cell.cell_type == "code" for cell in lessons.read(name).cells)
        for name in lessons.LESSONS
    ]
    costs = {row.what: row.cost.median for row in section.rows}
    for name, count in zip(lessons.LESSONS, counts, strict=True):
        what = name.removesuffix(".ipynb").replace("_", " ")
        assert costs[f"{what}: time"] == (2 + count) / 2
        assert costs[f"{what}: peak memory"] == 1.5
        [line] = re.findall(rf"^\| {what} .*", section.notes, flags=re.MULTILINE)
        assert line == f"| {what} | {count} | {2 + count:.1f} | 9.0 | 150 |"
    assert costs["all these lessons: time"] == sum(2 + count for count in counts) / 2
    assert costs["`import normviz`"] == len("import normviz") / len("import numpy")
    [growth] = section.growths
    for points, count in zip(growth.costs.values(), counts, strict=True):
        assert len(points) == 5
        assert points[0] == (1, 1.5)
        assert points[-1] == (count, (2 + count) / 2)


def test_a_lesson_takes_a_few_times_what_its_imports_take():
    """In seconds of processor; the lesson is the one that takes longest."""
    empty = lessons.run(new_code_cell(lessons.LIBRARIES))
    ran = lessons.run(*lessons.read("03_running_statistics_and_momentum.ipynb").cells)
    times = ran.processor / empty.processor
    print(f"lesson 03: {times:.2f} of a notebook that only imports")
    assert times < 3.3
    assert ran.elapsed == sorted(ran.elapsed)
    assert len(ran.elapsed) == sum(cell.cell_type == "code" for cell in ran.notebook.cells)


def test_a_layer_is_there_hardly_later_than_torch():
    torch = lessons.import_seconds("import torch")
    ours = lessons.import_seconds("import normviz; normviz.LayerNorm")
    print(f"import normviz and a layer: {ours / torch:.2f} of torch's")
    assert ours < 1.5 * torch
