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
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from model.data.batches import Batch
from model.data.device_batches import DeviceBatches
from model.data.input_pipeline import InputConfig, make_input, merged_states, validation_batches
from model.data.passes import corpus_size
from model.training import distributed
from model.training.checkpoints import Checkpoints
from model.training.losses import LossSums
from model.training.metrics import DivergenceGuard
from model.training.profiler import Profiler
from model.training.programs import (
    Layout,
    compiled_eval_step,
    compiled_train_step,
    new_state,
    plan_layout,
)
from model.training.records import Records
from model.training.run_folder import RunFolder
from model.training.stop_signal import StopSignal
from model.training.train_config import TrainConfig
from model.training.train_step import StepMetrics

__all__ = ["check", "train"]


class _Plan(NamedTuple):
    """What of a run is known before anything is read or written."""

    folder: RunFolder
    layout: Layout
    data: InputConfig  #: with its number of input shards decided
    host: tuple[int, int]  #: this process's part of the input, and how many there are
    settings: dict[str, Any]


def check(config: TrainConfig) -> Layout:
    """Find what would keep a run from beginning or going on; writes and computes nothing.

    Returns how the run lies over the devices. Raises ValueError as :func:`train` does.
    """
    plan = _plan(config)
    make_input(dataclasses.replace(plan.data, workers=0), plan.host).close()
    _validation_batches(config, plan.data, plan.host, distributed.print_first)
    return plan.layout


def train(config: TrainConfig, interrupted: Callable[[], bool] = lambda: False) -> None:
    """Trains until ``config.steps`` steps are done.

    ``interrupted`` says whether a signal to stop came before this could listen for one.

    ``jax.distributed`` is initialised by the caller where there are several processes; each calls
    this with the same configuration.

    Raises:
      KeyboardInterrupt: SIGINT or SIGTERM came; the state is saved.
      TrainingStoppedError: the loss is no number or diverges; the last good checkpoint is kept.
      ValueError: settings, corpus, folder or devices do not fit; found before anything is
        compiled, but for what only compiling shows.
      OSError: a checkpoint or the metrics could not be written; or the input has failed, as it
        does with ValueError where a shard is damaged: the state before it is saved then, but for
        runs of several processes.
    """
    with contextlib.ExitStack() as stack:
        # 1. The folder, and whether it is this run's.
        plan = _plan(config)
        layout, folder, data, host = plan.layout, plan.folder, plan.data, plan.host
        distributed.require_agreement("settings", json.dumps(plan.settings, sort_keys=True))
        if distributed.is_first():
            stack.enter_context(folder.locked())

        # 2. What is read. A corpus that cannot be read leaves no folder behind.
        batches = DeviceBatches(make_input(data, host), data.batch_spec(), layout.batch)
        stack.callback(batches.close)
        notes: list[str] = []
        validation = _validation_batches(config, data, host, notes.append)
        eval_every = config.checkpoint_every if config.eval_every is None else config.eval_every
        if distributed.is_first():
            folder.begin(plan.settings, config.model, getattr(data.vocabulary, "path", None))
        distributed.barrier("run folder")

        # 3. The state: of the newest checkpoint, or new.
        checkpoints = Checkpoints(
            folder.checkpoints, keep_last=config.keep_last, keep_every=config.keep_every
        )
        stack.callback(checkpoints.close)
        guard = DivergenceGuard(config.divergence)
        done = checkpoints.newest() or 0
        records = stack.enter_context(Records(config, folder, layout, guard, checkpoints, done))
        missed = bool(
            validation and done and _is_due(done, config, eval_every)
        ) and not records.evaluated(done)  # stopped between a checkpoint and its evaluation
        size = corpus_size(data, data.input_shards or 1)
        records.greet()
        records.say(f"corpus: {size.described(config.steps * data.batch_size)}")
        for note in notes:
            records.say(note)
        if done >= config.steps and not missed:
            records.say(f"step {done} is done already: give more --steps to go on")
            return
        # From here on no signal comes into the middle of what JAX is doing.
        stop = stack.enter_context(StopSignal(records.say, interrupted))
        stop.now_if_asked()
        if done:
            state, progress = checkpoints.restore(done, layout.state)
            batches.set_state(progress["input"])
            guard.set_state(progress["guard"])
        else:
            state = new_state(config, layout)

        # 4. Programs. The input comes ahead meanwhile.
        if done < config.steps:
            batches.start()
            train_step = compiled_train_step(config, layout)
        stop.now_if_asked()
        evaluate = None
        if validation:
            eval_step = compiled_eval_step(config, layout)
            evaluate = functools.partial(_evaluate, eval_step, validation, config, layout)
            if missed:
                records.write_validation(done, evaluate(state.params))
        stop.now_if_asked()

        # 5. The loop. A step runs on the devices while the one before it is looked at; where
        # something is to be kept, the step itself is looked at first.
        profiler = stack.enter_context(Profiler(folder.profile, config.profile_steps))
        running: tuple[int, StepMetrics, float] | None = None
        kept = done

        def keep(step: int) -> None:
            nonlocal kept
            records.flush()  # metrics up to a checkpoint are on disk before it is
            position = _gathered(batches.get_state())
            checkpoints.save(step, state, {"input": position, "guard": guard.get_state()})
            kept = step

        records.start_clock()
        for step in range(done + 1, config.steps + 1):
            profiler.step(step - done)
            try:
                batch = records.waiting(batches)
            except Exception:  # the steps before have not to be lost with the input
                if running is not None:
                    records.write_step(*running)
                if step - 1 > kept and jax.process_count() == 1:  # the others know nothing of it
                    records.say(f"no input for step {step}: saving")
                    keep(step - 1)
                    checkpoints.wait()
                raise
            epoch = batches.epoch(size.rows_per_element)
            state, told = train_step(state, batch)
            if running is not None:
                records.write_step(*running)
            running = step, told, epoch
            stopping = stop.asked_for(step)
            saving = stopping or step == config.steps or step % config.checkpoint_every == 0
            evaluating = evaluate is not None and _is_due(step, config, eval_every)
            if not (saving or evaluating):
                continue
            records.write_step(*running)
            running = None
            if saving:
                keep(step)
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


