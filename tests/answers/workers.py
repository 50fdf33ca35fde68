"""Answers to the exercises of lesson 09: several workers."""

from math import inf, nan, sqrt

import numpy as np
import torch
from torch import nn

from normviz import BatchNorm1d


def of_two_numbers():
    """What plain BatchNorm makes of (1, 3), and of (0, 100)."""
    parts = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [100.0]])
    return torch.stack([nn.BatchNorm1d(1, affine=False)(part)[:, 0] for part in parts])


def buffers_that_average():
    """Of the running statistics, which average to those of one big batch."""
    torch.manual_seed(0)
    x = torch.randn(8, 3, dtype=torch.float64) + torch.arange(8)[:, None]
    layers = [nn.BatchNorm1d(3).double() for _ in range(3)]
    for layer, part in zip(layers, (x, x[:4], x[4:]), strict=True):
        layer(part)
    one, *workers = [layer.state_dict() for layer in layers]
    return tuple(
        name
        for name in ("running_mean", "running_var")
        if torch.allclose((workers[0][name] + workers[1][name]) / 2, one[name])
    )


def running_means(of_worker_0, of_worker_1, passes=1):
    """What two workers store whose batches have these means, the first one's buffers being sent."""
    layers = [nn.BatchNorm1d(1).double() for _ in range(2)]
    for _ in range(passes):
        for means in zip(of_worker_0, of_worker_1, strict=True):
            layers[1].load_state_dict(layers[0].state_dict())
            for layer, mean in zip(layers, means, strict=True):
                layer(torch.tensor([[mean - 1.0], [mean + 1.0]], dtype=torch.float64))
    return [layer.running_mean.item() for layer in layers]


def naive_is_right(sizes):
    """Whether averaged means and mean squares give the mean and variance of all."""
    torch.manual_seed(0)
    x = torch.randn(sum(sizes), dtype=torch.float64) + torch.arange(sum(sizes))
    parts = x.split(sizes)
    mean = torch.stack([part.mean() for part in parts]).mean()
    square = torch.stack([part.square().mean() for part in parts]).mean()
    told, wanted = torch.stack([mean, square - mean**2]), [x.mean(), x.var(correction=0)]
    return torch.allclose(told, torch.stack(wanted))


def weight_of_first(sizes):
    """How much the first sample counts beside the last, if mean losses of parts are averaged."""
    weight = torch.ones(sum(sizes), requires_grad=True)
    parts = torch.eye(sum(sizes)).split(sizes)
    torch.stack([(part @ weight).mean() for part in parts]).mean().backward()
    return round((weight.grad[0] / weight.grad[-1]).item(), 6), weight.grad[0].item()


def torch_gradient(g, y, _):
    """σ·dx by autograd, of what is normalized already, so that σ is 1."""
    y = y.double().requires_grad_()
    layer = nn.BatchNorm1d(y.shape[1], affine=False, eps=1e-12).double()
    return torch.autograd.grad(layer(y), y, g.double())[0]


def gradient_by_part(g, y, workers):
    """The lesson's own bug."""
    parts = zip(g.chunk(workers), y.chunk(workers), strict=True)
    return torch.cat([g - g.mean(dim=0) - y * (g * y).mean(dim=0) for g, y in parts])


def where_own_means_are_right():
    """On which of two workers."""
    torch.manual_seed(0)
    g, y = torch.randn(2, 6, 1, dtype=torch.float64)
    y = (y - y.mean()) / y.std(correction=0)
    off = (gradient_by_part(g, y, 2) - torch_gradient(g, y, 2)).abs()
    return tuple(part.max().item() < 1e-6 for part in off.chunk(2))


def which_are_converted():
    class Doubled(nn.BatchNorm1d):
        pass

    tracked = nn.InstanceNorm1d(2, track_running_stats=True)
    layers = nn.Sequential(nn.BatchNorm1d(2), tracked, Doubled(2), BatchNorm1d(2))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(layers)
    return tuple(isinstance(layer, nn.SyncBatchNorm) for layer in converted)


def numbers_of(means, variances, counts, correction):
    """Numbers that have these means and variances, part by part."""
    generator = torch.Generator().manual_seed(1)
    for mean, var, count in zip(means, variances, counts.tolist(), strict=True):
        x = torch.randn(count, len(mean), generator=generator, dtype=torch.float64)
        x = (x - x.mean(0)) / x.std(0, correction=correction)
        yield mean + x * var.double().sqrt()


def torch_join(means, variances, counts):
    return torch.cat([*numbers_of(means, variances, counts, 0)]).var(0, correction=0)


