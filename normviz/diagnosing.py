"""``diagnose``: what the normalizations of a model do with a batch, and what is wrong with that."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from math import prod
from textwrap import fill

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from normviz.diagnosis import FINDINGS
from normviz.diagnosis.finding import Finding
from normviz.slices import draw_slices
from normviz.watching import Run, Watched, watch
from normviz.words import number_of

MAX_ROWS, MAX_NAMES, MAX_PICTURES = 40, 6, 12
HEADS = ("layer", "class", "calls", "input", "pattern", "m", "uses", "moves", "trains")

MOVES = {"running_mean": "mean", "running_var": "variance", "num_batches_tracked": "counter"}


def diagnose(model: nn.Module, *args, call: Callable | None = None, **kwargs) -> "Diagnosis":
    """What each normalization of a model does with a batch, and what looks wrong.

    A copy of the model runs, without gradients: once in eval, once in training (in the modes in
    which it was found, if it was found in training), and once more in eval with other batch mates
    if any layer might look at them. The model itself, its modes, hooks, gradients and the random
    state stay as they are.

    Args:
        model: any module.
        *args: what the model takes: a batch like those of training, of more than a few samples.
        call: how to run it, if not by ``model(*args, **kwargs)``: ``call(model, *args, **kwargs)``;
            it has to use the model that it is given, which is the copy.
        **kwargs: what else the model takes.

    Raises:
        ValueError: if model is no module, or does not take the batch in eval.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
    >>> diagnosis = diagnose(model, torch.randn(5, 3))
    >>> print(diagnosis.summary)
    Sequential, in training: 1 normalization. Findings: few-numbers, never-fed.
    >>> print(diagnosis.findings[0])
    few-numbers, 1: m = 5: the variance is off by 71%, by chance.
    """
    if not isinstance(model, nn.Module):
        made = f"; {model.__name__}(…) makes one" if isinstance(model, type) else ""
        got = model.__name__ if isinstance(model, type) else type(model).__name__
        raise ValueError(f"model must be a torch.nn.Module: got {got}{made}.")
    model = getattr(model, "_orig_mod", model)  # what a compiled one was made from
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("model must be what a scripted or traced module was made from, not that.")
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if lazy := next((name for name, tensor in tensors if is_lazy(tensor)), None):
        raise ValueError(
            f"model must have seen a batch: {lazy} has no size yet; model(x) gives it one."
        )
    if call is not None and not callable(call):
        raise ValueError(f"call must be a function of the model and the batch: got {call!r}.")
    run = watch(model, args, kwargs, call)
    found = (
        kind(layer.name or None, evidence)
        for kind in FINDINGS
        for layer in run.layers
        if (evidence := kind.find(layer, run)) is not None
    )
    return Diagnosis(type(model).__name__, run, tuple(found))


@dataclass(frozen=True, repr=False, eq=False)
class Diagnosis:
    """What was seen. A notebook shows a table, ``print`` and ``str`` the text.

    Attributes:
        model: the name of its class.
        run: what was watched.
        findings: what looks wrong, by kind; what breaks a model comes first.

    >>> import torch
    >>> diagnose(nn.LayerNorm(8), torch.randn(4, 8)).findings
    ()
    """

    model: str
    run: Run
    findings: tuple[Finding, ...]

    @property
    def layers(self) -> tuple[Watched, ...]:
        """The normalizations, in the order of the forward pass."""
        return tuple(self.run.layers)

    @property
    def codes(self) -> tuple[str, ...]:
        """The kinds of findings."""
        return tuple(dict.fromkeys(finding.code for finding in self.findings))

    @property
    def summary(self) -> str:
        """All of it, in a line."""
        mode = "in training" if self.run.training else "in eval"
        count = number_of(len(self.layers), "normalization")
        found = f"Findings: {', '.join(self.codes)}." if self.codes else "No findings."
        refused = f" In training, it did not take the batch: {self.run.refused}"
        return f"{self.model}, {mode}: {count}. {found}{refused if self.run.refused else ''}"

    @property
    def text(self) -> str:
        """For a terminal and a log."""
        rows = [HEADS, *(row_of(layer) for layer in self.layers[:MAX_ROWS])]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        more = len(self.layers) - MAX_ROWS
        table += [f"… and {more} more"] * (more > 0)
        notes = [
            f"{layer.name or '(model)'}: {note}"
            for layer in self.layers
            if (note := note_on(layer))
        ]
        parts = [self.summary, "\n".join(table if self.layers else []), "\n".join(notes)]
        for code, found in self._by_code():
            first = found[0]
            lines = [f"- {line}" for line in _lines_of(found)]
            lines = [first.why, *lines, f"Do: {first.do}", f"See: {first.lesson}"]
            parts.append("\n".join([f"{code}: {first.means}", *map(_indented, lines)]))
        return "\n\n".join(part for part in parts if part)

    def _by_code(self) -> Iterator[tuple[str, list[Finding]]]:
        for code in self.codes:
            yield code, [finding for finding in self.findings if finding.code == code]

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{head}</th>" for head in HEADS)
        rows = "".join(self._row(i, layer) for i, layer in enumerate(self.layers))
        parts = [f"<p>{escape(self.summary)}</p>", f"<table><tr>{heads}</tr>{rows}</table>"]
        for code, found in self._by_code():
            lines = "".join(f"<li>{escape(line)}</li>" for line in _lines_of(found))
            first = found[0]
            parts.append(
                f"<details><summary><b>{code}</b>: {escape(first.means)}</summary>"
                f"<p>{escape(first.why)}</p><ul>{lines}</ul><p>Do: {escape(first.do)}</p>"
                f"<p>See: {escape(first.lesson)}</p></details>"
            )
        return f'<div style="overflow-x:auto">{"".join(parts)}</div>'

    def _row(self, place: int, layer: Watched) -> str:
        name, *facts = map(escape, row_of(layer))
        inside = picture_of(layer) if place < MAX_PICTURES else None
        inside = inside or f"<p>{escape(repr(layer.module))}</p>"
        if note := note_on(layer):
            inside = f"<p>{escape(note)}</p>{inside}"
        cells = "".join(f"<td>{fact}</td>" for fact in facts)
        opens = f"<details><summary>{name}</summary>{inside}</details>"
        return f'<tr><td style="text-align:left">{opens}</td>{cells}</tr>'


def _indented(line: str) -> str:
    return fill(line, 100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _lines_of(found: list[Finding]) -> list[str]:
    lines = [f"{finding.layer or 'the model'}: {finding.evidence}" for finding in found]
    more = len(lines) - MAX_NAMES
    return lines if more < 2 else [*lines[:MAX_NAMES], f"… and {more} more layers"]


def row_of(layer: Watched) -> tuple[str, ...]:
    """The facts on a layer, one for each column."""
    call, later = layer.now, (layer.in_eval or [layer.now])[0]
    uses = source_of(call)
    uses += f"; {source_of(later)} in eval" if source_of(later) != uses else ""
    return (
        layer.name or "(model)",
        layer.kind,
        str(len(layer.in_training or layer.in_eval)),
        f"{call.shape} {str(call.dtype).removeprefix('torch.')}",
        call.pattern,
        "?" if call.count is None else str(call.count),
        uses,
        ", ".join(MOVES.get(name, name) for name in call.moved) or "–",
        ", ".join(layer.trainable) or "–",
    )


def source_of(call) -> str:
    """Whose statistics normalize."""
    if call.plan is None:
        return "?"
    return "running" if call.stored else "batch" if call.plan.over_samples else "sample"


def note_on(layer: Watched) -> str | None:
    """What is merely worth knowing: whether eval needs the layer at all."""
    if layer.now.plan is None or layer.found:
        return layer.found.summary if layer.found else "nobody knows what it pools"
    call = (layer.in_eval or [None])[0]
    if call is None or not call.stored or not call.plan.over_samples or call.apart is None:
        return None
    added = call.apart.biases or call.shape[call.apart.axis]  # it has them, or gets them
    numbers = sum(t.numel() for t in layer.held.values()) - added + call.apart.biases
    return (
        f"for eval, it can be folded into {call.apart.by}, and saves "
        f"{number_of(numbers, 'stored number')} and a pass over "
        f"{number_of(prod(call.shape), 'number')}"
    )


def picture_of(layer: Watched) -> str | None:
    """Which of the first numbers of its input share a statistic."""
    if layer.head is None or layer.call.plan is None:
        return None
    reduction = layer.call.plan.reduction
    title = f"{layer.kind}: the first numbers of its input, and which share a mean"
    try:
        return draw_slices(layer.head, reduction, title=title)._repr_html_()
    except ValueError:  # nothing that can be drawn
        return None
