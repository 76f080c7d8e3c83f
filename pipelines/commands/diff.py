"""``c4 diff``: which pages differ between two corpora, and why."""

import argparse
import dataclasses
import json
from collections.abc import Sequence

from pipelines.options import add_options, given_values, option
from pipelines.printing import counted, print_lines, printable
from pipelines.provenance.differences import Comparison, Difference, SettingDifference


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """What to compare."""

    a: str = option("a finished corpus", "a", metavar="A")
    b: str = option("another one", "b", metavar="B")
    json: bool = option("print one JSON object: settings, pages, counts", default=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 diff``."""
    parser.epilog = (
        "Pages are compared by normalised url. Why a page is missing comes from the kept files of "
        "the corpus that lacks it.\n\nexit status: 0 compared; 1 failed"
    )
    add_options(parser, _Options)


def run(arguments: argparse.Namespace) -> int:
    """Print every difference, as it is found, and then the counts."""
    options = _Options(**given_values(arguments, _Options))
    with Comparison(options.a, options.b) as comparison:
        if options.json:
            _print_json(comparison)
            return 0
        for setting in comparison.settings():
            print_lines(printable(_named(setting)))
        for page in comparison.pages():
            print_lines(printable(_line(page)))
        counts = comparison.counts
        print_lines(
            f"{counted(counts['only_in_a'], 'page')} only in A, {counts['only_in_b']:,} only in B, "
            f"{counts['differing']:,} with another text, {counts['equal']:,} equal"
        )
    return 0


def _line(page: Difference) -> str:
    why = page.why or "unknown, since the pages of the build were not kept"
    if page.only_in is None:
        return f"differs    {page.url}  ({why})"
    other = {"a": "B", "b": "A"}[page.only_in]
    return f"only in {page.only_in.upper()}  {page.url}  ({other}: {why})"


def _named(setting: SettingDifference) -> str:
    name, a, b = setting
    if name == "inputs":
        return f"{name}: {_files(a)} only in A, {_files(b)} only in B"
    return f"{name}: {_shown(a)} in A, {_shown(b)} in B"


def _files(paths: Sequence[str]) -> str:
    more = ", ..." if len(paths) > 1 else ""
    return counted(len(paths), "file") + (f" ({paths[0]}{more})" if paths else "")


def _shown(value: object) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False)


def _print_json(comparison: Comparison) -> None:
    """Print an object whose pages are printed as they are found: they may be many."""
    settings = [difference._asdict() for difference in comparison.settings()]
    print(f'{{"settings": {json.dumps(settings)},\n"pages": [', end="")
    separator = "\n"
    for page in comparison.pages():
        print(f"{separator}{json.dumps(page._asdict())}", end="")
        separator = ",\n"
    print(f'],\n"counts": {json.dumps(comparison.counts)}}}')
