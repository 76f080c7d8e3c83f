import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import storage
from pipelines.corpus import removals as removal_files
from pipelines.corpus.container import DamagedFileError, Part, write_container
from pipelines.corpus.removals import PAGE_VERDICTS, OtherBuildError, Removals, write_removals

KEYS = st.integers(0, 2**64 - 1)
GONE = st.lists(st.none() | KEYS, max_size=40)  # of each page or unit, who keeps it
CODES = st.lists(st.integers(1, len(PAGE_VERDICTS) - 1), min_size=40, max_size=40)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.os, "fsync", lambda descriptor: None)


def write(
    path: str,
    pages: list[int | None],
    units: list[int | None],
    build_id: str,
    codes: list[int] | None = None,
) -> None:
    flags: list[Any] = [
        np.array([keeper is not None for keeper in some], bool) for some in (pages, units)
    ]
    keepers = [np.array([k for k in some if k is not None], np.uint64) for some in (pages, units)]
    if codes is not None:
        flags[0] = np.array(codes, np.uint8)
    write_removals(path, *flags, *keepers, build_id)


@given(pages=GONE, units=GONE, codes=CODES | st.none(), block=st.sampled_from([1, 3, 8, 64]))
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_removals_give_any_range_and_any_keeper(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    pages: list[int | None],
    units: list[int | None],
    codes: list[int] | None,
    block: int,
) -> None:
    monkeypatch.setattr(removal_files, "_BLOCK", block)
    path = str(tmp_path / "a.bin")
    # Without codes, what is removed is a duplicate url.
    verdicts = [0 if k is None else code for k, code in zip(pages, codes or [1] * 40, strict=False)]
    write(path, pages, units, "b", codes and verdicts)
    with Removals(path, "b") as removals:
        assert (removals.page_count, removals.unit_count) == (len(pages), len(units))
        # Backwards, so that no read relies on where the last one ended.
        for of, values, asked, keeper in (
            (units, [k is not None for k in units], removals.units, removals.keeper_of_unit),
            (pages, verdicts, removals.pages, removals.keeper_of_page),
        ):
            for first in range(len(of), -1, -7):
                count = min(5, len(of) - first)
                assert asked(first, count).tolist() == values[first : first + count]
            assert [keeper(place) for place in range(len(of))] == of
            for first, count in ((len(of), 1), (-1, 1), (len(of) + 1, 0)):
                with pytest.raises(DamagedFileError, match=r"a\.bin is damaged \(no [a-z]+ "):
                    asked(first, count)


def test_a_file_of_another_build_is_refused(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "a.bin")
    write(path, [None], [5], "one")
    for accepted in ("one", None):
        with Removals(path, accepted) as removals:
            assert removals.keeper_of_unit(0) == 5
    for refused in ("two", ""):
        with pytest.raises(OtherBuildError, match=r"a\.bin belongs to another build"):
            Removals(path, refused)


def test_keepers_must_be_as_many_as_are_removed(tmp_path: pathlib.Path) -> None:
    path, one, none = str(tmp_path / "a.bin"), np.ones(1, bool), np.zeros(1, bool)
    keeper = np.ones(1, np.uint64)
    for arguments in ((none, one, keeper, keeper), (one, one, keeper, keeper[:0])):
        with pytest.raises(ValueError, match=r"a\.bin: keepers of [01] "):
            write_removals(path, *arguments, "")
    assert not list(tmp_path.iterdir())


def test_a_merged_file_does_not_name_keepers(tmp_path: pathlib.Path) -> None:
    path, one = str(tmp_path / "a.bin"), np.ones(1, bool)
    write_removals(path, one, ~one, None, None, "")
    with Removals(path) as removals:
        assert removals.pages(0, 1).tolist() == [PAGE_VERDICTS.index("duplicate_url")]
        assert removals.keeper_of_unit(0) is None
        with pytest.raises(ValueError, match="does not say who keeps pages"):
            removals.keeper_of_page(0)


def test_a_block_is_read_once_for_ranges_in_order(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal_files, "_BLOCK", 8)
    path = str(tmp_path / "a.bin")
    write(path, [7] * 20, [], "", [2] * 20)
    with Removals(path) as removals:
        read: list[int] = []
        whole = removals._file.read
        monkeypatch.setattr(removals._file, "read", lambda n: read.append(n) or whole(n))
        assert [removals.pages(first, 2).tolist() for first in range(0, 20, 2)] == [[2, 2]] * 10
    assert len(read) == len(set(read)) == 2 * 3  # bits and verdicts of three blocks


FLAGS = Part("pages", b"\x80")
KEEPERS = Part("page keepers", bytes(8))
WHY = Part("page verdicts", b"\2")


@pytest.mark.parametrize(
    ("head", "parts"),
    [
        ({"pages": 1}, [FLAGS]),
        ({"pages": -1, "units": 0}, []),
        ({"pages": 1, "units": "0"}, [FLAGS]),
        ({"pages": 1, "units": 0}, []),
        ({"pages": 1, "units": 0}, [FLAGS, FLAGS]),
        ({"pages": 1, "units": 0}, [FLAGS, KEEPERS, KEEPERS]),
        ({"pages": 9, "units": 0}, [FLAGS]),
        ({"pages": 1, "units": 0}, [FLAGS, Part("page keepers", bytes(16))]),
        ({"pages": 1, "units": 0}, [FLAGS, KEEPERS, WHY, WHY]),
        ({"pages": 1, "units": 0}, [FLAGS, KEEPERS, Part("page verdicts", b"\2\2")]),
        ({"pages": 1, "units": 0}, [FLAGS, KEEPERS, Part("page verdicts", b"\0")]),
        ({"pages": 1, "units": 0}, [FLAGS, KEEPERS, Part("page verdicts", b"\4")]),
    ],
)
def test_what_no_build_writes_is_refused(
    tmp_path: pathlib.Path, head: dict[str, Any], parts: list[Part]
) -> None:
    path = str(tmp_path / "a.bin")
    write_container(path, "removals", {"build_id": "", **head}, parts)
    with pytest.raises(DamagedFileError, match=r"a\.bin is damaged"), Removals(path) as removals:
        assert removals.pages(0, 1).tolist() == [removals.keeper_of_page(0)]
