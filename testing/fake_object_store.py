"""The XML interface of object stores, as far as a build needs it, on loopback.

S3 speaks it, and so does Google Cloud Storage beside its JSON. `fake_s3` is a server of its own;
`testing.fake_google_cloud` answers with the same `XmlInterface`. What is not understood is answered
with 501 and kept in ``refused``, so that a test fails instead of passing by luck.
"""

import contextlib
import hashlib
import http.server
import re
import threading
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.sax import saxutils

_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
_NAMED = re.compile(r"<PartNumber>(\d+)</PartNumber>")


class FakeStore:
    """Objects by path, and what was asked for."""

    scheme = "s3"

    def __init__(self, page_size: int) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()  # "GET object", "PUT object", "GET list", ...
        self.bytes_sent = 0
        self.refused: list[str] = []
        self.buckets = {"bucket"}
        #: asked before each answer, with the method and the address followed by the beginning of
        #: the body; a status returned here is the answer
        self.fail: Callable[[str, str], int | None] = lambda method, what: None
        self.page_size = page_size
        self.address = ""
        self.parts: dict[str, dict[int, bytes]] = {}  # of uploads that are not complete
        self.seen_headers: list[dict[str, str]] = []
        self.lock = threading.RLock()

    def names(self, prefix: str) -> list[str]:
        """Paths of the objects whose path begins so, sorted."""
        return sorted(path for path in self.objects if path.startswith(prefix))


