"""Make the sample WET files from the hand-written pages beside this file.

    python -m samples.make_samples            # rewrites samples/wet/
    python -m samples.make_samples --output D # writes elsewhere

The pages are TOML files (``samples/pages/``). Each page says what it is there to show and what the
recipe ``en`` makes of it, so the same sources are documentation, input and expected output. No
clock, no random number and no host name enters the files: the same sources give the same bytes.
"""

import argparse
import base64
import dataclasses
import hashlib
import pathlib
import re
import tomllib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from c4_filters.verdicts import PageVerdict, RejectReason
from testing.warc import gzip_member, warc_record

PAGES_DIR = pathlib.Path(__file__).parent / "pages"
WET_DIR = pathlib.Path(__file__).parent / "wet"

FAULTS = frozenset((
    "no_url", "no_date", "latin_1", "bad_header", "length_no_number", "end_unknown",
    "corrupt_gzip", "not_warc", "truncated",
))  # fmt: skip
UNCOMPRESSED = "uncompressed"  # the one file that is written without gzip

_EXPECTATIONS = frozenset(map(str, PageVerdict)) | frozenset(map(str, RejectReason))
_WARCINFO_DATE = "2019-04-26T00:00:00Z"
_WARCINFO_BODY = (
    "Software-Info: samples/make_samples.py\r\n"
    "isPartOf: COLOSSAL-SAMPLES\r\n"
    "description: hand-written pages that show what each rule does\r\n"
)


@dataclasses.dataclass(frozen=True)
class SamplePage:
    """One sample: the record to write and what becomes of it.

    Attributes:
      name: identifies the page among all samples.
      shows: one line on what the page is there to show.
      wet: stem of the page's WET file.
      expect: verdict under recipe ``en`` (:class:`PageVerdict`), or, for a record that never
        becomes a page, the :class:`RejectReason`.
      text: the page, line by line.
      url, date, language: headers of the record; ``None`` leaves the header out.
      also: recipe name -> verdict under that recipe, where it differs.
      keeps, loses: pieces of text that the cleaned page must, or must not, contain.
      copies: set of pages of which exactly one (the smallest page key) is kept; ``expect`` holds
        for every other page of the set.
      split: the split a kept page goes to.
      fault: how the record is broken, one of :data:`FAULTS`, or ``None``.

    Raises:
      ValueError: an unknown verdict or fault, or a missing url or date that no fault explains.
    """

    name: str
    shows: str
    wet: str
    expect: str
    text: str
    url: str | None = None
    date: str | None = None
    language: str | None = None
    also: Mapping[str, str] = dataclasses.field(default_factory=dict)
    keeps: tuple[str, ...] = ()
    loses: tuple[str, ...] = ()
    copies: str | None = None
    split: str = "train"
    fault: str | None = None

    def __post_init__(self) -> None:
        for verdict in (self.expect, *self.also.values()):
            if verdict not in _EXPECTATIONS:
                raise ValueError(
                    f"sample {self.name!r}: expect must be a PageVerdict or RejectReason, "
                    f"got {verdict!r}"
                )
        if self.fault is not None and self.fault not in FAULTS:
            raise ValueError(
                f"sample {self.name!r}: fault must be one of {', '.join(sorted(FAULTS))}, "
                f"got {self.fault!r}"
            )
        for header in ("url", "date"):
            if (getattr(self, header) is None) != (self.fault == f"no_{header}"):
                raise ValueError(
                    f"sample {self.name!r}: {header} must be given unless fault is 'no_{header}'"
                )


def _fill(text: str, chars: int) -> str:
    """Lengthen ``text`` to exactly ``chars`` characters by lines of a farm's ledger.

    No two lines are equal, so the filler is never a repeated span.

    >>> len(_fill("A ledger.", 500))
    500
    """
    crops = ("barley", "oats", "rye", "spelt", "beans", "lentils", "flax")
    farms = ("Alder Bank", "Stony Ford", "Three Elms", "Low Moor", "Crow Hill")
    lines = [text.rstrip("\n")]
    length = len(lines[0])
    entry = 0
    while length < chars:
        sacks = 3 + (entry * 37) % 91
        line = (
            f"Entry {entry + 1} says that {sacks} sacks of {crops[entry % 7]} came from the farm "
            f"at {farms[entry % 5]} and were stored on floor {1 + entry % 4}."
        )
        lines.append(line)
        length += 1 + len(line)
        entry += 1
    return "\n".join(lines)[: chars - 1] + "."


def _word(letters: int) -> str:
    """Return a word whose letters look English, so that no detector is misled."""
    return ("otherwisetheminewithhershand" * letters)[:letters]


def _expand_words(text: str) -> str:
    """Replace ``@WORD:n@`` by one word of ``n`` letters.

    >>> _expand_words("a @WORD:6@ b")
    'a otherw b'
    """
    return re.sub(r"@WORD:(\d+)@", lambda mark: _word(int(mark[1])), text)


