"""Exercises: right, not yet (with the misconception named) and not attempted are told apart."""

import asyncio
import re
import sys
from contextlib import contextmanager
from functools import partial
from html import unescape

import numpy as np
import pytest
import torch
from answers import LESSONS, OTHER_ANSWERS, RIGHT_ANSWERS, TELLS, WRONG_ANSWERS
from answers.channels import torch_means
from hypothesis import given, settings
from hypothesis import strategies as st

from normviz import check, hint, predict, solution
from normviz.checking import QUESTIONS
from normviz.exercises import EXERCISES, PREDICTIONS
from normviz.judging import Verdict
from normviz.predicting import Choices

RIGHT, NOT_YET, NOT_ATTEMPTED = "right", "not yet", "not attempted yet"
NOT_SO = "not so"
claim = settings(max_examples=150, deadline=None, derandomize=True, database=None)


FUNCTIONS = [name for name, answer in RIGHT_ANSWERS.items() if callable(answer)]

every_exercise = pytest.mark.parametrize("name", EXERCISES)
every_prediction = pytest.mark.parametrize("name", PREDICTIONS)


def number_cases(cases):
    return [pytest.param(*case, id=f"{case[0]}-{i}") for i, case in enumerate(cases)]


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


def test_no_question_is_left_out_of_the_tables():
    assert RIGHT_ANSWERS.keys() == QUESTIONS.keys()
    for table in (WRONG_ANSWERS, OTHER_ANSWERS, TELLS):
        assert table.keys() == EXERCISES.keys()


