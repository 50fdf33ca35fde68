"""Lesson 05: training and track_running_stats."""

from normviz.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {}
