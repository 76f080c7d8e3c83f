"""Objects of Google Cloud Storage (``gs://``) and S3 (``s3://``), through obstore."""

import contextlib
import datetime
import errno
import math
import re
import threading
from collections.abc import Iterable
from typing import Any, BinaryIO, cast

from pipelines.storage import options, patterns
from pipelines.storage.credentials import amazon_arguments, environment, google_arguments
from pipelines.storage.errors import raising_oserror, require
from pipelines.storage.paths import FileInfo, NoInputError, folder_error, is_temporary, last_part
from pipelines.storage.streams import SCATTERED_BYTES, SEQUENTIAL_BYTES, RangeFile, Upload

PART_BYTES = 16 << 20  # S3 allows 10,000 parts per object, each of at least 5 MB
_PARTS_AT_A_TIME = 2
_EXTRAS = {"gs": "gcp", "s3": "aws"}
#: At most two minutes in total: a busy store asks for a retry, a missing one never answers.
_RETRIES: Any = {
    "max_retries": 8,
    "retry_timeout": datetime.timedelta(minutes=2),
}

_lock = threading.Lock()
_stores: dict[Any, Any] = {}


class Objects(patterns.Tree):
    """An object store. A folder is a common prefix of names."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme

    def stat(self, path: str) -> FileInfo:
        """Return size and identity of an object."""
        store, key = self._store(path)
        with raising_oserror(path):
            return _info(path, store.head(key))

    def open(self, path: str, scattered: bool) -> BinaryIO:
        """Open an object for reading, in ranges of 16 MB, or of 64 kB if ``scattered``.

        Without ``scattered`` the next range comes while one is worked on.

        One request finds the object and fetches its first range, or its last if ``scattered``.
        """
        store, key = self._store(path)
        import obstore

        def fetch(start: int, length: int) -> bytes:
            with raising_oserror(path):
                found = store.get(key, options={"range": (start, start + length)})
                if found.meta["e_tag"] != etag:
                    raise OSError(errno.ESTALE, "changed while it was read", path)
                return bytes(found.bytes())

        kept = b""
        block = SCATTERED_BYTES if scattered else SEQUENTIAL_BYTES
        # The end of a file that is read in parts holds its table. The answer has the size, too.
        wanted: Any = {"suffix": block} if scattered else (0, block)
        with raising_oserror(path):
            try:
                got = store.get(key, options={"range": wanted})
                meta, kept = got.meta, bytes(got.bytes())
            except obstore.exceptions.GenericError:
                meta = store.head(key)
                if meta["size"]:  # an empty object has no byte to request
                    raise
        etag, size = meta["e_tag"], meta["size"]
        kept_from = size - len(kept) if scattered else 0
        return cast(BinaryIO, RangeFile(fetch, size, block, kept, kept_from, not scattered))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return a range of an object, fewer bytes at its end."""
        store, key = self._store(path)
        with raising_oserror(path):
            return bytes(store.get_range(key, start=start, length=length))

    def entries(self, folder: str) -> list[patterns.Entry]:
        """Return objects and common prefixes directly in a folder."""
        store, key = self._store(folder)
        with raising_oserror(folder):
            found = store.list_with_delimiter(key or None)
        root = self._root(folder)
        # An object that represents the folder itself is listed too, without its final slash.
        objects = [meta for meta in found["objects"] if meta["path"] != key]
        prefixes = [FileInfo(root + prefix, 0) for prefix in found["common_prefixes"]]
        return [
            *(patterns.Entry(_info(root + meta["path"], meta), _seconds(meta)) for meta in objects),
            *(patterns.Entry(prefix, is_folder=True) for prefix in prefixes),
        ]

    def remove(self, path: str) -> None:
        """Delete an object. A missing object is ignored."""
        store, key = self._store(path)
        with raising_oserror(path), contextlib.suppress(FileNotFoundError):
            store.delete(key)

    def create_if_absent(self, path: str, content: bytes) -> bool:
        """Create an object unless it exists, with a conditional request."""
        store, key = self._store(path)
        import obstore

        with raising_oserror(path):
            try:
                store.put(key, content, mode="create", use_multipart=False)
            except obstore.exceptions.AlreadyExistsError:
                return False
            return True

    def open_output(self, path: str) -> Upload:
        """Start an upload. If it is abandoned, its parts are deleted and not billed."""
        store, key = self._store(path)
        in_parts = {"chunk_size": PART_BYTES, "max_concurrency": _PARTS_AT_A_TIME}

        def send_whole(content: bytes) -> None:
            with raising_oserror(path):
                store.put(key, content, use_multipart=False)

        def send_parts(parts: Iterable[bytes]) -> None:
            with raising_oserror(path):
                store.put(key, parts, use_multipart=True, **in_parts)

        return Upload(send_whole, send_parts, PART_BYTES)

    # --- patterns

    def match(self, pattern: str) -> list[FileInfo]:
        """Find objects by name or pattern."""
        if not patterns.has_magic(pattern):
            found = self.find(pattern)
            if found is None and self.entries(pattern):
                raise folder_error(pattern)
            return [] if found is None else [found]
        root, slash, rest = pattern.partition("://")[2].partition("/")
        if patterns.has_magic(root) or not slash:
            raise NoInputError(f"{pattern!r}: a pattern must name its bucket (--input)")
        return list(patterns.expand(self, f"{self._scheme}://{root}/", rest))

    def below(self, folder: str, wanted: re.Pattern[str]) -> list[FileInfo]:
        """Return the wanted objects below a folder."""
        store, key = self._store(folder)
        found = []
        with raising_oserror(folder):
            for page in store.list(key or None, chunk_size=1000):
                for meta in page:
                    path = f"{self._root(folder)}{meta['path']}"
                    inside = path.removeprefix(folder)
                    if wanted.fullmatch(inside) and not is_temporary(last_part(path)):
                        found.append(_info(path, meta))
        # obstore drops the final slash of an empty object that represents a folder.
        empty = [file for file in found if not file.size]
        here = dict(zip(empty, patterns.in_parallel(self, [f.path for f in empty], self.find),
                        strict=True))  # fmt: skip
        return [file for file in found if file.size or here[file] is not None]

    # --- stores

    def _root(self, path: str) -> str:
        return f"{self._scheme}://{path.partition('://')[2].partition('/')[0]}/"

    def _store(self, path: str) -> tuple[Any, str]:
        """Return the store of a path's bucket, and the path's key in it."""
        bucket, _, key = path.partition("://")[2].partition("/")
        chosen = (self._scheme, bucket, options.settings(), environment())
        with _lock:
            if chosen not in _stores:
                try:
                    _stores[chosen] = self._make(bucket, options.settings())
                except OSError as error:
                    if error.filename is None and error.errno:
                        error.filename = path
                    raise
        return _stores[chosen], key.strip("/")

    def _make(self, bucket: str, settings: options.Settings) -> Any:
        try:
            import obstore
            from obstore import store
        except ModuleNotFoundError:
            raise require(_EXTRAS[self._scheme], self._scheme) from None
        try:
            if self._scheme == "gs":
                return store.GCSStore(bucket, retry_config=_RETRIES, **google_arguments(settings))
            return store.S3Store(
                bucket, retry_config=_RETRIES, **amazon_arguments(bucket, settings)
            )
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise OSError(errno.EINVAL, str(error).splitlines()[0], bucket) from error


def _info(path: str, meta: Any) -> FileInfo:
    etag = meta["e_tag"]
    return FileInfo(path, meta["size"], f"etag:{etag.strip(chr(34))}" if etag else "")


def _seconds(meta: Any) -> float:
    changed = meta["last_modified"]
    return changed.timestamp() if changed is not None else math.inf
