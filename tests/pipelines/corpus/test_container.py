"""The format of all kept files: what is read is what was written, or the file is refused."""

import json
import os
import pathlib
import pickle
import random
import struct
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import storage
from pipelines.corpus import container
from pipelines.corpus.cleaned import CleanedFile, Dropped, write_cleaned
from pipelines.corpus.container import (
    Container,
    DamagedFileError,
    OtherVersionError,
    Part,
    write_container,
)
from pipelines.corpus.fingerprints import read_fingerprints, write_fingerprints
from pipelines.corpus.removals import OtherBuildError, Removals, write_removals
from testing.limited import run_limited
from tests.pipelines.corpus.test_cleaned import row, table_of
from tests.pipelines.corpus.test_fingerprints import prints

MIB = 1 << 20
LINUX = pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="memory is bounded as Linux does it"
)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.os, "fsync", lambda descriptor: None)


@pytest.mark.slow
@given(
    parts=st.lists(
        st.tuples(
            st.text(max_size=3),
            st.binary(max_size=99) | st.binary(max_size=9).map(lambda some: some * 999),
            st.lists(st.integers(0, 2**64 - 1), max_size=3).map(tuple),
            st.booleans(),
        ).map(lambda drawn: Part(*drawn)),
        max_size=5,
    ),
    head=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3),
    whole=st.booleans(),
    tail=st.sampled_from([0, 10, 28, 100, 64 << 10]),
)
@settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_sections_come_back(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    parts: list[Part],
    head: dict[str, Any],
    whole: bool,
    tail: int,
) -> None:
    monkeypatch.setattr(container, "_TAIL_BYTES", tail)
    path = str(tmp_path / "a")
    write_container(path, "some", head, parts)
    with Container(path, "some", whole) as file:
        assert file.head == head
        assert [(s.name, s.numbers) for s in file.sections] == [(p.name, p.numbers) for p in parts]
        for number in random.sample(range(len(parts)), len(parts)):
            assert file.read(number).to_pybytes() == parts[number].data
        file.verify()


def test_two_small_reads_find_a_section_in_a_large_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a")
    content = [os.urandom(300_000) for _ in range(9)]
    write_container(path, "some", {}, [Part("x", part) for part in content])
    asked = []
    opened = storage.open_raw

    def watched(path: str, scattered: bool = False) -> Any:
        file = opened(path, scattered)
        read = file.read

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def read(self, size: int) -> bytes:
                asked.append((file.tell(), size))
                return read(size)

        assert scattered
        return Watched()

    monkeypatch.setattr(storage, "open_raw", watched)
    with Container(path, "some") as file:
        assert file.read(4).to_pybytes() == content[4]
    size = os.path.getsize(path)
    assert asked == [(size - (64 << 10), 64 << 10), (file.sections[4].start, asked[1][1])]
    assert 300_000 < asked[1][1] < 302_000


def test_a_missing_file_is_an_os_error(tmp_path: pathlib.Path) -> None:
    for opened in (CleanedFile, read_fingerprints, Removals):
        with pytest.raises(FileNotFoundError, match=r"is missing; run .* with --verify.*absent'$"):
            opened(str(tmp_path / "absent"))


# --------------------------------------------------------------------------------------- damage


def kept_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """One file of each kind, as builds write them."""
    places = {kind: folder / f"{kind}.kept" for kind in ("cleaned", "prints", "removals", "piece")}
    pages = [row(i, i, i > 6, 2, f"Text {i} é. " * (i + 1)) for i in range(9)]
    numbers = np.arange(40, dtype=np.uint64)
    dropped = Dropped(numbers, numbers * 1000, np.zeros(40, np.uint8), ("few_sentences",))
    write_cleaned(str(places["cleaned"]), table_of(pages), {"identity": "x"}, dropped)
    rows = [(bytes([i] * 16), "2019", bytes(16), i, bytes([i] * 32)) for i in range(9)]
    write_fingerprints(str(places["prints"]), prints(rows), 5, "wet", "x")
    pages_gone, units_gone = numbers % 7 == 0, np.arange(1000) % 5 == 0
    write_removals(
        str(places["removals"]), pages_gone, units_gone,
        numbers[pages_gone], np.arange(1000, dtype=np.uint64)[units_gone], "build",
    )  # fmt: skip
    write_removals(str(places["piece"]), pages_gone, units_gone, None, None, "build")
    return places


