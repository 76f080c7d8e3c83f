"""Recognise files that are not WET files by their first bytes."""

import re
from collections.abc import Mapping

SIGNATURE_BYTES = 1024  # a tar archive has its mark at 257, an error page its code further on

_DECOMPRESS = "decompress it first"
_UNPACK = "unpack it, and give the WET files in it"
_FETCH = "fetch it again"
# First bytes -> (what the file is, what to do).
_SIGNATURES: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), kind, advice)
    for pattern, kind, advice in (
        # RFC 8878: a frame, or a skippable one such as holds the dictionary of a .warc.zst file.
        (rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", "is zstd-compressed", _DECOMPRESS),
        (rb"\xfd7zXZ\0", "is xz-compressed", _DECOMPRESS),
        (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", "is bzip2-compressed", _DECOMPRESS),
        (rb"\x04\x22\x4d\x18", "is lz4-compressed", _DECOMPRESS),
        (rb"\x1f\x9d", "is compress-compressed (.Z)", _DECOMPRESS),
        (rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", "is a ZIP archive", _UNPACK),
        (rb"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", _UNPACK),
        (rb".{257}ustar", "is a tar archive", _UNPACK),
        (rb"PAR1", "is a Parquet file", "give WET files"),
        (rb"%PDF-", "is a PDF file", "give WET files"),
        (rb"filedesc://", "is an ARC file", "give the WET file made from it"),
        (rb"version https://git-lfs", "is a pointer of Git LFS", "fetch the file itself"),
        (rb"HTTP/\d", "is a stored HTTP answer", _FETCH),
        (
            rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?<Error\b",
            "is an XML error page of the object store",
            _FETCH,
        ),
        (rb"(?:\xef\xbb\xbf)?\s*<\?xml\b", "is XML", _FETCH),
        (
            rb"(?:\xef\xbb\xbf)?\s*(?:<!--.{0,500}?-->\s*)?<(?:!doctype\s+html|html|head|body)\b",
            "is an HTML page, perhaps a server's error",
            _FETCH,
        ),
        (rb"\s*[{\[]\s*[{\"]", "is JSON", "c4 import --from jsonl reads pages in JSON lines"),
        (
            rb"(?:\S+/)?\S+\.warc(?:\.wet|\.wat)?(?:\.gz)?\s*[\r\n]",
            "is a list of paths",
            "fetch the files that it names, and give those",
        ),
        (rb"\xff\xfe|\xfe\xff", "is UTF-16 text", _FETCH),
    )
)
_ERROR_CODE = re.compile(rb"<Code>\s*([\w.-]{1,60})\s*</Code>")


def name_kind(head: bytes) -> str:
    r"""Return what a file with these first bytes is and what to do, or "" where nothing is known.

    >>> name_kind(b"PK\x03\x04")
    'is a ZIP archive: unpack it, and give the WET files in it'
    """
    for signature, kind, advice in _SIGNATURES:
        if signature.match(head):
            code = _ERROR_CODE.search(head)
            shown = f" ({code[1].decode('ascii', 'replace')})" if code else ""
            return f"{kind}{shown}: {advice}"
    return ""


def name_record_types(counts: Mapping[str, int]) -> str:
    """Return what kind of WARC file holds such records (type -> count) and no page.

    >>> name_record_types({"warcinfo": 1, "metadata": 2})
    'holds 2 metadata and 1 warcinfo records but no page: a WAT file, give the WET file beside it'
    """
    parts = [f"{count:,} {name}" for name, count in sorted(counts.items())]
    shown = " and ".join([*filter(None, [", ".join(parts[:-1])]), *parts[-1:]])
    shown += " record" if sum(counts.values()) == 1 else " records"
    types = counts.keys() - {"warcinfo"}
    if types & {"response", "request", "revisit"}:
        what = "a WARC file, give the WET file made from it"
    elif types == {"metadata"}:
        what = "a WAT file, give the WET file beside it"
    elif types:
        what = "only records of type conversion are pages"
    else:
        what = "fetch it again, or leave it out if its crawl has none"
    return f"holds {shown} but no page: {what}"
