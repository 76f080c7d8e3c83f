"""One page through the rules of a recipe, up to deduplication and after it."""

import dataclasses
import functools
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from c4_filters.badwords import BadWords
from c4_filters.end_marks import sentence_ends
from c4_filters.language import Language, detect_language
from c4_filters.lines import CleanLines, clean_texts, split_lines
from c4_filters.own_rules import OwnRules, RulePage
from c4_filters.recipes import Recipe, load_recipe
from c4_filters.sentences import sentence_splitter
from c4_filters.spans import cut
from c4_filters.urls import DomainList, normalize_url, url_identity
from c4_filters.verdicts import LineVerdict, PageVerdict


class RawPage(NamedTuple):
    """A page as read: header values as written, and the text with its newlines untouched."""

    url: str
    timestamp: str
    content_type: str
    content_length: str
    text: str


class CleanPage(NamedTuple):
    """What the rules before deduplication make of a page; ``verdict`` says whether it is kept."""

    verdict: str  # a PageVerdict, or that of a user's rule
    text: str = ""  # kept lines, joined by newlines; empty unless kept
    lines: int = 0  # kept lines
    language: Language | None = None  # None where the recipe detects it after deduplication
    evidence: str = ""  # the bad word that was found, or the name of the user's rule

    def reason(self) -> str:
        """Return what the verdict rests on: a word, or a language and its probability."""
        if self.evidence or self.language is None:
            return self.evidence
        return f"{self.language.code} {self.language.probability:.4f}"


class FinishedPage(NamedTuple):
    """What deduplication and the rules after it make of a page."""

    text: str  # what deduplication left
    sentences: int | None  # left in it, counted line by line; None: the recipe counts the whole
    result: CleanPage


# TF c4_utils: lines that split_wet_file takes for a record's header, anywhere in a page.
_TF_PREFIXES = ("WARC", "CONTENT-", "Content-")
_TF_FIELDS = {
    "WARC-Target-URI:": "url",
    "WARC-Date:": "timestamp",
    "Content-Type:": "content_type",
    "Content-Length:": "content_length",
}


def tf_pages(page: RawPage, counts: Counter[str]) -> list[RawPage]:
    """Read a record's body as TF's split_wet_file does, accidents included.

    Body lines that look like WARC headers are dropped (counted as ``parser_accident``) and
    overwrite the page's fields; a body line ``WARC/1.0`` ends the page and starts another, without
    address. Lines are stripped, blank ones dropped.
    """
    text = page.text.replace("\r\n", "\n").replace("\r", "\n")  # universal newlines
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    if not any(line.startswith(_TF_PREFIXES) for line in lines):
        return [page._replace(text="\n".join(lines))]
    pages: list[RawPage] = []
    kept: list[str] = []
    for line in lines:
        if line == "WARC/1.0":
            pages.append(page._replace(text="\n".join(kept)))
            page, kept = RawPage("", "", "", "", ""), []
        for prefix, field in _TF_FIELDS.items():
            if line.startswith(prefix):
                page = page._replace(**{field: line[len(prefix) :].strip()})
        if line.startswith(_TF_PREFIXES):
            counts[LineVerdict.PARSER_ACCIDENT] += 1
        else:
            kept.append(line)
    pages.append(page._replace(text="\n".join(kept)))
    return pages


