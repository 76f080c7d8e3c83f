"""Shards of Parquet, laid out for readers that stream pages into training.

Row groups are what a reader holds at once and what parallel readers share out, so they are cut by
bytes of text: a group of small pages would cost a seek for little, one of large pages much memory.
"""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.formats.pages import LANGUAGE_FEATURES, TEXT_FEATURES

ROW_GROUP_TEXT_BYTES = 32 << 20

_FEATURES = {**TEXT_FEATURES, **LANGUAGE_FEATURES}
_SCHEMA = pa.schema(
    [pa.field(name, pa.large_string(), nullable=False) for name in TEXT_FEATURES]
    + [pa.field("language", pa.large_string()), pa.field("language-probability", pa.float32())]
)


def write_parquet(table: pa.Table, binary_file: BinaryIO) -> None:
    """Write one Parquet file; 0 rows make a valid file of no row groups."""
    pages = pa.table(
        [table[column].cast(_SCHEMA.field(name).type) for name, column in _FEATURES.items()],
        schema=_SCHEMA,
    )
    with pq.ParquetWriter(
        binary_file,
        _SCHEMA,
        compression="zstd",
        # Microseconds of CPU and bytes a page of 2.2 KB, levels 1, 2, 3, 5: 7.4, 897; 8.8, 822;
        # 11.3, 777; 19.8, 746. Level 1 is no smaller than gzip.
        compression_level=3,
        # Few values, many pages; the rest never repeats, and a dictionary of it is given up late.
        use_dictionary=["content-type", "language"],
        # Smallest and largest text help no query and would cost a look at every page.
        write_statistics=["url", "timestamp", "language", "language-probability"],
        write_page_checksum=True,  # costs 1 microsecond a page; a flipped bit must not train
        store_schema=False,  # readers get plain strings, and 32 or 64-bit offsets leave no trace
    ) as writer:
        for start, stop in row_groups(pages["text"]):
            # One chunk a column, or page boundaries would follow the chunks of the input.
            group = pages.slice(start, stop - start).combine_chunks()
            writer.write_table(group, row_group_size=stop - start)


def row_groups(text: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    """Cuts rows into groups that end with the row that fills `ROW_GROUP_TEXT_BYTES`.

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
