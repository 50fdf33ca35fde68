"""Answers to the exercises of lesson 03: running statistics and momentum."""

RIGHT_ANSWERS = {}
WRONG_ANSWERS = {}
OTHER_ANSWERS = {}
TELLS = {}
