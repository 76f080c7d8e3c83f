"""Batches for a host: an iterator that stops and resumes at any batch, exactly.

::

    sources      pairs of inputs and targets, in elements (``model.data.sources``)
    blocks       of an input shard: which sources the next 512 examples are drawn from
                 (``model.data.mixing``)
    rows         the examples of a block, packed (``model.data.rows``)
    batches      rows of all input shards

Elements are made ahead of time, in processes of their own when asked; this process draws and packs.
A batch is a function of the configuration and of its number in the run: workers and hosts change
how fast it comes, and nothing in it. Its position is some small numbers for each input shard: the
block, how many of its rows were given out, and where each source stood when the block began.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from model.data.batches import HostBatch, concatenated
from model.data.input_config import InputConfig, input_option_of
from model.data.mixing import BLOCK_DRAWS, draw_block
from model.data.rows import RowPacker
from model.data.sequences import Sequences
from model.data.sources.source import Pairs, Source
from model.data.workers import Workers
from model.tasks.mixtures import C4

_STATE_VERSION = 2
_AHEAD = 2  # elements asked for of each worker: one being made, one made
#: Elements made at once in this process, of all input shards: 0.8 MB each. With eight, all takes
#: 1 % longer, as SentencePiece finds its model out of the caches twice as often; 32 gain nothing.
_TOGETHER = 16
_TYPICAL_PAIRS = 128  # of an element, before one was seen
_VALIDATION_SEED = 0  # every evaluation of every run masks the same tokens


def make_input(config: InputConfig, host: tuple[int, int] = (0, 1)) -> "InputIterator":
    """Return endless batches for host ``host[0]`` of ``host[1]``: its rows of each global batch.

    The global batch is the hosts' batches one behind the other. Raises ValueError (CorpusError)
    for a corpus or tasks that cannot be read so, before any worker starts.
    """
    return InputIterator(config, host)


def validation_inputs(config: InputConfig) -> dict[str, InputConfig]:
    """Return the inputs that evaluate a run: of each source, its validation split alone.

    Their rows have the lengths of the run's. The corpus is ``c4``; a task has its own name, with
    the split's behind it where there are several, and is absent without a validation split.
    """
    alone = dataclasses.replace(
        config, split="validation", seed=_VALIDATION_SEED, max_pages=None, workers=0
    )
    inputs: dict[str, InputConfig] = {}
    if C4 in config.rates:
        others = tuple(dataclasses.replace(task, rate=0.0) for task in config.tasks)
        inputs[C4] = dataclasses.replace(alone, corpus_rate=1.0, tasks=others)
    for task in config.tasks:
        for split in task.open().validation_splits if task.rate else ():
            name = f"{task.name}{split.removeprefix('validation')}"
            of_split = dataclasses.replace(task, split=split, rate=1.0)
            inputs[name] = dataclasses.replace(alone, corpus_rate=0.0, tasks=(of_split,))
    return inputs


def validation_batches(
    config: InputConfig, batches: int, host: tuple[int, int] = (0, 1), name: str = C4
) -> Iterator[HostBatch]:
    """Yield the first ``batches`` batches of one of `validation_inputs`, always the same.

    A corpus with less comes again, with other tokens masked; a task gives no more batches than its
    examples fill with a row each. Raises CorpusError where the corpus has no validation pages.
    """
    inputs = validation_inputs(config)[name]
    for task in inputs.tasks:
        if task.rate:
            examples = task.open().pair_counts[task.split]
            batches = min(batches, -(-examples // config.batch_size))
    return itertools.islice(make_input(inputs, host), batches)


def merged_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge all hosts' states into one, from which any number of hosts may go on."""
    if not states:
        raise ValueError("there must be at least one state to merge")
    merged = {**states[0], "shards": {}}
    for state in states:
        if differing := _difference(state["identity"], merged["identity"]):
            raise ValueError(f"the hosts' states are of different inputs: {differing}")
        merged["shards"] |= state["shards"]
    return merged


