"""WET files as they are met in the field: what the reader makes of each, and what a build does."""

import gzip
import io
import json
import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow.json
import pytest

from pipelines.wet.records import read_wet
from pipelines.wet.results import ReadStats, Reject, UnreadableWetError, WetRecord
from testing.helpers import Outcome, read_corpus, run_c4, wet_bytes, wet_record

FAULTS = pathlib.Path(__file__).resolve().parents[2] / ".." / "shared" / "faults" / "wet"
INFO = wet_bytes([])


class Case(NamedTuple):
    """What a file must come to."""

    pages: list[str]  # the ends of their urls
    rejects: tuple[str, ...] = ()
    others: Mapping[str, int] = MappingProxyType({"warcinfo": 1})
    wrong_lengths: int = 0
    unreadable: str = ""  # a piece of the error


ALL_OF = {
    name: [str(number) for number in range(count)]
    for name, count in {"h01": 12, "h03": 6, "off": 4, "six": 6, "five": 5, "three": 3}.items()
}
TEXT_PAGES = 59
CASES = {
    "h01-plain-dates.warc.wet.gz": Case(ALL_OF["h01"]),
    "h02-mixed-a.warc.wet.gz": Case([str(i) for i in range(8)]),
    "h02-mixed-b.warc.wet.gz": Case([f"b{i}" for i in range(8)]),
    "h03-reduced-dates.warc.wet.gz": Case(ALL_OF["h03"]),
    "l01-cjk-end-marks.warc.wet.gz": Case([""] * 3),
    "m01-damaged.warc.wet.gz": Case(["0", "1", "3", "4"], ("corrupt_gzip",)),
    "m01-mended.warc.wet.gz": Case(ALL_OF["five"]),
    "r01-angle-brackets.warc.wet.gz": Case(["", "1", "b?utm_source=x"]),
    "r02-warc11-fractions.warc.wet.gz": Case(["x", "x", "y", "y"]),
    "r03-lf-only.warc.wet.gz": Case(ALL_OF["three"], others={}),
    "r04-lf-lengths-too-large.warc.wet.gz": Case(ALL_OF["three"], others={}, wrong_lengths=3),
    # A length that is one too large takes the first byte of the closing lines along: a blank.
    "r05-length-off-by-one.warc.wet.gz": Case(ALL_OF["off"], wrong_lengths=2),
    "r05b-length-off-by-one.warc.wet": Case(ALL_OF["off"], wrong_lengths=2),
    "r06-no-blank-between.warc.wet": Case(["0", "1", "2", "3"], others={}),
    "r06b-no-blank-between.warc.wet.gz": Case(["0", "1", "2", "3"], others={}),
    "r07-no-length.warc.wet.gz": Case(ALL_OF["three"], wrong_lengths=3),
    "r08-header-blanks.warc.wet.gz": Case(["0", "1", "2", "3"]),
    "r09-new-headers.warc.wet.gz": Case(ALL_OF["three"]),
    "r10-no-url-no-date.warc.wet.gz": Case([""], ("no_url", "no_url", "no_date")),
    "r11-odd-urls.warc.wet.gz": Case(
        [
            "form?cNo=WEL 802.02(B)&x=a%20b",
            "\btag",
            "ünï?q=äö#frag",
            "%C3%BCn%C3%AF",
            "dns:www.example.org",
            "p",
        ],
        ("not_utf8",),
    ),
    "r12-gzip-fields.warc.wet.gz": Case(ALL_OF["six"], ("not_warc",)),
    "r13-truncated.warc.wet.gz": Case(["0", "1", "2", "3"], ("truncated",)),
    "r14-crc.warc.wet.gz": Case(["0", "2", "4"], ("corrupt_gzip", "corrupt_gzip")),
    "r15-slowdown.warc.wet.gz": Case([], unreadable="error page of the object store (SlowDown)"),
    "r16-decompressed-named.warc.wet.gz": Case(ALL_OF["three"]),
    "r16b-double-gzip.warc.wet.gz": Case([], unreadable="gzip inside gzip: decompress it once"),
    "r17-a-warc-by-mistake.warc.gz": Case([], unreadable="4 response and 1 warcinfo records"),
    "r17b-a-wat-by-mistake.warc.wat.gz": Case([], unreadable="a WAT file, give the WET file"),
    "r18-wet.paths": Case([], unreadable="a list of paths: fetch the files that it names"),
    "r18-wet.paths.gz": Case([], unreadable="a list of paths: fetch the files that it names"),
    "r19-not-utf8.warc.wet.gz": Case(["3"], ("not_utf8", "not_utf8")),
    "r20-quotes-warc.warc.wet.gz": Case(["1", "2"]),
    "r21-no-close.warc.wet": Case(["1", "2"], ("not_warc",)),  # what goes is a byte order mark
    "r22-text-resources.warc.gz": Case([""], others={"resource": 3, "warcinfo": 1}),
    "r23-date-forms.warc.wet.gz": Case(["a", "a", "b", "b"]),
    "t-text-oddities.warc.wet.gz": Case([]),  # its pages are judged by other tests
}


