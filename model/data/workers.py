"""Processes that call a function many times, each for its own share of the calls.

A worker is a plain Python process on the end of a socket. It imports what its function needs (JAX
takes 200 MB), and ends when the socket does, however its parent came to its end; it leaves
interrupts and SIGTERM to its parent. One that is killed, as the kernel does where memory runs out,
is started again.
"""

import collections
import contextlib
import json
import multiprocessing.connection
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Sequence
from typing import Any

#: How often workers of a pool are started again before it is given up: chance takes one now and
#: then, want of memory all of them again and again.
RESTARTS = 5

_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from model.data.workers import serve
serve(int(sys.argv[2]))
"""
_END_TIMEOUT_S = 5.0  # for a worker to finish what it is at, before it is killed


class WorkerError(RuntimeError):
    """A worker met an error that is no fault of its input."""


class WorkerEndedError(ChildProcessError):
    """Workers came to an end, more often than they are started again."""


class Workers:
    """``count`` processes, in each of which ``make(*arguments)`` is called once.

    What it returns is then called with the arguments of each `submit`; it must be a function of
    them, since a worker that ends is started again, with a line on standard error, and asked for
    what it owed. ``make`` and its arguments are pickled; workers import the modules that define
    them. Not for several threads at a time.
    """

    def __init__(self, count: int, make: Callable[..., Any], *arguments: Any) -> None:
        if count < 1:
            raise ValueError(f"there must be at least one worker, got {count}")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[multiprocessing.connection.Connection] = []
        self._finalizer = weakref.finalize(self, _end, self._processes, self._connections)
        # Results still to come of each worker, in order: ticket, None where nobody waits, and what
        # was asked.
        self._coming: list[collections.deque[tuple[int | None, tuple[Any, ...]]]] = [
            collections.deque() for _ in range(count)
        ]
        self._results: dict[int, Any] = {}
        self._worker_of: dict[int, int] = {}
        self._tickets = 0
        self._restarts = 0
        self._task = pickle.dumps((make, arguments))
        for _ in range(count):
            process, connection = self._started()
            self._processes.append(process)
            self._connections.append(connection)

    def _started(
        self,
    ) -> tuple["subprocess.Popen[bytes]", multiprocessing.connection.Connection]:
        ours, theirs = multiprocessing.connection.Pipe()
        command = [sys.executable, "-c", _START, json.dumps(sys.path), str(theirs.fileno())]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        theirs.close()
        with contextlib.suppress(OSError):  # ended already, which the first request will find
            ours.send_bytes(self._task)
        return process, ours

    def __len__(self) -> int:
        return len(self._coming)

    def submit(self, worker: int, *arguments: Any) -> int:
        """Ask a worker for a result, and return the ticket to fetch it with."""
        self._check_open()
        ticket = self._tickets
        self._tickets += 1
        self._coming[worker].append((ticket, arguments))
        self._worker_of[ticket] = worker
        try:
            self._connections[worker].send(arguments)
        except OSError:
            self._restart(worker)
        return ticket

    def fetch(self, ticket: int) -> Any:
        """Wait for a result.

        Raises ValueError with the worker's own message when its function raised ValueError or
        OSError; WorkerEndedError where workers end again and again; else WorkerError, in one line
        with the worker's traceback as a note.
        """
        self._check_open()
        worker = self._worker_of.pop(ticket)
        while ticket not in self._results:
            self._receive(worker)
        outcome, value, trace = self._results.pop(ticket)
        if outcome == "result":
            return value
        error = ValueError(value) if outcome == "refusal" else WorkerError(value)
        error.add_note(f"in input worker {worker}:\n{trace}")
        raise error

    def cancel(self, ticket: int) -> None:
        """Forget a result that was asked for."""
        worker = self._worker_of.pop(ticket)
        if self._results.pop(ticket, None) is None:
            self._coming[worker] = collections.deque(
                (None if coming == ticket else coming, arguments)
                for coming, arguments in self._coming[worker]
            )

    def close(self) -> None:
        """End the processes. No further requests are accepted. Safe to call more than once."""
        self._finalizer()

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise ValueError("the workers were closed")

    def _receive(self, worker: int) -> None:
        try:
            result = pickle.loads(self._connections[worker].recv_bytes())
        except (EOFError, OSError):
            self._restart(worker)
            return
        ticket, _ = self._coming[worker].popleft()
        if ticket is not None:
            self._results[ticket] = result

    def _restart(self, worker: int) -> None:
        """Put another in the place of one that has ended, and ask it for what is still to come.

        Raises WorkerEndedError, with all workers ended, when that was done too often.
        """
        how = self._end_of(worker)
        if self._restarts == RESTARTS:
            self.close()
            raise WorkerEndedError(f"{how}; {RESTARTS} were started again before") from None
        self._restarts += 1
        with contextlib.suppress(OSError):  # a terminal that is closed ends no run
            print(f"c4: note: {how}; started again", file=sys.stderr, flush=True)
        self._connections[worker].close()
        self._processes[worker], self._connections[worker] = self._started()
        # What nobody waits for any more is not asked for again.
        self._coming[worker] = collections.deque(
            entry for entry in self._coming[worker] if entry[0] is not None
        )
        try:
            for _, arguments in self._coming[worker]:
                self._connections[worker].send(arguments)
        except OSError:
            self._restart(worker)

    def _end_of(self, worker: int) -> str:
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._processes[worker].wait(_END_TIMEOUT_S)
        how = f"exit status {status}"
        if status is None:  # its socket is closed: nothing can be had of it
            self._processes[worker].kill()
            self._processes[worker].wait()
        elif status < 0:
            how = f"killed by {signal.Signals(-status).name}"
            if -status == signal.SIGKILL:
                how += ", perhaps for want of memory: fewer workers need less (--workers)"
        return f"input worker {worker} of {len(self)} has ended: {how}"


def _end(
    processes: Sequence["subprocess.Popen[bytes]"],
    connections: Sequence[multiprocessing.connection.Connection],
) -> None:
    for connection in connections:
        connection.close()
    for process in processes:
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serve(descriptor: int) -> None:
    """Answer on the socket until the other end is closed: a worker process."""
    # A terminal, or a cluster's manager, signals all processes of a run. The parent decides when
    # it has no more use for this one, and may want to save its place first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connection = multiprocessing.connection.Connection(descriptor)
    # One finished result waits here while the parent has no time for it and the next is made.
    finished: queue.Queue[bytes] = queue.Queue(1)
    threading.Thread(target=_send, args=(connection, finished), daemon=True).start()
    call: Callable[..., Any] | None = None
    task = b""
    try:
        task = connection.recv_bytes()
        while True:
            arguments = connection.recv()
            try:
                if call is None:
                    make, made_of = pickle.loads(task)
                    call = make(*made_of)
                answer = ("result", call(*arguments), "")
            except Exception as error:
                answer = _told(error)
            finished.put(pickle.dumps(answer, protocol=5))
    except (EOFError, OSError):
        return  # the parent has ended, or has closed us


def _told(error: Exception) -> tuple[str, str, str]:
    message = " ".join(str(error).split())
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError):
        what = "an input worker has no more memory: fewer workers need less (--workers)"
        return "refusal", what, trace
    if isinstance(error, ValueError | OSError):
        return "refusal", message or type(error).__name__, trace
    return "failure", f"{type(error).__name__}: {message}", trace


def _send(
    connection: multiprocessing.connection.Connection, finished: "queue.Queue[bytes]"
) -> None:
    try:
        while True:
            connection.send_bytes(finished.get())
    except OSError:
        os._exit(0)  # nobody listens any more; the other thread may be waiting for this one
