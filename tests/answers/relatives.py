"""Answers to the exercises of lesson 07: the relatives."""

from math import inf, nan

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import update_bn

import normviz


def movers(layer, x, at, to=1000.0):
    """Which outputs move when one number of x becomes another."""
    other = x.clone()
    other[at] = to
    with torch.no_grad():
        return (layer(other) - layer(x)).abs() > 1e-6


def find_disturbed_by_a_factor():
    torch.manual_seed(0)
    x = torch.randn(2, 2, 3)
    layer = nn.InstanceNorm1d(2, track_running_stats=True)
    layer(x)
    change = layer.eval()(x * torch.tensor([100.0, 1])[:, None, None]) - layer(x)
    return tuple(bool(of.any()) for of in change)


def find_disturbed_channels():
    torch.manual_seed(0)
    moved = movers(nn.GroupNorm(2, 4), torch.randn(2, 4, 3), (0, 1, 0)).any(dim=2)
    return tuple(map(tuple, moved.nonzero().tolist()))


def normalize_a_shift():
    shifted = nn.RMSNorm(3)(torch.tensor([97.0, 101, 102]))
    return bool((shifted - 1).abs().max() < 0.05)


def start_of_weight_norm():
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    return torch.allclose(layer(x), weight_norm(layer)(x))


def find_windows():
    x = torch.arange(1.0, 6)[None, :, None]
    moved = movers(nn.LocalResponseNorm(3, alpha=1.0), x, (0, 0, 0))
    return tuple(moved.flatten().nonzero().flatten().tolist())


def norm_one_pixel():
    layer = normviz.FilterResponseNorm2d(4, threshold=False)
    with torch.no_grad():
        y = layer(torch.tensor([5, 0.1, -2, -300])[None, :, None, None])
    return tuple(y.flatten().round(decimals=2).tolist())


def renew_instance_norm():
    """How `update_bn` leaves an InstanceNorm that stands before a BatchNorm."""
    batches = torch.arange(24.0).reshape(2, 2, 2, 3)
    layer, trained = (nn.InstanceNorm1d(2, track_running_stats=True) for _ in range(2))
    for batch in batches:
        trained(batch)
    update_bn(batches, nn.Sequential(layer, nn.BatchNorm1d(2)))
    if torch.equal(layer.running_mean, trained.running_mean):
        return "moves them as training does"
    return (
        "leaves them as they are" if not layer.running_mean.any() else "resets them, then averages"
    )


def count_disturbed():
    torch.manual_seed(0)
    x = torch.randn(8, 12, 5, 5, dtype=torch.float64)
    return int(movers(nn.GroupNorm(3, 12).double(), x, (0, 0, 0, 0)).sum())


def find_layer_of_a_plan():
    layers = {
        "LayerNorm": nn.LayerNorm(4),
        "RMSNorm": nn.RMSNorm(4),
        "GroupNorm": nn.GroupNorm(1, 4),
        "FilterResponseNorm": normviz.FilterResponseNorm2d(4),
    }
    plans = {name: normviz.plan_of(layer, 3) for name, layer in layers.items() if name[0] != "F"}
    plans["FilterResponseNorm"] = normviz.plan_of(layers["FilterResponseNorm"], 4)
    [found] = [
        name
        for name, plan in plans.items()
        if (plan.statistic, plan.centred, plan.weight, plan.running) == ("n t", False, "c", None)
    ]
    return found


def torch_rms_norm(x, weight, eps):
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def torch_group_norm(x, groups):
    return F.group_norm(x, groups)


def forward_in_eval(x, model):
    return model.eval()(x)


TWO_THREE_SIX = torch.tensor([2.0, 3.0, 6.0])
ONE_SEVEN = torch.tensor([1.0, -7.0])
RMS_BY_TORCH = F.rms_norm(TWO_THREE_SIX, (3,), eps=0)