def everything(kind: str, path: pathlib.Path) -> Any:
    """All that anybody reads of a file."""
    if kind == "prints":
        found = read_fingerprints(str(path))
        return [value if isinstance(value, (int, str, list)) else value.tobytes()
                for value in vars(found).values()]  # fmt: skip
    if kind == "cleaned":
        with CleanedFile(str(path)) as file:
            slices = [list(file.slices(split, 0, 2**64)) for split in (0, 1)]
            dropped = file.dropped()
            return (
                file.summary, file.pages, file.units,
                [(rows.to_pylist(), *rest) for some in slices for rows, *rest in some],
                (dropped.keys.tolist(), dropped.offsets.tolist(), dropped.verdicts),
            )  # fmt: skip
    with Removals(str(path), "build") as removals:
        counts = removals.page_count, removals.unit_count
        flags = removals.pages(0, counts[0]).tolist(), removals.units(0, counts[1]).tolist()
        if kind == "piece":
            return counts, flags
        return counts, flags, [
            [removals.keeper_of_page(i) for i in range(counts[0])],
            [removals.keeper_of_unit(i) for i in range(0, counts[1], 100)],
        ]  # fmt: skip


def verified(kind: str, path: pathlib.Path) -> None:
    """What a build that resumes does before it trusts a file."""
    if kind == "prints":
        read_fingerprints(str(path))
    elif kind == "cleaned":
        with CleanedFile(str(path)) as file:
            file.verify()
    else:
        with Container(str(path), "removals") as kept:
            kept.verify()


KINDS = ["cleaned", "prints", "removals", "piece"]


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_changes_what_is_read(tmp_path: pathlib.Path, kind: str, count: int) -> None:
    path = kept_files(tmp_path)[kind]
    content = path.read_bytes()
    good = everything(kind, path)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    places = random.Random(seed).sample(range(8 * len(content)), min(count, 8 * len(content)))
    for place in places:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises((DamagedFileError, OtherVersionError), match=rf"{kind}\.kept "):
            verified(kind, path)
        try:
            found = everything(kind, path)
        except (DamagedFileError, OtherVersionError):
            continue
        assert found == good, f"bit {place % 8} of byte {place // 8}, seed {seed}"


