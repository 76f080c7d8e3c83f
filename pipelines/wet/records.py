"""WET file -> records: one fast pass over good files, and on bad ones nothing lost but the damage.

Common Crawl stores one WARC record in one gzip member. Such a member is inflated in one go and its
few header lines are split: that is the fast way, and nearly every record takes it. Whatever does
not look exactly like that (several records in a member, stored text, other line ends, a wrong
``Content-Length``, damage) goes through the careful way, which reads from that member on until a
member ends where a record ends. Both work on the bytes of one file; this module imports no Beam,
the caller opens the stream.

How far a record reaches, on the careful way, in this order:

1. ``Content-Length`` bytes, if a record header or the end of the text follows, if the block digest
   agrees, or if the blank lines that end a record follow and only then something else; bar line
   ends that were rewritten, which show in a length that is off by the number of lines;
2. otherwise up to the next record header, less the blank lines that end a record;
3. otherwise, at the end of the text, up to that end if it closes like a record.

A text that quotes a whole record header therefore splits a page only if its length is wrong too.

Layout of records: WARC 1.0 (ISO 28500:2009) and 1.1, section 4; of gzip members: RFC 1952.
"""

import base64
import collections
import dataclasses
import hashlib
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from isal import igzip_lib, isal_zlib

from c4_filters.dates import is_date
from c4_filters.verdicts import RejectReason
from pipelines.wet.file_kinds import SIGNATURE_BYTES, name_kind, name_record_types

MAX_RECORD_BYTES = 64 << 20  # our choice: pages of Common Crawl are cut at 1 MiB before extraction
MAX_HEADER_BYTES = (
    64 << 10
)  # our choice: FastWARC's bound is half of it, real headers stay under 4k
MAX_FILE_BYTES = 1 << 30  # our choice: twice and more what Common Crawl's files unpack to
MAX_DETAIL_CHARS = 200

_READ_BYTES = 1 << 20  # asked of the stream at once
_LOOK_BACK_BYTES = 256 << 10  # kept behind, so that going back after damage rarely seeks
_INFLATE_BYTES = (
    16 << 10
)  # stored bytes inflated at once; deflate makes at most 1,032 times as many
_WHOLE_MEMBER_BYTES = 4 << 20  # members that inflate to more are not held whole
_PIECE_BYTES = 1 << 20  # text taken at once from a large member or from a file stored as it is
_RESCAN_BYTES = 1 << 20  # how far before the point of failure the next good member is looked for
_TRIAL_BYTES = 1 << 10  # stored bytes that must inflate before unknown ones pass as gzip
_TRIAL_STEP_BYTES = 16  # of those at once: what comes right before an error is lost
_VERSION_LINE_BYTES = 64  # a version line is no longer
_PROBE_BYTES = 4 << 10  # text looked at to tell a record header from a line that quotes one
# Work that came to nothing is allowed in proportion to the file: one that is made up could else ask
# for it again and again. Real damage stays far below.
_VAIN_BYTES = 64 << 20
_VAIN_PER_STORED_BYTE = 16
_MOST_HELD = 1_000  # rejects before the first record; what follows is told in one

_GZIP_MAGIC = b"\x1f\x8b\x08"
_GZIP_WBITS = 31
_INFLATE_ERRORS = (cast(type[Exception], igzip_lib.IsalError), zlib.error)
_CRLF2 = b"\r\n\r\n"
_LF2 = b"\n\n"
_OTHER_TYPES = frozenset(
    ["warcinfo", "response", "resource", "request", "metadata", "revisit", "continuation"]
)

_VERSION_LINE = re.compile(rb"WARC/\d+\.\d+[ \t]*\r?\n", re.IGNORECASE)
# Where a length or a member's begin says that a record begins, a field that only WARC headers have
# is enough, in the lines right below the version line.
_LIKELY_HEADER = re.compile(
    rb"WARC/\d+\.\d+[ \t]*\r?\n(?:[^\r\n]+\r?\n){0,20}?(?i:warc-[a-z-]+|content-length)[ \t]*:"
)
# Where one is searched for, a text may quote such lines: nothing but fields down to a blank line,
# and of those that every record has, the type and one more.
_WHOLE_HEADER = re.compile(
    rb"WARC/\d+\.\d+[ \t]*\r?\n((?:[!-9;-~]+[ \t]*:[^\n]*\n|[ \t]+[^\s][^\n]*\n)*)(\r?\n)?"
)
_TYPE_FIELD = re.compile(rb"(?im)^warc-type[ \t]*:")
_OTHER_FIELD = re.compile(rb"(?im)^(?:content-length|warc-record-id|warc-date)[ \t]*:")
_BLANK = re.compile(rb"[\r\n\t ]*")
_NEWLINES = re.compile(rb"[\r\n]*")
_HEADER_STOP = re.compile(rb"\n\r?\n|WARC/")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_DIGEST = re.compile(r"(?i)(sha-?1|sha-?256|md5):([0-9a-z=]+)")


class UnreadableWetError(Exception):
    """The file is empty, or something else than a WET file: no WARC record in it, or no page."""


class WetRecord(NamedTuple):
    """One page as its file holds it; header values as written, stripped, the url without ``<>``.

    ``offset`` is where the record's gzip member starts in the file as stored, ``inner_offset`` how
    many inflated bytes of that member come before the record: 0 in files of one member a record.
    In a file that is not compressed ``offset`` is the record's own place and ``inner_offset`` is 0.
    Together they name one record of a file, and grow from record to record.
    """

    offset: int
    inner_offset: int
    url: str
    timestamp: str
    content_type: str
    content_length: str
    identified_language: str
    text: str
    record_id: str = ""  # WARC-Record-ID