def _page(table: Mapping[str, Any], wet: str, texts: Mapping[str, str]) -> SamplePage:
    fields = {"wet": wet, **table}
    if "same_text_as" in fields:
        fields["text"] = texts[fields.pop("same_text_as")]
    fields["text"] = _expand_words(fields["text"])
    if "fill_to_chars" in fields:
        fields["text"] = _fill(fields["text"], fields.pop("fill_to_chars"))
    for name in ("keeps", "loses"):
        fields[name] = tuple(fields.get(name, ()))
    return SamplePage(**fields)


def read_pages(folder: pathlib.Path = PAGES_DIR) -> list[SamplePage]:
    """Return the pages of the TOML files of ``folder``, in the order of file names and tables.

    Raises:
      ValueError: two pages have one name, or a page is not as :class:`SamplePage` asks.
      TypeError: a page has a field that :class:`SamplePage` lacks.
    """
    pages: dict[str, SamplePage] = {}
    for path in sorted(folder.glob("*.toml")):
        with path.open("rb") as file:
            group = tomllib.load(file)
        for table in group["page"]:
            page = _page(table, group["wet"], {name: page.text for name, page in pages.items()})
            if page.name in pages:
                raise ValueError(f"sample names must differ, got {page.name!r} twice ({path.name})")
            pages[page.name] = page
    return list(pages.values())


def _warcinfo(filename: str) -> bytes:
    body = _WARCINFO_BODY.encode()
    return warc_record(
        [
            ("WARC-Type", "warcinfo"),
            ("WARC-Date", _WARCINFO_DATE),
            ("WARC-Filename", filename),
            ("WARC-Record-ID", f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, filename)}>"),
            ("Content-Type", "application/warc-fields"),
            ("Content-Length", len(body)),
        ],
        body,
    )


def record_bytes(page: SamplePage) -> bytes:
    """Return the uncompressed WARC record of ``page``, header fields in Common Crawl's order.

    Content-Length counts bytes; WARC-Block-Digest is the SHA-1 of the payload in base 32. Faults
    of the record (not of its compression) are applied.
    """
    payload = page.text.encode("latin-1" if page.fault == "latin_1" else "utf-8")
    if page.fault == "not_warc":
        return payload
    identity = f"{page.name} {page.url} {page.date}"
    digest = base64.b32encode(hashlib.sha1(payload, usedforsecurity=False).digest()).decode()
    headers = [("WARC-Type", "conversion")]
    if page.url is not None:
        headers.append(("WARC-Target-URI", page.url))
    if page.date is not None:
        headers.append(("WARC-Date", page.date))
    headers += [
        ("WARC-Record-ID", f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, identity)}>"),
        ("WARC-Refers-To", f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, identity + ' html')}>"),
        ("WARC-Block-Digest", f"sha1:{digest}"),
    ]
    if page.language is not None:
        headers.append(("WARC-Identified-Content-Language", page.language))
    countable = page.fault not in ("length_no_number", "end_unknown")
    length = str(len(payload)) if countable else "about a page"
    headers += [("Content-Type", "text/plain"), ("Content-Length", length)]
    record = warc_record(headers, payload)
    if page.fault == "bad_header":
        head, _, rest = record.partition(b"\r\n\r\n")
        record = head.replace(b": ", b" ") + b"\r\n\r\n" + rest
    if page.fault == "end_unknown":
        record = record[: record.rindex(b"\n", 0, -len(b"\n\r\n\r\n"))]
    return record


def _compressed(page: SamplePage) -> bytes:
    member = gzip_member(record_bytes(page))
    middle = len(member) // 2
    if page.fault == "truncated":
        return member[:middle]
    if page.fault == "corrupt_gzip":
        return member[: middle - 4] + b"\xff" * 8 + member[middle + 4 :]
    return member


def wet_files(pages: Iterable[SamplePage]) -> dict[str, bytes]:
    """Return the content of every WET file of ``pages``, by file name.

    A file is its warcinfo record followed by its pages in the order given, one gzip member a
    record, except for the file named ``uncompressed``.

    Raises:
      ValueError: a record that is cut at its end but is not the last of its file.
    """
    groups: dict[str, list[SamplePage]] = {}
    for page in pages:
        groups.setdefault(page.wet, []).append(page)
    files = {}
    for stem, group in sorted(groups.items()):
        if any(page.fault in ("truncated", "end_unknown") for page in group[:-1]):
            raise ValueError(f"only the last page of a WET file can be cut off, got {stem!r}")
        if stem == UNCOMPRESSED:
            name = f"sample-{stem}.warc.wet"
            files[name] = b"".join([_warcinfo(name), *map(record_bytes, group)])
        else:
            name = f"sample-{stem}.warc.wet.gz"
            files[name] = b"".join([gzip_member(_warcinfo(name)), *map(_compressed, group)])
    return files


def main() -> None:
    """Write the sample files."""
    parser = argparse.ArgumentParser(description="Makes the sample WET files.")
    parser.add_argument("--output", type=pathlib.Path, default=WET_DIR, metavar="FOLDER")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in wet_files(read_pages()).items():
        (folder / name).write_bytes(content)
        print(f"{folder / name}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
