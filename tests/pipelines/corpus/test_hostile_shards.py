"""Shards that are made to cost: a few kB that stand for all memory, numbers that never end."""

import json
import pathlib
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats.tfrecord import _masked_crc
from pipelines.corpus.reading import PageReader, open_corpus
from testing.limited import run_limited

LINUX = pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="memory is bounded as Linux does it"
)
MIB = 1 << 20
READ = """\
from pipelines.corpus import reading
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats import parquet
parquet.MOST_BYTES = 64 << 20
"""
READ_ALL = """\
try:
    opened = reading.open_corpus(argument["folder"]).split()
    result = len(reading.PageReader(opened, 1).read(0, 0, opened.page_count))
except CorpusError as error:
    result = str(error)
"""


def listed(folder: pathlib.Path, name: str, pages: int) -> str:
    """Makes a corpus of the one shard that is there already."""
    shard = {"name": name, "split": "train", "format": "x", "pages": pages}
    shard["bytes"] = (folder / name).stat().st_size
    (folder / "manifest.json").write_text(json.dumps({"shards": [shard]}))
    return str(folder)


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize(
    ("text", "rows", "options"),
    [
        pytest.param(
            "a" * (100 * MIB), 1, {"compression": "zstd", "use_dictionary": False}, id="compressed"
        ),
        pytest.param("a" * (MIB // 4), 600, {}, id="one text of many rows"),
        pytest.param(
            "a" * (MIB // 4),
            600,
            {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
            id="each as the one before",
        ),
        pytest.param("", 9_000_000, {}, id="rows of nothing"),
    ],
)
def test_a_row_group_is_refused_before_it_takes_all_memory(
    text: str, rows: int, options: dict[str, object], tmp_path: pathlib.Path
) -> None:
    name = "train-00000-of-00001.parquet"
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(tmp_path / name, schema, **options) as writer:
        index = pa.array([0]).take(pa.array([0] * rows)) if rows < 10_000 else None
        column = (
            pa.DictionaryArray.from_arrays(index, pa.array([text]))
            if index is not None
            else pa.array([text] * rows)
        )
        table = pa.table({"text": column.cast(pa.string())})
        writer.write_table(table, row_group_size=rows)
    del table, column
    folder = listed(tmp_path, name, rows)
    assert (tmp_path / name).stat().st_size < 3 * MIB
    cost = run_limited(READ, READ_ALL, 400 * MIB, folder=folder)
    assert "row group 0 has texts of more than 67,108,864 bytes" in cost.result
    assert cost.peak_bytes < 320 * MIB  # one page may be as large as it says, until it is read


@pytest.mark.slow
def test_every_damage_to_a_footer_is_told_in_a_line(tmp_path: pathlib.Path) -> None:
    """Rows that do not add up, as fuzzing found, and whatever else a byte of it may say."""
    name = "train-00000-of-00001.parquet"
    table = pa.table({"text": ["one", "two", "three", "four"]})
    pq.write_table(table, tmp_path / name, use_dictionary=False, store_schema=False)
    content = (tmp_path / name).read_bytes()
    folder = listed(tmp_path, name, 4)
    size = int.from_bytes(content[-8:-4], "little") + 8
    told = 0
    for at in range(len(content) - size, len(content)):
        for value in (0, 1, 2, 6, 10, 0x7F, 0xFF):
            (tmp_path / name).write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            try:
                PageReader(open_corpus(folder).split(), 1).read(0, 0, 4)
            except CorpusError as error:
                told += "\n" not in str(error)
    assert told > size


def framed(record: bytes, length: int | None = None) -> bytes:
    head = (len(record) if length is None else length).to_bytes(8, "little")
    return head + _masked_crc(head) + record + _masked_crc(record)


def read_one(folder: pathlib.Path, content: bytes) -> list[bytes]:
    name = "train-00000-of-00001.tfrecord"
    (folder / name).write_bytes(content)
    return PageReader(open_corpus(listed(folder, name, 1)).split(), 1).read(0, 0, 1)


def test_a_record_of_more_than_any_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        CorpusError, match=r"record 0: damaged: a length of 1,152,921,504,606,846,976 b"
    ):
        read_one(tmp_path, framed(b"", 1 << 60))


def test_a_number_that_never_ends_is_refused_at_once(tmp_path: pathlib.Path) -> None:
    started = time.process_time()
    with pytest.raises(CorpusError, match="a number of more than 64 bits"):
        read_one(tmp_path, framed(b"\x0a" + b"\xff" * MIB))
    assert time.process_time() - started < 2  # half a minute when it was read to its end
