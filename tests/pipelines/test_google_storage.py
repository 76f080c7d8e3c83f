"""``gs://`` for real: the client and whole builds, against a server on loopback."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from c4_filters.pages import PageRules
from c4_filters.recipes import load_recipe
from pipelines import storage, verify_corpus
from pipelines.corpus.manifest import read_manifest
from pipelines.corpus.removals import Removals, write_removals
from pipelines.stages.merge_files import cleaned_sources
from pipelines.stages.write_shards import ShardTask, write_shard
from samples.make_samples import WET_DIR
from testing.fake_google_cloud import FakeGoogleCloud
from testing.helpers import Outcome, run_c4

ODD = "gs://bucket/[x] ?*,é.bin"


def write(path: str, data: bytes) -> None:
    with storage.write_atomically(path) as file:
        file.write(data)


def write_and_fail(path: str, data: bytes) -> None:
    with storage.write_atomically(path) as file:
        file.write(data)
        raise KeyError


# --- storage


def test_objects_are_written_read_listed_and_removed(google_cloud: FakeGoogleCloud) -> None:
    big = bytes(range(256)) * 80_000  # 20 MB: two parts of an upload
    for path, data in ((ODD, b"odd"), ("gs://bucket/a/big", big), ("gs://bucket/a/empty", b"")):
        write(path, data)
        assert google_cloud.objects[path] == data
        assert storage.read_bytes(path) == data
        assert storage.stat(path).size == len(data)
    assert storage.listdir("gs://bucket/a") == ["big", "empty"]
    assert storage.listdir("gs://bucket/none") == []
    # A name is a name, not a pattern: of two objects that it matches, the one of that name goes.
    google_cloud.objects["gs://bucket/x ab,é.bin"] = b"stays"
    storage.remove([ODD, "gs://bucket/never/was"])
    assert not storage.exists(ODD)
    storage.remove([f"gs://bucket/a/{name}" for name in ("big", "empty", "gone")])
    assert list(google_cloud.objects) == ["gs://bucket/x ab,é.bin"]


def test_a_listing_of_many_pages_is_whole(google_cloud: FakeGoogleCloud) -> None:
    names = [f"gs://bucket/crawl/{number:03}/x.wet" for number in range(50)]
    google_cloud.objects |= dict.fromkeys(names, b"12")
    found = storage.match("gs://bucket/crawl/*/*.wet")
    assert [file[:2] for file in found] == [(name, 2) for name in names]
    with pytest.raises(storage.NoInputError, match="no input file matches"):
        storage.match("gs://bucket/crawl/*.wet")


def test_an_object_appears_whole_or_not_at_all(google_cloud: FakeGoogleCloud) -> None:
    path = "gs://bucket/shard"
    write(path, b"old")
    with pytest.raises(KeyError):
        write_and_fail(path, bytes(40_000_000))  # two parts are uploaded
    assert google_cloud.requests["POST upload"] == 1
    assert google_cloud.objects == {path: b"old"}
    assert google_cloud.parts == {}, "the parts are dropped, not billed"


DENIED: list[Callable[[], Any]] = [
    lambda: storage.read_bytes("gs://bucket/x"),
    lambda: storage.match("gs://bucket/x*"),
    lambda: storage.exists("gs://bucket/x"),
    lambda: storage.stat("gs://bucket/x"),
    lambda: storage.listdir("gs://bucket/x"),
    lambda: storage.remove(["gs://bucket/x"]),
    lambda: storage.remove(["gs://bucket/x", "gs://bucket/y"]),
    lambda: write("gs://bucket/x", b"x"),
]


@pytest.mark.parametrize("call", DENIED)
def test_what_google_refuses_is_an_oserror_with_the_path(
    call: Callable[[], Any], google_cloud: FakeGoogleCloud
) -> None:
    google_cloud.fail = lambda method, what: 403
    with pytest.raises(PermissionError) as caught:
        call()
    assert str(caught.value.filename).startswith("gs://bucket/")


def test_a_bucket_that_is_not_there_is_named(google_cloud: FakeGoogleCloud) -> None:
    for call in (
        lambda: storage.listdir("gs://none/x"),
        lambda: write("gs://none/x", b"x"),
        lambda: storage.read_bytes("gs://none/x"),
        lambda: storage.match("gs://none/*"),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            call()
        assert str(caught.value.filename).startswith("gs://none/")


def test_scattered_reads_fetch_what_they_need(google_cloud: FakeGoogleCloud) -> None:
    """A shard reads a slice of every cleaned file: 16 MB for each would be the whole crawl."""
    path = "gs://bucket/file.bin"
    google_cloud.objects[path] = content = bytes(range(256)) * 40_000
    with storage.open_raw(path, scattered=True) as file:
        for start in (10_000_000, 5_000_000, 0):
            file.seek(start)
            assert file.read(10) == content[start : start + 10]
    assert google_cloud.bytes_sent < 300_000


@pytest.mark.slow
def test_kept_files_are_read_in_small_parts(google_cloud: FakeGoogleCloud) -> None:
    chance = np.random.default_rng(0)
    pages, units = np.zeros(1_000_000, bool), chance.random(40_000_000) < 0.1
    keepers = chance.integers(0, 2**64, np.count_nonzero(units), np.uint64)
    write_removals("gs://bucket/r.bin", pages, units, keepers[:0], keepers, "")
    assert len(google_cloud.objects["gs://bucket/r.bin"]) > 20_000_000
    before = google_cloud.bytes_sent
    with Removals("gs://bucket/r.bin") as removals:
        assert removals.units(3_000_000, 100).tolist() == units[3_000_000:3_000_100].tolist()
    assert google_cloud.bytes_sent - before < 300_000


# --- the build


def build(*arguments: str) -> Outcome:
    return run_c4(
        "build", "--input", "gs://bucket/wet/*", "--output", "gs://bucket/out", "--shards", "3",
        "--format", "tfrecord,parquet", "--workers", "1", *arguments,
    )  # fmt: skip


def shards(folder: dict[str, bytes]) -> dict[str, bytes]:
    named = {path.rsplit("/", 1)[-1]: content for path, content in folder.items()}
    return {
        name: content
        for name, content in named.items()
        if name.startswith(("train-", "validation-"))
    }


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Shards of the sample pages, built in a folder of this machine."""
    out = tmp_path_factory.mktemp("local") / "out"
    done = run_c4(
        "build", "--input", f"{WET_DIR}/*", "--output", out, "--shards", "3",
        "--format", "tfrecord,parquet", "--workers", "1", "--quiet",
    )  # fmt: skip
    assert done.status == 0, done.err
    return shards({str(path): path.read_bytes() for path in out.iterdir() if path.is_file()})


