"""A sample of lines from several corpora at given weights, the same for the same seed.

Corpora are read, never loaded: what is drawn goes to files of lines, one a corpus.
"""

import dataclasses
import pathlib
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pipelines.corpus.reading import CorpusSplit, PageReader

#: Longer lines are cut at a blank: SentencePiece passes over what is longer than it was told to
#: expect, and a page without a line break is text like any other.
LINE_CHARACTERS = 4096
_GROUP_PAGES = 16


@dataclasses.dataclass(frozen=True)
class TextSource:
    """A corpus and its share of the sample."""

    name: str  #: of the language, or whatever tells it from the others
    corpus: CorpusSplit
    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"a weight must be positive, got {self.weight:g} for {self.name}")


@dataclasses.dataclass(frozen=True)
class Sample:
    """What was drawn from one corpus: the first ``characters`` of the lines in a file."""

    source: TextSource
    path: pathlib.Path
    characters: int  #: without line ends
    found: int  #: characters in the file; all of the corpus where it had less than its share

    def lines(self, characters: int | None = None) -> Iterator[str]:
        """Return the lines, the last one cut so that they have exactly ``characters``."""
        left = self.characters if characters is None else min(characters, self.characters)
        with open(self.path, "rb") as file:
            for line in file:
                text = line[:-1].decode()[:left]
                left -= len(text)
                if not text:
                    return
                yield text


def draw(
    sources: Sequence[TextSource],
    characters: int,
    seed: int,
    folder: pathlib.Path,
    progress: Callable[[int], object] = lambda characters: None,
) -> list[Sample]:
    """Draws ``characters`` from all sources together, in proportion to their weights.

    Shards hold pages in the order of a hash, so that consecutive pages are a random sample: each
    corpus is read once, on from a place that ``seed`` and its name choose, until it has given its
    share. Where one has less than that, all shares shrink with it, and the weights hold still.

    Args:
        sources: with names of their own; their order does not matter.
        characters: of all lines together, without line ends.
        seed: chooses where reading begins.
        folder: gets a file for each source.
        progress: is told how many characters were read since it was told last.

    Raises ValueError for names that are not unique or a source without any text.
    """
    if len({source.name for source in sources}) < len(sources):
        raise ValueError(
            f"each corpus needs a name of its own, got {', '.join(s.name for s in sources)}"
        )
    ordered = sorted(sources, key=lambda source: source.name)
    weights = sum(source.weight for source in ordered)
    samples = []
    for number, source in enumerate(ordered):
        share = round(characters * source.weight / weights)
        path = folder / f"{number}.txt"
        found = 0
        with open(path, "wb") as file:
            for line in _lines(source, seed):
                line = line[: share - found]
                file.write(line.encode() + b"\n")
                found += len(line)
                progress(len(line))
                if found >= share:
                    break
        if not found:
            raise ValueError(f"{source.corpus.folder} has no text to sample ({source.name})")
        samples.append(Sample(source, path, found, found))
    scale = min(sample.found / sample.source.weight for sample in samples)
    return [
        dataclasses.replace(
            sample, characters=min(sample.found, round(scale * sample.source.weight))
        )
        for sample in samples
    ]


def _lines(source: TextSource, seed: int) -> Iterator[str]:
    pages = source.corpus.page_count
    groups = -(-pages // _GROUP_PAGES)
    reader = PageReader(source.corpus, open_places=1)
    rng = np.random.default_rng([seed, zlib.crc32(source.name.encode())])
    start = int(rng.integers(groups))
    for number in range(groups):
        begin = (start + number) % groups * _GROUP_PAGES
        for text in reader.read_span(begin, min(begin + _GROUP_PAGES, pages)):
            for line in text.decode(errors="replace").split("\n"):
                yield from _cut(line.strip())


def _cut(line: str) -> Iterator[str]:
    while len(line) > LINE_CHARACTERS:
        blank = line.rfind(" ", 1, LINE_CHARACTERS + 1)
        end = blank if blank > 0 else LINE_CHARACTERS
        yield line[:end]
        line = line[end:].lstrip()
    if line:
        yield line
