"""Lesson 07: the relatives."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from normviz.exercises.exercise import Exercise, Prediction
from normviz.exercises.norms import norm_over
from normviz.judging import judge_choice, judge_function, judge_numbers
from normviz.reduction import Reduction


def _scaled(*numbers: float, by: float) -> tuple[float, ...]:
    return tuple(number / by for number in numbers)


def _rms_cases() -> list[tuple]:
    """x, weight and ε; one row has a mean far from 0, and in the last case ε counts."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for shape, size in (((2, 3), 1.0), ((2, 2, 4), 0.1)):
        x = size * (torch.randn(shape, generator=generator) + 2)
        cases.append((x, torch.rand(shape[-1], generator=generator) + 0.5, 0.01))
    return cases


def _rms_norm(x, weight, eps, *, outside=0.0, mean=torch.Tensor.mean):
    square = mean(x.square(), dim=-1, keepdim=True)
    return weight * x / ((square + eps).sqrt() + outside)


def _group_cases() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    shapes = (((2, 6, 2), 2), ((3, 4, 3), 2))
    return [(torch.randn(shape, generator=generator), groups) for shape, groups in shapes]


def _by_group(norm):
    """A norm of (n, g, c, l), for (n, g · c, l)."""
    return lambda x, groups: norm(x.unflatten(1, (groups, -1))).flatten(1, 2)


def _interleaved(x, groups):
    split = x.unflatten(1, (-1, groups))
    return norm_over((1, 3))(split).flatten(1, 2)


