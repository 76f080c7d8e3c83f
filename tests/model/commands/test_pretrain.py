"""``c4 pretrain`` refuses in one line, before anything is compiled."""

import argparse
import pathlib

import pytest

from model.commands import pretrain
from tests.helpers import run_c4
from tests.model.data.corpora import make_corpus, numbered


def _c4(material, out, *more):
    return run_c4(
        "pretrain", "--corpus", material.corpus, "--vocab", material.vocab, "--out", out,
        "--size", "tiny", "--input-length", "32", "--batch-size", "8", "--workers", "0", *more,
    )  # fmt: skip


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
        (["--steps", str(2**31)], "steps must be below 2**31"),
        (["--warmup", str(2**63)], "warmup must be below 2**31"),
        (["--seed", str(2**63)], "--seed"),
        (["--max-pages", "0"], "--max-pages"),
        (["--profile", "-1"], "(--profile)"),
        (["--size", ""], "--size is empty"),
        (["--out", ""], "--out is empty"),
        (["--set", "d_model=" + 100_000 * "["], "d_model must be a positive integer"),
        (["--set", "relative_buckets=4.0"], "relative_buckets must be a positive integer"),
        (["--keep-last", "0"], "--keep-last"),
        (["--keep-every", "0"], "--keep-every"),
        (["--eval-every", "-1"], "--eval-every"),
        (["--learning-rate", "-1"], "--learning-rate"),
        (["--learning-rate-schedule", "cosine"], "no learning rate schedule 'cosine'"),
        (["--warmup", "0"], "--warmup"),
        (["--divergence", "0"], "--divergence"),
        (["--z-loss", "-1"], "--z-loss"),
        (["--dropout", "1"], "dropout_rate"),
        (["--peak-tflops", "0"], "--peak-tflops"),
        (["--set", "d_modle=3"], "names: d_ff, d_kv, d_model"),
        (["--set", "vocab_size=3"], "given by --vocab"),
        (["--set", "d_model=big"], "d_model must be a positive integer, got 'big'"),
        (["--set", "tied_logits=3"], "'3' is no value of tied_logits"),
        (["--init-from", "/nowhere"], "leave --size out"),
        (["--out", "gs://bucket/run"], "mounted file system"),
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


def test_folders_of_others(material, tmp_path):
    (tmp_path / "thesis.txt").write_text("do not lose")
    assert "holds thesis.txt" in _c4(material, tmp_path).err
    assert "is no folder" in _c4(material, tmp_path / "thesis.txt").err


def test_evaluation_without_validation_pages(material, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", {"train": numbered([20])})
    asked = _c4(material, tmp_path / "run", "--corpus", corpus, "--eval-every", "5")
    assert asked.status == 1
    assert "validation" in asked.err


def test_dry_run(material, tmp_path):
    outcome = _c4(material, tmp_path / "run", "--dry-run", "--objective", "span5")
    assert outcome.status == 0
    assert "mesh         data=8,fsdp=1,tensor=1 of cpu" in outcome.out
    assert "span5" in outcome.out
    assert "parameters" in outcome.out
    assert not (tmp_path / "run").exists()


def test_dry_run_looks_at_corpus_and_folder(material, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", {"train": numbered([20])})
    [shard] = pathlib.Path(corpus).glob("train*")
    shard.unlink()
    outcome = _c4(material, tmp_path / "run", "--dry-run", "--corpus", corpus)
    assert outcome.status == 1
    assert f"{shard}: missing, though manifest.json lists it" in outcome.err
    (tmp_path / "thesis.txt").write_text("do not lose")
    assert "holds " in _c4(material, tmp_path, "--dry-run").err


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
    config = pretrain.model_of(arguments, 256)
    assert (config.num_layers, config.dropout_rate, config.remat) == (3, 0.25, "dots")
    assert (config.vocab_size, config.dtype, config.feed_forward) == (256, "bfloat16", "gated-gelu")
