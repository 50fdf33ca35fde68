"""Lesson 04: why one variance is divided by m, and the other by m − 1."""

import torch

from normviz.exercises.exercise import Exercise, Prediction
from normviz.exercises.norms import norm_over
from normviz.judging import judge_choice, judge_function, judge_numbers


def _batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 3), (5, 2, 1), (3, 1, 7)]
    return [3 * torch.randn(shape, generator=generator) + 2 for shape in shapes]


def _batches_and_a_faint_one() -> list[torch.Tensor]:
    """Ordinary batches first, then one in which ε counts."""
    generator = torch.Generator().manual_seed(1)
    return [*_batches(), 0.003 * torch.randn((4, 3, 2), generator=generator)]


def _rows() -> list[torch.Tensor]:
    """Ordinary rows first, then some in which ε counts."""
    generator = torch.Generator().manual_seed(0)
    ordinary, faint = (torch.randn(shape, generator=generator) for shape in ((3, 4), (2, 5)))
    return [ordinary, 0.003 * faint]


def _store(x, *, correction=1, pooled=(0, 2)):
    return x.var(dim=pooled, correction=correction)


def _count(x):
    return x.shape[0] * x.shape[2]


def _bessel(m):
    return m / (m - 1)


PREDICTIONS: dict[str, Prediction] = {
    "biased_on_average": Prediction(
        "half of it",
        {
            "the truth itself": "Luck goes both ways, so this sounds right. But these do not "
            "balance: three of the nine are 0, four are 1, and only two are 4.",
            "two thirds of it": "That is how 14/3 compares with 14/2, for m = 3. Here m is 2. "
            "Count: three of the nine are 0, four are 1, and two are 4.",
        },
        praise="(0 + 1 + 4 + 1 + 0 + 1 + 4 + 1 + 0)/9 = 12/9, half of 24/9.",
    ),
    "about_true_mean": Prediction(
        "about 4",
        {
            "below 4 again": "That looks for the fault in the numbers drawn. They are fine: only "
            "the centre has changed, and nothing is missing any more.",
            "above 4": "The squares are larger than about the own mean, by just as much as was "
            "missing.",
        },
        praise="About the true mean, a square is the true variance on average: that is what this "
        "variance means. So a plain mean over m is right.",
    ),
    "stored_biased_in_eval": Prediction(
        "about 1.5",
        {
            "about 0.67": "Reversed: the layer divides by the stored variance. Divided by two thirds, "
            "a number becomes larger.",
            "about 1, as before": "That would be so if eval divided the numbers by their own "
            "variance. It divides by the stored one.",
        },
        praise="Divided by two thirds of the right variance, the new numbers have 3/2 of 1.",
    ),
    "flat_images": Prediction(
        "about 2",
        {
            "about 4": "200/199 is right for 200 independent draws. Here, two numbers were drawn, "
            "and copied a hundred times each.",
            "about 8": "That is twice the truth. The factor 200/199 is far too small for that.",
        },
        praise="Two draws have half of the variance on average, and 200/199 changes next to nothing.",
    ),
    "twenty_in_eval": Prediction(
        "about 0.85",
        {
            "about 1": "In training it is, for each layer normalizes anew. In eval a layer only "
            "divides by what it has stored, and 64/63 is a little too much, nineteen times.",
            "about 1.15": "Reversed: to store too much means to divide by too much.",
        },
        praise="Each of the 19 other layers divides by √(64/63) where 1 would be right.",
    ),
    "group_of_one": Prediction(
        "only zeros",
        {
            "only −1 and 1": "So it would be if the two rows shared a mean in each column, as in "
            "BatchNorm. GroupNorm pools no rows: here, each number is alone with its mean.",
            "the rows as they are": "The mean of a single number is that number, and the layer "
            "subtracts it.",
        },
        praise="A number minus itself is 0, and 0/√(0 + ε) is 0.",
    ),
    "nothing_left": Prediction(
        "10,000",
        {
            "1,000": "The squares are near 1,000,000 then, where the gap is 0.0625: the result is "
            "off in its third digit, but not lost.",
            "10,000,000": "There the gap of the numbers themselves is 1. But the shortcut "
            "subtracts their *squares*, which have twice as many digits.",
        },
        praise="10,000² is 100,000,000; a ten-millionth of that is more than 4.6667.",
    ),
    "coin_with_both_edges": Prediction(
        "about 0.225, as for all",
        {
            "0.25, for none is missed": "So it should be, if missed edges were the reason. But "
            "each sample's mean is still fitted to it.",
            "about 0.24, in between": "All equal were only two of 1024 samples. Without them the "
            "average rises by less than a thousandth.",
        },
        praise="Both edges are there, and the mean is still fitted to the sample.",
    ),
}

