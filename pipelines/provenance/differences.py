"""Compares two corpora: which pages are in one of them only, or have another text, and why.

Shards hold pages in the order of their page key, so that both corpora are read once, side by side,
a page at a time, whatever the formats and numbers of their shards. Why a page is missing is looked
up in the kept files of the corpus that lacks it, by its index (`pipelines.provenance.index`), which
the first comparison builds.
"""

import functools
import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from c4_filters.pages import PageRules
from c4_filters.recipes import Recipe
from c4_filters.urls import normalize_url, page_key
from c4_filters.verdicts import PageVerdict
from pipelines.config import flatten
from pipelines.corpus import layout
from pipelines.corpus.closing import Closing
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats.pages import Page
from pipelines.corpus.manifest import CORPORA, Manifest, read_manifest
from pipelines.corpus.reading import open_corpus
from pipelines.provenance.kept import KeptCorpus
from pipelines.provenance.kept_file import KeptPage

#: Reasons that are not verdicts of a page.
NOT_READ = "not_read"  # no record of the inputs became a page of this address
OTHER_RECORD = "other_record"  # the page is from another record of the address
DEDUPLICATION = "duplicate"  # deduplication removed other sentences or lines
RULES = "rules"  # the rules kept other lines of the record


class SettingDifference(NamedTuple):
    """A field of recipe, settings or versions, or a list of paths, and both corpora's values.

    The lists are "against", the older corpora, and "inputs", the files that one corpus alone has.
    """

    name: str
    a: Any
    b: Any


class Difference(NamedTuple):
    """A page that is in one corpus only, or whose text differs.

    Attributes:
        url: As a corpus that has the page has it.
        only_in: The corpus that has the page; None: both.
        why: Of a page that one corpus lacks: the verdict of that corpus, or "not_read" if none of
            its records has the address. Of one whose texts differ: "other_record", "duplicate"
            (deduplication removed other sentences), "rules" (the rules kept other lines of the same
            record). None: unknown, since a corpus did not keep its pages.
    """

    url: str
    only_in: Literal["a", "b"] | None
    why: str | None


class Comparison(Closing):
    """Two corpora. Use as a context manager.

    Attributes:
        counts: Pages "only_in_a", "only_in_b", "differing" and "equal", as far as `pages` has read.

    Raises:
        CorpusError: A folder is not a finished corpus of ``c4 build``.
        OSError: A kept file cannot be read, or an index cannot be written.
        ValueError: A kept file is damaged.
    """

    def __init__(self, a: str, b: str) -> None:
        self._sides = (_Side(layout.absolute(a)), _Side(layout.absolute(b)))
        self.counts = Counter(only_in_a=0, only_in_b=0, differing=0, equal=0)

    def close(self) -> None:
        """Close the kept files. Safe to call more than once."""
        for side in self._sides:
            side.close()

    def settings(self) -> list[SettingDifference]:
        """Return what the corpora were made with that differs, the recipes first."""
        a, b = (_settings(side.made) for side in self._sides)
        found = [
            SettingDifference(name, a.get(name), b.get(name))
            for name in dict.fromkeys([*a, *b])
            if a.get(name) != b.get(name)
        ]
        # By what they hold: an older corpus may have been moved.
        older = [
            {entry.root_digest or entry.path: entry.path for entry in side.made.against}
            for side in self._sides
        ]
        if older[0].keys() != older[1].keys():
            found.append(SettingDifference("against", *(list(each.values()) for each in older)))
        paths = [{file.path for file in side.made.inputs} for side in self._sides]
        if paths[0] != paths[1]:
            only = (sorted(paths[0] - paths[1]), sorted(paths[1] - paths[0]))
            found.append(SettingDifference("inputs", *only))
        return found

    def pages(self) -> Iterator[Difference]:
        """Yield the pages that differ, split by split, in the order of their page keys.

        Raises:
            CorpusError: A shard is missing or damaged, or its pages are in another order.
            OSError: A kept file cannot be read.
            ValueError: A kept file is damaged.
        """
        for split in layout.SPLITS:
            a, b = (side.pages(split) for side in self._sides)
            for urls in _side_by_side(a, b):
                for url in sorted({*urls[0], *urls[1]}):
                    yield from self._compare(*(each.get(url, []) for each in urls))

    def _compare(self, a: list[Page], b: list[Page]) -> Iterator[Difference]:
        """Yield how the pages of one address differ."""
        for page in list(a):
            same = next((other for other in b if other.text == page.text), None)
            if same is not None:
                a.remove(page)
                b.remove(same)
                self.counts["equal"] += 1
        for one, other in itertools.zip_longest(a, b):
            if one is not None and other is not None:
                self.counts["differing"] += 1
                yield Difference(one.url, None, self._why_other(one, other))
            elif one is not None:
                self.counts["only_in_a"] += 1
                yield Difference(one.url, "a", self._sides[1].why_missing(one))
            else:
                self.counts["only_in_b"] += 1
                yield Difference(other.url, "b", self._sides[0].why_missing(other))

    def _why_other(self, one: Page, other: Page) -> str | None:
        if one.timestamp != other.timestamp:
            return OTHER_RECORD
        kept = [side.kept_page(page) for side, page in zip(self._sides, (one, other), strict=True)]
        if kept[0] is None or kept[1] is None:
            return None
        return DEDUPLICATION if kept[0].text == kept[1].text else RULES


