"""Two processes of JAX on this machine that find each other, as hosts of a run do."""

import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def run_two_processes(
    module: str, words: Callable[[str, int], Sequence[str]], *, devices: int, timeout_s: float
) -> None:
    """Run a module twice at once, and check that both end well.

    Args:
        module: What ``python -m`` runs, with warnings as errors.
        words: The coordinator's address and the number of a process to its arguments.
        devices: CPU devices of each process.
        timeout_s: For each of them.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    environ = dict(
        os.environ,
        JAX_PLATFORMS="cpu",
        XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}",
        PYTHONPATH=str(_ROOT),
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", module, *words(coordinator, number)],
            env=environ, cwd=_ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        outcomes = [process.communicate(timeout=timeout_s) for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    for process, (_, errors) in zip(running, outcomes, strict=True):
        assert process.returncode == 0, errors[-3000:]
