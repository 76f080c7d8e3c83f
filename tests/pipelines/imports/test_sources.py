"""Readers of the sources of ``c4 import``: pages, rejects, and files that cannot be read."""

import bz2
import gzip
import json
import lzma
import re
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.imports.inflated import UnreadableSourceError
from pipelines.imports.pages import Numbered
from pipelines.imports.sources import SOURCES, input_files, read_source, require_distinct_names
from pipelines.wet.results import ReadStats
from testing.corpora import page_table
from testing.dumps import WikiPage, dump_bytes, dump_head, dump_page, multistream

LIMITS = (1 << 20, 1 << 24)


def read(source, path, limits=LIMITS):
    stats = ReadStats()
    with storage.open_raw(str(path)) as stream:
        found = list(read_source(source, str(path), stream, stats, limits))
    assert stats.bytes_read == path.stat().st_size
    assert len(stats.sha256) == 64
    pages = [item for item in found if isinstance(item, Numbered)]
    rejects = [(item.offset, str(item.reason)) for item in found if not isinstance(item, Numbered)]
    return pages, rejects, stats


def write(path, content):
    path.write_bytes(content)
    return path


LINES = b"""\xef\xbb\xbf{"text": "One.\\n\\nTwo.", "id": 7}

not json
{"text": ""}
{"text": 5}
{"other": "x"}
["text"]
{"text": "Ours.", "url": "http://a.example/", "timestamp": "2020-01-01T00:00:00Z"}
{"text": "half \\ud800"}
{"text": "bad \xff"}
{"text": "x", "url": 5}
{"text": "   "}
{"text": null, "url": "http://b.example/"}
{"text": "Last.", "url": null}"""


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
def test_a_line_of_json_is_a_page_and_a_bad_one_is_rejected_with_its_number(tmp_path, pack):
    path = write(tmp_path / "my lines.jsonl", pack(LINES))
    pages, rejects, _ = read("jsonl", path)
    assert [(page.number, *page.page) for page in pages] == [
        (1, "file:my%20lines.jsonl#1", "", "text/plain", "10", "One.\n\nTwo."),
        (8, "http://a.example/", "2020-01-01T00:00:00Z", "text/plain", "5", "Ours."),
        (14, "file:my%20lines.jsonl#14", "", "text/plain", "5", "Last."),
    ]
    assert rejects == [
        (3, "bad_json"), (4, "bad_text"), (5, "bad_text"), (6, "bad_text"), (7, "bad_json"),
        (9, "not_utf8"), (10, "not_utf8"), (11, "no_url"), (12, "bad_text"), (13, "bad_text"),
    ]  # fmt: skip


def test_long_lines_and_large_texts_are_rejected_wherever_they_are_cut(tmp_path):
    long = json.dumps({"text": "y" * 20_000}).encode()
    good = b'{"text": "Good."}'
    path = write(
        tmp_path / "a.jsonl", b"\n".join([good, long, b"z" * 900_000, good, b"z" * 900_000])
    )
    pages, rejects, _ = read("jsonl", path, (10_000, 1 << 24))
    assert [page.number for page in pages] == [1, 4]
    assert rejects == [(2, "too_large"), (3, "too_large"), (5, "too_large")]


def test_files_that_are_no_json_lines_are_unreadable(tmp_path):
    for content, why in ((b"", "empty"), (b"<html>\n", "no JSON object"), (b"[\n1\n]", "no JSON")):
        with pytest.raises(UnreadableSourceError, match=why):
            read("jsonl", write(tmp_path / "a.jsonl", content))
    with pytest.raises(UnreadableSourceError, match="ZIP"):
        read("jsonl", write(tmp_path / "a.jsonl", b"PK\x03\x04..."))


