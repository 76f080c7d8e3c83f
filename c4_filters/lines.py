"""The line rules: judge one line by the book, or a page's lines at once, fast, with equal results.

The order of the rules matters and is TF's (c4_utils.clean_page): the first that fires decides, so
a line already dropped for its end or its length cannot drop its page for ``lorem ipsum`` or ``{``.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import ahocorasick_rs

from c4_filters.ascii_case import ascii_lowered
from c4_filters.recipes import Recipe
from c4_filters.verdicts import LineVerdict, PageVerdict

__all__ = ["CleanLines", "clean_text", "judge_line", "split_lines"]

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
# What rules 5 to 8 look for: a page without any of them needs none of these rules. One pass over
# the page for all of them.
_SUSPECT = ahocorasick_rs.BytesAhoCorasick(
    [phrase.encode() for phrase in ("lorem ipsum", "javascript", "{", *_POLICY)],
    matchkind=ahocorasick_rs.MatchKind.LeftmostFirst,
)


class _Ends(NamedTuple):
    """How lines end that rule 3 keeps."""

    marks: tuple[str, ...]
    # A line can end in an end mark only if it does so already, or once a citation is gone.
    may_end: frozenset[str]
    single: frozenset[str]  # the marks of one character


@functools.cache
def _ends(marks: tuple[str, ...]) -> _Ends:
    last = frozenset(mark[-1] for mark in marks)
    return _Ends(marks, last | {"]"}, last.intersection(marks))


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

    lines: list[str]  # as kept, citations removed; empty when the page is dropped
    page: PageVerdict  # KEPT, LOREM_IPSUM or CURLY_BRACKET


def split_lines(text: str) -> list[str]:
    r"""Return the stripped, non-blank lines of a text, as str.splitlines sees them.

    >>> split_lines("One\n\n  two ")
    ['One', 'two']
    """
    return list(filter(None, map(str.strip, text.splitlines())))


def clean_text(text: str, recipe: Recipe, counts: Counter[str]) -> CleanLines:
    """Apply the line rules to a page's lines, as split_lines gives them.

    Equal to :func:`judge_line` on each in turn, stopping where one drops the page. Adds to
    ``counts``: ``lines_read``, and each dropped line under its verdict; on a dropped page the lines
    that were fine, or never judged, count as ``on_dropped_page``.
    """
    limit, min_words = recipe.max_word_chars, recipe.min_words_per_line
    marks, may_end, single = _ends(recipe.end_marks)
    lines = split_lines(text)
    # The cheapest test first: four lines in five of a web page cannot end in an end mark.
    candidates = [line for line in lines if line[-1] in may_end]
    unmarked = len(lines) - len(candidates)
    long_words = 0
    if lines and max(map(len, lines)) > limit:
        fitting = [
            line for line in candidates if len(line) <= limit or not _has_long_word(line, limit)
        ]
        long_unmarked = sum(
            _has_long_word(line, limit)
            for line in lines
            if len(line) > limit and line[-1] not in may_end
        )
        long_words = len(candidates) - len(fitting) + long_unmarked
        unmarked -= long_unmarked
        candidates = fitting
    few_words = 0
    most_splits = min_words - 1
    kept = []
    for line in candidates:
        if "[" in line:
            line = _CITATION.sub("", line)
            if not line.endswith(marks):
                unmarked += 1
                continue
        if line[-3:] == _ELLIPSIS or not (line[-1] in single or line.endswith(marks)):
            unmarked += 1
        elif most_splits >= 0 and len(line.split(None, most_splits)) < min_words:
            few_words += 1
        else:
            kept.append(line)
    lowered = ascii_lowered("\n".join(kept))
    if lowered is None:
        suspects = list(range(len(kept)))
    else:
        suspects = _lines_at(lowered, _SUSPECT.find_matches_as_indexes(lowered))
    if suspects:
        judged = {at: _judge_words(kept[at]) for at in suspects}
        if not PAGE_DROPPING.keys().isdisjoint(judged.values()):
            return _dropped_page(lines, recipe, counts)
        gone = {at for at, verdict in judged.items() if verdict is not LineVerdict.KEPT}
        counts.update(judged[at] for at in gone)
        kept = [line for at, line in enumerate(kept) if at not in gone]
    counts["lines_read"] += len(lines)
    counts[LineVerdict.NO_END_MARK] += unmarked
    counts[LineVerdict.FEW_WORDS] += few_words
    counts[LineVerdict.LONG_WORD] += long_words
    return CleanLines(kept, PageVerdict.KEPT)


def _lines_at(text: bytes, matches: Iterable[tuple[int, int, int]]) -> list[int]:
    """Yield the numbers of the lines that matches (what, start, end) begin on, once each."""
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
            return CleanLines([], PAGE_DROPPING[verdict])
    raise AssertionError("no line drops this page")


def _has_long_word(line: str, limit: int) -> bool:
    return len(line) > limit and any(len(word) > limit for word in line.split())
