"""Pieces: what a group of cleaned files has for a range of shards, ready to be read by them.

A piece has the pages of one shard after those of another, each shard's in order and in sections of
its own, with what deduplication removes beside them. So a shard reads its part of a piece with
one request. It does not read the table for that: whoever writes a piece passes the shard the places
and checksums of its sections (`PiecePart`), through the graph of the build. With them it can only
read the piece of its own build.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.corpus.cleaned import CLEANED_SCHEMA, MAY_BE_NULL
from pipelines.corpus.container import (
    DamagedFileError,
    Part,
    Section,
    pack_batch,
    read_sections,
    unpack_batch,
    write_container,
)
from pipelines.corpus.removals import PAGE_VERDICTS

#: Pages, what becomes of each (its place in PAGE_VERDICTS), and which of its units are removed.
#: In place of the inner offset is the number of the page's WET file in the group.
PIECE_SCHEMA = pa.schema(
    [*CLEANED_SCHEMA, ("code", pa.uint8()), ("gone", pa.large_list(pa.bool_()))]
)
_KIND = "merged"
_SECTION_TEXT_BYTES = 16 << 20

#: Pages, their places in PAGE_VERDICTS ``[pages]``, whether each of their units is removed
#: ``[units]``, and if they were asked for the paths of their WET files ``[pages]``.
SlicedPages: TypeAlias = tuple[
    pa.RecordBatch, npt.NDArray[np.uint8], npt.NDArray[np.bool_], pa.Array | None
]


class PiecePart(NamedTuple):
    """The sections that one shard has in a piece."""

    group: int  # parts are read in the order of their groups
    path: str
    sections: tuple[Section, ...]

    def packed(self) -> tuple[Any, ...]:
        """Return the part as plain tuples: every engine's coder knows them."""
        return self.group, self.path, tuple(map(dataclasses.astuple, self.sections))

    @classmethod
    def unpacked(cls, packed: tuple[Any, ...]) -> "PiecePart":
        """Return the part that `packed` was made of."""
        group, path, sections = packed
        return cls(group, path, tuple(itertools.starmap(Section, sections)))


def piece_rows(
    pages: pa.RecordBatch, codes: npt.NDArray[np.uint8], gone: npt.NDArray[np.bool_], number: int
) -> pa.RecordBatch:
    """Return rows of a piece.

    Args:
        pages: Of a cleaned file.
        codes: What becomes of each, its place in PAGE_VERDICTS ``[pages]``.
        gone: Whether each of their units is removed ``[units]``.
        number: Of their file in the group.
    """
    offsets = pages.column("unit_starts").offsets.to_numpy()
    units = pa.LargeListArray.from_arrays(pa.array(offsets - offsets[0]), pa.array(gone))
    columns = dict(zip(pages.schema.names, pages.columns, strict=True))
    columns |= {"code": pa.array(codes), "gone": units}
    columns["inner_offset"] = pa.array(np.full(len(pages), number, np.uint64))
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=PIECE_SCHEMA)


def write_piece(
    path: str, shards: Iterable[tuple[int, pa.Table]], wet_files: Sequence[str] | None = None
) -> dict[int, tuple[Section, ...]]:
    """Write a piece in one atomic step.

    Args:
        path: The file to write.
        shards: The number of a shard, and its rows in shard order (PIECE_SCHEMA); written as they
            come.
        wet_files: Paths of the WET files by number; None to store none.

    Returns:
        The sections of each shard that has any rows.
    """
    sections = write_container(path, _KIND, {}, _parts(shards, wet_files))
    return {
        number: tuple(of_shard)
        for number, of_shard in itertools.groupby(sections, key=lambda each: each.numbers[0])
    }


def _parts(
    shards: Iterable[tuple[int, pa.Table]], wet_files: Sequence[str] | None
) -> Iterator[Part]:
    for number, table in shards:
        if len(table) and wet_files is not None:
            yield Part("sources", json.dumps(wet_files).encode("ascii"), (number,))
        sizes = pc.binary_length(table["text"]).to_numpy()
        cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // _SECTION_TEXT_BYTES)) + 1
        for begin, end in itertools.pairwise([0, *cuts.tolist(), len(table)]):
            for rows in table.slice(begin, end - begin).combine_chunks().to_batches():
                yield Part("pages", pack_batch(rows), (number,))


def read_part(part: PiecePart) -> list[SlicedPages]:
    """Read what one shard has in a piece, with one request.

    Raises:
        OSError: The piece cannot be read.
        ValueError: It is damaged, or of another build; the message names it.
    """
    wet_files: pa.Array | None = None
    found: list[SlicedPages] = []
    for section, data in zip(part.sections, read_sections(part.path, part.sections), strict=True):
        if section.name == "sources":
            wet_files = pa.array(json.loads(data.to_pybytes()), pa.large_string())
            continue
        rows = unpack_batch(data, PIECE_SCHEMA, part.path, MAY_BE_NULL)
        codes = rows.column("code").to_numpy()
        gone, starts = rows.column("gone"), rows.column("unit_starts")
        if not gone.offsets.equals(starts.offsets) or codes.max(initial=0) >= len(PAGE_VERDICTS):
            raise DamagedFileError(part.path, "removals that do not fit its pages")
        first, end = gone.offsets[0].as_py(), gone.offsets[len(gone)].as_py()
        units = gone.values[first:end].to_numpy(zero_copy_only=False)
        paths = None
        if wet_files is not None:
            try:
                paths = wet_files.take(rows.column("inner_offset"))
            except pa.ArrowException as error:
                raise DamagedFileError(part.path, error) from None
        found.append((rows, codes, units, paths))
    return found
