"""Measure deduplication at the size of a crawl, bucket by bucket, in the memory of one bucket.

::

    python -m benchmarks.scale                    # a billion spans, a sample of their buckets
    python -m benchmarks.scale --measure all      # every bucket: half an hour of CPU or so

The billion spans never exist at once: ``benchmarks/generate_spans.py`` makes any bucket of any file
by itself. The build's own code is measured: what each file removes by itself and packs
(`c4_filters.spans.span_winners`, ``pack_spans``), then
`pipelines.stages.older_files.repeated_spans` on each bucket at its full size, in as many buckets as
the build would take (`dedup.bucket_count`).
Each bucket is deduplicated in its own process; its memory is the most that this process held (VmHWM
of Linux) once it had read the bucket's buffers. Buckets of the hot spans are always in the sample,
the others are spread evenly; totals are means over the others times their number, with their
standard error.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterable

import numpy as np

from benchmarks import measure
from benchmarks.generate_spans import SpanCrawl, SpanRows
from c4_filters import spans
from pipelines.stages import dedup, older_files

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
    """Return the number of buckets that a build takes: a page has two more units than spans."""
    units = round(total * UNITS_PER_PAGE / (UNITS_PER_PAGE - _WINDOW + 1))
    return dedup.bucket_count(units, spans.SPAN_BYTES)


def packed(rows: SpanRows) -> tuple[int, bytes]:
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
            lost, buffer = packed(rows)
            settled += lost
            file.write(len(buffer).to_bytes(8, "little") + buffer)
    return {"settled": settled, "hot": len(source.hot)}


def measure_bucket(crawl: SpanCrawl, path: str) -> dict[str, float]:
    """Deduplicate the bucket that `make_bucket` wrote, and return bytes and CPU seconds.

    Another process must have written it: freed memory would be used again unseen.
    """
    buffers = []
    with open(path, "rb") as file:
        for number in range(crawl.files):
            size = int.from_bytes(file.read(8), "little")
            buffers.append((crawl.name(number), file.read(size)))
    measure.reset_peak()
    before = measure.memory("VmRSS")
    started = time.process_time()
    repeated = sum(
        len(spans.unpack_losers(lost).indices) for _, lost in older_files.repeated_spans(buffers)
    )
    cpu_s = time.process_time() - started
    return {
        "rows": sum(len(spans.unpack_spans(buffer).indices) for _, buffer in buffers),
        "repeated": repeated,
        "payload_bytes": sum(len(buffer) for _, buffer in buffers),
        "cpu_s": cpu_s,
        "before_bytes": before,
        "peak_bytes": measure.memory("VmHWM"),
    }


def measure_file(crawl: SpanCrawl, file: int, buckets: int) -> dict[str, float]:
    """Measure the work on one file: remove its own repeats, pack the rest for all buckets."""
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
    buffers = spans.pack_spans_by_bucket(ids.take(winners, axis=0), keys[winners], winners, buckets)
    cpu_s = time.process_time() - started
    return {
        "spans": len(ids),
        "settled": len(found.losers),
        "buffers": len(buffers),
        "payload_bytes": sum(map(len, buffers.values())),
        "cpu_s": cpu_s,
    }


# ------------------------------------------------------------------------------------- all of it


def hot_buckets(crawl: SpanCrawl, buckets: int) -> list[int]:
    """Return the buckets that hot spans fall into."""
    ids = crawl.bucket(0, 1)._repeated_ids(np.arange(crawl.hot, dtype=np.uint64))
    return sorted(set(spans.bucket_of(ids, buckets).tolist()))


def spread(values: Iterable[float]) -> str:
    found = np.array(list(values))
    return (
        f"{found.mean():.3g} (standard deviation {found.std(ddof=len(found) > 1):.2g}, "
        f"{found.min():.3g} to {found.max():.3g})"
    )


def total(values: Iterable[float], count: int) -> tuple[float, float]:
    """Return the sum over ``count`` things, extrapolated from some, and its standard error."""
    found = np.array(list(values))
    error = count * found.std(ddof=len(found) > 1) / np.sqrt(len(found))
    return count * float(found.mean()), float(error) * np.sqrt(max(0.0, 1 - len(found) / count))


def report(arguments: argparse.Namespace, crawl: SpanCrawl) -> None:
    """Measure a sample of buckets and files, and print the sums for all."""
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
    measured, fresh = [], dataclasses.replace(crawl)  # without the table that crawl has made
    for bucket in sorted([*hot, *others]):
        with tempfile.NamedTemporaryFile(prefix="c4-bucket-") as file:
            run = measure.in_process(make_bucket, fresh, bucket, buckets, file.name)
            run |= measure.in_process(measure_bucket, fresh, file.name)
        measured.append(run)
        print(
            f"  bucket {bucket:>5}{' hot' if run['hot'] else '    '} {int(run['rows']):>11,} rows "
            f"({int(run['settled']):>10,} settled by their files), "
            f"{int(run['repeated']):>9,} removed, {run['cpu_s']:6.2f} CPU s, "
            f"{run['payload_bytes'] / 2**20:6.1f} MiB of buffers, "
            f"{run['peak_bytes'] / 2**20:6.0f} MiB at most",
            flush=True,
        )
    numbers = range(0, crawl.files, max(1, crawl.files // max(1, arguments.whole_files)))
    files = [
        measure.in_process(measure_file, fresh, file, buckets)
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

    def whole(*names: str) -> float:
        sums = [sum(run[name] for name in names) for run in plain]
        return total(sums, count)[0] + sum(run[name] for run in special for name in names)

    reduce_s, rows, payload = map(whole, ("cpu_s", "rows", "payload_bytes"))
    _, error_s = total((run["cpu_s"] for run in plain), count)
    gone = whole("settled", "repeated")
    print(f"all {buckets} buckets: {reduce_s:.0f} ± {error_s:.0f} CPU s, "
          f"{reduce_s / rows * 1e6:.3f} us a row; {rows:,.0f} rows, {payload / 1e9:.1f} GB moved, "
          f"{gone / crawl.spans:.1%} of the spans removed")  # fmt: skip
    if files:
        map_s, error_s = total((run["cpu_s"] for run in files), crawl.files)
        each = np.mean([run["cpu_s"] / run["spans"] for run in files])
        print(
            f"before, in the files (by {len(files)} of {crawl.files:,}): {map_s:.0f} ± "
            f"{error_s:.0f} CPU s, {each * 1e6:.3f} us a span, {files[0]['buffers']:.0f} buffers "
            f"of {files[0]['payload_bytes'] / files[0]['buffers']:.0f} bytes a file"
        )


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--spans", type=int, default=10**9)
    parser.add_argument("--files", type=int, help="default: as many as a crawl has for the spans")
    parser.add_argument("--measure", default="12", help="buckets to measure, or all (default: 12)")
    parser.add_argument("--whole-files", type=int, default=2, help="files to measure as a whole")
    parser.add_argument("--hot", type=int, default=4, help="spans on many pages (default: 4)")
    parser.add_argument("--hot-share", type=float, default=0.25, help="on what share of them")
    parser.add_argument("--repeated-share", type=float, default=0.27, help="of all spans")
    parser.add_argument("--exponent", type=float, default=1.0, help="of Zipf's law in the tail")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        if arguments.measure != "all" and not arguments.measure.isdecimal():
            raise ValueError(f"--measure wants a number or all, got {arguments.measure!r}")
        names = ("hot", "hot_share", "repeated_share", "exponent", "seed")
        shape = {name: getattr(arguments, name) for name in names}
        report(arguments, crawl_of(arguments.spans, arguments.files, **shape))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
