"""What the README promises is so."""

import re
from pathlib import Path

import pytest
import torch

import normviz

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\]\(([^)#]+)\)", README)


@pytest.mark.parametrize("link", [link for link in LINKS if "://" not in link])
def test_a_link_leads_to_a_file(link):
    assert (ROOT / link).is_file()


def test_every_lesson_is_on_the_map():
    lessons = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert lessons
    assert lessons <= {*LINKS}


def test_the_picture_is_what_normviz_draws_today(tmp_path):
    x = torch.arange(36.0).reshape(3, 3, 2, 2)
    picture = normviz.explain(normviz.BatchNorm2d(3), x).picture(lit=1)
    today = picture.save(tmp_path / "slices.svg").read_text(encoding="utf-8")
    assert today == (ROOT / "docs" / "slices.svg").read_text(encoding="utf-8")


def test_the_five_lines_for_ones_own_layer_run():
    (lines,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names = {}
    exec(lines, names)
    explained = normviz.explain(names["layer"], names["x"])
    assert explained._repr_html_().count("<rect") > names["x"].numel()


def test_ci_runs_the_command_that_the_readme_gives():
    (commands,) = re.findall(r"```sh\n(make .*?)```", README, flags=re.DOTALL)
    targets = re.findall(r"^make (\w+)", commands, flags=re.MULTILINE)
    rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets == ["lab", "test"]
    assert {*targets} <= {*rules}
    assert re.search(r"^CI=true make test$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
