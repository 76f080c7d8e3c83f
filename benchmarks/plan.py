"""Where the figures of ``c4 plan`` come from, and how far they are right.

::

    python -m benchmarks.plan rates                         # measures every rate of pipelines.plan
    python -m benchmarks.plan check --pages 20000 100000 400000   # the model against builds

``rates`` works in one process: it cleans corpora that differ in one amount at a time (length of
pages, pages that the line rules drop, pages of no language, pages that are kept) and solves for the
cost of each by least squares; the other stages are timed at two sizes each and the line through
both gives the two rates. ``check`` builds generated corpora of several sizes as a user would, and
compares CPU, stored bytes, bytes shuffled, memory of a worker and wall time with what the model
says, once by its own rates and once by the figures of the smallest of these builds (``--like``).
"""

import argparse
import glob
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from benchmarks import build
from benchmarks.generate_wet import SyntheticCrawl, SyntheticPage, generate
from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES
from pipelines import dedup, layout, plan
from pipelines.clean_files import FileSummary, clean_file
from pipelines.like import profile_of
from pipelines.write_shards import ShardTask, write_shard

BAR = 0.25  # the largest error of a prediction, as a part of what was measured
_REPEATS = 3
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


class OfNoLanguage(Changed):
    """Every line passes its rules, but the words are of no language that is wanted."""

    change = staticmethod(
        lambda text: text.translate(bytes.maketrans(b"abcdefghiklmnoprstuwy", b"zyxkvtqjuwbhgfnlmpcde"))
    )


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
        ("no language", OfNoLanguage(6), 2000),
        ("no language, long", OfNoLanguage(7, page_bytes=9000, sentences=80), 800),
    ]
    rows, seconds, names = [], [], []
    for number, (name, crawl, pages) in enumerate(corpora):
        [path] = generate(folder / f"wet-{number}", pages=pages, files=1, crawl=crawl)
        text = sum(len(page.text) for page in crawl.pages(0, pages))
        names.append(name)
        rows.append(amounts([clean(path, folder / f"out-{number}", rules)], text))
        seconds.append(timed(lambda path=path, n=number: clean(path, folder / f"t-{n}", rules)))
    real = sorted(wet)
    if real:
        names.append("real pages")
        summaries = [clean(pathlib.Path(p), folder / "real", rules) for p in real]
        rows.append(amounts(summaries, sum(unpacked_bytes(path) for path in real)))
        seconds.append(
            timed(lambda: [clean(pathlib.Path(p), folder / "real", rules) for p in real])
        )
    features, spent = np.array(rows), np.array(seconds)
    # Errors count in parts of what each corpus cost, not in seconds.
    rates = non_negative(features / spent[:, None], np.ones(len(spent)))
    for name, row, measured in zip(names, features, spent, strict=True):
        print(f"  {name:<20}{measured / row[0] * 1e3:8.3f} ms a page, model "
              f"{row @ rates / measured - 1:+.0%}")  # fmt: skip
    fields = ("read_page_s", "read_byte_s", "judged_page_s", "kept_page_s", "kept_byte_s")
    return dict(zip(fields, rates.tolist(), strict=True))


