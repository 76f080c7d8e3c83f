"""``c4 build``: checks what is asked for, runs the graph, prints the balance."""

import argparse
import collections
import contextlib
import difflib
import gc
import io
import logging
import os
import re
import shlex
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines import layout, local_worker, manifest, progress, storage
from pipelines.config import BuildConfig
from pipelines.input_list import write_input_list
from pipelines.printing import printable
from pipelines.recipe_option import add_recipe_arguments, badword_lists, recipe_of

__all__ = ["BuildError", "add_arguments", "beam_parser", "run", "run_build"]

# A process takes 2 CPU seconds to start (Beam's imports), for which it cleans some 20 MB.
_BYTES_WORTH_A_PROCESS = 24 << 20
_LOCAL_RUNNERS = {"FnApiRunner", "DirectRunner", "BundleBasedDirectRunner"}


class BuildError(OSError):
    """The build stopped; what was cleaned is kept and the same command goes on from there."""


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
    storage.use_options(rest)  # an address or a key may be among them
    config = BuildConfig(
        inputs=tuple(layout.absolute(pattern) for pattern in arguments.input),
        output=layout.absolute(arguments.output),
        recipe=recipe_of(arguments),
        formats=tuple(name.strip() for name in arguments.format.split(",") if name.strip()),
        shards=_shards(arguments.shards),
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
    options, local = _beam_options(list(rest), arguments.workers, files)
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


def _shards(value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isdecimal():
        raise ValueError(f"--shards wants auto or a whole number, got {value!r}")
    return int(value)


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


def _beam_options(
    rest: list[str], workers: int | None, files: Sequence[tuple[str, int]]
) -> tuple[Any, bool]:
    """Beam's options, with the local defaults filled in, and whether the build runs here."""
    from pipelines.quiet_beam import beam

    options_module = beam.options.pipeline_options
    given = {word.split("=", 1)[0] for word in rest}
    _refuse_unknown(rest)
    if "--runner" not in given:
        # DirectRunner would try to download another engine first (and fall back to this one).
        rest = [*rest, "--runner=FnApiRunner"]
        if "--default_sdk_harness_log_level" not in given:
            # Local workers would write their comings and goings to the terminal.
            rest.append("--default_sdk_harness_log_level=CRITICAL")
    standard = options_module.PipelineOptions(rest).view_as(options_module.StandardOptions)
    local = standard.runner in _LOCAL_RUNNERS
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    if workers is not None and not local:
        raise ValueError(f"--workers is for builds on this machine; {standard.runner} has its own")
    if standard.runner == "DataflowRunner":
        _check_dataflow_folders(rest)
    if not local and given.isdisjoint(("--save_main_session", "--no_save_main_session")):
        # Dataflow's default would send along the module that was started; all that workers need
        # is in the packages that are installed there.
        rest = [*rest, "--no_save_main_session"]
    if standard.runner == "FnApiRunner" and given.isdisjoint(
        ("--direct_running_mode", "--direct_num_workers")
    ):
        count = workers or _local_workers(files)
        if count > 1:
            rest = [*rest, f"--direct_num_workers={count}"]
    options = options_module.PipelineOptions(rest)
    if standard.runner == "FlinkRunner":
        from pipelines import flink

        if given.isdisjoint(("--flink_master", "--job_endpoint", "--output_executable_path")):
            raise ValueError(
                "FlinkRunner needs a cluster: give the address of its JobManager's REST interface, "
                "host:port, or start one with scripts/flink_cluster.sh up (--flink_master)"
            )
        if flink.on_cluster(options):
            completed = flink.complete(rest, given, options)
            options = options_module.PipelineOptions(completed)
    return options, local


def beam_parser() -> argparse.ArgumentParser:
    """A parser of all options that Beam and its runners declare."""
    from pipelines.quiet_beam import beam

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    classes: list[Any] = [beam.options.pipeline_options.PipelineOptions]
    for cls in classes:
        classes += cls.__subclasses__()
        if "_add_argparse_args" in vars(cls):
            with contextlib.suppress(argparse.ArgumentError):  # two classes may share an option
                cls._add_argparse_args(parser)
    return parser


def _refuse_unknown(rest: list[str]) -> None:
    """Beam drops options it does not know; a mistyped one would be lost without a word."""
    parser = beam_parser()
    if "--runner=FlinkRunner" in rest or "FlinkRunner" in rest:
        from pipelines import flink

        for name in flink.JAVA_OPTIONS:
            parser.add_argument(name, nargs="?")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            _, unknown = parser.parse_known_args(rest)
    except SystemExit:
        raise ValueError(errors.getvalue().strip().rsplit("error: ", 1)[-1]) from None
    if unknown:
        own = argparse.ArgumentParser(add_help=False)
        add_arguments(own)
        known = [*own._option_string_actions, *parser._option_string_actions]
        word = unknown[0].split("=", 1)[0]
        near = difflib.get_close_matches(word, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown option {unknown[0]}{hint} (c4 build --help)")


# Bucket names as Beam reads them (apache_beam/options/pipeline_options_validator.py).
_BUCKET_FOLDER = re.compile(r"gs://[a-z0-9][-_a-z0-9.]+[a-z0-9](/.*)?")


def _check_dataflow_folders(rest: list[str]) -> None:
    """Beam takes a malformed folder for none, and tries for minutes to make a bucket of its own."""
    from pipelines.quiet_beam import beam

    module = beam.options.pipeline_options
    options = module.PipelineOptions(rest).view_as(module.GoogleCloudOptions)
    for name in ("temp_location", "staging_location"):
        value = getattr(options, name)
        if value and not _BUCKET_FOLDER.fullmatch(value):
            raise ValueError(f"--{name} must be gs://BUCKET/FOLDER, got {value!r}")


def _local_workers(files: Sequence[tuple[str, int]]) -> int:
    """A process a core, but none that would start for longer than it works, or have no file."""
    worth_starting = sum(size for _, size in files) // _BYTES_WORTH_A_PROCESS
    return max(1, min(_cores(), len(files), worth_starting))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_build(
    config: BuildConfig, options: Any, shown: progress.Source | None = None
) -> dict[str, Any] | None:
    """Runs the graph; returns the manifest, or None when the engine goes on by itself.

    The list of input files is in the output folder already (`pipelines.input_list`). ``shown``:
    where the progress that is shown comes from; None shows none. Raises BuildError, in one line,
    when the build fails.
    """
    from pipelines.build import BuildCorpus
    from pipelines.quiet_beam import beam

    with (
        progress.shown(source=shown) if shown else contextlib.nullcontext() as source,
        _quiet_workers(),
    ):
        notes = source if isinstance(source, progress.Notes) else None
        gc.freeze()  # what is imported stays: the collector need not walk it again and again
        pipeline = beam.Pipeline(runner=_runner(options), options=options)
        _ = pipeline | "BuildCorpus" >> BuildCorpus(config, notes, alone=not _waits(options))
        result = None
        try:
            result = pipeline.run()
            state = result.wait_until_finish() if _waits(options) else None
        except KeyboardInterrupt:
            # Else the job would go on where nobody waits for it, and meet the next build's.
            if result is not None and _waits(options):
                with contextlib.suppress(Exception):
                    result.cancel()
            raise
        except Exception as error:
            if os.environ.get("C4_TRACEBACK"):
                raise
            if "KeyboardInterrupt" in str(error):  # wrapped by the runner
                raise KeyboardInterrupt from None
            raise BuildError(_cause(error, config.output)) from None
    if state is None and not storage.exists(storage.join(config.output, layout.MANIFEST)):
        return None
    return manifest.read_manifest(config.output)


def _runner(options: Any) -> Any:
    """The runner to use; None lets Beam make the one that the options name.

    FnApiRunner does not tell its worker processes the pipeline's options by itself: without them
    no address or key of a file system reaches a worker, nor the level of its log.
    """
    from pipelines.quiet_beam import beam

    standard = options.view_as(beam.options.pipeline_options.StandardOptions)
    if standard.runner == "FlinkRunner":
        from pipelines import flink

        return flink.Runner() if flink.on_cluster(options) else None
    if standard.runner != "FnApiRunner":
        return None
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.job.utils import dict_to_struct
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    given = {
        name: value
        for name, value in options.get_all_options(drop_default=True).items()
        if value is not None
    }
    provision = beam_provision_api_pb2.ProvisionInfo(
        retrieval_token="unused",
        pipeline_options=dict_to_struct(
            {
                # Numbers would arrive as 2.0, which the worker's own parser refuses.
                f"beam:option:{name}:v1": str(value) if type(value) in (int, float) else value
                for name, value in given.items()
            }
        ),
    )
    environment = None
    if given.get("direct_num_workers", 1) > 1 and "direct_running_mode" not in given:
        environment = SubprocessSDKEnvironment.from_command_string(
            f"{shlex.quote(sys.executable)} {local_worker.COMMAND}"
        )
    return fn_runner.FnApiRunner(
        default_environment=environment,
        provision_info=fn_runner.ExtendedProvisionInfo(provision),
    )


def _waits(options: Any) -> bool:
    chosen = options.get_all_options()
    # With a template location Dataflow's runner writes a job down and starts none.
    leaves = ("dry_run", "no_wait_until_finish", "template_location")
    return not any(chosen.get(option) for option in leaves)


@contextlib.contextmanager
def _quiet_workers() -> Iterator[None]:
    """Keeps tracebacks off the terminal: the failure itself comes back as one line."""
    if os.environ.get("C4_TRACEBACK"):
        yield
        return
    loggers = [logging.getLogger(), logging.getLogger("apache_beam")]
    levels = [logger.level for logger in loggers]
    hook = threading.excepthook
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    # The runner's own threads die with the worker that they listen to.
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        threading.excepthook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


_RAISED = re.compile(r"(?P<type>[A-Za-z_][\w.]*?(?:Error|Exception|Interrupt|Exit)): (?P<what>.*)")


def _under_way(output: str) -> str:
    """Which files were being cleaned when a worker died: one of them may be what killed it."""
    try:
        files = manifest.died_on(output)
    except Exception:  # Beam's file systems raise what their clients raise
        return ""
    if not files:
        return ""
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f" while it cleaned {', '.join(files[:3])}{more} (c4 explain FILE reads one alone)"


#: Wrapped around what a worker raised, or what is left when it could raise nothing.
_OF_ENGINES = ("java.", "org.apache.", "io.grpc.", "grpc.")


def _meaning(failure: str) -> str | None:
    """What a failure of the Java side means, when it is one and known."""
    if "\tat " not in failure:
        return None
    from pipelines import flink

    return flink.meaning(failure)


def _cause(error: Exception, output: str) -> str:
    """One line from what a runner raises: often a worker's whole traceback, as text."""
    lines = [
        match
        for line in str(error).splitlines()
        if (match := _RAISED.fullmatch(line.strip())) and not match["type"].startswith(_OF_ENGINES)
    ]
    if not lines and (known := _meaning(str(error))):
        kind, what = "", known
    elif lines:
        innermost = lines[-1]
        while nested := _RAISED.fullmatch(innermost["what"]):  # a runner wraps what a worker raised
            innermost = nested
        kind, what = innermost["type"].rsplit(".", 1)[-1], innermost["what"]
    else:
        kind, what = type(error).__name__, " ".join(str(error).split())[:500]
    what = re.sub(r" \[while running .*", "", what)
    if kind in ("RuntimeError", "BuildError") and "Channel closed" in what:
        what = "a worker process died (killed, or out of memory)"
        kind = ""
    elif kind in ("OSError", "ValueError", "FileNotFoundError", "PermissionError", "FlinkError"):
        what = re.sub(r"^\[Errno \d+\] ", "", what)
        kind = ""
    if not kind and "worker" in what:
        what += _under_way(output)
    prefix = f"{kind}: " if kind else ""
    return (
        f"{prefix}{what}; what is cleaned is kept, and the same command goes on from there "
        "(C4_TRACEBACK=1 shows the traceback)"
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
