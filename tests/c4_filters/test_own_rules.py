"""Rules of one's own: what they see, what they may return, and when their code runs."""

import pathlib
import sys
from collections import Counter

import pytest

from c4_filters.own_rules import OwnRuleError, OwnRules, RulePage, load_own_rules, modules_of
from c4_filters.pages import PageRules, RawPage
from c4_filters.recipes import RECIPES, Recipe, load_recipe
from c4_filters.verdicts import LineVerdict, PageVerdict, RejectReason, page_verdict

TEXT = """\
Home | About us
The old bridge was closed in spring because two arches had moved.
Engineers measured the gap every morning. They wrote it in a book."""
KEPT = "\n".join(TEXT.split("\n")[1:])
PAGE = RawPage("http://a.example/x", "2019-04-19T02:00:00Z", "text/plain", "", TEXT)


def rules_of(function, recipe="en"):
    return PageRules(RECIPES[recipe], own=OwnRules([("mine:f", function)], {}))


def test_a_rule_sees_the_page_as_the_other_rules_left_it():
    seen = []
    rules = rules_of(lambda page: seen.append(page))
    assert rules.clean(PAGE, Counter()).verdict is PageVerdict.KEPT
    [page] = seen
    assert page[:4] == (PAGE.url, PAGE.timestamp, KEPT, "en")
    assert page.language_probability > 0.99


def test_a_dropped_page_has_its_verdict_and_its_lines_are_counted():
    counts: Counter[str] = Counter()
    result = rules_of(lambda page: "about_bridges").clean(PAGE, counts)
    assert (result.verdict, result.text, result.lines) == ("about_bridges", "", 0)
    assert result.reason() == "mine:f"
    assert +counts == {"lines_read": 3, "no_end_mark": 1, "on_dropped_page": 2}


def test_a_page_that_another_rule_drops_is_not_shown():
    def never(page):
        raise AssertionError(page)

    rules = rules_of(never)
    for text in ("", "Too short to stay.", TEXT.replace("arches", "{"), "12345 67890 1 2 3. " * 9):
        assert rules.clean(PAGE._replace(text=text), Counter()).verdict is not PageVerdict.KEPT


def test_where_deduplication_comes_first_a_rule_runs_before_that_of_text():
    seen = []
    rules = rules_of(lambda page: seen.append(page) or "mine", "tfds")
    assert rules.clean(PAGE, Counter()).verdict == "mine"
    assert seen == [RulePage(PAGE.url, PAGE.timestamp, KEPT, None, None)]
    assert rules.finish(KEPT, 3, PAGE.url).verdict is PageVerdict.KEPT


def test_the_first_rule_that_drops_decides():
    calls = []
    own = OwnRules(
        [
            ("m:a", lambda page: calls.append("a")),
            ("m:b", lambda page: "from_b"),
            ("m:c", lambda page: calls.append("c")),
        ],
        {},
    )
    assert own.judge(RulePage("", "", "", None, None)) == ("from_b", "m:b")
    assert calls == ["a"]


def test_verdicts_of_ours_are_refused():
    for name in (*LineVerdict, *PageVerdict, *RejectReason):
        with pytest.raises(OwnRuleError, match=f"returned '{name}', which is a verdict of c4"):
            rules_of(lambda page, name=str(name): name).clean(PAGE, Counter())


@pytest.mark.parametrize("value", ["", "Recipe", "a-recipe", "seite_ä", "x" * 65, True, 0, b"bad"])
def test_nonsense_is_refused(value):
    with pytest.raises(OwnRuleError) as caught:
        rules_of(lambda page: value).clean(PAGE, Counter())
    message = str(caught.value)
    assert message.startswith("rule mine:f returned ")
    assert message.endswith("for the page http://a.example/x")
    assert "\n" not in message


@pytest.mark.parametrize(
    "error", [KeyError("two\nlines"), SystemExit(3), RecursionError("x" * 999)]
)
def test_a_rule_that_raises_is_named_in_one_line(error):
    def fails(page):
        raise error

    rules = rules_of(fails)
    short = PAGE._replace(text="Too short.")
    with pytest.raises(OwnRuleError) as caught:
        rules.clean_all([short, short, PAGE], Counter())
    assert caught.value.at == 2
    message = caught.value.located("a.gz, offset 7")
    assert message.startswith(f"rule mine:f raised {type(error).__name__} (")
    assert message.endswith("for the page http://a.example/x (a.gz, offset 7)")
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "rule", ["my_rules", "my_rules:", ":f", "a b:f", "a/b:f", "m:f:g", "m:f()"]
)
def test_a_rule_of_another_form_is_refused(rule):
    with pytest.raises(ValueError, match='recipe x: rules must be rules such as "my_rules:no_rec'):
        Recipe(name="x", rules=(rule,))


