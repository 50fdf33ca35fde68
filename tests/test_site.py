"""The lessons run without a complaint; the site of them is whole, at home on a plain file server,
readable, and open to everyone."""

import re
import shutil
import subprocess
import sys
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from minutes import SECOND
from nbformat.v4 import new_code_cell, new_notebook

from docstrings import PUBLIC
from normviz import labs
from normviz.labs.lab import WITHOUT_KERNEL
from tools.notebooks import LESSONS, WINDOWS, read, run

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect
except ImportError:  # then the browser's fixture skips every test here that needs them
    Axe = expect = None

ROOT = Path(__file__).parents[1]
WIDGETS = "application/vnd.jupyter.widget-state+json"
LESSON_PAGES = [f"notebooks/{name.replace('.ipynb', '.html')}" for name in LESSONS]
TEACHING = [f"docs/teaching/{path.stem}.html" for path in sorted(ROOT.glob("docs/teaching/*.md"))]
REFERENCE = [
    f"docs/reference/{path.stem}.html" for path in sorted(ROOT.glob("docs/reference/*.md"))
]
PAGES = ["index.html", *LESSON_PAGES, *TEACHING, *REFERENCE, "docs/troubleshooting.html"]
DRAWING = ["draw_slices", "draw_cubes", "draw_jacobian", "explain"]
DRAWING += [f"labs.{name}" for name in labs.__all__]
every_lesson = pytest.mark.parametrize("name", LESSONS)
every_page = pytest.mark.parametrize("name", PAGES)
every_lesson_page = pytest.mark.parametrize("name", LESSON_PAGES)


# From top to bottom


@cache
def run_lesson(name):
    return run(*read(name).cells)


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
def test_run_all_meets_no_error_no_warning_and_no_refusal(name):
    ran = run_lesson(name)
    assert list(complaints(ran)) == []
    assert all(cell.execution_count for cell in code_cells(ran.notebook))


@every_lesson
def test_a_lesson_fits_a_small_machine(name):
    assert run_lesson(name).megabytes < 450
    assert run_lesson(name).processor < 20  # of 15 wanted: on a busy machine all takes longer


def said_by(cell):
    """What a cell prints and returns, and the numbers in it."""
    text = " ".join(str(o.get("text") or o.get("data", {}).get("text/plain")) for o in cell.outputs)
    # Where a cell prints slowly, its output comes in pieces.
    return re.sub(NUMBER, "", text).split(), [float(number) for number in re.findall(NUMBER, text)]


NUMBER = r"-?\d+(?:\.\d*)?(?:e-?\d+)?"


@every_lesson
def test_who_predicts_only_after_run_all_meets_what_was_to_be_predicted(name):
    telling = [cell for cell in read(name).cells if cell.metadata.get("tags") == ["hide-output"]]
    first = {cell.id: cell for cell in run_lesson(name).notebook.cells}
    again = run(*read(name).cells, *[new_code_cell(cell.source) for cell in telling])
    for cell, later in zip(telling, again.notebook.cells[-len(telling) :], strict=True):
        (words, numbers), (later_words, later_numbers) = said_by(first[cell.id]), said_by(later)
        assert later_words == words, cell.source
        assert later_numbers == pytest.approx(numbers, rel=0.1, abs=0.05), cell.source


@pytest.mark.parametrize(
    "name", [name for name in LESSONS if SECOND in {cell.id for cell in read(name).cells}]
)
def test_the_second_sitting_needs_nothing_of_the_first_but_its_first_code(name):
    cells = read(name).cells
    [start] = [place for place, cell in enumerate(cells) if cell.id == SECOND]
    assert list(complaints(run(code_cells(read(name))[0], *cells[start:]))) == []


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
    seen = re.compile("<svg|_lab")
    shown = [cell.id for cell in cells if seen.search(f"{cell.source} {cell.outputs}")]
    plan = (ROOT / "docs/teaching" / name).with_suffix(".md").read_text(encoding="utf-8")
    table = plan.partition("## Before each picture\n")[2].partition("\n## ")[0]
    rows = [row.strip("|").split(" | ") for row in table.splitlines() if "#cell-id=" in row]
    assert [re.search(r"#cell-id=([\w-]+)\)", row[0])[1] for row in rows] == shown
    for row in rows:  # the picture, the question, what will be said, why, and the answer
        assert len(row) == 5
        assert all(map(str.strip, row))


