"""A worker pool whose workers stop, or die, where a test wants it: for tests alone.

The folder in ``FAULTS`` says what: a file ``hold-STAGE`` stops every call of that stage but those
whose name contains the file's text, until the file is gone; ``crash-STAGE`` kills the process at a
name that contains its text. A call that is stopped leaves a file ``held-STAGE-PID``.
"""

import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from pipelines import c4_main
from pipelines.engines import worker_pool

VARIABLE = "FAULTS"
STAGES = ("clean", "dedup", "write")


def _faulty(stage: str, function: Callable[..., Any], name_of: Callable[..., str]) -> Any:
    folder = pathlib.Path(os.environ[VARIABLE])

    def call(*arguments: Any, **named: Any) -> Any:
        name = name_of(*arguments)
        hold, crash = folder / f"hold-{stage}", folder / f"crash-{stage}"
        while (let_by := _text(hold)) is not None and (not let_by or let_by not in name):
            (folder / f"held-{stage}-{os.getpid()}").touch()
            time.sleep(0.05)
        if crash.exists() and crash.read_text() in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        return function(*arguments, **named)

    return call


def _text(path: pathlib.Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def install() -> None:
    """Puts the faults into the module that workers run."""
    from pipelines.stages import graph

    graph.clean_file = _faulty("clean", graph.clean_file, lambda path, *_: path)
    dedup = graph.dedup.write_file_removals
    graph.dedup.write_file_removals = _faulty("dedup", dedup, lambda _, name, *__: name)
    graph.write_shard = _faulty("write", graph.write_shard, lambda task, *_: f"{task.index}.")


if VARIABLE in os.environ and __name__ != "__main__":
    install()

if __name__ == "__main__":
    worker_pool._IMPORTED = (*worker_pool._IMPORTED, "tests.flink.faulty_pool")  # type: ignore[misc]
    sys.exit(c4_main.main(["worker-pool", *sys.argv[1:]]))
