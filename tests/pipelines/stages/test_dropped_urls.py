"""Which dropped pages take part in the deduplication of urls where that comes before the rules."""

import dataclasses
import pathlib

import pytest

from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES, Recipe
from c4_filters.urls import DomainList, parse_url_list
from pipelines.stages.clean_files import clean_file
from pipelines.wet.results import MAX_RECORD_BYTES
from testing.helpers import Page, write_wet

DATE = "2019-04-18T10:00:00Z"
LINE = "The old harbour was rebuilt by the people of the village."
TFDS = dataclasses.replace(
    RECIPES["tfds"], domain_list=True, url_list=True, max_page_chars=500, min_paragraphs=1,
    min_paragraph_chars=20,
)  # fmt: skip
CASES: dict[str, tuple[Page, int]] = {
    "no_text": (("http://example.org/", DATE, ""), 0),
    "too_long": (("http://example.org/", DATE, LINE * 10), 0),
    "domain": (("http://example.com/", DATE, LINE), 0),
    "url_not_listed": (("http://example.org/b", DATE, LINE), 1),
    "few_paragraphs": (("http://example.org/", DATE, "Menu"), 1),
    "few_sentences": (("http://example.org/", DATE, LINE), 1),
    "lorem_ipsum": (("http://example.org/", DATE, f"{LINE}\nLorem ipsum dolor sit amet."), 1),
    "curly_bracket": (("http://example.org/", DATE, f"{LINE}\nThis line has a {{ in it."), 1),
}


def prints_of(recipe: Recipe, page: Page, verdict: str, folder: pathlib.Path) -> int:
    rules = PageRules(
        recipe, None, DomainList({"example.org": True}), parse_url_list(["example.org"])
    )
    path, size = write_wet(folder / "a.warc.wet.gz", [page])
    summary = clean_file(path, size, str(folder / "out"), rules, "id", MAX_RECORD_BYTES)
    assert summary.pages_dropped == {verdict: 1}
    return summary.fingerprint_pages


@pytest.mark.parametrize("verdict", CASES)
def test_a_dropped_page_has_a_fingerprint_if_the_reference_sees_its_url(
    verdict: str, tmp_path: pathlib.Path
) -> None:
    page, expected = CASES[verdict]
    assert prints_of(TFDS, page, verdict, tmp_path) == expected


@pytest.mark.parametrize("verdict", CASES)
def test_no_dropped_page_has_one_where_urls_come_after_the_rules(
    verdict: str, tmp_path: pathlib.Path
) -> None:
    recipe = dataclasses.replace(TFDS, order="filters_first")
    assert prints_of(recipe, CASES[verdict][0], verdict, tmp_path) == 0
