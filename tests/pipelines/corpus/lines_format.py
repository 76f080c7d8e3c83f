"""A format that only tests know: one file, as `pipelines.corpus.formats` asks for it."""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from pipelines import storage
from pipelines.corpus.formats.pages import Page


def write(table: pa.Table, binary_file: BinaryIO) -> None:
    """Write a line for each page: url, timestamp, then text."""
    columns = (table[name].to_pylist() for name in ("url", "timestamp", "text"))
    for url, timestamp, text in zip(*columns, strict=True):
        binary_file.write(f"{url}\t{timestamp}\t{text!r}\n".encode())


def read_pages(path: str) -> Iterator[Page]:
    """Yield the pages of a shard."""
    import ast

    for line in storage.read_bytes(path).decode().splitlines():
        url, timestamp, text = line.split("\t", 2)
        yield Page(ast.literal_eval(text), url, timestamp)


class Texts:
    """Texts by number."""

    def __init__(self, open_places: int) -> None:
        del open_places

    def read(self, path: str, stored: int, start: int, stop: int) -> list[bytes]:
        """Return the texts of pages ``start`` to ``stop``."""
        del stored
        return [page.text.encode() for page in read_pages(path)][start:stop]
