"""A layer in a black box: one number moves, and what moves with it tells which layer it is."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor, nn

from normviz.grid import CELL_HEIGHT
from normviz.labs.lab import Lab, View, buttons, check_choice, opener, slider, train_or_eval
from normviz.labs.outliers import STORED
from normviz.labs.shaping import PlaceSliders, integers
from normviz.layers import LAYERS
from normviz.layout import as_shape
from normviz.picture import Picture
from normviz.slices import LINE, QUIET, TITLE_LETTER, Grid, rings
from normviz.svg import svg_page, svg_part, svg_text, tint
from normviz.words import WORDS, five_digits

AXES, SHAPE, COUNT = "n c h w", (2, 4, 2, 2), 32
X = integers(4)[:2, 3:7, 3:5, 2:4].double()  # none is 0, which stays though its slice moves
LARGEST, SIZE = 20, 9.0  # how far a number may move, and does at first: odd, so no 5 becomes −5
STAYS = 1e-4  # less is no move: ε leaves that much when all is times 3
EXPERIMENTS = ONE, PLUS, TIMES = "move one number", "add 5 to everything", "times 3"
MODES, UNSAID = ("eval", "training"), "nothing yet"
SHOWN = {"change": "how far each output moves", "input": "input", "output": "output"}
FROZEN, LAST = "frozen ", "channels-last "  # before the name of a layer


def convolution() -> nn.Module:
    """No normalization; its weights are not random, and none of them is 0."""
    layer = nn.utils.skip_init(nn.Conv2d, 4, 4, 1, bias=False).requires_grad_(False)
    layer.weight.copy_(0.25 + torch.arange(16).reshape(4, 4, 1, 1) % 5 / 4)
    return layer


SUSPECTS = {
    "BatchNorm2d(4)": partial(LAYERS["BatchNorm2d"], 4),
    FROZEN + "BatchNorm2d(4)": partial(LAYERS["BatchNorm2d"], 4),
    "InstanceNorm2d(4)": partial(LAYERS["InstanceNorm2d"], 4),
    "GroupNorm(2, 4)": partial(LAYERS["GroupNorm"], 2, 4),
    "LayerNorm((4, 2, 2))": partial(LAYERS["LayerNorm"], (4, 2, 2)),
    "RMSNorm((4, 2, 2))": partial(LAYERS["RMSNorm"], (4, 2, 2)),
    LAST + "LayerNorm(4)": partial(LAYERS["LayerNorm"], 4),
    LAST + "RMSNorm(4)": partial(LAYERS["RMSNorm"], 4),
    "Conv2d(4, 4, 1)": convolution,
}
BOXES = dict(sorted(zip("BEFAHCDIG", SUSPECTS, strict=True)))


@dataclass(frozen=True)
class DetectiveSetting:
    """Where the controls of a detective lab stand."""

    box: str = "A"
    place: tuple[int, ...] = (0, 0, 0, 0)
    size: float = SIZE
    experiment: str = ONE
    training: bool = True
    show: str = "change"
    guess: str = UNSAID

    def __post_init__(self):
        known = {"box": BOXES, "experiment": EXPERIMENTS, "training": (True, False)}
        for name, choices in (known | {"show": SHOWN, "guess": (UNSAID, *SUSPECTS)}).items():
            check_choice(name, getattr(self, name), choices)
        object.__setattr__(self, "place", as_shape(self.place))
        if self.place not in np.ndindex(SHAPE):
            raise ValueError(f"place must stand in the shape {SHAPE}: got {self.place}.")

    @property
    def input(self) -> Tensor:
        """What the experiment makes of X."""
        x = {ONE: X.clone(), PLUS: X + 5, TIMES: 3 * X}[self.experiment]
        if self.experiment == ONE:
            x[self.place] += self.size
        return x


@torch.no_grad()
def output_of(name: str, x: Tensor, training: bool) -> np.ndarray:
    """What a layer makes of x; it is new, but for what long training has stored."""
    layer = SUSPECTS[name]().double().train(training and not name.startswith(FROZEN))
    for buffer, held in layer.named_buffers():
        held.fill_(STORED.get(buffer, 0))
    axis = -1 if name.startswith(LAST) else 1
    return layer(x.movedim(1, axis)).movedim(axis, 1).numpy()


def change_of(name: str, setting: DetectiveSetting) -> np.ndarray:
    """How far the experiment moves each output of a layer."""
    change = np.subtract(*(output_of(name, x, setting.training) for x in (setting.input, X)))
    return np.where(np.abs(change) > STAYS, change, 0)


def contradiction(setting: DetectiveSetting) -> str:
    """Where the guessed layer does something else than the box in this experiment; or nothing."""
    here, there = (change_of(n, setting) != 0 for n in (BOXES[setting.box], setting.guess))
    odd = np.argwhere(here != there).tolist()
    if not odd:
        return ""
    if setting.experiment != ONE:
        return f"With {setting.guess}, {_some(there)} would move. Here: {_some(here)}."
    at = min(odd, key=lambda index: np.count_nonzero(np.subtract(index, setting.place)))  # nearest
    axes = zip(AXES.split(), at, setting.place, strict=True)
    where = ", ".join(f"{WORDS[axis]} {i}" for axis, i, own in axes if i != own)
    would, does = (
        (f"move{', too' * bool(where)}", "stays") if there[tuple(at)] else ("stay", "moves")
    )
    which = f"the output at {(*at,)}, {f'in {where}' if where else 'its own'},"
    return f"With {setting.guess}, {which} would {would}. Here it {does}."


def _some(change: np.ndarray) -> str:
    count = np.count_nonzero(change)
    return {0: "no output", COUNT: "every output"}.get(count, f"{count} of {COUNT} outputs")


def trials_of(setting: DetectiveSetting) -> Iterator[DetectiveSetting]:
    """All experiments with this box, guess and place, in this mode first; one tells any two."""
    for mode, experiment in product((setting.training, not setting.training), EXPERIMENTS):
        yield replace(setting, training=mode, experiment=experiment, size=SIZE)


def verdict(setting: DetectiveSetting) -> str:
    """What contradicts the guess; of a right one, what all experiments say."""
    if setting.guess == UNSAID:
        return "Which layer is it? Say so when you know."
    if setting.guess == BOXES[setting.box]:
        return f"<b>Right: box {setting.box} is {setting.guess}.</b> {_answers(setting)}"
    if said := contradiction(setting):
        return f"<b>No.</b> {said}"
    trial, said = next((t, said) for t in trials_of(setting) if (said := contradiction(t)))
    what = f"“{trial.experiment}”{f' by {SIZE:.0f}' * (trial.experiment == ONE)}"
    return (
        f"<b>No</b>, though {setting.guess} would do the same here. Try {what} in "
        f"{MODES[trial.training]}: {said.replace('With', 'with').replace('Here', 'In this box')}"
    )


def _answers(setting: DetectiveSetting) -> str:
    trials = trials_of(replace(setting, training=True))
    one, plus, times, later, *_ = (change_of(setting.guess, trial) for trial in trials)
    same = "as in training" if np.array_equal(one, later) else "something is remembered"
    return (
        f"In training, this number moves {_some(one)}; “{PLUS}”, {_some(plus)} "
        f"({'not ' * bool(plus.any())}centred by a mean of its own); “{TIMES}”, {_some(times)} "
        f"(scale {'stays' if times.any() else 'cancels'}). In eval, this number moves "
        f"{_some(later)} ({same})."
    )


def view_detective(setting: DetectiveSetting) -> View:
    """What the experiment moves, drawn, and a verdict on the guess."""
    name, at, x = BOXES[setting.box], setting.place, setting.input
    change, y = change_of(name, setting), output_of(name, x, setting.training)
    shown = {"change": change, "input": x.numpy(), "output": y}[setting.show]
    marked = (x != X).numpy() if setting.show == "input" else change != 0
    more = {TIMES: f" (Less than {STAYS} is no move: ε leaves that much.)"}
    more[ONE] = f" At {at}, {five_digits(X[at])} became {five_digits(x[at])}."
    said = f"<b>{_some(change).capitalize()}</b> moved.{more.get(setting.experiment, '')}"
    title = f"Box {setting.box} in {MODES[setting.training]}, {setting.experiment}"
    ringed = at if setting.experiment == ONE else None
    picture = draw(f"{title}: {SHOWN[setting.show]}", shown, marked, ringed)
    return View(f"<p style='line-height:1.5'>{said}<br>{verdict(setting)}</p>", (picture,))


def draw(title: str, numbers: np.ndarray, moved: np.ndarray, ringed: tuple | None) -> Picture:
    """All numbers in one plain grid; a line stands under those that moved."""
    grid, top, ring = Grid(numbers, (*AXES.split(),)), 50 + LINE, ""
    grid.place(0, top)
    width = grid.cell_width
    note = "Underlined: moved." + " Ringed: the number that you move." * (ringed is not None)
    head = [svg_text(14, 20, title, "nv-title"), svg_text(14, 40, note)]
    parts = [*grid.draw_headers()]
    lines = {at: f"sample {at[0]}, channel {at[1]}:" for at in np.ndindex(SHAPE[:2])}
    for (x, y), at, text in zip(grid.cells, np.ndindex(SHAPE), grid.texts, strict=True):
        path = f"M{x + 3} {y + CELL_HEIGHT - 5}h{width - 6}"
        line = f'<path stroke="#111" stroke-width="2" d="{path}"/>' * bool(moved[at])
        parts.append(
            f'<rect class="nv-cell" x="{x}" y="{y}" width="{width}" height="{CELL_HEIGHT}" '
            f'fill="{tint(0, 0.4) if moved[at] else QUIET}" data-index="{",".join(map(str, at))}"/>'
            f"{svg_text(x + width / 2, y + 15, text, 'nv-ink')}{line}"
        )
        if at == ringed:
            ring = rings(x, y, width, CELL_HEIGHT)
        lines[at[:2]] += f" _{text}_" if moved[at] else f" {text}"
    text = "\n".join([title, note, *lines.values()])
    bottom = y + CELL_HEIGHT + 10
    right = max(x + width, 14 + 1.1 * TITLE_LETTER * len(title)) + 10
    part = svg_part(0, top - 2 * LINE - 4, x + width + 10, bottom, [*parts, ring])
    return Picture(svg_page(right, bottom, text, head, [part], lit=False), text)


class DetectiveLab(Lab):
    """An explorer: a layer sits in a black box. What moves with what tells which one it is.

    All boxes take the same input, small integers of shape (2, 4, 2, 2). Where a layer stores
    statistics, long training has left 0 and 30; a frozen one is in eval whatever the mode is. Each
    control can be set and read by name: ``box``, ``place``, ``size``, ``experiment``, ``training``,
    ``show`` and ``guess`` have a ``value``.

    Args:
        box: ``"A"`` to ``"I"``.
        place: of the number that moves.
        size: by how much it moves, −20 to 20.
        experiment: ``"move one number"``, ``"add 5 to everything"`` (is it centred?) or
            ``"times 3"`` (does scale cancel?).
        training: whether the box is in training.
        show: in the cells: ``"change"`` of the output, or the moved ``"input"`` or ``"output"``.
        guess: the layer that you say it is, such as ``"BatchNorm2d(4)"``.

    Raises:
        ValueError: for any other box, place, word or number.

    >>> lab = detective_lab("A", guess="LayerNorm((4, 2, 2))")
    >>> "in channel 2, would move, too. Here it stays." in lab.readout.value
    True
    """

    Setting, view_of = DetectiveSetting, staticmethod(view_detective)

    def __init__(self, setting: DetectiveSetting):
        self.box = buttons("black box", [*BOXES], setting.box, width=40)
        self.place = PlaceSliders()
        for axis, made in self.place.sliders.items():
            made.description = f"{axis}, {WORDS[axis]}"
        self.place.ask_for(AXES, SHAPE)
        self.place.value = setting.place
        self.size = slider("plus", setting.size, -LARGEST, LARGEST, 1.0)
        self.experiment = buttons("do", EXPERIMENTS, setting.experiment, width=140)
        self.training = train_or_eval(setting.training)
        self.show = buttons("numbers", [*SHOWN], setting.show, width=90)
        said = [UNSAID, *SUSPECTS]
        self.guess = widgets.Dropdown(options=said, value=setting.guess, description="I say:")
        rows = [self.box, self.training], [self.experiment, self.size], [self.place]
        super().__init__(*rows, [self.show, self.guess], readout_height=110, picture_height=260)
        self.draw_on(*rows[0], *rows[1], self.place, self.show, self.guess)


detective_lab = opener(DetectiveLab, "detective_lab")
