"""What the kept files of a corpus tell: which pages were dropped and why, and duplicates."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from c4_filters import spans
from c4_filters.explain import ExplainedPage, explain_page, judge_after_dedup
from c4_filters.pages import CleanPage, PageRules, RawPage
from c4_filters.recipes import Recipe
from c4_filters.urls import normalize_url, page_key
from c4_filters.verdicts import LineVerdict, PageVerdict
from pipelines import storage
from pipelines.bars import bar
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile, CleanedSource, removed_per_page, units_in
from pipelines.corpus.errors import one_line
from pipelines.corpus.fingerprints import Fingerprints, read_fingerprints
from pipelines.corpus.manifest import OPT_OUT, WET, InputFile, Manifest
from pipelines.corpus.opened import Opened
from pipelines.corpus.removals import PAGE_VERDICTS
from pipelines.printing import counted
from pipelines.provenance.explainer import pages_from
from pipelines.report.counting import GroupSizes, Repeated, Smallest, mixed
from pipelines.report.text import excerpt
from pipelines.stages.clean_files import read_rejects
from pipelines.wet.results import Reject, UnreadableWetError

_SPLITS = range(len(layout.SPLITS))
_ALL_KEYS = (0, 1 << 64)
_LINES, _LINE_CHARS, _TEXT_CHARS = 12, 400, 1_500  # of a sampled page
_REPEATED = 20
_PAGES_OF_SPAN = 6
_WHY = {
    PageVerdict.DUPLICATE_URL: "another page of this address was preferred",
    PageVerdict.NEAR_DUPLICATE: "a page that was kept has nearly the same text",
}
#: Whose pages no report shows: their owners asked not to.
_NOT_SHOWN = frozenset({PageVerdict.OPTED_OUT})
_AFTER_DEDUP = (PageVerdict.EMPTY_AFTER_DEDUP, PageVerdict.FEW_SENTENCES_AFTER_DEDUP)


@dataclasses.dataclass
class Dropped:
    """What the kept files tell.

    Attributes:
        samples: By verdict, pages as ``url``, ``note``, ``lines`` (verdict and text of each line),
            ``marks`` (texts to highlight).
        url_groups: ``{copies: addresses}`` of addresses with several pages.
        span_groups: ``{copies: spans}`` of spans that occur several times.
        urls_one_in: How many groups stand for one counted group.
        spans_one_in: The same for spans.
        repeated: The most repeated spans as ``text``, ``copies``, ``pages``.
        repeated_missing: Copies that the counts of these may lack.
        notes: What cannot be shown, and why.
    """

    samples: dict[str, list[dict[str, Any]]]
    url_groups: dict[int, int] = dataclasses.field(default_factory=dict)
    span_groups: dict[int, int] = dataclasses.field(default_factory=dict)
    urls_one_in: int = 1
    spans_one_in: int = 1
    repeated: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    repeated_missing: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)


class _Place(NamedTuple):
    """Where the record of a dropped page is."""

    path: str
    offset: int
    key: int


def sample(
    url: str, note: str, lines: list[list[str]], marks: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a page as the report shows it, see `Dropped`."""
    return {"url": url, "note": note, "lines": lines, "marks": list(marks)}


def gather_dropped(folder: str, made: Manifest, most: int) -> Dropped:
    """Read the kept files of a corpus.

    Args:
        folder: Of the corpus.
        made: Its manifest.
        most: Pages to sample for each verdict.

    Raises:
        OSError: A kept file cannot be read.
        ValueError: A kept file is damaged; the message names it.
    """
    if made.keep != "all":
        return Dropped(
            _samples_of_manifest(made),
            notes=[
                f"The corpus was built with --keep {made.keep}: without its cleaned files only a "
                "few pages per rule are shown, and no duplicates."
            ],
        )
    return _Reader(folder, made, most).read()


def _samples_of_manifest(made: Manifest) -> dict[str, list[dict[str, Any]]]:
    return {
        verdict: [
            sample(page["url"], page["evidence"], [["", line] for line in page["text"].split("\n")])
            for page in pages
        ]
        for verdict, pages in made.samples.items()
        if verdict not in _NOT_SHOWN
    }


