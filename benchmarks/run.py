"""Measure everything, `python -m benchmarks.run`, or a part, `python -m benchmarks.run layers`."""

import sys
from argparse import ArgumentParser
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from benchmarks.compare import Section
from benchmarks.report import Report

MODULES = ("layers", "workers", "pictures", "browser", "site", "lessons", "exactness")
FOLDER = Path(__file__).parent


def measure(module: str, quick: bool) -> Section:
    """What a module of this folder measures."""
    return import_module(f"benchmarks.{module}").measure(quick=quick)


def measure_alone(module: str, quick: bool) -> Section:
    """The same in a fresh process, which has not the memory and the threads of the one before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, module, quick).result()


def measure_all(modules: list[str], quick: bool) -> Report:
    """What some modules measure, one after another; one whose peers are missing is skipped."""
    report = Report(quick=quick)
    for module in modules:
        print(f"measuring {module} …", file=sys.stderr, flush=True)
        try:
            report.sections[module] = measure_alone(module, quick)
        except (ModuleNotFoundError, FileNotFoundError) as error:  # a peer, Chromium
            report.skipped[module] = str(error)
    return report


def main() -> None:
    """Read the command line, measure, print the table, and write the page."""
    parser = ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument(
        "modules",
        nargs="*",
        metavar="NAME",
        help=f"some of {', '.join(MODULES)}; by default, all",
    )
    parser.add_argument("--quick", action="store_true", help="few rounds and small sizes")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where to write RESULTS.md; by default, all that is measured at length"
        " is written to benchmarks/, and the rest is only printed",
    )
    args = parser.parse_args()
    if unknown := {*args.modules} - {*MODULES}:
        parser.error(f"there is no {', '.join(sorted(unknown))} among {', '.join(MODULES)}")
    report = measure_all(args.modules or MODULES, args.quick)
    print(report.table())
    if args.output or not (args.modules or args.quick):
        report.write(args.output or FOLDER)


if __name__ == "__main__":
    main()
