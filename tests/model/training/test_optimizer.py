"""Adafactor against a slow twin in float64, against optax, and stacked against written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.training.optimizer import (
    SCHEDULES,
    Moment,
    adafactor,
    constant,
    inverse_square_root,
    linear_tail,
    schedule,
    state_axes,
)

_SHAPES = {
    "large": (128, 160),  # factored
    "small": (127, 160),  # one side too short
    "norm": (200,),
    "bias": (4, 32),
}
_AXES = {
    "large": ("embed", "mlp"),
    "small": ("embed", "mlp"),
    "norm": ("norm",),
    "bias": ("relpos_heads", "buckets"),
}


def _arrays(seed, scale=1.0, shapes=_SHAPES):
    draw = np.random.default_rng(seed)
    return {
        name: (scale * draw.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()
    }


def _run(optimizer, params, gradients, step=0):
    state = optimizer.init(params)
    for number, gradient in enumerate(gradients, step):
        updates, state = optimizer.update(gradient, state, params, step=jnp.int32(number))
        params = optax.apply_updates(params, updates)
    return params, state


def _rms(values):
    return np.sqrt(np.mean(values**2))


def _twin(param, gradients, rate, first_step=0):
    """The paper's rule, element by element, float64, the mean never kept as factors' roots."""
    param = param.astype(np.float64)
    factored = param.ndim == 2 and min(param.shape) >= 128
    row = column = full = 0.0
    for step, gradient in enumerate(gradients, first_step):
        decay = 1 - (step + 1) ** -0.8
        squared = gradient.astype(np.float64) ** 2 + 1e-30
        if factored:
            row = decay * row + (1 - decay) * squared.mean(axis=1)
            column = decay * column + (1 - decay) * squared.mean(axis=0)
            mean = np.outer(row, column) / row.mean()
        else:
            full = decay * full + (1 - decay) * squared
            mean = full
        update = gradient / np.sqrt(mean)
        update = update / max(1.0, _rms(update))
        param = param - rate(step) * max(_rms(param), 1e-3) * update
    return param


@pytest.mark.slow
@pytest.mark.parametrize("first_step", [0, 1000])
def test_it_is_the_rule_of_the_paper(first_step):
    params = _arrays(0)
    params["norm"] *= 1e-5  # scaled by the least scale
    # One gradient far above its running mean, so that clipping matters; one tiny, one zero.
    gradients = [_arrays(1), _arrays(2, 1e-6), _arrays(3, 50.0), _arrays(4, 0.0)]
    ours, _ = _run(adafactor(inverse_square_root(1002), _AXES), params, gradients, step=first_step)
    for name, param in params.items():
        wanted = _twin(
            param,
            [gradient[name] for gradient in gradients],
            lambda step: 1 / np.sqrt(max(step, 1002)),
            first_step,
        )
        np.testing.assert_allclose(ours[name], wanted, rtol=2e-5, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_it_agrees_with_optax():
    """optax clips and scales in the same places; its decay counts from the same 0."""
    params, gradients = _arrays(0), [_arrays(seed, 10.0**seed) for seed in range(1, 5)]
    theirs = optax.adafactor(1e-2, min_dim_size_to_factor=128)
    state, wanted = theirs.init(params), params
    for gradient in gradients:
        updates, state = theirs.update(gradient, state, wanted)
        wanted = optax.apply_updates(wanted, updates)
    ours, _ = _run(adafactor(constant(1e-2), _AXES), params, gradients)
    for name in params:
        np.testing.assert_allclose(ours[name], wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_stacked_layers_are_updated_each_by_itself():
    stacked_axes = {name: ("layers", *axes) for name, axes in _AXES.items()}
    # Layers of very different sizes: a shared RMS or row mean would show.
    layers = [_arrays(seed, 10.0 ** (-3 * seed)) for seed in range(3)]
    gradients = [
        [_arrays(10 * step + layer, 10.0 ** (layer + step)) for layer in range(3)]
        for step in range(3)
    ]
    stacked, stacked_state = _run(
        adafactor(constant(1e-2), stacked_axes),
        jax.tree.map(lambda *arrays: np.stack(arrays), *layers),
        [jax.tree.map(lambda *arrays: np.stack(arrays), *step) for step in gradients],
    )
    for layer in range(3):
        alone, alone_state = _run(
            adafactor(constant(1e-2), _AXES), layers[layer], [step[layer] for step in gradients]
        )
        for mine, wanted in zip(
            jax.tree.leaves((stacked, stacked_state)),
            jax.tree.leaves((alone, alone_state)),
            strict=True,
        ):
            np.testing.assert_allclose(mine[layer], wanted, rtol=1e-6)


def test_state_is_as_small_as_it_should_be_and_its_axes_fit():
    shapes = {**_SHAPES, "stacked": (3, 128, 160), "norms": (3, 200)}
    axes = {**_AXES, "stacked": ("layers", "embed", "mlp"), "norms": ("layers", "norm")}
    params = _arrays(0, shapes=shapes)
    state = adafactor(constant(), axes).init(params)
    got = {
        name: tuple(None if part is None else part.shape for part in moment)
        for name, moment in state.items()
    }
    assert got == {
        "large": ((128,), (160,), None),
        "small": (None, None, (127, 160)),
        "norm": (None, None, (200,)),
        "bias": (None, None, (4, 32)),
        "stacked": ((3, 128), (3, 160), None),
        "norms": (None, None, (3, 200)),
    }
    assert state_axes(axes, params) == {
        "large": Moment(("embed",), ("mlp",), None),
        "small": Moment(None, None, ("embed", "mlp")),
        "norm": Moment(None, None, ("norm",)),
        "bias": Moment(None, None, ("relpos_heads", "buckets")),
        "stacked": Moment(("layers", "embed"), ("layers", "mlp"), None),
        "norms": Moment(None, None, ("layers", "norm")),
    }


def test_parameters_of_three_sides_are_refused():
    with pytest.raises(ValueError, match="vectors and matrices"):
        adafactor(constant(), {"x": ("embed", "heads", "kv")}).init({"x": np.zeros((2, 2, 2))})


@pytest.mark.parametrize(
    ("made", "step", "rate"),
    [
        (inverse_square_root(), 0, 0.01),
        (inverse_square_root(), 9_999, 0.01),
        (inverse_square_root(), 40_000, 0.005),
        (inverse_square_root(100, 2.0), 400, 0.1),
        (constant(), 123, 1e-3),
        (schedule("constant", 0.5), 9, 0.5),
        (schedule("inverse-square-root", None, 4), 1, 0.5),
    ],
)
def test_schedules(made, step, rate):
    assert float(made(jnp.int32(step))) == pytest.approx(rate)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", SCHEDULES)
def test_impossible_rates_are_refused(name, rate):
    with pytest.raises(ValueError, match="must be positive"):
        schedule(name, rate)


def test_impossible_warmup_is_refused():
    with pytest.raises(ValueError, match=r"--warmup"):
        inverse_square_root(0)


def test_a_tail_goes_down_to_zero_at_the_end():
    plain = inverse_square_root(4)
    tailed = linear_tail(plain, 8, 30)
    for step in range(40):
        share = min(1.0, max(0.0, (30 - step) / 8))
        expected = float(plain(jnp.int32(step))) * share
        assert float(tailed(jnp.int32(step))) == pytest.approx(expected)
    assert linear_tail(plain, 0, 30) is plain
    with pytest.raises(ValueError, match="--cooldown"):
        linear_tail(plain, -1, 30)


def test_an_offset_gives_the_rate_of_later_steps():
    plain = inverse_square_root(4)
    later = schedule("inverse-square-root", None, 4, offset=12)
    assert [float(later(jnp.int32(s))) for s in (0, 9)] == [
        float(plain(jnp.int32(s))) for s in (12, 21)
    ]
