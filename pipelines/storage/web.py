"""Files of a web server: ``http://`` and ``https://``, for reading only."""

import contextlib
import email.utils
import errno
import functools
import io
import re
import time
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

from pipelines.storage.errors import as_oserror, of_status
from pipelines.storage.paths import FileInfo, NoInputError
from pipelines.storage.streams import SCATTERED_BYTES

if TYPE_CHECKING:
    import requests

__all__ = ["Web", "new_session", "reason"]

_TIMEOUT_S = (10, 60)  # to connect, and between two reads
_BUFFER_BYTES = 1 << 20
_RESUMES = 5  # attempts in a row to resume a broken transfer
#: Request bytes as stored: a server might compress them again.
_HEADERS = {"Accept-Encoding": "identity"}
_OF_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


def new_session() -> "requests.Session":
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
    session.headers.update(_HEADERS)
    return session


@functools.cache
def _session() -> "requests.Session":
    return new_session()


class Web:
    """A web server. It cannot list files, so every file must be named."""

    remote = True

    def stat(self, path: str) -> FileInfo:
        """Return size and identity of a file, with a HEAD request if the server allows it."""
        answer = _ask("HEAD", path, {})
        if answer.status_code in (403, 405, 501):  # some servers refuse HEAD but allow GET
            answer = _ask("GET", path, {"Range": "bytes=0-0"})
        with contextlib.closing(answer):
            if answer.status_code not in (200, 206):
                raise of_status(answer.status_code, path)
            size = _size(answer)
            if size is None:
                raise OSError(errno.EIO, "the server does not report the size of the file", path)
            return FileInfo(path, size, _identity(answer))

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        try:
            self.stat(path)
        except FileNotFoundError:
            return False
        return True

    def open(self, path: str, scattered: bool) -> BinaryIO:
        """Open a file for reading, as one stream, or in ranges of 64 kB if ``scattered``."""
        stream = _WebFile(path, scattered)
        return cast(
            BinaryIO, io.BufferedReader(stream, SCATTERED_BYTES if scattered else _BUFFER_BYTES)
        )

    def match(self, pattern: str) -> list[FileInfo]:
        """Return the named file. Raises NoInputError for a pattern."""
        scheme, _, rest = pattern.partition("://")
        if set("*[]") & set(rest.partition("/")[2]):
            raise NoInputError(
                f"{pattern!r}: {scheme}:// cannot be listed, so patterns do not work there; name "
                "every file (--input)"
            )
        return [self.stat(pattern)] if self.exists(pattern) else []

    def _refuse(self, path: str, *_: Any) -> NoReturn:
        scheme = path.partition("://")[0]
        raise OSError(
            errno.EROFS,
            f"{scheme}:// supports only reading single files, not listing or writing",
            path,
        )

    listdir = names = remove = create_if_absent = open_output = _refuse


class _WebFile(io.RawIOBase):
    """A file read as one transfer, which restarts after a seek or a broken connection."""

    def __init__(self, path: str, scattered: bool) -> None:
        self._path = path
        self._block = SCATTERED_BYTES if scattered else None
        self._at = self._expected = 0
        self._answer: requests.Response | None = None
        self._size: int | None = None
        self._identity: str | None = None
        self._connect()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END and self._size is None:
            self._size = Web().stat(self._path).size
        base = (0, self._at, self._size or 0)[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes, and resume the transfer if it breaks."""
        view = memoryview(buffer).cast("B")
        for resumed in range(_RESUMES + 1):
            if self._size is not None and self._at >= self._size:
                return 0
            try:
                if self._answer is None or self._at != self._expected:
                    self._connect()
                data: bytes = cast(Any, self._answer).raw.read(len(view), decode_content=False)
            except Exception as error:
                if isinstance(error, OSError) and error.filename is not None:
                    raise  # raised here: the answer of the server is clear
                if resumed == _RESUMES:
                    raise as_oserror(error, self._path) from error
                self._disconnect()
                time.sleep(0.1 * 2**resumed)
                continue
            if not data and (self._size is not None and self._at < self._size):
                self._disconnect()  # the range has ended, or the transfer was cut
                continue
            view[: len(data)] = data
            self._at += len(data)
            self._expected = self._at
            return len(data)
        raise OSError(errno.EIO, f"the transfer ended at {self._at} of {self._size}", self._path)

    def close(self) -> None:
        self._disconnect()
        super().close()

    def _disconnect(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _connect(self) -> None:
        self._disconnect()
        headers = {}
        if self._block is not None:
            headers["Range"] = f"bytes={self._at}-{self._at + self._block - 1}"
        elif self._at:
            headers["Range"] = f"bytes={self._at}-"
        answer = _ask("GET", self._path, headers, stream=True)
        if answer.status_code == 416:  # an empty file has no first byte to request
            answer.close()
            answer = _ask("GET", self._path, {}, stream=True)
        if answer.status_code not in (200, 206):
            answer.close()
            raise of_status(answer.status_code, self._path)
        identity = _identity(answer)
        if self._identity not in (None, identity):
            answer.close()
            raise OSError(errno.ESTALE, "changed while it was read", self._path)
        self._identity = identity
        self._size = _size(answer)
        if answer.status_code == 200:  # the server does not support ranges
            left = self._at
            while left and (skipped := answer.raw.read(min(left, 1 << 20), decode_content=False)):
                left -= len(skipped)
        self._answer, self._expected = answer, self._at


def _ask(
    method: str, path: str, headers: dict[str, str], stream: bool = True
) -> "requests.Response":
    import requests

    try:
        return _session().request(
            method, path, headers=headers, stream=stream, timeout=_TIMEOUT_S, allow_redirects=True
        )
    except requests.RequestException as error:
        raise OSError(errno.EIO, reason(error), path) from error


def reason(error: Exception) -> str:
    """Return the innermost reason of a failed connection, without the layers around it."""
    inner: Any = error
    while inner.args and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    reason = getattr(inner, "reason", None)
    text = str(reason or inner)
    return f"the server cannot be reached: {' '.join(text.split())}"


def _size(answer: "requests.Response") -> int | None:
    found = _OF_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found:
        return int(found[2])
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and answer.status_code == 200 else None


def _identity(answer: "requests.Response") -> str:
    etag = answer.headers.get("ETag", "").strip()
    if etag:
        return f"etag:{etag.removeprefix('W/').strip(chr(34))}"
    with contextlib.suppress(ValueError):
        changed = email.utils.parsedate_to_datetime(answer.headers.get("Last-Modified", ""))
        return f"mtime:{int(changed.timestamp()) * 10**9}"
    return ""
