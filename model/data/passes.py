"""How much text a corpus holds for a run, and how many times the run reads all of it."""

import dataclasses

from model.data.rows import InputConfig, RowMaker

__all__ = ["CorpusSize", "corpus_size"]

#: Tokens after which an estimate is good enough. Shards hold pages in the order of a hash, so the
#: first groups of a corpus are a random sample of it.
_ENOUGH_TOKENS = 500_000


@dataclasses.dataclass(frozen=True)
class CorpusSize:
    """The size of a corpus after tokenization and packing, measured on its first pages."""

    pages: int
    tokens: int  #: of all pages, without end-of-sequence ids
    rows: float  #: packed rows in one pass over the corpus
    rows_per_element: float
    exact: bool  #: whether all pages were measured

    def passes(self, rows: int) -> float:
        """Return how many times reading ``rows`` packed rows reads the whole corpus."""
        return rows / self.rows if self.rows else float("inf")

    def described(self, rows: int) -> str:
        """Return a line about a run that reads ``rows`` packed rows.

        >>> CorpusSize(100, 80_000, 160.0, 160.0, True).described(524_288 * 128)
        '100 pages, 80,000 tokens: the run reads the corpus 419,430.4 times'
        """
        about = "" if self.exact else "about "
        passes = self.passes(rows)
        digits = 1 if passes >= 10 else 2 if passes >= 0.1 else 4
        return (
            f"{self.pages:,} pages, {about}{self.tokens:,} tokens: the run reads the corpus "
            f"{about}{passes:,.{digits}f} times"
        )


def corpus_size(config: InputConfig, shards: int = 1) -> CorpusSize:
    """Measure the corpus of a run.

    Small corpora are measured whole; of large ones, the first half a million tokens.

    Args:
      config: the run's input.
      shards: input shards of the run.

    Raises CorpusError and ValueError as ``RowMaker`` does.
    """
    maker = RowMaker(config, shards)
    corpus = config.open()
    counts = [maker.order.elements(shard) for shard in range(shards)]
    pages = tokens = rows = elements = 0
    turns = ((shard, turn) for turn in range(max(counts)) for shard in range(shards))
    for shard, turn in turns:
        if turn >= counts[shard]:
            continue
        _, start, stop = maker.order.group(shard, turn)
        found, made = maker.measure(shard, turn)
        pages, tokens = pages + stop - start, tokens + found
        rows, elements = rows + made, elements + 1
        if tokens >= _ENOUGH_TOKENS:
            break
    share = pages / corpus.page_count
    return CorpusSize(
        pages=corpus.page_count,
        tokens=round(tokens / share),
        rows=rows / share,
        rows_per_element=rows / elements,
        exact=elements == sum(counts),
    )
