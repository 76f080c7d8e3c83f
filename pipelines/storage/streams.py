"""Remote files as streams: reading in ranges, and uploading while the content is produced."""

import concurrent.futures
import contextlib
import io
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

SEQUENTIAL_BYTES = 16 << 20  # fetched at a time when a file is read from beginning to end
SCATTERED_BYTES = 64 << 10  # fetched at a time when small parts of it are read
AHEAD_BYTES = 4 << 20  # fetched at a time where a range was announced


class RangeFile(io.BufferedIOBase):
    """A file of known size that is read in ranges, one request per range.

    Args:
        fetch: Returns ``length`` bytes from ``start``. It is called only for ranges in the file.
        size: Bytes in the file.
        block: Bytes to fetch at a time, at least.
        kept: A part of the file that has been fetched already.
        kept_from: Where that part begins.
        ahead: Whether to fetch the next block, in a thread, once half of this one is read.
    """

    def __init__(
        self,
        fetch: Callable[[int, int], bytes],
        size: int,
        block: int,
        kept: bytes = b"",
        kept_from: int = 0,
        ahead: bool = False,
    ) -> None:
        self._fetch, self._size, self._block = fetch, size, block
        self._fetcher = concurrent.futures.ThreadPoolExecutor(1) if ahead else None
        self._coming: tuple[int, concurrent.futures.Future[bytes]] | None = None
        self._kept, self._kept_from = kept, kept_from
        self._at = 0
        self._expected = (0, 0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position without a request."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def expect(self, start: int, end: int) -> None:
        """Announce that all bytes of a range are read next, so that they are fetched together.

        What was fetched before is freed. An empty range announces nothing.
        """
        self._expected = (start, end)
        self._kept = b""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return that many bytes, fewer only at the end of the file."""
        if self.closed:
            raise ValueError("read of closed file")
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        begin = self._at - self._kept_from
        found = self._kept[begin : begin + wanted] if 0 <= begin < len(self._kept) else b""
        self._at += len(found)
        while missing := wanted - len(found):
            self._kept, self._kept_from = self._next(missing), self._at
            part = self._kept[:missing]
            found = found + part if found else part
            self._at += len(part)
        if self._fetcher is not None and self._coming is None:
            passed, end = self._at - self._kept_from, self._kept_from + len(self._kept)
            if passed > len(self._kept) // 2 and (length := min(self._block, self._size - end)):
                self._coming = end, self._fetcher.submit(self._range, end, length)
        return found

    def close(self) -> None:
        """Close the file, and wait for a request that is under way."""
        if self._fetcher is not None:
            self._fetcher.shutdown(cancel_futures=True)
        super().close()

    def _next(self, missing: int) -> bytes:
        """Return bytes from the position on, at least one and perhaps more than are missing."""
        coming, self._coming = self._coming, None
        if coming is not None and coming[0] == self._at:
            return coming[1].result()
        length = max(missing, self._block)
        if self._expected[0] <= self._at < self._expected[1]:
            length = max(length, min(self._expected[1] - self._at, AHEAD_BYTES))
        return self._range(self._at, min(length, self._size - self._at))

    def _range(self, start: int, length: int) -> bytes:
        fetched = self._fetch(start, length)
        if len(fetched) != length:
            raise EOFError(f"requested {length} bytes at {start}, received {len(fetched)}")
        return fetched

    def read1(self, size: int = -1, /) -> bytes:
        """Return at most that many bytes, with at most one request."""
        return self.read(self._block if size < 0 else size)


class _AbandonedError(Exception):
    """Ends an upload without completing it."""


class Upload:
    """An upload to a remote file.

    Content that fits into one part is sent at the end, in one request. Otherwise a thread uploads
    one part after the other. The file appears when `finish` returns, and never after `abandon`.

    Args:
        send_whole: Sends all bytes in one request.
        send_parts: Sends the parts that the iterator yields. It must abort the upload when the
            iterator raises.
        part: Bytes in a part.
    """

    def __init__(
        self,
        send_whole: Callable[[bytes], Any],
        send_parts: Callable[[Iterator[bytes]], Any],
        part: int,
    ) -> None:
        self._send_whole, self._send_parts, self._part = send_whole, send_parts, part
        self._buffer = bytearray()
        self._parts: queue.Queue[bytes | None] = queue.Queue(1)
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._abandoned = False

    def write(self, data: Any) -> int:
        """Add bytes. Raises the error of an earlier part, if its request failed."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), self._part):
            self._buffer += view[start : start + self._part]
            if len(self._buffer) > self._part:
                self._pass_on(bytes(self._buffer[: self._part]))
                del self._buffer[: self._part]
        return len(view)

    def finish(self) -> None:
        """Send the remaining bytes and make the file visible."""
        if self._thread is None:
            self._send_whole(bytes(self._buffer))
            return
        if self._buffer:
            self._pass_on(bytes(self._buffer))
        self._pass_on(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Abort the upload."""
        self._buffer.clear()
        self._abandoned = True
        if self._thread is not None:
            with contextlib.suppress(BaseException):  # the upload has failed already
                self._pass_on(None)
            self._thread.join()

    def _pass_on(self, part: bytes | None) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        while True:
            if self._failure is not None:
                raise self._failure
            try:
                self._parts.put(part, timeout=0.2)
            except queue.Full:
                continue
            return

    def _run(self) -> None:
        try:
            self._send_parts(self._all_parts())
        except BaseException as error:
            self._failure = error

    def _all_parts(self) -> Iterator[bytes]:
        while (part := self._parts.get()) is not None:
            if self._abandoned:
                break
            yield part
        if self._abandoned:
            raise _AbandonedError
