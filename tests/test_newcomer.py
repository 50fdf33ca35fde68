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
    """A copy of the project with the file and the line of the guide, and with a forgetful twin."""
    for path in ROOT.iterdir():
        if path.name in ("normviz", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, tmp_path / path.name, ignore=ignored)
        elif path.name[0] != "." and path.name != "_build":
            (tmp_path / path.name).symlink_to(path)
    layer, cases = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    (tmp_path / ADDED).write_text(layer, encoding="utf-8")
    forgetful = layer.replace("super().__init__(eps,", "super().__init__(1e-5,")
    other = tmp_path / ADDED.replace("norm_per_row", "forgetful")
    other.write_text(forgetful.replace("NormPerRow", "Forgetful"), encoding="utf-8")
    with_line = cases.partition("    ...")[0]
    with_line += with_line.splitlines()[-1].replace("NormPerRow", "Forgetful") + "\n"
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


def test_all_that_is_tested_of_a_layer_passes_and_an_argument_that_is_forgotten_is_found(house):
    asked = "NormPerRow or listed or (Forgetful and any_options and eps)"
    told = run(house, "pytest", "-q", "--tb=no", "-k", asked, *TESTS).stdout
    failed = re.findall("^(?:FAILED|ERROR) .*", told, flags=re.MULTILINE)
    assert failed, told
    assert all(re.search("test_with_any_options.*Forgetful.*eps", line) for line in failed), told
    assert int(re.search(r"(\d+) passed", told)[1]) > 50
