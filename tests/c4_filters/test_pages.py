"""A page through the rules: every verdict by hand, every line accounted for, TF's reading of it."""

import dataclasses
import gzip
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c4_filters.badwords import packaged_badwords
from c4_filters.pages import PageRules, RawPage, tf_pages
from c4_filters.recipes import RECIPES
from c4_filters.urls import DomainList, parse_url_list
from c4_filters.verdicts import LineVerdict, PageVerdict

ENGLISH = """\
The old bridge was closed in spring because two of its arches had moved.
Engineers measured the gap every morning and wrote the figures in a book.
By the end of the summer the arches had come to rest again."""
GERMAN = """\
Die alte Brücke wurde im Frühling gesperrt, weil sich zwei Bögen bewegt hatten.
Jeden Morgen wurde der Abstand gemessen und in ein dickes Heft geschrieben.
Gegen Ende des Sommers kamen die Bögen langsam wieder zur Ruhe."""
# langdetect hesitates over words that two languages share.
HALF_ENGLISH = f"{ENGLISH}\n{GERMAN}"
DIGITS = "12345 67890 12345 67890 1.\n12345 67890 12345 67890 2.\n12345 67890 12345 67890 3."
LISTS = {"en": ["heckbadger"], "de": ["schlingelwort"]}
NEWS = DomainList({"example.org": True, "example.co.uk": ["world"]})
LISTED = parse_url_list(["https://www.listed.example/a/"])

_RULES = {}


def rules_for(recipe):
    if recipe not in _RULES:
        _RULES[recipe] = PageRules(recipe, LISTS, NEWS, LISTED)
    return _RULES[recipe]


def page(text, url="http://a.example/x"):
    return RawPage(url, "2019-04-19T02:00:00Z", "text/plain", str(len(text)), text)


def clean(recipe_name, text, url="http://a.example/x"):
    counts: Counter[str] = Counter()
    return rules_for(RECIPES[recipe_name]).clean(page(text, url), counts), +counts


# (recipe, text, verdict, what is special); every PageVerdict that clean can give stands here.
CASES = {
    "kept": ("en", ENGLISH, PageVerdict.KEPT),
    "nothing but blanks": ("en", " \n\t\r\n\u2028 ", PageVerdict.NO_TEXT),
    "nothing at all": ("en.noclean", "", PageVerdict.NO_TEXT),
    "190,001 characters": ("en", "x" * 190_001, PageVerdict.TOO_LONG),
    "190,000 characters": ("en", "x" * 190_000, PageVerdict.FEW_SENTENCES),
    "blanks at line ends do not count": (
        "en.noclean",
        "\n".join([ENGLISH, " " * 190_000, "The end."]),
        PageVerdict.KEPT,
    ),
    "domain not listed": ("realnewslike", ENGLISH, PageVerdict.DOMAIN),
    "url not listed": ("webtextlike", ENGLISH, PageVerdict.URL_NOT_LISTED),
    "two paragraphs": (
        "multilingual",
        "\n".join([ENGLISH.replace("\n", " ")] * 2 + [ENGLISH]),
        PageVerdict.FEW_PARAGRAPHS,
    ),
    "three paragraphs": (
        "multilingual",
        "\n".join([ENGLISH.replace("\n", " ")] * 3),
        PageVerdict.KEPT,
    ),
    "lorem ipsum": ("en", f"{ENGLISH}\nLorem ipsum dolor sit amet.", PageVerdict.LOREM_IPSUM),
    "curly bracket": ("en", f"{ENGLISH}\nSome code looks like {{ this.", PageVerdict.CURLY_BRACKET),
    "two sentences": ("en", "\n".join(ENGLISH.split("\n")[:2]), PageVerdict.FEW_SENTENCES),
    "three sentences in two lines": (
        "en",
        ENGLISH.replace("moved.\n", "moved. "),
        PageVerdict.KEPT,
    ),
    "four sentences where five are asked for": (
        "en.paper_v3",
        f"{ENGLISH}\nIt held.\nThe bridge was safe again.",
        PageVerdict.FEW_SENTENCES,
    ),
    "three words where three are asked for": (
        "en.paper_v3",
        f"{ENGLISH}\nThe bridge held.\nNobody was surprised.",
        PageVerdict.KEPT,
    ),
    "no line left": ("en", "Home\nAbout\nContact", PageVerdict.FEW_SENTENCES),
    "no features": ("en", DIGITS, PageVerdict.NO_LANGUAGE),
    "German": ("en", GERMAN, PageVerdict.OTHER_LANGUAGE),
    "German wanted": ("de", GERMAN, PageVerdict.KEPT),
    "English where German is wanted": ("de", ENGLISH, PageVerdict.OTHER_LANGUAGE),
    "any language": (
        "multilingual",
        "\n".join([GERMAN.replace("\n", " ")] * 3),
        PageVerdict.KEPT,
    ),
    "half English": ("en", HALF_ENGLISH, PageVerdict.LOW_CONFIDENCE),
    "bad word": ("en", f"{ENGLISH}\nHe called it a Heckbadger twice.", PageVerdict.BAD_WORDS),
    "bad word of another language": (
        "en",
        f"{ENGLISH}\nHe called it a schlingelwort twice.",
        PageVerdict.KEPT,
    ),
    "bad word, no blocklist": (
        "en.noblocklist",
        f"{ENGLISH}\nHe called it a heckbadger twice.",
        PageVerdict.KEPT,
    ),
    "bad word in a line that goes": ("en", f"{ENGLISH}\nheckbadger", PageVerdict.KEPT),
    "menu lines kept": ("en.noclean", f"Home\n{ENGLISH}\n{{", PageVerdict.KEPT),
    "language comes later": ("tfds", GERMAN, PageVerdict.KEPT),
}


