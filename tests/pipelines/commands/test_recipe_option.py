import argparse
import os
import pathlib

import pytest

from c4_filters.recipes import RECIPES, Recipe
from pipelines.commands.recipe_option import add_recipe_arguments, badword_lists, recipe_of


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_recipe_arguments(parser)
    return parser.parse_args(words)


def toml(folder: pathlib.Path, content: str | bytes) -> Recipe:
    path = folder / "mine.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return recipe_of(parsed("--recipe", str(path)))


def test_without_options_it_is_the_papers_recipe() -> None:
    arguments = parsed()
    assert recipe_of(arguments) == RECIPES["en"]
    assert badword_lists(arguments) == ()
    assert (arguments.domain_list, arguments.url_list) == (None, None)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_its_name_and_is_listed(name: str) -> None:
    assert recipe_of(parsed("--recipe", name)) == RECIPES[name]
    parser = argparse.ArgumentParser()
    add_recipe_arguments(parser)
    assert name in " ".join(parser.format_help().split())


def test_a_file_changes_a_recipe(tmp_path: pathlib.Path) -> None:
    recipe = toml(tmp_path, 'name = "mine"\nbase = "de"\nmin_sentences = 4\n')
    assert (recipe.name, recipe.languages, recipe.min_sentences) == ("mine", ("de",), 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name =", "not valid TOML"),
        (b'name = "\xff"', "not UTF-8"),
        ("min_sentences = 4", "a recipe needs a name"),
        ('name = "a"\nmin_sentence = 4', "'min_sentence'; did you mean 'min_sentences'?"),
        ('name = "a"\nbase = "enn"', "unknown recipe 'enn'; did you mean 'en'?"),
        ('name = "a"\nmin_sentences = "4"', "min_sentences must be a whole number, got '4'"),
        ('name = "a"\nlanguages = ["eng"]', "'eng' is none; did you mean 'en'?"),
        ('name = "a"\ndedup_window = 0', "dedup_window must be at least 1, got 0"),
    ],
)
def test_a_bad_file_is_named_in_one_line(
    tmp_path: pathlib.Path, content: str | bytes, words: str
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the words follow
        toml(tmp_path, content)
    assert words in str(raised.value)
    assert "mine.toml: " in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_an_os_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        recipe_of(parsed("--recipe", str(tmp_path / "absent.toml")))


def test_word_lists_are_found_from_any_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = parsed("--badwords", "en=a.txt", "--badwords", "de=gs://lists/b=c.txt")
    assert badword_lists(arguments) == (
        ("en", os.path.join(tmp_path, "a.txt")),
        ("de", "gs://lists/b=c.txt"),
    )


@pytest.mark.parametrize("value", ["en", "en=", "=words.txt", "", "="])
def test_a_word_list_without_language_or_file_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="--badwords wants LANG=FILE"):
        badword_lists(parsed("--badwords", value))
