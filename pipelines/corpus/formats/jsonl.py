"""Shards of gzip-compressed JSON lines.

One object a line, in UTF-8 rather than ASCII escapes, which take twice the bytes and more outside
Latin scripts. The gzip header carries no name and the time 0: equal pages give equal files.
"""

import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa
from isal import igzip

from pipelines import storage
from pipelines.corpus.errors import CorpusError, one_line
from pipelines.corpus.formats.pages import MOST_BYTES, TEXT_FEATURES, Page, rows_in_bytes
from pipelines.corpus.formats.places import Kept, other_build

# AllenAI's three in their order, then the two others of the TensorFlow build.
_NAMES = ("text", "timestamp", "url", "content-length", "content-type")
# Microseconds of CPU and bytes per page of 2.2 KB, levels 1 to 6, on real pages: 42, 926; 43, 895;
# 54, 871; 57, 837; 81, 816; 114, 810. From 5 on, zlib takes much more time for little.
_LEVEL = 4
_BUFFER_BYTES = 1 << 20


def write(table: pa.Table, binary_file: BinaryIO) -> None:
    """Write one ``.json.gz`` file; 0 rows make a valid gzip file of no lines."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    lines: list[bytes] = []
    n_bytes = 0
    with gzip.GzipFile(
        filename="", mode="wb", fileobj=binary_file, compresslevel=_LEVEL, mtime=0
    ) as packed:
        for columns in rows_in_bytes(table, [TEXT_FEATURES[name] for name in _NAMES]):
            for values in zip(*columns, strict=True):
                page = {n: str(v, "utf-8") for n, v in zip(_NAMES, values, strict=True)}
                line = encode(page).encode() + b"\n"
                lines.append(line)
                n_bytes += len(line)
                if n_bytes >= _BUFFER_BYTES:
                    packed.write(b"".join(lines))
                    lines.clear()
                    n_bytes = 0
        packed.write(b"".join(lines))


class Texts:
    """Texts of pages out of lines, which can only be found one after the other.

    The checksum of a gzip file is at its end. So a file is read once as a whole before any of its
    pages is returned: no model may train on a flipped bit.
    """

    def __init__(self, open_places: int) -> None:
        self._lines: Kept[tuple[str, int], Iterator[bytes]] = Kept(open_places)
        self._checked: set[str] = set()

    def read(self, path: str, stored: int, start: int, stop: int) -> list[bytes]:
        """Return the texts of pages ``start`` to ``stop`` of a shard of ``stored`` pages."""
        if path not in self._checked:
            found = sum(1 for _ in _lines(path))
            if found != stored:
                raise other_build(path, f"has {found} pages and manifest.json lists {stored}")
            self._checked.add(path)
        lines = self._lines.pop((path, start), None)
        if lines is None:
            lines = itertools.islice(_lines(path), start, None)
        pages = enumerate(itertools.islice(lines, stop - start), start)
        texts = [_features(path, number, line)["text"].encode() for number, line in pages]
        if stop < stored:
            self._lines.keep((path, stop), lines)
        return texts


def read_pages(path: str) -> Iterator[Page]:
    """Yield the pages of a shard, holding one line at a time.

    Raises CorpusError at the end of the file if its checksum does not match.
    """
    for number, line in enumerate(_lines(path)):
        yield Page.of(_features(path, number, line))


def _lines(path: str) -> Iterator[bytes]:
    with storage.open_raw(path) as file:
        unpacked = cast(Any, igzip.IGzipFile)(fileobj=file)
        try:
            with io.BufferedReader(unpacked, _BUFFER_BYTES) as lines:
                while line := lines.readline(MOST_BYTES):
                    if len(line) == MOST_BYTES:
                        raise CorpusError(f"{path} has a line of more than {MOST_BYTES:,} bytes")
                    yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CorpusError(f"{path} is damaged: {one_line(error)}") from None


def _features(path: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
        if not isinstance(found["text"], str):
            raise TypeError("its text is not a string")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorpusError(f"{path}: line {number}: not a page: {one_line(error)}") from None
    return found
