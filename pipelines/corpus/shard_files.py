"""Write the shards of a corpus, and describe their files and pages as the manifest does."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc

from c4_filters.dates import COMMON_FORM, whole_seconds
from pipelines import storage
from pipelines.corpus.digests import HashedFile
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats import shard_file_name, shard_file_names, write_table
from pipelines.corpus.formats.pages import COLUMNS
from pipelines.corpus.formats.provenance import no_pages
from pipelines.corpus.layout import SPLITS
from pipelines.corpus.manifest import Counts, InputFile, Manifest, ShardFile, ShownPage, SplitSums

_WHOLE_DATE = rf"\A(?:{COMMON_FORM})\z"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """One shard: what the manifest says of its files and of its pages."""

    split: str
    index: int
    count: int
    pages: int
    lines: int
    text_bytes: int
    files: tuple[ShardFile, ...]
    kept_page: ShownPage | None  # its first page, shortened, for people to look at
    languages: dict[str, int]  # pages by code
    dates: tuple[str, ...]  # the oldest and the newest WARC-Date; none if no page has one


def write_shard_files(
    folder: str,
    place: tuple[str, int, int],
    table: pa.Table,
    formats: Iterable[str],
    lines: int,
    require: Callable[[], None] = lambda: None,
) -> WrittenShard:
    """Write a shard in every format asked for, and describe it.

    Args:
        folder: Of the corpus.
        place: Split, index and number of shards.
        table: The pages, see `pipelines.corpus.formats`.
        formats: Names of formats.
        lines: Of all pages.
        require: Called before each file is published; what it raises keeps the file unpublished.

    Raises:
        OSError: A file cannot be written.
    """
    files = []
    for name in formats:
        file_name = shard_file_name(*place, name)
        with storage.write_atomically(storage.join(folder, file_name)) as file:
            hashed = HashedFile(file)
            write_table(name, table, cast(BinaryIO, hashed))
            require()
        digest = hashed.digest.hexdigest()
        files.append(ShardFile(file_name, place[0], name, len(table), file.tell(), digest))
    split, index, count = place
    languages = pc.value_counts(table["language"].drop_null()).to_pylist()
    dates = in_whole_seconds(table["timestamp"])
    known = pc.min_max(dates.filter(pc.match_substring_regex(dates, _WHOLE_DATE))).as_py()
    return WrittenShard(
        split=split,
        index=index,
        count=count,
        pages=len(table),
        lines=lines,
        text_bytes=pc.sum(pc.binary_length(table["text"])).as_py() or 0,
        files=tuple(files),
        kept_page=(
            ShownPage.of(table["url"][0].as_py(), table["text"][0].as_py()) if len(table) else None
        ),
        languages={each["values"]: each["counts"] for each in languages},
        dates=() if known["min"] is None else (known["min"], known["max"]),
    )


def in_whole_seconds(dates: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return dates as ``YYYY-MM-DDThh:mm:ssZ``, so that readers that guess types find one."""
    odd = pc.invert(pc.match_substring_regex(dates, _WHOLE_DATE))
    if not pc.any(odd).as_py():
        return dates
    changed = [whole_seconds(date) for date in dates.filter(odd).to_pylist()]
    return pc.replace_with_mask(dates, odd.combine_chunks(), pa.array(changed, dates.type))


def described(shards: Sequence[WrittenShard]) -> dict[str, Any]:
    """Return the fields of a manifest that describe all shards, given in their order."""
    dates = [date for shard in shards for date in shard.dates]
    return {
        "splits": {
            split: SplitSums(
                sum(shard.pages for shard in shards if shard.split == split),
                sum(shard.text_bytes for shard in shards if shard.split == split),
            )
            for split in SPLITS
        },
        "shards": tuple(file for shard in shards for file in shard.files),
        "kept_page": next((shard.kept_page for shard in shards if shard.kept_page), None),
        "languages": added(shard.languages for shard in shards),
        "dates": (min(dates), max(dates)) if dates else (),
    }


