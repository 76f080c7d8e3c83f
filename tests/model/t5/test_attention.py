"""Buckets, masks and attention against loops over every pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.t5 import attention
from model.t5.attention import (
    attend,
    attention_mask,
    lookup_bias,
    relative_bias,
    relative_position_bucket,
)
from tests.model.t5 import plain_t5

pytestmark = pytest.mark.slow

# First distance of each bucket beyond the exact ones (specification, section 1.3).
_BIDIRECTIONAL = {8: 8, 12: 9, 16: 10, 23: 11, 32: 12, 46: 13, 64: 14, 91: 15}
_CAUSAL = {
    16: 16, 19: 17, 21: 18, 24: 19, 27: 20, 31: 21, 35: 22, 40: 23, 46: 24, 52: 25, 59: 26,
    67: 27, 77: 28, 87: 29, 99: 30, 113: 31,
}  # fmt: skip


@pytest.mark.parametrize(("bidirectional", "firsts"), [(True, _BIDIRECTIONAL), (False, _CAUSAL)])
def test_first_distance_of_each_wide_bucket(bidirectional, firsts):
    for distance, bucket in firsts.items():
        found = relative_position_bucket(
            np.array([-distance, 1 - distance]), bidirectional=bidirectional
        )
        assert found.tolist() == [bucket, bucket - 1]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (32, 20), (4, 3), (8, 1000)])
def test_buckets_are_those_of_the_formula(bidirectional, buckets, max_distance):
    relative = np.arange(-1100, 1101)
    found = relative_position_bucket(
        relative, bidirectional=bidirectional, num_buckets=buckets, max_distance=max_distance
    )
    expected = [plain_t5.bucket(int(n), bidirectional, buckets, max_distance) for n in relative]
    assert found.dtype == jnp.int32
    assert found.tolist() == expected


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (1, 5), (5, 1), (40, 33)])
def test_bias_of_all_pairs_and_its_gradient(bidirectional, queries, keys):
    table = jax.random.normal(jax.random.key(0), (3, 32))
    weight = jax.random.normal(jax.random.key(1), (1, 3, queries, keys))
    relative = np.arange(keys)[None, :] - np.arange(queries)[:, None]

    def laid_out(table):
        return relative_bias(table, queries, keys, bidirectional=bidirectional)

    def looked_up(table):
        return lookup_bias(table, relative, bidirectional=bidirectional)[None]

    np.testing.assert_array_equal(laid_out(table), looked_up(table))
    for head, query, key in [(0, 0, 0), (2, queries - 1, 0), (1, 0, keys - 1)]:
        number = plain_t5.bucket(key - query, bidirectional, 32, 128)
        assert laid_out(table)[0, head, query, key] == table[head, number]
    gradients = [
        jax.grad(lambda table, f=f: jnp.sum(f(table) * weight))(table)
        for f in (laid_out, looked_up)
    ]
    np.testing.assert_allclose(*gradients, atol=1e-4)


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=3),
    st.lists(st.integers(0, 1), min_size=6, max_size=6),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_mask_of_every_pair(segments, prefix, causal, with_prefix):
    prefixes = np.array([prefix] * len(segments)) if with_prefix else None
    mask = attention_mask(np.array(segments), np.array(segments), causal=causal, prefix=prefixes)
    assert mask.shape == (len(segments), 1, 6, 6)
    for row, ids in enumerate(segments):
        for i in range(6):
            for j in range(6):
                expected = plain_t5.sees(i, j, ids, causal, prefix if with_prefix else None)
                assert bool(mask[row, 0, i, j]) == expected


@pytest.fixture(scope="module")
def arrays():
    keys = jax.random.split(jax.random.key(2), 5)
    batch, queries, width, heads, kv = 2, 6, 8, 4, 8
    mask = jax.random.bernoulli(keys[4], 0.6, (batch, 1, queries, width))
    return {
        "query": jax.random.normal(keys[0], (batch, queries, heads, kv)),
        "key": jax.random.normal(keys[1], (batch, width, heads, kv)),
        "value": jax.random.normal(keys[2], (batch, width, heads, kv)),
        "bias": jax.random.normal(keys[3], (1, heads, queries, width)),
        "mask": mask.at[:, :, :, 0].set(True),  # none sees nothing
    }


def test_attention_is_that_of_the_formula(arrays):
    found = attend(**arrays)
    x = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    for row in range(2):
        for head in range(4):
            logits = x["query"][row, :, head] @ x["key"][row, :, head].T + x["bias"][0, head]
            weights = np.where(x["mask"][row, 0], np.exp(logits), 0)
            weights /= weights.sum(-1, keepdims=True)
            np.testing.assert_allclose(
                found[row, :, head], weights @ x["value"][row, :, head], atol=1e-5
            )


def test_a_bias_for_all_sequences_gets_the_gradients_of_each(arrays):
    weight = jax.random.normal(jax.random.key(4), arrays["query"].shape)

    def total(bias):
        return jnp.sum(attend(**{**arrays, "bias": bias}) * weight)

    each = jax.grad(total)(jnp.concatenate([arrays["bias"]] * 2))
    assert abs(np.asarray(each)).max() > 0.1
    np.testing.assert_allclose(jax.grad(total)(arrays["bias"])[0], each[0] + each[1], atol=1e-5)


def test_a_query_that_sees_nothing_has_a_finite_result_and_gradient(arrays):
    blind = {**arrays, "mask": jnp.zeros_like(arrays["mask"])}
    gradient = jax.grad(lambda query: attend(**{**blind, "query": query}).sum())(blind["query"])
    assert np.isfinite(attend(**blind)).all()
    assert not np.asarray(gradient).any()


@given(seed=st.integers(0, 2**32 - 1), factored=st.sampled_from(["no", "keys", "pairs"]))
@settings(max_examples=12, deadline=None)
def test_gradients_are_those_that_jax_derives(seed, factored):
    random = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(random.normal(0, 1, shape), jnp.float32)  # noqa: E731
    query, key, value, bias = (
        draw(2, 3, 2, 4), draw(2, 5, 2, 4), draw(2, 5, 2, 4), draw(1, 2, 3, 5)
    )  # fmt: skip
    mask = jnp.asarray(random.random((2, 1, 3, 5)) < 0.5).at[0, 0, 1].set(False)
    queries = {"no": 0, "keys": 1, "pairs": 3}[factored]
    factor = jnp.round(jnp.abs(draw(2, 2, queries, 5))) if queries else None
    weight = draw(2, 3, 2, 4)

    def ours(query, key, value, bias):
        return jnp.sum(weight * attend(query, key, value, bias, mask, weight_factor=factor))

    def plain(query, key, value, bias):
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) + bias
        weights = jax.nn.softmax(jnp.where(mask, logits, -1e10))
        weights *= 1 if factor is None else factor
        return jnp.sum(weight * jnp.einsum("bhqk,bkhd->bqhd", weights, value))

    arguments = query, key, value, bias
    for own, derived in zip(
        jax.grad(ours, range(4))(*arguments), jax.grad(plain, range(4))(*arguments), strict=True
    ):
        np.testing.assert_allclose(own, derived, rtol=1e-4, atol=1e-5)


def test_the_backward_pass_keeps_the_weights_once():
    def loss(query):
        return jnp.sum(attend(query, key, key, None, mask))

    query, key = jnp.ones((2, 48, 2, 4)), jnp.ones((2, 32, 2, 4))
    mask = jnp.ones((2, 1, 48, 32), bool)
    _, backward = jax.vjp(loss, query)
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.size == 2 * 2 * 48 * 32]
    assert len(kept) == 1


def test_softmax_is_float32_under_bfloat16(arrays):
    exact = attend(**arrays)
    low = {name: arrays[name].astype(jnp.bfloat16) for name in ("query", "key", "value")}
    found = attend(**{**arrays, **low})
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=0.03)
    # Logits 512 and 513 are one number in bfloat16: their softmax must still tell them apart.
    one = jnp.ones((1, 1, 1, 8), jnp.bfloat16)
    key = jnp.concatenate([one * 64, one * 64], axis=1)
    value = jnp.concatenate([one * 0, one], axis=1)
    bias = jnp.array([0.0, 1.0]).reshape(1, 1, 1, 2)
    weighted = attend(one, key, value, bias, jnp.ones((1, 1, 1, 2), bool))
    np.testing.assert_allclose(
        weighted.astype(jnp.float32), jax.nn.sigmoid(jnp.ones((1, 1, 1, 8))), atol=0.01
    )


def test_a_factor_for_each_key_multiplies_weights_after_the_softmax(arrays):
    shape = (2, 4, 1, 8)
    factor = jax.random.bernoulli(jax.random.key(3), 0.5, shape).astype(jnp.float32) * 2
    by_key = attend(**arrays, weight_factor=factor)
    by_pair = attend(**arrays, weight_factor=jnp.broadcast_to(factor, (2, 4, 6, 8)))
    np.testing.assert_allclose(by_key, by_pair, atol=1e-6)
    assert not np.allclose(by_key, attend(**arrays), atol=0.1)


# The fused path: cuDNN's kernel cannot run here. What can be tested is which calls take it, what
# it is asked for (by another implementation of the same function), and that it lowers for CUDA.


@pytest.fixture
def low(arrays):
    return {
        name: array.astype(jnp.bfloat16) if name in ("query", "key", "value") else array
        for name, array in arrays.items()
    }


def test_fused_attention_asks_for_what_the_plain_path_computes(low):
    fused = attention._fused_attend(**low, implementation="xla")
    np.testing.assert_allclose(
        fused.astype(jnp.float32), attend(**low).astype(jnp.float32), atol=0.03
    )


def test_fused_attention_lowers_for_cuda_with_the_gradient_of_its_bias(low, cuda):
    def total(query, key, value, bias):
        attended = attend(query, key, value, bias, low["mask"], path="auto")
        return attended.astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3))).trace(
        low["query"], low["key"], low["value"], low["bias"]
    )
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaScaleBiasSoftmax" in text
    assert "__cudnn$fmhaScaleBiasSoftmaxBackward" in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: {**x, "query": x["query"].astype(jnp.float32)}, "for bfloat16"),
        (lambda x: {**x, "weight_factor": jnp.ones((2, 4, 6, 8))}, "for dropout_broadcast=True"),
        (lambda x: {**x, "query": x["query"][..., :7], "key": x["key"][..., :7]}, "for d_kv"),
        (
            lambda x: {
                **x, "query": x["query"][:, :5], "bias": x["bias"][:, :, :5],
                "mask": x["mask"][:, :, :5],
            },
            "for even lengths",
        ),
    ],
)  # fmt: skip
def test_what_the_kernel_cannot_do_is_plain_by_auto_and_refused_by_fused(low, cuda, change, reason):
    changed = change(low)
    np.testing.assert_array_equal(attend(**changed, path="auto"), attend(**changed, path="plain"))
    with pytest.raises(ValueError, match=f"fused attention is {reason}.*'auto' or 'plain'"):
        attend(**changed, path="fused")


def test_fused_is_refused_where_there_is_no_kernel(arrays):
    with pytest.raises(ValueError, match="fused attention is for CUDA, and JAX runs on cpu"):
        attend(**arrays, path="fused")
    np.testing.assert_array_equal(attend(**arrays, path="auto"), attend(**arrays))
