"""Many cleaned files and their removals -> fewer, for builds of hundreds of WET files and more.

A shard holds a range of page keys, of which every cleaned file has some: 56,000 files and 4,128
shards would be 231 million openings, each of a few requests to an object store. So neighbouring
files (by name) form groups, and what a group has for a range of neighbouring shards becomes a
*piece* (`pipelines.corpus.pieces`). Then every file is opened once per range, and a shard reads its
part of one piece per group, with one request. Builds of few files skip the step: no page or order
depends on it.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import storage
from pipelines.collector import without_collector
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedSource, shard_order
from pipelines.corpus.opened import Opened, open_held
from pipelines.corpus.pieces import PIECE_SCHEMA, PiecePart, piece_rows, write_piece
from pipelines.stages.write_shards import ShardTask

FILE_REQUESTS = 3  # a task makes for a file: its table, its pages, its removals
#: Text of a piece. Few pieces are few requests; where there is much text, about as many pieces are
#: made as a few hundred machines have processes.
_LEAST_TEXT_BYTES, _MOST_TEXT_BYTES, _PIECES = 128 << 20, 512 << 20, 2048
_MOST_FILES = 1000  # of a group: a task holds the end of each, 64 kB
SORTED_BYTES = 128 << 20  # sorted at a time: a worker holds them some three times over
#: Merge if it saves this factor of requests. It reads and writes all cleaned text once more:
#: docs/log.md has the cost of both.
_WORTH = 16

_Range: TypeAlias = tuple[int, int, int]  # split, first page key, page key after the last


@dataclasses.dataclass(frozen=True)
class MergeTask:
    """One piece to make: what the files of a group have for a range of shards."""

    group: int
    shards: int  # which of the plan's ranges


@dataclasses.dataclass(frozen=True)
class MergePlan:
    """``groups`` x ``ranges`` pieces: neighbouring files, and neighbouring shards."""

    groups: int
    ranges: int

    def tasks(self) -> list[MergeTask]:
        """Return a task for each piece, those of one group together: they read the same files."""
        return [
            MergeTask(group, shards)
            for group in range(self.groups)
            for shards in range(self.ranges)
        ]

    def files_of(self, group: int, names: Sequence[str]) -> Sequence[str]:
        """Return the names of a group's files, of all names in order.

        >>> MergePlan(2, 1).files_of(1, ["a", "b", "c"])
        ['b', 'c']
        """
        begin, end = (len(names) * at // self.groups for at in (group, group + 1))
        return names[begin:end]

    def shards_of(self, task: MergeTask, shards: int) -> range:
        """Return the numbers of a task's shards, of so many.

        >>> MergePlan(1, 2).shards_of(MergeTask(0, 1), 9)
        range(4, 9)
        """
        return range(*(shards * at // self.ranges for at in (task.shards, task.shards + 1)))

    def piece(self, output: str, task: MergeTask) -> str:
        """Return the path of a piece."""
        name = layout.piece_name(task.group, self.groups, task.shards, self.ranges)
        return layout.merged(output, name)


def plan_merge(files: int, text_bytes: int, shards: int) -> MergePlan | None:
    """Plan how cleaned files are merged before ``shards`` shards are written; None: not at all.

    The number of pieces follows from their size. Of the ways to lay them out, the one with the
    fewest requests is taken: files x ranges x FILE_REQUESTS while merging, shards x groups while
    writing.

    >>> plan_merge(100, 3 << 30, 48)
    >>> plan_merge(56_000, 930 << 30, 4128)
    MergePlan(groups=293, ranges=7)
    """
    if not files:
        return None
    size = min(max(_LEAST_TEXT_BYTES, -(-text_bytes // _PIECES)), _MOST_TEXT_BYTES)
    pieces = max(1, -(-text_bytes // size))
    ranges = np.arange(1, min(pieces, shards) + 1)
    groups = np.maximum(-(-pieces // ranges), -(-files // _MOST_FILES))
    groups = np.minimum(files, groups)
    requests = FILE_REQUESTS * files * ranges + shards * groups
    best = int(requests.argmin())
    if FILE_REQUESTS * files * shards < _WORTH * requests[best]:
        return None
    return MergePlan(int(groups[best]), int(ranges[best]))


def cleaned_sources(output: str, names: Iterable[str]) -> list[CleanedSource]:
    """Return the cleaned files called ``names`` themselves, by name."""
    # By name, because copies of one page keep the order of their files.
    return [CleanedSource.of(output, name) for name in sorted(names)]


@without_collector()
def merge_files(
    task: MergeTask,
    plan: MergePlan,
    names: Iterable[str],
    shards: Sequence[ShardTask],
    output: str,
    build_id: str = "",
    provenance: bool = False,
) -> list[tuple[int, PiecePart]]:
    """Make a piece from its group's files.

    Args:
        task: The piece.
        plan: The plan that it belongs to.
        names: Names of all cleaned files.
        shards: All shards, in shard order: train, then validation.
        output: The corpus folder.
        build_id: The build that the removals must belong to.
        provenance: Whether shards will say which WET file each page is from.

    Returns:
        The numbers of shards, and the part of the piece that each of them must read.

    Raises:
        ValueError: A file that it reads is damaged, or of another build; the message names it.
    """
    sources = cleaned_sources(output, plan.files_of(task.group, sorted(names)))
    numbers = plan.shards_of(task, len(shards))
    ranges = [_range_of(shards[number]) for number in numbers]
    # All stay in memory as they are stored, so that each is read once.
    held = list(storage.map_ahead(
        lambda source: open_held(source, build_id, _joined(ranges)), sources, output
    ))  # fmt: skip
    files = [opened for opened, _ in held]
    steps = max(1, math.ceil(sum(size for _, size in held) / SORTED_BYTES))
    wet_files = [opened.cleaned.wet_file for opened in files] if provenance else None

    def rows_of_shards() -> Iterator[tuple[int, pa.Table]]:
        for step in range(steps):
            begin, end = (len(numbers) * at // steps for at in (step, step + 1))
            yield from zip(numbers[begin:end], _sorted(files, ranges[begin:end]), strict=True)

    path = plan.piece(output, task)
    found = write_piece(path, rows_of_shards(), wet_files)
    return [(number, PiecePart(task.group, path, found[number])) for number in found]


def _range_of(shard: ShardTask) -> _Range:
    return (layout.SPLITS.index(shard.split), *shard.key_range())


def _joined(ranges: Sequence[_Range]) -> list[_Range]:
    """Join neighbouring ranges of page keys: one for each split."""
    splits = sorted({split for split, _, _ in ranges})
    of_split = [[each for each in ranges if each[0] == split] for split in splits]
    return [(each[0][0], each[0][1], each[-1][2]) for each in of_split]


def _sorted(files: Sequence[Opened], ranges: Sequence[_Range]) -> Iterator[pa.Table]:
    """Read neighbouring ranges of pages of all files, and yield the rows of each in shard order."""
    batches = [
        piece_rows(pages, codes, gone, number)
        for split, low, high in _joined(ranges)
        for number, file in enumerate(files)
        for pages, codes, gone in file.slices([split], low, high)
    ]
    table = pa.Table.from_batches(batches, PIECE_SCHEMA)
    table = table.take(shard_order(table))
    keys = table["page_key"].to_numpy()
    train = len(keys) - int(pc.sum(table["validation"]).as_py() or 0)
    firsts = {0: 0, 1: train}
    of_split = {0: keys[:train], 1: keys[train:]}
    for split, low, high in ranges:
        begin, end = (firsts[split] + _rows_below(of_split[split], key) for key in (low, high))
        yield table.slice(begin, end - begin)


def _rows_below(keys: npt.NDArray[np.uint64], key: int) -> int:
    """Return how many of sorted keys are below a key; 2**64 is no key of an array."""
    return len(keys) if key >> 64 else int(np.searchsorted(keys, np.uint64(key)))
