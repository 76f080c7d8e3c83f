"""A corpus with an objective, as a source.

How an epoch goes through a corpus::

    corpus        pages, in the order of its files
    input shard   a contiguous part of the pages, the same in each epoch
    lane          a contiguous part of an input shard, read from a page that is drawn anew for each
                  epoch to the page before it
    element       the next pages of a lane, up to 128 and as many as in all other elements, in a
                  random order

So the order of pages, the elements, the places where texts are cut and the noise differ between
epochs, and each epoch has every page once. Elements take lanes in turn, so that processes can share
the lanes and each still reads its files in order.
"""

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np

from model.data.objectives import Objective
from model.data.seeds import Purpose, generator, number_of
from model.data.sequences import Sequences
from model.data.sources.source import Pairs, TextIds
from pipelines.corpus.reading import CorpusSplit, PageReader

#: Pages that become one text before it is cut (preprocessors.py, reduce_concat_tokens).
GROUP_PAGES = 128
#: Of a longer page, one part of this many tokens is taken (select_random_chunk).
MAX_PAGE_TOKENS = 65_536
#: Lengths of pieces that epochs take in turn: the objective's, and one token less each time; where
#: it is longer than the second number.
_CUTS, _RARE_CUT = 4, 16
_LANES = 8  # of an input shard, where each has a group of pages at least


