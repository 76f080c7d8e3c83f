"""Training, from nothing or from where it stopped: the loop and all that stands around it.

A run starts in one of three ways:

1. new, with parameters drawn from the seed;
2. new, with the parameters of another checkpoint (``init_from``);
3. going on from the newest whole checkpoint in its folder, which the other two give way to.

The third continues as if nothing had happened: parameters, optimizer state, place in the data and
dropout's masks are functions of the checkpoint and the settings. On CPUs losses are then those of
a run that was never stopped, bit for bit.
"""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from model.data.batches import Batch, BatchSpec
from model.data.device_batches import DeviceBatches
from model.data.input_pipeline import InputConfig, make_input, merged_states, validation_batches
from model.t5.config import ModelConfig
from model.t5.flops import step_flops
from model.t5.network import T5
from model.training import distributed, sharding
from model.training.checkpoints import Checkpoints, load_params
from model.training.losses import LossSums
from model.training.metrics import (
    DivergenceGuard,
    MetricsFile,
    Row,
    StepTimer,
    TensorBoard,
    Terminal,
    TrainingStoppedError,
    mean_row,
    peak_flops,
    read_rows,
    step_row,
)
from model.training.optimizer import Schedule, adafactor, schedule, state_axes
from model.training.plot import plot_losses, sparkline
from model.training.run_folder import RunFolder
from model.training.train_step import (
    StepConfig,
    StepMetrics,
    TrainState,
    init_state,
    make_eval_step,
    make_train_step,
)

