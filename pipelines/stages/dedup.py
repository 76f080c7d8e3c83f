"""Fingerprints -> removals: urls first, then the spans of the pages that remain.

Only identities move between workers: packed buffers, one per file and bucket. Copies within one
file are removed there and not sent, so even a very popular line is sent once per file.
"""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from c4_filters import spans
from c4_filters.opt_out import OptOut
from c4_filters.verdicts import PageVerdict
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile
from pipelines.corpus.fingerprints import Fingerprints, read_fingerprints
from pipelines.corpus.removals import PAGE_VERDICTS, write_removals

#: bucket -> packed rows of one file
Buffers = dict[int, bytes]

_DUPLICATE_URL, _OPTED_OUT = map(
    PAGE_VERDICTS.index, (PageVerdict.DUPLICATE_URL, PageVerdict.OPTED_OUT)
)
_BYTES_PER_BUCKET = 64 << 20  # a worker sorts one bucket in about twice that
_FEWEST_BUCKETS = 4  # fewer leave workers idle
_MOST_BUCKETS = 1 << 14


def bucket_count(rows: int, row_bytes: int) -> int:
    """Return over how many buckets packed rows are spread. No result depends on it.

    >>> bucket_count(0, spans.SPAN_BYTES), bucket_count(10**9, spans.SPAN_BYTES)
    (4, 418)
    """
    wanted = -(-rows * row_bytes // _BYTES_PER_BUCKET)
    return max(_FEWEST_BUCKETS, min(_MOST_BUCKETS, wanted))


def opted_out_pages(output: str, name: str, opt_out: OptOut) -> bytes:
    """Return the pages of a cleaned file that an opt-out list covers, packed: their rows.

    Reads the whole file, since it stores addresses beside texts.
    """
    rows = []
    with CleanedFile(layout.cleaned(output, name)) as file:
        for pages, first, _ in file.all_pages():
            urls = pages.column("url").to_pylist()
            rows += [first + at for at, url in enumerate(urls) if opt_out.entry_for(url)]
    return np.array(rows, "<u4").tobytes()


def opted_out_rows(packed: bytes) -> npt.NDArray[np.uint32]:
    """Return the rows that `opted_out_pages` packed, ascending."""
    return np.frombuffer(packed, "<u4")


def url_buffers(
    output: str, name: str, buckets: int, opted_out: bytes = b""
) -> tuple[bytes | None, Buffers]:
    """Settle the urls of one file.

    Args:
        output: The corpus folder.
        name: The file's, see pipelines.corpus.layout.
        buckets: How many there are.
        opted_out: What `opted_out_pages` gives: these pages take no part.

    Returns:
        Its pages that are older copies within it, packed, or None; its other pages by bucket.
    """
    return page_buffers(read_fingerprints(layout.fingerprints(output, name)), buckets, opted_out)


def page_buffers(
    file: Fingerprints, buckets: int, opted_out: bytes = b""
) -> tuple[bytes | None, Buffers]:
    """Settle the urls of a file that has been read; see `url_buffers`."""
    stamps = spans.timestamp_column(file.timestamps)
    if opted_out:
        own = np.delete(np.arange(len(stamps)), opted_out_rows(opted_out))
        found = spans.page_winners(file.url_identities[own], stamps[own], file.digests[own])
        found = spans.Winners(own[found.rows], own[found.losers], own[found.keepers])
    else:
        found = spans.page_winners(file.url_identities, stamps, file.digests)
    winners = found.rows
    packed = spans.pack_pages_by_bucket(
        file.url_identities[winners], stamps[winners], file.digests[winners], winners, buckets
    )
    return _settled(found.losers, found.keepers), packed


def span_buffers(
    output: str,
    name: str,
    lost_pages: Iterable[bytes],
    window: int,
    buckets: int,
    opted_out: bytes = b"",
) -> tuple[bytes | None, Buffers]:
    """Settle the spans of one file's remaining pages.

    Args:
        output: The corpus folder.
        name: The file's, see pipelines.corpus.layout.
        lost_pages: What `url_buffers` and `outdated_pages` give for the file.
        window: Units a span.
        buckets: How many there are.
        opted_out: What `opted_out_pages` gives.

    Returns:
        Spans that are repeated within the file, packed, or None; the other spans by bucket. A span
        is known by its first unit, counted through the file.
    """
    file = read_fingerprints(layout.fingerprints(output, name))
    ids, ranks, first_of_span = live_spans(file, lost_pages, window, opted_out)
    found = spans.span_winners(ids, ranks)
    packed = spans.pack_spans_by_bucket(
        ids.take(found.rows, axis=0), ranks[found.rows], first_of_span[found.rows], buckets
    )
    return _settled(first_of_span[found.losers], first_of_span[found.keepers]), packed


def live_spans(
    file: Fingerprints, lost_pages: Iterable[bytes], window: int, opted_out: bytes = b""
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """List the spans of the pages of a file that passed the rules and kept their urls.

    Returns:
        Identities [spans, 2], ranks of their pages [spans], first units [spans].
    """
    live = np.zeros(len(file.units_per_page), dtype=bool)
    live[: file.cleaned_pages] = True
    live[_rows(lost_pages)] = False
    live[opted_out_rows(opted_out)] = False
    unit_is_live = np.repeat(live, file.units_per_page)
    first_units = np.flatnonzero(unit_is_live)
    # Rows of two numbers are taken: indexing them by an array is ten times slower.
    units = file.units.take(first_units, axis=0)
    all_spans = spans.span_identities(units, file.units_per_page[live], window)
    return all_spans.ids, file.ranks[live][all_spans.page], first_units[all_spans.first_unit]


def _settled(losers: npt.NDArray[np.int64], keepers: npt.NDArray[np.int64]) -> bytes | None:
    return spans.pack_settled(losers, keepers) if len(losers) else None


def write_file_removals(
    output: str,
    name: str,
    lost_pages: Iterable[bytes],
    lost_spans: Iterable[bytes],
    window: int,
    build_id: str,
    opted_out: bytes = b"",
) -> None:
    """Write what is removed from a file: opted-out pages, pages by url, units by span.

    Args:
        output: The corpus folder.
        name: The file's, see pipelines.corpus.layout.
        lost_pages: What `url_buffers` and `outdated_pages` give for the file.
        lost_spans: What `span_buffers` and `repeated_spans` give for the file.
        window: Units a span.
        build_id: The build that the removals belong to.
        opted_out: What `opted_out_pages` gives.
    """
    file = read_fingerprints(layout.fingerprints(output, name))
    lost, page_keepers = _final(lost_pages, lambda rows: spans.digest_keys(file.digests[rows]))
    pages = np.zeros(file.cleaned_pages, dtype=np.uint8)
    keeper_of_page = np.zeros(file.cleaned_pages, dtype=np.uint64)
    kept = lost < file.cleaned_pages  # pages that the rules dropped lose their urls, too
    pages[lost[kept]] = _DUPLICATE_URL
    keeper_of_page[lost[kept]] = page_keepers[kept]
    pages[opted_out_rows(opted_out)] = _OPTED_OUT
    first_units, keepers = _final(lost_spans, lambda units: _ranks_of(file, units))
    units = spans.units_removed(first_units, window, len(file.units))
    write_removals(
        layout.removals(output, name),
        pages,
        units,
        keeper_of_page[pages > 0],
        spans.unit_keepers(first_units, keepers, window, units),
        build_id,
    )


def _ranks_of(file: Fingerprints, units: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return the rank of the page that each unit is on."""
    page = np.searchsorted(np.cumsum(file.units_per_page), units, side="right")
    return file.ranks[page]


def _rows(buffers: Iterable[bytes]) -> npt.NDArray[np.int64]:
    """Rows that a file loses, [rows]."""
    (losers, _), lost = _unpacked(buffers)
    return np.concatenate([losers, lost.indices]).astype(np.int64)


def _final(
    buffers: Iterable[bytes], own: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint64]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Rows that a file loses, ascending, and who keeps each."""
    return spans.final_keepers(*_unpacked(buffers), own)


def _unpacked(
    buffers: Iterable[bytes],
) -> tuple[tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]], spans.Losers]:
    """Return what a file has settled by itself, and what buckets say, each joined."""
    settled = [(np.empty(0, np.uint32), np.empty(0, np.uint32))]
    lost = []
    for buffer in buffers:
        if spans.is_settled(buffer):
            settled.append(spans.unpack_settled(buffer))
        else:
            lost.append(spans.unpack_losers(buffer))
    losers, keepers = (np.concatenate(parts) for parts in zip(*settled, strict=True))
    return (losers, keepers), spans.join_losers(lost)
