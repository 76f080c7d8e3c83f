"""Clocks around the parts of a program: each part's own CPU, without that of the parts it calls.

CPU that no clock sees is the rest of the whole. An account has the seconds of each part, that rest
among them, and of the whole; they add up.
"""

import contextlib
import functools
import importlib
import inspect
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

#: Part -> the functions that it is made of: a module, and a name in it.
Parts = Mapping[str, Sequence[tuple[str, str]]]
REST, WHOLE, CLOCKS = "what no clock sees", "whole", "of these, the clocks"
MOST = 0.05  # of the whole, that clocks may cost


class _Clock(threading.local):
    """The parts that a thread is in, innermost last: [name, CPU of its callees]."""

    def __init__(self) -> None:
        self.stack: list[list[Any]] = []


_CLOCK = _Clock()
OWN: dict[str, int] = defaultdict(int)  # nanoseconds
CALLS: dict[str, int] = defaultdict(int)


def timed(
    part: str, call: Callable[..., Any], now: Callable[[], int] = time.thread_time_ns
) -> Callable[..., Any]:
    """Return ``call`` with a clock around it.

    Each step of a generator is timed, and of a context manager (`contextlib.contextmanager`) its
    beginning and end. ``now`` returns nanoseconds of CPU: of the thread, or of the process where
    the timed code hands work to other threads.
    """

    def enter() -> int:
        _CLOCK.stack.append([part, 0])
        return now()

    def leave(started: int) -> None:
        spent = now() - started
        _, below = _CLOCK.stack.pop()
        OWN[part] += spent - below
        CALLS[part] += 1
        if _CLOCK.stack:
            _CLOCK.stack[-1][1] += spent

    def stepped(steps: Iterator[Any]) -> Iterator[Any]:
        while True:
            started = enter()
            try:
                item = next(steps)
            except StopIteration:
                return
            finally:
                leave(started)
            yield item

    class Entered:
        """A context manager with clocks, which do not run while its block does."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __enter__(self) -> Any:
            started = enter()
            try:
                return self._inner.__enter__()
            finally:
                leave(started)

        def __exit__(self, *error: Any) -> Any:
            started = enter()
            try:
                return self._inner.__exit__(*error)
            finally:
                leave(started)

    # Not every object that can be entered, such as a file: its methods are not only these two.
    makes_contexts = inspect.isgeneratorfunction(inspect.unwrap(call))

    @functools.wraps(call)
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = enter()
        try:
            found = call(*args, **kwargs)
        finally:
            leave(started)
        if hasattr(found, "__next__"):
            return stepped(found)
        return Entered(found) if makes_contexts else found

    return timed


@contextlib.contextmanager
def clocks(parts: Parts, now: Callable[[], int] = time.thread_time_ns) -> Iterator[None]:
    """Put clocks around all parts in this process, as `timed` does, and take them away again."""
    OWN.clear()
    CALLS.clear()
    with contextlib.ExitStack() as undo:
        for part, places in parts.items():
            for module_name, path in places:
                owner: Any = importlib.import_module(module_name)
                *outer, name = path.split(".")
                for step in outer:
                    owner = getattr(owner, step)
                undo.callback(setattr, owner, name, vars(owner)[name])
                setattr(owner, name, timed(part, getattr(owner, name), now))
        yield


def clocks_s(now: Callable[[], int] = time.thread_time_ns) -> float:
    """Return the CPU seconds that the clocks themselves cost so far."""
    nothing = timed("clocks", lambda: None, now)
    started = time.thread_time_ns()
    for _ in range(10_000):
        nothing()
    del OWN["clocks"], CALLS["clocks"]
    return sum(CALLS.values()) * (time.thread_time_ns() - started) / 10_000 / 1e9


def table(title: str, accounts: Mapping[str, Mapping[str, float]], unit_s: float) -> Iterator[str]:
    """Yield the lines of a table of accounts: all in units, and in parts of the whole.

    Args:
        title: of the first column.
        accounts: by the heading of their column. The parts that are costliest in the first account
            come first.
        unit_s: the seconds that are shown as 1.
    """
    yield f"{title:<45}" + "".join(f"{heading:>19}" for heading in accounts)
    first = next(iter(accounts.values()))
    parts = sorted(first.keys() - {WHOLE, CLOCKS}, key=first.__getitem__, reverse=True)
    for name in (*parts, WHOLE, CLOCKS):
        yield f"{name:<45}" + "".join(
            f"{found.get(name, 0) / unit_s:12.4f}{found.get(name, 0) / found[WHOLE]:7.1%}"
            for found in accounts.values()
        )
