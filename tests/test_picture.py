"""Every picture: its words and files, its numbers and colours, its page, and how it answers."""

import dataclasses
import re
from decimal import Decimal
from itertools import pairwise
from math import nan, prod
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reading import contrast
from torch import nn

from normviz import Reduction, draw_cubes, draw_slices, explain
from normviz.grid import MAX_CELLS, MAX_ROWS, MAX_WIDTH, lay_out, places
from normviz.slices import LETTER, MAX_CHIPS
from normviz.svg import COLOURS, STYLE, TWENTY, style_of, svg_dash, tint
from normviz.words import five_digits, short

claim = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SMALL = draw_slices(np.arange(18).reshape(3, 2, 3), Reduction("n c l -> c"), title="μ < σ²")


def test_a_picture_shows_itself_in_a_notebook_and_prints_words():
    for sign in ("data-index=", "aria-label=", "<rect ", ">μ = (0 + 1 + ", ">Point at"):
        assert SMALL._repr_html_().count(sign) == SMALL.svg.count(sign) > 0
    assert repr(SMALL) == str(SMALL) == SMALL.text
    assert SMALL.text.startswith("μ < σ²\nshape (3, 2, 3)")
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.svg = ""


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "path"])
@pytest.mark.parametrize("name", ["picture.svg", "picture.html"])
def test_a_saved_picture_is_the_same_on_its_own(tmp_path, name, kind):
    path = SMALL.save(kind(tmp_path / name))
    assert path == tmp_path / name
    page = path.read_text(encoding="utf-8")
    found = ElementTree.fromstring(re.search("<svg.*</svg>", page, re.DOTALL)[0])
    assert "color-scheme:light dark;background:Canvas" in found.attrib.pop("style")
    assert ElementTree.tostring(found) == ElementTree.tostring(ElementTree.fromstring(SMALL.svg))
    assert ("<title>μ &lt; σ²</title>" in page) == page.startswith("<!doctype html>")
    assert page.startswith("<svg" if name.endswith("svg") else "<!doctype html>")


@pytest.mark.parametrize("name", ["picture.png", "picture", ".svg", "svg", "picture.svg.txt"])
def test_other_endings_are_refused_and_nothing_is_written(tmp_path, name):
    with pytest.raises(ValueError, match=r"path must end in \.svg or \.html"):
        SMALL.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**7), 10**7)
numbers |= st.floats(-2000, 2000) | st.floats(-0.1, 0.1)


@settings(claim, max_examples=500)
@given(numbers, numbers)
@example(99.996, 1000.0)
@example(-99999.9, 0.0)
@example(-0.001, 0.0)
def test_a_short_number_is_right_to_its_last_digit(number, other):
    largest = max(abs(number), abs(other)) or 1.0
    text = short(number, largest)
    assert len(text) <= (7 if largest >= 1 else 8)
    shown, size = Decimal(text.replace("−", "-")), Decimal(abs(number))
    error = abs(shown - Decimal(number))
    assert error <= Decimal(10) ** shown.as_tuple().exponent / 2
    if 1e-3 <= size == largest < 1e5:  # the largest of all
        assert error <= size / 200
    if number == int(number) and size < 1e5:
        assert shown == number
    assert not text.startswith("−") or number < 0


@settings(claim, max_examples=500)
@given(numbers)
def test_an_exact_number_has_five_digits(number):
    text = five_digits(number)
    assert len(text) <= 12
    shown = Decimal(text.replace("−", "-"))
    assert abs(shown - Decimal(number)) <= abs(Decimal(number)) * Decimal("0.5e-4")
    assert (text == "0") == (number == 0)


def test_what_is_no_number_is_named():
    for form in (short, five_digits):
        assert [form(number) for number in (nan, 1e999, -1e999)] == ["nan", "inf", "−inf"]


@pytest.mark.parametrize("label", range(len(COLOURS)))
def test_ink_can_be_read_on_every_colour(label):
    assert ".nv-ink{fill:#111;" in STYLE
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    tints = [bytes.fromhex(tint(label, strength)[1:]) for strength in np.linspace(0, 1, 21)]
    assert all(contrast(paper, (17, 17, 17)) >= 4.5 for paper in tints)
    assert all(sum(strong) < sum(pale) for pale, strong in pairwise(tints))


