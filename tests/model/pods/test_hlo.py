"""Walking a compiled program: loops times their trips, products, exchanges and their groups."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from model.pods.hlo import Collective, _Window, first_group, program_cost, window_products
from model.training.sharding import MeshShape, make_mesh


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 4), st.integers(0, 6),
    st.integers(1, 4), st.integers(1, 3),
)  # fmt: skip
def test_windows_against_a_walk_over_places(size_in, size_out, size, stride, pad, holes, spread):
    padded = [None] * pad
    for element in range(size_in):
        padded += [element] + [None] * (holes - 1)
    meetings = 0
    for out, tap in itertools.product(range(size_out), range(size)):
        place = out * stride + tap * spread
        meetings += place < len(padded) and padded[place] is not None
    assert window_products(size_in, size_out, _Window(size, stride, pad, holes, spread)) == meetings


@given(st.permutations([0, 1, 2]), st.tuples(*[st.integers(1, 4)] * 3), st.data())
def test_groups_by_strides_against_numpy(order, sizes, data):
    devices = int(np.prod(sizes))
    group = data.draw(st.sampled_from([n for n in range(1, devices + 1) if devices % n == 0]))
    text = (
        f"replica_groups=[{devices // group},{group}]<=[{','.join(map(str, sizes))}]"
        f"T({','.join(map(str, order))})"
    )
    rows = np.arange(devices).reshape(sizes).transpose(order).reshape(-1, group)
    assert first_group(text, devices) == tuple(rows[0])


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("channel_id=1, replica_groups={{0,4,8},{1,5,9}}, dimensions={0}", (0, 4, 8)),
        ("replica_groups=[3,4]<=[12]", (0, 1, 2, 3)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=3,'axis_2'=2] {'axis_1'}", (0, 2, 4)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=6] {'axis_0','axis_1'}", tuple(range(12))),
        # Half an axis, and no group at all: read as everyone.
        ("replica_groups=mesh['axis_0'=2,'axis_1'=6] {'axis_1':(1)2}", tuple(range(12))),
        ("dimensions={0}", tuple(range(12))),
    ],
)
def test_groups_as_xla_writes_them(text, group):
    assert first_group(text, 12) == group


def _compiled(function, *shapes, shardings=None):
    jitted = jax.jit(function) if shardings is None else jax.jit(function, in_shardings=shardings)
    return jitted.lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).compile()


def test_products_in_nested_loops_are_counted_as_often_as_they_run():
    def layer(x, _):
        x, _ = jax.lax.scan(lambda y, w: (jnp.tanh(y @ w), None), x, _)
        return x, None

    def network(x, weights):
        x, _ = jax.lax.scan(layer, x, weights)
        return x @ weights[0, 0]

    program = _compiled(network, (24, 32), (3, 5, 32, 32))
    cost = program_cost(program.as_text(), 1)
    assert cost.flops == (3 * 5 + 1) * 2 * 24 * 32 * 32
    assert cost.collectives == ()
    # What XLA says of it, for whom a loop's body runs once.
    assert program.cost_analysis()["flops"] < cost.flops / 2


@pytest.mark.parametrize("shape", [(4, 6, 8), (1, 6, 8)])
def test_batched_products_are_counted(shape):
    program = _compiled(lambda a, b: jnp.einsum("bij,bkj->bik", a, b), shape, shape)
    batch, rows, depth = shape
    assert program_cost(program.as_text(), 1).flops == 2 * batch * rows * rows * depth


def test_exchanges_are_found_with_their_sizes_groups_and_trips():
    mesh = make_mesh(MeshShape(data=2, tensor=4))

    def network(x, weights):
        def layer(x, w):
            return jax.lax.with_sharding_constraint(
                jnp.tanh(x @ w), jax.NamedSharding(mesh, PartitionSpec("data", None))
            ), None

        return jax.lax.scan(layer, x, weights)[0]

    places = (
        jax.NamedSharding(mesh, PartitionSpec("data", None)),
        jax.NamedSharding(mesh, PartitionSpec(None, "tensor", None)),
    )
    program = _compiled(network, (8, 64), (7, 64, 64), shardings=places)
    cost = program_cost(program.as_text(), 8)
    assert cost.collectives == (
        Collective("all-reduce", 4 * 64 * 4, (0, 1, 2, 3), overlaps=False, times=7),
    )
    assert cost.flops == 7 * 2 * 4 * 16 * 64


# As XLA writes programs for TPUs, shortened: products are convolutions with holes, layouts have
# brackets of their own, an exchange in pieces keeps its channel, cycles are told.
TPU = """\
HloModule jit_step, is_scheduled=true

