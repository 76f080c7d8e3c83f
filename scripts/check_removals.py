"""Check every removal of a finished corpus against its kept files, with code of its own.

::

    python -m scripts.check_removals DIR

Deduplication is done again here, in dictionaries of texts: every page and sentence (or line) that
should go is removed, nothing else is, and each has the keeper that the ranking names, which holds
the same url or span and is itself kept:

- of the pages of a normalised url the newest stays; of equally new ones, that with the smallest
  digest; its keeper is named by the first 8 bytes of that digest;
- of the occurrences of a span, that in the page of the smallest rank stays, and there the first;
  a sentence goes if it lies in any span that goes, and has the smallest keeper of those.

Pages of older corpora (``--against``), which must have kept theirs, rank before all others, those
that are opted out there included. An opted-out page has no keeper; that of a near duplicate must be
a page that is kept. Memory holds the pages' digests, and the spans of one part of the corpus at a
time. Exits with 1 if a removal is wrong, and with 2 if the kept files cannot be read.
"""

import argparse
import hashlib
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from c4_filters.dates import date_key
from c4_filters.recipes import Recipe
from c4_filters.urls import md5_key, normalize_url, page_key, url_identity
from c4_filters.verdicts import PageVerdict
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile
from pipelines.corpus.fingerprints import read_fingerprints
from pipelines.corpus.manifest import Manifest, read_manifest
from pipelines.corpus.removals import PAGE_VERDICTS, open_removals

_SPANS_AT_ONCE = 2_000_000
_COLUMNS = ["url", "text", "timestamp", "digest", "unit_starts"]
_LOST = (PageVerdict.DUPLICATE_URL, PageVerdict.OPTED_OUT)  # before spans are compared
#: Generation (0: an older corpus), rank of the page, file, first unit of the span.
_Place: TypeAlias = tuple[int, int, str, int]
_Source: TypeAlias = tuple[int, str, str]  # generation, folder, file
_Won: TypeAlias = dict[bytes, tuple[str, bytes]]  # url -> date and digest of the preferred page


class _File:
    """What is kept of one WET file. Use as a context manager."""

    def __init__(self, source: _Source) -> None:
        self.generation, folder, name = source
        self.name, self._prints = name, layout.fingerprints(folder, name)
        self._cleaned = CleanedFile(layout.cleaned(folder, name))
        self.removals = open_removals(layout.removals(folder, name), self._cleaned, None)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._cleaned.close()
        self.removals.close()

    def pages(self) -> Iterator[tuple[dict[str, Any], PageVerdict]]:
        for split in range(len(layout.SPLITS)):
            for rows, first, _ in self._cleaned.slices(split, 0, 1 << 64):
                codes = self.removals.pages(first, len(rows)).tolist()
                for row, code in zip(rows.select(_COLUMNS).to_pylist(), codes, strict=True):
                    yield row, PAGE_VERDICTS[code]

    def compared(self, recipe: Recipe) -> Iterator[tuple[bytes, str, bytes]]:
        """Yield url, date and digest of the pages of which the newest of each url stays."""
        for row, verdict in self.pages():
            if verdict is not PageVerdict.OPTED_OUT or not self.generation:
                date = row["timestamp"]
                date = date if recipe.drop_parser_accidents else date_key(date)
                yield _url(row), date, row["digest"]
        if recipe.order == "dedup_first":  # pages that the rules drop compete, too
            prints = read_fingerprints(self._prints)
            for at in range(prints.cleaned_pages, len(prints.timestamps)):
                url, digest = prints.url_identities[at].tobytes(), prints.digests[at].tobytes()
                yield url, prints.timestamps[at], digest

    def spans(self, recipe: Recipe, won: _Won) -> Iterator[tuple[bytes, _Place]]:
        """Yield the spans of the pages that keep their url."""
        before = 0
        for row, verdict in self.pages():
            bounds = itertools.pairwise([*row["unit_starts"], len(row["text"])])
            units = [row["text"][a:b].lower().strip() for a, b in bounds]
            lost = verdict in _LOST
            if not self.generation:  # its list of opted-out pages is its own business
                lost = recipe.dedup_urls and won.get(_url(row), ("", b""))[1] != row["digest"]
            count = 0 if lost else len(units) - recipe.dedup_window + 1
            for first in range(count):
                span = "\n".join(units[first : first + recipe.dedup_window]).encode()
                place = self.generation, _rank(row, recipe), self.name, before + first
                yield hashlib.blake2b(span, digest_size=16).digest(), place
            before += len(units)


def check(folder: str) -> tuple[Counter[str], list[str]]:
    """Check a corpus; return how many removals there are of each kind, and what is wrong.

    Raises:
        OSError: A kept file cannot be read.
        ValueError: A kept file is damaged.
    """
    made = read_manifest(folder)
    recipe, counts = Recipe.from_mapping(made.recipe), Counter[str]()
    sources: list[_Source] = []
    for generation, each in [*((0, older.path) for older in made.against), (1, folder)]:
        inputs = read_manifest(each).inputs
        sources += [(generation, each, layout.file_name(file.path)) for file in inputs]
    sources.sort()
    wrong = list(_wrong_pages(sources, recipe, counts))
    if recipe.dedup_unit != "none":
        wrong += _wrong_units(sources, recipe, counts, _won_by_older(made, sources, recipe))
    return counts, wrong


