"""Wikitext -> plain text: sentences without markup, one line per paragraph, item or heading.

The parser is mwparserfromhell. What it leaves to its callers is here: which namespaces are not
text, which templates hold words of a sentence, where a line ends. Extension tags (``<ref>``,
``<math>``) and comments are cut out first, as MediaWiki's preprocessor does
(Parser::extractTagsAndParams): of such a tag everything up to the first end tag is raw text.

The parser's time grows with the square of unclosed marks, and any page may be hostile. So what has
no words of the article is cut out before, unclosed marks too where they are many, and the rest is
parsed in short pieces.
"""

import functools
import importlib
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pipelines.extras import missing

PARSER = "mwparserfromhell"

# Our own marks in text under construction. XML holds none of these characters. (The parser takes
# a zero byte for the end.)
_HOLE, _BREAK, _ITEM, _HEADING = "\x01\x02\x03\x04"
_MARKS = re.compile("[\x00-\x08]")
_ITEMS = frozenset(("li", "dd", "dt"))
_BLOCKS = frozenset(
    (
        "address", "article", "blockquote", "caption", "center", "dd", "div", "dl", "dt",
        "fieldset", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr",
        "li", "nav", "ol", "p", "section", "td", "th", "tr", "ul",
    )
)  # fmt: skip
_DROPPED_TAGS = frozenset(("table", "style", "script"))

#: Extension tags whose content is not text of the article, and those whose content is kept.
_RAW_TAGS = (
    "ref", "references", "math", "chem", "ce", "gallery", "timeline", "score", "syntaxhighlight",
    "source", "imagemap", "hiero", "graph", "mapframe", "maplink", "templatedata", "templatestyles",
    "indicator", "inputbox", "categorytree", "section", "includeonly", "pre", "nowiki", "poem",
)  # fmt: skip
_OPENS = re.compile(rf"<!--|<({'|'.join(_RAW_TAGS)})(?=[\s/>])([^<>]*)>", re.IGNORECASE)
_LITERAL = str.maketrans({char: f"&#{ord(char)};" for char in "[]{}<>|'=*#:;_~"})

# Tables begin and end on lines of their own.
_NESTING = re.compile(
    r"^[ \t:]*+\{\||^[ \t]*+\|\}(?!\})|\{\{|\}\}|\[\[|\]\]|</?[A-Za-z]+"
    r"|\[(?=[A-Za-z]{0,9}:|//)|\]",
    re.MULTILINE,
)
_CLOSES = {"}}": "{{", "]]": "[[", "|}": "{|", "]": "["}
_VOID_TAGS = frozenset(
    ("br", "hr", "img", "wbr", "li", "dt", "dd", "th", "td", "tr", "meta", "link")
)
_TAG = re.compile(r"<[^<>]{0,300}>")
_NAME = re.compile(r"[^|{}\[\]<>]*")  # of a template
_CHUNK_CHARS = 8_000  # our choice: parsed at once; a longer template or link is left out
_MOST_UNCLOSED = 24  # our choice: articles have a few at most
_DEEPEST = 30  # our choice: articles stay below 15; the parser's own bound is 100 (MAX_DEPTH)

_QUOTES = re.compile(r"'{2,}")
_MAGIC_WORD = re.compile(r"__[^\W\d_]+__")
_LEFTOVERS = re.compile(
    # What follows {{ is the name of a template that was never closed.
    r"\{\{\{?(?:[^|{}\[\]\n.]{0,40}(?=[|\n]|$))?|\}\}\}?"
    r"|\[\[|\]\]|\{\||\|\}|</?[A-Za-z][^<>\n]{0,200}>|<br\b|~{3,5}|-{4,}"
)
_MAY_BE_LEFT = re.compile(r"[{}<~]|\[\[|\]\]|__|----")

_EMPTY_BRACKETS = re.compile(r"\(([\s,;:\x01]*+)\)")
_HOLES = re.compile(r"\x01(?:[ \t]*+\x01)++")
_AFTER_BRACKET = re.compile(r"\([ ]?\x01[ ,;:]{0,3}")
_BEFORE_BRACKET = re.compile(r"[ ,;]{0,3}\x01[ ]?\)")
_AT_PUNCTUATION = re.compile(r"[ ]?\x01[ ]?(?=[.,;:!?\]])")
_HOLE_BETWEEN = re.compile(r"([ ]?)\x01([ ]?)")
_BLANKS = re.compile(r"[ \t\xa0]+")

