"""``c4 evaluate``: score a trained model on tasks, beside the paper's scores."""

import argparse
import os
import pathlib
from collections.abc import Sequence

from model.commands.starting import add_process_options, joined_processes, report_failures_once
from model.evaluation.evaluate import EvaluateConfig, evaluate, write_submissions
from model.evaluation.report import example_lines
from model.small_files import write_json
from pipelines import storage
from pipelines.options import add_options, given_values, refuse_empty

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 evaluate``."""
    parser.epilog = (
        "Tasks whose data are not in --data are listed and do not fail the others.\n\n"
        "  c4 evaluate --from run --task all --data data\n"
        "  c4 evaluate --from run --task glue_cola,squad --data data --show 5\n"
        "  c4 evaluate --from run --task glue --data data --split test --submission upload\n\n"
        "exit status: 0 at least one task was evaluated; 1 none was, or it failed; 2 wrong usage"
    )
    add_options(parser, EvaluateConfig, "source", "tasks", "data", "split", "limit")
    group = parser.add_argument_group("decoding")
    add_options(
        group, EvaluateConfig, "beams", "length_penalty", "sample", "temperature", "top_p", "seed",
        "max_new_tokens", "batch_size", "input_length",
    )  # fmt: skip
    group = parser.add_argument_group("report")
    add_options(group, EvaluateConfig, "against", "resamples", "form")
    group.add_argument(
        "--show",
        metavar="N",
        type=int,
        default=0,
        help="print N examples of each set: inputs, target, prediction; wrong ones first",
    )
    group.add_argument("--json", metavar="FILE", help="write the report as JSON, too")
    group.add_argument(
        "--submission",
        metavar="DIR",
        help="with --split test: write the files for the servers of GLUE and SuperGLUE; an "
        "invalid prediction becomes the most frequent label",
    )
    add_process_options(parser)


def _require_writable(report: str | None, submission: str | None) -> None:
    """Raise ValueError for what could not be written when all is predicted, which takes long."""
    for option, name in (("--json", report), ("--submission", submission)):
        if name is not None and not storage.is_local(name):
            raise ValueError(f"{name}: c4 evaluate writes to this machine ({option})")
    if report is not None:
        path = pathlib.Path(report)
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name a file (--json)")
        if not path.parent.is_dir():
            raise ValueError(f"{path.parent}: no such folder (--json)")
    if submission is not None and os.path.lexists(submission) and not os.path.isdir(submission):
        raise ValueError(f"{submission} is not a folder (--submission)")


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Evaluate as the options say. Returns the exit status."""
    del rest
    refuse_empty(arguments)
    config = EvaluateConfig(**given_values(arguments, EvaluateConfig))
    if arguments.show < 0:
        raise ValueError(f"--show must be at least 0, got {arguments.show}")
    if arguments.submission is not None and config.split != "test":
        raise ValueError("--submission needs the test sets: give --split test")
    if arguments.submission is not None and config.limit is not None:
        raise ValueError("--submission is of whole test sets: leave --limit out")
    _require_writable(arguments.json, arguments.submission)
    report_failures_once()
    with joined_processes(arguments):
        from model.training import distributed

        report = evaluate(config, progress=distributed.print_first)
        if not distributed.is_first():
            return 0
        print()
        print(*report.lines(), sep="\n")
        for found in report.scores:
            if arguments.show:
                print()
                print(*example_lines(found, arguments.show), sep="\n")
        if arguments.json is not None:
            write_json(pathlib.Path(arguments.json), report.json())
        if arguments.submission is not None:
            for written in write_submissions(config, report, arguments.submission):
                replaced = f", {written.replaced:,} invalid ones became {written.majority}"
                print(
                    f"{written.path}: {written.examples:,} predictions"
                    f"{replaced if written.replaced else ''}"
                )
        return 0