class _Reader:
    def __init__(self, folder: str, made: Manifest, most: int) -> None:
        self._folder = folder
        self._made = made
        self._most = most
        self._recipe = Recipe.from_mapping(made.recipe)
        self._rules = PageRules.without_lists(self._recipe)
        self._places: dict[str, Smallest[_Place]] = {}
        self._samples: dict[str, Smallest[dict[str, Any]]] = {}
        self._urls, self._spans, self._most_repeated = GroupSizes(), GroupSizes(), Repeated()

    def read(self) -> Dropped:
        names = [(file, layout.file_name(file.path)) for file in self._made.inputs]
        with bar("kept files", len(names), leave=False) as progress:
            for file, name in names:
                with Opened(CleanedSource.of(self._folder, name), None) as opened:
                    self._take_dropped(file.path, opened.cleaned)
                    live, gone = self._take_removed(opened)
                self._take_spans(name, live, gone)
                progress.update()
        found = Dropped({})
        found.samples = self._read_records(found.notes)
        found.samples |= {verdict: chosen.values() for verdict, chosen in self._samples.items()}
        found.url_groups = {1 + size: n for size, n in self._urls.sizes().items()}
        found.span_groups = {1 + size: n for size, n in self._spans.sizes().items()}
        found.urls_one_in, found.spans_one_in = self._urls.one_in, self._spans.one_in
        found.repeated = self._read_repeated([name for _, name in names])
        found.repeated_missing = self._most_repeated.missing
        if self._made.counts.pages_dropped.get(PageVerdict.OPTED_OUT):
            found.notes.append("Pages of the opt-out list are counted, and not shown.")
        if self._made.settings.lists.keys() - {OPT_OUT}:
            found.notes.append(
                "The build used lists of its own: reasons that depend on them may be missing below "
                "(c4 explain takes the lists)."
            )
        return found

    # ------------------------------------------------------------------------------- samples

    def _take_dropped(self, path: str, file: CleanedFile) -> None:
        """Sample the pages that the rules dropped, by their places in the WET file."""
        dropped = file.dropped()
        ranks = mixed(dropped.keys ^ mixed(dropped.offsets))
        for code, verdict in enumerate(dropped.names):
            if verdict in _NOT_SHOWN:
                continue
            chosen = self._places.setdefault(verdict, Smallest(self._most))
            bound = np.uint64(min(chosen.bound, (1 << 64) - 1))
            rows = np.flatnonzero((dropped.codes == code) & (ranks < bound))
            for row in rows.tolist():
                place = _Place(path, int(dropped.offsets[row]), int(dropped.keys[row]))
                chosen.add(int(ranks[row]), place)

    def _take_removed(self, opened: Opened) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Sample what deduplication dropped.

        Returns:
            Whether each page takes part in the deduplication of spans, in the order of the file;
            whether each unit is removed.
        """
        live, gone = [np.empty(0, np.bool_)], [np.empty(0, np.bool_)]
        row = 0
        for pages, codes, units in opened.slices(_SPLITS, *_ALL_KEYS):
            live.append(codes == 0)
            gone.append(units)
            self._take_pages(opened, pages, codes, units, row)
            row += len(pages)
        return np.concatenate(live), np.concatenate(gone)

    def _take_pages(
        self,
        opened: Opened,
        pages: Any,
        codes: npt.NDArray[np.uint8],
        units: npt.NDArray[np.bool_],
        first: int,
    ) -> None:
        ranks = mixed(pages.column("page_key").to_numpy())
        for at in np.flatnonzero(codes).tolist():
            verdict = PAGE_VERDICTS[codes[at]]
            if verdict is PageVerdict.DUPLICATE_URL:
                keeper = opened.removals.keeper_of_page(first + at)
                self._urls.add(np.array([keeper or 0], np.uint64))
            if verdict in _NOT_SHOWN:
                continue
            chosen = self._samples.setdefault(verdict, Smallest(self._most))
            if chosen.wants(int(ranks[at])):
                text = pages.column("text")[at].as_py()
                chosen.add(int(ranks[at]), _shown(pages, at, _WHY[verdict], _plain(text)))
        bounds, _ = units_in(pages)
        removed = removed_per_page(bounds, units)
        judged = self._rules.are_judged_after_dedup(np.diff(bounds), removed) & (codes == 0)
        for at in np.flatnonzero(judged).tolist():
            self._take_judged(pages, at, units[bounds[at] : bounds[at + 1]], int(ranks[at]))

    def _take_judged(self, pages: Any, at: int, gone: npt.NDArray[np.bool_], rank: int) -> None:
        """Sample a page that lost some of its units, if it was dropped for that."""
        chosen = [self._samples.setdefault(name, Smallest(self._most)) for name in _AFTER_DEDUP]
        if not any(each.wants(rank) for each in chosen):
            return
        text, url = pages.column("text")[at].as_py(), pages.column("url")[at].as_py()
        starts = pages.column("unit_starts")[at].as_py()
        lines = text.count("\n") + 1
        judgement = judge_after_dedup(
            self._rules, CleanPage(PageVerdict.KEPT, text, lines, None), starts, gone, url
        )
        verdict = judgement.result.verdict
        if verdict is PageVerdict.KEPT:
            return
        units = [
            [LineVerdict.DUPLICATE if is_gone else LineVerdict.KEPT, text[begin:end].strip()]
            for begin, end, is_gone in zip(starts, [*starts[1:], len(text)], gone, strict=True)
        ]
        alike = self._samples.setdefault(verdict, Smallest(self._most))
        alike.add(rank, _shown(pages, at, judgement.note, _cut(units)))

    def _read_records(self, notes: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Read the sampled records from the WET files and explain them."""
        if self._made.settings.source != WET:
            notes.append(
                "The inputs are not WET files: only a few pages that rules dropped are shown."
            )
            return _samples_of_manifest(self._made)
        wanted: dict[str, list[tuple[str, int, _Place]]] = {}
        for verdict, chosen in self._places.items():
            for order, place in enumerate(chosen.values()):
                wanted.setdefault(place.path, []).append((verdict, order, place))
        inputs = {file.path: file for file in self._made.inputs}
        found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in self._places}
        lost: dict[str, list[str]] = {}  # the files of the pages, by reason
        with bar("records", sum(map(len, wanted.values()))) as progress:
            for path in sorted(wanted):
                places = sorted(wanted[path], key=lambda each: each[2].offset)
                pages = self._read_places(inputs[path], [each[2] for each in places])
                for (verdict, order, _), page in zip(places, pages, strict=True):
                    progress.update()
                    if isinstance(page, str):
                        lost.setdefault(page, []).append(path)
                    else:
                        found[verdict][order] = _explained(page, verdict, self._rules)
        for reason, paths in sorted(lost.items()):
            what = f"{counted(len(paths), 'sampled page')} {'is' if len(paths) == 1 else 'are'}"
            others = len(set(paths)) - 1
            more = f" and {counted(others, 'more file')}" if others else ""
            notes.append(f"{what} not shown, because WET files {reason}: {paths[0]}{more}.")
        samples = {name: [pages[n] for n in sorted(pages)] for name, pages in found.items()}
        if lost:
            known = _samples_of_manifest(self._made)
            samples = {name: pages or known.get(name, []) for name, pages in samples.items()}
        return samples

    def _read_places(self, file: InputFile, places: Sequence[_Place]) -> Iterator[RawPage | str]:
        """Yield the page at each place, or what happened to its WET file, as in the note."""
        try:
            info = storage.stat(file.path)
        except OSError as error:
            yield from [f"cannot be read ({one_line(error, file.path)})"] * len(places)
            return
        if not file.may_be(info):
            yield from ["have changed since the build"] * len(places)
            return
        with storage.open_raw(file.path, scattered=True) as stream:
            for place in places:
                yield self._page_at(stream, place) or "no longer hold them"

    def _page_at(self, stream: BinaryIO, place: _Place) -> RawPage | None:
        settings = self._made.settings
        limits = settings.max_record_bytes, settings.max_file_bytes
        with contextlib.suppress(UnreadableWetError):
            for found in pages_from(stream, place.offset, self._recipe, limits):
                if isinstance(found, Reject) or found.place.offset > place.offset:
                    return None
                if page_key(normalize_url(found.page.url)) == place.key:
                    return found.page
        return None

    # ---------------------------------------------------------------------------- duplicates

    def _take_spans(
        self, name: str, live: npt.NDArray[np.bool_], gone: npt.NDArray[np.bool_]
    ) -> None:
        if self._recipe.dedup_unit == "none":
            return
        prints = read_fingerprints(layout.fingerprints(self._folder, name))
        found = _removed_spans(prints, live, gone, self._recipe.dedup_window)
        if len(found):
            self._spans.add(found[:, 0])
            self._most_repeated.add(found)

    def _read_repeated(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return text and pages of the most repeated spans, which takes a second pass."""
        top = self._most_repeated.top(_REPEATED)
        if not top:
            return []
        window = self._recipe.dedup_window
        wanted = {key: number for number, (key, _) in enumerate(top)}
        heads = np.array([key[0] for key, _ in top], np.uint64)
        shown: list[dict[str, Any]] = [{"text": "", "copies": n + 1, "pages": []} for _, n in top]
        missing = set(range(len(top)))
        with bar("repeated spans", len(names), leave=False) as progress:
            for name in names:
                if not missing:
                    break
                progress.update()
                prints = read_fingerprints(layout.fingerprints(self._folder, name))
                pages = prints.units_per_page
                of_file = spans.span_identities(prints.units, pages, window)
                begins = np.cumsum(pages) - pages
                likely = np.flatnonzero(np.isin(of_file.ids[:, 0], heads)).tolist()
                numbers = {hit: wanted.get(tuple(of_file.ids[hit].tolist())) for hit in likely}
                if missing.isdisjoint(numbers.values()):
                    continue
                with CleanedFile(layout.cleaned(self._folder, name)) as file:
                    for hit, number in numbers.items():
                        if number is None or number not in missing:
                            continue
                        page = int(of_file.page[hit])
                        unit = int(of_file.first_unit[hit] - begins[page])
                        self._add_place(file, prints, page, unit, shown[number])
                        if len(shown[number]["pages"]) == _PAGES_OF_SPAN:
                            missing.discard(number)
        return [span for span in shown if span["pages"]]

    def _add_place(
        self, file: CleanedFile, prints: Fingerprints, page: int, unit: int, span: dict[str, Any]
    ) -> None:
        rows, _, _ = file.page(page)
        [row] = rows.select(["url", "text", "unit_starts"]).to_pylist()
        if row["url"] not in span["pages"]:
            starts = [*row["unit_starts"], len(row["text"])]
            end = min(unit + self._recipe.dedup_window, len(starts) - 1)
            text = row["text"][starts[unit] : starts[end]].strip()
            span["text"] = span["text"] or excerpt(text, _TEXT_CHARS)
            span["pages"].append(row["url"])


def _removed_spans(
    prints: Fingerprints,
    live: npt.NDArray[np.bool_],
    gone: npt.NDArray[np.bool_],
    window: int,
) -> npt.NDArray[np.uint64]:
    """Return the identities of the removed copies of spans in a file, ``[copies, 2]``.

    A copy is a span all of whose units are removed. Where two removed copies overlap, a span
    between them that occurs only once is taken for one, too; that is rare.
    """
    in_dedup = np.zeros(len(prints.units_per_page), np.bool_)
    in_dedup[: len(live)] = live
    unit_is_live = np.repeat(in_dedup, prints.units_per_page)
    of_file = spans.span_identities(
        prints.units[unit_is_live], prints.units_per_page[in_dedup], window
    )
    removed = np.zeros(len(prints.units), np.bool_)
    removed[: len(gone)] = gone
    removed = removed[unit_is_live]
    before = np.concatenate([[0], np.cumsum(removed)])
    whole = before[of_file.first_unit + window] - before[of_file.first_unit] == window
    ids: npt.NDArray[np.uint64] = of_file.ids[whole]
    return ids


def _explained(page: RawPage, verdict: str, rules: PageRules) -> dict[str, Any]:
    explained = explain_page(page, rules)
    if explained.before.verdict != verdict:  # a list of the user's decided, or another version
        return sample(page.url, "", _plain(page.text))
    evidence = explained.before.evidence if verdict == PageVerdict.BAD_WORDS else None
    marks = [evidence] if evidence else []
    return sample(page.url, explained.note, _cut(_lines(explained), evidence), marks)


def _lines(explained: ExplainedPage) -> list[list[str]]:
    return [[str(line.verdict or ""), line.text] for line in explained.lines if line.text.strip()]


def _cut(lines: list[list[str]], evidence: str | None = None) -> list[list[str]]:
    """Return the lines that show why, at most a dozen."""
    at = 0
    if evidence:
        at = next((n for n, (_, text) in enumerate(lines) if evidence in text.lower()), 0)
    else:  # a line that drops its page
        fatal = (LineVerdict.LOREM_IPSUM, LineVerdict.CURLY_BRACKET)
        at = next((n for n, (verdict, _) in enumerate(lines) if verdict in fatal), 0)
    begin = max(0, min(at - 2, len(lines) - _LINES))
    cut = []
    for verdict, text in lines[begin : begin + _LINES]:
        place = max(0, text.lower().find(evidence)) if evidence else max(0, text.find("{"))
        cut.append([verdict, excerpt(text, _LINE_CHARS, place)])
    return cut


def _plain(text: str) -> list[list[str]]:
    return [["", line] for line in excerpt(text.strip(), _TEXT_CHARS).split("\n")[:_LINES]]


def _shown(pages: Any, at: int, note: str, lines: list[list[str]]) -> dict[str, Any]:
    return sample(pages.column("url")[at].as_py(), note, lines)


def gather_rejects(folder: str, inputs: Iterable[InputFile], most: int) -> list[dict[str, Any]]:
    """Sample the records that never became pages, as ``file``, ``offset``, ``reason``, ``detail``.

    Raises:
        ValueError: A list of rejects is damaged; the message names it.
    """
    chosen: Smallest[dict[str, Any]] = Smallest(most)
    kept = set(storage.listdir(storage.join(folder, "rejects")))
    for number, file in enumerate(inputs):
        if storage.last_part(layout.rejects(folder, layout.file_name(file.path))) not in kept:
            continue
        for values in read_rejects(folder, file.path):
            reject = {name: str(values[name]) for name in ("offset", "reason", "detail")}
            rank = int(mixed(values["offset"] ^ int(mixed(number))))
            chosen.add(rank, {"file": storage.last_part(file.path), **reject})
    return chosen.values()
