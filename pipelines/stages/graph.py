"""The corpus build as one Beam graph.

::

    ListInputs -> CleanFiles ---> url rows by bucket --> outdated pages by file --+
                       |                                                          |
                       +--------> span rows by bucket -> repeated spans by file --+-> WriteRemovals
                       |                                      NearDuplicates, if asked for -+
                       |                                                                    |
                       +--> MergeFiles, where files are many <------------------------------+
                       |        |                                                           |
                       +-----> WriteShards <-------------------- PlanShards <---------------+
                                    |
                                    +-> WriteManifest

The graph carries settings, never the names of files: a worker reads these from the list that the
launcher made (`pipelines.input_list`). Text stays in files and is read once by the shard it belongs
to. Fingerprint files of older corpora (``--against``) join those of cleaned files on their way to
both kinds of buckets (`pipelines.stages.older_files`). Pages on an opt-out list are found after
CleanFiles, take no part in deduplication, and become removals.
"""

import contextlib
import dataclasses
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from c4_filters.opt_out import OptOut
from c4_filters.pages import PageRules
from c4_filters.spans import PAGE_BYTES, SPAN_BYTES
from pipelines import builders, corpus_folder, storage, verify_corpus
from pipelines.config import BuildConfig
from pipelines.corpus import formats, layout
from pipelines.corpus.card.owner import read_owner
from pipelines.corpus.cleaned import CleanedSource
from pipelines.corpus.manifest import Manifest
from pipelines.corpus.older import Older, read_unchanged
from pipelines.corpus.opened import OpenedFiles
from pipelines.corpus.pieces import PiecePart
from pipelines.finish_corpus import finish_corpus, make_manifest
from pipelines.input_list import read_input_list
from pipelines.prepared import prepare, require_readable
from pipelines.progress import Notes
from pipelines.quiet_beam import beam
from pipelines.stages import dedup, older_files
from pipelines.stages.clean_files import FileSummary, clean_file, clean_identity
from pipelines.stages.merge_files import (
    MergePlan,
    MergeTask,
    cleaned_sources,
    merge_files,
    plan_merge,
)
from pipelines.stages.near_dedup import NearDuplicates
from pipelines.stages.write_shards import ShardSummary, ShardTask, plan_shards, write_shard
from pipelines.worker_notes import WorkerNotes


@dataclasses.dataclass(frozen=True)
class Totals:
    """Sums over all cleaned files: they decide the number of buckets and shards."""

    units: int = 0
    pages: int = 0
    text_bytes: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.units + other.units,
            self.pages + other.pages,
            self.text_bytes + other.text_bytes,
        )


@dataclasses.dataclass(frozen=True)
class _Job:
    """The build that the stages are part of."""

    config: BuildConfig
    claim: builders.Claim
    notes: Notes | None  # progress, on this machine only

    def require(self, now: bool = False) -> None:
        """Show that the build runs. Raises OSError if another build has taken the folder."""
        self.claim.require(now)
        self.claim.show()

    def note(self, stage: str, key: str, done: int, pages: int = 0) -> None:
        """Note that of part ``key`` of a stage ``done`` units are done."""
        if self.notes is not None:
            self.notes.note(stage, key, done, pages)

    def total(self, stage: str, total: int) -> None:
        """Note that a stage begins, and how many units it has."""
        if self.notes is not None:
            self.notes.total(stage, total)


