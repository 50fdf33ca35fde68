"""Lesson 08: the gradient."""

from collections.abc import Callable, Sequence

import torch

from normviz.exercises.exercise import Exercise, Prediction
from normviz.judging import judge_function, judge_numbers

_PER_CHANNEL = (0, 2)  # of (N, C, L)
_PER_SAMPLE = (1,)  # of (N, C)


def _backward(
    over: Sequence[int],
    *,
    mean: float = 1.0,
    along: float = 1.0,
    before: int = 1,
    after: int = 0,
    lost: int = 0,
    means_over: Sequence[int] | None = None,
    multiplied: bool = True,
    divided: int = 1,
) -> Callable[..., torch.Tensor]:
    """dx of a norm by its three terms, right or wrong.

    Args:
        over: the axes of a slice.
        mean: how often mean(g) is subtracted.
        along: how often y · mean(g · y) is.
        before: how often γ multiplies g at first.
        after: how often it multiplies what comes out.
        lost: what is taken from m, by which the sum of g · y is divided.
        means_over: the axes of both means; by default those of a slice.
        multiplied: whether mean(g · y) is multiplied by y.
        divided: how often σ divides.
    """
    means_over = over if means_over is None else means_over

    def backward(g, y, sigma, gamma):
        gamma = gamma.reshape(-1, *[1] * (g.ndim - 2))  # along axis 1
        g = g * gamma**before
        count = g.numel() / g.sum(means_over).numel()
        mean_g = g.mean(means_over, keepdim=True)
        mean_gy = (g * y).sum(means_over, keepdim=True) / (count - lost)
        bracket = g - mean * mean_g - along * mean_gy * (y if multiplied else 1)
        return gamma**after * bracket / sigma**divided

    return backward


