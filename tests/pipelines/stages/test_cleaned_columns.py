"""What a cleaned file and its fingerprints say of each page, column by column."""

import dataclasses
import gzip
import hashlib
import itertools
import json
import pathlib
from collections import Counter
from typing import Any

import mmh3
import numpy as np
import pytest

from c4_filters.pages import PageRules, RawPage
from c4_filters.recipes import RECIPES, Recipe
from c4_filters.urls import normalize_url, page_key, split_of, url_identity
from c4_filters.verdicts import RejectReason
from pipelines import storage
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile, Dropped
from pipelines.corpus.fingerprints import Fingerprints, read_fingerprints
from pipelines.stages import clean_files
from pipelines.stages.clean_files import (
    FileSummary,
    Place,
    _placed,
    _tf_parts,
    clean_file,
    page_digest,
    read_summary,
)
from pipelines.wet.results import MAX_RECORD_BYTES, ReadStats, Reject, WetRecord
from testing.helpers import wet_bytes, write_wet

DATE = "2019-04-18T10:00:00Z"
LINES = [
    "The old harbour was rebuilt by the people of the village. It took them two winters.",
    "Every stone of it was carried down from the quarry by hand.",
    "The café beside it opened on the very same day.",
]
TEXT = "\n".join(LINES)
ID = "01234567-89ab-cdef-0123-456789ABCDEF"
VALIDATION = next(
    url for url in (f"http://{n}.example/" for n in range(9999))
    if split_of(normalize_url(url)) == "validation"
)  # fmt: skip
# (url, record id as written, text)
RECORDS = [
    ("http://www.a.example/x/", f"<urn:uuid:{ID}>", TEXT),
    ("http://short.example/", f"<urn:uuid:{ID}>", LINES[1]),
    ("http://b.example/", f"URN:UUID:{ID}", f"{LINES[2]}\n{TEXT}"),
    (VALIDATION, f"<urn:uuid:{ID}0>", TEXT),
    ("http://c.example/", f"<urn:uuid:{ID.replace('-', '')}>", TEXT),
    ("http://d.example/", "", TEXT),
    ("http://lorem.example/", "", f"{TEXT}\nHere comes the Lorem Ipsum of the day."),
    ("http://short2.example/", "", LINES[2]),
]
WITH_UUID = ("http://www.a.example/x/", "http://short.example/", "http://b.example/")
UUID_OF = dict.fromkeys(WITH_UUID, bytes.fromhex(ID.replace("-", "")))


def record(url: str, record_id: str, text: str) -> bytes:
    payload = text.encode()
    head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {url}\r\nWARC-Date: {DATE}\r\n"
    head += f"WARC-Record-ID: {record_id}\r\n" if record_id else ""
    head += f"Content-Type: text/plain\r\nContent-Length: {len(payload)}\r\n\r\n"
    return head.encode() + payload + b"\r\n\r\n"


@dataclasses.dataclass
class Made:
    """A WET file whose records share gzip members in pairs, and what became of it."""

    places: dict[str, tuple[int, int]]  # of each url: offset of the member, offset in it
    summary: FileSummary
    rows: list[dict[str, Any]]
    dropped: Dropped
    prints: Fingerprints


def make(folder: pathlib.Path, recipe: Recipe) -> Made:
    content, places = wet_bytes([]), {}
    for first in range(0, len(RECORDS), 2):
        member = b""
        for entry in RECORDS[first : first + 2]:
            places[entry[0]] = len(content), len(member)
            member += record(*entry)
        content += gzip.compress(member, mtime=0)
    path, out = folder / "a.warc.wet.gz", str(folder / "out")
    path.write_bytes(content)
    rules = PageRules(recipe)
    summary = clean_file(str(path), len(content), out, rules, "id", MAX_RECORD_BYTES)
    with CleanedFile(layout.cleaned(out, summary.name)) as file:
        rows = [row for split in (0, 1) for some, _, _ in file.slices(split, 0, 2**64)
                for row in some.to_pylist()]  # fmt: skip
        dropped = file.dropped()
    return Made(
        places, summary, rows, dropped, read_fingerprints(layout.fingerprints(out, summary.name))
    )


