"""Run the graph of a build on the engine that the options name."""

import contextlib
import dataclasses
import gc
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipelines import progress, storage
from pipelines.corpus import layout
from pipelines.corpus.manifest import Manifest, read_manifest
from pipelines.engines import local
from pipelines.engines.failures import BuildError, cause
from pipelines.engines.options import waits

if TYPE_CHECKING:
    from pipelines.stages.graph import BuildCorpus


def run_build(
    corpus: "BuildCorpus",
    options: Any,
    shown: progress.Opener | None,
    workers: local.Workers | None = None,
) -> Manifest | None:
    """Run the graph, and return the manifest, or None if the launcher does not wait for the job.

    Args:
        corpus: The build, with the claim on its folder, which holds the list of input files
            (`pipelines.input_list`).
        options: Beam's.
        shown: Source of the progress to show; None shows none.
        workers: Starts processes of this machine, if the options ask for any; ended afterwards.

    Raises:
        BuildError: The build failed; the message is one line.
    """
    from pipelines.quiet_beam import beam

    chosen = options.get_all_options()  # slow: a parser of all that Beam and its engines declare
    output, has_workers, is_awaited = corpus.config.output, local.has_workers(chosen), waits(chosen)
    with (
        progress.shown(source=shown) if shown else contextlib.nullcontext() as source,
        _quiet_loggers(),
        contextlib.nullcontext() if has_workers else _quiet_threads(),
        _frozen_heap(),
        workers or local.Workers() as workers,
    ):
        notes = source if isinstance(source, progress.Notes) else None
        pipeline = beam.Pipeline(runner=_runner(options, chosen, workers), options=options)
        corpus = dataclasses.replace(corpus, notes=notes, alone=not is_awaited)
        _ = pipeline | "BuildCorpus" >> corpus
        result = None
        try:
            if has_workers:
                state = workers.run(lambda: pipeline.run().wait_until_finish())
            else:
                result = pipeline.run()
                state = result.wait_until_finish() if is_awaited else None
        except KeyboardInterrupt:
            # Otherwise the job would run on and collide with the next build.
            if result is not None and is_awaited:
                with contextlib.suppress(Exception):
                    result.cancel()
            raise
        except Exception as error:
            if os.environ.get("C4_TRACEBACK"):
                raise
            if "KeyboardInterrupt" in str(error):  # wrapped by the runner
                raise KeyboardInterrupt from None
            raise BuildError(cause(error, output)) from None
    if state is None and not storage.exists(storage.join(output, layout.MANIFEST)):
        return None
    return read_manifest(output)


def _runner(options: Any, chosen: Mapping[str, Any], workers: local.Workers) -> Any:
    """Return the runner to use, or None to let Beam create the one in the options."""
    if chosen["runner"] == "FlinkRunner":
        from pipelines.engines import flink

        return flink.Runner() if flink.on_cluster(options) else None
    if chosen["runner"] == "FnApiRunner":
        from pipelines.engines.local_runner import runner

        return runner(options, chosen, workers)
    return None


@contextlib.contextmanager
def _frozen_heap() -> Iterator[None]:
    """Keep the garbage collector from visiting imported modules again and again."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # a notebook lives on after a build


@contextlib.contextmanager
def _quiet_loggers() -> Iterator[None]:
    """Keep tracebacks off the terminal: the failure itself is reported in one line."""
    if os.environ.get("C4_TRACEBACK"):
        yield
        return
    root, beam_logger = logging.getLogger(), logging.getLogger("apache_beam")
    levels = root.level, beam_logger.level
    for logger in (root, beam_logger):
        logger.setLevel(logging.CRITICAL)
    try:
        yield
        # Not after a failure or an interrupt: threads of the runner may log its end later still.
        beam_logger.setLevel(levels[1])
    finally:
        root.setLevel(levels[0])


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Silence exceptions in threads of the runner; `local.Workers.run` does so by itself."""
    hook = threading.excepthook
    if not os.environ.get("C4_TRACEBACK"):
        threading.excepthook = lambda _: None
    try:
        yield
    finally:
        threading.excepthook = hook