@dataclasses.dataclass(frozen=True, slots=True)
class Reject:
    """Bytes that did not become a page, and why.

    Offsets are those of ``WetRecord``. ``detail`` is one printable line of at most
    ``MAX_DETAIL_CHARS`` characters. ``is_record`` tells whether a record header was seen there, so
    that it counts in ``ReadStats.records``; garbage, padding and members that show no header do
    not count.
    """

    offset: int
    reason: RejectReason
    detail: str
    inner_offset: int = 0
    is_record: bool = True


@dataclasses.dataclass
class ReadStats:
    """Counts of one file, final when ``read_wet`` is exhausted or has raised.

    In the end records == WetRecords yielded + rejected_records + other_records.total().
    """

    records: int = 0  # every WARC record seen, of whatever type
    # By type; "unknown" for a type that WARC 1.1 does not name. Anything but conversion.
    other_records: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    rejected_records: int = 0  # Rejects with is_record
    rejected_pages: int = 0  # those of them whose header says conversion
    wrong_lengths: int = 0  # records with a wrong or no Content-Length whose end is sure
    bytes_read: int = 0  # stored bytes, each counted once; in the end the file's size
    sha256: str = ""  # hex, of all stored bytes; empty until the end
    tolerant: bool = False  # the careful way was needed: more than one good member a record


def read_wet(
    stream: BinaryIO,
    stats: ReadStats,
    *,
    max_record_bytes: int = MAX_RECORD_BYTES,
    max_file_bytes: int = MAX_FILE_BYTES,
    as_tf: bool = False,
) -> Iterator[WetRecord | Reject]:
    r"""Yields every page of a WET file, and a Reject for all else that should not be there.

    ``stream`` is seekable, holds the file's bytes as stored (gzip or not) and is read from its
    start. Records of other types are only counted. A page may be empty. However much a member
    inflates to, memory holds at most ``max_record_bytes`` of it, the text made of those, and some
    40 MB of buffers. Large or damaged members are inflated twice: their checksum comes last.
    Of the text of the whole file no more than ``max_file_bytes`` are read; the rest is one Reject.
    ``as_tf`` takes headers as TensorFlow Datasets does: ``<`` and ``>`` around a url (WARC 1.0 has
    them in its grammar) stay, and any text passes as a date.

    Raises UnreadableWetError if the file has no WARC record at all, after yielding nothing, or if
    none of its records is a page, in the end; ValueError if a bound is not positive; and what the
    stream itself raises.

    >>> import io
    >>> wet = (b"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://a.example/\r\n"
    ...        b"WARC-Date: 2019-04-18T10:00:00Z\r\nContent-Length: 3\r\n\r\nHi.\r\n\r\n")
    >>> [(page.url, page.text) for page in read_wet(io.BytesIO(wet), ReadStats())]
    [('http://a.example/', 'Hi.')]
    """
    if max_record_bytes < 1:
        raise ValueError(
            f"max_record_bytes must be positive, got {max_record_bytes}: give the size in bytes"
            " of the largest page to keep"
        )
    if max_file_bytes < 1:
        raise ValueError(
            f"max_file_bytes must be positive, got {max_file_bytes}: give the size in bytes of all"
            " that may be read of a file"
        )
    return _read(stream, stats, max_record_bytes, max_file_bytes, as_tf)


def _read(
    stream: BinaryIO, stats: ReadStats, max_record_bytes: int, max_file_bytes: int, as_tf: bool
) -> Iterator[WetRecord | Reject]:
    stored = _Stored(stream, stats, max_file_bytes)
    first: Reject | None = None
    held: list[Reject] = []  # until a record shows that the file is a WARC file at all
    pos = 0
    while window := stored.view(pos, _INFLATE_BYTES):
        if window[:3] == _GZIP_MAGIC and (member := _inflate_whole(stored, pos, window)):
            text, after = member
            record = _plain_record(text, pos, max_record_bytes, as_tf)
            if record is not None and len(text) <= stored.text_left:
                stored.text_left -= len(text)
                stats.records += 1
                if held:
                    yield from held
                    held.clear()
                if isinstance(record, str):
                    stats.other_records[record] += 1
                else:
                    yield record
                pos = after
                continue
        stats.tolerant = True
        run = _Run(stored, pos)
        for found in _read_run(run, stats, max_record_bytes, as_tf):
            if first is None and isinstance(found, Reject):
                first = found
            if stats.records == 0 and isinstance(found, Reject):
                _hold(held, found)
                continue
            if held:
                yield from held
                held.clear()
            yield found
        if run.over_limit:
            stored.read_rest()
            break
        if run.after <= pos:
            raise AssertionError(f"reader stands still at byte {pos}: a bug, please report it")
        pos = run.after
    stats.sha256 = stored.sha256.hexdigest()
    if stats.records == 0:
        raise UnreadableWetError(_why_unreadable(stored, held))
    yield from held
    pages = stats.records - stats.rejected_records - stats.other_records.total()
    if not pages and not stats.rejected_pages:
        raise UnreadableWetError(_why_no_page(stats, first))


