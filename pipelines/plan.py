"""What a build costs before it runs: CPU, bytes moved and kept, memory, requests, time.

The build is a chain of stages (`pipelines.stages.graph`), each with so many tasks that run side by
side. A stage's CPU is a sum of rates times amounts (`Rates`, measured; `Work`, what goes in); its
wall time is Graham's bound, all work spread evenly and then one longest task alone. Nothing in this
module reads a file, asks a network or knows a price. docs/scale.md says how far to trust it.
"""

import dataclasses
import math

from c4_filters import spans
from pipelines.corpus.layout import SPLITS
from pipelines.corpus.opened import MOST_SOURCES
from pipelines.stages import dedup
from pipelines.stages.merge_files import plan_merge
from pipelines.stages.write_shards import plan_shards

__all__ = ["Engine", "Fleet", "OlderWork", "Plan", "Profile", "Rates", "Stage", "Work", "make_plan"]

_BUFFER_HEAD_BYTES = 24  # of a packed buffer: c4_filters.spans
ELEMENT_BYTES = 64  # a file's name (about 60 bytes at Common Crawl), its length, the bucket
_FETCH_BYTES = 16 << 20  # one request, where a file of gs:// or s3:// is read from its beginning
_SCATTERED_BYTES = 64 << 10  # and where small parts are read: pipelines.storage
_AHEAD_BYTES = 4 << 20  # and where a range of sections is read
_BATCH_TEXT_BYTES = 256 << 10  # of a cleaned file: pipelines.corpus.cleaned
_REPEATED = 0.15  # of the spans sent, the part that is removed: python -m benchmarks.scale
_INDEX_BYTES = 110  # of a batch in a cleaned file's table of sections
_PROVENANCE_BYTES = 25  # a page in a Parquet shard: docs/reading.md
_REMOVAL_BYTES = 0.2  # a unit: its bit, and the keeper of each removed one (0.12 en, 0.30 tfds)


@dataclasses.dataclass(frozen=True)
class Profile:
    """Amounts per page read. The default is CC-MAIN-2019-18 with recipe ``en``.

    Its sources are the paper and TensorFlow Datasets' figures of the published build (365 million
    pages, about 750 GB of text, of 2.50 billion pages read) and real pages, for bytes stored and
    `effort`. Estimates: one page in four or five survives the line rules, a quarter of the
    kept text and a seventh of the kept pages are duplicates, a sentence has 93 bytes (real
    pages: 95). A corpus of your own pages replaces them all (`pipelines.measured_corpus`).
    """

    stored_bytes: float = 2_800.0  # gzip, as Common Crawl stores it: 7.0 TB in all
    text_bytes: float = 7_800.0  # unpacked: about 350 MB a file
    judged_pages: float = 0.22  # past the line rules: their language is detected
    kept_pages: float = 0.17  # past all rules
    kept_bytes: float = 400.0  # of text
    units: float = 4.3  # sentences
    written_bytes: float = 300.0
    sent_spans: float = 0.85  # part of the spans that no other page of the same file has smaller
    effort: float = 1.5  # CPU of cleaning, against generated pages of the same amounts
    cleaned_ratio: float = 0.655  # of cleaned files, a kept byte of text
    shard_ratio: float = 0.37  # of Parquet shards, a written byte of text


@dataclasses.dataclass(frozen=True)
class Work:
    """What goes through a build, all files together."""

    files: int
    pages: float
    profile: Profile

    def of(self, name: str) -> float:
        """Return the whole amount of one of the profile's fields."""
        return float(getattr(self.profile, name)) * self.pages


@dataclasses.dataclass(frozen=True)
class OlderWork:
    """What a build reads of older corpora: groups of fingerprint files, all together."""

    groups: int = 0
    pages: float = 0.0
    units: float = 0.0


