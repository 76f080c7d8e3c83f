"""What a run tells: a line of JSON for every step, TensorBoard, a bar or lines in the terminal.

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
``epoch``                 times that the corpus has been read, 1.5 being once and a half
``validation_loss``       with ``validation_accuracy``, in lines of their own
========================  ====================================================================
"""

import collections
import contextlib
import json
import math
import os
import pathlib
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from model.small_files import naming
from model.training.train_step import StepMetrics

__all__ = [
    "DivergenceGuard",
    "MetricsFile",
    "Row",
    "StepTimer",
    "TensorBoard",
    "Terminal",
    "TrainingStoppedError",
    "mean_row",
    "peak_flops",
    "read_rows",
    "step_row",
]

Row = dict[str, Any]

#: Peak FLOP/s of matrix products in bfloat16 without sparsity, accumulated in float32, by the
#: device's exact name, as NVIDIA's driver and so JAX report it. Sources, as of 2026: NVIDIA's data
#: sheets of B200 (HGX), GB200, H200, H100, GH200, A100, A30, A10, A40, L4, L40 and L40S (where a
#: sheet gives the figure with sparsity only, half of it); the whitepapers of the GA102, Ada and
#: RTX Blackwell architectures for RTX cards; AWS's page of G5 instances for A10G. V100 and T4 have
#: no bfloat16: theirs is the float16 figure of their data sheets.
_GPU_PEAKS: Mapping[str, float] = types.MappingProxyType(
    {
        "NVIDIA GB200": 2500e12,
        "NVIDIA B200": 2250e12,
        "NVIDIA H200": 989e12,
        "NVIDIA H200 NVL": 835e12,
        "NVIDIA GH200 480GB": 989e12,
        "NVIDIA GH200 120GB": 989e12,
        "NVIDIA GH200 144G HBM3e": 989e12,
        "NVIDIA H100 80GB HBM3": 989e12,  # SXM
        "NVIDIA H100 SXM5 80GB": 989e12,
        "NVIDIA H100 NVL": 835e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA A100-SXM4-40GB": 312e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA A100-PCIE-40GB": 312e12,
        "NVIDIA A100-PCIE-80GB": 312e12,
        "NVIDIA A100 80GB PCIe": 312e12,
        "A100-SXM4-40GB": 312e12,  # drivers of 2020
        "A100-SXM-80GB": 312e12,
        "A100-PCIE-40GB": 312e12,
        "NVIDIA A30": 165e12,
        "NVIDIA A40": 149.7e12,
        "NVIDIA A10": 125e12,
        "NVIDIA A10G": 70e12,
        "NVIDIA L40S": 362e12,
        "NVIDIA L40": 181e12,
        "NVIDIA L4": 121e12,
        "Tesla V100-SXM2-16GB": 125e12,
        "Tesla V100-SXM2-32GB": 125e12,
        "Tesla V100-PCIE-16GB": 112e12,
        "Tesla V100-PCIE-32GB": 112e12,
        "Tesla T4": 65e12,
        "NVIDIA RTX 6000 Ada Generation": 364.2e12,
        "NVIDIA RTX A6000": 154.8e12,
        "NVIDIA GeForce RTX 5090": 209.5e12,
        "NVIDIA GeForce RTX 4090": 165.2e12,
        "NVIDIA GeForce RTX 4080": 97.5e12,
        "NVIDIA GeForce RTX 3090 Ti": 80e12,
        "NVIDIA GeForce RTX 3090": 71e12,
    }
)
_TPU_KINDS = {
    "TPU v3": "v3",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}


def peak_flops(device_kind: str) -> float | None:
    """Return a device's peak FLOP/s in bfloat16, or None for a device that no table has.

    Names are compared whole: "NVIDIA L40" is another card than "NVIDIA L4".

    Args:
      device_kind: as ``jax.Device.device_kind``.

    >>> peak_flops("NVIDIA H100 80GB HBM3"), peak_flops("cpu")
    (989000000000000.0, None)
    """
    if device_kind in _TPU_KINDS:
        from model.pods.topologies import CHIPS

        return CHIPS[_TPU_KINDS[device_kind]].device_flops
    # Newer drivers leave "Tesla" out or put "NVIDIA" before it, by card.
    names = (device_kind, device_kind.replace("NVIDIA Tesla ", "Tesla "))
    return next((_GPU_PEAKS[name] for name in names if name in _GPU_PEAKS), None)


