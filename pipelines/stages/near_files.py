"""Near duplicates of a corpus, file by file: what each step reads, and the packed rows it gives.

The steps, after exact deduplication has written its removals:

1. `number_buffers`: each page that would be written gets a few numbers (`c4_filters.near`).
2. `candidates`: pages that share a number are candidates; the better-ranked page of a pair is its
   *hub*.
3. `hub_texts`: the texts of hubs go to the files of the other pages.
4. `similar_pairs`: each file compares its pages with these texts.
5. `dropped_pages`: of the similar pairs, few by now, one worker decides which pages are dropped.
6. `write_near_removals`: the removal files are written again, with these pages.

A step reads a removal file without the near duplicates that an earlier run of step 6 wrote into it,
so that an engine may run any step again.
"""

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from c4_filters import near
from c4_filters.pages import PageRules
from c4_filters.spans import cut
from c4_filters.verdicts import PageVerdict
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedSource, removed_per_page, units_in
from pipelines.corpus.fingerprints import read_fingerprints
from pipelines.corpus.opened import Opened
from pipelines.corpus.removals import PAGE_VERDICTS, Removals, write_removals

_NEAR = PAGE_VERDICTS.index(PageVerdict.NEAR_DUPLICATE)
_TEXTS_AT_A_TIME = 256
_SETS_KEPT = 256
_ROW_PAIR = np.dtype([("hub", "<u4"), ("other", "<u4")])  # rows in two cleaned files
_LOST = np.dtype([("row", "<u4"), ("keeper", "<u8")])


class HubText(NamedTuple):
    """A page that pages of another file, or of its own, are to be compared with."""

    page: bytes  # near.PAGE
    text: str
    rows: bytes  # of the pages in the other file, uint32


class _Page(NamedTuple):
    row: int  # in the cleaned file
    text: str  # what exact deduplication left
    tie: int  # orders pages of one rank: of the digest


def number_buffers(
    output: str, name: str, rules: PageRules, build_id: str, buckets: int
) -> dict[int, bytes]:
    """Return the numbers of a file's pages that would be written, packed by bucket.

    Args:
        output: The corpus folder.
        name: The file's, see `pipelines.corpus.layout`.
        rules: Of the recipe, which has ``near_dedup``.
        build_id: The build that the removals must belong to.
        buckets: How many there are.
    """
    bands = near.bands_for(_threshold(rules))
    found: list[npt.NDArray[np.void]] = []
    with Opened(CleanedSource.of(output, name), build_id) as opened:
        ranks = _ranks(output, name)
        waiting: list[_Page] = []
        for page in _pages(opened, rules):
            waiting.append(page)
            if len(waiting) == _TEXTS_AT_A_TIME:
                found.append(_numbered(waiting, bands, ranks, name))
                waiting = []
        if waiting:
            found.append(_numbered(waiting, bands, ranks, name))
    if not found:
        return {}
    rows = np.concatenate(found)
    bucket = (rows["number"] % np.uint64(buckets)).astype(np.int64)
    order = np.argsort(bucket, kind="stable")
    present, begins = np.unique(bucket[order], return_index=True)
    parts = np.split(rows[order], begins[1:])
    return {int(key): part.tobytes() for key, part in zip(present, parts, strict=True)}


def _numbered(
    pages: Sequence[_Page], bands: near.Bands, ranks: npt.NDArray[np.uint64], name: str
) -> npt.NDArray[np.void]:
    numbers = near.band_hashes([page.text for page in pages], bands)
    rows = np.repeat(_references(pages, ranks, name), bands.numbers)
    found = np.empty(len(rows), near.BAND_ROW)
    found["number"] = numbers.reshape(-1)
    for field in near.PAGE.names or ():
        found[field] = rows[field]
    return found


def _references(
    pages: Sequence[_Page], ranks: npt.NDArray[np.uint64], name: str
) -> npt.NDArray[np.void]:
    """Return pages of a file as near.PAGE, ``[pages]``."""
    found = np.empty(len(pages), near.PAGE)
    found["row"] = [page.row for page in pages]
    found["rank"] = ranks[found["row"]]
    found["tie"] = [page.tie for page in pages]
    found["file"] = _file_number(name)
    return found


