"""Whether a gzip file is whole: read to its end, while it arrives or where it lies."""

import os
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, cast

from isal import isal_zlib

from pipelines.wet.file_kinds import SIGNATURE_BYTES, name_kind
from pipelines.wet.members import GZIP_MAGIC

_GZIP_WBITS = 31
_ERROR = cast(type[Exception], isal_zlib.error)
_PIECE_BYTES = 1 << 20  # of text that is held at a time
_READ_BYTES = 1 << 20
_TAIL_BYTES = 1 << 20  # a WET file's records are far smaller
_MOST_TRIES = 64


class DamagedError(ValueError):
    """The bytes are not a whole gzip file. The message completes "the file …"."""


class TooLargeError(DamagedError):
    """It unpacks to more than it may."""


class WholeGzip:
    """Follows the bytes of a gzip file, of one member or many."""

    def __init__(self, most_bytes: int, take: Callable[[bytes], Any] = len) -> None:
        """Begin a file that may unpack to ``most_bytes``. ``take`` gets its text in pieces."""
        self._most = self._left = most_bytes
        self._take = take
        self._inflater: Any = None
        self._head = b""
        self._members = 0
        self._padded = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            DamagedError: They are damaged, not gzip, or unpack to too much.
        """
        if len(self._head) < SIGNATURE_BYTES:
            self._head += data[: SIGNATURE_BYTES - len(self._head)]
        while data:
            if self._inflater is None:
                data = data.lstrip(b"\0") if self._members else data
                if not data:
                    self._padded = True
                    return
                if self._padded:
                    raise DamagedError("has bytes after its end")
                self._inflater = isal_zlib.decompressobj(_GZIP_WBITS)
            data = self._inflate(data)

    def _inflate(self, data: bytes) -> bytes:
        """Inflate up to the end of the member or of the data, and return what follows."""
        inflater = self._inflater
        try:
            while True:
                piece = inflater.decompress(data, _PIECE_BYTES)
                self._take(piece)
                self._left -= len(piece)
                data = inflater.unconsumed_tail
                if inflater.eof or not data:
                    break
                self._require_small()
        except _ERROR as error:
            raise DamagedError(self._kind() or f"is damaged gzip ({error})") from None
        self._require_small()
        if not inflater.eof:
            return b""
        self._inflater = None
        self._members += 1
        rest: bytes = inflater.unused_data
        return rest

    def _require_small(self) -> None:
        if self._left < 0:
            raise TooLargeError(f"unpacks to more than {self._most >> 20:,} MB (--max-file-mb)")

    def require_whole(self) -> None:
        """Raise DamagedError unless the bytes so far are a whole file."""
        if not self._members and self._inflater is None:
            raise DamagedError("is empty")
        if self._inflater is not None:
            raise DamagedError(self._kind() or "is cut off: its gzip does not end")

    def _kind(self) -> str:
        return name_kind(self._head) if not self._head.startswith(GZIP_MAGIC) else ""


def ends_whole(file: BinaryIO, most_bytes: int) -> bool:
    """Return whether a gzip file ends where its last member does.

    Reads the last member only, if it is small, as in a WET file, and else the whole file.

    Args:
        file: The file, seekable.
        most_bytes: How much the whole file may unpack to.
    """
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _TAIL_BYTES)
    file.seek(start)
    tail = file.read()
    at = len(tail)
    for _ in range(_MOST_TRIES if start else 0):
        at = tail.rfind(GZIP_MAGIC, 0, at)
        if at < 0:
            break
        if _is_whole([tail[at:]], most_bytes):
            return True
    file.seek(0)
    return _is_whole(iter(lambda: file.read(_READ_BYTES), b""), most_bytes)


def _is_whole(pieces: Iterable[bytes], most_bytes: int) -> bool:
    check = WholeGzip(most_bytes)
    try:
        for data in pieces:
            check.feed(data)
        check.require_whole()
    except DamagedError:
        return False
    return True
