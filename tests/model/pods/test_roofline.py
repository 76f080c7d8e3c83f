"""Seconds of exchanges on tori, and what they add up to."""

from types import SimpleNamespace

import numpy as np
import pytest

from model.pods.hlo import Collective, ProgramCost
from model.pods.roofline import by_kind, exchange_seconds, roofline
from model.pods.topologies import parse_topology

MIB = 2**20


def _devices(topology):
    """In the order of their coordinates, slice by slice; a chip's own next to each other."""
    return [
        SimpleNamespace(coords=place, slice_index=number)
        for number in range(topology.slices)
        for place in np.ndindex(topology.shape)
        for _ in range(topology.chip.devices_per_chip)
    ]


def _seconds(text, kind, group, num_bytes=MIB):
    topology = parse_topology(text)
    collective = Collective(kind, num_bytes, tuple(group), overlaps=False, times=1)
    return exchange_seconds(collective, topology, _devices(topology))


LINK = 50e9  # v5e


@pytest.mark.parametrize(
    ("kind", "group", "seconds"),
    [
        # A closed ring of 16 along one dimension, both ways.
        ("all-gather", range(16), MIB * 15 / 16 / (2 * LINK)),
        ("reduce-scatter", range(16), MIB * 15 / 16 / (2 * LINK)),
        ("all-reduce", range(16), 2 * MIB * 15 / 16 / (2 * LINK)),
        # Both dimensions at once.
        ("all-reduce", range(256), 2 * MIB * 255 / 256 / (4 * LINK)),
        # Half a dimension is a line.
        ("all-gather", range(8), MIB * 7 / 8 / LINK),
        # Every fourth chip of a ring: four groups share the links.
        ("all-gather", range(0, 16, 4), MIB * 3 / 4 / (2 * LINK / 4)),
        # Every fourth chip of a column.
        ("all-gather", range(0, 256, 64), MIB * 3 / 4 / (2 * LINK / 4)),
        # A square of 2 x 2: two lines.
        ("all-gather", (0, 1, 16, 17), MIB * 3 / 4 / (2 * LINK)),
        ("collective-permute", (0, 1), MIB / LINK),
        ("all-reduce", (0,), 0.0),
    ],
)
def test_exchanges_on_a_torus_of_16_by_16(kind, group, seconds):
    assert _seconds("v5e:16x16", kind, group) == pytest.approx(seconds)


def test_a_slice_that_is_not_closed_has_lines_only():
    assert _seconds("v5e:8x8", "all-gather", range(8)) == pytest.approx(MIB * 7 / 8 / LINK)


def test_three_dimensions():
    link = 100e9
    assert _seconds("v5p:4x4x8", "all-gather", range(128)) == pytest.approx(
        MIB * 127 / 128 / (6 * link)
    )


def test_the_two_cores_of_a_chip_exchange_inside_it_and_share_its_links():
    link = 83e9
    assert _seconds("v3:32x32", "all-reduce", (0, 1)) == 0.0
    # All cores of a row: 32 chips, each chip's exchange done once.
    assert _seconds("v3:32x32", "all-gather", range(64)) == pytest.approx(
        MIB * 31 / 32 / (2 * link)
    )
    # One core of each: the other group has the same links.
    assert _seconds("v3:32x32", "all-gather", range(0, 64, 2)) == pytest.approx(
        2 * MIB * 31 / 32 / (2 * link)
    )


def test_between_slices_goes_what_is_left_after_the_exchange_inside():
    inside = 2 * MIB * 255 / 256 / (4 * 100e9)
    between = 2 * MIB / 256 / 2 / 12.5e9
    assert _seconds("v6e:16x16*2", "all-reduce", range(512)) == pytest.approx(inside + between)
    assert _seconds("v6e:16x16*2", "all-reduce", (0, 256)) == pytest.approx(2 * MIB / 2 / 12.5e9)


def test_a_step_is_its_work_and_the_exchanges_it_waits_for():
    topology = parse_topology("v5e:16x16")
    ring = 2 * 50e9
    waited = Collective("all-gather", int(16 * ring), tuple(range(16)), overlaps=False, times=1)
    beside = Collective("all-gather", int(ring), tuple(range(16)), overlaps=True, times=2)
    cost = ProgramCost(flops=197e12 * 3, cycles=1.5e9 * 4, collectives=(waited, beside))
    devices = _devices(topology)
    line = roofline(cost, topology, devices, model_flops=256 * 197e12 * 1.9)
    assert line.products_s == pytest.approx(3)
    assert line.work_s == pytest.approx(4)
    assert line.waiting_s == pytest.approx(15)
    assert line.overlapped_s == pytest.approx(2 * 15 / 16)
    assert line.step_s == pytest.approx(19)
    assert line.utilization == pytest.approx(0.1)
    longer = Collective("all-gather", int(ring), tuple(range(16)), overlaps=True, times=16)
    slower = roofline(ProgramCost(0.0, 1.5e9 * 4, (longer,)), topology, devices, 1.0)
    assert slower.step_s == pytest.approx(15)  # longer than the work beside it
    assert by_kind(cost.collectives, topology, devices) == {
        ("all-gather", 16): (pytest.approx(18 * ring), pytest.approx(15 + 2 * 15 / 16))
    }
