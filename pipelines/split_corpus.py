"""A corpus of many languages -> a corpus for each, in a folder named after it.

Pages keep the order of the whole corpus, so each part is in the order of a hash, too. A part has
shards, side files and a manifest, and no kept files: those stay with the whole corpus, of which the
part's manifest names the shards as its inputs.
"""

import contextlib
import dataclasses
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from c4_filters.language import LANGUAGES
from pipelines import builders, corpus_folder, storage, verify_corpus
from pipelines.bars import bar
from pipelines.corpus import layout
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats import parquet
from pipelines.corpus.formats.pages import COLUMNS
from pipelines.corpus.formats.provenance import PROVENANCE_COLUMNS
from pipelines.corpus.manifest import (
    InputFile,
    Manifest,
    ShardFile,
    Timing,
    read_manifest,
)
from pipelines.corpus.reading import naming
from pipelines.corpus.root_digest import recompute
from pipelines.corpus.shard_files import PageWriter, WrittenShard, manifest_of_pages
from pipelines.finish_corpus import finish_corpus
from pipelines.options import option
from pipelines.stages.write_shards import plan_shards

#: For pages whose language is unknown: BCP 47, section 4.1.
UNKNOWN = "und"
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_OPEN_TEXT_BYTES = 1 << 30  # of the shards that are being filled, of all languages together


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which corpus to split, and where to."""

    folder: str = option("folder of the corpus", "folder", metavar="DIR")
    output: str | None = option(
        "where the folders of the languages go (default: into the corpus folder)",
        default=None, metavar="DIR",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Part:
    """The corpus of one language.

    Attributes:
        language: langdetect's code, or ``und``.
        folder: Where it is.
        pages: Of both splits.
        was_complete: Whether it was there already.
        is_left_over: Whether it is of an earlier state of the corpus, which has no page in this
            language any more.
    """

    language: str
    folder: str
    pages: int
    was_complete: bool
    is_left_over: bool = False


def split_corpus(config: SplitConfig) -> list[Part]:
    """Write a corpus for each language of a corpus.

    A part that is there already, of the same corpus, is left as it is.

    Returns:
        The parts, by language; then those that are left over, of languages that the corpus had.

    Raises:
        CorpusError: The corpus is damaged, or has no Parquet shards, which alone hold languages.
        OSError: A file cannot be read or written, or something else is in the folder of a part.
    """
    whole = _Whole(layout.absolute(config.folder))
    output = layout.absolute(config.output) if config.output is not None else whole.folder
    pages = whole.pages_by_language()
    writers = [_Writer(whole, output, language, pages[language]) for language in sorted(pages)]
    for writer in writers:
        writer.require_own_folder()
    missing = [writer for writer in writers if not writer.is_complete()]
    for group in _groups(missing):
        _write_group(whole, group)
    return [
        Part(each.language, each.folder, sum(each.pages.values()), each not in missing)
        for each in writers
    ] + _left_over(whole, output, pages)


def _left_over(whole: "_Whole", output: str, pages: Collection[str]) -> list[Part]:
    """Return the parts of earlier states of the corpus, of languages that it does not have."""
    found = []
    for language in sorted({*LANGUAGES, UNKNOWN}.difference(pages)):
        folder = storage.join(output, language)
        try:
            made = read_manifest(folder)
        except CorpusError:
            continue
        if made.recipe["name"] == whole.name_of(language):
            found.append(Part(language, folder, made.counts.pages_written, True, True))
    return found


def _groups(writers: Iterable["_Writer"]) -> Iterator[list["_Writer"]]:
    """Yield languages that are written together: in one reading, and in bounded memory."""
    group: list[_Writer] = []
    size = 0
    for writer in writers:
        if group and size + writer.open_bytes > _OPEN_TEXT_BYTES:
            yield group
            group, size = [], 0
        group.append(writer)
        size += writer.open_bytes
    if group:
        yield group


def _write_group(whole: "_Whole", group: list["_Writer"]) -> None:
    by_language = {writer.language: writer for writer in group}
    names = ", ".join(by_language)
    shown = names if len(names) < 40 else f"{len(group)} languages"
    with contextlib.ExitStack() as held:
        claims = [
            held.enter_context(builders.hold(writer.folder, runner="c4 split")) for writer in group
        ]
        for writer in group:
            writer.begin()
        for split in layout.SPLITS:
            for table in whole.tables(split, shown):
                languages = _languages(table)
                for language in pc.unique(languages).to_pylist():
                    if language in by_language:
                        rows = table.filter(pc.equal(languages, language))
                        by_language[language].add(split, rows)
        for writer, claim in zip(group, claims, strict=True):
            writer.finish(claim)


class _Whole:
    """The corpus that is split."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.made = read_manifest(folder)
        self.shards = [shard for shard in self.made.shards if shard.format == "parquet"]
        if not self.shards:
            raise CorpusError(
                f"{folder} has no Parquet shards, which alone hold the language of each page: "
                "build it with --format parquet"
            )
        self.text_bytes = sum(sums.text_bytes for sums in self.made.splits.values())
        self.page_count = sum(sums.pages for sums in self.made.splits.values())
        more = PROVENANCE_COLUMNS if self.made.settings.provenance else ()
        self.columns = [*COLUMNS, *more]

    def name_of(self, language: str) -> str:
        """Return the name of a part, in the place of a recipe's."""
        return f"{self.made.recipe['name']}.{language}"

    def pages_by_language(self) -> dict[str, Counter[str]]:
        """Count pages: language -> split -> pages."""
        found: dict[str, Counter[str]] = {}
        for shard in self.shards:
            for table in self._tables_of(shard, ["language"]):
                for count in pc.value_counts(_languages(table)).to_pylist():
                    name = count["values"]
                    if not _LANGUAGE.fullmatch(name):
                        raise CorpusError(f"{shard.name}: {name!r:.40} is not a language code")
                    found.setdefault(name, Counter())[shard.split] += count["counts"]
        return found

    def tables(self, split: str, what: str) -> Iterator[pa.Table]:
        """Yield the pages of a split in order, some at a time, and show the progress."""
        shards = [shard for shard in self.shards if shard.split == split]
        with bar(f"{split} of {what}", sum(shard.bytes for shard in shards), "B") as progress:
            for shard in shards:
                yield from self._tables_of(shard, self.columns)
                progress.update(shard.bytes)

    def _tables_of(self, shard: ShardFile, columns: list[str]) -> Iterator[pa.Table]:
        path = storage.join(self.folder, shard.name)
        with naming(path):
            yield from parquet.read_tables(path, shard.pages, columns)


