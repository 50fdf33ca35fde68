"""make touches nothing that is not its own, waits where it has to, and says what is wrong."""

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

import pytest
from conftest import SLOW
from making import REAL, furnish, installing, make, start, wait_until

TESTS = Path(__file__).parent
OSERROR = "ERROR: Could not install packages due to an OSError: "
WAITS = "Another make is installing into .venv. This one waits for it.\n"


def log(folder):
    """What the Python of .venv was asked for, as words."""
    return [line.split() for line in (folder / "log").read_text().splitlines()]


def installed(folder):
    """What pip was asked to install."""
    return [words[-1] for words in log(folder) if "install" in words]


def ran(folder):
    """The modules that were run in .venv."""
    return [words[1] for words in log(folder) if words[0] == "-m"]


def everything_in(folder):
    """All that is in a folder, bit for bit, and when it was changed."""
    return {
        path: (path.lstat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in [folder, *folder.rglob("*")]
    }


def outdate(folder):
    """As after a git pull: what is to be installed is newer than what is."""
    later = (folder / ".venv/ready").stat().st_mtime_ns + 1
    os.utime(folder / "constraints.txt", ns=(later, later))


# What is not its own


def link_to_a_folder(venv):
    (venv.parent / "other").mkdir()
    (venv.parent / "other/precious").write_text("all my work")
    venv.symlink_to("other")


def link_to_an_environment_that_is_ready(venv):
    link_to_a_folder(venv)
    (venv / "bin").symlink_to("../scripts")
    (venv / "ready").touch()


def link_to_nothing(venv):
    venv.symlink_to("/nowhere")


def a_file(venv):
    venv.write_text("all my work")


def an_environment_of_another(venv):
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").write_text("another")


@pytest.mark.parametrize(
    "what",
    [
        link_to_a_folder,
        link_to_an_environment_that_is_ready,
        link_to_nothing,
        a_file,
        an_environment_of_another,
    ],
)
def test_what_make_did_not_make_is_refused_and_left_alone(tmp_path, what):
    furnish(tmp_path)
    what(tmp_path / ".venv")
    before = everything_in(tmp_path)
    for target in ("lab", "bench"):
        told = make(tmp_path, target)
        assert ": make leaves it alone. Move or delete it, then run make again.\n" in told
    assert everything_in(tmp_path) == before


def test_an_environment_of_an_older_makefile_is_replaced(tmp_path):
    furnish(tmp_path)
    an_environment_of_another(tmp_path / ".venv")
    (tmp_path / ".venv/lib64").symlink_to("../binder")
    (tmp_path / ".venv/ready").touch()
    outdate(tmp_path)
    make(tmp_path, "lab")
    assert installed(tmp_path) == ["torch", ".[test]"]
    assert (tmp_path / ".venv/bin/python").read_text().startswith("#!")
    assert (tmp_path / "binder/overrides.json").exists()


# One at a time


def test_two_at_once_wait_for_each_other(tmp_path):
    with installing(tmp_path) as first:
        second = start(tmp_path, "test")
        assert second.stdout.readline() == WAITS
        assert installed(tmp_path) == ["torch"]
    second.communicate(timeout=60)
    assert first.returncode == second.returncode == 0
    assert installed(tmp_path) == ["torch", ".[test]"]
    assert {*ran(tmp_path)} == {"jupyterlab", "ruff", "pytest"}


@contextmanager
def running_lab(folder):
    """A lab that goes on running until the end of the block."""
    lab = 'case "$*" in *jupyterlab*) : > lab; while [ -e lab ]; do sleep 0.02; done;; esac'
    furnish(folder, runs=lab)
    process = start(folder, "lab")
    wait_until((folder / "lab").exists)
    try:
        yield
    finally:
        (folder / "lab").unlink()
        process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("target", ["test", ".venv/classroom/ready"])
def test_a_running_lab_keeps_its_environment(tmp_path, target):
    with running_lab(tmp_path):
        make(tmp_path, "test")
        assert ran(tmp_path)[-1] == "pytest"  # side by side
        outdate(tmp_path)
        before = everything_in(tmp_path / ".venv")
        told = make(tmp_path, target)
        assert "and constraints.txt is newer than what is installed. End it, then run make" in told
        assert everything_in(tmp_path / ".venv") == before
    make(tmp_path, target)
    assert installed(tmp_path)[:4] == ["torch", ".[test]"] * 2


def test_an_extra_is_not_installed_under_a_running_lab_either(tmp_path):
    with running_lab(tmp_path):
        assert "and .venv/bench/ready is missing. End it" in make(tmp_path, "bench")
    make(tmp_path, "bench")
    assert installed(tmp_path) == ["torch", ".[test]", ".[bench]"]
    assert ran(tmp_path) == ["jupyterlab", "benchmarks.run"]


def test_nothing_is_installed_under_anything_that_runs(tmp_path):
    lock = "import fcntl; fcntl.flock(open('.venv/in-use'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    furnish(tmp_path, runs=f'if {REAL} -c "{lock}" 2>/dev/null; then echo unlocked >> log; fi')
    for target in ("lab", "quick", "test", "bench", "site", "sheets", "classroom"):
        make(tmp_path, target)
    kinds = {"jupyterlab", "ruff", "pytest", "benchmarks.run", "sphinx", "sheets", "classroom.run"}
    assert {*ran(tmp_path)} == kinds
    assert ["unlocked"] not in log(tmp_path)


@pytest.mark.parametrize("where", ["python", "pip", "proof"])
def test_an_interrupted_installation_starts_again(tmp_path, where):
    furnish(tmp_path, **{where: "if [ -e slow ]; then : > there; exec sleep 20; fi"})
    (tmp_path / "slow").touch()
    first = start(tmp_path, "lab")
    wait_until((tmp_path / "there").exists)
    os.killpg(first.pid, signal.SIGINT)
    told = first.communicate(timeout=10)[0]
    assert first.returncode and "Traceback" not in told
    assert not (tmp_path / ".venv/ready").exists()
    (tmp_path / "slow").unlink()
    make(tmp_path, "lab")
    assert ran(tmp_path) == ["jupyterlab"]


# What is wrong


def pip_says(*lines):
    return "; ".join(f"echo {quote(line)} >&2" for line in lines) + "; exit 1"


@pytest.mark.parametrize(
    ("reason", "scripts"),
    [
        ("There is no python3 here", {"python": None}),
        ("python3 is Python 3.10.12, but", {"python": "echo Python 3.10.12; exit 1"}),
        ("its venv module is missing", {"python": 'case "$3" in *ensurepip*) exit 1;; esac'}),
        ("The disk is full", {"pip": pip_says(OSERROR + "[Errno 28] No space left on device")}),
        ("make may not write here", {"pip": pip_says(OSERROR + "[Errno 13] Permission denied: x")}),
        (
            "No index has all packages for Python 3",
            {"pip": pip_says("ERROR: ResolutionImpossible")},
        ),
        ("elsewhere, or not at all: global.root='/x'.", {"settings": "echo global.root=\\'/x\\'"}),
        ("ailed; the reason stands above", {"pip": pip_says("ERROR: something else")}),
        ("ailed; the reason stands above", {"proof": pip_says("ModuleNotFoundError: torch")}),
    ],
)
def test_the_reason_of_a_failure_is_given_and_nothing_is_ready(tmp_path, reason, scripts):
    furnish(tmp_path, **scripts)
    told = make(tmp_path, "lab")
    assert reason in told
    assert "-m jupyterlab" not in told
    assert not (tmp_path / ".venv/ready").exists()


def test_the_real_pip_behind_a_dead_proxy_is_understood_and_no_password_is_shown(tmp_path):
    install = "-m pip install --quiet --retries=1 --no-deps --index-url=https://nowhere.invalid x"
    furnish(tmp_path, pip=f"exec {REAL} {install}")
    proxies = {"https_proxy": "http://me:secret@127.0.0.1:9", "PIP_CONFIG_FILE": os.devnull}
    told = make(tmp_path, "lab", **proxies)
    assert "\nAn index of packages is out of reach (https_proxy=http://127.0.0.1:9). Check" in told
    assert "secret" not in told


def test_settings_for_another_pip_and_another_python_are_not_heeded(tmp_path):
    furnish(tmp_path, pip="env | grep -E '^(PIP|PYTHON)' > seen")
    (tmp_path / "re.py").write_text("raise SystemExit('a module of another Python')")
    elsewhere = {f"PIP_{name}": "/x" for name in ("PREFIX", "TARGET", "ROOT", "PYTHON")}
    pythons = {"PYTHONHOME": "/nowhere", "PYTHONPATH": str(tmp_path)}
    settings = {"PIP_USER": "1", "PIP_NO_DEPS": "1", "PIP_DRY_RUN": "1", "PIP_INDEX_URL": "kept"}
    told = make(tmp_path, "bench", **elsewhere, **pythons, **settings)
    assert ran(tmp_path) == ["benchmarks.run"] and "another Python" not in told
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert (seen.pop("PIP_USER"), seen.pop("PIP_INDEX_URL")) == ("0", "kept")
    assert not {*elsewhere, *pythons, *settings} & {*seen}


# What it offers


def test_an_up_to_date_environment_is_used_as_it_is_without_any_python3(tmp_path):
    furnish(tmp_path)
    make(tmp_path, "lab")
    (tmp_path / "scripts/python3").unlink()
    before = everything_in(tmp_path / ".venv")
    make(tmp_path, "lab")
    assert ran(tmp_path) == ["jupyterlab"] * 2
    assert everything_in(tmp_path / ".venv") == before


def test_a_path_may_hold_spaces_quotes_and_umlauts(tmp_path):
    furnish(folder := tmp_path / """it's "a" földer""")
    make(folder, "lab")
    assert installed(folder) == ["torch", ".[test]"]
    assert ran(folder) == ["jupyterlab"]


def test_make_quick_runs_ruff_and_all_tests_but_the_slow_ones(tmp_path):
    furnish(tmp_path)
    make(tmp_path, "quick", "ARGS=-k layers")
    assert ran(tmp_path) == ["ruff", "ruff", "pytest"]
    assert log(tmp_path)[-1][2:] == ["-m", "not", "slow", "-k", "layers"]


def test_slow_are_the_files_of_the_list_which_exist_and_what_is_marked_itself(request):
    assert all((TESTS / f"{name}.py").is_file() for name in SLOW)
    for item in request.session.items:
        marked = getattr(getattr(item, "function", None), "pytestmark", [])
        slow = item.path.stem in SLOW or "slow" in {mark.name for mark in marked}
        assert bool(item.get_closest_marker("slow")) == slow
