"""WET files made to cost: each would take hours, or all memory, where one bound is missing."""

import gzip
import pathlib
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c4_filters.lines import clean_text
from c4_filters.recipes import RECIPES
from c4_filters.verdicts import RejectReason as Reason
from testing.helpers import wet_record
from testing.limited import run_limited
from tests.pipelines.wet.test_records import (
    LAYOUTS,
    member,
    members,
    numbers,
    pages,
    read,
    warc,
)

LINUX = pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="memory is bounded as Linux does it"
)
GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
EMPTY_BLOCK = b"\0\0\0\xff\xff"
BROKEN_BLOCK = b"\x07"  # the last one, of a type that there is not
MIB = 1 << 20


def record_head(length: int, newline: bytes = b"\r\n", extra: bytes = b"") -> bytes:
    lines = [
        b"WARC/1.0",
        b"WARC-Type: conversion",
        b"WARC-Target-URI: http://site.example/7",
        b"WARC-Date: 2019-04-18T10:00:00Z",
        b"Content-Length: %d" % length,
        *([extra] if extra else []),
    ]
    return newline.join(lines) + newline * 2


def zeros(mebibytes: int) -> bytes:
    """Raw deflate blocks of that many MiB of zero bytes, aligned to a byte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    one = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return one * mebibytes


def bomb(head: bytes, mebibytes: int) -> bytes:
    """A good gzip member of ``head`` and zero bytes, made without ever holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = zlib.crc32(head)
    for _ in range(mebibytes):
        checksum = zlib.crc32(bytes(MIB), checksum)
    size = (len(head) + mebibytes * MIB) & 0xFFFFFFFF
    return GZIP_HEAD + start + zeros(mebibytes) + b"\x03\0" + struct.pack("<II", checksum, size)


def nested(count: int, tail: bytes) -> bytes:
    """Gzip members 15 bytes apart, each inside the first block of all before; all end in ``tail``.

    A block stored as it is holds the heads of those that follow, so that each of them is a member
    by all one can see, and each is spoiled by the same last bytes.
    """
    size = 15 * count
    heads = []
    for i in range(1, count + 1):
        left = size - 15 * i
        heads.append(GZIP_HEAD + b"\0" + struct.pack("<HH", left, left ^ 0xFFFF))
    return b"".join(heads) + tail


# Time ---------------------------------------------------------------------------------------------


def small_members_ahead() -> bytes:
    """Records whose lengths point at blank lines inside members of twelve bytes each."""
    head = len(record_head(1_200_000, b"\n"))
    length = 1_200_000 + -head % 12
    padded = record_head(length, b"\n") + bytes(-head % 12)
    return member(padded) * 10_000 + member(b"\r\n\r\nabcdefgh") * 150_000


AHEAD = 12 * MIB
WRONG_DIGEST = b"WARC-Block-Digest: sha1:AAAA"
#: name -> a file that cost its size times what lies ahead of each of its records
COSTLY: dict[str, Callable[[], bytes]] = {
    "members nested in empty blocks": lambda: (
        member(warc("x")) + nested(3000, EMPTY_BLOCK * 100_000 + BROKEN_BLOCK)
    ),
    "members nested in a bomb": lambda: member(warc("x")) + nested(800, zeros(12) + BROKEN_BLOCK),
    "headers without an end": lambda: member(warc("x")) + b"WARC/1.0\r\nWARC-A:b\r\n" * 200_000,
    "fields that end in a version line": lambda: (
        member(warc("x")) + b"zWARC/1.0\r\n" + b"a: WARC/1.0\r\n" * 300_000
    ),
    "headers of such fields": lambda: (
        member(warc("x")) + (b"WARC/1.0\r\n" + b"a: WARC/1.0\r\n" * 5000 + b"z\r\n") * 50
    ),
    "wrong digests far ahead": lambda: member(
        record_head(AHEAD, extra=WRONG_DIGEST) * 4000 + b"a" * 2 * AHEAD
    ),
    "blank lines far ahead": lambda: member(
        record_head(MIB) * 4000 + b"a" * MIB + b"\n" * AHEAD + b"x" * 9000
    ),
    "nothing far ahead": lambda: member(record_head(MIB) * 4000 + b"a" * MIB + bytes(AHEAD)),
    "small members far ahead": small_members_ahead,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTLY)
