"""Fingerprints of older corpora on their way through deduplication.

Groups of their files take the same way as the files of the build, under names of their own:
``0/12`` is a group of the first older corpus. A page of the build is removed if any older corpus
has its url. A span is removed if it is on an older page that won its url: among the pages of its
own corpus, and against the corpora that this one was built against. Nothing of an older corpus is
removed, so its spans travel without their places, and files are read in groups: each group sends a
span once, and one buffer to a bucket.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from c4_filters import spans
from pipelines.corpus import layout
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.fingerprints import Fingerprints, read_fingerprints
from pipelines.corpus.older import Older, read_unchanged
from pipelines.stages import dedup


def is_older(name: str) -> bool:
    """Return whether deduplication calls a group of an older corpus so, and not a file.

    >>> is_older("0/12"), is_older("CC-MAIN-0001-b306b818")
    (True, False)
    """
    return "/" in name  # no name of a kept file has one: pipelines.corpus.layout


def list_groups(older: Sequence[Older]) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each group, and its files for `url_buffers` and `span_buffers`.

    Raises CorpusError if a corpus has changed since the build began.
    """
    for place, corpus in enumerate(older):
        inputs = read_unchanged(corpus).inputs
        files = [[layout.file_name(file.path), file.sha256] for file in inputs]
        for group in range(corpus.groups):
            yield f"{place}/{group}", json.dumps(files[group :: corpus.groups]).encode()


def url_buffers(
    older: Sequence[Older], name: str, files: bytes, buckets: int
) -> tuple[bytes | None, dedup.Buffers]:
    """Settle the urls of one group, as `pipelines.stages.dedup.url_buffers` does those of a file.

    Args:
        older: The older corpora.
        name: Of the group, from `list_groups`.
        files: Its files, likewise.
        buckets: How many there are.

    Raises:
        OSError: A file cannot be read.
        CorpusError: A file is damaged, or of another WET file; the message names it.
    """
    return dedup.page_buffers(_read(older, name, files), buckets)


def span_buffers(
    older: Sequence[Older],
    name: str,
    files: bytes,
    lost_pages: Iterable[bytes],
    window: int,
    buckets: int,
) -> dedup.Buffers:
    """Return the spans of one group's pages that won their urls, each once, by bucket.

    Arguments and errors are those of `url_buffers` and of `pipelines.stages.dedup.span_buffers`.
    """
    ids, ranks, _ = dedup.live_spans(_read(older, name, files), lost_pages, window)
    winners = spans.span_winners(ids, ranks).rows
    return spans.pack_older_spans_by_bucket(ids, ranks, winners, buckets)


def outdated_pages(
    buffers: Iterable[tuple[str, bytes]], older: Sequence[Older]
) -> Iterator[tuple[str, bytes]]:
    """Yield the pages of one bucket that lose their urls, packed by file, older ones included.

    Args:
        buffers: (file or group, packed urls).
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


def _read(older: Sequence[Older], name: str, files: bytes) -> Fingerprints:
    """Read the files of a group as if they were one."""
    corpus = older[_place(name)]
    parts = [_read_file(corpus, *file) for file in json.loads(files)]

    def joined(column: Callable[[Fingerprints], Any]) -> Any:
        """Join a column: first pages that passed the rules, then those that the rules dropped."""
        passed = [column(part)[: part.cleaned_pages] for part in parts]
        return np.concatenate(passed + [column(part)[part.cleaned_pages :] for part in parts])

    # Pages that the rules dropped have no units.
    return Fingerprints(
        cleaned_pages=sum(part.cleaned_pages for part in parts),
        source="",
        identity="",
        url_identities=joined(lambda part: part.url_identities),
        timestamps=joined(lambda part: np.array(part.timestamps, object)).tolist(),
        digests=joined(lambda part: part.digests),
        ranks=joined(lambda part: part.ranks),
        units=np.concatenate([part.units for part in parts]),
        units_per_page=joined(lambda part: part.units_per_page),
    )


def _read_file(corpus: Older, name: str, source: str) -> Fingerprints:
    path = layout.fingerprints(corpus.folder, name)
    try:
        file = read_fingerprints(path)
    except ValueError as error:
        what = str(error).partition(": run the same build")[0]
        raise CorpusError(
            f"{what}: repair {corpus.folder} with the c4 build that made it and --verify, then run "
            "this one again (--against)"
        ) from None
    if file.source != source:
        raise CorpusError(
            f"{path} is of another WET file than {corpus.folder} lists: has that corpus changed "
            "since this build began? (--against)"
        )
    return file
