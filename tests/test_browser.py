"""Lessons, labs and pictures in a real JupyterLab and in Notebook 7, by pointer and by keyboard.

All lessons run in tests/test_lessons.py, and are worked on their pages in tests/test_site.py.
"""

import re
from itertools import zip_longest

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from normviz import labs
from tools.jupyter import LAB, NOTEBOOK, leave, run_all_cells, visit, wait_for_all_cells
from tools.notebooks import LESSONS, read

try:
    from playwright.sync_api import expect
except ImportError:  # then the browser's fixture skips every test here
    expect = None
else:
    expect.set_options(timeout=20_000)

pytestmark = pytest.mark.browser

DRAWN = [  # each kind of picture that the lessons here have not
    "normviz.draw_cubes((4, 6, 2, 2), {'LayerNorm': 'n c h w -> n'})",
    "normviz.draw_jacobian(torch.nn.LayerNorm(4), torch.randn(2, 4))",
    "normviz.explain(torch.nn.BatchNorm1d(2), torch.randn(3, 2))",
    "normviz.plots.draw_histograms({'biased': range(9), 'unbiased': range(8)}, truth=4)",
    "normviz.plots.draw_bars([0.1, 0.2])",
    "normviz.plots.draw_lines({'running': [0, 2, 3]})",
]
IMPORTS = "import normviz, normviz.plots, torch"
ALL_LABS = new_notebook(
    cells=[
        *map(new_code_cell, [IMPORTS, *DRAWN, *(f"normviz.labs.{lab}()" for lab in labs.__all__)])
    ],
    metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
)
BY_KEYBOARD, BY_MENU, IN_7, TOGETHER = OPENED = {
    "the first lesson": (LAB, read(LESSONS[0])),
    "a lesson": (LAB, read(LESSONS[1])),
    "a lesson in Notebook 7": (NOTEBOOK, read(LESSONS[1])),
    "all labs": (LAB, ALL_LABS),
}
NOT_OURS = (  # but Notebook 7's
    "Cannot read properties of undefined (reading 'schema')",  # of an empty notebook, too
    "Command 'filebrowser:open-path' not registered.",  # now and then
)

# But for what stands on a tinted cell, dark in either theme.
TEXT = ".nv-page span, .nv svg > g > text:not(.nv-ink), .nv-plot text"
INK = f"{TEXT}, .jp-OutputArea-output :is(p, b, label, button)"
SLICED = ".nv-page:has(.nv-slice):not(:has(.nv-outputs))"  # all but Jacobians
OPACITY = "groups => groups.map(group => Number(getComputedStyle(group).opacity))"
SHOWN = "lines => lines.map(line => getComputedStyle(line).visibility == 'visible')"
# The contrast of each text with the first background behind it that is not transparent (WCAG 2).
CONTRASTS = """texts => {
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number)
    const linear = part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
    const luminance = colour => numbers(colour).slice(0, 3).map(part => linear(part / 255))
        .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0)
    const inked = node => getComputedStyle(node)[node.ownerSVGElement ? 'fill' : 'color']
    const behind = node => {
        const colour = getComputedStyle(node).backgroundColor
        return numbers(colour)[3] === 0 ? behind(node.parentElement) : colour
    }
    return texts.filter(text => text.isConnected).map(text => {  // a lab may draw meanwhile
        const [ink, paper] = [inked(text), behind(text)].map(luminance)
        return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)
    })
}"""


@pytest.fixture(scope="module")
def complaints():
    """What the pages wrote to their error consoles."""
    return []


@pytest.fixture(autouse=True)
def _nothing_in_the_error_console(complaints):
    yield
    said = complaints.copy()
    complaints.clear()
    assert [complaint for complaint in said if complaint not in NOT_OURS] == []


@pytest.fixture(scope="module", params=OPENED)
def page(request, chromium, server, complaints):
    """A notebook, all run. Whatever tests it comes one after the other, as each opens once."""
    where, notebook = OPENED[request.param]
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else 0)
    visit(page, server, notebook, where)
    if request.param == BY_KEYBOARD:
        for cell in notebook.cells[:-1]:  # its first cell has the focus
            assert active(page) == cell.id
            page.keyboard.press("Shift+Enter")
        wait_for_all_cells(page)
    else:
        run_all_cells(page)
    yield page
    leave(page)