def test_no_two_lessons_give_one_name_to_their_questions():
    assert sum(len(lesson.RIGHT_ANSWERS) for lesson in LESSONS) == len(QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_answer_that_torch_gives_is_right(name):
    verdict = check(name, RIGHT_ANSWERS[name])
    assert verdict.status == RIGHT
    assert verdict.text == QUESTIONS[name].praise


@every_exercise
def test_a_misconception_is_named(name):
    for answer, words in WRONG_ANSWERS[name]:
        verdict = check(name, answer)
        assert verdict.status == NOT_YET
        assert words in verdict.text


# Predictions: a choice, made before the cell that tells


@every_prediction
def test_each_choice_of_a_prediction_is_told_something_of_its_own(name):
    choices = PREDICTIONS[name].choices
    verdicts = {choice: check(name, choice) for choice in choices}
    assert [choice for choice in choices if verdicts[choice].status == RIGHT] == [
        RIGHT_ANSWERS[name]
    ]
    assert {verdict.status for verdict in verdicts.values()} == {RIGHT, NOT_SO}
    assert len({verdict.text for verdict in verdicts.values()}) == len(choices) >= 2
    assert min(len(verdict.text) for verdict in verdicts.values()) > 20


@every_prediction
def test_a_prediction_has_an_answer_with_its_reason_and_a_hint_that_keeps_the_secret(name):
    assert solution(name).text.endswith(PREDICTIONS[name].praise)
    assert PREDICTIONS[name].right in solution(name).text
    assert hint(name).text == PREDICTIONS[name].hint


@pytest.fixture
def choices():
    """The first prediction with a choice: its name, and a choice that is still open."""
    name = next(iter(PREDICTIONS))
    return name, Choices(tuple(PREDICTIONS[name].choices))


def test_a_choice_that_nobody_has_clicked_is_not_attempted_and_stays_open(choices):
    name, chosen = choices
    assert check(name, chosen).status == NOT_ATTEMPTED
    assert "Choose one" in check(name, chosen).text
    assert not chosen.judged


def test_what_was_chosen_is_quoted_and_stays_once_it_was_judged(choices):
    name, chosen = choices
    [wrong, *_] = PREDICTIONS[name].wrong
    chosen.recorded = wrong
    assert not chosen.judged
    verdict = check(name, chosen)
    assert verdict.status == NOT_SO
    assert verdict.text == f"You said: {wrong}. {PREDICTIONS[name].wrong[wrong]}"
    assert chosen.judged


def test_a_cell_that_is_run_again_keeps_what_was_recorded_there():
    predict("first of these", "second of these").recorded = "second of these"
    assert predict("first of these", "second of these").commit() == "second of these"
    assert predict("second of these", "first of these").commit() is None


def test_a_page_without_a_kernel_has_the_same_choices_to_click(choices):
    name, chosen = choices
    page = unescape(chosen._repr_mimebundle_()[0]["text/html"])
    assert page.count('type="radio"') == len(PREDICTIONS[name].choices)
    assert all(f"> {choice}</label>" in page for choice in PREDICTIONS[name].choices)


def test_what_a_choice_says_is_shown_as_it_is():
    assert "<b>" not in predict("<b>one", "two & three").page


@pytest.mark.parametrize("choices", [(), ("one",), ("same", "same", "other")])
def test_what_leaves_no_choice_is_refused(choices):
    with pytest.raises(ValueError, match="two or more, no two of them alike: got"):
        predict(*choices)


# Where check is called, and what an answer does


@contextmanager
def set_for_good(setter, value, before):
    """A global setting, which a learner does not take back."""
    setter(value)
    try:
        yield
    finally:
        setter(before)


SURROUNDINGS = {
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": partial(torch.autocast, "cpu"),
    "no gradients": partial(set_for_good, torch.set_grad_enabled, False, True),
    "float64": partial(set_for_good, torch.set_default_dtype, torch.float64, torch.float32),
    "float16": partial(set_for_good, torch.set_default_dtype, torch.float16, torch.float32),
    "another device": partial(set_for_good, torch.set_default_device, "meta", None),
}


@pytest.fixture(params=SURROUNDINGS)
def surroundings(request):
    """What a learner may have set before a check."""
    with SURROUNDINGS[request.param]():
        yield


def settings_of_torch():
    return torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_verdict_does_not_depend_on_what_is_set(name):
    before = settings_of_torch()
    assert check(name, RIGHT_ANSWERS[name]).status == RIGHT
    for answer, words in WRONG_ANSWERS[name]:
        assert words in check(name, answer).text
    assert check(name, lambda x, *_: x * 0).status == NOT_YET
    assert settings_of_torch() == before


def set_everything(x):
    means = torch_means(x)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    return means


def leave(error, *arguments):
    raise error(*arguments)


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


ENDINGS = [SystemExit, asyncio.CancelledError, GeneratorExit, MemoryError, StopIteration, Wordless]


@pytest.mark.parametrize("error", ENDINGS)
def test_an_answer_that_ends_the_program_ends_nothing_but_itself(error):
    verdict = check("channel_means", lambda x: leave(error))
    assert verdict.status == NOT_YET
    assert f"It raises {error.__name__} on an input of shape" in verdict.text


def test_a_learner_who_waits_no_longer_ends_the_check():
    with pytest.raises(KeyboardInterrupt):
        check("channel_means", lambda x: leave(KeyboardInterrupt))


def normalize_and_stop_gradients(x):
    normalized = RIGHT_ANSWERS["gradient_of_normalize"](x)
    torch.set_grad_enabled(False)
    return normalized


@pytest.mark.parametrize(
    ("name", "answer"),
    [("channel_means", set_everything), ("gradient_of_normalize", normalize_and_stop_gradients)],
)
def test_what_an_answer_sets_is_set_back(name, answer):
    before = settings_of_torch()
    assert check(name, answer).status == RIGHT
    assert settings_of_torch() == before


def test_autocast_does_not_round_what_an_answer_multiplies():
    def by_product(x):
        channels = x.movedim(1, 0).flatten(1)
        return channels @ torch.full((channels.shape[1],), 1 / channels.shape[1])

    with torch.autocast("cpu"):
        assert check("channel_means", by_product).status == RIGHT


class Hides:
    @property
    def __class__(self):
        sys.exit()


class Unstrippable(str):
    def strip(self):
        sys.exit()


@pytest.mark.parametrize("odd", [Hides, lambda: Unstrippable("n c -> c")], ids=["class", "text"])
def test_an_answer_that_nobody_can_look_at_is_told_so(odd):
    for name in QUESTIONS:
        verdict = check(name, odd())
        assert "cannot be looked at: it raises SystemExit" in verdict.text
        assert verdict.status in (NOT_YET, NOT_SO)


@pytest.mark.parametrize("name", ["first_normalized", "stored_variance"])
def test_three_digits_will_do(name):
    assert check(name, float(f"{RIGHT_ANSWERS[name]:.3g}")).status == RIGHT
    for answer, words in WRONG_ANSWERS[name]:
        assert words in check(name, float(f"{answer:.3g}")).text


@every_exercise
def test_every_misconception_has_words_of_its_own(name):
    told = [check(name, answer).text for answer, _ in WRONG_ANSWERS[name]]
    told += [check(name, OTHER_ANSWERS[name][0]).text]
    assert len(told) >= 3  # two misconceptions, and whatever nobody thought of
    assert len(set(told)) == len(told)


@every_exercise
def test_an_answer_that_nobody_thought_of_is_not_yet_right(name):
    for answer in OTHER_ANSWERS[name]:
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
def test_an_untouched_answer_is_not_attempted(name):
    for untouched in (..., None, "", " \n"):
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


def test_the_first_slice_that_differs_is_lit_and_both_values_stand_there():
    def last_channel_wrong(x):
        return torch_means(x) + torch.eye(x.shape[1])[-1]

    picture = check("channel_means", last_channel_wrong).picture
    assert picture._repr_html_() in check("channel_means", last_channel_wrong)._repr_html_()
    slices = re.findall(r'class="(nv-slice.*?)" data-label="(\d)"', picture.svg)
    assert slices == [("nv-slice", "0"), ("nv-slice nv-on", "1")]
    values = re.findall(r"(?:yours|right): ([\d.−]+)", picture.text)
    yours_0, right_0, yours_1, right_1 = (float(value.replace("−", "-")) for value in values)
    assert yours_0 == right_0
    assert yours_1 == pytest.approx(right_1 + 1, abs=1e-3)


def test_of_several_slices_that_differ_the_first_is_lit():
    picture = check("channel_means", lambda x: torch_means(x) + 1).picture
    assert re.findall(r'nv-on" data-label="(\d)"', picture.svg) == ["0"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_wrong_function_that_is_known_is_shown_where_it_differs(name):
    verdicts = [check(name, answer) for answer, _ in WRONG_ANSWERS[name]]
    pictures = [verdict.picture for verdict in verdicts if verdict.picture]
    assert pictures
    for picture in pictures:
        (lit,) = re.findall(r'nv-slice nv-on".*? aria-label="([^"]*)"', picture.svg)
        yours, right = re.search("yours (.*), right (.*)$", lit).groups()
        assert yours != right


def test_an_outcome_that_cannot_be_laid_over_the_input_has_no_picture():
    assert check("channel_means", lambda x: x.mean()).picture is None


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
        ("shape of wieght", "did you mean 'shape_of_weight'?"),
        ("channel means", "did you mean 'channel_means'?"),
        ("zzz", "there are first_guess, pattern_of_images, "),
        (3, "there are first_guess, pattern_of_images, "),
        (["how_many_means"], "did you mean 'how_many_means'?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(ask, name, nearest):
    with pytest.raises(
        ValueError, match="name must be that of an exercise or prediction"
    ) as refusal:
        ask(name)
    assert f"got {name!r}; {nearest}" in str(refusal.value)


def words_on_the_page(verdict):
    words = verdict._repr_html_().partition('<div class="nv-page')[0].replace("<br>", "\n")
    return unescape(re.sub("<[^>]*>", "", words)).split()


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
