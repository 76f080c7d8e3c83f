"""Shards of gzip-compressed JSON lines.

One object a line, in UTF-8 rather than ASCII escapes, which take twice the bytes and more outside
Latin scripts. The gzip header carries no name and the time 0: equal pages give equal files.
"""

import gzip
import json
from typing import BinaryIO

import pyarrow as pa

from pipelines.formats.pages import TEXT_FEATURES, rows_in_bytes

# AllenAI's three in their order, then the two others of the TensorFlow build.
_NAMES = ("text", "timestamp", "url", "content-length", "content-type")
# Microseconds of CPU and bytes a page of 2.2 KB, levels 1 to 6, on real pages: 42, 926; 43, 895;
# 54, 871; 57, 837; 81, 816; 114, 810. From 5 on, zlib asks much for little.
_LEVEL = 4
_BUFFER_BYTES = 1 << 20


def write_json(table: pa.Table, binary_file: BinaryIO) -> None:
    """Write one ``.json.gz`` file; 0 rows make a valid gzip file of no lines."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    lines: list[bytes] = []
    n_bytes = 0
    with gzip.GzipFile(
        filename="", mode="wb", fileobj=binary_file, compresslevel=_LEVEL, mtime=0
    ) as packed:
        for columns in rows_in_bytes(table, [TEXT_FEATURES[name] for name in _NAMES]):
            for values in zip(*columns, strict=True):
                page = {n: v.decode() for n, v in zip(_NAMES, values, strict=True)}
                line = encode(page).encode() + b"\n"
                lines.append(line)
                n_bytes += len(line)
                if n_bytes >= _BUFFER_BYTES:
                    packed.write(b"".join(lines))
                    lines.clear()
                    n_bytes = 0
        packed.write(b"".join(lines))
