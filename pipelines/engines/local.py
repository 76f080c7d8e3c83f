"""Builds on this machine: how many worker processes, the runner that starts them, their deaths.

Beam waits for ever for a worker that dies before it has connected, and after any other death for
the workers that are left. So a build that has worker processes runs in a thread of its own, beside
which the caller waits for its end or for the death of a worker, whichever comes first.
"""

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import signal
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.engines import local_worker
from pipelines.interruption import descendants

__all__ = ["WorkerDiedError", "Workers", "cores", "has_workers", "runner", "worker_count"]

# A process takes 2 CPU seconds to start (Beam's imports), for which it cleans some 20 MB.
_BYTES_WORTH_A_PROCESS = 24 << 20

#: Time for the runner to report by itself why a worker died.
_REPORT_S = 2.0
#: Time for the runner's threads to end after the workers have.
_END_S = 2.0
_POLL_S = 0.2
_EXIT_STATUS = re.compile(r"Worker subprocess exited with return code (-?\d+)")


class WorkerDiedError(RuntimeError):
    """A worker process of this machine ended before the build did."""


def worker_count(files: Sequence[tuple[str, int]]) -> int:
    """Return one process per core, but none that starts for longer than it works."""
    worth_starting = sum(size for _, size in files) // _BYTES_WORTH_A_PROCESS
    return max(1, min(cores(), len(files), worth_starting))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_workers(options: Any) -> bool:
    """Whether a build with these options starts worker processes on this machine."""
    chosen = options.get_all_options()
    return chosen["runner"] == "FnApiRunner" and (
        chosen["direct_running_mode"] == "multi_processing" or _has_own_workers(options)
    )


def _has_own_workers(options: Any) -> bool:
    """Whether the workers are ours: Beam's own command is left to who asks for it by its option."""
    given = options.get_all_options(drop_default=True)
    return given.get("direct_num_workers", 1) > 1 and "direct_running_mode" not in given


class Workers:
    """The worker processes of one build, from entering this context to leaving it.

    They end by themselves, within a second, when this process does or when their folder is gone.
    What threads of the runner raise is not printed: they fail with the worker that they listen to.
    """

    def __init__(self) -> None:
        self._folder = ""
        self._deaths: list[str] = []
        self._left_behind: set[threading.Thread] = set()

    def __enter__(self) -> "Workers":
        self._folder = tempfile.mkdtemp(prefix="c4-workers-")
        self._hook = threading.excepthook
        threading.excepthook = self._notice
        return self

    def __exit__(self, *_: object) -> None:
        self._end_workers()
        # Threads that are left may fail later.
        threading.excepthook = self._mute if self._left_behind else self._hook

    @property
    def command(self) -> str:
        """The shell command that becomes a worker process."""
        # With exec no shell is in between: the process that the runner waits for is the worker.
        command = f"{_environment()}exec {shlex.quote(sys.executable)} {local_worker.COMMAND}"
        command += f" {os.getpid()} {shlex.quote(self._folder)}"
        if os.environ.get("C4_TRACEBACK"):
            return command
        # The null device first: there goes what the shell says when the folder is gone by then.
        return f"{command} 2>/dev/null 2>{shlex.quote(self._folder)}/$$"

    def run(self, build: Callable[[], Any]) -> Any:
        """Return what ``build`` returns, called in a thread, or raise what it raises.

        Raises WorkerDiedError when a worker process ends before ``build`` does.
        """
        results: list[Any] = []
        errors: list[BaseException] = []

        def call() -> None:
            try:
                results.append(build())
            except BaseException as error:
                errors.append(error)

        before = set(threading.enumerate())
        thread = threading.Thread(target=call, name="c4-build", daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not self._deaths:
                thread.join(_POLL_S)
            thread.join(_REPORT_S)
        finally:
            if thread.is_alive():
                self._end_workers()
                thread.join(_END_S)
            if not results:
                self._left_behind = set(threading.enumerate()) - before | {thread}
        if results:
            return results[0]
        # What a worker raised while it cleaned says more than that another one died.
        if errors and (not self._deaths or "[while running" in str(errors[0])):
            raise errors[0]
        raise WorkerDiedError(self._deaths[0])

    def _notice(self, failure: threading.ExceptHookArgs) -> None:
        """Take note of a worker that has died: Beam raises it where nobody listens."""
        if status := _EXIT_STATUS.search(str(failure.exc_value)):
            self._deaths.append(self._describe(int(status[1])))
        if os.environ.get("C4_TRACEBACK"):
            self._hook(failure)

    def _describe(self, status: int) -> str:
        if status < 0:
            name = signal.strsignal(-status) or f"signal {-status}"
            guess = ", or out of memory" if -status == signal.SIGKILL else ""
            return f"a worker process died ({name.lower()}{guess})"
        last = self._last_words()
        return f"a worker process ended with status {status}" + (last and f": {last}")

    def _last_words(self) -> str:
        """The last line that a worker printed while it started, of any that printed one."""
        for path in sorted(pathlib.Path(self._folder).glob("*")):
            with contextlib.suppress(OSError):  # the folder is gone when the build has ended
                if words := path.read_text("utf-8", errors="replace").strip():
                    return words.splitlines()[-1].strip()
        return ""

    def _end_workers(self) -> None:
        """End the workers that are left: by the folder, and where they are listed at once."""
        shutil.rmtree(self._folder, ignore_errors=True)
        for process in descendants():
            with contextlib.suppress(OSError):
                command = pathlib.Path(f"/proc/{process}/cmdline").read_bytes()
                if os.fsencode(self._folder) in command:
                    os.kill(process, signal.SIGKILL)

    def _mute(self, failure: threading.ExceptHookArgs) -> None:
        # The thread of the build may have started another worker since, which ends at once.
        of_worker = _EXIT_STATUS.search(str(failure.exc_value))
        if failure.thread not in self._left_behind and not of_worker:
            self._hook(failure)


def _environment() -> str:
    """Return the shell command that lets a worker find this code where the launcher found it.

    A notebook may have put a clone on its own ``sys.path``, of which a worker knows nothing.
    """
    root = str(pathlib.Path(__file__).resolve().parents[2])
    if root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return ""
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return f"export PYTHONPATH={shlex.quote(path)}; "


def runner(options: Any, workers: Workers | None) -> Any:
    """Return Beam's engine for one machine.

    It does not tell its worker processes the pipeline's options by itself: without them no address
    or key of a file system reaches a worker, nor the level of its log.
    """
    import pipelines.quiet_beam  # noqa: F401  before anything else of Beam

    from apache_beam.portability.api import beam_provision_api_pb2  # isort: skip
    from apache_beam.runners.job.utils import dict_to_struct  # isort: skip
    from apache_beam.runners.portability.fn_api_runner import fn_runner  # isort: skip
    from apache_beam.transforms.environments import SubprocessSDKEnvironment  # isort: skip

    given = {
        name: value
        for name, value in options.get_all_options(drop_default=True).items()
        if value is not None
    }
    provision = beam_provision_api_pb2.ProvisionInfo(
        retrieval_token="unused",
        pipeline_options=dict_to_struct(
            {
                # Numbers would arrive as 2.0, which the worker's own parser refuses.
                f"beam:option:{name}:v1": str(value) if type(value) in (int, float) else value
                for name, value in given.items()
            }
        ),
    )
    environment = None
    if workers is not None and _has_own_workers(options):
        environment = SubprocessSDKEnvironment.from_command_string(workers.command)
    return fn_runner.FnApiRunner(
        default_environment=environment,
        provision_info=fn_runner.ExtendedProvisionInfo(provision),
    )
