"""The files that one stage hands to the next: their schemas, how they are written and read.

*Cleaned* files hold one WET file's surviving pages in shard order: first by split, then by
``page_key``, then by ``digest``. They are Arrow IPC files cut into small record batches, whose
first and last keys stand in the schema's metadata, so that a shard's task reads the few batches it
needs and nothing else. (Why not Parquet: docs/log.md.)

*Fingerprint* files hold one row a page that takes part in deduplication: those of the cleaned file
first, in its order, then, for recipes that deduplicate urls before cleaning, the pages that the
rules dropped.

*Removal* files are flat bytes: one a page (1: its url is a duplicate), then one a unit (1: goes).
"""

import bisect
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines import storage

SPLITS = ("train", "validation")


class Source(NamedTuple):
    """Where cleaned pages stand, and what deduplication takes from them."""

    cleaned: str
    removals: str


CLEANED_SCHEMA = pa.schema(
    [
        ("url", pa.large_string()),
        ("text", pa.large_string()),  # kept lines, joined by newlines
        ("timestamp", pa.large_string()),  # WARC-Date as written
        ("content_type", pa.large_string()),  # as written
        ("content_length", pa.large_string()),  # as written: TF publishes it as a string
        ("language", pa.large_string()),  # langdetect code; null: detected after deduplication
        ("language_probability", pa.float32()),
        ("validation", pa.bool_()),
        ("page_key", pa.uint64()),  # hash of the normalised url: shard, and order in it
        ("digest", pa.binary(16)),  # of what is published of the page: tie-break among equal keys
        ("lines", pa.uint32()),  # kept lines
        ("unit_starts", pa.large_list(pa.uint32())),  # character offsets of dedup units in text
    ]
)

FINGERPRINT_SCHEMA = pa.schema(
    [
        ("url_identity", pa.binary(16)),
        ("timestamp", pa.large_string()),
        ("digest", pa.binary(16)),
        ("rank", pa.uint64()),  # decides which copy of a span stays: the smallest
        ("units", pa.large_binary()),  # 16 bytes a dedup unit
    ]
)

_BATCH_TEXT_BYTES = 1 << 18
_BATCH_ROWS = 256
_SUMMARY_KEY = b"colossal.summary"
_INDEX_KEY = b"colossal.index"
_FINGERPRINT_KEY = b"colossal.fingerprints"
# Against zstd at level 1: three fifths of the time to write, a third to read, half as large again.
_IPC_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Where a record batch of a cleaned file stands in the order of shards."""

    split: int  # index into SPLITS
    first_key: int
    last_key: int
    first_row: int
    first_unit: int
    rows: int
    checksum: int = 0  # LZ4 as Arrow writes it has none


def _checksum(rows: pa.RecordBatch) -> int:
    """CRC-32C of what a shard is made from: the pages' texts, unit starts and keys."""
    text, units = rows.column("text"), rows.column("unit_starts")
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(rows) + 1]
    total = 0
    if text.buffers()[2] is not None:
        total = google_crc32c.value(text.buffers()[2].slice(offsets[0], offsets[-1] - offsets[0]))
    first, last = units.offsets[0].as_py(), units.offsets[len(rows)].as_py()
    starts = units.values.slice(first, last - first).to_numpy()
    total = google_crc32c.extend(total, starts.tobytes())
    return int(google_crc32c.extend(total, rows.column("page_key").to_numpy().tobytes()))


