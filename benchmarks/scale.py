"""Deduplication at the size of a crawl, bucket by bucket, in the memory of one bucket.

::

    python -m benchmarks.scale                    # a billion spans, a sample of their buckets
    python -m benchmarks.scale --measure all      # every bucket: half an hour of CPU or so
    python -m benchmarks.scale check              # the generator's skew; results by brute force

A billion spans are never in one place: ``benchmarks/generate_spans.py`` makes any bucket of any
file by itself. What is measured is the build's own code: what each file settles by itself and packs
(`c4_filters.spans.span_winners`, ``pack_spans``), then `pipelines.stages.dedup.repeated_spans` on
each bucket at its full size, in as many buckets as the build would take (`dedup.bucket_count`).
Each bucket is a process of its own; its memory is the most that the process ever held, as Linux
tells it (VmHWM), from the moment on that the bucket's buffers are there. Buckets of the hot spans
are always in the sample, the others are spread evenly; totals are means over the others times their
number, with their standard error.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from benchmarks.generate_spans import SpanCrawl, SpanRows
from c4_filters import spans
from pipelines.stages import dedup

ROOT = pathlib.Path(__file__).resolve().parents[1]
UNITS_PER_PAGE = 25  # about what a kept page of Common Crawl has: benchmarks/dedup.py
# CC-MAIN-2019-18: 2.50 billion pages in 56,000 files, of which about one in six is kept by recipe
# en before deduplication (docs/scale.md).
PAGES_PER_FILE = 7_600
_WINDOW = 3


def crawl_of(total: int, files: int | None, **shape: float) -> SpanCrawl:
    """Return a crawl of ``total`` spans; without ``files`` as many as Common Crawl would have."""
    per_page = UNITS_PER_PAGE - (_WINDOW - 1)
    files = files or max(1, round(total / per_page / PAGES_PER_FILE))
    pages = max(1, round(total / per_page / files))
    return SpanCrawl(total, files, pages, **shape)  # type: ignore[arg-type]


def buckets_of(total: int) -> int:
    """Return the build's choice: it counts units, of which a page has two more than spans."""
    units = round(total * UNITS_PER_PAGE / (UNITS_PER_PAGE - _WINDOW + 1))
    return dedup.bucket_count(units, spans.SPAN_BYTES)


def packed(crawl: SpanCrawl, rows: SpanRows) -> tuple[int, bytes]:
    """Return how many spans a file settles by itself, and what it sends to one bucket."""
    found = spans.span_winners(rows.ids, rows.keys)
    winners = found.rows
    return len(found.losers), spans.pack_spans(
        rows.ids[winners], rows.keys[winners], rows.index[winners]
    )


# ---------------------------------------------------------------------------- one bucket, one file


def make_bucket(crawl: SpanCrawl, bucket: int, buckets: int, path: str) -> dict[str, float]:
    """Write what all files send to one bucket, one buffer after the other."""
    source = crawl.bucket(bucket, buckets)
    settled = 0
    with open(path, "wb") as file:
        for _, rows in source.by_file():
            lost, buffer = packed(crawl, rows)
            settled += lost
            file.write(len(buffer).to_bytes(8, "little") + buffer)
    return {"settled": settled, "hot": len(source.hot)}


def read_bucket(crawl: SpanCrawl, path: str) -> Iterator[tuple[str, bytes]]:
    """Return the buffers of :func:`make_bucket`, with the names of their files."""
    with open(path, "rb") as file:
        for number in range(crawl.files):
            yield crawl.name(number), file.read(int.from_bytes(file.read(8), "little"))


def measure_bucket(crawl: SpanCrawl, path: str) -> dict[str, float]:
    """Deduplicates one bucket; bytes and CPU seconds.

    In a process that made none of it, since memory that was freed would be used again unseen.
    """
    buffers = list(read_bucket(crawl, path))
    forget_peak()
    before = resident("VmRSS")
    started = time.process_time()
    repeated = sum(
        len(spans.unpack_losers(lost).indices) for _, lost in dedup.repeated_spans(buffers)
    )
    cpu_s = time.process_time() - started
    return {
        "rows": sum(len(spans.unpack_spans(buffer).indices) for _, buffer in buffers),
        "repeated": repeated,
        "payload_bytes": sum(len(buffer) for _, buffer in buffers),
        "cpu_s": cpu_s,
        "before_bytes": before,
        "peak_bytes": resident("VmHWM"),
    }


