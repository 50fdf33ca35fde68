"""What a finding says. Its docstring is its page: what it means, why it matters, what to do."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from normviz.watching import Run, Watched


@dataclass(frozen=True)
class Finding:
    """Something to know about one normalization of a model: a class of its own for each kind.

    Attributes:
        code: the name of the kind, such as ``"few-numbers"``.
        layer: the name of the layer; None if it is the model itself.
        numbers: the evidence.
        lesson: the cell that shows it.

    >>> from torch import nn, ones
    >>> from normviz import diagnose
    >>> found = diagnose(nn.LayerNorm(4).eval(), ones(2, 4)).findings[0]
    >>> found.code, found.layer, found.numbers
    ('constant-channel', None, {'count': 2, 'slices': 2})
    >>> found.evidence
    '2 of 2 slices hold one number, again and again'
    """

    layer: str | None
    numbers: Mapping[str, object]

    code: ClassVar[str] = ""
    said: ClassVar[str] = ""  # the evidence, with places for the numbers
    lesson: ClassVar[str] = ""

    @classmethod
    def find(cls, layer: Watched, run: Run) -> Mapping[str, object] | None:
        """The evidence against a layer; None if there is none."""
        raise NotImplementedError

    @property
    def evidence(self) -> str:
        """The numbers, in words."""
        return self.said.format(**self.numbers)

    @property
    def means(self) -> str:
        """What it is, in a sentence."""
        return self._page[0]

    @property
    def why(self) -> str:
        """Why it matters."""
        return self._page[1]

    @property
    def do(self) -> str:
        """What would help."""
        return self._page[2].removeprefix("Do: ")

    @cached_property
    def _page(self) -> list[str]:
        paragraphs = inspect.cleandoc(type(self).__doc__ or "").split("\n\n")
        return [" ".join(text.split()) for text in [*paragraphs, "", ""]]

    def __str__(self) -> str:
        return f"{self.code}, {self.layer or 'the model itself'}: {self.evidence}."


def cell(lesson: str, name: str) -> str:
    """The address of a cell."""
    return f"notebooks/{lesson}.ipynb#cell-id={name}"
