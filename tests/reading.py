"""What a lab says, as words and as numbers."""

import re
from html import unescape

NUMBER = r"([−\d.]+(?:e−?\d+)?)"


def plain(html):
    """The words of a page, without its tags."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


def numbers_in(words, pattern):
    """The groups of a pattern that has to occur in the words."""
    found = re.search(pattern, words)
    assert found, (pattern, words)
    return [float(text.replace("−", "-")) for text in found.groups()]
