"""What is trained: masks against loops, frozen bytes, and one program for all episodes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.t5.config import model_config
from model.t5.network import T5
from model.training.optimizer import adafactor, apply_updates, constant
from model.training.train_step import Learner
from model.training.trainable import adapter_mask, gradual_unfreezing
from tests.model.training.made_batches import made_batch, tiny_config

pytestmark = pytest.mark.usefixtures("quick_xla")
_QUICK = {"xla_backend_optimization_level": 0}


def _flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _bits(array):
    return np.asarray(array).view(np.uint32)


def _trained_blocks(step, steps, episodes, layers):
    """Which blocks of a stack train at a step, by counting down episodes one step at a time."""
    blocks, left = 1, steps // episodes
    for _ in range(step):
        left -= 1
        if left == 0 and blocks < episodes:
            blocks, left = blocks + 1, steps // episodes
    return [layers - number <= blocks for number in range(layers)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": 3},
        {"num_layers": 2, "num_decoder_layers": 3},
        {"num_layers": 3, "architecture": "shared-encoder-decoder"},
        {"num_layers": 4, "architecture": "prefix-language-model", "tied_logits": False},
    ],
)
def test_unfreezing_trains_a_block_more_in_each_episode(changes):
    config = tiny_config(**changes)
    model, steps, first = T5(config), 14, 100
    episodes = max(config.num_layers, config.decoder_layers)
    mask = gradual_unfreezing(model, steps, first)
    shapes = _flat(model.param_shapes())
    for step in range(steps):
        found = _flat(mask(jnp.int32(first + step)))
        assert found.keys() == shapes.keys()
        for name, trained in found.items():
            stack, _, rest = name.partition("/")
            if stack in ("embedding", "logits") or rest == "final_norm":
                wanted = True
            else:
                layers = shapes[name].shape[0]
                if rest == "relative_bias":
                    layers = shapes[f"{stack}/layers/self_attention/norm"].shape[0]
                wanted = _trained_blocks(step, steps, episodes, layers)
                wanted = wanted[0] if rest == "relative_bias" else wanted
            np.testing.assert_array_equal(np.asarray(trained), wanted, err_msg=f"{step} {name}")


def test_the_papers_episodes():
    """Section 3.5.1: 2**18 steps are 12 episodes of 21,845; the 4 that remain are the last's."""
    mask = gradual_unfreezing(T5(model_config("base")), 2**18)
    at = [0, 21_844, 21_845, 11 * 21_845 - 1, 11 * 21_845, 2**18 - 1]
    counts = [
        int(mask(jnp.int32(step))["encoder"]["layers"]["feed_forward"]["wi"].sum()) for step in at
    ]
    assert counts == [1, 1, 2, 11, 12, 12]


@pytest.mark.parametrize(("norms", "trained"), [("own", 0), ("all", 1)])
def test_adapters_train_with_their_own_norms_or_all(norms, trained):
    model = T5(model_config("base", adapter=32))
    mask = _flat(adapter_mask(model, norms))
    sizes = {name: leaf.size for name, leaf in _flat(model.param_shapes()).items()}
    count = sum(sizes[name] for name, is_trained in mask.items() if is_trained)
    # 24 blocks: 2 x 768 x 32 and a norm each; then 12 x 2 + 12 x 3 norms and two final ones.
    assert count == 24 * (2 * 768 * 32 + 768) + trained * (12 * 2 + 12 * 3 + 2) * 768


def _two_steps(learner, batch):
    """Return states before, between and after two steps, and how often the step was compiled."""
    step = jax.jit(learner.step, compiler_options=_QUICK)
    state = jax.jit(learner.init, compiler_options=_QUICK)(jax.random.key(0))
    # Bytes that sums with 0 would not keep.
    for stack in {"encoder", "decoder"} & state.params.keys():
        attention = state.params[stack]["layers"]["self_attention"]
        attention["key"] = attention["key"].at[:, 0, 0].set(-0.0).at[:, 0, 1].set(1e-42)
    states = [state]
    for _ in range(2):
        state, metrics = step(state, batch)
        assert metrics.finite == 1
        states.append(state)
    return states, step._cache_size()


