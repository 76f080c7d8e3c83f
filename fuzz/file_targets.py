"""Damaged and generated files of corpus folders, as a resumed build and a training read them.

They may cause only ValueError and OSError, which commands report in one line.
"""

import contextlib
import functools
import io
import json
import os
import pathlib
import random
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES
from pipelines import builders, corpus_folder, finish_corpus, prepared, storage
from pipelines.config import BuildConfig
from pipelines.corpus import container, layout
from pipelines.corpus.cleaned import CLEANED_SCHEMA, CleanedFile, write_cleaned
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.fingerprints import FINGERPRINT_SCHEMA, write_fingerprints
from pipelines.corpus.formats import tfrecord
from pipelines.corpus.formats.pages import MOST_BYTES
from pipelines.corpus.manifest import read_manifest
from pipelines.corpus.reading import PageReader, open_corpus
from pipelines.corpus.removals import Removals
from pipelines.input_list import read_input_list
from pipelines.stages import clean_files, dedup
from pipelines.stages.merge_files import MergePlan, cleaned_sources, merge_files
from pipelines.stages.write_shards import ShardTask, write_shard

from fuzz.targets import timed  # isort: skip

_OUTPUT = "/corpus"
_INPUT = "/crawl/a.warc.wet.gz"
_NAME = layout.file_name(_INPUT)
_MOST_SECTION_BYTES = 64 << 20  # so that a bomb shows in the process's own memory


