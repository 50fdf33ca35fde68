"""Answers to the exercises of lesson 04: Bessel's correction."""

RIGHT_ANSWERS = {}
WRONG_ANSWERS = {}
OTHER_ANSWERS = {}
TELLS = {}