@pytest.mark.slow
def test_frozen_blocks_stay_byte_equal_and_keep_their_statistics():
    config = tiny_config("language-model", d_model=128, d_ff=128)  # wide enough to be factored
    model = T5(config)
    learner = Learner(model, constant(1e-2), trainable=gradual_unfreezing(model, 2))
    states, compilations = _two_steps(learner, made_batch(config, 4))
    assert compilations == 1, "both episodes are one program"
    for number, (before, after) in enumerate(itertools.pairwise(states)):
        mask = learner.trainable(jnp.int32(number))
        for part in ("params", "optimizer"):
            old, new = _flat(getattr(before, part)), _flat(getattr(after, part))
            for name, array in new.items():
                of_param = name if part == "params" else name.rpartition("/")[0]
                trained = np.asarray(_flat(mask)[of_param])
                was, now = _bits(old[name]), _bits(array)
                if not trained.ndim:
                    trained, was, now = trained[None], was[None], now[None]
                changed = (was != now).any(axis=tuple(range(1, was.ndim)))
                np.testing.assert_array_equal(changed, trained, f"{number} {part} {name}")


@pytest.mark.slow
def test_only_adapters_and_norms_change():
    config = tiny_config("language-model", adapter=8)
    model = T5(config)
    mask = adapter_mask(model, "all")
    learner = Learner(model, constant(1e-2), trainable=lambda _: mask)
    states, _ = _two_steps(learner, made_batch(config, 4))
    old, new, trained = (_flat(tree) for tree in (states[0].params, states[2].params, mask))
    for name in trained:
        assert np.array_equal(_bits(old[name]), _bits(new[name])) != trained[name], name


@pytest.mark.slow
def test_a_mask_of_all_is_as_without():
    axes = {"a": ("layers", "embed", "mlp"), "b": ("norm",)}
    random = np.random.default_rng(0)
    params, gradient = (
        {"a": random.normal(size=(3, 4, 5)).astype("f"), "b": random.normal(size=5).astype("f")}
        for _ in range(2)
    )
    optimizer = adafactor(constant(), axes)
    state, step = optimizer.init(params), jnp.int32(3)
    wanted = optimizer.update(gradient, state, params, step=step)
    mask = {"a": jnp.ones(3, bool), "b": jnp.ones((), bool)}
    found = optimizer.update(gradient, state, params, step=step, trainable=mask)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    jax.tree.map(
        np.testing.assert_array_equal,
        apply_updates(params, found[0], mask),
        apply_updates(params, wanted[0]),
    )


@pytest.mark.slow
def test_what_is_frozen_for_good_needs_no_gradient():
    config = tiny_config("language-model", adapter=8, num_layers=1, d_model=128, d_ff=256)
    model, batch = T5(config), made_batch(config, 16)
    mask = adapter_mask(model)

    def flops(trainable):
        learner = Learner(model, constant(), trainable=trainable)
        state = jax.eval_shape(learner.init, jax.random.key(0))
        compiled = jax.jit(learner.step).lower(state, batch).compile(_QUICK)
        return compiled.cost_analysis()["flops"]

    # Forwards and backwards without the gradients of kernels: two thirds, and less optimizer.
    assert flops(lambda _: mask) < 0.72 * flops(None)


def test_what_cannot_be_trained_is_refused():
    model = T5(tiny_config(num_layers=3))
    with pytest.raises(ValueError, match=r"3 blocks, got 2 \(--steps, --unfreeze\)"):
        gradual_unfreezing(model, 2)
    with pytest.raises(ValueError, match=r"no adapter layers.*--adapter"):
        adapter_mask(model)
    with pytest.raises(ValueError, match=r"no norms 'some'; known: own, all"):
        adapter_mask(T5(tiny_config(adapter=4)), "some")
