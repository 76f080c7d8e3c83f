"""Rules of one's own, end to end: counted, explained, and run only where they are allowed."""

import gzip
import json
import pathlib
import sys

import pytest

from pipelines.config import BuildConfig
from testing.helpers import manifest_of, read_corpus, run_c4, wet_record, write_wet

OLD, NEW = "2019-04-18T10:00:00Z", "2019-04-20T10:00:00Z"
SOURCE = '''\
"""What I do not want."""


def no_recipes(page):
    return "a_recipe" if "flour" in page.text else None


def no_drafts(page):
    return "a_draft" if page.url.endswith("/draft") and page.language == "en" else None
'''
RECIPE = """\
name = "mine"
base = "en"
rules = ["my_rules:no_recipes", "my_rules:no_drafts"]
"""
BREAD = (
    "A good loaf of bread needs nothing but patience and flour.\n"
    "The dough rests overnight in a cool corner of the kitchen.\n"
    "In the morning it goes into a very hot oven."
)
BRIDGE = (
    "The old bridge was closed in spring because two arches had moved.\n"
    "Engineers measured the gap every morning and wrote it down.\n"
    "By the end of the summer the arches had come to rest."
)
LAMP = (
    "The lighthouse keeper climbs the stairs at dusk every day.\n"
    "He lights the lamp before the first ship passes the cape.\n"
    "Nobody has missed a single evening in ninety years."
)
PAGES = [
    ("http://bread.example/", OLD, BREAD),
    ("http://bridge.example/draft", NEW, BRIDGE),
    ("http://lamp.example/", OLD, LAMP),
    # A rule that drops the newest copy of a url acts before urls are compared: the older stays.
    ("http://twice.example/", NEW, BREAD.replace("good", "fine")),
    ("http://twice.example/", OLD, LAMP.replace("lighthouse", "old inn")),
]


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_rules.py").write_text(SOURCE)
    (tmp_path / "mine.toml").write_text(RECIPE)
    write_wet(tmp_path / "a.warc.wet.gz", PAGES)
    return tmp_path


def build(folder: pathlib.Path, *more: str, out: str = "out"):
    return run_c4(
        "build", "--input", folder / "a.warc.wet.gz", "--output", folder / out,
        "--recipe", "mine.toml", *more,
    )  # fmt: skip


ALLOWED = ("--allow-rules", "my_rules")


@pytest.mark.slow
def test_pages_go_by_rules_of_ones_own_and_everything_knows_why(folder: pathlib.Path) -> None:
    first = build(folder, *ALLOWED, "--workers", "2")
    assert first.status == 0, first.err
    made = manifest_of(folder / "out")
    assert made["counts"]["pages_dropped"] == {"a_draft": 1, "a_recipe": 2}
    assert made["counts"]["pages_written"] == 2
    assert " a_recipe " in first.out
    urls = {page["url"]: page["timestamp"] for page in read_corpus(folder / "out")["train"]}
    assert urls == {"http://lamp.example/": OLD, "http://twice.example/": OLD}
    assert made["rule_sources"] == {"my_rules": SOURCE}
    assert list(made["settings"]["rules"]) == ["my_rules"]
    assert made["samples"]["a_draft"][0]["evidence"] == "my_rules:no_drafts"

    # Nothing that opens the corpus runs the module, which is gone.
    (folder / "my_rules.py").unlink()
    corpus = ("--corpus", folder / "out")
    assert run_c4("verify", folder / "out").status == 0
    for verdict, urls_of_it in {
        "a_recipe": ["http://bread.example/", "http://twice.example/"],
        "a_draft": ["http://bridge.example/draft"],
    }.items():
        shown = run_c4("explain", *corpus, "--verdict", verdict)
        assert shown.status == 0, shown.err
        assert shown.out.count(f"  page {verdict}: by a rule of the recipe: my_rules:no_r") == len(
            urls_of_it
        )
        assert all(url in shown.out for url in urls_of_it)
    shown = run_c4("explain", *corpus, "--url", "http://twice.example/")
    assert [line.split()[1] for line in shown.out.splitlines() if "  page " in line] == [
        "a_recipe:", "kept:",
    ]  # fmt: skip
    shown = run_c4("explain", folder / "a.warc.wet.gz", "--corpus", folder / "out")
    assert shown.status == 0, shown.err
    assert shown.out.count("  page a_recipe: ") == 2
    assert run_c4("explain", *corpus, "--verdict", "no_such_thing").status == 1

    # Allowed again, with the module of the build or with another.
    (folder / "my_rules.py").write_text(SOURCE)
    shown = run_c4("explain", *corpus, "--url", "http://bread.example/", *ALLOWED)
    assert "  page a_recipe: my_rules:no_recipes" in shown.out
    (folder / "my_rules.py").write_text(SOURCE.replace("flour", "sugar"))
    shown = run_c4("explain", *corpus, "--url", "http://bread.example/", *ALLOWED)
    assert shown.status == 1
    assert "the module my_rules is not the one that" in shown.err

    # The digest is part of what the folder is of.
    refused = build(folder, *ALLOWED)
    assert refused.status == 1
    assert "rules.my_rules is " in refused.err
    assert refused.err.count("\n") == 1
    (folder / "my_rules.py").write_text(SOURCE)
    assert "is complete already" in build(folder, *ALLOWED).out


