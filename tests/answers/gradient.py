"""Answers to the exercises of lesson 08: the gradient."""

from math import inf, nan, sqrt

import torch
from torch import nn

DOUBLE = {"dtype": torch.float64}
THREE = torch.tensor([[1.0], [2.0], [6.0]], **DOUBLE)
FIRST = torch.tensor([[3.0], [0.0], [0.0]], **DOUBLE)


def gradient(layer, x, g):
    """What autograd brings to x, from g at the layer's output."""
    leaf = x.detach().clone().requires_grad_()
    (g * layer(leaf)).sum().backward()
    return leaf.grad


def batch_norm(*, weight=1.0, eps=1e-12):
    layer = nn.BatchNorm1d(1, eps=eps, **DOUBLE)
    nn.init.constant_(layer.weight, weight)
    return layer


def shrinks_to():
    """By what dx is multiplied when x doubles."""
    once, twice = (gradient(batch_norm(), factor * THREE, FIRST) for factor in (1, 2))
    return next(factor for factor in (1, 2, 0.5) if torch.allclose(twice, factor * once))


def doubled_by_gamma():
    """Whether dx and dγ double when γ does."""
    found = []
    for weight in (1.0, 2.0):
        layer = batch_norm(weight=weight)
        found.append((gradient(layer, THREE, FIRST), layer.weight.grad))
    return tuple(torch.allclose(two, 2 * one) for one, two in zip(*found, strict=True))


def gradient_of_sum():
    d, y = gradient(batch_norm(), THREE, torch.ones_like(THREE)), batch_norm()(THREE)
    sigma = THREE.std(correction=0)
    kinds = {"0 each": 0 * y, "1/σ each": (0 * y + 1) / sigma, "1/σ · y": y / sigma}
    return next(name for name, wanted in kinds.items() if torch.allclose(d, wanted, atol=1e-6))


def gradient_of_pair():
    x, g = THREE[[0]], FIRST[:2]
    d = gradient(batch_norm(eps=1e-5), torch.cat([x, x + 2]), g)[:, 0]
    kinds = {"nearly (0, 0)": (0, 0), "(3, 0)": (3, 0), "(1.5, −1.5)": (1.5, -1.5)}
    return next(
        name
        for name, wanted in kinds.items()
        if torch.allclose(d, torch.tensor(wanted, **DOUBLE), atol=1e-4)
    )


def relative_step():
    """|dw| / |w| of a weight before BatchNorm when the weight is ten times as large."""
    torch.manual_seed(0)
    x, w, g = torch.randn(16, 5, **DOUBLE), torch.randn(1, 5, **DOUBLE), torch.randn(16, 1)
    once, tenfold = (
        gradient(lambda w: batch_norm()(x @ w.T), a * w, g).norm() / (a * w).norm() for a in (1, 10)
    )
    return round((tenfold / once).item(), 6)


def gradient_in_eval():
    layer = batch_norm().eval()
    layer.running_mean.fill_(3)
    layer.running_var.fill_(14 / 3)
    first, *others = gradient(layer, THREE, FIRST)[:, 0].tolist()
    assert others == [0, 0]
    return f"({first:.4f}, 0, 0)"


def layers_with_gamma_outside():
    """For which layers dx is γ times the dx of the same layer with γ = 1."""
    torch.manual_seed(0)
    x, g, gamma = torch.randn(4, 3, **DOUBLE), torch.randn(4, 3, **DOUBLE), torch.arange(1.0, 4.0)
    found = []
    for make in (nn.BatchNorm1d, nn.LayerNorm):
        plain, layer = make(3, **DOUBLE), make(3, **DOUBLE)
        layer.weight.data.copy_(gamma)
        outside = gamma * gradient(plain, x, g)
        found.append(torch.allclose(gradient(layer, x, g), outside))
    return tuple(found)


def sums_of_rms_norm():
    """Whether Σ dx and Σ dx · y vanish."""
    x, g, layer = THREE.T, FIRST.T, nn.RMSNorm(3, eps=1e-12, **DOUBLE)
    d = gradient(layer, x, g)
    return tuple(total.abs().item() < 1e-6 for total in (d.sum(), (d * layer(x)).sum()))


FOUR = torch.tensor([[-2.0], [-2.0], [2.0], [2.0]], **DOUBLE)  # y is −1 and 1, σ is 2
OF_FOUR = torch.tensor([[4.0], [0.0], [0.0], [0.0]], **DOUBLE)


def gradients_of_parameters():
    layer = batch_norm(weight=5.0)
    gradient(layer, FOUR, OF_FOUR)
    return layer.weight.grad.item(), layer.bias.grad.item()


