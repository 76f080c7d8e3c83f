"""What the kept files of one WET file know of its pages."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from c4_filters.explain import Judgement, judge_after_dedup
from c4_filters.language import Language
from c4_filters.pages import CleanPage, PageRules
from c4_filters.verdicts import PageVerdict, page_verdict
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedSource, Dropped
from pipelines.corpus.fingerprints import Fingerprints
from pipelines.corpus.layout import SPLITS
from pipelines.corpus.opened import Opened
from pipelines.corpus.removals import PAGE_VERDICTS
from pipelines.provenance.index import Entries, pack_places

#: Of pages that keep no copy of a span: they went before spans were compared.
BEFORE_SPANS = (PageVerdict.DUPLICATE_URL, PageVerdict.OPTED_OUT)
_AS_KEPT = ("url", "text", "timestamp", "offset", "inner_offset", "digest")  # columns
#: Returns the 16-byte identities of the units of a text.
UnitsOf: TypeAlias = Callable[[str], Iterable[bytes]]


class KeptPage(NamedTuple):
    """A page that the rules before deduplication kept, and what deduplication made of it."""

    url: str
    text: str
    timestamp: str
    language: Language | None
    offset: int
    inner_offset: int
    digest: bytes
    starts: list[int]  # of its units in text
    removed: npt.NDArray[np.bool_]  # whether deduplication removes each unit
    unit_keepers: list[int | None]  # see pipelines.corpus.removals
    lost: PageVerdict  # why deduplication drops the whole page; KEPT: it does not
    page_keeper: int | None

    def judge(self, rules: PageRules) -> Judgement:
        """Return what the build made of the page; without a note if it was dropped as a whole."""
        if self.lost is not PageVerdict.KEPT:
            return Judgement(CleanPage(self.lost), "")
        lines = self.text.count("\n") + 1
        before = CleanPage(PageVerdict.KEPT, self.text, lines, self.language)
        return judge_after_dedup(rules, before, self.starts, self.removed, self.url)

    def units(self) -> list[tuple[str, bool]]:
        """Return each unit's text, and whether it is removed."""
        bounds = itertools.pairwise([*self.starts, len(self.text)])
        return [
            (self.text[start:end].rstrip(), bool(gone))
            for (start, end), gone in zip(bounds, self.removed, strict=True)
        ]


class DroppedPage(NamedTuple):
    """A page that the rules before deduplication dropped."""

    offset: int
    verdict: str  # a PageVerdict, or that of a user's rule
    inner_offset: int = 0

    @property
    def by_own_rule(self) -> bool:
        """Whether a user's rule dropped it."""
        return not isinstance(self.verdict, PageVerdict)

    def judge(self, rules: PageRules) -> Judgement:
        """Return what the build made of the page, without a note; see `KeptPage.judge`."""
        del rules
        return Judgement(CleanPage(self.verdict), "")


class KeptFile(Opened):
    """The cleaned pages and the removals of one WET file. Use as a context manager.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is damaged, or of another build; the message names it.
    """

    def __init__(self, folder: str, path: str) -> None:
        super().__init__(CleanedSource.of(folder, layout.file_name(path)), None)

    def pages(self, key: int, splits: Iterable[int] = range(len(SPLITS))) -> Iterator[KeptPage]:
        """Yield the pages of a page key, in the order of the file."""
        for rows, first_page, first_unit in self._slices(key, splits):
            yield from self._pages(rows, first_page, first_unit)

    def page(self, row: int) -> KeptPage:
        """Return one page, by its number in the cleaned file."""
        [page] = self._pages(*self.cleaned.page(row))
        return page

    def _pages(self, rows: Any, first_page: int, first_unit: int) -> Iterator[KeptPage]:
        unit = first_unit
        for number, row in enumerate(rows.to_pylist()):
            starts = row["unit_starts"]
            removed = self.removals.units(unit, len(starts))
            code, probability = row["language"], row["language_probability"]
            yield KeptPage(
                **{name: row[name] for name in _AS_KEPT},
                language=None if code is None else Language(code, probability),
                starts=starts,
                removed=removed,
                unit_keepers=[
                    self.removals.keeper_of_unit(unit + at) if gone else None
                    for at, gone in enumerate(removed.tolist())
                ],
                lost=PAGE_VERDICTS[self.removals.pages(first_page + number, 1)[0]],
                page_keeper=self.removals.keeper_of_page(first_page + number),
            )
            unit += len(starts)

    def dropped(self, key: int) -> list[DroppedPage]:
        """Return the pages of a key that the rules before deduplication dropped."""
        rows = np.flatnonzero(self._dropped.keys == np.uint64(key))
        return [self.dropped_page(row) for row in rows.tolist()]

    def dropped_page(self, row: int) -> DroppedPage:
        """Return one page that the rules dropped, by its number in their list."""
        dropped = self._dropped
        return DroppedPage(
            int(dropped.offsets[row]), page_verdict(dropped.names[dropped.codes[row]])
        )

    @functools.cached_property
    def _dropped(self) -> Dropped:
        return self.cleaned.dropped()

    def entries(self, prints: Fingerprints, units: UnitsOf | None) -> Entries:
        """Return what the index lists of the file, with 0 for the file's number.

        Args:
            prints: The file's fingerprints.
            units: Returns the units of a text to list; None: those of the fingerprints.
        """
        pages = self.cleaned.pages
        lost = self.removals.pages(0, pages) > 0
        rows = np.arange(pages)
        per_page = prints.units_per_page[:pages]
        unit_rows = np.repeat(rows, per_page)
        unit_keys = prints.units[: len(unit_rows), 0]
        gone = self.removals.units(0, len(unit_rows)) | lost[unit_rows]
        if units is not None:
            texts = self._texts()
            found = [b"".join(identity[:8] for identity in set(units(text))) for text in texts]
            unit_keys = np.frombuffer(b"".join(found), "<u8")
            unit_rows = np.repeat(rows, [len(keys) // 8 for keys in found])
            gone = lost[unit_rows]
        keys = prints.url_identities[:pages, 0]
        dropped = self._dropped.keys
        entries = {
            "units": (unit_keys, pack_places(unit_rows, gone)),
            "pages": (
                np.concatenate([keys, dropped]),
                np.concatenate([pack_places(rows, lost), pack_places(np.arange(len(dropped)))]),
            ),
        }
        ranks = prints.ranks[:pages]
        if not np.array_equal(ranks, keys):
            entries["ranks"] = ranks, pack_places(rows, lost)
        return entries

    def _texts(self) -> Iterator[str]:
        for rows, _, _ in self.cleaned.all_pages():
            yield from rows.column("text").to_pylist()

    def _slices(self, key: int, splits: Iterable[int]) -> Iterator[tuple[Any, int, int]]:
        for split in splits:
            yield from self.cleaned.slices(split, key, key + 1)