@pytest.mark.parametrize("kind", KINDS)
def test_no_cut_no_addition_and_no_gap_goes_unnoticed(tmp_path: pathlib.Path, kind: str) -> None:
    path = kept_files(tmp_path)[kind]
    content = path.read_bytes()
    chance = random.Random(kind)
    changes = [content[:size] for size in {*range(0, len(content), 37), len(content) - 1}]
    changes += [content[size:] for size in (1, 24, 25, len(content) // 2)]
    changes += [content + some for some in (b"\0", content, content[-28:], b"ARROW1")]
    for _ in range(50):
        at = chance.randrange(len(content))
        changes.append(content[:at] + bytes(chance.randrange(1, 9)) + content[at:])
        changes.append(content[:at] + content[at + chance.randrange(1, 9) :])
    for changed in changes:
        path.write_bytes(changed)
        with pytest.raises((DamagedFileError, OtherVersionError), match=rf"{kind}\.kept "):
            verified(kind, path)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_two_files_do_not_pass_for_one(tmp_path: pathlib.Path, kind: str) -> None:
    path = kept_files(tmp_path)[kind]
    content = path.read_bytes()
    numbers = np.arange(40, dtype=np.uint64)
    if kind == "cleaned":
        write_cleaned(
            str(path), table_of([row(9, i, False, 2, "b" * 20 * i) for i in range(9)]), {}
        )
    elif kind == "prints":
        write_fingerprints(str(path), prints([(b"x" * 16, "t", bytes(16), 1, b"")] * 9), 5, "wet")
    else:
        write_removals(str(path), numbers % 3 == 0, numbers % 2 == 0, None, None, "build")
    other = path.read_bytes()
    for at in range(24, min(len(content), len(other)), 11):
        for one, two in ((content, other), (other, content)):
            for spliced in (one[:at] + two[at:], one[:-at] + two[-at:]):
                if spliced in (one, two):
                    continue
                path.write_bytes(spliced)
                with pytest.raises(DamagedFileError, match=rf"{kind}\.kept is damaged"):
                    verified(kind, path)


@pytest.mark.parametrize(
    "content", [b"", b"not one of ours\n" * 40, bytes(5000), b"C4-KEPT\n", b"\xff" * 5000]
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_never_a_kept_file_is_refused(
    tmp_path: pathlib.Path, kind: str, content: bytes
) -> None:
    path = tmp_path / f"{kind}.kept"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"again with --verify to rebuild it"):
        verified(kind, path)


def test_files_of_other_versions_are_told_from_damaged_ones(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    with pa.ipc.new_file(str(path), pa.schema([("text", pa.string())])):
        pass
    with pytest.raises(OtherVersionError, match="another version of Colossal: run the same build"):
        CleanedFile(str(path))
    monkeypatch.setattr(container, "_VERSION", 99)
    places = kept_files(tmp_path)
    monkeypatch.undo()
    for kind, of_tomorrow in places.items():
        with pytest.raises(OtherVersionError, match="another version of Colossal"):
            verified(kind, of_tomorrow)


@pytest.mark.parametrize(
    "error",
    [DamagedFileError("/a.bin", ValueError("x")), OtherVersionError("/a"), OtherBuildError("/a")],
)
def test_errors_say_the_same_in_another_process(error: ValueError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


# --------------------------------------------------------- made up: whole by their own account


def rewrite_table(path: pathlib.Path, change: Any) -> None:
    """Changes a file's table, and makes the checksums fit."""
    content = path.read_bytes()
    magic, version, length, _ = struct.unpack_from("<8sIQI", content, len(content) - 28)
    end = len(content) - 28
    table = json.loads(content[end - length : end])
    change(table)
    stored = json.dumps(table).encode()
    trailer = struct.pack("<8sIQI", magic, version, len(stored), google_crc32c.value(stored))
    trailer += struct.pack("<I", google_crc32c.value(trailer))
    path.write_bytes(content[: end - length] + stored + trailer)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.pop("kind"),
        lambda table: table.pop("head"),
        lambda table: table.update(head=[]),
        lambda table: table.pop("sections"),
        lambda table: table.update(sections=7),
        lambda table: table["sections"].append([]),
        lambda table: table["sections"].append(["x", 1, -1, 0]),
        lambda table: table["sections"].append(["x", 0, -2, 0]),
        lambda table: table["sections"].append([7, 0, -1, 0]),
        lambda table: table["sections"].append(["x", 0, -1, 0, -1]),
        lambda table: table["sections"].append(["x", 0, -1, 0, 1 << 64]),
        lambda table: table["sections"].append(["x", 0, -1, 0, 1.5]),
        lambda table: table["sections"].append(["x", 0, -1, 0, True]),
        lambda table: table["sections"].append(["x", 0, (1 << 30) + 1, 0]),
        lambda table: table["sections"].pop(),
    ],
)
def test_a_table_that_no_build_writes_is_refused(tmp_path: pathlib.Path, change: Any) -> None:
    path = tmp_path / "a"
    write_container(str(path), "some", {}, [Part("x", b"content")])
    rewrite_table(path, change)
    with pytest.raises(DamagedFileError, match="is damaged"):
        Container(str(path), "some")


@pytest.mark.parametrize("length", [0, 6, 8, 1 << 29])
def test_a_length_that_is_a_lie_is_refused(tmp_path: pathlib.Path, length: int) -> None:
    path = tmp_path / "a"
    write_container(str(path), "some", {}, [Part("x", b"content")])

    def lie(table: Any) -> None:
        table["sections"][0][2] = length

    rewrite_table(path, lie)
    with Container(str(path), "some") as file:
        file.verify()
        with pytest.raises(DamagedFileError, match="section x unpacks to another length"):
            file.read(0)


def test_bytes_that_are_not_compressed_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    write_container(str(path), "some", {}, [Part("x", b"content", compress=False)])

    def lie(table: Any) -> None:
        table["sections"][0][2] = 7

    rewrite_table(path, lie)
    with Container(str(path), "some") as file, pytest.raises(DamagedFileError):
        file.read(0)


def test_a_section_that_no_reader_accepts_is_not_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_MOST_SECTION_BYTES", 100)
    write_container(str(tmp_path / "a"), "some", {}, [Part("x", bytes(100))])
    with pytest.raises(ValueError, match="b: x of 101 bytes: too large"):
        write_container(str(tmp_path / "b"), "some", {}, [Part("x", bytes(101))])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


MAKE = """\
from pipelines.corpus import container
from pipelines.corpus.cleaned import CleanedFile
from pipelines.quiet_beam import beam
container._MOST_SECTION_BYTES = 64 << 20
"""
READ = """\
try:
    with CleanedFile(argument["path"]) as file:
        result = sum(len(rows) for rows, _, _ in file.slices(0, 0, 1 << 64))
except ValueError as error:
    result = str(error)
"""


@pytest.mark.slow
@LINUX
def test_a_bomb_is_refused_before_it_unpacks(tmp_path: pathlib.Path) -> None:
    """One page of 300 MB, as LZ4 packs it: 255 to one."""
    path = tmp_path / "bomb.arrow"
    write_cleaned(str(path), table_of([row(1, 1, False, 0, "a" * (300 * MIB))]), {})
    assert path.stat().st_size < 5 * MIB
    cost = run_limited(MAKE, READ, 256 * MIB, path=str(path))
    assert "a section of 314,57" in cost.result
    assert cost.peak_bytes < 128 * MIB

    def lie(table: Any) -> None:
        table["sections"][0][2] = 60 * MIB

    rewrite_table(path, lie)
    cost = run_limited(MAKE, READ, 256 * MIB, path=str(path))
    assert "unpacks to another length" in cost.result
    assert cost.peak_bytes < 192 * MIB


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.update(head=[]), "no head"),
        (lambda table: table.update(kind="other"), "a file of other, not of some"),
        (lambda table: table["sections"].pop(), "its size does not match its sections"),
        (lambda table: table["sections"].append(["x", 1, -1, 0]),
         "its size does not match its sections"),
    ],
)  # fmt: skip
def test_the_reason_says_what_is_wrong_with_a_table(
    tmp_path: pathlib.Path, change: Any, reason: str
) -> None:
    path = tmp_path / "a"
    write_container(str(path), "some", {}, [Part("x", b"content")])
    rewrite_table(path, change)
    with pytest.raises(DamagedFileError) as caught:
        Container(str(path), "some")
    assert caught.value.reason == reason


def test_the_reason_says_which_checksum_does_not_match(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    write_container(str(path), "some", {}, [Part("x", b"content"), Part("y", b"other")])
    content = path.read_bytes()
    table = content.index(b'{"head"')
    for place, reason in (
        (table + 3, "checksum mismatch in the table of sections"),
        (table - 1, "checksum mismatch in section y"),
        (24, "checksum mismatch in section x"),
        (len(content) - 1, "its end is missing or changed"),
        (len(content) - 9, "its end is missing or changed"),
        (0, "its first bytes have changed"),
        (23, "its first bytes have changed"),
    ):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError) as caught, Container(str(path), "some") as file:
            file.verify()
        assert caught.value.reason == reason
        with pytest.raises(DamagedFileError) as caught, Container(str(path), "some", True) as file:
            [file.read(number) for number in (0, 1)]
        assert caught.value.reason == reason
