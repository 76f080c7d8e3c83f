import itertools
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines import storage
from pipelines.corpus import cleaned, layout
from pipelines.corpus.cleaned import (
    CLEANED_SCHEMA,
    CleanedFile,
    Dropped,
    shard_order,
    write_cleaned,
)
from pipelines.corpus.container import DamagedFileError, write_container
from pipelines.corpus.fingerprints import FINGERPRINT_SCHEMA, write_fingerprints

WITH_FILES = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KEYS = st.sampled_from([0, 1, 5, 6, 7, 2**32, 2**63, 2**64 - 2, 2**64 - 1])


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.os, "fsync", lambda descriptor: None)


def row(number: int, key: int, validation: bool, units: int, text: str) -> dict[str, Any]:
    return {
        "url": f"http://{number}.example/",
        "text": text,
        "timestamp": "2019-04-18T10:00:00Z",
        "content_type": "text/plain",
        "content_length": str(len(text)),
        "language": None if number % 3 == 0 else "en",
        "language_probability": None if number % 3 == 0 else 0.5,
        "validation": validation,
        "page_key": key,
        "digest": bytes([number % 2]) + number.to_bytes(15, "big"),
        "lines": 1,
        "unit_starts": list(range(units)),
        "offset": number * 1000,
        "inner_offset": number % 2,
        "record_id": None if number % 4 == 0 else number.to_bytes(16, "little"),
    }


ROWS = st.lists(
    st.tuples(KEYS, st.booleans(), st.integers(0, 4), st.text("aé😀", max_size=12)), max_size=40
).map(lambda drawn: [row(number, *rest) for number, rest in enumerate(drawn)])


def in_shard_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda page: (page["validation"], page["page_key"], page["digest"]))


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, CLEANED_SCHEMA)


# ------------------------------------------------------------------------------- cleaned files


@given(rows=ROWS)
@settings(deadline=None)
def test_shard_order_is_split_then_key_then_digest_byte_by_byte(rows: list[dict[str, Any]]) -> None:
    table = table_of(rows)
    assert table.take(shard_order(table)).to_pylist() == in_shard_order(rows)


@example(  # a range that ends before it begins, within one batch
    rows=[row(n, key, True, 0, "") for n, key in enumerate([0, 1, 5])],
    ranges=[(1, 5, 1)],
    batch_rows=3,
    batch_bytes=1 << 18,
)
@given(
    rows=ROWS,
    ranges=st.lists(
        st.tuples(st.integers(0, 1), KEYS | st.just(3), KEYS | st.just(2**64)), min_size=1
    ),
    batch_rows=st.integers(1, 5),
    batch_bytes=st.sampled_from([1, 10, 30, 1 << 18]),
)
@WITH_FILES
def test_slices_are_the_filtered_table_with_the_right_page_and_unit_indices(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[dict[str, Any]],
    ranges: list[tuple[int, int, int]],
    batch_rows: int,
    batch_bytes: int,
) -> None:
    monkeypatch.setattr(cleaned, "BATCH_ROWS", batch_rows)
    monkeypatch.setattr(cleaned, "BATCH_TEXT_BYTES", batch_bytes)
    rows = in_shard_order(rows)
    first_units = np.cumsum([0] + [len(page["unit_starts"]) for page in rows]).tolist()
    path = str(tmp_path / "a.arrow")
    write_cleaned(path, table_of(rows), {"said": ["é", 1]})
    with CleanedFile(path) as file:
        assert file.summary == {"said": ["é", 1]}
        assert file.pages == len(rows)
        assert file.units == first_units[-1]
        file.verify()
        for split, low, high in ranges:
            expected = [
                (page, number, first_units[number])
                for number, page in enumerate(rows)
                if page["validation"] == bool(split) and low <= page["page_key"] < high
            ]
            found = []
            for pages, first_page, unit in file.slices(split, low, high):
                assert 0 < len(pages) <= batch_rows
                for page in pages.to_pylist():
                    found.append((page, first_page, unit))
                    first_page += 1
                    unit += len(page["unit_starts"])
            assert found == expected


