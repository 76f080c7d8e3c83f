"""Columns that say where the record of each page is: ``c4 build --provenance``, Parquet only."""

import uuid
from collections.abc import Iterable
from typing import Any, cast

import pyarrow as pa

#: Columns of the table that a shard is written from, in the order of the features.
PROVENANCE_COLUMNS = ("source_file", "source_offset", "record_id")
#: Features as published.
PROVENANCE_FEATURES = (
    pa.field("source-file", pa.large_string(), nullable=False),
    pa.field("source-offset", pa.int64(), nullable=False),
    pa.field("record-id", pa.large_string()),  # the UUID of WARC-Record-ID, if it has one
)


def with_provenance(pages: pa.RecordBatch, wet_files: pa.Array) -> pa.RecordBatch:
    """Return cleaned pages with these columns, whatever else they have.

    Args:
        pages: Of a cleaned or merged file, ``[pages]``.
        wet_files: The path of the WET file of each, ``[pages]``.
    """
    ids = pa.array(
        [value and str(uuid.UUID(bytes=value)) for value in pages["record_id"].to_pylist()],
        pa.large_string(),
    )
    at = pages.schema.get_field_index("record_id")
    pages = pages.set_column(at, "record_id", ids)
    pages = pages.append_column("source_offset", pages["offset"].cast(pa.int64()))
    return pages.append_column("source_file", wet_files)


def no_pages(columns: Iterable[str]) -> pa.Table:
    """Return a table of no pages, with columns of a shard and perhaps these."""
    kinds = {"language_probability": pa.float32(), "source_offset": pa.int64()}
    return pa.table(
        {name: pa.nulls(0, cast(Any, kinds.get(name, pa.large_string()))) for name in columns}
    )