def opened(*keys):
    """A mark for what is tested in these notebooks alone."""
    return pytest.mark.parametrize("page", keys, indirect=True)


def of(*names, at=(TOGETHER,)):
    """Marks for what is tested of these labs, in these notebooks."""
    lab = pytest.mark.parametrize("lab", [f"{name}_lab" for name in names], indirect=True)
    return lambda test: opened(*at)(lab(test))


shape_lab = of("shape", at=(BY_MENU, IN_7))
every_lab = of(*(name.removesuffix("_lab") for name in labs.__all__))


@pytest.fixture
def lab(request, page):
    """A lab, its cell just run again."""
    cell = page.locator(".jp-CodeCell", has_text=f"{request.param}(").first
    prompt = cell.locator(".jp-InputArea-prompt")
    before = prompt.inner_text()
    cell.locator(".cm-content").press("Shift+Enter")
    expect(prompt).not_to_have_text(before)
    expect(prompt).to_have_text(re.compile(r"\[\d+\]:"))
    return cell.locator(".jp-OutputArea-output")


def texts(locator):
    return locator.evaluate_all("nodes => nodes.map(node => node.textContent)")


def lit(picture):
    """The numbers of the slices that are not faded, after a check that others are, clearly."""
    opacities = picture.locator(".nv-slice").evaluate_all(OPACITY)
    assert all(opacity == 1 or opacity < 0.3 for opacity in opacities)
    return [nth for nth, opacity in enumerate(opacities) if opacity == 1]


def assert_lit(picture, nth):
    """One slice is lit, and its lines alone are shown, if there are any."""
    assert lit(picture) == [nth]
    said = picture.locator("[data-of]")  # in the order of the slices
    shown = said.evaluate_all(SHOWN)
    assert [at for at, is_shown in enumerate(shown) if is_shown] == [nth][: len(shown)]


def active(page):
    return page.evaluate("jupyterapp.shell.currentWidget.content.activeCell.model.id")


def go_to(page, wanted):
    """Make the cell with this id the active one; the arrow keys might be those of a slider."""
    page.keyboard.press("Escape")
    ids = page.evaluate("jupyterapp.shell.currentWidget.content.widgets.map(w => w.model.id)")
    steps = ids.index(wanted) - ids.index(active(page))
    for _ in range(abs(steps)):
        page.keyboard.press("j" if steps > 0 else "k")
    assert active(page) == wanted


def tab_into(output):
    """Press Tab until the next thing in an output has the focus; a cell's toolbar comes first."""
    for _ in range(9):  # the toolbar has fewer buttons
        output.page.keyboard.press("Tab")
        if output.locator(":focus").count():
            return


@opened(BY_KEYBOARD)
def test_a_picture_and_an_exercise_are_worked_from_the_keyboard_alone(page):
    output = page.locator(".jp-Cell.jp-mod-active .jp-OutputArea-output")
    go_to(page, "first-picture")
    for nth in range(output.locator(".nv-slice").count()):
        tab_into(output)
        assert_lit(output, nth)
    go_to(page, "first-guess")
    [exercise] = [cell for cell in read(LESSONS[0]).cells if cell.id == "first-guess"]
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(exercise.source.replace("...", "3", 1))
    page.keyboard.press("Control+Enter")
    expect(output).to_contain_text("Right.")


def test_pointer_and_keyboard_light_up_one_slice_and_spell_it_out(page):
    """In three pictures; tests/test_site.py goes through all of them."""
    pictures = page.locator(f"{SLICED}:not(details:not([open]) *)").all()
    for picture in pictures[:2] + pictures[-1:]:
        page.mouse.move(0, 0)
        before, slices = lit(picture), picture.locator(".nv-slice")
        last = slices.count() - 1
        slices.last.locator(".nv-cell:not(.nv-lit)").last.hover()
        assert_lit(picture, last)
        page.mouse.move(0, 0)
        assert lit(picture) == before
        picture.locator(".nv-title").first.click(force=True)  # as the first lesson tells
        page.mouse.move(0, 0)
        for nth in range(min(last, 2) + 1):
            page.keyboard.press("Tab")
            assert_lit(picture, nth)


