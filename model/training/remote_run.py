"""A run's folder in an object store (``--out gs://…``, ``s3://…``): what is there, and when.

The run works in a folder of this machine, as any run does, and copies files to the store::

    RUN/run.json, …                    copied when they have changed, see `RemoteRun.copy_changed`
        builders/                      who trains here (`pipelines.builders`)
        checkpoints/STEP/…             the files of a checkpoint
        checkpoints/STEP/files.json    names and sizes of all of them, written last
        best/TASK/STEP/…               the best checkpoint of a task, likewise

A checkpoint without its ``files.json``, or with a file missing, does not count. An object cannot be
appended to, so ``metrics.jsonl`` and TensorBoard's files are copied whole: before each checkpoint,
at the end, and from time to time between.
"""

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping

from pipelines import builders, storage
from pipelines.corpus import json_files

COPIED = "files.json"
STEPS = "checkpoints"
BEST = "best"
_NOT_COPIED = re.compile(rf"({STEPS}/|{BEST}/|wandb/|\.).*|.*\.tmp")
_LOCK = ".lock"
_NEW_S = 60.0  # a folder this new may not be locked yet

_EVERY_S = 60.0
_MOST_OF_TIME = 20  # between two copies, this many times what the last one took


class RemoteRun:
    """The folder of a run in an object store, and a folder of this machine that it works in.

    Attributes:
        url: The folder in the store.
        path: The folder of this machine. It is deleted with this object; if the process is killed,
            the next run on this machine deletes it.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        _sweep()
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_WRONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        weakref.finalize(self, _remove, self.path, lock)
        self._claim: builders.Claim | None = None
        self._copied: dict[str, tuple[int, int]] = {}
        self._copying = threading.Lock()

    def _in_store(self, *parts: str) -> str:
        return storage.join(self.url, *parts)

    # --- small files

    def fetch(self, names: Iterable[str], folders: Iterable[str] = ()) -> None:
        """Copy files from the top of the store's folder, those that exist, and whole folders."""
        there = storage.sizes(self.url)
        wanted = [name for name in names if name in there]
        for folder in folders:
            wanted += [f"{folder}/{name}" for name in storage.walk(self._in_store(folder))]
        storage.copy_files((self._in_store(name), str(self.path / name)) for name in wanted)
        self._copied.update((name, _identity(self.path / name)) for name in wanted)

    def copy_changed(self, first: str = "") -> None:
        """Copy what has changed since it was copied, apart from checkpoints, to the store.

        ``first`` is copied before the others. Raises OSError if something cannot be copied, or if
        another process trains into the folder now.
        """
        with self._copying:
            self._require_ours()
            found = {
                name: _identity(self.path / name)
                for name in storage.walk(str(self.path))
                if not _NOT_COPIED.fullmatch(name)
            }
            changed = sorted(
                (name for name, identity in found.items() if self._copied.get(name) != identity),
                key=lambda name: (name != first, name),
            )
            for names in (changed[:1], changed[1:]):
                storage.copy_files((str(self.path / name), self._in_store(name)) for name in names)
                self._copied.update((name, found[name]) for name in names)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes, of any machine, from training into the folder.

        Copy what has changed every minute, or less often where that takes long, and at the end.

        Raises:
            OSError: Another process trains into it, or has begun to; or the last copy failed.
        """
        with builders.hold(self.url, kind=builders.TRAINING) as self._claim:
            stop = threading.Event()
            thread = threading.Thread(target=self._copy_often, args=(stop,), daemon=True)
            thread.start()
            failed = True
            try:
                yield
                failed = False
            finally:
                stop.set()
                thread.join()
                # The first error is the one to show.
                with contextlib.suppress(OSError) if failed else contextlib.nullcontext():
                    self.copy_changed()

    def _copy_often(self, stop: threading.Event) -> None:
        wait = _EVERY_S
        while not stop.wait(wait):
            began = time.monotonic()
            with contextlib.suppress(OSError):  # the next checkpoint shows it
                self.copy_changed()
            wait = max(_EVERY_S, _MOST_OF_TIME * (time.monotonic() - began))

    def _require_ours(self) -> None:
        if self._claim is not None:
            self._claim.require(now=True)

    # --- checkpoints, in the folder ``checkpoints`` or, of a task, ``best/TASK``

    def publish(self, local: pathlib.Path, step: int, folder: str = STEPS) -> None:
        """Copy a whole checkpoint to the store; ``files.json`` comes last. Raises OSError."""
        files = storage.walk(str(local))
        self.copy_step(local, files, step, folder)
        self.publish_step(files, step, folder)

    def copy_step(
        self, local: pathlib.Path, names: Iterable[str], step: int, folder: str = STEPS
    ) -> None:
        """Copy files of a checkpoint to the store."""
        remote = self._in_store(folder, str(step))
        storage.copy_files((str(local / n), storage.join(remote, n)) for n in names)

    def files_of(self, step: int) -> dict[str, int]:
        """Return the size of every file of a checkpoint that is in the store, whole or not."""
        return storage.walk(self._in_store(STEPS, str(step)))

    def publish_step(self, files: Mapping[str, int], step: int, folder: str = STEPS) -> None:
        """Make a checkpoint count, all of whose files, with these sizes, were copied."""
        self._require_ours()
        content = json_files.encode({"files": dict(sorted(files.items()))})
        storage.write_bytes(self._in_store(folder, str(step), COPIED), content)

    def steps(self) -> list[int]:
        """Return the steps of the whole checkpoints in the store, ascending."""
        return whole_steps(self.url)

    def keep_steps(self, kept: Iterable[int], folder: str = STEPS) -> None:
        """Remove all other checkpoints, whole or not. Call this with the folder claimed."""
        names = {str(step) for step in kept}
        for name in filter(_is_step, storage.folders(self._in_store(folder))):
            if name not in names:
                self.remove_folder(folder, name)

    def remove_folder(self, *parts: str) -> None:
        """Remove a folder from the store; ``files.json`` goes first."""
        folder = self._in_store(*parts)
        storage.remove([storage.join(folder, COPIED)])
        storage.remove(storage.join(folder, name) for name in storage.walk(folder))

    def best_steps(self) -> dict[str, list[int]]:
        """Return the steps of the whole checkpoints in ``best/TASK``, by task, ascending."""
        tasks = storage.folders(self._in_store(BEST))
        steps = {task: whole_steps(self.url, f"{BEST}/{task}") for task in tasks}
        return {task: found for task, found in steps.items() if found}


def whole_steps(url: str, folder: str = STEPS) -> list[int]:
    """Return the steps of the whole checkpoints of a run in an object store, ascending."""
    names = filter(_is_step, storage.folders(storage.join(url, folder)))
    return sorted(int(name) for name in names if _files(storage.join(url, folder, name)))


def fetch_step(url: str, path: pathlib.Path, step: int, items: tuple[str, ...] = ()) -> None:
    """Copy a whole checkpoint of a run, or only some of its folders, to ``path/checkpoints/STEP``.

    Raises OSError if a file cannot be read or has another size than when it was written.
    """
    remote, local = storage.join(url, STEPS, str(step)), path / STEPS / str(step)
    scratch = local.with_name(f".{step}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    wanted = [
        name for name in _files(remote) if not items or "/" not in name or name.startswith(items)
    ]
    storage.copy_files((storage.join(remote, n), str(scratch / n)) for n in wanted)
    shutil.rmtree(local, ignore_errors=True)
    scratch.rename(local)


def _files(folder: str) -> dict[str, int]:
    """Return the sizes of a checkpoint's files by name; none if it is not whole."""
    listed = (json_files.read_object(storage.join(folder, COPIED)) or {}).get("files")
    if not isinstance(listed, dict) or not listed:
        return {}
    found = storage.walk(folder)
    return listed if all(found.get(name) == size for name, size in listed.items()) else {}


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _identity(path: pathlib.Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


# --- folders of this machine

_PREFIX = f"c4-run-{os.getuid()}-"


def _remove(path: pathlib.Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _sweep() -> None:
    """Remove the folders of killed runs: nobody holds their locks."""
    for path in pathlib.Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < _NEW_S:
                continue
            lock = os.open(path / _LOCK, os.O_WRONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
