"""Exact deduplication as plain functions on arrays: of spans, of lines, and of pages by url.

A page's text is cut into *units*: sentences for span deduplication, lines for the line
deduplication of TensorFlow Datasets. ``starts`` gives the character offset of each unit, ascending;
unit ``i`` reaches to the start of the next one (the last to the end of the text), and its text is
that slice without trailing whitespace, which is the gap to the next unit. Units hold no newline.
A *span* is ``window`` consecutive units of one page. Over the whole data set all but one
occurrence of a span go, and a unit goes when it lies inside any occurrence that goes.

The way through this module, once per file and then once per bucket of identities::

    unit_identities -> span_identities -> span_winners -> pack_spans_by_bucket      (each file)
    repeated_spans                                                                  (each bucket)
    units_removed -> cut                                                            (each file)

Only packed buffers travel between the two, :data:`SPAN_BYTES` a span. Inside a file the losers are
known at once and only the winner of each identity is sent, so that a span on every page of a crawl
costs one row per file: there is no hot key. Which occurrence stays is decided by the page's key, a
hash of its url, never by the order of files, pages or buckets. Pages with the same url go the same
way before that: ``page_winners -> pack_pages_by_bucket``, then ``outdated_pages``.

A data set can also grow: identities of *older* pages, which stay whatever their keys are, win over
all others (:func:`pack_older_spans_by_bucket`, and the argument ``older`` of the last step).

Each loser gets its keeper. Inside a file that is the row of the winner, which may itself lose to
another file; a bucket says which page keeps the copy. :func:`final_keepers` follows both steps.
"""

import bisect
import functools
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import mmh3
import numpy as np
import numpy.typing as npt

UInt8s: TypeAlias = npt.NDArray[np.uint8]
UInt32s: TypeAlias = npt.NDArray[np.uint32]
UInt64s: TypeAlias = npt.NDArray[np.uint64]
Rows: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
_Array = TypeVar("_Array", UInt64s, UInt8s)

IDENTITY_BYTES: Final = 16
SPAN_BYTES: Final = 28  # identity 16, page key 8, index 4
OLDER_SPAN_BYTES: Final = 24  # identity 16, page key 8
PAGE_BYTES: Final = 68  # identity 16, timestamp 32, digest 16, index 4
LOSER_BYTES: Final = 12  # page key of the keeper 8, index 4
SETTLED_BYTES: Final = 8  # indices of loser and keeper 4 each
TIMESTAMP_BYTES: Final = 32
DIGEST_BYTES: Final = 16

# Constants of MurmurHash3_x64_128, by Austin Appleby, who put the algorithm in the public domain.
_C1 = np.uint64(0x87C37B91114253D5)
_C2 = np.uint64(0x4CF5AD432745937F)
_ADD1 = np.uint64(0x52DCE729)
_ADD2 = np.uint64(0x38495AB5)
_FINAL1 = np.uint64(0xFF51AFD7ED558CCD)
_FINAL2 = np.uint64(0xC4CEB9FE1A85EC53)
_FIVE = np.uint64(5)

# Spans hashed in one go: six temporary arrays of 128 KiB stay in the second-level cache.
_BLOCK: Final = 16384

_HEADER: Final = struct.Struct("<8sQ8s")  # magic, rows, checksum of what follows
HEADER_BYTES: Final = _HEADER.size
_SPAN_MAGIC: Final = b"C4SPANS1"
_OLDER_SPAN_MAGIC: Final = b"C4OLDSP1"
_PAGE_MAGIC: Final = b"C4PAGES1"
_SETTLED_MAGIC: Final = b"C4SETTL1"
_LOSER_MAGIC: Final = b"C4LOSER1"

# Values of one column at the given rows: columns are often spread over many buffers.
_Column: TypeAlias = Callable[[Rows], UInt64s]


# ---------------------------------------------------------------------------------- identities


def unit_identities(text: str, starts: Sequence[int]) -> bytes:
    r"""Hash every unit of a page: 16 bytes each, MurmurHash3 x64 128, seed 0.

    Hashed is the UTF-8 of the unit's text lower-cased and stripped. Every unit is lower-cased by
    itself, since a capital sigma becomes one letter or another by its neighbours; that is
    also the faster way wherever most units are ASCII. View the results, also of many
    pages joined, as an array with ``np.frombuffer(ids, "<u8").reshape(-1, 2)``.

    Raises:
        UnicodeEncodeError: the text holds half of a surrogate pair, which has no UTF-8.

    >>> ids = unit_identities("It rained. IT RAINED.\nAnd again.", [0, 11, 22])
    >>> len(ids), ids[:16] == ids[16:32], ids[:4].hex()
    (48, True, 'd499487c')

    """
    digest = mmh3.mmh3_x64_128_digest
    return b"".join(
        [
            digest(text[start:end].lower().strip().encode())
            for start, end in itertools.pairwise([*starts, len(text)])
        ]
    )


class Spans(NamedTuple):
    """All spans of one file, in the order of its pages and of the units in them."""

    ids: UInt64s  # [spans, 2]
    page: Rows  # [spans] page that the span lies in, from 0
    first_unit: Rows  # [spans] first unit of the span, counted through the whole file


