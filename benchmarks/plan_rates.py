"""Measure the rates of `pipelines.plan`: CPU seconds and bytes per unit of work.

Each is the least of several short runs, in CPU time of one process: other work on the machine
disturbs that least. Cleaning is measured on corpora that differ in one amount at a time (length of
pages, pages that the line rules drop, pages with bad words) and solved by least squares; the other
stages at two sizes each, of which the line through both gives two rates.
"""

import functools
import gzip
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.generate_wet import SyntheticCrawl, SyntheticPage, generate
from benchmarks.measure import in_process, least
from c4_filters import spans
from c4_filters.badwords import packaged_badwords
from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES
from c4_filters.verdicts import PageVerdict, page_verdict
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile
from pipelines.measured_corpus import JUDGED
from pipelines.plan import FORMAT_BYTE_S, Rates
from pipelines.stages import dedup, older_files
from pipelines.stages.clean_files import FileSummary, clean_file
from pipelines.stages.merge_files import MergePlan, cleaned_sources, merge_files
from pipelines.stages.write_shards import ShardTask, plan_shards, write_shard


class _Changed(SyntheticCrawl):
    """A generated crawl whose texts pass through a function."""

    change: Callable[[bytes], bytes] = staticmethod(bytes)

    def pages(self, start: int, stop: int) -> Iterator[SyntheticPage]:
        for page in super().pages(start, stop):
            yield page._replace(text=type(self).change(page.text))


class _WithoutEnds(_Changed):
    """No line has an end mark: the line rules drop every page."""

    change = staticmethod(lambda text: text.replace(b".", b",").replace(b"!", b","))


class _WithBadWords(_Changed):
    """The language of every page is detected, and then a listed word drops it."""

    word = min(filter(str.isalpha, packaged_badwords("en"))).encode()
    change = staticmethod(lambda text: text.replace(b".", b" " + _WithBadWords.word + b".", 1))


def measured_rates() -> dict[str, float]:
    """Measure the rates of `pipelines.plan.Rates` that are CPU of the build's own code."""
    with tempfile.TemporaryDirectory(prefix="c4-rates-") as name:
        folder = pathlib.Path(name)
        found = _clean_rates(folder) | _dedup_rates(folder) | _write_rates(folder)
    found |= _shuffle_rates()
    return {field: float(f"{value:.1e}") for field, value in found.items()}


def real_effort(wet: Sequence[str], rates: Rates) -> float:
    """Return how many times more CPU real pages take to clean than these rates say."""
    rules, predicted, spent = _rules(), 0.0, 0.0
    with tempfile.TemporaryDirectory(prefix="c4-effort-") as name:
        for path in wet:
            clean = functools.partial(_clean, pathlib.Path(path), pathlib.Path(name), rules)
            amounts = _amounts(clean(), _text_bytes(path))
            predicted += float(amounts @ [getattr(rates, field) for field in _CLEANING])
            spent += least(clean, 3) - rates.file_s
    return spent / predicted


def _rules() -> PageRules:
    return PageRules(RECIPES["en"], {"en": packaged_badwords("en")})


# --- cleaning

_CLEANING = (
    "read_page_s", "read_byte_s", "judged_page_s", "judged_byte_s", "kept_page_s", "kept_byte_s",
)  # fmt: skip


def _clean_rates(folder: pathlib.Path) -> dict[str, float]:
    rules = _rules()
    corpora: list[tuple[SyntheticCrawl, int]] = [
        (SyntheticCrawl(1), 1500),
        (SyntheticCrawl(2, page_bytes=9000, sentences=80), 500),
        (SyntheticCrawl(3, page_bytes=1100, sentences=8), 2000),
        (_WithoutEnds(4), 3000),
        (_WithoutEnds(5, page_bytes=9000, sentences=80), 1500),
        (_WithBadWords(6), 1500),
        (_WithBadWords(7, page_bytes=9000, sentences=80), 500),
    ]
    rows, seconds = [], []
    for number, (crawl, pages) in enumerate(corpora):
        [path] = generate(folder / f"wet-{number}", pages=pages, files=1, crawl=crawl)
        text = sum(len(page.text) for page in crawl.pages(0, pages))
        clean = functools.partial(_clean, path, folder / "cleaned", rules)
        rows.append(_amounts(clean(), text))
        seconds.append(least(clean) - Rates().file_s)
    return dict(zip(_CLEANING, _solved(rows, seconds), strict=True))