@opened(BY_KEYBOARD)
def test_a_click_keeps_a_slice_lit(page):
    picture = page.locator(".nv-page").first
    picture.locator(".nv-slice").last.locator(".nv-cell").last.click()
    page.mouse.move(0, 0)
    assert lit(picture) == [picture.locator(".nv-slice").count() - 1]


@shape_lab
def test_the_arrow_keys_move_each_slider_of_the_lab_and_its_picture(lab):
    shape = [3, 3, 2, 2]
    sliders = lab.locator(".widget-slider:visible").all()
    assert len(sliders) == len(shape)
    for axis, slider in enumerate(sliders):
        slider.get_by_role("slider").press("ArrowRight")
        shape[axis] += 1
        n, c, h, w = shape
        expect(slider.locator(".widget-readout")).to_have_text(str(shape[axis]))
        expect(lab.locator(".widget-html").first).to_contain_text(f"{c} means")
        expect(lab.locator(".widget-html").first).to_contain_text(f"{n * h * w} numbers")
        expect(lab.locator(".nv-page")).to_contain_text(f"shape ({n}, {c}, {h}, {w})")
        expect(lab.locator("[data-index]")).to_have_count(n * c * h * w)


@shape_lab
def test_each_list_and_button_of_the_lab_changes_the_picture(lab):
    title = lab.locator(".nv-title")
    for button, says in {
        "normalized": ", normalized: mean over",
        "output": ", output: mean over",
        "weight": ", output: one weight per c",
    }.items():
        lab.get_by_role("button", name=button).click()
        expect(title).to_contain_text(says)
    for layer in ("BatchNorm3d", "BatchNorm1d", "LayerNorm"):
        lab.get_by_label("layer", exact=True).select_option(layer)
        expect(title).to_contain_text(f"{layer}(")
    lab.get_by_label("axes", exact=True).select_option("(N, C, H, W)")
    expect(lab.locator(".nv-page")).to_contain_text("shape (3, 3, 2, 2)")
    lab.get_by_role("button", name="statistic").click()
    for pooled in ("w", "h, w", "c, h, w"):
        lab.get_by_label("normalized_shape").select_option(index=pooled.count(","))
        expect(title).to_contain_text(f"mean over {pooled}, one per")


@shape_lab
def test_the_lab_shows_a_refusal_and_recovers_from_it(lab):
    lab.get_by_label("layer", exact=True).select_option("BatchNorm1d")
    samples = lab.get_by_role("slider").first
    samples.press("Home")
    expect(lab.get_by_role("alert")).to_contain_text("Refused: Expected more than 1 value")
    samples.press("ArrowRight")
    expect(lab.get_by_role("alert")).to_have_count(0)


def readout(lab):
    return lab.locator(".widget-html").first


def assert_moves_the_readout(slider, key, lab):
    before = readout(lab).inner_text()
    slider.press(key)
    expect(readout(lab)).not_to_have_text(before, use_inner_text=True)


@of("momentum")
def test_the_momentum_lab_answers_to_each_control(lab):
    typed, sliders = lab.get_by_label("momentum", exact=True), lab.get_by_role("slider")
    expect(readout(lab)).to_contain_text("After 30 batches")
    expect(lab.locator("svg.nv-plot")).to_have_count(1)
    sliders.nth(1).press("ArrowRight")
    expect(readout(lab)).to_contain_text("After 31 batches")
    lab.get_by_role("button", name="one more batch").click()
    expect(readout(lab)).to_contain_text("After 32 batches")
    for slider in (sliders.nth(2), sliders.nth(3)):  # batch size and drift
        assert_moves_the_readout(slider, "ArrowRight", lab)
    typed.fill("1.5")
    typed.press("Enter")
    expect(readout(lab).get_by_role("alert")).to_contain_text("momentum must be from 0 to 1")
    sliders.nth(0).press("ArrowRight")
    expect(readout(lab).get_by_role("alert")).to_have_count(0)
    lab.get_by_label("None: the plain average").check()
    expect(readout(lab)).to_contain_text("Each batch weighs 3.12 %")
    lab.get_by_role("button", name="eval").click()
    expect(readout(lab)).to_contain_text("In eval nothing moves")


