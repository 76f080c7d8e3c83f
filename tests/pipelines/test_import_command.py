"""``c4 import``, end to end: what it writes is a corpus, made by the graph that builds from WET."""

import bz2
import gzip
import json
import pathlib
import shutil
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import BuildConfig, build, open_corpus, storage
from pipelines.engines import local
from pipelines.wet.records import read_wet
from pipelines.wet.results import ReadStats, WetRecord
from testing.dumps import WikiPage, dump_bytes
from testing.fake_object_store import FakeStore, fake_s3
from testing.fake_web import fake_web
from testing.helpers import digests, manifest_of, read_corpus, run_c4, write_wet

SHARED = pathlib.Path(__file__).resolve().parents[2] / ".." / "shared" / "wet"
REAL = SHARED / "orig-02-CC-MAIN-2026-12.warc.wet.gz"


def pages_of(path: pathlib.Path) -> list[WetRecord]:
    with storage.open_raw(str(path)) as stream:
        return [item for item in read_wet(stream, ReadStats()) if isinstance(item, WetRecord)]


def write_lines(path: pathlib.Path, pages: list[WetRecord]) -> None:
    lines = [{"text": p.text, "url": p.url, "timestamp": p.timestamp} for p in pages]
    path.write_bytes(gzip.compress("".join(f"{json.dumps(line)}\n" for line in lines).encode()))


def rows(folder: pathlib.Path) -> list[tuple[str, str, str]]:
    found = read_corpus(folder)
    return [
        (row["url"], row["timestamp"], row["text"])
        for split in ("train", "validation")
        for row in found[split]
    ]


@pytest.mark.skipif(not REAL.is_file(), reason="no ../shared/wet here")
@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["en", "tfds"])
def test_real_pages_as_json_lines_go_through_the_rules_of_wet_files(
    tmp_path: pathlib.Path, recipe: str
) -> None:
    pages = pages_of(REAL)
    assert len(pages) > 100
    write_lines(tmp_path / "a.jsonl.gz", pages[::2])
    write_lines(tmp_path / "b.jsonl.gz", pages[1::2])
    done = run_c4(
        "import", "--from", "jsonl", "--input", tmp_path / "*.jsonl.gz", "--output",
        tmp_path / "lines", "--recipe", recipe, "--workers", "2",
    )  # fmt: skip
    assert done.status == 0, done.err
    build(
        BuildConfig(inputs=str(REAL), output=str(tmp_path / "wet"), recipe=recipe),
        show_progress=False,
    )
    expected = rows(tmp_path / "wet")
    assert len(expected) > 10
    assert rows(tmp_path / "lines") == expected
    made, wet = manifest_of(tmp_path / "lines"), manifest_of(tmp_path / "wet")
    assert made["counts"]["pages_dropped"] == wet["counts"]["pages_dropped"]
    assert made["counts"]["lines_dropped"] == wet["counts"]["lines_dropped"]
    assert made["settings"]["source"] == "jsonl"
    assert "source" not in wet["settings"]


LINES = [
    {"text": "One.\n\n  Two lines. "},
    {"text": "One.\n\n  Two lines. ", "url": "http://a.example/"},
    {"text": "Again.", "url": "http://a.example/", "timestamp": "2020-01-01T00:00:00Z"},
]


def import_lines(tmp_path: pathlib.Path, *more: str) -> pathlib.Path:
    path, out = tmp_path / "x.jsonl", tmp_path / "out"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in LINES) + "no json\n")
    done = run_c4("import", "--from", "jsonl", "--input", path, "--output", out, *more)
    assert done.status == 0, done.err
    return out