def torch_join_unbiased(means, variances, counts):
    return torch.cat([*numbers_of(means, variances, counts, 1)]).var(0)


def join_equally(means, variances, counts):
    """The lesson's own bug."""
    return variances.mean(dim=0) + means.var(dim=0, correction=0)


def within_by_count(means, variances, counts):
    return (counts[:, None] * variances).sum(0) / counts.sum()


def between_by_count(means, counts):
    mean = (counts[:, None] * means).sum(0) / counts.sum()
    return (counts[:, None] * (means - mean) ** 2).sum(0) / counts.sum()


def join_about_plain_mean(means, variances, counts):
    between = (counts[:, None] * (means - means.mean(0)) ** 2).sum(0) / counts.sum()
    return within_by_count(means, variances, counts) + between


def join_squares_of_m(means, variances, counts):
    """The lesson's own bug."""
    squares = within_by_count(means, variances, counts) + between_by_count(means, counts)
    return squares * counts.sum() / (counts.sum() - 1)


def unbiased_by_count(x, y, m):
    return torch_join_unbiased(x, y, m) * (m.sum() - 1) / m.sum()


def own_mean_y(g, y, workers):
    own = torch.cat([part.mean(0).expand_as(part) for part in (g * y).chunk(workers)])
    return g - g.mean(0) - y * own


def own_mean_1(g, y, workers):
    own = torch.cat([part.mean(0).expand_as(part) for part in g.chunk(workers)])
    return g - own - y * (g * y).mean(0)


def torch_loss(losses, _, count):
    """What, added up over the workers, is a mean over all: by linearity, of this part alone."""
    others = torch.zeros(count - len(losses), dtype=losses.dtype)
    return torch.cat([losses, others]).mean()


def joined(*parts, correction=0):
    return np.concatenate(parts).var(ddof=correction).item()


