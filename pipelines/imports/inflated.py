"""The bytes of a file, unpacked piece by piece and bounded, while what is stored is hashed."""

import bz2
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa

from c4_filters.verdicts import RejectReason
from pipelines.wet.results import ReadStats, UnreadableWetError

_STORED_BYTES = 256 << 10  # read at once
_PIECE_BYTES = 256 << 10  # unpacked at once
#: How many times its size any file may unpack to, whatever the option says: a dump of Wikipedia is
#: larger than any fixed bound, and text packs five to ten times smaller.
_MOST_TIMES = 100


class UnreadableSourceError(UnreadableWetError):
    """The file is not what its source says: nothing of it can be read."""


class BrokenError(Exception):
    """The rest of a file cannot be read; ``reason`` and the message say why."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Stored:
    """A stored file, read once from its beginning: counts and hashes on the way."""

    closed = False  # with `close`, what Arrow asks of a file that it reads from

    def __init__(self, stream: BinaryIO, stats: ReadStats) -> None:
        self._stream, self.stats = stream, stats
        self._digest = hashlib.sha256()
        self._head = b""  # read, and to be returned again

    def read(self, size: int = _STORED_BYTES) -> bytes:
        """Return the next bytes, none at the end."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        data = self._stream.read(size)
        self.stats.bytes_read += len(data)
        self._digest.update(data)
        return data

    def peek(self) -> bytes:
        """Return the first bytes, and keep them to be read."""
        self._head = self.read()
        return self._head

    def close(self) -> None:
        """Do nothing: the stream is its opener's."""

    def finish(self) -> None:
        """Read what is left, so that the counts have the size and the SHA-256 of the file."""
        while self.read(1 << 20):
            pass
        self.stats.sha256 = self._digest.hexdigest()


# First bytes -> what unpacks one stream. Files are often several streams, one after the other.
_PACKED: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", lambda: lzma.LZMADecompressor(memlimit=_XZ_BYTES)),
)
_XZ_BYTES = 256 << 20  # of its dictionary, which the file chooses; `xz -9` has 64 MB
_ZSTD = b"\x28\xb5\x2f\xfd"
_ARCHIVES = {
    b"PK\x03\x04": "is a ZIP archive: unpack it first",
    b"7z\xbc\xaf": "is a 7-Zip archive: unpack it first",
}
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


def pieces(stored: Stored, max_file_bytes: int) -> Iterator[bytes]:
    """Yield the content of a file, unpacked if it is gzip, bzip2, xz or zstd.

    A file may unpack to ``max_file_bytes``, or to a hundred times its size if that is more.

    Raises:
        UnreadableSourceError: The file is empty, damaged, or an archive.
        BrokenError: It is cut off, or unpacks to more; what came before is good.
    """
    head = stored.peek()
    if not head:
        raise UnreadableSourceError("is empty")
    for magic, what in _ARCHIVES.items():
        if head.startswith(magic):
            raise UnreadableSourceError(what)
    unpacker = next((make for magic, make in _PACKED if head.startswith(magic)), None)
    if head.startswith(_ZSTD):
        unpacked = _zstd(stored)
    elif unpacker is not None:
        unpacked = _streams(stored, unpacker)
    else:
        unpacked = iter(stored.read, b"")
    done = 0
    for piece in unpacked:
        done += len(piece)
        require_small(done, max_file_bytes, stored.stats.bytes_read)
        yield piece


def require_small(unpacked: int, max_file_bytes: int, size: int) -> None:
    """Raise BrokenError if a file of ``size`` bytes has unpacked to more than it may."""
    if unpacked > max(max_file_bytes, _MOST_TIMES * size):
        raise BrokenError(
            RejectReason.TOO_LARGE,
            f"the file unpacks to more than {max_file_bytes:,} bytes and {_MOST_TIMES} times "
            "its size: the rest is left out (--max-file-mb)",
        )


def _streams(stored: Stored, make: Callable[[], Any]) -> Iterator[bytes]:
    """Unpack streams of one kind, one after the other; zeros at the end are padding."""
    data = stored.read()
    while data:
        unpacker = make()
        try:
            while not unpacker.eof:
                piece, data = _unpack(unpacker, data, stored)
                if piece:
                    yield piece
            data = unpacker.unused_data
        except _DAMAGE as error:
            raise _damaged(error) from None
        data = (data or stored.read()).lstrip(b"\x00")
        while not data and (more := stored.read()):
            data = more.lstrip(b"\x00")


def _unpack(unpacker: Any, data: bytes, stored: Stored) -> tuple[bytes, bytes]:
    """Return the next piece, and the stored bytes that are still to be unpacked."""
    needs_input = getattr(unpacker, "needs_input", not data)  # zlib hands input back instead
    if needs_input and not data:
        data = stored.read()
        if not data:
            raise _cut_off()
    piece = unpacker.decompress(data, _PIECE_BYTES)
    return piece, getattr(unpacker, "unconsumed_tail", b"")


def _zstd(stored: Stored) -> Iterator[bytes]:
    source = pa.PythonFile(cast(BinaryIO, stored), mode="r")
    try:
        with pa.CompressedInputStream(source, "zstd") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
    except (OSError, pa.ArrowException) as error:
        if "Truncated" in str(error):
            raise _cut_off() from None
        raise _damaged(error) from None


def _cut_off() -> BrokenError:
    return BrokenError(RejectReason.TRUNCATED, "the file ends within a compressed stream")


def _damaged(error: Exception) -> UnreadableSourceError:
    # A checksum comes last: what was unpacked before it may be wrong anywhere.
    return UnreadableSourceError(f"is damaged ({error}): fetch it again")