@pytest.mark.slow
def test_without_a_recipe_every_text_stays_as_it_is(tmp_path: pathlib.Path) -> None:
    out = import_lines(tmp_path)
    assert sorted((url, text) for url, _, text in rows(out)) == [
        ("file:x.jsonl#1", "One.\n\n  Two lines. "),
        ("http://a.example/", "Again."),
        ("http://a.example/", "One.\n\n  Two lines. "),
    ]
    [reject] = map(json.loads, next((out / "rejects").iterdir()).read_text().splitlines())
    assert (reject["line"], reject["reason"]) == (4, "bad_json")
    counts = manifest_of(out)["counts"]
    assert (counts["pages_read"], counts["pages_written"], counts["records_rejected"]) == (3, 3, 1)
    assert run_c4("verify", out).status == 0
    assert open_corpus(str(out)).splits == {"train": 3}
    explained = run_c4("explain", "--corpus", out, "--url", "http://a.example/")
    assert explained.status == 0
    assert explained.out.count("page kept") == 2


@pytest.mark.slow
def test_a_second_run_does_nothing_and_a_changed_file_is_read_again(tmp_path: pathlib.Path) -> None:
    out = import_lines(tmp_path)
    before = digests(out)
    again = run_c4("import", "--from", "jsonl", "--input", tmp_path / "x.jsonl", "--output", out)
    assert "complete already" in again.out
    assert digests(out) == before
    (tmp_path / "y.jsonl").write_text('{"text": "New."}\n')
    more = run_c4("import", "--from", "jsonl", "--input", tmp_path, "--output", out)
    assert more.status == 0, more.err
    assert manifest_of(out)["timing"]["files_resumed"] == 1
    assert "New." in {text for _, _, text in rows(out)}


@pytest.mark.slow
def test_a_folder_of_another_source_or_of_wet_files_is_refused(tmp_path: pathlib.Path) -> None:
    out = import_lines(tmp_path)
    for command in (("import", "--from", "books"), ("build",)):
        done = run_c4(*command, "--input", tmp_path / "x.jsonl", "--output", out)
        assert done.status == 1
        assert "holds a build with other settings" in done.err
    done = run_c4("explain", tmp_path / "x.jsonl", "--from", "books", "--corpus", out)
    assert "was made of jsonl: leave --from out" in done.err


def test_wrong_usage_is_one_line(tmp_path: pathlib.Path) -> None:
    assert run_c4("import", "--input", "x", "--output", "y").status == 2
    assert run_c4("import", "--from", "wet", "--input", "x", "--output", "y").status == 2
    done = run_c4("import", "--from", "books", "--input", tmp_path, "--output", tmp_path / "o")
    assert (done.status, done.err.count("\n")) == (1, 1)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text("It began.")
    done = run_c4(
        "import", "--from", "books", "--input", tmp_path, "--output", tmp_path / "o",
        "--recipe", "en",
    )  # fmt: skip
    assert "have the same name" in done.err
    given = ("--from", "books", "--input", tmp_path / "a", "--output", tmp_path / "o")
    for words in (["--crawl", "CC-MAIN-2019-18"], ["--files", "0:1"], ["--base-url", "s3://a"]):
        done = run_c4("import", *given, *words)
        assert (done.status, f"unknown option {words[0]}" in done.err) == (1, True)


PAGES = [
    WikiPage("Old Bridge", "'''It''' needed {{convert|5|km}} of [[rope]].<ref>A</ref>"),
    WikiPage("Older", "#REDIRECT [[Old Bridge]]", redirect="Old Bridge"),
]


