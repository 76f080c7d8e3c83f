"""``c4 report``: write the report on one or two corpora, or the EU's summary of one."""

import argparse
import dataclasses

from pipelines.commands.one_corpus import OneCorpus
from pipelines.corpus import layout
from pipelines.options import add_options, check_bounds, given_values, option
from pipelines.printing import printable
from pipelines.report.make import SAMPLES, make_report, make_summary


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options(OneCorpus):
    """What to write."""

    other: str | None = option(
        "folder of a corpus to show beside it", "other", default=None, metavar="OTHER", nargs="?"
    )
    to: str | None = option(
        "file to write, or folder with --summary (default: report/ in DIR)",
        default=None, metavar="PATH",
    )  # fmt: skip
    samples: int = option(
        f"pages to show for each rule, 0 to {SAMPLES}",
        default=SAMPLES, metavar="N", least=0, most=SAMPLES,
    )  # fmt: skip
    summary: bool = option(
        "write the data part of the EU's training-content summary instead", default=False
    )

    def __post_init__(self) -> None:
        check_bounds(self)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 report``."""
    parser.epilog = """
        Reads the whole corpus, and its kept files and sampled WET records where they are still
        there. The page needs no network and opens in any browser.
    """
    add_options(parser, _Options)


def run(arguments: argparse.Namespace) -> int:
    """Write the files, print their paths and return the exit status."""
    options = _Options(**given_values(arguments, _Options))
    to = options.to and layout.absolute(options.to)
    if options.summary:
        if options.other is not None:
            arguments.parser.error("--summary takes one corpus")
        paths = make_summary(options.folder, to)
    else:
        folders = [options.folder, *([options.other] if options.other is not None else [])]
        paths = [make_report(folders, to, options.samples)]
    for path in paths:
        print(printable(path))
    return 0
