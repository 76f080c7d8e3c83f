"""A web server on loopback that serves what a test gives it, well or badly."""

import contextlib
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import pytest

from pipelines.storage import manners
from testing.fake_object_store import FakeStore, XmlInterface, serving


class Answer(NamedTuple):
    """An answer that a test gives in place of the file."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""
    #: None: that of the body. Another length is sent as it is; -1 sends none, then the connection
    #: is closed at the end of the body.
    length: int | None = None


class FakeWeb(FakeStore):
    """Files by their path on the server, such as ``/crawl/a.gz``."""

    scheme = "http"

    def __init__(self) -> None:
        super().__init__(page_size=0)
        self.knows_ranges = True
        self.knows_head = True
        self.tells_validators = True
        self.weak = True  # validators
        self.breaks_after: int | None = None  # bytes of an answer, then the connection is cut
        self.breaks = 0  # times that it does so
        #: asked before each answer, with path and headers; an Answer is sent in place of the file
        self.replace: Callable[[str, Mapping[str, str]], Answer | None] = lambda path, headers: None
        self.asked: Counter[str] = Counter()  # GET requests, by path
        self.sent: Counter[str] = Counter()  # bytes of bodies, by path
        self.at_once = self.most_at_once = 0  # requests
        self.block = 1 << 30  # bytes of a body that are sent at once
        #: called after each block with the path and the position in the file that was sent
        self.after_block: Callable[[str, int], None] = lambda path, position: None


@contextlib.contextmanager
def fake_web() -> Iterator[FakeWeb]:
    """A server; its address is ``address`` of what the block gets."""
    store = FakeWeb()
    with serving(store, _Handler):
        yield store


class SkippedWaits:
    """Makes the waits of `pipelines.storage.manners` take no time, and keeps them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits: list[float] = []
        self._clock = manners._clock
        monkeypatch.setattr(manners, "_clock", lambda: self._clock() + sum(self.waits))
        monkeypatch.setattr(manners, "_sleep_until_stopped", self._skip)

    def _skip(self, stop: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        return stop.is_set()


class _Handler(XmlInterface):
    store: FakeWeb

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client that was killed
            super().handle()

    def answer(self) -> None:
        store = self.store
        with store.lock:
            store.at_once += 1
            store.most_at_once = max(store.most_at_once, store.at_once)
        try:
            self._answer()
        finally:
            with store.lock:
                store.at_once -= 1

    def _answer(self) -> None:
        store = self.store
        with store.lock:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            store.requests[self.command] += 1
            store.seen_headers.append(dict(self.headers))
            if self.command == "GET":
                store.asked[path] += 1
            content = store.objects.get(path)
            status = store.fail(self.command, path)
            if status is not None:
                self.send(status, b"")
                return
            if self.command == "HEAD" and not store.knows_head:
                self.send(405, b"")
                return
            given = store.replace(path, self.headers) if self.command == "GET" else None
            if given is not None:
                self._send_answer(given)
                return
            if content is None:
                self.send(404, b"no such file")
                return
            headers = {"Content-Type": "application/gzip"}
            if store.tells_validators:
                headers["ETag"] = f'{"W/" if store.weak else ""}"{hash(content) & 0xFFFFFFFF:x}"'
            first, last = 0, len(content)
            wanted = self.asked_range(len(content))
            same = self.headers.get("If-Range") in (None, headers.get("ETag"))
            if wanted and store.knows_ranges and same:
                first, last = wanted
                if first >= len(content):
                    self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                    return
                headers["Content-Range"] = f"bytes {first}-{last - 1}/{len(content)}"
            part = content[first:last]
            self.send_head(206 if "Content-Range" in headers else 200, headers, len(part))
            if self.command == "HEAD":
                return
            if store.breaks_after is not None and store.breaks:
                store.breaks -= 1
                part = part[: store.breaks_after]
                self.close_connection = True
        self._send_body(path, first, part)
        if self.close_connection:
            self.connection.close()

    def _send_body(self, path: str, first: int, part: bytes) -> None:
        store = self.store
        for start in range(0, len(part), store.block):
            block = part[start : start + store.block]
            try:
                self.wfile.write(block)
            except OSError:  # the client has gone
                self.close_connection = True
                return
            with store.lock:
                store.bytes_sent += len(block)
                store.sent[path] += len(block)
            store.after_block(path, first + start + len(block))

    def _send_answer(self, given: Answer) -> None:
        length = len(given.body) if given.length is None else given.length
        self.send_head(given.status, given.headers, length)
        with contextlib.suppress(OSError):
            self.wfile.write(given.body)
        if length != len(given.body):
            self.close_connection = True