def key_range(index: int, count: int) -> tuple[int, int]:
    """First page key of the ``index``-th of ``count`` equal ranges, and first beyond it.

    >>> key_range(0, 1) == (0, 2**64)
    True
    """
    return -(-(index << 64) // count), -(-((index + 1) << 64) // count)


def write_cleaned(path: str, table: pa.Table, summary: dict[str, Any]) -> None:
    """Writes a cleaned file in one atomic step; ``summary`` (JSON-ready) travels in its header.

    ``table``: CLEANED_SCHEMA, already in shard order (see :func:`shard_order`).
    """
    batches, parts = [], []
    for batch in _cut(table):
        [rows] = table.slice(batch.first_row, batch.rows).combine_chunks().to_batches()
        batches.append(dataclasses.replace(batch, checksum=_checksum(rows)))
        parts.append(rows)
    index = [dataclasses.astuple(batch) for batch in batches]
    schema = table.schema.with_metadata(
        {_SUMMARY_KEY: json.dumps(summary, sort_keys=True), _INDEX_KEY: json.dumps(index)}
    )
    with (
        storage.write_atomically(path) as file,
        pa.ipc.new_file(file, schema, options=_IPC_OPTIONS) as writer,
    ):
        for rows in parts:
            writer.write_batch(rows.replace_schema_metadata(schema.metadata))


def shard_order(table: pa.Table) -> npt.NDArray[np.int64]:
    """The permutation that puts cleaned pages in shard order, [pages]."""
    digests = np.frombuffer(
        b"".join(table["digest"].to_pylist()), dtype=[("high", ">u8"), ("low", ">u8")]
    )
    return np.lexsort(
        (
            digests["low"],
            digests["high"],
            table["page_key"].to_numpy(),
            table["validation"].to_numpy(zero_copy_only=False),
        )
    )


def _cut(table: pa.Table) -> Iterator[_Batch]:
    keys = table["page_key"].to_numpy()
    splits = table["validation"].to_numpy(zero_copy_only=False).astype(int)
    sizes = pa.compute.binary_length(table["text"]).to_numpy().astype(np.int64)
    units = pa.compute.list_value_length(table["unit_starts"]).to_numpy().astype(np.int64)
    first, size, unit, first_unit = 0, 0, 0, 0
    for row in range(len(keys)):
        full = size >= _BATCH_TEXT_BYTES or row - first >= _BATCH_ROWS
        if row > first and (full or splits[row] != splits[first]):
            yield _Batch(
                int(splits[first]), int(keys[first]), int(keys[row - 1]), first, first_unit,
                row - first,
            )  # fmt: skip
            first, size, first_unit = row, 0, unit
        size += int(sizes[row])
        unit += int(units[row])
    if len(keys):
        last = len(keys) - 1
        yield _Batch(
            int(splits[first]), int(keys[first]), int(keys[last]), first, first_unit,
            len(keys) - first,
        )  # fmt: skip


class CleanedFile:
    """An open cleaned file. Use as a context manager.

    Raises ValueError, naming the file, when it is not a whole cleaned file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: BinaryIO = storage.open_raw(path, scattered=True)
        try:
            self._reader = pa.ipc.open_file(pa.PythonFile(self._file, mode="r"))
            metadata = self._reader.schema.metadata or {}
            self.summary: dict[str, Any] = json.loads(metadata[_SUMMARY_KEY])
            self._index = [_Batch(*entry) for entry in json.loads(metadata[_INDEX_KEY])]
        except (pa.ArrowInvalid, KeyError, ValueError, TypeError, OSError) as error:
            self._file.close()
            raise ValueError(f"{path}: not a whole cleaned file: {error}") from None

    def __enter__(self) -> "CleanedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def pages(self) -> int:
        """Pages in the file."""
        return sum(batch.rows for batch in self._index)

    def slices(self, split: int, low: int, high: int) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        """Pages of ``split`` with ``low <= page_key < high``, in order.

        Yields (pages, index in the file of the first, index in the file of its first unit). Raises
        ValueError, naming the file, when what is asked for is damaged.
        """
        for number, batch in enumerate(self._index):
            if batch.split != split or batch.last_key < low or batch.first_key >= high:
                continue
            try:
                rows = self._reader.get_batch(number)
                if _checksum(rows) != batch.checksum:
                    raise ValueError("its content has changed")
            except (pa.ArrowInvalid, IndexError, ValueError, OSError) as error:
                raise ValueError(
                    f"{self.path}: damaged inside: {error}; remove this file"
                ) from None
            begin, end = 0, batch.rows
            if batch.first_key < low or batch.last_key >= high:
                keys = rows.column("page_key").to_numpy()
                begin = bisect.bisect_left(keys, low)
                end = bisect.bisect_left(keys, high)
            if begin >= end:
                continue
            first_unit = batch.first_unit
            if begin:
                # The list offsets say how many units the rows before hold.
                offsets = rows.column("unit_starts").offsets
                first_unit += offsets[begin].as_py() - offsets[0].as_py()
            yield rows.slice(begin, end - begin), batch.first_row + begin, first_unit


def write_fingerprints(path: str, table: pa.Table, cleaned_pages: int, source: str) -> None:
    """Writes a fingerprint file in one atomic step.

    ``table``: FINGERPRINT_SCHEMA. ``source``: digest of the WET file it was made from.
    """
    table = table.combine_chunks()
    head = {"cleaned_pages": cleaned_pages, "source": source, "sha256": _fingerprint_digest(table)}
    schema = table.schema.with_metadata({_FINGERPRINT_KEY: json.dumps(head)})
    with storage.write_atomically(path) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_table(table)


def _fingerprint_digest(table: pa.Table) -> str:
    """Of what decides about duplicates; Arrow's files carry no checksum of their own."""
    digest = hashlib.sha256()
    for name in ("url_identity", "digest", "rank", "units"):
        for part in _one_chunk(table[name]).buffers()[1:]:
            digest.update(part or b"")
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Fingerprints:
    """A fingerprint file in memory. Pages from ``cleaned_pages`` on were dropped by the rules."""

    cleaned_pages: int
    source: str  # digest of the WET file
    url_identities: npt.NDArray[np.uint64]  # [pages, 2]
    timestamps: list[str]  # [pages]
    digests: npt.NDArray[np.uint8]  # [pages, 16]
    ranks: npt.NDArray[np.uint64]  # [pages]
    units: npt.NDArray[np.uint64]  # [units, 2]
    units_per_page: npt.NDArray[np.int64]  # [pages]


def read_fingerprints(path: str) -> Fingerprints:
    """Reads a fingerprint file. Raises ValueError, naming it, when it is not a whole one."""
    content = storage.read_bytes(path)
    try:
        with pa.ipc.open_file(pa.py_buffer(content)) as reader:
            head = json.loads((reader.schema.metadata or {})[_FINGERPRINT_KEY])
            cleaned_pages, source = int(head["cleaned_pages"]), str(head["source"])
            table = reader.read_all().combine_chunks()
        columns = {name: _one_chunk(table[name]) for name in FINGERPRINT_SCHEMA.names}
        if _fingerprint_digest(table) != head["sha256"]:
            raise ValueError("its content has changed")
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"{path}: not a whole fingerprint file: {error}; remove this file"
        ) from None
    units = columns["units"]
    offsets = np.frombuffer(units.buffers()[1], dtype=np.int64)[: len(units) + 1]
    values = units.buffers()[2]
    data = np.frombuffer(values, dtype="<u8") if values else np.empty(0, dtype="<u8")
    data = data[offsets[0] // 8 : offsets[-1] // 8] if len(units) else data[:0]
    return Fingerprints(
        cleaned_pages=cleaned_pages,
        source=source,
        url_identities=_fixed(columns["url_identity"]).view("<u8").reshape(-1, 2),
        timestamps=columns["timestamp"].to_pylist(),
        digests=_fixed(columns["digest"]).reshape(-1, 16),
        ranks=columns["rank"].to_numpy(),
        units=data.reshape(-1, 2),
        units_per_page=np.diff(offsets) // 16,
    )


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _fixed(column: pa.Array) -> npt.NDArray[np.uint8]:
    """The bytes of a column of 16-byte values, end to end, [16 * rows]."""
    data = column.buffers()[1]
    return np.frombuffer(data or b"", dtype=np.uint8)[: 16 * len(column)]


def write_removals(path: str, pages: npt.NDArray[np.bool_], units: npt.NDArray[np.bool_]) -> None:
    """Writes which pages [pages] and which units [units] of a cleaned file go."""
    with storage.write_atomically(path) as file:
        file.write(pages.astype(np.uint8).tobytes())
        file.write(units.astype(np.uint8).tobytes())


class Removals:
    """An open removal file: reads the range that a shard's task asks for."""

    def __init__(self, path: str, pages: int) -> None:
        self.path = path
        self._pages = pages
        self._file = storage.open_raw(path, scattered=True)

    def __enter__(self) -> "Removals":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def pages(self, first: int, count: int) -> npt.NDArray[np.bool_]:
        """Whether each of ``count`` pages from ``first`` on goes, [count]."""
        return self._range(first, count)

    def units(self, first: int, count: int) -> npt.NDArray[np.bool_]:
        """Whether each of ``count`` units from ``first`` on goes, [count]."""
        return self._range(self._pages + first, count)

    def _range(self, first: int, count: int) -> npt.NDArray[np.bool_]:
        self._file.seek(first)
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError(f"{self.path}: too short: {len(data)} of {count} bytes at {first}")
        return np.frombuffer(data, dtype=np.bool_)
