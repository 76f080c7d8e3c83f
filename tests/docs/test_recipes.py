"""docs/recipes.md: its files and commands work as they are written."""

import pathlib
import re
import shutil
import sys

import pytest

from c4_filters import near
from c4_filters.recipes import load_recipe
from testing.helpers import manifest_of, run_c4
from tests.docs.test_pages import DOCS, SAMPLE, blocks

PAGE = "recipes.md"
TEXT = (DOCS / PAGE).read_text(encoding="utf-8")


def commands(beginning: str) -> list[list[str]]:
    """The words of each command ``c4 ...`` in the block that begins like this."""
    [block] = [block for block in blocks(PAGE, "sh") if block.startswith(beginning)]
    lines = block.replace("\\\n", " ").replace("'", "").splitlines()
    return [line.split()[1:] for line in lines if line.startswith("c4 ")]


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copy(SAMPLE, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_rules_of_ones_own(folder: pathlib.Path) -> None:
    own, near_one = blocks(PAGE, "toml")
    [source] = blocks(PAGE, "python")
    (folder / "my_rules.py").write_text(source, encoding="utf-8")
    (folder / "mine.toml").write_text(own)
    build, explain = commands("c4 build --input '*.warc.wet.gz' --output mine")
    done = run_c4(*build)
    assert done.status == 0, done.err
    made = manifest_of(folder / "mine")
    assert made["counts"]["pages_dropped"]["a_harbour"] > 0
    assert made["rule_sources"] == {"my_rules": source}
    (folder / "my_rules.py").unlink()
    shown = run_c4(*explain)
    assert shown.status == 0, shown.err
    assert set(re.findall(r"\n  page (\w+)", shown.out)) == {"a_harbour"}
    assert load_recipe("near.toml", near_one).near_dedup is not None


@pytest.mark.slow
def test_a_corpus_for_each_language(folder: pathlib.Path) -> None:
    for words in commands("c4 build --input '*.warc.wet.gz' --output many"):
        done = run_c4(*words)
        assert done.status == 0, done.err
    assert done.out.startswith(str(folder / "many" / "en") + ": no problems")


def test_the_lists_are_those_of_the_recipes() -> None:
    [news] = commands("curl")
    assert news[news.index("--domain-list") + 1] in blocks(PAGE, "sh")[0].splitlines()[0]
    [build] = commands("unzip -p")
    assert build[build.index("--recipe") + 1] == "webtextlike"
    assert len(re.findall(r"\b201[89]-\d\d\b", blocks(PAGE, "sh")[1])) == 12


def test_the_figures_of_near_duplicates_are_those_of_the_code() -> None:
    bands = near.bands_for(0.8)
    assert f"{bands.numbers}\n  of {bands.rows} at a threshold of 0.8" in TEXT
    assert f"the {near.HOT} best-ranked ones" in TEXT
    assert f"this finds {near.RECALL:.0%}".replace("%", " %") in TEXT
    assert bands.recall(0.8) >= near.RECALL
