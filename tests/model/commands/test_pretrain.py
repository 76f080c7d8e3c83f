"""``c4 pretrain`` refuses in one line, before anything is compiled."""

import argparse
import json
import pathlib
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.commands import pretrain
from model.commands.pretrain_config import model_of
from model.data.sentencepiece_model import Notes, with_notes
from model.data.vocabulary import Vocabulary
from model.t5.config import model_config
from model.training.model_folders import save_params
from testing.corpora import make_corpus, numbered
from testing.helpers import run_c4
from testing.tiny_t5 import random_params
from testing.vocabularies import train


def _c4(material, out, *more):
    return run_c4(
        "pretrain", "--corpus", material.corpus, "--vocab", material.vocab, "--out", out,
        "--size", "tiny", "--input-length", "32", "--batch-size", "8", "--workers", "0", *more,
    )  # fmt: skip


@pytest.fixture
def uncompiled(monkeypatch):
    """For dry runs that are not about memory."""
    monkeypatch.setattr("model.training.trainer.compile_programs", lambda *_, **__: (None, None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corpus", "/nowhere"], "/nowhere"),
        (["--vocab", "/nowhere"], "/nowhere"),
        (["--vocab", __file__], "not a SentencePiece model"),
        (["--size", "smal"], "perhaps 'small'"),
        (["--architecture", "decoder"], "no architecture 'decoder'"),
        (["--objective", "spam3"], "span3"),
        (["--objective", "causal_lm"], "prefix_lm"),
        (["--noise-density", "2"], "--noise-density"),
        (["--batch-size", "12"], "give --batch-size a multiple of 8"),
        (["--batch-size", "0"], "batch_size"),
        (["--accumulate", "3"], "--accumulate"),
        (["--accumulate", "2"], "multiple of 16"),
        (["--input-length", "2"], "input_length"),
        (["--mesh", "data=3"], "--mesh"),
        (["--mesh", "rows=3"], "--mesh"),
        (["--steps", "0"], "--steps"),
        (["--steps", str(2**31)], "steps must be between 1 and 2,147,483,647"),
        (["--warmup", str(2**31)], "warmup must be at most 2,147,483,647"),
        (["--seed", str(2**32)], "--seed"),
        (["--max-pages", "0"], "--max-pages"),
        (["--profile", "-1"], "(--profile)"),
        (["--size", ""], "--size is empty"),
        (["--out", ""], "--out is empty"),
        (["--set", "d_model=" + 100_000 * "["], "d_model must be a positive integer"),
        (["--set", "relative_buckets=4.0"], "relative_buckets must be a positive integer"),
        (["--eval-batches", str(10**12)], f"--eval-batches {10**12} needs "),
        (["--keep-last", "0"], "--keep-last"),
        (["--keep-every", "0"], "--keep-every"),
        (["--eval-every", "-1"], "--eval-every"),
        (["--learning-rate", "-1"], "--learning-rate"),
        (["--learning-rate-schedule", "cosine"], "no learning rate schedule 'cosine'"),
        (["--warmup", "0"], "--warmup"),
        (["--divergence", "0"], "--divergence"),
        (["--log-every", "0"], "--log-every"),
        (["--report-to", "tensorbord"], "known: tensorboard, wandb, none (--report-to)"),
        (["--report-to", "none,wandb"], "--report-to none goes with no other"),
        (["--z-loss", "-1"], "--z-loss"),
        (["--dropout", "1"], "must be in [0, 1), got 1.0 (--dropout)"),
        (["--peak-tflops", "0"], "--peak-tflops"),
        (["--set", "d_modle=3"], "names: d_ff, d_kv, d_model"),
        (["--set", "vocab_size=3"], "given by --vocab"),
        (["--set", "d_model=big"], "d_model must be a positive integer, got 'big'"),
        (["--set", "tied_logits=3"], "'3' is not a value of tied_logits"),
        (["--init-from", "/nowhere"], "leave --size out"),
        (["--out", "ftp://host/run"], "ftp:// is not supported"),
        (["--coordinator", "localhost:1"], "--processes"),
    ],
)
def test_impossible_requests(material, tmp_path, options, message):
    out = tmp_path / "run"
    outcome = _c4(material, out, *options)
    assert outcome.status == 1
    assert outcome.err.startswith("c4: error: ")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert not out.exists() or [path.name for path in out.iterdir()] == [".lock"]