def _hold(held: list[Reject], reject: Reject) -> None:
    """Appends a reject, or counts it in the last one when there are too many to keep."""
    if len(held) < _MOST_HELD:
        held.append(reject)
    elif len(held) == _MOST_HELD:
        detail = f"damage goes on from here to the first record: {reject.detail}"
        held.append(dataclasses.replace(reject, detail=_one_line(detail)))


def _why_unreadable(stored: "_Stored", held: list[Reject]) -> str:
    head = bytes(stored.view(0, SIGNATURE_BYTES))
    if not head:
        return "the file is empty (0 bytes): fetch it again"
    if head[:3] == _GZIP_MAGIC:
        inner = _first_text(stored)
        if inner[:3] == _GZIP_MAGIC:
            return "is gzip inside gzip: decompress it once"
        known = name_kind(inner)
    else:
        known = name_kind(head)
    if known:
        return known
    first = f"; {_shown(held[0])}" if held else ""
    return f"no WARC record in its {stored.bytes_read:,} bytes, is it a WET file?{first}"


def _why_no_page(stats: ReadStats, first: Reject | None) -> str:
    if not stats.other_records:
        why = f"holds {stats.records:,} broken records and no page: fetch it again"
    else:
        why = name_record_types(stats.other_records)
    return why if first is None else f"{why}; {_shown(first)}"


def _shown(reject: Reject) -> str:
    return f"at byte {reject.offset}: {reject.reason}, {reject.detail}"


def _first_text(stored: "_Stored") -> bytes:
    """The first bytes that the file's first gzip member unpacks to, as far as it can be read."""
    inflater = zlib.decompressobj(_GZIP_WBITS)
    text = b""
    try:
        for i in range(0, _INFLATE_BYTES, _TRIAL_BYTES):
            text += inflater.decompress(stored.view(i, _TRIAL_BYTES), SIGNATURE_BYTES)
            if len(text) >= SIGNATURE_BYTES or inflater.eof:
                break
    except zlib.error:
        pass
    return text


# The fast way ------------------------------------------------------------------------------------


class _Stored:
    """The stored bytes, hashed once each as they come by, with cheap steps back."""

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
        """Notes that ``size`` bytes were worked on for nothing."""
        self._vain_bytes += size

    def may_try(self) -> bool:
        """Whether work that may come to nothing is still worth it."""
        return self._vain_bytes <= _VAIN_BYTES + _VAIN_PER_STORED_BYTE * self._stats.bytes_read

    def read_rest(self) -> None:
        """Reads the file to its end, for its digest."""
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
        """Where the next three bytes that open a gzip member stand, from ``pos`` on."""
        while True:
            self.view(pos, _READ_BYTES)
            found = self._window.find(_GZIP_MAGIC, pos - self._start)
            if found >= 0:
                return self._start + found
            if self._at_end:
                return None
            pos = max(pos, self._start + len(self._window) - len(_GZIP_MAGIC) + 1)

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


def _inflate_whole(stored: _Stored, pos: int, window: memoryview) -> tuple[bytes, int] | None:
    """The text of the gzip member at ``pos`` and where it ends; None if it is damaged or large."""
    inflater = isal_zlib.decompressobj(_GZIP_WBITS)
    try:
        text = inflater.decompress(window)
        fed = pos + len(window)
        if not inflater.eof:
            parts, size = [text], len(text)
            while not inflater.eof:
                window = stored.view(fed, _INFLATE_BYTES)
                if not window or size > _WHOLE_MEMBER_BYTES:
                    return None
                parts.append(inflater.decompress(window))
                size += len(parts[-1])
                fed += len(window)
            text = b"".join(parts)
    except _INFLATE_ERRORS:
        return None
    return text, fed - len(inflater.unused_data)


def _plain_record(
    text: bytes, offset: int, max_record_bytes: int, as_tf: bool
) -> WetRecord | str | None:
    """The record that fills a member exactly, written as Common Crawl does; else None.

    Of a good record that is no page only its type is returned. None is no verdict: it sends the
    member the careful way, which must agree wherever this answers.
    """
    head_end = text.find(_CRLF2)
    body_bytes = len(text) - head_end - 8
    if (
        head_end < 0
        or head_end > MAX_HEADER_BYTES - 4
        or body_bytes < 0
        or body_bytes > max_record_bytes
        or text[-4:] != _CRLF2
        or not _VERSION_LINE.match(text)
    ):
        return None
    try:
        lines = text[:head_end].decode().split("\r\n")
        fields = dict([line.split(": ", 1) for line in lines[1:]])
        record_type = fields["WARC-Type"]
        names = "\n".join(fields).lower()
        if (
            len(set(names.split("\n"))) != len(lines) - 1  # a name twice
            or ":" in names  # a value that no blank stands before
            or " " in names
            or "\t" in names
            or ("Content-Type" not in fields and "content-type" in names)
            or ("WARC-Identified-Content-Language" not in fields and "warc-identified" in names)
            or ("WARC-Record-ID" not in fields and "warc-record-id" in names)
            or text.count(b"\n", 0, head_end) != len(lines) - 1  # a lone line feed in a value
            or b"\n " in text[:head_end]  # a folded line
            or b"\n\t" in text[:head_end]
            or fields["Content-Length"] != str(body_bytes)
        ):
            return None
        if record_type != "conversion":
            return record_type if record_type in _OTHER_TYPES else None
        url = fields["WARC-Target-URI"].strip()
        timestamp = fields["WARC-Date"].strip()
        if not as_tf:
            url = _without_brackets(url)
            if not is_date(timestamp):
                return None
        if not url or not timestamp:
            return None
        return WetRecord(
            offset,
            0,
            url,
            timestamp,
            fields.get("Content-Type", "").strip(),
            fields["Content-Length"],
            fields.get("WARC-Identified-Content-Language", "").strip(),
            text[head_end + 4 : -4].decode(),
            fields.get("WARC-Record-ID", "").strip(),
        )
    except (ValueError, KeyError):  # bytes that are not UTF-8, a line without ": ", a field absent
        return None


