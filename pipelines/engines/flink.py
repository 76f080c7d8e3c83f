"""``c4 build`` on a Flink cluster: checks before the job, and how the job is followed.

The job goes to the JobManager over its REST interface, as one jar that contains Beam's runner: no
job server has to run, and only the corpus folder has to be shared. Beam submits it; this module
checks the cluster, fills in defaults that fit it, and follows the job. It tolerates a JobManager
that is silent for a while, and reports a failure in one line.
"""

import dataclasses
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import requests

from pipelines.quiet_beam import beam  # noqa: F401  before anything else of Beam

from apache_beam.options import pipeline_options  # isort: skip
from apache_beam.portability.api import beam_job_api_pb2  # isort: skip
from apache_beam.runners.portability import (  # isort: skip
    flink_runner,
    flink_uber_jar_job_server,
)

#: Options of Beam's Flink runner that only its Java half knows (FlinkPipelineOptions, Beam 2.62):
#: those that mean something to a batch job.
JAVA_OPTIONS = (
    "--auto_balance_write_files_sharding_enabled",
    "--disable_metrics",
    "--execution_mode_for_batch",
    "--execution_retry_delay",
    "--faster_copy",
    "--file_input_split_max_size_m_b",
    "--latency_tracking_interval",
    "--max_bundle_size",
    "--max_bundle_time_mills",
    "--number_of_execution_retries",
    "--object_reuse",
    "--operator_chaining",
    "--re_iterable_group_by_key_result",
    "--use_data_stream_for_batch",
)
# Beam has no types for these.
_FlinkRunner: Any = flink_runner.FlinkRunner
_UberJarServer: Any = flink_uber_jar_job_server.FlinkUberJarJobServer
_UberJarJob: Any = flink_uber_jar_job_server.FlinkBeamJob
_ANSWER_S = 30.0
_SILENCE_S = 60.0  # of a JobManager that restarts
_FIRST_POLL_S, _LAST_POLL_S = 0.5, 5.0
#: Where a TaskManager looks for its workers unless --environment_config says otherwise.
POOL = "localhost:50000"
_JAR_VERSION = re.compile(r"beam-runners-flink-(\d+\.\d+)-job-server")
_JOB_STATE = beam_job_api_pb2.JobState
_ENDED = {
    "FINISHED": _JOB_STATE.DONE,
    "FAILED": _JOB_STATE.FAILED,
    "CANCELED": _JOB_STATE.CANCELLED,
}


class FlinkError(OSError):
    """The cluster or the job on it failed; one line with the way out."""


@dataclasses.dataclass(frozen=True)
class FlinkCluster:
    """A cluster, as its JobManager describes it."""

    address: str  # of the REST interface, with its scheme
    version: str
    slots: int
    slots_per_manager: int

    @property
    def minor_version(self) -> str:
        """Major and minor version, which name Beam's runners.

        >>> FlinkCluster("http://localhost:8081", "1.19.3", 4, 2).minor_version
        '1.19'
        """
        return ".".join(self.version.split(".")[:2])


def on_cluster(options: Any) -> bool:
    """Return whether the options name a Flink cluster that this process talks to."""
    portable = options.view_as(pipeline_options.PortableOptions)
    flink = options.view_as(pipeline_options.FlinkRunnerOptions)
    standard = options.view_as(pipeline_options.StandardOptions)
    return (
        standard.runner == "FlinkRunner"
        and flink.flink_master not in flink_runner.MAGIC_HOST_NAMES
        and not portable.job_endpoint
        and not portable.output_executable_path
    )


def look_at(master: str) -> FlinkCluster:
    """Ask a JobManager about its cluster. Raises FlinkError if it cannot run a build."""
    address = flink_runner.FlinkRunner.add_http_scheme(master)
    try:
        overview = _answer(requests.get(f"{address}/v1/overview", timeout=_ANSWER_S))
        managers = _answer(requests.get(f"{address}/v1/taskmanagers", timeout=_ANSWER_S))
        slots = [int(manager["slotsNumber"]) for manager in managers["taskmanagers"]]
        cluster = FlinkCluster(
            address, str(overview["flink-version"]), sum(slots), max(slots, default=0)
        )
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise FlinkError(
            f"no Flink cluster answers at {address}: {_reason(error)}; give the address of the "
            "JobManager's REST interface, host:port (--flink_master)"
        ) from None
    if not cluster.slots:
        raise FlinkError(
            f"the Flink cluster at {address} has no TaskManager; start one (--flink_master)"
        )
    return cluster


