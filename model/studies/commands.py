"""Runs commands of ``c4`` in processes of their own, so that memory and devices are freed."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from model.small_files import locked_file, naming

__all__ = ["locked", "run_c4", "run_python", "write_json"]


def run_c4(words: Sequence[str], log: pathlib.Path, cache: pathlib.Path | None = None) -> None:
    """Run one command of ``c4``; see `run_python`."""
    run_python("pipelines.c4_main", words, log, cache)


def run_python(
    module: str, words: Sequence[str], log: pathlib.Path, cache: pathlib.Path | None = None
) -> str:
    """Run a module with arguments, and return what it printed, which is kept in ``log``.

    Programs that JAX compiles are kept in ``cache`` for
    the next command, unless the user has set up a cache.

    Raises ValueError with the command's last line if it fails, KeyboardInterrupt if it was
    interrupted.
    """
    environment: Mapping[str, str] = os.environ
    if cache is not None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": os.fspath(cache)} | _KEEP_ALL
    with naming(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C asks this process, which asks that one, once
            )
            try:
                status = process.wait()
            except BaseException:  # an interrupt: let it save its state
                process.terminate()
                process.wait()
                raise
        written = log.read_text("utf-8", "replace")
    if status == _INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        lines = [line for line in written.splitlines() if line.strip()]
        last = lines[-1].removeprefix("c4: error: ") if lines else f"exit status {status}"
        raise ValueError(f"{last} (its output: {log})")
    return written


_INTERRUPTED = 130  #: exit status of an interrupted command
_KEEP_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}


@contextlib.contextmanager
def locked(folder: pathlib.Path, record: str) -> Iterator[None]:
    """Keep other processes of this machine out of a folder, which is made.

    Raises ValueError where one works already, and for a folder that holds something but no
    ``record``, which the first start writes. Hidden files are what a killed start leaves.
    """
    names = os.listdir(folder) if folder.is_dir() else []
    if record not in names and not all(name.startswith(".") for name in names):
        raise ValueError(f"{folder} holds something else: give a new folder (--out)")
    folder.mkdir(parents=True, exist_ok=True)
    with locked_file(
        folder / ".lock", f"{folder}: another process works in it; wait for it, or give another "
        "folder (--out)",
    ):  # fmt: skip
        yield


def write_json(path: pathlib.Path, content: Any) -> None:
    """Write a JSON file whole or not at all, its folder with it."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        scratch.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        scratch.replace(path)
