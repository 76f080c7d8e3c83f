"""Meshes by name, the table of rules, and training over eight devices against one."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from model.data.batches import BatchSpec
from model.t5 import partitioning
from model.t5.config import SIZES, model_config
from model.t5.network import T5
from model.training import sharding
from model.training.sharding import MESH_AXES, RULES, MeshShape, parse_mesh, partition_spec
from tests.model.training.tiny_training import DECODER, ENCODER_DECODER, train

MESHES = [
    ("auto", (8, 1, 1)),
    ("data=8", (8, 1, 1)),
    ("fsdp=8", (1, 8, 1)),
    ("tensor=4", (2, 1, 4)),
    ("data=2,fsdp=2,tensor=2", (2, 2, 2)),
    ("fsdp=-1,data=1", (1, 8, 1)),
    ("data=2,tensor=-1", (2, 1, 4)),
    ("data=-1, fsdp=4", (2, 4, 1)),
]


@pytest.mark.parametrize(("text", "sizes"), MESHES)
def test_a_mesh_by_name(text, sizes):
    assert parse_mesh(text, 8) == MeshShape(*sizes)


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("", "cannot read ''"),
        ("data", "cannot read 'data'"),
        ("model=2", "cannot read 'model=2'"),
        ("data=2,data=4", "names data twice"),
        ("data=two", "'two' is not a number"),
        ("data=\u0662", "is not a number of devices"),
        ("data=0", "must be positive, or -1"),
        ("data=-2", "must be positive, or -1"),
        ("data=-1,fsdp=-1", "only one axis may be -1"),
        ("data=2,fsdp=2", "is of 4 devices and there are 8"),
        ("data=1,fsdp=16", "is of 16 devices and there are 8"),
        ("fsdp=3", "8 devices are not divisible by 3"),
    ],
)
def test_what_is_no_mesh_says_why_in_one_line(text, telling):
    with pytest.raises(ValueError, match=telling) as caught:
        parse_mesh(text, 8)
    assert "\n" not in str(caught.value)


@given(
    st.permutations(MESH_AXES),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.integers(0, 3),
)
def test_any_axis_can_be_the_one_that_is_left(order, sizes, free):
    named = dict(zip(order, sizes, strict=True))
    devices = int(np.prod(sizes))
    asked = {axis: -1 if number == free else size
             for number, (axis, size) in enumerate(named.items())}  # fmt: skip
    text = ",".join(f"{axis}={size}" for axis, size in asked.items())
    assert parse_mesh(text, devices) == MeshShape(**named)


@pytest.mark.slow
@given(
    st.lists(st.sampled_from([*RULES, None]), min_size=1, max_size=4),
    st.lists(st.integers(1, 24), min_size=4, max_size=4),
    st.tuples(*[st.sampled_from([1, 2, 3, 4])] * 3),
)
def test_specs_divide_evenly_and_use_each_axis_once(axes, dims, sizes):
    mesh = dict(zip(MESH_AXES, sizes, strict=True))
    spec = partition_spec(tuple(axes), dims[: len(axes)], mesh)
    used = [name for entry in spec for name in ([entry] if isinstance(entry, str) else entry or [])]
    assert len(used) == len(set(used))
    for axis, size, entry in zip(axes, dims, spec, strict=False):
        names = [entry] if isinstance(entry, str) else list(entry or [])
        assert size % int(np.prod([mesh[name] for name in names])) == 0
        # Left whole only for a reason.
        wanted = [name for name in RULES.get(axis, ()) if mesh[name] > 1]
        if wanted and not names:
            divides = size % int(np.prod([mesh[name] for name in wanted])) == 0
            assert not divides or set(wanted) & set(used)


def test_unknown_axes_and_ranks_are_refused():
    with pytest.raises(ValueError, match="no rule divides the logical axis 'head'"):
        partition_spec(("head",), (4,), {"tensor": 2})
    with pytest.raises(ValueError, match="2 logical axes"):
        partition_spec(("embed", "mlp"), (4,), {"tensor": 2})


def test_the_rules_name_every_axis_of_the_network():
    used = set(partitioning.ACTIVATION_AXES)
    for size, architecture in itertools.product(
        ("tiny", "v1.1-small"), ("encoder-decoder", "shared-encoder-decoder", "language-model")
    ):
        axes = T5(model_config(size, architecture)).param_axes()
        for names in jax.tree.leaves(axes, is_leaf=lambda leaf: isinstance(leaf, tuple)):
            used |= set(names)
    assert used == set(RULES)


@pytest.mark.parametrize("size", ["small", "base", "3B", "11B", "v1.1-xl"])
def test_bytes_of_a_device_are_what_jax_says(size):
    model = T5(SIZES[size])
    shape = MeshShape(data=1, fsdp=2, tensor=4)
    mesh = sharding.make_mesh(shape)
    axes, shapes = model.param_axes(), model.param_shapes()
    placed = sharding.params_shardings(mesh, axes, shapes)
    by_jax = sum(
        int(np.prod(where.shard_shape(leaf.shape))) * 4
        for leaf, where in zip(jax.tree.leaves(shapes), jax.tree.leaves(placed), strict=True)
    )
    assert sharding.bytes_per_device(shape, axes, shapes) == by_jax
    # Nearly an eighth: norms and bias tables are held whole.
    assert by_jax < 4 * SIZES[size].parameter_count() / 8 * 1.01


def test_what_cannot_be_divided_is_told():
    model = T5(SIZES["base"])
    lines = sharding.undivided_axes(MeshShape(tensor=8), model)
    assert lines == [
        f"{stack}/relative_bias: relpos_heads=12 is not divisible by tensor=8, so each device "
        "holds all of it"
        for stack in ("decoder", "encoder")
    ]


def test_a_mesh_of_other_devices_is_refused():
    with pytest.raises(ValueError, match="of 4 devices and there are 8"):
        sharding.make_mesh(MeshShape(fsdp=4))


def test_candidates_fit_and_divide():
    config = SIZES["11B"]
    model = T5(config)
    axes, shapes = model.param_axes(), model.param_shapes()
    room = 15 * 2**30
    found = _possible("auto", _devices(1, 2048), "11B", 2048, room)
    assert all(each.devices == 2048 and 2048 % each.batch_ways == 0 for each in found)
    assert all(config.num_heads % each.tensor == 0 for each in found)
    held = sharding.bytes_per_device(found[0], axes, shapes)
    assert 2.5 * held <= room / 2
    # Small models need no sharing: all devices on data, and where memory is not known as well.
    assert _possible("auto", _devices(1, 32), "small", 128, room)[0] == MeshShape(data=32)
    assert _possible("auto", _devices(1, 8), "small", 128, None) == [MeshShape(data=8)]


def _devices(slices, each):
    """Devices that JAX might show of several slices; `make_mesh` asks them for no more."""
    return [
        types.SimpleNamespace(
            id=number, platform="cpu", device_kind="fake", process_index=number // 4,
            slice_index=number // each if slices > 1 else None,
        )
        for number in range(slices * each)
    ]  # fmt: skip


def _possible(text, devices, size, batch_size, room, accumulate=1):
    return sharding.possible_meshes(
        text, devices, T5(SIZES[size]), BatchSpec(batch_size, 114, 512),
        device_bytes=room, accumulate=accumulate,
    )  # fmt: skip


@pytest.mark.slow
def test_auto_proposes_only_meshes_that_are_accepted(monkeypatch):
    # A mesh's own class wants JAX's devices; what it refuses is looked at before.
    monkeypatch.setattr(sharding, "Mesh", lambda grid, axes: grid.shape)
    cases = itertools.product(
        (1, 2, 3, 4, 6), (4, 8, 16), ("small", "base", "3B"), (96, 128, 256, 2048, 3072),
        ((1, 16e9), (2, None)),
    )  # fmt: skip
    accepted, refusals = 0, []
    for slices, each, size, batch_size, (accumulate, room) in cases:
        devices = _devices(slices, each)
        try:
            meshes = _possible("auto", devices, size, batch_size, room, accumulate)
        except ValueError as error:
            refusals.append(str(error))
            continue
        accepted += 1
        for shape in meshes:
            assert sharding.make_mesh(shape, devices) == tuple(shape.sizes().values())
            assert batch_size % (shape.batch_ways * accumulate) == 0
    assert accepted + len(refusals) == 450
    assert accepted > 200
    assert len(refusals) > 20
    assert all("--batch-size" in line and "\n" not in line for line in refusals)


@pytest.mark.parametrize(
    ("text", "slices", "telling"),
    [
        ("fsdp=8", 2, "over 2 slices: data must be a multiple of 2"),
        ("data=2,tensor=6", 3, "over 3 slices: data must be a multiple of 3"),
        ("data=-1", 3, "does not divide over 12 devices"),
    ],
)
def test_a_mesh_that_slices_do_not_take_is_refused_before_anything_is_made(text, slices, telling):
    with pytest.raises(ValueError, match=telling):
        _possible(text, _devices(slices, 4), "small", 128, 16e9)


def test_a_batch_that_nothing_divides_is_told():
    with pytest.raises(ValueError, match=r"divides 3 sequences in 1 microbatches: .* 16"):
        _possible("auto", _devices(1, 16), "small", 3, 1e9)


@pytest.fixture(scope="module")
def alone():
    """The same steps on one device."""
    results = {}
    for name, network in (("encoder-decoder", ENCODER_DECODER), ("decoder", DECODER)):
        losses, state = train(network, MeshShape())
        assert losses[2] < 0.99 * losses[0]
        results[name] = losses, jax.device_get(state)
    return results


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "network", "shape", "accumulate"),
    [
        ("decoder", DECODER, MeshShape(data=8), 1),
        ("decoder", DECODER, MeshShape(fsdp=8), 1),
        ("decoder", DECODER, MeshShape(data=2, tensor=4), 2),
        ("encoder-decoder", ENCODER_DECODER, MeshShape(2, 2, 2), 1),
    ],
    ids=lambda value: str(value) if isinstance(value, MeshShape) else "",
)
def test_eight_devices_train_as_one(alone, name, network, shape, accumulate):
    losses, state = train(network, shape, accumulate)
    np.testing.assert_allclose(losses, alone[name][0], rtol=2e-6)

    def close(ours, theirs):
        # By each array's own size: moments are squares of small gradients.
        atol = 1e-4 * np.sqrt(np.mean(np.square(theirs, dtype=np.float64)))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=atol)

    jax.tree.map(close, jax.device_get(state), alone[name][1])
    kernel = state.params["decoder"]["layers"]["feed_forward"]["wi"]  # [layers, embed, mlp]
    layers, embed, mlp = kernel.shape
    assert _held(kernel) == {(layers, embed // shape.fsdp, mlp // shape.tensor)}
    moment = state.optimizer["decoder"]["layers"]["feed_forward"]["wi"]
    assert _held(moment.row) == {(layers, embed // shape.fsdp)}
    assert _held(moment.column) == {(layers, mlp // shape.tensor)}


def _held(array):
    return {shard.data.shape for shard in array.addressable_shards}


def test_activations_are_pinned_inside_the_block_only():
    mesh = sharding.make_mesh(MeshShape(2, 2, 2))
    x = jnp.zeros((8, 6, 16))

    def pinned(x):
        with sharding.use_rules(mesh):
            return partitioning.constrain(x, "batch", "length", "mlp")

    assert jax.jit(pinned)(x).sharding.spec == PartitionSpec(("data", "fsdp"), None, "tensor")
    # 3 sequences do not divide over 4 devices: left whole rather than refused.
    assert jax.jit(pinned)(x[:3]).sharding.spec == PartitionSpec(None, None, "tensor")
    assert partitioning.constrain(x, "batch", "length", "mlp") is x
