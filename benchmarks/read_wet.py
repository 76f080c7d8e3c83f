"""Measure CPU time per page of reading WET files: ours, FastWARC, warcio, and gunzip + decode.

python -m benchmarks.read_wet ../shared/wet/*.warc.wet.gz

Files are held in memory first, so only reading is measured: process time, the best of some rounds
that take the readers in turn, so that a busy machine slows all of them. "same work" means inflate,
the five header fields, text decoded, sha256 of the stored bytes; the others do less and are bounds.
"""

import argparse
import gzip
import hashlib
import io
import pathlib
from collections.abc import Callable

from fastwarc.warc import ArchiveIterator as FastwarcIterator
from fastwarc.warc import WarcRecordType
from warcio.archiveiterator import ArchiveIterator as WarcioIterator

from benchmarks import measure
from pipelines.wet.records import read_wet
from pipelines.wet.results import ReadStats, WetRecord

_FIELDS = (
    "WARC-Target-URI",
    "WARC-Date",
    "Content-Type",
    "Content-Length",
    "WARC-Identified-Content-Language",
)


def read_ours(stored: bytes) -> int:
    return sum(isinstance(item, WetRecord) for item in read_wet(io.BytesIO(stored), ReadStats()))


def read_fastwarc(stored: bytes) -> int:
    pages = 0
    hashlib.sha256(stored).hexdigest()
    for record in _fastwarc(stored):
        for name in _FIELDS:
            record.headers.get(name)
        record.reader.read().decode()
        pages += 1
    return pages


def read_fastwarc_bare(stored: bytes) -> int:
    pages = 0
    for record in _fastwarc(stored):
        record.reader.read()
        pages += 1
    return pages


def _fastwarc(stored: bytes) -> FastwarcIterator:
    return FastwarcIterator(
        io.BytesIO(stored), record_types=WarcRecordType.conversion, parse_http=False
    )


def read_warcio(stored: bytes) -> int:
    pages = 0
    hashlib.sha256(stored).hexdigest()
    for record in WarcioIterator(io.BytesIO(stored)):
        if record.rec_type == "conversion":
            for name in _FIELDS:
                record.rec_headers.get_header(name)
            record.content_stream().read().decode()
            pages += 1
    return pages


def gunzip(stored: bytes) -> bytes:
    # gzip.decompress copies the rest of the file for each member
    return gzip.GzipFile(fileobj=io.BytesIO(stored)).read()


def gunzip_and_decode(stored: bytes) -> None:
    gunzip(stored).decode()


def one_member(stored: bytes) -> bytes:
    return gzip.compress(gunzip(stored), 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    files = [path.read_bytes() for path in options.files]
    pages = sum(map(read_ours, files))
    joined = [one_member(stored) for stored in files]
    plain = [gunzip(stored) for stored in files]
    readers: list[tuple[str, Callable[[bytes], object], list[bytes]]] = [
        ("ours, same work", read_ours, files),
        ("FastWARC, same work", read_fastwarc, files),
        ("warcio, same work", read_warcio, files),
        ("FastWARC, bytes only", read_fastwarc_bare, files),
        ("gunzip + decode (zlib)", gunzip_and_decode, files),
        ("ours, each file as one member", read_ours, joined),
        ("ours, files not compressed", read_ours, plain),
    ]
    works = {
        name: lambda read=read, inputs=inputs: list(map(read, inputs))
        for name, read, inputs in readers
    }
    best = {name: min(taken) for name, taken in measure.in_turn(works, options.rounds).items()}
    size = sum(map(len, files))
    print(f"{pages:,} pages in {len(files)} files, {size:,} bytes; best of {options.rounds} rounds")
    print(f"{'':32}{'CPU ms per page':>14}{'of FastWARC':>14}")
    for name, seconds in best.items():
        ratio = seconds / best["FastWARC, same work"]
        print(f"{name:32}{1000 * seconds / pages:>14.4f}{ratio:>14.2f}")


if __name__ == "__main__":
    main()
