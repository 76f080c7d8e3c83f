"""Shards of ``tf.train.Example`` records, written and read without TensorFlow.

Framing, from tensorflow/core/lib/io/record_writer.h: length as little-endian uint64, masked CRC-32C
of these eight bytes, the record, masked CRC-32C of the record. The mask, from
tensorflow/core/lib/hash/crc32c.h: rotate right by 15 bits and add 0xa282ead8.

The record, from tensorflow/core/example/{example,feature}.proto, outermost first; every field is
length-delimited, and the tag is the field number times 8 plus 2:

=============  =======================================================
Example        1: Features
Features       1: map entry, one for each feature, here sorted by name
map entry      1: name, 2: Feature
Feature        1: BytesList
BytesList      1: value
=============  =======================================================
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c
import pyarrow as pa

from pipelines.corpus.errors import CorpusError, one_line
from pipelines.corpus.formats.pages import MOST_BYTES, TEXT_FEATURES, Page, rows_in_bytes
from pipelines.corpus.formats.places import Kept, arrow_file, other_build

_FIELD_1 = b"\x0a"
_FIELD_2 = b"\x12"
_CHUNK_BYTES = 4 << 20  # read at once: few requests to an object store
_BUFFER_BYTES = 1 << 20  # one write call for this much; larger buffers were no faster


def write(table: pa.Table, binary_file: BinaryIO) -> None:
    """Write one TFRecord file of the five text features; 0 rows make a file of 0 bytes."""
    names = sorted(TEXT_FEATURES)
    encode = _RecordEncoder(names)
    buffered: list[bytes] = []
    n_bytes = 0
    for columns in rows_in_bytes(table, [TEXT_FEATURES[name] for name in names]):
        for values in zip(*columns, strict=True):
            n_bytes += encode(values, buffered)
            if n_bytes >= _BUFFER_BYTES:
                binary_file.write(b"".join(buffered))
                buffered.clear()
                n_bytes = 0
    if buffered:
        binary_file.write(b"".join(buffered))


class _RecordEncoder:
    """Turns values into framed records.

    The bytes between two values depend only on the lengths of the values, and lengths repeat: each
    such piece is made once and kept by length.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = [name.encode() for name in names]
        self._heads: list[dict[int, bytes]] = [{} for _ in names]  # by length of the value
        self._frames: dict[int, tuple[bytes, bytes]] = {}  # by length of all map entries

    def __call__(self, values: tuple[memoryview, ...], out: list[bytes]) -> int:
        """Append one framed record to ``out`` and return its length in bytes."""
        parts: list[bytes | memoryview] = [b""]
        n_entries = 0
        for i, value in enumerate(values):
            n_value = len(value)
            head = self._heads[i].get(n_value)
            if head is None:
                head = self._heads[i][n_value] = _entry_head(self._names[i], n_value)
            parts.append(head)
            parts.append(value)
            n_entries += len(head) + n_value
        frame = self._frames.get(n_entries)
        if frame is None:
            frame = self._frames[n_entries] = _frame(n_entries)
        parts[0] = frame[1]
        record = b"".join(parts)
        out += (frame[0], record, _masked_crc(record))
        return len(record) + 16


def _entry_head(name: bytes, n_value: int) -> bytes:
    """Return what comes before a value of ``n_value`` bytes in its feature's map entry."""
    value = _FIELD_1 + _varint(n_value)
    bytes_list = _FIELD_1 + _varint(len(value) + n_value) + value
    feature = _FIELD_2 + _varint(len(bytes_list) + n_value) + bytes_list
    entry = _FIELD_1 + _varint(len(name)) + name + feature
    return _FIELD_1 + _varint(len(entry) + n_value) + entry


def _frame(n_entries: int) -> tuple[bytes, bytes]:
    """Return the frame and first tag of a record whose map entries have ``n_entries`` bytes."""
    tag = _FIELD_1 + _varint(n_entries)
    length = (len(tag) + n_entries).to_bytes(8, "little")
    return length + _masked_crc(length), tag


