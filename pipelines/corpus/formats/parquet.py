"""Shards of Parquet, laid out for readers that stream pages into training.

Row groups are what a reader holds at once and what parallel readers share out, so they are cut by
bytes of text: a group of small pages would cost a seek for little, one of large pages much memory.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats.pages import COLUMNS, FEATURES, MOST_BYTES, TEXT_FEATURES, Page
from pipelines.corpus.formats.places import Kept, arrow_file, other_build
from pipelines.corpus.formats.provenance import PROVENANCE_COLUMNS, PROVENANCE_FEATURES

ROW_GROUP_TEXT_BYTES = 32 << 20

_TEXT_TYPES = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
#: What other tools say in a file's metadata that its strings were; stored they are the same.
_TEXT_VIEWS = (pa.string_view(), pa.binary_view())
_ROWS_AT_ONCE = 1024  # decoded before their size is looked at

_SCHEMA = pa.schema(
    [pa.field(name, pa.large_string(), nullable=False) for name in TEXT_FEATURES]
    + [pa.field("language", pa.large_string()), pa.field("language-probability", pa.float32())]
)
_WITH_PROVENANCE = pa.schema([*_SCHEMA, *PROVENANCE_FEATURES])


def write(table: pa.Table, binary_file: BinaryIO) -> None:
    """Write one Parquet file; 0 rows make a valid file of no row groups."""
    columns, schema = list(COLUMNS), _SCHEMA
    if "source_file" in table.column_names:
        columns, schema = [*columns, *PROVENANCE_COLUMNS], _WITH_PROVENANCE
    pages = pa.table(
        [table[name].cast(kind) for name, kind in zip(columns, schema.types, strict=True)],
        schema=schema,
    )
    with pq.ParquetWriter(
        binary_file,
        schema,
        compression="zstd",
        # Microseconds of CPU and bytes per page of 2.2 KB, levels 1, 2, 3, 5: 7.4, 897; 8.8, 822;
        # 11.3, 777; 19.8, 746. Level 1 is no smaller than gzip.
        compression_level=3,
        # Few values, many pages; the rest never repeats, and a dictionary of it is given up late.
        use_dictionary=["content-type", "language", "source-file"],
        # Smallest and largest text help no query and would cost a look at every page.
        write_statistics=["url", "timestamp", "language", "language-probability"],
        write_page_checksum=True,  # 1 microsecond per page; no model may train on a flipped bit
        store_schema=False,  # readers get plain strings, and 32 or 64-bit offsets leave no trace
    ) as writer:
        for start, stop in row_groups(pages["text"]):
            # One chunk a column, or page boundaries would follow the chunks of the input.
            group = pages.slice(start, stop - start).combine_chunks()
            writer.write_table(group, row_group_size=stop - start)


def row_groups(text: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    """Cut rows into groups that end with the row that fills `ROW_GROUP_TEXT_BYTES`.

    Yields:
        ``(start, stop)`` of each group, in rows.
    """
    ends = np.cumsum(pc.binary_length(text).to_numpy(), dtype=np.int64)
    start = 0
    while start < len(ends):
        done = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, done + ROW_GROUP_TEXT_BYTES)) + 1
        stop = min(stop, len(ends))
        yield start, stop
        start = stop


@dataclasses.dataclass(frozen=True)
class _Opened:
    file: pq.ParquetFile
    ends: npt.NDArray[np.int64]  # rows to the end of each row group


@dataclasses.dataclass(frozen=True)
class _Group:
    """Texts of a row group: of each batch the rows before it, its offsets and its bytes."""

    before: list[int]
    batches: list[tuple[npt.NDArray[Any], memoryview]]


class Texts:
    """Texts of pages, from row groups that are decoded one at a time."""

    def __init__(self, open_places: int) -> None:
        self._files: Kept[str, _Opened] = Kept(open_places)
        self._groups: Kept[tuple[str, int], _Group] = Kept(open_places)

    def read(self, path: str, stored: int, start: int, stop: int) -> list[bytes]:
        """Return the texts of pages ``start`` to ``stop`` of a shard of ``stored`` pages."""
        ends = self._open(path, stored).ends
        texts: list[bytes] = []
        while start < stop:
            number = int(np.searchsorted(ends, start, side="right"))
            group = self._row_group(path, stored, number)
            row = start - (int(ends[number - 1]) if number else 0)
            place = bisect.bisect_right(group.before, row) - 1
            offsets, data = group.batches[place]
            row -= group.before[place]
            cuts = offsets[row : row + stop - start + 1].tolist()  # as many as the batch has
            texts += [bytes(data[a:b]) for a, b in itertools.pairwise(cuts)]
            start += len(cuts) - 1
        return texts

    def _open(self, path: str, stored: int) -> _Opened:
        if path not in self._files:
            return self._files.keep(path, _open(path, stored))
        return self._files.keep(path, self._files[path])

    def _row_group(self, path: str, stored: int, number: int) -> _Group:
        key = (path, number)
        if key in self._groups:
            return self._groups.keep(key, self._groups[key])
        column = _decoded(path, self._open(path, stored), number, ["text"]).column("text")
        # Offsets and bytes of all texts; slicing them is half the cost of making Python strings.
        before = itertools.accumulate(map(len, column.chunks), initial=0)
        group = _Group(list(before)[:-1], [_offsets_and_bytes(text) for text in column.chunks])
        return self._groups.keep(key, group)


def _offsets_and_bytes(text: pa.Array) -> tuple[npt.NDArray[Any], memoryview]:
    wide = pa.types.is_large_string(text.type) or pa.types.is_large_binary(text.type)
    _, offsets, data = text.buffers()
    ends = np.frombuffer(offsets, np.int64 if wide else np.int32)
    return ends[text.offset : text.offset + len(text) + 1], memoryview(data or b"")


def read_pages(path: str) -> Iterator[Page]:
    """Yield the pages of a shard, holding one row group at a time."""
    opened = _open(path)
    columns = [name for name in FEATURES if name in opened.file.schema_arrow.names]
    for number in range(len(opened.ends)):
        group = _decoded(path, opened, number, columns)
        for batch in group.to_batches(max_chunksize=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                if isinstance(row["text"], bytes):
                    row["text"] = row["text"].decode()
                yield Page.of(row)


def read_tables(path: str, stored: int, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the row groups of a shard of ``stored`` pages, with columns named as `write` has them.

    Raises CorpusError, naming the file, if it is damaged or lacks a column.
    """
    opened = _open(path, stored)
    names = {column: name for name, column in FEATURES.items()}
    provenance = (field.name for field in PROVENANCE_FEATURES)
    names |= zip(PROVENANCE_COLUMNS, provenance, strict=True)
    wanted = ["text", *(names[column] for column in columns if column != "text")]
    if missing := [name for name in wanted if name not in opened.file.schema_arrow.names]:
        raise CorpusError(f"{path} has no column {missing[0]!r}")
    for number in range(len(opened.ends)):
        group = _decoded(path, opened, number, wanted)
        yield pa.table({column: group.column(names[column]) for column in columns})


