"""Where an outcome differs from the right one, in words and as a picture."""

import numpy as np

from normviz.picture import Picture
from normviz.reduction import Reduction
from normviz.slices import Caption, draw_slices
from normviz.words import five_digits

TOLERANCE = 1e-4  # of what a function returns


def differs(given: np.ndarray, right: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Where numbers differ by more than a relative tolerance; 0 asks for equality."""
    return ~np.isclose(given, right, rtol=tolerance, atol=1e-6 if tolerance else 0)


def describe_difference(given: np.ndarray, right: np.ndarray) -> str:
    """The first number that differs.

    >>> describe_difference(np.array([1.0, 2.5]), np.array([1.0, 2.0]))
    'It gives 2.5 instead of 2 at [1]'
    """
    if given.shape != right.shape:
        return f"It gives the shape {given.shape} instead of {right.shape}"
    index = np.unravel_index(np.argmax(differs(given, right)), given.shape)
    where = f" at {list(map(int, index))}" if index else ""
    return f"It gives {five_digits(given[index])} instead of {five_digits(right[index])}{where}"


def draw_difference(
    x, reduction: Reduction, given: np.ndarray, right: np.ndarray
) -> Picture | None:
    """The slices of x, with both outcomes for each; the first one that differs is lit.

    Args:
        x: the input, a tensor.
        reduction: what its slices are.
        given: one number for each number of x, or for each slice.
        right: the same, as it should be.

    Returns:
        None if the outcomes cannot be laid over x.
    """
    shape = tuple(x.shape)
    if given.shape != right.shape or right.shape not in (shape, reduction.stat_shape(shape)):
        return None
    labels = reduction.labels(shape)
    if right.shape == shape:
        drawn, title, most = given, "Your result; the slice in which it differs first is lit", 4
    else:
        drawn, title, most = x, "The input, and your result for each slice", 1
        given, right = (reduction.spread(stat, shape) for stat in (given, right))
    different = differs(given, right)

    def caption(label: int) -> Caption:
        here = labels == label
        order = np.argsort(~different[here], kind="stable")[:most]  # first those that differ
        numbers = {"yours": given[here][order], "right": right[here][order]}
        return Caption(
            values=tuple((whose, whose, float(some[0])) for whose, some in numbers.items()),
            lines=tuple(
                f"{whose}: {', '.join(map(five_digits, some))}" for whose, some in numbers.items()
            ),
        )

    lit = int(labels[different].min()) if different.any() else None
    return draw_slices(drawn, reduction, title=title, caption=caption, lit=lit)
