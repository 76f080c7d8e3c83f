"""What `pipelines.storage` promises, on every kind of file system that it knows."""

import contextlib
import errno
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from pipelines import storage
from testing.fake_google_cloud import fake_google_cloud
from testing.fake_hdfs import fake_hdfs
from testing.fake_object_store import FakeStore, fake_s3
from testing.fake_web import fake_web

WRITABLE = ["local", "file", "gs", "s3", "hdfs", "hdfs-gateway"]
REMOTE = ["gs", "s3", "hdfs", "hdfs-gateway"]
READABLE = [*WRITABLE, "http"]


class Place(NamedTuple):
    """A folder on some file system."""

    root: str
    put: Callable[[str, bytes], None]  # behind the layer's back
    names: Callable[[], list[str]]  # all that is there, temporaries too
    server: FakeStore | None


@contextlib.contextmanager
def opened(kind: str, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if kind in ("local", "file"):

        def put(name: str, content: bytes) -> None:
            path = folder / "top" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            before = path.stat().st_mtime_ns if path.exists() else 0
            path.write_bytes(content)
            now = path.stat().st_mtime_ns
            os.utime(path, ns=(now, max(now, before + 1)))  # clocks of file systems are coarse

        def names() -> list[str]:
            found = (folder / "top").rglob("*")
            return sorted(str(p.relative_to(folder / "top")) for p in found if not p.is_dir())

        root = str(folder / "top")
        yield Place(root if kind == "local" else f"file://{root}", put, names, None)
        return
    if kind in ("gs", "s3"):
        pytest.importorskip("obstore", reason="needs the extra gcp or aws")
        with fake_google_cloud(page_size=7) if kind == "gs" else fake_s3(page_size=7) as server:
            if kind == "gs":
                monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
            storage.use_options(
                [f"--s3_endpoint_url={server.address}", "--s3_access_key_id=me",
                 "--s3_secret_access_key", "secret", "--s3_region_name=eu-west-1"]
            )  # fmt: skip
            root = f"{kind}://bucket/top"
            yield remote(root, server)
            assert server.refused == []
    elif kind == "http":
        with fake_web() as server:
            yield Place(
                f"{server.address}/top",
                lambda name, content: server.objects.__setitem__(f"/top/{name}", content),
                lambda: sorted(server.objects),
                server,
            )
    else:
        with fake_hdfs(atomic_replace=kind == "hdfs") as server:
            port = server.address.rsplit(":", 1)[1]
            storage.use_options(
                {"hdfs_host": "localhost", "hdfs_port": int(port), "hdfs_user": "c4"}
            )
            yield remote("hdfs://top", server)
            assert server.refused == []


def remote(root: str, server: Any) -> Place:
    put = getattr(server, "put", server.objects.__setitem__)
    return Place(
        root,
        lambda name, content: put(f"{root}/{name}", content),
        lambda: [path.removeprefix(f"{root}/") for path in server.names(root)],
        server,
    )


@pytest.fixture
def place(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    with opened(request.param, tmp_path, monkeypatch) as found:
        yield found
    storage.use_options([])


on_writable = pytest.mark.parametrize("place", WRITABLE, indirect=True)
on_readable = pytest.mark.parametrize("place", READABLE, indirect=True)
on_remote = pytest.mark.parametrize("place", REMOTE, indirect=True)


def write(path: str, *parts: bytes, failure: BaseException | None = None) -> None:
    with storage.write_atomically(path) as file:
        for part in parts:
            file.write(part)
        if failure is not None:
            raise failure


# --- what is known of a file (A5)


@on_readable
def test_the_identity_changes_with_the_content(place: Place) -> None:
    path = f"{place.root}/a.gz"
    place.put("a.gz", b"damaged")
    before = storage.stat(path)
    assert (before.path, before.size) == (storage.local_path(path), 7)
    assert before.identity.partition(":")[0] in ("mtime", "etag")
    assert storage.stat(path) == before
    assert storage.match(path) == [before]
    place.put("a.gz", b"mended!")
    after = storage.stat(path)
    assert after.size == 7
    assert after.identity != before.identity


@on_writable
def test_patterns_and_stat_agree_on_the_identity(place: Place) -> None:
    place.put("in/a.gz", b"1")
    [found] = storage.match(f"{place.root}/in/*.gz")
    assert found == storage.stat(found.path)
    assert storage.match(f"{place.root}/**.gz") == [found]


@on_readable
def test_a_missing_file_is_that_everywhere(place: Place) -> None:
    place.put("other", b"")
    path = f"{place.root}/missing"
    for call in (
        storage.stat, storage.open_raw, storage.read_bytes,
        lambda p: storage.open_raw(p, scattered=True), storage.match,
    ):  # fmt: skip
        with pytest.raises(FileNotFoundError) as caught:
            call(path)
        if call is not storage.match:
            assert caught.value.errno == errno.ENOENT
            assert caught.value.filename.endswith("/missing")
        assert "\n" not in str(caught.value)
    assert not storage.exists(path)
    assert storage.exists(f"{place.root}/other")


# --- reading


@on_readable
def test_ranges_and_streams_give_the_same_bytes(place: Place) -> None:
    content = bytes(range(256)) * 1000
    place.put("a.gz", content)
    place.put("empty", b"")
    path = f"{place.root}/a.gz"
    assert storage.read_bytes(path) == content
    for scattered in (False, True):
        with storage.open_raw(path, scattered) as file:
            assert file.seekable()
            assert file.seek(-7, os.SEEK_END) == 255_993
            assert file.read() == content[-7:]
            assert file.read(1) == b""
            assert file.seek(1000) == 1000
            assert file.read(100_000) == content[1000:101_000]
            assert file.tell() == 101_000
            file.seek(-1000, os.SEEK_CUR)
            assert file.read(4) == content[100_000:100_004]
            file.seek(400_000)
            assert file.read(4) == b""
            file.seek(0)
            assert b"".join(iter(lambda: file.read(70_000), b"")) == content
        with storage.open_raw(f"{place.root}/empty", scattered) as file:
            assert file.read() == b""


@pytest.mark.parametrize("place", [*REMOTE, "http"], indirect=True)
def test_scattered_reads_fetch_little_and_sequential_ones_seldom(place: Place) -> None:
    assert place.server is not None
    content = bytes(range(256)) * 100_000
    place.put("big", content)
    with storage.open_raw(f"{place.root}/big", scattered=True) as file:
        for start in (25_000_000, 12_000_000, 40):
            file.seek(start)
            assert file.read(10) == content[start : start + 10]
        file.read(20_000)  # fetched already
    assert place.server.bytes_sent < 400_000
    reads = sum(place.server.requests.values())
    through = 2 if place.root.startswith("hdfs") else 1  # by way of the name node
    assert reads <= 1 + 3 * through + place.root.startswith("http")
    place.server.requests.clear()
    with storage.open_raw(f"{place.root}/big") as file:
        while file.read(1 << 20):
            pass
    assert sum(place.server.requests.values()) <= 1 + 2 * through


@pytest.mark.parametrize("place", ["gs", "s3", "http"], indirect=True)
def test_a_file_that_changes_while_it_is_read_is_noticed(place: Place) -> None:
    place.put("a", bytes(30_000_000))
    with storage.open_raw(f"{place.root}/a", scattered=True) as file:
        file.read(10)
        place.put("a", b"\1" * 30_000_000)
        file.seek(20_000_000)
        with pytest.raises(OSError, match="changed while it was read") as caught:
            file.read(10)
    assert caught.value.filename == f"{place.root}/a"


# --- create, once (A1)


@on_writable
def test_one_of_many_creates_the_file(place: Place) -> None:
    path, count = f"{place.root}/deep/er/lock", 8
    start, made = threading.Barrier(count), []

    def create(number: int) -> None:
        start.wait()
        if storage.create_if_absent(path, b"mine %d" % number):
            made.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert storage.read_bytes(path) == b"mine %d" % made[0]
    assert not storage.create_if_absent(path, b"late")
    assert place.names() == ["deep/er/lock"]
    storage.remove([path])
    assert storage.create_if_absent(path, b"")
    assert storage.read_bytes(path) == b""


@on_remote
def test_a_refused_creation_leaves_nothing(place: Place) -> None:
    assert place.server is not None
    place.server.fail = lambda method, what: 403 if method == "PUT" else None
    with pytest.raises(PermissionError, match="lock"):
        storage.create_if_absent(f"{place.root}/lock", b"x")
    place.server.fail = lambda method, what: None
    assert place.names() == []


# --- atomic replacement


@pytest.mark.slow
@on_writable
@pytest.mark.parametrize("sizes", [[], [5], [9_000_000] * 5], ids=["empty", "short", "in parts"])
def test_a_file_is_replaced_as_a_whole(place: Place, sizes: list[int]) -> None:
    path, content = f"{place.root}/a/shard", [bytes([65 + n]) * k for n, k in enumerate(sizes)]
    place.put("a/shard", b"old")
    with storage.write_atomically(path) as file:
        for part in content:
            assert file.write(part) == len(part)
        assert file.tell() == sum(sizes)
        file.close()
        assert storage.read_bytes(path) == b"old"
    assert storage.read_bytes(path) == b"".join(content)
    assert place.names() == ["a/shard"]


@on_writable
@pytest.mark.parametrize("n_bytes", [5, 40_000_000], ids=["short", "in parts"])
@pytest.mark.parametrize("failure", [KeyError("bad page"), KeyboardInterrupt()])
def test_a_write_that_fails_publishes_nothing(
    place: Place, n_bytes: int, failure: BaseException
) -> None:
    path = f"{place.root}/shard"
    place.put("shard", b"old")
    with pytest.raises(type(failure)):
        write(path, bytes(n_bytes), failure=failure)
    assert storage.read_bytes(path) == b"old"
    assert place.names() == ["shard"]
    if place.server is not None:
        assert place.server.parts == {}, "parts that nobody needs are billed"


@on_remote
@pytest.mark.parametrize("n_bytes", [5, 40_000_000], ids=["short", "in parts"])
def test_an_upload_that_is_refused_publishes_nothing(place: Place, n_bytes: int) -> None:
    assert place.server is not None
    path = f"{place.root}/shard"
    place.put("shard", b"old")
    place.server.fail = lambda method, what: 403 if method == "PUT" else None
    with pytest.raises(PermissionError) as caught:
        write(path, bytes(n_bytes))
    assert caught.value.filename == path
    place.server.fail = lambda method, what: None
    assert place.names() == ["shard"]
    assert storage.read_bytes(path) == b"old"


@on_remote
def test_a_busy_server_is_asked_again(place: Place) -> None:
    assert place.server is not None
    place.put("a", b"content")
    answers = [503, 503]
    place.server.fail = lambda method, what: answers.pop() if answers else None
    assert storage.read_bytes(f"{place.root}/a") == b"content"
    assert answers == []


# --- listing and deleting


@on_writable
def test_listing_names_files_and_sweeping_takes_temporaries(place: Place) -> None:
    temporary = ".a.tmp-0123456789abcdef0123456789abcdef"
    for name in ("in/b", "in/a", "in/deep/c", f"in/{temporary}", "in/x[1] é%20?#", "inside"):
        place.put(name, b"12")
    folder = f"{place.root}/in"
    assert storage.listdir(folder) == ["a", "b", "x[1] é%20?#"]
    assert storage.listdir(f"{folder}/") == ["a", "b", "x[1] é%20?#"]
    assert storage.listdir(f"{place.root}/none") == []
    assert storage.changed_since(folder, 0)[:2] == ["a", "b"]
    assert storage.changed_since(folder, 1e11) == []
    assert temporary not in [f.path.rsplit("/", 1)[1] for f in storage.match(f"{folder}/**")]
    assert storage.sweep_temporaries(folder) == 1
    assert storage.sweep_temporaries(folder) == 0
    storage.remove([f"{folder}/a", f"{folder}/missing", f"{folder}/b"])
    storage.remove([f"{folder}/missing"])
    assert place.names() == ["in/deep/c", "in/x[1] é%20?#", "inside"]


@on_writable
def test_trees_are_walked_and_copied(place: Place, tmp_path: pathlib.Path) -> None:
    contents = {f"a/{number}/x{number}": b"x" * number for number in range(1, 12)} | {"a/y": b"yy"}
    for name, content in contents.items():
        place.put(name, content)
    temporary = "." + "z.tmp-" + "0" * 32
    place.put(f"a/{temporary}", b"left")
    top = f"{place.root}/a"
    names = {name.removeprefix("a/"): content for name, content in contents.items()}
    for folder in (top, f"{top}/"):
        assert storage.folders(folder) == sorted(map(str, range(1, 12)))
        assert storage.walk(folder) == {name: len(content) for name, content in names.items()}
    assert storage.folders(f"{place.root}/none") == []
    assert storage.walk(f"{place.root}/none") == {}

    local = tmp_path / "copy"
    storage.copy_files((f"{top}/{name}", str(local / name)) for name in names)
    storage.copy_files((str(local / name), f"{place.root}/b/{name}") for name in names)
    assert storage.walk(f"{place.root}/b") == storage.walk(top)
    with pytest.raises(FileNotFoundError):
        storage.copy_files([(f"{top}/y", str(local / "y")), (f"{top}/none", str(local / "none"))])
    assert not (local / "none").exists()


@on_writable
def test_many_files_are_listed_and_deleted(place: Place) -> None:
    names = [f"crawl/{number:03}/x.wet" for number in range(40)]
    for name in names:
        place.put(name, b"12")
    found = storage.match(f"{place.root}/crawl/*/*.wet")
    assert [file.path.removeprefix("file://").endswith(name) for file, name in
            zip(found, names, strict=True)] == [True] * 40  # fmt: skip
    storage.remove(file.path for file in found)
    assert place.names() == []


# --- patterns

PATTERNS = [
    ("in/[ab].gz", ["in/a.gz", "in/b.gz"]),
    ("in/[!a].gz", ["in/b.gz"]),
    ("in/?.gz", ["in/a.gz", "in/b.gz"]),
    ("in/*", ["in/.hidden", "in/a.gz", "in/b.gz", "in/back\\slash.gz", "in/x1.gz", "in/x[1].gz"]),
    ("*/*/c.gz", ["in/deep/c.gz", "in2/deep/c.gz"]),
    ("in/*/c.gz", ["in/deep/c.gz"]),
    ("in*/deep/c.gz", ["in/deep/c.gz", "in2/deep/c.gz"]),
    ("in/**/c.gz", ["in/deep/c.gz"]),
    ("**/c.gz", ["in/deep/c.gz", "in2/deep/c.gz"]),
    ("in/d**.gz", ["in/deep/c.gz", "in/deep/er/d.gz"]),
    ("in/back*", ["in/back\\slash.gz"]),
    ("in/x[[]1].gz", ["in/x[1].gz"]),
    ("in/[", []),
    ("in/*.wet", []),
    ("none/*", []),
    ("in/a.gz/*", []),
]


@on_writable
@pytest.mark.parametrize(("pattern", "expected"), PATTERNS)
def test_patterns(place: Place, pattern: str, expected: list[str]) -> None:
    for name in ("in/a.gz", "in/b.gz", "in/x[1].gz", "in/x1.gz", "in/deep/c.gz", "in/deep/er/d.gz",
                 "in2/deep/c.gz", "in/back\\slash.gz", "in/.hidden", "infix"):  # fmt: skip
        place.put(name, b"1")
    if not expected:
        with pytest.raises(storage.NoInputError, match="no input file matches"):
            storage.match(f"{place.root}/{pattern}")
        return
    root = place.root.removeprefix("file://")
    found = storage.match(f"{place.root}/{pattern}")
    assert [file.path for file in found] == [f"{root}/{name}" for name in expected]


@on_writable
def test_a_folder_is_no_input(place: Place) -> None:
    place.put("in/a.gz", b"1")
    with pytest.raises(storage.NoInputError, match=r"is a folder.*in/\*\.warc\.wet\.gz"):
        storage.match(f"{place.root}/in")


@on_remote
def test_a_listing_that_is_refused_is_an_error(place: Place) -> None:
    assert place.server is not None
    place.put("in/a.gz", b"1")
    place.put("in/secret/b.gz", b"1")
    place.server.fail = lambda method, what: (
        403 if "secret" in what or "list-type" in what else None
    )
    for pattern in ("in/*/*.gz", "in/**.gz"):
        with pytest.raises(PermissionError, match="in"):
            storage.match(f"{place.root}/{pattern}")


@pytest.mark.parametrize("place", ["gs", "s3"], indirect=True)
def test_empty_objects_that_stand_for_folders_are_no_input(place: Place) -> None:
    for name in ("in/", "in/deep/", "in/empty.gz"):
        place.put(name, b"")
    place.put("in/deep/a.gz", b"1")
    files = [f"{place.root}/in/deep/a.gz", f"{place.root}/in/empty.gz"]
    assert [file.path for file in storage.match(f"{place.root}/in/**")] == files
    assert [file.path for file in storage.match(f"{place.root}/in/*")] == files[1:]
    assert storage.listdir(f"{place.root}/in") == ["empty.gz"]


@pytest.mark.parametrize("place", ["gs", "s3", "hdfs"], indirect=True)
def test_a_pattern_lists_only_folders_that_it_can_match_in(place: Place) -> None:
    assert place.server is not None
    for number in range(30):
        place.put(f"other/{number}/x", b"1")
        place.put(f"crawl/wet/{number}.gz", b"1")
        place.put(f"crawl/warc/{number}/x", b"1")
    pages = 1 if place.root.startswith("hdfs") else 5
    assert len(storage.match(f"{place.root}/crawl/we*/*.gz")) == 30
    assert sum(place.server.requests.values()) <= 1 + pages


# --- what cannot be written to


@pytest.mark.parametrize("place", ["http"], indirect=True)
def test_the_web_is_for_reading(place: Place) -> None:
    path = f"{place.root}/a"
    for call in (
        lambda: write(path, b"x"),
        lambda: storage.create_if_absent(path, b"x"),
        lambda: storage.remove([path]),
        lambda: storage.listdir(place.root),
        lambda: storage.changed_since(place.root, 0),
        lambda: storage.sweep_temporaries(place.root),
    ):
        with pytest.raises(OSError, match="supports only reading single files") as caught:
            call()
        assert caught.value.errno == errno.EROFS
    with pytest.raises(storage.NoInputError, match=r"http:// cannot be listed"):
        storage.match(f"{place.root}/*.gz")


def test_an_unknown_scheme_is_named() -> None:
    for path in ("ftp://host/a", "azfs://account/container/a"):
        with pytest.raises(ValueError, match=r"(ftp|azfs):// is not supported: give a local path"):
            storage.match(path)
