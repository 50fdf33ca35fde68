"""Lesson 05: training and track_running_stats."""

import torch

from normviz.exercises.exercise import Exercise, Prediction
from normviz.judging import judge_choice, judge_function, judge_numbers

EPS = 1e-5


def _mode_cases() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    # The third has tiny numbers: where ε stands, shows only there.
    cases = [((5, 3), 1.0, True), ((4, 6), 1.0, False), ((7, 2), 0.005, True)]
    return [(*_state(shape, scale, generator), training) for shape, scale, training in cases]


def _prediction_cases() -> list[tuple]:
    generator = torch.Generator().manual_seed(1)
    return [_state(shape, 1.0, generator) for shape in ((5, 3), (4, 6), (1, 7))]


def _padded_cases() -> list[tuple]:
    generator = torch.Generator().manual_seed(2)
    cases = []
    for shape, lengths in (((3, 2, 5), [5, 2, 3]), ((2, 4, 6), [1, 6])):
        x = torch.randint(6, shape, generator=generator).float()  # some real numbers are 0, too
        lengths = torch.tensor(lengths)
        real = torch.arange(shape[-1]) < lengths[:, None]
        cases.append((x * real[:, None], lengths))
    return cases


def _state(shape, scale, generator) -> tuple:
    """An input with its running mean and running variance."""
    x = scale * (3 + torch.randn(shape, generator=generator))
    mean = scale * torch.randn(shape[1], generator=generator)
    return x, mean, scale**2 * (0.5 + torch.rand(shape[1], generator=generator))


def _standardize(x, mean, var):
    return (x - mean) / (var + EPS).sqrt()


def _by_batch(x, correction=0):
    return _standardize(x, x.mean(dim=0), x.var(dim=0, correction=correction))


def _by_moved(x, mean, var):
    """With running statistics that this batch has moved first."""
    mean = 0.9 * mean + 0.1 * x.mean(dim=0)
    return _standardize(x, mean, 0.9 * var + 0.1 * x.var(dim=0, correction=1))


def _by_mode(x, mean, var, training):
    return _by_batch(x) if training else _standardize(x, mean, var)


