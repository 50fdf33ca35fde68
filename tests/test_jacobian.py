"""The picture of a derivative: its signs, sizes and words are those of autograd; nothing moves."""

import copy
import re
from math import prod
from xml.etree import ElementTree

import pytest
import torch
from test_conformance import every_case, random_input
from torch import nn

import normviz
from normviz import draw_jacobian, plan_of
from normviz.jacobian import jacobian_of
from normviz.refusals import RefusedInput

OTHERS = [  # modules without a plan
    (nn.LocalResponseNorm(3), (1, 5, 2)),
    (nn.Conv1d(2, 3, 2), (2, 2, 5)),
    (nn.Softmax(-1), (5,)),
    (nn.Flatten(), (2, 2, 2)),
    (nn.ReLU(inplace=True), (2, 3)),
    (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1)), (2, 3)),
]
every_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
X = torch.tensor([[1.0, 10.0], [2.0, 30.0], [6.0, 20.0]])
LINE = torch.tensor([1.0, 2.0, 6.0])
PIXELS = torch.arange(24.0).square().sin().reshape(2, 3, 2, 2)
FITS = """() => {
    const end = document.querySelector("svg").getBoundingClientRect().right
    return [...document.querySelectorAll("text")].every(t => t.getBoundingClientRect().right < end)
}"""


pytestmark = pytest.mark.usefixtures("seeded")


def module(forward):
    """A module that computes this."""
    made = nn.Identity()
    made.forward = forward
    return made


def hooked(layer, act):
    """A layer with a hook that adds something of x and y to its output."""
    layer.register_forward_hook(lambda module, args, y: y + act(args[0], y))
    return layer


def layer_of(home, name, args, training):
    """A layer in float64, no parameter and no buffer of which is 0 or 1."""
    layer = getattr(home, name)(*args).double().train(training)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape) + 0.5)
        for buffer in layer.buffers():
            if buffer.is_floating_point() and "memory" not in name:
                buffer.copy_(torch.rand(buffer.shape) + 0.5)
    return layer


def slices_of(picture):
    """label → group of an output."""
    svg = picture.svg.replace(' xmlns="http://www.w3.org/2000/svg"', "")
    groups = ElementTree.fromstring(svg).findall(".//*[@data-label]")
    return {int(group.get("data-label")): group for group in groups}


def sides_of(group):
    """How wide its full squares are, and its hollow ones."""
    paths = {path.get("class"): path.get("d") for path in group.iter("path")}
    looks = (paths.get(look, "") for look in ("nv-plus", "nv-minus"))
    return tuple([*map(int, re.findall(r"v(\d+)", look))] for look in looks)


def squares_of(group):
    return tuple(map(len, sides_of(group)))


def texts_of(group):
    """The numbers in the inputs, as they are written."""
    ink = [part for part in group.iter("g") if part.get("class") == "nv-ink"]
    return [text.text for part in ink for text in part]


# The numbers


