"""``c4 build``: check the options, run the graph, print the balance."""

import argparse
import collections
import concurrent.futures
import os
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

from pipelines import builders, corpus_folder, layout, manifest, progress, storage, verify_corpus
from pipelines.clean_files import CHANGED_INPUT
from pipelines.config import KEEP, BuildConfig
from pipelines.digests import sha256_of
from pipelines.engines.local import cores
from pipelines.engines.options import beam_options, waits
from pipelines.engines.run import run_build
from pipelines.input_list import build_id, write_input_list
from pipelines.number_options import shard_count
from pipelines.printing import printable
from pipelines.recipe_option import (
    add_limit_arguments,
    add_recipe_arguments,
    badword_lists,
    recipe_of,
)
from pipelines.storage import FileInfo
from pipelines.storage.patterns import has_magic
from pipelines.verify_command import progress_of

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
        verify_inputs=arguments.verify_inputs,
        keep=arguments.keep,
    )
    config.page_rules()  # a bad list stops here, not on a worker
    for option, path in config.empty_lists().items():
        print(f"c4: warning: the list {path} has no entries ({option})", file=sys.stderr)
    files = storage.match(config.inputs)
    _require_utf8([file.path for file in files], "--input")
    _require_utf8([config.output], "--output")
    sizes = [(file.path, file.size) for file in files]
    options, local = beam_options(list(rest), arguments.workers, sizes, _own_options())
    corpus_folder.require_own_folder(config.output, arguments.start_over)
    _refuse_own_output(config, files)
    made: dict[str, Any] | None = None
    problems: list[str] = []
    if not arguments.start_over:
        try:
            corpus_folder.require_same_build(config)
        except corpus_folder.FolderError:
            builders.require_not_running(config.output)  # which says more
            raise
        made, problems = _finished(config, files, arguments.verify)
    done = made is not None
    checked = ", every checksum matches" if done and arguments.verify else ""
    if made is None or _needs_tidying(config, made):
        identity = build_id(config.identity, files)
        kind = _kind(options)
        with builders.hold(
            config.output, kind=kind, runner=_runner_name(options), build_id=identity
        ) as claim:
            corpus_folder.claim_folder(config, arguments.start_over)
            # Another build may have finished between the check above and this claim.
            made = _finished(config, files, digests=False)[0] if not problems else None
            done = made is not None
            for problem in problems:
                print(f"c4: note: {config.output}: {problem}: rebuilding it", file=sys.stderr)
            if made is None:
                _report_left_out_inputs(config, files)
                corpus_folder.begin(config.output)
                write_input_list(config.output, files, claim.run_id, identity)
                shown = None if arguments.quiet else _progress(config, sizes, local)
                made = run_build(config, options, shown, claim)
            if made is not None:
                made = _tidy(config, made)
                claim.end()
    if made is None:
        print(f"submitted; {storage.join(config.output, layout.MANIFEST)} appears when it is done")
        return 0
    if done and not arguments.quiet:
        print(f"{config.output} is complete already: same files, same settings{checked}")
    _warn(config, made, done)
    if not arguments.quiet:
        print_balance(config, made, None if done else time.monotonic() - arguments.started)
    return _judge_unreadable(config, made)


def _own_options() -> list[str]:
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return list(parser._option_string_actions)


def _kind(options: Any) -> str:
    """Return how long the claim on the folder lasts (see `pipelines.builders`)."""
    chosen = options.get_all_options()
    written_down = ("template_location", "output_executable_path", "dry_run")
    # Dataflow's own launcher asks for both, and the service starts the job at once.
    if not chosen.get("no_wait_until_finish") and any(map(chosen.get, written_down)):
        return builders.TEMPLATE
    return builders.WAITING if waits(options) else builders.DETACHED


def _runner_name(options: Any) -> str:
    return str(options.get_all_options().get("runner"))


