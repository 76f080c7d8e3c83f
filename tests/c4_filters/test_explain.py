import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c4_filters.explain import explain_page
from c4_filters.lines import split_lines
from c4_filters.pages import PageRules, RawPage
from c4_filters.recipes import RECIPES, Recipe
from c4_filters.urls import DomainList, normalize_url, url_identity
from c4_filters.verdicts import LineVerdict, PageVerdict

URL = "http://www.a.example/x"
LINES = [
    "The old harbour was rebuilt by the people of the village.",
    "They worked through two long winters. Nobody had a machine of any kind!",
    "The bridge was opened to all in 1931.[4]",
    "[1] Every stone was carried down from the quarry by hand.",
    "  Is this the way to the market square?  ",
    "Menu",
    "Read more about the harbour...",
    "It ended in [12]",
    "So it goes.",
    "x" * 1001 + " is a word that is far too long.",
    "Please switch on JavaScript to see the rest of it.",
    "By using this site you accept our Cookie Policy today.",
    "Lorem ipsum dolor sit amet is what it says.",
    "A line with a { in the middle of it.",
    "{ menu",
    "",
    "   ",
    "Der Fluss ist heute hoch und niemand setzt jetzt über.",
    "There was brimstone in the air for nine whole days.",
    "A paragraph of mC4 is long, and this one is. " * 6,
]
PAGES = st.lists(st.sampled_from(LINES), max_size=10).map("\n".join)
BADWORDS = {"en": ["brimstone"], "de": ["fluss"]}
NAMES = [name for name, recipe in RECIPES.items() if not recipe.domain_list and not recipe.url_list]


def rules_of(recipe: Recipe) -> PageRules:
    return PageRules(recipe, BADWORDS)


def page_of(text: str, url: str = URL) -> RawPage:
    return RawPage(url, "2019-04-18T10:00:00Z", "text/plain", "0", text)


@given(text=PAGES, name=st.sampled_from(NAMES))
@settings(max_examples=150, deadline=None)
def test_verdicts_are_those_that_a_build_counts(text: str, name: str) -> None:
    rules = rules_of(RECIPES[name])
    counts: Counter[str] = Counter()
    built = rules.clean(page_of(text), counts)
    explained = explain_page(page_of(text), rules)
    late = rules.recipe.order == "dedup_first" and built.verdict is PageVerdict.KEPT
    if late:
        built = rules.finish(built.text, None, URL)
    assert explained.result == built
    assert [line.text for line in explained.lines] == split_lines(text)

    seen = Counter(line.verdict for line in explained.lines)
    assert counts.pop("lines_read") == len(explained.lines)
    fine = seen.pop(LineVerdict.KEPT, 0)
    unjudged = seen.pop(None, 0)
    on_dropped = counts.pop(LineVerdict.ON_DROPPED_PAGE, 0)
    assert Counter({str(verdict): number for verdict, number in seen.items()}) == +counts
    if built.verdict is PageVerdict.KEPT:
        kept = [line.kept_as for line in explained.lines if line.verdict is LineVerdict.KEPT]
        joined = "\n".join(kept).strip()
        assert built.text == (text if rules.recipe.verbatim else joined)
        assert (fine, unjudged, on_dropped) == (built.lines, 0, 0)
    elif not late:
        assert on_dropped == fine + unjudged


@pytest.mark.parametrize(
    ("changes", "text", "verdict", "note"),
    [
        ({}, "\n".join(LINES[:2] + LINES[5:6]), PageVerdict.KEPT, "en 1.0000"),
        ({}, " \n ", PageVerdict.NO_TEXT, ""),
        ({}, LINES[0], PageVerdict.FEW_SENTENCES, "1 sentence left, 3 wanted"),
        ({}, LINES[1], PageVerdict.FEW_SENTENCES, "2 sentences left, 3 wanted"),
        (
            {"max_page_chars": 20},
            LINES[0] * 30,
            PageVerdict.TOO_LONG,
            f"{len(LINES[0] * 30):,} characters, 20 allowed",
        ),
        (
            {"min_paragraphs": 2, "min_paragraph_chars": 50},
            f"{LINES[0]}\nshort",
            PageVerdict.FEW_PARAGRAPHS,
            "1 lines of 50 characters, 2 wanted",
        ),
        (
            {},
            "\n".join([LINES[18], *LINES[:3]]),
            PageVerdict.BAD_WORDS,
            "contains 'brimstone'",
        ),
        ({"languages": ("de",)}, "\n".join(LINES[:3]), PageVerdict.OTHER_LANGUAGE,
         "en 1.0000, wanted de"),
        ({"languages": ("de", "fr")}, "\n".join(LINES[:3]), PageVerdict.OTHER_LANGUAGE,
         "en 1.0000, wanted de or fr"),
        (
            {"min_sentences_after_dedup": 9, "order": "dedup_first"},
            "\n".join(LINES[:3]),
            PageVerdict.FEW_SENTENCES_AFTER_DEDUP,
            "4 sentences left, 9 wanted",
        ),
        (
            {"min_sentences": 0, "min_sentences_after_dedup": 2},
            LINES[0],
            PageVerdict.FEW_SENTENCES_AFTER_DEDUP,
            "1 sentence left, 2 wanted",
        ),
    ],
)  # fmt: skip
def test_a_note_gives_the_numbers_behind_the_verdict(
    changes: dict[str, object], text: str, verdict: PageVerdict, note: str
) -> None:
    recipe = dataclasses.replace(RECIPES["en"], **changes)  # type: ignore[arg-type]
    explained = explain_page(page_of(text), rules_of(recipe))
    assert explained.result.verdict is verdict
    assert explained.note == note