@dataclasses.dataclass(eq=False)
class BuildCorpus(beam.PTransform[Any, Any]):
    """The whole build: put it on a pipeline, and its output is the manifest, written last.

    >>> from pipelines import BuildConfig
    >>> BuildCorpus(BuildConfig(inputs="wet/*.gz", output="corpus")).config.inputs
    ('wet/*.gz',)

    Applied to a pipeline, it checks inputs and folder, takes the folder for this build and lists
    the input files there. If the same corpus is there already, it only yields the manifest. A
    launcher that has done all this (``c4 build``) gives its ``claim``.
    """

    config: BuildConfig
    notes: Notes | None = None  # progress, on this machine only
    alone: bool = False  # no launcher waits: the job itself fails when too little could be read
    claim: builders.Claim | None = None  # on the folder, if the launcher has taken it

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, begin: Any) -> Any:
        """Prepare the folder unless a launcher has done so, and add the stages."""
        if self.claim is not None:
            return self._stages(begin, self.config, self.claim, self.alone)
        # Workers get these options from Beam, but a worker may also be a thread of this process.
        storage.use_options(begin.pipeline.options.get_all_options())
        prepared = prepare(self.config)
        prepared.look_for_finished()
        config = prepared.config
        if not prepared.is_done:
            with prepared.claimed(
                builders.TRANSFORM, type(begin.pipeline.runner).__name__
            ) as claim:
                if prepared.finished is None:
                    return self._stages(begin, config, claim, alone=True)
                prepared.tidy_up()
                claim.end()
        made = prepared.finished
        # Of no declared type: Beam would take a dataclass for a row of its own kinds of columns.
        return (
            begin
            | "Finished" >> beam.Create([config.output])
            | "Manifest" >> beam.Map(lambda _: made).with_output_types(Any)
        )

    def _stages(self, begin: Any, config: BuildConfig, claim: builders.Claim, alone: bool) -> Any:
        """Add the stages of this module's head."""
        # The patterns, as many as files perhaps, stay with the launcher, which made the list.
        listed = storage.join(config.output, layout.INPUTS)
        config = config.with_inputs(listed)
        job = _Job(config, claim, self.notes)
        files = (
            begin
            | "Start" >> beam.Impulse()
            | "ListInputs" >> beam.FlatMap(_list_inputs, job).with_output_types(_Numbered)
            | "SpreadFiles" >> Spread()
            | "CleanFiles" >> beam.ParDo(_CleanFile(job))
        )
        readable = files | "Readable" >> beam.Filter(lambda file: not file.unreadable)
        totals = (
            readable
            | "Total" >> beam.Map(_totals_of)
            | "AddUp" >> beam.CombineGlobally(_add_up).as_singleton_view()
        )
        # With each name go the pages that the opt-out list covers, packed.
        names = readable | "Names" >> beam.Map(lambda file: (file.name, b""))
        if config.opt_out is not None:
            names = names | "OptedOut" >> beam.ParDo(_OptedOut(job)).with_output_types(
                tuple[str, bytes]
            )

        deduplicated = self._deduplicate(begin, names, totals, job)
        # Stages that take these names wait until the removals of all files are written.
        ready = beam.pvalue.AsList(deduplicated)
        pieces = (
            begin
            | "StartMerge" >> beam.Impulse()
            | "PlanMerge"
            >> beam.FlatMap(_plan_merge, job, totals, ready).with_output_types(_Numbered)
            | "SpreadPieces" >> Spread()
            | "MergeFiles"
            >> beam.FlatMap(_merge_files, job, totals, ready).with_outputs("made", main="parts")
        )
        planned = (
            begin
            | "StartShards" >> beam.Impulse()
            | "PlanShards"
            >> beam.FlatMap(
                _plan_shards, job, totals, ready, beam.pvalue.AsList(pieces.made)
            ).with_output_types(_Numbered)
        )
        shards = (
            {"task": planned, "parts": pieces.parts}
            | "ShardsAndParts" >> beam.CoGroupByKey()
            | "WriteShards" >> beam.ParDo(_WriteShards(job), ready)
        )
        return (
            begin
            | "Finish" >> beam.Impulse()
            | "WriteManifest"
            >> beam.Map(
                _write_manifest, alone, job, beam.pvalue.AsList(files), beam.pvalue.AsList(shards)
            ).with_output_types(Any)
        )

    def _deduplicate(self, begin: Any, names: Any, totals: Any, job: _Job) -> Any:
        """Add the stages from cleaned files to removals; the output has the names of the files."""
        config, recipe, older = job.config, job.config.recipe, job.config.older
        compared = names  # what goes through deduplication
        if older:
            groups = (
                begin
                | "StartOlder" >> beam.Impulse()
                | "ListOlder" >> beam.FlatMap(_list_older, job).with_output_types(tuple[str, bytes])
                | "SpreadOlder" >> beam.GroupByKey()
                | "OlderGroups" >> beam.MapTuple(_only_value).with_output_types(tuple[str, bytes])
            )
            compared = (names, groups) | "Compared" >> beam.Flatten()

        lost_pages = lost_spans = None
        if not recipe.dedup_urls or recipe.dedup_unit == "none":
            nothing = beam.Create([]).with_output_types(tuple[str, bytes])
            lost_pages = lost_spans = begin | "Nothing" >> nothing
        if recipe.dedup_urls:
            urls = compared | "UrlRows" >> beam.ParDo(_UrlRows(job), totals).with_outputs(
                "lost", main="rows"
            )
            outdated = (
                urls.rows
                | "UrlsByBucket" >> beam.GroupByKey()
                | "OutdatedPages"
                >> beam.FlatMap(_outdated_pages, older).with_output_types(tuple[str, bytes])
            )
            lost_pages = (urls.lost, outdated) | "LostPages" >> beam.Flatten()
        if recipe.dedup_unit != "none":
            spans = (
                {"file": compared, "pages": lost_pages}
                | "PagesByFile" >> beam.CoGroupByKey()
                | "SpanRows" >> beam.ParDo(_SpanRows(job), totals).with_outputs("lost", main="rows")
            )
            repeated = (
                spans.rows
                | "SpansByBucket" >> beam.GroupByKey()
                | "RepeatedSpans"
                >> beam.FlatMap(_repeated_spans).with_output_types(tuple[str, bytes])
            )
            lost_spans = (spans.lost, repeated) | "LostSpans" >> beam.Flatten()
        deduplicated = (
            {"file": names, "pages": lost_pages, "spans": lost_spans}
            | "RemovalsByFile" >> beam.CoGroupByKey()
            | "WriteRemovals" >> beam.FlatMap(_write_removals, job).with_output_types(str)
        )
        if recipe.near_dedup is not None:
            own = beam.ParDo(_Own(job))
            near = NearDuplicates(config, job.claim.build_id, totals, own, job.note)
            deduplicated = deduplicated | "NearDuplicates" >> near
        return deduplicated