@pytest.mark.parametrize("name", CASES)
def test_a_page_gets_the_verdict_of_the_first_rule_that_fires(name):
    recipe, text, verdict = CASES[name]
    result, counts = clean(recipe, text)

    assert result.verdict is verdict, result
    assert counts["lines_read"] == sum(1 for line in text.splitlines() if line.strip())
    assert counts["lines_read"] == result.lines + counts.total() - counts["lines_read"]
    if verdict is not PageVerdict.KEPT:
        assert (result.text, result.lines) == ("", 0)


@pytest.mark.parametrize("order", ["filters_first", "dedup_first"])
def test_a_page_without_lines_goes_even_where_no_sentence_is_asked_for(order):
    recipe = dataclasses.replace(RECIPES["en"], min_sentences=0, order=order)
    result = rules_for(recipe).clean(page("Home\nAbout"), Counter())
    assert result.verdict is PageVerdict.FEW_SENTENCES
    assert rules_for(recipe).clean(page(ENGLISH), Counter()).verdict is PageVerdict.KEPT


def test_a_kept_page_says_what_was_kept_and_why():
    result, counts = clean(
        "en", f"Home\n  {ENGLISH}[1]\r\nCookie policy\x0bWe use cookies here, too."
    )

    assert (result.text, result.lines) == (ENGLISH, 3)
    assert result.language.code == "en"
    assert result.language.probability > 0.99
    assert counts == {"lines_read": 6, LineVerdict.NO_END_MARK: 2, LineVerdict.POLICY: 1}


def test_a_page_dropped_late_loses_the_lines_that_were_fine():
    result, counts = clean("en", f"Home\n{ENGLISH}\nHe called it a heckbadger twice.")

    assert (result.verdict, result.evidence) == (PageVerdict.BAD_WORDS, "heckbadger")
    assert counts == {"lines_read": 5, LineVerdict.NO_END_MARK: 1, LineVerdict.ON_DROPPED_PAGE: 4}


def test_the_evidence_of_a_language_verdict_is_the_language():
    result, _ = clean("en", GERMAN)
    assert result.reason() == f"de {result.language.probability:.4f}"


def test_listed_domains_subdomains_and_urls_pass():
    for url in ("http://www.example.org/a", "http://x.example.org", "http://world.example.co.uk"):
        assert clean("realnewslike", ENGLISH, url)[0].verdict is PageVerdict.KEPT, url
    for url in ("http://sport.example.co.uk/", "http://example.co.uk/", "http://example.com/"):
        assert clean("realnewslike", ENGLISH, url)[0].verdict is PageVerdict.DOMAIN, url
    for url in ("http://listed.example/a", "https://listed.example/a/?utm_source=x"):
        assert clean("webtextlike", ENGLISH, url)[0].verdict is PageVerdict.KEPT, url
    not_listed, _ = clean("webtextlike", ENGLISH, "http://listed.example/b")
    assert not_listed.verdict is PageVerdict.URL_NOT_LISTED