def test_batches_end_at_the_row_that_fills_them_and_where_the_split_changes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaned, "BATCH_TEXT_BYTES", 10)
    monkeypatch.setattr(cleaned, "BATCH_ROWS", 3)
    sizes = [4, 4, 4, 20, 1, 1, 1, 1]
    rows = [row(i, i, False, 1, "x" * size) for i, size in enumerate(sizes)]
    rows += [row(9, 0, True, 1, "x"), row(10, 1, True, 1, "x")]
    path = str(tmp_path / "a.arrow")
    write_cleaned(path, table_of(rows), {})
    with CleanedFile(path) as file:
        lengths = [[len(pages) for pages, _, _ in file.slices(split, 0, 2**64)] for split in (0, 1)]
    assert lengths == [[3, 1, 3, 1], [2]]


def test_only_batches_of_the_range_are_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaned, "BATCH_ROWS", 1)
    path = str(tmp_path / "a.arrow")
    write_cleaned(path, table_of([row(i, i, False, 1, "x") for i in range(20)]), {})
    with CleanedFile(path) as file:
        asked = []
        read = file._file.read

        def watched(number: int) -> pa.Buffer:
            asked.append(number)
            return read(number)

        monkeypatch.setattr(file._file, "read", watched)
        assert len(list(file.slices(0, 7, 9))) == 2
    assert asked == [7, 8]


# ------------------------------------------------------------------------------- dropped pages


@given(
    pages=st.lists(
        st.tuples(
            st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.sampled_from(["a", "b", "c"])
        ),
        max_size=30,
    ),
    block=st.integers(1, 9),
)
@WITH_FILES
def test_dropped_pages_come_back_in_order(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    pages: list[tuple[int, int, str]],
    block: int,
) -> None:
    monkeypatch.setattr(cleaned, "_DROPPED_ROWS", block)
    names = tuple(dict.fromkeys(verdict for _, _, verdict in pages))
    dropped = Dropped(
        np.array([key for key, _, _ in pages], np.uint64),
        np.array([offset for _, offset, _ in pages], np.uint64),
        np.array([names.index(verdict) for _, _, verdict in pages], np.uint8),
        names,
    )
    path = str(tmp_path / "a.arrow")
    write_cleaned(path, table_of([row(1, 1, False, 2, "a")]), {}, dropped)
    with CleanedFile(path) as file:
        found = file.dropped()
        assert file.pages == 1
    assert found.keys.dtype == found.offsets.dtype == np.uint64
    assert [*zip(found.keys.tolist(), found.offsets.tolist(), found.verdicts, strict=True)] == pages


def test_a_verdict_without_a_name_is_refused(tmp_path: pathlib.Path) -> None:
    one = np.ones(1, np.uint64)
    path = str(tmp_path / "a.arrow")
    write_cleaned(path, table_of([]), {}, Dropped(one, one, np.ones(1, np.uint8), ("only",)))
    with CleanedFile(path) as file, pytest.raises(DamagedFileError, match="verdict 1 of 1"):
        file.dropped()


# -------------------------------------------------------------------- whole by their own account


def test_a_fingerprint_file_is_no_cleaned_file(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "a.arrow")
    write_fingerprints(path, FINGERPRINT_SCHEMA.empty_table(), 0, "x")
    with pytest.raises(DamagedFileError, match="a file of fingerprints, not of cleaned"):
        CleanedFile(path)


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"summary": {}},
        {"summary": [], "verdicts": []},
        {"summary": {}, "verdicts": [1]},
        {"summary": {}, "verdicts": 1},
    ],
)
def test_a_head_that_no_build_writes_is_refused(
    tmp_path: pathlib.Path, head: dict[str, Any]
) -> None:
    path = str(tmp_path / "a.arrow")
    write_container(path, "cleaned", head, [])
    with pytest.raises(DamagedFileError, match=r"a\.arrow is damaged"):
        CleanedFile(path)


