"""Generate fingerprints of a whole crawl; any bucket of any file can be generated alone.

The skew is that of web text. A few spans are on a quarter of all pages each (cookie notices,
footers of the large platforms). A long tail follows, whose copies decrease with the rank by
Zipf's law, down to spans that are expected twice in the crawl; all others occur once. Every row
is a function of the seed, the file, the bucket and its number there, by one mixing function of 64
bits, so that a bucket does not depend on what was generated before it, and nothing has to be kept.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np

from c4_filters import spans
from c4_filters.spans import UInt64s
from pipelines.report.counting import mixed

# What a number is drawn for: different purposes must not share draws.
_PAGE_KEY, _FIRST_LANE, _SECOND_LANE, _ON_PAGE, _HOW_MANY, _PAGE, _RANK, _ALONE = range(8)

_FILES_AT_A_TIME = 256


def _draw(*parts: int | UInt64s) -> UInt64s:
    """Return 64 random bits for each combination of the parts, which are broadcast."""
    drawn = np.zeros(1, np.uint64)  # an array: NumPy warns of scalars that overflow
    for part in parts:
        drawn = mixed(drawn ^ np.asarray(part, np.uint64))
    return drawn


def _uniform(*parts: int | UInt64s) -> np.ndarray:
    """Return random numbers like :func:`_draw`, above 0 and below 1."""
    return ((_draw(*parts) >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


@dataclasses.dataclass(frozen=True)
class SpanCrawl:
    """A generated crawl of spans.

    Attributes:
      spans: all occurrences of spans, in expectation.
      files: WET files that they lie in.
      pages_per_file: kept pages of a file.
      hot: spans that are on a share ``hot_share`` of all pages each.
      hot_share: above 0, at most 1.
      repeated_share: part of all occurrences that belong to spans of the Zipf tail.
      exponent: of Zipf's law in the tail: copies of rank r are as r ** -exponent.
      seed: 0 to 2**63 - 1.

    Raises:
      ValueError: a value out of its range, or more occurrences of hot and repeated spans than all.

    """

    spans: int
    files: int
    pages_per_file: int
    hot: int = 4
    hot_share: float = 0.25
    repeated_share: float = 0.27
    exponent: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.spans, self.files, self.pages_per_file) < 1:
            raise ValueError(
                "spans, files and pages a file must be positive, got "
                f"{self.spans}, {self.files} and {self.pages_per_file} (--spans, --files)"
            )
        if self.hot < 0 or not 0 < self.hot_share <= 1:
            raise ValueError(
                f"hot spans must be 0 or more on a share above 0 of all pages, got {self.hot} on "
                f"{self.hot_share} (--hot, --hot-share)"
            )
        if not 0 <= self.repeated_share < 1 or not 0.5 <= self.exponent <= 2:
            raise ValueError(
                "the repeated share must be at least 0 and below 1 and the exponent between 0.5 "
                f"and 2, got {self.repeated_share} and {self.exponent} "
                "(--repeated-share, --exponent)"
            )
        if self.alone_per_file <= 0:
            raise ValueError(
                f"{self.hot} spans on {self.hot_share} of the pages and {self.repeated_share} of "
                "all spans leave nothing for those that occur once (--hot, --repeated-share)"
            )

    @property
    def pages(self) -> int:
        """Kept pages of the crawl."""
        return self.files * self.pages_per_file

    @property
    def alone_per_file(self) -> float:
        """Expected spans of a file that occur nowhere else."""
        all_spans = self.spans / self.files
        return all_spans * (1 - self.repeated_share) - self.hot * self.hot_share * (
            self.pages_per_file
        )

    @functools.cached_property
    def tail(self) -> np.ndarray:
        """Expected copies of the spans of the tail in the whole crawl, float64 [ranks].

        So many ranks that the last is expected twice. Scaled so that all make up their share.
        """
        if not self.repeated_share:
            return np.empty(0)
        wanted = self.spans * self.repeated_share
        ranks = 1
        for _ in range(64):  # the more ranks, the fewer copies of each: a fixed point
            total = _power_sum(ranks, self.exponent)
            new = max(1, int((wanted / total / 2) ** (1 / self.exponent)))
            if abs(new - ranks) <= ranks * 1e-6:
                break
            ranks = new
        weights = np.arange(1, ranks + 1, dtype=np.float64) ** -self.exponent
        weights *= wanted / weights.sum()
        # No span of the tail is hotter than the hot ones.
        return np.minimum(weights, self.hot_share * self.pages)

    def name(self, file: int) -> str:
        """Return the name of a file's outputs, as long as Common Crawl's are."""
        tag = int(_draw(self.seed, file)[0]) & 0xFFFFFFFF
        return f"CC-MAIN-20190418101243-20190418122311-{file:05d}-{tag:08x}"

    def bucket(self, bucket: int, buckets: int) -> "SpanBucket":
        """All rows of one bucket of ``buckets``."""
        return SpanBucket(self, bucket, buckets)


def _power_sum(count: int, exponent: float) -> float:
    """Sum of r ** -exponent for r from 1 to count, by Euler and Maclaurin beyond 1,000."""
    few = min(count, 1000)
    total = float((np.arange(1, few + 1, dtype=np.float64) ** -exponent).sum())
    if count > few:
        low, high = few + 0.5, count + 0.5
        if exponent == 1:
            total += math.log(high / low)
        else:
            total += (high ** (1 - exponent) - low ** (1 - exponent)) / (1 - exponent)
    return total


@dataclasses.dataclass(frozen=True, eq=False)
class SpanRows:
    """Spans of some files of one bucket, ordered by file, then page. All of them [rows]."""

    file: UInt64s
    page: UInt64s  # in the file
    ids: UInt64s  # [rows, 2]
    keys: UInt64s  # of the page
    index: UInt64s  # unlike that of any other span of the file, whatever the bucket


class SpanBucket:
    """One bucket of a crawl. ``repeated`` is how many spans of the tail belong to it."""

    def __init__(self, crawl: SpanCrawl, bucket: int, buckets: int) -> None:
        if not 0 <= bucket < buckets:
            raise ValueError(f"the bucket must lie in 0..{buckets - 1}, got {bucket}")
        self._crawl, self._bucket, self._buckets = crawl, bucket, buckets
        # Hot spans are the ranks before the tail's.
        hot = self._mine(np.arange(crawl.hot, dtype=np.uint64))
        self.hot = hot
        ranks = self._mine(np.arange(crawl.hot, crawl.hot + len(crawl.tail), dtype=np.uint64))
        self.repeated = len(ranks)
        self._ranks = ranks
        weights = crawl.tail[(ranks - np.uint64(crawl.hot)).astype(np.int64)]
        self._cumulated = np.cumsum(weights)
        self._tail_per_file = float(weights.sum()) / crawl.files
        self._alone_per_file = crawl.alone_per_file / buckets

    def _mine(self, ranks: UInt64s) -> UInt64s:
        mine = [
            part[spans.bucket_of(self._repeated_ids(part), self._buckets) == self._bucket]
            for part in np.array_split(ranks, max(1, len(ranks) >> 20))
        ]
        return np.concatenate(mine)

    def _repeated_ids(self, ranks: UInt64s) -> UInt64s:
        seed = self._crawl.seed
        return np.stack(
            [_draw(seed, _FIRST_LANE, ranks), _draw(seed, _SECOND_LANE, ranks)], axis=-1
        )

    def _alone_ids(self, tags: UInt64s) -> UInt64s:
        """Identities in this bucket: the upper half of the first lane lies in its range."""
        low = -(-(self._bucket << 32) // self._buckets)
        size = -(-((self._bucket + 1) << 32) // self._buckets) - low
        upper = np.uint64(low) + (tags >> np.uint64(32)) * np.uint64(size) // np.uint64(2**32)
        first = upper << np.uint64(32) | mixed(tags) & np.uint64(0xFFFFFFFF)
        return np.stack([first, _draw(_ALONE, tags)], axis=-1)

    def _counts(self, files: UInt64s, what: int, mean: float) -> np.ndarray:
        """How many rows each file has: near Poisson's, int64 [files]."""
        seed, bucket = self._crawl.seed, self._bucket
        radius = np.sqrt(-2 * np.log(_uniform(seed, _HOW_MANY, what, bucket, files)))
        angle = 2 * np.pi * _uniform(seed, _HOW_MANY, what + 100, bucket, files)
        normal = radius * np.cos(angle)
        return np.maximum(0, np.rint(mean + math.sqrt(mean) * normal)).astype(np.int64)

    def rows(self, first: int, last: int) -> SpanRows:
        """Return the rows of files ``first`` to ``last - 1``."""
        crawl = self._crawl
        seed, bucket = crawl.seed, self._bucket
        files = np.arange(first, last, dtype=np.uint64)
        file_parts, page_parts, id_parts = [], [], []

        pages = np.arange(crawl.pages_per_file, dtype=np.uint64)
        limit = np.uint64(min(2**64 - 1, int(crawl.hot_share * 2.0**64)))
        for rank in self.hot:
            there = _draw(seed, _ON_PAGE, int(rank), files[:, None], pages[None, :]) <= limit
            file, page = np.nonzero(there)
            file_parts.append(files[file])
            page_parts.append(pages[page])
            id_parts.append(np.repeat(self._repeated_ids(np.array([rank])), len(file), axis=0))

        for what, mean in ((_RANK, self._tail_per_file), (_ALONE, self._alone_per_file)):
            if mean <= 0:
                continue
            counts = self._counts(files, what, mean)
            file = np.repeat(files, counts)
            number = np.arange(len(file), dtype=np.uint64) - np.repeat(
                (np.cumsum(counts) - counts).astype(np.uint64), counts
            )
            page = _draw(seed, _PAGE, what, bucket, file, number) % np.uint64(crawl.pages_per_file)
            if what == _RANK:
                at = _uniform(seed, _RANK, bucket, file, number) * self._cumulated[-1]
                ranks = self._ranks[np.searchsorted(self._cumulated, at)]
                id_parts.append(self._repeated_ids(ranks))
            else:
                id_parts.append(self._alone_ids(_draw(seed, _ALONE, bucket, file, number)))
            file_parts.append(file)
            page_parts.append(page)

        file, page, ids = map(np.concatenate, (file_parts, page_parts, id_parts))
        order = np.lexsort((page, file))
        file, page, ids = file[order], page[order], ids[order]
        counts = np.bincount((file - np.uint64(first)).astype(np.int64), minlength=len(files))
        number = np.arange(len(file)) - np.repeat(np.cumsum(counts) - counts, counts)
        index = number.astype(np.uint64) * np.uint64(self._buckets) + np.uint64(bucket)
        return SpanRows(file, page, ids, _draw(seed, _PAGE_KEY, file, page), index)

    def by_file(self, files: range | None = None) -> Iterator[tuple[int, SpanRows]]:
        """Yield the rows of each file; of all files unless some are named."""
        files = range(self._crawl.files) if files is None else files
        for first in range(files.start, files.stop, _FILES_AT_A_TIME):
            last = min(files.stop, first + _FILES_AT_A_TIME)
            rows = self.rows(first, last)
            bounds = np.searchsorted(rows.file, np.arange(first, last + 1, dtype=np.uint64))
            for file, begin, end in zip(range(first, last), bounds, bounds[1:], strict=False):
                yield (
                    file,
                    SpanRows(
                        rows.file[begin:end], rows.page[begin:end], rows.ids[begin:end],
                        rows.keys[begin:end], rows.index[begin:end],
                    ),
                )  # fmt: skip
