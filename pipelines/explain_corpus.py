"""What a finished corpus knows of its pages: where they are, and what deduplication removed."""

import concurrent.futures
import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from c4_filters.explain import Judgement, judge_after_dedup
from c4_filters.language import Language
from c4_filters.pages import CleanPage, PageRules
from c4_filters.recipes import Recipe
from c4_filters.urls import normalize_url, page_key, split_of
from c4_filters.verdicts import PageVerdict, RejectReason, page_verdict
from pipelines import storage
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile
from pipelines.corpus.fingerprints import read_fingerprints
from pipelines.corpus.layout import SPLITS
from pipelines.corpus.manifest import read_manifest
from pipelines.corpus.removals import PAGE_VERDICTS, open_removals
from pipelines.stages.clean_files import BEFORE_URLS, FileSummary, same_content

__all__ = ["Copy", "DroppedPage", "KeptCorpus", "KeptFile", "KeptPage"]

_LOOKUPS = 10_000  # of a page in a kept file, for keepers of copies: some 10 to 30 s
_THREADS = 8  # that read kept files; most of their time is waiting for a file system


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
    lost: PageVerdict  # why it goes before its units are judged; KEPT: it does not
    page_keeper: int | None

    def judge(self, rules: PageRules) -> Judgement:
        """Return what the build made of the page; the note on a duplicate url is empty."""
        if self.lost is not PageVerdict.KEPT:
            return Judgement(CleanPage(self.lost), "")
        lines = self.text.count("\n") + 1
        before = CleanPage(PageVerdict.KEPT, self.text, lines, self.language)
        return judge_after_dedup(rules, before, self.starts, self.removed, self.url)

    def units(self) -> list[tuple[str, bool]]:
        """Return each unit's text, and whether it is removed."""
        ends = [*self.starts[1:], len(self.text)]
        return [
            (self.text[start:end].rstrip(), bool(gone))
            for start, end, gone in zip(self.starts, ends, self.removed, strict=True)
        ]


class DroppedPage(NamedTuple):
    """A page that the rules before deduplication dropped."""

    offset: int
    verdict: str  # a PageVerdict, or that of a rule of one's own

    @property
    def by_own_rule(self) -> bool:
        """Whether a rule of one's own dropped it."""
        return not isinstance(self.verdict, PageVerdict)


class Copy(NamedTuple):
    """A page of an address, as the kept files of one WET file have it."""

    path: str  # of the WET file
    page: KeptPage | DroppedPage


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
        self._opened.close()

    def pages(self, key: int, splits: Iterable[int] = range(len(SPLITS))) -> Iterator[KeptPage]:
        """Yield the pages of a page key, in the order of the file."""
        for rows, first_page, first_unit in self._slices(key, splits):
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
        """Yield address and digest of the pages of a key that were not removed whole."""
        for rows, first_page, _ in self._slices(key, range(len(SPLITS))):
            gone = self._removals.pages(first_page, len(rows)).tolist()
            values = rows.select(["url", "digest"]).to_pylist()
            for row, lost in zip(values, gone, strict=True):
                if not lost:
                    yield row["url"], row["digest"]

    def dropped(self, key: int) -> list[DroppedPage]:
        """Return the pages of a key that the rules before deduplication dropped."""
        dropped = self._cleaned.dropped()
        return [
            DroppedPage(int(dropped.offsets[at]), page_verdict(dropped.names[dropped.codes[at]]))
            for at in np.flatnonzero(dropped.keys == np.uint64(key)).tolist()
        ]

    def _slices(self, key: int, splits: Iterable[int]) -> Iterator[tuple[Any, int, int]]:
        for split in splits:
            yield from self._cleaned.slices(split, key, key + 1)