def test_offsets_beyond_their_buffer_are_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading on would leave the process's memory."""
    pack = cleaned.pack_batch

    def made_up(rows: pa.RecordBatch) -> bytes:
        content = bytes(pack(rows))
        offsets = np.array([0, 12_345], np.int64).tobytes()
        assert content.count(offsets) == 1
        return content.replace(offsets, np.array([0, 1 << 40], np.int64).tobytes())

    path = str(tmp_path / "a.arrow")
    monkeypatch.setattr(cleaned, "pack_batch", made_up)
    write_cleaned(path, table_of([row(1, 1, False, 2, "a" * 12_345)]), {})
    with CleanedFile(path) as file, pytest.raises(DamagedFileError, match="is damaged"):
        list(file.slices(0, 0, 2**64))


# Of pages without the others no file can be written.
@pytest.mark.parametrize(
    "name", sorted({*CLEANED_SCHEMA.names} - {"page_key", "validation", "text", "unit_starts"})
)
def test_only_some_columns_may_lack_values(tmp_path: pathlib.Path, name: str) -> None:
    path = str(tmp_path / "a.arrow")
    table = table_of([row(1, 1, False, 2, "a")])
    gone = pa.array([None], CLEANED_SCHEMA.field(name).type)
    table = table.set_column(table.schema.get_field_index(name), name, gone)
    write_cleaned(path, table, {})
    with CleanedFile(path) as file:
        if name in ("language", "language_probability", "record_id"):
            [(rows, _, _)] = file.slices(0, 0, 2**64)
            assert rows[name].to_pylist() == [None]
        else:
            with pytest.raises(DamagedFileError, match=f"a {name} is missing"):
                list(file.slices(0, 0, 2**64))


def test_a_batch_of_fewer_rows_than_the_table_says_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.arrow")
    pack = cleaned.pack_batch
    monkeypatch.setattr(cleaned, "pack_batch", lambda rows: pack(rows.slice(0, 1)))
    write_cleaned(path, table_of([row(i, i, False, 2, "a") for i in range(3)]), {})
    with CleanedFile(path) as file, pytest.raises(DamagedFileError, match="1 rows of 3"):
        list(file.slices(0, 0, 2**64))


def test_every_range_of_a_few_pages(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaned, "BATCH_ROWS", 3)
    keys = [0, 2, 2, 4, 6, 6, 6, 8]
    rows = [row(n, key, split, n % 3, "x") for split in (False, True) for n, key in enumerate(keys)]
    first_units = np.cumsum([0] + [len(page["unit_starts"]) for page in rows]).tolist()
    path = str(tmp_path / "a")
    write_cleaned(path, table_of(rows), {})
    with CleanedFile(path) as file:
        for split, low, high in itertools.product((0, 1), range(10), range(10)):
            wanted = [
                number
                for number, page in enumerate(rows)
                if page["validation"] == bool(split) and low <= page["page_key"] < high
            ]
            found = list(file.slices(split, low, high))
            assert all(len(pages) for pages, _, _ in found)
            assert [page for pages, _, _ in found for page in pages.to_pylist()] == [
                rows[number] for number in wanted
            ]
            numbers = [first + at for pages, first, _ in found for at in range(len(pages))]
            assert numbers == wanted
            assert [unit for _, _, unit in found] == [first_units[first] for _, first, _ in found]


def test_batches_have_256_rows_wherever_they_begin(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "a")
    rows = [row(n, n, False, 0, "x" * (262_144 if n == 0 else 1)) for n in range(301)]
    write_cleaned(path, table_of(rows), {})
    with CleanedFile(path) as file:
        assert [len(pages) for pages, _, _ in file.slices(0, 0, 2**64)] == [1, 256, 44]
    assert layout.SPLITS == ("train", "validation")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000])
def test_ranges_share_out_all_keys(count: int) -> None:
    ranges = [cleaned.key_range(index, count) for index in range(count)]
    assert [low for low, _ in ranges] == [0, *(high for _, high in ranges[:-1])]
    assert ranges[-1][1] == 2**64
    for index, (low, high) in enumerate(ranges):
        assert low * count >> 64 == (high - 1) * count >> 64 == index