class Spread(beam.PTransform[Any, Any]):
    """Spread numbered elements over workers, one per key, in the order they come.

    Largest first is then fair: runners that deal out keys in turn give each worker its share.
    """

    def expand(self, elements: Any) -> Any:
        """Spread the elements: group by number, drop the numbers."""
        return (
            elements
            | "Group" >> beam.GroupByKey()
            | "Ungroup" >> beam.FlatMap(lambda group: group[1])
        )


_Numbered = tuple[int, Any]  # what `Spread` takes


class _Own(beam.DoFn):
    """Passes elements on, unless another build has taken the folder."""

    def __init__(self, job: _Job) -> None:
        self._job = job

    def process(self, element: Any) -> Iterator[Any]:
        self._job.require()
        yield element


def _list_inputs(_: bytes, job: _Job) -> Iterator[tuple[int, tuple[str, int, str, bool]]]:
    output = job.config.output
    _require_folder(output)
    job.require(now=True)
    job.config.opt_out_list()  # a file that workers do not see stops here, not at the end
    if job.config.card is not None:
        read_owner(job.config.card)
    files = read_input_list(output, job.claim.run_id)
    job.total("clean", sum(file.size for file in files))
    if job.notes is not None:
        job.notes.expect("dedup", len(files))
        if job.config.recipe.near_dedup is not None:
            job.notes.expect("near", len(files))
    files.sort(key=lambda file: (-file.size, file.path))
    kept = {
        name.rpartition(".")[0]
        for folder in ("cleaned", "rejects")
        for name in storage.listdir(storage.join(output, folder))
    }
    # Plain tuples: every engine's coder knows them.
    return enumerate(
        [
            (file.path, file.size, file.identity, kept.isdisjoint(layout.file_names(file.path)))
            for file in files
        ]
    )


def _require_folder(output: str) -> None:
    """Raise OSError where the launcher's folder is not seen: its files would be scattered."""
    if not storage.exists(storage.join(output, layout.BUILD)):
        raise OSError(
            f"the worker on {socket.gethostname()} does not see the folder {output}: give one that "
            "every worker sees, such as gs://, s3://, hdfs:// or a network mount (--output)"
        )


