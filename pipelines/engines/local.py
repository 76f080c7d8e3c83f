"""Builds on this machine: how many worker processes, and the runner that starts them."""

import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from pipelines.engines import local_worker

__all__ = ["runner", "worker_count"]

# A process takes 2 CPU seconds to start (Beam's imports), for which it cleans some 20 MB.
_BYTES_WORTH_A_PROCESS = 24 << 20


def worker_count(files: Sequence[tuple[str, int]]) -> int:
    """A process a core, but none that would start for longer than it works, or have no file."""
    worth_starting = sum(size for _, size in files) // _BYTES_WORTH_A_PROCESS
    return max(1, min(_cores(), len(files), worth_starting))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def runner(options: Any) -> Any:
    """Beam's engine for one machine.

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
    if given.get("direct_num_workers", 1) > 1 and "direct_running_mode" not in given:
        environment = SubprocessSDKEnvironment.from_command_string(
            f"{shlex.quote(sys.executable)} {local_worker.COMMAND}"
        )
    return fn_runner.FnApiRunner(
        default_environment=environment,
        provision_info=fn_runner.ExtendedProvisionInfo(provision),
    )
