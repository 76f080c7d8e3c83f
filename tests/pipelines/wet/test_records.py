import base64
import dataclasses
import gzip
import hashlib
import io
import pathlib
import random
import time
import tracemalloc
import zlib

import pytest
from fastwarc.warc import ArchiveIterator as FastwarcIterator
from fastwarc.warc import WarcRecordType
from hypothesis import example, given, settings
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator as WarcioIterator

from c4_filters.verdicts import RejectReason as Reason
from pipelines.wet import results
from pipelines.wet.members import INFLATE_BYTES, PIECE_BYTES
from pipelines.wet.records import read_wet
from pipelines.wet.results import ReadStats, Reject, UnreadableWetError, WetRecord

SHARED_WET = pathlib.Path(__file__).resolve().parents[3] / ".." / "shared" / "wet"
SEED = 20190418


# Building files ----------------------------------------------------------------------------------


def warc(
    text: str | bytes,
    number: int = 1,
    *,
    kind: str = "conversion",
    length: object = True,
    digest: bool = False,
    newline: bytes = b"\r\n",
    extra: bytes = b"",
    version: bytes = b"WARC/1.0",
    url: str | None = None,
    date: str | None = "2019-04-18T10:00:00Z",
    close: bytes | None = None,
) -> bytes:
    """One record; ``length`` is True for the right one, None for no such line, else what to say."""
    body = text.encode() if isinstance(text, str) else text
    lines = [version, b"WARC-Type: " + kind.encode()]
    if url != "":
        lines.append(b"WARC-Target-URI: " + (url or f"http://site.example/{number}").encode())
    if date:
        lines.append(b"WARC-Date: " + date.encode())
    if extra:
        lines.append(extra)
    if digest:
        value = base64.b32encode(hashlib.sha1(body).digest())
        lines.append(b"WARC-Block-Digest: sha1:" + value)
    lines.append(b"Content-Type: text/plain")
    if length is not None:
        shown = len(body) if length is True else length
        lines.append(b"Content-Length: " + str(shown).encode())
    head = newline.join(lines) + newline * 2
    return head + body + (newline * 2 if close is None else close)


INFO = warc("isPartOf: nothing\r\n", kind="warcinfo", url="")


def pages(count: int, **options: object) -> list[bytes]:
    return [warc(f"Page {i}.\nIts second line.\n", i, **options) for i in range(1, count + 1)]


def member(record: bytes, level: int = 6) -> bytes:
    return gzip.compress(record, level, mtime=0)


def members(records: list[bytes]) -> bytes:
    return b"".join(map(member, records))


def read(stored: bytes, **options: int) -> tuple[list[WetRecord], list[Reject], ReadStats]:
    """Reads a file, checking what must hold for every file."""
    stats = ReadStats()
    found = list(read_wet(io.BytesIO(stored), stats, **options))
    records = [item for item in found if isinstance(item, WetRecord)]
    rejects = [item for item in found if isinstance(item, Reject)]
    assert stats.bytes_read == len(stored)
    assert stats.sha256 == hashlib.sha256(stored).hexdigest()
    assert stats.rejected_records == sum(reject.is_record for reject in rejects)
    assert stats.records == len(records) + stats.rejected_records + stats.other_records.total()
    assert all(0 <= item.offset <= len(stored) for item in found)
    places = [(item.offset, item.inner_offset) for item in found]
    assert places == sorted(places)
    for reject in rejects:
        assert reject.detail.isprintable()
        assert 0 < len(reject.detail) <= results.MAX_DETAIL_CHARS
    return records, rejects, stats


def numbers(records: list[WetRecord]) -> list[int]:
    return [int(record.url.rsplit("/", 1)[1]) for record in records]


def text_of(number: int) -> str:
    return f"Page {number}.\nIts second line.\n"


# Good files --------------------------------------------------------------------------------------


def test_fields_are_as_written_and_stripped():
    record = warc(
        "Grüße.\n",
        url=" http://site.example/a b ",
        date="2019-04-18T10:00:00Z  ",
        extra=b"WARC-Identified-Content-Language: deu,eng ",
    )
    stored = member(INFO) + member(record)
    (page,), rejects, stats = read(stored)
    assert page == WetRecord(
        offset=len(member(INFO)),
        inner_offset=0,
        url="http://site.example/a b",
        timestamp="2019-04-18T10:00:00Z",
        content_type="text/plain",
        content_length="9",
        identified_language="deu,eng",
        text="Grüße.\n",
    )
    assert rejects == []
    assert (stats.records, stats.other_records, stats.tolerant) == (2, {"warcinfo": 1}, False)


@pytest.mark.parametrize("text", ["", "\n", "a", "\r\n\r\n", "Ж" * 70_000, "\ufeffa\0b\u2028c\r"])
def test_payload_is_kept_exactly(text: str):
    for stored in (members([warc(text), warc("x", 2)]), warc(text) + warc("x", 2)):
        found, rejects, _ = read(stored)
        assert ([page.text for page in found], rejects) == ([text, "x"], [])