__all__ = ["Layout", "TrainConfig", "plan_layout", "train"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run. Raises ValueError for what no run can be."""

    out: str  #: its folder
    model: ModelConfig
    data: InputConfig
    step: StepConfig = dataclasses.field(default_factory=StepConfig)
    steps: int = 2**19  #: of the paper's baseline (section 3.1.2)
    schedule: str = "inverse-square-root"
    learning_rate: float | None = None  #: the schedule's scale; None: the paper's
    warmup: int = 10_000
    init_from: str | None = None  #: folder to take parameters from

    mesh: str = "auto"
    checkpoint_every: int = 5000  #: as in the paper; also at the end and at SIGTERM
    keep_last: int = 3
    keep_every: int | None = None
    #: None: as checkpoint_every, where the corpus has validation pages.
    eval_every: int | None = None
    eval_batches: int = 16
    divergence: float = 2.0  #: nats that the mean of 100 losses may rise above its best
    log_every: int = 100
    peak_flops: float | None = None  #: of one device; None: from the table, where it has it
    profile_steps: int = 0  #: to trace, from the third of this start on
    quiet: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1), ("checkpoint_every", 1), ("keep_last", 1), ("eval_batches", 1),
            ("log_every", 1), ("profile_steps", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                option = name.removesuffix("_steps").replace("_", "-")
                raise ValueError(
                    f"{name} must be at least {least}, got {getattr(self, name)} (--{option})"
                )
        for name, least in (("keep_every", 1), ("eval_every", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(
                    f"{name} must be at least {least}, got {value} (--{name.replace('_', '-')})"
                )
        if self.data.batch_size % self.step.accumulate:
            raise ValueError(
                f"a batch of {self.data.batch_size} sequences does not divide into "
                f"{self.step.accumulate} microbatches (--batch-size, --accumulate)"
            )
        for name in ("steps", "warmup"):
            if getattr(self, name) >= 2**31:
                raise ValueError(
                    f"{name} must be below 2**31, got {getattr(self, name)} (--{name}): steps are "
                    "counted in 32 bits"
                )
        DivergenceGuard(self.divergence)
        schedule(self.schedule, self.learning_rate, self.warmup)

    def settings(self, data: InputConfig) -> dict[str, Any]:
        """What a run may not change while it goes on: all that its results depend on.

        Not among them: where and how it is computed (mesh, microbatches, rematerialisation,
        attention's kernel, workers), how long, and what is told of it. ``data`` is that of this
        run with its number of input shards decided.
        """
        model = dataclasses.asdict(self.model)
        for how in ("remat", "attention"):
            del model[how]
        return {
            "model": model,
            "input": data.identity(data.input_shards or 1),
            "batch_size": data.batch_size,
            "loss_on_inputs": data.loss_on_inputs,
            "learning_rate_schedule": self.schedule,
            "learning_rate": self.learning_rate,
            "warmup": self.warmup,
            "z_loss": self.step.z_loss,
            "loss_divisor": self.step.loss_divisor,
            "label_smoothing": self.step.label_smoothing,
            "init_from": self.init_from,
        }


@dataclasses.dataclass(frozen=True)
class Layout:
    """Who holds what. Trees are like :class:`TrainState`."""

    mesh: jax.sharding.Mesh
    shape: sharding.MeshShape
    state: Any  #: ``jax.ShapeDtypeStruct`` with shardings
    batch: jax.sharding.NamedSharding
    everywhere: jax.sharding.NamedSharding

    @property
    def state_shardings(self) -> Any:
        """A sharding for each array of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)

    def bytes_per_device(self) -> int:
        """Of parameters and optimizer state, on the device that holds most."""
        return sum(
            int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(self.state)
        )


def plan_layout(config: TrainConfig) -> Layout:
    """Lays a run out over the devices there are; makes no array.

    Raises ValueError for a mesh that is not of these devices, or that divides no batch.
    """
    model = T5(config.model)
    axes, shapes = model.param_axes(), model.param_shapes()
    spec = config.data.batch_spec()
    count, accumulate = jax.device_count(), config.step.accumulate
    if config.mesh == "auto":
        shape = sharding.choose_mesh(
            count, config.model, axes, shapes, spec,
            device_bytes=_device_bytes(), accumulate=accumulate,
        )  # fmt: skip
    else:
        shape = sharding.parse_mesh(config.mesh, count)
    if config.data.batch_size % (shape.batch_ways * accumulate):
        in_parts = f" in {accumulate} microbatches" if accumulate > 1 else ""
        raise ValueError(
            f"a batch of {config.data.batch_size} sequences{in_parts} does not divide over "
            f"{shape.batch_ways} devices (data x fsdp): give --batch-size a multiple of "
            f"{shape.batch_ways * accumulate}, or another --mesh"
        )
    mesh = sharding.make_mesh(shape)
    optimizer = adafactor(_schedule_of(config), axes)
    state = jax.eval_shape(
        functools.partial(init_state, model, optimizer), jax.random.key(0)
    )  # fmt: skip
    of_state = sharding.params_shardings(
        mesh, TrainState(axes, state_axes(axes, shapes), ()), state  # type: ignore[arg-type]
    )  # fmt: skip
    placed = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]
            leaf.shape, leaf.dtype, sharding=where
        ),
        state,
        of_state,
    )
    return Layout(mesh, shape, placed, sharding.batch_sharding(mesh), sharding.replicated(mesh))


