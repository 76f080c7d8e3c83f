"""Builds of crawls and lists, over HTTP and from files."""

import gzip
import json
import pathlib
from collections.abc import Iterator

import pytest

from pipelines import BuildConfig
from pipelines.crawl.inputs import input_files
from pipelines.input_list import read_input_list
from samples.make_samples import WET_DIR
from testing.fake_web import FakeWeb, SkippedWaits, fake_web
from testing.helpers import digests, manifest_of, run_c4

PREFIX = "crawl-data/CC-MAIN-2019-18/segments/1.1/wet/"
LIST = "crawl-data/CC-MAIN-2019-18/wet.paths.gz"
SHARED = pathlib.Path(__file__).resolve().parents[3] / ".." / "shared" / "wet"
SAMPLES = sorted(pathlib.Path(WET_DIR).iterdir())[:3]


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWeb]:
    SkippedWaits(monkeypatch)
    with fake_web() as server:
        for sample in SAMPLES:
            server.objects[f"/{PREFIX}{sample.name}"] = sample.read_bytes()
        server.objects[f"/{LIST}"] = listed()
        yield server


def listed(prefix: str = PREFIX) -> bytes:
    return gzip.compress("".join(f"{prefix}{sample.name}\n" for sample in SAMPLES).encode())


def test_lists_become_files_with_sizes(web: FakeWeb, tmp_path: pathlib.Path) -> None:
    wanted = [(f"{web.address}/{PREFIX}{sample.name}", sample.stat().st_size) for sample in SAMPLES]
    (tmp_path / "wet.paths.gz").write_bytes(listed())
    for inputs, crawl, base_url in (
        ((), ["CC-MAIN-2019-18"], web.address),
        ((), [f"{web.address}/{LIST}"], ""),
        ([f"@{web.address}/{LIST}"], [], ""),
        ([f"@{tmp_path}/wet.paths.gz", wanted[1][0]], ["CC-MAIN-2019-18"], f"{web.address}/"),
    ):
        found = input_files(inputs, crawl, None, base_url)
        assert [file[:2] for file in found] == wanted
    assert [file[:2] for file in input_files((), ["CC-MAIN-2019-18"], (1, 2), web.address)] == (
        wanted[1:2]
    )
    assert web.most_at_once <= 10


def test_local_lists_name_files_beside_them(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.paths").write_text("a.gz\nsub/b.gz\n")
    (tmp_path / "a.gz").write_bytes(b"12")
    with pytest.raises(FileNotFoundError, match=r"sub/b\.gz"):
        input_files([f"@{tmp_path}/mine.paths"], (), None, "")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.gz").write_bytes(b"123")
    found = input_files([f"@{tmp_path}/mine.paths", f"{tmp_path}/*.gz"], (), None, "")
    assert [file.size for file in found] == [2, 3]


@pytest.mark.slow
def test_a_crawl_is_built_over_http_as_from_files(web: FakeWeb, tmp_path: pathlib.Path) -> None:
    names = [sample.name for sample in SAMPLES[:2]]
    words = ["--crawl", "CC-MAIN-2019-18", "--base-url", web.address, "--files", "0:2"]
    output = ["--output", tmp_path / "web", "--shards", "2"]
    done = run_c4("build", *words, *output, "--quiet")
    assert done.status == 0, done.err
    (tmp_path / "wet").mkdir()
    for name in names:
        (tmp_path / "wet" / name).write_bytes((pathlib.Path(WET_DIR) / name).read_bytes())
    (tmp_path / "wet" / "wet.paths.gz").write_bytes(listed(""))
    done = run_c4("build", "--input", f"@{tmp_path}/wet/wet.paths.gz", "--files", ":2", "--output",
                  tmp_path / "files", "--shards", "2", "--quiet")  # fmt: skip
    assert done.status == 0, done.err
    assert digests(tmp_path / "web") == digests(tmp_path / "files") != {}
    addresses = [f"{web.address}/{PREFIX}{name}" for name in names]
    assert [file.path for file in read_input_list(str(tmp_path / "web"))] == addresses
    assert [file["path"] for file in manifest_of(tmp_path / "web")["inputs"]] == addresses
    again = run_c4("build", *words, *output)
    assert again.status == 0, again.err
    assert "is complete already" in again.out


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/wet here")
@pytest.mark.slow
def test_real_pages_are_fetched_and_built(web: FakeWeb, tmp_path: pathlib.Path) -> None:
    real = sorted(SHARED.glob("orig-*.warc.wet.gz"))[:3]
    web.objects |= {f"/{PREFIX}{path.name}": path.read_bytes() for path in real}
    paths = "\n".join(f"{PREFIX}{path.name}" for path in real)
    web.objects[f"/{LIST}"] = gzip.compress(paths.encode())
    web.breaks_after, web.breaks = 100_000, 4
    words = ["--crawl", "CC-MAIN-2019-18", "--base-url", web.address]
    assert run_c4("fetch", *words, "--to", tmp_path / "wet", "--quiet").status == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "wet").iterdir()} == {
        path.name: path.read_bytes() for path in real
    }
    web.breaks = 4
    one = ["--shards", "1", "--quiet", "--output"]
    assert run_c4("build", *words, *one, tmp_path / "web").status == 0
    inputs = ["--input", tmp_path / "wet" / "*.gz"]
    assert run_c4("build", *inputs, *one, tmp_path / "files").status == 0
    assert digests(tmp_path / "web") == digests(tmp_path / "files") != {}
    assert manifest_of(tmp_path / "web")["counts"]["pages_written"] > 10


def test_a_mark_without_a_list_is_refused() -> None:
    with pytest.raises(ValueError, match="give a list after @, such as"):
        input_files(["@"], [], None, "")


def test_a_hostile_list_stops_a_build(web: FakeWeb, tmp_path: pathlib.Path) -> None:
    web.objects[f"/{LIST}"] = gzip.compress(f"{PREFIX}{SAMPLES[0].name}\n/etc/passwd\n".encode())
    done = run_c4("build", "--crawl", "CC-MAIN-2019-18", "--base-url", web.address, "--output",
                  tmp_path / "out")  # fmt: skip
    assert done.status == 1
    [line] = done.err.splitlines()
    assert line.endswith(f"{LIST}: line 2 is not relative: '/etc/passwd' (--crawl)")
    assert not (tmp_path / "out").exists()


def test_lists_are_options_of_a_build(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="--files and --base-url are of lists"):
        BuildConfig(inputs="a.gz", output="x", files=(0, 2))
    with pytest.raises(ValueError, match="neither a crawl"):
        BuildConfig(crawl="a b", output="x")
    with pytest.raises(ValueError, match="no input"):
        BuildConfig(output="x")
    monkeypatch.chdir(tmp_path)
    config = BuildConfig(inputs="@a.paths", crawl=("CC-MAIN-2019-18", "b.paths"), output="x")
    config = config.absolute()
    assert config.inputs == (f"@{tmp_path}/a.paths",)
    assert config.crawl == ("CC-MAIN-2019-18", f"{tmp_path}/b.paths")
    plain = BuildConfig(inputs="a", output="x").identity
    assert json.dumps(config.identity) == json.dumps(plain)
