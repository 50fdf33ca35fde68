"""Answers to the exercises of lesson 05: training and track_running_stats."""

import torch
from torch import nn
from torch.nn.functional import batch_norm
from torch.nn.utils.rnn import unpad_sequence
from torch.utils.checkpoint import checkpoint


def find_what_normalizes():
    """After training, with the flag switched off late, in eval."""
    x = torch.arange(32.0)[:, None]
    layer = nn.BatchNorm1d(1)
    layer(x)
    layer.track_running_stats = False
    by_batch = torch.allclose(layer.eval()(x).mean(), torch.zeros(()), atol=1e-3)
    return "batch" if by_batch else "running"


def count_changed(training):
    """How many rows of the output change with one row of the input."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 10, generator=generator)
    other = x.clone()
    other[5] = torch.randn(10, generator=generator)
    layer = nn.BatchNorm1d(10).train(training)
    return int((layer(x) != layer(other)).any(dim=1).sum())


def count_moved():
    model = nn.Sequential(*(nn.BatchNorm1d(1) for _ in range(4)))
    model.requires_grad_(False)
    model[0].eval()
    model.train()
    model(torch.tensor([[1.0], [2.0]]))
    return sum(layer.num_batches_tracked.item() for layer in model)


def find_running_mean(passes, momentum=0.1):
    layer = nn.BatchNorm1d(1, momentum=momentum)
    for _ in range(passes):
        layer(torch.tensor([[18.0], [22.0]]))
    return layer.running_mean.item()


def find_checkpointed_mean():
    layer = nn.BatchNorm1d(1)
    checkpoint(layer, torch.tensor([[18.0], [22.0]]), use_reentrant=False).sum().backward()
    return layer.running_mean.item()


def find_variance_in_eval():
    numbers = torch.tensor([0.0, 2.0]).repeat(500_000)[:, None]
    norm = nn.BatchNorm1d(1, momentum=1)  # so that one large batch is enough to settle
    model = nn.Sequential(nn.Dropout(0.2), norm)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model(numbers)
        return model.eval()(numbers).var(correction=0).item()


def normalize_by_mode(x, running_mean, running_var, training):
    return batch_norm(x, running_mean, running_var, training=training)


def predict(x, running_mean, running_var):
    return batch_norm(x, running_mean, running_var, training=False)


def mean_of_real(x, lengths):
    """What a layer of torch.nn stores if it is shown the real positions alone."""
    layer = nn.BatchNorm1d(x.shape[1], momentum=1)
    layer(torch.cat(unpad_sequence(x.transpose(1, 2), lengths, batch_first=True)))
    return layer.running_mean


RIGHT_ANSWERS = {
    "flag_set_after_training": find_what_normalizes(),
    "predictions_that_change": (count_changed(training=True), count_changed(training=False)),
    "counters_that_move": count_moved(),
    "mean_after_checkpoint": find_checkpointed_mean(),
    "variance_behind_dropout": find_variance_in_eval(),
    "mend_the_modes": normalize_by_mode,
    "mend_the_prediction": predict,
    "mend_the_padded_mean": mean_of_real,
}


def use_moved(x, running_mean, running_var, training):
    """The function that stands in the lesson."""
    if training:
        running_mean = 0.9 * running_mean + 0.1 * x.mean(dim=0)
        running_var = 0.9 * running_var + 0.1 * x.var(dim=0, correction=1)
    return (x - running_mean) / (running_var + 1e-5).sqrt()


def average_the_means(x, lengths):
    """The function that stands in the lesson."""
    means = x.sum(dim=2) / lengths[:, None]
    return means.mean(dim=0)


def predict_in_training(x, running_mean, running_var):
    """The function that stands in the lesson."""
    with torch.no_grad():
        return batch_norm(x, running_mean, running_var, training=True)


def predict_with_moved(x, running_mean, running_var):
    batch_norm(x, running_mean, running_var, training=True)  # moves them in place
    return predict(x, running_mean, running_var)


def put_eps_outside(x, running_mean, running_var, training):
    mean, var = running_mean, running_var
    if training:
        mean, var = x.mean(dim=0), x.var(dim=0, correction=0)
    return (x - mean) / (var.sqrt() + 1e-5)


def when_training(function):
    """A mistake in training alone."""
    return lambda x, mean, var, training: function(x) if training else predict(x, mean, var)


# What people answer, and a word or two of what they are told.
WRONG_ANSWERS = {
    "flag_set_after_training": [
        ("batch", "*made* without tracking"),
        (" Error", "Nothing is missing"),
    ],
    "predictions_that_change": [
        ((1, 1), "the new sample moves the means"),
        ((32, 32), "In eval, the means are fixed"),
        ((31, 0), "its mates alone"),
        ((31, 1), "changes as well"),
        ((32, 0), "of the new sample itself changes"),
        ((1, 32), "The other way round"),
        ((320, 10), "Those are numbers"),
    ],
    "counters_that_move": [
        (0, "stops gradients"),
        (3, "every layer to training again"),
        (1, "The first is no exception"),
    ],
    "mean_after_checkpoint": [
        (find_running_mean(1), "one forward pass"),
        (2 * find_running_mean(1), "takes a tenth off"),
        (20, "the batch's mean"),
        (0.1 * 0.1 * 20, "a tenth of a tenth"),
        (find_running_mean(3), "three passes"),
        (0.1 * 20 + 0.9 * 38, "not of the old value"),
    ],
    "variance_behind_dropout": [
        (1, "So it is in training"),
        (2 / 0.8 - 1, "that BatchNorm stored"),
        (1 / (1 / 0.8), "You divided the *variance*"),
        (1 / (2 / 0.8), "The mean² is missing"),
        ((2 / 3) ** 0.5, "standard deviation"),
        ((2 / 3) ** 2, "by the stored variance once"),
        (1 / (2 / 0.2 - 1), "0.8 are kept"),
    ],
    "mend_the_modes": [
        (use_moved, "moved or not"),
        (lambda x, mean, var, training: predict(x, mean, var), "of earlier batches"),
        (lambda x, mean, var, training: predict_in_training(x, mean, var), "In eval you still"),
        (when_training(lambda x: (x - x.mean(0)) / (x.var(0) + 1e-5).sqrt()), "is for storing"),
        (put_eps_outside, "outside the root"),
        (
            when_training(lambda x: (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()),
            "one mean for all",
        ),
    ],
    "mend_the_prediction": [
        (predict_in_training, "no_grad does not choose"),
        (predict_with_moved, "before they were used"),
        (lambda x, mean, var: predict(x, mean, x.var(0, correction=0)), "The mean is the running"),
        (lambda x, mean, var: predict(x, x.mean(0), var), "The variance is the running"),
        (lambda x, mean, var: nn.LayerNorm(x.shape[1])(x), "That is LayerNorm"),
        (lambda x, mean, var: (x - mean) / var, "the root of the variance"),
        (lambda x, mean, var: x, "the input as it was"),
    ],
    "mend_the_padded_mean": [
        (average_the_means, "the mean of the sequences' means"),
        (lambda x, lengths: x.mean(dim=(0, 2)), "The padding is counted too"),
        (lambda x, lengths: x.sum((0, 2)) / (x != 0).sum((0, 2)), "A real number may be 0"),
        (lambda x, lengths: x.sum(2) / lengths[:, None], "one per sequence and channel"),
        (lambda x, lengths: x.sum((0, 2)) / len(x), "by the number of sequences"),
        (lambda x, lengths: x.sum((0, 2)), "That is the sum"),
        (lambda x, lengths: x.sum() / lengths.sum(), "adds up all channels"),
    ],
}

# Wrong answers that nobody thought of.
OTHER_ANSWERS = {
    "flag_set_after_training": ["eval", 3, True, ["running"], "run"],
    "predictions_that_change": [(5, 5), 32, (32,), "32, 1", (32, 1.001)],
    "counters_that_move": [77, 4.0005, (4,), "four", True],
    "mean_after_checkpoint": [77, 3.9, (3.8,), "3.8"],
    "variance_behind_dropout": [77, 0.7, (0.667,), "2/3"],
    "mend_the_modes": [
        lambda x, mean, var, training: predict(x, mean, var) + 1,
        3,
        lambda x: x,
        lambda x, mean, var, training: "batch",
        lambda x, mean, var, training: x.mean(dim=0),
    ],
    "mend_the_prediction": [
        lambda x, mean, var: predict(x, mean, var) + 1,
        3,
        lambda x: x,
        lambda x, mean, var: "running",
        lambda x, mean, var: mean,
    ],
    "mend_the_padded_mean": [
        lambda x, lengths: mean_of_real(x, lengths) + 1,
        3,
        lambda x: x,
        lambda x, lengths: "mean",
        lambda x, lengths: lengths,
    ],
}

# What would give an answer away.
TELLS = {
    "flag_set_after_training": '"running"',
    "predictions_that_change": r"\(32, 1\)",
    "counters_that_move": r"\b(4|four)\b",
    "mean_after_checkpoint": r"3\.8",
    "variance_behind_dropout": r"0\.67|0\.667|2 ?/ ?3",
    "mend_the_modes": r"x\.var\(dim=0, correction=0\)",
    "mend_the_prediction": r"training=False",
    "mend_the_padded_mean": r"lengths\.sum\(\)",
}
