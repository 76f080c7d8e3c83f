"""Requests and CPU time of clients of object stores, on servers on loopback.

::

    python -m benchmarks.files                  # gs:// and s3://, every client that is installed
    python -m benchmarks.files --scheme s3 --files 400

The work is a build's: list a folder, ask about every file, read it from beginning to end, read
three small parts of it here and there, write it anew, delete it. ``c4`` is the file layer of this
package, by obstore; ``fsspec`` is gcsfs or s3fs, which are no dependencies (pip install gcsfs
s3fs). The server is a process of its own; CPU is the client's.
"""

import argparse
import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipelines import storage

_SMALL_BYTES, _LARGE_BYTES = 200_000, 20_000_000
_SPOTS = (0.9, 0.5, 0.1)
_PART_BYTES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scheme", choices=("gs", "s3"), action="append")
    parser.add_argument("--files", type=int, default=40)
    arguments = parser.parse_args()
    print(f"{arguments.files} files of {_SMALL_BYTES:,} bytes, {max(1, arguments.files // 20)} of "
          f"{_LARGE_BYTES:,}; requests and CPU ms in all")  # fmt: skip
    for scheme in arguments.scheme or ("gs", "s3"):
        for name, client in (("c4", _ours), ("fsspec", _fsspec)):
            if name == "fsspec" and not importlib.util.find_spec(
                {"gs": "gcsfs"}.get(scheme, "s3fs")
            ):
                print(f"{scheme} {name}: not installed")
                continue
            _measure(scheme, name, client, arguments.files)


def _measure(scheme: str, name: str, client: Callable[..., Any], count: int) -> None:
    """Run every kind of work against a server of its own and print a line for each."""
    start = multiprocessing.get_context("spawn")
    calls, answers = start.Queue(), start.Queue()
    server = start.Process(target=_serve, args=(scheme, count, calls, answers))
    server.start()
    try:
        address = answers.get()
        for what, work in client(scheme, address, count):
            calls.put("reset")
            answers.get()
            before = time.process_time()
            try:
                work()
            except Exception as error:  # of a client that asks what the server does not know
                print(f"{scheme} {name:6} {what:10} failed: {type(error).__name__}")
                continue
            cpu = time.process_time() - before
            calls.put("requests")
            print(f"{scheme} {name:6} {what:10} {answers.get():5} requests {cpu * 1e3:8.1f} ms",
                  flush=True)  # fmt: skip
    finally:
        calls.put(None)
        server.join()


def _serve(scheme: str, count: int, calls: Any, answers: Any) -> None:
    from testing.fake_google_cloud import fake_google_cloud
    from testing.fake_object_store import fake_s3

    with (fake_google_cloud if scheme == "gs" else fake_s3)() as store:
        for path, size in _files(scheme, count):
            store.objects[path] = bytes(size)
        answers.put(store.address)
        while (call := calls.get()) is not None:
            answers.put(sum(store.requests.values()))
            if call == "reset":
                store.requests.clear()


def _files(scheme: str, count: int) -> Iterator[tuple[str, int]]:
    for number in range(count):
        yield f"{scheme}://bucket/in/{number:05}", _SMALL_BYTES
    for number in range(max(1, count // 20)):
        yield f"{scheme}://bucket/large/{number:05}", _LARGE_BYTES


def _ours(scheme: str, address: str, count: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    os.environ["STORAGE_EMULATOR_HOST"] = address
    storage.use_options([f"--s3_endpoint_url={address}", "--s3_access_key_id=a",
                         "--s3_secret_access_key=b", "--s3_region_name=us-east-1"])  # fmt: skip
    paths, sizes = zip(*_files(scheme, count), strict=True)
    storage.exists(paths[0])  # imports

    def scattered() -> None:
        for path, size in zip(paths, sizes, strict=True):
            with storage.open_raw(path, scattered=True) as file:
                for spot in _SPOTS:
                    file.seek(int(spot * size))
                    assert len(file.read(_PART_BYTES)) == _PART_BYTES

    def write() -> None:
        for path, size in zip(paths, sizes, strict=True):
            with storage.write_atomically(path) as file:
                for _ in range(0, size, _SMALL_BYTES):
                    file.write(bytes(_SMALL_BYTES))

    yield "list", lambda: storage.match(f"{scheme}://bucket/in/*")
    yield "stat", lambda: [storage.stat(path) for path in paths]
    yield "read", lambda: [storage.read_bytes(path) for path in paths]
    yield "scattered", scattered
    yield "write", write
    yield "delete", lambda: storage.remove(paths)


def _fsspec(scheme: str, address: str, count: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    import fsspec

    if scheme == "gs":
        # Else it asks, by gRPC and for minutes, what kind of bucket this is.
        os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
        files = fsspec.filesystem(
            "gs", endpoint_url=address, token="anon", use_listings_cache=False
        )
    else:
        files = fsspec.filesystem(
            "s3", key="a", secret="b", use_listings_cache=False,
            client_kwargs={"endpoint_url": address, "region_name": "us-east-1"},
        )  # fmt: skip
    paths, sizes = zip(*_files(scheme, count), strict=True)
    files.exists(paths[0])

    def scattered() -> None:
        for path, size in zip(paths, sizes, strict=True):
            with files.open(path, "rb", cache_type="readahead", block_size=64 << 10) as file:
                for spot in _SPOTS:
                    file.seek(int(spot * size))
                    assert len(file.read(_PART_BYTES)) == _PART_BYTES

    def write() -> None:
        for path, size in zip(paths, sizes, strict=True):
            with files.open(path, "wb", block_size=16 << 20) as file:
                for _ in range(0, size, _SMALL_BYTES):
                    file.write(bytes(_SMALL_BYTES))

    yield "list", lambda: files.ls(f"{scheme}://bucket/in", detail=True)
    yield "stat", lambda: [files.info(path) for path in paths]
    yield "read", lambda: [files.cat_file(path) for path in paths]
    yield "scattered", scattered
    yield "write", write
    yield "delete", lambda: [files.rm_file(path) for path in paths]


if __name__ == "__main__":
    main()
