"""Lessons 00 and 01: which numbers share a mean in BatchNorm."""

from collections.abc import Callable

import torch

from normviz.exercises.exercise import Exercise, Prediction
from normviz.judging import judge_function, judge_numbers, judge_pattern


def _channel_cases() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2, 6), (4, 5), (2, 3, 4, 5), (2, 3, 2, 4, 5)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _over_all_but(axis: int, **options) -> Callable:
    return lambda x: x.mean(dim=[k for k in range(x.ndim) if k != axis % x.ndim], **options)


PREDICTIONS: dict[str, Prediction] = {
    # 00: start here
    "without_norm": Prediction(
        right="it hardly falls",
        wrong={
            "as far, only later": "More steps do not help here: in step 1000 the loss is what it "
            "was in step 200. All points look alike after the last hidden layer.",
            "about half as far": "For that, some points would have to be told apart. After twelve "
            "layers all of them look alike.",
        },
        praise="A third of the spread, twelve times, is nearly nothing: all points look alike.",
    ),
    "other_axes": Prediction(
        right="twelve",
        wrong={
            "eight": "That is 2 · 4, over n and l, as before. In this pattern, c and l stand on "
            "the left alone: they are pooled.",
            "two": "Two is how many means there are: one per n. The right side names what stays.",
        },
        praise="The mean is over c and l, which makes 3 · 4 numbers.",
    ),
    # 01: one mean per channel
    "constant_channel": Prediction(
        right="0: all at the mean",
        wrong={
            "8: nothing to normalize": "The mean is subtracted from each number, however alike "
            "they are. Here the mean is 8.",
            "nan: 0 divided by 0": "It would be, without ε. But √(0 + ε) is not 0.",
        },
        praise="8 − 8 = 0, divided by √(0 + ε).",
    ),
    "longer_sequence": Prediction(
        right="3 means of 50 numbers",
        wrong={
            "15 means of 10 numbers": "That keeps the samples apart, too: one mean per sample and "
            "channel. A line of the printed tensor looks like a unit, but BatchNorm pools all samples.",
            "30 means of 5 numbers": "That pools the samples only. A channel has one mean for all "
            "of its positions.",
        },
        praise="Samples and positions are pooled, the channels stay.",
    ),
    "image_mean": Prediction(
        right="40: one channel of both",
        wrong={
            "20: one channel of one image": "It seems natural to keep the images apart. But axis 0 "
            "is pooled, here as in a table.",
            "60: all of one image": "That is one mean per image. BatchNorm keeps the channels apart, and "
            "pools the images.",
        },
        praise="One channel, in both images and at all pixels: 2 · 4 · 5 numbers.",
    ),
    "weights_for_images": Prediction(
        right="2: one per channel",
        wrong={
            "100: one per pixel": "Every pixel is multiplied by a γ, but all pixels of a channel "
            "by the same one.",
            "200: one per channel and pixel": "Then the layer would fit one size of image only. "
            "It was told the number of channels, and nothing else.",
        },
        praise="γ is shared in the same way as the mean: one per channel.",
    ),
    "scaled_and_shifted": Prediction(
        right="2 and 0.75",
        wrong={
            "0 and 1": "That is true before γ and β. They give the channel another scale and "
            "another centre.",
            "2 and 0.93": "√γ goes the wrong way. γ multiplies the numbers, and the variance counts "
            "their squared distances.",
            "2 and 0.87": "γ multiplies the numbers and their standard deviation. The variance is "
            "that squared.",
        },
        praise="The mean is β. The variance is multiplied by γ², and 0.8681² = 0.7536.",
    ),
    "which_mistake": Prediction(
        right="the variance",
        wrong={
            "ε": "ε is 0.00001 beside a standard deviation of 1.18: it can move the sixth decimal, "
            "and not the second.",
            "both, about equally": "The unbiased variance is larger by 4 %. ε is 0.00001 beside a "
            "standard deviation of 1.18.",
        },
        praise="A variance larger by 4 % makes the output smaller by 2 %.",
    ),
    "photo_alone": Prediction(
        right="only the one after the pooling",
        wrong={
            "both": "One sample is not one number: before the pooling, each channel of the photo "
            "has 49 pixels, and they feed its mean.",
            "only the one before it": "Before the pooling, each channel has 49 numbers. What "
            "counts is how many numbers feed a mean.",
            "neither": "The pooling leaves one number per channel. That is its own mean, as in a "
            "table of one sample.",
        },
        praise="After the pooling, one photo brings one number per channel.",
    ),
}

