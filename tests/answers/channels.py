"""Answers to the exercises of lessons 00 and 01."""

from math import prod

import numpy as np
import torch
from torch import nn

from normviz import published


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


def losses_in_training(steps, *norms):
    """Of 12 hidden layers of 32, on points inside and outside a circle."""
    torch.manual_seed(0)
    points = torch.randn(512, 2)
    inside = (points.norm(dim=1) < 1.18).long()
    torch.manual_seed(1)
    layers = []
    for size in [2] + 11 * [32]:
        layers += [nn.Linear(size, 32), *(norm(32) for norm in norms), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(32, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        losses.append(nn.functional.cross_entropy(network(points), inside))
        losses[-1].backward()
        optimizer.step()
    return losses


def predict_loss():
    """How far the loss falls without BatchNorm."""
    first, *_, last = losses_in_training(1000)
    fallen, with_norm = first - last, losses_in_training(200, nn.BatchNorm1d)[-1]
    assert with_norm < 0.02
    if fallen < 0.01:
        return "it hardly falls"
    return "as far, only later" if last < 2 * with_norm else "about half as far"


def predict_constant():
    """What a column of eights becomes."""
    x = torch.arange(20.0).reshape(4, 5)
    x[:, 1] = 8
    [output] = {*nn.BatchNorm1d(5)(x)[:, 1].tolist()}
    return {0: "0: all at the mean", 8: "8: nothing to normalize"}.get(
        output, "nan: 0 divided by 0"
    )


def predict_affine():
    """The mean and the variance of a channel after γ = 0.8681 and β = 2."""
    layer = nn.BatchNorm1d(1)
    nn.init.constant_(layer.weight, 0.8681)
    nn.init.constant_(layer.bias, 2)
    y = layer(torch.randn(1000, 1))
    mean, var = y.mean().item(), y.var(correction=0).item()
    return f"{mean:.0f} and {var:.2g}"


def predict_mistake():
    """Which of two mistakes moves the first number of a check by hand."""
    channel = published("A")["input"][0, 0]
    biased, unbiased = channel.var(correction=0), channel.var()
    distance = channel[0, 0] - channel.mean()
    right = nn.BatchNorm2d(2)(published("A")["input"])[0, 0, 0, 0]
    by_variance = abs(distance / (unbiased + 1e-5).sqrt() - right)
    by_eps = abs(distance / (biased.sqrt() + 1e-5) - right)
    return "the variance" if by_variance > 100 * by_eps else "both, about equally"


def predict_photo():
    """Which BatchNorm2d refuses a photo alone: before or after global average pooling."""

    def refuses(images):
        try:
            nn.BatchNorm2d(8)(images)
        except ValueError:
            return True
        return False

    photo, pooling = torch.randn(1, 8, 7, 7), nn.AdaptiveAvgPool2d(1)
    assert refuses(pooling(torch.randn(1, 8, 70, 70)))
    assert not refuses(pooling(torch.randn(2, 8, 7, 7)))
    return {
        (True, True): "both",
        (True, False): "only the one before it",
        (False, True): "only the one after the pooling",
        (False, False): "neither",
    }[refuses(photo), refuses(pooling(photo))]


def right_predictions():
    """What each choice turns out to be."""
    kept = torch_means(torch.randn(5, 3, 10)).numel()
    moved = int(find_moved(nn.BatchNorm2d(3), (2, 3, 4, 5)).sum())
    slice_of_first = int(find_moved(nn.LayerNorm([3, 4]), (2, 3, 4)).sum())
    return {
        "without_norm": predict_loss(),
        "other_axes": {2: "two", 8: "eight", 12: "twelve"}[slice_of_first],
        "constant_channel": predict_constant(),
        "longer_sequence": f"{kept} means of {5 * 3 * 10 // kept} numbers",
        "image_mean": f"{moved}: one channel of both",
        "weights_for_images": f"{nn.BatchNorm2d(2).weight.numel()}: one per channel",
        "scaled_and_shifted": predict_affine(),
        "which_mistake": predict_mistake(),
        "photo_alone": predict_photo(),
    }


def right_answers():
    layer = nn.BatchNorm1d(1, momentum=0.2)
    normalized = layer(torch.tensor([[1.0], [3.0], [8.0]]))
    return {
        "first_guess": torch_means(torch.randn(2, 3, 4)).numel(),
        "pattern_of_images": f"n c h w -> {' '.join(name_kept_axes())}",
        "how_many_means": torch_means(torch.randn(20, 7, 50)).numel(),
        "how_many_numbers": 8 * 4 * 20 * 30 // torch_means(torch.randn(8, 4, 20, 30)).numel(),
        "shape_of_weight": tuple(nn.BatchNorm2d(6).weight.shape),
        "first_normalized": normalized[0].item(),
        "stored_variance": layer.running_var.item(),
        "numbers_that_move": int(find_moved(nn.BatchNorm1d(4), (2, 4, 3)).sum()),
        "channel_means": torch_means,
    }


RIGHT_ANSWERS = right_answers() | right_predictions()
BIASED, UNBIASED = np.var([1, 3, 8]), np.var([1, 3, 8], ddof=1)

# What people answer, and a word or two of what they are told.
WRONG_ANSWERS = {
    "first_guess": [
        (2, "number of samples"),
        (4, "number of positions"),
        (2 * 3, "one per sample and channel"),
        (2 * 4, "numbers feed each mean"),
        (3 * 4, "one per channel and position"),
        (2 * 3 * 4, "numbers there are in all"),
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
        (1, "Its own output changes, but"),
        (2, "one position"),
        (3, "one sample's part of the channel"),
        (4 * 3, "That is one sample"),
        (2 * 4 * 3, "Only the slice"),
        (2 * 3 - 1, "Its own output changes too"),
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
    "numbers_that_move": [77, range(6), b"6"],
    "channel_means": [3, "x.mean()", lambda x: x, lambda x: "mean", lambda: 1, add_i],
}

# What would give an answer away; the shape that a question states is no secret.
TELLS = {
    "first_guess": r"\b(3|three)\b(?!, 4\))",
    "pattern_of_images": r"c h w -> c(?! h)",
    "how_many_means": r"\b(7|seven)\b(?!, 50\))",
    "how_many_numbers": r"4,?800",
    "shape_of_weight": r"\(6,\)",
    "first_normalized": r"1\.0",
    "stored_variance": r"3\.4",
    "numbers_that_move": r"\b(6|six)\b",
    "channel_means": r"!= 1",
}
