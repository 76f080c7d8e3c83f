"""WebHDFS as far as a build needs it, on loopback: the name node, and data nodes behind it.

What is not understood is answered with 501 and kept in ``refused``.
"""

import contextlib
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

from testing.fake_object_store import FakeStore, XmlInterface, serving


class FakeHdfs(FakeStore):
    """Files by ``hdfs://`` path (without a server in it), as they are now."""

    scheme = "hdfs"

    def __init__(self, atomic_replace: bool) -> None:
        super().__init__(page_size=0)
        self.times: dict[str, int] = {}  # ms
        self.clock = 1_700_000_000_000
        self.atomic_replace = atomic_replace

    def put(self, path: str, content: bytes) -> None:
        self.clock += 1
        self.objects[path], self.times[path] = content, self.clock


@contextlib.contextmanager
def fake_hdfs(atomic_replace: bool = True) -> Iterator[FakeHdfs]:
    """A cluster. Without ``atomic_replace`` it ignores the option, as older gateways do."""
    store = FakeHdfs(atomic_replace)
    with serving(store, _Handler):
        yield store


class _Handler(XmlInterface):
    store: FakeHdfs

    def answer(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.store.lock:
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            name = urllib.parse.unquote(url.path)
            operation = query.get("op", "data")
            self.store.requests[f"{self.command} {operation}"] += 1
            status = self.store.fail(self.command, f"{name} {operation}")
            if status == 403:
                self.failure(403, "AccessControlException", "Permission denied: user=c4")
            elif status is not None:
                self.send(status, b"")
            elif name.startswith("/data"):
                self.data(name.removeprefix("/data"), query, body)
            else:
                self.operate(name.removeprefix("/webhdfs/v1"), operation, query)

    def operate(self, name: str, operation: str, query: dict[str, str]) -> None:
        path = f"hdfs:/{name}"
        objects = self.store.objects
        below = f"{path.rstrip('/')}/"
        is_folder = path not in objects and any(p.startswith(below) for p in objects)
        if query.get("user.name") != "c4":
            self.failure(401, "SecurityException", "who are you?")
        elif operation == "CREATE":
            if path in objects and query["overwrite"] == "false":
                self.failure(403, "FileAlreadyExistsException", f"{name} already exists")
            else:
                self.redirect(name, query)
        elif operation == "RENAME":
            target = f"hdfs:/{query['destination']}"
            replaces = query.get("renameoptions") == "OVERWRITE" and self.store.atomic_replace
            done = path in objects and (replaces or target not in objects)
            if done:
                self.store.put(target, objects.pop(path))
            self.told(b"" if done and replaces else json.dumps({"boolean": done}).encode())
        elif operation == "DELETE":
            self.told(json.dumps({"boolean": objects.pop(path, None) is not None}).encode())
        elif not is_folder and path not in objects:
            self.failure(404, "FileNotFoundException", f"File does not exist: {name}")
        elif operation == "OPEN":
            if int(query.get("offset", 0)) > len(objects[path]):
                self.failure(403, "IOException", "Offset is larger than the file")
            else:
                self.redirect(name, query)
        elif operation == "GETFILESTATUS":
            self.told(json.dumps({"FileStatus": self.status(path, "")}).encode())
        elif operation == "LISTSTATUS":
            names = {p.removeprefix(below).split("/")[0] for p in objects if p.startswith(below)}
            found = [self.status(below + n, n) for n in sorted(names)] if is_folder else []
            if not is_folder:
                found = [self.status(path, "")]
            self.told(json.dumps({"FileStatuses": {"FileStatus": found}}).encode())
        else:
            self.refuse()

    def status(self, path: str, suffix: str) -> dict[str, Any]:
        content = self.store.objects.get(path)
        return {
            "pathSuffix": suffix,
            "type": "DIRECTORY" if content is None else "FILE",
            "length": len(content or b""),
            "modificationTime": self.store.times.get(path, self.store.clock),
        }

    def data(self, name: str, query: dict[str, str], body: bytes) -> None:
        path = f"hdfs:/{name}"
        if self.command == "PUT":
            self.store.put(path, body)
            self.send(201, b"")
        else:
            start = int(query.get("offset", 0))
            part = self.store.objects[path][start:][: int(query.get("length", 1 << 40))]
            self.store.bytes_sent += len(part)
            self.send(200, part)

    def redirect(self, name: str, query: dict[str, str]) -> None:
        query = {key: value for key, value in query.items() if key in ("offset", "length")}
        where = (
            f"{self.store.address}/data{urllib.parse.quote(name)}?{urllib.parse.urlencode(query)}"
        )
        self.send(307, b"", {"Location": where})

    def told(self, content: bytes) -> None:
        self.send(200, content, {"Content-Type": "application/json"})

    def failure(self, status: int, kind: str, message: str) -> None:
        told = {"RemoteException": {"exception": kind, "message": f"{message}\n\tat java.lang"}}
        self.send(status, json.dumps(told).encode(), {"Content-Type": "application/json"})
