"""Files of a web server: ``http://`` and ``https://``, for reading only."""

import contextlib
import email.utils
import errno
import functools
import io
import re
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn, cast

from pipelines.storage.errors import as_oserror
from pipelines.storage.manners import Manners, Patience, refusal
from pipelines.storage.paths import FileInfo, NoInputError
from pipelines.storage.streams import SCATTERED_BYTES

if TYPE_CHECKING:
    import requests

_BUFFER_BYTES = 1 << 20
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_NO_RANGE = re.compile(r"bytes \*/(\d{1,18})")


@functools.cache
def shared_manners() -> Manners:
    """Return the connections of this process."""
    return Manners()


class Source(NamedTuple):
    """One version of a file on a server."""

    etag: str = ""  # as sent
    modified: str = ""  # as sent
    size: int | None = None  # bytes, if the server says

    @property
    def identity(self) -> str:
        """What changes with the content, see `FileInfo`; empty if the server does not say."""
        if self.etag:
            return f"etag:{self.etag.removeprefix('W/').strip(chr(34))}"
        with contextlib.suppress(ValueError):
            changed = email.utils.parsedate_to_datetime(self.modified)
            return f"mtime:{int(changed.timestamp()) * 10**9}"
        return ""

    @property
    def validator(self) -> str:
        """The value for ``If-Range``, which must not be weak (RFC 9110, 13.1.5)."""
        return self.modified if not self.etag or self.etag.startswith("W/") else self.etag


class Web:
    """A web server. It cannot list files, so every file must be named."""

    remote = True

    def stat(self, path: str) -> FileInfo:
        """Return size and identity of a file, with a HEAD request if the server allows it."""
        manners = shared_manners()
        patience = manners.patience(path)
        answer = manners.ask("HEAD", path, {}, patience)
        if answer.status_code in (403, 405, 501):  # some servers refuse HEAD but allow GET
            answer.close()
            answer = manners.ask("GET", path, {"Range": "bytes=0-0"}, patience)
        with contextlib.closing(answer):
            if answer.status_code not in (200, 206):
                raise refusal(answer, path)
            source = _source(answer)
            if source.size is None:
                raise OSError(errno.EIO, "the server does not report the size of the file", path)
            return FileInfo(path, source.size, source.identity)

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        try:
            self.stat(path)
        except FileNotFoundError:
            return False
        return True

    def open(self, path: str, scattered: bool) -> BinaryIO:
        """Open a file for reading, as one stream, or in ranges of 64 kB if ``scattered``."""
        stream = WebFile(path, block=SCATTERED_BYTES if scattered else None)
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


