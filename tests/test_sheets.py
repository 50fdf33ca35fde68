"""The printable sheets: what they say is true in torch, and all of it is on the paper."""

import json
import re
from collections import Counter
from itertools import combinations, product
from math import prod
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from pypdf import PdfReader
from torch import nn
from torch.testing import assert_close

import normviz
from normviz import plan_of
from sheets import FOLDER, draw_sheets
from sheets.figures import BOXES, CURVES, GRADIENT, MOVED, OUTLIER, RELATIVES, TOKENS, WORKERS

ROOT = Path(__file__).parents[1]

LESSONS = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))][1:]
NAMES = ["axes", *LESSONS]
TEXT = "{http://www.w3.org/2000/svg}text"
MILLIMETRE = 72 / 25.4


pytestmark = pytest.mark.usefixtures("seeded")


def read(name):
    return (FOLDER / f"{name}.svg").read_text(encoding="utf-8")


def texts_of(element):
    return [text.text for text in element.iter(TEXT)]


AXES = ElementTree.fromstring(read("axes"))
WORDS = " ".join(texts_of(AXES))
CELLS = {cell.get("data-cell"): cell for cell in AXES.findall(".//*[@data-cell]")}
DRAWN = {name: int(size) for name, size in re.findall(r"\b([A-Z]) = (\d+)[,.]", WORDS)}
OTHER = {"N": 5, "C": 6, "L": 7, "T": 4, "D": 3, "H": 2, "W": 8, "G": 3}


def test_every_lesson_has_its_handout_and_nothing_else_lies_there():
    files = {f"{name}.{kind}" for name in NAMES for kind in ("svg", "pdf")}
    assert files == {path.name for path in FOLDER.iterdir()}


def test_the_sheets_are_what_the_script_draws_today():
    today = draw_sheets()
    assert [*today] == NAMES
    for name in NAMES:
        assert today[name] == read(name), name


@pytest.mark.parametrize("name", NAMES)
def test_a_sheet_has_a_name_and_needs_no_other_file(name):
    svg = read(name)
    page = ElementTree.fromstring(svg)
    assert page.get("aria-label") == page[0].text
    assert (page.get("width"), page.get("height")) == ("297mm", "210mm")
    assert not re.search(r"<script|<image|href|url\(|@import|@font-face", svg)


@pytest.mark.parametrize("name", NAMES)
def test_a_pdf_is_one_landscape_page_with_the_words_of_its_sheet(name):
    svg = ElementTree.fromstring(read(name))
    pdf = PdfReader(FOLDER / f"{name}.pdf")
    [page] = pdf.pages
    assert np.allclose(page.mediabox, [0, 0, 297 * MILLIMETRE, 210 * MILLIMETRE], atol=1)
    assert not page.get("/Rotate")
    assert pdf.metadata.title == svg.get("aria-label")
    assert Counter(page.extract_text().split()) == Counter(" ".join(texts_of(svg)).split())


# The sixteen cells of the axis cheat sheet.


def facts_of(name):
    """The call of torch's layer, and what stands below it."""
    call, *rest = texts_of(CELLS[name])
    facts = dict(zip(rest[:10:2], rest[1:10:2], strict=True))
    return call, {"input" if what.endswith("input") else what: told for what, told in facts.items()}


def input_of(facts, sizes):
    """The input's axes, and random numbers for them."""
    axes = facts["input"].strip("()").split(", ")
    return axes, torch.randn([sizes[axis] for axis in axes], dtype=torch.float64)


def layer_of(call, sizes, **options):
    kind, _, arguments = call.partition("(")
    given = eval(f"[{arguments.removesuffix(')')}]", dict(sizes))
    return getattr(nn, kind)(*given, **options).double()


