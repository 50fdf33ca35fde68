"""The site is whole, at home on a plain file server, readable, and open to everyone."""

import gzip
import re
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Thread
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from building import build
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks.site import movable_on, opened, use
from docstrings import PUBLIC
from normviz import check, labs
from normviz.exercises import EXERCISES, PREDICTIONS
from normviz.labs.lab import WITHOUT_KERNEL
from questions import Said
from recording import LARGEST, controls_of, opener_in, place_of, shared, step
from tools.notebooks import LESSONS, read

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect
except ImportError:  # then the browser's fixture skips every test here that needs them
    Axe = expect = None

ROOT = Path(__file__).parents[1]
LESSON_PAGES = [f"notebooks/{name.replace('.ipynb', '.html')}" for name in LESSONS]
TEACHING = [f"docs/teaching/{path.stem}.html" for path in sorted(ROOT.glob("docs/teaching/*.md"))]
REFERENCE = [
    f"docs/reference/{path.stem}.html" for path in sorted(ROOT.glob("docs/reference/*.md"))
]
PAGES = ["index.html", *LESSON_PAGES, *TEACHING, *REFERENCE, "docs/troubleshooting.html"]
OF_WORDS = ["index.html", TEACHING[0]]
DRAWING = ["draw_slices", "draw_cubes", "draw_jacobian", "explain"]
DRAWING += [f"labs.{name}" for name in labs.__all__]
every_page = pytest.mark.parametrize("name", PAGES)
every_lesson_page = pytest.mark.parametrize("name", LESSON_PAGES)


# The pages


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
def test_a_lab_is_without_a_script_how_it_opens_and_a_line_that_tells_how_to_run_it(name, look):
    [lab] = look(name).select(".nv-lab")
    assert lab.find("p").text == BeautifulSoup(WITHOUT_KERNEL, "html.parser").text
    assert lab.select(".nv-body :is(.nv-page, .nv-plot)")
    assert not look(name).select("[type*=widget-view]")


@every_lesson_page
def test_a_page_is_light_with_all_that_it_loads(name, site, look):
    names = [lab["data-recording"] for lab in look(name).select("[data-recording]")]
    files = [site / f"_static/labs/{lab}.js" for lab in names]
    assert all(len(gzip.compress(path.read_bytes())) < LARGEST for path in files)
    assert len(gzip.compress((site / name).read_bytes())) + LARGEST < 600_000


def test_what_views_have_in_common_is_written_once():
    views = ["<b>1</b>§<i>2.5</i>", "<b>1</b>§<i>3</i>", "<p>§none"]
    tags, sequences, rows = shared(views)
    assert tags == ["", "<b>¤", "</b>§", "<i>¤", "</i>", "<p>§none"]
    assert sequences == [[(0, 1, 2, 3, 4), ","], [(0, 5), ""]]
    assert rows == [[0, "1,2.5"], [0, ",3"], [1, ""]]
    with pytest.raises(ValueError, match="stand for something else"):
        shared(["1 ¤"])


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
        for lab in page.locator("[data-recording]").all():  # which is loaded when it is near
            lab.scroll_into_view_if_needed()
            expect(lab.locator(":is(input, select)").first).to_be_visible()
        page.evaluate("scrollTo(0, 0)")
        yield page
    assert asked
    assert not [url for url in asked if not url.startswith(address)]


def turn(page, theme="light", motion="reduce", width=1200):
    """Look at a page in another way, and wait until it has heard of it."""
    page.emulate_media(color_scheme=theme, reduced_motion=motion)
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


CONTRAST = "color-contrast"


def violations(page, *rules, without=None):
    """What axe says against a page: what breaks these rules, or else all but those of contrast."""
    chosen = {"runOnly": rules} if rules else {"rules": {CONTRAST: {"enabled": False}}}
    found = Axe().run(page, without, {"resultTypes": ["violations"]} | chosen)
    return {
        rule["id"]: (rule["impact"], [node["html"][:200] for node in rule["nodes"]])
        for rule in found.response["violations"]
    }


@pytest.mark.browser
def test_axe_finds_nothing_serious_with_the_lab_moved(page):
    turn(page)
    for slider in page.locator(".nv-controls input[type=range]:enabled").all()[:3]:
        slider.press("ArrowRight")
    for choice in page.locator(".nv-controls input[type=radio]:enabled:not(:checked)").all()[:1]:
        choice.check()
    found = violations(page)
    assert not {rule for rule in found if found[rule][0] in ("serious", "critical")}, found


