"""Answers to the exercises of lesson 10: your own model."""

from copy import deepcopy
from math import inf, nan, sqrt

import torch
from torch import nn
from torch.optim.swa_utils import update_bn


def is_gone(function, change):
    """Whether a change of the input changes no output."""
    torch.manual_seed(0)
    x = torch.randn(3, 4, 3, dtype=torch.float64)
    return torch.allclose(function(change(x)), function(x), atol=1e-4)


def unbiased(x):
    return (x - x.mean((0, 2), True)) / (x.var((0, 2), keepdim=True) + 1e-5).sqrt()


def weighted(x):
    return nn.functional.batch_norm(x, None, None, training=True) * sqrt(8 / 9)


def square(function, samples, by=1.0):
    """The mean square of the outputs, to three digits."""
    torch.manual_seed(0)
    x = by * torch.randn(samples, 4, 3, dtype=torch.float64)
    return round(function(x).square().mean().item(), 3)


def experiments_that_tell():
    """By which a weight and an unbiased variance give different outputs."""
    return {
        name
        for name, args in (("all numbers times 3", (3, 3.0)), ("twice as many samples", (6,)))
        if square(unbiased, *args) != square(weighted, *args)
    }


def gradient_of_padding():
    padding = torch.zeros(12, requires_grad=True)
    y = (padding - padding.mean()) / (padding.var(correction=0).sqrt() + 1e-3)
    y[0].backward()
    return padding.grad.isnan().all().item()


def changed_by_training():
    """What a frozen body keeps not, in a loop that calls train()."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).requires_grad_(False).eval()
    before = deepcopy(body.state_dict())
    body.train()(torch.randn(5, 2))
    body.eval()
    return tuple(
        any(not torch.equal(tensor, before[name]) for name, tensor in tensors)
        for tensors in (body.named_parameters(), body.named_buffers())
    )


def statistics_of_an_average():
    model, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model(torch.randn(5, 2) + 7)
    for own, other in zip(average.parameters(), model.parameters(), strict=True):
        own.data.lerp_(other.data, 0.05)
    return average.running_mean.tolist(), average.running_var.tolist()


def off_in_eval():
    """How far each domain's outputs have a mean other than 0, in eval."""
    bn = nn.BatchNorm1d(1).double()
    domains = torch.tensor([[-1.0], [1.0]]).double(), torch.tensor([[29.0], [31.0]]).double()
    for _ in range(100):
        for domain in domains:
            bn(domain)
    return tuple(bn.eval()(domain).mean().abs().item() > 1 for domain in domains)


def first_nan():
    """In eval, with a negative running variance, which numbers are nan."""
    bn = nn.BatchNorm1d(1).eval()
    bn.running_var.fill_(-1.0)
    return (bn.running_var + bn.eps).sqrt().isnan().item() and bn(torch.ones(1, 1)).isnan().item()


def pooled_by(layer, x):
    """How many outputs move with the first number."""
    moved = x.clone()
    moved.view(-1)[0] += 1
    return (layer(moved) - layer(x)).abs().gt(1e-9).sum().item()