def test_cost_is_in_proportion_to_what_is_read(name: str) -> None:
    stored = COSTLY[name]()
    started = time.process_time()
    read(stored)
    spent = time.process_time() - started
    assert spent < 10, f"{spent:.1f} s for {len(stored):,} bytes"  # less than 3 where this was made


@pytest.mark.parametrize("phrase", ["javascript", "{"])
def test_a_page_full_of_suspect_words_costs_no_more_than_its_length(phrase: str) -> None:
    line = f"one two three four {phrase} {phrase} {phrase}."
    text = "\n".join([line] * 60_000)
    started = time.process_time()
    clean_text(text, RECIPES["en"], Counter())
    assert time.process_time() - started < 5  # 60 s and more when lines were counted for each


def test_rejects_before_the_first_record_are_told_but_not_all_held() -> None:
    stored = (b"x" + member(b"y")) * 1500
    found, rejects, _ = read(stored + member(pages(1)[0]))
    assert numbers(found) == [1]
    assert len(rejects) == 1001
    assert rejects[-1].detail.startswith("damage continues from here to the first record: ")


def test_record_after_long_garbage_is_read() -> None:
    # Garbage longer than what is looked at first, and then a member's text come in at once.
    for size in (10, 4096, 4097, 5000, 70_000, 2 * MIB):
        stored = members([pages(3)[0], b"garbage " * (size // 8), *pages(3)[1:]])
        found, rejects, _ = read(stored)
        assert numbers(found) == [1, 2, 3], size
        assert [reject.reason for reject in rejects] == [Reason.NOT_WARC]


# Names of header fields, as fuzzing has written them: the fast way must read what the careful does.
@pytest.mark.parametrize(
    ("extra", "field", "value"),
    [
        (b"WARC-identified-content-language: deu", "identified_language", "deu"),
        (b"WARC-Identified-Content-Language : deu", "identified_language", "deu"),
        (b"WARC-Identified-Content-Language:deu: x", "identified_language", "deu: x"),
        (b"content-type: text/html", "content_type", "text/html"),
        (b"Content-type:text/html: x", "content_type", "text/html: x"),
        (b"warc-date: 2001", "timestamp", "2001"),
        (b"WARC-Date : 2001", "timestamp", "2001"),
        (b"WARC-TARGET-URI: http://first.example/", "url", "http://first.example/"),
    ],
)
def test_names_of_fields_are_read_alike_both_ways(extra: bytes, field: str, value: str) -> None:
    text = b"Some text.\n"
    lines = [
        b"WARC/1.0",
        b"WARC-Type: conversion",
        extra,
        b"WARC-Target-URI: http://site.example/1",
        b"WARC-Date: 2019-04-18T10:00:00Z",
        b"Content-Length: %d" % len(text),
    ]
    record = b"\r\n".join(lines) + b"\r\n\r\n" + text + b"\r\n\r\n"
    for stored in (member(record), record, member(record + record)):
        found, _, _ = read(stored)
        assert {getattr(page, field) for page in found} == {value}


# Size ---------------------------------------------------------------------------------------------

READ = """\
import io
from pipelines.wet.records import read_wet
from pipelines.wet.results import ReadStats, Reject, UnreadableWetError
"""
READ_ALL = """\
reasons, pages = [], 0
stats = ReadStats()
with open(argument["path"], "rb") as file:
    try:
        for found in read_wet(file, stats, max_file_bytes=256 << 20):
            if isinstance(found, Reject):
                reasons.append(found.reason)
            else:
                pages += 1
    except UnreadableWetError as error:
        reasons.append(str(error))
result = [pages, reasons, stats.bytes_read]
"""


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize(
    ("make", "pages_read", "reason"),
    [
        pytest.param(lambda: bomb(b"", 400), 0, "no WARC record", id="no record"),
        pytest.param(lambda: bomb(record_head(400 * MIB), 400), 0, "too_large", id="one record"),
        pytest.param(lambda: bomb(record_head(9), 400), 0, "too_large", id="wrong length"),
        pytest.param(lambda: bomb(record_head(10**18), 300), 0, "too_large", id="huge length"),
        pytest.param(
            lambda: bomb(record_head(3 * MIB), 3) * 100, 85, "too_large", id="many members"
        ),
        pytest.param(lambda: member(warc("a" * MIB)) * 300, 255, "too_large", id="small members"),
        pytest.param(lambda: member(warc("x")) + bomb(b"", 400), 1, "too_large", id="after a page"),
        pytest.param(lambda: bomb(record_head(9), 400)[:-9], 0, "too_large", id="cut"),
        pytest.param(lambda: bomb(b"WARC/1.0\r\nA: ", 400), 0, "bad_header", id="in a header"),
    ],
)
def test_bombs_are_bounded(
    make: Callable[[], bytes], pages_read: int, reason: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(make())
    cost = run_limited(READ, READ_ALL, 320 * MIB, path=str(path))
    found, reasons, bytes_read = cost.result
    assert found == pages_read
    assert reasons[-1 if reason == "too_large" else 0].startswith(reason)
    assert bytes_read == path.stat().st_size
    assert cost.peak_bytes < 240 * MIB
    assert cost.cpu_s < 20  # of one that asks for all it may: some 4 s


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=25)
@given(limit=st.integers(1, 2200))
def test_a_limit_of_the_file_keeps_the_pages_before_it(layout: str, limit: int) -> None:
    records = pages(10)
    stored = LAYOUTS[layout](records)
    size = sum(map(len, records))
    everything, _, _ = read(stored)
    assert len(everything) == 10
    found, rejects, _ = read(stored, max_file_bytes=limit) if limit > 400 else ([], [], None)
    assert found == everything[: len(found)]
    if limit >= size:
        assert (len(found), rejects) == (10, [])
    elif limit > 400:
        assert limit // 220 - 1 <= len(found) <= limit // 190 + 1
        [reject] = rejects
        assert reject.reason is Reason.TOO_LARGE
        assert "its rest is skipped (--max-file-mb)" in reject.detail
        assert "more than 67108864 bytes" not in reject.detail
        assert reject.is_record == (": http" in reject.detail or "cut in" in reject.detail)


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_file_bytes must be positive, got 0"):
        read(b"", max_file_bytes=0)


CLEAN = """\
import pathlib
from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES
from pipelines.stages.clean_files import clean_file
rules = PageRules(RECIPES["en"])
rules.splitter.count("One. Two.")
"""
CLEAN_IT = """\
path = argument["path"]
summary = clean_file(
    path, pathlib.Path(path).stat().st_size, argument["output"], rules, "x", 64 << 20,
    max_file_bytes=argument["most"],
)
result = [summary.pages_read, summary.pages_kept, summary.records_rejected]
"""


@pytest.mark.slow
@LINUX
def test_a_file_of_many_good_pages_is_cleaned_up_to_its_limit(tmp_path: pathlib.Path) -> None:
    sentence = "The quick brown fox jumped over the lazy dog near the river bank today. "
    text = "\n".join([sentence * 3] * 40)
    record = wet_record("http://site.example/", "2019-04-18T10:00:00Z", text)
    path = tmp_path / "many.warc.wet.gz"
    path.write_bytes(gzip.compress(record * 30, 6) * 400)  # 105 MB in 0.6
    most = 20 * MIB
    cost = run_limited(CLEAN, CLEAN_IT, 400 * MIB, path=str(path), output=str(tmp_path), most=most)
    pages_read, kept, rejected = cost.result
    assert pages_read == kept == most // len(record)
    assert rejected == {"too_large": 1}  # the record cut in two, with what follows