class PairMaker:
    """Makes any element of any source of an input."""

    def __init__(self, config: InputConfig, shards: int, readers: int = 1) -> None:
        """Open the sources of ``shards`` input shards; ``readers`` makers share the elements."""
        self.sources = config.sources(shards, readers)

    def __call__(self, source: int, shard: int, element: int, count: int = 1) -> list[Pairs]:
        """Return the pairs of ``count`` elements: of one, counted from the run's beginning, and on.

        Several together take less time each.
        """
        made = self.sources[source]
        of_epoch = made.elements(shard)
        return made.pairs(shard, *(divmod(element + k, of_epoch) for k in range(count)))


class InputIterator(Iterator[HostBatch]):
    """Batches of one host. For one thread at a time; `close` ends its workers."""

    def __init__(self, config: InputConfig, host: tuple[int, int] = (0, 1)) -> None:
        shards = config.shards_of(*host)
        count = config.input_shards or host[1]
        maker = PairMaker(config, count)
        self._identity = config.identity(count, maker.sources)
        self._spec = config.batch_spec(host[1])
        self._rows_each = self._spec.batch_size // len(shards)
        self._elements: _InThisProcess | _FromWorkers = _InThisProcess(maker, len(shards))
        if config.workers:
            workers = Workers(config.workers, PairMaker, config, count, config.workers)
            self._elements = _FromWorkers(workers, maker.sources, len(shards))
        packer = RowPacker(config)
        self._streams = [
            _ShardStream(config, shard, maker.sources, self._elements, packer) for shard in shards
        ]

    def __next__(self) -> HostBatch:
        """Return the next batch: this host's rows, as `InputConfig.batch_spec` describes them.

        Raises ValueError (CorpusError) for damaged shards, WorkerEndedError for workers that end
        again and again; the position is then what it was.
        """
        positions = [stream.position for stream in self._streams]
        try:
            parts = [part for stream in self._streams for part in stream.take(self._rows_each)]
        except BaseException:
            for stream, position in zip(self._streams, positions, strict=True):
                stream.go_to(position)
            raise
        batch = concatenated(parts)
        self._spec.check(batch)
        return batch

    def get_state(self) -> dict[str, Any]:
        """Return where the next batch begins, as JSON values.

        ``shards`` maps each input shard's number to its block, the rows of it that were given out
        already, and each source's element and examples of it that earlier blocks took;
        ``identity`` is what the numbers mean.
        """
        return {
            "version": _STATE_VERSION,
            "identity": dict(self._identity),
            "shards": {str(stream.shard): stream.position for stream in self._streams},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where a state was taken: by this host or, if merged, by any.

        Raises ValueError, naming the difference, for a state of another input: another corpus,
        seed, objective, length, mixture, or number of input shards.
        """
        if state.get("version") != _STATE_VERSION:
            raise ValueError(
                f"the saved position in the data is of version {state.get('version')!r}, and this "
                f"program reads version {_STATE_VERSION}: begin a new run (--out), which may start "
                "with the parameters of this one (--init-from)"
            )
        if differing := _difference(state["identity"], self._identity):
            raise ValueError(
                f"the saved position is of another input: {differing}; use the settings that the "
                "run was begun with, or begin a new run (--out)"
            )
        lacking = [s.shard for s in self._streams if str(s.shard) not in state["shards"]]
        if lacking:
            raise ValueError(
                f"the saved position lacks input shards {lacking}: merge the states of all hosts"
            )
        for stream in self._streams:
            stream.go_to(state["shards"][str(stream.shard)])

    def epochs(self) -> dict[str, float]:
        """Return how many times each source has been read by this host; 1.5 is halfway."""
        return {
            name: sum(stream.passes(k) for stream in self._streams) / len(self._streams)
            for k, name in enumerate(self._streams[0].names)
        }

    def epoch(self) -> float:
        """Return how many times the corpus has been read; without one, the tasks on average.

        Tasks weigh as much as they have elements.
        """
        epochs = self.epochs()
        if C4 in epochs:
            return epochs[C4]
        weights = [sum(each) for each in zip(*(s.elements for s in self._streams), strict=True)]
        return float(np.average(list(epochs.values()), weights=weights))

    def close(self) -> None:
        """End the workers; no batch can be asked for any more."""
        self._elements.close()


class _InThisProcess:
    """Elements made when asked for, some together where a source is read on."""

    def __init__(self, maker: PairMaker, shards: int) -> None:
        self._maker: PairMaker | None = maker
        self._together = max(1, _TOGETHER // shards)
        # Of each source and shard: the first element not given out, and from there on those made.
        self._made: dict[tuple[int, int], tuple[int, collections.deque[Pairs]]] = {}

    def expect(self, source: int, shard: int, element: int, share: float, least: int) -> None:
        """Make nothing ahead."""

    def get(self, source: int, shard: int, element: int) -> Pairs:
        if self._maker is None:
            raise ValueError("the input was closed")
        first, made = self._made.pop((source, shard), (None, collections.deque[Pairs]()))
        if first != element:
            made.clear()
        if not made:
            where = source, shard, element
            try:
                made += self._maker(*where, self._together if first == element else 1)
            except (OSError, ValueError):  # perhaps in one that is not due yet
                made += self._maker(*where)
        pairs = made.popleft()
        self._made[source, shard] = element + 1, made
        return pairs

    def close(self) -> None:
        self._maker = None


class _FromWorkers:
    """Elements by the process that reads their lane, asked for ahead of time."""

    def __init__(self, workers: Workers, sources: Sequence[Source], shards: int) -> None:
        self._workers = workers
        self._sources = sources
        self._ahead = _AHEAD * len(workers) / shards
        # Of each source and shard: the first element asked for and not given out, and its ticket
        # and others'.
        self._first: dict[tuple[int, int], int] = {}
        self._tickets: dict[tuple[int, int], collections.deque[int]] = {}

    def expect(self, source: int, shard: int, element: int, share: float, least: int) -> None:
        """Ask for the element that comes next, and for those behind it that are wanted soon.

        These are at least ``least``, or this source's ``share`` of what the shard may have ahead.
        """
        key = source, shard
        if self._first.get(key) != element:
            self._forget(key)
            self._first[key] = element
        tickets, of_epoch = self._tickets[key], self._sources[source].elements(shard)
        while len(tickets) < max(1, least, math.ceil(self._ahead * share)):
            coming = element + len(tickets)
            lane = self._sources[source].lane(shard, coming % of_epoch)
            worker = (source + shard + lane) % len(self._workers)
            tickets.append(self._workers.submit(worker, source, shard, coming))

    def get(self, source: int, shard: int, element: int) -> Pairs:
        key = source, shard
        if self._first.get(key) != element or not self._tickets[key]:
            self.expect(source, shard, element, 0.0, 1)
        try:
            pairs: Pairs = self._workers.fetch(self._tickets[key].popleft())[0]
        except BaseException:
            self._forget(key)
            raise
        self._first[key] = element + 1
        return pairs

    def _forget(self, key: tuple[int, int]) -> None:
        for ticket in self._tickets.get(key, ()):
            self._workers.cancel(ticket)
        self._tickets[key] = collections.deque()
        self._first.pop(key, None)

    def close(self) -> None:
        self._workers.close()


#: What gives pairs of elements, those of a source and an input shard in order.
_Elements = _InThisProcess | _FromWorkers


class _SourceStream:
    """Pairs of one source in one input shard, one element's behind the other's."""

    def __init__(
        self, number: int, source: Source, shard: int, rate: float, elements: _Elements
    ) -> None:
        self._elements = source.elements(shard)  # of one epoch
        self._number, self._shard, self._rate = number, shard, rate
        self._made = elements
        self._typical = _TYPICAL_PAIRS
        self.go_to((0, 0))

    @property
    def position(self) -> tuple[int, int]:
        """The element that the next pair is of, and the pairs before it there."""
        return self._element, self._offset

    def go_to(self, position: tuple[int, int]) -> None:
        """Continue with the pair at a position."""
        self._element, self._offset = position
        self._pairs: Pairs | None = None

    @property
    def passes(self) -> float:
        """The number of times that the source has been read before the next pair."""
        part = self._offset / len(self._loaded()[1]) if self._offset else 0.0
        return (self._element + part) / self._elements

    def expect(self) -> None:
        """Let what the next block takes be made ahead."""
        least = math.ceil(self._rate * BLOCK_DRAWS / self._typical)
        element = self._element + (self._pairs is not None)
        self._made.expect(self._number, self._shard, element, self._rate, least)

    def take(self, count: int) -> list[Pairs]:
        """Return the next ``count`` pairs, in parts."""
        parts: list[Pairs] = []
        empty = 0
        while count:
            inputs, targets = self._loaded()
            held, begin = len(targets), self._offset
            if begin < held:
                self._typical, empty = held, 0
                self._offset = min(held, begin + count)
                count -= self._offset - begin
                parts.append((inputs.part(begin, self._offset), targets.part(begin, self._offset)))
            if self._offset >= held:
                empty += not held
                if empty > self._elements:
                    raise ValueError(
                        f"input shard {self._shard} has no page with a token to train on: build "
                        "a larger corpus"
                    )
                self.go_to((self._element + 1, 0))
                self.expect()
        return parts

    def _loaded(self) -> Pairs:
        if self._pairs is None:
            self._pairs = self._made.get(self._number, self._shard, self._element)
            self.expect()
        return self._pairs


class _ShardStream:
    """Rows of one input shard, one block's behind the other's."""

    def __init__(
        self,
        config: InputConfig,
        shard: int,
        sources: Sequence[Source],
        elements: _Elements,
        packer: RowPacker,
    ) -> None:
        self.shard = shard
        self._seed, self._rates = config.seed, list(config.rates.values())
        self._packer = packer
        self._streams = [
            _SourceStream(number, source, shard, rate, elements)
            for number, (source, rate) in enumerate(zip(sources, self._rates, strict=True))
        ]
        #: Names of the sources, and the elements of an epoch of each.
        self.names = [source.name for source in sources]
        self.elements = [source.elements(shard) for source in sources]
        self._has_inputs = np.array([source.has_inputs for source in sources])
        self._rows: HostBatch | None = None
        self._begin_block(0)

    @property
    def position(self) -> dict[str, Any]:
        """The block, the rows of it given out, and where its sources began, as JSON values."""
        begun = {name: list(p) for name, p in zip(self.names, self._begun, strict=True)}
        return {"block": self._block, "row": self._row, "sources": begun}

    def go_to(self, position: Mapping[str, Any]) -> None:
        """Continue with the row at a position."""
        for name, stream in zip(self.names, self._streams, strict=True):
            element, offset = position["sources"][name]
            stream.go_to((int(element), int(offset)))
        self._begin_block(int(position["block"]))
        self._row = int(position["row"])

    def passes(self, source: int) -> float:
        """Return how many times a source has been read before the next row."""
        before = self._passes_begun(source)
        if self._rows is None:
            return before
        part = self._row / len(self._rows["decoder_segments"])
        return before + part * (self._streams[source].passes - before)

    def take(self, count: int) -> list[HostBatch]:
        """Return the next ``count`` rows, in parts."""
        parts: list[HostBatch] = []
        while count:
            if self._rows is None:
                self._rows = self._made()
            held = len(self._rows["decoder_segments"])
            until = min(held, self._row + count)
            parts.append({name: a[self._row : until] for name, a in self._rows.items()})
            count -= until - self._row
            self._row = until
            if until == held:
                self._begin_block(self._block + 1)
        return parts

    def _begin_block(self, block: int) -> None:
        self._block, self._row = block, 0
        self._begun = [stream.position for stream in self._streams]
        self._passes: list[float] | None = None
        self._rows = None

    def _passes_begun(self, source: int) -> float:
        if self._passes is None:
            self._passes = [stream.passes for stream in self._streams]
        return self._passes[source]

    def _made(self) -> HostBatch:
        """Draw and pack the block's examples."""
        for stream in self._streams:
            stream.expect()
        self._passes = [stream.passes for stream in self._streams]
        drawn = draw_block(self._rates, self._seed, self.shard, self._block)
        parts = [
            part
            for stream, count in zip(self._streams, drawn.counts.tolist(), strict=True)
            for part in stream.take(count)
        ]
        inputs, targets = map(Sequences.concatenated, zip(*parts, strict=True))
        with_inputs = np.repeat(self._has_inputs, drawn.counts)
        return self._packer(inputs, targets, with_inputs, drawn.order)


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    for name in (*wanted, *found):
        if found.get(name) != wanted.get(name):
            option = input_option_of(name)
            return (
                f"{name} is {found.get(name)!r} there and {wanted.get(name)!r} here"
                f"{f' ({option})' if option else ''}"
            )
    return ""