def _file_number(name: str) -> int:
    return int(name[-16:], 16)  # of the 32 hex digits that make a name unique


def candidates(buffers: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """Yield the pairs of pages that share a number of one bucket.

    Args:
        buffers: (name of a file, what `number_buffers` gives of it).

    Yields:
        (file of the hubs, (file of the other pages, packed rows of both)).
    """
    names, parts = [], []
    for name, buffer in buffers:
        names.append(name)
        parts.append(np.frombuffer(buffer, near.BAND_ROW))
    by_number = {_file_number(name): name for name in names}
    rows = np.concatenate(parts)
    for pairs in near.candidate_pairs(rows):
        files = np.stack([rows["file"][pairs.better], rows["file"][pairs.worse]])
        order = np.lexsort(files)
        files = files[:, order]
        packed = np.empty(len(order), _ROW_PAIR)
        packed["hub"], packed["other"] = rows["row"][pairs.better], rows["row"][pairs.worse]
        begins = np.flatnonzero(np.append(True, (files[:, 1:] != files[:, :-1]).any(axis=0)))
        for begin, part in zip(begins, np.split(packed[order], begins[1:]), strict=True):
            hub, other = (by_number[int(number)] for number in files[:, begin])
            yield hub, (other, part.tobytes())


def hub_texts(
    output: str,
    name: str,
    rules: PageRules,
    build_id: str,
    asked: Iterable[tuple[str, bytes]],
) -> Iterator[tuple[str, HubText]]:
    """Yield the texts of a file's hubs, each to every file that has pages to compare with it.

    Args:
        output: The corpus folder.
        name: The file's.
        rules: Of the recipe.
        build_id: The build that the removals must belong to.
        asked: What `candidates` yields for it, of all buckets.
    """
    wanted: dict[int, dict[str, list[int]]] = {}
    pairs: dict[str, list[npt.NDArray[np.void]]] = {}
    for other, buffer in asked:
        pairs.setdefault(other, []).append(np.frombuffer(buffer, _ROW_PAIR))
    for other, parts in sorted(pairs.items()):
        for hub, row in np.unique(np.concatenate(parts)).tolist():  # found under several numbers
            wanted.setdefault(hub, {}).setdefault(other, []).append(row)
    if not wanted:
        return
    with Opened(CleanedSource.of(output, name), build_id) as opened:
        ranks = _ranks(output, name)
        for page in _pages(opened, rules, wanted):
            reference = _references([page], ranks, name).tobytes()
            for other, rows in wanted[page.row].items():
                yield other, HubText(reference, page.text, np.array(rows, "<u4").tobytes())


def similar_pairs(
    output: str, name: str, rules: PageRules, build_id: str, hubs: Iterable[HubText]
) -> bytes:
    """Compare a file's pages with the hubs.

    Args:
        output: The corpus folder.
        name: The file's.
        rules: Of the recipe.
        build_id: The build that the removals must belong to.
        hubs: What `hub_texts` yields for it, of all files.

    Returns:
        The similar pairs, packed: near.PAGE of the hub, near.PAGE of the file's own page.
    """
    threshold = _threshold(rules)
    hubs = list(hubs)
    wanted = {row for hub in hubs for row in np.frombuffer(hub.rows, "<u4").tolist()}
    if not wanted:
        return b""
    with Opened(CleanedSource.of(output, name), build_id) as opened:
        pages = {page.row: page for page in _pages(opened, rules, wanted)}
    references = _references(list(pages.values()), _ranks(output, name), name)
    own = {int(page["row"]): page.tobytes() for page in references}

    @functools.lru_cache(_SETS_KEPT)
    def shingles_of(row: int) -> near.Shingles:
        return near.shingles(pages[row].text)

    found = []
    for hub in hubs:
        theirs = near.shingles(hub.text)
        for row in np.frombuffer(hub.rows, "<u4").tolist():
            if near.similarity(theirs, shingles_of(row), threshold) >= threshold:
                found.append(hub.page + own[row])
    return b"".join(found)


def dropped_pages(buffers: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield the pages of a corpus that are near duplicates, and their keepers, packed by file.

    Args:
        buffers: (name of a file, what `similar_pairs` gives of it): of all files.
    """
    names, parts = [], [np.empty(0, near.PAGE)]
    for name, buffer in buffers:
        names.append(name)
        parts.append(np.frombuffer(buffer, near.PAGE))
    pairs = np.concatenate(parts).reshape(-1, 2)
    dropped = near.greedy(pairs[:, 0], pairs[:, 1])
    by_number = {_file_number(name): name for name in names}
    lost = np.empty(len(dropped.pages), _LOST)
    lost["row"], lost["keeper"] = dropped.pages["row"], dropped.keepers["rank"]
    files = dropped.pages["file"]
    order = np.lexsort([lost["row"], files])
    found, begins = np.unique(files[order], return_index=True)
    for number, part in zip(found.tolist(), np.split(lost[order], begins[1:]), strict=True):
        yield by_number[number], part.tobytes()


def write_near_removals(output: str, name: str, lost: Iterable[bytes], build_id: str) -> None:
    """Write a file's removals again, with its near duplicates.

    Args:
        output: The corpus folder.
        name: The file's.
        lost: What `dropped_pages` yields for it, or nothing.
        build_id: The build that the removals must belong to.
    """
    rows = np.concatenate([np.empty(0, _LOST), *(np.frombuffer(part, _LOST) for part in lost)])
    path = layout.removals(output, name)
    with Removals(path, build_id) as removals:
        codes = removals.pages(0, removals.page_count)
        if not len(rows) and not (codes == _NEAR).any():
            return
        units = removals.units(0, removals.unit_count)
        of_pages, of_units = removals.keepers()
    keepers = np.zeros(len(codes), np.uint64)
    keepers[codes > 0] = of_pages
    codes[codes == _NEAR] = 0  # of an earlier run of this step
    codes[rows["row"]] = _NEAR
    keepers[rows["row"]] = rows["keeper"]
    write_removals(path, codes, units, keepers[codes > 0], of_units, build_id)


def _threshold(rules: PageRules) -> float:
    assert rules.recipe.near_dedup is not None
    return rules.recipe.near_dedup.threshold


def _ranks(output: str, name: str) -> npt.NDArray[np.uint64]:
    return read_fingerprints(layout.fingerprints(output, name)).ranks


def _pages(
    opened: Opened,
    rules: PageRules,
    wanted: Collection[int] | Mapping[int, object] | None = None,
) -> Iterator[_Page]:
    """Yield pages with the text that exact deduplication leaves of them.

    Args:
        opened: The file, with its removals.
        rules: Of the recipe.
        wanted: The rows to yield; by default those that would be written.
    """
    for batch, first_row, first_unit in opened.cleaned.all_pages():
        codes = opened.removals.pages(first_row, len(batch))
        stays = (codes == 0) | (codes == _NEAR)
        if wanted is not None:
            rows = range(first_row, first_row + len(batch))
            stays = np.array([row in wanted for row in rows], bool)
        bounds, starts = units_in(batch)
        gone = opened.removals.units(first_unit, len(starts))
        texts, urls, digests = (batch.column(name) for name in ("text", "url", "digest"))
        lost = removed_per_page(bounds, gone)
        judged = rules.are_judged_after_dedup(np.diff(bounds), lost)
        for row in np.flatnonzero(stays).tolist():
            text, units = texts[row].as_py(), slice(*bounds[row : row + 2].tolist())
            removed, of_page = gone[units], starts[units].tolist()
            if wanted is not None:
                text = cut(text, of_page, removed) if lost[row] else text
            elif judged[row]:
                url = urls[row].as_py()
                text, _, result = rules.finish_page(text, of_page, removed, url)
                if result.verdict is not PageVerdict.KEPT:
                    continue
            tie = int.from_bytes(digests[row].as_py()[:8], "big")
            yield _Page(first_row + row, text, tie)
