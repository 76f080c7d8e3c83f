"""Fingerprints of older corpora on their way through deduplication.

Their files take the same way as those of the build, under names of their own: ``0/NAME`` is file
NAME of the first older corpus. A page of the build goes if any older corpus has its url. A span
goes if it is on an older page that won its url: among the pages of its own corpus, and against the
corpora that this one was built against. Nothing of an older corpus goes, so its spans travel
without their places.
"""

from collections.abc import Iterable, Iterator, Sequence

from c4_filters import spans
from pipelines.corpus import layout
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.fingerprints import Fingerprints, read_fingerprints
from pipelines.corpus.manifest import read_manifest
from pipelines.corpus.older import Older, require_unchanged
from pipelines.stages import dedup

__all__ = [
    "is_older",
    "list_files",
    "outdated_pages",
    "repeated_spans",
    "span_buffers",
    "url_buffers",
]


def is_older(name: str) -> bool:
    """Return whether a file is one of an older corpus, by its name in deduplication.

    >>> is_older("0/CC-MAIN-0001-b306b818"), is_older("CC-MAIN-0001-b306b818")
    (True, False)
    """
    return "/" in name  # no name of a kept file has one: pipelines.corpus.layout


def list_files(older: Sequence[Older]) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each fingerprint file, and the SHA-256 of its WET file.

    Raises CorpusError if a corpus has changed since the build began.
    """
    require_unchanged(older)
    for place, corpus in enumerate(older):
        for file in read_manifest(corpus.folder).inputs:
            yield f"{place}/{layout.file_name(file.path)}", bytes.fromhex(file.sha256)


def url_buffers(
    older: Sequence[Older], name: str, source: bytes, buckets: int
) -> tuple[bytes | None, dedup.Buffers]:
    """Settle the urls of one file, as `pipelines.stages.dedup.url_buffers` does.

    Args:
        older: The older corpora.
        name: Of the file, from `list_files`.
        source: SHA-256 of its WET file, likewise.
        buckets: How many there are.
    """
    return dedup.page_buffers(_read(older, name, source), buckets)


def span_buffers(
    older: Sequence[Older],
    name: str,
    source: bytes,
    lost_pages: Iterable[bytes],
    window: int,
    buckets: int,
) -> dedup.Buffers:
    """Return the spans of one file's pages that won their urls, each once, by bucket.

    Arguments are those of `url_buffers` and of `pipelines.stages.dedup.span_buffers`.
    """
    ids, ranks, _ = dedup.live_spans(_read(older, name, source), lost_pages, window)
    winners = spans.span_winners(ids, ranks).rows
    return spans.pack_older_spans_by_bucket(ids[winners], ranks[winners], buckets)


def outdated_pages(
    buffers: Iterable[tuple[str, bytes]], older: Sequence[Older]
) -> Iterator[tuple[str, bytes]]:
    """Yield the pages of one bucket that lose their urls, packed by file, older ones included.

    Args:
        buffers: (file, packed urls).
        older: The older corpora.
    """
    of_corpus: list[list[tuple[str, bytes]]] = [[] for _ in range(len(older) + 1)]
    for name, buffer in buffers:
        of_corpus[_place(name) if is_older(name) else len(older)].append((name, buffer))
    before = [corpus.before for corpus in older] + [tuple(range(len(older)))]
    for own, places in zip(of_corpus, before, strict=True):
        theirs = [item for place in places for item in of_corpus[place]]
        for name, lost in spans.outdated_pages(own, theirs).items():
            yield name, spans.pack_losers(lost)


def repeated_spans(buffers: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield the spans of one bucket that an older corpus or another file has, packed by file."""
    own: list[tuple[str, bytes]] = []
    older: list[tuple[str, bytes]] = []
    for name, buffer in buffers:
        (older if is_older(name) else own).append((name, buffer))
    for name, lost in spans.repeated_spans(own, older).items():
        yield name, spans.pack_losers(lost)


def _place(name: str) -> int:
    return int(name.partition("/")[0])


def _read(older: Sequence[Older], name: str, source: bytes) -> Fingerprints:
    """Read a file. Raises OSError or CorpusError, naming it."""
    corpus = older[_place(name)]
    path = layout.fingerprints(corpus.folder, name.partition("/")[2])
    try:
        file = read_fingerprints(path)
    except ValueError as error:
        what = str(error).partition(": run the same build")[0]
        raise CorpusError(
            f"{what}: repair {corpus.folder} with the c4 build that made it and --verify, then run "
            "this one again (--against)"
        ) from None
    if file.source != source.hex():
        raise CorpusError(
            f"{path} is of another WET file than {corpus.folder} lists: has that corpus changed "
            "since this build began? (--against)"
        )
    return file
