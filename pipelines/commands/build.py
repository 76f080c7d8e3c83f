"""``c4 build``: read the options, build, print the summary."""

import argparse
import time
from collections.abc import Collection, Mapping
from typing import Any

from pipelines import storage
from pipelines.config import BuildConfig, RunConfig
from pipelines.corpus import layout
from pipelines.corpus.manifest import Manifest
from pipelines.engines.lean_imports import leave_out_unused
from pipelines.engines.options import runs_on_own_engine
from pipelines.options import add_options, given_values
from pipelines.printing import print_lines, print_note

#: Title of a group in the help text -> fields of `BuildConfig`.
_GROUPS = {
    "inputs": (
        "inputs", "crawl", "files", "base_url", "source", "allow_unreadable_files",
        "max_record_bytes", "max_file_bytes", "verify_inputs",
    ),
    "which pages and lines to keep": (
        "recipe", "badwords", "domain_list", "url_list", "allow_rules", "opt_out", "against",
    ),
    "the corpus": ("output", "formats", "shards", "provenance", "keep", "card"),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 build``."""
    parser.epilog = """
        Every option of Apache Beam may be given too, such as --runner=FlinkRunner with
        --flink_master=HOST:PORT (docs/flink.md). Without --runner the build runs on this machine,
        on all cores. The same command run again skips WET files that are cleaned already.

        exit status: 0 built; 1 failed or refused, or more files unreadable than allowed; 2 an
        option is missing or has no value; 130 interrupted
    """
    add_build_options(parser)


def add_build_options(
    parser: argparse.ArgumentParser,
    config: type[BuildConfig] = BuildConfig,
    without: Collection[str] = (),
) -> None:
    """Add the options of a build, in groups: of the fields of ``config``, but for some."""
    for title, names in _GROUPS.items():
        asked = [name for name in names if name not in without]
        add_options(parser.add_argument_group(title), config, *asked)
    add_options(parser.add_argument_group("this run"), RunConfig)


def run(arguments: argparse.Namespace) -> int:
    """Build the corpus that the options describe and return the exit status."""
    if not (hasattr(arguments, "input") or hasattr(arguments, "crawl")):
        arguments.parser.error("one of --input and --crawl is required")
    return run_build(given_values(arguments, BuildConfig), arguments)


def run_build(values: Mapping[str, Any], arguments: argparse.Namespace) -> int:
    """Build a corpus, print its summary and return the exit status.

    Args:
        values: Of the fields of a `BuildConfig`.
        arguments: Of the command line; ``rest`` are options of Beam.
    """
    storage.use_options(arguments.rest)  # an address or a key may be among them
    config = BuildConfig(**values).absolute()
    running = RunConfig(**given_values(arguments, RunConfig))
    if not running.quiet:
        print_note(f"c4: building a corpus in {arguments.output}")
    own_process = arguments.interruption.own_process
    if own_process and runs_on_own_engine(arguments.rest):
        leave_out_unused()
    from pipelines import builds, prepared  # after the first line: Arrow takes a while
    from pipelines.commands.build_summary import print_summary

    made, was_complete = builds.run(
        config,
        running,
        options=arguments.rest,
        known_options=list(arguments.parser._option_string_actions),
        one_thread=arguments.interruption.unwatched if own_process else None,
    )
    if made is None:
        print_lines(
            f"submitted; {storage.join(config.output, layout.MANIFEST)} appears when it is done"
        )
        return 0
    shown = not running.quiet and made.inputs  # else the error below says all there is
    if was_complete and shown:
        checked = ", every checksum matches" if running.verify else ""
        print_lines(f"{config.output} is complete already: same files, same settings{checked}")
    _warn(config, made, was_complete)
    if shown:
        print_summary(config, made, None if was_complete else time.monotonic() - arguments.started)
    if len(made.unreadable_inputs) > config.allow_unreadable_files:
        for file in made.unreadable_inputs[1:10]:  # the error names the first
            print_note(f"c4: unreadable: {file.path}: {file.error}")
    prepared.require_readable(config, made)
    return 0


def _warn(config: BuildConfig, made: Manifest, was_complete: bool) -> None:
    """Print warnings and notes about a corpus on standard error."""
    from pipelines import prepared
    from pipelines.commands.verify import print_foreign_shards
    from pipelines.corpus.card.side_files import CARD, OTHER_CARD, side_files

    if not was_complete and made.inputs and not made.counts.pages_written:
        print_note(
            f"c4: warning: the corpus in {config.output} has no pages: none of the "
            f"{made.counts.pages_read:,} pages read was kept"
        )
    print_foreign_shards(config.output, made)
    if made.side_files is not None:
        listed = {file.name for file in made.side_files}
        for name in sorted(side_files(made).keys() - listed):
            instead = name == CARD and OTHER_CARD in listed
            print_note(
                f"c4: note: {storage.join(config.output, name)} was not written by a build; it is "
                f"left unchanged{f', and the card is in {OTHER_CARD}' if instead else ''}"
            )
    if config.keep != prepared.kept_folders(config, made):
        print_note(
            f"c4: note: an earlier build of {config.output} removed kept folders (--keep "
            f"{made.keep}); to get them back, run with --keep {config.keep} --start-over"
        )
