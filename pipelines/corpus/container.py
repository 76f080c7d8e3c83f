"""A file of checksummed sections: the format of all kept files.

::

    head      magic, kind, version                                          24 bytes
    sections  bytes, one section after the other, without gaps
    table     JSON: kind, head (fields of that kind of file), and for each section its
              name, stored bytes, unpacked bytes, CRC-32C, numbers for readers
    trailer   magic, version, bytes and CRC-32C of the table, CRC-32C of
              the trailer up to here                                        28 bytes

Every byte is under a checksum that is checked before the byte is parsed. The trailer is checked
first, then the table, then each section when it is read. The table also determines the file's exact
size, so that truncated, appended or inserted bytes are detected, and so is a mix of two files. The
first 24 bytes are the same in all files of a kind; they are compared when the whole file is read.

A file is written as a stream. A reader fetches its last 64 kB, which usually hold the table, and
then the sections that it needs. A compressed section is one LZ4 frame; the table gives its unpacked
size, and unpacking uses no more memory than that.
"""

import dataclasses
import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Final, NamedTuple

import google_crc32c
import pyarrow as pa

from pipelines import storage
from pipelines.corpus.closing import Closing
from pipelines.corpus.errors import REBUILD
from pipelines.storage.streams import RangeFile

_VERSION = 2  # 1: the Arrow files and plain bytes of Colossal 0.1
_MAGIC: Final = b"C4-KEPT\n"
_HEAD: Final = struct.Struct("<8s12sI")  # magic, kind, version
_TRAILER: Final = struct.Struct("<8sIQI")  # magic, version, bytes and CRC-32C of the table
_CHECKSUM: Final = struct.Struct("<I")
_END_BYTES: Final = _TRAILER.size + _CHECKSUM.size
_ARROW_END: Final = b"ARROW1"  # of files of version 1
_TAIL_BYTES = 64 << 10  # what one small read of an object store fetches: pipelines.storage
_CHUNK_BYTES = 4 << 20
# Unpacked. A batch of pages holds 256 kB of text, or one page of at most 64 MB.
_MOST_SECTION_BYTES = 1 << 30
_PLAIN = -1  # in place of unpacked bytes: the section is not compressed

# What Arrow and JSON raise for damaged bytes.
_FAULTS = (
    *(pa.ArrowException, OSError, MemoryError, RecursionError, OverflowError),
    *(KeyError, IndexError, ValueError, TypeError, AttributeError),
)


class DamagedFileError(ValueError):
    """A kept file is damaged. The message names the file and says what to do."""

    def __init__(self, path: str, reason: object) -> None:
        super().__init__(path, str(reason))  # these arguments are used when it is unpickled
        self.reason = str(reason)

    def __str__(self) -> str:
        return f"{self.args[0]} is damaged ({self.reason}): {REBUILD}"


class OtherVersionError(ValueError):
    """A kept file was written by another version. The message names the file."""

    def __str__(self) -> str:
        return (
            f"{self.args[0]} was written by another version of Colossal: run the same build again "
            "to rebuild it"
        )


class Part(NamedTuple):
    """A section to write."""

    name: str
    data: pa.Buffer | bytes
    numbers: tuple[int, ...] = ()  # by which readers choose sections, each below 2**64
    compress: bool = True


@dataclasses.dataclass(frozen=True)
class Section:
    """An entry of the table of sections."""

    name: str
    start: int  # in the file
    length: int  # bytes as stored
    unpacked: int  # bytes, or _PLAIN
    checksum: int  # CRC-32C as stored
    numbers: tuple[int, ...]

    def __post_init__(self) -> None:
        amounts = (self.length, self.unpacked + 1, self.checksum, *self.numbers)
        if type(self.name) is not str or not all(
            type(value) is int and 0 <= value < 1 << 64 for value in amounts
        ):
            raise ValueError(f"table entry {self.name!r:.40} {amounts}")
        if self.unpacked > _MOST_SECTION_BYTES:
            raise ValueError(
                f"a section of {self.unpacked:,} bytes, {_MOST_SECTION_BYTES:,} allowed"
            )


