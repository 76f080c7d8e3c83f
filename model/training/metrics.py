"""What a run records: a line of JSON for every step, and the guard that watches the loss.

Fields of ``metrics.jsonl``, one object a line; losses are nats a target token.

========================  ====================================================================
``step``                  steps done, from 1
``loss``                  cross-entropy; with label smoothing where it is asked for
``z_loss``                what is added to it in training
``accuracy``              share of target tokens that have the largest logit
``learning_rate``         before Adafactor scales it by the size of each parameter
``gradient_norm``         Euclidean, of all parameters together
``param_norm``            likewise, after the step
``target_tokens``         that the loss is of
``seconds``               of this step, all included
``tokens_per_s``          tokens that encoder and decoder read, padding not counted
``data_wait_fraction``    share of the time spent waiting for the input
``mfu``                   model FLOPs over what the devices could do; where that is known
``epoch``                 times that the corpus has been read, 1.5 being once and a half; without
                          a corpus, the tasks on average
``validation_loss``       with ``validation_accuracy``, in lines of their own; of several sources
                          also ``validation/NAME/loss`` and ``validation/NAME/accuracy`` of each;
                          in fine-tuning ``validation/TASK/METRIC``, from 0 to 100
========================  ====================================================================
"""

import collections
import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from model.small_files import naming, write_text
from model.training.train_step import StepMetrics
from pipelines import storage

Row = dict[str, Any]


class TrainingStoppedError(ValueError):
    """The run cannot go on: the loss is not a number, or it has risen too far."""


class DivergenceGuard:
    """Compares the mean of the last losses with the smallest mean so far.

    >>> guard = DivergenceGuard(limit=0.5, window=2)
    >>> for step, loss in enumerate([3.0, 2.0, 2.0, 3.0], 1):
    ...     guard.see(step, loss)
    >>> guard.see(5, 3.0)
    Traceback (most recent call last):
        ...
    model.training.metrics.TrainingStoppedError: step 5: the mean loss of 2 steps has risen \
from 2.000 to 3.000: the run diverges (--divergence 0.5)
    """

    def __init__(self, limit: float, window: int = 100) -> None:
        """Allow means of ``window`` losses up to ``limit`` nats above the best one."""
        self._limit = limit
        self._losses: collections.deque[float] = collections.deque(maxlen=window)
        self._best = math.inf

    def see(self, step: int, loss: float) -> None:
        """Take the loss of a step. Raises TrainingStoppedError when it diverges."""
        self._losses.append(loss)
        if len(self._losses) < (self._losses.maxlen or 0):
            return  # the first losses of a run fall and jump as they like
        mean = sum(self._losses) / len(self._losses)
        self._best = min(self._best, mean)
        if mean > self._best + self._limit:
            raise TrainingStoppedError(
                f"step {step}: the mean loss of {len(self._losses)} steps has risen from "
                f"{self._best:.3f} to {mean:.3f}: the run diverges (--divergence {self._limit:g})"
            )

    def get_state(self) -> dict[str, Any]:
        """Return the guard's state as JSON values."""
        best = self._best if math.isfinite(self._best) else None
        return {"losses": list(self._losses), "best": best}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`get_state` returned."""
        self._losses.clear()
        self._losses.extend(state["losses"])
        self._best = math.inf if state["best"] is None else state["best"]


class StepTimer:
    """Where the time of a step goes."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a lap now; the time since the last one is not counted."""
        self._started = time.monotonic()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside the block as waiting for the input."""
        asked = time.monotonic()
        yield
        self._waited += time.monotonic() - asked

    def lap(self) -> tuple[float, float]:
        """End the lap; return its seconds, and how many of them were spent waiting."""
        seconds, waited = time.monotonic() - self._started, self._waited
        self.reset()
        return seconds, waited


def step_row(
    step: int, metrics: StepMetrics, seconds: float, waited: float, flops_share: float | None = None
) -> Row:
    """Return a step's row.

    Args:
      step: its number.
      metrics: fetched from the devices.
      seconds: that it took.
      waited: those of them spent waiting for the input.
      flops_share: model FLOPs of a step over what all devices could do in a second, or None.
    """
    sums = metrics.sums
    count = max(float(sums.tokens), 1.0)
    row = {
        "step": step,
        "loss": float(sums.loss) / count,
        "z_loss": float(sums.z_loss) / count,
        "accuracy": float(sums.correct) / count,
        "learning_rate": float(metrics.learning_rate),
        "gradient_norm": float(metrics.gradient_norm),
        "param_norm": float(metrics.param_norm),
        "target_tokens": int(sums.tokens),
        "seconds": round(seconds, 6),
        "tokens_per_s": round(float(metrics.tokens) / seconds, 1),
        "data_wait_fraction": round(waited / seconds, 6),
    }
    if flops_share is not None:
        row["mfu"] = round(flops_share / seconds, 6)
    return row


class MetricsFile:
    """``metrics.jsonl`` of a run: rows in the order of steps, none twice and none missing."""

    def __init__(self, path: str | os.PathLike[str], done: int) -> None:
        """Open the file to append, after removing rows beyond step ``done`` of a stopped run."""
        self._path = pathlib.Path(path)
        if self._path.exists() and not self._path.is_file():  # a pipe would wait for a reader
            raise ValueError(f"{self._path} is not a file: move it away")
        if self._path.exists():
            kept = [json.dumps(row) for row in read_rows(self._path) if row["step"] <= done]
            write_text(self._path, "".join(f"{line}\n" for line in kept))
        self._file = self._path.open("a")

    def write(self, row: Row) -> None:
        """Append a row. NaN and infinity, after which the run stops, become null."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        with naming(self._path):
            self._file.write(json.dumps(finite) + "\n")

    def flush(self) -> None:
        """Write all rows to disk; called before a checkpoint of their step is begun."""
        with naming(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close."""
        with naming(self._path):
            self._file.close()


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Return the rows of a ``metrics.jsonl``, without damaged lines, as a crash may leave."""
    lines = storage.read_bytes(os.fspath(path)).decode(errors="replace").splitlines()
    return [row for row in map(_row, lines) if row is not None]


def _row(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    if not all(value is None or isinstance(value, int | float) for value in row.values()):
        return None
    return row


_OVER_TIME = ("tokens_per_s", "data_wait_fraction", "mfu")


def mean_row(rows: Sequence[Row]) -> Row:
    """Return steps as one row: step and epoch of the last, means of the rest, rates over time.

    >>> mean_row([{"step": 1, "loss": 4.0, "seconds": 1.0, "tokens_per_s": 100.0},
    ...           {"step": 2, "loss": 2.0, "seconds": 3.0, "tokens_per_s": 20.0}])
    {'step': 2, 'loss': 3.0, 'seconds': 2.0, 'tokens_per_s': 40.0}
    """
    seconds = sum(row["seconds"] for row in rows)
    mean = {"step": rows[-1]["step"]}
    for name in rows[-1]:
        if name in _OVER_TIME:
            mean[name] = sum(row[name] * row["seconds"] for row in rows) / seconds
        elif name == "epoch":
            mean[name] = rows[-1][name]
        elif name != "step":
            mean[name] = sum(row[name] for row in rows) / len(rows)
    return mean
