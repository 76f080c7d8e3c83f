"""What a finished corpus knows of its pages: where they are, and what deduplication removed."""

import bisect
import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from c4_filters.end_marks import sentence_ends
from c4_filters.explain import Judgement, judge_after_dedup
from c4_filters.language import Language
from c4_filters.pages import CleanPage, PageRules, line_starts
from c4_filters.recipes import Recipe
from c4_filters.sentences import SentenceSplitter, sentence_splitter
from c4_filters.spans import unit_identities
from c4_filters.urls import normalize_url, page_key, split_of
from c4_filters.verdicts import PageVerdict, page_verdict
from pipelines import storage
from pipelines.bars import bar
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile, Dropped
from pipelines.corpus.container import DamagedFileError
from pipelines.corpus.derived import CORPORA
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.fingerprints import Fingerprints, read_fingerprints
from pipelines.corpus.layout import SPLITS
from pipelines.corpus.manifest import OPT_OUT, read_manifest
from pipelines.corpus.removals import PAGE_VERDICTS, open_removals
from pipelines.options import option_of
from pipelines.provenance.index import Entries, Index, Place, find_index, pack_places, write_index
from pipelines.stages.clean_files import BEFORE_URLS, FileSummary, same_content

_LOOKUPS = 10_000  # of a page in a kept file, for keepers of copies: some 10 to 30 s
_BEFORE_SPANS = (PageVerdict.DUPLICATE_URL, PageVerdict.OPTED_OUT)  # of pages that keep no copy
_MOST_OPEN = 64  # kept files, between questions
_THREADS = 8  # that read kept files; most of their time is waiting for a file system

_Key = TypeVar("_Key")
_Found = TypeVar("_Found")
#: Returns the 16-byte identities of the units of a text.
UnitsOf: TypeAlias = Callable[[str], Iterable[bytes]]


class KeptPage(NamedTuple):
    """A page that the rules before deduplication kept, and what deduplication made of it."""

    url: str
    text: str
    timestamp: str
    language: Language | None
    offset: int
    inner_offset: int
    digest: bytes
    starts: list[int]  # of its units in text
    removed: npt.NDArray[np.bool_]  # whether deduplication removes each unit
    unit_keepers: list[int | None]  # see pipelines.corpus.removals
    lost: PageVerdict  # why deduplication drops the whole page; KEPT: it does not
    page_keeper: int | None

    def judge(self, rules: PageRules) -> Judgement:
        """Return what the build made of the page; without a note if it was dropped as a whole."""
        if self.lost is not PageVerdict.KEPT:
            return Judgement(CleanPage(self.lost), "")
        lines = self.text.count("\n") + 1
        before = CleanPage(PageVerdict.KEPT, self.text, lines, self.language)
        return judge_after_dedup(rules, before, self.starts, self.removed, self.url)

    def units(self) -> list[tuple[str, bool]]:
        """Return each unit's text, and whether it is removed."""
        bounds = itertools.pairwise([*self.starts, len(self.text)])
        return [
            (self.text[start:end].rstrip(), bool(gone))
            for (start, end), gone in zip(bounds, self.removed, strict=True)
        ]


class DroppedPage(NamedTuple):
    """A page that the rules before deduplication dropped."""

    offset: int
    verdict: str  # a PageVerdict, or that of a user's rule

    @property
    def by_own_rule(self) -> bool:
        """Whether a user's rule dropped it."""
        return not isinstance(self.verdict, PageVerdict)


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


