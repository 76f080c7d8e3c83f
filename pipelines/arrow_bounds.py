"""How much memory the batches of an Arrow file ask for, told before any is given.

A compressed buffer of an Arrow file says how long it becomes, and Arrow makes room for whatever it
says: a few MB of LZ4 for some GB of memory. The sizes stand in small tables in front of each batch,
which are read here without Arrow. Layout: Arrow columnar format 1.5, "IPC File Format", with
format/{File,Message}.fbs; tables are FlatBuffers.
"""

import io
import os
import struct
from typing import Any, BinaryIO, NamedTuple

__all__ = ["BoundedFile", "require_uncompressed"]

_MAGIC = b"ARROW1"
_TAIL_BYTES = 64 << 10  # what a request to an object store fetches anyway: pipelines.storage
_TAIL = struct.Struct("<i6s")  # bytes of the footer, magic
_BLOCK = struct.Struct("<qi4xq")  # offset, bytes of metadata, bytes of body
_BUFFER = struct.Struct("<qq")  # offset in the body, bytes
_INT16, _INT32, _UINT32, _INT64 = map(struct.Struct, ("<H", "<i", "<I", "<q"))
_CONTINUES = b"\xff\xff\xff\xff"  # opens a message
_FOOTER_BATCHES = 3  # numbers of fields in their tables
_MESSAGE_HEADER = 2
_BATCH_BUFFERS, _BATCH_COMPRESSION = 2, 3
_NOT_COMPRESSED = -1  # in place of a buffer's length: its bytes follow as they are


class _Block(NamedTuple):
    """Where a batch stands in its file."""

    offset: int
    metadata_bytes: int
    body_bytes: int


class BoundedFile(io.RawIOBase):
    """An Arrow file for Arrow to read, whose batches are checked one by one before.

    What was read for a check is kept until the next one, so that Arrow need not fetch it again.
    Closing it closes the file below.
    """

    def __init__(self, file: BinaryIO, most_bytes: int) -> None:
        """Reads the footer. ``most_bytes``: what one batch may take in memory.

        Raises ValueError when the file has no such footer, and what the file raises.
        """
        super().__init__()
        self._file = file
        self._most_bytes = most_bytes
        self._size = file.seek(0, os.SEEK_END)
        self._at = 0
        # The footer, as a rule: Arrow will ask for it, too.
        self._held_from, self._held = self._size, b""
        self._held_from, self._held = self._tail(_TAIL_BYTES)
        self._blocks = _blocks(self)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves the place that is read next."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """The place that is read next."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Reads up to as many bytes as the buffer has."""
        with memoryview(buffer) as view:
            wanted = view.cast("B")
            found = self._at_hand(self._at, len(wanted))
            if found is None:
                self._file.seek(self._at)
                found = self._file.read(len(wanted))
            wanted[: len(found)] = found
        self._at += len(found)
        return len(found)

    def close(self) -> None:
        """Closes the file below, too."""
        if not self.closed:
            self._file.close()
        super().close()

    def check(self, number: int) -> None:
        """Raises ValueError when batch ``number`` would take more memory than one may."""
        if not 0 <= number < len(self._blocks):
            raise ValueError(f"no batch {number} among {len(self._blocks)}")
        block = self._blocks[number]
        stored = block.metadata_bytes + block.body_bytes
        if stored > self._most_bytes:
            raise ValueError(f"batch {number} has {stored:,} bytes, {self._most_bytes:,} allowed")
        self._held_from, self._held = block.offset, self._range(block.offset, stored)
        needed, _ = _needed_bytes(memoryview(self._held), block)
        if needed > self._most_bytes:
            raise ValueError(
                f"batch {number} unpacks to {needed:,} bytes, {self._most_bytes:,} allowed"
            )

    def _at_hand(self, offset: int, count: int) -> bytes | None:
        begin = offset - self._held_from
        whole = begin >= 0 and begin + count <= len(self._held)
        return self._held[begin : begin + count] if whole else None

    def _tail(self, count: int) -> tuple[int, bytes]:
        offset = max(0, self._size - count)
        return offset, self._range(offset, self._size - offset)

    def _range(self, offset: int, count: int) -> bytes:
        if not 0 <= offset <= offset + count <= self._size:
            raise ValueError(f"bytes {offset} to {offset + count} of {self._size}")
        found = self._at_hand(offset, count)
        if found is None:
            self._file.seek(offset)
            found = self._file.read(count)
        if len(found) != count:
            raise ValueError(f"{len(found)} of {count} bytes at {offset}")
        return found


