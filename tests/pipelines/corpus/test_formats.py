import errno
import gzip
import io
import itertools
import json
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import storage
from pipelines.corpus import dataset_info, formats
from pipelines.corpus.card.facts import Facts
from pipelines.corpus.card.hugging_face import dataset_card
from pipelines.corpus.formats import FORMATS, parquet, write_table
from pipelines.corpus.formats.pages import TEXT_FEATURES

Page = dict[str, Any]

_SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("text", pa.string()),
        ("timestamp", pa.string()),
        ("content_type", pa.string()),
        ("content_length", pa.string()),
        ("language", pa.string()),
        ("language_probability", pa.float32()),
    ]
)


def _page(text: str, **others: Any) -> Page:
    return {
        "url": "http://a.example/",
        "text": text,
        "timestamp": "2019-04-25T12:57:54Z",
        "content_type": "text/plain",
        "content_length": str(len(text.encode())),
        "language": "en",
        "language_probability": 0.75,
        **others,
    }


def _table(pages: list[Page]) -> pa.Table:
    return pa.Table.from_pylist(pages, schema=_SCHEMA)


def _bytes(fmt: str, table: pa.Table) -> bytes:
    file = io.BytesIO()
    write_table(fmt, table, file)
    return file.getvalue()


def _published(page: Page) -> dict[str, str]:
    return {name: page[column] for name, column in TEXT_FEATURES.items()}


# --- readers written from the format descriptions, not from the writers


def _read_tfrecords(data: bytes) -> list[dict[str, str]]:
    """Checks both sums of every record and walks its protocol buffer."""
    file, pages = io.BytesIO(data), []
    while length := file.read(8):
        assert struct.unpack("<I", file.read(4))[0] == _mask(google_crc32c.value(length))
        record = file.read(struct.unpack("<Q", length)[0])
        assert struct.unpack("<I", file.read(4))[0] == _mask(google_crc32c.value(record))
        ((tag, features),) = _fields(record)
        assert tag == 1
        page = {}
        for tag, entry in _fields(features):
            (key, name), (value, feature) = _fields(entry)
            ((kind, bytes_list),) = _fields(feature)
            ((item, text),) = _fields(bytes_list)
            assert (tag, key, value, kind, item) == (1, 1, 2, 1, 1)
            page[name.decode()] = text.decode()
        assert list(page) == sorted(page)
        pages.append(page)
    return pages


