"""Answers to the exercises of lesson 02."""

import torch
from torch import nn
from torch.nn import functional as F

from answers.channels import find_moved

ROWS = torch.tensor([[1.0, 4, 10], [0, 3, 12], [2, 5, 5]])


def name_pattern(layer, shape, names):
    """The pattern of a layer of torch.nn: the axes that stay are those no change travels along."""
    moved = find_moved(layer, shape).nonzero()
    kept = [name for axis, name in enumerate(names.split()) if not moved[:, axis].any()]
    return f"{names} -> {' '.join(kept)}"


def name_weight_pattern(layer, shape, names):
    """The same for weights: along the axes that stay, another first weight moves nothing."""
    x = torch.randn(shape)
    before = layer(x)
    with torch.no_grad():
        layer.weight.view(-1)[0] = 100
    moved = (layer(x) != before).nonzero()
    kept = [name for axis, name in enumerate(names.split()) if not moved[:, axis].any()]
    return f"{names} -> {' '.join(kept)}"


def find_who_needs_batch_mates():
    """The layer in which an image's output moves when the other images are replaced."""
    x = torch.randn(8, 6, 5, 5)
    mates = torch.cat([x[:1], 3 + 2 * x[1:]])
    layers = {
        "BatchNorm": nn.BatchNorm2d(6),
        "GroupNorm": nn.GroupNorm(1, 6),
        "InstanceNorm": nn.InstanceNorm2d(6),
        "LayerNorm": nn.LayerNorm([6, 5, 5]),
    }
    (needs,) = (
        name
        for name, layer in layers.items()
        if not torch.allclose(layer(x)[0], layer(mates)[0], atol=1e-3)
    )
    return needs


def find_what_a_token_moves():
    """The tokens of LayerNorm(4) that change when the middle one of sentence 0 is replaced."""
    tokens = torch.randn(2, 3, 4)
    changed = tokens.clone()
    changed[0, 1] = torch.tensor([100.0, 0, 0, 0])
    moved = (nn.LayerNorm(4)(changed) != nn.LayerNorm(4)(tokens)).any(-1).nonzero().tolist()
    return {
        ((0, 0), (0, 1), (0, 2)): "all tokens of sentence 0",
        ((0, 1), (1, 1)): "the middle tokens of both sentences",
        ((0, 1),): "that token alone",
    }[tuple(map(tuple, moved))]


def find_who_ignores_a_unit():
    """The layer whose output stays when a column of a table gets another unit."""
    x = torch.randn(4, 3)
    layers = {"BatchNorm": nn.BatchNorm1d(3, eps=1e-9), "LayerNorm": nn.LayerNorm(3, eps=1e-9)}
    same = [
        name
        for name, layer in layers.items()
        if torch.allclose(layer(x), layer(x * torch.tensor([1000.0, 1, 1])), atol=1e-3)
    ]
    return same[0] if len(same) == 1 else "both of them" if same else "neither of them"


def norm(x, dim, var_dim=None, correction=0, eps=1e-5, outside=0.0):
    """A hand-written norm, to be wrong with."""
    mean = x.mean(dim, keepdim=True)
    var = x.var(dim if var_dim is None else var_dim, keepdim=True, correction=correction)
    return (x - mean) / ((var + eps) ** 0.5 + outside)


def untouched_token_norm(x):
    """As the lesson gives it."""
    mean = x.mean(dim=1, keepdim=True)
    var = x.var(dim=1, keepdim=True, correction=0)
    return (x - mean) / (var + 1e-5).sqrt()


def untouched_image_norm(x):
    """As the lesson gives it."""
    mean = x.mean()
    std = x.var(correction=0).sqrt() + 1e-5
    return (x - mean) / std


EVERY = (0, 1, 2, 3)
IMAGE = (1, 2, 3)
SQUARES = 16 + 1 + 25  # of the first row, around its mean of 5

