"""Files of the sources of ``c4 import``, damaged and made up.

They may cause only `UnreadableSourceError`, which commands report in one line.
"""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import re
import tempfile
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.corpus.formats import tfrecord
from pipelines.imports.inflated import UnreadableSourceError
from pipelines.imports.pages import Numbered
from pipelines.imports.sources import read_source
from pipelines.wet.results import MAX_DETAIL_CHARS, ReadStats
from testing.corpora import page_table
from testing.dumps import WikiPage, dump_bytes

from fuzz.targets import timed  # isort: skip

_KINDS = ("jsonl", "books", "wikipedia", "parquet", "hf", "tfds")
_BY_PATH = ("parquet", "hf", "tfds")
_LIMITS = (4_000, 100_000)
_PACKS: tuple[Callable[[bytes], bytes], ...] = (bytes, gzip.compress, bz2.compress, lzma.compress)
_OUR_MARKS = re.compile("[\x00-\x08]")


@timed
def check_imports(data: bytes) -> None:
    """Check a file. The first bytes say of which source it is, how packed, and where cut."""
    if len(data) < 3:
        return
    kind = _KINDS[data[0] % len(_KINDS)]
    content = data[3:]
    if kind not in _BY_PATH:
        content = _PACKS[data[1] & 3](content)
        content = content[: len(content) - (data[2] >> 4)]
    with contextlib.ExitStack() as stack:
        path = "made-up.arrow"
        if kind in _BY_PATH:
            file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".arrow"))
            file.write(content)
            file.flush()
            path = file.name
        _check(kind, path, content)


def _check(kind: str, path: str, content: bytes) -> None:
    stats, last = ReadStats(), 0
    try:
        for found in read_source(kind, path, io.BytesIO(content), stats, _LIMITS):
            if isinstance(found, Numbered):
                number, page = found
                assert page.url, "a page has no url"
                assert len(page.text.encode()) == int(page.content_length)
                assert page.text or kind == "wikipedia", "a page has no text"
                assert kind != "wikipedia" or not _OUR_MARKS.search(page.text), page.text
                page.url.encode(), page.timestamp.encode()
            else:
                number = found.offset
                assert found.detail.isprintable()
                assert len(found.detail) <= MAX_DETAIL_CHARS
            assert number > last, f"number {number} after {last}"
            last = number
    except UnreadableSourceError:
        return
    assert stats.bytes_read == len(content)
    assert len(stats.sha256) == 64


def import_seeds() -> list[bytes]:
    """Return a few files of each source."""
    texts = ["The river rose during the night.\nWe left.", "One. Two.", "Ünï " * 20]
    lines = [{"text": t, "url": f"http://a.example/{n}"} for n, t in enumerate(texts)]
    wikitext = [
        "'''Old Bridge''' ({{lang|fr|pont}}) needed {{convert|5|km}}.<ref>A {{cite|b=c}}</ref><br>",
        "== A ==\n* [[File:A.jpg|thumb|B [[c]]]] [http://a.example d]\n{|\n|-\n| e || f\n|}\n",
        "<nowiki>[[x]]</nowiki> &nbsp;&#x41; __TOC__ <!-- c --> [[de:X]] [[Category:Y]] <b>z</b>",
    ]
    pages = [WikiPage(f"Page {n}", text) for n, text in enumerate(wikitext)]
    pages.append(WikiPage("R", "#REDIRECT [[A]]", redirect="A"))
    table = pa.table({"text": texts, "url": [line["url"] for line in lines]})
    parquet, arrow, records = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    with pa.ipc.new_stream(arrow, table.schema) as stream:
        stream.write_table(table)
    tfrecord.write(page_table(texts), records)
    contents = {
        "jsonl": "\n".join([*map(json.dumps, lines), "[1]", '{"text": 5}', ""]).encode(),
        "books": texts[0].encode(),
        "wikipedia": dump_bytes(pages),
        "parquet": parquet.getvalue(),
        "hf": arrow.getvalue(),
        "tfds": records.getvalue(),
    }
    return [
        bytes([_KINDS.index(kind), how, cut]) + content
        for kind, content in contents.items()
        for how, cut in ((0, 0), (1, 0), (2, 255))
    ]
