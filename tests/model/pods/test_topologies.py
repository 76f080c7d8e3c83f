"""Names of slices, and the chips they are made of."""

import importlib.util
import math

import pytest

from model.chips import CHIPS
from model.pods import topologies
from model.pods.topologies import Topology, parse_topology


@pytest.mark.parametrize(
    ("text", "chips", "devices"),
    [
        ("v3:32x32", 1024, 2048),  # the pod of the paper
        ("v3:2x2", 4, 8),
        ("v4:8x8x16", 1024, 1024),
        ("v5e:16x16", 256, 256),
        ("v5p:16x16x24", 6144, 6144),
        ("v6e:16x16*4", 1024, 1024),
    ],
)
def test_slices_by_name(text, chips, devices):
    topology = parse_topology(text)
    assert (topology.chip_count, topology.device_count) == (chips, devices)
    assert str(topology) == text


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("v3-2048", "cannot read the topology 'v3-2048'"),
        ("", "cannot read the topology"),
        ("v5e:\u0662x2", "cannot read the topology"),
        ("v2:4x4", "no TPU 'v2' .*; known: v3, v4, v5e, v5p, v6e"),
        ("v3:4x4x4", "v3 is wired in 2 dimensions; write v3:4x4"),
        ("v4:4x4", "v4 is wired in 3 dimensions; write v4:4x4x4"),
        ("v5e:16x32", "the largest slice of v5e is 16x16"),
        ("v5e:0x4", "the largest slice of v5e"),
        ("v6e:16x16*0", "slices must be positive, got 0"),
        ("v3:32x32*2", "no published figure for the network between slices of v3"),
    ],
)
def test_what_is_no_slice_says_why_in_one_line(text, telling):
    with pytest.raises(ValueError, match=telling) as caught:
        parse_topology(text)
    assert "\n" not in str(caught.value)


def test_without_the_compiler_the_way_out_is_told(monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[tpu\]'"):
        topologies.topology_devices(parse_topology("v5e:2x2"))


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_figures_of_a_chip_agree_with_each_other(chip):
    # A cycle does whole products of the matrix units.
    units = {"v3": 4 * 128**2, "v4": 8 * 128**2, "v5e": 4 * 128**2, "v5p": 8 * 128**2,
             "v6e": 4 * 256**2}[chip.name]  # fmt: skip
    assert 2 * units * chip.clock == pytest.approx(chip.peak_flops, rel=0.01)
    # The compiler keeps little of the memory for itself (v5p's page rounds to whole GiB).
    assert 0.94 < chip.device_bytes * chip.devices_per_chip / chip.hbm_bytes < 1.01
    assert math.prod(chip.pod) * chip.devices_per_chip == Topology(chip, chip.pod).device_count


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the tpu extra is not installed"
)


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(
    "text", ["v3:32x32", "v4:4x4x8", "v5e:1x1", "v5e:4x8", "v5p:2x2x1", "v6e:16x16*2"]
)
def test_the_compiler_shows_the_devices(text):
    topology = parse_topology(text)
    devices = topologies.topology_devices(topology)
    assert len(devices) == topology.device_count
    places = {(getattr(device, "slice_index", 0), *device.coords) for device in devices}
    assert len(places) == topology.chip_count


@pytest.mark.slow
@needs_libtpu
def test_what_the_compiler_does_not_build_is_told():
    with pytest.raises(ValueError, match=r"no slice v5e:4x3 \(--compile-only\)"):
        topologies.topology_devices(parse_topology("v5e:4x3"))