def clean(path: pathlib.Path, output: pathlib.Path, rules: PageRules) -> FileSummary:
    """Cleans one file anew."""
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
    nothing = np.empty(0, dtype=np.int64)

    def pack(buckets: int) -> dict[int, bytes]:
        return dedup.span_buffers(output, file.name, nothing, 3, buckets)[1]

    few = (4.0, timed(lambda: pack(4)))
    many = (4096.0, timed(lambda: pack(4096)))
    a_buffer, whole = line(few, many)
    urls = timed(lambda: dedup.url_buffers(output, file.name, 4))
    lost = np.arange(0, file.units - 3, 10)
    removals = timed(lambda: dedup.write_file_removals(output, file.name, nothing, lost, 3))

    def bucket(files: int) -> list[tuple[str, bytes]]:
        from c4_filters import spans

        chance = np.random.default_rng(files)
        made = []
        for part, rows in enumerate(np.array_split(np.arange(1_200_000), files)):
            ids = chance.integers(0, 2**64, (len(rows), 2), np.uint64)
            ids[: len(ids) // 5] = chance.integers(0, 50_000, (len(ids) // 5, 1), np.uint64)
            keys = chance.integers(0, 2**64, len(rows), np.uint64)
            winners, _ = spans.span_winners(ids, keys)
            made.append(
                (f"file-{part}", spans.pack_spans(ids[winners], keys[winners], winners))
            )
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
    """Rates of a shard, of opening a cleaned file for it, and the bytes that are stored."""
    from benchmarks.plan_merge import merge_rate

    rules, output = PageRules(RECIPES["en"]), folder / "write"
    found: dict[str, float] = {}
    costs = []
    for number, crawl in enumerate(
        (SyntheticCrawl(9, page_bytes=1100, sentences=8), SyntheticCrawl(10, page_bytes=9000,
                                                                        sentences=80))
    ):  # fmt: skip
        [path] = generate(folder / f"write-{number}", pages=4_000, files=1, crawl=crawl)
        file = clean(path, output, rules)
        lost = np.arange(0, file.units - 3, 20)
        nothing = np.empty(0, dtype=np.int64)
        dedup.write_file_removals(str(output), file.name, nothing, lost, 3)
        shard = ShardTask("train", 0, 1)
        whole = timed(
            lambda f=file: write_shard(shard, [f.name], str(output), ["parquet"], rules)
        )
        # A shard that is all but empty: what opening costs.
        sliver = ShardTask("train", 0, 2**40)
        opening = timed(
            lambda f=file: write_shard(sliver, [f.name] * 100, str(output), ["parquet"], rules)
        ) / 100
        costs.append((file, whole - opening, opening, batches_of(output, file.name)))
    (small, small_s, _, _), (large, large_s, _, _) = costs
    system = np.array([[f.pages_kept, f.text_bytes] for f in (small, large)], float)
    spent = np.array([small_s, large_s])
    page_s, byte_s = non_negative(system / spent[:, None], np.ones(2))
    (few, opening), (many, opening_many) = ((c[3], c[2]) for c in costs)
    found["open_batch_s"], found["open_s"] = line((few, opening), (many, opening_many))
    found |= {"write_page_s": page_s, "write_byte_s": byte_s}
    found |= merge_rate(output, [cost[0] for cost in costs])
    return found


def batches_of(output: pathlib.Path, name: str) -> int:
    from pipelines.handover import CleanedFile

    with CleanedFile(layout.cleaned(str(output), name)) as file:
        return len(file._index)


def rates(wet: Iterable[str]) -> None:
    """Measures every rate and prints it beside the one that the model has."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="c4-rates-") as name:
        folder = pathlib.Path(name)
        print("cleaning:")
        found |= clean_rates(folder, wet)
        found |= dedup_rates(folder)
        found |= write_rates(folder)
    found |= shuffle_rates()
    print("rates, microseconds (nanoseconds a byte), measured and in pipelines.plan:")
    for field, value in found.items():
        scale = 1e9 if "byte" in field else 1e6
        ours = getattr(plan.Rates(), field)
        print(f"  {field:<18}{value * scale:10.3f}{ours * scale:10.3f}")


# ----------------------------------------------------------------------------------------- check


def folder_bytes(output: pathlib.Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in output.glob(pattern))


def shuffled_bytes(output: pathlib.Path) -> int:
    """What the build moved for deduplication: packed again from its fingerprints and removals."""
    names = [path.stem for path in (output / "fingerprints").glob("*.arrow")]
    profile = profile_of(str(output))
    pages = round(profile.kept_pages * profile.pages)
    units = round(profile.units * profile.pages)
    moved = 0
    for name in names:
        lost, packed = dedup.url_buffers(str(output), name, dedup.bucket_count(pages))
        moved += sum(len(buffer) + plan._ELEMENT_BYTES for buffer in packed.values())
        _, packed = dedup.span_buffers(str(output), name, lost, 3, dedup.bucket_count(units))
        moved += sum(len(buffer) + plan._ELEMENT_BYTES for buffer in packed.values())
    return moved
