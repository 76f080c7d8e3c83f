"""``c4 report``: write the report on one or two corpora, or the EU's summary of one."""

import argparse
import textwrap
from collections.abc import Sequence

from pipelines.corpus import layout
from pipelines.printing import printable
from pipelines.report.make import SAMPLES, make_report, make_summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 report``."""
    parser.epilog = textwrap.dedent(
        """\
        Reads the whole corpus, and its kept files and sampled WET records where they are still
        there. The page needs no network and opens in any browser.
        """
    )
    parser.add_argument("folder", metavar="DIR", help="folder of the corpus, local or remote")
    parser.add_argument(
        "other", metavar="OTHER", nargs="?", help="folder of a corpus to show beside it"
    )
    parser.add_argument(
        "--to", metavar="PATH",
        help="file to write, or folder with --summary (default: report/ in DIR)",
    )  # fmt: skip
    parser.add_argument(
        "--samples", metavar="N", type=int, default=SAMPLES,
        help=f"pages to show for each rule, 0 to {SAMPLES} (default: {SAMPLES})",
    )  # fmt: skip
    parser.add_argument(
        "--summary", action="store_true",
        help="write the data part of the EU's training-content summary instead",
    )  # fmt: skip
    parser.set_defaults(refuse=parser.error)


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Write the files, print their paths and return the exit status."""
    del rest
    if not 0 <= arguments.samples <= SAMPLES:
        raise ValueError(
            f"samples must be between 0 and {SAMPLES}, got {arguments.samples} (--samples)"
        )
    to = arguments.to and layout.absolute(arguments.to)
    if arguments.summary:
        if arguments.other is not None:
            arguments.refuse("--summary takes one corpus")
        paths = make_summary(arguments.folder, to)
    else:
        folders = [arguments.folder, *([arguments.other] if arguments.other is not None else [])]
        paths = [make_report(folders, to, arguments.samples)]
    for path in paths:
        print(printable(path))
    return 0
