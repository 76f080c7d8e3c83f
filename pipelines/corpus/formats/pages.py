"""A page, the table that every shard writer takes, and its rows in pieces of bounded memory."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from pipelines.corpus.columns import views

# Feature as published -> column of the table; every page has a value.
TEXT_FEATURES: dict[str, str] = {
    "text": "text",
    "url": "url",
    "timestamp": "timestamp",
    "content-type": "content_type",
    "content-length": "content_length",
}
# The same for what a page may lack: a recipe without language detection has neither.
LANGUAGE_FEATURES: dict[str, str] = {
    "language": "language",
    "language-probability": "language_probability",
}
FEATURES = {**TEXT_FEATURES, **LANGUAGE_FEATURES}
#: Columns of the table that a shard is written from.
COLUMNS = tuple(FEATURES.values())

#: Of a row group's texts or of a record: c4 build writes 32 MB, or one page.
MOST_BYTES = 1 << 30


class Page(NamedTuple):
    """A page of a corpus. What a format or a text of the user's own lacks is empty or None."""

    text: str
    url: str = ""
    timestamp: str = ""
    content_type: str = ""
    content_length: str = ""
    language: str | None = None
    language_probability: float | None = None

    @classmethod
    def of(cls, features: Mapping[str, Any]) -> "Page":
        """Return the page that has these features, by the names they are published under."""
        return cls(**{FEATURES[name]: features[name] for name in features if name in FEATURES})


_ROWS_AT_ONCE = 4096  # 10 MB of offsets and slices for C4's pages of 2.3 KB


def check_pages(table: pa.Table) -> None:
    """Refuse a table that does not hold pages.

    Raises:
        ValueError: Names the column, what it is and what it has to be.
    """
    for column in COLUMNS:
        if column not in table.column_names:
            raise ValueError(f"a shard needs a column {column!r}, got {table.column_names}")
        kind = table.schema.field(column).type
        if column == "language_probability":
            if kind != pa.float32():
                raise ValueError(f"column {column!r} must be float, got {kind}")
        elif kind not in (pa.string(), pa.large_string()):
            raise ValueError(f"column {column!r} must be string or large_string, got {kind}")
        if column in TEXT_FEATURES.values() and table[column].null_count:
            raise ValueError(
                f"column {column!r} must have a value on every page, got "
                f"{table[column].null_count} nulls; drop those pages before writing"
            )


def rows_in_bytes(table: pa.Table, columns: list[str]) -> Iterator[list[list[memoryview]]]:
    """Yield the UTF-8 bytes of string columns, a few thousand rows at a time.

    Yields:
        One list of values for each of ``columns``, all of the same length: views of the table.
    """
    for batch in table.select(columns).to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield [views(batch.column(i)) for i in range(len(columns))]
