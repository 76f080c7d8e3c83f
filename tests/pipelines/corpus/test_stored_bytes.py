"""The bytes of kept files: files that an earlier checkout left must stay readable."""

import json
import pathlib
import pickle
import struct
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest

from pipelines import storage
from pipelines.corpus.cleaned import CleanedFile, Dropped, write_cleaned
from pipelines.corpus.container import (
    Container,
    DamagedFileError,
    OtherVersionError,
    Part,
    write_container,
)
from pipelines.corpus.fingerprints import FINGERPRINT_SCHEMA, write_fingerprints
from pipelines.corpus.removals import OtherBuildError, Removals, open_removals, write_removals
from tests.pipelines.corpus.test_cleaned import row, table_of


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.os, "fsync", lambda descriptor: None)


class Stored(NamedTuple):
    """A kept file, taken apart as the format's description says."""

    head: Any
    names: list[str]
    numbers: list[list[int]]
    unpacked: list[bytes]
    compressed: list[bool]


def take_apart(path: pathlib.Path, kind: bytes) -> Stored:
    content = path.read_bytes()
    assert content[:24] == b"C4-KEPT\n" + kind.ljust(12, b"\0") + struct.pack("<I", 2)
    trailer = content[-28:]
    magic, version, length, checksum, own = struct.unpack("<8sIQII", trailer)
    assert (magic, version, own) == (b"C4-KEPT\n", 2, google_crc32c.value(trailer[:24]))
    stored = content[-28 - length : -28]
    assert checksum == google_crc32c.value(stored)
    table = json.loads(stored)
    assert stored == json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    assert {*table} == {"kind", "head", "sections"}
    assert table["kind"] == kind.decode()
    names, numbers, unpacked, compressed, at = [], [], [], [], 24
    for name, length, size, checksum, *rest in table["sections"]:
        data = content[at : at + length]
        at += length
        assert google_crc32c.value(data) == checksum
        if size >= 0:
            data = pa.CompressedInputStream(pa.BufferReader(data), "lz4").read()
            assert len(data) == size
        else:
            assert size == -1
        names.append(name)
        numbers.append(rest)
        unpacked.append(data)
        compressed.append(size >= 0)
    assert at == len(content) - 28 - len(stored)
    return Stored(table["head"], names, numbers, unpacked, compressed)


