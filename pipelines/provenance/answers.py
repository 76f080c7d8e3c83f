"""Answers the question of `c4 why`: where a page or a sentence came from, and why it is in or out.

A question is an address or a sentence; what reads like an address is looked up as one first, and as
a sentence if no record has it, unless it names a scheme such as ``https://``. An address has an
answer for each record that has it, a sentence one for each page that passed the rules with it,
whether deduplication left it there or not. At most 20 pages of a sentence are looked at; those that
keep it come first.
"""

import bisect
import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from c4_filters.pages import line_starts
from c4_filters.verdicts import LineVerdict, PageVerdict
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.provenance.built_with import build_config
from pipelines.provenance.explainer import Account, Explainer, Rejected, require_utf8
from pipelines.provenance.kept import Copy, KeptCorpus
from pipelines.provenance.kept_file import KeptPage

_MOST_PAGES = 20  # of a sentence
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S")  # http://a.example, file:b.jsonl#3
_HOST = re.compile(r"[^\s/?#]+\.[^\s/?#.][^\s/?#]*([/?#]\S*)?")  # a.example/b, also "etc.html"


class RecordPlace(NamedTuple):
    """A WET file, and the offset of a record's gzip member in it."""

    file: str
    offset: int


class Line(NamedTuple):
    """A line of a page as read, and what became of it: a name of docs/rules.md.

    A line that passed the line rules is "kept", also on a page that was dropped as a whole, or
    "duplicate" if deduplication removed all of it. One that no rule looked at, because the page was
    dropped before, is "on_dropped_page".
    """

    text: str
    verdict: str


class KeptBy(NamedTuple):
    """A sentence (or line) that deduplication removed, and the page that has its copy.

    The sentence is None for a near duplicate: the page as a whole. The url is None if that page is
    not in the kept files.
    """

    sentence: str | None
    url: str | None


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of one record.

    Attributes:
        url: As the record has it.
        source: Where the record is.
        fate: Whether the page is in a shard.
        verdict: Of the page, or the reason why the record is not a page: names of docs/rules.md.
        lines: Of the record; None if it cannot be read any more.
        kept_by: What deduplication removed: of a sentence's answer, only that sentence.
        note: The numbers behind the verdict, for people.
    """

    url: str
    source: RecordPlace
    fate: Literal["written", "dropped"]
    verdict: str
    lines: tuple[Line, ...] | None
    kept_by: tuple[KeptBy, ...] = ()
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what ``c4 why --json`` prints: all but the note."""
        return {
            "url": self.url,
            "source": self.source._asdict(),
            "fate": self.fate,
            "verdict": self.verdict,
            "lines": None if self.lines is None else [line._asdict() for line in self.lines],
            "kept_by": [keeper._asdict() for keeper in self.kept_by],
        }


class Asked(NamedTuple):
    """What a question finds.

    Attributes:
        accounts: Of pages and of rejected records; pages that are in a shard come first.
        sentence: The question, if it is a sentence.
        total: How often the sentence is on pages that passed the rules.
    """

    accounts: list[Account | Rejected]
    sentence: str | None = None
    total: int = 0


def why(corpus: str | os.PathLike[str], question: str, **settings: Any) -> list[Answer]:
    """Say where a page or a sentence came from, and why it is in the corpus or not.

    The first sentence asked of a corpus builds an index beside its kept files, which takes a while.

    Args:
        corpus: The folder of a finished corpus that kept all files.
        question: An address, in any form that is equal when normalised; or one sentence.
        settings: The lists that the corpus was built with, if it was built with any: the fields
            ``badwords``, ``domain_list`` and ``url_list`` of `BuildConfig`.

    Returns:
        An answer for each record that has the address, or for each page that passed the rules with
        the sentence, 20 at most; nothing if there is none.

    Raises:
        CorpusError: The folder is not a finished corpus.
        OSError: A file cannot be read, or the index cannot be written.
        ValueError: The corpus kept no pages; a kept file is damaged; a setting does not fit; or
            the question is more than one sentence.
    """
    with KeptCorpus(layout.absolute(os.fspath(corpus))) as kept:
        config = build_config(kept.made, kept.folder, settings)
        found = ask(kept, config, question)
    return [answer_of(account, question) for account in found.accounts]


