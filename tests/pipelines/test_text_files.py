"""One way to read every text file that a user gives: lists, recipes, prices."""

import argparse
import json
import pathlib
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c4_filters.pages import PageRules, RawPage
from c4_filters.recipes import RECIPES, Recipe
from c4_filters.verdicts import PageVerdict
from pipelines.config import BuildConfig
from pipelines.options import add_options, given_values
from pipelines.plan_tables import Tables, read_tables
from pipelines.text_files import decode_text

FORMS: dict[str, Callable[[str], bytes]] = {
    "LF": lambda text: text.encode(),
    "BOM": lambda text: text.encode("utf-8-sig"),
    "CR LF": lambda text: text.replace("\n", "\r\n").encode(),
    "BOM, CR LF": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "blanks at line ends": lambda text: text.replace("\n", " \t\n").encode(),
    "no last line end": lambda text: text.rstrip("\n").encode(),
    "two BOMs": lambda text: b"\xef\xbb\xbf" + text.encode("utf-8-sig"),
    "BOM on every line": lambda text: b"".join(
        line.encode("utf-8-sig") for line in text.splitlines(keepends=True)
    ),
}
OTHERS = {
    "UTF-16, little-endian": (lambda text: b"\xff\xfe" + text.encode("utf-16-le"), "UTF-16 text"),
    "UTF-16, big-endian": (lambda text: b"\xfe\xff" + text.encode("utf-16-be"), "UTF-16 text"),
    "UTF-16, no mark": (lambda text: text.encode("utf-16-le"), "zero bytes, as UTF-16 has"),
    "UTF-32": (lambda text: text.encode("utf-32"), "UTF-32 text"),
    "Latin-1": (lambda text: text.encode("latin-1") + b"\xe9", "not UTF-8: byte 0xe9"),
}
LINES = (
    "The keeper of the light wrote down each ship that passed.\n"
    "He had counted ninety of them before the winter came.\n"
    "Nobody ever asked him for the book that he had filled.\n"
)
GIVEN = {"inputs": ("x",), "output": "out"}


def judged(rules: PageRules, text: str = LINES, host: str = "first.example.org") -> PageVerdict:
    page = RawPage(f"http://{host}/a", "2019-04-18T10:00:00Z", "text/plain", "", text)
    return rules.clean(page, Counter()).verdict


def badwords(path: pathlib.Path) -> None:
    rules = BuildConfig(**GIVEN, recipe=RECIPES["en"], badwords=(("en", str(path)),)).page_rules()
    for word in ("ninety", "winter"):
        assert judged(rules, LINES.replace("before", word)) is PageVerdict.BAD_WORDS
    assert judged(rules, LINES.replace("ninety", "sixty").replace("winter", "summer")) is (
        PageVerdict.KEPT
    )


def urls(path: pathlib.Path) -> None:
    rules = BuildConfig(**GIVEN, recipe=RECIPES["webtextlike"], url_list=str(path)).page_rules()
    assert judged(rules) is judged(rules, host="last.example.org") is PageVerdict.KEPT
    assert judged(rules, host="other.example.org") is PageVerdict.URL_NOT_LISTED


def domains(path: pathlib.Path) -> None:
    rules = BuildConfig(**GIVEN, recipe=RECIPES["realnewslike"], domain_list=str(path)).page_rules()
    assert judged(rules) is PageVerdict.KEPT
    assert judged(rules, host="first.example.net") is PageVerdict.DOMAIN


def recipe(path: pathlib.Path) -> Recipe:
    parser = argparse.ArgumentParser()
    add_options(parser, BuildConfig, "recipe")
    found = given_values(parser.parse_args(["--recipe", str(path)]), BuildConfig, "recipe")[
        "recipe"
    ]
    assert (found.name, found.min_sentences) == ("mine", 4)
    return found


def prices(path: pathlib.Path) -> Tables:
    tables = read_tables(str(path))
    assert tables.prices["vcpu_hour"].usd == 0.5
    return tables


READERS = {
    "words.txt": (badwords, "ninety\nwinter\n", "--badwords en"),
    "urls.txt": (urls, "first.example.org/a\nlast.example.org/a\n", "--url-list"),
    "domains.json": (domains, json.dumps({"example.org": True}, indent=1) + "\n", "--domain-list"),
    "mine.toml": (recipe, 'name = "mine"\nmin_sentences = 4\n', "--recipe"),
    "prices.toml": (prices, "[prices.vcpu_hour]\nusd = 0.5\n", "--prices"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_list_is_read_in_every_form(tmp_path: pathlib.Path, name: str, form: str) -> None:
    read, text, _ = READERS[name]
    path = tmp_path / name
    path.write_bytes(FORMS[form](text))
    read(path)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("other", OTHERS)
def test_other_encodings_are_named_in_one_line(
    tmp_path: pathlib.Path, name: str, other: str
) -> None:
    read, text, option = READERS[name]
    encode, words = OTHERS[other]
    path = tmp_path / name
    path.write_bytes(encode(text))
    with pytest.raises(ValueError, match=words) as raised:
        read(path)
    message = str(raised.value)
    assert str(path) in message
    assert f"({option})" in message
    assert "save it as UTF-8" in message
    assert "\n" not in message


@given(st.text(st.characters(exclude_characters="\0\r\ufeff", exclude_categories=["Cs"])))
def test_text_comes_back_whatever_its_line_ends(text: str) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        for end in ("\n", "\r\n", "\r"):
            assert decode_text(text.replace("\n", end).encode(encoding)) == text
