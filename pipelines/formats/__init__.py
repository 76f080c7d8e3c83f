"""Shards of pages as TFRecord, Parquet or JSON lines.

A shard is one `pyarrow.Table` of pages, filtered and sorted. The same table gives the same bytes,
however it is chunked or sliced and whether its strings have 32 or 64-bit offsets, as long as the
versions of pyarrow (Parquet) and zlib (JSON) stay.

What each format holds, under the names that TensorFlow Datasets publishes C4 with
(tensorflow_datasets/text/c4.py):

========================  ========  =======  ====  ==========================
feature                   tfrecord  parquet  json  column of the table
========================  ========  =======  ====  ==========================
text                      bytes     string   yes   text
url                       bytes     string   yes   url
timestamp                 bytes     string   yes   timestamp
content-type              bytes     string   yes   content_type
content-length            bytes     string   yes   content_length
language                  no        string   no    language, may be null
language-probability      no        float32  no    language_probability, same
========================  ========  =======  ====  ==========================

JSON begins each object with text, timestamp, url, as the files that AllenAI released do
(huggingface.co/datasets/allenai/c4), and adds the two other features of the TensorFlow build, so
that no format knows less than that one.

>>> shard_file_name("train", 0, 64, "json")
'train-00000-of-00064.json.gz'
"""

import difflib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from pipelines.formats.jsonl import write_json
from pipelines.formats.pages import check_pages
from pipelines.formats.parquet import write_parquet
from pipelines.formats.tfrecord import write_tfrecord

__all__ = ["FORMATS", "ShardFormat", "format_named", "shard_file_name", "write_shard"]


class ShardFormat(NamedTuple):
    """One way to store a shard: the file name's end, and what writes a checked table."""

    suffix: str
    write: Callable[[pa.Table, BinaryIO], None]


FORMATS: dict[str, ShardFormat] = {
    "tfrecord": ShardFormat(".tfrecord", write_tfrecord),
    "parquet": ShardFormat(".parquet", write_parquet),
    "json": ShardFormat(".json.gz", write_json),
}


def format_named(name: str) -> ShardFormat:
    """Look a format up.

    Raises:
        ValueError: No format has that name; the message says which one is nearest.
    """
    try:
        return FORMATS[name]
    except KeyError:
        near = difflib.get_close_matches(name.lower(), FORMATS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"unknown format {name!r}; {hint}formats are {', '.join(FORMATS)} (--format)"
        ) from None


def shard_file_name(split: str, index: int, count: int, format: str) -> str:  # noqa: A002
    """Name of shard ``index`` of ``count``, numbered from 0 with at least five digits.

    Raises:
        ValueError: The index is not below the count, or the format is unknown.
    """
    if not 0 <= index < count:
        raise ValueError(f"shard index must be in 0..{count - 1}, got {index} of {split!r}")
    digits = max(5, len(str(count)))  # as TensorFlow Datasets widens both numbers
    return f"{split}-{index:0{digits}}-of-{count:0{digits}}{format_named(format).suffix}"


def write_shard(format: str, table: pa.Table, binary_file: BinaryIO) -> None:  # noqa: A002
    """Write one shard.

    Args:
        format: A key of `FORMATS`.
        table: Pages in the order they are to have, with the columns of this module's table; string
            columns as ``string`` or ``large_string``. No rows are fine: an empty, valid file.
        binary_file: Written from where it stands, not closed.

    Raises:
        ValueError: The format is unknown, or a column is missing, of another type, or holds a null
            where every page has a value.
        OSError: The file cannot be written.
    """
    write = format_named(format).write
    check_pages(table)
    write(table, binary_file)
