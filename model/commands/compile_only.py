"""``c4 pretrain --compile-only``: compile the step for a TPU pod, and report."""

import argparse

from model.commands.pretrain_config import model_of, objective_of, step_of
from model.data.input_config import InputConfig
from model.data.vocabulary import Vocabulary
from model.pods.compile_step import StepPlan, compile_step, report_lines
from model.pods.topologies import parse_topology
from model.training.train_config import TrainConfig
from pipelines.printing import print_lines, print_note


def run(arguments: argparse.Namespace) -> int:
    """Do ``c4 pretrain --compile-only``. Returns the exit status.

    Raises ValueError for what cannot be compiled or does not fit.
    """
    topology = parse_topology(arguments.compile_only)
    if hasattr(arguments, "init_from"):
        raise ValueError("--compile-only takes the model from --size: leave --init-from out")
    vocab_size = None
    if hasattr(arguments, "vocab"):
        vocab_size = Vocabulary(arguments.vocab).padded_size
    config = model_of(arguments, vocab_size)
    # Without an encoder one sequence holds both, with a separator of one token between.
    lengths = objective_of(arguments).lengths(
        getattr(arguments, "input_length", InputConfig.input_length),
        None if config.has_encoder else 1,
    )
    plan = StepPlan(
        topology=topology,
        config=config,
        batch=lengths.batch_spec(getattr(arguments, "batch_size", InputConfig.batch_size)),
        step=step_of(arguments, "rbg"),
        mesh=getattr(arguments, "mesh", TrainConfig.mesh),
    )
    parameters = f"{config.parameter_count():,} parameters on {topology}"
    report = compile_step(plan, lambda line: print_note(f"{parameters}: {line}"))
    for line in report_lines(report):
        print_lines(line, flush=True)
    return 0
