"""The seeds of fuzzing: the pages of ``samples/``, and words that the code looks for."""

import gzip
import io
import pathlib
import re
import zlib
from collections.abc import Iterator

from pipelines.wet.records import read_wet
from pipelines.wet.results import ReadStats, WetRecord

_SAMPLES = pathlib.Path(__file__).resolve().parents[1] / "samples" / "wet"

#: What a mutation may put in: words of the formats and of the rules.
WORDS: tuple[bytes, ...] = (
    *(b"WARC/1.0\r\n", b"WARC/1.1\n", b"WARC-Type: conversion\r\n", b"WARC-Date: 2019\r\n"),
    *(b"WARC-Target-URI: http://a.example/\r\n", b"Content-Length: 9\r\n", b"Content-Length: "),
    *(b"\r\n\r\n", b"\n\n", b"\x1f\x8b\x08", b"WARC-Block-Digest: sha1:", b"99999999999999999"),
    *(b"javascript", b"lorem ipsum", b"{", b"privacy policy", b"uses cookies", b"[12]", b"[edit]"),
    *(b"[citation needed]", b"...", b". ", b"? ", b"! ", b'." ', b"Dr. ", b"e.g. ", b"J. "),
    *(b"heck", b"\xc4\xb0", b"\xe2\x84\xaa", b"\xc2\xa0", b"\x1c", b"\xe2\x80\xa8"),
    *(b"\xe3\x80\x80", b"http://", b"https://www.", b"?utm_", b"?ref", b"?feed", b"xn--"),
    *(b"[::1]", b"@", b":80", b"%", b"../", b"\\", b"\0", b"\x1b[31m", b"--", b"' ", b")"),
    *(b"\xef\xbb\xbf", b"\xff"),
)


def _records() -> Iterator[WetRecord]:
    for path in sorted(_SAMPLES.iterdir()):
        with path.open("rb") as file:
            for found in read_wet(file, ReadStats()):
                if isinstance(found, WetRecord) and len(found.text) < 3000:
                    yield found


def seeds_of(target: str) -> list[bytes]:
    """Return inputs to begin with, in the form that the target called ``target`` takes."""
    if target == "reader":
        found = []
        for path in sorted(_SAMPLES.iterdir()):
            with path.open("rb") as file:
                content = file.read()
            if path.suffix == ".gz":
                content = _inflated(content)
            parts = re.split(rb"(?=WARC/1)", content)
            for i in range(0, min(len(parts), 40), 4):
                text = b"".join(parts[i : i + 3])[:2500]
                found += [bytes([how, 1, 9]) + text for how in (0, 2, 3, 18)]
        return found
    if target == "imports":
        from fuzz.import_targets import import_seeds

        return import_seeds()
    records = list(_records())
    if target == "urls":
        return [record.url.encode() for record in records]
    if target == "sentences":
        return [record.text.encode()[:500] for record in records]
    if target == "growth":
        texts = [f"{record.url}\n{record.text[:300]}".encode() for record in records[::3]]
        return [bytes([i, 40 * i & 255, 90 * i & 255]) + text for i, text in enumerate(texts)]
    if target in ("lines", "pages"):
        return [
            bytes([i]) + f"{record.url}\n{record.text}".encode() for i, record in enumerate(records)
        ]
    from fuzz.file_targets import file_seeds

    return file_seeds(target)


def _inflated(content: bytes) -> bytes:
    """Return the text up to where the file is cut."""
    text = b""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        try:
            while piece := file.read(4096):
                text += piece
        except (EOFError, OSError, zlib.error):
            pass
    return text