def _clean(path: pathlib.Path, output: pathlib.Path, rules: PageRules) -> FileSummary:
    name = layout.file_name(str(path))
    pathlib.Path(layout.cleaned(str(output), name)).unlink(missing_ok=True)
    return clean_file(str(path), path.stat().st_size, str(output), rules, "x", 64 << 20)


def _amounts(file: FileSummary, text_bytes: float) -> npt.NDArray[np.float64]:
    """Return what `_CLEANING` are rates of."""
    judged = file.pages_kept + sum(
        count
        for verdict, count in file.pages_dropped.items()
        if verdict in JUDGED or not isinstance(page_verdict(verdict), PageVerdict)
    )
    mean = file.text_bytes / file.pages_kept if file.pages_kept else text_bytes / file.pages_read
    return np.array([
        file.pages_read, text_bytes, judged, judged * mean, file.pages_kept, file.text_bytes
    ], float)  # fmt: skip


def _text_bytes(path: str) -> int:
    with gzip.open(path) as stream:  # the heads of records are 400 bytes a page
        return sum(len(line) for line in stream if not line.startswith((b"WARC", b"Content-")))


def _solved(
    amounts: Sequence[npt.NDArray[np.float64]], seconds: Sequence[float]
) -> Sequence[float]:
    """Solve for rates of these amounts by least squares, without negative rates.

    Errors count in parts of what each measurement cost, not in seconds.
    """
    import scipy.optimize

    parts = np.array(amounts) / np.array(seconds)[:, None]
    rates, _ = scipy.optimize.nnls(parts, np.ones(len(seconds)))
    return rates.tolist()


def _line(small: tuple[float, float], large: tuple[float, float]) -> tuple[float, float]:
    """Return slope and value at 0 of the line through two (amount, seconds), neither below 0."""
    slope = max(0.0, (large[1] - small[1]) / (large[0] - small[0]))
    return slope, max(0.0, small[1] - slope * small[0])


# --- deduplication


def _dedup_rates(folder: pathlib.Path) -> dict[str, float]:
    output, rules = str(folder / "dedup"), _rules()
    [path] = generate(folder / "dedup-wet", pages=8_000, files=1, crawl=SyntheticCrawl(8))
    file = _clean(path, folder / "dedup", rules)

    def packing(buckets: int) -> tuple[float, float]:
        made = dedup.span_buffers(output, file.name, (), 3, buckets)[1]
        return float(len(made)), least(
            lambda: dedup.span_buffers(output, file.name, (), 3, buckets)
        )

    a_buffer, whole = _line(packing(4), packing(4096))
    urls = least(lambda: dedup.url_buffers(output, file.name, 4))
    rows = np.arange(0, file.units - 3, 10)
    lost = (spans.pack_settled(rows, rows),)
    removals = least(lambda: dedup.write_file_removals(output, file.name, (), lost, 3, ""))
    total = 1_000_000

    def bucket(files: int) -> float:
        buffers = list(_bucket(total, files))
        return least(lambda: sum(1 for _ in older_files.repeated_spans(buffers)), 3)

    opened, sorting = _line((20.0, bucket(20)), (20_000.0, bucket(20_000)))
    return {
        "url_page_s": urls / file.fingerprint_pages,
        "unit_s": whole / file.units,
        "pack_buffer_s": a_buffer,
        "bucket_row_s": sorting / total,
        "bucket_buffer_s": opened,
        "removal_unit_s": removals / file.units,
    }


