"""Labs on a page without a kernel: what each shows, for every position of a control, recorded.

A recorder moves the controls of a lab and keeps what it shows. Where the settings are few, it goes
everywhere; or else to all that one move reaches, from the state in which the lab opens and from
others, which it reaches by a move of a list or of buttons, or of a slider to its end. No lab knows
of it.
"""

import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from gzip import compress
from itertools import zip_longest
from math import prod
from pathlib import Path

import ipywidgets as widgets
from traitlets import TraitError

import normviz
from cells import outputs_in, replace
from normviz.labs.lab import WITHOUT_KERNEL, Lab

FEW = 400  # settings, all of which are recorded
MOST, LARGEST = 24, 480_000  # states that have all their moves; bytes, compressed
LISTS = ("list", "buttons", "check")
CLICKS = 60  # of a button, one after another
OPENS = re.compile(r"normviz\.labs\.\w+_lab\(.*\)(?<!\.still\(\))")
NUMBERS = re.compile(r"(?<![\w#.])-?\d+(?:\.\d+)?")
PADDING = re.compile(r"(?<=e[+-])0+(?=\d)")  # 1e-05, where JavaScript writes 1e-5
NUMBER, BELOW = "¤", "§"  # in place of one, and between words and pictures

Label = str
Look = tuple[tuple[Label, ...], bool, bool]  # of a control: positions, disabled, hidden


def controls_of(box) -> dict[str, widgets.Widget]:
    """What a reader moves in a box, and in the boxes in it, by name, from top to bottom."""
    found = {}
    for child in getattr(box, "children", []):
        own = hasattr(child, "description") and not isinstance(child, widgets.HTML)
        found |= {child.description: child} if own else controls_of(child)
    return found


def kind_of(control) -> str:
    """What it is on a page."""
    sliders = widgets.IntSlider | widgets.FloatSlider | widgets.FloatLogSlider
    kinds = {
        "button": widgets.Button,
        "check": widgets.Checkbox,
        "buttons": widgets.ToggleButtons,
        "range": sliders | widgets.SelectionSlider,
        "list": widgets.Dropdown,
    }
    return next((kind for kind, of in kinds.items() if isinstance(control, of)), "text")


def positions_of(control) -> list[tuple[Label, object]]:
    """All that it can hold, each as it is called; of a text, what it holds now."""
    if hasattr(control, "_options_full"):
        return [*control._options_full]
    if isinstance(control, widgets.Checkbox):
        return [("no", False), ("yes", True)]
    if kind_of(control) == "range":
        count = round((control.max - control.min) / control.step) + 1
        values = [control.min + i * control.step for i in range(count)]
        if isinstance(control, widgets.FloatLogSlider):
            values = [control.base**value for value in values]
        return [(PADDING.sub("", format(v, control.readout_format)), v) for v in values]
    return [] if isinstance(control, widgets.Button) else [(str(control.value), control.value)]


def place_of(control) -> int:
    """At which of these positions it stands."""
    values = [value for _, value in positions_of(control)]
    if kind_of(control) == "range" and control.value not in values:
        return min(range(len(values)), key=lambda i: abs(values[i] - control.value))
    return values.index(control.value) if values else 0


Move = tuple[str, int]  # of a control, to a position


@dataclass(frozen=True)
class Hub:
    """A state from which all single moves are recorded, and what leads to it."""

    state: int
    path: tuple[Move, ...]
    seen: dict[str, tuple[Look, int]]
    values: dict[str, object]


