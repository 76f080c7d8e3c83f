"""Find where a record of a run ends, by its header and its neighbours.

How far a record reaches, in this order:

1. ``Content-Length`` bytes, if a record header or the end of the text follows, if the block digest
   agrees, or if the blank lines that end a record follow and only then something else; except if
   line ends were rewritten, so that the length is off by the number of lines;
2. otherwise up to the next record header, less the blank lines that end a record;
3. otherwise, at the end of the text, up to that end if it closes like a record.

A text that quotes a whole record header therefore splits a page only if its length is wrong too.
"""

import base64
import dataclasses
import hashlib
import re
from typing import NamedTuple

from c4_filters.verdicts import RejectReason
from pipelines.wet.results import MAX_DETAIL_CHARS
from pipelines.wet.runs import PROBE_BYTES, Run

CRLF2 = b"\r\n\r\n"
_LF2 = b"\n\n"
BLANK = re.compile(rb"[\r\n\t ]*")
_NEWLINES = re.compile(rb"[\r\n]*")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_DIGEST = re.compile(r"(?i)(sha-?1|sha-?256|md5):([0-9a-z=]+)")


@dataclasses.dataclass(frozen=True, slots=True)
class _Header:
    """A record header read leniently; names lower-cased, the first of equal names wins."""

    fields: dict[bytes, bytes]
    bad_line: bytes | None  # the first line that is not a field

    def text(self, name: bytes) -> str:
        """Return the value, stripped; raises UnicodeDecodeError if it is not UTF-8."""
        return self.fields.get(name, b"").decode().strip()

    def length(self) -> int | None:
        """Return the value of Content-Length if it is a plain number."""
        value = self.fields.get(b"content-length", b"").strip()
        # No record is longer, and Python refuses to convert very long numbers.
        return int(value) if value.isdigit() and len(value) < 20 else None


def parse_header(block: bytes) -> _Header:
    """Read the lines below the version line; folded lines are joined by one space."""
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


class _Extent(NamedTuple):
    end: int  # distance from the record's begin to the end of its payload
    as_declared: bool  # Content-Length says the same


def find_extent(
    run: Run, header: _Header, body: int, max_record_bytes: int
) -> _Extent | RejectReason:
    """Where the payload that begins at distance ``body`` ends, or why that cannot be known."""
    length = header.length()
    if length is not None and length <= max_record_bytes:
        end = body + length
        if run.fill(end + 4) and _at(run, end, 4) == CRLF2 and run.between_members(end + 4):
            return _Extent(end, True)
        run.fill(end + PROBE_BYTES)
        if run.left >= end:
            blank = _NEWLINES.match(run.buffer, run.at + end, run.at + end + PROBE_BYTES)
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
            if _at(run, end, 4) == CRLF2 and not lf_header:
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
    # The text ends here; only the record itself can show whether it is complete.
    if run.in_damage(run.left):
        assert run.damage is not None
        return run.damage
    missing = 0 if length is None else length - (end - body)
    if _digest_agrees(run, header, body, end):
        return _Extent(end, missing == 0)
    if end < stop and (
        # Where lines end in CR LF the blank lines of a text do not look like a record's end; else
        # the length must differ by no more than the carriage returns that the text has lost.
        _at(run, stop - 4, 4) == CRLF2
        or missing <= run.buffer.count(b"\n", run.at + body, run.at + end)
    ):
        return _Extent(end, False)
    return (run.damage or RejectReason.TRUNCATED) if missing > 0 else RejectReason.BAD_LENGTH


def _at(run: Run, start: int, size: int) -> bytes:
    return bytes(run.buffer[run.at + start : run.at + start + size])


def _settle_newlines(run: Run, body: int, end: int, stop: int) -> _Extent:
    """Choose among the line ends before ``stop``, where the next record or nothing follows.

    ``end`` is where Content-Length points. When line ends were rewritten it may, by a text's last
    blank lines, point a few bytes off and still land before the next record.
    """
    if _at(run, end, stop - end) in (CRLF2, _LF2):
        return _Extent(end, True)
    other = max(body, _without_closing_lines(run, body, stop))
    begin, close = run.at + body, run.at + other
    if other > end and run.buffer.count(b"\r\n", begin, close) == other - end:
        return _Extent(other, False)  # LF became CR LF: as many bytes more as lines
    lf_header = _at(run, body - 2, 2) == _LF2
    if other < end and lf_header and end - other <= run.buffer.count(b"\n", begin, close):
        return _Extent(other, False)  # CR LF became LF
    return _Extent(end, True)


def _without_closing_lines(run: Run, body: int, stop: int) -> int:
    """``stop`` less the two line ends that close a record, where they are there."""
    if stop - body >= 4 and _at(run, stop - 4, 4) == CRLF2:
        return stop - 4
    if stop - body >= 2 and _at(run, stop - 2, 2) == _LF2:
        return stop - 2
    return stop


def _digest_agrees(run: Run, header: _Header, body: int, end: int) -> bool | None:
    """Whether WARC-Block-Digest matches the payload; None if it cannot be compared."""
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


def damage_within(run: Run, header: _Header, body: int, end: int) -> RejectReason | None:
    """Whether damage to the record's gzip member must be taken to have hit this whole record.

    The checksum of a member of several records does not show which of them is damaged; the block
    digest of a payload does. Without one, a record is lost if it is all that the member holds.
    """
    if run.damage is None or not run.in_damage(end):
        return None
    agrees = _digest_agrees(run, header, body, end)
    alone = run.starts_damage() and not _more_than_blank(run, end)
    if run.damage in (RejectReason.TRUNCATED, RejectReason.TOO_LARGE):
        # Text is whole up to the cut, unless the cut only seems one.
        return run.damage if alone and agrees is False else None
    return run.damage if alone or agrees is False else None


def _more_than_blank(run: Run, start: int) -> bool:
    run.fill(start + PROBE_BYTES)
    blank = BLANK.match(run.buffer, run.at + start)
    return blank is not None and blank.end() < len(run.buffer)


def label_of(header: _Header) -> str:
    """Return what names a record to a person: its url, else its first header line."""
    for name in (b"warc-target-uri", b"warc-record-id"):
        if value := header.fields.get(name):
            return value[: 2 * MAX_DETAIL_CHARS].decode("utf-8", "backslashreplace")
    for name, value in header.fields.items():
        return (name + b": " + value)[: 2 * MAX_DETAIL_CHARS].decode("utf-8", "backslashreplace")
    return "record without header fields"