RIGHT_ANSWERS = {
    "tracked_instance_in_eval": {
        (False, False): "none",
        (True, False): "sample 0's alone",
        (True, True): "sample 0's and sample 1's",
    }[find_disturbed_by_a_factor()],
    "outlier_and_groups": {
        ((0, 1),): "channel 1 of sample 0",
        ((0, 0), (0, 1)): "channels 0 and 1 of sample 0",
    }[find_disturbed_channels()],
    "rms_of_a_shift": {True: "three numbers near 1", False: "what it gave before"}[
        normalize_a_shift()
    ],
    "weight_norm_at_start": {
        True: "3 and 1, as before",
        False: "0.6 and 0.3333: length 1 each",
    }[start_of_weight_norm()],
    "window_of_five": {(0,): "0 alone", (0, 1): "0 and 1", (0, 1, 2): "0, 1 and 2"}[find_windows()],
    "frn_of_one_pixel": {
        (1, 1, -1, -1): "1 or −1, for each of them",
        (0, 0, 0, 0): "0, for all four",
    }[norm_one_pixel()],
    "update_of_instance_norm": renew_instance_norm(),
    "outlier_in_groups": count_disturbed(),
    "rms_of_three": tuple(RMS_BY_TORCH.tolist()),
    "mend_rms_norm": torch_rms_norm,
    "mend_group_norm": torch_group_norm,
    "frn_of_two": tuple(F.rms_norm(ONE_SEVEN, (2,), eps=0).relu().tolist()),
    "layer_of_a_plan": find_layer_of_a_plan(),
    "mend_the_freeze": forward_in_eval,
}


def rms_norm_by_variance(x, weight, eps):
    """The lesson's own bug."""
    return weight * x / (x.var(dim=-1, correction=0, keepdim=True) + eps).sqrt()


def by_root(x, weight, square, eps, outside=0):
    return weight * x / ((square + eps) ** 0.5 + outside)


