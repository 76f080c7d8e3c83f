"""Cleaned files: the pages of one WET file that passed the rules, and a list of those that did not.

Pages are in shard order: by split, then ``page_key``, then ``digest``. They are stored in small
record batches, one per section, whose first and last keys are in the file's table, so that the task
of a shard reads only the few batches it needs. (Why not Parquet: docs/log.md.)

Dropped pages, in the order of the WET file, follow in sections of their own.
"""

import bisect
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.corpus import layout
from pipelines.corpus.closing import Closing
from pipelines.corpus.container import (
    Container,
    DamagedFileError,
    Part,
    pack_batch,
    unpack_batch,
    write_container,
)


class CleanedSource(NamedTuple):
    """Paths of a cleaned file and of its removal file."""

    cleaned: str
    removals: str

    @classmethod
    def of(cls, folder: str, name: str) -> "CleanedSource":
        """Return those of a WET file of a corpus, by its name, see `pipelines.corpus.layout`."""
        return cls(layout.cleaned(folder, name), layout.removals(folder, name))


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
        ("digest", pa.binary(16)),  # of the published fields: tie-break between equal keys
        ("lines", pa.uint32()),  # kept lines
        ("unit_starts", pa.large_list(pa.uint32())),  # character offsets of dedup units in text
        ("offset", pa.uint64()),  # of the record's gzip member in the WET file
        ("inner_offset", pa.uint64()),  # of the record in the unpacked member
        ("record_id", pa.binary(16)),  # UUID of WARC-Record-ID; null if it has none
    ]
)
#: The columns by which pages are in shard order, the most significant first.
SHARD_ORDER = ("validation", "page_key", "digest")
MAY_BE_NULL = ("language", "language_probability", "record_id")

_DROPPED_SCHEMA = pa.schema(
    [
        ("key", pa.uint64()),
        ("offset", pa.uint64()),
        ("verdict", pa.uint8()),  # index into the head's list of verdicts
    ]
)

_KIND = "cleaned"
#: A record batch ends at so much text or so many pages, whichever is first.
BATCH_TEXT_BYTES, BATCH_ROWS = 1 << 18, 256
_DROPPED_ROWS = 1 << 16


class _Batch(NamedTuple):
    """The numbers of a section: the range of its pages in shard order."""

    split: int  # index into layout.SPLITS
    first_key: int
    last_key: int
    first_row: int
    first_unit: int
    rows: int
    units: int


@dataclasses.dataclass(frozen=True, eq=False)
class Dropped:
    """Pages that the rules dropped, each array ``[pages]``, in the order of the WET file."""

    keys: npt.NDArray[np.uint64]  # page keys
    offsets: npt.NDArray[np.uint64]  # of the records' gzip members in the WET file
    codes: npt.NDArray[np.uint8]  # indices into names
    names: tuple[str, ...]  # verdicts

    @property
    def verdicts(self) -> list[str]:
        """The verdict of each page."""
        return [self.names[code] for code in self.codes]


_NOTHING_DROPPED = Dropped(
    np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint8), ()
)


