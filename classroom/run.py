"""The load test: `python -m classroom.run --students 20`."""

import asyncio
import os
import signal
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from statistics import median

from classroom.hub import NOTEBOOKS, UIDS, can_change_user, open_hub, usage
from classroom.student import DISK, WAYS, Student

STOPS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
LESSONS = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


async def hold_class(students: list[Student], limit: float) -> tuple[Counter, Counter]:
    """Hold the class; return the most that was in use (see `usage`), and that after the lessons."""
    folder, peak = students[0].home.parent, Counter()
    working = {asyncio.create_task(one.within(limit, one.attend())) for one in students}
    while working:
        _, working = await asyncio.wait(working, timeout=2)
        peak |= await asyncio.to_thread(usage, folder)  # the larger of both
    await asyncio.sleep(5)
    rest = usage(folder)
    here = [one for one in students if not one.lost]
    for owners in here, here[1:] + here[:1]:
        pairs = zip(here, owners, strict=True)
        await asyncio.gather(*(one.within(limit, one.spy(owner)) for one, owner in pairs))
    return peak | rest, rest


def report(students: list[Student], peak: Counter, rest: Counter, ways: set[str]) -> Iterator[str]:
    """How the class went, line by line."""
    done = [one for one in students if one.seconds]
    lessons = Counter(one.lesson[:2] for one in students)
    yield f"students at the same time: {len(students)}; cores: {os.cpu_count()}"
    yield "lessons: " + ", ".join(f"{n} × {lesson}" for lesson, n in sorted(lessons.items()))
    yield f"finished: {len(done)} of {len(students)}"
    if done:
        slowest = max(done, key=lambda one: one.seconds)
        yield f"slowest: {slowest.name}, {slowest.lesson}"
        rows = {"seconds, sign-in to last cell": [one.seconds for one in done]}
        rows["seconds of processor"] = [rest[one.name, "processor"] for one in done]
        for what, used in ("peak", peak), ("at rest", rest):
            for role in "server", "kernel":
                rows[f"MiB of memory, {role}, {what}"] = [used[one.name, role] for one in done]
        yield f"{'for each student':34}{'median':>8}{'largest':>9}"
        for title, numbers in rows.items():
            yield f"{title:34}{median(numbers):8.0f}{max(numbers):9.0f}"
    yield f"connections made again: {sum(one.reconnected for one in students)}"
    yield f"MiB of memory, hub: {peak['hub', 'hub']:.0f}"
    yield f"MiB of memory, proxy: {peak['hub', 'proxy']:.0f}"
    yield f"MiB of memory, all together: {peak['all', 'together']:.0f}"
    opened, by = [bool(one.foreign & ways) for one in students if one.own], ", ".join(sorted(ways))
    if len(opened) > 1:
        yield f"files of others, tried by {by}: {sum(opened)} of {len(opened)} opened them"
    if DISK not in ways:
        yield "files of others, on the disk: not checked; root can, if all may run this Python"


def complaints(students: list[Student], ways: set[str]) -> Iterator[str]:
    """Who was lost, who can open a file of another, and who cannot open even their own."""
    for one in students:
        if one.lost:
            yield f"{one.name} was lost: {one.lost}"
        elif opened := one.foreign & ways:
            yield f"{one.name} was not refused another's file by {', '.join(sorted(opened))}"
        elif closed := ways - one.own:
            yield f"{one.name} could not open their own file by {', '.join(sorted(closed))}"


def main(words: list[str] | None = None):
    """Read the command line, hold the class, and print the report, or why that cannot be."""
    parser = ArgumentParser(prog="python -m classroom.run", description=__doc__)
    option = parser.add_argument
    option("--students", type=int, default=20, metavar="N", help="default: 20")
    option("--lesson", choices=[name[:2] for name in LESSONS], help="for all; default: 01 to 06")
    option("--limit", type=float, default=600, metavar="SECONDS", help="for each; default: 600")
    option("--log", default=os.devnull, metavar="FILE", help="for the log of the Hub")
    args = parser.parse_args(words)
    if sys.platform != "linux":
        raise SystemExit("The load test needs Linux: it measures memory as Linux counts it.")
    if not 1 <= args.students <= len(UIDS):
        parser.error(f"--students must be from 1 to {len(UIDS)}")
    try:
        open(args.log, "a").close()
    except OSError as problem:
        parser.error(f"--log cannot be written: {problem}")
    lessons = [name for name in LESSONS if name[:2] == args.lesson] or LESSONS[1:]
    ways = WAYS if can_change_user() else WAYS - {DISK}
    with open_hub((lessons * args.students)[: args.students], DISK in ways, args.log) as students:
        peak, rest = asyncio.run(hold_class(students, args.limit))
    print(*report(students, peak, rest, ways), sep="\n")
    if found := [*complaints(students, ways)]:
        raise SystemExit("\n".join(["FAILED", *found]))
    print("passed")


def stop(*_):
    """End the class, once: a terminal that closes may say so several times."""
    for number in STOPS:
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # by nohup
            signal.signal(number, stop)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped: nothing is left of the class.")