@every_mode
@every_case
@pytest.mark.parametrize("home", [normviz, nn], ids=lambda home: home.__name__)
def test_it_is_the_derivative_and_zero_outside_the_declared_slices(home, case, training):
    name, args, shape = case
    if home is nn and (name == "SyncBatchNorm" or not hasattr(nn, name)):
        return  # torch has none, or none for a CPU
    layer, x = layer_of(home, name, args, training), random_input(shape, torch.float64)
    if hasattr(layer, "threshold"):
        nn.init.constant_(layer.threshold, -100.0)  # or it hides what moves
    outputs = torch.randint(x.numel(), (4,)).tolist()
    rows, leaf = jacobian_of(layer, x, outputs).flatten(1), x.clone().requires_grad_()
    stored = not training and any(name.startswith("running") for name, _ in layer.named_buffers())
    together = torch.eye(x.numel(), dtype=bool)[outputs]
    for reduction in plan_of(layer, len(shape)).pooled(stored=stored):
        labels = torch.tensor(reduction.labels(shape).reshape(-1))
        together |= labels[outputs, None] == labels
    assert (rows[~together] == 0).all()
    for output, row in zip(outputs, rows, strict=True):
        (theirs,) = torch.autograd.grad(copy.deepcopy(layer)(leaf).reshape(-1)[output], leaf)
        assert torch.allclose(row, theirs.reshape(-1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("layer", "shape"), OTHERS, ids=lambda it: type(it).__name__)
def test_any_module_will_do(layer, shape):
    x = random_input(shape, torch.float64)
    ours = jacobian_of(layer, x.float())
    theirs = torch.autograd.functional.jacobian(lambda x: layer.double()(x.clone()), x)
    layer.float()
    assert torch.allclose(ours, theirs.reshape(ours.shape), atol=1e-5)
    groups = slices_of(draw_jacobian(layer, x.float()))
    assert len(groups) == len(ours)
    for label, row in enumerate(ours):
        assert squares_of(groups[label]) == (int((row > 0).sum()), int((row < 0).sum()))


def test_a_backward_pass_with_a_memory_is_the_same_for_one_output_and_for_all():
    layer, x = normviz.MABN2d(2, 2, 1e-5, 0.02, 0).double(), torch.randn(2, 2, 1, 2).double()
    for _ in range(4):
        layer(x.clone().requires_grad_()).square().sum().backward()
    alone = [jacobian_of(layer, x, [output])[0] for output in range(8)]
    assert torch.equal(jacobian_of(layer, x), torch.stack(alone))


def test_hooks_half_precision_and_an_epsilon_that_depends_on_the_dtype_count():
    layer, x = hooked(nn.LayerNorm(3).half(), lambda x, y: y), LINE.half()
    assert torch.allclose(jacobian_of(layer, x), 2 * jacobian_of(nn.LayerNorm(3), x))
    for home in (normviz, nn):
        with_its_own = jacobian_of(home.RMSNorm(3, eps=torch.finfo(torch.float32).eps), LINE / 1e4)
        assert torch.allclose(jacobian_of(home.RMSNorm(3), LINE / 1e4), with_its_own, rtol=1e-12)


# The picture


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 2, 2, 4), (2, 2, 2, 2, 4)], ids=str)
def test_every_rank_is_drawn_with_sign_strength_and_number(shape):
    layer, x = nn.LayerNorm(4, eps=0.1), torch.randn(shape)
    rows, groups = jacobian_of(layer, x).flatten(1), slices_of(draw_jacobian(layer, x))
    assert [*groups] == [*range(x.numel())]
    for label, group in groups.items():
        row = [number for number in rows[label].tolist() if number]
        for text, number in zip(texts_of(group), row, strict=True):
            assert text[0] == ("+" if number > 0 else "−")
            assert float(text.replace("−", "-")) == pytest.approx(number, abs=6e-3, rel=0.51)
        full, hollow = sides_of(group)
        drawn = [*full, *(side + 2 for side in hollow)]  # which have a rim
        strengths = [n for n in row if n > 0] + [-n for n in row if n < 0]
        pairs = sorted(zip(strengths, drawn, strict=True))
        assert [side for _, side in pairs] == sorted(drawn)
        assert max(drawn) == 20


def test_words_and_numbers_say_what_is_lit():
    group = slices_of(draw_jacobian(nn.BatchNorm1d(2), X))[2]
    assert group.get("aria-label") == "Output (1, 0), channel 0: x = 2, y = −0.46291"
    lines = group.get("aria-description")
    assert "Its own input: ∂y/∂x = +0.27554." in lines
    assert "The 2 others of channel 0: from −0.22043 to −0.055108." in lines
    assert "Added up: 0. If all of channel 0 rise by the same amount, y stays." in lines
    assert re.search(r"Each times its x̂, added up: −4.\d+e−7; with ε = 0 it would be 0\.", lines)
    assert lines.endswith("The 3 numbers outside channel 0 move it by 0.")


@pytest.mark.parametrize(
    ("layer", "x", "said", "never"),
    [
        (nn.LayerNorm(3, eps=0), LINE, "Added up: 0. If all of x rise by the same", "with ε"),
        (nn.LayerNorm(3, eps=0), LINE, "Each times its x̂, added up: 0.", "with ε"),
        (nn.RMSNorm(3, eps=0), LINE, "Each times its x̂, added up: 0.", "If all"),
        (hooked(nn.LayerNorm(3), lambda x, y: x), LINE, "Each times its x̂, added up", "with ε"),
        (hooked(nn.LayerNorm(2), lambda x, y: y[0]), X, "2 of the 4 numbers outside", "with ε"),
        (hooked(nn.BatchNorm1d(2).eval(), lambda x, y: y[0]), X, "1 of the 5 numbers outside", "x̂"),
        (nn.BatchNorm1d(2).eval(), X, "eval\n.*Stored statistics .*No other input moves it", "x̂"),
        (normviz.SwitchableNorm2d(3), PIXELS, "mixed: over h, w, one per n, c; over c", "x̂"),
        (normviz.SwitchableNorm2d(3), PIXELS, "The 15 others of its slices.*The 8 numbers", "x̂"),
        (module(lambda x: x.square().sum()), LINE, "output .0,.: y = 41. 3 inputs move it", "x̂"),
        (nn.Sequential(nn.Dropout(0.0)), LINE, "of Sequential.. in training", "x̂"),
    ],
    ids=map(str, range(11)),
)
def test_each_sentence_is_right_with_the_numbers(layer, x, said, never):
    text = draw_jacobian(layer, x).text
    assert re.search(said, text, re.DOTALL)
    assert never not in text


