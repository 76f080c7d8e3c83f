"""Beam's engine for one machine, with workers that `pipelines.engines.local` starts."""

import os
import weakref
from collections.abc import Mapping
from typing import Any

from pipelines.engines.local import Workers, has_own_workers, has_workers
from pipelines.quiet_beam import beam  # noqa: F401  before anything else of Beam

from apache_beam.portability.api import beam_provision_api_pb2  # isort: skip
from apache_beam.runners.job.utils import dict_to_struct  # isort: skip
from apache_beam.runners.portability.fn_api_runner import (  # isort: skip
    fn_runner,
    worker_handlers,
)
from apache_beam.transforms import environments  # isort: skip
from google.protobuf import json_format, text_format  # isort: skip

_URN = "c4:environment:local:v1"
_BUILDS: "weakref.WeakValueDictionary[bytes, Workers]" = weakref.WeakValueDictionary()
# Beam has no types for these.
_Environment: Any = environments.Environment
_GrpcWorkerHandler: Any = worker_handlers.GrpcWorkerHandler


@_Environment.register_urn(_URN, bytes)
class _LocalEnvironment(_Environment):  # type: ignore[misc]
    """Names, by its id, the object that starts workers."""

    def __init__(self, build: bytes, *rest: Any) -> None:
        super().__init__(*rest)
        self._build = build

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        return _URN, self._build

    @staticmethod
    def from_runner_api_parameter(
        payload: bytes, capabilities: Any, artifacts: Any, resource_hints: Any, context: Any
    ) -> "_LocalEnvironment":
        del context
        return _LocalEnvironment(payload, capabilities, artifacts, resource_hints)


@worker_handlers.WorkerHandler.register_environment(_URN, bytes)
class _LocalWorkerHandler(_GrpcWorkerHandler):  # type: ignore[misc]
    """One worker process, as Beam's runner sees it."""

    def __init__(self, build: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._workers = _BUILDS[build]

    def start_worker(self) -> None:
        def text(address: Any) -> str:
            return str(text_format.MessageToString(address))

        self._workers.start(
            {
                "WORKER_ID": self.worker_id,
                "CONTROL_API_SERVICE_DESCRIPTOR": text(self.control_api_service_descriptor()),
                "LOGGING_API_SERVICE_DESCRIPTOR": text(self.logging_api_service_descriptor()),
                "PIPELINE_OPTIONS": json_format.MessageToJson(
                    self.provision_info.provision_info.pipeline_options
                ),
            }
        )

    def stop_worker(self) -> None:
        """Leave its end to `Workers`: it has nothing left to do."""


def runner(options: Any, chosen: Mapping[str, Any], workers: Workers) -> Any:
    """Return Beam's engine for one machine, given Beam's options and all their values.

    It does not pass the pipeline's options to its worker processes: without them no address
    or key of a file system reaches a worker, nor the level of its log.
    """
    if not has_workers(chosen):
        return fn_runner.FnApiRunner()
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
    if has_own_workers(chosen):
        build = f"{os.getpid()}-{id(workers)}".encode()
        _BUILDS[build] = workers
        environment = _LocalEnvironment(build, environments.python_sdk_capabilities())
    return fn_runner.FnApiRunner(
        default_environment=environment,
        provision_info=fn_runner.ExtendedProvisionInfo(provision),
    )
