"""The picture of a derivative: its signs, sizes and words are those of autograd; nothing moves."""

import re
from itertools import product
from math import prod
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from test_conformance import CASES, random_input
from torch import nn

import normviz
from normviz import Picture, draw_jacobian, plan_of
from normviz.jacobian import jacobian_of
from normviz.refusals import RefusedInput

SMALL = {2: (3, 3), 3: (3, 3, 2), 4: (2, 3, 2, 2), 5: (2, 3, 2, 2, 2)}
MADE = [  # a name, what it is made with, and the shape of a small input
    *((name, args, SMALL[len(shape)]) for name, args, shape in CASES if args == (3,)),
    *((name, args, shape) for name, args, shape in CASES if args == (7,)),
    ("GroupNorm", (2, 4), (2, 4)),
    ("GroupNorm", (2, 4), (2, 4, 3)),
    ("LayerNorm", ([2, 3],), (2, 3, 2, 3)),
    ("RMSNorm", ([2, 3],), (2, 2, 3)),
    ("MABN2d", (3, 2, 1e-5, 0.02, 2), (2, 3, 2, 2)),
]
LAYERS = [
    (home, *case)
    for home, case in product((normviz, nn), MADE)
    if hasattr(home, case[0]) and not (home is nn and case[0] == "SyncBatchNorm")
]
OTHERS = [  # modules without a plan
    (nn.LocalResponseNorm(3), (1, 5, 2)),
    (nn.Conv1d(2, 3, 2), (2, 2, 5)),
    (nn.Softmax(-1), (5,)),
    (nn.Linear(3, 2), (3,)),
    (nn.Flatten(), (2, 2, 2)),
    (nn.ReLU(inplace=True), (2, 3)),
    (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1)), (2, 3)),
]
every_layer = pytest.mark.parametrize(
    ("home", "name", "args", "shape"),
    LAYERS,
    ids=[f"{home.__name__}.{name} {shape}" for home, name, _, shape in LAYERS],
)
every_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
X = torch.tensor([[1.0, 10.0], [2.0, 30.0], [6.0, 20.0]])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


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


def squares_of(group):
    """How many full squares and how many hollow ones an output shows."""
    paths = {path.get("class"): path.get("d").count("M") for path in group.iter("path")}
    return paths.get("nv-plus", 0), paths.get("nv-minus", 0)


def texts_of(group):
    """The numbers in the inputs, as they are written."""
    ink = [part for part in group.iter("g") if part.get("class") == "nv-ink"]
    return [text.text for part in ink for text in part]


# The numbers


@every_mode
@every_layer
def test_it_is_the_derivative_and_zero_outside_the_declared_slices(
    home, name, args, shape, training
):
    layer, x = layer_of(home, name, args, training), random_input(shape, torch.float64)
    if hasattr(layer, "threshold"):
        nn.init.constant_(layer.threshold, -100.0)  # or it hides what moves
    ours = jacobian_of(layer, x)
    plan = plan_of(layer, len(shape))
    stored = not training and any(name.startswith("running") for name, _ in layer.named_buffers())
    together = np.eye(x.numel(), dtype=bool)
    for reduction in plan.pooled(stored=stored):
        labels = reduction.labels(shape).reshape(-1)
        together |= labels[:, None] == labels
    assert (ours.reshape(x.numel(), -1).numpy()[~together] == 0).all()
    if "MABN" not in name:  # each backward pass of which moves what the next one needs
        theirs = torch.autograd.functional.jacobian(layer, x)
        assert torch.allclose(ours, theirs.reshape(ours.shape), rtol=1e-10, atol=1e-12)


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


class Moving(torch.autograd.Function):
    """A backward pass that remembers how often it ran, and gives that."""

    @staticmethod
    def forward(ctx, x, count):
        ctx.count = count
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        ctx.count += g.sum()
        return g * ctx.count, None


