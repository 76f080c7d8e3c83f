"""Records of WET files, and the gzip members that they are stored in."""

import struct
import zlib
from collections.abc import Iterable

# RFC 1952 without name or time; the last byte leaves the operating system open, so that every
# system writes the same header.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


def warc_record(fields: Iterable[tuple[str, object]], payload: bytes) -> bytes:
    """A record with these header fields, in this order."""
    lines = ["WARC/1.0", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode() + payload + b"\r\n\r\n"


def gzip_member(data: bytes, level: int = 9) -> bytes:
    """A gzip member without time and file name.

    >>> import gzip
    >>> gzip.decompress(gzip_member(b"page"))
    b'page'
    """
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15)
    body = deflate.compress(data) + deflate.flush()
    return _GZIP_HEADER + body + struct.pack("<II", zlib.crc32(data), len(data))
