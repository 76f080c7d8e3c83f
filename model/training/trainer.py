"""Training, from the start or resumed: the loop and everything around it.

A run starts in one of three ways:

1. new, with parameters drawn from the seed;
2. new, with the parameters of another checkpoint (``init_from``), and perhaps its statistics of the
   optimizer and its step;
3. resumed from the newest whole checkpoint in its folder; this takes precedence over the others.

The third continues as if nothing had happened: parameters, optimizer state, place in the data and
dropout's masks are functions of the checkpoint and the settings. On CPUs losses are then those of
a run that was never stopped, bit for bit.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax

from model.data.device_batches import DeviceBatches
from model.data.input_config import InputConfig
from model.data.input_pipeline import make_input, merged_states
from model.data.passes import input_size
from model.training import distributed
from model.training.compile_cache import compile_cache
from model.training.evaluations import Evaluation, Evaluator, read_validation, validation_loss
from model.training.memory import one_line_of_memory, what_needs_less
from model.training.metrics import DivergenceGuard
from model.training.profiler import Profiler
from model.training.programs import (
    Placement,
    TrainProgram,
    compile_programs,
    new_state,
    plan_placement,
)
from model.training.records import Records
from model.training.remote_checkpoints import open_checkpoints
from model.training.reports import require_installed
from model.training.run_folder import RunFolder
from model.training.start import first_step, start_notes
from model.training.stop_signal import StopSignal, interruptible
from model.training.train_config import TrainConfig
from model.training.train_step import StepMetrics, TrainState


class Plan(NamedTuple):
    """What of a run is known before anything is read or written."""

    config: TrainConfig  #: with its first step decided
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


#: For whatever a run is doing before its first step, when there is nothing to save.
PATIENCE_S = 0.8


def check(config: TrainConfig, describe: Callable[[Placement, InputConfig], None]) -> None:
    """Find what would keep a run from beginning or resuming; write nothing, train nothing.

    Args:
      config: the run.
      describe: called when all but the memory was checked, before the steps are compiled.

    Raises ValueError as :func:`train` does.
    """
    with one_line_of_memory(lambda: what_needs_less(config)):
        plan = _plan(config)
        make_input(dataclasses.replace(plan.data, workers=0), plan.host).close()
        validation = read_validation(plan.config, plan.data, plan.host, distributed.print_first)
        describe(plan.placement, plan.data)
        if plan.folder.begun_with() is None:
            for line in start_notes(plan.config):
                distributed.print_first(line)
        compile_programs(
            plan.config, plan.placement, trains=True, evaluates=bool(validation),
            say=distributed.print_first,
        )  # fmt: skip


def train(
    config: TrainConfig,
    interruption: Interruption | None = None,
    evaluators: Callable[[Plan], Sequence[Evaluator]] | None = None,
    notes: Sequence[str] = (),
    more_settings: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Train until ``config.steps`` steps are done.

    The caller initialises ``jax.distributed`` where there are several processes; each calls this
    with the same configuration.

    Args:
      config: the run.
      interruption: says whether a signal to stop came before this could listen for one, and is
        told what an interrupt leaves.
      evaluators: returns what is evaluated besides the loss, when the run's folder is there.
      notes: lines to say of the run before it begins.
      more_settings: what besides the configuration must stay the same when the run is resumed, by
        the names of options with underscores.

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
    with one_line_of_memory(lambda: what_needs_less(config)), contextlib.ExitStack() as stack:
        run = _Run(_plan(config, more_settings), interruption, stack)
        run.open(notes, evaluators)
        if run.is_done():
            return
        run.prepare()
        run.train()


class _Run:
    """One start of a run: opened, prepared, trained; each once, in this order."""

    def __init__(
        self, plan: Plan, interruption: Interruption | None, stack: contextlib.ExitStack
    ) -> None:
        self._plan, self._config, self._folder = plan, plan.config, plan.folder
        self._interruption, self._stack = interruption, stack
        self._evaluators: list[Evaluator] = []
        self._train_step: TrainProgram | None = None
        self._state: TrainState

    def open(
        self, notes: Sequence[str], evaluators: Callable[[Plan], Sequence[Evaluator]] | None
    ) -> None:
        """Claim the folder, open what is read and written, and say what will be trained."""
        plan, config, folder, stack = self._plan, self._config, self._folder, self._stack
        distributed.require_agreement("settings", json.dumps(plan.settings, sort_keys=True))
        if distributed.is_first():
            stack.enter_context(folder.locked())
        else:
            folder.fetch()
        # What is read comes first: a corpus that cannot be read leaves no folder behind.
        self._batches = DeviceBatches(
            make_input(plan.data, plan.host), plan.data.batch_spec(), plan.placement.batch
        )
        stack.callback(self._batches.close)
        lines = list(notes)
        self._validation = read_validation(config, plan.data, plan.host, lines.append)
        lines += self._begin_folder()
        if evaluators is not None and config.eval_every != 0:
            self._evaluators += evaluators(plan)
        self._checkpoints = open_checkpoints(folder, config.keep_last, config.keep_every)
        stack.callback(self._checkpoints.close)
        self._guard = DivergenceGuard(config.divergence)
        self._done = self._checkpoints.newest() or 0
        good = f"the checkpoint of step {self._done} is still good"
        self._expect(
            f"before the first step: {good if self._done else 'nothing was saved'}", PATIENCE_S
        )
        self._records = stack.enter_context(
            Records(plan, self._guard, self._checkpoints, self._done)
        )
        if not self._done:
            lines += start_notes(config)
        size = input_size(plan.data, plan.data.input_shards or 1)
        self._records.introduce()
        for line in (*size.lines(config.steps * plan.data.batch_size), size.mixture(), *lines):
            if line:
                self._records.say(line)

    def _begin_folder(self) -> list[str]:
        """Write the records of the run, in its first process; return what to say of it."""
        lines, config, data = [], self._config, self._plan.data
        if distributed.is_first():
            vocabulary = getattr(data.vocabulary, "path", None)
            if self._folder.begin(self._plan.settings, config.model, vocabulary, config.defaults):
                lines.append(
                    "note: this folder had other settings and no finished step: replacing them"
                )
        distributed.barrier("run folder")
        return lines

    def is_done(self) -> bool:
        """Return whether there is nothing to do, and say so."""
        # Stopped between a checkpoint and its evaluation.
        self._missed = bool(
            self._done and self._evaluates_after(self._done)
        ) and not self._records.evaluated(self._done)
        if self._done < self._config.steps or self._missed:
            return False
        self._records.say(f"step {self._done} is already done: give a larger --steps to continue")
        return True

    def _evaluates_after(self, step: int) -> bool:
        every = self._config.eval_every
        every = self._config.checkpoint_every if every is None else every
        measures = self._evaluators or self._validation
        return bool(measures and every) and (step % every == 0 or step == self._config.steps)

    def prepare(self) -> None:
        """Compile the programs, then make or read the state, and do an evaluation left undone."""
        config, placement, say = self._config, self._plan.placement, self._records.say
        came_before = self._interruption.asked if self._interruption else lambda: False
        self._stop = self._stack.enter_context(StopSignal(say, came_before))
        # Programs before the arrays that they need. The input comes ahead meanwhile.
        trains = self._done < config.steps
        if trains and not self._done:
            self._batches.start()
        with compile_cache(self._folder.path):
            self._train_step, eval_step = compile_programs(
                config, placement, trains=trains, evaluates=bool(self._validation), say=say
            )
        if eval_step is not None:
            rows = config.evaluation_rows(self._plan.data).batch_size
            loss = validation_loss(eval_step, self._validation, rows, placement)
            self._evaluators.insert(0, loss)
        if self._done:
            self._restore()
            if trains:
                self._batches.start()
        else:
            self._state = interruptible(lambda: new_state(config, placement))
        if self._missed:
            self._evaluate(self._done)

    def _restore(self) -> None:
        done, first = self._done, self._config.first_step
        self._state, progress = self._checkpoints.restore(done, self._plan.placement.state, first)
        self._check_cooldown(progress)
        self._batches.set_state(progress["input"])
        self._guard.set_state(progress["guard"])

    def _check_cooldown(self, progress: Mapping[str, Any]) -> None:
        """Raise ValueError if steps that are done would have had another learning rate."""
        before, now = progress.get("cooldown", [0, 0]), self._cooldown()
        for steps, end in (before, now):
            if before != now and steps and self._done > end - steps:
                raise ValueError(
                    f"{self._folder.where}: step {self._done} is done, and with --cooldown "
                    f"{now[0]} --steps {now[1]} it would have had another learning rate than with "
                    f"--cooldown {before[0]} --steps {before[1]}: give a larger --steps, or begin "
                    "another run (--init-from, --optimizer-state keep)"
                )

    def _cooldown(self) -> list[int]:
        return [self._config.cooldown, self._config.steps if self._config.cooldown else 0]

    def train(self) -> None:
        """Do the steps. Raises KeyboardInterrupt after a signal, when the state is saved."""
        if self._train_step is None:
            self._stop.now_if_asked()
            self._records.finish()
            return
        config, records = self._config, self._records
        profiler = self._stack.enter_context(Profiler(self._folder.profile, config.profile_steps))
        self._kept = self._done  # the newest checkpoint
        self._expect_at(self._done)
        self._stop.begin_steps()
        records.start_clock()
        # A step runs on the devices while the one before it is looked at; where something is to be
        # kept, the step itself is looked at first.
        running: tuple[int, StepMetrics, float] | None = None
        for step in range(self._done + 1, config.steps + 1):
            profiler.step(step - self._done)
            batch, epoch = self._next_batch(step, running)
            self._state, metrics = self._train_step(self._state, batch)
            if running is not None:
                records.write_step(*running)
            running = step, metrics, epoch
            if self._named != self._kept and self._checkpoints.is_saved(self._kept):
                self._expect_at(self._kept)
            stopping = self._stop.asked_for(step)
            saving = stopping or step == config.steps or step % config.checkpoint_every == 0
            evaluating = self._evaluates_after(step)
            if not (saving or evaluating):
                continue
            records.write_step(*running)
            running = None
            if saving:
                self._keep(step)
            if stopping:
                records.say(f"stopping after step {step}: saving")
                self._checkpoints.wait()
                self._expect_at(step)
                raise KeyboardInterrupt
            if evaluating:
                self._evaluate(step)
            records.start_clock()
        self._checkpoints.wait()
        self._expect("after the last step: its checkpoint is good")
        records.finish()

    def _next_batch(
        self, step: int, running: tuple[int, StepMetrics, float] | None
    ) -> tuple[Any, float]:
        """Return the batch of a step, and how often the data has been read with it.

        If the input fails, the steps before it are saved. ``running`` is the step whose metrics
        are not written yet.
        """
        try:
            batch = self._records.waiting(self._batches)
        except Exception:
            if running is not None:
                self._records.write_step(*running)
            # Other processes know nothing of it.
            if step - 1 > self._kept and jax.process_count() == 1:
                self._records.say(f"no input for step {step}: saving")
                self._keep(step - 1)
                self._checkpoints.wait()
            raise
        return batch, self._batches.epoch()

    def _keep(self, step: int) -> None:
        """Begin to save the state after a step."""
        self._records.flush()  # metrics up to a checkpoint are on disk before it is
        here = self._batches.get_state()
        progress = {
            "input": merged_states(
                [json.loads(text) for text in distributed.gathered(json.dumps(here))]
            ),
            "guard": self._guard.get_state(),
            "cooldown": self._cooldown(),
        }
        self._checkpoints.save(step, self._state, progress)
        self._expect_at(self._kept)  # which is whole now
        self._kept = step

    def _expect_at(self, step: int) -> None:
        """Name a checkpoint, the newest that is whole, if an interrupt comes."""
        self._named = step
        again = f"run the same command again to resume from the checkpoint of step {step}"
        self._expect(f"in training: {again if step else 'no checkpoint was written yet'}")

    def _expect(self, line: str, patience_s: float | None = None) -> None:
        """Say this line if an interrupt ends the process; see :class:`Interruption`."""
        if self._interruption is not None:
            alone = jax.process_count() == 1  # the others have to be told, which takes a step
            self._interruption.expect(f"c4: interrupted {line}", patience_s if alone else None)

    def _evaluate(self, step: int) -> None:
        """Evaluate the state after a step, and record what was found."""
        with compile_cache(self._folder.path):
            found: list[Evaluation] = []
            values: dict[str, float] = {}
            for evaluate in self._evaluators:
                found.append(evaluate(step, self._state.params, values))
                values |= found[-1].values
        self._records.write_evaluation(step, found)


def _plan(config: TrainConfig, more_settings: Mapping[str, Any] = MappingProxyType({})) -> Plan:
    require_installed(config.report_to)
    folder = RunFolder(config.out, config.option_names)
    config = dataclasses.replace(config, first_step=first_step(config, folder.begun_with()))
    placement = plan_placement(config)
    host = distributed.input_part(placement.batch, config.data.batch_size)
    input_shards = _input_shards(config.data.input_shards, folder, host[1])
    data = dataclasses.replace(config.data, input_shards=input_shards)
    settings = {**config.settings(data), **more_settings}
    folder.check(settings)
    return Plan(config, folder, placement, data, host, settings)


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
