"""The manifest of a built corpus, that of text of one's own, and those that nobody reads."""

import dataclasses
import json
import pathlib
import pickle
import re
import shutil
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import open_corpus
from pipelines.corpus import formats
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats import FORMATS, ShardFormat
from pipelines.corpus.manifest import Manifest, OwnText, read_manifest, write_manifest
from pipelines.corpus.reading import PageReader
from samples.make_samples import WET_DIR
from testing.helpers import run_c4

WET = WET_DIR / "sample-00000.warc.wet.gz"


def build(out: pathlib.Path, *options: str) -> None:
    done = run_c4("build", "--input", WET, "--output", out, "--workers", 1, "--quiet", *options)
    assert done.status == 0, done.err


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("built") / "corpus"
    build(out, "--format", "tfrecord,parquet,json")
    return out


@pytest.fixture
def own(tmp_path: pathlib.Path) -> pathlib.Path:
    """Text of one's own, with the smallest manifest."""
    folder = tmp_path / "own"
    folder.mkdir()
    pq.write_table(pa.table({"text": ["first page", "second"]}), folder / "part-0.parquet")
    shards = [{"name": "part-0.parquet", "split": "train", "pages": 2}]
    (folder / "manifest.json").write_text(json.dumps({"shards": shards}))
    return folder


