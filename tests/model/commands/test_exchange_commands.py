"""``c4 import-hf`` and ``c4 export-hf``, from the command line to the folders they leave."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from model.data.vocabulary import Vocabulary
from model.exchange.hugging_face import export_model, import_model
from model.t5.config import model_config
from model.training.model_folders import load_params, save_params
from testing.helpers import run_c4
from testing.tiny_t5 import V1_0, V1_1, assert_same_bytes, random_params
from testing.vocabularies import train


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model in their layout with a vocabulary, and what importing it gives."""
    folder = tmp_path_factory.mktemp("exchange")
    vocabulary = train(folder / "vocab.model")
    export_model(folder / "theirs", V1_1, random_params(V1_1), vocabulary)
    return folder, run_c4("import-hf", folder / "theirs", "--output", folder / "ours")


@pytest.mark.slow
def test_importing_says_what_it_got_and_keeps_all_of_it(folders):
    folder, outcome = folders
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == (
        f"{folder}/ours: {V1_1.parameter_count():,} parameters, 2 + 3 layers of d_model 16, "
        "gated-gelu, logits of their own\n"
    )
    config, params, vocabulary = load_params(folder / "ours")
    assert config == V1_1
    assert_same_bytes(params, random_params(V1_1))
    assert vocabulary.read_bytes() == (folder / "vocab.model").read_bytes()


@pytest.mark.slow
def test_exporting_what_was_imported_gives_the_same_tensors_and_tokenizer(folders, tmp_path):
    folder, _ = folders
    outcome = run_c4("export-hf", folder / "ours", "--output", tmp_path / "out")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith(f"{tmp_path}/out: ")
    names = {path.name for path in (folder / "theirs").iterdir()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (folder / "theirs" / name).read_bytes()


@pytest.mark.slow
def test_both_write_to_a_store_the_file_that_makes_it_whole_last(folders, cloud):
    folder, _ = folders
    ours, theirs, puts = "gs://bucket/ours", "gs://bucket/theirs", []
    cloud.fail = lambda method, what: puts.append(what) if method == "PUT" else None
    assert run_c4("import-hf", folder / "theirs", "--output", ours).status == 0
    assert "/bucket/ours/model.json" in puts[-1]
    assert_same_bytes(load_params(ours).params, random_params(V1_1))
    outcome = run_c4("export-hf", ours, "--output", theirs)
    assert (outcome.status, outcome.err) == (0, "")
    assert "/bucket/theirs/config.json" in puts[-1]
    for path in (folder / "theirs").iterdir():
        assert cloud.objects[f"{theirs}/{path.name}"] == path.read_bytes()
    again = run_c4("export-hf", ours, "--output", theirs)
    assert again.status == 1
    assert f"{theirs} exists already: give another folder" in again.err


def test_exporting_in_half_the_bytes(folders, tmp_path):
    folder, _ = folders
    outcome = run_c4("export-hf", folder / "ours", "--output", tmp_path / "o", "--dtype=bfloat16")
    assert (outcome.status, outcome.err) == (0, "")
    tensors = load_file(tmp_path / "o" / "model.safetensors")
    assert {str(array.dtype) for array in tensors.values()} == {"bfloat16"}
    np.testing.assert_array_equal(
        import_model(tmp_path / "o").params["decoder"]["final_norm"],
        tensors["decoder.final_layer_norm.weight"].astype(np.float32),
    )


def test_a_vocabulary_may_be_given_where_there_is_none(tmp_path):
    export_model(tmp_path / "theirs", V1_0, random_params(V1_0))
    without = run_c4("import-hf", tmp_path / "theirs", "--output", tmp_path / "a")
    assert "neither spiece.model nor tokenizer.json" in without.out
    assert load_params(tmp_path / "a").vocabulary is None

    path = train(tmp_path / "vocab.model")
    given = run_c4("import-hf", tmp_path / "theirs", "--output", tmp_path / "b", "--vocab", path)
    assert given.status == 0
    assert load_params(tmp_path / "b").vocabulary.read_bytes() == path.read_bytes()

    silent = run_c4("export-hf", tmp_path / "a", "--output", tmp_path / "c")
    assert "no tokenizer (--vocab FILE)" in silent.out
    assert not (tmp_path / "c" / "spiece.model").exists()
    told = run_c4("export-hf", tmp_path / "a", "--output", tmp_path / "d", "--vocab", path)
    assert told.status == 0
    assert (tmp_path / "d" / "spiece.model").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import-hf", "{}/none", "--output", "{}/x"), "none: no such folder"),
        (("import-hf", "{}", "--output", "{}/x"), "has no config.json"),
        (("import-hf", "{}/theirs", "--output", "{}/ours"), "ours exists already"),
        (("import-hf", "{}/theirs", "--output", "{}/x", "--vocab", "{}/none"), "No such file"),
        (
            ("import-hf", "{}/theirs", "--output", "{}/x", "--vocab", "{}/theirs/config.json"),
            "not a SentencePiece model",
        ),
        (("export-hf", "{}/none", "--output", "{}/x"), "none: no such folder"),
        (("export-hf", "{}", "--output", "{}/x"), "model.json is missing"),
        (("export-hf", "{}/ours", "--output", "{}/theirs"), "theirs exists already"),
        (
            ("export-hf", "{}/ours", "--output", "{}/x", "--vocab", "{}/theirs/config.json"),
            "not a SentencePiece model",
        ),
    ],
)
def test_wrong_input_is_told_in_one_line(folders, arguments, message):
    folder, _ = folders
    before = sorted(folder.rglob("*"))
    outcome = run_c4(*(argument.replace("{}", str(folder)) for argument in arguments))
    assert outcome.status == 1
    assert outcome.err.startswith("c4: error: ")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert sorted(folder.rglob("*")) == before


