"""TPU pods as XLA's compiler knows them: their chips, and the devices of a slice, without a TPU."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from model.chips import CHIPS, Chip


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of a pod, or several: which chips, laid out how.

    >>> Topology(CHIPS["v3"], (32, 32)).device_count
    2048
    """

    chip: Chip
    shape: tuple[int, ...]  #: chips along each dimension of one slice
    slices: int = 1

    def __post_init__(self) -> None:
        if len(self.shape) != self.chip.dimensions:
            example = "x".join(["4"] * self.chip.dimensions)
            raise ValueError(
                f"{self}: {self.chip.name} is wired in {self.chip.dimensions} dimensions; write "
                f"{self.chip.name}:{example}"
            )
        if self.slices < 1:
            raise ValueError(f"{self}: slices must be positive, got {self.slices}")
        if self.slices > 1 and self.chip.dcn_bandwidth is None:
            raise ValueError(
                f"{self}: no published figure for the network between slices of {self.chip.name}; "
                "give one slice"
            )
        if any(
            not 1 <= size <= most
            for size, most in zip(sorted(self.shape), sorted(self.chip.pod), strict=True)
        ):
            raise ValueError(
                f"{self}: the largest slice of {self.chip.name} is {_times(self.chip.pod)}"
            )

    @property
    def chip_count(self) -> int:
        """Chips of all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def device_count(self) -> int:
        """Devices that JAX shows."""
        return self.chip_count * self.chip.devices_per_chip

    def __str__(self) -> str:
        several = f"*{self.slices}" if self.slices != 1 else ""
        return f"{self.chip.name}:{_times(self.shape)}{several}"


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def parse_topology(text: str) -> Topology:
    """Read ``v3:32x32``, ``v5p:8x8x16``, or ``v6e:16x16*2`` for two slices.

    >>> parse_topology("v5p:8x8x16").chip_count
    1024
    >>> parse_topology("v5:8x8")
    Traceback (most recent call last):
        ...
    ValueError: no TPU 'v5' (--compile-only v5:8x8); known: v3, v4, v5e, v5p, v6e
    """
    read = re.fullmatch(r"(\w+):([0-9]{1,6}(?:x[0-9]{1,6})*)(?:\*([0-9]{1,6}))?", text.strip())
    if read is None:
        raise ValueError(
            f"cannot read the topology {text!r}: write CHIP:AxB or CHIP:AxBxC, as v3:32x32, and "
            "*N for N slices (--compile-only)"
        )
    if read[1] not in CHIPS:
        raise ValueError(f"no TPU {read[1]!r} (--compile-only {text}); known: {', '.join(CHIPS)}")
    shape = tuple(int(size) for size in read[2].split("x"))
    return Topology(CHIPS[read[1]], shape, int(read[3] or 1))


#: Set before libtpu is loaded: it would look for the machine's TPUs and ask Google Cloud's
#: metadata service about them, which elsewhere is waiting for nothing and a screen of warnings.
_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_LOG_DIR": "disabled",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    # A lock keeps two programs from one TPU; a compiler needs none.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def topology_devices(topology: Topology) -> list[Any]:
    """Return the devices of a topology: a program can be compiled for them, and nothing else.

    JAX itself runs on the CPU afterwards, whatever the machine has.

    Raises:
      ValueError: XLA's compiler for TPUs is not installed, or does not build such a slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "compiling for TPUs needs XLA's compiler for them: pip install -e '.[tpu]' in a clone "
            "(the extra tpu of this package)"
        )
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]
    # Hosts of four chips; of what there is where a slice is smaller.
    bounds = tuple(min(2, size) for size in topology.shape[:2])
    try:
        described = topologies.get_topology_desc(
            f"{topology.chip.name}:{_times(topology.shape)}",
            "tpu",
            chip_config_name=topology.chip.config,
            chips_per_host_bounds=(*bounds, 1),
            num_slices=topology.slices,
        )
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"no slice {topology} (--compile-only): {reason}") from error
    devices = list(described.devices)
    if len(devices) != topology.device_count:
        raise ValueError(
            f"the compiler shows {len(devices)} devices for {topology}, not "
            f"{topology.device_count}: this release of libtpu sees its cores otherwise"
        )
    return devices