class Recording:
    """What a lab shows after all moves that were tried.

    Args:
        make: opens the lab.
        most: how many states may have all their moves, if it does not go everywhere.
    """

    def __init__(self, make: Callable[[], Lab], most: int = MOST):
        self.make, self.lab = make, make()
        self.rows: list[dict[str, str]] = [{} for _ in self.lab.children]  # name → kind
        self.views: dict[str, int] = {}
        self.states: dict[tuple, int] = {}  # of what was seen of the controls, and a view
        self.moves: dict[int, dict[str, list[int]]] = {}  # state → control → states by position
        self.hubs: list[int] = []
        opening = self._expand(())
        everywhere = prod(max(1, len(labels)) for (labels, *_), _ in opening.seen.values()) <= FEW
        among = (*LISTS, "range") if everywhere else LISTS
        ways = deque(self._choices(opening, among))
        while ways and (everywhere or len(self.hubs) < most):
            there, path = ways.popleft()
            if there in self.hubs:
                continue
            size = self.size if len(self.hubs) == 1 else 0
            hub = self._expand(path)
            if everywhere:
                ways.extend(self._choices(hub, among))
            elif size:  # the others will take as much as the second
                most = min(most, 1 + (LARGEST - size) // max(1, self.size - size))

    def seen(self) -> dict[str, tuple[Look, int]]:
        """What all controls look like, and where they stand."""
        found = {}
        for name, control in controls_of(self.lab).items():
            hidden = control.layout.visibility == "hidden"
            labels = tuple(label for label, _ in positions_of(control))
            found[name] = (labels, control.disabled, hidden), place_of(control)
        return found

    def note(self) -> int:
        """The state in which the lab is."""
        for row, box in zip(self.rows, self.lab.children, strict=True):
            for name, control in controls_of(box).items():
                row.setdefault(name, kind_of(control))
        html = f"{self.lab.readout.value}{BELOW}{self.lab.picture.value}"
        view = self.views.setdefault(html, len(self.views))
        return self.states.setdefault((*self.seen().items(), view), len(self.states))

    def _expand(self, path: tuple[Move, ...]) -> Hub:
        """Record all single moves from where a path leads."""
        self._start(path)
        here = self.note()
        self.hubs.append(here)
        controls, moves = controls_of(self.lab), self.moves.setdefault(here, {})
        values = {name: c.value for name, c in controls.items() if hasattr(c, "value")}
        hub = Hub(here, path, self.seen(), values)
        for name, ((labels, disabled, hidden), stands) in hub.seen.items():
            if disabled or hidden or (kind := kind_of(controls[name])) == "text":
                continue
            if kind == "button":
                self._click(hub, name, here)
            else:
                places = range(len(labels))
                moves[name] = [here if p == stands else self._move(hub, name, p) for p in places]
        return hub

    def _start(self, path: tuple[Move, ...]) -> None:
        self.lab = self.make()
        for move in path:
            step(self.lab, *move)

    def _move(self, hub: Hub, name: str, place: int) -> int:
        """To where one move leads from a hub."""
        with self.lab.settle():  # and draw once
            if is_back := self._return_to(hub):
                step(self.lab, name, place)
        if not is_back:
            self._start((*hub.path, (name, place)))
        return self.note()

    def _return_to(self, hub: Hub) -> bool:
        """Put all controls back, some of which follow others; whether that worked."""
        for _ in range(3):
            for name, control in controls_of(self.lab).items():
                with suppress(TraitError, KeyError):
                    control.value = hub.values[name]
            if self.seen() == hub.seen:
                return True
        return False

    def _click(self, hub: Hub, name: str, here: int) -> None:
        """Click a button again and again, until nothing changes."""
        there = self._move(hub, name, 0)
        for _ in range(CLICKS):
            self.moves.setdefault(here, {})[name] = [there]
            if there == here or name in self.moves.get(there, {}):
                break
            step(self.lab, name, 0)
            here, there = there, self.note()

    def _choices(self, hub: Hub, among) -> Iterator[tuple[int, tuple[Move, ...]]]:
        """One move on, states and their paths: the next of each list, then the second of each, ….

        After all lists, to the end of each slider that is not among them.
        """
        kinds = {name: kind for row in self.rows for name, kind in row.items()}
        rounds, ends = [], []
        for name in self.moves[hub.state]:
            (labels, *_), stands = hub.seen[name]
            if kinds[name] in among:
                others = range(stands + 1, stands + len(labels))
                rounds.append([(name, place % len(labels)) for place in others])
            elif kinds[name] == "range":
                ends.append((name, len(labels) - 1))
        for moves in (*zip_longest(*rounds), ends):
            for name, place in filter(None, moves):
                yield self.moves[hub.state][name][place], (*hub.path, (name, place))

    @property
    def size(self) -> int:
        """In bytes, compressed, as it travels."""
        return len(compress(self.data))

    @property
    def data(self) -> bytes:
        """All of it, as JSON; docs/lab.js reads it."""
        names = [name for row in self.rows for name in row]
        looks: dict[Look, int] = {}
        states = []
        for *seen, view in self.states:
            stand = [None] * len(names)
            for name, (look, place) in seen:
                stand[names.index(name)] = [looks.setdefault(look, len(looks)), place]
            states.append([stand, view])
        held = {
            "rows": [[*row.items()] for row in self.rows if row],
            "looks": [*looks],
            "states": states,
            "hubs": self.hubs,
            "moves": self.moves,
            "views": shared([*self.views]),
        }
        return json.dumps(held, ensure_ascii=False, separators=(",", ":")).encode()


def step(lab: Lab, name: str, place: int) -> None:
    """One move of a reader's."""
    control = controls_of(lab)[name]
    if kind_of(control) == "button":
        control.click()
    else:
        control.value = positions_of(control)[place][1]


def shared(views: list[str]) -> tuple[list[str], list, list]:
    """Texts that have much in common, taken apart into tags, sequences of tags, and numbers.

    Returns:
        All tags, with a sign for each number; for each sequence, its tags, and for each of its
        numbers, in which column of its rows it stands; for each text, its sequence and its row.
        What is as in the last row of that sequence is left out.
    """
    tags, taken_apart, rows = {}, [], {}
    for text in views:
        if NUMBER in text or text.count(BELOW) > 1:
            raise ValueError(f"{NUMBER} and {BELOW} stand for something else: got {text}.")
        pieces = re.split("(?=<)", NUMBERS.sub(NUMBER, text))
        sequence = tuple(tags.setdefault(piece, len(tags)) for piece in pieces)
        rows.setdefault(sequence, []).append(NUMBERS.findall(text))
        taken_apart.append(sequence)
    sequences, written = {}, {}
    for sequence, numbers in rows.items():
        columns: dict[tuple, int] = {}
        places = [columns.setdefault(column, len(columns)) for column in zip(*numbers, strict=True)]
        if len(numbers) == 1:  # whose columns are alike by chance
            columns = [*zip(*numbers, strict=True)]
            places = [*range(len(columns))]
        sequences[sequence] = [sequence, _in_turn(places)]
        lines = [*zip(*columns, strict=True)] or [()] * len(numbers)
        before = [[""] * len(columns), *lines]
        written[sequence] = iter(
            ",".join("" if a == b else a for a, b in zip(*pair, strict=True))
            for pair in zip(lines, before, strict=False)
        )
    order = {sequence: nth for nth, sequence in enumerate(sequences)}
    found = [[order[sequence], next(written[sequence])] for sequence in taken_apart]
    return [*tags], [*sequences.values()], found


def _in_turn(places: list[int]) -> str:
    """Places with commas between them, but for those that come up for the first time, in turn."""
    seen = itertools.accumulate(places, max, initial=-1)
    return ",".join("" if p > most else str(p) for p, most in zip(places, seen, strict=False))


def opener_in(source: str) -> Callable[[], Lab] | None:
    """What opens the lab of a cell, if it is one that opens a lab."""
    return partial(eval, source, {"normviz": normviz}) if OPENS.fullmatch(source) else None


def record_labs(app, doctree):
    """In a lesson, make each lab one that a page can move."""
    for cell, outputs in outputs_in(app, doctree):
        if make := opener_in(cell.source):
            name = f"{Path(app.env.docname).name}-{cell.id}"
            app.recordings[name] = Recording(make, app.config.recorded_states).data
            replace(outputs[-1], page_of(make(), name))


def page_of(lab: Lab, name: str) -> str:
    """A lab as it opens, with a place for its controls."""
    words, body = (
        f'<div class="nv-{part}" style="--height:{box.layout.height}">{box.value}</div>'
        for part, box in {"words": lab.readout, "body": lab.picture}.items()
    )
    parts = f'{lab.styles.value}<div class="nv-controls">{WITHOUT_KERNEL}</div>{words}{body}'
    return f'<div class="nv-lab" data-recording="{name}">{parts}</div>'


def write_recordings(app, failure):
    """A script for each, which a page loads when its reader comes near."""
    folder = app.outdir / "_static/labs"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in app.recordings.items():
        script = f"nvRecorded({json.dumps(name)}, ".encode() + data + b")\n"
        (folder / f"{name}.js").write_bytes(script)


def setup(app):
    """Called by Sphinx."""
    app.recordings = {}
    app.add_config_value("recorded_states", MOST, "html")
    app.connect("doctree-read", record_labs)
    app.connect("build-finished", write_recordings)
