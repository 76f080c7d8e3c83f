"""Batches for a host: a Grain iterator that stops and resumes at any batch, exactly.

The rows are `model.data.rows`'s; here they are made ahead of time, in processes of their own when
asked, and cut into batches. A batch is a function of the configuration and of its number in the
run: workers and hosts change how fast it comes, and nothing in it. Its position is two small
numbers for each input shard.

Grain imports JAX, and worker processes do not import this module.
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import grain

from model.data.batches import HostBatch, concatenated
from model.data.rows import InputConfig, RowMaker, RowOrder, input_option_of
from model.data.workers import Workers

__all__ = ["InputConfig", "InputIterator", "make_input", "merged_states", "validation_batches"]

_STATE_VERSION = 1
_AHEAD = 2  # elements asked for of each worker: one being made, one made
_VALIDATION_SEED = 0  # every evaluation of every run masks the same tokens


def make_input(config: InputConfig, host: tuple[int, int] = (0, 1)) -> "InputIterator":
    """Endless batches for host ``host[0]`` of ``host[1]``: its rows of each global batch.

    The global batch is the hosts' batches one behind the other. Raises ValueError (CorpusError)
    for a corpus that cannot be read so, before any worker starts.
    """
    iterator = iter(_InputDataset(config, host))
    assert isinstance(iterator, InputIterator)
    return iterator


def validation_batches(
    config: InputConfig, batches: int, host: tuple[int, int] = (0, 1)
) -> Iterator[HostBatch]:
    """Yield the first ``batches`` batches of the corpus's validation split, always the same.

    As ``config`` says but for split, seed, ``max_pages`` and workers. A split with less comes
    again, with other tokens masked. Raises CorpusError where the corpus has no validation pages.
    """
    iterator = make_input(
        dataclasses.replace(
            config, split="validation", seed=_VALIDATION_SEED, max_pages=None, workers=0
        ),
        host,
    )
    return (next(iterator) for _ in range(batches))


def merged_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All hosts' states as one, from which any number of hosts may go on."""
    if not states:
        raise ValueError("there must be at least one state to merge")
    merged = {**states[0], "shards": {}}
    for state in states:
        if differing := _difference(state["identity"], merged["identity"]):
            raise ValueError(f"the hosts' states are of different inputs: {differing}")
        merged["shards"] |= state["shards"]
    return merged


class _InputDataset(grain.IterDataset[HostBatch]):  # type: ignore[misc]
    def __init__(self, config: InputConfig, host: tuple[int, int]) -> None:
        super().__init__()
        self._config = config
        self._host = host

    def __iter__(self) -> "InputIterator":
        return InputIterator(self._config, self._host)

    def __str__(self) -> str:
        return f"InputDataset({self._config.corpus!r}, host {self._host[0]} of {self._host[1]})"


