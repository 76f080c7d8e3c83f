"""Many cleaned files and their removals -> fewer, for builds of hundreds of WET files and more.

A shard holds a range of page keys, of which every cleaned file has some: 56,000 files and 20,000
shards would be a billion openings, each of a few requests to an object store. So neighbouring
files (by name) form groups, and the pages of a group in one range of keys become a *piece*: a
cleaned file and a removal file like any other. Then every file is opened once per range, and a
shard opens one piece per group. Builds of few files skip the step: no page or order depends on it.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.collector import without_collector
from pipelines.corpus import layout
from pipelines.corpus.cleaned import (
    CLEANED_SCHEMA,
    CleanedSource,
    key_range,
    shard_order,
    write_cleaned,
)
from pipelines.corpus.opened import OpenedFiles
from pipelines.corpus.removals import write_removals

__all__ = ["MergePlan", "MergeTask", "cleaned_sources", "merge_files", "plan_merge"]

_TEXT_BYTES_PER_PIECE = 128 << 20  # a worker holds it some three times over
#: Merge if it saves this factor of openings. It reads and writes all cleaned text once more:
#: docs/log.md has the cost of both.
_WORTH = 8


@dataclasses.dataclass(frozen=True)
class MergeTask:
    """One piece to make: what the files of a group have in a range of page keys."""

    group: int
    key_range: int


@dataclasses.dataclass(frozen=True)
class MergePlan:
    """``groups`` x ``ranges`` pieces: neighbouring files, and equal ranges of page keys."""

    groups: int
    ranges: int

    def tasks(self) -> list[MergeTask]:
        """Return a task for each piece, those of one group together: they read the same files."""
        return [
            MergeTask(group, key_range)
            for group in range(self.groups)
            for key_range in range(self.ranges)
        ]

    def files_of(self, group: int, names: Sequence[str]) -> Sequence[str]:
        """Return the names of a group's files, of all names in order.

        >>> MergePlan(2, 1).files_of(1, ["a", "b", "c"])
        ['b', 'c']
        """
        begin, end = (len(names) * at // self.groups for at in (group, group + 1))
        return names[begin:end]

    def piece(self, output: str, task: MergeTask) -> CleanedSource:
        """Return the paths of a piece."""
        name = layout.piece_name(task.group, self.groups, task.key_range, self.ranges)
        return CleanedSource(layout.merged(output, name), layout.merged_removals(output, name))

    def sources(self, output: str, low: int, high: int) -> list[CleanedSource]:
        """Return the pieces that hold page keys from ``low`` to below ``high``, by group."""
        return [
            self.piece(output, MergeTask(group, index))
            for group in range(self.groups)
            for index in range(self.ranges)
            if key_range(index, self.ranges)[0] < high and low < key_range(index, self.ranges)[1]
        ]


def plan_merge(files: int, text_bytes: int, shards: int) -> MergePlan | None:
    """Plan how cleaned files are merged before ``shards`` shards are written; None: not at all.

    The number of pieces follows from their size. Of the ways to lay them out, the one with the
    fewest openings is taken: files x ranges while merging, shards x groups while writing.

    >>> plan_merge(100, 3 << 30, 48)
    >>> plan_merge(56_000, 1400 << 30, 1024)
    MergePlan(groups=800, ranges=14)
    """
    if not files:
        return None
    pieces = max(1, -(-text_bytes // _TEXT_BYTES_PER_PIECE))
    ranges = np.arange(1, pieces + 1)
    groups = np.minimum(files, -(-pieces // ranges))
    openings = files * ranges + shards * groups
    best = int(openings.argmin())
    if files * shards < _WORTH * openings[best]:
        return None
    return MergePlan(int(groups[best]), int(ranges[best]))


def cleaned_sources(output: str, names: Iterable[str]) -> list[CleanedSource]:
    """Return the cleaned files called ``names`` themselves, by name."""
    # By name, because copies of one page keep the order of their files.
    return [
        CleanedSource(layout.cleaned(output, name), layout.removals(output, name))
        for name in sorted(names)
    ]


@without_collector()
def merge_files(
    task: MergeTask, plan: MergePlan, names: Iterable[str], output: str, build_id: str = ""
) -> str:
    """Make a piece from its group's files.

    Args:
        task: The piece.
        plan: The plan that it belongs to.
        names: Names of all cleaned files.
        output: The corpus folder.
        build_id: The build that the removals must belong to, and that the piece belongs to.

    Returns:
        The path of the piece's pages.

    Raises:
        ValueError: A file that it reads is damaged, or of another build; the message names it.
    """
    sources = cleaned_sources(output, plan.files_of(task.group, sorted(names)))
    piece = plan.piece(output, task)
    low, high = key_range(task.key_range, plan.ranges)
    _write_piece(piece, *_gather(sources, low, high, build_id), build_id)
    return piece.cleaned


def _gather(
    sources: Iterable[CleanedSource], low: int, high: int, build_id: str
) -> tuple[list[str], pa.Table, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Read a range of pages.

    Returns:
        The paths of the WET files; the pages, with the number of each one's file in place of its
        inner offset; what becomes of these ``[pages]``; which of their ``[units]`` are removed.
    """
    batches: list[pa.RecordBatch] = []
    paths: list[str] = []
    pages_gone, units_gone = [np.zeros(0, np.uint8)], [np.zeros(0, bool)]
    for source in sources:
        with (
            contextlib.closing(OpenedFiles()) as files,
            files.open(source, build_id) as opened,
        ):
            for pages, gone, units in opened.slices(range(len(layout.SPLITS)), low, high):
                batches.append(_numbered(pages, len(paths)))
                pages_gone.append(gone)
                units_gone.append(units)
            paths.append(opened.cleaned.summary.get("file", {}).get("path", ""))
    table = pa.Table.from_batches(batches, CLEANED_SCHEMA)
    return paths, table, np.concatenate(pages_gone), np.concatenate(units_gone)


def _numbered(pages: pa.RecordBatch, file: int) -> pa.RecordBatch:
    at = pages.schema.get_field_index("inner_offset")
    numbers = pa.array(np.full(len(pages), file, np.uint64))
    return pages.set_column(at, pages.schema.field(at), numbers)


def _write_piece(
    piece: CleanedSource,
    paths: list[str],
    table: pa.Table,
    pages_gone: npt.NDArray[np.uint8],
    units_gone: npt.NDArray[np.bool_],
    build_id: str,
) -> None:
    order = shard_order(table)
    units = pa.compute.list_value_length(table["unit_starts"]).to_numpy().astype(np.int64)
    first_units = np.cumsum(units) - units
    begins = np.cumsum(units[order]) - units[order]  # of each page's units, in the new order
    unit_order = np.repeat(first_units[order] - begins, units[order]) + np.arange(units.sum())
    # The pages last, so that an existing piece is complete.
    write_removals(piece.removals, pages_gone[order], units_gone[unit_order], None, None, build_id)
    name = os.path.basename(piece.cleaned)
    summary = {"merged": name, "build_id": build_id, "sources": paths}
    write_cleaned(piece.cleaned, table.take(order), summary)