def train(config: TrainConfig) -> None:
    """Trains until ``config.steps`` steps are done.

    ``jax.distributed`` is initialised by the caller where there are several processes; each calls
    this with the same configuration.

    Raises:
      KeyboardInterrupt: SIGINT or SIGTERM came; the state is saved.
      TrainingStoppedError: the loss is no number or diverges; the last good checkpoint is kept.
      ValueError: settings, corpus, folder or devices do not fit; found before anything is
        compiled, but for what only compiling shows.
      OSError: a checkpoint or the metrics could not be written.
    """
    with contextlib.ExitStack() as stack:
        # 1. The folder, and whether it is this run's.
        folder = RunFolder(config.out)
        layout = plan_layout(config)
        part, parts = distributed.input_part(layout.batch, config.data.batch_size)
        data = dataclasses.replace(
            config.data, input_shards=_input_shards(config, folder, parts)
        )  # fmt: skip
        settings = config.settings(data)
        folder.check(settings)
        distributed.require_agreement("settings", json.dumps(settings, sort_keys=True))
        if distributed.is_first():
            stack.enter_context(folder.locked())

        # 2. What is read. A corpus that cannot be read leaves no folder behind.
        batches = DeviceBatches(make_input(data, (part, parts)), data.batch_spec(), layout.batch)
        stack.callback(batches.close)
        validation = _validation_batches(config, data, (part, parts))
        eval_every = config.checkpoint_every if config.eval_every is None else config.eval_every
        if distributed.is_first():
            folder.begin(settings, config.model, getattr(data.vocabulary, "path", None))
        distributed.barrier("run folder")

        # 3. The state: of the newest checkpoint, or new.
        checkpoints = Checkpoints(
            folder.checkpoints, keep_last=config.keep_last, keep_every=config.keep_every
        )
        stack.callback(checkpoints.close)
        guard = DivergenceGuard(config.divergence)
        done = checkpoints.newest() or 0
        records = stack.enter_context(_Records(config, folder, layout, guard, checkpoints, done))
        missed = bool(
            validation and done and _is_due(done, config, eval_every)
        ) and not records.evaluated(done)  # stopped between a checkpoint and its evaluation
        _greet(config, layout, folder, done, records)
        if done >= config.steps and not missed:
            records.say(f"step {done} is done already: give more --steps to go on")
            return
        # From here on no signal comes into the middle of what JAX is doing.
        stop = stack.enter_context(_StopSignal(records.say))
        if done:
            state, progress = checkpoints.restore(done, layout.state)
            batches.set_state(progress["input"])
            guard.set_state(progress["guard"])
        else:
            state = _new_state(config, layout)

        # 4. Programs. The input comes ahead meanwhile.
        if done < config.steps:
            batches.start()
            train_step = _compiled_train_step(config, layout)
        stop.now_if_asked()
        evaluate = None
        if validation:
            eval_step = _compiled_eval_step(config, layout)
            evaluate = functools.partial(_evaluate, eval_step, validation, config, layout)
            if missed:
                records.write_validation(done, evaluate(state.params))
        stop.now_if_asked()

        # 5. The loop. A step runs on the devices while the one before it is looked at; where
        # something is to be kept, the step itself is looked at first.
        profiler = stack.enter_context(_Profiler(folder.profile, config.profile_steps))
        running: tuple[int, StepMetrics] | None = None
        records.start_clock()
        for step in range(done + 1, config.steps + 1):
            profiler.step(step - done)
            batch = records.waiting(batches)
            state, told = train_step(state, batch)
            if running is not None:
                records.write_step(*running)
            running = step, told
            stopping = stop.asked_for(step)
            saving = stopping or step == config.steps or step % config.checkpoint_every == 0
            evaluating = evaluate is not None and _is_due(step, config, eval_every)
            if not (saving or evaluating):
                continue
            records.write_step(*running)
            running = None
            if saving:
                records.flush()  # metrics up to a checkpoint are on disk before it is
                position = _gathered(batches.get_state())
                checkpoints.save(step, state, {"input": position, "guard": guard.get_state()})
            if stopping:
                records.say(f"stopping after step {step}: saving")
                checkpoints.wait()
                raise KeyboardInterrupt
            if evaluating and evaluate is not None:
                records.write_validation(step, evaluate(state.params))
            records.start_clock()

        # 6. The end.
        checkpoints.wait()
        records.finish()


