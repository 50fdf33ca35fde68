"""Lesson 09: several workers."""

import torch

from normviz.exercises.exercise import Exercise, Prediction
from normviz.judging import judge_function, judge_numbers


def _join(
    *,
    means: str = "count",
    within: str = "count",
    between: str = "count",
    told: int = 0,
    wanted: int = 0,
):
    """The variance of all numbers from those of the parts, right or wrong.

    Args:
        means: how the parts are weighed in the mean: by their ``"count"`` or ``"equal"``.
        within: how they are weighed in what varies within them.
        between: how in what lies between them; ``"none"`` leaves that out.
        told: 1 if each variance was divided by m - 1.
        wanted: 1 if the result is to be divided by the count of all less 1.
    """

    def join(of_means, of_variances, counts):
        by_count = (counts / counts.sum())[:, None]
        shares = {"count": by_count, "equal": torch.full_like(by_count, 1 / len(counts))}
        shares["none"] = 0 * by_count
        mean = (shares[means] * of_means).sum(0)
        own = of_variances * (((counts - 1) / counts)[:, None] if told else 1)
        off = (of_means - mean).square()
        var = (shares[within] * own).sum(0) + (shares[between] * off).sum(0)
        return var * counts.sum() / (counts.sum() - 1) if wanted else var

    return join


def _parts(correction: int) -> list[tuple]:
    """Means, variances and counts of random parts, of unequal sizes.

    First of three parts: two lie equally far from their middle, however they are weighed.
    """
    generator = torch.Generator().manual_seed(0)
    cases = []
    for sizes, channels in (([3, 5, 9], 2), ([2, 6], 4)):
        parts = [
            3 * torch.randn(size, channels, generator=generator) + 4 * rank
            for rank, size in enumerate(sizes)
        ]
        means = torch.stack([part.mean(0) for part in parts])
        variances = torch.stack([part.var(0, correction=correction) for part in parts])
        cases.append((means, variances, torch.tensor(sizes)))
    return cases


def _gradient(mean_1: str = "all", mean_y: str = "all"):
    """σ·dx of all parts, whose two means are each taken over all numbers, over a part, or added up.

    Args:
        mean_1: over what mean(g) is taken: ``"all"``, ``"own"``, ``"none"``, or all and the
            workers' means added up, ``"sum"``.
        mean_y: the same of mean(g·ŷ).
    """

    def mean(of, workers, kind):
        if kind == "own":
            parts = of.chunk(workers)
            return torch.cat([part.mean(0, keepdim=True).expand_as(part) for part in parts])
        return {"all": 1, "none": 0, "sum": workers}[kind] * of.mean(0)

    def gradient(g, y, workers):
        return g - mean(g, workers, mean_1) - y * mean(g * y, workers, mean_y)

    return gradient


def _gradient_cases() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    cases = []
    for shape, workers in (((4, 2), 2), ((9, 3), 3)):
        x = torch.randn(shape, generator=generator) + torch.arange(shape[0])[:, None]
        y = (x - x.mean(0)) / x.std(0, correction=0)
        cases.append((torch.randn(shape, generator=generator), y, workers))
    return cases


