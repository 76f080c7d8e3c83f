"""The stored bytes of a WET file, and its gzip members (RFC 1952), good and damaged."""

import hashlib
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from isal import igzip_lib, isal_zlib

from c4_filters.verdicts import RejectReason
from pipelines.wet.file_kinds import SIGNATURE_BYTES
from pipelines.wet.results import ReadStats

_READ_BYTES = 1 << 20  # asked of the stream at once
_LOOK_BACK_BYTES = 256 << 10  # kept behind, so that going back after damage rarely seeks
INFLATE_BYTES = 16 << 10  # stored bytes inflated at once; deflate makes at most 1,032 times as many
_WHOLE_MEMBER_BYTES = 4 << 20  # members that inflate to more are not held whole
PIECE_BYTES = 1 << 20  # text taken at once from a large member or from a file stored as it is
_TRIAL_BYTES = 1 << 10  # stored bytes that must inflate before unknown ones pass as gzip
_TRIAL_STEP_BYTES = 16  # of those at once: what comes right before an error is lost
# Wasted work is limited in proportion to the file, since a malicious file could cause it again and
# again. Real damage stays far below.
_VAIN_BYTES = 64 << 20
_VAIN_PER_STORED_BYTE = 16
GZIP_MAGIC = b"\x1f\x8b\x08"
_GZIP_WBITS = 31
_INFLATE_ERRORS = (cast(type[Exception], igzip_lib.IsalError), zlib.error)
VERSION_LINE = re.compile(rb"WARC/\d+\.\d+[ \t]*\r?\n", re.IGNORECASE)


def first_text(stored: "Stored") -> bytes:
    """Return the first bytes of text of the first gzip member, as far as it is readable."""
    inflater = zlib.decompressobj(_GZIP_WBITS)
    text = b""
    try:
        for i in range(0, INFLATE_BYTES, _TRIAL_BYTES):
            text += inflater.decompress(stored.view(i, _TRIAL_BYTES), SIGNATURE_BYTES)
            if len(text) >= SIGNATURE_BYTES or inflater.eof:
                break
    except zlib.error:
        pass
    return text


class Stored:
    """The stored bytes, each hashed once when it is read, with cheap steps back."""

    def __init__(self, stream: BinaryIO, stats: ReadStats, text_left: int) -> None:
        self.sha256 = hashlib.sha256()
        self.text_left = text_left  # bytes that may still be read of what is stored
        self._stream = stream
        self._stats = stats
        self._start = 0  # file offset of the window's first byte
        self._window = b""
        self._view = memoryview(b"")
        self._at_end = False
        self._vain_bytes = 0
        stream.seek(0)

    @property
    def bytes_read(self) -> int:
        """Bytes of the file read so far."""
        return self._stats.bytes_read

    def in_vain(self, size: int) -> None:
        """Note that the work on ``size`` bytes was wasted."""
        self._vain_bytes += size

    def may_try(self) -> bool:
        """Whether the limit of wasted work is not yet reached."""
        return self._vain_bytes <= _VAIN_BYTES + _VAIN_PER_STORED_BYTE * self._stats.bytes_read

    def read_rest(self) -> None:
        """Read the file to its end, for its digest."""
        while not self._at_end:
            self._load(self._start + len(self._window), 1)

    def view(self, pos: int, size: int) -> memoryview:
        """Bytes [pos, pos + size), fewer only where the file ends."""
        i = pos - self._start
        if i < 0 or (i + size > len(self._window) and not self._at_end):
            self._load(pos, size)
            i = pos - self._start
        return self._view[i : i + size]

    def find_gzip(self, pos: int) -> int | None:
        """Return where the first three bytes of a gzip member occur next, from ``pos`` on."""
        while True:
            self.view(pos, _READ_BYTES)
            found = self._window.find(GZIP_MAGIC, pos - self._start)
            if found >= 0:
                return self._start + found
            if self._at_end:
                return None
            pos = max(pos, self._start + len(self._window) - len(GZIP_MAGIC) + 1)

    def _load(self, pos: int, size: int) -> None:
        if pos < self._start:
            self._stream.seek(pos)
            self._start, self._window, self._at_end = pos, b"", False
        behind = max(0, pos - self._start - _LOOK_BACK_BYTES)
        parts = [self._window[behind:]]
        end = self._start + len(self._window)
        self._start += behind
        while end < pos + size and not self._at_end:
            part = self._stream.read(_READ_BYTES)
            self._at_end = not part
            fresh = end + len(part) - self._stats.bytes_read
            if fresh > 0:
                self.sha256.update(part[-fresh:])
                self._stats.bytes_read += fresh
            parts.append(part)
            end += len(part)
        self._window = b"".join(parts)
        self._view = memoryview(self._window)


