"""``c4 study``: the paper's experiments: list them, run them, print their tables."""

import argparse
import dataclasses
import functools
from typing import Literal

from model.studies.experiments import EXPERIMENTS, experiment
from model.studies.run import StudyConfig, run_study, study_names
from model.studies.table import described, read_scores, study_table
from pipelines.options import add_options, given_values, option, option_of
from pipelines.printing import print_lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """What to do, and with which experiments."""

    action: Literal["list", "run", "table"] = option("what to do", "action")
    name: str | None = option(
        f"experiments, separated by commas, or all: {', '.join(EXPERIMENTS)}",
        "name", nargs="?", default=None,
    )  # fmt: skip
    runs: str | None = option("with table: the folder of c4 study run", default=None, metavar="DIR")
    dry_run: bool = option("print the commands, and run none of them", default=False)


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
    add_options(parser, _Asked, "action", "name", "runs")
    group = parser.add_argument_group("with run")
    add_options(group, StudyConfig)
    add_options(group, _Asked, "dry_run")
    for action in group._group_actions:  # only c4 study run needs them
        action.required = False


def run(arguments: argparse.Namespace) -> int:
    """List, run or print experiments. Returns the exit status."""
    asked = _Asked(**given_values(arguments, _Asked))
    if asked.action != "run":
        given = [option_of(StudyConfig, name) for name in given_values(arguments, StudyConfig)]
        if given or asked.dry_run:
            raise ValueError(f"{given[0] if given else '--dry-run'} belongs to c4 study run")
    if asked.runs is not None and asked.action != "table":
        raise ValueError("--runs belongs to c4 study table")
    if asked.action == "run":
        return _run(asked, arguments)
    names = study_names(asked.name or "all")
    if asked.action == "table":
        scores = {} if asked.runs is None else read_scores(asked.runs)
        for place, name in enumerate(names):
            if place:
                print()
            print(*study_table(experiment(name), scores), sep="\n")
        return 0
    for name in names:
        entry = experiment(name)
        print_lines(f"{name}: {entry.title} (section {entry.section})")
        for row in entry.rows:
            more = f": {described(row)}" if asked.name else ""
            print_lines(f"  {row.title}{more}")
    return 0


def _run(asked: _Asked, arguments: argparse.Namespace) -> int:
    if asked.name is None:
        raise ValueError("which experiment? c4 study list shows them: c4 study run table4")
    for name in ("scale", "data", "out"):
        if not hasattr(arguments, name):
            raise ValueError(
                f"--{name} is missing: c4 study run NAME --scale tiny --corpus c4=DIR --data DIR "
                "--out DIR"
            )
    config = StudyConfig(names=study_names(asked.name), **given_values(arguments, StudyConfig))
    # Commands stay whole, to be copied.
    say = functools.partial(print if asked.dry_run else print_lines, flush=True)
    results = run_study(config, say, dry_run=asked.dry_run)
    bad = 0
    for result in results:
        why = f"missing: {result.missing}" if result.missing else f"failed: {result.failed}"
        if result.missing or result.failed:
            bad += 1
            say(f"{result.experiment}, {result.row.title}, seed {result.seed}: {why}")
    if not asked.dry_run:
        say(f"{len(results) - bad} of {len(results)} rows have scores: "
            f"c4 study table {asked.name} --runs {config.out}")  # fmt: skip
    return 1 if bad else 0
