"""The root digest: a name for a corpus that says what is in it, however and wherever it was built.

It is the SHA-256 of this JSON object, with sorted keys and without blanks, in ASCII::

    {"against": [...], "lists": {...}, "recipe": {...}, "rows": {"train": ..., "validation": ...}}

``recipe`` has every field but name and description; ``lists`` the SHA-256 of each list that the
user gave, by option; ``against`` the root digests of the older corpora, sorted. With the user's
own rules there is ``rules``, the SHA-256 of each module. ``rows`` has a digest of each split's
pages. Paths, formats, the number of shards, versions and the engine are not in it.

The digest of a split: page keys (`c4_filters.urls.page_key`) are cut into 2^20 equal buckets. A
page's digest is the SHA-256 of the lengths of its url and timestamp in bytes, in decimal, each
followed by a line feed, then url, timestamp and text. A bucket's digest is the SHA-256 of its
pages' digests, in the order of page keys, then of the digests. The split's is the SHA-256 of each
bucket that has pages: its number in four bytes, big-endian, and its digest.

So a shard, which is a range of page keys, can be hashed by itself: only its first and its last
bucket may have pages in other shards, too.
"""

import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from c4_filters.urls import normalize_url, page_key
from pipelines import storage
from pipelines.corpus.columns import Value
from pipelines.corpus.formats import FORMATS
from pipelines.corpus.formats.pages import rows_in_bytes
from pipelines.corpus.layout import SPLITS
from pipelines.corpus.manifest import Manifest, ShardFile

_BUCKET_BITS = 44  # of a page key, within a bucket: 2^20 buckets
_DIGEST_BYTES = 32
_NOT_NAMED = ("name", "description")  # fields of a recipe that change no page


@dataclasses.dataclass(frozen=True)
class RowDigests:
    """The digests of a shard's pages: about 36 bytes a bucket, and 32 a page of its two edges.

    Attributes:
        first: Number of the first bucket, and digests of its pages, if it begins before the shard.
        whole: Number and digest of each bucket between the edges that has pages.
        last: As ``first``, of a bucket that ends beyond the shard.
    """

    first: tuple[int, bytes] = (0, b"")
    whole: bytes = b""
    last: tuple[int, bytes] = (0, b"")


def row_digests(
    table: pa.Table, keys: npt.NDArray[np.uint64], bounds: tuple[int, int]
) -> RowDigests:
    """Hash the pages of a shard.

    Args:
        table: Its pages as they are written, with the columns url, timestamp and text.
        keys: uint64 ``[pages]``, their page keys, ascending.
        bounds: The first page key of the shard, and the first beyond it.
    """
    digests: list[bytes] = []
    for columns in rows_in_bytes(table, ["url", "timestamp", "text"]):
        digests += map(_row_digest, *columns)
    return _of_rows(digests, keys, bounds)


def _row_digest(url: Value, timestamp: Value, text: Value) -> bytes:
    lengths = b"%d\n%d\n" % (len(url), len(timestamp))
    digest = hashlib.sha256(b"".join((lengths, url, timestamp)))
    digest.update(text)
    return digest.digest()


def _of_rows(
    digests: list[bytes], keys: npt.NDArray[np.uint64], bounds: tuple[int, int]
) -> RowDigests:
    if not digests:
        return RowDigests()
    for start, stop in _runs(keys):
        if stop - start > 1:  # copies of a page: their order in shards is that of their files
            digests[start:stop] = sorted(digests[start:stop])
    joined = b"".join(digests)
    first = last = (0, b"")
    whole = []
    buckets = keys >> np.uint64(_BUCKET_BITS)
    for start, stop in _runs(buckets):
        number = int(buckets[start])
        rows = joined[start * _DIGEST_BYTES : stop * _DIGEST_BYTES]
        if number << _BUCKET_BITS < bounds[0]:
            first = (number, rows)
        elif (number + 1) << _BUCKET_BITS > bounds[1]:
            last = (number, rows)
        else:
            whole.append(_bucket(number, rows))
    return RowDigests(first, b"".join(whole), last)


def _runs(values: npt.NDArray[np.uint64]) -> Iterable[tuple[int, int]]:
    """Return start and end of each run of equal values."""
    starts = np.flatnonzero(values[1:] != values[:-1]) + 1
    return itertools.pairwise([0, *starts.tolist(), len(values)])


def _bucket(number: int, rows: bytes | bytearray) -> bytes:
    return number.to_bytes(4, "big") + hashlib.sha256(rows).digest()


def root_digest(made: Manifest, rows: Mapping[str, Iterable[RowDigests]]) -> str:
    """Return the root digest of a corpus, in hex.

    Args:
        made: Its manifest.
        rows: Of each split, the digests of its shards in order.
    """
    parts = named_by(made) | {"rows": {split: _split_digest(rows[split]) for split in SPLITS}}
    content = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode("ascii")).hexdigest()


def named_by(made: Manifest) -> dict[str, Any]:
    """Return what a corpus is named by, beside its pages, as JSON values.

    An entry for something new is left out where it is not used, so that names last.
    """
    rules = {"rules": made.settings.rules} if made.settings.rules else {}
    return rules | {
        "recipe": {name: value for name, value in made.recipe.items() if name not in _NOT_NAMED},
        "lists": made.settings.lists,
        "against": sorted(older.root_digest for older in made.against),
    }


def _split_digest(shards: Iterable[RowDigests]) -> str:
    total = hashlib.sha256()
    number, rows = 0, bytearray()  # of the bucket that goes on in the next shard

    def end() -> None:
        if rows:
            total.update(_bucket(number, rows))
            rows.clear()

    for shard in shards:
        for edge, whole in ((shard.first, shard.whole), (shard.last, b"")):
            if edge[1]:
                if edge[0] != number:
                    end()
                number = edge[0]
                rows += edge[1]
            if whole:
                end()
                total.update(whole)
    end()
    return total.hexdigest()


def recompute(folder: str, made: Manifest) -> str:
    """Return the root digest by the pages that a corpus holds, in the format that is read first.

    Raises:
        OSError: A shard cannot be read.
        ValueError: A shard is damaged.
    """
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = {
            split: list(
                pool.map(lambda shard: rows_of(storage.join(folder, shard.name), shard), shards)
            )
            for split, shards in hashed_shards(made).items()
        }
    return root_digest(made, rows)


def hashed_shards(made: Manifest) -> dict[str, list[ShardFile]]:
    """Return the shards of each split, in order, in the format that is read first."""
    first = next(name for name in FORMATS if name in made.formats)
    return {
        split: sorted(
            (each for each in made.shards if (each.format, each.split) == (first, split)),
            key=_index,
        )
        for split in SPLITS
    }


def _index(shard: ShardFile) -> int:
    return int(shard.name.split("-")[1])


def rows_of(path: str, shard: ShardFile) -> RowDigests:
    """Return the digests of the pages of a shard, which lies at ``path``."""
    digests, keys = [], []
    for page in FORMATS[shard.format].read_pages(path):
        digests.append(_row_digest(page.url.encode(), page.timestamp.encode(), page.text.encode()))
        keys.append(page_key(normalize_url(page.url)))
    if not keys:
        return RowDigests()
    # Parts of `c4 split` are cut by pages, not by page keys: any bucket at an edge may go on.
    low, high = keys[0] >> _BUCKET_BITS, keys[-1] >> _BUCKET_BITS
    bounds = ((low << _BUCKET_BITS) + 1, ((high + 1) << _BUCKET_BITS) - 1)
    return _of_rows(digests, np.array(keys, np.uint64), bounds)