@of("bessel")
def test_the_bessel_lab_answers_to_each_control(lab):
    sliders = lab.get_by_role("slider")
    before = lab.locator("svg.nv-plot").get_attribute("aria-label")
    sliders.nth(0).press("ArrowRight")
    expect(readout(lab)).to_contain_text("m = 4 numbers")
    assert lab.locator("svg.nv-plot").get_attribute("aria-label") != before
    sliders.nth(1).press("Home")
    expect(readout(lab)).to_contain_text("10 of them")
    before = readout(lab).inner_text()
    lab.get_by_label("drawn from").select_option("skewed")
    expect(readout(lab)).not_to_have_text(before, use_inner_text=True)
    sliders.nth(0).press("Home")
    expect(readout(lab).get_by_role("alert")).to_contain_text("m must be at least 2")
    sliders.nth(0).press("ArrowRight")
    expect(readout(lab)).to_contain_text("m = 2 numbers")


@of("modes")
def test_the_modes_lab_answers_to_each_control(lab):
    expect(readout(lab)).to_contain_text("of this batch")
    lab.get_by_role("button", name="eval").click()
    expect(readout(lab)).to_contain_text("the running ones")
    lab.get_by_role("button", name="False").click()
    expect(readout(lab)).to_contain_text("there is none")
    lab.get_by_label("batch", exact=True).select_option("one value")
    expect(readout(lab).get_by_role("alert")).to_contain_text("more than 1 value per channel")
    lab.get_by_role("button", name="set afterwards").click()
    expect(readout(lab)).to_contain_text("stays 100")
    expect(lab.locator(".nv-page")).to_have_count(2)


@of("linearity")
def test_the_linearity_lab_answers_to_each_control(lab):
    expect(readout(lab)).to_contain_text("Not linear")
    for slider in lab.get_by_role("slider").all():
        assert_moves_the_readout(slider, "End", lab)
    vector = lab.get_by_role("textbox", name="x₁")
    vector.fill("1, two")
    vector.press("Enter")
    expect(readout(lab).get_by_role("alert")).to_contain_text("numbers with commas")
    vector.fill("1, 2, 9")
    vector.press("Enter")
    expect(readout(lab)).to_contain_text("Not linear")
    lab.get_by_role("button", name="eval").click()
    expect(readout(lab)).to_contain_text("Affine")


@of("relatives")
def test_the_relatives_lab_answers_to_each_control(lab):
    expect(readout(lab)).to_contain_text("16 of 64 outputs")
    for name in ("n, samples", "c, channels", "h, rows", "w, columns"):
        assert_moves_the_readout(lab.get_by_role("slider", name=name), "ArrowRight", lab)
    for axis in "nchw":
        place = lab.get_by_role("slider", name=f"outlier's {axis}")
        assert_moves_the_readout(place, "ArrowRight", lab)
    expect(lab.locator(".nv-page")).to_contain_text("The outlier stands at (1, 1, 1, 1)")
    assert_moves_the_readout(lab.get_by_role("slider", name="outlier: plus"), "End", lab)
    lab.get_by_role("button", name="eval").click()
    expect(readout(lab)).to_contain_text("1 of 225 outputs")
    for button in ("input", "output", "change"):
        lab.get_by_role("button", name=button).click()
        expect(lab.get_by_role("button", name=button)).to_have_class(re.compile("mod-active"))
    layers = lab.get_by_label("layer", exact=True)
    for layer in texts(layers.locator("option")):
        layers.select_option(layer)
        expect(lab.locator(".nv-title").first).to_contain_text(layer.split()[0])
        expect(readout(lab).get_by_role("alert")).to_have_count(0)


