"""Lesson 06: BatchNorm is not linear."""

from normviz.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {}
