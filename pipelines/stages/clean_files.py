"""WET file -> cleaned pages and fingerprints: the expensive stage, and the unit of resume."""

import array
import dataclasses
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import mmh3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from c4_filters.dates import date_key
from c4_filters.own_rules import OwnRuleError
from c4_filters.pages import CleanPage, PageRules, RawPage, tf_pages
from c4_filters.recipes import Recipe
from c4_filters.spans import unit_identities
from c4_filters.urls import identity_key, md5_key, normalize_url, split_of, url_identity
from c4_filters.verdicts import PageVerdict, RejectReason
from pipelines import storage
from pipelines.collector import without_collector
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.cleaned import (
    CLEANED_SCHEMA,
    SHARD_ORDER,
    CleanedFile,
    Dropped,
    shard_order,
    write_cleaned,
)
from pipelines.corpus.columns import ends, joined
from pipelines.corpus.container import OtherVersionError
from pipelines.corpus.digests import sha256_of
from pipelines.corpus.errors import one_line
from pipelines.corpus.fingerprints import (
    FINGERPRINT_SCHEMA,
    read_fingerprints,
    write_fingerprints,
)
from pipelines.corpus.manifest import OPT_OUT, InputFile
from pipelines.corpus.shard_files import added
from pipelines.corpus.typed_json import decode
from pipelines.imports import sources
from pipelines.stages.samples import Samples
from pipelines.wet.records import read_wet
from pipelines.wet.results import MAX_FILE_BYTES, ReadStats, Reject, UnreadableWetError, WetRecord