def _without_brackets(url: str) -> str:
    """A url without the ``<`` and ``>`` that the grammar of WARC 1.0 puts around it."""
    return url[1:-1].strip() if url[:1] == "<" and url[-1:] == ">" and len(url) > 1 else url


# The careful way ---------------------------------------------------------------------------------


class _Run:
    """Text that follows without a gap: of gzip members end to end, or stored as it is.

    A run of members ends before bytes that are no gzip member, or with what could be saved of a
    damaged one (``damage``); a stored one ends before the next gzip member. ``after`` then says
    where to go on in the file. ``buffer[at:]`` is the text not yet consumed.
    """

    def __init__(self, stored: _Stored, pos: int) -> None:
        self.buffer = bytearray()
        self.at = 0
        self.ended = False
        self.after = pos
        self.damage: RejectReason | None = None
        self.damage_told = False  # a Reject has already said so
        self.over_limit = False  # the rest of the file is not read
        self.limit_told = False  # a Reject has already said so
        self._stored = stored
        self._base = 0  # bytes of the run before buffer[0]
        self._marks: collections.deque[tuple[int, int]] = collections.deque()
        self._member_starts: set[int] = set()  # of the marks
        self._damage_start = 0
        self._between = False  # all members begun are in the buffer to their end
        head = bytes(stored.view(pos, 3))
        self.may_try, self.in_vain = stored.may_try, stored.in_vain
        self._is_gzip = _GZIP_MAGIC.startswith(head)  # may be cut to fewer than three bytes
        self._pieces = self._member_pieces() if self._is_gzip else self._stored_pieces()

    # Places

    @property
    def left(self) -> int:
        """Bytes at hand."""
        return len(self.buffer) - self.at

    def locate(self) -> tuple[int, int]:
        """(offset, inner_offset) of the next byte."""
        place = self._base + self.at
        while len(self._marks) > 1 and self._marks[1][0] <= place:
            self._member_starts.discard(self._marks.popleft()[0])
        start, offset = self._marks[0]
        return (offset, place - start) if self._is_gzip else (offset + place - start, 0)

    def may_stop(self) -> bool:
        """Whether the text at hand is all that the members begun so far hold."""
        return self._between

    def between_members(self, ahead: int) -> bool:
        """Whether a gzip member is known to end ``ahead`` bytes from here."""
        if self._between and ahead == self.left:
            return True
        place = self._base + self.at + ahead
        return self._is_gzip and place in self._member_starts

    def in_damage(self, ahead: int) -> bool:
        """Whether the next ``ahead`` bytes reach into the damaged member."""
        return self.damage is not None and self._base + self.at + ahead > self._damage_start

    def starts_damage(self) -> bool:
        """Whether the damaged member begins right here."""
        return self.damage is not None and self._base + self.at == self._damage_start

    def cut_off(self) -> bool:
        """Whether the limit of the file, and no end of its own, ended what was read last."""
        return self.over_limit and self.left == 0

    # Reading

    def fill(self, size: int) -> bool:
        """Brings ``size`` bytes to hand if the run has them."""
        while len(self.buffer) - self.at < size and not self.ended:
            if self.at > _PIECE_BYTES:
                del self.buffer[: self.at]
                self._base += self.at
                self.at = 0
            piece = next(self._pieces, None)
            if piece is None:
                self.ended = True
                continue
            left = self._stored.text_left
            if len(piece) > left:
                piece = piece[:left]
                self.ended = self.over_limit = True
                self.damage, self._damage_start = RejectReason.TOO_LARGE, self._marks[-1][0]
                self._between = False
            self._stored.text_left -= len(piece)
            self.buffer += piece
        return len(self.buffer) - self.at >= size

    def find_header(self, start: int, limit: int) -> int | None:
        """Distance to the next whole record header at ``start`` or beyond, before ``limit``."""
        while start < limit:
            # No more than needed: text of the next member would keep the fast way from resuming.
            self.fill(min(start + _PROBE_BYTES, limit + 4))
            found = self.buffer.find(b"WARC/", self.at + start, self.at + limit + 4)
            if found < 0:
                start = max(start, self.left - 4)  # of what has been searched
                if self.left >= limit + 4 or not self.fill(self.left + 1):
                    return None
                continue
            start = found - self.at
            whole, stop = self._whole_header(start)
            # Members begin with records as a rule, so there a header may break off in damage.
            if whole or (self.between_members(start) and self.header_at(start)):
                return start if start < limit else None
            start = stop
        return None

    def header_at(self, start: int) -> bool:
        """Whether a record header begins at distance ``start``, where one is expected."""
        self.fill(start + _PROBE_BYTES)  # may move the buffer, not the distance
        begin = self.at + start
        return _LIKELY_HEADER.match(self.buffer, begin, begin + _PROBE_BYTES) is not None

    def begins_whole_header(self) -> bool:
        """Whether a whole record header begins right here."""
        return self._whole_header(0)[0]

    def _whole_header(self, start: int) -> tuple[bool, int]:
        """Whether a whole record header begins at ``start``, else from where another one may.

        All that could be a header within the fields of one that is not whole breaks off where
        these do, so nothing is looked at twice.
        """
        size = _PROBE_BYTES
        while True:
            more = self.fill(start + size)  # may move the buffer, not the distance
            begin = self.at + start
            found = _WHOLE_HEADER.match(self.buffer, begin, begin + size)
            if found is None:
                return False, start + 1
            stop = found.end(1)
            cut = found.end() == stop and self.buffer.find(b"\n", stop, begin + size) < 0
            if not (cut and more and size < MAX_HEADER_BYTES):
                break
            size = MAX_HEADER_BYTES
        whole = (
            found.end() > stop
            and _TYPE_FIELD.search(self.buffer, begin, stop) is not None
            and _OTHER_FIELD.search(self.buffer, begin, stop) is not None
        )
        return whole, stop - self.at

    def find_body(self) -> tuple[int | None, int | None]:
        """Distances to what follows the first blank line and to the next whole record header.

        Only the first of the two is looked for, the other is None: to look for one after the other
        would read 64 kB for each of many short records. Both are None if too far or absent.
        """
        start = 1
        while True:
            more = self.fill(min(start + _PROBE_BYTES, MAX_HEADER_BYTES))
            stop = _HEADER_STOP.search(self.buffer, self.at + start, self.at + MAX_HEADER_BYTES)
            if stop is None:
                if not more or self.left >= MAX_HEADER_BYTES:
                    return None, None
                start = max(start, self.left - 4)
                continue
            if self.buffer[stop.start()] == ord("\n"):
                return stop.end() - self.at, None
            place = stop.start() - self.at
            whole, fields_end = self._whole_header(place)
            if whole or (self.between_members(place) and self.header_at(place)):
                return None, place
            start = max(place + 1, fields_end - 1)  # the line end before a blank line

    def skip_to_header(self, start: int) -> int:
        """Moves to the next whole header at ``start`` or beyond, else to the end; returns bytes."""
        skipped = 0
        while True:
            found = self.find_header(start, start + _PIECE_BYTES)
            step = found if found is not None else min(self.left, start + _PIECE_BYTES)
            self.at += step
            skipped += step
            start = 0
            if found is not None or not self.fill(1):
                return skipped

    # Where the text comes from

    def _stored_pieces(self) -> Iterator[bytes]:
        """Text stored as it is, up to the next gzip member (whose first bytes are not UTF-8)."""
        self._marks.append((0, self.after))
        while piece := bytes(self._stored.view(self.after, _PIECE_BYTES)):
            found = piece.find(_GZIP_MAGIC)
            while found >= 0 and not _opens_member(self._stored, self.after + found):
                found = piece.find(_GZIP_MAGIC, found + 1)
            if found >= 0:
                self.after += found
                yield piece[:found]
                return
            if len(piece) == _PIECE_BYTES:
                piece = piece[: 1 - len(_GZIP_MAGIC)]  # the magic may lie across the cut
            self.after += len(piece)
            yield piece

    def _member_pieces(self) -> Iterator[bytes]:
        while window := self._stored.view(self.after, _INFLATE_BYTES):
            if not _GZIP_MAGIC.startswith(bytes(window[:3])):
                return
            self._between = False
            if whole := _inflate_whole(self._stored, self.after, window):
                self._mark_member()
                self.after = whole[1]
                self._between = True
                yield whole[0]
                continue
            # Too large to hold, or damaged. Its checksum comes last, so it is inflated twice: what
            # is known to be damaged is judged more strictly.
            for codec in (isal_zlib, zlib):
                damage, end, inflated = _probe(codec, self._stored, self.after)
                if damage is None:
                    self._mark_member()
                    yield from _inflate_pieces(codec, self._stored, self.after)
                    self.after = end
                    break
            else:
                start = self.after
                self._stored.in_vain(end - start + inflated)
                # Members may be nested so that the same bytes spoil each of them.
                behind = _RESCAN_BYTES if self._stored.may_try() else 0
                self.after, at_end = _next_member(self._stored, max(start + 1, end - behind))
                self.damage = damage if at_end else RejectReason.CORRUPT_GZIP
                self._mark_member(start)
                self._damage_start = self._marks[-1][0]
                yield from _salvage_pieces(self._stored, start)
                return

    def _mark_member(self, offset: int | None = None) -> None:
        place = self._base + len(self.buffer)
        if self._marks and self._marks[-1][0] == place:
            self._marks.pop()  # that one was empty
        self._marks.append((place, self.after if offset is None else offset))
        self._member_starts.add(place)