def evaluate(fact, sizes):
    """The number that ``"C/G·H·W = 16"`` says, in these sizes."""
    factors = fact.partition(" = ")[0].split("·")
    return prod(sizes["C"] // sizes["G"] if f == "C/G" else sizes[f] for f in factors)


def mates(layer, x):
    """Which outputs move with the first number."""
    moved = x.clone()
    moved.view(-1)[0] += 1
    return ~torch.isclose(layer(moved), layer(x), rtol=0, atol=1e-9)


def test_there_are_sixteen_cells_with_the_numbers_of_the_drawn_shape():
    layers = ("BatchNorm", "LayerNorm", "InstanceNorm", "GroupNorm")
    assert [*CELLS] == [f"{layer} {ndim}-D" for layer in layers for ndim in (2, 3, 4, 5)]
    for name in CELLS:
        call, facts = facts_of(name)
        assert call.startswith(name.split()[0])
        assert f"{len(input_of(facts, DRAWN)[0])}-D" == name.split()[1]
        assert f"{name.split()[1]} input" in texts_of(CELLS[name])
        assert [*facts] == ["input", "pools", "statistics", "m", "weights"]
        for fact in facts.values():
            if " = " in fact:
                assert evaluate(fact, DRAWN) == int(fact.partition(" = ")[2])


@pytest.mark.parametrize("sizes", [DRAWN, OTHER], ids=["drawn", "other"])
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_says_what_torch_pools_and_counts_its_weights(name, sizes):
    call, facts = facts_of(name)
    axes, x = input_of(facts, sizes)
    layer = layer_of(call, sizes)
    own = mates(layer, x)
    pooled = [axis for i, axis in enumerate(axes) if own.movedim(i, 0).flatten(1).any(1).sum() > 1]
    assert pooled == [axis.removesuffix("/G") for axis in facts["pools"].split(", ")]
    assert evaluate(facts["m"], sizes) == own.sum()
    assert evaluate(facts["statistics"], sizes) * own.sum() == x.numel()
    normalized = (x[own] - x[own].mean()) / (x[own].var(correction=0) + layer.eps).sqrt()
    assert_close(layer(x)[own], normalized)  # with weight 1, and the biased variance
    if facts["weights"] == "0 by default":
        assert layer.weight is layer.bias is None
    else:
        assert evaluate(facts["weights"], sizes) == layer.weight.numel() == layer.bias.numel()


@pytest.mark.parametrize("name", CELLS)
def test_the_outlined_slice_has_the_surface_of_what_torch_pools(name):
    call, facts = facts_of(name)
    axes, x = input_of(facts, DRAWN)
    block = mates(layer_of(call, DRAWN), x).reshape(*x.shape[:2], -1)  # back, right, down
    own = np.pad(block.numpy(), 1)
    steps = (own & ~np.roll(own, step, axis) for step, axis in ((1, 0), (1, 2), (-1, 1)))
    [lit] = CELLS[name].findall(".//*[@class='solid lit']")
    paths = [path.get("d") for path in lit if "nv-cell" in path.get("class")]
    assert sum(path.count("M") for path in paths) == sum(seen.sum() for seen in steps)
    edges = [f"{axes[1]} →", f"{axes[0]} ↗", f"{'·'.join(axes[2:])} ↓"]
    assert texts_of(CELLS[name])[-len(edges[: x.ndim]) :] == edges[: x.ndim]


def trained(name, **options):
    """A layer that has seen one batch in training, and that batch."""
    call, facts = facts_of(name)
    _, x = input_of(facts, OTHER)
    layer = layer_of(call, OTHER, **options)
    return layer, x, layer(x)


def told_of(layer):
    """What the sheet says of a layer in training, and in eval."""
    rows = texts_of(AXES)
    at = rows.index(layer)
    assert rows[at + 1 : at + 5 : 2] == ["train", "eval"]
    return rows[at + 2], rows[at + 4]


@pytest.mark.parametrize("name", CELLS)
def test_train_and_eval_differ_where_the_sheet_says_so(name):
    kind = name.split()[0]
    train, evaluate = told_of(kind)
    layer, x, y = trained(name)
    assert evaluate.startswith("the same as train") == torch.equal(layer.eval()(x), y)
    assert ("Nothing is stored" in train) == (not [*layer.buffers()])
    if plan_of(layer, x.ndim).running:
        assert "track_running_stats" in train + evaluate
        tracked = not layer.track_running_stats  # the other setting than the default
        layer, x, y = trained(name, track_running_stats=tracked)
        assert torch.equal(layer.eval()(x), y) != tracked


@pytest.mark.parametrize("ndim", [3, 4, 5])
def test_what_is_stored_is_unbiased_and_per_channel(ndim):
    over = (0, *range(2, ndim))
    layer, x, _ = trained(f"BatchNorm {ndim}-D", momentum=1)
    assert_close(layer.running_var, x.var(dim=over))
    layer, x, _ = trained(f"InstanceNorm {ndim}-D", momentum=1, track_running_stats=True)
    assert_close(layer.running_mean, x.mean(dim=over))
    assert_close(layer.running_var, x.var(dim=over[1:]).mean(0))
    for row in ("BatchNorm", "InstanceNorm"):
        assert "unbiased" in told_of(row)[0].partition(" normalize.")[2]


def test_the_traps_are_traps_in_torch():
    n, c, h, w = 3, 4, 5, 2
    tokens, images, table = torch.randn(n, h, c), torch.randn(n, c, h, w), torch.randn(n, c)

    assert "Tokens (N, T, C) have to be transposed; if T = C, nothing complains." in WORDS
    with pytest.raises(RuntimeError):
        nn.BatchNorm1d(c)(tokens)
    assert nn.BatchNorm1d(c)(tokens[:, :c]).shape == (n, c, c)

    assert "exactly normalized_shape These are the sizes of the last axes." in WORDS
    with pytest.raises(RuntimeError, match="normalized_shape"):
        nn.LayerNorm(c)(images)
    assert "LayerNorm(C) pools each token by itself" in WORDS
    assert_close(nn.LayerNorm(c)(tokens)[1, 2], nn.LayerNorm(c)(tokens[1, 2]))

    assert "each row of a table gets a mean of its own, as in LayerNorm" in WORDS
    assert_close(nn.InstanceNorm1d(n)(table), nn.LayerNorm(c)(table))

    assert "affine=True gives C weights, track_running_stats=True running statistics" in WORDS
    layer = nn.InstanceNorm2d(c, affine=True, track_running_stats=True)
    assert layer.weight.shape == layer.running_mean.shape == (c,)

    assert "It pools as LayerNorm([C, H, W]), but has C weights, not C·H·W." in WORDS
    one, whole = nn.GroupNorm(1, c), nn.LayerNorm([c, h, w])
    assert_close(one(images), whole(images))
    assert (one.weight.numel(), whole.weight.numel()) == (c, c * h * w)
    per_token = nn.LayerNorm(c)(tokens).transpose(1, 2)
    assert not torch.allclose(one(tokens.transpose(1, 2)), per_token, atol=0.1)
    assert "GroupNorm(C, C) pools as InstanceNorm." in WORDS
    assert_close(nn.GroupNorm(c, c)(images), nn.InstanceNorm2d(c)(images))

    assert "Only in BatchNorm, and in InstanceNorm with track_running_stats=True." in WORDS
    assert "no_grad() is no such switch" in WORDS
    layer = nn.BatchNorm2d(c)
    with torch.no_grad():
        layer(images)
    assert layer.num_batches_tracked == 1


# The answers at the foot of the handouts.


def answer_of(lesson):
    """The answer, upside down on the sheet."""
    page = ElementTree.fromstring(read(next(name for name in LESSONS if name.startswith(lesson))))
    [foot] = (g for g in page.iter() if (g.get("transform") or "").startswith("rotate(180"))
    words = " ".join(texts_of(foot))
    return re.fullmatch("Answer: (.*) Remember: .*", words)[1]


def test_01_the_marked_numbers_share_a_mean():
    x = torch.arange(36.0).reshape(3, 3, 2, 2).double()
    moved = x.clone()
    moved[0, 1, 0, 0] += 1
    layer = nn.BatchNorm2d(3).double()
    marked = x[~torch.isclose(layer(moved), layer(x))]
    assert marked.tolist() == [*range(4, 8), *range(16, 20), *range(28, 32)]
    assert f"4 to 7, 16 to 19 and 28 to 31. Their mean is {marked.mean():g}" in answer_of("01")
    assert "three means" in answer_of("01")


def test_02_the_token_shares_a_mean_and_the_channel_a_weight():
    x = torch.tensor(TOKENS).double()
    token, channel = x[0, 1].int().tolist(), x[..., 0].flatten().int().tolist()
    assert_close(nn.LayerNorm(4).double()(x)[0, 1], nn.LayerNorm(4).double()(x[0, 1]))
    assert f"{', '.join(map(str, token))}, with mean {x[0, 1].mean():g}" in answer_of("02")
    assert f"six tokens: {', '.join(map(str, channel))}." in answer_of("02")
    assert "six means, one per token, and four weights" in answer_of("02")


def test_03_after_ten_batches_a_third_of_the_start_is_left():
    layer = nn.BatchNorm1d(1)
    for _ in range(10):
        layer(torch.tensor([[9.0], [11.0]]))
    assert f"0.1 it is at {layer.running_mean.item():.2f}:" in answer_of("03")
    assert f"= {0.9**10:.2f}" in answer_of("03")
    curves = CURVES
    assert all(f"{name} is {curve[0]}" in answer_of("03") for name, curve in curves.items())


def test_04_only_one_average_is_the_truth():
    samples = torch.tensor([*product((0.0, 2.0, 4.0), repeat=2)])
    for correction, division in enumerate(("÷ m", "÷ (m − 1)")):
        var = samples.var(dim=1, correction=correction)
        told = f"{division}: {', '.join(f'{v:g}' for v in var)}, on average {var.mean():.2f}"
        assert told in answer_of("04")
    assert_close(var.mean(), torch.tensor([0.0, 2, 4]).var(correction=0))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("track", [True, False])
def test_05_the_ticks_are_those_of_torch(training, track):
    layer = nn.BatchNorm1d(1, track_running_stats=track)
    x = torch.tensor([[1.0], [5.0], [9.0]])
    other = torch.tensor([[1.0], [50.0], [7.0]])
    layer(x)
    before = [buffer.clone() for buffer in layer.train(training).buffers()]
    first, another = layer(x), layer(other)
    moved = not all(map(torch.equal, before, layer.buffers()))
    ticks = (
        "batch" if torch.allclose(first.mean(), torch.zeros(()), atol=1e-6) else "running",
        ("move" if moved else "stay") if before else "none",
        "matter" if first[0] != another[0] else "do not",
    )
    states = dict(re.findall(r"([^.:]*[^.: ]): ([^.]*)\.", answer_of("05")))
    mode = f"{'training' if training else 'eval'}, {track}"
    [told] = [told for state, told in states.items() if mode in state]
    assert told == ", ".join(ticks)


def test_06_ten_times_the_input_changes_nothing():
    x = torch.tensor([[1.0], [2.0], [6.0]]).double()
    layer = nn.BatchNorm1d(1, affine=False, eps=1e-12).double()
    assert_close(layer(10 * x), layer(x))
    assert_close(layer(-x), -layer(x))
    shown = ", ".join(f"{number:.2f}" for number in layer(x).flatten()).replace("-", "−")
    assert f"norm(x) = ({shown})" in texts_of(ElementTree.fromstring(read(LESSONS[5])))
    assert "norm(10·x) is norm(x)" in answer_of("06")
    assert "norm(−x) is −norm(x)" in answer_of("06")


def test_07_the_outlier_disturbs_as_many_as_are_told():
    x = torch.randn(2, 4, 2, 2).double()
    spoiled = x.clone()
    spoiled[OUTLIER] = 99
    disturbed = []
    for name in RELATIVES:
        kind, arguments = re.fullmatch(r"(\w+)\((.*)\)", name).groups()
        made = getattr(nn, kind, None) or getattr(normviz, kind)
        layer = made(*json.loads(f"[{arguments}]")).double()
        moved = ((layer(spoiled) - layer(x)).abs() > 1e-9).numpy()
        told = kind.removesuffix("2d")
        assert f"{told} {moved.sum()}" in answer_of("07")
        disturbed += [told] if moved[1 - OUTLIER[0]].any() else []
        places = {*map(tuple, np.argwhere(moved).tolist())}
        if told == "LocalResponseNorm":
            assert places == {(1, c, 0, 0) for c in (0, 1, 2)}
        if told == "GroupNorm":
            assert {place[:2] for place in places} == {(1, 0), (1, 1)}
    assert f"The other image: in {' and '.join(disturbed)} only." in answer_of("07")


def test_08_the_terms_add_up_to_what_autograd_gives():
    x, y, g = (torch.tensor(row).double() for row in GRADIENT.values())
    x.requires_grad_()

    def dx_of(layer):
        layer.running_mean.fill_(3)
        layer.running_var.fill_(4)
        out = layer(x[:, None])[:, 0]
        assert_close(out.detach(), y)
        return torch.autograd.grad(out, x, g)[0]

    def told(values):
        return ", ".join(f"{value:.0f}".replace("-", "−") for value in values)

    layer = nn.BatchNorm1d(1, eps=1e-12, affine=False).double()
    mean, along, dx = g.mean(), (g * y).mean(), dx_of(layer)
    sums = g - mean - y * along
    assert_close(dx, sums / 2)
    assert f"mean(g) = {mean:g}, mean(g · y) = {along:g}." in answer_of("08")
    assert f"The sums are {told(sums)}, and dx is {told(dx)}. Both sums are 0" in answer_of("08")
    assert abs(dx.sum()) < 1e-9 and abs((dx * y).sum()) < 1e-9
    assert f"In eval, dx is g/σ: {told(dx_of(layer.eval()))}." in answer_of("08")


def test_09_the_parts_join_into_the_whole():
    parts = [torch.tensor(numbers).double() for numbers in WORKERS]
    whole = torch.cat(parts)
    told = [(len(x), x.mean().item(), x.var(correction=0).item()) for x in (*parts, whole)]
    first, second, both = (", ".join(f"{number:g}" for number in row) for row in told)
    assert f"{first} and {second}; together {both}." in answer_of("09")
    within = sum(len(x) * x.var(correction=0) for x in parts) / len(whole)
    between = sum(len(x) * (x.mean() - whole.mean()) ** 2 for x in parts) / len(whole)
    assert f"Within {within:g} + between {between:g} = {told[2][2]:g}." in answer_of("09")
    layer = nn.BatchNorm1d(1, affine=False, eps=1e-12).double()
    alone, together = (layer(x[:, None])[x == 3][0].item() for x in (parts[0], whole))
    assert f"The 3 comes out as {alone:.0f} alone, and as {together:.2f} with sync".replace(
        "-", "−"
    ) in answer_of("09")


def test_10_the_boxes_do_what_is_told():
    def rms_norm(x):
        return nn.RMSNorm(4, eps=1e-12).double()(x.movedim(1, -1)).movedim(-1, 1)

    def with_a_bug(x):
        var, mean = torch.var_mean(x, (0, 2, 3), keepdim=True)  # unbiased
        return (x - mean) / var.sqrt()

    convolution, group = nn.Conv2d(4, 4, 1).double(), nn.GroupNorm(2, 4, eps=1e-12).double()
    x = torch.randn(2, 4, 2, 2).double()
    moved = x.clone()
    moved[MOVED] += 1
    inside = dict(zip("abcd", (group, rms_norm, convolution, with_a_bug), strict=True))
    for name, box in inside.items():
        pattern, *seen, square = BOXES[name]
        reduction = normviz.Reduction(pattern, **({"g": 2} if "g" in pattern else {}))
        labels, y = reduction.labels(x.shape), box(x).detach()
        far = [(box(other) - y).abs().detach().numpy() > 1e-9 for other in (moved, x + 5, 3 * x)]
        assert np.array_equal(far[0], labels == labels[MOVED])
        told = {(False, False): "nothing moves", (True, True): "everything moves"}
        assert [told[bool(one.any()), bool(one.all())] for one in far[1:]] == seen
        squares = reduction.mean(y.square())
        if name == "c":
            assert square == "other each time" and squares.std() > 0.01
        else:
            assert_close(squares, torch.full_like(squares, eval(square)))
    assert "a. GroupNorm(2, 4). b. RMSNorm over c" in answer_of("10")
    assert "c. No normalization" in answer_of("10") and "d. BatchNorm2d(4)" in answer_of("10")
    assert f"as m = {reduction.count(x.shape)} and 7/8 is (m − 1)/m" in answer_of("10")


# On paper.

MEASURE = """() => {
    const box = shape => {
        const { left, top, right, bottom } = shape.getBoundingClientRect()
        return [left, top, right, bottom].map(side => side * 72 / 96)
    }
    const texts = [...document.querySelectorAll('text')]
    const solids = [...document.querySelectorAll('.solid')]
    return {
        texts: texts.map(text => {
            const zoom = Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b) * 72 / 96
            return [text.textContent, parseFloat(getComputedStyle(text).fontSize) * zoom, box(text)]
        }),
        rects: [...document.querySelectorAll('rect')].map(box),
        // A block leaves a corner free for the names of its own axes.
        solids: solids.map(solid => [
            box(solid), texts.filter(text => solid.parentNode.contains(text)).map(box)
        ]),
    }
}"""


@pytest.fixture(scope="module", params=NAMES)
def measured(chromium, request):
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.set_content(f"<style>body{{margin:0}}svg{{display:block}}</style>{read(request.param)}")
    yield page.evaluate(MEASURE)
    page.close()


def overlap(one, other):
    return all(one[i] < other[i + 2] - 0.2 and other[i] < one[i + 2] - 0.2 for i in (0, 1))


def inside(one, other):
    return one[0] >= other[0] and one[1] >= other[1] and one[2] <= other[2] and one[3] <= other[3]


@pytest.mark.browser
def test_all_text_is_on_the_part_of_the_page_that_printers_reach(measured):
    margin = 5 * MILLIMETRE
    printable = margin, margin, 297 * MILLIMETRE - margin, 210 * MILLIMETRE - margin
    assert [text for text, _, box in measured["texts"] if not inside(box, printable)] == []


@pytest.mark.browser
def test_letters_have_one_of_four_sizes_and_eight_points_at_least(measured):
    assert {round(size, 1) for _, size, _ in measured["texts"]} <= {8, 11, 14, 20}


@pytest.mark.browser
def test_no_text_overlaps_another(measured):
    pairs = combinations(measured["texts"], 2)
    assert [(a, b) for (a, _, one), (b, _, other) in pairs if overlap(one, other)] == []


@pytest.mark.browser
def test_no_text_crosses_a_box_or_a_block(measured):
    for text, _, box in measured["texts"]:
        for rect in measured["rects"]:
            assert inside(box, rect) or not overlap(box, rect), text
        for solid, own in measured["solids"]:
            assert box in own or not overlap(box, solid), text
