"""See which numbers share a mean: normalization layers from scratch, and pictures of them.

Importing normviz loads neither torch, matplotlib nor ipywidgets; a name that needs one of them
loads it when it is first used.
"""

from importlib import import_module

_HOME = {
    "Reduction": "reduction",
    "BatchNorm1d": "layers",
    "BatchNorm2d": "layers",
    "BatchNorm3d": "layers",
    "LayerNorm": "layers",
    "normalize": "normalization",
    "explain": "explanation",
    "Explanation": "explanation",
    "draw_slices": "slices",
    "draw_cubes": "cubes",
    "Picture": "picture",
    "check": "lesson",
    "hint": "lesson",
    "solution": "lesson",
    "published": "examples",
}
_MODULES = ("labs",)

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        return import_module(f"normviz.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'normviz' has no attribute {name!r}")
    value = getattr(import_module(f"normviz.{_HOME[name]}"), name)
    globals()[name] = value  # the next look-up finds it at once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