LAYOUTS = {
    "one member a record": members,
    "one member in all": lambda records: member(b"".join(records)),
    "stored": b"".join,
    "stored blocks": lambda records: member(b"".join(records), 0),
    "cut into members anywhere": lambda records: b"".join(
        member(b"".join(records)[i : i + 97]) for i in range(0, len(b"".join(records)), 97)
    ),
    "empty members between": lambda records: b"".join(
        member(b"") + member(record) for record in records
    ),
    "two records a member": lambda records: b"".join(
        member(b"".join(records[i : i + 2])) for i in range(0, len(records), 2)
    ),
    "named members": lambda records: b"".join(
        member(record)[:3] + b"\x08" + member(record)[4:10] + b"x.wet\0" + member(record)[10:]
        for record in records
    ),
    "stored, then members": lambda records: b"".join(records[:3]) + members(records[3:]),
    "members, then stored": lambda records: members(records[:3]) + b"".join(records[3:]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_layout_does_not_matter(layout: str, newline: bytes):
    found, rejects, stats = read(LAYOUTS[layout]([INFO, *pages(7, newline=newline)]))
    assert rejects == []
    assert [page.text for page in found] == [text_of(i) for i in range(1, 8)]
    assert numbers(found) == list(range(1, 8))
    assert (stats.records, stats.other_records.total(), stats.wrong_lengths) == (8, 1, 0)
    plain = layout in ("one member a record", "named members") and newline == b"\r\n"
    assert stats.tolerant is not plain


def test_offsets_name_the_record():
    records = [INFO, *pages(5)]
    starts = [sum(map(len, records[:i])) for i in range(len(records))]
    stored = b"".join(records)
    assert [(p.offset, p.inner_offset) for p in read(stored)[0]] == [(s, 0) for s in starts[1:]]
    assert [(p.offset, p.inner_offset) for p in read(member(stored))[0]] == [
        (0, s) for s in starts[1:]
    ]
    for page in read(members(records))[0]:
        text = zlib.decompressobj(31).decompress(members(records)[page.offset :])
        assert page.inner_offset == 0
        assert page.url.encode() in text


@pytest.mark.skipif(not SHARED_WET.is_dir(), reason="the folder of real WET files is absent")
def test_real_files_read_as_warcio_and_fastwarc_do():
    total = 0
    for path in sorted(SHARED_WET.glob("*.warc.wet.gz")):
        stored = path.read_bytes()
        found, rejects, stats = read(stored)
        assert (rejects, stats.tolerant) == ([], False)
        ours = [
            (p.offset, p.url, p.timestamp, p.content_type, p.content_length, p.identified_language)
            for p in found
        ]
        theirs = []
        records = WarcioIterator(io.BytesIO(stored))
        for page, record in zip(found, _conversions(records), strict=True):
            assert record.content_stream().read() == page.text.encode()
            get = record.rec_headers.get_header
            theirs.append(
                (
                    records.get_record_offset(),
                    get("WARC-Target-URI"),
                    get("WARC-Date"),
                    get("Content-Type"),
                    get("Content-Length"),
                    get("WARC-Identified-Content-Language") or "",
                )
            )
        assert ours == theirs
        bare = FastwarcIterator(
            io.BytesIO(stored), record_types=WarcRecordType.conversion, parse_http=False
        )
        assert [record.reader.read() for record in bare] == [p.text.encode() for p in found]
        total += len(found)
    assert total == 6905


def _conversions(records):
    return (record for record in records if record.rec_type == "conversion")


@pytest.mark.skipif(not SHARED_WET.is_dir(), reason="the folder of real WET files is absent")
@pytest.mark.parametrize("change", ["one member", "stored", "LF headers", "truncated"])
def test_real_file_in_other_layouts(change: str):
    stored = (SHARED_WET / "orig-02-CC-MAIN-2026-12.warc.wet.gz").read_bytes()
    want, _, _ = read(stored)
    text = gzip.decompress(stored)
    if change == "one member":
        changed = gzip.compress(text, 1)
    elif change == "stored":
        changed = text
    elif change == "LF headers":
        changed = text.replace(b"\r\n", b"\n")
    else:
        changed = gzip.compress(text, 1)[:-100]
    found, rejects, stats = read(changed)
    if change == "truncated":
        assert [reject.reason for reject in rejects] == [Reason.TRUNCATED]
        want = want[: len(found)]
        assert len(found) > 190
    else:
        assert rejects == []
    if change == "LF headers":
        assert [p.text for p in found] == [p.text.replace("\r\n", "\n") for p in want]
    else:
        assert [p[2:] for p in found] == [p[2:] for p in want]
    assert stats.tolerant


# Bad files, one by one ---------------------------------------------------------------------------

P = pages(5)
M = [member(record) for record in P]
LONG = "".join(f"Line {random.Random(SEED + i).random()} of a page.\n" for i in range(500))


def flipped(stored: bytes, at: int) -> bytes:
    return stored[:at] + bytes([stored[at] ^ 0x10]) + stored[at + 1 :]


@dataclasses.dataclass(frozen=True)
class Case:
    stored: bytes
    good: list[int]  # numbers of the pages that must come, whole
    rejects: list[Reason]
    records: int | None = None  # how many rejects are records; None: all of them
    wrong_lengths: int = 0


def spoiled(record: bytes) -> list[bytes]:
    """Pages 1, 2, 4 and 5 with a record of another kind in the place of 3."""
    return [*P[:2], record, *P[3:]]


T3 = text_of(3)
BOTH = {"members": members, "one member": LAYOUTS["one member in all"], "stored": b"".join}

GZIP_CASES = {
    "cut within the magic": Case(b"".join(M) + M[0][:2], [1, 2, 3, 4, 5], [Reason.TRUNCATED], 0),
    "cut in the gzip header": Case(b"".join(M[:4]) + M[4][:7], [1, 2, 3, 4], [Reason.TRUNCATED], 0),
    "cut in the middle of a member": Case(
        b"".join(M[:4]) + M[4][:90], [1, 2, 3, 4], [Reason.TRUNCATED]
    ),
    "no trailer": Case(b"".join(M[:4]) + M[4][:-8], [1, 2, 3, 4, 5], [Reason.TRUNCATED], 0),
    "half a trailer": Case(b"".join(M)[:-3], [1, 2, 3, 4, 5], [Reason.TRUNCATED], 0),
    "one member without its trailer": Case(
        member(b"".join(P))[:-8], [1, 2, 3, 4, 5], [Reason.TRUNCATED], 0
    ),
    "bad checksum": Case(
        b"".join([*M[:2], flipped(M[2], len(M[2]) - 6), *M[3:]]),
        [1, 2, 4, 5],
        [Reason.CORRUPT_GZIP],
    ),
    "bad size": Case(
        b"".join([*M[:2], flipped(M[2], len(M[2]) - 2), *M[3:]]),
        [1, 2, 4, 5],
        [Reason.CORRUPT_GZIP],
    ),
    "member of zero bytes inside": Case(
        b"".join([*M[:2], M[2][:10] + bytes(len(M[2]) - 10), *M[3:]]),
        [1, 2, 4, 5],
        [Reason.CORRUPT_GZIP],
        0,
    ),
    "magic broken": Case(
        b"".join([*M[:2], b"\0" + M[2][1:], *M[3:]]), [1, 2, 4, 5], [Reason.NOT_WARC], 0
    ),
    "member cut short, others follow": Case(
        b"".join([*M[:2], M[2][:90], *M[3:]]), [1, 2, 4, 5], [Reason.CORRUPT_GZIP]
    ),
    "first member broken": Case(b"".join([M[0][:60], *M[1:]]), [2, 3, 4, 5], [Reason.CORRUPT_GZIP]),
    "bytes between members": Case(
        b"".join([*M[:2], b"garbage \xff\xfe", *M[2:]]), [1, 2, 3, 4, 5], [Reason.NOT_WARC], 0
    ),
    "magic without a member between members": Case(
        b"".join([*M[:2], b"\x1f\x8b\x08" * 3, *M[2:]]),
        [1, 2, 3, 4, 5],
        [Reason.CORRUPT_GZIP],
        0,
    ),
    "zero padding at the end": Case(
        b"".join(M) + bytes(5000), [1, 2, 3, 4, 5], [Reason.NOT_WARC], 0
    ),
    "garbage at the end": Case(
        b"".join(M) + b"</html> \x80", [1, 2, 3, 4, 5], [Reason.NOT_WARC], 0
    ),
    "gzip of other text between": Case(
        b"".join([*M[:2], member(b"no record\n"), *M[2:]]),
        [1, 2, 3, 4, 5],
        [Reason.NOT_WARC],
        0,
    ),
    "one member of stored blocks, one letter changed, digests": Case(
        (b := member(b"".join(pages(5, digest=True)), 0)).replace(b"Page 3", b"Pagf 3"),
        [1, 2, 4, 5],
        [Reason.CORRUPT_GZIP],
    ),
}

RECORD_CASES = {
    "length too small": (warc(T3, 3, length=4), [1, 2, 3, 4, 5], [], 1),
    "length too large": (warc(T3, 3, length=len(T3) + 33), [1, 2, 3, 4, 5], [], 1),
    "length beyond the file": (warc(T3, 3, length=10**6), [1, 2, 3, 4, 5], [], 1),
    "length 10^18": (warc(T3, 3, length=10**18), [1, 2, 3, 4, 5], [], 1),
    "length of 5,000 digits": (warc(T3, 3, length="9" * 5000), [1, 2, 3, 4, 5], [], 1),
    "length negative": (warc(T3, 3, length=-4), [1, 2, 3, 4, 5], [], 1),
    "length absent": (warc(T3, 3, length=None), [1, 2, 3, 4, 5], [], 1),
    "length no number": (warc(T3, 3, length="many"), [1, 2, 3, 4, 5], [], 1),
    "length twice, first right": (
        warc(T3, 3, length=f"{len(T3)}\r\nContent-Length: 3"),
        [1, 2, 3, 4, 5],
        [],
        0,
    ),
    "body with a line WARC/1.0": (None, [1, 2, 3, 4, 5], [], 0),  # filled in below
    "no url": (warc(T3, 3, url=""), [1, 2, 4, 5], [Reason.NO_URL], 0),
    "blank url": (warc(T3, 3, url="  "), [1, 2, 4, 5], [Reason.NO_URL], 0),
    "no date": (warc(T3, 3, date=None), [1, 2, 4, 5], [Reason.NO_DATE], 0),
    "payload not UTF-8": (warc(b"caf\xe9\n", 3), [1, 2, 4, 5], [Reason.NOT_UTF8], 0),
    "url not UTF-8": (
        warc(T3, 3).replace(b"/3\r", b"/\xe9\r"),
        [1, 2, 4, 5],
        [Reason.NOT_UTF8],
        0,
    ),
    "unused header not UTF-8": (warc(T3, 3, extra=b"X-Note: \xe9"), [1, 2, 3, 4, 5], [], 0),
    "no type": (
        warc(T3, 3).replace(b"WARC-Type: conversion\r\n", b""),
        [1, 2, 4, 5],
        [Reason.BAD_HEADER],
        0,
    ),
    "no blank line": (
        warc(T3, 3).replace(b"\r\n\r\n", b"\r\n", 1),
        [1, 2, 4, 5],
        [Reason.BAD_HEADER],
        0,
    ),
    "header breaks off": (b"WARC/1.0\r\nWARC-Typ", [1, 2, 4, 5], [Reason.BAD_HEADER], 0),
    "version line alone": (b"WARC/1.0\r\n\r\n\r\n", [1, 2, 4, 5], [Reason.BAD_HEADER], 0),
    "line that is no field": (warc(T3, 3, extra=b"no field"), [1, 2, 3, 4, 5], [], 0),
    "endless header": (
        warc(T3, 3, extra=b"X-Long: " + b"x" * 70_000),
        [1, 2, 4, 5],
        [Reason.BAD_HEADER],
        0,
    ),
    "long header": (warc(T3, 3, extra=b"X-Long: " + b"x" * 60_000), [1, 2, 3, 4, 5], [], 0),
    "odd case, odd spaces": (
        warc(T3, 3)
        .replace(b"WARC-Target-URI: ", b"warc-TARGET-uri \t:\t ")
        .replace(b"Content-Length: ", b"content-LENGTH:"),
        [1, 2, 3, 4, 5],
        [],
        0,
    ),
    "folded line": (
        warc(T3, 3).replace(b"URI: http://site", b"URI:\r\n\t http://site"),
        [1, 2, 3, 4, 5],
        [],
        0,
    ),
    "date twice": (
        warc(T3, 3, extra=b"WARC-Date: 1999-01-01T00:00:00Z"),
        [1, 2, 3, 4, 5],
        [],
        0,
    ),
    "WARC/1.1": (warc(T3, 3, version=b"WARC/1.1"), [1, 2, 3, 4, 5], [], 0),
    "WARC/0.18": (warc(T3, 3, version=b"WARC/0.18  "), [1, 2, 3, 4, 5], [], 0),
    "no closing lines": (warc(T3, 3, close=b""), [1, 2, 3, 4, 5], [], 0),
    "half the closing lines": (warc(T3, 3, close=b"\r\n"), [1, 2, 3, 4, 5], [], 0),
    "many closing lines": (warc(T3, 3, close=b"\r\n" * 9), [1, 2, 3, 4, 5], [], 0),
    "garbage after the record": (
        warc(T3, 3) + b"garbage \0\xff",
        [1, 2, 3, 4, 5],
        [Reason.NOT_WARC],
        0,
    ),
    "zero bytes after the record": (
        warc(T3, 3) + bytes(99_999),
        [1, 2, 3, 4, 5],
        [Reason.NOT_WARC],
        0,
    ),
    "unknown type": (warc(T3, 3, kind="novelty"), [1, 2, 4, 5], [], 0),
    "response of another kind": (warc(T3, 3, kind="response"), [1, 2, 4, 5], [], 0),
}
QUOTES = {
    "a version line": "Before.\nWARC/1.0\nafter.\n",
    "a version line with CR LF": "Before.\r\n\r\nWARC/1.0\r\nafter.\r\n",
    "a whole header": "Before.\n\n" + P[0].decode() + "after.\n",
    "only a header": P[0].decode(),
}
del RECORD_CASES["body with a line WARC/1.0"]


def check_pages(found: list[WetRecord], good: list[int]) -> None:
    assert numbers(found) == good
    assert [page.text for page in found] == [text_of(i) for i in good]
    assert {page.timestamp for page in found} <= {"2019-04-18T10:00:00Z"}


@pytest.mark.parametrize("name", GZIP_CASES)
def test_damaged_gzip_costs_only_what_is_broken(name: str):
    case = GZIP_CASES[name]
    found, rejects, stats = read(case.stored)
    check_pages(found, case.good)
    assert [reject.reason for reject in rejects] == case.rejects
    assert stats.rejected_records == (len(rejects) if case.records is None else case.records)
    assert stats.tolerant


@pytest.mark.parametrize("layout", BOTH)
@pytest.mark.parametrize("name", RECORD_CASES)
def test_broken_record_costs_only_itself(name: str, layout: str):
    record, good, reasons, wrong_lengths = RECORD_CASES[name]
    found, rejects, stats = read(BOTH[layout](spoiled(record)))
    check_pages(found, good)
    assert [reject.reason for reject in rejects] == reasons
    assert stats.wrong_lengths == wrong_lengths


@pytest.mark.parametrize("layout", BOTH)
@pytest.mark.parametrize("quote", QUOTES)
@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_quoted_header_does_not_split_a_page(quote: str, layout: str, newline: bytes):
    text = QUOTES[quote]
    records = [warc(text, 1, newline=newline), warc("Next.", 2, newline=newline)]
    found, rejects, _ = read(BOTH[layout](records))
    assert ([page.text for page in found], rejects) == ([text, "Next."], [])


@pytest.mark.parametrize("layout", BOTH)
def test_line_that_begins_like_a_record_does_not_end_a_page_of_wrong_length(layout: str):
    text = "Before.\nWARC/1.0\nafter the version line.\n"
    found, _, stats = read(BOTH[layout]([warc(text, 1, length=12), warc("Next.", 2)]))
    assert [page.text for page in found] == [text, "Next."]
    assert stats.wrong_lengths == 1


def test_digest_settles_a_length_that_nothing_else_confirms():
    text = "One.\n\nTwo.\n\n"
    record = warc(text, 1, digest=True, close=b"")
    found, rejects, _ = read(record + b"garbage " * 9 + warc("Next.", 2))
    assert [page.text for page in found] == [text, "Next."]
    assert [reject.reason for reject in rejects] == [Reason.NOT_WARC]


@pytest.mark.parametrize("layout", BOTH)
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("length", [True, 10**6, 3, None])
def test_last_record(layout: str, closed: bool, length: object):
    last = warc("The end\n", 2, length=length, close=None if closed else b"")
    found, rejects, _ = read(BOTH[layout]([P[0], last]))
    if closed or length is True:
        assert ([page.text for page in found], rejects) == ([text_of(1), "The end\n"], [])
    else:
        assert numbers(found) == [1]
        want = Reason.TRUNCATED if length == 10**6 else Reason.BAD_LENGTH
        assert [reject.reason for reject in rejects] == [want]


@pytest.mark.parametrize("cut", range(1, len(P[1])))
def test_stored_file_cut_anywhere(cut: int):
    found, rejects, _ = read(P[0] + P[1][:cut])
    whole = cut >= len(P[1]) - 4
    check_pages(found, [1, 2] if whole else [1])
    assert len(rejects) == (0 if whole else 1)
    if not whole and cut >= len(b"WARC/1.0\r\n"):
        assert rejects[0].reason is Reason.TRUNCATED


@pytest.mark.parametrize("cut", range(1, len(M[1])))
def test_gzip_file_cut_anywhere(cut: int):
    found, rejects, _ = read(M[0] + M[1][:cut])
    assert numbers(found) in ([1], [1, 2])
    check_pages(found, numbers(found))
    assert len(rejects) == 1
    if cut > 2:
        assert rejects[0].reason is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (b"", "empty"),
        (b"Just a text.\n" * 1000, "not_warc"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 40, "not_warc"),
        (random.Random(SEED).randbytes(300_000), "not_warc"),
        (member(b"Just a text.\n"), "not_warc"),
        (member(b""), "0 bytes|no WARC record"),
        (member(P[0])[:12], "truncated"),
        (b"\x1f", "truncated"),
        (bytes(3_000_000), "zero bytes"),
        (b"WARC/1.0", "not_warc"),
        (b"\x1f\x8b\x08" * 1000, "truncated"),
        (b"PK\x03\x04" + member(b"x")[2:], "ZIP archive"),
    ],
)
def test_files_of_another_kind_are_unreadable(stored: bytes, why: str):
    stats = ReadStats()
    with pytest.raises(UnreadableWetError, match=why):
        list(read_wet(io.BytesIO(stored), stats))
    assert stats.records == 0
    assert stats.bytes_read == len(stored)
    assert stats.sha256 == hashlib.sha256(stored).hexdigest()


