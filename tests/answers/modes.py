"""Answers to the exercises of lesson 05: training and track_running_stats."""

RIGHT_ANSWERS = {}
WRONG_ANSWERS = {}
OTHER_ANSWERS = {}
TELLS = {}
