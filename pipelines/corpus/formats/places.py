"""Places in shards that stay open while they are read on, and what their readers say."""

import collections
from typing import Any, TypeVar

import pyarrow as pa

from pipelines import storage
from pipelines.corpus.errors import CorpusError

Key = TypeVar("Key")
Value = TypeVar("Value")


class Kept(collections.OrderedDict[Key, Value]):
    """The values used last, at most ``most`` of them."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: Key, value: Value) -> Value:
        """Add a value, or mark it as used, and return it."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > self._most:
            self.popitem(last=False)
        return value


def arrow_file(path: str) -> Any:
    """Open a stored file for random reads by Arrow: a local one without a detour through Python."""
    if storage.is_local(path):
        return pa.OSFile(storage.local_path(path))
    return pa.PythonFile(storage.open_raw(path, scattered=True), mode="r")


def other_build(path: str, what: str) -> CorpusError:
    """Return the error for a shard that does not hold what the manifest lists.

    >>> other_build("a.parquet", "has 3 pages and manifest.json lists 4").args[0]
    'a.parquet has 3 pages and manifest.json lists 4: it is of another build; run c4 build again'
    """
    return CorpusError(f"{path} {what}: it is of another build; run c4 build again")