def test_rejects_before_the_first_record_are_not_forgotten():
    found, rejects, _ = read(b"\0\0\0" + member(b"text") + member(P[0]))
    assert numbers(found) == [1]
    assert [reject.reason for reject in rejects] == [Reason.NOT_WARC, Reason.NOT_WARC]


@pytest.mark.parametrize("bound", [0, -1])
def test_bound_must_be_positive(bound: int):
    with pytest.raises(ValueError, match="max_record_bytes must be positive"):
        read_wet(io.BytesIO(), ReadStats(), max_record_bytes=bound)


# Size --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", BOTH)
@pytest.mark.parametrize("length", [True, None, 5, 10**18])
def test_record_beyond_the_bound(layout: str, length: object):
    large = warc("x" * 50_001, 3, length=length)
    found, rejects, _ = read(BOTH[layout](spoiled(large)), max_record_bytes=50_000)
    check_pages(found, [1, 2, 4, 5])
    assert [reject.reason for reject in rejects] == [Reason.TOO_LARGE]
    fitting = warc("x" * 50_000, 3, length=length)
    found, rejects, _ = read(BOTH[layout](spoiled(fitting)), max_record_bytes=50_000)
    assert (numbers(found), rejects) == ([1, 2, 3, 4, 5], [])


def bomb(head: bytes, size: int) -> bytes:
    codec = zlib.compressobj(9, wbits=31)
    parts = [codec.compress(head)]
    parts += [codec.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*parts, codec.compress(b"\r\n\r\n"), codec.flush()])


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (warc("", 3, length=64 << 20, close=b""), Reason.TOO_LARGE),
        (warc("", 3, length=10, close=b""), Reason.TOO_LARGE),
        (warc("", 3, length=None, close=b""), Reason.TOO_LARGE),
        (b"", Reason.NOT_WARC),
    ],
)
def test_bomb_costs_bounded_memory(head: bytes, reason: Reason):
    stored = b"".join([*M[:2], bomb(head, 64 << 20), *M[3:]])
    tracemalloc.start()
    try:
        found, rejects, _ = read(stored, max_record_bytes=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    check_pages(found, [1, 2, 4, 5])
    assert [reject.reason for reject in rejects] == [reason]
    assert peak < 48 << 20


def test_large_member_of_many_records():
    records = [warc(f"{i} {LONG}", i) for i in range(400)]  # 12 MB: inflated piece by piece
    found, rejects, _ = read(members(records[:3]) + member(b"".join(records)) + M[0])
    assert numbers(found) == [0, 1, 2, *range(400), 1]
    assert all(page.text == f"{i} {LONG}" for i, page in enumerate(found[3:-1]))
    assert rejects == []


def test_large_member_damaged_in_the_middle_keeps_what_comes_before():
    texts = [random.Random(SEED + i).randbytes(15_000).hex() for i in range(400)]
    records = [warc(text, i, digest=True) for i, text in enumerate(texts)]
    large = member(b"".join(records), 1)
    middle = len(large) // 2
    changed = large[:middle] + b"\xff" * 64 + large[middle + 64 :] + M[0]
    changed = M[4] + changed  # so that going back does not meet the bounds of earlier reads
    found, rejects, stats = read(changed)
    before, last = found[1:-1], found[-1]
    assert numbers(before) == list(range(len(before)))
    assert 190 < len(before) < 210
    assert [page.text for page in before] == texts[: len(before)]
    assert last.text == text_of(1)
    assert {reject.reason for reject in rejects} == {Reason.CORRUPT_GZIP}
    assert stats.rejected_records > 0


def hexadecimal(count: int, size: int) -> list[bytes]:
    """Records that hardly compress, so that damage does not spread by repetition."""
    draw = random.Random(SEED)
    return [warc(draw.randbytes(size).hex(), i, digest=True) for i in range(count)]


def test_all_text_before_the_point_of_damage_is_saved():
    large = member(b"".join(hexadecimal(100, 300)), 1)
    assert len(large) > 2 * INFLATE_BYTES
    found, _, _ = read(large[:-300] + b"\xff" * 64 + large[-236:])
    assert numbers(found)[:98] == list(range(98))


def test_reading_resumes_in_a_member_that_goes_on_with_a_record():
    text = b"".join(hexadecimal(40, 450))
    parts = [member(text[i : i + 3001]) for i in range(0, len(text), 3001)]
    parts[2] = parts[2][:50] + bytes(50) + parts[2][100:]
    found, rejects, _ = read(b"".join(parts))
    assert {Reason.CORRUPT_GZIP, Reason.NOT_WARC} == {reject.reason for reject in rejects}
    got = numbers(found)
    lost = set(range(40)) - set(got)
    assert len(lost) <= 5
    assert got == sorted(got)


def test_damage_does_not_reach_back_to_good_members():
    wrong_digest = b"WARC-Block-Digest: sha1:" + b"A" * 32
    odd = [member(warc(text_of(i), i, newline=b"\n", extra=wrong_digest)) for i in (1, 2)]
    found, rejects, _ = read(b"".join(odd) + M[2][:60] + bytes(30) + M[3])
    check_pages(found, [1, 2, 4])
    assert [reject.reason for reject in rejects] == [Reason.CORRUPT_GZIP]


@pytest.mark.parametrize("layout", ["no magic", "one letter changed", "cut off"])
@pytest.mark.parametrize(
    "quote",
    [
        "WARC/1.0\nContent-Length: 2\n\nHi",
        "WARC/1.0\nno field\nWARC-Type: conversion\nWARC-Date: 2019\n\nHi",
        "WARC/1.0\nWARC-Type: conversion\nWARC-Date: 2019\nno field\n\nHi",
        "WARC/1.0\nWARC-Type: conversion\n\nHi",
        "a\nWARC/1.0\n",
    ],
)
def test_line_like_a_record_in_damage_is_no_record(quote: str, layout: str):
    broken = member(warc(f"Before.\n{quote}\nafter.\n", 3, close=b""), 0)
    if layout == "no magic":  # stored blocks: the text stands in the file as it is
        broken = broken[:3].replace(b"\x1f", b"\0") + broken[40:]
    elif layout == "one letter changed":
        broken = member(b"no record\n" + quote.encode(), 0)[:-9] + bytes(9)
    else:
        broken = member(b"no record\n" + quote.encode(), 0)[:-8]
    found, rejects, stats = read(b"".join([*M[:2], broken, *M[3:]]))
    check_pages(found, [1, 2, 4, 5])
    assert {reject.reason for reject in rejects} <= {Reason.NOT_WARC, Reason.CORRUPT_GZIP}
    assert (bool(rejects), stats.rejected_records, stats.records) == (True, 0, 4)


@pytest.mark.parametrize("cut", range(45, 110, 5))
def test_record_of_unknown_length_ends_where_a_member_begins_that_breaks_off(cut: int):
    last = warc(T3, 3, length="many", digest=True)
    broken = member(P[3], 0)[:cut]
    found, rejects, _ = read(b"".join([*M[:2], member(last), broken, M[4]]))
    check_pages(found, [1, 2, 3, 5])
    assert [reject.reason for reject in rejects] == [Reason.CORRUPT_GZIP]


def test_garbage_and_damage_after_it_are_told_apart():
    found, rejects, _ = read(M[0] + member(b"no record\n") + M[1][:11])
    check_pages(found, [1])
    assert [reject.reason for reject in rejects] == [Reason.NOT_WARC, Reason.TRUNCATED]


def test_rejects_of_a_file_without_pages_are_not_forgotten():
    found = []
    with pytest.raises(UnreadableWetError, match=r"1 warcinfo record but no page.*not_warc"):
        found += read_wet(io.BytesIO(b"garbage " + INFO), stats := ReadStats())
    assert (stats.records, stats.other_records) == (1, {"warcinfo": 1})
    rejects = []
    found, rejects, _ = read(b"garbage " + INFO + warc(b"caf\xe9", 1))
    assert [reject.reason for reject in rejects] == [Reason.NOT_WARC, Reason.NOT_UTF8]


@pytest.mark.parametrize("before", range(-3, 3))
def test_member_begins_where_a_read_ends(before: int):
    size = PIECE_BYTES + before
    large = warc("x" * (size - len(warc("x" * 10**6, 1)) + 10**6), 1)
    assert len(large) == size
    found, rejects, _ = read(large + M[1])
    assert (numbers(found), rejects) == ([1, 2], [])


def test_fast_way_leaves_odd_headers_to_the_careful_one():
    text = "Nine char"
    (page,), _, _ = read(member(warc(text, length=5, close=b"")) + member(INFO))
    assert page.text == text
    (page,), _, _ = read(
        member(warc(text, extra=b"X-Note: a\nWARC-Identified-Content-Language: deu"))
    )
    assert page.identified_language == "deu"
    (page,), _, _ = read(member(warc(text, url="http://site.example/?a\r\n  b: c")))
    assert page.url == "http://site.example/?a b: c"


@pytest.mark.slow
@pytest.mark.parametrize(
    "hostile",
    [
        b"\x1f\x8b\x08" * 30_000,
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03" * 30_000,
        b"WARC/1.0\r\n" * 30_000,
        b"WARC/1.0\r\nx: y\r\n" * 20_000,
        b"WARC/" * 60_000,
        b"WARC/1.0\r\nWARC-Type: conversion\r\n" * 8_000,
        b"\r\n" * 200_000,
        member(b"") * 10_000,
        members([b"WARC/1.0\r\nContent-Length: 9999999\r\n\r\n"]) * 3000,
        b"".join([M[0][:-8], M[1][:-1]] * 2000),
    ],
)
def test_hostile_repetition_takes_bounded_time(hostile: bytes):
    started = time.process_time()
    found, _, _ = read(M[0] + hostile + M[1])
    assert time.process_time() - started < 10
    assert numbers(found)[0] == 1
    assert found[-1].text == text_of(2)


def test_stream_that_reads_little_at_a_time():
    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 7))

    stored = b"".join([*M[:2], M[2][:90], *M[3:]])
    got = list(read_wet(Dribble(stored), ReadStats()))
    assert got == list(read_wet(io.BytesIO(stored), ReadStats()))


