"""What a build will cost before it runs: CPU, bytes moved and kept, memory, requests, time.

The build is a chain of stages (`pipelines.graph`), each with so many tasks that run side by side.
A stage's CPU is a sum of rates times amounts (`Rates`, measured here; `Work`, what goes in); its
wall time is Graham's bound, all work spread evenly and then one longest task alone. Nothing in this
module reads a file, asks a network or knows a price: tables come from `pipelines.plan_tables`, and
`benchmarks/plan.py` measures the rates and holds the model against builds. docs/scale.md says how
far to trust it.
"""

import dataclasses
import math
import reprlib

from c4_filters import spans
from pipelines import dedup
from pipelines.merge_files import plan_merge
from pipelines.write_shards import plan_shards

__all__ = ["Cluster", "Engine", "Plan", "Profile", "Rates", "Stage", "Work", "make_plan", "timed"]

_BUFFER_HEAD_BYTES = 24  # of a packed buffer: c4_filters.spans
ELEMENT_BYTES = 64  # a file's name (about 60 bytes at Common Crawl), its length, the bucket
_FETCH_BYTES = (
    16 << 20
)  # what is fetched at a time by who reads a file of gs:// or s3:// from its beginning
_SCATTERED_BYTES = 64 << 10  # and where small parts are read: pipelines.storage
_BATCH_TEXT_BYTES = 256 << 10  # of a cleaned file: pipelines.corpus.cleaned
_REPEATED = 0.15  # of the spans sent, how many go: python -m benchmarks.scale
_MOST_OF_ENGINE = 10**12  # seconds, bytes a second, GB: beyond, sums would be no numbers
_INDEX_BYTES = 110  # of a batch in a cleaned file's table of sections
_REMOVAL_BYTES = 0.2  # a unit: its bit, and the keeper of each removed one (0.12 en, 0.30 tfds)


@dataclasses.dataclass(frozen=True)
class Profile:
    """What the pages of a crawl are like, per page read. The default is CC-MAIN-2019-18 and ``en``.

    Sources of the defaults: the paper's and TensorFlow Datasets' figures of the published build
    (365 million pages, about 750 GB of text, of 2.50 billion pages read). Estimates: that one page
    in four or five survives the line rules, that a quarter of the kept text and a seventh of the
    kept pages go as duplicates, that a sentence has 93 bytes (real pages: 95). Bytes stored are
    those of real pages, `effort` what the rates miss of these. Give a corpus of your own pages to
    have none of it estimated.
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

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} a page must be 0 or more, got {value}")
        if not self.kept_pages <= self.judged_pages <= 1:
            raise ValueError(
                "no more pages can be kept than judged, nor judged than read, got "
                f"{self.kept_pages} and {self.judged_pages}"
            )


@dataclasses.dataclass(frozen=True)
class Work:
    """What goes through a build, all files together."""

    files: int
    pages: float
    profile: Profile

    def __post_init__(self) -> None:
        if self.files < 1 or self.pages < 1:
            raise ValueError(
                f"a build needs files with pages, got {self.files} files of {self.pages} pages in "
                "all (--files, --input)"
            )

    def of(self, name: str) -> float:
        """The whole amount of one of the profile's fields."""
        return float(getattr(self.profile, name)) * self.pages

    @property
    def judged_bytes(self) -> float:
        """Text past the line rules: pages that other rules drop are as long as those kept."""
        if not self.profile.kept_pages:
            return 0.0
        return self.of("kept_bytes") / self.profile.kept_pages * self.profile.judged_pages

    @property
    def spans(self) -> float:
        """Windows of three units: two fewer than units on each page."""
        return max(0.0, self.of("units") - 2 * self.of("kept_pages"))


