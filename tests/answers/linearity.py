"""Answers to the exercises of lesson 06: BatchNorm is not linear."""

from math import inf, nan, sqrt

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_eval


def torch_normalize(*numbers, eps=1e-12):
    """What torch.nn's layer makes of one channel, in training."""
    layer = nn.BatchNorm1d(1, affine=False, eps=eps).double()
    return layer(torch.tensor(numbers, dtype=torch.float64)[:, None])[:, 0]


def find_refuting_factor():
    """The first factor that does not leave norm(x) as it is."""
    once = torch_normalize(1, 2, 6, eps=1e-5)
    factors = (3, 2, 0.5, -1)
    return next(
        a for a in factors if not torch_normalize(a, 2 * a, 6 * a, eps=1e-5).allclose(once, 1e-2)
    )


def find_kind(layer):
    """Linear, affine or neither: by both tests, on many random vectors."""
    generator = torch.Generator().manual_seed(0)
    x1, x2 = torch.randn(2, 100, 1, 1, 5, generator=generator, dtype=torch.float64)

    def is_closed(a, b):
        gaps = [
            layer(a * one + b * other) - a * layer(one) - b * layer(other)
            for one, other in zip(x1, x2, strict=True)
        ]
        return torch.stack(gaps).abs().max() < 1e-9

    if not is_closed(3, -2):
        return "neither"
    return "linear" if is_closed(1, 1) and is_closed(-2, 0.5) else "affine"


def make_layer(*, mean=0.0, var=1.0, weight=1.0, bias=0.0):
    layer = nn.BatchNorm1d(1, eps=1e-12).double()
    for tensor, value in (
        (layer.running_mean, mean),
        (layer.running_var, var),
        (layer.weight, weight),
        (layer.bias, bias),
    ):
        nn.init.constant_(tensor, value)
    return layer


def find_line(layer):
    """Slope and shift of a layer in eval."""
    at_0, at_1 = layer.eval()(torch.tensor([[0.0], [1.0]], dtype=torch.float64))[:, 0].tolist()
    return at_1 - at_0, at_0


def torch_fold(weight, gamma, var, eps):
    zeros = torch.zeros_like(gamma)
    folded, _ = fuse_conv_bn_weights(weight, zeros, zeros, var, eps, gamma, zeros)
    return folded.detach()


def torch_batch_norm(x):
    return nn.BatchNorm1d(x.shape[1], affine=False, dtype=x.dtype)(x)


def tell_factor(a):
    """What torch makes of a · (1, 2, 6), beside what it makes of (1, 2, 6)."""
    once = torch_normalize(1, 2, 6)
    results = torch_normalize(a, 2 * a, 6 * a)
    return [factor for factor in (1, -1, 10, 0.1) if results.allclose(factor * once)]


def find_linear_steps():
    """Of subtracting the mean, dividing by σ, and dividing by the sum."""
    steps = {
        "centre": lambda x: x - x.mean(),
        "divide": lambda x: x / x.std(correction=0),
        "share": lambda x: x / x.sum(),
    }
    return tuple(name for name, step in steps.items() if find_kind(step) == "linear")


def last_in_kilometres():
    """What torch makes of the last of (1, 2, 6) metres, given in kilometres."""
    return torch_normalize(0.001, 0.002, 0.006, eps=1e-5)[2].item()


def gap_of_sums(layer):
    x1, x2 = (torch.tensor(x).double()[:, None] for x in ([1, 2, 6], [4, 1, 1]))
    return layer(x1 + x2) - layer(x1) - layer(x2)


def who_sees_a_bias():
    """Whose output changes if each channel's numbers rise by something of their own."""
    torch.manual_seed(0)
    x = torch.randn(6, 4, dtype=torch.float64)
    layers = nn.BatchNorm1d(4).double(), nn.LayerNorm(4).double()
    rise = torch.tensor([10, 20, 30, 40])
    return tuple(not torch.allclose(layer(x + rise), layer(x), atol=1e-3) for layer in layers)


def agreements_of_folded():
    """Whether a folded layer agrees with two: both in eval, the first in training, the second."""
    torch.manual_seed(0)
    x, linear, norm = torch.randn(6, 5), nn.Linear(5, 3), nn.BatchNorm1d(3)
    folded = fuse_linear_bn_eval(linear.eval(), norm.eval())
    modes = (False, False), (True, False), (False, True)
    return tuple(
        torch.allclose(folded(x), norm.train(second)(linear.train(first)(x)), atol=1e-3)
        for first, second in modes
    )


