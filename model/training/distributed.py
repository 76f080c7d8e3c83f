"""Several processes that train as one: finding each other, sharing a batch, agreeing.

Every process runs the same program. Each holds some of the devices, reads its own part of the
corpus, and meets the others inside the compiled step. Only the first writes files and prints.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from model.devices import has_tpu
from model.training.processes import Processes
from pipelines.printing import print_lines


def detect_cluster(environ: Mapping[str, str] | None = None) -> str | None:
    """Return what started several processes: ``"slurm"``, ``"openmpi"``, ``"tpu"``, or None.

    None means that :func:`jax.distributed.initialize` could not find other processes by itself. On
    Google's TPU machines it is always asked: a machine may be one of many.

    >>> detect_cluster({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "JAX_PLATFORMS": "cpu"})
    'slurm'
    >>> detect_cluster({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "JAX_PLATFORMS": "cpu"})
    """
    environ = os.environ if environ is None else environ
    # Set by srun for each task; a batch script without srun is one process whatever it asked for.
    if "SLURM_PROCID" in environ and _number(environ.get("SLURM_STEP_NUM_TASKS")) > 1:
        return "slurm"
    if _number(environ.get("OMPI_COMM_WORLD_SIZE")) > 1:
        return "openmpi"
    platforms = environ.get("JAX_PLATFORMS", "")
    if (not platforms or "tpu" in platforms.split(",")) and has_tpu():
        return "tpu"
    return None


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def initialize(cluster: Processes, *, timeout_seconds: int = 300) -> tuple[int, int]:
    """Join the other processes, if there are any; before anything else asks JAX for devices.

    Returns:
      The number of this process and how many there are; ``(0, 1)`` where it is alone.

    Raises:
      ValueError: the others were not there in ``timeout_seconds``.
    """
    if cluster.coordinator is None and detect_cluster() is None:
        return 0, 1
    # On CPUs the processes meet through gloo, which JAX brings.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # type: ignore[no-untyped-call]
    try:
        jax.distributed.initialize(
            coordinator_address=cluster.coordinator,
            num_processes=cluster.processes,
            process_id=cluster.process_id,
            initialization_timeout=timeout_seconds,
        )
    except RuntimeError as error:
        if "DEADLINE" not in str(error).upper():
            raise
        raise ValueError(
            f"not all of {cluster.processes or 'the'} processes reached "
            f"{cluster.coordinator or 'the coordinator'} in {timeout_seconds} seconds: start each "
            "with its own --process-id, and see that the port is open"
        ) from error
    return jax.process_index(), jax.process_count()


def shutdown() -> None:
    """Leave the other processes; do nothing if there are none."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()  # type: ignore[no-untyped-call]


def is_first() -> bool:
    """Return whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def print_first(line: str) -> None:
    """Print a line once, however many processes there are."""
    if is_first():
        print_lines(line, flush=True)


def barrier(name: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gathered(text: str) -> list[str]:
    """Return a text of each process, in their order."""
    if jax.process_count() == 1:
        return [text]
    content = np.frombuffer(text.encode(), np.uint8)
    longest = int(np.max(multihost_utils.process_allgather(np.int32(len(content)))))
    padded = np.pad(content, (0, longest - len(content)))
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [bytes(row).rstrip(b"\0").decode() for row in rows]


def require_agreement(what: str, value: str) -> None:
    """Check that every process was started with the same value.

    Raises ValueError, on all of them, that names those which differ from the first. A run whose
    processes disagree would hang in its first step, or train on something nobody asked for.
    """
    found = gathered(value)
    others = [number for number, each in enumerate(found) if each != found[0]]
    if others:
        raise ValueError(
            f"{what} of process {', '.join(map(str, others))} differs from that of process 0: "
            "start every process with the same options and files"
        )


def input_part(sharding: NamedSharding, batch_size: int) -> tuple[int, int]:
    """Return which part of every batch this process must read: its number, and how many there are.

    Usually each process has its own part. Processes whose devices hold the same sequences, as
    when ``tensor`` goes across hosts, have the same part and read the same. The sequences of a
    part need not be neighbours in the batch: on a torus, those of a host's devices are not.

    Args:
      sharding: of a batch (:func:`model.training.sharding.batch_sharding`).
      batch_size: sequences of the whole batch.

    Raises:
      ValueError: the batch does not divide over the mesh, or the parts of two processes overlap
        without being the same.
    """
    ways = sharding.mesh.shape["data"] * sharding.mesh.shape["fsdp"]
    if batch_size % ways:
        raise ValueError(
            f"a batch of {batch_size} sequences does not divide over {ways} devices "
            "(data x fsdp): give --batch-size a multiple of it, or another --mesh"
        )
    rows: dict[int, set[tuple[int, int]]] = {}
    for device, (index, *_) in sharding.devices_indices_map((batch_size,)).items():
        start, stop, _step = index.indices(batch_size)
        process: int = device.process_index  # type: ignore[attr-defined]  # of a C++ class
        rows.setdefault(process, set()).add((start, stop))
    return _part(rows, jax.process_index())


def _part(rows: Mapping[int, set[tuple[int, int]]], process: int) -> tuple[int, int]:
    """Return (part, parts) of a process, from the runs of rows that each process holds.

    >>> _part({0: {(0, 2), (4, 6)}, 1: {(2, 4), (6, 8)}}, 1)
    (1, 2)
    >>> _part({0: {(0, 8)}, 1: {(0, 8)}}, 1)
    (0, 1)
    """
    # Runs are those of devices: all of one length, and two are the same or apart.
    parts = sorted({tuple(sorted(held)) for held in rows.values()})
    runs = [run for part in parts for run in part]
    if len(set(runs)) != len(runs) or len({len(part) for part in parts}) != 1:
        raise ValueError(
            "processes hold some sequences of a batch together and some not: use a mesh whose "
            "data and fsdp, or whose tensor, are multiples of the devices of a process (--mesh)"
        )
    return parts.index(tuple(sorted(rows[process]))), len(parts)


def global_batch(
    sharding: NamedSharding, local: Mapping[str, np.ndarray[Any, Any]], batch_size: int
) -> dict[str, jax.Array]:
    """Return one batch of all processes, made from the part that each has read.

    Args:
      sharding: over the first axis of each array.
      local: name to this process's rows, those of its :func:`input_part`, ``[rows, ...]``.
      batch_size: rows of all processes together.
    """
    return {
        name: jax.make_array_from_process_local_data(  # type: ignore[no-untyped-call]
            sharding, array, (batch_size, *array.shape[1:])
        )
        for name, array in local.items()
    }
