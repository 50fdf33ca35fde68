"""The questions of the lessons: what is right, what people mix up, a hint and a solution.

One module for each lesson; all names together are in ``EXERCISES`` and ``PREDICTIONS``.
"""

from normviz.exercises import (
    bessel,
    channels,
    gradient,
    linearity,
    modes,
    own_model,
    relatives,
    running,
    samples,
    workers,
)
from normviz.exercises.exercise import Exercise, Prediction

_LESSONS = (
    channels,
    samples,
    running,
    bessel,
    modes,
    linearity,
    relatives,
    gradient,
    workers,
    own_model,
)
EXERCISES: dict[str, Exercise] = {
    name: exercise for lesson in _LESSONS for name, exercise in lesson.EXERCISES.items()
}
PREDICTIONS: dict[str, Prediction] = {
    name: prediction for lesson in _LESSONS for name, prediction in lesson.PREDICTIONS.items()
}
