"""How far the workers of a build are within their files, on every runner and file system.

Each worker keeps one small file, ``builders/NUMBER.WORKER.progress``, and writes it again every
second and after each file (every 5 s on ``hdfs://``, every 30 s on an object store, where a write
costs money), and at once when a file could not be read. Which files are cleaned, the kept folder
shows.
"""

import concurrent.futures
import contextlib
import dataclasses
import time
import uuid
from collections.abc import Container, Iterable, Mapping
from typing import Any

from pipelines import builders, storage
from pipelines.corpus import json_files, typed_json

_EVERY_LOCAL_S = 1.0
_EVERY_S = {"hdfs": 5.0, "gs": 30.0, "s3": 30.0}
_READS_AT_A_TIME = 16


@dataclasses.dataclass(frozen=True)
class WorkerNote:
    """What one worker has done in a build."""

    run: str = ""  # of the claim
    began: float = 0.0  # Unix time, s, by the worker's clock
    at: float = 0.0  # of this note
    name: str = ""  # of the file in progress (`layout.file_name`); empty between two files
    bytes: int = 0  # read of that file
    bytes_before: int = 0  # of the files before it
    pages: int = 0  # read, of all its files
    failed: dict[str, str] = dataclasses.field(default_factory=dict)  # name -> why


class WorkerNotes:
    """Writes the note of a worker. A note that cannot be written stops nothing."""

    def __init__(self, claim: builders.Claim) -> None:
        now = time.time()
        self._path = builders.progress_path(claim.output, claim.number, uuid.uuid4().hex)
        self._note = WorkerNote(run=claim.run_id, began=now, at=now)
        self._pages_before = 0
        scheme = storage.scheme(claim.output)
        self._is_cheap = scheme not in _EVERY_S
        self._every_s = _EVERY_S.get(scheme, _EVERY_LOCAL_S)
        self._due = time.monotonic() + (0.0 if self._is_cheap else self._every_s)

    def report(self, name: str, bytes_read: int, pages: int) -> None:
        """Note how far a file is."""
        if time.monotonic() >= self._due:
            self._write(name=name, bytes=bytes_read, pages=self._pages_before + pages)

    def finish(self, name: str, size: int, pages: int, unreadable: str) -> None:
        """Note that a file is done, or why it could not be read.

        Args:
            name: Of the file.
            size: Bytes that were read of it.
            pages: Pages that were read of it.
            unreadable: Why it could not be read; empty if it could.
        """
        before = self._note.bytes_before + size
        self._pages_before += pages
        values: dict[str, Any] = {
            "name": "", "bytes": 0, "bytes_before": before, "pages": self._pages_before,
        }  # fmt: skip
        failed = self._note.failed
        if unreadable:
            values["failed"] = failed | {name: unreadable}
        elif name in failed:
            values["failed"] = {key: why for key, why in failed.items() if key != name}
        if "failed" in values or self._is_cheap or time.monotonic() >= self._due:
            self._write(**values)
        else:
            self._note = dataclasses.replace(self._note, **values)

    def _write(self, **values: Any) -> None:
        self._due = time.monotonic() + self._every_s
        self._note = dataclasses.replace(self._note, at=time.time(), **values)
        content = json_files.encode(dataclasses.asdict(self._note))
        with contextlib.suppress(Exception), storage.write_atomically(self._path, False) as file:
            file.write(content)


def read_notes(output: str, run_id: str) -> list[WorkerNote]:
    """Return the notes of a run's workers; damaged ones are skipped.

    Raises:
        OSError: The folder cannot be read.
    """
    paths = builders.progress_paths(output)
    with concurrent.futures.ThreadPoolExecutor(_READS_AT_A_TIME) as pool:
        found = list(pool.map(_read, paths))
    return [note for note in found if note is not None and note.run == run_id]


def bytes_within(
    notes: Iterable[WorkerNote], sizes: Mapping[str, int], done: Container[str]
) -> int:
    """Return the bytes read of files in progress.

    Args:
        notes: Of the workers.
        sizes: Bytes of each input file, by name.
        done: Names of the files that are over.
    """
    within: dict[str, int] = {}
    for note in notes:
        if note.name in sizes and note.name not in done:
            read = min(note.bytes, sizes[note.name])
            within[note.name] = max(read, within.get(note.name, 0))
    return sum(within.values())


def _read(path: str) -> WorkerNote | None:
    content = json_files.read_object(path)
    if content is None:
        return None
    with contextlib.suppress(ValueError):
        note: WorkerNote = typed_json.decode(WorkerNote, content)
        return note
    return None