def _refuse_own_output(config: BuildConfig, files: Sequence[FileInfo]) -> None:
    """Raise ValueError if an input, now or at the next run, is a file of the output folder."""
    output = _real(config.output).rstrip("/") + "/"
    folders: dict[str, str] = {}
    for file in files:
        folder, name = os.path.split(file.path)
        if folder not in folders:
            folders[folder] = _real(folder)
        link = storage.is_local(file.path) and os.path.islink(file.path)
        path = _real(file.path) if link else storage.join(folders[folder], name)
        if path.startswith(output):
            raise ValueError(
                f"the input {file.path} lies in the output folder {config.output}: give an "
                "--output elsewhere, or an --input that does not match what is in it"
            )
    folders_of_ours = {config.output, _real(config.output)}
    ours = [storage.join(folder, name) for folder in folders_of_ours for name in _OUTPUTS]
    literal = {file.path for file in files}
    for pattern in config.inputs:
        if pattern in literal or not has_magic(pattern):
            continue
        forms = (pattern, _real_pattern(pattern))
        found = next((p for p in ours if any(storage.matches(form, p) for form in forms)), None)
        if found:
            raise ValueError(
                f"--input {pattern!r} matches files that the build itself writes, such as {found}: "
                "give an --output elsewhere, or a pattern such as '*.warc.wet.gz'"
            )


#: Examples of what a build writes. A pattern that matches one would match its own output.
_OUTPUTS = (
    layout.MANIFEST,
    "train-00000-of-00001.parquet",
    "train-00000-of-00001.json.gz",
    "train-00000-of-00001.tfrecord",
    "cleaned/CC-MAIN-20190418101243-20190418122248-00000-0123456789abcdef.arrow",
)


def _real_pattern(pattern: str) -> str:
    """Return a pattern with the links resolved in the folders before its first wildcard."""
    folders = pattern.split("/")
    plain = next(number for number, folder in enumerate(folders) if has_magic(folder))
    return "/".join([_real("/".join(folders[:plain])), *folders[plain:]])


def _real(path: str) -> str:
    return os.path.realpath(path) if storage.is_local(path) else path


def _require_utf8(paths: Sequence[str], option: str) -> None:
    """Raise ValueError for a name that neither Beam nor the manifest can hold."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            shown = path.encode("utf-8", "surrogateescape")
            raise ValueError(f"{shown!r} is not UTF-8: give it another name ({option})") from None


def _progress(
    config: BuildConfig, files: Sequence[tuple[str, int]], local: bool
) -> progress.Source:
    """Return the source of progress: local workers report it, remote ones leave files."""
    if local:
        return progress.Notes
    sizes = {layout.file_name(path): size for path, size in files}
    return lambda _: progress.CorpusFolder(config.output, sizes)


def _finished(
    config: BuildConfig, files: Sequence[FileInfo], digests: bool
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the manifest of a finished build of these files, or None and the problems."""
    if not storage.exists(storage.join(config.output, layout.MANIFEST)):
        return None, []
    try:
        made = manifest.read_manifest(config.output)
    except corpus_folder.FolderError as error:
        return None, [str(error).removeprefix(f"{config.output}/")]
    problems = verify_corpus.manifest_problems(made)
    if not problems and {shard["format"] for shard in made["shards"]} != set(config.formats):
        problems = [verify_corpus.Problem(layout.MANIFEST, "is damaged: other formats")]
    if not problems and not _same_inputs(config, made, files):
        return None, []
    if not problems and digests:
        with progress_of(made) as progress_bar:
            problems = verify_corpus.shard_problems(config.output, made, True, progress_bar)
        problems += verify_corpus.kept_problems(config.output)[0]
    elif not problems:
        problems = verify_corpus.shard_problems(config.output, made)
    more = [f"{len(problems) - 10} more files are damaged"] if len(problems) > 10 else []
    return None if problems else made, [*map(str, problems[:10]), *more]


def _same_inputs(config: BuildConfig, made: dict[str, Any], files: Sequence[FileInfo]) -> bool:
    """Return whether a corpus was built from these files, by what is known of their content."""
    before = {file["path"]: file for file in made["inputs"]}  # without those to be tried again
    if before.keys() != {file.path for file in files}:
        return False
    for file in files:
        entry = before[file.path]
        identity = entry.get("identity", "")
        if entry["bytes"] != file.size or (
            identity and file.identity and identity != file.identity
        ):
            return False
    if not config.verify_inputs:
        return True
    wanted = {path: entry["sha256"] for path, entry in before.items()}
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        return all(map(str.__eq__, pool.map(sha256_of, wanted), wanted.values()))


def _needs_tidying(config: BuildConfig, made: dict[str, Any]) -> bool:
    """Return whether `_tidy` would change anything around a finished corpus."""
    merged = storage.listdir(storage.join(config.output, layout.MERGED))
    return (
        bool(verify_corpus.side_file_problems(config.output, made, digests=True))
        or _keep(config, made) != made.get("keep", "all")
        or bool(corpus_folder.kept_to_drop(config.output, _keep(config, made)))
        or any(map(layout.pieces_like, merged))
    )