def _frozen_cases() -> list[tuple]:
    """x, and a model with momentum 0: it normalizes with its mode, and nothing in it moves."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for count in (2, 3):
        kinds = nn.InstanceNorm2d, nn.BatchNorm2d
        model = nn.Sequential(
            *(kind(2, momentum=0.0, affine=False, track_running_stats=True) for kind in kinds)
        )
        for layer in model:
            layer.running_mean.fill_(1)
            layer.running_var.fill_(4)
        cases.append((torch.randn((count, 2, 2, 2), generator=generator), model))
    return cases


def _forward_frozen(x, model, kinds: tuple[type, ...] = (nn.modules.batchnorm._NormBase,)):
    model.train()
    for layer in model.modules():
        if isinstance(layer, kinds):
            layer.eval()
    return model(x)


PREDICTIONS: dict[str, Prediction] = {
    "tracked_instance_in_eval": Prediction(
        "sample 0's alone",
        {
            "none": "In training a factor cancels, as the sample's own statistics grow with it. "
            "In eval the stored ones normalize, and they stay.",
            "sample 0's and sample 1's": "That needs a statistic which both of them feed. In eval "
            "nobody feeds any.",
        },
        praise="Fixed numbers normalize: a factor no longer cancels, and no sample meets another.",
    ),
    "outlier_and_groups": Prediction(
        "channels 0 and 1 of sample 0",
        {
            "channel 1 of sample 0": "So it would be in InstanceNorm. Here channel 0 is in the "
            "same group, and shares the mean.",
            "channel 1 of both samples": "That is BatchNorm, which pools the samples and keeps "
            "the channels apart.",
            "channels 0 and 1 of both samples": "The group is right. But the samples are kept "
            "apart: each has a mean of its own.",
        },
        praise="Whoever shares a mean and a variance with it is disturbed, and nobody else.",
    ),
    "rms_of_a_shift": Prediction(
        "three numbers near 1",
        {
            "what it gave before": "That is LayerNorm, which subtracts the mean, and the shift "
            "with it. RMSNorm subtracts nothing.",
            "what it gave, plus 100": "The shift is not removed, that is right. But all is "
            "divided by the root mean square, which is near 100 now.",
        },
        praise="Not centred: the shift stays in the numbers and in what divides them.",
    ),
    "weight_norm_at_start": Prediction(
        "3 and 1, as before",
        {
            "0.6 and 0.3333: length 1 each": "That is the direction alone. The scale g multiplies "
            "it, and g starts at the length that was there.",
            "as if all of w had length 1": "There is one length per output, and the scale g starts "
            "at that length.",
        },
        praise="g = ‖v‖ at the start, so g · v / ‖v‖ is the weight that was there.",
    ),
    "window_of_five": Prediction(
        "0 and 1",
        {
            "0, 1 and 2": "So it would be if 0, 1 and 2 were a group. But the window of channel 2 "
            "is 1, 2 and 3.",
            "0 alone": "Channel 1 has a window as well: 0, 1 and 2. Channel 0 is in it.",
            "all five": "So it would be if they shared one statistic, as in LayerNorm. A window "
            "of three reaches one channel to either side.",
        },
        praise="Channel 0 is in two windows: its own and that of channel 1.",
    ),
    "frn_of_one_pixel": Prediction(
        "1 or −1, for each of them",
        {
            "0, for all four": "That is what a centred layer gives: a number is its own mean. "
            "FRN subtracts none.",
            "the numbers, as they are": "Each is divided by the root of its own square.",
        },
        praise="A number, divided by its own size, is a sign.",
    ),
    "update_of_instance_norm": Prediction(
        "moves them as training does",
        {
            "resets them, then averages": "That is what it does to BatchNorm. It looks for that "
            "class, and InstanceNorm is not built on it.",
            "leaves them as they are": "It looks for no InstanceNorm. But the batches run through "
            "it, in training mode.",
        },
        praise="It is not found, so not reset; but the batches run through it.",
    ),
}

EXERCISES: dict[str, Exercise] = {
    "outlier_in_groups": Exercise(
        judge_numbers(
            100,
            [
                (25, "25 is one channel of one sample, as in InstanceNorm. A group has more."),
                (75, "3 is the number of groups, not that of channels in a group."),
                (300, "300 is the whole sample, as with one group. It has three."),
                (800, "That is the group in all samples. GroupNorm keeps the samples apart."),
                (200, "That is a channel in all samples, as in BatchNorm."),
                (2400, "That is everything. Samples and groups are kept apart."),
                (4, "4 is the number of channels in a group. Each has 5 · 5 positions."),
                (1, "It also moves the mean and the variance that others share."),
            ],
        ),
        praise="4 channels of 5 · 5 positions share its mean and its variance.",
        hint="How many channels are in a group? How many numbers does each of them have?",
        solution="100: twelve channels in three groups are 4 in each, of 5 · 5 positions, in one "
        "sample.",
    ),
    "rms_of_three": Exercise(
        judge_numbers(
            _scaled(2, 3, 6, by=(49 / 3) ** 0.5),
            [
                (
                    _scaled(2, 3, 6, by=7),
                    "You divided by the length, √49. The *mean* of the squares is 49/3.",
                ),
                (
                    _scaled(-5 / 3, -2 / 3, 7 / 3, by=(26 / 9) ** 0.5),
                    "That is LayerNorm: centred. RMSNorm subtracts no mean.",
                ),
                (
                    _scaled(2, 3, 6, by=(26 / 9) ** 0.5),
                    "You divided by the standard deviation, which is taken around the mean.",
                ),
                (_scaled(2, 3, 6, by=49 / 3), "You divided by the mean square. Take its root."),
                (
                    _scaled(2, 3, 6, by=(49 / 2) ** 0.5),
                    "You divided the squares by m − 1. A mean square divides by m.",
                ),
                (
                    _scaled(2, 3, 6, by=11 / 3),
                    "You divided by the mean. It is the root of the mean of the squares.",
                ),
            ],
        ),
        praise="The mean square is (4 + 9 + 36) / 3, and its root, 4.0415, divides all three.",
        hint="What stands under the root is a mean. A mean of what?",
        solution="(0.4949, 0.7423, 1.4846): the mean square is (4 + 9 + 36) / 3 = 16.33, and its "
        "root is 4.0415.",
    ),
    "mend_rms_norm": Exercise(
        judge_function(
            _rms_norm,
            _rms_cases,
            [
                (
                    lambda x, w, eps: w * x / (x.var(-1, correction=0, keepdim=True) + eps).sqrt(),
                    "x is not centred, but what divides it is: a variance takes the mean off.",
                ),
                (
                    lambda x, w, eps: w * norm_over([-1], eps=eps)(x),
                    "That is LayerNorm. RMSNorm takes no mean off, neither above nor below.",
                ),
                (
                    lambda x, w, eps: _rms_norm(x, w, 0.0, outside=eps),
                    "ε stands inside the root.",
                ),
                (lambda x, w, eps: _rms_norm(x, w, 0.0), "ε is missing."),
                (
                    lambda x, w, eps: _rms_norm(x, w, eps, mean=torch.Tensor.sum),
                    "That divides by the length: the squares were added up, not averaged.",
                ),
                (
                    lambda x, w, eps: w * x / (x.square().mean(-1, keepdim=True) + eps),
                    "The root is missing.",
                ),
                (
                    lambda x, w, eps: w * x / (x.square().mean() + eps).sqrt(),
                    "That is one mean square for all rows. Each row has its own.",
                ),
                (
                    lambda x, w, eps: _rms_norm(x, torch.ones(()), eps),
                    "The weight is missing.",
                ),
            ],
            slices=lambda x, *_: Reduction("n c -> n" if x.ndim == 2 else "n t c -> n t"),
        ),
        praise="A mean square, not a variance: nothing is centred.",
        hint="What does a variance do to the mean before it squares?",
        solution="def rms_norm(x, weight, eps):\n"
        "    square = x.square().mean(dim=-1, keepdim=True)  # not the variance\n"
        "    return weight * x / (square + eps).sqrt()",
    ),
    "mend_group_norm": Exercise(
        judge_function(
            _by_group(norm_over((2, 3))),
            _group_cases,
            [
                (
                    _interleaved,
                    "The groups interleave: channels 0, 2, … share a mean. A group is made of "
                    "neighbours.",
                ),
                (
                    _by_group(norm_over((2,))),
                    "Each position has a mean of its own here. The positions are pooled, too.",
                ),
                (
                    _by_group(norm_over((0, 2, 3))),
                    "That pools the samples as well.",
                ),
                (
                    _by_group(norm_over((3,))),
                    "That is InstanceNorm: each channel alone.",
                ),
                (
                    _by_group(norm_over((1, 2, 3))),
                    "That is one mean for the whole sample, as with one group.",
                ),
                (
                    _by_group(norm_over((2, 3), correction=1)),
                    "That is the unbiased variance. The biased one normalizes.",
                ),
            ],
            slices="n c l -> n c",
        ),
        praise="(g, c): the groups come first, so each is a run of neighbours.",
        hint="reshape counts the last axis fastest. Of (a, b), which index stays as the channels "
        "run from 0 to 1?",
        solution="def group_norm(x, groups):\n"
        "    n, c, positions = x.shape\n"
        "    split = x.reshape(n, groups, c // groups, positions)  # groups first\n"
        "    mean = split.mean(dim=(2, 3), keepdim=True)\n"
        "    var = split.var(dim=(2, 3), correction=0, keepdim=True)\n"
        "    return ((split - mean) / (var + 1e-5).sqrt()).reshape(x.shape)",
    ),
    "frn_of_two": Exercise(
        judge_numbers(
            (0.2, 0.0),
            [
                ((0.2, -1.4), "And the threshold? Nothing goes below τ = 0."),
                ((1.0, 0.0), "That is centred first. FRN takes no mean off."),
                ((1.0, -1.0), "That is InstanceNorm. FRN takes no mean off, and has a threshold."),
                (
                    (1 / 50**0.5, 0.0),
                    "You divided by the length, √50. ν² is the *mean* of the squares.",
                ),
                ((1 / 25, 0.0), "You divided by ν². Divide by its root."),
                ((2**0.5, 0.0), "The threshold comes last, when ν² has seen both numbers."),
            ],
        ),
        praise="ν² = (1 + 49) / 2 = 25, 1 / 5, and −7 / 5 is cut off at 0.",
        hint="First ν², the mean of the squares; then divide by its root; the threshold last.",
        solution="(0.2, 0): ν² = (1 + 49) / 2 = 25, so 0.2 and −1.4; max(y, 0).",
    ),
    "layer_of_a_plan": Exercise(
        judge_choice(
            "RMSNorm",
            {
                "LayerNorm": "It pools the same numbers and shares the same weights. But it "
                "subtracts their mean.",
                "GroupNorm": "It is centred, and takes axis 1 for the channels: with tokens, "
                "those are the positions.",
                "FilterResponseNorm": "It is not centred either. But it keeps n and c, and pools "
                "positions.",
            },
        ),
        praise="One statistic per token, a mean square, one weight per c.",
        hint="Which of the four are not centred? And what does each of these pool?",
        solution="RMSNorm: LayerNorm and GroupNorm are centred, and FRN has one statistic per n c.",
    ),
    "mend_the_freeze": Exercise(
        judge_function(
            _forward_frozen,
            _frozen_cases,
            [
                (
                    lambda x, model: _forward_frozen(x, model, (_BatchNorm,)),
                    "It misses InstanceNorm, which has running statistics as well and is no "
                    "_BatchNorm.",
                ),
                (
                    lambda x, model: _forward_frozen(x, model, (nn.InstanceNorm2d,)),
                    "It misses BatchNorm.",
                ),
                (
                    lambda x, model: _forward_frozen(x, model, ()),
                    "No layer is in eval when the model runs. After train(), who sets it?",
                ),
            ],
            slices="n c h w -> n c",
        ),
        praise="Whoever has running statistics is found, whatever the class.",
        hint="Which layers have something to freeze? Ask for that, not for a class.",
        solution="def forward_with_frozen_norms(x, model):\n"
        "    model.train()\n"
        "    for layer in model.modules():\n"
        '        if getattr(layer, "running_var", None) is not None:  # whatever its class\n'
        "            layer.eval()\n"
        "    return model(x)",
    ),
}
