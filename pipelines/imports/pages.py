"""What every reader yields: numbered pages and rejects, with the fields of a WET record."""

import datetime
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

from c4_filters.pages import RawPage
from c4_filters.verdicts import RejectReason
from pipelines.wet.results import Reject, short_line

_CONTENT_TYPE = "text/plain"  # as Common Crawl's WET records have it


_IN_NAMES = "!$&'()*+,;=@~:"


class Limits(NamedTuple):
    """Bounds of a build, in bytes."""

    record: int  # of one page
    file: int  # that a file may unpack to


class Numbered(NamedTuple):
    """A page and its number in its file: of the line, the row, or the page of a dump; from 1."""

    number: int
    page: RawPage


Found: TypeAlias = Numbered | Reject


def url_of_file(path: str) -> str:
    """Return the url of a page that has none of its own and is a whole file.

    >>> url_of_file("/data/my book.txt")
    'file:my%20book.txt'
    """
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    return f"file:{quote(name, safe=_IN_NAMES, errors='replace')}"


def raw_page(url: str, timestamp: str, text: str, size: int | None = None) -> RawPage:
    """Return a page with the fields that WET records have besides; ``size``: of the text, UTF-8."""
    if size is None:
        size = len(text.encode())
    return RawPage(url, timestamp, _CONTENT_TYPE, str(size), text)


def reject(number: int, reason: RejectReason, detail: str) -> Reject:
    """Return what is not a page, by its number in its file."""
    return Reject(number, reason, short_line(detail))


def page_of(values: dict[str, Any], number: int, file_url: str, limits: Limits) -> Found:
    """Return the page of a line or row: its ``text``, its ``url`` and ``timestamp`` if it has any.

    Args:
        values: The fields of the line.
        number: Of the line, from 1.
        file_url: Of its file, for a page without a url: ``file:NAME#line``.
        limits: Larger texts are rejected.
    """
    try:
        text, url, date = (_decoded(values.get(name)) for name in ("text", "url", "timestamp"))
    except UnicodeDecodeError as error:
        return reject(number, RejectReason.NOT_UTF8, str(error))
    if not isinstance(text, str) or not text or text.isspace():
        what = "is empty" if isinstance(text, str) else "is not a string"
        if text is None:
            what = "is missing" if "text" not in values else "is null"
        return reject(number, RejectReason.BAD_TEXT, f"text {what}")
    if url is None or url == "":
        url = f"{file_url}#{number}"
    elif not isinstance(url, str):
        return reject(number, RejectReason.NO_URL, f"url is not a string: {url!r:.100}")
    try:
        size = len(text.encode())
        url.encode()
    except UnicodeEncodeError:
        return reject(number, RejectReason.NOT_UTF8, f"half a surrogate pair: {url!r:.100}")
    if size > limits.record:
        return reject(number, RejectReason.TOO_LARGE, f"{url}: {size:,} bytes")
    return Numbered(number, raw_page(url, _date(date), text, size))


def _decoded(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _date(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.UTC)
        return f"{value.replace(tzinfo=None).isoformat(timespec='seconds')}Z"
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().strip()
    return ""
