"""Near duplicates: MinHash over word shingles finds candidates, their true similarity decides.

A *shingle* is a run of five words, and a page's similarity to another is that of Jaccard: shingles
that both have, by shingles that either has. `band_hashes` gives each page a few numbers; pages that
share one are candidates (`candidate_pairs`), and `similarity` compares their texts. Then a page is
dropped if a better-ranked page that is itself kept is similar enough (`greedy`): being similar is
not passed on, so a page is only ever dropped in favour of one that a reader would call its copy.

Sources: Broder, "On the resemblance and containment of documents", 1997; Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", chapter 3.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from c4_filters.spans import Rows, UInt32s, UInt64s, finish_murmur

SHINGLE_WORDS = 5
#: Of the pages that share a number, all are compared with this many of the best-ranked ones, and
#: with no others: a number that a million pages share costs 16 million comparisons, not 10^12.
HOT = 16
RECALL = 0.97  # expected of pairs whose similarity is just the threshold
_MOST_HASHES = 160  # of a page
_BATCH_BYTES = 1 << 18  # of text that is hashed at a time
_ROWS_AT_A_TIME = 512  # of shingles: a block of hashes stays in the processor's cache

Shingles: TypeAlias = frozenset[tuple[str, ...]]

#: A page. Pages are in the order of these fields: the smallest is the best-ranked. An order that
#: begins with something else, such as the age of a corpus, needs a field in front.
PAGE = np.dtype([("rank", "<u8"), ("tie", "<u8"), ("file", "<u8"), ("row", "<u4")])
#: A page under one of its numbers.
BAND_ROW = np.dtype([("number", "<u8"), *((name, PAGE[name]) for name in PAGE.names or ())])


class Bands(NamedTuple):
    """A page has so many ``numbers``, each made of ``rows`` hashes."""

    numbers: int
    rows: int

    def recall(self, similarity: float) -> float:
        """Return the share of pairs of a similarity that become candidates.

        >>> round(bands_for(0.8).recall(0.8), 3), round(bands_for(0.8).recall(0.4), 3)
        (0.975, 0.013)
        """
        return 1.0 - (1.0 - similarity**self.rows) ** self.numbers


class Pairs(NamedTuple):
    """Pairs of pages by their places in an array, each array ``[pairs]``."""

    better: Rows
    worse: Rows


class Dropped(NamedTuple):
    """Pages that are dropped, and the page that stays instead, each array ``[dropped]``."""

    pages: npt.NDArray[np.void]  # PAGE
    keepers: npt.NDArray[np.void]  # PAGE: the best-ranked kept page that is similar


@functools.cache
def bands_for(threshold: float) -> Bands:
    """Return the layout for a threshold: the most rows that reach RECALL with 160 hashes.

    More rows in a band mean fewer candidates that are not near duplicates.

    >>> bands_for(0.8), bands_for(1.0)
    (Bands(numbers=20, rows=8), Bands(numbers=1, rows=160))
    """
    best = Bands(_MOST_HASHES, 1)
    for rows in range(1, _MOST_HASHES + 1):
        missed = 1.0 - threshold**rows
        count = 1 if missed <= 0.0 else math.ceil(math.log(1.0 - RECALL) / math.log(missed))
        if count * rows > _MOST_HASHES:  # and so for more rows
            break
        best = Bands(count, rows)
    return best


def _words(text: str) -> list[str]:
    return text.lower().split()


def shingles(text: str) -> Shingles:
    """Return the shingles of a text: runs of five words, in lower case.

    Words are what blanks separate. A text of fewer words is one shingle.

    >>> len(shingles("One two three four five six")), len(shingles("one TWO"))
    (2, 1)
    """
    words = _words(text)
    if len(words) <= SHINGLE_WORDS:
        return frozenset([tuple(words)])
    return frozenset(zip(*(words[first:] for first in range(SHINGLE_WORDS)), strict=False))


def similarity(one: Shingles, other: Shingles, least: float = 0.0) -> float:
    """Return the Jaccard similarity of two texts by their shingles.

    Args:
        one: Shingles of a text.
        other: Those of another.
        least: A similarity that cannot reach this may be returned as 0.

    >>> similarity(shingles("a b c d e f"), shingles("b c d e f g"))
    0.3333333333333333
    """
    if min(len(one), len(other)) < least * max(len(one), len(other)) - 1:
        return 0.0
    both = len(one & other)
    return both / (len(one) + len(other) - both)


# ------------------------------------------------------------------------------------- numbers


def band_hashes(texts: Sequence[str], bands: Bands) -> UInt64s:
    """Return the numbers of texts: two texts that share one are candidates.

    Args:
        texts: Pages.
        bands: How many numbers, see `bands_for`.

    Returns:
        ``[texts, bands.numbers]``. Numbers of different bands never count as the same.
    """
    least = np.empty((len(texts), bands.numbers * bands.rows), np.uint32)
    batch: list[bytes] = []
    size = done = 0
    for text in texts:
        batch.append(" ".join(_words(text)).encode("utf-8", "surrogatepass"))
        size += len(batch[-1])
        if size >= _BATCH_BYTES:
            _least_hashes(batch, least[done : done + len(batch)])
            done += len(batch)
            batch, size = [], 0
    if batch:
        _least_hashes(batch, least[done:])
    by_row = least.reshape(len(texts), bands.numbers, bands.rows)
    numbers = np.broadcast_to(
        _mixed(np.arange(1, bands.numbers + 1, dtype=np.uint64)), by_row.shape[:2]
    )
    for row in range(bands.rows):
        numbers = _mixed(numbers ^ by_row[:, :, row].astype(np.uint64))
    return np.ascontiguousarray(numbers)


def _least_hashes(texts: Sequence[bytes], least: UInt32s) -> None:
    """Write the least of each hash function over the shingles of each text, ``[texts, hashes]``."""
    hashes, ends = _shingle_hashes(texts)
    factors = _factors(least.shape[1])
    room = np.empty((_ROWS_AT_A_TIME, len(factors)), np.uint32)
    begin = 0
    for page, end in enumerate(ends.tolist()):
        for first in range(begin, end, _ROWS_AT_A_TIME):
            block = hashes[first : min(end, first + _ROWS_AT_A_TIME), None]
            values = np.multiply(block, factors, out=room[: len(block)])
            if first == begin:
                np.minimum.reduce(values, axis=0, out=least[page])
            else:
                np.minimum(least[page], np.minimum.reduce(values, axis=0), out=least[page])
        begin = end


def _shingle_hashes(texts: Sequence[bytes]) -> tuple[UInt32s, Rows]:
    """Return a hash of each shingle, and where those of each text end.

    Args:
        texts: Words with one blank between them.
    """
    data = np.frombuffer(b" ".join(texts), np.uint8)
    text_ends = np.cumsum([len(text) + 1 for text in texts]) - 1
    # A polynomial of the bytes up to each place: a run of words is then a difference.
    powers, inverses = _powers(len(data))
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum((data.astype(np.uint64) + np.uint64(1)) * powers[: len(data)], out=sums[1:])
    word_ends = np.append(np.flatnonzero(data == ord(" ")), len(data))
    word_starts = np.append(0, word_ends[:-1] + 1)
    last_words = np.searchsorted(word_ends, text_ends)  # of each text
    words = np.diff(last_words, prepend=-1)
    counts = np.maximum(1, words - SHINGLE_WORDS + 1)
    ends = np.cumsum(counts)
    first_words = last_words - words + 1
    first = np.arange(ends[-1]) + np.repeat(first_words - (ends - counts), counts)
    last = np.minimum(first + SHINGLE_WORDS - 1, np.repeat(last_words, counts))
    starts = word_starts[first]
    runs = (sums[word_ends[last]] - sums[starts]) * inverses[starts]
    return (_mixed(runs) >> np.uint64(32)).astype(np.uint32), ends


_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse
_tables: list[UInt64s] = []


def _powers(count: int) -> tuple[UInt64s, UInt64s]:
    """Return at least ``count`` powers of the base, and of its inverse, modulo 2^64."""
    if not _tables or len(_tables[0]) < count:
        size = 1 << max(19, count.bit_length())
        _tables[:] = [
            np.cumprod(np.append(np.uint64(1), np.full(size - 1, base, np.uint64)), dtype=np.uint64)
            for base in (_BASE, pow(_BASE, -1, 1 << 64))
        ]
    return _tables[0], _tables[1]


@functools.cache
def _factors(count: int) -> UInt32s:
    """Return the odd factors of the hash functions."""
    numbers = _mixed(np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_BASE))
    return (numbers >> np.uint64(32)).astype(np.uint32) | np.uint32(1)


def _mixed(values: UInt64s) -> UInt64s:
    """Return values with every bit depending on every other."""
    values = values.copy()
    finish_murmur(values, np.empty_like(values))
    return values


# ------------------------------------------------------------------------------ pairs of pages


def order_of(pages: npt.NDArray[np.void]) -> Rows:
    """Return the permutation that puts pages (PAGE or BAND_ROW) in order."""
    return np.lexsort([pages[name] for name in reversed(pages.dtype.names or ())])


def candidate_pairs(rows: npt.NDArray[np.void], hot: int = HOT) -> Iterator[Pairs]:
    """Yield the pairs of pages that share a number, by their places in ``rows``.

    Args:
        rows: BAND_ROW; a page is there once under a number.
        hot: Of the pages of a number, the others are compared with this many of the best-ranked.

    Yields:
        The pairs with the best-ranked page of each number, then those with the next, and so on: at
        most as many pairs at a time as there are rows.
    """
    order = order_of(rows)
    numbers = rows["number"][order]
    begins = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)])
    sizes = np.diff(np.append(begins, len(numbers)))
    for place in range(hot):
        begins, sizes = begins[sizes > place + 1], sizes[sizes > place + 1]
        if not len(begins):
            return
        counts = sizes - place - 1
        behind = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        hubs = np.repeat(begins + place, counts)
        yield Pairs(order[hubs], order[hubs + 1 + behind])


def greedy(better: npt.NDArray[np.void], worse: npt.NDArray[np.void]) -> Dropped:
    """Decide which pages of similar pairs are dropped: those with a better-ranked kept partner.

    It takes some 400 bytes of memory per pair.

    Args:
        better: PAGE, ``[pairs]``; a pair may be there more than once.
        worse: PAGE, ``[pairs]``, later in order than its partner.

    Returns:
        The pages that are dropped, in order.
    """
    both = np.concatenate([better, worse])
    order = order_of(both)
    ordered = both[order]
    new = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    pages = ordered[new]
    numbers = np.empty(len(both), np.int64)
    numbers[order] = np.cumsum(new) - 1
    first, second = numbers[: len(better)], numbers[len(better) :]
    by_worse = np.lexsort([first, second])
    keeper_of = {}
    # A page is decided when all its pairs with better pages are, which come before.
    for one, other in zip(first[by_worse].tolist(), second[by_worse].tolist(), strict=True):
        if one not in keeper_of and other not in keeper_of:
            keeper_of[other] = one
    gone = np.fromiter(keeper_of, np.int64, len(keeper_of))
    keepers = np.fromiter(keeper_of.values(), np.int64, len(keeper_of))
    return Dropped(pages[gone], pages[keepers])