def span_identities(units: UInt64s, units_per_page: npt.ArrayLike, window: int) -> Spans:
    """List the spans of a file: every ``window`` consecutive units that lie on one page.

    The identity of a span is MurmurHash3 x64 128 (seed 0) of its units' identities, joined; for
    ``window=1`` it is the unit's own. As units hold no newline, this distinguishes spans exactly as
    their lower-cased sentences joined by newlines do, up to collisions of 128 bits: other units,
    another order or another cut of the same words give another identity.

    Args:
        units: uint64 ``[units, 2]``, the unit identities of all pages one after the other.
        units_per_page: ``[pages]``, how many of them belong to each page.
        window: units a span; 3 for span deduplication, 1 for line deduplication.

    Raises:
        ValueError: shapes or counts do not fit, or the window is not positive.

    >>> joined = unit_identities("A. B. C. D.", [0, 3, 6, 9]) * 2
    >>> units = np.frombuffer(joined, "<u8").reshape(-1, 2)
    >>> spans = span_identities(units, [4, 4], window=3)
    >>> spans.page.tolist(), spans.first_unit.tolist(), bool((spans.ids[0] == spans.ids[2]).all())
    ([0, 0, 1, 1], [0, 1, 4, 5], True)

    """
    units = _checked_ids(units, "units")
    counts = np.asarray(units_per_page, np.int64).reshape(-1)
    if window < 1:
        raise ValueError(f"window must be positive, got {window}: a span is one unit or more")
    if (counts < 0).any() or counts.sum() != len(units):
        raise ValueError(
            f"units_per_page must add up to the number of units, got {counts.sum()} for "
            f"{len(units)} units"
        )
    spans_per_page = np.maximum(counts - (window - 1), 0)
    page = np.repeat(np.arange(len(counts)), spans_per_page)
    # Pages before a span's own hold this many units more than spans.
    behind = (np.cumsum(counts) - counts) - (np.cumsum(spans_per_page) - spans_per_page)
    first_unit = np.arange(len(page)) + np.repeat(behind, spans_per_page)
    ids = units[first_unit] if window == 1 else _hash_windows(units, first_unit, window)
    return Spans(ids, page, first_unit)


def _rotate(values: UInt64s, bits: int, spare: UInt64s) -> None:
    """Rotate every value left, in place."""
    np.right_shift(values, np.uint64(64 - bits), out=spare)
    np.left_shift(values, np.uint64(bits), out=values)
    np.bitwise_or(values, spare, out=values)


def finish_murmur(values: UInt64s, spare: UInt64s) -> None:
    """Make every bit of each value depend on all others (MurmurHash3's fmix64), in place."""
    for factor in (_FINAL1, _FINAL2, None):
        np.right_shift(values, np.uint64(33), out=spare)
        np.bitwise_xor(values, spare, out=values)
        if factor is not None:
            np.multiply(values, factor, out=values)


def _hash_windows(units: UInt64s, first_unit: Rows, window: int) -> UInt64s:
    """Return MurmurHash3 x64 128 of ``window`` identities from each first unit on, ``[n, 2]``."""
    # The first half of a round depends on the unit alone: done once a unit, not once a window.
    spare = np.empty(len(units), np.uint64)
    mixed1 = units[:, 0] * _C1
    _rotate(mixed1, 31, spare)
    mixed1 *= _C2
    mixed2 = units[:, 1] * _C2
    _rotate(mixed2, 33, spare)
    mixed2 *= _C1

    ids = np.empty((len(first_unit), 2), np.uint64)
    length = np.uint64(window * IDENTITY_BYTES)
    for low in range(0, len(first_unit), _BLOCK):
        first = first_unit[low : low + _BLOCK]
        hash1 = np.zeros(len(first), np.uint64)
        hash2 = np.zeros(len(first), np.uint64)
        spare = np.empty(len(first), np.uint64)
        for position in range(window):
            unit = first + position
            hash1 ^= mixed1[unit]
            _rotate(hash1, 27, spare)
            hash1 += hash2
            hash1 *= _FIVE
            hash1 += _ADD1
            hash2 ^= mixed2[unit]
            _rotate(hash2, 31, spare)
            hash2 += hash1
            hash2 *= _FIVE
            hash2 += _ADD2
        hash1 ^= length
        hash2 ^= length
        hash1 += hash2
        hash2 += hash1
        finish_murmur(hash1, spare)
        finish_murmur(hash2, spare)
        hash1 += hash2
        hash2 += hash1
        ids[low : low + _BLOCK, 0] = hash1
        ids[low : low + _BLOCK, 1] = hash2
    return ids


# ----------------------------------------------------------------------------- inside one file


class Winners(NamedTuple):
    """The rows of one file, split into those that stay and those that another row replaces."""

    rows: Rows  # [winners], in the order of their identities' first lanes, and so of buckets
    losers: Rows  # [losers], ascending
    keepers: Rows  # [losers], the winner of the same identity


class Losers(NamedTuple):
    """The rows of one file that lose to another row of their bucket."""

    indices: UInt32s  # [losers]
    keepers: UInt64s  # [losers]


def span_winners(ids: UInt64s, page_keys: UInt64s) -> Winners:
    """Split the spans of one file into the smallest occurrence of each identity and the rest.

    Occurrences are ordered by page key, then by row, so rows must be in the order of pages and
    positions, as :func:`span_identities` gives them. Two pages share a key only if their urls'
    hashes collide; the file's own order then decides, which is as good as any and always the same.

    Args:
        ids: uint64 ``[spans, 2]``.
        page_keys: uint64 ``[spans]``, the key of the page that each span lies in.

    Returns:
        Row numbers. Winners, which are sent on, come in the order of their buckets, whatever
        the number of buckets: no row has to move when they are packed.

    Raises:
        ValueError: shapes do not fit.

    >>> ids = np.array([[7, 7], [9, 9], [7, 7]], np.uint64)
    >>> found = span_winners(ids, np.array([5, 5, 2], np.uint64))
    >>> found.rows.tolist(), found.losers.tolist(), found.keepers.tolist()
    ([2, 1], [0], [2])

    """
    ids = _checked_ids(ids, "ids")
    keys = _checked(page_keys, "page_keys", "uint64", len(ids))
    return _split_winners(ids, (keys.__getitem__,))


