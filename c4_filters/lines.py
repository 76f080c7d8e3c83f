"""The line rules: judge one line by the book, or a page's lines at once, fast, with equal results.

The order of the rules matters and is TF's (c4_utils.clean_page): the first that fires decides, so
a line already dropped for its end or its length cannot drop its page for ``lorem ipsum`` or ``{``.
"""

import functools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import ahocorasick_rs
import numpy as np
import numpy.typing as npt

from c4_filters.ascii_case import ascii_lowered
from c4_filters.recipes import Recipe
from c4_filters.verdicts import LineVerdict, PageVerdict

_ELLIPSIS = "..."  # TF
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")  # TF
_POLICY = (  # TF; P from v3 on
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
# What rules 5, 6 and 8 look for: a page without any of these phrases, and without {, needs none of
# rules 5 to 8. One pass over the page for all of them; in the list, { would slow it down sevenfold.
_SUSPECT = ahocorasick_rs.BytesAhoCorasick(
    [phrase.encode() for phrase in ("lorem ipsum", "javascript", *_POLICY)],
    matchkind=ahocorasick_rs.MatchKind.LeftmostFirst,
)
# What str.splitlines parts lines at, besides the newline.
_OTHER_BREAKS = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001))))  # what str.strip removes
# Texts searched in one go: their code points stay in the second-level cache.
_CHARS_AT_A_TIME = 1 << 17


class _Ends(NamedTuple):
    """How lines end that rule 3 keeps."""

    marks: tuple[str, ...]
    single: frozenset[str]  # the marks of one character
    # By code point: whether a line that ends in it may end in a mark once it is stripped, and once
    # a citation is gone.
    may_end: npt.NDArray[np.bool_]


@functools.cache
def _ends(marks: tuple[str, ...]) -> _Ends:
    may_end = np.zeros(sys.maxunicode + 1, np.bool_)
    may_end[[ord(last) for last in (*_BLANKS, "]", *(mark[-1] for mark in marks))]] = True
    return _Ends(marks, frozenset(mark for mark in marks if len(mark) == 1), may_end)


#: Verdicts of a line that drop its whole page.
PAGE_DROPPING = {
    LineVerdict.LOREM_IPSUM: PageVerdict.LOREM_IPSUM,
    LineVerdict.CURLY_BRACKET: PageVerdict.CURLY_BRACKET,
}


def judge_line(line: str, recipe: Recipe) -> tuple[LineVerdict, str]:
    """Return the verdict on a line and, for a kept one, its text without citations.

    >>> from c4_filters.recipes import RECIPES
    >>> judge_line("Read more", RECIPES["en"])[0]
    <LineVerdict.NO_END_MARK: 'no_end_mark'>
    >>> judge_line("The bridge opened in 1931.[4]", RECIPES["en"])
    (<LineVerdict.KEPT: 'kept'>, 'The bridge opened in 1931.')
    """
    line = line.strip()
    if _has_long_word(line, recipe.max_word_chars):
        return LineVerdict.LONG_WORD, line
    line = _CITATION.sub("", line)
    if not line.endswith(recipe.end_marks) or line.endswith(_ELLIPSIS):
        return LineVerdict.NO_END_MARK, line
    if len(line.split()) < recipe.min_words_per_line:
        return LineVerdict.FEW_WORDS, line
    return _judge_words(line), line


def _judge_words(line: str) -> LineVerdict:
    """Apply rules 5 to 8 to a line that passed the others."""
    lowered = line.lower()
    if "lorem ipsum" in lowered:
        return LineVerdict.LOREM_IPSUM
    if "javascript" in lowered:
        return LineVerdict.JAVASCRIPT
    if "{" in line:
        return LineVerdict.CURLY_BRACKET
    if any(phrase in lowered for phrase in _POLICY):
        return LineVerdict.POLICY
    return LineVerdict.KEPT


class CleanLines(NamedTuple):
    """What the line rules leave of a page."""

    text: str  # the kept lines without citations, joined by newlines; empty when it is dropped
    lines: int  # how many they are
    page: PageVerdict


def split_lines(text: str) -> list[str]:
    r"""Return the stripped, non-blank lines of a text, as str.splitlines sees them.

    >>> split_lines("One\n\n  two ")
    ['One', 'two']
    """
    return list(filter(None, map(str.strip, text.splitlines())))


def clean_text(text: str, recipe: Recipe, counts: Counter[str]) -> CleanLines:
    """Apply the line rules to one page; see clean_texts."""
    [result] = clean_texts([text], recipe, counts)
    return result