def ask(corpus: KeptCorpus, config: BuildConfig, question: str) -> Asked:
    """Find what a question is about. See `why`; ``config`` comes from `build_config`."""
    if not corpus.has_pages:
        raise ValueError(f"{corpus.lacks_pages}; build it with --keep all")
    question = question.strip()
    if not question:
        raise ValueError("the question is empty: give an address or a sentence")
    require_utf8(question, "the question")
    if is_address(question):
        found = list(Explainer(config, corpus, question).explain(None))
        if found or re.fullmatch(r"\w+://\S+", question):
            return Asked(_written_first(found))  # else it may be a sentence that looks like one
    return _ask_sentence(corpus, config, question)


def is_address(question: str) -> bool:
    """Return whether a question reads like an address, and is looked up as one first.

    >>> is_address("example.org/a"), is_address("It rained.")
    (True, False)
    """
    return bool(_SCHEME.match(question) or _HOST.fullmatch(question))


def _ask_sentence(corpus: KeptCorpus, config: BuildConfig, question: str) -> Asked:
    held, total = corpus.holding(question, _MOST_PAGES)
    joined = " ".join(question.split())
    if not held and joined != question:  # as copied from a page that broke or indented it
        question = joined
        held, total = corpus.holding(question, _MOST_PAGES)
    if not held:
        sentences = len(corpus.splitter.line_starts(question))
        if sentences > 1:
            raise ValueError(
                f"the question reads as {sentences} sentences, and no cleaned page has them as "
                "one: ask for one sentence"
            )
    stays: list[Copy] = []
    removed: list[Copy] = []
    for path, page, units in held:
        gone = bool(units) and bool(page.removed[units].all())
        (removed if gone else stays).append(Copy(path, _asked_units(page, units)))
    explainer = Explainer(config, corpus)
    accounts = [
        account
        for copies in (stays, removed)
        for account in explainer.explain_copies(corpus, copies)
    ]
    return Asked(_written_first(accounts), question, total)


def _asked_units(page: KeptPage, units: list[int]) -> KeptPage:
    """Return a page that names no keepers but those of some units."""
    wanted = set(units)
    keepers = [keeper if unit in wanted else None for unit, keeper in enumerate(page.unit_keepers)]
    return page._replace(unit_keepers=keepers)


def _written_first(accounts: Iterable[Account | Rejected]) -> list[Account | Rejected]:
    return sorted(accounts, key=lambda account: not _is_written(account))


def _is_written(account: Account | Rejected) -> bool:
    return isinstance(account, Account) and account.judgement.result.verdict is PageVerdict.KEPT


def answer_of(account: Account | Rejected, question: str) -> Answer:
    """Return the answer that an account gives; a rejected record has the question's address."""
    source = RecordPlace(account.path, account.offset)
    if isinstance(account, Rejected):
        return Answer(question, source, "dropped", account.reason, (), note=account.detail)
    verdict, note = account.judgement.result.verdict, account.judgement.note
    fate: Literal["written", "dropped"] = "written" if _is_written(account) else "dropped"
    lines = None if account.explained is None else tuple(_lines(account))
    return Answer(account.url, source, fate, str(verdict), lines, tuple(_kept_by(account)), note)


def _lines(account: Account) -> Iterator[Line]:
    assert account.explained is not None
    removed, number = _removed_lines(account.kept), 0
    for line in account.explained.lines:
        verdict = line.verdict or LineVerdict.ON_DROPPED_PAGE
        if verdict is LineVerdict.KEPT:
            if number in removed:
                verdict = LineVerdict.DUPLICATE
            number += 1
        yield Line(line.text, str(verdict))


def _removed_lines(page: KeptPage | None) -> set[int]:
    """Return the numbers of a page's lines of which deduplication removed every unit."""
    if page is None or page.lost is not PageVerdict.KEPT:
        return set()
    begins = line_starts(page.text)
    lines = [bisect.bisect_right(begins, start) - 1 for start in page.starts]
    removed = page.removed.tolist()
    stay = {line for line, gone in zip(lines, removed, strict=True) if not gone}
    return {line for line, gone in zip(lines, removed, strict=True) if gone} - stay


def _url_of(account: Account, keeper: int | None) -> str | None:
    holder = None if keeper is None else account.keepers.get(keeper)
    return holder and holder.url


def _kept_by(account: Account) -> Iterator[KeptBy]:
    page = account.kept
    if page is not None and page.lost is PageVerdict.NEAR_DUPLICATE:
        yield KeptBy(None, _url_of(account, page.page_keeper))
    if page is None or page.lost is not PageVerdict.KEPT:
        return
    for (text, _), keeper in zip(page.units(), page.unit_keepers, strict=True):
        if keeper is not None:
            yield KeptBy(text, _url_of(account, keeper))
