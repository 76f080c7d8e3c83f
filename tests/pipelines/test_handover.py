import hashlib
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines import handover, storage
from pipelines.handover import (
    CLEANED_SCHEMA,
    FINGERPRINT_SCHEMA,
    CleanedFile,
    Removals,
    read_fingerprints,
    shard_order,
    write_cleaned,
    write_fingerprints,
    write_removals,
)

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
    monkeypatch.setattr(handover, "_BATCH_ROWS", batch_rows)
    monkeypatch.setattr(handover, "_BATCH_TEXT_BYTES", batch_bytes)
    rows = in_shard_order(rows)
    first_units = np.cumsum([0] + [len(page["unit_starts"]) for page in rows]).tolist()
    path = str(tmp_path / "a.arrow")
    write_cleaned(path, table_of(rows), {"said": ["é", 1]})
    with CleanedFile(path) as file:
        assert file.summary == {"said": ["é", 1]}
        assert file.pages == len(rows)
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
    monkeypatch.setattr(handover, "_BATCH_TEXT_BYTES", 10)
    monkeypatch.setattr(handover, "_BATCH_ROWS", 3)
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
    monkeypatch.setattr(handover, "_BATCH_ROWS", 1)
    path = str(tmp_path / "a.arrow")
    write_cleaned(path, table_of([row(i, i, False, 1, "x") for i in range(20)]), {})
    with CleanedFile(path) as file:
        asked = []
        reader = file._reader

        class Watched:
            def get_batch(self, number: int) -> pa.RecordBatch:
                asked.append(number)
                return reader.get_batch(number)

        file._reader = Watched()
        assert len(list(file.slices(0, 7, 9))) == 2
    assert asked == [7, 8]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    write_cleaned(str(folder / "cleaned"), table_of([row(i, i, False, 2, "a") for i in (1, 2)]), {})
    write_fingerprints(
        str(folder / "prints"), prints([(b"u" * 16, "t", b"d" * 16, 1, b"")]), 1, "wet"
    )
    return {path.name: path.read_bytes() for path in folder.iterdir()}


GARBAGE = {
    "empty": lambda content: b"",
    "garbage": lambda content: b"not arrow at all\n" * 40,
    "zeros": lambda content: bytes(len(content)),
    "magic alone": lambda content: content[:8],
    "magic at both ends": lambda content: b"ARROW1\0\0" + bytes(64) + b"ARROW1",
    "half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
}


@pytest.mark.parametrize("damage", GARBAGE)
@pytest.mark.parametrize(
    ("kind", "what"), [("cleaned", "cleaned file"), ("prints", "fingerprint file")]
)
def test_a_file_that_is_not_whole_is_refused_by_name(
    tmp_path: pathlib.Path, whole: dict[str, bytes], damage: str, kind: str, what: str
) -> None:
    path = tmp_path / "some.arrow"
    path.write_bytes(GARBAGE[damage](whole[kind]))
    with pytest.raises(ValueError, match=rf"some\.arrow: not a whole {what}: "):
        (CleanedFile if kind == "cleaned" else read_fingerprints)(str(path))


@pytest.mark.parametrize("kind", ["cleaned", "prints"])
def test_a_file_cut_anywhere_is_refused(
    tmp_path: pathlib.Path, whole: dict[str, bytes], kind: str
) -> None:
    content = whole[kind]
    path = tmp_path / "some.arrow"
    for size in {*range(0, len(content), 37), *range(len(content) - 12, len(content))}:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="not a whole"):
            (CleanedFile if kind == "cleaned" else read_fingerprints)(str(path))


