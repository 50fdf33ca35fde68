"""The layer that CONTRIBUTING.md adds is one file and one line, and then all is well."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ADDED = "normviz/layers/norm_per_row.py"
SUITE = "tests/test_conformance.py"
TESTS = [ADDED, *(f"tests/test_{name}.py" for name in ("conformance", "package", "shape_lab"))]


@pytest.fixture
def house(tmp_path):
    """A copy of the project with the file and the line of the guide."""
    for path in ROOT.iterdir():
        if path.name in ("normviz", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, tmp_path / path.name, ignore=ignored)
        elif path.name[0] != "." and path.name != "_build":
            (tmp_path / path.name).symlink_to(path)
    layer, cases = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    (tmp_path / ADDED).write_text(layer, encoding="utf-8")
    with_line = cases.partition("    ...")[0]
    suite = (ROOT / SUITE).read_text(encoding="utf-8").replace("CASES = [\n", with_line, 1)
    (tmp_path / SUITE).write_text(suite, encoding="utf-8")
    return tmp_path


def run(house, *command):
    paths = {"PYTHONPATH": str(house)}
    command = [sys.executable, "-m", *command]
    return subprocess.run(
        command, cwd=house, env=os.environ | paths, capture_output=True, text=True
    )


def test_the_style_is_that_of_the_house(house):
    for check in (["check"], ["format", "--check"]):
        done = run(house, "ruff", *check, "--no-cache", ADDED, SUITE)
        assert done.returncode == 0, done.stdout


def test_all_that_is_tested_of_a_layer_passes(house):
    done = run(house, "pytest", "-q", "-k", "NormPerRow or listed", *TESTS)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 50


def test_a_layer_that_forgets_an_argument_is_found(house):
    text = (house / ADDED).read_text(encoding="utf-8")
    (house / ADDED).write_text(text.replace("super().__init__(eps,", "super().__init__(1e-5,"))
    told = run(house, "pytest", "-q", "--tb=no", "-k", "NormPerRow and any_options", SUITE).stdout
    assert re.search(r"FAILED .*test_with_any_options.*eps", told)
