"""Explorers for a notebook: move a control, and see what a layer makes of it."""

from normviz.labs.bessel import bessel_lab
from normviz.labs.detective import detective_lab
from normviz.labs.gradient import gradient_lab
from normviz.labs.linearity import linearity_lab
from normviz.labs.modes import modes_lab
from normviz.labs.momentum import momentum_lab
from normviz.labs.relatives import relatives_lab
from normviz.labs.shapes import shape_lab
from normviz.labs.workers import workers_lab

__all__ = [
    "bessel_lab",
    "detective_lab",
    "gradient_lab",
    "linearity_lab",
    "modes_lab",
    "momentum_lab",
    "relatives_lab",
    "shape_lab",
    "workers_lab",
]
