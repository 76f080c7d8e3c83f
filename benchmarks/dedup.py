"""Measure exact span deduplication: packed buffers against one Beam element per span.

    python -m benchmarks.dedup              # both graphs, and the cost beyond
    python -m benchmarks.dedup --large 0    # without the 20 million spans

Both graphs read the same spans (identity and page key, one pair of .npy files per WET file) and
write, file by file, which spans are removed; the lists must be the same. Each measurement runs in
its own process, after the import of Beam and a small pipeline, on FnApiRunner in memory. Time is
the CPU time of that process and its children, the best of the repeats, so that other load on the
machine matters little. Bars: the packed graph takes at most 1/12 of the naive one's time at 2
million spans, and at most 0.35 us for each span beyond that; otherwise the program fails.
"""

import os
import pathlib
import tempfile
import time
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks import measure
from c4_filters import spans

BAR_RATIO = 12.0  # measured for such a graph elsewhere: 11 to 12
BAR_MICROSECONDS = 0.35  # a span, beyond the first two million
BUCKET_BYTES = 64 * 2**20  # of packed spans: a sort of that size still works in little memory
UNITS_PER_PAGE = 25  # about what a kept page of Common Crawl has

FILE_AND_INDEX = np.dtype([("id", "V16"), ("key", ">u8"), ("file", ">u4"), ("index", ">u4")])


def write_spans(folder: pathlib.Path, total: int, files: int, removed: float, seed: int) -> None:
    """Write spans of which a given share is removed: random identities, repeats anywhere.

    One repeat in ten is of one of a hundred popular spans, the others are of any span.
    """
    chance = np.random.default_rng(seed)
    distinct = total - round(total * removed)
    repeats = total - distinct
    popular = repeats // 10
    which = np.concatenate(
        [
            np.arange(distinct),
            chance.integers(0, min(distinct, 100), popular),
            chance.integers(0, distinct, repeats - popular),
        ]
    )
    chance.shuffle(which)
    ids = chance.integers(0, 2**64, (distinct, 2), dtype=np.uint64)
    pages = total // UNITS_PER_PAGE + 1
    keys = np.repeat(chance.integers(0, 2**64, pages, dtype=np.uint64), UNITS_PER_PAGE)[:total]
    parts = zip(np.array_split(which, files), np.array_split(keys, files), strict=True)
    for file, (rows, page_keys) in enumerate(parts):
        np.save(folder / f"{file}.ids.npy", ids[rows])
        np.save(folder / f"{file}.keys.npy", page_keys)


