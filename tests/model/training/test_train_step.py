"""The step: microbatches add up, dropout follows the seed and the step, and it learns by heart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.t5.network import T5
from model.training.optimizer import constant
from model.training.train_config import StepConfig
from model.training.train_step import Learner, make_eval_step
from tests.model.training.made_batches import made_batch, tiny_config

# Compiled once a module and without LLVM's passes, which cost more than these steps take.
_QUICK = {"xla_backend_optimization_level": 0}


@functools.cache
def _state(config):
    return jax.jit(Learner(T5(config), _RATE).init, compiler_options=_QUICK)(jax.random.key(0))


@functools.cache
def _step(config, rate=None, **options):
    step = Learner(T5(config), rate or _RATE, StepConfig(**options)).step
    return _state(config.replace(dropout_rate=0.0)), jax.jit(step, compiler_options=_QUICK)


_RATE = constant(1e-2)
_QUIET = tiny_config(dropout_rate=0.0, num_layers=1)
_LOUD = tiny_config(dropout_rate=0.5, num_layers=1)


def _close(got, wanted, **tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.slow
def test_microbatches_are_the_whole_batch():
    batch = made_batch(_QUIET, 8)
    # Of this divisor a microbatch alone knows only its own part.
    state, whole = _step(_QUIET, loss_divisor="tokens")
    wanted_state, wanted = whole(state, batch)
    got_state, got = _step(_QUIET, loss_divisor="tokens", accumulate=4)[1](state, batch)
    assert got.sums.tokens == wanted.sums.tokens < batch["loss_weights"].size
    _close(got, wanted, rtol=1e-5)
    # Adafactor divides by the gradient's own size, so where a gradient is next to nothing, noise
    # in its last digits is all there is to see: compare with the step's size.
    _close(got_state, wanted_state, atol=2e-4)


@pytest.mark.slow
def test_metrics_are_what_they_say():
    batch = made_batch(_QUIET, 8)
    state, step = _step(_QUIET)
    new, metrics = step(state, batch)
    logits = T5(_QUIET).logits(state.params, batch)
    picked = jnp.take_along_axis(
        jax.nn.log_softmax(logits), jnp.asarray(batch["decoder_target_tokens"])[..., None], -1
    )[..., 0]
    weights = batch["loss_weights"]
    np.testing.assert_allclose(metrics.sums.loss, -np.sum(picked * weights), rtol=1e-5)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    np.testing.assert_allclose(metrics.sums.z_loss, 1e-4 * np.sum(weights * log_z**2), rtol=1e-5)
    assert metrics.tokens == np.sum(batch["encoder_segments"]) + np.sum(weights)
    assert float(metrics.learning_rate) == pytest.approx(0.01)
    assert metrics.finite == 1
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(new.params)))
    np.testing.assert_allclose(metrics.param_norm, norm, rtol=1e-5)
    assert new.step == 1
    evaluate = jax.jit(make_eval_step(T5(_LOUD)), compiler_options=_QUICK)
    evaluated = evaluate(state.params, batch)
    assert evaluated.z_loss == 0
    np.testing.assert_allclose(evaluated.loss, metrics.sums.loss, rtol=1e-5)  # without dropout


@pytest.mark.slow
def test_the_divisor_scales_the_gradient():
    batch = made_batch(_QUIET, 8)
    norms = {}
    for options in ({}, {"loss_divisor": "tokens"}):
        state, step = _step(_QUIET, **options)
        norms[options.get("loss_divisor", "batch-length")] = step(state, batch)[1].gradient_norm
    weights = batch["loss_weights"]
    ratio = weights.size / weights.sum()
    assert norms["tokens"] / norms["batch-length"] == pytest.approx(ratio, rel=1e-4)


@pytest.mark.slow
def test_dropout_follows_seed_step_and_microbatch():
    row = made_batch(_LOUD, 1)
    batch = {name: np.repeat(array, 2, axis=0) for name, array in row.items()}
    state, step = _step(_LOUD, accumulate=2)
    first = step(state, batch)[1].sums.loss
    assert step(state, batch)[1].sums.loss == first
    assert step(state._replace(step=jnp.int32(1)), batch)[1].sums.loss != first
    assert _step(_LOUD, accumulate=2, seed=1)[1](state, batch)[1].sums.loss != first
    # The same row in both microbatches: only their masks tell them apart.
    parts = [
        float(step(state, {**batch, "loss_weights": batch["loss_weights"] * which})[1].sums.loss)
        for which in (np.float32([[1], [0]]), np.float32([[0], [1]]))
    ]
    assert parts[0] != parts[1]
    assert sum(parts) == pytest.approx(float(first), rel=1e-5)


@pytest.mark.slow
def test_finite_tells_of_every_kind_of_trouble():
    batch = made_batch(_QUIET, 8)
    state, step = _step(_QUIET)
    assert step(state, batch)[1].finite == 1
    broken = {**state.params, "embedding": state.params["embedding"].at[5, 0].set(jnp.nan)}
    assert step(state._replace(params=broken), batch)[1].finite == 0
    statistics = jax.tree.map(lambda array: array * jnp.nan, state.optimizer)
    later = state._replace(optimizer=statistics, step=jnp.int32(1))
    assert step(later, batch)[1].finite == 0  # losses and gradient are fine, parameters not


@pytest.mark.slow
def test_two_layers_learn_64_sequences_by_heart():
    config = tiny_config(dropout_rate=0.0, d_model=64, d_kv=16, d_ff=128)
    batch = made_batch(config, 64)
    state, step = _step(config, constant(2e-2))
    for _ in range(400):
        state, metrics = step(state, batch)
        loss = float(metrics.sums.loss / metrics.sums.tokens)
        if loss < 0.05:
            break
    assert loss < 0.05
    assert metrics.sums.correct / metrics.sums.tokens > 0.98


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "--accumulate"),
        ({"z_loss": -1.0}, "--z-loss"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"loss_divisor": "mean"}, "known: batch-length, tokens, sum"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StepConfig(**options)
