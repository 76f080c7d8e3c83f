"""Operations by arithmetic against XLA's own count of the compiled forward pass."""

import jax
import jax.numpy as jnp
import pytest

from model.t5.config import ModelConfig
from model.t5.flops import forward_flops, step_flops
from model.t5.network import T5

# Wide enough that norms and softmax are small change; one layer, since XLA counts the body of a
# loop once.
_WIDE = ModelConfig(d_model=256, d_ff=640, d_kv=64, num_heads=3, num_layers=1, vocab_size=512)
_SIZES = 3, 40, 96


@pytest.mark.parametrize("architecture", ["encoder-decoder", "language-model"])
@pytest.mark.parametrize("changes", [
    {"feed_forward": "relu"}, {"feed_forward": "gated-gelu"}, {"adapter": 192},
])  # fmt: skip
def test_products_are_those_that_xla_counts(architecture, changes):
    config = _WIDE.replace(architecture=architecture, tied_logits=False, **changes)
    model = T5(config)
    rows, length, inputs = _SIZES
    lengths = {
        "encoder_tokens": inputs, "encoder_segments": inputs, "decoder_input_tokens": length,
        "decoder_segments": length,
    }  # fmt: skip
    batch = {name: jax.ShapeDtypeStruct((rows, n), jnp.int32) for name, n in lengths.items()}
    cost = jax.jit(model.logits).lower(model.param_shapes(), batch).cost_analysis()
    counted = sum(forward_flops(config, *_SIZES).values())
    assert counted == pytest.approx(cost["flops"], rel=0.03)
    assert counted < cost["flops"], "norms and softmax are not in ours"


def test_parts_grow_as_they_should():
    one = forward_flops(_WIDE, *_SIZES)
    assert set(one) == {"encoder", "decoder", "logits"}
    deeper = forward_flops(_WIDE.replace(num_layers=5, num_decoder_layers=2), *_SIZES)
    assert deeper["encoder"] == 5 * one["encoder"]
    assert deeper["decoder"] == 2 * one["decoder"]
    assert deeper["logits"] == one["logits"] == 2 * 3 * 40 * 256 * 512
    shared = _WIDE.replace(architecture="shared-encoder-decoder")
    assert forward_flops(shared, *_SIZES) == one
    assert step_flops(_WIDE, *_SIZES) == 3 * sum(one.values())
    assert "encoder" not in forward_flops(_WIDE.replace(architecture="language-model"), *_SIZES)
