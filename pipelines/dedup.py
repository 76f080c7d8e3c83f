"""Fingerprints -> removals: urls first, then the spans of the pages that remain.

Only identities move between workers: packed buffers, one a file and bucket. What a file can settle
by itself it settles at once and sends nothing about, so no line is popular enough to hurt.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from c4_filters import spans
from pipelines import layout
from pipelines.handover import read_fingerprints, write_removals

__all__ = ["Buffers", "bucket_count", "span_buffers", "url_buffers", "write_file_removals"]

#: bucket -> packed rows of one file
Buffers = dict[int, bytes]

_BYTES_PER_BUCKET = 64 << 20  # a worker sorts one bucket in about twice that
_FEWEST_BUCKETS = 4  # more of them cost time, fewer leave workers idle
_MOST_BUCKETS = 1 << 14


def bucket_count(rows: int, row_bytes: int) -> int:
    """How many buckets so many packed rows are spread over. No result depends on it.

    >>> bucket_count(0, spans.SPAN_BYTES), bucket_count(10**9, spans.SPAN_BYTES)
    (4, 418)
    """
    wanted = -(-rows * row_bytes // _BYTES_PER_BUCKET)
    return max(_FEWEST_BUCKETS, min(_MOST_BUCKETS, wanted))


def url_buffers(output: str, name: str, buckets: int) -> tuple[npt.NDArray[np.int64], Buffers]:
    """Pages of a file that are older copies within it, and its other pages packed by bucket."""
    file = read_fingerprints(layout.fingerprints(output, name))
    stamps = spans.timestamp_column(file.timestamps)
    winners, losers = spans.page_winners(file.url_identities, stamps, file.digests)
    packed = spans.pack_pages_by_bucket(
        file.url_identities[winners], stamps[winners], file.digests[winners], winners, buckets
    )
    return losers, packed


def span_buffers(
    output: str, name: str, lost_pages: npt.NDArray[np.int64], window: int, buckets: int
) -> tuple[npt.NDArray[np.int64], Buffers]:
    """Spans of a file's remaining pages: first units of those repeated within it, and the rest.

    The rest is packed by bucket; a span is known by its first unit, counted through the file.
    """
    file = read_fingerprints(layout.fingerprints(output, name))
    live = np.zeros(len(file.units_per_page), dtype=bool)
    live[: file.cleaned_pages] = True
    live[lost_pages] = False
    unit_is_live = np.repeat(live, file.units_per_page)
    first_units = np.flatnonzero(unit_is_live)
    found = spans.span_identities(file.units[first_units], file.units_per_page[live], window)
    ranks = file.ranks[live][found.page]
    winners, losers = spans.span_winners(found.ids, ranks)
    first_of_span = first_units[found.first_unit]
    packed = spans.pack_spans_by_bucket(
        found.ids[winners], ranks[winners], first_of_span[winners], buckets
    )
    return first_of_span[losers], packed


def write_file_removals(
    output: str,
    name: str,
    lost_pages: npt.NDArray[np.int64],
    first_units: npt.NDArray[np.int64],
    window: int,
) -> None:
    """Writes what deduplication removes from a file: pages by url, units by span."""
    file = read_fingerprints(layout.fingerprints(output, name))
    pages = np.zeros(len(file.units_per_page), dtype=bool)
    pages[lost_pages] = True
    units = spans.units_removed(first_units, window, len(file.units))
    write_removals(layout.removals(output, name), pages[: file.cleaned_pages], units)


def joined(buffers: Iterable[bytes]) -> npt.NDArray[np.int64]:
    """Rows of several packed index buffers, one after the other, [rows]."""
    parts = [spans.unpack_indices(buffer).astype(np.int64) for buffer in buffers]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def repeated_spans(buffers: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Spans of one bucket that another file has a smaller copy of, packed by file."""
    for name, first_units in spans.repeated_spans(list(buffers)).items():
        if len(first_units):
            yield name, spans.pack_indices(first_units)


def outdated_pages(buffers: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Pages of one bucket that another file has a newer copy of, packed by file."""
    for name, pages in spans.outdated_pages(list(buffers)).items():
        if len(pages):
            yield name, spans.pack_indices(pages)
