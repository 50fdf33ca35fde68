"""What a lab says, as words and as numbers; what a picture or a plot shows."""

import re
from html import unescape
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np

from normviz.words import five_digits

NUMBER = r"([+−]?\d+(?:\.\d+)?(?:e−?\d+)?)"
SVG = "{http://www.w3.org/2000/svg}"


def plain(html):
    """The words of a page, without its tags."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


def words_of(lab):
    """What stands in a lab's readout, line by line."""
    return unescape(re.sub("<[^>]*>", "", lab.readout.value.replace("<br>", "\n")))


def spoken(lab):
    """The accessible name of a lab's picture."""
    return ElementTree.fromstring(lab.picture.value).find(".//*[@role='img']").get("aria-label")


def number(text):
    """The number that is written so."""
    return float(text.replace("−", "-"))


def numbers_in(pattern, words):
    """The numbers at each # of a pattern that has to occur in the words."""
    found = re.search(pattern.replace("#", NUMBER), words)
    assert found, (pattern, words)
    return [*map(number, found.groups())]


def cells_of(svg):
    """Index → the label of its slice, and the number that is written there."""
    found = {}
    for group in ElementTree.fromstring(svg).findall(".//*[@data-label]"):
        label = int(group.get("data-label"))
        for cell, text in pairwise(group):
            if cell.get("data-index"):
                index = tuple(map(int, cell.get("data-index").split(",")))
                found[index] = label, number(text.text)
    return found


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


def come_out(line):
    """What a line works out, and what it says: equal to its last digit."""
    line = line.removeprefix("first number: ").partition(";")[0]
    *_, terms, result = line.split(" = ")
    terms = re.sub(r" \((?:running )?[a-z]+\)", "", terms)
    signs = {"−": "-", "·": "*", "²": "**2", "√(": "np.sqrt(", "max(": "np.maximum("}
    for sign, operation in signs.items():
        terms = terms.replace(sign, operation)
    terms = re.sub(r"√([\d.e-]+)", r"np.sqrt(\1)", terms)
    with np.errstate(all="ignore"):
        return five_digits(float(eval(terms))) == result


def contrast(one, other):
    """WCAG's contrast of two colours, each three parts of 0 to 255."""
    parts = np.array([[*one], [*other]]) / 255
    parts = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    dim, bright = sorted(parts @ [0.2126, 0.7152, 0.0722] + 0.05)
    return bright / dim
