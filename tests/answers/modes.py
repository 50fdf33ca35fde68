"""Answers to the questions of lesson 05: training and track_running_stats."""

import copy

import torch
from torch import nn
from torch.nn.functional import batch_norm, cross_entropy
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


def normalize_in_use(x, running_mean, running_var):
    return batch_norm(x, running_mean, running_var, training=False)


def mean_of_real(x, lengths):
    """What a layer of torch.nn stores if it is shown the real positions alone."""
    layer = nn.BatchNorm1d(x.shape[1], momentum=1)
    layer(torch.cat(unpad_sequence(x.transpose(1, 2), lengths, batch_first=True)))
    return layer.running_mean


def find_eval_column():
    """Where 1, 5, 9 come out in eval, after one pass in training."""
    layer = nn.BatchNorm1d(1)
    layer(COLUMN)
    signs = layer.eval()(COLUMN).sign().flatten().tolist()
    return {
        (-1, 0, 1): "one below 0, one at 0, one above",
        (1, 1, 1): "all three above 0",
        (-1, -1, -1): "all three below 0",
    }[tuple(signs)]


def find_what_normalizes_without_the_flag():
    """What eval uses in a layer that is trained, and then told not to track."""
    layer = nn.BatchNorm1d(1)
    layer(COLUMN)
    layer.track_running_stats = False
    out = layer.eval()(COLUMN)
    untracked, fresh = nn.BatchNorm1d(1, track_running_stats=False), nn.BatchNorm1d(1)
    if torch.equal(out, untracked(COLUMN)):
        return "those of the batch"
    reset = torch.equal(out, fresh.eval()(COLUMN))
    return "0 and 1: they are reset" if reset else "the running statistics"


COLUMN = torch.tensor([[1.0], [5.0], [9.0]])
WARM = torch.arange(256) % 2
DAYS = 8 * torch.randn(256, 1, 12, generator=torch.Generator().manual_seed(0))
DAYS += 15 + 10 * WARM[:, None, None]