def _masked_crc(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def _varint(number: int) -> bytes:
    """Return seven bits per byte, lowest first, the high bit set on all bytes but the last.

    >>> _varint(300).hex()
    'ac02'
    """
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


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


class _Records:
    """The records of one file, which can only be found one after the other."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = arrow_file(path)
        self._size = int(self._file.size())
        self.known = {0: 0}  # page -> position of its record

    def find(self, page: int) -> _Cursor:
        """Return a cursor at a record, skipping those before it that no one has read yet."""
        nearest = max(known for known in self.known if known <= page)
        cursor = _Cursor(self.known[nearest])
        for skipped in range(nearest, page):
            if self.next(cursor, skipped, skip=True) is None:
                raise self.ends_after(skipped)
        self.known[page] = cursor.position
        return cursor

    def ends_after(self, page: int) -> CorpusError:
        """Return the error for a file with fewer records than the manifest lists."""
        return CorpusError(
            f"{self._path} ends after {page} records and manifest.json lists more: it is cut off, "
            "or of another build; run c4 build again"
        )

    def next(self, cursor: _Cursor, page: int, skip: bool = False) -> bytes | None:
        """Return the next record, None at the file's end; empty if its data are skipped.

        Args:
            cursor: Where to read; moves on.
            page: Number of the record, for messages.
            skip: Whether not to read the data.
        """
        # Checks as in tensorflow/core/lib/io/record_reader.cc.
        head = self.take(cursor, 12)
        if not head:
            return None
        length = int.from_bytes(head[:8], "little")
        if len(head) < 12 or head[8:] != _masked_crc(head[:8]):
            raise self._damaged(page, "damaged: its length fails its checksum")
        if length > MOST_BYTES:
            raise self._damaged(
                page, f"damaged: a length of {length:,} bytes, {MOST_BYTES:,} allowed"
            )
        if skip:
            cursor.at += length + 4
            return b""
        body = self.take(cursor, length + 4)
        if len(body) < length + 4 or body[length:] != _masked_crc(body[:length]):
            raise self._damaged(page, "damaged: its data fail their checksum")
        return body[:length]

    def take(self, cursor: _Cursor, count: int) -> bytes:
        """Return the next ``count`` bytes, fewer at the file's end."""
        if len(cursor.chunk) - cursor.at < count:
            rest = cursor.chunk[cursor.at :]
            cursor.begin, cursor.at = cursor.position, 0
            place = cursor.begin + len(rest)
            wanted = min(max(count, _CHUNK_BYTES) - len(rest), self._size - place)
            cursor.chunk = rest
            if wanted > 0:
                cursor.chunk += self._file.read_at(wanted, place)
        taken = cursor.chunk[cursor.at : cursor.at + count]
        cursor.at += len(taken)
        return taken

    def features(self, record: bytes, page: int) -> dict[str, str]:
        """Return the features of a record; only "text" must be there."""
        try:
            found = {name: value.decode() for name, value in self.values(record, page).items()}
        except UnicodeDecodeError as error:
            raise self._damaged(page, one_line(error)) from None
        if "text" not in found:
            raise self._damaged(page, "no feature 'text'")
        return found

    def values(self, record: bytes, page: int) -> dict[str, bytes]:
        """Return the features of a record as they are stored, empty if they are no bytes."""
        try:
            return {
                name.decode(): _value(record, start, stop) or b""
                for name, start, stop in _entries(record)
            }
        except (IndexError, ValueError) as error:
            raise self._damaged(page, one_line(error)) from None

    def text(self, record: bytes, page: int) -> bytes:
        """Return the text of a record, looking no further."""
        try:
            for name, start, stop in _entries(record):
                if name == b"text" and (value := _value(record, start, stop)) is not None:
                    return value
            raise ValueError("no feature 'text'")
        except (IndexError, ValueError) as error:
            raise self._damaged(page, one_line(error)) from None

    def _damaged(self, page: int, what: str) -> CorpusError:
        return CorpusError(f"{self._path}: record {page}: {what}")


class Texts:
    """Texts of pages out of records.

    Each read leaves a cursor where it ended, from which the next one continues, and the place is
    remembered for longer: a corpus that is read repeatedly is not searched again.
    """

    def __init__(self, open_places: int) -> None:
        self._files: Kept[str, _Records] = Kept(open_places)
        self._cursors: Kept[tuple[str, int], _Cursor] = Kept(open_places)
        self._known: dict[str, dict[int, int]] = {}

    def read(self, path: str, stored: int, start: int, stop: int) -> list[bytes]:
        """Return the texts of pages ``start`` to ``stop`` of a shard of ``stored`` pages."""
        records = self._files.get(path) or _Records(path)
        self._files.keep(path, records)
        records.known = self._known.setdefault(path, records.known)
        cursor = self._cursors.pop((path, start), None) or records.find(start)
        texts = []
        for page in range(start, stop):
            record = records.next(cursor, page)
            if record is None:
                raise records.ends_after(page)
            texts.append(records.text(record, page))
        records.known[stop] = cursor.position
        if stop < stored:
            self._cursors.keep((path, stop), cursor)
        elif records.take(cursor, 1):
            raise other_build(path, f"has more records than the {stored} that manifest.json lists")
        return texts


def read_pages(path: str) -> Iterator[Page]:
    """Yield the pages of a shard, holding 4 MB of it at a time."""
    records = _Records(path)
    for page, record in enumerate(_each(records)):
        yield Page.of(records.features(record, page))


def read_values(path: str) -> Iterator[dict[str, bytes]]:
    """Yield the features of each record of a file of others, which may lack any.

    Raises:
        CorpusError: A record is damaged, or is no Example.
    """
    records = _Records(path)
    for page, record in enumerate(_each(records)):
        yield records.values(record, page)


def _each(records: _Records) -> Iterator[bytes]:
    cursor = _Cursor(0)
    for page in itertools.count():
        record = records.next(cursor, page)
        if record is None:
            return
        yield record


def _entries(record: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each feature of a ``tf.train.Example``, and where its map entry is.

    Raises IndexError or ValueError for what is no Example.
    """
    for features in _fields(record, 0, len(record), 1):
        for start, stop in _fields(record, *features, 1):
            yield record[slice(*next(_fields(record, start, stop, 1), (0, 0)))], start, stop


def _value(record: bytes, start: int, stop: int) -> bytes | None:
    """Return the first value of the feature of bytes in a map entry; None if it has none."""
    for feature in _fields(record, start, stop, 2):
        for values in _fields(record, *feature, 1):  # a BytesList
            for value in _fields(record, *values, 1):
                return record[slice(*value)]
    return None


def _fields(record: bytes, start: int, stop: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yield where the length-delimited fields numbered ``wanted`` of a message begin and end."""
    while start < stop:
        tag, start = _read_varint(record, start)
        if tag & 7 != 2:
            raise ValueError(f"not an Example: wire type {tag & 7}")
        length, start = _read_varint(record, start)
        if start + length > stop:
            raise ValueError("not an Example: a field goes beyond its message")
        if tag >> 3 == wanted:
            yield start, start + length
        start += length


def _read_varint(record: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a byte, and the byte behind it."""
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
