"""Lesson 02: what LayerNorm pools."""

import torch

from normviz.exercises.exercise import Exercise, Prediction
from normviz.exercises.norms import norm_over
from normviz.judging import judge_choice, judge_function, judge_numbers, judge_pattern

_OUTSIDE = {"eps": 0.0, "outside": 1e-5}


def _draw(shapes: list[tuple[int, ...]]) -> list[torch.Tensor]:
    """Numbers so close together that ε counts, with an offset per sample."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator) / 50
        + torch.arange(1.0, 1 + shape[0]).reshape(-1, *[1] * (len(shape) - 1)) / 20
        for shape in shapes
    ]


def _token_cases() -> list[torch.Tensor]:
    return _draw([(3, 4, 4), (2, 5, 3), (3, 2, 6), (2, 7, 7)])  # T = C and T ≠ C


def _image_cases() -> list[torch.Tensor]:
    return _draw([(3, 2, 4, 5), (2, 3, 5, 4), (2, 4, 4, 4)])


PREDICTIONS: dict[str, Prediction] = {
    "means_of_slices": Prediction(
        right="10 means of 12 numbers",
        wrong={
            "5 means of 24 numbers": "That is one mean per image. LayerNorm has no rule that says "
            "so: the list names two axes, and the channels are not among them.",
            "2 means of 60 numbers": "That is one mean per channel, over all images: BatchNorm. "
            "LayerNorm pools only axes that its list names.",
        },
        praise="h and w are pooled, 3 · 4 = 12 numbers. n and c are kept: 5 · 2 = 10.",
    ),
    "layernorm_weights": Prediction(
        right="those of a column",
        wrong={
            "those of a row": "In BatchNorm, what shares a mean shares a weight. But "
            "LayerNorm(3) is told of 3 numbers in a row, and not how many rows there will be.",
            "none: each has its own": "LayerNorm(3) is told of 3 numbers in a row, "
            "and not how many rows there will be. So it can't have twelve.",
        },
        praise="LayerNorm(3) is told of 3 places in a row, and has one weight for each.",
    ),
    "other_unit": Prediction(
        right="BatchNorm",
        wrong={
            "LayerNorm": "LayerNorm pools rows, and a row holds just one of the large numbers. The "
            "factor does not belong to the whole row, so it does not cancel.",
            "both of them": "Normalizing takes a scale away, but only that of the numbers which "
            "are pooled together. Which layer pools a column?",
            "neither of them": "A factor of everything that is pooled cancels: it is in the "
            "numbers and in their spread. Which layer pools a column?",
        },
        praise="It pools that column, so the factor is in the numbers and in their spread.",
    ),
    "replaced_token": Prediction(
        right="that token alone",
        wrong={
            "all tokens of sentence 0": "A sentence is the sample here, but LayerNorm has no rule "
            "of one mean per sample: LayerNorm(4) pools the last axis alone, which is c.",
            "the middle tokens of both sentences": "These share a mean only where samples are "
            "pooled, as in BatchNorm. LayerNorm(4) pools the last axis alone, which is c.",
        },
        praise="LayerNorm(4) pools the last axis, so each token has a mean of its own.",
    ),
    "layernorm_memory": Prediction(
        right="neither of them",
        wrong={
            "one of each per feature": "That is BatchNorm. LayerNorm takes no mean per "
            "feature that it could store.",
            "one of each per row": "After training, the rows have changed. The means "
            "of the old ones would be of no use for them.",
        },
        praise="Each row brings its own mean along, also after training.",
    ),
    "both_fit": Prediction(
        right="four positions of one channel",
        wrong={
            "four channels at one position": "That is what was meant. But the layer does not know "
            "what an axis means: it takes the last one.",
            "all sixteen of one sample": "That would be LayerNorm([4, 4]). An int stands for "
            "the last axis alone.",
        },
        praise="The last axis is pooled, and with the channels first it holds the positions.",
    ),
}

EXERCISES: dict[str, Exercise] = {
    "pattern_of_token_weights": Exercise(
        judge_pattern(
            "n t c -> t c",
            (2, 3, 8),
            [
                ("n t c -> n", "That is what shares a mean. The weights take the other axes."),
                ("n t c -> c", "That would be the weight of LayerNorm(8), of shape (8,)."),
                (
                    "n t c -> n t",
                    "That is what shares a mean in LayerNorm(8). A weight can't know its sample.",
                ),
                ("n t c -> n c", "A weight can't know which sample it will meet."),
                (
                    "n t c -> n t c",
                    "A weight for each number? It can't know which sample it meets.",
                ),
                (
                    "n t c -> t",
                    "That is one weight per token. Its channels have weights of their own.",
                ),
                ("n t c ->", "That is a single weight for all. The layer has T · 8 of them."),
            ],
        ),
        praise="One weight for each place in a sentence, and every sentence meets it once.",
        hint="Right of the arrow stands what tells one weight from another. How many axes has the "
        "weight?",
        solution='"n t c -> t c": the weight has normalized_shape, (T, 8). Each of its numbers is met '
        "by the same place of every sentence.",
    ),
    "means_before_the_last_axes": Exercise(
        judge_numbers(
            24,
            [
                (
                    8,
                    "8 is one per sample, as for LayerNorm([3, 5, 6]). The channels stay apart too.",
                ),
                (3, "3 is one per channel: BatchNorm's choice. LayerNorm keeps the samples apart."),
                (30, "30 is how many numbers feed each mean. How many means are there?"),
                (120, "120 is for LayerNorm(6). A list of two sizes pools two axes."),
                (720, "720 is how many numbers there are in all."),
                (90, "90 is how many numbers one sample has."),
                (1, "1 would be a mean over everything. Only the last two axes are pooled."),
            ],
        ),
        praise="One mean for each combination of the axes in front: N · C.",
        hint="Strike the last two axes out of (8, 3, 5, 6). How many combinations do the others have?",
        solution="8 · 3 = 24: the last two axes, of sizes 5 and 6, are pooled; the axes in front are kept.",
    ),
    "shape_of_layernorm_weight": Exercise(
        judge_numbers(
            (5, 6),
            [
                (30, "30 weights, that is right. A shape is a tuple that tells the sizes apart."),
                ((30,), "30 weights, that is right. The layer does not flatten the two axes."),
                (
                    (6, 5),
                    "The right sizes, but reversed. Keep the order of normalized_shape.",
                ),
                ((8, 3), "That is one per mean. A weight can't know which sample it will meet."),
                ((3,), "That is one per channel, as in BatchNorm or GroupNorm."),
                ((6,), "That is the weight of LayerNorm(6), which pools the last axis alone."),
                ((3, 5, 6), "That is the weight of LayerNorm([3, 5, 6])."),
                ((8, 3, 5, 6), "That is the shape of the input."),
            ],
        ),
        praise="The weight has normalized_shape: one per place inside a slice.",
        hint="What lights up with by='weight' are numbers at the same place in every slice. How many "
        "places has a slice, and how are they laid out?",
        solution="(5, 6), which is normalized_shape. Each of the 30 weights is met once in every slice.",
    ),
    "last_of_the_first_row": Exercise(
        judge_numbers(
            1.33631,
            [
                (0.33968, "You pooled the column 10, 12, 5, as BatchNorm does. Pool the row."),
                (1.09109, "You divided by √21, the unbiased variance. The biased one normalizes."),
                (0.35714, "You divided by the variance. Divide by its root."),
                (
                    0.23810,
                    "You divided by the unbiased variance. Take the biased one, and its root.",
                ),
                (1.41421, "You pooled all nine numbers. Each row has a mean of its own."),
                (-1.33631, "The sign: 10 lies above the mean. x − μ, not μ − x."),
                (5, "That is x − μ. It still has to be divided by the standard deviation."),
            ],
        ),
        praise="(10 − 5) / √(42 / 3), from the first row alone.",
        hint="Only the first row counts: 1, 4 and 10. Its mean is 5.",
        solution="μ = 5 and σ² = (16 + 1 + 25) / 3 = 14, so (10 − 5) / √14 = 1.3363.",
    ),
    "pattern_when_both_fit": Exercise(
        judge_pattern(
            "n c l -> n c",
            (2, 4, 4),
            [
                (
                    "n c l -> n l",
                    "That is what was meant, and what you get with the channels last. "
                    "Here the last axis is l.",
                ),
                ("n c l -> c", "That is BatchNorm1d. LayerNorm keeps the samples apart."),
                ("n c l -> n", "That pools two axes. An int stands for one."),
                ("n c l -> l", "That pools the samples. LayerNorm keeps them apart."),
                ("n c l ->", "That pools everything into one. An int stands for one axis."),
            ],
        ),
        praise="The last axis is pooled, and here that holds the positions. Both sizes are 16, so "
        "nothing warns.",
        hint="The layer does not know what an axis means. It pools the last one.",
        solution='"n c l -> n c": mean over the positions, one per sample and channel. Swap the axes '
        "first, with x.transpose(1, 2), and back afterwards.",
    ),
    "who_needs_batch_mates": Exercise(
        judge_choice(
            "batchnorm",
            {
                "groupnorm": "GroupNorm pools groups of channels, of one image at a time.",
                "instancenorm": "InstanceNorm pools the pixels of one channel of one image.",
                "layernorm": "LayerNorm([6, 5, 5]) pools c, h and w. It keeps n.",
                "all": "A layer that keeps n pools one image at a time. Several of them do.",
                "none": "One of the four pools the axis n: then the other images feed its means.",
            },
        ),
        praise="It is the only one of the four that pools n.",
        hint="Write down the four patterns. On the right of which one is there no n?",
        solution="BatchNorm: n c h w -> c. The other three keep n, so the means of an image are its own.",
    ),
    "mend_token_norm": Exercise(
        judge_function(
            norm_over([-1]),
            _token_cases,
            [
                (
                    norm_over([1]),
                    "It pools the tokens of a sentence: axis 1 is t. A token is pooled over its channels.",
                ),
                (norm_over([-1], [1]), "The mean is right. The variance still runs over axis 1."),
                (norm_over([1], [-1]), "The variance is right. The mean still runs over axis 1."),
                (norm_over([1, 2]), "That is one mean per sentence. Each token has its own."),
                (norm_over([0]), "That pools the sentences: one mean per place and channel."),
                (norm_over([0, 1]), "That is BatchNorm: one mean per channel."),
                (
                    norm_over([-1], correction=1),
                    "The axis is right. The biased variance normalizes.",
                ),
                (norm_over([-1], **_OUTSIDE), "The axis is right. ε belongs inside the root."),
                (norm_over([-1], eps=0), "The axis is right. The ε has gone missing."),
            ],
            slices="n t c -> n t",
        ),
        praise="Mean and variance over the last axis, whether T and C are equal or not.",
        hint="Which axis number stands for c in (N, T, C)? Both lines name the wrong one.",
        solution="def token_norm(x):\n"
        "    mean = x.mean(dim=-1, keepdim=True)\n"
        "    var = x.var(dim=-1, keepdim=True, correction=0)\n"
        "    return (x - mean) / (var + 1e-5).sqrt()",
    ),
    "mend_image_norm": Exercise(
        judge_function(
            norm_over([1, 2, 3]),
            _image_cases,
            [
                (
                    norm_over([0, 1, 2, 3], **_OUTSIDE),
                    "All images share one mean, and one more thing is wrong. Each image has its own mean.",
                ),
                (
                    norm_over([0, 1, 2, 3]),
                    "ε is where it belongs. But all images share one mean: each has its own.",
                ),
                (
                    norm_over([1, 2, 3], **_OUTSIDE),
                    "Each image has its own mean now. But ε is added to the root, not inside it.",
                ),
                (
                    norm_over([1, 2, 3], [0, 1, 2, 3], **_OUTSIDE),
                    "The mean is fixed. The other line still holds both mistakes: its axes and its ε.",
                ),
                (
                    norm_over([1, 2, 3], [0, 1, 2, 3]),
                    "The means are right. The variance still runs over all images.",
                ),
                (
                    norm_over([0, 1, 2, 3], [1, 2, 3]),
                    "The variances are right. The mean still runs over all images.",
                ),
                (norm_over([2, 3]), "That is InstanceNorm: one mean per image and channel."),
                (
                    norm_over([2, 3], **_OUTSIDE),
                    "That is InstanceNorm's mean, one per image and channel. And ε stands outside.",
                ),
                (
                    norm_over([1, 2, 3], correction=1, **_OUTSIDE),
                    "The axes are right. But correction=0 has gone missing, and ε stands outside.",
                ),
                (norm_over([0, 2, 3]), "That is BatchNorm: one mean per channel."),
                (
                    norm_over([1]),
                    "That is one mean per pixel: LayerNorm(C) with the channels last.",
                ),
                (norm_over([1, 2, 3], correction=1), "The biased variance normalizes."),
                (norm_over([1, 2, 3], eps=0), "The ε has gone missing."),
            ],
            slices="n c h w -> n",
        ),
        praise="One mean and one variance per image, and ε inside the root.",
        hint="Without dim=…, torch pools every axis, n too; keepdim=True lines the means up again. "
        "And where does ε stand in lesson 01?",
        solution="def image_norm(x):\n"
        "    mean = x.mean(dim=(1, 2, 3), keepdim=True)\n"
        "    var = x.var(dim=(1, 2, 3), keepdim=True, correction=0)\n"
        "    return (x - mean) / (var + 1e-5).sqrt()",
    ),
}
