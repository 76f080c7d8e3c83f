"""Checkpoints of a run whose folder is in an object store."""

import threading
from collections.abc import Mapping
from typing import Any

from model.training.checkpoints import Checkpoints
from model.training.remote_run import RemoteRun
from model.training.run_folder import RunFolder
from model.training.train_step import TrainState

__all__ = ["RemoteCheckpoints", "open_checkpoints"]


def open_checkpoints(folder: RunFolder, keep_last: int, keep_every: int | None) -> Checkpoints:
    """Open the checkpoints of a run, on this machine or in an object store."""
    if folder.remote is None:
        return Checkpoints(folder.checkpoints, keep_last=keep_last, keep_every=keep_every)
    return RemoteCheckpoints(folder.remote, folder, keep_last, keep_every)


class RemoteCheckpoints(Checkpoints):
    """Whole states in an object store: written on this machine first, then copied.

    Both go on beside the training. One checkpoint stays on this machine, two while one is written.
    """

    def __init__(
        self, remote: RemoteRun, folder: RunFolder, keep_last: int, keep_every: int | None
    ) -> None:
        """Open them; ``keep_last`` and ``keep_every`` are those of :class:`Checkpoints`."""
        super().__init__(folder.checkpoints, keep_last=1)
        self._remote, self._keep_last, self._keep_every = remote, keep_last, keep_every
        self._steps = remote.steps()
        self._copying: threading.Thread | None = None
        self._failure: BaseException | None = None

    def newest(self) -> int | None:
        """Return the step of the newest checkpoint, None if there is none."""
        return self._steps[-1] if self._steps else None

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
            self._remote.copy_changed()  # the metrics up to this step, and more
            self._remote.publish(self.folder / str(step), step)
            steps = [*self._steps, step]
            every = self._keep_every
            kept = [
                s for s in steps if s in steps[-self._keep_last :] or (every and s % every == 0)
            ]
            self._remote.keep_steps(kept)
            self._steps = kept
        except BaseException as error:
            self._failure = error

    def restore(
        self, step: int, like: TrainState, first_step: int = 0
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a state and what was saved beside it; see :meth:`Checkpoints.restore`."""
        if not (self.folder / str(step)).exists():
            self._remote.fetch_step(step)
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
