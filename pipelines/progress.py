"""How far a build has come: workers leave notes, the launcher shows a bar.

Notes are small files in a temporary folder of this machine, so that they pass between processes
whichever way the runner has started them. Of workers elsewhere the launcher sees what they have
left in the corpus folder.
"""

import contextlib
import dataclasses
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Protocol

from tqdm import tqdm

from pipelines import storage, worker_notes
from pipelines.corpus import layout

_POLL_S = 0.25
_LIST_S = 2.0
_LIST_REMOTE_S = 30.0  # a request a thousand names
_PLAIN_EVERY_S = 10.0
_FIRST_RATE_S = 2.0  # before that a rate is chance
_STAGES = ("clean", "dedup", "near", "merge", "write")


@dataclasses.dataclass(frozen=True)
class Notes:
    """Where workers note what they have done; a folder of this machine."""

    folder: str

    def note(self, stage: str, key: str, done: int, pages: int = 0) -> None:
        """Note that of part ``key`` of a stage ``done`` units are done (bytes, files, shards)."""
        self._write(f"{stage}.{key}", done, pages)

    def total(self, stage: str, total: int) -> None:
        """Note that a stage begins, and how many units it has."""
        self._write(f"{stage}.total", total, 0)

    def expect(self, stage: str, total: int) -> None:
        """Note how many units a later stage will have."""
        self._write(f"{stage}.expected", total, 0)

    def _write(self, name: str, *numbers: int) -> None:
        # A note that cannot be written (full disk, killed launcher) must not stop the build.
        with contextlib.suppress(OSError):
            temporary = os.path.join(self.folder, f".{name}.{os.getpid()}")
            with open(temporary, "w", encoding="ascii") as file:
                file.write(" ".join(map(str, numbers)))
            os.replace(temporary, os.path.join(self.folder, name))

    def read(self, ended: bool = False) -> tuple[str, int, int, int]:
        """Return the latest stage, its units done, units in all (0: unknown) and pages."""
        del ended
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
        totals = ("total", "expected")
        for name in _STAGES:
            if any(key != "expected" for key, *_ in notes[name]):
                stage = name
                done = sum(first for key, first, _ in notes[name] if key not in totals)
                total = sum(first for key, first, _ in notes[name] if key in totals)
                pages = sum(second for _, _, second in notes[name])
        return stage, done, total, pages


class CorpusFolder:
    """Progress by the files that workers, wherever they are, leave in the corpus folder."""

    def __init__(
        self,
        output: str,
        sizes: Mapping[str, int],
        since: float | None = None,
        run_id: str = "",
    ) -> None:
        """Begin to look at a folder.

        Args:
            output: The corpus folder.
            sizes: Bytes of each input file, by the name of its outputs (see layout).
            since: When the build began (Unix, s); None: now.
            run_id: Of the build's claim, for what workers note about files in progress.
        """
        self._output = output
        self._sizes = sizes
        self._every_s = _LIST_S if storage.is_local(output) else _LIST_REMOTE_S
        self._run_id = run_id
        self._since = time.time() if since is None else since
        self._read_at = float("-inf")
        self._last = ("clean", 0, 0, 0)

    def read(self, ended: bool = False) -> tuple[str, int, int, int]:
        """Return the latest stage begun, with its units done, units in all and pages (0: unknown).

        Lists the folder, but not at every call unless the build has ended.
        """
        if ended or time.monotonic() - self._read_at >= self._every_s:
            self._last = self._look()
            self._read_at = time.monotonic()
        return self._last

    def _look(self) -> tuple[str, int, int, int]:
        # Removals and shards of an earlier run stay until they are replaced.
        shards = [
            name for name in storage.changed_since(self._output, self._since)
            if layout.is_shard(name)
        ]  # fmt: skip
        if shards:
            totals = {layout.shards_in_split(name) for name in shards}
            return "write", len(shards), sum(count for _, count in totals), 0
        merged = storage.listdir(storage.join(self._output, layout.MERGED))
        if pieces := [
            name for name in merged if name.endswith(".arrow") and layout.pieces_like(name)
        ]:
            return "merge", len(pieces), layout.pieces_like(pieces[0]), 0
        removals = storage.changed_since(storage.join(self._output, "removals"), self._since)
        if removals:
            return "dedup", len(removals), len(self._sizes), 0
        cleaned = storage.listdir(storage.join(self._output, "cleaned"))
        names = {name.removesuffix(".arrow") for name in cleaned if name.endswith(".arrow")}
        done = sum(self._sizes.get(name, 0) for name in names)
        if self._run_id:
            notes = worker_notes.read_notes(self._output, self._run_id)
            done += worker_notes.bytes_within(notes, self._sizes, names)
        return "clean", done, sum(self._sizes.values()), 0


