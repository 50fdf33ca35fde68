"""Worked examples found on the web: the lessons run them, and the tests hold the layers to them."""

import json
from functools import cache
from pathlib import Path

import torch


@cache
def _examples() -> dict:
    text = Path(__file__).with_name("published.json").read_text(encoding="utf-8")
    return {name: values for name, values in json.loads(text).items() if name != "about"}


def published(name: str) -> dict:
    """The input and the printed results of a worked example, as float32 tensors.

    Args:
        name: ``"A"``, ``"C1"`` to ``"C5"`` or ``"E"``.

    Raises:
        ValueError: for any other name.

    >>> published("C2")["running_var"]
    tensor([3.6750, 3.6750])
    """
    if name not in [*_examples()]:
        raise ValueError(f"name must be one of {', '.join(_examples())}: got {name!r}.")
    return {
        key: value if isinstance(value, str) else torch.tensor(value, dtype=torch.float32)
        for key, value in _examples()[name].items()
    }
