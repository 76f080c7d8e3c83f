"""Losses against JAX's own log-softmax and derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.training.losses import divisor_of, loss_sums

_Z, _SMOOTH = 1e-2, 0.2


def _batch(seed=0, shape=(3, 5), vocab=11):
    draw = np.random.default_rng(seed)
    logits = jnp.asarray(draw.normal(size=(*shape, vocab), scale=3), jnp.float32)
    targets = jnp.asarray(draw.integers(0, vocab, shape), jnp.int32)
    weights = jnp.asarray(draw.integers(0, 2, shape), jnp.float32)
    return logits, targets, weights


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
def test_values_and_gradient_are_those_of_the_definition(z_loss, smoothing):
    logits, targets, weights = _batch()

    def ours(logits):
        sums = loss_sums(logits, targets, weights, z_loss=z_loss, label_smoothing=smoothing)
        return sums.loss + sums.z_loss

    sums = loss_sums(logits, targets, weights, z_loss=z_loss, label_smoothing=smoothing)
    wanted = _twin(logits, targets, weights, z_loss, smoothing)
    np.testing.assert_allclose(sums.loss, wanted[0], rtol=1e-5)
    np.testing.assert_allclose(sums.z_loss, wanted[1], rtol=1e-5)
    assert sums.tokens == np.sum(weights)
    assert sums.correct == np.sum(weights * (np.argmax(logits, -1) == targets))
    gradient = jax.grad(lambda x: sum(_twin(x, targets, weights, z_loss, smoothing)))(logits)
    np.testing.assert_allclose(jax.grad(ours)(logits), gradient, atol=2e-6)


@pytest.mark.slow
def test_correct_counts_only_real_tokens():
    logits = jnp.asarray([[0.0, 5.0], [5.0, 0.0], [0.0, 5.0]])
    sums = loss_sums(logits, jnp.asarray([1, 1, 1]), jnp.asarray([1.0, 1.0, 0.0]))
    assert (float(sums.correct), float(sums.tokens)) == (1, 2)


@pytest.mark.slow
def test_sums_of_parts_add_up():
    logits, targets, weights = _batch(1, (8, 5))
    whole = loss_sums(logits, targets, weights, z_loss=_Z)
    parts = [
        loss_sums(logits[rows], targets[rows], weights[rows], z_loss=_Z)
        for rows in (slice(0, 1), slice(1, 6), slice(6, 8))
    ]
    for name in whole._fields:
        np.testing.assert_allclose(
            getattr(whole, name), sum(getattr(part, name) for part in parts), rtol=1e-5
        )


@pytest.mark.slow
def test_large_logits_stay_finite():
    logits = jnp.asarray([[1e4, -1e4, 0.0]])
    value, gradient = jax.value_and_grad(
        lambda x: loss_sums(x, jnp.asarray([1]), jnp.ones(1), z_loss=1e-4).loss
    )(logits)
    assert value == 2e4
    assert np.all(np.isfinite(gradient))


def test_half_precision_is_refused():
    with pytest.raises(TypeError, match="float32"):
        loss_sums(jnp.zeros((1, 4), jnp.bfloat16), jnp.zeros(1, jnp.int32), jnp.ones(1))


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


def test_unknown_divisor():
    with pytest.raises(ValueError, match=r"'mean'; known: batch-length, tokens, sum"):
        divisor_of("mean", (2, 12), jnp.float32(1))


def test_backward_makes_one_array_of_the_logits_size():
    """What runs under jit: the gradient and nothing else of that size is allocated."""
    shape = (64, 16, 512)
    logits = jax.ShapeDtypeStruct(shape, jnp.float32)
    few = jax.ShapeDtypeStruct(shape[:-1], jnp.int32)
    weights = jax.ShapeDtypeStruct(shape[:-1], jnp.float32)

    def both(logits, targets, weights):
        sums = loss_sums(logits, targets, weights, z_loss=_Z)
        return sums.loss + sums.z_loss

    compiled = jax.jit(jax.grad(both)).lower(logits, few, weights).compile()
    size = 4 * np.prod(shape)
    assert compiled.memory_analysis().temp_size_in_bytes < size / 8