def write_container(
    path: str, kind: str, head: dict[str, Any], parts: Iterable[Part]
) -> list[Section]:
    """Write a file in one atomic step, section by section; return its table.

    Args:
        path: The file to write.
        kind: At most 12 ASCII letters.
        head: Fields of that kind of file, JSON-ready; stored in the table.
        parts: The sections in order.

    Raises:
        OSError: The file cannot be written.
        ValueError: A section is larger than a reader accepts.
    """
    codec = pa.Codec("lz4")
    sections = []
    with storage.write_atomically(path) as file:
        file.write(_head(kind))
        for part in parts:
            data, unpacked = part.data, _PLAIN
            if part.compress:
                unpacked = memoryview(data).nbytes
                if unpacked > _MOST_SECTION_BYTES:
                    raise ValueError(f"{path}: {part.name} of {unpacked:,} bytes: too large")
                data = codec.compress(data)
            file.write(data)
            length = memoryview(data).nbytes
            sections.append([part.name, length, unpacked, _crc(data), *part.numbers])
        table = {"kind": kind, "head": head, "sections": sections}
        content = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
        trailer = _TRAILER.pack(_MAGIC, _VERSION, len(content), _crc(content))
        file.write(content + trailer + _CHECKSUM.pack(_crc(trailer)))
    return list(_sections(sections))


def read_sections(path: str, sections: Sequence[Section]) -> list[pa.Buffer]:
    """Return the unpacked bytes of neighbouring sections, with one request and without the table.

    Args:
        path: The file.
        sections: As `write_container` returned them, in order.

    Raises:
        OSError: The file cannot be read.
        DamagedFileError: It does not hold these sections.
    """
    start, length = sections[0].start, sum(section.length for section in sections)
    stored = pa.py_buffer(storage.read_range(path, start, length))
    if stored.size != length:
        raise DamagedFileError(path, "it ends early")
    return [
        _unpacked(path, section, stored.slice(section.start - start, section.length))
        for section in sections
    ]


class Container(Closing):
    """An open file of sections. Use as a context manager.

    Attributes:
        path: The file.
        head: The fields that its writer stored in the table.
        sections: The sections in order.

    Raises:
        OSError: The file cannot be read.
        OtherVersionError: Another version wrote it.
        DamagedFileError: It is not a complete file of this kind.
    """

    def __init__(self, path: str, kind: str, whole: bool = False) -> None:
        """Open a file. With ``whole``, fetch all of it at once, to read all sections."""
        self.path = path
        self._kind = kind
        self._file: BinaryIO | None = None
        try:
            if whole:
                self._held = pa.py_buffer(storage.read_bytes(path))
                self._size = self._held.size
                self._held_from = 0
            else:
                self._file = storage.open_raw(path, scattered=True)
                self._size = self._file.seek(0, os.SEEK_END)
                self._held = pa.py_buffer(b"")
                self._held_from = self._size
        except FileNotFoundError as error:
            raise FileNotFoundError(error.errno, f"is missing; {REBUILD}", path) from None
        try:
            if not whole:
                begin = max(0, self._size - _TAIL_BYTES)
                self._held, self._held_from = self._fetch(begin, self._size), begin
            self.head: dict[str, Any]
            self.sections: list[Section]
            self.head, self.sections = self._read_table()
        except (OSError, DamagedFileError, OtherVersionError):
            self.close()
            raise
        except _FAULTS as error:
            self.close()
            raise DamagedFileError(path, error) from None

    def close(self) -> None:
        """Close the file. Safe to call more than once."""
        if self._file is not None:
            self._file.close()

    def read(self, number: int) -> pa.Buffer:
        """Return the unpacked bytes of a section. Raises DamagedFileError."""
        section = self.sections[number]
        stored = self._fetch(section.start, section.start + section.length)
        return _unpacked(self.path, section, stored)

    def hold(self, first: int, last: int) -> None:
        """Fetch sections ``first`` to ``last`` with one read, and close the file.

        No other section can be read any more.
        """
        begin, end = self.sections[first].start, self.sections[last]
        self._held = self._fetch(begin, end.start + end.length)
        self._held_from = begin
        self.close()

    def expect(self, first: int, last: int) -> None:
        """Announce that sections ``first`` to ``last`` are read next: a remote file fetches ahead.

        Nothing that was fetched before is kept, apart from the end of the file.
        """
        if isinstance(self._file, RangeFile):
            ends = self.sections[last].start + self.sections[last].length
            self._file.expect(self.sections[first].start, ends)

    def forget(self) -> None:
        """Free what was fetched, apart from the end of the file."""
        if isinstance(self._file, RangeFile):
            self._file.expect(0, 0)

    def verify(self) -> None:
        """Read the whole file and check every byte of it. Raises DamagedFileError."""
        with storage.open_raw(self.path) as file:
            self._check_head(file.read(_HEAD.size))
            for section in self.sections:
                checksum, left = 0, section.length
                while left:
                    data = file.read(min(left, _CHUNK_BYTES))
                    if not data:
                        raise DamagedFileError(self.path, "it ends early")
                    checksum = _crc(data, checksum)
                    left -= len(data)
                _require(checksum, section, self.path)

    def _fetch(self, start: int, end: int) -> pa.Buffer:
        """Return bytes ``start`` to ``end`` of the file, from memory if they were fetched."""
        if start >= self._held_from:
            return self._held.slice(start - self._held_from, end - start)
        assert self._file is not None
        self._file.seek(start)
        data = self._file.read(end - start)
        if len(data) != end - start:
            raise DamagedFileError(self.path, "it ends early")
        return pa.py_buffer(data)

    def _read_table(self) -> tuple[dict[str, Any], list[Section]]:
        end = self._size - _END_BYTES
        if end < _HEAD.size:
            self._refuse_end()
        trailer = self._fetch(end, self._size).to_pybytes()
        content, checksum = trailer[: _TRAILER.size], trailer[_TRAILER.size :]
        magic, version, length, table_checksum = _TRAILER.unpack(content)
        if magic != _MAGIC or checksum != _CHECKSUM.pack(_crc(content)):
            self._refuse_end()
        if version != _VERSION:
            raise OtherVersionError(self.path)
        begin = end - length
        if begin < _HEAD.size:
            raise DamagedFileError(self.path, f"a table of {length:,} bytes")
        stored = self._fetch(begin, end)
        if _crc(stored) != table_checksum:
            raise DamagedFileError(self.path, "checksum mismatch in the table of sections")
        table = json.loads(stored.to_pybytes())
        if table["kind"] != self._kind:
            raise DamagedFileError(self.path, f"a file of {table['kind']}, not of {self._kind}")
        head = table["head"]
        if not isinstance(head, dict):
            raise DamagedFileError(self.path, "no head")
        sections = list(_sections(table["sections"]))
        if _HEAD.size + sum(section.length for section in sections) != begin:
            raise DamagedFileError(self.path, "its size does not match its sections")
        if self._held.size == self._size:
            self._check_head(self._fetch(0, _HEAD.size).to_pybytes())
        return head, sections

    def _refuse_end(self) -> None:
        end = self._fetch(max(0, self._size - len(_ARROW_END)), self._size).to_pybytes()
        if end == _ARROW_END:
            raise OtherVersionError(self.path)
        raise DamagedFileError(self.path, "its end is missing or changed")

    def _check_head(self, found: bytes) -> None:
        if found != _head(self._kind):
            raise DamagedFileError(self.path, "its first bytes have changed")