def added(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums of counts by name, without zeros, in the order of names."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return {str(key): count for key, count in sorted(total.items()) if count}


class PageWriter:
    """Writes pages of other corpora, which come in their order, as shards of as many pages each.

    Attributes:
        names: Of the files of all shards.
    """

    def __init__(
        self,
        folder: str,
        formats: Sequence[str],
        planned: Mapping[str, tuple[int, int]],
        columns: Iterable[str] = COLUMNS,
        require: Callable[[], None] = lambda: None,
    ) -> None:
        """Plan a corpus.

        Args:
            folder: Of the corpus.
            formats: Names of formats.
            planned: How many pages and how many shards each split has.
            columns: Of the tables of pages.
            require: See `write_shard_files`.
        """
        self._folder, self._formats, self._planned = folder, formats, planned
        self._columns, self._require = columns, require
        self._waiting: dict[str, list[pa.Table]] = {split: [] for split in SPLITS}
        self._written: dict[str, list[WrittenShard]] = {split: [] for split in SPLITS}
        counts = {split: count for split, (_, count) in planned.items()}
        self.names = shard_file_names(counts, formats)

    def add(self, split: str, pages: pa.Table) -> None:
        """Take the next pages of a split, and write the shards that they fill.

        Raises:
            CorpusError: More pages come than were planned.
        """
        while len(pages):
            if len(self._written[split]) == self._planned[split][1]:
                raise CorpusError(f"{self._folder}: a corpus that is read has changed: run again")
            waiting = sum(map(len, self._waiting[split]))
            room = self._size_of_next(split) - waiting
            self._waiting[split].append(pages.slice(0, room))
            if len(pages) >= room:
                self._write(split)
            pages = pages.slice(room)

    def finish(self) -> list[WrittenShard]:
        """Write the shards that are left, which have no pages, and describe all in their order.

        Raises:
            CorpusError: Fewer pages came than were planned.
        """
        for split, (_, count) in self._planned.items():
            while len(self._written[split]) < count:
                if self._waiting[split] or self._size_of_next(split):
                    raise CorpusError(
                        f"{self._folder}: a corpus that is read has lost pages: run again"
                    )
                self._write(split)
        return [shard for split in SPLITS for shard in self._written[split]]

    def _size_of_next(self, split: str) -> int:
        pages, count = self._planned[split]
        index = len(self._written[split])
        return pages * (index + 1) // count - pages * index // count

    def _write(self, split: str) -> None:
        tables, self._waiting[split] = self._waiting[split], []
        table = pa.concat_tables(tables) if tables else no_pages(self._columns)
        place = (split, len(self._written[split]), self._planned[split][1])
        lines = len(table) + (pc.sum(pc.count_substring(table["text"], "\n")).as_py() or 0)
        self._written[split].append(
            write_shard_files(self._folder, place, table, self._formats, lines, self._require)
        )


def manifest_of_pages(
    shards: Sequence[WrittenShard],
    inputs: tuple[InputFile, ...],
    read: tuple[int, int] | None = None,
    **fields: Any,
) -> Manifest:
    """Return the manifest of a corpus that is made of pages of others, by `PageWriter`.

    Args:
        shards: In their order.
        inputs: What was read.
        read: Pages and lines of these, of which those in other languages were left out; None: as
            many as were written.
        fields: The others of the manifest.
    """
    pages, lines = (sum(getattr(shard, name) for shard in shards) for name in ("pages", "lines"))
    pages_read, lines_read = read or (pages, lines)
    is_part = pages < pages_read
    return Manifest(
        inputs=inputs,
        unreadable_inputs=(),
        counts=Counts(
            files_read=len(inputs),
            files_unreadable=0,
            pages_read=pages_read,
            pages_written=pages,
            pages_dropped={"other_language": pages_read - pages} if is_part else {},
            lines_read=lines_read,
            lines_written=lines,
            lines_dropped={"on_dropped_page": lines_read - lines} if is_part else {},
            records_rejected=0,
            records_rejected_by_reason={},
        ),
        keep="none",
        **described(shards),
        **fields,
    )
