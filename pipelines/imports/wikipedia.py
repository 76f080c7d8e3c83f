"""Dumps of a MediaWiki wiki: ``pages-articles.xml.bz2``, whole, in parts, or multistream.

The form is that of mediawiki.org/xml/export-0.11. What is an article is said by the dump itself:
namespace 0, no ``<redirect>`` element, content model ``wikitext``. Its text decides nothing.

A dump has neither a DTD nor entities of its own. A file that declares any is refused, since an
entity may unpack to any size and may name other files.
"""

import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.parsers import expat

from c4_filters.verdicts import RejectReason
from pipelines.imports.inflated import BrokenError, Stored, UnreadableSourceError, pieces
from pipelines.imports.pages import Found, Limits, Numbered, raw_page, reject, url_of_file
from pipelines.imports.wikitext import LinkNames, plain_text, wikitext_parser

_DEEPEST = 16  # elements; a dump has 5
_MOST_FIELD_CHARS = 4096  # of a title, a date; titles have at most 255 bytes
#: Of the wikitext of a page. MediaWiki refuses more than 2 MiB ($wgMaxArticleSize).
_MOST_WIKITEXT_BYTES = 4 << 20
_ARTICLE = "0"


def read(path: str, stored: Stored, limits: Limits) -> Iterator[Found]:
    """Yield the articles of a dump, packed or not, as plain text; other pages are counted.

    Raises:
        UnreadableSourceError: The file is not a dump, or has a DTD or entities.
        BrokenError: It is cut off or damaged; see `pipelines.imports.inflated.pieces`.
        ValueError: The parser of wikitext is not installed.
    """
    wikitext_parser()  # say now that it is missing
    dump = _Dump(limits, stored)
    names: LinkNames | None = None
    broken: BrokenError | None = None
    for piece in itertools.chain(pieces(stored, limits.file), [b""]):
        try:
            dump.feed(piece)
        except BrokenError as error:
            broken = error  # once the pages before it are out
        pages, dump.pages = dump.pages, []
        if pages and names is None:
            names = LinkNames(dump.namespaces)
        for page in pages:
            assert names is not None
            yield _article(page, names, dump.base or f"{url_of_file(path)}#")
        if broken is not None:
            raise broken


def _article(page: "_Page", names: LinkNames, base: str) -> Found:
    """Return an article's page, or why it has none."""
    title = page.fields["title"]
    if page.too_large:
        detail = f"{title}: wikitext of more than {_MOST_WIKITEXT_BYTES:,} bytes"
        return reject(page.number, RejectReason.TOO_LARGE, detail)
    if not title:
        return reject(page.number, RejectReason.NO_URL, "a page without a title")
    try:
        text = plain_text("".join(page.text), names)
    except Exception as error:  # of the parser's own, on wikitext that it cannot follow
        detail = f"{title}: {type(error).__name__}: {error}"
        return reject(page.number, RejectReason.BAD_MARKUP, detail)
    url = base + quote(title.replace(" ", "_"), safe="/:@!$&'()*+,;=~")
    return Numbered(page.number, raw_page(url, page.fields["timestamp"], text))


