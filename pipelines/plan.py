"""What a build costs before it runs: CPU, bytes moved and kept, memory, requests, time.

The build is a chain of stages (`pipelines.stages.graph`), each with so many tasks that run side by
side. A stage's CPU is a sum of rates times amounts (`Rates`, measured; `Work`, what goes in); its
wall time is Graham's bound, all work spread evenly and then one longest task alone. Nothing in this
module reads a file, asks a network or knows a price. docs/scale.md says how far to trust it.
"""

import dataclasses
import math
from collections.abc import Iterator

from c4_filters import spans
from pipelines.corpus.cleaned import BATCH_ROWS, BATCH_TEXT_BYTES
from pipelines.corpus.opened import MOST_SOURCES
from pipelines.stages import dedup
from pipelines.stages.merge_files import FILE_REQUESTS, SORTED_BYTES, MergePlan, plan_merge
from pipelines.stages.write_shards import plan_shards
from pipelines.storage import READS_AT_A_TIME
from pipelines.storage.objects import PART_BYTES
from pipelines.storage.streams import AHEAD_BYTES, SCATTERED_BYTES, SEQUENTIAL_BYTES

ELEMENT_BYTES = 64  # a file's name (about 60 bytes at Common Crawl), its length, the bucket
_REPEATED = 0.15  # of the spans sent, the part that is removed: python -m benchmarks.scale
_INDEX_BYTES = 110  # of a batch in a cleaned file's table of sections
_PROVENANCE_BYTES = 25  # a page in a Parquet shard: docs/reading.md
_HELD_BYTES = 768 << 10  # a merging task holds of each file beside its pages: ends, batches
_PART_BYTES = 200  # what passes a shard its part of a merged piece
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
    effort: float = 1.45  # CPU of cleaning, against generated pages of the same amounts
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

    Measured by ``python -m benchmarks.plan rates`` on one core of a shared virtual machine (AMD
    EPYC, Python 3.11), each the least of several runs; ``Fleet.cpu_factor`` carries them over to
    another machine. ``python -m benchmarks.plan check`` holds them against builds.
    """

    # Cleaning, by least squares over corpora that differ in one amount at a time.
    read_page_s: float = 22e-6
    read_byte_s: float = 2.5e-9
    judged_page_s: float = 28e-6
    judged_byte_s: float = 16e-9  # of text past the line rules
    kept_page_s: float = 2.8e-6
    kept_byte_s: float = 11e-9
    # Deduplication.
    url_page_s: float = 0.19e-6  # read, settled in the file, packed
    unit_s: float = 49e-9  # a file's spans: read, hashed, settled, packed
    pack_buffer_s: float = 1.5e-6  # a buffer made
    bucket_row_s: float = 33e-9  # sorted in a bucket
    bucket_buffer_s: float = 13e-6  # a buffer opened
    removal_unit_s: float = 17e-9
    element_s: float = 3.2e-6  # through a runner's shuffle
    shuffle_byte_s: float = 4.7e-9
    # Merging and writing.
    open_s: float = 45e-6  # a merging task, or a shard, opens one cleaned file
    open_batch_s: float = 2.6e-6  # and for each record batch in its index
    merge_byte_s: float = 2.6e-9  # of kept text, read and written again
    merge_page_s: float = 1.2e-6
    part_s: float = 290e-6  # what a shard has in a merged piece: written, passed on, and read
    write_page_s: float = 4.7e-6
    write_byte_s: float = 2.4e-9
    # The client of gs://, on loopback without TLS.
    request_cpu_s: float = 0.42e-3
    request_byte_s: float = 1.2e-9
    # A file's path through all stages beside that: its tasks, its small files.
    file_s: float = 5.7e-3
    print_page_bytes: float = 80.0  # stored, beside 16 bytes a unit
    # Memory of one process.
    base_bytes: float = 330e6
    local_base_bytes: float = 160e6  # a forked worker shares libraries with its launcher
    clean_byte_ratio: float = 5.0  # a byte of a file's kept text
    bucket_ratio: float = 2.0  # a byte of a bucket's buffers
    merge_ratio: float = 3.5  # a byte of text sorted at a time: benchmarks.merging, 2.6 to 3.4
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
    unpaid_s: float = 60.0  # of it, before there are machines
    stop_s: float = 40.0  # until machines are gone
    stage_s: float = 6.0  # between two stages
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
    cpu_s: float = 0.0  # of the fleet's vCPUs
    read_bytes: float = 0.0
    written_bytes: float = 0.0
    shuffle_bytes: float = 0.0
    class_a: float = 0.0  # requests that write or list
    class_b: float = 0.0  # requests that read
    process_bytes: float = 0.0  # memory of one process while it runs
    at_a_time: int = 1  # requests that a process has under way
    ahead: bool = False  # whether it reads on while it works
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
    def paid_s(self) -> float:
        """Seconds for which there are machines."""
        return self.wall_s - self.fleet.engine.unpaid_s + self.fleet.engine.stop_s

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
    build = _Build(work, fleet, rates or Rates(), shards, formats, provenance, older or OlderWork())
    stages = [_clean(build), *_compare(build), _removals(build)]
    if build.merging is not None:
        stages.append(_merge(build, build.merging))
    stages.append(_write(build))
    base = build.rates.local_base_bytes if fleet.local else build.rates.base_bytes
    if fleet.local:
        shuffled = sum(stage.shuffle_bytes for stage in stages)
        base += build.rates.local_shuffle_ratio * shuffled / fleet.slots
    disk = {
        "cleaned": build.cleaned,
        "fingerprints": build.prints,
        "removals": build.removals,
        "merged": build.cleaned + build.removals if build.pieces else 0.0,
        "shards": build.written,
    }
    timed = tuple(_timed(stage, base, fleet, build.rates) for stage in stages)
    return Plan(work, fleet, timed, build.span_buckets, build.trains, build.pieces, disk)


class _Build:
    """The amounts that several stages share."""

    def __init__(
        self,
        work: Work,
        fleet: Fleet,
        rates: Rates,
        asked_shards: int | None,
        formats: tuple[str, ...],
        provenance: bool,
        older: OlderWork,
    ) -> None:
        self.work, self.fleet, self.rates, self.older = work, fleet, rates, older
        self.formats = formats
        kept_pages, kept_bytes, units = map(work.of, ("kept_pages", "kept_bytes", "units"))
        self.kept_pages, self.kept_bytes, self.units = kept_pages, kept_bytes, units
        # Files and groups of older files that go through deduplication.
        self.compared = work.files + older.groups
        self.compared_pages = kept_pages + older.pages
        self.compared_units = units + older.units
        # Spans that leave their file.
        self.sent = self._sent(units, kept_pages)
        self.older_sent = self._sent(older.units, older.pages)
        self.url_buckets = dedup.bucket_count(round(self.compared_pages), spans.PAGE_BYTES)
        self.span_buckets = dedup.bucket_count(round(self.compared_units), spans.SPAN_BYTES)
        self.url_buffers = self._buffers(self.url_buckets, kept_pages, older.pages)
        self.span_buffers = self._buffers(self.span_buckets, self.sent, self.older_sent)
        buffer_bytes = spans.HEADER_BYTES + ELEMENT_BYTES
        self.url_moved = spans.PAGE_BYTES * self.compared_pages + self.url_buffers * buffer_bytes
        rows = spans.SPAN_BYTES * self.sent + spans.OLDER_SPAN_BYTES * self.older_sent
        self.span_moved = rows + self.span_buffers * buffer_bytes
        # Bytes of each folder; of fingerprints also with those of older corpora.
        self.cleaned = work.profile.cleaned_ratio * kept_bytes
        self.prints = self._prints(units, kept_pages)
        self.all_prints = self.prints + self._prints(older.units, older.pages)
        self.removals = _REMOVAL_BYTES * (units + kept_pages)
        self.written_text = work.of("written_bytes")
        sizes = sum(FORMAT_BYTES[name] for name in formats)
        columns = _PROVENANCE_BYTES * kept_pages if provenance else 0.0
        self.written = work.profile.shard_ratio * self.written_text * sizes + columns
        # Record batches of all cleaned files.
        self.batches = max(kept_bytes / BATCH_TEXT_BYTES, kept_pages / BATCH_ROWS)
        tasks = plan_shards(round(kept_bytes), asked_shards)
        self.shards, self.trains = len(tasks), tasks[0].count  # of both splits, and of train
        self.merging = plan_merge(work.files, round(kept_bytes), self.shards)
        self.pieces = self.merging.groups * self.merging.ranges if self.merging else 0

    def _sent(self, units: float, pages: float) -> float:
        # Windows of three units: two fewer than units on each page.
        return self.work.profile.sent_spans * max(0.0, units - 2 * pages)

    def _buffers(self, buckets: int, rows: float, older_rows: float) -> float:
        """Return how many buffers carry the rows of all files: none of them is empty."""
        found = min(self.work.files * buckets, rows)
        return found + min(self.older.groups * buckets, older_rows)

    def _prints(self, units: float, pages: float) -> float:
        return spans.IDENTITY_BYTES * units + self.rates.print_page_bytes * pages

    def opening_s(self, openings: float) -> float:
        """Return the CPU of opening cleaned files so often."""
        of_file = self.rates.open_s + self.rates.open_batch_s * self.batches / self.work.files
        return of_file * openings

    def opening_bytes(self, openings: float) -> float:
        """Return the bytes of opening cleaned files and their removals: the end of each."""
        files = self.work.files
        table = max(SCATTERED_BYTES, _INDEX_BYTES * self.batches / files)
        ends = min(table, self.cleaned / files) + min(SCATTERED_BYTES, self.removals / files)
        return ends * openings

    def opening_requests(self, openings: float) -> float:
        """Return the requests of opening cleaned files and their removals.

        A file takes one read, of its last 64 kB: they hold the table of sections, all of a small
        file, and the bits of most removals. A longer table takes a read of its own.
        """
        table = _INDEX_BYTES * self.batches / self.work.files
        return (2 if table < SCATTERED_BYTES else 3) * openings

    @property
    def ends_are_all(self) -> bool:
        """Whether the end of a cleaned file is most of it."""
        return self.cleaned / self.work.files < SCATTERED_BYTES


def _clean(build: _Build) -> Stage:
    """Model cleaning: WET files -> cleaned pages and fingerprints."""
    rates, work, files = build.rates, build.work, build.work.files
    judged = work.of("judged_pages")
    # Pages that other rules drop are as long as those kept.
    judged_bytes = build.kept_bytes / build.kept_pages * judged if build.kept_pages else 0.0
    cpu_s = rates.read_page_s * work.pages + rates.read_byte_s * work.of("text_bytes")
    cpu_s += rates.judged_page_s * judged + rates.judged_byte_s * judged_bytes
    cpu_s += rates.kept_page_s * build.kept_pages + rates.kept_byte_s * build.kept_bytes
    stored = work.of("stored_bytes")
    memory = rates.clean_byte_ratio * build.kept_bytes / files
    return Stage(
        "clean",
        files,
        cpu_s=work.profile.effort * cpu_s + rates.file_s * files,
        read_bytes=stored,
        written_bytes=build.cleaned + build.prints,
        # The mark that the file is under way, fingerprints, cleaned pages.
        class_a=files + _uploads(files, build.prints) + _uploads(files, build.cleaned),
        # Is it cleaned already?
        class_b=files * (1 + _fetches(stored / files)),
        process_bytes=memory if build.fleet.local else memory + 2 * SEQUENTIAL_BYTES,
        ahead=True,  # the system does so for a file on a disk
    )


def _compare(build: _Build) -> Iterator[Stage]:
    """Model how all files compare their urls by bucket, and then their spans."""
    rates, buffers, moved = build.rates, build.url_buffers, build.url_moved
    cpu_s, rows = rates.url_page_s * build.compared_pages, 2 * build.compared_pages
    yield _rows_of_files("urls of files", build, cpu_s, buffers, moved, 3)
    yield _by_bucket("urls by bucket", build, build.url_buckets, rows, buffers, moved)
    buffers, moved = build.span_buffers, build.span_moved
    cpu_s, rows = rates.unit_s * build.compared_units, build.sent + build.older_sent
    yield _rows_of_files("spans of files", build, cpu_s, buffers, moved, 8)
    stage = _by_bucket("spans by bucket", build, build.span_buckets, rows, buffers, moved)
    yield dataclasses.replace(stage, shuffle_bytes=_REPEATED * spans.LOSER_BYTES * build.sent)


def _rows_of_files(
    name: str, build: _Build, cpu_s: float, buffers: float, moved: float, ratio: float
) -> Stage:
    """Model how fingerprints become rows by bucket.

    Args:
        name: Of the stage.
        build: The amounts.
        cpu_s: Of making the rows.
        buffers: How many they are packed into.
        moved: Bytes of all buffers.
        ratio: Memory for a byte of a file's fingerprints.
    """
    rates, a_file = build.rates, build.all_prints / build.compared
    return Stage(
        name,
        build.compared,
        cpu_s=cpu_s
        + (rates.pack_buffer_s + rates.element_s) * buffers
        + rates.shuffle_byte_s * moved,
        read_bytes=build.all_prints,
        shuffle_bytes=moved,
        class_b=build.compared * _fetches(a_file),
        process_bytes=ratio * a_file,
    )


def _by_bucket(
    name: str, build: _Build, buckets: int, rows: float, buffers: float, moved: float
) -> Stage:
    """Model how buckets compare their rows; for the arguments see `_rows_of_files`."""
    rates = build.rates
    cpu_s = rates.bucket_row_s * rows + rates.bucket_buffer_s * buffers
    memory = rates.bucket_ratio * moved / buckets
    return Stage(name, buckets, cpu_s=cpu_s, process_bytes=memory)


def _removals(build: _Build) -> Stage:
    """Model removal files: what files lost among themselves, and in buckets."""
    files, rates = build.work.files, build.rates
    # Spans that a file settled by itself.
    settled = max(0.0, build.units - 2 * build.kept_pages) - build.sent
    return Stage(
        "removals",
        files,
        cpu_s=rates.removal_unit_s * build.units + rates.element_s * files,
        read_bytes=build.prints,
        written_bytes=build.removals,
        shuffle_bytes=spans.SETTLED_BYTES * settled,
        class_a=_uploads(files, build.removals),
        class_b=files * _fetches(build.prints / files),
        process_bytes=3 * build.prints / files,
    )


def _merge(build: _Build, merging: MergePlan) -> Stage:
    """Model merging: pages and removals of a group of files -> a piece for a range of shards."""
    rates, pieces = build.rates, build.pieces
    openings, parts = build.work.files * merging.ranges, build.shards * merging.groups
    text, moved = build.kept_bytes / pieces, build.cleaned + build.removals
    held = moved / pieces + _HELD_BYTES * build.work.files / merging.groups
    pages_requests = (FILE_REQUESTS - 2) * openings  # tables and removals are counted as openings
    return Stage(
        "merge",
        pieces,
        cpu_s=build.opening_s(openings)
        + rates.merge_byte_s * build.kept_bytes
        + rates.merge_page_s * build.kept_pages
        + (rates.part_s + rates.element_s) * parts,
        read_bytes=moved + build.opening_bytes(openings),
        written_bytes=moved,
        shuffle_bytes=_PART_BYTES * parts,
        class_a=_uploads(pieces, moved),
        class_b=build.opening_requests(openings) + (0 if build.ends_are_all else pages_requests),
        process_bytes=held + rates.merge_ratio * min(SORTED_BYTES, text),
        at_a_time=READS_AT_A_TIME,
    )


def _write(build: _Build) -> Stage:
    """Model writing: cleaned pages and removals, or merged pieces -> shards."""
    rates, shards, files = build.rates, build.shards, build.work.files
    cpu_s = rates.write_byte_s * build.kept_bytes + rates.write_page_s * build.kept_pages
    cpu_s += sum(FORMAT_BYTE_S[name] for name in build.formats) * build.written_text
    read_bytes = build.cleaned + build.removals
    published = len(build.formats) * shards
    requests = float(published)  # one read of each, after a listing, shows that the folder is ours
    if build.merging is not None:
        requests += shards * build.merging.groups
    else:
        uses = float(files * shards)
        # Every shard of a process reads the same files, some of which stay open.
        openings = uses - min(files, MOST_SOURCES) * max(0, shards - build.fleet.slots)
        cpu_s += build.opening_s(uses)
        read_bytes += build.opening_bytes(openings)
        requests += build.opening_requests(openings)
        if not build.ends_are_all:
            requests += uses * _fetches(build.cleaned / uses, AHEAD_BYTES)
    return Stage(
        "write",
        shards,
        cpu_s=cpu_s,
        read_bytes=read_bytes,
        written_bytes=build.written,
        class_a=published + _uploads(published, build.written),
        class_b=requests,
        process_bytes=rates.shard_ratio * build.kept_bytes / build.trains,
        at_a_time=READS_AT_A_TIME if build.merging is not None else 1,
    )


def _fetches(n_bytes: float, at_a_time: int = SEQUENTIAL_BYTES) -> int:
    return max(1, math.ceil(n_bytes / at_a_time))


def _uploads(files: int, n_bytes: float) -> float:
    """Return the requests of writing so many files: large ones go in parts, begun and completed."""
    parts = _fetches(n_bytes / files, PART_BYTES)
    return float(files * (1 if parts == 1 else parts + 2))


def _timed(stage: Stage, base: float, fleet: Fleet, rates: Rates) -> Stage:
    """Add what all stages have: the CPU of requests, waiting, and the memory of a process.

    A disk of one's own takes no requests.
    """
    engine = fleet.engine
    if fleet.local:
        stage = dataclasses.replace(stage, class_a=0.0, class_b=0.0)
    requests = stage.class_a + stage.class_b
    cpu_s = stage.cpu_s + requests * rates.request_cpu_s
    if not fleet.local:
        cpu_s += (stage.read_bytes + stage.written_bytes) * rates.request_byte_s
    cpu_s *= fleet.cpu_factor
    read_s = stage.read_bytes / engine.bytes_per_s
    if stage.ahead:  # what is not read beside the work: the rest, but at least each first block
        first = min(SEQUENTIAL_BYTES, stage.read_bytes / stage.tasks) / engine.bytes_per_s
        read_s = max(read_s - cpu_s, stage.tasks * first)
        requests = min(requests, stage.class_a + 2 * stage.tasks)  # is it there, the first block
    moved_s = (stage.written_bytes + stage.shuffle_bytes) / engine.bytes_per_s
    busy_s = cpu_s + read_s + moved_s + requests * engine.request_s / stage.at_a_time
    wall_s = busy_s / min(fleet.slots, stage.tasks)
    wall_s += (engine.longest_task - 1) * busy_s / stage.tasks + engine.stage_s
    return dataclasses.replace(
        stage,
        cpu_s=cpu_s,
        process_bytes=base + stage.process_bytes,
        busy_s=busy_s,
        wall_s=wall_s,
    )
