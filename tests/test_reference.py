"""The reference has an entry for each public name, whose example is one of the tests."""

import re
import sys
from collections import Counter
from doctest import DocTestFinder
from functools import cache
from inspect import signature
from operator import attrgetter
from pathlib import Path

import pytest

import normviz
from docstrings import PUBLIC, fill, shown_by

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/reference/*.md"))
ENTRIES = re.compile(r"^ *\.\. auto(?:function|class|module):: normviz\.(\S+)", re.MULTILINE)
CALLABLES = [name for name in PUBLIC if name != "labs"]
DRAWING = ["draw_slices", "draw_cubes", "explain", "labs.shape_lab"]


@cache
def examples_in(module):
    """The docstrings of a module whose examples pytest runs."""
    return {
        found.docstring for found in DocTestFinder().find(sys.modules[module]) if found.examples
    }


def test_each_public_name_has_one_entry_and_nothing_else_has():
    text = "".join(fill(path.read_text(encoding="utf-8")) for path in PAGES)
    assert Counter(ENTRIES.findall(text)) == Counter(PUBLIC)


@pytest.mark.parametrize("name", CALLABLES)
def test_the_example_of_a_public_name_is_one_of_the_tests(name):
    value = attrgetter(name)(normviz)
    assert ">>> " in value.__doc__
    assert value.__doc__ in examples_in(value.__module__)


@pytest.mark.parametrize("name", CALLABLES)
def test_the_entry_of_a_public_name_tells_its_arguments(name):
    value = attrgetter(name)(normviz)
    told = value.__doc__.partition("Args:\n")[2] or value.__doc__
    for argument in signature(value).parameters if not isinstance(value, type) else ():
        assert re.search(rf"^ +(\w+, )*\*{{0,2}}{argument}(, \w+)*: ", told, re.MULTILINE), argument


@pytest.mark.parametrize("name", DRAWING)
def test_the_picture_of_an_entry_is_that_of_its_example(name):
    line = ["lab.still()"] if name.startswith("labs.") else []
    assert "<svg" in shown_by(name, *line)