def key_range(index: int, count: int) -> tuple[int, int]:
    """Return the first page key of the ``index``-th of ``count`` equal ranges, and its end.

    >>> key_range(0, 1) == (0, 2**64)
    True
    """
    return -(-(index << 64) // count), -(-((index + 1) << 64) // count)


def shard_order(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return the permutation that puts cleaned pages, with SHARD_ORDER, in order: ``[pages]``."""
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


def units_in(pages: pa.RecordBatch) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the units of some pages of a cleaned file.

    Returns:
        Bounds of each page's units among them all, ``[pages + 1]``; where each unit starts in the
        text of its page, ``[units]``.
    """
    column = pages.column("unit_starts")
    bounds = column.offsets.to_numpy()[: len(pages) + 1]
    return bounds - bounds[0], column.values.to_numpy()[bounds[0] : bounds[-1]]


def removed_per_page(
    bounds: npt.NDArray[Any], removed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return how many units each page loses, ``[pages]``.

    Args:
        bounds: See `units_in`.
        removed: Whether each unit is removed, ``[units]``.
    """
    lost: npt.NDArray[np.int64] = np.diff(np.concatenate(([0], np.cumsum(removed)))[bounds])
    return lost


def write_cleaned(
    path: str, table: pa.Table, summary: dict[str, Any], dropped: Dropped | None = None
) -> None:
    """Write a cleaned file in one atomic step.

    Args:
        path: The file to write.
        table: CLEANED_SCHEMA, in shard order (see :func:`shard_order`).
        summary: JSON-ready; ``CleanedFile.summary`` returns it.
        dropped: Pages that the rules dropped.
    """
    dropped = dropped or _NOTHING_DROPPED
    head = {"summary": summary, "verdicts": list(dropped.names)}
    write_container(path, _KIND, head, _parts(table, dropped))


def _parts(table: pa.Table, dropped: Dropped) -> Iterator[Part]:
    for batch in _cut(table):
        [rows] = table.slice(batch.first_row, batch.rows).combine_chunks().to_batches()
        yield Part("pages", pack_batch(rows), batch)
    for first in range(0, len(dropped.keys), _DROPPED_ROWS):
        places = slice(first, first + _DROPPED_ROWS)
        columns = [dropped.keys[places], dropped.offsets[places], dropped.codes[places]]
        arrays = [pa.array(column) for column in columns]
        rows = pa.RecordBatch.from_arrays(arrays, schema=_DROPPED_SCHEMA)
        yield Part("dropped", pack_batch(rows), (len(rows),))


def _cut(table: pa.Table) -> Iterator[_Batch]:
    keys = table["page_key"].to_numpy()
    splits = table["validation"].to_numpy(zero_copy_only=False).astype(int)
    sizes = pc.binary_length(table["text"]).to_numpy().astype(np.int64)
    units = pc.list_value_length(table["unit_starts"]).to_numpy().astype(np.int64)
    first, size, unit, first_unit = 0, 0, 0, 0

    def batch(end: int) -> _Batch:
        return _Batch(
            *(int(splits[first]), int(keys[first]), int(keys[end - 1])),
            *(first, first_unit, end - first, unit - first_unit),
        )

    for row in range(len(keys)):
        full = size >= BATCH_TEXT_BYTES or row - first >= BATCH_ROWS
        if row > first and (full or splits[row] != splits[first]):
            yield batch(row)
            first, size, first_unit = row, 0, unit
        size += int(sizes[row])
        unit += int(units[row])
    if len(keys):
        yield batch(len(keys))


class CleanedFile(Closing):
    """An open cleaned file. Use as a context manager.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, or has another version; the message names it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = Container(path, _KIND)
        try:
            self.summary: dict[str, Any] = self._file.head["summary"]
            self._verdicts = tuple(self._file.head["verdicts"])
            if not isinstance(self.summary, dict) or not all(
                isinstance(verdict, str) for verdict in self._verdicts
            ):
                raise TypeError("its head is invalid")
            self._batches = [
                (number, _Batch(*section.numbers))
                for number, section in enumerate(self._file.sections)
                if section.name == "pages"
            ]
            self._last: tuple[int, pa.RecordBatch] | None = None  # two shards may share it
        except (KeyError, TypeError) as error:
            self._file.close()
            raise DamagedFileError(path, error) from None

    def close(self) -> None:
        """Close the file. Safe to call more than once."""
        self._file.close()

    def forget(self) -> None:
        """Free what was fetched, apart from the end of the file."""
        self._last = None
        self._file.forget()

    def hold(self, ranges: Iterable[tuple[int, int, int]]) -> int:
        """Fetch the pages of some ranges with one read, and close the file: `slices` gives them.

        Args:
            ranges: Split, first page key, page key after the last, as for `slices`; neighbours in
                shard order.

        Returns:
            How many bytes they have when they are unpacked.
        """
        wanted = sorted({number for each in ranges for number, _ in self._within(*each)})
        if wanted:
            self._file.hold(wanted[0], wanted[-1])
        else:
            self._file.close()
        return sum(self._file.sections[number].unpacked for number in wanted)

    @property
    def pages(self) -> int:
        """Pages in the file."""
        return sum(batch.rows for _, batch in self._batches)

    @property
    def units(self) -> int:
        """Dedup units on these pages."""
        return sum(batch.units for _, batch in self._batches)

    @property
    def wet_file(self) -> str:
        """The path of the WET file that the pages are from.

        Raises:
            ValueError: The file does not say so; the message names it.
        """
        try:
            path = self.summary["file"]["path"]
            if not isinstance(path, str):
                raise TypeError(f"the path of its WET file is {path!r:.40}")
        except (KeyError, TypeError) as error:
            raise DamagedFileError(self.path, error) from None
        return path

    def verify(self) -> None:
        """Read the whole file and check every byte of it. Raises ValueError naming the file."""
        self._file.verify()

    def slices(self, split: int, low: int, high: int) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        """Yield the pages of ``split`` with ``low <= page_key < high``, in order.

        Yields:
            Pages, the index in the file of the first, the index in the file of its first unit.

        Raises:
            ValueError: A batch of the range is damaged; the message names the file.
        """
        wanted = self._within(split, low, high)
        if wanted:
            self._file.expect(wanted[0][0], wanted[-1][0])
        for number, batch in wanted:
            rows = self._pages(number, batch.rows)
            begin, end = 0, batch.rows
            if batch.first_key < low or batch.last_key >= high:
                keys = rows.column("page_key").to_numpy()
                begin = bisect.bisect_left(keys, low)
                end = bisect.bisect_left(keys, high)
            if begin < end:
                yield _part(rows, batch, begin, end)

    def all_pages(self) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        """Yield the pages of all splits, as `slices` does."""
        for split in range(len(layout.SPLITS)):
            yield from self.slices(split, 0, 1 << 64)

    def page(self, row: int) -> tuple[pa.RecordBatch, int, int]:
        """Return one page as `slices` does, by its index in the file.

        Raises:
            ValueError: There is no such page, or its batch is damaged; the message names the file.
        """
        for number, batch in self._batches:
            if 0 <= row - batch.first_row < batch.rows:
                at = row - batch.first_row
                rows = self._pages(number, batch.rows)
                return _part(rows, batch, at, at + 1)
        raise DamagedFileError(self.path, f"no page {row} among {self.pages}")

    def dropped(self) -> Dropped:
        """Read the pages that the rules dropped.

        Raises:
            ValueError: The list is damaged; the message names the file.
        """
        batches = [
            self._rows(number, _DROPPED_SCHEMA, *section.numbers)
            for number, section in enumerate(self._file.sections)
            if section.name == "dropped"
        ]
        keys, offsets, codes = (_joined(batches, name) for name in _DROPPED_SCHEMA.names)
        if len(codes) and codes.max() >= len(self._verdicts):
            raise DamagedFileError(self.path, f"verdict {codes.max()} of {len(self._verdicts)}")
        return Dropped(keys, offsets, codes, self._verdicts)

    def _within(self, split: int, low: int, high: int) -> Sequence[tuple[int, _Batch]]:
        return [
            (number, batch)
            for number, batch in self._batches
            if batch.split == split and batch.last_key >= low and batch.first_key < high
        ]

    def _pages(self, number: int, count: int) -> pa.RecordBatch:
        if self._last is None or self._last[0] != number:
            self._last = number, self._rows(number, CLEANED_SCHEMA, count)
        return self._last[1]

    def _rows(self, number: int, schema: pa.Schema, count: int) -> pa.RecordBatch:
        rows = unpack_batch(self._file.read(number), schema, self.path, MAY_BE_NULL)
        if len(rows) != count:
            raise DamagedFileError(self.path, f"{len(rows)} rows of {count} in section {number}")
        return rows


def _part(
    rows: pa.RecordBatch, batch: _Batch, begin: int, end: int
) -> tuple[pa.RecordBatch, int, int]:
    """Return rows of a batch, and the indices in the file of the first and of its first unit."""
    first_unit = batch.first_unit
    if begin:
        # The list offsets give the number of units in the rows before.
        offsets = rows.column("unit_starts").offsets
        first_unit += offsets[begin].as_py() - offsets[0].as_py()
    return rows.slice(begin, end - begin), batch.first_row + begin, first_unit


def _joined(batches: Iterable[pa.RecordBatch], name: str) -> npt.NDArray[Any]:
    empty = pa.array([], _DROPPED_SCHEMA.field(name).type).to_numpy()
    return np.concatenate([empty, *(rows.column(name).to_numpy() for rows in batches)])
