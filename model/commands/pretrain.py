"""``c4 pretrain``: checks what is asked for, says what it comes to, trains."""

import argparse
import contextlib
import functools
import logging
import os
import textwrap
from collections.abc import Sequence
from typing import Any

from model.commands.cpu_defaults import CPU_DEFAULTS, apply_cpu_defaults
from model.commands.pretrain_config import Start, model_of, objective_of, step_of, train_config
from model.data.objectives import OBJECTIVES
from model.t5.config import ARCHITECTURES, SIZES

__all__ = ["add_arguments", "model_of", "objective_of", "run", "step_of"]


class _Given(argparse.Action):
    """Store a value, and note that the option was given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        del parser, option_string
        setattr(namespace, self.dest, values)
        namespace.given = {*getattr(namespace, "given", ()), self.dest}


def _on_cpu(name: str) -> str:
    """Return what the help says of an option's other default."""
    return f"; on a CPU {CPU_DEFAULTS[name]}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 pretrain``."""
    parser.epilog = textwrap.dedent(
        """\
        The same command run again goes on from the newest checkpoint in --out. Then --steps,
        --mesh, --accumulate, --remat, --attention, --workers and what is logged or kept may be
        others; anything else is refused. A folder without a finished step takes any settings.

        Without an accelerator, and without any of --size, --set, --architecture, --init-from,
        --batch-size, --input-length and --accumulate, the defaults "on a CPU" below hold. They make
        a run of some minutes; the paper's is --size base --batch-size 128 --input-length 512. A run
        keeps the defaults that it was begun with.

        exit status: 0 done; 1 failed, refused, or stopped because the loss is no number or
        diverges; 2 wrong usage; 130 interrupted (SIGINT or SIGTERM: the state was saved, unless
        it came before the first step)
        """
    )
    parser.add_argument("--corpus", metavar="DIR", help="a finished corpus of c4 build")
    parser.add_argument("--vocab", metavar="FILE", help="SentencePiece model, as c4 vocab makes it")
    parser.add_argument(
        "--out", "--output", dest="out", metavar="DIR", help="folder of the run, new or begun"
    )

    group = parser.add_argument_group("model")
    group.add_argument(
        "--size", action=_Given, metavar="NAME",
        help=f"one of {', '.join(SIZES)} (default: small{_on_cpu('size')})",
    )  # fmt: skip
    group.add_argument(
        "--architecture",
        metavar="NAME",
        help=f"one of {', '.join(ARCHITECTURES)} (default: encoder-decoder)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value of the size, such as d_model=64 or num_layers=2; may be repeated",
    )
    group.add_argument(
        "--init-from",
        metavar="CKPT",
        help="begin with the parameters of a folder of c4 import-hf or of another run, and its "
        "vocabulary unless --vocab is given",
    )
    group.add_argument("--dropout", type=float, metavar="RATE", help="default: that of the size")
    group.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="of activations (default: bfloat16 on TPUs and GPUs, float32 on CPUs)",
    )
    group.add_argument(
        "--remat",
        choices=["none", "dots", "full"],
        default="none",
        help="what the backward pass computes again to save memory (default: none)",
    )
    group.add_argument(
        "--attention", choices=["auto", "plain", "fused"], default="auto",
        help="its kernel (default: auto, fused where the device has one)",
    )  # fmt: skip

    group = parser.add_argument_group("objective")
    group.add_argument(
        "--objective",
        default="span3",
        metavar="NAME",
        help=f"one of {', '.join(OBJECTIVES)} (default: span3)",
    )
    group.add_argument(
        "--noise-density", type=float, metavar="SHARE", help="of tokens that are noise"
    )
    group.add_argument(
        "--batch-size", action=_Given, type=int, default=128, metavar="N",
        help=f"sequences per step, on all devices together (default: 128{_on_cpu('batch_size')})",
    )  # fmt: skip
    group.add_argument(
        "--input-length", action=_Given, type=int, default=512, metavar="N",
        help="tokens of the inputs; the objective solves the targets' (default: 512"
        f"{_on_cpu('input_length')})",
    )  # fmt: skip
    group.add_argument(
        "--max-pages", type=int, metavar="N",
        help="train on the first N pages only, again and again",
    )  # fmt: skip
    group.add_argument(
        "--format",
        choices=["parquet", "tfrecord", "json"],
        help="shards to read, if there are several",
    )

    group = parser.add_argument_group("training")
    group.add_argument(
        "--steps", action=_Given, type=int, default=2**19, metavar="N",
        help=f"default: 524288, the paper's{_on_cpu('steps')}",
    )  # fmt: skip
    group.add_argument(
        "--accumulate", action=_Given, type=int, default=1, metavar="N",
        help="take a batch in N parts, one after another, to save memory (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--learning-rate-schedule", default="inverse-square-root", metavar="NAME",
        help="inverse-square-root (default) or constant",
    )  # fmt: skip
    group.add_argument(
        "--learning-rate", type=float, metavar="RATE",
        help="the schedule's scale (default: 1 of inverse-square-root, 0.001 of constant)",
    )  # fmt: skip
    group.add_argument(
        "--warmup", action=_Given, type=int, default=10_000, metavar="N",
        help=f"steps at the first learning rate, 1/sqrt(N) (default: 10000{_on_cpu('warmup')})",
    )  # fmt: skip
    group.add_argument(
        "--z-loss", type=float, default=1e-4, metavar="FACTOR", help="default: 0.0001"
    )
    group.add_argument(
        "--label-smoothing", type=float, default=0.0, metavar="SHARE", help="default: 0"
    )
    group.add_argument(
        "--loss-divisor",
        default="batch-length",
        choices=["batch-length", "tokens", "sum"],
        help="what the losses' sum is divided by: sequences times target length (default), target "
        "tokens, or nothing",
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")

    group = parser.add_argument_group("checkpoints, evaluation, metrics")
    group.add_argument(
        "--checkpoint-every", action=_Given, type=int, default=5000, metavar="N",
        help=f"steps (default: 5000{_on_cpu('checkpoint_every')})",
    )  # fmt: skip
    group.add_argument(
        "--keep-last", type=int, default=3, metavar="N", help="newest to keep (default: 3)"
    )
    group.add_argument(
        "--keep-every", type=int, metavar="N",
        help="also keep those whose step is a multiple of N",
    )  # fmt: skip
    group.add_argument(
        "--eval-every", type=int, metavar="N",
        help="steps between evaluations on the validation split, 0 for none (default: as "
        "--checkpoint-every, where there are validation pages)",
    )  # fmt: skip
    group.add_argument(
        "--eval-batches", type=int, default=16, metavar="N",
        help="batches of an evaluation (default: 16)",
    )  # fmt: skip
    group.add_argument(
        "--divergence", type=float, default=2.0, metavar="NATS",
        help="stop when the mean of 100 losses rises that far above its best (default: 2)",
    )  # fmt: skip
    group.add_argument(
        "--log-every", type=int, metavar="N",
        help="steps to a line of the log and a point of a curve, if 30 seconds do not pass before; "
        "metrics.jsonl has every step (default: 100, or a fiftieth of --steps if that is less)",
    )  # fmt: skip
    group.add_argument(
        "--peak-tflops", type=float, metavar="N",
        help="of one device, for model FLOP utilisation (default: known for TPUs and many GPUs)",
    )  # fmt: skip
    group.add_argument(
        "--profile", type=int, default=0, metavar="N",
        help="trace N steps with JAX's profiler into OUT/profile",
    )  # fmt: skip
    group.add_argument(
        "--report-to", action="append", metavar="NAMES",
        help="where curves go: tensorboard (default), wandb (the extra wandb), both with a comma "
        "between, or none; may be repeated",
    )  # fmt: skip
    group.add_argument("--quiet", action="store_true", help="no progress")

    group = parser.add_argument_group("devices")
    group.add_argument(
        "--mesh", default="auto", metavar="AXES",
        help="data=2,fsdp=4,tensor=1, any of the three, -1 for what is left; default: auto",
    )  # fmt: skip
    group.add_argument(
        "--workers", type=int, metavar="N",
        help="processes that prepare the input, 0 for none (default: half the cores, at most 8)",
    )  # fmt: skip
    group.add_argument(
        "--input-shards", type=int, metavar="N",
        help="parts of the corpus read side by side, a multiple of the hosts that a run may ever "
        "have (default: as many as hosts)",
    )  # fmt: skip
    group.add_argument(
        "--compile-only", metavar="TOPOLOGY",
        help="compile the step for a TPU pod such as v3:32x32 on this machine and say whether it "
        "fits and what it takes; reads no corpus",
    )  # fmt: skip
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything that can be checked, compile the steps to see whether they fit, "
        "print what would be trained, train nothing",
    )
    group = parser.add_argument_group(
        "several processes", "Not needed on TPU pods, nor under srun or mpirun: they are found."
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process-id", type=int, metavar="K", help="number of this one, from 0")


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Train as the options say. Returns the exit status."""
    del rest
    # None for callers from Python, who handle signals themselves.
    interruption = getattr(arguments, "interruption", None)
    if arguments.compile_only is not None:
        from model.pods import compile_step

        status: int = compile_step.run(arguments)
        return status
    for name in ("corpus", "out"):
        if getattr(arguments, name) is None:
            raise ValueError(
                f"--{name} is missing: c4 pretrain --corpus DIR --vocab FILE --out DIR"
            )
    for name in ("corpus", "out", "vocab", "init_from", "size", "architecture"):
        if getattr(arguments, name) == "":
            raise ValueError(f"--{name.replace('_', '-')} is empty")
    noise = objective_of(arguments)
    if interruption is not None:
        interruption.expect("c4: interrupted before the first step: nothing was saved", 0.8)
    _announce(arguments, "starting JAX and looking at devices, corpus and vocabulary")
    start = Start.of(arguments)
    if not os.environ.get("C4_TRACEBACK"):
        # Orbax logs the traceback of what it raises, asyncio that of what failed beside it; a
        # failure is told once, in a line.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)

    # Before anything asks JAX for devices.
    from model.devices import pass_over_absent_tpus
    from model.training import distributed

    pass_over_absent_tpus()

    distributed.initialize(
        distributed.Cluster(
            coordinator=arguments.coordinator,
            processes=arguments.processes,
            process_id=arguments.process_id,
        )
    )
    try:
        apply_cpu_defaults(arguments, functools.partial(_announce, arguments))
        config = train_config(arguments, noise, start)
        from model.commands.pretrain_plan import check_sentinels, print_plan
        from model.training import trainer

        check_sentinels(config.data)
        if arguments.dry_run:
            trainer.check(config, functools.partial(print_plan, config))
        else:
            trainer.train(config, interruption)
        return 0
    finally:
        distributed.shutdown()


#: Where launchers tell a process its number.
_RANKS = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK")


def _announce(arguments: argparse.Namespace, line: str) -> None:
    """Print a line before the run has a terminal of its own, in the first process."""
    if arguments.quiet or arguments.process_id:
        return
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        return
    with contextlib.suppress(OSError):  # a log that nobody reads ends no training
        print(line, flush=True)