def _mask(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    fields, at = [], 0
    while at < len(data):
        tag, at = _number(data, at)
        assert tag % 8 == 2, "every field of an Example of texts is length-delimited"
        length, at = _number(data, at)
        assert at + length <= len(data)
        fields.append((tag // 8, data[at : at + length]))
        at += length
    return fields


def _number(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number += (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return number, at


def _read(fmt: str, data: bytes) -> list[dict[str, str]]:
    if fmt == "tfrecord":
        return _read_tfrecords(data)
    if fmt == "json":
        lines = gzip.decompress(data).decode().split("\n")
        assert lines.pop() == ""
        return [json.loads(line) for line in lines]
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    return [{name: row[name] for name in TEXT_FEATURES} for row in rows]


# --- properties

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_pages = st.builds(
    _page,
    _texts | st.integers(120, 20_000).map("é".__mul__),
    url=_texts,
    timestamp=_texts,
    content_type=st.sampled_from(["text/plain", "text/html", ""]),
    content_length=_texts,
    language=st.none() | st.sampled_from(["en", "de"]),
    language_probability=st.none() | st.floats(0, 1, width=32),
)


@pytest.mark.parametrize("fmt", FORMATS)
@settings(max_examples=40, deadline=None)
@given(pages=st.lists(_pages, max_size=8))
def test_what_is_written_is_read_back(fmt: str, pages: list[Page]) -> None:
    assert _read(fmt, _bytes(fmt, _table(pages))) == [_published(p) for p in pages]


@pytest.mark.parametrize("fmt", FORMATS)
@settings(max_examples=40, deadline=None)
@given(
    pages=st.lists(_pages, max_size=8),
    cuts=st.lists(st.integers(0, 8), max_size=3).map(sorted),
    before=st.lists(_pages, max_size=2),
    after=st.lists(_pages, max_size=2),
    large=st.sets(st.sampled_from([n for n in _SCHEMA.names if n != "language_probability"])),
)
def test_the_layout_of_the_table_leaves_no_trace(
    fmt: str,
    pages: list[Page],
    cuts: list[int],
    before: list[Page],
    after: list[Page],
    large: set[str],
) -> None:
    whole = _table(before + pages + after)
    for name in large:
        i = whole.schema.get_field_index(name)
        whole = whole.set_column(i, name, whole[name].cast(pa.large_string()))
    sliced = whole.slice(len(before), len(pages))
    edges = [0, *(min(cut, len(pages)) for cut in cuts), len(pages)]
    columns = [
        # the chunks of one column need not be those of another
        pa.chunked_array(
            [sliced[name].combine_chunks().slice(a, b - a) for a, b in itertools.pairwise(e)],
            type=sliced.schema.field(name).type,
        )
        for i, name in enumerate(_SCHEMA.names)
        for e in [edges if i % 2 else [0, len(pages)]]
    ]
    rechunked = pa.table(columns, names=_SCHEMA.names)
    shuffled = rechunked.select(sorted(_SCHEMA.names)).replace_schema_metadata({"pandas": "{}"})
    assert _bytes(fmt, shuffled) == _bytes(fmt, _table(pages))


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_shard_larger_than_every_buffer(fmt: str) -> None:
    pages = [_page(f"{i} " + "wörd " * (i % 700), url=f"http://a.example/{i}") for i in range(9000)]
    table = _table(pages)
    assert table.nbytes > 15e6
    data = _bytes(fmt, table)
    assert _read(fmt, data) == [_published(p) for p in pages]
    pieces = pa.concat_tables(table.slice(a, 777) for a in range(0, 9000, 777))
    assert _bytes(fmt, pieces) == data


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("n_bytes", [0, 1, 127, 128, 16383, 16384, 1 << 21])
def test_lengths_around_the_steps_of_a_varint(fmt: str, n_bytes: int) -> None:
    pages = [_page("x" * (n_bytes + i)) for i in range(-60, 60) if n_bytes + i >= 0][::5]
    assert _read(fmt, _bytes(fmt, _table(pages))) == [_published(p) for p in pages]


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_file_stays_open_and_is_written_from_where_it_stands(fmt: str) -> None:
    file = io.BytesIO()
    file.write(b"before")
    write_table(fmt, _table([_page("a")]), file)
    assert file.getvalue() == b"before" + _bytes(fmt, _table([_page("a")])) or fmt == "parquet"
    assert not file.closed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("n_pages", [1, 5000])
def test_a_full_disk_stops_every_writer(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, fmt: str, n_pages: int
) -> None:
    temporary = tmp_path / ".shard.tmp-0"
    monkeypatch.setattr(storage.local, "temporary_for", lambda _: str(temporary))
    temporary.symlink_to("/dev/full")
    table = _table([_page(f"{i} " * 500) for i in range(n_pages)])
    with pytest.raises(OSError, match="shard") as caught:  # noqa: SIM117
        with storage.write_atomically(str(tmp_path / "shard")) as file:
            write_table(fmt, table, file)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


# --- single formats

# Written by TensorFlow 2.21.0: TFRecordWriter, Example.SerializeToString(deterministic=True).
_TENSORFLOWS_RECORD = bytes.fromhex(
    "9500000000000000d593a3460a92010a170a0e636f6e74656e742d6c656e67746812050a030a01360a1e0a0c63"
    "6f6e74656e742d74797065120e0a0c0a0a746578742f706c61696e0a120a0474657874120a0a080a06c39c6ec3"
    "af000a250a0974696d657374616d7012180a160a14323031392d30342d32355431323a35373a35345a0a1c0a03"
    "75726c12150a130a11687474703a2f2f612e6578616d706c652f3361c437"
)
_ITS_PAGE = _page("Ünï\0", content_length="6")


def test_a_record_of_tensorflow_byte_for_byte() -> None:
    assert _bytes("tfrecord", _table([_ITS_PAGE])) == _TENSORFLOWS_RECORD


def test_tensorflow_reads_an_empty_shard_as_no_bytes() -> None:
    assert _bytes("tfrecord", _table([])) == b""


def test_json_has_the_keys_of_allenais_release_first() -> None:
    data = _bytes("json", _table([_page('A "quote"\nand ünïcode \u2028\0')]))
    assert gzip.decompress(data).decode() == (
        r'{"text":"A \"quote\"\nand ünïcode ' + "\u2028" + r'\u0000",'
        '"timestamp":"2019-04-25T12:57:54Z","url":"http://a.example/",'
        '"content-length":"28","content-type":"text/plain"}\n'
    )


def test_gzip_header_tells_neither_time_nor_name() -> None:
    # RFC 1952: magic, deflate, no flags (so no name), mtime 0
    assert _bytes("json", _table([]))[:8] == bytes.fromhex("1f8b080000000000")


def test_parquet_columns() -> None:
    page = _page("a", language=None, language_probability=None)
    data = _bytes("parquet", _table([_page("b"), page]))
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.schema_arrow.metadata is None
    assert file.metadata.metadata is None
    assert [(f.name, str(f.type), f.nullable) for f in file.schema_arrow] == [
        ("text", "string", False),
        ("url", "string", False),
        ("timestamp", "string", False),
        ("content-type", "string", False),
        ("content-length", "string", False),
        ("language", "string", True),
        ("language-probability", "float", True),
    ]
    table = file.read()
    assert table["language"].to_pylist() == ["en", None]
    assert table["language-probability"].to_pylist() == [0.75, None]
    group = file.metadata.row_group(0)
    assert {group.column(i).compression for i in range(7)} == {"ZSTD"}
    assert not group.column(0).is_stats_set
    assert "PLAIN_DICTIONARY" not in group.column(0).encodings
    assert "RLE_DICTIONARY" not in group.column(0).encodings


def test_parquet_tells_a_flipped_bit() -> None:
    data = bytearray(_bytes("parquet", _table([_page(f"{i} rather long text") for i in range(99)])))
    column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0)
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    with pytest.raises(OSError, match=r"(?i)crc"):
        pq.read_table(io.BytesIO(data), page_checksum_verification=True)


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(0, 12), max_size=40), limit=st.integers(1, 30))
def test_row_groups_close_when_full(lengths: list[int], limit: int) -> None:
    expected, start, filled = [], 0, 0
    for i, length in enumerate(lengths):
        filled += length
        if filled >= limit:
            expected.append((start, i + 1))
            start, filled = i + 1, 0
    if start < len(lengths):
        expected.append((start, len(lengths)))
    text = pa.chunked_array([["é" * (n // 2) + "x" * (n % 2) for n in lengths]], pa.large_string())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP_TEXT_BYTES", limit)
        assert list(parquet.row_groups(text)) == expected


@pytest.mark.slow
def test_row_groups_hold_the_bytes_they_say() -> None:
    n_pages, n_bytes = 1000, 100_000
    table = _table([_page("x" * n_bytes, url=str(i)) for i in range(n_pages)])
    metadata = pq.ParquetFile(io.BytesIO(_bytes("parquet", table))).metadata
    rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    full = -(-parquet.ROW_GROUP_TEXT_BYTES // n_bytes)
    assert rows == [full, full, n_pages - 2 * full]


# --- refusals


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("parqet", "unknown format 'parqet'; did you mean 'parquet'\\? .*--format"),
        ("TFRecords", "did you mean 'tfrecord'"),
        ("json.gz", "did you mean 'json'"),
        ("zip", "unknown format 'zip'; formats are parquet, tfrecord, json"),
    ],
)
def test_an_unknown_format_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_table(name, _table([]), io.BytesIO())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_table([]).drop_columns("url"), "column 'url'"),
        (_table([]).drop_columns("language"), "column 'language'"),
        (_table([_page("a", timestamp=None)]), "'timestamp' must have a value.* 1 nulls"),
        (
            _table([]).set_column(1, "text", pa.array([], pa.binary())),
            "'text' must be string or large_string, got binary",
        ),
        (
            _table([]).set_column(6, "language_probability", pa.array([], pa.float64())),
            "'language_probability' must be float, got double",
        ),
    ],
)
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_table_that_is_not_one_of_pages(fmt: str, table: pa.Table, message: str) -> None:
    file = io.BytesIO()
    with pytest.raises(ValueError, match=message):
        write_table(fmt, table, file)
    assert file.getvalue() == b""


@pytest.mark.parametrize(("index", "count"), [(-1, 1), (1, 1), (0, 0)])
def test_shard_index_out_of_range(index: int, count: int) -> None:
    with pytest.raises(ValueError, match="shard index must be in"):
        formats.shard_file_name("train", index, count, "json")


def test_shard_names_widen_beyond_five_digits() -> None:
    name = formats.shard_file_name("train", 7, 100_000, "tfrecord")
    assert name == "train-000007-of-100000.tfrecord"


# --- whole folders, read by other libraries


def card_of(formats: list[str], splits: dataset_info.Splits, text: str, name: str) -> str:
    return dataset_card(Facts(formats=formats, splits=splits, description=text, config_name=name))


def _build(
    folder: pathlib.Path, fmt: str, pages: dict[str, list[int]], card: bool = True
) -> dataset_info.Splits:
    """Writes shards of so many pages each, all side files, and the other things a build holds."""
    splits: dict[str, list[tuple[str, int, int]]] = {}
    for split, counts in pages.items():
        splits[split] = []
        for i, count in enumerate(counts):
            name = formats.shard_file_name(split, i, len(counts), fmt)
            path = str(folder / name)
            with storage.write_atomically(path) as file:
                write_table(
                    fmt, _table([_page(f"ü\0 {split} {i} {k}") for k in range(count)]), file
                )
            splits[split].append((name, count, storage.stat(path).size))
    arguments = ("Pages: [some], of 1 crawl", "en")
    side = dataset_info.dataset_info_files(fmt, splits, *arguments)
    if card:
        side["README.md"] = card_of([fmt], splits, *arguments).encode()
    for name, content in side.items():
        (folder / name).write_bytes(content)
    others = ["cleaned/CC-MAIN-1.arrow", "fingerprints/CC-MAIN-1.arrow", "rejects/CC-MAIN-1.json"]
    if card:  # names in which Hugging Face sees shards of other splits
        others += ["cleaned/my-test.arrow", "rejects/dev-train.json"]
    for name in [*others, "manifest.json", "report.html"]:
        with storage.write_atomically(str(folder / name)) as file:
            file.write(b'{"junk": 1}\n')
    return splits


def _texts_of(pages: dict[str, list[int]]) -> dict[str, list[str]]:
    return {
        split: [f"ü\0 {split} {i} {k}" for i, count in enumerate(counts) for k in range(count)]
        for split, counts in pages.items()
        if sum(counts)
    }


_FOLDERS = {
    "empty shards": {"train": [3, 0, 2], "validation": [1]},
    "first shard empty": {"train": [0, 2], "validation": [0, 1]},
    "no validation pages": {"train": [2, 1], "validation": [0]},
}
_folders = pytest.mark.parametrize("pages", _FOLDERS.values(), ids=_FOLDERS)


@pytest.fixture(scope="module")
def tfds() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    return pytest.importorskip("tensorflow_datasets", reason="TFDS is not installed")


# tensorflow-datasets 4.9.10 asks protobuf in a way that protobuf 6 deprecates.
_old_protobuf = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")


@pytest.mark.slow
@_old_protobuf
@_folders
def test_tensorflow_datasets_opens_a_folder(
    tfds: Any, tmp_path: pathlib.Path, pages: dict[str, list[int]]
) -> None:
    splits = _build(tmp_path, "tfrecord", pages)
    builder = tfds.builder_from_directory(str(tmp_path))
    assert builder.info.full_name == "c4/en/1.0.0"
    assert builder.info.description == "Pages: [some], of 1 crawl"
    read = {
        split: [row["text"].decode() for row in tfds.as_numpy(rows)]
        for split, rows in builder.as_dataset().items()
    }
    assert read == _texts_of(pages)
    for split in read:
        info = builder.info.splits[split]
        assert info.filenames == [name for name, _, _ in splits[split]]
        assert info.shard_lengths == pages[split]
        assert info.num_bytes == sum(n_bytes for _, _, n_bytes in splits[split])


@_old_protobuf
def test_tensorflow_datasets_sees_the_features_of_c4(tfds: Any, tmp_path: pathlib.Path) -> None:
    _build(tmp_path, "tfrecord", {"train": [1]})
    builder = tfds.builder_from_directory(str(tmp_path))
    wanted = tfds.features.FeaturesDict({name: tfds.features.Text() for name in TEXT_FEATURES})
    assert builder.info.features.to_json() == wanted.to_json()
    (row,) = tfds.as_numpy(builder.as_dataset(split="train"))
    assert {k: v.decode() for k, v in row.items()} == _published(_page("ü\0 train 0 0"))
    with pytest.raises(NotImplementedError, match="Random access"):
        builder.as_data_source()


def test_our_bytes_are_tensorflows(tfds: Any, tmp_path: pathlib.Path) -> None:
    import tensorflow as tf

    pages = [_page("é" * n, url=f"http://a.example/{n}") for n in [0, 1, 63, 64, 127, 9000, 70_000]]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for page in pages:
            feature = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                for name, value in _published(page).items()
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString(deterministic=True))
    assert _bytes("tfrecord", _table(pages)) == (tmp_path / "theirs").read_bytes()


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[Any]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    library = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    library.disable_progress_bars()
    yield library
    library.enable_progress_bars()


@pytest.mark.slow
@pytest.mark.parametrize("fmt", ["parquet", "json"])
@_folders
def test_hugging_face_opens_a_folder_by_its_card(
    datasets: Any, tmp_path: pathlib.Path, fmt: str, pages: dict[str, list[int]]
) -> None:
    _build(tmp_path / "corpus", fmt, pages)
    loaded = datasets.load_dataset(str(tmp_path / "corpus"))
    assert {split: rows["text"][:] for split, rows in loaded.items()} == _texts_of(pages)
    # Its JSON reader guesses a date, which becomes text again in its own way.
    timestamp = {"parquet": "2019-04-25T12:57:54Z", "json": "2019-04-25 12:57:54"}[fmt]
    assert set(loaded["train"]["timestamp"][:]) == {timestamp}
    kinds = {name: feature.dtype for name, feature in loaded["train"].features.items()}
    parquet_only = {"language": "string", "language-probability": "float32"}
    assert kinds == dict.fromkeys(TEXT_FEATURES, "string") | (
        parquet_only if fmt == "parquet" else {}
    )


@pytest.mark.parametrize("fmt", ["parquet", "json"])
@pytest.mark.parametrize("way", ["data_files", "data_dir", "folder"])
def test_hugging_face_opens_a_folder_without_a_card(
    datasets: Any, tmp_path: pathlib.Path, fmt: str, way: str
) -> None:
    pages = _FOLDERS["empty shards"]
    folder = tmp_path / "corpus"
    _build(folder, fmt, pages, card=False)
    files = {s: f"{folder}/{s}-*{FORMATS[fmt].suffix}" for s in pages}
    loaded = {
        "data_files": lambda: datasets.load_dataset(fmt, data_files=files),
        "data_dir": lambda: datasets.load_dataset(fmt, data_dir=str(folder)),
        "folder": lambda: datasets.load_dataset(str(folder)),
    }[way]()
    assert {split: rows["text"][:] for split, rows in loaded.items()} == _texts_of(pages)


@_folders
def test_arrow_opens_the_parquet_shards(
    tmp_path: pathlib.Path, pages: dict[str, list[int]]
) -> None:
    splits = _build(tmp_path, "parquet", pages)
    for split, shards in splits.items():
        table = pads.dataset([str(tmp_path / name) for name, _, _ in shards]).to_table()
        assert table["text"].to_pylist() == _texts_of(pages).get(split, [])
        assert table.num_columns == 7


@pytest.mark.parametrize("fmt", FORMATS)
def test_dataset_info_describes_every_format(tmp_path: pathlib.Path, fmt: str) -> None:
    splits = _build(tmp_path, fmt, {"train": [2, 0], "validation": [0]})
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info["fileFormat"] == fmt
    assert info["splits"] == [
        {
            "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}" + FORMATS[fmt].suffix,
            "name": "train",
            "numBytes": str(sum(n_bytes for _, _, n_bytes in splits["train"])),
            "shardLengths": ["2", "0"],
        }
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train-00000-of-00002.tfrecord", "must be 'train-00000-of-00001"),
        ("train-00000-of-00001.parquet", "must be 'train-00000-of-00001.tfrec"),
    ],
)
def test_dataset_info_refuses(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataset_info.dataset_info("tfrecord", {"train": [(name, 1, 1)]}, "", "en")


def test_card_of_a_folder_that_hugging_face_cannot_read() -> None:
    splits = {"train": [("train-00000-of-00001.tfrecord", 1234, 1)]}
    card = card_of(["tfrecord"], splits, "Pages.", "en")
    assert "\n---\n# c4/en\n\nPages.\n\n" in card
    assert "configs" not in card
    assert "| train | 1,234 |" in card
    assert "tfds.builder_from_directory" in card
    assert "load_dataset" not in card


def test_card_of_several_formats_points_at_parquet() -> None:
    splits = {"train": [("train-00000-of-00001.tfrecord", 1, 1)]}
    card = card_of(["json", "tfrecord", "parquet"], splits, "Pages.", "en")
    header = json.loads(card.split("configs: ")[1].split("\n")[0])
    assert header[0]["data_files"] == [{"split": "train", "path": "train-*-of-00001.parquet"}]
    assert "tfds.builder_from_directory" in card


def test_writing_shards_imports_no_large_library() -> None:
    import subprocess
    import sys

    program = (
        "import sys, pipelines.corpus.formats, pipelines.corpus.dataset_info\n"
        "heavy = {'apache_beam', 'tensorflow', 'tensorflow_datasets', 'datasets', 'pandas'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_no_nan_or_rounding_in_probabilities() -> None:
    values = np.array([0.1, 1 / 3, 0.9999999], np.float32)
    table = _table([_page("a", language_probability=float(v)) for v in values])
    read = pq.read_table(io.BytesIO(_bytes("parquet", table)))["language-probability"]
    assert read.to_numpy().tobytes() == values.tobytes()
