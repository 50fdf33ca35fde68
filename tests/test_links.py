"""Every link of the documents and of the lessons leads somewhere."""

import json
import re
from pathlib import Path

import pytest

from addresses import COPIES, SITE, files

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *NOTEBOOKS]


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def text_of(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = (cell for cell in cells_of(path) if cell["cell_type"] == "markdown")
    return "\n".join("".join(cell["source"]) for cell in cells)


def links_of(path):
    """The targets of links and of pictures."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text_of(path), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors_of(path):
    """What may follow the # of a link: a cell as JupyterLab names it, a heading as GitHub does."""
    if path.suffix == ".ipynb":
        return {f"cell-id={cell['id']}" for cell in cells_of(path)}
    headings = re.findall(r"^#+ (.*)$", text_of(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKS = {path: sorted(set(links_of(path))) for path in DOCUMENTS}
OUTER = {link for links in LINKS.values() for link in links if "://" in link}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_link_leads_to_a_file_of_the_project_and_to_a_place_in_it(path):
    for link in set(LINKS[path]) - OUTER:
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.resolve().is_relative_to(ROOT), link
        assert target.is_file(), link
        assert not anchor or anchor in anchors_of(target), link


def test_a_link_to_binder_opens_a_lesson():
    lessons = {link.partition("?labpath=")[2] for link in OUTER if "mybinder.org" in link}
    assert {ROOT / lesson for lesson in lessons} == {*NOTEBOOKS}


def test_a_link_to_the_site_opens_a_page_that_it_has():
    pages = {link.removeprefix(SITE).partition("#")[0] for link in OUTER if link.startswith(SITE)}
    sources = {page.removesuffix(".html") or "README" for page in pages}
    known = {path.relative_to(ROOT).with_suffix("").as_posix() for path in DOCUMENTS}
    assert sources and sources <= known


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git knows which files there are")
def test_every_address_is_that_of_pyproject_toml_or_docs_addresses_py_makes_it_so():
    copies = [
        (f"{path.relative_to(ROOT)}: {found[0]}", found[0] == address)
        for path, text in files()
        for copy, address in COPIES.items()
        for found in re.finditer(copy, text)
    ]
    assert copies
    assert all(right for _, right in copies), "\n".join(copy for copy, right in copies if not right)


def test_all_documents_were_read():
    read = {path.relative_to(ROOT).as_posix() for path, links in LINKS.items() if links}
    assert {"README.md", "docs/troubleshooting.md", "notebooks/00_start_here.ipynb"} <= read