class TrainingStoppedError(ValueError):
    """The run cannot go on: the loss is not a number, or it has risen too far."""


class DivergenceGuard:
    """Watches the mean of the last losses against the least that it has been.

    >>> guard = DivergenceGuard(limit=0.5, window=2)
    >>> for step, loss in enumerate([3.0, 2.0, 2.0, 3.0], 1):
    ...     guard.see(step, loss)
    >>> guard.see(5, 3.0)
    Traceback (most recent call last):
        ...
    model.training.metrics.TrainingStoppedError: step 5: the mean loss of 2 steps is 3.000, and \
has been 2.000: it diverges (--divergence 0.5)
    """

    def __init__(self, limit: float, window: int = 100) -> None:
        """Of ``limit`` nats above the best, in means of ``window`` steps."""
        if not limit > 0:
            raise ValueError(f"divergence must be positive, got {limit} (--divergence)")
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
                f"step {step}: the mean loss of {len(self._losses)} steps is {mean:.3f}, and has "
                f"been {self._best:.3f}: it diverges (--divergence {self._limit:g})"
            )

    def get_state(self) -> dict[str, Any]:
        """What it has seen, as JSON values."""
        best = self._best if math.isfinite(self._best) else None
        return {"losses": list(self._losses), "best": best}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from :meth:`get_state`."""
        self._losses.clear()
        self._losses.extend(state["losses"])
        self._best = math.inf if state["best"] is None else state["best"]


class StepTimer:
    """Where the time of a step goes."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begins a lap now; what came since the last one counts nowhere."""
        self._started = time.monotonic()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for the input."""
        asked = time.monotonic()
        yield
        self._waited += time.monotonic() - asked

    def lap(self) -> tuple[float, float]:
        """Seconds of the lap that ends now, and those of them spent waiting."""
        seconds, waited = time.monotonic() - self._started, self._waited
        self.reset()
        return seconds, waited


def step_row(
    step: int, told: StepMetrics, seconds: float, waited: float, flops_share: float | None = None
) -> Row:
    """A step's line.

    Args:
      step: its number.
      told: fetched from the devices.
      seconds: that it took.
      waited: those of them spent waiting for the input.
      flops_share: model FLOPs of a step over what all devices could do in a second, or None.
    """
    sums = told.sums
    count = max(float(sums.tokens), 1.0)
    row = {
        "step": step,
        "loss": float(sums.loss) / count,
        "z_loss": float(sums.z_loss) / count,
        "accuracy": float(sums.correct) / count,
        "learning_rate": float(told.learning_rate),
        "gradient_norm": float(told.gradient_norm),
        "param_norm": float(told.param_norm),
        "target_tokens": int(sums.tokens),
        "seconds": round(seconds, 6),
        "tokens_per_s": round(float(told.tokens) / seconds, 1),
        "data_wait_fraction": round(waited / seconds, 6),
    }
    if flops_share is not None:
        row["mfu"] = round(flops_share / seconds, 6)
    return row


class MetricsFile:
    """``metrics.jsonl`` of a run: rows in the order of steps, none twice and none missing."""

    def __init__(self, path: str | os.PathLike[str], done: int) -> None:
        """Goes on behind step ``done``: what a run that stopped has written beyond it goes."""
        self._path = pathlib.Path(path)
        if self._path.exists() and not self._path.is_file():  # a pipe would wait for a reader
            raise ValueError(f"{self._path} is no file: move it away")
        if self._path.exists():
            kept = [json.dumps(row) for row in read_rows(self._path) if row["step"] <= done]
            scratch = self._path.with_name(self._path.name + ".tmp")
            with naming(scratch):
                scratch.write_text("".join(line + "\n" for line in kept))
                scratch.replace(self._path)
        self._file = self._path.open("a")

    def write(self, row: Row) -> None:
        """Append a row; what is no number (after which the run stops) becomes null."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        with naming(self._path):
            self._file.write(json.dumps(finite) + "\n")

    def flush(self) -> None:
        """Put all rows on disk: before a checkpoint of their step is begun."""
        with naming(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes and closes."""
        with naming(self._path):
            self._file.close()


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Rows of a ``metrics.jsonl``; lines that are none, as a crash may leave, are left out."""
    lines = pathlib.Path(path).read_text(errors="replace").splitlines()
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


class TensorBoard:
    """Rows as scalars of TensorBoard, by its own writer; TensorFlow is not imported."""

    def __init__(self, folder: str | os.PathLike[str], done: int) -> None:
        """Goes on behind step ``done``: TensorBoard hides what other files have beyond it."""
        # Its writer opens files with TensorFlow where that is installed, and with its own stand-in
        # where a module of this name exists (tensorboard/compat/__init__.py).
        name = "tensorboard.compat.notf"
        sys.modules.setdefault(name, types.ModuleType(name))
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event = Event
        self._folder = pathlib.Path(folder)
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"{self._folder} is no folder: move it away")
        begin = SessionLog(status=SessionLog.START)
        with naming(self._folder):
            self._writer = EventFileWriter(os.fspath(folder))
            self._writer.add_event(Event(wall_time=time.time(), step=done + 1, session_log=begin))

    def write(self, row: Row) -> None:
        """Each number of a row under ``train/`` or ``validation/``."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=_tag(name), simple_value=value)
            for name, value in row.items()
            if name != "step"
        ]
        event = self._event(
            wall_time=time.time(), step=row["step"], summary=Summary(value=values)
        )  # fmt: skip
        with naming(self._folder):
            self._writer.add_event(event)

    def flush(self) -> None:
        """Write what is waiting."""
        with naming(self._folder):
            self._writer.flush()

    def close(self) -> None:
        """Flushes and closes."""
        with naming(self._folder):
            self._writer.close()


def _tag(name: str) -> str:
    group, _, rest = name.partition("_")
    return f"validation/{rest}" if group == "validation" else f"train/{name}"


class Terminal:
    """A bar on a terminal, lines in a log; nothing where it is told to be quiet.

    One that is closed, or a log on a disk that is full, ends no training: a line on standard error
    says so, and nothing more is written to it.
    """

    def __init__(
        self, done: int, steps: int, *, stream: TextIO | None = None, quiet: bool = False
    ) -> None:
        self._done, self._steps, self._quiet = done, steps, quiet
        self._stream = sys.stdout if stream is None else stream
        self._on_terminal = self._stream.isatty()
        self._bar: Any = None

    def step(self, row: Row) -> None:
        """Move the bar, which appears with the first step."""
        if self._quiet or not self._on_terminal:
            return
        with self._while_it_lasts():
            if self._bar is None:
                self._bar = tqdm(
                    total=self._steps,
                    initial=self._done,
                    unit="step",
                    file=self._stream,
                    dynamic_ncols=True,
                )
            self._bar.set_postfix_str(_summary(row), refresh=False)
            self._bar.update()

    def line(self, row: Row) -> None:
        """Write a row to a log; a bar says it already."""
        if not self._on_terminal:
            self.say(f"step {row['step']}/{self._steps}  {_summary(row)}")

    def say(self, line: str) -> None:
        """Write any line, above the bar where there is one."""
        if self._quiet:
            return
        with self._while_it_lasts():
            if self._bar is not None:
                tqdm.write(line, file=self._stream)
            else:
                print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            with self._while_it_lasts():
                self._bar.close()

    @contextlib.contextmanager
    def _while_it_lasts(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._quiet = True
            if self._bar is not None:
                self._bar.disable = True
            # tqdm keeps its lock when a write fails: other threads' bars would wait for ever.
            tqdm.set_lock(threading.RLock())
            with contextlib.suppress(OSError):  # it holds what could not be written, and would try
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)
            with contextlib.suppress(OSError):
                print(
                    f"c4: note: standard output takes no more ({error.strerror}): training goes "
                    "on, metrics.jsonl has every step",
                    file=sys.stderr,
                    flush=True,
                )


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


def _summary(row: Row) -> str:
    parts = [
        f"loss {row['loss']:.3f}",
        f"accuracy {row['accuracy']:.3f}",
        f"{row['tokens_per_s']:,.0f} tokens/s",
    ]
    if "mfu" in row:
        parts.append(f"mfu {row['mfu']:.1%}")
    parts.append(f"waiting for data {row['data_wait_fraction']:.0%}")
    if "epoch" in row:
        parts.append(f"epoch {row['epoch']:.2f}")
    return "  ".join(parts)