class _Page:
    """What is read of a ``<page>`` element; a later revision replaces an earlier one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.fields = dict.fromkeys(("title", "ns", "model", "timestamp"), "")
        self.redirect = self.too_large = False
        self.text: list[str] = []
        self.size = 0

    def other_kind(self) -> str:
        """Return what the page is if it is not an article; empty if it is one."""
        if self.redirect:
            return "redirect"
        if self.fields["ns"] not in ("", _ARTICLE):
            return "other namespace"
        return "other content model" if self.fields["model"] not in ("", "wikitext") else ""


class _Dump:
    """Parses a dump piece by piece, and collects the articles that are complete."""

    def __init__(self, limits: Limits, stored: Stored) -> None:
        self.base = ""
        self.namespaces: dict[int, str] = {}
        self.pages: list[_Page] = []
        self._most_text = min(limits.record, _MOST_WIKITEXT_BYTES)
        self._stats = stored.stats
        self._page: _Page | None = None
        self._path: list[str] = []
        self._field: list[str] | None = None
        self._field_size = 0
        self._namespace_key: int | None = None
        self._fed = 0
        self._parser = parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.buffer_size = 1 << 16
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.SkippedEntityHandler = self._refuse

    def feed(self, piece: bytes) -> None:
        """Parse the next bytes of the dump; none are its end."""
        last = not piece
        self._fed += len(piece)
        try:
            self._parser.Parse(piece, last)
        except expat.ExpatError as error:
            if not self._stats.records and not self._path:
                raise UnreadableSourceError(f"is not an XML dump of a wiki: {error}") from None
            if last:
                detail = "the dump ends before its closing tag"
                raise BrokenError(RejectReason.TRUNCATED, detail) from None
            raise BrokenError(RejectReason.DAMAGED, f"not well-formed XML: {error}") from None
        # What expat holds of a token that does not end.
        if self._fed - self._parser.CurrentByteIndex > 2 * _MOST_WIKITEXT_BYTES:
            raise BrokenError(RejectReason.DAMAGED, "not well-formed XML: a tag that does not end")

    def _refuse(self, *declared: Any) -> None:
        raise UnreadableSourceError(
            f"has a DTD or entities of its own (line {self._parser.CurrentLineNumber}), which no "
            "dump of a wiki has: refused, since they could unpack to any size"
        )

    def _kind_by_title(self, page: _Page) -> str:
        """Return the kind of a page of a dump that has no ``<ns>``, as before 2012."""
        prefix, colon, _ = page.fields["title"].partition(":")
        if page.fields["ns"] or not colon:
            return ""
        return "other namespace" if LinkNames(self.namespaces).is_namespace(prefix) else ""

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        path = self._path
        if not path and name != "mediawiki":
            what = f"is not a dump of a wiki: its root element is <{name[:40]}>"
            raise UnreadableSourceError(what)
        if len(path) >= _DEEPEST:
            raise BrokenError(RejectReason.DAMAGED, f"elements nested deeper than {_DEEPEST}")
        path.append(name)
        page, depth = self._page, len(path)
        if page is None:
            if depth == 2 and name == "page":
                self._stats.records += 1
                self._page = _Page(self._stats.records)
            elif path[1:2] == ["siteinfo"] and name in ("base", "namespace"):
                self._namespace_key = _number(attributes.get("key"))
                self._collect()
        elif depth == 3:
            if name in ("title", "ns"):
                self._collect()
            elif name == "redirect":
                page.redirect = True
            elif name == "revision":
                page.fields |= {"model": "", "timestamp": ""}
                page.text, page.size, page.too_large = [], 0, False
        elif depth == 4 and path[2] == "revision":
            if name in ("model", "timestamp"):
                self._collect()
            elif name == "text":
                self._parser.CharacterDataHandler = self._text

    def _collect(self) -> None:
        self._field, self._field_size = [], 0
        self._parser.CharacterDataHandler = self._characters

    def _characters(self, data: str) -> None:
        self._field_size += len(data)
        if self._field is not None and self._field_size <= _MOST_FIELD_CHARS:
            self._field.append(data)

    def _text(self, data: str) -> None:
        page = self._page
        assert page is not None
        page.size += len(data)  # characters; bytes are at most four times as many
        if page.size > self._most_text or page.other_kind():
            page.too_large, page.text = page.size > self._most_text, []
        else:
            page.text.append(data)

    def _end(self, name: str) -> None:
        depth = len(self._path)
        self._path.pop()
        page = self._page
        if depth == 2 and page is not None:
            self._page = None
            if kind := page.other_kind() or self._kind_by_title(page):
                self._stats.other_records[kind] += 1
            else:
                self.pages.append(page)
            return
        if self._field is None:
            if name == "text":
                self._parser.CharacterDataHandler = None
            return
        value, self._field = "".join(self._field).strip(), None
        self._parser.CharacterDataHandler = None
        if page is None:
            if name == "base":
                self.base = value[: value.rfind("/") + 1]
            elif self._namespace_key is not None and len(self.namespaces) < 1000:
                self.namespaces[self._namespace_key] = value
        else:
            page.fields[name] = value


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None
