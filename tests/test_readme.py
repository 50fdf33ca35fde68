"""What the README promises is so."""

import re
from pathlib import Path

import torch

import normviz

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_lesson_is_on_the_map_and_can_be_launched_from_it():
    lessons = sorted(f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb"))
    rows = [line for line in README.splitlines() if re.match(r"\| \[\d\d ", line)]
    assert len(lessons) == 11
    assert [re.search(r"\]\((notebooks/.*?)\)", row)[1] for row in rows] == lessons
    assert [re.search(r"\?labpath=(.*?)\)", row)[1] for row in rows] == lessons


def test_it_begins_with_the_picture_a_sentence_and_the_badge_of_the_first_lesson():
    _, picture, sentence, badge, other_ways, start, *_ = README.split("\n\n")
    assert picture.endswith("(docs/slices.svg)")
    assert "which numbers share a mean" in sentence
    assert "(docs/launch.svg)](https://mybinder.org/" in badge
    assert badge.endswith("?labpath=notebooks/00_start_here.ipynb)")
    assert "(docs/teaching/README.md)" in other_ways
    assert start == "## Start"


def test_the_picture_is_what_normviz_draws_today(tmp_path):
    x = torch.arange(36.0).reshape(3, 3, 2, 2)
    picture = normviz.explain(normviz.BatchNorm2d(3), x).picture(lit=1)
    today = picture.save(tmp_path / "slices.svg").read_text(encoding="utf-8")
    assert today == (ROOT / "docs" / "slices.svg").read_text(encoding="utf-8")


def test_the_lines_for_ones_own_layer_run():
    lines, of_a_class, *_ = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names = {}
    exec(lines, names)
    explained = normviz.explain(names["layer"], names["x"])
    assert explained._repr_html_().count("<rect") > names["x"].numel()
    exec(of_a_class, names)
    assert str(normviz.plan_of(names["PerRow"](), 4).reduction) == "over c, w, one per n, h"


def test_what_probe_and_diagnose_say_is_what_stands_there(capsys):
    found = re.findall(r"```python\n([^`]*)```\n\n```text\n([^`]*)```", README)
    assert [called for called in ("probe", "diagnose") if called not in README] == []
    assert len(found) == 2
    names = {"torch": torch, "normviz": normviz}
    for lines, said in found:
        exec(lines, names)
        assert capsys.readouterr().out == said


def test_ci_runs_the_command_that_the_readme_gives():
    first, *_ = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"^make (\w+)", first, flags=re.MULTILINE) == ["lab", "test"]
    assert {*re.findall(r"^make (\w+)", README, flags=re.MULTILINE)} <= {*rules}
    assert re.search(
        r"^CI=true make test$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE
    )
