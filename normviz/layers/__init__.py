"""Normalization layers from scratch: torch.nn's, drop-in, and relatives from their papers.

One file per family. Every class in these files that has a plan is one of ``LAYERS``, and a public
name of normviz.
"""

from importlib import import_module
from pkgutil import iter_modules

LAYERS = {
    name: value
    for module in sorted(found.name for found in iter_modules(__path__))
    for name, value in vars(import_module(f"{__name__}.{module}")).items()
    if name[0] != "_" and hasattr(value, "plan") and value.__module__ == f"{__name__}.{module}"
}
