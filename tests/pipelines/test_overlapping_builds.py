"""Two builds in one folder, a handful of times; overlapping_builds.py does it fifty times."""

import pathlib

import pytest

from tests.pipelines import overlapping_builds as overlap

pytestmark = pytest.mark.slow

OFFSETS = {"local": [0.0, 1.3], "gs": [0.0]}


@pytest.mark.parametrize("store", list(overlap.STORES))
def test_two_builds_in_one_folder_make_one_corpus(store: str, tmp_path: pathlib.Path) -> None:
    if store == "gs":
        pytest.importorskip("obstore", reason="needs the extra gcp")
    with overlap.STORES[store](tmp_path) as where:
        pairs = overlap.Overlap(where)
        for number, offset_s in enumerate(OFFSETS[store]):
            assert pairs.check(number, offset_s) == []


def test_a_wrong_corpus_is_told(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with overlap.local_store(tmp_path) as where:
        pairs = overlap.Overlap(where)
        monkeypatch.setattr(pairs, "_expected", {"first": {}, "second": {}})
        [line] = pairs.check(0, 0.0)
        assert "built a wrong corpus" in line
