"""Run the Dockerfile's steps without Docker, then the shipped command without network.

    python -m tests.dataflow_templates.rehearse_image [--keep FOLDER]

In an empty folder and a virtual environment of its own: every COPY from the tree, every RUN, every
ENV, in order, read from the Dockerfile itself. What comes from other images (Beam's boot program,
Dataflow's launcher) is left out, and starts no worker. Then ``c4 build`` builds a corpus of the
sample pages in a network namespace without network (``unshare``; where that is not allowed, with
all of Python's sockets closed). It takes some minutes, mostly for pip, and 1.5 GB of disk.
"""

import argparse
import contextlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

__all__ = ["Step", "read_steps", "rehearse"]

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_DOCKERFILE = _ROOT / "dataflow_templates" / "Dockerfile"
_STEP_SECONDS = 1200
_NO_SOCKETS = """
import socket
def _shut(*_, **__):
    raise OSError("this rehearsal has no network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = _shut
"""


class Step(NamedTuple):
    """One instruction of a Dockerfile, continuation lines joined."""

    instruction: str
    words: str


def read_steps(text: str) -> list[Step]:
    r"""Return the instructions of a Dockerfile.

    >>> read_steps("# why\nRUN a \\\n  b\n")
    [Step(instruction='RUN', words='a b')]
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    steps = []
    for line in filter(str.strip, joined.splitlines()):
        instruction, _, words = line.strip().partition(" ")
        steps.append(Step(instruction.upper(), words.strip()))
    return steps


def rehearse(folder: pathlib.Path, steps: Sequence[Step], image: str) -> None:
    """Run the steps in ``folder``, then build a corpus there without network.

    Raises:
        RuntimeError: A step failed; the message has its last lines.
    """
    home = folder / "image"
    home.mkdir(parents=True)
    environment = _empty_environment(folder / "venv")
    for step in steps:
        _carry_out(step, home, environment, image)
    _build_without_network(folder, environment)


def _empty_environment(venv: pathlib.Path) -> dict[str, str]:
    """Make a virtual environment; return the variables with which its commands are found."""
    _run([sys.executable, "-m", "venv", str(venv)], venv.parent, os.environ)
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{environment['PATH']}"
    return environment


def _carry_out(step: Step, home: pathlib.Path, environment: dict[str, str], image: str) -> None:
    began = time.monotonic()
    if step.instruction == "COPY":
        *sources, target = shlex.split(step.words)
        if sources[0].startswith("--from="):
            return
        for source in sources:
            _copy(_ROOT / source, home / target, into=target.endswith("/"))
    elif step.instruction == "RUN":
        _run(["sh", "-c", step.words], home, environment)
    elif step.instruction == "ENV":
        for word in shlex.split(step.words):
            name, _, value = word.partition("=")
            environment[name] = value.replace("${IMAGE}", image)
    elif step.instruction not in ("FROM", "ARG", "WORKDIR", "ENTRYPOINT"):
        raise RuntimeError(f"cannot rehearse {step.instruction} {step.words}")
    print(f"{time.monotonic() - began:6.1f} s  {step.instruction} {step.words}", flush=True)


def _copy(source: pathlib.Path, target: pathlib.Path, into: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target / source.name if into else target)


def _run(command: Sequence[str], folder: pathlib.Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=_STEP_SECONDS,
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{tail}")
    return done.stdout


def _build_without_network(folder: pathlib.Path, environment: Mapping[str, str]) -> None:
    shutil.copytree(_ROOT / "samples" / "wet", folder / "wet")
    environment = {**environment, "PYTHONDONTWRITEBYTECODE": "1"}
    unshare = ["unshare", "--net", "--map-root-user"]
    allowed = shutil.which("unshare") is not None and not subprocess.call(
        [*unshare, "true"], stderr=subprocess.DEVNULL
    )
    if allowed:
        print("no network: a namespace of its own")
        reach = "import socket; socket.create_connection(('192.0.2.1', 80), 2)"
        if not subprocess.call(
            [*unshare, "python", "-c", reach], env=environment, stderr=subprocess.DEVNULL
        ):
            raise RuntimeError("the namespace has a network")
    else:
        print("no network: Python's sockets shut (unshare is not allowed here)")
        (folder / "shut").mkdir()
        (folder / "shut" / "sitecustomize.py").write_text(_NO_SOCKETS, encoding="utf-8")
        environment["PYTHONPATH"] = str(folder / "shut")
    command = "c4 build --input 'wet/*' --output corpus --workers 1"
    out = _run([*(unshare if allowed else ()), "sh", "-c", command], folder, environment)
    [built] = [line for line in out.splitlines() if line.startswith("built from ")]
    if not (folder / "corpus" / "manifest.json").is_file():
        raise RuntimeError("no corpus was built")
    print(built)


@contextlib.contextmanager
def _folder(keep: str | None) -> Iterator[pathlib.Path]:
    if keep is not None:
        yield pathlib.Path(keep).absolute()
    else:
        with tempfile.TemporaryDirectory(prefix="c4-image-") as folder:
            yield pathlib.Path(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the Dockerfile's steps; return 0 if a corpus was built without network."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.dataflow_templates.rehearse_image", allow_abbrev=False
    )
    parser.add_argument("--keep", metavar="FOLDER", help="work in this new folder, and keep it")
    keep = parser.parse_args(arguments).keep
    try:
        with _folder(keep) as folder:
            rehearse(folder, read_steps(_DOCKERFILE.read_text("utf-8")), "rehearsal/of/the/image:0")
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        print(f"rehearse_image: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