#: Sections that list sources, which the paper's Wikipedia omits (P 3.4), in its four languages.
_REFERENCES = frozenset(
    (
        "references", "citations", "footnotes", "notes and references", "references and notes",
        "works cited", "einzelnachweise", "références", "notes et références", "referințe",
        "note și referințe",
    )
)  # fmt: skip

#: Prefixes of sister projects: a link there shows its words. Other short ones are languages.
_PROJECTS = frozenset(
    (
        "b", "c", "commons", "d", "foundation", "m", "media", "mediawiki", "meta", "mw", "n", "q",
        "s", "special", "species", "v", "voy", "w", "wikibooks", "wikidata", "wikinews",
        "wikipedia", "wikiquote", "wikisource", "wikispecies", "wikiversity", "wikivoyage", "wikt",
        "wiktionary", "wmf",
    )
)  # fmt: skip
_LANGUAGE = re.compile(r"(?:[a-z]{2,3}|simple)(?:-[a-z]{2,12})*")


def _folded(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


_ENGLISH_NAMESPACES = frozenset(
    ("talk", "user", "user talk", "wikipedia", "project", "help", "template", "portal", "draft",
     "module", "special", "media", "mediawiki")
)  # fmt: skip


class LinkNames:
    """The names of namespaces in links of one wiki, compared without case.

    Args:
        namespaces: Number of a namespace -> its name, as the head of a dump lists them.
    """

    def __init__(self, namespaces: Mapping[int, str] | None = None) -> None:
        found = namespaces or {}
        self.dropped = {"file", "image", "category", *(_folded(found.get(n, "")) for n in (6, 14))}
        self.dropped.discard("")
        self.shown = {_folded(name) for name in found.values() if name} | _ENGLISH_NAMESPACES

    def is_namespace(self, prefix: str) -> bool:
        """Return whether what comes before the colon of a title is a namespace."""
        return _folded(prefix) in self.dropped | self.shown


_ENGLISH = LinkNames()


@functools.cache
def wikitext_parser() -> Callable[[str], Any]:
    """Return the parser's function. Raises ValueError, in one line, if it is not installed."""
    try:
        parser = importlib.import_module(PARSER)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != PARSER:
            raise
        raise ValueError(missing("reading wikitext", "import")) from None
    return functools.partial(parser.parse, skip_style_tags=True)


def plain_text(wikitext: str, names: LinkNames = _ENGLISH) -> str:
    """Return the text of an article.

    Args:
        wikitext: As a dump holds it.
        names: Of the wiki's namespaces.

    Raises:
        ValueError: The parser is not installed.
    """
    parse = wikitext_parser()
    text = _without_raw_tags(_MARKS.sub("", wikitext))
    if "''" in text:
        text = "\n".join(map(_without_quotes, text.split("\n")))
    writer = _Writer(names)
    for chunk in _chunks(text):
        writer.write(parse(chunk))
    return "\n".join(_lines("".join(writer.parts)))


def _without_raw_tags(text: str) -> str:
    """Cut out comments and extension tags; make the content of ``<nowiki>`` literal."""
    parts, done = [], 0
    unclosed: set[str] = set()
    for opening in _OPENS.finditer(text):
        start, end = opening.span()
        if start < done:
            continue
        name = (opening[1] or "").lower()
        content = ""
        if not name:
            close = text.find("-->", end)
            end = len(text) if close < 0 else close + 3
            # MediaWiki removes a line that holds nothing but a comment.
            alone = text[max(0, start - 1) : start] == "\n" == text[end : end + 1]
            end += alone
        elif not opening[2].endswith("/"):
            found = None if name in unclosed else _end_tag(name).search(text, end)
            if found is None:
                unclosed.add(name)
            else:
                content, end = text[end : found.start()], found.end()
        parts.append(text[done:start])
        done = end
        if name == "nowiki":
            parts.append(content.translate(_LITERAL))
        elif name == "poem":
            parts.append(content.replace("\n", _BREAK))
        elif name:
            parts.append(_HOLE)
    parts.append(text[done:])
    return "".join(parts)


@functools.cache
def _end_tag(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{name}\s*>", re.IGNORECASE)


def _without_quotes(line: str) -> str:
    """Remove the marks of bold and italic text, as MediaWiki's doQuotes counts them."""
    if "''" not in line:
        return line
    runs = list(_QUOTES.finditer(line))
    # Four quotes are an apostrophe and bold; more than five, bold italic after apostrophes.
    sizes = [3 if len(run[0]) == 4 else min(5, len(run[0])) for run in runs]
    apostrophes = [len(run[0]) - size for run, size in zip(runs, sizes, strict=True)]
    if sum(size in (3, 5) for size in sizes) % 2 and sum(size in (2, 5) for size in sizes) % 2:
        # One bold mark is an apostrophe before italics: after a word of one letter, else another.
        bold = [at for at, size in enumerate(sizes) if size == 3]
        starts = {at: runs[at].start() for at in bold}
        words = [at for at in bold if line[max(0, starts[at] - 1) : starts[at]].strip()]
        single = [at for at in words if not line[max(0, starts[at] - 2) : starts[at] - 1].strip()]
        if chosen := (single or words or bold)[:1]:
            apostrophes[chosen[0]] = 1
    parts, done = [], 0
    for run, kept in zip(runs, apostrophes, strict=True):
        parts += [line[done : run.start()], "'" * kept]
        done = run.end()
    return "".join([*parts, line[done:]])


class _Span(NamedTuple):
    """An opening mark and what closes it."""

    begin: int
    end: int
    mark: str
    height: int  # levels of marks in it, itself included


def _pair_marks(text: str) -> tuple[list[_Span], list[tuple[int, int]]]:
    """Return the marks that are closed, in the order of their ends, and those that are not."""
    stack: list[list[Any]] = []  # mark, begin, levels in it
    spans: list[_Span] = []
    unclosed: list[tuple[int, int]] = []

    def lose(lost: list[list[Any]]) -> None:
        unclosed.extend((begin, begin + len(mark)) for mark, begin, _ in lost)

    for found in _NESTING.finditer(text):
        mark, at = found[0].strip(" \t:"), found.start()
        if mark[0] == "<":
            mark = mark.lower()
            name = mark.strip("</")
            if name in _VOID_TAGS:
                if text.find(">", at, at + 500) < 0:
                    unclosed.append((at, at + len(mark)))
                continue
            opens = None if mark[1] != "/" else f"<{name}"
        else:
            opens = _CLOSES.get(mark)
        if opens is None:
            stack.append([mark, found.end() - len(mark), 0])
            continue
        # Looked for near the top only, so that the time stays linear.
        for above, (what, begin, levels) in enumerate(reversed(stack[-_DEEPEST:])):
            if what == opens:
                lost = stack[len(stack) - above :]
                lose(lost)
                height = 1 + max([levels, *(each[2] for each in lost)])
                del stack[len(stack) - above - 1 :]
                if stack:
                    stack[-1][2] = max(stack[-1][2], height)
                spans.append(_Span(begin, found.end(), opens, height))
                break
    lose(stack)
    return spans, unclosed


def _segments(text: str) -> Iterator[tuple[str, bool]]:
    """Yield a text in segments, and whether each may be cut, without what is left out anyway.

    Left out are templates without words, tables, and marks that are very long, nested very deep or,
    where they are many, never closed.
    """
    spans, unclosed = _pair_marks(text)
    found = [(begin, _end_of_tag(text, begin, end), _HOLE) for begin, end in unclosed]
    if len(found) <= _MOST_UNCLOSED:
        found = []
    reach = 0
    for span in sorted(spans, key=lambda span: (span.begin, -span.end)):
        if span.begin >= reach and (span.mark[0] != "<" or span.mark == "<table"):
            reach = span.end
            found.append((span.begin, span.end, _kept_of(text, span)))
    done = 0
    for begin, end, kept in sorted(found):
        if begin >= done:
            yield text[done:begin], True
            yield kept, False
            done = end
    yield text[done:], True


def _end_of_tag(text: str, begin: int, end: int) -> int:
    tag = _TAG.match(text, begin)
    return tag.end() if tag else end


def _kept_of(text: str, span: _Span) -> str:
    """Return what is left of a template, table or link before it is parsed."""
    if span.mark in ("{|", "<table"):
        return _HOLE + _BREAK
    if span.end - span.begin > _CHUNK_CHARS or span.height > _DEEPEST:
        return _HOLE
    if span.mark == "{{" and text[span.begin + 2] != "{":  # not an argument, such as {{{1|word}}}
        name = _folded(_NAME.match(text, span.begin + 2)[0])  # type: ignore[index]
        if not (name in _KEPT or name in _CHARACTERS or name.startswith(_KEPT_PREFIXES)):
            return _HOLE
    return text[span.begin : span.end]


def _chunks(text: str) -> Iterator[str]:
    """Yield a text in pieces that are parsed one by one: the parser's time grows with the square.

    A piece ends with a line, unless its last line is very long.
    """
    held: list[str] = []
    size = 0
    for segment, may_be_cut in _segments(text):
        while may_be_cut and size + len(segment) > _CHUNK_CHARS:
            room = max(0, _CHUNK_CHARS - size)
            cut = _place_to_cut(segment, room)
            if not cut and not held:
                cut = room
            yield "".join([*held, segment[:cut]])
            segment, held, size = segment[cut:], [], 0
        held.append(segment)
        size += len(segment)
    yield "".join(held)


def _place_to_cut(segment: str, room: int) -> int:
    """Return where to cut, at ``room`` or before: after a line or a word, not within a tag."""
    if cut := segment.rfind("\n", 0, room) + 1:
        return cut
    cut = segment.rfind(" ", 0, room) + 1 or room
    tag = segment.rfind("<", 0, cut)
    return tag if tag > segment.rfind(">", 0, cut) else cut


class _Writer:
    """Writes the text of nodes, with our marks where something was left out or a line ends.

    Each kind of node of the parser has a method of its name.
    """

    def __init__(self, names: LinkNames) -> None:
        self.parts: list[str] = []
        self._names = names

    def write(self, code: Any) -> None:
        """Write the nodes of a piece of parsed wikitext; None is nothing."""
        if code is None:
            return
        for node in code.nodes:
            getattr(self, f"write_{type(node).__name__.lower()}")(node)

    def _rendered(self, code: Any) -> str:
        """Return the text of a piece, as `write` would write it."""
        inner = _Writer(self._names)
        inner.write(code)
        return "".join(inner.parts)

    def write_comment(self, node: Any) -> None:
        del node
        self.parts.append(_HOLE)

    def write_text(self, node: Any) -> None:
        value = node.value
        if _MAY_BE_LEFT.search(value):
            value = _LEFTOVERS.sub("", _MAGIC_WORD.sub("", value))
        self.parts.append(value)

    def write_htmlentity(self, node: Any) -> None:
        try:
            char = node.normalize()
        except (ValueError, OverflowError):
            char = ""
        if char and not "\ud800" <= char[0] <= "\udfff":
            self.parts.append(_MARKS.sub("", char).replace("\xad", ""))

    def write_argument(self, node: Any) -> None:
        if node.default is None:
            self.parts.append(_HOLE)
        self.write(node.default)

    def write_externallink(self, node: Any) -> None:
        if node.title is not None:
            self.write(node.title)
        elif node.brackets:
            self.parts.append(_HOLE)
        else:
            self.parts.append(str(node.url))

    def write_heading(self, node: Any) -> None:
        title = self._rendered(node.title).replace("\n", " ")
        self.parts.append(f"{_BREAK}{_HEADING}{node.level}{title}{_BREAK}")

    def write_tag(self, node: Any) -> None:
        name = str(node.tag).strip().lower()
        if node.wiki_markup and name in _ITEMS:
            self.parts.append(_ITEM)
        elif name == "br":
            self.parts.append(_BREAK)
        elif name in _DROPPED_TAGS:
            self.parts += (_HOLE, _BREAK)
        elif name in _BLOCKS:
            self.parts.append(_BREAK)
            self.write(node.contents)
            self.parts.append(_BREAK)
        else:
            self.write(node.contents)

    def write_wikilink(self, node: Any) -> None:
        title = str(node.title).strip()
        shown = title.startswith(":")  # a link to what would else be a category, a language
        title = title.removeprefix(":")
        prefix, colon, rest = title.partition(":")
        if colon:
            folded = _folded(prefix)
            if not shown and folded in self._names.dropped:
                self.parts.append(_HOLE)
                return
            known = folded in _PROJECTS or folded in self._names.shown
            language = not known and rest[:1].strip() and _LANGUAGE.fullmatch(prefix.strip())
            if language and not shown:
                self.parts.append(_HOLE)
                return
            if known or language or folded in self._names.dropped:
                title = rest.rpartition(":")[2] if _is_prefix(rest) else rest
        if node.text is not None and str(node.text).strip():
            self.write(node.text)
        else:
            self.parts.append(_LEFTOVERS.sub("", title.strip(" #").replace("_", " ")))

    def write_template(self, node: Any) -> None:
        name = _folded(str(node.name))
        if name in _CHARACTERS:
            self.parts.append(_CHARACTERS[name])
            return
        if name.startswith(_NUMBER_PREFIX):
            self.parts.append(name.partition(":")[2])
            return
        kept = _KEPT.get(name)
        if kept is None and name.startswith(_KEPT_PREFIXES):
            kept = _first
        if kept is None:
            self.parts.append(_HOLE)
            return
        params = node.params
        # Quotations may name their text; all others are kept by what has no name.
        chosen = [p for p in params if _is_positional(p)] or [p for p in params if p.name == "text"]
        values = [self._rendered(param.value).strip() for param in chosen]
        text = kept(values) if values else _WITHOUT_VALUES.get(name, "")
        if name == "as of" and node.has("lc"):
            text = text.lower()
        self.parts.append(text or _HOLE)


def _is_positional(param: Any) -> bool:
    return not param.showkey or str(param.name).strip().isdigit()


def _is_prefix(rest: str) -> bool:
    """Return whether a second prefix follows, as in ``:wikt:fr:pont``."""
    prefix, colon, _ = rest.partition(":")
    return bool(colon) and (_folded(prefix) in _PROJECTS or _LANGUAGE.fullmatch(prefix) is not None)


_first, _last = operator.itemgetter(0), operator.itemgetter(-1)


def _second(values: list[str]) -> str:
    return values[1] if len(values) > 1 else values[0]


_SIGNS = {"fl. ": ("floruit", "fl."), "US$": ("us$", "usd"), "£": ("£", "gbp"), "€": ("€", "eur"),
          "¥": ("¥", "jpy"), "A$": ("a$", "aud"), "₹": ("inr",)}  # fmt: skip


def _before(sign: str) -> Callable[[list[str]], str]:
    return lambda values: f"{sign}{values[0]}"


_NUMBER = re.compile(r"[-+−]?[\d.,/]+")
_RANGES = {"-": "–", "–": "–", "to(-)": "–", "to": " to ", "and": " and ", "or": " or ",
           "by": " by ", "x": " × ", "*": " × ", "+/-": " ± ", "±": " ± "}  # fmt: skip
_UNITS = {"m2": "m²", "km2": "km²", "cm2": "cm²", "m3": "m³", "km3": "km³", "sqmi": "sq mi",
          "sqkm": "km²", "sqft": "sq ft", "cuft": "cu ft", "C": "°C", "F": "°F", "K": "K",
          "impgal": "imp gal", "usgal": "US gal", "kg/m3": "kg/m³"}  # fmt: skip


def _convert(values: list[str]) -> str:
    """Return a quantity as it was given, without what it is converted to.

    >>> _convert(["5", "km"]), _convert(["3", "to", "4", "ft", "m"])
    ('5 km', '3 to 4 ft')
    """
    text, at = values[0], 1
    while len(values) > at + 1 and values[at] in _RANGES:
        text += _RANGES[values[at]] + values[at + 1]
        at += 2
    if len(values) > at:
        text += f" {_UNITS.get(values[at], values[at])}"
        if len(values) > at + 2 and _NUMBER.fullmatch(values[at + 1]):
            text += f" {values[at + 1]} {_UNITS.get(values[at + 2], values[at + 2])}"
    return text


def _fraction(values: list[str]) -> str:
    """Return a fraction, such as 2 1/3 of three arguments."""
    if len(values) == 1:
        return f"1/{values[0]}"
    return " ".join([*values[:-2], f"{values[-2]}/{values[-1]}"])


#: Templates that hold words of the sentence that they stand in. All others leave a hole.
_KEPT: dict[str, Callable[[list[str]], str]] = {
    **dict.fromkeys(
        ("nowrap", "nobr", "nobreak", "nobold", "noitalic", "small", "smaller", "big", "larger",
         "large", "sup", "sub", "em", "strong", "b", "i", "u", "bold", "italic", "smallcaps", "sc",
         "small caps", "abbr", "abbr.", "abbrlink", "tooltip", "hover title", "sic", "not a typo",
         "val", "number", "num", "mvar", "var", "angbr", "angle bracket", "bracket", "code", "mono",
         "kbd", "samp", "nihongo", "ill", "interlanguage link", "lien", "link-interwiki", "w",
         "linktext", "quote", "blockquote", "cquote", "quotation", "poemquote", "poem quote",
         "proper name", "translation", "lit", "literal translation", "gloss", "visible anchor",
         "vanchor", "flag", "flagcountry", "section link",
         "slink", "citation needed span", "cn span", "date"),
        _first,
    ),
    **dict.fromkeys(("lang", "langx", "langue", "wikt-lang", "color", "colour"), _second),
    **dict.fromkeys(("transl", "transliteration", "script", "font color"), _last),
    **dict.fromkeys(("convert", "cvt", "unité", "unit"), _convert),
    **dict.fromkeys(("circa", "c.", "ca.", "ca"), lambda values: f"c. {' – c. '.join(values[:2])}"),
    **{name: _before(sign) for sign, names in _SIGNS.items() for name in names},
    **dict.fromkeys(("frac", "fraction", "sfrac"), _fraction),
    "gaps": "".join,
    "as of": lambda values: f"As of {'-'.join(values)}",
    "ship": lambda values: " ".join(filter(None, values[:2])),
    **{name: _before(f"{name.upper()} ") for name in ("hms", "uss", "ss", "rms", "hmas", "hmcs")},
}  # fmt: skip
_NUMBER_PREFIX = "formatnum:"
_KEPT_PREFIXES = ("lang-", _NUMBER_PREFIX)
_WITHOUT_VALUES = dict.fromkeys(("circa", "c.", "ca.", "ca"), "c.")
_CHARACTERS = {
    "!": "|", "=": "=", "'": "'", "'s": "'s", "(": "{", ")": "}", "·": " · ", "dot": " · ",
    "•": " • ", "bull": " • ", "nbsp": " ", "spaces": " ", "space": " ", "thinsp": " ",
    "snd": " – ", "spnd": " – ", "spaced ndash": " – ", "spaced en dash": " – ", "ndash": "–",
    "en dash": "–", "–": "–", "mdash": "—", "em dash": "—", "—": "—", "spaced mdash": " — ",
    "-": "\n\n", "clear": "\n", "break": _BREAK, "br": _BREAK, "paragraph break": "\n\n",
    "pb": "\n\n", "zwj": "", "zwsp": "", "shy": "", "wbr": "", "minus": "−", "times": "×",
    "degree": "°", "deg": "°", "euro": "€", "asterisk": "*", "hash": "#", "sdot": "⋅",
}  # fmt: skip


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text with our marks: paragraphs, items, and headings with text below."""
    waiting: list[tuple[int, str]] = []  # headings with nothing below them yet
    skipped = 0  # level of the section of references that is being left out
    for line in _paragraphs(text):
        if line[0] == _HEADING:
            level, title = int(line[1]), _tidied(line[2:])
            while waiting and waiting[-1][0] >= level:
                waiting.pop()
            if skipped and level > skipped:
                continue
            skipped = level if title.casefold() in _REFERENCES else 0
            waiting.append((level, title))
        elif not skipped and (tidied := _tidied(line)):
            yield from (title for _, title in waiting if title)
            waiting.clear()
            yield tidied


def _paragraphs(text: str) -> Iterator[str]:
    """Yield paragraphs on one line each, as MediaWiki joins the lines of one."""
    for block in text.split(_BREAK):
        lines: list[str] = []
        for line in block.split("\n"):
            if line[:1] == _HEADING:
                yield line
                continue
            *before, item = line.split(_ITEM)
            parts = [part for part in before if part.strip()]
            stripped = item.strip()
            # No words, or a row of a table or template that was never closed.
            if stripped[:1] == "|" or not any(map(str.isalnum, stripped)):
                stripped = ""
            # An item, a line of leftovers, a blank line and preformatted text end a paragraph.
            if before or not stripped or line[:1] == " ":
                if lines:
                    yield " ".join(lines)
                    lines = []
                yield from parts
                if stripped:
                    yield stripped
            else:
                lines.append(stripped)
        if lines:
            yield " ".join(lines)


def _tidied(line: str) -> str:
    """Return a line without our marks and without what they leave; empty if no word is left."""
    if _HOLE in line:
        line = _HOLES.sub(_HOLE, line)
        line = _EMPTY_BRACKETS.sub(lambda m: _HOLE if _HOLE in m[1] else m[0], line)
        line = _AFTER_BRACKET.sub("(", line)
        line = _BEFORE_BRACKET.sub(")", line)
        line = _AT_PUNCTUATION.sub("", line)
        line = _HOLE_BETWEEN.sub(lambda m: " " if m[1] or m[2] else "", line)
    line = _BLANKS.sub(" ", line.replace(_ITEM, " ").replace(_HEADING, "")).strip()
    return line if any(map(str.isalnum, line)) else ""
