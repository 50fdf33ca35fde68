"""Answers to the exercises of lesson 04: Bessel's correction."""

from itertools import product
from math import sqrt

import torch
from torch import nn

SAMPLE, TRUE_MEAN = torch.tensor([9.0, 13.0, 14.0]), 10


def stored_variance(x):
    """What torch.nn's layer stores if the new batch has all the weight."""
    layer = nn.BatchNorm1d(x.shape[1], momentum=1)
    layer(x)
    return layer.running_var


def average_over_all_samples(m, **option):
    """Of the variances of all samples of m numbers from {0, 1}, as a fraction of the truth."""
    samples = torch.tensor([*product((0.0, 1.0), repeat=m)])
    return samples.var(dim=1, **option).mean().item() / 0.25


def corrected(biased, m):
    """The variance that torch.nn's layer stores of m numbers with this biased variance."""
    x = torch.arange(float(m))
    return stored_variance((x * (biased / x.var(correction=0)).sqrt())[:, None]).item()


def normalize_batch(x):
    return nn.BatchNorm1d(x.shape[1], affine=False)(x)


def normalize_rows(x):
    return nn.LayerNorm(x.shape[1], elementwise_affine=False)(x)


def centre(x, dim):
    return x - x.mean(dim=dim, keepdim=True)


def count(x):
    """How many numbers share a mean."""
    return x[:, 0].numel()


def stored(x):
    """The stored variances, in line with the channels."""
    return stored_variance(x)[:, None]


def find_the_cure():
    """Of all samples of {0, 1}, which average, divided by m, is the truth?"""
    samples = torch.tensor([*product((0.0, 1.0), repeat=10)])
    biased, means = samples.var(dim=1, correction=0).mean(), samples.mean(dim=1)
    averages = {
        "draws": samples.repeat(3, 1).var(dim=1, correction=0).mean(),
        "other": biased + (means - means[:, None]).square().mean(),
        "population": (samples - 0.5).square().mean(),
        "larger": 0.25 * average_over_all_samples(14, correction=0),
    }
    assert averages["draws"] < averages["larger"] < 0.25 < averages["other"]
    (cure,) = [name for name, average in averages.items() if abs(average - 0.25) < 1e-6]
    return cure


def find_why():
    """ "scale" if LayerNorm gives the numbers variance 1 and keeps nothing of them."""
    layer = nn.LayerNorm(2, eps=0)
    scaled = layer(torch.tensor([1.0, 5.0])).square().mean().item()
    return "scale" if scaled == 1 and not [*layer.buffers()] else None


def nearest(number, choices):
    """Of the choices, the one that is in words what the number is."""
    return min(choices, key=lambda choice: abs(choices[choice] - number))


def average_of_flat_images():
    """What the layer stores on average for two images of one grey each, with variance 4."""
    layer = nn.BatchNorm2d(1, momentum=None)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        layer(2 * torch.randn(2, 1, 1, 1, generator=generator).expand(2, 1, 10, 10))
    return layer.running_var.item()


def spread_after_twenty():
    """The standard deviation in eval, after twenty layers that were trained on batches of 64."""
    layers = nn.Sequential(*[nn.BatchNorm1d(1, momentum=None) for _ in range(20)])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(200):
            layers(torch.randn(64, 1, generator=generator))
        return layers.eval()(torch.randn(10_000, 1, generator=generator)).std().item()


def variance_in_eval(stored):
    """Of new numbers with variance 4, if this much is stored."""
    layer = nn.BatchNorm1d(1, affine=False).eval()
    layer.running_var.fill_(stored)
    return layer(torch.tensor([[-2.0], [2.0]])).var(correction=0).item()


def where_nothing_is_left():
    """The smallest of these numbers with which float32 loses the variance of 1, 2 and 6."""
    for added in (1000, 10_000, 10_000_000):
        x = torch.tensor([1.0, 2.0, 6.0]) + added
        if abs((x**2).mean() - x.mean() ** 2 - 14 / 3) > 1:
            return f"{added:,}"
    return None


def average_with_both_sides():
    """Of the biased variances of ten tosses of a coin that show both sides."""
    tosses = torch.tensor([*product((0.0, 1.0), repeat=10)])
    both = (tosses.amin(1) == 0) & (tosses.amax(1) == 1)
    return tosses[both].var(dim=1, correction=0).mean().item()