def test_rounding_is_not_drawn_as_a_derivative():
    x = torch.tensor([[0.3, 0.7], [5.0, 1.1]])  # of two numbers without ε, each output is −1 or 1
    assert jacobian_of(nn.LayerNorm(2, eps=0), x).any()  # rounding alone
    picture = draw_jacobian(nn.LayerNorm(2, eps=0), x)
    assert {squares_of(group) for group in slices_of(picture).values()} == {(0, 0)}
    assert "Its own input: ∂y/∂x = 0. The other number of sample 0: 0." in picture.text


@pytest.mark.parametrize("odd", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize(
    "layer", [nn.LayerNorm(3), normviz.GroupNorm(1, 3), nn.Softmax(-1)], ids=str
)
def test_nan_is_shown_and_said_where_it_is_and_nowhere_else(layer, odd):
    x = torch.tensor([[1.0, 2.0, odd], [1.0, 2.0, 6.0]])
    picture, rows = draw_jacobian(layer, x), jacobian_of(layer, x, [3, 4, 5])[:, 1]
    assert torch.equal(rows, jacobian_of(layer, x[1:])[:, 0])
    assert f"x holds 1 {odd}" in picture.text
    group, *_, other = slices_of(picture).values()
    assert "nan" in group.get("aria-description")
    assert "nan" not in other.get("aria-description")
    assert "nan" in texts_of(group)


def test_one_output_may_be_lit_from_the_start():
    picture = draw_jacobian(nn.BatchNorm1d(2), X, lit=3, title="A & B <c>")
    root = ElementTree.fromstring(picture.svg)
    assert "nv-still" in root.get("class")
    assert root.get("aria-label").startswith("A & B <c>. x and y of shape (3, 2)")
    assert picture.text.startswith("A & B <c>\n")
    groups = slices_of(picture).items()
    assert [label for label, group in groups if "nv-on" in group.get("class")] == [3]
    with pytest.raises(ValueError, match="lit must be the flat index of a drawn output: got -1"):
        draw_jacobian(nn.BatchNorm1d(2), X, lit=-1)


def test_high_grids_stand_side_by_side_and_level():
    for shape, beside in (((16, 1), True), ((4, 1), False)):
        svg = draw_jacobian(nn.BatchNorm1d(1), torch.randn(shape)).svg
        cells = re.findall(r'"nv-cell" x="(\d+)" y="(\d+)"', svg)
        (x, y), (below_x, below_y) = cells[0], cells[shape[0]]  # the first output and input
        assert (x != below_x, y == below_y) == (beside, beside)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.GroupNorm(1, 4), (1, 4, 20, 20)),
        (nn.LayerNorm(500), (500,)),
        (nn.LayerNorm([8, 6, 2]), (8, 6, 2)),
        (nn.BatchNorm3d(30), (4, 30, 4, 4, 4)),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [1.0, 1e-9, 1e9])
def test_a_picture_stays_small(layer, shape, size):
    picture = draw_jacobian(layer, size * torch.randn(shape))
    assert len(picture.svg.encode()) < 300_000
    assert len(picture.text.splitlines()) < 30
    if prod(shape) > 96:
        assert "drawn by head and tail" in picture.text


def test_of_a_large_input_the_sums_are_those_of_all():
    picture = draw_jacobian(nn.BatchNorm1d(2), x := torch.randn(300, 2))
    assert 598 in slices_of(picture)  # the last sample
    least = jacobian_of(nn.BatchNorm1d(2), x, [0])[0, :, 0].min()
    assert f"The 299 others of channel 0: from −{-least:.5g} to" in picture.text
    assert "The 300 numbers outside channel 0 move it by 0." in picture.text


# What stays


