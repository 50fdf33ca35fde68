"""The load test: what it makes of a class, and a small class on a real Hub."""

import asyncio
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from unittest.mock import Mock

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

if not Path(sys.prefix, "classroom/node_modules").is_dir():
    pytest.skip("`make classroom` installs what this needs", allow_module_level=True)
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from classroom import hub, run
from classroom.student import DISK, PASSWORD, WAYS, Student
from tools.jupyter import run_all_cells, visit
from tools.notebooks import LESSONS, read


def student(name, seconds=60.0, hub="http://127.0.0.1", own=WAYS, **changes):
    return Student(name, "00_start_here.ipynb", Path(), hub, seconds=seconds, own=own, **changes)


@pytest.mark.parametrize(
    ("changes", "ways", "said"),
    [
        ({}, WAYS, []),
        ({"foreign": {DISK}, "own": WAYS - {DISK}}, WAYS - {DISK}, []),
        ({"lost": "cell 7 of 40: timeout"}, WAYS, ["was lost: cell 7 of 40: timeout"]),
        *(({"foreign": {w}}, WAYS, [f"was not refused another's file by {w}"]) for w in WAYS),
        ({"own": {DISK}}, WAYS, ["could not open their own file by a download, the contents API"]),
    ],
)
def test_who_was_lost_or_not_refused_a_file_is_named_with_the_reason(changes, ways, said):
    complaints = run.complaints([student("ada"), student("emmy", **changes)], ways)
    assert [*complaints] == [f"emmy {reason}" for reason in said]


def test_the_report_is_as_the_documentation_shows_it_and_sums_up_the_numbers():
    several = [student(name, 10.0 * i, reconnected=i) for i, name in enumerate("abc", start=1)]
    several.append(student("d", None, own=set(), foreign={DISK}, lost="cell 1 of 40: timeout"))
    peak = Counter({(name, "kernel"): i * 100 for i, name in enumerate("abcd", start=1)})
    peak |= {(name, "server"): 90 for name in "abcd"}
    peak |= {("hub", "hub"): 110, ("hub", "proxy"): 70, ("all", "together"): 5000}
    rest = Counter({(name, "processor"): i * i for i, name in enumerate("abcd", start=2)})
    _, *head, title, table = "\n".join(run.report(several, peak, rest, WAYS)).split("\n", 5)
    assert head == ["lessons: 4 × 00", "finished: 3 of 4", "slowest: c, 00_start_here.ipynb"]
    numbers = [20, 30, 9, 16, 90, 90, 200, 300, 0, 0, 0, 0, 6, 110, 70, 5000, 0, 3]
    assert [*map(int, re.findall(r"\d+", table))] == numbers
    shown = (hub.NOTEBOOKS.parent / "docs/teaching/jupyterhub.md").read_text(encoding="utf-8")
    assert re.sub(" *[0-9]+", "", f"{title}\n{table}\npassed") in re.sub(" *[0-9]+", "", shown)
    *_, last = run.report(several, peak, rest, WAYS - {DISK})
    assert last.startswith("files of others, on the disk: not checked")


def at_jupyter(*counts, slow=0, limit=10):
    """Why Ada, who ran a cell, waited, and tried to open her file, is lost; connections broken.

    The kernel counts cells so; None breaks the connection, as does 0.1 s of silence.
    """
    counts, broken = iter(counts), False

    async def answer(request):
        nonlocal broken
        if "channels" not in request.path:
            await asyncio.sleep(slow if "files" in request.path else 0)
            cells = [{"cell_type": "code", "source": "1 + 1"}]
            return web.json_response({"content": {"cells": cells}, "kernel": {"id": 1}})
        socket = web.WebSocketResponse(heartbeat=0.2)
        await socket.prepare(request)
        while broken or (await socket.receive()).type is WSMsgType.TEXT:
            content = {"status": "ok", "execution_count": next(counts)}
            if broken := content["execution_count"] is None:
                break
            await socket.send_json({"msg_type": "execute_reply", "content": content})
        return socket

    async def live():
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        async with TestServer(app) as server:
            ada = student("ada", None, f"http://127.0.0.1:{server.port}")
            await ada.within(limit, ada.attend())
            await asyncio.sleep(0.6)
            await ada.within(limit, ada.spy(ada))
            return ada.lost, ada.reconnected

    return asyncio.run(live())


def test_who_waits_is_lost_only_if_the_kernel_dies_or_a_file_never_comes():
    assert at_jupyter(1, 2) == (None, 0)
    died = "opening the file of ada: RuntimeError: the kernel died, and another took its place"
    assert at_jupyter(1, 1) == (died, 0)
    assert at_jupyter(1, slow=3, limit=1) == ("opening the file of ada: not done within 1 s", 0)


def test_a_connection_that_breaks_is_made_again():
    assert at_jupyter(None, 1, 2) == (None, 1)


@pytest.mark.parametrize("option", ["--students=0", "--students=607", "--log=/no/log", "--log=/"])
def test_what_cannot_be_done_is_refused_before_a_hub_is_opened(option, monkeypatch, capsys):
    monkeypatch.setattr(run, "open_hub", None)
    with pytest.raises(SystemExit, match="2"):
        run.main([option])
    assert f"{option.partition('=')[0]} " in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SystemExit, match="needs Linux"):
        run.main([])