def measure_file(crawl: SpanCrawl, file: int, buckets: int) -> dict[str, float]:
    """Do a whole file's work before anything moves: settle what it can, pack for all buckets."""
    parts = [
        rows
        for bucket in range(buckets)
        for _, rows in crawl.bucket(bucket, buckets).by_file(range(file, file + 1))
    ]
    page = np.concatenate([rows.page for rows in parts])
    order = np.argsort(page, kind="stable")
    ids = np.concatenate([rows.ids for rows in parts])[order]
    keys = np.concatenate([rows.keys for rows in parts])[order]
    started = time.process_time()
    found = spans.span_winners(ids, keys)
    winners = found.rows
    buffers = spans.pack_spans_by_bucket(ids[winners], keys[winners], winners, buckets)
    cpu_s = time.process_time() - started
    return {
        "spans": len(ids),
        "settled": len(found.losers),
        "buffers": len(buffers),
        "payload_bytes": sum(map(len, buffers.values())),
        "cpu_s": cpu_s,
    }


def forget_peak() -> None:
    """Start VmHWM anew (proc(5): clear_refs)."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def resident(field: str) -> int:
    """Bytes of memory of this process, now (VmRSS) or at most so far (VmHWM)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}: memory is measured on Linux only")


# ------------------------------------------------------------------------------------- all of it


def hot_buckets(crawl: SpanCrawl, buckets: int) -> list[int]:
    """Return the buckets that hot spans fall into."""
    ids = crawl.bucket(0, 1)._repeated_ids(np.arange(crawl.hot, dtype=np.uint64))
    return sorted(set(spans.bucket_of(ids, buckets).tolist()))