# Rewritten line ends -----------------------------------------------------------------------------

texts = st.lists(
    st.sampled_from(["Words. ", "ö", "\n", "\n", "\n\n", "WARC", "WARC/1.0\n", "a: b", "x" * 300]),
    max_size=12,
).map("".join)


@given(st.lists(texts, min_size=2, max_size=5), st.sampled_from(sorted(BOTH)))
@settings(max_examples=150, deadline=None)
@example(["a\n", "b"], "members")
@example(["a\n\n", "\n\n\n", ""], "stored")
@example(["", "\n\n\n\n\n\nö"], "members")
@example(["\nWords. ", ""], "one member")
@example(["", "\n" * 9 + "WARC/1.0\n"], "members")
@example(["", "\n" * 13 + "WARC/1.0\n"], "stored")
def test_lf_rewritten_to_crlf_keeps_pages_whole(bodies: list[str], layout: str):
    records = [warc(text, i).replace(b"\r\n", b"\n") for i, text in enumerate(bodies)]
    changed = [record.replace(b"\n", b"\r\n") for record in records]
    found, rejects, _ = read(BOTH[layout](changed))
    assert rejects == []
    assert [page.text for page in found] == [text.replace("\n", "\r\n") for text in bodies]


@given(st.lists(texts, min_size=2, max_size=5), st.sampled_from(sorted(BOTH)))
@settings(max_examples=150, deadline=None)
@example(["a\r\nb"], "members")
def test_crlf_rewritten_to_lf_keeps_pages_whole(bodies: list[str], layout: str):
    bodies = [text.replace("\n", "\r\n") for text in bodies]
    changed = [warc(text, i).replace(b"\r\n", b"\n") for i, text in enumerate(bodies)]
    found, rejects, _ = read(BOTH[layout](changed))
    assert rejects == []
    # How many blank lines a text closed with cannot always be told from those that end a record.
    assert [page.text.rstrip("\n") for page in found] == [
        text.replace("\r\n", "\n").rstrip("\n") for text in bodies
    ]