IMAGES = torch.randn(5, 2, 3, 4)

RIGHT_ANSWERS = {
    "means_of_slices": {
        5: "5 means of 24 numbers",
        10: "10 means of 12 numbers",
        2: "2 means of 60 numbers",
    }[torch.native_layer_norm(IMAGES, [3, 4], None, None, 1e-5)[1].numel()],
    "layernorm_weights": {
        (4,): "those of a row",
        (3,): "those of a column",
        (4, 3): "none: each has its own",
    }[tuple(nn.LayerNorm(3).weight.shape)],
    "other_unit": find_who_ignores_a_unit(),
    "replaced_token": find_what_a_token_moves(),
    "layernorm_memory": "one of each per feature"
    if [*nn.LayerNorm(4).buffers()]
    else "neither of them",
    "both_fit": {
        "n c l -> n l": "four channels at one position",
        "n c l -> n c": "four positions of one channel",
        "n c l -> n": "all sixteen of one sample",
    }[name_pattern(nn.LayerNorm(4), (2, 4, 4), "n c l")],
    "pattern_of_token_weights": name_weight_pattern(nn.LayerNorm([3, 8]), (2, 3, 8), "n t c"),
    "means_before_the_last_axes": torch.native_layer_norm(
        torch.randn(8, 3, 5, 6), [5, 6], None, None, 1e-5
    )[1].numel(),
    "shape_of_layernorm_weight": tuple(nn.LayerNorm([5, 6]).weight.shape),
    "last_of_the_first_row": nn.LayerNorm(3)(ROWS)[0, 2].item(),
    "pattern_when_both_fit": name_pattern(nn.LayerNorm(16), (8, 16, 16), "n c l"),
    "who_needs_batch_mates": find_who_needs_batch_mates(),
    "mend_token_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "mend_image_norm": lambda x: F.layer_norm(x, x.shape[1:]),
}

