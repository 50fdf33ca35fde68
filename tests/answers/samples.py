"""Answers to the exercises of lesson 02: what LayerNorm pools."""

RIGHT_ANSWERS = {}
WRONG_ANSWERS = {}
OTHER_ANSWERS = {}
TELLS = {}
