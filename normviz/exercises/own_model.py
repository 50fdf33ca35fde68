"""Lesson 10: your own model."""

from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from normviz.exercises.boxes import classes_by, patient_points, unknown_patient
from normviz.exercises.exercise import Exercise, Prediction
from normviz.exercises.norms import norm_over
from normviz.judging import judge_choice, judge_function, judge_numbers, undisturbed
from normviz.reduction import Reduction


def _watched(x: Tensor, layer: nn.Module, place: tuple, *, copied=True, own=False, mode=None):
    """Which outputs move with one number, found well or badly.

    Args:
        x: the input.
        layer: what it goes into.
        place: where the number stands.
        copied: whether the input without the change is kept.
        own: whether the layer itself is run, and no copy.
        mode: True for training, False for eval; by default that of the layer.
    """
    other = x.clone() if copied else x
    other[place] += 1
    layer = layer if own else deepcopy(layer)
    layer.train(layer.training if mode is None else mode)
    return ((layer(other) - layer(x)).abs() > 1e-6).int()


def _reset(x: Tensor, layer: nn.Module, place: tuple):
    other = torch.zeros_like(x)
    other[place] = 1
    return ((deepcopy(layer)(other) - deepcopy(layer)(x)).abs() > 1e-6).int()


def _observe_layer(function, x: Tensor, layer: nn.Module, place: tuple):
    """What it returns if the layer is as it was; else the sum of what has moved, and the mode."""
    before = deepcopy(layer)
    moved = function(x, layer, place)
    pairs = zip(layer.state_dict().values(), before.state_dict().values(), strict=True)
    off = [float((new.double() - old.double()).abs().sum()) for new, old in pairs]
    if any(off) or layer.training != before.training:
        return torch.tensor([*off, float(layer.training)])
    return moved


def _watched_cases() -> list[tuple]:
    """A layer in eval, and one in training, neither of which may be changed."""
    x = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    return [(x, nn.BatchNorm1d(2).train(mode), (0, 1, 2)) for mode in (False, True)]


def _my_norm_cases() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(shape, generator=generator) + 3, 0.1) for shape in ((4, 2, 3), (3, 4, 5))]


def _my_norm(over: tuple[int, ...], **options):
    return lambda x, eps: norm_over(over, **{"eps": eps} | options)(x)


def _outside(x: Tensor, eps: float) -> Tensor:
    return norm_over((0, 2), eps=0, outside=eps)(x)


def _average_cases() -> list[tuple]:
    """x, and two models of one start."""
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    cases = []
    for n, c in ((6, 2), (9, 3)):
        models = [nn.Sequential(nn.Linear(c, c), nn.BatchNorm1d(c)) for _ in range(2)]
        for model in models:
            for tensor in (*model.parameters(), model[1].running_mean, model[1].running_var):
                tensor.data.add_(torch.rand_like(tensor))
        cases.append((torch.randn(n, c) + 2, *models))
    torch.set_rng_state(torch_state)
    return cases


def _average(x: Tensor, one: nn.Module, other: nn.Module, *, first: bool = True, fed: str = "x"):
    """What the average of two models makes of x in eval.

    Args:
        x: the input.
        one: a model: a linear layer and a BatchNorm.
        other: a second one.
        first: whether its running statistics are taken after the weights were averaged.
        fed: where its statistics are from: ``"x"``, the ``"model"`` that was copied, the average of
            ``"both"``; ``"batch"`` for those of x in training, which are biased; ``"momentum"`` for
            one pass with momentum 0.1.
    """
    model = deepcopy(one)
    linear, bn = model
    own = deepcopy(linear)
    with torch.no_grad():
        for tensor, second in zip(model.parameters(), other.parameters(), strict=True):
            tensor.copy_((tensor + second) / 2)
        z = (linear if first else own)(x)
        if fed == "both":
            for name in ("running_mean", "running_var"):
                getattr(bn, name).add_(getattr(other[1], name)).div_(2)
        weight = {"x": 1.0, "momentum": bn.momentum}.get(fed, 0.0)
        bn.running_mean.lerp_(z.mean(0), weight)
        bn.running_var.lerp_(z.var(0), weight)
        return model.train(fed == "batch")(x)


@undisturbed()
def _patient_cases() -> list[tuple]:
    """Points that no model has met, and the patient."""
    return [(patient_points(1)[0], unknown_patient())]


