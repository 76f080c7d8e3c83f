"""What a finished corpus knows of its pages: where they are, and which pages keep their copies."""

import bisect
import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from c4_filters.end_marks import sentence_ends
from c4_filters.pages import line_starts
from c4_filters.recipes import Recipe
from c4_filters.sentences import SentenceSplitter, sentence_splitter
from c4_filters.spans import unit_identities
from c4_filters.urls import normalize_url, page_key, split_of
from c4_filters.verdicts import PageVerdict
from pipelines import storage
from pipelines.bars import bar
from pipelines.corpus import layout
from pipelines.corpus.closing import Closing
from pipelines.corpus.container import DamagedFileError
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.fingerprints import read_fingerprints
from pipelines.corpus.layout import SPLITS
from pipelines.corpus.manifest import CORPORA, read_manifest
from pipelines.provenance.index import Entries, Index, Place, find_index, write_index
from pipelines.provenance.kept_file import BEFORE_SPANS, DroppedPage, KeptFile, KeptPage
from pipelines.stages.clean_files import BEFORE_URLS, same_content

_LOOKUPS = 10_000  # of a page in a kept file, for keepers of copies: some 10 to 30 s
_MOST_OPEN = 64  # kept files, between questions
_THREADS = 8  # that read kept files; most of their time is waiting for a file system

_Key = TypeVar("_Key")
_Found = TypeVar("_Found")


class Copy(NamedTuple):
    """A page of an address, as the kept files of one WET file have it."""

    path: str  # of the WET file
    page: KeptPage | DroppedPage


class Holder(NamedTuple):
    """The page that has the copy of what was removed.

    Attributes:
        url: Its address; None: it is not known.
        older: Where it is, if that is in an older corpus, for people.
    """

    url: str | None
    older: str = ""

    def __str__(self) -> str:
        if not self.older:
            return self.url or "a page that was not found"
        return f"{self.url} in {self.older}" if self.url else f"a page of {self.older}"


class Held(NamedTuple):
    """A page that has a sentence, and the numbers of its units that overlap the sentence."""

    path: str  # of the WET file
    page: KeptPage
    units: list[int]


