"""The load test: `python -m classroom.run --students 20`."""

import asyncio
import signal
import sys
from argparse import ArgumentParser
from itertools import cycle, islice
from pathlib import Path

from classroom.browser import Browser
from classroom.hub import NOTEBOOKS, UIDS, Hub, open_hub
from classroom.measure import Peaks, memory, processor_seconds
from classroom.report import Report

LESSONS = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


async def hold_class(hub: Hub, limit: float) -> Report:
    """Let all students work at the same time; then, let each try to open the next one's files."""
    browsers = [Browser(student, hub.url) for student in hub.students]
    peaks = Peaks(hub.folder)
    try:
        async with asyncio.TaskGroup() as group:  # which ends at once if the watch fails
            watch = group.create_task(peaks.watch())
            await asyncio.gather(*(browser.attend(limit) for browser in browsers))
            watch.cancel()
        await asyncio.sleep(5)
        rest, processor = memory(hub.folder), processor_seconds(hub.folder)
        here = [browser for browser in browsers if not browser.student.lost]
        pairs = zip(here, here[1:] + here[:1], strict=True)
        await asyncio.gather(*(one.spy(other.student, limit) for one, other in pairs))
    finally:
        await asyncio.gather(*(browser.leave() for browser in browsers))
    peak = peaks.each | rest
    together = max(peaks.together, rest.total())
    return Report(hub.students, hub.shared_disk, peak, together, rest, processor)


def main():
    """Read the command line, hold the class, and print the report.

    Raises:
        SystemExit: with the complaints, if there are any; or if this is not Linux.
    """
    parser = ArgumentParser(prog="python -m classroom.run", description=__doc__)
    parser.add_argument("--students", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument(
        "--lesson",
        choices=[name[:2] for name in LESSONS],
        help="one lesson for all; by default, students are spread over all but 00",
    )
    parser.add_argument(
        "--limit", type=float, default=600, metavar="SECONDS", help="for a student; default: 600"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="where to keep the Hub's log")
    args = parser.parse_args()
    if not 1 <= args.students <= len(UIDS):
        parser.error(f"--students must be from 1 to {len(UIDS)}")
    if sys.platform != "linux":
        raise SystemExit("The load test needs Linux: it measures memory as Linux counts it.")
    with open_hub([*islice(cycle(chosen(args.lesson)), args.students)]) as hub:
        report = asyncio.run(hold_class(hub, args.limit))
        if args.log:
            args.log.write_text(hub.log)
    print(*report.lines(), sep="\n")
    if complaints := [*report.complaints()]:
        raise SystemExit("\n".join(["FAILED", *complaints]))
    print("passed")


def chosen(number: str | None) -> list[str]:
    """The lessons to be held: the one of a number, or all but the introduction."""
    return [name for name in LESSONS if name[:2] == number or (not number and name[:2] != "00")]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the same as Ctrl-C
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped: nothing is left of the class.")
