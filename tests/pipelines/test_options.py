"""Options that come from the fields of a dataclass, those of a build above all."""

import argparse
import dataclasses
import os
import pathlib
from typing import Any, Literal

import pytest

from c4_filters.recipes import RECIPES, Recipe
from pipelines.config import BuildConfig
from pipelines.options import (
    add_options,
    check_bounds,
    given_values,
    on_cpu,
    option,
    option_of,
    set_by,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    corpus: str = option("what to read")
    steps: int = option("steps to do", "--steps", "-n", default=9, least=1, most=100_000, on_cpu=3)
    rate: float | None = option("learning rate", default=None, least=0)
    dtype: Literal["float32", "bfloat16"] = option("of activations", default="float32")
    quiet: bool = option("print nothing", default=False)
    size_bytes: int = option("in kB", "--size-kb", default=1024, type=int, read=lambda n: n << 10)
    inner: int = set_by("--corpus", "--steps", default=0)
    unknown: int = 0

    def __post_init__(self) -> None:
        check_bounds(self)


def read(config: type, *words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser, config)
    return given_values(parser.parse_args(words), config)


def test_only_what_was_given_is_set_and_the_dataclass_decides_the_rest() -> None:
    assert read(Run, "--corpus", "c") == {"corpus": "c"}
    assert read(Run, "--corpus", "c", "-n", "4", "--rate", "1e-3", "--quiet", "--size-kb", "2") == {
        "corpus": "c", "steps": 4, "rate": 0.001, "quiet": True, "size_bytes": 2048,
    }  # fmt: skip
    with pytest.raises(SystemExit):
        read(Run)  # without --corpus
    with pytest.raises(SystemExit):
        read(Run, "--corpus", "c", "--dtype", "int8")


def test_the_help_shows_each_default_once() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Run)
    text = " ".join(parser.format_help().split())
    assert "steps to do (default: 9; on a CPU 3)" in text
    assert "learning rate --dtype" in text
    assert on_cpu(Run) == {"steps": 3}


def test_options_are_named_for_messages() -> None:
    names = {name: option_of(Run, name) for name in ("steps", "size_bytes", "inner", "unknown")}
    assert names == {
        "steps": "--steps, -n", "size_bytes": "--size-kb", "inner": "--corpus, --steps",
        "unknown": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be between 1 and 100,000, got 0 (--steps, -n)"),
        ({"steps": 100_001}, "got 100001"),
        ({"rate": -1.0}, "rate must be at least 0, got -1.0 (--rate)"),
        ({"rate": float("nan")}, "got nan"),
    ],
)
def test_what_is_out_of_bounds_is_named_with_its_option(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the words follow
        Run(corpus="c", **changes)
    assert message in str(raised.value)


def parsed(*words: str) -> dict[str, Any]:
    """The fields of a build that options set."""
    return read(BuildConfig, "--input", "a", "--output", "o", *words)


def toml(folder: pathlib.Path, content: str | bytes) -> Recipe:
    path = folder / "mine.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return parsed("--recipe", str(path))["recipe"]  # type: ignore[no-any-return]


def test_without_options_it_is_the_papers_recipe() -> None:
    config = BuildConfig(**parsed())
    assert config.recipe == RECIPES["en"]
    assert config.badwords == ()
    assert (config.domain_list, config.url_list) == (None, None)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_its_name_and_is_listed(name: str) -> None:
    assert parsed("--recipe", name)["recipe"] == RECIPES[name]
    parser = argparse.ArgumentParser()
    add_options(parser, BuildConfig)
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
        ('name = "a"\nlanguages = ["eng"]', "got 'eng'; did you mean 'en'?"),
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
    assert str(raised.value).count("(--recipe)") == 1
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_an_os_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match=r"absent.toml: .* \(--recipe\)"):
        parsed("--recipe", str(tmp_path / "absent.toml"))


def test_word_lists_are_found_from_any_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fields = parsed("--badwords", "en=a.txt", "--badwords", "de=gs://lists/b=c.txt")
    assert fields["badwords"] == (
        ("en", os.path.join(tmp_path, "a.txt")),
        ("de", "gs://lists/b=c.txt"),
    )


@pytest.mark.parametrize("value", ["en", "en=", "=words.txt", "", "="])
def test_a_word_list_without_language_or_file_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="--badwords wants LANG=FILE"):
        parsed("--badwords", value)


def test_an_argument_without_an_option_is_named_as_the_help_names_it() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Check:
        folder: str = option("what to check", "folder", metavar="DIR")

    assert read(Check, "a") == {"folder": "a"}
    with pytest.raises(ValueError, match=r"^the argument DIR is empty$"):
        read(Check, "")