class _Folder:
    """Files in memory, in place of those of ``pipelines.storage``."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Make ``pipelines.storage`` read and write here."""
        names = (
            "open_raw", "read_bytes", "read_if_exists", "exists", "stat",
            "write_atomically", "listdir",
        )  # fmt: skip
        with (
            mock.patch.multiple(storage, **{name: getattr(self, name) for name in names}),
            mock.patch.object(container, "_MOST_SECTION_BYTES", _MOST_SECTION_BYTES),
        ):
            yield

    def open_raw(self, path: str, scattered: bool = False) -> BinaryIO:
        del scattered
        return io.BytesIO(self.read_bytes(path))

    def read_bytes(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(2, "no such file", path)
        return self.files[path]

    def read_if_exists(self, path: str) -> bytes:
        return self.files.get(path, b"")

    def stat(self, path: str) -> storage.FileInfo:
        content = self.read_bytes(path)
        return storage.FileInfo(path, len(content), f"etag:{zlib.crc32(content):08x}")

    def exists(self, path: str) -> bool:
        return path in self.files

    def listdir(self, folder: str) -> list[str]:
        return [os.path.basename(path) for path in self.files if os.path.dirname(path) == folder]

    @contextlib.contextmanager
    def write_atomically(self, path: str) -> Iterator[BinaryIO]:
        file = io.BytesIO()
        yield file
        self.files[path] = file.getvalue()


@functools.cache
def _config() -> BuildConfig:
    return BuildConfig(inputs=(_INPUT,), output=_OUTPUT, recipe=RECIPES["en"])


@functools.cache
def _good() -> dict[str, bytes]:
    """Return the files of a small corpus folder as a build leaves them."""
    from testing.helpers import wet_bytes

    line = "The river rose during the night. Nobody had expected it at all. We left. "
    pages = [
        (f"http://site.example/{i}", "2019-04-18T10:00:00Z", "\n".join([line * 2] * 3))
        for i in range(3)
    ]
    folder = _Folder()
    folder.files[_INPUT] = wet_bytes(pages)
    with folder.in_use():
        config = _config()
        size = len(folder.files[_INPUT])
        rules = PageRules(config.recipe)
        identity = clean_files.clean_identity(config)
        found = clean_files.clean_file(_INPUT, size, _OUTPUT, rules, identity, 1 << 20)
        assert found.pages_kept == 3
        dedup.write_file_removals(_OUTPUT, _NAME, (), (), 3, "")
        sources = cleaned_sources(_OUTPUT, [_NAME])
        shards = [
            write_shard(ShardTask(split, 0, 1), sources, _OUTPUT, ["parquet"], rules)
            for split in layout.SPLITS
        ]
        made = finish_corpus.make_manifest(config, [found], shards)
        made = finish_corpus.write_side_files(_OUTPUT, made)
        content = json.dumps(made.as_dict()).encode()
        folder.files[storage.join(_OUTPUT, layout.MANIFEST)] = content
        folder.files[storage.join(_OUTPUT, layout.BUILD)] = json.dumps(config.identity).encode()
        folder.files[storage.join(_OUTPUT, layout.INPUTS)] = (
            b'{"run": "", "build": ""}\n' + json.dumps([_INPUT, size, "etag:1"]).encode()
        )
    return folder.files


_KINDS: tuple[Callable[[], str], ...] = (
    lambda: layout.cleaned(_OUTPUT, _NAME),
    lambda: layout.fingerprints(_OUTPUT, _NAME),
    lambda: layout.removals(_OUTPUT, _NAME),
    lambda: storage.join(_OUTPUT, layout.MANIFEST),
    lambda: storage.join(_OUTPUT, layout.BUILD),
    lambda: storage.join(_OUTPUT, layout.INPUTS),
    lambda: builders.written_path(_OUTPUT),
)
_MADE_UP = len(_KINDS)  # cleaned, and the next: fingerprints, with good checksums


@timed
def check_files(data: bytes) -> None:
    """Check one file of a folder in which a build resumes; the first byte says which."""
    if not data:
        return
    kind, content = data[0] % (_MADE_UP + 2), data[1:]
    folder = _Folder()
    folder.files = dict(_good())
    with folder.in_use():
        if kind >= _MADE_UP:
            _make_up(folder, content, cleaned=kind == _MADE_UP)
        else:
            folder.files[_KINDS[kind]()] = content
        for read in (_resume, _deduplicate, _shard, _explain, _lists):
            with contextlib.suppress(ValueError, OSError):
                read(len(folder.files[_INPUT]))


def _resume(size: int) -> None:
    config = _config()
    identity = clean_files.clean_identity(config)
    found = clean_files.finished_summary(_INPUT, size, _OUTPUT, identity)
    if found is not None:
        with contextlib.suppress(finish_corpus.BalanceError):  # wrong numbers are reported as such
            finish_corpus.make_manifest(config, [found], [])


def _deduplicate(size: int) -> None:
    del size
    dedup.url_buffers(_OUTPUT, _NAME, 4)
    lost, _ = dedup.span_buffers(_OUTPUT, _NAME, (), 3, 4)
    dedup.write_file_removals(_OUTPUT, _NAME, (), (lost,) if lost is not None else (), 3, "")


@functools.cache
def _en() -> PageRules:
    return PageRules(RECIPES["en"])


def _shard(size: int) -> None:
    del size
    plan, shards = MergePlan(1, 1), [ShardTask("train", 0, 1), ShardTask("validation", 0, 1)]
    parts = dict(merge_files(plan.tasks()[0], plan, [_NAME], shards, _OUTPUT))
    for sources in (cleaned_sources(_OUTPUT, [_NAME]), [parts[0]] if 0 in parts else []):
        write_shard(shards[0], sources, _OUTPUT, ["tfrecord", "json"], _en())


def _explain(size: int) -> None:
    del size
    with (
        CleanedFile(layout.cleaned(_OUTPUT, _NAME)) as cleaned,
        Removals(layout.removals(_OUTPUT, _NAME)) as removals,
    ):
        assert len(cleaned.dropped().verdicts) == 0
        for rows, first_page, first_unit in cleaned.slices(0, 0, 1 << 63):
            removals.pages(first_page, len(rows))
            removals.units(first_unit, 1)
            removals.keeper_of_page(first_page)
            removals.keeper_of_unit(first_unit)
            rows.to_pylist()


def _lists(size: int) -> None:
    config = _config()
    read_input_list(_OUTPUT)
    prepared._finished(config, [storage.FileInfo(_INPUT, size, "etag:1")], digests=False)
    corpus_folder.claim_folder(config, start_over=False)
    read_manifest(_OUTPUT)


def _make_up(folder: _Folder, content: bytes, cleaned: bool) -> None:
    """Make a file with good checksums that holds what no build would write."""
    chance = random.Random(zlib.crc32(content))
    schema = CLEANED_SCHEMA if cleaned else FINGERPRINT_SCHEMA
    rows = [
        {field.name: _value(field.type, content, chance) for field in schema}
        for _ in range(chance.randrange(4))
    ]
    if cleaned:
        table = pa.Table.from_pylist(rows, schema)
        if table["page_key"].null_count or table["validation"].null_count:
            return
        with contextlib.suppress(ValueError, TypeError):  # no file can be written of them
            write_cleaned(layout.cleaned(_OUTPUT, _NAME), table, _head(content, chance))
    else:
        table = pa.Table.from_pylist(rows, schema)
        count = chance.choice([0, len(rows), -1, 9])
        write_fingerprints(layout.fingerprints(_OUTPUT, _NAME), table, count, "x")


def _head(content: bytes, chance: random.Random) -> dict[str, Any]:
    identity = clean_files.clean_identity(_config())
    file = {"path": _INPUT, "name": _NAME, "bytes": len(_good()[_INPUT])}
    names = ["sha256", "pages_read", "lines_read", "pages_dropped", "samples", "unreadable", "x"]
    for name in chance.sample(names, 2):
        file[name] = chance.choice([content[:9].hex(), 7, -1, 1.5, None, [1], {"a": "b"}, 1 << 70])
    return {"identity": identity, "file": file}


def _value(kind: pa.DataType, content: bytes, chance: random.Random) -> object:
    if chance.random() < 0.02:
        return None
    begin = chance.randrange(len(content) + 1)
    part = content[begin : begin + chance.choice((0, 3, 16, 48, 200))]
    if pa.types.is_large_string(kind):
        return part.decode("utf-8", "replace")
    if pa.types.is_large_binary(kind):
        return part
    if pa.types.is_fixed_size_binary(kind):
        return part.ljust(16, b"\0")[:16]
    if pa.types.is_boolean(kind):
        return chance.random() < 0.2
    if pa.types.is_float32(kind):
        return chance.choice((0.5, float("nan"), -1.0, float("inf")))
    if pa.types.is_large_list(kind):
        starts = [chance.choice((0, 1, 5, len(part), 1 << 31)) for _ in range(chance.randrange(5))]
        return sorted(starts) if chance.random() < 0.8 else starts
    bits = 64 if kind == pa.uint64() else 32
    return chance.choice((0, 1, 3, chance.getrandbits(bits), (1 << bits) - 1))


# Shards, as training reads them ----------------------------------------------------------------


@functools.cache
def _scratch() -> pathlib.Path:
    memory = pathlib.Path("/dev/shm")  # a disk would be worn out
    return pathlib.Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))


