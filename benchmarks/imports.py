"""Measure what importing costs beside the parser alone, and on hostile wikitext.

    python -m benchmarks.imports                     # a made-up dump: 1.3 is the bar
    python -m benchmarks.imports --dump FILE.xml.bz2 # a real one, of at most some 100 MB
    python -m benchmarks.imports --hostile           # microseconds a character of unclosed marks

The parser alone is ``mwparserfromhell.parse`` of each article's wikitext. The import is cleaning
the dump's file as a build with recipe as_is does: unpacking, XML, parsing, text, the kept files.
CPU time of one process; the program fails beyond the bar.
"""

import argparse
import bz2
import functools
import pathlib
import random
import sys
import tempfile
from collections.abc import Sequence
from unittest import mock

import mwparserfromhell

from benchmarks import measure
from c4_filters.recipes import load_recipe
from pipelines import storage
from pipelines.config import BuildConfig
from pipelines.imports import wikipedia, wikitext
from pipelines.imports.inflated import Stored
from pipelines.imports.pages import Limits
from pipelines.stages.clean_files import clean_file, clean_identity
from pipelines.wet.results import ReadStats
from testing.dumps import WikiPage, dump_bytes

_BAR = 1.3
_WORDS = (
    "the", "old", "bridge", "over", "a", "wide", "river", "was", "built", "of", "stone", "before",
    "anyone", "here", "born",
)  # fmt: skip
_HOSTILE = ("{{a|", "[[a|", "{|\n", "<b>", "\n*[[a|", "{{a|b}", "[//a ", " <br", "''' ", "\n:;")


def make_article(draw: random.Random) -> str:
    """Return wikitext with about as much markup as articles have."""

    def sentence() -> str:
        words = draw.choices(_WORDS, k=draw.randint(8, 24))
        for at in range(len(words)):
            kind = draw.random()
            if kind < 0.06:
                words[at] = f"[[{words[at].title()} bridge|{words[at]}]]"
            elif kind < 0.08:
                words[at] = f"''{words[at]}''"
            elif kind < 0.085:
                words[at] = f"{{{{convert|{draw.randint(1, 99)}|km|mi}}}}"
        return f"{' '.join(words).capitalize()}."

    def cited() -> str:
        cite = (
            "<ref>{{cite web |url=https://example.org/a |title=A title |last=Smith |date=2019-01-02"
            " |access-date=2020-02-03 |publisher=Press}}</ref>"
        )
        return sentence() + (cite if draw.random() < 0.4 else "")

    parts = [
        "{{Short description|Bridge}}\n{{Infobox bridge\n| name = Old\n| image = A.jpg\n"
        "| length = {{convert|120|m|ft}}\n| opened = {{start date|1931}}\n}}\n'''Old Bridge''' "
    ]
    for section in range(draw.randint(2, 8)):
        parts.append(f"\n== Part {section} ==\n")
        for _ in range(draw.randint(1, 4)):
            parts.append(" ".join(cited() for _ in range(draw.randint(2, 7))) + "\n\n")
        if draw.random() < 0.3:
            parts.append("".join(f"* {cited()}\n" for _ in range(draw.randint(2, 6))))
        if draw.random() < 0.15:
            rows = "".join(f"|-\n| {n} || [[Town {n}]] || {n * 7}\n" for n in range(12))
            parts.append(f'{{| class="wikitable"\n! A !! B !! C\n{rows}|}}\n')
    parts.append("[[Category:Bridges]]\n[[File:A.jpg|thumb|A [[bridge]].]]\n")
    return "".join(parts)


def _articles(path: pathlib.Path) -> list[str]:
    """Return the wikitext of the articles of a dump."""
    found: list[str] = []

    def keep(text: str, names: object) -> str:
        found.append(text)
        return "x"

    with (
        mock.patch.object(wikipedia, "plain_text", keep),
        storage.open_raw(str(path)) as stream,
    ):
        for _ in wikipedia.read(str(path), Stored(stream, ReadStats()), Limits(64 << 20, 1 << 40)):
            pass
    return found


def _measure(path: pathlib.Path, folder: pathlib.Path) -> bool:
    texts = _articles(path)
    characters = sum(map(len, texts))
    config = BuildConfig(
        inputs=str(path), output=str(folder), source="wikipedia", recipe=load_recipe("as_is")
    )
    rules, identity = config.page_rules(), clean_identity(config)
    wikitext.plain_text("warm")

    def imported() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as output:
            summary = clean_file(
                str(path), path.stat().st_size, output, rules, identity,
                config.max_record_bytes, max_file_bytes=1 << 40, source="wikipedia",
            )  # fmt: skip
        assert summary.pages_read == len(texts), summary

    works = {"alone": lambda: list(map(mwparserfromhell.parse, texts)), "import": imported}
    least = {name: min(taken) for name, taken in measure.in_turn(works, 3).items()}
    ratio = least["import"] / least["alone"]
    print(
        f"{len(texts):,} articles, {characters:,} characters: the parser alone "
        f"{least['alone'] / characters * 1e6:.2f} us a character, the import "
        f"{least['import'] / characters * 1e6:.2f}: {ratio:.2f} times (bar: {_BAR})"
    )
    return ratio <= _BAR


def _hostile() -> None:
    for unit in _HOSTILE:
        cost = []
        for size in (50_000, 200_000):
            text = unit * (size // len(unit))
            seconds = measure.cpu_s(functools.partial(wikitext.plain_text, text))
            cost.append(seconds / len(text) * 1e6)
        print(f"{unit!r:12} {cost[0]:6.2f} us a character of 50,000, {cost[1]:6.2f} of 200,000")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dump", type=pathlib.Path, help="a dump (default: made up)")
    parser.add_argument("--articles", type=int, default=150, help="of the made-up dump")
    parser.add_argument("--hostile", action="store_true", help="measure unclosed marks instead")
    arguments = parser.parse_args(words)
    if arguments.hostile:
        _hostile()
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = arguments.dump
        if path is None:
            draw, path = random.Random(0), folder / "made-up.xml.bz2"
            pages = [WikiPage(f"Page {n}", make_article(draw)) for n in range(arguments.articles)]
            path.write_bytes(bz2.compress(dump_bytes(pages)))
        return 0 if _measure(path, folder) else 1


if __name__ == "__main__":
    sys.exit(main())