def require_uncompressed(content: bytes) -> None:
    """Raises ValueError if a batch of a file in memory would take more than its own bytes."""
    file = BoundedFile(io.BytesIO(content), len(content))
    for number, block in enumerate(file._blocks):
        file.check(number)
        needed, compressed = _needed_bytes(memoryview(file._held), block)
        if compressed or needed > block.body_bytes:
            raise ValueError(f"batch {number} is compressed")


def _blocks(file: BoundedFile) -> list[_Block]:
    tail = file._range(max(0, file._size - _TAIL.size), min(file._size, _TAIL.size))
    if len(tail) < _TAIL.size or tail[4:] != _MAGIC:
        raise ValueError("not an Arrow file, or cut off")
    size, _ = _TAIL.unpack(tail)
    begin = file._size - _TAIL.size - size
    if size < 8 or begin < 0:
        raise ValueError(f"an Arrow file with a footer of {size} bytes")
    footer = memoryview(file._range(begin, size))
    place = _field(footer, _root(footer), _FOOTER_BATCHES)
    return [_Block(*found) for found in _vector(footer, place, _BLOCK)]


def _needed_bytes(data: memoryview, block: _Block) -> tuple[int, bool]:
    """Memory for the buffers of a batch, all unpacked, and whether it is compressed."""
    prefix = 8 if data[:4] == _CONTINUES else 4
    metadata = data[prefix : block.metadata_bytes]
    header = _field(metadata, _root(metadata), _MESSAGE_HEADER)
    if not header:
        raise ValueError("a batch without a header")
    batch = header + _number(metadata, header, _UINT32)
    buffers = _vector(metadata, _field(metadata, batch, _BATCH_BUFFERS), _BUFFER)
    if not _field(metadata, batch, _BATCH_COMPRESSION):
        return sum(max(0, size) for _, size in buffers), False
    needed = 0
    for offset, size in buffers:
        if size <= 0:
            continue
        if offset < 0:
            raise ValueError(f"a buffer at {offset}")
        length = _number(data, block.metadata_bytes + offset, _INT64)
        if length < _NOT_COMPRESSED:
            raise ValueError(f"a buffer of {length} bytes")
        needed += size if length == _NOT_COMPRESSED else length
    return needed, True


# FlatBuffers: a table begins with the distance back to its list of fields, which holds for each the
# distance from the table's begin, or 0 where it is left out.


def _number(data: memoryview, place: int, form: struct.Struct) -> int:
    if not 0 <= place <= len(data) - form.size:
        raise ValueError(f"a number at {place} of {len(data)} bytes")
    found: int = form.unpack_from(data, place)[0]
    return found


def _root(data: memoryview) -> int:
    return _number(data, 0, _UINT32)


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a field of a table stands, 0 where it is left out."""
    fields = table - _number(data, table, _INT32)
    slot = 4 + 2 * number
    if slot + 2 > _number(data, fields, _INT16):
        return 0
    distance = _number(data, fields + slot, _INT16)
    return table + distance if distance else 0


def _vector(data: memoryview, place: int, form: struct.Struct) -> list[tuple[int, ...]]:
    """The entries of a list of structures that the field at ``place`` points to."""
    if not place:
        return []
    begin = place + _number(data, place, _UINT32)
    count = _number(data, begin, _UINT32)
    end = begin + 4 + count * form.size
    if end > len(data):
        raise ValueError(f"a list of {count} entries in {len(data)} bytes")
    return list(form.iter_unpack(data[begin + 4 : end]))
