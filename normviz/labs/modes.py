"""Which statistics normalize, and what moves: training, track_running_stats, and when it is set."""

from dataclasses import dataclass

import ipywidgets as widgets
import torch

from normviz.explanation import Explanation, explain
from normviz.labs.lab import Lab, View, buttons, check_choice, opener, train_or_eval
from normviz.layers.batch_norm import BatchNorm1d
from normviz.words import five_digits

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
# What the layer has seen in earlier training: two channels, each around its running mean.
RUNNING_MEAN, RUNNING_VAR, BATCHES_TRACKED = (2.0, 5.0), (4.0, 9.0), 100
TYPICAL = torch.tensor(
    [
        [[1.0, 4, 2], [5, 8, 2]],
        [[0, 2, 5], [4, 9, 6]],
        [[3, 2, -1], [1, 5, 8]],
        [[2, 5, 1], [7, 0, 3]],
    ]
)  # (N, C, L)
BATCHES = {
    "typical": TYPICAL,
    "shifted": TYPICAL + 6,
    "one sample": TYPICAL[:1],
    "one value": TYPICAL[:1, :, :1],
}


@dataclass(frozen=True)
class ModesSetting:
    """Where the controls of a modes lab stand."""

    training: bool = True
    track_running_stats: bool = True
    set_after: bool = False
    batch: str = "typical"

    def __post_init__(self):
        check_choice("batch", self.batch, BATCHES)
        for name in ("training", "track_running_stats"):
            check_choice(name, getattr(self, name), (True, False))


def view_modes(setting: ModesSetting) -> View:
    """What normalizes, what moves, and the batch before and after.

    Raises:
        RefusedInput: if the layer refuses the batch.
    """
    layer, x = layer_of(setting), BATCHES[setting.batch]
    explained = explain(layer, x)
    mates = _depends_on_its_mates(layer, x)
    pictures = tuple(explained.picture(show=show) for show in ("input", "normalized"))
    return View(_describe(setting, explained, mates), pictures)


def layer_of(setting: ModesSetting) -> BatchNorm1d:
    """The layer, with the buffers of earlier training if it was made to have any."""
    flag = setting.track_running_stats
    at_first = not flag if setting.set_after else flag
    layer = BatchNorm1d(2, track_running_stats=at_first)
    if layer.running_mean is not None:
        layer.running_mean.copy_(torch.tensor(RUNNING_MEAN))
        layer.running_var.copy_(torch.tensor(RUNNING_VAR))
        layer.num_batches_tracked.fill_(BATCHES_TRACKED)
    layer.track_running_stats = flag
    return layer.train(setting.training)


def _depends_on_its_mates(layer: BatchNorm1d, x: torch.Tensor) -> bool:
    """Whether sample 0 comes out differently in another company."""
    others = torch.cat([x[:1], x[1:] + 1, x[:1] - 1])
    return not torch.equal(explain(layer, x).output[0], explain(layer, others).output[0])


def _describe(setting: ModesSetting, explained: Explanation, mates: bool) -> str:
    whose = {"batch": "this batch", "running": "earlier training: the running ones"}
    rows = {
        "statistics that normalize": f"<b>of {whose[explained.source]}</b>",
        **{name: _moves(explained, name) for name in BUFFERS},
        "a prediction": f"{'<b>depends</b>' if mates else 'does not depend'} on its batch mates",
    }
    mode = "training" if setting.training else "eval"
    when = "set after construction" if setting.set_after else "given to the constructor"
    return (
        '<table style="line-height:1.5">'
        f"<caption><b>{mode}, track_running_stats={setting.track_running_stats}, {when}</b>"
        f"</caption>{''.join(map(_row, rows, rows.values()))}</table>"
    )


def _row(name: str, what: str) -> str:
    left = "text-align:left;padding:0 24px 0 0"
    return f'<tr><th scope="row" style="{left}">{name}</th><td style="{left}">{what}</td></tr>'


def _moves(explained: Explanation, name: str) -> str:
    if not explained.before:
        return "there is none"
    states = explained.before[name], explained.after[name]
    before, after = (", ".join(map(five_digits, s.reshape(-1).tolist())) for s in states)
    return f"stays {before}" if torch.equal(*states) else f"<b>moves</b> from {before} to {after}"


class ModesLab(Lab):
    """An explorer: which statistics normalize a batch, and what a forward pass moves.

    The layer is a ``BatchNorm1d(2)`` that was trained before: where it has buffers, they are not
    0 and 1 any more. Each control can be set and read by name: ``training``,
    ``track_running_stats``, ``set_after`` and ``batch`` have a ``value``.

    Args:
        training: whether the layer is in training.
        track_running_stats: the flag.
        set_after: whether the flag was changed to that value after construction, instead of being
            given to the constructor.
        batch: ``"typical"`` of what the layer saw before, ``"shifted"`` by 6, ``"one sample"``, or
            ``"one value"`` per channel.

    Raises:
        ValueError: for another batch.

    >>> lab = modes_lab(training=False, track_running_stats=False)
    >>> "of this batch" in lab.readout.value
    True
    """

    Setting, view_of = ModesSetting, staticmethod(view_modes)

    def __init__(self, setting: ModesSetting):
        flag = setting.track_running_stats
        self.training = train_or_eval(setting.training)
        self.track_running_stats = buttons("track_running_stats", [True, False], flag)
        self.set_after = buttons(
            "the flag is",
            [("given to the constructor", False), ("set afterwards", True)],
            setting.set_after,
            width=180,
        )
        self.batch = widgets.Dropdown(options=[*BATCHES], value=setting.batch, description="batch")
        super().__init__(
            [self.training, self.batch],
            [self.track_running_stats, self.set_after],
            readout_height=170,
            picture_height=520,
        )
        self.draw_on(self.training, self.track_running_stats, self.set_after, self.batch)


modes_lab = opener(ModesLab, "modes_lab")