@of("gradient")
def test_the_gradient_lab_answers_to_each_control(lab):
    expect(readout(lab)).to_contain_text("three terms")
    for slider in lab.get_by_role("slider").all():
        assert_moves_the_readout(slider, "End", lab)
    for name, wrong, right in (("x", "1, two, 6", "1, 2, 9"), ("g", "1, 0", "1, 1, 1")):
        vector = lab.get_by_role("textbox", name=name, exact=True)
        vector.fill(wrong)
        vector.press("Enter")
        expect(readout(lab).get_by_role("alert")).to_contain_text("numbers")
        vector.fill(right)
        vector.press("Enter")
        expect(readout(lab).get_by_role("alert")).to_have_count(0)
    for button, says in {"detached": "one term", "eval": "one term"}.items():
        lab.get_by_role("button", name=button).click()
        expect(readout(lab)).to_contain_text(says)
    lab.get_by_role("button", name="in the gradient").click()
    lab.get_by_label("layer", exact=True).select_option("RMSNorm")
    expect(readout(lab)).to_contain_text("two terms")
    shown = lab.locator(".widget-html").first
    assert shown.evaluate("node => node.scrollHeight <= node.clientHeight")  # nothing is cut off


@of("workers")
def test_the_workers_lab_answers_to_each_control(lab):
    expect(readout(lab)).to_contain_text("Each on its own (4, 4 samples)")
    workers, samples, drift = lab.get_by_role("slider").all()
    workers.press("ArrowRight")
    expect(readout(lab)).to_contain_text("(3, 3, 2 samples)")
    samples.press("ArrowRight")
    expect(readout(lab)).to_contain_text("(3, 3, 3 samples)")
    assert_moves_the_readout(drift, "End", lab)
    lab.get_by_role("button", name="last one smaller").click()
    expect(readout(lab).get_by_role("alert")).to_contain_text("worker 2 has one number")
    lab.get_by_role("button", name="on", exact=True).click()
    expect(readout(lab)).to_contain_text("Together")


@every_lab
def test_every_control_of_a_lab_has_a_name_and_a_slider_says_where_it_stands(lab):
    kinds = ("input", "select", "button", "[role=slider]", "[contenteditable]")
    controls = lab.locator(", ".join(f"{kind}:visible" for kind in kinds))
    assert controls.count() >= 2
    for control in controls.all():
        expect(control).to_have_accessible_name(re.compile(r"\S"))
    for slider in lab.locator(".widget-slider:visible").all():
        handle, shown = slider.get_by_role("slider"), slider.locator(".widget-readout")
        expect(handle).to_have_accessible_name(slider.locator(".widget-label").inner_text())
        expect(handle).to_have_attribute("data-lm-suppress-shortcuts", "true")  # of Notebook 7
        before = handle.get_attribute("aria-valuetext")
        assert before == shown.text_content()
        handle.press("ArrowRight")
        expect(handle).not_to_have_attribute("aria-valuetext", before)
        assert handle.get_attribute("aria-valuetext") == shown.text_content()


@opened(BY_MENU, IN_7)
def test_an_answer_in_its_cell_is_right_or_not_yet(page):
    question = 'check("pattern_of_images"'
    cell = page.locator(".jp-CodeCell", has_text=question)
    cells = read(LESSONS[1]).cells
    [source] = [cell.source for cell in cells if question in cell.source]
    expect(cell.locator(".jp-OutputArea-output")).to_contain_text("Not attempted yet.")
    for answer, verdict in {"n c h w -> n": "Not yet.", "n c h w -> c": "Right."}.items():
        cell.locator(".cm-content").fill(source.replace("...", repr(answer), 1))
        cell.locator(".cm-content").press("Shift+Enter")
        expect(cell.locator(".jp-OutputArea-output")).to_contain_text(verdict)


@opened(BY_MENU, IN_7)
def test_a_prediction_is_clicked_and_judged_by_the_next_cell_above_a_folded_answer(page):
    choice = page.locator(".jp-CodeCell", has=page.locator("fieldset")).first
    telling = page.locator(".jp-CodeCell:has(fieldset) + .jp-CodeCell").first
    expect(telling).to_contain_text("Choose one in the cell above")
    choice.get_by_role("radio").first.focus()
    page.keyboard.press("Space")
    expect(choice).to_contain_text("Recorded.")
    choice.locator(".cm-content").press("Shift+Enter")  # runs again, as after a click
    expect(choice).to_contain_text("Recorded.")
    expect(choice.get_by_role("radio").first).to_be_checked()
    telling.locator(".cm-content").press("Shift+Enter")
    expect(telling).to_contain_text("You said: ")
    expect(choice.get_by_role("radio").first).to_be_disabled()
    folded = page.locator(".jp-MarkdownCell details").first
    expect(folded.locator("p").first).not_to_be_visible()
    folded.locator("summary").press("Enter")
    expect(folded.locator("p").first).to_be_visible()


