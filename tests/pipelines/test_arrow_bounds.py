import io
import pathlib
import struct
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.arrow_bounds import BoundedFile, require_uncompressed
from pipelines.handover import CleanedFile, read_fingerprints
from tests.limited import run_limited

LINUX = pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="memory is bounded as Linux does it"
)
MIB = 1 << 20


def arrow_file(columns: dict[str, Any], compression: str | None, batch_rows: int) -> bytes:
    table = pa.table(columns)
    file = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return file.getvalue()


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@settings(max_examples=25)
@given(
    texts=st.lists(st.text("ab", max_size=50) | st.none(), min_size=1, max_size=20),
    rows=st.integers(1, 7),
    spare=st.integers(0, 64),
)
def test_a_batch_passes_exactly_when_arrow_needs_no_more(
    compression: str | None, texts: list[str | None], rows: int, spare: int
) -> None:
    content = arrow_file({"text": texts, "number": range(len(texts))}, compression, rows)
    whole = pa.ipc.open_file(io.BytesIO(content))
    for number in range(whole.num_record_batches):
        columns = whole.get_batch(number).columns
        buffers = [buffer for column in columns for buffer in column.buffers() if buffer]
        needed = sum(buffer.size for buffer in buffers)
        BoundedFile(io.BytesIO(content), max(needed, len(content)) + spare).check(number)
        if needed > len(content):
            with pytest.raises(ValueError, match=f"batch {number} unpacks to {needed:,} bytes"):
                BoundedFile(io.BytesIO(content), needed - 1).check(number)


def test_arrow_reads_through_it_and_fetches_a_checked_batch_once() -> None:
    content = arrow_file({"text": ["a" * 999, "b", None, "d"]}, "lz4", 2)

    class Watched(io.BytesIO):
        fetched = 0

        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            Watched.fetched += len(found)
            return found

    file = BoundedFile(Watched(content), MIB)
    reader = pa.ipc.open_file(pa.PythonFile(file, mode="r"))
    for number, expected in enumerate([["a" * 999, "b"], [None, "d"]]):
        file.check(number)
        before = Watched.fetched
        assert reader.get_batch(number).column(0).to_pylist() == expected
        assert Watched.fetched == before
    with pytest.raises(ValueError, match="no batch 2 among 2"):
        file.check(2)
    file.close()
    assert file.closed


def test_every_damage_is_a_value_error() -> None:
    content = arrow_file({"text": ["a" * 999, "b", None, "d"]}, "lz4", 2)
    for stored in (b"", b"ARROW1", content[:-1], content[:100], bytes(200), content[::-1]):
        with pytest.raises(ValueError, match=r"Arrow file|bytes"):
            BoundedFile(io.BytesIO(stored), MIB)
    damaged = 0
    for at in range(len(content)):
        for value in (0, 0x7F, 0xFF):
            changed = content[:at] + bytes([value]) + content[at + 1 :]
            try:
                file = BoundedFile(io.BytesIO(changed), MIB)
                file.check(0)
                file.check(1)
            except ValueError:
                damaged += 1
    assert damaged > 100


def test_uncompressed_files_only() -> None:
    columns = {"text": ["a" * 999, "b", None, "d"]}
    require_uncompressed(arrow_file(columns, None, 2))
    for compression in ("lz4", "zstd"):
        with pytest.raises(ValueError, match=r"batch 0 (is compressed|unpacks to)"):
            require_uncompressed(arrow_file(columns, compression, 2))


# Bombs, read as a build that goes on reads them ---------------------------------------------------

MAKE = """\
import sys
import pyarrow as pa
from pipelines import handover
from pipelines.quiet_beam import beam
handover._MOST_BATCH_BYTES = 64 << 20
"""
READ_CLEANED = """\
try:
    with handover.CleanedFile(argument["path"]) as file:
        result = sum(len(rows) for rows, _, _ in file.slices(0, 0, 1 << 64))
except ValueError as error:
    result = str(error)
"""
READ_PRINTS = """\
try:
    result = len(handover.read_fingerprints(argument["path"]).timestamps)
except ValueError as error:
    result = str(error)
"""


def cleaned_bomb(path: pathlib.Path, mebibytes: int) -> None:
    """A cleaned file of one page of that many MiB, as LZ4 packs them: 255 to one."""
    from pipelines import handover

    row = dict.fromkeys(("url", "timestamp", "content_type", "content_length"), "")
    row |= {"text": "a" * (mebibytes * MIB), "validation": False, "page_key": 0, "lines": 1}
    row |= {"digest": bytes(16), "unit_starts": []}
    handover.write_cleaned(str(path), pa.Table.from_pylist([row], handover.CLEANED_SCHEMA), {})


