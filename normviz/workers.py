"""Real worker processes, over gloo on loopback: each does the same task with its rank."""

import inspect
import linecache
import os
import pickle
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import connection, get_context
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

import torch
from torch import distributed

STRICT = ("error", None, Warning, None, 0)  # a filter: each warning is an error


def together(task: Callable, size: int, *arguments, seconds: float = 60) -> list:
    """What a task gives on each of some workers, which are processes of their own.

    Each worker calls ``task(rank, size, *arguments)``, with one thread, in a group of
    ``torch.distributed``. When this function returns or raises, all of them have ended.

    On Linux they are copies of one process that has imported torch (multiprocessing's fork server),
    which takes a second or two once: it starts with the first call, unless the program has one, and
    ends with the caller. So a worker has the environment variables, and writes to the streams, that
    were there at the first call; and some 200 MB are taken until the end.

    Args:
        task: a function; one that is defined in a notebook is sent as text, so it has to import
            inside what it uses.
        size: how many workers, 1 or more.
        *arguments: of the task; they are pickled, as its results are.
        seconds: that one worker waits for another. After ten times as long, all are ended.

    Returns:
        The results, in the order of the ranks: 0 to ``size`` - 1.

    Raises:
        ValueError: if there is no worker, or the text of the task cannot be sent.
        TimeoutError: if the workers take too long.
        RuntimeError: if this torch has no ``torch.distributed``, or a worker dies without a word.
        Exception: what a worker raises, the first of them; a note tells which one, and where.

    >>> def add_up(rank, size, start):
    ...     import torch
    ...     from torch import distributed
    ...
    ...     total = torch.tensor(start + rank)
    ...     distributed.all_reduce(total)
    ...     return rank, total.item()
    >>> together(add_up, 2, 10)
    [(0, 21), (1, 21)]
    """
    if size < 1:
        raise ValueError(f"size must be 1 or more: got {size!r}.")
    if not distributed.is_available():
        raise RuntimeError("This build of torch has no torch.distributed, which workers need.")
    started, sent = [], (_as_sent(task), arguments)
    with TemporaryDirectory(prefix="normviz-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        torch.save(sent, folder / "task.pt")
        strict = STRICT in warnings.filters
        context = _context()
        try:
            for rank in range(size):
                args = (rank, size, name, seconds, strict)
                worker = context.Process(target=_work, args=args, daemon=True)
                worker.start()
                started.append(worker)
            _wait_for(started, folder, 10 * seconds)
        finally:
            for worker in started:
                worker.kill()
                worker.join()
        return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _context():
    """How workers are started: as copies of a process that has imported torch, if possible."""
    if sys.platform != "linux":  # elsewhere, numpy and torch may not bear to be copied
        return get_context("spawn")
    from multiprocessing import forkserver  # where there is one

    context = get_context("forkserver")
    context.set_forkserver_preload(["torch"])  # and not normviz: sys.path may lead to another
    try:
        forkserver.ensure_running()
    except OSError:  # no room for its socket, whose path may be too long; or it is the parent's
        return get_context("spawn")
    return context


def _as_sent(task: Callable) -> Callable | tuple[str, str]:
    """A task that a worker can import, as it is; of any other one, its name and its text."""
    if not inspect.isfunction(task) or _is_importable(task):
        return task
    what = f"task must be a function that can be sent to a worker: {task.__qualname__}"
    if task.__name__ == "<lambda>":
        raise ValueError(f"{what} has no name; write it with def.")
    if free := task.__code__.co_freevars:
        raise ValueError(f"{what} uses {', '.join(free)} of the function around it; pass it on.")
    try:
        return task.__name__, dedent(inspect.getsource(task))
    except (OSError, TypeError):
        raise ValueError(f"{what} has no text that could be found.") from None


def _is_importable(task: Callable) -> bool:
    module = sys.modules.get(task.__module__)
    if task.__module__ == "__main__" and not hasattr(module, "__file__"):  # of a notebook
        return False
    try:
        return attrgetter(task.__qualname__)(module) is task
    except AttributeError:
        return False


def _wait_for(workers: list, folder: Path, seconds: float) -> None:
    """Until all have ended.

    Raises:
        TimeoutError: if none ends for that long.
        Exception: what the first worker that failed has raised.
    """
    running = {worker.sentinel: worker for worker in workers}
    while running:
        ended = connection.wait(running, seconds)
        if not ended:
            raise TimeoutError(f"The workers were still at work after {seconds:g} seconds.")
        for worker in map(running.pop, ended):
            worker.join()
            if worker.exitcode:
                raise _what_went_wrong(workers, folder)


def _what_went_wrong(workers: list, folder: Path) -> BaseException:
    """The error that came first; others only miss the worker that failed."""
    codes = {rank: worker.exitcode for rank, worker in enumerate(workers) if worker.exitcode}
    files = sorted(folder.glob("*.error"), key=lambda file: file.stat().st_mtime_ns)
    error = _told_in(files[0], len(workers) - 1) if files else None
    for rank in codes.keys() - {int(file.stem) for file in files}:
        dead = RuntimeError(f"Worker {rank} died without a word: exit code {codes[rank]}.")
        dead.__cause__ = error
        return dead
    return error


def _told_in(file: Path, last: int) -> BaseException:
    error, told = pickle.loads(file.read_bytes())
    error.add_note(f"Raised on worker {file.stem} of 0 to {last}:\n{told}")
    if isinstance(error, NameError):
        error.add_note("A worker knows nothing of the notebook: import it inside the task.")
    return error


def _work(rank: int, size: int, folder: str, seconds: float, strict: bool) -> None:
    """What each process does: its part, and its result or its error in a file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who has started it ends it
    code = 1
    try:
        _do(rank, size, Path(folder), timedelta(seconds=seconds), strict)
        code = 0
    except BaseException as error:
        new = Path(folder, f"{rank}.new")
        new.write_bytes(_pickled(error))
        new.rename(new.with_suffix(".error"))  # there as a whole, or not at all
    finally:
        sys.stdout.flush()
        os._exit(code)  # leaves nobody waiting, and takes no seconds to tidy up torch


def _do(rank: int, size: int, folder: Path, timeout: timedelta, strict: bool) -> None:
    if strict:
        warnings.simplefilter("error")
    torch.set_num_threads(1)
    if loopback := [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback[0]
    task, arguments = torch.load(folder / "task.pt", weights_only=False)
    task = _defined(*task) if isinstance(task, tuple) else task
    store = distributed.FileStore(str(folder / "meeting"), size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    torch.save(task(rank, size, *arguments), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def _defined(name: str, text: str) -> Callable:
    """The function of that name that the text defines; its lines can be seen in a traceback."""
    file, space = f"<{name}>", {"__name__": "__worker__"}
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    exec(compile(text, file, "exec"), space)
    return space[name]


def _pickled(error: BaseException) -> bytes:
    """An error and its traceback; of one that cannot travel, the words."""
    told = traceback.format_exc()
    words = RuntimeError(f"{type(error).__name__}: {error}")
    try:
        pickled = pickle.dumps((error if isinstance(error, Exception) else words, told))
        pickle.loads(pickled)
    except Exception:
        return pickle.dumps((words, told))
    return pickled