@pytest.mark.parametrize(
    ("recipe", "option"), [("realnewslike", "--domain-list"), ("webtextlike", "--url-list")]
)
def test_a_recipe_without_its_list_is_refused(recipe, option):
    with pytest.raises(ValueError, match=f"recipe {recipe} needs .*{option} FILE"):
        PageRules(RECIPES[recipe])


def test_a_list_that_the_recipe_does_not_ask_for_does_nothing():
    rules = PageRules(RECIPES["en"], LISTS, DomainList({}), frozenset())
    assert rules.clean(page(ENGLISH), Counter()).verdict is PageVerdict.KEPT


def test_without_lists_of_the_user_the_packaged_ones_hold():
    word = min(packaged_badwords("en"), key=len)
    result = PageRules(RECIPES["en"]).clean(
        page(f"{ENGLISH}\nThey call it {word} here."), Counter()
    )
    assert (result.verdict, result.evidence) == (PageVerdict.BAD_WORDS, word)


def test_the_soft_filter_keeps_one_hit_in_a_thousand_by_its_url():
    rules = PageRules(RECIPES["multilingual"], LISTS)
    text = "\n".join([ENGLISH.replace("\n", " ")] * 3 + ["heckbadger"])
    kept = {url for i in range(3_000) if rules._badwords.kept_by_chance(url := f"s.example/{i}")}
    assert 0 < len(kept) < 12
    verdicts = {
        url: rules.clean(page(text, f"https://www.{url}/"), Counter()).verdict
        for url in [*kept, "s.example/no"]
    }
    assert verdicts.pop("s.example/no") is PageVerdict.BAD_WORDS
    assert set(verdicts.values()) == {PageVerdict.KEPT}


# ---------------------------------------------------------------------------- after deduplication


def finish(recipe, text, sentences=None, url="http://a.example/x"):
    return rules_for(recipe).finish(text, sentences, url)


LATE = {
    "nothing left": ("en", "", 0, PageVerdict.EMPTY_AFTER_DEDUP),
    "nothing left, late": ("tfds", "", None, PageVerdict.EMPTY_AFTER_DEDUP),
    "counted by the caller": ("en", ENGLISH, 2, PageVerdict.FEW_SENTENCES_AFTER_DEDUP),
    "counted by the caller, enough": ("en", "Three, says the caller.", 3, PageVerdict.KEPT),
    "counted here": ("tfds", ENGLISH[:80], None, PageVerdict.FEW_SENTENCES_AFTER_DEDUP),
    "counted here, enough": ("tfds", ENGLISH, None, PageVerdict.KEPT),
    "none asked for": ("multilingual", "Word", 0, PageVerdict.KEPT),
    "en does not ask twice": ("en", GERMAN, 3, PageVerdict.KEPT),
    "late language": ("tfds", GERMAN, None, PageVerdict.OTHER_LANGUAGE),
    "late confidence": ("tfds", HALF_ENGLISH, None, PageVerdict.LOW_CONFIDENCE),
    "late digits": ("tfds", DIGITS, None, PageVerdict.NO_LANGUAGE),
    "late bad word": ("tfds", f"{ENGLISH}\nA heckbadger!", None, PageVerdict.BAD_WORDS),
}


@pytest.mark.parametrize("name", LATE)
def test_after_deduplication(name):
    recipe, text, sentences, verdict = LATE[name]
    result = finish(RECIPES[recipe], text, sentences)

    assert result.verdict is verdict
    if verdict is PageVerdict.KEPT:
        assert (result.text, result.lines) == (text, text.count("\n") + 1)
    else:
        assert (result.text, result.lines) == ("", 0)
    assert (result.language is not None) == (
        recipe == "tfds"
        and verdict not in (PageVerdict.EMPTY_AFTER_DEDUP, PageVerdict.FEW_SENTENCES_AFTER_DEDUP)
        and verdict is not PageVerdict.NO_LANGUAGE
    )


def test_sentences_left_are_counted_over_the_whole_text_as_the_reference_does():
    # The line break is a blank to Punkt: across it "Dr." ends no sentence, alone it ends one.
    text = "In the end we asked Dr.\nSmith about the bridge. Nobody else was there."
    rules = rules_for(RECIPES["tfds"])
    assert sum(map(rules.splitter.count, text.split("\n"))) == 3
    assert finish(RECIPES["tfds"], text).verdict is PageVerdict.FEW_SENTENCES_AFTER_DEDUP