WRONG_ANSWERS = {
    "pattern_of_token_weights": [
        ("n t c -> n", "The weights take the other axes"),
        ("n t c -> c", "weight of LayerNorm(8)"),
        ("n t c -> n t", "shares a mean in LayerNorm(8)"),
        ("n t c -> n c", "which sample it will meet."),
        ("n t c -> n t c", "A weight for each number?"),
        ("n t c -> t", "one weight per token"),
        ("n t c ->", "a single weight for all"),
    ],
    "means_before_the_last_axes": [
        (8, "one per sample"),
        (3, "one per channel"),
        (5 * 6, "numbers feed each mean"),
        (8 * 3 * 5, "for LayerNorm(6)"),
        (8 * 3 * 5 * 6, "numbers there are in all"),
        (3 * 5 * 6, "numbers one sample has"),
        (1, "a mean over everything"),
    ],
    "shape_of_layernorm_weight": [
        (30, "A shape is a tuple"),
        ((30,), "does not flatten"),
        ((6, 5), "but reversed"),
        ((8, 3), "one per mean"),
        ((3,), "one per channel"),
        ((6,), "weight of LayerNorm(6)"),
        ((3, 5, 6), "LayerNorm([3, 5, 6])"),
        ((8, 3, 5, 6), "shape of the input"),
    ],
    "last_of_the_first_row": [
        (nn.BatchNorm1d(3)(ROWS)[0, 2].item(), "You pooled the column"),
        (5 / (SQUARES / 2) ** 0.5, "the unbiased variance. The biased one"),
        (5 / (SQUARES / 3), "by the variance. Divide by its root"),
        (5 / (SQUARES / 2), "and its root"),
        (F.layer_norm(ROWS, (3, 3))[0, 2].item(), "all nine numbers"),
        (-5 / (SQUARES / 3) ** 0.5, "The sign"),
        (5, "divided by the standard deviation"),
    ],
    "pattern_when_both_fit": [
        ("n c l -> n l", "what was meant"),
        ("n c l -> c", "That is BatchNorm1d"),
        ("n c l -> n", "pools two axes"),
        ("n c l -> l", "That pools the samples"),
        ("n c l ->", "everything into one"),
    ],
    "who_needs_batch_mates": [
        ("GroupNorm", "pools groups of channels"),
        ("InstanceNorm", "pixels of one channel of one image"),
        ("layernorm", "It keeps n."),
        ("all", "one image at a time. Several"),
        ("none", "pools the axis n"),
    ],
    "mend_token_norm": [
        (untouched_token_norm, "pools the tokens of a sentence"),
        (lambda x: norm(x, -1, 1), "The variance still runs over axis 1"),
        (lambda x: norm(x, 1, -1), "The mean still runs over axis 1"),
        (lambda x: F.layer_norm(x, x.shape[1:]), "one mean per sentence"),
        (lambda x: norm(x, 0), "pools the sentences"),
        (
            lambda x: F.batch_norm(x.mT, None, None, training=True).mT,
            "That is BatchNorm",
        ),
        (lambda x: norm(x, -1, correction=1), "The biased variance"),
        (lambda x: norm(x, -1, eps=0, outside=1e-5), "inside the root"),
        (lambda x: norm(x, -1, eps=0), "gone missing"),
    ],
    "mend_image_norm": [
        (untouched_image_norm, "one more thing is wrong"),
        (lambda x: norm(x, EVERY), "ε is where it belongs"),
        (lambda x: norm(x, IMAGE, eps=0, outside=1e-5), "added to the root"),
        (lambda x: norm(x, IMAGE, EVERY, eps=0, outside=1e-5), "The mean is fixed"),
        (lambda x: norm(x, IMAGE, EVERY), "The variance still runs over all images"),
        (lambda x: norm(x, EVERY, IMAGE), "The mean still runs over all images"),
        (lambda x: F.instance_norm(x), "That is InstanceNorm:"),
        (lambda x: norm(x, (2, 3), eps=0, outside=1e-5), "InstanceNorm's mean"),
        (
            lambda x: norm(x, IMAGE, correction=1, eps=0, outside=1e-5),
            "correction=0 has gone missing",
        ),
        (lambda x: F.batch_norm(x, None, None, training=True), "That is BatchNorm"),
        (
            lambda x: F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1),
            "one mean per pixel",
        ),
        (lambda x: norm(x, IMAGE, correction=1), "The biased variance normalizes"),
        (lambda x: norm(x, IMAGE, eps=0), "gone missing"),
    ],
}

OTHER_ANSWERS = {
    "pattern_of_token_weights": ["c", "n c -> n", "n t c -> c n", "t c"],
    "means_before_the_last_axes": [77, 24.0005, [24], "many", float("nan")],
    "shape_of_layernorm_weight": [(5.004, 6), [[5, 6]], (), ("5", "6")],
    "last_of_the_first_row": [77, 1.2, (1.336,), "1.336"],
    "pattern_when_both_fit": ["n c l -> n c l", "n c l -> c l", "n c -> n", "l"],
    "who_needs_batch_mates": ["rmsnorm", 3, True, ("batchnorm",)],
    "mend_token_norm": [3, lambda x: x, lambda x: x.mean(-1), lambda x: "mean", lambda: 1],
    "mend_image_norm": [3, lambda x: x, lambda x: x.mean(), lambda x: "mean", lambda: 1],
}

TELLS = {
    "pattern_of_token_weights": r"-> t c\b",
    "means_before_the_last_axes": r"\b24\b",
    "shape_of_layernorm_weight": r"\(5, 6\)",
    "last_of_the_first_row": r"1\.33",
    "pattern_when_both_fit": r"-> n c\b(?! l)",
    "who_needs_batch_mates": r"BatchNorm",
    "mend_token_norm": r"dim=-1",
    "mend_image_norm": r"\(1, 2, 3\)",
}
