"""Texts in, texts out: order, lengths, batches, architectures, devices and processes."""

import functools
import json

import jax
import numpy as np
import pytest

from model.data.vocabulary import Vocabulary
from model.evaluation.predictor import Predictor
from model.t5.config import model_config
from model.t5.network import T5
from model.t5.search import search
from model.t5.strategies import Beam, Greedy, Sample
from testing import vocabularies
from tests.model.evaluation import two_predictors

TEXTS = [
    "The baker opens her shop.",
    "",
    "Prices rose by 12%",
    "a narrow path",
    "Nobody in the village",
    "opens",
    "Un chemin étroit",
]

SHORT = ["opens", "", "a path", "un chemin", "shop"]  # all of one bucket


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return Vocabulary(vocabularies.train(tmp_path_factory.mktemp("v") / "v.model"), extra_ids=10)


def tiny(architecture="encoder-decoder", **changes):
    config = model_config("tiny", architecture, vocab_size=128, d_model=16, d_ff=24, d_kv=4)
    return config.replace(num_layers=1, eos_ids=(1, 7, 9, 30), **changes)


@functools.cache
def params_of(config, seed=0):
    random = np.random.default_rng(seed)
    shapes = T5(config).param_shapes()
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)


def alone(config, vocabulary, text, how, length, number):
    """One text by the plain search, in an array of just its length."""
    ids = [*vocabulary.encode(text), 1]
    if config.has_encoder:
        inputs = {"encoder_tokens": [ids]}
        inputs["encoder_segments"] = [[1] * len(ids)]
    else:
        inputs = {"decoder_input_tokens": [[0, *ids]], "decoder_segments": [[1] * (len(ids) + 1)]}
    inputs = {name: np.array(value, np.int32) for name, value in inputs.items()}
    inputs["numbers"] = np.array([number])
    run = jax.jit(functools.partial(search, T5(config), max_new_tokens=length, how=how))
    row = np.asarray(run(params_of(config), inputs))[0].tolist()
    end = next((place for place, each in enumerate(row) if each in config.eos_ids), len(row))
    return vocabulary.decode(row[:end])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "how"),
    [
        ("encoder-decoder", Greedy()),
        ("encoder-decoder", Beam(2)),
        ("language-model", Sample(seed=3)),
        ("prefix-language-model", Greedy()),
    ],
)
def test_predictions_are_those_of_each_text_alone_and_in_order(vocabulary, architecture, how):
    config = tiny(architecture)
    predictor = Predictor(
        config, vocabulary, how=how, batch_size=3, input_length=512, max_new_tokens=6
    )
    found = predictor(params_of(config), TEXTS)
    assert len(found) == len(TEXTS)
    assert len(set(found)) > 2, "outputs that are all the same prove no order"
    assert found[4] == alone(config, vocabulary, TEXTS[4], how, 6, 4)
    assert predictor.truncated == 0
    # In parts, and so in other batches.
    assert predictor(params_of(config), TEXTS[5:], first=5) == found[5:]


@pytest.mark.slow
def test_long_inputs_are_cut_and_counted_and_buckets_are_compiled_once(vocabulary):
    config = tiny()
    predictor = Predictor(config, vocabulary, batch_size=2, input_length=20, max_new_tokens=4)
    long = "abcdefgh " * 30
    ids = vocabulary.encode(long)
    kept = vocabulary.decode(ids[:19])
    assert vocabulary.encode(kept) == ids[:19]
    found = predictor(params_of(config), [long, kept, "a"])
    assert found[0] == found[1]
    assert predictor.truncated == 1
    predictor(params_of(config), ["b", long, "c", "d e", "e"])
    assert predictor.truncated == 2
    assert predictor._search._cache_size() == 2  # of 16 and of 20 tokens
    assert predictor(params_of(config), []) == []


def test_memory_that_runs_out_is_one_line(vocabulary, monkeypatch):
    config = tiny()
    predictor = Predictor(config, vocabulary, batch_size=2, input_length=20, max_new_tokens=4)

    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(predictor, "_search", exhausted)
    with pytest.raises(ValueError, match=r"^out of memory: .* 9 bytes; a smaller --batch-size, "):
        predictor(params_of(config), ["a"])
    monkeypatch.setattr(predictor, "_placed", exhausted)
    with pytest.raises(ValueError, match=r"^out of memory: .* 9 bytes; use a device with more"):
        predictor.placed(params_of(config))


@pytest.mark.slow
def test_sentinels_are_parsed_where_asked_for(vocabulary):
    config = tiny()
    plain, parsing = (
        Predictor(config, vocabulary, batch_size=1, max_new_tokens=2, parse_sentinels=parse)
        for parse in (False, True)
    )
    text = "A <extra_id_0> path"
    assert plain._ids([text])[0] == [*vocabulary.encode(text), 1]
    assert vocabulary.sentinel(0) in parsing._ids([text])[0]


def test_beams_are_cut_by_the_length_of_the_bucket(vocabulary, monkeypatch):
    asked = []

    def record(self, params, batch, max_new_tokens):
        asked.append((batch["encoder_tokens"].shape, max_new_tokens))
        return batch["numbers"], np.ones((len(batch["numbers"]), 1), np.int32)

    monkeypatch.setattr(Predictor, "_jitted", lambda self: functools.partial(record, self))
    for how, longest, expected in (
        (Beam(4), None, [34, 128]),
        (Beam(4), 20, [20, 20]),
        (Greedy(), None, [128, 128]),
    ):
        asked.clear()
        predictor = Predictor(tiny(), vocabulary, how=how, batch_size=2, max_new_tokens=longest)
        assert predictor({}, ["opens", "opens " * 60]) == ["", ""]
        assert [steps for _, steps in asked] == expected
        assert [shape for shape, _ in asked] == [(2, 16), (2, 256)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be positive, got 0 \(--batch-size\)"),
        ({"input_length": 1}, r"input_length must be at least 2, got 1 \(--input-length\)"),
        ({"max_new_tokens": 0}, r"max_new_tokens must be positive, got 0 \(--max-new-tokens\)"),
    ],
)
def test_settings_out_of_range(vocabulary, changes, message):
    with pytest.raises(ValueError, match=message):
        Predictor(tiny(), vocabulary, **changes)


def test_a_vocabulary_too_large_for_the_model_is_refused(vocabulary):
    with pytest.raises(ValueError, match="has 110 ids, and the model knows 64"):
        Predictor(tiny().replace(vocab_size=64), vocabulary)


@pytest.mark.slow
def test_predictions_on_a_mesh_are_those_of_one_device(vocabulary):
    config = two_predictors.config()
    settings = {"how": Beam(2), "batch_size": 4, "max_new_tokens": 5}
    alone = Predictor(config, vocabulary, **settings)
    spread = Predictor(
        config, vocabulary, **settings, placement=two_predictors.placement(config, fsdp=2, data=2)
    )
    params = params_of(config)
    found = spread(params, SHORT)
    assert found == alone(params, SHORT)
    assert len(set(found)) > 2
    with pytest.raises(ValueError, match="6 sequences does not divide over 4 devices"):
        Predictor(config, vocabulary, batch_size=6, placement=spread._placement)


@pytest.mark.slow
def test_two_processes_predict_as_one(vocabulary, tmp_path):
    config = two_predictors.config()
    alone = Predictor(config, vocabulary, batch_size=4, max_new_tokens=5)
    expected = alone(two_predictors.params(config), SHORT)
    (tmp_path / "texts.json").write_text(json.dumps(SHORT))
    found = two_predictors.run(tmp_path, vocabulary.path)
    assert found == [expected, expected]
