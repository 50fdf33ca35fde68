"""What the load test prints, and what it complains about."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median

from classroom.student import DISK, WAYS, Student

MIB = 2**20


@dataclass
class Report:
    """How a class went.

    Attributes:
        students: Who was in it.
        shared_disk: Why all servers ran as one user; None if they did not.
        peak: The most memory of each (owner, role), in bytes.
        together: The most memory of all of them together.
        rest: The memory of each after the lessons.
        processor: The processor seconds of each owner.
    """

    students: list[Student]
    shared_disk: str | None = None
    peak: Counter = field(default_factory=Counter)
    together: int = 0
    rest: Counter = field(default_factory=Counter)
    processor: Counter = field(default_factory=Counter)

    def complaints(self) -> Iterator[str]:
        """Who was lost, who can open a file of another, and who cannot open even the own one."""
        for student in self.students:
            opened = student.foreign - ({DISK} if self.shared_disk else set())
            if student.lost:
                yield f"{student.name} was lost: {student.lost}"
            elif opened:
                yield f"{student.name} was not refused another's file by {listed(opened)}"
            elif student.own != WAYS:
                yield f"{student.name} could not open the own file by {listed(WAYS - student.own)}"

    def lines(self) -> Iterator[str]:
        """The report, line by line."""
        done = [student for student in self.students if student.seconds]
        lessons = Counter(student.lesson[:2] for student in self.students)
        yield f"students at the same time: {len(self.students)}; cores: {os.cpu_count()}"
        yield "lessons: " + ", ".join(f"{n} × {lesson}" for lesson, n in sorted(lessons.items()))
        yield f"finished: {len(done)} of {len(self.students)}"
        if done:
            slowest = max(done, key=lambda student: student.seconds)
            yield f"slowest: {slowest.name}, {slowest.lesson}"
            yield f"{'for each student':34}{'median':>8}{'largest':>9}"
            yield row("seconds, sign-in to last cell", (student.seconds for student in done))
            yield row("seconds of processor", (self.processor[student.name] for student in done))
            for what, sizes in (("peak", self.peak), ("at rest", self.rest)):
                for role in ("server", "kernel"):
                    sizes_of = (sizes[student.name, role] / MIB for student in done)
                    yield row(f"MiB of memory, {role}, {what}", sizes_of)
        yield f"connections made anew: {sum(student.reconnected for student in self.students)}"
        for role in ("hub", "proxy"):
            yield f"MiB of memory, {role}: {self.peak['hub', role] / MIB:.0f}"
        yield f"MiB of memory, all together: {self.together / MIB:.0f}"
        tried = [student for student in self.students if student.own]
        if len(tried) > 1:
            ways = WAYS - ({DISK} if self.shared_disk else set())
            opened = sum(bool(student.foreign & ways) for student in tried)
            yield f"files of others, tried by {listed(ways)}: {opened} of {len(tried)} opened them"
        if self.shared_disk:
            yield f"files of others, on the disk: not checked, for {self.shared_disk}"


def row(title: str, numbers: Iterable[float]) -> str:
    """A line of the table: the median and the largest of some numbers."""
    numbers = list(numbers)
    return f"{title:34}{median(numbers):8.0f}{max(numbers):9.0f}"


def listed(words: Iterable[str]) -> str:
    """Words in a row, always in the same order."""
    return ", ".join(sorted(words))
