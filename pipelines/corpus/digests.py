"""The SHA-256 of stored files, and of files while they are written."""

import hashlib
import io
from collections.abc import Callable
from typing import Any, BinaryIO

from pipelines import storage

_READ_BYTES = 1 << 20

#: Takes how many more bytes were read.
Progress = Callable[[int], None]


def sha256_of(path: str, progress: Progress = lambda _: None) -> str:
    """Return the SHA-256 of a stored file, in hex. Raises OSError if it cannot be read."""
    digest = hashlib.sha256()
    with storage.open_raw(path) as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
            progress(len(data))
    return digest.hexdigest()


class HashedFile(io.BufferedIOBase):
    """Passes bytes on to a file, and hashes them. Closing it leaves the file open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes and return their number."""
        self.digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._file.tell()