def test_missing_options(material, tmp_path):
    assert "--corpus is missing" in run_c4("pretrain", "--out", tmp_path / "run").err
    assert "--out is missing" in run_c4("pretrain", "--corpus", material.corpus).err
    outcome = run_c4("pretrain", "--corpus", material.corpus, "--out", tmp_path / "run")
    assert "--vocab is missing" in outcome.err
    outcome = run_c4(
        "pretrain", "--corpus", material.corpus, "--out", tmp_path / "run",
        "--init-from", tmp_path / "none",
    )  # fmt: skip
    assert "no such folder" in outcome.err


def test_what_is_not_there_is_named_with_its_option(material, tmp_path):
    absent = tmp_path / "absent"
    for option in ("--corpus", "--vocab"):
        outcome = _c4(material, tmp_path / "run", option, absent)
        assert outcome.status == 1
        assert str(absent) in outcome.err
        assert outcome.err.endswith(f" ({option})\n")
    assert not (tmp_path / "run").exists()


def test_folders_of_others(material, tmp_path):
    (tmp_path / "thesis.txt").write_text("do not lose")
    assert "holds thesis.txt" in _c4(material, tmp_path).err
    assert "is not a folder" in _c4(material, tmp_path / "thesis.txt").err


def test_evaluation_without_validation_pages(material, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", {"train": numbered([20])})
    asked = _c4(material, tmp_path / "run", "--corpus", corpus, "--eval-every", "5")
    assert asked.status == 1
    assert "validation" in asked.err


@pytest.mark.slow
@pytest.mark.usefixtures("quick_xla")
def test_dry_run(material, tmp_path):
    outcome = _c4(material, tmp_path / "run", "--dry-run", "--objective", "span5")
    assert outcome.status == 0
    assert "mesh         data=8,fsdp=1,tensor=1 of cpu" in outcome.out
    assert "span5" in outcome.out
    assert "parameters" in outcome.out
    assert "the training step keeps " in outcome.out
    assert not (tmp_path / "run").exists()


def test_dry_run_looks_at_corpus_and_folder(material, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", {"train": numbered([20])})
    [shard] = pathlib.Path(corpus).glob("train*")
    shard.unlink()
    outcome = _c4(material, tmp_path / "run", "--dry-run", "--corpus", corpus)
    assert outcome.status == 1
    assert f"{shard} is missing, though manifest.json lists it" in outcome.err
    (tmp_path / "thesis.txt").write_text("do not lose")
    assert "holds " in _c4(material, tmp_path, "--dry-run").err


@pytest.mark.usefixtures("uncompiled")
def test_dry_run_says_how_often_the_corpus_is_read(material, tmp_path):
    text = [["the fox sees three apples. " * 4] * 5]
    corpus = make_corpus(tmp_path / "corpus", {"train": text})
    outcome = _c4(material, tmp_path / "run", "--dry-run", "--corpus", corpus, "--steps", "1000")
    [line] = [line for line in outcome.out.splitlines() if line.startswith("corpus ")]
    found = re.search(r"5 pages, ([\d,]+) tokens: the run reads the corpus ([\d,.]+) times", line)
    tokens = 5 * len(Vocabulary(material.vocab).encode(text[0][0]))
    assert int(found[1].replace(",", "")) == tokens
    # A row holds some 30 tokens of text, and the run has 8,000 rows.
    passes = float(found[2].replace(",", ""))
    assert 0.5 < passes * tokens / (30 * 8000) < 1.5


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (["--input-length", "512"], None),
        (["--input-length", "1700"], None),
        (["--input-length", "1900"], 105),
        (["--input-length", "512", "--objective", "iid"], None),
        (["--input-length", "512", "--objective", "iid25"], 130),
        (["--input-length", "512", "--objective", "iid50"], 158),
        (["--input-length", "4096", "--objective", "mass"], None),
    ],
)
def test_more_spans_than_sentinels_are_said_before_training(material, tmp_path, options, needed):
    outcome = _c4(material, tmp_path / "run", "--dry-run", *options)
    assert outcome.status == 0
    assert outcome.err.count("\n") == (needed is not None)
    if needed is None:
        return
    assert f"makes up to {needed} spans" in outcome.err
    assert "the vocabulary has 100 sentinels" in outcome.err
    content = pathlib.Path(material.vocab).read_bytes()
    (tmp_path / "v").write_bytes(with_notes(content, Notes(extra_ids=needed)))
    more = _c4(material, tmp_path / "run", "--dry-run", *options, "--vocab", tmp_path / "v")
    assert (more.status, more.err) == (0, "")