def digest_of(url: str, text: str, length: str) -> bytes:
    return mmh3.hash_bytes(f"{url}\0{DATE}\0text/plain\0{length}\0{text}".encode(), 0, x64arch=True)


@pytest.mark.parametrize("name", ["en", "tfds", "multilingual", "en.noclean"])
def test_every_column_of_every_page(tmp_path: pathlib.Path, name: str) -> None:
    recipe = dataclasses.replace(RECIPES[name], min_paragraph_chars=20)
    made = make(tmp_path, recipe)
    texts = {url: text for url, _, text in RECORDS}
    kept = {row["url"]: row for row in made.rows}
    expected = {*texts} - {"http://short.example/", "http://short2.example/"}
    if recipe.line_rules:
        expected -= {"http://lorem.example/"}
    if name == "en.noclean":
        expected = {*texts}
    assert {*kept} == expected
    for url, row in kept.items():
        key = page_key(normalize_url(url))
        assert row["text"] == texts[url]
        assert (row["timestamp"], row["content_type"]) == (DATE, "text/plain")
        assert row["content_length"] == str(len(texts[url].encode()))
        assert (row["language"] is None) == (name == "tfds")
        assert (row["language_probability"] is None) == (name == "tfds")
        if name != "tfds":
            assert row["language"] == "en"
            assert 0.9 < row["language_probability"] < 1.0001
        assert row["validation"] == (url == VALIDATION)
        assert row["page_key"] == key
        assert row["digest"] == digest_of(url, texts[url], row["content_length"])
        assert row["lines"] == texts[url].count("\n") + 1
        assert (row["offset"], row["inner_offset"]) == made.places[url]
        assert row["record_id"] == UUID_OF.get(url)
    assert made.rows == sorted(made.rows, key=lambda r: (r["validation"], r["page_key"]))


UNITS = {  # of the three lines of TEXT
    "sentences": ["The old", "It took", "Every s", "The caf"],
    "lines": ["The old", "Every s", "The caf"],
    "none": [],
}


@pytest.mark.parametrize(
    ("unit", "order", "dedup_urls"),
    [
        ("sentences", "filters_first", True),
        ("lines", "filters_first", False),
        ("lines", "dedup_first", True),
        ("none", "dedup_first", False),
    ],
)
def test_units_and_fingerprints(
    tmp_path: pathlib.Path, unit: Any, order: Any, dedup_urls: bool
) -> None:
    made = make(
        tmp_path,
        dataclasses.replace(
            RECIPES["en"], dedup_unit=unit, order=order, dedup_urls=dedup_urls, dedup_window=1
        ),
    )
    [row] = [row for row in made.rows if row["url"] == "http://d.example/"]
    begins = [row["text"][at : at + 7] for at in row["unit_starts"]]
    assert begins == UNITS[unit]
    prints, pages = made.prints, made.rows
    late = order == "dedup_first"
    dropped = [record for record in RECORDS if record[0] not in {row["url"] for row in pages}]
    assert (prints.cleaned_pages, prints.identity) == (len(pages), "id")
    assert prints.source == made.summary.sha256
    urls = [row["url"] for row in pages] + [url for url, _, _ in dropped if late]
    assert prints.url_identities.astype("<u8").tobytes() == b"".join(
        url_identity(normalize_url(url)) for url in urls
    )
    assert prints.timestamps == [DATE] * len(urls)
    digests = [row["digest"] for row in pages]
    if late:
        digests += [digest_of(url, text, str(len(text.encode()))) for url, _, text in dropped]
    assert prints.digests.tobytes() == b"".join(digests)
    if late:
        ranks = [int.from_bytes(hashlib.md5(row["url"].encode()).digest()[:8], "big")
                 for row in pages] + [0] * len(dropped)  # fmt: skip
    elif dedup_urls:
        ranks = [row["page_key"] for row in pages]
    else:
        ranks = [int.from_bytes(row["digest"][:8], "little") for row in pages]
    assert prints.ranks.tolist() == ranks
    counts = [len(row["unit_starts"]) for row in pages]
    assert prints.units_per_page.tolist() == counts + [0] * (len(urls) - len(pages))
    assert made.summary.units == sum(counts)
    texts = [
        row["text"][begin:end].strip().lower().encode()
        for row in pages
        for begin, end in zip(
            row["unit_starts"], [*row["unit_starts"][1:], len(row["text"])], strict=False
        )
    ]
    assert prints.units.astype("<u8").tobytes() == b"".join(
        mmh3.hash_bytes(text, 0, x64arch=True) for text in texts
    )


