"""Who holds what: one mesh of devices, and one table from logical axes to the axes of the mesh.

The mesh has three axes. Sequences of a batch are divided over ``data`` and ``fsdp``; parameters
and their optimizer state over ``fsdp`` and ``tensor``; the work inside a block over ``tensor``.
From one device to a pod of several slices it is the same mesh with other numbers.
"""

import contextlib
import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.data.batches import BatchSpec
from model.t5 import partitioning
from model.t5.config import ModelConfig
from model.t5.network import T5
from model.t5.partitioning import is_axes

#: Slowest first: neighbours along ``tensor`` talk most, so they are neighbours on the wire too.
MESH_AXES = ("data", "fsdp", "tensor")

#: Logical axis to the axes of the mesh that divide it; the only place that says so.
RULES: Mapping[str, tuple[str, ...]] = {
    # Of parameters and, through state_axes, of the optimizer's statistics.
    "layers": (),  # the axis that scan walks along
    "embed": ("fsdp",),
    "norm": (),  # 1,024 numbers: gathering them would cost more than holding them
    "buckets": (),
    "relpos_heads": ("tensor",),
    # Of both.
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    # Of activations.
    "batch": ("data", "fsdp"),
    "length": (),
    "embed_act": (),
    "kv": (),
}

Axes = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """How many devices along each axis of the mesh.

    >>> str(MeshShape(data=2, fsdp=4)), MeshShape(data=2, fsdp=4).devices
    ('data=2,fsdp=4,tensor=1', 8)
    """

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    @property
    def devices(self) -> int:
        """Devices of the whole mesh."""
        return self.data * self.fsdp * self.tensor

    @property
    def batch_ways(self) -> int:
        """Into how many parts a batch is divided."""
        return self.data * self.fsdp

    def sizes(self) -> dict[str, int]:
        """Return the size of each axis by its name."""
        return {axis: getattr(self, axis) for axis in MESH_AXES}

    def __str__(self) -> str:
        return ",".join(f"{axis}={size}" for axis, size in self.sizes().items())


def parse_mesh(text: str, device_count: int) -> MeshShape:
    """Return the mesh that ``--mesh`` asks for.

    Axes not named are 1, except that ``data`` takes what is left where it is not named; one axis
    may be -1 and takes it instead. ``auto`` puts all devices on ``data``: a model that one device
    cannot hold needs :func:`possible_meshes`.

    Raises ValueError for what cannot be read, and for a mesh that is not of ``device_count``.

    >>> str(parse_mesh("fsdp=2", 8)), str(parse_mesh("data=1,fsdp=-1,tensor=2", 8))
    ('data=4,fsdp=2,tensor=1', 'data=1,fsdp=4,tensor=2')
    >>> parse_mesh("data=3", 8)
    Traceback (most recent call last):
        ...
    ValueError: --mesh data=3 is of 3 devices and there are 8; one axis may be -1, to take \
what is left
    """
    text = text.strip()
    if text == "auto":
        return MeshShape(data=device_count)
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, equals, number = (piece.strip() for piece in part.partition("="))
        if axis not in MESH_AXES or not equals:
            raise ValueError(
                f"--mesh {text!r}: cannot read {part.strip()!r}; write data=2,fsdp=4,tensor=1, "
                "any of the three, or auto"
            )
        if axis in sizes:
            raise ValueError(f"--mesh {text!r} names {axis} twice")
        if not re.fullmatch(r"-?[0-9]{1,9}", number):
            raise ValueError(f"--mesh {text!r}: {number!r} is not a number of devices")
        sizes[axis] = int(number)
        if sizes[axis] < 1 and sizes[axis] != -1:
            raise ValueError(
                f"--mesh {text!r}: {axis} must be positive, or -1 for what is left; got {number}"
            )
    free = [axis for axis, size in sizes.items() if size == -1]
    if not free and "data" not in sizes:
        free = ["data"]
    if len(free) > 1:
        raise ValueError(f"--mesh {text!r}: only one axis may be -1, got {' and '.join(free)}")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free:
        if device_count % fixed:
            raise ValueError(
                f"--mesh {text}: {device_count} devices are not divisible by {fixed}, so nothing "
                f"fits {free[0]}"
            )
        sizes[free[0]] = device_count // fixed
    elif fixed != device_count:
        raise ValueError(
            f"--mesh {text} is of {fixed} devices and there are {device_count}; one axis may be "
            "-1, to take what is left"
        )
    return MeshShape(**sizes)