class Counter(nn.Module):
    """Its derivative is 1 in a first backward pass, 2 in the next one, and so on."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.tensor(0.0))

    def forward(self, x):
        return Moving.apply(x, self.count)


def test_each_backward_pass_finds_the_buffers_as_they_were():
    layer = Counter()
    assert torch.equal(jacobian_of(layer, torch.ones(3)), torch.eye(3).double())
    assert layer.count == 0


def test_a_backward_pass_with_a_memory_starts_anew_for_each_output():
    layer, x = normviz.MABN2d(2, 2, 1e-5, 0.02, 0).double(), torch.randn(2, 2, 1, 2).double()
    for _ in range(4):
        layer(x.clone().requires_grad_()).square().sum().backward()
    together, alone = jacobian_of(layer, x), [jacobian_of(layer, x, [i])[0] for i in range(8)]
    assert torch.equal(together, torch.stack(alone))


@pytest.mark.parametrize("home", [normviz, nn])
def test_an_epsilon_that_depends_on_the_dtype_is_that_of_the_input(home):
    x = torch.tensor([1e-4, 2e-4, 3e-4])
    with_its_own = jacobian_of(home.RMSNorm(3, eps=torch.finfo(torch.float32).eps), x)
    assert torch.allclose(jacobian_of(home.RMSNorm(3), x), with_its_own, rtol=1e-12)


def test_hooks_and_half_precision_count():
    layer = nn.LayerNorm(3).half()
    layer.register_forward_hook(lambda module, args, y: 2 * y)
    x = torch.tensor([1.0, 2.0, 6.0]).half()
    assert torch.allclose(jacobian_of(layer, x), 2 * jacobian_of(nn.LayerNorm(3), x))


def test_only_some_outputs():
    rows = jacobian_of(nn.BatchNorm1d(2), X, [3, 0])
    assert torch.equal(rows, jacobian_of(nn.BatchNorm1d(2), X)[[3, 0]])
    assert jacobian_of(nn.BatchNorm1d(2), X, []).shape == (0, 3, 2)
    with pytest.raises(ValueError, match=r"outputs must be flat indices below 6, .* got 6\."):
        jacobian_of(nn.BatchNorm1d(2), X, [6])


# The picture


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 2, 2, 4), (2, 2, 2, 2, 4)], ids=str)
def test_every_rank_is_drawn_with_sign_and_number(shape):
    layer, x = nn.LayerNorm(4, eps=0.1), torch.randn(shape)
    picture, rows = draw_jacobian(layer, x), jacobian_of(layer, x).flatten(1)
    groups = slices_of(picture)
    assert [*groups] == [*range(x.numel())]
    for label, group in groups.items():
        row = rows[label][rows[label] != 0]
        assert squares_of(group) == (int((row > 0).sum()), int((row < 0).sum()))
        for text, number in zip(texts_of(group), row.tolist(), strict=True):
            assert text[0] == ("+" if number > 0 else "−")
            assert float(text.replace("−", "-")) == pytest.approx(number, abs=6e-3, rel=0.51)


def test_the_strongest_has_the_largest_square():
    group = slices_of(draw_jacobian(nn.LayerNorm(3), torch.tensor([1.0, 2.0, 6.0])))[1]
    row = jacobian_of(nn.LayerNorm(3), torch.tensor([1.0, 2.0, 6.0]), [1])[0]
    sides = [
        int(side) + rim  # a hollow one has a rim
        for look, rim in (("nv-plus", 0), ("nv-minus", 2))
        for path in group.iter("path")
        if path.get("class") == look
        for side in re.findall(r"v(\d+)", path.get("d"))
    ]
    assert sorted(sides)[-1] == 20
    assert sides[0] == 20 == max(sides)
    assert row.abs().argmax() == 1
    assert sides.count(20) == 1


def test_words_and_numbers_say_what_is_lit():
    group = slices_of(draw_jacobian(nn.BatchNorm1d(2), X))[2]
    assert group.get("aria-label") == "Output (1, 0), channel 0: x = 2, y = −0.46291"
    assert group.get("tabindex") == "0"
    row = jacobian_of(nn.BatchNorm1d(2), X, [2])[0, :, 0].tolist()
    assert row == pytest.approx([-0.22043, 0.27554, -0.055108], abs=1e-5)
    lines = group.get("aria-description")
    assert "Its own input: ∂y/∂x = +0.27554." in lines
    assert "The 2 others of channel 0: from −0.22043 to −0.055108." in lines
    assert "Added up: 0. If all of channel 0 rise by the same amount, y stays." in lines
    assert re.search(r"Each times its x̂, added up: −4.\d+e−7; with ε = 0 it would be 0\.", lines)
    assert lines.endswith("The 3 numbers outside channel 0 move it by 0.")
    assert [line.text for line in group.iter("text") if line.get("class") == "nv-line"]


def test_without_epsilon_both_sums_are_zero_and_without_a_mean_one_is():
    said = draw_jacobian(nn.LayerNorm(3, eps=0), torch.tensor([1.0, 2.0, 6.0])).text
    assert said.count("Added up: 0. If all rise") == said.count("x̂, added up: 0.") == 3
    said = draw_jacobian(nn.RMSNorm(3, eps=0), torch.tensor([1.0, 2.0, 6.0])).text
    assert "If all" not in said
    assert said.count("x̂, added up: 0.") == 3


def test_where_a_hook_changes_the_rest_nothing_is_promised_of_epsilon():
    layer = nn.LayerNorm(3, eps=0.1)
    layer.register_forward_hook(lambda module, args, y: y + args[0])
    said = draw_jacobian(layer, torch.tensor([1.0, 2.0, 6.0])).text
    assert "x̂, added up" in said
    assert "with ε = 0" not in said
    assert "If all" not in said


def test_what_moves_an_output_from_outside_its_slice_is_told():
    layer = nn.LayerNorm(2)
    layer.register_forward_hook(lambda module, args, y: y + y.mean(0))
    said = draw_jacobian(layer, torch.randn(3, 2)).text
    assert "4 of the 4 numbers outside sample 0 move it all the same." in said


def test_in_eval_each_input_moves_its_own_output_alone():
    picture = draw_jacobian(nn.BatchNorm1d(2).eval(), X)
    assert "in eval" in picture.text
    assert picture.text.count("No other input moves it: one slope, with stored statistics.") == 6
    assert {squares_of(group) for group in slices_of(picture).values()} == {(1, 0)}


def test_rounding_is_not_drawn_as_a_derivative():
    """Of two numbers without ε, each output is −1 or 1, whatever they are."""
    x = torch.tensor([[0.3, 0.7], [5.0, 1.1]])
    assert jacobian_of(nn.LayerNorm(2, eps=0), x).any()  # rounding alone
    picture = draw_jacobian(nn.LayerNorm(2, eps=0), x)
    assert {squares_of(group) for group in slices_of(picture).values()} == {(0, 0)}
    assert "Its own input: ∂y/∂x = 0. The other number of sample 0: 0." in picture.text


def test_several_statistics_at_once():
    said = draw_jacobian(normviz.SwitchableNorm2d(3), torch.randn(2, 3, 2, 2)).text
    assert "Several statistics are mixed" in said
    assert "The 15 others in its slices" in said
    assert "The 8 numbers outside its slices move it by 0." in said


def test_nan_is_shown_and_said():
    x = torch.tensor([[1.0, 2.0, float("nan")], [1.0, 2.0, 6.0]])
    picture = draw_jacobian(normviz.LayerNorm(3), x)
    assert "x holds 1 nan" in picture.text
    group = slices_of(picture)[0]
    assert "nan" in group.get("aria-description")
    assert "nan" in texts_of(group)
    assert squares_of(group) == (0, 0)


def test_one_output_may_be_lit_from_the_start():
    picture = draw_jacobian(nn.BatchNorm1d(2), X, lit=3, title="A & B <c>")
    assert isinstance(picture, Picture)
    root = ElementTree.fromstring(picture.svg)
    assert "nv-still" in root.get("class")
    assert root.get("aria-label").startswith("A & B <c>. x and y of shape (3, 2)")
    lit = [label for label, group in slices_of(picture).items() if "nv-on" in group.get("class")]
    assert lit == [3]
    assert picture.text.startswith("A & B <c>\n")
    for wrong in (6, -1):
        with pytest.raises(ValueError, match="lit must be the flat index of a drawn output"):
            draw_jacobian(nn.BatchNorm1d(2), X, lit=wrong)


def test_the_overlay_lets_the_pointer_through_to_the_outputs():
    svg = draw_jacobian(nn.BatchNorm1d(2), X).svg
    assert ".nv-slice .nv-map{pointer-events:none}" in svg
    for group in slices_of(draw_jacobian(nn.BatchNorm1d(2), X)).values():
        overlay = [part for part in group if part.get("class") == "nv-lit nv-map"]
        assert len(overlay) == 1
        assert [part.get("class") for part in group[:2]] == ["nv-cell", "nv-ink"]


def test_names_are_escaped():
    class Odd(nn.LayerNorm):
        pass

    Odd.__name__ = "A<b>&"
    picture = draw_jacobian(Odd(2), torch.randn(2, 2))
    assert "A<b>" in picture.text
    assert "A&lt;b&gt;&amp;" in picture.svg
    ElementTree.fromstring(picture.svg)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.GroupNorm(1, 4), (1, 4, 20, 20)),
        (nn.GroupNorm(1, 8), (2, 8, 4, 3)),
        (nn.LayerNorm(500), (500,)),
        (nn.Softmax(-1), (96,)),
        (nn.Softmax(0), (10, 10)),
        (nn.LayerNorm([8, 6, 2]), (8, 6, 2)),
        (nn.BatchNorm3d(30), (4, 30, 4, 4, 4)),
        (nn.BatchNorm2d(1), (4, 1, 8, 8)),
        (nn.LayerNorm([3, 2, 2, 2, 2]), (3, 2, 2, 2, 2)),
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
    layer, x = nn.BatchNorm1d(2), torch.randn(300, 2)
    picture = draw_jacobian(layer, x)
    row = jacobian_of(layer, x, [0])[0, :, 0]
    assert f"from −{-row.min():.5g}" in picture.text
    assert "The 299 others of channel 0" in picture.text
    assert "The 300 numbers outside channel 0 move it by 0." in picture.text
    assert 598 in slices_of(picture)  # the last sample


# What stays


@every_mode
def test_nothing_is_touched(training):
    layer = normviz.BatchNorm1d(2).train(training)
    x = X.clone().requires_grad_()
    before = {name: (t, t.clone(), t._version) for name, t in layer.state_dict().items()}
    state, attributes = torch.get_rng_state(), dict(vars(layer))
    draw_jacobian(nn.Sequential(layer, nn.Dropout()), x)
    for name, tensor in layer.state_dict().items():
        held, was, version = before[name]
        assert tensor.data_ptr() == held.data_ptr()
        assert tensor.dtype == was.dtype
        assert torch.equal(tensor, was)
        assert tensor._version == version
    assert vars(layer) == attributes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in [*layer.parameters(), x])


def test_an_epsilon_of_none_stays_none():
    layer = nn.RMSNorm(2)
    draw_jacobian(layer, X)
    assert layer.eps is None


def test_nothing_is_touched_after_an_error_either():
    layer = nn.BatchNorm1d(2)
    model = nn.Sequential(layer, nn.Linear(5, 1))
    with pytest.raises(RefusedInput, match=r"Sequential\(\) does not take x: "):
        draw_jacobian(model, X)
    assert int(layer.num_batches_tracked) == 0
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_differentiates_wherever_it_is_called(context):
    with context():
        x = X + 0
        picture = draw_jacobian(nn.BatchNorm1d(2), x)
    assert picture == draw_jacobian(nn.BatchNorm1d(2), X)


class Cut(nn.Module):
    """Nothing reaches x."""

    def forward(self, x):
        return x.detach() * 2


class Pair(nn.Module):
    """Two tensors."""

    def forward(self, x):
        return x, x


class Largest(nn.Module):
    """A whole number."""

    def forward(self, x):
        return x.argmax(-1)


@pytest.mark.parametrize(
    ("layer", "x", "said"),
    [
        (nn.LayerNorm(2), torch.ones(3, 2).long(), r"x must be a floating-point .* x\.float\(\)"),
        (nn.LayerNorm(2), [1.0, 2.0], r"x must be a torch tensor: got list; .* would do"),
        (X, nn.LayerNorm(2), "the layer comes first, then its input"),
        (torch.relu, X, "layer must be a torch module: got builtin_function_or_method"),
        (nn.LayerNorm(2), torch.ones(3, 2, device="meta"), "x must hold numbers .* meta device"),
        (nn.LayerNorm(2, device="meta"), X, "weight must hold numbers .* meta device"),
        (Cut(), X, r"layer\(x\) must depend on x as autograd sees it: got Cut"),
        (Pair(), X, r"layer\(x\) must be a tensor: got tuple from Pair"),
        (Largest(), X, r"layer\(x\) must hold floating-point numbers: got torch.int64"),
        (nn.LayerNorm(3), X, r"the last axes of x must be normalized_shape \(3,\): got \(2,\)"),
        (nn.BatchNorm2d(2), X, r"BatchNorm2d\(2\) does not take x: expected 4D input"),
        (normviz.BatchNorm2d(2), X, r"BatchNorm2d takes inputs of shape \(N, C, H, W\)"),
        (nn.BatchNorm1d(2), X[:1], "Expected more than 1 value per channel when training"),
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


# In a browser


@pytest.mark.browser
def test_pointing_and_tab_show_what_moves_an_output(chromium):
    page = chromium.new_page()
    try:
        page.set_content(draw_jacobian(nn.BatchNorm1d(2), X)._repr_html_())
        outputs, inputs = page.locator(".nv-slice"), page.locator(".nv-x")
        line = page.locator('[data-label="2"] .nv-line').first
        assert inputs.is_visible()
        assert not line.is_visible()
        outputs.nth(2).locator(".nv-cell").hover()
        assert line.is_visible()
        assert not inputs.is_visible()
        page.mouse.move(5, 5)
        assert inputs.is_visible()
        outputs.nth(1).focus()
        page.keyboard.press("Tab")
        assert line.is_visible()
        assert not inputs.is_visible()
    finally:
        page.close()
