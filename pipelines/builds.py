"""Build a corpus: what ``c4 build`` does, apart from reading options and printing the summary."""

from collections.abc import Sequence
from typing import NamedTuple

from pipelines import builders, progress, storage
from pipelines.config import BuildConfig, RunConfig
from pipelines.corpus import layout
from pipelines.corpus.manifest import Manifest
from pipelines.engines.local import OneThread, Workers
from pipelines.engines.options import beam_options, expects_workers, waits
from pipelines.engines.run import run_build
from pipelines.prepared import Note, prepare, require_readable, tidy
from pipelines.printing import print_note


class Built(NamedTuple):
    """The result of a build."""

    manifest: Manifest | None  # None: the job was submitted, and the launcher does not wait
    was_complete: bool = False  # the same corpus was there already


def build(
    config: BuildConfig,
    *,
    options: Sequence[str] = (),
    workers: int | None = None,
    start_over: bool = False,
    verify: bool = False,
    show_progress: bool = True,
    note: Note = print_note,
) -> Manifest:
    """Build a corpus as ``c4 build`` does, and return its manifest.

    A corpus that is complete already is not built again; WET files that are cleaned already are
    not cleaned again.

    Args:
        config: What to build.
        options: Of Apache Beam, as on a command line, such as ``["--runner=FlinkRunner", …]``.
            Without a runner, the build runs on this machine.
        workers: Processes on this machine; None: one per core, fewer for a small input.
        start_over: First remove what earlier builds wrote in the output folder.
        verify: Check every checksum of a finished corpus, and rebuild what is damaged.
        show_progress: Whether to show a progress bar on standard error.
        note: Takes lines about the folder, such as what is rebuilt.

    Returns:
        The manifest.

    Raises:
        ValueError: Settings, inputs or folder do not fit, or the options say not to wait for the
            end of the job.
        OSError: A file cannot be read or written; another build runs in the folder; or more input
            files could not be read than allowed.
        BuildError: The build failed on its runner.
    """
    running = RunConfig(
        workers=workers, start_over=start_over, verify=verify, quiet=not show_progress
    )
    made = run(config, running, options=options, note=note, detached=False).manifest
    if made is None:
        raise OSError(f"the job ended, but {config.output} has no {layout.MANIFEST}")
    require_readable(config, made)
    return made


def run(
    config: BuildConfig,
    running: RunConfig,
    *,
    options: Sequence[str] = (),
    note: Note = print_note,
    known_options: Sequence[str] = (),
    detached: bool = True,
    one_thread: OneThread | None = None,
) -> Built:
    """Build a corpus, even if some inputs cannot be read; see `build`.

    ``known_options`` are suggested for a mistyped one among ``options``. ``detached``: whether the
    options may say not to wait for the end of the job. ``one_thread``: see `Workers`.
    """
    storage.use_options(options)  # an address or a key may be among them
    prepared = prepare(config, start_over=running.start_over, note=note)
    config, sizes = prepared.config, [(file.path, file.size) for file in prepared.files]
    # Modules of own rules may hold what no fork may share, such as open files.
    with Workers(None if config.recipe.rules else one_thread) as processes:
        if expects_workers(options, running.workers, sizes):
            processes.prepare()
        beam, local = beam_options(list(options), running.workers, sizes, known_options)
        prepared.look_for_finished(running.verify)
        if prepared.is_done:
            return Built(prepared.finished, True)
        chosen = beam.get_all_options()
        kind = builders.WAITING if waits(chosen) else builders.DETACHED
        written_down = ("template_location", "output_executable_path", "dry_run")
        # Dataflow's own launcher asks for both, and the service starts the job at once.
        if not chosen.get("no_wait_until_finish") and any(map(chosen.get, written_down)):
            kind = builders.TEMPLATE
        if kind != builders.WAITING and not detached:
            raise ValueError(
                "pipelines.build returns the manifest, so it waits for the end of the job: leave "
                "out the option that does not wait, or run c4 build"
            )
        with prepared.claimed(kind, str(chosen.get("runner"))) as claim:
            made = prepared.finished
            if made is None:
                from pipelines.stages.graph import BuildCorpus  # imports Beam

                shown = None if running.quiet else _progress(claim, sizes, local)
                made = run_build(BuildCorpus(config, claim=claim), beam, shown, processes)
            if made is not None:
                made = tidy(config, made, note)
                claim.end()
        return Built(made, prepared.finished is not None)


def _progress(
    claim: builders.Claim, files: Sequence[tuple[str, int]], local: bool
) -> progress.Opener:
    """Return the source of progress: local workers report it, remote ones leave files."""
    if local:
        return progress.Notes
    sizes = {layout.file_name(path): size for path, size in files}
    return lambda _: progress.CorpusFolder(claim.output, sizes, run_id=claim.run_id)
