"""Training, from the start or resumed: the loop and everything around it.

A run starts in one of three ways:

1. new, with parameters drawn from the seed;
2. new, with the parameters of another checkpoint (``init_from``);
3. resumed from the newest whole checkpoint in its folder; this takes precedence over the others.

The third continues as if nothing had happened: parameters, optimizer state, place in the data and
dropout's masks are functions of the checkpoint and the settings. On CPUs losses are then those of
a run that was never stopped, bit for bit.
"""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from model.data.batches import HostBatch
from model.data.device_batches import DeviceBatches
from model.data.input_config import InputConfig
from model.data.input_pipeline import (
    make_input,
    merged_states,
    validation_batches,
    validation_inputs,
)
from model.data.passes import input_size
from model.tasks.mixtures import C4
from model.training import distributed
from model.training.compile_cache import compile_cache
from model.training.losses import LossSums
from model.training.memory import one_line_out_of_memory, require_host_room
from model.training.metrics import DivergenceGuard
from model.training.profiler import Profiler
from model.training.programs import Placement, compile_programs, new_state, plan_placement
from model.training.records import Records
from model.training.remote_checkpoints import open_checkpoints
from model.training.reports import require_installed
from model.training.run_folder import RunFolder
from model.training.stop_signal import StopSignal, interruptible
from model.training.train_config import TrainConfig
from model.training.train_step import StepMetrics

__all__ = ["check", "train"]


class _Plan(NamedTuple):
    """What of a run is known before anything is read or written."""

    folder: RunFolder
    placement: Placement
    data: InputConfig  #: with its number of input shards decided
    host: tuple[int, int]  #: this process's part of the input, and how many there are
    settings: dict[str, Any]


class Interruption(Protocol):
    """What a command is asked by signals, and says when it ends by one."""

    def asked(self) -> bool:
        """Return whether a signal came."""

    def expect(self, line: str, patience_s: float | None) -> None:
        """Say this line from here on, and end so many seconds after a signal, if not None."""


_FEW_EXAMPLES = 100  # pages or examples of a validation split

#: For whatever a run is doing before its first step, when there is nothing to save.
PATIENCE_S = 0.8


def check(config: TrainConfig, describe: Callable[[Placement, InputConfig], None]) -> None:
    """Find what would keep a run from beginning or resuming; write nothing, train nothing.

    Args:
      config: the run.
      describe: called when all but the memory was checked, before the steps are compiled.

    Raises ValueError as :func:`train` does.
    """
    with one_line_out_of_memory(config):
        plan = _plan(config)
        make_input(dataclasses.replace(plan.data, workers=0), plan.host).close()
        validation = _validation_batches(config, plan.data, plan.host, distributed.print_first)
        describe(plan.placement, plan.data)
        compile_programs(
            config, plan.placement, trains=True, evaluates=bool(validation),
            say=distributed.print_first,
        )  # fmt: skip


def train(config: TrainConfig, interruption: Interruption | None = None) -> None:
    """Train until ``config.steps`` steps are done.

    The caller initialises ``jax.distributed`` where there are several processes; each calls this
    with the same configuration.

    Args:
      config: the run.
      interruption: says whether a signal to stop came before this could listen for one, and is
        told what an interrupt leaves.

    Raises:
      KeyboardInterrupt: SIGINT or SIGTERM came; the state is saved, if a step was done.
      TrainingStoppedError: the loss is NaN or diverges; the last good checkpoint is kept.
      OutOfMemoryError: a step does not fit a device, which is found before the first one, or
        memory ran out.
      ValueError: settings, corpus, folder or devices do not fit; found before anything is
        compiled, but for what only compiling shows.
      OSError: a checkpoint or the metrics could not be written; or the input has failed, as it
        does with ValueError where a shard is damaged: the state before it is saved then, but for
        runs of several processes.
    """
    with one_line_out_of_memory(config):
        _train(config, interruption)