@pytest.mark.parametrize("axis", range(5))
def test_neighbours_along_every_axis_differ_in_colour_and_in_dash(axis):
    shape, names = (3,) * 5, "n c d h w"
    reduction = Reduction(f"{names} -> {names}")
    marks = [style_of(reduction, label, shape) for label in range(3**5)]
    marks = np.moveaxis(np.reshape(marks, shape), axis, 0).reshape(3, -1).T.tolist()
    for mark, neighbour, _ in marks:
        assert tint(mark, 0.5) != tint(neighbour, 0.5)
        assert svg_dash(mark, "") != svg_dash(neighbour, "")


@claim
@given(st.lists(st.integers(1, 500), min_size=1, max_size=5), st.integers(24, 52))
def test_a_page_has_room_for_all_that_is_laid_out(shape, cell_width):
    axes = lay_out(tuple(shape), tuple("abcde"[: len(shape)]), cell_width)
    for axis, size in zip(axes, shape, strict=True):
        assert (axis.shown[0], axis.shown[-1]) == (0, size - 1)
        assert len(axis.shown) >= min(size, 2)
        breaks = sum(after > before + 1 for before, after in pairwise(axis.shown))
        assert breaks == len(axis.gaps) == (len(axis.shown) < size)
    assert len(set(places(axes))) == prod(len(axis.shown) for axis in axes) <= MAX_CELLS
    assert MAX_CELLS <= TWENTY**2  # or lines would stay hidden
    assert prod(len(axis.shown) for axis in axes if not axis.across) <= MAX_ROWS
    assert max(axis.extent for axis in axes if axis.across) <= MAX_WIDTH


def boxes_of(elements):
    """Left, top, right and bottom of rectangles, one row each."""
    sides = [[float(e.get(k)) for k in ("x", "y", "width", "height")] for e in elements]
    sides = np.reshape(sides, (-1, 4))
    return np.hstack([sides[:, :2], sides[:, :2] + sides[:, 2:]])


def count_overlaps(some, others):
    a, b = some[:, None], others[None]
    return int(((a[..., :2] < b[..., 2:]) & (b[..., :2] < a[..., 2:])).all(-1).sum())


SHAPES = [(1,), (900,), (16, 2), (16, 25), (3, 2, 3), (30, 20, 90), (2, 3, 4, 5), (9, 8, 7, 30)]


@pytest.mark.parametrize("shape", [*SHAPES, (2, 3, 2, 3, 2), (7, 7, 7, 7, 7)], ids=str)
@pytest.mark.parametrize("keep", ["", "n", "n c l h w"])
def test_nothing_overlaps_and_nothing_leaves_the_page(shape, keep):
    names = ["n", "c", "l", "h", "w"][: len(shape)]
    kept = [name for name in names if name in keep]
    reduction = Reduction(f"{' '.join(names)} -> {' '.join(kept)}")
    svg = draw_slices(-np.random.default_rng(0).normal(50, 300, shape), reduction).svg
    page = ElementTree.fromstring(svg)
    width, height = map(float, page.get("viewBox").split()[2:])
    cells = boxes_of(page.findall(".//*[@data-index]"))
    chips = boxes_of(page.findall(".//*[@rx]"))
    for boxes in (cells, chips):
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
    assert width <= 900
    assert len(svg.encode()) < 300_000
    assert count_overlaps(cells, cells) == len(cells)  # each with itself
    assert count_overlaps(cells, chips) == 0
    assert count_overlaps(chips, chips) == len(chips)
    slices, names = (
        len(page.findall(f".//*[@class='{look}']")) for look in ("nv-slice", "nv-lit nv-name")
    )
    assert (len(chips), names) == ((slices, 0) if slices <= MAX_CHIPS else (0, slices))
    gaps = "".join(gap.get("d") for gap in page.findall(".//*[@class='nv-gap']"))
    lines = re.findall(r"M(\d+) (\d+)(?:V(\d+)|H(\d+))", gaps)
    ends = [[int(x), int(y), int(h or x) + 0.1, int(v or y) + 0.1] for x, y, v, h in lines]
    assert count_overlaps(np.array(ends).reshape(-1, 4), cells) == 0


@claim
@given(st.integers(1, 200), st.integers(0, 200), st.sampled_from([-123.45, -54321, -1e-300]))
def test_every_cell_is_as_wide_as_its_number(size, at, wide):
    x = np.zeros(size)
    x[at % size] = wide
    page = ElementTree.fromstring(draw_slices(x, Reduction("n ->")).svg)
    for cell, text in pairwise(page.find(".//*[@class='nv-slice']")):
        if cell.get("data-index"):
            assert float(cell.get("width")) >= LETTER * len(text.text)