@pytest.mark.usefixtures("uncompiled")
def test_a_vocabulary_without_sentinels_is_told_which_objectives_need_none(material, tmp_path):
    content = pathlib.Path(material.vocab).read_bytes()
    (tmp_path / "v").write_bytes(with_notes(content, Notes(extra_ids=0)))
    refused = _c4(material, tmp_path / "run", "--vocab", tmp_path / "v")
    assert refused.status == 1
    assert "span3 needs sentinels, and the vocabulary has none: causal_lm, prefix_lm" in refused.err
    taken = _c4(
        material, tmp_path / "run", "--vocab", tmp_path / "v", "--objective", "drop", "--dry-run"
    )
    assert (taken.status, taken.err) == (0, "")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"model_type": "bpe"}, "model_type is bpe"),
        ({"byte_fallback": True, "vocab_size": 350}, "byte_fallback"),
        ({"add_dummy_prefix": False}, "add_dummy_prefix"),
        ({"remove_extra_whitespaces": False}, "remove_extra_whitespaces"),
        ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix"),
    ],
)
def test_vocabularies_that_would_export_other_ids(material, tmp_path, options, name):
    outcome = _c4(material, tmp_path / "run", "--vocab", train(tmp_path / "v", **options))
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    assert name in outcome.err
    assert not (tmp_path / "run").exists()


def _init_from(material, folder, *more):
    return run_c4(
        "pretrain", "--corpus", material.corpus, "--out", folder.parent / "run", "--dry-run",
        "--init-from", folder, "--input-length", "32", "--batch-size", "8", "--workers", "0", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(material, tmp_path_factory):
    """Parameters with a vocabulary, without one, and with another end of sequence."""
    folder = tmp_path_factory.mktemp("checkpoints")
    config = model_config("tiny", vocab_size=256, d_model=16, d_ff=24, d_kv=4, num_heads=3)
    params = random_params(config)
    save_params(folder / "kept", config, params, material.vocab)
    save_params(folder / "none", config, params)
    save_params(folder / "end", config.replace(eos_ids=(5,)), params, material.vocab)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
def test_a_checkpoint_goes_with_its_own_vocabulary(material, checkpoints, tmp_path):
    assert _init_from(material, checkpoints / "kept").status == 0
    assert _init_from(material, checkpoints / "kept", "--vocab", material.vocab).status == 0
    other = train(tmp_path / "v")
    refused = _init_from(material, checkpoints / "kept", "--vocab", other)
    assert refused.status == 1
    assert "v differs from the vocabulary of" in refused.err
    without = _init_from(material, checkpoints / "none")
    assert "keeps no vocabulary, so give the SentencePiece model that it" in without.err
    assert "c4 vocab" not in without.err
    assert _init_from(material, checkpoints / "none", "--vocab", other).status == 0


def test_a_model_that_ends_sequences_otherwise_is_not_trained(material, checkpoints):
    outcome = _init_from(material, checkpoints / "end")
    assert outcome.status == 1
    assert "has eos_ids (5,), and training needs (1,)" in outcome.err


@pytest.mark.usefixtures("uncompiled")
def test_text_of_ones_own(material, tmp_path):
    (tmp_path / "mine").mkdir()
    pages = ["the fox sees three apples. the quiet town sells some warm bread."] * 40
    pq.write_table(pa.table({"text": pages}), tmp_path / "mine" / "a.parquet")
    listed = [{"name": "a.parquet", "split": "train", "pages": 40}]
    (tmp_path / "mine" / "manifest.json").write_text(json.dumps({"shards": listed}))
    outcome = _c4(material, tmp_path / "run", "--dry-run", "--corpus", tmp_path / "mine")
    assert outcome.status == 0
    assert "40 pages" in outcome.out
    (tmp_path / "mine.jsonl").write_text("{}")
    refused = _c4(material, tmp_path / "run", "--corpus", tmp_path / "mine.jsonl")
    assert refused.status == 1
    assert "; for text of your own see docs/training.md (--corpus)" in refused.err


def test_both_names_of_the_folder():
    parser = argparse.ArgumentParser()
    pretrain.add_arguments(parser)
    assert parser.parse_args(["--out", "a"]).out == parser.parse_args(["--output", "a"]).out == "a"


def test_a_model_by_options():
    parser = argparse.ArgumentParser()
    pretrain.add_arguments(parser)
    arguments = parser.parse_args(
        ["--size", "v1.1-small", "--set", "num_layers=3", "--dropout", "0.25", "--remat", "dots"]
    )
    config = model_of(arguments, 256)
    assert (config.num_layers, config.dropout_rate, config.remat) == (3, 0.25, "dots")
    assert (config.vocab_size, config.dtype, config.feed_forward) == (256, "bfloat16", "gated-gelu")