class _Side:
    """One of the corpora."""

    def __init__(self, folder: str) -> None:
        self.made = read_manifest(folder)
        if self.made.settings.source == CORPORA:
            raise CorpusError(
                f"{folder} was made of other corpora, whose pages may come again: compare these "
                "corpora themselves"
            )
        self._folder = folder

    def close(self) -> None:
        if (kept := self.__dict__.pop("_kept", None)) is not None:
            kept.close()

    @functools.cached_property
    def _kept(self) -> KeptCorpus | None:
        """The kept files, with their index, if there are any."""
        if self.made.keep != "all":
            return None
        kept = KeptCorpus(self._folder)
        kept.require_index()
        return kept

    @functools.cached_property
    def _rules(self) -> PageRules:
        # What is judged after deduplication needs no lists of domains and urls.
        return PageRules.without_lists(Recipe.from_mapping(self.made.recipe))

    def pages(self, split: str) -> Iterator[tuple[int, str, Page]]:
        """Yield page key, normalised address and page, in the order of the corpus."""
        corpus, last = open_corpus(self._folder), 0
        if split not in corpus.splits:
            return
        for page in corpus.pages(split):
            url = normalize_url(page.url)
            key = page_key(url)
            if key < last:
                raise CorpusError(
                    f"{self._folder}: pages are not in the order of c4 build, near {page.url}: c4 "
                    "diff cannot compare this corpus"
                )
            last = key
            yield key, url, page

    def why_missing(self, page: Page) -> str | None:
        """Return why a page is not in this corpus."""
        if self._kept is None:
            return None
        copies = self._kept.find(page.url)
        verdicts = [copy.page.judge(self._rules).result.verdict for copy in copies]
        if not verdicts:
            return NOT_READ
        dropped = [verdict for verdict in verdicts if verdict is not PageVerdict.KEPT]
        # Of several records, the one that won the address says more than those that lost it.
        last = [verdict for verdict in dropped if verdict is not PageVerdict.DUPLICATE_URL]
        return str((last or dropped)[0]) if dropped else None

    def kept_page(self, page: Page) -> KeptPage | None:
        """Return what the rules before deduplication kept of a page of this corpus."""
        if self._kept is None:
            return None
        for copy in self._kept.find(page.url):
            if isinstance(copy.page, KeptPage) and copy.page.lost is PageVerdict.KEPT:
                left = copy.page.judge(self._rules).result
                if left.text == page.text:
                    return copy.page
        return None


def _settings(made: Manifest) -> dict[str, Any]:
    content = made.as_dict()
    recipe = {key: value for key, value in made.recipe.items() if key != "description"}
    return flatten({"recipe": recipe, **content["settings"], "versions": made.versions})


_Group = dict[str, list[Page]]


def _side_by_side(
    a: Iterator[tuple[int, str, Page]], b: Iterator[tuple[int, str, Page]]
) -> Iterator[Sequence[_Group]]:
    """Yield the pages of each page key in both corpora, by normalised address."""
    sides = [zip(itertools.repeat(side), pages, strict=False) for side, pages in ((0, a), (1, b))]
    merged = heapq.merge(*sides, key=lambda tagged: tagged[1][0])
    for _, entries in itertools.groupby(merged, key=lambda tagged: tagged[1][0]):
        found: tuple[_Group, _Group] = ({}, {})
        for side, (_, url, page) in entries:
            found[side].setdefault(url, []).append(page)
        yield found