def _sections(entries: Any) -> Iterator[Section]:
    start = _HEAD.size
    for name, length, unpacked, checksum, *numbers in entries:
        section = Section(name, start, length, unpacked, checksum, tuple(numbers))
        yield section
        start += length


def _require(checksum: int, section: Section, path: str) -> None:
    if checksum != section.checksum:
        raise DamagedFileError(path, f"checksum mismatch in section {section.name}")


def _unpacked(path: str, section: Section, stored: pa.Buffer) -> pa.Buffer:
    """Check a section as stored, and unpack it."""
    _require(_crc(stored), section, path)
    if section.unpacked == _PLAIN:
        return stored
    try:
        # A codec would trust the length in the table and leave the rest uninitialised.
        with pa.CompressedInputStream(pa.BufferReader(stored), "lz4") as stream:
            data = stream.read_buffer(section.unpacked + 1)
    except _FAULTS as error:
        raise DamagedFileError(path, error) from None
    if data.size != section.unpacked:
        raise DamagedFileError(path, f"section {section.name} unpacks to another length")
    return data


def _head(kind: str) -> bytes:
    return _HEAD.pack(_MAGIC, kind.encode("ascii"), _VERSION)


def _crc(data: Any, before: int = 0) -> int:
    return int(google_crc32c.extend(before, data) if before else google_crc32c.value(data))


def pack_batch(rows: pa.RecordBatch) -> pa.Buffer:
    """Return a record batch as an Arrow IPC message, without its schema."""
    return rows.replace_schema_metadata(None).serialize()


def unpack_batch(
    data: pa.Buffer, schema: pa.Schema, path: str, may_be_null: tuple[str, ...] = ()
) -> pa.RecordBatch:
    """Read what :func:`pack_batch` wrote, as views of the buffer.

    The checksums have shown that the bytes are as they were written; this function also refuses a
    batch that no build would write. Raises DamagedFileError naming ``path``.
    """
    try:
        rows = pa.ipc.read_record_batch(data, schema)
        require_whole(rows, may_be_null)
    except _FAULTS as error:
        raise DamagedFileError(path, " ".join(str(error).split())) from None
    return rows


def require_whole(rows: pa.RecordBatch, may_be_null: tuple[str, ...]) -> None:
    """Raise ValueError if a value is missing or an offset lies outside its buffer.

    Arrow itself does not check offsets.
    """
    rows.validate(full=True)
    for name in rows.schema.names:
        if name not in may_be_null and rows.column(name).null_count:
            raise ValueError(f"a {name} is missing")
