"""The options that choose a recipe and its lists, shared by every command that applies one."""

import argparse

from c4_filters.recipes import RECIPES, Recipe, load_recipe
from pipelines import storage
from pipelines.corpus import layout
from pipelines.text_files import decode_text

__all__ = ["add_limit_arguments", "add_recipe_arguments", "badword_lists", "recipe_of"]


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --recipe, --badwords, --domain-list and --url-list."""
    parser.add_argument(
        "--recipe",
        default="en",
        metavar="NAME|FILE.toml",
        help=f"which rules hold: {', '.join(RECIPES)}, or a TOML file (default: en)",
    )
    parser.add_argument(
        "--badwords",
        action="append",
        default=[],
        metavar="LANG=FILE",
        help="a list of bad words, one a line, in place of the packaged one; may be repeated",
    )
    parser.add_argument(
        "--domain-list", metavar="FILE", help="RealNews domains (JSON), for recipe realnewslike"
    )
    parser.add_argument(
        "--url-list", metavar="FILE", help="OpenWebText urls, one a line, for recipe webtextlike"
    )


def add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --max-record-mb and --max-file-mb."""
    parser.add_argument(
        "--max-record-mb",
        type=int,
        default=64,
        metavar="MB",
        help="larger records are rejected, whatever they unpack to (default: 64)",
    )
    parser.add_argument(
        "--max-file-mb",
        type=int,
        default=1024,
        metavar="MB",
        help="of a file that unpacks to more, the rest is rejected (default: 1024)",
    )


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe asked for. Raises ValueError or OSError, in one line."""
    name = arguments.recipe
    if not name.endswith(".toml"):
        return load_recipe(name)
    try:
        text = decode_text(storage.read_bytes(name))
    except ValueError as error:
        raise ValueError(f"{name}: {error} (--recipe)") from None
    return load_recipe(name, text)


def badword_lists(arguments: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    """(language, path) of each --badwords. Raises ValueError for one of another form."""
    lists = []
    for value in arguments.badwords:
        language, equals, path = value.partition("=")
        if not (language and equals and path):
            raise ValueError(f"--badwords wants LANG=FILE, such as en=words.txt, got {value!r}")
        lists.append((language, layout.absolute(path)))
    return tuple(lists)
