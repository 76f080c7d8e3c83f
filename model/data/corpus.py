"""Pages of a finished corpus, by number: Parquet or TFRecord shards, on this machine or remote.

A corpus is a folder whose ``manifest.json`` lists its shards with their pages. Shards hold pages
in the order of a hash, each page's shard being chosen by a hash too, so that pages read one after
the other, and the first pages of a corpus, are a random sample of it.

>>> corpus = Corpus("DIR", "train", "parquet", (Shard("a", 300, 300), Shard("b", 5, 5)))
>>> groups = PageGroups(corpus, 128)
>>> [groups[number] for number in range(len(groups))]
[(0, 0, 128), (0, 128, 256), (0, 256, 300), (1, 0, 5)]
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import posixpath
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

__all__ = ["Corpus", "CorpusError", "PageGroups", "PageReader", "Shard", "open_corpus"]

_MANIFEST = "manifest.json"
_SUFFIXES = {".parquet": "parquet", ".tfrecord": "tfrecord", ".json.gz": "json"}
_READABLE = ("parquet", "tfrecord")  # the first that a corpus has is read
Key = TypeVar("Key")
Value = TypeVar("Value")

_TEXT_TYPES = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
_MOST_BYTES = 1 << 30  # of a row group's texts or of a record: c4 build writes 32 MB, or one page
_ROWS_AT_ONCE = 1024  # decoded before their size is looked at
_CHUNK_BYTES = 4 << 20  # of a TFRecord file, read at once: few requests to an object store


#: How text that c4 build did not make becomes a corpus.
_OWN_TEXT = (
    "text of your own becomes one as Parquet files with a string column 'text' in a folder, and a "
    'manifest.json {"shards": [{"name": "part-0.parquet", "split": "train", "pages": 1000}]} '
    "beside them (docs/training.md)"
)


class CorpusError(ValueError):
    """A folder that is no corpus, or a damaged one."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file.

    Attributes:
        name: In the corpus folder.
        pages: Pages to read, from the first.
        stored: Pages in the file.
    """

    name: str
    pages: int
    stored: int


@dataclasses.dataclass(frozen=True)
class _Listed:
    """An entry of the manifest."""

    format: str
    split: str
    shard: Shard
    bytes: int | None


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The shards of one split in one format, in the manifest's order.

    ``source`` is a digest of what the manifest says the corpus was made from: recipe, lists,
    versions and the contents of the inputs.
    """

    folder: str
    split: str
    format: str
    shards: tuple[Shard, ...]
    source: str = ""

    @property
    def pages(self) -> int:
        """Pages to read."""
        return sum(shard.pages for shard in self.shards)

    @property
    def digest(self) -> str:
        """Sixteen hex digits of what is read, and in which order, whatever the format."""
        shards = [(shard.name.partition(".")[0], shard.pages) for shard in self.shards]
        return _digest([self.source, self.split, shards])


