"""Files of this machine."""

import contextlib
import errno
import os
import re
import stat as modes
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.printing import print_note
from pipelines.storage import patterns
from pipelines.storage.paths import (
    FileInfo,
    NoInputError,
    folder_error,
    is_temporary,
    temporary_for,
)

#: Errors of `os.link` on file systems without hard links.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
_MISSING = (FileNotFoundError, NotADirectoryError)
_RECOVERED = "lost+found"  # made by mkfs for fsck, readable by root only


class Local(patterns.Tree):
    """The file system of this machine. Dangling links and unreadable folders are errors."""

    remote = False

    def stat(self, path: str) -> FileInfo:
        """Return size and identity of a file or folder."""
        return _info(path, os.stat(path))

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder of that name."""
        try:
            os.stat(path)
        except (*_MISSING, ValueError):  # ValueError: no file has NUL in its name
            return False
        return True

    def open(self, path: str, scattered: bool) -> BinaryIO:
        """Open a file for reading."""
        del scattered
        return _open_regular(path)

    def entries(self, folder: str) -> list[patterns.Entry]:
        """Return files and folders directly in a folder, without dangling links."""
        listed = []
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            for each in entries:
                with contextlib.suppress(FileNotFoundError):  # removed since, or a dangling link
                    found = each.stat()
                    if modes.S_ISREG(found.st_mode) or modes.S_ISDIR(found.st_mode):
                        is_folder = modes.S_ISDIR(found.st_mode)
                        file = _info(each.path, found)
                        listed.append(patterns.Entry(file, found.st_mtime, is_folder))
        return listed

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in a folder, without a look at each."""
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_file()]
        return []

    def remove(self, path: str) -> None:
        """Delete a file. A missing file is ignored."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)

    def create_if_absent(self, path: str, content: bytes) -> bool:
        """Create a file unless it exists, by linking a complete temporary to its name."""
        os.makedirs(os.path.dirname(path) or os.curdir, exist_ok=True)
        temporary = temporary_for(path)
        try:
            with open(temporary, "xb") as file:
                _write_durably(file, content)
            try:
                os.link(temporary, path)
            except FileExistsError:
                # Over NFS the answer to a successful link may be lost, and the client then retries.
                return os.stat(temporary).st_nlink == 2
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return _create_exclusively(path, content)
            return True
        finally:
            self.remove(temporary)

    def open_output(self, path: str, durable: bool = True) -> "LocalOutput":
        """Open a file that appears under its name when it is finished."""
        return LocalOutput(path, durable)

    # --- patterns

    def match(self, pattern: str) -> list[FileInfo]:
        """Find files by a path that exists, or else by a pattern."""
        pattern = os.path.expanduser(pattern)
        try:
            found = os.stat(pattern)
        except (*_MISSING, ValueError):
            _refuse_dangling(pattern)
        except OSError as error:
            if not (error.errno == errno.ENAMETOOLONG and patterns.has_magic(pattern)):
                raise
        else:
            if modes.S_ISDIR(found.st_mode):
                raise folder_error(pattern)
            if not modes.S_ISREG(found.st_mode):
                raise NoInputError(
                    f"{pattern!r} is not a regular file; remove it from the inputs (--input)"
                )
            return [_info(pattern, found)]
        if not patterns.has_magic(pattern):
            return []
        rest = pattern.lstrip("/")
        root = "/" if rest != pattern else ""
        found_files = patterns.expand(self, root, rest)
        return [file._replace(path=os.path.normpath(file.path)) for file in found_files]

    def find(self, path: str) -> FileInfo | None:
        """Return the file of that name, or None."""
        try:
            found = os.stat(path)
        except _MISSING:
            _refuse_dangling(path)
            return None
        return _wanted_file(path, found)

    def files(self, folder: str, wanted: re.Pattern[str]) -> list[FileInfo]:
        """Return the wanted files directly in a folder."""
        return [
            file
            for name in _scan(folder)
            if wanted.fullmatch(name) and not is_temporary(name)
            if (file := self.find(folder + name)) is not None
        ]

    def folders(self, folder: str, wanted: re.Pattern[str]) -> list[str]:
        """Return the wanted folders directly in a folder, links to folders too."""
        return [
            folder + name
            for name in _scan(folder)
            if wanted.fullmatch(name) and _is_folder(folder + name)
        ]

    def below(self, folder: str, wanted: re.Pattern[str]) -> list[FileInfo]:
        """Return all wanted files below a folder. Links to folders are followed once."""
        try:
            found = os.stat(folder or os.curdir)
        except _MISSING:
            _refuse_dangling(folder)
            return []
        return list(self._below(folder, "", wanted, ((found.st_dev, found.st_ino),)))

    def _below(
        self, top: str, inside: str, wanted: re.Pattern[str], above: tuple[tuple[int, int], ...]
    ) -> Iterator[FileInfo]:
        for name in _scan(top + inside):
            path, relative = top + inside + name, inside + name
            is_wanted = wanted.fullmatch(relative) is not None and not is_temporary(name)
            try:
                found = os.stat(path)
            except _MISSING:
                if is_wanted:
                    _refuse_dangling(path)
                elif os.path.islink(path):  # to a folder, perhaps
                    print_note(f"c4: note: {path}: skipped, a dangling link to {os.readlink(path)}")
                continue
            if modes.S_ISDIR(found.st_mode):
                place = (found.st_dev, found.st_ino)
                if place not in above:
                    yield from self._below(top, f"{relative}/", wanted, (*above, place))
            elif is_wanted and (file := _wanted_file(path, found)) is not None:
                yield file


class LocalOutput:
    """A file under a temporary name."""

    def __init__(self, path: str, durable: bool) -> None:
        self._path = path
        self._durable = durable
        _require_replaceable(path)
        self._temporary = temporary_for(path)
        os.makedirs(os.path.dirname(path) or os.curdir, exist_ok=True)
        self._file = open(self._temporary, "wb")  # noqa: SIM115
        self.write = self._file.write

    def finish(self) -> None:
        """Make the bytes durable, if they must be, and give the file its name."""
        self._file.flush()
        if self._durable:
            os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self._path)

    def abandon(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            os.remove(self._temporary)


def _require_replaceable(path: str) -> None:
    """Raise OSError for what a file must not take the place of, such as ``/dev/null``."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # nothing is there, or making the file says what is wrong
    if modes.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not modes.S_ISREG(mode):
        raise OSError(
            errno.EINVAL, "a device or a pipe, which no file can replace: give another name", path
        )


