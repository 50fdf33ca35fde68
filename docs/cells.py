"""The cells of a lesson, and what stands for them on its page."""

from collections.abc import Iterator
from pathlib import Path

import nbformat
from docutils import nodes


def outputs_in(app, doctree) -> Iterator[tuple[nbformat.NotebookNode, list[nodes.raw]]]:
    """Each code cell of a lesson, and the HTML that it gave; nothing for another page."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        for box in doctree.findall(nodes.container):
            if box.get("nb_element") == "cell_code":
                yield cells[box["cell_index"]], [*box.findall(nodes.raw)]


def replace(node: nodes.raw, html: str) -> None:
    """Put other HTML in the place of an output."""
    node.parent.replace(node, nodes.raw("", html, format="html"))
