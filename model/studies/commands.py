"""Runs commands of ``c4`` in processes of their own, so that memory and devices are freed."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

from model.small_files import naming


def run_c4(words: Sequence[str], log: pathlib.Path, cache: pathlib.Path | None = None) -> None:
    """Run one command of ``c4``; see `run_python`."""
    run_python("pipelines.c4_main", words, log, cache)


def run_python(
    module: str, words: Sequence[str], log: pathlib.Path, cache: pathlib.Path | None = None
) -> str:
    """Run a module with arguments, and return what it printed, which is kept in ``log``.

    Programs that JAX compiles are kept in ``cache`` for the next command, unless the user has set
    up a cache.

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
