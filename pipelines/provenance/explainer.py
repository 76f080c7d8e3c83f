"""Reads records of WET files again, and tells what the rules and deduplication made of each."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, cast

from c4_filters.explain import ExplainedPage, Judgement, explain_page
from c4_filters.pages import CleanPage, RawPage
from c4_filters.recipes import Recipe
from c4_filters.urls import normalize_url, page_key
from c4_filters.verdicts import PageVerdict
from pipelines import storage
from pipelines.config import BuildConfig
from pipelines.imports import sources
from pipelines.printing import print_note
from pipelines.provenance.kept import Copy, Holder, KeptCorpus
from pipelines.provenance.kept_file import DroppedPage, KeptFile, KeptPage
from pipelines.stages.clean_files import Place, page_digest, read_pages, read_rejects
from pipelines.wet.results import ReadStats, Reject, UnreadableWetError

_PIECE_BYTES = 1 << 16  # of a file at once, where one record of it is read


class Rejected(NamedTuple):
    """A record that did not become a page."""

    path: str
    offset: int
    reason: str
    detail: str


class Account(NamedTuple):
    """What became of one page."""

    path: str  # of the WET file
    offset: int  # of the record's gzip member in it
    url: str
    timestamp: str  # empty if neither the record nor the kept files have it
    judgement: Judgement
    explained: ExplainedPage | None  # None: the record cannot be read
    missing: str  # why
    kept: KeptPage | None  # None: the rules dropped it, or deduplication is not considered
    keepers: Mapping[int, Holder]  # the pages that have the copies of removed units


class _Tail:
    """A stream from some byte on, as the reader wants it; it reads no more than a record needs."""

    def __init__(self, stream: BinaryIO, start: int) -> None:
        self._stream = stream
        self._start = start

    def read(self, size: int) -> bytes:
        return self._stream.read(min(size, _PIECE_BYTES) if self._start else size)

    def seek(self, offset: int) -> int:
        return self._stream.seek(self._start + offset) - self._start


class Found(NamedTuple):
    """A page of a WET file, and where it is."""

    place: Place
    page: RawPage


def require_utf8(text: str, what: str) -> None:
    """Raise ValueError for a text of the command line that was given in another encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not UTF-8: set the terminal to UTF-8") from None


def pages_from(
    stream: BinaryIO,
    start: int,
    recipe: Recipe,
    limits: tuple[int, int],
    source: str = sources.WET,
    path: str = "",
) -> Iterator[Found | Reject]:
    """Yield what a build reads of a file, from the record at byte ``start`` on; see `read_pages`.

    The place of a reject is not that in the file. ``limits``: bytes of a record, and of a file.
    """
    tail = cast(BinaryIO, _Tail(stream, start))
    for each in read_pages(tail, ReadStats(), recipe, Counter(), *limits, source, path):
        if isinstance(each, Reject):
            yield each
        else:
            yield Found(each[0]._replace(offset=each[0].offset + start), each[1])


