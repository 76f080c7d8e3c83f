"""Traces of steps, for TensorBoard's profile page."""

import os

import jax


class Profiler:
    """Traces some steps with JAX's profiler, once those that are slow for being first are over."""

    _FIRST = 3

    def __init__(self, folder: os.PathLike[str], steps: int) -> None:
        self._folder, self._steps, self._running = folder, steps, False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def step(self, number: int) -> None:
        """Start or stop tracing before a step, counted from 1 at each start."""
        if self._steps and number == self._FIRST:
            jax.profiler.start_trace(os.fspath(self._folder))
            self._running = True
        elif number == self._FIRST + self._steps:
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()  # type: ignore[no-untyped-call]
