"""Mixtures of corpora by weight.

A weight is a share of the mixture's pages or, with a vocabulary, of its tokens. The next page is
always one of the corpus that is furthest behind its share, and each corpus gives its pages in their
order, which is that of a hash. So any part of the mixture is mixed alike, its first pages are a
sample of the whole, and the same corpora and weights give the same bytes.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from model.corpora.sizes import Unit, pages_and_sizes, unit_of
from model.small_files import naming_option
from pipelines.corpus.derived import Plan, SplitPlan, finished, input_of, write_corpus
from pipelines.corpus.formats.pages import Page
from pipelines.corpus.manifest import Manifest
from pipelines.corpus.reading import CorpusSplit, open_corpus

_MOST_CORPORA = 255  # their number is kept in a byte for each page


@dataclasses.dataclass(frozen=True)
class Part:
    """What a mixture took from a corpus."""

    folder: str
    weight: float
    pages: int
    size: int  # pages or tokens
    times: float  # how often its train split was read


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The result of `make_mixture`."""

    manifest: Manifest
    unit: str  # "pages" or "tokens"
    parts: tuple[Part, ...]  # of the train split; none if the mixture was there already


def make_mixture(
    corpora: Sequence[tuple[str, float]],
    output: str,
    vocab: str | None = None,
    total: int | None = None,
    formats: tuple[str, ...] = ("parquet",),
    progress: Callable[[int], object] = lambda _: None,
) -> Mixture:
    """Write a mixture of the train splits of corpora, and one of their validation splits.

    Args:
        corpora: Folders of finished corpora and their weights.
        output: A new or empty folder.
        vocab: SentencePiece model; weights are then shares of its tokens, else of pages.
        total: Pages or tokens of the train split, at least; a corpus that runs out is read again
            from its first page. None: as many as there are before a corpus would be read again.
        formats: Of the shards.
        progress: Is called with the pages or tokens taken since the last call.

    Raises:
        ValueError: A weight is not a positive number, a corpus is named twice or has no pages, or
            something given cannot be read.
        OSError: A file cannot be read or written.
    """
    weights = [weight for _, weight in corpora]
    if not corpora or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"weights must be positive numbers, got {weights} (--corpus DIR=WEIGHT)")
    if len(corpora) > _MOST_CORPORA:
        raise ValueError(
            f"at most {_MOST_CORPORA} corpora can be mixed, got {len(corpora)} (--corpus)"
        )
    with naming_option("--corpus"):
        opened = [open_corpus(folder) for folder, _ in corpora]
    if len({corpus.folder for corpus in opened}) < len(opened):
        raise ValueError("a corpus is named twice: add its weights up (--corpus)")
    shares = [weight / sum(weights) for weight in weights]
    if not all(shares):
        raise ValueError(f"weights are too far apart, got {weights} (--corpus DIR=WEIGHT)")
    unit = unit_of(vocab)
    entries = [input_of(corpus) for corpus in opened]
    settings = {
        "name": "mix",
        "description": "A mixture of corpora by weight",
        "weights": shares,
        "unit": unit.name,
        "total": total,
        **unit.settings,
    }
    if (made := finished(output, settings, entries, formats)) is not None:
        return Mixture(made, unit.name, ())
    train = _Draw([corpus.split("train") for corpus in opened], shares, unit, total, progress)
    # Of the corpora that have one. Their proportions are as near to the weights.
    held = [at for at, corpus in enumerate(opened) if "validation" in corpus.splits]
    validation = _Draw(
        [opened[at].split("validation") for at in held], [shares[at] for at in held], unit
    )
    taken = list(train.pages)
    for at, count in zip(held, validation.pages, strict=True):
        taken[at] += count
    inputs = tuple(
        dataclasses.replace(entry, pages_read=count)
        for entry, count in zip(entries, taken, strict=True)
    )
    splits = {"train": train.plan(), "validation": validation.plan()}
    made = write_corpus(output, Plan(settings, unit.versions, inputs, splits), formats)
    parts = tuple(
        Part(corpus.folder, weight, pages, size, pages / corpus.splits["train"])
        for corpus, weight, pages, size in zip(
            opened, shares, train.pages, train.sizes, strict=True
        )
    )
    return Mixture(made, unit.name, parts)


class _Draw:
    """Which corpus each page of a split comes from, found in one pass over the corpora.

    Attributes:
        pages: Taken from each corpus.
        sizes: The same in the unit of the weights.
    """

    def __init__(
        self,
        splits: Sequence[CorpusSplit],
        weights: Sequence[float],
        unit: Unit,
        total: int | None = None,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._splits = splits
        self._choices = bytearray()
        self.pages, self.sizes = [0] * len(splits), [0] * len(splits)
        self._text_bytes = 0
        streams = [pages_and_sizes(split.read_pages(), unit) for split in splits]
        before = [-1] * len(splits)  # sizes at the beginning of each corpus's pass
        numbers = range(len(splits))
        while streams and (total is None or sum(self.sizes) < total):
            at = min(numbers, key=lambda number: self.sizes[number] / weights[number])
            found = next(streams[at], None)
            if found is None:
                if total is None:
                    break
                if self.sizes[at] == max(0, before[at]):
                    raise ValueError(f"{splits[at].folder} has no tokens to repeat (--total)")
                before[at] = self.sizes[at]
                streams[at] = pages_and_sizes(splits[at].read_pages(), unit)
                continue
            page, size = found
            self._choices.append(at)
            self.pages[at] += 1
            self.sizes[at] += size
            self._text_bytes += len(page.text.encode())
            progress(size)

    def plan(self) -> SplitPlan:
        """Return the split to write."""
        return SplitPlan(self._read, len(self._choices), self._text_bytes)

    def _read(self) -> Iterator[Page]:
        streams = list(map(_endlessly, self._splits))
        for at in self._choices:
            yield next(streams[at])


def _endlessly(split: CorpusSplit) -> Iterator[Page]:
    while True:
        yield from split.read_pages()
