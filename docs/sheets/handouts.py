"""A handout for each lesson: its most telling picture, a question, and room for the answer."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from addresses import SOURCE
from normviz.svg import svg_text
from sheets.figures import (
    draw_boxes,
    draw_curves,
    draw_gradient,
    draw_images,
    draw_modes,
    draw_relatives,
    draw_samples,
    draw_scaled,
    draw_tokens,
    draw_workers,
)
from sheets.paper import BOTTOM, LEFT, TOP, WIDTH, page, path, write

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
RIGHT, ASIDE = WIDTH - LEFT, 556  # where the page ends, and where the question starts


@dataclass(frozen=True)
class Handout:
    """What is particular to one lesson."""

    draw: Callable[[], list[str]]
    question: str
    answer: str


def draw_handout(name: str) -> str:
    """The handout of the lesson with this file name."""
    handout, (title, remember) = HANDOUTS[name], read_lesson(name)
    question = write(ASIDE, TOP + 10, handout.question, 38, "body", 16)
    answer = write(LEFT, 537, f"Answer: {handout.answer}", 132)
    answer += write(LEFT, 537 + 11 * len(answer), f"Remember: {remember}", 116, "bold")
    return page(
        f"Handout {name[:2]}: {title}",
        [
            svg_text(LEFT, 30, f"Lesson {name[:2]}", "body grey"),
            svg_text(LEFT, 56, title, "title"),
            svg_text(ASIDE, 30, "Name", "body grey"),
            path("fine", (ASIDE + 36, 32), (RIGHT, 32)),
            path("fine", (LEFT, 68), (RIGHT, 68)),
            *handout.draw(),
            *question,
            *(
                path("fine", (ASIDE, y), (RIGHT, y))
                for y in range(BOTTOM, TOP + 16 * len(question) + 20, -24)
            ),
            path("fine", (LEFT, 521), (RIGHT, 521)),
            f'<g transform="rotate(180 {(LEFT + 620) / 2:g} 554)">{"".join(answer)}</g>',
            svg_text(RIGHT, 562, "normviz", "body bold", "end"),
            svg_text(RIGHT, 574, SOURCE, "grey", "end"),
        ],
    )


def read_lesson(name: str) -> tuple[str, str]:
    """A lesson's title, and the first thing to remember of it, without Markdown's signs."""
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    told = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    [remember] = re.findall(r"^## Remember\n+1\. (.*)", "\n\n".join(told), re.MULTILINE)
    return told[0].partition("\n")[0].removeprefix("# "), re.sub(r"\*\*|`", "", remember)


HANDOUTS = {
    "01_one_mean_per_channel": Handout(
        draw_images,
        "BatchNorm2d(3) gets this batch of three images, with three channels of 2 × 2 pixels. "
        "Mark every number that shares a mean with the framed 4. What is that mean, and how "
        "many means are there in all?",
        "the twelve numbers of channel 1, in all samples: 4 to 7, 16 to 19 and 28 to 31. Their "
        "mean is 17.5. There are three means, one per channel.",
    ),
    "02_one_mean_per_sample": Handout(
        draw_tokens,
        "LayerNorm(4) gets two sentences of three tokens, with four channels each: (N, T, C) = "
        "(2, 3, 4). Mark both sets of numbers. How many means are there, and how many weights?",
        "a. The token 9, 2, 5, 8, with mean 6. b. Channel 0 of all six tokens: 4, 9, 3, 6, 7, "
        "0. There are six means, one per token, and four weights, one per channel.",
    ),
    "03_running_statistics_and_momentum": Handout(
        draw_curves,
        "The running mean starts at 0, and every batch has mean 10. Which curve belongs to "
        "momentum 0.01, which to 0.1 and which to 0.5? With 0.1, where is the running mean "
        "after ten batches, and why is it not 10?",
        "A is 0.1, B is 0.01, C is 0.5. After ten batches with 0.1 it is at 6.51: each batch "
        "goes a tenth of what is left, so the start still weighs 0.9¹⁰ = 0.35.",
    ),
    "04_bessels_correction": Handout(
        draw_samples,
        "A population holds 0, 2 and 4, equally likely. Its variance is 8/3 ≈ 2.67. These are "
        "all nine samples of m = 2 numbers. Fill in the boxes. Which average is the truth? Why "
        "is the other one too small?",
        "÷ m: 0, 1, 4, 1, 0, 1, 4, 1, 0, on average 1.33, half of the truth. ÷ (m − 1): 0, 2, "
        "8, 2, 0, 2, 8, 2, 0, on average 2.67, the truth.",
    ),
    "05_training_and_track_running_stats": Handout(
        draw_modes,
        "Two switches of BatchNorm, so four states. Tick what is true in each. In which of them "
        "does the answer for one sample depend on the others in its batch, although the model "
        "is being tested? Why?",
        "training, True: batch, move, matter. eval, True: running, stay, do not. training, "
        "False and eval, False: batch, none, matter. So it is eval, False, where nothing is "
        "stored to use.",
    ),
    "06_batchnorm_is_not_linear": Handout(
        draw_scaled,
        "norm subtracts the mean and divides by the standard deviation; ε is 0. The first line "
        "shows norm(x). Draw norm(10·x) and norm(−x). A linear map T obeys T(a·x) = a·T(x). Does "
        "norm obey it for a = 10, and for a = −1? Is norm linear?",
        "norm(10·x) is norm(x), not ten times as much. norm(−x) is −norm(x), as the rule wants. "
        "But one factor that fails is enough: norm is not linear.",
    ),
    "07_the_relatives": Handout(
        draw_relatives,
        "Two images of 2 × 2 pixels, with four channels; the framed 99 is an outlier. In each "
        "batch, shade every number whose output it disturbs in training, its own included. How "
        "many are they? In which layers is the other image disturbed?",
        "BatchNorm 8: channel 1 of both samples. InstanceNorm 4. GroupNorm 8: channels 0 and 1 of "
        "sample 1. LayerNorm 16: all of sample 1. SwitchableNorm 20, for it mixes BatchNorm, "
        "InstanceNorm and LayerNorm. LocalResponseNorm 3: channels 0 to 2 at the same pixel. The "
        "other image: in BatchNorm and SwitchableNorm only.",
    ),
    "08_the_gradient": Handout(
        draw_gradient,
        "One channel in training, with γ = 1 and ε = 0: mean 3, σ = 2. Fill in the boxes, and draw "
        "the bars. What is Σ dx, and what is Σ dx · y? Why? And what would dx be in eval, with a "
        "stored mean of 3 and variance of 4?",
        "mean(g) = 3, mean(g · y) = 1. The sums are −2, 2, −4, 4, and dx is −1, 1, −2, 2. Both "
        "sums are 0: neither adding the same to all four nor stretching them about their mean "
        "changes an output. In eval, dx is g/σ: 0, 2, 0, 4.",
    ),
    "09_several_workers": Handout(
        draw_workers,
        "Two workers share one batch, in unequal parts. Each has a BatchNorm; ε is 0. Fill in what "
        "each normalizes with when it is alone, and what SyncBatchNorm gives both. Why is the "
        "mean of the two means, (2 + 8)/2 = 5, wrong?",
        "4, 2, 1 and 2, 8, 1; together 6, 4, 9. Within 1 + between 8 = 9. The 3 comes out as 1 "
        "alone, and as −0.33 with sync. A mean counts as often as its part has numbers: "
        "(4·2 + 2·8)/6 = 4.",
    ),
    "10_your_own_model": Handout(
        draw_boxes,
        "Four black boxes get two images of 2 × 2 pixels, with four channels. The framed number "
        "is moved: a 1 is an output that moves with it. Then all numbers are changed, and last "
        "the mean square of the outputs is taken, per slice. What is in each box? Which one does "
        "not normalize, and which one has a bug?",
        "a. GroupNorm(2, 4). b. RMSNorm over c: not centred. c. No normalization, for a factor "
        "stays; a 1 × 1 convolution would do that. d. BatchNorm2d(4) in training, with a bug: it "
        "divides by the unbiased variance, as m = 8 and 7/8 is (m − 1)/m.",
    ),
}
