"""Short forms of benchmarks/scale.py: made-up spans have the skew asked for, and fit in memory."""

import json
import pathlib
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.generate_spans import SpanCrawl
from c4_filters import spans
from pipelines.stages import older_files

SMALL = SpanCrawl(spans=30_000, files=6, pages_per_file=220)


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
        for name, found in older_files.repeated_spans(buffers):
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


def test_a_bucket_is_the_same_whatever_else_is_made() -> None:
    whole = SMALL.bucket(2, 4)
    alone = dict(whole.by_file(range(3, 4)))[3]
    among = dict(whole.by_file())[3]
    for column in ("page", "ids", "keys", "index"):
        assert np.array_equal(getattr(alone, column), getattr(among, column))
    assert len(alone.page)


def test_every_identity_lies_in_its_bucket_and_every_index_is_used_once() -> None:
    indices: dict[int, list[int]] = {}
    for bucket in range(4):
        for file, rows in SMALL.bucket(bucket, 4).by_file():
            assert (spans.bucket_of(rows.ids, 4) == bucket).all()
            assert (np.diff(rows.page.astype(np.int64)) >= 0).all()
            indices.setdefault(file, []).extend(rows.index.tolist())
    assert sorted(indices) == list(range(6))
    for found in indices.values():
        assert len(set(found)) == len(found)


def test_another_seed_is_another_crawl() -> None:
    other = SpanCrawl(spans=30_000, files=6, pages_per_file=220, seed=1)
    first, second = (crawl.bucket(0, 4).rows(0, 6).ids for crawl in (SMALL, other))
    assert not set(first[:, 0].tolist()) & set(second[:, 0].tolist())


@pytest.mark.slow
def test_what_goes_is_what_brute_force_says() -> None:
    for buckets in (1, 4):
        found = by_buckets(SMALL, buckets)
        assert found == brute_force(SMALL, buckets)
        assert sum(map(len, found.values())) > 5_000


def test_the_skew_is_the_one_asked_for() -> None:
    crawl = SpanCrawl(spans=1_000_000, files=10, pages_per_file=4_350, exponent=1.0)
    found = skew(crawl, 4)
    assert found["spans"] == pytest.approx(1_000_000, rel=0.02)
    assert found["hot_share"] == pytest.approx(0.25, rel=0.02)
    assert found["exponent"] == pytest.approx(1.0, abs=0.15)
    # 0.27 of the tail, and four spans on a quarter of 23 spans' pages: 0.043 more.
    assert found["repeated"] == pytest.approx(0.31, abs=0.03)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"files": 0}, "--files"),
        ({"hot_share": 0.0}, "--hot-share"),
        ({"repeated_share": 1.0}, "--repeated-share"),
        ({"hot": 400, "hot_share": 1.0}, "nothing for those that occur once"),
    ],
)
def test_a_crawl_that_cannot_be_is_refused(change: dict[str, float], what: str) -> None:
    values = {"spans": 30_000, "files": 6, "pages_per_file": 220} | change
    with pytest.raises(ValueError, match=what):
        SpanCrawl(**values)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux only")
def test_a_hot_bucket_takes_no_more_memory_than_another() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "benchmarks.scale", "--spans", "3000000", "--files", "20"]
    done = subprocess.run(
        [*command, "--measure", "1", "--whole-files", "1"],
        cwd=root, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [ratio] = [
        float(line.split()[4])
        for line in done.stdout.splitlines()
        if "hottest bucket's memory" in line
    ]
    assert ratio < 1.1
    assert "spans removed" in done.stdout


def test_the_number_of_buckets_is_the_builds() -> None:
    assert scale.buckets_of(10**9) == 454
    crawl = scale.crawl_of(
        10**9, None, hot=1, hot_share=0.5, repeated_share=0.1, exponent=1, seed=3
    )
    assert (crawl.files, crawl.seed) == (5_721, 3)
    assert json.dumps(crawl.pages)