@pytest.mark.slow
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_damage_makes_a_file_unreadable_and_a_cut_costs_the_rest(tmp_path, pack):
    numbers = (f'{{"text": "Page {n} {n * 7919 % 10007}."}}\n' for n in range(80_000))
    packed = pack("".join(numbers).encode())
    pages, rejects, _ = read("jsonl", write(tmp_path / "a.jsonl", packed[: len(packed) * 3 // 4]))
    assert 10_000 < len(pages) < 79_000
    assert rejects[-1] == (pages[-1].number + 1, "truncated")
    if pack is zstd:
        return  # frames of pyarrow's codec carry no checksum
    damaged = bytearray(packed)
    damaged[len(damaged) // 2] ^= 0x55
    with pytest.raises(UnreadableSourceError, match=r"is damaged .*: fetch it again"):
        read("jsonl", write(tmp_path / "a.jsonl", bytes(damaged)))


@pytest.mark.slow
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_a_bomb_is_given_up_at_its_bound(tmp_path, pack):
    content = b'{"text": "Before."}\n' + b" \n" * 2_000_000
    pages, rejects, stats = read(
        "jsonl", write(tmp_path / "a.jsonl", pack(content)), (1000, 1 << 20)
    )
    assert len(pages) == 1
    assert rejects == [(2, "too_large")]
    assert stats.bytes_read < len(content) // 100


def test_a_book_is_one_page(tmp_path):
    text = "Chapter one.\r\n\r\nIt began.\r\n"
    for content in (text.encode(), gzip.compress(text.encode()), text.encode("utf-16")):
        pages, rejects, _ = read("books", write(tmp_path / "A Book.txt", content))
        assert rejects == []
        assert [(p.number, p.page.url, p.page.text) for p in pages] == [
            (1, "file:A%20Book.txt", "Chapter one.\n\nIt began.\n")
        ]
    for content, reason in (
        (b"caf\xe9", "not_utf8"),
        (b" \n", "bad_text"),
        (b"x" * 2000, "too_large"),
    ):
        assert read("books", write(tmp_path / "b.txt", content), (1000, 1 << 20))[1] == [
            (1, reason)
        ]


def test_rows_of_parquet_and_arrow_are_pages(tmp_path):
    table = pa.table(
        {
            "id": [1, 2, 3, 4],
            "text": ["One.", None, "Three.", ""],
            "url": ["http://a.example/", "u", None, "v"],
            "timestamp": pa.array([1_577_836_800_000_000_000] * 4, pa.timestamp("ns", "UTC")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table, max_chunksize=3)
    cut = (tmp_path / "a.parquet").read_bytes()[:-9]
    for name in ("a.parquet", "a.arrow"):
        pages, rejects, _ = read("hf", tmp_path / name)
        assert [(p.number, p.page.url, p.page.timestamp, p.page.text) for p in pages] == [
            (1, "http://a.example/", "2020-01-01T00:00:00Z", "One."),
            (3, f"file:{name}#3", "2020-01-01T00:00:00Z", "Three."),
        ]
        assert rejects == [(2, "bad_text"), (4, "bad_text")]
    for bad in (pa.table({"body": ["x"]}), pa.table({"text": [1]}), pa.table({"text": [{"a": 1}]})):
        for path in arrow_files(tmp_path, bad):
            with pytest.raises(UnreadableSourceError, match="no column 'text' of strings, got "):
                read("hf", path)
    with pytest.raises(UnreadableSourceError):
        read("parquet", write(tmp_path / "cut.parquet", cut))


def arrow_files(folder, table):
    """Write a table as a Parquet file and as a stream of Arrow; return their paths."""
    pq.write_table(table, folder / "a.parquet")
    with (
        pa.OSFile(str(folder / "a.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)
    return folder / "a.parquet", folder / "a.arrow"


@pytest.mark.parametrize("kind", ["dictionary", "string_view", "large_string", "binary"])
def test_strings_of_every_type_of_arrow_are_texts(tmp_path, kind):
    text = pa.array(["One.", None, "Two.", "One."])
    text = text.dictionary_encode() if kind == "dictionary" else text.cast(getattr(pa, kind)())
    for path in arrow_files(tmp_path, pa.table({"text": text})):
        pages, rejects, _ = read("hf", path)
        assert [(p.number, p.page.text) for p in pages] == [(1, "One."), (3, "Two."), (4, "One.")]
        assert rejects == [(2, "bad_text")]


@pytest.mark.parametrize(
    ("times", "dates"),
    [
        (pa.array([2**62, 0, -(2**62)], pa.timestamp("us")), ["", "1970-01-01T00:00:00Z", ""]),
        (
            pa.array([0, -62135596800, 2**50], pa.timestamp("s", "America/New_York")),
            ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", ""],
        ),
        (pa.array([1, None, -1], pa.timestamp("ms", "No/Where")),
         ["1970-01-01T00:00:00Z", "", "1969-12-31T23:59:59Z"]),
        (pa.array([2**30, 1, -(2**30)], pa.date32()), ["", "1970-01-02T00:00:00Z", ""]),
        (pa.array([{"a": 1}, None, {"a": 2}]), ["", "", ""]),
    ],
)  # fmt: skip
def test_a_time_that_is_none_costs_no_page(tmp_path, times, dates):
    table = pa.table({"text": ["One.", "Two.", "Three."], "timestamp": times})
    for path in arrow_files(tmp_path, table):
        pages, rejects, _ = read("hf", path)
        assert ([page.page.timestamp for page in pages], rejects) == (dates, [])


def test_columns_that_are_no_strings_or_twice_there_are_named(tmp_path):
    urls = pa.array([1, 2], pa.timestamp("us", "No/Where"))
    for path in arrow_files(tmp_path, pa.table({"text": ["One.", "Two."], "url": urls})):
        assert read("hf", path)[1] == [(1, "no_url"), (2, "no_url")]
    for name in ("text", "url"):
        twice = pa.Table.from_arrays([pa.array(["x"])] * 3, names=["text", "url", name])
        for path in arrow_files(tmp_path, twice):
            with pytest.raises(UnreadableSourceError, match=f"2 columns '{name}'|no column 'text'"):
                read("hf", path)


def test_a_text_that_many_rows_share_is_bounded_like_a_bomb(tmp_path):
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), ["x " * 1000])
    for path in arrow_files(tmp_path, pa.table({"text": text})):
        pages, rejects, _ = read("hf", path, (1 << 20, 1 << 20))
        most = max(1 << 20, 100 * path.stat().st_size)
        assert len(pages) == most // 2000
        assert rejects == [(len(pages) + 1, "too_large")]


def test_text_that_is_not_utf8_costs_its_row(tmp_path):
    raw = pa.array([b"Good.", b"bad \xff", b"Fine."], pa.binary())
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    pages, rejects, _ = read("parquet", tmp_path / "a.parquet")
    assert [page.page.text for page in pages] == ["Good.", "Fine."]
    assert rejects == [(2, "not_utf8")]


@pytest.mark.slow
def test_what_datasets_saves_is_read(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs the extra dev")
    texts = [f"Page {number}." for number in range(5)]
    data = datasets.Dataset.from_dict({"text": texts, "url": [f"http://a/{t}" for t in texts]})
    datasets.DatasetDict({"train": data}).save_to_disk(str(tmp_path / "saved"))
    data.to_json(tmp_path / "saved" / "more.jsonl")
    files = input_files("hf", [str(tmp_path / "saved")])
    assert sorted(file.path.rpartition("/")[2] for file in files) == [
        "data-00000-of-00001.arrow", "more.jsonl",
    ]  # fmt: skip
    for file in files:
        pages, rejects, _ = read("hf", tmp_path / file.path)
        assert ([page.page.text for page in pages], rejects) == (texts, [])


def test_records_of_a_prepared_c4_are_pages(tmp_path):
    from pipelines.corpus.formats import tfrecord

    with open(tmp_path / "c4-train.tfrecord-00000-of-00001", "wb") as file:
        tfrecord.write(page_table(["One.", "Two."]), file)
    write(tmp_path / "dataset_info.json", b"{}")
    [found] = input_files("tfds", [str(tmp_path)])
    pages, rejects, _ = read("tfds", tmp_path / found.path)
    assert [page.page.text for page in pages] == ["One.", "Two."]
    assert {page.page.timestamp for page in pages} == {"2024-01-01T00:00:00Z"}
    cut = (tmp_path / "c4-train.tfrecord-00000-of-00001").read_bytes()[:-3]
    pages, rejects, _ = read("tfds", write(tmp_path / "cut.tfrecord", cut))
    assert ([page.page.text for page in pages], rejects) == (["One."], [(2, "damaged")])


def test_a_record_without_good_text_costs_itself(tmp_path):
    from pipelines.corpus.formats import tfrecord

    records = b""
    for values in (
        {"text": b"One."},
        {"text": b"bad \xff"},
        {"url": b"http://a.example/"},
        {"text": b"Four.", "url": b"\xff"},
        {"text": b"Five."},
    ):
        names = sorted(values)
        out = []
        tfrecord._RecordEncoder(names)(tuple(values[name] for name in names), out)
        records += b"".join(out)
    path = write(tmp_path / "a.tfrecord", records)
    pages, rejects, _ = read("tfds", path)
    assert [(page.number, page.page.text) for page in pages] == [(1, "One."), (5, "Five.")]
    assert rejects == [(2, "not_utf8"), (3, "bad_text"), (4, "not_utf8")]
    tfrecord._RecordEncoder(["url"])((b"u",), out := [])
    write(path, b"".join(out))
    with pytest.raises(UnreadableSourceError, match="no feature 'text', got url"):
        read("tfds", path)


PAGES = [
    WikiPage("Old Bridge", "The '''bridge''' stood.<ref>x</ref> It fell."),
    WikiPage("Older", "#REDIRECT [[Old Bridge]]", redirect="Old Bridge"),
    WikiPage("Talk:Old Bridge", "I like it.", namespace=1),
    WikiPage("Data", '{"a": 1}', model="json"),
    WikiPage("What?/Ünï", "The word #REDIRECT is here. [[Datei:A.jpg|x]]"),
]
HEAD = dump_head({0: "", 6: "Datei"}, "https://de.wikipedia.org/wiki/Hauptseite")


class TestWikipedia:
    @pytest.fixture(autouse=True)
    def _parser(self):
        pytest.importorskip("mwparserfromhell", reason="needs the extra import")

    @pytest.mark.parametrize("pack", [bytes, bz2.compress, gzip.compress])
    def test_articles_are_pages_by_what_the_dump_says(self, tmp_path, pack):
        path = write(tmp_path / "d.xml.bz2", pack(dump_bytes(PAGES, HEAD)))
        pages, rejects, stats = read("wikipedia", path)
        when = "2024-01-02T03:04:05Z"
        assert [(p.number, p.page.url, p.page.timestamp, p.page.text) for p in pages] == [
            (1, "https://de.wikipedia.org/wiki/Old_Bridge", when, "The bridge stood. It fell."),
            (
                5,
                "https://de.wikipedia.org/wiki/What%3F/%C3%9Cn%C3%AF",
                when,
                "The word #REDIRECT is here.",
            ),
        ]
        assert rejects == []
        assert stats.records == 5
        assert stats.other_records == {
            "redirect": 1, "other namespace": 1, "other content model": 1,
        }  # fmt: skip

    def test_an_old_dump_without_numbers_of_namespaces(self, tmp_path):
        pages = [WikiPage("Bridge: a history", "It stood."), WikiPage("Talk:Bridge", "I like it.")]
        path = write(
            tmp_path / "d.xml",
            dump_bytes(pages).replace(b"<ns>0</ns>", b"").replace(b"<ns>1</ns>", b""),
        )
        for content in (
            path.read_bytes(),
            re.sub(rb"<siteinfo>.*</siteinfo>", b"", path.read_bytes()),
        ):
            found, _, stats = read("wikipedia", write(path, content))
            assert [page.page.text for page in found] == ["It stood."]
            assert stats.other_records == {"other namespace": 1}
        assert found[0].page.url == "file:d.xml#Bridge:_a_history"

    def test_a_multistream_dump_is_read_to_its_end(self, tmp_path):
        pages = [WikiPage(f"Page {n}", f"It has number {n}.") for n in range(9)]
        found, rejects, _ = read("wikipedia", write(tmp_path / "m.xml.bz2", multistream(pages)))
        assert [page.page.text for page in found] == [page.text for page in pages]
        assert rejects == []

    @pytest.mark.parametrize(
        "declared",
        [
            "<!DOCTYPE x>",
            '<!DOCTYPE x [<!ENTITY a "b">]>',
            '<!DOCTYPE x SYSTEM "file:///etc/passwd">',
        ],
    )
    def test_a_dtd_or_entities_are_refused(self, tmp_path, declared):
        path = write(tmp_path / "d.xml", declared.encode() + dump_bytes(PAGES))
        with pytest.raises(UnreadableSourceError, match=r"has a DTD or entities .*refused"):
            read("wikipedia", path)

    def test_other_xml_and_no_xml_are_unreadable(self, tmp_path):
        for content in (b"<rss></rss>", b"Hello.", b"<mediawiki" + b" a" * 5_000_000):
            with pytest.raises(UnreadableSourceError):
                read("wikipedia", write(tmp_path / "d.xml", content))

    def test_what_is_broken_costs_the_rest(self, tmp_path):
        first = f"{HEAD}{dump_page(PAGES[0])}"
        for rest, reason in (
            ("<page><title>Cut", "truncated"),
            ("<page></title>", "damaged"),
            ("<page>&other;</page>", "damaged"),
            ("<page>" + "<a>" * 30, "damaged"),
            ("<page><" + "a" * 9_000_000, "damaged"),
        ):
            pages, rejects, _ = read(
                "wikipedia", write(tmp_path / "d.xml", (first + rest).encode())
            )
            assert [page.page.text for page in pages] == ["The bridge stood. It fell."]
            assert rejects == [(2, reason)], rest[:30]

    def test_a_page_beyond_the_bound_costs_itself(self, tmp_path):
        pages = [WikiPage("Large", "x" * 5000), WikiPage("Small", "It is small.")]
        path = write(tmp_path / "d.xml", dump_bytes(pages))
        found, rejects, _ = read("wikipedia", path, (1000, 1 << 20))
        assert [page.page.text for page in found] == ["It is small."]
        assert rejects == [(1, "too_large")]


def test_a_folder_gives_the_files_of_a_source(tmp_path):
    names = [
        "a.jsonl", "b.json.gz", "sub/c.jsonl.zst", "d.parquet", "e.txt", "f.txt.gz", "g.arrow",
        "x-pages-articles1.xml-p1p41242.bz2", "x-pages-articles.xml.bz2", "x-rss.xml",
        "x-stub-articles.xml.gz", "dataset_info.json", "state.json", ".cache/h.jsonl",
        "rejects/i.jsonl", "cleaned/j.arrow", "README.md", "c4-train.tfrecord-00000-of-01024",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, b"x")
    found = {
        source: {
            file.path.removeprefix(f"{tmp_path}/") for file in input_files(source, [str(tmp_path)])
        }
        for source in SOURCES
    }
    assert found == {
        "wikipedia": {"x-pages-articles1.xml-p1p41242.bz2", "x-pages-articles.xml.bz2"},
        "books": {"e.txt", "f.txt.gz"},
        "jsonl": {"a.jsonl", "b.json.gz", "sub/c.jsonl.zst"},
        "parquet": {"d.parquet"},
        "hf": {"a.jsonl", "b.json.gz", "sub/c.jsonl.zst", "d.parquet", "g.arrow"},
        "tfds": {"c4-train.tfrecord-00000-of-01024"},
    }
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="is a folder"):
        input_files("jsonl", [str(tmp_path / "empty")])
    with pytest.raises(FileNotFoundError, match=r"holds no text files \*\.txt"):
        input_files("books", [str(tmp_path / "sub")])
    with pytest.raises(FileNotFoundError, match="no input file matches"):
        input_files("books", [str(tmp_path / "absent")])


def test_files_of_one_name_are_refused_where_urls_are_deduplicated():
    require_distinct_names("books", ["/a/x.txt", "/a/y.txt"], "en")
    require_distinct_names("wikipedia", ["/a/x.xml", "/b/x.xml"], "en")
    with pytest.raises(ValueError, match=r"/a/x\.txt and /b/x\.txt have the same name"):
        require_distinct_names("books", ["/a/x.txt", "/b/x.txt"], "en")


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch):
        names = ["README.md", "en/c4-train.00000.json.gz", "en/c4-train.00001.json.gz",
                 "fr/c4-train.00000.json.gz", "script.py", "dataset_infos.json"]  # fmt: skip

        class Api:
            def dataset_info(self, name, revision):
                if name != "allenai/c4":
                    raise OSError("404 Client Error\nmore")
                siblings = [types.SimpleNamespace(rfilename=file) for file in names]
                return types.SimpleNamespace(sha=revision or "abc", siblings=siblings)

        monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=Api))
        asked = []

        def match(patterns):
            asked.extend([patterns] if isinstance(patterns, str) else patterns)
            return [storage.FileInfo(url, 1) for url in asked]

        monkeypatch.setattr("pipelines.imports.sources.storage.match", match)
        return asked

    def test_files_are_read_at_one_revision(self, hub):
        found = input_files("hf", ["hf://datasets/allenai/c4/en/*.json.gz"])
        base = "https://huggingface.co/datasets/allenai/c4/resolve/abc/en/c4-train.0000"
        assert [file.path for file in found] == [f"{base}0.json.gz", f"{base}1.json.gz"]
        found = input_files("hf", ["hf://datasets/allenai/c4@v1"])
        assert len([file for file in found if "/v1/" in file.path]) == 3  # neither card nor script

    def test_names_of_other_forms_are_refused(self, hub):
        with pytest.raises(ValueError, match="is named hf://datasets/OWNER/NAME/PATTERN"):
            input_files("hf", ["hf://allenai/c4"])
        with pytest.raises(FileNotFoundError, match="no data file"):
            input_files("hf", ["hf://datasets/allenai/c4/de/*"])
        with pytest.raises(OSError, match=r"does not list this data set: 404 Client Error$"):
            input_files("hf", ["hf://datasets/nobody/none"])
