"""Small files that are read whole: configurations, indices, vocabularies."""

import os
import pathlib
import stat

__all__ = ["read_small_file"]

#: Bytes; the largest such file of a published T5, mT5's tokenizer.json, has 16 MB.
LIMIT = 256 << 20


def read_small_file(path: str | os.PathLike[str]) -> bytes:
    """The content of a file.

    Raises ValueError for what is not a plain file, which may never end (a pipe, a device), and
    for one of more than 256 MiB, which is none of these files; OSError as ``open`` does.
    """
    path = pathlib.Path(path)
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # not even opened: a pipe would wait for its other end
        raise ValueError(f"{path}: not a file but a pipe, a device or a folder")
    if found.st_size > LIMIT:
        raise ValueError(f"{path}: {found.st_size:,} bytes, too large for what it should be")
    return path.read_bytes()
