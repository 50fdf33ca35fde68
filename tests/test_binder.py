"""What Binder makes of the project, as far as that can be seen without Docker."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Binder runs on Linux")


@pytest.fixture(scope="module")
def dockerfile():
    """The lines that repo2docker would build the image from."""
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--user-id=1000"]
    told = subprocess.run(
        [*command, "--user-name=jovyan", "."], cwd=ROOT, check=True, capture_output=True, text=True
    )
    python, *_ = yaml.safe_load((ROOT / "binder/environment.yml").read_text())["dependencies"]
    assert f"Building conda environment for {python}\n" in told.stderr
    return [line.strip() for line in told.stdout.splitlines()]


def only(lines, *parts):
    """The number of the one line that has all these parts."""
    [found] = [i for i, line in enumerate(lines) if all(part in line for part in parts)]
    return found


def test_the_environment_is_solved_before_the_sources_are_copied_and_postbuild_comes_last(
    dockerfile,
):
    solved = only(dockerfile, "env update", '--file "binder/environment.yml"')
    copied = only(dockerfile, "COPY", " src/ ${REPO_DIR}/")
    assert solved < copied < only(dockerfile, "RUN ./binder/postBuild")


def test_start_is_what_the_image_starts_with(dockerfile):
    only(dockerfile, 'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"')


def test_binder_gets_the_environment_of_everyone():
    first, second = ROOT / "environment.yml", ROOT / "binder/environment.yml"
    assert first.read_text() == second.read_text()


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_a_script_can_be_run_and_bash_can_read_it(name):
    path = ROOT / "binder" / name
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)


def test_start_leaves_one_thread_and_becomes_the_command():
    ask = "echo $$ $OMP_NUM_THREADS $MKL_NUM_THREADS $OPENBLAS_NUM_THREADS 'two words'"
    process = subprocess.Popen(
        [ROOT / "binder/start", "bash", "-c", ask], stdout=subprocess.PIPE, text=True
    )
    assert process.communicate()[0].split() == [str(process.pid), *"111", "two", "words"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A clean environment with all that conda would have installed, after postBuild."""
    home = tmp_path_factory.mktemp("image")
    repo, environment = home / "repo", home / "environment"
    ignore = shutil.ignore_patterns(".*", "_build", "dist")
    shutil.copytree(ROOT, repo, ignore=ignore)
    venv.create(environment, with_pip=True, symlinks=True)
    packages = {"base": environment, "platbase": environment}
    here = Path(sysconfig.get_path("purelib", "venv", packages))
    here.joinpath("conda.pth").write_text(sysconfig.get_path("purelib"))
    python = environment / "bin/python"
    missing = subprocess.run([python, "-P", "-c", "import normviz"], capture_output=True)
    assert missing.returncode  # else nothing could be learned from what follows
    subprocess.run(
        ["./binder/postBuild"],
        cwd=repo,
        check=True,
        env=os.environ | {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}"},
    )
    return environment


def test_postbuild_installs_normviz_itself(built):
    ask = [built / "bin/python", "-P", "-c", "import normviz; print(normviz.__file__)"]
    told = subprocess.run(ask, check=True, capture_output=True, text=True)
    assert Path(told.stdout).is_relative_to(built)


def test_postbuild_puts_the_settings_where_jupyterlab_reads_them(built):
    ask = "from jupyterlab.commands import get_app_dir; print(get_app_dir())"
    command = [built / "bin/python", "-P", "-c", ask]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    settings = json.loads(Path(told.stdout.strip(), "settings/overrides.json").read_text())
    assert settings == json.loads((ROOT / "binder/overrides.json").read_text())


def test_postbuild_stops_at_the_first_failure(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    told = subprocess.run(
        [ROOT / "binder/postBuild"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, cwd=tmp_path
    )
    assert told.returncode == 3