@dataclasses.dataclass(frozen=True)
class Rates:
    """CPU seconds and bytes per unit of work; each a figure of ``python -m benchmarks.plan rates``.

    Measured on one core of the machine of docs/log.md; ``Cluster.cpu_factor`` carries them over to
    another, by what ``python -m benchmarks.plan speed`` says there. Requests are measured by
    ``python -m benchmarks.plan requests``; memory by its ``check`` and by ``benchmarks.scale``.
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
    """What an engine and a network add. Assumptions, not measured: they stand in the price table.

    Attributes:
      start_s: from the launch to the first worker at work.
      stage_s: between two stages.
      request_s: one request to an object store.
      bytes_per_s: read or written by one process.
      disk_gb: of each worker.
      reserved_gb: memory of a machine that no worker process gets.
      longest_task: the longest task of a stage, in means.
    """

    start_s: float = 240.0
    stage_s: float = 20.0
    request_s: float = 0.020
    bytes_per_s: float = 50e6
    disk_gb: float = 25.0
    reserved_gb: float = 1.5
    longest_task: float = 1.5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 1 if field.name in ("bytes_per_s", "longest_task") else 0
            if not least <= value <= _MOST_OF_ENGINE:  # nor NaN
                raise ValueError(
                    f"{field.name} must lie between {least} and {_MOST_OF_ENGINE:.0e}, "
                    f"got {reprlib.repr(value)}"
                )


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Who works: ``workers`` machines of ``cores`` worker processes each.

    ``local``: one machine, files on its disk, without an object store's requests.
    """

    workers: int
    cores: int
    memory_gb: float
    engine: Engine = Engine()
    cpu_factor: float = 1.0  # how many times slower than the machine of docs/log.md
    local: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"at least one worker is needed, got {self.workers} (--workers)")
        if self.cores < 1 or self.memory_gb <= 0:
            raise ValueError(
                f"a machine needs vCPUs and memory, got {self.cores} and {self.memory_gb} GB"
            )
        if not (math.isfinite(self.cpu_factor) and self.cpu_factor > 0):
            raise ValueError(
                f"the CPU factor must be above 0, got {self.cpu_factor} (--cpu-factor)"
            )

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
    """All stages, and what they come to."""

    work: Work
    cluster: Cluster
    stages: tuple[Stage, ...]
    buckets: int
    shards: int
    pieces: int  # that cleaned files are merged into; 0: they are not
    disk_bytes: dict[str, float]  # folder -> bytes kept when the build has ended

    def total(self, name: str) -> float:
        """The sum of one of the stages' amounts."""
        return float(sum(getattr(stage, name) for stage in self.stages))

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all stages."""
        return self.total("cpu_s")

    @property
    def wall_s(self) -> float:
        """Seconds from the launch to the manifest."""
        return self.cluster.engine.start_s + self.total("wall_s")

    @property
    def busy(self) -> float:
        """Part of all processes' time, from launch to manifest, in which they have a task."""
        return self.total("busy_s") / (self.wall_s * self.cluster.slots)

    @property
    def widest(self) -> Stage:
        """The stage that needs most memory a process."""
        return max(self.stages, key=lambda stage: stage.process_bytes)