# The pages


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, of lessons that were run already; a warning is an error."""
    sources, folder = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("site")
    shutil.copytree(
        ROOT, sources, ignore=shutil.ignore_patterns(".*", "_build"), dirs_exist_ok=True
    )
    for name in LESSONS:
        lesson = read(name)
        lesson.cells = run_lesson(name).notebook.cells
        nbformat.write(lesson, sources / "notebooks" / name)
    build("-D", "nb_execution_mode=off", "-W", "--keep-going", sources, folder).check_returncode()
    return folder


def build(*arguments):
    command = [sys.executable, "-m", "sphinx", "-q", "-c", ROOT / "docs", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8")


def test_make_site_runs_a_lesson_and_stops_at_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # Sphinx leaves a log of the error
    (tmp_path / "README.md").write_text("# Home\n\n[01 One](notebooks/one.ipynb)\n")
    (tmp_path / "notebooks").mkdir()
    cells = [nbformat.v4.new_markdown_cell("# One"), new_code_cell("1 / 0")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks/one.ipynb")
    built = build(tmp_path, tmp_path / "html")
    assert built.returncode
    assert "ExecutionError" in built.stderr


@pytest.fixture(scope="module")
def look(site):
    """Name → that page, to be searched."""
    return cache(
        lambda name: BeautifulSoup((site / name).read_text(encoding="utf-8"), "html.parser")
    )


def test_the_site_opens_with_the_readme(site):
    assert (site / "index.html").read_text(encoding="utf-8") == (site / "README.html").read_text(
        encoding="utf-8"
    )


def test_every_page_can_be_reached_from_the_first(site, look):
    links = look("index.html").select(".sidebar-tree a[href]")
    assert {link["href"] for link in links} >= {
        *LESSON_PAGES,
        *TEACHING,
        *REFERENCE,
        "docs/troubleshooting.html",
    }


def targets_on(page):
    for node in page.select("[href], [src]"):
        yield node.get("href") or node["src"]


@every_page
def test_every_link_leads_to_a_page_and_to_a_place_on_it(name, site, look):
    inner = [urlsplit(target) for target in targets_on(look(name)) if "://" not in target]
    assert len(inner) > 20
    for target in inner:
        path = (site / name).parent / unquote(target.path) if target.path else site / name
        assert path.is_file(), target
        if target.fragment and path.suffix == ".html":
            page = look(path.resolve().relative_to(site).as_posix())
            assert page.find(id=unquote(target.fragment)), target


@every_page
def test_nothing_comes_from_elsewhere(name, look):
    page = look(name)
    loaded = page.select("script[src], link[rel=stylesheet], link[rel*=icon], img, iframe, source")
    addresses = [node.get("src") or node["href"] for node in loaded]
    assert addresses
    assert not [address for address in addresses if "//" in address]


def test_no_style_loads_anything_from_elsewhere(site):
    styles = list(site.rglob("*.css"))
    assert len(styles) > 3
    for style in styles:
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text), style


@every_lesson_page
def test_every_lesson_was_run_and_shows_its_pictures(name, look):
    page = look(name)
    assert len(page.select(".nv-page, .nv-plot")) >= 2
    assert len(page.select(".cell_output")) > 5
    assert not page.select(".traceback, .output.stderr")


@every_lesson_page
def test_a_lesson_can_be_launched_from_its_page(name, look):
    [live] = look(name).find_all("a", string=re.compile("live, on Binder"))
    [badge] = look("index.html").select(f'a[href$="{name.replace(".html", ".ipynb")}"] img')[-1:]
    assert live["href"] == badge.parent["href"]  # tests/test_links.py knows what is right


@every_lesson_page
def test_what_answers_a_prediction_is_folded_and_the_choice_can_be_made(name, look):
    page, lesson = look(name), read(Path(name).with_suffix(".ipynb").name)
    for cell in lesson.cells:
        if cell.metadata.get("tags") == ["hide-output"]:
            shown = page.find(id=f"cell-id={cell.id}").find_next(class_="cell_output")
            assert not shown.find_parent("details").has_attr("open")
        elif "= predict(" in cell.source:
            shown = page.find(id=f"cell-id={cell.id}").find_next(class_="cell_output")
            assert len(shown.select("fieldset > label > input[type=radio]")) >= 2


@pytest.mark.parametrize("name", LESSON_PAGES[1:])
def test_a_lab_is_a_line_that_tells_how_to_run_it_above_a_still_picture(name, look):
    page = look(name)
    line = BeautifulSoup(WITHOUT_KERNEL, "html.parser").text
    [lab] = [node for node in page.find_all("p") if node.text == line]
    assert lab.find_next(class_="cell_output").select(".nv-page, .nv-plot")
    assert not page.select("[type*=widget-view]")


@pytest.fixture(scope="module")
def entries(look):
    """Public name → its entry in the reference, which is held to be there."""
    found = [node for name in REFERENCE for node in look(name).select("dt[id^=normviz]")]
    return {node["id"].removeprefix("normviz."): node.find_next_sibling("dd") for node in found}


def test_each_public_name_has_an_entry_with_an_example(entries):
    names = [name for name in PUBLIC if name != "labs"]
    assert [name for name in names if not entries[name].select(".doctest")] == []


@pytest.mark.parametrize("name", DRAWING)
def test_what_draws_a_picture_shows_it_in_the_reference(name, entries):
    assert entries[name].select(".cell_output :is(.nv-page, .nv-plot)")


def test_a_name_in_the_reference_leads_to_its_entry(entries):
    for name, at in {
        "draw_slices": "Reduction",  # from a type in a signature
        "predict": "check",  # from a text
        "diagnosis.NeverFed": "cell-id=",  # to a lesson
    }.items():
        entry = entries[name].parent
        assert entry.select(f'a.reference[href*="{at}"]'), name


@pytest.mark.parametrize("name", REFERENCE)
def test_no_sign_of_how_a_docstring_is_written_is_left_in_the_reference(name, look):
    article = look(name).find("article")
    for node in article.select("code, pre, .sig"):
        node.decompose()
    said = article.get_text(" ")
    assert not re.search(r"``|:\w+:`|\bArgs:|\bRaises:\n|\ua789|Return type|Type:", said)


# In a browser


@pytest.fixture(scope="module")
def address(site):
    """Where a plain file server serves the site."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module", params=PAGES)
