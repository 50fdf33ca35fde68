"""The static site: `make site` runs every lesson and writes pages that need no kernel."""

import re
import shutil
import sys
from pathlib import Path

import nbformat
from docutils import nodes

sys.path.append(str(Path(__file__).parent))
from addresses import BINDER

project = "normviz"
html_title = "normviz"
root_doc = "README"
include_patterns = ["README.md", "notebooks/*.ipynb", "docs/*.md", "docs/*/*.md"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",
    "recording",
    "questions",
]

autodoc_member_order = "bysource"
napoleon_custom_sections = [("Attributes", "params_style")]  # as the arguments
toc_object_entries_show_parents = "hide"

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
# A lab is shown as its line for readers without a kernel; nothing is fetched to revive it.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_ipywidgets_js = {}
nb_code_prompt_show, nb_code_prompt_hide = "Show what happens", "Hide what happens"
myst_heading_anchors = 4
# It knows headings, not cells; tests/test_site.py follows every link.
suppress_warnings = ["myst.xref_missing"]

html_theme = "furo"
html_static_path = ["site.css", "site.js", "lab.css", "lab.js", "questions.js"]
html_css_files = ["site.css", "lab.css"]
html_js_files = ["site.js", "lab.js", ("questions.js", {"defer": "defer"})]
html_copy_source = False
html_show_copyright = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

PAGES = """
```{{toctree}}
:hidden:
:caption: Lessons

{lessons}
```

```{{toctree}}
:hidden:
:caption: Reference

docs/reference/README
docs/reference/pictures
docs/reference/explaining
docs/reference/diagnosing
docs/reference/layers
docs/reference/reductions
docs/reference/labs
docs/reference/exercises
```

```{{toctree}}
:hidden:
:caption: Help and teaching
:glob:

docs/troubleshooting
docs/teaching/README
docs/teaching/*
```
"""


def add_links(app, name, source):
    """Add what the sources, read elsewhere too, cannot hold: the way to all pages and to Binder."""
    if name == root_doc:
        lessons = re.findall(r"\[(\d\d .*)\]\((notebooks/.*?)\)", source[0])
        source[0] += PAGES.format(lessons="\n".join(f"{title} <{path}>" for title, path in lessons))
    if name.startswith("notebooks/"):
        notebook = nbformat.reads(source[0], as_version=4)
        live = f"\n\n[Run this lesson live, on Binder]({BINDER}?labpath={name}.ipynb)"
        notebook.cells[0].source += live
        source[0] = nbformat.writes(notebook)


def name_cells(app, doctree):
    """Give each cell the anchor that JupyterLab gives it: #cell-id=…."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    cells = enumerate(nbformat.read(path, as_version=4).cells, start=1)
    anchors = {number: f"cell-id={cell.id}" for number, cell in cells}
    for node in doctree.findall(
        lambda node: not isinstance(node, nodes.raw | nodes.Text | nodes.table)
    ):
        # Lines are counted from ten thousand times the number of the cell.
        if node.line and node.line // 10_000 in anchors:
            node["ids"].append(anchors.pop(node.line // 10_000))


def name_levels(app, name, template, context, doctree):
    """Tell the level of the headings in the sidebar, which Sphinx leaves out."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )


def add_index(app, failure):
    """Open the site with the README."""
    if not failure:
        shutil.copy(app.outdir / "README.html", app.outdir / "index.html")


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", add_links)
    app.connect("doctree-read", name_cells)
    app.connect("html-page-context", name_levels, priority=900)  # after the theme
    app.connect("build-finished", add_index)
