"""How the Makefile and CI find an interpreter: by running it."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAILS = "echo 'pyenv: python3.13: command not found' >&2; exit 127"
RUNS = f'exec {sys.executable} "$@"'


def program(path: pathlib.Path, text: str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def run(command: list[str], first_on_path: pathlib.Path) -> "subprocess.CompletedProcess[str]":
    hidden = ("MAKEFLAGS", "MAKELEVEL", "PYTHON", "VENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PATH"] = f"{first_on_path}{os.pathsep}{os.environ['PATH']}"
    environment["PYENV_ROOT"] = str(first_on_path / "pyenv")
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def find(folder: pathlib.Path, *names: str) -> "subprocess.CompletedProcess[str]":
    return run(["scripts/find_python.sh", *names], folder)


def test_a_shim_that_fails_is_passed_over(tmp_path: pathlib.Path) -> None:
    program(tmp_path / "python3.13", FAILS)
    program(tmp_path / "other", RUNS)
    assert find(tmp_path, "python3.13", "other").stdout == "other\n"


def test_what_pyenv_has_is_found_behind_its_shim(tmp_path: pathlib.Path) -> None:
    program(tmp_path / "python3.13", FAILS)
    program(tmp_path / "pyenv/versions/3.12.9/bin/python3.12", RUNS)
    real = program(tmp_path / "pyenv/versions/3.13.0/bin/python3.13", RUNS)
    assert find(tmp_path, "python3.13").stdout == f"{real}\n"


@pytest.mark.parametrize(
    ("version", "supported"),
    [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False), ((4, 0), False)],
)
def test_other_versions_are_refused(
    version: tuple[int, int], supported: bool, tmp_path: pathlib.Path
) -> None:
    program(
        tmp_path / "some",
        f'exec {sys.executable} -c "import sys; sys.version_info = {(*version, 0)}\n$2"',
    )
    done = find(tmp_path, "some")
    assert (done.returncode == 0) is supported
    if not supported:
        assert len(done.stderr.splitlines()) == 1
        assert "some" in done.stderr
        assert "PYTHON=" in done.stderr


def test_a_python_without_venv_is_passed_over(tmp_path: pathlib.Path) -> None:
    # As Debian ships it without the package python3-venv.
    program(
        tmp_path / "bare",
        f"exec {sys.executable} -c \"import sys; sys.modules['ensurepip'] = None\n$2\"",
    )
    assert find(tmp_path, "bare").returncode == 1


def plan(folder: pathlib.Path, *variables: str) -> str:
    """What make would do for the environment in ``folder/venv``."""
    venv = folder / "venv"
    made = run(["make", "--dry-run", f"VENV={venv}", *variables, str(venv / ".build")], folder)
    assert made.returncode == 0, made.stderr
    return made.stdout


@pytest.fixture
def made(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with an environment of Python 3.12, as its stamps and its interpreter say."""
    program(tmp_path / "venv/bin/python", "echo 3.12")
    program(tmp_path / "python3.11", "echo 3.11")
    program(tmp_path / "python3.13", "echo 3.13")
    for stamp in (".python3.12", ".build"):
        (tmp_path / "venv" / stamp).touch()
    return tmp_path


def test_an_environment_stays_unless_another_python_is_asked_for(made: pathlib.Path) -> None:
    assert "-m venv" not in plan(made)
    assert "-m venv" in plan(made, "PYTHON=python3.13")
    assert "-m venv" not in plan(made, "PYTHON=" + str(program(made / "mine", "echo 3.12")))


def test_a_new_environment_is_made_with_the_first_that_runs(tmp_path: pathlib.Path) -> None:
    program(tmp_path / "python3.11", FAILS)
    program(tmp_path / "python3.12", "echo 3.12")
    venv = tmp_path / "venv"
    assert f"touch {venv}/.python3.12" in plan(tmp_path)