def page(request, chromium, address):
    """A page of the site, opened where no other server can be reached; to ask one is a failure."""
    asked = []

    def answer(route):
        asked.append(route.request.url)
        route.continue_() if asked[-1].startswith(address) else route.abort()

    with chromium.new_context(reduced_motion="reduce") as context:
        context.route("**/*", answer)
        page = context.new_page()
        page.on("pageerror", lambda error: asked.append(f"error: {error}"))
        page.goto(f"{address}/{request.param}")
        page.locator("details").evaluate_all("folded => folded.forEach(it => it.open = true)")
        yield page
    assert asked
    assert not [url for url in asked if not url.startswith(address)]


def turn(page, theme="light", motion="reduce", width=1200):
    """Look at a page in another way, and wait until it has heard of it."""
    page.emulate_media(color_scheme=theme, reduced_motion=motion)
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def violations(page, *rules):
    """What axe says against a page: all of it, or what breaks these rules."""
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = Axe().run(page, options=options).response["violations"]
    return {
        rule["id"]: (rule["impact"], [n["html"][:200] for n in rule["nodes"]]) for rule in found
    }


@pytest.mark.browser
def test_axe_finds_nothing_serious_and_enough_contrast_in_either_theme(page):
    turn(page)
    found = violations(page)
    assert not {rule for rule in found if found[rule][0] in ("serious", "critical")}, found
    paper = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    turn(page, theme="dark")
    assert page.evaluate(paper) != light
    assert violations(page, "color-contrast") == {}


