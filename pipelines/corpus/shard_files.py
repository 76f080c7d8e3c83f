"""Write the files of a shard, and describe them as the manifest does."""

from collections.abc import Callable, Iterable
from typing import BinaryIO, cast

import pyarrow as pa

from pipelines import storage
from pipelines.corpus.digests import HashedFile
from pipelines.corpus.formats import shard_file_name, write_table
from pipelines.corpus.manifest import ShardFile

__all__ = ["write_shard_files"]


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
