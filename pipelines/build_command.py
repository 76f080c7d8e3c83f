"""``c4 build``: read the options, build, print the balance."""

import argparse
import collections
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence

from pipelines import storage
from pipelines.clean_files import CHANGED_INPUT
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
    parser.add_argument("--quiet", action="store_true", help="no progress, no balance")


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Build the corpus that the options describe and return the exit status."""
    if not arguments.quiet:
        print(f"c4: building a corpus in {arguments.output}", file=sys.stderr, flush=True)
    if arguments.interruption.own_process and runs_on_own_engine(rest):
        leave_out_unused()
    from pipelines import builds  # takes 0.2 s: after the first line

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
        print_balance(config, made, None if was_complete else time.monotonic() - arguments.started)
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


def print_balance(config: BuildConfig, made: Manifest, wall_s: float | None) -> None:
    """Print pages and lines by rule, where the shards are, and one kept page."""
    counts = made.counts
    print()
    for what, read, written, dropped in (
        ("pages", counts.pages_read, counts.pages_written, counts.pages_dropped),
        ("lines", counts.lines_read, counts.lines_written, counts.lines_dropped),
    ):
        print(f"{what} read {read:>24,}")
        for verdict, count in sorted(dropped.items(), key=lambda item: (-item[1], item[0])):
            print(f"  - {verdict:<26}{count:>10,}  {count / max(read, 1):6.1%}")
        print(f"  = written {written:>28,}  {written / max(read, 1):6.1%}")
        print()
    if counts.records_rejected:
        print(f"records rejected {counts.records_rejected:>15,}")
        for reason, count in counts.records_rejected_by_reason.items():
            print(f"  - {reason:<26}{count:>10,}")
        print(f"  each with file and offset in {storage.join(config.output, 'rejects')}\n")
    for split, sums in made.splits.items():
        shards = [shard.name for shard in made.shards if shard.split == split]
        # train-00000-of-00004.parquet -> train-*-of-00004.parquet, once a format
        patterns = dict.fromkeys(re.sub(r"-\d+-of-", "-*-of-", name) for name in shards)
        print(
            f"{split}: {_counted(sums.pages, 'page')}, {sums.text_bytes:,} bytes of text in "
            f"{' '.join(storage.join(config.output, pattern) for pattern in patterns)}"
        )
    files = _counted(counts.files_read, "file")
    for reason, count in collections.Counter(file.reason for file in made.recleaned).items():
        what = _RECLEANED.get(reason, "cleaned again ({})").format(reason)
        were = "was" if count == 1 else "were"
        print(f"{_counted(count, 'cleaned file')} {were} {what}")
    resumed = made.timing.files_resumed
    before = f" ({resumed:,} cleaned before)" if resumed else ""
    if wall_s is None:
        print(f"built earlier from {files} with recipe {config.recipe.name}")
    else:
        print(f"built from {files}{before} in {wall_s:.1f} s with recipe {config.recipe.name}")
    print(f"why a page was dropped: {_explain_command(config, made)}")
    print("what the names of the rules mean: docs/rules.md")
    page = made.kept_page
    if page is not None:
        # A line that wraps is hard to read, and pushes the lines above off the screen.
        width = min(96, shutil.get_terminal_size((96, 24)).columns)
        print(f"\nthe beginning of one kept page: {printable(page.url)}")
        for line in page.text.split("\n")[:6]:
            print(textwrap.shorten(printable(line), width, placeholder=" …"))


def _explain_command(config: BuildConfig, made: Manifest) -> str:
    """Return the command that explains a page of this corpus, for people to complete."""
    words = ["c4", "explain", "--corpus", config.output]
    if made.keep != "all":  # nothing that says in which file a page is
        words.insert(2, "FILE")
    words += ["--url", "URL"]
    for language, path in config.badwords:
        words += ["--badwords", f"{language}={path}"]
    for option, given in (("--domain-list", config.domain_list), ("--url-list", config.url_list)):
        words += [option, given] if given is not None else []
    return printable(shlex.join(words))


#: FileSummary.recleaned -> the words for it in the balance.
_RECLEANED = {
    "damaged": "damaged and cleaned again",
    "older format": "cleaned again because an earlier version of c4 wrote it",
    "incomplete": "cleaned again because a build was stopped while writing it",
    CHANGED_INPUT: "cleaned again because the input has changed",
}


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
