"""One file layer: local paths, ``file://``, ``gs://``, ``s3://``, ``hdfs://``, ``http(s)://``.

Every file of a build is opened, listed and published through this package, as it is stored: nothing
is decompressed by its suffix. Folders and names are taken literally; only `match` and `matches`
understand patterns.

How a file becomes visible, and what a failure leaves behind:

=================  ===========================================  ===============================
where              on success                                   on an exception, or a killed
                                                                worker
=================  ===========================================  ===============================
local path         temporary name, fsync, rename: atomic        old file untouched; a kill
                                                                leaves ``.NAME.tmp-…``, see
                                                                `sweep_temporaries`
``hdfs://``        temporary name, rename over the old file     as above
``gs://`` ``s3://``  one upload, visible when it is finished    old object untouched: the upload
                                                                is aborted, never finished
``http(s)://``     reading only
=================  ===========================================  ===============================

A worker that is killed during a large upload leaves its parts on ``gs://`` or ``s3://``. They are
invisible but billed until a lifecycle rule of the bucket (AbortIncompleteMultipartUpload) deletes
them.

Clients: obstore for object stores (extras ``gcp`` and ``aws``), requests for the others. They are
imported when the first such path is used.
"""

import concurrent.futures
import contextlib
import functools
import importlib
import io
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, TypeVar, cast

from pipelines.storage.local import Local
from pipelines.storage.options import use_options
from pipelines.storage.paths import (
    FileInfo,
    NoInputError,
    is_local,
    is_temporary,
    join,
    last_part,
    local_path,
    scheme,
)
from pipelines.storage.patterns import compile_pattern, in_parallel

__all__ = [
    "READS_AT_A_TIME",
    "FileInfo",
    "NoInputError",
    "changed_since",
    "copy_files",
    "create_if_absent",
    "exists",
    "folders",
    "is_local",
    "join",
    "last_part",
    "listdir",
    "local_path",
    "map_ahead",
    "match",
    "matches",
    "open_raw",
    "read_bytes",
    "read_if_exists",
    "read_range",
    "remove",
    "scheme",
    "sizes",
    "stat",
    "sweep_temporaries",
    "times",
    "use_options",
    "walk",
    "write_atomically",
    "write_bytes",
]

_REMOTE = {
    "gs": ("objects", "Objects", "gs"),
    "s3": ("objects", "Objects", "s3"),
    "hdfs": ("hdfs", "Hdfs"),
    "http": ("web", "Web"),
    "https": ("web", "Web"),
}
_LOCAL = Local()
_ANY = re.compile(".*", re.DOTALL)
_COPY_BYTES = 4 << 20
_COPIES_AT_A_TIME = 8  # each holds up to three parts of 16 MB
#: Reads that `map_ahead` has under way.
READS_AT_A_TIME = 8
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@functools.cache
def _remote(scheme: str) -> Any:
    if scheme not in _REMOTE:
        known = " ".join(f"{name}://" for name in ("file", *_REMOTE))
        raise ValueError(f"{scheme}:// is not supported: give a local path or one with {known}")
    module, name, *arguments = _REMOTE[scheme]
    return getattr(importlib.import_module(f"pipelines.storage.{module}"), name)(*arguments)


def _system(path: str) -> tuple[Any, str]:
    """Return the file system of a path, and the path in the form that this system takes."""
    if is_local(path):
        return _LOCAL, local_path(path)
    return _remote(scheme(path)), path


def open_raw(path: str, scattered: bool = False) -> BinaryIO:
    """Open a file for reading its bytes as they are stored, whatever its suffix says.

    Args:
        path: The file.
        scattered: Whether small parts of it will be read, its end first. A remote file is then
            fetched in ranges of at least 64 kB, otherwise in ranges of 16 MB or as one stream.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    system, name = _system(path)
    return cast(BinaryIO, system.open(name, scattered))


def read_bytes(path: str) -> bytes:
    """Return all bytes of a file.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    with open_raw(path) as file, _naming(path):
        return file.read()


def read_if_exists(path: str) -> bytes:
    """Return all bytes of a file, or no bytes if there is no such file.

    Raises:
        OSError: The file is there and cannot be read.
    """
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return b""


