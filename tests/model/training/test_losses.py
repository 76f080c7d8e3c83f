"""Losses and their gradients against JAX's own log-softmax and derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.t5.partitioning import use_constraint
from model.training import losses
from model.training.losses import divisor_of, loss_sums

_Z, _SMOOTH = 1e-2, 0.2


def _batch(seed=0, shape=(3, 5), vocab=11, width=6):
    draw = np.random.default_rng(seed)
    features = jnp.asarray(draw.normal(size=(*shape, width)), jnp.float32)
    head = jnp.asarray(draw.normal(size=(vocab, width), scale=3), jnp.float32)
    targets = jnp.asarray(draw.integers(0, vocab, shape), jnp.int32)
    weights = jnp.asarray(draw.integers(0, 2, shape), jnp.float32)
    return features, head, targets, weights


def _of_logits(logits, targets, weights, **options):
    """Losses of given logits [batch, length, vocab]: features times the identity."""
    head = jnp.eye(logits.shape[-1], dtype=logits.dtype)
    return loss_sums(logits, head, targets, weights, **options)


@pytest.fixture(params=[1, 2, 5], ids=lambda count: f"{count} chunks")
def chunked(request, monkeypatch):
    """Logits of [3, 5] tokens in that many chunks; two of five positions are padded."""
    monkeypatch.setattr(losses, "_CHUNK_BYTES", -(-4 * 3 * 5 * 11 // request.param))


def _twin(logits, targets, weights, z_loss, smoothing):
    """By the definitions: a distribution to reach, its cross-entropy, log Z squared."""
    vocab = logits.shape[-1]
    wanted = jax.nn.one_hot(targets, vocab) * (1 - smoothing) + smoothing / vocab
    losses = -jnp.sum(wanted * jax.nn.log_softmax(logits), axis=-1)
    z = z_loss * jnp.square(jax.nn.logsumexp(logits, axis=-1))
    return jnp.sum(weights * losses), jnp.sum(weights * z)


@pytest.mark.slow
@pytest.mark.parametrize("z_loss", [0.0, _Z])
@pytest.mark.parametrize("smoothing", [0.0, _SMOOTH])
def test_values_and_gradients_are_those_of_the_definition(z_loss, smoothing, chunked):
    features, head, targets, weights = _batch()

    def ours(features, head):
        sums = loss_sums(features, head, targets, weights, z_loss=z_loss, label_smoothing=smoothing)
        return 3 * (sums.loss + sums.z_loss), sums

    def twin(features, head):
        return _twin(features @ head.T, targets, weights, z_loss, smoothing)

    gradients, sums = jax.grad(ours, argnums=(0, 1), has_aux=True)(features, head)
    wanted = twin(features, head)
    without_gradient = loss_sums(
        features, head, targets, weights, z_loss=z_loss, label_smoothing=smoothing
    )
    for found in (sums, without_gradient):
        np.testing.assert_allclose(found.loss, wanted[0], rtol=1e-5)
        np.testing.assert_allclose(found.z_loss, wanted[1], rtol=1e-5)
        assert found.tokens == np.sum(weights)
        best = np.argmax(features @ head.T, -1)
        assert found.correct == np.sum(weights * (best == targets))
    expected = jax.grad(lambda *both: 3 * sum(twin(*both)), argnums=(0, 1))(features, head)
    for found, right in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, right, atol=2e-5)


@pytest.mark.slow
def test_chunks_are_of_what_one_device_has(monkeypatch):
    monkeypatch.setattr(losses, "_CHUNK_BYTES", 4 * 2 * 3 * 11)
    features, head, targets, weights = _batch(shape=(2, 12))

    def of_logits(text):
        return "2x3x11xf32" in text, "2x12x11xf32" in text

    lower = jax.jit(loss_sums).lower
    assert of_logits(lower(features, head, targets, weights).as_text()) == (True, False)
    with use_constraint(lambda x, axes: x, lambda shape, axes: (1, 3, *shape[2:])):
        jax.clear_caches()
        assert of_logits(lower(features, head, targets, weights).as_text()) == (False, True)


@pytest.mark.slow
def test_correct_counts_only_real_tokens():
    logits = jnp.asarray([[[0.0, 5.0], [5.0, 0.0], [0.0, 5.0]]])
    sums = _of_logits(logits, jnp.asarray([[1, 1, 1]]), jnp.asarray([[1.0, 1.0, 0.0]]))
    assert (float(sums.correct), float(sums.tokens)) == (1, 2)


@pytest.mark.slow
def test_sums_of_parts_add_up():
    features, head, targets, weights = _batch(1, (8, 5))
    whole = loss_sums(features, head, targets, weights, z_loss=_Z)
    parts = [
        loss_sums(features[rows], head, targets[rows], weights[rows], z_loss=_Z)
        for rows in (slice(0, 1), slice(1, 6), slice(6, 8))
    ]
    for name in whole._fields:
        np.testing.assert_allclose(
            getattr(whole, name), sum(getattr(part, name) for part in parts), rtol=1e-5
        )


@pytest.mark.slow
def test_large_logits_stay_finite():
    logits = jnp.asarray([[[1e4, -1e4, 0.0]]])
    value, gradient = jax.value_and_grad(
        lambda x: _of_logits(x, jnp.asarray([[1]]), jnp.ones((1, 1)), z_loss=1e-4).loss
    )(logits)
    assert value == 2e4
    assert np.all(np.isfinite(gradient))


@pytest.mark.slow
def test_in_bfloat16_logits_and_the_gradient_of_the_head_are_float32():
    features, head, targets, weights = _batch(2, (4, 40))
    low = features.astype(jnp.bfloat16)
    rounded = head.astype(jnp.bfloat16).astype(jnp.float32)

    def loss(features, head):
        return loss_sums(features, head, targets, weights).loss

    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(low, head)
    exact, expected = jax.value_and_grad(loss, argnums=(0, 1))(low.astype(jnp.float32), rounded)
    np.testing.assert_allclose(value, exact, rtol=1e-5)  # rounded logits would be 1e-3 off
    assert [each.dtype for each in gradients] == [jnp.bfloat16, jnp.float32]
    for found, right in zip(gradients, expected, strict=True):
        error = np.linalg.norm(found.astype(jnp.float32) - right) / np.linalg.norm(right)
        assert error < 0.004  # one rounding of bfloat16


@pytest.mark.slow
def test_a_tied_head_in_bfloat16_compiles_for_a_cpu():
    # One chunk, whose gradient is added to another of the same array: XLA folds the transposition.
    features, head, targets, weights = _batch(3)

    def loss(head):
        looked_up = head[targets].astype(jnp.bfloat16) + features.astype(jnp.bfloat16)
        return loss_sums(looked_up, head, targets, weights).loss

    assert np.all(np.isfinite(jax.jit(jax.grad(loss))(head)))


@pytest.mark.parametrize(
    ("name", "tokens", "divisor"),
    [
        ("batch-length", 7, 24),
        ("tokens", 7, 7),
        ("tokens", 0, 1),  # a batch of padding
        ("sum", 7, 1),
    ],
)
def test_divisors(name, tokens, divisor):
    assert float(divisor_of(name, (2, 12), jnp.float32(tokens))) == divisor


def test_nothing_of_the_size_of_all_logits_is_allocated(monkeypatch):
    """What runs under jit: the logits of one chunk and their gradient."""
    batch, length, vocab, width, chunks = 64, 16, 4096, 8, 4
    monkeypatch.setattr(losses, "_CHUNK_BYTES", 4 * batch * length * vocab // chunks)
    few = (batch, length)
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (
            ((*few, width), jnp.float32), ((vocab, width), jnp.float32), (few, jnp.int32),
            (few, jnp.float32),
        )
    ]  # fmt: skip

    def both(features, head, targets, weights):
        sums = loss_sums(features, head, targets, weights, z_loss=_Z)
        return sums.loss + sums.z_loss

    compiled = jax.jit(jax.grad(both, argnums=(0, 1))).lower(*arguments).compile()
    chunk = losses._CHUNK_BYTES
    assert compiled.memory_analysis().temp_size_in_bytes < 2.3 * chunk