def trained(layer):
    for values in layer.state_dict().values():
        nn.init.normal_(values, -300, 0.1) if values.is_floating_point() else None
    return layer


def noise(*shape):
    return torch.from_numpy(-np.random.default_rng(0).normal(100, 50, shape)).float()


ALONE = "n c h w -> n c h w"
PICTURES = {
    "small": SMALL,
    "one axis": draw_slices(noise(900), "n ->"),
    "groups": draw_slices(noise(8, 12, 6, 6), Reduction("n (g c) h w -> n g", g=3)),
    "unnamed": draw_slices(noise(5, 5, 5, 5, 5) * 1e-9, "... -> ..."),
    "long names": draw_slices(noise(4, 3), "feature_map sequence_length -> feature_map"),
    "long title": draw_slices([[1]], "n c -> c", title="A long title " * 20),
    "training": explain(trained(nn.BatchNorm2d(3)), noise(9, 3, 4, 5)).picture(show="output"),
    "eval": explain(trained(nn.BatchNorm1d(40)).eval(), noise(4, 40)).picture(),
    "weights": explain(trained(nn.LayerNorm([5, 6])), noise(4, 5, 6)).picture(by="weight"),
    "cubes": draw_cubes((64, 256, 56, 56), {"all": "n c h w ->", "none": ALONE, "c": "... c -> c"}),
    "cubes of 5 axes": draw_cubes((4, 3, 2, 2, 2), dict.fromkeys("abcd", "n c d h w -> n c d h w")),
    "small cubes": draw_cubes((1, 2), {"A": "sample channel -> channel", "B & C": "n c ->"}),
}
MISPLACED = """() => {  // the words that leave the page or their card, or that meet other words
    const svg = document.querySelector('svg'), page = svg.getBoundingClientRect(), found = []
    document.querySelector('style').append('.nv-lit { display: inline }')
    const fits = (b, x, y, width, height) => x <= b.x && b.x + b.width <= x + width
        && y <= b.y && b.y + b.height <= y + height
    const meet = (a, b) => a.x < b.x + b.width && b.x < a.x + a.width
        && a.y + 5 < b.y + b.height && b.y + 5 < a.y + a.height
    const free = []
    for (const text of document.querySelectorAll('text')) {
        const b = text.getBoundingClientRect(), slice = text.closest('.nv-slice')
        b.x -= page.x
        b.y -= page.y
        if (!fits(b, 0, 0, page.width, page.height)) found.push(text.textContent)
        if (text.matches('.nv-ink')) {
            const first = text.parentElement.firstElementChild
            const card = (text.parentElement === slice ? text.previousSibling : first).getBBox()
            if (!fits(b, card.x - 1.5, card.y, card.width + 3, card.height))
                found.push(text.textContent)
        }
        if (slice) continue
        found.push(...free.filter(other => meet(b, other.b)).map(other => other.words))
        free.push({ words: text.textContent, b })
    }
    return found
}"""
OPACITY = "groups => groups.map(group => Number(getComputedStyle(group).opacity))"
COLOURS_OF = """title => {
    const { fill } = getComputedStyle(title)
    const { backgroundColor } = getComputedStyle(title.ownerSVGElement)
    return [fill, backgroundColor].map(colour => colour.match(/\\d+/g).slice(0, 3).map(Number))
}"""


@pytest.fixture(scope="module")
def tab(chromium):
    with chromium.new_page() as tab:
        yield tab


def lit_slices(tab):
    """Which slices are not faded, after a check that they alone are spelled out."""
    opacities = tab.locator(".nv-slice").evaluate_all(OPACITY)
    assert all(opacity == 1 or opacity < 0.3 for opacity in opacities)
    lit = [nth for nth, opacity in enumerate(opacities) if opacity == 1]
    said = tab.locator("[data-of]")  # in the order of the slices
    shown = [nth for nth, lines in enumerate(said.all()) if lines.is_visible()]
    assert shown == (lit if len(lit) == 1 else [])
    return lit


@pytest.mark.browser
@pytest.mark.parametrize("name", PICTURES)
def test_words_stay_on_the_page_and_apart(tab, name):
    tab.set_content(PICTURES[name].svg)
    assert tab.evaluate(MISPLACED) == []


WIDER = """nodes => nodes.filter(node => node.getBoundingClientRect().right > innerWidth)
    .map(node => node.outerHTML.slice(0, 99))"""