@dataclasses.dataclass(frozen=True)
class Rates:
    """CPU seconds and bytes per unit of work.

    Measured on one core of the machine of docs/log.md with `benchmarks/plan.py` of version 0.1;
    ``Fleet.cpu_factor`` carries them over to another. ``python -m benchmarks.plan check`` holds
    them against builds.
    """

    # Cleaning, by least squares over corpora that differ in one amount at a time.
    read_page_s: float = 36e-6
    read_byte_s: float = 3.8e-9
    judged_page_s: float = 55e-6
    judged_byte_s: float = 37e-9  # of text past the line rules
    kept_page_s: float = 41e-6
    kept_byte_s: float = 9.8e-9
    # Deduplication.
    url_page_s: float = 0.74e-6  # read, settled in the file, packed
    unit_s: float = 0.28e-6  # a file's spans: read, hashed, settled, packed
    pack_buffer_s: float = 4.6e-6  # a buffer made
    bucket_row_s: float = 0.068e-6  # sorted in a bucket
    bucket_buffer_s: float = 33e-6  # a buffer opened
    removal_unit_s: float = 0.029e-6
    element_s: float = 8.2e-6  # through a runner's shuffle
    shuffle_byte_s: float = 6.8e-9
    # Merging and writing.
    merge_byte_s: float = 4.8e-9  # of kept text, read and written again
    merge_page_s: float = 7.3e-6
    open_s: float = 240e-6  # one shard opens one cleaned file
    open_batch_s: float = 2.3e-6  # and for each record batch in its index
    write_page_s: float = 3.5e-6
    write_byte_s: float = 9.4e-9
    request_cpu_s: float = 0.25e-3  # the client of gs://: to read 64 kB of a file; 0.12 to open one
    # A file's path through all stages beside that: its tasks, its small files.
    file_s: float = 5.7e-3
    print_page_bytes: float = 80.0  # stored, beside 16 bytes a unit
    # Memory of one process.
    base_bytes: float = 330e6
    local_base_bytes: float = (
        190e6  # a forked worker shares libraries with the one it is forked from
    )
    clean_byte_ratio: float = 5.0  # a byte of a file's kept text
    bucket_ratio: float = 2.0  # a byte of a bucket's buffers
    merge_ratio: float = 2.5  # a byte of a piece's text: python -m benchmarks.merging
    shard_ratio: float = 4.0  # a byte of a shard's text
    local_shuffle_ratio: float = 3.0  # a byte shuffled: the local runner spills nothing


#: CPU a byte of text, beside what is the same for all: docs/log.md, "Shard formats", where a page
#: of 2.2 KB takes 10.8, 4.1 and 57 us.
FORMAT_BYTE_S = {"parquet": 4.9e-9, "tfrecord": 1.9e-9, "json": 25.9e-9}
#: Bytes against Parquet's, of real pages: 1.04 and 0.40 a byte of text where Parquet takes 0.37.
FORMAT_BYTES = {"parquet": 1.0, "tfrecord": 2.8, "json": 1.09}


@dataclasses.dataclass(frozen=True)
class Engine:
    """What an engine and a network add: assumptions, see the price table."""

    start_s: float = 240.0  # from the launch to the first worker at work
    stage_s: float = 20.0  # between two stages
    request_s: float = 0.020  # one request to an object store
    bytes_per_s: float = 50e6  # read or written by one process
    disk_gb: float = 25.0  # of each worker
    reserved_gb: float = 1.5  # memory of a machine that no worker process gets
    longest_task: float = 1.5  # of a stage, in means


@dataclasses.dataclass(frozen=True)
class Fleet:
    """``workers`` machines of ``cores`` worker processes each.

    ``local``: one machine, files on its disk, without an object store's requests.
    """

    workers: int
    cores: int
    memory_gb: float
    engine: Engine = Engine()
    cpu_factor: float = 1.0  # how many times slower than the machine of docs/log.md
    local: bool = False

    @property
    def slots(self) -> int:
        """Tasks that run at once."""
        return self.workers * self.cores

    @property
    def process_bytes(self) -> float:
        """Memory of one worker process."""
        return max(0.0, self.memory_gb - self.engine.reserved_gb) * 1e9 / self.cores


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage; amounts are of all its tasks together."""

    name: str
    tasks: int
    cpu_s: float
    read_bytes: float = 0.0
    written_bytes: float = 0.0
    shuffle_bytes: float = 0.0
    class_a: float = 0.0  # requests that write or list
    class_b: float = 0.0  # requests that read
    process_bytes: float = 0.0  # memory of one process while it runs
    busy_s: float = 0.0  # of processes: at work, or waiting for bytes and answers
    wall_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """All stages, and their sums."""

    work: Work
    fleet: Fleet
    stages: tuple[Stage, ...]
    buckets: int
    shards: int
    pieces: int  # that cleaned files are merged into; 0: they are not
    disk_bytes: dict[str, float]  # folder -> bytes kept when the build has ended

    def total(self, name: str) -> float:
        """Return the sum of one of the stages' amounts."""
        return float(sum(getattr(stage, name) for stage in self.stages))

    @property
    def wall_s(self) -> float:
        """Seconds from the launch to the manifest."""
        return self.fleet.engine.start_s + self.total("wall_s")

    @property
    def busy(self) -> float:
        """Part of all processes' time, from launch to manifest, in which they have a task."""
        return self.total("busy_s") / (self.wall_s * self.fleet.slots)

    @property
    def widest(self) -> Stage:
        """The stage that needs most memory a process."""
        return max(self.stages, key=lambda stage: stage.process_bytes)


