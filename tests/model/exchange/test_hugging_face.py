"""Models in and out of Hugging Face's layout: nothing lost, nothing guessed."""

import json
import pathlib

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from model.data.vocabulary import Vocabulary
from model.exchange import hugging_face, tokenizer_files
from model.exchange.hugging_face import (
    ExchangeError,
    config_from_hf,
    config_to_hf,
    export_model,
    import_model,
    tensor_places,
)
from model.t5.config import SIZES, ModelConfig
from model.t5.network import T5
from testing.tiny_t5 import V1_0, V1_1, assert_same_bytes, random_params
from testing.vocabularies import train

GOLDEN = pathlib.Path(__file__).resolve().parents[3] / ".." / "shared" / "golden"
golden = pytest.mark.parametrize("name", ["t5_v1_0_tiny", "t5_v1_1_tiny"])
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs ../shared/golden")


@pytest.fixture
def exported(tmp_path):
    """A folder of each kind to damage, with the tensors in it."""

    def make(config=V1_0, **options):
        folder = tmp_path / "exported"
        export_model(folder, config, random_params(config), **options)
        return folder, load_file(folder / "model.safetensors")

    return make


def rewrite_config(folder, **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


# Names


@golden
@needs_golden
def test_the_table_names_exactly_what_a_published_file_holds(name):
    config = import_model(GOLDEN / name).config
    assert {place.name for place in tensor_places(config)} == set(
        load_file(GOLDEN / name / "model.safetensors")
    )


@pytest.mark.parametrize("size", SIZES)
def test_the_table_fills_each_parameter_of_each_size_once(size):
    config = SIZES[size]
    filled = {}
    for place in tensor_places(config):
        assert place.layer not in filled.setdefault(place.path, [])
        filled[place.path].append(place.layer)
    shapes = {
        tuple(key.key for key in keys): leaf.shape
        for keys, leaf in jax.tree.leaves_with_path(T5(config).param_shapes())
    }
    assert filled == {
        path: list(range(shape[0])) if "layers" in path else [None]
        for path, shape in shapes.items()
    }


# There and back


@golden
@needs_golden
def test_golden_models_come_back_byte_for_byte(name, tmp_path):
    first = import_model(GOLDEN / name)
    export_model(tmp_path / "out", first.config, first.params)
    again = import_model(tmp_path / "out")

    assert again.config == first.config
    assert_same_bytes(again.params, first.params)
    theirs, ours = (load_file(f / "model.safetensors") for f in (GOLDEN / name, tmp_path / "out"))
    assert theirs.keys() == ours.keys()
    assert all(theirs[key].tobytes() == ours[key].tobytes() for key in theirs)


@golden
@needs_golden
def test_golden_models_are_configured_as_their_files_say(name):
    config = import_model(GOLDEN / name).config
    assert config == ModelConfig(
        d_model=32, d_ff=64, d_kv=8, num_heads=4, num_layers=2, vocab_size=128,
        feed_forward="relu" if name == "t5_v1_0_tiny" else "gated-gelu",
        tied_logits=name == "t5_v1_0_tiny",
    )  # fmt: skip


@pytest.mark.parametrize("config", [V1_0, V1_1], ids=["v1.0", "v1.1"])
@pytest.mark.parametrize("limit", [5_000_000_000, 20_000])
def test_any_model_comes_back_byte_for_byte_in_one_file_or_several(config, limit, tmp_path):
    params = random_params(config)
    export_model(tmp_path / "out", config, params, max_file_bytes=limit)
    assert (tmp_path / "out" / "model.safetensors").exists() == (limit > 20_000)

    again = import_model(tmp_path / "out")

    assert again.config == config
    assert_same_bytes(again.params, params)


def test_arrays_of_jax_are_exported_too(tmp_path):
    params = random_params(V1_0)
    export_model(tmp_path / "out", V1_0, jax.tree.map(jax.numpy.asarray, params))
    assert_same_bytes(import_model(tmp_path / "out").params, params)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_halves_become_float32_exactly(exported, dtype):
    folder, tensors = exported()
    halves = {name: array.astype(dtype) for name, array in tensors.items()}
    save_file(halves, folder / "model.safetensors")

    params = import_model(folder).params

    expected = halves["encoder.block.1.layer.0.SelfAttention.k.weight"].astype(np.float32).T
    np.testing.assert_array_equal(params["encoder"]["layers"]["self_attention"]["key"][1], expected)
    assert params["embedding"].dtype == np.float32


def test_exporting_bfloat16_says_so_and_rounds(exported):
    folder, tensors = exported(dtype="bfloat16")
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    embedding = random_params(V1_0)["embedding"]
    assert tensors["shared.weight"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(tensors["shared.weight"], embedding.astype(ml_dtypes.bfloat16))


def test_the_vocabulary_goes_along_and_is_found_again(tmp_path):
    path = train(tmp_path / "vocab.model")
    export_model(tmp_path / "out", V1_0, random_params(V1_0), path)
    assert tokenizer_files.read_vocabulary(tmp_path / "out") == path.read_bytes()
    assert (tmp_path / "out" / "spiece.model").read_bytes() == path.read_bytes()
    assert {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"} < {
        file.name for file in (tmp_path / "out").iterdir()
    }


def test_the_generation_file_holds_the_ids_that_decoding_needs(exported):
    folder, _ = exported()
    assert json.loads((folder / "generation_config.json").read_text()) == {
        "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0
    }  # fmt: skip


# The embedding under several names


ALIASES = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]


def test_a_tied_embedding_may_be_repeated_under_each_of_its_names(exported):
    folder, tensors = exported()
    save_file(
        tensors | dict.fromkeys(ALIASES, tensors["shared.weight"]),
        folder / "model.safetensors",
    )
    assert_same_bytes(import_model(folder).params, random_params(V1_0))


@pytest.mark.parametrize("alias", ALIASES)
def test_a_tied_embedding_may_have_any_of_its_names_alone(exported, alias):
    folder, tensors = exported()
    tensors[alias] = tensors.pop("shared.weight")
    save_file(tensors, folder / "model.safetensors")
    assert_same_bytes(import_model(folder).params, random_params(V1_0))


@pytest.mark.parametrize(
    ("alias", "way_out"), [*((a, "") for a in ALIASES[:2]), (ALIASES[2], "tie_word_embeddings")]
)
def test_an_embedding_that_differs_from_itself_is_refused(exported, alias, way_out):
    folder, tensors = exported()
    other = tensors["shared.weight"].copy()
    other[-1, -1] += 1
    save_file(tensors | {alias: other}, folder / "model.safetensors")
    with pytest.raises(ExchangeError, match=rf"{alias} differs from shared\.weight.*{way_out}"):
        import_model(folder)


def test_untied_logits_are_their_own_and_the_embedding_may_be_repeated(exported):
    folder, tensors = exported(V1_1)
    repeated = dict.fromkeys(ALIASES[:2], tensors["shared.weight"])
    save_file(tensors | repeated, folder / "model.safetensors")
    assert_same_bytes(import_model(folder).params, random_params(V1_1))


def test_transformers_5_says_tied_of_all_and_means_it_of_few(exported):
    folder, tensors = exported(V1_1)
    rewrite_config(folder, tie_word_embeddings=True, scale_decoder_outputs=False)
    assert_same_bytes(import_model(folder).params, random_params(V1_1))

    # Logits equal to the embedding it leaves out; they are still not scaled.
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    model = import_model(folder)
    assert not model.config.tied_logits
    np.testing.assert_array_equal(model.params["logits"], model.params["embedding"].T)


def test_layers_that_no_file_could_hold_are_counted_and_not_named(exported):
    folder, _ = exported()
    rewrite_config(folder, num_layers=2**31 - 1)
    with pytest.raises(ExchangeError, match=r"says 2147483647 \+ \d+ layers, and its files hold"):
        import_model(folder)


def test_untied_logits_that_are_missing_are_no_guess(exported):
    folder, tensors = exported(V1_1)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ExchangeError, match=r"lack lm_head\.weight"):
        import_model(folder)


