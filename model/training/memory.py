"""Memory of devices: what a compiled step needs, what there is, and one line when it runs out."""

import contextlib
import dataclasses
import errno
import pathlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from model.training import distributed
from model.training.sharding import MeshShape
from model.training.train_config import TrainConfig
from pipelines.printing import size

_MARGIN = 0.95  # of the room that an estimate may fill


class OutOfMemoryError(ValueError):
    """A device or this machine has too little memory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes that a step holds at once on the device that holds most."""

    parameters: int
    optimizer: int
    batch: int
    temporaries: int  #: activations, gradients, gathered parameters

    @property
    def total(self) -> int:
        """All of them together."""
        return self.parameters + self.optimizer + self.batch + self.temporaries

    @classmethod
    def of(
        cls, compiled: Any, parameters: int, optimizer: int, *, updates: bool
    ) -> "StepMemory | None":
        """Read XLA's analysis of a compiled program; None if this backend has none.

        Args:
          compiled: a ``jax.stages.Compiled``.
          parameters: bytes of the parameters on a device.
          optimizer: bytes of the optimizer's state, which stays there during evaluation too.
          updates: whether the program gets the optimizer's state, and is given away what it gets.
        """
        found = compiled.memory_analysis()
        if found is None:
            return None
        held = parameters + (optimizer if updates else 0)
        written = found.output_size_in_bytes - found.alias_size_in_bytes
        return cls(
            parameters=parameters,
            optimizer=optimizer,
            batch=max(found.argument_size_in_bytes - held, 0),
            temporaries=found.temp_size_in_bytes
            + max(written, 0)
            + found.generated_code_size_in_bytes,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """The memory that devices have."""

    bytes: float | None  #: None where nobody knows
    devices: int = 1  #: that share it
    of_host: bool = False  #: whether it is what the machine has free


def available_room(devices: Any) -> Room:
    """Return what a step may fill: of an accelerator its limit, of CPUs what this machine has free.

    Args:
      devices: all of the mesh.
    """
    here = [device for device in devices if device.process_index == jax.process_index()]
    if here[0].platform != "cpu":
        return Room(bytes=device_limit(here[0]))
    host = socket.gethostname()
    processes = distributed.gathered(host).count(host)
    return Room(bytes=host_memory(), devices=len(here) * processes, of_host=True)


def device_limit(device: Any) -> float | None:
    """Return the bytes that JAX may use of a device; None if it is unknown, as of a CPU."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return None if limit is None else float(limit)


def host_memory(root: str = "/") -> float | None:
    """Return the bytes that this process can still get: of the machine, or of its control group.

    Args:
      root: where ``proc`` and ``sys`` are.
    """
    found = [
        *_meminfo(pathlib.Path(root, "proc/meminfo")),
        *_cgroups(pathlib.Path(root, "proc/self/cgroup"), pathlib.Path(root, "sys/fs/cgroup")),
    ]
    return min(found, default=None)


def require_host_room(option: str, needed: float) -> None:
    """Check that what an option asks this process to hold leaves half of the free memory.

    Args:
      option: with its value.
      needed: bytes.

    Raises OutOfMemoryError where it does not.
    """
    there = host_memory()
    if there is not None and needed > there / 2:
        raise OutOfMemoryError(
            f"{option} needs {size(needed)} of this machine's memory, of which {size(there)} are "
            "free: give a smaller number"
        )


def _meminfo(path: pathlib.Path) -> Iterator[float]:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024.0 * int(line.split()[1])


def _cgroups(listed: pathlib.Path, mounted: pathlib.Path) -> Iterator[float]:
    """Yield what is free under each limit of this process's control group and its ancestors."""
    try:
        lines = listed.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            base, limit, used, cache = mounted, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, used = mounted / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        group = base / path.lstrip("/")
        # In a container the path may be that of the host; its own group is the mount.
        for folder in {
            group,
            *(parent for parent in group.parents if base in parent.parents),
            base,
        }:
            try:
                most, now = (int((folder / name).read_text()) for name in (limit, used))
                stat = dict(
                    line.split() for line in (folder / "memory.stat").read_text().splitlines()
                )
            except (OSError, ValueError):  # none here, or "max"
                continue
            yield float(max(0, most - now + int(stat.get(cache, 0))))


def require_room(
    name: str, memory: StepMemory | None, room: Room, config: TrainConfig, mesh: MeshShape
) -> str | None:
    """Check that a compiled step fits, and return a line that says what it keeps.

    All processes come to the same result: that of the one with the least room.

    Args:
      name: of the step.
      memory: what it needs; None if unknown, and then there is no line.
      room: what there is.
      config: of the run, for the options that help.
      mesh: of the run.

    Raises OutOfMemoryError, with the option that helps, where it does not fit.
    """
    if memory is None:
        return None
    there = np.float64(np.inf if room.bytes is None else room.bytes / room.devices)
    if jax.process_count() > 1:
        there = np.min(np.asarray(multihost_utils.process_allgather(there)))
    parts = (
        f"{size(memory.parameters)} parameters, {size(memory.optimizer)} optimizer, "
        f"{size(memory.temporaries)} activations and temporaries"
    )
    if memory.total > there:
        each = f" on each of {room.devices} devices" if room.devices > 1 else ""
        owner = "this machine" if room.of_host else "the device"
        raise OutOfMemoryError(
            f"{name} needs {size(memory.total)}{each} ({parts}), and {owner} has "
            f"{size(float(there) * room.devices)}: {_advice(memory, float(there), config, mesh)}"
        )
    share = ""
    if np.isfinite(there):
        what = "its" if room.devices == 1 and not room.of_host else "the machine's free"
        each = f" for {room.devices} devices" if room.devices > 1 else ""
        ratio = memory.total / float(there)
        shown = f"{ratio:.0%}" if ratio >= 0.005 else "under 1%"
        share = f", {shown} of {what} {size(float(there) * room.devices)}{each}"
    return f"{name} keeps {size(memory.total)} per device{share}: {parts}"


def _advice(memory: StepMemory, there: float, config: TrainConfig, mesh: MeshShape) -> str:
    """Return the options that would make a step fit, the best one first, by estimate."""
    now = config.step.accumulate
    # Gradients, and with microbatches their sum, do not shrink.
    gradients = memory.parameters * (1 if now == 1 else 2)
    activations = max(memory.temporaries - gradients, 0) * now
    fixed = memory.parameters * 3 + memory.optimizer + memory.batch
    rows = config.data.batch_size // mesh.batch_ways
    helps = []
    for more in range(now + 1, rows + 1):
        needed = fixed + activations / more
        if rows % more == 0 and needed <= _MARGIN * there:
            helps.append(f"--accumulate {more} should fit (about {size(needed)})")
            break
    else:
        if fixed > there and mesh.fsdp * mesh.tensor < mesh.devices:
            helps.append(f"--mesh fsdp={mesh.devices} divides parameters over the devices")
        elif fixed > there:
            helps.append("parameters and gradients alone do not fit, give a smaller --size")
        elif rows > 1:
            helps.append(f"--accumulate {rows} is not enough, give a smaller --input-length")
        else:
            helps.append("give a smaller --batch-size, --input-length or --size")
    if config.model.remat != "full":
        helps.append("--remat full keeps less")
    if config.model.dtype == "float32" and jax.default_backend() != "cpu":
        helps.append("--dtype bfloat16 halves activations")
    return "; ".join(helps)


@contextlib.contextmanager
def one_line_of_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Translate what shows that memory ran out, wherever it surfaces, into OutOfMemoryError.

    ``advice`` returns what would need less, for the end of the line.
    """
    try:
        yield
    except Exception as error:
        found = None if isinstance(error, OutOfMemoryError) else _out_of_memory(error)
        if found is None:
            raise
        raise OutOfMemoryError(f"out of memory: {found}; {advice()}") from error


def what_needs_less(config: TrainConfig) -> str:
    """Return which options of a training run make it need less memory."""
    now = config.step.accumulate
    rows = config.data.batch_size // jax.device_count()  # which every mesh divides
    more = next((n for n in range(now + 1, rows + 1) if rows % n == 0), None)
    helps = [
        f"--accumulate {more} or a smaller --batch-size" if more else "a smaller --batch-size",
        *(["--remat full"] if config.model.remat != "full" else []),
        *(["a --mesh with more fsdp"] if jax.device_count() > 1 else []),
    ]
    return (
        f"{', or '.join(helps)} needs less. A smaller batch needs another --out once a step is "
        "done; the others resume from the newest checkpoint"
    )


def _out_of_memory(error: BaseException | None) -> str | None:
    """Return what the cause of an error says of memory; None if it is about something else.

    A full disk is RESOURCE_EXHAUSTED too, for those who write checkpoints.
    """
    found = None
    while error is not None:
        text = str(error)
        first = text.removeprefix("RESOURCE_EXHAUSTED: ").partition("\n")[0].rstrip(".")
        of_memory = "out of memory" in text.lower()
        exhausted = "RESOURCE_EXHAUSTED" in text and "No space left" not in text
        of_jax = isinstance(error, jax.errors.JaxRuntimeError)
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            found = first or "this machine has no more"
        elif (exhausted or of_memory) if of_jax else (exhausted and of_memory):
            found = first
        error = error.__cause__ or error.__context__
    return found
