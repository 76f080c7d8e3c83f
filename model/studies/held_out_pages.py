"""Divides two corpora into what models are trained on and the text that they are judged on."""

import hashlib
import heapq
import itertools
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

from c4_filters.urls import normalize_url
from model.small_files import naming, write_json
from pipelines.corpus.reading import open_corpus

#: Lines that both corpora have are judged on if they have so many bytes.
_ENOUGH_COMMON = 20_000
_ROW_GROUP = 10_000


def hold_out(corpus: str, folder: pathlib.Path, share: float, most_bytes: int) -> dict[str, str]:
    """Write a corpus without the pages that are held out; return some of these by their keys.

    Args:
        corpus: a finished corpus.
        folder: of the corpus that is written.
        share: of the pages to hold out, by a hash of their keys.
        most_bytes: of the text returned: the same pages of every corpus, those of the least hash.
    """
    chosen: list[tuple[int, str, str]] = []  # a heap: the largest hash first
    size = 0

    def keep() -> Iterator[Any]:
        nonlocal size
        for page in read_pages(corpus):
            key, number = _key_of(page)
            if number >= share:
                yield page
                continue
            heapq.heappush(chosen, (-int(number * 2**62), key, page.text))
            size += len(page.text)
            while size > most_bytes:
                size -= len(heapq.heappop(chosen)[2])

    write_corpus(keep(), folder)
    return {key: text for _, key, text in sorted(chosen, reverse=True)}


def judged(a: dict[str, str], b: dict[str, str]) -> dict[str, Iterable[str]]:
    """Return the texts to judge on: lines that both corpora have, else the pages of each.

    A corpus's own pages favour the model trained on it: with the same faults, for one. Lines that
    both have favour neither.
    """
    common = []
    for key, text in a.items():
        lines = set(b.get(key, "").split("\n"))
        both = "\n".join(line for line in text.split("\n") if line in lines)
        if both:
            common.append(both)
    if sum(len(text.encode()) for text in common) >= _ENOUGH_COMMON:
        return {"both": common}
    return {"a": list(a.values()), "b": list(b.values())}


def _key_of(page: Any) -> tuple[str, float]:
    """Return a page's key, by its URL or else its text, and a number in [0, 1) that follows."""
    key = normalize_url(page.url) if page.url else page.text
    digest = hashlib.sha256(f"held out {key}".encode("utf-8", "surrogatepass")).digest()
    return digest.hex(), int.from_bytes(digest[:8], "big") / 2**64


def read_pages(corpus: str) -> Iterator[Any]:
    """Return the pages of a corpus that models are trained on."""
    return open_corpus(corpus).pages("train")


def held_out_pages(corpus: str) -> Iterator[str]:
    """Yield the texts of a corpus that is held out, of its validation split if it has one."""
    found = open_corpus(corpus)
    split = "validation" if "validation" in found.splits else "train"
    return (page.text for page in found.pages(split))


def write_corpus(pages: Iterator[Any], folder: pathlib.Path) -> None:
    """Write pages as a corpus that `open_corpus` opens, in their order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    schema = pa.schema([("text", pa.large_string()), ("url", pa.string())])
    path, count = folder / "train-0.parquet", 0
    with naming(path), pq.ParquetWriter(path, schema) as writer:
        rows = ({"text": page.text, "url": page.url} for page in pages)
        while group := list(itertools.islice(rows, _ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))
            count += len(group)
    shard = {"name": path.name, "split": "train", "pages": count}
    write_json(folder / "manifest.json", {"shards": [shard]})