def test_the_bias_that_nobody_trained_is_passed_over(exported):
    folder, tensors = exported()
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    save_file(tensors | {name: np.ones((32, 3), np.float32)}, folder / "model.safetensors")
    assert_same_bytes(import_model(folder).params, random_params(V1_0))


# Refusals


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("shared.weight"), r"lack shared\.weight, which"),
        (
            lambda t: [t.pop(name) for name in list(t) if name.startswith("decoder.block.1")],
            r"lack decoder\.block\.1\.layer\.0\.SelfAttention\.k\.weight, .* and 10 more tensors",
        ),
        (
            lambda t: t.update({"adapter.weight": np.zeros(1, np.float32)}),
            r"hold adapter\.weight, which the model of config\.json has no place for",
        ),
        (
            lambda t: t.update({"shared.weight": t["shared.weight"][:-1]}),
            r"shared\.weight has the shape \[319, 16\], config\.json makes it \[320, 16\]",
        ),
        (
            lambda t: t.update({"shared.weight": t["shared.weight"].astype(np.int8)}),
            "holds tensors of type I8",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named_in_one_line(exported, damage, message):
    folder, tensors = exported()
    damage(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=message) as caught:
        import_model(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_that_hold_no_model_say_why(tmp_path, exported):
    with pytest.raises(ExchangeError, match="no such folder"):
        import_model(tmp_path / "none")
    with pytest.raises(ExchangeError, match=r"has no config\.json"):
        import_model(tmp_path)
    folder, _ = exported()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"neither model\.safetensors nor"):
        import_model(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ExchangeError, match=r"config\.json: damaged"):
        import_model(folder)


SMALL = {
    "vocab_size": 32128, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "feed_forward_proj": "relu"
}  # fmt: skip
OF_T5 = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, SIZES["small"]),
        (OF_T5, SIZES["small"]),
        ({"architectures": ["T5WithLMHeadModel"], "n_positions": 512}, SIZES["small"]),
        ({"tie_word_embeddings": True}, SIZES["small"]),
        ({"tie_word_embeddings": None}, SIZES["small"]),
        (
            {
                "d_model": 512, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8,
                "num_heads": 6, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
                "dropout_rate": 0.0,
            },
            SIZES["v1.1-small"],
        ),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, {"tied_logits": False}),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": True}, {}),
        (
            {"model_type": "mt5", "architectures": ["MT5ForConditionalGeneration"]},
            {
                "tied_logits": False, "vocab_size": 250112, "d_ff": 1024, "num_layers": 8,
                "num_heads": 6, "feed_forward": "gated-gelu",
            },
        ),
        ({"model_type": "mt5", **SMALL, "tie_word_embeddings": True}, {"tied_logits": True}),
        (
            {
                "model_type": "mt5", **SMALL, "tie_word_embeddings": True,
                "transformers_version": "5.2.0",
            },
            {"tied_logits": False},
        ),
        ({"hidden_size": 64, "num_hidden_layers": 2, "head_dim": 8}, {
            "d_model": 64, "num_layers": 2, "d_kv": 8
        }),
        ({"dense_act_fn": "relu", "is_gated_act": False}, {}),
        ({"dense_act_fn": "gelu_new", "is_gated_act": True}, {"feed_forward": "gated-gelu"}),
        (
            {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_pytorch_tanh"},
            {"feed_forward": "gated-gelu"},
        ),
        ({"feed_forward_proj": "gated-gelu_pytorch_tanh"}, {"feed_forward": "gated-gelu"}),
        ({"eos_token_id": 5}, {"eos_ids": (5,)}),
        ({"eos_token_id": [1, 7]}, {"eos_ids": (1, 7)}),
        ({"eos_token_id": None}, {"eos_ids": ()}),
        ({"decoder_start_token_id": 9}, {"start_id": 9}),
        ({"pad_token_id": 3, "decoder_start_token_id": 0}, {"pad_id": 3}),
        ({"pad_token_id": 3}, {"pad_id": 3, "start_id": 3}),
        ({"initializer_factor": 3, "n_positions": 4, "a_field_of_mine": {}}, {}),
        ({"num_decoder_layers": 3}, {"num_decoder_layers": 3}),
        ({"num_decoder_layers": None}, {}),
        ({"relative_attention_max_distance": 64}, {"relative_max_distance": 64}),
        ({"layer_norm_epsilon": 1e-5, "vocab_size": 99}, {"norm_epsilon": 1e-5, "vocab_size": 99}),
    ],
)  # fmt: skip
def test_configurations_are_read_raw_with_their_defaults(raw, expected):
    if isinstance(expected, dict):
        expected = SIZES["small"].replace(**expected)
    assert config_from_hf(raw) == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"model_type": "umt5"}, "model_type must be t5 or mt5, got 'umt5'"),
        ({"model_type": "bert"}, "got 'bert'"),
        ({"architectures": ["T5EncoderModel"]}, r"got \['T5EncoderModel'\]"),
        ({"architectures": "T5Model"}, "architectures must name"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder must be true"),
        ({"quantization_config": {"load_in_8bit": True}}, "quantised"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj must be one of .*'gated-silu'"),
        ({"d_model": 0}, "d_model must be a positive integer, got 0"),
        ({"d_model": "512"}, "d_model must be a positive integer, got '512'"),
        ({"dropout_rate": "0.1"}, "dropout_rate must be in"),
        ({"layer_norm_epsilon": float("inf")}, "norm_epsilon must be in .* got inf"),
        ({"relative_attention_num_buckets": "32"}, "must be a positive integer, got '32'"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false, got 'no'"),
        ({"model_type": ["t5"]}, r"got \['t5'\]"),
        ({"architectures": [["T5Model"]]}, "architectures must name"),
        ({"feed_forward_proj": {}}, "feed_forward_proj must be one of .*{}"),
        ({"relative_attention_num_buckets": 30}, "multiple of 4"),
        ({"dense_act_fn": "gelu"}, "dense_act_fn must be one of .*got 'gelu'"),
        ({"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"}, "got 'gelu' gated"),
        ({"feed_forward_proj": "relu", "is_gated_act": True}, "got 'relu' gated"),
        ({"dense_act_fn": 3}, "dense_act_fn must be one of .*got 3"),
        ({"is_gated_act": "yes"}, "is_gated_act must be true or false, got 'yes'"),
        ({"is_decoder": True}, "is_decoder must be false, got True"),
        ({"tie_encoder_decoder": True}, "tie_encoder_decoder must be false"),
        ({"pruned_heads": {"1": [0]}}, "pruned_heads must be null"),
        ({"auto_map": {"AutoModel": "mine.Model"}}, "auto_map must be null.*code of its own"),
        ({"hidden_size": 64, "d_model": 32}, "hidden_size is 64 and d_model is 32"),
        ({"eos_token_id": -1}, "eos_token_id must be ids from 0 to 32127, got -1"),
        ({"eos_token_id": [1, 40000]}, r"eos_token_id must be ids .*got \[1, 40000\]"),
        ({"eos_token_id": "1"}, "eos_token_id must be ids"),
        ({"decoder_start_token_id": [0]}, r"decoder_start_token_id must be an id .*got \[0\]"),
        ({"pad_token_id": None}, "pad_token_id must be an id from 0 to 32127, got None"),
        ({"pad_token_id": True}, "pad_token_id must be an id"),
    ],
)
def test_configurations_of_other_models_are_refused_by_field(raw, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config_from_hf(OF_T5 | raw)
    (tmp_path / "config.json").write_text(json.dumps(OF_T5 | raw))
    with pytest.raises(ExchangeError, match=rf"config\.json: .*{message}"):
        import_model(tmp_path)


@pytest.mark.parametrize("size", SIZES)
def test_configurations_come_back_from_ours(size):
    assert config_from_hf(config_to_hf(SIZES[size])) == SIZES[size]


def test_transformers_reads_our_configuration_as_the_same_model():
    transformers = pytest.importorskip("transformers", reason="the dev extra is not installed")
    for config in (V1_0, V1_1):
        theirs = transformers.T5Config.from_dict(config_to_hf(config))
        assert theirs.scale_decoder_outputs == config.tied_logits
        assert theirs.is_gated_act == (config.feed_forward == "gated-gelu")
        assert (
            theirs.dense_act_fn == {"relu": "relu", "gated-gelu": "gelu_new"}[config.feed_forward]
        )
        assert theirs.num_decoder_layers == config.decoder_layers
        assert (theirs.num_layers, theirs.d_kv) == (config.num_layers, config.d_kv)
        assert (theirs.decoder_start_token_id, theirs.pad_token_id) == (0, 0)


@pytest.mark.parametrize("eos", [(1,), (5,), (5, 7), ()])
def test_special_ids_come_back_from_both_files(eos, tmp_path):
    config = V1_0.replace(eos_ids=eos, start_id=3, pad_id=2)
    export_model(tmp_path / "out", config, random_params(config))
    assert import_model(tmp_path / "out").config == config
    for name in ("config.json", "generation_config.json"):
        content = json.loads((tmp_path / "out" / name).read_text())
        assert content["eos_token_id"] == {0: None, 1: eos[:1] and eos[0]}.get(len(eos), list(eos))
        assert (content["decoder_start_token_id"], content["pad_token_id"]) == (3, 2)


def test_the_ids_of_the_generation_file_come_first(exported):
    folder, _ = exported()
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [1, 9], "num_beams": 4, "do_sample": False}))
    rewrite_config(folder, eos_token_id=5, pad_token_id=4, decoder_start_token_id=6)
    model = import_model(folder)
    assert model.config == V1_0.replace(eos_ids=(1, 9), pad_id=4, start_id=6)
    assert model.unapplied == ("num_beams",)

    path.write_text(json.dumps({"decoder_start_token_id": 7}))
    with pytest.raises(ExchangeError, match="decoder_start_token_id is 6, and generation_config"):
        import_model(folder)


