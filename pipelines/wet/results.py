"""What reading a WET file yields: records, rejects and counts."""

import collections
import dataclasses
from typing import NamedTuple

from c4_filters.verdicts import RejectReason

MAX_RECORD_BYTES = 64 << 20  # our choice: pages of Common Crawl are cut at 1 MiB before extraction
# Our choice: FastWARC's bound is half of it, real headers stay under 4k.
MAX_HEADER_BYTES = 64 << 10
MAX_FILE_BYTES = 1 << 30  # our choice: twice and more what Common Crawl's files unpack to
MAX_DETAIL_CHARS = 200


class UnreadableWetError(Exception):
    """The file is empty, or something else than a WET file: no WARC record in it, or no page."""


class WetRecord(NamedTuple):
    """One page as its file holds it; header values as written, stripped, the url without ``<>``.

    ``offset`` is where the record's gzip member starts in the file as stored, ``inner_offset`` how
    many inflated bytes of that member come before the record: 0 in files of one member a record.
    In a file that is not compressed ``offset`` is the record's own place and ``inner_offset`` is 0.
    Together they name one record of a file, and grow from record to record.
    """

    offset: int
    inner_offset: int
    url: str
    timestamp: str
    content_type: str
    content_length: str
    identified_language: str
    text: str
    record_id: str = ""  # WARC-Record-ID


@dataclasses.dataclass(frozen=True, slots=True)
class Reject:
    """Bytes that did not become a page, and why.

    Offsets are those of ``WetRecord``. ``detail`` is one printable line of at most
    ``MAX_DETAIL_CHARS`` characters. ``is_record`` says whether a record header was seen there, so
    that it counts in ``ReadStats.records``; garbage, padding and members that show no header do
    not count.
    """

    offset: int
    reason: RejectReason
    detail: str
    inner_offset: int = 0
    is_record: bool = True


@dataclasses.dataclass
class ReadStats:
    """Counts of one file, final when ``read_wet`` is exhausted or has raised.

    In the end records == WetRecords yielded + rejected_records + other_records.total().
    """

    records: int = 0  # every WARC record seen, of whatever type
    # By type; "unknown" for a type that WARC 1.1 does not name. Anything but conversion.
    other_records: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    rejected_records: int = 0  # Rejects with is_record
    rejected_pages: int = 0  # those of them whose header says conversion
    wrong_lengths: int = 0  # records with a wrong or no Content-Length whose end is sure
    bytes_read: int = 0  # stored bytes, each counted once; in the end the file's size
    sha256: str = ""  # hex, of all stored bytes; empty until the end
    tolerant: bool = False  # whether the tolerant path was needed


def short_line(text: str) -> str:
    """Printable, and no longer than ``MAX_DETAIL_CHARS`` characters."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return shown if len(shown) <= MAX_DETAIL_CHARS else shown[: MAX_DETAIL_CHARS - 1] + "…"
