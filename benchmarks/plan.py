"""Where the figures of ``c4 plan`` come from, and how far they are right.

::

    python -m benchmarks.plan rates                         # measures every rate of pipelines.plan
    python -m benchmarks.plan requests                      # the client of gs://, CPU a request
    python -m benchmarks.plan speed                         # this machine, for c4 plan --cpu-factor
    python -m benchmarks.plan check                         # the model against three builds

``rates`` works in one process: it cleans corpora that differ in one amount at a time (length of
pages, pages that the line rules drop, pages that are dropped after their language is known, pages
that are kept) and solves for the cost of each by least squares; the other stages are timed at two
sizes each and the line through both gives the two rates. ``check`` builds generated corpora of
several sizes as a user would, and compares CPU, stored bytes, bytes shuffled, memory of a worker
and wall time with what the model says, once by its own rates and once by the figures of the
smallest of these builds (``--like``). Bar: no figure of the model is off by more than a quarter.
A shared machine is now fast, now slow: a fixed piece of work is timed now and then while a build
runs, and the model is asked about a machine that slow and that busy (``speed``).
"""

import argparse
import dataclasses
import functools
import glob
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from benchmarks import build, measure
from benchmarks.generate_wet import SyntheticCrawl, SyntheticPage, generate
from c4_filters import spans
from c4_filters.badwords import packaged_badwords
from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES
from c4_filters.spans import PAGE_BYTES, SPAN_BYTES, Losers, pack_losers, pack_settled
from pipelines import dedup, plan, storage
from pipelines.clean_files import FileSummary, clean_file
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile, Source
from pipelines.corpus.fingerprints import read_fingerprints
from pipelines.corpus.removals import Removals
from pipelines.measured_corpus import MeasuredCorpus, measured_corpus
from pipelines.merge_files import MergePlan, MergeTask, cleaned_sources, merge_files
from pipelines.plan import Cluster, Engine, Profile, Rates, Work, make_plan
from pipelines.write_shards import ShardTask, write_shard

BAR = 0.25  # the largest error of a prediction, as a part of what was measured
_REPEATS = 4
MACHINE_S = 0.117  # of machine_s(), when the rates of pipelines.plan were measured
_OBJECT_BYTES = 1 << 20
_PROBE_EVERY_S = 3.0
_PAGES_A_FILE = 10_000
_LOCAL_STAGE_S = 0.1  # between two stages of the local runner
_DEFAULT_WET = str(pathlib.Path(__file__).resolve().parents[2] / "shared/wet/*.warc.wet.gz")


class Changed(SyntheticCrawl):
    """A generated crawl whose texts pass through a function."""

    change: Callable[[bytes], bytes] = staticmethod(bytes)

    def pages(self, start: int, stop: int) -> Iterator[SyntheticPage]:
        """Pages ``start`` to ``stop - 1``."""
        for page in super().pages(start, stop):
            yield page._replace(text=type(self).change(page.text))


class WithoutEnds(Changed):
    """No line has an end mark: the line rules drop every page."""

    change = staticmethod(lambda text: text.replace(b".", b","))


class WithBadWord(Changed):
    """Every page is dropped, but only after its language is known."""

    change = staticmethod(
        lambda text: text + b"\nNobody may say the word " + _bad_word() + b" in this house.\n"
    )


@functools.cache
def _bad_word() -> bytes:
    return min(packaged_badwords("en"), key=lambda word: (len(word), word)).encode()