@shape_lab
def test_the_controls_of_a_lab_follow_each_other_from_the_keyboard(lab):
    go_to(lab.page, "lab")
    for control in ("layer", "axes"):
        tab_into(lab)
        expect(lab.get_by_label(control, exact=True)).to_be_focused()
    tab_into(lab)
    expect(lab.get_by_role("slider", name="n, samples")).to_be_focused()
    lab.page.keyboard.press("ArrowRight")
    expect(lab.locator(".nv-page")).to_contain_text("shape (4, 3, 2, 2)")


@opened(BY_MENU, TOGETHER)
def test_a_screen_reader_hears_what_each_slice_is_and_how_it_came_about(page):
    """What Chromium tells assistive technology, except for a lab, which may just be moving."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    told = {
        (node["name"]["value"], node.get("description", {}).get("value", ""))
        for node in tree
        if not node["ignored"] and node["role"]["value"] in ("image", "img")
    }
    for picture in page.locator(f"{SLICED}:not(.jupyter-widgets *)").all():
        slices, said = picture.locator(".nv-slice").all(), picture.locator("[data-of]").all()
        for one, lines in zip_longest(slices, said):
            name, lines = one.get_attribute("aria-label"), lines and lines.locator("span")
            assert re.search(r", \d[\d,]* numbers?: [a-z]+ [−\d.]+|: one mean over \d", name)
            assert (name, "; ".join(texts(lines) if lines else [])) in told
    for plot in page.locator("svg.nv-plot:not(.jupyter-widgets *)").all():
        assert plot.get_attribute("aria-label") in {name for name, _ in told}


def test_all_text_is_readable_in_either_theme(page):
    """In the theme that the last notebook left, and in the other: JupyterLab bears one change."""
    ink, body = page.locator(INK), page.locator("body")
    assert ink.count() > 20
    assert min(ink.evaluate_all(CONTRASTS)) >= 4.5
    light = body.get_attribute("data-jp-theme-light") == "true"
    theme = "JupyterLab Dark" if light else "JupyterLab Light"
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    expect(body).to_have_attribute("data-jp-theme-name", theme)
    assert min(ink.evaluate_all(CONTRASTS)) >= 4.5


TRACKS = "tracks => tracks.map(track => track.getBoundingClientRect().width)"
WIDER = "words => words.filter(it => it.offsetWidth > it.closest('.nv-lab').clientWidth).length"
CUT_OFF = "labels => labels.filter(label => label.scrollWidth > label.clientWidth).length"


@every_lab
def test_the_controls_of_a_lab_stand_in_one_grid_with_tracks_for_any_hand(lab):
    for width in (700, 1400):
        lab.page.set_viewport_size({"width": width, "height": 900})
        labels = lab.locator(".widget-label:visible")
        assert {round(label.bounding_box()["width"]) for label in labels.all()} == {96}
        assert labels.evaluate_all(CUT_OFF) == 0
        assert lab.locator(".nv-page > span").evaluate_all(WIDER) == 0
        tracks = lab.locator(".noUi-target:visible").evaluate_all(TRACKS)
        assert min(tracks, default=120) >= 120


@shape_lab
def test_what_a_layer_does_not_need_leaves_its_place_free(lab):
    places = set()
    for layer in ("BatchNorm3d", "BatchNorm1d", "LayerNorm", "GroupNorm"):
        lab.get_by_label("layer", exact=True).select_option(layer)
        expect(lab.locator(".nv-title")).to_contain_text(f"{layer}(")
        top = lab.locator(".nv-lab").bounding_box()["y"]
        places.add(round(readout(lab).bounding_box()["y"] - top))
    assert len(places) == 1