def means_in_a_box():
    x = torch.randn(4, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    [layer] = [
        layer
        for layer in (nn.GroupNorm(groups, 6).double() for groups in (1, 2, 3, 6))
        if pooled_by(layer, x) == 15
    ]
    return x.numel() // pooled_by(layer, x)


def weight_of_a_box():
    """The one with which both counts give the mean square that was seen."""
    torch.manual_seed(0)
    weights = set()
    for count, seen in ((5, 3.2), (10, 3.6)):
        x = torch.randn(count).double()
        weights.add(round((seen / ((x - x.mean()) / x.std()).square().mean().item()) ** 0.5, 6))
    [weight] = weights
    return weight


def torch_moved(x, layer, place):
    """By autograd: an output depends on the number, or it does not."""
    layer = deepcopy(layer).double()
    x = x.double().requires_grad_()
    slope = torch.autograd.functional.jacobian(layer, x)[..., *place]
    return (slope.abs() > 1e-9).int()


def moved_by_alias(x, layer, place):
    """The lesson's own bug."""
    other = x
    other[place] += 1
    layer = deepcopy(layer)
    return ((layer(other) - layer(x)).abs() > 1e-6).int()


def moved_in(mode):
    return lambda x, layer, place: torch_moved(x, deepcopy(layer).train(mode), place)


def moved_from_zeros(x, layer, place):
    other = torch.zeros_like(x)
    other[place] = 1
    return ((deepcopy(layer)(other) - deepcopy(layer)(x)).abs() > 1e-6).int()


def moved_without_a_copy(x, layer, place):
    other = x.clone()
    other[place] += 1
    return ((layer(other) - layer(x)).abs() > 1e-6).int()


def moved_in_eval_for_good(x, layer, place):
    layer.eval()
    return torch_moved(x, layer, place)


def torch_batch_norm(x, eps):
    return nn.functional.batch_norm(x, None, None, training=True, eps=eps)


def norm(x, eps, mean=(0, 2), var=(0, 2), correction=0, outside=False):
    mean, var = x.mean(mean, True), x.var(var, correction=correction, keepdim=True)
    return (x - mean) / ((var.sqrt() + eps) if outside else (var + eps).sqrt())


def torch_average(x, one, other):
    average = deepcopy(one)
    for own, second in zip(average.parameters(), other.parameters(), strict=True):
        own.data = (own.data + second.data) / 2
    update_bn([x], average)
    return average.eval()(x)


def average_fed_first(x, one, other):
    """The lesson's own bug."""
    average = deepcopy(one)
    update_bn([x], average)
    for own, second in zip(average.parameters(), other.parameters(), strict=True):
        own.data = (own.data + second.data) / 2
    return average.eval()(x)


def average_alone(x, one, other, tensors=nn.Module.parameters, passes=0, training=False):
    average = deepcopy(one)
    for own, second in zip(tensors(average), tensors(other), strict=True):
        own.data.copy_((own.data + second.data) / 2)
    for _ in range(passes):
        average.train()(x)
    return average.train(training)(x)


def parameters_and_buffers(model):
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


def running_mean_of(means, steps=1000, momentum=0.1):
    bn = nn.BatchNorm1d(1, momentum=momentum).double()
    for _ in range(steps):
        for mean in means:
            bn(torch.tensor([[mean - 1.0], [mean + 1.0]], dtype=torch.float64))
    return bn.running_mean.item()


def depends_on_mates(**argument):
    """Whether a prediction does, in eval."""
    torch.manual_seed(0)
    x = torch.randn(4, 2, 3, 3) + 5
    layer = nn.BatchNorm2d(2, **argument)
    layer(x)
    layer.eval()
    return not torch.allclose(layer(x)[:1], layer(x[:2])[:1])


SETTINGS = ({"affine": False}, {"eps": 0.1}, {"momentum": None}, {"track_running_stats": False})


def settings_that_depend_on_mates():
    return [
        f"{name}={value}"
        for setting in SETTINGS
        for name, value in setting.items()
        if depends_on_mates(**setting)
    ]


def cured(points, model):
    """By a forward pass of each place's own."""
    model = deepcopy(model)
    model[4] = nn.BatchNorm1d(16)
    model[4].load_state_dict(model[1].state_dict())
    for layer in (model[1], model[4]):
        layer.reset_running_stats()
        layer.momentum = 1.0
    model.train()(points)
    return model


def cured_by_new_statistics(points, model):
    update_bn(points.split(64), model)
    return model


def cured_by_two_norms(points, model):
    model[4] = deepcopy(model[1])
    return model


def cured_by_batch_mates(points, model):
    for layer in (model[1], model[4]):
        layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    return model


FIVE, THREE = (lambda x: x + 5), (lambda x: 3 * x)

RIGHT_ANSWERS = {
    "what_a_shift_shows": {
        (True, False): "neither: a factor might stay",
        (True, True): "it normalizes, and is centred",
    }[tuple(is_gone(lambda x: x.softmax(1), change) for change in (FIVE, THREE))],
    "weight_or_variance": {
        frozenset(): "none",
        frozenset({"all numbers times 3"}): "all numbers times 3",
        frozenset({"twice as many samples"}): "twice as many samples",
    }[frozenset(experiments_that_tell())],
    "a_slope_per_channel": {
        (1, 1): "either is possible",
        (1, 4): "a BatchNorm in eval",
        (9, 1): "no normalization: nothing is pooled",
    }[
        pooled_by(nn.BatchNorm1d(4).eval().double(), torch.randn(3, 4, 3).double()),
        pooled_by(nn.Conv1d(4, 4, 1, groups=4).double(), torch.randn(3, 4, 3).double()),
    ],
    "gradient_of_padding": {True: "nan", False: "0: the output is 0, too"}[gradient_of_padding()],
    "what_a_freeze_forgets": {
        (True, True): "both",
        (True, False): "weights of the body",
        (False, True): "running statistics",
        (False, False): "nothing but the mode",
    }[changed_by_training()],
    "statistics_of_an_average": {
        True: "0 and 1",
        False: "an average of the model's",
    }[statistics_of_an_average() == ([0, 0], [1, 1])],
    "two_domains_in_eval": {
        (False, False): "good on both",
        (False, True): "good on home",
        (True, False): "good on away",
        (True, True): "bad on both",
    }[off_in_eval()],
    "where_nan_comes_up": {True: "the root of a variance"}[first_nan()],
    "means_in_a_box": means_in_a_box(),
    "weight_of_a_box": weight_of_a_box(),
    "eps_of_a_box": ((2 / 0.5) ** 2 - 4, 2 / 0.5 - 2),
    "mend_the_experiment": torch_moved,
    "mend_my_batch_norm": torch_batch_norm,
    "mend_the_average": torch_average,
    "running_mean_of_two_domains": running_mean_of([0, 10]),
    "cause_of_a_symptom": ", ".join(settings_that_depend_on_mates()),
    "cure_a_patient": cured,
}

# What people answer, and a word or two of what they are told.
WRONG_ANSWERS = {
    "means_in_a_box": [
        (2, "how many samples"),
        (3, "how many channels"),
        (15, "how many numbers"),
        (12, "three channels"),
        (24, "one per sample and channel"),
        (4, "one per sample."),
        (6, "one per channel"),
    ],
    "weight_of_a_box": [
        (4, "That is γ²"),
        (sqrt(3.2), "ten numbers would give 3.2"),
        (sqrt(3.6), "five numbers would give 3.6"),
        (3.2, "mean square of five"),
        (3.6, "mean square of ten"),
        (sqrt(3.2 * 4 / 5), "is in the 3.2 already"),
    ],
    "eps_of_a_box": [
        ((2, 12), "Swapped"),
        ((12, 12), "Outside, ε is added"),
        ((2, 2), "Inside, ε is added"),
        ((4, 2), "root of 4 + ε"),
        ((16, 4), "whole divisors"),
        ((0, 1.5), "took 0.5"),
    ],
    "mend_the_experiment": [
        (moved_by_alias, "second name"),
        (moved_in(True), "put into training"),
        (moved_in(False), "put into eval"),
        (moved_from_zeros, "Other numbers were changed"),
        (moved_without_a_copy, "remembers them"),
    ],
    "mend_my_batch_norm": [
        (lambda x, eps: norm(x, eps, 0, 0), "n alone"),
        (lambda x, eps: norm(x, eps, var=0), "variance is still"),
        (lambda x, eps: norm(x, eps, mean=0), "mean is still"),
        (lambda x, eps: norm(x, eps, correction=1), "unbiased"),
        (lambda x, eps: norm(x, eps, 2, 2), "InstanceNorm"),
        (lambda x, eps: norm(x, eps, (1, 2), (1, 2)), "one mean per sample"),
        (lambda x, eps: norm(x, eps, (0, 1, 2), (0, 1, 2)), "for everything"),
        (lambda x, eps: norm(x, eps, outside=True), "inside the root"),
    ],
    "mend_the_average": [
        (average_fed_first, "taken before"),
        (average_alone, "`one` has stored"),
        (lambda *given: average_alone(*given, tensors=parameters_and_buffers), "neither model"),
        (lambda *given: average_alone(*given, training=True), "in training"),
        (lambda *given: average_alone(*given, passes=1), "momentum 0.1"),
    ],
    "running_mean_of_two_domains": [
        (5, "the middle"),
        (0.9 * running_mean_of([0, 10]), "between the two"),
        (10, "momentum 1"),
        (running_mean_of([0, 10], steps=1), "after the first step"),
        (running_mean_of([0, 10], momentum=0.9), "Reversed"),
    ],
    "cause_of_a_symptom": [
        ("affine=False", "γ and β"),
        ("eps=0.1", "by as much"),
        ("momentum=None", "stands still"),
    ],
    "cure_a_patient": [
        (cured_by_new_statistics, "served two places"),
        (cured_by_two_norms, "the old mix"),
        (cured_by_batch_mates, "another class"),
        (lambda points, model: 3, "a model is to be returned"),
    ],
}

# Wrong answers that nobody thought of.
OTHER_ANSWERS = {
    "means_in_a_box": [120, 8.5, "8", nan],
    "weight_of_a_box": [0.7, -2, inf],
    "eps_of_a_box": [(1, 1), 12, (12, 2, 0), "(12, 2)"],
    "mend_the_experiment": [lambda x, layer, place: x, moved_in_eval_for_good],
    "mend_my_batch_norm": [lambda x, eps: x, lambda x, eps: norm(x, eps + 1)],
    "mend_the_average": [lambda x, one, other: x, lambda x, one, other: other.eval()(x)],
    "running_mean_of_two_domains": [6, 0, "5.263"],
    "cause_of_a_symptom": ["reused", 3, True],
    "cure_a_patient": [lambda points, model: model[0], lambda points, model: nn.Identity()],
}

# What would give the answer away.
TELLS = {
    "means_in_a_box": r"\b8\b",
    "weight_of_a_box": r"\b2\b",
    "eps_of_a_box": r"12, 2",
    "mend_the_experiment": r"clone",
    "mend_my_batch_norm": r"dim=\(0, 2\)",
    "mend_the_average": r"after the weights",
    "running_mean_of_two_domains": r"5\.263|0\.19",
    "cause_of_a_symptom": r"track_running_stats=False:",
    "cure_a_patient": r"model\[4\]",
}