def test_low_confidence_names_the_probability_and_the_bound() -> None:
    recipe = dataclasses.replace(RECIPES["en"], min_language_probability=1.0)
    explained = explain_page(page_of("\n".join([*LINES[:3], LINES[17]])), rules_of(recipe))
    assert explained.result.verdict is PageVerdict.LOW_CONFIDENCE
    assert explained.result.language is not None
    probability = f"{explained.result.language.probability:.4f}"
    assert explained.note == f"{explained.result.language.code} {probability}, 1.0 wanted"


@pytest.mark.parametrize(
    ("text", "url"),
    [(LINES[0] * 4000, URL), ("", URL), (LINES[0], "http://other.example/")],
)
def test_lines_of_a_page_that_is_dropped_before_them_are_not_judged(text: str, url: str) -> None:
    recipe = dataclasses.replace(RECIPES["en"], domain_list=True, url_list=True)
    rules = PageRules(
        recipe, BADWORDS, DomainList({"a.example": True}), frozenset([url_identity("b.example")])
    )
    explained = explain_page(page_of(text, url), rules)
    assert explained.result.verdict is not PageVerdict.KEPT
    assert [line.verdict for line in explained.lines] == [None] * len(split_lines(text))


def test_a_page_that_no_list_names_is_explained_so() -> None:
    recipe = dataclasses.replace(RECIPES["en"], url_list=True)
    listed = frozenset([url_identity(normalize_url(URL))])
    for urls, verdict in (
        (listed, PageVerdict.KEPT),
        (frozenset[bytes](), PageVerdict.URL_NOT_LISTED),
    ):
        explained = explain_page(page_of("\n".join(LINES[:3])), PageRules(recipe, urls=urls))
        assert explained.result.verdict is verdict
        judged = LineVerdict.KEPT if verdict is PageVerdict.KEPT else None
        assert [line.verdict for line in explained.lines] == [judged] * 3


def test_lines_of_a_page_of_too_few_paragraphs_are_not_judged() -> None:
    recipe = dataclasses.replace(RECIPES["en"], min_paragraphs=3)
    explained = explain_page(page_of("\n".join(LINES[:4])), rules_of(recipe))
    assert explained.result.verdict is PageVerdict.FEW_PARAGRAPHS
    assert [line.verdict for line in explained.lines] == [None] * 4


def test_lines_after_the_one_that_drops_the_page_are_not_judged() -> None:
    text = "\n".join([LINES[0], LINES[5], LINES[13], LINES[0], LINES[12]])
    explained = explain_page(page_of(text), rules_of(RECIPES["en"]))
    assert [line.verdict for line in explained.lines] == [
        LineVerdict.KEPT,
        LineVerdict.NO_END_MARK,
        LineVerdict.CURLY_BRACKET,
        None,
        None,
    ]
    assert explained.result.verdict is PageVerdict.CURLY_BRACKET


def test_a_line_that_is_changed_shows_how_it_is_kept() -> None:
    explained = explain_page(page_of("\n".join(LINES[:5])), rules_of(RECIPES["en"]))
    assert [line.kept_as for line in explained.lines] == [
        LINES[0],
        LINES[1],
        LINES[2].removesuffix("[4]"),
        LINES[3].removeprefix("[1]"),
        LINES[4].strip(),
    ]


def test_the_note_on_paragraphs_counts_lines_that_are_long_enough() -> None:
    recipe = dataclasses.replace(RECIPES["en"], min_paragraphs=4, min_paragraph_chars=6)
    for lines, count in ((["short", "longer", "longest", "even longer"], 3), (["short"] * 2, 0)):
        explained = explain_page(page_of("\n".join(lines)), rules_of(recipe))
        assert explained.note == f"{count} lines of 6 characters, 4 wanted"
