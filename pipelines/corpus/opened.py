"""Cleaned files and their removals that stay open, for tasks that read parts of the same files."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines import storage
from pipelines.corpus.cleaned import CleanedFile, CleanedSource
from pipelines.corpus.closing import Closing
from pipelines.corpus.removals import open_removals

_Bools: TypeAlias = npt.NDArray[np.bool_]

#: Files that stay open. The last 64 kB of each stay in memory: 32 MB in all.
MOST_SOURCES = 256


class Opened(Closing):
    """A cleaned file and its removals, open. Use as a context manager.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is damaged, or of another build; the message names it.
    """

    def __init__(self, source: CleanedSource, build_id: str | None) -> None:
        """Open the files. The removals must belong to the build ``build_id``, unless None."""
        self.cleaned = CleanedFile(source.cleaned)
        try:
            self.removals = open_removals(source.removals, self.cleaned, build_id)
        except BaseException:
            self.cleaned.close()
            raise

    def close(self) -> None:
        """Close both files. Safe to call more than once."""
        self.cleaned.close()
        self.removals.close()

    def slices(
        self, splits: Iterable[int], low: int, high: int
    ) -> Iterator[tuple[pa.RecordBatch, npt.NDArray[np.uint8], _Bools]]:
        """Yield the pages of a range of page keys, with what is removed of them.

        Args:
            splits: Indexes in ``SPLITS``.
            low: The first page key.
            high: The page key after the last.

        Yields:
            Pages, their places in `pipelines.corpus.removals.PAGE_VERDICTS` ``[pages]``, whether
            each of their units is removed ``[units]``.
        """
        for split in splits:
            for pages, first_page, first_unit in self.cleaned.slices(split, low, high):
                starts = pages.column("unit_starts").offsets
                units = starts[len(pages)].as_py() - starts[0].as_py()
                codes = self.removals.pages(first_page, len(pages))
                yield pages, codes, self.removals.units(first_unit, units)


class OpenedFiles:
    """Opens cleaned files and their removals; the first remote ones stay open.

    Opening a remote file costs a request for its table. Every part that is read later is of the
    same version of the file: `pipelines.storage` compares it.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[CleanedSource, str | None], Opened] = {}

    @contextlib.contextmanager
    def open(self, source: CleanedSource, build_id: str | None) -> Iterator[Opened]:
        """Open a file and its removals, see `Opened`."""
        found = self._kept.pop((source, build_id), None) or Opened(source, build_id)
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
                found.close()

    def close(self) -> None:
        """Close all files. Safe to call more than once."""
        while self._kept:
            self._kept.popitem()[1].close()


def open_held(
    source: CleanedSource, build_id: str | None, ranges: Sequence[tuple[int, int, int]]
) -> tuple[Opened, int]:
    """Read the pages of some ranges, and their removals, and close both files.

    A remote file takes three requests: for its table, for its pages, and for its removals.

    Args:
        source: The files.
        build_id: See `Opened`.
        ranges: See `CleanedFile.hold`.

    Returns:
        What holds these pages; how many bytes they have when they are unpacked.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is damaged, or of another build; the message names it.
    """
    with Opened(source, build_id) as opened:
        opened.removals.hold()
        return opened, opened.cleaned.hold(ranges)