def complete(rest: Sequence[str], given: Set[str], options: Any) -> list[str]:
    """Return the given options, completed with defaults that fit the cluster.

    Raises FlinkError or ValueError when it cannot run the build.
    """
    flink = options.view_as(pipeline_options.FlinkRunnerOptions)
    portable = options.view_as(pipeline_options.PortableOptions)
    jar = flink.flink_job_server_jar
    if jar and "://" not in jar and not os.path.isfile(jar):
        raise FlinkError(f"{jar}: no such file (--flink_job_server_jar)")
    cluster = look_at(flink.flink_master)
    version = cluster.minor_version
    if "--flink_version" in given and flink.flink_version != version:
        raise ValueError(
            f"the cluster at {cluster.address} is Flink {cluster.version}, not "
            f"{flink.flink_version} (--flink_version)"
        )
    of_jar = _JAR_VERSION.search(os.path.basename(jar)) if jar else None
    if of_jar is not None and of_jar[1] != version:
        raise ValueError(
            f"the cluster at {cluster.address} is Flink {cluster.version}, and {jar} is for "
            f"{of_jar[1]}; give the jar for {version} (--flink_job_server_jar)"
        )
    if jar is None and version not in flink.PUBLISHED_FLINK_VERSIONS:
        raise ValueError(
            f"the cluster at {cluster.address} is Flink {cluster.version}, for which Beam "
            f"publishes no runner, only for {', '.join(flink.PUBLISHED_FLINK_VERSIONS)}"
        )
    defaults = {
        "--flink_version": version,
        "--parallelism": cluster.slots,
        # One Python process a slot: more slots than processes would share one interpreter.
        "--sdk_worker_parallelism": cluster.slots_per_manager,
    }
    if version not in flink.PUBLISHED_FLINK_VERSIONS:
        del defaults["--flink_version"]  # not needed with a jar, and refused by the option
    if portable.environment_type in (None, "EXTERNAL"):
        defaults["--environment_type"] = "EXTERNAL"
        if not portable.environment_options:
            defaults["--environment_config"] = POOL
    completed = [*rest]
    completed += [f"{name}={value}" for name, value in defaults.items() if name not in given]
    if given.isdisjoint(("--flink_submit_uber_jar", "--artifacts_dir")):
        completed.append("--flink_submit_uber_jar")
    return completed


class Runner(_FlinkRunner):  # type: ignore[misc]
    """Beam's Flink runner that follows the job itself if there is no job server."""

    def default_job_server(self, options: Any) -> Any:
        """Return Beam's choice, or our server where Beam would submit by REST."""
        server = super().default_job_server(options)
        if isinstance(server, _UberJarServer):
            return _JobServer(server._master_url, options)
        return server


class _JobServer(_UberJarServer):  # type: ignore[misc]
    def create_beam_job(self, job_id: str, job_name: str, pipeline: Any, options: Any) -> Any:
        try:
            jar = self.executable_jar()
        except Exception as error:  # whatever Beam's download raises
            raise FlinkError(
                f"Beam's runner for Flink could not be downloaded: {_reason(error)}; give its jar "
                "(--flink_job_server_jar)"
            ) from None
        return _Job(
            self._master_url, jar, job_id, job_name, pipeline, options,
            artifact_port=self._artifact_port,
        )  # fmt: skip


class _Job(_UberJarJob):  # type: ignore[misc]
    """One job: submitted by Beam, followed and cancelled by us."""

    def run(self) -> None:
        try:
            super().run()
        except requests.RequestException as error:
            raise FlinkError(
                f"the JobManager at {self._master_url} closed the connection: "
                f"{_reason(error)}; run the same command again (--flink_master)"
            ) from None
        except RuntimeError as error:  # another status than 200
            raise FlinkError(
                f"the JobManager at {self._master_url} refused the job: {refusal(str(error))}"
            ) from None

    def cancel(self) -> None:
        """Stop the job on the cluster: no launcher waits for it any more."""
        job = f"{self._master_url}/v1/jobs/{self._flink_job_id}"
        requests.patch(job, params={"mode": "cancel"}, timeout=_ANSWER_S)
        self.delete_jar()

    def get_state_stream(self) -> Iterator[Any]:
        """Yield states up to the last. Raises FlinkError if the JobManager stops answering."""
        pause, silent_since = _FIRST_POLL_S, None
        while True:
            try:
                state = _ENDED.get(self._flink_state(), _JOB_STATE.RUNNING)
                silent_since = None
            except requests.RequestException as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > _SILENCE_S:
                    raise FlinkError(
                        f"the JobManager at {self._master_url} has not answered for "
                        f"{_SILENCE_S:.0f} s: {_reason(error)}"
                    ) from None
            else:
                self.set_state(state)
                yield self.get_state()
                if self.is_terminal_state(state):
                    self.delete_jar()
                    return
            time.sleep(pause)
            pause = min(_LAST_POLL_S, pause * 1.2)

    def get_message_stream(self) -> Iterator[Any]:
        """Yield states and, if the job fails, the reason."""
        for state, timestamp in self.get_state_stream():
            if state == _JOB_STATE.FAILED:
                yield beam_job_api_pb2.JobMessage(
                    message_id="failure",
                    time=str(timestamp),
                    importance=beam_job_api_pb2.JobMessage.JOB_MESSAGE_ERROR,
                    message_text=self._failure(),
                )
            yield state, timestamp

    def _flink_state(self) -> str:
        answer = requests.get(f"{self._master_url}/v1/jobs/{self._flink_job_id}", timeout=_ANSWER_S)
        if answer.status_code == requests.codes.not_found:
            raise FlinkError(
                f"the JobManager at {self._master_url} no longer knows job {self._flink_job_id}: "
                "it was restarted, and keeps no jobs (Flink's high availability would)"
            )
        answer.raise_for_status()
        return str(answer.json()["state"])

    def _failure(self) -> str:
        try:
            answer = self.get(f"v1/jobs/{self._flink_job_id}/exceptions", timeout=_ANSWER_S)
        except (RuntimeError, requests.RequestException) as error:
            return f"the job failed, and the cluster does not say why: {_reason(error)}"
        return root_failure(answer) or "the job failed without a reason"