@timed
def check_shards(data: bytes) -> None:
    """Check a shard of a finished corpus, or its manifest; the first byte says which."""
    if len(data) < 2:
        return
    kind, pages, content = data[0] % 4, data[1] % 5, data[2:]
    folder = _scratch()
    name = "train-00000-of-00001." + ("parquet" if kind == 0 else "tfrecord")
    if kind == 1:
        content = _records(content)
    elif kind == 2:
        content = _records(_framed(content[: 1 + pages * 20]) + content[1 + pages * 20 :])
    listed = {"name": name, "split": "train", "format": "x", "pages": pages, "bytes": len(content)}
    made = json.dumps({"shards": [listed]}).encode()
    if kind == 3:
        made, content = content, b""
    (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(made)
    with contextlib.suppress(CorpusError):
        opened = open_corpus(str(folder)).split()
        reader = PageReader(opened, 1)
        for number, shard in enumerate(opened.shards):
            texts = reader.read(number, 0, min(shard.pages, 4))
            assert all(isinstance(text, bytes) for text in texts)
            assert sum(map(len, texts)) <= 4 * MOST_BYTES


def _framed(record: bytes) -> bytes:
    """Return a framed record, with checksums that are left to `_records`."""
    return struct.pack("<Q", len(record)) + bytes(4) + record + bytes(4)


def _records(content: bytes) -> bytes:
    """Return the same bytes with good checksums wherever a record is framed."""
    repaired = bytearray(content)
    at = 0
    while at + 16 <= len(repaired):
        length = int.from_bytes(repaired[at : at + 8], "little")
        repaired[at + 8 : at + 12] = tfrecord._masked_crc(bytes(repaired[at : at + 8]))
        end = at + 12 + length
        if end + 4 > len(repaired):
            break
        repaired[end : end + 4] = tfrecord._masked_crc(bytes(repaired[at + 12 : end]))
        at = end + 4
    return bytes(repaired)


# Seeds --------------------------------------------------------------------------


def file_seeds(target: str) -> list[bytes]:
    """Return good files of each kind."""
    if target == "files":
        good = _good()
        found = [bytes([kind]) + good[path()] for kind, path in enumerate(_KINDS)]
        return found + [bytes([_MADE_UP + i]) + good[_INPUT][:300] for i in range(2)]
    texts = ["One text.", "Another, longer, text of a page.", "", "x" * 300]
    table = pa.table(
        dict.fromkeys(("text", "url", "timestamp", "content_type", "content_length"), texts)
    )
    found = []
    for options in ({}, {"use_dictionary": False}, {"compression": "zstd"}, {"version": "1.0"}):
        file = io.BytesIO()
        pq.write_table(table.select(["text"]), file, **options)
        found.append(b"\0\4" + file.getvalue())
    file = io.BytesIO()
    tfrecord.write(table, file)
    records = file.getvalue()
    found += [b"\1\4" + records, b"\2\1" + records[12:200]]
    listed = [{"name": "train-00000-of-00001.parquet", "split": "train", "pages": 1, "bytes": 0}]
    return [*found, b"\3\1" + json.dumps({"manifest_version": 1, "shards": listed}).encode()]