def make_mesh(shape: MeshShape, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lay devices out so that neighbours in the mesh are neighbours on the wire.

    On TPUs the order follows the torus; where there are several slices, ``data`` goes across them
    first and its remainder, ``fsdp`` and ``tensor`` stay inside one. Elsewhere devices keep their
    order, so those of one host are next to each other.

    Args:
      shape: how many along each axis.
      devices: all of the mesh's; default all of ``jax.devices()``. May be those of a topology
        that is only compiled for.

    Raises:
      ValueError: their number is not that of the shape, or ``data`` does not divide by the slices.
    """
    given = list(jax.devices() if devices is None else devices)
    if len(given) != shape.devices:
        raise ValueError(
            f"mesh {shape} is of {shape.devices} devices and there are {len(given)} (--mesh)"
        )
    sizes = tuple(shape.sizes().values())
    slices = slice_count(given)
    _check_slices(shape, slices)
    if slices > 1:
        grid = mesh_utils.create_hybrid_device_mesh(
            (shape.data // slices, shape.fsdp, shape.tensor),
            (slices, 1, 1),
            given,
            allow_split_physical_axes=True,
        )
    elif given[0].platform == "tpu":
        grid = mesh_utils.create_device_mesh(sizes, given, allow_split_physical_axes=True)
    else:
        grid = np.asarray(given, dtype=object).reshape(sizes)
    return Mesh(grid, MESH_AXES)


def partition_spec(
    axes: Axes, shape: Sequence[int], mesh_sizes: Mapping[str, int]
) -> PartitionSpec:
    """Turn the logical axes of one array into what JAX wants.

    An axis that does not divide by its part of the mesh is left whole, and so is one whose part
    an earlier axis of the same array has taken.

    Raises ValueError for an axis that no rule names.

    >>> partition_spec(("vocab", "embed"), (32128, 512), {"data": 1, "fsdp": 4, "tensor": 2})
    P('tensor', 'fsdp')
    >>> partition_spec(("relpos_heads", "buckets"), (6, 32), {"fsdp": 1, "tensor": 4})
    P(None, None)
    """
    if len(axes) != len(shape):
        raise ValueError(f"{len(axes)} logical axes {axes} for an array of shape {tuple(shape)}")
    return PartitionSpec(*_divisions(axes, shape, mesh_sizes))  # type: ignore[no-untyped-call]


def _divisions(
    axes: Axes, shape: Sequence[int], mesh_sizes: Mapping[str, int]
) -> Iterator[tuple[str, ...]]:
    """Yield which axes of the mesh divide each axis of an array."""
    taken: set[str] = set()
    for axis, size in zip(axes, shape, strict=True):
        # Parts of one device say nothing; leaving them out keeps the specs readable.
        wanted = tuple(name for name in _rule(axis) if mesh_sizes.get(name, 1) > 1)
        if size % math.prod(mesh_sizes[name] for name in wanted) or taken & set(wanted):
            wanted = ()
        taken |= set(wanted)
        yield wanted


def _rule(axis: str | None) -> tuple[str, ...]:
    if axis is None:
        return ()
    if axis not in RULES:
        raise ValueError(f"no rule divides the logical axis {axis!r}; known: {', '.join(RULES)}")
    return RULES[axis]


def params_shardings(mesh: Mesh, axes: Any, shapes: Any) -> Any:
    """Return a sharding for each array of a tree: parameters, or the optimizer's state.

    Args:
      mesh: of :func:`make_mesh`.
      axes: tree of tuples of logical axis names, as ``T5.param_axes()`` and the optimizer's
        ``state_axes`` give.
      shapes: the same tree of anything that has ``.shape``.
    """
    sizes = dict(mesh.shape)
    return jax.tree.map(
        lambda names, leaf: NamedSharding(mesh, partition_spec(names, leaf.shape, sizes)),
        axes,
        shapes,
        is_leaf=is_axes,
    )


def undivided_axes(mesh: MeshShape, model: T5) -> list[str]:
    """Return a line for each parameter that is whole along an axis the rules would divide.

    >>> from model.t5.config import model_config
    >>> undivided_axes(MeshShape(tensor=4), T5(model_config("v1.1-small")))[0]
    'decoder/relative_bias: relpos_heads=6 is not divisible by tensor=4, so each device holds \
all of it'
    """
    return _undivided_axes(mesh, model.param_axes(), model.param_shapes())


def _undivided_axes(mesh: MeshShape, axes: Any, shapes: Any) -> list[str]:
    sizes = mesh.sizes()
    lines: list[str] = []

    def look(path: tuple[Any, ...], names: Axes, leaf: Any) -> None:
        for axis, size in zip(names, leaf.shape, strict=True):
            ways = math.prod(sizes[name] for name in _rule(axis))
            if size % ways:
                over = "*".join(f"{name}={sizes[name]}" for name in _rule(axis))
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                lines.append(
                    f"{name}: {axis}={size} is not divisible by {over}, so each device holds all "
                    "of it"
                )

    jax.tree_util.tree_map_with_path(look, axes, shapes, is_leaf=is_axes)
    return lines


def bytes_per_device(mesh: MeshShape, axes: Any, shapes: Any) -> int:
    """Return the bytes of a tree of arrays that one device holds, by arithmetic.

    >>> bytes_per_device(MeshShape(fsdp=4), {"embedding": ("vocab", "embed")},
    ...                  {"embedding": jax.ShapeDtypeStruct((32128, 512), "float32")})
    16449536
    """
    sizes = mesh.sizes()

    def held(names: Axes, leaf: Any) -> int:
        dividing = itertools.chain(*_divisions(names, leaf.shape, sizes))
        size: int = math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
        return size // math.prod(sizes[name] for name in dividing)

    return sum(jax.tree.leaves(jax.tree.map(held, axes, shapes, is_leaf=is_axes)))


#: Bytes alive at the height of a step for each byte of parameters: the parameters, their gradient,
#: and half for a bfloat16 copy; Adafactor's statistics are next to nothing.
_STATE_FACTOR = 2.5

#: What of a device's memory the state may take in the meshes that ``auto`` tries first; the rest
#: is for activations, which accumulation and rematerialisation can make smaller.
_STATE_SHARE = 0.5


def _candidates(
    devices: int, slices: int, model: T5, batch: BatchSpec, device_bytes: float, accumulate: int
) -> list[MeshShape]:
    """Return the meshes to try for a model: those that should fit, the one that sends least first.

    In a step a device sends its part of each layer's parameters three times along ``fsdp``
    (gathered forwards and backwards, gradients scattered; once more for each microbatch), its
    gradients twice along ``data``, and the block's activations four times for each half of a
    block along ``tensor``. Meshes whose state takes more than half of a device come last, the
    roomiest first.

    Raises ValueError where no mesh divides the batch.
    """
    axes, shapes = model.param_axes(), model.param_shapes()
    per_slice = devices // slices
    room = device_bytes * _STATE_SHARE / _STATE_FACTOR
    found: list[tuple[tuple[float, ...], MeshShape]] = []  # with what they are sorted by
    for tensor in _divisors(per_slice):
        for fsdp in _divisors(per_slice // tensor):
            shape = MeshShape(devices // (fsdp * tensor), fsdp, tensor)
            if batch.batch_size % (shape.batch_ways * accumulate):
                continue
            if _undivided_axes(shape, axes, shapes):
                continue
            held = bytes_per_device(shape, axes, shapes)
            traffic = _traffic(shape, model.config, held, batch, accumulate)
            rank = (0, traffic, tensor) if held <= room else (1, held, traffic)
            found.append((rank, shape))
    if not found:
        raise ValueError(
            f"no mesh of {devices} devices divides {batch.batch_size} sequences in "
            f"{accumulate} microbatches: give --batch-size a multiple of "
            f"{devices * accumulate}"
        )
    return [shape for _, shape in sorted(found, key=lambda each: each[0])]


def _traffic(
    shape: MeshShape, config: ModelConfig, held: int, batch: BatchSpec, accumulate: int
) -> float:
    """Return the bytes that one device sends in a step, rings everywhere, bfloat16 on the wire."""

    def ring(ways: int) -> float:
        return (ways - 1) / ways

    one_layer_set = held / 2 * shape.fsdp  # bfloat16, as gathered along fsdp
    sent = 3 * accumulate * ring(shape.fsdp) * one_layer_set
    sent += 2 * ring(shape.data) * held / 2
    sequences = batch.batch_size / shape.batch_ways
    adapters = config.adapter is not None
    sublayers = (3 if config.has_encoder else 2) + adapters
    halves = sublayers * config.decoder_layers * batch.decoder_length
    halves += (2 + adapters) * config.num_layers * (batch.encoder_length or 0)
    # All-reduced forwards and backwards, and an all-reduce sends everything twice.
    sent += 4 * ring(shape.tensor) * sequences * halves * config.d_model * 2
    return sent


def possible_meshes(
    text: str,
    devices: Sequence[Any],
    model: T5,
    batch: BatchSpec,
    *,
    device_bytes: float | None,
    accumulate: int = 1,
) -> list[MeshShape]:
    """Return the meshes that ``--mesh`` stands for, best first; :func:`make_mesh` takes each.

    Training and ``--compile-only`` both ask this function, so that what one proposes the other
    accepts. ``auto`` gives those that should fit, or all devices on ``data`` where
    ``device_bytes`` is None; anything else is one mesh.

    Args:
      text: of ``--mesh``.
      devices: all devices of the mesh, of one slice or several.
      model: the model.
      batch: of a step, all microbatches together.
      device_bytes: memory of one device; None if unknown.
      accumulate: microbatches of a step.

    Raises:
      ValueError: the mesh cannot be read, is not of these devices, crosses slices with another
        axis than ``data``, or does not divide the batch.
    """
    slices = slice_count(devices)
    if text.strip() == "auto" and device_bytes is not None:
        return _candidates(len(devices), slices, model, batch, device_bytes, accumulate)
    shape = parse_mesh(text, len(devices))
    _check_slices(shape, slices)
    if batch.batch_size % (shape.batch_ways * accumulate):
        in_parts = f" in {accumulate} microbatches" if accumulate > 1 else ""
        raise ValueError(
            f"a batch of {batch.batch_size} sequences{in_parts} does not divide over "
            f"{shape.batch_ways} devices (data x fsdp) of mesh {shape}: give --batch-size a "
            f"multiple of {shape.batch_ways * accumulate}, or another --mesh"
        )
    return [shape]


def slice_count(devices: Sequence[Any]) -> int:
    """Return the number of slices that devices belong to; 1 where there are no slices."""
    return len({getattr(device, "slice_index", None) for device in devices})


def _check_slices(shape: MeshShape, slices: int) -> None:
    if shape.data % slices:
        raise ValueError(
            f"mesh {shape} over {slices} slices: data must be a multiple of {slices}, since "
            "parameters are gathered inside a slice (--mesh)"
        )


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return a sharding of a batch: sequences over ``data`` and ``fsdp``, other axes whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))  # type: ignore[no-untyped-call]


def replicated(mesh: Mesh) -> NamedSharding:
    """Return a sharding with the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def use_rules(mesh: Mesh) -> Iterator[None]:
    """Make the network pin its activations to the mesh while the block runs.

    Enter it inside the function that is given to ``jax.jit``: it acts while JAX traces, and a
    trace made outside of it is reused by later calls.
    """
    sizes = dict(mesh.shape)

    def placed(axes: Axes, shape: tuple[int, ...]) -> NamedSharding:
        return NamedSharding(mesh, partition_spec(axes, shape, sizes))

    def constrain(array: jax.Array, axes: Axes) -> jax.Array:
        pinned: jax.Array = jax.lax.with_sharding_constraint(array, placed(axes, array.shape))  # type: ignore[no-untyped-call]
        return pinned

    def local_shape(shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
        return placed(axes, shape).shard_shape(shape)

    with partitioning.use_constraint(constrain, local_shape):
        yield