@pytest.mark.browser
@pytest.mark.parametrize("page", [*LESSON_PAGES, *REFERENCE, *OF_WORDS], indirect=True)
def test_text_has_enough_contrast_in_either_theme(page):
    turn(page)
    # Code is most of the text: it is looked at where it has all its colours.
    has_code = any(page.url.endswith(name) for name in (LESSON_PAGES[5], REFERENCE[0], *OF_WORDS))
    without = None if has_code else {"exclude": [["pre"]]}
    assert violations(page, CONTRAST, without=without) == {}
    paper = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    turn(page, theme="dark")
    assert page.evaluate(paper) != light
    assert violations(page, CONTRAST, without=without) == {}


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
def test_a_page_fits_a_phone_and_a_projector(page):
    for width in (1024, 360):
        turn(page, width=width)
        assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("article *").evaluate_all(OVERHANGING) == []
    assert page.locator("article p").evaluate_all(SMALLEST) >= 14
    letters = page.locator(":is(.nv-page, .nv-plot) :is(span, text)")
    assert not letters.count() or letters.evaluate_all(SHOWN) >= 10.99
    ids = page.locator("[id]").evaluate_all("nodes => nodes.map(node => node.id)")
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


CHOOSE = """(asked, [choice, told]) => {
    const fold = document.getElementById(told).closest("details");
    const radios = [...asked.querySelectorAll("input")];
    fold.open = false;
    radios.find((radio) => radio.value === choice).click();
    const opened = fold.open;
    asked.querySelector("button").click();
    return [opened, radios.some((radio) => radio.matches(":enabled"))];
}"""
ANSWER = """(field, answers) => answers.map((answer) => {
    field.querySelector("input").value = answer;
    field.querySelector("button").click();
    return field.querySelector("output").textContent;
})"""


@pytest.mark.browser
@pytest.mark.parametrize("page", LESSON_PAGES, indirect=True)
def test_answers_are_judged_on_the_page_as_in_a_notebook(page):
    turn(page)
    page.reload()
    for asked in page.locator(".nv-asked").all():
        name = asked.get_attribute("data-name")
        told = page.locator(f"#nv-{name}")
        assert told.inner_text() == ""  # nothing is said before there is a choice
        choice = sorted(PREDICTIONS[name].choices)[0]
        opened, enabled = asked.evaluate(CHOOSE, [choice, f"nv-{name}"])
        assert not opened  # by a choice alone
        assert said(told.inner_text()) == words_of(check(name, Said(choice)))
        assert not enabled
    for field in page.locator(".nv-field").all():
        name = field.get_attribute("data-name")
        known = EXERCISES[name].judge.known
        others = ["no such thing"] if isinstance(known[0], str) else [12345.5, (9, 8, 7)]
        answers = [*known, *(other for other in others if "->" not in str(known[0]))]
        typed = [answer if isinstance(answer, str) else typed_as(answer) for answer in answers]
        typed = [text if "->" in text else text.replace("-", "−") for text in typed]
        verdicts = [words_of(check(name, answer)) for answer in answers]
        verdicts = [verdict.replace("(9, 8, 7)", "(9, 8, 7,)") for verdict in verdicts]
        assert [*map(said, field.evaluate(ANSWER, typed))] == verdicts


@pytest.mark.browser
@pytest.mark.parametrize("page", LESSON_PAGES[1:2], indirect=True)
def test_a_choice_and_an_answer_are_made_by_hand_and_their_verdicts_seen(page):
    turn(page)
    page.reload()
    asked, field = page.locator(".nv-asked").first, page.locator(".nv-field").first
    asked.get_by_role("radio").first.check()
    told = page.locator(f"#nv-{asked.get_attribute('data-name')}")
    expect(told).not_to_be_visible()
    asked.get_by_role("button", name="Show what happens").click()
    expect(told.locator(":visible").first).to_contain_text("You said: ")
    field.locator("input").fill("12345.5")
    field.get_by_role("button", name="Check").click()
    expect(field.locator("output > :visible").first).to_contain_text("Not yet.")


def typed_as(answer):
    numbers = ", ".join(map(str, np.ravel(answer).tolist()))
    return f"({numbers},)" if np.ndim(answer) else numbers


def said(text):
    return " ".join(text.split())


def words_of(verdict):
    return said(BeautifulSoup(verdict._repr_html_(), "html.parser").text)


