"""Lesson 04: Bessel's correction."""

from normviz.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {}
