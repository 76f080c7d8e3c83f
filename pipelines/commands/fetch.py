"""``c4 fetch``: fetch WET files, and name those that are missing."""

import argparse
import dataclasses
import time

from pipelines.crawl.fetch import FetchConfig, fetch
from pipelines.options import add_options, given_values, option
from pipelines.printing import counted, duration, print_lines, print_note, size


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """What to print."""

    quiet: bool = option("no progress, no summary", default=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 fetch``."""
    parser.epilog = """
        The same command run again continues where it was stopped. Files that are there already are
        not fetched again.

          c4 fetch --crawl CC-MAIN-2019-18 --files 0:20 --to wet

        The environment variable C4_CONTACT is an address by which the server's owner can reach
        you; it is sent with every request.

        exit status: 0 all files are there; 1 some are missing, each is named; 2 wrong usage; 130
        interrupted
    """
    add_options(parser, FetchConfig)
    add_options(parser, _Options)


def run(arguments: argparse.Namespace) -> int:
    """Fetch the files, print what is missing, and return the exit status."""
    options = _Options(**given_values(arguments, _Options))
    config = FetchConfig(**given_values(arguments, FetchConfig))
    done = fetch(config, show_progress=not options.quiet)
    for failure in done.failures:
        print_note(f"c4: error: {failure.path}: {failure.reason}")
    if not options.quiet:
        took = duration(time.monotonic() - arguments.started)
        found = f"; {counted(done.found, 'file')} there already" if done.found else ""
        print_lines(
            f"{config.to}: {counted(done.fetched, 'file')} fetched, {size(done.bytes)} in {took}"
            f"{found}"
        )
    if done.failures:
        print_note(
            f"c4: error: {counted(len(done.failures), 'file')} missing, named above: run the same "
            "command again to try them again"
        )
    return 1 if done.failures else 0
