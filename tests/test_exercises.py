"""Exercises: right, not yet (with the misconception named) and not attempted are told apart."""

import re
from functools import partial
from html import unescape
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from normviz import check, hint, solution
from normviz.exercises import EXERCISES
from normviz.judging import Verdict

RIGHT, NOT_YET, NOT_ATTEMPTED = "right", "not yet", "not attempted yet"
claim = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def torch_means(x):
    """The means that torch.nn's layer stores if the new batch has all the weight."""
    layers = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    layer = layers[x.ndim](x.shape[1], momentum=1)
    layer(x)
    return layer.running_mean


def find_moved(layer, shape):
    """Which outputs of a layer of torch.nn another first number moves."""
    x = torch.arange(float(prod(shape))).reshape(shape)
    before = layer(x)
    x.view(-1)[0] = 100
    return layer(x) != before


def name_kept_axes():
    """The axes along which a change of one number does not travel."""
    moved = find_moved(nn.BatchNorm2d(3), (2, 3, 4, 5)).nonzero()
    return [name for axis, name in enumerate("nchw") if not moved[:, axis].any()]


def right_answers():
    layer = nn.BatchNorm1d(1, momentum=0.2)
    normalized = layer(torch.tensor([[1.0], [3.0], [8.0]]))
    return {
        "first_guess": torch_means(torch.randn(2, 3, 2)).numel(),
        "pattern_of_images": f"n c h w -> {' '.join(name_kept_axes())}",
        "how_many_means": torch_means(torch.randn(20, 7, 50)).numel(),
        "how_many_numbers": 8 * 4 * 20 * 30 // torch_means(torch.randn(8, 4, 20, 30)).numel(),
        "shape_of_weight": tuple(nn.BatchNorm2d(6).weight.shape),
        "first_normalized": normalized[0].item(),
        "stored_variance": layer.running_var.item(),
        "numbers_that_move": int(find_moved(nn.BatchNorm1d(2), (3, 2, 3)).sum()),
        "channel_means": torch_means,
    }


RIGHT_ANSWERS = right_answers()
BIASED, UNBIASED = np.var([1, 3, 8]), np.var([1, 3, 8], ddof=1)

# What people answer, and a word or two of what they are told.
WRONG_ANSWERS = {
    "first_guess": [
        (2, "number of samples"),
        (2 * 3, "one per sample and channel"),
        (2 * 2, "numbers feed each mean"),
        (2 * 3 * 2, "numbers there are in all"),
        (1, "mean over everything"),
    ],
    "pattern_of_images": [
        ("n c h w -> n c", "one per sample and channel"),
        ("n c h w -> n", "LayerNorm's choice"),
        ("n c h w -> c h w", "one per channel and pixel"),
        ("n c h w -> n h w", "You named what is pooled"),
        ("n c h w ->", "everything into one"),
    ],
    "how_many_means": [
        (20, "number of samples"),
        (50, "number of positions"),
        (20 * 7, "one per sample and channel"),
        (7 * 50, "one per channel and position"),
        (20 * 50, "numbers feed each mean"),
        (20 * 7 * 50, "numbers there are in all"),
    ],
    "how_many_numbers": [
        (20 * 30, "pixels of one sample's channel"),
        (4 * 20 * 30, "numbers of one sample"),
        (8 * 4 * 20 * 30, "are all numbers"),
        (4, "how many means there are"),
        (8, "counts the samples only"),
    ],
    "shape_of_weight": [
        (6, "A shape is a tuple"),
        ((8, 6), "one per sample and channel"),
        ((6, 4, 4), "one per channel and pixel"),
        ((1, 6, 1, 1), "ready to broadcast"),
        ((8, 6, 4, 4), "shape of the input"),
        ((8,), "one per sample"),
    ],
    "first_normalized": [
        (-3 / UNBIASED**0.5, "the unbiased variance. The biased one"),
        (-3 / BIASED, "by the variance. Divide by its root"),
        (-3 / UNBIASED, "and its root"),
        (3 / BIASED**0.5, "The sign"),
        (-3, "divided by the standard deviation"),
    ],
    "stored_variance": [
        (0.8 + 0.2 * BIASED, "You stored the biased variance"),
        (0.2 + 0.8 * UNBIASED, "The other way round"),
        (0.2 + 0.8 * BIASED, "Two things"),
        (UNBIASED, "new batch alone"),
        (BIASED, "normalizes this batch"),
        (0.2 * UNBIASED, "The old value is missing"),
        (0.2 * BIASED, "is missing, and the unbiased variance is stored"),
    ],
    "numbers_that_move": [
        (1, "Its own output moves, but"),
        (3, "one sample's part of the channel"),
        (6, "That is one sample"),
        (18, "Only the slice"),
        (8, "its neighbours"),
    ],
    "channel_means": [
        (lambda x: x.flatten(1).mean(1), "one mean per n"),
        (lambda x: torch_means(x).reshape(1, -1, *[1] * (x.ndim - 2)), "without keepdim"),
        (lambda x: x.flatten(0, -2).mean(0), "keeps the last axis"),
        (lambda x: x.mean(dim=0), "pools the samples only"),
        (lambda x: x.mean(dim=[*range(2, x.ndim)]), "one per sample and channel"),
        (lambda x: x.mean(), "one mean for all"),
        (lambda x: torch_means(x) * x.numel() / x.shape[1], "That is the sum"),
    ],
}


