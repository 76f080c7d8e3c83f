"""What each rule did to one page, line by line: the same judgements as a build, kept for people."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from c4_filters.lines import PAGE_DROPPING, judge_line, split_lines
from c4_filters.pages import CleanPage, PageRules, RawPage
from c4_filters.verdicts import BEFORE_LINES, LineVerdict, PageVerdict


class ExplainedLine(NamedTuple):
    """One line as read, its verdict, and how it reads when kept."""

    verdict: LineVerdict | None  # None: never judged
    text: str
    kept_as: str


class Judgement(NamedTuple):
    """What became of a page, and the numbers behind that."""

    result: CleanPage
    note: str


class ExplainedPage(NamedTuple):
    """A page with the verdict on each of its lines and on the whole."""

    page: RawPage
    lines: list[ExplainedLine]
    before: CleanPage  # what the rules before deduplication make of it
    result: CleanPage  # what would become of it if nothing of it were a duplicate
    note: str  # the numbers behind that result


def explain_page(page: RawPage, rules: PageRules) -> ExplainedPage:
    """Judge a page as a build would, deduplication apart.

    What a recipe judges after deduplication is judged here on the page as it would be if nothing
    of it were a duplicate.
    """
    recipe = rules.recipe
    lines = split_lines(page.text)
    before = rules.clean(page, Counter())
    judged: list[ExplainedLine] = []
    dropped = before.verdict in BEFORE_LINES
    for line in lines:
        verdict, kept_as = (None if dropped else LineVerdict.KEPT), line
        if recipe.line_rules and not dropped:
            verdict, kept_as = judge_line(line, recipe)
            dropped = verdict in PAGE_DROPPING
        judged.append(ExplainedLine(verdict, line, kept_as))
    if before.verdict is not PageVerdict.KEPT:
        return ExplainedPage(page, judged, before, before, _note(rules, before, judged, page))
    starts = rules.unit_starts(before.text)
    nothing = np.zeros(len(starts), dtype=bool)
    return ExplainedPage(
        page, judged, before, *judge_after_dedup(rules, before, starts, nothing, page.url)
    )


def judge_after_dedup(
    rules: PageRules,
    before: CleanPage,
    starts: Sequence[int],
    removed: npt.NDArray[np.bool_],
    url: str,
) -> Judgement:
    """Judge a page that the rules before deduplication kept, as the writer of a shard does.

    Args:
        rules: The recipe's.
        before: What those rules made of it.
        starts: Where its units begin, see `PageRules.unit_starts`.
        removed: Whether deduplication removes each unit, ``[units]``.
        url: The page's, as written.
    """
    counts = np.array([len(starts)]), np.array([np.count_nonzero(removed)])
    if not rules.are_judged_after_dedup(*counts)[0]:
        return Judgement(before, before.reason())
    left, sentences, result = rules.finish_page(before.text, starts, removed, url)
    if result.verdict is PageVerdict.FEW_SENTENCES_AFTER_DEDUP:
        count = rules.splitter.count(left) if sentences is None else sentences
        return Judgement(result, _sentences_left(count, rules.recipe.min_sentences_after_dedup))
    if result.verdict is PageVerdict.KEPT and result.language is None:  # detected before
        result = result._replace(language=before.language)
    return Judgement(result, _note(rules, result, [], RawPage(url, "", "", "", "")))


def _sentences_left(count: int, wanted: int) -> str:
    return f"{count} sentence{'' if count == 1 else 's'} left, {wanted} wanted"


def _note(rules: PageRules, result: CleanPage, lines: list[ExplainedLine], page: RawPage) -> str:
    """Return the numbers behind a page's verdict."""
    recipe, verdict = rules.recipe, result.verdict
    kept = [line.kept_as for line in lines if line.verdict is LineVerdict.KEPT]
    if verdict is PageVerdict.FEW_SENTENCES:
        return _sentences_left(sum(map(rules.splitter.count, kept)), recipe.min_sentences)
    if verdict is PageVerdict.TOO_LONG:
        return f"{len(page.text):,} characters, {recipe.max_page_chars:,} allowed"
    if verdict is PageVerdict.FEW_PARAGRAPHS:
        long_lines = sum(len(line.text) >= recipe.min_paragraph_chars for line in lines)
        return (
            f"{long_lines} lines of {recipe.min_paragraph_chars} characters, "
            f"{recipe.min_paragraphs} wanted"
        )
    if verdict is PageVerdict.BAD_WORDS:
        return f"contains {result.evidence!r}"
    if verdict is PageVerdict.LOW_CONFIDENCE:
        return f"{result.reason()}, {recipe.min_language_probability} wanted"
    if verdict is PageVerdict.OTHER_LANGUAGE:
        return f"{result.reason()}, wanted {' or '.join(recipe.languages)}"
    return result.reason()