def _opens_member(stored: _Stored, pos: int) -> bool:
    """Whether a gzip member that can be read begins at ``pos``, judged by its first bytes."""
    window = stored.view(pos, _TRIAL_BYTES)
    inflater = zlib.decompressobj(_GZIP_WBITS)
    text = b""
    try:
        for i in range(0, len(window), _TRIAL_STEP_BYTES):
            text += inflater.decompress(window[i : i + _TRIAL_STEP_BYTES], _TRIAL_BYTES)
            if inflater.eof or inflater.unconsumed_tail or _VERSION_LINE.match(text):
                return True
    except zlib.error:
        return False
    return len(text) >= _TRIAL_BYTES // 4  # one that goes on with a record of the member before


def _next_member(stored: _Stored, pos: int) -> tuple[int, bool]:
    """Where the next readable gzip member begins, else (the file's end, True)."""
    while (found := stored.find_gzip(pos)) is not None:
        if _opens_member(stored, found):
            return found, False
        pos = found + 1
    while window := stored.view(pos, _READ_BYTES):
        pos += len(window)
    return pos, True


def _probe(codec: Any, stored: _Stored, pos: int) -> tuple[RejectReason | None, int, int]:
    """Inflates a member and keeps nothing: (its fault or None, where that shows, bytes of text).

    What lies beyond the limit of the file is not looked at: it will not be read.
    """
    inflater = codec.decompressobj(_GZIP_WBITS)
    inflated = 0
    try:
        while not inflater.eof and inflated <= stored.text_left:
            window = inflater.unconsumed_tail
            if not window:
                window = stored.view(pos, _INFLATE_BYTES)
                pos += len(window)
                if not window:
                    return RejectReason.TRUNCATED, pos, inflated
            inflated += len(inflater.decompress(window, _PIECE_BYTES))
    except _INFLATE_ERRORS:
        return RejectReason.CORRUPT_GZIP, pos, inflated
    return None, pos - len(inflater.unused_data), inflated