def learn_detached_bias():
    """Losses and biases of 50 steps in which PyTorch's layer gets μ and σ² as stored numbers."""
    torch.manual_seed(0)
    x, target = torch.randn(64, 1), torch.randn(64, 1) + 3
    bias, losses, biases = torch.zeros(1, requires_grad=True), [], []
    optimizer = torch.optim.SGD([bias], lr=0.1)
    for _ in range(50):
        z = x + bias
        mean, var = z.detach().mean(0), z.detach().var(0, correction=0)
        loss = (nn.functional.batch_norm(z, mean, var) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        biases.append(bias.item())
    return losses, biases


def tell_detached():
    losses, biases = learn_detached_bias()
    if losses[-1] < 0.99 * losses[0]:
        return "the bias grows, the loss falls"
    runs = biases[-1] > 40 * biases[0] > 4
    return "the bias grows, the loss stays" if runs else "the bias stays, the loss stays"


RIGHT_ANSWERS = {
    "minus_the_input": {
        1: "−0.93, −0.46, 1.39",
        -1: "0.93, 0.46, −1.39",
    }[tell_factor(-1)[0]],
    "a_thousandth": f"it falls to {last_in_kilometres():.2f}",
    "which_step": {
        (): "none of the three",
        ("centre",): "only centre",
        ("centre", "share"): "centre and share",
    }[find_linear_steps()],
    "one_linear_part": {
        2: "twice norm's: γ multiplies",
        0: "0: without β it is linear",
        1: "the gap of norm: γ cancels",
    }[round((gap_of_sums(make_layer(weight=2)) / gap_of_sums(make_layer())).mean().item(), 6)],
    "kind_of_eval": {
        "linear": "linear: β is 0",
        "affine": "only affine: μ is not 0",
        "neither": "neither: it divides by σ",
    }[find_kind(make_layer(mean=5, var=4, weight=3).eval())],
    "fold_in_training": {
        (True, False, False): "only with both in eval",
        (True, True, False): "whenever BatchNorm is in eval",
        (True, True, True): "always: the weights are equal",
    }[agreements_of_folded()],
    "bias_before_batchnorm": {
        (True, False): "only BatchNorm's",
        (False, True): "only LayerNorm's",
        (True, True): "both",
        (False, False): "neither",
    }[who_sees_a_bias()],
    "detached_statistics": tell_detached(),
    "scaled_by_minus_three": tuple(torch_normalize(6, -1.5, -1.5, -1.5, -1.5).tolist()),
    "factor_that_refutes": find_refuting_factor(),
    "gap_of_a_sum": torch_normalize(6, 4) - torch_normalize(1, 3) - torch_normalize(5, 1),
    "kind_without_running_statistics": find_kind(
        nn.BatchNorm1d(1, affine=False, track_running_stats=False).eval()
    ),
    "kind_of_adding_the_mean": find_kind(lambda x: x + 3 * x.mean()),
    "kind_in_eval": find_kind(make_layer(mean=2, weight=3, bias=6).eval()),
    "slope_and_shift": find_line(make_layer(mean=3, var=4, weight=2, bias=1)),
    "fold_weight": torch_fold,
    "gradient_of_normalize": torch_batch_norm,
}


def fold_without_root(weight, gamma, var, eps):
    """The lesson's own bug."""
    slope = gamma / (var + eps)
    return slope[:, None, None, None] * weight


def normalize_under_no_grad(x):
    """The lesson's own bug."""
    with torch.no_grad():
        mean = x.mean(dim=(0, 2), keepdim=True)
        var = x.var(dim=(0, 2), keepdim=True, correction=0)
    return (x - mean) / (var + 1e-5).sqrt()


def normalize_with_mean_detached(x):
    mean = x.mean(dim=(0, 2), keepdim=True)
    return (x - mean.detach()) / (x.var(dim=(0, 2), keepdim=True, correction=0) + 1e-5).sqrt()


def normalize_with_var_detached(x):
    std = (x.var(dim=(0, 2), keepdim=True, correction=0) + 1e-5).sqrt()
    return (x - x.mean(dim=(0, 2), keepdim=True)) / std.detach()


def normalize_unbiased(x):
    std = (x.var(dim=(0, 2), keepdim=True) + 1e-5).sqrt()
    return (x - x.mean(dim=(0, 2), keepdim=True)) / std


def by_output(slope):
    return slope[:, None, None, None]


# What people answer, and a word or two of what they are told.
WRONG_ANSWERS = {
    "scaled_by_minus_three": [
        ((6, -1.5, -1.5, -1.5, -1.5), "what a linear map would give"),
        ((-2, 0.5, 0.5, 0.5, 0.5), "The size is right"),
        ((-6, 1.5, 1.5, 1.5, 1.5), "Which part of −3"),
        (tuple(torch_normalize(-2, 0.5, 0.5, 0.5, 0.5) / -3), "You divided by −3"),
    ],
    "factor_that_refutes": [
        (2, "σ grows with it"),
        (1, "x itself"),
        (0.5, "σ shrinks with it"),
    ],
    "gap_of_a_sum": [
        ((0, 0), "obeys the rule of sums"),
        ((-1, 1), "Reversed"),
        ((1 / sqrt(2), -1 / sqrt(2)), "the unbiased standard deviation"),
        ((1 + 0.5, -1 - 0.5), "divided by the variance"),
        ((2, -2), "meet 1 and −1"),
    ],
    "kind_without_running_statistics": [
        ("linear", "a fresh layer is linear if"),
        ("affine", "a layer is affine if"),
    ],
    "kind_of_adding_the_mean": [("affine", "not a constant"), ("neither", "by its mean only")],
    "kind_in_eval": [("affine", "compute the shift"), ("neither", "so in training")],
    "slope_and_shift": [
        ((2 / 4, 1 - 2 / 4 * 3), "Divide by its root"),
        ((1, 1 + 3), "The mean is subtracted"),
        ((1, 1), "where did μ go"),
        ((2, 1 - 2 * 3), "The division by σ is missing"),
        ((1, 1 - 3 / 2), "γ multiplies the mean as well"),
        ((1, -3), "β is still to be added"),
    ],
    "fold_weight": [
        (fold_without_root, "divides by the variance"),
        (lambda w, gamma, var, eps: torch.rsqrt(var + eps) * gamma * w, "along the last axis"),
        (lambda w, gamma, var, eps: by_output(gamma / var.sqrt()) * w, "ε is missing"),
        (lambda w, gamma, var, eps: by_output(gamma / (var**0.5 + eps)) * w, "inside the root"),
        (lambda w, gamma, var, eps: by_output(gamma * (var + eps) ** 0.5) * w, "multiplies by σ"),
        (lambda w, gamma, var, eps: torch_fold(w, gamma / gamma, var, eps), "γ is missing"),
    ],
    "gradient_of_normalize": [
        (normalize_under_no_grad, "The output is right"),
        (normalize_with_mean_detached, "its way through the mean"),
        (normalize_with_var_detached, "its way through the variance"),
        (lambda x: torch_batch_norm(x.detach()), "no gradient reaches x"),
        (normalize_unbiased, "the unbiased one"),
    ],
}

# Wrong answers that nobody thought of.
OTHER_ANSWERS = {
    "scaled_by_minus_three": [(2, 2, 2, 2, 2), 2, (2, -0.5), "-N(x)"],
    "factor_that_refutes": [nan, inf, "-1", (-1, -1), torch.tensor([-1.0, -1.0]), True, -1 + 0j],
    "gap_of_a_sum": [(7, 7), 1, (1, -1, 0), "(1, -1)"],
    "kind_without_running_statistics": ["nonlinear", 3, True],
    "kind_of_adding_the_mean": ["matrix", 0, ("linear",)],
    "kind_in_eval": ["constant", None.__class__, False],
    "slope_and_shift": [(7, 7), 1, "y = x - 2"],
    "fold_weight": [
        lambda w, gamma, var, eps: w,
        lambda w, gamma, var, eps: gamma,
        lambda w: w,
        lambda w, gamma, var, eps: "w",
        3,
    ],
    "gradient_of_normalize": [
        lambda x: x,
        lambda x: torch_batch_norm(x) + 1,
        lambda x: torch_batch_norm(x).sum(),
        lambda x: x.tolist(),
        lambda x: "x",
        lambda: 1,
        3,
    ],
}

# What would give an answer away.
TELLS = {
    "scaled_by_minus_three": r"\(2, −0\.5",
    "factor_that_refutes": r"negative|< 0",
    "gap_of_a_sum": r"\(1, −1\)",
    "kind_without_running_statistics": r"\bNeither\b",
    "kind_of_adding_the_mean": r"\bLinear\b",
    "kind_in_eval": r"\bLinear\b",
    "slope_and_shift": r"\(1, −2\)|= −2",
    "fold_weight": r"eps\)\.sqrt",
    "gradient_of_normalize": r"no torch\.no_grad",
}
