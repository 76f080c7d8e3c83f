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

_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)")
_LIST = re.compile(r"/storage/v1/b/([^/]+)/o")
_BUCKET = re.compile(r"/storage/v1/b/([^/]+)")
_UPLOAD = re.compile(r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o")
_JOBS = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs(?:/([^/]+))?")
_NUMBERED = "2026-01-01T00:00:00.000000Z"


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


_OF_JSON = re.compile("/(download/)?storage/v1/|/(resumable/)?upload/storage/|/v1b3/|/batch/")


class _Handler(XmlInterface):
    store: FakeGoogleCloud

    @property
    def cloud(self) -> FakeGoogleCloud:
        return self.store

    def route(self, url: urllib.parse.SplitResult, body: bytes) -> None:
        if _OF_JSON.match(url.path):
            self._route_json(url.path, dict(urllib.parse.parse_qsl(url.query)), body)
        else:
            super().route(url, body)

    def _route_json(self, path: str, query: dict[str, str], body: bytes) -> None:
        for pattern, method in (
            (_UPLOAD, self._upload),
            (_OBJECT, self._object),
            (_LIST, self._list),
            (_BUCKET, self._bucket),
            (_JOBS, self._job),
            (re.compile("/batch/storage/v1"), self._batch),
        ):
            if found := pattern.fullmatch(path):
                self.cloud.requests[f"{self.command} {method.__name__[1:]}"] += 1
                method(*(urllib.parse.unquote(part or "") for part in found.groups()), query, body)
                return
        self.refuse()

    def _bucket(self, bucket: str, *_: Any) -> None:
        if bucket in self.cloud.buckets:
            self._send(200, {"kind": "storage#bucket", "name": bucket})
        else:
            self._not_found()

    def _object(self, bucket: str, name: str, query: dict[str, str], _: bytes) -> None:
        path = f"gs://{bucket}/{name}"
        content = self.cloud.objects.get(path)
        if content is None:
            self._not_found()
        elif self.command == "DELETE":
            del self.cloud.objects[path]
            self._send(204, None)
        elif query.get("alt") == "media":
            self.send_part(content, _hashes(content))
        else:
            self._send(200, _metadata(bucket, name, content))

    def _list(self, bucket: str, query: dict[str, str], _: bytes) -> None:
        if bucket not in self.cloud.buckets:
            self._not_found()
            return
        prefix, start = f"gs://{bucket}/{query.get('prefix', '')}", int(query.get("pageToken", 0))
        paths = self.cloud.names(prefix)
        page = paths[start : start + self.cloud.page_size]
        answer: dict[str, Any] = {
            "kind": "storage#objects",
            "items": [
                _metadata(bucket, path.removeprefix(f"gs://{bucket}/"), self.cloud.objects[path])
                for path in page
            ],
        }
        if start + len(page) < len(paths):
            answer["nextPageToken"] = str(start + len(page))
        self._send(200, answer)

    def _upload(self, bucket: str, query: dict[str, str], body: bytes) -> None:
        if self.command == "POST" and query.get("uploadType") == "multipart":
            boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
            _, head, content, _ = body.split(b"--" + boundary)
            name = json.loads(head.split(b"\r\n\r\n", 1)[1])["name"]
            self._store(f"gs://{bucket}/{name}", content.split(b"\r\n\r\n", 1)[1][:-2])
        elif self.command == "POST":
            if bucket not in self.cloud.buckets:
                self._not_found()
                return
            name = query.get("name") or json.loads(body)["name"]
            number = str(len(self.cloud.uploads))
            self.cloud.uploads[number] = (f"gs://{bucket}/{name}", bytearray())
            location = f"{self.cloud.address}/upload/storage/v1/b/{bucket}/o?upload_id={number}"
            self._send(200, {}, {"Location": location})
        else:
            self._continue(self.cloud.uploads[query["upload_id"]], body)

    def _continue(self, upload: tuple[str, bytearray], body: bytes) -> None:
        path, content = upload
        content += body
        if self.headers["Content-Range"].endswith("/*"):
            self._send(308, None, {"Range": f"bytes=0-{len(content) - 1}"})
        else:
            self._store(path, bytes(content))

    def _store(self, path: str, content: bytes) -> None:
        self.cloud.objects[path] = content
        bucket, _, name = path.removeprefix("gs://").partition("/")
        self._send(200, _metadata(bucket, name, content))

    def _batch(self, _: dict[str, str], body: bytes) -> None:
        answers = []
        for target in re.findall(rb"\nDELETE (\S+) HTTP/1.1", body):
            found = _OBJECT.fullmatch(urllib.parse.urlsplit(target.decode()).path)
            assert found, target
            path = "gs://{}/{}".format(*map(urllib.parse.unquote, found.groups()))
            gone = self.cloud.objects.pop(path, None) is not None
            answers.append(
                "--answer\r\nContent-Type: application/http\r\n\r\n"
                f"HTTP/1.1 {'204 No Content' if gone else '404 Not Found'}\r\n"
                "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}\r\n"
            )
        content = "".join([*answers, "--answer--\r\n"]).encode()
        self._send(200, content, {"Content-Type": "multipart/mixed; boundary=answer"})

    def _job(self, project: str, region: str, job: str, _: dict[str, str], body: bytes) -> None:
        if self.command == "POST" and not job:
            asked = json.loads(body)
            self.cloud.jobs.append(asked)
            made = {"id": "2026-job", "projectId": project, "location": region, **asked}
            self._send(200, made)
        else:
            self._send(200, {"id": job, "currentState": "JOB_STATE_RUNNING"})

    def _not_found(self) -> None:
        self._send(404, {"error": {"code": 404, "message": f"no such thing: {self.path}"}})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json"} | (headers or {})
        if content is None:
            data = b""
        else:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send(status, data, headers)


def _checksums(content: bytes) -> tuple[str, str]:
    crc = google_crc32c.value(content).to_bytes(4, "big")
    md5 = hashlib.md5(content, usedforsecurity=False).digest()
    return base64.b64encode(crc).decode(), base64.b64encode(md5).decode()


def _hashes(content: bytes) -> dict[str, str]:
    crc, md5 = _checksums(content)
    return {"Content-Type": "application/octet-stream", "X-Goog-Hash": f"crc32c={crc},md5={md5}"}


def _metadata(bucket: str, name: str, content: bytes) -> dict[str, str]:
    crc, md5 = _checksums(content)
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "size": str(len(content)),
        "generation": "1",
        "updated": _NUMBERED,
        "crc32c": crc,
        "md5Hash": md5,
    }