class KeptCorpus:
    """A finished corpus: its settings and its kept files.

    Attributes:
        folder: Where it is.
        inputs: Its WET files, path to the manifest's entry.
        keep: Which kept files stay, as ``c4 build --keep``.
    """

    def __init__(self, folder: str) -> None:
        """Read the manifest. Raises CorpusError if it is missing or damaged."""
        self.folder = folder
        self._made = read_manifest(folder)
        self.inputs = {file.path: file for file in self._made.inputs}
        self.keep = self._made.keep
        self.max_record_bytes = self._made.settings.max_record_bytes
        self.max_file_bytes = self._made.settings.max_file_bytes
        self._recipe = Recipe.from_mapping(self._made.recipe)
        self._lookups = _LOOKUPS
        self._urls_of_ranks: dict[int, str] = {}

    @property
    def recipe(self) -> Recipe:
        """The recipe that it was built with."""
        return self._recipe

    @property
    def has_pages(self) -> bool:
        """Whether the files that say what became of each page were kept."""
        return self.keep == "all"

    def require_lists(self, config: BuildConfig) -> None:
        """Raise ValueError, naming the option, unless lists and own rules are the build's.

        Own rules that are not allowed now are no fault: the kept files have their verdicts.
        """
        built = self._made.settings.lists
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

        def look(path: str) -> list[Copy]:
            with self.open(path) as file:
                kept = [page for page in file.pages(key, [split]) if _is_of(page.url, wanted)]
                found: list[KeptPage | DroppedPage] = [*kept, *file.dropped(key)]
            return [Copy(path, page) for page in sorted(found, key=_place)]

        searched = sorted(self.inputs) if paths is None else paths
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            return [copy for copies in pool.map(look, searched) for copy in copies]

    def rejects(self, path: str) -> list[dict[str, Any]]:
        """Return the records of a WET file that did not become a page, as the build wrote them.

        Raises:
            ValueError: The list is damaged; the message names it.
        """
        name = layout.rejects(self.folder, layout.file_name(path))
        if not storage.exists(name):
            return []
        try:
            found = [json.loads(line) for line in storage.read_bytes(name).splitlines()]
            for reject in found:
                if (type(reject["offset"]), type(reject["detail"])) != (int, str):
                    raise TypeError(f"{reject['offset']!r:.40}")
                reject["reason"] = RejectReason(reject["reason"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{name} is damaged ({error}): build {self.folder} again") from None
        return found

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
        for copy_path in dict.fromkeys(copy.path for copy in known):
            copies = [copy for copy in known if copy.path == copy_path]
            if described := self._preferred_dropped(page, copies):
                return described
        return "its copy is not in the kept files"

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

    def keepers(self, page: KeptPage, path: str) -> dict[int, str]:
        """Return the address of the page that has the copy of each removed unit, by its keeper.

        One that is not found, or not looked for because that takes too long, is left out.
        """
        return self._urls_of({keeper for keeper in page.unit_keepers if keeper is not None}, path)

    def near_copy(self, page: KeptPage, path: str) -> str:
        """Describe the page that stayed in the place of a near duplicate."""
        assert page.page_keeper is not None
        for url in self._urls_of({page.page_keeper}, path).values():
            return f"much of it is in {url}"
        return "the page that has its text was not found, or not searched for in so many files"

    def _urls_of(self, wanted: set[int], path: str) -> dict[int, str]:
        """Return the address of the page of each rank that is found, first in the file ``path``."""
        missing = wanted.difference(self._urls_of_ranks)
        paths = [path, *(other for other in sorted(self.inputs) if other != path)]
        for other in paths:
            if not missing or not self._may_look(len(missing)):
                break
            found = dict(self._urls_in(other, sorted(missing)))
            self._urls_of_ranks.update(found)
            missing.difference_update(found)
        return {rank: url for rank in wanted if (url := self._urls_of_ranks.get(rank)) is not None}

    def _urls_in(self, path: str, ranks: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Yield rank and address of pages of a WET file that have one of these ranks."""
        recipe = self._recipe
        with self.open(path) as file:
            if recipe.dedup_urls and recipe.order != "dedup_first":  # a page's rank is its key
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


def _is_of(url: str, normalized: str) -> bool:
    return normalize_url(url) == normalized


def _place(page: KeptPage | DroppedPage) -> tuple[int, int]:
    return page.offset, page.inner_offset if isinstance(page, KeptPage) else 0


def _short(digest: bytes) -> int:
    """Return the name of a keeping page, see pipelines.corpus.removals."""
    return int.from_bytes(digest[:8], "little")


def _described(timestamp: str, copy: Copy) -> str:
    own = f", itself dropped ({copy.page.verdict})" if isinstance(copy.page, DroppedPage) else ""
    return f"the copy of {timestamp} in {copy.path} at offset {copy.page.offset} was preferred{own}"