def add_i(x):
    return torch_means(x) + 1j


# Wrong answers that nobody thought of.
OTHER_ANSWERS = {
    "first_guess": [77, -3, 3.0005, (3,), "3", True, False],
    "pattern_of_images": ["n c h w -> h w", "n c h w -> n c h w", "c", "n c -> c", "n c h w -> w"],
    "how_many_means": [77, -7, 7.0005, [7], "seven", 7 + 0j, float("nan")],
    "how_many_numbers": [4801, 4799.6, float("inf"), 10**400],
    "shape_of_weight": [(7,), (6, 6), (6.004,), [[6]], (), ("6",), {6}],
    "first_normalized": [77, -1.0, (-1.019,), "-1.019"],
    "stored_variance": [77, 3.5, {3.4: 1}],
    "numbers_that_move": [77, range(9), b"9"],
    "channel_means": [3, "x.mean()", lambda x: x, lambda x: "mean", lambda: 1, add_i],
}

# What would give an answer away; the shape that a question states is no secret.
TELLS = {
    "first_guess": r"\b(3|three)\b",
    "pattern_of_images": r"c h w -> c(?! h)",
    "how_many_means": r"\b(7|seven)\b(?!, 50\))",
    "how_many_numbers": r"4,?800",
    "shape_of_weight": r"\(6,\)",
    "first_normalized": r"1\.0",
    "stored_variance": r"3\.4",
    "numbers_that_move": r"\b(9|nine)\b",
    "channel_means": r"!= 1",
}

every_exercise = pytest.mark.parametrize("name", EXERCISES)


def number_cases(cases):
    return [pytest.param(*case, id=f"{case[0]}-{i}") for i, case in enumerate(cases)]


wrong_answers = number_cases(
    (name, *case) for name in WRONG_ANSWERS for case in WRONG_ANSWERS[name]
)
other_answers = number_cases((name, case) for name in OTHER_ANSWERS for case in OTHER_ANSWERS[name])
kinds_of_answers = number_cases(
    [
        ("how_many_means", 7.0),
        ("how_many_means", np.int64(7)),
        ("how_many_means", np.uint8(7)),
        ("how_many_means", torch.tensor(7)),
        ("how_many_means", torch.tensor(7.0, dtype=torch.bfloat16, requires_grad=True)),
        ("shape_of_weight", [6]),
        ("shape_of_weight", torch.Size([6])),
        ("shape_of_weight", np.array([6])),
        ("shape_of_weight", torch.tensor([6])),
        ("shape_of_weight", [torch.tensor(6.0, requires_grad=True)]),
        ("first_normalized", np.float32(-1.019)),
        ("first_normalized", -1.02),
        ("stored_variance", np.float16(3.4)),
        ("pattern_of_images", "b ch y x -> ch"),
        ("pattern_of_images", "  n  c h w->c "),
        ("pattern_of_images", "n c ... -> c"),
        ("channel_means", lambda x: torch_means(x).numpy()),
        ("channel_means", lambda x: torch_means(x).tolist()),
        ("channel_means", lambda x: torch_means(x).double().requires_grad_()),
        ("channel_means", lambda x: list(torch_means(x).requires_grad_())),
    ],
)


def test_no_exercise_is_left_out_of_the_tables():
    for table in (RIGHT_ANSWERS, WRONG_ANSWERS, OTHER_ANSWERS, TELLS):
        assert table.keys() == EXERCISES.keys()


@every_exercise
def test_the_answer_that_torch_gives_is_right(name):
    verdict = check(name, RIGHT_ANSWERS[name])
    assert verdict.status == RIGHT
    assert verdict.text == EXERCISES[name].praise