class _Readable(Protocol):
    def read(self, ended: bool = False) -> tuple[str, int, int, int]:
        """Return the latest stage begun, its units done, units in all (0: unknown) and pages."""


#: Makes what progress is read from, given a temporary folder.
Opener = Callable[[str], _Readable]


@contextlib.contextmanager
def shown(stream: IO[str] | None = None, source: Opener = Notes) -> Iterator[_Readable]:
    """Show progress on ``stream`` (standard error) while the block runs.

    A bar with the time left on a terminal, a line every ten seconds in a log.
    """
    stream = stream or sys.stderr
    with tempfile.TemporaryDirectory(prefix="c4-progress-") as folder:
        notes = source(folder)
        stop = threading.Event()
        failed = threading.Event()
        watcher = threading.Thread(target=_watch, args=(notes, stream, stop, failed), daemon=True)
        watcher.start()
        try:
            yield notes
        except BaseException:
            failed.set()
            raise
        finally:
            stop.set()
            watcher.join(timeout=5)


def _watch(
    notes: _Readable, stream: IO[str], stop: threading.Event, failed: threading.Event
) -> None:
    show = _Bar(stream) if stream.isatty() else _Lines(stream)
    ended = False
    while not ended:
        ended = stop.wait(_POLL_S)
        # Nor may a listing that fails: Beam's file systems raise what their clients raise.
        with contextlib.suppress(Exception):
            show.update(*notes.read(ended), ended=ended and failed.is_set())
    with contextlib.suppress(OSError, ValueError):
        show.finish()


_UNITS = {
    "fetch": "B", "clean": "B", "dedup": "files", "near": "files", "merge": "pieces",
    "write": "shards",
}  # fmt: skip


class _Bar:
    """A bar for each stage on a terminal, with the time left once there is a rate to tell it by."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._stage = ""
        self._bar: tqdm[None] | None = None
        self._state = (0, 0, 0)  # done, total, pages

    def update(self, stage: str, done: int, total: int, pages: int, ended: bool) -> None:
        if stage != self._stage:
            self.finish()
            self._stage, self._began = stage, time.monotonic()
        self._state = (done, total, pages)
        if self._bar is None and (done or total):
            self._bar = tqdm(
                total=100, file=self._stream, dynamic_ncols=True, bar_format=f"{stage:>6}:"
            )
        if self._bar is not None:
            self._show(self._bar, finished=False)
            if ended:
                self._bar.close()
                self._bar = None

    def finish(self) -> None:
        """Fill and leave the bar of a stage that has ended, whether or not its end was seen."""
        if self._bar is not None:
            done, total, pages = self._state
            self._state = (total or done, total, pages)
            self._show(self._bar, finished=True)
            self._bar.close()
            self._bar = None

    def _show(self, bar: "tqdm[None]", finished: bool) -> None:
        done, total, pages = self._state
        elapsed = time.monotonic() - self._began
        in_bytes = _UNITS[self._stage] == "B"
        counts = "/".join(
            f"{tqdm.format_sizeof(number)}B" if in_bytes else f"{number:,}"
            for number in ([min(done, total), total] if total else [done])
        )
        words = [counts if in_bytes else f"{counts} {_UNITS[self._stage]}"]
        words += [f"{pages:,} pages"] if pages else []
        words += [tqdm.format_interval(elapsed)]
        if 0 < done < total and elapsed >= _FIRST_RATE_S and not finished:
            words[-1] += f"<{tqdm.format_interval(elapsed * (total - done) / done)}"
        if in_bytes and done and elapsed >= _FIRST_RATE_S:
            words.append(f"{tqdm.format_sizeof(done / elapsed)}B/s")
        # The last percent is the work that follows the last report of a stage.
        percent = 100 if finished else min(99, 100 * done // total) if total else 0
        share = f" {percent:3d}%|{{bar}}|" if total else ""
        bar.n = percent
        bar.bar_format = f"{self._stage:>6}:{share} {', '.join(words)}"
        bar.refresh()


class _Lines:
    """In a log: a line every ten seconds, and one when a stage is done."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._stage = ""
        self._done = self._total = self._pages = 0
        self._ended = False
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
        self._ended = ended

    def finish(self) -> None:
        """Print the last stage of a build that has not failed."""
        if self._done and not self._ended:
            self._print(time.monotonic())

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