def test_a_recipe_file_names_rules_and_loads_nothing():
    recipe = load_recipe("x.toml", 'name = "x"\nrules = ["nowhere.at_all:f", "nowhere.at_all:g"]')
    assert recipe.rules == ("nowhere.at_all:f", "nowhere.at_all:g")
    assert modules_of(recipe.rules) == ("nowhere.at_all",)
    assert Recipe.from_mapping(recipe.as_dict()) == recipe
    assert "nowhere" not in sys.modules
    assert PageRules(recipe).clean(PAGE, Counter()).verdict is PageVerdict.KEPT
    with pytest.raises(ValueError, match="must name each rule once"):
        Recipe(name="x", rules=("m:f", "m:f"))
    with pytest.raises(ValueError, match="rules must be a list of strings"):
        load_recipe("x.toml", 'name = "x"\nrules = [3]')


def test_recipes_without_these_fields_keep_their_digest():
    assert RECIPES["en"].as_dict().keys().isdisjoint({"rules", "near_dedup"})
    assert RECIPES["en"].digest() == "ab1565842ff3000c"


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_module_of_the_current_folder_is_found(folder):
    source = "from __future__ import annotations\nimport dataclasses\n\n@dataclasses.dataclass\n"
    source += "class Word:\n    text: str = 'bridge'\n\ndef f(page):\n    return 'é'[1:] or None\n"
    (folder / "rules_here.py").write_text(source, encoding="utf-8")
    own = load_own_rules(["rules_here:f"], ["rules_here"])
    assert own.sources == {"rules_here": source}
    assert own.judge(RulePage("", "", "", None, None)) is None


def test_what_runs_is_what_the_digest_is_of(folder):
    path = folder / "rules_twice.py"
    for verdict in ("one", "two"):
        path.write_text(f"def f(page): return {verdict!r}\n")
        own = load_own_rules(["rules_twice:f"], ["rules_twice"])
        assert own.judge(RulePage("", "", "", None, None)) == (verdict, "rules_twice:f")
        assert verdict in own.sources["rules_twice"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "was not found: put rules_bad.py into the current folder, or install it"),
        ("def g(page): return None\n", "has no function f"),
        ("f = 3\n", "has no function f"),
        ("def f(page)\n", r"cannot be loaded: SyntaxError \("),
        ("import nothing_of_that_name\n", r"cannot be loaded: ModuleNotFoundError \("),
        ("raise SystemExit\n", "cannot be loaded: SystemExit"),
        ("# coding: nothing\n", r"cannot be loaded: SyntaxError \("),
        ("# \xe9\n", r"cannot be loaded: \w+Error \("),
    ],
)
def test_a_module_that_does_not_load_is_named(folder, source, message):
    if source is not None:
        (folder / "rules_bad.py").write_bytes(source.encode("latin-1"))
    with pytest.raises(ValueError, match=f"the module rules_bad {message}") as caught:
        load_own_rules(["rules_bad:f"], ["rules_bad"])
    assert str(caught.value).endswith("(--allow-rules rules_bad)")
    assert "\n" not in str(caught.value)
    assert "rules_bad" not in sys.modules


def test_a_module_without_source_is_refused(folder):
    with pytest.raises(ValueError, match="the module itertools has no Python source"):
        load_own_rules(["itertools:chain"], ["itertools"])


def test_a_module_that_is_not_allowed_does_not_run(folder):
    (folder / "rules_evil.py").write_text("open('ran', 'w').close()\ndef f(page): return None\n")
    with pytest.raises(ValueError, match="runs only if you allow it"):
        load_own_rules(["rules_evil:f"], ["rules_other"])
    assert not (folder / "ran").exists()


def test_verdicts_of_kept_files_are_read_whoever_gave_them():
    assert page_verdict("few_sentences") is PageVerdict.FEW_SENTENCES
    assert page_verdict("a_recipe") == "a_recipe"