RIGHT_ANSWERS = {
    "two_numbers_each": {
        (-1.0, 1.0, -1.0, 1.0): "−1 and 1 on both",
        (0.0, 0.0, 0.0, 0.0): "0 and 0 on both",
    }[tuple(of_two_numbers().round().flatten().tolist())],
    "averaged_buffers": {
        (): "neither",
        ("running_mean",): "running_mean alone",
        ("running_var",): "running_var alone",
        ("running_mean", "running_var"): "both",
    }[buffers_that_average()],
    "buffers_of_worker_1": {
        6: "6: what it saw",
        4: "4: the mean of all",
        2.4: "2.4",
        2: "2: what worker 0 saw",
    }[round(running_means([2], [6], passes=300)[1], 6)],
    "naive_sync": {
        (True, True): "for any parts",
        (True, False): "for equal parts alone",
        (False, False): "never: the between is missing",
    }[naive_is_right([3, 3]), naive_is_right([1, 5])],
    "weight_of_a_sample": {
        1: "as much as each other one",
        3: "three times as much",
        round(1 / 3, 6): "a third as much",
    }[weight_of_first([1, 3])[0]],
    "one_worker_stops": "an error: no answer came",  # see test_sync_batch_norm
    "forward_only_sync": {
        (True, True): "on both: σ is that of all",
        (False, False): "on neither",
    }[where_own_means_are_right()],
    "which_are_converted": {
        (True, False, False, False): "BatchNorm1d alone",
        (True, False, True, False): "BatchNorm1d and Doubled",
        (True, False, True, True): "all but InstanceNorm1d",
        (True, True, True, True): "all",
    }[which_are_converted()],
    "noise_of_a_part": sqrt(2 / (128 // 8 - 1)),
    "joined_variance": joined([10], [1, 2, 3]),
    "running_mean_of_worker_1": running_means([10, 20], [30, 40])[1],
    "mend_the_join": torch_join,
    "mend_the_unbiased_join": torch_join_unbiased,
    "mend_the_gradient": torch_gradient,
    "mend_the_loss": torch_loss,
    "samples_in_a_mean": 4 * len(torch.empty(256).chunk(4)[0].chunk(8)[0]),
}

# What people answer, and a word or two of what they are told.
WRONG_ANSWERS = {
    "noise_of_a_part": [
        (sqrt(2 / 127), "for all 128"),
        (sqrt(2 / 7), "the number of workers"),
        (sqrt(2 / 16), "2 / (m − 1)"),
        (2 / 15, "root is missing"),
    ],
    "joined_variance": [
        (2 / 4, "within alone"),
        (joined([10], [2, 2, 2]), "between alone"),
        (4 * joined([10], [1, 2, 3]), "the squares of all"),
        (joined([10], [1, 2, 3], correction=1), "the unbiased variance"),
        ((0 + 2 + 1 * 16 + 3 * 16) / 4, "the mean of 10 and 2"),
        ((0 + 2 / 3) / 2 + 16, "weighed the workers equally"),
    ],
    "running_mean_of_worker_1": [
        (0.9 * 3 + 0.1 * 40, "on its own"),
        (running_means([10, 20], [30, 40])[0], "worker 0's"),
        (running_means([20, 30], [20, 30])[0], "one big batch"),
        (0.1 * 10, "arrives before"),
        (0.1 * 1 + 0.9 * 40, "Reversed"),
    ],
    "mend_the_join": [
        (join_equally, "weighs all workers equally"),
        (within_by_count, "within alone"),
        (lambda means, variances, counts: variances.mean(0), "The plain average"),
        (
            lambda x, y, m: within_by_count(x, y, m) + x.var(0, correction=0),
            "Between still weighs workers equally",
        ),
        (join_about_plain_mean, "measured from"),
        (lambda x, y, m: y.mean(0) + between_by_count(x, m), "Within still weighs"),
        (lambda x, y, m: torch_join(x, y, m) * m.sum() / (m.sum() - 1), "the unbiased variance"),
    ],
    "mend_the_unbiased_join": [
        (join_squares_of_m, "divided by m − 1"),
        (unbiased_by_count, "they give the biased variance"),
        (lambda x, y, m: within_by_count(x, y, m) + between_by_count(x, m), "Two things"),
        (
            lambda x, y, m: ((m - 1)[:, None] * y).sum(0) / (m.sum() - 1),
            "It was right before",
        ),
        (within_by_count, "cannot be averaged by count"),
    ],
    "mend_the_gradient": [
        (gradient_by_part, "a worker's own part"),
        (own_mean_y, "mean(g) is that of all now"),
        (own_mean_1, "mean(g·ŷ) is that of all now"),
        (
            lambda g, y, workers: g - workers * (g.mean(0) + y * (g * y).mean(0)),
            "were added up",
        ),
        (lambda g, y, workers: g - g.mean(0), "The last term is missing"),
        (lambda g, y, workers: g, "the gradient of eval"),
    ],
    "mend_the_loss": [
        (lambda losses, workers, count: losses.sum() * workers / count, "Here nobody divides"),
        (lambda losses, workers, count: losses.mean(), "With a mean each"),
        (lambda losses, workers, count: losses.mean() / workers, "the average over workers"),
        (lambda losses, workers, count: losses.sum(), "grows with the batch"),
        (lambda losses, workers, count: losses.mean() / count, "Divided twice"),
    ],
    "samples_in_a_mean": [
        (256, "all samples of a step"),
        (256 // 4, "a worker's share"),
        (256 // 4 // 8, "one worker has in a pass"),
    ],
}

# Wrong answers that nobody thought of.
OTHER_ANSWERS = {
    "noise_of_a_part": [0.5, nan, "√(2/15)", (0.365, 0.365)],
    "joined_variance": [7, inf, "12.5", (12.5, 4)],
    "running_mean_of_worker_1": [40, nan, "4.9", (1, 4.9)],
    "mend_the_join": [
        lambda means, variances, counts: means,
        lambda means, variances, counts: variances.sum(0),
        lambda means: means,
        lambda *told: "variance",
        3,
    ],
    "mend_the_unbiased_join": [
        lambda means, variances, counts: means.mean(0),
        lambda means, variances, counts: variances,
        lambda *told: counts_that_are_missing,  # noqa: F821
        12.5,
    ],
    "mend_the_gradient": [
        lambda g, y, workers: y,
        lambda g, y, workers: -torch_gradient(g, y, workers),
        lambda g, y, workers: g.tolist()[0],
        lambda g: g,
        "g",
    ],
    "mend_the_loss": [
        lambda losses, workers, count: losses.max(),
        lambda losses, workers, count: losses,
        lambda losses: losses.sum(),
        lambda *told: "loss",
        0.5,
    ],
    "samples_in_a_mean": [4, 8.5, "32", (32, 32)],
}

# What would give an answer away.
TELLS = {
    "noise_of_a_part": r"0\.365",
    "joined_variance": r"\b12\.5",
    "running_mean_of_worker_1": r"\b4\.9",
    "mend_the_join": r"shares = \(counts",
    "mend_the_unbiased_join": r"\(counts - 1\) \* variances",
    "mend_the_gradient": r"return g - g\.mean",
    "mend_the_loss": r"sum\(\) / count",
    "samples_in_a_mean": r"\b32\b",
}
