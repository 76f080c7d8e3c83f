"""Every architecture against a NumPy twin; what the ways to compute it may and may not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.t5.config import SIZES, ModelConfig, model_config
from model.t5.network import T5
from model.t5.partitioning import use_constraint
from tests.model.t5.plain_t5 import PlainT5

_SMALL = ModelConfig(
    d_model=16, d_ff=24, d_kv=4, num_heads=3, num_layers=2, vocab_size=64,
    relative_buckets=8, relative_max_distance=6,
)  # fmt: skip
_MODELS = {
    "v1.0": _SMALL,
    "v1.1": _SMALL.replace(feed_forward="gated-gelu", tied_logits=False),
    "deep decoder": _SMALL.replace(num_layers=1, num_decoder_layers=3),
    "shared": _SMALL.replace(architecture="shared-encoder-decoder"),
    "language model": _SMALL.replace(architecture="language-model"),
    "prefix language model": _SMALL.replace(architecture="prefix-language-model"),
    "adapters": _SMALL.replace(feed_forward="gated-gelu", adapter=5),
    "shared adapters": _SMALL.replace(architecture="shared-encoder-decoder", adapter=5),
}


def random_params(model, seed=0):
    """Parameters with nothing left at one or zero, and biases that matter."""
    shapes, tree = jax.tree.flatten(model.param_shapes())
    random = np.random.default_rng(seed)
    arrays = [0.3 * random.standard_normal(s.shape, np.float32) for s in shapes]
    return jax.tree.map(jnp.asarray, jax.tree.unflatten(tree, arrays))


def packed_batch(seed=0):
    """Two rows of two packed examples and padding, with the arrays of every architecture."""
    random = np.random.default_rng(seed)
    encoder_segments = np.array([[1, 1, 1, 1, 2, 2, 2, 0], [1, 1, 2, 2, 2, 2, 2, 2]], np.int32)
    decoder_segments = np.array([[1, 1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 2, 2]], np.int32)
    prefix = np.array([[1, 1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 0, 1, 0]], np.int32)
    return {
        "encoder_tokens": random.integers(1, 64, encoder_segments.shape).astype(np.int32),
        "encoder_segments": encoder_segments,
        "decoder_input_tokens": random.integers(1, 64, decoder_segments.shape).astype(np.int32),
        "decoder_segments": decoder_segments,
        "prefix": prefix,
    }


def select(batch, rows):
    return {name: array[rows] for name, array in batch.items()}


@pytest.fixture(scope="module")
def models():
    """Name to model, its parameters, and its compiled logits."""
    made = {}
    for name, config in _MODELS.items():
        model = T5(config)
        made[name] = model, random_params(model), jax.jit(model.logits)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", _MODELS)
def test_logits_are_those_of_the_twin(models, name):
    model, params, logits = models[name]
    batch = packed_batch()
    found = logits(params, batch)
    assert found.dtype == jnp.float32
    assert found.shape == (2, 7, 64)
    twin = PlainT5(model.config, params)
    for row in range(2):
        real = batch["decoder_segments"][row] > 0
        expected = twin.logits(select(batch, row))
        np.testing.assert_allclose(found[row][real], expected[real], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", _MODELS)
def test_packed_examples_are_as_if_alone(models, name):
    _, params, logits = models[name]
    batch = packed_batch()
    together = logits(params, batch)
    for row in range(2):
        for segment in (1, 2):
            # The same arrays, but everything of others is padding and has other tokens.
            alone = select(batch, [row, row])
            for side in ("encoder", "decoder"):
                own = alone[f"{side}_segments"] == segment
                alone[f"{side}_segments"] = np.where(own, 1, 0)
                tokens = "encoder_tokens" if side == "encoder" else "decoder_input_tokens"
                alone[tokens] = np.where(own, alone[tokens], 63 - alone[tokens])
            own = batch["decoder_segments"][row] == segment
            np.testing.assert_allclose(logits(params, alone)[0][own], together[row][own], atol=1e-5)


def influence(logits, params, batch, name):
    """[positions changed, positions that then differ] of the first row of a batch."""
    before = np.asarray(logits(params, batch))[0]
    rows = []
    for position in range(batch[name].shape[1]):
        changed = {key: array.copy() for key, array in batch.items()}
        changed[name][0, position] ^= 1
        rows.append((abs(np.asarray(logits(params, changed))[0] - before) > 1e-6).any(axis=-1))
    return np.array(rows)


@pytest.mark.slow
def test_what_a_token_of_each_architecture_can_see(models):
    one_segment = packed_batch()
    one_segment["decoder_segments"] = np.ones((2, 7), np.int32)
    one_segment["encoder_segments"] = np.ones((2, 8), np.int32)
    one_segment["prefix"] = np.array([[1, 1, 1, 0, 0, 0, 0]] * 2, np.int32)
    causal = np.triu(np.ones((7, 7), bool))
    prefix = causal.copy()
    prefix[:3] = True  # every position sees the prefix
    for name, expected in [("v1.0", causal), ("language model", causal),
                           ("shared", causal), ("prefix language model", prefix)]:  # fmt: skip
        _, params, logits = models[name]
        found = influence(logits, params, one_segment, "decoder_input_tokens")
        np.testing.assert_array_equal(found, expected, err_msg=name)
    _, params, logits = models["v1.0"]
    assert influence(logits, params, one_segment, "encoder_tokens").all()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [
    "encoder-decoder", "shared-encoder-decoder", "half-layer", "language-model",
    "prefix-language-model",
])  # fmt: skip
@pytest.mark.parametrize("size", SIZES)
def test_arrays_hold_as_many_parameters_as_the_paper_says(size, architecture):
    model = T5(model_config(size, architecture))
    shapes, axes = model.param_shapes(), model.param_axes()
    assert sum(x.size for x in jax.tree.leaves(shapes)) == model.config.parameter_count()
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    is_axes = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    ranks = jax.tree.map(len, axes, is_leaf=is_axes)
    assert ranks == jax.tree.map(lambda shape: len(shape.shape), shapes)


@pytest.mark.parametrize(
    ("width", "millions"), [(32, 1.20), (128, 4.74), (512, 18.9), (2048, 75.5)]
)
def test_adapter_layers_add_what_the_paper_says(width, millions):
    """Section 3.5.1; the other arrays keep their names, shapes and values."""
    config = model_config("base", adapter=width)
    with_adapters = T5(config).param_shapes()
    count = sum(x.size for x in jax.tree.leaves(with_adapters))
    added = count - model_config("base").parameter_count()
    assert added / 1e6 == pytest.approx(millions, rel=0.005)
    assert config.parameter_count() == count
    for stack in ("encoder", "decoder"):
        del with_adapters[stack]["layers"]["adapter"]
    assert with_adapters == T5(model_config("base")).param_shapes()


@pytest.mark.slow
def test_a_new_adapter_changes_little_and_draws_the_rest_as_without():
    config = _SMALL.replace(d_model=64, d_ff=128, d_kv=16)
    plain, adapted = T5(config), T5(config.replace(adapter=32))
    without, params = (jax.jit(model.init)(jax.random.key(0)) for model in (plain, adapted))
    batch = packed_batch()
    before, after = plain.logits(without, batch), adapted.logits(params, batch)
    change = np.std(after - before) / np.std(before)
    assert 0 < change < 0.1
    for stack in ("encoder", "decoder"):
        adapter = params[stack]["layers"].pop("adapter")
        scale = 0.1 * 32**-0.5 * 0.8796  # cut at two standard deviations
        assert np.std(adapter["wo"]) == pytest.approx(scale, rel=0.05)
        assert np.std(adapter["wi"]) == pytest.approx(64**-0.5 * 0.8796, rel=0.05)
    jax.tree.map(np.testing.assert_array_equal, params, without)


def test_the_tree_and_its_axes():
    attention = {
        "norm": ("layers", "norm"),
        "query": ("layers", "embed", "heads"),
        "key": ("layers", "embed", "heads"),
        "value": ("layers", "embed", "heads"),
        "output": ("layers", "heads", "embed"),
    }
    wi, wo = ("layers", "embed", "mlp"), ("layers", "mlp", "embed")
    ends = {"relative_bias": ("relpos_heads", "buckets"), "final_norm": ("norm",)}
    relu = {"norm": ("layers", "norm"), "wi": wi, "wo": wo}
    gated = {"norm": ("layers", "norm"), "wi_0": wi, "wi_1": wi, "wo": wo}
    assert T5(_MODELS["v1.1"]).param_axes() == {
        "embedding": ("vocab", "embed"),
        "logits": ("embed", "vocab"),
        "encoder": {"layers": {"self_attention": attention, "feed_forward": gated}, **ends},
        "decoder": {
            "layers": {
                "self_attention": attention, "cross_attention": attention, "feed_forward": gated,
            },
            **ends,
        },
    }  # fmt: skip
    adapters = T5(_MODELS["adapters"]).param_axes()
    assert adapters["encoder"]["layers"]["adapter"] == relu
    assert adapters["decoder"]["layers"]["adapter"] == relu
    layers = {"self_attention": attention, "feed_forward": relu}
    assert T5(_MODELS["language model"]).param_axes() == {
        "embedding": ("vocab", "embed"), "decoder": {"layers": layers, **ends},
    }  # fmt: skip
    assert T5(_MODELS["shared"]).param_axes() == {
        "embedding": ("vocab", "embed"),
        "shared": {"layers": layers, **ends},
        "decoder": {"layers": {"cross_attention": attention}},
    }


@pytest.mark.slow
def test_init_is_of_the_seed_alone(models):
    model = models["language model"][0]
    init = jax.jit(model.init)
    one, same, other = init(jax.random.key(1)), init(jax.random.key(1)), init(jax.random.key(2))
    assert jax.tree.map(lambda x: x.shape, one) == jax.tree.map(
        lambda x: x.shape, model.param_shapes()
    )
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, one, same)))
    assert not np.array_equal(one["embedding"], other["embedding"])


def gradient(config, params, batch, rng=None):
    model = T5(config)

    def total(params):
        logits = model.logits(params, batch, dropout_rng=rng)
        picked = logits[..., 3] * (batch["decoder_segments"] > 0)
        return (jax.nn.logsumexp(picked) + picked.sum()).astype(jnp.float32)

    return jax.jit(jax.grad(total))(params)


@pytest.fixture(scope="module")
def kept_gradient(models):
    model, params, _ = models["shared"]
    config = model.config.replace(dropout_rate=0.3)
    return gradient(config, params, packed_batch(), jax.random.key(5))


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_rematerialisation_changes_no_gradient(models, kept_gradient, remat):
    model, params, _ = models["shared"]
    config = model.config.replace(dropout_rate=0.3)
    rng = jax.random.key(5)
    computed_again = gradient(config.replace(remat=remat), params, packed_batch(), rng)
    scale = max(float(abs(x).max()) for x in jax.tree.leaves(kept_gradient))
    for one, other in zip(*map(jax.tree.leaves, (kept_gradient, computed_again)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6 * scale)


@pytest.mark.slow
def test_rematerialisation_keeps_less(models):
    model, params, _ = models["v1.0"]

    def kept(remat):
        changed = T5(model.config.replace(remat=remat))
        _, pullback = jax.eval_shape(
            lambda params: jax.vjp(lambda p: changed.logits(p, packed_batch()), params), params
        )
        return sum(x.size for x in jax.tree.leaves(pullback))

    assert kept("none") > kept("dots") > kept("full")


@pytest.mark.slow
def test_bfloat16_is_close_to_float32(models):
    for name in ("v1.1", "prefix language model"):
        model, params, logits = models[name]
        batch = packed_batch()
        low = T5(model.config.replace(dtype="bfloat16"))
        exact, found = logits(params, batch), jax.jit(low.logits)(params, batch)
        assert found.dtype == jnp.float32
        real = batch["decoder_segments"] > 0
        spread = np.asarray(exact)[real].std()
        error = np.asarray(found - exact)[real].std()
        assert 0 < error < 0.03 * spread
    assert low.embed(params, batch["decoder_input_tokens"]).dtype == jnp.bfloat16
    encoded = T5(_MODELS["v1.0"].replace(dtype="bfloat16")).encode(
        models["v1.0"][1], batch["encoder_tokens"], batch["encoder_segments"]
    )
    assert encoded.dtype == jnp.bfloat16


@pytest.mark.slow
def test_dropout_is_for_those_who_bring_a_key(models):
    model, params, logits = models["v1.0"]
    batch = packed_batch()
    dropped = jax.jit(lambda key: model.logits(params, batch, dropout_rng=key))
    one, same, other = (np.asarray(dropped(jax.random.key(seed))) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.allclose(one, other, atol=1e-3)
    assert not np.allclose(one, logits(params, batch), atol=1e-3)
    without = T5(model.config.replace(dropout_rate=0.0))
    text = jax.jit(without.logits).lower(params, batch, dropout_rng=jax.random.key(1)).as_text()
    assert "threefry" not in text


@pytest.mark.slow
def test_masks_are_shared_along_the_length_or_not(models):
    model, params, _ = models["language model"]
    batch = packed_batch()
    batch["decoder_input_tokens"][:] = 5  # so that positions differ by their masks alone
    for broadcast in (True, False):
        changed = T5(model.config.replace(dropout_broadcast=broadcast, dropout_rate=0.5))
        zeros = {}

        def note(x, axes, zeros=zeros):
            if axes == ("batch", "length", "embed_act"):
                zeros.setdefault("embedded", x == 0)
            return x

        with use_constraint(note):
            changed.logits(params, batch, dropout_rng=jax.random.key(0))
        dropped = np.asarray(zeros["embedded"])
        assert 0.2 < dropped.mean() < 0.8
        assert (dropped == dropped[:, :1]).all() == broadcast


@pytest.mark.slow
def test_each_layer_draws_masks_of_its_own(models):
    model, params, _ = models["language model"]
    model = T5(model.config.replace(dropout_rate=0.5))
    seen = []

    def note(x, axes):
        # By a callback, because scan runs one body for all layers.
        if axes[-1] == "mlp":
            jax.debug.callback(lambda array: seen.append(np.asarray(array) == 0), x)
        return x

    with use_constraint(note):
        model.logits(params, packed_batch(), dropout_rng=jax.random.key(0)).block_until_ready()
    jax.effects_barrier()
    first, second = (zero.all(axis=1) for zero in seen)  # dropped at all positions
    assert 0.2 < first.mean() < 0.8
    assert (first != second).mean() > 0.2


def test_activations_pass_the_constraint_with_their_axes(models):
    model, params, _ = models["v1.0"]
    seen = {}

    def note(x, axes):
        seen[axes] = x.shape
        return x

    with use_constraint(note):
        jax.eval_shape(lambda: model.logits(params, packed_batch()))
    assert seen == {
        ("vocab", "embed_act"): (64, 16),
        ("batch", "length", "embed_act"): (2, 7, 16),
        ("batch", "length", "heads", "kv"): (2, 7, 3, 4),
        ("batch", "length", "mlp"): (2, 7, 24),
        ("batch", "length", "vocab"): (2, 7, 64),
    }


@pytest.mark.slow
def test_an_id_beyond_the_vocabulary_is_loud(models):
    _, params, logits = models["language model"]
    batch = packed_batch()
    batch["decoder_input_tokens"][0, 0] = 64
    assert np.isnan(logits(params, batch)[0, 0]).all()


def test_a_model_without_an_encoder_says_so(models):
    model, params, _ = models["language model"]
    with pytest.raises(ValueError, match="language-model has no encoder: put the inputs before"):
        model.encode(params, np.zeros((1, 2), np.int32), np.ones((1, 2), np.int32))
