"""Rows of Parquet and Arrow files, and records of TFRecord files, as pages."""

import datetime
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from c4_filters.verdicts import RejectReason
from pipelines import storage
from pipelines.corpus.errors import CorpusError, one_line
from pipelines.corpus.formats import parquet, tfrecord
from pipelines.corpus.formats.places import arrow_file
from pipelines.imports.inflated import BrokenError, Stored, UnreadableSourceError, require_small
from pipelines.imports.pages import Found, Limits, page_of, url_of_file

_FIELDS = ("text", "url", "timestamp")
_ROWS_AT_ONCE = 256
_ARROW_FILE = b"ARROW1"  # else it is a stream, which `datasets` writes
_STRINGS = (
    pa.string(), pa.large_string(), pa.string_view(),
    pa.binary(), pa.large_binary(), pa.binary_view(),
)  # fmt: skip
_EPOCH = datetime.datetime(1970, 1, 1)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
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
    return _pages(_records(path), path, limits)


def _records(path: str) -> Iterator[dict[str, Any]]:
    for number, values in enumerate(tfrecord.read_values(path), 1):
        if number == 1 and "text" not in values:
            raise CorpusError(f"has no feature 'text', got {', '.join(values)}")
        yield values


def _pages(rows: Iterator[dict[str, Any]], path: str, limits: Limits) -> Iterator[Found]:
    url, number, text_bytes, stored = url_of_file(path), 0, 0, 0
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
        # One text that many rows share takes no place in the file.
        text_bytes += len(values.get("text") or b"")
        if text_bytes > limits.file:
            stored = stored or storage.stat(path).size
            require_small(text_bytes, limits.file, stored)
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
        found = reader.schema.names
        kinds = [field.type for field in reader.schema if field.name == "text"]
        kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds]
        if not kinds or kinds[0] not in _STRINGS:
            shown = ", ".join(f"{field.name}: {field.type}" for field in reader.schema)
            raise CorpusError(f"has no column 'text' of strings, got {shown}")
        names = [name for name in _FIELDS if name in found]
        for name in names:
            if found.count(name) > 1:
                raise CorpusError(f"has {found.count(name)} columns {name!r}")
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
    """Return the values of a column: strings as bytes, which need not be UTF-8, times as datetimes.

    A time that Python has no datetime for is None. Of values of other types, which no page has,
    only the type is returned.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        used = column.indices.drop_null().unique()
        named = dict(zip(used.to_pylist(), _values(column.dictionary.take(used)), strict=True))
        return [named.get(at) for at in column.indices.to_pylist()]
    if isinstance(kind, pa.BaseExtensionType):
        return _values(column.storage)
    if pa.types.is_date(kind):
        return _values(column.cast(pa.timestamp("ms")))
    if pa.types.is_timestamp(kind):  # of the zone UTC, whichever zone it names
        stored = column.cast(pa.int64()).to_pylist()
        return [None if at is None else _time(at // _PER_SECOND[kind.unit]) for at in stored]
    if kind in _STRINGS:
        return list(column.cast(pa.large_binary()).to_pylist())
    return [kind if valid else None for valid in column.is_valid().to_pylist()]


def _time(seconds: int) -> datetime.datetime | None:
    try:
        return _EPOCH + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return None