class XmlInterface(http.server.BaseHTTPRequestHandler):
    """Answers requests for ``/BUCKET/KEY``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    store: FakeStore

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urllib.parse.urlsplit(self.path)
        with self.store.lock:
            self.store.seen_headers.append(dict(self.headers))
            status = self.store.fail(
                self.command, f"{urllib.parse.unquote(self.path)} {body[:400]!r}"
            )
            if status is not None:
                self.send(status, _error("AsTheTestAsked"))
                return
            self.route(url, body)

    def route(self, url: urllib.parse.SplitResult, body: bytes) -> None:
        bucket, _, key = urllib.parse.unquote(url.path).lstrip("/").partition("/")
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        path = f"{self.store.scheme}://{bucket}/{key}"
        if bucket not in self.store.buckets:
            self.send(404, _error("NoSuchBucket"))
        elif not key and self.command == "GET" and "list-type" in query:
            self.count("list")
            self.list_page(bucket, query)
        elif not key:
            self.refuse()
        elif self.command == "PUT" and "partNumber" in query:
            self.count("part")
            parts = self.store.parts.get(query["uploadId"])
            if parts is None:  # dropped meanwhile
                self.send(404, _error("NoSuchUpload"))
                return
            parts[int(query["partNumber"])] = body
            self.send(200, b"", {"ETag": _etag(body)})
        elif self.command == "PUT":
            self.count("object")
            self.put_object(path, body)
        elif self.command == "POST" and "uploads" in query:
            self.count("upload")
            number = uuid.uuid4().hex
            self.store.parts[number] = {}
            self.send(200, f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId>"
                           "</InitiateMultipartUploadResult>".encode())  # fmt: skip
        elif self.command == "POST" and "uploadId" in query:
            self.count("complete")
            parts = self.store.parts.pop(query["uploadId"])
            named = [int(number) for number in _NAMED.findall(body.decode())]
            assert named == sorted(parts), "parts are named in order, each once"
            self.store.objects[path] = content = b"".join(parts[number] for number in named)
            answer = f"<CompleteMultipartUploadResult><ETag>{saxutils.escape(_etag(content))}"
            self.send(200, f"{answer}</ETag></CompleteMultipartUploadResult>".encode(),
                      _headers(content))  # fmt: skip
        elif self.command == "DELETE" and "uploadId" in query:
            self.count("upload")
            self.store.parts.pop(query["uploadId"], None)
            self.send(204, b"")
        elif self.command == "DELETE":
            self.count("object")
            gone = self.store.objects.pop(path, None)
            lenient = self.store.scheme == "s3"
            self.send(204 if lenient or gone is not None else 404, b"")
        elif self.command in ("GET", "HEAD") and not query:
            self.count("object")
            self.get_object(path)
        else:
            self.refuse()

    def count(self, what: str) -> None:
        self.store.requests[f"{self.command} {what}"] += 1

    def refuse(self) -> None:
        self.store.refused.append(f"{self.command} {self.path}")
        self.send(501, _error("NotImplemented"))

    def put_object(self, path: str, body: bytes) -> None:
        absent = self.headers.get("If-None-Match") == "*"
        absent = absent or self.headers.get("x-goog-if-generation-match") == "0"
        if absent and path in self.store.objects:
            self.send(412, _error("PreconditionFailed"))
            return
        self.store.objects[path] = body
        self.send(200, b"", _headers(body))

    def get_object(self, path: str) -> None:
        content = self.store.objects.get(path)
        if content is None:
            self.send(404, _error("NoSuchKey"))
            return
        self.send_part(content, _headers(content))

    def send_part(self, content: bytes, headers: dict[str, str]) -> None:
        """Send a file, or the part of it that the request asks for."""
        first, end = self.asked_range(len(content)) or (0, len(content))
        status = 200
        if "Range" in self.headers:
            if first >= end:
                self.send(416, _error("InvalidRange"))
                return
            headers["Content-Range"], status = f"bytes {first}-{end - 1}/{len(content)}", 206
        part = content[first:end]
        if self.command == "GET":
            self.store.bytes_sent += len(part)
        self.send(status, part, headers)

    def asked_range(self, size: int) -> tuple[int, int] | None:
        """Return where the part of a file that is asked for begins and ends; None: all of it."""
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return None
        if not wanted[1]:  # so many bytes from the end
            return max(0, size - int(wanted[2])), size
        return int(wanted[1]), min(size, int(wanted[2] or size) + 1)

    def list_page(self, bucket: str, query: dict[str, str]) -> None:
        base = f"{self.store.scheme}://{bucket}/"
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found: dict[str, str | None] = {}
        for path in self.store.names(base + prefix):
            key = path.removeprefix(base)
            folder, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            found[prefix + folder + cut if cut else key] = None if cut else path
        start = query.get("continuation-token") or query.get("start-after") or ""
        rest = sorted(name for name in found if name > start)
        page = rest[: self.store.page_size]
        parts = [f"<Name>{bucket}</Name><IsTruncated>{str(page != rest).lower()}</IsTruncated>"]
        if page != rest:
            token = saxutils.escape(page[-1])
            parts.append(f"<NextContinuationToken>{token}</NextContinuationToken>")
        for name in page:
            shown, path = saxutils.escape(name), found[name]
            if path is None:
                parts.append(f"<CommonPrefixes><Prefix>{shown}</Prefix></CommonPrefixes>")
                continue
            content = self.store.objects[path]
            parts.append(
                f"<Contents><Key>{shown}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>{saxutils.escape(_etag(content))}</ETag><Size>{len(content)}</Size>"
                "</Contents>"
            )
        self.send(200, f"<ListBucketResult>{''.join(parts)}</ListBucketResult>".encode())

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/xml"} | (headers or {})
        try:
            self.send_head(status, headers, len(content))
            if self.command != "HEAD":
                self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):  # the client wants no more
            self.close_connection = True

    def send_head(self, status: int, headers: Mapping[str, str], length: int) -> None:
        """Send all but the body; a negative length is left out."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length >= 0:
            self.send_header("Content-Length", str(length))
        self.end_headers()


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _headers(content: bytes) -> dict[str, str]:
    etag = _etag(content)
    return {
        "Content-Type": "application/octet-stream",
        "Last-Modified": _DATE,
        "ETag": etag,
        "x-goog-generation": str(int(etag[1:9], 16)),
    }


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


@contextlib.contextmanager
def serving(
    store: FakeStore, handler: type[http.server.BaseHTTPRequestHandler]
) -> Iterator[FakeStore]:
    """Serves the store as long as the block lives."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (handler,), {"store": store})
    )
    server.daemon_threads = True
    # 'localhost' is what makes the client of Dataflow's job service speak HTTP.
    store.address = f"http://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def fake_s3(page_size: int = 1000) -> Iterator[FakeStore]:
    """S3 with a bucket named ``bucket``; listings come in pages of ``page_size``."""
    with serving(FakeStore(page_size), XmlInterface) as store:
        yield store
