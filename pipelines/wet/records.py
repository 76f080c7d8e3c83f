"""WET file -> records: one fast pass over good files; of bad ones only the damaged parts are lost.

Common Crawl stores one WARC record in one gzip member. Such a member is inflated in one go and its
few header lines are split: this fast path handles nearly every record. Whatever does not look
exactly like that (several records in a member, stored text, other line ends, a wrong
``Content-Length``, damage) takes the tolerant path, which reads from that member on until a member
ends where a record ends. Both work on the bytes of one file; this module imports no Beam, and the
caller opens the stream.

Layout of records: WARC 1.0 (ISO 28500:2009) and 1.1, section 4.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import BinaryIO

from c4_filters.dates import is_date
from c4_filters.verdicts import RejectReason
from pipelines.printing import counted
from pipelines.wet.extents import BLANK, CRLF2, damage_within, find_extent, label_of, parse_header
from pipelines.wet.file_kinds import SIGNATURE_BYTES, name_kind, name_record_types
from pipelines.wet.members import (
    GZIP_MAGIC,
    INFLATE_BYTES,
    VERSION_LINE,
    Stored,
    first_text,
    inflate_whole,
)
from pipelines.wet.results import (
    MAX_DETAIL_CHARS,
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    MAX_RECORD_BYTES,
    ReadStats,
    Reject,
    UnreadableWetError,
    WetRecord,
    short_line,
)
from pipelines.wet.runs import Run

_VERSION_LINE_BYTES = 64  # of the longest version line
_MOST_HELD = 1_000  # rejects before the first record; the rest is one reject
_OTHER_TYPES = frozenset(
    ["warcinfo", "response", "resource", "request", "metadata", "revisit", "continuation"]
)
_OPTIONAL_FIELDS = ("Content-Type", "WARC-Identified-Content-Language", "WARC-Record-ID")


def read_wet(
    stream: BinaryIO,
    stats: ReadStats,
    *,
    max_record_bytes: int = MAX_RECORD_BYTES,
    max_file_bytes: int = MAX_FILE_BYTES,
    as_tf: bool = False,
) -> Iterator[WetRecord | Reject]:
    r"""Yield every page of a WET file, and a Reject for everything else that should not be there.

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
    stored = Stored(stream, stats, max_file_bytes)
    first: Reject | None = None
    held: list[Reject] = []  # until a record shows that the file is a WARC file at all
    pos = 0
    while window := stored.view(pos, INFLATE_BYTES):
        if window[:3] == GZIP_MAGIC and (member := inflate_whole(stored, pos, window)):
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
        run = Run(stored, pos)
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
            raise AssertionError(
                f"the reader makes no progress at byte {pos}: a bug, please report it"
            )
        pos = run.after
    stats.sha256 = stored.sha256.hexdigest()
    if stats.records == 0:
        raise UnreadableWetError(_why_unreadable(stored, held))
    yield from held
    pages = stats.records - stats.rejected_records - stats.other_records.total()
    if not pages and not stats.rejected_pages:
        raise UnreadableWetError(_why_no_page(stats, first))


def _hold(held: list[Reject], reject: Reject) -> None:
    """Append a reject, or count it in the last one when there are too many to keep."""
    if len(held) < _MOST_HELD:
        held.append(reject)
    elif len(held) == _MOST_HELD:
        detail = f"damage continues from here to the first record: {reject.detail}"
        held.append(dataclasses.replace(reject, detail=short_line(detail)))


def _why_unreadable(stored: "Stored", held: list[Reject]) -> str:
    head = bytes(stored.view(0, SIGNATURE_BYTES))
    if not head:
        return "the file is empty (0 bytes): fetch it again"
    if head[:3] == GZIP_MAGIC:
        inner = first_text(stored)
        if inner[:3] == GZIP_MAGIC:
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
        why = f"holds {counted(stats.records, 'broken record')} and no page: fetch it again"
    else:
        why = name_record_types(stats.other_records)
    return why if first is None else f"{why}; {_shown(first)}"


def _shown(reject: Reject) -> str:
    return f"at byte {reject.offset}: {reject.reason}, {reject.detail}"


