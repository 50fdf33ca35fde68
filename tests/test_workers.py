"""Real workers: each does its part, from a test, from a notebook, and whatever goes wrong there."""

import multiprocessing
import os
import signal
import threading
import time

import nbclient
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from torch import distributed

from normviz.workers import together

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="needs torch.distributed")


ASLEEP = 60  # seconds, for which nobody waits


class Odd(Exception):
    """An error that cannot travel as it is."""

    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def gather(rank, size, start):
    parts = [torch.empty(1) for _ in range(size)]
    distributed.all_gather(parts, torch.tensor([start + rank]))
    return rank, size, torch.cat(parts), torch.get_num_threads()


def fail(rank, size, how):
    if rank == 0:
        distributed.barrier()  # would wait for the others a minute
    if how == "die":
        os._exit(3)
    if how == "odd":
        raise Odd(1, 2)
    if how == "exit":
        raise SystemExit("enough")
    raise KeyError("no such weight")


def sleep(rank, size):
    time.sleep(ASLEEP)


@pytest.fixture(scope="module", autouse=True)
def _first():
    """What starts all workers runs: in the folders of tests, its socket would have no room."""
    together(gather, 1, 0.0)


@pytest.fixture(autouse=True)
def nobody_stays(tmp_path, monkeypatch):
    """What was started has ended, and nothing lies about."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    assert multiprocessing.active_children() == []
    assert [*tmp_path.glob("normviz-*")] == []


def test_each_worker_does_its_part_with_one_thread():
    for rank, (own, size, parts, threads) in enumerate(together(gather, 3, 0.5)):
        assert (own, size, threads) == (rank, 3, 1)
        assert parts.tolist() == [0.5, 1.5, 2.5]


def test_a_function_that_cannot_be_imported_is_sent_as_text():
    def inside(rank, size, x, factor=2):
        import torch

        return torch.tensor(x) * factor + rank

    assert together(inside, 2, 3.0) == [6, 7]


def test_what_cannot_be_sent_is_refused():
    number = 3

    def inside(rank, size):
        return number

    space = {}
    exec("def typed(rank, size): return rank", space)
    for task, words in (
        (inside, "uses number of the function around it"),
        (lambda rank, size: rank, "has no name"),
        (space["typed"], "has no text that could be found"),
    ):
        with pytest.raises(ValueError, match=words):
            together(task, 2)
    with pytest.raises(ValueError, match="size must be 1 or more: got 0"):
        together(gather, 0, 1)


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("raise", KeyError, "'no such weight'"),
        ("odd", RuntimeError, "Odd: 1 and 2"),
        ("exit", RuntimeError, "SystemExit: enough"),
        ("die", RuntimeError, "Worker 1 died without a word: exit code 3."),
    ],
)
def test_an_error_of_a_worker_comes_out_in_its_own_words_and_at_once(how, kind, words):
    start = time.monotonic()
    with pytest.raises(kind) as raised:
        together(fail, 2, how)
    assert str(raised.value) == words
    assert time.monotonic() - start < 55  # and not the minute
    if how != "die":
        [note] = raised.value.__notes__
        assert note.startswith("Raised on worker 1 of 0 to 1:\nTraceback")
        assert "in fail\n" in note


def test_where_no_socket_has_room_workers_start_all_the_same(monkeypatch):
    def fail():
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", fail)
    assert [rank for rank, *_ in together(gather, 2, 0.5)] == [0, 1]


def test_a_name_that_a_worker_does_not_know_gets_a_hint():
    def inside(rank, size):
        return torch.ones(size)

    with pytest.raises(NameError, match="name 'torch' is not defined") as raised:
        together(inside, 1)
    where, hint = raised.value.__notes__
    assert "return torch.ones(size)" in where  # the line itself
    assert hint == "A worker knows nothing of the notebook: import it inside the task."


def test_who_takes_too_long_is_ended():
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="still at work after 2 seconds"):
        together(sleep, 2, seconds=0.2)
    assert time.monotonic() - start < ASLEEP / 2


def test_an_interrupt_ends_the_workers():
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGINT))
    start = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        together(sleep, 2)
    timer.join()
    assert time.monotonic() - start < ASLEEP / 2


def test_a_warning_of_a_worker_is_an_error_where_it_is_one_here():
    def warn(rank, size):
        import warnings

        warnings.warn("look", stacklevel=2)
        return rank

    with pytest.raises(UserWarning, match="look"):
        together(warn, 1)


CELLS = [
    "from normviz.workers import together",
    """\
def task(rank, size, x):
    import torch
    from torch import distributed

    parts = [torch.empty(2) for _ in range(size)]
    distributed.all_gather(parts, x + rank)
    return torch.cat(parts).tolist()""",
    "import torch; together(task, 2, torch.ones(2))",
    "def broken(rank, size):\n    return 1 / rank",
    """\
try:
    together(broken, 2)
except ZeroDivisionError as error:
    print(error)""",
]


def test_a_task_may_stand_in_a_cell_of_a_notebook():
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = new_notebook(cells=[*map(new_code_cell, CELLS)], metadata={"kernelspec": kernel})
    nbclient.NotebookClient(notebook, timeout=120).execute()
    [result], [printed] = (notebook.cells[i].outputs for i in (2, 4))
    assert result["data"]["text/plain"] == repr([[1.0, 1.0, 2.0, 2.0]] * 2)
    assert printed["text"] == "division by zero\n"