class WebFile(io.RawIOBase):
    """A file read as one transfer, which restarts after a seek or a broken connection.

    Attributes:
        source: The version of the file that is read.
    """

    def __init__(
        self,
        path: str,
        *,
        block: int | None = None,
        manners: Manners | None = None,
        start: int = 0,
        source: Source | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Ask for the file.

        Args:
            path: Its address.
            block: Bytes to ask for at a time; None: all.
            manners: The connections of the run; None: those of the process.
            start: Where to begin.
            source: The version of which the bytes before ``start`` are.
            patience: Counts the retries of the file; None: from here on.

        Raises:
            OSError: There is no such file, it cannot be read, or it has changed (``ESTALE``).
        """
        self._path = path
        self._block = block
        self._manners = manners or shared_manners()
        self._patience = patience or self._manners.patience(path)
        self._at = self._expected = start
        self._end: int | None = None  # of the range that is being sent
        self._answer: requests.Response | None = None
        self._size = source.size if source else None
        self.source = source
        self._connect()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position without a request, unless the size must be asked for."""
        if whence == io.SEEK_END and self._size is None:
            self._size = Web().stat(self._path).size
        base = (0, self._at, self._size or 0)[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes, as many as have arrived; resume the transfer if it breaks."""
        view = memoryview(buffer).cast("B")
        while self._size is None or self._at < self._size:
            if self._answer is None or self._at != self._expected:
                self._connect()
                continue
            data = self._received(len(view))
            if data is None:
                continue
            if data:
                self._patience.progressed()
                view[: len(data)] = data
                self._at += len(data)
                self._expected = self._at
                return len(data)
            self._disconnect()
            if self._at == self._end:
                continue  # of a part of the file
            if self._size is None:
                self._size = self._at
            else:
                self._patience.fault(f"the transfer ends at byte {self._at:,} of {self._size:,}")
        return 0

    def close(self) -> None:
        """End the transfer."""
        self._disconnect()
        super().close()

    def _received(self, size: int) -> bytes | None:
        """Return the bytes that arrive next, none at the end; None if the transfer broke."""
        answer = cast(Any, self._answer)
        try:
            return cast(bytes, answer.raw.read1(size, decode_content=False))
        except Exception as error:  # of three layers of clients
            self._disconnect()
            size_said = "an unknown size" if self._size is None else f"{self._size:,}"
            self._patience.fault(
                f"the transfer breaks at byte {self._at:,} of {size_said} "
                f"({as_oserror(error, self._path).strerror})"
            )
            return None

    def _disconnect(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _connect(self) -> None:
        """Ask for the bytes from here on."""
        self._disconnect()
        headers = {}
        if self._block is not None:
            headers["Range"] = f"bytes={self._at}-{self._at + self._block - 1}"
        elif self._at:
            headers["Range"] = f"bytes={self._at}-"
        if "Range" in headers and self.source is not None and self.source.validator:
            headers["If-Range"] = self.source.validator
        while True:
            answer = self._manners.ask("GET", self._path, headers, self._patience)
            if answer.status_code == 416 and headers:
                answer.close()
                if not self._at:  # an empty file has no first byte to request
                    headers = {}
                    continue
                self._end_here(answer)
                return
            if answer.status_code not in (200, 206):
                raise refusal(answer, self._path)
            if wrong := self._wrong_range(answer, "Range" in headers):
                answer.close()
                self._patience.fault(wrong)
                continue
            found = _source(answer)
            if self.source is not None and (
                found.identity != self.source.identity
                or (not found.identity and found.size != self.source.size)
            ):
                answer.close()
                raise self._changed()
            self.source, self._size, self._end = found, found.size, found.size
            if answer.status_code == 206 and self._block is not None:
                self._end = int(cast(Any, _RANGE.fullmatch(answer.headers["Content-Range"]))[2]) + 1
            self._answer = answer
            if answer.status_code == 206 or self._skip():
                self._expected = self._at
                return

    def _skip(self) -> bool:
        """Read to where we are, since the server does not support ranges; False if it breaks."""
        left = self._at
        while left and (skipped := self._received(min(left, _BUFFER_BYTES))):
            left -= len(skipped)
        if left and self._answer is not None:
            self._disconnect()
            self._patience.fault(f"the transfer ends before byte {self._at:,}")
        return self._answer is not None

    def _end_here(self, answer: "requests.Response") -> None:
        """Take the answer that the file has no byte where we are."""
        told = _NO_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        size, found = int(told[1]) if told else self._at, _source(answer)
        if self.source is not None and (
            found.identity not in ("", self.source.identity) or size < self._at
        ):
            raise self._changed()
        if size > self._at:
            self._patience.fault(f"the server refuses byte {self._at:,} of {size:,}")
            return
        self._size = size

    def _wrong_range(self, answer: "requests.Response", asked: bool) -> str:
        """Return why a partial answer is not the part that was asked for; empty if it is."""
        if answer.status_code == 200:
            return ""
        told = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if not asked or told is None:
            return "the server sends a part that was not asked for"
        first, last, size = int(told[1]), int(told[2]), told[3]
        length = answer.headers.get("Content-Length", str(last - first + 1))
        if (
            first != self._at
            or last < first
            or (size != "*" and last >= int(size))
            or length != str(last - first + 1)
        ):
            shown = answer.headers["Content-Range"][:60]
            return f"the server sends another part ({shown}) than the one from byte {self._at:,}"
        return ""

    def _changed(self) -> OSError:
        return OSError(errno.ESTALE, "changed while it was read", self._path)


def _source(answer: "requests.Response") -> Source:
    """Return the version of a file that an answer is about."""
    headers = answer.headers
    told = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    length, size = headers.get("Content-Length", "").strip(), None
    if told and told[3] != "*":
        size = int(told[3])
    elif answer.status_code == 200 and length.isascii() and length.isdecimal():
        size = int(length[:18])
    return Source(headers.get("ETag", "").strip(), headers.get("Last-Modified", "").strip(), size)
