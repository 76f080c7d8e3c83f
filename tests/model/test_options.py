"""Error messages name options that exist, for every field that a run remembers or checks."""

import argparse
import dataclasses
import json
import re

import pytest
from flax.traverse_util import flatten_dict

from model.commands import finetune, pretrain
from model.data.input_config import InputConfig
from model.data.objectives import OBJECTIVES
from model.data.sentencepiece_model import Notes, with_notes
from model.t5.config import ModelConfig, model_config
from model.training.run_folder import RunFolder
from model.training.train_config import StepConfig, TrainConfig, run_option_of
from testing.corpora import NumberVocabulary, make_corpus
from testing.helpers import run_c4
from testing.material import material, quick_xla
from testing.vocabularies import train

__all__ = ["material", "quick_xla"]


def _known_options():
    parsers = [argparse.ArgumentParser(), argparse.ArgumentParser()]
    pretrain.add_arguments(parsers[0])
    finetune.add_arguments(parsers[1])
    return {
        option for each in parsers for action in each._actions for option in action.option_strings
    }


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    corpus = make_corpus(tmp_path_factory.mktemp("corpus"), {"train": [["1 2", "3 4"]]})
    data = InputConfig(corpus=corpus, vocabulary=NumberVocabulary(), batch_size=8)
    config = TrainConfig(out="run", model=model_config("tiny"), data=data)
    return config.settings(data)


def _options_in(text):
    return re.findall(r"--[a-z-]+", text)


def test_every_setting_that_a_run_remembers_is_blamed_on_an_option_that_exists(settings, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(settings, model_config("tiny"), None)
    folder.metrics.write_text('{"step": 1}\n')  # without a step it takes any settings
    known, without = _known_options(), []
    remembered = flatten_dict(json.loads(json.dumps(settings)), sep=".")
    for name in remembered:
        changed = json.loads(json.dumps(settings))
        group, _, field = name.rpartition(".")
        (changed[group] if group else changed)[field] = "another"
        with pytest.raises(ValueError, match="was begun with") as caught:
            folder.check(changed)
        message = str(caught.value)
        assert "input." not in message
        named = _options_in(message.partition("or another --out")[2])
        assert set(named) <= known, message
        if not named:
            without.append(name)
    assert without == ["loss_on_inputs"]  # no option sets it
    assert len(remembered) > 30


@pytest.mark.parametrize("kind", [TrainConfig, InputConfig, StepConfig, ModelConfig])
def test_every_field_of_a_configuration_has_an_option_or_none(kind):
    known = _known_options()
    by_themselves = {"out", "model", "data", "step", "prng", "dropout_broadcast"}
    prefix = "model." if kind is ModelConfig else ""
    for field in dataclasses.fields(kind):
        if field.name not in by_themselves:
            assert set(_options_in(run_option_of(prefix + field.name))) <= known, field.name


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(OBJECTIVES["span3"])])
def test_every_field_of_an_objective_has_an_option(name):
    assert run_option_of(f"input.objective {name}") in ("--objective", "--noise-density")


@pytest.fixture(scope="module")
def begun(material, tmp_path_factory):
    out = tmp_path_factory.mktemp("begun") / "run"
    assert _pretrain(material, out, "--steps", 1).status == 0
    return out


def _pretrain(material, out, *more):
    return run_c4(
        "pretrain", "--corpus", material.corpus, "--vocab", material.vocab, "--out", out,
        "--size", "tiny", "--set", "d_model=32", "--set", "num_layers=1", "--input-length", "32",
        "--batch-size", "8", "--workers", "0", "--eval-every", "0", *more,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("quick_xla")
@pytest.mark.parametrize(
    "options",
    [
        ["--seed", "7"],
        ["--max-pages", "50"],
        ["--objective", "iid"],
        ["--noise-density", "0.2"],
        ["--input-length", "64"],
        ["--batch-size", "16"],
        ["--set", "d_model=64"],
        ["--architecture", "half-layer", "--set", "num_layers=4"],
        ["--dropout", "0.3"],
        ["--dtype", "bfloat16"],
        ["--learning-rate", "0.5"],
        ["--learning-rate-schedule", "constant"],
        ["--warmup", "5"],
        ["--z-loss", "0.5"],
        ["--label-smoothing", "0.5"],
        ["--loss-divisor", "sum"],
        ["--input-shards", "2"],
        ["--corpus", "OTHER"],
        ["--vocab", "OTHER"],
        ["--vocab", "LARGER"],
    ],
    ids=" ".join,
)
def test_resuming_with_another_setting_names_the_option_that_was_typed(
    material, begun, tmp_path, options
):
    if options == ["--corpus", "OTHER"]:
        pages = [["a page of another corpus"] * 20]
        options = ["--corpus", make_corpus(tmp_path / "c", {"train": pages})]
    elif options[0] == "--vocab":
        path = train(tmp_path / "v")
        if options[1] == "LARGER":  # another number of rows in the embedding
            path.write_bytes(with_notes(path.read_bytes(), Notes(extra_ids=300)))
        options = ["--vocab", tmp_path / "v"]
    outcome = _pretrain(material, begun, "--steps", 2, *options)
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    assert options[0] in outcome.err.partition("or another --out")[2], outcome.err
    assert "input." not in outcome.err
