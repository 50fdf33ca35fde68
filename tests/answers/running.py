"""Answers to the questions of lesson 03: running statistics and momentum."""

import itertools
import math

import torch
from torch import nn

PAIR = torch.tensor([[-1.0], [1.0]])  # one channel, mean 0


def running_mean(means, momentum, start=0.0):
    """The one of a layer of torch.nn after batches with these means."""
    layer = nn.BatchNorm1d(1, momentum=momentum)
    layer.running_mean.fill_(start)
    for mean in means:
        layer(PAIR + mean)
    return layer.running_mean.item()


def count_until_forgotten(momentum, share):
    """Of a running mean that begins at 1 and meets only means of 0, until it is below the share."""
    layer = nn.BatchNorm1d(1, momentum=momentum)
    layer.running_mean.fill_(1)
    while layer.running_mean.item() >= share:
        layer(PAIR)
    return layer.num_batches_tracked.item()


def count_calls_of_a_step():
    """The lines of the exercise, as they stand in the lesson."""
    layer = nn.BatchNorm1d(1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    loss = layer(PAIR).square().mean()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        layer(PAIR)
    layer(PAIR)
    layer.eval()
    layer(PAIR)
    layer(PAIR)
    return layer.num_batches_tracked.item()


def moved(x, momentum, **buffer):
    """A running statistic of torch.nn's layer, from this value on, after this batch."""
    ((name, old),) = buffer.items()
    layer = nn.BatchNorm1d(x.shape[1], momentum=momentum)
    getattr(layer, name).copy_(old)
    layer(x)
    return getattr(layer, name)


def moved_mean(x, running_mean, momentum):
    return moved(x, momentum, running_mean=running_mean)


def moved_var(x, running_var, momentum):
    return moved(x, momentum, running_var=running_var)


def cure_lone_images():
    """What brings running_var within a tenth of the variance of all pixels."""
    generator = torch.Generator().manual_seed(0)
    brightness = 3 * torch.randn(512, 1, 1, 1, generator=generator)
    data = brightness + torch.randn(512, 1, 4, 4, generator=generator)
    again = data[torch.randperm(512, generator=generator)]
    tried = {
        "average": (None, data.split(1)),
        "larger": (None, data.split(32)),
        "longer": (0.1, data.split(1) * 4),
        "shuffle": (None, again.split(1)),
        "smaller": (0.01, data.split(1)),
    }
    variances = {}
    for name, (momentum, batches) in tried.items():
        layer = nn.BatchNorm2d(1, momentum=momentum)
        for batch in batches:
            layer(batch)
        variances[name] = layer.running_var.item()
    (cure,) = (name for name, var in variances.items() if abs(var / data.var().item() - 1) < 0.1)
    return cure


def first_to_move():
    """Of the parts of a training step, the first after which the running mean is another."""
    layer = nn.BatchNorm1d(1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    before, after = layer.running_mean.clone(), {}
    loss = layer(PAIR + 3).square().mean()
    after["forward"] = layer.running_mean.clone()
    loss.backward()
    after["backward()"] = layer.running_mean.clone()
    optimizer.step()
    after["optimizer.step()"] = layer.running_mean.clone()
    return next(part for part, mean in after.items() if mean != before)


def look_three_times():
    """What the running mean does while a loss is measured, told by its values."""
    layer = nn.BatchNorm1d(1)
    seen = [layer.running_mean.item()]
    with torch.no_grad():
        for _ in range(3):
            layer(PAIR + 3).square().mean()
            seen.append(layer.running_mean.item())
    moved = sum(old != new for old, new in itertools.pairwise(seen))
    return {0: "it stays", 1: "it moves once", 3: "it moves three times"}[moved]


def keep_log():
    """What a list holds to which the running mean was appended after each batch."""
    layer, log = nn.BatchNorm1d(1), []
    for mean in (3.0, 7.0, 4.0):
        layer(PAIR + mean)
        log.append(layer.running_mean)
    first, second, third = (f"{value.item():.4g}" for value in log)
    return f"{first} three times" if first == third else f"{first}, {second} and {third}"


def sorted_variance():
    layer = nn.BatchNorm1d(1, momentum=None)
    batches = torch.tensor([[8.0, 10, 12], [-8, -10, -12]])[:, :, None]
    for batch in batches:
        layer(batch)
    within, pooled = batches[0].var().item(), batches.var().item()
    words = {
        within: f"{within:.0f}, as in each batch",
        pooled: f"{pooled:.1f}, as of all six",
        (within + pooled) / 2: f"{(within + pooled) / 2:.1f}, halfway",
    }
    return words[layer.running_var.item()]


RIGHT_ANSWERS = {
    "part_that_moves_the_mean": first_to_move(),
    "three_looks": look_three_times(),
    "mean_after_one_batch": f"at {running_mean([4.0], momentum=0.25, start=8.0):.2g}",
    "log_of_the_mean": keep_log(),
    "mean_after_ten_batches": f"near {running_mean([50.0] * 10, momentum=0.1):.2g}",
    "variance_when_sorted": sorted_variance(),
    "momentum_copied_from_keras": f"to {running_mean([3.0], momentum=0.9):.2g}",
    "running_mean_after_three": running_mean([4.0, 8.0, 2.0], momentum=0.5),
    "first_of_four_batches": running_mean([1.0, 0.0, 0.0, 0.0], momentum=0.2),
    "batches_to_forget": count_until_forgotten(momentum=0.1, share=0.01),
    "momentum_for_keras": running_mean([1.0], momentum=1 - 0.99),
    "average_of_batches": running_mean([2.0, 4.0, 9.0], momentum=None),
    "count_of_batches": count_calls_of_a_step(),
    "cure_for_lone_images": cure_lone_images(),
    "mend_the_momentum": moved_mean,
    "mend_the_variance": moved_var,
}


# What people answer, and a word or two of what they are told.
WRONG_ANSWERS = {
    "running_mean_after_three": [
        (running_mean([4.0, 8.0, 2.0], momentum=None), "plain average"),
        (
            running_mean([2.0, 8.0, 4.0], momentum=0.5),
            "gave the oldest batch the largest",
        ),
        (0.5 * (0.5 * 4 + 0.5 * 8) + 0.5 * 2, "began with the first batch's mean"),
        (0.5 * (4 + 8 + 2), "gave each batch a half"),
        (running_mean([4.0, 8.0, 2.0], momentum=1.0), "last batch alone"),
    ],
    "first_of_four_batches": [
        (0.8**4, "the share of the start"),
        (running_mean([0.0, 0.0, 0.0, 1.0], momentum=0.2), "the share of the newest batch"),
        (running_mean([1.0, 0.0, 0.0, 0.0, 0.0], momentum=0.2), "One fading too many"),
        (running_mean([1.0, 0.0, 0.0], momentum=0.2), "One fading too few"),
        (0.2**4, "only the batch's own entry"),
        (0.8**3, "It began with less than 1"),
        (running_mean([1.0, 0.0, 0.0, 0.0], momentum=None), "plain average"),
        (running_mean([1.0, 0.0, 0.0, 0.0], momentum=0.8), "Reversed"),
    ],
    "batches_to_forget": [
        (count_until_forgotten(0.1, 0.01) - 1, "a little more than 1 %"),
        (math.log(0.01) / math.log(0.9), "Batches come whole"),
        (count_until_forgotten(0.1, 0.01) + 1, "one batch earlier"),
        (10, "It shrinks less each time"),
        (count_until_forgotten(0.1, 0.1), "just under 10 %"),
        (3, "not 0.1 of it"),
        (2, "0.1² is 1 %"),
        (count_until_forgotten(0.01, 0.01), "for momentum 0.01"),
        (100, "long forgotten"),
    ],
    "momentum_for_keras": [
        (0.99, "In torch, momentum is that of the new"),
        (nn.BatchNorm1d(1).momentum, "torch's default"),
        (0.9, "ONNX's default"),
        (1, "As a per cent"),
        (1.99, "lies between 0 and 1"),
        (-0.01, "The sign"),
    ],
    "average_of_batches": [
        ((0 + 2 + 4 + 9) / 4, "counted the start"),
        (((2 + 4) / 2 + 9) / 2, "averaged the average"),
        (running_mean([2.0, 4.0, 9.0], momentum=0.1), "That is momentum 0.1"),
        (running_mean([2.0, 4.0, 9.0], momentum=1.0), "last batch alone"),
        (running_mean([2.0, 4.0, 9.0], momentum=0.0), "does not switch the updates off"),
        (2 + 4 + 9, "That is the sum"),
    ],
    "count_of_batches": [
        (2, "no_grad stops gradients"),
        (1, "counts steps of the optimizer"),
        (5, "The last two calls are in eval"),
        (4, "Only calls of the layer count"),
        (6, "The two calls in eval move nothing"),
    ],
    "cure_for_lone_images": [
        ("average", "averages the batches' own variances"),
        (" Smaller", "averages over more batches"),
        ("longer", "the same small variances again"),
        ("shuffle", "Shuffled they are"),
    ],
    "mend_the_momentum": [
        (lambda x, old, p: moved_mean(x, old, 1 - p), "shares are swapped"),
        (lambda x, old, p: moved_mean(x, 0 * old, p), "The old value is missing"),
        (lambda x, old, p: moved_mean(x, old, p) + p * old, "stays as a whole"),
        (lambda x, old, p: moved_mean(x, old, 1.0), "new batch alone"),
        (lambda x, old, p: (1 - p) * old + p * x.mean(), "each channel has a mean of its own"),
        (lambda x, old, p: moved_mean(x * len(x), old, p), "the sum of the batch"),
    ],
    "mend_the_variance": [
        (
            lambda x, old, p: (1 - p) * old + p * x.var(dim=(0, 2), correction=0),
            "stores the biased variance",
        ),
        (
            lambda x, old, p: p * old + (1 - p) * x.var(dim=(0, 2), correction=0),
            "Look at the variance",
        ),
        (lambda x, old, p: moved_var(x, old, 1 - p), "the shares were right before"),
        (lambda x, old, p: (1 - p) * old + p * x.std(dim=(0, 2)), "the standard deviation"),
        (lambda x, old, p: moved_var(x, old, 1.0), "new batch alone"),
        (lambda x, old, p: (1 - p) * old + p * x.var(dim=2).mean(dim=0), "The samples are pooled"),
    ],
}

# Wrong answers that nobody thought of.
OTHER_ANSWERS = {
    "running_mean_after_three": [77, -3.5, 3.53, (3.5, 3.5), "3.5", True],
    "first_of_four_batches": [77, 0.11, (0.1024,), "0.1024"],
    "batches_to_forget": [77, 44.001, [44], "44", float("inf")],
    "momentum_for_keras": [0.5, 0.0102, (0.01,), None.__class__],
    "average_of_batches": [77, 5.1, (5.0,), "five"],
    "count_of_batches": [77, 3.0005, (3,), "three", True],
    "cure_for_lone_images": ["epoch", 3, True, ["larger"], "larger batches"],
    "mend_the_momentum": [
        lambda x, old, p: moved_mean(x, old, p) + 1,
        3,
        lambda x: x,
        lambda x, old, p: "mean",
        lambda x, old, p: x,
    ],
    "mend_the_variance": [
        lambda x, old, p: moved_var(x, old, p) + 1,
        3,
        lambda x: x,
        lambda x, old, p: x.var(),
        lambda x, old, p: moved_var(x, old, p)[:1],
    ],
}

# What would give an answer away.
TELLS = {
    "running_mean_after_three": r"3\.5",
    "first_of_four_batches": r"0\.1024|0\.2 · 0\.8³",
    "batches_to_forget": r"\b44\b|⁴⁴",
    "momentum_for_keras": r"\b0\.01\b",
    "average_of_batches": r"\b(5|five)\b",
    "count_of_batches": r"\b(3|three)\b",
    "cure_for_lone_images": '"larger"',
    "mend_the_momentum": r"\(1 - momentum\) \* running_mean",
    "mend_the_variance": r"correction=1",
}
