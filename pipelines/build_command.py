"""``c4 build``: checks what is asked for, runs the graph, prints the balance."""

import argparse
import collections
import re
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

from pipelines import layout, manifest, progress, storage
from pipelines.config import BuildConfig
from pipelines.engines.options import beam_options
from pipelines.engines.run import run_build
from pipelines.input_list import write_input_list
from pipelines.number_options import shard_count
from pipelines.printing import printable
from pipelines.recipe_option import add_recipe_arguments, badword_lists, recipe_of

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``c4 build``."""
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
        help="WET files: paths or patterns, local or gs:// s3:// hdfs://",
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
    parser.add_argument(
        "--max-record-mb",
        type=int,
        default=64,
        metavar="MB",
        help="larger records are rejected, whatever they unpack to (default: 64)",
    )
    parser.add_argument(
        "--max-file-mb",
        type=int,
        default=1024,
        metavar="MB",
        help="of a file that unpacks to more, the rest is rejected (default: 1024)",
    )
    parser.add_argument(
        "--start-over",
        action="store_true",
        help="first remove what an earlier build left in the output folder",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no balance")


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Builds the corpus that the options describe. Returns the exit status."""
    if not all(map(storage.is_local, (*arguments.input, arguments.output))):
        storage.use_options(rest)  # an address or a key may be among them
    config = BuildConfig(
        inputs=tuple(layout.absolute(pattern) for pattern in arguments.input),
        output=layout.absolute(arguments.output),
        recipe=recipe_of(arguments),
        formats=tuple(name.strip() for name in arguments.format.split(",") if name.strip()),
        shards=shard_count(arguments.shards),
        badwords=badword_lists(arguments),
        domain_list=arguments.domain_list and layout.absolute(arguments.domain_list),
        url_list=arguments.url_list and layout.absolute(arguments.url_list),
        allow_unreadable_files=arguments.allow_unreadable_files,
        max_record_bytes=arguments.max_record_mb << 20,
        max_file_bytes=arguments.max_file_mb << 20,
    )
    config.page_rules()  # a bad list stops here, not on a worker
    files = [(path, size) for path, size, _ in storage.match(config.inputs)]
    _require_utf8([path for path, _ in files], "--input")
    _require_utf8([config.output], "--output")
    options, local = beam_options(list(rest), arguments.workers, files, _own_options())
    manifest.claim_folder(config, arguments.start_over)
    made = _already_made(config, files)
    done = made is not None
    if made is None:
        _tell_of_fewer_inputs(config, files)
        manifest.begin(config.output)
        write_input_list(config.output, files)
        made = run_build(
            config, options, None if arguments.quiet else _progress(config, files, local)
        )
    elif not arguments.quiet:
        print(f"{config.output} is complete already: same files, same settings")
    if made is None:
        print(f"submitted; {storage.join(config.output, layout.MANIFEST)} appears when it is done")
        return 0
    manifest.drop_pieces(config.output)
    if not arguments.quiet:
        print_balance(config, made, None if done else time.monotonic() - arguments.started)
    return _judge_unreadable(config, made)


def _own_options() -> list[str]:
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return list(parser._option_string_actions)


