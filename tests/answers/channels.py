"""Answers to the exercises of lessons 00 and 01."""

from math import prod

import numpy as np
import torch
from torch import nn


def torch_means(x):
    """The means that torch.nn's layer stores if the new batch has all the weight."""
    layers = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    layer = layers[x.ndim](x.shape[1], momentum=1)
    layer(x)
    return layer.running_mean


def find_moved(layer, shape):
    """Which outputs of a layer of torch.nn another first number moves."""
    x = torch.arange(float(prod(shape))).reshape(shape)
    before = layer(x)
    x.view(-1)[0] = 100
    return layer(x) != before


def name_kept_axes():
    """The axes along which a change of one number does not travel."""
    moved = find_moved(nn.BatchNorm2d(3), (2, 3, 4, 5)).nonzero()
    return [name for axis, name in enumerate("nchw") if not moved[:, axis].any()]


def right_answers():
    layer = nn.BatchNorm1d(1, momentum=0.2)
    normalized = layer(torch.tensor([[1.0], [3.0], [8.0]]))
    return {
        "first_guess": torch_means(torch.randn(2, 3, 2)).numel(),
        "pattern_of_images": f"n c h w -> {' '.join(name_kept_axes())}",
        "how_many_means": torch_means(torch.randn(20, 7, 50)).numel(),
        "how_many_numbers": 8 * 4 * 20 * 30 // torch_means(torch.randn(8, 4, 20, 30)).numel(),
        "shape_of_weight": tuple(nn.BatchNorm2d(6).weight.shape),
        "first_normalized": normalized[0].item(),
        "stored_variance": layer.running_var.item(),
        "numbers_that_move": int(find_moved(nn.BatchNorm1d(2), (3, 2, 3)).sum()),
        "channel_means": torch_means,
    }


RIGHT_ANSWERS = right_answers()
BIASED, UNBIASED = np.var([1, 3, 8]), np.var([1, 3, 8], ddof=1)

# What people answer, and a word or two of what they are told.
WRONG_ANSWERS = {
    "first_guess": [
        (2, "number of samples"),
        (2 * 3, "one per sample and channel"),
        (2 * 2, "numbers feed each mean"),
        (2 * 3 * 2, "numbers there are in all"),
        (1, "mean over everything"),
    ],
    "pattern_of_images": [
        ("n c h w -> n c", "one per sample and channel"),
        ("n c h w -> n", "LayerNorm's choice"),
        ("n c h w -> c h w", "one per channel and pixel"),
        ("n c h w -> n h w", "You named what is pooled"),
        ("n c h w ->", "everything into one"),
    ],
    "how_many_means": [
        (20, "number of samples"),
        (50, "number of positions"),
        (20 * 7, "one per sample and channel"),
        (7 * 50, "one per channel and position"),
        (20 * 50, "numbers feed each mean"),
        (20 * 7 * 50, "numbers there are in all"),
    ],
    "how_many_numbers": [
        (20 * 30, "pixels of one sample's channel"),
        (4 * 20 * 30, "numbers of one sample"),
        (8 * 4 * 20 * 30, "are all numbers"),
        (4, "how many means there are"),
        (8, "counts the samples only"),
    ],
    "shape_of_weight": [
        (6, "A shape is a tuple"),
        ((8, 6), "one per sample and channel"),
        ((6, 4, 4), "one per channel and pixel"),
        ((1, 6, 1, 1), "ready to broadcast"),
        ((8, 6, 4, 4), "shape of the input"),
        ((8,), "one per sample"),
    ],
    "first_normalized": [
        (-3 / UNBIASED**0.5, "the unbiased variance. The biased one"),
        (-3 / BIASED, "by the variance. Divide by its root"),
        (-3 / UNBIASED, "and its root"),
        (3 / BIASED**0.5, "The sign"),
        (-3, "divided by the standard deviation"),
    ],
    "stored_variance": [
        (0.8 + 0.2 * BIASED, "You stored the biased variance"),
        (0.2 + 0.8 * UNBIASED, "The other way round"),
        (0.2 + 0.8 * BIASED, "Two things"),
        (UNBIASED, "new batch alone"),
        (BIASED, "normalizes this batch"),
        (0.2 * UNBIASED, "The old value is missing"),
        (0.2 * BIASED, "is missing, and the unbiased variance is stored"),
    ],
    "numbers_that_move": [
        (1, "Its own output moves, but"),
        (3, "one sample's part of the channel"),
        (6, "That is one sample"),
        (18, "Only the slice"),
        (8, "its neighbours"),
    ],
    "channel_means": [
        (lambda x: x.flatten(1).mean(1), "one mean per n"),
        (lambda x: torch_means(x).reshape(1, -1, *[1] * (x.ndim - 2)), "without keepdim"),
        (lambda x: x.flatten(0, -2).mean(0), "keeps the last axis"),
        (lambda x: x.mean(dim=0), "pools the samples only"),
        (lambda x: x.mean(dim=[*range(2, x.ndim)]), "one per sample and channel"),
        (lambda x: x.mean(), "one mean for all"),
        (lambda x: torch_means(x) * x.numel() / x.shape[1], "That is the sum"),
    ],
}


def add_i(x):
    return torch_means(x) + 1j


# Wrong answers that nobody thought of.
OTHER_ANSWERS = {
    "first_guess": [77, -3, 3.0005, (3,), "3", True, False],
    "pattern_of_images": ["n c h w -> h w", "n c h w -> n c h w", "c", "n c -> c", "n c h w -> w"],
    "how_many_means": [77, -7, 7.0005, [7], "seven", 7 + 0j, float("nan")],
    "how_many_numbers": [4801, 4799.6, float("inf"), 10**400],
    "shape_of_weight": [(7,), (6, 6), (6.004,), [[6]], (), ("6",), {6}],
    "first_normalized": [77, -1.0, (-1.019,), "-1.019"],
    "stored_variance": [77, 3.5, {3.4: 1}],
    "numbers_that_move": [77, range(9), b"9"],
    "channel_means": [3, "x.mean()", lambda x: x, lambda x: "mean", lambda: 1, add_i],
}

# What would give an answer away; the shape that a question states is no secret.
TELLS = {
    "first_guess": r"\b(3|three)\b",
    "pattern_of_images": r"c h w -> c(?! h)",
    "how_many_means": r"\b(7|seven)\b(?!, 50\))",
    "how_many_numbers": r"4,?800",
    "shape_of_weight": r"\(6,\)",
    "first_normalized": r"1\.0",
    "stored_variance": r"3\.4",
    "numbers_that_move": r"\b(9|nine)\b",
    "channel_means": r"!= 1",
}
