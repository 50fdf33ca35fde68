"""``python -m normviz diagnose FILE:FUNCTION``: a diagnosis from a shell.

FUNCTION returns ``model, args`` or ``model, args, kwargs``. The exit status is 1 if there are
findings, 0 if there are none, and 2 for a wrong call.
"""

import runpy
import sys
from pathlib import Path

USAGE = "usage: python -m normviz diagnose FILE:FUNCTION"


def main(arguments: list[str]) -> int:
    """Print the diagnosis, or what is wrong with the call; the exit status.

    >>> main(["diagnose", "no_such_file.py:make"])
    2
    """
    try:
        model, args, kwargs = _made_by(*arguments)
        from normviz import diagnose  # not before the call makes sense: it takes torch

        diagnosis = diagnose(model, *args, **kwargs)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(diagnosis.text)
    return int(bool(diagnosis.findings))


def _made_by(*arguments: str):
    """The model, and what it takes."""
    if len(arguments) != 2 or arguments[0] != "diagnose" or ":" not in arguments[1]:
        raise ValueError(USAGE)
    path, _, name = arguments[1].rpartition(":")
    if not Path(path).is_file():
        raise ValueError(f"FILE must be a Python file: there is no {path!r}. {USAGE}")
    sys.path.insert(0, str(Path(path).resolve().parent))  # as `python FILE` would
    try:
        function = runpy.run_path(path).get(name)
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ValueError(f"FUNCTION must be a function of {path}: there is no {name!r}. {USAGE}")
    try:
        made = function()
    except Exception as error:
        raise ValueError(f"{name}() raised {type(error).__name__}: {error}") from error
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise ValueError(f"{name}() must return model, args or model, args, kwargs: got {made!r}.")
    model, args, kwargs = (*made, {})[:3]
    if not isinstance(args, tuple | list) or not isinstance(kwargs, dict):
        raise ValueError(
            f"{name}() must return a tuple of args, and a dict of kwargs: got "
            f"{type(args).__name__} and {type(kwargs).__name__}; (x,) is a tuple of one."
        )
    return model, args, kwargs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