SPACED = """* { line-height: 1.5 !important; letter-spacing: 0.12em !important;
    word-spacing: 0.16em !important }"""
OVERLAPPING = """blocks => blocks.slice(1).filter((block, i) =>
    block.getBoundingClientRect().top < blocks[i].getBoundingClientRect().bottom).length"""
WIDTHS = "texts => texts.map(text => text.getComputedTextLength())"
LETTERS = """texts => Math.min(...texts.map(text => parseFloat(getComputedStyle(text).fontSize)
    * (text.ownerSVGElement?.getScreenCTM().a ?? 1)))"""


@pytest.fixture(scope="module")
def phone(chromium):
    """A page on a phone."""
    how = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with chromium.new_context(**how) as phone:
        yield phone.new_page()


def show_on(phone, picture):
    page = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    phone.set_content(f"<!doctype html>{page}{picture._repr_html_()}")


@pytest.mark.browser
@pytest.mark.parametrize("name", PICTURES)
def test_on_a_phone_words_wrap_above_cells_that_scroll(phone, name):
    show_on(phone, PICTURES[name])
    widths = phone.locator(".nv text").evaluate_all(WIDTHS)
    for style in (" ", SPACED):  # as WCAG 1.4.12 asks for
        phone.add_style_tag(content=style)
        assert phone.locator(".nv-page span, .nv-said div").evaluate_all(WIDER) == []
        assert phone.locator(".nv-page > :not(style)").evaluate_all(OVERLAPPING) == 0
        assert phone.locator(".nv-page :is(span, text)").evaluate_all(LETTERS) >= 11
        assert phone.locator(".nv text").evaluate_all(WIDTHS) == widths
    title = phone.locator(".nv-title").first
    assert title.inner_text() == PICTURES[name].text.partition("\n")[0].strip()
    before = title.bounding_box()
    phone.locator(".nv-slice").last.focus()  # scrolls there
    assert title.bounding_box()["x"] == before["x"]


@pytest.mark.browser
@pytest.mark.parametrize("name", ["training", "eval"])  # of a few slices, and of many
def test_a_tap_lights_a_slice_a_second_one_moves_it_and_nothing_jumps(phone, name):
    show_on(phone, PICTURES[name])
    before = phone.locator(".nv").bounding_box()
    for nth in (0, 1, phone.locator(".nv-slice").count() - 1):
        phone.locator(".nv-slice").nth(nth).locator("[data-index]").first.tap()
        assert lit_slices(phone) == [nth]
        assert phone.locator(".nv").bounding_box()["y"] == before["y"]


@pytest.mark.browser
def test_the_slice_under_the_pointer_is_lit_or_the_one_in_focus_or_the_one_lit_at_first(tab):
    x = np.arange(18).reshape(3, 3, 2)
    tab.set_content("<button>before</button>" + draw_slices(x, "n c l -> c", lit=1)._repr_html_())
    tab.mouse.move(0, 0)
    assert lit_slices(tab) == [1]
    tab.get_by_role("button").focus()
    for nth in range(3):
        tab.keyboard.press("Tab")
        assert lit_slices(tab) == [nth]
    tab.locator("[data-index='0,0,1']").hover()
    assert 0.3 < tab.locator(".nv-slice").evaluate_all(OPACITY)[2] < 1  # the focus stays in sight
    tab.get_by_role("button").focus()
    assert lit_slices(tab) == [0]
    tab.mouse.move(0, 0)
    assert lit_slices(tab) == [1]


@pytest.mark.browser
def test_without_pointer_and_focus_nothing_fades(tab):
    tab.set_content(SMALL._repr_html_())
    tab.locator(".nv-title").hover(force=True)  # within the picture, but on no slice
    assert tab.locator(".nv-slice").evaluate_all(OPACITY) == [1, 1]
    assert tab.get_by_text("Point at a number").is_visible()
    assert not tab.locator(".nv-line").first.is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["picture.svg", "picture.html"])
def test_a_saved_picture_is_readable_on_light_and_dark(tab, tmp_path, name, scheme):
    tab.emulate_media(color_scheme=scheme)
    tab.goto(SMALL.save(tmp_path / name).as_uri())
    ink, paper = tab.locator(".nv-title").evaluate(COLOURS_OF)
    assert (sum(paper) > sum(ink)) == (scheme == "light")
    assert contrast(ink, paper) >= 4.5
