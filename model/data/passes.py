"""How much a run's sources hold, and how many times the run reads all of each."""

import dataclasses
import itertools

import numpy as np

from model.data.input_config import InputConfig
from model.data.mixing import BLOCK_DRAWS, draw_block
from model.data.rows import RowPacker
from model.data.sequences import Sequences
from model.data.sources.corpus import CorpusSource
from model.data.sources.source import Pairs
from model.data.sources.task import TaskSource

#: Tokens after which an estimate is good enough. Shards hold pages in the order of a hash, so the
#: elements of a corpus are random samples of it.
_ENOUGH_TOKENS = 500_000
_MEASURED_BLOCKS = 4


@dataclasses.dataclass(frozen=True)
class SourceSize:
    """The size of a source.

    Attributes:
        name: Of the source.
        rate: The probability that a draw takes it.
        examples: Pairs of one pass over it.
        pages: Of a corpus; None for a task.
        tokens: Of all pages, without end-of-sequence ids; None for a task.
        exact: Whether all pages were measured.
    """

    name: str
    rate: float
    examples: float
    pages: int | None = None
    tokens: int | None = None
    exact: bool = True

    def described(self, passes: float) -> str:
        """Return a line about a run that reads the source so many times.

        >>> SourceSize("c4", 1.0, 160.0, 100, 80_000).described(419_430.4)
        '100 pages, 80,000 tokens: the run reads the corpus 419,430.4 times'
        >>> SourceSize("glue_cola", 0.1, 8551).described(3.065)
        '8,551 examples: the run reads them 3.06 times'
        >>> SourceSize("c4", 1.0, 9e4, 12_345, 5_763_312, exact=False).described(0.5)
        '12,345 pages, about 5.8 million tokens: the run reads the corpus about 0.50 times'
        """
        about = "" if self.exact else "about "
        digits = 1 if passes >= 10 else 2 if passes >= 0.1 else 4
        times = f"{about}{passes:,.{digits}f} times"
        if self.pages is None:
            return f"{self.examples:,.0f} examples: the run reads them {times}"
        tokens = f"{self.tokens:,}" if self.exact or self.tokens is None else _rounded(self.tokens)
        return f"{self.pages:,} pages, {about}{tokens} tokens: the run reads the corpus {times}"


def _rounded(number: int) -> str:
    """Return an estimate with the two digits that it is good for.

    >>> _rounded(6_365_103), _rounded(637_000), _rounded(9_960_000_000), _rounded(8_049)
    ('6.4 million', '640,000', '10 billion', '8,000')
    """
    number = int(float(f"{number:.1e}"))
    for scale, name in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if number >= scale:
            return f"{number / scale:,.{int(number < 10 * scale)}f} {name}"
    return f"{number:,}"


@dataclasses.dataclass(frozen=True)
class InputSize:
    """The sizes of a run's sources, and how many examples a packed row holds on average."""

    sources: tuple[SourceSize, ...]
    examples_per_row: float

    def passes(self, rows: int) -> dict[str, float]:
        """Return how many times reading ``rows`` packed rows reads all of each source."""
        return {
            size.name: rows * self.examples_per_row * size.rate / size.examples
            if size.examples
            else float("inf")
            for size in self.sources
        }

    def lines(self, rows: int) -> list[str]:
        """Return a line on each source: how often a run of ``rows`` rows reads it."""
        passes = self.passes(rows)
        return [
            f"{'corpus' if size.pages is not None else size.name}: "
            f"{size.described(passes[size.name])}"
            for size in self.sources
        ]

    def mixture(self) -> str:
        """Return the rates in a line; empty for a single source.

        >>> cola, c4 = SourceSize("glue_cola", 0.0123, 8551), SourceSize("c4", 0.9877, 10.0)
        >>> InputSize((c4, cola), 1.0).mixture()
        'mixture: c4 0.988, glue_cola 0.0123'
        """
        if len(self.sources) == 1:
            return ""
        rates = ", ".join(f"{size.name} {size.rate:.3g}" for size in self.sources)
        return f"mixture: {rates}"


def input_size(config: InputConfig, shards: int = 1) -> InputSize:
    """Measure the sources of a run.

    Small corpora are measured whole; of large ones, half a million tokens.

    Args:
      config: the run's input.
      shards: input shards of the run.

    Raises CorpusError and ValueError as ``InputConfig.sources`` does.
    """
    measure = _Measure(config, shards)
    sizes = tuple(map(measure.size, range(len(config.rates))))
    return InputSize(sizes, measure.examples_per_row())


class _Measure:
    """Measures sources, and keeps the first pairs of each to measure their rows."""

    def __init__(self, config: InputConfig, shards: int) -> None:
        self._config, self._shards = config, shards
        self._sources = config.sources(shards)
        self._rates = list(config.rates.values())
        self._kept: list[list[Pairs]] = [[] for _ in self._sources]

    def size(self, number: int) -> SourceSize:
        source, rate = self._sources[number], self._rates[number]
        if isinstance(source, TaskSource):
            self._kept[number] += source.pairs(0, (0, 0))
            return SourceSize(source.name, rate, source.examples)
        assert isinstance(source, CorpusSource)
        counts = [source.elements(shard) for shard in range(self._shards)]
        pages = text_bytes = tokens = examples = elements = 0
        for turn, shard in itertools.product(range(max(counts)), range(self._shards)):
            if turn >= counts[shard]:
                continue
            (found,) = source.measured_pairs(shard, (0, turn))
            pages += sum(end - begin for begin, end in source.order.ranges(shard, 0, turn))
            text_bytes, tokens = text_bytes + found.text_bytes, tokens + found.tokens
            examples, elements = examples + len(found.pairs[1]), elements + 1
            if len(found.pairs[1]):
                self._kept[number].append(found.pairs)
            if tokens >= _ENOUGH_TOKENS:
                break
        exact = elements == sum(counts)
        share = 1.0 if exact else pages / source.page_count
        if source.text_bytes and not exact:  # pages differ in length more than text in its tokens
            share = text_bytes / source.text_bytes
        return SourceSize(
            name=source.name,
            rate=rate,
            examples=examples / share,
            pages=source.page_count,
            tokens=round(tokens / share),
            exact=exact,
        )

    def examples_per_row(self) -> float:
        """Return the examples of a row, packing the pairs kept as the run will pack its own."""
        if not all(self._kept):
            return 0.0  # a source has nothing to train on, which the run will say
        pools = [tuple(map(Sequences.concatenated, zip(*each, strict=True))) for each in self._kept]
        packer, drawn, rows = RowPacker(self._config), 0, 0
        for number in range(_MEASURED_BLOCKS):
            block = draw_block(self._rates, self._config.seed, 0, number)
            parts = [
                # In the order in which they come, and again where they are few.
                [side.take((np.arange(count) + number * count) % len(side)) for side in pool]
                for pool, count in zip(pools, block.counts.tolist(), strict=True)
            ]
            inputs, targets = map(Sequences.concatenated, zip(*parts, strict=True))
            has_inputs = np.repeat([s.has_inputs for s in self._sources], block.counts)
            packed = packer(inputs, targets, has_inputs, block.order)
            drawn, rows = drawn + BLOCK_DRAWS, rows + len(packed["decoder_segments"])
        return drawn / rows
