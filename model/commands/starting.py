"""What commands that use devices do first and last."""

import argparse
import contextlib
import logging
import os
from collections.abc import Iterator

from model.training.processes import Processes
from pipelines.options import add_options, given_values


def report_failures_once() -> None:
    """Let libraries log no failures: a command reports each in a line.

    Orbax logs the traceback of what it raises, asyncio that of what failed beside it. Changes
    nothing where C4_TRACEBACK asks for tracebacks.
    """
    if not os.environ.get("C4_TRACEBACK"):
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which processes work together."""
    group = parser.add_argument_group(
        "several processes",
        "Not needed on TPU pods or under srun or mpirun, where they are detected.",
    )
    add_options(group, Processes)


@contextlib.contextmanager
def joined_processes(arguments: argparse.Namespace) -> Iterator[None]:
    """Join the other processes that the options name, and leave them at the end.

    To be entered before anything asks JAX for devices. Raises ValueError as
    `model.training.distributed.initialize` does.
    """
    from model.devices import pass_over_absent_tpus
    from model.training import distributed

    pass_over_absent_tpus()
    distributed.initialize(Processes(**given_values(arguments, Processes)))
    try:
        yield
    finally:
        distributed.shutdown()
