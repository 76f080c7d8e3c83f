"""Kill ``c4 fetch`` at random points, let it finish, and count the bytes that were sent twice.

    python -m benchmarks.fetch --kills 20

A server on loopback sends made-up WET files block by block, and the next block only once the last
one is on the disk of the client. So a kill can cost one block a connection, however busy the
machine is. A kill happens after a random number of bytes; the last one after the last byte.
"""

import argparse
import contextlib
import gzip
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import measure
from testing.fake_web import FakeWeb, fake_web

_FOLDER = "crawl-data/CC-MAIN-2019-18/segments/1.1/wet/"
_BLOCK_BYTES = 16 << 10
_PATIENCE_S = 60.0


class Killed(NamedTuple):
    """What kills cost."""

    kills: int
    identical: bool  # the files, to those of the server; and nothing else is left
    bytes: int  # of the files
    twice: int  # bytes sent more than once
    allowed: int  # one block a connection and kill
    requests: int
    seconds: float


def kill_and_finish(
    folder: pathlib.Path,
    kills: int,
    *,
    files: int = 6,
    file_bytes: int = 600_000,
    connections: int = 2,
    seed: int = 0,
) -> Killed:
    """Fetch files into ``folder``, killed so many times, and compare them with the source."""
    draw = random.Random(seed)
    contents = {
        f"{_FOLDER}CC-MAIN-1-2-{number:05}.warc.wet.gz": _gzip(draw.randbytes(file_bytes))
        for number in range(files)
    }
    total = sum(map(len, contents.values()))
    points = sorted(draw.randrange(total) for _ in range(kills - 1)) + [total] * (kills > 0)
    began = time.monotonic()
    with fake_web() as web:
        web.weak, web.block = False, _BLOCK_BYTES
        web.objects = {f"/{path}": content for path, content in contents.items()}
        listed = gzip.compress("\n".join(contents).encode())
        web.objects["/crawl-data/CC-MAIN-2019-18/wet.paths.gz"] = listed
        running: list[subprocess.Popen[bytes]] = []
        web.after_block = lambda path, position: _await_disk(folder, path, position, running[-1])
        command = [
            *(*measure.C4, "fetch", "--crawl", "CC-MAIN-2019-18"),
            *("--base-url", web.address, "--to", str(folder), "--connections", str(connections)),
            "--quiet",
        ]
        for point in points:
            with _started(command, running) as process:
                _await_bytes(web, point, process)
        with _started(command, running) as process:
            status = process.wait(_PATIENCE_S)
        sent = sum(web.sent[f"/{path}"] for path in contents)
        requests = sum(web.asked[f"/{path}"] for path in contents)
    found = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    same = found == {path.rpartition("/")[2]: content for path, content in contents.items()}
    return Killed(
        len(points), same and status == 0, total, sent - total,
        len(points) * connections * _BLOCK_BYTES, requests, time.monotonic() - began,
    )  # fmt: skip


def _gzip(content: bytes) -> bytes:
    """Return a gzip file of several members, as a WET file is."""
    half = len(content) // 2
    return gzip.compress(content[:half], 0, mtime=0) + gzip.compress(content[half:], 0, mtime=0)


@contextlib.contextmanager
def _started(
    command: list[str], running: list["subprocess.Popen[bytes]"]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a command, and kill it at the end of the block unless it has ended."""
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    running.append(process)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


def _await_bytes(web: FakeWeb, wanted: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the server has sent so many bytes of files."""
    deadline = time.monotonic() + _PATIENCE_S
    while sum(size for path, size in web.sent.items() if ".wet." in path) < wanted:
        if process.poll() is not None or time.monotonic() > deadline:
            return
        threading.Event().wait(0.001)


def _await_disk(
    folder: pathlib.Path, path: str, position: int, process: "subprocess.Popen[bytes]"
) -> None:
    """Wait until the client has written a file up to a position.

    Raises:
        ConnectionError: The client is dead; nothing more may be sent to it.
    """
    name = path.rpartition("/")[2]
    unfinished = folder / ".c4-fetch" / f"{name}.unfinished"
    while ".wet." in name and not (folder / name).exists():
        if process.poll() is not None:
            raise ConnectionError
        with contextlib.suppress(FileNotFoundError):
            if unfinished.stat().st_size >= position:
                return
        threading.Event().wait(0.0005)


def main() -> int:
    """Print what the kills cost; the status is 0 if that was no more than allowed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fetch", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--file-bytes", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = kill_and_finish(
            pathlib.Path(folder) / "wet", given.kills, files=given.files,
            file_bytes=given.file_bytes, connections=given.connections, seed=given.seed,
        )  # fmt: skip
    print(
        f"{result.kills} kills: {'identical' if result.identical else 'DIFFERENT'}; "
        f"{result.bytes:,} bytes, {result.twice:,} sent twice ({result.allowed:,} allowed: a block "
        f"of {_BLOCK_BYTES:,} a connection and kill), {result.requests} requests, "
        f"{result.seconds:.0f} s"
    )
    return 0 if result.identical and result.twice <= result.allowed else 1


if __name__ == "__main__":
    sys.exit(main())