def make_plan(
    work: Work,
    fleet: Fleet,
    rates: Rates | None = None,
    shards: int | None = None,
    formats: tuple[str, ...] = ("parquet",),
    provenance: bool = False,
    older: OlderWork | None = None,
) -> Plan:
    """Estimate a build. ``shards``: of train, None for as many as the build would choose.

    ``older``: what it is built against.

    >>> plan = make_plan(Work(56_000, 2.5e9, Profile()), Fleet(500, 4, 16.0))
    >>> [stage.name for stage in plan.stages if stage.name in ("merge", "write")]
    ['merge', 'write']
    >>> plan.total("cpu_s") / 86_400 < 335
    True
    """
    rates, older = rates or Rates(), older or OlderWork()
    files, pages, profile = work.files, work.pages, work.profile
    names = ("stored_bytes", "text_bytes", "kept_pages", "kept_bytes", "units", "written_bytes")
    stored, text, kept_pages, kept_bytes, units, written_text = map(work.of, names)
    judged = work.of("judged_pages")
    # Pages that other rules drop are as long as those kept.
    judged_bytes = kept_bytes / kept_pages * judged if kept_pages else 0.0
    # Windows of three units: two fewer than units on each page.
    sent = profile.sent_spans * max(0.0, units - 2 * kept_pages)
    older_sent = profile.sent_spans * max(0.0, older.units - 2 * older.pages)
    compared = files + older.groups
    lost = 8 * (max(0.0, units - 2 * kept_pages) - sent)

    tasks = plan_shards(round(kept_bytes), shards)
    span_buckets = dedup.bucket_count(round(units + older.units), spans.SPAN_BYTES)
    url_buckets = dedup.bucket_count(round(kept_pages + older.pages), spans.PAGE_BYTES)
    url_buffers = min(files * url_buckets, kept_pages) + min(
        older.groups * url_buckets, older.pages
    )
    span_buffers = min(files * span_buckets, sent) + min(older.groups * span_buckets, older_sent)
    url_moved = spans.PAGE_BYTES * (kept_pages + older.pages)
    url_moved += url_buffers * (_BUFFER_HEAD_BYTES + ELEMENT_BYTES)
    span_moved = spans.SPAN_BYTES * sent + spans.OLDER_SPAN_BYTES * older_sent
    span_moved += span_buffers * (_BUFFER_HEAD_BYTES + ELEMENT_BYTES)
    merging = plan_merge(files, round(kept_bytes), len(tasks))
    pieces = merging.groups * merging.ranges if merging else 0

    cleaned = profile.cleaned_ratio * kept_bytes
    prints = 16 * units + rates.print_page_bytes * kept_pages
    all_prints = prints + 16 * older.units + rates.print_page_bytes * older.pages
    removals = _REMOVAL_BYTES * (units + kept_pages)
    written = profile.shard_ratio * written_text * sum(FORMAT_BYTES[name] for name in formats)
    if provenance:
        written += _PROVENANCE_BYTES * kept_pages
    print_reads = files * _fetches(prints / files)
    all_reads = compared * _fetches(all_prints / compared)
    # Record batches of all cleaned files: 256 KiB of text or 256 pages, whichever is first.
    batches = max(kept_bytes / _BATCH_TEXT_BYTES, kept_pages / 256)
    clean_s = rates.read_page_s * pages + rates.read_byte_s * text
    clean_s += rates.judged_page_s * judged + rates.judged_byte_s * judged_bytes
    clean_s += rates.kept_page_s * kept_pages + rates.kept_byte_s * kept_bytes
    buffer_s = rates.pack_buffer_s + rates.element_s

    def opening(uses: float, sources: int, fresh: float, parts: int) -> tuple[float, float, float]:
        """Return the CPU, the bytes and the requests of reading parts of cleaned or merged files.

        ``uses``: how often a task reads ``parts`` parts of one of the ``sources``; ``fresh``: how
        often the source is not open already.
        """
        footer = _INDEX_BYTES * batches / sources
        cpu_s = (rates.open_s + rates.open_batch_s * batches / sources) * uses
        return cpu_s, fresh * footer, _requests(uses, fresh, parts, cleaned, sources, footer)

    # fmt: off
    # Name, tasks, CPU; read, written, shuffled; requests that write, and that read; memory.
    rows: list[tuple[str, int, float, float, float, float, float, float, float]] = [
        ("clean", files, profile.effort * clean_s + rates.file_s * files,
         stored, cleaned + prints, 0.0,
         3 * files,  # the mark that it is under way, fingerprints, cleaned pages
         files * (1 + _fetches(stored / files)),  # is it cleaned already?
         rates.clean_byte_ratio * kept_bytes / files),
        ("urls of files", compared,
         rates.url_page_s * (kept_pages + older.pages) + buffer_s * url_buffers
         + rates.shuffle_byte_s * url_moved,
         all_prints, 0.0, url_moved, 0.0, all_reads, 3 * all_prints / compared),
        ("urls by bucket", url_buckets,
         rates.bucket_row_s * 2 * (kept_pages + older.pages) + rates.bucket_buffer_s * url_buffers,
         0.0, 0.0, 0.0, 0.0, 0.0, rates.bucket_ratio * url_moved / url_buckets),
        ("spans of files", compared,
         rates.unit_s * (units + older.units) + buffer_s * span_buffers
         + rates.shuffle_byte_s * span_moved,
         all_prints, 0.0, span_moved, 0.0, all_reads, 8 * all_prints / compared),
        ("spans by bucket", span_buckets,
         rates.bucket_row_s * (sent + older_sent) + rates.bucket_buffer_s * span_buffers,
         0.0, 0.0, _REPEATED * 12 * sent, 0.0, 0.0, rates.bucket_ratio * span_moved / span_buckets),
        ("removals", files, rates.removal_unit_s * units + rates.element_s * files,
         prints, removals, lost, files, print_reads, 3 * prints / files),
    ]
    if merging:
        uses = float(files * merging.ranges)
        open_s, footers, requests = opening(uses, files, uses, parts=len(SPLITS))
        rows.append((
            "merge", pieces,
            rates.merge_byte_s * kept_bytes + rates.merge_page_s * kept_pages + open_s,
            cleaned + removals + footers, cleaned + removals, 0.0, 2 * pieces, requests,
            rates.merge_ratio * kept_bytes / pieces,
        ))
    # Of the ranges of keys, a shard opens those that it has a part in.
    per_shard = merging.groups * max(1.0, merging.ranges / len(tasks)) if merging else files
    uses = fresh = float(per_shard * len(tasks))
    if not merging:  # every shard of a process reads the same files, some of which stay open
        fresh -= min(files, MOST_SOURCES) * max(0, len(tasks) - fleet.slots)
    open_s, footers, requests = opening(uses, pieces or files, fresh, parts=1)
    published = len(formats) * len(tasks)
    rows.append((
        "write", len(tasks),
        open_s + rates.write_byte_s * kept_bytes + rates.write_page_s * kept_pages
        + sum(FORMAT_BYTE_S[name] for name in formats) * written_text,
        # Before a shard is published, one listing and one read show that the folder is ours.
        cleaned + removals + footers, written, 0.0, 2 * published, requests + published,
        rates.shard_ratio * kept_bytes / tasks[0].count,
    ))
    # fmt: on
    base = rates.local_base_bytes if fleet.local else rates.base_bytes
    if fleet.local:
        base += rates.local_shuffle_ratio * sum(row[5] for row in rows) / fleet.slots
    merged = cleaned + removals if pieces else 0.0
    kept = {"cleaned": cleaned, "fingerprints": prints, "removals": removals}
    return Plan(
        work,
        fleet,
        tuple(_timed(Stage(*row[:8], base + row[8]), fleet, rates) for row in rows),
        span_buckets,
        tasks[0].count,
        pieces,
        {**kept, "merged": merged, "shards": written},
    )


