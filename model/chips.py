"""Peak speeds of accelerators, and what is published of each generation of TPUs.

Figures of TPUs are those of Google Cloud's pages "TPU v3" ... "TPU v6e" (docs.cloud.google.com,
/tpu/docs/v3 and so on), read in 2026, except where a comment says otherwise.
"""

import dataclasses
from collections.abc import Mapping

_GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One generation of TPUs. Unless a field says otherwise, figures are of one chip."""

    name: str
    dimensions: int  #: of its torus
    devices_per_chip: int  #: that JAX shows: v3's two cores are two, v4's and v5p's are one
    peak_flops: float  #: a second, bfloat16
    hbm_bytes: float  #: all of it
    #: Of one *device*, what a program may take: XLA's compiler keeps the rest for itself, and
    #: refuses a program that needs more. Read from its refusals (libtpu 0.0.42).
    device_bytes: float
    hbm_bandwidth: float  #: bytes a second
    ici_bandwidth: float  #: bytes a second of one link in one direction; two links a dimension
    #: Bytes a second between slices, the chip's share; None where no page tells it.
    dcn_bandwidth: float | None
    clock: float  #: cycles a second, in which XLA counts
    pod: tuple[int, ...]  #: the largest slice
    wraps_at: int  #: a dimension whose length is a multiple of this is a ring, else a line
    config: str = "default"  #: how the compiler is to see the chip's cores

    @property
    def device_flops(self) -> float:
        """Peak of one device, a second."""
        return self.peak_flops / self.devices_per_chip


# Links: the all-reduce bandwidth of a pod that the pages give, over chips and links. Clocks: those
# at which the matrix units reach the peak: 128 x 128 multiply-adds of each of 4 (v3), 8 (v4, v5p)
# or 4 (v5e), and 4 of 256 x 256 (v6e).
_ALL = (
    Chip(
        name="v3", dimensions=2, devices_per_chip=2, peak_flops=123e12, hbm_bytes=32 * _GIB,
        device_bytes=15.48 * _GIB, hbm_bandwidth=900e9, ici_bandwidth=83e9, dcn_bandwidth=None,
        clock=0.94e9, pod=(32, 32), wraps_at=32,
    ),
    Chip(
        name="v4", dimensions=3, devices_per_chip=1, peak_flops=275e12, hbm_bytes=32 * _GIB,
        device_bytes=30.75 * _GIB, hbm_bandwidth=1200e9, ici_bandwidth=45e9, dcn_bandwidth=None,
        clock=1.05e9, pod=(16, 16, 16), wraps_at=4, config="megacore",
    ),
    Chip(
        name="v5e", dimensions=2, devices_per_chip=1, peak_flops=197e12, hbm_bytes=16 * _GIB,
        device_bytes=15.75 * _GIB, hbm_bandwidth=819e9, ici_bandwidth=50e9, dcn_bandwidth=3.1e9,
        clock=1.5e9, pod=(16, 16), wraps_at=16,
    ),
    Chip(
        name="v5p", dimensions=3, devices_per_chip=1, peak_flops=459e12, hbm_bytes=95 * _GIB,
        device_bytes=95.74 * _GIB, hbm_bandwidth=2765e9, ici_bandwidth=100e9, dcn_bandwidth=6.2e9,
        clock=1.75e9, pod=(16, 16, 24), wraps_at=4,
    ),
    Chip(
        name="v6e", dimensions=2, devices_per_chip=1, peak_flops=918e12, hbm_bytes=32 * _GIB,
        device_bytes=31.25 * _GIB, hbm_bandwidth=1638e9, ici_bandwidth=100e9, dcn_bandwidth=12.5e9,
        clock=1.75e9, pod=(16, 16), wraps_at=16,
    ),
)  # fmt: skip

CHIPS: Mapping[str, Chip] = {chip.name: chip for chip in _ALL}

#: Peak FLOP/s of matrix products in bfloat16 without sparsity, accumulated in float32, by the
#: device's exact name, as NVIDIA's driver and so JAX report it. Sources, as of 2026: NVIDIA's data
#: sheets of B200 (HGX), GB200, H200, H100, GH200, A100, A30, A10, A40, L4, L40 and L40S (where a
#: sheet gives the figure with sparsity only, half of it); the whitepapers of the GA102, Ada and
#: RTX Blackwell architectures for RTX cards; AWS's page of G5 instances for A10G. V100 and T4 have
#: no bfloat16: theirs is the float16 figure of their data sheets.
_GPU_PEAKS: Mapping[str, float] = {
    "NVIDIA GB200": 2500e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA GH200 480GB": 989e12,
    "NVIDIA GH200 120GB": 989e12,
    "NVIDIA GH200 144G HBM3e": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,  # SXM
    "NVIDIA H100 SXM5 80GB": 989e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100-PCIE-80GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "A100-SXM4-40GB": 312e12,  # drivers of 2020
    "A100-SXM-80GB": 312e12,
    "A100-PCIE-40GB": 312e12,
    "NVIDIA A30": 165e12,
    "NVIDIA A40": 149.7e12,
    "NVIDIA A10": 125e12,
    "NVIDIA A10G": 70e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L4": 121e12,
    "Tesla V100-SXM2-16GB": 125e12,
    "Tesla V100-SXM2-32GB": 125e12,
    "Tesla V100-PCIE-16GB": 112e12,
    "Tesla V100-PCIE-32GB": 112e12,
    "Tesla T4": 65e12,
    "NVIDIA RTX 6000 Ada Generation": 364.2e12,
    "NVIDIA RTX A6000": 154.8e12,
    "NVIDIA GeForce RTX 5090": 209.5e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
    "NVIDIA GeForce RTX 4080": 97.5e12,
    "NVIDIA GeForce RTX 3090 Ti": 80e12,
    "NVIDIA GeForce RTX 3090": 71e12,
}
#: JAX's names of generations that have another name here.
_TPUS = {"v5 lite": "v5e", "v5": "v5p", "v6 lite": "v6e"}


def peak_flops(device_kind: str) -> float | None:
    """Return a device's peak FLOP/s in bfloat16, or None for a device that no table has.

    Names are compared whole: "NVIDIA L40" is another card than "NVIDIA L4".

    Args:
      device_kind: as ``jax.Device.device_kind``.

    >>> peak_flops("NVIDIA H100 80GB HBM3"), peak_flops("cpu")
    (989000000000000.0, None)
    """
    if device_kind.startswith("TPU "):
        name = device_kind.removeprefix("TPU ")
        chip = CHIPS.get(_TPUS.get(name, name))
        return None if chip is None else chip.device_flops
    # Newer drivers leave "Tesla" out or put "NVIDIA" before it, by card.
    names = (device_kind, device_kind.replace("NVIDIA Tesla ", "Tesla "))
    return next((_GPU_PEAKS[name] for name in names if name in _GPU_PEAKS), None)
