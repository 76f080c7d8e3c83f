"""One corpus a language: whole corpora that other commands take, of the same pages in order."""

import itertools
import json
import pathlib
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import open_corpus, split_corpus
from pipelines.split_corpus import SplitConfig
from pipelines.stages.write_shards import plan_shards
from testing.helpers import Outcome, digests, manifest_of, read_corpus, run_c4, write_wet

pytestmark = pytest.mark.slow

DATE = "2019-04-18T10:00:00Z"
TEXTS = {
    "en": "The old bridge was closed in spring because two of its arches had moved. ",
    "de": "Die alte Brücke wurde im Frühling gesperrt, weil sich zwei Bögen bewegt hatten. ",
    "fr": "Le vieux pont a été fermé au printemps parce que deux de ses arches avaient bougé. ",
}
RECIPE = 'name = "many"\nbase = "multilingual"\ndedup_unit = "none"\n'


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A corpus of 120 pages in three languages, in four train shards and two formats."""
    folder = tmp_path_factory.mktemp("split")
    pages = [
        (f"http://{language}.example/{number}", DATE, f"{number}.\n{text * 4}\n" * 3)
        for number in range(60)
        for language, text in TEXTS.items()
        if language == "en" or number % 2
    ]
    write_wet(folder / "a.warc.wet.gz", pages)
    (folder / "many.toml").write_text(RECIPE)
    done = run_c4(
        "build", "--input", folder / "a.warc.wet.gz", "--output", folder / "out",
        "--recipe", folder / "many.toml", "--shards", "4", "--format", "parquet,json",
        "--provenance",
    )  # fmt: skip
    assert done.status == 0, done.err
    return folder / "out"


def split(corpus: pathlib.Path, output: pathlib.Path | None = None) -> Outcome:
    return run_c4("split", corpus, *(["--output", output] if output else []))


def urls(folder: pathlib.Path) -> list[str]:
    return [page["url"] for page in itertools.chain(*read_corpus(folder).values())]


def test_each_language_is_a_corpus(corpus: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = split(corpus, tmp_path / "out")
    assert done.status == 0, done.err
    assert [line.split()[:3] for line in done.out.splitlines()] == [
        ["en", "60", "pages"], ["de", "30", "pages"], ["fr", "30", "pages"],
    ]  # fmt: skip
    whole = urls(corpus)
    for language in TEXTS:
        folder = tmp_path / "out" / language
        assert urls(folder) == [url for url in whole if url.startswith(f"http://{language}.")]
        assert run_c4("verify", folder).status == 0
        opened = open_corpus(str(folder))
        assert sum(opened.splits.values()) == len(urls(folder))
        assert next(opened.pages()).language == language
        made = manifest_of(folder)
        assert made["recipe"]["name"] == f"many.{language}"
        assert {shard["format"] for shard in made["shards"]} == {"parquet", "json"}
        counts = made["counts"]
        assert counts["pages_read"] == 120
        assert counts["pages_dropped"] == {"other_language": 120 - len(urls(folder))}
        card = (folder / "README.md").read_text("utf-8")
        assert f"# c4/many.{language}" in card
        assert f'language: ["{language}"]' in card
        assert f"dated from {DATE} to {DATE}" in card
        columns = pq.read_schema(next(folder.glob("train-*.parquet"))).names
        sets = json.loads((folder / "croissant.json").read_bytes())["recordSet"]
        [pages] = [each for each in sets if each["@id"] == "pages"]
        assert {field["name"] for field in pages["field"]} == {*columns, "split"}
        assert not (folder / "cleaned").exists()
    assert open_corpus(str(tmp_path / "out" / "de")).split().digest != (
        open_corpus(str(tmp_path / "out" / "fr")).split().digest
    )
    english, model = tmp_path / "out" / "en", tmp_path / "v.model"
    vocab = run_c4("vocab", "--corpus", english, "--size", 45, "--output", model)
    assert vocab.status == 0, vocab.err


def test_a_part_says_of_itself_what_a_build_says(
    corpus: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name, whatever its shards; its dates and its languages; where its pages came from."""
    inputs = corpus.parent / "a.warc.wet.gz"
    names = set()
    for shards, most in (("1", 256 << 20), ("3", 8_000)):
        folder = tmp_path / shards
        done = run_c4(
            "build", "--input", inputs, "--output", folder, "--recipe", corpus.parent / "many.toml",
            "--shards", shards, "--provenance", "--quiet", "--workers", "1",
        )  # fmt: skip
        assert done.status == 0, done.err
        monkeypatch.setattr(
            split_corpus, "plan_shards", lambda size, _, most=most: plan_shards(size, size // most)
        )
        assert split(folder).status == 0
        assert run_c4("verify", folder / "en").status == 0
        made = manifest_of(folder / "en")
        names.add(made["root_digest"])
        assert made["dates"] == [DATE, DATE]
        assert made["languages"] == {"en": 60}
        card = json.loads((folder / "en" / "croissant.json").read_text("utf-8"))
        assert card["datePublished"] == DATE
        for path in (folder / "en").glob("*.parquet"):
            assert pq.read_schema(path).names[-3:] == ["source-file", "source-offset", "record-id"]
        assert {page["source-file"] for page in read_corpus(folder / "en")["train"]} == {
            str(inputs)
        }
    assert len(made["shards"]) > 3
    assert len(names) == 1


def test_the_parts_are_the_same_every_time_and_written_once(
    corpus: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert split(corpus, tmp_path / "one").status == 0
    # One language at a time, in many shards: the pages are those of one reading.
    monkeypatch.setattr(split_corpus, "_OPEN_TEXT_BYTES", 1)
    assert split(corpus, tmp_path / "two").status == 0
    for language in TEXTS:
        assert digests(tmp_path / "one" / language) == digests(tmp_path / "two" / language)

    again = split(corpus, tmp_path / "one")
    assert again.out.count("(complete already)") == 3
    shard = next((tmp_path / "one" / "de").glob("train-*.parquet"))
    shard.unlink()
    (tmp_path / "one" / "fr" / "manifest.json").unlink()  # a run that was killed
    again = split(corpus, tmp_path / "one")
    assert [line.split()[0] for line in again.out.splitlines() if "complete" in line] == ["en"]
    for language in TEXTS:
        assert digests(tmp_path / "one" / language) == digests(tmp_path / "two" / language)


def test_a_part_without_pages_any_more_is_named(
    corpus: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(corpus, whole)
    assert split(whole).status == 0
    (tmp_path / "hosts.txt").write_text("fr.example\n")
    done = run_c4(
        "build", "--input", corpus.parent / "a.warc.wet.gz", "--output", whole,
        "--recipe", corpus.parent / "many.toml", "--shards", "4", "--format", "parquet,json",
        "--provenance", "--opt-out", tmp_path / "hosts.txt",
    )  # fmt: skip
    assert done.status == 0, done.err
    again = split(whole)
    assert again.status == 0, again.err
    [line] = [line for line in again.out.splitlines() if line.startswith("fr ")]
    assert line.endswith(f"{whole / 'fr'}: left over from earlier, remove it: the corpus has no "
                         "such page any more")  # fmt: skip
    assert again.out.count("left over") == 1


def test_many_shards_of_a_language(
    corpus: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = split_corpus.plan_shards
    monkeypatch.setattr(split_corpus, "plan_shards", lambda size, shards: plan(size, 7))
    parts = split_corpus.split_corpus(SplitConfig(folder=str(corpus), output=str(tmp_path / "out")))
    assert [(part.language, part.pages) for part in parts] == [("de", 30), ("en", 60), ("fr", 30)]
    for language in TEXTS:
        made = manifest_of(tmp_path / "out" / language)
        train = [s["pages"] for s in made["shards"] if s["split"] == "train"][::2]
        assert len(train) == 7
        assert max(train) - min(train) <= 1
        assert urls(tmp_path / "out" / language) == [
            url for url in urls(corpus) if url.startswith(f"http://{language}.")
        ]


def test_parts_lie_in_the_corpus_and_leave_it_whole(
    corpus: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    before = {path: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    assert split(copy).status == 0
    assert {path: path.read_bytes() for path in copy.iterdir() if path.is_file()} == before
    assert all((copy / language).is_dir() for language in TEXTS)
    assert run_c4("verify", copy).status == 0
    assert run_c4("explain", "--corpus", copy, "--url", "http://de.example/1").status == 0
    made = json.loads((copy / "de" / "manifest.json").read_text())
    assert [entry["path"] for entry in made["inputs"]] == [
        str(path) for path in sorted(copy.glob("*.parquet"))
    ]


def test_what_cannot_be_split_is_refused_in_a_line(
    corpus: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    foreign = tmp_path / "out" / "fr"
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").write_text("mine")
    refused = split(corpus, tmp_path / "out")
    assert refused.status == 1
    assert refused.err == (
        f"c4: error: {foreign} holds files that c4 split did not write: give another --output\n"
    )
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["fr", "notes.txt"]

    other = tmp_path / "json"
    done = run_c4(
        "build", "--input", corpus.parent / "a.warc.wet.gz", "--output", other, "--format", "json"
    )
    assert done.status == 0, done.err
    assert "has no Parquet shards" in split(other).err
    assert "has no manifest.json" in split(tmp_path / "nothing").err

    damaged = tmp_path / "damaged"
    shutil.copytree(corpus, damaged)
    shard = next(path for path in sorted(damaged.glob("train-*.parquet")))
    content = bytearray(shard.read_bytes())
    content[len(content) // 10] ^= 0xFF  # among the texts
    shard.write_bytes(content)
    refused = split(damaged, tmp_path / "parts")
    assert refused.status == 1
    assert shard.name in refused.err
    assert refused.err.count("\n") == 1
    assert not list((tmp_path / "parts").rglob("manifest.json"))


def test_a_forged_language_is_no_path(corpus: pathlib.Path, tmp_path: pathlib.Path) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(corpus, forged)
    shard = next(path for path in sorted(forged.glob("train-*.parquet")))
    table = pq.read_table(shard)
    evil = pa.array(["../evil"] * len(table), pa.large_string())
    at = table.schema.get_field_index("language")
    pq.write_table(table.set_column(at, "language", evil), shard, write_page_checksum=True)
    refused = split(forged, tmp_path / "parts")
    assert refused.status == 1
    assert f"{shard.name}: '../evil' is not a language code" in refused.err
    assert not (tmp_path / "parts").exists()
    assert not (tmp_path / "evil").exists()
