"""See which numbers share a mean: normalization layers from scratch, and pictures of them.

Importing normviz loads neither torch, matplotlib nor ipywidgets; a name that needs one of them
loads it when it is first used.
"""

from importlib import import_module

_HOME = {
    "Reduction": "reduction",
    "Plan": "plans",
    "plan_of": "plans",
    "normalize": "normalization",
    "Norm": "layers.norm",
    "weight_norm": "layers.weights",
    "diagnose": "diagnosing",
    "Diagnosis": "diagnosing",
    "Finding": "diagnosis.finding",
    "explain": "explanation",
    "Explanation": "explanation",
    "probe": "probing",
    "Probe": "probing",
    "draw_slices": "slices",
    "draw_cubes": "cubes",
    "draw_jacobian": "jacobian",
    "Picture": "picture",
    "predict": "predicting",
    "check": "checking",
    "hint": "checking",
    "solution": "checking",
    "published": "worked_examples",
}
_MODULES = ("labs",)


def __getattr__(name: str):
    if name == "__all__":
        return [*_HOME, *_layers(), *_MODULES]
    if name in _MODULES:
        return import_module(f"normviz.{name}")
    if name in _HOME:
        value = getattr(import_module(f"normviz.{_HOME[name]}"), name)
    elif name[0] != "_" and name in _layers():
        value = _layers()[name]
    else:
        raise AttributeError(f"module 'normviz' has no attribute {name!r}")
    globals()[name] = value  # the next look-up finds it at once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})


def _layers() -> dict[str, type]:
    """Each class with a plan in normviz.layers is public; they need torch."""
    return import_module("normviz.layers").LAYERS