def _cure(points: Tensor, model: nn.Module, *, apart: bool = True) -> nn.Module:
    """The patient with new statistics, and with a norm for each place before."""
    if apart:
        model[4] = deepcopy(model[1])
    update_bn([points], model)
    return model


def _with_batch_mates(points: Tensor, model: nn.Module) -> nn.Module:
    """The patient without stored statistics."""
    model[1].running_mean = model[1].running_var = None
    return model


PREDICTIONS: dict[str, Prediction] = {
    "what_a_shift_shows": Prediction(
        "neither: a factor might stay",
        {
            "it is LayerNorm over c": "LayerNorm would do that. But others would, too: nobody has "
            "tried yet whether a factor is gone.",
            "it normalizes, and is centred": "That a shift is gone says something about shifts. To "
            "normalize is also to divide, and that is not tried yet.",
        },
        praise="Who moves together, and that a shift is gone: both are so in a softmax, too.",
    ),
    "weight_or_variance": Prediction(
        "twice as many samples",
        {
            "all numbers times 3": "Either variance grows by 9, so the 3 is gone either way, and "
            "8/9 stays.",
            "another channel": "A weight might be another one there. But 8/9 in all four channels "
            "was on the screen, and both suspicions allow it.",
            "none": "They differ in what they depend on: a weight is a fixed number, and m/(m − 1) "
            "is not.",
        },
        praise="A weight does not know how many samples there are; m − 1 does.",
    ),
    "a_slope_per_channel": Prediction(
        "either is possible",
        {
            "no normalization: nothing is pooled": "Nothing is pooled now. But a BatchNorm in eval "
            "does just this, with stored statistics.",
            "a BatchNorm in eval": "It may be one. But a convolution of its own for each channel is "
            "one slope and one shift as well.",
        },
        praise="In eval, a BatchNorm is one slope and one shift per channel, and so are others.",
    ),
    "gradient_of_padding": Prediction(
        "nan",
        {
            "0: the output is 0, too": "An output of 0 may well have a slope. Here one of its "
            "factors is infinite.",
            "large ones, about 1/ε": "So it would be if the root were not there. Its slope at 0 is "
            "infinite, and infinity times 0 is nan.",
        },
        praise="The root has an infinite slope at 0, and ε outside does not keep it away from 0.",
    ),
    "what_a_freeze_forgets": Prediction(
        "running statistics",
        {
            "weights of the body": "They have requires_grad=False, so `train` does not even see "
            "them.",
            "both": "The weights have requires_grad=False, so `train` does not see them. The "
            "statistics are no parameters.",
            "nothing but the mode": "At the end, the mode is eval again, as before. What happened "
            "while it was training stays.",
        },
        praise="model.train() reached the frozen BatchNorm, and each batch moved its statistics.",
    ),
    "statistics_of_an_average": Prediction(
        "0 and 1",
        {
            "an average of the model's": "The loop goes over parameters(). Running statistics are "
            "buffers, and not among them.",
            "those of the last batch": "The average has met no batch in training: only the model "
            "has.",
        },
        praise="Nobody has averaged them, copied them or fed them.",
    ),
    "two_domains_in_eval": Prediction(
        "bad on both",
        {
            "good on both": "In training, each batch brings its own statistics. In eval, there is "
            "one mean for both.",
            "good on home": "Home comes first in each step. But away moves the same mean, right "
            "behind it.",
            "good on away": "It comes last, but moves the mean by a tenth of the way only.",
        },
        praise="One running mean, moved by both in turns, fits neither.",
    ),
    "where_nan_comes_up": Prediction(
        "the root of a variance",
        {
            "the mean: 0/0": "In eval, no mean is taken: it is stored. And ε keeps a divisor away "
            "from 0.",
            "the last layer overflows": "Too large would be inf. The points and the weights are of "
            "ordinary size.",
        },
        praise="The root of a negative number is nan, and no variance is negative but a wrong one.",
    ),
}

