"""``c4 evaluate``: score a trained model on tasks, beside the paper's scores."""

import argparse
import dataclasses
import os
import pathlib

from model.commands.starting import add_process_options, joined_processes, report_failures_once
from model.evaluation.evaluate import EvaluateConfig, evaluate, write_submissions
from model.evaluation.report import example_lines
from model.small_files import write_json
from pipelines import storage
from pipelines.options import add_options, check_bounds, given_values, option, refuse_empty
from pipelines.printing import print_lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shown:
    """What is shown and written besides the table."""

    show: int = option(
        "print N examples of each set: inputs, target, prediction; wrong ones first",
        default=0, metavar="N", least=0,
    )  # fmt: skip
    json: str | None = option("write the report as JSON, too", default=None, metavar="FILE")
    submission: str | None = option(
        "with --split test: write the files for the servers of GLUE and SuperGLUE; an invalid "
        "prediction becomes the most frequent label",
        default=None, metavar="DIR",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Raise ValueError for what could not be written when all is predicted, hours later."""
        check_bounds(self)
        if self.json is not None and storage.is_local(self.json):
            path = pathlib.Path(storage.local_path(self.json))
            if path.is_dir():
                raise ValueError(f"{path} is a folder: name a file (--json)")
            if not path.parent.is_dir():
                raise ValueError(f"{path.parent}: no such folder (--json)")
        if self.submission is not None and storage.is_local(self.submission):
            folder = storage.local_path(self.submission)
            if os.path.lexists(folder) and not os.path.isdir(folder):
                raise ValueError(f"{folder} is not a folder (--submission)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 evaluate``."""
    parser.epilog = (
        "Tasks whose data are not in --data are listed and do not fail the others.\n\n"
        "  c4 evaluate --from run --task all --data data\n"
        "  c4 evaluate --from run --task glue_cola,squad --data data --show 5\n"
        "  c4 evaluate --from run --task glue --data data --split test --submission out\n\n"
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
    add_options(group, _Shown)
    add_process_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate as the options say. Returns the exit status."""
    refuse_empty(arguments)
    config = EvaluateConfig(**given_values(arguments, EvaluateConfig))
    shown = _Shown(**given_values(arguments, _Shown))
    if shown.submission is not None and config.split != "test":
        raise ValueError("--submission needs the test sets: give --split test")
    if shown.submission is not None and config.limit is not None:
        raise ValueError("--submission is of whole test sets: leave --limit out")
    report_failures_once()
    with joined_processes(arguments):
        from model.training import distributed

        report = evaluate(config, progress=distributed.print_first)
        if not distributed.is_first():
            return 0
        print()
        print(*report.lines(), sep="\n")
        for found in report.scores:
            if shown.show:
                print()
                print_lines(*example_lines(found, shown.show))
        if shown.json is not None:
            write_json(shown.json, report.json())
        if shown.submission is not None:
            for written in write_submissions(config, report, shown.submission):
                replaced = f", {written.replaced:,} invalid ones became {written.majority}"
                print_lines(
                    f"{written.path}: {written.examples:,} predictions"
                    f"{replaced if written.replaced else ''}"
                )
        return 0