def _plain_record(
    text: bytes, offset: int, max_record_bytes: int, as_tf: bool
) -> WetRecord | str | None:
    """Return the record that fills a member exactly, written as Common Crawl does; else None.

    Of a good record of another type only the type is returned. None sends the member to the
    tolerant path, which must agree wherever this function returns a record.
    """
    head_end = text.find(CRLF2)
    body_bytes = len(text) - head_end - 8
    if (
        head_end < 0
        or head_end > MAX_HEADER_BYTES - 4
        or body_bytes < 0
        or body_bytes > max_record_bytes
        or text[-4:] != CRLF2
        or not VERSION_LINE.match(text)
    ):
        return None
    try:
        lines = text[:head_end].decode().split("\r\n")
        fields = dict([line.split(": ", 1) for line in lines[1:]])
        record_type = fields["WARC-Type"]
        if (
            len(fields) != len(lines) - 1  # a name twice
            or not _are_plain(tuple(fields))
            or text.count(b"\n", 0, head_end) != len(lines) - 1  # a lone line feed in a value
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


@functools.lru_cache(maxsize=64)
def _are_plain(names: tuple[str, ...]) -> bool:
    """Return whether the names of a record's fields are as Common Crawl writes them.

    Nearly all records of a file have the same.
    """
    lowered = [name.lower() for name in names]
    return (
        len(set(lowered)) == len(names)
        and not any(mark in name for name in names for mark in ": \t")  # " ": of a folded line, too
        and all(name in names or name.lower() not in lowered for name in _OPTIONAL_FIELDS)
    )


def _without_brackets(url: str) -> str:
    """Return a url without the ``<`` and ``>`` that the grammar of WARC 1.0 puts around it."""
    return url[1:-1].strip() if url[:1] == "<" and url[-1:] == ">" and len(url) > 1 else url


_OVER_LIMIT = "the file unpacks to more than may be read of it: its rest is skipped (--max-file-mb)"


def _read_run(
    run: Run, stats: ReadStats, max_record_bytes: int, as_tf: bool
) -> Iterator[WetRecord | Reject]:
    """Yield everything in a run, or up to where the fast path can take over again."""
    begun = False
    while run.fill(1):
        blank = BLANK.match(run.buffer, run.at)
        run.at = blank.end() if blank else run.at
        if run.left == 0:
            if begun and run.may_stop():
                return
            continue
        begun = True
        run.fill(_VERSION_LINE_BYTES)
        if VERSION_LINE.match(run.buffer, run.at, run.at + _VERSION_LINE_BYTES) and (
            # Damaged text may hold any line; where it starts, the record is at most cut off.
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
            run.limit_reported = True  # reported here, with the record, and not again for the rest
            found = dataclasses.replace(found, detail=short_line(f"{_OVER_LIMIT}: {found.detail}"))
        if found is not None:
            yield found
        if run.left == 0 and run.may_stop():
            return
    if run.over_limit:
        if not run.limit_reported:
            offset, inner_offset = run.locate()
            yield Reject(offset, RejectReason.TOO_LARGE, _OVER_LIMIT, inner_offset, is_record=False)
    elif run.damage is not None and not run.damage_reported:
        offset, inner_offset = run.locate()
        detail = f"gzip member damaged after {inner_offset:,} bytes of text"
        yield Reject(offset, run.damage, detail, inner_offset, is_record=False)


def _skip_garbage(run: Run) -> Reject:
    offset, inner_offset = run.locate()
    sample = bytes(run.buffer[run.at : run.at + 60])
    shown = ascii(sample)[1:] if sample.strip(b"\0") else "zero bytes"
    size = run.skip_to_header(1)
    reason = RejectReason.NOT_WARC
    if run.left == 0 and run.ended and run.damage is not None and run.in_damage(0):
        reason, run.damage_reported = run.damage, True
    detail = short_line(f"{size:,} bytes outside records: {shown}")
    return Reject(offset, reason, detail, inner_offset, is_record=False)


def _read_record(
    run: Run, stats: ReadStats, max_record_bytes: int, as_tf: bool
) -> WetRecord | Reject | None:
    """Return the record that begins here, consumed; None if it is good but of another type."""
    offset, inner_offset = run.locate()
    # A cut header must not take the next record's header for its own last lines.
    body, next_header = run.find_body()
    head_stop = body or next_header or min(run.left, MAX_HEADER_BYTES)
    head = bytes(run.buffer[run.at : run.at + head_stop])
    header = parse_header(head)
    label = label_of(header)
    record_type = header.fields.get(b"warc-type", b"").lower()

    def reject(reason: RejectReason, detail: str = label) -> Reject:
        stats.rejected_pages += record_type == b"conversion"
        return Reject(offset, reason, short_line(detail), inner_offset)

    if next_header is not None:
        run.at += next_header
        return reject(RejectReason.BAD_HEADER, f"header is cut: {label}")
    if body is None:
        if head_stop == MAX_HEADER_BYTES:
            run.skip_to_header(1)
            return reject(
                RejectReason.BAD_HEADER, f"header of more than {MAX_HEADER_BYTES} bytes: {label}"
            )
        run.at += run.left
        run.damage_reported = run.damage is not None
        return reject(run.damage or RejectReason.TRUNCATED, f"cut in its header: {label}")

    extent = find_extent(run, header, body, max_record_bytes)
    if isinstance(extent, RejectReason):
        detail = label
        if extent is RejectReason.TOO_LARGE:
            if run.fill(body + max_record_bytes + 1):
                detail = f"more than {max_record_bytes} bytes: {label}"
            run.skip_to_header(body)
        else:
            run.damage_reported = extent is run.damage
            run.at += run.left
        return reject(extent, detail)
    damage = damage_within(run, header, body, extent.end)
    payload: str | None
    with memoryview(run.buffer) as view:
        begin = run.at
        try:
            payload = str(view[begin + body : begin + extent.end], "utf-8")
        except UnicodeDecodeError:
            payload = None
    run.at += extent.end
    if damage is not None:
        run.damage_reported = True
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
