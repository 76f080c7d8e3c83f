import pathlib
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.corpus.container import DamagedFileError
from pipelines.provenance import index as index_module
from pipelines.provenance.index import Entries, Place, find_index, pack_places, write_index

KEYS = st.sampled_from([0, 1, 5, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
#: (key, whether the page goes, whether the rules dropped it)
ROWS = st.lists(st.tuples(KEYS, st.booleans(), st.booleans()), max_size=12)


def entries(rows: list[tuple[int, bool, bool]]) -> Entries:
    keys = np.array([key for key, _, _ in rows], np.uint64)
    gone = np.array([gone for _, gone, _ in rows], bool)
    dropped = np.array([dropped for _, _, dropped in rows], bool)
    numbers = np.arange(len(rows))
    places = np.where(dropped, pack_places(numbers), pack_places(numbers, gone))
    return {"units": (keys, places)}


@given(st.lists(ROWS, max_size=4), st.integers(1, 4), st.sampled_from([16, 64, 1 << 20]))
def test_every_key_has_the_places_it_was_written_with(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[tuple[int, bool, bool]]],
    block: int,
    at_once: int,
) -> None:
    path = str(tmp_path_factory.mktemp("index") / "index.bin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "_BLOCK", block)
        patch.setattr(index_module, "_BYTES_AT_ONCE", at_once)
        write_index(path, "me", map(entries, files))
    wanted = defaultdict(list)
    for file, rows in enumerate(files):
        for row, (key, gone, dropped) in enumerate(rows):
            wanted[key].append((gone and not dropped, dropped, Place(file, row, dropped)))
    found = find_index(path, "me")
    assert found is not None
    with found:
        for key, places in wanted.items():
            in_order = [place for _, _, place in sorted(places)]
            assert found.find("units", key) == (in_order, len(places))
            assert found.find("units", key, 1) == (in_order[:1], len(places))
        for other in {0, 7, 2**64 - 1} - wanted.keys():
            assert found.find("units", other) == ([], 0)
        assert found.find("pages", 0) == ([], 0)


def test_an_index_of_something_else_or_a_damaged_one_is_none(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "index.bin"
    assert find_index(str(path), "me") is None
    write_index(str(path), "me", map(entries, [[(3, False, False)] * 9]))
    assert find_index(str(path), "other") is None
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert find_index(str(path), "me") is None
    path.write_bytes(content[:30] + b"x" + content[31:])
    found = find_index(str(path), "me")
    assert found is not None
    with found, pytest.raises(DamagedFileError, match="checksum mismatch"):
        found.find("units", 3)