@pytest.mark.parametrize(
    "architecture", ["shared-encoder-decoder", "language-model", "prefix-language-model"]
)
def test_other_architectures_have_no_place_there(architecture, tmp_path):
    config = V1_0.replace(architecture=architecture)
    with pytest.raises(ExchangeError, match=f"a {architecture} cannot be exported: T5For"):
        export_model(tmp_path / "out", config, random_params(config))
    assert list(tmp_path.iterdir()) == []


def test_adapter_layers_have_no_place_there(tmp_path):
    config = V1_0.replace(adapter=4)
    with pytest.raises(ExchangeError, match=r"adapter layers \(adapter 4\) cannot be exported"):
        export_model(tmp_path / "out", config, random_params(config))
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_whole_or_not_there(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(hugging_face.safetensors_files, "write", full)
    with pytest.raises(OSError, match="no space"):
        export_model(tmp_path / "out", V1_0, random_params(V1_0))
    assert list(tmp_path.iterdir()) == []


def test_an_export_overwrites_nothing(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="exists already: give another folder"):
        export_model(tmp_path / "out", V1_0, random_params(V1_0))


def test_parameters_of_another_model_are_refused_by_name(tmp_path):
    params = random_params(V1_0)
    with pytest.raises(ExchangeError, match="lack encoder/layers/feed_forward/wi_0"):
        export_model(tmp_path / "out", V1_1.replace(num_decoder_layers=None), params)
    with pytest.raises(ExchangeError, match=r"embedding has the shape \[320, 16\], .* \[128, 16\]"):
        export_model(tmp_path / "out", V1_0.replace(vocab_size=128), params)
    params["encoder"]["layers"]["adapter"] = {"down": np.zeros((2, 16, 4), np.float32)}
    with pytest.raises(ExchangeError, match="hold encoder/layers/adapter/down, which"):
        export_model(tmp_path / "out", V1_0, params)


def test_a_vocabulary_larger_than_the_model_is_another_models(tmp_path):
    path = train(tmp_path / "vocab.model")
    config = V1_0.replace(vocab_size=Vocabulary(path).size - 1)
    with pytest.raises(ExchangeError, match="200 ids, the model has 199"):
        export_model(tmp_path / "out", config, random_params(config), path)
