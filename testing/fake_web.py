"""A web server on loopback that serves what a test gives it, well or badly."""

import contextlib
import re
import urllib.parse
from collections.abc import Iterator

from testing.fake_object_store import FakeStore, XmlInterface, serving


class FakeWeb(FakeStore):
    """Files by their path on the server, such as ``/crawl/a.gz``."""

    scheme = "http"

    def __init__(self) -> None:
        super().__init__(page_size=0)
        self.knows_ranges = True
        self.knows_head = True
        self.tells_validators = True
        self.breaks_after: int | None = None  # bytes of an answer, then the connection is cut
        self.breaks = 0  # times that it does so


@contextlib.contextmanager
def fake_web() -> Iterator[FakeWeb]:
    """A server; its address is ``address`` of what the block gets."""
    store = FakeWeb()
    with serving(store, _Handler):
        yield store


class _Handler(XmlInterface):
    store: FakeWeb

    def answer(self) -> None:
        store = self.store
        with store.lock:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            store.requests[self.command] += 1
            content = store.objects.get(path)
            status = store.fail(self.command, path)
            if status is not None:
                self.send(status, b"")
                return
            if self.command == "HEAD" and not store.knows_head:
                self.send(405, b"")
                return
            if content is None:
                self.send(404, b"no such file")
                return
            headers = {"Content-Type": "application/gzip"}
            if store.tells_validators:
                headers["ETag"] = f'W/"{hash(content) & 0xFFFFFFFF:x}"'
            first, last = 0, len(content)
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted and store.knows_ranges:
                first, last = int(wanted[1]), min(last, int(wanted[2] or last) + 1)
                if first >= len(content):
                    self.send(416, b"")
                    return
                headers["Content-Range"] = f"bytes {first}-{last - 1}/{len(content)}"
            part = content[first:last]
            self.send_response(206 if "Content-Range" in headers else 200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if store.breaks_after is not None and store.breaks:
                store.breaks -= 1
                part = part[: store.breaks_after]
                self.close_connection = True
            store.bytes_sent += len(part)
        self.wfile.write(part)
        if self.close_connection:
            self.connection.close()
