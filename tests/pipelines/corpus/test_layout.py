import os
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.corpus import layout

PAIR = 87_418, 116_560  # the first 32 bits of their paths' SHA-256 are the same


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("/crawl/CC-MAIN-01.warc.wet.gz", "CC-MAIN-01"),
        ("/crawl/CC-MAIN-01.warc.wet", "CC-MAIN-01"),
        ("/crawl/CC-MAIN-01.wet.gz", "CC-MAIN-01"),
        ("/crawl/CC-MAIN-01.gz", "CC-MAIN-01"),
        ("/crawl/CC-MAIN-01", "CC-MAIN-01"),
        ("gs://bucket/a.b.warc.wet.gz", "a.b"),
        ("C:\\crawl\\x.warc.wet.gz", "x"),
        ("/crawl/..", ".."),
        ("/crawl/.warc.wet.gz", ""),
        ("/crawl/a.wet.gz.wet.gz", "a.wet.gz"),
    ],
)
def test_outputs_are_named_after_the_file_and_its_path(path: str, stem: str) -> None:
    name = layout.file_name(path)
    assert name[:-33] == stem
    assert name[-33] == "-"
    assert int(name[-32:], 16) >= 0


@given(st.text(), st.text())
@settings(deadline=None)
def test_a_name_is_never_a_path_and_tells_paths_apart(first: str, second: str) -> None:
    for path in (first, second):
        name = layout.file_name(path)
        assert "/" not in name
        assert "\\" not in name
        assert name not in (".", "..")
    assert (layout.file_name(first) == layout.file_name(second)) == (first == second)


def test_paths_whose_digests_begin_alike_have_names_of_their_own() -> None:
    first, second = (f"/crawl/{number}/a.warc.wet.gz" for number in PAIR)
    assert layout.file_name_of_0_1(first) == layout.file_name_of_0_1(second)
    assert layout.file_name(first) != layout.file_name(second)


def test_every_stage_file_stands_in_its_folder_with_its_suffix() -> None:
    for folder, suffix in layout.STAGE_FOLDERS.items():
        place = getattr(layout, folder)
        assert place("/out", "a") == os.path.join("/out", folder, f"a{suffix}")
        assert place("gs://bucket/out", "a") == f"gs://bucket/out/{folder}/a{suffix}"


@pytest.mark.parametrize(
    ("name", "is_shard"),
    [
        ("train-00000-of-00064.tfrecord", True),
        ("validation-00007-of-00008.parquet", True),
        ("train-00000-of-00064.json.gz", True),
        ("train-00000-of-00064.json", False),
        ("test-00000-of-00064.parquet", False),
        ("train-0-of-64.parquet", False),
        ("train-00000-of-00064.parquet.bak", False),
        ("x-train-00000-of-00064.parquet", False),
        ("train-00000-of-00064xparquet", False),
        ("train-00000-of-00064.parquet\n", False),
    ],
)
def test_shards_are_known_by_name(name: str, is_shard: bool) -> None:
    assert layout.is_shard(name) == is_shard


def test_paths_mean_the_same_from_any_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert layout.absolute("a/../b") == str(tmp_path / "b")
    assert layout.absolute("~/b") == "/home/ada/b"
    assert layout.absolute("/b") == "/b"
    assert layout.absolute("gs://bucket/../b") == "gs://bucket/../b"
    assert layout.absolute("file:///crawl/new%20one/*") == "/crawl/new one/*"
    assert layout.absolute("") == ""
