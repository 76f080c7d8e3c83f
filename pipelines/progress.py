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
    show = _Bar(stream) if stream.isatty() else _Lines(stream)
    ended = False
    while not ended:
        ended = stop.wait(_POLL_S)
        with contextlib.suppress(OSError):
            show.update(*notes.read(), ended=ended)


_UNITS = {"clean": "B", "dedup": "files", "write": "shards"}


class _Bar:
    """A bar for each stage, with the time left, on a terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._stage = ""
        self._bar: tqdm[None] | None = None

    def update(self, stage: str, done: int, total: int, pages: int, ended: bool) -> None:
        if stage != self._stage:
            self._finish()
            self._stage = stage
        if self._bar is None and (done or total):
            unit = _UNITS[stage]
            self._bar = tqdm(
                total=total or None,
                desc=f"{stage:>6}",
                unit=unit if unit == "B" else f" {unit}",
                unit_scale=unit == "B",
                file=self._stream,
                dynamic_ncols=True,
            )
        if self._bar is None:
            return
        if total:
            self._bar.total = total
        self._bar.n = min(done, total) if total else done
        if pages:
            self._bar.set_postfix_str(f"{pages:,} pages", refresh=False)
        self._bar.refresh()
        if ended:
            self._bar.close()

    def _finish(self) -> None:
        """Closes the bar of a stage that another has followed: it is done, seen or not."""
        if self._bar is not None:
            self._bar.n = self._bar.total or self._bar.n
            self._bar.close()
            self._bar = None


class _Lines:
    """In a log: a line every ten seconds, and one when a stage is done."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._stage = ""
        self._done = self._total = self._pages = 0
        self._stage_began = self._printed = time.monotonic()

    def update(self, stage: str, done: int, total: int, pages: int, ended: bool) -> None:
        now = time.monotonic()
        if stage != self._stage:
            if self._stage:
                self._done = self._total or self._done
                self._print(now)
            self._stage, self._stage_began = stage, now
        self._done, self._total, self._pages = done, total, pages
        if (ended and done) or now - self._printed >= _PLAIN_EVERY_S:
            self._print(now)

    def _print(self, now: float) -> None:
        self._printed = now
        done, total = self._done, self._total
        line = f"{self._stage}: {done:,}"
        if total:
            line += f" of {total:,}"
        line += " bytes" if _UNITS[self._stage] == "B" else f" {_UNITS[self._stage]}"
        if self._pages:
            line += f", {self._pages:,} pages"
        elapsed = now - self._stage_began
        if 0 < done < total and elapsed > 1:
            line += f", about {tqdm.format_interval(elapsed * (total - done) / done)} left"
        print(line, file=self._stream, flush=True)
