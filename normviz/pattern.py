"""The grammar of patterns such as ``n (g c) h w -> n g``."""

import re
from functools import lru_cache

ELLIPSIS = "..."
_TOKEN = re.compile(r"\s*(\.\.\.|[()]|[^\W\d]\w*|\S)")
_NAME = re.compile(r"[^\W\d]\w*\Z")


@lru_cache(maxsize=256)
def parse(pattern: str) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """The axes on the left, each a tuple of names, and the kept names on the right."""

    def wrong(rule: str) -> ValueError:
        return ValueError(f"pattern {pattern!r}: {rule}")

    sides = pattern.split("->")
    if len(sides) != 2:
        raise wrong('write all axes, one "->", and the kept axes, as in "n t c -> n t".')
    left, right = (_TOKEN.findall(side) for side in sides)
    for token in left + right:
        if token not in ("(", ")", ELLIPSIS) and not _NAME.match(token):
            raise wrong(f'{token!r} is no axis name; use names such as n, c, h and w, or "...".')

    axes, group = [], None
    for token in left:
        if token == "(":
            if group is not None:
                raise wrong("groups have one level: no ( inside ( ).")
            group = []
        elif token == ")":
            if not group:
                raise wrong("a group needs names: (g c)." if group == [] else "a ( is missing.")
            axes.append(tuple(group))
            group = None
        elif group is not None:
            if token == ELLIPSIS:
                raise wrong('"..." cannot stand inside a group.')
            group.append(token)
        else:
            axes.append((token,))
    if group is not None:
        raise wrong("a ) is missing.")
    if not axes:
        raise wrong("there are no axes left of the arrow.")

    names = [name for group in axes for name in group]
    for name in names:
        if names.count(name) > 1:
            raise wrong(f"{name} stands twice on the left; each axis has a name of its own.")
    for name in right:
        if name in "()":
            raise wrong("the right side lists names only: n g, not (n g).")
        if name not in names:
            raise wrong(f"{name} is kept on the right, but no axis on the left has that name.")
        if right.count(name) > 1:
            raise wrong(f"{name} stands twice on the right.")
    in_order = [name for name in names if name in right]
    if right != in_order:
        raise wrong(f'kept axes stay in their order: "-> {" ".join(in_order)}".')
    return tuple(axes), tuple(right)
