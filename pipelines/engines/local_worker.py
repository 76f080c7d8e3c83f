"""The process that starts the workers of a build on this machine, and the workers themselves.

Beam's imports take more than a CPU second. The starter imports once what a worker needs and forks
one process per request. It has one thread, and gRPC starts in the workers only. On macOS, whose
system libraries do not survive a fork, each worker is an interpreter of its own.

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
from collections.abc import Iterator, Mapping

from pipelines.engines import lean_imports

__all__ = ["ENVIRONMENT", "MODULE"]

#: What a Python interpreter runs as ``python -P -m`` to become a starter; its arguments are the
#: launcher's process id and the file descriptor of the socket.
MODULE = "pipelines.engines.local_worker"

#: The environment of a starter: without these, NumPy and Arrow start threads when imported.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}

_IMPORTED = (
    "pipelines.quiet_beam",  # before anything else of Beam
    "apache_beam.runners.worker.sdk_worker_main",
    "numpy.ma",  # Arrow imports it late
    "pipelines.stages.graph",
)
_FORKS = sys.platform != "darwin"
_POLL_S = 0.5


def _serve(launcher: int, connection: socket.socket) -> None:
    """Start and watch workers until the launcher closes the connection, or has ended."""
    if _FORKS:
        _import()
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


def _import() -> None:
    lean_imports.leave_out_unused()
    for module in _IMPORTED:
        importlib.import_module(module)
    from c4_filters.language import detect_language

    detect_language("It loads its profiles at the first call.")
    gc.freeze()  # what is imported stays, in memory that all workers share


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

    Beam prints the traceback of every failure when it happens. The launcher says what failed, once;
    With C4_TRACEBACK=1, workers print it too.
    """
    status = 0
    try:
        threading.Thread(target=_end_with, args=(starter,), daemon=True).start()
        if not _FORKS:
            _import()
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
    if not numbers:
        _work(parent)
    with socket.socket(fileno=numbers[0]) as connection, contextlib.suppress(OSError):
        _serve(parent, connection)
    os._exit(0)  # without finalisation, which has nothing left to do


if __name__ == "__main__":
    _main()