def test_a_recipe_alone_runs_nothing(folder: pathlib.Path) -> None:
    (folder / "my_rules.py").write_text("open('ran', 'w').close()\n" + SOURCE)
    refused = build(folder)
    assert refused.status == 1
    assert (
        "a recipe alone runs no code: look at them, then allow them with --allow-rules my_rules"
        in (refused.err)
    )
    shown = run_c4("explain", folder / "a.warc.wet.gz", "--recipe", "mine.toml")
    assert shown.status == 0, shown.err
    assert "page kept" in shown.out
    assert "(rules of your own not considered: --allow-rules my_rules)" in shown.out
    assert not (folder / "ran").exists()
    assert not (folder / "out").exists()
    shown = run_c4("explain", folder / "a.warc.wet.gz", "--recipe", "mine.toml", *ALLOWED)
    assert shown.out.count("page a_recipe: my_rules:no_recipes") == 2
    assert (folder / "ran").exists()


def test_a_module_that_no_rule_is_in_is_refused(folder: pathlib.Path) -> None:
    refused = build(folder, "--allow-rules", "my_rules,other")
    assert refused.err == "c4: error: recipe mine has no rule in the module other (--allow-rules)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("1 / len(page.text.split('flour')[2:])", "raised ZeroDivisionError (division by zero)"),
        ("'Recipe'", "returned 'Recipe', and not None or a verdict [a-z_]+"),
        ("'bad_words'", "returned 'bad_words', which is a verdict of c4 itself: use another"),
    ],
)
def test_a_rule_that_fails_stops_the_build_in_one_line(
    folder: pathlib.Path, body: str, what: str
) -> None:
    (folder / "my_rules.py").write_text(
        f"def no_recipes(page):\n    return {body} if 'flour' in page.text else None\n"
        "no_drafts = no_recipes\n"
    )
    (folder / "a.warc.wet.gz").write_bytes(
        b"".join(gzip.compress(wet_record(*page)) for page in [PAGES[2], PAGES[0]])
    )
    failed = build(folder, *ALLOWED, "--workers", "1")
    offset = len(gzip.compress(wet_record(*PAGES[2])))
    assert failed.status == 1
    assert failed.err.startswith(
        f"c4: error: rule my_rules:no_recipes {what} for the page http://bread.example/ "
        f"({folder}/a.warc.wet.gz, offset {offset})"
    )
    assert failed.err.count("\n") == 1


@pytest.mark.slow
def test_a_rule_that_makes_verdicts_up_is_stopped(folder: pathlib.Path) -> None:
    (folder / "my_rules.py").write_text(
        "def no_recipes(page):\n"
        "    number = int(page.url.split('/')[-1])\n"
        "    return 'page_' + ''.join(chr(97 + int(digit)) for digit in str(number))\n"
        "no_drafts = no_recipes\n"
    )
    pages = [(f"http://a.example/{number}", OLD, BREAD) for number in range(300)]
    write_wet(folder / "a.warc.wet.gz", pages)
    failed = build(folder, *ALLOWED, "--workers", "1")
    assert failed.status == 1
    assert "rule my_rules:no_recipes has returned too many different verdicts in " in failed.err
    assert "the last 'page_cfg' for http://a.example/256: a verdict names a reason" in failed.err


def test_workers_with_another_module_are_refused(folder: pathlib.Path) -> None:
    config = BuildConfig(inputs="x", output="y", recipe="mine.toml", allow_rules="my_rules")
    assert list(config.identity["rules"]) == ["my_rules"]
    assert config.page_rules().recipe is config.recipe
    (folder / "my_rules.py").write_text(SOURCE.replace("flour", "sugar"))
    with pytest.raises(
        ValueError, match=r"the module my_rules on .* is not the one that the build"
    ):
        config.page_rules()


@pytest.mark.slow
def test_corpora_without_own_rules_say_nothing_of_them(folder: pathlib.Path) -> None:
    done = run_c4("build", "--input", folder / "a.warc.wet.gz", "--output", folder / "plain")
    assert done.status == 0, done.err
    made = manifest_of(folder / "plain")
    assert "rule_sources" not in made
    assert made["settings"].keys().isdisjoint({"rules"})
    assert made["recipe"].keys().isdisjoint({"rules", "near_dedup"})
    assert "rules" not in json.loads((folder / "plain" / "build.json").read_text())["recipe"]


@pytest.mark.slow
def test_where_urls_are_deduplicated_first_the_newest_copy_may_be_one_that_a_rule_drops(
    folder: pathlib.Path,
) -> None:
    (folder / "mine.toml").write_text(RECIPE.replace('"en"', '"tfds"'))
    (folder / "my_rules.py").write_text(SOURCE.replace('page.language == "en"', "True"))
    done = build(folder, *ALLOWED, "--workers", "1")
    assert done.status == 0, done.err
    dropped = manifest_of(folder / "out")["counts"]["pages_dropped"]
    assert dropped == {"a_draft": 1, "a_recipe": 2, "duplicate_url": 1}
    assert [page["url"] for page in read_corpus(folder / "out")["train"]] == [
        "http://lamp.example/"
    ]
    shown = run_c4("explain", "--corpus", folder / "out", "--url", "http://twice.example/")
    assert shown.status == 0, shown.err
    assert "  page a_recipe: by a rule of the recipe" in shown.out
    assert "was preferred, itself dropped (a_recipe)" in shown.out