def made_by_groups_of_one():
    """What GroupNorm makes of groups of one number each."""
    out = nn.GroupNorm(3, 3)(torch.tensor([[5.0, -2.0, 7.0], [1.0, 0.0, 3.0]]))
    if out.abs().max() < 1e-3:
        return "only zeros"
    ones = (out.abs() - 1).abs().max() < 1e-3
    return "only −1 and 1" if ones else "the rows as they are"


RIGHT_ANSWERS = {
    "biased_on_average": nearest(
        average_over_all_samples(2, correction=0),
        {"half of it": 1 / 2, "two thirds of it": 2 / 3, "the truth itself": 1},
    ),
    "about_true_mean": nearest(
        4 * (torch.tensor([*product((0.0, 1.0), repeat=3)]) - 0.5).square().mean().item() / 0.25,
        {"below 4 again": 4 * 2 / 3, "about 4": 4, "above 4": 4 * 3 / 2},
    ),
    "stored_biased_in_eval": nearest(
        variance_in_eval(4 * 2 / 3),
        {"about 0.67": 2 / 3, "about 1, as before": 1, "about 1.5": 3 / 2},
    ),
    "flat_images": nearest(average_of_flat_images(), {"about 2": 2, "about 4": 4, "about 8": 8}),
    "twenty_in_eval": nearest(
        spread_after_twenty(),
        {"about 0.85": 0.85, "about 1": 1, "about 1.15": 1.15},
    ),
    "group_of_one": made_by_groups_of_one(),
    "nothing_left": where_nothing_is_left(),
    "coin_with_both_edges": nearest(
        average_with_both_sides(),
        {
            "about 0.225, as for all": 0.225,
            "about 0.24, in between": 0.24,
            "0.25, for none is missed": 0.25,
        },
    ),
    "correction_factor": corrected(1, m=5),
    "corrected_to_store": corrected(12, m=4),
    "average_biased_variance": 20 * average_over_all_samples(4, correction=0),
    "known_mean": (SAMPLE - TRUE_MEAN).square().mean().item(),
    "what_mends_the_shortage": find_the_cure(),
    "why_layernorm_divides_by_m": find_why(),
    "mend_the_normalization": normalize_batch,
    "mend_the_epsilon": normalize_rows,
    "mend_the_correction": stored_variance,
}

