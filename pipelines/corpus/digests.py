"""The SHA-256 of stored files."""

import hashlib
from collections.abc import Callable

from pipelines import storage

__all__ = ["Progress", "sha256_of"]

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