def test_a_container_is_head_sections_table_and_trailer(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    parts = [Part("x", b"some" * 99, (1, 2**64 - 1)), Part("y", b"as it is", (), compress=False)]
    write_container(str(path), "some", {"b": 1, "a": "é"}, parts)
    assert take_apart(path, b"some") == Stored(
        {"b": 1, "a": "é"}, ["x", "y"], [[1, 2**64 - 1], []], [b"some" * 99, b"as it is"],
        [True, False],
    )  # fmt: skip


def test_a_cleaned_file_has_batches_of_256_pages_or_256_kib(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    rows = [row(n, 7 * n, False, n % 3, "x") for n in range(600)]
    texts = ["x" * 262_143, "x", "é" * 131_072, "x"]
    big = [row(n, n, True, 1, text) for n, text in enumerate(texts)]
    count = 70_000
    numbers = np.arange(count, dtype=np.uint64)
    dropped = Dropped(numbers, numbers * 2, (numbers % 2).astype(np.uint8), ("a", "b"))
    write_cleaned(str(path), table_of(rows + big), {"said": 1}, dropped)
    stored = take_apart(path, b"cleaned")
    assert stored.head == {"summary": {"said": 1}, "verdicts": ["a", "b"]}
    assert stored.names == ["pages"] * 6 + ["dropped"] * 2
    assert all(stored.compressed)
    units = np.cumsum([0] + [n % 3 for n in range(600)]).tolist()
    # split, first key, last key, first row, first unit, rows, units
    assert stored.numbers == [
        [0, 0, 7 * 255, 0, 0, 256, units[256]],
        [0, 7 * 256, 7 * 511, 256, units[256], 256, units[512] - units[256]],
        [0, 7 * 512, 7 * 599, 512, units[512], 88, units[600] - units[512]],
        [1, 0, 1, 600, units[600], 2, 2],
        [1, 2, 2, 602, units[600] + 2, 1, 1],
        [1, 3, 3, 603, units[600] + 3, 1, 1],
        [65_536],
        [count - 65_536],
    ]
    with CleanedFile(str(path)) as file:
        assert (file.pages, file.units) == (604, units[600] + 4)
        assert file.dropped().offsets.tolist() == (numbers * 2).tolist()


def test_fingerprints_are_one_section_as_it_is(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    write_fingerprints(str(path), FINGERPRINT_SCHEMA.empty_table(), 0, "wet", "id")
    stored = take_apart(path, b"fingerprints")
    assert stored.head == {"cleaned_pages": 0, "source": "wet", "identity": "id"}
    assert (stored.names, stored.numbers, stored.compressed) == (["pages"], [[]], [False])


def test_removals_have_blocks_of_65536_and_bits_last(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    pages, units = np.arange(3) == 1, np.arange(65_538) % 65_535 == 2
    keepers = np.array([5], np.uint64), np.array([6, 2**64 - 1], np.uint64)
    write_removals(str(path), pages, units, *keepers, "build")
    stored = take_apart(path, b"removals")
    assert stored.head == {"build_id": "build", "pages": 3, "units": 65_538}
    assert stored.names == ["page keepers", "unit keepers", "unit keepers", "pages", "units",
                            "units"]  # fmt: skip
    assert stored.numbers == [[]] * 6
    assert stored.unpacked[0] == struct.pack("<Q", 5)
    assert stored.unpacked[1:3] == [struct.pack("<Q", 6), struct.pack("<Q", 2**64 - 1)]
    assert stored.unpacked[3] == b"\x40"
    assert stored.unpacked[4] == b"\x20" + bytes(8191)
    assert stored.unpacked[5] == b"\x40"
    with Removals(str(path), "build") as removals:
        assert removals.units(65_535, 3).tolist() == [False, False, True]
        assert removals.keeper_of_unit(65_537) == 2**64 - 1
        assert removals.keeper_of_unit(2) == 6


def test_a_large_file_is_verified_piece_by_piece(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a")
    write_container(path, "some", {}, [Part("x", bytes(9 << 20), compress=False)])
    asked = []
    opened = storage.open_raw

    def watched(path: str, scattered: bool = False) -> Any:
        file = opened(path, scattered)
        if scattered:
            return file
        read = file.read
        monkeypatch.setattr(file, "read", lambda size: asked.append(size) or read(size))
        return file

    with Container(path, "some") as file:
        monkeypatch.setattr(storage, "open_raw", watched)
        file.verify()
    assert asked == [24, 4 << 20, 4 << 20, 1 << 20]


def test_the_first_batch_is_as_large_as_the_others(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    for sizes, counts in (([262_144, 1], [1, 1]), ([262_143, 1, 1], [2, 1])):
        rows = [row(n, n, False, 1, "x" * size) for n, size in enumerate(sizes)]
        write_cleaned(str(path), table_of(rows), {})
        assert [numbers[5] for numbers in take_apart(path, b"cleaned").numbers] == counts


def test_errors_say_the_same_after_a_worker_has_sent_them() -> None:
    told = {
        DamagedFileError("a", ValueError("some")): "a is damaged (some): run the same build again "
        "with --verify to rebuild it",
        OtherVersionError("a"): "a was written by another version of Colossal: run the same build "
        "again to rebuild it",
        OtherBuildError("a"): "a belongs to another build: is another build running in this "
        "folder? If not, run the same build again",
    }
    for error, message in told.items():
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), message)
        assert str(error) == message
    assert DamagedFileError("a", ValueError("some")).args == ("a", "some")


def test_an_end_that_is_missing_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    write_container(str(path), "some", {}, [])
    content = path.read_bytes()
    for damaged in (b"", content[:-1], content[:51], bytes(52)):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError) as caught:
            Container(str(path), "some")
        assert caught.value.reason == "its end is missing or changed"


@pytest.mark.parametrize("counts", [(2, 6), (4, 6), (3, 5), (3, 7)])
def test_removals_of_another_number_of_pages_or_units_are_refused(
    tmp_path: pathlib.Path, counts: tuple[int, int]
) -> None:
    path, removals = str(tmp_path / "a"), str(tmp_path / "b")
    write_cleaned(path, table_of([row(n, n, False, 2, "x") for n in range(3)]), {})
    for numbers in ((3, 6), counts):
        write_removals(removals, *(np.zeros(n, bool) for n in numbers), None, None, "build")
        with CleanedFile(path) as cleaned:
            if numbers == (3, 6):
                open_removals(removals, cleaned, "build").close()
                open_removals(removals, cleaned, None).close()
                continue
            with pytest.raises(OtherBuildError, match="b belongs to another build"):
                open_removals(removals, cleaned, "build")
