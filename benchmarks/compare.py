"""Two or more ways to do the same thing, measured in turns."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from time import perf_counter
from typing import TypeVar

K, T = TypeVar("K"), TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """A median, and the quarters of all measurements that lie below and above it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: list[float]) -> "Spread":
        """The spread of at least two measurements."""
        low, _, high = quantiles(numbers, n=4, method="inclusive")
        return cls(median(numbers), low, high)


@dataclass(frozen=True)
class Row:
    """One line of the table: how much one thing of ours costs, as a multiple of another.

    Attributes:
        what: What was measured, its size included.
        against: What it is a multiple of.
        cost: The multiple.
        aim: What it should not exceed, if there is an aim.
        unit: ``"×"`` for a multiple; another one for the few costs that every machine shares.
    """

    what: str
    against: str
    cost: Spread
    aim: float | None = None
    unit: str = "×"

    @property
    def met(self) -> bool | None:
        """Whether the median keeps to the aim; None without an aim."""
        return None if self.aim is None else self.cost.median <= self.aim


@dataclass(frozen=True)
class Section:
    """What one module of this folder measured.

    Attributes:
        title: The heading.
        rows: The lines of its table.
        notes: What has to be known to read them, in Markdown.
    """

    title: str
    rows: list[Row]
    notes: str = ""


def in_turns(ways: dict[K, Callable[[], T]], rounds: int, *, warm_up: int = 2) -> dict[K, list[T]]:
    """What each way gives, round by round: every way once in every round.

    >>> in_turns({"nothing": lambda: None, "sum": lambda: sum(range(9))}, rounds=3)
    {'nothing': [None, None, None], 'sum': [36, 36, 36]}
    """
    gave = {name: [] for name in ways}
    for round_ in range(-warm_up, rounds):
        for name, way in ways.items():
            given = way()
            if round_ >= 0:
                gave[name].append(given)
    return gave


def take_turns(ways: dict[K, Callable[[], object]], rounds: int, *, warm_up: int = 2) -> dict:
    """The seconds that each way takes, round by round.

    >>> seconds = take_turns({"nothing": lambda: None, "sum": lambda: sum(range(9))}, rounds=3)
    >>> [len(times) for times in seconds.values()]
    [3, 3]
    """
    collects = gc.isenabled()
    gc.disable()  # or one way pays for what another has left behind
    try:
        timed = {name: partial(_time, way) for name, way in ways.items()}
        return in_turns(timed, rounds, warm_up=warm_up)
    finally:
        if collects:
            gc.enable()


def _time(way: Callable[[], object]) -> float:
    start = perf_counter()
    result = way()
    took = perf_counter() - start
    del result  # before the next one starts
    return took


def ratio(ours: list[float], theirs: list[float]) -> Spread:
    """How often theirs fits into ours, round by round.

    >>> ratio([2.0, 4.0, 6.0], [1.0, 2.0, 2.0])
    Spread(median=2.0, low=2.0, high=2.5)
    """
    return Spread.of([one / other for one, other in zip(ours, theirs, strict=True)])