def test_a_file_whose_head_is_lost_is_named_when_its_pages_are_read(
    tmp_path: pathlib.Path, whole: dict[str, bytes]
) -> None:
    # The footer, at the end, is whole: Arrow opens such a file.
    path = tmp_path / "some.arrow"
    path.write_bytes(whole["cleaned"][len(whole["cleaned"]) // 2 :])
    with (
        pytest.raises(ValueError, match=r"some\.arrow: "),
        CleanedFile(str(path)) as file,
    ):
        list(file.slices(0, 0, 2**64))
    path.write_bytes(whole["prints"][len(whole["prints"]) // 2 :])
    with pytest.raises(ValueError, match=r"some\.arrow: not a whole fingerprint file: "):
        read_fingerprints(str(path))


def test_each_kind_of_file_is_refused_as_the_other(
    tmp_path: pathlib.Path, whole: dict[str, bytes]
) -> None:
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="not a whole cleaned file"):
        CleanedFile(str(tmp_path / "prints"))
    with pytest.raises(ValueError, match="not a whole fingerprint file"):
        read_fingerprints(str(tmp_path / "cleaned"))


def test_a_missing_file_is_an_os_error(tmp_path: pathlib.Path) -> None:
    for opened in (CleanedFile, read_fingerprints):
        with pytest.raises(OSError, match="absent"):
            opened(str(tmp_path / "absent"))


# --------------------------------------------------------------------------- fingerprint files


def prints(rows: list[tuple[bytes, str, bytes, int, bytes]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * 5
    return pa.table(
        [
            pa.array(values, type_)
            for values, type_ in zip(columns, FINGERPRINT_SCHEMA.types, strict=True)
        ],
        schema=FINGERPRINT_SCHEMA,
    )


BYTES_16 = st.binary(min_size=16, max_size=16)


@given(
    kept=st.lists(
        st.tuples(
            BYTES_16,
            st.text("0123456789-TZé", max_size=20),
            BYTES_16,
            st.integers(0, 2**64 - 1),
            st.integers(0, 3).flatmap(lambda n: st.binary(min_size=16 * n, max_size=16 * n)),
        ),
        max_size=8,
    ),
    dropped=st.lists(
        st.tuples(BYTES_16, st.just("2019"), BYTES_16, st.just(0), st.just(b"")), max_size=4
    ),
)
@WITH_FILES
def test_fingerprints_come_back(
    tmp_path: pathlib.Path, kept: list[Any], dropped: list[Any]
) -> None:
    rows = kept + dropped
    path = str(tmp_path / "a.arrow")
    # In two chunks: a file of several would be read as its first alone.
    write_fingerprints(path, pa.concat_tables([prints(kept), prints(dropped)]), len(kept), "wet")
    file = read_fingerprints(path)
    assert file.cleaned_pages == len(kept)
    assert file.url_identities.shape == (len(rows), 2)
    assert [ids.astype("<u8").tobytes() for ids in file.url_identities] == [r[0] for r in rows]
    assert file.timestamps == [r[1] for r in rows]
    assert file.digests.shape == (len(rows), 16)
    assert [digest.tobytes() for digest in file.digests] == [r[2] for r in rows]
    assert file.ranks.tolist() == [r[3] for r in rows]
    assert file.units_per_page.tolist() == [len(r[4]) // 16 for r in rows]
    assert file.units.shape == (sum(len(r[4]) for r in rows) // 16, 2)
    assert file.units.astype("<u8").tobytes() == b"".join(r[4] for r in rows)


# ------------------------------------------------------------------------------- removal files


@given(pages=st.lists(st.booleans(), max_size=20), units=st.lists(st.booleans(), max_size=40))
@WITH_FILES
def test_removals_give_any_range(
    tmp_path: pathlib.Path, pages: list[bool], units: list[bool]
) -> None:
    path = str(tmp_path / "a.bin")
    write_removals(path, np.array(pages, bool), np.array(units, bool))
    with Removals(path, len(pages)) as removals:
        # Backwards, so that no read relies on where the last one ended.
        for first in range(len(units), -1, -7):
            count = min(5, len(units) - first)
            assert removals.units(first, count).tolist() == units[first : first + count]
        for first in range(len(pages), -1, -3):
            count = min(4, len(pages) - first)
            assert removals.pages(first, count).tolist() == pages[first : first + count]
        with pytest.raises(ValueError, match=r"a\.bin: too short: "):
            removals.units(len(units), 1)
        assert removals.units(0, 0).dtype == bool


def read_all(path: str, kind: str) -> None:
    if kind == "prints":
        read_fingerprints(path)
        return
    with CleanedFile(path) as file:
        list(file.slices(0, 0, 2**64))


@pytest.mark.parametrize("kind", ["cleaned", "prints"])
def test_a_changed_byte_of_the_content_is_noticed(kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "some.arrow"
    needle = hashlib.sha512(b"what no compression shortens").hexdigest()[:64]
    if kind == "prints":
        units = needle.encode()
        write_fingerprints(str(path), prints([(b"u" * 16, "t", b"d" * 16, 1, units)]), 1, "wet")
    else:
        write_cleaned(str(path), table_of([row(1, 1, False, 2, needle)]), {})
    content = path.read_bytes()
    start = content.index(needle.encode())
    for place in range(start, start + 64, 9):
        path.write_bytes(content[:place] + b"#" + content[place + 1 :])
        with pytest.raises(ValueError, match=r"some\.arrow.*remove this file"):
            read_all(str(path), kind)
