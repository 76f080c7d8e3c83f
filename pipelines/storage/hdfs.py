"""Files of a Hadoop cluster: ``hdfs://``, through the REST interface of its name node (WebHDFS).

A file is written under a temporary name and renamed, since HDFS shows unfinished files.
"""

import contextlib
import errno
import re
import threading
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pipelines.storage import options, patterns
from pipelines.storage.errors import of_status
from pipelines.storage.manners import reason, user_agent
from pipelines.storage.paths import FileInfo, folder_error, is_temporary, last_part, temporary_for
from pipelines.storage.streams import SCATTERED_BYTES, SEQUENTIAL_BYTES, RangeFile, Upload

if TYPE_CHECKING:
    import requests

_PART_BYTES = 1 << 20
_TIMEOUT_S = (10, 120)
_ERRNO_OF_EXCEPTION = {
    "FileNotFoundException": errno.ENOENT,
    "AccessControlException": errno.EACCES,
    "SecurityException": errno.EACCES,
    "FileAlreadyExistsException": errno.EEXIST,
    "ParentNotDirectoryException": errno.ENOTDIR,
    "PathIsNotEmptyDirectoryException": errno.ENOTEMPTY,
    "DSQuotaExceededException": errno.EDQUOT,
    "NSQuotaExceededException": errno.EDQUOT,
}
_of_thread = threading.local()