def open_corpus(
    folder: str,
    split: str = "train",
    format: str | None = None,  # noqa: A002
    max_pages: int | None = None,
) -> Corpus:
    """Read the manifest of a finished corpus.

    Of the manifest only ``shards`` is needed, and of a shard its name, split and number of pages;
    what ``c4 build`` writes beside them is checked where it is there.

    Args:
        folder: A path, or an URI that pyarrow knows, such as ``gs://bucket/corpus``.
        split: "train" or "validation".
        format: "parquet" or "tfrecord"; None takes what there is, Parquet first.
        max_pages: Read no more than the first pages, for runs that repeat little data (paper
            section 3.4.2).

    Raises:
        CorpusError: The folder has no manifest; the manifest is damaged, or lacks the split or
            the format; or a shard is missing or has another size.
    """
    path = _join(folder, _MANIFEST)
    try:
        if _is_file(folder):
            raise CorpusError(f"{folder} is a file, and a corpus is a folder; {_OWN_TEXT}")
        content = _read_file(path)
    except FileNotFoundError:
        raise CorpusError(
            f"{folder} has no {_MANIFEST}: it is not a corpus, or its build has not finished (run "
            f"the same c4 build again to finish it); {_OWN_TEXT}"
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{path}: cannot be read: {_one_line(error)}") from None
    try:
        manifest = json.loads(content)
        found = [_listed(shard) for shard in manifest["shards"]]
        source = _source(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorpusError(f"{path}: damaged: {_one_line(error) or type(error).__name__}") from None
    of_split = [entry for entry in found if entry.split == split and entry.shard.stored]
    if not of_split:
        splits = sorted({entry.split for entry in found if entry.shard.stored})
        raise CorpusError(
            f"{folder} has no pages in its split {split!r}; splits with pages: "
            f"{', '.join(splits) or 'none'} (validation is about one page in a thousand: build "
            "from more)"
        )
    formats = {entry.format for entry in of_split}
    if format is not None and format not in _READABLE:
        raise CorpusError(f"format must be {' or '.join(_READABLE)}, got {format!r}")
    chosen = format or next((kind for kind in _READABLE if kind in formats), None)
    if chosen not in formats:
        raise CorpusError(
            f"{folder} holds {', '.join(sorted(formats))} and training reads "
            f"{chosen or ' or '.join(_READABLE)}: build it with --format {chosen or 'parquet'}"
        )
    chosen_entries = [entry for entry in of_split if entry.format == chosen]
    _require_files(folder, chosen_entries)
    shards = [entry.shard for entry in chosen_entries]
    if max_pages is not None:
        if max_pages < 1:
            raise CorpusError(f"max_pages must be positive, got {max_pages} (--max-pages)")
        before = [0, *itertools.accumulate(shard.stored for shard in shards)]
        shards = [
            dataclasses.replace(shard, pages=min(shard.stored, max_pages - begin))
            for shard, begin in zip(shards, before[:-1], strict=True)
            if begin < max_pages
        ]
    return Corpus(folder, split, chosen, tuple(shards), source)


def _source(manifest: Any) -> str:
    inputs = [each["sha256"] for each in manifest.get("inputs", ())]
    made_with = {name: manifest.get(name) for name in ("recipe", "versions")}
    return _digest([made_with, manifest.get("settings", {}).get("lists"), sorted(inputs)])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _require_files(folder: str, entries: list[_Listed]) -> None:
    """Raise CorpusError unless every shard is there, of the size that the manifest lists."""
    try:
        filesystem, name = _filesystem(folder)
        there = filesystem.get_file_info(pyarrow.fs.FileSelector(name))
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{folder}: cannot be listed: {_one_line(error)}") from None
    sizes = {info.base_name: info.size for info in there}
    for entry in entries:
        path = _join(folder, entry.shard.name)
        if entry.shard.name not in sizes:
            raise _missing(path)
        size = sizes[entry.shard.name]
        if entry.bytes is not None and size != entry.bytes:
            raise CorpusError(
                f"{path} has {size} bytes and {_MANIFEST} lists {entry.bytes}: it is cut off, or "
                "of another build; run c4 build again"
            )


def _missing(path: str) -> CorpusError:
    return CorpusError(f"{path}: missing, though {_MANIFEST} lists it: run the same c4 build again")


def _listed(entry: Any) -> _Listed:
    """Check an entry of the manifest; ValueError for what is none."""
    name, split, pages = entry["name"], entry["split"], entry["pages"]
    if not isinstance(name, str) or name != posixpath.basename(name):
        raise ValueError(f"shard name {name!r}")
    if type(pages) is not int or not 0 <= pages < 2**48:  # not True; what arithmetic can hold
        raise ValueError(f"{name} has {pages!r} pages")
    formats = [kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)]
    if not formats:
        raise ValueError(f"shard {name!r} is of no known format")
    return _Listed(formats[0], str(split), Shard(name, pages, pages), entry.get("bytes"))


class PageGroups:
    """A corpus as a list of groups: up to ``group_pages`` consecutive pages of one shard."""

    def __init__(self, corpus: Corpus, group_pages: int) -> None:
        if group_pages < 1:
            raise ValueError(f"group_pages must be positive, got {group_pages}")
        self._pages = [shard.pages for shard in corpus.shards]
        self._group_pages = group_pages
        self._ends = np.cumsum([-(-pages // group_pages) for pages in self._pages])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> tuple[int, int, int]:
        """The group's shard, its first page there and the page behind its last."""
        if not 0 <= number < len(self):
            raise IndexError(f"group {number} of {len(self)}")
        shard = int(np.searchsorted(self._ends, number, side="right"))
        begin = int(self._ends[shard - 1]) if shard else 0
        start = (number - begin) * self._group_pages
        return shard, start, min(start + self._group_pages, self._pages[shard])


class PageReader:
    """Texts of pages, from shards that stay open while they are read on.

    Holds as many places in shards as ``open_places``; of a Parquet shard, a place is a decoded row
    group (32 MB of text as ``c4 build`` writes them), of a TFRecord shard a chunk of 4 MB. Readers
    that go through several parts of a corpus in turn need one place for each, and one more.
    """

    def __init__(self, corpus: Corpus, open_places: int) -> None:
        kinds: dict[str, type[_Texts]] = {"parquet": _ParquetTexts, "tfrecord": _TFRecordTexts}
        self._corpus = corpus
        self._texts = kinds[corpus.format](max(1, open_places))

    def read(self, shard: int, start: int, stop: int) -> list[bytes]:
        """The texts of pages ``start`` to ``stop`` of a shard, in UTF-8.

        Raises CorpusError, naming the file, when it is missing, damaged, or another than the
        manifest lists.
        """
        path = _join(self._corpus.folder, self._corpus.shards[shard].name)
        try:
            return self._texts.read(path, self._corpus.shards[shard].stored, start, stop)
        except FileNotFoundError:
            raise _missing(path) from None
        except CorpusError:
            raise
        except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
            raise CorpusError(f"{path}: cannot be read: {_one_line(error)}") from None


class _Texts(Protocol):
    def __init__(self, open_places: int) -> None: ...

    def read(self, path: str, stored: int, start: int, stop: int) -> list[bytes]: ...


class _Kept(collections.OrderedDict[Key, Value]):
    """The values used last, at most ``most`` of them."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: Key, value: Value) -> Value:
        self[key] = value
        self.move_to_end(key)
        while len(self) > self._most:
            self.popitem(last=False)
        return value


@dataclasses.dataclass(frozen=True)
class _ParquetFile:
    file: pq.ParquetFile
    ends: npt.NDArray[np.int64]  # rows to the end of each row group


class _ParquetTexts:
    """Row groups of a shard, decoded one at a time."""

    def __init__(self, open_places: int) -> None:
        self._files: _Kept[str, _ParquetFile] = _Kept(open_places)
        self._groups: _Kept[tuple[str, int], tuple[npt.NDArray[Any], memoryview]] = _Kept(
            open_places
        )

    def read(self, path: str, stored: int, start: int, stop: int) -> list[bytes]:
        ends = self._open(path, stored).ends
        texts: list[bytes] = []
        while start < stop:
            number = int(np.searchsorted(ends, start, side="right"))
            first = int(ends[number - 1]) if number else 0
            upto = min(stop, int(ends[number]))
            offsets, data = self._row_group(path, stored, number)
            cuts = offsets[start - first : upto - first + 1].tolist()
            texts += [bytes(data[a:b]) for a, b in itertools.pairwise(cuts)]
            start = upto
        return texts

    def _open(self, path: str, stored: int) -> _ParquetFile:
        if path in self._files:
            return self._files.keep(path, self._files[path])
        filesystem, name = _filesystem(path)
        # Page checksums are checked: a flipped bit must not train.
        file = pq.ParquetFile(
            name, filesystem=filesystem, page_checksum_verification=True, pre_buffer=True
        )
        metadata = file.metadata
        if metadata.num_rows != stored:
            raise CorpusError(
                f"{path} has {metadata.num_rows} pages and {_MANIFEST} says {stored}: it is of "
                "another build; run c4 build again"
            )
        schema = file.schema_arrow
        if "text" not in schema.names or schema.field("text").type not in _TEXT_TYPES:
            raise CorpusError(f"{path} has no column 'text' of strings, got {schema.names}")
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        if sum(rows) != stored or min(rows, default=0) < 0:
            raise CorpusError(f"{path}: damaged: its row groups hold {sum(rows)} pages of {stored}")
        return self._files.keep(path, _ParquetFile(file, np.cumsum(rows, dtype=np.int64)))

    def _row_group(
        self, path: str, stored: int, number: int
    ) -> tuple[npt.NDArray[Any], memoryview]:
        key = (path, number)
        if key in self._groups:
            return self._groups.keep(key, self._groups[key])
        file = self._open(path, stored).file
        column = _decoded(path, file, number)
        ends_here = self._open(path, stored).ends
        rows = int(ends_here[number] - (ends_here[number - 1] if number else 0))
        if len(column) != rows:  # checksums are of a page's body: a flipped bit in its head passes
            raise CorpusError(
                f"{path}: damaged: row group {number} has {len(column)} pages of {rows}"
            )
        if column.null_count:
            raise CorpusError(f"{path}: a page without text in row group {number}")
        # Offsets and bytes of all texts; slicing them is half the cost of making Python strings.
        text = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
        wide = pa.types.is_large_string(text.type) or pa.types.is_large_binary(text.type)
        _, offsets, data = text.buffers()
        ends = np.frombuffer(offsets, np.int64 if wide else np.int32)
        ends = ends[text.offset : text.offset + len(text) + 1]
        return self._groups.keep(key, (ends, memoryview(data or b"")))


def _decoded(path: str, file: pq.ParquetFile, number: int) -> pa.ChunkedArray:
    """The texts of a row group, as they are decoded; CorpusError before they take all memory.

    A few kB may stand for any number of GB: compressed, or one text that many rows refer to.
    """
    too_large = CorpusError(
        f"{path}: row group {number} has texts of more than {_MOST_BYTES:,} bytes, more than any "
        "that c4 build writes: write the file with smaller row groups"
    )
    # What stands about single columns is left alone: where it is damaged, pyarrow 25 aborts.
    group = file.metadata.row_group(number)
    if group.total_byte_size + 8 * group.num_rows > _MOST_BYTES:
        raise too_large
    # No text is longer than all that is stored, so that no batch takes more than may be taken.
    rows_at_once = _MOST_BYTES // max(1, group.total_byte_size)
    chunks: list[pa.Array] = []
    size = 0
    for batch in file.iter_batches(
        max(1, min(_ROWS_AT_ONCE, rows_at_once)),
        row_groups=[number],
        columns=["text"],
        use_threads=False,
    ):
        size += batch.nbytes
        if size > _MOST_BYTES:
            raise too_large
        chunks.append(batch.column(0))
    return pa.chunked_array(chunks, file.schema_arrow.field("text").type)


@dataclasses.dataclass
class _Cursor:
    """A place in a TFRecord file, and the bytes around it that were read already.

    ``chunk`` begins at ``begin`` in the file; the place is ``at`` bytes into it, or beyond it.
    """

    begin: int
    chunk: bytes = b""
    at: int = 0

    @property
    def position(self) -> int:
        return self.begin + self.at


class _TFRecordTexts:
    """Records of a shard, which can only be found one after the other.

    Each read leaves a cursor where it ended, for the next to go on from, and remembers the place
    for longer: a corpus that is read again and again is not searched again.
    """

    def __init__(self, open_places: int) -> None:
        self._files: _Kept[str, Any] = _Kept(open_places)
        self._cursors: _Kept[tuple[str, int], _Cursor] = _Kept(open_places)
        self._known: dict[str, dict[int, int]] = {}  # path -> page -> position

    def read(self, path: str, stored: int, start: int, stop: int) -> list[bytes]:
        cursor = self._cursors.pop((path, start), None)
        if cursor is None:
            cursor = self._find(path, start)
        texts = []
        for page in range(start, stop):
            record = self._next(path, cursor, page, whole=True)
            try:
                texts.append(_text_feature(record))
            except (IndexError, ValueError) as error:
                raise CorpusError(f"{path}: record {page}: {_one_line(error)}") from None
        self._known.setdefault(path, {0: 0})[stop] = cursor.position
        if stop < stored:
            self._cursors.keep((path, stop), cursor)
        elif self._take(path, cursor, 1):
            raise CorpusError(
                f"{path} has more records than the {stored} that {_MANIFEST} lists: it is of "
                "another build; run c4 build again"
            )
        return texts

    def _find(self, path: str, start: int) -> _Cursor:
        known = self._known.setdefault(path, {0: 0})
        page = max(page for page in known if page <= start)
        cursor = _Cursor(known[page])
        for skipped in range(page, start):
            self._next(path, cursor, skipped, whole=False)
        known[start] = cursor.position
        return cursor

    def _next(self, path: str, cursor: _Cursor, page: int, *, whole: bool) -> bytes:
        """The next record; empty when not asked for ``whole``, its data being skipped."""
        # Framing and checksums as tensorflow/core/lib/io/record_reader.cc has them.
        head = self._take(path, cursor, 12)
        if not head:
            raise CorpusError(
                f"{path} ends after {page} records and {_MANIFEST} lists more: it is cut off, or "
                "of another build; run c4 build again"
            )
        length = int.from_bytes(head[:8], "little")
        if len(head) < 12 or head[8:] != _masked_crc(head[:8]):
            raise CorpusError(f"{path}: record {page}: damaged: its length fails its checksum")
        if length > _MOST_BYTES:
            raise CorpusError(
                f"{path}: record {page} says that it has {length:,} bytes, {_MOST_BYTES:,} allowed"
            )
        if not whole:
            cursor.at += length + 4
            return b""
        body = self._take(path, cursor, length + 4)
        if len(body) < length + 4 or body[length:] != _masked_crc(body[:length]):
            raise CorpusError(f"{path}: record {page}: damaged: its data fail their checksum")
        return body[:length]

    def _take(self, path: str, cursor: _Cursor, count: int) -> bytes:
        """The next ``count`` bytes, fewer at the file's end."""
        if len(cursor.chunk) - cursor.at < count:
            rest = cursor.chunk[cursor.at :]
            cursor.begin, cursor.at = cursor.position, 0
            wanted = max(count, _CHUNK_BYTES) - len(rest)
            cursor.chunk = rest + self._open(path).read_at(wanted, cursor.begin + len(rest))
        taken = cursor.chunk[cursor.at : cursor.at + count]
        cursor.at += len(taken)
        return taken

    def _open(self, path: str) -> Any:
        if path in self._files:
            return self._files.keep(path, self._files[path])
        filesystem, name = _filesystem(path)
        return self._files.keep(path, _SizedFile(filesystem.open_input_file(name)))


class _SizedFile:
    """A file that is read at places, up to its end."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._size = int(file.size())

    def read_at(self, count: int, position: int) -> bytes:
        count = max(0, min(count, self._size - position))
        return bytes(self._file.read_at(count, position)) if count else b""


def _text_feature(record: bytes) -> bytes:
    """The value of feature "text" of a ``tf.train.Example`` (tensorflow/core/example/*.proto).

    Raises ValueError where there is none, IndexError or ValueError for what is no Example.
    """
    for features in _fields(record, 0, len(record), 1):
        for entry in _fields(record, *features, 1):
            name = next(_fields(record, *entry, 1), (0, 0))
            if record[slice(*name)] != b"text":
                continue
            for feature in _fields(record, *entry, 2):
                for values in _fields(record, *feature, 1):  # a BytesList
                    for value in _fields(record, *values, 1):
                        return record[slice(*value)]
    raise ValueError("no feature 'text'")


def _fields(record: bytes, start: int, stop: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Where the length-delimited fields numbered ``wanted`` of a message begin and end."""
    while start < stop:
        tag, start = _varint(record, start)
        if tag & 7 != 2:
            raise ValueError(f"not an Example: wire type {tag & 7}")
        length, start = _varint(record, start)
        if start + length > stop:
            raise ValueError("not an Example: a field goes beyond its message")
        if tag >> 3 == wanted:
            yield start, start + length
        start += length


def _varint(record: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if shift > 63:
            raise ValueError("not an Example: a number of more than 64 bits")
        byte = record[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def _masked_crc(data: bytes) -> bytes:
    # tensorflow/core/lib/hash/crc32c.h
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def _join(folder: str, name: str) -> str:
    return posixpath.join(folder, name) if "://" in folder else os.path.join(folder, name)


def _filesystem(path: str) -> tuple[Any, str]:
    if "://" in path:
        filesystem, name = pyarrow.fs.FileSystem.from_uri(path)
        return filesystem, str(name)
    return pyarrow.fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(path))


def _is_file(path: str) -> bool:
    filesystem, name = _filesystem(path)
    return bool(filesystem.get_file_info(name).type == pyarrow.fs.FileType.File)


def _read_file(path: str) -> bytes:
    filesystem, name = _filesystem(path)
    if filesystem.get_file_info(name).type == pyarrow.fs.FileType.Unknown:
        raise OSError("it is a pipe or a device")  # which may never end
    with filesystem.open_input_file(name) as file:
        return bytes(file.read())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