@pytest.mark.parametrize(("name", "answer", "words"), wrong_answers)
def test_a_misconception_is_named(name, answer, words):
    verdict = check(name, answer)
    assert verdict.status == NOT_YET
    assert words in verdict.text


@pytest.mark.parametrize("name", ["first_normalized", "stored_variance"])
def test_three_digits_will_do(name):
    assert check(name, float(f"{RIGHT_ANSWERS[name]:.3g}")).status == RIGHT
    for answer, words in WRONG_ANSWERS[name]:
        assert words in check(name, float(f"{answer:.3g}")).text


@every_exercise
def test_every_misconception_has_words_of_its_own(name):
    told = [check(name, answer).text for answer, _ in WRONG_ANSWERS[name]]
    told += [check(name, OTHER_ANSWERS[name][0]).text]
    assert len(told) >= 3
    assert len(set(told)) == len(told)


@pytest.mark.parametrize(("name", "answer"), other_answers)
def test_an_answer_that_nobody_thought_of_is_not_yet_right(name, answer):
    verdict = check(name, answer)
    assert verdict.status == NOT_YET
    assert not any(words in verdict.text for _, words in WRONG_ANSWERS[name])
    assert not re.search(TELLS[name], verdict.text.replace(repr(answer), ""))


@pytest.mark.parametrize(
    ("name", "answer", "wanted"),
    [
        ("first_guess", "3", "is a number or a tuple of numbers: got '3'"),
        ("first_guess", (3,), "is one number: got (3,)"),
        ("shape_of_weight", (6, 6), "is a tuple of one number: got (6, 6)"),
        ("channel_means", 3, "is a function: got 3"),
    ],
)
def test_an_answer_of_another_kind_is_told_which_kind_it_takes(name, answer, wanted):
    assert f"The answer {wanted}" in check(name, answer).text


@every_exercise
@pytest.mark.parametrize("untouched", [..., None, "", " \n"], ids=repr)
def test_an_untouched_answer_is_not_attempted(name, untouched):
    verdict = check(name, untouched)
    assert verdict.status == NOT_ATTEMPTED
    assert f"hint({name!r})" in verdict.text


@pytest.mark.parametrize(("name", "answer"), kinds_of_answers)
def test_an_answer_may_be_of_any_kind_that_means_the_same(name, answer):
    assert check(name, answer).status == RIGHT


def test_a_function_that_returns_its_placeholder_is_not_attempted():
    assert check("channel_means", lambda x: ...).status == NOT_ATTEMPTED


def test_a_function_that_returns_nothing_is_told_so():
    verdict = check("channel_means", lambda x: None)
    assert verdict.status == NOT_YET
    assert "Is a return missing?" in verdict.text


def test_what_a_function_raises_is_named():
    verdict = check("channel_means", lambda x: 1 / 0)
    assert verdict.status == NOT_YET
    assert re.search(
        r"ZeroDivisionError on an input of shape \(.*\): division by zero", verdict.text
    )


def test_the_input_on_which_a_function_fails_is_named():
    verdict = check("channel_means", lambda x: x.mean(dim=(0, 2)) if x.ndim > 2 else x.mean(dim=0))
    assert verdict.status == NOT_YET
    assert "of shape (2, 3, 4, 5)" in verdict.text


def test_a_function_that_overwrites_its_input_disturbs_nothing():
    def overwrite(x):
        means = torch_means(x)
        x.zero_()
        return means

    assert check("channel_means", overwrite).status == RIGHT
    assert check("channel_means", lambda x: torch_means(x.zero_())).status == NOT_YET
    assert check("channel_means", torch_means).status == RIGHT


class Raises:
    def __repr__(self):
        raise RuntimeError("no words")

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no numbers")


def nest(depth):
    return [nest(depth - 1)] if depth else []