def _inflate_pieces(codec: Any, stored: _Stored, pos: int) -> Iterator[bytes]:
    """The text of a member that is known to be good."""
    inflater = codec.decompressobj(_GZIP_WBITS)
    while not inflater.eof:
        window = inflater.unconsumed_tail
        if not window:
            window = stored.view(pos, _INFLATE_BYTES)
            pos += len(window)
        yield inflater.decompress(window, _PIECE_BYTES)


def _salvage_pieces(stored: _Stored, pos: int) -> Iterator[bytes]:
    """All text of a member before its first error; zlib's word is final."""
    inflater = zlib.decompressobj(_GZIP_WBITS)
    while not inflater.eof and (window := stored.view(pos, _INFLATE_BYTES)):
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Header:
    """A record header read leniently; names lower-cased, the first of equal names wins."""

    fields: dict[bytes, bytes]
    bad_line: bytes | None  # the first line that is no field

    def text(self, name: bytes) -> str:
        """The value, stripped; raises UnicodeDecodeError if it is not UTF-8."""
        return self.fields.get(name, b"").decode().strip()

    def length(self) -> int | None:
        """The value of Content-Length if it is a plain number."""
        value = self.fields.get(b"content-length", b"").strip()
        # Longer numbers are no length, and Python refuses to convert very long ones.
        return int(value) if value.isdigit() and len(value) < 20 else None


def _parse_header(block: bytes) -> _Header:
    """Reads the lines below the version line; folded lines are joined by one space."""
    fields: dict[bytes, list[bytes]] = {}
    bad_line = None
    current: list[bytes] = []
    for line in re.split(rb"\r?\n", block)[1:]:
        if line[:1] in (b" ", b"\t") and current:
            current.append(line.strip())
        elif field := _FIELD.fullmatch(line):
            current = [field[2].strip()]
            fields.setdefault(field[1].lower(), current)
        elif line and bad_line is None:
            bad_line = line
    return _Header({name: b" ".join(parts) for name, parts in fields.items()}, bad_line)


_OVER_LIMIT = "the file unpacks to more than may be read of it: its rest is left (--max-file-mb)"


def _read_run(
    run: _Run, stats: ReadStats, max_record_bytes: int, as_tf: bool
) -> Iterator[WetRecord | Reject]:
    """Everything in a run, or up to where the fast way can take over again."""
    begun = False
    while run.fill(1):
        blank = _BLANK.match(run.buffer, run.at)
        run.at = blank.end() if blank else run.at
        if run.left == 0:
            if begun and run.may_stop():
                return
            continue
        begun = True
        run.fill(_VERSION_LINE_BYTES)
        if _VERSION_LINE.match(run.buffer, run.at, run.at + _VERSION_LINE_BYTES) and (
            # In damage any line may come to stand here; at its begin the record is cut off at most.
            run.over_limit
            or not run.in_damage(1)
            or run.starts_damage()
            or run.begins_whole_header()
        ):
            stats.records += 1
            found = _read_record(run, stats, max_record_bytes, as_tf)
            if isinstance(found, Reject):
                stats.rejected_records += 1
        else:
            found = _skip_garbage(run)
        if isinstance(found, Reject) and found.reason is RejectReason.TOO_LARGE and run.cut_off():
            run.limit_told = True  # here, where it cut a record, and not once more for the rest
            found = dataclasses.replace(found, detail=_one_line(f"{_OVER_LIMIT}: {found.detail}"))
        if found is not None:
            yield found
        if run.left == 0 and run.may_stop():
            return
    if run.over_limit:
        if not run.limit_told:
            offset, inner_offset = run.locate()
            yield Reject(offset, RejectReason.TOO_LARGE, _OVER_LIMIT, inner_offset, is_record=False)
    elif run.damage is not None and not run.damage_told:
        offset, inner_offset = run.locate()
        detail = f"gzip member damaged after {inner_offset:,} bytes of text"
        yield Reject(offset, run.damage, detail, inner_offset, is_record=False)