class _CleanFile(beam.DoFn):
    """(path, bytes, identity, whether it is new) -> FileSummary; writes its files on the way."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._identity = clean_identity(job.config)
        self._rules: PageRules | None = None
        self._worker: WorkerNotes | None = None

    def setup(self) -> None:
        _require_folder(self._job.config.output)
        self._rules = self._job.config.page_rules()
        self._worker = WorkerNotes(self._job.claim)

    def process(self, element: tuple[str, int, str, bool]) -> Iterator[FileSummary]:
        path, size, content, new = element
        job, config, name = self._job, self._job.config, layout.file_name(path)
        worker = self._worker
        assert self._rules is not None
        assert worker is not None
        job.require()

        def report(bytes_read: int, pages: int) -> None:
            job.claim.show()
            job.note("clean", name, bytes_read, pages)
            worker.report(name, bytes_read, pages)

        with _marked(layout.started(config.output, name), path):
            summary = clean_file(
                path, size, config.output, self._rules, self._identity, config.max_record_bytes,
                report, config.max_file_bytes, content, config.verify_inputs, new, config.source,
            )  # fmt: skip
        report(size, summary.pages_read)
        read = (0, 0) if summary.resumed else (size, summary.pages_read)
        worker.finish(name, *read, summary.unreadable)
        yield summary


@contextlib.contextmanager
def _marked(mark: str, path: str) -> Iterator[None]:
    """Keep a file there while the block runs; it stays only if the process dies."""
    with storage.write_atomically(mark) as file:
        file.write(path.encode("utf-8", "surrogateescape"))
    try:
        yield
    finally:
        storage.remove([mark])


def _totals_of(file: FileSummary) -> Totals:
    return Totals(file.units, file.fingerprint_pages, file.text_bytes)


def _add_up(parts: Iterable[Totals]) -> Totals:
    return sum(parts, Totals())


def _list_older(_: bytes, job: _Job) -> Iterator[tuple[str, bytes]]:
    return older_files.list_groups(job.config.older)


class _OptedOut(beam.DoFn):
    """(name, nothing) -> (name, packed pages that the opt-out list covers)."""

    def __init__(self, job: _Job) -> None:
        self._config = job.config
        self._list: OptOut | None = None

    def setup(self) -> None:
        self._list = self._config.opt_out_list()

    def process(self, element: tuple[str, bytes]) -> Iterator[tuple[str, bytes]]:
        assert self._list is not None
        name, _ = element
        yield name, dedup.opted_out_pages(self._config.output, name, self._list)


def _only_value(name: str, values: Iterable[bytes]) -> tuple[str, bytes]:
    [value] = values
    return name, value


class _UrlRows(beam.DoFn):
    """(name, files) -> (bucket, (name, packed urls)), and (name, packed rows) lost at once."""

    def __init__(self, job: _Job) -> None:
        self._output = job.config.output
        self._older = job.config.older
        self._older_pages = sum(corpus.pages for corpus in job.config.older)

    def process(self, element: tuple[str, bytes], totals: Totals) -> Iterator[Any]:
        name, packed_rows = element  # opted-out pages, or files of an older corpus
        buckets = dedup.bucket_count(totals.pages + self._older_pages, PAGE_BYTES)
        if older_files.is_older(name):
            lost, packed = older_files.url_buffers(self._older, name, packed_rows, buckets)
        else:
            lost, packed = dedup.url_buffers(self._output, name, buckets, packed_rows)
        return _sent(name, lost, packed)


class _SpanRows(beam.DoFn):
    """(name, lost pages) -> (bucket, (name, packed spans)), and (name, first units) lost."""

    def __init__(self, job: _Job) -> None:
        self._output = job.config.output
        self._window = job.config.recipe.dedup_window
        self._older = job.config.older
        self._older_units = sum(corpus.units for corpus in job.config.older)

    def process(self, element: tuple[str, Any], totals: Totals) -> Iterator[Any]:
        name, found = element
        lost, buckets = None, dedup.bucket_count(totals.units + self._older_units, SPAN_BYTES)
        packed_rows = b"".join(found["file"])  # opted-out pages, or files of an older corpus
        if older_files.is_older(name):
            packed = older_files.span_buffers(
                self._older, name, packed_rows, found["pages"], self._window, buckets
            )
        else:
            lost, packed = dedup.span_buffers(
                self._output, name, found["pages"], self._window, buckets, packed_rows
            )
        return _sent(name, lost, packed)


def _sent(name: str, lost: bytes | None, packed: Mapping[int, bytes]) -> Iterator[Any]:
    """Yield a file's rows by bucket, and those that it lost at once."""
    if lost is not None:
        yield beam.pvalue.TaggedOutput("lost", (name, lost))
    for bucket, buffer in packed.items():
        yield bucket, (name, buffer)


def _outdated_pages(
    group: tuple[int, Iterable[tuple[str, bytes]]], older: tuple[Older, ...]
) -> Iterator[tuple[str, bytes]]:
    return older_files.outdated_pages(group[1], older)


def _repeated_spans(group: tuple[int, Iterable[tuple[str, bytes]]]) -> Iterator[tuple[str, bytes]]:
    return older_files.repeated_spans(group[1])


