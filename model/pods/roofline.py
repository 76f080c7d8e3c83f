"""Estimate how long a step takes at best, from the compiled program and the chip's data sheet.

Nothing here has run on a TPU. Work is XLA's own estimate, in cycles, of each instruction; exchanges
are bytes over links, every ring at full speed; so a real step takes longer.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from model.pods.hlo import Collective, ProgramCost
from model.pods.topologies import Topology


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roofline:
    """Seconds of one step, by cause."""

    topology: Topology
    model_flops: float  #: of the whole batch, by arithmetic: three times the forward pass
    program_flops: float  #: of matrix products on one device, rematerialisation included
    products_s: float  #: those products at the chip's peak
    work_s: float  #: what XLA expects of all instructions
    waiting_s: float  #: exchanges during which the program computes nothing
    overlapped_s: float  #: exchanges beside which it computes

    @property
    def step_s(self) -> float:
        """Blocking exchanges, and the longer of work and overlapping exchanges."""
        return max(self.work_s, self.overlapped_s) + self.waiting_s

    @property
    def utilization(self) -> float:
        """Model FLOPs per second of all chips over their peak (MFU)."""
        peak = self.topology.chip_count * self.topology.chip.peak_flops
        return self.model_flops / self.step_s / peak


def roofline(
    cost: ProgramCost, topology: Topology, devices: Sequence[Any], model_flops: float
) -> Roofline:
    """Add up the cost of a program.

    Args:
      cost: of one device in one step.
      topology: what it was compiled for.
      devices: of the mesh in the mesh's order, ``mesh.devices.flat``.
      model_flops: of the whole batch.
    """
    chip = topology.chip
    seconds = {True: 0.0, False: 0.0}
    for each in cost.collectives:
        seconds[each.overlaps] += each.times * exchange_seconds(each, topology, devices)
    return Roofline(
        topology=topology,
        model_flops=model_flops,
        program_flops=cost.flops,
        products_s=cost.flops / chip.device_flops,
        work_s=cost.cycles / chip.clock,
        waiting_s=seconds[False],
        overlapped_s=seconds[True],
    )


def exchange_seconds(collective: Collective, topology: Topology, devices: Sequence[Any]) -> float:
    """Return the seconds of one exchange over the links of the torus that its group spans.

    A ring of n chips sends (n - 1) / n of the array past each of them, an all-reduce twice that; a
    permutation sends it once, to a neighbour. Rings run along each dimension that the group spans,
    both ways where the dimension is closed. Chips of other groups between those of this one share
    their links, and so do groups that share chips. Between slices, chips use their share of the
    network for what is left after the exchange inside.
    """
    chip = topology.chip
    members = [devices[number] for number in collective.group]
    slices = {getattr(device, "slice_index", None) or 0 for device in members}
    coordinates = {tuple(device.coords) for device in members}
    per_chip = len(members) / (len(coordinates) * len(slices))
    rounds = 2 if collective.kind == "all-reduce" else 1
    shared = chip.devices_per_chip / per_chip
    seconds = 0.0
    if len(coordinates) > 1:
        bandwidth = 0.0
        for dimension, length in enumerate(topology.shape):
            places = sorted({place[dimension] for place in coordinates})
            if len(places) > 1:
                extent = places[-1] - places[0] + 1
                apart = -(-extent // len(places))
                closed = extent > length - apart and length % chip.wraps_at == 0
                bandwidth += chip.ici_bandwidth * (2 if closed else 1) / apart
        count = len(coordinates)
        moved = collective.num_bytes * rounds * (count - 1) / count
        if collective.kind == "collective-permute":
            moved = collective.num_bytes
        seconds += moved * shared / bandwidth
    if len(slices) > 1:
        assert chip.dcn_bandwidth is not None
        part = collective.num_bytes / len(coordinates)
        seconds += part * rounds * shared * (len(slices) - 1) / len(slices) / chip.dcn_bandwidth
    return seconds


def by_kind(
    collectives: Sequence[Collective], topology: Topology, devices: Sequence[Any]
) -> dict[tuple[str, int], tuple[float, float]]:
    """Return (bytes, seconds) of one step by (kind, devices of a group), the slowest first."""
    sums: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for each in collectives:
        entry = sums[each.kind, len(each.group)]
        entry[0] += each.num_bytes * each.times
        entry[1] += exchange_seconds(each, topology, devices) * each.times
    ordered = sorted(sums.items(), key=lambda item: -item[1][1])
    return {key: (size, seconds) for key, (size, seconds) in ordered}
