"""Checkpoints of a run whose folder is in an object store."""

import re
import threading
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from model.training import distributed
from model.training.checkpoint_layout import join_parts
from model.training.checkpoints import Checkpoints
from model.training.remote_run import STEPS, RemoteRun, fetch_step
from model.training.run_folder import RunFolder
from model.training.train_step import TrainState
from pipelines import storage

#: For the slowest process to copy its part.
_PATIENCE_MS = 60 * 60 * 1000
#: Of what a process writes of arrays: its part of them, and an index that knows only this part.
_PART = re.compile(r"[^/]+/\w+(\.|/)process_\d+(/.*)?")
_INDEX = re.compile(r"[^/]+/(d/.*|manifest\.ocdbt)")


def open_checkpoints(folder: RunFolder, keep_last: int, keep_every: int | None) -> Checkpoints:
    """Open the checkpoints of a run, on this machine or in an object store."""
    if folder.remote is None:
        return Checkpoints(folder.checkpoints, keep_last=keep_last, keep_every=keep_every)
    return RemoteCheckpoints(folder.remote, keep_last, keep_every)


class RemoteCheckpoints(Checkpoints):
    """Whole states in an object store: written on this machine first, then copied.

    Both go on beside the training. One checkpoint stays on this machine, two while one is written.
    If several processes train as one, each writes and copies its part of the arrays; the first
    copies the rest, and makes the checkpoint count when all have copied theirs.
    """

    def __init__(self, remote: RemoteRun, keep_last: int, keep_every: int | None) -> None:
        """Open them; ``keep_last`` and ``keep_every`` are those of :class:`Checkpoints`."""
        super().__init__(remote.path / STEPS, keep_last=1, is_shared=jax.process_count() == 1)
        self._remote, self._keep_last, self._keep_every = remote, keep_last, keep_every
        self._steps = remote.steps()
        self._all_copied = ocp.multihost.get_barrier_sync_fn()
        self._copying: threading.Thread | None = None
        self._failure: BaseException | None = None

    def newest(self) -> int | None:
        """Return the step of the newest checkpoint, None if there is none."""
        return self._steps[-1] if self._steps else None

    def is_saved(self, step: int) -> bool:
        """Return whether a checkpoint is whole."""
        return step in self._steps

    def save(self, step: int, state: TrainState, progress: Mapping[str, Any]) -> None:
        """Begin to save and to copy; wait for the save before, if that is not done.

        Raises OSError if the save before this one failed.
        """
        self.wait()
        super().save(step, state, progress)
        self._copying = threading.Thread(target=self._copy, args=(step,), name="checkpoint")
        self._copying.start()

    def _copy(self, step: int) -> None:
        try:
            super().wait()
            self._copy_part(step)
            steps = [*self._steps, step]
            every = self._keep_every
            kept = [
                s for s in steps if s in steps[-self._keep_last :] or (every and s % every == 0)
            ]
            if distributed.is_first():
                self._remote.keep_steps(kept)
            self._steps = kept
        except BaseException as error:
            self._failure = error

    def _copy_part(self, step: int) -> None:
        """Copy what is of this process; in the first, make the checkpoint count."""
        local, first = self.folder / str(step), distributed.is_first()
        alone = jax.process_count() == 1
        files = storage.walk(str(local))
        if first:
            self._remote.copy_changed()  # the metrics up to this step, and more
        names = [
            n for n in files
            if alone or (not _INDEX.fullmatch(n) if first else _PART.fullmatch(n))
        ]  # fmt: skip
        self._remote.copy_step(local, names, step)
        self._all_copied(key=f"checkpoint {step} is copied", timeout_ms=_PATIENCE_MS)
        if first:
            there = files if alone else self._remote.files_of(step)
            self._remote.publish_step(there, step)

    def restore(
        self, step: int, like: TrainState, first_step: int = 0
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a state and what was saved beside it; see :meth:`Checkpoints.restore`."""
        if not (self.folder / str(step)).exists():
            fetch_step(self._remote.url, self._remote.path, step)
            join_parts(self.folder / str(step))
            self._manager.reload()
        return super().restore(step, like, first_step)

    def wait(self) -> None:
        """Wait until what was begun is in the store. Raises OSError if it could not be written."""
        if self._copying is not None:
            self._copying.join()
            self._copying = None
        super().wait()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Wait, and free what saving needs. Raises OSError as :meth:`wait` does."""
        try:
            self.wait()
        finally:
            super().close()