def _train(config: TrainConfig, interruption: Interruption | None) -> None:
    def expect(line: str, patience_s: float | None = None) -> None:
        if interruption is not None:
            alone = jax.process_count() == 1  # the others have to be told, which takes a step
            interruption.expect(f"c4: interrupted {line}", patience_s if alone else None)

    with contextlib.ExitStack() as stack:
        # 1. The folder, and whether it is this run's.
        plan = _plan(config)
        placement, folder, data, host = plan.placement, plan.folder, plan.data, plan.host
        distributed.require_agreement("settings", json.dumps(plan.settings, sort_keys=True))
        if distributed.is_first():
            stack.enter_context(folder.locked())

        # 2. What is read. A corpus that cannot be read leaves no folder behind.
        batches = DeviceBatches(make_input(data, host), data.batch_spec(), placement.batch)
        stack.callback(batches.close)
        notes: list[str] = []
        validation = _validation_batches(config, data, host, notes.append)
        eval_every = config.checkpoint_every if config.eval_every is None else config.eval_every
        if distributed.is_first():
            vocabulary = getattr(data.vocabulary, "path", None)
            if folder.begin(plan.settings, config.model, vocabulary, config.defaults):
                notes.append(
                    "note: this folder had other settings and no finished step: replacing them"
                )
        distributed.barrier("run folder")

        # 3. Which steps are done, and what is left to do.
        checkpoints = open_checkpoints(folder, config.keep_last, config.keep_every)
        stack.callback(checkpoints.close)
        guard = DivergenceGuard(config.divergence)
        done = checkpoints.newest() or 0
        good = f"the checkpoint of step {done} is still good" if done else "nothing was saved"
        expect(f"before the first step: {good}", PATIENCE_S)
        records = stack.enter_context(
            Records(config, folder, placement, guard, checkpoints, done, plan.settings)
        )
        missed = bool(
            validation and done and _is_due(done, config.steps, eval_every)
        ) and not records.evaluated(done)  # stopped between a checkpoint and its evaluation
        size = input_size(data, data.input_shards or 1)
        records.introduce()
        for line in (*size.lines(config.steps * data.batch_size), size.mixture(), *notes):
            if line:
                records.say(line)
        if done >= config.steps and not missed:
            records.say(f"step {done} is already done: give a larger --steps to continue")
            return
        stop = stack.enter_context(
            StopSignal(records.say, interruption.asked if interruption else lambda: False)
        )

        # 4. Programs, before the arrays that they need. The input comes ahead meanwhile.
        trains = done < config.steps
        if trains and not done:
            batches.start()
        with compile_cache(folder.path):
            train_step, eval_step = compile_programs(
                config, placement, trains=trains, evaluates=bool(validation), say=records.say
            )

        # 5. The state: of the newest checkpoint, or new.
        if done:
            state, progress = checkpoints.restore(done, placement.state)
            batches.set_state(progress["input"])
            guard.set_state(progress["guard"])
            if trains:
                batches.start()
        else:
            state = interruptible(lambda: new_state(config, placement))
        evaluate = None
        if eval_step is not None:
            rows = config.evaluation_rows(data).batch_size
            evaluate = functools.partial(_evaluate, eval_step, validation, rows, placement)
            if missed:
                records.write_validation(done, evaluate(state.params))
        if train_step is None:
            stop.now_if_asked()
            records.finish()
            return

        # 6. The loop. A step runs on the devices while the one before it is looked at; where
        # something is to be kept, the step itself is looked at first.
        profiler = stack.enter_context(Profiler(folder.profile, config.profile_steps))
        running: tuple[int, StepMetrics, float] | None = None
        kept = named = done  # the newest checkpoint, and that which an interrupt names

        def keep(step: int) -> None:
            nonlocal kept
            records.flush()  # metrics up to a checkpoint are on disk before it is
            position = _gathered(batches.get_state())
            checkpoints.save(step, state, {"input": position, "guard": guard.get_state()})
            expect_at(kept)  # which is whole now
            kept = step

        def expect_at(step: int) -> None:
            nonlocal named
            named = step
            again = f"run the same command again to resume from the checkpoint of step {step}"
            expect(f"in training: {again if step else 'no checkpoint was written yet'}")

        expect_at(done)
        stop.begin_steps()
        records.start_clock()
        for step in range(done + 1, config.steps + 1):
            profiler.step(step - done)
            try:
                batch = records.waiting(batches)
            except Exception:  # the steps before must not be lost with the input
                if running is not None:
                    records.write_step(*running)
                if step - 1 > kept and jax.process_count() == 1:  # the others know nothing of it
                    records.say(f"no input for step {step}: saving")
                    keep(step - 1)
                    checkpoints.wait()
                raise
            epoch = batches.epoch()
            state, metrics = train_step(state, batch)
            if running is not None:
                records.write_step(*running)
            running = step, metrics, epoch
            if named != kept and (folder.checkpoints / str(kept)).is_dir():  # the save is done
                expect_at(kept)
            stopping = stop.asked_for(step)
            saving = stopping or step == config.steps or step % config.checkpoint_every == 0
            evaluating = evaluate is not None and _is_due(step, config.steps, eval_every)
            if not (saving or evaluating):
                continue
            records.write_step(*running)
            running = None
            if saving:
                keep(step)
            if stopping:
                records.say(f"stopping after step {step}: saving")
                checkpoints.wait()
                expect_at(step)
                raise KeyboardInterrupt
            if evaluating and evaluate is not None:
                records.write_validation(step, evaluate(state.params))
            records.start_clock()

        # 7. The end.
        checkpoints.wait()
        expect("after the last step: its checkpoint is good")
        records.finish()


