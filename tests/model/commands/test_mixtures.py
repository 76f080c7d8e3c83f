"""``c4 pretrain --tasks``: rates that are printed, kept and trained with."""

import argparse
import json
import re

import pytest

from model.commands.mixture_options import MixtureOptions, mixed_inputs
from model.tasks import mixture
from model.tasks.prepared import prepare
from model.training.metrics import read_rows
from pipelines.options import add_options
from testing.helpers import run_c4
from testing.material import material, quick_xla

__all__ = ["material", "quick_xla"]

pytestmark = pytest.mark.usefixtures("quick_xla")

COUNTS = {"glue_cola": 60, "glue_rte": 20, "dpr": 10}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    raws = {
        "glue_cola": {"sentence": "the fox sees a letter", "label": 1},
        "glue_rte": {"sentence1": "the fox sees", "sentence2": "a grey cat", "label": 0},
        "dpr": {
            "sentence": "the fox likes it", "pronoun": "it", "candidates": ["a", "b"], "label": 1,
        },
    }  # fmt: skip
    for name, count in COUNTS.items():
        rows = [("train", raws[name] | {"idx": n}) for n in range(count)]
        rows += [("validation", raws[name] | {"idx": 0})] * (name != "dpr")
        prepare(name, rows, folder, "x")
    return str(folder)


def pretrain(material, data, out, *more, corpus=True):
    return run_c4(
        "pretrain", "--vocab", material.vocab, "--out", out, "--data", data,
        *(["--corpus", material.corpus] if corpus else []), "--size", "tiny",
        "--set", "d_model=32", "--set", "d_ff=64", "--set", "d_kv=8", "--set", "num_layers=1",
        "--input-length", "32", "--batch-size", "8", "--workers", "0", *more,
    )  # fmt: skip


def rates_in(text):
    (line,) = [line for line in text.splitlines() if line.startswith("mixture")]
    pairs = line.removeprefix("mixture").strip(" :").split(", ")
    return {name: float(rate) for name, rate in map(str.split, pairs)}


def inputs_of(*options):
    parser = argparse.ArgumentParser()
    add_options(parser, MixtureOptions)
    parser.add_argument("--corpus", default=argparse.SUPPRESS)
    return mixed_inputs(parser.parse_args(options))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], {}),
        (["--mixing-limit", "30"], {"limit": 30}),
        (["--mixing-limit", "30", "--temperature", "2"], {"limit": 30, "temperature": 2.0}),
        (["--equal"], {"equal": True}),
        (["--leave-out", "dpr", "--mixing-limit", "30"], {"limit": 30, "leave_out": "dpr"}),
        (["--unsupervised-size", "100"], {"unsupervised_size": 100}),
    ],
)
@pytest.mark.parametrize("corpus", [True, False])
def test_rates_are_those_of_the_mixture_with_the_datas_counts(data, options, wanted, corpus):
    tasks = ["--data", data, "--tasks", "glue_cola,glue_rte", "--tasks", "dpr"]
    if not corpus and "--unsupervised-size" in options:
        with pytest.raises(ValueError, match="is for a mixture with a corpus"):
            inputs_of(*tasks, *options)
        return
    found = inputs_of(*tasks, *options, *(["--corpus", "c"] if corpus else []))
    mixed = mixture(tuple(COUNTS), unsupervised=corpus, **({"limit": 2**19} | wanted))
    rates = {task.name: task.rate for task in found["tasks"]}
    assert rates | ({"c4": found["corpus_rate"]} if corpus else {}) == mixed.rates(COUNTS)


@pytest.mark.slow
def test_a_dry_run_of_tasks_alone_prints_the_rates(material, data, tmp_path):
    options = ["--tasks", "glue_cola,glue_rte", "--mixing-limit", "30", "--dry-run"]
    outcome = pretrain(material, data, tmp_path / "run", *options, corpus=False)
    assert outcome.status == 0, outcome
    assert rates_in(outcome.out) == pytest.approx({"glue_cola": 0.6, "glue_rte": 0.4})
    assert "glue_cola    60 examples: the run reads them " in outcome.out
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_mixture_trains_and_remembers_its_rates(material, data, tmp_path):
    options = ["--tasks", "glue_cola,dpr", "--mixing-limit", "30", "--eval-batches", "1"]
    first = pretrain(material, data, tmp_path / "run", *options, "--steps", "3")
    assert first.status == 0, first
    rates = {"c4": 3 / 7, "glue_cola": 3 / 7, "dpr": 1 / 7}
    assert rates_in(first.out) == pytest.approx(rates, rel=5e-3)
    assert "glue_cola: 60 examples: the run reads them " in first.out
    assert "validation: glue_cola, 1 example: too few to trust its loss" in first.out
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["input"]
    assert kept["rate of glue_cola"] == pytest.approx(3 / 7, abs=1e-12)
    evaluation = read_rows(tmp_path / "run" / "metrics.jsonl")[-1]
    assert evaluation.keys() == {
        "step",
        *(f"{prefix}{what}" for what in ("loss", "accuracy")
          for prefix in ("validation_", "validation/c4/", "validation/glue_cola/")),
    }  # fmt: skip

    again = pretrain(material, data, tmp_path / "run", *options, "--steps", "5")
    assert again.status == 0, again
    assert "resuming from step 3" in again.out
    changed = pretrain(
        material, data, tmp_path / "run", *options[:2], "--mixing-limit", "40", "--steps", "7"
    )
    assert changed.status == 1
    assert "was begun with rate of c4 0.42857142857142855, now it is 0.444" in changed.err
    assert "--mixing-limit" in changed.err
    assert changed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--tasks", "glue_cola,cola"],
            "no task or mixture 'cola', perhaps 'glue_cola': c4",
        ),
        (["--tasks", "glue"], "has no data of glue_sst2, glue_mrpc"),
        (["--equal"], r"--data is for tasks: name them too \(--tasks\)"),
        (["--tasks", "glue_cola,"], "--tasks has an empty name"),
        (["--tasks", "glue_cola", "--temperature", "0"], "the temperature must be positive, got 0"),
        (["--tasks", "glue_cola", "--mixing-limit", "0"], "mixing_limit must be at least 1"),
        (["--tasks", "glue_cola", "--leave-out", "dpr"], "'dpr' is not in the mixture"),
    ],
)
def test_mixtures_that_cannot_be(material, data, tmp_path, more, message):
    outcome = pretrain(material, data, tmp_path / "run", *more)
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    assert re.search(message, outcome.err), outcome.err