OF_SEVERAL_PAGES = {
    PageVerdict.OPTED_OUT,
    PageVerdict.DUPLICATE_URL,
    PageVerdict.NEAR_DUPLICATE,
}


def test_every_page_verdict_is_reached_but_those_that_need_other_pages_or_a_list():
    reached = {case[-1] for case in (*CASES.values(), *LATE.values())}
    assert reached == set(PageVerdict) - OF_SEVERAL_PAGES


# ------------------------------------------------------------------------------- lines add up

SENTENCES = [
    *ENGLISH.split("\n"),
    *GERMAN.split("\n"),
    ENGLISH.replace("\n", " "),
    "Short line.",
    "Home",
    " ",
    "",
    "He called it a heckbadger twice.",
    "Lorem ipsum dolor sit amet.",
    "Some code looks like { this.",
    "Please enable JavaScript on this page.",
    "We use cookies on this page.",
    "[1]",
    "[2] A note that begins with a number.",
    "12345 67890 12345 67890 1.",
    f"A word of this line is {'x' * 1_001}.",
    "漢字の文。",
    "WARC/1.0",
    "WARC-Target-URI: http://b.example/",
    "WARC-Target-URI:",
    "WARC-Date: 2020-01-01T00:00:00Z",
    "WARC-Block-Digest: sha1:A and three more words.",
    "Content-Type: text/html",
    "Content-Length: 12",
    "CONTENT-ID: five words are in here.",
    "content-type: this is an ordinary line.",
    "WARC is how this line begins, too.",
]
BREAKS = ["\n", "\n", "\n", "\r\n", "\r", "\n\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", " \n\t"]


@st.composite
def a_body(draw):
    sentences = draw(st.lists(st.sampled_from(SENTENCES), max_size=10))
    parts = [sentence + draw(st.sampled_from(BREAKS)) for sentence in sentences]
    return draw(st.sampled_from(["", "", "\n", "\ufeff"])) + "".join(parts)


URLS = st.sampled_from(
    ["http://a.example/x", "http://example.org/y", "https://www.listed.example/a/?ref=z"]
)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_lines_read_are_lines_kept_and_lines_dropped(name):
    recipe = dataclasses.replace(RECIPES[name], max_page_chars=900)
    seen = set()

    @settings(max_examples=60)
    @given(a_body(), URLS)
    def balance(text, url):
        counts: Counter[str] = Counter()
        result = rules_for(recipe).clean(page(text, url), counts)
        lines_read = counts.pop("lines_read", 0)
        assert lines_read == sum(1 for line in text.splitlines() if line.strip())
        assert lines_read == result.lines + counts.total()
        assert set(counts) <= set(LineVerdict) - {LineVerdict.KEPT}
        if result.verdict is PageVerdict.KEPT and recipe.verbatim:
            assert result.text == text
        elif result.verdict is PageVerdict.KEPT:
            assert result.lines == result.text.count("\n") + 1
            assert result.text == result.text.strip()
        else:
            assert (result.lines, result.text) == (0, "")
        seen.add(result.verdict)

    balance()
    assert len(seen) > 1, "the drawn pages never reached a second verdict"


# ------------------------------------------------------------- the reference reads and cleans


