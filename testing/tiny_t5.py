"""Two tiny models with random parameters."""

import jax
import numpy as np

from model.t5.config import model_config
from model.t5.network import T5

V1_0 = model_config("tiny", vocab_size=320, d_model=16, d_ff=24, d_kv=4, num_heads=3)


V1_1 = V1_0.replace(feed_forward="gated-gelu", tied_logits=False, num_decoder_layers=3)


def random_params(config):
    rng = np.random.default_rng(0)
    shapes = T5(config).param_shapes()
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def assert_same_bytes(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, first), second in zip(
        jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        assert first.dtype == second.dtype == np.float32
        assert first.shape == second.shape, path
        assert first.tobytes() == second.tobytes(), path
