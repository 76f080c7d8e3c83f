"""The whole states of one run: saved while it trains, and restored."""

import contextlib
import json
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from model.training.checkpoint_layout import (
    CHECKSUMS,
    OPTIMIZER,
    PARAMS,
    PROGRESS,
    is_whole,
    own_arrays,
    restore_args,
    this_process_only,
)
from model.training.checksums import array_checksums, first_difference
from model.training.train_step import TrainState


class Checkpoints:
    """The whole states of one run, the newest of them kept; every process makes its own.

    Saving runs beside the training: what is to be saved is copied before ``save`` returns, and
    files are written while further steps run. A process killed meanwhile leaves a half-written
    folder, which does not count as a checkpoint and is removed by the next run.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep_last: int = 3,
        keep_every: int | None = None,
        is_shared: bool = True,
    ) -> None:
        """Open the checkpoints in ``folder``, which is made if it is missing.

        Of the checkpoints the newest ``keep_last`` stay, and those whose step is a multiple of
        ``keep_every``. If several processes train as one, ``folder`` is the same for all of them,
        or, if not ``is_shared``, one of each, in which it writes its part of every array.
        """
        self.folder = pathlib.Path(folder).absolute()
        policies: list[Any] = [ocp.checkpoint_managers.LatestN(keep_last)]
        if keep_every is not None:
            policies.append(ocp.checkpoint_managers.EveryNSteps(keep_every))
        together = ocp.options.MultiprocessingOptions()
        if not is_shared:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
                # Otherwise, where a folder cannot be made, threads wait for it for 20 minutes.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
                multiprocessing_options=together if is_shared else this_process_only(),
                create=is_shared,
            ),
            item_handlers=None if is_shared else _own_handlers(),
        )

    def newest(self) -> int | None:
        """Return the step of the newest checkpoint, None if there is none.

        Raises ValueError if its folder is not whole: a save gets its name when it is whole, so
        something else has changed the folder.
        """
        step: int | None = self._manager.latest_step()
        if step is not None and not is_whole(self.folder / str(step)):
            raise ValueError(
                f"{self.folder / str(step)} is not a whole checkpoint; delete it to resume from "
                "the one before"
            )
        return step

    def is_saved(self, step: int) -> bool:
        """Return whether a checkpoint is whole."""
        return (self.folder / str(step)).is_dir()

    def save(self, step: int, state: TrainState, progress: Mapping[str, Any]) -> None:
        """Begin to save; wait for the save before, if that is not done.

        Args:
          step: its number; there is none of this number yet.
          state: arrays may be given away (donated) as soon as this returns.
          progress: JSON values, of the first process; the others' are not looked at.

        Raises:
          OSError: the save before this one failed.
        """
        with _one_line_failures(self.folder):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{
                        PARAMS: ocp.args.PyTreeSave(state.params),
                        OPTIMIZER: ocp.args.PyTreeSave(state.optimizer),
                        PROGRESS: ocp.args.JsonSave(dict(progress)),
                        CHECKSUMS: ocp.args.JsonSave(_checksums(state, dict(progress))),
                    }
                ),
                force=True,
            )

    def restore(
        self, step: int, like: TrainState, first_step: int = 0
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a state and what was saved beside it.

        Args:
          step: of a whole checkpoint.
          like: ``jax.ShapeDtypeStruct`` with shardings in the place of arrays; how the arrays
            were divided when they were saved does not matter.
          first_step: the global step at which the run started; the state's is ``step`` more.

        Raises:
          ValueError: the checkpoint is of other arrays, or damaged.
        """
        try:
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    **{
                        PARAMS: restore_args(like.params),
                        OPTIMIZER: restore_args(like.optimizer),
                        PROGRESS: ocp.args.JsonRestore(),
                        CHECKSUMS: ocp.args.JsonRestore(),
                    }
                ),
            )
            state = TrainState(found[PARAMS], found[OPTIMIZER], like.step)
            progress, stored = found[PROGRESS], found[CHECKSUMS]
            for part, sums in _checksums(state, progress).items():
                if name := first_difference(sums, stored[part]):
                    raise ValueError(f"{part} {name}: checksum mismatch")
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise ValueError(
                f"{self.folder / str(step)} cannot be restored; delete it to resume from the one "
                f"before ({str(error).partition(' [tensorstore_spec')[0]})"
            ) from error
        counter = jax.device_put(np.int32(first_step + step), like.step.sharding)
        return state._replace(step=counter), dict(progress)

    def wait(self) -> None:
        """Wait until what was begun is on disk. Raises OSError if it could not be written."""
        with _one_line_failures(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and free what saving needs. Raises OSError as :meth:`wait` does."""
        with _one_line_failures(self.folder):
            self._manager.close()


def _own_handlers() -> dict[str, ocp.CheckpointHandler]:
    """Return handlers that write what is of this process, in every process."""
    own = {"multiprocessing_options": this_process_only()}
    return {
        PARAMS: own_arrays(),
        OPTIMIZER: own_arrays(),
        PROGRESS: ocp.JsonCheckpointHandler(**own),
        CHECKSUMS: ocp.JsonCheckpointHandler(**own),
    }


def _checksums(state: TrainState, progress: Any) -> dict[str, dict[str, int]]:
    text = json.dumps(progress, sort_keys=True).encode()
    return {
        PARAMS: array_checksums(state.params),
        OPTIMIZER: array_checksums(state.optimizer),
        PROGRESS: {"json": zlib.crc32(text)},
    }


@contextlib.contextmanager
def _one_line_failures(folder: pathlib.Path) -> Iterator[None]:
    """Return a failure, such as a full disk, as OSError: in the background it is any exception."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        what = str(error).partition(" [tensorstore_spec")[0]  # pages of JSON
        raise OSError(f"{folder}: a checkpoint could not be written: {what}") from error
