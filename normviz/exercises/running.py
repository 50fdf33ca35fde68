"""Lesson 03: running statistics and momentum."""

from normviz.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {}