class KeptCorpus(Closing):
    """A finished corpus: its settings and its kept files. Use as a context manager.

    Attributes:
        folder: Where it is.
        made: Its manifest.
        recipe: That it was built with.
        inputs: Its WET files, path to the manifest's entry.
    """

    def __init__(self, folder: str) -> None:
        """Read the manifest. Raises CorpusError if it is missing or damaged."""
        self.folder = folder
        self.made = read_manifest(folder)
        if self.made.settings.source == CORPORA:
            of = " or ".join(file.path for file in self.made.inputs)
            raise CorpusError(
                f"{folder} was made of other corpora, by c4 mix or c4 head: ask about its pages "
                f"with --corpus {of}"
            )
        self.inputs = {file.path: file for file in self.made.inputs}
        self.recipe = Recipe.from_mapping(self.made.recipe)
        self._paths = sorted(self.inputs)
        self._index_path = layout.why_index(folder)
        self._ranks_are_keys = self.recipe.dedup_urls and self.recipe.order != "dedup_first"
        self._opened: dict[str, KeptFile] = {}  # files that stay open, the last used ones last
        self._lookups = _LOOKUPS
        self._holders: dict[int, Holder] = {}  # by rank

    def close(self) -> None:
        """Close the index and kept files. Safe to call more than once."""
        for older in self.__dict__.pop("_older", ()):
            older.close()
        while self._opened:
            self._opened.popitem()[1].close()
        if (index := self.__dict__.pop("index", None)) is not None:
            index.close()

    @property
    def has_pages(self) -> bool:
        """Whether the files that say what became of each page were kept."""
        return self.made.keep == "all"

    @property
    def lacks_pages(self) -> str:
        """Says, for people, that they were not."""
        return f"{self.folder} was built with --keep {self.made.keep}: it has no cleaned pages"

    def change_of(self, path: str) -> str:
        """Return how a WET file differs from the one that was built from; empty: it does not."""
        entry = self.inputs[path]
        try:
            found = storage.stat(path)
        except FileNotFoundError:
            return "is gone"
        if found.size != entry.bytes or not same_content(entry, found.identity, verify=False):
            return f"has changed since {self.folder} was built"
        return ""

    @functools.cached_property
    def splitter(self) -> SentenceSplitter:
        """Splits texts into sentences as the build did."""
        ends = sentence_ends(self.recipe.end_marks)
        return sentence_splitter(self.recipe.sentence_language, ends)

    @functools.cached_property
    def index(self) -> Index | None:
        """The index of this corpus, if there is one."""
        return find_index(self._index_path, self._digest)

    def require_index(self) -> Index:
        """Return the index; write it first if there is none, or one of another build.

        Raises:
            OSError: A kept file cannot be read, or the index cannot be written.
            ValueError: A kept file is damaged, or of another build.
        """
        if self.index is None:
            try:
                with bar("index", len(self._paths), " files", iterable=self._paths) as files:
                    write_index(self._index_path, self._digest, map(self._entries, files))
            except OSError as error:
                beside = self._index_path.rpartition("/")[0]
                if not str(error.filename).startswith(beside):
                    raise
                raise OSError(
                    f"the index {self._index_path} cannot be written ({error.strerror}): run c4 "
                    f"why --corpus {self.folder} --index as a user who may, or use a copy of the "
                    "corpus"
                ) from None
            del self.index
        if self.index is None:
            raise DamagedFileError(self._index_path, "another build has replaced it")
        return self.index

    def _places(self, name: str, key: int, most: int | None = None) -> tuple[list[Place], int]:
        """Look in the index, which has to be there; a damaged one is written again."""
        try:
            return self.require_index().find(name, key, most)
        except DamagedFileError:
            if self.index is not None:
                self.index.close()
            self.index = None
            return self.require_index().find(name, key, most)

    @functools.cached_property
    def _digest(self) -> str:
        """Name what the kept files depend on."""
        made = self.made.as_dict()
        names = ("recipe", "settings", "versions", "inputs", "against")
        content = [made.get(name) for name in names]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _entries(self, path: str) -> Entries:
        prints = read_fingerprints(layout.fingerprints(self.folder, layout.file_name(path)))
        of_texts = None if self.recipe.dedup_unit == "sentences" else self._units_of
        with self.open(path) as file:
            return file.entries(prints, of_texts)

    def _units_of(self, text: str) -> Iterator[bytes]:
        """Yield the identities of the sentences and lines of a text."""
        for starts in (self.splitter.line_starts(text), line_starts(text)):
            identities = unit_identities(text, starts)
            yield from (identities[at : at + 16] for at in range(0, len(identities), 16))

    def open(self, path: str) -> KeptFile:
        """Open the kept files of one of its WET files."""
        return KeptFile(self.folder, path)

    def find(self, url: str, paths: Sequence[str] | None = None) -> list[Copy]:
        """Find every page of an address, compared in normalised form.

        Args:
            url: The address.
            paths: Of the WET files to look in; all by default.

        Returns:
            The pages, by file, then by offset.
        """
        wanted = normalize_url(url)
        key, split = page_key(wanted), SPLITS.index(split_of(wanted))
        if self.index is not None:
            places, _ = self._places("pages", key)
            copies = [copy for _, copy in self._pages_at(places)]
            copies = [copy for copy in copies if paths is None or copy.path in paths]
        else:

            def look(path: str) -> list[Copy]:
                with self.open(path) as file:
                    kept = [Copy(path, page) for page in file.pages(key, [split])]
                    return [*kept, *(Copy(path, page) for page in file.dropped(key))]

            copies = _in_threads(look, self._paths if paths is None else paths)
        found = [
            copy
            for copy in copies
            if isinstance(copy.page, DroppedPage) or normalize_url(copy.page.url) == wanted
        ]
        return sorted(found, key=lambda copy: (copy.path, copy.page.offset, copy.page.inner_offset))

    def holding(self, sentence: str, most: int) -> tuple[list[Held], int]:
        """Find the pages that passed the rules with a sentence in them; uses the index.

        Args:
            sentence: Compared stripped and in lower case.
            most: How many pages to return at most: those that deduplication left whole come first.

        Returns:
            The pages, and how often the sentence is on such pages.

        Raises:
            OSError: As `require_index`.
            ValueError: As `require_index`.
        """
        wanted = sentence.lower().strip()
        key = int.from_bytes(unit_identities(sentence, [0])[:8], "little")
        places, total = self._places("units", key, most)
        found = [
            Held(path, page, units)
            for _, (path, page) in self._pages_at(places)
            if isinstance(page, KeptPage) and (units := self._overlapped(page, wanted)) is not None
        ]
        return found, total if found else 0

    def _overlapped(self, page: KeptPage, wanted: str) -> list[int] | None:
        """Return the units of a page that overlap a sentence; None if it is not on the page."""
        text, all_starts = page.text, [page.starts]
        if self.recipe.dedup_unit != "sentences":
            all_starts = [self.splitter.line_starts(text), line_starts(text)]
        found: set[int] | None = None
        for starts in all_starts:
            for start, end in itertools.pairwise([*starts, len(text)]):
                if text[start:end].lower().strip() == wanted:
                    first = bisect.bisect_right(page.starts, start) - 1
                    last = bisect.bisect_left(page.starts, end)
                    found = (found or set()).union(range(max(first, 0), last))
        return None if found is None else sorted(found)

    def _pages_at(self, places: Iterable[Place]) -> list[tuple[Place, Copy]]:
        """Return the pages at places of the index, file by file."""
        by_file: dict[int, list[Place]] = {}
        for place in places:
            by_file.setdefault(place.file, []).append(place)

        def read(number: int) -> list[tuple[Place, Copy]]:
            path, found = self._paths[number], []
            file = self._opened.pop(path) if path in self._opened else self.open(path)
            self._opened[path] = file
            for place in by_file[number]:
                read_page = file.dropped_page if place.dropped else file.page
                found.append((place, Copy(path, read_page(place.row))))
            return found

        try:
            pages = _in_threads(read, list(by_file))
        except IndexError:
            raise DamagedFileError(self._index_path, "it names a page that is not there") from None
        while len(self._opened) > _MOST_OPEN:
            self._opened.pop(next(iter(self._opened))).close()
        return pages

    def preferred(self, page: KeptPage, path: str, known: Sequence[Copy] | None) -> str:
        """Describe the page that was preferred to an outdated copy.

        Args:
            page: The copy.
            path: Of its WET file.
            known: All pages of its address, if they were looked for.
        """
        if known is None:
            if not self._may_look(len(self.inputs)):
                return f"not searched for in so many files: give --url {page.url}"
            known = self.find(page.url)
        for copy in known:
            found = copy.page
            if (
                isinstance(found, KeptPage)
                and found.lost is PageVerdict.KEPT
                and _short(found.digest) == page.page_keeper
            ):
                return _described(found.timestamp, copy)
        if described := self._preferred_older(page):
            return described
        for copy_path in dict.fromkeys(copy.path for copy in known):
            copies = [copy for copy in known if copy.path == copy_path]
            if described := self._preferred_dropped(page, copies):
                return described
        if self.made.against:
            return f"a page of {self._names_of_older} was preferred"
        return "its copy is not in the kept files"

    def _preferred_older(self, page: KeptPage) -> str:
        """Look in the older corpora for the page that was preferred."""
        for older in self._older:
            if older.index is None and not self._may_look(len(older.inputs)):
                continue
            for copy in older.find(page.url):
                found = copy.page
                if isinstance(found, KeptPage) and _short(found.digest) == page.page_keeper:
                    described = _described(found.timestamp, copy)
                    return f"{described} (it is in the older corpus {older.folder})"
        return ""

    @functools.cached_property
    def _older(self) -> list["KeptCorpus"]:
        """The older corpora that this one was built against, where their pages were kept."""
        found = []
        for entry in self.made.against:
            with contextlib.suppress(CorpusError):  # it is gone
                older = KeptCorpus(entry.path)
                if older.has_pages and older.made.root_digest == entry.root_digest:
                    found.append(older)
        return found

    @property
    def _names_of_older(self) -> str:
        paths = [entry.path for entry in self.made.against]
        one = "an older corpus" if len(paths) > 1 else "the older corpus"
        return f"{one} {' or '.join(paths)}"

    def _preferred_dropped(self, page: KeptPage, copies: Sequence[Copy]) -> str:
        """Look among pages that the rules dropped, which only recipes like tfds compare."""
        if self.recipe.order != "dedup_first":
            return ""
        compared = [
            copy
            for copy in copies
            if isinstance(copy.page, DroppedPage) and copy.page.verdict not in BEFORE_URLS
        ]
        if not compared:
            return ""
        prints = read_fingerprints(
            layout.fingerprints(self.folder, layout.file_name(compared[0].path))
        )
        key = np.uint64(page_key(normalize_url(page.url)))
        rows = np.flatnonzero(prints.url_identities[prints.cleaned_pages :, 0] == key)
        # Both lists are in the order of the WET file.
        for row, copy in zip((rows + prints.cleaned_pages).tolist(), compared, strict=True):
            if _short(prints.digests[row].tobytes()) == page.page_keeper:
                return _described(prints.timestamps[row], copy)
        return ""

    def keepers(self, page: KeptPage, path: str) -> dict[int, Holder]:
        """Return the page that has the copy of each removed unit, by its keeper.

        Of a near duplicate, that of the page that stays. One that is not found, or not looked for
        because that takes too long, is left out.
        """
        wanted = {keeper for keeper in page.unit_keepers if keeper is not None}
        if page.lost is PageVerdict.NEAR_DUPLICATE and page.page_keeper is not None:
            wanted = {page.page_keeper}
        missing = wanted.difference(self._holders)
        searched = self._find_keepers(missing, path)
        for older in self._older:
            left = missing.difference(self._holders)
            searched = older._find_keepers(left, "") and searched
            for rank in left & older._holders.keys():
                self._holders[rank] = Holder(
                    older._holders[rank].url, f"the older corpus {older.folder}"
                )
        if searched and self.made.against:
            for rank in missing.difference(self._holders):
                self._holders[rank] = Holder(None, self._names_of_older)
        return {rank: self._holders[rank] for rank in wanted & self._holders.keys()}

    def _find_keepers(self, missing: set[int], path: str) -> bool:
        """Note the pages that have these ranks; return False if that takes too long."""
        if self.index is not None:
            name = "pages" if self._ranks_are_keys else "ranks"
            ranks = {
                place: rank
                for rank in missing
                for place in self._places(name, rank)[0]
                if not place.dropped
            }
            for place, copy in self._pages_at(ranks):
                if isinstance(copy.page, KeptPage) and copy.page.lost not in BEFORE_SPANS:
                    self._holders[ranks[place]] = Holder(copy.page.url)
            return True
        for other in sorted(self._paths, key=lambda other: (other != path, other)):
            if not (left := sorted(missing - self._holders.keys())):
                return True
            if not self._may_look(len(left)):
                return False
            for rank, url in self._urls_in(other, left):
                self._holders[rank] = Holder(url)
        return True

    def _urls_in(self, path: str, ranks: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Yield rank and address of pages of a WET file that have one of these ranks."""
        with self.open(path) as file:
            found: Iterable[tuple[int, KeptPage]]
            if self._ranks_are_keys:
                found = ((rank, page) for rank in ranks for page in file.pages(rank))
            else:
                name = layout.file_name(path)
                prints = read_fingerprints(layout.fingerprints(self.folder, name))
                cleaned = prints.ranks[: prints.cleaned_pages]
                rows = np.flatnonzero(np.isin(cleaned, np.array(ranks, np.uint64))).tolist()
                found = ((int(cleaned[row]), file.page(row)) for row in rows)
            for rank, page in found:
                if page.lost not in BEFORE_SPANS:
                    yield rank, page.url

    def _may_look(self, count: int) -> bool:
        if self._lookups < count:
            return False
        self._lookups -= count
        return True


def _in_threads(read: Callable[[_Key], list[_Found]], keys: Sequence[_Key]) -> list[_Found]:
    """Return what a function finds for each key, joined; several keys at a time."""
    if len(keys) < 2:
        return [found for key in keys for found in read(key)]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return [found for each in pool.map(read, keys) for found in each]


def _short(digest: bytes) -> int:
    """Return the name of a keeping page, see pipelines.corpus.removals."""
    return int.from_bytes(digest[:8], "little")


def _described(timestamp: str, copy: Copy) -> str:
    own = f", itself dropped ({copy.page.verdict})" if isinstance(copy.page, DroppedPage) else ""
    return f"the copy of {timestamp} in {copy.path} at offset {copy.page.offset} was preferred{own}"
