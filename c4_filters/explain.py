"""What each rule did to one page, line by line: the same judgements as a build, kept for people."""

from collections import Counter
from typing import NamedTuple

from c4_filters.lines import PAGE_DROPPING, judge_line, split_lines
from c4_filters.pages import CleanPage, PageRules, RawPage
from c4_filters.verdicts import LineVerdict, PageVerdict

__all__ = ["ExplainedLine", "ExplainedPage", "explain_page"]


class ExplainedLine(NamedTuple):
    """One line as read, its verdict, and how it reads when kept."""

    verdict: LineVerdict | None  # None: never judged
    text: str
    kept_as: str


class ExplainedPage(NamedTuple):
    """A page with the verdict on each of its lines and on the whole, before deduplication."""

    page: RawPage
    lines: list[ExplainedLine]
    result: CleanPage
    note: str


def explain_page(page: RawPage, rules: PageRules) -> ExplainedPage:
    """Judges a page as a build would, deduplication apart.

    For recipes that judge language and bad words after deduplication, these are judged here on the
    page as it would be if nothing of it were a duplicate.
    """
    recipe = rules.recipe
    lines = split_lines(page.text)
    result = rules.clean(page, Counter())
    if result.verdict is PageVerdict.KEPT and recipe.order == "dedup_first":
        result = rules.finish(result.text, None, page.url)
    judged: list[ExplainedLine] = []
    before_lines = (
        PageVerdict.NO_TEXT,
        PageVerdict.TOO_LONG,
        PageVerdict.DOMAIN,
        PageVerdict.URL_NOT_LISTED,
        PageVerdict.FEW_PARAGRAPHS,
    )
    if result.verdict in before_lines:
        judged = [ExplainedLine(None, line, line) for line in lines]
    elif not recipe.line_rules:
        judged = [ExplainedLine(LineVerdict.KEPT, line, line) for line in lines]
    else:
        dropped = False
        for line in lines:
            if dropped:
                judged.append(ExplainedLine(None, line, line))
                continue
            verdict, kept_as = judge_line(line, recipe)
            judged.append(ExplainedLine(verdict, line, kept_as))
            dropped = verdict in PAGE_DROPPING
    return ExplainedPage(page, judged, result, _note(rules, result, judged, page))


def _note(rules: PageRules, result: CleanPage, lines: list[ExplainedLine], page: RawPage) -> str:
    """The numbers behind a page's verdict."""
    recipe, verdict = rules.recipe, result.verdict
    kept = [line.kept_as for line in lines if line.verdict is LineVerdict.KEPT]
    if verdict is PageVerdict.FEW_SENTENCES:
        count = sum(map(rules.splitter.count, kept))
        return f"{count} sentence{'' if count == 1 else 's'} left, {recipe.min_sentences} wanted"
    if verdict is PageVerdict.FEW_SENTENCES_AFTER_DEDUP:
        return f"fewer than {recipe.min_sentences_after_dedup} sentences in the whole text"
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
