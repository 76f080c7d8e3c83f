"""Where metrics go: file, TensorBoard and terminal of the first process, the guard of each."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from model.chips import peak_flops
from model.t5.flops import step_flops
from model.t5.network import T5
from model.training import distributed, sharding
from model.training.checkpoints import Checkpoints
from model.training.evaluations import Evaluation
from model.training.metrics import (
    DivergenceGuard,
    MetricsFile,
    Row,
    StepTimer,
    TrainingStoppedError,
    mean_row,
    read_rows,
    step_row,
)
from model.training.plot import plot_losses, sparkline
from model.training.programs import Placement
from model.training.reports import TensorBoard, Wandb
from model.training.terminal import Terminal
from model.training.train_config import TrainConfig
from model.training.train_step import StepMetrics

if TYPE_CHECKING:
    from model.training.trainer import Plan


class Records:
    """The records of one start of a run."""

    _PATIENCE_S = 30.0  # of a log without a line, and of a curve without a point
    _MUCH_WAITING = 0.1  # share of the time that is worth a note

    def __init__(
        self, plan: "Plan", guard: DivergenceGuard, checkpoints: Checkpoints, done: int
    ) -> None:
        self._settings, self._done = plan.settings, done
        self._config, self._folder, self._placement = plan.config, plan.folder, plan.placement
        self._guard, self._checkpoints = guard, checkpoints
        self._flops_share = _flops_share(plan.config, plan.placement)
        self._timer = StepTimer()
        self._since: list[Row] = []  # rows since the last line
        self._last_line: float | None = None
        self._waited_much = False
        self._files: list[MetricsFile] = []  # of the first process, as reports are
        self._reports: list[TensorBoard | Wandb] = []
        quiet = plan.config.quiet or not distributed.is_first()
        self._terminal = Terminal(done, plan.config.steps, quiet=quiet)

    def __enter__(self) -> "Records":
        if distributed.is_first():
            folder, config = self._folder, self._config
            if "wandb" in config.report_to:  # first: it may refuse
                shown = {
                    **self._settings,
                    "steps": config.steps,
                    "mesh": str(self._placement.shape),
                }
                self._reports.append(Wandb(folder.path, folder.wandb_id, shown, self.say))
            self._files.append(MetricsFile(folder.metrics, self._done))
            if "tensorboard" in config.report_to:
                self._reports.append(TensorBoard(folder.tensorboard, self._done))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        status = 0 if kind is None else 130 if issubclass(kind, KeyboardInterrupt) else 1
        for report in self._reports:
            report.close(status)
        for file in self._files:
            file.close()
        self._terminal.close()

    def introduce(self) -> None:
        """Say what is trained, on what, and from which step it resumes."""
        config, placement = self._config, self._placement
        devices = placement.mesh.devices.flat
        spec = config.data.batch_spec()
        lengths = " + ".join(str(n) for n in (spec.encoder_length, spec.decoder_length) if n)
        kind = f"{len(devices)} x {devices[0].device_kind}"
        self.say(
            f"{config.model.architecture}, {config.model.parameter_count():,} parameters on {kind} "
            f"({placement.shape}; {placement.bytes_per_device() / 2**20:,.0f} MiB of state each), "
            f"{spec.tokens:,} tokens a step ({spec.batch_size} x {lengths})"
        )
        for line in sharding.undivided_axes(placement.shape, T5(config.model)):
            self.say(f"note: {line}")
        if self._flops_share is None and devices[0].platform != "cpu":
            self.say(
                f"note: no model FLOP utilisation (mfu): the peak of {devices[0].device_kind!r} is "
                "unknown; give it in TFLOP/s (--peak-tflops)"
            )
        if 0 < self._done < config.steps:
            self.say(f"resuming from step {self._done} in {self._folder.where}")
            for line in self._folder.changed_versions():
                self.say(f"note: {line}; losses may differ in their last digits")

    def start_clock(self) -> None:
        """Start timing the next step now."""
        self._timer.reset()

    def waiting(self, batches: Iterator[Any]) -> Any:
        """Return the next batch; the time until it comes counts as waiting."""
        with self._timer.waiting():
            return next(batches)

    def write_step(self, step: int, metrics: StepMetrics, epoch: float) -> None:
        """Fetch the metrics of a step and record them.

        Args:
          step: its number.
          metrics: of the step, on the devices.
          epoch: how many times the corpus has been read up to this step.

        Raises TrainingStoppedError where the loss is NaN or diverges.
        """
        metrics = jax.device_get(metrics)
        row = step_row(step, metrics, *self._timer.lap(), self._flops_share)
        row["epoch"] = round(epoch, 6)
        for file in self._files:
            file.write(row)
        if not metrics.finite:
            raise TrainingStoppedError(
                f"step {step}: loss {row['loss']:g}, gradient norm {row['gradient_norm']:g}, "
                f"parameter norm {row['param_norm']:g}: not finite; {self._way_out()}"
            )
        try:
            self._guard.see(step, row["loss"])
        except TrainingStoppedError as error:
            raise TrainingStoppedError(f"{error}; {self._way_out()}") from None
        self._since.append(row)
        self._terminal.step(row)
        now = time.monotonic()
        at_point = step % self._config.line_every == 0 or step == self._config.steps
        late = self._last_line is None or now - self._last_line > self._PATIENCE_S
        if at_point or late:
            self._write_mean(mean_row(self._since))
            self._last_line = now
            self._since.clear()

    def _write_mean(self, mean: Row) -> None:
        """Write a line of the log and a point of each curve."""
        self._terminal.line(mean)
        for report in self._reports:
            report.write(mean)
        waited = mean["data_wait_fraction"]
        if waited >= self._MUCH_WAITING and len(self._since) > 1 and not self._waited_much:
            self._waited_much = True
            self.say(
                f"note: {waited:.0%} of the time goes to waiting for data: more --workers may help"
            )

    def write_evaluation(self, step: int, found: Sequence[Evaluation]) -> None:
        """Record the evaluations of the state after ``step``."""
        row: Row = {"step": step}
        for evaluation in found:
            row |= evaluation.values
        for place in (*self._files, *self._reports):
            place.write(row)
        for evaluation in found:
            self.say(f"step {step}/{self._config.steps}  {evaluation.line}")

    def evaluated(self, step: int) -> bool:
        """Return whether the state after ``step`` was evaluated by the run before."""
        found = distributed.is_first() and any(
            row["step"] == step and any(name.startswith("validation") for name in row)
            for row in read_rows(self._folder.metrics)
        )
        if jax.process_count() == 1:
            return found
        return bool(multihost_utils.broadcast_one_to_all(np.bool_(found)))

    def say(self, line: str) -> None:
        """Print a line."""
        self._terminal.say(line)

    def flush(self) -> None:
        """Put what was written on disk."""
        for place in (*self._files, *self._reports):
            place.flush()

    def finish(self) -> None:
        """Plot the losses and print the final step and validation loss."""
        if not distributed.is_first():
            return
        self.flush()
        rows = read_rows(self._folder.metrics)
        plot_losses(rows, self._folder.plot, self._folder.where.rpartition("/")[2])
        steps = [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None]
        validation = [row["validation_loss"] for row in rows if "validation_loss" in row]
        if steps:
            (first, began), (newest, ended) = steps[0], steps[-1]
            curve = sparkline([loss for _, loss in steps])
            self.say(
                f"loss at step {first} {began:.3f} {curve} {ended:.3f} at step {newest} (in the "
                "lines above: means)"
            )
        last = f", validation loss {validation[-1]:.3f}" if validation else ""
        self.say(f"trained to step {rows[-1]['step']}{last}: {self._folder.where}")

    def _way_out(self) -> str:
        self._checkpoints.wait()
        newest = self._checkpoints.newest()
        kept = "no checkpoint was written yet" if newest is None else f"checkpoint {newest} is good"
        return f"{kept}; begin another run with a smaller --learning-rate or longer --warmup"


def _flops_share(config: TrainConfig, placement: Placement) -> float | None:
    """Return model FLOPs of a step over the peak of all devices per second; None if unknown."""
    devices = list(placement.mesh.devices.flat)
    peak = config.peak_flops or peak_flops(devices[0].device_kind)
    if peak is None:
        return None
    spec = config.data.batch_spec()
    flops = step_flops(config.model, spec.batch_size, spec.decoder_length, spec.encoder_length)
    return flops / (peak * len(devices))