def test_a_watch_that_fails_is_not_silent(monkeypatch):
    monkeypatch.setattr(Student, "attend", lambda student: asyncio.sleep(3))
    monkeypatch.setattr(run, "usage", Mock(side_effect=[ZeroDivisionError, Counter(), Counter()]))
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run.hold_class([student("ada")], 10))


@pytest.fixture
def running(tmp_path, monkeypatch):
    """() → the processes of classes. At the end, neither one of them nor a file may be left."""
    with TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        monkeypatch.setenv("TMPDIR", path)
        monkeypatch.setattr("tempfile.tempdir", path)

        def running():
            every = psutil.process_iter(["environ"])
            return [one for one in every if path in (one.info["environ"] or {}).get("HOME", "")]

        yield running
        assert [*Path(path).iterdir(), *running()] == []


def test_two_students_run_a_lesson_on_a_real_hub(running, tmp_path, capsys):
    run.main(["--students=2", "--lesson=00", "--limit=120", f"--log={tmp_path}/log"])
    said = capsys.readouterr().out
    assert re.search("finished: 2 of 2\n.*: 0 of 2 opened them\n.*passed\n$", said, re.DOTALL)
    assert "student-02" in (tmp_path / "log").read_text()


def test_a_dead_kernel_and_a_leaky_hub_are_found(running, monkeypatch, tmp_path, capsys):
    lessons = {"00.ipynb": "", "01.ipynb": "1 + 1", "02.ipynb": "import os\nos._exit(1)"}
    for name, source in lessons.items():
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), tmp_path / name)
    roles = [{"name": "user", "scopes": ["self", "access:servers"]}]  # of all, not of one's own
    leaky = tmp_path / "config.py"
    leaky.write_text(f"{hub.CONFIG.read_text()}\nc.JupyterHub.load_roles = {roles}\n")
    monkeypatch.setattr(hub, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(hub, "CONFIG", leaky)
    monkeypatch.setattr(run, "LESSONS", [*lessons])
    with pytest.raises(SystemExit) as failed:
        run.main(["--students=3", "--limit=120"])
    assert str(failed.value).splitlines() == [
        "FAILED",
        "student-01 was not refused another's file by a download",
        "student-02 was lost: 02.ipynb, cell 1 of 1: RuntimeError: the kernel died",
        "student-03 was not refused another's file by a download",
    ]
    assert "2 of 2 opened them" in capsys.readouterr().out


def test_a_terminal_that_closes_ends_the_class(running):
    command = [sys.executable, "-m", "classroom.run", "--students=1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while len(running()) < 4:  # the Hub, the proxy, a server and a kernel
            assert process.poll() is None
            sleep(0.1)
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            process.send_signal(number)
        assert process.stderr.read() == "Stopped: nothing is left of the class.\n"


WORKED = "setup", "table", "table-picture", "predict-constant", "constant", "lab"  # of lesson 01


@pytest.mark.browser
def test_pictures_labs_predictions_and_checks_work_on_a_real_hub(
    running, chromium, monkeypatch, tmp_path
):
    config = tmp_path / "config.py"  # shows the page what runs in it
    shown = "c.Spawner.args = ['--LabApp.expose_app_in_browser=True']"
    config.write_text(f"{hub.CONFIG.read_text()}\n{shown}\n")
    monkeypatch.setattr(hub, "CONFIG", config)
    lesson = read(LESSONS[1])
    lesson.cells = [cell for cell in lesson.cells if cell.id in WORKED]
    with hub.open_hub([LESSONS[1]], False, tmp_path / "log") as [ada], chromium.new_page() as page:
        page.goto(f"{ada.hub}/hub/login?next=/hub/spawn")
        page.locator("#username_input").fill(ada.name)
        page.locator("#password_input").fill(PASSWORD)
        page.locator("#login_submit").click()
        page.wait_for_url(f"**/user/{ada.name}/lab**", timeout=60_000)
        server = {"url": f"{ada.hub}/user/{ada.name}/", "root_dir": ada.home, "token": ""}
        visit(page, server, lesson)
        run_all_cells(page)
        picture = page.locator(".nv-page:has(.nv-slice)").first
        picture.locator(".nv-slice").last.locator(".nv-cell").last.hover()
        assert picture.locator("[data-of]").last.is_visible()
        page.get_by_role("radio").first.press("Space")
        choice, telling = (page.locator(".jp-CodeCell").nth(number) for number in (3, 4))
        choice.get_by_text("Recorded.").wait_for()
        telling.locator(".cm-content").press("Shift+Enter")
        telling.get_by_text("You said: ").wait_for()
        lab = page.locator(".nv-lab")
        lab.get_by_role("button", name="output").click()
        lab.get_by_text(", output: mean over").wait_for()
        lab.get_by_role("slider", name="n, samples").press("ArrowRight")
        lab.locator(".nv-page", has_text="shape (4, 3, 2, 2)").wait_for()
