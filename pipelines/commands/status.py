"""``c4 status``: show how far a build is."""

import argparse
import dataclasses

from pipelines.commands.one_corpus import OneCorpus
from pipelines.options import add_options, given_values, option
from pipelines.printing import counted, duration, print_lines, printable, size
from pipelines.status import Status, as_json, prometheus, status

_UNITS = {"dedup": "file", "merge": "piece", "write": "shard", "done": "shard"}
_FAILED_SHOWN = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options(OneCorpus):
    """Which build to show, and how."""

    json: bool = option("print a JSON object", default=False)
    prometheus: bool = option("print Prometheus' text format", default=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 status``."""
    parser.epilog = """
        The state is running, interrupted (Ctrl-C), died, done, or waiting (a job that is written
        down but not started). Reads the folder only: works on any machine that sees it, on any
        runner, while the build runs and after it died.

        exit status: 0 whatever the state; 1 no build has begun in the folder; 2 wrong usage
    """
    add_options(parser, _Options, "folder")
    add_options(parser.add_mutually_exclusive_group(), _Options, "json", "prometheus")


def run(arguments: argparse.Namespace) -> int:
    """Print the status of a build and return the exit status."""
    options = _Options(**given_values(arguments, _Options))
    found = status(options.folder)
    if options.json:
        print(as_json(found))
    elif options.prometheus:
        print(prometheus(found), end="")
    else:
        print_lines(*map(printable, _lines(found)))
    return 0


def _lines(found: Status) -> list[str]:
    where = f"{found.runner} on {found.host}" if found.runner else f"on {found.host}"
    who = f"{where}, pid {found.pid}, started {found.started}"
    lines = [f"{found.folder}: {found.state}" + (f" ({who})" if found.started else "")]
    if not found.is_derived:
        lines.append(
            f"files: {found.files_cleaned:,} of {found.files_total:,} cleaned, "
            f"{found.files_failed:,} failed, {found.files_left:,} left "
            f"({found.files_in_progress:,} in progress)"
        )
        lines.append(f"bytes: {size(found.bytes_read)} of {size(found.bytes_total)} read")
    elif found.files_total:
        of_bytes = f", {size(found.bytes_total)}" if found.bytes_total else ""
        lines.append(f"inputs: {found.files_total:,}{of_bytes}")
    if found.pages_read:
        rate = "" if found.pages_per_s is None else f", {found.pages_per_s:,.0f} per second"
        lines.append(f"pages: {counted(found.pages_read, 'page')} read{rate}")
    if unit := _UNITS.get(found.stage.name):
        done, total = found.stage.done, found.stage.total
        amount = f"{done:,} of {total:,} {unit}s" if total else f"{counted(done, unit)} so far"
        lines.append(f"{found.stage.name}: {amount}")
    if found.state == "running" and found.seconds_left is not None:
        lines.append(f"about {duration(found.seconds_left)} left in the stage {found.stage.name}")
    if found.state in ("died", "interrupted"):
        kept = "" if found.is_derived else " to resume: cleaned files are kept"
        lines.append(f"run the same command again{kept}")
    for file in found.failed[:_FAILED_SHOWN]:
        lines.append(f"failed: {file.path}: {file.error}")
    if len(found.failed) > _FAILED_SHOWN:
        lines.append(f"failed: {len(found.failed) - _FAILED_SHOWN:,} more")
    return lines