def make_plan(
    work: Work,
    cluster: Cluster,
    rates: Rates | None = None,
    shards: int | None = None,
    formats: tuple[str, ...] = ("parquet",),
) -> Plan:
    """Reckons a build. ``shards``: of train, None for as many as the build would choose.

    >>> plan = make_plan(Work(56_000, 2.5e9, Profile()), Cluster(500, 4, 16.0))
    >>> [stage.name for stage in plan.stages if stage.name in ("merge", "write")]
    ['merge', 'write']
    >>> plan.cpu_s / 86_400 < 335
    True
    """
    rates = rates or Rates()
    files = work.files
    kept_bytes, kept_pages, units = (work.of(k) for k in ("kept_bytes", "kept_pages", "units"))
    tasks = plan_shards(round(kept_bytes), shards)
    span_buckets = dedup.bucket_count(round(units), spans.SPAN_BYTES)
    url_buckets = dedup.bucket_count(round(kept_pages), spans.PAGE_BYTES)
    cleaned = work.profile.cleaned_ratio * kept_bytes
    prints = 16 * units + rates.print_page_bytes * kept_pages
    removals = _REMOVAL_BYTES * (units + kept_pages)
    written = work.profile.shard_ratio * work.of("written_bytes")
    written *= sum(FORMAT_BYTES[name] for name in formats)
    url_buffers = files * min(url_buckets, kept_pages / files)
    sent = work.profile.sent_spans * work.spans
    span_buffers = files * min(span_buckets, sent / files)
    url_moved = spans.PAGE_BYTES * kept_pages + url_buffers * (_BUFFER_HEAD_BYTES + ELEMENT_BYTES)
    span_moved = spans.SPAN_BYTES * sent + span_buffers * (_BUFFER_HEAD_BYTES + ELEMENT_BYTES)
    lost = 8 * (work.spans - sent)
    merging = plan_merge(files, round(kept_bytes), len(tasks))
    pieces = merging.groups * merging.ranges if merging else 0
    batches = _batches(kept_bytes, kept_pages)
    print_reads = files * (1 + _fetches(prints / files))
    base = rates.base_bytes

    stages = [
        Stage(
            "clean",
            tasks=files,
            cpu_s=work.profile.effort
            * (
                rates.read_page_s * work.pages
                + rates.read_byte_s * work.of("text_bytes")
                + rates.judged_page_s * work.of("judged_pages")
                + rates.judged_byte_s * work.judged_bytes
                + rates.kept_page_s * kept_pages
                + rates.kept_byte_s * kept_bytes
            )
            + rates.file_s * files,
            read_bytes=work.of("stored_bytes"),
            written_bytes=cleaned + prints,
            class_a=3 * files,  # the mark that it is under way, fingerprints, cleaned pages
            class_b=files * (2 + _fetches(work.of("stored_bytes") / files)),
            process_bytes=base + rates.clean_byte_ratio * kept_bytes / files,
        ),
        Stage(
            "urls of files",
            tasks=files,
            cpu_s=rates.url_page_s * kept_pages
            + rates.pack_buffer_s * url_buffers
            + rates.element_s * url_buffers
            + rates.shuffle_byte_s * url_moved,
            read_bytes=prints,
            shuffle_bytes=url_moved,
            class_b=print_reads,
            process_bytes=base + 3 * prints / files,
        ),
        Stage(
            "urls by bucket",
            tasks=url_buckets,
            cpu_s=rates.bucket_row_s * 2 * kept_pages + rates.bucket_buffer_s * url_buffers,
            process_bytes=base + rates.bucket_ratio * url_moved / url_buckets,
        ),
        Stage(
            "spans of files",
            tasks=files,
            cpu_s=rates.unit_s * units
            + (rates.pack_buffer_s + rates.element_s) * span_buffers
            + rates.shuffle_byte_s * span_moved,
            read_bytes=prints,
            shuffle_bytes=span_moved,
            class_b=print_reads,
            process_bytes=base + 8 * prints / files,
        ),
        Stage(
            "spans by bucket",
            tasks=span_buckets,
            shuffle_bytes=_REPEATED * 12 * sent,
            cpu_s=rates.bucket_row_s * sent + rates.bucket_buffer_s * span_buffers,
            process_bytes=base + rates.bucket_ratio * span_moved / span_buckets,
        ),
        Stage(
            "removals",
            tasks=files,
            cpu_s=rates.removal_unit_s * units + rates.element_s * files,
            read_bytes=prints,
            written_bytes=removals,
            shuffle_bytes=lost,
            class_a=files,
            class_b=print_reads,
            process_bytes=base + 3 * prints / files,
        ),
    ]
    if merging:
        openings = files * merging.ranges
        footer = _INDEX_BYTES * batches / files
        stages.append(
            Stage(
                "merge",
                tasks=pieces,
                cpu_s=rates.merge_byte_s * kept_bytes
                + rates.merge_page_s * kept_pages
                + (rates.open_s + rates.open_batch_s * batches / files) * openings,
                read_bytes=cleaned + removals + openings * footer,
                written_bytes=cleaned + removals,
                class_a=2 * pieces,
                class_b=_requests(openings, batches + openings, footer),
                process_bytes=base + rates.merge_ratio * kept_bytes / pieces,
            )
        )
    sources = pieces or files
    # Of the ranges of keys, a shard opens those that it has a part in.
    per_shard = float(files)
    if merging:
        per_shard = merging.groups * max(1.0, merging.ranges / len(tasks))
    shard_openings = per_shard * len(tasks)
    footer = _INDEX_BYTES * batches / sources
    stages.append(
        Stage(
            "write",
            tasks=len(tasks),
            cpu_s=(rates.open_s + rates.open_batch_s * batches / sources) * shard_openings
            + rates.write_byte_s * kept_bytes
            + rates.write_page_s * kept_pages
            + sum(FORMAT_BYTE_S[name] for name in formats) * work.of("written_bytes"),
            read_bytes=cleaned + removals + shard_openings * footer,
            written_bytes=written,
            class_a=len(formats) * len(tasks),
            class_b=_requests(shard_openings, batches + shard_openings, footer),
            process_bytes=base + rates.shard_ratio * kept_bytes / tasks[0].count,
        )
    )
    return Plan(
        work,
        cluster,
        tuple(timed(stage, cluster) for stage in _placed(stages, cluster, rates)),
        buckets=span_buckets,
        shards=tasks[0].count,
        pieces=pieces,
        disk_bytes={
            "cleaned": cleaned,
            "fingerprints": prints,
            "removals": removals,
            "merged": cleaned + removals if pieces else 0.0,
            "shards": written,
        },
    )