def in_process(arguments: argparse.Namespace, *what: str) -> dict[str, float]:
    """One measurement in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.scale", *what]
    for name in ("spans", "files", "hot", "hot_share", "repeated_share", "exponent", "seed"):
        value = getattr(arguments, name)
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def spread(values: Iterable[float]) -> str:
    found = np.array(list(values))
    return (
        f"{found.mean():.3g} (standard deviation {found.std(ddof=len(found) > 1):.2g}, "
        f"{found.min():.3g} to {found.max():.3g})"
    )


def total(values: Iterable[float], count: int) -> tuple[float, float]:
    """Sum over ``count`` things by the mean of some of them, and its standard error."""
    found = np.array(list(values))
    error = count * found.std(ddof=len(found) > 1) / np.sqrt(len(found))
    return count * float(found.mean()), float(error) * np.sqrt(max(0.0, 1 - len(found) / count))


def report(arguments: argparse.Namespace) -> None:
    """Measures a sample and prints what the whole comes to."""
    crawl = crawl_from(arguments)
    buckets = buckets_of(crawl.spans)
    hot = hot_buckets(crawl, buckets)
    others = [bucket for bucket in range(buckets) if bucket not in hot]
    if arguments.measure != "all":
        wanted = min(len(others), int(arguments.measure))
        others = [others[i * len(others) // wanted] for i in range(wanted)]
    print(
        f"{crawl.spans:,} spans on {crawl.pages:,} pages in {crawl.files:,} files, "
        f"{buckets} buckets; {crawl.hot} spans on {crawl.hot_share:.0%} of all pages, "
        f"{len(crawl.tail):,} more with two copies or more",
        flush=True,
    )
    measured = []
    for bucket in sorted([*hot, *others]):
        with tempfile.NamedTemporaryFile(prefix="c4-bucket-") as file:
            run = in_process(arguments, "make", "--bucket", str(bucket), "--path", file.name)
            run |= in_process(arguments, "bucket", "--path", file.name)
        measured.append(run)
        print(
            f"  bucket {bucket:>5}{' hot' if run['hot'] else '    '} {int(run['rows']):>11,} rows "
            f"({int(run['settled']):>10,} settled by their files), "
            f"{int(run['repeated']):>9,} go, {run['cpu_s']:6.2f} CPU s, "
            f"{run['payload_bytes'] / 2**20:6.1f} MiB of buffers, "
            f"{run['peak_bytes'] / 2**20:6.0f} MiB at most",
            flush=True,
        )
    numbers = range(0, crawl.files, max(1, crawl.files // max(1, arguments.whole_files)))
    files = [
        in_process(arguments, "file", "--file", str(file))
        for file in [*numbers][: arguments.whole_files]
    ]

    plain = [run for run in measured if not run["hot"]]
    special = [run for run in measured if run["hot"]]
    count = buckets - len(hot)
    print(f"over {len(plain)} of {count} buckets without a hot span:")
    for what, unit, scale in (
        ("cpu_s", "CPU s", 1.0),
        ("payload_bytes", "MiB of buffers", 2.0**20),
        ("peak_bytes", "MiB at most", 2.0**20),
    ):
        print(f"  a bucket: {spread(run[what] / scale for run in plain)} {unit}")
    beyond = [(run["peak_bytes"] - run["before_bytes"]) / run["payload_bytes"] for run in measured]
    print(
        f"  beyond its buffers a bucket takes {min(beyond):.2f} to {max(beyond):.2f} times their "
        "bytes"
    )
    if special:
        most = max(run["peak_bytes"] for run in special)
        mean = np.mean([run["peak_bytes"] for run in plain])
        print(f"  the hottest bucket's memory: {most / mean:.3f} times the others' mean")
    reduce_s, error_s = total((run["cpu_s"] for run in plain), count)
    reduce_s += sum(run["cpu_s"] for run in special)
    rows, _ = total((run["rows"] for run in plain), count)
    rows += sum(run["rows"] for run in special)
    gone, _ = total((run["settled"] + run["repeated"] for run in plain), count)
    gone += sum(run["settled"] + run["repeated"] for run in special)
    payload, _ = total((run["payload_bytes"] for run in plain), count)
    payload += sum(run["payload_bytes"] for run in special)
    print(f"all {buckets} buckets: {reduce_s:.0f} ± {error_s:.0f} CPU s, "
          f"{reduce_s / rows * 1e6:.3f} us a row; {rows:,.0f} rows, {payload / 1e9:.1f} GB moved, "
          f"{gone / crawl.spans:.1%} of the spans go")  # fmt: skip
    if files:
        map_s, error_s = total((run["cpu_s"] for run in files), crawl.files)
        each = np.mean([run["cpu_s"] / run["spans"] for run in files])
        print(
            f"before, in the files (by {len(files)} of {crawl.files:,}): {map_s:.0f} ± "
            f"{error_s:.0f} CPU s, {each * 1e6:.3f} us a span, {files[0]['buffers']:.0f} buffers "
            f"of {files[0]['payload_bytes'] / files[0]['buffers']:.0f} bytes a file"
        )


# --------------------------------------------------------------------------------------- checks


def brute_force(crawl: SpanCrawl, buckets: int) -> dict[int, list[int]]:
    """Return indices that go, by file: one dictionary of all rows of the crawl."""
    copies: dict[bytes, list[tuple[int, str, int, int]]] = defaultdict(list)
    for bucket in range(buckets):
        for file, rows in crawl.bucket(bucket, buckets).by_file():
            for identity, key, index in zip(rows.ids, rows.keys, rows.index, strict=True):
                copies[identity.tobytes()].append((int(key), crawl.name(file), int(index), file))
    gone: dict[int, list[int]] = defaultdict(list)
    for found in copies.values():
        for _, _, index, file in sorted(found)[1:]:
            gone[file].append(index)
    return {file: sorted(indices) for file, indices in gone.items()}


def by_buckets(crawl: SpanCrawl, buckets: int) -> dict[int, list[int]]:
    """Deduplicate with the build's code, bucket by bucket."""
    numbers = {crawl.name(file): file for file in range(crawl.files)}
    gone: dict[int, list[int]] = defaultdict(list)
    for bucket in range(buckets):
        buffers = []
        for file, rows in crawl.bucket(bucket, buckets).by_file():
            settled = spans.span_winners(rows.ids, rows.keys)
            winners = settled.rows
            gone[file] += rows.index[settled.losers].tolist()
            buffers.append(
                (
                    crawl.name(file),
                    spans.pack_spans(rows.ids[winners], rows.keys[winners], rows.index[winners]),
                )
            )
        for name, found in dedup.repeated_spans(buffers):
            gone[numbers[name]] += spans.unpack_losers(found).indices.tolist()
    return {file: sorted(indices) for file, indices in gone.items() if indices}