def read(stored: bytes, **options: bool) -> tuple[list[WetRecord], list[Reject], ReadStats]:
    stats = ReadStats()
    found = list(read_wet(io.BytesIO(stored), stats, **options))
    return (
        [item for item in found if isinstance(item, WetRecord)],
        [item for item in found if isinstance(item, Reject)],
        stats,
    )


@pytest.mark.skipif(not FAULTS.is_dir(), reason="the folder of field cases is absent")
@pytest.mark.parametrize("name", CASES)
def test_files_from_the_field(name: str) -> None:
    case = CASES[name]
    stored = (FAULTS / name).read_bytes()
    if case.unreadable:
        with pytest.raises(UnreadableWetError) as raised:
            read(stored)
        assert case.unreadable in str(raised.value)
        return
    pages, rejects, stats = read(stored)
    if name.startswith("t-"):
        assert (len(pages), rejects) == (TEXT_PAGES, [])
        assert all(page.content_length == str(len(page.text.encode())) for page in pages)
        return
    assert [page.url.rsplit("/", 1)[-1] for page in pages] == case.pages
    assert tuple(str(reject.reason) for reject in rejects) == case.rejects
    assert stats.other_records == case.others
    assert stats.wrong_lengths == case.wrong_lengths
    for page in pages:
        assert page.text.rstrip("\r")[-1:] in ".。？।", page.url
        assert "<" not in page.url
        assert "WARC/1.0" not in page.text or name.startswith("r20")


@pytest.mark.skipif(not FAULTS.is_dir(), reason="the folder of field cases is absent")
def test_every_file_of_the_folder_is_in_the_table() -> None:
    assert sorted(path.name for path in FAULTS.iterdir()) == sorted(CASES)


# The same kinds of file, made here ----------------------------------------------------------------

LINES = "The harbour of {} was rebuilt by its own people that year.\nIt rained on {} all day long.\nNobody in {} had expected so much work."  # noqa: E501


def page(url: str, date: str, word: str) -> tuple[str, str, str]:
    return url, date, LINES.format(word, word, word)


def other(kind: str, body: bytes = b"x") -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Date: 2019-04-18T10:00:00Z\r\n"
        f"WARC-Target-URI: http://a.example/\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + body + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([other("request"), other("response")] * 2, "holds 2 request, 2 response and 1 warcinfo"),
        ([other("request"), other("response")] * 2, "a WARC file, give the WET file made from it"),
        ([other("revisit")], "a WARC file"),
        ([other("metadata")] * 1000, "1,000 metadata and 1 warcinfo records but no page: a WAT"),
        ([other("resource")] * 2, "only records of type conversion are pages"),
        ([other("novelty")] * 2, "holds 2 unknown and 1 warcinfo records"),
        ([], "holds 1 warcinfo record but no page: fetch it again"),
        ([other("response")[:30]], ": truncated, cut in its header"),
        ([b"garbage"], "holds 1 warcinfo record but no page: fetch it again, or leave it out if "),
    ],
)
def test_records_without_a_page_are_an_error_that_names_them(
    records: list[bytes], words: str
) -> None:
    for stored in (INFO + b"".join(records), gzip.decompress(INFO) + b"".join(records)):
        with pytest.raises(UnreadableWetError) as raised:
            read(stored)
        assert words in str(raised.value)


def test_one_broken_record_is_told_as_one() -> None:
    with pytest.raises(UnreadableWetError, match="holds 1 broken record and no page: fetch it"):
        read(gzip.compress(b"WARC/1.0\r\nX: " + b"a" * 70_000 + b"\r\n\r\n"))