def _won_by_older(made: Manifest, sources: Sequence[_Source], recipe: Recipe) -> dict[str, _Won]:
    """Return the pages of each older corpus that won their urls, against those before it too."""
    found: dict[str, _Won] = {}
    for _, folder, name in (each for each in sources if not each[0]):
        won = found.setdefault(folder, {})
        with _File((0, folder, name)) as file:
            for url, date, digest in file.compared(recipe):
                best = won.get(url)
                if best is None or date > best[0] or (date == best[0] and digest < best[1]):
                    won[url] = date, digest
    before = {
        each.path: {older.fingerprints for older in read_manifest(each.path).against}
        for each in made.against
    }
    return {
        folder: {
            url: best
            for url, best in won.items()
            if not any(
                url in found[each.path]
                for each in made.against
                if each.fingerprints in before[folder]
            )
        }
        for folder, won in found.items()
    }


def _wrong_pages(sources: Sequence[_Source], recipe: Recipe, counts: Counter[str]) -> Iterator[str]:
    # Url -> generation, date and digest of the page that stays.
    newest: dict[bytes, tuple[int, str, bytes]] = {}
    kept: set[int] = set()
    for source in sources:
        with _File(source) as file:
            for url, date, digest in file.compared(recipe):
                best = newest.get(url)
                if best is None or (
                    best[0] == file.generation
                    and (date > best[1] or (date == best[1] and digest < best[2]))
                ):
                    newest[url] = file.generation, date, digest
            kept.update(
                _rank(row, recipe) for row, code in file.pages() if code is PageVerdict.KEPT
            )
    staying = Counter[bytes]()  # pages of each url
    for source in (each for each in sources if each[0]):
        with _File(source) as file:
            for number, (row, verdict) in enumerate(file.pages()):
                keeper = file.removals.keeper_of_page(number)
                generation, _, digest = newest.get(_url(row), (1, "", b""))
                counts[verdict] += 1
                staying[_url(row)] += verdict not in _LOST
                right = {
                    PageVerdict.DUPLICATE_URL: keeper == _short({"digest": digest}),
                    PageVerdict.OPTED_OUT: keeper == 0,
                    PageVerdict.NEAR_DUPLICATE: keeper in kept,
                }.get(verdict, True)
                if verdict not in _LOST and recipe.dedup_urls:
                    right = right and row["digest"] == digest and staying[_url(row)] == generation
                if not right:
                    yield f"{file.name}: page {number}, {row['url']}: {verdict}, keeper {keeper}"


def _wrong_units(
    sources: Sequence[_Source], recipe: Recipe, counts: Counter[str], won: Mapping[str, _Won]
) -> Iterator[str]:
    wanted: dict[tuple[str, int], int] = {}  # unit that goes -> its keeper
    units = 0
    for source in sources:
        with _File(source) as file:
            units += file.removals.unit_count
    parts = -(-units // _SPANS_AT_ONCE)
    for part in range(parts):
        best: dict[bytes, _Place] = {}
        for judged in (False, True):
            for source in sources:
                with _File(source) as file:
                    for span, place in file.spans(recipe, won.get(source[1], {})):
                        if int.from_bytes(span[:4], "big") % parts != part:
                            continue
                        if not judged:
                            best[span] = min(place, best.get(span, place))
                        elif place != best[span] and file.generation:
                            for at in range(place[3], place[3] + recipe.dedup_window):
                                keeper = wanted.get((file.name, at), best[span][1])
                                wanted[file.name, at] = min(keeper, best[span][1])
    for source in (each for each in sources if each[0]):
        with _File(source) as file:
            for unit, gone in enumerate(file.removals.units(0, file.removals.unit_count).tolist()):
                keeper = file.removals.keeper_of_unit(unit) if gone else None
                counts[recipe.dedup_unit] += gone
                right = wanted.get((file.name, unit))
                if keeper != right:
                    yield f"{file.name}: unit {unit}: keeper {keeper}, not {right}"


def _url(row: dict[str, Any]) -> bytes:
    return url_identity(normalize_url(row["url"]))


def _rank(row: dict[str, Any], recipe: Recipe) -> int:
    if recipe.order == "dedup_first":
        return md5_key(row["url"])
    return page_key(normalize_url(row["url"])) if recipe.dedup_urls else _short(row)


def _short(row: Mapping[str, Any]) -> int:
    return int.from_bytes(row["digest"][:8], "little")


def main(argv: Sequence[str] | None = None) -> int:
    """Check a corpus and print the outcome. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", metavar="DIR")
    folder = layout.absolute(parser.parse_args(argv).corpus)
    try:
        counts, wrong = check(folder)
    except (OSError, ValueError) as error:
        print(f"error: {error}; a check needs what --keep all keeps", file=sys.stderr)
        return 2
    for line in wrong[:20]:
        print(f"wrong: {line}", file=sys.stderr)
    found = ", ".join(
        f"{count:,} {what}" for what, count in sorted(counts.items()) if count and what != "kept"
    )
    print(f"{folder}: {found or 'nothing'} removed; {len(wrong):,} wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
