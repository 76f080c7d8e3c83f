"""Lines and JSON of files from strangers, with errors that name the file and the line."""

import io
from collections.abc import Iterator
from typing import IO, Any

from model.small_files import json_object

#: Characters; the longest line of the published files has some 300,000.
_LONGEST_LINE = 64 << 20
#: Bytes; the largest published document, SQuAD's training set, has 30 MB.
_LARGEST_DOCUMENT = 1 << 30


def text_lines(stream: IO[bytes], name: str, newline: str | None = None) -> Iterator[str]:
    """Yield the lines of UTF-8 text without their ends. A byte order mark is dropped.

    ``newline`` is as for ``open``: by default a carriage return ends a line too.
    """
    # Bytes that are not UTF-8 come through as lone surrogates, which no UTF-8 is read as: the
    # reader decodes ahead, and would raise lines too early.
    reader = io.TextIOWrapper(
        stream, encoding="utf-8-sig", errors="surrogateescape", newline=newline
    )
    try:
        number = 0
        while line := reader.readline(_LONGEST_LINE):
            number += 1
            if len(line) >= _LONGEST_LINE and not line.endswith("\n"):
                raise ValueError(f"{name}: line {number:,} is longer than {_LONGEST_LINE:,}")
            if not line.isascii():
                line.encode()
            yield line.removesuffix("\n")
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: line {number:,}: not UTF-8") from error
    finally:
        if not reader.closed:  # the stream is the caller's to close
            reader.detach()


def json_lines(stream: IO[bytes], name: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file that has one on each line. Blank lines are skipped."""
    for number, line in enumerate(text_lines(stream, name), 1):
        if line.strip():
            yield json_object(line, f"{name}: line {number:,}")


def json_document(stream: IO[bytes], name: str) -> dict[str, Any]:
    """Return the object that a whole file is."""
    content = stream.read(_LARGEST_DOCUMENT + 1)
    if len(content) > _LARGEST_DOCUMENT:
        raise ValueError(f"{name}: larger than {_LARGEST_DOCUMENT:,} bytes")
    return json_object(content, name)