def _fetches(n_bytes: float) -> int:
    return max(1, math.ceil(n_bytes / _FETCH_BYTES))


def _requests(openings: float, batches: float, footer_bytes: float) -> float:
    """Read of cleaned files and their removals, here and there, 64 kB at a time.

    Five an opening that finds one batch (tests/pipelines/test_google_storage.py): one to open each
    of the two files, one for the end of each, which holds the table and the bits of most removals,
    one for a batch. Longer tables are fetched by a request of their own. So is each further batch.
    """
    opening = 4 if footer_bytes < _SCATTERED_BYTES else 5
    return opening * openings + max(0.0, batches - openings) + openings


def _batches(text_bytes: float, pages: float) -> float:
    """Record batches of all cleaned files: 256 KiB of text or 256 pages, whichever is first."""
    return max(text_bytes / _BATCH_TEXT_BYTES, pages / 256)


def _placed(stages: list[Stage], cluster: Cluster, rates: Rates) -> list[Stage]:
    """The stages with their requests' CPU; on one machine without any, but with all shuffled."""
    placed = []
    shuffled = sum(stage.shuffle_bytes for stage in stages)
    for stage in stages:
        if cluster.local:
            held = rates.local_shuffle_ratio * shuffled / cluster.slots
            held += stage.process_bytes
            stage = dataclasses.replace(stage, class_a=0.0, class_b=0.0, process_bytes=held)
        else:
            cpu_s = stage.cpu_s + (stage.class_a + stage.class_b) * rates.request_cpu_s
            stage = dataclasses.replace(stage, cpu_s=cpu_s)
        placed.append(stage)
    return placed


def timed(stage: Stage, cluster: Cluster) -> Stage:
    """The stage with its wall time: all of it spread evenly, then one longest task alone."""
    engine = cluster.engine
    busy = stage.cpu_s * cluster.cpu_factor
    busy += (stage.read_bytes + stage.written_bytes + stage.shuffle_bytes) / engine.bytes_per_s
    busy += (stage.class_a + stage.class_b) * engine.request_s
    task = busy / stage.tasks
    side_by_side = min(cluster.slots, stage.tasks)
    wall = busy / side_by_side + (engine.longest_task - 1) * task + engine.stage_s
    return dataclasses.replace(stage, busy_s=busy, wall_s=wall)
