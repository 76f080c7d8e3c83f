"""How far a build on this machine has come: workers leave notes, the launcher shows a bar.

Notes are small files in a temporary folder of this machine, so that they pass between processes
whichever way the runner has started them. Builds elsewhere are watched with the engine's own tools.
"""

import contextlib
import dataclasses
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO

from tqdm import tqdm

__all__ = ["Notes", "shown"]

_POLL_S = 0.25
_PLAIN_EVERY_S = 10.0
_STAGES = ("clean", "dedup", "write")


@dataclasses.dataclass(frozen=True)
class Notes:
    """Where workers note what they have done; a folder of this machine."""

    folder: str

    def note(self, stage: str, key: str, done: int, pages: int = 0) -> None:
        """Notes that of part ``key`` of a stage ``done`` units are done (bytes, files, shards)."""
        self._write(f"{stage}.{key}", done, pages)

    def total(self, stage: str, total: int) -> None:
        """Notes how many units a stage has."""
        self._write(f"{stage}.total", total, 0)

    def _write(self, name: str, *numbers: int) -> None:
        # A note that cannot be written (full disk, killed launcher) must not stop the build.
        with contextlib.suppress(OSError):
            temporary = os.path.join(self.folder, f".{name}.{os.getpid()}")
            with open(temporary, "w", encoding="ascii") as file:
                file.write(" ".join(map(str, numbers)))
            os.replace(temporary, os.path.join(self.folder, name))

    def read(self) -> tuple[str, int, int, int]:
        """The latest stage begun, with its units done, units in all (0: unknown) and pages."""
        stage, done, total, pages = _STAGES[0], 0, 0, 0
        notes: dict[str, list[tuple[str, int, int]]] = {name: [] for name in _STAGES}
        for name in os.listdir(self.folder):
            part, _, key = name.partition(".")
            if part not in notes:
                continue
            with contextlib.suppress(OSError, ValueError):
                with open(os.path.join(self.folder, name), encoding="ascii") as file:
                    first, second = map(int, file.read().split())
                notes[part].append((key, first, second))
        for name in _STAGES:
            if notes[name]:
                stage = name
                done = sum(first for key, first, _ in notes[name] if key != "total")
                total = sum(first for key, first, _ in notes[name] if key == "total")
                pages = sum(second for key, _, second in notes[name] if key != "total")
        return stage, done, total, pages


@contextlib.contextmanager
def shown(stream: IO[str] | None = None) -> Iterator[Notes]:
    """Shows progress on ``stream`` (standard error) while the block runs.

    A bar with the time left on a terminal, a line every ten seconds in a log.
    """
    stream = stream or sys.stderr
    with tempfile.TemporaryDirectory(prefix="c4-progress-") as folder:
        notes = Notes(folder)
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(notes, stream, stop), daemon=True)
        watcher.start()
        try:
            yield notes
        finally:
            stop.set()
            watcher.join(timeout=5)


def _watch(notes: Notes, stream: IO[str], stop: threading.Event) -> None:
    on_terminal = stream.isatty()
    bar: tqdm[None] | None = None
    shown_stage = ""
    last_shown = time.monotonic()
    while True:
        ended = stop.wait(_POLL_S)
        with contextlib.suppress(OSError):
            stage, done, total, pages = notes.read()
            if stage != shown_stage:
                if bar is not None:
                    bar.close()
                bar = _bar(stage, total, stream, on_terminal)
                shown_stage = stage
            assert bar is not None
            if total:
                bar.total = total
            bar.n = min(done, total) if total else done
            if pages:
                bar.set_postfix_str(f"{pages:,} pages", refresh=False)
            now = time.monotonic()
            if on_terminal or ended or now - last_shown >= _PLAIN_EVERY_S:
                last_shown = now
                bar.refresh()
        if ended:
            if bar is not None:
                bar.close()
            return


def _bar(stage: str, total: int, stream: IO[str], on_terminal: bool) -> "tqdm[None]":
    in_bytes = stage == "clean"
    bar: tqdm[None] = tqdm(
        total=total or None,
        desc=f"{stage:>6}",
        unit="B" if in_bytes else (" files" if stage == "dedup" else " shards"),
        unit_scale=in_bytes,
        file=stream,
        mininterval=0,
        dynamic_ncols=on_terminal,
        leave=True,
    )
    return bar