EXERCISES = {
    "correction_factor": Exercise(
        judge_numbers(
            1.25,
            [
                (0.8, "Reversed: that would make the variance smaller still."),
                (1.2, "That is (m + 1)/m. The correction divides by *less* than m."),
                (
                    1.11803,
                    "That is the factor of the standard deviation. The variance has no root.",
                ),
                (1.0, "With factor 1, nothing is corrected."),
                (
                    4.0,
                    "That is m − 1, by which the squares are divided. What was done with m before?",
                ),
            ],
        ),
        praise="m/(m − 1) = 5/4: no longer a fifth of the squares, but a fourth.",
        hint="Multiply by m to get the sum of squares back; then divide it by m − 1.",
        solution="5/4 = 1.25. The biased variance is Σ/5 and the unbiased one Σ/4.",
    ),
    "corrected_to_store": Exercise(
        judge_numbers(
            16.0,
            [
                (12.0, "That is the biased variance; it normalizes. Another one is stored."),
                (9.0, "Reversed: 12 · 3/4 is smaller still. The correction enlarges."),
                (15.0, "That is 12 · 5/4. The factor is m/(m − 1), and m is 4."),
                (48.0, "That is the sum of squares, 12 · 4. It is still to be divided."),
                (4.0, "12 is the variance, not the sum of squares. Multiply by m first."),
                (
                    2.5,
                    "With momentum 1, the old value has no weight, and the new batch has all of it.",
                ),
                (
                    2.1,
                    "That is 0.9 · 1 + 0.1 · 12. With momentum 1, nothing of the old value is kept; "
                    "and 12 is the variance that normalizes, not the one that is stored.",
                ),
            ],
        ),
        praise="12 · 4/3: the layer stores the unbiased variance.",
        hint="From the biased variance back to the sum of squares; then divide by m − 1.",
        solution="The squares add up to 12 · 4 = 48, and 48 / 3 = 16 is stored.",
    ),
    "average_biased_variance": Exercise(
        judge_numbers(
            15.0,
            [
                (
                    20.0,
                    "That is the average of the unbiased ones. The biased ones are smaller.",
                ),
                (26.66667, "That is larger than the truth. Biased variances are too small."),
                (5.0, "That is σ²/m: how much they lack. What is left?"),
                (16.0, "That is 4/5 of it. The fraction is (m − 1)/m, and m is 4."),
                (10.0, "That is half of it, as for m = 2. Here m is 4."),
                (60.0, "That is (m − 1)σ², the average *sum* of squares. Divide it by m."),
            ],
        ),
        praise="20 · 3/4: a fourth goes with the mean.",
        hint="What fraction of the truth did m = 2 and m = 3 give in the lesson?",
        solution="(m − 1)/m of the truth: 20 · 3/4 = 15.",
    ),
    "known_mean": Exercise(
        judge_numbers(
            8.66667,
            [
                (13.0, "The mean was not fitted to the sample, so there is nothing to correct."),
                (
                    7.0,
                    "That is unbiased too, but measured from the sample's own mean, 12. Use the true one.",
                ),
                (
                    4.66667,
                    "You measured from the sample's own mean, and did not correct either.",
                ),
                (26.0, "That is the sum of squares. Divide it."),
                (2.94392, "That is the standard deviation. The variance is asked for."),
            ],
        ),
        praise="(1 + 9 + 16) / 3. With the true mean, dividing by m is right.",
        hint="From where are the distances measured? And was that centre fitted to the sample?",
        solution="The distances from 10 are −1, 3 and 4, so (1 + 9 + 16) / 3 = 26/3 = 8.667. "
        "No correction: the true mean was not fitted to these numbers. (About their own mean, "
        "12, the squares are only 9 + 1 + 4 = 14, and 14 / 2 = 7 is unbiased, too.)",
    ),
    "what_mends_the_shortage": Exercise(
        judge_choice(
            "population",
            {
                "draws": "That makes the average steadier. It stays where it is, at (m − 1)/m of "
                "the truth.",
                "other": "That mean was not fitted to this sample, but it misses the true one, "
                "too. So the squares about it are too large, on average by σ²/m.",
                "larger": "That brings the average nearer to the truth: (m − 1)/m grows. But it "
                "never reaches 1.",
            },
        ),
        praise="About the true mean, each square is σ² on average.",
        hint="About which of these centres is a square σ² on average?",
        solution='"population": about the true mean, each square is σ² on average, so a plain '
        "mean over m is right. About another sample's mean, it is σ² + σ²/m.",
    ),
    "why_layernorm_divides_by_m": Exercise(
        judge_choice(
            "scale",
            {
                "large": "Often it is. But LayerNorm(2) divides by 2 as well, where it matters most.",
                "single": "How many rows there are does not count: BatchNorm normalizes many, "
                "and divides by m, too.",
                "weight": "They could, but a fresh layer has weight 1 and bias 0, and divides by "
                "m already.",
            },
        ),
        praise="The mean of their squares becomes 1, and nothing is kept for other numbers.",
        hint="What is the variance used for, and is it kept for other data?",
        solution='"scale": the mean of the squares of these very numbers is to become 1. They are all there '
        "is, so a plain mean over m will do. A correction is for an estimate, and LayerNorm makes "
        "none.",
    ),
    "mend_the_normalization": Exercise(
        judge_function(
            norm_over((0, 2)),
            _batches_and_a_faint_one,
            [
                (
                    norm_over((0, 2), correction=1),
                    "That divides by the unbiased variance, so the result is too small. torch's "
                    "var() divides by m − 1 if nothing else is said.",
                ),
                (
                    norm_over((0, 2), root=1),
                    "That divides by the variance. Divide by its root.",
                ),
                (
                    norm_over(0),
                    "That pools axis 0 only. The positions share the mean and variance, too.",
                ),
                (
                    norm_over(2),
                    "That is one mean per row and channel. Pool axis 0 as well.",
                ),
                (
                    norm_over((0, 2), correction=1, factor=lambda x: _bessel(_count(x))),
                    "That corrects the wrong way, and twice: var() has divided by m − 1 already, "
                    "and m/(m − 1) makes it larger still.",
                ),
                (
                    norm_over((0, 2), correction=1, factor=lambda x: 1 / _bessel(x.shape[0])),
                    "To undo the correction is one way, but m is N · L here, not N: all of these "
                    "numbers share a mean.",
                ),
                (
                    norm_over((0, 2), eps=0, outside=1e-5),
                    "ε stands outside the root. Where the variance is tiny, as here, that is far "
                    "less than the layer adds.",
                ),
                (
                    norm_over((0, 2), eps=0),
                    "There is no ε. Where the variance is tiny, as here, it counts.",
                ),
            ],
            slices="n c l -> c",
        ),
        praise="Normalized with m, and ε inside the root.",
        hint="Which variance normalizes, and which one does x.var() give by default?",
        solution="def normalize_batch(x, eps=1e-5):\n"
        "    mean = x.mean(dim=(0, 2), keepdim=True)\n"
        "    var = x.var(dim=(0, 2), keepdim=True, correction=0)\n"
        "    return (x - mean) / (var + eps).sqrt()",
    ),
    "mend_the_epsilon": Exercise(
        judge_function(
            norm_over(1),
            _rows,
            [
                (
                    norm_over(1, eps=0, outside=1e-5),
                    "ε stands outside the root. Where the variance is tiny, as here, that is far "
                    "less than the layer adds.",
                ),
                (
                    norm_over(1, eps=0),
                    "There is no ε. Where the variance is tiny, as here, it counts.",
                ),
                (
                    norm_over(1, outside=1e-5),
                    "ε is added twice, inside the root and outside.",
                ),
                (
                    norm_over(1, correction=1),
                    "That is the unbiased variance. LayerNorm divides by m.",
                ),
                (
                    norm_over(0),
                    "That normalizes the columns, as BatchNorm does. LayerNorm(C) takes rows.",
                ),
            ],
            slices="n c -> n",
        ),
        praise="√(variance + ε): inside the root, ε counts even for tiny variances.",
        hint="For a variance of 0.000009, compare its root plus ε with what the layer divides by.",
        solution="def normalize_rows(x, eps=1e-5):\n"
        "    centred = x - x.mean(dim=1, keepdim=True)\n"
        "    var = centred.square().mean(dim=1, keepdim=True)\n"
        "    return centred / (var + eps).sqrt()",
    ),
    "mend_the_correction": Exercise(
        judge_function(
            _store,
            _batches,
            [
                (
                    lambda x: _store(x, correction=0) / _bessel(_count(x)),
                    "The factor is upside down: it makes a variance that is too small smaller still.",
                ),
                (
                    lambda x: _store(x, correction=0),
                    "That is the biased variance. The unbiased one is stored.",
                ),
                (
                    lambda x: _store(x) * _bessel(_count(x)),
                    "That corrects twice: var() with correction 1 has divided by m − 1 already.",
                ),
                (
                    lambda x: _store(x, correction=0) * _bessel(x.shape[0]),
                    "m is how many numbers share the mean: N · L of them, not N.",
                ),
                (
                    lambda x: _store(x, correction=0) * _count(x),
                    "That is the sum of squares. Divide it by m − 1.",
                ),
                (
                    lambda x: _store(x).sqrt(),
                    "That is the standard deviation. The variance is stored.",
                ),
                (
                    lambda x: _store(x, pooled=2 if x.shape[2] > 1 else 0),
                    "That is one variance per row and channel. Pool axis 0 as well.",
                ),
            ],
            slices="n c l -> c",
        ),
        praise="The squares divided by m − 1, one variance per channel.",
        hint="Should the stored variance be larger than the biased one, or smaller?",
        solution="def variance_to_store(x):\n"
        "    m = x.shape[0] * x.shape[2]\n"
        "    biased = x.var(dim=(0, 2), correction=0)\n"
        "    return biased * m / (m - 1)",
    ),
}