def read_spans(folder: str, file: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    return np.load(f"{folder}/{file}.ids.npy"), np.load(f"{folder}/{file}.keys.npy")


def write_losers(folder: str, name: str, file: int, indices: npt.NDArray[np.uint32]) -> None:
    np.save(f"{folder}/{name}.{file}.npy", np.sort(indices))


# ------------------------------------------------------------------- an element (file, bucket)


class PackFile(beam.DoFn):
    """Turns a file's number into its winners by bucket and, as ``local``, its own losers."""

    def __init__(self, folder: str, buckets: int) -> None:
        self.folder = folder
        self.buckets = buckets

    def process(self, file: int) -> Iterator[tuple[int, tuple[str, bytes]]]:
        """Read, reduce and pack one file."""
        ids, keys = read_spans(self.folder, file)
        found = spans.span_winners(ids, keys)
        winners = found.rows
        packed = spans.pack_spans_by_bucket(
            ids.take(winners, axis=0), keys[winners], winners, self.buckets
        )
        for bucket, buffer in packed.items():
            yield bucket, (str(file), buffer)
        settled = spans.pack_settled(found.losers, found.keepers)
        yield beam.pvalue.TaggedOutput("local", (str(file), settled))


def losers_of_bucket(
    bucket: tuple[int, Iterable[tuple[str, bytes]]],
) -> Iterator[tuple[str, bytes]]:
    for file, losers in spans.repeated_spans(list(bucket[1])).items():
        yield file, spans.pack_losers(losers)


def write_packed_losers(file: tuple[str, Iterable[bytes]], folder: str) -> None:
    lists = [
        spans.unpack_settled(buffer)[0]
        if spans.is_settled(buffer)
        else spans.unpack_losers(buffer).indices
        for buffer in file[1]
    ]
    write_losers(folder, "packed", int(file[0]), np.concatenate(lists))


def packed_graph(pipeline: beam.Pipeline, folder: str, files: int, buckets: int) -> None:
    sent, local = (
        pipeline
        | "Files" >> beam.Create(range(files))
        | "PackFile"
        >> beam.ParDo(PackFile(folder, buckets))
        .with_output_types(tuple[int, tuple[str, bytes]])
        .with_outputs("local", main="sent")
    )
    losers = (
        sent
        | "ByBucket" >> beam.GroupByKey()
        | "LosersOfBucket" >> beam.FlatMap(losers_of_bucket).with_output_types(tuple[str, bytes])
    )
    typed = local | "Typed" >> beam.Map(lambda x: x).with_output_types(tuple[str, bytes])
    _ = (
        (losers, typed)
        | beam.Flatten()
        | "ByFile" >> beam.GroupByKey()
        | "Write" >> beam.Map(write_packed_losers, folder)
    )


# -------------------------------------------------------------------------- an element a span


def one_by_one(file: int, folder: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield the identity, and key, file and index as bytes: the cheapest value with an order."""
    ids, keys = read_spans(folder, file)
    rows = np.empty(len(ids), FILE_AND_INDEX)
    rows["id"] = ids.view("V16")[:, 0]
    rows["key"] = keys
    rows["file"] = file
    rows["index"] = np.arange(len(ids))
    joined = rows.tobytes()
    for begin in range(0, len(joined), 32):
        yield joined[begin : begin + 16], joined[begin + 16 : begin + 32]


def all_but_the_smallest(span: tuple[bytes, Iterable[bytes]]) -> Iterator[tuple[int, int]]:
    copies = list(span[1])
    if len(copies) > 1:
        copies.sort()
        for copy in copies[1:]:
            yield int.from_bytes(copy[8:12], "big"), int.from_bytes(copy[12:], "big")


def write_single_losers(file: tuple[int, Iterable[int]], folder: str) -> None:
    write_losers(folder, "naive", file[0], np.array(list(file[1]), np.uint32))


def naive_graph(pipeline: beam.Pipeline, folder: str, files: int) -> None:
    _ = (
        pipeline
        | "Files" >> beam.Create(range(files))
        | "Spans" >> beam.FlatMap(one_by_one, folder).with_output_types(tuple[bytes, bytes])
        | "BySpan" >> beam.GroupByKey()
        | "Losers" >> beam.FlatMap(all_but_the_smallest).with_output_types(tuple[int, int])
        | "ByFile" >> beam.GroupByKey()
        | "Write" >> beam.Map(write_single_losers, folder)
    )


# ------------------------------------------------------------------------------------ measuring


def cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def run_graph(graph: str, folder: str, files: int, buckets: int) -> dict[str, float]:
    """Run one graph in this process; return CPU and wall seconds, and the peak memory in MB."""
    options = PipelineOptions(["--runner=FnApiRunner", "--direct_running_mode=in_memory"])
    with beam.Pipeline(options=options) as warm_up:
        _ = warm_up | beam.Create([(1, b"")]) | beam.GroupByKey() | beam.Map(str)
    cpu, wall = cpu_seconds(), time.perf_counter()
    with beam.Pipeline(options=options) as pipeline:
        if graph == "packed":
            packed_graph(pipeline, folder, files, buckets)
        else:
            naive_graph(pipeline, folder, files)
    return {
        "cpu_s": cpu_seconds() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": measure.memory("VmHWM") / 2**20,
    }


def best(graph: str, folder: str, files: int, buckets: int, repeats: int) -> dict[str, float]:
    """Return the repeat that took the least CPU, each in a fresh process."""
    runs = [measure.in_process(run_graph, graph, folder, files, buckets) for _ in range(repeats)]
    return min(runs, key=lambda run: run["cpu_s"])


def same_losers(folder: str, files: int, names: list[str]) -> int:
    """Return how many spans are removed, after a check that every graph removes the same ones."""
    total = 0
    for file in range(files):
        lists = [np.load(f"{folder}/{name}.{file}.npy") for name in names]
        for name, indices in zip(names, lists, strict=True):
            if not np.array_equal(indices, lists[0]):
                raise SystemExit(f"{name} and {names[0]} differ on file {file}")
        total += len(lists[0])
    return total


def report(graph: str, total: int, run: dict[str, float]) -> None:
    print(
        f"{graph:>8} {total:>12,} spans  cpu {run['cpu_s']:7.2f} s  wall {run['wall_s']:7.2f} s  "
        f"{run['cpu_s'] / total * 1e6:6.3f} us per span  peak {run['peak_mb']:6.0f} MB",
        flush=True,
    )


def buckets_for(total: int) -> int:
    return max(4, -(-total * spans.SPAN_BYTES // BUCKET_BYTES))


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--spans", type=int, default=2_000_000)
    parser.add_argument(
        "--large", type=int, default=20_000_000, help="for the cost beyond; 0: none"
    )
    parser.add_argument("--files", type=int, default=32)
    parser.add_argument(
        "--removed", type=float, default=0.27, help="share of the spans that is removed"
    )
    parser.add_argument("--buckets", type=int, default=0, help="0: buckets of 64 MB")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    failed = []
    packed = {}
    for total in filter(None, (args.spans, args.large)):
        graphs = ["packed", "naive"] if total == args.spans else ["packed"]
        with tempfile.TemporaryDirectory() as folder:
            write_spans(pathlib.Path(folder), total, args.files, args.removed, seed=total)
            runs = {}
            for graph in graphs:
                buckets = args.buckets or buckets_for(total)
                repeats = min(args.repeats, 2) if graph == "naive" else args.repeats
                runs[graph] = best(graph, folder, args.files, buckets, repeats)
                report(graph, total, runs[graph])
            removed = same_losers(folder, args.files, graphs)
        print(f"{'':>8} {removed:>12,} removed ({removed / total:.1%}), the same by every graph")
        packed[total] = runs["packed"]["cpu_s"]
        if "naive" in runs:
            ratio = runs["naive"]["cpu_s"] / runs["packed"]["cpu_s"]
            print(f"{'':>8} naive / packed: {ratio:.1f} (bar: at least {BAR_RATIO:g})")
            if ratio < BAR_RATIO:
                failed.append("ratio")
    if args.large > args.spans:
        beyond = (packed[args.large] - packed[args.spans]) / (args.large - args.spans) * 1e6
        print(f"{'':>8} beyond: {beyond:.3f} us per span (bar: below {BAR_MICROSECONDS:g})")
        if beyond >= BAR_MICROSECONDS:
            failed.append("cost beyond")
    if failed:
        raise SystemExit(f"missed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