def copies_by_span(crawl: SpanCrawl, buckets: int) -> Iterator[int]:
    """Return a copy of every span of the crawl, in no order."""
    for bucket in range(buckets):
        rows = crawl.bucket(bucket, buckets).rows(0, crawl.files)
        _, counts = np.unique(rows.ids.view("V16"), return_counts=True)
        yield from counts.tolist()


def skew(crawl: SpanCrawl, buckets: int) -> dict[str, float]:
    """Print the skew: of the hot spans, of the tail, and how often spans are repeated."""
    counts = np.sort(np.fromiter(copies_by_span(crawl, buckets), np.int64))[::-1]
    tail = counts[crawl.hot : crawl.hot + max(2, len(crawl.tail) // 20)]
    ranks = np.arange(1, len(tail) + 1)
    slope = np.polyfit(np.log(ranks), np.log(tail), 1, w=1 / np.sqrt(ranks))[0]
    return {
        "spans": float(counts.sum()),
        "hot_share": float(counts[: crawl.hot].mean() / crawl.pages) if crawl.hot else 0.0,
        "exponent": float(-slope),
        "repeated": float(counts[counts > 1].sum() / counts.sum()),
        "go": float((counts - 1).sum() / counts.sum()),
    }


def check(arguments: argparse.Namespace) -> bool:
    """Compare with brute force and print the skew; True when all is as it should be."""
    good = True
    for size, files in ((2_000, 3), (60_000, 12)):
        crawl = crawl_of(size, files, **shape_of(arguments))
        same = all(by_buckets(crawl, n) == brute_force(crawl, n) for n in (1, 4))
        print(f"{size:>9,} spans in {files} files: {'same as' if same else 'NOT'} by brute force")
        good &= same
    crawl = crawl_of(4_000_000, 40, **shape_of(arguments))
    found = skew(crawl, 8)
    print(
        f"{crawl.spans:>9,} spans asked for, {found['spans']:,.0f} made; hot spans on "
        f"{found['hot_share']:.2%} of the pages (asked {crawl.hot_share:.0%}), exponent "
        f"{found['exponent']:.2f} (asked {crawl.exponent:g}); {found['repeated']:.1%} of the "
        f"occurrences are of repeated spans, {found['go']:.1%} go"
    )
    good &= abs(found["spans"] / crawl.spans - 1) < 0.02
    good &= not crawl.hot or abs(found["hot_share"] / crawl.hot_share - 1) < 0.02
    good &= abs(found["exponent"] - crawl.exponent) < 0.1
    return good


def shape_of(arguments: argparse.Namespace) -> dict[str, float]:
    names = ("hot", "hot_share", "repeated_share", "exponent", "seed")
    return {name: getattr(arguments, name) for name in names}


def crawl_from(arguments: argparse.Namespace) -> SpanCrawl:
    return crawl_of(arguments.spans, arguments.files, **shape_of(arguments))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", default="report",
                        choices=("report", "check", "make", "bucket", "file"))  # fmt: skip
    parser.add_argument("--spans", type=int, default=10**9)
    parser.add_argument("--files", type=int, help="default: as many as a crawl has for the spans")
    parser.add_argument("--measure", default="12", help="buckets to measure, or all (default: 12)")
    parser.add_argument("--whole-files", type=int, default=2, help="files to measure as a whole")
    parser.add_argument("--hot", type=int, default=4, help="spans on many pages (default: 4)")
    parser.add_argument("--hot-share", type=float, default=0.25, help="on what share of them")
    parser.add_argument("--repeated-share", type=float, default=0.27, help="of all spans")
    parser.add_argument("--exponent", type=float, default=1.0, help="of Zipf's law in the tail")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bucket", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        crawl = crawl_from(arguments)
        if arguments.measure != "all" and not arguments.measure.isdecimal():
            raise ValueError(f"--measure wants a number or all, got {arguments.measure!r}")
    except ValueError as error:
        parser.error(str(error))
    buckets = buckets_of(arguments.spans)
    if arguments.what == "make":
        print(json.dumps(make_bucket(crawl, arguments.bucket, buckets, arguments.path)))
    elif arguments.what == "bucket":
        print(json.dumps(measure_bucket(crawl, arguments.path)))
    elif arguments.what == "file":
        print(json.dumps(measure_file(crawl, arguments.file, buckets)))
    elif arguments.what == "check":
        return 0 if check(arguments) else 1
    else:
        report(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
