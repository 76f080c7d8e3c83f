"""Norm, dropout and initial values: statistics, shapes and types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.t5.config import ModelConfig
from model.t5.layers import Block, draw_keep, dropout, rms_norm
from model.t5.network import T5

pytestmark = pytest.mark.slow


def test_rms_norm_neither_centres_nor_uses_low_precision_statistics():
    x = np.linspace(-1, 3, 2 * 3 * 64).reshape(2, 3, 64)
    scale = np.linspace(0.5, 2, 64)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale
    found = rms_norm(jnp.asarray(x, jnp.float32), jnp.asarray(scale, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # 256 + 1 is 256 in bfloat16: summed there, 65,536 ones would make a mean square of 1/256.
    many = jnp.ones((1, 1, 65536), jnp.bfloat16)
    normed = rms_norm(many, jnp.ones(65536))
    assert normed.dtype == jnp.bfloat16
    assert (normed == 1).all()


def test_dropout_keeps_the_mean_and_draws_all_masks_apart():
    rate, batch = 0.25, 64
    masks = draw_keep(jax.random.key(0), rate, batch, [(1, 128), (3, 5, 16), (1, 128)])
    assert [mask.shape for mask in masks] == [(64, 1, 128), (64, 3, 5, 16), (64, 1, 128)]
    for keep in masks:
        # Six standard deviations of a mean of that many draws.
        tolerance = 6 * (rate * (1 - rate) / keep.size) ** 0.5
        assert np.mean(keep) == pytest.approx(1 - rate, abs=tolerance)
        flat = np.asarray(keep).reshape(batch, -1)
        assert len(np.unique(flat, axis=0)) == batch, "each sequence has a mask of its own"
    assert (masks[0] != masks[2]).any()
    x = jnp.full((64, 7, 128), 3.0)
    dropped = np.asarray(dropout(x, masks[0], rate))
    np.testing.assert_array_equal(dropped, np.broadcast_to(np.where(masks[0], 4.0, 0.0), x.shape))
    assert dropout(x, None, rate) is x


_CONFIG = ModelConfig(d_model=256, d_ff=1024, d_kv=16, num_heads=8, num_layers=4, vocab_size=4096,
                      feed_forward="gated-gelu", tied_logits=False)  # fmt: skip
# A normal cut at two standard deviations keeps 0.88 of its own (and Mesh TensorFlow leaves it so).
_CUT = 0.8796


@pytest.fixture(scope="module")
def initial():
    return jax.jit(T5(_CONFIG).init)(jax.random.key(0))


@pytest.mark.parametrize(
    ("layer", "name", "std", "cut"),
    [
        ("self_attention", "query", (256 * 16) ** -0.5, False),
        ("self_attention", "key", 256**-0.5, False),
        ("self_attention", "value", 256**-0.5, False),
        ("self_attention", "output", (8 * 16) ** -0.5, False),
        ("cross_attention", "query", (256 * 16) ** -0.5, False),
        ("feed_forward", "wi_0", 256**-0.5, True),
        ("feed_forward", "wi_1", 256**-0.5, True),
        ("feed_forward", "wo", 1024**-0.5, True),
    ],
)
def test_initial_kernels_have_their_standard_deviations(initial, layer, name, std, cut):
    kernel = np.asarray(initial["decoder"]["layers"][layer][name])
    assert kernel.std() == pytest.approx(std * (_CUT if cut else 1), rel=0.02)
    assert abs(kernel.mean()) < 0.02 * std
    assert (abs(kernel).max() <= 2.0001 * std) == cut
    assert len({kernel[layer].sum() for layer in range(4)}) == 4, "layers are drawn one by one"


def test_the_rest_of_the_initial_values(initial):
    assert np.std(initial["embedding"]) == pytest.approx(1, rel=0.02)
    assert np.std(initial["logits"]) == pytest.approx(256**-0.5 * _CUT, rel=0.02)
    table = np.asarray(initial["encoder"]["relative_bias"])
    limit = (6 / (8 + 32)) ** 0.5
    assert 0.8 * limit < abs(table).max() <= limit
    assert table.std() == pytest.approx(limit / 3**0.5, rel=0.2)
    for stack in ("encoder", "decoder"):
        assert (initial[stack]["final_norm"] == 1).all()
        for part in initial[stack]["layers"].values():
            assert (part["norm"] == 1).all()
    assert not np.array_equal(
        initial["encoder"]["layers"]["self_attention"]["key"],
        initial["decoder"]["layers"]["self_attention"]["key"],
    )


def test_a_block_draws_a_mask_at_each_of_its_sites():
    # One layer of each kind with weights of one: what is zero tells which mask it was.
    config = ModelConfig(
        d_model=8, d_ff=16, d_kv=4, num_heads=2, num_layers=1, dropout_rate=0.5, adapter=8
    )
    block = Block(config)
    hidden = jax.random.normal(jax.random.key(0), (4, 6, 8))
    bias, mask = jnp.zeros((1, 2, 6, 6)), jnp.ones((4, 1, 6, 6), bool)
    params = jax.tree.map(
        lambda box: box.value, block.init(jax.random.key(1), hidden, bias, mask),
        is_leaf=lambda leaf: hasattr(leaf, "names"),
    )  # fmt: skip

    def run(change, seed):
        changed = {"params": {**params["params"], **change}}
        rng = None if seed is None else jax.random.key(seed)
        return np.asarray(block.apply(changed, hidden, bias, mask, dropout_rng=rng))

    attention, feed_forward = params["params"]["self_attention"], params["params"]["feed_forward"]
    adapter = params["params"]["adapter"]
    no_attention = {"self_attention": {**attention, "output": attention["output"] * 0}}
    no_feed_forward = {"feed_forward": {**feed_forward, "wo": feed_forward["wo"] * 0}}
    no_adapter = {"adapter": {**adapter, "wo": adapter["wo"] * 0}}
    for silent in (
        no_attention | no_feed_forward, no_attention | no_adapter, no_feed_forward | no_adapter,
    ):  # fmt: skip
        exact, dropped = run(silent, None), run(silent, 0)
        kept = (dropped == hidden).all(axis=1)  # [sequence, width]: the mask on the result
        assert 0.2 < kept.mean() < 0.8
        # What got through is not twice the exact result: weights, or the hidden layer, have a
        # mask of their own.
        twice = np.isclose(dropped - hidden, 2 * (exact - hidden), atol=1e-5).all(axis=1)
        assert not twice[~kept].any()
    assert np.array_equal(run({}, 3), run({}, 3))
    assert not np.array_equal(run({}, 3), run({}, 4))
