"""Google Cloud Storage and Dataflow's job service, as far as a build needs them, on loopback.

A build reads and writes by the XML interface (`testing.fake_object_store`); Beam's client of
Dataflow stages its files by the JSON one. Objects are held in memory. What is not understood is
answered with 501 and kept in ``refused``, so that a test fails instead of passing by luck.
"""

import base64
import contextlib
import hashlib
import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import google_crc32c

from testing.fake_object_store import FakeStore, XmlInterface, serving

_OBJECT = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)")
_BUCKET = re.compile(r"/storage/v1/b/([^/]+)")
_UPLOAD = re.compile(r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o")
_JOBS = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs")


class FakeGoogleCloud(FakeStore):
    """The state of a project: objects by ``gs://`` path, jobs as they were asked for."""

    scheme = "gs"

    def __init__(self, page_size: int) -> None:
        super().__init__(page_size)
        self.jobs: list[dict[str, Any]] = []
        self.buckets = {"bucket", "staging"}
        self.uploads: dict[str, tuple[str, bytearray]] = {}  # of the JSON interface


@contextlib.contextmanager
def fake_google_cloud(page_size: int = 1000) -> Iterator[FakeGoogleCloud]:
    """A project that lives as long as the block; listings come in pages of ``page_size``."""
    cloud = FakeGoogleCloud(page_size)
    with serving(cloud, _Handler):
        yield cloud


_OF_JSON = re.compile("/storage/v1/|/(resumable/)?upload/storage/|/v1b3/")


class _Handler(XmlInterface):
    store: FakeGoogleCloud

    def route(self, url: urllib.parse.SplitResult, body: bytes) -> None:
        if _OF_JSON.match(url.path):
            self._route_json(url.path, dict(urllib.parse.parse_qsl(url.query)), body)
        else:
            super().route(url, body)

    def _route_json(self, path: str, query: dict[str, str], body: bytes) -> None:
        for pattern, command, method in (
            (_UPLOAD, "POST", self._upload),
            (_UPLOAD, "PUT", self._continue),
            (_OBJECT, "GET", self._object),
            (_BUCKET, "GET", self._bucket),
            (_JOBS, "POST", self._job),
        ):
            if command == self.command and (found := pattern.fullmatch(path)):
                self.store.requests[f"{self.command} {method.__name__[1:]}"] += 1
                method(*map(urllib.parse.unquote, found.groups()), query, body)
                return
        self.refuse()

    def _bucket(self, bucket: str, *_: Any) -> None:
        if bucket in self.store.buckets:
            self._send(200, {"kind": "storage#bucket", "name": bucket})
        else:
            self._not_found()

    def _object(self, bucket: str, name: str, *_: Any) -> None:
        """Says that an object is not there yet: nobody asks for one that is."""
        if f"gs://{bucket}/{name}" in self.store.objects:
            self.refuse()
        else:
            self._not_found()

    def _upload(self, bucket: str, query: dict[str, str], body: bytes) -> None:
        name = query.get("name") or json.loads(body)["name"]
        number = str(len(self.store.uploads))
        self.store.uploads[number] = (f"gs://{bucket}/{name}", bytearray())
        location = f"{self.store.address}/upload/storage/v1/b/{bucket}/o?upload_id={number}"
        self._send(200, {}, {"Location": location})

    def _continue(self, bucket: str, query: dict[str, str], body: bytes) -> None:
        path, content = self.store.uploads[query["upload_id"]]
        content += body
        if self.headers["Content-Range"].endswith("/*"):
            self.send(308, b"", {"Range": f"bytes=0-{len(content) - 1}"})
            return
        self.store.objects[path] = stored = bytes(content)
        self._send(200, _metadata(bucket, path.removeprefix(f"gs://{bucket}/"), stored))

    def _job(self, project: str, region: str, query: dict[str, str], body: bytes) -> None:
        asked = json.loads(body)
        self.store.jobs.append(asked)
        self._send(200, {"id": "2026-job", "projectId": project, "location": region, **asked})

    def _not_found(self) -> None:
        self._send(404, {"error": {"code": 404, "message": f"no such thing: {self.path}"}})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json"} | (headers or {})
        self.send(status, json.dumps(content).encode(), headers)


def _metadata(bucket: str, name: str, content: bytes) -> dict[str, str]:
    crc = google_crc32c.value(content).to_bytes(4, "big")
    md5 = hashlib.md5(content, usedforsecurity=False).digest()
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "size": str(len(content)),
        "generation": "1",
        "updated": "2026-01-01T00:00:00.000000Z",
        "crc32c": base64.b64encode(crc).decode(),
        "md5Hash": base64.b64encode(md5).decode(),
    }
