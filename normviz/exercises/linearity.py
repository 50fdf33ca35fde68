"""Lesson 06: BatchNorm is not linear."""

from math import isfinite
from numbers import Real

import torch

from normviz.exercises.exercise import Exercise
from normviz.exercises.norms import norm_over
from normviz.judging import Verdict, judge_choice, judge_function, judge_numbers, not_yet

_X = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)  # the lesson's first vector
_PER_CHANNEL = (0, 2)  # of (N, C, L)
_norm = norm_over([0])


def _as_factor(answer) -> float | None:
    if isinstance(answer, bool) or not isinstance(answer, Real | torch.Tensor):
        return None
    try:
        factor = float(answer)
    except Exception:  # of a tensor with more than one number, say
        return None
    return factor if isfinite(factor) else None


def _judge_factor(answer) -> Verdict | None:
    """For a factor a with N(a·x) other than N(x): found by running N, whichever a it is."""
    factor = _as_factor(answer)
    if factor is None:
        return not_yet("The answer is one finite number.")
    if factor == 1:
        return not_yet("1 · x is x itself, so nothing can change.")
    if factor > 1:
        return not_yet("x grows, and σ grows with it by the same factor. The quotient stays.")
    if torch.allclose(_norm(factor * _X), _norm(_X), atol=0.005):
        return not_yet("x shrinks, and σ shrinks with it by the same factor. The quotient stays.")
    return None


