"""How remote file systems are reached: options, credentials, servers that behave badly, builds."""

import errno
import io
import json
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines import storage
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats import FORMATS, write_table
from pipelines.corpus.reading import PageReader, open_corpus
from pipelines.quiet_beam import beam
from pipelines.storage import options as storage_options
from samples.make_samples import WET_DIR
from testing.corpora import page_table
from testing.fake_hdfs import FakeHdfs, fake_hdfs
from testing.fake_object_store import FakeStore, fake_s3
from testing.fake_web import FakeWeb, SkippedWaits, fake_web
from testing.helpers import run_c4

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _options(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[None]:
    """Takes the machine's own credentials away, and forgets the options of a test."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION",
                 "AWS_DEFAULT_REGION", "AWS_SKIP_SIGNATURE", "AWS_ENDPOINT_URL",
                 "GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield
    storage.use_options([])


# --- options, in the launcher and on workers


def test_options_are_words_or_values() -> None:
    words = ["--s3_region_name", "eu", "--s3_disable_ssl", "--runner=X", "--s3_endpoint_url=http://h",
             "--hdfs_port=9870", "--no_auth=True", "--s3_verify=False"]  # fmt: skip
    storage.use_options(words)
    of_words = storage_options.settings()
    assert of_words == storage_options.Settings(
        no_auth="True", s3_endpoint_url="http://h", s3_region_name="eu", s3_disable_ssl="true",
        s3_verify="False", hdfs_port="9870",
    )  # fmt: skip
    storage.use_options({"s3_disable_ssl": False, "hdfs_port": 9870, "s3_session_token": None})
    assert storage_options.settings() == storage_options.Settings(hdfs_port="9870")
    storage.use_options(["--s3_region_name"])
    assert storage_options.settings() == storage_options.Settings()


def test_a_worker_knows_the_options_of_the_pipeline() -> None:
    provider = beam.options.value_provider.RuntimeValueProvider
    try:
        provider.set_runtime_options(
            {"s3_region_name": "mars", "hdfs_port": 1, "s3_disable_ssl": True, "no_auth": False}
        )
        assert storage_options.settings() == storage_options.Settings(
            s3_region_name="mars", hdfs_port="1", s3_disable_ssl="True"
        )
        storage.use_options(["--s3_region_name=moon"])
        assert storage_options.settings().s3_region_name == "moon"
    finally:
        provider.set_runtime_options(None)
    assert storage_options.settings().hdfs_port is None


# --- S3


@pytest.fixture
def s3() -> Iterator[FakeStore]:
    pytest.importorskip("obstore", reason="needs the extra aws")
    with fake_s3() as server:
        yield server
        assert server.refused == []


def authorization(server: FakeStore) -> tuple[str, dict[str, str]]:
    headers = {name.lower(): value for name, value in server.seen_headers[-1].items()}
    return headers.get("authorization", ""), headers


@pytest.mark.parametrize("kind", FORMATS)
def test_a_corpus_is_read_from_a_bucket_with_few_requests(
    s3: FakeStore, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)  # training has no options for it
    name = f"train-00000-of-00001{FORMATS[kind].suffix}"
    content = io.BytesIO()
    texts = [f"page {number} " + "words " * 2000 for number in range(800)]
    write_table(kind, page_table(texts), content)
    shards = [{"name": name, "split": "train", "pages": 800, "bytes": content.tell()}]
    s3.objects["s3://bucket/c/manifest.json"] = json.dumps({"shards": shards}).encode()
    s3.objects[f"s3://bucket/c/{name}"] = content.getvalue()

    split = open_corpus("s3://bucket/c").split()
    assert dict(s3.requests) == {"GET object": 1, "GET list": 1}
    reader, found = PageReader(split, 2), []
    for start in range(0, 800, 128):
        found += reader.read(0, start, min(start + 128, 800))
    assert [text.decode() for text in found] == texts
    # A shard: its end and a row group; or 4 MB at a time; or twice from the start. No HEAD: the
    # first answer has the size.
    wanted = {"parquet": 2, "tfrecord": -(-content.tell() >> 22), "json": 2}[kind]
    assert s3.requests["HEAD object"] == 0
    assert s3.requests["GET object"] <= 1 + wanted + 1
    if kind == "parquet":
        dataset = open_corpus("s3://bucket/c").dataset()
        for _ in range(2):  # a file that was read can be read again
            assert dataset.to_table(columns=["text"])["text"].to_pylist() == texts
    del s3.objects[f"s3://bucket/c/{name}"]
    with pytest.raises(CorpusError, match=rf"s3://bucket/c/{name} is missing, though manifest"):
        open_corpus("s3://bucket/c").split()


def test_s3_options_reach_the_server(s3: FakeStore) -> None:
    s3.objects["s3://bucket/a"] = b"1"
    storage.use_options(
        [f"--s3_endpoint_url={s3.address}/", "--s3_access_key_id=KEY", "--s3_session_token=TOKEN",
         "--s3_secret_access_key=SECRET", "--s3_region_name=eu-north-1"]
    )  # fmt: skip
    assert storage.read_bytes("s3://bucket/a") == b"1"
    signed, headers = authorization(s3)
    assert "Credential=KEY/" in signed
    assert "/eu-north-1/s3/" in signed
    assert headers["x-amz-security-token"] == "TOKEN"


def test_s3_without_ssl_needs_no_scheme(s3: FakeStore) -> None:
    s3.objects["s3://bucket/a"] = b"1"
    storage.use_options(
        [f"--s3_endpoint_url={s3.address.removeprefix('http://')}", "--s3_disable_ssl",
         "--s3_access_key_id=KEY", "--s3_secret_access_key=SECRET", "--s3_verify=false"]
    )  # fmt: skip
    assert storage.read_bytes("s3://bucket/a") == b"1"


def test_s3_takes_what_the_environment_gives(
    s3: FakeStore, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    s3.objects["s3://bucket/a"] = b"1"
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert storage.read_bytes("s3://bucket/a") == b"1"
    assert authorization(s3)[0] == ""
    monkeypatch.delenv("AWS_SKIP_SIGNATURE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OFENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    storage.use_options(["--s3_region_name=eu-north-1"])  # other settings, another client
    assert storage.read_bytes("s3://bucket/a") == b"1"
    assert "Credential=OFENV/" in authorization(s3)[0]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    pytest.importorskip("botocore", reason="needs the extra aws")
    (tmp_path / "keys").write_text(
        "[work]\naws_access_key_id = OFFILE\naws_secret_access_key = SECRET\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    storage.use_options(["--s3_region_name=eu-south-1"])
    assert storage.read_bytes("s3://bucket/a") == b"1"
    assert "Credential=OFFILE/" in authorization(s3)[0]


def test_a_build_on_s3_with_worker_processes(
    s3: FakeStore, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Workers are processes of their own: what they know of S3 they have from the options."""
    from pipelines.engines import local

    monkeypatch.setattr(local, "_BYTES_WORTH_A_PROCESS", 1)
    for path in sorted(pathlib.Path(WET_DIR).iterdir()):
        s3.objects[f"s3://bucket/wet/{path.name}"] = path.read_bytes()
    common = ["--shards", "2", "--workers", "2", "--quiet"]
    options = [f"--s3_endpoint_url={s3.address}", "--s3_access_key_id=KEY",
               "--s3_secret_access_key=SECRET", "--s3_region_name=eu-north-1"]  # fmt: skip
    done = run_c4(
        "build", "--input", "s3://bucket/wet/*", "--output", "s3://bucket/out", *common, *options
    )
    assert done.status == 0, done.err
    local = run_c4("build", "--input", f"{WET_DIR}/*", "--output", tmp_path / "out", *common)
    assert local.status == 0, local.err
    shards = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(shards) == 3
    for shard in shards:
        assert s3.objects[f"s3://bucket/out/{shard.name}"] == shard.read_bytes()
    assert not [path for path in s3.objects if ".tmp-" in path]


# --- nobody to ask for credentials (E10)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gs://bucket/a.gz", "no credentials for Google Cloud: run gcloud auth"),
        ("gs://bucket/*.gz", "no credentials for Google Cloud: run gcloud auth"),
        ("s3://bucket/a.gz", "no credentials for S3: set AWS_ACCESS_KEY_ID"),
        ("s3://bucket/*.gz", "no credentials for S3: set AWS_ACCESS_KEY_ID"),
    ],
)
@pytest.mark.parametrize("command", ["explain", "build"])
def test_missing_credentials_are_one_line_within_seconds(
    path: str,
    message: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    pytest.importorskip("obstore", reason="needs the extras gcp and aws")
    pytest.importorskip("botocore", reason="needs the extra aws")
    pytest.importorskip("google.auth", reason="needs the extra gcp")
    # No machine of a cloud: nobody listens there.
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    monkeypatch.setenv("GCE_METADATA_IP", "127.0.0.1:9")
    words = [path] if command == "explain" else ["--input", path, "--output", tmp_path / "out"]
    begun = time.monotonic()
    done = run_c4(command, *words)
    assert time.monotonic() - begun < 20
    assert done.status == 1
    [line] = done.err.splitlines()
    assert line.startswith(f"c4: error: {path.removesuffix('*.gz')}: {message}")


def test_a_wrong_key_file_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    pytest.importorskip("obstore", reason="needs the extra gcp")
    pytest.importorskip("google.auth", reason="needs the extra gcp")
    (tmp_path / "key.json").write_text('{"type": "strange"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(PermissionError, match="no credentials for Google Cloud") as caught:
        storage.stat("gs://bucket/a")
    assert caught.value.filename == "gs://bucket/a"
    assert "\n" not in str(caught.value)


# --- Hadoop


@pytest.fixture
def hdfs() -> Iterator[FakeHdfs]:
    with fake_hdfs() as server:
        yield server
        assert server.refused == []


def test_hdfs_options_are_beams(hdfs: FakeHdfs) -> None:
    port = hdfs.address.rsplit(":", 1)[1]
    hdfs.put("hdfs://data/in/a.gz", b"12")
    with pytest.raises(ValueError, match="needs --hdfs_host, --hdfs_port and --hdfs_user"):
        storage.exists("hdfs://data/in/a.gz")
    options = ["--hdfs_host=localhost", f"--hdfs_port={port}", "--hdfs_user", "c4"]
    storage.use_options(options)
    for path in ("hdfs://data/in/a.gz", "hdfs:///data/in/a.gz"):
        assert storage.read_bytes(path) == b"12"
    assert [f.path for f in storage.match("hdfs://data/*/*.gz")] == ["hdfs://data/in/a.gz"]
    storage.use_options([*options, "--hdfs_full_urls"])
    assert storage.read_bytes("hdfs://server/data/in/a.gz") == b"12"
    found = storage.match("hdfs://server/data/*/*.gz")
    assert [file.path for file in found] == ["hdfs://server/data/in/a.gz"]
    assert storage.listdir("hdfs://server/data/in") == ["a.gz"]
    storage.use_options([*options[:-1], "eve"])
    with pytest.raises(PermissionError, match="who are you"):
        storage.exists("hdfs://data/in/a.gz")


def test_a_cluster_that_is_not_there_is_one_line() -> None:
    storage.use_options(["--hdfs_host=127.0.0.1", "--hdfs_port=9", "--hdfs_user=c4"])
    with pytest.raises(OSError, match="server cannot be reached") as caught:
        storage.create_if_absent("hdfs://a/b", b"x")
    assert "\n" not in str(caught.value)


def test_hdfs_removes_no_folder(hdfs: FakeHdfs) -> None:
    port = hdfs.address.rsplit(":", 1)[1]
    storage.use_options({"hdfs_host": "localhost", "hdfs_port": port, "hdfs_user": "c4"})
    hdfs.put("hdfs://data/in/a.gz", b"12")
    with pytest.raises(IsADirectoryError):
        storage.remove(["hdfs://data/in"])
    assert storage.exists("hdfs://data/in")


# --- the web (B3)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWeb]:
    SkippedWaits(monkeypatch)
    with fake_web() as server:
        yield server


@pytest.mark.parametrize("scattered", [False, True])
def test_servers_without_ranges_heads_or_validators_will_do(web: FakeWeb, scattered: bool) -> None:
    content = bytes(range(256)) * 2000
    web.objects["/a"] = content
    web.knows_ranges = web.knows_head = web.tells_validators = False
    path = f"{web.address}/a"
    assert storage.stat(path) == storage.FileInfo(path, len(content), "")
    with storage.open_raw(path, scattered) as file:
        assert file.read(10) == content[:10]
        file.seek(400_000)
        assert file.read(10) == content[400_000:400_010]
        file.seek(3)
        assert file.read() == content[3:]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_transfer_is_continued(web: FakeWeb, knows_ranges: bool) -> None:
    content = bytes(range(256)) * 20_000
    web.objects["/a"] = content
    web.knows_ranges = knows_ranges
    web.breaks_after, web.breaks = 3_000_000, 2
    assert storage.read_bytes(f"{web.address}/a") == content
    web.breaks = 100
    web.breaks_after = 0
    with pytest.raises(OSError, match=r"/a") as caught:
        storage.read_bytes(f"{web.address}/a")
    assert caught.value.errno == errno.EIO
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("status", "number"), [(403, errno.EACCES), (410, errno.ENOENT)])
def test_what_a_server_refuses_is_named(web: FakeWeb, status: int, number: int) -> None:
    web.fail = lambda method, what: status
    for call in (storage.stat, storage.read_bytes):
        with pytest.raises(OSError, match=r"a\.gz") as caught:
            call(f"{web.address}/a.gz")
        assert caught.value.errno == number


def sample() -> pathlib.Path:
    return sorted(pathlib.Path(WET_DIR).iterdir())[0]


@pytest.mark.parametrize("where", ["web", "file"])
def test_a_build_and_an_explanation_from_an_address(
    where: str, web: FakeWeb, tmp_path: pathlib.Path
) -> None:
    copy = tmp_path / "new crawl" / sample().name
    copy.parent.mkdir()
    copy.write_bytes(sample().read_bytes())
    web.objects[f"/crawl/{copy.name}"] = copy.read_bytes()
    path = copy.as_uri() if where == "file" else f"{web.address}/crawl/{copy.name}"
    out = tmp_path / "out"
    output = out.as_uri() if where == "file" else out
    built = run_c4("build", "--input", path, "--output", output, "--shards", "1", "--quiet")
    assert built.status == 0, built.err
    plain = run_c4("build", "--input", sample(), "--output", tmp_path / "plain", "--shards", "1",
                   "--quiet")  # fmt: skip
    assert plain.status == 0, plain.err
    for shard in sorted((tmp_path / "plain").glob("*.parquet")):
        assert (out / shard.name).read_bytes() == shard.read_bytes()
    explained = run_c4("explain", path, "--corpus", out)
    assert explained.status == 0, explained.err
    assert "page kept" in explained.out


def test_a_pattern_of_a_web_server_is_one_line(tmp_path: pathlib.Path) -> None:
    done = run_c4("build", "--input", "https://host/crawl/*.gz", "--output", tmp_path / "out")
    assert done.status == 1
    [line] = done.err.splitlines()
    assert "https:// cannot be listed" in line
    assert "--input" in line


# --- clients that are not installed


def test_a_missing_credential_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="needs the extra aws")
    missing: dict[str, Any] = {"s3": "botocore.session", "gs": "google.auth"}
    for scheme, module in missing.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(OSError, match=f"{scheme}:// needs the extra"):
            storage.stat(f"{scheme}://third/a")
