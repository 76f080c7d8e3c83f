"""Bits per byte on held-out text."""

import json
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.vocabulary import Vocabulary
from model.studies.held_out import (
    WINDOW_BYTES,
    main,
    measure,
    read_texts,
    windows,
    write_texts,
)
from model.t5.config import model_config
from model.t5.network import T5
from model.training.model_folders import save_params
from testing import languages
from testing.vocabularies import train

TEXTS = languages.pages("en", 30, seed=5)


@given(st.text(max_size=3000))
def test_windows_hold_the_words_of_a_page_in_order(text):
    found = list(windows(text))
    joined = iter("".join(text.split()))
    assert all(letter in joined for w in found for run in w.runs for letter in run if letter != " ")
    for window in found:
        size = sum(len(run.encode()) + 1 for run in window.runs)
        assert window.bytes(True) == size <= WINDOW_BYTES + 4 * 25
        assert 0 < window.bytes(False) < size
        assert len(window.runs) >= 2
    assert list(windows(text)) == found


def test_about_a_sixth_of_the_words_are_masked_whatever_comes_before():
    found = [window for text in TEXTS for window in windows(text)]
    words = [len(run.split()) for window in found for run in window.runs]
    masked = [len(run.split()) for window in found for run in window.runs[1::2]]
    assert 0.12 < sum(masked) / sum(words) < 0.18
    assert 1.5 < np.mean(masked) < 2.5
    assert list(windows(TEXTS[0])) == found[: len(list(windows(TEXTS[0])))]
    assert len({window.runs for window in found}) == len(found)


def saved(folder, size=100, architecture="encoder-decoder", zero=False):
    vocabulary = train(folder.with_suffix(".model"), vocab_size=size)
    config = model_config(
        "tiny", architecture, num_layers=2, d_model=32, d_ff=32, d_kv=8,
        vocab_size=Vocabulary(vocabulary).padded_size,
    )  # fmt: skip
    params = T5(config).init(jax.random.key(0))
    if zero:
        params = jax.tree.map(lambda x: 0 * x, params)
    save_params(folder, config, params, vocabulary)
    return config, params, Vocabulary(vocabulary)


def one_by_one(config, params, vocabulary, found, whole):
    """A twin that packs nothing and takes each window by itself."""
    nats = 0.0
    compute = jax.jit(T5(config).logits)
    for window in found:
        inputs, targets = [], []
        if whole:
            targets = vocabulary.encode(" ".join(window.runs))
        for place, run in enumerate([] if whole else window.runs):
            sentinel = [vocabulary.sentinel(place // 2)]
            if place % 2:
                inputs += sentinel
                targets += sentinel + vocabulary.encode(run)
            else:
                inputs += vocabulary.encode(run)
        inputs = [] if whole else [*inputs, 1]
        targets.append(1)
        both = targets if config.has_encoder else [*inputs, *targets]
        batch = {
            "decoder_input_tokens": [0, *both[:-1]],
            "decoder_segments": [1] * len(both),
        }
        first = 0 if config.has_encoder else len(inputs)
        if config.has_encoder:
            batch |= {"encoder_tokens": inputs, "encoder_segments": [1] * len(inputs)}
        else:
            batch["prefix"] = [1] * (len(inputs) + 1)
        rows = {
            name: np.array([row + [0] * (700 - len(row))], np.int32) for name, row in batch.items()
        }
        logits = compute(params, rows)[0, first : first + len(targets)]
        chosen = jax.nn.log_softmax(logits)[np.arange(len(targets)), np.array(targets)]
        nats -= float(chosen.sum())
    return nats / math.log(2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "whole"),
    [("encoder-decoder", False), ("prefix-language-model", False), ("language-model", True)],
)
def test_bits_are_those_of_each_window_by_itself(tmp_path, architecture, whole):
    config, params, vocabulary = saved(tmp_path / "run", architecture=architecture)
    found = list(windows(TEXTS[0]))[-2:]
    measured = measure(tmp_path / "run", found, whole=whole)
    wanted = one_by_one(config, params, vocabulary, found, whole)
    assert measured.bits == pytest.approx(wanted, rel=1e-4)
    assert measured.bytes == sum(window.bytes(whole) for window in found)


@pytest.mark.slow
def test_runs_of_different_vocabularies_predict_the_same_bytes(tmp_path, capsys):
    lines = tmp_path / "texts.jsonl"
    size = write_texts(lines, TEXTS, 5000)
    assert 5000 <= size < 7000
    found = read_texts(lines)
    assert found == [w for text in TEXTS for w in windows(text)][: len(found)]
    runs = [tmp_path / "small", tmp_path / "large"]
    models = [saved(run, pieces, zero=True) for run, pieces in zip(runs, (80, 110), strict=True)]
    assert main(["--texts", str(lines), *map(str, runs)]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["run"] for line in printed] == [str(run) for run in runs]
    for line, (config, _, _) in zip(printed, models, strict=True):
        bits = line["texts"][str(lines)]
        # All parameters are zero, so all tokens are equally likely.
        assert bits["bits"] == pytest.approx(
            bits["tokens"] * math.log2(config.vocab_size), rel=1e-4
        )
        assert bits["bytes"] == sum(window.bytes(False) for window in found)
    assert printed[0]["texts"][str(lines)]["tokens"] > printed[1]["texts"][str(lines)]["tokens"]


def test_nothing_to_measure_is_named(tmp_path):
    with pytest.raises(ValueError, match="no held-out text"):
        measure(tmp_path, [])