def test_the_summary_and_the_list_of_dropped_pages(tmp_path: pathlib.Path) -> None:
    made = make(tmp_path, RECIPES["en"])
    summary = made.summary
    path = tmp_path / "a.warc.wet.gz"
    assert dataclasses.asdict(summary) | {"cpu_s": 0, "samples": {}} == {
        "path": str(path),
        "name": layout.file_name(str(path)),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "pages_read": 8,
        "pages_kept": 5,
        "text_bytes": 5 * len(TEXT.encode()) + len(LINES[2].encode()) + 1,
        "validation_pages": 1,
        "fingerprint_pages": 5,
        "units": 5 * 4 + 1,
        "lines_read": 5 * 3 + 1 + 2 + 4,
        "lines_kept": 5 * 3 + 1,
        "pages_dropped": {"few_sentences": 2, "lorem_ipsum": 1},
        "lines_dropped": {"lorem_ipsum": 1, "on_dropped_page": 2 + 3},
        "records_rejected": {},
        "records_of_other_types": {"warcinfo": 1},
        "wrong_lengths": 0,
        "samples": {},
        "cpu_s": 0,
        "unreadable": "",
        "resumed": False,
        "identity": "",
        "recleaned": "",
    }
    assert 0 < summary.cpu_s < 600
    sample = {"url": "http://lorem.example/", "evidence": "", "text": RECORDS[6][2]}
    assert summary.samples["lorem_ipsum"] == [sample]
    urls = ["http://short.example/", "http://lorem.example/", "http://short2.example/"]
    assert made.dropped.keys.tolist() == [page_key(normalize_url(url)) for url in urls]
    assert made.dropped.offsets.tolist() == [made.places[url][0] for url in urls]
    assert made.dropped.names == ("few_sentences", "lorem_ipsum")
    assert made.dropped.codes.tolist() == [0, 1, 0]


def test_a_sample_names_its_evidence(tmp_path: pathlib.Path) -> None:
    made = make(tmp_path, dataclasses.replace(RECIPES["en"], languages=("de",)))
    assert made.summary.pages_dropped == {"few_sentences": 2, "lorem_ipsum": 1, "other_language": 5}
    assert [s["evidence"] for s in made.summary.samples["other_language"]] == ["en 1.0000"] * 3
    assert np.unique(made.dropped.codes).tolist() == [0, 1, 2]


def test_a_digest_covers_all_that_is_published() -> None:
    page = RawPage("http://é.example/", "2019", "text/plain", "9", "as read")
    assert page_digest(page, "as kept") == mmh3.hash_bytes(
        "http://é.example/\x002019\0text/plain\x009\0as kept".encode(), 0, x64arch=True
    )
    assert len(page_digest(page, "half a pair \ud800")) == 16


def test_rejects_are_lines_of_json(tmp_path: pathlib.Path) -> None:
    good = record("http://a.example/", "", TEXT)
    nameless = good.replace(b"WARC-Target-URI: http://a.example/\r\n", b"")
    undated = record("http://é.example/", "", TEXT).replace(f"WARC-Date: {DATE}".encode(), b"X: y")
    path, out = tmp_path / "a.warc.wet.gz", str(tmp_path / "out")
    head = wet_bytes([])
    path.write_bytes(head + gzip.compress(good + nameless + undated, mtime=0))
    summary = clean_file(
        str(path), path.stat().st_size, out, PageRules(RECIPES["en"]), "id", MAX_RECORD_BYTES
    )
    assert summary.records_rejected == {"no_date": 1, "no_url": 1}
    content = pathlib.Path(layout.rejects(out, summary.name)).read_bytes()
    lines = [json.loads(line) for line in content.splitlines()]
    assert content.endswith(b"}\n")
    assert [{**line, "detail": ""} for line in lines] == [
        {
            "file": str(path),
            "offset": len(head),
            "inner_offset": inner,
            "reason": reason,
            "detail": "",
        }
        for inner, reason in (
            (len(good), "no_url"),
            (len(good) + len(nameless), "no_date"),
        )
    ]
    assert "http://é.example/".encode() in content  # as read, not escaped