def timed(work: Callable[[], Any], repeats: int = _REPEATS) -> float:
    """CPU seconds, the least of several runs: a shared machine's other work disturbs it least."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


# ----------------------------------------------------------------------------------------- rates


def clean_rates(folder: pathlib.Path, wet: Iterable[str]) -> dict[str, float]:
    """Solves for the rates of cleaning; prints how well they fit each corpus."""
    rules = PageRules(RECIPES["en"])
    corpora: list[tuple[str, SyntheticCrawl, int]] = [
        ("plain", SyntheticCrawl(1), 3000),
        ("long", SyntheticCrawl(2, page_bytes=9000, sentences=80), 1000),
        ("short", SyntheticCrawl(3, page_bytes=1100, sentences=8), 4000),
        ("no ends", WithoutEnds(4), 4000),
        ("no ends, long", WithoutEnds(5, page_bytes=9000, sentences=80), 2000),
        ("bad word", WithBadWord(6), 3000),
        ("bad word, long", WithBadWord(7, page_bytes=9000, sentences=80), 1000),
    ]
    rows, seconds, names = [], [], []
    for number, (name, crawl, pages) in enumerate(corpora):
        [path] = generate(folder / f"wet-{number}", pages=pages, files=1, crawl=crawl)
        text = sum(len(page.text) for page in crawl.pages(0, pages))
        names.append(name)
        summary = clean(path, folder / f"out-{number}", rules)
        passed = summary
        if isinstance(crawl, WithBadWord):  # what passed the line rules is not in the summary
            same = dataclasses.replace(SyntheticCrawl(crawl.seed), page_bytes=crawl.page_bytes,
                                       sentences=crawl.sentences)  # fmt: skip
            [twin] = generate(folder / f"twin-{number}", pages=pages, files=1, crawl=same)
            passed = clean(twin, folder / f"out-{number}", rules)
        rows.append([*amounts([summary], text), float(passed.text_bytes)])
        seconds.append(timed(lambda path=path, n=number: clean(path, folder / f"t-{n}", rules)))
    real = sorted(wet)
    if real:
        names.append("real pages")
        summaries = [clean(pathlib.Path(p), folder / "real", rules) for p in real]
        row = amounts(summaries, sum(unpacked_bytes(path) for path in real))
        rows.append([*row, row[2] * row[4] / row[3]])
        seconds.append(
            timed(lambda: [clean(pathlib.Path(p), folder / "real", rules) for p in real])
        )
    features = np.array(rows)
    generated = slice(len(corpora))
    rates = solved(features[generated], seconds[generated])
    for name, row, measured in zip(names, features, seconds, strict=True):
        print(f"  {name:<20}{measured / row[0] * 1e3:8.3f} ms a page, model "
              f"{row @ rates / measured - 1:+.0%}")  # fmt: skip
    [path] = generate(folder / "wet-one", pages=1, files=1, crawl=SyntheticCrawl(0))
    a_file = timed(lambda: [clean(path, folder / "one", rules) for _ in range(20)]) / 20
    fields = ("read_page_s", "read_byte_s", "judged_page_s", "kept_page_s", "kept_byte_s",
              "judged_byte_s")  # fmt: skip
    if real:
        print(f"  effort of real pages: {seconds[-1] / (features[-1] @ rates):.2f} "
              f"(in pipelines.plan: {Profile().effort})")  # fmt: skip
    return {"file_s": a_file, **dict(zip(fields, rates.tolist(), strict=True))}


def clean(path: pathlib.Path, output: pathlib.Path, rules: PageRules) -> FileSummary:
    """Clean one file anew."""
    name = layout.file_name(str(path))
    pathlib.Path(layout.cleaned(str(output), name)).unlink(missing_ok=True)
    return clean_file(str(path), path.stat().st_size, str(output), rules, "x", 64 << 20)


def amounts(files: list[FileSummary], text_bytes: int) -> list[float]:
    """Pages read, bytes read, pages judged for language, pages kept, bytes kept."""
    return [
        float(sum(file.pages_read for file in files)),
        float(text_bytes),
        float(sum(map(judged_pages, files))),
        float(sum(file.pages_kept for file in files)),
        float(sum(file.text_bytes for file in files)),
    ]


def judged_pages(file: FileSummary) -> int:
    """Pages whose language was detected."""
    after = ("no_language", "other_language", "low_confidence", "bad_words")
    return file.pages_kept + sum(file.pages_dropped.get(verdict, 0) for verdict in after)


def unpacked_bytes(path: str) -> int:
    from pipelines.read_wet import ReadStats, WetRecord, read_wet

    with open(path, "rb") as stream:
        return sum(
            len(record.text.encode("utf-8", "surrogatepass"))
            for record in read_wet(stream, ReadStats())
            if isinstance(record, WetRecord)
        )


def non_negative(features: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Least squares without negative rates: those that would be are left out, worst first."""
    used = list(range(features.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(features[:, used], wanted, rcond=None)
        if (found >= 0).all():
            rates = np.zeros(features.shape[1])
            rates[used] = found
            return rates
        used.pop(int(found.argmin()))


def line(small: tuple[float, float], large: tuple[float, float]) -> tuple[float, float]:
    """Slope and value at 0 of the line through two (amount, seconds), neither below 0."""
    slope = max(0.0, (large[1] - small[1]) / (large[0] - small[0]))
    return slope, max(0.0, small[1] - slope * small[0])


def dedup_rates(folder: pathlib.Path) -> dict[str, float]:
    """Rates of deduplication before and in the buckets, on one file as a crawl's."""
    rules, output = PageRules(RECIPES["en"]), str(folder / "dedup")
    [path] = generate(folder / "dedup-wet", pages=8_000, files=1, crawl=SyntheticCrawl(8))
    file = clean(path, folder / "dedup", rules)

    def pack(buckets: int) -> dict[int, bytes]:
        return dedup.span_buffers(output, file.name, (), 3, buckets)[1]

    few = (4.0, timed(lambda: pack(4)))
    many = (4096.0, timed(lambda: pack(4096)))
    a_buffer, whole = line(few, many)
    urls = timed(lambda: dedup.url_buffers(output, file.name, 4))
    lost = [some_losers(file.units, 10)]
    removals = timed(lambda: dedup.write_file_removals(output, file.name, (), lost, 3, ""))

    def bucket(files: int) -> list[tuple[str, bytes]]:
        chance = np.random.default_rng(files)
        made = []
        for part, rows in enumerate(np.array_split(np.arange(1_200_000), files)):
            ids = chance.integers(0, 2**64, (len(rows), 2), np.uint64)
            ids[: len(ids) // 5] = chance.integers(0, 50_000, (len(ids) // 5, 1), np.uint64)
            keys = chance.integers(0, 2**64, len(rows), np.uint64)
            winners = spans.span_winners(ids, keys).rows
            made.append((f"file-{part}", spans.pack_spans(ids[winners], keys[winners], winners)))
        return made

    def sort(buffers: list[tuple[str, bytes]]) -> float:
        return timed(lambda: sum(1 for _ in dedup.repeated_spans(buffers)))

    opened, sorting = line(*((n, sort(bucket(int(n)))) for n in (20.0, 6000.0)))  # type: ignore[arg-type]
    return {
        "url_page_s": urls / file.fingerprint_pages,
        "unit_s": whole / file.units,
        "pack_buffer_s": a_buffer,
        "bucket_row_s": sorting / 1_200_000,
        "bucket_buffer_s": opened,
        "removal_unit_s": removals / file.units,
    }


def shuffle_rates() -> dict[str, float]:
    """What an element, and a byte, costs on its way through the local runner's grouping."""
    from pipelines.quiet_beam import beam

    options = beam.options.pipeline_options.PipelineOptions(
        ["--runner=FnApiRunner", "--direct_running_mode=in_memory"]
    )

    def group(count: int, n_bytes: int) -> float:
        payload = bytes(n_bytes)

        def made(number: int) -> Iterator[tuple[int, tuple[str, bytes]]]:
            for i in range(count // 20):
                yield i % 50, (f"file-{number}", payload)

        def run() -> None:
            with beam.Pipeline(options=options) as pipeline:
                _ = (
                    pipeline
                    | beam.Create(range(20))
                    | beam.FlatMap(made).with_output_types(tuple[int, tuple[str, bytes]])
                    | beam.GroupByKey()
                    | beam.Map(lambda group: sum(len(data) for _, data in group[1]))
                )

        return timed(run, 2)

    a_small, start = line((2_000, group(2_000, 1000)), (60_000, group(60_000, 1000)))
    large = max(0.0, group(2_000, 100_000) - start - 2_000 * a_small)
    a_byte = large / (2_000 * 99_000)
    return {"element_s": max(0.0, a_small - 1000 * a_byte), "shuffle_byte_s": a_byte}


def write_rates(folder: pathlib.Path) -> dict[str, float]:
    """Rates of merging, of a shard, and of opening a cleaned file for either."""
    rules, output = PageRules(RECIPES["en"]), str(folder / "write")
    crawls = (
        SyntheticCrawl(9, page_bytes=1100, sentences=8),
        SyntheticCrawl(10, page_bytes=9000, sentences=80),
    )
    amount, merging, writing, opening = [], [], [], []
    for number, crawl in enumerate(crawls):
        [path] = generate(folder / f"write-{number}", pages=4_000, files=1, crawl=crawl)
        file = clean(path, folder / "write", rules)
        lost = [some_losers(file.units, 20)]
        dedup.write_file_removals(output, file.name, (), lost, 3, "")
        sources = cleaned_sources(output, [file.name])

        def shard(task: ShardTask, sources: list[Source]) -> float:
            return timed(lambda: write_shard(task, sources, output, ["parquet"], rules))

        # A shard that is all but empty: what opening costs.
        opened = shard(ShardTask("train", 0, 2**40), sources * 100) / 100
        merge = timed(lambda: merge_files(MergeTask(0, 0), MergePlan(1, 1), [file.name], output))  # noqa: B023
        amount.append((float(file.pages_kept), float(file.text_bytes)))
        opening.append((float(batches_of(output, file.name)), opened))
        merging.append(merge - opened)
        writing.append(shard(ShardTask("train", 0, 1), sources) - opened)
    features = np.array(amount)
    found = {}
    found["merge_page_s"], found["merge_byte_s"] = solved(features, merging)
    found["write_page_s"], found["write_byte_s"] = solved(features, writing)
    found["write_byte_s"] -= plan.FORMAT_BYTE_S["parquet"]
    found["open_batch_s"], found["open_s"] = line(*opening)
    return found


def solved(features: np.ndarray, seconds: list[float]) -> np.ndarray:
    """Rates by least squares; errors count in parts of what each row took, not in seconds."""
    spent = np.array(seconds)
    return non_negative(features / spent[:, None], np.ones(len(spent)))


def some_losers(units: int, one_in: int) -> bytes:
    """Spans that a file loses, as buckets say."""
    indices = np.arange(0, units - 3, one_in, dtype=np.uint32)
    keepers = np.random.default_rng(0).integers(0, 2**64, len(indices), np.uint64)
    return pack_losers(Losers(indices, keepers))


def batches_of(output: str, name: str) -> int:
    with CleanedFile(layout.cleaned(output, name)) as file:
        return len(file._batches)


def _pieces() -> tuple[bytes, np.ndarray]:
    words = [f"{number * 2654435761 % 2**32:x}" for number in range(200_000)]
    numbers = np.random.default_rng(0).integers(0, 2**64, 500_000, np.uint64)
    return zlib.compress(" ".join(words).encode(), 1), numbers


def fixed_work(packed: bytes, numbers: np.ndarray) -> int:
    """A fixed piece of work of the build's kinds: unpack, cut text, hash, sort."""
    found = set()
    for word in zlib.decompress(packed).decode().split():
        if not word.endswith(("0", "7")):
            found.add(word.lower().strip())
    return len(found) + int(np.sort(numbers)[0] > 0)


def machine_s() -> float:
    """CPU seconds of the fixed piece of work, the least of several."""
    pieces = _pieces()
    return timed(lambda: fixed_work(*pieces), 7)


def slowness() -> float:
    """How many times slower this machine is now than when the rates were measured."""
    return machine_s() / MACHINE_S


class Probe(threading.Thread):
    """Does the fixed piece of work now and then, while something else is measured.

    ``slowness``: CPU seconds it took, in those of the rates' machine, the mean. ``waiting``: wall
    seconds for a CPU second, which is above 1 where other work holds the cores.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()
        self._cpu: list[float] = []
        self._wall: list[float] = []

    def run(self) -> None:
        """Until the block ends."""
        pieces = _pieces()
        while not self._ended.wait(0 if not self._cpu else _PROBE_EVERY_S):
            wall, cpu = time.monotonic(), time.thread_time()
            fixed_work(*pieces)
            self._cpu.append(time.thread_time() - cpu)
            self._wall.append(time.monotonic() - wall)

    def __enter__(self) -> "Probe":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        self.slowness = statistics.mean(self._cpu) / MACHINE_S
        self.waiting = sum(self._wall) / sum(self._cpu)


def requests() -> None:
    """CPU of the client of gs://, against a server in a process of its own (extra gcp)."""
    path, count = "gs://bucket/object", 100
    start = multiprocessing.get_context("spawn")
    address, done = start.Queue(), start.Event()
    server = start.Process(target=_serve, args=(path, address, done))
    server.start()
    try:
        os.environ["STORAGE_EMULATOR_HOST"] = address.get()

        def open_one() -> None:
            with storage.open_raw(path, scattered=True):
                pass

        open_one()
        opening = timed(lambda: [open_one() for _ in range(count)]) / count
        with storage.open_raw(path, scattered=True) as file:

            def read() -> None:
                for number in range(count):
                    file.seek(number * 10_007_000 % _OBJECT_BYTES)
                    file.read(1000)

            reading = timed(read) / count
    finally:
        done.set()
        server.join()
    print(f"to open a file {opening * 1e3:.2f} ms, to read 64 kB of it {reading * 1e3:.2f} ms "
          f"(in pipelines.plan: {Rates().request_cpu_s * 1e3:.2f} a request)")  # fmt: skip


def _serve(path: str, address: Any, done: Any) -> None:
    from tests.fake_google_cloud import fake_google_cloud

    with fake_google_cloud() as cloud:
        cloud.objects[path] = bytes(_OBJECT_BYTES)
        address.put(cloud.address)
        done.wait()


def rates(wet: Iterable[str]) -> None:
    """Measures every rate and prints it beside the one that the model has."""
    found: dict[str, float] = {}
    before = machine_s()
    with tempfile.TemporaryDirectory(prefix="c4-rates-") as name:
        folder = pathlib.Path(name)
        print("cleaning:")
        found |= clean_rates(folder, wet)
        found |= dedup_rates(folder)
        found |= write_rates(folder)
    found |= shuffle_rates()
    print(f"this machine: {before:.4f} and {machine_s():.4f} s (MACHINE_S: {MACHINE_S})")
    print("rates, microseconds (nanoseconds a byte), measured and in pipelines.plan:")
    for field, value in found.items():
        scale = 1e9 if "byte" in field else 1e6
        ours = getattr(plan.Rates(), field)
        print(f"  {field:<18}{value * scale:10.3f}{ours * scale:10.3f}")


# ----------------------------------------------------------------------------------------- check


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one build took, as the model counts it. ``cpu_s``: without the launcher's start."""

    corpus: MeasuredCorpus
    cpu_s: float
    wall_s: float
    worker_bytes: float
    shuffle_bytes: float
    cleaned_bytes: float
    fingerprint_bytes: float
    shard_bytes: float
    slowness: float
    waiting: float


def built(
    pages: int, folder: pathlib.Path, workers: int, seed: int, start: measure.Cost
) -> Measured:
    """Build a generated corpus of so many pages with ``c4 build``."""
    files = max(2, -(-pages // _PAGES_A_FILE))
    generate(folder / "wet", pages=pages, files=files, crawl=SyntheticCrawl(seed))
    output = folder / "out"
    with Probe() as probe:
        cost = build.build([str(folder / "wet" / "*.gz")], output, workers=workers)

    def kept(pattern: str) -> float:
        return float(sum(path.stat().st_size for path in output.glob(pattern)))

    return Measured(
        measured_corpus(str(output)),
        cost.cpu_s - start.cpu_s,
        cost.wall_s - start.wall_s,
        float(cost.worker_peak_bytes),
        float(shuffled_bytes(output)),
        kept("cleaned/*"),
        kept("fingerprints/*"),
        kept("*.parquet"),
        probe.slowness,
        probe.waiting,
    )


def shuffled_bytes(output: pathlib.Path) -> int:
    """What the build moved for deduplication: packed again from its fingerprints and removals."""
    names = [path.stem for path in (output / "fingerprints").glob("*.arrow")]
    files = [read_fingerprints(layout.fingerprints(str(output), name)) for name in names]
    pages = sum(len(file.units_per_page) for file in files)
    units = sum(len(file.units) for file in files)
    moved = 0
    for name, file in zip(names, files, strict=True):
        with Removals(layout.removals(str(output), name)) as removals:
            rows = np.flatnonzero(removals.pages(0, file.cleaned_pages))
        lost = [pack_settled(rows, rows)]
        _, urls = dedup.url_buffers(str(output), name, dedup.bucket_count(pages, PAGE_BYTES))
        buckets = dedup.bucket_count(units, SPAN_BYTES)
        gone, sent = dedup.span_buffers(str(output), name, lost, 3, buckets)
        moved += sum(
            len(buffer) + plan.ELEMENT_BYTES for buffer in [*urls.values(), *sent.values()]
        )
        moved += len(gone or b"")
    return moved


def predicted(
    pages: int,
    files: int,
    workers: int,
    profile: Profile,
    rates: Rates,
    slow: float,
    waiting: float,
) -> dict[str, float]:
    """What the model says of a build on this machine, so slow and so busy."""
    engine = Engine(
        start_s=0, stage_s=_LOCAL_STAGE_S, request_s=0, bytes_per_s=1e9, longest_task=1.2
    )
    cluster = Cluster(workers, 1, 64.0, engine, slow, local=True)
    made = make_plan(Work(files, float(pages), profile), cluster, rates)
    return {
        "CPU s": made.cpu_s * slow,
        "wall s": made.wall_s * waiting,
        "GB a worker": made.widest.process_bytes / 1e9,
        "GB shuffled": made.total("shuffle_bytes") / 1e9,
        "GB cleaned": made.disk_bytes["cleaned"] / 1e9,
        "GB fingerprints": made.disk_bytes["fingerprints"] / 1e9,
        "GB shards": made.disk_bytes["shards"] / 1e9,
    }


def check(sizes: list[int], workers: int, seed: int) -> float:
    """Build every size, print model and measurement; return the largest error of ours."""
    worst = 0.0
    found: list[tuple[int, Measured]] = []
    with tempfile.TemporaryDirectory(prefix="c4-plan-") as name:
        folder = pathlib.Path(name)
        one = [build.one_page_file(folder)]
        starts = [build.build(one, folder / f"one-{n}", workers=workers) for n in range(2)]
        start = min(starts, key=lambda cost: cost.cpu_s)
        for size in sizes:
            with tempfile.TemporaryDirectory(dir=folder) as inner:
                found.append((size, built(size, pathlib.Path(inner), workers, seed, start)))
    first = found[0][1].corpus
    for size, run in found:
        corpus = run.corpus
        actual = {
            "CPU s": run.cpu_s,
            "wall s": run.wall_s,
            "GB a worker": run.worker_bytes / 1e9,
            "GB shuffled": run.shuffle_bytes / 1e9,
            "GB cleaned": run.cleaned_bytes / 1e9,
            "GB fingerprints": run.fingerprint_bytes / 1e9,
            "GB shards": run.shard_bytes / 1e9,
        }
        # Generated text costs what the rates say: they were measured on it.
        generated = dataclasses.replace(first.profile, text_bytes=2300.0, effort=1.0)
        slow, waiting = run.slowness, run.waiting
        ours = predicted(size, corpus.files, workers, generated, Rates(), slow, waiting)
        slow /= found[0][1].slowness
        like = predicted(size, corpus.files, workers, first.profile, first.rates, slow, waiting)
        print(
            f"{size:,} pages in {corpus.files} files, {workers} workers; the machine "
            f"{run.slowness:.2f} times slower, {waiting:.2f} s for a CPU second:"
        )
        for what, value in actual.items():
            errors = [prediction[what] / value - 1 for prediction in (ours, like)]
            worst = max(worst, abs(errors[0]))
            print(f"  {what:<16}{value:10.3f}   model {ours[what]:10.3f} {errors[0]:+5.0%}   "
                  f"--like {like[what]:10.3f} {errors[1]:+5.0%}", flush=True)  # fmt: skip
    print(f"largest error {worst:.0%} (bar: {BAR:.0%})")
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("rates", "requests", "speed", "check"))
    parser.add_argument("--wet", default=_DEFAULT_WET, metavar="GLOB", help="real pages, for rates")
    parser.add_argument("--pages", type=int, nargs="+", default=[20_000, 80_000, 300_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    if arguments.what == "rates":
        rates(sorted(glob.glob(arguments.wet)))
        return 0
    if arguments.what == "requests":
        requests()
        return 0
    if arguments.what == "speed":
        print(f"{slowness():.2f}: c4 plan --cpu-factor, for machines like this one")
        return 0
    return 0 if check(arguments.pages, arguments.workers, arguments.seed) <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