def _cases(shapes, over: Sequence[int], *, centred: bool = True) -> list[tuple]:
    """g, y, σ and γ of random inputs."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for shape in shapes:
        g, x = torch.randn((2, *shape), generator=generator)
        x = 2 * x + 1
        x = x - x.mean(over, keepdim=True) if centred else x
        sigma = (x.square().mean(over, keepdim=True) + 1e-5).sqrt()
        gamma = torch.rand(shape[1], generator=generator) + 1.5
        cases.append((g, x / sigma, sigma, gamma))
    return cases


def _batch_norm_cases() -> list[tuple]:
    return _cases([(3, 2, 4), (2, 3, 2)], _PER_CHANNEL)


def _layer_norm_cases() -> list[tuple]:
    return _cases([(3, 4), (2, 6)], _PER_SAMPLE)


def _rms_norm_cases() -> list[tuple]:
    return _cases([(3, 4), (2, 6)], _PER_SAMPLE, centred=False)


PREDICTIONS: dict[str, Prediction] = {
    "gradient_of_doubled": Prediction(
        "half as large",
        {
            "the same": "Outputs and g are the same, and so is the bracket. But σ, which divides "
            "it, is that of the larger numbers.",
            "twice as large": "The other way round: larger numbers must move farther to move an "
            "output as far.",
        },
        praise="The bracket stays, and σ doubles.",
    ),
    "gradient_of_gamma": Prediction(
        "only dx",
        {
            "dx and dγ": "dγ is the sum of g · y, and neither of them holds γ.",
            "only dγ": "The other way round: g meets γ on its way to x, and γ itself meets only y.",
        },
        praise="x gets γ · g, and γ gets g · y.",
    ),
    "gradient_of_the_sum": Prediction(
        "0 each",
        {
            "1/σ each": "That is the first term alone. What comes back through the mean cancels it.",
            "1/σ · y": "A share along y would have to come from g. But g is 1 everywhere, and the "
            "mean of 1 · y is 0.",
        },
        praise="Outputs of a slice add up to 0, whatever x is. So no x moves their sum.",
    ),
    "gradient_of_two": Prediction(
        "nearly (0, 0)",
        {
            "(3, 0)": "So it would be if each number were divided by a stored σ = 1. In training "
            "both move mean and σ.",
            "(1.5, −1.5)": "That is g − mean(g), two terms over σ = 1. The third one takes away "
            "what is left.",
        },
        praise="But for ε, two numbers come out as −1 and 1, so they cannot move anything.",
    ),
    "step_of_large_weights": Prediction(
        "a hundredth",
        {
            "as before": "The outputs are as before. But the gradient is divided by a σ that is "
            "ten times as large, and the weight is larger too.",
            "a tenth": "That is the gradient alone. It is set beside a weight that is ten times "
            "as long.",
        },
        praise="A tenth of the gradient, beside ten times the weight.",
    ),
    "gradient_in_eval": Prediction(
        "(1.3887, 0, 0)",
        {
            "as in training: y agrees": "Equal outputs at one place do not make equal slopes. "
            "Stored statistics do not move when x does.",
            "(0, 0, 0): eval has none": "Eval chooses the statistics, and no more. Gradients flow "
            "through it: it is a straight line with slope γ/σ.",
        },
        praise="g · γ/σ at its own place: the stored statistics do not follow x.",
    ),
    "gamma_before_or_inside": Prediction(
        "only BatchNorm",
        {
            "both": "The means run over a slice. Ask whether all numbers of a slice share one γ: in "
            "a row of LayerNorm they do not.",
            "only LayerNorm": "The other way round: it is BatchNorm whose slice has a single γ.",
        },
        praise="One γ per slice may stand before both means; several must go into them.",
    ),
    "sums_of_rmsnorm": Prediction(
        "Σ dx · y",
        {
            "Σ dx": "That is due to subtracting a mean, and RMSNorm subtracts none.",
            "both": "Σ dx = 0 is due to subtracting a mean, and RMSNorm subtracts none.",
            "neither": "One factor for all numbers still cancels. So there is a direction in which "
            "nothing changes.",
        },
        praise="A factor cancels, a shift does not.",
    ),
}

EXERCISES: dict[str, Exercise] = {
    "three_terms_of_four": Exercise(
        judge_numbers(
            (1.0, -1.0, 0.0, 0.0),
            [
                (
                    (1.5, -0.5, -0.5, -0.5),
                    "That is (g − mean(g)) / σ. What comes back through the variance is missing.",
                ),
                (
                    (1.5, -0.5, 0.5, 0.5),
                    "What comes back through the mean is missing. The results must add up to 0.",
                ),
                (
                    (2.0, 0.0, 0.0, 0.0),
                    "That is g/σ: one term of three. What comes back through mean and variance?",
                ),
                ((2.0, -2.0, 0.0, 0.0), "The bracket is right. It is still to be divided by σ."),
                ((0.5, -0.5, 0.0, 0.0), "You divided by the variance. Divide by σ, which is 2."),
                (
                    (2.0, 0.0, -1.0, -1.0),
                    "Look at the sign of the last term: mean(g · y) is −1, and it is *subtracted*.",
                ),
            ],
        ),
        praise="(4 − 1 − 1, −1 − 1, −1 + 1, −1 + 1) / 2: its sum is 0, and so is its sum with y.",
        hint="First the two means, of g and of g · y. Then one bracket for each number.",
        solution="mean(g) = 1 and mean(g · y) = −1, so the brackets are 4 − 1 − 1, 0 − 1 − 1, "
        "0 − 1 + 1 and 0 − 1 + 1. Over σ = 2: (1, −1, 0, 0).",
    ),
    "gradients_of_weight_and_bias": Exercise(
        judge_numbers(
            (-4.0, 4.0),
            [
                ((-1.0, 1.0), "Those are means over the slice. Weight and bias get sums."),
                (
                    (-20.0, 20.0),
                    "g is met at the layer's output, after γ. On its way to γ and β it meets no γ.",
                ),
                ((-20.0, 4.0), "dβ is right. In dγ, g meets y and nothing else: no γ."),
                ((4.0, -4.0), "Swapped: dγ comes first, and it is the one with y in it."),
                ((4.0, 4.0), "dβ is right. In dγ, each g is multiplied by its y."),
            ],
        ),
        praise="Σ g · y and Σ g, whatever γ is.",
        hint="Which of the two goes in at speed y, and which at speed 1? Does γ come into it?",
        solution="dγ = Σ g · y = 4 · (−1), and dβ = Σ g = 4: (−4, 4). γ itself does not matter.",
    ),
    "batch_norm_backward": Exercise(
        judge_function(
            _backward(_PER_CHANNEL),
            _batch_norm_cases,
            [
                (
                    _backward(_PER_CHANNEL, lost=1),
                    "mean(g · y) is divided by m − 1. The variance that normalizes is the biased "
                    "one, so it is a mean: divide by m.",
                ),
                (
                    _backward(_PER_CHANNEL, before=0),
                    "γ is missing: what reaches y is γ · g.",
                ),
                (_backward(_PER_CHANNEL, after=1), "γ is used twice."),
                (
                    _backward(_PER_CHANNEL, along=0),
                    "One term is missing: what comes back through the variance.",
                ),
                (
                    _backward(_PER_CHANNEL, mean=0),
                    "One term is missing: what comes back through the mean.",
                ),
                (
                    _backward(_PER_CHANNEL, means_over=(0,)),
                    "The two means are over n alone. The slice of a channel has n and l.",
                ),
                (
                    _backward(_PER_CHANNEL, along=-1),
                    "The last term is subtracted. With a plus, the share along y doubles.",
                ),
                (_backward(_PER_CHANNEL, multiplied=False), "mean(g · y) is not multiplied by y."),
                (_backward(_PER_CHANNEL, divided=0), "σ is missing: it divides the bracket."),
            ],
            slices="n c l -> c",
        ),
        praise="Both statistics are means over n and l, as μ and the biased variance are.",
        hint="Set each line beside the formula. How many numbers does each of the two means have?",
        solution="def batch_norm_backward(g, y, sigma, gamma):\n"
        "    g = g * gamma[:, None]\n"
        "    mean_g = g.mean(dim=(0, 2), keepdim=True)\n"
        "    mean_gy = (g * y).mean(dim=(0, 2), keepdim=True)  # a mean, by m and not m - 1\n"
        "    return (g - mean_g - y * mean_gy) / sigma",
    ),
    "dx_in_eval": Exercise(
        judge_numbers(
            (3.0, -6.0),
            [
                (
                    (0.0, 0.0),
                    "So it would be in training, with two numbers. In eval nothing comes back "
                    "through mean and variance.",
                ),
                ((1.5, -3.0), "You divided by the variance. Divide by its root."),
                ((1.0, -2.0), "That is g/σ. γ is part of the slope."),
                ((6.0, -12.0), "That is g · γ. Where is σ?"),
                (
                    (4.5, -4.5),
                    "You subtracted a mean of g. That comes back through a mean that follows x.",
                ),
            ],
        ),
        praise="g · 3/√4. The running mean shifts the outputs, and no slope.",
        hint="In eval the layer is a straight line: what is its slope (lesson 06)?",
        solution="The slope is γ/σ = 3/√4 = 1.5 for every number, so dx = 1.5 · g = (3, −6).",
    ),
    "own_derivative": Exercise(
        judge_numbers(
            0.25,
            [
                (0.5, "That is γ/σ, as in eval. In training the input moves mean and σ, too."),
                (0.375, "That leaves out y²/m, what comes back through the variance."),
                (0.125, "γ is missing: it stands before the bracket."),
                (1.0, "The bracket is multiplied by γ and divided by σ."),
                (0.0625, "You divided by σ². The bracket is divided by σ."),
            ],
        ),
        praise="2/4 · (1 − 1/4 − 1/4): half of what it would be in eval.",
        hint="Which line of section 9 says it? Its parts come back through the mean and the variance.",
        solution="γ/σ · (1 − 1/m − y²/m) = 2/4 · (1 − 1/4 − 1/4) = 0.25.",
    ),
    "layer_norm_backward": Exercise(
        judge_function(
            _backward(_PER_SAMPLE),
            _layer_norm_cases,
            [
                (
                    _backward(_PER_SAMPLE, before=0, after=1),
                    "γ comes too late. In LayerNorm each number of the slice has its own, so both "
                    "means must be taken of γ · g.",
                ),
                (_backward(_PER_SAMPLE, after=1), "γ is used twice."),
                (_backward(_PER_SAMPLE, before=0), "Now γ is missing altogether."),
                (
                    _backward(_PER_SAMPLE, means_over=(0,)),
                    "These means are over n. The slices of LayerNorm are rows: over c.",
                ),
                (
                    _backward(_PER_SAMPLE, along=0),
                    "One term is missing: what comes back through the variance.",
                ),
                (
                    _backward(_PER_SAMPLE, mean=0),
                    "One term is missing: what comes back through the mean. That is RMSNorm's.",
                ),
            ],
            slices="n c -> n",
        ),
        praise="First γ · g, then the three terms: that order is right for every norm.",
        hint="The two means run along a row. Is γ the same all along it?",
        solution="def layer_norm_backward(g, y, sigma, gamma):\n"
        "    g = gamma * g  # first of all\n"
        "    mean_g = g.mean(dim=1, keepdim=True)\n"
        "    mean_gy = (g * y).mean(dim=1, keepdim=True)\n"
        "    return (g - mean_g - y * mean_gy) / sigma",
    ),
    "rms_norm_backward": Exercise(
        judge_function(
            _backward(_PER_SAMPLE, mean=0),
            _rms_norm_cases,
            [
                (
                    _backward(_PER_SAMPLE),
                    "That subtracts mean(g), as LayerNorm does. RMSNorm has no mean through which "
                    "it could come back.",
                ),
                (
                    _backward(_PER_SAMPLE, mean=0, before=0, after=1),
                    "γ comes too late: the mean must be taken of γ · g · y.",
                ),
                (_backward(_PER_SAMPLE, mean=0, before=0), "γ is missing: begin with γ · g."),
                (
                    _backward(_PER_SAMPLE, mean=0, along=0),
                    "That is one term, as if r were stored. r follows x.",
                ),
                (
                    _backward(_PER_SAMPLE, mean=0, divided=0),
                    "r is missing: it divides the bracket.",
                ),
                (
                    _backward(_PER_SAMPLE, mean=0, means_over=(0,)),
                    "That mean is over n. The slices of RMSNorm are rows: over c.",
                ),
            ],
            slices="n c -> n",
        ),
        praise="One term fewer, and γ first.",
        hint="Take f, mended, and leave out what comes back through the mean.",
        solution="def rms_norm_backward(g, y, r, gamma):\n"
        "    g = gamma * g\n"
        "    return (g - y * (g * y).mean(dim=1, keepdim=True)) / r",
    ),
}