@pytest.mark.parametrize(
    "record",
    [
        wet_record("http://a.example/", "2019-04-18T10:00:00Z", ""),
        wet_record("http://a.example/", "2019-04-18T10:00:00Z", "x").replace(b"x", b"\xff"),
        wet_record("", "2019-04-18T10:00:00Z", "x"),
        wet_record("http://a.example/", "tomorrow", "x"),
        wet_record("http://a.example/", "2019-04-18T10:00:00Z", "x" * 999)[:300],
    ],
)
def test_a_wet_file_all_of_whose_pages_are_empty_or_rejected_is_read(record: bytes) -> None:
    pages, rejects, stats = read(INFO + gzip.compress(record) + other("response"))
    assert len(pages) + len(rejects) == 1
    assert stats.other_records == {"warcinfo": 1, "response": 1}
    assert stats.rejected_pages == len(rejects)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("<http://a.example/x/>", "http://a.example/x/"),
        (" <http://a.example/> ", "http://a.example/"),
        ("< http://a.example/ >", "http://a.example/"),
        ("<http://a.example/", "<http://a.example/"),
        ("http://a.example/>", "http://a.example/>"),
        ("http://a.example/?a=<b>", "http://a.example/?a=<b>"),
        ("<", "<"),
    ],
)
def test_brackets_around_a_url_go_both_ways_alike(written: str, url: str) -> None:
    record = wet_record(written, "2019-04-18T10:00:00Z", "x")
    for stored in (gzip.compress(record), record, gzip.compress(record.replace(b"\r\n", b"\n"))):
        [found], rejects, _ = read(stored)
        assert (found.url, rejects) == (url, [])
        [as_tf], _, _ = read(stored, as_tf=True)
        assert as_tf.url == written.strip()


@pytest.mark.parametrize("written", ["<>", "< >"])
def test_brackets_around_nothing_are_no_url(written: str) -> None:
    record = wet_record(written, "2019-04-18T10:00:00Z", "x")
    for stored in (gzip.compress(record), record):
        assert [str(reject.reason) for reject in read(stored)[1]] == ["no_url"]
        assert [found.url for found in read(stored, as_tf=True)[0]] == [written]


@pytest.mark.parametrize("date", ["yesterday", "2019-02-30T10:00:00Z", "\x1b[31m"])
def test_what_is_no_date_is_rejected_both_ways_alike(date: str) -> None:
    record = wet_record("http://a.example/", date, "x")
    for stored in (gzip.compress(record), record):
        _, [reject], _ = read(stored)
        assert (str(reject.reason), reject.is_record) == ("no_date", True)
        assert "is not a date: http://a.example/" in reject.detail
        assert reject.detail.isprintable()
        assert [found.timestamp for found in read(stored, as_tf=True)[0]] == [date.strip()]


# Builds -------------------------------------------------------------------------------------------

DATES = {  # url -> its copies from old to new; the last one stays
    "http://a.example/x": ["2024-05-01T10:00:00Z", "2024-05-01T10:00:00.900Z"],
    "http://a.example/y": ["2024-05-01T10:00:00.5Z", "2024-05-01T10:00:00.55Z"],
    "http://b.example/a": ["20190418100000", "2019-04-20T10:00:00Z"],
    "http://b.example/b": ["2019-04-18T23:00:00+00:00", "2019-04-18T23:00:00-01:00"],
    "http://b.example/c": ["2016-09", "2016-09-19", "2016-09-19T17:20Z"],
    "http://b.example/d": ["2019-04-20T10:00:00.000000001Z", "20190421"],
    "<http://c.example/e>": ["2019-04-18T10:00:00Z"],
    "http://c.example/e": ["2019-04-20T10:00:00Z"],
    "<http://c.example/f?utm_source=x>": ["2016"],
}
KEPT_DATES = {
    "http://a.example/x": "2024-05-01T10:00:00Z",
    "http://a.example/y": "2024-05-01T10:00:00Z",
    "http://b.example/a": "2019-04-20T10:00:00Z",
    "http://b.example/b": "2019-04-19T00:00:00Z",
    "http://b.example/c": "2016-09-19T17:20:00Z",
    "http://b.example/d": "2019-04-21T00:00:00Z",
    "http://c.example/e": "2019-04-20T10:00:00Z",
    "http://c.example/f?utm_source=x": "2016-01-01T00:00:00Z",
}