_REJECTS_LISTED = 10_000  # per file; all are counted
_PROGRESS_EVERY_S = 0.3
# Each rule's tables stay in the processor's cache over so many pages: a tenth of the CPU less than
# with 64 (benchmarks/account.py).
_PAGES_AT_A_TIME = 1024
_CHARS_AT_A_TIME = 8 << 20
_MOST_VERDICTS = 256  # of a file: a byte each
#: Verdicts that TF reaches before it deduplicates urls.
BEFORE_URLS = frozenset({PageVerdict.NO_TEXT, PageVerdict.TOO_LONG, PageVerdict.DOMAIN})
#: Why a file is cleaned again despite an existing output: FileSummary.recleaned.
DAMAGED = "damaged"
OLDER_FORMAT = "older format"
CHANGED_INPUT = "changed input"
OTHER_SETTINGS = "other settings"
INCOMPLETE = "incomplete"  # a run ended before it had written all that belongs together
_NOT_OF_CLEANING = ("formats", "shards", "provenance", "against")  # entries of BuildConfig.identity
_UUID = re.compile(r"<?urn:uuid:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})>?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class FileSummary:
    """The result of cleaning one WET file. Workers return it; the cleaned file holds it."""

    path: str
    name: str  # of its outputs, see pipelines.corpus.layout
    bytes: int  # as stored
    sha256: str = ""
    pages_read: int = 0
    pages_kept: int = 0
    text_bytes: int = 0  # UTF-8, of kept pages
    validation_pages: int = 0
    fingerprint_pages: int = 0
    units: int = 0
    lines_read: int = 0
    lines_kept: int = 0
    pages_dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    lines_dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    records_rejected: dict[str, int] = dataclasses.field(default_factory=dict)
    records_of_other_types: dict[str, int] = dataclasses.field(default_factory=dict)
    wrong_lengths: int = 0  # records kept whole although their Content-Length is wrong
    samples: dict[str, list[dict[str, str]]] = dataclasses.field(default_factory=dict)
    cpu_s: float = 0.0
    unreadable: str = ""  # why nothing could be read; empty for a file that was cleaned
    resumed: bool = False
    identity: str = ""  # of the stored content, see storage.FileInfo
    recleaned: str = ""  # why an output that was there could not be used: DAMAGED and others


def read_summary(values: dict[str, Any]) -> FileSummary:
    """Return the summary that a cleaned file has. Raises ValueError if it is of another form."""
    summary: FileSummary = decode(FileSummary, values)
    if unknown := values.keys() - vars(summary).keys():
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    return summary


def clean_identity(config: BuildConfig) -> str:
    """Return a digest of all that a cleaned file depends on besides its WET file."""
    needed = {key: value for key, value in config.identity.items() if key not in _NOT_OF_CLEANING}
    needed["lists"] = {key: value for key, value in needed["lists"].items() if key != OPT_OUT}
    return hashlib.sha256(json.dumps(needed, sort_keys=True).encode()).hexdigest()[:16]


def clean_file(
    path: str,
    size: int,
    output: str,
    rules: PageRules,
    identity: str,
    max_record_bytes: int,
    progress: Callable[[int, int], None] | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
    content: str = "",
    verify: bool = False,
    new: bool = False,
    source: str = sources.WET,
) -> FileSummary:
    """Clean one file, unless a good output of the same recipe is there already.

    Writes rejects, fingerprints and, last, cleaned pages: the cleaned file is the mark that the
    others are whole. ``progress`` is called now and then with bytes and pages read. ``content`` is
    the identity of the WET file (`storage.FileInfo`); where it is not the one that was cleaned, or
    with ``verify``, the file's SHA-256 decides whether it is cleaned again.

    With ``new``, no earlier build has left anything of this WET file: that saves requests.

    An output that is damaged, or was made by another version, from another file or with other
    settings, is made again; ``recleaned`` says why.

    A file of which nothing can be read becomes a summary with ``unreadable`` set. Raises OSError
    when an output cannot be read or written.
    """
    name = layout.file_name(path)
    found = _finished(path, size, output, name, identity, new)
    if isinstance(found, FileSummary):
        if same_content(found, content, verify):
            return dataclasses.replace(found, identity=content)
        found = CHANGED_INPUT
    file, limits = storage.FileInfo(path, size, content), (max_record_bytes, max_file_bytes)
    cleaned = _clean(file, output, rules, identity, limits, progress, new, source)
    if found == OLDER_FORMAT:
        _remove_of_0_1(path, output)
    return dataclasses.replace(cleaned, recleaned="" if cleaned.unreadable else found)


def same_content(done: FileSummary | InputFile, content: str, verify: bool) -> bool:
    """Return whether a WET file is the one that was cleaned, of the same path and size."""
    if not verify and (done.identity == content or not (done.identity and content)):
        return True
    try:
        return sha256_of(done.path) == done.sha256
    except OSError:
        return False  # cleaning it will say why


@without_collector()
def _clean(
    file: storage.FileInfo,
    output: str,
    rules: PageRules,
    identity: str,
    limits: tuple[int, int],
    progress: Callable[[int, int], None] | None,
    new: bool,
    source: str,
) -> FileSummary:
    path, size, content = file
    name = layout.file_name(path)

    def unreadable(why: str) -> FileSummary:
        return FileSummary(path, name, size, unreadable=why, identity=content)

    started = time.process_time()
    cleaner = _Cleaner(rules, path)
    stats = ReadStats()
    try:
        stream = storage.open_raw(path)
    except OSError as error:
        return unreadable(one_line(error, path))
    with stream:
        pages = read_pages(stream, stats, rules.recipe, cleaner.counts, *limits, source, path)
        next_report = time.monotonic() + _PROGRESS_EVERY_S
        while True:
            try:
                page = next(pages, None)
            except (UnreadableWetError, OSError) as error:
                return unreadable(one_line(error, path))
            if page is None:
                break
            if isinstance(page, Reject):
                cleaner.reject(page)
            else:
                cleaner.add(*page)
            if progress is not None and time.monotonic() > next_report:
                progress(stream.tell(), cleaner.pages_read)
                next_report = time.monotonic() + _PROGRESS_EVERY_S
    if changed := _changed(path, size, content, stats):
        return unreadable(changed)
    cleaned, fingerprints = cleaner.tables()
    lines_read = cleaner.counts.pop("lines_read", 0)  # the others are lines dropped, by verdict
    summary = FileSummary(
        path=path,
        name=name,
        bytes=size,
        sha256=stats.sha256,
        pages_read=cleaner.pages_read,
        pages_kept=len(cleaned),
        text_bytes=pc.sum(pc.binary_length(cleaned["text"])).as_py() or 0,
        validation_pages=pc.sum(cleaned["validation"]).as_py() or 0,
        fingerprint_pages=len(fingerprints),
        units=cleaner.unit_count,
        lines_read=lines_read,
        lines_kept=pc.sum(cleaned["lines"]).as_py() or 0,
        pages_dropped=added([cleaner.pages_dropped]),
        lines_dropped=added([cleaner.counts]),
        records_rejected=added([cleaner.records_rejected]),
        records_of_other_types=added([stats.other_records]),
        wrong_lengths=stats.wrong_lengths,
        samples=cleaner.samples,
        cpu_s=time.process_time() - started,
        identity=content,
    )
    if cleaner.rejects or not new:
        _write_rejects(layout.rejects(output, name), path, cleaner.rejects, source)
    write_fingerprints(
        layout.fingerprints(output, name), fingerprints, len(cleaned), stats.sha256, identity
    )
    write_cleaned(
        layout.cleaned(output, name),
        cleaned,
        {"identity": identity, "file": vars(summary)},
        cleaner.dropped(),
    )
    return dataclasses.replace(summary, cpu_s=time.process_time() - started)


def _changed(path: str, size: int, content: str, stats: ReadStats) -> str:
    """Return how the file has changed since the build began; empty if it has not."""
    try:
        if stats.bytes_read == size and (
            not (content and storage.is_local(path))  # a stream of a remote file is of one version
            or storage.stat(path).identity == content
            or sha256_of(path) == stats.sha256  # touched, or replaced before it was read
        ):
            return ""
    except OSError as error:
        return one_line(error, path)
    return (
        f"has changed while it was read ({stats.bytes_read:,} bytes read, {size:,} when the build "
        "began): run again when it is whole"
    )


def finished_summary(path: str, size: int, output: str, identity: str) -> FileSummary | None:
    """Return the summary of a WET file that is cleaned already, or None."""
    found = _finished(path, size, output, layout.file_name(path), identity)
    return found if isinstance(found, FileSummary) else None


def _finished(
    path: str, size: int, output: str, name: str, identity: str, new: bool = False
) -> FileSummary | str:
    """Return the summary of a good output, or else the value of ``FileSummary.recleaned``.

    Every byte of the cleaned file and of the fingerprints is checked, so that a damaged file is
    rebuilt now and not found hours later by the task of a shard.
    """
    cleaned, fingerprints = layout.cleaned(output, name), layout.fingerprints(output, name)
    try:
        with CleanedFile(cleaned) as file:
            file.verify()
            found_identity, values = file.summary["identity"], file.summary["file"]
            pages = file.pages
    except FileNotFoundError:
        older = not new and storage.exists(layout.cleaned(output, layout.file_name_of_0_1(path)))
        return OLDER_FORMAT if older else ""
    except OtherVersionError:
        return OLDER_FORMAT
    except (ValueError, KeyError):
        return DAMAGED
    try:
        prints = read_fingerprints(fingerprints)
    except FileNotFoundError:
        return INCOMPLETE
    except OtherVersionError:
        return OLDER_FORMAT
    except (ValueError, KeyError):
        return DAMAGED
    try:
        summary = read_summary(values)
    except ValueError:
        return OLDER_FORMAT  # every byte is as it was written
    if (summary.path, summary.bytes) != (path, size):
        return CHANGED_INPUT
    if found_identity != identity:
        return OTHER_SETTINGS
    if (prints.cleaned_pages, prints.source, prints.identity) != (pages, summary.sha256, identity):
        return INCOMPLETE  # fingerprints of a later run that ended before it wrote the pages
    return dataclasses.replace(summary, resumed=True)


def _remove_of_0_1(path: str, output: str) -> None:
    """Remove what version 0.1 wrote for a WET file, whose names no later version uses."""
    name = layout.file_name_of_0_1(path)
    places = (layout.cleaned, layout.fingerprints, layout.removals, layout.rejects)
    storage.remove(place(output, name) for place in places)


class Place(NamedTuple):
    """Where a page's record is in its WET file."""

    offset: int
    inner_offset: int
    record_id: bytes | None


def read_pages(
    stream: BinaryIO,
    stats: ReadStats,
    recipe: Recipe,
    counts: Counter[str],
    max_record_bytes: int,
    max_file_bytes: int,
    source: str = sources.WET,
    path: str = "",
) -> Iterator[tuple[Place, RawPage] | Reject]:
    """Read a WET file, or one of another source, as a build with these settings does.

    Args:
        stream: The file, see `pipelines.wet.records.read_wet`, which says what is raised.
        stats: The reader's counts.
        recipe: What decides how records are read.
        counts: Gets the lines that a recipe with ``drop_parser_accidents`` drops while reading.
        max_record_bytes: Larger records are rejected.
        max_file_bytes: The rest of a file that unpacks to more is rejected.
        source: What the file is, see `pipelines.imports.sources`. The place of a page that is not
            of a WET file is its number in its file.
        path: The file, for sources other than WET files.
    """
    found: Iterator[tuple[Place, RawPage] | Reject]
    if source == sources.WET:
        records = read_wet(
            stream,
            stats,
            max_record_bytes=max_record_bytes,
            max_file_bytes=max_file_bytes,
            as_tf=recipe.drop_parser_accidents,
        )
        found = (each if isinstance(each, Reject) else _placed(each) for each in records)
    else:
        limits = (max_record_bytes, max_file_bytes)
        found = (
            each if isinstance(each, Reject) else (Place(each.number, 0, None), each.page)
            for each in sources.read_source(source, path, stream, stats, limits)
        )
    return _tf_parts(found, counts) if recipe.drop_parser_accidents else found


def _placed(record: WetRecord) -> tuple[Place, RawPage]:
    """Return a record's place, and its page as a recipe's rules get it."""
    found = _UUID.fullmatch(record.record_id)
    record_id = bytes.fromhex(found[1].replace("-", "")) if found else None
    return Place(record.offset, record.inner_offset, record_id), RawPage(
        record.url, record.timestamp, record.content_type, record.content_length, record.text
    )


def _tf_parts(
    found: Iterable[tuple[Place, RawPage] | Reject], counts: Counter[str]
) -> Iterator[tuple[Place, RawPage] | Reject]:
    """Yield the pages that TF makes of each record, several or none, see `tf_pages`."""
    for each in found:
        if isinstance(each, Reject):
            yield each
            continue
        place, page = each
        lines_dropped: Counter[str] = Counter()
        parts = tf_pages(page, lines_dropped)
        counts["lines_read"] += lines_dropped.total()
        counts.update(lines_dropped)
        for part in parts:
            if not part.url:
                detail = "page begun by a body line WARC/1.0"
                yield Reject(place.offset, RejectReason.NO_URL, detail)
            # A WET record has a date, a line of JSON perhaps not.
            elif page.timestamp and not part.timestamp:
                yield Reject(place.offset, RejectReason.NO_DATE, part.url)
            else:
                yield place, part


class _Cleaner:
    """Collects the pages of one file: judged, cut into units, fingerprinted."""

    def __init__(self, rules: PageRules, path: str = "") -> None:
        self._rules = rules
        self._path = path  # of the file, for messages
        self._recipe: Recipe = rules.recipe
        self._all_urls = self._recipe.order == "dedup_first"
        self.counts: Counter[str] = Counter()
        self.pages_dropped: Counter[str] = Counter()
        self.records_rejected: Counter[str] = Counter()
        self.rejects: list[Reject] = []
        self.samples = Samples()
        self.pages_read = 0
        self.unit_count = 0
        self._waiting: list[RawPage] = []
        self._waiting_chars = 0
        self._places: list[Place] = []  # of the waiting pages
        self._dropped_keys = array.array("Q")
        self._dropped_offsets = array.array("Q")
        self._dropped_codes = bytearray()
        self._codes: dict[str, int] = {}  # of verdicts, in order of their first page
        self._kept: list[tuple[Any, ...]] = []  # rows of CLEANED_SCHEMA
        self._kept_prints: list[tuple[Any, ...]] = []  # rows of FINGERPRINT_SCHEMA
        self._dropped_prints: list[tuple[Any, ...]] = []

    def reject(self, reject: Reject) -> None:
        self.records_rejected[reject.reason] += 1
        if len(self.rejects) < _REJECTS_LISTED:
            self.rejects.append(reject)

    def add(self, place: Place, page: RawPage) -> None:
        self.pages_read += 1
        self._waiting.append(page)
        self._places.append(place)
        self._waiting_chars += len(page.text)
        if len(self._waiting) >= _PAGES_AT_A_TIME or self._waiting_chars >= _CHARS_AT_A_TIME:
            self._judge()

    def _judge(self) -> None:
        """Judge the waiting pages, step by step over all of them, not page by page.

        The tables of each step then stay in the processor's cache.
        """
        pages, self._waiting, self._waiting_chars = self._waiting, [], 0
        places, self._places = self._places, []
        try:
            results = self._rules.clean_all(pages, self.counts)
        except OwnRuleError as error:
            where = f"{self._path}, offset {places[error.at].offset}"
            raise ValueError(error.located(where)) from error
        kept = []
        for place, page, result in zip(places, pages, results, strict=True):
            if result.verdict is PageVerdict.KEPT:
                kept.append((place, page, result))
            else:
                self._drop(place, page, result)
        starts = [self._rules.unit_starts(result.text) for _, _, result in kept]
        for (place, page, result), starts_of_page in zip(kept, starts, strict=True):
            self._keep(place, page, result, starts_of_page)

    def _drop(self, place: Place, page: RawPage, result: CleanPage) -> None:
        identity = url_identity(normalize_url(page.url))
        self._dropped_keys.append(identity_key(identity))
        self._dropped_offsets.append(place.offset)
        if len(self._codes) == _MOST_VERDICTS and result.verdict not in self._codes:
            raise ValueError(
                f"rule {result.evidence} has returned too many different verdicts in {self._path}, "
                f"the last {result.verdict!r} for {page.url}: a verdict names a reason, not a page"
            )
        self._dropped_codes.append(self._codes.setdefault(result.verdict, len(self._codes)))
        self.pages_dropped[result.verdict] += 1
        self.samples.add(result, page.url, page.text.strip())
        # TF deduplicates urls before cleaning: a page that the rules drop may still be the newest.
        if self._all_urls and result.verdict not in BEFORE_URLS:
            self._dropped_prints.append(
                (identity, self._date(page), page_digest(page, page.text), 0, b"")
            )

    def _keep(self, place: Place, page: RawPage, result: CleanPage, starts: list[int]) -> None:
        normalized = normalize_url(page.url)
        identity = url_identity(normalized)
        key = identity_key(identity)
        text = result.text.encode()
        digest = _digest(page, text)
        language, probability = result.language or (None, None)
        self.unit_count += len(starts)
        self._kept.append(
            (
                *(page.url, text, page.timestamp, page.content_type, page.content_length),
                *(language, probability, split_of(normalized) == "validation", key, digest),
                *(result.lines, array.array("I", starts)),
                *(place.offset, place.inner_offset, place.record_id),
            )
        )
        if self._all_urls:
            rank = md5_key(page.url)  # TF: md5 of the url as written
        elif self._recipe.dedup_urls:
            rank = key
        else:  # pages may share a url: only their content distinguishes them
            rank = int.from_bytes(digest[:8], "little")
        units = unit_identities(result.text, starts)
        self._kept_prints.append((identity, self._date(page), digest, rank, units))

    def _date(self, page: RawPage) -> str:
        """Return what orders copies by age: the page's time, or for TF its date's text."""
        return page.timestamp if self._recipe.drop_parser_accidents else date_key(page.timestamp)

    def dropped(self) -> Dropped:
        """Return the pages that the rules dropped, in the order of the file."""
        return Dropped(
            np.frombuffer(self._dropped_keys, np.uint64),
            np.frombuffer(self._dropped_offsets, np.uint64),
            np.frombuffer(self._dropped_codes, np.uint8),
            tuple(map(str, self._codes)),
        )

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Return the cleaned pages and the fingerprints, both in shard order."""
        self._judge()
        order = shard_order(_table(self._kept, CLEANED_SCHEMA, SHARD_ORDER)).tolist()
        prints = [self._kept_prints[row] for row in order] + self._dropped_prints
        return (
            _table([self._kept[row] for row in order], CLEANED_SCHEMA),
            _table(prints, FINGERPRINT_SCHEMA),
        )


def _table(
    rows: Sequence[tuple[Any, ...]], schema: pa.Schema, names: Sequence[str] = ()
) -> pa.Table:
    """Return rows, in the order of a schema, as a table; with ``names``, of these columns only."""
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    found = {
        field.name: _column(values, field.type)
        for field, values in zip(schema, columns, strict=True)
        if not names or field.name in names
    }
    return pa.table(found)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as a column; texts given as bytes, and arrays, are copied only once."""
    if pa.types.is_large_list(kind):
        items = np.frombuffer(b"".join(values), np.uint32)
        return pa.LargeListArray.from_arrays(ends(values), items)
    if values and isinstance(values[0], bytes) and not pa.types.is_fixed_size_binary(kind):
        return joined(values, kind)
    return pa.array(values, kind)


def page_digest(page: RawPage, text: str) -> bytes:
    """Return 16 bytes of a digest of all published fields: a tie-break independent of file order.

    ``text``: as kept, or as read for a page that the rules dropped.
    """
    return _digest(page, text.encode("utf-8", "surrogatepass"))


def _digest(page: RawPage, text: bytes) -> bytes:
    fields = (page.url, page.timestamp, page.content_type, page.content_length, "")
    head = "\0".join(fields).encode("utf-8", "surrogatepass")
    return mmh3.mmh3_x64_128_digest(head + text)


def _write_rejects(path: str, input_path: str, rejects: list[Reject], source: str) -> None:
    if not rejects:
        storage.remove([path])  # of an earlier build of a changed file
        return
    with storage.write_atomically(path) as file:
        for reject in rejects:
            numbered = {}  # of other sources the offset is a number, which has a name
            if source != sources.WET:
                numbered = {sources.source_named(source).counts: reject.offset}
            line = {
                "file": input_path,
                **numbered,
                "offset": reject.offset,  # of the gzip member
                "inner_offset": reject.inner_offset,  # in what the member unpacks to
                "reason": reject.reason,
                "detail": reject.detail,
            }
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def read_rejects(output: str, path: str) -> list[dict[str, Any]]:
    """Return the records of an input that did not become a page, as cleaning it listed them.

    Args:
        output: The corpus folder.
        path: Of the input.

    Raises:
        ValueError: The list is damaged; the message names it.
    """
    name = layout.rejects(output, layout.file_name(path))
    try:
        found = [json.loads(line) for line in storage.read_if_exists(name).splitlines()]
        for reject in found:
            offset, detail = reject["offset"], reject["detail"]
            if type(offset) is not int or not 0 <= offset < 1 << 63 or type(detail) is not str:
                raise TypeError(f"{offset!r:.40}")
            reject["reason"] = RejectReason(reject["reason"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{name} is damaged ({error}): build {output} again") from None
    return found