class Trained:
    """A small model after some steps, and the average of its weights."""

    def __init__(self, steps, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(40, 2)
            self.model = nn.Sequential(nn.Conv1d(1, 4, kernel_size=3), *layers)
            self.average = copy.deepcopy(self.model)
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
            for _ in range(steps):
                self.step(torch.randint(256, (32,)))

    def step(self, pick):
        self.optimizer.zero_grad()
        cross_entropy(self.model(DAYS[pick]), WARM[pick]).backward()
        self.optimizer.step()
        weights = zip(self.average.parameters(), self.model.parameters(), strict=True)
        with torch.no_grad():
            for average, weight in weights:
                average.lerp_(weight, 0.1)


@torch.no_grad()
def measure(model, size=32, training=False):
    model = copy.deepcopy(model).train(training)
    scores = torch.cat([model(part) for part in DAYS.split(size)])
    return (scores.argmax(dim=1) == WARM).float().mean().item()


def tell_one_day_at_a_time():
    alone = measure(Trained(60).model, size=1, training=True)
    return {0.5: "about 0.5: it guesses", 0.8: "about 0.8", 0.97: "about 0.97 again"}[
        min((0.5, 0.8, 0.97), key=lambda about: abs(about - alone))
    ]


def find_unchanged():
    model = Trained(0).model
    norm, before = model[1], copy.deepcopy(model[1].state_dict())
    norm.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    cross_entropy(model(DAYS), WARM).backward()
    optimizer.step()
    after = norm.state_dict()
    return {
        ("weight", "bias"): "weight and bias",
        ("weight", "bias", "num_batches_tracked"): "weight, bias and the counter",
        tuple(before): "all five",
        (): "none of them",
    }[tuple(name for name in before if torch.equal(before[name], after[name]))]


def take_out_the_start():
    """Debiased as Adam debiases its averages: what is left is the lag."""
    left, gained, short = 0.9**15, [], []
    for seed in range(6):
        model = Trained(15, seed).model
        training, before = measure(model, training=True), measure(model)
        model[1].running_mean /= 1 - left
        model[1].running_var = (model[1].running_var - left) / (1 - left)
        gained.append(measure(model) > before)
        short.append(measure(model) < training - 0.05)
    if not all(gained):
        return "some better, some worse, by chance alone"
    return (
        "all better, some still clearly below it"
        if any(short)
        else "all as good as in training mode"
    )


def measure_the_average():
    average = measure(Trained(60).average)
    return {
        0.5: "about 0.5: it guesses",
        0.9: "about 0.9: it trails a little",
        0.97: "about 0.97, as the model",
    }[min((0.5, 0.9, 0.97), key=lambda about: abs(about - average))]


def find_means_of_two_views():
    near, far = torch.randn(2, 64, 1, generator=torch.Generator().manual_seed(0))
    layer = nn.BatchNorm1d(1)
    for _ in range(100):
        layer(near), layer(far + 8)
    layer.eval()
    means = layer(near).mean().item(), layer(far + 8).mean().item()
    if max(map(abs, means)) < 0.1:
        return "0 and 0"
    return (
        "0 for far, the last; not for near"
        if abs(means[1]) < 0.1
        else ("one below 0, one above" if means[0] < 0 < means[1] else means)
    )


def compare_with_one():
    variance = 1 / find_stored_variance(torch.tensor([1.0, 3.0]), p=0.5)
    return "less than 1" if variance < 0.9 else "more than 1" if variance > 1.1 else "1 as well"


def find_stored_variance(numbers, p):
    """What BatchNorm has stored after Dropout, for numbers that are equally frequent."""
    norm = nn.BatchNorm1d(1, momentum=1)  # so that one large batch is enough to settle
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        nn.Sequential(nn.Dropout(p), norm)(numbers.repeat(100_000)[:, None])
    return norm.running_var.item()


RIGHT_ANSWERS = {
    "eval_column": find_eval_column(),
    "eval_with_flag_off": find_what_normalizes_without_the_flag(),
    "one_day_at_a_time": tell_one_day_at_a_time(),
    "frozen_by_gradient": find_unchanged(),
    "start_taken_out": take_out_the_start(),
    "averaged_parameters": measure_the_average(),
    "two_views": find_means_of_two_views(),
    "variance_after_dropout": compare_with_one(),
    "flag_set_after_training": find_what_normalizes(),
    "predictions_that_change": (count_changed(training=True), count_changed(training=False)),
    "counters_that_move": count_moved(),
    "mean_after_checkpoint": find_checkpointed_mean(),
    "variance_behind_dropout": find_variance_in_eval(),
    "mend_the_modes": normalize_by_mode,
    "mend_the_prediction": normalize_in_use,
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
    return normalize_in_use(x, running_mean, running_var)


def put_eps_outside(x, running_mean, running_var, training):
    mean, var = running_mean, running_var
    if training:
        mean, var = x.mean(dim=0), x.var(dim=0, correction=0)
    return (x - mean) / (var.sqrt() + 1e-5)


def when_training(function):
    """A mistake in training alone."""
    return lambda x, mean, var, training: (
        function(x) if training else normalize_in_use(x, mean, var)
    )


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
        ((1, 32), "Reversed"),
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
        (1 / torch.tensor([0.0, 2.0]).square().mean().item(), "*before* Dropout"),
        (1 / (2 / 0.2 - 1), "0.8 are kept"),
    ],
    "mend_the_modes": [
        (use_moved, "moved or not"),
        (lambda x, mean, var, training: normalize_in_use(x, mean, var), "of earlier batches"),
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
        (
            lambda x, mean, var: normalize_in_use(x, mean, x.var(0, correction=0)),
            "The mean is the running",
        ),
        (lambda x, mean, var: normalize_in_use(x, x.mean(0), var), "The variance is the running"),
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
        lambda x, mean, var, training: normalize_in_use(x, mean, var) + 1,
        3,
        lambda x: x,
        lambda x, mean, var, training: "batch",
        lambda x, mean, var, training: x.mean(dim=0),
    ],
    "mend_the_prediction": [
        lambda x, mean, var: normalize_in_use(x, mean, var) + 1,
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
