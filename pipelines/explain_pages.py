"""Prints what each rule, and deduplication, did to pages of WET files, line by line."""

import contextlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, cast

from c4_filters.explain import ExplainedPage, Judgement, explain_page
from c4_filters.own_rules import modules_of
from c4_filters.pages import CleanPage, RawPage
from c4_filters.recipes import Recipe
from c4_filters.urls import normalize_url, page_key
from c4_filters.verdicts import LineVerdict, PageVerdict
from pipelines import storage
from pipelines.config import BuildConfig
from pipelines.explain_corpus import Copy, DroppedPage, KeptCorpus, KeptFile, KeptPage
from pipelines.printing import printable
from pipelines.stages.clean_files import Place, page_digest, read_pages
from pipelines.wet.results import ReadStats, Reject, UnreadableWetError

__all__ = ["Explainer"]

_LINE_CHARS = 100
_BEFORE_LINE = 20  # characters: the verdict and the separator


class _Found(NamedTuple):
    """A page of a WET file, and where it is."""

    place: Place
    page: RawPage


class Explainer:
    """Prints pages of WET files, with what deduplication made of them if there is a corpus."""

    def __init__(
        self,
        config: BuildConfig,
        corpus: KeptCorpus | None,
        url: str | None,
        verdict: str | None,
        advice: str = ": --corpus DIR",
    ) -> None:
        self._config = config
        self._rules = config.page_rules()
        self._corpus = corpus
        self._url = url
        self._wanted = normalize_url(url) if url else None
        self._verdict = verdict
        self._advice = advice  # how to see deduplication
        self._names_files = False
        self.printed = 0  # pages

    def explain(self, path: str | None) -> None:
        """Explain the pages of a WET file, or of all WET files of the corpus."""
        self._names_files = path is None
        if self._corpus is None:
            assert path is not None
            self._explain_file(path, None)
        elif self._url is not None:
            self._explain_copies(self._corpus, path)
        else:
            for each in [path] if path is not None else sorted(self._corpus.inputs):
                if change := self._corpus.change_of(each):
                    if path is not None:
                        raise ValueError(f"{each} {change}: build it again, or leave --corpus out")
                    print(printable(f"c4: note: {each} {change}: skipped"), file=sys.stderr)
                    continue
                with self._corpus.open(each) as kept:
                    self._explain_file(each, kept)

    def _explain_file(self, path: str, kept: KeptFile | None) -> None:
        """Explain the pages of a file in its order."""
        last, seen = None, Counter[bytes]()  # digests of pages in one record
        for item in self._pages(path):
            if isinstance(item, Reject):
                if self._verdict is None and (self._wanted is None or self._names(item.detail)):
                    where = self._where(item.offset, path)
                    print(f"{_rejected(where, item.reason, item.detail)}\n")
                    self.printed += self._wanted is not None
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
            self._print_page(path, explained, item.place.offset, found)

    def _pages(self, path: str, start: int = 0) -> Iterator[_Found | Reject]:
        """Yield what a build reads of a file, from the record at byte ``start`` on."""
        with storage.open_raw(path, scattered=start > 0) as stream:
            pages = read_pages(
                cast(BinaryIO, _Tail(stream, start)),
                ReadStats(),
                self._rules.recipe,
                Counter(),
                self._config.max_record_bytes,
                self._config.max_file_bytes,
            )
            try:
                for page in pages:
                    if isinstance(page, Reject):
                        yield page
                    else:
                        place, raw = page
                        yield _Found(place._replace(offset=place.offset + start), raw)
            except UnreadableWetError as error:
                raise ValueError(f"{path}: {error}") from None

    def _explain_copies(self, corpus: KeptCorpus, path: str | None) -> None:
        """Explain every page of the given address."""
        assert self._url is not None
        copies = corpus.find(self._url, None if path is None else [path])
        known = copies if path is None else None  # all of the address
        for each in sorted({copy.path for copy in copies}) if path is None else [path]:
            here = [copy for copy in copies if copy.path == each]
            change = corpus.change_of(each)
            pages = [] if change else self._read(each, here)
            if here and len(pages) != len(here):
                change = change or "no longer holds this page"
                for copy in here:
                    self._print_kept(copy, known, change)
                continue
            for copy, found in zip(here, pages, strict=True):
                kept = copy.page if isinstance(copy.page, KeptPage) else None
                explained = explain_page(found.page, self._rules)
                if isinstance(copy.page, DroppedPage):
                    explained = self._by_own_rule(explained, [copy.page], copy.page.offset)
                self._print_page(each, explained, found.place.offset, kept, known)

        if not self.printed and self._verdict is None:
            self._explain_rejects(corpus, [path] if path is not None else sorted(corpus.inputs))

    def _by_own_rule(
        self, explained: ExplainedPage, dropped: Iterable[DroppedPage], offset: int
    ) -> ExplainedPage:
        """Return a page with the verdict that a rule of one's own gave it, by the kept files."""
        for page in dropped:
            kept = explained.before.verdict is PageVerdict.KEPT
            if page.by_own_rule and page.offset == offset and kept:
                result = CleanPage(page.verdict)
                note = f"by a rule of the recipe: {', '.join(self._rules.recipe.rules)}"
                return explained._replace(before=result, result=result, note=note)
        return explained

    def _explain_rejects(self, corpus: KeptCorpus, paths: Sequence[str]) -> None:
        """Print the rejected records that name the given address."""
        for path in paths:
            lines = [
                _rejected(self._where(reject["offset"], path), reject["reason"], reject["detail"])
                for reject in corpus.rejects(path)
                if self._names(reject["detail"])
            ]
            if lines:
                print(*lines, sep="\n\n", end="\n\n")
                self.printed += len(lines)

    def _names(self, detail: str) -> bool:
        """Return whether a reject names the given address."""
        return any(normalize_url(word.strip(",;:()<>")) == self._wanted for word in detail.split())

    def _read(self, path: str, copies: Sequence[Copy]) -> list[_Found]:
        """Read the pages that a corpus knows, record by record; as many as are found there.

        Records of a damaged file cannot always be read by themselves; then the whole file is read.
        """
        offsets = dict.fromkeys(copy.page.offset for copy in copies)
        pages = [page for offset in offsets for page in self._record(path, offset)]
        found = self._matched(copies, pages)
        if len(found) < len(copies):
            whole = (item for item in self._pages(path) if not isinstance(item, Reject))
            found = self._matched(copies, whole)
        return found

    def _record(self, path: str, offset: int) -> Iterator[_Found]:
        with contextlib.suppress(ValueError):  # no record can be read from here on
            for item in self._pages(path, offset):
                if isinstance(item, _Found):
                    if item.place.offset > offset:
                        return
                    yield item

    def _matched(self, copies: Sequence[Copy], pages: Iterable[_Found]) -> list[_Found]:
        """Return the page of each copy, in their order, as far as they are found."""
        waiting = [
            (page, explain_page(page.page, self._rules).before)
            for page in pages
            if normalize_url(page.page.url) == self._wanted
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

    def _print_page(
        self,
        path: str,
        explained: ExplainedPage,
        offset: int,
        kept: KeptPage | None,
        copies: Sequence[Copy] | None = None,
    ) -> None:
        """Print a page if it has the given verdict."""
        page, judgement = explained.page, Judgement(explained.result, explained.note)
        if kept is not None:
            judgement = kept.judge(self._rules)
        if self._verdict is not None and judgement.result.verdict != self._verdict:
            return
        _print_head(page.url, page.timestamp, self._where(offset, path))
        for line in explained.lines:
            verdict = "not judged" if line.verdict is None else str(line.verdict)
            print(f"  {verdict:>15} | {_shortened(line.text)}")
            if line.verdict is LineVerdict.KEPT and line.kept_as != line.text:
                print(f"  {'kept as':>15} | {_shortened(line.kept_as)}")
        self._print_verdict(path, judgement, kept, copies)
        if (
            kept is None
            and explained.before.verdict is PageVerdict.KEPT
            and self._lacks_own_rules()
        ):
            modules = ",".join(modules_of(self._rules.recipe.rules))
            print(f" (rules of your own not considered: --allow-rules {modules})", end="")
        if kept is None and explained.before.verdict is PageVerdict.KEPT and self._dedups():
            print(f" (deduplication not considered{self._advice})", end="")
        print("\n")
        self.printed += 1

    def _print_kept(self, copy: Copy, copies: Sequence[Copy] | None, change: str) -> None:
        """Print what is known about a page without its WET file."""
        assert self._url is not None
        kept, url, timestamp = None, self._url, ""
        if isinstance(copy.page, KeptPage):
            kept, url, timestamp = copy.page, copy.page.url, copy.page.timestamp
            judgement = kept.judge(self._rules)
        else:
            judgement = Judgement(CleanPage(copy.page.verdict), "")
        if self._verdict is not None and judgement.result.verdict != self._verdict:
            return
        _print_head(url, timestamp, self._where(copy.page.offset, copy.path))
        print(printable(f"  {copy.path} {change}: its lines cannot be shown"))
        self._print_verdict(copy.path, judgement, kept, copies)
        print("\n")
        self.printed += 1

    def _print_verdict(
        self,
        path: str,
        judgement: Judgement,
        kept: KeptPage | None,
        copies: Sequence[Copy] | None,
    ) -> None:
        """Print what deduplication removed, then the page's verdict without the line's end."""
        verdict, note = judgement.result.verdict, judgement.note
        if kept is not None and self._corpus is not None:
            if verdict is PageVerdict.DUPLICATE_URL:
                note = self._corpus.preferred(kept, path, copies)
            elif verdict is PageVerdict.NEAR_DUPLICATE:
                note = self._corpus.near_copy(kept, path)
            elif kept.starts:
                _print_removed(kept, self._corpus.keepers(kept, path), self._rules.recipe)
        print(printable(f"  page {verdict}{f': {note}' if note else ''}"), end="")

    def _where(self, offset: int, path: str) -> str:
        """Return an offset, with its file if several are searched."""
        return f"{offset} in {path}" if self._names_files else str(offset)

    def _lacks_own_rules(self) -> bool:
        return bool(self._rules.recipe.rules) and not self._config.allow_rules

    def _dedups(self) -> bool:
        recipe = self._rules.recipe
        return recipe.dedup_urls or recipe.dedup_unit != "none" or recipe.near_dedup is not None


class _Tail:
    """A stream from some byte on, as the reader wants it."""

    def __init__(self, stream: BinaryIO, start: int) -> None:
        self._stream = stream
        self._start = start

    def read(self, size: int) -> bytes:
        return self._stream.read(size)

    def seek(self, offset: int) -> int:
        return self._stream.seek(self._start + offset) - self._start


def _kept_page(kept: KeptFile, found: _Found, digest: bytes, number: int) -> KeptPage | None:
    """Find a page among the kept ones; ``number`` counts equal pages of one record."""
    place = found.place
    pages = [
        page
        for page in kept.pages(page_key(normalize_url(found.page.url)))
        if (page.offset, page.inner_offset) == (place.offset, place.inner_offset)
        and page.digest == digest
    ]
    return pages[number] if number < len(pages) else None


def _print_head(url: str, timestamp: str, where: str) -> None:
    date = f"{timestamp}, " if timestamp else ""
    print(printable(f"{url}  ({date}offset {where})"))


def _rejected(where: str, reason: str, detail: str) -> str:
    return printable(f"rejected at {where}: {reason}: {detail}")


def _print_removed(kept: KeptPage, keepers: dict[int, str], recipe: Recipe) -> None:
    """Print the units that deduplication removed, and the pages that have their copies."""
    units = kept.units()
    last = None
    for (text, gone), keeper in zip(units, kept.unit_keepers, strict=True):
        if not gone:
            last = None
            continue
        print(f"  {'duplicate':>15} | {_shortened(text)}")
        where = "a page that was not found, or not searched for in so many files"
        if keeper is not None and keeper in keepers:
            own = normalize_url(keepers[keeper]) == normalize_url(kept.url)
            where = "this page" if own else keepers[keeper]
        if where != last:
            print(f"  {'of' if last is None else 'and of':>15} | {_shortened(where)}")
        last = where
    count = sum(gone for _, gone in units)
    print(f"  deduplication removed {count} of {len(units)} {recipe.dedup_unit}")


def _shortened(text: str) -> str:
    shown, most = printable(text), _LINE_CHARS
    if sys.stdout.isatty():
        most = min(most, shutil.get_terminal_size().columns - _BEFORE_LINE)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