def _open(path: str, stored: int | None = None, any_strings: bool = False) -> _Opened:
    # Page checksums are compared: no model may train on a flipped bit.
    file = pq.ParquetFile(arrow_file(path), page_checksum_verification=True, pre_buffer=True)
    metadata = file.metadata
    if stored is not None and metadata.num_rows != stored:
        raise other_build(path, f"has {metadata.num_rows} pages and manifest.json lists {stored}")
    schema = file.schema_arrow
    kinds = [field.type for field in schema if field.name == "text"]
    if any_strings:
        kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds]
    known = (*_TEXT_TYPES, *_TEXT_VIEWS) if any_strings else _TEXT_TYPES
    if len(kinds) != 1 or kinds[0] not in known:
        found = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise CorpusError(f"{path} has no column 'text' of strings, got {found}")
    rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if sum(rows) != metadata.num_rows or min(rows, default=0) < 0:
        raise CorpusError(
            f"{path} is damaged: its row groups hold {sum(rows)} pages of {metadata.num_rows}"
        )
    return _Opened(file, np.cumsum(rows, dtype=np.int64))


def read_batches(path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield those of the columns that a file has, a few hundred rows at a time.

    For files of others: texts may be null, and strings of any of Arrow's types.

    Raises:
        CorpusError, OSError or ValueError: The file is damaged, has no strings in ``text``, or two
            columns of one name.
    """
    opened = _open(path, any_strings=True)
    names = opened.file.schema_arrow.names
    wanted = [name for name in columns if name in names]
    for name in wanted:
        if names.count(name) > 1:
            raise CorpusError(f"{path} has {names.count(name)} columns {name!r}")
    for number in range(len(opened.ends)):
        yield from _batches(path, opened, number, wanted)


def _decoded(path: str, opened: _Opened, number: int, columns: list[str]) -> pa.Table:
    """Return columns of a row group. Raises CorpusError before they take all memory."""
    schema = pa.schema([opened.file.schema_arrow.field(name) for name in columns])
    table = pa.Table.from_batches(_batches(path, opened, number, columns), schema)
    if table.column("text").null_count:
        raise CorpusError(f"{path}: a page without text in row group {number}")
    return table


def _batches(
    path: str, opened: _Opened, number: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield columns of a row group. Raises CorpusError before they take all memory.

    A few kB may unpack to any number of GB: compressed, or one text that many rows share.
    """
    file = opened.file
    too_large = CorpusError(
        f"{path}: row group {number} has texts of more than {MOST_BYTES:,} bytes, more than any "
        "that c4 build writes: write the file with smaller row groups"
    )
    # The metadata of single columns is not looked at: if it is damaged, pyarrow 25 aborts.
    group = file.metadata.row_group(number)
    if group.total_byte_size + 8 * group.num_rows > MOST_BYTES:
        raise too_large
    # No text is longer than all that is stored, so that no batch takes more than may be taken.
    rows_at_once = MOST_BYTES // max(1, group.total_byte_size)
    size = found = 0
    for batch in file.iter_batches(
        max(1, min(_ROWS_AT_ONCE, rows_at_once)),
        row_groups=[number],
        columns=list(columns),
        use_threads=False,
    ):
        size, found = size + batch.nbytes, found + len(batch)
        if size > MOST_BYTES:
            raise too_large
        yield batch.select(columns)
    rows = int(opened.ends[number] - (opened.ends[number - 1] if number else 0))
    if found != rows:  # checksums are of a page's body: a flipped bit in its head passes
        raise CorpusError(f"{path} is damaged: row group {number} has {found} pages of {rows}")