# -------------------------------------------------------------------------- around the columns


def test_a_page_that_a_body_line_begins_needs_a_date(tmp_path: pathlib.Path) -> None:
    body = f"{TEXT}\nWARC/1.0\nWARC-Target-URI: http://é.example/\n{TEXT}\nWARC/1.0\n{TEXT}"
    page = WetRecord(7, 5, "http://a.example/", DATE, "text/plain", "9", "", body)
    counts: Counter[str] = Counter()
    found = list(_tf_parts([_placed(page)], counts))
    assert found[0] == (Place(7, 5, None), RawPage("http://a.example/", DATE, "text/plain", "9",
                                                   TEXT))  # fmt: skip
    assert found[1:] == [
        Reject(7, RejectReason.NO_DATE, "http://é.example/"),
        Reject(7, RejectReason.NO_URL, "page begun by a body line WARC/1.0"),
    ]
    assert counts == {"lines_read": 3, "parser_accident": 3}


class Clock:
    """Time that goes on by one with each look."""

    def __init__(self) -> None:
        self._cpu, self._wall = itertools.count(100), itertools.count(50)

    def process_time(self) -> float:
        return float(next(self._cpu))

    def monotonic(self) -> float:
        return float(next(self._wall))


def test_progress_is_reported_now_and_then(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean_files, "time", Clock())
    monkeypatch.setattr(clean_files, "_PROGRESS_EVERY_S", 2.0)
    path, size = write_wet(
        tmp_path / "a.wet.gz", [(f"http://{n}.example/", DATE, TEXT) for n in range(10)]
    )
    out, told = str(tmp_path / "out"), []
    summary = clean_file(
        path, size, out, PageRules(RECIPES["en"]), "id", MAX_RECORD_BYTES,
        lambda n_bytes, pages: told.append(pages),
    )  # fmt: skip
    # One look a page, one after each report; two seconds have to pass, not just to come.
    assert told == [3, 6, 9]
    with CleanedFile(layout.cleaned(out, summary.name)) as file:
        assert (file.summary["file"]["cpu_s"], summary.cpu_s) == (1.0, 2.0)


def test_a_file_of_dropped_pages_is_all_zeros(tmp_path: pathlib.Path) -> None:
    path, size = write_wet(tmp_path / "a.wet.gz", [("http://a.example/", DATE, "Menu")])
    summary = clean_file(
        path, size, str(tmp_path / "out"), PageRules(RECIPES["en"]), "id", MAX_RECORD_BYTES
    )
    counts = {
        field.name: getattr(summary, field.name)
        for field in dataclasses.fields(summary)
        if field.type is int and getattr(summary, field.name)
    }
    assert counts == {"bytes": size, "pages_read": 1, "lines_read": 1}


def test_a_file_that_has_changed_is_unreadable(tmp_path: pathlib.Path) -> None:
    path, size = write_wet(tmp_path / "a.wet.gz", [("http://a.example/", DATE, TEXT)])
    rules, out = PageRules(RECIPES["en"]), str(tmp_path / "out")
    for told in (size - 1, size + 1, 10**6 + size):  # equal numbers that are not one object, too
        summary = clean_file(path, told, out, rules, "id", MAX_RECORD_BYTES, content="x")
        assert dataclasses.asdict(summary) == {
            **dataclasses.asdict(FileSummary(path, layout.file_name(path), told)),
            "unreadable": (
                f"has changed while it was read ({size:,} bytes read, {told:,} when the build "
                "began): run again when it is whole"
            ),
            "identity": "x",
        }
        counts = [value for value in dataclasses.asdict(summary).values() if value]
        assert len(counts) == 5  # path, name, bytes, unreadable, identity
    assert not (tmp_path / "out").exists()