def _answer(response: requests.Response) -> Any:
    response.raise_for_status()
    return response.json()


def _reason(error: Exception) -> str:
    """Return a short line: requests wraps the system's message in three others."""
    text = " ".join(str(error).split())
    plain = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    return plain[1] if plain else text[:200]


def refusal(text: str) -> str:
    r"""Return the last cause in a JobManager's page of Java.

    >>> refusal('failed: {"errors":["Error","<x: java.lang.Oops: no\\n\\tat a.b(C.java:1)\\n'
    ...         'Caused by: java.io.IOException: disk full\\n\\tat d.e(F.java:2)"]}')
    'java.io.IOException: disk full'
    """
    causes = re.findall(r"Caused by: (.*?)(?:\\n|\n|\"|$)", text)
    return " ".join((causes[-1] if causes else text).split())[:300]


def root_failure(answer: Mapping[str, Any]) -> str:
    """Return the stack trace of what failed first, from a JobManager's answer about a job.

    Tasks that it interrupted report exceptions too, sometimes earlier: Flink then lists the first
    failure among the concurrent ones.
    """
    root = str(answer.get("root-exception") or "")
    entries = answer.get("exceptionHistory", {}).get("entries", [])
    if _INTERRUPTED not in root or not entries:
        return root
    traces = [str(other["stacktrace"]) for other in entries[0].get("concurrentExceptions", [])]
    return next((trace for trace in traces if _INTERRUPTED not in trace), root)


_INTERRUPTED = "java.lang.InterruptedException"

_NO_POOL = (
    "no worker pool answers on a TaskManager's host{address}; start c4 worker-pool beside each "
    "TaskManager, or give the address that it listens on (--environment_config)"
)

#: Patterns in failures without a Python traceback, and their meaning; the first match wins.
_FAILURES = (
    (
        r"TaskManager with id \S+ is no longer reachable|Connection unexpectedly closed by remote "
        r"task manager|heartbeat of TaskManager|Connecting to remote task manager",
        "a TaskManager was lost, more often than Flink's restart strategy allows",
    ),
    (r"Connection refused(?:: [^/\s]*/(?P<address>\S+))?", _NO_POOL),
    (r"UNAVAILABLE[\s\S]*ExternalWorkerPoolBlockingStub\.startWorker", _NO_POOL),
    (
        r"Insufficient number of network buffers",
        "a TaskManager has too few network buffers; give Flink more "
        "(taskmanager.memory.network.max) or fewer slots",
    ),
    (
        r"NoResourceAvailableException",
        "the cluster has too few free slots; add TaskManagers or lower --parallelism",
    ),
    (
        r"Process died with exit code|Multiplexer hanging up|SdkHarness|StatusRuntimeException: "
        r"(CANCELLED|UNAVAILABLE)|call already cancelled|Failed to communicate",
        "a Python worker died (killed, or out of memory), more often than Flink's restart "
        "strategy allows",
    ),
)


def meaning(failure: str) -> str | None:
    """Return what a failure of the Java side means, or None if it is unknown.

    >>> meaning("java.io.IOException: Insufficient number of network buffers: required 512")[:50]
    'a TaskManager has too few network buffers; give Fl'
    """
    for pattern, what in _FAILURES:
        if found := re.search(pattern, failure):
            address = found.groupdict().get("address")
            return what.format(address=f" at {address}" if address else "")
    return None