class Explainer:
    """Explains pages of WET files, with what deduplication made of them if there is a corpus."""

    def __init__(
        self,
        config: BuildConfig,
        corpus: KeptCorpus | None,
        url: str | None = None,
        verdict: str | None = None,
    ) -> None:
        """Take what judges the pages, and which pages to explain: all if neither is given."""
        require_utf8(url or "", "the address")
        self.skipped = 0  # WET files that have changed or are gone
        self._config = config
        self._rules = config.page_rules()
        self._corpus = corpus
        self._url = url
        self._wanted = normalize_url(url) if url else None
        self._verdict = verdict

    def explain(self, path: str | None) -> Iterator[Account | Rejected]:
        """Explain the pages of a WET file, or of all WET files of the corpus.

        Raises:
            OSError: A file cannot be read.
            ValueError: A file is damaged or is no WET file, or has changed since the build.
        """
        if self._corpus is None:
            assert path is not None
            yield from self._explain_file(path, None)
        elif self._url is not None:
            yield from self._explain_url(self._corpus, self._url, path)
        else:
            for each in [path] if path is not None else sorted(self._corpus.inputs):
                if change := self._corpus.change_of(each):
                    if path is not None:
                        raise ValueError(f"{each} {change}: build it again, or leave --corpus out")
                    print_note(f"c4: note: {each} {change}: skipped")
                    self.skipped += 1
                    continue
                with self._corpus.open(each) as kept:
                    yield from self._explain_file(each, kept)

    def _explain_file(self, path: str, kept: KeptFile | None) -> Iterator[Account | Rejected]:
        """Explain the pages of a file in its order."""
        last, seen = None, Counter[bytes]()  # digests of pages in one record
        for item in self._pages(path):
            if isinstance(item, Reject):
                if self._verdict is None and (self._wanted is None or self._names(item.detail)):
                    yield Rejected(path, item.offset, item.reason, item.detail)
                continue
            if self._wanted is not None and normalize_url(item.page.url) != self._wanted:
                continue
            explained = explain_page(item.page, self._rules)
            found = None
            if kept is not None and explained.before.verdict is PageVerdict.KEPT:
                if item.place != last:
                    last, seen = item.place, Counter()
                digest = page_digest(item.page, explained.before.text)
                found = _kept_page(kept, item, digest, seen[digest])
                seen[digest] += 1
                if found is None:
                    dropped = kept.dropped(page_key(normalize_url(item.page.url)))
                    explained = self._by_own_rule(explained, dropped, item.place.offset)
                if found is None and explained.before.verdict is PageVerdict.KEPT:
                    raise ValueError(
                        f"{path} and what {self._corpus and self._corpus.folder} keeps of it do "
                        f"not match: {item.page.url} is missing there"
                    )
            yield from self._account(path, item.place.offset, explained, found)

    def _pages(self, path: str, start: int = 0) -> Iterator[Found | Reject]:
        """Yield what a build reads of a file, from the record at byte ``start`` on."""
        config = self._config
        limits = config.max_record_bytes, config.max_file_bytes
        with storage.open_raw(path, scattered=start > 0) as stream:
            try:
                yield from pages_from(
                    stream, start, self._rules.recipe, limits, config.source, path
                )
            except UnreadableWetError as error:
                raise ValueError(f"{path}: {error}") from None

    def _explain_url(
        self, corpus: KeptCorpus, url: str, path: str | None
    ) -> Iterator[Account | Rejected]:
        """Explain every page of an address; without any, the rejected records that name it."""
        copies = corpus.find(url, None if path is None else [path])
        known = copies if path is None else None  # all of the address
        found = False
        for account in self.explain_copies(corpus, copies, url, known):
            found = True
            yield account
        if not found and self._verdict is None:
            for each in [path] if path is not None else sorted(corpus.inputs):
                for reject in read_rejects(corpus.folder, each):
                    if self._names(reject["detail"]):
                        yield Rejected(each, reject["offset"], reject["reason"], reject["detail"])

    def explain_copies(
        self,
        corpus: KeptCorpus,
        copies: Sequence[Copy],
        url: str = "",
        known: Sequence[Copy] | None = None,
    ) -> Iterator[Account]:
        """Explain pages that a corpus knows, file by file, in the order of the files' paths.

        Args:
            corpus: The corpus.
            copies: The pages.
            url: Their address; may be left out if the corpus kept all of them.
            known: All pages of this address, if they were looked for.
        """
        for path in sorted({copy.path for copy in copies}):
            here = [copy for copy in copies if copy.path == path]
            change = corpus.change_of(path)
            pages = [] if change else self._read(path, here, url)
            if len(pages) != len(here):
                change = change or "no longer holds this page"
                for copy in here:
                    yield from self._account_without_record(copy, url, known, change)
                continue
            for copy, found in zip(here, pages, strict=True):
                kept = copy.page if isinstance(copy.page, KeptPage) else None
                explained = explain_page(found.page, self._rules)
                if isinstance(copy.page, DroppedPage):
                    explained = self._by_own_rule(explained, [copy.page], copy.page.offset)
                yield from self._account(path, found.place.offset, explained, kept, known)

    def _by_own_rule(
        self, explained: ExplainedPage, dropped: Iterable[DroppedPage], offset: int
    ) -> ExplainedPage:
        """Return a page with the verdict that a user's rule gave it, by the kept files."""
        for page in dropped:
            kept = explained.before.verdict is PageVerdict.KEPT
            if page.by_own_rule and page.offset == offset and kept:
                result = CleanPage(page.verdict)
                note = f"by a rule of the recipe: {', '.join(self._rules.recipe.rules)}"
                return explained._replace(before=result, result=result, note=note)
        return explained

    def _names(self, detail: str) -> bool:
        """Return whether a reject names the given address."""
        return any(normalize_url(word.strip(",;:()<>")) == self._wanted for word in detail.split())

    def _read(self, path: str, copies: Sequence[Copy], url: str) -> list[Found]:
        """Read the pages that a corpus knows, record by record; as many as are found there.

        Records of a damaged file cannot always be read by themselves; then the whole file is read.
        """
        wet = self._config.source == sources.WET  # others are read from their beginning only
        offsets = dict.fromkeys(copy.page.offset for copy in copies if wet)
        pages = [page for offset in offsets for page in self._record(path, offset)]
        found = self._matched(copies, pages, url)
        if len(found) < len(copies):
            whole = (item for item in self._pages(path) if not isinstance(item, Reject))
            found = self._matched(copies, whole, url)
        return found

    def _record(self, path: str, offset: int) -> Iterator[Found]:
        with contextlib.suppress(ValueError):  # no record can be read from here on
            for item in self._pages(path, offset):
                if isinstance(item, Found):
                    if item.place.offset > offset:
                        return
                    yield item

    def _matched(self, copies: Sequence[Copy], pages: Iterable[Found], url: str) -> list[Found]:
        """Return the page of each copy, in their order, as far as they are found."""
        urls = {normalize_url(getattr(copy.page, "url", url)) for copy in copies}
        offsets = {copy.page.offset for copy in copies}
        waiting = [
            (page, explain_page(page.page, self._rules).before)
            for page in pages
            if page.place.offset in offsets and normalize_url(page.page.url) in urls
        ]
        found = []
        for copy in copies:
            for at, (page, before) in enumerate(waiting):
                if page.place.offset != copy.page.offset:
                    continue
                if before.verdict is not PageVerdict.KEPT:
                    fits = before.verdict == getattr(copy.page, "verdict", None)
                else:
                    digest = getattr(copy.page, "digest", None)
                    fits = page_digest(page.page, before.text) == digest
                    fits |= isinstance(copy.page, DroppedPage) and copy.page.by_own_rule
                if fits:
                    found.append(page)
                    del waiting[at]
                    break
        return found

    def _account(
        self,
        path: str,
        offset: int,
        explained: ExplainedPage,
        kept: KeptPage | None,
        copies: Sequence[Copy] | None = None,
    ) -> Iterator[Account]:
        """Yield the account of a page, see `_with_keepers`."""
        page, judgement = explained.page, Judgement(explained.result, explained.note)
        if kept is not None:
            judgement = kept.judge(self._rules)
        url, timestamp = page.url, page.timestamp
        account = Account(path, offset, url, timestamp, judgement, explained, "", kept, {})
        yield from self._with_keepers(account, copies)

    def _account_without_record(
        self, copy: Copy, url: str, copies: Sequence[Copy] | None, change: str
    ) -> Iterator[Account]:
        """Yield what is known about a page without its WET file, see `_with_keepers`."""
        kept, timestamp = None, ""
        if isinstance(copy.page, KeptPage):
            kept, url, timestamp = copy.page, copy.page.url, copy.page.timestamp
        judgement = copy.page.judge(self._rules)
        offset = copy.page.offset
        account = Account(copy.path, offset, url, timestamp, judgement, None, change, kept, {})
        yield from self._with_keepers(account, copies)

    def _with_keepers(self, account: Account, copies: Sequence[Copy] | None) -> Iterator[Account]:
        """Yield an account of the given verdict, with the pages that keep what was removed."""
        kept, corpus = account.kept, self._corpus
        if self._verdict not in (None, account.judgement.result.verdict):
            return
        if kept is None or corpus is None:
            yield account
            return
        note = account.judgement.note
        keepers: Mapping[int, Holder] = {}
        if kept.lost is PageVerdict.OPTED_OUT:
            note = "its address is on the list of --opt-out"
        elif kept.lost is PageVerdict.DUPLICATE_URL:
            note = corpus.preferred(kept, account.path, copies)
        else:
            keepers = corpus.keepers(kept, account.path)
        if kept.lost is PageVerdict.NEAR_DUPLICATE:
            note = "the page that has its text was not found, or not searched for in so many files"
            for holder in keepers.values():
                note = f"much of it is in {holder}"
        judgement = account.judgement._replace(note=note)
        yield account._replace(judgement=judgement, keepers=keepers)


def _kept_page(kept: KeptFile, found: Found, digest: bytes, number: int) -> KeptPage | None:
    """Find a page among the kept ones; ``number`` counts equal pages of one record."""
    place = found.place
    pages = [
        page
        for page in kept.pages(page_key(normalize_url(found.page.url)))
        if (page.offset, page.inner_offset) == (place.offset, place.inner_offset)
        and page.digest == digest
    ]
    return pages[number] if number < len(pages) else None
