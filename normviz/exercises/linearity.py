"""Lesson 06: BatchNorm is not linear."""

from math import isfinite
from numbers import Real

import torch

from normviz.exercises.exercise import Exercise, Prediction
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
    """For a factor a with norm(a·x) other than norm(x): found by running norm, whichever a it is."""
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


PREDICTIONS: dict[str, Prediction] = {
    "minus_the_input": Prediction(
        "0.93, 0.46, −1.39",
        {
            "−0.93, −0.46, 1.39": "So it would be if −1 cancelled as 10 did. But σ(−x) is not "
            "−σ(x): no standard deviation is negative. Nothing turns the signs back.",
            "−0.93, −0.46, −1.39": "All three inputs are negative, the distances from their mean "
            "are not: −1 lies above the mean −3. Results always add up to 0.",
        },
        praise="The distances turn their signs; the standard deviation has none to turn.",
    ),
    "a_thousandth": Prediction(
        "it falls to 0.78",
        {
            "it stays at 1.39": "The factor cancels as long as ε is small beside the variance. "
            "Here ε is about twice as large as the variance.",
            "it falls to 0.0014": "So it would be if the divisor stayed. It shrinks as well, as "
            "far as ε lets it.",
        },
        praise="0.003 / √(0.0000047 + 0.00001): here ε is no longer small beside the variance.",
    ),
    "which_step": Prediction(
        "only centre",
        {
            "centre and share": "A sum obeys both rules, but in share it divides. Twice the "
            "numbers have twice the sum, and their shares do not double.",
            "none of the three": "x decides all three numbers. But the mean obeys both rules, and "
            "what is left when we subtract it obeys them, too.",
        },
        praise="Subtracting something linear is linear. Dividing by anything that depends on x is "
        "not, even by a sum.",
    ),
    "one_linear_part": Prediction(
        "twice norm's: γ multiplies",
        {
            "0: without β it is linear": "The last step is linear then. But the layer normalizes "
            "first, and norm has a gap.",
            "the gap of norm: γ cancels": "γ multiplies each output, on both sides of the "
            "equation. So it multiplies their difference.",
        },
        praise="The dividing leaves its gap, and γ = 2 doubles it.",
    ),
    "kind_of_eval": Prediction(
        "only affine: μ is not 0",
        {
            "linear: β is 0": "β is not the only constant. Subtracting μ = 5 moves the line as "
            "well: what does this layer make of 0?",
            "neither: it divides by σ": "In eval that is a stored number, which x does not decide. "
            "Dividing by a fixed number is linear.",
        },
        praise="Fixed numbers make a straight line, and μ keeps this one from going through 0.",
    ),
    "fold_in_training": Prediction(
        "whenever BatchNorm is in eval",
        {
            "only with both in eval": "The convolution's mode does not matter: it computes the "
            "same in both. BatchNorm's mode does.",
            "always: the weights are equal": "No weight has moved, that is true. But in training "
            "BatchNorm takes the batch's μ and σ², not those that were folded in.",
        },
        praise="Then slope and shift are the stored ones; in training, each batch brings its own.",
    ),
    "bias_before_batchnorm": Prediction(
        "only LayerNorm's",
        {
            "only BatchNorm's": "The other way round. In BatchNorm, all numbers that share a mean "
            "have risen by the same, so the mean takes it away.",
            "both": "BatchNorm takes one mean per channel. All numbers of a channel have risen by "
            "the same, and so has their mean.",
            "neither": "So it would be if all four numbers were equal. LayerNorm subtracts one mean "
            "from all four channels, and 10, 20, 30 and 40 are not equal.",
        },
        praise="Only what is the same for all numbers of a mean is subtracted with it.",
    ),
    "detached_statistics": Prediction(
        "the bias grows, the loss stays",
        {
            "the bias stays, the loss stays": "The outputs are equal, so the loss stays. The "
            "gradient is another one: it takes μ for a constant, and so it sees a use for the bias.",
            "the bias grows, the loss falls": "So the gradient promises. But μ follows the bias "
            "in each step, and subtracts it again.",
        },
        praise="The gradient promises a gain in each step, and μ takes it back each time.",
    ),
}

EXERCISES: dict[str, Exercise] = {
    "scaled_by_minus_three": Exercise(
        judge_numbers(
            (2.0, -0.5, -0.5, -0.5, -0.5),
            [
                (
                    (6.0, -1.5, -1.5, -1.5, -1.5),
                    "That is −3 · norm(x), what a linear map would give. The 3 is divided away again.",
                ),
                (
                    (-2.0, 0.5, 0.5, 0.5, 0.5),
                    "The size is right. But a standard deviation has no sign to divide away.",
                ),
                (
                    (-6.0, 1.5, 1.5, 1.5, 1.5),
                    "That is 3 · norm(x). Which part of −3 does dividing by σ(−3·x) take away?",
                ),
                (
                    (2 / 3, -1 / 6, -1 / 6, -1 / 6, -1 / 6),
                    "You divided by −3. The distances are multiplied by −3, and σ by 3.",
                ),
            ],
        ),
        praise="norm(−3·x) = sign(−3) · norm(x) = −norm(x).",
        hint="The distances from the mean are multiplied by −3. And the standard deviation?",
        solution="(2, −0.5, −0.5, −0.5, −0.5): the distances are multiplied by −3 and σ by "
        "|−3| = 3, so every sign turns and every size stays.",
    ),
    "factor_that_refutes": Exercise(
        _judge_factor,
        praise="For a < 0 all signs turn. (Also right: 0, or an a so small that ε counts.)",
        hint="What comes out of the root of a²? When is that not a?",
        solution="Any negative number, such as -1: then √(a²) = |a| is not a, and norm(a·x) = −norm(x). "
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
                ((-1.0, 1.0), "Reversed: it is the left side minus the right side."),
                (
                    (0.7071, -0.7071),
                    "You divided by the unbiased standard deviation. The biased one normalizes.",
                ),
                (
                    (1.5, -1.5),
                    "You divided by the variance. Divide by its root.",
                ),
                ((2.0, -2.0), "Look at norm(x₁) + norm(x₂) again: −1 and 1 meet 1 and −1."),
            ],
        ),
        praise="(1, −1) on the left, (−1, 1) + (1, −1) = (0, 0) on the right.",
        hint="Of two numbers, N makes a 1 of the larger one and its opposite of the smaller one.",
        solution="norm(6, 4) = (1, −1). norm(1, 3) + norm(5, 1) = (−1, 1) + (1, −1) = (0, 0). "
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
        praise="A mean obeys both rules, and adding something linear is linear: no constant, and no division.",
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
                    "Without [:, None, None, None], torch broadcasts the slopes along the last axis, not along o.",
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
                    "The variance is fixed. The gradient still misses its way through the mean.",
                ),
                (
                    norm_over(_PER_CHANNEL, detach=("var",)),
                    "The mean is fixed. The gradient still misses its way through the variance.",
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