def _bucket(rows: int, files: int) -> Iterator[tuple[str, bytes]]:
    """Yield the buffers of a bucket, of which a fifth of the rows repeat."""
    chance = np.random.default_rng(files)
    for part, own in enumerate(np.array_split(np.arange(rows), files)):
        ids = chance.integers(0, 2**64, (len(own), 2), np.uint64)
        ids[: len(ids) // 5] = chance.integers(0, 50_000, (len(ids) // 5, 1), np.uint64)
        keys = chance.integers(0, 2**64, len(own), np.uint64)
        first = spans.span_winners(ids, keys).rows
        yield f"file-{part:05}", spans.pack_spans(ids[first], keys[first], first)


def _shuffle_rates() -> dict[str, float]:
    """Measure what an element, and a byte, costs on its way through the local runner's grouping."""
    # In a process of its own: Beam is not the measured code's to import.
    return dict(zip(("element_s", "shuffle_byte_s"), in_process(_grouping), strict=True))


def _grouping() -> tuple[float, float]:
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.quiet_beam import beam

    options = PipelineOptions(["--runner=FnApiRunner", "--direct_running_mode=in_memory"])

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

        return least(run, 3)

    an_element, start = _line((2_000, group(2_000, 1000)), (60_000, group(60_000, 1000)))
    large = max(0.0, group(2_000, 100_000) - start - 2_000 * an_element)
    byte_s = large / (2_000 * 99_000)
    return max(0.0, an_element - 1000 * byte_s), byte_s


# --- merging and writing


def _write_rates(folder: pathlib.Path) -> dict[str, float]:
    output, rules = folder / "write", _rules()
    shapes = (
        SyntheticCrawl(9, page_bytes=1100, sentences=8),
        SyntheticCrawl(10, page_bytes=9000, sentences=80),
    )
    rows, writing, merging, opening = [], [], [], []
    for number, crawl in enumerate(shapes):
        [path] = generate(
            folder / f"write-{number}", pages=(8_000, 2_000)[number], files=1, crawl=crawl
        )
        file = _clean(path, output, rules)
        lost = np.arange(0, file.units - 3, 20)
        settled = (spans.pack_settled(lost, lost),)
        dedup.write_file_removals(str(output), file.name, (), settled, 3, "")
        sources = cleaned_sources(str(output), [file.name])
        shard, sliver = ShardTask("train", 0, 1), ShardTask("train", 0, 2**40)

        def write(task: ShardTask, copies: int = 1, sources: Any = sources) -> float:
            return least(
                lambda: write_shard(task, sources * copies, str(output), ["parquet"], rules)
            )

        # A shard that is all but empty: what opening costs.
        opened = (write(sliver, 41) - write(sliver, 1)) / 40
        made = write_shard(shard, sources, str(output), ["parquet"], rules)
        writing.append(write(shard) - opened - FORMAT_BYTE_S["parquet"] * made.text_bytes)
        with CleanedFile(layout.cleaned(str(output), file.name)) as cleaned:
            batches = [each for split in (0, 1) for each in cleaned.slices(split, 0, 1 << 64)]
        opening.append((float(len(batches)), opened))
        plan, whole = MergePlan(1, 1), plan_shards(0, 1)
        merge = functools.partial(merge_files, plan.tasks()[0], plan, [file.name])
        merging.append(least(lambda: merge(whole, str(output))) - opened)  # noqa: B023
        rows.append(np.array([file.pages_kept, file.text_bytes], float))
        if not number:
            part_s = _part_s(lambda shards: merge(shards, str(output)), output, rules)  # noqa: B023
    open_batch_s, open_s = _line(*opening)
    write_page_s, write_byte_s = _solved(rows, writing)
    merge_page_s, merge_byte_s = _solved(rows, merging)
    return {
        "open_s": open_s,
        "open_batch_s": open_batch_s,
        "merge_page_s": merge_page_s,
        "merge_byte_s": merge_byte_s,
        "part_s": part_s,
        "write_page_s": write_page_s,
        "write_byte_s": write_byte_s,
    }


def _part_s(
    merge: Callable[[list[ShardTask]], list[tuple[int, Any]]],
    output: pathlib.Path,
    rules: PageRules,
) -> float:
    """Measure what a part of a piece costs beside its pages: many small ones against few."""
    few, many = plan_shards(0, 2), plan_shards(0, 2000)
    made = [least(lambda shards=shards: merge(shards), 3) for shards in (few, many)]
    written = (made[1] - made[0]) / (len(many) - len(few))
    part = dict(merge(many))[0]  # of four pages or so
    once, often = ([part], [part] * 41)
    read = [
        least(lambda parts=parts: write_shard(many[0], parts, str(output), ["parquet"], rules))
        for parts in (once, often)
    ]
    return max(0.0, written) + (read[1] - read[0]) / 40