def read_range(path: str, start: int, length: int) -> bytes:
    """Return ``length`` bytes from ``start`` on, fewer at the end of the file.

    One request where the file is an object; elsewhere the file is opened.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    system, name = _system(path)
    if hasattr(system, "read_range"):
        return cast(bytes, system.read_range(name, start, length))
    with open_raw(path, scattered=True) as file, _naming(path):
        file.seek(start)
        return file.read(length)


def exists(path: str) -> bool:
    """Return whether a file, or on a file system with folders a folder, has this name."""
    system, name = _system(path)
    return bool(system.exists(name))


def stat(path: str) -> FileInfo:
    """Return the size of a file and the identity of its content; its path has no ``file://``.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file system cannot be reached, or refuses access.
    """
    system, name = _system(path)
    return cast(FileInfo, system.stat(name))


def create_if_absent(path: str, content: bytes) -> bool:
    """Create a file with this content, in one atomic step, and return True unless it exists.

    Parent folders are created. Of several callers exactly one gets True. If an answer of the server
    is lost and the client retries, it may be that none does: a caller that puts something unique
    into the content can recognise its own file.

    Raises:
        OSError: The file cannot be written.
    """
    system, name = _system(path)
    with _naming(path):
        return bool(system.create_if_absent(name, content))


def match(patterns: str | Iterable[str]) -> list[FileInfo]:
    """Find input files by name or pattern.

    Args:
        patterns: Paths or patterns: ``*`` and ``?`` within a folder, ``**`` across folders,
            ``[abc]``. A local path that exists is taken literally. ``http://`` and ``https://``
            do not support patterns.

    Returns:
        A `FileInfo` of every file, sorted by path, each file once; paths are without
        ``file://``. Leftovers of killed writers are left out.

    Raises:
        NoInputError: A pattern names no file. Every pattern must find at least one: a mistyped one
            among several would otherwise shrink a corpus silently.
        OSError: A pattern matches something unreadable, or has to look into it: an unreadable
            folder, a dangling link, a FIFO.
    """
    found: dict[str, FileInfo] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        system, name = _system(pattern)
        files = [file for file in system.match(name) if not is_temporary(last_part(file.path))]
        if not files:
            raise NoInputError(
                f"no input file matches {pattern!r}; check the path, and quote the pattern so that "
                "the shell leaves it alone (--input)"
            )
        for file in files:
            found.setdefault(os.path.abspath(file.path) if system is _LOCAL else file.path, file)
    return sorted(found.values())


def matches(pattern: str, path: str) -> bool:
    """Return whether a pattern matches a path, without looking for files.

    Raises:
        NoInputError: The pattern is not valid.

    >>> matches("gs://bucket/**.gz", "gs://bucket/a/b.gz"), matches("/a/*.gz", "/a/b/c.gz")
    (True, False)
    """
    return compile_pattern(pattern).fullmatch(path) is not None


def listdir(folder: str) -> list[str]:
    """Return names of the files directly in a folder, sorted, without leftover temporaries.

    A missing folder counts as empty, since object stores have no empty folders.
    """
    system, name = _system(folder)
    return sorted(found for found in system.names(name) if not is_temporary(found))


def sizes(folder: str) -> dict[str, int]:
    """Return the size of each file directly in a folder, by name, from one listing.

    A missing folder counts as empty.
    """
    system, name = _system(folder)
    return {found: n_bytes for found, n_bytes, _ in system.listdir(name)}


def folders(folder: str) -> list[str]:
    """Return names of the folders directly in a folder, sorted.

    A missing folder counts as empty.
    """
    system, name = _system(folder)
    return sorted(
        last_part(found.rstrip("/")) for found in system.folders(f"{name.rstrip('/')}/", _ANY)
    )


def walk(folder: str) -> dict[str, int]:
    """Return the size of every file below a folder, by its path relative to the folder.

    A missing folder counts as empty. Leftovers of killed writers are left out.
    """
    system, name = _system(folder)
    top = f"{name.rstrip('/')}/"
    return {file.path.removeprefix(top): file.size for file in system.below(top, _ANY)}


def copy_files(pairs: Iterable[tuple[str, str]]) -> None:
    """Copy files, from the first path of each pair to the second, some at a time.

    Each appears under its name when it is whole, as with `write_atomically`.

    Raises:
        OSError: A file cannot be read or written. Others may have been copied.
    """

    def copy(pair: tuple[str, str]) -> None:
        with open_raw(pair[0]) as source, write_atomically(pair[1]) as target:
            while data := source.read(_COPY_BYTES):
                target.write(data)

    with concurrent.futures.ThreadPoolExecutor(_COPIES_AT_A_TIME) as pool:
        for _ in pool.map(copy, list(pairs)):
            pass


def changed_since(folder: str, when: float) -> list[str]:
    """Return names of the files directly in a folder that were written after ``when`` (Unix, s).

    Times are those of the file system. If it has none, every file is returned.
    """
    return sorted(name for name, changed in times(folder).items() if changed >= when)


def times(folder: str) -> dict[str, float]:
    """Return when each file directly in a folder was last written (Unix, s), by name.

    Times are those of the file system; infinity if it has none.
    """
    system, name = _system(folder)
    return {found: changed for found, _, changed in system.listdir(name) if not is_temporary(found)}


def map_ahead(
    call: Callable[[_Item], _Result], items: Iterable[_Item], path: str
) -> Iterator[_Result]:
    """Yield what a function returns for every item, in order.

    Where ``path`` is remote, up to READS_AT_A_TIME calls are under way at once: each waits for a
    server most of the time.
    """
    if is_local(path):
        yield from map(call, items)
        return
    with concurrent.futures.ThreadPoolExecutor(READS_AT_A_TIME) as pool:
        waiting: deque[concurrent.futures.Future[_Result]] = deque()
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) == READS_AT_A_TIME:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


def remove(paths: Iterable[str]) -> None:
    """Delete files. A missing file is ignored; a folder is an error.

    Raises:
        OSError: A file exists and cannot be deleted.
    """
    remote: dict[int, tuple[Any, list[str]]] = {}
    for path in paths:
        system, name = _system(path)
        if system is _LOCAL:
            system.remove(name)
        else:
            remote.setdefault(id(system), (system, []))[1].append(name)
    for system, names in remote.values():
        in_parallel(system, names, system.remove)


def sweep_temporaries(folder: str) -> int:
    """Remove the temporary files of killed writers from a folder, and return their number.

    Call this only while nothing writes to the folder: the temporaries of a live writer look the
    same.
    """
    system, name = _system(folder)
    leftovers = [join(folder, found) for found in system.names(name) if is_temporary(found)]
    remove(leftovers)
    return len(leftovers)


@contextlib.contextmanager
def write_atomically(path: str, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a binary file that appears under its name only if the block ends without an exception.

    Parent folders are created. Closing the file inside the block does not publish it. The table in
    this module's docstring lists what each file system guarantees.

    Args:
        path: The final name. An existing file is replaced.
        durable: Whether a local file must survive a loss of power, which takes a disk some time.

    Yields:
        A file with ``write``, ``tell``, ``flush``; neither readable nor seekable.

    Raises:
        OSError: Writing failed, for example on a full disk; ``filename`` is ``path``.
    """
    system, name = _system(path)
    with _naming(path):
        local = system is _LOCAL
        output = _LOCAL.open_output(name, durable) if local else system.open_output(name)
    file = _Output(output, path)
    try:
        yield cast(BinaryIO, file)
        with _naming(path):
            output.finish()
    except BaseException:
        output.abandon()
        raise


def write_bytes(path: str, content: bytes) -> None:
    """Write a file of this content, as `write_atomically` does."""
    with write_atomically(path) as file:
        file.write(content)


class _Output(io.BufferedIOBase):
    """The file that `write_atomically` yields. Its errors name the final path."""

    def __init__(self, output: Any, path: str) -> None:
        self._output = output
        self._path = path
        self._n_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError(f"write to {self._path} after close")
        n_bytes = memoryview(data).nbytes
        if n_bytes:
            with _naming(self._path):
                self._output.write(data)
            self._n_bytes += n_bytes
        return n_bytes

    def tell(self) -> int:
        return self._n_bytes


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Make an `OSError` name this file instead of its temporary."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename == path:
            raise
        raise OSError(error.errno, error.strerror or str(error), path) from error
