"""Shards of pages as Parquet, TFRecord or JSON lines: one module for each format writes and reads.

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
source-file               no        string   no    source_file, if the table has it
source-offset             no        int64    no    source_offset, same
record-id                 no        string   no    record_id, same; may be null
========================  ========  =======  ====  ==========================

JSON begins each object with text, timestamp, url, as the files that AllenAI released do
(huggingface.co/datasets/allenai/c4), and adds the two other features of the TensorFlow build, so
that no format knows less than that one.

>>> shard_file_name("train", 0, 64, "json")
'train-00000-of-00064.json.gz'
"""

import difflib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.corpus.formats.pages import Page

__all__ = [
    "FORMATS",
    "ShardFormat",
    "TextReader",
    "format_named",
    "format_of",
    "formats_named",
    "require_formats",
    "shard_file_name",
    "shard_file_names",
    "write_table",
]


class TextReader(Protocol):
    """Reads texts of pages out of shards, which stay open while they are read on."""

    def __init__(self, open_places: int) -> None:
        """Keep as many places in shards open as ``open_places``."""

    def read(self, path: str, stored: int, start: int, stop: int) -> list[bytes]:
        """Return the texts of pages ``start`` to ``stop`` of a shard of ``stored`` pages, in UTF-8.

        Raises CorpusError, OSError or ValueError if the shard is missing, damaged or has another
        number of pages.
        """


class ShardFormat(NamedTuple):
    """One way to store a shard: the end of the file name, and the module that writes and reads.

    ``media_type``, as the card's Croissant file names it, is of a shard's content without gzip.
    The module, imported on first use, has ``write(table, file)``, ``Texts`` (a `TextReader`) and
    ``read_pages(path)``, which yields a `Page` for each page of a shard.
    """

    suffix: str
    module: str
    media_type: str = "application/octet-stream"

    def write(self, table: "pa.Table", binary_file: BinaryIO) -> None:
        """Write a checked table of pages."""
        self._module().write(table, binary_file)

    def texts(self, open_places: int) -> TextReader:
        """Return a reader of texts by number."""
        reader: TextReader = self._module().Texts(open_places)
        return reader

    def read_pages(self, path: str) -> Iterator["Page"]:
        """Yield the pages of a shard, in its order."""
        pages: Iterator[Page] = self._module().read_pages(path)
        return pages

    def _module(self) -> Any:
        return importlib.import_module(self.module)


#: The format that is read comes first, where a corpus has several.
FORMATS: dict[str, ShardFormat] = {
    "parquet": ShardFormat(".parquet", "pipelines.corpus.formats.parquet", "application/x-parquet"),
    "tfrecord": ShardFormat(
        ".tfrecord", "pipelines.corpus.formats.tfrecord", "application/x-tfrecord"
    ),
    "json": ShardFormat(".json.gz", "pipelines.corpus.formats.jsonl", "application/jsonlines"),
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


def formats_named(text: str) -> tuple[str, ...]:
    """Return the formats of a list with commas, as ``--format`` has it.

    Raises:
        ValueError: See `require_formats`.

    >>> formats_named("tfrecord, parquet")
    ('tfrecord', 'parquet')
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    require_formats(names)
    return names


def require_formats(names: Sequence[str]) -> None:
    """Raise ValueError for an unknown format, for one named twice, and for none."""
    for name in names:
        format_named(name)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"name each format once, got {','.join(names)!r} (--format)")


def format_of(file_name: str) -> str:
    """Return the format of a shard, by its file name.

    Raises:
        ValueError: It has the suffix of no format.

    >>> format_of("train-00003-of-00064.json.gz")
    'json'
    """
    for name, shard_format in FORMATS.items():
        if file_name.endswith(shard_format.suffix):
            return name
    raise ValueError(f"shard {file_name[:100]!r} is of no known format ({', '.join(FORMATS)})")


def shard_file_name(split: str, index: int, count: int, format: str) -> str:  # noqa: A002
    """Return the name of shard ``index`` of ``count``, from 0, with at least five digits.

    Raises:
        ValueError: The index is not below the count, or the format is unknown.
    """
    if not 0 <= index < count:
        raise ValueError(f"shard index must be in 0..{count - 1}, got {index} of {split!r}")
    digits = max(5, len(str(count)))  # as TensorFlow Datasets widens both numbers
    return f"{split}-{index:0{digits}}-of-{count:0{digits}}{format_named(format).suffix}"


def shard_file_names(counts: Mapping[str, int], formats: Sequence[str]) -> list[str]:
    """Return the names of all shards in these formats; ``counts``: of the shards of each split."""
    return [
        shard_file_name(split, index, count, name)
        for split, count in counts.items()
        for index in range(count)
        for name in formats
    ]


def write_table(format: str, table: "pa.Table", binary_file: BinaryIO) -> None:  # noqa: A002
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
    from pipelines.corpus.formats.pages import check_pages

    shard_format = format_named(format)
    check_pages(table)
    shard_format.write(table, binary_file)
