"""Write the files of a shard, and describe files and pages as the manifest does."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc

from c4_filters.dates import COMMON_FORM, whole_seconds
from pipelines import storage
from pipelines.corpus.digests import HashedFile
from pipelines.corpus.formats import shard_file_name, write_table
from pipelines.corpus.manifest import ShardFile, ShownPage

_WHOLE_DATE = rf"\A(?:{COMMON_FORM})\z"


def write_shard_files(
    folder: str,
    place: tuple[str, int, int],
    table: pa.Table,
    formats: Iterable[str],
    require: Callable[[], None] = lambda: None,
) -> list[ShardFile]:
    """Write a shard in every format asked for, and return the manifest's entries.

    Args:
        folder: Of the corpus.
        place: Split, index and number of shards.
        table: The pages, see `pipelines.corpus.formats`.
        formats: Names of formats.
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
        files.append(ShardFile(file_name, place[0], name, len(table), hashed.bytes, digest))
    return files


def in_whole_seconds(dates: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return dates as ``YYYY-MM-DDThh:mm:ssZ``, so that readers that guess types find one."""
    odd = pc.invert(pc.match_substring_regex(dates, _WHOLE_DATE))
    if not pc.any(odd).as_py():
        return dates
    changed = [whole_seconds(date) for date in dates.filter(odd).to_pylist()]
    return pc.replace_with_mask(dates, odd.combine_chunks(), pa.array(changed, dates.type))


def languages_of(table: pa.Table) -> dict[str, int]:
    """Return the number of pages of each language."""
    counted = pc.value_counts(table["language"]).to_pylist()
    return {each["values"]: each["counts"] for each in counted if each["values"] is not None}


def dates_of(table: pa.Table) -> tuple[str, ...]:
    """Return the oldest and the newest date of pages; nothing if none has a date."""
    dates = in_whole_seconds(table["timestamp"])
    found = pc.min_max(dates.filter(pc.match_substring_regex(dates, _WHOLE_DATE))).as_py()
    return () if found["min"] is None else (found["min"], found["max"])


def first_page(table: pa.Table) -> ShownPage | None:
    """Return the first page, shortened; None if there is none."""
    if not len(table):
        return None
    return ShownPage.of(table["url"][0].as_py(), table["text"][0].as_py())


class Described:
    """What a manifest says of the pages of all shards.

    Attributes:
        languages: Pages by language.
        shown: The first page, shortened.
    """

    def __init__(self) -> None:
        self.languages: Counter[str] = Counter()
        self.shown: ShownPage | None = None
        self._dates: list[str] = []

    def add(self, table: pa.Table) -> None:
        """Take the pages of a shard."""
        self.languages.update(languages_of(table))
        self._dates += dates_of(table)
        self.shown = self.shown or first_page(table)

    @property
    def dates(self) -> tuple[str, ...]:
        """The oldest and the newest date."""
        return (min(self._dates), max(self._dates)) if self._dates else ()