def content_of(folder: pathlib.Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return found


def test_a_manifest_is_what_its_file_says(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    made = read_manifest(str(built))
    assert made.as_dict() == content_of(built)
    assert list(made.as_dict()) == list(content_of(built))
    assert pickle.loads(pickle.dumps(made)) == made
    assert made.formats == ("tfrecord", "parquet", "json")
    assert made.counts.pages_written == sum(split.pages for split in made.splits.values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.keep = "none"  # type: ignore[misc]
    written = write_manifest(str(tmp_path), dataclasses.replace(made, keep="none"))
    assert written.checksum != made.checksum
    assert read_manifest(str(tmp_path)) == written


def test_keys_of_later_versions_are_ignored_and_still_under_the_checksum(
    built: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    content = content_of(built) | {"rank": 7}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(CorpusError, match=r"manifest\.json is damaged: checksum mismatch"):
        read_manifest(str(tmp_path))
    del content["checksum"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert read_manifest(str(tmp_path)).shards == read_manifest(str(built)).shards


def test_a_corpus_that_keeps_what_no_version_here_knows_has_all_kept_files(
    built: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    content = content_of(built) | {"keep": "more"}
    del content["checksum"]
    for shard in content["shards"]:
        shutil.copy(built / shard["name"], tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    verified = run_c4("verify", tmp_path)
    assert verified.status == 1
    assert re.search(r"^cleaned/sample-00000-\w+\.arrow is missing$", verified.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda made: made["counts"].update(pages_read="7"), "counts.pages_read must be of type i"),
        (lambda made: made["counts"].update(pages_read=True), "counts.pages_read must be of type "),
        (lambda made: made["counts"]["pages_dropped"].update(x=1.5), "counts.pages_dropped.x must"),
        (lambda made: made["inputs"][0].pop("sha256"), "inputs lacks 'sha256'"),
        (lambda made: made.update(recipe={"name": "en"}), "recipe.description must be of type str"),
        (lambda made: made["splits"].pop("train"), "splits are ['validation']"),
        (
            lambda made: made["shards"][0].update(format="json"),
            "the entry of shard 'train-0000",
        ),
        (lambda made: made["shards"].pop(), "it lists no shards for one of the splits"),
        (lambda made: made["settings"].pop("lists"), "settings lacks 'lists'"),
    ],
)
def test_what_is_wrong_is_named(
    change: Any, words: str, built: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    content = content_of(built)
    change(content)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(CorpusError) as caught:
        open_corpus(str(tmp_path))
    assert f"{tmp_path}/manifest.json is damaged: " in str(caught.value)
    assert words in str(caught.value)


# ------------------------------------------------------------------- text of the user's own


def test_text_of_ones_own_is_opened_and_read(own: pathlib.Path) -> None:
    corpus = open_corpus(str(own))
    assert isinstance(corpus.manifest, OwnText)
    assert (corpus.splits, corpus.counts) == ({"train": 2}, None)
    assert [page.text for page in corpus.pages()] == ["first page", "second"]
    assert corpus.dataset().to_table().to_pydict() == {"text": ["first page", "second"]}
    outcome = run_c4("vocab", "--corpus", own, "--size", 300, "--output", own / "v")
    assert "16 characters of text give at most 17 pieces" in outcome.err


@pytest.mark.parametrize("command", [["verify"], ["explain", "--url", "x", "--corpus"]])
def test_what_needs_kept_files_refuses_text_of_ones_own_in_a_line(
    command: list[str], own: pathlib.Path
) -> None:
    outcome = run_c4(*command, own)
    assert outcome.status == 1
    line = (outcome.err or outcome.out).splitlines()[0]
    assert "manifest.json has no manifest_version: it describes text that c4 build did not" in line
    assert len(outcome.err.splitlines()) <= 1
    with pytest.raises(CorpusError, match="this needs a corpus of c4 build"):
        read_manifest(str(own))


@pytest.mark.parametrize("version", [2, 0, "1", None])
@pytest.mark.parametrize(
    "command",
    [
        ["verify"],
        ["explain", "--url", "x", "--corpus"],
        ["vocab", "--size", 300, "--output", "none", "--corpus"],
        ["plan", "--files", 1, "--like"],
    ],
    ids=lambda command: command[0],
)
def test_another_version_is_refused_everywhere_by_its_number(
    command: list[Any], version: object, own: pathlib.Path, built: pathlib.Path
) -> None:
    for content in (content_of(own), content_of(built)):
        (own / "manifest.json").write_text(json.dumps(content | {"manifest_version": version}))
        outcome = run_c4(*command, own)
        assert outcome.status == 1
        assert f"manifest_version {version!r}, and this version of c4" in outcome.err + outcome.out
        assert len(outcome.err.splitlines()) <= 1
        with pytest.raises(CorpusError, match=r"has manifest_version .* reads 1: use the c4 that"):
            open_corpus(str(own))


# ------------------------------------------------------------------------------- a new format


@pytest.mark.slow
def test_a_format_is_one_file_and_one_line_of_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, built: pathlib.Path
) -> None:
    module = "tests.pipelines.corpus.lines_format"
    monkeypatch.setitem(FORMATS, "lines", ShardFormat(".txt", module))
    out = tmp_path / "out"
    build(out, "--format", "lines")
    assert (out / "train-00000-of-00001.txt").exists()
    corpus = open_corpus(str(out))
    split = corpus.split()
    assert (corpus.splits, split.format) == (open_corpus(str(built)).splits, "lines")
    texts = [page.text for page in corpus.pages()]
    assert texts == [page.text for page in open_corpus(str(built)).pages()]
    assert [t.decode() for t in PageReader(split, 1).read(0, 0, split.page_count)] == texts
    assert run_c4("verify", out).status == 0
    build(out, "--format", "lines")  # is complete already
    with pytest.raises(CorpusError, match="holds lines, not parquet: build it with --format parq"):
        corpus.dataset()
    with pytest.raises(ValueError, match="formats are parquet, tfrecord, json, lines"):
        formats.format_named("zip")


def test_every_format_gives_the_same_pages(built: pathlib.Path) -> None:
    corpus = open_corpus(str(built))
    pages = {name: list(corpus.split("train", name).read_pages()) for name in FORMATS}
    assert {len(found) for found in pages.values()} == {corpus.splits["train"]}
    for whole, *others in zip(*pages.values(), strict=True):
        assert whole.language == "en"
        bare = whole._replace(language=None, language_probability=None)
        assert others == [bare, bare]


@pytest.mark.parametrize("kind", FORMATS)
def test_pages_of_a_damaged_or_shorter_shard_are_an_error(
    kind: str, own: pathlib.Path, built: pathlib.Path
) -> None:
    name = f"train-00000-of-00001{FORMATS[kind].suffix}"
    content = (built / name).read_bytes()
    (own / name).write_bytes(content)
    count = open_corpus(str(built)).splits["train"]
    for listed in (count, count - 1, count + 1):
        shards = [{"name": name, "split": "train", "pages": listed}]
        (own / "manifest.json").write_text(json.dumps({"shards": shards}))
        pages = open_corpus(str(own)).pages()
        if listed == count:
            assert len(list(pages)) == count
            continue
        with pytest.raises(CorpusError, match=rf"{name} .*manifest\.json lists"):
            list(pages)
    (own / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CorpusError, match=name):
        list(open_corpus(str(own)).pages())


def test_manifest_is_a_public_type(built: pathlib.Path) -> None:
    assert isinstance(open_corpus(str(built)).manifest, Manifest)