def _skip_garbage(run: _Run) -> Reject:
    offset, inner_offset = run.locate()
    sample = bytes(run.buffer[run.at : run.at + 60])
    shown = ascii(sample)[1:] if sample.strip(b"\0") else "zero bytes"
    size = run.skip_to_header(1)
    reason = RejectReason.NOT_WARC
    if run.left == 0 and run.ended and run.damage is not None and run.in_damage(0):
        reason, run.damage_told = run.damage, True
    detail = _one_line(f"{size:,} bytes outside records: {shown}")
    return Reject(offset, reason, detail, inner_offset, is_record=False)


def _read_record(
    run: _Run, stats: ReadStats, max_record_bytes: int, as_tf: bool
) -> WetRecord | Reject | None:
    """The record that begins right here, consumed; None if it is good but no page."""
    offset, inner_offset = run.locate()
    # A header that breaks off must not take the next record's header for its own last lines.
    body, next_header = run.find_body()
    head_stop = body or next_header or min(run.left, MAX_HEADER_BYTES)
    head = bytes(run.buffer[run.at : run.at + head_stop])
    header = _parse_header(head)
    label = _label(header)
    record_type = header.fields.get(b"warc-type", b"").lower()

    def reject(reason: RejectReason, detail: str = label) -> Reject:
        stats.rejected_pages += record_type == b"conversion"
        return Reject(offset, reason, _one_line(detail), inner_offset)

    if next_header is not None:
        run.at += next_header
        return reject(RejectReason.BAD_HEADER, f"header breaks off: {label}")
    if body is None:
        if head_stop == MAX_HEADER_BYTES:
            run.skip_to_header(1)
            return reject(
                RejectReason.BAD_HEADER, f"header of more than {MAX_HEADER_BYTES} bytes: {label}"
            )
        run.at += run.left
        run.damage_told = run.damage is not None
        return reject(run.damage or RejectReason.TRUNCATED, f"cut in its header: {label}")

    extent = _extent(run, header, body, max_record_bytes)
    if isinstance(extent, RejectReason):
        detail = label
        if extent is RejectReason.TOO_LARGE:
            if run.fill(body + max_record_bytes + 1):
                detail = f"more than {max_record_bytes} bytes: {label}"
            run.skip_to_header(body)
        else:
            run.damage_told = extent is run.damage
            run.at += run.left
        return reject(extent, detail)
    damage = _damage_within(run, header, body, extent.end)
    payload: str | None
    with memoryview(run.buffer) as view:
        begin = run.at
        try:
            payload = str(view[begin + body : begin + extent.end], "utf-8")
        except UnicodeDecodeError:
            payload = None
    run.at += extent.end
    if damage is not None:
        run.damage_told = True
        return reject(damage, f"in a damaged gzip member: {label}")
    if header.bad_line is not None and not extent.as_declared:
        return reject(RejectReason.BAD_HEADER, f"{ascii(header.bad_line)[1:]} in header: {label}")
    if not record_type:
        return reject(RejectReason.BAD_HEADER, f"no WARC-Type: {label}")
    stats.wrong_lengths += not extent.as_declared
    if record_type != b"conversion":
        name = record_type.decode("ascii", "replace")
        stats.other_records[name if name in _OTHER_TYPES else "unknown"] += 1
        return None
    try:
        url = header.text(b"warc-target-uri")
        record = WetRecord(
            offset,
            inner_offset,
            url if as_tf else _without_brackets(url),
            header.text(b"warc-date"),
            header.text(b"content-type"),
            header.text(b"content-length"),
            header.text(b"warc-identified-content-language"),
            payload or "",
            header.text(b"warc-record-id"),
        )
    except UnicodeDecodeError:
        return reject(RejectReason.NOT_UTF8, f"header: {label}")
    if not record.url:
        return reject(RejectReason.NO_URL)
    if not record.timestamp:
        return reject(RejectReason.NO_DATE)
    if not as_tf and not is_date(record.timestamp):
        shown = record.timestamp[:MAX_DETAIL_CHARS]
        return reject(RejectReason.NO_DATE, f"{shown!a} is not a date: {label}")
    if payload is None:
        return reject(RejectReason.NOT_UTF8)
    return record


class _Extent(NamedTuple):
    end: int  # distance from the record's begin to the end of its payload
    as_declared: bool  # Content-Length says the same