EXERCISES: dict[str, Exercise] = {
    "means_in_a_box": Exercise(
        judge_numbers(
            8,
            [
                (2, "Two groups per sample, that is right. And how many samples are there?"),
                (3, "That is how many channels share one mean."),
                (15, "That is how many numbers share one mean."),
                (12, "You divided 6 · 4 by 2. A group has three channels, so there are 6/3."),
                (24, "That is one per sample and channel. Here three channels share one."),
                (4, "That is one per sample. But only half of a sample moves."),
                (6, "That is one per channel, over the samples. Here the own sample moves alone."),
            ],
        ),
        praise="120 numbers, 15 for each mean: two groups in each of four samples.",
        hint="How many numbers are there in all? And how many of them share one mean?",
        solution="8: 4 · 6 · 5 = 120 numbers, and 15 share each mean. That is a GroupNorm with 2 "
        "groups, in 4 samples.",
    ),
    "weight_of_a_box": Exercise(
        judge_numbers(
            2.0,
            [
                (4.0, "That is γ². The outputs are multiplied by γ, their squares by γ²."),
                (3.2**0.5, "By the biased variance. But then ten numbers would give 3.2 as well."),
                (3.6**0.5, "By the biased variance. But then five numbers would give 3.6 as well."),
                (3.2, "That is the mean square of five. Both γ² and the variance are in it."),
                (3.6, "That is the mean square of ten. Both γ² and the variance are in it."),
                (1.6, "You multiplied by 4/5. But 4/5 is in the 3.2 already: 4/5 · γ² = 3.2."),
            ],
        ),
        praise="Unbiased, for the count matters: γ² · 4/5 = 3.2, and γ² · 9/10 = 3.6.",
        hint="By the unbiased variance of m numbers, and without a weight, (m − 1)/m is left. What "
        "does γ do to a mean square?",
        solution="γ = 2. The count matters, so the variance is unbiased, and (m − 1)/m is left: "
        "γ² · 4/5 = 3.2 makes γ² = 4, and 4 · 9/10 is 3.6.",
    ),
    "eps_of_a_box": Exercise(
        judge_numbers(
            (12.0, 2.0),
            [
                ((2.0, 12.0), "Swapped: inside the root, ε is added to the variance, 4."),
                ((12.0, 12.0), "Inside is right. Outside, ε is added to σ = 2."),
                ((2.0, 2.0), "Outside is right. Inside, ε is added to the variance, not to σ."),
                ((4.0, 2.0), "Inside: the root of 4 + ε has to be 4."),
                ((16.0, 4.0), "Those are the whole divisors. How much of them is ε?"),
                ((0.0, 1.5), "You took 0.5 for the divisor. 2 divided by what is 0.5?"),
            ],
        ),
        praise="The divisor is 4: √(4 + 12), or 2 + 2.",
        hint="What was 2 divided by, to become 0.5? The variance is 4, its root 2.",
        solution="(12, 2): 2 / 0.5 = 4 divides. Inside, √(4 + ε) = 4, so ε = 12; outside, "
        "√4 + ε = 4, so ε = 2.",
    ),
    "mend_the_experiment": Exercise(
        judge_function(
            _watched,
            _watched_cases,
            [
                (
                    partial(_watched, copied=False),
                    "Nothing moves: `other = x` is a second name, so both inputs have changed.",
                ),
                (partial(_watched, mode=True), "The layer is put into training. Keep its mode."),
                (partial(_watched, mode=False), "The layer is put into eval. Keep its mode."),
                (
                    _reset,
                    "Other numbers were changed, too: all but one are 0 in the second input.",
                ),
                (
                    partial(_watched, own=True),
                    "The layer remembers them: two inputs have passed in training. Use a copy.",
                ),
            ],
            slices="n c l -> n c",
            observe=_observe_layer,
        ),
        praise="A copy of the input, too. Then only one number differs.",
        hint="After the second line, in which places do `other` and `x` differ?",
        solution="def moved_outputs(x, layer, place):\n"
        "    other = x.clone()  # not a second name for x\n"
        "    other[place] += 1\n"
        "    layer = deepcopy(layer)\n"
        "    return ((layer(other) - layer(x)).abs() > 1e-6).int()",
    ),
    "mend_my_batch_norm": Exercise(
        judge_function(
            _my_norm((0, 2)),
            _my_norm_cases,
            [
                (
                    _my_norm((0,)),
                    "Each position has a mean of its own: n alone is pooled. BatchNorm pools the "
                    "positions, too.",
                ),
                (
                    _my_norm((0, 2), var_over=(0,)),
                    "The mean is over n and l now. The variance is still over n.",
                ),
                (
                    _my_norm((0,), var_over=(0, 2)),
                    "The variance is over n and l now. The mean is still over n.",
                ),
                (
                    _my_norm((0, 2), correction=1),
                    "That divides by the unbiased variance. The biased one normalizes.",
                ),
                (_my_norm((2,)), "That is InstanceNorm: each sample alone."),
                (_my_norm((1, 2)), "That is one mean per sample. BatchNorm has one per channel."),
                (_my_norm((0, 1, 2)), "That is one mean for everything. There is one per channel."),
                (_outside, "ε stands inside the root."),
            ],
            slices="n c l -> c",
        ),
        praise="Over n and l, one per c.",
        hint="Which axes does BatchNorm pool, of (N, C, L)? All but one. And keepdim=True leaves them "
        "in the shape of a mean, as axes of length 1, so that it fits x.",
        solution="def my_batch_norm(x, eps):\n"
        "    mean = x.mean(dim=(0, 2), keepdim=True)  # over n and l\n"
        "    var = x.var(dim=(0, 2), correction=0, keepdim=True)\n"
        "    return (x - mean) / (var + eps).sqrt()",
    ),
    "mend_the_average": Exercise(
        judge_function(
            _average,
            _average_cases,
            [
                (
                    partial(_average, first=False),
                    "The statistics are those of `one`'s weights: they were taken before the "
                    "weights were averaged.",
                ),
                (
                    partial(_average, fed="model"),
                    "The statistics are those that `one` has stored. x has not passed.",
                ),
                (
                    partial(_average, fed="both"),
                    "An average of stored statistics belongs to neither model. Let x pass.",
                ),
                (partial(_average, fed="batch"), "That is in training. Eval is wanted."),
                (
                    partial(_average, fed="momentum"),
                    "x has passed once, with momentum 0.1: nine tenths are still `one`'s. update_bn "
                    "starts anew.",
                ),
            ],
            slices=lambda x, *_: Reduction("n c -> c"),
        ),
        praise="First the weights, then the statistics that they make.",
        hint="Whose weights does the batch meet when the statistics are taken?",
        solution="def average_of_two(x, one, other):\n"
        "    average = deepcopy(one)\n"
        "    for own, second in zip(average.parameters(), other.parameters(), strict=True):\n"
        "        own.data = (own.data + second.data) / 2\n"
        "    update_bn([x], average)  # after the weights, not before\n"
        "    return average.eval()(x)",
    ),
    "running_mean_of_two_domains": Exercise(
        judge_numbers(
            1 / 0.19,
            [
                (5.0, "Nearly: that is the middle. But the last batch has just pulled."),
                (
                    0.9 / 0.19,
                    "That is between the two batches of a step. The second still moves it.",
                ),
                (10.0, "That is the last batch alone, as with momentum 1."),
                (1.0, "That is after the first step. It goes on."),
                (9 / 0.99, "Reversed: momentum 0.1 is the weight of the *new* batch."),
            ],
        ),
        praise="r = 0.9 · 0.9 · r + 0.1 · 10: a little nearer to the one that came last.",
        hint="After many steps, a step changes nothing. What do two batches make of r?",
        solution="1 / 0.19 = 5.263: 0 makes 0.9 · r of r, then 10 makes 0.81 · r + 1 of it. If that "
        "is r again, r = 1 / (1 − 0.81).",
    ),
    "cause_of_a_symptom": Exercise(
        judge_choice(
            "track_running_stats=False",
            {
                "affine=False": "That leaves out γ and β, which are the same for each batch.",
                "eps=0.1": "That changes each prediction, but in each batch by as much.",
                "momentum=None": "That is a plain average of all batches of training. In eval it "
                "stands still.",
            },
        ),
        praise="In eval, something still pools n: there are no stored statistics. diagnose calls "
        "that batch-mates.",
        hint="Other photos have a say. Which of the four makes the layer pool n in eval?",
        solution="track_running_stats=False: nothing is stored, so each batch is normalized by its "
        "own statistics, in eval as well.",
    ),
    "cure_a_patient": Exercise(
        judge_function(
            _cure,
            _patient_cases,
            [
                (
                    lambda points, model: model,
                    "As ill as before: what is stored is the old mix. Let the points pass.",
                ),
                (
                    partial(_cure, apart=False),
                    "The statistics are new, but taken while one norm served two places.",
                ),
                (
                    _with_batch_mates,
                    "In eval, the batch still normalizes: among others, a point gets another class.",
                ),
            ],
            slices="n c -> n",
            observe=classes_by,
        ),
        praise="One norm for each place, then statistics for each. No training was needed.",
        hint="`diagnose` names a cause and an effect. Cure the cause first: is index 4 of the "
        "Sequential another layer than index 1? Then the statistics.",
        solution="def cure(points, model):\n"
        "    model = deepcopy(model)\n"
        "    model[4] = deepcopy(model[1])  # it was one norm in two places\n"
        "    update_bn([points], model)  # statistics for each\n"
        "    return model",
    ),
}