def _fold_cases() -> list[tuple]:
    """Weight, γ, variance and ε; one channel has hardly varied at all, so that ε counts."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for shape in ((3, 2, 3, 3), (4, 3, 2, 5)):
        weight = torch.randn(shape, generator=generator)
        gamma = torch.randn(shape[0], generator=generator)
        var = 3 * torch.rand(shape[0], generator=generator) + 2
        var[-1] = 0.02
        cases.append((weight, gamma, var, 0.01))
    return cases


def _along_outputs(slope: torch.Tensor) -> torch.Tensor:
    return slope[:, None, None, None]


def _fold_weight(weight, gamma, var, eps):
    return _along_outputs(gamma / (var + eps).sqrt()) * weight


def _gradient_cases() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2, 4), (4, 3, 2)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _input_gradient(function, x):
    """The gradient that reaches x from a loss in which each output has a weight of its own."""
    leaf = x.requires_grad_()
    y = function(leaf.clone())
    if not isinstance(y, torch.Tensor) or y.shape != x.shape:
        return y
    if not y.requires_grad:
        return torch.zeros_like(x)
    loss = (torch.arange(y.numel()).reshape(y.shape).cos() * y.square()).sum()
    loss.backward()
    return leaf.grad


EXERCISES: dict[str, Exercise] = {
    "scaled_by_minus_three": Exercise(
        judge_numbers(
            (2.0, -0.5, -0.5, -0.5, -0.5),
            [
                (
                    (6.0, -1.5, -1.5, -1.5, -1.5),
                    "That is −3 · N(x), what a linear map would give. The 3 is divided away again.",
                ),
                (
                    (-2.0, 0.5, 0.5, 0.5, 0.5),
                    "The size is right. But a standard deviation has no sign to divide away.",
                ),
                (
                    (-6.0, 1.5, 1.5, 1.5, 1.5),
                    "That is 3 · N(x). Which part of −3 does dividing by σ(−3·x) take away?",
                ),
                (
                    (2 / 3, -1 / 6, -1 / 6, -1 / 6, -1 / 6),
                    "You divided by −3. The distances are multiplied by −3, and σ by 3.",
                ),
            ],
        ),
        praise="N(−3·x) = sign(−3) · N(x) = −N(x).",
        hint="The distances from the mean are multiplied by −3. And the standard deviation?",
        solution="(2, −0.5, −0.5, −0.5, −0.5): the distances are multiplied by −3 and σ by "
        "|−3| = 3, so every sign turns and every size stays.",
    ),
    "factor_that_refutes": Exercise(
        _judge_factor,
        praise="For a < 0 all signs turn. (Also right: 0, or an a so small that ε counts.)",
        hint="What comes out of the root of a²? When is that not a?",
        solution="Any negative number, such as -1: then √(a²) = |a| is not a, and N(a·x) = −N(x). "
        "0 gives 0, and an a that makes σ as small as √ε shrinks the output.",
    ),
    "gap_of_a_sum": Exercise(
        judge_numbers(
            (1.0, -1.0),
            [
                (
                    (0.0, 0.0),
                    "That would be a map that obeys the rule of sums. Compute both sides.",
                ),
                ((-1.0, 1.0), "The other way round: left side minus right side."),
                (
                    (0.7071, -0.7071),
                    "You divided by the unbiased standard deviation. The biased one normalizes.",
                ),
                (
                    (1.5, -1.5),
                    "You divided by the variance. Divide by its root.",
                ),
                ((2.0, -2.0), "Look at N(x₁) + N(x₂) again: −1 and 1 meet 1 and −1."),
            ],
        ),
        praise="(1, −1) on the left, (−1, 1) + (1, −1) = (0, 0) on the right.",
        hint="Of two numbers, N makes a 1 of the larger one and its opposite of the smaller one.",
        solution="N(6, 4) = (1, −1). N(1, 3) + N(5, 1) = (−1, 1) + (1, −1) = (0, 0). "
        "The gap is (1, −1): a proof without a single root.",
    ),
    "kind_without_running_statistics": Exercise(
        judge_choice(
            "neither",
            {
                "linear": "In eval, a fresh layer is linear if it has running statistics. This one has none.",
                "affine": "In eval, a layer is affine if it has running statistics. This one has none.",
            },
        ),
        praise="Without running statistics, eval takes those of the batch, as training does.",
        hint="Where does this layer take μ and σ² from in eval? Lesson 05 has the table.",
        solution="Neither. There are no running statistics, so x decides the σ that divides it, "
        "in eval as in training.",
    ),
    "kind_of_adding_the_mean": Exercise(
        judge_choice(
            "linear",
            {
                "affine": "What is added is not a constant: for 2·x it is twice as large. Is there a shift at all?",
                "neither": "x decides what is added, but by its mean only. Does a mean obey the two rules?",
            },
        ),
        praise="A mean obeys both rules, so what is added follows x: no constant, and no division.",
        hint="Is the mean of x₁ + x₂ the sum of the means? Is the mean of a·x a times the mean?",
        solution="Linear. Both x and mean(x) obey the two rules, so x + 3 · mean(x) does. It is a "
        "matrix: 1 on the diagonal, plus 3/m everywhere.",
    ),
    "kind_in_eval": Exercise(
        judge_choice(
            "linear",
            {
                "affine": "In general, yes. But compute the shift of this one: β − slope · μ.",
                "neither": "That is so in training. Here μ and σ² are stored: x does not decide them.",
            },
        ),
        praise="slope = 3 / √1 = 3 and shift = 6 − 3 · 2 = 0.",
        hint="Write the layer as slope · x + shift, with numbers.",
        solution="Linear. slope = 3 / √1 = 3, and shift = β − slope · μ = 6 − 3 · 2 = 0: y = 3 · x.",
    ),
    "slope_and_shift": Exercise(
        judge_numbers(
            (1.0, -2.0),
            [
                ((0.5, -0.5), "You divided by the variance. Divide by its root."),
                ((1.0, 4.0), "The slope is right. The mean is subtracted: β − slope · μ."),
                ((1.0, 1.0), "The slope is right. The shift is more than β: where did μ go?"),
                ((2.0, -5.0), "That is γ and β − γ · μ. The division by σ is missing."),
                ((1.0, -0.5), "γ multiplies the mean as well: β − slope · μ, not β − μ/σ."),
                ((1.0, -3.0), "That is −slope · μ. β is still to be added."),
            ],
        ),
        praise="slope = 2 / √4, shift = 1 − 1 · 3.",
        hint="(x − μ) / σ · γ + β: multiply it out. What stands before x? What stands alone?",
        solution="slope = γ/σ = 2/2 = 1, and shift = β − slope · μ = 1 − 3 = −2: y = x − 2, "
        "that is (1, −2).",
    ),
    "fold_weight": Exercise(
        judge_function(
            _fold_weight,
            _fold_cases,
            [
                (
                    lambda w, gamma, var, eps: _along_outputs(gamma / (var + eps)) * w,
                    "That divides by the variance. The layer divides by its root.",
                ),
                (
                    lambda w, gamma, var, eps: gamma / (var + eps).sqrt() * w,
                    "Without [:, None, None, None], torch lays the slopes along the last axis, not along o.",
                ),
                (
                    lambda w, gamma, var, eps: _along_outputs(gamma / var.sqrt()) * w,
                    "ε is missing. See the last channel, which has a tiny variance.",
                ),
                (
                    lambda w, gamma, var, eps: _along_outputs(gamma / (var.sqrt() + eps)) * w,
                    "ε stands inside the root. See the last channel, which has a tiny variance.",
                ),
                (
                    lambda w, gamma, var, eps: _along_outputs(gamma * (var + eps).sqrt()) * w,
                    "That multiplies by σ. The layer divides by it.",
                ),
                (
                    lambda w, gamma, var, eps: w / _along_outputs((var + eps).sqrt()),
                    "γ is missing: it is part of the slope.",
                ),
            ],
            slices="o i h w -> o",
        ),
        praise="Each output channel's weights, times γ / √(σ² + ε) of that channel.",
        hint="Compare the slope with that of section 7, sign by sign.",
        solution="def fold_weight(weight, gamma, var, eps):\n"
        "    slope = gamma / (var + eps).sqrt()  # the root was missing\n"
        "    return slope[:, None, None, None] * weight",
    ),
    "gradient_of_normalize": Exercise(
        judge_function(
            norm_over(_PER_CHANNEL),
            _gradient_cases,
            [
                (
                    norm_over(_PER_CHANNEL, detach=("mean", "var")),
                    "The output is right, its gradient (below) is not: none flows through mean and var, as if they were constants.",
                ),
                (
                    norm_over(_PER_CHANNEL, detach=("mean",)),
                    "The variance is mended. The gradient still misses its way through the mean.",
                ),
                (
                    norm_over(_PER_CHANNEL, detach=("var",)),
                    "The mean is mended. The gradient still misses its way through the variance.",
                ),
                (
                    lambda x: norm_over(_PER_CHANNEL)(x.detach()),
                    "Now no gradient reaches x at all.",
                ),
                (
                    norm_over(_PER_CHANNEL, correction=1),
                    "The gradient flows, but the variance is the unbiased one.",
                ),
            ],
            slices="n c l -> c",
            observe=_input_gradient,
        ),
        praise="x moves μ and σ², and the gradient knows.",
        hint="What does `with torch.no_grad():` do to all that is computed under it?",
        solution="def normalize_channels(x):\n"
        "    mean = x.mean(dim=(0, 2), keepdim=True)  # no torch.no_grad() around these two\n"
        "    var = x.var(dim=(0, 2), keepdim=True, correction=0)\n"
        "    return (x - mean) / (var + 1e-5).sqrt()",
    ),
}