class KeptFile:
    """The cleaned pages and the removals of one WET file. Use as a context manager.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is damaged, or of another build; the message names it.
    """

    def __init__(self, folder: str, path: str) -> None:
        name = layout.file_name(path)
        with contextlib.ExitStack() as opened:
            self._cleaned = opened.enter_context(CleanedFile(layout.cleaned(folder, name)))
            self._removals = opened.enter_context(
                open_removals(layout.removals(folder, name), self._cleaned, None)
            )
            self._opened = opened.pop_all()

    def __enter__(self) -> "KeptFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Safe to call more than once."""
        self._opened.close()

    def pages(self, key: int, splits: Iterable[int] = range(len(SPLITS))) -> Iterator[KeptPage]:
        """Yield the pages of a page key, in the order of the file."""
        for rows, first_page, first_unit in self._slices(key, splits):
            yield from self._pages(rows, first_page, first_unit)

    def page(self, row: int) -> KeptPage:
        """Return one page, by its number in the cleaned file."""
        [page] = self._pages(*self._cleaned.page(row))
        return page

    def _pages(self, rows: Any, first_page: int, first_unit: int) -> Iterator[KeptPage]:
        unit = first_unit
        for number, row in enumerate(rows.to_pylist()):
            starts = row["unit_starts"]
            removed = self._removals.units(unit, len(starts))
            code, probability = row["language"], row["language_probability"]
            yield KeptPage(
                url=row["url"],
                text=row["text"],
                timestamp=row["timestamp"],
                language=None if code is None else Language(code, probability),
                offset=row["offset"],
                inner_offset=row["inner_offset"],
                digest=row["digest"],
                starts=starts,
                removed=removed,
                unit_keepers=[
                    self._removals.keeper_of_unit(unit + at) if gone else None
                    for at, gone in enumerate(removed.tolist())
                ],
                lost=PAGE_VERDICTS[self._removals.pages(first_page + number, 1)[0]],
                page_keeper=self._removals.keeper_of_page(first_page + number),
            )
            unit += len(starts)

    def current_urls(self, key: int) -> Iterator[tuple[str, bytes]]:
        """Yield address and digest of the pages of a key whose spans were compared."""
        for rows, first_page, _ in self._slices(key, range(len(SPLITS))):
            gone = self._removals.pages(first_page, len(rows)).tolist()
            values = rows.select(["url", "digest"]).to_pylist()
            for row, lost in zip(values, gone, strict=True):
                if PAGE_VERDICTS[lost] not in _BEFORE_SPANS:
                    yield row["url"], row["digest"]

    def dropped(self, key: int) -> list[DroppedPage]:
        """Return the pages of a key that the rules before deduplication dropped."""
        rows = np.flatnonzero(self._dropped.keys == np.uint64(key))
        return [self.dropped_page(row) for row in rows.tolist()]

    def dropped_page(self, row: int) -> DroppedPage:
        """Return one page that the rules dropped, by its number in their list."""
        dropped = self._dropped
        return DroppedPage(
            int(dropped.offsets[row]), page_verdict(dropped.names[dropped.codes[row]])
        )

    @functools.cached_property
    def _dropped(self) -> Dropped:
        return self._cleaned.dropped()

    def entries(self, prints: Fingerprints, units: UnitsOf | None) -> Entries:
        """Return what the index lists of the file, with 0 for the file's number.

        Args:
            prints: The file's fingerprints.
            units: Returns the units of a text to list; None: those of the fingerprints.
        """
        pages = self._cleaned.pages
        lost = self._removals.pages(0, pages) > 0
        rows = np.arange(pages)
        per_page = prints.units_per_page[:pages]
        unit_rows = np.repeat(rows, per_page)
        unit_keys = prints.units[: len(unit_rows), 0]
        gone = self._removals.units(0, len(unit_rows)) | lost[unit_rows]
        if units is not None:
            texts = self._texts()
            found = [b"".join(identity[:8] for identity in set(units(text))) for text in texts]
            unit_keys = np.frombuffer(b"".join(found), "<u8")
            unit_rows = np.repeat(rows, [len(keys) // 8 for keys in found])
            gone = lost[unit_rows]
        keys = prints.url_identities[:pages, 0]
        dropped = self._dropped.keys
        entries = {
            "units": (unit_keys, pack_places(unit_rows, gone)),
            "pages": (
                np.concatenate([keys, dropped]),
                np.concatenate([pack_places(rows, lost), pack_places(np.arange(len(dropped)))]),
            ),
        }
        ranks = prints.ranks[:pages]
        if not np.array_equal(ranks, keys):
            entries["ranks"] = ranks, pack_places(rows, lost)
        return entries

    def _texts(self) -> Iterator[str]:
        for split in range(len(SPLITS)):
            for rows, _, _ in self._cleaned.slices(split, 0, 1 << 64):
                yield from rows.column("text").to_pylist()

    def _slices(self, key: int, splits: Iterable[int]) -> Iterator[tuple[Any, int, int]]:
        for split in splits:
            yield from self._cleaned.slices(split, key, key + 1)


class KeptCorpus:
    """A finished corpus: its settings and its kept files. Use as a context manager.

    Attributes:
        folder: Where it is.
        inputs: Its WET files, path to the manifest's entry.
        keep: Which kept files stay, as ``c4 build --keep``.
    """

    def __init__(self, folder: str) -> None:
        """Read the manifest. Raises CorpusError if it is missing or damaged."""
        self.folder = folder
        self._made = read_manifest(folder)
        if self._made.settings.source == CORPORA:
            of = " or ".join(file.path for file in self._made.inputs)
            raise CorpusError(
                f"{folder} was made of other corpora, by c4 mix or c4 head: ask about its pages "
                f"with --corpus {of}"
            )
        self.inputs = {file.path: file for file in self._made.inputs}
        self.keep = self._made.keep
        self._recipe = Recipe.from_mapping(self._made.recipe)
        self._paths = sorted(self.inputs)
        self._opened: dict[str, KeptFile] = {}  # files that stay open, the last used ones last
        self._lookups = _LOOKUPS
        self._holders: dict[int, Holder] = {}  # by rank

    def __enter__(self) -> "KeptCorpus":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index and kept files. Safe to call more than once."""
        for older in self.__dict__.pop("_older", ()):
            older.close()
        while self._opened:
            self._opened.popitem()[1].close()
        if (index := self.__dict__.pop("index", None)) is not None:
            index.close()

    @property
    def recipe(self) -> Recipe:
        """The recipe that it was built with."""
        return self._recipe

    @property
    def has_pages(self) -> bool:
        """Whether the files that say what became of each page were kept."""
        return self.keep == "all"

    @property
    def lacks_pages(self) -> str:
        """Says, for people, that they were not."""
        return f"{self.folder} was built with --keep {self.keep}: it has no cleaned pages"

    def config(self, asked: Mapping[str, Any], file: str | None = None) -> BuildConfig:
        """Return the settings of the build, to judge its pages again.

        Args:
            asked: Fields of `BuildConfig` that were given, such as lists.
            file: One of its WET files.

        Raises:
            OSError: A list cannot be read.
            ValueError: A field differs from the build's, or a list of the build is missing.
        """
        source = self._made.settings.source
        if asked.get("source", source) != source:
            raise ValueError(f"{self.folder} was made of {source}: leave --from out")
        built: dict[str, Any] = {
            "source": source,
            "recipe": self.recipe,
            "max_record_bytes": self._made.settings.max_record_bytes,
            "max_file_bytes": self._made.settings.max_file_bytes,
        }
        if "recipe" in asked and asked["recipe"].digest() != self.recipe.digest():
            raise ValueError(
                f"{self.folder} was built with recipe {self.recipe.name}, not with "
                f"today's {asked['recipe'].name}: leave --recipe out (--corpus)"
            )
        for name in ("max_record_bytes", "max_file_bytes"):
            if asked.get(name, built[name]) != built[name]:
                limit = f"{option_of(BuildConfig, name)} {built[name] >> 20}"
                raise ValueError(f"{self.folder} was built with {limit}: leave it out")
        config = BuildConfig(inputs=(file or "none",), output="none", **{**built, **asked})
        self._require_lists(config)
        return config

    def _require_lists(self, config: BuildConfig) -> None:
        """Raise ValueError, naming the option, unless lists and own rules are the build's.

        Own rules that are not allowed now are no fault: the kept files have their verdicts.
        """
        # Which pages the opt-out list covers is in the removals.
        built = {name: of for name, of in self._made.settings.lists.items() if name != OPT_OUT}
        given: dict[str, str] = config.identity["lists"]
        rules = self._made.settings.rules
        for module, digest in config.identity.get("rules", rules).items():
            if rules.get(module) != digest:
                raise ValueError(
                    f"the module {module} is not the one that {self.folder} was built with: leave "
                    "it out, and its verdicts come from the kept files (--allow-rules)"
                )
        for option in sorted({*built, *given}):
            if option not in given:
                raise ValueError(
                    f"{self.folder} was built with a list of its own: give the same one ({option})"
                )
            if option not in built:
                raise ValueError(f"{self.folder} was built without {option}: leave it out")
            if built[option] != given[option]:
                raise ValueError(
                    f"{given and config.lists()[option]} is not the list that {self.folder} was "
                    f"built with ({option})"
                )

    def other_versions(self, config: BuildConfig) -> str:
        """Return what of the build's software had another version, for people, or nothing."""
        built, now = self._made.versions, config.identity["versions"]
        return ", ".join(
            f"{name} {built.get(name)}" for name in now if built.get(name) != now[name]
        )

    def change_of(self, path: str) -> str:
        """Return how a WET file differs from the one that was built from; empty: it does not."""
        entry = self.inputs[path]
        try:
            found = storage.stat(path)
        except FileNotFoundError:
            return "is gone"
        summary = FileSummary(
            path,
            layout.file_name(path),
            entry.bytes,
            sha256=entry.sha256,
            identity=entry.identity,
        )
        if found.size != entry.bytes or not same_content(summary, found.identity, verify=False):
            return f"has changed since {self.folder} was built"
        return ""

    @functools.cached_property
    def splitter(self) -> SentenceSplitter:
        """Splits texts into sentences as the build did."""
        ends = sentence_ends(self._recipe.end_marks)
        return sentence_splitter(self._recipe.sentence_language, ends)

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

    @property
    def _index_path(self) -> str:
        return layout.why_index(self.folder)

    @functools.cached_property
    def _digest(self) -> str:
        """Name what the kept files depend on."""
        made = self._made.as_dict()
        names = ("recipe", "settings", "versions", "inputs", "against")
        content = [made.get(name) for name in names]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _entries(self, path: str) -> Entries:
        prints = read_fingerprints(layout.fingerprints(self.folder, layout.file_name(path)))
        of_texts = None if self._recipe.dedup_unit == "sentences" else self._units_of
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
            copies = [copy for copy in self._at(places) if paths is None or copy.path in paths]
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
        return sorted(found, key=lambda copy: (copy.path, *_place(copy.page)))

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
            for path, page in self._at(places)
            if isinstance(page, KeptPage) and (units := self._overlapped(page, wanted)) is not None
        ]
        return found, total if found else 0

    def _overlapped(self, page: KeptPage, wanted: str) -> list[int] | None:
        """Return the units of a page that overlap a sentence; None if it is not on the page."""
        text, all_starts = page.text, [page.starts]
        if self._recipe.dedup_unit != "sentences":
            all_starts = [self.splitter.line_starts(text), line_starts(text)]
        found: set[int] | None = None
        for starts in all_starts:
            for start, end in itertools.pairwise([*starts, len(text)]):
                if text[start:end].lower().strip() == wanted:
                    first = bisect.bisect_right(page.starts, start) - 1
                    last = bisect.bisect_left(page.starts, end)
                    found = (found or set()).union(range(max(first, 0), last))
        return None if found is None else sorted(found)

    def _at(self, places: Iterable[Place]) -> list[Copy]:
        """Return the pages at places of the index, file by file."""
        return [copy for _, copy in self._pages_at(places)]

    def _pages_at(self, places: Iterable[Place]) -> list[tuple[Place, Copy]]:
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
        if self._made.against:
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
        for entry in self._made.against:
            with contextlib.suppress(CorpusError):  # it is gone
                older = KeptCorpus(entry.path)
                if older.has_pages and older._made.root_digest == entry.root_digest:
                    found.append(older)
        return found

    @property
    def _names_of_older(self) -> str:
        paths = [entry.path for entry in self._made.against]
        one = "an older corpus" if len(paths) > 1 else "the older corpus"
        return f"{one} {' or '.join(paths)}"

    def _preferred_dropped(self, page: KeptPage, copies: Sequence[Copy]) -> str:
        """Look among pages that the rules dropped, which only recipes like tfds compare."""
        if self._recipe.order != "dedup_first":
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
        if searched and self._made.against:
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
                if isinstance(copy.page, KeptPage) and copy.page.lost not in _BEFORE_SPANS:
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

    @property
    def _ranks_are_keys(self) -> bool:
        return self._recipe.dedup_urls and self._recipe.order != "dedup_first"

    def _urls_in(self, path: str, ranks: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Yield rank and address of pages of a WET file that have one of these ranks."""
        with self.open(path) as file:
            if self._ranks_are_keys:
                for rank in ranks:
                    for url, _ in file.current_urls(rank):
                        yield rank, url
                return
            prints = read_fingerprints(layout.fingerprints(self.folder, layout.file_name(path)))
            cleaned = prints.ranks[: prints.cleaned_pages]
            for row in np.flatnonzero(np.isin(cleaned, np.array(ranks, np.uint64))).tolist():
                digest = prints.digests[row].tobytes()
                for url, found in file.current_urls(int(prints.url_identities[row, 0])):
                    if found == digest:
                        yield int(cleaned[row]), url

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


def _place(page: KeptPage | DroppedPage) -> tuple[int, int]:
    return page.offset, page.inner_offset if isinstance(page, KeptPage) else 0


def _short(digest: bytes) -> int:
    """Return the name of a keeping page, see pipelines.corpus.removals."""
    return int.from_bytes(digest[:8], "little")


def _described(timestamp: str, copy: Copy) -> str:
    own = f", itself dropped ({copy.page.verdict})" if isinstance(copy.page, DroppedPage) else ""
    return f"the copy of {timestamp} in {copy.path} at offset {copy.page.offset} was preferred{own}"