@every_mode
def test_nothing_is_touched(training):
    layer, norm, wrong = normviz.BatchNorm1d(2).train(training), nn.RMSNorm(2), nn.Linear(5, 1)
    x = X.clone().requires_grad_()
    before = {name: (t, t.clone(), t._version) for name, t in layer.state_dict().items()}
    state, attributes = torch.get_rng_state(), dict(vars(layer))
    draw_jacobian(nn.Sequential(layer, nn.Dropout(), norm), x)
    with pytest.raises(RefusedInput, match=r"Sequential\(\) does not take x: "):
        draw_jacobian(nn.Sequential(layer, wrong), x)
    for name, tensor in layer.state_dict().items():
        held, was, version = before[name]
        assert tensor.data_ptr() == held.data_ptr()
        assert (tensor.dtype, tensor._version) == (was.dtype, version)
        assert torch.equal(tensor, was)
    assert vars(layer) == attributes
    assert norm.eps is None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in [*layer.parameters(), x])


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_differentiates_wherever_it_is_called(context):
    with context():
        picture = draw_jacobian(nn.BatchNorm1d(2), X + 0)
    assert picture == draw_jacobian(nn.BatchNorm1d(2), X)


@pytest.mark.parametrize(
    ("layer", "x", "said"),
    [
        (X, nn.LayerNorm(2), "the layer comes first, then its input"),
        (torch.relu, X, "layer must be a torch module: got builtin_function_or_method"),
        (nn.LayerNorm(2), torch.ones(3, 2, device="meta"), "x must hold numbers .* meta device"),
        (nn.LayerNorm(2, device="meta"), X, "weight must hold numbers .* meta device"),
        (nn.Linear(2, 2, device="meta"), X, "does not take x: Cannot copy out of meta tensor"),
        (module(torch.detach), X, r"layer\(x\) must depend on x .*: got no gradient"),
        (module(lambda x: (x, x)), X, r"layer\(x\) must be a tensor: got tuple from Identity"),
        (module(torch.argmax), X, r"layer\(x\) must hold floating-point numbers: got torch.int64"),
        (nn.LayerNorm(3), X, r"the last axes of x must be normalized_shape \(3,\): got \(2,\)"),
        (nn.BatchNorm2d(2), X, r"BatchNorm2d\(2\) does not take x: expected 4D input"),
        (normviz.BatchNorm2d(2), X, r"BatchNorm2d takes inputs of shape \(N, C, H, W\)"),
        (nn.BatchNorm1d(2), X[:1], "Expected more than 1 value per channel when training"),
        (nn.BatchNorm1d(2).double(), X, "x and weight must have one dtype"),
        (nn.ReLU(), torch.ones(1, 1, 1, 1, 1, 1), "x must have 1 to 5 axes to be drawn: got 6"),
        (nn.ReLU(), torch.tensor(1.0), "x must have 1 to 5 axes to be drawn: got 0"),
        (nn.Unflatten(0, (1, 1, 1, 1, 3)), X, "output must have 1 to 5 axes to be drawn: got 6"),
        (nn.ReLU(), torch.ones(0, 2), "must hold numbers to be drawn"),
    ],
    ids=lambda it: type(it).__name__ if not isinstance(it, str) else it,
)
def test_what_cannot_be_drawn_is_refused_in_words(layer, x, said):
    with pytest.raises(ValueError, match=said):
        draw_jacobian(layer, x)


@pytest.mark.browser
def test_pointing_and_tab_show_what_moves_an_output(chromium):
    page = chromium.new_page()
    try:
        page.set_content(draw_jacobian(nn.BatchNorm1d(2), X)._repr_html_())
        outputs, inputs = page.locator(".nv-slice"), page.locator(".nv-x")
        line = page.locator("[data-of]").nth(2)
        steps = {
            lambda: None: False,
            outputs.nth(2).locator(".nv-cell").hover: True,
            lambda: page.mouse.move(5, 5): False,
            lambda: (outputs.nth(1).focus(), page.keyboard.press("Tab")): True,
        }
        for step, shows in steps.items():
            step()
            assert (line.is_visible(), inputs.is_visible()) == (shows, not shows)
        for layer in (normviz.FilterResponseNorm2d(1), nn.GroupNorm(1, 1), nn.BatchNorm2d(1)):
            page.set_content(draw_jacobian(layer, torch.randn(2, 1, 2, 1), lit=0).svg)
            assert page.evaluate(FITS)
    finally:
        page.close()
