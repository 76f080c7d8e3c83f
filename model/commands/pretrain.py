"""``c4 pretrain``: check the options, print the plan, train."""

import argparse
import contextlib
import dataclasses
import functools
import os

from model.commands.cpu_defaults import apply_cpu_defaults
from model.commands.mixture_options import MixtureOptions
from model.commands.pretrain_config import ModelOptions, Start, objective_of, train_config
from model.commands.starting import add_process_options, joined_processes, report_failures_once
from model.data.input_config import InputConfig
from model.data.objectives import Objective
from model.t5.config import ModelConfig
from model.training.train_config import StepConfig, TrainConfig
from pipelines.options import add_options, given_values, option, refuse_empty
from pipelines.printing import print_lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Instead:
    """What to do instead of training."""

    compile_only: str | None = option(
        "compile the step for a TPU pod such as v3:32x32 on this machine and say whether it fits "
        "and what it takes; reads no corpus",
        default=None, metavar="TOPOLOGY",
    )  # fmt: skip
    dry_run: bool = option(
        "check the options and the corpus, compile the steps to see whether they fit, print what "
        "would be trained, and train nothing",
        default=False,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 pretrain``."""
    parser.epilog = """
        Run the same command again to resume from the newest checkpoint in --out. You may then
        change --steps, --mesh, --accumulate, --remat, --attention, --workers and the options about
        logs and kept checkpoints; any other change is refused. A folder without a finished step
        takes any settings.

        Without an accelerator, and without any of --size, --set, --architecture, --init-from,
        --batch-size, --input-length and --accumulate, the defaults marked "on a CPU" apply. They
        make a run of some minutes; the paper's is --size base --batch-size 128 --input-length 512.
        A resumed run keeps the defaults that it was begun with.

        exit status: 0 done; 1 failed, refused, or stopped because the loss is NaN or
        diverges; 2 wrong usage; 130 interrupted (SIGINT or SIGTERM: the state was saved, unless
        it came before the first step)
    """
    add_options(parser, InputConfig, "corpus", "vocabulary")
    add_options(parser, TrainConfig, "out")

    group = parser.add_argument_group("model")
    add_options(group, ModelOptions)
    add_options(group, TrainConfig, "init_from", "optimizer_state")
    add_options(group, ModelConfig)

    group = parser.add_argument_group("objective")
    add_options(group, InputConfig, "objective")
    add_options(group, Objective)
    add_options(group, InputConfig, "batch_size", "input_length", "target_length")
    add_options(group, InputConfig, "max_pages", "format")

    group = parser.add_argument_group(
        "tasks",
        "With --corpus, its objective is mixed with the tasks; without, only tasks are trained on.",
    )
    add_options(group, MixtureOptions)

    group = parser.add_argument_group("training")
    add_options(group, TrainConfig, "steps")
    add_options(group, StepConfig, "accumulate")
    add_options(
        group, TrainConfig, "schedule", "learning_rate", "warmup", "schedule_offset", "cooldown"
    )
    add_options(group, StepConfig, "z_loss", "label_smoothing", "loss_divisor")
    add_options(group, InputConfig, "seed")

    group = parser.add_argument_group("checkpoints, evaluation, metrics")
    add_options(
        group, TrainConfig, "checkpoint_every", "keep_last", "keep_every", "eval_every",
        "eval_batches", "divergence", "log_every", "peak_flops", "profile_steps", "report_to",
        "quiet",
    )  # fmt: skip

    group = parser.add_argument_group("devices")
    add_options(group, TrainConfig, "mesh")
    add_options(group, InputConfig, "workers", "input_shards")
    add_options(group, _Instead)
    add_process_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train as the options say. Returns the exit status."""
    # None for callers from Python, who handle signals themselves.
    interruption = getattr(arguments, "interruption", None)
    instead = _Instead(**given_values(arguments, _Instead))
    if instead.compile_only is not None:
        from model.commands import compile_only

        return compile_only.run(arguments)
    for name in ("corpus", "out"):
        if not hasattr(arguments, name) and not (name == "corpus" and hasattr(arguments, "tasks")):
            raise ValueError(
                f"--{name} is missing: c4 pretrain --corpus DIR --vocab FILE --out DIR"
            )
    refuse_empty(arguments)
    noise = objective_of(arguments)
    if interruption is not None:
        interruption.expect("c4: interrupted before the first step: nothing was saved", 0.8)
    _announce(arguments, "starting JAX and looking at devices, corpus and vocabulary")
    start = Start.of(arguments)
    report_failures_once()
    with joined_processes(arguments):
        apply_cpu_defaults(arguments, functools.partial(_announce, arguments))
        config = train_config(arguments, noise, start)
        from model.commands.pretrain_plan import check_sentinels, print_plan
        from model.training import trainer

        check_sentinels(config.data)
        if instead.dry_run:
            trainer.check(config, functools.partial(print_plan, config))
        else:
            trainer.train(config, interruption)
        return 0


#: Where launchers tell a process its number.
_RANKS = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK")


def _announce(arguments: argparse.Namespace, line: str) -> None:
    """Print a line before the run has a terminal of its own, in the first process."""
    if hasattr(arguments, "quiet") or getattr(arguments, "process_id", None):
        return
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        return
    with contextlib.suppress(OSError):  # a log that nobody reads ends no training
        print_lines(line, flush=True)
