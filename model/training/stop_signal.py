"""Stopping a run: at once before the first step, then between two steps."""

import concurrent.futures
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

Result = TypeVar("Result")


def interruptible(call: Callable[[], Result]) -> Result:
    """Run a long call into C++ in a thread, so that a signal ends the wait for it at once.

    Python runs handlers of signals in the main thread, between two of its own instructions. After
    an interrupt the call goes on until it is done, or until the process ends.
    """
    future: concurrent.futures.Future[Result] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="interruptible", daemon=True).start()
    return future.result()


class StopSignal:
    """SIGINT and SIGTERM end the run after the step they come in; a second one ends it at once.

    Before :meth:`begin_steps` there is nothing to save, and the first one ends a run of one process
    at once. One that came before this could take it (``came_before``) counts as the first. Among
    several processes JAX's own watch for SIGTERM agrees on the step after which all stop.
    """

    def __init__(self, say: Callable[[str], None], came_before: Callable[[], bool]) -> None:
        self._say, self._came_before = say, came_before
        self._came = False
        self._stepping = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            alone = jax.process_count() == 1
            for number in (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,):
                if signal.getsignal(number) is not signal.SIG_IGN:  # of a job in the background
                    self._before[number] = signal.signal(number, self._receive)
        if self._came_before() and not self._came:
            try:
                self._receive(signal.SIGTERM, None)
            except KeyboardInterrupt:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def begin_steps(self) -> None:
        """Finish, from here on, the step during which a signal comes."""
        self.now_if_asked()
        self._stepping = True
        self.now_if_asked()  # one that came in between

    def now_if_asked(self) -> None:
        """End what this process does before the first step, when nothing needs saving."""
        if self._came and jax.process_count() == 1:
            raise KeyboardInterrupt

    def asked_for(self, step: int) -> bool:
        """Return whether to stop after this step; the same on all processes."""
        if jax.process_count() == 1:
            return self._came
        return bool(multihost_utils.reached_preemption_sync_point(step))

    def _receive(self, number: int, frame: object) -> None:
        del number, frame
        if self._came:
            raise KeyboardInterrupt
        self._came = True
        if jax.process_count() == 1 and not self._stepping:
            raise KeyboardInterrupt
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # which the others are told of
        self._say("stopping once the state is saved; interrupt again to stop at once")
