"""``c4 split``: a corpus of many languages -> a corpus for each."""

import argparse

from pipelines.options import add_options, given_values
from pipelines.printing import counted, print_lines, printable
from pipelines.split_corpus import SplitConfig, split_corpus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 split``."""
    parser.epilog = """
        Each language gets a folder, such as DIR/de, that is a corpus: c4 verify, c4 vocab and
        c4 pretrain take it. The same command run again writes what is missing.
    """
    add_options(parser, SplitConfig)


def run(arguments: argparse.Namespace) -> int:
    """Split the corpus, print its parts and return the exit status."""
    parts = split_corpus(SplitConfig(**given_values(arguments, SplitConfig)))
    for part in sorted(parts, key=lambda part: (-part.pages, part.language)):
        before = " (complete already)" if part.was_complete else ""
        if part.is_left_over:
            before = ": left over from earlier, remove it: the corpus has no such page any more"
        print_lines(
            printable(
                f"{part.language:<8} {counted(part.pages, 'page'):>16}  {part.folder}{before}"
            )
        )
    return 0