def test_a_vocabulary_of_another_model_is_refused(tmp_path):
    config = V1_0.replace(vocab_size=128)
    export_model(tmp_path / "theirs", config, random_params(config))
    path = train(tmp_path / "vocab.model")
    outcome = run_c4("import-hf", tmp_path / "theirs", "--output", tmp_path / "x", "--vocab", path)
    assert outcome.status == 1
    assert "200 ids, the model has 128: it is another model's" in outcome.err


def test_another_vocabulary_than_the_models_own_is_refused(folders, tmp_path):
    folder, _ = folders
    other, same = train(tmp_path / "other.model", vocab_size=90), folder / "vocab.model"
    for command in (
        ["import-hf", folder / "theirs", "--output", tmp_path / "x"],
        ["export-hf", folder / "ours", "--output", tmp_path / "x"],
    ):
        outcome = run_c4(*command, "--vocab", other)
        assert outcome.status == 1
        assert outcome.err.count("\n") == 1
        assert "differs from the vocabulary of" in outcome.err
        assert not (tmp_path / "x").exists()
    assert run_c4(*command, "--vocab", same).status == 0


@pytest.mark.parametrize("count", [0, 300])
def test_sentinels_of_another_number_go_in_and_out(tmp_path, count):
    config = V1_0.replace(vocab_size=512)
    export_model(tmp_path / "theirs", config, random_params(config), train(tmp_path / "v"))
    for name in ("tokenizer.json", "special_tokens_map.json"):
        (tmp_path / "theirs" / name).unlink()
    (tmp_path / "theirs" / "tokenizer_config.json").write_text(json.dumps({"extra_ids": count}))
    outcome = run_c4("import-hf", tmp_path / "theirs", "--output", tmp_path / "ours")
    assert (outcome.status, outcome.err) == (0, "")
    kept = Vocabulary(load_params(tmp_path / "ours").vocabulary)
    assert (kept.pieces, kept.extra_ids) == (100, count)
    assert run_c4("export-hf", tmp_path / "ours", "--output", tmp_path / "out").status == 0
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written["extra_ids"] == count
    assert (tmp_path / "out" / "spiece.model").read_bytes() == (tmp_path / "v").read_bytes()


def test_a_folder_with_a_tokenizer_of_another_kind_says_what_follows(tmp_path):
    export_model(tmp_path / "theirs", V1_0, random_params(V1_0))
    train(tmp_path / "theirs" / "spiece.model", byte_fallback=True, vocab_size=320)
    (tmp_path / "theirs" / "tokenizer_config.json").write_text('{"extra_ids": 0}')
    imported = run_c4("import-hf", tmp_path / "theirs", "--output", tmp_path / "ours")
    assert "note: c4 pretrain refuses this vocabulary: byte_fallback is on" in imported.out
    exported = run_c4("export-hf", tmp_path / "ours", "--output", tmp_path / "out")
    assert "no tokenizer is written: byte_fallback is on" in exported.out
    assert not (tmp_path / "out" / "tokenizer.json").exists()


def test_decoding_that_is_not_applied_is_named(tmp_path):
    export_model(tmp_path / "theirs", V1_0, random_params(V1_0))
    (tmp_path / "theirs" / "generation_config.json").write_text('{"num_beams": 4}')
    outcome = run_c4("import-hf", tmp_path / "theirs", "--output", tmp_path / "ours")
    assert "generation_config.json sets num_beams, which greedy decoding" in outcome.out


def test_architectures_without_a_place_there_are_refused(tmp_path):
    config = model_config("tiny", "prefix-language-model", vocab_size=128, d_model=16)
    save_params(tmp_path / "ours", config, random_params(config))
    outcome = run_c4("export-hf", tmp_path / "ours", "--output", tmp_path / "x")
    assert outcome.status == 1
    assert "a prefix-language-model cannot be exported" in outcome.err
    assert not (tmp_path / "x").exists()


def test_what_is_written_is_json_that_people_can_read(folders):
    folder, _ = folders
    text = (folder / "theirs" / "config.json").read_text()
    assert json.loads(text)["vocab_size"] == 320
    assert '\n  "d_model": 16,\n' in text
