"""Files of a folder, and members of the archives in it, read by name and never unpacked.

Archives come from strangers: links, absolute names and ``..`` are refused, members are read one by
one into anonymous temporary files, and the bytes that an archive may inflate to are bounded.
"""

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import os
import pathlib
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

# Text inflates to some 10 times its size, bombs to 1,000.
_MOST_RATIO = 100
_FREE_BYTES = 64 << 20
_IN_MEMORY = 1 << 20
_STREAMS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.GzipFile,
    ".tgz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".tbz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
_TARS = (".tar", ".tgz", ".tbz2", ".tar.gz", ".tar.bz2", ".tar.xz")
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    gzip.BadGzipFile,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # an encrypted member
)


class Files:
    """The files of a path by name: of a folder, an archive, or the file itself.

    A member of an archive is named ``ARCHIVE/MEMBER``. A compressed file keeps its name without
    the compression's ending.

    Raises ValueError for an archive that is damaged or refused, naming it and the member.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._open: dict[str, Callable[[], IO[bytes]]] = {}
        self._closing = contextlib.ExitStack()
        root = pathlib.Path(path)
        with contextlib.ExitStack() as failed:
            failed.push(self._closing)
            if root.is_dir():
                for folder, folders, names in os.walk(root):
                    folders.sort()
                    for name in sorted(names):
                        found = pathlib.Path(folder, name)
                        if not found.exists():
                            continue  # a link to nowhere
                        self._add(found, found.relative_to(root).as_posix())
            else:
                self._add(root, root.name)
            failed.pop_all()

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def names(self) -> list[str]:
        """All names, those of an archive in its own order."""
        return list(self._open)

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read its bytes, uncompressed."""
        return self._open[name]()

    def _add(self, path: pathlib.Path, name: str) -> None:
        if not stat.S_ISREG(path.stat().st_mode):
            return  # a pipe or a device would never end
        lower = name.lower()
        if lower.endswith(".zip"):
            self._add_zip(path, name)
        elif lower.endswith(_TARS):
            self._add_tar(path, name)
        elif (ending := pathlib.PurePath(lower).suffix) in _STREAMS:
            self._put(name[: -len(ending)], functools.partial(_inflated, path, ending))
        else:
            self._put(name, lambda: path.open("rb"))

    def _put(self, name: str, opener: Callable[[], IO[bytes]]) -> None:
        if name in self._open:
            raise ValueError(f"{name}: there are two files of that name")
        self._open[name] = opener

    def _add_zip(self, path: pathlib.Path, name: str) -> None:
        with _damage_named(path):
            archive = self._closing.enter_context(zipfile.ZipFile(path))
            members = archive.infolist()
            _check_size(path, sum(member.file_size for member in members))
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{path}: member {member.filename!r} is a link or a device")
            _check_name(path, member.orig_filename)
            if not member.is_dir():
                opener = functools.partial(archive.open, member)
                self._put(f"{name}/{member.filename}", functools.partial(_spooled, path, opener))

    def _add_tar(self, path: pathlib.Path, name: str) -> None:
        ending = pathlib.PurePath(name.lower()).suffix
        with _damage_named(path):
            plain = path.open("rb") if ending == ".tar" else _inflated(path, ending)
            archive = tarfile.open(fileobj=self._closing.enter_context(plain), mode="r:")  # noqa: SIM115
            members = list(archive)
            _check_size(path, sum(member.size for member in members))
        for member in members:
            _check_name(path, member.name)
            if member.isdir():
                continue
            if not member.isreg():
                raise ValueError(f"{path}: member {member.name!r} is a link or a device")
            opener: Any = functools.partial(archive.extractfile, member)
            self._put(f"{name}/{member.name}", functools.partial(_spooled, path, opener))


def _check_name(path: pathlib.Path, name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise ValueError(f"{path}: member {name!r} has an absolute name or leads outside")


def _limit(path: pathlib.Path) -> int:
    return _FREE_BYTES + _MOST_RATIO * path.stat().st_size


def _check_size(path: pathlib.Path, inflated: int) -> None:
    if inflated > _limit(path):
        raise ValueError(
            f"{path}: inflates to {inflated:,} bytes, over {_MOST_RATIO} times its size: "
            "if you trust it, unpack it and give the folder"
        )


@contextlib.contextmanager
def _damage_named(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ValueError(f"{path}: damaged or encrypted: {error}") from error


class _Bounded(io.RawIOBase):
    """A decompressed stream that fails once it is longer than its archive may inflate to."""

    def __init__(self, stream: IO[bytes], path: pathlib.Path) -> None:
        self._stream, self._path = stream, path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0:
            _check_size(self._path, offset)
        with _damage_named(self._path):
            return self._stream.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        with _damage_named(self._path):
            content = self._stream.read(len(buffer))
            _check_size(self._path, self._stream.tell())
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _inflated(path: pathlib.Path, ending: str) -> IO[bytes]:
    return io.BufferedReader(_Bounded(_STREAMS[ending](path), path), 1 << 16)


def _spooled(path: pathlib.Path, opener: Callable[[], IO[bytes]]) -> IO[bytes]:
    """Copy a member to a temporary file without a name: two members can then be read in turns."""
    with contextlib.ExitStack() as failed:
        spool = failed.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY))
        with _damage_named(path), opener() as member:
            shutil.copyfileobj(_Bounded(member, path), spool, 1 << 16)
        spool.seek(0)
        failed.pop_all()
    return spool