def _input_shards(config: TrainConfig, folder: RunFolder, parts: int) -> int:
    """As many as the run was begun with, so that it may go on with other hosts."""
    begun = folder.begun_with()
    if config.data.input_shards is not None:
        return config.data.input_shards
    if begun is None:
        return parts
    try:
        return int(begun["input"]["input_shards"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{folder.path}: run.json is damaged: its settings name no input_shards; give another "
            "--out"
        ) from None


def _is_due(step: int, config: TrainConfig, every: int) -> bool:
    return bool(every) and (step % every == 0 or step == config.steps)


def _new_state(config: TrainConfig, layout: Layout) -> TrainState:
    """With drawn parameters, or with those of another checkpoint; no step done."""
    model = T5(config.model)
    optimizer = adafactor(_schedule_of(config), model.param_axes())
    where = layout.state_shardings
    if config.init_from is None:
        draw = jax.jit(functools.partial(init_state, model, optimizer), out_shardings=where)
        state: TrainState = draw(jax.random.key(config.data.seed))
        return state
    params = load_params(config.init_from, where.params).params
    statistics = jax.jit(optimizer.init, out_shardings=where.optimizer)(params)
    return TrainState(params, statistics, jax.device_put(np.int32(0), where.step))


def _compiled_train_step(
    config: TrainConfig, layout: Layout
) -> Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]:
    model, rate = T5(config.model), _schedule_of(config)
    step = make_train_step(model, adafactor(rate, model.param_axes()), rate, config.step)

    def on_mesh(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        with sharding.use_rules(layout.mesh):
            return step(state, batch)

    out = (layout.state_shardings, layout.everywhere)
    jitted = jax.jit(on_mesh, donate_argnums=0, out_shardings=out)
    with _memory_told():
        compiled = jitted.lower(layout.state, _shapes(config.data.batch_spec(), layout)).compile()

    def run(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        with _memory_told():
            result: tuple[TrainState, StepMetrics] = _settled(compiled(state, batch), layout)
            return result

    return run


def _compiled_eval_step(config: TrainConfig, layout: Layout) -> Callable[[Any, Any], LossSums]:
    step = make_eval_step(T5(config.model))

    def on_mesh(params: Any, batch: Any) -> LossSums:
        with sharding.use_rules(layout.mesh):
            return step(params, batch)

    jitted = jax.jit(on_mesh, out_shardings=layout.everywhere)
    spec = _eval_config(config, config.data).batch_spec()
    with _memory_told():
        compiled = jitted.lower(layout.state.params, _shapes(spec, layout)).compile()

    def run(params: Any, batch: Any) -> LossSums:
        result: LossSums = _settled(compiled(params, batch), layout)
        return result

    return run


def _settled(result: Any, layout: Layout) -> Any:
    """The same; several devices of a CPU are done with it before they are given more.

    They share one pool of threads. Two programs at once, each waiting in a collective for devices
    that the other holds, would wait for ever.
    """
    devices = layout.mesh.devices
    if devices.size > 1 and devices.flat[0].platform == "cpu":
        jax.block_until_ready(result)  # type: ignore[no-untyped-call]
    return result


def _shapes(spec: BatchSpec, layout: Layout) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(shape, kind, sharding=layout.batch)  # type: ignore[no-untyped-call]
        for name, (shape, kind) in spec.arrays.items()
    }


@contextlib.contextmanager
def _memory_told() -> Iterator[None]:
    """Says what helps where a device has too little memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = str(error).removeprefix("RESOURCE_EXHAUSTED: ").splitlines()[0]
        raise ValueError(
            "the step does not fit the memory of a device: give a larger --accumulate, --remat "
            f"full, a smaller --batch-size, or a --mesh with more fsdp ({first})"
        ) from error


def _eval_config(config: TrainConfig, data: InputConfig) -> InputConfig:
    """Evaluation takes microbatches, too: as many sequences at once as training holds."""
    return dataclasses.replace(data, batch_size=data.batch_size // config.step.accumulate)


def _validation_batches(
    config: TrainConfig, data: InputConfig, host: tuple[int, int]
) -> list[Batch]:
    """What every evaluation goes through, this host's part of it; nothing where it is off."""
    if config.eval_every == 0:
        return []
    rows = _eval_config(config, data)
    if rows.batch_size % (rows.input_shards or 1):  # hosts are fewer than shards then
        rows = dataclasses.replace(rows, input_shards=host[1])
    try:
        return list(validation_batches(rows, config.eval_batches * config.step.accumulate, host))
    except ValueError as error:  # no such pages, or too few
        if config.eval_every is not None:
            raise
        distributed.print_first(f"no evaluation: {error}")
        return []


def _evaluate(
    eval_step: Callable[[Any, Any], LossSums],
    batches: list[Batch],
    config: TrainConfig,
    layout: Layout,
    params: Any,
) -> LossSums:
    """Sums over the validation batches, fetched."""
    rows = _eval_config(config, config.data).batch_size
    sums = [
        eval_step(params, distributed.global_batch(layout.batch, batch, rows)) for batch in batches
    ]
    fetched = jax.device_get(sums)
    return LossSums(*(sum(float(part) for part in parts) for parts in zip(*fetched, strict=True)))  # type: ignore[arg-type]


def _schedule_of(config: TrainConfig) -> Schedule:
    return schedule(config.schedule, config.learning_rate, config.warmup)


def _device_bytes() -> float | None:
    stats = jax.local_devices()[0].memory_stats()
    limit = (stats or {}).get("bytes_limit")
    return None if limit is None else float(limit)


def _gathered(state: dict[str, Any]) -> dict[str, Any]:
    """The input's position on all hosts, merged."""
    if jax.process_count() == 1:
        return merged_states([state])
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    longest = int(np.max(multihost_utils.process_allgather(np.int32(len(text)))))
    padded = np.zeros(longest, np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return merged_states([json.loads(bytes(row).rstrip(b"\0")) for row in rows])


def _greet(
    config: TrainConfig, layout: Layout, folder: RunFolder, done: int, records: "_Records"
) -> None:
    devices = layout.mesh.devices.flat
    kind = f"{len(layout.mesh.devices.flat)} x {devices[0].device_kind}"
    records.say(
        f"{config.model.architecture}, {config.model.parameter_count():,} parameters on {kind} "
        f"({layout.shape}; {layout.bytes_per_device() / 2**20:,.0f} MiB of state each), "
        f"{config.data.batch_spec().tokens:,} tokens a step"
    )
    for line in sharding.undivided_axes(
        layout.shape, T5(config.model).param_axes(), T5(config.model).param_shapes()
    ):
        records.say(f"note: {line}")
    if 0 < done < config.steps:
        records.say(f"going on from step {done} in {folder.path}")
        for line in folder.changed_versions():
            records.say(f"note: {line}; losses may differ in their last digits")


class _Records:
    """Where metrics go: file, TensorBoard and terminal of the first process, the guard of each."""

    _PATIENCE_S = 30.0  # of a log without a line

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        layout: Layout,
        guard: DivergenceGuard,
        checkpoints: Checkpoints,
        done: int,
    ) -> None:
        self._config, self._folder, self._done = config, folder, done
        self._guard, self._checkpoints = guard, checkpoints
        self._flops_share = _flops_share(config, layout)
        self._timer = StepTimer()
        self._since: list[Row] = []  # rows since the last point of TensorBoard
        self._last_line: float | None = None
        self._file: MetricsFile | None = None
        self._board: TensorBoard | None = None
        self._terminal: Terminal | None = None

    def __enter__(self) -> "_Records":
        if distributed.is_first():
            self._file = MetricsFile(self._folder.metrics, self._done)
            self._board = TensorBoard(self._folder.tensorboard, self._done)
            self._terminal = Terminal(self._done, self._config.steps, quiet=self._config.quiet)
        return self

    def __exit__(self, *_: object) -> None:
        for place in (self._file, self._board, self._terminal):
            if place is not None:
                place.close()

    def start_clock(self) -> None:
        """What came before is no part of the next step's time."""
        self._timer.reset()

    def waiting(self, batches: Iterator[Any]) -> Any:
        """The next batch; the time until it comes counts as waiting."""
        with self._timer.waiting():
            return next(batches)

    def write_step(self, step: int, told: StepMetrics) -> None:
        """Fetches a step's metrics and tells them. Raises TrainingStoppedError for bad ones."""
        told = jax.device_get(told)
        row = step_row(step, told, *self._timer.lap(), self._flops_share)
        if self._file is not None:
            self._file.write(row)
        if not told.finite:
            raise TrainingStoppedError(
                f"step {step}: loss {row['loss']:g}, gradient norm {row['gradient_norm']:g}, "
                f"parameter norm {row['param_norm']:g}: not finite; {self._way_out()}"
            )
        try:
            self._guard.see(step, row["loss"])
        except TrainingStoppedError as error:
            raise TrainingStoppedError(f"{error}; {self._way_out()}") from None
        self._since.append(row)
        if self._board is None or self._terminal is None:
            self._since.clear()
            return
        self._terminal.step(row)
        now = time.monotonic()
        at_point = step % self._config.log_every == 0 or step == self._config.steps
        late = self._last_line is None or now - self._last_line > self._PATIENCE_S
        if at_point or late:
            mean = mean_row(self._since)
            self._terminal.line(mean)
            self._last_line = now
            if at_point:
                self._board.write(mean)
                self._since.clear()

    def write_validation(self, step: int, sums: LossSums) -> None:
        """Tells an evaluation of the state after ``step``."""
        count = max(float(sums.tokens), 1.0)
        row = {
            "step": step,
            "validation_loss": float(sums.loss) / count,
            "validation_accuracy": float(sums.correct) / count,
        }
        if self._file is not None and self._board is not None:
            self._file.write(row)
            self._board.write(row)
        self.say(
            f"step {step}/{self._config.steps}  validation loss {row['validation_loss']:.3f}  "
            f"accuracy {row['validation_accuracy']:.3f}"
        )

    def evaluated(self, step: int) -> bool:
        """Whether the state after ``step`` was evaluated by the run before."""
        found = self._file is not None and any(
            row["step"] == step and "validation_loss" in row
            for row in read_rows(self._folder.metrics)
        )
        if jax.process_count() == 1:
            return found
        return bool(multihost_utils.broadcast_one_to_all(np.bool_(found)))

    def say(self, line: str) -> None:
        """A line of its own."""
        if self._terminal is not None:
            self._terminal.say(line)

    def flush(self) -> None:
        """Puts what was written on disk."""
        if self._file is not None and self._board is not None:
            self._file.flush()
            self._board.flush()

    def finish(self) -> None:
        """Draws the losses and says what the run came to."""
        if self._file is None:
            return
        self.flush()
        rows = read_rows(self._folder.metrics)
        plot_losses(rows, self._folder.plot, self._folder.path.name)
        losses = [row["loss"] for row in rows if row.get("loss") is not None]
        validation = [row["validation_loss"] for row in rows if "validation_loss" in row]
        self.say(f"loss {losses[0]:.3f} {sparkline(losses)} {losses[-1]:.3f}" if losses else "")
        last = f", validation loss {validation[-1]:.3f}" if validation else ""
        self.say(f"trained to step {rows[-1]['step']}{last}: {self._folder.path}")

    def _way_out(self) -> str:
        self._checkpoints.wait()
        newest = self._checkpoints.newest()
        kept = "no checkpoint was written yet" if newest is None else f"checkpoint {newest} is good"
        return f"{kept}; begin another run with a smaller --learning-rate or longer --warmup"


def _flops_share(config: TrainConfig, layout: Layout) -> float | None:
    """Model FLOPs of a step over what all devices could do in a second, where that is known."""
    devices = list(layout.mesh.devices.flat)
    peak = config.peak_flops or peak_flops(devices[0].device_kind)
    if peak is None:
        return None
    shapes = {name: shape for name, (shape, _) in config.data.batch_spec().arrays.items()}
    return step_flops(config.model, shapes) / (peak * len(devices))


class _Profiler:
    """Traces some steps with JAX's profiler, once those that are slow for being first are over."""

    _FIRST = 3

    def __init__(self, folder: os.PathLike[str], steps: int) -> None:
        self._folder, self._steps, self._running = folder, steps, False

    def __enter__(self) -> "_Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def step(self, number: int) -> None:
        """Before the step of this number, counted from 1 at each start."""
        if self._steps and number == self._FIRST:
            jax.profiler.start_trace(os.fspath(self._folder))
            self._running = True
        elif number == self._FIRST + self._steps:
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()  # type: ignore[no-untyped-call]


class _StopSignal:
    """SIGINT and SIGTERM end the run after the step they come in; a second one ends it at once.

    Among several processes JAX's own watch for SIGTERM agrees on the step after which all stop.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_StopSignal":
        if threading.current_thread() is threading.main_thread():
            alone = jax.process_count() == 1
            for number in (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def now_if_asked(self) -> None:
        """Ends what this process does before the first step, when nothing needs saving."""
        if self._came and jax.process_count() == 1:
            raise KeyboardInterrupt

    def asked_for(self, step: int) -> bool:
        """Whether to stop after this step; on all processes the same."""
        if jax.process_count() == 1:
            return self._came
        return bool(multihost_utils.reached_preemption_sync_point(step))

    def _receive(self, number: int, frame: object) -> None:
        del number, frame
        if self._came:
            raise KeyboardInterrupt
        self._came = True
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # which the others are told of
        self._say("stopping as soon as the state can be kept; once more to stop at once")