PREDICTIONS: dict[str, Prediction] = {
    "eval_column": Prediction(
        "all three above 0",
        {
            "one below 0, one at 0, one above": "So it was in training, where the batch's own mean is subtracted. "
            "Eval subtracts the running mean, and one pass has moved it only to 0.5.",
            "all three below 0": "For that, what is subtracted would have to be larger than 9. The running mean is 0.5.",
        },
        praise="Eval subtracts the running mean, 0.5, and all three numbers are larger.",
    ),
    "eval_with_flag_off": Prediction(
        "the running statistics",
        {
            "those of the batch": "So it is in a layer that was *made* without running statistics. This one has some, "
            "and in eval that is all that counts.",
            "0 and 1: they are reset": "The flag touches nothing that is stored: the running mean is still 0.5. "
            "`reset_running_stats()` would set it to 0.",
        },
        praise="They are there, so eval uses them. The flag only stops them from moving in training.",
    ),
    "one_day_at_a_time": Prediction(
        "about 0.5: it guesses",
        {
            "about 0.97 again": "A mistake in the mode need not show everywhere: mixed batches hide it. "
            "A day alone loses its own mean, and that mean was the answer.",
            "about 0.8": "It is worse than that. A day alone loses its own mean, and that mean was the answer.",
            "none: a batch of one is refused": "One *value* per channel is refused. A day has 10 windows, "
            "so 10 values per channel.",
        },
        praise="A day's own mean is subtracted from it, and that mean was the answer.",
    ),
    "frozen_by_gradient": Prediction(
        "weight and bias",
        {
            "all five": "The running statistics and the counter are not moved by gradients, so they are not stopped "
            "by their absence: a forward pass in training moves them.",
            "weight, bias and the counter": "The counter counts forward passes in training, with gradients or without.",
            "none of them": "Weight and bias do stay: without a gradient, the optimizer leaves them alone.",
        },
        praise="No gradient, no step for weight and bias. The running statistics never needed one.",
    ),
    "start_taken_out": Prediction(
        "all better, some still clearly below it",
        {
            "all as good as in training mode": "That would be so if the start were the only fault. But the weights "
            "moved while the running statistics followed them.",
            "some better, some worse, by chance alone": "A fifth of what was stored was 0 and 1, in every run. "
            "Without it, all six are better. It is not all, though.",
        },
        praise="The start was one fault. The other: most of what is stored was made by older weights.",
    ),
    "averaged_parameters": Prediction(
        "about 0.5: it guesses",
        {
            "about 0.97, as the model": "The weights are as good. But `parameters()` leaves the buffers out: the running "
            "statistics are still 0 and 1.",
            "about 0.9: it trails a little": "The weights trail a little. The running statistics do not follow at all: they are "
            "buffers, still 0 and 1.",
        },
        praise="The running statistics are buffers, not parameters: they are still 0 and 1.",
    ),
    "two_views": Prediction(
        "one below 0, one above",
        {
            "0 and 0": "So it is in training, where each view has its own statistics. Eval has one running mean for both.",
            "0 for far, the last; not for near": "The last batch weighs 0.1, not 1: the running mean ends between the two.",
        },
        praise="There is one running mean for both, and it lies between them.",
    ),
    "variance_after_dropout": Prediction(
        "less than 1",
        {
            "1 as well": "BatchNorm divides by what it stored, and that came from Dropout. In eval other numbers come.",
            "more than 1": "Dropout adds variance, so the stored one is too large for eval. Dividing by it gives less.",
        },
        praise="Dropout made the stored variance large, and eval divides by it.",
    ),
}