def _extent(run: _Run, header: _Header, body: int, max_record_bytes: int) -> _Extent | RejectReason:
    """Where the payload that begins at distance ``body`` ends, or why that cannot be known."""
    length = header.length()
    if length is not None and length <= max_record_bytes:
        end = body + length
        if run.fill(end + 4) and _at(run, end, 4) == _CRLF2 and run.between_members(end + 4):
            return _Extent(end, True)
        run.fill(end + _PROBE_BYTES)
        if run.left >= end:
            blank = _NEWLINES.match(run.buffer, run.at + end, run.at + end + _PROBE_BYTES)
            stop = blank.end() - run.at if blank else end
            if stop == run.left or run.header_at(stop):
                return _settle_newlines(run, body, end, stop)
            if _digest_agrees(run, header, body, end):
                return _Extent(end, True)
            near = run.find_header(end, end + 8)
            if near is not None and _without_closing_lines(run, end, near) == near:
                gap = _at(run, end, near - end)
                if gap.count(b"\r") + gap.count(b"\n") >= 2:
                    return _Extent(end, True)  # only the closing lines are broken
            lf_header = _at(run, body - 2, 2) == _LF2
            if _at(run, end, 4) == _CRLF2 and not lf_header:
                # Closed as it should be, unless this is a blank line of a text whose line ends were
                # rewritten: that has grown by exactly as many bytes as it has lines.
                found = run.find_header(end, body + max_record_bytes + 5)
                other = _without_closing_lines(run, body, run.left if found is None else found)
                grown = run.buffer.count(b"\r\n", run.at + body, run.at + other)
                return _Extent(other, False) if grown == other - end else _Extent(end, True)
            if _at(run, end, 2) == _LF2 and lf_header and run.find_header(body, end) is None:
                return _Extent(end, True)

    found = run.find_header(body, body + max_record_bytes + 5)
    stop = run.left if found is None else found
    end = _without_closing_lines(run, body, stop)
    if end - body > max_record_bytes:
        return RejectReason.TOO_LARGE
    if found is not None:
        return _Extent(end, length == end - body)
    # The text ends first, and only the record itself can tell whether it is whole.
    if run.in_damage(run.left):
        assert run.damage is not None
        return run.damage
    missing = 0 if length is None else length - (end - body)
    if _digest_agrees(run, header, body, end):
        return _Extent(end, missing == 0)
    if end < stop and (
        # Where lines end in CR LF the blank lines of a text do not look like a record's end; else
        # the length must differ by no more than the carriage returns that the text has lost.
        _at(run, stop - 4, 4) == _CRLF2
        or missing <= run.buffer.count(b"\n", run.at + body, run.at + end)
    ):
        return _Extent(end, False)
    return (run.damage or RejectReason.TRUNCATED) if missing > 0 else RejectReason.BAD_LENGTH


def _at(run: _Run, start: int, size: int) -> bytes:
    return bytes(run.buffer[run.at + start : run.at + start + size])


def _settle_newlines(run: _Run, body: int, end: int, stop: int) -> _Extent:
    """Chooses among the line ends before ``stop``, where the next record or nothing follows.

    ``end`` is where Content-Length points. When line ends were rewritten it may, by a text's last
    blank lines, point a few bytes off and still land before the next record.
    """
    if _at(run, end, stop - end) in (_CRLF2, _LF2):
        return _Extent(end, True)
    other = max(body, _without_closing_lines(run, body, stop))
    begin, close = run.at + body, run.at + other
    if other > end and run.buffer.count(b"\r\n", begin, close) == other - end:
        return _Extent(other, False)  # LF became CR LF: as many bytes more as lines
    lf_header = _at(run, body - 2, 2) == _LF2
    if other < end and lf_header and end - other <= run.buffer.count(b"\n", begin, close):
        return _Extent(other, False)  # CR LF became LF
    return _Extent(end, True)


def _without_closing_lines(run: _Run, body: int, stop: int) -> int:
    """``stop`` less the two line ends that close a record, where they are there."""
    if stop - body >= 4 and _at(run, stop - 4, 4) == _CRLF2:
        return stop - 4
    if stop - body >= 2 and _at(run, stop - 2, 2) == _LF2:
        return stop - 2
    return stop


def _digest_agrees(run: _Run, header: _Header, body: int, end: int) -> bool | None:
    """Whether WARC-Block-Digest is that of the payload; None if there is none to compare."""
    value = header.fields.get(b"warc-block-digest", b"").decode("ascii", "replace").strip()
    parts = _DIGEST.fullmatch(value)
    if not parts:
        return None
    if not run.may_try():
        return None
    digest = hashlib.new(parts[1].replace("-", ""), usedforsecurity=False)
    with memoryview(run.buffer) as view:
        digest.update(view[run.at + body : run.at + end])
    in_base32 = base64.b32encode(digest.digest()).decode().rstrip("=")
    agrees = parts[2].upper().rstrip("=") in (in_base32, digest.hexdigest().upper())
    if not agrees:
        run.in_vain(end - body)
    return agrees


def _damage_within(run: _Run, header: _Header, body: int, end: int) -> RejectReason | None:
    """Whether damage to the record's gzip member must be taken to have hit this whole record.

    The checksum of a member of several records does not tell which of them is broken; a block
    digest does, of the payload. Without one, a record is lost if it is all that the member holds.
    """
    if run.damage is None or not run.in_damage(end):
        return None
    agrees = _digest_agrees(run, header, body, end)
    alone = run.starts_damage() and not _more_than_blank(run, end)
    if run.damage in (RejectReason.TRUNCATED, RejectReason.TOO_LARGE):
        # Text is whole up to the cut, unless the cut only seems one.
        return run.damage if alone and agrees is False else None
    return run.damage if alone or agrees is False else None


def _more_than_blank(run: _Run, start: int) -> bool:
    run.fill(start + _PROBE_BYTES)
    blank = _BLANK.match(run.buffer, run.at + start)
    return blank is not None and blank.end() < len(run.buffer)


def _label(header: _Header) -> str:
    """What names a record to a person: its url, else its first header line."""
    for name in (b"warc-target-uri", b"warc-record-id"):
        if value := header.fields.get(name):
            return value[: 2 * MAX_DETAIL_CHARS].decode("utf-8", "backslashreplace")
    for name, value in header.fields.items():
        return (name + b": " + value)[: 2 * MAX_DETAIL_CHARS].decode("utf-8", "backslashreplace")
    return "record without header fields"


def _one_line(text: str) -> str:
    """Printable, and no longer than ``MAX_DETAIL_CHARS`` characters."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return shown if len(shown) <= MAX_DETAIL_CHARS else shown[: MAX_DETAIL_CHARS - 1] + "…"
