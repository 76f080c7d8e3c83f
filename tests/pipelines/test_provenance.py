"""``--provenance``: columns that say where the record of each page is."""

import gzip
import json
import pathlib

import pyarrow.parquet as pq
import pytest
from fastwarc import ArchiveIterator, WarcRecordType

from pipelines import BuildConfig, open_corpus
from pipelines.corpus.card.facts import Facts
from pipelines.corpus.card.hugging_face import dataset_card
from pipelines.stages import graph
from pipelines.stages.clean_files import clean_identity
from pipelines.stages.merge_files import MergePlan
from testing.helpers import digests, run_c4, wet_bytes

OLD = "2019-04-18T10:00:00Z"
COLUMNS = ["source-file", "source-offset", "record-id"]
TEXT = "The {} was older than the church. It stood by the water. People liked it very much."


def write(path: pathlib.Path, places: list[str]) -> None:
    content = b""
    for place in places:
        record = gzip.decompress(wet_bytes([(f"http://{place}.example/", OLD, TEXT.format(place))]))
        _, _, record = record.rpartition(b"WARC/1.0\r\n")
        if place != "mill":  # a record without an id
            number = f"{len(place):08}-0000-4000-8000-{len(place):012}"
            record = f"WARC-Record-ID: <urn:uuid:{number}>\r\n".encode() + record
        content += gzip.compress(b"WARC/1.0\r\n" + record, mtime=0)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def wet(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("wet")
    write(folder / "1.warc.wet.gz", ["mill", "inn", "church"])
    write(folder / "2.warc.wet.gz", ["ferry", "harbour"])
    write(folder / "3.warc.wet.gz", ["lighthouse"])
    return folder


def build(wet: pathlib.Path, out: pathlib.Path, *options: str) -> None:
    outcome = run_c4("build", "--input", wet / "*.gz", "--output", out, "--workers", "1",
                     "--shards", "2", "--quiet", *options)  # fmt: skip
    assert outcome.status == 0, outcome.err


def rows(out: pathlib.Path) -> list[dict]:
    return [
        row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


@pytest.mark.slow
def test_the_columns_name_the_record_of_each_page(
    wet: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {}
    for path in wet.iterdir():
        with open(path, "rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.conversion):
                record_id = record.headers.get("WARC-Record-ID")
                wanted[record.headers["WARC-Target-URI"]] = (
                    str(path), record.stream_pos, record_id and record_id[10:-1],
                )  # fmt: skip
    build(wet, tmp_path / "plain", "--format", "json,parquet")
    build(wet, tmp_path / "out", "--provenance", "--format", "json,parquet")
    found = rows(tmp_path / "out")
    assert {row["url"]: tuple(row[name] for name in COLUMNS) for row in found} == wanted
    assert wanted["http://mill.example/"][2] is None
    without = [{key: row[key] for key in row if key not in COLUMNS} for row in found]
    assert without == rows(tmp_path / "plain")
    plain, with_columns = digests(tmp_path / "plain"), digests(tmp_path / "out")
    names = [name for name in plain if name.endswith(".json.gz")]
    assert [plain[name] for name in names] == [with_columns[name] for name in names]
    assert [page.url for page in open_corpus(str(tmp_path / "out")).pages()] == [
        r["url"] for r in found
    ]
    made = {name: json.loads((tmp_path / name / "manifest.json").read_bytes())["settings"]
            for name in ("plain", "out")}  # fmt: skip
    assert made["out"].pop("provenance") is True
    assert made["out"] == made["plain"]
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert '{"name": "source-offset", "dtype": "int64"}' in card
    schemas = [pq.read_schema(path) for path in (tmp_path / "out").glob("*.parquet")]
    assert len(schemas) == 3
    assert all(schema.equals(schemas[0]) for schema in schemas)  # a shard without pages, too
    # Also where cleaned files are merged first.
    monkeypatch.setattr(graph, "plan_merge", lambda *_: MergePlan(groups=2, ranges=2))
    build(wet, tmp_path / "merged", "--provenance", "--format", "json,parquet")
    assert digests(tmp_path / "merged") == with_columns


def test_formats_without_columns_are_refused() -> None:
    message = "--provenance adds columns to Parquet shards, not to json,tfrecord"
    with pytest.raises(ValueError, match=message):
        BuildConfig(inputs=("a",), output="out", formats="json,tfrecord", provenance=True)


def test_the_option_cleans_nothing_again_and_builds_shards_again() -> None:
    plain = BuildConfig(inputs=("a",), output="out")
    asked = BuildConfig(inputs=("a",), output="out", provenance=True)
    assert "provenance" not in plain.identity
    assert plain.identity != asked.identity
    assert clean_identity(plain) == clean_identity(asked)


def test_a_card_of_other_formats_lists_no_such_columns() -> None:
    splits = {"train": [("train-00000-of-00001.json.gz", 1, 1)], "validation": []}
    facts = Facts(
        formats=["json"], splits=splits, description="A corpus", config_name="en", provenance=True
    )
    assert "source-file" not in dataset_card(facts)
