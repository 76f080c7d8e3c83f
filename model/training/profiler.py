"""Traces of steps, for TensorBoard's profile page."""

import contextlib
import os

import jax

_FIRST = 3  # step that is traced first


class Profiler(contextlib.ExitStack):
    """Traces some steps with JAX's profiler, once those that are slow for being first are over."""

    def __init__(self, folder: os.PathLike[str], steps: int) -> None:
        super().__init__()
        self._folder, self._steps = folder, steps

    def step(self, number: int) -> None:
        """Start or stop tracing before a step, counted from 1 at each start."""
        if self._steps and number == _FIRST:
            self.enter_context(jax.profiler.trace(os.fspath(self._folder)))
        elif number == _FIRST + self._steps:
            self.close()
