"""The package as a whole: its names, its rooms, its weight, and what its files promise."""

import ast
import os
import random
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import normviz
from normviz import labs

ROOT = Path(normviz.__file__).parents[1]
PACKAGE = {
    ".".join(path.relative_to(ROOT / "normviz").with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.glob("normviz/**/*.py"))
}
MODULES = [name for name in PACKAGE if name != "__init__"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# The rooms of the house, as CONTRIBUTING lists them: a module imports only what stands before it.
TABLE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("Around the house")[0]
ROOMS = [
    room
    for row in re.findall(r"^\| (`.*?) \|", TABLE, re.MULTILINE)
    for room in re.findall(r"`([\w/]+)(?:\.py)?`", row)
]
# What Reduction.of is a front of is built on Reduction.
LOOKS_AHEAD = {("reduction", "plans")}
LESSON_NAMES = ["check", "hint", "solution", "published"]
LAYER_NAMES = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm"]
DRAWING_NAMES = ["Reduction", "explain", "draw_slices", "draw_cubes", "labs"]


# Names


@pytest.mark.parametrize("name", [*LESSON_NAMES, *LAYER_NAMES, *DRAWING_NAMES])
def test_a_promised_name_is_there(name):
    assert name in normviz.__all__
    assert getattr(normviz, name)


@pytest.mark.parametrize("name", normviz.__all__)
def test_every_public_name_resolves_and_is_listed(name):
    value = getattr(normviz, name)
    assert value.__name__.removeprefix("normviz.") == name
    assert name in dir(normviz)


def test_a_star_import_brings_all_public_names():
    namespace = {}
    exec("from normviz import *", namespace)
    assert namespace.keys() - {"__builtins__"} == set(normviz.__all__)


@pytest.mark.parametrize("name", ["BatchNorm4d", "shape_lab", "torch", "Labs", "_no_such_name"])
def test_an_unknown_name_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"module 'normviz' has no attribute '{name}'"):
        getattr(normviz, name)


