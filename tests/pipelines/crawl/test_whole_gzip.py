"""Whether a gzip file is whole, held against Python's own reader."""

import gzip
import io
import os
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.whole_gzip import DamagedError, TooLargeError, WholeGzip, ends_whole

MOST = 1 << 30
NOISE = random.Random(5).randbytes(3 << 20)


def read_all(data: bytes, piece: int = 1 << 20, most: int = MOST) -> None:
    check = WholeGzip(most)
    for start in range(0, len(data), piece):
        check.feed(data[start : start + piece])
    check.require_whole()


def is_whole(data: bytes, piece: int, most: int = MOST) -> bool:
    try:
        read_all(data, piece, most)
    except DamagedError:
        return False
    return True


def python_reads(data: bytes) -> bool:
    try:
        gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return False
    return bool(data.strip(b"\0"))


@given(
    st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    st.sampled_from(["whole", "cut", "changed", "more", "padded"]),
    st.integers(0, 10**6),
    st.sampled_from([1, 3, 7, 64, 10**6]),
)
def test_it_agrees_with_python(texts: list[bytes], fault: str, where: int, piece: int) -> None:
    data = b"".join(gzip.compress(text, mtime=0) for text in texts)
    at = where % len(data)
    if fault == "cut":
        data = data[:at]
    if fault == "changed":
        data = data[:at] + bytes([data[at] ^ 1 << where % 8]) + data[at + 1 :]
    if fault == "more":
        data += b"x" * (1 + where % 40)
    if fault == "padded":
        data += bytes(where % 40)
    expected = python_reads(data)
    if fault == "changed" and data[at] != data[at] ^ 1:
        # Readers differ in what they make of header bytes that change no text.
        expected = is_whole(data, 10**6)
    assert is_whole(data, piece) == expected
    assert ends_whole(io.BytesIO(data), MOST) == expected


@pytest.mark.parametrize("size", [100_000, 3 << 20])
def test_inflating_is_bounded(size: int) -> None:
    data = gzip.compress(bytes(size))
    assert is_whole(data, 1 << 20, size)
    check = WholeGzip(size - 1)
    with pytest.raises(TooLargeError, match=r"unpacks to more than . MB \(--max-file-mb\)"):
        check.feed(data)
    bomb = WholeGzip(1 << 20)
    with pytest.raises(TooLargeError):
        bomb.feed(gzip.compress(bytes(64 << 20), 1))
    assert bomb._left >= -(1 << 20)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"<html>Log in", "is an HTML page"),
        (b"what is this, please?", "is damaged gzip"),
        (gzip.compress(b"x")[:-1], "is cut off"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(DamagedError, match=message):
        read_all(data)


def test_the_end_of_a_large_file_is_enough() -> None:
    members = [
        gzip.compress(NOISE[start : start + 50_000], 0) for start in range(0, 3 << 20, 50_000)
    ]
    data = b"".join(members)
    for cut in (0, 1, 30_000, 60_000, 500_000):
        end = len(data) - cut
        assert ends_whole(io.BytesIO(data[:end]), MOST) == (cut == 0)
    assert ends_whole(io.BytesIO(data[: -len(members[-1])]), MOST)
    assert ends_whole(io.BytesIO(gzip.compress(NOISE, 0)), MOST)  # one member
    assert not ends_whole(io.BytesIO(gzip.compress(NOISE, 0)[:-1]), MOST)

    class NotFromItsStart(io.BytesIO):
        def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
            assert offset or whence == os.SEEK_END
            return super().seek(offset, whence)

    assert ends_whole(NotFromItsStart(data), MOST)  # only the end is read
    with pytest.raises(AssertionError):
        ends_whole(NotFromItsStart(data[:-1]), MOST)
