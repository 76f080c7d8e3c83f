"""The process that starts the workers of a build on this machine, and the workers themselves.

Beam's imports take a CPU second. The starter has imported what a worker needs and forks one process
per request. It has one thread, and gRPC starts in the workers only. A command's own process forks
the starter too, while it has no other thread; elsewhere, as in a notebook, the starter is an
interpreter of its own. On macOS, whose system libraries do not survive a fork, so is each worker.

The launcher and the starter share a socket. A request is a line of JSON: the environment of the
worker. A line in the other direction is the status of a worker that has ended (negative: a signal).
The starter ends its workers and itself when the launcher closes the socket, or dies.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from typing import NoReturn

from pipelines.collector import importing
from pipelines.engines import lean_imports

#: What a Python interpreter runs as ``python -P -m`` to become a starter; its arguments are the
#: launcher's process id and the file descriptor of the socket.
MODULE = "pipelines.engines.local_worker"

_IMPORTED = (
    "pipelines.quiet_beam",  # before anything else of Beam
    "apache_beam.runners.worker.sdk_worker_main",
    "numpy.ma",  # Arrow imports it late
    "pipelines.stages.graph",
)
_FORKS = sys.platform != "darwin"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_POLL_S = 0.5
_CLIENTS = {"obstore", "requests"}  # keep connections, which a fork would share


def can_fork() -> bool:
    """Return whether this process has one thread and no connections to remote file systems."""
    try:
        has_one_thread = len(os.listdir("/proc/self/task")) == 1
    except OSError:  # a system that does not say
        return False
    return _FORKS and has_one_thread and _CLIENTS.isdisjoint(sys.modules)


def fork_starter(connection: socket.socket, printed: int | None) -> int:
    """Fork a starter from this process, which can fork and has imported all modules; return its id.

    Args:
        connection: The starter's end of its socket.
        printed: File descriptor for what it and its workers print; None: this process's own.
    """
    launcher = os.getpid()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else both processes would print what it holds
    gc.freeze()  # what is there stays, in memory that all workers share
    # In the child, a handler of the launcher's would take a signal for the launcher's.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        starter = os.fork()
        if not starter:
            _become_starter(launcher, connection, printed, held)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    return starter


def _become_starter(
    launcher: int, connection: socket.socket, printed: int | None, held: Collection[int]
) -> NoReturn:
    """Drop what a forked process has of its launcher, and serve until that has ended."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher handles it
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        sys.argv = sys.argv[:1]  # Beam's options are not the command's
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if printed is not None:
            os.dup2(printed, 2)
        # Their objects stay, frozen or in the frames below this one, and close nothing any more.
        for number in map(int, os.listdir("/proc/self/fd")):
            if number > 2 and number != connection.fileno():
                with contextlib.suppress(OSError):
                    os.close(number)
        _serve_to_the_end(launcher, connection)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _serve_to_the_end(launcher: int, connection: socket.socket) -> NoReturn:
    """Serve, and end this process without finalisation, which has nothing left to do."""
    with connection, contextlib.suppress(OSError):  # the launcher has ended or closed it
        _serve(launcher, connection)
    os._exit(0)


def _serve(launcher: int, connection: socket.socket) -> None:
    """Start and watch workers until the launcher closes the connection, or has ended."""
    woken, waking = os.pipe()
    for end in (woken, waking):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    inherited = (connection.fileno(), woken, waking)
    workers: set[int] = set()
    received = b""
    try:
        while os.getppid() == launcher:
            ready, _, _ = select.select([connection.fileno(), woken], [], [], _POLL_S)
            if woken in ready:
                os.read(woken, 4096)
            for worker, status in _ended():
                workers.discard(worker)
                connection.sendall(b"%d\n" % status)
            if connection.fileno() in ready:
                data = connection.recv(1 << 16)
                if not data:
                    return
                *requests, received = (received + data).split(b"\n")
                workers.update(_start(json.loads(request), inherited) for request in requests)
    finally:
        for worker in workers:
            with contextlib.suppress(OSError):
                os.kill(worker, signal.SIGKILL)
                os.waitpid(worker, 0)


def import_all() -> None:
    """Import what a worker needs, and load what it would load at its first page."""
    with importing():
        for module in _IMPORTED:
            importlib.import_module(module)
    from c4_filters.language import detect_language

    detect_language("It loads its profiles at the first call.")


def _start(environment: Mapping[str, str], inherited: tuple[int, ...]) -> int:
    """Start one worker and return its process id."""
    starter = os.getpid()
    if not _FORKS:
        command = [sys.executable, "-P", "-m", MODULE, str(starter)]
        return os.posix_spawn(sys.executable, command, environment)
    worker = os.fork()
    if not worker:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in inherited:
            os.close(number)
        os.environ.clear()
        os.environ.update(environment)
        _work(starter)
    return worker


def _ended() -> Iterator[tuple[int, int]]:
    """Yield process id and status of each worker that has ended."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended[0], os.waitstatus_to_exitcode(ended[1])


def _work(starter: int) -> None:
    """Run Beam's worker in this process, without its output. Does not return.

    Beam prints the traceback of every failure when it happens. The launcher reports the failure, so
    workers print it only with C4_TRACEBACK=1.
    """
    status = 0
    try:
        threading.Thread(target=_end_with, args=(starter,), daemon=True).start()
        if not _FORKS:
            import_all()
        from apache_beam.runners.worker import sdk_worker_main

        read_by_launcher = os.dup(2)
        if not os.environ.get("C4_TRACEBACK"):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            sdk_worker_main.main(sys.argv)
        except BaseException:
            os.dup2(read_by_launcher, 2)
            raise
    except BaseException:
        status = 1
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(status)


def _end_with(starter: int) -> None:
    """End this process when its starter has ended, since no build uses it any more."""
    while os.getppid() == starter:
        time.sleep(_POLL_S)
    os._exit(0)


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher handles it and ends its workers
    parent, *numbers = map(int, sys.argv[1:])
    lean_imports.leave_out_unused()
    if not numbers:
        _work(parent)
    if _FORKS:
        import_all()
        gc.freeze()  # what is there stays, in memory that all workers share
    _serve_to_the_end(parent, socket.socket(fileno=numbers[0]))


if __name__ == "__main__":
    _main()
