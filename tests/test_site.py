"""The static site: whole, at home on a plain file server, readable, and open to everyone."""

import os
import re
import subprocess
import sys
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

from normviz.labs.lab import WITHOUT_KERNEL

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect
except ImportError:  # then the browser's fixture skips every test here that needs them
    Axe = expect = None

ROOT = Path(__file__).parents[1]
LESSONS = [f"notebooks/{path.stem}.html" for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
TEACHING = [f"docs/teaching/{path.stem}.html" for path in sorted(ROOT.glob("docs/teaching/*.md"))]
PAGES = ["index.html", *LESSONS, *TEACHING, "docs/troubleshooting.html"]
every_page = pytest.mark.parametrize("name", PAGES)
every_lesson = pytest.mark.parametrize("name", LESSONS)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, written as `make site` does; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", ".", folder],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    return folder


@pytest.fixture(scope="module")
def read(site):
    return cache(
        lambda name: BeautifulSoup((site / name).read_text(encoding="utf-8"), "html.parser")
    )


def test_the_site_opens_with_the_readme(site):
    assert (site / "index.html").read_text(encoding="utf-8") == (site / "README.html").read_text(
        encoding="utf-8"
    )


def test_every_page_can_be_reached_from_the_first(site, read):
    links = read("index.html").select(".sidebar-tree a[href]")
    assert {link["href"] for link in links} >= {*LESSONS, *TEACHING, "docs/troubleshooting.html"}


def targets_on(page):
    for node in page.select("[href], [src]"):
        yield node.get("href") or node["src"]


@every_page
def test_every_link_leads_to_a_page_and_to_a_place_on_it(name, site, read):
    inner = [urlsplit(target) for target in targets_on(read(name)) if "://" not in target]
    assert len(inner) > 20
    for target in inner:
        path = (site / name).parent / unquote(target.path) if target.path else site / name
        assert path.is_file(), target
        if target.fragment and path.suffix == ".html":
            page = read(path.resolve().relative_to(site).as_posix())
            assert page.find(id=unquote(target.fragment)), target


@every_page
def test_nothing_comes_from_elsewhere(name, read):
    page = read(name)
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


@every_lesson
def test_every_lesson_was_run_and_shows_its_pictures(name, read):
    page = read(name)
    assert len(page.select("svg.nv, svg.nv-plot")) >= 2
    assert len(page.select(".cell_output")) > 5
    assert not page.select(".traceback, .output.stderr")


@every_lesson
def test_a_lesson_can_be_launched_from_its_page(name, read):
    [live] = read(name).find_all("a", string=re.compile("live, on Binder"))
    [badge] = read("index.html").select(f'a[href$="{name.replace(".html", ".ipynb")}"] img')[-1:]
    assert live["href"] == badge.parent["href"]  # tests/test_links.py knows what is right


@pytest.mark.parametrize("name", LESSONS[1:])
def test_a_lab_is_a_line_that_tells_how_to_run_it_above_a_still_picture(name, read):
    page = read(name)
    line = BeautifulSoup(WITHOUT_KERNEL, "html.parser").text
    [lab] = [node for node in page.find_all("p") if node.text == line]
    assert lab.find_next(class_="cell_output").select("svg.nv, svg.nv-plot")
    assert not page.select("[type*=widget-view]")


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


@pytest.fixture
def visit(chromium, address):
    """Name → that page, opened where no other server can be reached; asking one is a failure."""
    asked, contexts = [], []

    def visit(name, **options):
        context = chromium.new_context(reduced_motion="reduce", **options)
        contexts.append(context)

        def answer(route):
            asked.append(route.request.url)
            route.continue_() if asked[-1].startswith(address) else route.abort()

        context.route("**/*", answer)
        page = context.new_page()
        page.on("pageerror", lambda error: asked.append(f"error: {error}"))
        page.goto(f"{address}/{name}")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert asked
    assert not [url for url in asked if not url.startswith(address)]


@pytest.mark.browser
@every_page
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(name, theme, visit):
    page = visit(name, color_scheme=theme)
    found = Axe().run(page).response["violations"]
    serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    assert {
        rule["id"]: [node["html"][:200] for node in rule["nodes"][:3]] for rule in serious
    } == {}


# What stands in these can be scrolled sideways; all else has to fit.
OVERHANGING = """nodes => nodes.filter(node =>
    !node.parentElement.closest(".cell_output, .table-wrapper, pre")
    && node.getBoundingClientRect().right > innerWidth).map(node => node.outerHTML.slice(0, 99))"""
SMALLEST = "texts => Math.min(...texts.map(text => parseFloat(getComputedStyle(text).fontSize)))"


@pytest.mark.browser
@every_page
def test_a_page_fits_a_phone(name, visit):
    page = visit(name, viewport={"width": 360, "height": 740})
    assert page.locator("article *").evaluate_all(OVERHANGING) == []
    assert page.locator("article p").evaluate_all(SMALLEST) >= 14
    only = {"runOnly": ["scrollable-region-focusable"]}  # from the keyboard, too
    assert Axe().run(page, options=only).response["violations"] == []


MOVING = """nodes => nodes.map(node => getComputedStyle(node)).filter(style =>
    style.animationName != "none" || parseFloat(style.transitionDuration) > 0
    || style.scrollBehavior == "smooth").length"""


@pytest.mark.browser
@every_page
def test_nothing_moves_for_a_reader_who_asked_for_less_motion(name, visit):
    assert visit(name).locator("html, html *").evaluate_all(MOVING) == 0


LIT = "groups => groups.flatMap((g, i) => getComputedStyle(g).opacity == 1 ? [i] : [])"


@pytest.mark.browser
@every_lesson
def test_pictures_answer_to_pointer_and_keyboard(name, visit):
    page = visit(name, viewport={"width": 1200, "height": 900})
    several = page.locator("svg.nv:has(.nv-slice ~ .nv-slice)").all()
    assert len(several) >= 2
    for picture in several:
        slices = picture.locator(".nv-slice")
        slices.last.locator(".nv-cell:not(.nv-lit)").last.hover()
        assert slices.evaluate_all(LIT) == [slices.count() - 1]
        expect(slices.last.locator(".nv-lit").first).to_be_visible()
        page.mouse.move(0, 0)
        slices.first.focus()
        page.keyboard.press("Tab")
        assert slices.evaluate_all(LIT) == [1]