def test_what_was_read_is_what_the_build_began_with(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content" * 100)
    path_, size, content = str(path), 700, storage.stat(str(path)).identity
    digest = hashlib.sha256(b"content" * 100).hexdigest()

    def stats(n_bytes: int, sha256: str) -> ReadStats:
        made = ReadStats()
        made.bytes_read, made.sha256 = n_bytes, sha256
        return made

    changed = clean_files._changed
    assert content
    assert changed(path_, size, content, stats(int("700"), "?")) == ""
    assert changed(path_, size, "", stats(700, "?")) == ""
    assert changed(path_, size, "touched", stats(700, digest)) == ""
    for wrong in (
        (path_, size, content, stats(699, digest)),
        (path_, size, content, stats(701, digest)),
        (path_, size, "touched", stats(700, "?")),
        (path_, size, "touched", stats(700, "0" * 64)),
        (path_, size, "touched", stats(700, "g" * 64)),
    ):
        assert changed(*wrong).startswith("has changed while it was read")
    path.unlink()
    assert "No such file" in changed(path_, size, content, stats(700, digest))
    monkeypatch.setattr(storage, "is_local", lambda path: False)  # then nothing is asked for
    assert changed(path_, size, content, stats(700, digest)) == ""


def test_the_digest_decides_where_identities_differ(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    good = hashlib.sha256(b"content").hexdigest()
    done = FileSummary(str(path), "a", 7, identity="m", sha256=good)
    other = dataclasses.replace(done, sha256="?")
    for content in ("a", "z"):
        assert clean_files.same_content(done, content, verify=False)
        for sha256 in ("0" * 64, "g" * 64):
            spoilt = dataclasses.replace(done, sha256=sha256)
            assert not clean_files.same_content(spoilt, content, verify=False)
    for known in (other, dataclasses.replace(other, identity="")):
        for content in (known.identity, ""):
            assert clean_files.same_content(known, content, verify=False)
            assert not clean_files.same_content(known, content, verify=True)
            assert clean_files.same_content(
                dataclasses.replace(known, sha256=good), content, verify=True
            )
    assert clean_files.same_content(dataclasses.replace(other, identity=""), "m", verify=False)
    path.unlink()
    assert not clean_files.same_content(done, "a", verify=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", 1),
        ("sha256", 1),
        ("resumed", 1),
        ("units", 1.0),
        ("units", True),
        ("units", "1"),
        ("cpu_s", "1"),
        ("pages_dropped", []),
        ("pages_dropped", {"no_text": 1.0}),
        ("lines_dropped", {"x": True}),
        ("samples", []),
        ("samples", {"no_text": 1}),
        ("samples", {"no_text": [1]}),
        ("samples", {"no_text": [{"url": 1}]}),
        ("unknown", 1),
    ],
)
def test_a_summary_of_other_types_is_refused(name: str, value: Any) -> None:
    summary = FileSummary("a", "b", 1, samples={"no_text": [{"url": "c"}]}, cpu_s=1)
    values = dataclasses.asdict(summary)
    assert read_summary(values) == summary
    with pytest.raises(ValueError, match=name):
        read_summary(values | {name: value})


def test_bounds_on_records_and_on_files_reach_the_reader(tmp_path: pathlib.Path) -> None:
    path, size = write_wet(
        tmp_path / "a.wet.gz", [(f"http://{n}.example/", DATE, TEXT) for n in range(3)]
    )
    rules = PageRules(RECIPES["en"])
    for n, (record_bytes, file_bytes, kept) in enumerate(
        [(10_000, 10_000, 3), (100, 10_000, 0), (10_000, 600, 1)]
    ):
        summary = clean_file(
            path, size, str(tmp_path / f"{n}"), rules, "id", record_bytes,
            max_file_bytes=file_bytes,
        )  # fmt: skip
        assert summary.pages_kept == kept
        assert (summary.records_rejected == {}) == (kept == 3)
    assert 0.1 <= clean_files._PROGRESS_EVERY_S <= 1
