"""What commands and functions cost: CPU seconds of all their processes, and memory."""

import argparse
import concurrent.futures
import contextlib
import ctypes
import dataclasses
import glob
import multiprocessing
import os
import pathlib
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import psutil

_ROOT = pathlib.Path(__file__).resolve().parents[1]
#: The command ``c4``, of this interpreter.
C4 = (sys.executable, "-m", "pipelines.c4_main")
#: The real pages beside this checkout, where there are any.
WET = str(_ROOT.parent / "shared" / "wet" / "*.warc.wet.gz")
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SAMPLE_S = 0.01
_LOOKS_A_SUM = 20
_T = TypeVar("_T")


def parser(doc: str | None, wet: bool = False) -> argparse.ArgumentParser:
    """Return a parser whose help is a module's docstring; ``wet``: with the option ``--wet``."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if wet:
        made.add_argument("--wet", default=WET, metavar="GLOB", help="of WET files")
    return made


def wet_files(parser: argparse.ArgumentParser, pattern: str) -> list[str]:
    """Return the absolute paths of the files of ``--wet``; end the program if there are none."""
    paths = sorted(map(os.path.abspath, glob.glob(pattern)))
    if not paths:
        parser.error(f"no file matches {pattern!r} (--wet)")
    return paths


def cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this process that a work takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def least(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the least of several times: other load on the machine disturbs that least."""
    return min(cpu_s(work) for _ in range(repeats))


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of this process that each work takes, round by round.

    They take turns, so that what else a machine does slows all of them.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(cpu_s(work))
    return taken


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
    """Run a command in the root of the checkout. Raises CalledProcessError, with its output.

    Processes that outlive their parent are adopted and waited for, so that none goes uncounted.
    Memory is the unique set size if the system reports it: shared memory counts once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    own = {child.pid for child in psutil.Process().children()}  # of the caller
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=_ROOT
    )
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


def _own_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


class _Sampler(threading.Thread):
    def __init__(self, command: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.worker_peak_bytes = 0
        self._command = command
        self._ended = threading.Event()

    def run(self) -> None:
        me, workers, looks = psutil.Process(), list[int](), 0
        while not self._ended.wait(_SAMPLE_S):
            # A worker's own peak is cheap to read, and is gone with it: look often.
            for pid in workers:
                self.worker_peak_bytes = max(self.worker_peak_bytes, memory("VmHWM", pid))
            looks += 1
            if looks % _LOOKS_A_SUM == 1:
                children = me.children(recursive=True)
                workers = [child.pid for child in children if child.pid != self._command]
                self.peak_bytes = max(self.peak_bytes, sum(map(_own_bytes, children)))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def in_process(work: Callable[..., _T], *arguments: Any, start: str = "spawn") -> _T:
    """Return the result of a function, called in a process of its own; raise what it raises.

    ``start``: "spawn" for a fresh interpreter, whose memory is its own; "fork" for a copy of this
    process, with what it has imported.
    """
    context = multiprocessing.get_context(start)
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(work, *arguments).result()


def reset_peak() -> None:
    """Let VmHWM begin at the memory of now (proc(5): clear_refs). Linux only."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def memory(field: str, pid: str | int = "self") -> int:
    """Return the bytes that a process holds now (VmRSS), or at most held so far (VmHWM).

    0 if the process has ended, or on another system than Linux.
    """
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) << 10
    return 0