%fused (p0: bf16[16,512,8,64], p1: bf16[16,512,8,64]) -> f32[8,16,512,512] {
  %p0 = bf16[16,512,8,64]{3,1,2,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[16,512,8,64]{3,1,2,0:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.1 = f32[16,8,512,512]{3,2,1,0:T(8,128)} convolution(%p0, %p1), window={size=16x8 stride=15x7 lhs_dilate=16x8}, dim_labels=0b1f_0o1i->01bf
}

%piece.1 (q0: bf16[1,64,32]) -> bf16[1,64,128] {
  %q0 = bf16[1,64,32]{2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.5 = bf16[1,64,128]{2,1,0:T(8,128)(2,1)} all-gather(%q0), channel_id=9, replica_groups=[2,4]<=[8], dimensions={2}
}

%piece.2 (q0.1: bf16[1,64,32]) -> bf16[1,64,128] {
  %q0.1 = bf16[1,64,32]{2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.6 = bf16[1,64,128]{2,1,0:T(8,128)(2,1)} all-gather(%q0.1), channel_id=9, replica_groups=[2,4]<=[8], dimensions={2}
}

%body (arg: (s32[], bf16[16,512,8,64], bf16[1,64,32])) -> (s32[], bf16[16,512,8,64], bf16[1,64,32]) {
  %arg = (s32[]{:T(256)}, bf16[16,512,8,64]{3,1,2,0:T(8,128)(2,1)}, /*index=2*/bf16[1,64,32]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %a = bf16[16,512,8,64]{3,1,2,0:T(8,128)(2,1)} get-tuple-element(%arg), index=1
  %b = bf16[1,64,32]{2,1,0:T(8,128)(2,1)} get-tuple-element(%arg), index=2
  %fusion.1 = f32[8,16,512,512]{3,2,1,0:T(8,128)} fusion(%a, %a), kind=kOutput, calls=%fused, backend_config={"window_config":{"estimated_cycles":"1000"}}
  %fusion.2 = bf16[1,64,128]{2,1,0:T(8,128)(2,1)} fusion(%b), kind=kCustom, calls=%piece.1
  %fusion.3 = bf16[1,64,128]{2,1,0:T(8,128)(2,1)} fusion(%b), kind=kCustom, calls=%piece.2
  %all-reduce.7 = (bf16[2,8]{1,0:T(8,128)(2,1)}, f32[4]{0:T(256)}) all-reduce(%b, %b), channel_id=10, replica_groups={{0,4},{1,5}}
  %constant.8 = s32[]{:T(256)} constant(STRIDE)
  %i.2 = s32[]{:T(256)} get-tuple-element(%arg), index=0
  %add.9 = s32[]{:T(256)} add(%i.2, %constant.8)
  ROOT %tuple.1 = (s32[]{:T(256)}, bf16[16,512,8,64]{3,1,2,0:T(8,128)(2,1)}, /*index=2*/bf16[1,64,32]{2,1,0:T(8,128)(2,1)}) tuple(%add.9, %a, %b)
}

%condition (arg.1: (s32[], bf16[16,512,8,64], bf16[1,64,32])) -> pred[] {
  %arg.1 = (s32[]{:T(256)}, bf16[16,512,8,64]{3,1,2,0}, bf16[1,64,32]{2,1,0}) parameter(0)
  %constant.3 = s32[]{:T(256)} constant(24)
  %i = s32[]{:T(256)} get-tuple-element(%arg.1), index=0
  ROOT %lt = pred[]{:T(1024)} compare(%i, %constant.3), direction=LT
}

ENTRY %main (x: (s32[], bf16[16,512,8,64], bf16[1,64,32])) -> f32[] {
  %x = (s32[]{:T(256)}, bf16[16,512,8,64]{3,1,2,0:T(8,128)(2,1)}, bf16[1,64,32]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %while.1 = (s32[]{:T(256)}, bf16[16,512,8,64]{3,1,2,0:T(8,128)(2,1)}, bf16[1,64,32]{2,1,0:T(8,128)(2,1)}) while(%x), condition=%condition, body=%body
  %copy.1 = f32[8]{0:T(256)} copy(%while.1), backend_config={"window_config":{"estimated_cycles":"7"}}
  %all-reduce-start.1 = (f32[8]{0:T(256)}, f32[8]{0:T(256)}) all-reduce-start(%copy.1), channel_id=11, replica_groups=[1,8]<=[8]
  ROOT %c = f32[]{:T(256)} constant(0)
}
"""  # noqa: E501


@pytest.mark.parametrize(("stride", "trips"), [(1, 24), (2, 12), (5, 5)])
def test_a_program_for_tpus(stride, trips):
    cost = program_cost(TPU.replace("STRIDE", str(stride)), 8)
    # Attention's logits of 16 sequences and 8 heads: 512 x 512 products of depth 64.
    assert cost.flops == trips * 2 * 16 * 8 * 512 * 512 * 64
    assert cost.cycles == trips * 1000 + 7
    assert cost.collectives == (
        Collective("all-gather", 64 * 128 * 2, (0, 1, 2, 3), overlaps=True, times=trips),
        Collective("all-reduce", 2 * 64 * 32 * 2, (0, 4), overlaps=False, times=trips),
        Collective("all-reduce", 32, tuple(range(8)), overlaps=True, times=1),
    )


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        program_cost("module @jit_step {}", 8)