def _plan(config: TrainConfig) -> _Plan:
    folder = RunFolder(config.out)
    layout = plan_layout(config)
    host = distributed.input_part(layout.batch, config.data.batch_size)
    data = dataclasses.replace(config.data, input_shards=_input_shards(config, folder, host[1]))
    settings = config.settings(data)
    folder.check(settings)
    return _Plan(folder, layout, data, host, settings)


def _input_shards(config: TrainConfig, folder: RunFolder, parts: int) -> int:
    """As many as the run was begun with, so that it may go on with other hosts."""
    begun = folder.begun_with()
    if config.data.input_shards is not None:
        return config.data.input_shards
    if begun is None:
        return parts
    try:
        found, rows = begun["input"]["input_shards"], begun["batch_size"]
        if type(found) is int and found > 0 and rows % found == 0:
            return found
    except (KeyError, TypeError):
        found = None
    raise ValueError(
        f"{folder.path}: run.json is damaged: its batch is not of {found!r} input shards "
        "(input_shards); give another --out"
    )


def _is_due(step: int, config: TrainConfig, every: int) -> bool:
    return bool(every) and (step % every == 0 or step == config.steps)


def _validation_batches(
    config: TrainConfig, data: InputConfig, host: tuple[int, int], say: Callable[[str], None]
) -> list[Batch]:
    """What every evaluation goes through, this host's part of it; nothing where it is off.

    ``say`` is told why there is none where the corpus is what it takes.
    """
    if config.eval_every == 0:
        return []
    rows = config.evaluation_rows(data)
    if rows.batch_size % (rows.input_shards or 1):  # hosts are fewer than shards then
        rows = dataclasses.replace(rows, input_shards=host[1])
    try:
        return list(validation_batches(rows, config.eval_batches * config.step.accumulate, host))
    except ValueError as error:  # no such pages, or too few
        if config.eval_every is not None:
            raise
        say(f"no evaluation: {error}")
        return []


def _evaluate(
    eval_step: Callable[[Any, Any], LossSums],
    batches: list[Batch],
    config: TrainConfig,
    layout: Layout,
    params: Any,
) -> LossSums:
    """Return the sum over the validation batches, fetched."""
    rows = config.evaluation_rows(config.data).batch_size
    sums = [
        eval_step(params, distributed.global_batch(layout.batch, batch, rows)) for batch in batches
    ]
    fetched = jax.device_get(sums)
    return LossSums(*(sum(float(part) for part in parts) for parts in zip(*fetched, strict=True)))  # type: ignore[arg-type]


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