class InputIterator(grain.DatasetIterator[HostBatch]):  # type: ignore[misc]
    """Batches of one host. For one thread at a time; `close` ends its workers."""

    def __init__(self, config: InputConfig, host: tuple[int, int]) -> None:
        super().__init__()
        self._elements: _Elements | None = None  # Grain closes what could not be made, too
        shards = config.shards_of(*host)
        count = config.input_shards or host[1]
        maker = RowMaker(config, count)
        self._identity = config.identity(count)
        self._spec = config.batch_spec(host[1])
        self._rows_each = self._spec.batch_size // len(shards)
        elements: _Elements = _InThisProcess(maker)
        if config.workers:
            workers = Workers(config.workers, RowMaker, config, count, config.workers)
            elements = _FromWorkers(workers, maker.order, len(shards))
        self._elements = elements
        self._streams = [_Stream(shard, maker.order.elements(shard), elements) for shard in shards]

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
                stream.go_to(*position)
            raise
        batch = concatenated(parts)
        self._spec.check(batch)
        return batch

    def get_state(self) -> dict[str, Any]:
        """Where the next batch begins, as JSON values.

        ``shards`` maps each input shard's number to its next element and the rows of it that
        were given out already; ``identity`` is what the numbers mean.
        """
        return {
            "version": _STATE_VERSION,
            "identity": dict(self._identity),
            "shards": {str(stream.shard): list(stream.position) for stream in self._streams},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to where a state was taken, by this host or, merged, by any.

        Raises ValueError, naming the difference, for a state of another input: another corpus,
        seed, objective, length, or number of input shards.
        """
        if state.get("version") != _STATE_VERSION:
            raise ValueError(
                f"input state must be of version {_STATE_VERSION}, got {state.get('version')!r}"
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
            element, row = state["shards"][str(stream.shard)]
            stream.go_to(int(element), int(row))

    def epoch(self, state: Mapping[str, Any], rows_per_element: float) -> float:
        """Return how many times the corpus has been read before a position; 1.5 is halfway.

        Args:
          state: of ``get_state``.
          rows_per_element: on average, to tell how much of an element has been read.
        """
        total = 0.0
        for stream in self._streams:
            element, row = state["shards"][str(stream.shard)]
            part = min(1.0, row / rows_per_element) if rows_per_element else 0.0
            total += (element + part) / stream.elements
        return total / len(self._streams)

    def start_prefetch(self) -> None:
        """Lets the workers begin before the first batch is asked for."""
        for stream in self._streams:
            stream.expect()

    def close(self) -> None:
        """End the workers; no batch can be asked for any more."""
        self._closed = True
        if self._elements is not None:
            self._elements.close()

    def __str__(self) -> str:
        return f"InputIterator(input shards {[stream.shard for stream in self._streams]})"


class _Elements(Protocol):
    """Rows of elements, each input shard's in order."""

    def expect(self, shard: int, element: int) -> None:
        """Says which element of a shard is asked for next."""

    def get(self, shard: int, element: int) -> HostBatch:
        """One element's rows."""

    def close(self) -> None:
        """End what makes them."""


class _InThisProcess:
    def __init__(self, maker: RowMaker) -> None:
        self._maker: RowMaker | None = maker

    def expect(self, shard: int, element: int) -> None:
        """Nothing is made ahead."""

    def get(self, shard: int, element: int) -> HostBatch:
        if self._maker is None:
            raise ValueError("the input was closed")
        return self._maker(shard, element)

    def close(self) -> None:
        self._maker = None


class _FromWorkers:
    """Elements by the process that reads their lane, asked for ahead of time."""

    def __init__(self, workers: Workers, order: RowOrder, shards: int) -> None:
        self._workers = workers
        self._order = order
        self._ahead = max(1, -(-_AHEAD * len(workers) // shards))
        # Of each shard: the first element asked for and not given out, and its ticket and others'.
        self._first: dict[int, int] = {}
        self._tickets: dict[int, collections.deque[int]] = {}

    def expect(self, shard: int, element: int) -> None:
        if self._first.get(shard) != element:
            self._forget(shard)
            self._first[shard] = element
        tickets = self._tickets[shard]
        while len(tickets) < self._ahead:
            coming = element + len(tickets)
            worker = (shard + self._order.lane(shard, coming)) % len(self._workers)
            tickets.append(self._workers.submit(worker, shard, coming))

    def get(self, shard: int, element: int) -> HostBatch:
        self.expect(shard, element)
        try:
            rows: HostBatch = self._workers.fetch(self._tickets[shard].popleft())
        except BaseException:
            self._forget(shard)
            raise
        self._first[shard] = element + 1
        self.expect(shard, element + 1)
        return rows

    def _forget(self, shard: int) -> None:
        for ticket in self._tickets.get(shard, ()):
            self._workers.cancel(ticket)
        self._tickets[shard] = collections.deque()
        self._first.pop(shard, None)

    def close(self) -> None:
        self._workers.close()


class _Stream:
    """Rows of one input shard, one element's behind the other's."""

    def __init__(self, shard: int, count: int, elements: _Elements) -> None:
        self.shard = shard
        self.elements = count  # until every page was there once
        self._elements = elements
        self.go_to(0, 0)

    @property
    def position(self) -> tuple[int, int]:
        """The element that the next row is of, and the rows before it there."""
        return self._element, self._row

    def go_to(self, element: int, row: int) -> None:
        """Make the next row another."""
        self._element, self._row = element, row
        self._rows: HostBatch | None = None

    def expect(self) -> None:
        """Lets what comes next be made ahead."""
        self._elements.expect(self.shard, self._element)

    def take(self, count: int) -> list[HostBatch]:
        """Return the next ``count`` rows, in parts."""
        parts: list[HostBatch] = []
        empty = 0
        while count:
            if self._rows is None:
                self._rows = self._elements.get(self.shard, self._element)
            held = len(self._rows["decoder_segments"])
            if self._row < held:
                until = min(held, self._row + count)
                parts.append({name: a[self._row : until] for name, a in self._rows.items()})
                count -= until - self._row
                self._row = until
                empty = 0
            if self._row >= held:
                empty += not held
                if empty > self.elements:
                    raise ValueError(
                        f"input shard {self.shard} has no page with a token to train on: build "
                        "a larger corpus"
                    )
                self.go_to(self._element + 1, 0)
        return parts


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    for name in (*wanted, *found):
        if found.get(name) != wanted.get(name):
            option = input_option_of(name)
            return (
                f"{name} is {found.get(name)!r} there and {wanted.get(name)!r} here"
                f"{f' ({option})' if option else ''}"
            )
    return ""
