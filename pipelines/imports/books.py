"""Books: one page per text file."""

import codecs
from collections.abc import Iterator

from c4_filters.verdicts import RejectReason
from pipelines.imports.inflated import Stored, pieces
from pipelines.imports.pages import Found, Limits, Numbered, raw_page, reject, url_of_file
from pipelines.text_files import decode_text


def read(path: str, stored: Stored, limits: Limits) -> Iterator[Found]:
    """Yield the one page of a text file in UTF-8, packed or not.

    Raises:
        UnreadableSourceError, BrokenError: See `pipelines.imports.inflated.pieces`.
    """
    parts: list[bytes] = []
    held = 0
    for piece in pieces(stored, limits.file):
        held += len(piece)
        if held > limits.record:
            detail = f"a text of more than {limits.record:,} bytes (--max-record-mb)"
            yield reject(1, RejectReason.TOO_LARGE, detail)
            return
        parts.append(piece)
    content = b"".join(parts)
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            content = content.decode("utf-16").encode()
        text = decode_text(content)
    except ValueError as error:
        yield reject(1, RejectReason.NOT_UTF8, str(error))
        return
    if not text or text.isspace():
        yield reject(1, RejectReason.BAD_TEXT, "text is empty")
        return
    yield Numbered(1, raw_page(url_of_file(path), "", text))