def _write_removals(element: tuple[str, Any], job: _Job) -> Iterator[str]:
    job.require()
    name, found = element
    if older_files.is_older(name):  # whose pages are only looked at
        return
    window, build_id = job.config.recipe.dedup_window, job.claim.build_id
    dedup.write_file_removals(
        job.config.output,
        name,
        found["pages"],
        found["spans"],
        window,
        build_id,
        b"".join(found["file"]),
    )
    job.note("dedup", name, 1)
    yield name


def _planned(
    totals: Totals, names: list[str], job: _Job
) -> tuple[list[ShardTask], MergePlan | None]:
    """Return all shards, and how files are merged before shards are written, if they are."""
    shards = plan_shards(totals.text_bytes, job.config.shards)
    return shards, plan_merge(len(names), totals.text_bytes, len(shards))


def _writer_of(number: int, shards: Sequence[ShardTask]) -> int:
    """Return the key of what is written together: one train shard, and perhaps a validation shard.

    Runners deal out keys in turn, in any order. So all keys are about the same work.

    >>> [_writer_of(number, plan_shards(0, 2)) for number in range(3)]
    [0, 1, 0]
    """
    return number % shards[0].count


def _plan_merge(
    _: bytes, job: _Job, totals: Totals, names: list[str]
) -> Iterator[tuple[int, MergeTask]]:
    if (plan := _planned(totals, names, job)[1]) is not None:
        job.total("merge", plan.groups * plan.ranges)
        yield from enumerate(plan.tasks())


def _merge_files(task: MergeTask, job: _Job, totals: Totals, names: list[str]) -> Iterator[Any]:
    """Make a piece, and pass every shard its part of it."""
    job.require()
    config = job.config
    shards, plan = _planned(totals, names, job)
    assert plan is not None
    parts = merge_files(
        task, plan, names, shards, config.output, job.claim.build_id, config.provenance
    )
    job.note("merge", f"{task.group}-{task.shards}", 1)
    yield beam.pvalue.TaggedOutput("made", 1)
    for number, part in parts:
        yield _writer_of(number, shards), (number, part.packed())


def _plan_shards(
    _: bytes, job: _Job, totals: Totals, names: list[str], pieces: list[int]
) -> Iterator[tuple[int, tuple[int, ShardTask, bool]]]:
    del pieces
    shards, plan = _planned(totals, names, job)
    counts = {shard.split: shard.count for shard in shards}
    job.require(now=True)
    corpus_folder.plan_files(
        job.config.output, formats.shard_file_names(counts, job.config.formats)
    )
    job.total("write", len(shards))
    for number, task in enumerate(shards):
        yield _writer_of(number, shards), (number, task, plan is not None)


class _WriteShards(beam.DoFn):
    """(key, tasks and parts of pieces) -> ShardSummary of each; writes their files on the way."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._rules: PageRules | None = None
        self._opened: OpenedFiles | None = None

    def setup(self) -> None:
        self._rules = self._job.config.page_rules()
        self._opened = OpenedFiles()

    def teardown(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def process(self, element: tuple[int, Any], names: list[str]) -> Iterator[ShardSummary]:
        job, output = self._job, self._job.config.output
        assert self._rules is not None
        parts: dict[int, list[PiecePart]] = {}
        for number, part in element[1]["parts"]:
            parts.setdefault(number, []).append(PiecePart.unpacked(part))
        for number, task, merged in sorted(element[1]["task"], key=lambda task: task[0]):
            job.require()
            sources: Sequence[CleanedSource | PiecePart]
            sources = sorted(parts.get(number, ())) if merged else cleaned_sources(output, names)
            summary = write_shard(
                task, sources, output, job.config.formats, self._rules, job.claim.build_id,
                lambda: job.require(now=True), self._opened, job.config.provenance,
            )  # fmt: skip
            job.note("write", f"{task.split}-{task.index}", 1, summary.pages)
            yield summary


def _write_manifest(
    _: bytes, alone: bool, job: _Job, files: list[FileSummary], shards: list[ShardSummary]
) -> Manifest:
    config = job.config
    for older in config.older:
        read_unchanged(older)
    made = make_manifest(config, files, shards)
    job.require(now=True)
    if wrong := verify_corpus.shard_problems(config.output, made):
        raise OSError(
            f"{config.output}: {wrong[0]}: something else writes into this folder; run the same "
            "c4 build again"
        )
    made = finish_corpus(config.output, made, lambda: job.require(now=True))
    if alone:
        storage.remove(corpus_folder.kept_to_drop(config.output, config.keep))
        builders.remove_progress(config.output)
        job.claim.end()
        require_readable(config, made)
    return made