def write_bodies(path, pages):
    """A WET file of one record a page; unlike the writers elsewhere it takes any body."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for one in pages:
            head = (
                f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {one.url}\r\n"
                f"WARC-Date: {one.timestamp}\r\nWARC-Record-ID: <urn:uuid:0>\r\n"
                f"Content-Type: {one.content_type}\r\nContent-Length: {one.content_length}\r\n\r\n"
            )
            file.write(f"{head}{one.text}\r\n\r\n".encode())


def tf_split(c4_utils, path):
    counts: Counter[str] = Counter()
    pages = list(
        c4_utils.split_wet_file(
            str(path), counter_inc_fn=lambda name, amount=1: counts.update({name: amount})
        )
    )
    read = [RawPage(p.url, p.timestamp, p.content_type, p.content_length, p.text) for p in pages]
    return read, pages


ACCIDENTS = {
    "ordinary": ("One.\r\n\r\n  Two. \rThree.", [("http://a.example/x", "One.\nTwo.\nThree.")], 0),
    "header-like lines": ("One.\nWARC is here.\nCONTENT-x\nContent-y\nTwo.",
                          [("http://a.example/x", "One.\nTwo.")], 3),
    "letters of another case": ("warc\ncontent-type: x\nCONTENT",
                                [("http://a.example/x", "warc\ncontent-type: x\nCONTENT")], 0),
    "another url": ("One.\n WARC-Target-URI:  http://b.example/ \nTwo.",
                    [("http://b.example/", "One.\nTwo.")], 1),
    "an end": ("One.\nWARC/1.0\nTwo.", [("http://a.example/x", "One."), ("", "Two.")], 1),
    "an end, and a page": (
        "One.\n\tWARC/1.0 \nWARC-Target-URI: http://b.example/\nWARC-Date: 2020\nTwo.",
        [("http://a.example/x", "One."), ("http://b.example/", "Two.")], 3),
    "no end": ("One.\nWARC/1.0 is a format.\nTwo.", [("http://a.example/x", "One.\nTwo.")], 1),
    "a break for splitlines alone": ("One.\x0bWARC\u2028Two.\x85",
                                     [("http://a.example/x", "One.\x0bWARC\u2028Two.")], 0),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCIDENTS)
def test_a_body_is_read_with_the_accidents_of_the_reference(name):
    body, expected, accidents = ACCIDENTS[name]
    counts: Counter[str] = Counter()
    assert [(one.url, one.text) for one in tf_pages(page(body), counts)] == expected
    assert +counts == ({LineVerdict.PARSER_ACCIDENT: accidents} if accidents else {})


def test_header_like_lines_overwrite_every_field():
    body = "WARC-Date: 2020\nContent-Type:a/b\nContent-Length: 7\nWARC-Target-URI:http://b/\nOne."
    assert tf_pages(page(body), Counter()) == [RawPage("http://b/", "2020", "a/b", "7", "One.")]


@pytest.mark.slow
@settings(max_examples=150)
@given(st.lists(st.tuples(a_body(), URLS), min_size=1, max_size=4))
def test_bodies_are_read_as_the_reference_reads_them(c4_utils, tmp_path_factory, bodies):
    pages = [page(text, f"{url}{i}") for i, (text, url) in enumerate(bodies)]
    path = tmp_path_factory.getbasetemp() / "bodies.warc.wet.gz"
    write_bodies(path, pages)
    counts: Counter[str] = Counter()

    ours = [part for one in pages for part in tf_pages(one, counts)]

    expected, _ = tf_split(c4_utils, path)
    assert [one for one in ours if one.url and one.text and one.timestamp] == expected
    non_blank = sum(
        1 for one in pages for line in one.text.replace("\r", "\n").split("\n") if line.strip()
    )
    kept = sum(one.text.count("\n") + 1 for one in ours if one.text)
    assert non_blank == kept + counts.total()
    assert set(counts) <= {LineVerdict.PARSER_ACCIDENT}


@settings(max_examples=100)
@given(a_body())
def test_recipe_tfds_cleans_as_the_reference_does(c4_utils, text):
    clean_page = c4_utils.get_clean_page_fn()
    rules = rules_for(RECIPES["tfds"])
    for part in tf_pages(page(text), Counter()):
        result = rules.clean(part, Counter())
        tf_page = c4_utils.PageFeatures(text=part.text)
        expected = list(clean_page(tf_page)) if c4_utils.is_valid_length(tf_page) else []
        assert [one.text for one in expected] == ([result.text] if result.verdict == "kept" else [])


def test_the_length_of_a_page_is_measured_as_the_reference_does(c4_utils):
    rules = rules_for(RECIPES["tfds"])
    ordinary = f"{ENGLISH}\n"
    for missing in (-1, 0, 1):
        length = 190_000 - missing
        text = ordinary + "x" * (length - len(ordinary))
        expected = c4_utils.is_valid_length(c4_utils.PageFeatures(text=text))
        assert expected == (missing >= 0)
        assert (rules.clean(page(text), Counter()).verdict is PageVerdict.KEPT) == expected
    # Blanks beside a vertical tab are inside a line to the reference, and count.
    text = ordinary + "x" * 100_000 + " " * 90_000 + "\x0by"
    assert not c4_utils.is_valid_length(c4_utils.PageFeatures(text=text))
    assert rules.clean(page(text), Counter()).verdict is PageVerdict.TOO_LONG
    assert rules_for(RECIPES["en"]).clean(page(text), Counter()).verdict is PageVerdict.KEPT


def test_paragraphs_are_judged_as_the_reference_does(c4_utils):
    recipe = dataclasses.replace(RECIPES["multilingual"], min_language_probability=0.0)
    line = ENGLISH.replace("\n", " ")[1:].rjust(300, "x")
    for lengths in [(200,) * 3, (200, 200, 199), (200, 200), (199, 10, 200, 200, 200), (300,) * 2]:
        text = "\n".join(line[-length:].strip().rjust(length, "x") for length in lengths)
        expected = c4_utils.paragraph_filter(c4_utils.PageFeatures(text=text))
        verdict = rules_for(recipe).clean(page(text), Counter()).verdict
        assert (verdict is not PageVerdict.FEW_PARAGRAPHS) == expected, lengths


def test_real_pages_are_kept_with_the_text_of_the_reference(c4_utils, real_pages):
    clean_page = c4_utils.get_clean_page_fn()
    rules = rules_for(RECIPES["tfds"])
    kept = 0
    for one in real_pages[5::25]:
        for part in tf_pages(one, Counter()):
            tf_page = c4_utils.PageFeatures(text=part.text)
            expected = list(clean_page(tf_page)) if c4_utils.is_valid_length(tf_page) else []
            result = rules.clean(part, Counter())
            if not expected:
                assert result.verdict is not PageVerdict.KEPT, one.url
                continue
            assert (result.verdict, result.text) == (PageVerdict.KEPT, expected[0].text), one.url
            kept += 1
    assert kept > 100


def test_real_pages_balance_for_every_recipe(real_pages):
    for recipe in RECIPES.values():
        counts: Counter[str] = Counter()
        kept = 0
        for one in real_pages[3::60]:
            kept += rules_for(recipe).clean(one, counts).lines
        lines_read = counts.pop("lines_read")
        assert lines_read == kept + counts.total(), recipe.name


@pytest.mark.parametrize(
    ("unit", "text", "starts"),
    [
        ("sentences", "It rained. We left.\nYou stayed.", [0, 11, 20]),
        ("lines", "It rained. We left.\nYou stayed.", [0, 20]),
        ("lines", "a\n\nb\n", [0, 2, 3, 5]),
        ("lines", "a", [0]),
        ("none", "It rained.\nWe left.", []),
    ],
)
def test_units_begin_where_the_recipe_says(unit, text, starts):
    rules = PageRules(dataclasses.replace(RECIPES["en"], dedup_unit=unit))
    assert rules.unit_starts(text) == starts


@pytest.mark.parametrize(
    ("unit", "order", "judged"),
    [
        ("sentences", "filters_first", [False, True, True, True, True]),
        ("lines", "filters_first", [False, False, True, False, True]),
        ("none", "dedup_first", [True] * 5),
    ],
)
def test_pages_that_lose_units_or_have_few_are_judged_again(unit, order, judged):
    recipe = dataclasses.replace(
        RECIPES["en"], dedup_unit=unit, order=order, min_sentences_after_dedup=3
    )
    units, removed = np.array([3, 2, 9, 0, 4]), np.array([0, 0, 1, 0, 2])
    assert PageRules(recipe).are_judged_after_dedup(units, removed).tolist() == judged


def test_a_page_is_finished_without_its_removed_units():
    text = ENGLISH.replace("\n", " ", 1)
    for unit, left, sentences in (("sentences", 2, 2), ("lines", 1, None)):
        rules = PageRules(
            dataclasses.replace(RECIPES["en"], dedup_unit=unit, min_sentences_after_dedup=2)
        )
        starts = rules.unit_starts(text)
        removed = np.array([True] + [False] * (len(starts) - 1))
        page = rules.finish_page(text, starts, removed, "http://a.example/x")
        assert (page.text, page.sentences) == (text[starts[1] :], sentences)
        kept = left >= 2
        assert page.result.verdict is (
            PageVerdict.KEPT if kept else PageVerdict.FEW_SENTENCES_AFTER_DEDUP
        )
        assert page.result.text == (page.text if kept else "")