def page_winners(ids: UInt64s, timestamps: UInt8s, digests: UInt8s) -> Winners:
    """Split the pages of one file into the newest of each url and the rest.

    The newest is the page with the largest timestamp, compared byte by byte; among pages of the
    same timestamp the one with the smallest digest, then the first row.

    Args:
        ids: uint64 ``[pages, 2]``, identities of the normalised urls.
        timestamps: uint8 ``[pages, 32]``, see :func:`timestamp_column`.
        digests: uint8 ``[pages, 16]``, a hash of the page's content.

    Returns:
        Row numbers, ordered as :func:`span_winners` orders them.

    Raises:
        ValueError: shapes do not fit.

    >>> ids = np.array([[7, 7], [7, 7]], np.uint64)
    >>> stamps = timestamp_column(["2019-04-18T10:00:00Z", "2019-04-20T10:00:00Z"])
    >>> found = page_winners(ids, stamps, np.zeros((2, 16), np.uint8))
    >>> found.rows.tolist(), found.losers.tolist(), found.keepers.tolist()
    ([1], [0], [1])

    """
    ids = _checked_ids(ids, "ids")
    stamps = _checked(timestamps, "timestamps", "uint8", len(ids), TIMESTAMP_BYTES)
    hashes = _checked(digests, "digests", "uint8", len(ids), DIGEST_BYTES)
    columns = (*_words(stamps.__getitem__, 4, largest=True), *_words(hashes.__getitem__, 2))
    return _split_winners(ids, columns)


def timestamp_column(timestamps: Sequence[str]) -> UInt8s:
    """Write timestamps as fixed rows of 32 bytes, uint8 ``[n, 32]``.

    Each is encoded as UTF-8, cut at 32 bytes and padded with zeros: rows compare as the texts do.
    That orders Common Crawl's dates (20 characters, "2019-04-18T10:00:00Z") by time; dates of
    other forms do so as :func:`c4_filters.dates.date_key` writes them.

    >>> column = timestamp_column(["2019-04-18T10:00:00Z", "2019"])
    >>> column.shape, column[1, :6].tolist()
    ((2, 32), [50, 48, 49, 57, 0, 0])
    """
    encoded = np.array([stamp.encode() for stamp in timestamps], f"S{TIMESTAMP_BYTES}")
    return encoded.view(np.uint8).reshape(-1, TIMESTAMP_BYTES)


def digest_keys(digests: UInt8s) -> UInt64s:
    """Return the first 8 bytes of each digest, little-endian: how keepers of pages are named.

    >>> digest_keys(np.array([[1, 0, 0, 0, 0, 0, 0, 0] + 8 * [255]], np.uint8))
    array([1], dtype=uint64)
    """
    hashes = _checked(digests, "digests", "uint8", len(digests), DIGEST_BYTES)
    return np.ascontiguousarray(hashes[:, :8]).view("<u8")[:, 0].astype(np.uint64)


def _split_winners(ids: UInt64s, columns: Sequence[_Column]) -> Winners:
    """Return the winners of a file, in order of the first lane's upper bits, and its losers."""
    order, same = _order_by_prefix(ids[:, 0].copy())
    rows, starts = _groups(order, same, (ids[:, 0].__getitem__, ids[:, 1].__getitem__))
    lost = np.zeros(len(ids), np.bool_)
    lost[rows] = True
    winners, _ = _smallest(rows, starts, (*columns, lambda rows: rows.astype(np.uint64)))
    lost[winners] = False
    keeper_of = np.empty(len(ids), np.int64)
    keeper_of[rows] = np.repeat(winners, np.diff(starts, append=len(rows)))
    losers = np.flatnonzero(lost)
    return Winners(order.compress(~lost[order]), losers, keeper_of[losers])


# ------------------------------------------------------------------------------ packed buffers


def bucket_of(ids: UInt64s, buckets: int) -> Rows:
    """Return the bucket of each identity, in ``range(buckets)``: equal shares of the first lane.

    Raises:
        ValueError: the number of buckets is not in 1..2**32.

    >>> bucket_of(np.array([[0, 3], [2**63, 3], [2**64 - 1, 3]], np.uint64), 10).tolist()
    [0, 5, 9]

    """
    if not 1 <= buckets <= 2**32:
        raise ValueError(f"buckets must be between 1 and 2**32, got {buckets}")
    ids = _checked_ids(ids, "ids")
    # The upper half of the lane, as a fraction, times the buckets: any number of them will do.
    shares = (ids[:, 0] >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)
    return shares.view(np.int64)


class SpanRows(NamedTuple):
    """The columns of one buffer of spans, each ``[rows]``."""

    first_lane: UInt64s  # of the span's identity
    second_lane: UInt64s
    page_keys: UInt64s
    indices: UInt32s  # row in the file's list of spans


class PageRows(NamedTuple):
    """The columns of one buffer of pages, ``[rows]`` or ``[rows, bytes]``."""

    first_lane: UInt64s  # of the url's identity
    second_lane: UInt64s
    timestamps: UInt8s
    digests: UInt8s
    indices: UInt32s  # row in the file's list of pages


def pack_spans(ids: UInt64s, page_keys: UInt64s, indices: npt.ArrayLike) -> bytes:
    """Pack spans into one buffer: 28 bytes per span after a header of 24 bytes.

    Layout, all little-endian: ``C4SPANS1``, number of rows and checksum (each uint64), then the
    columns one after the other: first lanes, second lanes, page keys (uint64), indices (uint32).

    Args:
        ids: uint64 ``[spans, 2]``.
        page_keys: uint64 ``[spans]``.
        indices: ``[spans]``, each span's row in the file's list of spans.

    Raises:
        ValueError: shapes do not fit, or an index is not in the range of uint32.

    >>> len(pack_spans(np.zeros((3, 2), np.uint64), np.zeros(3, np.uint64), [0, 1, 2])) - 24
    84

    """
    ids = _checked_ids(ids, "ids")
    keys = _checked(page_keys, "page_keys", "uint64", len(ids))
    return _pack(_SPAN_MAGIC, len(ids), ids[:, 0], ids[:, 1], keys, _uint32(indices, len(ids)))


def unpack_spans(buffer: bytes) -> SpanRows:
    """Read what :func:`pack_spans` wrote; the columns are views of the buffer.

    Raises:
        ValueError: the buffer does not hold spans, or was cut or changed.

    >>> buffer = pack_spans(np.array([[1, 2]], np.uint64), np.array([3], np.uint64), [4])
    >>> unpack_spans(buffer).page_keys
    array([3], dtype=uint64)

    """
    first, second, keys, indices = _unpack(buffer, _SPAN_MAGIC, "<u8", "<u8", "<u8", "<u4")
    return SpanRows(first, second, keys, indices)


