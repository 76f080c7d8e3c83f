"""Sizes against the table of the paper's models; what no model can be."""

import pytest

from model.t5.config import ARCHITECTURES, SIZES, ModelConfig, model_config

# Counted from the released checkpoints and the reference's gin files, embedding of 32,128 rows.
COUNTS = {
    "small": 60_506_624,
    "base": 222_903_552,
    "large": 737_668_096,
    "3B": 2_851_598_336,
    "11B": 11_307_321_344,
    "2x": 502_746_112,
    "4x": 972_590_080,
    "v1.1-small": 76_961_152,
    "v1.1-base": 247_577_856,
    "v1.1-large": 783_150_080,
    "v1.1-xl": 2_849_757_184,
    "v1.1-xxl": 11_135_332_352,
}
# Paper, table 2: what "P" and "2P" come to for base.
ARCHITECTURE_COUNTS = {
    "encoder-decoder": 222_903_552,
    "shared-encoder-decoder": 137_949_312,
    "half-layer": 123_790_080,
    "language-model": 109_628_544,
    "prefix-language-model": 109_628_544,
}


@pytest.mark.parametrize(("size", "count"), COUNTS.items())
def test_parameters_of_each_size(size, count):
    assert SIZES[size].parameter_count() == count


def test_every_published_size_is_counted():
    assert set(SIZES) - {"tiny"} == set(COUNTS)
    assert set(ARCHITECTURES) == set(ARCHITECTURE_COUNTS)


@pytest.mark.parametrize(("architecture", "count"), ARCHITECTURE_COUNTS.items())
def test_parameters_of_each_architecture(architecture, count):
    assert model_config("base", architecture).parameter_count() == count


GOOD = {"d_model": 8, "d_ff": 16, "d_kv": 4, "num_heads": 2, "num_layers": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 0}, "d_model must be a positive integer, got 0"),
        ({"num_heads": 2.0}, "num_heads must be a positive integer, got 2.0"),
        ({"num_layers": True}, "num_layers must be a positive integer, got True"),
        ({"dropout_rate": 1.0}, "dropout_rate must be in"),
        ({"dropout_rate": float("nan")}, "dropout_rate must be in"),
        ({"dropout_rate": "0.1"}, r"dropout_rate must be in \[0, 1\), got '0.1'"),
        ({"norm_epsilon": 0.0}, r"norm_epsilon must be in \(0, 1\), got 0.0"),
        ({"norm_epsilon": float("inf")}, "norm_epsilon must be in"),
        ({"norm_epsilon": None}, "norm_epsilon must be in .* got None"),
        ({"tied_logits": "no"}, "tied_logits must be true or false, got 'no'"),
        ({"dropout_broadcast": 1}, "dropout_broadcast must be true or false, got 1"),
        ({"num_layers": 10**20}, r"num_layers must be below 2\*\*31, got 1e\+20"),
        ({"relative_buckets": 4.0}, "relative_buckets must be a positive integer, got 4.0"),
        ({"relative_max_distance": [1]}, "relative_max_distance must be a positive integer"),
        ({"relative_buckets": 6}, "relative_buckets must be a positive multiple of 4, got 6"),
        ({"relative_max_distance": 16}, "relative_max_distance must be beyond"),
        ({"architecture": "bert"}, "architecture must be one of encoder-decoder, "),
        ({"feed_forward": "gelu"}, "feed_forward must be one of relu, gated-gelu; got 'gelu'"),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16; got 'float16'"),
        ({"remat": "some"}, "remat must be one of"),
        ({"attention": "flash"}, "attention must be one of"),
        ({"adapter": 0}, "adapter must be a positive integer, got 0"),
        ({"architecture": "language-model", "num_decoder_layers": 2}, "language-model has none"),
        (
            {"architecture": "shared-encoder-decoder", "num_decoder_layers": 3},
            "one set of layers, got num_layers 2 and num_decoder_layers 3",
        ),
    ],
)
def test_a_model_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**GOOD | changes)


def test_a_name_nearly_right_is_named():
    with pytest.raises(ValueError, match="no architecture 'prefix-lm', perhaps 'prefix-lang"):
        model_config("small", "prefix-lm")


def test_changes_are_checked():
    with pytest.raises(ValueError, match="d_ff must be"):
        model_config("small", d_ff=-1)


def test_v1_1_pretrains_without_dropout():
    assert {name for name, size in SIZES.items() if size.dropout_rate == 0} == {
        name for name in SIZES if name.startswith("v1.1")
    }