def _languages(table: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(table.column("language"), UNKNOWN)


class _Writer:
    """Writes the corpus of one language."""

    def __init__(self, whole: _Whole, output: str, language: str, pages: Counter[str]) -> None:
        self.language = language
        self.folder = storage.join(output, language)
        self.pages = pages
        self._whole = whole
        # By its share of pages: what a page of each language has in bytes is not known yet.
        text_bytes = whole.text_bytes * sum(pages.values()) // max(1, whole.page_count)
        tasks = plan_shards(text_bytes, None)
        shards = Counter(task.split for task in tasks)
        self.open_bytes = text_bytes // shards["train"]
        planned = {split: (pages[split], shards[split]) for split in layout.SPLITS}
        self._pages = PageWriter(self.folder, whole.made.formats, planned, whole.columns)
        self._cpu_s = 0.0

    def require_own_folder(self) -> None:
        """Raise OSError if the folder holds what `split_corpus` did not write."""
        names = storage.listdir(self.folder)
        ours = builders.claimed_by_us(self.folder)
        if storage.exists(storage.join(self.folder, layout.BUILD)) or (names and not ours):
            raise OSError(
                f"{self.folder} holds files that c4 split did not write: give another --output"
            )

    def is_complete(self) -> bool:
        """Return whether the part is there already, of the same corpus."""
        try:
            found = read_manifest(self.folder)
        except CorpusError:
            return False
        same = found.source == self._manifest().source and found.formats == self._whole.made.formats
        return same and not verify_corpus.shard_problems(self.folder, found)

    def begin(self) -> None:
        """Take the folder: its manifest goes first."""
        corpus_folder.begin(self.folder)
        corpus_folder.plan_files(self.folder, self._pages.names)

    def add(self, split: str, pages: pa.Table) -> None:
        """Take pages of the language, in the order of the corpus."""
        started = time.process_time()
        self._pages.add(split, pages)
        self._cpu_s += time.process_time() - started

    def finish(self, claim: builders.Claim) -> None:
        """Write the shards that are left, the side files, then the manifest."""
        made = self._manifest(self._pages.finish())
        if made.recipe.get("dedup_urls"):  # where pages share an address, their order is no name
            made = dataclasses.replace(made, root_digest=recompute(self.folder, made))
        finish_corpus(self.folder, made, lambda: claim.require(now=True))

    def _manifest(self, shards: Sequence[WrittenShard] = ()) -> Manifest:
        whole = self._whole.made
        inputs = tuple(
            InputFile(
                storage.join(self._whole.folder, shard.name),
                shard.bytes,
                shard.sha256,
                pages_read=shard.pages,
            )
            for shard in self._whole.shards
        )
        return manifest_of_pages(
            shards,
            inputs,
            (self._whole.page_count, whole.counts.lines_written),
            recipe={**whole.recipe, "name": self._whole.name_of(self.language)},
            settings=whole.settings,
            versions=whole.versions,
            against=whole.against,
            card=whole.card,
            timing=Timing(0.0, round(self._cpu_s, 3), 0),
            sources=whole.sources,
            rule_sources=whole.rule_sources,
        )
