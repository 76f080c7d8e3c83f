"""What a manifest says of the pages of shards: languages, dates, the first page."""

import itertools
import os
import pathlib
import tempfile
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.corpus.card.facts import Facts
from pipelines.corpus.derived import Plan, SplitPlan, write_corpus
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats.pages import COLUMNS, Page
from pipelines.corpus.shard_files import PageWriter

LATE, EARLY = "2019-04-20T10:00:00Z", "2019-04-18T23:59:59Z"
PAGES = [
    Page("The first.", url="http://a.example/", timestamp=LATE, language="en"),
    Page("Das zweite.", url="http://b.example/", timestamp=EARLY, language="de"),
    Page("The third.", url="http://c.example/", timestamp="", language="en"),
    Page("1 2 3.", url="http://d.example/", timestamp="2019-04-19T10:00:00.5Z"),
]


def split(pages: Sequence[Page]) -> SplitPlan:
    size = sum(len(page.text) for page in pages)
    return SplitPlan(lambda: iter(pages), len(pages), size)


def test_a_corpus_of_pages_of_others_states_their_languages_and_dates(
    tmp_path: pathlib.Path,
) -> None:
    recipe = {"name": "mine", "description": "Four pages"}
    splits = {"train": split(PAGES[:3]), "validation": split(PAGES[3:])}
    made = write_corpus(str(tmp_path / "out"), Plan(recipe, {}, (), splits), ["parquet"])
    assert made.languages == {"en": 2, "de": 1}
    assert made.dates == (EARLY, LATE)
    assert made.kept_page is not None
    assert made.kept_page.url == "http://a.example/"
    assert (Facts.of(made).oldest, Facts.of(made).newest) == (EARLY, LATE)


def test_no_pages_have_no_languages_and_no_dates(tmp_path: pathlib.Path) -> None:
    splits = {"train": split([]), "validation": split([])}
    plan = Plan({"name": "none", "description": ""}, {}, (), splits)
    made = write_corpus(str(tmp_path / "out"), plan, ["parquet", "json"])
    assert (made.languages, made.dates, made.kept_page) == ({}, (), None)


def test_pages_that_are_gone_by_the_second_reading_are_missed(tmp_path: pathlib.Path) -> None:
    for counted in (4, 5):
        splits = {
            "train": SplitPlan(lambda: iter(PAGES[:3]), counted, 3 << 26),
            "validation": split([]),
        }
        plan = Plan({"name": "lost", "description": ""}, {}, (), splits)
        with pytest.raises(CorpusError, match=r"out: a corpus .* has lost pages: run again$"):
            write_corpus(str(tmp_path / "out"), plan, ["json"])
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_more_pages_than_were_counted_are_refused(tmp_path: pathlib.Path) -> None:
    table = pa.table({name: ["x"] * 3 for name in COLUMNS[:-1]}).append_column(
        "language_probability", pa.nulls(3, pa.float32())
    )
    writer = PageWriter(str(tmp_path), ["json"], {"train": (2, 1)})
    with pytest.raises(CorpusError, match=r"a corpus that is read has changed: run again$"):
        writer.add("train", table)


@settings(max_examples=30, deadline=None)
@given(
    pages=st.integers(0, 9),
    shards=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 5), min_size=9, max_size=9),
)
def test_shards_have_as_many_pages_however_these_come(
    pages: int, shards: int, sizes: list[int]
) -> None:
    table = pa.table({name: ["x"] * pages for name in COLUMNS[:-1]}).append_column(
        "language_probability", pa.nulls(pages, pa.float32())
    )
    with tempfile.TemporaryDirectory() as folder:
        writer = PageWriter(folder, ["json"], {"train": (pages, shards)})
        for size in sizes:
            writer.add("train", table.slice(0, size))
            table = table.slice(size)
        written = writer.finish()
        assert sorted(os.listdir(folder)) == sorted(writer.names)
    bounds = [pages * index // shards for index in range(shards + 1)]
    assert [shard.pages for shard in written] == [b - a for a, b in itertools.pairwise(bounds)]
    assert [shard.lines for shard in written] == [shard.pages for shard in written]
