"""Lesson 02: what LayerNorm pools."""

from normviz.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {}