EXERCISES: dict[str, Exercise] = {
    "flag_set_after_training": Exercise(
        judge_choice(
            "running",
            {
                "batch": "That is what a layer does that was *made* without tracking. This one has its buffers still.",
                "error": "Nothing is missing: the buffers are there, and a batch of 32 would do as well.",
            },
        ),
        praise="The buffers are there, so eval uses them. The flag only stops them from moving.",
        hint="Are there running statistics in the layer? Look for the two rows `switched off` in section 3.",
        solution='"running": eval takes the running statistics wherever a layer has them. The flag, '
        "set late, does not delete them.",
    ),
    "predictions_that_change": Exercise(
        judge_numbers(
            (32, 1),
            [
                (
                    (1, 1),
                    "In training, the new sample moves the means. Who else is normalized with them?",
                ),
                ((32, 32), "In eval, the means are fixed: no sample is seen by its mates."),
                ((31, 0), "Those are its mates alone. The output of the new sample changes too."),
                ((31, 1), "In training, the output of the new sample changes as well."),
                ((32, 0), "In eval, the output of the new sample itself changes."),
                ((1, 32), "Reversed: the mates matter in training, not in eval."),
                (
                    (320, 10),
                    "Those are numbers. The question asks for outputs of samples: rows.",
                ),
            ],
        ),
        praise="In training all share the means that it feeds; in eval each sample is on its own.",
        hint="In training, a sample feeds the mean of each channel. In eval, who feeds it?",
        solution="(32, 1): in training, all samples share the means and variances, and these change. "
        "In eval they are fixed, and only the replaced sample has another output.",
    ),
    "counters_that_move": Exercise(
        judge_numbers(
            4,
            [
                (0, "requires_grad=False stops gradients. The counter never had one."),
                (
                    3,
                    "`model.train()` came after `eval()`, and it sets every layer to training again.",
                ),
                (
                    1,
                    "The first is no exception: what happened to its mode at `model.train()`?",
                ),
            ],
        ),
        praise="model.train() undoes the eval(), and requires_grad has no say in the forward pass.",
        hint="In which mode is each of the BatchNorms when the forward pass comes? Nothing else counts.",
        solution="4: `model.train()` sets all of them to training, and the forward pass moves the "
        "counters, gradients or not.",
    ),
    "mean_after_checkpoint": Exercise(
        judge_numbers(
            3.8,
            [
                (2, "That is one forward pass. Checkpointing makes a second one in `backward()`."),
                (
                    4,
                    "The second pass takes a tenth off what is there before it adds its own tenth.",
                ),
                (20, "That is the batch's mean. Each pass moves only a tenth of the way to it."),
                (
                    0.2,
                    "The passes follow one another; a tenth of a tenth would be less than one pass.",
                ),
                (5.42, "That is three passes. One in the forward, and one in `backward()`."),
                (36.2, "Momentum 0.1 is the weight of the new batch, not of the old value."),
            ],
        ),
        praise="0.9 · 2 + 0.1 · 20: the forward pass ran twice.",
        hint="How often does the forward pass run? Move the running mean a tenth of the way to 20 each time.",
        solution="The forward pass runs twice: 0 becomes 0.1 · 20 = 2, and 2 becomes "
        "0.9 · 2 + 0.1 · 20 = 3.8.",
    ),
    "variance_behind_dropout": Exercise(
        judge_numbers(
            2 / 3,
            [
                (1, "So it is in training. In eval, Dropout lets the numbers pass as they are."),
                (
                    1.5,
                    "That is the variance that BatchNorm stored. The output is divided by it.",
                ),
                (
                    0.8,
                    "You divided the *variance* by 1 − p. Divide the mean of the squares, then subtract mean².",
                ),
                (0.4, "The mean² is missing: the variance is the mean of the squares minus it."),
                (
                    0.81650,
                    "That is the standard deviation. The variance is asked.",
                ),
                (
                    0.44444,
                    "The output is divided by the root of the stored variance, so its variance by the stored variance once.",
                ),
                (
                    0.5,
                    "That is 1 over the mean of the squares *before* Dropout, 2. Divide the 2 by 1 − p, and subtract mean².",
                ),
                (1 / 9, "0.2 are dropped, so 0.8 are kept: divide by 1 − p."),
            ],
        ),
        praise="1 / (2 / 0.8 − 1).",
        hint="In training, the variance is (mean of the squares) / (1 − p) − mean². What is it in eval? Divide.",
        solution="The mean is 1 and the mean of the squares 2. In training: 2 / 0.8 − 1 = 1.5, which is "
        "stored. In eval the variance is 1, and the output has 1 / 1.5 = 0.667.",
    ),
    "mend_the_modes": Exercise(
        judge_function(
            _by_mode,
            _mode_cases,
            [
                (
                    lambda x, mean, var, training: (
                        _by_moved(x, mean, var) if training else _standardize(x, mean, var)
                    ),
                    "In training you normalize with the running statistics, moved or not. It is the batch's turn there.",
                ),
                (
                    lambda x, mean, var, training: _standardize(x, mean, var),
                    "In training these are the running statistics of earlier batches. Take those of x.",
                ),
                (
                    lambda x, mean, var, training: _by_batch(x),
                    "In eval you still normalize with the batch.",
                ),
                (
                    lambda x, mean, var, training: (
                        _by_batch(x, correction=1) if training else _standardize(x, mean, var)
                    ),
                    "The unbiased variance is for storing. The biased one normalizes.",
                ),
                (
                    lambda x, mean, var, training: (
                        (x - x.mean(dim=0)) / (x.std(dim=0, correction=0) + EPS)
                        if training
                        else (x - mean) / (var.sqrt() + EPS)
                    ),
                    "ε stands outside the root. It is added to the variance.",
                ),
                (
                    lambda x, mean, var, training: (
                        (x - x.mean()) / (x.var(correction=0) + EPS).sqrt()
                        if training
                        else _standardize(x, mean, var)
                    ),
                    "That is one mean for all. In training, each channel has its own: over n, one per c.",
                ),
            ],
            slices="n c -> c",
        ),
        praise="The batch in training, the running statistics in eval.",
        hint="Two pairs of statistics are at hand: those of x and those that were handed in. `training` chooses.",
        solution="def normalize_by_mode(x, running_mean, running_var, training):\n"
        "    mean, var = running_mean, running_var\n"
        "    if training:\n"
        "        mean, var = x.mean(dim=0), x.var(dim=0, correction=0)\n"
        "    return (x - mean) / (var + 1e-5).sqrt()",
    ),
    "mend_the_prediction": Exercise(
        judge_function(
            _standardize,
            _prediction_cases,
            [
                (
                    lambda x, mean, var: _by_batch(x),
                    "The batch still normalizes. no_grad does not choose the statistics; one of the arguments does.",
                ),
                (
                    lambda x, mean, var: _by_moved(x, mean, var),
                    "The batch has moved the running statistics before they were used. A prediction moves nothing.",
                ),
                (
                    lambda x, mean, var: _standardize(x, mean, x.var(dim=0, correction=0)),
                    "The mean is the running one, the variance still that of the batch.",
                ),
                (
                    lambda x, mean, var: _standardize(x, x.mean(dim=0), var),
                    "The variance is the running one, the mean still that of the batch.",
                ),
                (
                    lambda x, mean, var: (
                        (x - x.mean(dim=1, keepdim=True))
                        / (x.var(dim=1, correction=0, keepdim=True) + EPS).sqrt()
                    ),
                    "Each sample is normalized by itself now. That is LayerNorm.",
                ),
                (lambda x, mean, var: (x - mean) / var, "Divide by the root of the variance."),
                (
                    lambda x, mean, var: x,
                    "That is the input as it was. It is still to be normalized.",
                ),
            ],
            slices="n c -> c",
        ),
        praise="The running statistics normalize, whoever else is in the batch.",
        hint="What does `training=True` choose here?",
        solution="from torch.nn.functional import batch_norm\n\n\n"
        "def normalize_in_use(x, running_mean, running_var):\n"
        "    return batch_norm(x, running_mean, running_var, training=False)",
    ),
    "mend_the_padded_mean": Exercise(
        judge_function(
            lambda x, lengths: x.sum(dim=(0, 2)) / lengths.sum(),
            _padded_cases,
            [
                (
                    lambda x, lengths: (x.sum(dim=2) / lengths[:, None]).mean(dim=0),
                    "That is the mean of the sequences' means: a number in a short sequence weighs more than one in a long one.",
                ),
                (
                    lambda x, lengths: x.mean(dim=(0, 2)),
                    "The padding is counted too. Divide by the number of real positions.",
                ),
                (
                    lambda x, lengths: x.sum(dim=(0, 2)) / (x != 0).sum(dim=(0, 2)),
                    "A real number may be 0. `lengths` says which positions are real.",
                ),
                (
                    lambda x, lengths: x.sum(dim=2) / lengths[:, None],
                    "That is one per sequence and channel. Pool the samples as well.",
                ),
                (
                    lambda x, lengths: x.sum(dim=(0, 2)) / len(lengths),
                    "You divided by the number of sequences, not of real positions.",
                ),
                (
                    lambda x, lengths: x.sum(dim=(0, 2)),
                    "That is the sum. Divide by the number of real positions.",
                ),
                (
                    lambda x, lengths: x.sum() / lengths.sum(),
                    "That adds up all channels. Each channel has a mean of its own.",
                ),
            ],
            slices="n c l -> c",
        ),
        praise="All real numbers of a channel, divided by how many they are.",
        hint="The zeros do no harm to the sum. How many real positions are there in the whole batch?",
        solution="def mean_of_real(x, lengths):\n    return x.sum(dim=(0, 2)) / lengths.sum()",
    ),
}
