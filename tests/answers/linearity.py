"""Answers to the exercises of lesson 06: BatchNorm is not linear."""

RIGHT_ANSWERS = {}
WRONG_ANSWERS = {}
OTHER_ANSWERS = {}
TELLS = {}
