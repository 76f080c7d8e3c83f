"""Ctrl-C and SIGTERM: the first one asks a command to end, the second ends it."""

import contextlib
import os
import pathlib
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

#: Exit status of an interrupted command: 128 and SIGINT, as shells have it.
STATUS = 130

#: Time for files to be closed and a job elsewhere to be cancelled.
PATIENCE_S = 10.0

#: Time for Python's finalisation, of a process that has nothing left to do.
EXIT_S = 5.0

_GONE_S = 1.0
_READ_S = 1.0  # for standard error to be read, so that it takes the last line

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PAUSE = b"\0"  # no signal has this number


class Interruption:
    """Handles SIGINT and SIGTERM while a command runs. Use as a context manager.

    The first signal raises KeyboardInterrupt in the main thread and is remembered, because Python
    drops exceptions in finalizers and callbacks of the garbage collector.

    If the process is the command's own, a second signal ends it at once, and so does the first if
    the command does not end in time, even during a compilation, when no Python handler runs. Its
    children end too. Python's finalisation is skipped: threads inside JAX would crash it, and it
    would wait for threads of Beam that wait for workers.
    """

    def __init__(
        self, line: str, *, own_process: bool, patience_s: float | None = PATIENCE_S
    ) -> None:
        """Make a handler for one command.

        Args:
            line: Printed when the command is interrupted.
            own_process: Whether the process ends with the command.
            patience_s: Seconds that the command may take to end; None: as long as saving takes.
        """
        self._line = line
        self.own_process = own_process
        self.patience_s = patience_s
        self._asked = False
        self._over = False
        self._before: dict[int, Any] = {}
        self._came = 0  # signals
        self._watcher: threading.Thread | None = None
        self._ending = threading.Lock()  # held by the one that ends the process

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is not threading.main_thread():
            return self
        if self.own_process:
            # At the moment of a signal, only its number is written, to this socket.
            self._receiving, self._sending = socket.socketpair()
            self._sending.setblocking(False)
            signal.set_wakeup_fd(self._sending.fileno(), warn_on_full_buffer=False)
            self._start_watcher()
        try:
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # of a job in the background
                    self._before[number] = signal.signal(number, self._receive)
        except KeyboardInterrupt:  # before the block that would catch it
            if self.own_process:
                self.tell()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True  # no further signal changes the result of the command
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self.own_process else handler)

    @contextlib.contextmanager
    def unwatched(self) -> Iterator[None]:
        """Run the block without the thread of this handler, which sees signals afterwards."""
        if self._watcher is None:
            yield
            return
        try:
            self._sending.send(_PAUSE)
            self._watcher.join()
            _wait_until_gone(self._watcher)
            yield
        finally:
            self._start_watcher()

    def asked(self) -> bool:
        """Return whether a signal has arrived."""
        return self._asked

    def expect(self, line: str, patience_s: float | None) -> None:
        """Print another line from now on, and give the command another time to end."""
        self._line, self.patience_s = line, patience_s

    def tell(self) -> int:
        """Say that the command was interrupted, and return the exit status.

        If the process is the command's own, it ends here.
        """
        self._over = True
        if self.own_process:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            self._ending.acquire()
            self._end()
        print(f"\n{self._line}", file=sys.stderr)
        return STATUS

    def _receive(self, *_: object) -> None:
        self._asked = True
        if not self._over:
            raise KeyboardInterrupt

    def _start_watcher(self) -> None:
        self._watcher = threading.Thread(target=self._watch, name="interruption", daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        numbers, late = b"", False
        while not late and _PAUSE not in numbers:
            try:
                numbers = self._receiving.recv(64)
                self._came += sum(number in _SIGNALS for number in numbers)
            except TimeoutError:
                late = True
            if self._came and not self._over:
                self._receiving.settimeout(self.patience_s)
            # Over means that the command is done, and its status must not change, or that it was
            # interrupted and waits for its output to be read.
            ends = self._came > 1 or (late and not self._over)
            if ends and self._ending.acquire(blocking=False):
                self._end()

    def _end(self) -> NoReturn:
        # Not through sys.stderr, whose lock another thread may hold for ever; and not into a pipe
        # that is full, which its reader may never empty.
        with contextlib.suppress(OSError):
            if select.select([], [2], [], _READ_S)[1]:
                os.write(2, f"\n{self._line}\n".encode(errors="backslashreplace"))
        _end_descendants()
        os._exit(STATUS)


def _wait_until_gone(thread: threading.Thread) -> None:
    """Wait until the system has ended a thread, too: Python's part of it ends a moment before."""
    patient_until = time.monotonic() + _GONE_S
    while os.path.exists(f"/proc/self/task/{thread.native_id}"):
        if time.monotonic() > patient_until:
            return
        time.sleep(0.001)


def limit_exit(status: int, patience_s: float = EXIT_S) -> None:
    """End this process and its children when Python's finalisation takes longer than that.

    It waits for threads of Beam, which wait for workers. Call it when nothing is left to be done.
    """

    def watch() -> None:
        time.sleep(patience_s)
        _end_descendants()
        os._exit(status)

    threading.Thread(target=watch, name="limit-exit", daemon=True).start()


def descendants() -> list[int]:
    """Return the processes that this one has started, and theirs, where the kernel lists them."""
    found = [os.getpid()]
    for process in found:
        for path in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, path.read_text().split())
    return found[1:]


def _end_descendants() -> None:
    """Where none are listed, workers end by themselves soon after this process."""
    for process in descendants():
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