def dx_in_eval():
    layer = batch_norm(weight=3.0).eval()
    layer.running_mean.fill_(7)
    layer.running_var.fill_(4)
    g = torch.tensor([[2.0], [-4.0]], **DOUBLE)
    return tuple(gradient(layer, torch.tensor([[1.0], [100.0]], **DOUBLE), g)[:, 0].tolist())


def own_derivative():
    g = torch.tensor([[1.0], [0.0], [0.0], [0.0]], **DOUBLE)
    return gradient(batch_norm(weight=2.0), 2 * FOUR, g)[0].item()


def by_autograd(forward):
    """The backward pass of ``forward(y · σ)``, from γ · g, as autograd has it."""

    def backward(g, y, sigma, gamma):
        with torch.enable_grad():
            return gradient(forward, y * sigma, g * along_channels(gamma, g))

    return backward


def along_channels(gamma, g):
    return gamma[:, None] if g.ndim == 3 else gamma


def torch_batch_norm(x):
    return nn.functional.batch_norm(x, None, None, training=True)


def torch_layer_norm(x):
    return nn.functional.layer_norm(x, x.shape[1:])


def torch_rms_norm(x):
    return nn.functional.rms_norm(x, x.shape[1:], eps=1e-5)


RIGHT_ANSWERS = {
    "gradient_of_doubled": {0.5: "half as large", 1: "the same", 2: "twice as large"}[shrinks_to()],
    "gradient_of_gamma": {
        (True, False): "only dx",
        (True, True): "dx and dγ",
        (False, True): "only dγ",
    }[doubled_by_gamma()],
    "gradient_of_the_sum": gradient_of_sum(),
    "gradient_of_two": gradient_of_pair(),
    "step_of_large_weights": {0.01: "a hundredth", 0.1: "a tenth", 1: "as before"}[relative_step()],
    "gradient_in_eval": gradient_in_eval(),
    "gamma_before_or_inside": {
        (True, False): "only BatchNorm",
        (False, True): "only LayerNorm",
        (True, True): "both",
    }[layers_with_gamma_outside()],
    "sums_of_rmsnorm": {
        (False, True): "Σ dx · y",
        (True, False): "Σ dx",
        (True, True): "both",
        (False, False): "neither",
    }[sums_of_rms_norm()],
    "three_terms_of_four": tuple(gradient(batch_norm(), FOUR, OF_FOUR)[:, 0].tolist()),
    "gradients_of_weight_and_bias": gradients_of_parameters(),
    "batch_norm_backward": by_autograd(torch_batch_norm),
    "dx_in_eval": dx_in_eval(),
    "own_derivative": own_derivative(),
    "layer_norm_backward": by_autograd(torch_layer_norm),
    "rms_norm_backward": by_autograd(torch_rms_norm),
}


def divided_by_one_less(g, y, sigma, gamma):
    """The lesson's own bug."""
    g = g * gamma[:, None]
    mean_g = g.mean(dim=(0, 2), keepdim=True)
    mean_gy = (g * y).sum(dim=(0, 2), keepdim=True) / (g.shape[0] * g.shape[2] - 1)
    return (g - mean_g - y * mean_gy) / sigma


def gamma_too_late(g, y, sigma, gamma):
    """The lesson's own bug."""
    mean_g = g.mean(dim=1, keepdim=True)
    mean_gy = (g * y).mean(dim=1, keepdim=True)
    return gamma * (g - mean_g - y * mean_gy) / sigma


def three_terms(g, y, sigma, over):
    return (g - g.mean(over, keepdim=True) - y * (g * y).mean(over, keepdim=True)) / sigma


def of_channels(backward):
    """``backward(g, y, sigma)`` of γ · g."""
    return lambda g, y, sigma, gamma: backward(g * along_channels(gamma, g), y, sigma)


def mean_of(t):
    return t.mean((0, 2), keepdim=True)