@LINUX
def test_a_bomb_in_a_cleaned_file_is_refused_before_it_unpacks(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "bomb.arrow"
    cleaned_bomb(path, 300)
    assert path.stat().st_size < 5 * MIB
    cost = run_limited(MAKE, READ_CLEANED, 256 * MIB, path=str(path))
    assert cost.result.startswith(f"{path}: damaged inside: batch 0 unpacks to 314,572,")
    assert cost.result.endswith("bytes, 67,108,864 allowed; remove this file")
    assert cost.peak_bytes < 128 * MIB


@LINUX
def test_a_length_that_is_a_lie_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lie.arrow"
    cleaned_bomb(path, 1)
    content = path.read_bytes()
    declared = struct.pack("<q", MIB) + b"\x04\x22\x4d\x18"  # and LZ4's magic
    assert content.count(declared) == 1
    path.write_bytes(content.replace(declared, struct.pack("<q", 1 << 50) + declared[8:]))
    cost = run_limited(MAKE, READ_CLEANED, 256 * MIB, path=str(path))
    assert "unpacks to 1,125,899," in cost.result
    path.write_bytes(content.replace(declared, struct.pack("<q", MIB - 1) + declared[8:]))
    assert "damaged inside" in run_limited(MAKE, READ_CLEANED, 256 * MIB, path=str(path)).result


@LINUX
def test_a_compressed_fingerprint_file_is_refused(tmp_path: pathlib.Path) -> None:
    from pipelines.handover import FINGERPRINT_SCHEMA

    path = tmp_path / "bomb.arrow"
    row = {"url_identity": bytes(16), "timestamp": "", "digest": bytes(16), "rank": 0}
    table = pa.Table.from_pylist([{**row, "units": bytes(512 * MIB)}], FINGERPRINT_SCHEMA)
    with pa.ipc.new_file(
        str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(table)
    cost = run_limited(MAKE, READ_PRINTS, 256 * MIB, path=str(path))
    assert cost.result.startswith(f"{path}: not a whole fingerprint file: batch 0 unpacks to 536,8")
    assert cost.peak_bytes < 128 * MIB


# Made up: whole by their own account --------------------------------------------------------------


def test_offsets_beyond_their_buffer_are_refused(tmp_path: pathlib.Path) -> None:
    """Reading on would leave the process's memory."""
    from pipelines import handover

    row: dict[str, Any] = dict.fromkeys(("url", "timestamp", "content_type"), "")
    row |= {"text": "x" * 12_345, "content_length": "", "validation": False, "page_key": 0}
    row |= {"digest": bytes(16), "unit_starts": [], "lines": 1}
    table = pa.Table.from_pylist([row], handover.CLEANED_SCHEMA)
    index = [[0, 0, 0, 0, 0, 1, 0]]
    schema = table.schema.with_metadata(
        {handover._SUMMARY_KEY: "{}", handover._INDEX_KEY: str(index)}
    )
    path = tmp_path / "made-up.arrow"
    with pa.ipc.new_file(str(path), schema) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata))
    content = path.read_bytes()
    offsets = struct.pack("<qq", 0, 12_345)
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, struct.pack("<qq", 0, 1 << 40)))
    with CleanedFile(str(path)) as file, pytest.raises(ValueError, match="damaged inside"):
        list(file.slices(0, 0, 1 << 64))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"units": bytes(15)}, "units of other than 16 bytes"),
        ({"timestamp": None}, "a timestamp is missing"),
        ({"units": None}, "a units is missing"),
    ],
)
def test_fingerprints_of_no_build_are_refused(
    changes: dict[str, Any], words: str, tmp_path: pathlib.Path
) -> None:
    from pipelines.handover import FINGERPRINT_SCHEMA, write_fingerprints

    row = {"url_identity": bytes(16), "timestamp": "", "digest": bytes(16), "rank": 0}
    row |= {"units": b"", **changes}
    path = str(tmp_path / "a.arrow")
    write_fingerprints(path, pa.Table.from_pylist([row], FINGERPRINT_SCHEMA), 1, "x")
    with pytest.raises(ValueError, match=words):
        read_fingerprints(path)


def test_more_cleaned_pages_than_pages_are_refused(tmp_path: pathlib.Path) -> None:
    from pipelines.handover import FINGERPRINT_SCHEMA, write_fingerprints

    path = str(tmp_path / "a.arrow")
    for count in (-1, 1):
        write_fingerprints(path, FINGERPRINT_SCHEMA.empty_table(), count, "x")
        with pytest.raises(ValueError, match=f"{count} cleaned pages of 0"):
            read_fingerprints(path)


def test_columns_of_other_types_are_refused(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "a.arrow")
    with pa.ipc.new_file(path, pa.schema([("units", pa.int8())])) as writer:
        writer.write_table(pa.table({"units": pa.array([1], pa.int8())}))
    with pytest.raises(ValueError, match="not a whole cleaned file: its columns are units, or of"):
        CleanedFile(path)