def _info(path: str, found: os.stat_result) -> FileInfo:
    # Tools that copy files may set mtime back; only the kernel sets ctime.
    identity = f"mtime:{found.st_mtime_ns},ctime:{found.st_ctime_ns}"
    return FileInfo(path, found.st_size, identity)


def _wanted_file(path: str, found: os.stat_result) -> FileInfo | None:
    """Return a matched file, or None for a folder. Raises OSError for a FIFO and the like."""
    if modes.S_ISREG(found.st_mode):
        return _info(path, found)
    if modes.S_ISDIR(found.st_mode):
        return None
    raise OSError(
        errno.EINVAL,
        "not a regular file but a FIFO, socket or device: narrow the pattern or move it (--input)",
        path,
    )


def _open_regular(path: str) -> BinaryIO:
    """Open a file for reading. A FIFO is refused: it may wait for ever, and is read only once."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    found = os.fstat(file.fileno())
    if modes.S_ISREG(found.st_mode) or os.path.samestat(found, os.stat(os.devnull)):
        return file
    file.close()
    what = "not a regular file but a FIFO, socket or device: write it to a file first"
    raise OSError(errno.EINVAL, what, path)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _is_folder(path: str) -> bool:
    try:
        return modes.S_ISDIR(os.stat(path).st_mode)
    except _MISSING:
        _refuse_dangling(path)
        return False


def _scan(folder: str) -> list[str]:
    """Return all names in a folder, none if it is missing. Raises OSError if unreadable."""
    try:
        return os.listdir(folder or os.curdir)
    except _MISSING:
        _refuse_dangling(folder)
        return []
    except PermissionError:
        if os.path.basename(folder.rstrip("/")) != _RECOVERED:
            raise
        print_note(f"c4: note: {folder}: skipped, not readable")
        return []


def _refuse_dangling(path: str) -> None:
    """Raise OSError if a file or folder is missing because a link has no target.

    Otherwise the corpus would silently lack that input.
    """
    path = path.rstrip("/")
    while path and "\0" not in path and not os.path.exists(path):
        if os.path.islink(path):
            target = os.readlink(path)
            raise OSError(
                errno.ENOENT, f"a dangling link to {target}: repair or remove it (--input)", path
            )
        path = os.path.dirname(path)


def _write_durably(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _create_exclusively(path: str, content: bytes) -> bool:
    """Create a file without hard links. A reader may see it before it is complete."""
    try:
        file = open(path, "xb")  # noqa: SIM115
    except FileExistsError:
        return False
    try:
        with file:
            _write_durably(file, content)
    except BaseException:
        os.remove(path)
        raise
    return True