# What people answer, and a word or two of what they are told.
WRONG_ANSWERS = {
    "three_terms_of_four": [
        ((3 / 2, -1 / 2, -1 / 2, -1 / 2), "through the variance is missing"),
        ((3 / 2, -1 / 2, 1 / 2, 1 / 2), "through the mean is missing"),
        ((4 / 2, 0, 0, 0), "one term of three"),
        ((2, -2, 0, 0), "still to be divided"),
        ((2 / 4, -2 / 4, 0, 0), "divided by the variance"),
        ((4 / 2, 0, -2 / 2, -2 / 2), "Look at the sign"),
    ],
    "gradients_of_weight_and_bias": [
        ((-1, 1), "Those are means"),
        ((-4 * 5, 4 * 5), "after γ"),
        ((-4 * 5, 4), "nothing else: no γ"),
        ((4, -4), "Swapped"),
        ((4, 4), "multiplied by its y"),
    ],
    "batch_norm_backward": [
        (divided_by_one_less, "divided by m − 1"),
        (lambda g, y, s, gamma: three_terms(g, y, s, (0, 2)), "γ is missing"),
        (
            lambda g, y, s, gamma: three_terms(g * gamma[:, None] ** 2, y, s, (0, 2)),
            "γ is used twice",
        ),
        (of_channels(lambda g, y, s: (g - mean_of(g)) / s), "through the variance"),
        (of_channels(lambda g, y, s: (g - y * mean_of(g * y)) / s), "through the mean"),
        (of_channels(lambda g, y, s: three_terms(g, y, s, 0)), "over n alone"),
        (of_channels(lambda g, y, s: (g - mean_of(g) + y * mean_of(g * y)) / s), "With a plus"),
        (of_channels(lambda g, y, s: (g - mean_of(g) - mean_of(g * y)) / s), "not multiplied by y"),
        (of_channels(lambda g, y, s: three_terms(g, y, 1, (0, 2))), "σ is missing"),
    ],
    "dx_in_eval": [
        ((0, 0), "with two numbers"),
        ((2 * 3 / 4, -4 * 3 / 4), "Divide by its root"),
        ((2 / sqrt(4), -4 / sqrt(4)), "γ is part of the slope"),
        ((2 * 3, -4 * 3), "Where is σ"),
        (((2 + 1) * 3 / 2, (-4 + 1) * 3 / 2), "subtracted a mean of g"),
    ],
    "own_derivative": [
        (2 / 4, "as in eval"),
        (2 / 4 * (1 - 1 / 4), "leaves out y²/m"),
        (1 / 4 * (1 - 2 / 4), "γ is missing"),
        (2 * (1 - 2 / 4), "divided by σ"),
        (2 / 16 * (1 - 2 / 4), "You divided by σ²"),
    ],
    "layer_norm_backward": [
        (gamma_too_late, "γ comes too late"),
        (lambda g, y, s, gamma: gamma_too_late(gamma * g, y, s, gamma), "γ is used twice"),
        (lambda g, y, s, gamma: three_terms(g, y, s, 1), "missing altogether"),
        (of_channels(lambda g, y, s: three_terms(g, y, s, 0)), "These means are over n"),
        (of_channels(lambda g, y, s: (g - g.mean(1, keepdim=True)) / s), "through the variance"),
        (
            of_channels(lambda g, y, s: (g - y * (g * y).mean(1, keepdim=True)) / s),
            "through the mean",
        ),
    ],
    "rms_norm_backward": [
        (of_channels(lambda g, y, s: three_terms(g, y, s, 1)), "as LayerNorm does"),
        (
            lambda g, y, s, gamma: gamma * (g - y * (g * y).mean(1, keepdim=True)) / s,
            "γ comes too late",
        ),
        (lambda g, y, s, gamma: (g - y * (g * y).mean(1, keepdim=True)) / s, "begin with γ · g"),
        (of_channels(lambda g, y, s: g / s), "as if r were stored"),
        (of_channels(lambda g, y, s: g - y * (g * y).mean(1, keepdim=True)), "r is missing"),
        (of_channels(lambda g, y, s: (g - y * (g * y).mean(0, keepdim=True)) / s), "is over n"),
    ],
}

ODD_FUNCTIONS = [
    lambda g, y, sigma, gamma: y,
    lambda g, y, sigma, gamma: sigma,
    lambda g: g,
    lambda g, y, sigma, gamma: "dx",
    3,
]

# Wrong answers that nobody thought of.
OTHER_ANSWERS = {
    "three_terms_of_four": [(7, 7, 7, 7), 1, (1, -1), "(1, -1, 0, 0)"],
    "gradients_of_weight_and_bias": [(7, 7), -4, (-4, 4, 0), "(-4, 4)"],
    "batch_norm_backward": ODD_FUNCTIONS,
    "dx_in_eval": [(7, 7), 3, (nan, nan), "(3, -6)"],
    "own_derivative": [7, (0.25, 0.25), inf, "0.25"],
    "layer_norm_backward": ODD_FUNCTIONS,
    "rms_norm_backward": ODD_FUNCTIONS,
}

# What would give an answer away.
TELLS = {
    "three_terms_of_four": r"\(1, −1, 0",
    "gradients_of_weight_and_bias": r"\(−4, 4\)",
    "batch_norm_backward": r"\(g \* y\)\.mean",
    "dx_in_eval": r"\(3, −6\)",
    "own_derivative": r"0\.25\b",
    "layer_norm_backward": r"gamma \* g\b",
    "rms_norm_backward": r"\(g - y",
}
