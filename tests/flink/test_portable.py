"""The portability protocol without Java: Beam's own job service and ``c4 worker-pool``.

The same workers, staging and messages as on Flink, in two processes that every machine can run.
"""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.flink import builds, faulty_pool

pytestmark = pytest.mark.slow


class Engine:
    """A job service and a worker pool, each the head of a process group."""

    def __init__(self, folder: pathlib.Path, faults: pathlib.Path) -> None:
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(2)]
            for sock in sockets:
                sock.bind(("127.0.0.1", 0))
            self.job_port, self.pool_port = (sock.getsockname()[1] for sock in sockets)
        self._folder = folder
        self._faults = faults
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def up(self) -> None:
        """Starts what does not run."""
        service = "apache_beam.runners.portability.local_job_service_main"
        commands = {
            "service": ["-m", service, "--port", str(self.job_port)],
            "pool": ["-m", "tests.flink.faulty_pool", "--port", str(self.pool_port)],
        }
        for name, command in commands.items():
            if name in self._processes and self._processes[name].poll() is None:
                continue
            with (self._folder / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, *command],
                    env={**os.environ, faulty_pool.VARIABLE: str(self._faults)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        for port in (self.job_port, self.pool_port):
            builds.wait_for(lambda port=port: _answers(port))  # type: ignore[misc]

    def kill(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._processes[name].pid, signal.SIGKILL)
        self._processes[name].wait()

    def options(self) -> list[str]:
        return [
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{self.job_port}",
            "--environment_type=EXTERNAL",
            f"--environment_config=127.0.0.1:{self.pool_port}",
        ]


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, faults: pathlib.Path) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("engine"), faults)
    try:
        engine.up()
        yield engine
    finally:
        for name in ("service", "pool"):
            engine.kill(name)


def test_the_portable_runner_gives_the_same_bytes(
    engine: Engine, expected: dict[str, str], tmp_path: pathlib.Path
) -> None:
    first = builds.run(builds.command(tmp_path / "out", engine.options()))
    assert first.status == 0, first.err
    assert builds.settle(tmp_path / "out", [], first, expected) == ""
    assert "write: 5 of 5 shards" in first.err, "progress is read from the corpus folder"


def test_a_corpus_that_grows_is_the_local_one(engine: Engine, tmp_path: pathlib.Path) -> None:
    engine.up()
    builds.grow(tmp_path, engine.options())


def test_the_portable_runner_drops_the_same_near_duplicates(
    engine: Engine, tmp_path: pathlib.Path
) -> None:
    engine.up()
    builds.require_same_near_duplicates(tmp_path, engine.options())


@pytest.mark.parametrize("stage", ["clean", "write"])
def test_a_killed_worker_pool_costs_one_run(
    stage: str,
    engine: Engine,
    faults: pathlib.Path,
    expected: dict[str, str],
    tmp_path: pathlib.Path,
) -> None:
    engine.up()
    output = tmp_path / "out"
    words = builds.command(output, engine.options())
    (faults / f"hold-{stage}").write_text({"clean": "sample-00000", "write": "0."}[stage])
    with builds.started(words) as process:
        builds.wait_for(lambda: any(faults.glob(f"held-{stage}-*")))
        engine.kill("pool")
        (faults / f"hold-{stage}").unlink()
        first = builds.finish(process)
    engine.up()
    assert first.status == 1
    error = builds.settle(output, words, first, expected)
    assert "worker" in error
    assert "run the same command again to resume" in error


def test_a_worker_that_crashes_on_a_file_names_it(
    engine: Engine, faults: pathlib.Path, expected: dict[str, str], tmp_path: pathlib.Path
) -> None:
    engine.up()
    output = tmp_path / "out"
    words = builds.command(output, engine.options())
    (faults / "crash-clean").write_text("sample-00002")
    first = builds.run(words)
    assert first.status == 1
    (faults / "crash-clean").unlink()
    error = builds.settle(output, words, first, expected)
    assert "worker" in error
    assert "sample-00002" in error, "which file it was"
