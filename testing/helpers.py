"""What tests of several modules share: WET files made in memory, a corpus read back, ``c4`` run."""

import contextlib
import gzip
import hashlib
import io
import json
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from pipelines import c4_main
from testing.warc import warc_record

#: (url, WARC date, text)
Page = tuple[str, str, str]


def wet_record(url: str, date: str, text: str) -> bytes:
    """One conversion record, Content-Length in bytes, as Common Crawl writes it."""
    payload = text.encode()
    fields = (
        ("WARC-Type", "conversion"), ("WARC-Target-URI", url), ("WARC-Date", date),
        ("Content-Type", "text/plain"), ("Content-Length", len(payload)),
    )  # fmt: skip
    return warc_record(fields, payload)


def wet_bytes(pages: Iterable[Page]) -> bytes:
    """A WET file: a warcinfo record and the pages, one gzip member a record.

    >>> gzip.decompress(wet_bytes([("http://a.example/", "2019-04-18T10:00:00Z", "Hé.")]))[-8:]
    b'H\\xc3\\xa9.\\r\\n\\r\\n'
    """
    body = b"isPartOf: TESTS\r\n"
    fields = (
        ("WARC-Type", "warcinfo"), ("WARC-Date", "2019-04-18T00:00:00Z"),
        ("Content-Type", "application/warc-fields"), ("Content-Length", len(body)),
    )  # fmt: skip
    info = warc_record(fields, body)
    records = [info, *(wet_record(*page) for page in pages)]
    return b"".join(gzip.compress(record, 1, mtime=0) for record in records)


def write_wet(path: pathlib.Path, pages: Iterable[Page]) -> tuple[str, int]:
    """Writes a WET file; gives its path and size, as the build's list of inputs does."""
    content = wet_bytes(pages)
    path.write_bytes(content)
    return str(path), len(content)


def read_corpus(folder: str | pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """Pages of a Parquet corpus by split, in the order of shards and of rows in them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for split in ("train", "validation"):
        paths = sorted(pathlib.Path(folder).glob(f"{split}-*.parquet"))
        found[split] = [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]
    return found


class Outcome(NamedTuple):
    """What a command came to."""

    status: int
    out: str
    err: str


def run_c4(*arguments: str | pathlib.Path) -> Outcome:
    """Runs ``c4`` in this process, standard output and error captured.

    ``err`` lacks the line with which a build begins.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = c4_main.main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse: 0 after --help, 2 for wrong usage
            status = stop.code if isinstance(stop.code, int) else 1
    return Outcome(status, out.getvalue(), without_first_line(err.getvalue()))


def without_first_line(err: str) -> str:
    """What a build says on standard error after the line with which it begins."""
    first, _, rest = err.partition("\n")
    return rest if first.startswith("c4: building a corpus in ") else err


def manifest_of(folder: pathlib.Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def digests(folder: pathlib.Path) -> dict[str, str]:
    """What the shards really hold, not what the manifest says."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name.startswith(("train-", "validation-"))
    }
