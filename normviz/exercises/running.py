"""Lesson 03: the running statistics, and the share of each batch."""

import torch

from normviz.exercises.exercise import Exercise, Prediction
from normviz.judging import judge_choice, judge_function, judge_numbers


def _cases(*shapes: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    """A batch, the running value so far (one per channel, above 0) and a momentum, per shape."""
    generator = torch.Generator().manual_seed(3)
    cases = []
    for shape, momentum in zip(shapes, (0.1, 0.3, 0.75), strict=True):
        x = 4 + 3 * torch.randn(shape, generator=generator)
        cases.append((x, 1 + torch.rand(shape[1], generator=generator), momentum))
    return cases


PREDICTIONS: dict[str, Prediction] = {
    "part_that_moves_the_mean": Prediction(
        "forward",
        {
            "backward()": "backward() only computes gradients. The running mean has "
            "no gradient: it is a buffer.",
            "optimizer.step()": "step() moves what is learned, the weight and the bias. The running "
            "mean is a buffer, which the optimizer never meets.",
        },
        praise="The layer sees the batch in forward, and notes its mean there.",
    ),
    "three_looks": Prediction(
        "it moves three times",
        {
            "it stays": "To us it is only a measurement. To the layer it is a call in training mode, and "
            "each of those moves the running mean. no_grad stops gradients, and here there are none.",
            "it moves once": "The layer does not know that it has met this batch before. The second "
            "look counts like the first.",
        },
        praise="Each call in training mode moves it, whatever we want with the loss, and without a "
        "gradient.",
    ),
    "mean_after_one_batch": Prediction(
        "at 7",
        {
            "at 5": "That would keep a quarter of the old value. In torch, momentum is the share of "
            "the new batch, and the old value keeps three quarters.",
            "at 9": "You added a quarter of 4 to the whole 8. But the old value keeps only the rest, "
            "three quarters: both shares add up to 1.",
        },
        praise="Momentum is the share of the new batch, so 0.75 · 8 + 0.25 · 4.",
    ),
    "log_of_the_mean": Prediction(
        "1.273 three times",
        {
            "0.3, 0.97 and 1.273": "So it would be with copies. The list holds the layer's own tensor, "
            "and the layer writes into it with each batch.",
            "0.3 three times": "It is one tensor three times, but not as it was at first: the layer "
            "went on writing into it.",
        },
        praise="The list holds one tensor three times, with whatever is in it now.",
    ),
    "mean_after_ten_batches": Prediction(
        "near 33",
        {
            "near 50": "Ten tenths of the whole way would end there. But each step is a tenth of what "
            "is left, and that gets less.",
            "near 45": "Then a tenth of the start would be left. One batch leaves nine tenths of it, "
            "and ten batches 0.9¹⁰ = 0.35.",
        },
        praise="Each batch leaves 0.9 of what is missing, and 0.9¹⁰ is 0.35.",
    ),
    "variance_when_sorted": Prediction(
        "4, as in each batch",
        {
            "123.2, as of all six": "The layer never sees all six at once. It averages the variances of "
            "the batches, each measured from its own mean.",
            "63.6, halfway": "Nobody averages the two: 123.2 never comes in. The layer meets the "
            "variance of one batch, and then that of the other.",
        },
        praise="It averages the variances of the batches, 4 and 4.",
    ),
    "momentum_copied_from_keras": Prediction(
        "to 2.7",
        {
            "to 0.3": "The word is the same, its meaning is not. In torch, 0.9 is the share of "
            "the new batch; in Keras it is that of the old value.",
            "to 0.03": "It is the reverse: in torch, a large momentum gives the new batch a large "
            "share.",
        },
        praise="In torch, 0.9 is the share of the new batch.",
    ),
}

EXERCISES: dict[str, Exercise] = {
    "running_mean_after_three": Exercise(
        judge_numbers(
            3.5,
            [
                (
                    14 / 3,
                    "That is the plain average, as with momentum=None. Here newer batches have a larger share.",
                ),
                (
                    4.25,
                    "The order is reversed: you gave the oldest batch the largest share. The newest has it, a half.",
                ),
                (4, "You began with the first batch's mean. The running mean begins at 0."),
                (7, "You gave each batch a half and added up. The old value is halved each time."),
                (2, "That is the last batch alone, as with momentum 1."),
            ],
        ),
        praise="0, then 2, then 5, then 3.5: each time half of the way to the new batch.",
        hint="Three steps, from 0. Each one goes half of the way to the new batch's mean.",
        solution="0.5 · 0 + 0.5 · 4 = 2, then 0.5 · 2 + 0.5 · 8 = 5, then 0.5 · 5 + 0.5 · 2 = 3.5.",
    ),
    "first_of_four_batches": Exercise(
        judge_numbers(
            0.2 * 0.8**3,
            [
                (
                    0.8**4,
                    "0.8⁴ is the share of the start. The first batch came in with 0.2.",
                ),
                (
                    0.2,
                    "That is the share of the newest batch. That of the first one has faded since.",
                ),
                (
                    0.2 * 0.8**4,
                    "One fading too many: after the first batch, only three more have come.",
                ),
                (
                    0.2 * 0.8**2,
                    "One fading too few: after the first batch, three more have come.",
                ),
                (
                    0.2**4,
                    "0.2⁴: only the batch's own entry brings 0.2. Each later batch leaves 0.8.",
                ),
                (0.8**3, "That is how far it has faded. It began with less than 1: with momentum."),
                (0.25, "That is the plain average, as with momentum=None."),
                (
                    0.8 * 0.2**3,
                    "Reversed: in torch, momentum 0.2 is the share of the new batch.",
                ),
            ],
        ),
        praise="It came in with 0.2, and three later batches have each left 0.8 of that.",
        hint="Which share has a batch when it is new? And what does each later batch leave of that?",
        solution="0.2 · 0.8³ = 0.1024: new, it has 0.2; three later batches each leave 0.8 of it.",
    ),
    "batches_to_forget": Exercise(
        judge_numbers(
            44,
            [
                (43, "Almost: after 43 batches its share is 0.0108, a little more than 1 %."),
                (43.7, "Batches come whole: after 43 its share is more than 1 %."),
                (45, "Almost: one batch earlier its share is less than 1 % already."),
                (10, "After 10 batches its share is 0.9¹⁰ = 0.35. It shrinks less each time."),
                (
                    22,
                    "After 22 batches its share is just under 10 %. Under 1 % was asked.",
                ),
                (
                    3,
                    "Reversed: each batch leaves 0.9 of the start, not 0.1 of it.",
                ),
                (
                    2,
                    "Reversed: each batch leaves 0.9 of the start, not 0.1. "
                    "(And 0.1² is 1 %, not less.)",
                ),
                (459, "That is for momentum 0.01. Here it is 0.1."),
                (
                    100,
                    "At 100 it is long forgotten. When is its share less than 1 % for the first time?",
                ),
            ],
        ),
        praise="0.9⁴³ is 0.0108 and 0.9⁴⁴ is 0.0097.",
        hint="Each batch leaves 0.9 of the start's share. Find the first k with 0.9**k < 0.01.",
        solution="44: log(0.01) / log(0.9) is 43.7, so 0.9⁴⁴ is the first power below 0.01.",
    ),
    "momentum_for_keras": Exercise(
        judge_numbers(
            0.01,
            [
                (
                    0.99,
                    "In Keras, 0.99 is the share of the old value. In torch, momentum is that of the new batch.",
                ),
                (0.1, "That is torch's default, and stands for 0.9 in Keras."),
                (0.9, "That is ONNX's default, in Keras's convention. It is not torch's number."),
                (1, "As a per cent it is right. As a share between 0 and 1?"),
                (1.99, "A share lies between 0 and 1. Which one does the new batch have?"),
                (-0.01, "The sign: take the old value's share from 1."),
            ],
        ),
        praise="What Keras gives to the old value, torch takes from 1.",
        hint="Both shares add up to 1. Keras's momentum is the one of the old value.",
        solution="1 − 0.99 = 0.01.",
    ),
    "average_of_batches": Exercise(
        judge_numbers(
            5.0,
            [
                (3.75, "You counted the start as a fourth batch. With None, it has no share."),
                (
                    6,
                    "You averaged the average: that gives the last batch a half. All have the same share.",
                ),
                (1.422, "That is momentum 0.1."),
                (9, "That is the last batch alone, as with momentum 1."),
                (0, "None does not switch the updates off. It chooses another rule."),
                (15, "That is the sum. Divide by how many batches there are."),
            ],
        ),
        praise="(2 + 4 + 9) / 3. The start, 0, is forgotten at the first batch.",
        hint="With None, every batch has the same share. Which one does the start have?",
        solution="(2 + 4 + 9) / 3 = 5: the plain average of the three batches.",
    ),
    "count_of_batches": Exercise(
        judge_numbers(
            3,
            [
                (2, "no_grad stops gradients, not the running statistics: that call counts too."),
                (1, "That counts steps of the optimizer. What counts is calls in training."),
                (5, "The last two calls are in eval. There, nothing moves."),
                (
                    4,
                    "Only calls of the layer count. optimizer.step() is not one, and eval moves nothing.",
                ),
                (
                    6,
                    "The two calls in eval move nothing, and optimizer.step() is not a call of the layer.",
                ),
            ],
        ),
        praise="One for each forward in training: with a gradient, without one, and the last.",
        hint="Go through the lines. Which of them call the layer, and in which mode is it then?",
        solution="3: each forward in training counts, under no_grad too. backward(), step() and eval "
        "do not count.",
    ),
    "cure_for_lone_images": Exercise(
        judge_choice(
            "larger",
            {
                "average": "momentum=None averages the batches' own variances. One image alone has "
                "only its own brightness, so that average misses how images differ.",
                "smaller": "A smaller momentum averages over more batches. It still averages the "
                "variances within one image.",
                "longer": "More batches of the same kind bring the same small variances again.",
                "shuffle": "Shuffled they are. Each batch still holds one image, in whatever order.",
            },
        ),
        praise="With many images in a batch, their differences lie within it, and its own variance "
        "sees them.",
        hint="running_var only ever hears of variances inside a batch. How do the differences between "
        "images get inside?",
        solution='"larger": once a batch holds many images, its own variance covers how they differ.',
    ),
    "mend_the_momentum": Exercise(
        judge_function(
            lambda x, old, momentum: (1 - momentum) * old + momentum * x.mean(dim=0),
            lambda: _cases((4, 3), (5, 2), (3, 6)),
            [
                (
                    lambda x, old, momentum: momentum * old + (1 - momentum) * x.mean(dim=0),
                    "The two shares are swapped: momentum is that of the new batch.",
                ),
                (
                    lambda x, old, momentum: momentum * x.mean(dim=0),
                    "The old value is missing. It keeps the rest of the whole.",
                ),
                (
                    lambda x, old, momentum: old + momentum * x.mean(dim=0),
                    "The old value stays as a whole there. Both shares add up to 1.",
                ),
                (
                    lambda x, old, momentum: x.mean(dim=0),
                    "That is the new batch alone. The old value keeps a share.",
                ),
                (
                    lambda x, old, momentum: (1 - momentum) * old + momentum * x.mean(),
                    "The shares are right. But each channel has a mean of its own: x.mean(dim=0).",
                ),
                (
                    lambda x, old, momentum: (1 - momentum) * old + momentum * x.sum(dim=0),
                    "The shares are right. But that is the sum of the batch, not its mean.",
                ),
            ],
            slices="n c -> c",
        ),
        praise="momentum is the share of the new batch; the old value keeps the rest.",
        hint="Try momentum = 0: in torch nothing moves then. What does this function do?",
        solution="def update_mean(x, running_mean, momentum):\n"
        "    batch = x.mean(dim=0)\n"
        "    return (1 - momentum) * running_mean + momentum * batch",
    ),
    "mend_the_variance": Exercise(
        judge_function(
            lambda x, old, momentum: (1 - momentum) * old + momentum * x.var(dim=(0, 2)),
            lambda: _cases((2, 3, 4), (4, 2, 3), (3, 5, 2)),
            [
                (
                    lambda x, old, momentum: (
                        (1 - momentum) * old + momentum * x.var(dim=(0, 2), correction=0)
                    ),
                    "That stores the biased variance, divided by m. The biased one normalizes; "
                    "another one is stored.",
                ),
                (
                    lambda x, old, momentum: (
                        momentum * old + (1 - momentum) * x.var(dim=(0, 2), correction=0)
                    ),
                    "The shares were right: momentum is that of the new batch. Look at the variance.",
                ),
                (
                    lambda x, old, momentum: (
                        momentum * old + (1 - momentum) * x.var(dim=(0, 2), correction=1)
                    ),
                    "The variance is right now. But the shares were right before: momentum is that "
                    "of the new batch.",
                ),
                (
                    lambda x, old, momentum: (
                        (1 - momentum) * old + momentum * x.std(dim=(0, 2), correction=1)
                    ),
                    "That is the standard deviation. The variance is stored.",
                ),
                (
                    lambda x, old, momentum: x.var(dim=(0, 2), correction=1),
                    "That is the new batch alone. The old value keeps a share.",
                ),
                (
                    lambda x, old, momentum: (
                        (1 - momentum) * old + momentum * x.var(dim=2, correction=1).mean(dim=0)
                    ),
                    "That takes a variance per sample, then averages. The samples are pooled too.",
                ),
            ],
            slices="n c l -> c",
        ),
        praise="Normalize with m, store with m − 1.",
        hint="Which of the two variances of lesson 01 is kept for later?",
        solution="def update_var(x, running_var, momentum):\n"
        "    batch = x.var(dim=(0, 2), correction=1)  # divided by m - 1\n"
        "    return (1 - momentum) * running_var + momentum * batch",
    ),
}
