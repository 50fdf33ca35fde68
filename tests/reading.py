"""What a lab says, as words and as numbers; what a plot shows."""

import re
from html import unescape
from xml.etree import ElementTree

NUMBER = r"([−\d.]+(?:e−?\d+)?)"
SVG = "{http://www.w3.org/2000/svg}"


def plain(html):
    """The words of a page, without its tags."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


def numbers_in(words, pattern):
    """The groups of a pattern that has to occur in the words."""
    found = re.search(pattern, words)
    assert found, (pattern, words)
    return [float(text.replace("−", "-")) for text in found.groups()]


def page_of(picture):
    """The root of an SVG."""
    return ElementTree.fromstring(picture.svg)


def shown(page):
    """What meets the eye: no definitions."""
    for child in page:
        if child.tag != f"{SVG}defs":
            yield child
            yield from shown(child)


def style_of(element):
    """Property → value."""
    pairs = (pair.split(":") for pair in element.get("style", "").split(";") if pair.strip())
    return {name.strip(): value.strip() for name, value in pairs}
