"""Runs a command and says what it cost: CPU seconds of all its processes, and their memory."""

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SAMPLE_S = 0.2


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a command cost.

    ``peak_bytes``: the largest sum over its processes, sampled. ``worker_peak_bytes``: the most
    that any one process below the command's own ever held, libraries included (VmHWM; Linux only).
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: str
    worker_peak_bytes: int = 0


def run(command: Sequence[str]) -> Cost:
    """Run a command to its end. Raises CalledProcessError when it fails, with its output.

    Processes that outlive their parent are adopted and waited for, so that none goes uncounted.
    Memory is the unique set where the system tells it: pages that processes share count once each.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    own = {child.pid for child in psutil.Process().children()}  # of whoever measures
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    sampler = _Sampler(process.pid)
    sampler.start()
    output, _ = process.communicate()
    wall_s = time.monotonic() - started
    _reap_orphans(own)
    sampler.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command), output)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall_s, cpu_s, sampler.peak_bytes, output, sampler.worker_peak_bytes)


def _reap_orphans(own: set[int]) -> None:
    """Wait for all children but ``own``, which may run on: multiprocessing's tracker, say."""
    while orphans := {child.pid for child in psutil.Process().children()} - own:
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


class _Sampler(threading.Thread):
    def __init__(self, command: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.worker_peak_bytes = 0
        self._command = command
        self._ended = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(_SAMPLE_S):
            total = 0
            for child in me.children(recursive=True):
                try:
                    total += child.memory_full_info().uss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                if child.pid != self._command:
                    held = _most_held(child.pid)
                    self.worker_peak_bytes = max(self.worker_peak_bytes, held)
            self.peak_bytes = max(self.peak_bytes, total)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _most_held(pid: int) -> int:
    """Return the most memory that a process ever held, in bytes; 0 if it is unknown."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(ln.split()[1]) * 1024 for ln in lines if ln.startswith("VmHWM:")), 0)