def clean_texts(texts: Sequence[str], recipe: Recipe, counts: Counter[str]) -> Iterator[CleanLines]:
    """Apply the line rules to the lines of each page, as split_lines gives them.

    Equal to :func:`judge_line` on each in turn, stopping where one drops the page. Adds to
    ``counts``: ``lines_read``, and each dropped line under its verdict; on a dropped page the lines
    that were fine, or never judged, count as ``on_dropped_page``.
    """
    for some in _batches(texts):
        for text, (lines, others) in zip(some, _candidates(some, recipe), strict=True):
            yield _clean_page(text, lines, others, recipe, counts)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the texts, as many at a time as are searched in one go, newlines their only breaks."""
    some: list[str] = []
    chars = 0
    for text in texts:
        if any(map(text.__contains__, _OTHER_BREAKS)):
            text = "\n".join(split_lines(text))
        some.append(text)
        chars += len(text)
        if chars >= _CHARS_AT_A_TIME:
            yield some
            some, chars = [], 0
    if some:
        yield some


def _candidates(texts: Sequence[str], recipe: Recipe) -> Iterator[tuple[list[str], int]]:
    """Yield the lines of each text that may be kept or have a long word, and the number of others.

    The others, four lines in five of a web page, end in no mark and are too short for a long word:
    they are never cut out of the text. The lines are stripped, and blank ones left out.
    """
    joined = "\n".join([*texts, ""])
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")
    ends = np.flatnonzero(codes == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1))
    # An empty line is chosen, too: before its end stands the newline of another line.
    may_end = _ends(recipe.end_marks).may_end[codes[ends - 1]]
    chosen = np.flatnonzero(may_end | (ends - starts > recipe.max_word_chars))
    lines = [
        joined[start:end].strip()
        for start, end in zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True)
    ]
    # Up to the end of each text: how many lines, and how many of those chosen.
    counts = np.searchsorted(starts, np.cumsum([len(text) + 1 for text in texts]))
    first = others = 0
    for count, last in zip(counts.tolist(), np.searchsorted(chosen, counts).tolist(), strict=True):
        yield list(filter(None, lines[first:last])), count - last - others
        first, others = last, count - last


def _clean_page(
    text: str, lines: list[str], unmarked: int, recipe: Recipe, counts: Counter[str]
) -> CleanLines:
    """Judge a page by its candidates; ``unmarked``: how many lines it has besides."""
    limit, min_words = recipe.max_word_chars, recipe.min_words_per_line
    marks, single, _ = _ends(recipe.end_marks)
    read = len(lines) + unmarked
    long_words = few_words = 0
    most_splits = min_words - 1
    kept = []
    for line in lines:
        if len(line) > limit and _has_long_word(line, limit):
            long_words += 1
            continue
        if "[" in line:
            line = _CITATION.sub("", line)
            if not line.endswith(marks):
                unmarked += 1
                continue
        if line[-3:] == _ELLIPSIS or not (line[-1] in single or line.endswith(marks)):
            unmarked += 1
        elif len(line.split(None, most_splits)) < min_words:
            few_words += 1
        else:
            kept.append(line)
    left = "\n".join(kept)
    lowered = ascii_lowered(left)
    if lowered is None:
        suspects = list(range(len(kept)))
    else:
        suspects = _lines_at(lowered, _SUSPECT.find_matches_as_indexes(lowered))
        if b"{" in lowered:
            suspects += [at for at, line in enumerate(kept) if "{" in line]
    if suspects:
        judged = {at: _judge_words(kept[at]) for at in suspects}
        if not PAGE_DROPPING.keys().isdisjoint(judged.values()):
            return _dropped_page(split_lines(text), recipe, counts)
        gone = {at for at, verdict in judged.items() if verdict is not LineVerdict.KEPT}
        counts.update(judged[at] for at in gone)
        kept = [line for at, line in enumerate(kept) if at not in gone]
        left = "\n".join(kept)
    counts["lines_read"] += read
    counts[LineVerdict.LONG_WORD] += long_words
    counts[LineVerdict.NO_END_MARK] += unmarked
    counts[LineVerdict.FEW_WORDS] += few_words
    return CleanLines(left, len(kept), PageVerdict.KEPT)


def _lines_at(text: bytes, matches: Iterable[tuple[int, int, int]]) -> list[int]:
    """Return the numbers of the lines that matches (what, start, end) begin on, once each."""
    lines: list[int] = []
    line = counted = 0
    for _, start, _ in matches:
        # Counted from the match before, not from the text's begin: a page may be full of matches.
        line += text.count(b"\n", counted, start)
        counted = start
        if not lines or lines[-1] != line:
            lines.append(line)
    return lines


def _dropped_page(lines: Sequence[str], recipe: Recipe, counts: Counter[str]) -> CleanLines:
    """Count the lines of a page up to the one that drops it, by the book."""
    counts["lines_read"] += len(lines)
    fine = 0
    for position, line in enumerate(lines):
        verdict, _ = judge_line(line, recipe)
        if verdict is LineVerdict.KEPT:
            fine += 1
            continue
        counts[verdict] += 1
        if verdict in PAGE_DROPPING:
            counts[LineVerdict.ON_DROPPED_PAGE] += fine + len(lines) - position - 1
            return CleanLines("", 0, PAGE_DROPPING[verdict])
    raise AssertionError("no line drops this page")


def _has_long_word(line: str, limit: int) -> bool:
    # From blank to blank in the longest hops: hardly any line must be split into its words.
    start = 0
    while len(line) - start > limit:
        blank = line.rfind(" ", start, start + limit + 1)
        if blank < 0:
            return any(len(word) > limit for word in line[start:].split())
        start = blank + 1
    return False