def _fetches(n_bytes: float, at_a_time: int = _FETCH_BYTES) -> int:
    return max(1, math.ceil(n_bytes / at_a_time))


def _requests(
    uses: float, fresh: float, parts: int, stored: float, sources: int, footer: float
) -> float:
    """Count the reads of ``sources`` cleaned files of ``stored`` bytes, and of their removals.

    A file that is opened costs one read, of its last 64 kB: they hold the table of sections, all of
    a small file, and the bits of most removals. A longer table takes a read of its own. Each part
    that is used takes a read for every 4 MB.
    """
    opening = 2 if footer < _SCATTERED_BYTES else 3
    if stored / sources < _SCATTERED_BYTES:
        return opening * fresh
    return opening * fresh + parts * uses * _fetches(stored / (parts * uses), _AHEAD_BYTES)


def _timed(stage: Stage, fleet: Fleet, rates: Rates) -> Stage:
    """Add the CPU of requests, unless a disk of one's own needs none, and the wall time."""
    engine = fleet.engine
    if fleet.local:
        stage = dataclasses.replace(stage, class_a=0.0, class_b=0.0)
    requests = stage.class_a + stage.class_b
    cpu_s = stage.cpu_s + requests * rates.request_cpu_s
    moved = stage.read_bytes + stage.written_bytes + stage.shuffle_bytes
    busy_s = cpu_s * fleet.cpu_factor + moved / engine.bytes_per_s + requests * engine.request_s
    wall_s = busy_s / min(fleet.slots, stage.tasks)
    wall_s += (engine.longest_task - 1) * busy_s / stage.tasks + engine.stage_s
    return dataclasses.replace(stage, cpu_s=cpu_s, busy_s=busy_s, wall_s=wall_s)
