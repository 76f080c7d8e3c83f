"""Cleaned files and their removals that stay open, for tasks that read parts of the same files."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from pipelines import storage
from pipelines.corpus.cleaned import CleanedFile, Source
from pipelines.corpus.removals import Removals, open_removals

__all__ = ["Opened", "OpenedFiles"]

#: Of each file, its last 64 kB stay in memory: 32 MB in all.
MOST_SOURCES = 256


class Opened(NamedTuple):
    """A cleaned or merged file and its removals, open."""

    cleaned: CleanedFile
    removals: Removals


class OpenedFiles:
    """Opens cleaned files and their removals; the first remote ones stay open.

    Opening a remote file costs a request for its table. Every part that is read later is of the
    same version of the file: `pipelines.storage` compares it.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Source, str | None], Opened] = {}

    @contextlib.contextmanager
    def open(self, source: Source, build_id: str | None) -> Iterator[Opened]:
        """Open a file and its removals, which must belong to the build ``build_id`` unless None.

        Raises:
            OSError: A file cannot be read.
            ValueError: A file is damaged, or of another build; the message names it.
        """
        found = self._kept.pop((source, build_id), None)
        if found is None:
            found = _open(source, build_id)
        stays = False
        try:
            yield found
            stays = len(self._kept) < MOST_SOURCES and not storage.is_local(source.cleaned)
        finally:
            if stays:
                found.cleaned.forget()
                found.removals.forget()
                self._kept[source, build_id] = found
            else:
                _close(found)

    def close(self) -> None:
        """Close all files. Safe to call more than once."""
        while self._kept:
            _close(self._kept.popitem()[1])


def _open(source: Source, build_id: str | None) -> Opened:
    cleaned = CleanedFile(source.cleaned)
    try:
        return Opened(cleaned, open_removals(source.removals, cleaned, build_id))
    except BaseException:
        cleaned.close()
        raise


def _close(opened: Opened) -> None:
    opened.cleaned.close()
    opened.removals.close()