class PageOrder:
    """Which pages each element of each epoch of each input shard is.

    Raises ValueError for fewer pages than input shards.
    """

    def __init__(self, corpus: CorpusSplit, shards: int, seed: int, number: int = 0) -> None:
        """Order the pages of ``shards`` input shards; ``number`` is the source's in `generator`."""
        if corpus.page_count < shards:
            raise ValueError(
                f"{corpus.folder} has {corpus.page_count} pages in its split {corpus.split!r}, too "
                f"few for {shards} input shards: build a larger corpus, or use fewer hosts"
            )
        self._pages, self._shards = corpus.page_count, shards
        self._seed, self._number = seed, number

    def elements(self, shard: int) -> int:
        """Return the elements of one epoch, all of as many pages, or of one less."""
        return -(-self._pages_of(shard) // GROUP_PAGES)

    def lanes(self, shard: int) -> int:
        """Return the lanes of an input shard."""
        return min(_LANES, self.elements(shard))

    def lane(self, shard: int, element: int) -> int:
        """Return the lane that an element comes from."""
        return self._locate(shard, element)[0]

    def ranges(self, shard: int, epoch: int, element: int) -> list[tuple[int, int]]:
        """Return an element's pages: the first, and the one after the last, of one or two runs."""
        lane, place, parts = self._locate(shard, element)
        begin, end = self._lane_begin(shard, lane), self._lane_begin(shard, lane + 1)
        length = end - begin
        start, stop = (part * length // parts for part in (place, place + 1))
        rotation = _rotation(self._seed, self._number, shard, lane, epoch, length)
        count, first = stop - start, (rotation + start) % length
        before_end = min(count, length - first)
        runs = [(begin + first, begin + first + before_end), (begin, begin + count - before_end)]
        return runs if count > before_end else runs[:1]

    def _begin(self, shard: int) -> int:
        return shard * self._pages // self._shards

    def _pages_of(self, shard: int) -> int:
        return self._begin(shard + 1) - self._begin(shard)

    def _elements_before(self, shard: int, lane: int) -> int:
        return lane * self.elements(shard) // self.lanes(shard)

    def _lane_begin(self, shard: int, lane: int) -> int:
        pages = self._elements_before(shard, lane) * self._pages_of(shard) // self.elements(shard)
        return self._begin(shard) + pages

    def _locate(self, shard: int, element: int) -> tuple[int, int, int]:
        """Return an element's lane, which of the lane's elements it is, and how many these are."""
        before = [self._elements_before(shard, lane) for lane in range(self.lanes(shard) + 1)]
        counts = [end - begin for begin, end in itertools.pairwise(before)]
        place, turn = divmod(element, len(counts))
        # Lanes differ by one element at most; the last turn of an epoch is the longer ones'.
        lane = [lane for lane, count in enumerate(counts) if count > place][turn]
        return lane, place, counts[lane]


@functools.lru_cache(maxsize=1024)
def _rotation(seed: int, number: int, shard: int, lane: int, epoch: int, length: int) -> int:
    """Return the page of a lane that an epoch begins with."""
    rng = generator(seed, Purpose.ROTATION, number, shard, lane, epoch)
    return int(rng.integers(length))


class MeasuredPairs(NamedTuple):
    """Pairs of some pages, and how much text the pages have."""

    text_bytes: int
    tokens: int  #: of the whole pages, without end-of-sequence ids
    pairs: Pairs


class CorpusSource:
    """Pairs that an objective makes of a corpus. Keeps the files that it reads open.

    Raises ValueError as `PageOrder` does.
    """

    def __init__(
        self,
        name: str,
        corpus: CorpusSplit,
        objective: Objective,
        raw_length: int,
        vocabulary: TextIds,
        seed: int,
        shards: int,
        readers: int = 1,
    ) -> None:
        """Make pairs of texts cut to ``raw_length`` tokens; ``readers`` processes share lanes."""
        self.name = name
        self.has_inputs = objective.inputs != "nothing"
        self.page_count, self.text_bytes = corpus.page_count, corpus.text_bytes
        self._number, self._seed = number_of(name), seed
        self.order = PageOrder(corpus, shards, seed, self._number)
        self.elements, self.lane = self.order.elements, self.order.lane
        self._corpus, self._objective, self._raw_length = corpus, objective, raw_length
        self._vocabulary = vocabulary
        self._reader = PageReader(corpus, -(-_LANES // readers) + 1)

    def pairs(self, shard: int, *elements: tuple[int, int]) -> list[Pairs]:
        """Return the pairs of elements. Raises CorpusError for a damaged file."""
        return [found.pairs for found in self.measured_pairs(shard, *elements)]

    def measured_pairs(self, shard: int, *elements: tuple[int, int]) -> list[MeasuredPairs]:
        """Return the pairs of elements, and how much text the pages of each have."""
        texts: list[bytes] = []
        begun = []  # of each element: its epoch, its generator, its pages and their bytes
        for epoch, element in elements:
            rng = generator(self._seed, Purpose.ELEMENT, self._number, shard, epoch, element)
            ranges = self.order.ranges(shard, epoch, element)
            pages = [page for start, stop in ranges for page in self._reader.read_span(start, stop)]
            texts += [pages[i] for i in rng.permutation(len(pages)).tolist()]
            begun.append((epoch, rng, len(pages), sum(map(len, pages))))
        # SentencePiece and NumPy push each other out of the processor's caches: each has its turn.
        encoded = iter(self._vocabulary.encode_batch(texts))
        found = []
        for epoch, rng, count, text_bytes in begun:
            whole = Sequences.of(list(itertools.islice(encoded, count)))
            cut = self._cut(_chunks(whole, rng), epoch, rng)
            pairs = self._objective(cut, self._vocabulary, rng)
            found.append(MeasuredPairs(text_bytes, len(whole.tokens), pairs))
        return found

    def _cut(self, texts: Sequences, epoch: int, rng: np.random.Generator) -> Sequences:
        """Cut texts to the raw length, elsewhere in each epoch."""
        most = self._raw_length
        if most > _RARE_CUT:
            # Inside a long page, one piece in `most` would by chance have the ends of one of the
            # epoch before; without noise, or with few noise tokens, it would be the same piece.
            most -= epoch % _CUTS
        if self._objective.concatenate:
            return texts.joined().cut(most)
        return _begun_anywhere(texts, most, rng).cut(most)

    def identity(self) -> dict[str, Any]:
        """Return the digest of what is read."""
        return {"corpus": self._corpus.digest}


def _chunks(pages: Sequences, rng: np.random.Generator) -> Sequences:
    """Return pages, of long ones a part of `MAX_PAGE_TOKENS` tokens, each equally likely."""
    if int(pages.lengths.max(initial=0)) <= MAX_PAGE_TOKENS:
        return pages
    starts = pages.starts
    for page in np.flatnonzero(pages.lengths > MAX_PAGE_TOKENS):
        starts[page] += MAX_PAGE_TOKENS * rng.integers(-(-pages.lengths[page] // MAX_PAGE_TOKENS))
    stops = np.minimum(starts + MAX_PAGE_TOKENS, pages.ends)
    bounds = zip(starts.tolist(), stops.tolist(), strict=True)
    return Sequences.of([pages.tokens[start:stop] for start, stop in bounds])


def _begun_anywhere(texts: Sequences, most: int, rng: np.random.Generator) -> Sequences:
    """Split a piece of random length, up to ``most``, from the beginning of each longer text."""
    lengths = texts.lengths
    drawn = rng.integers(min(2, most), most + 1, size=len(lengths))  # one token has no two parts
    first = np.where(lengths > most, drawn, lengths)
    return Sequences(texts.tokens, np.stack([first, lengths - first], axis=1).ravel())
