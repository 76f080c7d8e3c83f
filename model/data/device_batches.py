"""Batches on devices, made there before the step that needs them asks."""

import math
import queue
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import jax

from model.data.batches import BatchSpec
from model.data.input_pipeline import InputIterator

_POLL_S = 0.1  # how soon the thread sees that it is to stop


class DeviceBatches:
    """Global arrays from each host's batches, ``ahead`` of them on the devices before their time.

    A thread takes batches from the iterator and sends them; `__next__` waits only where it has
    not kept up, so the time spent there is what training loses to its input. `get_state` is the
    position behind the batch returned last, however many more are on their way. The iterator is
    the thread's alone, and `close` closes it too.
    """

    def __init__(
        self,
        batches: InputIterator,
        spec: BatchSpec,
        sharding: jax.sharding.Sharding | Mapping[str, jax.sharding.Sharding],
        ahead: int = 2,
    ) -> None:
        """Of arrays as the global ``spec`` has them, under one sharding or one for each name.

        Raises ValueError for an ``ahead`` below 1, or a sharding that does not fit the arrays.
        """
        if ahead < 1:
            raise ValueError(f"ahead must be at least 1, got {ahead}")
        self._batches = batches
        self._arrays: dict[str, tuple[tuple[int, ...], jax.sharding.Sharding]] = {}
        for name, (shape, _) in spec.arrays.items():
            of_name = sharding[name] if isinstance(sharding, Mapping) else sharding
            of_name.shard_shape(shape)  # raises ValueError where the devices do not divide it
            self._arrays[name] = shape, of_name
        self._ahead = ahead
        self._state = batches.get_state()
        self._epoch = math.nan
        self._stop: weakref.finalize[Any, Any] | None = None
        self._ready: queue.Queue[Any] = queue.Queue()

    def __iter__(self) -> "DeviceBatches":
        return self

    def __next__(self) -> dict[str, jax.Array]:
        """Return the next batch. Raises what the iterator raised, each time it is called."""
        self.start()
        outcome, value, state, epoch = self._ready.get()
        if outcome == "error":
            self._halt()
            raise value
        self._state, self._epoch = state, epoch
        arrays: dict[str, jax.Array] = value
        return arrays

    def start(self) -> None:
        """Begins to fetch, if it has not begun: while a step is being compiled, say."""
        if self._stop is not None:
            return
        self._ready = queue.Queue(self._ahead)
        stopping = threading.Event()
        thread = threading.Thread(
            target=_fill,
            args=(self._batches, self._arrays, self._ready, stopping),
            name="device-batches",
            daemon=True,
        )
        thread.start()
        # Also at the interpreter's end: a thread inside JAX then would crash it.
        self._stop = weakref.finalize(self, _end, thread, stopping)

    def get_state(self) -> dict[str, Any]:
        """Return the iterator's state after the batch that was returned last."""
        return self._state

    def epoch(self) -> float:
        """Return how often the data has been read up to the batch returned last; NaN before it."""
        return self._epoch

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to where a state was taken; raises ValueError as the iterator does."""
        self._halt()
        self._batches.set_state(state)
        self._state = self._batches.get_state()

    def close(self) -> None:
        """End the thread and the iterator's workers."""
        self._halt()
        self._batches.close()

    def _halt(self) -> None:
        """Stop fetching and discard pending data."""
        if self._stop is not None:
            self._stop()
            self._stop = None


def _fill(
    batches: InputIterator,
    arrays: Mapping[str, tuple[tuple[int, ...], jax.sharding.Sharding]],
    ready: "queue.Queue[Any]",
    stopping: threading.Event,
) -> None:
    while not stopping.is_set():
        entry: tuple[str, Any, Any, float]
        try:
            batch = next(batches)
            sent = {
                name: jax.make_array_from_process_local_data(  # type: ignore[no-untyped-call]
                    sharding, batch[name], shape
                )
                for name, (shape, sharding) in arrays.items()
            }
            entry = "batch", sent, batches.get_state(), batches.epoch()
        except BaseException as error:
            entry = "error", error, None, math.nan
        while not stopping.is_set():
            try:
                ready.put(entry, timeout=_POLL_S)
                break
            except queue.Full:
                continue
        if entry[0] == "error":
            return


def _end(thread: threading.Thread, stopping: threading.Event) -> None:
    stopping.set()
    thread.join()
