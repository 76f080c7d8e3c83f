"""The best checkpoint of each task, kept in the folder of a run.

::

    RUN/best.json      {TASK: {"step", "metric", "value", "validation_loss", "scores"}}
        best/TASK/     parameters as `model.training.model_folders.save_params` writes them, and
                       score.json, which best.json is made of

A folder takes the place of the one before when it is whole. A process killed in between leaves both
under other names, and the next start puts them right. In an object store, where no folder can take
the place of another, it is ``best/TASK/STEP/`` (see `model.training.remote_run`).
"""

import math
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils

from model.evaluation.best_files import BEST_FILE
from model.small_files import naming, read_json_object, write_json
from model.t5.config import ModelConfig
from model.training import distributed
from model.training.model_folders import save_params
from model.training.remote_run import BEST, RemoteRun
from pipelines import storage

_SCORE = "score.json"
_STANDING = ("step", "metric", "value", "validation_loss")  # the names in a record


class Standing(NamedTuple):
    """What of a checkpoint decides whether it is kept.

    It is a total order, so that a run that is resumed, and evaluates a step again, keeps the same.
    """

    step: int  #: steps done
    metric: str  #: what is compared
    value: float | None  #: the score
    loss: float | None  #: of validation; None where it is not measured

    def beats(self, other: "Standing") -> bool:
        """Return whether it has the better score; of equal ones, the lower loss, then more steps.

        NaN and None are the worst.

        >>> one = Standing(10, "accuracy", 50.0, 0.7)
        >>> one.beats(one._replace(step=20, value=49.0)), one.beats(one._replace(loss=0.8))
        (True, True)
        >>> one.beats(one._replace(step=20)), one.beats(one)
        (False, False)
        """
        return self._rank() > other._rank()

    def _rank(self) -> tuple[float, float, int]:
        return (
            _or_worst(self.value),
            _or_worst(None if self.loss is None else -self.loss),
            self.step,
        )


class BestCheckpoints:
    """The best checkpoints of a run, one a task.

    The run decides: it evaluates the same steps when it is resumed, and finds the same scores. So
    one that is newer than the checkpoint that a run resumes from is found again.
    """

    def __init__(
        self,
        run: pathlib.Path,
        config: ModelConfig,
        vocabulary: str | os.PathLike[str],
        *,
        resumes: bool = True,
    ) -> None:
        """Open those in the folder of a run, and repair what a killed process left.

        Args:
          run: the run's folder, which exists; on a file system that all processes see.
          config: the model.
          vocabulary: the file to keep with each.
          resumes: whether the run has a checkpoint to go on from. One without begins again, maybe
            with other settings: what a killed start kept is not of it, and is removed.

        Raises ValueError for a record that is damaged.
        """
        self._run, self._folder = run, run / BEST
        self._config, self._vocabulary = config, vocabulary
        if distributed.is_first():
            if not resumes:
                self._clear()
            self._repair()
        distributed.barrier("best checkpoints")
        self._kept = self._records()
        if distributed.is_first() and self._kept:
            self._write_all_records()

    def kept(self) -> dict[str, dict[str, Any]]:
        """Return the records of what is kept, by task."""
        return dict(self._kept)

    def is_beaten(self, task: str, standing: Standing) -> bool:
        """Return whether what is kept of a task, if anything of the same metric, is beaten."""
        found = self._kept.get(task, {})
        if found.get("metric") != standing.metric:
            return True
        step, metric, value, loss = map(found.get, _STANDING)
        return standing.beats(Standing(step or 0, str(metric), value, loss))

    def keep(self, task: str, standing: Standing, scores: Mapping[str, float], params: Any) -> None:
        """Keep parameters in the place of those kept before; every process of a run calls this.

        Args:
          task: its name.
          standing: what was compared.
          scores: all scores of the task.
          params: nested, of arrays.
        """
        step, metric, value, loss = standing
        compared = (step, metric, _finite(value), _finite(loss))
        record = {
            **dict(zip(_STANDING, compared, strict=True)),
            "scores": {name: _finite(score) for name, score in scores.items()},
        }
        whole = _on_this_host(params)
        if distributed.is_first():
            new = self._folder / f".{task}.new"
            shutil.rmtree(new, ignore_errors=True)
            with naming(new):
                save_params(new, self._config, whole, self._vocabulary)
                write_json(new / _SCORE, record)
                self._exchange(new, task, step)
        self._kept[task] = record
        if distributed.is_first():
            self._write_all_records()

    def _records(self) -> dict[str, dict[str, Any]]:
        paths = sorted(self._folder.glob(f"[!.]*/{_SCORE}"))
        return {path.parent.name: read_json_object(path) for path in paths}

    def _write_all_records(self) -> None:
        write_json(self._run / BEST_FILE, self._kept)

    def _exchange(self, new: pathlib.Path, task: str, step: int) -> None:
        """Put a new folder in the place of the one that is kept of a task."""
        del step
        final = self._folder / task
        old = final.with_name(f".{final.name}.old")
        if final.exists():
            final.rename(old)
        new.rename(final)
        shutil.rmtree(old, ignore_errors=True)

    def _clear(self) -> None:
        (self._run / BEST_FILE).unlink(missing_ok=True)  # first: it names what is in the folder
        if self._folder.is_dir():
            shutil.rmtree(self._folder)

    def _repair(self) -> None:
        for old in self._folder.glob(".*.old"):
            final = old.with_name(old.name[1:].removesuffix(".old"))
            if final.exists():
                shutil.rmtree(old)
            else:
                old.rename(final)
        for left in self._folder.glob(".*"):
            shutil.rmtree(left)


class RemoteBest(BestCheckpoints):
    """The best checkpoints of a run in an object store; none of them stays on this machine."""

    def __init__(
        self, remote: RemoteRun, config: ModelConfig, vocabulary: str | os.PathLike[str], *,
        resumes: bool = True,
    ) -> None:  # fmt: skip
        """Open those of a run whose folder is claimed; see :class:`BestCheckpoints`."""
        self._remote = remote
        super().__init__(remote.path, config, vocabulary, resumes=resumes)

    def _records(self) -> dict[str, dict[str, Any]]:
        return {
            task: read_json_object(
                storage.join(self._remote.url, BEST, task, str(steps[-1]), _SCORE)
            )
            for task, steps in self._remote.best_steps().items()
        }

    def _write_all_records(self) -> None:
        super()._write_all_records()
        self._remote.copy_changed()  # before the line of metrics that says it was evaluated

    def _exchange(self, new: pathlib.Path, task: str, step: int) -> None:
        self._remote.publish(new, step, f"{BEST}/{task}")
        self._remote.keep_steps([step], f"{BEST}/{task}")
        shutil.rmtree(new)

    def _clear(self) -> None:
        storage.remove([storage.join(self._remote.url, BEST_FILE)])
        self._remote.remove_folder(BEST)

    def _repair(self) -> None:
        for task, steps in self._remote.best_steps().items():
            self._remote.keep_steps(steps[-1:], f"{BEST}/{task}")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _or_worst(value: float | None) -> float:
    return -math.inf if value is None or math.isnan(value) else value


def _on_this_host(params: Any) -> Any:
    """Return the whole arrays, wherever their parts are."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(params)):
        return jax.device_get(params)
    return multihost_utils.process_allgather(params, tiled=True)