def _plan(config: TrainConfig) -> _Plan:
    require_installed(config.report_to)
    folder = RunFolder(config.out)
    if folder.remote is not None and jax.process_count() > 1:
        raise ValueError(
            f"--out {folder.where}: several processes that train as one need a folder that all of "
            "them see, such as one of a mounted, shared file system"
        )
    placement = plan_placement(config)
    host = distributed.input_part(placement.batch, config.data.batch_size)
    input_shards = _input_shards(config.data.input_shards, folder, host[1])
    data = dataclasses.replace(config.data, input_shards=input_shards)
    settings = config.settings(data)
    folder.check(settings)
    return _Plan(folder, placement, data, host, settings)


def _input_shards(asked: int | None, folder: RunFolder, parts: int) -> int:
    """Return as many as the run was begun with, so that it can resume on other hosts."""
    begun = folder.begun_with()
    if asked is not None:
        return asked
    if begun is None:
        return parts
    try:
        found, rows = begun["input"]["input_shards"], begun["batch_size"]
        if type(found) is int and found > 0 and rows % found == 0:
            return found
    except (KeyError, TypeError):
        found = None
    raise ValueError(
        f"{folder.where}: run.json is damaged: its batch is not of {found!r} input shards "
        "(input_shards); give another --out"
    )


def _is_due(step: int, steps: int, every: int) -> bool:
    return bool(every) and (step % every == 0 or step == steps)


def _validation_batches(
    config: TrainConfig, data: InputConfig, host: tuple[int, int], say: Callable[[str], None]
) -> dict[str, list[HostBatch]]:
    """Return what every evaluation goes through, this host's part of it, by source.

    Nothing where evaluation is off. ``say`` takes a line about the number of pages or examples, or
    about why a source allows no evaluation.
    """
    if config.eval_every == 0:
        return {}
    rows = config.evaluation_rows(data)
    if rows.batch_size % (rows.input_shards or 1):  # hosts are fewer than shards then
        rows = dataclasses.replace(rows, input_shards=host[1])
    count = config.eval_batches * config.step.accumulate
    arrays = rows.batch_spec().arrays.values()
    each = sum(math.prod(shape) * kind.itemsize for shape, kind in arrays) // host[1]
    inputs = validation_inputs(rows)
    require_host_room(f"--eval-batches {config.eval_batches}", len(inputs) * count * each)
    found: dict[str, list[HostBatch]] = {}
    for name, of_source in inputs.items():
        try:
            size = _validation_size(of_source)
            found[name] = list(validation_batches(rows, count, host, name))
        except ValueError as error:  # no such pages, or too few
            if config.eval_every is not None:
                raise
            say(f"no evaluation: {error}")
            continue
        say(f"validation: {size}" if len(inputs) == 1 else f"validation: {name}, {size}")
    if not inputs:
        line = "no evaluation: the tasks have no validation split"
        if config.eval_every is not None:
            raise ValueError(f"{line} (--eval-every)")
        say(line)
    return found


def _validation_size(data: InputConfig) -> str:
    """Return how much an input of evaluation has."""
    if C4 in data.rates:
        number, what = data.open().page_count, "page"
    else:
        (task,) = data.tasks
        number, what = task.open().pair_counts[task.split], "example"
    few = ": too few to trust its loss" if number < _FEW_EXAMPLES else ""
    return f"{number:,} {what}{'s'[: number != 1]}{few}"


def _evaluate(
    eval_step: Callable[[Any, Any], LossSums],
    batches: Mapping[str, list[HostBatch]],
    rows: int,
    placement: Placement,
    params: Any,
) -> dict[str, LossSums]:
    """Return the sums over the validation batches of each source, fetched."""
    sums = {
        name: [
            eval_step(params, distributed.global_batch(placement.batch, batch, rows))
            for batch in of_source
        ]
        for name, of_source in batches.items()
    }
    return {
        name: LossSums(*(sum(float(part) for part in parts) for parts in zip(*each, strict=True)))  # type: ignore[arg-type]
        for name, each in jax.device_get(sums).items()
    }


def _gathered(state: dict[str, Any]) -> dict[str, Any]:
    """Return the input's position on all hosts, merged."""
    if jax.process_count() == 1:
        return merged_states([state])
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    longest = int(np.max(multihost_utils.process_allgather(np.int32(len(text)))))
    padded = np.zeros(longest, np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return merged_states([json.loads(bytes(row).rstrip(b"\0")) for row in rows])