class PageRules:
    """A recipe with the lists it needs, ready to judge pages.

    The user's own rules are applied if they are given as ``own`` (`c4_filters.own_rules`); naming
    them in the recipe loads nothing.

    Raises ValueError when the recipe asks for a domain or url list and none is given.
    """

    def __init__(
        self,
        recipe: Recipe,
        badwords: Mapping[str, Iterable[str]] | None = None,
        domains: DomainList | None = None,
        urls: frozenset[bytes] | None = None,
        own: OwnRules | None = None,
    ) -> None:
        if recipe.domain_list and domains is None:
            raise ValueError(f"recipe {recipe.name} needs a domain list (--domain-list FILE)")
        if recipe.url_list and urls is None:
            raise ValueError(f"recipe {recipe.name} needs a url list (--url-list FILE)")
        self.recipe = recipe
        try:
            self.splitter = sentence_splitter(
                recipe.sentence_language, sentence_ends(recipe.end_marks)
            )
        except ValueError as error:
            raise ValueError(f"recipe {recipe.name}: sentence_{error}") from None
        self._domains = domains if recipe.domain_list else None
        self._urls = urls if recipe.url_list else None
        self._badwords = BadWords(badwords, recipe.bad_words_kept_fraction)
        self._late = recipe.order == "dedup_first"
        self._own = own

    @classmethod
    def without_lists(cls, recipe: Recipe) -> "PageRules":
        """Return the rules of a recipe, but for those of the lists that only its user has."""
        return cls(dataclasses.replace(recipe, domain_list=False, url_list=False))

    def clean(self, page: RawPage, counts: Counter[str]) -> CleanPage:
        """Apply every rule that comes before deduplication to one page; see clean_all."""
        return self.clean_all([page], counts)[0]

    def clean_all(self, pages: Sequence[RawPage], counts: Counter[str]) -> list[CleanPage]:
        """Apply every rule that comes before deduplication.

        Adds to ``counts``: ``lines_read``, and each dropped line under its verdict, so that
        ``lines_read == lines kept + lines dropped``. Pages are judged each by itself; many at a
        time cost less, since each rule's tables stay in the processor's cache.

        Raises OwnRuleError if a user's rule fails.
        """
        results = self._judge_lines(pages, counts)
        if not self._late:
            self._judge_contents(pages, results)
        if self._own is not None:
            self._judge_by_own_rules(self._own, pages, results)
        for position, result in enumerate(results):
            if result.verdict is not PageVerdict.KEPT:
                counts[LineVerdict.ON_DROPPED_PAGE] += result.lines
                results[position] = result._replace(text="", lines=0)
        return results

    def _judge_lines(self, pages: Sequence[RawPage], counts: Counter[str]) -> list[CleanPage]:
        """Apply the rules on whole pages, on lines and on how many sentences are left."""
        whole = [self._without_line_rules(page, counts) for page in pages]
        texts = [page.text for page, left in zip(pages, whole, strict=True) if left is None]
        cleaned = clean_texts(texts, self.recipe, counts)
        return [
            self._judge_sentences(page, next(cleaned) if left is None else left)
            for page, left in zip(pages, whole, strict=True)
        ]

    def _without_line_rules(self, page: RawPage, counts: Counter[str]) -> CleanLines | None:
        """Return a page that the line rules do not look at, judged as a whole; None for others."""
        verdict = self._judge_whole(page)
        if verdict is PageVerdict.KEPT and self.recipe.line_rules:
            return None
        lines = split_lines(page.text)
        counts["lines_read"] += len(lines)
        return CleanLines(
            "\n".join(lines) if verdict is PageVerdict.KEPT else "", len(lines), verdict
        )

    def _judge_sentences(self, page: RawPage, left: CleanLines) -> CleanPage:
        text, lines, verdict = left
        wanted = self.recipe.min_sentences
        if verdict is not PageVerdict.KEPT:
            return CleanPage(verdict, lines=lines)
        # A line has at least one sentence: Punkt need not count on pages of enough lines.
        if not lines or (lines < wanted and len(self.splitter.line_starts(text)) < wanted):
            return CleanPage(PageVerdict.FEW_SENTENCES, lines=lines)
        return CleanPage(verdict, page.text if self.recipe.verbatim else text.strip(), lines)

    def _judge_whole(self, page: RawPage) -> PageVerdict:
        """Apply the rules that look at a page before any of its lines is dropped."""
        recipe = self.recipe
        if not page.text or page.text.isspace():
            return PageVerdict.NO_TEXT
        if len(page.text) > recipe.max_page_chars:
            # TF's own text is stripped and joined by now, see tf_pages.
            joined = page.text
            if not recipe.drop_parser_accidents:
                joined = "\n".join(split_lines(page.text))
            if len(joined) > recipe.max_page_chars:
                return PageVerdict.TOO_LONG
        if self._domains is not None or self._urls is not None:
            normalized = normalize_url(page.url)
            if self._domains is not None and not self._domains.allows(normalized):
                return PageVerdict.DOMAIN
            if self._urls is not None and url_identity(normalized) not in self._urls:
                return PageVerdict.URL_NOT_LISTED
        if recipe.min_paragraphs and not self._has_paragraphs(split_lines(page.text)):
            return PageVerdict.FEW_PARAGRAPHS
        return PageVerdict.KEPT

    def unit_starts(self, text: str) -> list[int]:
        """Return where each unit that the recipe deduplicates begins in a page's kept text."""
        unit = self.recipe.dedup_unit
        if unit == "sentences":
            return self.splitter.line_starts(text)
        if unit == "lines":
            return line_starts(text)
        return []

    def are_judged_after_dedup(
        self, units: npt.NDArray[np.int64], removed: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Return which pages the rules after deduplication look at; the others stay as they are.

        Args:
            units: How many units each page had, ``[pages]``.
            removed: How many of them deduplication removes, ``[pages]``.
        """
        judged = (removed > 0) | self._late
        if self.recipe.dedup_unit == "sentences":
            judged |= units - removed < self.recipe.min_sentences_after_dedup
        return judged

    def finish_page(
        self, text: str, starts: Sequence[int], removed: npt.NDArray[np.bool_], url: str
    ) -> FinishedPage:
        """Take the removed units from a page, and apply every rule that comes after that.

        Args:
            text: The page as it was kept.
            starts: Where its units begin, see `unit_starts`.
            removed: Whether each unit is removed, ``[units]``.
            url: The page's, as written.
        """
        left = cut(text, starts, removed)
        sentences = None
        if self.recipe.dedup_unit == "sentences":
            sentences = len(starts) - int(np.count_nonzero(removed))
        return FinishedPage(left, sentences, self.finish(left, sentences, url))

    def finish(self, text: str, sentences: int | None, url: str) -> CleanPage:
        """Apply every rule that comes after deduplication.

        ``sentences``: how many are left in ``text``; None to count them over the whole text, as
        TF does after its line dedup.
        """
        recipe = self.recipe
        if not text:
            return CleanPage(PageVerdict.EMPTY_AFTER_DEDUP)
        if recipe.min_sentences_after_dedup:
            if sentences is None:
                sentences = self.splitter.count(text)
            if sentences < recipe.min_sentences_after_dedup:
                return CleanPage(PageVerdict.FEW_SENTENCES_AFTER_DEDUP)
        results = [CleanPage(PageVerdict.KEPT, text, text.count("\n") + 1)]
        if self._late:
            self._judge_contents([RawPage(url, "", "", "", "")], results)
        [result] = results
        return result if result.verdict is PageVerdict.KEPT else result._replace(text="", lines=0)

    def _judge_contents(self, pages: Sequence[RawPage], results: list[CleanPage]) -> None:
        """Judge the language, then its bad words, of the pages still kept; change ``results``."""
        if self.recipe.skip_language:
            return
        waiting = [at for at, result in enumerate(results) if result.verdict is PageVerdict.KEPT]
        languages = [detect_language(results[at].text) for at in waiting]
        for at, language in zip(waiting, languages, strict=True):
            _, text, lines, _, _ = results[at]
            results[at] = CleanPage(self._judge_language(language), text, lines, language)
        if not self.recipe.bad_words:
            return
        for at in waiting:
            verdict, text, _, language, _ = results[at]
            if verdict is not PageVerdict.KEPT or language is None:
                continue
            word = self._badwords.found(text, language.code)
            if word is not None and not (
                self.recipe.bad_words_kept_fraction
                and self._badwords.kept_by_chance(normalize_url(pages[at].url))
            ):
                results[at] = results[at]._replace(verdict=PageVerdict.BAD_WORDS, evidence=word)

    @staticmethod
    def _judge_by_own_rules(
        own: OwnRules, pages: Sequence[RawPage], results: list[CleanPage]
    ) -> None:
        """Judge the pages still kept by the user's own rules; change ``results``."""
        for at, (page, result) in enumerate(zip(pages, results, strict=True)):
            if result.verdict is not PageVerdict.KEPT:
                continue
            code, probability = result.language or (None, None)
            seen = RulePage(page.url, page.timestamp, result.text, code, probability)
            if (found := own.judge(seen, at)) is not None:
                verdict, rule = found
                results[at] = result._replace(verdict=verdict, evidence=rule)

    def _judge_language(self, language: Language | None) -> PageVerdict:
        recipe = self.recipe
        if language is None:
            return PageVerdict.NO_LANGUAGE
        if language.probability < recipe.min_language_probability:
            return PageVerdict.LOW_CONFIDENCE
        if recipe.languages and language.code not in recipe.languages:
            return PageVerdict.OTHER_LANGUAGE
        return PageVerdict.KEPT

    def _has_paragraphs(self, lines: list[str]) -> bool:
        # TF paragraph_filter: enough lines, and enough of them long.
        wanted = self.recipe.min_paragraphs
        longest = heapq.nlargest(wanted, map(len, lines))
        return len(longest) == wanted and longest[-1] >= self.recipe.min_paragraph_chars


def line_starts(text: str) -> list[int]:
    r"""Return where each line of a text begins.

    >>> line_starts("One.\nTwo.")
    [0, 5]
    """
    starts, at = [0], text.find("\n")
    while at >= 0:
        starts.append(at + 1)
        at = text.find("\n", at + 1)
    return starts


@functools.lru_cache(maxsize=8)
def load_rules(recipe: str | Recipe) -> PageRules:
    """Return the rules of a recipe, or of one of that name, with the packaged lists.

    Raises ValueError if no recipe has that name, or if it needs a list of domains or urls.
    """
    return PageRules(load_recipe(recipe) if isinstance(recipe, str) else recipe)