ROUND = []
ROUND.append(ROUND)
ODD = {
    "complex tensor": torch.tensor(7 + 4j),
    "complex shape": torch.tensor([6 + 0j]),
    "meta tensor": torch.empty(1, device="meta"),
    "sparse tensor": torch.eye(3).to_sparse(),
    "bfloat16 in a list": [torch.tensor(5.0, dtype=torch.bfloat16)],
    "gradient in a list": [torch.tensor(5.0, requires_grad=True)],
    "more digits than Python prints": 10**5000,
    "raises": Raises(),
    "raises in a tuple": (Raises(),),
    "holds itself": ROUND,
    "deep": nest(500),
    "ragged": [[1], [2, 3]],
    "mixed": [1, "2", None],
    "a type": dict,
    "a module": np,
    "an iterator": iter([3]),
    "a surrogate": "\ud800",
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_answer_is_not_yet_right_and_raises_nothing(odd):
    verdicts = [check(name, ODD[odd]) for name in EXERCISES]
    verdicts += [check("channel_means", lambda x: ODD[odd])]
    for verdict in verdicts:
        assert verdict.status == NOT_YET
        assert len(verdict.text) < 300


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=20)
    | st.binary(max_size=3)
    | st.builds(object)
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.sets(st.integers() | st.text(max_size=3), max_size=3)
    ),
    max_leaves=6,
)
patterns = st.text(alphabet="nchw ->().1,", max_size=24)


@claim
@given(st.sampled_from([*EXERCISES]), anything | patterns)
def test_no_answer_raises(name, answer):
    verdict = check(name, answer)
    assert verdict.status in (RIGHT, NOT_YET, NOT_ATTEMPTED)
    assert verdict.text
    assert check("channel_means", lambda x: answer).status in (NOT_YET, NOT_ATTEMPTED)


@pytest.mark.filterwarnings("ignore:Casting complex")  # a notebook would only print it
@pytest.mark.parametrize("name", ["how_many_means", "shape_of_weight"])
def test_a_complex_number_is_not_its_real_part(name):
    assert check(name, torch.tensor(RIGHT_ANSWERS[name]) + 0j).status == NOT_YET


@every_exercise
def test_a_hint_keeps_the_secret_and_a_solution_tells_it(name):
    assert hint(name).status == "hint"
    assert hint(name).text
    assert not re.search(TELLS[name], hint(name).text)
    assert solution(name).status == "solution"
    assert re.search(TELLS[name], solution(name).text)


def test_the_solution_of_a_function_runs_and_is_right():
    namespace = {}
    exec(solution("channel_means").text, namespace)
    assert check("channel_means", namespace["channel_means"]).status == RIGHT


@pytest.mark.parametrize(
    "ask", [hint, solution, partial(check, answer=3)], ids=["hint", "solution", "check"]
)
@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("how_many_mean", "did you mean 'how_many_means'?"),
        ("Weight_shape", "did you mean 'shape_of_weight'?"),
        ("channel means", "did you mean 'channel_means'?"),
        ("zzz", "there are first_guess, pattern_of_images, "),
        (3, "there are first_guess, pattern_of_images, "),
        (["how_many_means"], "did you mean 'how_many_means'?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(ask, name, nearest):
    with pytest.raises(ValueError, match="name must be that of an exercise") as refusal:
        ask(name)
    assert f"got {name!r}; {nearest}" in str(refusal.value)


def words_on_the_page(verdict):
    return unescape(re.sub("<[^>]*>", "", verdict._repr_html_().replace("<br>", "\n"))).split()


@every_exercise
def test_page_and_text_carry_the_same_words(name):
    answers = [RIGHT_ANSWERS[name], ..., *OTHER_ANSWERS[name], *(a for a, _ in WRONG_ANSWERS[name])]
    verdicts = [hint(name), solution(name), *(check(name, answer) for answer in answers)]
    for verdict in verdicts:
        assert words_on_the_page(verdict) == repr(verdict).split()
        assert verdict.text in repr(verdict)


def test_what_a_learner_writes_is_shown_as_it_is():
    odd = "<script>alert('&amp;')</script>"
    for verdict in (check("pattern_of_images", odd), Verdict(NOT_YET, odd), Verdict(odd, "text")):
        assert "<script" not in verdict._repr_html_()
        assert words_on_the_page(verdict) == repr(verdict).split()


def test_the_code_of_a_solution_keeps_its_indentation_on_the_page():
    page = solution("channel_means")._repr_html_()
    assert "    return x.mean" in unescape(page)
    assert re.search("white-space: ?pre|<pre", page)


def test_the_status_is_told_by_a_mark_and_in_words():
    answers = {RIGHT: 7, NOT_YET: 50, NOT_ATTEMPTED: ...}
    heads = {}
    for status, answer in answers.items():
        mark, said = repr(check("how_many_means", answer)).split(" ", 1)
        assert said.startswith(f"{status.capitalize()}.")
        heads[mark] = words_on_the_page(check("how_many_means", answer))[:2]
    assert len(heads) == len({tuple(head) for head in heads.values()}) == 3
