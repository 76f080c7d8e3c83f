"""``c4 worker-pool``: Python workers for an engine that runs elsewhere on this host.

Beam's own pool starts the first ``python`` on the path, accepts connections from every network,
passes none of the build's options to workers (so no address or key of a file system), and never
reads their output: 64 kB of it block a job for ever. This one listens on loopback, passes the
options on, writes the workers' output to its log, and its workers end with it.

Flink ends its workers after every stage of a batch job and starts others for the next. So workers
are forked from a process that has imported everything: 20 ms each, where an interpreter of its own
takes 2 CPU seconds.
"""

import argparse
import dataclasses
import json
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from pipelines.options import add_options, check_bounds, given_values, option

_PROVISION_S = 60
_ENDS_S = 10
_IMPORTED = (
    "pipelines.quiet_beam",
    "apache_beam.runners.worker.sdk_worker_main",
    "pipelines.stages.graph",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 worker-pool``."""
    parser.epilog = (
        "Run one beside each TaskManager, and give c4 build --environment_config=localhost:PORT."
    )
    add_options(parser, _Options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Where the pool listens."""

    port: int = option("port to listen on", default=50000, least=1, most=65_535)
    host: str = option(
        "address to listen on (default: 127.0.0.1); anyone who can reach it can run code here",
        default="127.0.0.1",
    )
    label: str | None = option("any text, to recognise this process in a list", default=None)

    def __post_init__(self) -> None:
        check_bounds(self)


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted and return the exit status. Raises OSError, ValueError."""
    from pipelines import quiet_beam  # noqa: F401  before anything else of Beam

    import grpc  # isort: skip
    from apache_beam.portability.api import beam_fn_api_pb2_grpc  # isort: skip
    from apache_beam.utils import thread_pool_executor  # isort: skip

    options = _Options(**given_values(arguments, _Options))
    pool = WorkerPool()
    server = grpc.server(
        thread_pool_executor.shared_unbounded_instance(), options=[("grpc.so_reuseport", 0)]
    )
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    address = f"{options.host}:{options.port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise OSError(
            f"cannot listen on {address}: the port is taken, or the address not this machine's "
            "(--port, --host)"
        ) from None
    server.start()
    print(f"c4 worker-pool: listening on {address}", file=sys.stderr, flush=True)
    try:
        threading.Event().wait()
    finally:
        server.stop(0)
        pool.close()
    return 0


class WorkerPool:
    """Beam's protocol for workers that an engine does not start itself.

    Two TaskManagers of one host use the same numbers for their workers, so a worker is identified
    by its connection too: it is started and stopped over the same one.
    """

    def __init__(self) -> None:
        self._workers: dict[tuple[str, str], multiprocessing.process.BaseProcess] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(list(_IMPORTED))

    def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: N802  Beam's name
        """Start one worker; what keeps it from starting is the engine's to report."""
        import grpc
        from apache_beam.portability.api import beam_fn_api_pb2

        key = (context.peer(), request.worker_id)
        try:
            worker = self._processes.Process(
                target=_work, args=(_worker_environment(request),), daemon=True
            )
            with self._lock:
                if self._closed:
                    return beam_fn_api_pb2.StartWorkerResponse(error="the worker pool is closing")
                self._forget_ended()
                worker.start()
                self._workers[key] = worker
        except (OSError, EOFError, grpc.RpcError) as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"c4 worker-pool: {error}")
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:  # noqa: N802  Beam's name
        """Stop one worker, which may have ended by itself."""
        from apache_beam.portability.api import beam_fn_api_pb2

        with self._lock:
            worker = self._workers.pop((context.peer(), request.worker_id), None)
        if worker is not None:
            _end(worker)
        return beam_fn_api_pb2.StopWorkerResponse()

    def _forget_ended(self) -> None:
        for key, worker in list(self._workers.items()):
            if not worker.is_alive():
                del self._workers[key]

    def close(self) -> None:
        """Stop every worker and start no more."""
        with self._lock:
            self._closed = True
            workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.terminate()
        for worker in workers:
            _end(worker)


def _end(worker: multiprocessing.process.BaseProcess) -> None:
    worker.terminate()
    worker.join(_ENDS_S)
    if worker.is_alive():
        worker.kill()
        worker.join()


def _work(environment: Mapping[str, str]) -> None:
    """Run Beam's worker in a forked process, until the engine or the pool is gone."""
    os.dup2(2, 1)  # what rules or libraries print goes to the pool's standard error
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool's to handle; it ends its workers
    threading.Thread(target=_end_with_pool, daemon=True).start()
    os.environ.update(environment)
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


def _end_with_pool() -> None:
    pool = multiprocessing.parent_process()
    if pool is not None:
        pool.join()
        os._exit(1)


def _worker_environment(request: Any) -> dict[str, str]:
    """Return the environment of Beam's worker: where to call, and the build's options."""
    import grpc
    from apache_beam.portability.api import (
        beam_provision_api_pb2,
        beam_provision_api_pb2_grpc,
    )
    from apache_beam.runners.worker import worker_id_interceptor
    from google.protobuf import json_format, text_format

    options: Mapping[str, Any] = {}
    if request.provision_endpoint.url:
        with grpc.insecure_channel(request.provision_endpoint.url) as channel:
            named = grpc.intercept_channel(
                channel, worker_id_interceptor.WorkerIdInterceptor(request.worker_id)
            )
            answer = beam_provision_api_pb2_grpc.ProvisionServiceStub(named).GetProvisionInfo(
                beam_provision_api_pb2.GetProvisionInfoRequest(), timeout=_PROVISION_S
            )
        options = json_format.MessageToDict(answer.info.pipeline_options)
    environment = {
        "WORKER_ID": request.worker_id,
        "PIPELINE_OPTIONS": json.dumps(_whole_numbers(options)),
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(request.control_endpoint),
    }
    if request.logging_endpoint.url:
        environment["LOGGING_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(
            request.logging_endpoint
        )
    return environment


def _whole_numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they were before they were sent in a message without whole numbers.

    >>> _whole_numbers({"parallelism": 2.0, "share": 0.5})
    {'parallelism': 2, 'share': 0.5}
    """
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in options.items()
    }