def inflate_whole(stored: Stored, pos: int, window: memoryview) -> tuple[bytes, int] | None:
    """Inflate the gzip member at ``pos``: its text and its end; None if it is damaged or large."""
    inflater = isal_zlib.decompressobj(_GZIP_WBITS)
    try:
        text = inflater.decompress(window)
        fed = pos + len(window)
        if not inflater.eof:
            parts, size = [text], len(text)
            while not inflater.eof:
                window = stored.view(fed, INFLATE_BYTES)
                if not window or size > _WHOLE_MEMBER_BYTES:
                    return None
                parts.append(inflater.decompress(window))
                size += len(parts[-1])
                fed += len(window)
            text = b"".join(parts)
    except _INFLATE_ERRORS:
        return None
    return text, fed - len(inflater.unused_data)


def opens_member(stored: Stored, pos: int) -> bool:
    """Whether a gzip member that can be read begins at ``pos``, judged by its first bytes."""
    window = stored.view(pos, _TRIAL_BYTES)
    inflater = zlib.decompressobj(_GZIP_WBITS)
    text = b""
    try:
        for i in range(0, len(window), _TRIAL_STEP_BYTES):
            text += inflater.decompress(window[i : i + _TRIAL_STEP_BYTES], _TRIAL_BYTES)
            if inflater.eof or inflater.unconsumed_tail or VERSION_LINE.match(text):
                return True
    except zlib.error:
        return False
    return len(text) >= _TRIAL_BYTES // 4  # it may continue a record of the member before


def next_member(stored: Stored, pos: int) -> tuple[int, bool]:
    """Where the next readable gzip member begins, else (the file's end, True)."""
    while (found := stored.find_gzip(pos)) is not None:
        if opens_member(stored, found):
            return found, False
        pos = found + 1
    while window := stored.view(pos, _READ_BYTES):
        pos += len(window)
    return pos, True


def probe_member(codec: Any, stored: Stored, pos: int) -> tuple[RejectReason | None, int, int]:
    """Inflate a member and keep nothing: (its fault or None, where it was found, bytes of text).

    Text beyond the limit of the file is not examined: it will not be read.
    """
    inflater = codec.decompressobj(_GZIP_WBITS)
    inflated = 0
    try:
        while not inflater.eof and inflated <= stored.text_left:
            window = inflater.unconsumed_tail
            if not window:
                window = stored.view(pos, INFLATE_BYTES)
                pos += len(window)
                if not window:
                    return RejectReason.TRUNCATED, pos, inflated
            inflated += len(inflater.decompress(window, PIECE_BYTES))
    except _INFLATE_ERRORS:
        return RejectReason.CORRUPT_GZIP, pos, inflated
    return None, pos - len(inflater.unused_data), inflated


def inflate_pieces(codec: Any, stored: Stored, pos: int) -> Iterator[bytes]:
    """Return the text of a member that is known to be good."""
    inflater = codec.decompressobj(_GZIP_WBITS)
    while not inflater.eof:
        window = inflater.unconsumed_tail
        if not window:
            window = stored.view(pos, INFLATE_BYTES)
            pos += len(window)
        yield inflater.decompress(window, PIECE_BYTES)


def salvage_pieces(stored: Stored, pos: int) -> Iterator[bytes]:
    """Yield all text of a member before its first error, which zlib decides."""
    inflater = zlib.decompressobj(_GZIP_WBITS)
    while not inflater.eof and (window := stored.view(pos, INFLATE_BYTES)):
        before = inflater.copy()
        try:
            yield inflater.decompress(window)
        except zlib.error:
            # A failed call returns nothing: go over the same bytes again, one by one.
            for i in range(len(window)):
                try:
                    text = before.decompress(window[i : i + 1])
                except zlib.error:
                    return
                yield text
            return
        pos += len(window)
