"""JSON lines: one object per line, with ``text`` and perhaps ``url`` and ``timestamp``."""

import json
from collections.abc import Iterator

from c4_filters.verdicts import RejectReason
from pipelines.imports.inflated import Stored, UnreadableSourceError, pieces
from pipelines.imports.pages import Found, Limits, page_of, reject, url_of_file

# Beside the text, a line holds other fields, and a character of a text may take six.
_LINE_TIMES = 8
_BOM = b"\xef\xbb\xbf"


def read(path: str, stored: Stored, limits: Limits) -> Iterator[Found]:
    """Yield the pages of a file of JSON lines, packed or not; blank lines are skipped.

    Raises:
        UnreadableSourceError: No line is a JSON object.
        BrokenError: See `pipelines.imports.inflated.pieces`.
    """
    url, objects, first = url_of_file(path), 0, ""
    most = _LINE_TIMES * limits.record
    for number, line in _lines(stored, limits.file, most):
        if line is None:
            yield reject(number, RejectReason.TOO_LARGE, f"a line of more than {most:,} bytes")
            continue
        if not line or line.isspace():
            continue
        try:
            values = json.loads(line)
        except UnicodeDecodeError as error:
            yield reject(number, RejectReason.NOT_UTF8, str(error))
            continue
        except (ValueError, RecursionError) as error:
            first = first or str(error)
            yield reject(number, RejectReason.BAD_JSON, str(error))
            continue
        if not isinstance(values, dict):
            first = first or "not an object"
            yield reject(number, RejectReason.BAD_JSON, f"not an object: {line[:100]!r}")
            continue
        objects += 1
        yield page_of(values, number, url, limits)
    if first and not objects:
        raise UnreadableSourceError(f"holds no JSON object in any line ({first}): not JSON lines")


def _lines(stored: Stored, most_file: int, most_line: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield lines with their numbers, from 1; None for a line that is longer than the bound."""
    number, parts, held, lost = 1, list[bytes](), 0, False
    start = True
    for piece in pieces(stored, most_file):
        if start:
            piece, start = piece.removeprefix(_BOM), False
        *whole, rest = piece.split(b"\n")
        for line in whole:
            lost = lost or held + len(line) > most_line
            yield number, None if lost else b"".join([*parts, line])
            number, parts, held, lost = number + 1, [], 0, False
        held += len(rest)
        if held > most_line:
            parts, lost = [], True
        elif rest:
            parts.append(rest)
    if parts or lost:
        yield number, None if lost else b"".join(parts)
