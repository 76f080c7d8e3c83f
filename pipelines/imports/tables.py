"""Rows of Parquet and Arrow files, and records of TFRecord files, as pages."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from c4_filters.verdicts import RejectReason
from pipelines.corpus.errors import CorpusError, one_line
from pipelines.corpus.formats import parquet, tfrecord
from pipelines.corpus.formats.places import arrow_file
from pipelines.imports.inflated import BrokenError, Stored, UnreadableSourceError
from pipelines.imports.pages import Found, Limits, page_of, url_of_file

__all__ = ["read_arrow", "read_parquet", "read_tfrecord"]

_FIELDS = ("text", "url", "timestamp")
_ROWS_AT_ONCE = 256
_ARROW_FILE = b"ARROW1"  # else it is a stream, which `datasets` writes
_DAMAGE = (CorpusError, OSError, ValueError, OverflowError, MemoryError, pa.ArrowException)


def read_parquet(path: str, stored: Stored, limits: Limits) -> Iterator[Found]:
    """Yield the pages of a Parquet file: its columns ``text``, ``url`` and ``timestamp``.

    Raises:
        UnreadableSourceError: The file is damaged, or has no column ``text`` of strings.
    """
    del stored
    return _pages(_rows(parquet.read_batches(path, _FIELDS)), path, limits)


def read_arrow(path: str, stored: Stored, limits: Limits) -> Iterator[Found]:
    """Yield the pages of an Arrow file, as `datasets.Dataset.save_to_disk` writes them.

    Raises:
        UnreadableSourceError: The file is damaged, or has no column ``text``.
    """
    del stored
    return _pages(_rows(_arrow_batches(path)), path, limits)


def read_tfrecord(path: str, stored: Stored, limits: Limits) -> Iterator[Found]:
    """Yield the pages of a TFRecord file: records with a feature ``text``, as C4's.

    Raises:
        UnreadableSourceError: The first record is damaged, or has no text.
        BrokenError: A later one is.
    """
    del stored
    return _pages((page._asdict() for page in tfrecord.read_pages(path)), path, limits)


def _pages(rows: Iterator[dict[str, Any]], path: str, limits: Limits) -> Iterator[Found]:
    url, number = url_of_file(path), 0
    while True:
        try:
            values = next(rows, None)
        except _DAMAGE as error:
            line = one_line(error).removeprefix(path).lstrip(": ")
            if not number:
                raise UnreadableSourceError(line) from None
            raise BrokenError(RejectReason.DAMAGED, line) from None
        if values is None:
            return
        number += 1
        yield page_of(values, number, url, limits)


def _arrow_batches(path: str) -> Iterator[pa.RecordBatch]:
    with arrow_file(path) as file:
        in_file = file.read(len(_ARROW_FILE)) == _ARROW_FILE
        file.seek(0)
        if in_file:
            reader = pa.ipc.open_file(file)
            batches = (reader.get_batch(at) for at in range(reader.num_record_batches))
        else:
            reader = pa.ipc.open_stream(file)
            batches = iter(reader)
        if "text" not in reader.schema.names:
            raise CorpusError(f"has no column 'text', got {reader.schema.names}")
        names = [name for name in _FIELDS if name in reader.schema.names]
        for batch in batches:
            wanted = batch.select(names)
            wanted.validate(full=True)
            for start in range(0, len(wanted), _ROWS_AT_ONCE):
                yield wanted.slice(start, _ROWS_AT_ONCE)


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        names = batch.schema.names
        columns = [_values(batch.column(at)) for at in range(len(names))]
        for row in zip(*columns, strict=True):
            yield dict(zip(names, row, strict=True))


def _values(column: pa.Array) -> list[Any]:
    """Return the values of a column; strings as bytes, which need not be UTF-8."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = column.cast(pa.large_binary())
    elif pa.types.is_timestamp(kind):  # Python's have no nanoseconds
        column = column.cast(pa.timestamp("us", tz=kind.tz), safe=False)
    found: list[Any] = column.to_pylist()
    return found