# Drawn files -------------------------------------------------------------------------------------

any_texts = st.one_of(texts, st.text(max_size=200))


@given(st.lists(any_texts, min_size=1, max_size=6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_fast_and_careful_way_agree(bodies: list[str], digest: bool):
    records = [warc(text, i, digest=digest) for i, text in enumerate(bodies)]
    fast = read(members(records))
    assert not fast[2].tolerant
    assert [page.text for page in fast[0]] == bodies
    for layout in ("one member in all", "stored", "cut into members anywhere"):
        careful = read(LAYOUTS[layout](records))
        assert [page[2:] for page in careful[0]] == [page[2:] for page in fast[0]]
        assert careful[1] == []


_HEADER_LINES = [
    *(b"X-Note: a", b"x-note: b", b"WARC-Record-ID: <urn:uuid:1>", b"warc-record-id: other"),
    *(b"WARC-Identified-Content-Language: deu", b"warc-identified-content-language: fra"),
    *(b"content-type: text/html", b"Content-Type: text/html", b"warc-type: response"),
    *(b"Content-Type : text/html", b"X-Note:no blank", b"no colon", b"Two words: a", b"X:Y: a"),
    *(b" folded", b"\tfolded: a", b"X-Note: a\nX-Other: b", b"X-Note: a\n folded", b": nameless"),
    *(b"WARC-Target-URI: http://b.example/", b"content-length: 3", b"WARC-Date: 2016"),
]


@given(st.lists(st.sampled_from(_HEADER_LINES), max_size=4))
@settings(max_examples=150, deadline=None)
def test_fast_and_careful_way_agree_on_headers(lines: list[bytes]):
    record = warc("Nine char", extra=b"\r\n".join(lines))
    pages, rejects, _ = read(member(INFO) + member(record))
    found, refused, _ = read(INFO + record)  # as it is stored: only the careful way reads that
    assert [page[2:] for page in pages] == [page[2:] for page in found]
    assert [reject.reason for reject in rejects] == [reject.reason for reject in refused]


@st.composite
def damage(draw: st.DrawFn, size: int) -> list[tuple[int, int, bytes]]:
    """Up to three (start, stop, new bytes), in order and apart."""
    places = sorted(draw(st.lists(st.integers(0, size), min_size=2, max_size=6, unique=True)))
    edits = []
    for start, stop in zip(places[::2], places[1::2], strict=False):
        kind = draw(st.sampled_from(["flip", "cut", "insert", "overwrite"]))
        stop = min(stop, start + draw(st.sampled_from([1, 2, 8, 64, 1000])))
        junk = draw(
            st.one_of(
                st.binary(min_size=1, max_size=40),
                st.sampled_from([b"\x1f\x8b\x08\0", M[0][:40], P[0], b"\r\n", bytes(99)]),
            )
        )
        if kind == "insert":
            edits.append((start, start, junk))
        elif kind == "cut":
            edits.append((start, stop, b""))
        elif kind == "overwrite":
            edits.append((start, stop, (junk * stop)[: stop - start]))
        else:
            edits.append((start, start + 1, b""))  # replaced by the flipped byte when applied
    return edits


def apply(stored: bytes, edits: list[tuple[int, int, bytes]], flip: int) -> bytes:
    for start, stop, new in reversed(edits):
        old = stored[start:stop]
        if stop - start == 1 and not new and old:
            new = bytes([old[0] ^ (1 << flip)])
        stored = stored[:start] + new + stored[stop:]
    return stored


@pytest.mark.slow
@given(st.data())
@settings(max_examples=400, deadline=None)
def test_damage_to_members_never_reaches_other_members(data: st.DataObject):
    bodies = data.draw(st.lists(any_texts, min_size=2, max_size=7))
    parts = [member(warc(text, i, digest=i % 2 == 0)) for i, text in enumerate(bodies, 10)]
    stored = b"".join(parts)
    edits = data.draw(damage(len(stored)))
    changed = apply(stored, edits, data.draw(st.integers(0, 7)))
    # A member is untouched if no edit changes a byte of it; one inserted at its edge does not.
    untouched = []
    begin = 0
    for i, part in enumerate(parts):
        end = begin + len(part)
        if not any(
            (begin < start < end) if start == stop else (start < end and stop > begin)
            for start, stop, _ in edits
        ):
            untouched.append((10 + i, bodies[i]))
        begin = end
    try:
        found, rejects, _ = read(changed)
    except UnreadableWetError:
        assert untouched == []
        return
    got = [(number, page.text) for number, page in zip(numbers(found), found, strict=True)]
    got = [item for item in got if item[0] >= 10]
    for item in untouched:
        assert item in got
    # Nothing false either: each page of the file is whole, in order and there once at most.
    order = [number for number, _ in got]
    assert order == sorted(set(order))
    assert all(bodies[number - 10] == text for number, text in got)
    if len(got) < len(bodies):
        assert rejects


@pytest.mark.slow
@given(st.data(), st.sampled_from(["one member", "stored"]))
@settings(max_examples=300, deadline=None)
def test_damage_to_a_continuous_text_is_survived(data: st.DataObject, layout: str):
    bodies = data.draw(st.lists(any_texts, min_size=2, max_size=6))
    records = [warc(text, i) for i, text in enumerate(bodies, 10)]
    stored = BOTH[layout](records)
    edits = data.draw(damage(len(stored)))
    changed = apply(stored, edits, data.draw(st.integers(0, 7)))
    try:
        read(changed)
    except UnreadableWetError:
        assert layout == "one member" or edits


# Of these no whole record header can be made: the type is missing.
header_parts = st.lists(
    st.sampled_from(
        [
            *(b"WARC/1.0\r\n", b"WARC/1.0\n", b"a: WARC/1.1\r\n", b"WARC-Date: 2019\r\n"),
            *(b"Content-Length: 3\n", b"warc-record-id: <a>\r\n", b" folded\r\n"),
            *(b"\r\n", b"\n", b"x", b"\0"),
        ]
    ),
    max_size=12,
).map(b"".join)


@given(st.binary(max_size=400) | header_parts, st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_survived(noise: bytes, zipped: bool):
    stored = member(noise) if zipped else noise
    with pytest.raises(UnreadableWetError):
        read(stored)
    found, _, _ = read(M[0] + stored + M[1])
    check_pages(found, [1, 2])
