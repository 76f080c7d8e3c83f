"""``c4 build``: read the options, build, print the summary."""

import argparse
import sys
import textwrap
import time
from collections.abc import Sequence

from pipelines import storage
from pipelines.build_summary import print_summary
from pipelines.config import KEEP, BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.dataset_info import side_files
from pipelines.corpus.manifest import Manifest
from pipelines.engines.lean_imports import leave_out_unused
from pipelines.engines.options import runs_on_own_engine
from pipelines.number_options import shard_count
from pipelines.printing import printable
from pipelines.recipe_option import (
    add_limit_arguments,
    add_recipe_arguments,
    badword_lists,
    recipe_of,
)
from pipelines.verify_command import print_foreign_shards

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 build``."""
    parser.epilog = textwrap.dedent(
        """\
        Every option of Apache Beam may be given too, such as --runner=FlinkRunner with
        --flink_master=HOST:PORT (docs/flink.md). Without --runner the build runs on this machine,
        on all cores. The same command run again skips WET files that are cleaned already.

        exit status: 0 built; 1 failed or refused, or more files unreadable than allowed; 2 an
        option is missing or has no value; 130 interrupted
        """
    )
    parser.add_argument(
        "--input",
        nargs="+",
        action="extend",
        required=True,
        metavar="GLOB",
        help="WET files: paths or patterns, local or gs:// s3:// hdfs://, or https:// files",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the corpus")
    add_recipe_arguments(parser)
    parser.add_argument(
        "--format",
        default="parquet",
        metavar="LIST",
        help="tfrecord, parquet, json, or several with commas between (default: parquet)",
    )
    parser.add_argument(
        "--shards",
        default="auto",
        metavar="auto|N",
        help="train shards (default: auto, 64 to 256 MB of text each)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="local processes (default: one a core, fewer for a small input)",
    )
    parser.add_argument(
        "--allow-unreadable-files",
        type=int,
        default=0,
        metavar="N",
        help="exit with 0 although up to N files could not be read at all (default: 0)",
    )
    add_limit_arguments(parser)
    parser.add_argument(
        "--start-over",
        action="store_true",
        help="first remove what earlier builds wrote in the output folder, and nothing else",
    )
    parser.add_argument(
        "--keep",
        choices=list(KEEP),
        default="all",
        help="what to keep beside the shards: all (default); fingerprints (removes cleaned/ and "
        "removals/); or none. Without cleaned/, a later build cleans every input again",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="check every checksum of a finished corpus, and rebuild what is damaged",
    )
    parser.add_argument(
        "--verify-inputs",
        action="store_true",
        help="compare the SHA-256 of every input with that of the finished build (default: compare "
        "path, size, and modification time or etag)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Build the corpus that the options describe and return the exit status."""
    storage.use_options(rest)  # an address or a key may be among them
    config = BuildConfig(
        inputs=tuple(arguments.input),
        output=arguments.output,
        recipe=recipe_of(arguments),
        formats=tuple(name.strip() for name in arguments.format.split(",") if name.strip()),
        shards=shard_count(arguments.shards),
        badwords=badword_lists(arguments),
        domain_list=arguments.domain_list,
        url_list=arguments.url_list,
        allow_unreadable_files=arguments.allow_unreadable_files,
        max_record_bytes=arguments.max_record_mb << 20,
        max_file_bytes=arguments.max_file_mb << 20,
        verify_inputs=arguments.verify_inputs,
        keep=arguments.keep,
    ).absolute()
    if not arguments.quiet:
        line = printable(f"c4: building a corpus in {arguments.output}")
        print(line, file=sys.stderr, flush=True)
    if arguments.interruption.own_process and runs_on_own_engine(rest):
        leave_out_unused()
    from pipelines import builds  # takes 0.2 s: after the first line

    made, was_complete = builds.run(
        config,
        options=rest,
        workers=arguments.workers,
        start_over=arguments.start_over,
        verify=arguments.verify,
        show_progress=not arguments.quiet,
        known_options=_own_options(),
    )
    if made is None:
        print(f"submitted; {storage.join(config.output, layout.MANIFEST)} appears when it is done")
        return 0
    if was_complete and not arguments.quiet:
        checked = ", every checksum matches" if arguments.verify else ""
        print(f"{config.output} is complete already: same files, same settings{checked}")
    _warn(config, made, was_complete)
    if not arguments.quiet:
        print_summary(config, made, None if was_complete else time.monotonic() - arguments.started)
    if len(made.unreadable_inputs) > config.allow_unreadable_files:
        for file in made.unreadable_inputs[:10]:
            print(printable(f"c4: unreadable: {file.path}: {file.error}"), file=sys.stderr)
    builds.require_readable(config, made)
    return 0


def _own_options() -> list[str]:
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return list(parser._option_string_actions)


def _warn(config: BuildConfig, made: Manifest, was_complete: bool) -> None:
    """Print warnings and notes about a corpus on standard error."""
    from pipelines import builds

    if not was_complete and not made.counts.pages_written:
        print(
            f"c4: warning: the corpus in {config.output} has no pages: none of the "
            f"{made.counts.pages_read:,} pages read was kept",
            file=sys.stderr,
        )
    print_foreign_shards(config.output, made)
    if made.side_files is not None:
        listed = {file.name for file in made.side_files}
        for name in sorted(side_files(made).keys() - listed):
            print(
                f"c4: note: {storage.join(config.output, name)} was not written by a build; it is "
                "left unchanged",
                file=sys.stderr,
            )
    if config.keep != builds.kept_folders(config, made):
        print(
            f"c4: note: an earlier build of {config.output} removed kept folders (--keep "
            f"{made.keep}); to get them back, run with --keep {config.keep} --start-over",
            file=sys.stderr,
        )
