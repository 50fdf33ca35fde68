"""The teaching plans: what they promise a teacher is in them, and their answers are right."""

import re
from pathlib import Path

import pytest

import normviz
from normviz import labs
from normviz.exercises import EXERCISES

ROOT = Path(__file__).parents[1]
LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))
PLANS = sorted(ROOT.glob("docs/teaching/[01]*.md"))
KIT = ROOT / "docs/teaching/README.md"
every_plan = pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)


def sections_of(path):
    """Heading → text of each section of a document."""
    parts = re.split(r"^## (.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def steps_of(section):
    """Start, end, name and text of each step of a plan, in minutes."""
    parts = re.split(r"^### (\d+)–(\d+) · (.*)\n", section, flags=re.MULTILINE)
    steps = zip(parts[1::4], parts[2::4], parts[3::4], parts[4::4], strict=True)
    return [(int(start), int(end), name, text) for start, end, name, text in steps]


def test_there_is_a_plan_for_each_lesson_but_the_first_which_opens_the_kit():
    assert [path.stem for path in PLANS] == [path.stem for path in LESSONS[1:]]
    assert LESSONS[0].name in KIT.read_text(encoding="utf-8")


@every_plan
def test_a_plan_opens_with_the_lesson_on_binder_and_on_paper(path):
    head = sections_of(path)[""]
    for target in (f"notebooks/{path.stem}.ipynb)", f"sheets/{path.stem}.pdf)", "mybinder.org"):
        assert target in head


@every_plan
@pytest.mark.parametrize("minutes", [45, 20])
def test_the_minutes_of_a_plan_add_up(path, minutes):
    steps = steps_of(sections_of(path)[f"{minutes} minutes"])
    starts, ends = [step[0] for step in steps], [step[1] for step in steps]
    assert starts == [0, *ends[:-1]]
    assert ends == sorted(set(ends))
    assert ends[-1] == minutes


@every_plan
def test_each_step_shows_a_cell_asks_first_and_knows_what_will_be_said(path):
    sections = sections_of(path)
    for *_, name, text in steps_of(sections["45 minutes"]):
        assert f"notebooks/{path.stem}.ipynb#cell-id=" in text or "00_start" in text, name
        said = re.findall(r"\*\*(Ask|They will say|Because|Show|Say):\*\*", text)
        assert said == ["Ask", "They will say", "Because", "Show", "Say"], name
    for *_, name, text in steps_of(sections["20 minutes"]):
        assert "#cell-id=" in text, name
        assert "**Ask:**" in text, name


@every_plan
def test_the_class_talks_where_the_lesson_has_its_break(path):
    steps = steps_of(sections_of(path)["45 minutes"])
    [(start, end, text)] = [
        (start, end, text) for start, end, _, text in steps if "=break)" in text
    ]
    assert 3 <= end - start <= 5
    assert f"{path.stem}.ipynb#cell-id=break" in text


def test_what_to_do_when_binder_forgets_stands_once():
    told = [path.name for path in LESSONS if "ten idle minutes" in path.read_text("utf-8")]
    assert told == ["00_start_here.ipynb"]


@every_plan
def test_a_plan_has_a_way_out_of_each_mishap(path):
    mishaps = sections_of(path)["If something fails"]
    for mishap in ("The projector is small", "Binder is down", "A kernel was lost"):
        assert f"- **{mishap}" in mishaps
    assert f"notebooks/{path.stem}.html)" in mishaps


def controls_of(box):
    for child in getattr(box, "children", ()):
        yield getattr(child, "description", "")
        yield from controls_of(child)


@every_plan
def test_a_plan_says_which_controls_of_the_lab_to_move(path):
    lesson = (ROOT / f"notebooks/{path.stem}.ipynb").read_text(encoding="utf-8")
    lab = getattr(labs, re.search(r"labs\.(\w+_lab)\(", lesson)[1])()
    text = sections_of(path)["The lab"]
    named = {control for control in controls_of(lab) if control and control in text}
    assert len(named) >= 2


def asked_in(path):
    """The exercises of the lesson that a plan is for; those of the kit are of lesson 00."""
    name = "00_start_here" if path == KIT else path.stem
    lesson = (ROOT / f"notebooks/{name}.ipynb").read_text(encoding="utf-8")
    return [name for name in EXERCISES if f'check(\\"{name}\\"' in lesson]


@pytest.mark.parametrize("path", [KIT, *PLANS], ids=lambda path: path.stem)
def test_every_exercise_is_answered_and_every_answer_is_right(path, monkeypatch):
    verdicts, check = {}, normviz.check

    def keep(name, answer):
        verdicts[name] = check(name, answer)

    monkeypatch.setattr(normviz, "check", keep)
    [answers] = re.findall(r"```python\n(.*?)```", sections_of(path)["Answers"], flags=re.DOTALL)
    exec(answers, {})
    assert asked_in(path)
    assert {name: verdict.status for name, verdict in verdicts.items()} == dict.fromkeys(
        asked_in(path), "right"
    )