class Hdfs(patterns.Tree):
    """The file system of a Hadoop cluster."""

    def stat(self, path: str) -> FileInfo:
        """Return size and identity of a file or folder."""
        return _info(path, _json(path, "GET", "GETFILESTATUS")["FileStatus"])

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder of that name."""
        return self._status(path) is not None

    def open(self, path: str, scattered: bool) -> BinaryIO:
        """Open a file for reading, in ranges of 16 MB, or of 64 kB if ``scattered``."""
        found = _json(path, "GET", "GETFILESTATUS")["FileStatus"]
        if found["type"] == "DIRECTORY":
            raise IsADirectoryError(errno.EISDIR, "is a folder", path)
        return cast(
            BinaryIO,
            RangeFile(
                lambda start, length: (
                    _ask(path, "GET", "OPEN", offset=start, length=length).content
                ),
                found["length"],
                SCATTERED_BYTES if scattered else SEQUENTIAL_BYTES,
            ),
        )

    def entries(self, folder: str) -> list[patterns.Entry]:
        """Return files and folders directly in a folder."""
        try:
            found = _json(folder, "GET", "LISTSTATUS")["FileStatuses"]["FileStatus"]
        except FileNotFoundError:
            return []
        top = folder if folder.endswith("/") else f"{folder}/"
        return [
            patterns.Entry(
                _info(top + status["pathSuffix"], status),
                status["modificationTime"] / 1000,
                status["type"] == "DIRECTORY",
            )
            for status in found
            if status["pathSuffix"]  # for a file, the name node lists one entry without a name
        ]

    def remove(self, path: str) -> None:
        """Delete a file. A missing file is ignored; a folder is an error."""
        with contextlib.suppress(FileNotFoundError):
            found = self._status(path)
            if found is None:
                return
            if found["type"] == "DIRECTORY":
                raise IsADirectoryError(errno.EISDIR, "is a folder", path)
            _json(path, "DELETE", "DELETE", recursive="false")

    def create_if_absent(self, path: str, content: bytes) -> bool:
        """Create a file unless it exists, by renaming a complete temporary without overwriting."""
        if self.exists(path):
            return False
        temporary = temporary_for(path)
        try:
            _create(temporary, content)
            if _rename(temporary, path):
                return True
            if not self.exists(path):
                raise OSError(errno.EIO, "the name node did not rename the file", path)
            return False
        finally:
            with contextlib.suppress(OSError):
                self.remove(temporary)

    def open_output(self, path: str) -> "_HdfsOutput":
        """Start a file that appears under its name when it is finished."""
        return _HdfsOutput(self, path)

    # --- patterns

    def match(self, pattern: str) -> list[FileInfo]:
        """Find files by name or pattern."""
        if not patterns.has_magic(pattern):
            status = self._status(pattern)
            if status is not None and status["type"] == "DIRECTORY":
                raise folder_error(pattern)
            return [] if status is None else [_info(pattern, status)]
        root = "hdfs://"
        if options.settings().hdfs_full_urls:
            root += pattern.removeprefix(root).partition("/")[0] + "/"
        return list(patterns.expand(self, root, pattern.removeprefix(root)))

    def find(self, path: str) -> FileInfo | None:
        """Return the file of that name, or None."""
        status = self._status(path)
        return None if status is None or status["type"] == "DIRECTORY" else _info(path, status)

    def below(self, folder: str, wanted: re.Pattern[str]) -> list[FileInfo]:
        """Return all wanted files below a folder."""
        return list(self._below(folder, "", wanted))

    def _below(self, top: str, inside: str, wanted: re.Pattern[str]) -> Iterator[FileInfo]:
        for file, _, is_folder in self.entries(top + inside):
            relative = inside + last_part(file.path)
            if is_folder:
                yield from self._below(top, f"{relative}/", wanted)
            elif wanted.fullmatch(relative) and not is_temporary(last_part(file.path)):
                yield file

    def _status(self, path: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = _json(path, "GET", "GETFILESTATUS")["FileStatus"]
        except FileNotFoundError:
            return None
        return found


class _HdfsOutput(Upload):
    """An upload under a temporary name."""

    def __init__(self, files: Hdfs, path: str) -> None:
        self._files, self._path, self._temporary = files, path, temporary_for(path)
        super().__init__(
            lambda content: _create(self._temporary, content),
            lambda parts: _create(self._temporary, parts),
            _PART_BYTES,
        )

    def finish(self) -> None:
        """Complete the upload and give the file its name."""
        super().finish()
        if not _rename(self._temporary, self._path, "OVERWRITE"):
            # The gateway (HttpFS) does not support overwriting.
            self._files.remove(self._path)
            if not _rename(self._temporary, self._path):
                raise OSError(errno.EIO, "the name node did not rename the file", self._path)

    def abandon(self) -> None:
        """Abandon the upload and remove its temporary file."""
        super().abandon()
        with contextlib.suppress(OSError):
            self._files.remove(self._temporary)


def _create(path: str, content: bytes | Iterable[bytes]) -> None:
    """Write a new file to the data node that the name node assigns."""
    answer = _ask(path, "PUT", "CREATE", overwrite="false", redirects=False)
    where = answer.headers.get("Location")
    if not where:
        raise OSError(errno.EIO, "the name node assigned no data node for writing", path)
    sent = _send(
        path, "PUT", where, {}, data=content, headers={"Content-Type": "application/octet-stream"}
    )
    _raise_for(sent, path)


def _rename(source: str, target: str, how: str | None = None) -> bool:
    """Rename a file. Without ``how``, return False if the target exists."""
    query: dict[str, Any] = {} if how is None else {"renameoptions": how}
    answer = _ask(source, "PUT", "RENAME", destination=_name_in(target), **query)
    return not answer.content or answer.json().get("boolean") is not False


def _name_in(path: str) -> str:
    """Return the name of a file within its cluster."""
    settings = options.settings()
    if settings.hdfs_full_urls:
        return "/" + path.removeprefix("hdfs://").partition("/")[2]
    return "/" + path.removeprefix("hdfs://").lstrip("/")


def _json(path: str, method: str, operation: str, **query: Any) -> dict[str, Any]:
    return cast(dict[str, Any], _ask(path, method, operation, **query).json())


def _ask(
    path: str, method: str, operation: str, redirects: bool = True, **query: Any
) -> "requests.Response":
    settings = options.settings()
    if not (settings.hdfs_host and settings.hdfs_port and settings.hdfs_user):
        raise ValueError("hdfs:// needs --hdfs_host, --hdfs_port and --hdfs_user")
    name = urllib.parse.quote(_name_in(path).rstrip("/") or "/", errors="surrogateescape")
    where = f"http://{settings.hdfs_host}:{settings.hdfs_port}/webhdfs/v1{name}"
    query = {"op": operation, "user.name": settings.hdfs_user, **query}
    answer = _send(path, method, where, query, allow_redirects=redirects)
    _raise_for(answer, path)
    return answer


def _new_session() -> "requests.Session":
    """Return a session that retries when a server is busy or a connection breaks."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    session = requests.Session()
    retries = Retry(
        total=5,
        connect=3,
        backoff_factor=0.5,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=frozenset({"GET", "HEAD"}),
        raise_on_status=False,
    )
    for prefix in ("http://", "https://"):
        session.mount(prefix, HTTPAdapter(max_retries=retries, pool_maxsize=32))
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": user_agent()})
    return session


def _send(
    path: str, method: str, where: str, query: dict[str, Any], **more: Any
) -> "requests.Response":
    import requests

    if not hasattr(_of_thread, "session"):
        _of_thread.session = _new_session()
    try:
        answer: requests.Response = _of_thread.session.request(
            method, where, params=query, timeout=_TIMEOUT_S, **more
        )
    except requests.RequestException as error:
        raise OSError(errno.EIO, reason(error), path) from error
    return answer


def _raise_for(answer: "requests.Response", path: str) -> None:
    if answer.status_code < 400:
        return
    try:
        remote = answer.json()["RemoteException"]
        kind, line = remote["exception"], str(remote["message"]).splitlines()[0]
    except (ValueError, KeyError, TypeError, IndexError):
        raise of_status(answer.status_code, path) from None
    number = _ERRNO_OF_EXCEPTION.get(kind)
    if number == errno.ENOENT:
        raise of_status(404, path)
    raise OSError(number or errno.EIO, f"{kind}: {line}", path)


def _info(path: str, status: dict[str, Any]) -> FileInfo:
    return FileInfo(path, status["length"], f"mtime:{status['modificationTime'] * 10**6}")
