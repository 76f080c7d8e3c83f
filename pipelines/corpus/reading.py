"""Finished corpora: what they hold, their pages one by one, and texts of pages by number.

Shards hold pages in the order of a hash, each page's shard being chosen by a hash too. So the first
pages of a corpus, and pages read one after the other, are a random sample of it.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipelines import storage
from pipelines.corpus import layout
from pipelines.corpus.errors import REBUILD, CorpusError, one_line
from pipelines.corpus.formats import FORMATS, format_named
from pipelines.corpus.manifest import (
    Counts,
    Manifest,
    OwnShard,
    OwnText,
    ShardFile,
    digest,
    read_manifest,
)

if TYPE_CHECKING:
    from pipelines.corpus.formats.pages import Page


def open_corpus(folder: str) -> "Corpus":
    """Open a finished corpus, or text of your own with a manifest written by hand.

    Args:
        folder: Of the corpus, local or remote (``gs://``, ``s3://``, ``hdfs://``).

    Raises:
        CorpusError: The folder has no manifest, or a damaged one, or one of another version.
    """
    folder = layout.absolute(folder)
    return Corpus(folder, read_manifest(folder, own_text=True))


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A finished corpus.

    Attributes:
        folder: Where it is.
        manifest: What it holds and how it was made.
    """

    folder: str
    manifest: Manifest | OwnText

    @property
    def splits(self) -> dict[str, int]:
        """Pages of each split that has any."""
        pages: dict[str, int] = {}
        seen: dict[str, str] = {}  # split -> the format that is counted
        for shard in self.manifest.shards:
            if shard.pages and seen.setdefault(shard.split, shard.format) == shard.format:
                pages[shard.split] = pages.get(shard.split, 0) + shard.pages
        return pages

    @property
    def counts(self) -> Counts | None:
        """Pages and lines by rule; None for text that ``c4 build`` did not make."""
        return self.manifest.counts if isinstance(self.manifest, Manifest) else None

    def pages(self, split: str = "train") -> Iterator["Page"]:
        """Yield the pages of a split, in the order of the corpus.

        Raises:
            CorpusError: There is no such split; a shard is missing, damaged, or has another number
                of pages than the manifest lists.
        """
        return self.split(split).read_pages()

    def dataset(self, split: str = "train") -> Any:
        """Return a split as a `pyarrow.dataset.Dataset`, which reads only what is requested.

        Raises:
            CorpusError: There is no such split, or it has no Parquet shards.
        """
        import pyarrow as pa
        import pyarrow.dataset
        import pyarrow.parquet

        from pipelines.corpus.formats.places import arrow_file

        paths = self.split(split, "parquet").paths
        kind = pyarrow.dataset.ParquetFileFormat()
        fragments = [kind.make_fragment(arrow_file(path)) for path in paths]
        try:
            schema = fragments[0].physical_schema
            return pyarrow.dataset.FileSystemDataset(fragments, schema, kind)
        except (OSError, pa.ArrowException) as error:
            raise CorpusError(f"{paths[0]} cannot be read: {one_line(error)}") from None

    def split(
        self,
        name: str = "train",
        format: str | None = None,  # noqa: A002
        max_pages: int | None = None,
    ) -> "CorpusSplit":
        """Return a split in one format, after a check that its shards are there.

        Args:
            name: "train" or "validation".
            format: Of the shards; None takes what there is, Parquet first.
            max_pages: Leave out all but the first pages, for runs that repeat little data (paper
                section 3.4.2).

        Raises:
            CorpusError: The corpus lacks the split or the format, or a shard is missing or has
                another size than the manifest lists.
        """
        found: Sequence[ShardFile | OwnShard] = self.manifest.shards
        of_split = [shard for shard in found if shard.split == name and shard.pages]
        if not of_split:
            raise CorpusError(
                f"{self.folder} has no pages in its split {name!r}; splits with pages: "
                f"{', '.join(sorted(self.splits)) or 'none'} (validation is about one page in a "
                "thousand: build from more)"
            )
        formats = {shard.format for shard in of_split}
        if format is not None:
            try:
                format_named(format)
            except ValueError as error:
                raise CorpusError(str(error)) from None
        chosen = format or next(kind for kind in FORMATS if kind in formats)
        if chosen not in formats:
            raise CorpusError(
                f"{self.folder} holds {', '.join(sorted(formats))}, not {chosen}: build it with "
                f"--format {chosen}"
            )
        listed = [shard for shard in of_split if shard.format == chosen]
        _require_files(self.folder, listed)
        shards = [Shard(shard.name, shard.pages, shard.pages) for shard in listed]
        if max_pages is not None:
            shards = _first_pages(shards, max_pages)
        made, text_bytes = self.manifest, None
        if (
            isinstance(made, Manifest)
            and sum(shard.pages for shard in shards) == made.splits[name].pages
        ):
            text_bytes = made.splits[name].text_bytes
        return CorpusSplit(self.folder, name, chosen, tuple(shards), made.source, text_bytes)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file.

    Attributes:
        name: In the corpus folder.
        pages: Pages to read, from the first.
        stored: Pages in the file.
    """

    name: str
    pages: int
    stored: int


@dataclasses.dataclass(frozen=True)
class CorpusSplit:
    """The shards of one split in one format, in the manifest's order.

    ``source`` is a digest of what the manifest says the corpus was made from: recipe, lists,
    versions and the contents of the inputs. ``text_bytes`` is the sum over the pages' texts in
    UTF-8, None where the manifest does not say it.
    """

    folder: str
    split: str
    format: str
    shards: tuple[Shard, ...]
    source: str = ""
    text_bytes: int | None = None

    @property
    def page_count(self) -> int:
        """Pages to read."""
        return sum(shard.pages for shard in self.shards)

    @property
    def paths(self) -> list[str]:
        """Paths of the shards."""
        return [storage.join(self.folder, shard.name) for shard in self.shards]

    @property
    def digest(self) -> str:
        """Sixteen hex digits of what is read, and in which order, whatever the format."""
        shards = [(shard.name.partition(".")[0], shard.pages) for shard in self.shards]
        return digest([self.source, self.split, shards])

    def read_pages(self) -> Iterator["Page"]:
        """Yield the pages, one shard after the other. Raises CorpusError, naming the shard."""
        for shard, path in zip(self.shards, self.paths, strict=True):
            count = 0
            with naming(path):
                pages = FORMATS[self.format].read_pages(path)
                for page in itertools.islice(pages, shard.pages):
                    count += 1
                    yield page
                if count < shard.pages or (shard.pages == shard.stored and next(pages, None)):
                    has = "fewer" if count < shard.pages else "more"
                    raise CorpusError(
                        f"{path} has {has} pages than the {shard.stored} that {layout.MANIFEST} "
                        "lists: it is cut off, or of another build; run c4 build again"
                    )


class PageReader:
    """Texts of pages by number, from shards that stay open while they are read on.

    Holds as many places in shards as ``open_places``; of a Parquet shard, a place is a decoded row
    group (32 MB of text as ``c4 build`` writes them), of a TFRecord shard a chunk of 4 MB. Readers
    that go through several parts of a corpus in turn need one place for each, and one more.
    """

    def __init__(self, corpus: CorpusSplit, open_places: int) -> None:
        self._shards = list(zip(corpus.paths, corpus.shards, strict=True))
        self._ends = list(itertools.accumulate(shard.pages for shard in corpus.shards))
        self._texts = FORMATS[corpus.format].texts(max(1, open_places))

    def read(self, shard: int, start: int, stop: int) -> list[bytes]:
        """Return the texts of pages ``start`` to ``stop`` of a shard, in UTF-8.

        Raises CorpusError, naming the file, when it is missing, damaged, or another than the
        manifest lists.
        """
        path, listed = self._shards[shard]
        with naming(path):
            return self._texts.read(path, listed.stored, start, stop)

    def read_span(self, start: int, stop: int) -> list[bytes]:
        """Return the texts of pages ``start`` to ``stop`` of the split, from one file or several.

        Raises IndexError for pages that the split does not have, CorpusError as `read` does.
        """
        if not 0 <= start <= stop <= (self._ends[-1] if self._ends else 0):
            raise IndexError(f"pages {start} to {stop} of {self._ends[-1]}")
        texts: list[bytes] = []
        shard = bisect.bisect_right(self._ends, start)
        while start < stop:
            begin = self._ends[shard] - self._shards[shard][1].pages
            end = min(stop, self._ends[shard])
            if end > start:  # not of a file without pages
                texts += self.read(shard, start - begin, end - begin)
            start, shard = end, shard + 1
        return texts


class naming:  # noqa: N801
    """Turn errors from reading a file into CorpusError, in one line that names it.

    A class: `contextlib.contextmanager` would cost some microseconds each time.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None or isinstance(error, CorpusError):
            return
        import pyarrow as pa

        if isinstance(error, FileNotFoundError):
            raise _missing(self._path) from None
        if isinstance(error, (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException)):
            of_system = isinstance(error, MemoryError) or getattr(error, "errno", None)
            advice = "" if of_system else f": {REBUILD}"
            raise CorpusError(f"{self._path} cannot be read: {one_line(error)}{advice}") from None


def _first_pages(shards: Sequence[Shard], max_pages: int) -> list[Shard]:
    if max_pages < 1:
        raise CorpusError(f"max_pages must be positive, got {max_pages} (--max-pages)")
    before = [0, *itertools.accumulate(shard.stored for shard in shards)]
    return [
        dataclasses.replace(shard, pages=min(shard.stored, max_pages - begin))
        for shard, begin in zip(shards, before[:-1], strict=True)
        if begin < max_pages
    ]


def _require_files(folder: str, shards: Sequence[ShardFile | OwnShard]) -> None:
    """Raise CorpusError unless every shard is there, of the size that the manifest lists."""
    try:
        sizes = storage.sizes(folder)
    except OSError as error:
        raise CorpusError(f"{folder} cannot be listed: {one_line(error)}") from None
    for shard in shards:
        path = storage.join(folder, shard.name)
        if shard.name not in sizes:
            raise _missing(path)
        if shard.bytes is not None and sizes[shard.name] != shard.bytes:
            raise CorpusError(
                f"{path} has {sizes[shard.name]} bytes and {layout.MANIFEST} lists {shard.bytes}: "
                "it is cut off, or of another build; run c4 build again"
            )


def _missing(path: str) -> CorpusError:
    return CorpusError(
        f"{path} is missing, though {layout.MANIFEST} lists it: run the same c4 build again"
    )
