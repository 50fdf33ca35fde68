"""The exercises of the lessons: what is right, what people mix up, a hint and a solution.

One module for each lesson; all names together are in ``EXERCISES``.
"""

from normviz.exercises import bessel, channels, linearity, modes, running, samples
from normviz.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {
    **channels.EXERCISES,
    **samples.EXERCISES,
    **running.EXERCISES,
    **bessel.EXERCISES,
    **modes.EXERCISES,
    **linearity.EXERCISES,
}
