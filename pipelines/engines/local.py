"""Builds on this machine: how many worker processes, how they are started, what ends them.

Beam waits for ever for a worker that dies before it has connected, and after any other death for
the workers that are left. So a build that has worker processes runs in a thread of its own, beside
which the caller waits for its end or for the death of a worker, whichever comes first.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pipelines.engines import lean_imports, local_worker

# A second worker costs 0.4 CPU seconds, in which one worker cleans about 6 MB.
_BYTES_WORTH_A_PROCESS = 8 << 20

#: How long the runner may take to report why a worker died.
_REPORT_S = 2.0
#: Time for the runner's threads, or the starter, to end after the workers have.
_END_S = 2.0
_POLL_S = 0.2
_REAP_S = 0.01

#: Returns a context in which this process has one thread, unless a library has started others.
OneThread = Callable[[], contextlib.AbstractContextManager[None]]


class WorkerDiedError(RuntimeError):
    """A worker process of this machine ended before the build did."""


def worker_count(files: Sequence[tuple[str, int]]) -> int:
    """Return one process per core, but fewer for inputs too small to be worth a start."""
    worth_starting = sum(size for _, size in files) // _BYTES_WORTH_A_PROCESS
    return max(1, min(cores(), len(files), worth_starting))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_workers(chosen: Mapping[str, Any]) -> bool:
    """Whether a build with these options of Beam starts worker processes on this machine."""
    return chosen["runner"] == "FnApiRunner" and (
        chosen["direct_running_mode"] == "multi_processing" or has_own_workers(chosen)
    )


def has_own_workers(chosen: Mapping[str, Any]) -> bool:
    """Whether the workers are ours: with another ``--direct_running_mode`` they are Beam's."""
    return bool(chosen["direct_num_workers"] > 1 and chosen["direct_running_mode"] == "in_memory")


class _Starter(Protocol):
    """What is used of a `subprocess.Popen`."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its status. Raises subprocess.TimeoutExpired."""

    def kill(self) -> None:
        """Kill it, unless it has ended."""