EXERCISES = {
    # 00: start here
    "first_guess": Exercise(
        judge_numbers(
            3,
            [
                (
                    2,
                    "2 is the number of samples. BatchNorm does not keep them apart: it averages them together.",
                ),
                (
                    4,
                    "4 is the number of positions. They are averaged together: which axis is left?",
                ),
                (6, "6 is one per sample and channel. All samples of a channel share one mean."),
                (8, "8 is how many numbers feed each mean. How many means are there?"),
                (
                    12,
                    "12 is one per channel and position. The positions are averaged together, too.",
                ),
                (24, "24 is how many numbers there are in all. Several of them share a mean."),
                (1, "1 would be a mean over everything. BatchNorm keeps the channels apart."),
            ],
        ),
        praise="One mean per channel, and x has three channels.",
        hint="BatchNorm keeps one of the axes apart, and what lies along the others is averaged together. "
        "Which of the sizes in (2, 3, 4) could it be?",
        solution="3. x has shape (2, 3, 4), the second axis holds the channels, and there is one "
        "mean per channel.",
    ),
    # 01: one mean per channel
    "pattern_of_images": Exercise(
        judge_pattern(
            "n c h w -> c",
            (2, 3, 4, 5),
            [
                ("n c h w -> n c", "That is one per sample and channel; which axis stays?"),
                ("n c h w -> n", "That is one per sample: LayerNorm's choice, not BatchNorm's."),
                (
                    "n c h w -> c h w",
                    "That is one per channel and pixel: only n is pooled there. BatchNorm pools the pixels too.",
                ),
                (
                    "n c h w -> n h w",
                    "The right side names what is kept. You named what is pooled.",
                ),
                ("n c h w ->", "That pools everything into one. The channels stay apart."),
            ],
        ),
        praise="Everything but c is pooled: n, h and w.",
        hint="Right of the arrow stand the axes that stay. BatchNorm has one mean per …?",
        solution='"n c h w -> c": mean over n, h and w, one per c.',
    ),
    "how_many_means": Exercise(
        judge_numbers(
            7,
            [
                (20, "20 is the number of samples; they are pooled. Which axis is kept?"),
                (50, "50 is the number of positions; they are pooled. Which axis is kept?"),
                (140, "140 is one per sample and channel; the samples are pooled too."),
                (350, "350 is one per channel and position; the positions are pooled too."),
                (1000, "1000 is how many numbers feed each mean. How many means are there?"),
                (7000, "7000 is how many numbers there are in all."),
            ],
        ),
        praise="One mean per channel, whatever the length of the other axes.",
        hint="In (N, C, L) = (20, 7, 50), which of the three numbers is C?",
        solution="7: one mean per channel.",
    ),
    "how_many_numbers": Exercise(
        judge_numbers(
            4800,
            [
                (
                    600,
                    "600 are the pixels of one sample's channel. The other samples feed the same mean.",
                ),
                (
                    2400,
                    "2400 are the numbers of one sample. A mean runs through all samples, in one channel.",
                ),
                (19_200, "19,200 are all numbers. They belong to 4 channels."),
                (4, "4 is how many means there are. How many numbers feed each?"),
                (8, "8 counts the samples only. Each of them brings H·W numbers of the channel."),
            ],
        ),
        praise="N·H·W = 8 · 20 · 30.",
        hint="Multiply the sizes of the pooled axes: n, h and w.",
        solution="8 · 20 · 30 = 4800 numbers feed each of the 4 means.",
    ),
    "shape_of_weight": Exercise(
        judge_numbers(
            (6,),
            [
                (6, "The number is right. A shape is a tuple: (6,)."),
                (
                    (8, 6),
                    "That is one per sample and channel. A weight can't know which sample it will meet.",
                ),
                (
                    (6, 4, 4),
                    "That is one per channel and pixel, as in LayerNorm([6, 4, 4]). BatchNorm has one per channel.",
                ),
                (
                    (1, 6, 1, 1),
                    "Those are the right six numbers, ready to broadcast; the layer stores them as (6,).",
                ),
                ((8, 6, 4, 4), "That is the shape of the input."),
                ((8,), "That is one per sample. The second axis holds the channels."),
            ],
        ),
        praise="One weight γ and one bias β per channel.",
        hint="γ and β are shared in the same way as the mean: one per …?",
        solution="(6,): BatchNorm2d(6) has one weight per channel.",
    ),
    "first_normalized": Exercise(
        judge_numbers(
            -1.01905,
            [
                (-0.83205, "You divided by √13, the unbiased variance. The biased one normalizes."),
                (-0.34615, "You divided by the variance. Divide by its root."),
                (
                    -0.23077,
                    "You divided by the unbiased variance. Take the biased one, and its root.",
                ),
                (1.01905, "The sign: 1 lies below the mean. x − μ, not μ − x."),
                (-3, "That is x − μ. It still has to be divided by the standard deviation."),
            ],
        ),
        praise="(1 − 4) / √(26 / 3).",
        hint="The mean is 4. Add up the squared distances from it, divide by how many numbers there "
        "are, and take the root.",
        solution="μ = 4 and σ² = (9 + 1 + 16) / 3 = 8.6667, so (1 − 4) / √8.6667 = −1.0190.",
    ),
    "stored_variance": Exercise(
        judge_numbers(
            3.4,
            [
                (2.53333, "You stored the biased variance, 8.67. The unbiased one, 13, is stored."),
                (
                    10.6,
                    "The other way round: in torch, momentum 0.2 is the weight of the new batch.",
                ),
                (
                    7.13333,
                    "Two things: the unbiased variance is stored, and momentum weighs the new batch.",
                ),
                (
                    13,
                    "That is the new batch alone. Its weight is 0.2; the old value, 1, keeps 0.8.",
                ),
                (
                    8.66667,
                    "That normalizes this batch. What is stored is mixed from 1 and the unbiased variance.",
                ),
                (2.6, "The old value is missing. running_var starts at 1, not at 0: add 0.8 · 1."),
                (
                    1.73333,
                    "The old value, 0.8 · 1, is missing, and the unbiased variance is stored.",
                ),
            ],
        ),
        praise="0.8 · 1 + 0.2 · 13.",
        hint="new = (1 − momentum) · old + momentum · batch. running_var starts at 1, and the batch "
        "brings its unbiased variance.",
        solution="26 / 2 = 13 is the unbiased variance, so 0.8 · 1 + 0.2 · 13 = 3.4.",
    ),
    "numbers_that_move": Exercise(
        judge_numbers(
            6,
            [
                (
                    1,
                    "Its own output changes, but so do the mean and the variance, and all that share them.",
                ),
                (
                    2,
                    "That is one position. The other positions of the channel share the mean too.",
                ),
                (
                    3,
                    "That is one sample's part of the channel. The other sample shares the mean too.",
                ),
                (
                    12,
                    "That is one sample. The slice of x[0, 0, 0] is a channel, in both samples.",
                ),
                (
                    24,
                    "Only the slice of x[0, 0, 0] changes. The other channels have means of their own.",
                ),
                (5, "Those are the ones that share its mean. Its own output changes too."),
            ],
        ),
        praise="All the numbers of channel 0, three in each of two samples, share its mean.",
        hint="Which numbers light up together with x[0, 0, 0]?",
        solution="6: every output of channel 0 contains the mean that x[0, 0, 0] feeds.",
    ),
    "channel_means": Exercise(
        judge_function(
            _over_all_but(1),
            _channel_cases,
            [
                (
                    _over_all_but(0),
                    "That keeps the samples apart: one mean per n. Keep axis 1 instead.",
                ),
                (
                    _over_all_but(-1),
                    "That keeps the last axis, whatever it is. The channels are axis 1.",
                ),
                (
                    _over_all_but(1, keepdim=True),
                    "The numbers are right; without keepdim they have shape (C,).",
                ),
                (
                    lambda x: x.mean(dim=0),
                    "That pools the samples only. The positions or pixels are pooled as well.",
                ),
                (
                    lambda x: x.mean(dim=[*range(2, x.ndim)]),
                    "That is one per sample and channel; pool axis 0 as well.",
                ),
                (lambda x: x.mean(), "That is one mean for all. Keep axis 1."),
                (
                    lambda x: x.movedim(1, 0).flatten(1).sum(1),
                    "That is the sum. Divide by the count.",
                ),
            ],
            slices="n c ... -> c",
        ),
        praise="Mean over every axis but axis 1, for any number of axes.",
        hint="x.mean(dim=[…]) takes a list of axes: all of range(x.ndim), but not 1.",
        solution="def channel_means(x):\n"
        "    return x.mean(dim=[axis for axis in range(x.ndim) if axis != 1])",
    ),
}
