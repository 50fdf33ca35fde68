"""The reference: pages of docs/reference/, filled from docstrings and what their examples draw."""

import re
import sys
from doctest import DocTestParser
from operator import attrgetter

from docutils import nodes
from jinja2 import Template
from sphinx.util.docutils import SphinxDirective

import normviz
import normviz.workers
from normviz.diagnosis import FINDINGS
from normviz.layers import LAYERS

FOLDER, COLON = "docs/reference/", "\N{MODIFIER LETTER COLON}"
LISTS = {
    "layers": [*LAYERS],
    "labs": normviz.labs.__all__,
    "findings": [kind.__name__ for kind in FINDINGS],
}
PUBLIC = [
    *normviz.__all__,
    *(f"labs.{name}" for name in LISTS["labs"]),
    *(f"diagnosis.{name}" for name in LISTS["findings"]),
    "workers.together",
]
GIVEN = {normviz.Explanation, normviz.Probe, normviz.Diagnosis, normviz.Finding, *FINDINGS}
HOME = {name.rpartition(".")[2]: f"normviz.{name}" for name in PUBLIC}


def fill(text: str) -> str:
    """A page with all names of the lists that it goes through."""
    return Template(text, keep_trailing_newline=True).render(LISTS)


def shown_by(name: str, line: str = "") -> str:
    """What the example of a name prints last, as HTML; or what a line after it gives."""
    value, shown = attrgetter(name)(normviz), []
    names = vars(sys.modules[value.__module__]) | {"print": shown.append, "normviz": normviz}
    for example in DocTestParser().get_examples(value.__doc__):
        exec(example.source, names)
    return (eval(line, names) if line else shown[-1])._repr_html_()


class Shown(SphinxDirective):
    """``.. shown::`` in an entry: what its example prints last; or what this line gives."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """As the output of a cell, which may be scrolled."""
        home = HOME[self.env.temp_data["object"].rpartition(".")[2]]
        drawn = shown_by(home.removeprefix("normviz."), *self.arguments)
        return [nodes.raw("", f'<div class="cell_output">{drawn}</div>', format="html")]


def fill_page(app, name, source):
    """Each page of the reference is a template."""
    if name.startswith(FOLDER):
        source[0] = fill(source[0])


def keep_colons(app, what, name, value, options, lines):
    """In what is returned, and in a property, text before a colon is no type."""
    section = "Returns:" if what == "property" else ""
    for i, line in enumerate(lines):
        section = line if re.fullmatch(r"\w+:", line) else section
        if section == "Returns:" != line:
            lines[i] = line.replace(":", COLON)


def link_names(app, what, name, value, options, lines):
    """Lead from a name in a docstring to its entry, from a finding to the cell that shows it."""
    others = "|".join({*HOME} - {name.rpartition(".")[2]})
    for i, line in enumerate(lines):
        linked = re.sub(f"``({others})``", lambda it: f":py:obj:`{it[1]} <{HOME[it[1]]}>`", line)
        lines[i] = linked.replace(COLON, ":")
    if what == "class" and value in FINDINGS:
        page, _, cell = value.lesson.partition("#")
        cell = f"../../{page.replace('.ipynb', '.html')}#{cell}"
        lines[:0] = [f"``{value.code}``, `shown in a lesson <{cell}>`__.", ""]


def shorten(app, what, name, value, options, signature, returned):
    """What a function gives is not made by hand: of such a class, the attributes say enough."""
    return ("", None) if what == "class" and value in GIVEN else None


def find_home(app, env, node, text):
    """Link a type, known by the module that it is written in, to the entry of its public name."""
    home = HOME.get(node.get("reftarget", "").rpartition(".")[2])
    if node.get("refdomain") == "py" and home and home != node["reftarget"]:
        domain = env.get_domain("py")
        here = node.get("refdoc")
        return domain.resolve_xref(env, here, app.builder, "obj", home, node, text)
    return None


def setup(app):
    """Called by Sphinx."""
    app.add_directive("shown", Shown)
    app.connect("source-read", fill_page)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", link_names, priority=600)  # and after it
    app.connect("autodoc-process-signature", shorten)
    app.connect("missing-reference", find_home)
    return {"parallel_read_safe": True}
