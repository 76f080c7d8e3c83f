"""Cleaned pages and removals -> one shard of the corpus, in hash order."""

import contextlib
import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from c4_filters.pages import CleanPage, PageRules
from c4_filters.verdicts import LineVerdict, PageVerdict
from pipelines import storage
from pipelines.collector import without_collector
from pipelines.corpus.cleaned import (
    SHARD_ORDER,
    CleanedSource,
    key_range,
    removed_per_page,
    shard_order,
    units_in,
)
from pipelines.corpus.columns import Value, joined, views
from pipelines.corpus.formats.pages import COLUMNS
from pipelines.corpus.formats.provenance import PROVENANCE_COLUMNS, no_pages, with_provenance
from pipelines.corpus.layout import SPLITS
from pipelines.corpus.opened import OpenedFiles
from pipelines.corpus.pieces import PiecePart, SlicedPages, read_part
from pipelines.corpus.removals import PAGE_VERDICTS
from pipelines.corpus.root_digest import RowDigests, row_digests
from pipelines.corpus.shard_files import WrittenShard, added, in_whole_seconds, write_shard_files
from pipelines.number_options import MOST_SHARDS
from pipelines.stages.samples import Samples

# One worker holds a few copies of it: 64 MB of text, more if there are very many shards, since each
# of them opens some hundred files.
_TEXT_BYTES_PER_SHARD = 64 << 20
_MOST_TEXT_BYTES_PER_SHARD = 256 << 20
_MANY_SHARDS = 4096
_TRAIN_SHARDS_PER_VALIDATION_SHARD = 128  # as the published C4: 1024 and 8


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to write: the ``index``-th of ``count`` equal ranges of page keys of a split."""

    split: str
    index: int
    count: int

    def key_range(self) -> tuple[int, int]:
        """First page key of the shard, and first beyond it.

        >>> ShardTask("train", 0, 1).key_range() == (0, 2**64)
        True
        """
        return key_range(self.index, self.count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardSummary(WrittenShard):
    """The result of writing one shard of a build."""

    pages_dropped: dict[str, int]
    lines_dropped: dict[str, int]
    samples: dict[str, list[dict[str, str]]]
    cpu_s: float
    rows: RowDigests  # for the root digest


def plan_shards(text_bytes: int, shards: int | None) -> list[ShardTask]:
    """Plan the shards of ``text_bytes`` cleaned bytes; ``shards`` sets the number of train shards.

    >>> [task.count for task in plan_shards(200 << 20, None)]
    [4, 4, 4, 4, 1]
    """
    size = max(_TEXT_BYTES_PER_SHARD, -(-text_bytes // _MANY_SHARDS))
    size = min(size, _MOST_TEXT_BYTES_PER_SHARD)
    train = shards or max(1, min(MOST_SHARDS, -(-text_bytes // size)))
    validation = -(-train // _TRAIN_SHARDS_PER_VALIDATION_SHARD)
    return [ShardTask("train", index, train) for index in range(train)] + [
        ShardTask("validation", index, validation) for index in range(validation)
    ]


@without_collector()
def write_shard(
    task: ShardTask,
    sources: Iterable[CleanedSource | PiecePart],
    output: str,
    format_names: Iterable[str],
    rules: PageRules,
    build_id: str | None = None,
    require: Callable[[], None] = lambda: None,
    opened: OpenedFiles | None = None,
    provenance: bool = False,
) -> ShardSummary:
    """Write one shard in every format asked for.

    Copies of one page keep the order of their sources, which is that of the files' names (see
    ``merge_files``).

    Args:
        task: The shard.
        sources: Cleaned files and their removals, or parts of pieces made of them; not both.
        output: The corpus folder.
        format_names: Formats, see pipelines.corpus.formats.
        rules: The recipe's.
        build_id: The build that the removals must belong to; None: any.
        require: Called before each file is published; what it raises keeps the file unpublished.
        opened: Holds files that stay open from one shard to the next; the caller closes it.
        provenance: Whether formats that can store it say where each page's record is.

    Raises:
        ValueError: A file that it reads is damaged, or of another build; the message names it.
    """
    started = time.process_time()
    writer = _Shard(rules, provenance)
    # Files of the caller stay open.
    own = contextlib.closing(OpenedFiles()) if opened is None else contextlib.nullcontext(opened)
    with own as kept:

        def read(source: CleanedSource | PiecePart) -> Iterable[SlicedPages]:
            if isinstance(source, PiecePart):
                return read_part(source)
            return _slices(task, source, kept, build_id, provenance)

        for batches in storage.map_ahead(read, sources, output):
            for batch in batches:
                writer.add(*batch)
    table = writer.table()
    place = (task.split, task.index, task.count)
    written = write_shard_files(output, place, table, format_names, writer.lines, require)
    return ShardSummary(
        **vars(written),
        pages_dropped=added([writer.pages_dropped]),
        lines_dropped=added([writer.lines_dropped]),
        samples=writer.samples,
        rows=row_digests(table, writer.page_keys, task.key_range()),
        cpu_s=time.process_time() - started,
    )


def _slices(
    task: ShardTask, source: CleanedSource, kept: OpenedFiles, build_id: str | None, paths: bool
) -> Iterator[SlicedPages]:
    """Yield what a shard has in a cleaned file; ``paths``: with the WET file of each page."""
    with kept.open(source, build_id) as opened:
        for pages, codes, gone in opened.slices([SPLITS.index(task.split)], *task.key_range()):
            wet_files = None
            if paths:
                wet_file = pa.scalar(opened.cleaned.wet_file, pa.large_string())
                wet_files = pa.repeat(wet_file, len(pages))
            yield pages, codes, gone, wet_files


class _Shard:
    """Collects the pages of a shard, removals applied and late rules judged."""

    def __init__(self, rules: PageRules, provenance: bool = False) -> None:
        self._rules = rules
        self._provenance = provenance
        self._columns = [*COLUMNS, *(PROVENANCE_COLUMNS if provenance else ())]
        self._other_columns = [name for name in self._columns if name != "text"]
        self._late = rules.recipe.order == "dedup_first"
        self._batches: list[pa.RecordBatch] = []  # without texts
        self._texts: list[Value] = []
        self.lines = 0
        self.pages_dropped: Counter[str] = Counter()
        self.lines_dropped: Counter[str] = Counter()
        self.samples = Samples()
        self.page_keys = np.empty(0, np.uint64)  # of the table, once it is made

    def add(
        self,
        pages: pa.RecordBatch,
        page_codes: npt.NDArray[np.uint8],
        unit_gone: npt.NDArray[np.bool_],
        wet_files: pa.Array | None,
    ) -> None:
        """Take a slice of a cleaned file or a piece, see `SlicedPages`."""
        lines = pages.column("lines").to_numpy().astype(np.int64)
        keep = page_codes == 0
        for code, count in enumerate(np.bincount(page_codes).tolist()):
            if code and count:
                self.pages_dropped[PAGE_VERDICTS[code]] += count
        self.lines_dropped[LineVerdict.ON_DROPPED_PAGE] += int(lines[~keep].sum())
        texts: list[Value] = [*views(pages.column("text"))]
        languages = self._judge(pages, unit_gone, keep, texts, lines)
        if self._late:
            pages = _with_languages(pages, languages)
        self.lines += int(lines[keep].sum())
        if self._provenance:
            pages = with_provenance(pages, wet_files)
        pages = pages.select([*self._other_columns, *SHARD_ORDER])
        self._batches.append(pages.filter(pa.array(keep)))
        self._texts += itertools.compress(texts, keep.tolist())

    def _judge(
        self,
        pages: pa.RecordBatch,
        unit_gone: npt.NDArray[np.bool_],
        keep: npt.NDArray[np.bool_],
        texts: list[Value],
        lines: npt.NDArray[np.int64],
    ) -> dict[int, tuple[str, float] | None]:
        """Judge the pages that have lost units, or that all rules judge only now.

        Args:
            pages: A slice of a cleaned file or a piece.
            unit_gone: Whether each of their units is removed.
            keep: Whether each page is kept; changed for those that the rules drop.
            texts: Of the pages; changed to what is left.
            lines: Of each page, likewise.

        Returns:
            The language of each page that was judged and stays, by row.
        """
        languages: dict[int, tuple[str, float] | None] = {}
        bounds, starts = units_in(pages)
        lost = removed_per_page(bounds, unit_gone)
        judged = keep & self._rules.are_judged_after_dedup(np.diff(bounds), lost)
        urls = pages.column("url")
        for page in np.flatnonzero(judged).tolist():
            units = slice(*bounds[page : page + 2].tolist())
            text, url = str(texts[page], "utf-8"), urls[page].as_py()
            left, _, result = self._rules.finish_page(
                text, starts[units].tolist(), unit_gone[units], url
            )
            before = int(lines[page])
            if result.verdict is PageVerdict.KEPT:
                texts[page], lines[page] = left.encode(), result.lines
                languages[page] = result.language
                self.lines_dropped[LineVerdict.DUPLICATE] += before - result.lines
            else:
                keep[page] = False
                self._count_drop(result, before, left, url, text)
        return languages

    def _count_drop(self, result: CleanPage, lines: int, left: str, url: str, text: str) -> None:
        """Count a page that the rules drop, which had so many lines and ``left`` after removals."""
        left_lines = left.count("\n") + 1 if left else 0
        self.pages_dropped[result.verdict] += 1
        self.lines_dropped[LineVerdict.DUPLICATE] += lines - left_lines
        self.lines_dropped[LineVerdict.ON_DROPPED_PAGE] += left_lines
        self.samples.add(result, url, text)

    def table(self) -> pa.Table:
        """Return the pages of the shard, sorted by page key, then digest."""
        if not self._texts:
            return no_pages(self._columns)
        table = pa.Table.from_batches(self._batches)
        order = shard_order(table)
        self.page_keys = table["page_key"].to_numpy()[order]
        table = table.select(self._other_columns).take(order)
        text = joined([self._texts[row] for row in order.tolist()], pa.large_string())
        table = table.add_column(self._columns.index("text"), "text", text)
        self._batches.clear()  # frees what they were read from: formats need memory, too
        self._texts.clear()
        if self._rules.recipe.drop_parser_accidents:  # TF publishes the header's own text
            return table
        at = table.schema.get_field_index("timestamp")
        return table.set_column(at, "timestamp", in_whole_seconds(table["timestamp"]))


def _with_languages(
    pages: pa.RecordBatch, languages: Mapping[int, tuple[str, float] | None]
) -> pa.RecordBatch:
    """Return pages with other languages at these rows."""
    for at, name in enumerate(("language", "language_probability")):
        values = pages.column(name).to_pylist()
        for row, language in languages.items():
            values[row] = language[at] if language else None
        column = pa.array(values, pages.schema.field(name).type)
        pages = pages.set_column(pages.schema.get_field_index(name), name, column)
    return pages
