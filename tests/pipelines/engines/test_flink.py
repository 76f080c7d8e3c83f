"""What is checked before a build goes to Flink, against a JobManager of a few lines."""

import contextlib
import http.server
import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.engines import flink
from pipelines.quiet_beam import beam
from testing.helpers import run_c4, write_wet

PipelineOptions = beam.options.pipeline_options.PipelineOptions
PAGE = ("http://a.example/", "2019-04-18T10:00:00Z", "The lamp is lit at dusk. It burns all night.")


@contextlib.contextmanager
def job_manager(version: str = "1.19.3", slots: tuple[int, ...] = (2, 4)) -> Iterator[str]:
    """Answers as a cluster with TaskManagers of so many slots does; yields host:port."""
    answers = {
        "/v1/overview": {"flink-version": version},
        "/v1/taskmanagers": {"taskmanagers": [{"slotsNumber": number} for number in slots]},
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answers[self.path]).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def completed(master: str, *rest: str) -> list[str]:
    words = ["--runner=FlinkRunner", f"--flink_master={master}", *rest]
    return flink.complete(words, {word.split("=")[0] for word in words}, PipelineOptions(words))


def test_defaults_fit_the_cluster() -> None:
    with job_manager() as master:
        words = completed(master)
    assert words[2:] == [
        "--flink_version=1.19",
        "--parallelism=6",
        "--sdk_worker_parallelism=4",
        "--environment_type=EXTERNAL",
        "--environment_config=localhost:50000",
        "--flink_submit_uber_jar",
    ]


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ("--parallelism=2", "--parallelism"),
        ("--sdk_worker_parallelism=1", "--sdk_worker_parallelism"),
        ("--environment_config=host:1", "--environment_config"),
        ("--environment_type=LOOPBACK", "--environment_config"),
        ("--artifacts_dir=/mnt/staged", "--flink_submit_uber_jar"),
        ("--flink_version=1.19", "--flink_version"),
    ],
)
def test_what_is_given_stays(given: str, left_out: str) -> None:
    with job_manager() as master:
        words = completed(master, given)
    assert given in words
    added = [word.split("=")[0] for word in words[3:]]
    assert left_out not in added


@pytest.mark.parametrize(
    ("version", "slots", "options", "says"),
    [
        ("1.19.3", (), [], "no TaskManager"),
        ("1.19.3", (2,), ["--flink_version=2.0"], "Flink 1.19.3, not 2.0 (--flink_version)"),
        ("1.14.0", (2,), [], "publishes no runner"),
        ("1.20.1", (2,), ["--flink_job_server_jar=JAR"], "is for 1.19; give the jar for 1.20"),
        ("1.19.3", (2,), ["--flink_job_server_jar=/none.jar"], "/none.jar: no such file"),
    ],
)
def test_a_cluster_of_no_use_is_refused_in_one_line(
    version: str, slots: tuple[int, ...], options: list[str], says: str, tmp_path: pathlib.Path
) -> None:
    jar = tmp_path / "beam-runners-flink-1.19-job-server-2.62.0.jar"
    jar.touch()
    write_wet(tmp_path / "a.wet.gz", [PAGE])
    options = [option.replace("JAR", str(jar)) for option in options]
    with job_manager(version, slots) as master:
        outcome = run_c4(
            "build", "--input", tmp_path / "a.wet.gz", "--output", tmp_path / "out",
            "--runner=FlinkRunner", f"--flink_master={master}", *options,
        )  # fmt: skip
    assert outcome.status == 1
    assert says in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "out").exists(), "the folder is claimed only for a build that can begin"


def test_no_cluster_is_one_line(tmp_path: pathlib.Path) -> None:
    write_wet(tmp_path / "a.wet.gz", [PAGE])
    outcome = run_c4(
        "build", "--input", tmp_path / "a.wet.gz", "--output", tmp_path / "out",
        "--runner=FlinkRunner", "--flink_master=127.0.0.1:9",
    )  # fmt: skip
    assert outcome.status == 1
    assert "no Flink cluster answers at http://127.0.0.1:9: Connection refused" in outcome.err
    assert "(--flink_master)" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_options_of_the_java_half_pass_and_others_do_not(tmp_path: pathlib.Path) -> None:
    write_wet(tmp_path / "a.wet.gz", [PAGE])
    words = ["build", "--input", tmp_path / "a.wet.gz", "--output", tmp_path / "out"]
    words += ["--runner=FlinkRunner", "--flink_master=127.0.0.1:9"]
    assert "no Flink cluster" in run_c4(*words, "--object_reuse").err
    assert "no Flink cluster" in run_c4(*words, "--execution_retry_delay=1000").err
    assert "did you mean --object_reuse" in run_c4(*words, "--object_reus").err


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (
            "StatusRuntimeException: UNAVAILABLE: io exception\n"
            "\tat x.BeamFnExternalWorkerPoolBlockingStub.startWorker(B.java)\nCaused by: "
            "io.netty.AnnotatedConnectException: Connection refused: localhost/127.0.0.1:50000",
            "no worker pool answers on a TaskManager's host at 127.0.0.1:50000;",
        ),
        ("x.AnnotatedConnectException: Connection refused", "no worker pool answers on a Task"),
        (
            "StatusRuntimeException: UNAVAILABLE: Unable to resolve host pool\n"
            "\tat x.BeamFnExternalWorkerPoolBlockingStub.startWorker(B.java)",
            "no worker pool answers on a TaskManager's host;",
        ),
        (
            "x.RemoteTransportException: Connecting to remote task manager 'a/1.2.3.4:5' has "
            "failed.\nCaused by: java.net.ConnectException: Connection refused: a/1.2.3.4:5",
            "a TaskManager was lost",
        ),
        ("StatusRuntimeException: UNAVAILABLE: Multiplexer hanging up", "a Python worker died"),
        ("java.io.IOException: Insufficient number of network buffers: 512", "network buffers"),
        ("x.NoResourceAvailableException: Slot request bulk", "free slots"),
        ("The heartbeat of TaskManager with id 7 timed out.", "a TaskManager was lost"),
        ("StatusRuntimeException: CANCELLED: call already cancelled", "a Python worker died"),
    ],
)
def test_failures_of_the_java_side_are_told_by_their_meaning(failure: str, says: str) -> None:
    told = flink.meaning(failure)
    assert told is not None
    assert says in told


def test_what_interrupted_a_task_is_the_failure() -> None:
    interrupted = "CANCELLED: Thread interrupted\nCaused by: java.lang.InterruptedException\n"
    refused = "UNAVAILABLE: io exception\nCaused by: x.y: Connection refused: localhost/1.1.1.1:1"
    others = [{"stacktrace": interrupted}, {"stacktrace": refused}]
    told = {
        "root-exception": interrupted,
        "exceptionHistory": {"entries": [{"concurrentExceptions": others}, {"stacktrace": "old"}]},
    }
    assert flink.root_failure(told) == refused
    assert flink.root_failure({**told, "root-exception": "a disk is full"}) == "a disk is full"
    others.pop()
    assert flink.root_failure(told) == interrupted
    assert flink.root_failure({"root-exception": interrupted}) == interrupted
    assert flink.root_failure({}) == ""


def test_an_unknown_failure_is_not_given_a_meaning() -> None:
    assert flink.meaning("java.lang.IllegalStateException: oops") is None
