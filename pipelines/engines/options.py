"""Options of Beam and its runners, with the defaults of ``c4 build``."""

import argparse
import contextlib
import difflib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines import number_options
from pipelines.engines import local

_MOST_WORKERS = 1024
_OPTIONS_OF_ENGINES = ("--runner", "--direct_running_mode", "--direct_num_workers")
_LOCAL_RUNNERS = {"FnApiRunner", "DirectRunner", "BundleBasedDirectRunner"}


def expects_workers(
    rest: Sequence[str], workers: int | None, files: Sequence[tuple[str, int]]
) -> bool:
    """Return whether a build will start its own workers here, without importing Beam."""
    return runs_on_own_engine(rest) and (workers or local.worker_count(files)) > 1


def runs_on_own_engine(rest: Sequence[str]) -> bool:
    """Return whether the options leave the choice of an engine to ``c4 build``."""
    return {word.split("=", 1)[0] for word in rest}.isdisjoint(_OPTIONS_OF_ENGINES)


def beam_options(
    rest: list[str],
    workers: int | None,
    files: Sequence[tuple[str, int]],
    own: Iterable[str] = (),
) -> tuple[Any, bool]:
    """Return Beam's options, with the local defaults filled in, and whether the build runs here.

    ``own``: the command's own options, which are suggested for a mistyped one.
    """
    from pipelines.engines.viewed_options import ViewedOptions
    from pipelines.quiet_beam import beam

    options_module = beam.options.pipeline_options
    given = {word.split("=", 1)[0] for word in rest}
    _refuse_unknown(rest, own)
    if "--runner" not in given:
        # DirectRunner would try to download another engine first (and fall back to this one).
        rest = [*rest, "--runner=FnApiRunner"]
        if "--default_sdk_harness_log_level" not in given:
            # Local workers would log their start and end to the terminal.
            rest.append("--default_sdk_harness_log_level=CRITICAL")
    standard = options_module.PipelineOptions(rest).view_as(options_module.StandardOptions)
    runs_here = standard.runner in _LOCAL_RUNNERS
    if workers is not None:
        number_options.require_within("--workers", workers, 1, _MOST_WORKERS)
    if workers is not None and not runs_here:
        raise ValueError(f"--workers is for builds on this machine; {standard.runner} has its own")
    if standard.runner == "DataflowRunner":
        from pipelines.engines import dataflow

        dataflow.check(options_module.PipelineOptions(rest))
    if not runs_here and given.isdisjoint(("--save_main_session", "--no_save_main_session")):
        # Dataflow's default would send along the module that was started; all that workers need
        # is in the packages that are installed there.
        rest = [*rest, "--no_save_main_session"]
    if standard.runner == "FnApiRunner" and given.isdisjoint(
        ("--direct_running_mode", "--direct_num_workers")
    ):
        count = workers or local.worker_count(files)
        if count > 1:
            rest = [*rest, f"--direct_num_workers={count}"]
    options = ViewedOptions(rest)
    processes = options.view_as(options_module.DirectOptions).direct_num_workers
    number_options.require_within("--direct_num_workers", processes, 0, _MOST_WORKERS)
    if standard.runner == "FlinkRunner":
        from pipelines.engines import flink

        if given.isdisjoint(("--flink_master", "--job_endpoint", "--output_executable_path")):
            raise ValueError(
                "FlinkRunner needs a cluster: give the address of its JobManager's REST interface, "
                "host:port, or start one with scripts/flink_cluster.sh up (--flink_master)"
            )
        if flink.on_cluster(options):
            completed = flink.complete(rest, given, options)
            options = ViewedOptions(completed)
    return options, runs_here


def beam_parser() -> argparse.ArgumentParser:
    """Return a parser of all options that Beam and its runners declare."""
    from pipelines.quiet_beam import beam

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    number_options.register(parser)
    classes: list[Any] = [beam.options.pipeline_options.PipelineOptions]
    for cls in classes:
        classes += cls.__subclasses__()
        if "_add_argparse_args" in vars(cls):
            with contextlib.suppress(argparse.ArgumentError):  # two classes may share an option
                cls._add_argparse_args(parser)
    return parser


def _refuse_unknown(rest: list[str], own: Iterable[str]) -> None:
    """Raise ValueError for an unknown option: Beam would silently ignore it."""
    parser = beam_parser()
    if "--runner=FlinkRunner" in rest or "FlinkRunner" in rest:
        from pipelines.engines import flink

        for name in flink.JAVA_OPTIONS:
            parser.add_argument(name, nargs="?")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            _, unknown = parser.parse_known_args(rest)
    except SystemExit:
        raise ValueError(errors.getvalue().strip().rsplit("error: ", 1)[-1]) from None
    if unknown:
        known = [*own, *parser._option_string_actions]
        word = unknown[0].split("=", 1)[0]
        near = difflib.get_close_matches(word, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown option {unknown[0]}{hint} (--help)")


def waits(chosen: Mapping[str, Any]) -> bool:
    """Return whether, with these options of Beam, the launcher waits for the end of the job."""
    # With a template location, Dataflow's runner writes the job and does not start it.
    leaves = ("dry_run", "no_wait_until_finish", "template_location")
    return not any(chosen.get(option) for option in leaves)
