"""``python -m normviz diagnose FILE:FUNCTION``: a diagnosis from a shell.

FUNCTION returns ``model, args`` or ``model, args, kwargs``. The exit status is 1 if there are
findings, 0 if there are none, and 2 for a wrong call.
"""

import runpy
import sys
from argparse import ArgumentParser
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Print the diagnosis, or what is wrong with the call; the exit status.

    >>> main(["diagnose", "no_such_file.py:make"])
    2
    """
    parser = ArgumentParser("python -m normviz")
    command = parser.add_subparsers(required=True, metavar="diagnose").add_parser("diagnose")
    command.add_argument("target", metavar="FILE:FUNCTION", help="returns model, args[, kwargs]")
    command.add_argument(
        "--ignore", metavar="CODE", action="append", default=[], help="a finding that may be there"
    )
    asked = parser.parse_args(arguments)
    try:
        model, args, kwargs = _made_by(asked.target)
        from normviz import diagnose  # not before the call makes sense: it takes torch
        from normviz.diagnosis import FINDINGS

        if unknown := {*asked.ignore} - (codes := {finding.code for finding in FINDINGS}):
            raise ValueError(f"CODE must be one of {', '.join(sorted(codes))}: got {unknown}.")
        diagnosis = diagnose(model, *args, **kwargs)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(diagnosis.text)
    return int(not {*diagnosis.codes} <= {*asked.ignore})


def _made_by(target: str):
    """The model, and what it takes."""
    path, _, name = target.rpartition(":")
    if not Path(path).is_file():
        raise ValueError(f"FILE:FUNCTION must name a Python file: there is no {path!r}.")
    sys.path.insert(0, str(Path(path).resolve().parent))  # as `python FILE` would
    try:
        function = runpy.run_path(path).get(name)
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ValueError(f"FUNCTION must be a function of {path}: there is no {name!r}.")
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