@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_imports_hides_a_public_name_behind_a_module(seed, monkeypatch):
    for name in MODULES:
        import_module(f"normviz.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "normviz"]:
        monkeypatch.delitem(sys.modules, name)
    steps = [f"normviz.{name}" for name in MODULES] + normviz.__all__
    random.Random(seed).shuffle(steps)
    fresh = import_module("normviz")
    assert fresh is not normviz
    assert {*normviz.__all__} <= {*dir(fresh)}  # before any of them was used
    for step in steps:
        import_module(step) if step.startswith("normviz.") else getattr(fresh, step)
    for name in normviz.__all__:
        assert callable(getattr(fresh, name)) == (name != "labs")
    assert fresh.labs is sys.modules["normviz.labs"]


def test_no_module_has_the_name_of_a_public_function():
    assert {name.rpartition(".")[2] for name in MODULES} & {*normviz.__all__} == {"labs"}


# Rooms


def imports_of(module):
    """The modules that a module imports, wherever in its text: ``"numpy"``, ``"normviz.grid"``."""
    for node in ast.walk(ast.parse(PACKAGE[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by dots, which this test does not follow"
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                yield name if name.removeprefix("normviz.") in PACKAGE else node.module


def room_of(module):
    """Where a module stands: by its own name, or with its folder, whose __init__ comes last."""
    path = module.replace(".", "/")
    if path in ROOMS:
        return ROOMS.index(path), 0
    folder = path if f"{path}/" in ROOMS else path.rpartition("/")[0]
    return ROOMS.index(f"{folder}/"), folder == path


def test_every_room_is_there_and_no_module_is_without_one():
    assert all(map(room_of, MODULES))
    files = {path for path in ROOMS if (ROOT / f"normviz/{path}.py").is_file()}
    folders = {path for path in ROOMS if (ROOT / f"normviz/{path}").is_dir()}
    assert {*ROOMS} == files | folders


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_the_rooms_before_it(module):
    own = {name[len("normviz.") :] for name in imports_of(module) if name.startswith("normviz.")}
    for other in own:
        assert room_of(other) < room_of(module) or (module, other) in LOOKS_AHEAD


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("__init__", set()),
        ("pattern", set()),
        ("layout", {"normviz.pattern"}),
        ("reduction", {"numpy", "normviz.layout", "normviz.pattern", "normviz.plans"}),
        ("plans", {"normviz.layout", "normviz.pattern", "normviz.reduction"}),
        ("formula", {"torch"}),
        ("moments", {"torch", "normviz.formula"}),
        ("accelerated", {"torch", "normviz.formula", "normviz.moments"}),
        (
            "normalization",
            {"torch"} | {f"normviz.{room}" for room in ("accelerated", "formula", "reduction")},
        ),
        ("picture", {"numpy", "normviz.reduction", "normviz.svg"}),
        ("svg", {"normviz.reduction"}),
        ("words", {"numpy", "normviz.reduction"}),
        ("arithmetic", {"numpy", "normviz.words"}),
        ("grid", set()),
        ("looking", {"torch"}),
        ("ink", {"numpy", "matplotlib", "normviz.svg"}),
        (
            "plots",
            {"numpy", "matplotlib"}
            | {f"normviz.{room}" for room in ("ink", "picture", "reduction", "words")},
        ),
    ],
)
def test_a_room_that_should_know_little_knows_little(module, allowed):
    known = {
        name if name.startswith("normviz.") else name.partition(".")[0]
        for name in imports_of(module)
    }
    assert known - sys.stdlib_module_names <= allowed


@pytest.mark.parametrize("module", PACKAGE)
def test_a_module_fits_in_a_head(module):
    assert len(PACKAGE[module].read_text(encoding="utf-8").splitlines()) <= 450


CALLABLES = [name for name in normviz.__all__ if name != "labs"]
LABS = [f"labs.{name}" for name in vars(labs) if name.endswith("_lab")]


@pytest.mark.parametrize("name", [*CALLABLES, *LABS])
def test_a_public_callable_has_an_example_or_says_what_it_raises(name):
    value = attrgetter(name)(normviz)
    docs = [value.__doc__ or ""]
    if isinstance(value, type):  # of a class, one of its methods may say it
        docs += [method.__doc__ or "" for key, method in vars(value).items() if key[0] != "_"]
    assert docs[0].strip()
    assert any(">>> " in doc or "Raises:\n" in doc for doc in docs)


# Weight


@pytest.mark.slow
def test_importing_normviz_takes_hardly_longer_than_importing_numpy():
    """The best of alternating fresh interpreters, in processor time of the import alone."""
    programs = ["import numpy", "import normviz", "from normviz import Reduction"]
    seconds = {program: [] for program in programs}
    for _ in range(7):
        for program, runs in seconds.items():
            timed = f"from time import process_time as t; a = t(); {program}; print(t() - a)"
            python = [sys.executable, "-c", timed]
            run = subprocess.run(python, cwd=ROOT, check=True, capture_output=True, text=True)
            runs.append(float(run.stdout))
    numpy, alone, used = (min(runs) for runs in seconds.values())
    print(f"import normviz: {alone / numpy:.2f}, with Reduction: {used / numpy:.2f} of numpy's")
    assert alone < 0.3 * numpy
    assert used < 1.3 * numpy


# Promises of files

CONDA_NAMES = {"matplotlib-base": "matplotlib", "pytorch-cpu": "torch"}


def bounds_of(requirements):
    parsed = map(Requirement, requirements)
    return {canonicalize_name(r.name): r.specifier for r in parsed}


def project_bounds():
    table = PROJECT["project"]
    optional = [r for extra in table["optional-dependencies"].values() for r in extra]
    everything = bounds_of([*table["dependencies"], *optional])
    return {name: bounds for name, bounds in everything.items() if name != table["name"]}


def test_conda_gets_the_same_bounds_as_pip():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    environment = yaml.safe_load(text)
    python, *others = environment["dependencies"]
    assert environment["channels"] == ["conda-forge"]
    assert re.fullmatch(r"python=3\.\d+", python)  # as Binder reads it
    assert Version(python.partition("=")[2]) in SpecifierSet(PROJECT["project"]["requires-python"])
    conda = {
        CONDA_NAMES.get(name, name): specifier
        for name, specifier in bounds_of(line for line in others if line != "pip").items()
    }
    needed = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    assert conda == bounds_of(needed)


def read_pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("#")[0].strip() for line in lines]
    return [re.fullmatch(r"([\w.-]+)==([\w.]+)", pin).groups() for pin in pins if pin]


def test_every_dependency_is_pinned_within_its_bounds():
    pins = {canonicalize_name(name): Version(version) for name, version in read_pins()}
    assert len(pins) == len(read_pins())
    for name, specifier in project_bounds().items():
        assert len(specifier) == 2, f"{name} needs a lower and an upper bound"
        assert pins[name] in specifier


def text_files():
    """The project's own files: no environment, no cache, no history."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [f for f in folders if (f[0] not in "._" or f == ".ci") and f != "dist"]
        for path in (Path(folder, name) for name in files):
            if path.is_file() and path.suffix not in {".png", ".gif"} and path.name != ".git":
                yield path


def test_no_file_knows_the_machine_it_was_made_on():
    machine = re.compile(r"(?<![\w.>:/-])/(?:work|tmp|root|home|Users)/")
    assert {ROOT / "Makefile", ROOT / "normviz/plots.py", Path(__file__)} <= {*text_files()}
    found = {
        str(path.relative_to(ROOT)): match[0]
        for path in text_files()
        if (match := machine.search(path.read_text(encoding="utf-8", errors="replace")))
    }
    assert found == {}