SAME = """([words, body]) => {
    const made = document.createElement("template"), lab = document.querySelector(".nv-lab");
    return [[".nv-words", words], [".nv-body", body]].map(([part, html]) => {
        made.innerHTML = html;
        return lab.querySelector(part).innerHTML == made.innerHTML;
    });
}"""
# Of each control of a lab that is shown: its name, how many places it offers, where it stands.
CONTROLS = """() => [...document.querySelectorAll(".nv-controls [data-name]")].flatMap((box) => {
    const inputs = box.matches("button") ? [box] : [...box.querySelectorAll("input, select")];
    const [first] = inputs;
    if (!first?.checkVisibility()) return [];
    const [count, stands] = {
        button: () => [1, null],
        checkbox: () => [2, Number(first.checked)],
        radio: () => [inputs.length, inputs.findIndex((it) => it.checked)],
        range: () => [Number(first.max) + 1, Number(first.value)],
        "select-one": () => [first.options.length, first.selectedIndex],
    }[first.type]();
    return [[box.dataset.name, first.disabled ? 0 : count, stands]];
})"""
MOVE = """([name, place]) => {
    const box = document.querySelector(`.nv-controls [data-name="${name}"]`);
    const inputs = box.matches("button") ? [box] : [...box.querySelectorAll("input, select")];
    const [first] = inputs;
    const set = (property, event) => {
        first[property] = place;
        first.dispatchEvent(new Event(event));
    };
    ({
        button: () => first.click(),
        checkbox: () => set("checked", "change"),
        radio: () => inputs[place].click(),
        range: () => set("value", "input"),
        "select-one": () => set("selectedIndex", "change"),
    })[first.type]();
}"""


@pytest.mark.browser
@pytest.mark.parametrize("page", LESSON_PAGES[1:], indirect=True)
def test_a_recorded_lab_shows_byte_for_byte_what_a_kernel_shows(page):
    turn(page)
    cells = read(f"{Path(page.url).stem}.ipynb").cells
    [make] = filter(None, (opener_in(cell.source) for cell in cells))
    random = Random(0)
    for _ in range(3):
        live, path = make(), []
        page.reload()
        page.locator(".nv-lab").scroll_into_view_if_needed()
        expect(page.locator(".nv-controls > div").first).to_be_visible()
        for _ in range(2):
            offers = {name: count for name, count, _ in page.evaluate(CONTROLS) if count}
            name = random.choice([*offers])
            path.append((name, random.randrange(offers[name])))
            page.evaluate(MOVE, path[-1])
        stands = {name: place for name, _, place in page.evaluate(CONTROLS)}
        first, second = path
        if first[0] == second[0] or stands.get(first[0]) == first[1]:
            step(live, *first)  # it stands where it was put
        step(live, *second)
        assert page.evaluate(SAME, [live.readout.value, live.picture.value]) == [True, True], path
        for name, control in controls_of(live).items():
            if stands.get(name) is not None:
                assert stands[name] == place_of(control), (name, path)


@pytest.mark.browser
@pytest.mark.parametrize("page", LESSON_PAGES[8:9], indirect=True)
def test_what_is_scrolled_stays_so_when_a_lab_moves(page):
    turn(page, width=360)
    page.locator(".nv-lab").scroll_into_view_if_needed()
    expect(page.locator(".nv-controls > div").first).to_be_visible()
    picture = page.locator('.nv-body [style*="overflow-x"]').first
    assert picture.evaluate("it => it.scrollLeft = 30") == 30
    words, slider = page.locator(".nv-words"), page.locator(".nv-controls [type=range]").last
    before = words.inner_text()
    slider.press("ArrowRight")
    assert words.inner_text() != before
    assert picture.evaluate("it => it.scrollLeft") == 30


@pytest.mark.browser
def test_a_recorded_lab_moves_on_a_page_that_no_server_gives(site, chromium):
    with chromium.new_page() as page:
        page.goto((site / LESSON_PAGES[5]).as_uri())
        lab = page.locator(".nv-lab")
        lab.scroll_into_view_if_needed()
        before = lab.locator(".nv-words").inner_text()
        lab.get_by_role("radio", name="eval").check()
        assert lab.locator(".nv-words").inner_text() != before


@pytest.mark.browser
def test_what_a_move_on_a_page_takes_can_be_measured(site, chromium):
    for path in (site / LESSON_PAGES[3], site / LESSON_PAGES[5]):  # with sliders, with buttons
        with opened(path, chromium) as page:
            move = use(movable_on(page)[0], ".nv-words, .nv-body")
            assert next(move) > 0 and next(use(page.locator("#label"), "output")) > 0
