"""Manifests, groups of pages, and texts by number out of both formats."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats import FORMATS
from pipelines.corpus.reading import CorpusSplit, PageReader, Shard, open_corpus
from testing.corpora import make_corpus

LONG = "so long that a varint of its length has two bytes " * 8
TEXTS = [
    [f"page {shard}.{i} ä\n{LONG if i % 5 == 0 else ''}" for i in range(count)]
    for shard, count in enumerate([23, 0, 7])
]
ALL = [text for shard in TEXTS for text in shard]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_corpus(
        tmp_path_factory.mktemp("corpus") / "both",
        {"train": TEXTS, "validation": [["v"]]},
        ("json", "tfrecord", "parquet"),
    )


@pytest.fixture(scope="module")
def small_row_groups(tmp_path_factory):
    folder = make_corpus(tmp_path_factory.mktemp("corpus") / "groups", {"train": TEXTS})
    for path in pathlib.Path(folder).glob("*.parquet"):
        pq.write_table(pq.read_table(path), path, row_group_size=4)
    return folder


def spans_of(corpus, group_pages):
    """All pages of a split, ``group_pages`` at a time."""
    reader, pages = PageReader(corpus, 2), corpus.page_count
    for begin in range(0, pages, group_pages):
        found = reader.read_span(begin, min(begin + group_pages, pages))
        yield from (text.decode() for text in found)


@pytest.mark.parametrize("kind", ["parquet", "tfrecord", "json"])
@pytest.mark.parametrize("group_pages", [1, 5, 128])
def test_all_pages_in_order(folder, kind, group_pages):
    corpus = open_corpus(folder).split(format=kind)
    assert list(spans_of(corpus, group_pages)) == ALL


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "tfrecord", "small row groups"])
@pytest.mark.parametrize("open_places", [1, 3])
@given(data=st.data())
def test_any_pages_in_any_order(folder, small_row_groups, kind, open_places, data):
    corpus = open_corpus(small_row_groups if " " in kind else folder).split(
        format=None if " " in kind else kind
    )
    reader = PageReader(corpus, open_places)
    for _ in range(data.draw(st.integers(1, 6))):
        shard = data.draw(st.sampled_from([0, 1]))
        texts = [TEXTS[0], TEXTS[2]][shard]  # the one between has no pages, and is no shard to read
        start = data.draw(st.integers(0, len(texts) - 1))
        stop = data.draw(st.integers(start + 1, len(texts)))
        found = reader.read(shard, start, stop)
        assert [text.decode() for text in found] == texts[start:stop]


def test_parquet_comes_first_and_formats_hold_the_same(folder):
    parquet, tfrecord = open_corpus(folder).split(), open_corpus(folder).split(format="tfrecord")
    assert (parquet.format, parquet.page_count) == ("parquet", 30)
    assert parquet.digest == tfrecord.digest
    assert open_corpus(folder).split("validation").digest != parquet.digest


def test_the_first_pages_alone(folder):
    corpus = open_corpus(folder).split(max_pages=25)
    assert [shard.pages for shard in corpus.shards] == [23, 2]  # the empty shard is not opened
    assert list(spans_of(corpus, 10)) == ALL[:25]
    assert [s.pages for s in open_corpus(folder).split(max_pages=23).shards] == [23]
    assert open_corpus(folder).split(max_pages=99).page_count == 30
    with pytest.raises(CorpusError, match="max_pages must be positive, got 0"):
        open_corpus(folder).split(max_pages=0)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.data())
def test_spans_against_counting_pages(pages, data):
    shards = tuple(Shard(str(n), count, count) for n, count in enumerate(pages))
    reader = PageReader(CorpusSplit("", "train", "parquet", shards), 1)
    everything = [(shard, page) for shard, count in enumerate(pages) for page in range(count)]
    start = data.draw(st.integers(0, len(everything)))
    stop = data.draw(st.integers(start, len(everything)))
    reader.read = lambda shard, first, end: [(shard, page) for page in range(first, end)]
    found = reader.read_span(start, stop)
    assert found == everything[start:stop]
    with pytest.raises(IndexError):
        reader.read_span(start, len(everything) + 1)


def test_a_uri(folder):
    corpus = open_corpus(f"file://{folder}").split()
    assert PageReader(corpus, 1).read(0, 0, 1)[0].decode() == ALL[0]


# --- refusals -----------------------------------------------------------------------------------


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def manifest_with(tmp_path, shards):
    (tmp_path / "manifest.json").write_text(json.dumps({"shards": shards}))
    return str(tmp_path)


def entry(name="train-00000-of-00001.parquet", split="train", pages=3):
    return {"name": name, "split": split, "pages": pages}


def test_a_folder_without_a_manifest(tmp_path):
    with pytest.raises(CorpusError, match=r"has no manifest\.json: it is not a corpus, or its"):
        open_corpus(str(tmp_path)).split()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged: Expecting"),
        ("[]", "is damaged: it is not a JSON object"),
        ('{"a": 1}', "damaged: shards must be of type list, got None"),
        ('{"shards": [{"name": "a.parquet"}]}', "damaged: shards lacks 'split'"),
    ],
)
def test_a_damaged_manifest(tmp_path, content, message):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(CorpusError, match=message):
        open_corpus(str(tmp_path)).split()


@pytest.mark.parametrize(
    ("shards", "options", "message"),
    [
        ([entry("../train.parquet")], {}, "damaged: shard name"),
        ([entry("train.avro")], {}, "of no known format"),
        ([entry(pages=-1)], {}, "has -1 pages"),
        ([entry(pages=True)], {}, "shards.pages must be of type int, got True"),
        ([entry(pages=10**30)], {}, "has 10{30} pages"),
        ([entry(pages=0)], {}, "no pages in its split 'train'; splits with pages: none"),
        ([entry()], {"name": "validation"}, "split 'validation'; splits with pages: train"),
        ([entry()], {"format": "tfrecord"}, "holds parquet, not tfrecord: build it with --format "),
        ([entry()], {"format": "avro"}, "unknown format 'avro'; formats are parquet, tfrecord, js"),
    ],
)
def test_corpora_that_cannot_be_read(tmp_path, shards, options, message):
    with pytest.raises(CorpusError, match=message):
        open_corpus(manifest_with(tmp_path, shards)).split(**options)


def read_all(folder, kind):
    corpus = open_corpus(str(folder)).split(format=kind)
    return list(spans_of(corpus, 5))


@pytest.mark.parametrize("kind", ["parquet", "tfrecord", "json"])
def test_a_missing_shard(folder, tmp_path, kind):
    copy = copied(folder, tmp_path)
    (copy / f"train-00000-of-00003{FORMATS[kind].suffix}").unlink()
    with pytest.raises(CorpusError, match=rf"00003\.{kind}\S* is missing, though"):
        read_all(copy, kind)


@pytest.mark.parametrize("kind", ["parquet", "tfrecord", "json"])
def test_shards_that_are_missing_or_of_another_size_are_found_at_once(folder, tmp_path, kind):
    copy = copied(folder, tmp_path)
    manifest = json.loads((copy / "manifest.json").read_text())
    for shard in manifest["shards"]:
        shard["bytes"] = (copy / shard["name"]).stat().st_size
    (copy / "manifest.json").write_text(json.dumps(manifest))
    split, whole = (open_corpus(str(each)).split(format=kind) for each in (copy, folder))
    assert split.page_count == whole.page_count
    [path] = copy.glob(f"train-00000*{FORMATS[kind].suffix}")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorpusError, match=rf"00003\.{kind}\S* has \d+ bytes and manifest\.json l"):
        open_corpus(str(copy)).split(format=kind)
    path.unlink()
    with pytest.raises(CorpusError, match=rf"{kind}\S* is missing, though manifest\.json lists it"):
        open_corpus(str(copy)).split(format=kind)


def test_the_digest_is_of_what_the_corpus_was_made_from(folder, tmp_path):
    copy = copied(folder, tmp_path)
    manifest = json.loads((copy / "manifest.json").read_text())
    digests = set()
    for change in (
        {}, {"recipe": {"name": "en"}}, {"inputs": [{"sha256": "a"}, {"sha256": "b"}]},
        {"inputs": [{"sha256": "a"}, {"sha256": "c"}]}, {"settings": {"lists": {"words": "d"}}},
    ):  # fmt: skip
        (copy / "manifest.json").write_text(json.dumps({**manifest, **change}))
        corpus = open_corpus(str(copy))
        formats = {corpus.split(format=kind).digest for kind in FORMATS}
        assert len(formats) == 1, "the same pages in whatever format"
        digests |= formats
    assert len(digests) == 5


def test_a_pipe_for_a_manifest_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(CorpusError, match=r"manifest\.json cannot be read: not a regular file"):
        open_corpus(str(tmp_path)).split()


def outcome(folder, kind):
    try:
        return read_all(folder, kind)
    except CorpusError as error:
        return str(error)


def test_a_flipped_bit_anywhere_in_a_tfrecord_is_noticed(folder, tmp_path):
    copy = copied(folder, tmp_path)
    path = copy / "train-00000-of-00003.tfrecord"
    content = path.read_bytes()
    places = range(0, len(content), 97)
    for at in places:
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        message = outcome(copy, "tfrecord")
        assert isinstance(message, str), at
        assert message.startswith(f"{path}: record ")
        assert "\n" not in message
    assert len(places) > 20


def test_a_flipped_bit_in_a_parquet_page(tmp_path):
    # Large and incompressible enough to know where the texts are.
    texts = [" ".join(str(i * k * 7919 % 10007) for k in range(40)) for i in range(200)]
    folder = tmp_path / "corpus"
    make_corpus(folder, {"train": [texts]})
    path = folder / "train-00000-of-00001.parquet"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"cannot be read: .*(crc|CRC|checksum).*--verify"):
        read_all(folder, "parquet")


@pytest.mark.slow
def test_a_flipped_bit_in_the_head_of_a_parquet_page_loses_no_pages(folder, tmp_path):
    path = copied(folder, tmp_path) / "train-00000-of-00003.parquet"
    content = path.read_bytes()
    whole = read_all(path.parent, "parquet")
    for byte in (*range(4, 40), *range(len(content) - 600, len(content), 7)):
        for bit in range(8):
            changed = bytearray(content)
            changed[byte] ^= 1 << bit
            path.write_bytes(changed)
            try:
                assert read_all(path.parent, "parquet") == whole
            except CorpusError as error:
                assert path.name in str(error)  # noqa: PT017


def test_a_tfrecord_file_cut_off(folder, tmp_path):
    copy = copied(folder, tmp_path)
    path = copy / "train-00000-of-00003.tfrecord"
    content = path.read_bytes()
    ends, at = [0], 0
    while at < len(content):
        at += int.from_bytes(content[at : at + 8], "little") + 16
        ends.append(at)
    for end, message in [
        (ends[11], "ends after 11 records and manifest.json lists more"),
        (ends[11] + 7, "record 11: damaged: its length"),
        (ends[12] - 1, "record 11: damaged: its data"),
    ]:
        path.write_bytes(content[:end])
        with pytest.raises(CorpusError, match=message):
            read_all(copy, "tfrecord")


@pytest.mark.parametrize("kind", ["parquet", "tfrecord", "json"])
def test_a_shard_of_another_build(folder, tmp_path, kind):
    copy = copied(folder, tmp_path)
    suffix = FORMATS[kind].suffix
    shutil.copy(copy / f"train-00000-of-00003{suffix}", copy / f"train-00002-of-00003{suffix}")
    message = {
        "parquet": "has 23 pages and manifest.json lists 7",
        "tfrecord": "has more records than the 7 that manifest.json lists",
        "json": "has 23 pages and manifest.json lists 7",
    }[kind]
    with pytest.raises(CorpusError, match=message):
        read_all(copy, kind)


@pytest.mark.parametrize("column", [{"body": ["x"]}, {"text": [1]}])
def test_columns_of_another_kind(tmp_path, column):
    pq.write_table(pa.table(column), tmp_path / "train-00000-of-00001.parquet")
    folder = manifest_with(tmp_path, [entry(pages=1)])
    with pytest.raises(CorpusError, match="has no column 'text' of strings, got"):
        read_all(folder, "parquet")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_strings_of_every_width(tmp_path, kind):
    texts = pa.array(ALL, pa.string()).cast(kind)
    pq.write_table(pa.table({"text": texts}), tmp_path / "train-00000-of-00001.parquet")
    folder = manifest_with(tmp_path, [entry(pages=len(ALL))])
    assert read_all(folder, "parquet") == ALL


def test_a_page_without_text(tmp_path):
    column = pa.array(["a", None], pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(CorpusError, match="a page without text in row group 0"):
        read_all(manifest_with(tmp_path, [entry(pages=2)]), "parquet")


def test_records_of_another_kind(folder, tmp_path):
    copy = copied(folder, tmp_path)
    path = copy / "train-00002-of-00003.tfrecord"
    content = path.read_bytes().replace(b"text\x12", b"test\x12", 1)
    length = int.from_bytes(content[:8], "little")
    crc = google_crc32c.value(content[12 : 12 + length])
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")
    path.write_bytes(content[: 12 + length] + masked + content[16 + length :])
    with pytest.raises(CorpusError, match="record 0: no feature 'text'"):
        read_all(copy, "tfrecord")


def test_reading_needs_no_jax():
    script = (
        "import sys; import model.data.input_pipeline, model.data.workers, model.data.vocabulary; "
        "print(sorted({'jax', 'flax', 'apache_beam'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_text_of_ones_own_is_a_corpus_with_the_smallest_manifest(tmp_path):
    texts = {"train": [["first page", "second page"], ["third"]], "validation": [["held out"]]}
    folder, shards = tmp_path / "mine", []
    folder.mkdir()
    for split, of_split in texts.items():
        for number, pages in enumerate(of_split):
            name = f"{split}-{number}.parquet"
            pq.write_table(pa.table({"text": pages}), folder / name)
            shards.append({"name": name, "split": split, "pages": len(pages)})
    (folder / "manifest.json").write_text(json.dumps({"shards": shards}))
    for split, of_split in texts.items():
        corpus = open_corpus(str(folder)).split(split)
        reader = PageReader(corpus, 1)
        found = [reader.read(n, 0, shard.pages) for n, shard in enumerate(corpus.shards)]
        assert found == [[page.encode() for page in pages] for pages in of_split]


@pytest.mark.parametrize("make", ["file", "folder"])
def test_what_is_no_corpus_is_told_how_to_become_one(tmp_path, make):
    path = tmp_path / "mine.jsonl"
    if make == "folder":
        path.mkdir()
    else:
        path.write_text('{"text": "a page"}\n')
    with pytest.raises(CorpusError, match=r"mine\.jsonl (is a file|has no)") as caught:
        open_corpus(str(path)).split()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith("; for text of your own see docs/training.md")