@pytest.fixture
def crawl(google_cloud: FakeGoogleCloud) -> FakeGoogleCloud:
    for path in sorted(pathlib.Path(WET_DIR).iterdir()):
        google_cloud.objects[f"gs://bucket/wet/{path.name}"] = path.read_bytes()
    return google_cloud


@pytest.mark.slow
def test_a_build_on_google_storage_is_the_local_one(
    crawl: FakeGoogleCloud, local: dict[str, bytes]
) -> None:
    done = build()
    assert done.status == 0, done.err
    assert shards(crawl.objects) == local
    assert not [path for path in crawl.objects if ".tmp-" in path]

    names = [name.removesuffix(".arrow") for name in storage.listdir("gs://bucket/out/cleaned")]
    rules = PageRules(load_recipe("en"))
    crawl.requests.clear()
    sources = cleaned_sources("gs://bucket/out", names)
    build_id = json.loads(crawl.objects["gs://bucket/out/builders/00001.json"])["build"]
    out, formats = "gs://bucket/out", ("parquet",)
    write_shard(ShardTask("train", 0, 3), sources, out, formats, rules, build_id)
    asked = crawl.requests.pop("GET object")
    assert asked <= 2 * len(names) + 1, "one sample has more than 64 kB"
    assert crawl.requests == {"PUT object": 1}

    again = build()
    assert again.status == 0, again.err
    assert "complete already" in again.out

    made, sent = read_manifest(out), crawl.bytes_sent
    assert verify_corpus.content_problems(out, made) == []
    assert crawl.bytes_sent - sent == sum(shard.bytes for shard in made.shards), "each byte once"

    over = build("--start-over")
    assert over.status == 0, over.err
    assert shards(crawl.objects) == local


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "kept"), [("cleaned/sample-00002", 2), ("removals/", 6), ("train-00001-of", 6)]
)
def test_a_build_stopped_by_the_storage_says_so_and_goes_on(
    where: str, kept: int, crawl: FakeGoogleCloud, local: dict[str, bytes]
) -> None:
    denied = []

    def fail(method: str, what: str) -> int | None:
        if method == "PUT" and where in what:
            denied.append(what)
            return 403
        return None

    crawl.fail = fail
    stopped = build()
    assert denied
    assert stopped.status == 1
    line = stopped.err.strip().splitlines()[-1]
    assert line.startswith("c4: error: ")
    assert "Permission denied" in line
    assert "cleaned files are kept" in line
    assert "gs://bucket/out/manifest.json" not in crawl.objects

    cleaned = {path: crawl.objects[path] for path in crawl.names("gs://bucket/out/cleaned/")}
    assert len(cleaned) >= kept
    crawl.fail = lambda method, what: None
    done = build()
    assert done.status == 0, done.err
    assert f"({len(cleaned)} cleaned before)" in done.out
    assert shards(crawl.objects) == local