def _require_utf8(paths: Sequence[str], option: str) -> None:
    """Raises ValueError for a name that neither Beam nor the manifest can hold."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            shown = path.encode("utf-8", "surrogateescape")
            raise ValueError(f"{shown!r} is no UTF-8: give it another name ({option})") from None


def _progress(
    config: BuildConfig, files: Sequence[tuple[str, int]], local: bool
) -> progress.Source:
    """Where progress is to be read: workers of this machine tell it, others leave files."""
    if local:
        return progress.Notes
    sizes = {layout.file_name(path): size for path, size in files}
    return lambda _: progress.CorpusFolder(config.output, sizes)


def _already_made(config: BuildConfig, files: list[tuple[str, int]]) -> dict[str, Any] | None:
    """The manifest of a finished build of the very same files, or None."""
    made = _made_before(config)
    if made is None or sorted(map(tuple, made["inputs"])) != sorted(files):
        return None
    for name, size in made["shards"]:
        path = storage.join(config.output, name)
        if not storage.exists(path) or storage.size(path) != size:
            return None
    return manifest.read_manifest(config.output)


def _made_before(config: BuildConfig) -> dict[str, list[tuple[str, int]]] | None:
    """Names and sizes of the inputs and shards of a finished build in the folder, or None."""
    try:
        made = manifest.read_manifest(config.output)
        before = {
            "inputs": [(file["path"], file["bytes"]) for file in made["inputs"]],
            "shards": [(shard["name"], shard["bytes"]) for shard in made["shards"]],
        }
        names = {name for name, _ in before["shards"]}
        if not all(map(layout.is_shard, names)):
            raise TypeError("a shard that is none")
        found = collections.Counter(map(layout.shards_in_split, names))
        lacks = any(count != held for (_, count), held in found.items())
        if lacks or len(found) != 2 * len(config.formats):  # train and validation of each
            raise TypeError("not all shards")
        return before
    except (manifest.FolderError, KeyError, TypeError):
        return None  # none, or damaged: it is built again


def _tell_of_fewer_inputs(config: BuildConfig, files: list[tuple[str, int]]) -> None:
    before = _made_before(config)
    left_out = (
        {path for path, _ in before["inputs"]} - {path for path, _ in files} if before else ()
    )
    if left_out:
        print(
            f"c4: note: {_counted(len(left_out), 'file')} of the build before not in --input: the "
            "corpus is made without",
            file=sys.stderr,
        )


def _judge_unreadable(config: BuildConfig, made: dict[str, Any]) -> int:
    unreadable = made["unreadable_inputs"]
    if not made["inputs"]:
        what = printable(unreadable[0]["error"])
        raise ValueError(f"no input file could be read: {unreadable[0]['path']}: {what}")
    if len(unreadable) <= config.allow_unreadable_files:
        return 0
    for file in unreadable[:10]:
        print(printable(f"c4: unreadable: {file['path']}: {file['error']}"), file=sys.stderr)
    print(
        f"c4: error: {len(unreadable)} of {len(unreadable) + len(made['inputs'])} files could not "
        f"be read; the corpus in {config.output} is built from the others; mend or remove them and "
        f"run again, or accept with --allow-unreadable-files {len(unreadable)}",
        file=sys.stderr,
    )
    return 1


def print_balance(config: BuildConfig, made: dict[str, Any], wall_s: float | None) -> None:
    """Prints pages and lines by rule, where the shards are, and one kept page."""
    counts = made["counts"]
    print()
    for what in ("pages", "lines"):
        read, written = counts[f"{what}_read"], counts[f"{what}_written"]
        print(f"{what} read {read:>24,}")
        for verdict, count in sorted(
            counts[f"{what}_dropped"].items(), key=lambda item: (-item[1], item[0])
        ):
            print(f"  - {verdict:<26}{count:>10,}  {count / max(read, 1):6.1%}")
        print(f"  = written {written:>28,}  {written / max(read, 1):6.1%}")
        print()
    if counts["records_rejected"]:
        print(f"records rejected {counts['records_rejected']:>15,}")
        for reason, count in counts["records_rejected_by_reason"].items():
            print(f"  - {reason:<26}{count:>10,}")
        print(f"  each with file and offset in {storage.join(config.output, 'rejects')}\n")
    for split, sums in made["splits"].items():
        shards = [shard["name"] for shard in made["shards"] if shard["split"] == split]
        # train-00000-of-00004.parquet -> train-*-of-00004.parquet, once a format
        patterns = dict.fromkeys(re.sub(r"-\d+-of-", "-*-of-", name) for name in shards)
        print(
            f"{split}: {_counted(sums['pages'], 'page')}, {sums['text_bytes']:,} bytes of text in "
            f"{' '.join(storage.join(config.output, pattern) for pattern in patterns)}"
        )
    files = _counted(counts["files_read"], "file")
    resumed = made["timing"]["files_resumed"]
    before = f" ({resumed:,} cleaned before)" if resumed else ""
    if wall_s is None:
        print(f"built before from {files} with recipe {config.recipe.name}")
    else:
        print(f"built from {files}{before} in {wall_s:.1f} s with recipe {config.recipe.name}")
    print("why one page went: c4 explain FILE --url URL; what the names mean: docs/rules.md")
    page = made.get("kept_page")
    if page:
        print(f"\nthe beginning of one kept page: {printable(page['url'])}")
        for line in page["text"].split("\n")[:6]:
            print(textwrap.shorten(printable(line), width=96, placeholder=" …"))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
