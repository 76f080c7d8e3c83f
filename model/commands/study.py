"""``c4 study``: the paper's experiments: list them, run them, print their tables."""

import argparse
import functools
from collections.abc import Sequence

from model.studies.experiments import EXPERIMENTS, experiment
from model.studies.run import StudyConfig, run_study, study_names
from model.studies.table import described, read_scores, study_table
from pipelines.options import add_options, given_values, option_of

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 study``."""
    parser.epilog = (
        "  c4 study list\n"
        "  c4 study list table4                what its rows train\n"
        "  c4 study table table4               the paper's scores\n"
        "  c4 study run table4 --scale tiny --corpus c4=corpus --data data --out study\n"
        "  c4 study table table4 --runs study  ours beside the paper's\n\n"
        "exit status: 0 done; 1 a row is missing or failed; 2 wrong usage; 130 interrupted"
    )
    parser.add_argument("action", choices=("list", "run", "table"), help="what to do")
    parser.add_argument(
        "name",
        nargs="?",
        help=f"experiments, separated by commas, or all: {', '.join(EXPERIMENTS)}",
    )
    parser.add_argument("--runs", metavar="DIR", help="with table: the folder of c4 study run")
    group = parser.add_argument_group("with run")
    add_options(group, StudyConfig)
    group.add_argument(
        "--dry-run", action="store_true", help="print the commands, and run none of them"
    )
    for action in group._group_actions:  # only c4 study run needs them
        action.required = False


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """List, run or print experiments. Returns the exit status."""
    del rest
    if arguments.action != "run":
        given = [option_of(StudyConfig, name) for name in given_values(arguments, StudyConfig)]
        if given or arguments.dry_run:
            raise ValueError(f"{given[0] if given else '--dry-run'} belongs to c4 study run")
    if arguments.runs is not None and arguments.action != "table":
        raise ValueError("--runs belongs to c4 study table")
    if arguments.action == "run":
        return _run(arguments)
    names = study_names(arguments.name or "all")
    if arguments.action == "table":
        scores = {} if arguments.runs is None else read_scores(arguments.runs)
        for place, name in enumerate(names):
            if place:
                print()
            print(*study_table(experiment(name), scores), sep="\n")
        return 0
    for name in names:
        entry = experiment(name)
        print(f"{name}: {entry.title} (section {entry.section})")
        for row in entry.rows:
            more = f": {described(row)}" if arguments.name else ""
            print(f"  {row.title}{more}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        raise ValueError("which experiment? c4 study list shows them: c4 study run table4")
    for name in ("scale", "data", "out"):
        if not hasattr(arguments, name):
            raise ValueError(
                f"--{name} is missing: c4 study run NAME --scale tiny --corpus c4=DIR --data DIR "
                "--out DIR"
            )
    config = StudyConfig(names=study_names(arguments.name), **given_values(arguments, StudyConfig))
    say = functools.partial(print, flush=True)
    results = run_study(config, say, dry_run=arguments.dry_run)
    bad = 0
    for result in results:
        why = f"missing: {result.missing}" if result.missing else f"failed: {result.failed}"
        if result.missing or result.failed:
            bad += 1
            say(f"{result.experiment}, {result.row.title}, seed {result.seed}: {why}")
    if not arguments.dry_run:
        say(f"{len(results) - bad} of {len(results)} rows have scores: "
            f"c4 study table {arguments.name} --runs {config.out}")  # fmt: skip
    return 1 if bad else 0