def _keep(config: BuildConfig, made: dict[str, Any]) -> str:
    """Return which kept folders stay: those of ``--keep``, without those removed earlier."""
    before = made.get("keep")
    return max(config.keep, before if before in KEEP else "all", key=list(KEEP).index)


def _tidy(config: BuildConfig, made: dict[str, Any]) -> dict[str, Any]:
    """Bring side files, kept folders and the manifest of a finished corpus up to date."""
    output = config.output
    keep = _keep(config, made)
    missing = verify_corpus.side_file_problems(output, made, digests=True)
    if missing:
        side = manifest.write_side_files(output, made)
        written = {file["name"] for file in side}
        for problem in missing:
            if problem.file in written:
                print(f"c4: note: {output}: {problem}: written again", file=sys.stderr)
        made = {**made, "side_files": side}
    if missing or keep != made.get("keep", "all"):
        made = {**made, "keep": keep}
        manifest.rewrite_manifest(output, made)
    storage.remove(corpus_folder.kept_to_drop(output, keep))
    corpus_folder.drop_pieces(output)
    return made


def _warn(config: BuildConfig, made: dict[str, Any], done: bool) -> None:
    """Print warnings and notes about a corpus on standard error."""
    if not done and not made["counts"]["pages_written"]:
        print(
            f"c4: warning: the corpus in {config.output} has no pages: none of the "
            f"{made['counts']['pages_read']:,} pages read was kept",
            file=sys.stderr,
        )
    verify_corpus.tell_of_foreign_shards(config.output, made)
    if "side_files" in made:
        listed = {file["name"] for file in made["side_files"]}
        for name in sorted(manifest.side_files(made).keys() - listed):
            print(
                f"c4: note: {storage.join(config.output, name)} was not written by a build; it is "
                "left unchanged",
                file=sys.stderr,
            )
    if config.keep != _keep(config, made):
        print(
            f"c4: note: an earlier build of {config.output} removed kept folders (--keep "
            f"{made['keep']}); to get them back, run with --keep {config.keep} --start-over",
            file=sys.stderr,
        )


def _report_left_out_inputs(config: BuildConfig, files: Sequence[FileInfo]) -> None:
    try:
        made = manifest.read_manifest(config.output)
    except corpus_folder.FolderError:
        return  # no finished build
    left_out = {file["path"] for file in made["inputs"]} - {file.path for file in files}
    if left_out:
        print(
            f"c4: note: {_counted(len(left_out), 'file')} of the previous build not in --input: "
            "rebuilding without them",
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
        f"be read; the corpus in {config.output} is built from the others; repair or remove them "
        f"and run again, or accept with --allow-unreadable-files {len(unreadable)}",
        file=sys.stderr,
    )
    return 1


def print_balance(config: BuildConfig, made: dict[str, Any], wall_s: float | None) -> None:
    """Print pages and lines by rule, where the shards are, and one kept page."""
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
    for reason, count in collections.Counter(
        file["reason"] for file in made.get("recleaned", ())
    ).items():
        what = _RECLEANED.get(reason, "cleaned again ({})").format(reason)
        were = "was" if count == 1 else "were"
        print(f"{_counted(count, 'cleaned file')} {were} {what}")
    resumed = made["timing"]["files_resumed"]
    before = f" ({resumed:,} cleaned before)" if resumed else ""
    if wall_s is None:
        print(f"built earlier from {files} with recipe {config.recipe.name}")
    else:
        print(f"built from {files}{before} in {wall_s:.1f} s with recipe {config.recipe.name}")
    print(f"why a page was dropped: {_explain_command(config, made)}")
    print("what the names of the rules mean: docs/rules.md")
    page = made.get("kept_page")
    if page:
        # A line that wraps is hard to read, and pushes the lines above off the screen.
        width = min(96, shutil.get_terminal_size((96, 24)).columns)
        print(f"\nthe beginning of one kept page: {printable(page['url'])}")
        for line in page["text"].split("\n")[:6]:
            print(textwrap.shorten(printable(line), width, placeholder=" …"))


def _explain_command(config: BuildConfig, made: dict[str, Any]) -> str:
    """Return the command that explains a page of this corpus, for people to complete."""
    words = ["c4", "explain", "--corpus", config.output]
    if made.get("keep", "all") != "all":  # nothing that says in which file a page is
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