class _Forked:
    """A forked process."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._status: int | None = None
        self._lock = threading.Lock()  # once its status is read, its number may be another's

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self._poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
            time.sleep(_REAP_S)
        return status

    def kill(self) -> None:
        with self._lock:
            if self._status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process, signal.SIGKILL)

    def _poll(self) -> int | None:
        with self._lock:
            if self._status is None:
                try:
                    process, status = os.waitpid(self._process, os.WNOHANG)
                except ChildProcessError:  # the system reaps where SIGCHLD is ignored
                    process, status = self._process, 0
                self._status = os.waitstatus_to_exitcode(status) if process else None
            return self._status


class Workers:
    """The worker processes of one build, from entering this context to leaving it."""

    def __init__(self, one_thread: OneThread | None = None) -> None:
        """Start nothing yet.

        Args:
            one_thread: Returns a context in which this process has one thread and may fork; None
                to start an interpreter instead, as from a notebook.
        """
        self._one_thread = one_thread
        self._deaths: list[str] = []
        self._ending = False
        self._lock = threading.Lock()
        self._starter: _Starter | None = None
        self._was_asked = False

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def prepare(self) -> None:
        """Start the process that starts workers, and import what a build needs."""
        with self._lock:
            if self._starter is not None or self._ending:
                return
            with contextlib.ExitStack() as opened:
                ours, theirs = map(opened.enter_context, socket.socketpair())
                self._printed = opened.enter_context(tempfile.TemporaryFile())
                printed = None if os.environ.get("C4_TRACEBACK") else self._printed.fileno()
                self._starter = self._forked(theirs, printed) or _interpreter(theirs, printed)
                opened.pop_all()
            theirs.close()
            self._connection = ours
        threading.Thread(target=self._listen, name="c4-workers", daemon=True).start()

    def _forked(self, connection: socket.socket, printed: int | None) -> _Starter | None:
        """Return a starter forked from this process, or None if it must not fork."""
        if self._one_thread is None:
            return None
        with self._one_thread():
            if not local_worker.can_fork():
                return None
            local_worker.import_all()
            if not local_worker.can_fork():  # a library has started a thread
                return None
            return _Forked(local_worker.fork_starter(connection, printed))

    def start(self, environment: Mapping[str, str]) -> None:
        """Start one worker, with what Beam's worker reads from its environment."""
        self.prepare()
        self._was_asked = True
        request = json.dumps({**os.environ, **_python_path(), **environment})
        with contextlib.suppress(OSError):  # the starter has died, which is noticed below
            self._connection.sendall(request.encode() + b"\n")

    def end(self) -> None:
        """End the workers. Safe to call more than once."""
        with self._lock:
            self._ending = True
            if self._starter is None:
                return
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        if not self._was_asked:
            self._starter.kill()  # it may still import
        try:
            self._starter.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._starter.kill()
            self._starter.wait()
        self._connection.close()
        self._printed.close()

    def run(self, build: Callable[[], Any]) -> Any:
        """Return what ``build`` returns, called in a thread, or raise what it raises.

        Exceptions in the runner's threads are not printed: these threads fail with the worker that
        they listen to.

        Raises:
            WorkerDiedError: A worker process ended before ``build`` did.
        """
        results: list[Any] = []
        errors: list[BaseException] = []

        def call() -> None:
            try:
                results.append(build())
            except BaseException as error:
                errors.append(error)

        before = set(threading.enumerate())
        hook = threading.excepthook
        if not os.environ.get("C4_TRACEBACK"):
            threading.excepthook = lambda _: None
        thread = threading.Thread(target=call, name="c4-build", daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not self._deaths:
                thread.join(_POLL_S)
            thread.join(_REPORT_S)
        finally:
            if thread.is_alive():
                self.end()
                thread.join(_END_S)
            left_behind = set() if results else set(threading.enumerate()) - before
            threading.excepthook = _without(left_behind, hook) if left_behind else hook
        if results:
            return results[0]
        # A worker's own exception says more than the death of another.
        if errors and (not self._deaths or "[while running" in str(errors[0])):
            raise errors[0]
        raise WorkerDiedError(self._deaths[0])

    def _listen(self) -> None:
        """Note every worker that ends, and the end of the starter, until the build ends."""
        assert self._starter is not None
        with contextlib.suppress(OSError), self._connection.makefile("rb") as lines:
            for line in lines:
                if status := int(line):
                    self._note_death(status)
        self._note_death(self._starter.wait())

    def _note_death(self, status: int) -> None:
        with self._lock:
            if not self._ending:
                self._deaths.append(self._describe(status))

    def _describe(self, status: int) -> str:
        if status < 0:
            name = signal.strsignal(-status) or f"signal {-status}"
            guess = ", or out of memory" if -status == signal.SIGKILL else ""
            return f"a worker process died ({name.lower()}{guess})"
        last = self._last_line()
        return f"a worker process ended with status {status}" + (last and f": {last}")

    def _last_line(self) -> str:
        """Return the last line that the starter or a worker printed, if any did."""
        self._printed.seek(0)
        printed = self._printed.read().decode("utf-8", errors="replace").strip()
        return printed.splitlines()[-1].strip() if printed else ""


def _interpreter(connection: socket.socket, printed: int | None) -> _Starter:
    """Return a starter in an interpreter of its own: a CPU second, perhaps of another core."""
    number = connection.fileno()
    return subprocess.Popen(
        [*(sys.executable, "-P", "-m", local_worker.MODULE), *(str(os.getpid()), str(number))],
        env={**os.environ, **lean_imports.ENVIRONMENT, **_python_path()},
        stdin=subprocess.DEVNULL,
        stderr=printed,
        pass_fds=[number],
    )


def _without(
    threads: set[threading.Thread], hook: Callable[[threading.ExceptHookArgs], Any]
) -> Callable[[threading.ExceptHookArgs], None]:
    """Return a hook that passes on what other threads than these raise."""

    def mute(failure: threading.ExceptHookArgs) -> None:
        if failure.thread not in threads:
            hook(failure)

    return mute


def _python_path() -> dict[str, str]:
    """Return the variable that lets a worker find this code where the launcher found it.

    A notebook may have put a clone on its own ``sys.path``, of which a worker knows nothing.
    """
    root = str(pathlib.Path(__file__).resolve().parents[2])
    if root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