def pack_spans_by_bucket(
    ids: UInt64s, page_keys: UInt64s, indices: npt.ArrayLike, buckets: int
) -> dict[int, bytes]:
    """Pack the winners of a file into one buffer for each bucket that has any.

    Arguments and errors are those of :func:`pack_spans` and :func:`bucket_of`. Rows keep their
    order inside a bucket.

    >>> ids = np.array([[0, 1], [2**63, 1], [5, 1]], np.uint64)
    >>> packed = pack_spans_by_bucket(ids, np.zeros(3, np.uint64), [0, 1, 2], buckets=2)
    >>> {bucket: unpack_spans(buffer).indices.tolist() for bucket, buffer in packed.items()}
    {0: [0, 2], 1: [1]}
    """
    ids = _checked_ids(ids, "ids")
    keys = _checked(page_keys, "page_keys", "uint64", len(ids))
    index = _uint32(indices, len(ids))
    columns = (ids[:, 0], ids[:, 1], keys, index)
    return _pack_by_bucket(_SPAN_MAGIC, bucket_of(ids, buckets), columns)


def pack_older_spans_by_bucket(
    ids: UInt64s, page_keys: UInt64s, rows: Rows, buckets: int
) -> dict[int, bytes]:
    """Pack spans of an older data set, of which none can go: 24 bytes each, without an index.

    Layout as that of :func:`pack_spans`, with ``C4OLDSP1``: first lanes, second lanes, page keys.

    Args:
        ids: uint64 ``[spans, 2]``.
        page_keys: uint64 ``[spans]``.
        rows: ``[packed]``, the spans to pack, such as ``Winners.rows``: each identity once.
        buckets: How many there are.

    Raises:
        ValueError: shapes do not fit, or the number of buckets is not in 1..2**32.
    """
    ids = _checked_ids(ids, "ids")
    keys = _checked(page_keys, "page_keys", "uint64", len(ids))
    order, bounds = _by_bucket(bucket_of(ids, buckets)[rows])
    ordered = rows[order]  # once over each column: they are large, and their order is random
    columns = [ids[ordered, 0], ids[ordered, 1], keys[ordered]]
    return _pack_ordered(_OLDER_SPAN_MAGIC, bounds, columns)


def _unpack_older_spans(buffer: bytes) -> SpanRows:
    first, second, keys = _unpack(buffer, _OLDER_SPAN_MAGIC, "<u8", "<u8", "<u8")
    return SpanRows(first, second, keys, np.arange(len(keys), dtype=np.uint32))


def unpack_pages(buffer: bytes) -> PageRows:
    """Read what :func:`pack_pages_by_bucket` wrote; the columns are views of the buffer.

    Raises:
        ValueError: the buffer does not hold pages, or was cut or changed.

    """
    first, second, stamps, hashes, indices = _unpack(
        buffer, _PAGE_MAGIC, "<u8", "<u8", f"({TIMESTAMP_BYTES},)u1", f"({DIGEST_BYTES},)u1", "<u4"
    )
    return PageRows(first, second, stamps, hashes, indices)


def pack_pages_by_bucket(
    ids: UInt64s, timestamps: UInt8s, digests: UInt8s, indices: npt.ArrayLike, buckets: int
) -> dict[int, bytes]:
    """Pack the winners of a file into one buffer for each bucket that has any.

    A buffer has 68 bytes per page after a header of 24 bytes. Layout as that of :func:`pack_spans`,
    with ``C4PAGES1``: first lanes, second lanes (uint64), timestamps (32 bytes), digests (16
    bytes), indices (uint32).

    Raises:
        ValueError: shapes do not fit, or an index is not in the range of uint32.

    """
    ids = _checked_ids(ids, "ids")
    stamps = _checked(timestamps, "timestamps", "uint8", len(ids), TIMESTAMP_BYTES)
    hashes = _checked(digests, "digests", "uint8", len(ids), DIGEST_BYTES)
    columns = (ids[:, 0], ids[:, 1], stamps, hashes, _uint32(indices, len(ids)))
    return _pack_by_bucket(_PAGE_MAGIC, bucket_of(ids, buckets), columns)


def pack_settled(losers: npt.ArrayLike, keepers: npt.ArrayLike) -> bytes:
    """Pack the losers found within one file: 8 bytes per loser after a header of 24 bytes.

    Layout as that of :func:`pack_spans`, with ``C4SETTL1``: losers, keepers (uint32).

    Args:
        losers: ``[losers]``, rows of the file that are removed.
        keepers: ``[losers]``, the row of the file that replaces each.

    Raises:
        ValueError: shapes do not fit, or a row is not in the range of uint32.

    >>> unpack_settled(pack_settled([3, 1], [0, 0]))
    (array([3, 1], dtype=uint32), array([0, 0], dtype=uint32))

    """
    values = np.asarray(losers)
    count = len(values)
    return _pack(_SETTLED_MAGIC, count, _uint32(values, count), _uint32(keepers, count))


def unpack_settled(buffer: bytes) -> tuple[UInt32s, UInt32s]:
    """Read what :func:`pack_settled` wrote, as views of the buffer: losers, keepers.

    Raises:
        ValueError: the buffer is of another kind, or was cut or changed.

    """
    losers, keepers = _unpack(buffer, _SETTLED_MAGIC, "<u4", "<u4")
    return losers, keepers


def pack_losers(losers: Losers) -> bytes:
    """Pack the losers of one file in one bucket: 12 bytes per loser after a header of 24 bytes.

    Layout as that of :func:`pack_spans`, with ``C4LOSER1``: keepers (uint64), indices (uint32).

    Raises:
        ValueError: shapes do not fit, or an index is not in the range of uint32.

    >>> packed = pack_losers(Losers(np.array([3], np.uint32), np.array([9], np.uint64)))
    >>> unpack_losers(packed).keepers
    array([9], dtype=uint64)

    """
    count = len(losers.indices)
    keepers = _checked(losers.keepers, "keepers", "uint64", count)
    return _pack(_LOSER_MAGIC, count, keepers, _uint32(losers.indices, count))


