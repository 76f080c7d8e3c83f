"""What a manifest says of the pages of shards: languages, dates, the first page."""

import pathlib
from collections.abc import Sequence

from pipelines.corpus.card.facts import Facts
from pipelines.corpus.derived import Plan, SplitPlan, write_corpus
from pipelines.corpus.formats.pages import Page

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
    settings = {"name": "mine", "description": "Four pages"}
    splits = {"train": split(PAGES[:3]), "validation": split(PAGES[3:])}
    made = write_corpus(str(tmp_path / "out"), Plan(settings, {}, (), splits), ["parquet"])
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
