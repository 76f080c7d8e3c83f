"""Shards of ``tf.train.Example`` records, written without TensorFlow.

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

from typing import BinaryIO

import google_crc32c
import pyarrow as pa

from pipelines.formats.pages import TEXT_FEATURES, rows_in_bytes

_FIELD_1 = b"\x0a"
_FIELD_2 = b"\x12"
_BUFFER_BYTES = 1 << 20  # one write call for this much; larger buffers were no faster


def write_tfrecord(table: pa.Table, binary_file: BinaryIO) -> None:
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

    What stands between two values depends on nothing but the lengths of values, and lengths
    repeat: each such piece is made once and kept by length.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = [name.encode() for name in names]
        self._heads: list[dict[int, bytes]] = [{} for _ in names]  # by length of the value
        self._frames: dict[int, tuple[bytes, bytes]] = {}  # by length of all map entries

    def __call__(self, values: tuple[bytes, ...], out: list[bytes]) -> int:
        """Append one framed record to ``out`` and return its length in bytes."""
        parts = [b""]
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
    """All bytes of a feature's map entry that stand before its value of ``n_value`` bytes."""
    value = _FIELD_1 + _varint(n_value)
    bytes_list = _FIELD_1 + _varint(len(value) + n_value) + value
    feature = _FIELD_2 + _varint(len(bytes_list) + n_value) + bytes_list
    entry = _FIELD_1 + _varint(len(name)) + name + feature
    return _FIELD_1 + _varint(len(entry) + n_value) + entry


def _frame(n_entries: int) -> tuple[bytes, bytes]:
    """What stands before a record whose map entries have ``n_entries`` bytes: frame, first tag."""
    tag = _FIELD_1 + _varint(n_entries)
    length = (len(tag) + n_entries).to_bytes(8, "little")
    return length + _masked_crc(length), tag


def _masked_crc(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first, the high bit set on all bytes but the last.

    >>> _varint(300).hex()
    'ac02'
    """
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