def unpack_losers(buffer: bytes) -> Losers:
    """Read what :func:`pack_losers` wrote; the columns are views of the buffer.

    Raises:
        ValueError: the buffer is of another kind, or was cut or changed.

    """
    keepers, indices = _unpack(buffer, _LOSER_MAGIC, "<u8", "<u4")
    return Losers(indices, keepers)


def is_settled(buffer: bytes) -> bool:
    """Return whether a buffer is of :func:`pack_settled`, and not of :func:`pack_losers`."""
    return buffer[: len(_SETTLED_MAGIC)] == _SETTLED_MAGIC


def _pack(magic: bytes, count: int, *columns: npt.NDArray[np.generic]) -> bytes:
    return _framed(magic, count, [_bytes_of(column) for column in columns])


def _framed(magic: bytes, count: int, parts: Sequence[memoryview]) -> bytes:
    # Joined in one go: on large buffers a second copy costs as much as the sort.
    return b"".join([_HEADER.pack(magic, count, _checksum(*parts)), *parts])


def _bytes_of(column: npt.NDArray[np.generic]) -> memoryview:
    """Return the little-endian bytes of a column."""
    little = np.ascontiguousarray(column, column.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _pack_by_bucket(
    magic: bytes, bucket: Rows, columns: Sequence[npt.NDArray[np.generic]]
) -> dict[int, bytes]:
    order, bounds = _by_bucket(bucket)
    return _pack_ordered(magic, bounds, [column[order] for column in columns])


def _by_bucket(bucket: Rows) -> tuple[Rows, dict[int, tuple[int, int]]]:
    """Return the stable order by bucket, and where in it each bucket begins and ends."""
    # NumPy sorts 16-bit numbers by radix, ten times faster; more buckets than that are rare.
    narrow = bucket.astype(np.uint16) if bucket.max(initial=0) < 2**16 else bucket
    order = np.argsort(narrow, kind="stable")
    ordered = narrow[order]
    new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    begins = np.flatnonzero(new)  # np.unique finds them at ten times the cost
    bounds = itertools.pairwise([*begins.tolist(), len(bucket)])
    return order, dict(zip(ordered[begins].tolist(), bounds, strict=True))


def _pack_ordered(
    magic: bytes,
    bounds: dict[int, tuple[int, int]],
    columns: Sequence[npt.NDArray[np.generic]],
) -> dict[int, bytes]:
    # Bytes are cut, not arrays: a file has thousands of buckets, most of them with few rows.
    data = [(_bytes_of(column), column[:1].nbytes) for column in columns]
    return {
        number: _framed(
            magic, end - begin, [part[begin * width : end * width] for part, width in data]
        )
        for number, (begin, end) in bounds.items()
    }


# Any: the columns of one buffer differ in type, and the callers name each of them.
def _unpack(buffer: bytes, magic: bytes, *types: str) -> tuple[npt.NDArray[Any], ...]:
    kind = magic.decode()
    if len(buffer) < HEADER_BYTES:
        raise ValueError(
            f"buffer is shorter than the header of a {kind} buffer: {len(buffer)} bytes of "
            f"{HEADER_BYTES}; write its file again"
        )
    found, count, checksum = _HEADER.unpack_from(buffer)
    if found != magic:
        raise ValueError(f"buffer must begin with {magic!r}, got {found!r}: not a {kind} buffer")
    dtypes, row_bytes = _row_of(types)
    if len(buffer) != HEADER_BYTES + count * row_bytes:
        raise ValueError(
            f"{kind} buffer of {count} rows must have {HEADER_BYTES + count * row_bytes} bytes, "
            f"got {len(buffer)}: it was cut or joined; write its file again"
        )
    if _checksum(memoryview(buffer)[HEADER_BYTES:]) != checksum:
        raise ValueError(f"{kind} buffer does not fit its checksum: it was changed; write it again")
    columns = []
    offset = HEADER_BYTES
    for dtype in dtypes:
        columns.append(np.frombuffer(buffer, dtype, count, offset))
        offset += count * dtype.itemsize
    return tuple(columns)


@functools.cache
def _row_of(types: tuple[str, ...]) -> tuple[list[np.dtype[Any]], int]:
    """Return the types of a row's columns, and how many bytes it has."""
    dtypes = [np.dtype(name) for name in types]
    return dtypes, sum(dtype.itemsize for dtype in dtypes)


def _checksum(*parts: memoryview) -> bytes:
    """Return the first lane of MurmurHash3 x64 128 of all parts as one."""
    hasher = mmh3.mmh3_x64_128()
    for part in parts:
        hasher.update(part)
    return hasher.digest()[:8]


# -------------------------------------------------------------------------- across all files


def repeated_spans(
    buffers: Sequence[tuple[str, bytes]], older: Sequence[tuple[str, bytes]] = ()
) -> dict[str, Losers]:
    """Find, in one bucket, the spans that go: all but the smallest occurrence of each identity.

    All occurrences of an identity go that an older data set has, too.

    The smallest is the one with the smallest page key. Rows with the same identity and the same
    key come from one page, or from two pages whose urls' hashes collide; then the file's name and
    the index in that file decide. That is harmless: it happens to no more pages than 64-bit
    hashes collide, and every run over the same files decides it the same way.

    Holds about twice the bytes of the buffers while it works, the buffers included.

    Args:
        buffers: ``(file, buffer)`` in any order, buffers from :func:`pack_spans_by_bucket`.
        older: The same of older data sets, buffers from :func:`pack_older_spans_by_bucket`.

    Returns:
        For each file that loses spans in this bucket their indices, and the key of the page that
        keeps each; of older pages with the span, the smallest key.

    Raises:
        ValueError: a buffer is damaged, or the same span of the same file was sent twice.

    >>> ids = np.array([[7, 7]], np.uint64)
    >>> a = pack_spans(ids, np.array([5], np.uint64), [0])
    >>> b = pack_spans(ids, np.array([2], np.uint64), [8])
    >>> lost = repeated_spans([("a", a), ("b", b)])
    >>> list(lost), lost["a"].indices, lost["a"].keepers
    (['a'], array([0], dtype=uint32), array([2], dtype=uint64))

    """
    files, before = _by_name(buffers), _by_name(older)
    parts = [unpack_spans(buffer) for _, buffer in files]
    parts += [_unpack_older_spans(buffer) for _, buffer in before]
    keys = _column([part.page_keys for part in parts])
    return _losers_of_bucket(files, before, parts, (keys,), keys)


def outdated_pages(
    buffers: Sequence[tuple[str, bytes]], older: Sequence[tuple[str, bytes]] = ()
) -> dict[str, Losers]:
    """Find, in one bucket, the pages that go: all but the newest of each normalised url.

    All pages of a url go that an older data set has, whatever their timestamps.

    The newest has the largest timestamp, compared byte by byte; among equals the page with the
    smallest digest of its content stays, then that of the first file by name, then the first row.

    Args:
        buffers: ``(file, buffer)`` in any order, buffers from :func:`pack_pages_by_bucket`.
        older: The same of older data sets.

    Returns:
        For each file that loses pages in this bucket their indices, and of the page that stays the
        first 8 bytes of its digest (:func:`digest_keys`).

    Raises:
        ValueError: a buffer is damaged, or the same page of the same file was sent twice.

    >>> ids, digest = np.array([[7, 7]], np.uint64), np.zeros((1, 16), np.uint8)
    >>> def page(day: str) -> bytes:
    ...     return pack_pages_by_bucket(ids, timestamp_column([day]), digest, [1], buckets=1)[0]
    >>> lost = outdated_pages([("a", page("2019-04-20")), ("b", page("2019-04-18"))])
    >>> list(lost), lost["b"].indices
    (['b'], array([1], dtype=uint32))

    """
    files, before = _by_name(buffers), _by_name(older)
    parts = [unpack_pages(buffer) for _, buffer in (*files, *before)]
    stamps = _byte_column([part.timestamps for part in parts])
    hashes = _byte_column([part.digests for part in parts])
    columns = (*_words(stamps, 4, largest=True), *_words(hashes, 2))
    return _losers_of_bucket(files, before, parts, columns, lambda rows: digest_keys(hashes(rows)))


_Buffers: TypeAlias = Sequence[tuple[str, bytes]]


def _by_name(buffers: _Buffers) -> _Buffers:
    return sorted(buffers, key=lambda item: item[0])


def _losers_of_bucket(
    buffers: _Buffers,
    older: _Buffers,
    parts: Sequence[SpanRows] | Sequence[PageRows],
    columns: Sequence[_Column],
    names_of: _Column,
) -> dict[str, Losers]:
    """Return all rows of ``buffers`` but the smallest of each identity, by file, sorted.

    ``parts`` are the rows of these buffers and then of the ``older`` ones, of which each row is
    smaller than any of ``buffers``. ``names_of``: what to name a row by, where it keeps what others
    lose.
    """
    if not buffers:
        return {}
    files = [file for file, _ in buffers]
    every = [*files, *(file for file, _ in older)]
    first_lanes = [part.first_lane for part in parts]
    second_lanes = [part.second_lane for part in parts]
    indices = [part.indices for part in parts]
    ends = np.cumsum([len(lane) for lane in second_lanes])
    # Winners of a file come in order of the first lane, so that its rows are read in order.
    order, same = _order_by_prefix(np.concatenate(first_lanes))
    rows, starts = _groups(order, same, (_column(first_lanes), _column(second_lanes)))
    del order, same
    names = {file: number for number, file in enumerate(dict.fromkeys(every))}
    numbers = np.array([names[file] for file in every], np.uint64)
    own = ends[len(files) - 1]  # rows of files

    def file_and_index(rows: Rows) -> UInt64s:
        buffer = np.searchsorted(ends, rows, side="right")
        return numbers[buffer] << np.uint64(32) | _column(indices)(rows)

    if older:
        columns = (lambda rows: (rows < own).astype(np.uint64), *columns)
    winners, undecided = _smallest(rows, starts, (*columns, file_and_index))
    if len(undecided):
        buffer = int(np.searchsorted(ends, undecided[0], side="right"))
        index = int(_column(indices)(undecided[:1])[0])
        raise ValueError(
            f"row {index} of file {every[buffer]!r} came twice: send each file once, under a name "
            "of its own"
        )
    lost = np.zeros(int(ends[-1]), np.bool_)
    lost[rows] = True
    lost[winners] = False
    keeper_of = np.empty(len(lost), np.uint64)
    keeper_of[rows] = np.repeat(names_of(winners), np.diff(starts, append=len(rows)))
    losers = np.flatnonzero(lost[:own])
    places, keepers = np.concatenate(indices)[losers], keeper_of[losers]
    found: dict[str, list[Losers]] = {}
    bounds = itertools.pairwise([0, *np.searchsorted(losers, ends[: len(files)]).tolist()])
    for file, (begin, end) in zip(files, bounds, strict=True):
        if end > begin:
            found.setdefault(file, []).append(Losers(places[begin:end], keepers[begin:end]))
    return {file: join_losers(parts) for file, parts in found.items()}


def join_losers(parts: Sequence[Losers]) -> Losers:
    """Join what several buffers or buckets say of one file."""
    if len(parts) == 1:
        return parts[0]
    return Losers(
        np.concatenate([np.empty(0, np.uint32), *(part.indices for part in parts)]),
        np.concatenate([np.empty(0, np.uint64), *(part.keepers for part in parts)]),
    )


def _column(parts: Sequence[npt.NDArray[np.unsignedinteger[Any]]]) -> _Column:
    """Join a column only while it is read: keeping joined ones would double the memory."""

    def values(rows: Rows) -> UInt64s:
        return np.concatenate(parts)[rows].astype(np.uint64, copy=False)

    return values


def _byte_column(parts: Sequence[UInt8s]) -> Callable[[Rows], UInt8s]:
    return lambda rows: np.concatenate(parts)[rows]


def _words(column: Callable[[Rows], UInt8s], count: int, largest: bool = False) -> list[_Column]:
    """Return bytes as ``count`` big-endian numbers in the order of the bytes, or its reverse."""

    def word(number: int, rows: Rows) -> UInt64s:
        taken = column(rows)[:, 8 * number : 8 * number + 8]
        values = np.ascontiguousarray(taken).view(">u8")[:, 0].astype(np.uint64)
        return ~values if largest else values

    return [functools.partial(word, number) for number in range(count)]


# ------------------------------------------------------------------------ groups and minima


def _order_by_prefix(lane: UInt64s) -> tuple[Rows, Bools]:
    """Order rows by the upper bits of a lane, which is overwritten.

    Row numbers take the place of the lowest bits, so that one plain sort of numbers does the work
    of an argsort at a third of its time, and rows ascend where the upper bits are equal. NumPy's
    quicksort uses vector instructions: it is 3 to 8 times faster than its merge sort even where
    the lane consists of sorted runs.

    Returns:
        The rows in order, and ``same[i]``: the upper bits at places ``i`` and ``i + 1`` agree.

    """
    count = len(lane)
    mask = np.uint64((1 << max(count - 1, 1).bit_length()) - 1)
    lane &= ~mask
    lane |= np.arange(count, dtype=np.uint64)
    lane.sort()
    same = (lane[1:] ^ lane[:-1]) <= mask
    lane &= mask
    return lane.view(np.int64), same


def _groups(order: Rows, same: Bools, identity: tuple[_Column, _Column]) -> tuple[Rows, Rows]:
    """Return the rows that share their whole identity with another row, group by group.

    A row that shares only the upper bits of its lane may come along, as a group of its own.

    Returns:
        Rows, ascending inside each group, and the place at which each group starts.

    """
    after = np.zeros(len(order), np.bool_)
    after[1:] = same
    in_run = after.copy()
    in_run[:-1] |= same
    rows = order.compress(in_run)
    new = ~after.compress(in_run)
    first, second = (lane(rows) for lane in identity)

    def differs() -> Bools:
        return np.not_equal(first[1:], first[:-1]) | np.not_equal(second[1:], second[:-1])

    mixed = differs() & ~new[1:]
    if mixed.any():
        # The upper bits agreed by chance. Few rows are so, and only they are sorted in full.
        run = np.cumsum(new) - 1
        bad = np.zeros(int(run[-1]) + 1, np.bool_)
        bad[run[1:][mixed]] = True
        places = np.flatnonzero(bad[run])
        source = places[np.lexsort((rows[places], second[places], first[places], run[places]))]
        for column in (rows, first, second):
            column[places] = column[source]
        new[1:] |= differs()
    return rows, np.flatnonzero(new)


def _smallest(rows: Rows, starts: Rows, columns: Sequence[_Column]) -> tuple[Rows, Rows]:
    """Return the smallest row of each group by the columns in turn.

    Each column is read only for rows that are equal in all columns before it.

    Returns:
        The smallest rows, and those among them that are equal in every column.

    """
    for column in columns:
        if len(rows) == len(starts):  # one of each group is left
            break
        values = column(rows)
        least = np.minimum.reduceat(values, starts)
        kept = values == np.repeat(least, np.diff(starts, append=len(rows)))
        rows = rows.compress(kept)
        if len(rows) > len(starts):
            sizes = np.add.reduceat(kept, starts, dtype=np.int64)
            starts = np.cumsum(sizes) - sizes
    if len(rows) == len(starts):
        return rows, rows[:0]
    sizes = np.diff(starts, append=len(rows))
    return rows, rows[np.repeat(sizes > 1, sizes)]


# ------------------------------------------------------------------------------------ cutting


def units_removed(first_units: npt.ArrayLike, window: int, total_units: int) -> Bools:
    """Mark the units that lie inside any removed span: bool ``[total_units]``.

    A unit also goes when another occurrence that covers it stays: one removed span is enough.

    Args:
        first_units: ``[removed]``, ``Spans.first_unit`` of the removed spans, in any order.
        window: units a span.
        total_units: units in the file.

    Raises:
        ValueError: the window is not positive, or a span reaches outside the units.

    >>> units_removed([1, 2], window=3, total_units=6).tolist()
    [False, True, True, True, True, False]

    """
    first = np.asarray(first_units, np.int64).reshape(-1)
    if window < 1:
        raise ValueError(f"window must be positive, got {window}: a span is one unit or more")
    if len(first) and not (first.min() >= 0 and first.max() + window <= total_units):
        raise ValueError(
            f"spans of {window} units must lie within {total_units} units, got first units from "
            f"{first.min()} to {first.max()}: are they of this file, and of this window?"
        )
    removed = np.zeros(total_units, np.bool_)
    for position in range(window):
        removed[first + position] = True
    return removed


def unit_keepers(
    first_units: npt.ArrayLike, keepers: UInt64s, window: int, removed: Bools
) -> UInt64s:
    """Return the keeper of each removed unit: uint64 ``[removed units]``, in order.

    A unit inside several removed spans has the smallest of their keepers.

    Args:
        first_units: ``[spans]``, ``Spans.first_unit`` of the removed spans, in any order.
        keepers: ``[spans]``, the key of the page that keeps each.
        window: units a span.
        removed: :func:`units_removed` of these spans.

    Raises:
        ValueError: shapes do not fit.

    >>> removed = units_removed([1, 2], window=3, total_units=6)
    >>> unit_keepers([1, 2], np.array([7, 5], np.uint64), 3, removed).tolist()
    [7, 5, 5, 5]

    """
    first = np.asarray(first_units, np.int64).reshape(-1)
    keepers = _checked(keepers, "keepers", "uint64", len(first))
    places = np.flatnonzero(removed)
    found = np.full(len(places), np.iinfo(np.uint64).max, np.uint64)
    begins = np.searchsorted(places, first)  # the units of a span are neighbours here, too
    for position in range(window):
        np.minimum.at(found, begins + position, keepers)
    return found


def final_keepers(
    settled: tuple[npt.ArrayLike, npt.ArrayLike], lost: Losers, own: Callable[[Rows], UInt64s]
) -> tuple[Rows, UInt64s]:
    """List all rows that a file loses, ascending, and the keeper of each.

    Args:
        settled: ``[n]`` and ``[n]``: rows that lose to another row of the same file, and that row.
        lost: Rows that lose to another file, as buckets say; a repetition counts once.
        own: What to name rows of this file by, where they keep what others lose.

    >>> lost = Losers(np.array([4], np.uint32), np.array([30], np.uint64))
    >>> final_keepers(([5, 6], [4, 1]), lost, lambda rows: rows.astype(np.uint64) + np.uint64(100))
    (array([4, 5, 6]), array([ 30,  30, 101], dtype=uint64))

    """
    losers, winners, rows = (np.asarray(part, np.int64) for part in (*settled, lost.indices))
    # A flag for every row of the file, which costs no sort; keepers of those that go only.
    gone = np.zeros(1 + max(part.max(initial=-1) for part in (losers, winners, rows)), np.bool_)
    gone[rows] = True
    beaten = gone[winners]  # who wins inside the file may lose to another
    gone[losers] = True
    joined = np.flatnonzero(gone)
    keepers = np.empty(len(joined), np.uint64)
    keepers[np.searchsorted(joined, rows)] = lost.keepers
    places = np.searchsorted(joined, losers)
    keepers[places[~beaten]] = own(winners[~beaten])
    keepers[places[beaten]] = keepers[np.searchsorted(joined, winners[beaten])]
    return joined, keepers


def cut(text: str, starts: Sequence[int], removed: Sequence[bool] | Bools) -> str:
    r"""Remove units from a page; what stays keeps its text, gaps and line breaks.

    A line all of whose units go vanishes with its newline, so that neighbouring lines are never
    glued and no empty line appears. On a line that keeps some of its units, a gap stays only
    between units that stay, and the line's indent stays in front. Lines without units stay.
    Lines end with "\n" only.

    Args:
        text: the page.
        starts: character offset of each unit.
        removed: for each unit, whether it goes; a slice of :func:`units_removed`.

    Raises:
        ValueError: ``removed`` is not as long as ``starts``, starts do not ascend within the
            text, or a unit extends beyond the end of its line.

    >>> cut("One. Two.  Three.\nFour.\nFive.", [0, 5, 11, 18, 24], [0, 1, 0, 1, 0])
    'One. Three.\nFive.'

    """
    gone = removed.tolist() if isinstance(removed, np.ndarray) else list(removed)
    if len(gone) != len(starts):
        raise ValueError(
            f"removed must name every unit, got {len(gone)} marks for {len(starts)} units"
        )
    if True not in gone:
        return text
    bounds = [*starts, len(text)]
    if bounds[0] < 0 or bounds != sorted(bounds):
        raise ValueError(f"starts must ascend from 0 to {len(text)} at most, got {bounds[:-1]}")

    # From one line that loses units to the next: the text between is copied as it is.
    pieces: list[str] = []
    copied = 0
    unit = gone.index(True)
    while True:
        line_start = text.rfind("\n", 0, starts[unit]) + 1
        line_end = text.find("\n", starts[unit])
        if line_end < 0:
            line_end = len(text)
        first = bisect.bisect_left(starts, line_start)
        after = bisect.bisect_right(starts, line_end)
        if bounds[after] > line_end and text[line_end : bounds[after]].strip():
            raise ValueError(
                f"a unit must end on the line that it starts on, got one at {starts[after - 1]} "
                f"that continues after the newline at {line_end}"
            )
        pieces.append(text[copied:line_start])
        line_gone = gone[first:after]
        if False in line_gone:
            pieces.append(_cut_line(text, line_start, line_end, bounds[first:after], line_gone))
            copied = line_end
        else:
            copied = line_end + 1
        try:
            unit = gone.index(True, after)
        except ValueError:
            break
    if copied > len(text):  # the last line has gone, and the newline before it ends nothing
        return "".join(pieces).removesuffix("\n")
    return "".join(pieces) + text[copied:]


def _cut_line(
    text: str, line_start: int, line_end: int, starts: Sequence[int], gone: Sequence[bool]
) -> str:
    """Return the line without some of its units; others stay."""
    pieces = [text[line_start : starts[0]]]
    for start, end, goes in zip(starts, [*starts[1:], line_end], gone, strict=True):
        if not goes:
            pieces.append(text[start:end])
    line = "".join(pieces)
    # A line that keeps its last unit keeps what followed it, too.
    return line.rstrip() if gone[-1] else line


# ------------------------------------------------------------------------------------- checks


def _checked(values: _Array, name: str, kind: str, *shape: int | None) -> _Array:
    """Return an array after a check of its type and shape; None stands for any length."""
    fits = values.dtype == kind and values.ndim == len(shape)
    if not fits or any(b not in (a, None) for a, b in zip(values.shape, shape, strict=True)):
        wanted = ", ".join("n" if length is None else str(length) for length in shape)
        raise ValueError(
            f"{name} must be {kind} [{wanted}], got {values.dtype} {list(values.shape)}"
        )
    return values


def _checked_ids(ids: UInt64s, name: str) -> UInt64s:
    return _checked(ids, name, "uint64", None, 2)


def _uint32(indices: npt.ArrayLike, count: int) -> UInt32s:
    values = np.asarray(indices)
    if values.shape != (count,):
        raise ValueError(f"indices must be [{count}], got {list(values.shape)}")
    if values.dtype == np.uint32:
        return values
    if count and not (values.dtype.kind in "ui" and values.min() >= 0 and values.max() < 2**32):
        raise ValueError(
            f"indices must be integers from 0 to 2**32 - 1, got {values.dtype} from "
            f"{values.min()} to {values.max()}: split the file"
        )
    return values.astype(np.uint32)