@pytest.mark.browser
@pytest.mark.parametrize("page", LESSON_PAGES, indirect=True)
def test_a_prediction_is_made_and_its_answer_unfolded_from_the_keyboard(page):
    turn(page, width=360)
    first = page.locator("fieldset input").first
    first.focus()
    page.keyboard.press("Space")
    expect(first).to_be_checked()
    for fold in page.locator("article details").all()[:2]:
        fold.evaluate("it => it.open = false")
        inside = fold.locator(":scope > :not(summary)").first
        expect(inside).not_to_be_visible()
        fold.locator("summary").press("Enter")
        expect(inside).to_be_visible()


# What stands in these can be scrolled sideways; all else has to fit.
OVERHANGING = """nodes => nodes.filter(node =>
    !node.parentElement.closest(".cell_output, .table-wrapper, pre")
    && node.getBoundingClientRect().right > innerWidth).map(node => node.outerHTML.slice(0, 99))"""
SMALLEST = "texts => Math.min(...texts.map(text => parseFloat(getComputedStyle(text).fontSize)))"

# How large letters are on the screen, also where a picture is scaled.
SHOWN = """texts => Math.min(...texts.map(text => {
    const { a, b } = text.ownerSVGElement ? text.getScreenCTM() : { a: 1, b: 0 }
    return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b)
}))"""


@pytest.mark.browser
def test_a_page_fits_a_phone(page):
    turn(page, width=360)
    assert page.locator("article *").evaluate_all(OVERHANGING) == []
    assert page.locator("article p").evaluate_all(SMALLEST) >= 14
    letters = page.locator(":is(.nv-page, .nv-plot) :is(span, text)")
    assert not letters.count() or letters.evaluate_all(SHOWN) >= 10.99
    named = page.locator("[id]:not(.table-wrapper)")  # to which the theme gives the table's own
    ids = named.evaluate_all("nodes => nodes.map(node => node.id)")
    assert len({*ids}) == len(ids)
    assert violations(page, "scrollable-region-focusable") == {}  # from the keyboard, too


CUT = """nodes => nodes.filter(node => node.getBoundingClientRect().right > innerWidth)
    .map(node => node.outerHTML.slice(0, 99))"""


@pytest.mark.browser
@pytest.mark.parametrize("page", LESSON_PAGES[1:2], indirect=True)
def test_what_is_printed_is_the_lesson_without_the_way_to_it_and_no_picture_is_cut(page):
    turn(page, width=700)  # as wide as paper is
    page.emulate_media(media="print")
    expect(page.locator(".skip-to-content")).to_be_hidden()
    assert page.locator(".nv-page, .nv-page *, .nv-plot, pre *").evaluate_all(CUT) == []
    page.emulate_media(media="screen")


MOVING = """nodes => nodes.map(node => getComputedStyle(node)).filter(style =>
    style.animationName != "none" || parseFloat(style.transitionDuration) > 0
    || style.scrollBehavior == "smooth").length"""


@pytest.mark.browser
def test_nothing_moves_for_a_reader_who_asked_for_less_motion_and_no_picture_for_anyone(page):
    turn(page)
    assert page.locator("html, html *").evaluate_all(MOVING) == 0
    turn(page, motion="no-preference")
    assert page.locator(":is(.nv-page, .nv-plot) *").evaluate_all(MOVING) == 0
    assert page.locator("html, html *").evaluate_all(MOVING) > 0


LIT = "groups => groups.flatMap((g, i) => getComputedStyle(g).opacity == 1 ? [i] : [])"


@pytest.mark.browser
@pytest.mark.parametrize("page", LESSON_PAGES, indirect=True)
def test_pictures_answer_to_pointer_and_keyboard(page):
    turn(page)
    several = page.locator(".nv-page:has(.nv-slice ~ .nv-slice)").all()
    assert len(several) >= 2
    for picture in several:
        slices = picture.locator(".nv-slice")
        slices.last.locator(".nv-cell:not(.nv-lit)").last.hover()
        assert slices.evaluate_all(LIT) == [slices.count() - 1]
        said = picture.locator("[data-of]")
        assert [lines.is_visible() for lines in said.all()][-1:] == [True][: said.count()]
        page.mouse.move(0, 0)
        slices.first.focus()
        page.keyboard.press("Tab")
        assert slices.evaluate_all(LIT) == [1]