def write_files(folder: pathlib.Path) -> list[tuple[str, str, str]]:
    """Writes all copies into two files, new ones first in one of them; returns them."""
    copies = [
        page(url, date, f"{url.strip('<>')[-6:]} {date}")
        for url, dates in DATES.items()
        for date in dates
    ]
    (folder / "a.warc.wet.gz").write_bytes(wet_bytes(copies[::-2]))
    (folder / "b.warc.wet.gz").write_bytes(wet_bytes(copies[-2::-2]))
    return copies


def build(folder: pathlib.Path, *arguments: str) -> Outcome:
    inputs = str(folder / "*.wet.gz")
    out = folder / "corpus"
    return run_c4("build", "--input", inputs, "--output", out, "--quiet", *arguments)


def recipe_file(folder: pathlib.Path, base: str) -> str:
    """A recipe without the rules that look at words and language: the pages are made up."""
    path = folder / "all.toml"
    text = f'name = "all"\nbase = "{base}"\nlanguages = []\nmin_language_probability = 0.0\n'
    path.write_text(f"{text}bad_words = false\n")
    return str(path)


@pytest.mark.slow
def test_the_newest_copy_stays_and_whole_seconds_are_written(tmp_path: pathlib.Path) -> None:
    copies = write_files(tmp_path)
    recipe = recipe_file(tmp_path, "en")
    made = build(tmp_path, "--recipe", recipe, "--format", "parquet,json", "--shards", "3")
    assert made.status == 0, made.err
    rows = [row for split in read_corpus(tmp_path / "corpus").values() for row in split]
    assert {row["url"]: row["timestamp"] for row in rows} == KEPT_DATES
    newest = {url.strip("<>"): text for url, _, text in copies}
    assert {row["url"]: row["text"] for row in rows} == newest
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    assert manifest["counts"]["records_of_other_types"] == {"warcinfo": 2}
    assert manifest["counts"]["pages_dropped"] == {"duplicate_url": len(copies) - len(KEPT_DATES)}
    # One type in every shard, whatever a reader of JSON guesses.
    kinds = {
        str(pyarrow.json.read_json(path).schema.field("timestamp").type)
        for path in (tmp_path / "corpus").glob("*.json.gz")
        if gzip.decompress(path.read_bytes())
    }
    assert kinds == {"timestamp[s]"}


@pytest.mark.slow
def test_recipe_tfds_compares_and_writes_the_text_of_the_header(tmp_path: pathlib.Path) -> None:
    copies = write_files(tmp_path)
    (tmp_path / "c.warc.wet.gz").write_bytes(wet_bytes([page("http://c.example/g", "soon", "g")]))
    made = build(tmp_path, "--recipe", recipe_file(tmp_path, "tfds"), "--format", "parquet")
    assert made.status == 0, made.err
    rows = [row for split in read_corpus(tmp_path / "corpus").values() for row in split]
    expected: dict[str, str] = {"http://c.example/g": "soon"}
    for url, date, _ in copies:
        expected[url] = max(expected.get(url, ""), date)  # as strings: TF's select_newest_page
    assert {row["url"]: row["timestamp"] for row in rows} == expected


@pytest.mark.slow
def test_hugging_face_reads_json_of_mixed_dates(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    datasets: Any = pytest.importorskip("datasets", reason="extra dev is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_files(tmp_path)
    recipe = recipe_file(tmp_path, "en")
    made = build(tmp_path, "--recipe", recipe, "--format", "json", "--shards", "8")
    assert made.status == 0, made.err
    files = str(tmp_path / "corpus" / "train-*.json.gz")
    loaded = datasets.load_dataset("json", data_files=files)["train"]
    assert sorted(loaded["url"]) == sorted(KEPT_DATES)


@pytest.mark.slow
def test_a_file_of_other_records_fails_the_build_and_is_named(tmp_path: pathlib.Path) -> None:
    write_files(tmp_path)
    (tmp_path / "w.warc.wet.gz").write_bytes(INFO + other("response") * 3)
    recipe = recipe_file(tmp_path, "en")
    made = build(tmp_path, "--recipe", recipe)
    assert made.status == 1
    assert "w.warc.wet.gz" in made.err
    assert "holds 3 response and 1 warcinfo records but no page: a WARC file" in made.err
    allowed = build(tmp_path, "--recipe", recipe, "--allow-unreadable-files", "1")
    assert allowed.status == 0, allowed.err
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    assert [file["path"][-14:] for file in manifest["unreadable_inputs"]] == ["/w.warc.wet.gz"]
    assert manifest["counts"]["files_unreadable"] == 1