@pytest.mark.slow
def test_parts_of_a_dump_are_units_of_work(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("mwparserfromhell", reason="needs the extra import")
    (tmp_path / "part1.xml.bz2").write_bytes(bz2.compress(dump_bytes(PAGES)))
    shutil.copy(tmp_path / "part1.xml.bz2", tmp_path / "part2.xml.bz2")
    (tmp_path / "part3.xml").write_bytes(b"<!DOCTYPE a>" + dump_bytes(PAGES))
    command = ("import", "--from", "wikipedia", "--input", tmp_path, "--output", tmp_path / "out")
    done = run_c4(*command)
    assert done.status == 1
    assert "has a DTD or entities of its own (line 1)" in done.err
    done = run_c4(*command, "--allow-unreadable-files", "1")
    assert done.status == 0
    assert "pages of other kinds, left out: 2 redirect" in done.out
    address = "https://en.wikipedia.org/wiki/Old_Bridge"
    assert (
        rows(tmp_path / "out") == [(address, "2024-01-02T03:04:05Z", "It needed 5 km of rope.")] * 2
    )
    made = manifest_of(tmp_path / "out")
    assert made["counts"]["records_of_other_types"] == {"redirect": 2}
    assert "mwparserfromhell" in made["versions"]
    explained = run_c4("explain", "--corpus", tmp_path / "out", "--url", address)
    assert explained.out.count("It needed 5 km of rope.") == 2


@pytest.mark.slow
def test_a_corpus_of_ours_can_be_imported_again(tmp_path: pathlib.Path) -> None:
    out = import_lines(tmp_path, "--format", "parquet,json,tfrecord")
    for source in ("parquet", "jsonl", "tfds", "hf"):
        shards = {"parquet": "*.parquet", "jsonl": "*.json.gz", "tfds": "*.tfrecord"}
        given = out / f"train-{shards.get(source, '*.parquet')}"
        done = run_c4("import", "--from", source, "--input", given, "--output", tmp_path / source)
        assert done.status == 0, done.err
        assert rows(tmp_path / source) == rows(out)
    assert pq.ParquetFile(next((tmp_path / "hf").glob("train*"))).schema_arrow.names[0] == "text"


@pytest.fixture
def s3() -> Iterator[FakeStore]:
    pytest.importorskip("obstore", reason="needs the extra aws")
    with fake_s3(page_size=2) as store:
        yield store
    storage.use_options([])


@pytest.mark.slow
def test_a_folder_of_a_bucket_is_imported_by_worker_processes(
    s3: FakeStore, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(local, "_BYTES_WORTH_A_PROCESS", 1)
    (tmp_path / "in").mkdir()
    for number in range(4):
        line = json.dumps({"text": f"Page {number}.", "url": f"http://a.example/{number}"})
        (tmp_path / "in" / f"{number}.jsonl").write_text(line)
        s3.objects[f"s3://bucket/in/{number}.jsonl"] = line.encode()
    s3.objects["s3://bucket/in/README.md"] = b"x"
    options = [f"--s3_endpoint_url={s3.address}", "--s3_access_key_id=KEY",
               "--s3_secret_access_key=SECRET", "--s3_region_name=eu-north-1"]  # fmt: skip
    command = ("import", "--from", "jsonl", "--workers", "2", "--input")
    done = run_c4(*command, "s3://bucket/in", "--output", "s3://bucket/out", *options)
    assert done.status == 0, done.err
    done = run_c4(*command, tmp_path / "in", "--output", tmp_path / "out")
    assert done.status == 0, done.err
    assert len(rows(tmp_path / "out")) == 4
    for shard in (tmp_path / "out").glob("*.parquet"):
        assert s3.objects[f"s3://bucket/out/{shard.name}"] == shard.read_bytes()


@pytest.mark.slow
def test_files_are_read_over_http(tmp_path: pathlib.Path) -> None:
    table = pa.table(
        {"text": ["One.", "Two."], "url": ["http://a.example/1", "http://a.example/2"]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with fake_web() as web:
        web.objects["/data/a.parquet"] = (tmp_path / "a.parquet").read_bytes()
        given = f"{web.address}/data/a.parquet"
        done = run_c4("import", "--from", "hf", "--input", given, "--output", tmp_path / "out")
    assert done.status == 0, done.err
    assert sorted(text for _, _, text in rows(tmp_path / "out")) == ["One.", "Two."]


@pytest.mark.slow
def test_wet_files_too_can_be_taken_as_they_are(tmp_path: pathlib.Path) -> None:
    page = ("http://a.example/", "2019-04-18T10:00:00Z", "  Read more\n\nlorem ipsum { \n")
    write_wet(tmp_path / "a.warc.wet.gz", [page])
    done = run_c4(
        "build", "--input", tmp_path / "a.warc.wet.gz", "--output", tmp_path / "out",
        "--recipe", "as_is",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert rows(tmp_path / "out") == [page]
    explained = run_c4("explain", tmp_path / "a.warc.wet.gz", "--corpus", tmp_path / "out")
    assert "page kept" in explained.out