def interleaved(x, groups):
    """The lesson's own bug."""
    n, c, positions = x.shape
    split = x.reshape(n, c // groups, groups, positions)
    mean = split.mean(dim=(1, 3), keepdim=True)
    var = split.var(dim=(1, 3), correction=0, keepdim=True)
    return ((split - mean) / (var + 1e-5).sqrt()).reshape(x.shape)


def pooled_over(*dims, correction=0):
    """GroupNorm that pools other axes of (n, g, c, l)."""

    def norm(x, groups):
        split = x.reshape(len(x), groups, -1, x.shape[2])
        var, mean = torch.var_mean(split, dims, correction=correction, keepdim=True)
        return ((split - mean) / (var + 1e-5).sqrt()).reshape(x.shape)

    return norm


def freeze_only(*kinds):
    """The lesson's own bug, for some classes."""

    def forward(x, model):
        model.train()
        for layer in model.modules():
            if isinstance(layer, kinds):
                layer.eval()
        return model(x)

    return forward


LENGTH = TWO_THREE_SIX.norm()
# What people answer, and a word or two of what they are told.
WRONG_ANSWERS = {
    "outlier_in_groups": [
        (5 * 5, "one channel of one sample"),
        (3 * 5 * 5, "the number of groups"),
        (12 * 5 * 5, "the whole sample"),
        (8 * 4 * 5 * 5, "the group in all samples"),
        (8 * 5 * 5, "as in BatchNorm"),
        (8 * 12 * 5 * 5, "That is everything"),
        (4, "Each has 5 · 5 positions"),
        (1, "moves the mean and the variance"),
    ],
    "rms_of_three": [
        (tuple((TWO_THREE_SIX / LENGTH).tolist()), "divided by the length"),
        (tuple(F.layer_norm(TWO_THREE_SIX, (3,), eps=0).tolist()), "That is LayerNorm"),
        (tuple((TWO_THREE_SIX / TWO_THREE_SIX.std(correction=0)).tolist()), "around the mean"),
        (tuple((TWO_THREE_SIX / LENGTH**2 * 3).tolist()), "Take its root"),
        (tuple((TWO_THREE_SIX / LENGTH * 2**0.5).tolist()), "by m − 1"),
        (tuple((TWO_THREE_SIX / TWO_THREE_SIX.mean()).tolist()), "You divided by the mean. It"),
    ],
    "mend_rms_norm": [
        (rms_norm_by_variance, "a variance takes the mean off"),
        (lambda x, w, eps: F.layer_norm(x, x.shape[-1:], w, eps=eps), "That is LayerNorm"),
        (lambda x, w, eps: by_root(x, w, (x * x).mean(-1, True), 0, eps), "inside the root"),
        (lambda x, w, eps: torch_rms_norm(x, w, 0.0), "ε is missing"),
        (lambda x, w, eps: by_root(x, w, (x * x).sum(-1, True), eps), "divides by the length"),
        (lambda x, w, eps: w * x / ((x * x).mean(-1, True) + eps), "The root is missing"),
        (lambda x, w, eps: by_root(x, w, (x * x).mean(), eps), "for all rows"),
        (lambda x, w, eps: torch_rms_norm(x, None, eps), "The weight is missing"),
    ],
    "mend_group_norm": [
        (interleaved, "The groups interleave"),
        (pooled_over(2), "The positions are pooled, too"),
        (pooled_over(0, 2, 3), "pools the samples as well"),
        (lambda x, groups: F.instance_norm(x), "That is InstanceNorm"),
        (lambda x, groups: F.group_norm(x, 1), "as with one group"),
        (pooled_over(2, 3, correction=1), "the unbiased variance"),
    ],
    "frn_of_two": [
        (tuple(F.rms_norm(ONE_SEVEN, (2,), eps=0).tolist()), "And the threshold?"),
        (tuple(F.layer_norm(ONE_SEVEN, (2,), eps=0).relu().tolist()), "That is centred first"),
        (tuple(F.layer_norm(ONE_SEVEN, (2,), eps=0).tolist()), "That is InstanceNorm"),
        ((1 / 50**0.5, 0.0), "You divided by the length"),
        ((1 / 25, 0.0), "Divide by its root"),
        (tuple(F.rms_norm(ONE_SEVEN.relu(), (2,), eps=0).tolist()), "The threshold comes last"),
    ],
    "layer_of_a_plan": [
        ("LayerNorm", "subtracts their mean"),
        ("GroupNorm", "takes axis 1 for the channels"),
        ("FilterResponseNorm", "pools positions"),
    ],
    "mend_the_freeze": [
        (freeze_only(_BatchNorm), "It misses InstanceNorm"),
        (freeze_only(nn.Dropout), "No layer is in eval"),
        (freeze_only(nn.modules.instancenorm._InstanceNorm), "It misses BatchNorm"),
    ],
}

# Wrong answers that nobody thought of.
OTHER_ANSWERS = {
    "outlier_in_groups": [7, -100, 100.5, nan, inf, "100", (100,)],
    "rms_of_three": [(7, 7, 7), 1, (0.4949, 0.7423), "(0.4949, 0.7423, 1.4846)"],
    "mend_rms_norm": [
        lambda x, w, eps: x,
        lambda x, w, eps: torch_rms_norm(x, w, eps) + 1,
        lambda x, w, eps: "x",
        lambda x: x,
        3,
    ],
    "mend_group_norm": [
        lambda x, groups: x,
        lambda x, groups: x.mean(),
        lambda x, groups: "x",
        lambda x: x,
        3,
    ],
    "frn_of_two": [(7, 7), 1, (0.2, 0, 0), "(0.2, 0)"],
    "layer_of_a_plan": ["BatchNorm", 3, True, ("RMSNorm",)],
    "mend_the_freeze": [
        lambda x, model: x,
        lambda x, model: model,
        lambda x, model: "x",
        lambda x: x,
        3,
    ],
}

# What would give an answer away.
TELLS = {
    "outlier_in_groups": r"\b100\b",
    "rms_of_three": r"0\.4949|4\.04",
    "mend_rms_norm": r"square\(\)\.mean",
    "mend_group_norm": r"groups, c // groups",
    "frn_of_two": r"\b0\.2\b",
    "layer_of_a_plan": r"RMSNorm: Layer",
    "mend_the_freeze": r"running_var",
}