def _loss_cases() -> list[tuple]:
    """The losses of one part's samples, how many workers there are, and samples on all of them."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(3, 2, 8), (5, 4, 29)]
    return [(5 * torch.rand(own, generator=generator), *others) for own, *others in sizes]


PREDICTIONS: dict[str, Prediction] = {
    "two_numbers_each": Prediction(
        "−1 and 1 on both",
        {
            "worker 1's are farther apart": "Its numbers are, and so is its σ. Dividing by it "
            "brings both workers to the same distance.",
            "0 and 0 on both": "So it would be with one number each. Of two, each lies one σ away "
            "from their mean.",
        },
        praise="Two numbers lie one σ below and one σ above their mean, whatever they are.",
    ),
    "averaged_buffers": Prediction(
        "running_mean alone",
        {
            "both": "The means average well. But the variances are those within the parts; what "
            "lies between their means is in neither of them.",
            "running_var alone": "The other way round: means of equal parts average to the mean of "
            "all, variances miss what lies between.",
            "neither": "With equal parts, the mean of the means is the mean of all numbers. The "
            "variances do fail.",
        },
        praise="Means of equal parts average to that of all; variances lose what lies between.",
    ),
    "buffers_of_worker_1": Prediction(
        "2.4",
        {
            "6: what it saw": "So it would be if nobody wrote into its buffers. Before each pass "
            "they are overwritten.",
            "4: the mean of all": "Nobody averages: one worker's buffers are copied into the others.",
            "2: what worker 0 saw": "That is what arrives before the pass. The pass itself still "
            "moves it, by one batch of worker 1.",
        },
        praise="Worker 0's 2 arrives, and one batch with mean 6 moves it by a tenth of the way.",
    ),
    "naive_sync": Prediction(
        "for equal parts alone",
        {
            "for any parts": "With unequal parts, a number in a small part counts for more than one "
            "in a large part.",
            "never: the between is missing": "It would be if variances were averaged. But mean "
            "squares still hold how far the means are off.",
        },
        praise="It weighs workers equally, so they must have equally many numbers.",
    ),
    "weight_of_a_sample": Prediction(
        "three times as much",
        {
            "as much as each other one": "So it would be if the average were taken by sample. It "
            "is taken by worker.",
            "a third as much": "The other way round: one sample has worker 0's half to itself, and "
            "three share the other half.",
        },
        praise="1/2 against 1/6: workers count equally, not samples.",
    ),
    "one_worker_stops": Prediction(
        "an error: no answer came",
        {
            "it used its own part": "In training it needs what the others tell, and cannot "
            "know that one of them is done.",
            "it used worker 1's last part": "Nobody keeps what was told before. Each pass asks anew.",
        },
        praise="Each pass of training asks every worker of the group, and one did not answer.",
    ),
    "forward_only_sync": Prediction(
        "on neither",
        {
            "on both: σ is that of all": "σ is right. But each number of a worker also moves the "
            "mean and σ of all, and so the outputs of the other worker.",
            "on worker 1, where g is 0": "Its numbers move the mean and σ of all, and with them "
            "the first output. So they do get a gradient.",
        },
        praise="Each number moves the statistics of all, so the outputs of all have a say.",
    ),
    "which_are_converted": Prediction(
        "BatchNorm1d and Doubled",
        {
            "BatchNorm1d alone": "Doubled is a BatchNorm1d too: whatever stands below the class "
            "_BatchNorm is replaced.",
            "all but InstanceNorm1d": "normviz's BatchNorm1d does the same as PyTorch's, but it does "
            "not stand below PyTorch's class _BatchNorm.",
            "all": "InstanceNorm tracks, but it stands beside _BatchNorm in the class tree, not below "
            "it; and normviz's BatchNorm1d is no class of PyTorch's.",
        },
        praise="The converter asks for the class alone, not for what a layer does.",
    ),
}

EXERCISES: dict[str, Exercise] = {
    "noise_of_a_part": Exercise(
        judge_numbers(
            (2 / 15) ** 0.5,
            [
                ((2 / 127) ** 0.5, "That is for all 128 samples. Who pools them?"),
                ((2 / 7) ** 0.5, "That is for m = 8, the number of workers. How many has each?"),
                ((2 / 16) ** 0.5, "m is right. Under the root stands 2 / (m − 1)."),
                (2 / 15, "m is right. The root is missing."),
            ],
        ),
        praise="√(2/15), about 37 %. One worker with all 128 would be off by 13 %.",
        hint="How many samples does one worker pool? The formula is in section 2.",
        solution="128 / 8 = 16 samples each: √(2/(16 − 1)) = 0.365.",
    ),
    "joined_variance": Exercise(
        judge_numbers(
            12.5,
            [
                (0.5, "That is within alone. What lies between the means 10 and 2?"),
                (12.0, "That is between alone. Worker 1's numbers vary, too."),
                (50.0, "Those are the squares of all. Divide them by the count of all."),
                (50 / 3, "That is the unbiased variance. The biased one normalizes."),
                (16.5, "You took the mean of 10 and 2. Weigh it by the counts 1 and 3."),
                (49 / 3, "You weighed the workers equally. Weigh them by the counts 1 and 3."),
            ],
        ),
        praise="Mean 4; within 0 + 2, between 1 · 36 + 3 · 4: 50 in all, for four numbers.",
        hint="First the mean of all four numbers, by count. Then within and between, added up.",
        solution="12.5: the mean is (1·10 + 3·2) / 4 = 4. Within: 0 + 2 = 2. Between: "
        "1·(10 − 4)² + 3·(2 − 4)² = 48. (2 + 48) / 4.",
    ),
    "running_mean_of_worker_1": Exercise(
        judge_numbers(
            4.9,
            [
                (
                    6.7,
                    "That is what worker 1 would store on its own: 3, then 6.7. What arrives first?",
                ),
                (2.9, "That is worker 0's. Which batch moved worker 1's last?"),
                (4.8, "That is for one big batch, with means 20 and 30. Nobody joins them here."),
                (1.0, "That is what arrives before the second pass. The pass moves it."),
                (36.1, "Reversed: momentum 0.1 is the weight of the *new* batch."),
            ],
        ),
        praise="1 arrives from worker 0; then 0.9 · 1 + 0.1 · 40.",
        hint="What has worker 0 stored after its first pass? That is sent before the second.",
        solution="4.9: worker 0 stores 0.1 · 10 = 1 in the first pass. Before the second, that 1 is "
        "sent to worker 1, whose batch moves it: 0.9 · 1 + 0.1 · 40.",
    ),
    "mend_the_join": Exercise(
        judge_function(
            _join(),
            lambda: _parts(correction=0),
            [
                (
                    _join(means="equal", within="equal", between="equal"),
                    "It weighs all workers equally, however many samples they have: lesson 05's sum "
                    "for equal parts.",
                ),
                (
                    _join(between="none"),
                    "By count, but within alone. How far the parts' means lie apart is missing.",
                ),
                (
                    _join(within="equal", between="none"),
                    "The plain average of the variances. What lies between the means is missing, and "
                    "so are the counts.",
                ),
                (
                    _join(means="equal", between="equal"),
                    "Within is weighed by count now. Between still weighs workers equally.",
                ),
                (
                    _join(means="equal"),
                    "Within and between are weighed by count. The mean that between is measured from "
                    "is not.",
                ),
                (
                    _join(within="equal"),
                    "Between is weighed by count now. Within still weighs workers equally.",
                ),
                (
                    _join(wanted=1),
                    "That is the unbiased variance of all. The biased one is wanted.",
                ),
            ],
            slices="w c -> c",
        ),
        praise="Weighed by count: the mean, what is within, and what is between.",
        hint="Which argument is never used? It belongs in three places.",
        solution="def join_variances(means, variances, counts):\n"
        "    shares = (counts / counts.sum())[:, None]  # the counts were not used\n"
        "    mean = (shares * means).sum(dim=0)\n"
        "    within = (shares * variances).sum(dim=0)\n"
        "    between = (shares * (means - mean) ** 2).sum(dim=0)\n"
        "    return within + between",
    ),
    "mend_the_unbiased_join": Exercise(
        judge_function(
            _join(told=1, wanted=1),
            lambda: _parts(correction=1),
            [
                (
                    _join(wanted=1),
                    "An unbiased variance times m is not the sum of squares: it was divided by m − 1.",
                ),
                (
                    _join(told=1),
                    "The squares are right. Divided by the count of all, they give the biased variance.",
                ),
                (
                    _join(),
                    "Two things: a worker's variance was divided by m − 1, so multiply by that; and "
                    "at the end divide by the count of all less 1.",
                ),
                (
                    _join(told=1, wanted=1, between="none"),
                    "What lies between the means is missing now. It was right before.",
                ),
                (
                    _join(between="none"),
                    "Unbiased variances cannot be averaged by count: what lies between is missing.",
                ),
            ],
            slices="w c -> c",
        ),
        praise="Undo each part's own m − 1, add up, and divide once by the count of all less 1.",
        hint="What times the unbiased variance of m numbers gives their squares?",
        solution="def join_unbiased(means, variances, counts):\n"
        "    counts = counts[:, None]\n"
        "    mean = (counts * means).sum(dim=0) / counts.sum()\n"
        "    squares = (counts - 1) * variances + counts * (means - mean) ** 2  # counts - 1\n"
        "    return squares.sum(dim=0) / (counts.sum() - 1)",
    ),
    "mend_the_gradient": Exercise(
        judge_function(
            _gradient(),
            _gradient_cases,
            [
                (
                    _gradient("own", "own"),
                    "Both means are taken over a worker's own part. Each number moves the statistics "
                    "of all workers.",
                ),
                (_gradient("all", "own"), "mean(g) is that of all now. mean(g·ŷ) is not yet."),
                (_gradient("own", "all"), "mean(g·ŷ) is that of all now. mean(g) is not yet."),
                (
                    _gradient("sum", "sum"),
                    "The workers' means were added up. They have to be averaged.",
                ),
                (
                    _gradient("all", "none"),
                    "The last term is missing: x moves σ, too.",
                ),
                (
                    _gradient("none", "none"),
                    "That is the gradient of eval, where no number moves the statistics.",
                ),
            ],
            slices="n c -> c",
        ),
        praise="Two means over all workers: the backward pass has to ask them.",
        hint="Over which numbers were the mean and σ of the forward pass taken?",
        solution="def gradient_of_parts(g, y, workers):\n"
        "    return g - g.mean(dim=0) - y * (g * y).mean(dim=0)  # over all parts, not over each",
    ),
    "samples_in_a_mean": Exercise(
        judge_numbers(
            32,
            [
                (256, "Those are all samples of a step. Do passes of accumulation share a mean?"),
                (64, "That is a worker's share of the step. It takes it in 8 passes."),
                (8, "That is what one worker has in a pass. SyncBatchNorm joins the workers."),
            ],
        ),
        praise="256 / 8 passes: SyncBatchNorm joins the workers of a pass, and nothing joins passes.",
        hint="How many samples are there in one pass, on all workers together?",
        solution="256 / 8 = 32: one pass has 8 samples on each of 4 workers, and SyncBatchNorm joins "
        "those. The passes stay apart.",
    ),
    "mend_the_loss": Exercise(
        judge_function(
            lambda losses, workers, count: losses.sum() / count,
            _loss_cases,
            [
                (
                    lambda losses, workers, count: workers * losses.sum() / count,
                    "`workers` makes up for an average over the workers. Here nobody divides by it.",
                ),
                (
                    lambda losses, workers, count: losses.mean(),
                    "With a mean each, workers count alike, whatever the size of their parts.",
                ),
                (
                    lambda losses, workers, count: losses.mean() / workers,
                    "That is the average over workers: they count alike, whatever their parts.",
                ),
                (
                    lambda losses, workers, count: losses.sum(),
                    "A sum treats samples alike, but grows with the batch: `count` is missing.",
                ),
                (
                    lambda losses, workers, count: losses.mean() / count,
                    "Divided twice, by the own count and by that of all. Begin with the sum.",
                ),
            ],
            slices="n ->",
        ),
        praise="The own sums, each divided by the count of all, add up to the mean of all.",
        hint="Add up what all workers return: is it the mean of all losses?",
        solution="def loss_of_part(losses, workers, count):\n"
        "    return losses.sum() / count  # what is added up is not divided again",
    ),
}
