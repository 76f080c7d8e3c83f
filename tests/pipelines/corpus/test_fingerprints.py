import pathlib
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import storage
from pipelines.corpus.container import DamagedFileError, Part, write_container
from pipelines.corpus.fingerprints import (
    FINGERPRINT_SCHEMA,
    read_fingerprints,
    write_fingerprints,
)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.os, "fsync", lambda descriptor: None)


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
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_fingerprints_come_back(
    tmp_path: pathlib.Path, kept: list[Any], dropped: list[Any]
) -> None:
    rows = kept + dropped
    path = str(tmp_path / "a.arrow")
    # In two chunks: a file of several would be read as its first alone.
    write_fingerprints(
        path, pa.concat_tables([prints(kept), prints(dropped)]), len(kept), "wet", "id"
    )
    file = read_fingerprints(path)
    assert (file.cleaned_pages, file.source, file.identity) == (len(kept), "wet", "id")
    assert file.url_identities.shape == (len(rows), 2)
    assert [ids.astype("<u8").tobytes() for ids in file.url_identities] == [r[0] for r in rows]
    assert file.timestamps == [r[1] for r in rows]
    assert file.digests.shape == (len(rows), 16)
    assert [digest.tobytes() for digest in file.digests] == [r[2] for r in rows]
    assert file.ranks.tolist() == [r[3] for r in rows]
    assert file.units_per_page.tolist() == [len(r[4]) // 16 for r in rows]
    assert file.units.shape == (sum(len(r[4]) for r in rows) // 16, 2)
    assert file.units.astype("<u8").tobytes() == b"".join(r[4] for r in rows)


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
    row = {"url_identity": bytes(16), "timestamp": "", "digest": bytes(16), "rank": 0}
    row |= {"units": b"", **changes}
    path = str(tmp_path / "a.arrow")
    write_fingerprints(path, pa.Table.from_pylist([row], FINGERPRINT_SCHEMA), 1, "x")
    with pytest.raises(DamagedFileError, match=words):
        read_fingerprints(path)


def test_more_cleaned_pages_than_pages_are_refused(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "a.arrow")
    for count in (-1, 1, True):
        write_fingerprints(path, FINGERPRINT_SCHEMA.empty_table(), count, "x")
        with pytest.raises(DamagedFileError, match=f"{count} cleaned pages of 0"):
            read_fingerprints(path)


@pytest.mark.parametrize(
    ("head", "parts", "words"),
    [
        ({}, 1, "no 'cleaned_pages'"),
        ({"cleaned_pages": 0, "source": 1, "identity": ""}, 1, "its head is invalid"),
        ({"cleaned_pages": 0, "source": "", "identity": ""}, 0, "0 sections"),
        ({"cleaned_pages": 0, "source": "", "identity": ""}, 2, "2 sections"),
    ],
)
def test_what_no_build_writes_is_refused(
    tmp_path: pathlib.Path, head: dict[str, Any], parts: int, words: str
) -> None:
    path = str(tmp_path / "a.arrow")
    [rows] = prints([(bytes(16), "t", bytes(16), 1, b"")]).to_batches()
    write_container(
        path, "fingerprints", head, [Part("pages", rows.serialize(), compress=False)] * parts
    )
    with pytest.raises(DamagedFileError, match=words):
        read_fingerprints(path)
