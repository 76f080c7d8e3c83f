"""Both golden models, made and run by another library: see ../shared/golden/README.md."""

import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from model.t5.config import ModelConfig
from model.t5.network import T5
from model.t5.search import search
from model.t5.strategies import Beam, Greedy

_ROOT = pathlib.Path(__file__).resolve().parents[3]
# benchmarks/gpu.py reads them from elsewhere on a machine that has only the checkout.
_GOLDEN = pathlib.Path(os.environ.get("C4_GOLDEN") or _ROOT / ".." / "shared" / "golden")

pytestmark = pytest.mark.skipif(not _GOLDEN.is_dir(), reason="no ../shared/golden")


def read_params(tensors, config):
    def by_layer(name, layers):
        return np.stack([tensors[name.format(layer)].T for layer in range(layers)])

    def attention(stack, layers, number, name):
        block = f"{stack}.block.{{}}.layer.{number}"
        kernels = {"query": "q", "key": "k", "value": "v", "output": "o"}
        return {"norm": by_layer(f"{block}.layer_norm.weight", layers)} | {
            ours: by_layer(f"{block}.{name}.{theirs}.weight", layers)
            for ours, theirs in kernels.items()
        }

    def stack(name, layers, cross):
        block = f"{name}.block.{{}}.layer.{2 if cross else 1}"
        inward = ["wi"] if config.feed_forward == "relu" else ["wi_0", "wi_1"]
        parts = {
            "self_attention": attention(name, layers, 0, "SelfAttention"),
            "feed_forward": {"norm": by_layer(f"{block}.layer_norm.weight", layers)} | {
                kernel: by_layer(f"{block}.DenseReluDense.{kernel}.weight", layers)
                for kernel in [*inward, "wo"]
            },
        }  # fmt: skip
        if cross:
            parts["cross_attention"] = attention(name, layers, 1, "EncDecAttention")
        table = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        return {
            "layers": parts,
            "relative_bias": tensors[table].T,
            "final_norm": tensors[f"{name}.final_layer_norm.weight"],
        }

    params = {
        "embedding": tensors["shared.weight"],
        "encoder": stack("encoder", config.num_layers, cross=False),
        "decoder": stack("decoder", config.decoder_layers, cross=True),
    }
    if not config.tied_logits:
        params["logits"] = tensors["lm_head.weight"].T
    return jax.tree.map(jnp.asarray, params)


@pytest.fixture(scope="module", params=["t5_v1_0_tiny", "t5_v1_1_tiny"])
def golden(request):
    """Model, parameters, batch and the numbers expected."""
    folder = _GOLDEN / request.param
    raw = json.loads((folder / "config.json").read_text())
    names = ("d_model", "d_ff", "d_kv", "num_heads", "num_layers", "vocab_size")
    config = ModelConfig(
        **{name: raw[name] for name in names},
        feed_forward=raw["feed_forward_proj"],
        tied_logits=raw.get("tie_word_embeddings", True),
    )
    expected = np.load(folder / "expected.npz")
    targets = expected["target_ids"].astype(np.int32)
    batch = {
        "encoder_tokens": expected["input_ids"].astype(np.int32),
        "encoder_segments": expected["input_mask"].astype(np.int32),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_segments": np.ones_like(targets),
    }
    params = read_params(load_file(folder / "model.safetensors"), config)
    return T5(config), params, batch, expected


def decode(model, how, params, batch):
    return jax.jit(functools.partial(search, model, max_new_tokens=16, how=how))(params, batch)


def test_encoder_output(golden):
    model, params, batch, expected = golden
    found = jax.jit(model.encode)(params, batch["encoder_tokens"], batch["encoder_segments"])
    real = batch["encoder_segments"] > 0
    assert 0 < real.mean() < 1, "the golden inputs hold padding"
    np.testing.assert_allclose(found[real], expected["encoder_output"][real], rtol=0, atol=1e-4)


def test_logits_and_loss(golden):
    model, params, batch, expected = golden
    found = jax.jit(model.logits)(params, batch)
    targets = expected["target_ids"]
    real = targets != 0
    np.testing.assert_allclose(found[real], expected["logits"][real], rtol=0, atol=1e-4)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(found), targets[..., None], axis=-1)[..., 0]
    loss = -float(chosen[real].mean())
    assert loss == pytest.approx(float(expected["mean_token_loss"]), abs=1e-5)


def test_greedy_decoding(golden):
    model, params, batch, expected = golden
    theirs = expected["greedy"][:, 1:]  # without the start token
    found = decode(model, Greedy(), params, batch)
    np.testing.assert_array_equal(found[:, : theirs.shape[1]], theirs)
    assert not np.asarray(found)[:, theirs.shape[1] :].any()


def test_beams_after_re_scoring(golden):
    model, params, batch, expected = golden
    theirs = expected["beam4_alpha06"][:, 1:].astype(np.int32)
    found = np.asarray(decode(model, Beam(4), params, batch))
    targets = {
        "decoder_input_tokens": np.pad(found, ((0, 0), (1, 0)))[:, :-1],
        "decoder_segments": np.ones_like(found),
    }
    each = jax.nn.log_softmax(jax.jit(model.logits)(params, batch | targets))
    totals = jnp.take_along_axis(each, found[..., None], axis=-1)[..., 0].sum(axis=1)
    # Nothing finishes: theirs still has a penalty, of its own kind, and ours has none.
    assert not (theirs == 1).any()
    np.testing.assert_allclose(totals / 16**0.6, expected["beam4_scores"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found, theirs)
