"""Memory and processor time of the Hub, its proxy, and each student's server and kernel."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

Sizes = Counter[tuple[str, str]]
"""Bytes of each (owner, role): ("hub", "proxy") or ("student-01", "kernel")."""


def processes(folder: Path) -> Iterator[tuple[psutil.Process, str, str]]:
    """Every process whose home lies in a folder, with its owner and its role."""
    for process in psutil.process_iter():
        try:
            home, command = Path(process.environ().get("HOME", "/")), process.cmdline()
        except psutil.Error:  # it has ended, or is not ours
            continue
        if home.parent == folder:
            if home.name == "hub":
                role = "proxy" if "configurable-http-proxy" in str(command) else "hub"
            else:
                role = "kernel" if "ipykernel_launcher" in command else "server"
            yield process, home.name, role


def memory(folder: Path) -> Sizes:
    """The memory in use: what processes share is divided among them, so that sums are true."""
    sizes = Sizes()
    for process, *key in processes(folder):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            sizes[tuple(key)] += process.memory_full_info().pss
    return sizes


def processor_seconds(folder: Path) -> Counter[str]:
    """For each owner, the processor time that the processes which still run have used."""
    seconds = Counter()
    for process, owner, _ in processes(folder):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times = process.cpu_times()
            seconds[owner] += times.user + times.system
    return seconds


class Peaks:
    """The most memory in use, of each process and of all together, as seen every two seconds.

    Args:
        folder: Where the homes of the processes are.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.each = Sizes()
        self.together = 0

    async def watch(self):
        """Look until cancelled."""
        while True:
            now = await asyncio.to_thread(memory, self.folder)
            self.each |= now  # the larger of both
            self.together = max(self.together, now.total())
            await asyncio.sleep(2)