# What people answer, and a word or two of what they are told.
WRONG_ANSWERS = {
    "correction_factor": [
        (4 / 5, "smaller still"),
        (6 / 5, "(m + 1)/m"),
        (sqrt(5 / 4), "of the standard deviation"),
        (1, "nothing is corrected"),
        (5 - 1, "by which the squares are divided"),
    ],
    "corrected_to_store": [
        (12, "it normalizes"),
        (12 * 3 / 4, "Reversed: 12 · 3/4"),
        (12 * 5 / 4, "m is 4"),
        (12 * 4, "sum of squares, 12 · 4"),
        (12 / 3, "12 is the variance"),
        (0.9 * 1 + 0.1 * 16, "the old value has no weight"),
        (0.9 * 1 + 0.1 * 12, "nothing of the old value is kept"),
    ],
    "average_biased_variance": [
        (20 * average_over_all_samples(4, correction=1), "average of the unbiased ones"),
        (20 * 4 / 3, "larger than the truth"),
        (20 / 4, "how much they lack"),
        (20 * average_over_all_samples(5, correction=0), "4/5 of it"),
        (20 * average_over_all_samples(2, correction=0), "as for m = 2"),
        (20 * 3, "the average *sum* of squares"),
    ],
    "known_mean": [
        ((SAMPLE - TRUE_MEAN).square().sum().item() / 2, "nothing to correct"),
        (SAMPLE.var(correction=1).item(), "Use the true one"),
        (SAMPLE.var(correction=0).item(), "did not correct either"),
        ((SAMPLE - TRUE_MEAN).square().sum().item(), "the sum of squares. Divide it"),
        ((SAMPLE - TRUE_MEAN).square().mean().sqrt().item(), "the standard deviation"),
    ],
    "what_mends_the_shortage": [
        ("draws", "makes the average steadier"),
        ("other", "it misses the true one, too"),
        ("larger", "never reaches 1"),
    ],
    "why_layernorm_divides_by_m": [
        ("large", "LayerNorm(2) divides by 2 as well"),
        ("single", "How many rows there are does not count"),
        ("weight", "a fresh layer has weight 1"),
    ],
    "mend_the_normalization": [
        (lambda x: centre(x, (0, 2)) / x.std(dim=(0, 2), keepdim=True), "the unbiased variance"),
        (
            lambda x: centre(x, (0, 2)) / x.var(dim=(0, 2), keepdim=True, correction=0),
            "divides by the variance",
        ),
        (lambda x: normalize_batch(x.flatten(1)).reshape(x.shape), "pools axis 0 only"),
        (nn.functional.instance_norm, "one mean per row and channel"),
        (
            lambda x: centre(x, (0, 2)) / (stored(x) / (1 - 1 / count(x)) + 1e-5).sqrt(),
            "the wrong way, and twice",
        ),
        (
            lambda x: centre(x, (0, 2)) / (stored(x) * (1 - 1 / x.shape[0]) + 1e-5).sqrt(),
            "m is N · L here, not N",
        ),
        (
            lambda x: centre(x, (0, 2)) / (x.std((0, 2), keepdim=True, correction=0) + 1e-5),
            "ε stands outside",
        ),
        (
            lambda x: centre(x, (0, 2)) / x.std((0, 2), keepdim=True, correction=0),
            "There is no ε",
        ),
    ],
    "mend_the_epsilon": [
        (
            lambda x: centre(x, 1) / (x.std(1, keepdim=True, correction=0) + 1e-5),
            "ε stands outside",
        ),
        (lambda x: centre(x, 1) / x.std(1, keepdim=True, correction=0), "There is no ε"),
        (
            lambda x: centre(x, 1) / ((x.var(1, keepdim=True, correction=0) + 1e-5).sqrt() + 1e-5),
            "ε is added twice",
        ),
        (lambda x: centre(x, 1) / (x.var(1, keepdim=True) + 1e-5).sqrt(), "unbiased variance"),
        (lambda x: normalize_batch(x), "normalizes the columns"),
    ],
    "mend_the_correction": [
        (lambda x: stored_variance(x) * (1 - 1 / count(x)) ** 2, "upside down"),
        (lambda x: x.var(dim=(0, 2), correction=0), "That is the biased variance"),
        (
            lambda x: stored_variance(x) / (1 - 1 / count(x)),
            "That corrects twice",
        ),
        (
            lambda x: x.var(dim=(0, 2), correction=0) / (1 - 1 / x.shape[0]),
            "how many numbers share the mean",
        ),
        (lambda x: centre(x, (0, 2)).square().sum(dim=(0, 2)), "the sum of squares. Divide it by"),
        (lambda x: x.std(dim=(0, 2)), "the standard deviation"),
        (lambda x: x.var(dim=2), "one variance per row and channel"),
    ],
}

# Wrong answers that nobody thought of.
OTHER_ANSWERS = {
    "correction_factor": [77, -1.25, (1.25,), "5/4"],
    "corrected_to_store": [77, -16, [16], {16}],
    "average_biased_variance": [77, (15,), float("nan")],
    "known_mean": [77, -8.667, "8.667"],
    "what_mends_the_shortage": ["median", 3, True, ["mean"]],
    "why_layernorm_divides_by_m": ["speed", False, 2],
    "mend_the_normalization": [3, lambda x: x, lambda x: x.mean(), lambda: 1],
    "mend_the_epsilon": [3, lambda x: x, lambda x: "rows"],
    "mend_the_correction": [3, lambda x: x.mean(dim=(0, 2)), lambda x: x],
}

# What would give an answer away.
TELLS = {
    "correction_factor": r"1\.25|5/4",
    "corrected_to_store": r"\b16\b",
    "average_biased_variance": r"\b15\b",
    "known_mean": r"8\.6|26/3",
    "what_mends_the_shortage": '"population"',
    "why_layernorm_divides_by_m": '"scale"',
    "mend_the_normalization": r"correction=0",
    "mend_the_epsilon": r"\(var \+ eps\)\.sqrt",
    "mend_the_correction": r"m / \(m - 1\)",
}
